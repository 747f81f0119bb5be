"""Every burst feature against scipy or the plain definition in float64, and at its edges."""

from typing import Literal

import msgspec
import numpy as np
import pytest
import scipy.signal
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from agent.features.bearing import orders
from agent.features.burst import BurstFeatures
from contract.arrays import Floats
from contract.errors import ConfigError
from contract.spec import Bearing, Severity, Waveform

SKF_6205 = Bearing(balls=9, ball_mm=7.94, pitch_mm=39.04)
RATE_HZ = 12_800.0
SPEED_RPM = 1797.0
TIME = ("mean", "std", "rms", "min", "max", "peak", "crest", "skewness", "kurtosis")
SPECTRAL = ("centroid", "velocity_rms", "band_10_1000", "band_1000_5000.5", "envelope_rms")
LINES = ("bpfo", "bpfi", "bsf", "ftf")
EVERYTHING = Waveform(
    "drive-end",
    "m/s2",
    RATE_HZ,
    samples=4096,
    features=(*TIME, *SPECTRAL, "zone", *LINES),
    envelope_hz=(2000.0, 5500.0),
    bearing=SKF_6205,
    speed_rpm=SPEED_RPM,
    severity=Severity(),
)


def wave(*features: str, **changes: object) -> Waveform:
    return msgspec.structs.replace(EVERYTHING, features=features, **changes)


def computed(
    samples: Floats | NDArray[np.float32], of: Waveform, speed_rpm: Floats | None = None
) -> dict[str, Floats]:
    """Features by name, of bursts that fit the waveform's length."""
    samples = np.atleast_2d(samples).astype(np.float32)
    features = BurstFeatures(msgspec.structs.replace(of, samples=samples.shape[1]))
    return dict(zip(features.names, features.compute(samples, speed_rpm).T, strict=True))


def noise(k: int, n: int = 4096, *, seed: int = 1) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return rng.gamma(2.0, size=(k, n)).astype(np.float32) - np.float32(2.0)


def density(samples: NDArray[np.float32]) -> tuple[Floats, Floats]:
    window = scipy.signal.get_window("hann", samples.shape[1])
    exact = samples.astype(np.float64)
    exact -= np.average(exact, axis=1, weights=window)[:, None]
    return scipy.signal.periodogram(exact, RATE_HZ, window=window, detrend=False)


# ---- time domain ----------------------------------------------------------------------------


@pytest.mark.parametrize("n", [64, 1000, 4096, 5003, 40_000])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_moments_are_those_of_scipy_even_far_from_zero(n: int, offset: float) -> None:
    samples = 30.0 * noise(3, n) + np.float32(offset)
    exact = samples.astype(np.float64)
    found = computed(samples, wave(*TIME))
    rms = np.sqrt(np.mean(exact**2, axis=1))
    expected = {
        "mean": exact.mean(axis=1),
        "std": exact.std(axis=1),
        "rms": rms,
        "min": exact.min(axis=1),
        "max": exact.max(axis=1),
        "peak": np.abs(exact).max(axis=1),
        "crest": np.abs(exact).max(axis=1) / rms,
        "skewness": scipy.stats.skew(exact, axis=1),
        "kurtosis": scipy.stats.kurtosis(exact, axis=1, fisher=False),
    }
    for name, value in expected.items():
        if name == "mean":
            np.testing.assert_allclose(found[name], value, rtol=1e-7, atol=1e-6 * exact.std())
        else:
            np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("size", [1e-25, 1e30])
def test_bursts_of_any_size_have_the_same_shape(size: float) -> None:
    shape = ("crest", "skewness", "kurtosis", "centroid", *LINES)
    plain = computed(noise(2), wave(*shape))
    scaled = computed(noise(2) * np.float32(size), wave(*shape))
    for name in shape:
        np.testing.assert_allclose(scaled[name], plain[name], rtol=1e-4, err_msg=name)


