"""The server's metrics: on a real table and registry, read by Prometheus' own tool."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from contract import topics
from contract.report import NodeStatus
from server.fleet.config import FleetConfig
from server.fleet.federation import Federation
from server.fleet.metrics import exposition
from server.fleet.query import Query
from server.fleet.reports import read
from server.fleet.store import Store, open_engine
from server.guard import Limits
from server.rounds import Fleet
from server.status import Status
from server.training import Settings, Training
from tests.server import fleet as said

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus"


def promtool(*words: str, given: bytes | None = None) -> None:
    program = shutil.which("promtool")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("promtool is not on PATH, and CI must run these tests")
        pytest.skip("promtool is not on PATH")
    done = subprocess.run([program, *words], input=given, capture_output=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()


@pytest.fixture
def page(tmp_path: Path, grid: Any, stores: Any) -> bytes:
    """Return the metrics of a server that has trained once and heard two machines."""
    for number in (1, 2):
        grid.states[number] = stores.make(f"rpi-{number}", stores.pump(), seed=number)
    grid.states[3] = tmp_path / "nowhere"
    run = Training(
        Settings(tmp_path, "", 1, 1, 0.3, 60.0, "fedavg", False, Limits()), Fleet(grid), Status()
    )
    assert run.run() is not None
    engine = open_engine(f"sqlite:///{tmp_path / 'fleet.db'}")
    store = Store(engine, FleetConfig())
    messages = [
        (topics.status_topic("s", "rpi-1"), NodeStatus("rpi-1", online=True, readings=7)),
        (topics.asset_topic("s", "rpi-1", "p-1", "health"), said.health("p-1", state="failing")),
        (topics.asset_topic("s", "rpi-1", "p-2", "health"), said.health("p-2")),
    ]
    reports = [read(topic, msgspec.json.encode(body)) for topic, body in messages]
    store.write([one for one in reports if one is not None])
    try:
        return exposition(Query(engine, 3600.0), Federation(tmp_path), list, store.dropped)
    finally:
        engine.dispose()


def test_prometheus_finds_nothing_to_mend_and_the_numbers_are_those_of_the_fleet(
    page: bytes,
) -> None:
    promtool("check", "metrics", given=page)
    lines = page.decode().splitlines()
    for line in (
        'runout_fleet_machines{state="failing"} 1',
        'runout_fleet_machines{state="healthy"} 1',
        "runout_fleet_devices_online 1",
        "runout_fleet_readings 7",
        "runout_server_healthy 1",
        'runout_federation_release_version{asset_class="pump"} 1',
        'runout_federation_contributors{asset_class="pump"} 2',
        'runout_federation_updates_rejected_total{asset_class="pump",phase="statistics"} 1',
        'runout_federation_participants_accepted{asset_class="pump",phase="evaluate"} 2',
    ):
        assert line in lines, line
    errors = [line for line in lines if line.startswith("runout_federation_error_seconds{")]
    assert {line.partition('model="')[2].partition('"')[0] for line in errors} >= {"ridge", "local"}
    assert all(60 < float(line.split()[-1]) < 3600 * 60 for line in errors)


def test_each_metric_is_explained(page: bytes) -> None:
    text = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    names = {line.split()[2] for line in page.decode().splitlines() if line.startswith("# TYPE")}
    assert len(names) > 20
    assert {name for name in names if f"`{name}`" not in text} == set()


def test_prometheus_takes_the_rules_and_its_configuration() -> None:
    promtool("check", "rules", str(RULES / "runout-server-alerts.yml"))
    promtool("check", "config", "--syntax-only", str(RULES / "prometheus.yml"))


def test_the_rules_fire_when_they_should_and_not_before(tmp_path: Path) -> None:
    cases = tmp_path / "cases.yml"
    cases.write_text(
        f"""
rule_files: [{RULES / "runout-server-alerts.yml"}]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - series: runout_server_healthy
        values: '1x10 0x20'
      - series: runout_fleet_devices
        values: '3x40'
      - series: runout_fleet_devices_online
        values: '3x5 2x40'
    alert_rule_test:
      - eval_time: 12m
        alertname: RunoutServerNotWell
      - eval_time: 20m
        alertname: RunoutServerNotWell
        exp_alerts:
          - exp_labels: {{severity: critical}}
            exp_annotations:
              summary: "The fleet's server is not well, or not there"
              description: "Its page says why: no broker, or a table that cannot be written."
      - eval_time: 10m
        alertname: RunoutDevicesOffline
      - eval_time: 30m
        alertname: RunoutDevicesOffline
        exp_alerts:
          - exp_labels: {{severity: warning}}
            exp_annotations:
              summary: "2 devices are online, fewer than there are"
              description: "The page of devices lists those that are gone first."
  - interval: 1m
    input_series:
      - series: runout_federation_error_seconds{{asset_class="pump",model="ridge"}}
        values: '100x10080 130x300'
    alert_rule_test:
      - eval_time: 10080m
        alertname: RunoutReleaseWorse
      - eval_time: 10300m
        alertname: RunoutReleaseWorse
        exp_alerts:
          - exp_labels: {{severity: warning, asset_class: pump, model: ridge}}
            exp_annotations:
              summary: "pump errs by a quarter more than a week ago"
              description: "Machines wear otherwise than before, or a device tells something else."
""",
        encoding="utf-8",
    )
    promtool("test", "rules", str(cases))
