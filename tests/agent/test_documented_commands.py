"""Every command in the documentation is run: here, by a test that is named, or not, and why."""

import functools
import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.agent import test_import as samples
from tests.agent.conftest import Broker, free_port

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
FENCE = re.compile(r"^( *)```(?:bash|sh|console)\n(.*?)^\1```", re.DOTALL | re.MULTILINE)

BY_ANOTHER_TEST = {
    r"make demo$": "tests/test_demo.py::test_the_demonstration_finds_failing_machines",
    r"make demo KEEP=": "tests/test_demo.py::test_the_demonstration_finds_failing_machines",
    r"make demo DATA=": "tests/test_demo.py::test_the_demonstration_on_nasa_recordings",
    r"sh deploy/pi/install\.sh": "tests/test_deploy.py::test_a_device_is_installed_updated",
    r"pip download ": "tests/test_deploy.py::test_without_a_network_the_packages_come",
    r"runout-agent check --live": "tests/agent/test_live.py::test_a_stream_that_keeps_to",
    r"runout-agent doctor": "tests/agent/test_doctor.py::test_this_machine_is_one",
    r"runout-agent history": ("tests/agent/test_release_faults.py::test_a_running_agent_judges_on"),
    r"runout-agent node": "tests/server/test_flower.py::test_a_fleet_trains_and_each_node",
    r"mosquitto_pub .*/(command|verdict|event) ": (
        "tests/agent/test_commands.py::test_commands_and_verdicts_come_over_mqtt"
    ),
    r"curl .*/v1/readings": "tests/agent/test_commands.py::test_commands_and_verdicts_come_over",
    r"runout-agent (ack|shelve|unshelve|verdict|event) ": (
        "tests/agent/test_commands.py::test_commands_and_verdicts_come_over_mqtt"
    ),
    r"runout-agent explain .*--from": "tests/agent/test_explain.py::test_a_package_alone_is_enough",
    r"runout-agent (explain|export) ": "tests/agent/test_explain.py::test_an_alert_is_explained",
    r"runout-agent (train|reproduce) ": "tests/agent/test_train.py::test_a_model_is_trained_from",
    r"runout-agent select ": "tests/agent/test_train.py::test_candidates_are_compared_forwards",
    r"runout-agent replay train_FD001": "tests/agent/test_replay.py::test_remaining_lives_are_held",
    r"runout-agent replay valve1": "tests/agent/test_replay.py::test_skab_is_back_tested",
    r"runout-agent replay pump-3": "tests/agent/test_replay_bursts.py::test_bursts_beside_a_table",
    r"runout-server run ": "tests/server/test_enrol.py::test_who_is_enrolled_comes_in",
    r"runout-server round ": "tests/server/test_flower.py::test_a_fleet_trains_and_each_node",
    r"runout-server select ": "tests/server/test_flower.py::test_a_fleet_tries_models",
    r"runout-server (models )?service ": "tests/server/test_service.py::test_the_command_serves",
    r"curl .*/v1/classes": "tests/server/test_service.py::test_what_the_service_answers",
    r"runout-server models (wave|history)": "tests/server/test_waves.py::test_a_person_sees_holds",
    r"runout-server models": "tests/server/test_models_command.py::test_versions_are_listed",
    r"runout-server config ": "tests/server/test_settings.py::test_devices_are_chosen_by_labels",
    r"runout-server evidently ": "tests/server/test_drift_report.py::test_a_feature_that_moved",
    r"runout-server tensorboard ": "tests/server/test_tensorboard.py::test_tensorboard_reads",
    r"runout-server score ": "tests/server/test_scores.py::test_the_command_says_what_it_did",
    r"curl .*/v1/scores": "tests/server/test_scores.py::test_the_command_says_what_it_did",
    r"flwr run ": "tests/server/test_flower.py::test_a_run_from_outside_trains",
    r"runout-simulator replay --dataset cmapss": (
        "tests/simulator/test_commands.py::test_the_real_recording_arrives_whole"
    ),
    r"runout-(agent status|simulator score) ": (
        "tests/agent/test_documented_commands.py::test_the_quickstart_does_what_it_says"
    ),
    r"runout-simulator replay --dataset skab": (
        "tests/simulator/test_recordings.py::test_a_recording_is_replayed_with_its_truth"
    ),
    r"runout-simulator replay --dataset csv": (
        "tests/simulator/test_recordings.py::test_a_table_of_ones_own_is_read_by_its_description"
    ),
    r"runout-simulator run .*--sink serial": "tests/simulator/test_sinks.py::test_a_reader_of_the",
}
"""What a command begins with, and how the name of the test begins that runs the like."""

