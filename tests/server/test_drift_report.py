"""Evidently's report of a machine, from a fleet's table with what its device showed."""

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from contract import topics
from contract.picture import Features
from server.cli import main
from server.fleet.config import FleetConfig
from server.fleet.reports import read
from server.fleet.store import Store, open_engine
from tests.server.fleet import T, health

HOUR_S = 3600.0
NAMES = ("flow mean_16", "vibration mean_16", "vibration std_16")


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Path]:
    """Return what makes a server's configuration, whose table knows hours of pump-1."""

    def table(hours: int, moved: float = 0.0) -> Path:
        state = tmp_path / "server"
        state.mkdir()
        config = tmp_path / "server.toml"
        config.write_text(f'state = "{state}"\n')
        engine = open_engine(f"sqlite:///{state / 'fleet.db'}")
        store = Store(engine, FleetConfig())
        # Each point leans on the one before, as a machine's do.
        rng = np.random.default_rng(5)
        x = np.zeros((hours, 3))
        for n in range(1, hours):
            x[n] = 0.8 * x[n - 1] + rng.standard_normal(3)
        x[-7 * 24 :, 1] += moved
        said = [
            (
                topics.asset_topic("s", "n", "pump-1", "health"),
                msgspec.json.encode(health("pump-1")),
            )
        ]
        for n in range(hours):
            one = Features("pump-1", T + HOUR_S * n, NAMES, (*x[n, :2].tolist(), None))
            said.append((topics.picture_topic("s", "n", "pump-1"), msgspec.json.encode(one)))
        found = [read(topic, body) for topic, body in said]
        store.write([one for one in found if one is not None])
        engine.dispose()
        return config

    return table


def test_a_feature_that_moved_is_named_and_one_that_did_not_is_not(
    table: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = table(37 * 24, moved=4.0)
    page, told = tmp_path / "out" / "drift.html", tmp_path / "out" / "drift.json"
    words = ["evidently", "s/n/pump-1", "--out", str(page), "--json", str(told)]
    assert main([*words, "--config", str(config)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "s/n/pump-1: 168 points now, 720 before"
    assert said[1].split()[1:] == ["drifted", "vibration", "mean_16"]
    assert said[2].split()[1:] == ["flow", "mean_16"]
    assert said[3] == "too few points of vibration std_16"
    values = {
        one["config"]["column"]: one["value"]
        for one in json.loads(told.read_text())["metrics"]
        if "column" in one["config"]
    }
    assert values["vibration mean_16"] > 1.0
    assert values["flow mean_16"] < 0.5
    text = page.read_text()
    assert "vibration mean_16" in text
    assert 'src="http' not in text  # it opens where there is no network


def test_an_undisturbed_machine_has_not_drifted(
    table: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evidently", "s/n/pump-1", "--config", str(table(37 * 24))]) == 0
    assert "drifted" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        ("pump-1", ["SITE/NODE/MACHINE"]),
        ("s/n/pump-2", ["'s/n/pump-2'", "there are s/n/pump-1"]),
        ("s/n/pump-1", ["too little is known", "--reference-days"]),
    ],
)
def test_what_cannot_be_said_is_told_with_its_mend(
    table: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    machine: str,
    words: list[str],
) -> None:
    assert main(["evidently", machine, "--config", str(table(30))]) == 2
    said = capsys.readouterr().err
    for word in words:
        assert word in said


def test_where_no_fleet_was_heard_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "server.toml"
    config.write_text(f'state = "{tmp_path / "server"}"\n')
    assert main(["evidently", "s/n/pump-1", "--config", str(config)]) == 2
    assert "has runout-server heard a fleet?" in capsys.readouterr().err
    assert not (tmp_path / "server").exists()
