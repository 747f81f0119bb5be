"""The fleet's table: what agents say on a real broker stands in a real database."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, Table, select

from contract import topics
from contract.errors import ConfigError, DecodeError, RunoutError
from contract.report import NodeStatus, Quality
from server.config import load
from server.fleet import tables
from server.fleet.collector import Collector
from server.fleet.config import FleetConfig, Mqtt
from server.fleet.link import Link
from server.fleet.reports import AlertSaid, ConfigSaid, HealthSaid, StatusSaid, filters, read
from server.fleet.store import Store, open_engine
from tests.agent.conftest import Broker, Plant, agent, broker, stopped_broker, wait_until
from tests.server.fleet import Said, T, alert, config, encode, health

__all__ = ["agent", "broker", "stopped_broker"]


def rows(engine: Engine, table: Table) -> list[dict[str, Any]]:
    with engine.connect() as db:
        return [dict(row) for row in db.execute(select(table)).mappings()]


class Clock:
    def __init__(self) -> None:
        self.now = T

    def __call__(self) -> float:
        return self.now


class Kept:
    """A store on a file of its own."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.clock = Clock()
        self.engine = open_engine(f"sqlite:///{folder / 'fleet.db'}")
        self.config = FleetConfig(**changes)
        self.store = Store(self.engine, self.config, self.clock)

    def health(self, *reports: Any, node: str = "n") -> None:
        self.store.write([HealthSaid("s", node, one, encode(one)) for one in reports])

    def alert(self, *alerts: Any, stands: bool = False) -> None:
        self.store.write([AlertSaid("s", "n", one, encode(one), stands=stands) for one in alerts])

    def status(self, online: bool = True, **more: Any) -> None:
        said = NodeStatus("n", online, **more)
        self.store.write([StatusSaid("s", "n", said, encode(said))])

    def rows(self, table: Table) -> list[dict[str, Any]]:
        return rows(self.engine, table)


@pytest.fixture
def keep(tmp_path: Path) -> Iterator[Callable[..., Kept]]:
    with ExitStack() as opened:

        def make(**changes: Any) -> Kept:
            made = Kept(tmp_path, **changes)
            opened.callback(made.engine.dispose)
            return made

        yield make


# -- what is read ----------------------------------------------------------------------------------


def test_what_agents_publish_is_read_by_its_topic() -> None:
    said = [
        read(topics.status_topic("s", "n"), encode(NodeStatus("n", online=True))),
        read(topics.config_topic("s", "n"), encode(config("n"))),
        read(topics.asset_topic("s", "n", "a", "health"), encode(health("a"))),
        read(topics.asset_topic("s", "n", "a", "alert"), encode(alert("a"))),
        read(topics.alert_state_topic("s", "n", "a"), encode(alert("a"))),
    ]
    assert [type(one) for one in said] == [StatusSaid, ConfigSaid, HealthSaid, AlertSaid, AlertSaid]
    assert [one.stands for one in said if isinstance(one, AlertSaid)] == [False, True]
    assert read(topics.alert_state_topic("s", "n", "a"), b"") is None


@pytest.mark.parametrize(
    ("topic", "payload", "reason"),
    [
        ("runout/v1/s/n/a/health", b"{", "json"),
        ("runout/v1/s/n/a/health", b'{"type": "health"}', "json"),
        ("runout/v1/s/n/a/health", b"\xff\xfe", "json"),
        ("runout/v1/s/n/a/health", b"[" * 100_000, "json"),
        ("runout/v1/s/n/a/health", encode(health("b")), "asset"),
        ("runout/v1/s/n/status", encode(NodeStatus("m", online=True)), "node"),
        ("runout/v1/s/n/a/readings", b"{}", "topic"),
        ("runout/v1/s//a/health", b"{}", "topic"),
        ("other/v1/s/n/a/health", b"{}", "topic"),
        (f"runout/v1/s/{'n' * 201}/status", b"{}", "topic"),
        ("runout/v1/s/n/status", b" " * 300_000, "size"),
    ],
)
def test_what_cannot_be_used_is_refused_by_a_reason(
    topic: str, payload: bytes, reason: str
) -> None:
    with pytest.raises(DecodeError) as caught:
        read(topic, payload)
    assert caught.value.reason == reason


