"""The spectrum of one burst for a person to look at, and where faults would show in it."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.features.bearing import orders
from agent.features.burst import envelope_bins
from agent.features.envelope import LEAST, NARROWEST, Envelope
from agent.features.spectrum import Spectrum
from contract import picture
from contract.spec import Waveform

AnyFloats = NDArray[np.floating[Any]]


def of_burst(
    wave: Waveform, asset: str, t_ns: int, samples: NDArray[np.float32], rpm: float
) -> picture.Spectrum:
    """Return the spectrum of a burst ``(n,)`` that is not bad.

    Hann's window: a sine shows its amplitude, or up to 15 % less where it lies between two lines.
    ``rpm``: of the shaft, either way round; NaN or 0: not known, or it stands.

    >>> t = np.arange(4096) / 4096.0
    >>> wave = Waveform("case", "g", 4096.0, samples=4096)
    >>> sine = (3 * np.sin(2 * np.pi * 100 * t)).astype(np.float32)
    >>> found = of_burst(wave, "fan-1", 0, sine, 1500.0)
    >>> at = int(np.argmax(found.lines.values))
    >>> found.lines.hz[at], round(found.lines.values[at], 3), found.at_hz
    (100.0, 3.0, {'shaft': 25.0})
    """
    n = wave.samples
    spectrum = Spectrum(wave.rate_hz, n, 1)
    centred = samples.astype(np.float64) - np.mean(samples, dtype=np.float64)
    scale = float(np.abs(centred).max()) or 1.0
    spectra, power = spectrum.of((centred / scale).astype(np.float32)[None, :])
    amplitude = np.sqrt(power[0].astype(np.float64)) * (4.0 / n * scale)
    turns = abs(rpm) / 60.0
    known = math.isfinite(turns) and turns > 0
    at_hz: dict[str, float] = {}
    if known:
        at_hz["shaft"] = turns
        if wave.teeth is not None:
            at_hz["mesh"] = wave.teeth * turns
    envelope = None
    if wave.bearing is not None:
        envelope = _envelope(wave, spectrum, spectra)
        if envelope is not None and known:
            at_hz |= {line: order * turns for line, order in orders(wave.bearing).items()}
    return picture.Spectrum(
        asset=asset,
        t=t_ns / 1e9,
        waveform=wave.name,
        unit=wave.unit,
        lines=highest(spectrum.frequencies, amplitude, 1),
        envelope=envelope,
        rpm=_short(abs(rpm)) if known else None,
        at_hz={name: _short(hz) for name, hz in at_hz.items()},
    )


def _envelope(
    wave: Waveform, spectrum: Spectrum, spectra: "NDArray[np.complexfloating]"
) -> picture.Lines | None:
    """Return the spectrum of the squared envelope over its median, as the bearing features are."""
    band = envelope_bins(wave, spectrum)
    if band.stop - band.start < NARROWEST:
        return None
    envelope = Envelope(band, spectrum.step_hz, 1)
    amplitude = np.sqrt(envelope.power(spectra)[0].astype(np.float64))[: envelope.top + 1]
    median = float(np.median(amplitude[LEAST:]))
    over = amplitude / median if median > 0 else np.zeros_like(amplitude)
    return highest(np.arange(len(over)) * spectrum.step_hz, over, LEAST)


def highest(hz: AnyFloats, values: AnyFloats, first: int) -> picture.Lines:
    """Return the highest line of each of some stretches that grow with the frequency.

    Low down every line stands for itself; above, a stretch is about two percent wide, and less
    where there are few lines: as exact everywhere as a bearing that slips is.

    >>> found = highest(np.arange(4097) * 1.5, np.ones(4097), 1)
    >>> len(found.hz) <= picture.MOST_POINTS, found.hz[:3]
    (True, (1.5, 3.0, 4.5))
    """
    last = len(values) - 1
    starts = _starts(first, last)
    ends = np.append(starts[1:], last + 1)
    at = [s + int(np.argmax(values[s:e])) for s, e in zip(starts, ends, strict=True)]
    return picture.Lines(
        tuple(_short(v) for v in hz[at].tolist()), tuple(_short(v) for v in values[at].tolist())
    )


def _starts(first: int, last: int) -> NDArray[np.int64]:
    """Return where stretches begin: as many as are shown, or every line."""
    most = picture.MOST_POINTS
    if last - first < most:
        return np.arange(first, last + 1)
    # The ratio from one to the next falls out of how many are left where lines become too many.
    found: list[int] = []
    at = first
    while at <= last:
        found.append(at)
        ratio = (last / at) ** (1.0 / max(most - len(found), 1))
        at = max(at + 1, math.ceil(at * ratio))
    return np.array(found[:most])


def _short(value: float) -> float:
    """Return a number with as many digits as a drawing shows."""
    return float(f"{value:.4g}")
