"""Telemetry scored ahead: the agents' own pipeline, a real table, a real service."""

import csv
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from sqlalchemy import Engine, func, select

from contract.errors import ConfigError
from contract.release import Release
from contract.spec import AssetClass
from server.config import ServerConfig, load
from server.guard import Limits
from server.registry import Registry
from server.rounds import Fleet
from server.scores import open_engine, run_once, scored, scores
from server.status import Status
from server.training import Settings, Training
from tests.agent.conftest import Reading
from tests.server.postgres import postgres
from tests.server.test_service import free_port

__all__ = ["postgres"]

AGENT = """\
[node]
name = "batch"

[[asset_class]]
name = "pump"
stats = ["mean_8", "std_8"]
cap_h = 60.0
holdout = 3
channels = [{name = "vibration", unit = "mm/s"}, {name = "temperature", unit = "degC"}]
[asset_class.health]
kind = "moments"
baseline = 16
[[asset_class.rul]]
kind = "ridge"
random = 40
penalty = 1e-3

[assets]
"pump-*" = "pump"
"""


def telemetry(path: Path, asset: str, hours: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    wear = np.linspace(0, 1, hours) ** 3
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["t", "asset", "vibration [mm/s]", "temperature [degC]"])
        for hour in range(hours):
            values = rng.normal(size=2) * 0.1 + wear[hour] * np.array([1.0, 2.0])
            table.writerow([1_700_000_000 + 3600 * hour, asset, *values.round(4)])


class Plant:
    """A server that has released versions, and a folder of telemetry."""

    def __init__(self, folder: Path, grid: Any, stores: Any) -> None:
        self.folder = folder
        (folder / "telemetry").mkdir()
        self.agent = folder / "agent.toml"
        self.agent.write_text(AGENT)
        from agent.config import load as load_agent

        self.spec: AssetClass = load_agent(self.agent).asset_class[0]
        self.state = folder / "server"
        self.state.mkdir()
        self.grid, self.stores = grid, stores
        self.training = Training(
            Settings(self.state, "", 1, 1, 0.3, 60.0, "fedavg", False, Limits()),
            Fleet(grid),
            Status(),
        )
        self.release()
        file = folder / "server.toml"
        file.write_text(
            f'state = "{self.state}"\n[service]\nlisten = "127.0.0.1:{free_port()}"\n'
            f'[scores]\nagent = "{self.agent}"\nfiles = ["{folder}/telemetry/*.csv"]\n'
        )
        self.file = file
        self.config: ServerConfig = load(file)
        self.said: list[str] = []

    def release(self) -> None:
        number = len(self.grid.states) + 1
        self.grid.states[number] = self.stores.make(f"rpi-{number}", self.spec, seed=number)
        assert self.training.run() is not None

    def twin(self) -> None:
        """Add fans that are as the pumps are, with a version of their own of the same number."""
        from agent.config import load as load_agent

        pump = AGENT[AGENT.index("[[asset_class]]") : AGENT.index("[assets]")]
        both = f'{pump.replace("pump", "fan")}[assets]\n"fan-*" = "fan"'
        self.agent.write_text(AGENT.replace("[assets]", both))
        fan = load_agent(self.agent).asset_class[1]
        release = Registry(self.state, "pump").get(1)
        manifest = msgspec.structs.replace(release.manifest, asset_class=fan)
        Registry(self.state, "fan").register(Release(manifest, release.arrays))

    def run(self, engine: Engine) -> Any:
        return run_once(self.config, engine, self.said.append)


@pytest.fixture
def plant(tmp_path: Path, grid: Any, stores: Any) -> Plant:
    return Plant(tmp_path, grid, stores)


@pytest.fixture
def engine(plant: Plant) -> Iterator[Engine]:
    opened = open_engine(plant.config)
    yield opened
    opened.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, plant: Plant) -> Iterator[Engine]:
    """Return the table where it is kept by default, and on PostgreSQL."""
    if request.param == "postgresql":
        url = str(request.getfixturevalue("postgres"))
        own = msgspec.structs.replace(plant.config.scores, database=url)
        plant.config = msgspec.structs.replace(plant.config, scores=own)
    opened = open_engine(plant.config)
    yield opened
    opened.dispose()


def count(engine: Engine, **where: Any) -> int:
    asked = select(func.count()).select_from(scores)
    for name, value in where.items():
        asked = asked.where(scores.c[name] == value)
    with engine.connect() as db:
        return int(db.execute(asked).scalar_one())


def test_each_file_is_scored_once_by_each_version(plant: Plant, database: Engine) -> None:
    engine = database
    telemetry(plant.folder / "telemetry" / "a.csv", "pump-1", 80, seed=11)
    telemetry(plant.folder / "telemetry" / "b.csv", "pump-2", 70, seed=12)
    first = plant.run(engine)
    assert (first.files, first.known, first.failed) == (2, 0, {})
    assert first.rows == count(engine) > 100
    with engine.connect() as db:
        last = db.execute(
            select(scores).where(scores.c.asset == "pump-1").order_by(scores.c.t.desc())
        ).first()
    assert last is not None
    assert (last.version, last.model) == (1, "ridge")
    assert last.remaining_life_h < 50 < plant.spec.cap_h
    assert last.score > 1
    again = plant.run(engine)
    assert (again.files, again.known) == (0, 2)
    # What grew is scored anew, and stands there once.
    telemetry(plant.folder / "telemetry" / "a.csv", "pump-1", 90, seed=11)
    grown = plant.run(engine)
    assert (grown.files, grown.known) == (1, 1)
    assert count(engine) == first.rows + 10
    plant.release()
    newer = plant.run(engine)
    assert newer.files == 2
    assert count(engine, version=2) == count(engine, version=1) == newer.rows


