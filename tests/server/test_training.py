"""A training with the real ClientApp on real stores, in one process; processes: test_flower.py."""

import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from agent.store import open_readonly, read_lives
from contract.model_spec import Ridge
from contract.models.ridge import GramSums
from contract.release import Release
from server.guard import Limits
from server.merge import withdraw
from server.rounds import Fleet
from server.status import Status, read
from server.training import Settings, Training


@pytest.fixture
def training(tmp_path: Path, grid: Any) -> Training:
    return new_training(tmp_path / "server", grid)


def new_training(state: Path, grid: Any, **changes: Any) -> Training:
    settings = {
        "state": state,
        "asset_class": "",
        "rounds": 2,
        "min_nodes": 1,
        "deadline_s": 0.3,
        "interval_s": 60.0,
        "strategy": "fedavg",
        "serve": False,
        "guard": Limits(),
    }
    state.mkdir(exist_ok=True)
    return Training(Settings(**settings | changes), Fleet(grid), Status())


def coefficients_of_all(stores: Any, spec: Any, release: Release, nodes: list[str]) -> np.ndarray:
    """Return what one machine that had everyone's rows would compute."""
    ridge = next(model for model in spec.rul if isinstance(model, Ridge))
    lives = []
    for node in nodes:
        db = open_readonly(stores.folder / node)
        lives += read_lives(db, spec, heldout=False)
        db.close()
    X, y, w = (np.concatenate([life.rows[i] for life in lives]) for i in range(3))
    phi = release.basis.expansion(ridge).apply(release.basis.apply(X))
    return GramSums.of(phi, y, w).solve(ridge.penalty)


def test_a_training_brings_a_release_that_the_devices_get(
    stores: Any, grid: Any, training: Training, tmp_path: Path
) -> None:
    spec = stores.pump(stores.ridge, stores.network)
    for i in range(3):
        grid.states[i + 10] = stores.make(f"rpi-{i}", spec, seed=i)
    release = training.run()
    assert release is not None
    assert release.version == 1
    assert set(release.rul) == {"ridge", "sklearn"}
    assert release.manifest.contributors == ("rpi-0", "rpi-1", "rpi-2")
    assert release.manifest.metrics["nodes"] == 3
    assert {"rmse/ridge", "rmse_worst/ridge", "rmse/local"} <= release.manifest.metrics.keys()
    assert release.health is not None
    training.deploy(release, [10, 11, 12])
    for i in range(3):
        inbox = stores.folder / f"rpi-{i}" / "models" / "inbox"
        assert [path.name for path in inbox.iterdir()] == ["pump-v0001.npz"]
    status = read(tmp_path / "server")
    assert status is not None
    assert status.released is not None
    assert status.released.delivered == dict.fromkeys(["rpi-0", "rpi-1", "rpi-2"], "delivered")
    assert status.bytes_up.keys() == {"rpi-0", "rpi-1", "rpi-2"}


@pytest.mark.parametrize("shaping", [0, 8])
def test_ridge_by_federation_is_ridge_over_all_rows(
    shaping: int, stores: Any, grid: Any, training: Training
) -> None:
    spec = stores.pump(msgspec.structs.replace(stores.ridge, shaping=shaping, personal=True))
    for i in range(4):
        grid.states[i] = stores.make(f"rpi-{i}", spec, seed=i)
    release = training.run()
    expected = coefficients_of_all(stores, spec, release, [f"rpi-{i}" for i in range(4)])
    got = release.arrays["ridge/coefficients"]
    assert np.abs(got - expected).max() <= 1e-9 * np.abs(expected).max()
    assert (release.basis.shape is not None) == bool(shaping)
    # A device can tell its own lives in the fleet's sums from those of others.
    assert release.arrays["fleet/n"][0] > 0
    assert release.manifest.lives == dict.fromkeys([f"rpi-{i}" for i in range(4)], 4)


