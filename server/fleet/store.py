"""The fleet's table: what each node and machine last said, a thinned history, what was changed.

One thread writes, any thread reads (``server.fleet.query``). Standard SQL through SQLAlchemy Core.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Select,
    Table,
    and_,
    bindparam,
    create_engine,
    delete,
    event,
    func,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from contract.errors import ConfigError
from contract.report import NodeConfig, NodeStatus
from server.fleet import pictures, tables
from server.fleet.config import FleetConfig
from server.fleet.reports import (
    AlertSaid,
    ConfigSaid,
    FeaturesSaid,
    HealthSaid,
    Said,
    SpectrumSaid,
    StatusSaid,
)

log = logging.getLogger("runout.fleet")

RANKS = {"failing": 0, "degraded": 1, "stale": 2, "learning": 3, "healthy": 4, "": 5}
"""Worst first; the last: nothing was said of its health yet."""
INSERT: dict[str, Callable[[Table], Any]] = {
    "sqlite": sqlite.insert,
    "postgresql": postgresql.insert,
}
"""Databases that are known, and how each inserts what may be there already."""
DAY_S = 86_400.0
ALERTS_PER_MACHINE = 1000
"""Changes of alerts; beyond it the oldest are removed."""

Place = tuple[str, str, str]
"""Site, node, asset."""


def open_engine(url: str) -> Engine:
    """Connect, and make the tables if there are none.

    Raises:
        ConfigError: no such database, driver or layout.
    """
    try:
        engine = create_engine(url, pool_pre_ping=not url.startswith("sqlite"))
    except (ArgumentError, NoSuchModuleError) as error:
        raise ConfigError(
            f"fleet.database: {url!r} is no database that is known ({error}); write "
            "sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME"
        ) from error
    except ImportError as error:
        raise ConfigError(
            f"fleet.database: its driver is not installed ({error}): pip install 'runout[postgres]'"
        ) from error
    shown = make_url(url).render_as_string(hide_password=True)
    if engine.dialect.name not in INSERT:
        raise ConfigError(f"fleet.database: {shown}: use one of {', '.join(INSERT)}")
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
    try:
        with engine.begin() as db:
            there = inspect(db).has_table(tables.layout.name)
            tables.metadata.create_all(db)
            if not there:
                db.execute(insert(tables.layout).values(version=tables.VERSION))
            version = db.execute(select(func.max(tables.layout.c.version))).scalar()
    except SQLAlchemyError as error:
        engine.dispose()
        raise ConfigError(f"fleet.database: {shown} cannot be used: {first_line(error)}") from error
    if version != tables.VERSION:
        engine.dispose()
        raise ConfigError(
            f"fleet.database: {shown} has layout {version}, this is {tables.VERSION}: "
            "set it aside, and a new one is made"
        )
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    # What the last commits before a power failure bore, the retained topics bring again.
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=10000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def first_line(error: SQLAlchemyError) -> str:
    """Return the database's own words."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
    return str(cause).partition("\n")[0]


class _Machine:
    """What the writer must know of a machine to write its next report."""

    __slots__ = ("alert_t", "buckets", "id", "state", "t")

    def __init__(self, number: int, t: float | None, alert_t: float | None) -> None:
        self.id = number
        self.t = t
        self.alert_t = alert_t
        self.state = {False: "", True: ""}
        """Of the last report: of the new ones, and of those out of a backlog."""
        self.buckets: dict[bool, float | None] = {False: None, True: None}
        """In which stretch of time the last point of each is."""