# -- what is kept ----------------------------------------------------------------------------------


def test_a_machine_is_as_its_newest_report_says(keep: Callable[..., Kept]) -> None:
    kept = keep()
    kept.health(health("a"), health("a", T + 60, "failing", health=0.1, marks=("flow.high",)))
    (row,) = kept.rows(tables.machine)
    assert (row["state"], row["health"], row["t"]) == ("failing", 0.1, T + 60)
    assert row["rank"] == 0
    assert row["doubtful"]


def test_an_old_report_out_of_a_backlog_does_not_replace_a_newer_one(
    keep: Callable[..., Kept],
) -> None:
    kept = keep()
    kept.health(health("a", T, "failing"))
    kept.health(health("a", T - 3600, "healthy", replayed=True))
    kept.alert(alert("a", t=T), alert("a", "returned", t=T - 60, replayed=True, now="normal"))
    (row,) = kept.rows(tables.machine)
    assert row["state"] == "failing"
    assert row["alert_now"] == "unacknowledged"
    assert len(kept.rows(tables.history)) == 2
    assert len(kept.rows(tables.alert)) == 2
    (node,) = kept.rows(tables.node)
    assert node["behind_s"] == 3600


def test_a_machine_whose_clock_was_set_back_is_followed(keep: Callable[..., Kept]) -> None:
    kept = keep()
    kept.health(health("a", T), health("a", T - 86_400, "degraded"))
    assert kept.rows(tables.machine)[0]["state"] == "degraded"


def test_history_is_a_point_per_stretch_and_one_more_where_the_state_changes(
    keep: Callable[..., Kept],
) -> None:
    kept = keep(history_s=600.0)
    kept.health(*(health("a", T + 60 * n) for n in range(30)))
    assert [row["t"] for row in kept.rows(tables.history)] == [T, T + 600, T + 1200]
    kept.health(health("a", T + 1801, "degraded"), health("a", T + 1802, "degraded"))
    assert [row["t"] for row in kept.rows(tables.history)][3:] == [T + 1801]


def test_what_is_said_twice_is_kept_once(keep: Callable[..., Kept]) -> None:
    kept = keep(history_s=0.0)
    for _ in range(2):
        kept.health(health("a"))
        kept.alert(alert("a"))
        kept.alert(alert("a"), stands=True)
    assert len(kept.rows(tables.history)) == 1
    assert len(kept.rows(tables.alert)) == 1


def test_the_class_of_a_machine_is_known_whichever_comes_first(keep: Callable[..., Kept]) -> None:
    kept = keep()
    kept.health(health("pump-1"), health("fan-1"))
    kept.store.write([ConfigSaid("s", "n", config("n"), encode(config("n")))])
    kept.health(health("pump-2"))
    found = {row["asset"]: row["asset_class"] for row in kept.rows(tables.machine)}
    assert found == {"pump-1": "pump", "fan-1": "", "pump-2": "pump"}


def test_a_last_will_says_that_a_node_is_gone_and_leaves_its_counts(
    keep: Callable[..., Kept],
) -> None:
    kept = keep()
    kept.status(readings=100, rejected=3, quality={"pump": Quality(retrain=("precision",))})
    kept.clock.now += 60
    kept.status(online=False)
    (row,) = kept.rows(tables.node)
    assert (row["online"], row["readings"], row["rejected"]) == (False, 100, 3)
    assert row["since_s"] == T + 60
    assert row["retrain"]


def test_what_was_live_when_is_noted_as_it_changes_and_after_a_restart(
    keep: Callable[..., Kept],
) -> None:
    kept = keep()
    for version in (0, 0, 3, 3):
        kept.status(live={"pump": version})
        kept.clock.now += 10
    again = keep()
    again.status(live={"pump": 3})
    again.status(live={"pump": 2})
    assert [row["version"] for row in again.rows(tables.live)] == [0, 3, 2]
    assert [row["since_s"] for row in again.rows(tables.live)][:2] == [T, T + 20]


def test_machines_beyond_the_bound_are_counted_and_not_kept(keep: Callable[..., Kept]) -> None:
    kept = keep(most_machines=2)
    kept.health(*(health(f"m-{n}") for n in range(5)))
    assert len(kept.rows(tables.machine)) == 2
    assert kept.store.dropped == 3


