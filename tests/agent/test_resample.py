"""Rows on a grid are what a plain reference makes of the same readings, to the last bit."""

import gzip
import os
from itertools import pairwise
from math import isnan, nan, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.clean import Reason
from agent.resample import MOST_HELD, MOST_WAITING, RECENT, Grid
from contract.arrays import Floats
from contract.spec import Channel

S = 1_000_000_000
HOWS = ("last", "mean", "min", "max", "rms", "linear")
Row = tuple[int, list[float], int]
"""Time, values, position of what closed it."""


def push(grid: Grid, *readings: tuple[float, list[float]]) -> Any:
    return grid.push(
        np.array([round(t * S) for t, _ in readings]),
        np.array([values for _, values in readings]),
        np.arange(len(readings)),
    )


def rows_of(joined: Any) -> list[tuple[float, list[float]]]:
    return [(t / S, row) for t, row in zip(joined.t_ns, joined.values.tolist(), strict=True)]


def one(how: str, *readings: tuple[float, float], **keys: Any) -> list[tuple[float, float]]:
    """Return the rows, every 10 s, of one channel that is resampled in a way."""
    grid = Grid((Channel("a", "1", resample=how, **keys),), 10, 0)  # type: ignore[arg-type]
    joined = push(grid, *[(t, [value]) for t, value in readings])
    return [(t, row[0]) for t, row in rows_of(joined)]


# -- what a row is ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "expected"),
    [("last", 4), ("mean", 10 / 3), ("min", 1), ("max", 5), ("rms", sqrt(14)), ("linear", 7)],
)
def test_a_row_stands_for_the_time_since_the_one_before_it(how: str, expected: float) -> None:
    found = one(how, (10, 99), (11, 1), (14, 5), (18, 4), (22, 10))
    assert found == [(10, 99), (20, expected)]


def test_a_reading_at_the_boundary_belongs_to_the_row_that_ends_there() -> None:
    assert one("mean", (15, 1), (20, 3), (20.000000001, 5), (41, 7)) == [(20, 2), (30, 5), (40, 5)]


def test_a_row_is_not_closed_by_a_reading_at_its_own_time() -> None:
    grid = Grid((Channel("a", "1"), Channel("b", "1")), 10, 0)
    assert rows_of(push(grid, (10, [1, nan]), (10, [nan, 2]))) == []
    assert rows_of(push(grid, (10.5, [3, nan]))) == [(10, [1, 2])]


def test_a_row_waits_for_channels_that_come_later() -> None:
    columns = Channel("a", "1"), Channel("b", "1")
    readings = [(9.0, [1.0, nan]), (12.0, [2.0, nan]), (8.0, [nan, 5.0]), (14.0, [3.0, nan])]
    assert rows_of(push(Grid(columns, 10, 3), *readings))[0] == (10, [1, 5])
    hasty = push(Grid(columns, 10, 0), *readings)
    np.testing.assert_equal(rows_of(hasty), [(10, [1, nan])])
    assert hasty.late == 1


def test_a_value_stands_for_hold_s_and_no_row_is_made_when_none_does() -> None:
    assert one("last", (10, 1), (71, 2), (81, 3)) == [
        *[(10, 1), (20, 1), (30, 1), (40, 1), (80, 2)],
    ]
    assert one("last", (10, 1), (71, 2), (81, 3), hold_s=0.0) == [(10, 1), (80, 2)]
    assert one("mean", (6, 1), (8, 3), (71, 2), hold_s=12.0) == [(10, 2), (20, 2)]


def test_a_silence_of_years_makes_no_rows() -> None:
    assert one("linear", (10, 1), (3e9, 2), (6e9, 3)) == [(t, 1) for t in (10, 20, 30, 40)] + [
        (3e9 + t, 2) for t in (0, 10, 20, 30)
    ]


def test_between_readings_further_apart_than_hold_s_no_line_is_drawn() -> None:
    assert one("linear", (14, 0), (24, 10), (51, 37)) == [(20, 6), (30, 16), (40, 26), (50, 36)]
    assert one("linear", (14, 0), (24, 10), (55, 37)) == [(20, 6), *[(t, 10) for t in (30, 40, 50)]]


def test_a_line_is_drawn_to_what_had_come_when_the_row_was_closed() -> None:
    grid = Grid((Channel("a", "1", resample="linear"), Channel("b", "1")), 10, 0)
    joined = push(grid, (18, [8, nan]), (21, [nan, 1]), (22, [12, nan]), (31, [nan, 1]))
    np.testing.assert_equal(rows_of(joined), [(20, [8, nan]), (30, [12, 1])])


def test_what_overflows_is_missing() -> None:
    grid = Grid((Channel("a", "1", resample="rms"), Channel("b", "1")), 10, 0)
    np.testing.assert_equal(rows_of(push(grid, (1, [1e300, 1]), (11, [nan, 2]))), [(10, [nan, 1])])


