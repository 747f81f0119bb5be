"""A live check tells what comes from what was agreed, beside an agent that runs undisturbed."""

import http.client
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import tty
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.config import AgentConfig, load
from agent.conformity import as_text
from agent.decode.waveform import encode
from agent.intake import Arrival
from agent.observed import MOST_REJECTED, MOST_UNKNOWN, Contract
from contract.errors import ConfigError

COMMAND = str(Path(sys.executable).with_name("runout-agent"))
PATIENCE_S = 60
T = 1_700_000_000.0
STEP_S = 0.25

CONFIG = """
expect = ["pump-1", "pump-2"]
[node]
name = "node"
site = "test"
[assets]
"pump-*" = "pump"
[[asset_class]]
name = "pump"
channels = [
  { name = "vibration", unit = "mm/s", low = 0, high = 100, every_s = 0.25 },
  { name = "temperature", unit = "degC", low = -40, high = 250 },
]
"""
Message = tuple[str, str, object]
"""Asset, leaf and what is said."""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "agent.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def free() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def as_bytes(said: object) -> bytes:
    return said if isinstance(said, bytes) else json.dumps(said).encode()


def good(n: int, asset: str) -> Message:
    v = {"vibration": 5.0 + n % 7 / 10, "temperature": 40.0}
    return asset, "readings", {"t": T + STEP_S * n, "v": v}


@pytest.fixture
def looked(
    broker: Any, connect: Callable[..., Any], config: Path
) -> Callable[..., tuple[int, dict[str, Any]]]:
    """Check what ``say`` publishes turn by turn, until the check has ended."""
    plant = connect(broker)

    def looked(say: Callable[[int], list[Message]], *more: str) -> tuple[int, dict[str, Any]]:
        command = [COMMAND, "check", "--config", str(config), "--live", "--json", "--seconds", "1"]
        command += ["--set", f"mqtt.port={broker.port}", *more]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            for n in range(PATIENCE_S * 50):
                for asset, leaf, said in say(n):
                    plant.send("node", asset, leaf, as_bytes(said))
                try:
                    process.wait(0.02)
                    break
                except subprocess.TimeoutExpired:
                    continue
            assert process.stdout is not None
            text = process.stdout.read()
        return process.returncode, json.loads(text)

    return looked


def line_of(found: dict[str, Any], asset: str, channel: str) -> dict[str, Any]:
    (line,) = [x for x in found["lines"] if (x["asset"], x["channel"]) == (asset, channel)]
    return dict(line)


def test_a_stream_that_keeps_to_the_contract_is_ok_and_the_agent_beside_it_notices_nothing(
    looked: Callable[..., Any], agent: Any, config: Path
) -> None:
    process = agent("node", str(config)).start()
    process.wait_for("connected")
    code, found = looked(lambda n: [good(n, "pump-1"), good(n, "pump-2")])
    assert (code, found["ok"], found["rejected"], found["notes"]) == (0, True, [], [])
    assert [x["verdict"] for x in found["lines"]] == ["ok"] * 4
    line = line_of(found, "pump-2", "vibration")
    assert line["seen"] > 2
    assert line["spacing_s"] == line["every_s"] == STEP_S
    assert (line["low"], line["high"]) == (0, 100)
    assert 5.0 <= line["least"] <= line["most"] <= 5.6
    assert line["age_s"] > 0
    assert "connection lost" not in process.said
    assert process.end(signal.SIGTERM) == 0


