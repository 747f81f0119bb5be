"""Spectra of bursts of one length and rate: one real FFT under a Hann window, and sums over it.

A Hann window widens a line to three bins, so that a tone less than two bins from a band's edge is
partly counted outside. Sums of squares are divided by the window's own (its equivalent noise
bandwidth), which is right for noise and for tones alike.
"""

import math

import numpy as np
from numpy.typing import NDArray

from contract.arrays import Floats
from contract.errors import ConfigError

Floats32 = NDArray[np.float32]
Spectra = NDArray[np.complexfloating]


def hann(n: int) -> Floats:
    """Return the periodic Hann window.

    >>> hann(4).round(6).tolist()
    [0.0, 0.5, 1.0, 0.5]
    """
    return 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(n) / n)


class Spectrum:
    """Power per bin of several bursts at once, in scratch space of its own.

    Args:
        rate_hz: samples a second.
        samples: n, of a burst.
        most: bursts at once, at most.
    """

    def __init__(self, rate_hz: float, samples: int, most: int) -> None:
        self.samples = samples
        self.step_hz = float(rate_hz / samples)
        self.nyquist_hz = float(rate_hz / 2.0)
        self.frequencies = np.arange(samples // 2 + 1) * self.step_hz
        window = hann(samples)
        self.to_mean_square = 2.0 / (samples * float(window @ window))
        """What the sum over a band's bins is multiplied by."""
        self._window = window.astype(np.float32)
        self._windowed = np.empty((most, samples), dtype=np.float32)
        self._power = np.empty((most, len(self.frequencies)), dtype=np.float32)
        self._work = np.empty_like(self._power)

    def bins(self, low_hz: float, high_hz: float, what: str) -> slice:
        """Return the bins from ``low_hz`` to below ``high_hz``: bands that touch share none.

        Raises:
            ConfigError: no band, beyond Nyquist, or too narrow to hold a bin; names ``what``.
        """
        if not 0.0 <= low_hz < high_hz:
            raise ConfigError(
                f"{what}: a band rises from 0 Hz or more, not {low_hz:g}..{high_hz:g}"
            )
        if high_hz > self.nyquist_hz:
            raise ConfigError(
                f"{what}: {high_hz:g} Hz lies beyond half the sampling rate, {self.nyquist_hz:g} Hz"
            )
        first = math.ceil(low_hz / self.step_hz - 1e-9)
        end = math.ceil(high_hz / self.step_hz - 1e-9)
        if high_hz == self.nyquist_hz:
            end = len(self.frequencies)
        if end <= first:
            raise ConfigError(
                f"{what}: no spectral line lies in {low_hz:g}..{high_hz:g} Hz, they are "
                f"{self.step_hz:g} Hz apart: widen it, or take longer bursts"
            )
        return slice(first, end)

    def of(self, centred: Floats32) -> tuple[Spectra, Floats32]:
        """Return spectra ``(k, bins)`` of centred bursts ``(k, n)``, and their one-sided power.

        The power is good until the next call; that at Nyquist is halved, so that
        ``to_mean_square`` holds for all.
        """
        k = len(centred)
        windowed, power, work = self._windowed[:k], self._power[:k], self._work[:k]
        np.multiply(centred, self._window, out=windowed)
        spectra = np.fft.rfft(windowed)
        # The mean under the window is what is left in bin 0. It is not the plain mean, if a slow
        # vibration does not end where it began, and half of it would leak into bin 1.
        spectra[:, 1] += 0.5 * spectra[:, 0]
        spectra[:, 0] = 0.0
        np.multiply(spectra.real, spectra.real, out=power, casting="same_kind")
        np.multiply(spectra.imag, spectra.imag, out=work, casting="same_kind")
        power += work
        if self.samples % 2 == 0:
            power[:, -1] *= 0.5
        return spectra, power

    def weighted(self, power: Floats32, bins: slice, weights: Floats32) -> Floats32:
        """Return the sums ``(k,)`` over some bins, each times its weight."""
        work = self._work[: len(power), bins]
        np.multiply(power[:, bins], weights, out=work)
        total: Floats32 = np.add.reduce(work, axis=1)
        return total


def fast_length(least: int) -> int:
    """Return the next even length of 2, 3 and 5 alone: quick to transform.

    >>> [fast_length(n) for n in (1, 100, 1845, 2049)]
    [2, 100, 1920, 2160]
    """
    n = least + least % 2
    while True:
        rest = max(n, 2)
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return max(n, 2)
        n += 2
