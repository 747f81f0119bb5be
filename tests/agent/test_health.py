"""What health is learnt from, what it is judged by, and what is said of what it lacks."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from agent.batch import Batch, Event, Rows, Shot
from agent.config import AgentConfig, Keep, Report
from agent.features.burst import BurstFeatures
from agent.pipeline import Outcome
from contract.arrays import Floats
from contract.errors import ConfigError
from contract.model_spec import Moments, Ridge
from contract.report import Alert, Health
from contract.spec import AssetClass, Bearing, Channel, Clustered, Declared, Function, Waveform

Configure = Callable[..., AgentConfig]
Open = Callable[[AgentConfig], Any]

S_NS = 10**9
START_NS = 1_767_225_600 * S_NS
QUICK = Moments(baseline=40, learn=80, on_delay=3, off_delay=3)


def rows_of(asset: str, values: Floats, *, begin: int = 0, step_ns: int = S_NS) -> Rows:
    """Return rows ``(n, C)``, one a second, each a message of its own."""
    n = len(values)
    t_ns = START_NS + step_ns * np.arange(begin, begin + n)
    return Rows(asset, t_ns, values, np.arange(n), np.ones(n, dtype=np.bool_))


def tell(node: Any, values: Floats, *, begin: int = 0, asset: str = "a-1") -> list[Outcome]:
    said: list[Outcome] = node.engine.process(Batch([rows_of(asset, values, begin=begin)], []))
    return said


def alerts(said: list[Outcome]) -> list[Alert]:
    return [one for one in said if isinstance(one, Alert)]


def healths(said: list[Outcome]) -> list[Health]:
    return [one for one in said if isinstance(one, Health)]


@pytest.fixture
def opened(configure: Configure, device: Open) -> Callable[..., Any]:
    """Open a device for one class of assets that tells health at each vector."""

    def opened(spec: AssetClass, **changes: object) -> Any:
        return device(configure("node", spec, **{"report": Report(health_every_s=0.0), **changes}))

    return opened


# -- regimes ---------------------------------------------------------------------------------------

FAN = AssetClass(
    "fan",
    (Channel("vibration", "mm/s"), Channel("speed", "rpm")),
    stats=("mean_4",),
    health=msgspec.structs.replace(QUICK, stats=("mean_4",)),
)
BY_SPEED = [Declared({"speed": (1200.0,)}), Clustered(("speed",), regimes=3)]


def driven(seed: int, pattern: str, *, fault: float = 0.0) -> Floats:
    """Return rows of a fan that vibrates at 2 mm/s when slow and at 6 mm/s when fast.

    ``pattern``: ``s`` and ``f``, 20 rows each; ``fault``: added when slow.
    """
    rng = np.random.default_rng(seed)
    fast = np.repeat([letter == "f" for letter in pattern], 20)
    vibration = np.where(fast, 6.0, 2.0 + fault) + rng.normal(size=len(fast)) * 0.2
    speed = np.where(fast, 1500.0, 900.0) + rng.normal(size=len(fast)) * 3.0
    return np.stack([vibration, speed], axis=1)


@pytest.mark.parametrize("regimes", BY_SPEED, ids=["declared", "clustered"])
def test_another_speed_raises_no_alert_where_regimes_are_told_apart(
    regimes: Any, opened: Callable[..., Any]
) -> None:
    node = opened(msgspec.structs.replace(FAN, regimes=regimes))
    said = tell(node, driven(1, "sf" * 10 + "sfsfffsssf" * 3))
    assert alerts(said) == []
    assert healths(said)[-1].state == "healthy"


def test_without_regimes_the_first_change_of_speed_raises_an_alert(
    opened: Callable[..., Any],
) -> None:
    said = tell(opened(FAN), driven(1, "ssssss" + "f"))
    assert [(alert.state, alert.t >= START_NS / 1e9 + 120) for alert in alerts(said)] == [
        ("raised", True)
    ]


@pytest.mark.parametrize("regimes", BY_SPEED, ids=["declared", "clustered"])
def test_a_fault_within_one_regime_is_found_though_it_is_below_what_is_normal_in_another(
    regimes: Any, opened: Callable[..., Any]
) -> None:
    node = opened(msgspec.structs.replace(FAN, regimes=regimes))
    tell(node, driven(1, "sf" * 10))
    said = tell(node, driven(2, "sf" * 6, fault=2.0), begin=400)
    assert "raised" in [alert.state for alert in alerts(said)]
    assert alerts(said)[0].why[0].channel == "vibration"
    node.close()
    # To one who knows both speeds and no regimes it is between them.
    blind = opened(
        msgspec.structs.replace(
            FAN, health=msgspec.structs.replace(FAN.health, baseline=100, learn=200)
        ),
    )
    tell(blind, driven(1, "sf" * 10))
    assert alerts(tell(blind, driven(2, "sf" * 6, fault=2.0), begin=400)) == []


def test_an_old_score_told_again_raises_no_alert(opened: Callable[..., Any]) -> None:
    node = opened(msgspec.structs.replace(FAN, regimes=BY_SPEED[0]))
    tell(node, driven(1, "sf" * 10))
    values = driven(2, "s" * 3)
    values[30:] += [20.0, 0.0]
    values[31:, 1] = np.nan  # from here on nobody knows the regime
    said = tell(node, values, begin=400)
    assert healths(said)[-1].score == healths(said)[30].score
    assert (healths(said)[-1].score or 0.0) > 1.0
    assert alerts(said) == []


# -- quality ---------------------------------------------------------------------------------------

PUMP = AssetClass(
    "pump",
    (
        Channel("pressure", "bar", low=0.0, high=100.0, clip_high=10.0),
        Channel("flow", "m3/h", step_per_s=5.0),
    ),
    stats=("mean_4", "std_8"),
    health=msgspec.structs.replace(QUICK, learn=1000),
    rul=(Ridge(random=2),),
)


def healthy(seed: int, n: int) -> Floats:
    return np.random.default_rng(seed).normal([5.0, 20.0], 0.3, size=(n, 2))


def learnt(node: Any, spec: AssetClass = PUMP) -> float:
    return float(node.engine.pipeline.groups[spec.name].cohort.healthy.n)


def kept(node: Any) -> list[int]:
    """Return at which second each vector stands that remaining life is to be learnt from."""
    rows = node.engine.store.database.rows("SELECT t_ns FROM life_row ORDER BY t_ns")
    return [(t_ns - START_NS) // S_NS for (t_ns,) in rows]


def test_an_uncertain_value_is_judged_and_not_learnt_for_as_long_as_it_is_looked_back_on(
    opened: Callable[..., Any],
) -> None:
    node = opened(PUMP)
    tell(node, healthy(1, 40))
    before = learnt(node)
    values = healthy(2, 30)
    values[10, 0] = 10.5  # clipped
    said = tell(node, values, begin=40)
    assert all(one.score is not None for one in healths(said))
    doubtful = set(range(50, 58))  # std_8 looks back eight rows
    assert set(range(70)) - set(kept(node)) == doubtful
    assert before < learnt(node) <= before + 30 - len(doubtful)
    assert healths(said)[10].marks == ("pressure.clipped",)
    assert healths(said)[10].score != healths(said)[9].score


def test_a_value_at_an_odd_time_costs_the_vector_it_completes_and_no_other(
    opened: Callable[..., Any],
) -> None:
    spec = msgspec.structs.replace(PUMP, channels=(Channel("flow", "m3/h", every_s=1.0),))
    node = opened(spec)
    part = rows_of("a-1", healthy(1, 60)[:, :1])
    t_ns = part.t_ns.copy()
    t_ns[30:] += 5 * S_NS  # a gap
    said = node.engine.process(Batch([part._replace(t_ns=t_ns)], []))
    assert len(kept(node)) == 59
    assert 35 not in kept(node)
    assert [one.marks for one in healths(said) if one.marks] == [("flow.gap",)]


def test_an_uncertain_value_that_a_grid_holds_is_as_uncertain_there(
    opened: Callable[..., Any],
) -> None:
    slow = Channel("pressure", "bar", clip_high=10.0, hold_s=30.0)
    spec = msgspec.structs.replace(
        PUMP, channels=(slow, Channel("flow", "m3/h")), every_s=1.0, stats=("mean_2",)
    )
    node = opened(spec)
    values = healthy(1, 60)
    values[:, 0] = np.where(np.arange(60) % 10 == 0, values[:, 0], np.nan)
    values[20, 0] = 11.0
    part = rows_of("a-1", values)
    node.engine.process(Batch([part._replace(whole=np.zeros(60, dtype=np.bool_))], []))
    # It stands from 20 to 29, and mean_2 looks back on it once more; 59 is open.
    assert set(range(59)) - set(kept(node)) == set(range(20, 31))


def test_bad_values_reach_no_model(configure: Configure, device: Open) -> None:
    states = []
    for name, bad in (("bad", [1e6, -1.0, np.inf]), ("missing", [np.nan] * 3)):
        node = device(configure(name, PUMP))
        values = healthy(1, 200)
        for at, value in zip((20, 60, 61), bad, strict=True):
            values[at, 0] = value
        values[100, 1] = 1e3 if name == "bad" else np.nan  # a step
        tell(node, values)
        head, arrays = node.state()
        del head["counts"]
        wanted = [n for n in arrays if "untold" not in n and "clean" not in n]
        states.append((head, {n: arrays[n] for n in wanted}, kept(node)))
    assert states[0] == states[1]


@pytest.mark.parametrize("every_s", [0.0, 7.0])
@pytest.mark.parametrize("step", [1, 3, 1000])
def test_a_mark_is_told_once(every_s: float, step: int, opened: Callable[..., Any]) -> None:
    node = opened(PUMP, report=Report(health_every_s=every_s))
    values = healthy(1, 100)
    values[[12, 40, 41, 77], 0] = [-1.0, 200.0, 300.0, 11.0]
    values[55, 1] = 500.0
    said = []
    for begin, end in pairwise([*range(0, 100, step), 100]):
        said += tell(node, values[begin:end], begin=begin)
    told = [mark for one in healths(said) for mark in one.marks]
    once = ["pressure.low", "pressure.clipped", "flow.step"]
    # 40 and 41 are one report's, or two's.
    assert sorted(told) == sorted(once + ["pressure.high"] * (2 if every_s == 0.0 else 1))


def test_a_mark_that_a_life_event_brings_up_is_told_in_the_next_life(
    opened: Callable[..., Any],
) -> None:
    node = opened(PUMP, report=Report(health_every_s=100.0))
    tell(node, healthy(1, 10))
    # A row that lacks a channel is open until the event closes it, in a batch without rows.
    part = rows_of("a-1", np.array([[5.0, np.nan]]), begin=10)
    node.engine.process(Batch([part._replace(whole=np.array([False]))], []))
    event = Event(3, "a-1", START_NS + 11 * S_NS, "maintained")
    assert node.engine.process(Batch([], [event])) == []
    said = tell(node, healthy(2, 2), begin=12)
    assert [one.marks for one in healths(said)] == [("flow.missing",)]


# -- features that do not come ---------------------------------------------------------------------

FUNCTIONS = """
import numpy as np