def test_each_way_to_break_the_contract_has_a_line_that_says_so_and_how_to_mend_it(
    looked: Callable[..., Any],
) -> None:
    def say(n: int) -> list[Message]:
        t = T + 2 * STEP_S * n  # half as often as was agreed
        return [
            ("pump-1", "readings", {"t": t, "v": {"vibraton": 1.0, "temperature": 400.0}}),
            ("pump-2", "vibration", {"t": t, "v": 5.0}),
            ("pump-2", "flow", {"t": t, "v": 5.0}),
            ("pump-2", "temperature", b"{"),
            ("pump-2", "status", b"1"),
            ("fan-1", "vibration", {"t": t, "v": 5.0}),
        ]

    code, found = looked(say)
    assert (code, found["ok"]) == (1, False)
    silent = line_of(found, "pump-1", "vibration")
    assert silent["seen"] == 0
    assert silent["verdict"] == "not ok"
    assert "'vibraton' came" in silent["mend"]
    hot = line_of(found, "pump-1", "temperature")
    assert hot["marks"] == {"high": hot["seen"]}
    assert "mend high" in hot["mend"]
    strange = line_of(found, "pump-1", "vibraton")
    assert strange["verdict"] == "ignored"
    slow = line_of(found, "pump-2", "vibration")
    assert slow["spacing_s"] == 2 * STEP_S
    assert "comes every 0.5 s" in slow["mend"]
    assert "silent" in line_of(found, "pump-2", "temperature")["mend"]
    rejected = {r["reason"]: r for r in found["rejected"]}
    assert set(rejected) == {"json", "topic", "asset", "channel"}
    assert rejected["channel"]["topic"] == "runout/v1/test/node/pump-2/flow"
    assert "it has vibration, temperature" in rejected["channel"]["text"]
    assert all(r["count"] > 0 for r in rejected.values())


def test_an_asset_that_is_expected_and_does_not_come_is_silent_in_each_of_its_channels(
    looked: Callable[..., Any],
) -> None:
    code, found = looked(lambda n: [good(n, "pump-1")])
    assert code == 1
    assert [(x["asset"], x["verdict"]) for x in found["lines"]] == [
        ("pump-1", "ok"), ("pump-1", "ok"), ("pump-2", "not ok"), ("pump-2", "not ok")
    ]  # fmt: skip


def test_nothing_at_all_is_not_ok_and_names_what_was_subscribed_to(
    looked: Callable[..., Any],
) -> None:
    code, found = looked(lambda _: [], "--set", "expect=[]")
    assert (code, found["messages"], found["lines"]) == (1, 0, [])
    assert "runout/v1/test/node/+/+" in found["notes"][0]