def test_sums_that_lose_precision_say_so(
    stores: Any, grid: Any, training: Training, caplog: pytest.LogCaptureFixture
) -> None:
    alike = stores.pump(Ridge(random=0, penalty=1e-15), stats=("mean_8", "std_8"))
    folder = stores.make("rpi-0", alike)
    grid.states[1] = folder
    release = training.run()
    assert release is not None
    assert 1.0 < release.manifest.metrics["condition/ridge"] < 1e5
    assert "solved to" not in caplog.text
    db = sqlite3.connect(folder / "store.db")
    rows = db.execute("SELECT asset, life, t_ns, x FROM life_row").fetchall()
    for asset, life, t_ns, content in rows:
        x = np.frombuffer(content, dtype=np.float64).copy()
        x[1] = x[0]  # a sensor that says what another says
        db.execute(
            "UPDATE life_row SET x = ? WHERE asset = ? AND life = ? AND t_ns = ?",
            (x.tobytes(), asset, life, t_ns),
        )
    db.commit()
    db.close()
    state = training.settings.state.with_name("server-2")
    release = new_training(state, grid).run()
    assert release is not None
    assert release.manifest.metrics["condition/ridge"] > 1e9
    assert "leave out features that say the same" in caplog.text


def test_the_order_in_which_nodes_answer_makes_no_difference(
    stores: Any, grid: Any, tmp_path: Path
) -> None:
    spec = stores.pump()
    for i in range(3):
        grid.states[i] = stores.make(f"rpi-{i}", spec, seed=i)
    one = new_training(tmp_path / "one", grid).run()
    grid.states = dict(reversed(grid.states.items()))
    other = new_training(tmp_path / "other", grid).run()
    for name, array in one.arrays.items():
        assert np.array_equal(array, other.arrays[name]), name


def test_a_node_that_is_away_still_counts_in_the_sums(
    stores: Any, grid: Any, training: Training, tmp_path: Path
) -> None:
    spec = stores.pump()
    for i in range(3):
        grid.states[i] = stores.make(f"rpi-{i}", spec, seed=i)
    training.run()
    del grid.states[2]
    again = new_training(tmp_path / "server", grid).run()
    assert again.version == 2
    assert again.manifest.parent == 1
    assert "rpi-2" in again.manifest.contributors
    expected = coefficients_of_all(stores, spec, again, ["rpi-0", "rpi-1", "rpi-2"])
    got = again.arrays["ridge/coefficients"]
    assert np.abs(got - expected).max() <= 1e-9 * np.abs(expected).max()


def test_a_withdrawn_node_is_as_if_it_had_never_been(
    stores: Any, grid: Any, tmp_path: Path
) -> None:
    spec = stores.pump()
    for i in range(3):
        grid.states[i] = stores.make(f"rpi-{i}", spec, seed=i)
    new_training(tmp_path / "server", grid).run()
    gone = grid.states.pop(2)
    assert withdraw(tmp_path / "server", "rpi-2") == ["pump ridge", "pump statistics"]
    without = new_training(tmp_path / "server", grid).run()
    assert without.manifest.contributors == ("rpi-0", "rpi-1")
    expected = coefficients_of_all(stores, spec, without, ["rpi-0", "rpi-1"])
    got = without.arrays["ridge/coefficients"]
    assert np.abs(got - expected).max() <= 1e-9 * np.abs(expected).max()
    assert gone.exists()


def test_a_node_with_another_spec_is_left_out_and_named(
    stores: Any, grid: Any, training: Training
) -> None:
    spec = stores.pump()
    for i in range(2):
        grid.states[i] = stores.make(f"rpi-{i}", spec, seed=i)
    grid.states[7] = stores.make("odd", stores.pump(stats=("mean_16", "std_16")), seed=7)
    release = training.run()
    assert release.manifest.contributors == ("rpi-0", "rpi-1")
    phases = [e for e in training.cohort.registry.journal() if e["event"] == "phase"]
    assert "runs spec" in phases[0]["failed"]["odd"]


def test_the_pinned_spec_holds_even_if_most_nodes_change(
    stores: Any, grid: Any, tmp_path: Path
) -> None:
    spec = stores.pump()
    grid.states[0] = stores.make("rpi-0", spec, seed=0)
    new_training(tmp_path / "server", grid).run()
    for i in (1, 2):
        other = stores.pump(stats=("mean_16", "std_16"))
        grid.states[i] = stores.make(f"rpi-{i}", other, seed=i)
    training = new_training(tmp_path / "server", grid)
    release = training.run()
    assert release.manifest.contributors == ("rpi-0",)
    assert training.deploy(release, [0, 1, 2]) == {0, 1, 2}  # the agent itself refuses to use it
    statistics = [e for e in training.cohort.registry.journal() if e.get("phase") == "statistics"]
    assert "is configured otherwise on this device" in statistics[-1]["failed"]["node 1"]