NOT_RUN = {
    r"python3 -m venv .* && .*pip install \.$": "as deploy/venv.sh does before any test",
    r"sqlite3 out/server/scores\.db ": "needs SQLite's shell; test_scores asks the table",
    r"sudo apt install ": "changes this machine",
    r"sudo nano ": "a person edits",
    r"sudo systemctl ": "needs a system under systemd; units are held against it in test_deploy.py",
    r"ls /dev/serial/by-id$": "needs a serial device",
}
"""What is not run, and why."""


def pages() -> list[Path]:
    """Return what people read; what is generated has no commands to copy."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def plain(line: str) -> str:
    """Return a command as it is compared: without comment, doubled blanks and what runs it."""
    line = re.sub(r"(^|\s)#.*$", "", line)
    return " ".join(line.split()).removesuffix("&").strip()


def commands(text: str) -> list[str]:
    """Return the commands of a page, in order."""
    found = []
    for match in FENCE.finditer(text):
        lines = match[2].replace("\\\n", " ").splitlines()
        found += [command for line in lines if (command := plain(line))]
    return found


@functools.cache
def run_here() -> set[str]:
    """Return the commands that the tests below run."""
    found = {plain(line) for line in (*FILES, *FLEET, *SPOKEN)}
    return found | set(by_hand())


def by_hand() -> list[str]:
    """Return the lines of the quickstart's part on one agent."""
    return [
        line
        for match in FENCE.finditer((ROOT / "docs/quickstart.md").read_text())
        for line in match[2].splitlines()
        if not line.startswith("make ")
    ]


def without_sudo(command: str) -> str:
    return command.removeprefix("sudo ").replace("/etc/runout/agent.toml", "configs/agent.toml")


FILES = (
    "runout-simulator list",
    "runout-agent replay log-2025.csv --config configs/agent.toml --out said.csv",
    "runout-agent import monitron monitron/*.gz --out monitron-import --replaced-is-failed",
    "runout-agent check --config monitron-import/agent.toml",
    (
        "runout-agent replay monitron-import/rows/*.csv --format monitron-import/tables.toml "
        "--labels monitron-import/labels.json --config monitron-import/agent.toml"
    ),
    (
        "runout-agent import lookout dataset --asset press-1 --offset Z "
        "--labels labels.csv --unit motor_Current=A --out lookout-import"
    ),
    (
        "runout-agent replay lookout-import/rows/*.csv --format lookout-import/tables.toml "
        "--labels lookout-import/labels.json --config lookout-import/agent.toml"
    ),
)
FLEET = (
    "runout-server init fleet --name plant.example --name 10.0.0.7",
    "runout-server enrol rpi-1 --address plant.example:9092 --config fleet/server.toml",
    "runout-agent join rpi-1.runout --folder /etc/runout/fleet",
    "runout-server revoke rpi-1 --config fleet/server.toml",
)
_ROW = (
    '"vibration": 2.1, "bearing_temp": 41.0, "motor_current": 11.8, "flow": 52, "pressure": 3.1, '
    '"speed": 1480'
)
_PUBLISH = "mosquitto_pub -q 1 -t runout/v1/demo/node-01/pump-1/readings -m "
SPOKEN = (_PUBLISH + f"""'{{"t": 1767225600, "v": {{{_ROW}}}}}'""",)


