"""What an agent shows for people: features now and then, the spectrum of the newest burst."""

import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from agent.features.picture import highest, of_burst
from agent.picture import chosen
from contract import picture
from contract.spec import Waveform
from server.fleet.page.spectra import STANDS_OUT, level
from server.fleet.reports import read
from tests.agent.conftest import ROOT, SITE, Broker, Plant, wait_until

Picture = picture.Features | picture.Spectrum


def play(folder: Path, port: int) -> None:
    """Play how the machines of the example are at present, conveyor-1 with a bad outer race."""
    scenario = folder / "scenario.toml"
    text = (ROOT / "configs/scenarios/fleet.toml").read_text()
    scenario.write_text(text.replace('site = "demo"', f'site = "{SITE}"'))
    program = str(Path(sys.executable).with_name("runout-simulator"))
    command = [program, "run", "--phase", "present", "--scenario", str(scenario)]
    played = subprocess.run(
        [*command, "--broker", f"127.0.0.1:{port}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert played.returncode == 0, played.stdout + played.stderr


@pytest.fixture
def forgetful(tmp_path: Path) -> Iterator[Broker]:
    """Return a broker that writes nothing down, which bursts would make slow."""
    broker = Broker(tmp_path / "forgetful", "persistence false\nautosave_on_changes false")
    broker.start()
    yield broker
    broker.stop()


def shown(plant: Plant) -> list[tuple[str, Picture]]:
    return [
        (topic, msgspec.json.decode(body, type=Picture))
        for topic, body in list(plant.heard)
        if "/feature/" in topic
    ]


def test_an_agent_shows_features_and_spectra_of_what_is_played(
    tmp_path: Path, forgetful: Broker, agent: Callable[..., Any]
) -> None:
    broker = forgetful
    plant = Plant(broker.port, [f"runout/v1/{SITE}/+/+/feature/#"])
    process = agent("node-01", "agent.fleet.toml", f"mqtt.port={broker.port}").start()
    process.wait_for("connected")
    play(tmp_path, broker.port)
    names = [f"{kind}-1" for kind in ("pump", "fan", "motor", "gearbox", "compressor", "conveyor")]

    def spectra() -> dict[str, picture.Spectrum]:
        return {one.asset: one for _, one in shown(plant) if isinstance(one, picture.Spectrum)}

    wait_until(lambda: {"engine-1", *names} <= {one.asset for _, one in shown(plant)})
    wait_until(lambda: spectra().keys() == set(names))
    assert process.end(signal.SIGTERM) == 0
    times: dict[str, list[float]] = defaultdict(list)
    for topic, one in shown(plant):
        assert read(topic, msgspec.json.encode(one)) is not None  # as the server does
        if isinstance(one, picture.Features):
            assert topic == f"runout/v1/{SITE}/node-01/{one.asset}/feature/values"
            assert 0 < len(one.names) == len(one.values) <= picture.MOST_FEATURES
            times[one.asset].append(one.t)
        else:
            assert topic.endswith("/feature/spectrum/accel")
    assert min(np.diff(at).min() for at in times.values() if len(at) > 1) >= 900.0
    found = spectra()["conveyor-1"]
    assert found.envelope is not None
    assert found.at_hz.keys() == {"shaft", "mesh", "bpfo", "bpfi", "bsf", "ftf"}
    levels = {
        name: level(found.envelope, found.at_hz[name], slips=True)
        for name in ("bpfo", "bpfi", "bsf", "ftf")
    }
    assert max(levels, key=lambda name: levels[name] or 0.0) == "bpfo"
    assert (levels["bpfo"] or 0.0) > STANDS_OUT
    plant.close()
    later = Plant(broker.port, [f"runout/v1/{SITE}/+/late/feature/#"])  # nothing is retained
    assert not later.heard
    later.close()


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_a_spectrum_shows_amplitudes_in_the_waveforms_unit(noise: float) -> None:
    wave = Waveform("case", "m/s2", 8192.0, samples=8192)
    t = np.arange(8192) / 8192.0
    rng = np.random.default_rng(3)
    x = 2.0 * np.sin(2 * np.pi * 60 * t) + 0.5 * np.sin(2 * np.pi * 1800 * t) + 9.0
    one = of_burst(
        wave, "a", 0, (x + noise * rng.standard_normal(8192)).astype(np.float32), float("nan")
    )
    assert len(one.lines.hz) <= picture.MOST_POINTS
    by_hz = dict(zip(one.lines.hz, one.lines.values, strict=True))
    assert by_hz[60.0] == pytest.approx(2.0, rel=0.02)
    assert by_hz[1800.0] == pytest.approx(0.5, rel=0.1)
    assert (one.rpm, one.at_hz, one.envelope) == (None, {}, None)


def test_a_stretch_keeps_its_highest_line() -> None:
    values = np.ones(20_000)
    values[[17, 4321, 19_999]] = 5.0, 7.0, 9.0
    found = highest(np.arange(20_000) * 0.5, values, 1)
    by_hz = dict(zip(found.hz, found.values, strict=True))
    assert {hz: v for hz, v in by_hz.items() if v > 1} == {8.5: 5.0, 2160.0: 7.0, 10_000.0: 9.0}
    assert list(found.hz) == sorted(set(found.hz))


def test_each_channel_is_shown_before_the_second_feature_of_any() -> None:
    parts = tuple((c, s) for c in ("a", "b", "c") for s in ("mean_4", "std_4"))
    assert [parts[i] for i in chosen(parts, 4)] == [
        ("a", "mean_4"), ("a", "std_4"), ("b", "mean_4"), ("c", "mean_4"),
    ]  # fmt: skip
    assert chosen(parts, 99) == list(range(6))


@pytest.mark.parametrize(
    "change",
    [["report.features_every_s=0", "report.spectrum_every_s=0"], ["privacy"]],
    ids=["off", "private"],
)
def test_nothing_is_shown_where_it_is_switched_off_or_private(
    tmp_path: Path, broker: Broker, agent: Callable[..., Any], change: list[str]
) -> None:
    config = tmp_path / "agent.toml"
    text = (ROOT / "configs/agent.minimal.toml").read_text()
    if change == ["privacy"]:
        text += "\n[asset_class.privacy]\nnoise = 1.0\namong = 10\n"
        change = []
    config.write_text(text)
    plant = Plant(broker.port, [f"runout/v1/{SITE}/+/+/feature/#"])
    process = agent("node", str(config), *change).start()
    plant.wait_for("node", lambda status: status.online)
    for n in range(400):
        row = {"t": 1_800_000_000 + 60 * n, "v": {"vibration": 5.0 + n % 7 / 10}}
        plant.send("node", "pump-1", "readings", msgspec.json.encode(row))
    plant.wait(lambda: sum(topic.endswith("/health") for topic, _ in plant.heard) > 20)
    process.end(signal.SIGTERM)
    assert not [topic for topic, _ in plant.heard if "/feature/" in topic]
    plant.close()
