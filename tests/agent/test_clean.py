"""What is wrong with a reading is said, whatever way the readings were cut into batches."""

import gzip
import os
from itertools import pairwise
from math import inf, isinf, isnan, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.clean import QUALITY, Cleaner, Quality, Ranges, Reason, judge_burst
from contract.arrays import Floats
from contract.spec import Channel, Waveform

S = 1_000_000_000


def judge(channel: Channel, *readings: tuple[float, float]) -> list[str]:
    """Return the names of the reasons of readings (seconds, value), one batch."""
    t_ns = np.array([round(t * S) for t, _ in readings])
    marks = Cleaner((channel,)).judge(t_ns, np.array([[value] for _, value in readings]))
    if marks is None:
        return ["GOOD"] * len(readings)
    return [Reason(mark).name for mark in marks[:, 0]]


# -- each check ------------------------------------------------------------------------------------


def test_a_value_that_is_no_number_or_out_of_range_is_bad() -> None:
    found = judge(Channel("a", "1", low=0, high=9), *enumerate([5, nan, inf, -inf, -1, 10, 0, 9]))
    assert found == ["GOOD", "MISSING", "INFINITE", "INFINITE", "LOW", "HIGH", "GOOD", "GOOD"]


def test_every_reason_has_its_quality() -> None:
    bad = {Reason.MISSING, Reason.INFINITE, Reason.LOW, Reason.HIGH, Reason.STEP}
    good = {Reason.GOOD, Reason.DUPLICATE}
    for reason in Reason:
        expected = Quality.GOOD if reason in good else Quality.UNCERTAIN
        assert QUALITY[reason] == (Quality.BAD if reason in bad else expected)
    assert QUALITY[np.array([[0, 5], [6, 0]], dtype=np.uint8)].tolist() == [[0, 2], [1, 0]]


STEP = Channel("a", "1", step_per_s=1.0)


def test_a_spike_is_bad_and_what_comes_back_is_good() -> None:
    assert judge(STEP, (0, 5), (1, 50), (2, 5.5)) == ["GOOD", "STEP", "GOOD"]


def test_a_step_that_lasts_is_the_new_level_from_the_third_reading_on() -> None:
    found = judge(STEP, (0, 5), (1, 50), (2, 50.5), (3, 50.2), (4, 50.9), (5, 5))
    assert found == ["GOOD", "STEP", "STEP", "GOOD", "GOOD", "STEP"]


def test_readings_that_do_not_agree_with_each_other_never_become_the_level() -> None:
    found = judge(STEP, (0, 5), *[(n, 50 + 20 * (n % 2)) for n in range(1, 9)])
    assert found == ["GOOD", *["STEP"] * 8]


def test_the_change_that_is_allowed_grows_with_the_time_since_the_last_good_reading() -> None:
    assert judge(STEP, (0, 5), (1, 8), (2, 8.5), (3.5, 8.5)) == ["GOOD", "STEP", "STEP", "GOOD"]


def test_a_bad_value_tells_nothing_of_how_fast_the_quantity_changes() -> None:
    channel = Channel("a", "1", high=100, step_per_s=1.0)
    found = judge(channel, (0, 5), (1, nan), (2, 500), (3, 6), (4, 6))
    assert found == ["GOOD", "MISSING", "HIGH", "GOOD", "GOOD"]


def test_a_difference_beyond_all_floats_is_a_step_and_no_warning() -> None:
    largest = 1.7e308
    few = [(0, -largest), (1, largest), (2, -largest)]
    assert judge(STEP, *few) == ["GOOD", "STEP", "GOOD"]
    many = [(n, largest if n % 5 == 1 else -largest) for n in range(100)]
    assert judge(STEP, *many) == ["STEP" if n % 5 == 1 else "GOOD" for n in range(100)]


FLAT = Channel("a", "1", flat_s=3)


def test_a_value_that_stands_still_for_longer_than_flat_s_is_uncertain() -> None:
    found = judge(FLAT, *[(n, 7.0) for n in range(6)], (6, 7.1), (7, 7.1))
    assert found == [*["GOOD"] * 4, "FLAT", "FLAT", "GOOD", "GOOD"]


def test_a_missing_value_does_not_set_a_stuck_sensor_free() -> None:
    found = judge(FLAT, (0, 7), (1, 7), (2, nan), (3, 7), (4, 7))
    assert found == ["GOOD", "GOOD", "MISSING", "GOOD", "FLAT"]


