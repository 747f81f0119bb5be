"""Replay of vibration: files of bursts, beside a table or alone, and tables of their features."""

import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import msgspec
import numpy as np
import pytest

from agent.app import Engine
from agent.assemble import Assembler
from agent.config import AgentConfig
from agent.decode.waveform import encode
from agent.features.burst import BurstFeatures
from agent.files.chunk import Look
from agent.files.player import BURSTS, Done
from agent.intake import Arrival
from agent.pipeline import Outcome
from agent.replay import Job, replay
from contract import topics
from contract.errors import ConfigError, DataError
from contract.report import Alert, Health
from contract.spec import AssetClass, Channel, Moments, Waveform

Configure = Callable[..., AgentConfig]
T_S = 1_767_225_600
RATE_HZ, SAMPLES = 2048.0, 256
FEATURES = ("rms", "kurtosis")
FAN = AssetClass(
    "fan",
    (Channel("speed", "rpm"),),
    (Waveform("vib", "m/s2", RATE_HZ, SAMPLES, FEATURES),),
    stats=("last", "mean_2"),
    every_s=10.0,
    health=Moments(baseline=6, learn=8, on_delay=2, off_delay=2),
)
SECONDS = 400


def samples(second: int) -> np.ndarray:
    rng = np.random.default_rng([3, second])
    loud = 5.0 if second > 300 else 1.0
    return (loud * rng.normal(size=SAMPLES)).astype(np.float32)


def speeds() -> list[tuple[int, float]]:
    return [(n, 1480.0 + n % 7) for n in range(0, SECONDS, 5)]


def bursts() -> list[int]:
    return list(range(2, SECONDS, 10))


def write_bursts(path: Path, seconds: list[int], unit: str = "g") -> Path:
    path.write_bytes(
        b"".join(encode(samples(n), RATE_HZ, t_ns=(T_S + n) * 10**9, unit=unit) for n in seconds)
    )
    return path


def write_speeds(path: Path) -> Path:
    path.write_text("time,speed\n" + "".join(f"{T_S + n},{v}\n" for n, v in speeds()))
    return path


@pytest.fixture
def config(configure: Configure) -> AgentConfig:
    config = configure(spec=FAN)
    return msgspec.structs.replace(
        config, report=msgspec.structs.replace(config.report, health_every_s=0.0)
    )


def run(config: AgentConfig, out: Path, *files: Path, **look: object) -> tuple[Done, list[Outcome]]:
    done = replay(config, Job(files, Look(**look), out=out), threading.Event())  # type: ignore[arg-type]
    decoder = msgspec.json.Decoder(Health | Alert)
    return done, [decoder.decode(line) for line in out.read_text().splitlines()]


def live(config: AgentConfig) -> list[Outcome]:
    """Return what the same readings and bursts are worth as messages, in the order of time."""
    own = (config.node.site, config.name, "fan-1")
    messages = [
        (n, Arrival(topics.asset_topic(*own, "speed"), b'{"t": %d, "v": %f}' % (T_S + n, v), 0, 0))
        for n, v in speeds()
    ]
    messages += [
        (
            n,
            Arrival(
                topics.asset_topic(*own, "vib"),
                encode(samples(n), RATE_HZ, t_ns=(T_S + n) * 10**9, unit="g"),
                0,
                0,
            ),
        )
        for n in bursts()
    ]
    found: list[Outcome] = []
    with ExitStack() as opened:
        engine, assembler = Engine(config, opened), Assembler(config)
        for n, arrival in sorted(messages, key=lambda one: one[0]):
            batch, rejected = assembler.assemble([arrival._replace(at_ns=(T_S + n) * 10**9)])
            assert rejected == []
            found += engine.process(batch)
    return found


def test_bursts_beside_a_table_are_worth_what_they_are_live(
    tmp_path: Path, config: AgentConfig
) -> None:
    table = write_speeds(tmp_path / "fan-1.csv")
    shots = write_bursts(tmp_path / "fan-1.vib.rw", bursts())
    done, said = run(config, tmp_path / "said.jsonl", shots, table)
    assert (done.rows, done.bad) == (len(speeds()) + len(bursts()), 0)
    expected = live(config)
    assert len(expected) > 30
    assert said == expected
    assert any(isinstance(one, Alert) and "vib" in one.text for one in said)


def test_a_table_of_features_is_worth_what_the_bursts_are(
    tmp_path: Path, config: AgentConfig
) -> None:
    computed = BurstFeatures(FAN.waveforms[0]).compute(
        np.stack([samples(n) * np.float32(9.80665) for n in bursts()]), None
    )
    rows = {n: [f"{v}", "", ""] for n, v in speeds()}
    for n, x in zip(bursts(), computed.tolist(), strict=True):
        rows.setdefault(n, ["", "", ""])[1:] = [repr(value) for value in x]
    table = tmp_path / "fan-1.csv"
    head = "time,speed,vib.rms,vib.kurtosis\n"
    table.write_text(
        head + "".join(f"{T_S + n},{','.join(cells)}\n" for n, cells in sorted(rows.items()))
    )
    _, said = run(config, tmp_path / "said.jsonl", table)
    assert said == live(config)


