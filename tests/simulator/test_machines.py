"""The machines: plausible, no two alike, and moved by what they say moves them."""

import math
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from contract import units
from contract.arrays import Floats
from contract.errors import ConfigError
from simulator.config import Drift, Node, Scenario, Season, load
from simulator.faults import FAULTS, Effect, moved
from simulator.machines import MACHINES, Surroundings
from simulator.plant import PHASES, Plant

MONDAY = datetime(2026, 1, 5, tzinfo=UTC).timestamp()
T = MONDAY + 600.0 * np.arange(6 * 144)
PAIRS = [(kind, fault) for kind, machine in MACHINES.items() for fault in machine.faults]
RANGES = {
    "vibration": (0.3, 9.0),
    "bearing_temp": (-5.0, 110.0),
    "winding_temp": (20.0, 130.0),
    "oil_temp": (0.0, 90.0),
    "discharge_temp": (40.0, 100.0),
    "motor_current": (5.0, 250.0),
    "voltage": (370.0, 430.0),
    "oil_pressure": (0.8, 6.0),
    "torque": (50.0, 900.0),
    "load": (0.0, 1000.0),
    "tension": (2.0, 80.0),
    "belt_speed": (1.5, 2.7),
    "altitude": (33.0, 37.0),
    "mach": (0.75, 0.85),
}


def run(
    kind: str,
    seed: int,
    effect: Effect | None = None,
    around: Surroundings | None = None,
    t: Floats = T,
) -> Floats:
    machine = MACHINES[kind].draw(np.random.default_rng(seed))
    return machine.run(
        t, Effect.of(len(t)) if effect is None else effect, np.random.default_rng(seed), around
    )


@pytest.mark.parametrize("kind", MACHINES)
def test_every_channel_has_a_unit_that_agents_know(kind: str) -> None:
    machine = MACHINES[kind]
    assert len(machine.channels) == len(machine.units) == len(machine.decimals)
    for unit in machine.units:
        units.check(unit)
    assert set(machine.faults) <= FAULTS.keys()


@pytest.mark.parametrize("kind", MACHINES)
def test_no_two_are_alike_and_all_are_plausible(kind: str) -> None:
    for seed in range(20):
        readings = run(kind, seed)
        assert np.isfinite(readings).all()
        for name, column in zip(MACHINES[kind].channels, readings.T, strict=True):
            low, high = RANGES.get(name, (1e-9, math.inf))
            assert column.min() >= low, name
            assert column.max() <= high, name
    assert not np.array_equal(run(kind, 1), run(kind, 2))


@pytest.mark.parametrize("kind", MACHINES)
def test_the_same_seed_gives_the_same_and_nothing_out_of_the_usual_changes_nothing(
    kind: str,
) -> None:
    again = run(kind, 3, around=Surroundings.none(len(T)))
    assert np.array_equal(run(kind, 3), again)


@pytest.mark.parametrize(("kind", "fault"), PAIRS)
def test_a_fault_moves_the_channels_it_says_and_hardly_any_other(kind: str, fault: str) -> None:
    machine = MACHINES[kind]
    says = moved(FAULTS[fault], machine.channels)
    assert says
    for seed in range(3):
        well = run(kind, seed)
        ill = run(kind, seed, FAULTS[fault].effect(np.full(len(T), 1.0)))
        # By what a sensor varies from one sample to the next: the least that can be seen.
        seen = np.abs(ill - well).mean(axis=0) / (np.diff(well, axis=0).std(axis=0) / np.sqrt(2))
        for channel, times in zip(machine.channels, seen, strict=True):
            if channel in says:
                assert times > 2.0, (channel, times)
            elif channel in {"altitude", "mach", "voltage", "torque", "load"}:
                assert times == 0.0, (channel, times)


