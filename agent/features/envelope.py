"""Lines of the envelope spectrum: how strongly a band's amplitude beats with a bearing's defects.

A struck resonance rings at its own frequency, far above the rate of the strikes; the rate is found
in the amplitude of the ringing. The band's bins are shifted to zero and transformed back, which is
the analytic signal of the band at a lower rate; its squared magnitude is the squared envelope. The
square, and not its root: its spectrum ends at the band's width, so that nothing folds back at the
low rate, and it shows lines better (D. Ho and R. B. Randall, Optimisation of bearing diagnostic
techniques using simulated and actual bearing fault signals, MSSP 14 (2000); R. B. Randall and
J. Antoni, Rolling element bearing diagnostics: a tutorial, MSSP 25 (2011)).

The spectrum that comes in is that of a Hann-windowed burst, so the squared envelope bears the
window's square already, and its constant part stays within the first three bins.
"""

import numpy as np
from numpy.typing import NDArray

from agent.features.spectrum import Floats32, Spectra, fast_length
from contract.arrays import Floats

HARMONICS = 3
"""Of a defect frequency, that are averaged."""

SLIP = 0.02
"""How far a line may lie from where geometry puts it."""

NARROWEST = 16
"""Bins of a band whose envelope is worth a spectrum: fewer have no median to speak of."""

LEAST = 3
"""The first bin of an envelope spectrum that is free of its constant part."""


class Envelope:
    """Envelope spectra of one band.

    Args:
        band: its bins.
        step_hz: from bin to bin.
        most: bursts at once, at most.

    Attributes:
        top: last bin used: a faster beat has no room for its side lines in the band.
    """

    def __init__(self, band: slice, step_hz: float, most: int) -> None:
        self._band = band
        self._width = int(band.stop - band.start)
        self._step_hz = step_hz
        # Above twice the width the squared envelope does not fold onto itself.
        self._length = fast_length(2 * self._width + 2)
        self.top = self._width // 2
        self._baseband = np.zeros((most, self._length), dtype=np.complex64)
        self._envelope = np.empty((most, self._length), dtype=np.float32)
        self._work = np.empty_like(self._envelope)

    @property
    def low_hz(self) -> float:
        """Return the slowest beat that can be told from the constant part."""
        return LEAST * self._step_hz

    @property
    def high_hz(self) -> float:
        """Return the fastest beat that the band has room for."""
        return self.top * self._step_hz

    def places(self, hz: Floats) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return where to look for lines at ``hz (k, L)``: first bin and end; and whether at all.

        Returns:
            ``(k, L, HARMONICS, 2)``, and ``(k, L, HARMONICS)``; nowhere if the first harmonic
            is out of range or NaN.
        """
        centre = hz[:, :, None] / self._step_hz * np.arange(1.0, HARMONICS + 1.0)
        there = (centre[:, :, :1] >= LEAST) & (centre <= self.top)  # False for NaN
        centre = np.where(there, centre, LEAST)
        room = np.maximum(1.0, SLIP * centre)
        first = np.clip(np.ceil(centre - room), LEAST, self.top)
        end = np.clip(np.floor(centre + room), LEAST, self.top) + 1.0
        return np.stack([first, end], axis=-1).astype(np.int64), there

    def lines(
        self, spectra: Spectra, places: NDArray[np.int64], there: NDArray[np.bool_]
    ) -> Floats:
        """Return the mean amplitude of each line's harmonics over the median amplitude ``(k, L)``.

        Noise alone gives 1 to 2, more in long bursts, where more bins lie within the slip. 0
        without any envelope; NaN for a line that is nowhere.
        """
        power = self.power(spectra)
        k, bins = power.shape
        used = power[:, LEAST : self.top + 1]
        if used.shape[1] % 2 == 0:  # an odd count has a median among its values
            used = used[:, :-1]
        middle = used.shape[1] // 2
        median = np.sqrt(np.partition(used, middle, axis=1)[:, middle].astype(np.float64))
        flat = (places + (np.arange(k) * bins)[:, None, None, None]).reshape(-1)
        largest = np.maximum.reduceat(power.reshape(-1), flat)[::2].reshape(there.shape)
        amplitude = np.where(there, np.sqrt(largest.astype(np.float64)), 0.0)
        count = np.add.reduce(there, axis=2)
        mean = np.add.reduce(amplitude, axis=2) / np.maximum(count, 1)
        some = median > 0
        over = np.where(some[:, None], mean / np.where(some, median, 1.0)[:, None], 0.0)
        return np.where(count > 0, over, np.nan)

    def power(self, spectra: Spectra) -> Floats32:
        """Return the power spectrum ``(k, bins)`` of the squared envelope, up to a factor."""
        k = len(spectra)
        baseband, envelope, work = self._baseband[:k], self._envelope[:k], self._work[:k]
        baseband[:, : self._width] = spectra[:, self._band]
        analytic = np.fft.ifft(baseband)
        np.multiply(analytic.real, analytic.real, out=envelope, casting="same_kind")
        np.multiply(analytic.imag, analytic.imag, out=work, casting="same_kind")
        envelope += work
        beats = np.fft.rfft(envelope)[:, : self.top + 2]
        power = np.empty(beats.shape, dtype=np.float32)
        squares = np.empty(beats.shape, dtype=np.float32)
        np.multiply(beats.real, beats.real, out=power, casting="same_kind")
        np.multiply(beats.imag, beats.imag, out=squares, casting="same_kind")
        power += squares
        return power