def test_each_row_names_what_closed_it() -> None:
    grid = Grid((Channel("a", "1"),), 10, 0)
    times = [(n * 3 + 1.0, [1.0]) for n in range(8)]
    joined = push(grid, *times)
    assert (joined.t_ns // S).tolist() == [10, 20]
    assert joined.pos.tolist() == [4, 7]


# -- late and repeated -----------------------------------------------------------------------------


def test_a_reading_that_came_before_is_repeated_and_one_that_is_too_old_is_late() -> None:
    grid = Grid((Channel("a", "1"), Channel("b", "1")), 10, 0)
    joined = push(
        grid,
        *[(5, [1, nan]), (5, [9, nan]), (5, [nan, 2]), (5, [9, 9])],
        *[(12, [3, nan]), (5, [1, nan]), (4, [1, nan]), (5, [1, 2]), (10, [nan, 2])],
    )
    assert rows_of(joined) == [(10, [1, 2])]
    assert (joined.repeated, joined.late) == (4, 2)


def test_a_reading_out_of_order_is_used_while_its_row_is_open() -> None:
    assert one("last", (14, 1), (19, 2), (16, 9), (21, 0)) == [(20, 2)]
    assert one("mean", (14, 1), (19, 2), (16, 9), (21, 0)) == [(20, 4)]
    assert one("linear", (9, 1), (19, 2), (14, 6.0), (21, 0)) == [(10, 1.1), (20, 1)]


def test_what_is_older_than_all_that_is_remembered_is_never_counted_twice() -> None:
    grid = Grid((Channel("a", "1", resample="mean"),), 10_000, 0)
    readings = [(float(n), [float(n)]) for n in range(1, 3 * RECENT)]
    push(grid, *readings)
    again = push(grid, *readings)
    assert (again.repeated, again.late) == (RECENT, 2 * RECENT - 1)
    joined = push(grid, (20_000, [1]))
    assert rows_of(joined) == [(10_000, [sum(v for _, [v] in readings) / len(readings)])]


# -- life events -----------------------------------------------------------------------------------


def test_a_life_event_closes_what_is_open_where_the_readings_end() -> None:
    grid = Grid((Channel("a", "1", resample="mean"), Channel("b", "1")), 10, 15)
    assert rows_of(push(grid, (8, [1, 5]), (12, [2, nan]), (14, [4, nan]))) == []
    t_ns, values = grid.flush()
    assert t_ns.tolist() == [10 * S, 14 * S]
    assert values.tolist() == [[1, 5], [3, 5]]
    assert len(grid.flush()[0]) == 0


def test_the_next_life_holds_nothing_of_the_last_and_loses_nothing_of_its_own() -> None:
    grid = Grid((Channel("a", "1", resample="mean"), Channel("b", "1")), 10, 0)
    push(grid, (12, [1, 7]))
    grid.flush()
    joined = push(grid, (12, [1, nan]), (11, [1, nan]), (15, [3, nan]), (21, [5, nan]))
    np.testing.assert_equal(rows_of(joined), [(20, [3, nan])])
    assert (joined.repeated, joined.late) == (1, 1)


# -- against a plain reference ---------------------------------------------------------------------


class Plain:
    """A grid that keeps all readings and asks them anew for every row."""

    def __init__(self, columns: tuple[Channel, ...], every: int, wait: int) -> None:
        self.columns, self.every, self.wait = columns, every, wait
        self.known: list[set[int]] = [set() for _ in columns]
        self.read: list[list[tuple[int, float]]] = [[] for _ in columns]
        self.newest: int | None = None
        self.closed: int | None = None
        self.late = self.repeated = 0
        self.odd: list[tuple[int, list[int]]] = []

    def take(self, t: int, values: list[float], pos: int) -> list[Row]:
        said = [c for c, v in enumerate(values) if not isnan(v)]
        fresh = [c for c in said if t not in self.known[c]]
        late = self.closed is not None and t <= self.closed
        odd = [Reason.GOOD] * len(values)
        for c in said:
            odd[c] = Reason.DUPLICATE if c not in fresh else Reason.LATE if late else Reason.GOOD
        if any(odd):
            self.odd.append((pos, [int(reason) for reason in odd]))
        if said and not fresh:
            self.repeated += 1
        elif said and late:
            self.late += 1
        for c in fresh:
            self.known[c].add(t)
            if not late:
                self.read[c].append((t, values[c]))
        self.newest = t if self.newest is None else max(t, self.newest)
        due = (self.newest - self.wait - 1) // self.every * self.every
        if self.closed is None:
            self.closed = due
            return []
        rows = [
            self.row(k, pos) for k in range(self.closed // self.every + 1, due // self.every + 1)
        ]
        self.closed = max(self.closed, due)
        return [row for row in rows if not all(map(isnan, row[1]))]

    def flush(self) -> list[Row]:
        rows = []
        if self.newest is not None and self.closed is not None and self.newest > self.closed:
            first = self.closed // self.every + 1
            rows = [self.row(k, 0) for k in range(first, -(-self.newest // self.every) + 1)]
            self.closed = self.newest
        self.read = [[] for _ in self.columns]
        return [row for row in rows if not all(map(isnan, row[1]))]

    def row(self, k: int, pos: int) -> Row:
        assert self.newest is not None
        at = min(k * self.every, self.newest)
        return at, [self.value(c, k, at) for c in range(len(self.columns))], pos

    def value(self, c: int, k: int, at: int) -> float:
        channel, read = self.columns[c], self.read[c]
        hold = 3 * self.every if channel.hold_s is None else round(channel.hold_s * S)
        before = [(t, v) for t, v in read if t <= at]
        if not before:
            return nan
        t0, v0 = max(before)
        cell = -(-t0 // self.every)
        if channel.resample == "linear":
            after = [(t, v) for t, v in read if t > at]
            if after and t0 < at and min(after)[0] - t0 <= hold:
                t1, v1 = min(after)
                return v0 + (v1 - v0) * (float(at - t0) / float(t1 - t0))
        if cell < k and at - t0 > hold:
            return nan
        return self.of([v for t, v in before if -(-t // self.every) == cell], v0, channel.resample)

    @staticmethod
    def of(cell: list[float], last: float, how: str) -> float:
        total = squares = 0.0
        for v in cell:  # in the order of arrival; sum() would round less
            total += v
            squares += v * v
        return {
            "last": last,
            "linear": last,
            "mean": total / len(cell),
            "rms": sqrt(squares / len(cell)),
            "min": min(cell),
            "max": max(cell),
        }[how]


COLUMNS = (
    *(Channel(how, "1", resample=how) for how in HOWS),
    Channel("held", "1", resample="linear", hold_s=20.0),
    Channel("brief", "1", resample="mean", hold_s=0.0),
)


def arrivals(
    seed: int, rows: int, trouble: float, spacing_s: float
) -> tuple[np.ndarray, Floats, np.ndarray]:
    """Return readings that come late, again, out of order, after silences, or of some channels."""
    rng = np.random.default_rng(seed)
    spacing = np.round(rng.choice([0.5, 1.0, 1.5], rows) * spacing_s * S).astype(np.int64)
    silent = rng.random(rows) < trouble / 4
    spacing[silent] += rng.integers(1, 200, silent.sum()) * S
    t_ns = 1_700_000_000 * S + np.cumsum(spacing)
    back = rng.random(rows) < trouble
    t_ns[back] -= rng.integers(0, 20, back.sum()) * S
    values = np.round(rng.normal(size=(rows, len(COLUMNS))) * 1e3, 3)
    values[rng.random(values.shape) < rng.choice([0.0, 0.2, 0.8])] = nan
    for i in np.flatnonzero(rng.random(rows) < trouble / 2):
        if i:
            j = int(rng.integers(max(0, i - 9), i))
            t_ns[i], values[i] = t_ns[j], values[j]
    return t_ns, values, np.arange(rows)


def bits(rows: list[Row]) -> list[tuple[int, bytes, int]]:
    return [(t, (np.array(row) + 0.0).tobytes(), pos) for t, row, pos in rows]


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    trouble=st.sampled_from([0.0, 0.02, 0.3]),
    spacing_s=st.sampled_from([0.3, 2.0, 9.0, 40.0]),
    wait_s=st.sampled_from([0.0, 3.0, 25.0]),
    cuts=st.sets(st.integers(1, 299), max_size=8),
    flushes=st.sets(st.integers(1, 299), max_size=2),
    taken_back=st.booleans(),
)
def test_rows_are_those_of_the_plain_reference_however_readings_were_cut(
    seed: int,
    trouble: float,
    spacing_s: float,
    wait_s: float,
    cuts: set[int],
    flushes: set[int],
    taken_back: bool,
) -> None:
    t_ns, values, pos = arrivals(seed, 300, trouble, spacing_s)
    plain = Plain(COLUMNS, 5 * S, round(wait_s * S))
    expected: list[Row] = []
    for t, row, at in zip(t_ns.tolist(), values.tolist(), pos.tolist(), strict=True):
        if at in flushes:
            expected += plain.flush()
        expected += plain.take(t, row, at)
    grid = Grid(COLUMNS, 5, wait_s)
    shapes = {name: array.shape for name, array in grid.arrays().items()}
    found: list[Row] = []
    late = repeated = 0
    odd: list[tuple[int, list[int]]] = []
    for begin, end in pairwise(sorted({0, *cuts, *flushes, 300})):
        if begin in flushes:
            found += [(int(t), row, 0) for t, row in zip(*map(list, grid.flush()), strict=True)]
        piece = slice(begin, end)
        joined = grid.push(t_ns[piece], values[piece], pos[piece])
        late, repeated = late + joined.late, repeated + joined.repeated
        odd += [(at, reasons.tolist()) for at, reasons in joined.odd]
        found += zip(joined.t_ns.tolist(), joined.values.tolist(), joined.pos.tolist(), strict=True)
        if taken_back:
            state = grid.arrays()
            assert {name: array.shape for name, array in state.items()} == shapes
            grid = Grid(COLUMNS, 5, wait_s)
            grid.restore(state)
    assert bits(found) == bits(expected)
    assert (late, repeated) == (plain.late, plain.repeated)
    assert odd == plain.odd


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    spacing_s=st.sampled_from([0.3, 4.0, 9.0]),
    wait_s=st.sampled_from([0.0, 25.0]),
    cuts=st.sets(st.integers(1, 1199), max_size=12),
)
def test_what_is_remembered_is_the_same_to_the_last_bit_however_readings_were_cut(
    seed: int, spacing_s: float, wait_s: float, cuts: set[int]
) -> None:
    t_ns, values, pos = arrivals(seed, 1200, 0.02, spacing_s)
    whole, cut = Grid(COLUMNS, 5, wait_s), Grid(COLUMNS, 5, wait_s)
    whole.push(t_ns, values, pos)
    for begin, end in pairwise([0, *sorted(cuts), 1200]):
        cut.push(t_ns[begin:end], values[begin:end], pos[begin:end])
    assert {name: a.tobytes() for name, a in cut.arrays().items()} == {
        name: a.tobytes() for name, a in whole.arrays().items()
    }


# -- bounds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("every_s", "wait_s"), [(0.0, 0.0), (nan, 0.0), (1.0, -1.0), (1.0, MOST_WAITING + 1.0)]
)
def test_a_grid_that_could_not_be_kept_is_refused(every_s: float, wait_s: float) -> None:
    with pytest.raises(ValueError, match="a grid has a step of"):
        Grid((Channel("a", "1"),), every_s, wait_s)


def test_a_value_held_for_too_many_rows_is_refused_by_name() -> None:
    Grid((Channel("slow", "1", hold_s=float(MOST_HELD)),), 1, 0)
    with pytest.raises(ValueError, match="'slow': hold_s"):
        Grid((Channel("slow", "1", hold_s=MOST_HELD + 1.0),), 1, 0)


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


@pytest.mark.data
def test_hourly_means_of_a_recording_whose_clock_was_set_back() -> None:
    t_ns, values = recording(
        "nab/data/realKnownCause/machine_temperature_system_failure.csv.gz", ","
    )
    grid = Grid((Channel("temperature", "degF", resample="mean"),), 3600, 0)
    joined = grid.push(t_ns, values, np.arange(len(t_ns)))
    assert (joined.repeated, joined.late) == (12, 0)
    first: dict[int, float] = {}
    for t, value in zip(t_ns.tolist(), values[:, 0].tolist(), strict=True):
        first.setdefault(t, value)  # what was said first of a time stands
    hours: dict[int, list[float]] = {}
    for t, value in first.items():
        hours.setdefault(-(-t // (3600 * S)) * 3600 * S, []).append(value)
    closed = {t: float(np.mean(hour)) for t, hour in hours.items() if t < max(first)}
    assert joined.t_ns.tolist() == list(closed)
    np.testing.assert_allclose(joined.values[:, 0], list(closed.values()), rtol=1e-14)


@pytest.mark.data
def test_a_rig_whose_channels_speak_apart_gives_the_rows_of_one_that_speaks_at_once() -> None:
    t_ns, values = recording("skab_gpl3/data/valve1/0.csv.gz", ";")
    values = values[:, :8]
    columns = tuple(Channel(f"c{c}", "1", resample=HOWS[c % 6]) for c in range(8))
    at_once = Grid(columns, 10, 0).push(t_ns, values, np.arange(len(t_ns)))
    apart = np.full((8 * len(t_ns), 8), nan)
    for c in range(8):
        apart[c::8, c] = values[:, c]
    joined = Grid(columns, 10, 0).push(
        np.repeat(t_ns, 8), apart, np.repeat(np.arange(len(t_ns)), 8)
    )
    assert (joined.repeated, joined.late) == (0, 0)
    assert np.array_equal(joined.t_ns, at_once.t_ns)
    assert np.array_equal(joined.pos, at_once.pos)
    # A line needs the reading behind the row, which comes after what closes it.
    same = [c for c in range(8) if columns[c].resample != "linear"]
    assert np.array_equal(joined.values[:, same], at_once.values[:, same])
