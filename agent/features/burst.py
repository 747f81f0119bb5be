"""Features of waveform bursts: many bursts at once, each as if it were alone, to the last bit.

Everything works on float32 bursts that are first moved to the middle of their range and scaled by a
power of two, both without rounding worth the name: an offset of 10⁶ and values of 10³⁰ do no harm.
Nothing is added up across bursts, and no sum is left to a BLAS, which may share it out over cores.

A burst with a value that is not finite has no features: all are NaN. A burst that does not vary has
been measured, so it has features: ``skewness``, ``kurtosis``, ``centroid`` and the bearing's lines
are 0, and ``crest`` is 1 (or 0, if all is 0). NaN is kept for what is missing.
"""

import numpy as np
from numpy.typing import NDArray

from agent.features import iso20816
from agent.features.bearing import LINES, orders
from agent.features.envelope import NARROWEST, Envelope
from agent.features.spectrum import Floats32, Spectrum
from contract import units
from contract.arrays import Floats
from contract.errors import ConfigError
from contract.spec import WAVE_FEATURE, Waveform

AT_ONCE = 24_576
"""Samples that are computed together: their spectra stay in the cache of a small processor."""

VELOCITY_HZ = (10.0, 1000.0)
"""Range of ``velocity_rms``, ISO 20816-1."""

_TIME = {"mean", "std", "rms", "min", "max", "peak", "crest", "skewness", "kurtosis"}


