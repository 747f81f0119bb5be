"""Sinks beside MQTT, and MQTT in Sparkplug's way: real ports, files and brokers."""

import base64
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
import serial
from paho.mqtt.enums import CallbackAPIVersion

from agent.decode import csv, waveform
from contract.errors import RunoutError
from simulator import cli
from simulator.machines import MACHINES
from simulator.sinks.serial import SerialSink

ROOT = Path(__file__).parents[2]
SCENARIO = ROOT / "configs" / "scenarios" / "one_bearing.toml"
CHANNELS = MACHINES["pump"].channels
RUN = ["run", "--scenario", str(SCENARIO), "--phase", "present"]


def test_a_file_has_a_line_a_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "played.jsonl"
    assert cli.main([*RUN, "--sink", "file", "--out", str(out)]) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    rows = [line for line in lines if line["topic"].endswith("/readings")]
    assert "runout/v1/demo/node-01/pump-1/readings" in {line["topic"] for line in rows}
    assert set(json.loads(rows[0]["payload"])["v"]) == set(CHANNELS)
    assert f"played {len(rows)} rows and 2 events" in capsys.readouterr().out


def test_a_burst_in_a_file_is_base64(tmp_path: Path) -> None:
    scenario = tmp_path / "waves.toml"
    text = SCENARIO.read_text()
    scenario.write_text(text.replace("[[nodes]]", "[waveform]\nsamples = 256\n[[nodes]]"))
    out = tmp_path / "played.jsonl"
    args = ["run", "--scenario", str(scenario), "--phase", "present"]
    assert cli.main([*args, "--sink", "file", "--out", str(out)]) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    line = next(line for line in lines if line["topic"].endswith("/accel"))
    (burst,) = waveform.decode(base64.b64decode(line["payload_base64"]), 0)
    assert len(burst.samples) == 256


def test_standard_output_has_the_messages_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "simulator.cli", *RUN, "--sink", "stdout", "--format", "csv"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        env=os.environ,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) > 100
    row = next(line for line in lines if line["topic"].endswith("/csv"))
    blocks, refused = csv.decode(row["payload"].encode(), 0, ("t", *CHANNELS), "t")
    assert not refused
    assert blocks[0].values.shape == (1, 6)
    assert b"all on standard output" in done.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--sink", "file"], "name it with --out FILE"),
        (["--format", "xml"], "there are json, json-array"),
        (["--batch", "5"], "--batch 5: json holds one row; take --format json-array"),
        (["--sink", "serial", "--format", "senml-json"], "over a serial line there are csv"),
        (["--sink", "serial", "--format", "csv"], "say whose line it is with --asset NAME"),
        (["--sink", "file", "--out", "/nowhere/x"], "/nowhere/x: cannot be written"),
        (["--sink", "serial", "--link", "/nowhere/tty"], "/nowhere/tty: cannot be made"),
    ],
)
def test_what_does_not_go_together_is_said_with_the_mend(
    args: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*RUN, *args]) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


# ---- serial --------------------------------------------------------------------------------------


class Reader(threading.Thread):
    """Opens a port as an agent does, and reads until it is gone."""

    def __init__(self, port: str) -> None:
        super().__init__()
        self.port = serial.Serial(port, timeout=0.05)
        self.data = b""
        self.start()

    def run(self) -> None:
        """Read."""
        with self.port:
            while True:
                try:
                    self.data += self.port.read(4096)
                except serial.SerialException:
                    return


def play_to_port(tmp_path: Path, *args: str) -> tuple[bytes, int]:
    link = tmp_path / "tty"
    readers: list[Reader] = []
    seen = threading.Event()

    def watch() -> None:
        while not link.is_symlink():
            seen.wait(0.01)
        readers.append(Reader(str(link)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = cli.main([*RUN, "--sink", "serial", "--link", str(link), "--timeout", "30", *args])
    watcher.join()
    readers[0].join()
    assert not link.is_symlink()
    return readers[0].data, code


def test_a_reader_of_the_port_gets_every_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, code = play_to_port(tmp_path, "--format", "csv", "--asset", "pump-1")
    assert code == 0
    first, rest = data.split(b"\r\n", 1)
    assert first == b"runout-simulator"  # a reader drops what comes first
    blocks, refused = csv.decode(rest, 0, ("t", *CHANNELS), "t", checksum=True)
    assert not refused
    rows = sum(len(block.t_ns) for block in blocks)
    assert rows > 100
    assert f"played {rows} rows" in capsys.readouterr().out


def test_by_the_clock_lines_begin_at_once(tmp_path: Path) -> None:
    # The days of the scenario in a second; the years since 1970 would take minutes.
    data, code = play_to_port(
        tmp_path, "--format", "csv", "--asset", "pump-1", "--speed", "1000000"
    )
    assert code == 0
    assert data.count(b"\r\n") > 100


def test_lines_of_json_bear_all_machines(tmp_path: Path) -> None:
    data, code = play_to_port(tmp_path, "--format", "json")
    assert code == 0
    lines = [json.loads(line) for line in data.splitlines()[1:]]
    assert {line["asset"] for line in lines} == {"pump-1", "pump-2"}


def test_a_machine_that_is_not_played_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, code = play_to_port(tmp_path, "--format", "csv", "--asset", "pump-9")
    assert code == 2
    assert "--asset pump-9: nothing is played of it" in capsys.readouterr().err


def test_a_port_that_nobody_opens_is_given_up_and_taken_away(tmp_path: Path) -> None:
    link = tmp_path / "tty"
    sink = SerialSink(link, opened=lambda _: None, timeout_s=0.2)
    with pytest.raises(RunoutError, match=r"was not opened for 0 s: let an agent read it"), sink:
        pass
    assert not link.is_symlink()


# ---- Sparkplug over a broker ---------------------------------------------------------------------


def test_a_rebirth_that_is_asked_for_on_the_broker_is_given(broker: Any) -> None:
    told: list[str] = []
    changed = threading.Condition()
    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    subscribed = threading.Event()

    def on_message(_client: object, _userdata: object, message: mqtt.MQTTMessage) -> None:
        verb = message.topic.split("/")[2]
        with changed:
            told.append(verb)
            changed.notify_all()
        if len(told) == 10:
            client.publish("spBv1.0/demo/NCMD/node-01", b"", qos=1)

    client.on_message = on_message
    client.on_subscribe = lambda *_: subscribed.set()
    client.connect(broker.address.host, broker.address.port)
    client.subscribe("spBv1.0/#", qos=1)
    client.loop_start()
    try:
        assert subscribed.wait(10)
        args = ["--broker", str(broker.address), "--format", "sparkplug", "--speed", "3e5"]
        assert cli.main([*RUN, *args]) == 0
        with changed:
            assert changed.wait_for(lambda: "NDEATH" in told, timeout=10)
    finally:
        client.disconnect()
        client.loop_stop()
    assert told[:2] == ["NBIRTH", "DBIRTH"]
    assert told.count("NBIRTH") == 2
    assert told.count("DBIRTH") >= 3
