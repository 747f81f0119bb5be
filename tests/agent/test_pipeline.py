"""The same readings give the same models and words, however they were cut, kept or replayed."""

from collections.abc import Callable
from itertools import pairwise
from math import isnan
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.alerts import AssetAlert
from agent.batch import Batch, Event, Rows
from agent.config import AgentConfig, Node
from agent.features.window import Window
from agent.frame import Frame
from agent.labels import Life
from agent.pipeline import Pipeline
from agent.prognosis import LocalRul
from contract.arrays import Floats
from contract.model_spec import Moments, Ridge, Sklearn
from contract.release import Release
from contract.report import Alert, Health
from contract.spec import AssetClass, Channel

Configure = Callable[..., AgentConfig]
Open = Callable[[AgentConfig], Any]

HOUR_NS = 3_600_000_000_000
STATS = (
    "last",
    "mean_4",
    "std_4",
    "min_5",
    "max_5",
    "slope_6",
    "ewma_4",
    "mean_all",
    "dev_7",
    "mean_9",
    "rms_5",
    "peak_5",
    "crest_8",
    "skew_8",
    "kurt_8",
)

# -- batches ---------------------------------------------------------------------------------------

SPEC = AssetClass(
    "pump",
    (Channel("vibration", "mm/s", high=9.0), Channel("temperature", "degC")),
    stats=STATS,
    hop=3,
    warmup=4,
    cap_h=20.0,
    health=Moments(stats=("mean_4",), baseline=4, learn=8, on_delay=2, off_delay=2),
    rul=(Ridge(random=8),),
    holdout=3,
)