def test_bursts_alone_are_replayed_in_the_order_of_time_whatever_the_files(
    tmp_path: Path, configure: Configure
) -> None:
    spec = msgspec.structs.replace(FAN, channels=(), every_s=0.0)
    config = configure(spec=spec)
    late, early = bursts()[20:], bursts()[:20]
    files = [write_bursts(tmp_path / "b.rw", late), write_bursts(tmp_path / "a.rw", early)]
    done, said = run(config, tmp_path / "said.jsonl", *files, asset="fan-1")
    assert done.seen["fan-1"].rows == len(bursts())
    assert [one.t - T_S for one in said if isinstance(one, Health)] == bursts()
    done, _ = run(
        config, tmp_path / "said.jsonl", *files, asset="fan-1", until_ns=(T_S + 100) * 10**9
    )
    assert done.rows == 10


def test_many_bursts_between_two_rows_are_taken_in_turns(
    tmp_path: Path, configure: Configure
) -> None:
    spec = msgspec.structs.replace(FAN, every_s=0.0)
    many = list(range(3 * BURSTS + 5))
    table = tmp_path / "fan-1.csv"
    table.write_text("time,speed\n" + "".join(f"{T_S + n},1.0\n" for n in (0, 190, 191, 999)))
    shots = write_bursts(tmp_path / "fan-1.rw", many)
    done, said = run(configure(spec=spec), tmp_path / "said.jsonl", table, shots)
    assert not any("older" in note for note in done.notes)
    times = [one.t for one in said if isinstance(one, Health)]
    assert times == sorted(times)
    assert done.rows == len(many) + 4


def test_a_burst_that_cannot_be_used_is_named_or_passed_over(
    tmp_path: Path, config: AgentConfig
) -> None:
    table = write_speeds(tmp_path / "fan-1.csv")
    short = encode(samples(1)[:9], RATE_HZ, t_ns=T_S * 10**9, unit="g")
    path = write_bursts(tmp_path / "fan-1.vib.rw", [5, 6])
    path.write_bytes(path.read_bytes() + short)
    with pytest.raises(DataError, match=r"fan-1\.vib\.rw: the burst at byte \d+: .*9 samples"):
        run(config, tmp_path / "said.jsonl", table, path)
    done, _ = run(config, tmp_path / "said.jsonl", table, path, skip_bad=True)
    assert (done.bad, done.rows) == (1, len(speeds()) + 2)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("fan-1.vib.rw", encode(samples(1), RATE_HZ), "bears no time"),
        ("fan-1.vib.rw", encode(samples(1), RATE_HZ, t_ns=1)[:-1], "ends before it does"),
        ("fan-1.vib.rw", encode(samples(1), RATE_HZ, t_ns=1) + b"more", "4 bytes are no burst"),
        ("fan-1.vib.rw", encode(samples(1), RATE_HZ, t_ns=1) + bytes(50), "not with RW"),
    ],
)
def test_a_file_that_is_not_of_whole_bursts_is_named(
    name: str, content: bytes, words: str, tmp_path: Path, config: AgentConfig
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"fan-1\.vib\.rw: the burst at byte \d+: .*{words}"):
        run(config, tmp_path / "said.jsonl", path)


def test_a_file_must_say_whose_bursts_it_holds(tmp_path: Path, configure: Configure) -> None:
    two = (*FAN.waveforms, Waveform("drive", "m/s2", RATE_HZ, SAMPLES, FEATURES))
    config = configure(spec=msgspec.structs.replace(FAN, waveforms=two))
    path = write_bursts(tmp_path / "fan-1.rw", [1])
    with pytest.raises(ConfigError, match=r"has vib, drive: call the file fan-1\.WAVEFORM\.rw"):
        run(config, tmp_path / "said.jsonl", path)
    with pytest.raises(ConfigError, match=r"--asset: .* has no column 'machine'"):
        run(config, tmp_path / "said.jsonl", path, asset="{machine}")


def test_a_table_needs_all_features_of_a_burst_or_none(tmp_path: Path, config: AgentConfig) -> None:
    table = tmp_path / "fan-1.csv"
    table.write_text(f"time,speed,vib.rms\n{T_S},1,2\n")
    with pytest.raises(ConfigError, match=r"lacks vib\.kurtosis"):
        run(config, tmp_path / "said.jsonl", table)