def shell(folder: Path, script: str) -> str:
    """Run a script as a person types it, with this environment's commands; return what it says."""
    (folder / "configs").symlink_to(ROOT / "configs")
    ran = subprocess.run(
        ["bash", "-c", "set -emu -o pipefail\n" + script],
        cwd=folder,
        env=os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
    return ran.stdout


def log(path: Path) -> None:
    """Write a table of the pumps of configs/agent.toml."""
    names = "vibration,bearing_temp,motor_current,flow,pressure,speed"
    rows = [
        f"pump-1,{1767225600 + 600 * i},{2 + i % 3 / 10},{41 + i % 5},11.8,52,3.1,1480"
        for i in range(50)
    ]
    path.write_text("\n".join([f"asset,t,{names}", *rows]) + "\n")


def test_every_command_of_the_documentation_is_run_or_said_why_not() -> None:
    here = {plain(line) for line in run_here()}
    left = []
    for path in pages():
        for command in commands(path.read_text()):
            bare = without_sudo(command)
            known = bare in here or command in here
            known |= any(re.match(like, bare) for like in BY_ANOTHER_TEST)
            known |= any(re.match(like, command) for like in NOT_RUN)
            if not known:
                left.append(f"{path.relative_to(ROOT)}: {command}")
    assert not left, "run them in a test, or say why not:\n" + "\n".join(left)


def test_the_tests_that_run_commands_are_there_and_no_reason_is_left_over() -> None:
    said = [c for path in pages() for c in commands(path.read_text())]
    for like, test in BY_ANOTHER_TEST.items():
        path, _, name = test.partition("::")
        assert re.search(rf"^def {name}", (ROOT / path).read_text(), re.MULTILINE), test
        assert any(re.match(like, without_sudo(c)) for c in said), like
    for like in NOT_RUN:
        assert any(re.match(like, c) for c in said), like


def test_the_quickstart_does_what_it_says(tmp_path: Path, broker: Broker) -> None:
    # The broker of the test in place of one at its usual port; the page at a free one.
    agent = f"--set mqtt.port={broker.port} --set web.port={free_port()}"
    lines = []
    for line in by_hand():
        changed = re.sub(r"(--config configs/agent\.toml)", rf"\1 {agent}", line)
        lines.append(
            re.sub(
                r"runout-simulator (run|record)",
                rf"runout-simulator \1 --broker 127.0.0.1:{broker.port}",
                changed,
            )
        )
    log(tmp_path / "log.csv")
    said = shell(tmp_path, "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n" + "\n".join(lines))
    assert "configs/agent.toml: good" in said
    assert "pump-2" in said
    assert re.search(r"^lives +6$", said, re.MULTILINE)
    assert (tmp_path / "said.csv").read_text().count("\n") > 1


def test_recordings_and_imports_are_read_as_the_documentation_says(tmp_path: Path) -> None:
    log(tmp_path / "log-2025.csv")
    (tmp_path / "monitron").mkdir()
    records = "".join(map(json.dumps, samples.second()))
    (tmp_path / "monitron/part.gz").write_bytes(gzip.compress(records.encode()))
    samples.data_set(tmp_path / "dataset")
    (tmp_path / "labels.csv").write_text("1/3/2020 2:05,1/3/2020 11:05\n")
    said = shell(tmp_path, "\n".join(FILES))
    assert "Cooling-pump-2.drive-end: 72 rows, 2 lives" in said
    assert "press-1: 72 rows, 1 life" in said


def test_a_fleet_is_begun_as_the_documentation_says(tmp_path: Path) -> None:
    script = "\n".join(FLEET).replace("/etc/runout/fleet", "joined")
    said = shell(tmp_path, script)
    assert "[federation]" in said
    assert (tmp_path / "joined").is_dir()


@pytest.mark.parametrize("line", SPOKEN)
def test_a_reading_is_sent_as_the_documentation_says(
    line: str, tmp_path: Path, broker: Broker
) -> None:
    shell(tmp_path, line.replace("mosquitto_pub", f"mosquitto_pub -p {broker.port}"))