def test_a_flat_burst_has_been_measured() -> None:
    found = computed(np.full((1, 4096), 0.1), EVERYTHING)
    assert found["mean"] == found["rms"] == found["peak"] == np.float32(0.1)
    assert found["crest"] == 1.0
    assert found["zone"] == 1.0
    zero = set(EVERYTHING.features) - {"mean", "rms", "min", "max", "peak", "crest", "zone"}
    assert {name for name in found if found[name] == 0.0} == zero


def test_a_burst_of_nothing_but_zeros_has_a_crest_of_zero() -> None:
    found = computed(np.zeros((1, 4096)), EVERYTHING)
    assert {name: float(value[0]) for name, value in found.items()} == {
        **dict.fromkeys(found, 0.0),
        "zone": 1.0,
    }


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_burst_with_a_gap_has_no_feature_and_its_neighbours_have_all(bad: float) -> None:
    samples = noise(12)
    samples[7, 1234] = bad
    features = BurstFeatures(EVERYTHING)
    found = features.compute(samples)
    assert np.isnan(found[7]).all()
    whole = np.arange(12) != 7
    np.testing.assert_array_equal(found[whole], features.compute(samples[whole]))
    assert np.isfinite(found[whole]).all()


# ---- spectrum -------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2048, 4096, 4999, 5000])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_bands_centroid_and_velocity_are_sums_over_scipys_periodogram(
    n: int, offset: float
) -> None:
    samples = noise(3, n, seed=4) + np.float32(offset)
    found = computed(samples, wave(*SPECTRAL))
    hz, power = density(samples)
    step = RATE_HZ / n

    def rms(low: float, high: float, weight: Floats | float = 1.0) -> Floats:
        return np.sqrt(((power * weight)[:, (hz >= low) & (hz < high)]).sum(axis=1) * step)

    safe = np.where(hz > 0, hz, np.inf)
    expected = {
        "centroid": (power * hz).sum(axis=1) / power.sum(axis=1),
        "band_10_1000": rms(10.0, 1000.0),
        "band_1000_5000.5": rms(1000.0, 5000.5),
        "velocity_rms": rms(10.0, 1000.0, (1e3 / (2.0 * np.pi * safe)) ** 2),
        "envelope_rms": np.sqrt(2.0) * rms(2000.0, 5500.0),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, err_msg=name)


def test_bands_side_by_side_hold_the_whole_between_them() -> None:
    found = computed(noise(4), wave("band_0_1000", "band_1000_3000", "band_3000_6400"))
    _, power = density(noise(4))
    whole = np.sqrt(power.sum(axis=1) * RATE_HZ / 4096)
    np.testing.assert_allclose(np.sqrt(sum(v**2 for v in found.values())), whole, rtol=1e-5)


@pytest.mark.parametrize(("unit", "mm_s2"), [("m/s2", 1e3), ("mm/s2", 1.0), ("g", 9806.65)])
@pytest.mark.parametrize("hz", [50.0, 333.3])
def test_the_velocity_of_a_tone_is_its_acceleration_over_angular_frequency(
    unit: str, mm_s2: float, hz: float
) -> None:
    t = np.arange(12_800) / RATE_HZ
    tone = 2.0 * np.sin(2.0 * np.pi * hz * t + 0.7) + 1.0
    found = computed(tone, wave("velocity_rms", unit=unit))
    assert found["velocity_rms"] == pytest.approx(
        2.0 * mm_s2 / (2.0 * np.pi * hz) / np.sqrt(2.0), rel=1e-3
    )


@pytest.mark.parametrize("phase", [0.0, 0.8, 1.6, 2.4])
@pytest.mark.parametrize("hz", [50.0, 55.0, 62.5, 105.0])
def test_a_slow_vibration_cut_off_anywhere_has_its_velocity_in_the_shortest_burst(
    hz: float, phase: float
) -> None:
    t = np.arange(1280) / RATE_HZ  # a tenth of a second
    tone = np.sin(2.0 * np.pi * hz * t + phase)
    found = computed(tone, wave("velocity_rms"))
    assert found["velocity_rms"] == pytest.approx(1e3 / (2.0 * np.pi * hz) / np.sqrt(2.0), rel=0.03)