def test_a_value_at_the_end_of_the_scale_is_uncertain_and_out_of_range_is_bad() -> None:
    channel = Channel("a", "1", low=-1, high=11, clip_low=0, clip_high=10)
    found = judge(channel, *enumerate([5, 0, 10, 10.5, -0.5, -2, 12]))
    assert found == ["GOOD", "CLIPPED", "CLIPPED", "CLIPPED", "CLIPPED", "LOW", "HIGH"]


BEAT = Channel("a", "1", every_s=10)


def test_what_comes_off_its_beat_after_a_gap_or_after_a_leap_of_time_is_uncertain() -> None:
    times = [0, 10, 19, 34, 49.1, 53, 63, 83, 108, 134, 1134, 2135]
    found = judge(BEAT, *[(t, 1.0) for t in times])
    assert found == [
        *["GOOD"] * 4,
        *["JITTER", "JITTER", "GOOD", "JITTER", "JITTER"],
        *["GAP", "GAP", "CLOCK"],
    ]


def test_a_day_is_a_leap_of_time_where_a_hundred_steps_are_more() -> None:
    hourly = Channel("a", "1", every_s=3600)
    found = judge(hourly, (0, 1), (86_400, 1), (86_400 * 2 + 1, 1))
    assert found == ["GOOD", "GAP", "CLOCK"]
    daily = Channel("a", "1", every_s=86_400)
    assert judge(daily, (0, 1), (86_400 * 2, 1), (86_400 * 5, 1)) == ["GOOD", "JITTER", "CLOCK"]


def test_what_was_said_out_of_range_was_said_all_the_same() -> None:
    channel = Channel("a", "1", high=9, every_s=10)
    assert judge(channel, (0, 1), (10, 99), (20, 99), (30, 1)) == ["GOOD", "HIGH", "HIGH", "GOOD"]
    assert judge(channel, (0, 1), (10, nan), (20, nan), (30, 1)) == [
        *["GOOD", "MISSING", "MISSING", "GAP"],
    ]


def test_bad_goes_before_uncertain_and_the_value_before_its_time() -> None:
    channel = Channel("a", "1", every_s=1, flat_s=2, clip_high=9, step_per_s=1)
    found = judge(channel, (0, 9), (1, 9), (2, 9), (3, 9), (9, 9), (10, 1), (19, 4), (25, 4))
    assert found == [*["CLIPPED"] * 5, "STEP", "GAP", "FLAT"]


def test_a_reading_that_is_not_later_changes_nothing() -> None:
    channel = Channel("a", "1", high=99, every_s=1, flat_s=2, step_per_s=1)
    found = judge(channel, (5, 1), (6, 1), (3, 50), (6, 50), (2, 100), (7, 1), (8, 1))
    assert found == ["GOOD", "GOOD", "GOOD", "GOOD", "HIGH", "GOOD", "FLAT"]


def test_where_a_row_is_not_whole_nothing_said_is_no_fault() -> None:
    columns = (Channel("a", "1"), Channel("b", "1", every_s=1))
    values = np.array([[1.0, nan], [nan, 2.0], [3.0, nan]])
    t_ns = np.array([1, 2, 3]) * S
    none, last = np.zeros(3, dtype=np.bool_), np.array([False, False, True])
    assert Cleaner(columns).judge(t_ns, values, none) is None
    marks = Cleaner(columns).judge(t_ns, values, last)
    assert marks is not None
    assert marks.tolist() == [[0, 0], [0, 0], [0, 1]]
    marks = Cleaner(columns).judge(t_ns, values)
    assert marks is not None
    assert marks.tolist() == [[0, 1], [1, 0], [0, 1]]


def test_only_what_is_declared_is_checked() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(size=(200, 2)) * 1e6
    values[50:150] = 4.0
    t_ns = np.cumsum(rng.integers(0, 10**15, size=200))
    assert Cleaner((Channel("a", "1"), Channel("b", "1"))).judge(t_ns, values) is None


# -- against a plain reference ---------------------------------------------------------------------