def test_a_broker_that_is_away_is_an_error_with_its_name(config: Path) -> None:
    command = [COMMAND, "check", "--config", str(config), "--live", "--seconds", "0.5"]
    command += ["--set", "mqtt.port=9"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "no connection to the broker at 127.0.0.1:9" in done.stderr
    assert "Connection refused" in done.stderr


def test_ctrl_c_ends_it_early_with_the_table_so_far(broker: Any, config: Path) -> None:
    command = [COMMAND, "check", "--config", str(config), "--live", "--seconds", "3600"]
    command += ["--set", f"mqtt.port={broker.port}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert b"listening for 3600 s" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 1
        text = process.stdout.read().decode()
    assert "pump-1  vibration" in text
    assert text.rstrip().endswith("not ok")


def test_sources_are_left_to_the_agent_unless_they_are_asked_for(
    looked: Callable[..., Any], config: Path, tmp_path: Path
) -> None:
    with config.open("a") as file:
        file.write(f"""
[[source]]
kind = "serial"
url = "{tmp_path}/none"
asset = "pump-2"
columns = ["vibration", "temperature"]
""")
    code, found = looked(lambda n: [good(n, "pump-1")])
    assert code == 0
    assert {x["verdict"] for x in found["lines"] if x["asset"] == "pump-2"} == {"not looked at"}
    assert "say --sources" in found["notes"][0]
    code, found = looked(lambda n: [good(n, "pump-1")], "--sources")
    assert code == 1
    assert {x["verdict"] for x in found["lines"] if x["asset"] == "pump-2"} == {"not ok"}


def test_with_sources_a_serial_port_is_read_and_who_posts_is_told_to_post_again(
    looked: Callable[..., Any], config: Path, tmp_path: Path, free: int
) -> None:
    master, slave = pty.openpty()
    tty.setraw(slave)
    (tmp_path / "port").symlink_to(os.ttyname(slave))
    with config.open("a") as file:
        file.write(f"""
[[source]]
kind = "serial"
url = "{tmp_path}/port"
asset = "pump-2"
columns = ["time", "vibration", "temperature"]
time = "time"
[[source]]
kind = "http"
port = {free}
""")
    answers = []

    def say(n: int) -> list[Message]:
        os.write(master, f"{T + STEP_S * n},5.{n % 9},40\n".encode())
        body = json.dumps({"t": T + STEP_S * n, "v": {"vibration": 5.5, "temperature": 1.0}})
        with closing(http.client.HTTPConnection("127.0.0.1", free, timeout=30)) as connection:
            try:
                head = {"Content-Type": "application/json"}
                connection.request("POST", "/v1/readings?asset=pump-1", body, head)
                answers.append(connection.getresponse().status)
            except (ConnectionError, http.client.HTTPException):
                pass  # before it listens, and after
        return []

    try:
        code, found = looked(say, "--sources", "--seconds", "2")
    finally:
        os.close(master)
        os.close(slave)
    assert [x["verdict"] for x in found["lines"]] == ["ok"] * 4, found
    assert code == 0
    # Nothing of it is committed anywhere: a sender that were told so would lose it.
    assert set(answers) == {503}


def test_what_belongs_to_a_live_check_is_refused_without_it(config: Path) -> None:
    command = [COMMAND, "check", "--config", str(config), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "say --live" in done.stderr


def test_an_expected_asset_of_no_class_is_a_mistake_in_the_configuration(config: Path) -> None:
    with pytest.raises(ConfigError, match=r"expect: asset 'fan-1' matches no pattern"):
        load(config, ['expect=["fan-1"]'])


# -- the judgement alone, on messages as they come ------------------------------------------------


class Heard:
    """What a contract makes of messages, a tenth of a second apart."""

    def __init__(self, config: AgentConfig) -> None:
        self.contract = Contract(config)
        self.at = 0.0

    def hear(self, leaf: str, said: object, topic: str = "runout/v1/test/node/pump-1") -> None:
        self.at += 0.1
        arrival = Arrival(f"{topic}/{leaf}", as_bytes(said), 0, round((T + 10**6) * 1e9))
        self.contract.count(1)
        self.contract.take(*self.contract.assemble([arrival]), self.at)

    def found(self, end: float | None = None) -> Any:
        return self.contract.looked(0.0, end or self.at, round((T + 10**6) * 1e9))

    def line(self, channel: str, end: float | None = None) -> Any:
        return next(x for x in self.found(end).lines if x.channel == channel)


@pytest.fixture
def heard(config: Path) -> Iterator[Callable[..., Heard]]:
    def make(*overrides: str) -> Heard:
        return Heard(load(config, ["expect=[]", *overrides]))

    return make


@pytest.mark.parametrize("every_s", [0.0, 0.5])
def test_channels_that_come_apart_are_missing_in_each_others_rows_but_for_a_grid(
    every_s: float, heard: Any, config: Path
) -> None:
    config.write_text(f"{CONFIG}every_s = {every_s}\n")
    one = heard()
    for n in range(20):
        one.hear("vibration", {"t": T + n / 4, "v": 5.0})
        one.hear("temperature", {"t": T + n / 4 + 0.1, "v": 40.0})
    marks, mend = one.line("temperature").marks, one.line("temperature").mend
    if every_s:
        assert (marks, mend) == ({}, "")
    else:
        assert marks["missing"] >= 19
        assert "give the class every_s" in mend


def test_what_comes_late_is_told_and_what_comes_twice_is_counted(heard: Any) -> None:
    one = heard()
    for n in (0, 1, 2, 5, 4, 3, 3, 6):
        one.hear("readings", {"t": T + n / 4, "v": {"vibration": 5.0, "temperature": 40.0}})
    line = one.line("temperature")
    assert (line.marks, line.verdict) == ({"late": 2, "duplicate": 1}, "not ok")
    assert "2 late: older than what was there" in line.mend
    assert "duplicate" not in line.mend


def test_the_unit_that_was_given_is_shown_beside_the_declared_one(heard: Any) -> None:
    one = heard()
    pack = [{"bn": "pump-1/", "bt": T, "n": "temperature", "u": "Cel", "v": 20.0}]
    one.hear("readings", pack)
    assert one.line("temperature").given == ("Cel",)
    topic = 'mqtt.subscribe=[{topic = "plant/{asset}/{channel}", unit = "degF"}]'
    other = heard(topic)
    other.hear("temperature", {"t": T, "v": 212.0}, topic="plant/pump-1")
    line = other.line("temperature")
    assert (line.given, line.least) == (("degF",), pytest.approx(100.0))
    assert "degF -> degC" in as_text(other.found())


def test_a_unit_of_another_quantity_is_rejected_by_name(heard: Any) -> None:
    one = heard()
    one.hear("readings", [{"bn": "pump-1/", "bt": T, "n": "temperature", "u": "V", "v": 20.0}])
    (refused,) = one.found().rejected
    assert refused.reason == "unit"
    assert not one.found().ok


def test_a_name_that_is_nearly_right_is_pointed_at(heard: Any) -> None:
    one = heard()
    one.hear("readings", {"t0": T, "dt": 1.0, "v": {"vibration": [1.0], "temprature": [1.0]}})
    assert "'temprature' came, which is unknown" in one.line("temperature").mend


def test_one_uncertain_reading_is_let_pass_and_one_in_ten_is_not(heard: Any) -> None:
    one = heard()
    times = [n * STEP_S + (10.0 if n > 5 else 0.0) for n in range(10)]
    for t in times:
        one.hear("vibration", {"t": T + t, "v": 5.0})
    assert one.line("vibration").marks == {"gap": 1}
    assert one.line("vibration").verdict == "ok"
    for n in range(10):
        one.hear("vibration", {"t": T + 100 + n * (STEP_S if n % 2 else 2.0), "v": 5.0})
    assert "readings are lost" in one.line("vibration").mend


def test_a_channel_that_stopped_before_the_end_fell_silent(heard: Any) -> None:
    one = heard()
    for n in range(10):
        one.hear("vibration", {"t": T + n * STEP_S, "v": 5.0})
    assert one.line("vibration").verdict == "ok"
    assert "fell silent 9.0 s before the end" in one.line("vibration", end=10.0).mend


def test_a_channel_slower_than_the_look_asks_for_a_longer_one(heard: Any) -> None:
    one = heard(
        'asset_class=[{name = "pump", channels = [{name = "a", unit = "1"}, '
        '{name = "b", unit = "1", every_s = 3600.0}]}]'
    )
    one.hear("a", {"t": T, "v": 5.0})
    assert "--seconds 9000" in one.line("b", end=30.0).mend


def test_bursts_are_counted_and_held_to_their_limits(heard: Any) -> None:
    one = heard(
        'asset_class=[{name = "pump", waveforms = '
        '[{name = "vib", unit = "m/s2", rate_hz = 1000.0, samples = 256, high = 30.0}]}]'
    )
    wave = np.sin(np.arange(256, dtype=np.float32))
    for n in range(4):
        one.hear("vib", encode(wave, 1000.0, t_ns=round((T + n) * 1e9), unit="g"))
    line = one.line("vib")
    assert (line.seen, line.spacing_s, line.given, line.verdict) == (4, 1.0, ("g",), "ok")
    assert line.most == pytest.approx(9.80665, rel=1e-3)
    one.hear("vib", encode(wave[:100], 1000.0, t_ns=round(T * 1e9)))
    one.hear("vib", encode(wave * 4, 1000.0, t_ns=round((T + 4) * 1e9), unit="g"))
    assert one.line("vib").marks == {"high": 1}
    assert one.line("vib").verdict == "not ok"
    assert [r.reason for r in one.found().rejected] == ["length"]


def test_what_others_can_make_it_remember_is_bounded(heard: Any) -> None:
    one = heard("limits.assets=3", 'mqtt.subscribe=[{topic = "x/{asset}/{channel}"}]')
    for n in range(MOST_REJECTED + 50):
        one.hear("vibration", b"{", topic=f"x/pump-{n}")
        one.hear("vibration", {"t": T, "v": 1.0}, topic=f"x/pump-{n}")
    names = {f"c{n}": 1.0 for n in range(MOST_UNKNOWN + 50)}
    one.hear("readings", {"t": T, "v": {"vibration": 5.0, **names}}, topic="runout/v1/t/n/pump-0")
    found = one.found()
    assert len(found.rejected) <= MOST_REJECTED + 2
    assert sum(r.count for r in found.rejected) == 2 * (MOST_REJECTED + 50) - 3
    assert sum(x.verdict == "ignored" for x in found.lines) == MOST_UNKNOWN
    assert len({x.asset for x in found.lines}) == 3
