"""Versions for other runtimes: ONNX held against onnxruntime, and a real MLflow registry."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime
import pytest
from mlflow import MlflowClient

from agent.models.kinds import KindsLearner
from contract import load_model
from contract.features import FeatureSpec
from contract.model_spec import (
    Chart,
    Clusters,
    Extremes,
    Faults,
    HalfSpace,
    Health,
    Linear,
    Moments,
    NaiveBayes,
    Ridge,
)
from contract.models.healthy import nothing, shown
from contract.release import Manifest, Release
from contract.spec import AssetClass, Channel
from server import onnx_export
from server.cli import main
from server.guard import Limits
from server.registry import Registry
from server.rounds import Fleet
from server.status import Status
from server.training import Settings, Training

CHANNELS = (Channel("vibration", "mm/s"), Channel("temperature", "degC"))


@pytest.fixture
def config(tmp_path: Path, grid: Any, stores: Any) -> Path:
    """Return the configuration of a server that has released two versions."""
    state = tmp_path / "server"
    state.mkdir()
    spec = stores.pump(msgspec.structs.replace(stores.ridge, shaping=6), stores.network)
    run = Training(
        Settings(state, "", 1, 1, 0.3, 60.0, "fedavg", False, Limits()), Fleet(grid), Status()
    )
    for number in (1, 2):
        grid.states[number] = stores.make(f"rpi-{number}", spec, seed=number)
        assert run.run() is not None
    file = tmp_path / "server.toml"
    file.write_text(f'state = "{state}"\n')
    return file


def answered(content: bytes, rows: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (told,) = session.run(None, {"rows": rows})
    return np.asarray(told)


def test_a_version_says_the_same_in_onnx(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "onnx"
    assert main(["models", "export", "2", "--onnx", str(out), "--config", str(config)]) == 0
    names = {"remaining_life.ridge.onnx", "remaining_life.sklearn.onnx", "score.onnx"}
    assert {path.name for path in out.iterdir()} == names
    said = capsys.readouterr().out
    assert all(name in said for name in names)
    release = load_model(tmp_path / "server" / "registry" / "pump" / "v0002.npz")
    X = np.random.default_rng(3).normal(size=(200, 4)) * [3, 1, 8, 100]
    for model in ("ridge", "sklearn"):
        told = answered((out / f"remaining_life.{model}.onnx").read_bytes(), X)
        assert np.abs(told - release.predict(X, model)).max() < 1e-5
        assert np.ptp(told) > 1.0
    told = answered((out / "score.onnx").read_bytes(), X)
    np.testing.assert_allclose(told, release.score(X), rtol=1e-5)
    session = onnxruntime.InferenceSession((out / "score.onnx").read_bytes())
    about = session.get_modelmeta().custom_metadata_map
    assert about["digest"] == release.digest
    assert msgspec.json.decode(about["columns"]) == list(
        FeatureSpec.of(release.manifest.asset_class).names
    )


def released(spec: AssetClass, arrays: dict[str, Any]) -> Release:
    manifest = Manifest(1, spec, 1, 0, 1, ("rpi-1",), "", {})
    return Release(manifest, arrays)


@pytest.mark.parametrize(
    "family",
    [Moments(), Chart(), Chart(power=2), Chart(power=4), Extremes(), Clusters()],
    ids=lambda one: f"{type(one).__name__}{getattr(one, 'power', '')}",
)
def test_each_family_of_health_that_is_a_function_says_the_same_in_onnx(family: Health) -> None:
    rng = np.random.default_rng(5)
    healthy = shown(family, rng.normal(size=(600, 4)))
    state = nothing(family, 4)
    for begin in range(0, len(healthy), 50):
        state = state.learn(healthy[begin : begin + 50])
    spec = AssetClass("pump", CHANNELS, stats=("mean_8", "std_8"), health=family)
    release = released(spec, state.solve().arrays("health/model/"))
    files, problems = onnx_export.export(release)
    assert not problems
    Z = rng.normal(size=(300, 4)) * rng.choice([0.1, 1.0, 30.0], size=(300, 1))
    Z[0] = 0.0
    np.testing.assert_allclose(
        answered(files["score.onnx"], Z), release.score(Z), rtol=1e-5, atol=1e-9
    )


@pytest.mark.parametrize(
    "make",
    [
        NaiveBayes,
        lambda kinds: Linear(kinds, random=0),
        lambda kinds: Linear(kinds, random=30),
    ],
)
def test_kinds_of_faults_say_the_same_in_onnx(make: Callable[..., Faults]) -> None:
    rng = np.random.default_rng(7)
    faults = make(("bearing", "unbalance"))
    learner = KindsLearner(faults, 4)
    for _ in range(40):
        which = int(rng.integers(2))
        centre = np.array([6.0, 0, 0, 1]) if which else np.array([0, 5.0, -3, 0])
        learner.learn(rng.normal(size=(1, 4)) + centre, ("bearing", "unbalance")[which])
    spec = AssetClass("pump", CHANNELS, stats=("mean_8", "std_8"), faults=faults)
    release = released(spec, learner.state.solve().arrays("faults/model/"))
    files, problems = onnx_export.export(release)
    assert not problems
    Z = rng.normal(size=(100, 4)) * 5
    told = answered(files["kinds.onnx"], Z)
    assert np.abs(told - release.diagnose(Z)).max() < 1e-5


def test_a_model_that_is_no_graph_is_named() -> None:
    family = HalfSpace()
    rng = np.random.default_rng(5)
    state = nothing(family, 4).learn(shown(family, rng.normal(size=(600, 4))))
    spec = AssetClass("pump", CHANNELS, stats=("mean_8", "std_8"), rul=(Ridge(),), health=family)
    files, problems = onnx_export.export(released(spec, state.solve().arrays("health/model/")))
    assert not files
    assert "is no graph" in problems["score"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what MLflow itself is built on
def test_versions_stand_in_an_mlflow_registry_with_their_lineage(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # artifacts of a local registry lie beside where it was made
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    for version in ("1", "2", "2"):
        arguments = ["models", "export", version, "--mlflow", uri, "--config", str(config)]
        assert main(arguments) == 0
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    found = client.search_model_versions("name = 'pump'")
    assert sorted(int(one.version) for one in found) == [1, 2]  # and not a third
    release = Registry(tmp_path / "server", "pump").get(2)
    live = client.get_model_version_by_alias("pump", "handed_out")
    assert live.tags["digest"] == release.digest
    assert live.tags["parent"] == "1"
    run = client.get_run(live.run_id)
    assert run.data.metrics["rmse/ridge"] == release.manifest.metrics["rmse/ridge"]
    folder = client.download_artifacts(live.run_id, "release", str(tmp_path))
    assert load_model(Path(folder) / "v0002.npz").digest == release.digest


def test_where_to_must_be_said(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "export", "1", "--config", str(config)]) == 2
    assert "--onnx FOLDER or --mlflow URI" in capsys.readouterr().err