class Memory:
    """Lives in memory, as ``agent.pipeline.Lives`` wants them."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, int], list[tuple[int, Floats]]] = {}
        self.ended: list[tuple[str, int, int]] = []

    def add(self, asset: str, life: int, t_ns: int, x: Floats) -> None:
        self.rows.setdefault((asset, life), []).append((t_ns, x.copy()))

    def finish(self, _spec: AssetClass, asset: str, life: int, end_ns: int) -> bool:
        if (asset, life) in self.rows:
            self.ended.append((asset, life, end_ns))
        return (asset, life) in self.rows

    def forget(self, asset: str, life: int) -> None:
        self.rows.pop((asset, life), None)

    def training(self, spec: AssetClass, until: tuple[str, int] | None = None) -> list[Life]:
        del until  # nothing is replayed here
        return [self._life(spec, *one) for n, one in enumerate(self.ended) if n % 3 != 2]

    def heldout(self, spec: AssetClass) -> list[Life]:
        return [self._life(spec, *one) for n, one in enumerate(self.ended) if n % 3 == 2]

    def _life(self, spec: AssetClass, asset: str, life: int, end_ns: int) -> Life:
        rows = self.rows[asset, life]
        y = np.array([min((end_ns - t) / 3.6e12, spec.cap_h) for t, _ in rows])
        return Life(asset, life, np.array([x for _, x in rows]), y)


def no_release(_: object) -> Release:
    raise AssertionError("nothing was released")


Message = tuple[str, int, tuple[float, float] | str]
"""Asset, hour, and values or an event."""


def story(seed: int, hours: int) -> list[Message]:
    """Return what two pumps say: gaps, values out of range, single channels, rows twice, ends."""
    rng = np.random.default_rng(seed)
    told: list[Message] = []
    for hour in range(hours):
        for asset in ("pump-1", "pump-2"):
            warm = 30.0 if hour % 40 > 32 else 0.0
            values = rng.normal([5.0, 40.0 + warm], [1.5, 1.0])
            values[rng.random(2) < 0.1] = np.nan
            told.append((asset, hour, (float(values[0]), float(values[1]))))
            if rng.random() < 0.1:
                told.append(told[int(rng.integers(max(0, len(told) - 6), len(told)))])
            if rng.random() < 0.04:
                told.append((asset, hour, "failed" if rng.random() < 0.8 else "maintained"))
    return told


def batch_of(messages: list[Message]) -> Batch:
    """Return messages as the assembler would put them together."""
    rows: dict[str, list[tuple[int, tuple[float, float], int]]] = {}
    events = []
    for pos, (asset, hour, what) in enumerate(messages):
        if isinstance(what, str):
            events.append(Event(pos, asset, hour * HOUR_NS, what))
        else:
            rows.setdefault(asset, []).append((hour * HOUR_NS, what, pos))
    return Batch(
        [
            Rows(
                asset,
                np.array([t for t, _, _ in found], dtype=np.int64),
                np.array([values for _, values, _ in found]),
                np.array([pos for _, _, pos in found], dtype=np.int64),
                # Every seventh hour speaks channel by channel: its row is open for a while.
                np.array([t // HOUR_NS % 7 != 0 for t, _, _ in found], dtype=np.bool_),
            )
            for asset, found in rows.items()
        ],
        events,
    )


def run_through(batches: list[Batch]) -> tuple[list[bytes], dict[str, bytes], object]:
    """Return what a pipeline says, and what it is in the end."""
    pipeline = Pipeline(AgentConfig((SPEC,), node=Node("node")), Memory(), no_release)
    said = [msgspec.json.encode(outcome) for b in batches for outcome in pipeline.process(b)]
    head, arrays = pipeline.arrays()
    return said, {name: array.tobytes() for name, array in arrays.items()}, head


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), cuts=st.sets(st.integers(1, 250), max_size=60))
def test_how_readings_are_cut_into_batches_makes_no_difference(seed: int, cuts: set[int]) -> None:
    told = story(seed, 110)
    ends = [0, *sorted(cut for cut in cuts if cut < len(told)), len(told)]
    pieces = [told[a:b] for a, b in pairwise(ends)]
    expected = run_through([batch_of(told)])
    assert run_through([batch_of(piece) for piece in pieces]) == expected
    assert len(expected[0]) > 30


def test_readings_one_by_one_say_the_same_as_all_at_once() -> None:
    told = story(7, 110)
    said, arrays, head = run_through([batch_of([one]) for one in told])
    assert (said, arrays, head) == run_through([batch_of(told)])
    outcomes = [msgspec.json.decode(body, type=Health | Alert) for body in said]
    # The story is one in which everything happens.
    assert {type(outcome) for outcome in outcomes} == {Health, Alert}
    assert any(isinstance(o, Health) and o.rul_h is not None for o in outcomes)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_batch_comes_back_from_the_journal_as_it_went_in(seed: int) -> None:
    batch = batch_of(story(seed, 20))
    back = Batch.decode(batch.encode())
    assert back.events == batch.events
    for one, other in zip(back.rows, batch.rows, strict=True):
        assert one.asset == other.asset
        for a, b in zip(one[1:], other[1:], strict=True):
            assert np.array_equal(a, b, equal_nan=a.dtype == np.float64)


def test_a_replay_learns_at_each_end_of_a_life_what_was_known_then(
    configure: Configure, device: Open
) -> None:
    config = configure()
    node = device(config)
    for n in range(7):  # no checkpoint: all of it is replayed, with all lives in the store already
        node.wear_out(f"pump-{n}", n)
    expected = node.state()
    models = node.engine.pipeline.groups["pump"].rul.models
    node.kill()
    again = device(config)
    assert again.state() == expected
    restored = again.engine.pipeline.groups["pump"].rul.models
    assert np.array_equal(restored["ridge"].coefficients, models["ridge"].coefficients)
    assert again.wear_out("pump-1", 20, begin=60) == node_after(configure, device)


def node_after(configure: Configure, device: Open) -> int:
    """Return the hour at which the same pump ends on a device that was never killed."""
    node = device(configure("other"))
    for n in range(7):
        node.wear_out(f"pump-{n}", n)
    return int(node.wear_out("pump-1", 20, begin=60))


def test_every_point_of_a_life_can_be_come_back_to(configure: Configure, device: Open) -> None:
    config = configure()
    node = device(config)
    steady = device(configure("steady"))
    rng = np.random.default_rng(3)
    values = rng.normal([5.0, 40.0], 1.0, size=(120, 2))
    values[rng.random(values.shape) < 0.05] = np.nan
    for hour in range(0, 120, 8):
        expected = steady.live("pump-1", values[hour : hour + 8], begin=hour, failed=hour == 64)
        assert (
            node.live("pump-1", values[hour : hour + 8], begin=hour, failed=hour == 64) == expected
        )
        if hour % 24 == 0:
            node.close()
        else:
            node.kill()
        node = device(config)
        assert node.state() == steady.state()


def test_scoring_changes_nothing(configure: Configure, device: Open) -> None:
    node = device(configure())
    for n in range(4):
        node.wear_out(f"pump-{n}", n)
    before = node.state()
    group = node.engine.pipeline.groups["pump"]
    X = np.random.default_rng(1).normal(size=(50, 6))
    hours = group.rul.models["ridge"].predict(X)
    scores = [group.judge().model.score(z)[0] for z in X]
    assert np.array_equal(group.rul.models["ridge"].predict(X), hours)
    assert [group.judge().model.score(z)[0] for z in X] == scores
    assert node.state() == before


# -- features --------------------------------------------------------------------------------------


def reference(rows: list[float], hop: int, stat: str) -> float:
    """Return a statistic of one channel after these rows of a life, computed the plain way."""
    if stat == "last":
        return rows[-1]
    good = [v for v in rows if not isnan(v)]
    if stat == "mean_all":
        return sum(good) / len(good) if good else np.nan
    kind, _, digits = stat.partition("_")
    n = int(digits)
    if kind == "ewma":
        return ewma(rows, 2.0 / (n + 1.0))
    if kind == "dev":
        # The beginning is taken in whole hops, from that in which its n-th row lies.
        begin = [v for v in rows[: -(-n // hop) * hop] if not isnan(v)]
        recent = [v for v in rows[-4:] if not isnan(v)]
        both = begin and recent
        return sum(recent) / len(recent) - sum(begin) / len(begin) if both else np.nan
    pairs = [(k, v) for k, v in enumerate(rows[-n:]) if not isnan(v)]
    if not pairs:
        return np.nan
    values = [v for _, v in pairs]
    mean = sum(values) / len(values)
    if kind == "slope":
        middle = sum(k for k, _ in pairs) / len(pairs)
        energy = sum((k - middle) ** 2 for k, _ in pairs)
        return sum((k - middle) * (v - mean) for k, v in pairs) / energy if energy else 0.0
    variance, third, fourth = (
        sum((v - mean) ** k for v in values) / len(values) for k in (2, 3, 4)
    )
    rms = np.sqrt(sum(v * v for v in values) / len(values))
    flat = len(set(values)) == 1
    return {
        "mean": mean,
        "std": np.sqrt(variance),
        "min": min(values),
        "max": max(values),
        "rms": rms,
        "peak": max(abs(v) for v in values),
        "crest": max(abs(v) for v in values) / rms,
        "skew": 0.0 if flat else third / variance**1.5,
        "kurt": 0.0 if flat else fourth / variance**2,
    }[kind]


def ewma(rows: list[float], a: float) -> float:
    smooth = np.nan
    for value in rows:
        if isnan(smooth):
            smooth = value
        elif not isnan(value):
            smooth += a * (value - smooth)
    return smooth


@pytest.mark.parametrize("gaps", [0.0, 0.3, 0.9], ids=["whole", "some gaps", "mostly gaps"])
@pytest.mark.parametrize("hop", [1, 3, 5])
@pytest.mark.parametrize("stat", STATS)
def test_a_statistic_is_what_its_name_says(stat: str, hop: int, gaps: float) -> None:
    rng = np.random.default_rng(5)
    values = rng.normal(1e3, 2.0, size=(60, 2))
    values[rng.random(values.shape) < gaps] = np.nan
    # Beside mean_4, which is the shortest mean that dev_N compares with the beginning.
    stats = tuple(dict.fromkeys((stat, "mean_4")))
    window = Window(2, stats, hop=hop, warmup=1)
    rows, X = window.push(values)
    assert rows.tolist() == list(range(hop - 1, 60, hop))
    for row, x in zip(rows, X, strict=True):
        expected = [reference(values[: row + 1, c].tolist(), hop, stat) for c in range(2)]
        np.testing.assert_allclose(x[:2], expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("stat", ["std_64", "skew_64", "kurt_64", "slope_64"])
def test_a_large_offset_costs_no_statistic_its_digits(stat: str) -> None:
    # Halves and eighths, so that the offset itself rounds nothing away.
    values = np.round(np.random.default_rng(7).normal(size=(64, 3)) ** 3 * 8) / 8
    small, large = Window(3, (stat,), hop=64, warmup=1), Window(3, (stat,), hop=64, warmup=1)
    _, X = small.push(values)
    _, Y = large.push(values + 1e6)
    np.testing.assert_allclose(Y, X, rtol=1e-6, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    channels=st.sampled_from([1, 2, 8, 24]),
    hop=st.integers(1, 9),
    cuts=st.sets(st.integers(1, 299), max_size=40),
    gaps=st.sampled_from([0.0, 0.002, 0.1]),
)
def test_how_rows_are_cut_makes_no_difference_to_the_last_bit(
    seed: int, channels: int, hop: int, cuts: set[int], gaps: float
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(300, channels)) * 1e3
    values[rng.random(values.shape) < gaps] = np.nan
    whole, cut = (Window(channels, STATS, hop=hop, warmup=2) for _ in range(2))
    rows, X = whole.push(values)
    found = []
    for begin, end in pairwise([0, *sorted(cuts), 300]):
        part, Y = cut.push(values[begin:end])
        found += [(begin + row, y.tobytes()) for row, y in zip(part.tolist(), Y, strict=True)]
    assert found == [(row, x.tobytes()) for row, x in zip(rows.tolist(), X, strict=True)]


def told(window: Window, values: Floats) -> list[tuple[int, bytes]]:
    rows, X = window.push(values)
    return [(row, x.tobytes()) for row, x in zip(rows.tolist(), X, strict=True)]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    at=st.integers(0, 200),
    hop=st.integers(1, 7),
    warmup=st.integers(1, 20),
)
def test_a_window_taken_back_at_any_point_goes_on_bit_for_bit(
    seed: int, at: int, hop: int, warmup: int
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(200, 2))
    values[rng.random(values.shape) < 0.05] = np.nan
    whole = Window(2, STATS, hop=hop, warmup=warmup)
    expected = told(whole, values)
    first, second = (Window(2, STATS, hop=hop, warmup=warmup) for _ in range(2))
    vectors = told(first, values[:at])
    second.restore(first.arrays())
    vectors += [(row + at, x) for row, x in told(second, values[at:])]
    assert vectors == expected
    assert {n: a.tobytes() for n, a in second.arrays().items()} == {
        n: a.tobytes() for n, a in whole.arrays().items()
    }


def test_a_new_life_starts_with_an_empty_window() -> None:
    values = np.random.default_rng(1).normal(size=(40, 2))
    used, fresh = (Window(2, STATS, hop=1, warmup=1) for _ in range(2))
    used.push(values + 100.0)
    used.reset()
    assert told(used, values) == told(fresh, values)


# -- the frame -------------------------------------------------------------------------------------

NAN = np.nan


def join(frame: Frame, *readings: tuple[int, list[float]], whole: bool = False) -> Any:
    return frame.push(
        np.array([t for t, _ in readings]),
        np.array([values for _, values in readings]),
        np.arange(len(readings)),
        np.full(len(readings), whole),
    )


def test_readings_of_single_channels_that_bear_one_time_are_one_row() -> None:
    frame = Frame(3)
    joined = join(frame, (1, [1, NAN, NAN]), (1, [NAN, 2, NAN]), (1, [NAN, NAN, 3]))
    assert joined.t_ns.tolist() == [1]
    assert joined.values.tolist() == [[1, 2, 3]]


def test_a_row_that_lacks_a_channel_is_closed_by_a_later_time() -> None:
    frame = Frame(2)
    assert len(join(frame, (1, [1, NAN])).t_ns) == 0
    joined = join(frame, (2, [5, 6]))
    assert joined.t_ns.tolist() == [1, 2]
    np.testing.assert_array_equal(joined.values, [[1, NAN], [5, 6]])


def test_a_life_event_closes_the_row_that_is_open() -> None:
    frame = Frame(2)
    join(frame, (1, [1, NAN]))
    closed = frame.flush()
    assert closed is not None
    assert closed[0] == 1
    np.testing.assert_array_equal(closed[1], [1, NAN])
    assert frame.flush() is None


def test_what_was_said_first_of_a_time_stands() -> None:
    frame = Frame(2)
    joined = join(frame, (1, [1, NAN]), (1, [9, NAN]), (1, [NAN, 2]), (1, [9, 9]))
    assert joined.values.tolist() == [[1, 2]]
    assert (joined.repeated, joined.late) == (2, 0)


def test_rows_out_of_order_are_late_and_not_made_into_rows() -> None:
    frame = Frame(1)
    joined = join(frame, (5, [1]), (3, [1]), (5, [1]), (6, [2]), whole=True)
    assert joined.t_ns.tolist() == [5, 6]
    assert (joined.repeated, joined.late) == (1, 1)


# -- alerts ----------------------------------------------------------------------------------------


def changes(spec: AssetClass, *steps: tuple[float, float | None]) -> list[str]:
    alert = AssetAlert(spec)
    return [alert.push(n, score, rul_h) for n, (score, rul_h) in enumerate(steps)]


ALERTING = msgspec.structs.replace(SPEC, health=Moments(on_delay=3, off_delay=2), alert_rul_h=10.0)


def test_an_alert_is_raised_after_its_delay_and_not_by_one_outlier() -> None:
    scores = [2.0, 2.0, 0.1, 2.0, 2.0, 2.0, 2.0]
    assert changes(ALERTING, *[(s, None) for s in scores]) == ["", "", "", "", "", "raised", ""]


def test_an_alert_returns_only_well_below_the_limit_and_after_its_delay() -> None:
    scores = [2.0, 2.0, 2.0, 0.9, 0.9, 0.7, 0.9, 0.7, 0.7, 0.1]
    expected = ["", "", "raised", "", "", "", "", "", "returned", ""]
    assert changes(ALERTING, *[(s, None) for s in scores]) == expected


def test_little_life_left_raises_an_alert_though_the_score_is_low() -> None:
    assert changes(ALERTING, *[(0.1, 5.0)] * 3, *[(0.1, 50.0)] * 2)[2::2] == ["raised", "returned"]


def test_an_alert_ends_with_the_life_it_was_raised_in(configure: Configure, device: Open) -> None:
    node = device(configure())
    told: list[Any] = []
    values = np.random.default_rng(1).normal([5.0, 40.0], 0.1, size=(60, 2))
    values[40:] += 10.0
    told += node.live("pump-1", values, failed=True)
    alerts = [one for one in told if isinstance(one, Alert)]
    raised, closed = alerts[-2:]
    assert (raised.state, closed.state, closed.now) == ("raised", "normal", "normal")
    assert raised.id == closed.id
    assert raised.since == 1_199_145_600 + 41 * 3600
    assert raised.why
    assert closed.t == 1_199_145_600 + 60 * 3600
    assert closed.score > 1.0  # the machine did not come back
    assert closed.event == "failed"
    assert closed.text == f"pump-1: failed: alert closed [{raised.id}]"


# -- remaining life --------------------------------------------------------------------------------


def some_lives(count: int) -> list[Life]:
    lives = []
    for n in range(count):
        rng = np.random.default_rng(n)
        hours = int(rng.integers(20, 40))
        y = np.arange(hours, 0, -1.0)
        X = rng.normal(size=(hours, 4)) * 0.1 + y[:, None] * [1.0, -1.0, 0.5, 0.0]
        lives.append(Life(f"pump-{n}", 0, X, np.minimum(y, 20.0)))
    return lives


RIDGE, NETWORK = Ridge(random=6), Sklearn(hidden=(4,), epochs=1)


@pytest.mark.parametrize("ended", [1, 2, 3, 4, 5, 8, 11])
@pytest.mark.parametrize(
    "rul",
    [(RIDGE,), (RIDGE, NETWORK), (NETWORK, RIDGE), (NETWORK,)],
    ids=lambda rul: "+".join(type(model).__name__ for model in rul),
)
def test_models_taken_back_are_the_same_and_learn_on_the_same(
    rul: tuple[Any, ...], ended: int
) -> None:
    spec = msgspec.structs.replace(SPEC, rul=rul)
    lives = some_lives(ended + 2)
    never_left = LocalRul(spec, sklearn=True)
    for n in range(1, ended + 1):
        never_left.learn(lives[:n])
        if n % 3 == 0:
            never_left.learn(lives[:n])  # a held-out life ended: nothing is new
    restored = LocalRul(spec, sklearn=True)
    restored.restore(never_left.arrays(), lives[:ended])
    X = np.random.default_rng(9).normal(size=(5, 4))
    for n in (ended, ended + 1, ended + 2):
        if n > ended:
            never_left.learn(lives[:n])
            restored.learn(lives[:n])
        assert list(restored.models) == list(never_left.models)
        assert len(restored.models) == len(rul)
        for name, model in never_left.models.items():
            assert np.array_equal(restored.models[name].predict(X), model.predict(X))
        assert {name: array.tobytes() for name, array in restored.arrays().items()} == {
            name: array.tobytes() for name, array in never_left.arrays().items()
        }


def test_remaining_life_is_learnt_from_lives() -> None:
    own = LocalRul(msgspec.structs.replace(SPEC, rul=(RIDGE,)), sklearn=False)
    own.learn(some_lives(6))
    for life in some_lives(8)[6:]:
        assert np.sqrt(np.mean((own.models["ridge"].predict(life.X) - life.y) ** 2)) < 3.0


def test_the_configuration_without_scikit_learn_learns_ridge_alone() -> None:
    own = LocalRul(msgspec.structs.replace(SPEC, rul=(RIDGE, NETWORK)), sklearn=False)
    own.learn(some_lives(2))
    assert list(own.models) == ["ridge"]