def test_what_is_older_than_is_kept_is_removed_and_the_rest_stays(
    keep: Callable[..., Kept],
) -> None:
    kept = keep(keep_days=10.0, history_s=0.0)
    kept.status(online=False, live={"pump": 1})
    kept.health(health("old"), health("both"))
    kept.alert(alert("both"))
    kept.clock.now += 11 * 86_400
    kept.health(health("both", T + 11 * 86_400))
    kept.store.trim()
    assert [row["asset"] for row in kept.rows(tables.machine)] == ["both"]
    assert [row["t"] for row in kept.rows(tables.history)] == [T + 11 * 86_400]
    assert kept.rows(tables.alert) == []
    assert len(kept.rows(tables.live)) == 1  # the newest of a class stays, however old
    kept.health(health("old", T + 11 * 86_400))
    assert {row["asset"] for row in kept.rows(tables.machine)} == {"both", "old"}


def test_a_commit_that_fails_leaves_nothing_half_done(
    keep: Callable[..., Kept], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy import insert
    from sqlalchemy.exc import IntegrityError

    kept = keep()
    kept.health(health("a"))
    # A real failure in mid-transaction: a row that the table has already.
    real = Store._write_machines

    def and_once_more(self: Store, db: Any, reports: Any) -> None:
        real(self, db, reports)
        db.execute(insert(tables.layout).values(version=tables.VERSION))

    monkeypatch.setattr(Store, "_write_machines", and_once_more)
    with pytest.raises(IntegrityError):
        kept.health(health("b"), health("a", T + 1, "failing"))
    monkeypatch.undo()
    assert [row["asset"] for row in kept.rows(tables.machine)] == ["a"]
    kept.health(health("b"))
    assert {row["asset"]: row["state"] for row in kept.rows(tables.machine)} == {
        "a": "healthy",
        "b": "healthy",
    }


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("no url", "is no database that is known"),
        ("oracle2://x", "is no database that is known"),
        ("sqlite:////no/such/folder/fleet.db", "cannot be used: unable to open"),
    ],
)
def test_a_database_that_cannot_be_used_says_why(url: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        open_engine(url)


def test_tables_of_another_layout_are_not_touched(keep: Callable[..., Kept]) -> None:
    kept = keep()
    with kept.engine.begin() as db:
        db.execute(tables.layout.update().values(version=99))
    with pytest.raises(ConfigError, match="layout 99"):
        keep()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[fleet]\nhost = "0.0.0.0"', ["fleet.host", "fleet.password_file"]),
        (
            '[fleet]\nhost = "0.0.0.0"\npassword_file = "p"',
            ["beyond loopback", "[fleet.tls]"],
        ),
        ('[fleet]\npassword_file = "none"', ["fleet.password_file", "no file 'none'"]),
        ('[fleet]\nsite = "a/b"', ["fleet.site"]),
        ("[fleet]\nprot = 1", ["unknown key 'fleet.prot'", "did you mean 'port'?"]),
        ('[mqtt]\nhost = "broker"', ["mqtt.host", "[mqtt.tls] ca"]),
        ('[mqtt]\n[mqtt.tls]\nca = "none"', ["mqtt.tls.ca", "no file 'none'"]),
    ],
)
def test_a_mistake_in_the_configuration_names_key_and_mend(
    tmp_path: Path, text: str, words: list[str]
) -> None:
    path = tmp_path / "server.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    for word in words:
        assert word in str(caught.value)


# -- over a real broker ----------------------------------------------------------------------------


class Heard:
    """Link, store and collector, on a broker."""

    def __init__(self, folder: Path, port: int, opened: ExitStack) -> None:
        self.engine = open_engine(f"sqlite:///{folder / 'fleet.db'}")
        opened.callback(self.engine.dispose)
        self.link = Link(Mqtt(port=port), filters("+"))
        self.store = Store(self.engine, FleetConfig(history_s=0.0))
        self.collector = Collector(self.link, self.store, lambda: None)
        opened.callback(self.collector.close)
        opened.callback(self.link.close)
        self.collector.open()
        self.link.open()

    def wait(self, table: Table, count: int) -> list[dict[str, Any]]:
        wait_until(lambda: len(rows(self.engine, table)) >= count)
        return rows(self.engine, table)


