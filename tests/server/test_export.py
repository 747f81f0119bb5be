"""Versions for other runtimes: ONNX held against onnxruntime, and a real MLflow registry."""

from pathlib import Path
from typing import Any, get_args

import msgspec
import numpy as np
import onnxruntime
import pytest
from mlflow import MlflowClient

from agent.models.healthy import nothing
from agent.models.kinds import KindsLearner
from contract import load_model
from contract.features import FeatureSpec
from contract.model_spec import (
    Chart,
    Classifier,
    Clusters,
    Extremes,
    Faults,
    HalfSpace,
    Health,
    Lagged,
    Linear,
    Moments,
    NaiveBayes,
    Network,
)
from contract.models.healthy import shown
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


def saved(spec: AssetClass, arrays: dict[str, Any], folder: Path) -> Release:
    """Return a release as it is read back from its file."""
    manifest = Manifest(1, spec, 1, 0, 1, ("rpi-1",), "", {})
    Release(manifest, arrays).save(folder / "v0001.npz")
    return load_model(folder / "v0001.npz")


HEALTH: list[Health] = [
    Moments(),
    Chart(),
    Chart(power=2),
    Chart(power=4),
    Extremes(),
    Clusters(),
    HalfSpace(),
    HalfSpace(trees=60, depth=10, seed=3),
    Network(),
    Network(hidden=(6, 3, 6)),
    Network(estimator="SGDOneClassSVM", alpha=0.1),
    Lagged(),
    Lagged(lags=4, weights=(0.3,)),
]
KINDS = ("bearing", "unbalance", "fouling")
FAULTS: list[Faults] = [
    NaiveBayes(KINDS),
    Linear(KINDS),
    Linear(KINDS, random=30),
    Classifier(KINDS, estimator="SGDClassifier"),
    Classifier(KINDS, estimator="MLPClassifier", hidden=(8, 4)),
]


def named(spec: Health | Faults) -> str:
    plain = type(spec)() if isinstance(spec, Health) else type(spec)(KINDS)
    told = {n: getattr(spec, n) for n in spec.__struct_fields__}
    changed = [f"{n}={v}" for n, v in told.items() if v != getattr(plain, n)]
    return " ".join([type(spec).__name__, *changed])


def test_no_family_is_left_out_here() -> None:
    assert {type(one) for one in HEALTH} == set(get_args(Health))
    assert {type(one) for one in FAULTS} == set(get_args(Faults))


@pytest.mark.parametrize("family", HEALTH, ids=named)
def test_each_family_of_health_says_the_same_in_onnx(family: Health, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    mixing = rng.normal(size=(4, 4))
    healthy = shown(family, rng.normal(size=(600, 4)) @ mixing)
    state = nothing(family, 4)
    for begin in range(0, len(healthy), 150):
        state = state.learn(healthy[begin : begin + 150])
    spec = AssetClass("pump", CHANNELS, stats=("mean_8", "std_8"), health=family)
    release = saved(spec, state.solve().arrays("health/model/"), tmp_path)
    files = onnx_export.export(release)
    Z = rng.normal(size=(300, 4)) @ mixing * rng.choice([0.1, 1.0, 30.0], size=(300, 1))
    Z[0] = 0.0
    told = answered(files["score.onnx"], Z)
    np.testing.assert_allclose(told, release.score(Z), rtol=1e-5, atol=1e-9)
    assert len(np.unique(told.round(6))) > 20
    # A single row, too.
    one = answered(files["score.onnx"], Z[-1:])
    np.testing.assert_allclose(one, release.score(Z[-1:]), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("faults", FAULTS, ids=named)
def test_kinds_of_faults_say_the_same_in_onnx(faults: Faults, tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    centres = np.array([[6.0, 0, 0, 1], [0, 5.0, -3, 0], [-4.0, 0, 2, 3]])
    learner = KindsLearner(faults, 4)
    for number in range(6):
        kind = number % 3
        learner.learn(rng.normal(size=(16, 4)) + centres[kind], KINDS[kind])
    spec = AssetClass("pump", CHANNELS, stats=("mean_8", "std_8"), faults=faults)
    release = saved(spec, learner.state.solve().arrays("faults/model/"), tmp_path)
    Z = rng.normal(size=(100, 4)) * 5
    told = answered(onnx_export.export(release)["kinds.onnx"], Z)
    assert np.abs(told - release.diagnose(Z)).max() < 1e-5
    assert len(set(told.argmax(axis=1))) == 3


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
