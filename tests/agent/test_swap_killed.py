"""However an agent is killed while a release comes to judge, or goes: a good model judges on."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.config import AgentConfig, Learning, TrialConfig
from agent.rollout import deliver
from tests.agent.test_rollout import trained
from tests.agent.test_trial import Plant, alarming

ROOT = Path(__file__).parents[2]


def killed_at_each_point(one: Plant, folder: Path) -> list[dict[str, Any]]:
    """Return what came of a kill at each point of the next step, and last of none."""
    one.device.close()
    config = folder / "config.json"
    config.write_bytes(msgspec.json.encode(one.config))
    scratch = folder / "scratch"
    scratch.mkdir()
    command = [sys.executable, "-m", "tests.agent.killed", str(config)]
    done = subprocess.run(
        [*command, str(one.config.state), str(scratch)],
        cwd=ROOT,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["killed"] for one in found] == [True] * (len(found) - 1) + [False]
    assert found[-1]["status"] == 0, done.stderr
    assert len(found) > 4
    return found


@pytest.fixture
def plant(
    configure: Callable[..., AgentConfig], device: Callable[[AgentConfig], Any]
) -> Callable[..., Plant]:
    def make(**trial: Any) -> Plant:
        return Plant(configure(learning=Learning(trial=TrialConfig(**trial))), device)

    return make


def test_a_kill_while_a_release_is_promoted(plant: Callable[..., Plant], tmp_path: Path) -> None:
    one = plant(watch=60)
    one.healthy(30)
    one.offer(trained(one.config))
    one.pause()
    one.run(80)
    assert one.journal == [(1, "promoted"), (1, "kept")]
    one.offer(trained(one.config, version=2))
    for found in killed_at_each_point(one, tmp_path):
        assert found["then"] in ([1], [2])
        assert found["judged_by"] == [2]
        assert found["journal"] == ["1 promoted", "1 kept", "2 promoted", "2 kept"]
        assert found["left"] == []


def test_a_kill_while_a_shadow_begins_and_while_it_is_promoted(
    plant: Callable[..., Plant], tmp_path: Path
) -> None:
    one = plant(shadow=60, watch=0)
    one.healthy(30)
    one.offer(trained(one.config))
    begins = tmp_path / "begins"
    begins.mkdir()
    for found in killed_at_each_point(one, begins):
        assert found["then"] == [0]
        assert (found["judged_by"], found["left"]) == ([1], [])
        assert found["journal"] == ["1 shadow", "1 promoted"]
    one.device = one._open(one.config)
    one.pause()
    ends = tmp_path / "ends"
    ends.mkdir()
    for found in killed_at_each_point(one, ends):
        assert found["then"] in ([0], [1])
        assert (found["judged_by"], found["left"]) == ([1], [])
        assert found["journal"] == ["1 shadow", "1 promoted"]


@pytest.mark.parametrize("before", [0, 1])
def test_a_kill_while_a_release_is_taken_back(
    before: int, plant: Callable[..., Plant], tmp_path: Path
) -> None:
    one = plant(watch=60)
    one.healthy(30)
    good = trained(one.config)
    journal = []
    if before:
        one.offer(good)
        one.pause()
        one.run(80)
        journal = ["1 promoted", "1 kept"]
    one.again()
    deliver(one.config.state, alarming(good, version=2))
    one.pause()
    assert one.live == 2
    for found in killed_at_each_point(one, tmp_path):
        assert found["then"] in ([before], [2])
        assert (found["judged_by"], found["left"]) == ([before], [])
        assert found["journal"] == [*journal, "2 promoted", "2 rolled back"]