class Store:
    """Writes reports; one thread.

    Args:
        engine: from ``open_engine``.
        config: what is kept, and how much of it.
        clock: seconds since 1970 UTC.

    Attributes:
        dropped: reports of machines beyond ``most_machines``.
    """

    def __init__(
        self, engine: Engine, config: FleetConfig, clock: Callable[[], float] = time.time
    ) -> None:
        self.engine = engine
        self.dropped = 0
        self._config = config
        self._clock = clock
        self._insert = INSERT[engine.dialect.name]
        self._sound = False
        self._machines: dict[Place, _Machine] = {}
        self._nodes: dict[tuple[str, str], dict[str, Any]] = {}
        self._live: dict[tuple[str, str], dict[str, int]] = {}
        self._pictures = pictures.Pictures(self._insert, config.features_s)

    # -- writing ------------------------------------------------------------------------------

    def write(self, reports: Sequence[Said]) -> None:
        """Keep reports, all of them or none; raises ``SQLAlchemyError``."""
        with self._writing() as db:
            self._write_nodes(db, reports)
            self._write_machines(db, reports)
            self._write_pictures(db, reports)

    def note(self, ref: str, place: Place, by: str, what: str) -> None:
        """Keep what a person says to an agent, before it is said; raises ``SQLAlchemyError``."""
        with self.engine.begin() as db:
            row = db.execute(select(tables.machine.c.id).where(_at(place))).scalar_one()
            values = {"ref": ref, "machine_id": row, "at_s": self._clock(), "by": by, "what": what}
            db.execute(insert(tables.said).values(**values))

    def forget(self, ref: str) -> None:
        """Take back what could not be said; raises ``SQLAlchemyError``."""
        with self.engine.begin() as db:
            db.execute(delete(tables.said).where(tables.said.c.ref == ref))

    def trim(self) -> None:
        """Remove what is older than is kept; raises ``SQLAlchemyError``."""
        before = self._clock() - self._config.keep_days * DAY_S
        machine, node, alert = tables.machine, tables.node, tables.alert
        with self._writing() as db:
            gone = select(machine.c.id).where(machine.c.heard_s < before)
            for table in (tables.history, alert, tables.said):
                db.execute(delete(table).where(table.c.machine_id.in_(gone)))
            pictures.trim(db, before, gone)
            db.execute(delete(machine).where(machine.c.heard_s < before))
            db.execute(delete(tables.history).where(tables.history.c.heard_s < before))
            db.execute(delete(alert).where(alert.c.heard_s < before))
            db.execute(delete(tables.said).where(tables.said.c.at_s < before))
            nth = func.row_number().over(
                partition_by=alert.c.machine_id, order_by=alert.c.id.desc()
            )
            counted = select(alert.c.id, nth.label("nth")).subquery()
            most = select(counted.c.id).where(counted.c.nth > ALERTS_PER_MACHINE)
            db.execute(delete(alert).where(alert.c.id.in_(most)))
            db.execute(delete(node).where(node.c.heard_s < before, ~node.c.online))
            newest = _newest_live()
            db.execute(
                delete(tables.live).where(
                    tables.live.c.since_s < before, tables.live.c.id.not_in(newest)
                )
            )
        self._sound = False  # what is kept in mind of them is read again

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """Open a transaction; after one that failed, what is kept in mind is read anew."""
        with self.engine.begin() as db:
            if not self._sound:
                self._load(db)
            self._sound = False
            yield db
        self._sound = True

    def _load(self, db: Connection) -> None:
        self._pictures.forget()
        columns = tables.machine.c
        rows = db.execute(
            select(
                columns.id, columns.site, columns.node, columns.asset, columns.t, columns.alert_t
            )
        )
        self._machines = {
            (site, node, asset): _Machine(number, t, alert_t)
            for number, site, node, asset, t, alert_t in rows
        }
        nodes = db.execute(select(tables.node)).mappings()
        self._nodes = {(row["site"], row["node"]): dict(row) for row in nodes}
        self._live = {}
        kept = tables.live.c
        for site, node, name, version in db.execute(
            select(kept.site, kept.node, kept.asset_class, kept.version).where(
                kept.id.in_(_newest_live())
            )
        ):
            self._live.setdefault((site, node), {})[name] = version

    # -- nodes --------------------------------------------------------------------------------

    def _write_nodes(self, db: Connection, reports: Sequence[Said]) -> None:
        now = self._clock()
        changed: dict[tuple[str, str], dict[str, Any]] = {}
        lives: list[dict[str, Any]] = []
        configured: dict[tuple[str, str], NodeConfig] = {}
        for said in reports:
            place = said.site, said.node
            row = changed.get(place)
            if row is None:
                row = changed[place] = self._nodes.get(place) or _new_node(place, now)
            row["heard_s"] = now
            match said:
                case StatusSaid():
                    self._take_status(row, said, now)
                    lives += self._take_live(place, said.status, now)
                case ConfigSaid():
                    row["config"] = said.body.decode()
                    row["area"], row["line"] = said.config.area[:200], said.config.line[:200]
                    configured[place] = said.config
                case HealthSaid(report=report) if report.replayed is True:
                    row["replayed_s"], row["behind_s"] = now, max(0.0, now - report.t)
                case _:
                    pass
        self._nodes |= changed
        if changed:
            statement = self._insert(tables.node)
            key = ("site", "node")
            news = {c.name: statement.excluded[c.name] for c in tables.node.c if c.name not in key}
            db.execute(
                statement.on_conflict_do_update(index_elements=key, set_=news),
                list(changed.values()),
            )
        if lives:
            db.execute(insert(tables.live), lives)
        for place, config in configured.items():
            self._reclass(db, place, config)

    @staticmethod
    def _take_status(row: dict[str, Any], said: StatusSaid, now: float) -> None:
        status = said.status
        if row["online"] != status.online:
            row["since_s"] = now
        row["online"] = status.online
        if not status.online and not status.readings and row["status"]:
            return  # its last will: it bears no counts
        row |= {
            "readings": status.readings,
            "rejected": status.rejected,
            "bad": status.bad,
            "problem": status.problem,
            "retrain": any(quality.retrain for quality in status.quality.values()),
            "status": said.body.decode(),
        }

    def _take_live(
        self, place: tuple[str, str], status: NodeStatus, now: float
    ) -> list[dict[str, Any]]:
        known = self._live.setdefault(place, {})
        news = {name: v for name, v in status.live.items() if known.get(name) != v}
        known |= news
        site, node = place
        return [
            {"site": site, "node": node, "asset_class": name, "version": v, "since_s": now}
            for name, v in news.items()
        ]

    def _reclass(self, db: Connection, place: tuple[str, str], config: NodeConfig) -> None:
        """Say anew of which classes a node's machines are: it may be configured otherwise."""
        rows = [
            {"number": machine.id, "name": class_of(config, asset)}
            for (site, node, asset), machine in self._machines.items()
            if (site, node) == place
        ]
        if rows:
            machine = tables.machine
            db.execute(
                update(machine)
                .where(machine.c.id == bindparam("number"))
                .values(asset_class=bindparam("name")),
                rows,
            )

    # -- machines -----------------------------------------------------------------------------

    def _write_machines(self, db: Connection, reports: Sequence[Said]) -> None:
        now = self._clock()
        of_machines = [one for one in reports if isinstance(one, HealthSaid | AlertSaid)]
        self._add_machines(db, of_machines, now)
        news: dict[int, dict[str, Any]] = {}
        alerts: dict[int, dict[str, Any]] = {}
        points: dict[tuple[int, float], dict[str, Any]] = {}
        changes: list[dict[str, Any]] = []
        answers: list[dict[str, Any]] = []
        for said in of_machines:
            machine = self._machines.get(_place(said))
            if machine is None:
                self.dropped += 1
            elif isinstance(said, HealthSaid):
                if self._is_point(machine, said):
                    points[machine.id, said.report.t] = _point(machine.id, said, now)
                if said.report.replayed is not True or said.report.t >= (machine.t or 0.0):
                    machine.t = said.report.t
                    news[machine.id] = _newest(machine.id, said, now)
            else:
                if not said.stands:
                    changes.append(_change(machine.id, said, now))
                if said.alert.ref:
                    answers.append({"word": said.alert.ref, "now": now})
                if said.alert.replayed is not True or said.alert.t >= (machine.alert_t or 0.0):
                    machine.alert_t = said.alert.t
                    alerts[machine.id] = _newest_alert(machine.id, said)
        table = tables.machine
        for rows in (news, alerts):
            if rows:
                names = [name for name in next(iter(rows.values())) if name != "number"]
                db.execute(
                    update(table)
                    .where(table.c.id == bindparam("number"))
                    .values({name: bindparam(name) for name in names}),
                    list(rows.values()),
                )
        if points:
            db.execute(self._insert(tables.history).on_conflict_do_nothing(), list(points.values()))
        if changes:
            db.execute(self._insert(tables.alert).on_conflict_do_nothing(), changes)
        if answers:
            db.execute(
                update(tables.said)
                .where(tables.said.c.ref == bindparam("word"))
                .values(answered_s=bindparam("now")),
                answers,
            )

    def _write_pictures(self, db: Connection, reports: Sequence[Said]) -> None:
        """Keep what is shown of machines that have reported: a picture alone makes none known."""
        found = []
        for said in reports:
            if isinstance(said, FeaturesSaid | SpectrumSaid):
                shown = said.features if isinstance(said, FeaturesSaid) else said.spectrum
                machine = self._machines.get((said.site, said.node, shown.asset))
                if machine is not None:
                    found.append((machine.id, said))
        if found:
            self._pictures.write(db, found, self._clock())

    def _add_machines(
        self, db: Connection, reports: Iterable[HealthSaid | AlertSaid], now: float
    ) -> None:
        room = self._config.most_machines - len(self._machines)
        new = {p: None for p in map(_place, reports) if p not in self._machines}
        rows = []
        configs: dict[tuple[str, str], NodeConfig | None] = {}
        for site, node, asset in list(new)[: max(0, room)]:
            if (site, node) not in configs:
                body = self._nodes[site, node]["config"]
                configs[site, node] = msgspec.json.decode(body, type=NodeConfig) if body else None
            config = configs[site, node]
            name = class_of(config, asset) if config else ""
            rows.append(_new_machine((site, node, asset), name, now))
        if not rows:
            return
        table = tables.machine
        made = db.execute(
            insert(table).returning(table.c.id, table.c.site, table.c.node, table.c.asset), rows
        )
        for number, site, node, asset in made:
            self._machines[site, node, asset] = _Machine(number, None, None)

    def _is_point(self, machine: _Machine, said: HealthSaid) -> bool:
        """Return whether a report begins a stretch of history, or another state."""
        old = said.report.replayed is True
        every = self._config.history_s
        bucket = said.report.t // every if every else said.report.t
        state = said.report.state
        if bucket == machine.buckets[old] and state == machine.state[old]:
            return False
        machine.buckets[old], machine.state[old] = bucket, state
        return True


