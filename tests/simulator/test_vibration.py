"""The waveforms: lines where theory puts them, kurtosis and envelope as the literature has them.

Spectra here are scipy's, beside those of the agent, so that neither is judged by itself alone.
"""

from datetime import UTC, datetime

import numpy as np
import pytest
from scipy import signal, stats

from agent.decode import waveform
from agent.features.burst import BurstFeatures
from contract import spec
from contract.arrays import Floats
from simulator import burst as writer
from simulator import vibration
from simulator.config import Node, Scenario, Waveform
from simulator.faults import FAULTS
from simulator.faults.shaking import Part, Shaking
from simulator.machines import MACHINES
from simulator.machines.structure import Structure
from simulator.plant import PHASES, Plant

RATE_HZ = 25_600.0
SAMPLES = 65_536
SHAFT_HZ = 24.7
KINDS = [kind for kind, machine in MACHINES.items() if machine.structure is not None]
PARTS: list[Part] = ["outer", "inner", "ball", "cage"]


def structure(kind: str) -> Structure:
    found = MACHINES[kind].structure
    assert found is not None
    return found


def listen(
    kind: str, shaking: Shaking | None = None, seed: int = 1, samples: int = SAMPLES
) -> Floats:
    return vibration.burst(
        structure(kind),
        shaking or Shaking(),
        shaft_hz=SHAFT_HZ,
        velocity_mms=1.5,
        rate_hz=RATE_HZ,
        samples=samples,
        rng=np.random.default_rng(seed),
    )


def spectrum(wave: Floats) -> tuple[Floats, Floats]:
    """Return frequencies and one-sided amplitudes, in the wave's unit."""
    window = signal.windows.hann(len(wave), sym=False)
    amplitude = 2 * np.abs(np.fft.rfft((wave - wave.mean()) * window)) / window.sum()
    return np.fft.rfftfreq(len(wave), 1 / RATE_HZ), amplitude


def envelope_spectrum(
    wave: Floats, low: float = 2000.0, high: float = 6000.0
) -> tuple[Floats, ...]:
    band = signal.sosfiltfilt(
        signal.butter(4, (low, high), "bandpass", fs=RATE_HZ, output="sos"), wave
    )
    return spectrum(np.abs(signal.hilbert(band)) ** 2)


def line(of: tuple[Floats, ...], frequency_hz: float, share: float = 0.0) -> float:
    """Return the largest amplitude at a frequency and down to a share below it, for slip."""
    frequencies, amplitude = of
    step = frequencies[1]
    near = (frequencies >= frequency_hz * (1 - share) - 1.5 * step) & (
        frequencies <= frequency_hz + 1.5 * step
    )
    return float(amplitude[near].max())


def floor(of: tuple[Floats, ...], low: float, high: float) -> float:
    frequencies, amplitude = of
    return float(np.median(amplitude[(frequencies >= low) & (frequencies <= high)]))


def shaking(fault: str, severity: float) -> Shaking:
    return FAULTS[fault].shakes(severity)


# ---- bearings ------------------------------------------------------------------------------------


