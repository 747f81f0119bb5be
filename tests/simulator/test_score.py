"""What agents said, judged by the truth: by hand, and as the commands do over a real broker."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from paho.mqtt import publish

from contract.report import Alert, AlertWord, Health, Why
from simulator import cli, score
from simulator.truth import FELT, LifeTruth, SensorTruth, Truth, write

ROOT = Path(__file__).parents[2]
H = 3600.0


def life(asset: str, number: int = 0, **changes: Any) -> LifeTruth:
    """Return a life of 100 h whose fault begins at 60, is felt at 70, and ends it at 100."""
    start = 1000 * H * number
    of = {
        "node": "node", "asset": asset, "life": number, "phase": "history", "fault": "bearing",
        "started_t": start, "fault_began_t": start + 60 * H, "felt_t": start + 70 * H,
        "failure_t": start + 100 * H, "played_until_t": start + 100 * H, "rows": 100,
        "failed": True, "rul_h": 0.0, "severity": 1.0, "channels": ("vibration", "case"),
    }  # fmt: skip
    return LifeTruth(**(of | changes))


def truth(*lives: LifeTruth) -> Truth:
    return Truth("by hand", "demo", 1, "history", FELT, lives)


def alert(asset: str, h: float, state: AlertWord = "raised", *channels: str) -> Alert:
    why = tuple(Why(channel, 0.5, "mean", 4.0) for channel in channels)
    return Alert(f"{asset}/0/1", asset, state, h * H, h * H, 1.5, None, 0, why, "said")


def health(asset: str, h: float, rul: float | None, low: float = 0.0, high: float = 9.0) -> Health:
    return Health(
        asset, h * H, "healthy", 1.0, 0.1, rul, None, None, 0, "", 0, (),
        rul_low_h=None if rul is None else low, rul_high_h=None if rul is None else high,
    )  # fmt: skip


def test_lead_delay_and_diagnosis_are_those_of_the_first_alert_after_the_birth() -> None:
    said = [
        alert("a", 90, "escalated", "flow"),
        alert("a", 75, "raised", "flow", "case.rms"),
        alert("a", 20, "raised", "flow"),
        alert("a", 21, "returned", "flow"),
        alert("a", 75, "raised", "flow", "case.rms"),  # it came twice
    ]
    (one,) = score.judge(truth(life("a")), said)
    assert (one.lead_h, one.delay_h, one.false_alarms, one.healthy_h) == (25, 5, 1, 60)
    assert (one.named, one.named_first) == (True, False)
    figures = score.summary([one])
    assert figures["recall"] == 1
    assert figures["false_alarms_per_machine_month"] == pytest.approx(730.5 / 60)
    assert (figures["diagnosis_named"], figures["diagnosis_first"]) == (1, 0)


def test_a_false_alarm_beside_a_bad_sensor_is_counted_as_such() -> None:
    bad = SensorTruth("node", "a", ("flow",), "drift", 30 * H, 50 * H)
    of = msgspec.structs.replace(truth(life("a"), life("b")), sensors=(bad,))
    said = [
        alert("a", 20, "raised", "flow"),
        alert("a", 40, "raised", "flow", "case"),
        alert("b", 41, "raised", "flow"),
    ]
    figures = score.summary(score.judge(of, said))
    assert figures["false_alarms"] == 3
    assert figures["false_alarms_beside_bad_sensors"] == 1
    assert (figures["sensors_bad"], figures["sensors_told"]) == (1, 1)
    other = score.summary(score.judge(of, [alert("a", 40, "raised", "case", "flow")]))
    assert (other["sensors_bad"], other["sensors_told"]) == (1, 0)


def test_what_could_not_be_felt_yet_is_no_miss_and_a_silent_failure_is_one() -> None:
    young = life("b", played_until_t=65 * H, failed=False, rul_h=35.0, severity=0.02)
    figures = score.summary(score.judge(truth(life("a"), young), []))
    assert (figures["faults_felt"], figures["faults_told"], figures["recall"]) == (1, 0, 0)
    assert (figures["lead_h"], figures["diagnosis_named"]) == (None, None)


def test_each_life_of_an_asset_is_judged_by_what_was_said_in_it() -> None:
    said = [alert("a", 80), alert("a", 1000 + 90), alert("a", 500), alert("unknown", 80)]
    one, two = score.judge(truth(life("a"), life("a", 1)), said)
    assert (one.lead_h, two.lead_h) == (20, 10)
    assert (one.false_alarms, two.false_alarms) == (0, 0)


def test_remaining_life_is_judged_up_to_the_cap_and_intervals_by_what_they_hold() -> None:
    said = [
        health("a", 10, 50.0, 40, 60),  # 90 left, told up to 50
        health("a", 97, 7.0, 4, 9),  # 3 left
        health("a", 97, 7.0, 4, 9),
        health("a", 98, None),
    ]
    figures = score.summary(score.judge(truth(life("a")), said, cap_h=50))
    assert figures["rul_reports"] == 2
    assert figures["rul_rmse_h"] == pytest.approx((4**2 / 2) ** 0.5)
    assert figures["rul_coverage"] == 0.5


def test_of_a_recording_nobody_knows_what_was_a_false_alarm() -> None:
    recorded = life("a", fault=None, fault_began_t=None, felt_t=None, severity=None, channels=())
    figures = score.summary(score.judge(truth(recorded), [alert("a", 20)]))
    assert (figures["faults_told"], figures["lead_h"]) == (1, 80)
    assert figures["false_alarms"] is None
    assert figures["machine_months"] is None


def test_the_command_prints_a_table_and_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "truth.json", truth(life("a"), life("b")))
    lines = [alert("a", 80, "raised", "vibration"), health("b", 99, 2.0)]
    said = tmp_path / "said.jsonl"
    said.write_bytes(b"\n\n".join(map(msgspec.json.encode, lines)) + b"\n")
    assert cli.main(["score", "--truth", str(tmp_path / "truth.json"), str(said)]) == 0
    text = capsys.readouterr().out
    rows = [line.split() for line in text.splitlines()[1:3]]
    assert rows == [
        ["a", "0", "bearing", "yes", "20.0", "10.0", "0", "yes"],
        ["b", "0", "bearing", "no", "0"],
    ]
    last = json.loads(text.splitlines()[-1])
    assert (last["recall"], last["rul_rmse_h"], last["diagnosis_first"]) == (0.5, 1.0, 1.0)


def test_a_line_that_no_agent_said_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "truth.json", truth(life("a")))
    said = tmp_path / "said.jsonl"
    said.write_bytes(msgspec.json.encode(alert("a", 80)) + b'\n{"type": "health"}\n')
    assert cli.main(["score", "--truth", str(tmp_path / "truth.json"), str(said)]) == 2
    error = capsys.readouterr().err
    assert "said.jsonl, line 2: neither health nor alert" in error
    assert cli.main(["score", "--truth", str(said), str(said)]) == 2
    assert "not a truth file" in capsys.readouterr().err


def test_what_agents_say_is_recorded_until_ctrl_c(broker: Any, tmp_path: Path) -> None:
    out = tmp_path / "said.jsonl"
    command = [sys.executable, "-m", "simulator.cli", "record", "--out", str(out)]
    process = subprocess.Popen(
        [*command, "--broker", str(broker.address)],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stderr is not None
    assert "listening" in process.stderr.readline()
    lines = [alert("a", 80), health("b", 99, 2.0)]
    publish.multiple(
        [
            {"topic": "runout/v1/demo/node/a/alert", "payload": msgspec.json.encode(lines[0])},
            {"topic": "runout/v1/demo/node/a/readings", "payload": b'{"t": 1, "v": {}}'},
            {"topic": "runout/v1/north/rpi/b/health", "payload": msgspec.json.encode(lines[1])},
        ],
        hostname=broker.address.host,
        port=broker.address.port,
    )
    # In the file as soon as it is heard.
    said = out.open("rb")
    found: list[bytes] = []
    while len(found) < len(lines):
        assert process.poll() is None
        found += said.readlines()
    said.close()
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "2 messages" in printed
    assert score.read_said([out]) == lines


def test_recording_ends_when_nothing_was_said_for_a_while(
    broker: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "said.jsonl"
    where = ["--broker", str(broker.address), "--out", str(out), "--quiet", "0.5"]
    command = [sys.executable, "-m", "simulator.cli", "record", *where]
    process = subprocess.Popen(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    process.stderr.readline()
    publish.single(
        "runout/v1/demo/node/a/alert",
        msgspec.json.encode(alert("a", 80)),
        hostname=broker.address.host,
        port=broker.address.port,
    )
    printed, _ = process.communicate(timeout=60)
    assert (process.returncode, "1 messages" in printed) == (0, True)
    assert cli.main(["record", "--broker", "127.0.0.1:1", "--out", str(out)]) == 2
    assert "no broker at 127.0.0.1:1" in capsys.readouterr().err
    missing = str(tmp_path / "none" / "said.jsonl")
    assert cli.main(["record", "--broker", str(broker.address), "--out", missing]) == 2
    assert "cannot be written (No such file" in capsys.readouterr().err
