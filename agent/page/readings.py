"""The newest readings of one asset, out of the journal: read only when somebody looks.

In the thread of the connection that asks, from the journal's files: the main loop does nothing for
it, and nothing is kept.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agent.batch import Batch, Rows, Shot
from agent.journal import backwards
from contract.arrays import Floats
from contract.errors import ContractError
from contract.spec import AssetClass, Waveform

POINTS = 180
"""Readings of a channel."""
MOST_BYTES = 1_000_000
"""Of the journal that are read for it, from its end."""
CHANNELS = 12
"""That are shown."""
BINS = 240
"""Of a spectrum: of the lines in each the largest is shown."""
AHEAD_NS = 60_000_000_000
"""A reading that is later than the last ones by more is of a clock that was set back since."""


class Found(NamedTuple):
    """What the journal's end holds of an asset, oldest first."""

    rows: list[Rows]
    shots: dict[int, Shot]
    """By waveform the newest burst whose samples were kept."""


def newest(state: Path, asset: str) -> Found:
    """Read the end of the journal; nothing where it cannot be read."""
    rows: list[Rows] = []
    shots: dict[int, Shot] = {}
    count = 0
    for batch in _backwards(state):
        for part in batch.rows:
            if part.asset == asset:
                rows.append(part)
                count += len(part.t_ns)
        for shot in reversed(batch.shots):
            if shot.asset == asset and len(shot.samples):
                shots.setdefault(shot.wave, shot)
        if count >= POINTS:
            break
    return Found(rows[::-1], shots)


def _backwards(state: Path) -> Iterator[Batch]:
    size = 0
    for body in backwards(state):
        size += len(body)
        if size > MOST_BYTES and size > len(body):
            return
        try:
            yield Batch.decode(body)
        except ContractError:  # of before an update
            return


def channels(found: Found, spec: AssetClass, first: list[str]) -> list[dict[str, Any]]:
    """Return the readings of an asset's channels as the page draws them.

    Args:
        found: of it.
        spec: of its class.
        first: channels that are wanted first.
    """
    width = len(spec.columns)
    parts = [part for part in found.rows if part.values.shape[1:] == (width,)]
    if not parts:
        return []
    t_ns = np.concatenate([part.t_ns for part in parts])
    values = np.concatenate([part.values for part in parts])
    # Sorted by time, without those of a clock that was ahead of where the last ones are.
    order = np.argsort(t_ns, kind="stable")
    order = order[t_ns[order] <= np.median(t_ns[-5:]) + AHEAD_NS]
    t_ns, values = t_ns[order], values[order]
    at = {channel.name: c for c, channel in enumerate(spec.channels)}
    names = dict.fromkeys([*(name for name in first if name in at), *at])
    return [_channel(spec, at[name], t_ns, values[:, at[name]]) for name in list(names)[:CHANNELS]]


def _channel(spec: AssetClass, c: int, t_ns: NDArray[np.int64], values: Floats) -> dict[str, Any]:
    said = np.flatnonzero(np.isfinite(values))[-POINTS:]
    one = spec.channels[c]
    return {
        "name": one.name,
        "unit": one.unit,
        "low": one.low,
        "high": one.high,
        "t": (t_ns[said] / 1e9).tolist(),
        "values": _short(values[said]),
    }


def spectra(found: Found, spec: AssetClass) -> list[dict[str, Any]]:
    """Return the spectra of an asset's newest bursts as the page draws them."""
    return [
        _spectrum(spec.waveforms[wave], shot)
        for wave, shot in sorted(found.shots.items())
        if wave < len(spec.waveforms)
    ]


def _spectrum(wave: Waveform, shot: Shot) -> dict[str, Any]:
    hz, amplitude = amplitudes(shot.samples, wave.rate_hz)
    return {
        "name": wave.name,
        "unit": wave.unit,
        "t": shot.t_ns / 1e9,
        "hz": _short(hz),
        "values": _short(amplitude),
    }


def amplitudes(samples: NDArray[np.float32], rate_hz: float) -> tuple[Floats, Floats]:
    """Return frequencies and the amplitudes of lines there, the largest of each of ``BINS``.

    Hann's window, scaled so that a sine shows its amplitude.

    >>> t = np.arange(4096) / 1024
    >>> hz, amplitude = amplitudes(3 * np.sin(2 * np.pi * 100 * t).astype(np.float32), 1024)
    >>> at = int(amplitude.argmax())
    >>> abs(float(hz[at]) - 100) < 2, round(float(amplitude[at]), 2)
    (True, 3.0)
    """
    known = np.nan_to_num(samples.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    window = np.hanning(len(known))
    lines = np.abs(np.fft.rfft((known - known.mean()) * window)) * (2 / max(window.sum(), 1e-9))
    hz = np.fft.rfftfreq(len(known), 1 / rate_hz)
    each = max(1, len(lines) // BINS)
    whole = len(lines) // each * each
    return hz[:whole].reshape(-1, each).mean(axis=1), lines[:whole].reshape(-1, each).max(axis=1)


def _short(values: Floats) -> list[float]:
    """Return numbers with as many digits as a drawing shows."""
    return [float(f"{value:.5g}") for value in values.tolist()]