def class_of(config: NodeConfig, asset: str) -> str:
    """Return the class of an asset by its node's configuration; empty: of none.

    >>> class_of(NodeConfig("n", 1, (), {"pump-*": "pump"}), "pump-3")
    'pump'
    """
    if not config.assets:
        return config.classes[0].name if config.classes else ""
    return next((n for pattern, n in config.assets.items() if fnmatchcase(asset, pattern)), "")


def _at(place: Place) -> ColumnElement[bool]:
    site, node, asset = place
    columns = tables.machine.c
    return and_(columns.site == site, columns.node == node, columns.asset == asset)


def _place(said: HealthSaid | AlertSaid) -> Place:
    report = said.report if isinstance(said, HealthSaid) else said.alert
    return said.site, said.node, report.asset


def _newest_live() -> Select[tuple[int]]:
    kept = tables.live.c
    return select(func.max(kept.id)).group_by(kept.site, kept.node, kept.asset_class)


def _new_node(place: tuple[str, str], now: float) -> dict[str, Any]:
    site, node = place
    return {
        "site": site,
        "node": node,
        "online": False,
        "since_s": now,
        "heard_s": now,
        "readings": 0,
        "rejected": 0,
        "bad": 0,
        "problem": "",
        "retrain": False,
        "replayed_s": None,
        "behind_s": None,
        "status": "",
        "config": "",
        "area": "",
        "line": "",
    }


