"""Models over REST: a real server on loopback, on a registry that was trained."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from sqlalchemy import insert

from agent.models.kinds import KindsLearner
from contract import load_model
from contract.errors import ConfigError
from contract.model_spec import NaiveBayes
from contract.release import Manifest, Release
from server.config import ServerConfig, load
from server.guard import Limits
from server.registry import Registry
from server.rounds import Fleet
from server.scores import open_engine, scores
from server.service_command import token_of
from server.status import Status
from server.training import Settings, Training


def trained(state: Path, grid: Any, stores: Any) -> Release:
    """Train twice; return the version that is handed out."""
    state.mkdir()
    spec = stores.pump(stores.ridge, stores.network)
    run = Training(
        Settings(state, "", 1, 1, 0.3, 60.0, "fedavg", False, Limits()), Fleet(grid), Status()
    )
    for number in (1, 2):
        grid.states[number] = stores.make(f"rpi-{number}", spec, seed=number)
        assert run.run() is not None
    release = Registry(state, "pump").current()
    assert release is not None
    return release


@pytest.fixture
def state(tmp_path: Path, grid: Any, stores: Any) -> Path:
    trained(tmp_path / "server", grid, stores)
    return tmp_path / "server"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Running:
    """``runout-server service`` on a state, and a client that speaks to it."""

    def __init__(self, folder: Path, state: Path, settings: str = "") -> None:
        port = free_port()
        config = folder / f"server-{port}.toml"
        config.write_text(
            f'state = "{state}"\n[service]\nlisten = "127.0.0.1:{port}"\n{settings}',
            encoding="utf-8",
        )
        program = str(Path(sys.executable).with_name("runout-server"))
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            [program, "service", "--config", str(config)], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline()
        # Tries again while it is not listening yet.
        self.client = httpx.Client(transport=httpx.HTTPTransport(retries=8), base_url=self.url)

    def end(self) -> None:
        self.client.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., httpx.Client]]:
    """Return what starts a service on a state and returns a client."""
    started: list[Running] = []

    def start(state: Path, settings: str = "") -> httpx.Client:
        started.append(Running(tmp_path, state, settings))
        return started[-1].client

    yield start
    for one in started:
        one.end()


def test_what_the_service_answers_is_what_the_release_says(
    state: Path, run: Callable[..., httpx.Client]
) -> None:
    release = Registry(state, "pump").get(2)
    asks = run(state)
    (known,) = asks.get("/v1/classes").json()
    assert known["features"] == [
        "vibration.mean_8",
        "temperature.mean_8",
        "vibration.std_8",
        "temperature.std_8",
    ]
    assert known["version"] == 2
    rows = np.random.default_rng(1).normal(size=(5, 4))
    told = asks.post("/v1/classes/pump/predict", json={"rows": rows.tolist()}).json()
    assert told["remaining_life"] == release.predict(rows).tolist()
    assert (told["version"], told["digest"], told["unit"]) == (2, release.digest, "h")
    other = asks.post(
        "/v1/classes/pump/predict", json={"rows": rows.tolist(), "version": 1, "model": "sklearn"}
    ).json()
    assert other["version"] == 1
    assert (
        other["remaining_life"] == Registry(state, "pump").get(1).predict(rows, "sklearn").tolist()
    )
    scored = asks.post("/v1/classes/pump/score", json={"rows": rows[:1].tolist()}).json()
    assert scored["scores"] == release.score(rows[:1]).tolist()


def test_versions_are_listed_and_sent_as_they_are(
    state: Path, tmp_path: Path, run: Callable[..., httpx.Client]
) -> None:
    asks = run(state)
    one, two = asks.get("/v1/classes/pump/versions").json()
    assert (one["version"], one["handed_out"], two["handed_out"]) == (1, False, True)
    assert two["contributors"] == ["rpi-1", "rpi-2"]
    got = asks.get("/v1/classes/pump/versions/2/release")
    file = tmp_path / "release.npz"
    file.write_bytes(got.content)
    release = load_model(file)
    assert release.digest == Registry(state, "pump").get(2).digest
    assert release.signature


def test_a_version_that_is_handed_out_while_the_service_runs_answers_at_once(
    state: Path, run: Callable[..., httpx.Client]
) -> None:
    asks = run(state)
    body = {"rows": [[0.0] * 4]}
    assert asks.post("/v1/classes/pump/predict", json=body).json()["version"] == 2
    Registry(state, "pump").restore(1, 1.0)
    assert asks.post("/v1/classes/pump/predict", json=body).json()["version"] == 3


def test_kinds_of_faults_are_told(
    tmp_path: Path, stores: Any, run: Callable[..., httpx.Client]
) -> None:
    spec = msgspec.structs.replace(stores.pump(), faults=NaiveBayes(("bearing", "fouling")))
    learner = KindsLearner(spec.faults, 4)
    noise = np.random.default_rng(1).normal(size=(9, 4))
    learner.learn(noise + np.array([9.0, 0.0, 0.0, 0.0]), "bearing")
    learner.learn(noise + np.array([0.0, 0.0, 9.0, 0.0]), "fouling")

    manifest = Manifest(1, spec, 1, 0, 0, ("a",), "", {})
    Registry(tmp_path, "pump").register(
        Release(manifest, learner.state.solve().arrays("faults/model/"))
    )
    asks = run(tmp_path)
    told = asks.post("/v1/classes/pump/diagnose", json={"rows": [[0.0, 0.0, 8.0, 0.0]]}).json()
    assert told["kinds"] == ["bearing", "fouling"]
    assert told["shares"][0][1] > 0.95
    assert asks.post("/v1/classes/pump/score", json={"rows": [[0.0] * 4]}).status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "code", "words"),
    [
        ("fan/predict", {"rows": [[0.0]]}, 404, "no asset class 'fan'"),
        ("pump/predict", {"rows": [[0.0, 1.0]]}, 409, "row 0 has 2 numbers, not 4"),
        ("pump/predict", {"rows": [[0.0] * 4] * 11}, 413, "11 rows; 10 at most"),
        ("pump/predict", {"rows": [[0.0] * 4], "version": 9}, 404, "no version 9"),
        ("pump/predict", {"rows": []}, 422, "body.rows"),
        ("pump/predict", {"rows": [["x"]]}, 422, "valid number"),
        ("pump/predict", {"rows": [[0.0] * 4], "more": 1}, 422, "body.more"),
        ("pump/diagnose", {"rows": [[0.0] * 4]}, 404, "no model of kinds of faults"),
    ],
)
def test_what_cannot_be_answered_is_said_in_words(
    state: Path,
    run: Callable[..., httpx.Client],
    path: str,
    body: dict[str, Any],
    code: int,
    words: str,
) -> None:
    asks = run(state, "most_rows = 10\n")
    answer = asks.post(f"/v1/classes/{path}", json=body)
    assert answer.status_code == code
    assert words in answer.json()["detail"]


def test_what_is_no_number_and_what_is_too_large_are_refused(
    state: Path, run: Callable[..., httpx.Client]
) -> None:
    asks = run(state, "most_bytes = 2000\n")
    headers = {"content-type": "application/json"}
    path = "/v1/classes/pump/predict"
    wrong = asks.post(path, content=b'{"rows": [[NaN, 0, 0, 0]]}', headers=headers)
    assert wrong.status_code == 422
    assert "finite" in wrong.json()["detail"]
    large = json.dumps({"rows": [[0.0] * 4] * 1000}).encode()
    assert asks.post(path, content=large, headers=headers).status_code == 413
    # In pieces, without a length beforehand.
    pieces = (large[i : i + 100] for i in range(0, len(large), 100))
    assert asks.post(path, content=pieces, headers=headers).status_code == 413


def test_a_token_is_asked_for(
    state: Path, tmp_path: Path, run: Callable[..., httpx.Client]
) -> None:
    file = tmp_path / "token"
    file.write_text("secret\n", encoding="utf-8")
    asks = run(state, f'token_file = "{file}"\n')
    assert asks.get("/v1/classes").status_code == 401
    wrong = asks.get("/v1/classes", headers={"Authorization": "Bearer other"})
    assert wrong.status_code == 401
    right = asks.get("/v1/classes", headers={"Authorization": "Bearer secret"})
    assert right.status_code == 200
    with pytest.raises(ConfigError, match="cannot be read"):
        token_of(str(tmp_path / "none"))
    file.write_text("\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="is empty"):
        token_of(str(file))
    config = tmp_path / "server.toml"
    config.write_text('[service]\nlisten = "0.0.0.0:8790"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"beyond loopback: give \[tls\]"):
        load(config)


def test_the_service_does_what_its_description_says(
    state: Path, run: Callable[..., httpx.Client]
) -> None:
    """Generated requests, right and wrong: no 500, no answer that the description does not know."""
    row = {"asset_class": "pump", "version": 2, "state": "healthy", "model": "ridge"}
    engine = open_engine(ServerConfig(state=str(state)))
    with engine.begin() as db:
        db.execute(insert(scores).values(file="a.csv", asset="0", t=1.0, digest="0" * 64, **row))
    engine.dispose()
    url = str(run(state).base_url).rstrip("/")
    run_of = subprocess.run(
        [
            str(Path(sys.executable).with_name("schemathesis")),
            *("run", f"{url}/openapi.json", "--seed", "1", "--max-examples", "25"),
            *("--wait-for-schema", "10", "--generation-database", "none", "--no-color"),
        ],
        capture_output=True,
        text=True,
        timeout=200,
        cwd=state,
        check=False,
    )
    assert run_of.returncode == 0, run_of.stdout[-6000:]
    described = httpx.get(f"{url}/openapi.json", timeout=60).json()["paths"]
    assert {"/v1/scores", "/v1/scores/assets"} <= described.keys()


def test_the_command_serves_until_it_is_told_to_end(state: Path, tmp_path: Path) -> None:
    running = Running(tmp_path, state)
    try:
        assert f"{running.url}/openapi.json" in running.said
        assert running.client.get("/v1/health").json() == {"status": "ok"}
        assert running.client.get("/docs").status_code == 404
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(20) in {0, 130}
    finally:
        running.end()