@pytest.mark.parametrize(("kind", "fault"), PAIRS)
def test_a_fault_that_grows_moves_vibration_and_heat_one_way(kind: str, fault: str) -> None:
    machine = MACHINES[kind]
    says = moved(FAULTS[fault], machine.channels)
    means = [
        run(kind, 1, FAULTS[fault].effect(np.full(len(T), severity))).mean(axis=0)
        for severity in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    for column, channel in enumerate(machine.channels):
        if channel in says and (channel == "vibration" or channel.endswith("_temp")):
            assert (np.diff([mean[column] for mean in means]) > 0).all(), channel


@pytest.mark.parametrize("kind", [k for k in MACHINES if k not in {"pump", "fan", "turbofan"}])
def test_machines_that_work_in_shifts_rest_on_sunday(kind: str) -> None:
    week = MONDAY + 600.0 * np.arange(7 * 144)
    machine = MACHINES[kind]
    load = {"gearbox": "torque", "conveyor": "load", "compressor": "flow"}.get(
        kind, "motor_current"
    )
    column = run(kind, 1, t=week)[:, machine.channels.index(load)]
    days = column.reshape(7, 144)[:, 60:120].mean(axis=1)
    assert days[6] < 0.8 * days[:6].min()


def test_temperatures_follow_load_with_their_own_time_constants() -> None:
    # When the shift begins the winding is warm within the hour, the bearing is not.
    fine = MONDAY + 60.0 * np.arange(1440)
    motor = MACHINES["motor"]
    readings = run("motor", 2, t=fine)
    bearing, winding = (
        readings[:, motor.channels.index(name)] for name in ("bearing_temp", "winding_temp")
    )

    def risen(column: Floats) -> float:
        night, soon, late = (column[a:b].mean() for a, b in ((240, 300), (450, 480), (720, 780)))
        return float((soon - night) / (late - night))

    assert risen(winding) > risen(bearing) + 0.15


def test_a_warm_summer_warms_what_stands_in_it() -> None:
    warm = Surroundings(np.full(len(T), 10.0), np.zeros(len(T)))
    for kind, machine in MACHINES.items():
        if kind == "turbofan":
            continue
        rise = (run(kind, 1, around=warm) - run(kind, 1)).mean(axis=0)
        at = machine.channels.index("bearing_temp")
        assert rise[at] == pytest.approx(10.0, abs=1.0), kind
    fan = MACHINES["fan"].channels.index("pressure")
    assert run("fan", 1, around=warm)[:, fan].mean() < 0.98 * run("fan", 1)[:, fan].mean()


# ---- a fleet of unlike machines ------------------------------------------------------------------


def fleet(**more: object) -> Scenario:
    node = Node(
        "node-01",
        ("pump-1", "fan-1", "gear-1"),
        {"bearing_outer": 1.0, "gear_wear": 1.0, "unbalance": 1.0},
        kinds={"fan-1": "fan", "gear-1": "gearbox"},
    )
    start = datetime(2026, 1, 5, tzinfo=UTC)
    return Scenario("demo", start, (node,), lives=4, **more)  # type: ignore[arg-type]


def test_each_machine_has_faults_of_its_kind_and_the_truth_names_channels_it_has() -> None:
    plant = Plant(fleet())
    assert {life.kind for life in plant.lives} == {"pump", "fan", "gearbox"}
    for kind, faults in (("pump", 2), ("fan", 2), ("gearbox", 3)):
        assert len({life.fault for life in plant.lives if life.kind == kind}) == faults
    for life in plant.lives:
        assert life.fault in MACHINES[life.kind].faults
    for told in plant.truth("all", "fleet").lives:
        kind = {"pump-1": "pump", "fan-1": "fan", "gear-1": "gearbox"}[told.asset]
        assert told.channels
        assert set(told.channels) <= set(MACHINES[kind].channels)
    assert sum(message.rows for message in plant.messages(PHASES["all"])) > 1000


def test_season_and_drift_reach_the_kinds_they_name_and_no_other() -> None:
    plain = Plant(fleet())
    hot = Plant(fleet(season=Season(swing_k=12.0, warmest_day=5.0)))
    drift = Plant(fleet(drift=(Drift("fan", over_h=48.0, demand=-0.2),)))
    for at, life in enumerate(plain.lives):
        channels = MACHINES[life.kind].channels
        bearing = channels.index("bearing_temp")
        well, warmer, drifted = (p.readings(p.lives[at]) for p in (plain, hot, drift))
        assert (warmer - well)[:, bearing].mean() == pytest.approx(12.0, abs=1.5)
        if life.kind == "fan":
            speed = channels.index("speed")
            assert drifted[-1, speed] < 0.85 * well[-1, speed]
        else:
            assert np.array_equal(drifted, well)


GOOD = """site = "demo"
start = 2026-01-05T00:00:00Z
[[nodes]]
name = "node-01"
machines = ["pump-1", "fan-1"]
kinds = { fan-1 = "fan" }
faults = { bearing = 1, fouling = 1 }
"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"fan" }', '"fam" }', "did you mean 'fan'?"),
        ("fan-1 =", "fan-2 =", "'fan-2' is no machine of it; did you mean 'fan-1'?"),
        ("fouling = 1", "gear_wear = 1", "no fan and no pump can have 'gear_wear'"),
        (
            "{ bearing = 1, fouling = 1 }",
            "{ cavitation = 1 }",
            "none of them is one that 'fan-1', a fan, can have",
        ),
        (
            "fouling = 1 }",
            'fouling = 1 }\npresent = [{ machine = "fan-1", fault = "cavitation", left_h = 9 }]',
            "'fan-1' is a fan, which cannot have 'cavitation'; there are unbalance",
        ),
    ],
)
def test_a_machine_is_not_given_what_it_cannot_have(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(ConfigError) as raised:
        load(path)
    assert str(raised.value).startswith(str(path))
    assert said in str(raised.value)
    path.write_text(GOOD)
    assert load(path).kind(load(path).nodes[0], "fan-1") == "fan"
