"""The command, against a real broker and real subscribers."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from simulator import cli, replay
from simulator.clock import HandClock, Pace
from simulator.play import play
from simulator.progress import Progress
from simulator.recordings import cmapss
from simulator.sinks.mqtt import MqttSink
from simulator.truth import read

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "configs" / "scenarios" / "one_bearing.toml"


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Write three short engines in the original format."""
    sensors = " ".join(f"{v}.25" for v in range(24))
    lives = {1: 3, 2: 5, 3: 4}
    text = "".join(
        f"{unit} {cycle} {sensors}  \n" for unit, n in lives.items() for cycle in range(1, n + 1)
    )
    for split in ("train", "test"):
        (tmp_path / f"{split}_FD001.txt").write_text(text)
    (tmp_path / "RUL_FD001.txt").write_text("10 \n20 \n30 \n")
    return tmp_path


def test_training_engines_are_dealt_to_nodes_and_end_with_failed(
    broker: Any, listen: Any, recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = listen("node-01"), listen("node-02")
    truth = recording / "truth.json"
    where = ["--broker", str(broker.address), "--truth", str(truth)]
    assert cli.main(["replay", "--data", str(recording), "--nodes", "2", *where]) == 0
    assert "played 12 rows and 3 events of 3 engines" in capsys.readouterr().out
    hour = 1_199_145_600
    # Side by side, cycle by cycle, of the living ones.
    assert [(asset[-1], (t - hour) / 3600) for asset, t in one.rows] == [
        ("1", 1), ("3", 1), ("1", 2), ("3", 2), ("1", 3), ("3", 3), ("3", 4),
    ]  # fmt: skip
    assert one.events == [
        ("FD001-train-001", "failed", hour + 3 * 3600),
        ("FD001-train-003", "failed", hour + 4 * 3600),
    ]
    assert {asset for asset, _ in two.rows} == {"FD001-train-002"}
    first = one.rows["FD001-train-001", hour + 3600]
    assert tuple(first) == cmapss.CHANNELS
    assert first["T24"] == 4.25
    assert all(life.rul_h == 0 and life.failed for life in read(truth).lives)


def test_test_engines_end_without_a_word_and_their_truth_is_in_the_file(
    broker: Any, listen: Any, recording: Path
) -> None:
    agent = listen("left")
    truth = recording / "truth.json"
    args = ["replay", "--data", str(recording), "--split", "test", "--engines", "2-3"]
    args += ["--nodes", "left,right", "--broker", str(broker.address), "--truth", str(truth)]
    listen("right")
    assert cli.main(args) == 0
    assert not agent.events
    assert [(life.asset, life.node, life.rul_h) for life in read(truth).lives] == [
        ("FD001-test-002", "right", 20.0),
        ("FD001-test-003", "left", 30.0),
    ]


@pytest.mark.data
def test_the_real_recording_arrives_whole(broker: Any, listen: Any, cmapss_folder: Path) -> None:
    agent = listen("node-01")
    args = ["replay", "--data", str(cmapss_folder), "--engines", "1-5"]
    assert cli.main([*args, "--broker", str(broker.address)]) == 0
    engines = cmapss.load(cmapss_folder, "FD001", "train")[:5]
    assert len(agent.rows) == sum(map(len, engines))
    assert len(agent.events) == 5


def test_a_scenario_is_played_in_two_phases(broker: Any, listen: Any, tmp_path: Path) -> None:
    agent = listen("node-01")
    truth = tmp_path / "truth.json"
    args = ["run", "--scenario", str(DEMO), "--broker", str(broker.address), "--truth", str(truth)]
    assert cli.main([*args, "--phase", "history"]) == 0
    history = read(truth)
    assert len(agent.rows) == sum(life.rows for life in history.lives)
    assert [event for _, event, _ in agent.events].count("failed") == 4
    last = max(t for _, t in agent.rows)
    assert cli.main([*args, "--phase", "present"]) == 0
    present = read(truth)
    assert {life.phase for life in present.lives} == {"present"}
    assert min(life.started_t for life in present.lives) > last
    assert len(agent.rows) == sum(life.rows for life in history.lives + present.lives)
    assert {life.asset: life.rul_h for life in present.lives}["pump-1"] == 10.0


def test_by_the_clock_no_agent_is_waited_for(broker: Any, recording: Path) -> None:
    clock = HandClock()
    engines = cmapss.load(recording, "FD001", "train")
    progress = Progress(12, sys.stderr)
    with MqttSink(broker.address, site="demo", nodes=["n"], window=None, timeout_s=30) as sink:
        messages = replay.messages(engines, "FD001", "train", ["n"])
        play(messages, sink, site="demo", pace=Pace(1800, clock), progress=progress)
    assert clock.time == 8.0
    assert (progress.rows, progress.events) == (12, 3)


def test_what_is_wrong_is_one_line_and_exit_2(
    recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["replay", "--data", str(recording)]
    for args, said in (
        (["run", "--scenario", "nowhere.toml"], "nowhere.toml: cannot be read"),
        ([*data, "--subset", "FD002"], "neither train_FD002.txt nor train_FD002.txt.gz"),
        ([*data, "--engines", "2-9"], "engine 4 is not in the recording: it holds 1 to 3"),
        ([*data, "--engines", "a"], "--engines 'a': give numbers and ranges"),
        ([*data, "--nodes", "a,a"], "a name repeats"),
        ([*data, "--nodes", "a b"], "node 'a b' must be non-empty"),
        ([*data, "--broker", "x:y"], "broker 'x:y' is not HOST"),
        ([*data, "--broker", "127.0.0.1:1", "--connect-timeout", "0.1"], "no broker at 127.0.0.1"),
    ):
        assert cli.main(args) == 2
        lines = capsys.readouterr().err.splitlines()
        assert said in lines[-1]
        assert lines[-1].startswith("runout-simulator: ")


def test_list_says_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "--scenarios", str(ROOT / "configs" / "scenarios")]) == 0
    said = capsys.readouterr().out
    for part in ("vibration mm/s", "cavitation", "demo.toml: 3 nodes, 21 pumps", "cmapss"):
        assert part in said


def test_ctrl_c_ends_it_with_130(broker: Any, recording: Path) -> None:
    args = [sys.executable, "-m", "simulator.cli", "replay", "--data", str(recording)]
    with subprocess.Popen(
        [*args, "--broker", str(broker.address)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
    ) as process:
        assert process.stderr is not None
        assert "waiting for node-01" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert "ended by Ctrl-C" in process.stderr.read()
        assert process.wait() == 130


def test_the_truth_file_is_plain_json(broker: Any, listen: Any, tmp_path: Path) -> None:
    listen("node-01")
    path = tmp_path / "truth.json"
    args = ["run", "--scenario", str(DEMO), "--phase", "present", "--truth", str(path)]
    assert cli.main([*args, "--broker", str(broker.address), "--seed", "5"]) == 0
    told = json.loads(path.read_text())
    assert (told["seed"], told["site"], told["felt_severity"]) == (5, "demo", 0.1)
    assert told["lives"][0]["channels"] == ["vibration", "bearing_temp"]