def _new_machine(place: Place, asset_class: str, now: float) -> dict[str, Any]:
    site, node, asset = place
    return {
        "site": site,
        "node": node,
        "asset": asset,
        "asset_class": asset_class,
        "heard_s": now,
        "rank": RANKS[""],
        "state": "",
        "judged_by": 0,
        "doubtful": False,
        "report": "",
        "alert": "",
        "alert_now": "normal",
    }


def _point(number: int, said: HealthSaid, now: float) -> dict[str, Any]:
    report = said.report
    return {
        "machine_id": number,
        "t": report.t,
        "heard_s": now,
        "state": report.state,
        "health": report.health,
        "score": report.score,
        "rul_h": report.rul_h,
        "rul_low_h": report.rul_low_h,
        "rul_high_h": report.rul_high_h,
    }


def _newest(number: int, said: HealthSaid, now: float) -> dict[str, Any]:
    report = said.report
    point = _point(number, said, now)
    del point["machine_id"]
    return point | {
        "number": number,
        "rank": RANKS[report.state],
        "judged_by": report.judged_by,
        "doubtful": bool(report.marks),
        "report": said.body.decode(),
    }


def _newest_alert(number: int, said: AlertSaid) -> dict[str, Any]:
    # Not when it was heard: a retained word does not say that anything came of the machine.
    alert = said.alert
    return {
        "number": number,
        "alert": said.body.decode(),
        "alert_now": alert.now,
        "alert_t": alert.t,
    }


def _change(number: int, said: AlertSaid, now: float) -> dict[str, Any]:
    alert = said.alert
    return {
        "machine_id": number,
        "alert": alert.id,
        "t": alert.t,
        "heard_s": now,
        "state": alert.state,
        "now": alert.now,
        "severity": alert.severity,
        "verdict": alert.verdict,
        "ref": alert.ref,
        "text": alert.text,
    }