def test_a_late_answer_is_taken_in_by_the_next_phase(
    stores: Any, grid: Any, training: Training
) -> None:
    spec = stores.pump()
    for i in range(2):
        grid.states[i] = stores.make(f"rpi-{i}", spec, seed=i)
    grid.held = {1}
    first = training.run()
    assert first.manifest.contributors == ("rpi-0",)
    grid.held = set()
    grid.states.pop(1)
    second = training.run()
    assert second.manifest.contributors == ("rpi-0", "rpi-1")
    events = training.cohort.registry.journal()
    assert ("late", "rpi-1") in {(e["event"], e.get("node")) for e in events}


def test_a_silent_node_is_waited_for_once_in_a_training(
    stores: Any, grid: Any, training: Training
) -> None:
    spec = stores.pump(stores.ridge, stores.network)
    for i in range(2):
        grid.states[i] = stores.make(f"rpi-{i}", spec, seed=i)
    grid.held = {1}
    training.run()
    assert [kind for node, kind in grid.kinds if node == 1] == ["train"]


def test_the_standardisation_stays_until_the_rows_have_doubled(
    stores: Any, grid: Any, tmp_path: Path
) -> None:
    spec = stores.pump()
    folder = grid.states[0] = stores.make("rpi-0", spec, lives=6, seed=1)
    first = new_training(tmp_path / "server", grid).run()
    stores.live(folder, "rpi-0", spec, lives=2, seed=2)
    second = new_training(tmp_path / "server", grid).run()
    assert np.array_equal(second.basis.mean, first.basis.mean)
    stores.live(folder, "rpi-0", spec, lives=9, seed=3)
    training = new_training(tmp_path / "server", grid)
    third = training.run()
    assert not np.array_equal(third.basis.mean, first.basis.mean)
    assert training.cohort.registry.line().basis_version == 2


def test_nothing_new_means_no_new_version(stores: Any, grid: Any, training: Training) -> None:
    folder = grid.states[0] = stores.make("rpi-0", stores.pump())
    assert training.run() is not None
    assert training.run(even_if_nothing_new=False) is None
    stores.live(folder, "rpi-0", stores.pump(), lives=1, seed=9)
    assert training.run(even_if_nothing_new=False).version == 2


def test_devices_without_any_life_get_a_health_model_at_least(
    stores: Any, grid: Any, training: Training
) -> None:
    spec = stores.pump(stores.ridge, stores.network)
    folder = grid.states[0] = stores.make("rpi-0", spec, lives=1)
    db = stores.folder / "rpi-0" / "store.db"
    assert db.exists()
    with sqlite3.connect(db) as connection:
        connection.execute("DELETE FROM life")
    connection.close()
    release = training.run()
    assert folder.exists()
    assert release.health is not None
    assert not release.rul


def test_a_fleet_that_knows_nothing_gets_no_release(
    stores: Any, grid: Any, training: Training
) -> None:
    grid.states[0] = stores.make("rpi-0", stores.pump(), lives=0)
    assert training.run() is None


def test_two_nodes_of_one_name_count_as_one(stores: Any, grid: Any, training: Training) -> None:
    grid.states[0] = grid.states[1] = stores.make("rpi-0", stores.pump())
    release = training.run()
    assert release.manifest.contributors == ("rpi-0",)
    phases = [e for e in training.cohort.registry.journal() if e["event"] == "phase"]
    assert phases[0]["failed"] == {"node 1": "calls itself 'rpi-0' as another node does"}


def test_a_node_without_an_agent_says_so(
    stores: Any, grid: Any, training: Training, tmp_path: Path
) -> None:
    grid.states[0] = stores.make("rpi-0", stores.pump())
    grid.states[1] = tmp_path / "nowhere"
    training.run()
    phases = [e for e in training.cohort.registry.journal() if e["event"] == "phase"]
    assert "has the agent run with this state folder?" in phases[0]["failed"]["node 1"]


def test_a_second_training_goes_on_from_the_weights_of_the_first(
    stores: Any, grid: Any, training: Training
) -> None:
    spec = stores.pump(stores.network)
    for i in range(2):
        grid.states[i] = stores.make(f"rpi-{i}", spec, seed=i)
    first = training.run()
    second = training.run()
    assert second.manifest.metrics["rmse/sklearn"] != first.manifest.metrics["rmse/sklearn"]
    assert second.manifest.metrics["rmse/sklearn"] < 1.1 * first.manifest.metrics["rmse/sklearn"]