def test_versions_of_two_classes_with_one_number_are_told_apart(
    plant: Plant, engine: Engine
) -> None:
    plant.twin()
    telemetry(plant.folder / "telemetry" / "a.csv", "pump-1", 60, seed=11)
    telemetry(plant.folder / "telemetry" / "b.csv", "fan-1", 60, seed=12)
    done = plant.run(engine)
    assert (done.files, done.failed) == (2, {})
    for name in ("pump", "fan"):
        release = Registry(plant.state, name).get(1)
        here = {"asset": f"{name}-1", "asset_class": name, "digest": release.digest}
        assert count(engine, **here) == count(engine, asset=f"{name}-1") > 30
    # A newer version of one class leaves the other's rows as they are.
    plant.release()
    newer = plant.run(engine)
    assert newer.files == 2
    assert count(engine, version=2) == count(engine, version=2, asset="pump-1") > 30
    assert count(engine, asset="fan-1") == count(engine, asset="fan-1", version=1)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_what_was_ended_amid_its_files_goes_on_and_doubles_nothing(
    plant: Plant, engine: Engine, number: signal.Signals
) -> None:
    for i in range(3):
        telemetry(plant.folder / "telemetry" / f"{i}.csv", f"pump-{i}", 60, seed=i)
    program = str(Path(sys.executable).with_name("runout-server"))
    process = subprocess.Popen(
        [program, "score", "--config", str(plant.file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    reading = Reading(process)
    try:
        reading.wait_for("0.csv")
        process.send_signal(number)
        ended = process.wait(timeout=120)
    finally:
        process.kill()
        process.wait()
        reading.close()
    assert ended == (0 if number == signal.SIGTERM else -number)
    assert "1 could not be" not in reading.text  # what a signal ended is no failure
    done = plant.run(engine)
    assert done.failed == {}
    assert done.known >= 1
    assert done.files + done.known == 3
    with engine.connect() as db:
        rows = db.execute(select(scores.c.asset, func.count()).group_by(scores.c.asset)).all()
    assert [row[0] for row in sorted(rows)] == ["pump-0", "pump-1", "pump-2"]
    assert len({row[1] for row in rows}) == 1
    assert count(engine) == sum(row.rows for row in all_scored(engine))


def all_scored(engine: Engine) -> Any:
    with engine.connect() as db:
        return db.execute(select(scored)).all()


def test_a_file_that_cannot_be_read_is_named_and_the_others_go_on(
    plant: Plant, engine: Engine
) -> None:
    telemetry(plant.folder / "telemetry" / "a.csv", "pump-1", 60, seed=11)
    (plant.folder / "telemetry" / "b.csv").write_text("t,asset,vibration\n1,pump-2,0.1\n")
    done = plant.run(engine)
    assert done.files == 1
    (problem,) = done.failed.values()
    assert "temperature" in problem
    with engine.connect() as db:
        assert db.execute(select(func.count()).select_from(scored)).scalar() == 1


def test_the_command_says_what_it_did_and_rest_tells_it_by_the_page(plant: Plant) -> None:
    telemetry(plant.folder / "telemetry" / "a.csv", "pump-1", 60, seed=11)
    program = str(Path(sys.executable).with_name("runout-server"))
    done = subprocess.run(
        [program, "score", "--once", "--config", str(plant.file)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "rows of 1 files; 0 were scored before, 0 could not be" in done.stdout
    process = subprocess.Popen(
        [program, "service", "--config", str(plant.file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    reading = Reading(process)
    try:
        reading.wait_for("models over REST")
        base = f"http://{plant.config.service.listen}/v1/scores"
        with httpx.Client(
            timeout=60, transport=httpx.HTTPTransport(retries=8), trust_env=False
        ) as client:
            assert client.get(f"{base}/assets").json() == [
                {"asset": "pump-1", "asset_class": "pump"}
            ]
            rows: list[dict[str, Any]] = []
            after = ""
            pages = 0
            while after is not None:
                params = {"asset": "pump-1", "limit": 20, "after": after}
                page = client.get(base, params=params).raise_for_status().json()
                rows += page["rows"]
                after = page["next"]
                pages += 1
            assert pages == -(-len(rows) // 20) > 1
            times = [row["t"] for row in rows]
            assert times == sorted(set(times))
            assert {row["version"] for row in rows} == {1}
            some = client.get(base, params={"asset": "pump-1", "from_s": times[-3]}).json()
            assert [row["t"] for row in some["rows"]] == times[-3:]
            assert client.get(base, params={"asset": "pump-9"}).json()["rows"] == []
            described = client.get(f"http://{plant.config.service.listen}/openapi.json").json()
            assert "/v1/scores" in json.dumps(described["paths"])
    finally:
        process.terminate()
        process.wait(timeout=60)
        reading.close()


def test_what_is_not_configured_or_not_there_is_said(
    plant: Plant, engine: Engine, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="no file is called"):
        plant.run(engine)
    bare = tmp_path / "bare.toml"
    bare.write_text(f'state = "{plant.state}"\n')
    with pytest.raises(ConfigError, match=r"there is no \[scores\]"):
        run_once(load(bare), engine, print)
    bare.write_text('[scores]\nagent = "nowhere.toml"\nfiles = ["*.csv"]\n')
    with pytest.raises(ConfigError, match=r"scores\.agent: there is no file"):
        load(bare)
