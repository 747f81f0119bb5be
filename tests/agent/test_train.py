"""Models from files and stores: trained, made again to the last bit, compared side by side."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from agent import personal
from agent.cli import main
from agent.train import record
from agent.train.select import Row, choose, forwards, variations
from contract import load_model
from contract.model_spec import Ridge, Sklearn
from contract.release import Release

ROOT = Path(__file__).parents[2]
CONFIG = """
[node]
name = "node"
state = "{state}"
[assets]
"*" = "pump"
[[asset_class]]
name = "pump"
stats = ["last", "mean_4"]
age = true
cap_h = 40
holdout = 4
[asset_class.health]
kind = "moments"
baseline = 16
learn = 24
[[asset_class.rul]]
kind = "ridge"
random = 40
shaping = 20
[[asset_class.channels]]
name = "vibration"
unit = "mm/s"
[[asset_class.channels]]
name = "temperature"
unit = "degC"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "agent.toml"
    path.write_text(CONFIG.format(state=tmp_path / "state"))
    return path


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Return a table of pumps that ran to failure, hour by hour, as a description says."""
    rng = np.random.default_rng(1)
    lines = ["unit,hour,vibration,temperature"]
    for unit in range(1, 11):
        hours = int(rng.integers(50, 70))
        for hour in range(hours):
            wear = (hour / hours) ** 3
            noise = rng.normal(size=2) * 0.1
            vibration, heat = 2.0 + 4 * wear + noise[0], 40.0 + 9 * wear + noise[1]
            lines.append(f"{unit},{hour + 1},{vibration:.4f},{heat:.4f}")
    path = tmp_path / "pumps.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def described(tmp_path: Path) -> Path:
    path = tmp_path / "pumps.toml"
    path.write_text((ROOT / "tests" / "agent" / "pumps.toml").read_text())
    return path


def ask(*words: object) -> int:
    return main([str(word) for word in words])


def test_a_model_is_trained_from_a_file_and_made_again_to_the_last_bit(
    config: Path, recording: Path, described: Path, tmp_path: Path, capsys: Any
) -> None:
    model = tmp_path / "model.npz"
    source = ("--config", config, "--format", described, recording)
    assert ask("train", *source, "--out", model) == 0
    said = capsys.readouterr().out
    assert "better than one number" in said
    assert "BAD" not in said
    run = record.read(model)
    assert run.model == load_model(model).digest
    assert [file.path for file in run.origin.files] == [str(recording)]
    assert [life.heldout for life in run.origin.lives] == [False, False, False, True] * 2 + [
        False,
        False,
    ]
    assert ask("reproduce", model) == 0
    assert "the same to the last bit" in capsys.readouterr().out

    # Another seed makes another model, and that is told.
    other = msgspec.structs.replace(run.asset_class.rul[0], seed=7)
    spec = msgspec.structs.replace(run.asset_class, rul=(other,))
    record.write(msgspec.structs.replace(run, asset_class=spec), model)
    assert ask("reproduce", model) == 1
    assert "ridge/coefficients: differs by" in capsys.readouterr().out


def test_what_has_changed_since_is_named(
    config: Path, recording: Path, described: Path, tmp_path: Path, capsys: Any
) -> None:
    model = tmp_path / "model.npz"
    ask("train", "--config", config, "--format", described, recording, "--out", model)
    content = recording.read_text()
    recording.write_text(content.replace("2,5,", "2,5,9", 1))
    capsys.readouterr()
    assert ask("reproduce", model) == 2
    assert (
        "lives it was learnt from are not here, or other ones: pump-2/0" in capsys.readouterr().err
    )
    (tmp_path / "model.npz.run.json").write_text("{}")
    assert ask("reproduce", model) == 2
    assert "is no run manifest" in capsys.readouterr().err


def test_a_store_is_trained_from_as_well_and_without_a_life_there_is_nothing_to_learn(
    config: Path, recording: Path, described: Path, tmp_path: Path, capsys: Any
) -> None:
    model = tmp_path / "model.npz"
    assert ask("train", "--config", config, "--out", model) == 2
    assert "no store.db here" in capsys.readouterr().err
    replayed = ("--format", described, "--state", tmp_path / "state", "--quiet")
    assert ask("replay", "--config", config, recording, *replayed) == 0
    assert ask("train", "--config", config, "--out", model) == 0
    assert ask("reproduce", model) == 0
    assert load_model(model).health is not None
    assert "no scikit" not in capsys.readouterr().err


def test_candidates_are_compared_forwards_in_time_and_the_chosen_one_is_written(
    config: Path, recording: Path, described: Path, tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "chosen.toml"
    other = tmp_path / "more.toml"
    other.write_text(config.read_text().replace('"mean_4"', '"mean_4", "slope_8"'))
    source = ("--config", config, "--format", described, recording)
    assert ask("select", *source, "--candidate", other, "--out", out) == 0
    table = capsys.readouterr().out
    for name in ("linear", "ridge 30", "ridge unshaped", "more ridge"):
        assert name in table
    assert table.count("<- chosen") == 1
    chosen = tomllib.loads(out.read_text())["asset_class"]["rul"]
    assert msgspec.convert(chosen, tuple[Ridge | Sklearn, ...])


def test_folds_never_learn_from_what_ended_later() -> None:
    lives: Any = list(range(11))
    for learnt, judged in forwards(lives):
        assert max(learnt) < min(judged)
    assert [life for _, judged in forwards(lives) for life in judged][-1] == 10


def test_the_simplest_that_is_as_good_is_chosen() -> None:
    def row(error: float, numbers: int) -> Row:
        return Row(None, error, 0.5, 1.0, 1.0, 1.0, 1.0, numbers)  # type: ignore[arg-type]

    rows = [row(10.0, 900), row(10.4, 50), row(11.0, 5)]
    assert choose(rows) is rows[1]


def test_the_run_manifest_holds_no_reading(
    config: Path, recording: Path, described: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model.npz"
    ask("train", "--config", config, "--format", described, recording, "--out", model)
    run = json.loads((tmp_path / "model.npz.run.json").read_text())
    assert run["packages"].keys() == {"runout", "numpy", "msgspec", "scikit-learn"}
    assert {check["name"] for check in run["checks"]} >= {"data", "labels", "precision"}
    sizes = {array.size for array in load_model(model).arrays.values()}
    assert max(sizes) < 60 * 10  # fewer numbers than rows


def test_a_release_without_sums_is_nobodys_own(
    config: Path, recording: Path, described: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model.npz"
    ask("train", "--config", config, "--format", described, recording, "--out", model)
    release: Release = load_model(model)
    assert personal.own_model(release) is None
    names: Callable[..., Any] = variations
    assert [name for name, _ in names(release.manifest.asset_class)][:2] == ["ridge", "linear"]
