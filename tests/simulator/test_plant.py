"""The simulated plant: reproducible, physical, and true to its truth."""

from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
import pytest

from contract.errors import ConfigError, RunoutError
from contract.report import LifeEvent
from contract.topics import EVENT, READINGS
from simulator import truth
from simulator.config import Node, Scenario, load
from simulator.faults import FAULTS, Effect, Fault, felt_age
from simulator.machines import Pump
from simulator.plant import PHASES, Plant
from simulator.signals import lag, wander

SCENARIOS = Path(__file__).parents[2] / "configs" / "scenarios"
T = 1.7e9 + 600.0 * np.arange(500)


@pytest.fixture(scope="module")
def demo() -> Plant:
    return Plant(load(SCENARIOS / "demo.toml"))


def small(seed: int = 1) -> Plant:
    node = Node("node-01", ("pump-1", "pump-2"), {"bearing": 1.0, "fouling": 1.0})
    start = datetime(2026, 1, 5, tzinfo=UTC)
    return Plant(Scenario("demo", start, (node,), lives=2, seed=seed))


def no_effect(n: int) -> Effect:
    return Effect.of(n)


def test_the_same_seed_plays_the_same_and_another_seed_another() -> None:
    one, two, three = (list(small(seed).messages(PHASES["all"])) for seed in (1, 1, 2))
    assert one == two
    assert one != three


def test_phases_played_apart_are_the_same_as_together() -> None:
    apart = [m for phase in ("history", "present") for m in small().messages(PHASES[phase])]
    assert apart == list(small().messages(PHASES["all"]))


def test_messages_come_in_the_order_of_time_and_rows_at_the_sample_spacing() -> None:
    messages = list(small().messages(PHASES["all"]))
    times = [m.t for m in messages]
    assert times == sorted(times)
    rows = [m.t for m in messages if m.leaf == READINGS and m.asset == "pump-1"]
    assert set(np.diff(rows).tolist()) >= {600.0}
    assert min(np.diff(rows)) == 600.0


def test_a_life_ends_with_failed_at_its_last_row_and_the_next_begins_with_started() -> None:
    one = [m for m in small().messages(PHASES["all"]) if m.asset == "pump-1"]
    events = [
        (at, msgspec.json.decode(m.payload, type=LifeEvent))
        for at, m in enumerate(one)
        if m.leaf == EVENT
    ]
    assert [event.event for _, event in events] == ["failed", "started", "failed", "started"]
    for at, event in events:
        beside = one[at - 1] if event.event == "failed" else one[at + 1]
        assert beside.leaf == READINGS
        assert beside.t == event.t


def test_true_remaining_life_is_failure_less_now(demo: Plant) -> None:
    said = demo.truth("all", "demo.toml")
    ends = {m.asset: m.t for m in demo.messages(PHASES["present"])}
    assert len(set(ends.values())) == 1
    for life in said.lives:
        assert life.rul_h == (life.failure_t - life.played_until_t) / 3600
        if life.failed:
            assert (life.rul_h, life.severity) == (0.0, 1.0)
        else:
            assert life.played_until_t == ends[life.asset]
    left = {life.asset: life.rul_h for life in said.lives if not life.failed}
    assert left["a-pump-4"] == 9.0
    assert left["c-pump-2"] == 7.0


def test_the_demo_shows_two_advanced_faults_that_their_own_hall_has_never_seen(demo: Plant) -> None:
    lives = demo.truth("all", "demo.toml").lives
    seen = {(life.node, life.fault) for life in lives if life.failed}
    strange = [
        life
        for life in lives
        if not life.failed and life.severity and (life.node, life.fault) not in seen
    ]
    assert [(life.asset, life.fault) for life in strange] == [
        ("a-pump-4", "cavitation"),
        ("c-pump-2", "bearing"),
    ]
    # Another hall has seen each of them: nothing is asked that the fleet cannot know.
    assert {life.fault for life in strange} <= {fault for _, fault in seen}
    assert all(life.severity > truth.FELT for life in strange if life.severity)
    healthy = [life for life in lives if life.severity == 0.0]
    assert len(healthy) == 10
    for life in healthy:
        assert life.fault_began_t is not None
        assert life.fault_began_t > life.played_until_t


def test_the_demo_is_of_the_size_it_says(demo: Plant) -> None:
    rows = {phase: sum(life.rows for life in demo.played(PHASES[phase])) for phase in PHASES}
    assert 25_000 <= rows["all"] <= 35_000
    assert rows["all"] == rows["history"] + rows["present"]
    assert sum(m.rows for m in demo.messages(PHASES["all"])) == rows["all"]


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_severity_grows_from_birth_to_failure_and_never_falls(fault: Fault) -> None:
    severity = fault.severity(np.linspace(-1.0, 1.0, 2001))
    assert severity[:1001].max() == 0.0
    assert severity[-1] == 1.0
    assert (np.diff(severity[1000:]) > 0).all()
    assert fault.severity(np.array([felt_age(fault, 0.1)]))[0] == pytest.approx(0.1, abs=1e-3)


