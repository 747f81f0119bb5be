"""Event files, read back by TensorBoard's own reader."""

from pathlib import Path
from typing import Any

import pytest

from server.cli import main
from server.guard import Limits
from server.registry import Registry
from server.rounds import Fleet
from server.status import Status
from server.training import Settings, Training


@pytest.mark.filterwarnings("ignore")  # of what TensorBoard imports
def test_tensorboard_reads_what_the_journal_tells(tmp_path: Path, grid: Any, stores: Any) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    state = tmp_path / "server"
    state.mkdir()
    for number in (1, 2):
        grid.states[number] = stores.make(f"rpi-{number}", stores.pump(), seed=number)
    settings = Settings(state, "", 1, 1, 0.3, 60.0, "fedavg", False, Limits())
    run = Training(settings, Fleet(grid), Status())
    releases = [run.run(), run.run()]
    config = tmp_path / "server.toml"
    config.write_text(f'state = "{state}"\n')
    out = tmp_path / "board"
    for _ in range(2):  # written again, and nothing is there twice
        assert main(["tensorboard", "--out", str(out), "--config", str(config)]) == 0
    board = EventAccumulator(str(out / "pump"))
    board.Reload()
    tags = board.Tags()["scalars"]
    assert {"heldout/rmse/ridge", "accepted/statistics", "seconds/fit 1"} <= set(tags)
    errors = board.Scalars("heldout/rmse/ridge")
    assert [one.step for one in errors] == [1, 2]
    for one, release in zip(errors, releases, strict=True):
        assert release is not None
        assert one.value == pytest.approx(release.manifest.metrics["rmse/ridge"], rel=1e-6)
    assert [one.value for one in board.Scalars("accepted/statistics")] == [2.0, 2.0]
    told = [e for e in Registry(state, "pump").journal() if e["event"] == "release"]
    assert errors[0].wall_time == pytest.approx(told[0]["t"])


def test_a_server_that_has_not_trained_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "server.toml"
    config.write_text(f'state = "{tmp_path}"\n')
    out = str(tmp_path / "board")
    assert main(["tensorboard", "--out", out, "--config", str(config)]) == 1
    assert "nothing was trained yet" in capsys.readouterr().err
