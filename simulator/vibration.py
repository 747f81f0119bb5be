"""A burst of a vibration sensor: lines, mesh, strikes and noise, by structure, speed and fault.

Lines of the shaft are given as velocities, since that is what machines are judged by, and become
accelerations by their frequency. Strikes on a bearing come with slip, a jitter that adds up from
one to the next (so that high multiples blur), and a modulation by what turns the damaged part
through the load; each makes the housing ring.

Sources: R. B. Randall and J. Antoni, Rolling element bearing diagnostics: a tutorial, Mechanical
Systems and Signal Processing 25 (2011); J. Antoni and R. B. Randall, A stochastic model for
simulation and diagnostics of rolling element bearings with localized faults, Journal of Vibration
and Acoustics 125 (2003); P. D. McFadden, Detecting fatigue cracks in gears by amplitude and phase
demodulation of the meshing vibration, Journal of Vibration and Acoustics 108 (1986).
"""

from collections.abc import Callable

import numpy as np

from contract.arrays import Floats
from simulator.faults.shaking import Part, Shaking
from simulator.machines.structure import Structure

G = 9.80665
"""m/s2 in one g."""
SLIP = 0.01
"""Most that a bearing turns slower than by its geometry, as a share."""
JITTER = 0.006
"""Deviation of the time from one strike to the next, as a share."""

_OWN = (1.0, 0.35, 0.18)  # the healthy shaft's lines at 1, 2 and 3 times the speed
_MESH = (1.0, 0.4, 0.2)
_MESH_G = 0.12
_HEALTHY_SIDEBANDS = 0.08
_HUM_G = 0.015
_VANES_G = 0.04
_DECAYS = 7.0  # time constants after which a ringing is over


def burst(
    structure: Structure,
    shaking: Shaking,
    *,
    shaft_hz: float,
    velocity_mms: float,
    rate_hz: float,
    samples: int,
    rng: np.random.Generator,
) -> Floats:
    """Return the acceleration ``(samples,)`` in g.

    Args:
        structure: of the machine.
        shaking: what is wrong adds.
        shaft_hz: turns a second; 0: it stands, and there is but the sensor's noise.
        velocity_mms: of the healthy machine, rms.
        rate_hz: samples a second.
        samples: in the burst.
        rng: another for each burst.
    """
    t = np.arange(samples) / rate_hz
    noise = structure.noise_g * rng.standard_normal(samples)
    if shaft_hz <= 0:
        return 0.1 * noise
    phase = 2 * np.pi * (shaft_hz * t + rng.uniform())
    # Nothing above half the rate passes the sensor's filter: it would come back as another line.
    heard = _Hearing(t, rate_hz / 2, rng)
    wave = noise
    if shaking.hiss:
        vanes = max(structure.vanes, 1)
        pulses = 1.0 + shaking.pulse * np.cos(vanes * phase)
        wave = wave + shaking.hiss * structure.noise_g * rng.standard_normal(samples) * pulses
    own = velocity_mms * np.sqrt(2) / np.hypot.reduce(_OWN)
    shaft = np.zeros(max(len(_OWN), len(shaking.shaft)))
    shaft[: len(_OWN)] = _OWN
    shaft[: len(shaking.shaft)] += shaking.shaft
    for times, size in enumerate(shaft.tolist(), 1):
        wave = wave + heard.velocity(times * shaft_hz, own * size)
    if shaking.halves:
        for half in (0.5, 1.5, 2.5, 3.5):
            wave = wave + heard.velocity(half * shaft_hz, own * shaking.halves)
    if structure.vanes:
        wave = wave + heard.line(structure.vanes * shaft_hz, _VANES_G)
    if structure.mains_hz:
        wave = wave + heard.line(2 * structure.mains_hz, _HUM_G * (1.0 + shaking.hum))
    if structure.teeth:
        depth = _HEALTHY_SIDEBANDS + shaking.sidebands
        swell = 1.0 + depth * np.cos(phase + rng.uniform(0, 2 * np.pi))
        for times, size in enumerate(_MESH, 1):
            size_g = _MESH_G * size * (1.0 + shaking.mesh * times / 2)
            wave = wave + swell * heard.line(times * structure.teeth * shaft_hz, size_g)
    if shaking.part is not None and shaking.blow:
        wave = wave + _strikes(structure, shaking.part, shaking, shaft_hz, rate_hz, samples, rng)
    return wave


