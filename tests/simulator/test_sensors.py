"""Bad sensors: what they say is not what the machine does, and the truth tells which and when."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import pytest

from contract.arrays import Floats
from contract.errors import ConfigError
from simulator import truth
from simulator.config import Life, Node, Scenario, Waveform, load
from simulator.machines import MACHINES
from simulator.plant import PlannedLife, Plant
from simulator.sensors import (
    Clipping,
    Drift,
    LooseMount,
    Noise,
    Sensor,
    Stuck,
    Swapped,
    WrongUnit,
)

FAN = MACHINES["fan"].channels
PRESENT = 1


def plant(*sensors: Sensor, waveform: Waveform | None = None) -> Plant:
    node = Node("node-01", ("fan-1", "fan-2"), {"unbalance": 1.0}, sensors=sensors)
    start = datetime(2026, 1, 5, tzinfo=UTC)
    life = Life((60.0, 70.0), (36.0, 54.0), (4.0, 12.0))
    return Plant(
        Scenario("demo", start, (node,), "fan", lives=PRESENT, life=life, waveform=waveform)
    )


def life_of(of: Plant, asset: str = "fan-1", number: int = PRESENT) -> PlannedLife:
    return next(life for life in of.lives if (life.asset, life.number) == (asset, number))


def said(sensor: Sensor) -> tuple[Floats, Floats, Floats]:
    """Return what the bad channel says, what it should, and hours since the life began."""
    bad = plant(sensor)
    life = life_of(bad)
    at = FAN.index(sensor.channel)
    hours = (bad.times(life) - life.start_t) / 3600
    return bad.readings(life)[:, at], bad.measured(life)[:, at], hours


def test_a_drifting_sensor_is_off_by_more_and_more() -> None:
    got, true, hours = said(Drift("fan-1", "bearing_temp", from_h=10.0, per_h=0.5))
    assert np.array_equal(got[hours < 10], true[hours < 10])
    after = hours >= 10
    assert np.allclose((got - true)[after], 0.5 * (hours[after] - 10.0), atol=1e-4)


def test_a_stuck_sensor_says_what_it_said_until_it_is_mended() -> None:
    got, true, hours = said(Stuck("fan-1", "flow", from_h=5.0, to_h=15.0))
    on = (hours >= 5) & (hours < 15)
    assert set(got[on]) == {true[on][0]}
    assert np.array_equal(got[~on], true[~on])


def test_a_noisy_sensor_varies_by_as_much_more() -> None:
    got, true, _ = said(Noise("fan-1", "motor_current", sd=3.0))
    assert (got - true).std() == pytest.approx(3.0, rel=0.15)
    assert (got - true).mean() == pytest.approx(0.0, abs=0.6)


def test_a_clipping_sensor_stays_within_its_range() -> None:
    middle = float(np.median(said(Stuck("fan-1", "flow"))[1]))
    got, true, _ = said(Clipping("fan-1", "flow", high=middle))
    assert got.max() == pytest.approx(middle, abs=1e-3)
    assert np.array_equal(got[true < middle], true[true < middle])


def test_a_loose_sensor_is_half_deaf_and_unsteady() -> None:
    got, true, _ = said(LooseMount("fan-1", "vibration"))
    assert np.median(got / true) == pytest.approx(0.5, rel=0.1)
    assert np.log(got / true).std() == pytest.approx(0.3, rel=0.2)


def test_a_wrong_unit_is_the_right_thing_in_another_unit() -> None:
    got, true, _ = said(WrongUnit("fan-1", "bearing_temp", unit="degF"))
    assert np.allclose(got, true * 1.8 + 32, atol=1e-3)


def test_swapped_channels_say_each_other() -> None:
    bad = plant(Swapped("fan-1", "flow", other="speed", from_h=3.0))
    life = life_of(bad)
    hours = (bad.times(life) - life.start_t) / 3600
    got, true = bad.readings(life), bad.measured(life)
    flow, speed = FAN.index("flow"), FAN.index("speed")
    on = hours >= 3
    assert np.array_equal(got[on][:, [flow, speed]], true[on][:, [speed, flow]])
    assert np.array_equal(got[~on], true[~on])


def test_nothing_else_is_touched_and_no_other_life_or_machine() -> None:
    sensor = Noise("fan-1", "flow", sd=50.0)
    bad, good = plant(sensor), plant()
    for life in good.lives:
        got, true = bad.readings(life), good.readings(life)
        others = [at for at, name in enumerate(FAN) if name != "flow"]
        assert np.array_equal(got[:, others], true[:, others])
        spoilt = (life.asset, life.number) == ("fan-1", PRESENT)
        assert np.array_equal(got, true) is not spoilt
    past = plant(msgspec.structs.replace(sensor, life=0))
    assert not np.array_equal(
        past.readings(life_of(past, number=0)), good.readings(life_of(good, number=0))
    )


def test_a_burst_is_spoilt_as_its_sensor_is() -> None:
    wave = Waveform(rate_hz=12_800.0, samples=8192, every_s=7200)
    good = plant(waveform=wave)
    life = life_of(good)
    readings = good.measured(life)
    true = good.burst(life, 12, readings)

    def heard(sensor: Sensor) -> Floats:
        return plant(sensor, waveform=wave).burst(life, 12, readings)

    assert np.ptp(heard(Stuck("fan-1", "accel"))) == 0
    assert np.abs(heard(Clipping("fan-1", "accel", low=-0.05, high=0.05))).max() == 0.05
    assert np.allclose(heard(WrongUnit("fan-1", "accel", unit="m/s2")), true * 9.80665)
    assert np.allclose(heard(Drift("fan-1", "accel", per_h=0.1)) - true, 0.1 * 2)
    noisy = heard(Noise("fan-1", "accel", sd=0.5))
    assert (noisy - true).std() == pytest.approx(0.5, rel=0.05)
    # A loose sensor hears the shaft, and hardly anything above its mount's resonance.
    power, loose = (
        np.abs(np.fft.rfft(w)) ** 2
        for w in (true, heard(LooseMount("fan-1", "accel", resonance_hz=500.0)))
    )
    hz = np.fft.rfftfreq(8192, 1 / 12_800.0)
    assert loose[hz > 2000].sum() < 0.01 * power[hz > 2000].sum()
    assert loose[hz < 60].sum() == pytest.approx(power[hz < 60].sum(), rel=0.1)
    assert np.array_equal(heard(Stuck("fan-1", "accel", from_h=30.0)), true)
    assert np.array_equal(heard(Stuck("fan-2", "accel")), true)


def test_the_truth_says_which_sensor_was_bad_and_when(tmp_path: Path) -> None:
    bad = plant(
        Drift("fan-1", "bearing_temp", from_h=10.0, to_h=20.0, per_h=0.5),
        Swapped("fan-2", "flow", other="speed", life=0, from_h=2.0),
        Stuck("fan-2", "flow", from_h=1000.0),
    )
    told = bad.truth("all", "bad")
    truth.write(tmp_path / "truth.json", told)
    assert truth.read(tmp_path / "truth.json") == told
    one, two = told.sensors
    life = life_of(bad)
    assert (one.asset, one.channel, one.fault) == ("fan-1", ("bearing_temp",), "drift")
    assert (one.from_t, one.to_t) == (life.start_t + 36_000, life.start_t + 72_000)
    assert (two.channel, two.fault) == (("flow", "speed"), "swapped")
    assert two.to_t == float(bad.times(life_of(bad, "fan-2", 0))[-1])
    assert [s.asset for s in bad.truth("present", "bad").sensors] == ["fan-1"]


GOOD = """site = "demo"
start = 2026-01-05T00:00:00Z
machine = "fan"
[[nodes]]
name = "node-01"
machines = ["fan-1"]
faults = { unbalance = 1 }
[[nodes.sensors]]
fault = "noise"
machine = "fan-1"
channel = "flow"
sd = 1
"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"fan-1"\nchannel', '"fan-7"\nchannel', "'fan-7' is no machine of this node"),
        ('"flow"', '"flown"', "channel 'flown' is none of vibration, bearing_temp"),
        ('"flow"', '"accel"', "channel 'accel' is none of"),
        ("sd = 1", "sd = 0", "sensors[0].sd"),
        ("sd = 1", "sd = 1\nfrom_h = 9\nto_h = 8", "to_h = 8 is not above from_h = 9"),
        ("sd = 1", "sd = 1\nlife = 3", "life = 3, of 0 to 0"),
        ('"noise"', '"noisy"', "'noisy'"),
        ('fault = "noise"', 'fault = "wrong_unit"\nunit = "bar"', "cannot be converted"),
        ('fault = "noise"', 'fault = "swapped"\nother = "flow"', "none of the other channels"),
    ],
)
def test_a_wrong_table_is_named_with_its_place(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    path = tmp_path / "mine.toml"
    text = GOOD.replace(old, new)
    if "unit" in new or "other" in new:
        text = text.replace("sd = 1\n", "")
    path.write_text(text)
    with pytest.raises(ConfigError) as raised:
        load(path)
    assert str(raised.value).startswith(str(path))
    assert said in str(raised.value)
    path.write_text(GOOD)
    assert isinstance(load(path).nodes[0].sensors[0], Noise)


@pytest.mark.parametrize(
    ("sensor", "said"),
    [
        (Drift("fan-1", "flow"), "per_h is 0"),
        (Clipping("fan-1", "flow"), "neither low nor high"),
        (Clipping("fan-1", "flow", low=2.0, high=1.0), "low = 2 is not below high = 1"),
    ],
)
def test_a_fault_that_would_do_nothing_is_refused(sensor: Sensor, said: str) -> None:
    from simulator.sensors import check

    with pytest.raises(ValueError, match=said):
        check(sensor, FAN, MACHINES["fan"].units, "")