@pytest.mark.parametrize(("unit", "mm_s"), [("mm/s", 1.0), ("m/s", 1e3)])
def test_a_velocity_needs_no_integration(unit: str, mm_s: float) -> None:
    t = np.arange(12_800) / RATE_HZ
    tone = 3.0 * np.sin(2.0 * np.pi * 50.0 * t) + 3.0 * np.sin(2.0 * np.pi * 4000.0 * t)
    found = computed(tone, wave("velocity_rms", unit=unit))
    assert found["velocity_rms"] == pytest.approx(3.0 * mm_s / np.sqrt(2.0), rel=1e-5)


@pytest.mark.parametrize(
    ("mm_s", "zone"), [(1.0, 1), (2.2, 1), (2.4, 2), (4.6, 3), (7.0, 3), (7.2, 4)]
)
def test_the_zone_is_that_of_the_velocity(mm_s: float, zone: int) -> None:
    t = np.arange(12_800) / RATE_HZ
    tone = mm_s * np.sqrt(2.0) * np.sin(2.0 * np.pi * 100.0 * t)
    assert computed(tone, wave("zone", unit="mm/s"))["zone"] == zone


@pytest.mark.parametrize("edition", ["ISO 20816-3:2022", "ISO 10816-3:2009"])
@pytest.mark.parametrize(
    ("group", "support", "limits"),
    [
        (1, "rigid", (2.3, 4.5, 7.1)),
        (1, "flexible", (3.5, 7.1, 11.0)),
        (2, "rigid", (1.4, 2.8, 4.5)),
        (2, "flexible", (2.3, 4.5, 7.1)),
    ],
)
def test_the_zones_end_where_the_standard_says(
    edition: str, group: int, support: Literal["rigid", "flexible"], limits: tuple[float, ...]
) -> None:
    severity = Severity(edition, group, support)
    t = np.arange(12_800) / RATE_HZ
    tone = np.sqrt(2.0) * np.sin(2.0 * np.pi * 100.0 * t)
    around = np.array([share * limit for limit in limits for share in (0.99, 1.01)])
    found = computed(around[:, None] * tone, wave("zone", unit="mm/s", severity=severity))
    assert found["zone"].tolist() == [1, 2, 2, 3, 3, 4]


# ---- envelope -------------------------------------------------------------------------------


def reference_lines(samples: NDArray[np.float32], speed_rpm: float) -> dict[str, float]:
    """The same at the full rate and in float64, by scipy's Hilbert transform."""
    n = len(samples)
    step = RATE_HZ / n
    exact = samples - np.mean(samples, dtype=np.float64)
    windowed = np.fft.rfft(exact * scipy.signal.get_window("hann", n))
    hz = np.fft.rfftfreq(n, 1.0 / RATE_HZ)
    windowed[(hz < 2000.0) | (hz >= 5500.0)] = 0.0
    envelope = np.abs(scipy.signal.hilbert(np.fft.irfft(windowed, n)))
    amplitude = np.abs(np.fft.rfft(envelope**2))
    top = int(((hz >= 2000.0) & (hz < 5500.0)).sum()) // 2
    floor = amplitude[3 : top + 1]
    median = np.median(floor[: len(floor) - 1 + len(floor) % 2])
    found = {}
    for line, order in orders(SKF_6205).items():
        heights = []
        for harmonic in (1, 2, 3):
            centre = harmonic * order * speed_rpm / 60.0 / step
            near = np.abs(np.arange(len(amplitude)) - centre) <= max(1.0, 0.02 * centre)
            near[:3] = False
            heights.append(amplitude[near].max())
        found[line] = float(np.mean(heights) / median)
    return found