class _Hearing:
    """Lines over one burst's time, each with a phase of its own."""

    def __init__(self, t: Floats, nyquist_hz: float, rng: np.random.Generator) -> None:
        self._t, self._nyquist_hz, self._rng = t, nyquist_hz, rng

    def line(self, frequency_hz: float, size_g: float) -> Floats:
        """Return a line; nothing beyond what is heard."""
        phase = self._rng.uniform(0, 2 * np.pi)
        if frequency_hz >= 0.9 * self._nyquist_hz:
            return np.zeros_like(self._t)
        sounds: Floats = size_g * np.cos(2 * np.pi * frequency_hz * self._t + phase)
        return sounds

    def velocity(self, frequency_hz: float, size_mms: float) -> Floats:
        """Return the acceleration of a line that is given by its velocity."""
        return self.line(frequency_hz, 2 * np.pi * frequency_hz * size_mms / 1000 / G)


def _outer(_: Floats, __: Floats) -> Floats:
    return np.ones(1)


def _inner(shaft: Floats, _: Floats) -> Floats:
    zone: Floats = np.maximum(0.25 + 0.75 * np.cos(shaft), 0.0)  # Stribeck's zone of load
    return zone


def _ball(_: Floats, cage: Floats) -> Floats:
    rides: Floats = 0.6 + 0.4 * np.cos(cage)
    return rides


_LOAD: dict[Part, Callable[[Floats, Floats], Floats]] = {
    "outer": _outer,
    "inner": _inner,
    "ball": _ball,
    "cage": _outer,
}
"""How hard a strike is, by the angles of shaft and cage."""


def _strikes(
    structure: Structure,
    part: Part,
    shaking: Shaking,
    shaft_hz: float,
    rate_hz: float,
    samples: int,
    rng: np.random.Generator,
) -> Floats:
    """Return the ringing of all strikes on a part, in g."""
    slip = 1.0 - rng.uniform(0.0, SLIP)
    rhythm_hz = structure.order(part) * shaft_hz * slip * (2 if part == "ball" else 1)
    # Begun before the burst, so that it opens in the middle of things.
    before_s = _DECAYS / (structure.damping * 2 * np.pi * structure.resonance_hz)
    length_s = samples / rate_hz + before_s
    count = int(np.ceil(length_s * rhythm_hz * 1.1)) + 2
    apart = (1.0 + JITTER * rng.standard_normal(count)) / rhythm_hz
    at = rng.uniform() / rhythm_hz + np.cumsum(apart) - before_s
    lost = rng.uniform(size=count) < shaking.worn
    at[lost] = rng.uniform(-before_s, samples / rate_hz, size=int(lost.sum()))
    cage_hz = structure.order("cage") * shaft_hz * slip
    turned = rng.uniform(0, 2 * np.pi, size=2)
    heavy = shaking.blow * (1.0 + 0.1 * rng.standard_normal(count))
    heavy = heavy * _LOAD[part](
        2 * np.pi * shaft_hz * at + turned[0], 2 * np.pi * cage_hz * at + turned[1]
    )
    if part == "ball":
        heavy[1::2] *= 0.7  # the outer ring answers less than the inner
    return _ringing(structure, at, heavy, rate_hz, samples)


def _ringing(
    structure: Structure, at: Floats, heavy: Floats, rate_hz: float, samples: int
) -> Floats:
    """Return the sum ``(samples,)`` of decaying rings from times ``at`` on, between samples."""
    # A sensor hears its housing ring below half its rate; a slow one a lower mode.
    ring_hz = min(structure.resonance_hz, 0.3 * rate_hz)
    omega = 2 * np.pi * ring_hz
    decay = structure.damping * omega
    taps = int(np.ceil(_DECAYS / decay * rate_hz))
    first = np.ceil(at * rate_hz).astype(np.int64)
    since = (first[:, None] + np.arange(taps)) / rate_hz - at[:, None]
    rings = heavy[:, None] * np.exp(-decay * since) * np.sin(omega * since)
    padded = np.zeros(samples + 2 * taps)
    place = first[:, None] + np.arange(taps) + taps
    inside = (place >= 0) & (place < len(padded))
    np.add.at(padded, place[inside], rings[inside])
    return padded[taps : taps + samples]
