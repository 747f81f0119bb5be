"""What a reading costs the disk: bytes and flushes, not time."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from agent.config import load
from benchmarks.wear import SHIPPED, Setting, measure


@pytest.mark.parametrize("safe", [True, False], ids=["power-loss safe", "not"])
def test_what_deploy_pi_ships_costs_little_more_than_the_readings(
    safe: bool, tmp_path: Path
) -> None:
    shipped = load(SHIPPED)
    keep = msgspec.structs.replace(shipped.keep, power_loss_safe=safe)
    found = measure(Setting("shipped", keep, shipped.report), tmp_path, 5, warm_up_s=320)
    # A reading is 8 bytes, and its share of the bursts 11; 96 would be 2 GB a day.
    assert found["bytes_per_reading"] < (70 if safe else 55)
    assert found["commits_per_hour"] <= 3600
    assert found["fsyncs_per_hour"] <= (3900 if safe else 200)


def test_flushes_are_counted_by_the_agent_where_nothing_else_can(
    configure: Callable[..., Any], device: Callable[..., Any]
) -> None:
    config = configure()
    for safe in (True, False):
        keep = msgspec.structs.replace(config.keep, power_loss_safe=safe)
        node = device(msgspec.structs.replace(config, keep=keep))
        before = node.engine.store.syncs
        for hour in range(20):
            node.live("pump-1", np.array([[5.0, 40.0]]), begin=hour + 20 * (not safe))
        assert node.engine.store.syncs - before in ((20, 21) if safe else (0,))  # and the folder
        node.engine.checkpoint()
        assert (node.engine.store.syncs - before > 21) == safe
        node.kill()