class Plain:
    """The checks of one channel as docs/quality.md tells them, with all of the past at hand."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.said: list[int] = []
        self.plausible: list[tuple[int, float]] = []
        self.level: tuple[int, float] | None = None
        self.doubtful: list[tuple[int, float]] = []

    def __call__(self, t: int, v: float, *, whole: bool) -> str:
        c = self.channel
        if isnan(v):
            return "MISSING" if whole else "GOOD"
        newer = not self.said or t > max(self.said)
        found = []
        if newer:
            found += self.time(t)
            self.said.append(t)
        if isinf(v):
            return "INFINITE"
        if c.low is not None and v < c.low:
            return "LOW"
        if c.high is not None and v > c.high:
            return "HIGH"
        if newer:
            self.plausible.append((t, v))
            found += self.flat(t, v)
            found += self.step(t, v)
        if (c.clip_low is not None and v <= c.clip_low) or (
            c.clip_high is not None and v >= c.clip_high
        ):
            found.append("CLIPPED")
        for name in ("STEP", "CLIPPED", "FLAT", "CLOCK", "GAP", "JITTER"):
            if name in found:
                return name
        return "GOOD"

    def time(self, t: int) -> list[str]:
        if self.channel.every_s is None or not self.said:
            return []
        steps = (t - self.said[-1]) / (self.channel.every_s * S)
        if steps > 2.5:
            leap = steps > 100 or t - self.said[-1] > 86_400 * S
            return ["CLOCK"] if leap else ["GAP"]
        return ["JITTER"] if abs(steps - 1) > 0.5 else []

    def flat(self, t: int, v: float) -> list[str]:
        since = t
        for at, value in reversed(self.plausible):
            if value != v:
                break
            since = at
        limit = self.channel.flat_s
        return ["FLAT"] if limit is not None and (t - since) > limit * S else []

    def step(self, t: int, v: float) -> list[str]:
        rate = self.channel.step_per_s
        if rate is None:
            return []

        def near(other: tuple[int, float]) -> bool:
            return abs(v - other[1]) <= rate / 1e9 * (t - other[0])

        if self.level is None or near(self.level):
            self.doubtful = []
        else:
            if self.doubtful and not near(self.doubtful[-1]):
                self.doubtful = []
            self.doubtful.append((t, v))
            if len(self.doubtful) < 3:
                return ["STEP"]
            self.doubtful = []
        self.level = t, v
        return []


COLUMNS = (
    Channel("plain", "1"),
    Channel("range", "1", low=-3.0, high=3.0),
    Channel("step", "1", step_per_s=1.5),
    Channel("flat", "1", flat_s=3.0, high=3.0),
    Channel("clip", "1", clip_low=-2.0, clip_high=2.0, low=-3.0),
    Channel("beat", "1", every_s=1.0, high=3.0),
    Channel(
        *("all", "1"),
        low=-3.0,
        high=3.5,
        step_per_s=1.2,
        flat_s=2.0,
        clip_low=-2.5,
        clip_high=2.5,
        every_s=1.0,
    ),
)


def recorded(seed: int, rows: int, trouble: float) -> tuple[np.ndarray, Floats, np.ndarray]:
    """Return times, values and wholeness with every kind of trouble."""
    rng = np.random.default_rng(seed)
    spacing = np.full(rows, S)
    odd = rng.random(rows) < trouble
    leaps = np.array(
        [0, -S, -3 * S, S // 4, 3 * S // 2, 2 * S, 5 * S, 100 * S, 101 * S, 90_000 * S]
    )
    spacing[odd] = rng.choice(leaps, odd.sum())
    t_ns = 1_700_000_000 * S + np.cumsum(spacing)
    values = np.round(rng.normal(size=(rows, len(COLUMNS))), 1)
    for column in values.T:
        level = 0.0
        begun = rng.random(rows) < trouble / 2
        still = np.convolve(begun, np.ones(6))[:rows] > 0
        for i in range(rows):
            if rng.random() < trouble:
                level = rng.choice([0.0, 2.5, -2.5, 5.0])
            if still[i] and i:
                column[i] = column[i - 1]
            else:
                column[i] += level
    values[rng.random(values.shape) < trouble / 2] = nan
    values[rng.random(values.shape) < trouble / 8] = inf
    return t_ns, values, rng.random(rows) < 0.5


def reference(t_ns: np.ndarray, values: Floats, whole: np.ndarray) -> list[list[str]]:
    plain = [Plain(channel) for channel in COLUMNS]
    return [
        [check(t, v, whole=w) for check, v in zip(plain, row, strict=True)]
        for t, row, w in zip(t_ns.tolist(), values.tolist(), whole.tolist(), strict=True)
    ]


def named(marks: Any, shape: tuple[int, ...]) -> list[list[str]]:
    if marks is None:
        marks = np.zeros(shape, dtype=np.uint8)
    return [[Reason(mark).name for mark in row] for row in marks]


def test_the_troubled_recording_holds_every_reason() -> None:
    found = reference(*recorded(1, 300, 0.1))
    by_rows = {Reason.LATE, Reason.DUPLICATE}  # given where rows are made
    assert {name for row in found for name in row} == {one.name for one in {*Reason} - by_rows}


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    trouble=st.sampled_from([0.0, 0.01, 0.1, 0.5]),
    cuts=st.sets(st.integers(1, 299), max_size=12),
    taken_back=st.booleans(),
)
def test_reasons_are_those_of_the_plain_reference_however_readings_were_cut(
    seed: int, trouble: float, cuts: set[int], taken_back: bool
) -> None:
    t_ns, values, whole = recorded(seed, 300, trouble)
    cleaner = Cleaner(COLUMNS)
    found = []
    for begin, end in pairwise([0, *sorted(cuts), 300]):
        piece = slice(begin, end)
        marks = cleaner.judge(t_ns[piece], values[piece], whole[piece])
        found += named(marks, values[piece].shape)
        if taken_back:
            state = cleaner.arrays()
            cleaner = Cleaner(COLUMNS)
            cleaner.restore(state)
    assert found == reference(t_ns, values, whole)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), cuts=st.sets(st.integers(1, 299), max_size=12))
def test_what_is_remembered_is_the_same_to_the_last_bit_however_readings_were_cut(
    seed: int, cuts: set[int]
) -> None:
    t_ns, values, _ = recorded(seed, 300, 0.2)
    one, other = Cleaner(COLUMNS), Cleaner(COLUMNS)
    one.judge(t_ns, values)
    for begin, end in pairwise([0, *sorted(cuts), 300]):
        other.judge(t_ns[begin:end], values[begin:end])
    arrays = other.arrays()
    assert {name: a.tobytes() for name, a in one.arrays().items()} == {
        name: a.tobytes() for name, a in arrays.items()
    }
    assert {name: a.shape for name, a in arrays.items()} == {
        name: a.shape for name, a in Cleaner(COLUMNS).arrays().items()
    }


def test_a_check_that_is_new_in_the_configuration_begins_with_what_is_there() -> None:
    before = Cleaner((Channel("a", "1"),))
    before.judge(np.array([S]), np.array([[5.0]]))
    after = Cleaner((Channel("a", "1", step_per_s=1.0, flat_s=1.0, every_s=1.0),))
    after.restore(before.arrays())
    assert after.judge(np.array([9 * S, 10 * S]), np.array([[90.0], [90.5]])) is None


def test_range_alone_and_the_whole_cleaner_agree() -> None:
    _, values, whole = recorded(5, 300, 0.3)
    columns = COLUMNS[:2]
    t_ns = np.arange(300) * S
    for which in (None, whole):
        one = Ranges(columns).judge(values[:, :2], which)
        other = Cleaner(columns).judge(t_ns, values[:, :2], which)
        assert one is not None
        assert np.array_equal(one, other)


# -- bursts ----------------------------------------------------------------------------------------

WAVE = Waveform("axial", "m/s2", rate_hz=25_600, low=-80.0, high=80.0, clip=50.0)


def burst(**changed: float) -> np.ndarray:
    samples = (20 * np.sin(np.arange(4096) / 9)).astype(np.float32)
    for place, value in changed.items():
        samples[int(place.removeprefix("at"))] = value
    return samples


def test_a_burst_is_good_or_bad_as_a_whole() -> None:
    assert judge_burst(WAVE, burst()) is Reason.GOOD
    assert judge_burst(WAVE, burst(at7=nan)) is Reason.INFINITE
    assert judge_burst(WAVE, burst(at7=-inf)) is Reason.INFINITE
    assert judge_burst(WAVE, burst(at7=-80.5)) is Reason.LOW
    assert judge_burst(WAVE, burst(at7=80.5)) is Reason.HIGH
    assert judge_burst(WAVE, np.full(4096, 3, dtype=np.float32)) is Reason.FLAT


def test_a_burst_is_clipped_by_several_samples_at_either_end_of_the_scale() -> None:
    assert judge_burst(WAVE, burst(at7=50, at900=-50)) is Reason.GOOD
    assert judge_burst(WAVE, burst(at7=50, at8=50, at900=-50)) is Reason.CLIPPED
    assert judge_burst(WAVE, np.full(4096, -50, dtype=np.float32)) is Reason.CLIPPED


def test_limits_that_no_float32_is_are_met_by_the_nearest_that_is() -> None:
    nearest = float(np.float32(0.7))
    assert nearest < 0.7
    wave = Waveform("axial", "g", rate_hz=1000, low=0.7, high=1e300, clip=None)
    assert judge_burst(wave, burst()) is Reason.LOW
    assert judge_burst(wave, np.linspace(nearest, 1, 64, dtype=np.float32)) is Reason.GOOD
    counts = np.round(40_000 * np.sin(np.arange(4096) / 9)).clip(-32_768, 32_767)
    scaled = counts.astype(np.float32) * np.float32(0.000598550415)
    clipped = Waveform("axial", "g", rate_hz=1000, clip=32_767 * 0.000598550415)
    assert judge_burst(clipped, scaled) is Reason.CLIPPED


# -- real recordings -------------------------------------------------------------------------------


def recording(name: str, separator: str) -> tuple[np.ndarray, Floats]:
    """Return times in nanoseconds and values of a recording with a heading."""
    root = Path(__file__).parents[2]
    path = (root / os.environ.get("RUNOUT_DATA", "../shared/data") / name).resolve()
    if not path.is_file():
        if os.environ.get("CI"):
            pytest.fail(f"{path} is absent, and CI must run these tests: set RUNOUT_DATA")
        pytest.skip(f"{path} is absent: set RUNOUT_DATA to the recordings")
    with gzip.open(path, "rt") as file:
        rows = [line.strip().split(separator) for line in file][1:]
    t = np.array([row[0].replace(" ", "T") for row in rows], dtype="datetime64[ns]")
    return t.astype(np.int64), np.array([[float(v) for v in row[1:]] for row in rows])


def counts(marks: Any) -> dict[str, int]:
    kinds, times = np.unique(marks, return_counts=True)
    return {Reason(kind).name: int(n) for kind, n in zip(kinds, times, strict=True) if kind != 0}


@pytest.mark.data
def test_the_gaps_of_an_hourly_recording_are_found() -> None:
    t_ns, values = recording(
        "nab/data/realKnownCause/ambient_temperature_system_failure.csv.gz", ","
    )
    marks = Cleaner((Channel("ambient", "degF", every_s=3600),)).judge(t_ns, values)
    # Of 7,266 spacings one is 2 h, two 3 to 24 h, seven longer than a day: counted in the file.
    assert counts(marks) == {"JITTER": 1, "GAP": 2, "CLOCK": 7}


@pytest.mark.data
def test_a_clock_that_was_set_back_leaves_the_beat_as_it_was() -> None:
    t_ns, values = recording(
        "nab/data/realKnownCause/machine_temperature_system_failure.csv.gz", ","
    )
    channel = Channel("temperature", "degF", every_s=300, low=30, high=120)
    marks = Cleaner((channel,)).judge(t_ns, values)
    # Set back by an hour once: twelve times come twice, and no other reading is off its beat.
    assert counts(marks) == {"LOW": int((values < 30).sum())}


@pytest.mark.data
def test_a_coarse_flow_meter_is_uncertain_while_its_reading_stands_still() -> None:
    t_ns, values = recording("skab_gpl3/data/valve1/0.csv.gz", ";")
    channels = (
        Channel("pressure", "bar", step_per_s=1.0),
        Channel("flow", "l/min", flat_s=5, every_s=1),
    )
    pair = values[:, [3, 7]]
    marks = Cleaner(channels).judge(t_ns, pair)
    plain = [Plain(channel) for channel in channels]
    expected = [
        [check(t, v, whole=True) for check, v in zip(plain, row, strict=True)]
        for t, row in zip(t_ns.tolist(), pair.tolist(), strict=True)
    ]
    assert named(marks, pair.shape) == expected
    assert {"FLAT", "JITTER", "STEP"} <= counts(marks).keys()