def never(rows):
    return float("nan")

def slow(rows):
    return float(rows.max() - rows.min())
"""


@pytest.fixture
def functions(tmp_path: Path) -> str:
    folder = tmp_path / "functions"
    folder.mkdir()
    (folder / "own.py").write_text(FUNCTIONS)
    return str(folder)


def with_function(call: str, rows: int) -> AssetClass:
    return msgspec.structs.replace(
        PUMP,
        functions=(Function(call, f"own:{call}", channels=("flow",), rows=rows),),
        rul=(),
        health=QUICK,
    )


def test_a_function_that_never_says_anything_is_named_and_the_rest_is_judged(
    functions: str, opened: Callable[..., Any]
) -> None:
    node = opened(with_function("never", 4), functions=functions)
    said = healths(tell(node, healthy(1, 160)))
    assert said[0].state == "learning"
    assert said[-1].state == "healthy"
    assert {one.lacks for one in said} == {("never",)}
    values = healthy(2, 20)
    values[:, 0] += 3.0
    assert alerts(tell(node, values, begin=160))[0].state == "raised"


def test_what_speaks_late_is_judged_from_its_own_beginning_on(
    functions: str, opened: Callable[..., Any]
) -> None:
    spec = with_function("slow", 64)
    # No channel's own statistics show what the function sees: all are of four rows.
    channels = (Channel("pressure", "bar"), Channel("flow", "m3/h"))
    spec = msgspec.structs.replace(spec, stats=("mean_4",), channels=channels)
    node = opened(spec, functions=functions)
    rng = np.random.default_rng(1)
    wave = np.where(np.arange(400) % 2, 4.0, -4.0) + rng.normal(size=400) * 0.1
    values = np.stack([rng.normal(5.0, 0.3, size=400), 20.0 + wave], axis=1)
    said = healths(tell(node, values[:300]))
    assert [one.lacks for one in said[:60]] == [("slow",)] * 60
    assert said[-1].lacks == ()
    values[300:, 1] += wave[300:] * 0.5  # means as before, but a larger swing
    raised = [one for one in alerts(tell(node, values[300:], begin=300)) if one.state == "raised"]
    assert raised[0].why[0].channel == "slow"


def test_a_channel_that_comes_late_waits_for_nobody_and_joins(opened: Callable[..., Any]) -> None:
    node = opened(msgspec.structs.replace(PUMP, rul=()))
    values = healthy(3, 200)
    values[:100, 1] = np.nan
    said = healths(tell(node, values))
    assert "healthy" in [one.state for one in said[:100]]
    assert said[99].lacks == ("flow",)
    assert said[-1].lacks == ()
    late = healthy(4, 30)
    late[:, 1] += 4.0
    raised = alerts(tell(node, late, begin=200))
    assert raised[0].why[0].channel == "flow"


@pytest.mark.parametrize("step", [1, 7, 50])
def test_what_joins_when_all_else_is_learnt_joins_at_the_same_vector_however_batches_are_cut(
    step: int, configure: Configure, device: Open
) -> None:
    spec = msgspec.structs.replace(PUMP, rul=(), health=QUICK)
    values = healthy(3, 300)
    values[:160, 1] = np.nan
    whole, cut = (device(configure(name, spec)) for name in ("whole", "cut"))
    expected = tell(whole, values)
    said: list[Outcome] = []
    for begin, end in pairwise([*range(0, 300, step), 300]):
        said += tell(cut, values[begin:end], begin=begin)
    assert said == expected
    assert cut.state() == whole.state()
    assert healths(said)[160].lacks == ("flow",)
    assert healths(said)[-1].lacks == ()


def test_where_most_says_nothing_it_is_said_and_nothing_is_judged(
    opened: Callable[..., Any],
) -> None:
    channels = tuple(Channel(name, "bar") for name in "abc")
    node = opened(msgspec.structs.replace(PUMP, channels=channels, rul=()))
    values = np.full((200, 3), np.nan)
    values[:, 1] = healthy(1, 200)[:, 0]
    last = healths(tell(node, values))[-1]
    assert (last.state, last.lacks) == ("learning", ("a", "c"))


def test_an_absent_channel_leaves_the_limits_of_assets_that_have_it_as_they_are(
    opened: Callable[..., Any],
) -> None:
    node = opened(msgspec.structs.replace(PUMP, rul=()))
    for n in range(4):
        values = healthy(10 + n, 80)
        values[:, 1] = np.nan
        tell(node, values, asset=f"lacking-{n}")
    said = tell(node, healthy(1, 300), asset="whole-1")
    assert alerts(said) == []
    assert max(one.score or 0.0 for one in healths(said)) < 1.0


@pytest.mark.parametrize(("baseline", "learn"), [(4, 8), (8, 4), (30, 5), (5, 60)])
def test_one_asset_alone_is_judged_however_short_its_beginning(
    baseline: int, learn: int, opened: Callable[..., Any]
) -> None:
    health = Moments(baseline=baseline, learn=learn)
    node = opened(msgspec.structs.replace(PUMP, health=health, rul=()))
    states = [one.state for one in healths(tell(node, healthy(1, 100)))]
    assert states[0] == "learning"
    assert states[-1] != "learning"


# -- bursts ----------------------------------------------------------------------------------------

WAVE = Waveform(
    "drive",
    "m/s2",
    2560.0,
    samples=1024,
    features=("rms", "bpfo"),
    high=50.0,
    bearing=Bearing(8, 8.0, 40.0),
    speed="speed",
)
MOTOR = AssetClass(
    "motor",
    (Channel("speed", "rpm", step_per_s=500.0),),
    waveforms=(WAVE,),
    stats=("last",),
    every_s=1.0,
)


def burst(seed: int, pos: int, second: int) -> Shot:
    samples = np.random.default_rng(seed).normal(size=1024).astype(np.float32)
    return Shot(pos, "a-1", 0, START_NS + second * S_NS, samples)


def speeds(*readings: tuple[int, int, float]) -> Rows:
    """Return readings of the speed: position, nanoseconds, rpm."""
    pos, t_ns, rpm = (np.array(part) for part in zip(*readings, strict=True))
    values = np.full((len(pos), 3), np.nan)
    values[:, 0] = rpm
    return Rows("a-1", START_NS + t_ns, values, pos, np.zeros(len(pos), dtype=np.bool_))


def features(node: Any, shots: list[Shot], *parts: Rows) -> Floats:
    """Return the features ``(n, 2)`` of bursts, as they are journalled."""
    batch = Batch(list(parts), [], shots=shots)
    node.engine.process(batch)
    return np.array([shot.features for shot in batch.shots])


def expected(seeds: list[int], rpm: list[float]) -> Floats:
    samples = np.stack([burst(seed, 0, 0).samples for seed in seeds])
    return BurstFeatures(WAVE).compute(samples, np.array(rpm))


def test_bearing_lines_go_by_the_newest_speed_that_came_before_the_burst(
    opened: Callable[..., Any],
) -> None:
    node = opened(MOTOR)
    shots = [burst(n, pos, n) for n, pos in enumerate([0, 2, 4, 6, 8])]
    part = speeds(
        (1, 0, 900.0),
        (3, 2 * S_NS, 1100.0),
        (5, S_NS, 1000.0),  # late, and older than the newest
        (7, 3 * S_NS, 6000.0),  # a step that no motor makes
    )
    found = features(node, shots, part)
    wanted = expected([0, 1, 2, 3, 4], [np.nan, 900.0, 1100.0, 1100.0, 1100.0])
    np.testing.assert_array_equal(found, wanted)
    assert np.isnan(found[0, 1])
    # Of batches before, too; and a message's own speed comes with it, not before it.
    found = features(node, [burst(5, 0, 9)], speeds((0, 10 * S_NS, 1300.0)))
    np.testing.assert_array_equal(found, expected([5], [1100.0]))


def test_speeds_a_nanosecond_apart_are_told_apart_however_they_came(
    opened: Callable[..., Any],
) -> None:
    node = opened(MOTOR)
    features(node, [burst(0, 0, 0)], speeds((0, 1, 900.0)))
    features(node, [burst(0, 0, 0)], speeds((0, 2, 901.0)))
    found = features(node, [burst(1, 0, 0)])
    np.testing.assert_array_equal(found, expected([1], [901.0]))


@pytest.mark.parametrize("waveforms", [True, False], ids=["kept", "left out"])
def test_a_bad_burst_is_told_and_counted_and_has_no_features(
    waveforms: bool,
    configure: Configure,
    device: Open,
) -> None:
    report, keep = Report(health_every_s=0.0), Keep(power_loss_safe=False, waveforms=waveforms)
    node = device(configure("node", MOTOR, report=report, keep=keep))
    flat = burst(1, 0, 1)._replace(samples=np.ones(1024, dtype=np.float32))
    loud = burst(2, 1, 2)
    loud.samples[7] = 60.0
    assert np.isnan(features(node, [flat, loud])).all()
    rows = speeds(*[(n, (3 + n) * S_NS, 900.0 + n) for n in range(3)])
    said = healths(node.engine.process(Batch([rows], [])))
    assert [one.marks for one in said] == [("drive.high", "drive.flat"), ()]
    expected_state = node.state()
    assert expected_state[0]["counts"]["marked"] == {"drive.flat": 1, "drive.high": 1}
    node.kill()
    assert device(node.config).state() == expected_state


def test_where_there_was_no_burst_none_is_missing(opened: Callable[..., Any]) -> None:
    node = opened(msgspec.structs.replace(MOTOR, every_s=0.0, stats=("mean_8",)))
    part = speeds(*[(n, n * S_NS, 900.0) for n in range(6)])
    shots = [burst(n, n, n)._replace(t_ns=START_NS + n * S_NS + 7) for n in range(5)]
    features(node, shots, part._replace(whole=np.ones(6, dtype=np.bool_)))
    assert node.engine.pipeline.counts.marked == {}


# -- configurations --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"every_s": 1e-9}, "a grid has a step"),
        ({"every_s": 1.0, "wait_s": 1e6}, "waits for at most"),
        ({"regimes": Declared({"flow": tuple(range(100))})}, "regimes"),
    ],
)
def test_what_no_asset_could_be_made_of_is_said_before_one_speaks(
    changes: dict[str, object], words: str, opened: Callable[..., Any]
) -> None:
    with pytest.raises(ConfigError, match=words):
        opened(msgspec.structs.replace(PUMP, **changes))


def test_what_one_message_completes_comes_by_name_in_whatever_order_it_is_met(
    opened: Callable[..., Any],
) -> None:
    node = opened(PUMP)
    pos: NDArray[np.int64] = np.zeros(5, dtype=np.int64)
    parts = [rows_of(name, healthy(1, 5))._replace(pos=pos) for name in ("b-1", "a-1")]
    said = healths(node.engine.process(Batch(parts, [])))
    assert [one.asset for one in said] == ["a-1"] * 5 + ["b-1"] * 5