def strike_order(kind: str, part: Part) -> float:
    return structure(kind).order(part) * (2 if part == "ball" else 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", PARTS)
def test_the_envelope_spectrum_has_the_line_of_the_part_and_not_in_health(
    part: Part, kind: str
) -> None:
    expected = strike_order(kind, part) * SHAFT_HZ
    ill = envelope_spectrum(listen(kind, shaking(f"bearing_{part}", 0.5)))
    well = envelope_spectrum(listen(kind))
    wanted = line(ill, expected, vibration.SLIP)
    assert wanted > 12 * floor(ill, 5.0, 1000.0)
    assert wanted > 20 * line(well, expected, vibration.SLIP)


@pytest.mark.parametrize(
    ("part", "order"),
    [("outer", 3.585), ("inner", 5.415), ("ball", 2.357), ("cage", 0.398)],
)
def test_a_6205_has_its_published_orders(part: Part, order: float) -> None:
    # Case Western Reserve University's drive-end bearing, whose defect frequencies are published.
    assert structure("motor").order(part) == pytest.approx(order, abs=5e-4)


def test_an_inner_ring_has_sidebands_at_the_speed_of_the_shaft_and_an_outer_none() -> None:
    for part, expected in (("inner", True), ("outer", False)):
        wave = listen("motor", shaking(f"bearing_{part}", 0.5), samples=4 * SAMPLES)
        found = envelope_spectrum(wave)
        frequencies, amplitude = found
        order = strike_order("motor", part) * SHAFT_HZ
        near = (frequencies > order * 0.985) & (frequencies < order * 1.002)
        carrier_hz = float(frequencies[near][amplitude[near].argmax()])
        sides = min(line(found, carrier_hz + side * SHAFT_HZ) for side in (-1, 1))
        assert bool(sides > 0.2 * amplitude[near].max()) is expected


def test_a_ball_rides_with_the_cage() -> None:
    found = envelope_spectrum(listen("motor", shaking("bearing_ball", 0.5), samples=4 * SAMPLES))
    cage = structure("motor").order("cage") * SHAFT_HZ
    assert line(found, cage, vibration.SLIP) > 10 * floor(found, 2.0, 500.0)


def test_slip_lets_high_multiples_blur() -> None:
    # The jitter adds up from strike to strike: the tenth multiple is wider than the first.
    wave = listen("motor", shaking("bearing_outer", 0.5), samples=16 * SAMPLES)
    found = envelope_spectrum(wave, 1500.0, 7000.0)
    frequencies, amplitude = found
    order = strike_order("motor", "outer") * SHAFT_HZ

    def width_hz(times: int) -> float:
        near = (frequencies > times * order * 0.98) & (frequencies < times * order * 1.01)
        power = amplitude[near] ** 2
        centre = np.average(frequencies[near], weights=power)
        return float(np.sqrt(np.average((frequencies[near] - centre) ** 2, weights=power)))

    assert width_hz(6) > 2 * width_hz(1)


@pytest.mark.parametrize("part", ["outer", "inner", "ball", "cage"])
def test_kurtosis_rises_with_the_spall_and_falls_when_it_has_spread(part: Part) -> None:
    def kurtosis(severity: float) -> float:
        bursts = [listen("motor", shaking(f"bearing_{part}", severity), seed) for seed in range(5)]
        return float(np.median([stats.kurtosis(burst, fisher=False) for burst in bursts]))

    well, early, middle, late = (kurtosis(severity) for severity in (0.0, 0.15, 0.6, 1.0))
    assert well == pytest.approx(3.0, abs=0.4)
    assert early > well + 0.2
    assert middle > early
    assert middle > 6.0
    assert late < 0.7 * middle


@pytest.mark.parametrize("fault", [name for name in FAULTS if name.startswith("bearing")])
def test_rms_and_envelope_never_fall_with_severity(fault: str) -> None:
    severities = (0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
    waves = [listen("motor", shaking(fault, severity)) for severity in severities]
    for measure in (
        [wave.std() for wave in waves],
        [np.sqrt(np.mean(spectrum(wave)[1] ** 2)) for wave in waves],
    ):
        assert (np.diff(measure) > 0).all()


# ---- lines ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_healthy_machine_has_its_lines_and_the_velocity_it_is_told(kind: str) -> None:
    built = structure(kind)
    wave = listen(kind)
    found = spectrum(wave)
    lines = [SHAFT_HZ, 2 * SHAFT_HZ, 3 * SHAFT_HZ]
    lines += [built.teeth * SHAFT_HZ] * bool(built.teeth)
    lines += [built.vanes * SHAFT_HZ] * bool(built.vanes)
    lines += [2 * built.mains_hz] * bool(built.mains_hz)
    for frequency in lines:
        assert line(found, frequency) > 5 * floor(found, 10.0, 2000.0), frequency
    wanted = spec.Waveform("v", "g", RATE_HZ, SAMPLES, ("velocity_rms",))
    velocity = BurstFeatures(wanted).compute(wave[None].astype(np.float32))[0, 0]
    assert velocity == pytest.approx(1.5, rel=0.15)


@pytest.mark.parametrize(
    ("fault", "rises", "stays"),
    [
        ("unbalance", (1.0,), (2.0, 3.0)),
        ("misalignment", (1.0, 2.0, 3.0), (4.0,)),
        ("looseness", (0.5, 1.0, 1.5, 2.0, 2.5, 4.0, 6.0, 8.0), (11.0,)),
        ("fouling", (1.0,), (2.0, 3.0)),
    ],
)
def test_a_fault_of_the_shaft_raises_its_own_multiples_alone(
    fault: str, rises: tuple[float, ...], stays: tuple[float, ...]
) -> None:
    ill = spectrum(listen("motor", shaking(fault, 0.8)))
    well = spectrum(listen("motor"))
    for order in rises:
        assert line(ill, order * SHAFT_HZ) > 1.4 * line(well, order * SHAFT_HZ), order
    for order in stays:
        assert line(ill, order * SHAFT_HZ) < 1.4 * line(well, order * SHAFT_HZ), order


def test_misalignment_is_loudest_at_twice_the_speed_and_unbalance_at_once() -> None:
    for fault, loudest in (("misalignment", 2), ("unbalance", 1)):
        frequencies, amplitude = spectrum(listen("motor", shaking(fault, 0.8)))
        velocity = [
            line((frequencies, amplitude), k * SHAFT_HZ) / (k * SHAFT_HZ) for k in (1, 2, 3)
        ]
        assert int(np.argmax(velocity)) + 1 == loudest


def test_worn_gears_raise_the_mesh_and_its_sidebands_at_the_shaft() -> None:
    teeth = structure("gearbox").teeth

    def sidebands(severity: float) -> tuple[float, float]:
        found = spectrum(listen("gearbox", shaking("gear_wear", severity)))
        mesh = line(found, teeth * SHAFT_HZ)
        sides = [line(found, (teeth + side) * SHAFT_HZ) for side in (-1, 1)]
        return mesh, min(sides)

    levels = [sidebands(severity) for severity in (0.0, 0.25, 0.5, 1.0)]
    assert (np.diff([mesh for mesh, _ in levels]) > 0).all()
    assert (np.diff([side / mesh for mesh, side in levels]) > 0).all()
    # Modulation of depth m puts m/2 of the carrier on each side.
    assert levels[-1][1] / levels[-1][0] == pytest.approx(0.49, abs=0.05)


def test_a_damaged_winding_hums_at_twice_the_mains() -> None:
    ill, well = (spectrum(listen("motor", shaking("winding", s))) for s in (1.0, 0.0))
    assert line(ill, 100.0) == pytest.approx(9 * line(well, 100.0), rel=0.1)
    assert line(ill, SHAFT_HZ) == pytest.approx(line(well, SHAFT_HZ), rel=0.05)


def test_cavitation_hisses_in_all_frequencies_in_the_rhythm_of_the_vanes() -> None:
    ill, well = (listen("pump", shaking("cavitation", s)) for s in (1.0, 0.0))
    for low in (2000.0, 5000.0, 9000.0):
        assert floor(spectrum(ill), low, low + 2000) > 3 * floor(spectrum(well), low, low + 2000)
    vanes_hz = structure("pump").vanes * SHAFT_HZ
    found = envelope_spectrum(ill, 3000.0, 11_000.0)
    assert line(found, vanes_hz) > 5 * floor(found, 20.0, 1000.0)


def test_nothing_comes_back_folded_from_beyond_half_the_rate() -> None:
    slow = vibration.burst(
        structure("gearbox"),
        shaking("gear_wear", 1.0),
        shaft_hz=SHAFT_HZ,
        velocity_mms=1.5,
        rate_hz=2000.0,
        samples=16_384,
        rng=np.random.default_rng(1),
    )
    window = signal.windows.hann(len(slow), sym=False)
    amplitude = 2 * np.abs(np.fft.rfft(slow * window)) / window.sum()
    folded_hz = 2000.0 - 2 * structure("gearbox").teeth * SHAFT_HZ
    near = round(folded_hz / 2000.0 * 16_384)
    assert amplitude[near - 2 : near + 3].max() < 8 * np.median(amplitude)


def test_a_machine_that_stands_is_silent() -> None:
    still = vibration.burst(
        structure("pump"),
        shaking("unbalance", 1.0),
        shaft_hz=0.0,
        velocity_mms=1.5,
        rate_hz=RATE_HZ,
        samples=1024,
        rng=np.random.default_rng(1),
    )
    assert still.std() < 0.01


# ---- as agents read them -------------------------------------------------------------------------


def test_what_is_written_is_what_agents_read() -> None:
    wave = listen("motor", shaking("bearing_outer", 0.5), samples=4096)
    payload = writer.encode(wave, RATE_HZ, t_ns=10**18, unit="g", scale_end=50.0)
    (read,) = waveform.decode(payload, at_ns=0)
    assert (read.rate_hz, read.t_ns, read.unit) == (RATE_HZ, 10**18, "g")
    assert np.abs(read.samples - wave).max() < 50.0 / 32767
    (clipped,) = waveform.decode(
        writer.encode(wave, RATE_HZ, t_ns=10**18, unit="g", scale_end=0.5), at_ns=0
    )
    assert np.abs(clipped.samples).max() == pytest.approx(0.5)


def waves(samples: int = 4096) -> Plant:
    node = Node("node-01", ("fan-1", "engine-1"), {"bearing": 1.0}, kinds={"engine-1": "turbofan"})
    start = datetime(2026, 1, 5, tzinfo=UTC)
    wanted = Waveform(samples=samples, every_s=7200)
    return Plant(Scenario("demo", start, (node,), "fan", lives=1, waveform=wanted))


def test_a_plant_with_waveforms_sends_a_burst_every_so_many_rows() -> None:
    plant = waves()
    messages = [m for m in plant.messages(PHASES["all"]) if m.leaf == "accel"]
    assert {m.asset for m in messages} == {"fan-1"}
    assert len(messages) == sum(plant.bursts(life) for life in plant.lives)
    times = [m.t for m in messages]
    assert set(np.diff(times[:5])) == {7200.0}
    for message in messages[:3]:
        (read,) = waveform.decode(message.payload, at_ns=0)
        assert read.t_ns == message.t * 1e9
        assert len(read.samples) == 4096
    again = [m.payload for m in waves().messages(PHASES["all"]) if m.leaf == "accel"]
    assert again == [m.payload for m in messages]


def test_waveforms_change_no_row_and_stand_in_the_truth() -> None:
    with_waves = waves()
    node = with_waves.scenario.nodes[0]
    plain = Plant(Scenario("demo", with_waves.scenario.start, (node,), "fan", lives=1))
    rows = [m for m in with_waves.messages(PHASES["all"]) if m.leaf != "accel"]
    assert rows == list(plain.messages(PHASES["all"]))
    told = {life.asset: life.channels for life in with_waves.truth("all", "w").lives}
    assert told == {
        "fan-1": ("vibration", "bearing_temp", "accel"),
        "engine-1": ("vibration", "bearing_temp"),
    }


def test_the_line_is_where_the_speed_channel_says() -> None:
    plant = waves(65_536)
    life = next(life for life in plant.lives if life.kind == "fan" and life.phase == "history")
    readings = plant.readings(life)
    at = int(np.searchsorted(plant.severity(life), 0.5))
    found = envelope_spectrum(plant.burst(life, at, readings))
    expected = readings[at, MACHINES["fan"].channels.index("speed")] / 60
    expected *= structure("fan").order("outer")
    assert line(found, expected, vibration.SLIP) > 10 * floor(found, 5.0, 1000.0)
