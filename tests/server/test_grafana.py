"""The dashboards of server and federation: each question is asked of a real Prometheus."""

import json
import os
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from server.status import Status
from tests.agent.conftest import Broker, Plant, broker, free_port, stopped_broker, wait_until
from tests.server.fleet import FleetProcess, Said, health
from tests.server.test_models_command import Server

__all__ = ["broker", "stopped_broker"]

ROOT = Path(__file__).parents[2]
BOARDS = ROOT / "deploy" / "grafana"
OF_SERVER = ("runout-fleet", "runout-federation")
VARIABLES = {"$instance": ".*", "$asset_class": ".*", "$__rate_interval": "1m"}


def board(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((BOARDS / f"{name}.json").read_text(encoding="utf-8"))
    return found


class Prometheus:
    """A real one, that asks a page every half second.

    Args:
        folder: to be made.
        target: host and port.
    """

    def __init__(self, folder: Path, target: str) -> None:
        program = shutil.which("prometheus")
        if program is None:
            if os.environ.get("CI"):
                pytest.fail("prometheus is not on PATH, and CI must run these tests")
            pytest.skip("prometheus is not on PATH")
        folder.mkdir()
        config = {
            "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms"},
            "scrape_configs": [
                {"job_name": "runout-server", "static_configs": [{"targets": [target]}]}
            ],
        }
        path = folder / "prometheus.yml"
        path.write_text(json.dumps(config))  # which is YAML too
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        self._log = (folder / "log").open("wb")
        self._process = subprocess.Popen(
            [
                program,
                f"--config.file={path}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def ask(self, expr: str) -> list[dict[str, Any]]:
        """Return what it finds."""
        address = f"{self.url}/api/v1/query?{urlencode({'query': expr})}"
        with urllib.request.urlopen(address, timeout=60) as answer:  # noqa: S310
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return found

    def is_up(self) -> bool:
        assert self._process.poll() is None, Path(self._log.name).read_text()
        try:
            up = self.ask("count_over_time(runout_server_healthy[1m]) >= 3")
        except OSError:
            return False
        return bool(up)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(60)
        self._log.close()


@pytest.fixture
def prometheus(
    tmp_path: Path, grid: Any, stores: Any, broker: Broker
) -> Iterator[Callable[[str], list[dict[str, Any]]]]:
    """Return how a Prometheus is asked, that watches a server which trained and hears machines."""
    trained = Server(tmp_path, grid, stores)
    trained.join(1)
    trained.join(2)
    grid.states[3] = tmp_path / "nowhere"  # whose updates cannot be used
    trained.train()
    status().write(tmp_path / "server", time.time())
    process = FleetProcess(tmp_path, broker.port).start()
    process.wait_for("connected to the broker")
    plant = Plant(broker.port)
    said = Said(plant)
    said.status("rpi-1", readings=7)
    said.health("rpi-1", health("pump-1", state="failing"), health("pump-2"))
    said.settle()
    watching = Prometheus(tmp_path / "prometheus", process.url.partition("//")[2].rstrip("/"))
    wait_until(watching.is_up)
    yield watching.ask
    watching.close()
    process.close()
    plant.close()


def status() -> Status:
    """Return how a training says that it is."""
    made = Status()
    made.online, made.training = 2, 1
    made.seconds = {"statistics": 1.5, "fit": 3.0}
    made.bytes_up, made.bytes_down = {"rpi-1": 1000}, {"rpi-1": 5000}
    return made


def test_a_real_prometheus_answers_each_question_of_the_dashboards(
    prometheus: Callable[[str], list[dict[str, Any]]],
) -> None:
    asked = 0
    for name in OF_SERVER:
        for panel in board(name)["panels"]:
            for target in panel.get("targets", ()):
                expr = target["expr"]
                for variable, value in VARIABLES.items():
                    expr = expr.replace(variable, value)
                found = prometheus(expr)
                assert found, f"{name}: {panel['title']}: {expr}"
                for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
                    assert all(label in one["metric"] for one in found), (panel["title"], label)
                asked += 1
    assert asked > 30
    wait_until(lambda: bool(prometheus('runout_fleet_machines{state="failing"} == 1')))
    for name in OF_SERVER:
        for variable in board(name)["templating"]["list"]:
            if variable["type"] == "query":
                expr, label = re.fullmatch(
                    r"label_values\((.+), (\w+)\)", variable["definition"]
                ).groups()  # type: ignore[union-attr]
                found = prometheus(expr.replace("$instance", ".*"))
                assert found
                assert all(one["metric"][label] for one in found)


@pytest.mark.parametrize("name", ["runout-agent", *OF_SERVER])
def test_a_dashboard_is_built_as_grafana_reads_it(name: str) -> None:
    """As Grafana's documentation of the JSON model has it; the schema itself is not at hand."""
    found = board(name)
    assert found["uid"] == name
    assert found["schemaVersion"] >= 39
    variables = {one["name"] for one in found["templating"]["list"]}
    source = {"type": "prometheus", "uid": "${datasource}"}
    idents = [panel["id"] for panel in found["panels"]]
    assert len(set(idents)) == len(idents)
    for panel in found["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        if panel["type"] == "row":
            continue
        assert panel["datasource"] == source
        assert {"defaults", "overrides"} <= panel["fieldConfig"].keys()
        references = [target["refId"] for target in panel["targets"]]
        assert references
        assert len(set(references)) == len(references)
        for target in panel["targets"]:
            assert target["datasource"] == source
            used = set(re.findall(r"\$(\w+)", target["expr"])) - {"__rate_interval"}
            assert used <= variables, (panel["title"], used)

    def overlap(a: dict[str, int], b: dict[str, int]) -> bool:
        return (
            a["x"] < b["x"] + b["w"]
            and b["x"] < a["x"] + a["w"]
            and a["y"] < b["y"] + b["h"]
            and b["y"] < a["y"] + a["h"]
        )

    for one, other in combinations(found["panels"], 2):
        assert not overlap(one["gridPos"], other["gridPos"]), (one["title"], other["title"])


def test_the_dashboards_show_every_metric_of_the_server() -> None:
    text = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    known = set(re.findall(r"`(runout_(?:server|fleet|federation)_\w+)`", text))
    shown = {
        metric
        for name in OF_SERVER
        for metric in re.findall(r"\brunout_\w+", (BOARDS / f"{name}.json").read_text())
    }
    assert len(known) > 25
    assert known == shown