def test_cavitation_makes_flow_and_pressure_noisy() -> None:
    pump = Pump.draw(np.random.default_rng(1))
    well = pump.run(T, no_effect(len(T)), np.random.default_rng(1))
    effect = FAULTS["cavitation"].effect(np.full(len(T), 0.8))
    ill = pump.run(T, effect, np.random.default_rng(1))
    for channel in ("flow", "pressure"):
        column = pump.channels.index(channel)
        assert np.diff(ill[:, column]).std() > 2 * np.diff(well[:, column]).std()


def test_no_two_pumps_are_alike_and_all_are_plausible() -> None:
    for seed in range(20):
        pump = Pump.draw(np.random.default_rng(seed))
        rows = pump.run(T, no_effect(len(T)), np.random.default_rng(seed))
        low, high = rows.min(axis=0), rows.max(axis=0)
        assert (low > [0.5, 15, 5, 40, 1.5, 1000]).all()
        assert (high < [4.5, 65, 90, 200, 8, 1600]).all()
    one, two = (Pump.draw(np.random.default_rng(seed)) for seed in (1, 2))
    assert one != two


def test_the_bearing_warms_with_its_time_constant() -> None:
    step = np.concatenate((np.zeros(1), np.ones(200)))
    reached = lag(step, 60.0, 3600.0)
    assert reached[60] == pytest.approx(1 - np.exp(-1), abs=1e-9)


def test_wander_has_mean_0_and_deviation_1() -> None:
    series = wander(np.random.default_rng(1), 20_000, 1.0, 10.0)
    assert series.mean() == pytest.approx(0.0, abs=0.1)
    assert series.std() == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("path", sorted(SCENARIOS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_scenario_runs_as_it_stands(path: Path) -> None:
    plant = Plant(load(path))
    begins = list(islice(plant.messages(PHASES["all"]), 3000))
    assert sum(m.rows for m in begins) > 900
    assert {m.asset for m in begins} <= {life.asset for life in plant.lives}
    assert len(plant.truth("all", str(path)).lives) == len(plant.lives)


GOOD = (SCENARIOS / "one_bearing.toml").read_text()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("sample_s", "sampel_s", "unknown key 'sampel_s'; did you mean 'sample_s'?"),
        ("left_h", "lefth", "unknown key 'nodes[0].present[0].lefth'; did you mean 'left_h'?"),
        (
            "machines =",
            "zzz = 1\nmachines =",
            "unknown key 'nodes[0].zzz'; known: faults, kinds, machines",
        ),
        ('fault = "bearing"', 'fault = "bering"', "did you mean 'bearing'?"),
        ("bearing = 1", "bearings = 1", "did you mean 'bearing'?"),
        ("left_h = 10", "left_h = 40", "must be below the shortest life.fault_h (36)"),
        ('machine = "pump-1"', 'machine = "pump-3"', "'pump-3' is no machine of this node"),
        ('"pump-1", "pump-2"]', '"pump-1", "pump-1"]', "the name 'pump-1' repeats"),
        ("00:00:00Z", "00:00:00", "start needs a zone"),
        ('site = "demo"', 'site = "de/mo"', "site 'de/mo' must be non-empty, without /"),
        ("lives = 2", "lives = -1", "`$.lives`"),
        ("lives = 2", "lives =", "not TOML"),
        ("lives = 2", "lives = 2\nlife = { fault_h = [5, 4] }", "life.fault_h: 5 is above 4"),
    ],
)
def test_a_wrong_scenario_is_named_with_file_key_and_mend(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(ConfigError) as raised:
        load(path)
    assert str(raised.value).startswith(str(path))
    assert said in str(raised.value)


def test_a_truth_file_reads_back_as_it_was_written(tmp_path: Path) -> None:
    said = small().truth("present", "small")
    truth.write(tmp_path / "deep" / "truth.json", said)
    assert truth.read(tmp_path / "deep" / "truth.json") == said
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(RunoutError, match="not a truth file"):
        truth.read(tmp_path / "other.json")


def test_the_demonstration_is_what_it_always_was() -> None:
    plant = Plant(load(SCENARIOS / "demo.toml"))
    lives = plant.lives
    assert (len(lives), sum(life.rows for life in lives)) == (84, 30_610)
    first, last = (plant.readings(lives[at])[-1].tolist() for at in (0, -1))
    assert first == [5.326, 48.47, 29.48, 113.62, 2.995, 1213.3]
    assert last == [2.219, 42.92, 27.46, 88.75, 3.543, 1274.7]