@pytest.fixture
def say(broker: Broker) -> Iterator[Said]:
    plant = Plant(broker.port)
    yield Said(plant)
    plant.close()


def test_what_is_retained_is_known_to_a_server_that_comes_later(
    tmp_path: Path, broker: Broker, say: Said
) -> None:
    say.status("n", readings=7)
    say.config("n")
    say.alert("n", alert("pump-1"))
    say.settle()
    with ExitStack() as opened:
        heard = Heard(tmp_path, broker.port, opened)
        (machine,) = heard.wait(tables.machine, 1)
        assert machine["alert_now"] == "unacknowledged"
        wait_until(lambda: rows(heard.engine, tables.machine)[0]["asset_class"] == "pump")
        assert rows(heard.engine, tables.node)[0]["readings"] == 7


def test_what_is_said_while_the_server_is_away_comes_when_it_is_back(
    tmp_path: Path, broker: Broker, say: Said
) -> None:
    with ExitStack() as opened:
        heard = Heard(tmp_path, broker.port, opened)
        assert heard.link.connected.wait(60)
        say.health("n", health("pump-1", T))
        heard.wait(tables.history, 1)
    say.health("n", *(health("pump-1", T + n) for n in range(1, 200)))
    say.settle()
    with ExitStack() as opened:
        heard = Heard(tmp_path, broker.port, opened)
        heard.wait(tables.history, 200)


def test_what_was_not_committed_is_not_acknowledged_and_comes_again(
    tmp_path: Path, broker: Broker, say: Said
) -> None:
    with ExitStack() as opened:
        heard = Heard(tmp_path, broker.port, opened)
        assert heard.link.connected.wait(60)
        say.health("n", health("pump-1", T))
        heard.wait(tables.history, 1)
        with heard.engine.begin() as db:
            db.exec_driver_sql("ALTER TABLE history RENAME TO away")
        say.health("n", *(health("pump-1", T + n) for n in range(1, 50)))
        say.settle()
        wait_until(lambda: "history" in heard.collector.trouble)
        with heard.engine.begin() as db:
            db.exec_driver_sql("ALTER TABLE away RENAME TO history")
    with ExitStack() as opened:
        heard = Heard(tmp_path, broker.port, opened)
        heard.wait(tables.history, 50)
        assert len(rows(heard.engine, tables.history)) == 50


def test_a_broker_that_is_restarted_is_heard_again(
    tmp_path: Path, broker: Broker, say: Said
) -> None:
    with ExitStack() as opened:
        heard = Heard(tmp_path, broker.port, opened)
        assert heard.link.connected.wait(60)
        broker.stop()
        wait_until(lambda: not heard.link.connected.is_set())
        with pytest.raises(RunoutError, match="nothing was sent"):
            heard.link.say("runout/v1/s/n/a/command", b"{}")
        broker.start()
        assert heard.link.connected.wait(60)
        say.health("n", health("pump-1"))
        heard.wait(tables.history, 1)


def test_garbage_between_reports_is_counted_by_reason(
    tmp_path: Path, broker: Broker, say: Said
) -> None:
    with ExitStack() as opened:
        heard = Heard(tmp_path, broker.port, opened)
        assert heard.link.connected.wait(60)
        for payload in (b"{", b"\x00\xff", b'{"type":"alert"}'):
            say.plant.publish("runout/v1/north/n/pump-1/health", payload)
        say.health("n", health("pump-1"))
        heard.wait(tables.history, 1)
        assert heard.collector.rejected == {"json": 3}


def test_an_agent_is_in_the_table_with_its_class_and_its_end(
    tmp_path: Path, broker: Broker, agent: Callable[..., Any]
) -> None:
    with ExitStack() as opened:
        heard = Heard(tmp_path, broker.port, opened)
        process = agent("rpi-1").start()
        process.wait_for("connected")
        wait_until(lambda: any(row["online"] for row in rows(heard.engine, tables.node)))
        (row,) = rows(heard.engine, tables.node)
        assert row["config"]
        process.kill()
        wait_until(lambda: not rows(heard.engine, tables.node)[0]["online"])