def defect(
    hz: float, *, n: int = 8192, slip: float = 0.0, depth: float = 3.0, seed: int = 3
) -> Floats:
    """A resonance at 3.5 kHz that is struck ``hz`` times a second, in noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(n) / RATE_HZ
    strikes = np.arange(0.0, n / RATE_HZ, 1.0 / (hz * (1.0 - slip)))
    since = t[:, None] - strikes[None, :]
    ring = np.exp(-900.0 * np.maximum(since, 0.0)) * np.sin(2.0 * np.pi * 3500.0 * since)
    return depth * np.where(since >= 0, ring, 0.0).sum(axis=1) + rng.standard_normal(n)


@pytest.mark.parametrize("n", [4096, 5000, 8191])
@pytest.mark.parametrize("speed_rpm", [1797.0, 2950.0])
def test_lines_are_those_of_a_hilbert_envelope_at_the_full_rate(n: int, speed_rpm: float) -> None:
    bursts = np.stack([noise(1, n)[0], defect(100.0, n=n).astype(np.float32)])
    found = computed(bursts, wave(*LINES), np.full(2, speed_rpm))
    for i, burst in enumerate(bursts):
        for line, expected in reference_lines(burst, speed_rpm).items():
            assert found[line][i] == pytest.approx(expected, rel=1e-4), line


@pytest.mark.parametrize("struck", LINES)
@pytest.mark.parametrize("slip", [0.0, 0.015])
def test_the_line_of_the_damaged_part_stands_out_and_no_other(struck: str, slip: float) -> None:
    hz = orders(SKF_6205)[struck] * SPEED_RPM / 60.0
    depth = 15.0 if struck == "ftf" else 3.0  # few strikes in a burst
    found = computed(defect(hz, n=16_384, slip=slip, depth=depth), wave(*LINES))
    assert found[struck] > 8.0
    # A train of strikes has all harmonics, and those of the cage fall near other lines.
    others = [] if struck == "ftf" else [found[line] for line in LINES if line != struck]
    assert all(other < found[struck] / 2.0 for other in others)


@pytest.mark.parametrize("line", LINES)
def test_a_band_whose_amplitude_swings_shows_where_it_swings(line: str) -> None:
    t = np.arange(16_384) / RATE_HZ
    swing = 1.0 + 0.8 * np.cos(2.0 * np.pi * orders(SKF_6205)[line] * SPEED_RPM / 60.0 * t)
    steady, swinging = (
        computed(amplitude * noise(1, 16_384), wave(*LINES)) for amplitude in (1.0, swing)
    )
    assert all(steady[other] < 4.0 for other in LINES)
    assert swinging[line] > 3.0 * steady[line]


def test_each_burst_has_its_own_speed() -> None:
    rpm = np.array([1200.0, 1797.0, 2400.0])
    bursts = np.stack([defect(orders(SKF_6205)["bpfo"] * speed / 60.0) for speed in rpm])
    right = computed(bursts, wave("bpfo", speed="speed"), rpm)["bpfo"]
    backwards = computed(bursts, wave("bpfo", speed="speed"), -rpm)["bpfo"]
    wrong = computed(bursts, wave("bpfo", speed="speed"), rpm[[1, 2, 0]] * 1.1)["bpfo"]
    assert (right > 8.0).all()
    np.testing.assert_array_equal(backwards, right)
    assert (wrong < 4.0).all()


def test_without_a_speed_there_are_no_lines_but_all_else() -> None:
    of = wave("rms", "bpfo", "ftf", speed="speed", speed_rpm=None)
    features = BurstFeatures(of)
    speeds = np.array([np.nan, 0.0, 1e-9, 1e9, np.inf, 1797.0])
    found = features.compute(noise(6), speeds)
    assert np.isfinite(found[:, 0]).all()
    assert np.isnan(found[:5, 1:]).all()
    assert np.isfinite(found[5]).all()
    assert np.isnan(features.compute(noise(2))[:, 1:]).all()


# ---- many at once ---------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(k=st.integers(1, 40), n=st.sampled_from([64, 100, 2048, 4096, 5001]), seed=st.integers(0, 9))
def test_a_burst_has_the_same_features_whatever_it_is_computed_with(
    k: int, n: int, seed: int
) -> None:
    own = tuple(f for f in EVERYTHING.features if f not in {"velocity_rms", "zone"} or n >= 2048)
    of = wave(*own, samples=n, speed="speed", speed_rpm=None)
    features = BurstFeatures(of)
    samples = noise(k, n, seed=seed)
    rpm = np.random.default_rng(seed).uniform(600.0, 3600.0, k)
    together = features.compute(samples, rpm)
    alone = np.concatenate([features.compute(samples[i : i + 1], rpm[i : i + 1]) for i in range(k)])
    np.testing.assert_array_equal(together, alone)
    backwards = features.compute(samples[::-1], rpm[::-1])[::-1]
    np.testing.assert_array_equal(together, backwards)


def test_where_the_samples_lie_in_memory_makes_no_difference() -> None:
    samples = noise(9)
    features = BurstFeatures(EVERYTHING)
    expected = features.compute(samples)
    moved = np.frombuffer(b"\0" + samples.tobytes(), dtype=np.uint8)[1:].view(np.float32)
    np.testing.assert_array_equal(features.compute(moved.reshape(9, -1)), expected)
    np.testing.assert_array_equal(features.compute(np.asfortranarray(samples)), expected)


def test_no_burst_has_no_features() -> None:
    assert BurstFeatures(EVERYTHING).compute(np.empty((0, 4096), dtype=np.float32)).shape == (0, 19)


def test_samples_are_left_as_they_came() -> None:
    samples = noise(3)
    samples.flags.writeable = False
    BurstFeatures(EVERYTHING).compute(samples)
    np.testing.assert_array_equal(samples, noise(3))


# ---- what a waveform cannot have ------------------------------------------------------------


@pytest.mark.parametrize(
    ("of", "words"),
    [
        (wave("band_10_7000"), ["'drive-end'", "'band_10_7000'", "7000", "6400"]),
        (wave("band_500_100"), ["'band_500_100'", "500..100"]),
        (wave("band_10_11"), ["'band_10_11'", "3.125", "longer"]),
        (wave("velocity_rms", rate_hz=1600.0), ["'velocity_rms'", "1000", "800"]),
        (wave("velocity_rms", samples=1024), ["'velocity_rms'", "1280 samples"]),
        (wave("velocity_rms", unit="um"), ["'drive-end'", "'velocity_rms'", "'um'", "mm/s2"]),
        (wave("velocity_rms", unit="m/s²"), ["'velocity_rms'", "did you mean m/s2"]),
        (wave("zone", unit="V"), ["'zone'", "'V'", "voltage"]),
        (wave("zone", severity=None), ["'zone'", "[severity]"]),
        (wave("zone", severity=Severity(group=7)), ["group 7", "[1, 2]"]),
        (wave("zone", severity=Severity(edition="ISO 2372")), ["'ISO 2372'", "20816-3:2022"]),
        (wave("envelope_rms", envelope_hz=(1000.0, 9000.0)), ["envelope_hz", "9000", "6400"]),
        (wave("bpfo", envelope_hz=(0.0, 900.0)), ["envelope_hz", "above 0"]),
        (wave("bpfo", bearing=None), ["'bpfo'", "[bearing]"]),
        (wave("ftf", samples=512), ["'ftf'", "11.9", "longer"]),
        (wave("bpfi", envelope_hz=(5000.0, 5100.0)), ["'bpfi'", "wider"]),
        (wave("ftf", envelope_hz=(5000.0, 5040.0), speed="rpm"), ["'ftf'", "50 Hz at least"]),
        (wave("loudness"), ["'drive-end'", "'loudness'"]),
    ],
    ids=lambda value: "" if isinstance(value, list) else "-".join(value.features),
)
def test_what_a_waveform_cannot_have_is_refused_with_place_and_mend(
    of: Waveform, words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        BurstFeatures(of)
    for word in words:
        assert word in str(caught.value)


def test_bursts_of_another_length_or_type_are_refused() -> None:
    features = BurstFeatures(EVERYTHING)
    with pytest.raises(ValueError, match="4096 samples"):
        features.compute(noise(2, 4095))
    with pytest.raises(TypeError, match="float32"):
        features.compute(noise(2).astype(np.float64))  # type: ignore[arg-type]
