"""Devices chosen by their labels and told otherwise; the fleet's table, on PostgreSQL too."""

from pathlib import Path
from typing import Any

import msgspec
import paho.mqtt.subscribe as paho_subscribe
import pytest
from sqlalchemy import func, select

from contract import topics
from contract.report import NodeStatus
from contract.settings import Standing, opened
from server.cli import main
from server.fleet import tables
from server.fleet.config import FleetConfig
from server.fleet.query import Filter, Query
from server.fleet.reports import read
from server.fleet.store import Store, open_engine
from tests.agent.conftest import broker, stopped_broker
from tests.server import fleet as fleet_said
from tests.server.postgres import postgres

T = 1_800_000_000.0
__all__ = ["broker", "postgres", "stopped_broker"]


def heard(url: str, now: float = T) -> None:
    """Write what four devices say of themselves, and of a machine each."""
    engine = open_engine(url)
    store = Store(engine, FleetConfig(keep_days=30.0), lambda: now)
    messages = []
    for i, (area, line) in enumerate([("hall 1", "a"), ("hall 1", "b"), ("hall 2", "a"), ("", "")]):
        node, site = f"rpi-{i}", "north" if i < 3 else "south"
        config = msgspec.structs.replace(fleet_said.config(node), area=area, line=line)
        standing = Standing(7, "refused", "limits.intake: no") if i == 0 else Standing()
        status = NodeStatus(node, online=True, readings=10, settings=standing)
        report = fleet_said.health("pump-1", t=now)
        messages += [
            (topics.config_topic(site, node), msgspec.json.encode(config)),
            (topics.status_topic(site, node), msgspec.json.encode(status)),
            (topics.asset_topic(site, node, "pump-1", "health"), msgspec.json.encode(report)),
        ]
    store.write([said for topic, body in messages if (said := read(topic, body)) is not None])
    engine.dispose()


@pytest.fixture
def config(tmp_path: Path, broker: Any) -> Path:
    (tmp_path / "server").mkdir()
    heard(f"sqlite:///{tmp_path / 'server' / 'fleet.db'}")
    path = tmp_path / "server.toml"
    path.write_text(f'state = "{tmp_path / "server"}"\n[mqtt]\nport = {broker.port}\n')
    return path


def retained(broker: Any, site: str, node: str) -> dict[str, str]:
    message = paho_subscribe.simple(topics.settings_topic(site, node), port=broker.port)
    return opened(message.payload, "settings")[1].changes


def test_devices_are_chosen_by_labels_and_told(
    config: Path, broker: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--config", str(config)]
    assert main(["config", "push", "--area", "hall 1", "--set", "report.status_s=5", *words]) == 0
    said = capsys.readouterr().out
    assert "north/rpi-0: settings" in said
    assert "north/rpi-1" in said
    assert "rpi-2" not in said
    assert retained(broker, "north", "rpi-1") == {"report.status_s": "5"}
    # Over what was set before; without a value as the device's own file says.
    more = ["--set", "limits.intake=9000", "--set", "report.status_s="]
    assert main(["config", "push", "rpi-0", *more, *words]) == 0
    assert retained(broker, "north", "rpi-0") == {"limits.intake": "9000"}
    assert main(["config", "rollback", "rpi-0", *words]) == 0
    assert retained(broker, "north", "rpi-0") == {"report.status_s": "5"}
    assert main(["config", "rollback", "rpi-0", "--to", "0", *words]) == 0
    assert retained(broker, "north", "rpi-0") == {}
    capsys.readouterr()
    assert main(["config", "list", *words]) == 0
    listed = capsys.readouterr().out
    assert "refused: limits.intake: no" in listed
    assert "hall 2" in listed
    assert main(["config", "show", "rpi-0", *words]) == 0
    shown = capsys.readouterr().out
    assert shown.count("report.status_s = 5") == 2
    assert "nothing beside its own file" in shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "report.status_s=5"], "say which devices"),
        (["rpi-9", "--set", "report.status_s=5"], "no device rpi-9 was heard"),
        (["rpi-0", "--set", "mqtt.host=x"], "may not be changed from afar"),
        (["rpi-0", "--set", "report"], "is not KEY=VALUE"),
        (["--line", "z", "--set", "report.status_s=5"], "no device that was heard"),
    ],
)
def test_what_makes_no_sense_is_said(
    words: list[str], said: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config", "push", *words, "--config", str(config)]) == 2
    assert said in capsys.readouterr().err


def test_a_device_that_was_not_heard_yet_is_told_with_its_site(config: Path, broker: Any) -> None:
    words = ["--site", "south", "--set", "report.status_s=5", "--config", str(config)]
    assert main(["config", "push", "rpi-new", *words]) == 0
    assert retained(broker, "south", "rpi-new") == {"report.status_s": "5"}


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'fleet.db'}"
    return str(request.getfixturevalue("postgres"))


def test_the_table_answers_alike_on_both_databases_and_forgets_what_is_old(url: str) -> None:
    heard(url)
    engine = open_engine(url)
    try:
        query = Query(engine, 3600.0)
        assert query.labels() == {"area": ["hall 1", "hall 2"], "line": ["a", "b"]}
        assert query.labels("south") == {"area": [], "line": []}
        for asked, wanted in (
            (Filter(area="hall 1"), ["rpi-0", "rpi-1"]),
            (Filter(area="hall 1", line="b"), ["rpi-1"]),
            (Filter(line="a"), ["rpi-0", "rpi-2"]),
            (Filter(q="PUMP", site="south"), ["rpi-3"]),
            (Filter(line="z"), []),
        ):
            rows, count = query.machines(asked, T)
            assert (sorted(row["node"] for row in rows), count) == (wanted, len(wanted))
        assert query.counts(T).machines == 4
        # A second server's worth of the same, and nothing stands twice.
        heard(url)
        assert query.counts(T).machines == 4
        later = T + 31 * 86_400
        Store(engine, FleetConfig(keep_days=30.0), lambda: later).trim()
        assert query.counts(later).machines == 0
        with engine.connect() as db:
            for table in (tables.history, tables.alert, tables.machine):
                assert db.execute(select(func.count()).select_from(table)).scalar() == 0
    finally:
        engine.dispose()