class BurstFeatures:
    """The features of one waveform; not to be shared between threads.

    Attributes:
        names: F features, as in ``contract.spec.Waveform``.

    Raises:
        ConfigError: a feature that this waveform cannot have; names the waveform and the feature.

    >>> wave = Waveform("case", "m/s2", 1000.0, samples=64, features=("rms", "crest", "band_0_500"))
    >>> square = np.tile(np.float32([3, 3, -3, -3]), 16)
    >>> BurstFeatures(wave).compute(square[None, :]).round(3).tolist()
    [[3.0, 1.0, 3.0]]
    """

    def __init__(self, wave: Waveform) -> None:
        self.names = wave.features
        self._wave = wave
        self._most = min(max(AT_ONCE // wave.samples, 1), 16)
        self._centred = np.empty((self._most, wave.samples), dtype=np.float32)
        self._square = np.empty_like(self._centred)
        self._cube = np.empty_like(self._centred)
        self._higher = bool({"skewness", "kurtosis"} & set(wave.features))
        self._bands: dict[str, tuple[slice, Floats32 | None, float]] = {}
        self._lines = [line for line in LINES if line in wave.features]
        self._envelope: Envelope | None = None
        self._spectrum: Spectrum | None = None
        if set(wave.features) - _TIME:
            self._spectrum = Spectrum(wave.rate_hz, wave.samples, self._most)
            self._plan(self._spectrum)

    def _plan(self, spectrum: Spectrum) -> None:
        """Work out once which bins each feature sums, with which weights."""
        wave = self._wave
        for feature in wave.features:
            where = f"waveform {wave.name!r}, feature {feature!r}"
            found = WAVE_FEATURE.fullmatch(feature)
            if found is None:
                raise ConfigError(f"{where}: there is no such feature")
            if feature == "centroid":
                whole = slice(0, len(spectrum.frequencies))
                self._bands["centroid"] = (whole, spectrum.frequencies.astype(np.float32), 1.0)
                self._bands["power"] = (whole, None, 1.0)
            elif feature.startswith("band_"):
                bins = spectrum.bins(float(found[1]), float(found[2]), where)
                self._bands[feature] = (bins, None, spectrum.to_mean_square)
            elif feature in {"velocity_rms", "zone"}:
                self._bands["velocity_rms"] = self._velocity(spectrum, where)
            elif feature == "envelope_rms":
                # By Parseval the envelope's mean square is twice that of the band.
                bins = envelope_bins(wave, spectrum)
                self._bands[feature] = (bins, None, 2.0 * spectrum.to_mean_square)
        if "zone" in wave.features:
            if wave.severity is None:
                raise ConfigError(f"waveform {wave.name!r}: 'zone' needs [severity]")
            self._limits = iso20816.boundaries(wave.severity)
        if self._lines:
            self._plan_lines(spectrum)

    def _velocity(self, spectrum: Spectrum, where: str) -> tuple[slice, Floats32 | None, float]:
        bins = spectrum.bins(*VELOCITY_HZ, where)
        if spectrum.step_hz > VELOCITY_HZ[0]:
            raise ConfigError(
                f"{where}: a burst must last a tenth of a second to tell 10 Hz: take at least "
                f"{int(np.ceil(self._wave.rate_hz / VELOCITY_HZ[0]))} samples"
            )
        unit = self._wave.unit
        try:
            measured = units.quantity(unit)
        except ValueError as error:
            raise ConfigError(f"{where}: {error}") from error
        if measured == "speed":
            factor, _ = units.convert(unit, "mm/s")
            return bins, None, spectrum.to_mean_square * factor**2
        if measured == "acceleration":
            factor, _ = units.convert(unit, "mm/s2")
            weights = (2.0 * np.pi * spectrum.frequencies[bins]) ** -2.0
            return bins, weights.astype(np.float32), spectrum.to_mean_square * factor**2
        raise ConfigError(
            f"{where}: {unit!r} is a unit of {measured}; it takes an acceleration (m/s2, mm/s2, g) "
            "or a velocity (mm/s)"
        )

    def _plan_lines(self, spectrum: Spectrum) -> None:
        wave = self._wave
        if wave.bearing is None:
            raise ConfigError(f"waveform {wave.name!r}: {self._lines} need [bearing]")
        by_line = orders(wave.bearing)
        self._orders = np.array([by_line[line] for line in self._lines])
        band = envelope_bins(wave, spectrum)
        if band.stop - band.start < NARROWEST:
            raise ConfigError(
                f"waveform {wave.name!r}: envelope_hz: {self._lines} need a band of "
                f"{NARROWEST * spectrum.step_hz:g} Hz at least, or longer bursts"
            )
        self._envelope = Envelope(band, spectrum.step_hz, self._most)
        low, high = self._envelope.low_hz, self._envelope.high_hz
        for line, order in zip(self._lines, self._orders, strict=True):
            if wave.speed or wave.speed_rpm is None:
                continue
            hz = order * wave.speed_rpm / 60.0
            if not low <= hz <= high:
                raise ConfigError(
                    f"waveform {wave.name!r}, feature {line!r}: {hz:g} Hz cannot be told: bursts "
                    f"of {wave.samples} samples in this band show beats of {low:g} to {high:g} Hz; "
                    "take longer bursts, or a wider envelope_hz"
                )

    def compute(self, samples: Floats32, speed_rpm: Floats | None = None) -> Floats:
        """Return the features ``(k, F)`` of bursts ``(k, n)``.

        Args:
            samples: float32, in the waveform's unit.
            speed_rpm: of each burst ``(k,)``, either way round; None: the waveform's own. Where it
                is NaN, or too slow or fast for the burst to show, bearing lines are NaN.
        """
        if samples.ndim != 2 or samples.shape[1] != self._wave.samples:
            raise ValueError(f"bursts of {self._wave.samples} samples, not shape {samples.shape}")
        if samples.dtype != np.float32:
            raise TypeError(f"bursts are float32, not {samples.dtype}")
        k = len(samples)
        raw = {name: np.empty(k) for name in ("low", "high", "mean", "unit", "m2", "m3", "m4")}
        sums = {name: np.empty(k) for name in self._bands}
        lines = np.full((k, len(self._lines)), np.nan)
        with np.errstate(all="ignore"):  # what is not finite is put right below
            places = None if self._envelope is None else self._places(self._envelope, k, speed_rpm)
            for first in range(0, k, self._most):
                part = slice(first, min(first + self._most, k))
                centred = self._centre(samples[part], raw, part)
                if self._spectrum is None:
                    continue
                spectra, power = self._spectrum.of(centred)
                for name, (bins, weights, _) in self._bands.items():
                    if weights is None:
                        sums[name][part] = np.add.reduce(power[:, bins], axis=1)
                    else:
                        sums[name][part] = self._spectrum.weighted(power, bins, weights)
                if self._envelope is not None and places is not None:
                    at, there = places
                    lines[part] = self._envelope.lines(spectra, at[part], there[part])
            return self._gather(raw, sums, lines)

    def _places(
        self, envelope: Envelope, k: int, speed_rpm: Floats | None
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        if speed_rpm is None:
            own = self._wave.speed_rpm
            speed_rpm = np.full(k, np.nan if own is None else own)
        return envelope.places(np.abs(speed_rpm)[:, None] / 60.0 * self._orders)

    def _centre(self, samples: Floats32, raw: dict[str, Floats], part: slice) -> Floats32:
        """Fill the moments of some bursts; return them less their mean, within -1 and 1."""
        n = samples.shape[1]
        centred, square = self._centred[: len(samples)], self._square[: len(samples)]
        low = np.minimum.reduce(samples, axis=1)
        high = np.maximum.reduce(samples, axis=1)
        half = np.float32(0.5)
        middle = half * low + half * high
        # A power of two, so that scaling is exact; within what float32 can hold.
        exponent = np.clip(np.frexp(np.maximum(high - middle, middle - low))[1], -100, 120)
        scale = np.ldexp(np.float32(1.0), -exponent).astype(np.float32)
        np.subtract(samples, middle[:, None], out=centred)
        centred *= scale[:, None]
        mean = np.add.reduce(centred, axis=1) / np.float32(n)
        centred -= mean[:, None]
        unit = 1.0 / scale.astype(np.float64)
        raw["low"][part], raw["high"][part], raw["unit"][part] = low, high, unit
        raw["mean"][part] = middle + mean * unit
        np.multiply(centred, centred, out=square)
        raw["m2"][part] = np.add.reduce(square, axis=1)
        if self._higher:
            cube = np.multiply(square, centred, out=self._cube[: len(samples)])
            raw["m3"][part] = np.add.reduce(cube, axis=1)
            square *= square
            raw["m4"][part] = np.add.reduce(square, axis=1)
        return centred

    def _gather(self, raw: dict[str, Floats], sums: dict[str, Floats], lines: Floats) -> Floats:
        """Return the features ``(k, F)`` from sums over bursts."""
        n, unit, mean = self._wave.samples, raw["unit"], raw["mean"]
        flat = raw["high"] == raw["low"]
        m2 = np.where(flat, 1.0, raw["m2"] / n)
        std = np.where(flat, 0.0, np.sqrt(m2) * unit)
        # One value all through: what its mean would be but for rounding.
        mean = np.where(flat, raw["low"], mean)
        rms = np.sqrt(mean * mean + std * std)
        peak = np.maximum(np.abs(raw["low"]), np.abs(raw["high"]))
        by_name = {
            "mean": mean,
            "std": std,
            "rms": rms,
            "min": raw["low"],
            "max": raw["high"],
            "peak": peak,
            "crest": peak / np.where(rms > 0, rms, np.inf),
        }
        if self._higher:
            by_name["skewness"] = np.where(flat, 0.0, raw["m3"] / n / (m2 * np.sqrt(m2)))
            by_name["kurtosis"] = np.where(flat, 0.0, raw["m4"] / n / (m2 * m2))
        for name, (_, _, factor) in self._bands.items():
            by_name[name] = np.sqrt(sums[name] * factor) * unit
        if "centroid" in sums:
            some = np.where(flat, 1.0, sums["power"])
            by_name["centroid"] = np.where(flat, 0.0, sums["centroid"] / some)
        if "zone" in self.names:
            by_name["zone"] = iso20816.zone(by_name["velocity_rms"], self._limits)
        for i, line in enumerate(self._lines):
            by_name[line] = lines[:, i]
        out = np.stack([by_name[name] for name in self.names], axis=1)
        out[~(np.isfinite(raw["low"]) & np.isfinite(raw["high"]))] = np.nan
        return out


def envelope_bins(wave: Waveform, spectrum: Spectrum) -> slice:
    """Return the bins of the band that is demodulated.

    Raises:
        ConfigError: there is no such band.
    """
    top = 0.9 * spectrum.nyquist_hz
    low, high = wave.envelope_hz or (top / 2.0, top)
    if low <= 0.0:
        raise ConfigError(
            f"waveform {wave.name!r}: envelope_hz: a band to demodulate begins above 0 Hz"
        )
    return spectrum.bins(low, high, f"waveform {wave.name!r}: envelope_hz")
