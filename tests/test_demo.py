"""The demonstration, run as a user runs it; what it says is held against the truth it knows."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("RUNOUT_DATA", ROOT / "../shared/data")) / "cmapss_fd001"


def demo(out: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "demo", "--out", str(out), *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finished(out: Path, *arguments: str, timeout_s: float) -> tuple[str, dict[str, Any]]:
    with demo(out, *arguments) as process:
        said, _ = process.communicate(timeout=timeout_s)
    assert process.returncode == 0, said
    assert left_over(out) == []
    return said, json.loads((out / "report.json").read_text())


def kept(out: Path, *arguments: str) -> tuple[str, dict[str, Any]]:
    """Run until the plant is left running, look at the fleet's page, and end it."""
    said = []
    with demo(out, "--keep", *arguments) as process:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            if found := re.search(r"the plant runs on: (\S+);", line):
                page = httpx.get(found[1], timeout=60, trust_env=False).raise_for_status().text
                assert "c-pump-2" in page
                process.send_signal(signal.SIGINT)
                break
        rest, _ = process.communicate(timeout=60)
    assert process.returncode == 130, "".join(said) + rest
    assert left_over(out) == []
    return "".join(said), json.loads((out / "report.json").read_text())


def left_over(out: Path) -> list[list[str]]:
    """Return the commands that still name the demonstration's folder or its ports."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = process.info["cmdline"] or []
        if process.info["status"] != psutil.STATUS_ZOMBIE and any(str(out) in w for w in words):
            found.append(words)
    return found


@pytest.mark.flower
@pytest.mark.timeout(240)
def test_the_demonstration_finds_failing_machines_and_learns_together(tmp_path: Path) -> None:
    # The embedded broker: the other tests run on mosquitto.
    said, report = kept(tmp_path / "demo", "--broker", "iotcore")
    assert report["readings_processed"] == report["readings_sent"] > 25_000
    assert report["released_version"] >= 1
    assert report["federated_error"] < report["local_error"]
    sick = {asset["asset"] for asset in report["truth"] if asset["fault"]}
    flagged = {found["asset"] for found in report["flagged"]}
    assert len(flagged & sick) >= len(sick) / 2
    assert len(flagged - sick) <= 1
    # The pump whose own hall has never seen this fault fail.
    worst = next(found for found in report["flagged"] if found["asset"] == "c-pump-2")
    true = next(asset for asset in report["truth"] if asset["asset"] == "c-pump-2")
    assert abs(worst["rul_hours"] - true["rul_hours"]) < 12
    assert "vibration" in worst["why"]
    assert "What learning together brought" in said
    assert "the fleet's page, while this runs: http://127.0.0.1:" in said


@pytest.mark.flower
@pytest.mark.data
@pytest.mark.timeout(600)
def test_the_demonstration_on_nasa_recordings_is_better_together(tmp_path: Path) -> None:
    if not DATA.exists() and not os.environ.get("CI"):
        pytest.skip(f"no recordings in {DATA}: set RUNOUT_DATA")
    _, report = finished(tmp_path / "demo", "--data", str(DATA), timeout_s=580)
    assert report["readings_sent"] == report["readings_processed"] == 20_631 + 13_096
    assert report["nodes"] == 10
    assert len(report["truth"]) == 100
    assert report["federated_error"] < 0.8 * report["local_error"]


@pytest.mark.flower
@pytest.mark.parametrize("after", ["agents:", "answered"])
def test_ctrl_c_at_any_moment_leaves_no_process(tmp_path: Path, after: str) -> None:
    out = tmp_path / "demo"
    with demo(out) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if after in line:
                break
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "no process is left" in rest
    assert left_over(out) == []


def test_a_folder_without_recordings_is_named_with_what_was_looked_for(tmp_path: Path) -> None:
    with demo(tmp_path / "demo", "--data", str(tmp_path)) as process:
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "train_FD001.txt" in said
    assert left_over(tmp_path / "demo") == []
