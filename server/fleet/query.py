"""What is asked of the fleet's table: counts, a page of machines, one machine. Reads only."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    FromClause,
    RowMapping,
    and_,
    case,
    exists,
    func,
    or_,
    select,
)

from contract.picture import Spectrum
from contract.report import Alert, Health, NodeConfig, NodeStatus, cohort_drift
from server.fleet import pictures, tables

PER_PAGE = 50
MOST_LABELS = 500
MOST_DRIFTING = 6
"""Machines that are named of those of a class that drift."""
MOST_POINTS = 20_000
"""Of a machine's history that are read at once."""

Row = dict[str, Any]
Place = Literal["site", "area", "line"]
"""What machines stand in, the widest first."""
Order = Literal["worst", "life", "silent", "name"]
ORDERS: tuple[Order, ...] = get_args(Order)
STATES = ("failing", "degraded", "stale", "learning", "healthy")
OPEN = ("unacknowledged", "latched", "returned")
"""States of an alert in which it waits for somebody."""


class Filter(msgspec.Struct, frozen=True):
    """Which machines are asked for, as the page's address says it.

    Attributes:
        q: words that stand in site, device, machine or class.
        site: of one site.
        area: of an area of it.
        line: of a line of that.
        node: of one device.
        state: one of ``STATES``.
        only: ``silent``, ``alert`` (one that waits for somebody), ``doubtful`` data.
        order: what comes first.
        page: from 1.
    """

    q: str = ""
    site: str = ""
    area: str = ""
    line: str = ""
    node: str = ""
    state: str = ""
    only: str = ""
    order: Order = "worst"
    page: int = 1

    @classmethod
    def of(cls, asked: dict[str, str]) -> "Filter":
        """Read an address; what makes no sense is as if it were not there.

        >>> found = Filter.of({"q": " pump ", "state": "broken", "page": "x"})
        >>> found.q, found.state, found.page
        ('pump', '', 1)
        """
        page = asked.get("page", "1")
        order = asked.get("order", "worst")
        state, only = asked.get("state", ""), asked.get("only", "")
        return cls(
            q=asked.get("q", "").strip()[:200],
            site=asked.get("site", "")[:200],
            area=asked.get("area", "")[:200],
            line=asked.get("line", "")[:200],
            node=asked.get("node", "")[:200],
            state=state if state in STATES else "",
            only=only if only in {"silent", "alert", "doubtful"} else "",
            order=next((one for one in ORDERS if one == order), "worst"),
            page=min(max(1, int(page)), 10**6) if page.isascii() and page.isdecimal() else 1,
        )

    @property
    def narrows(self) -> bool:
        """Return whether anything is left out."""
        return bool(
            self.q or self.site or self.area or self.line or self.node or self.state or self.only
        )

    def address(self, **changes: Any) -> dict[str, str]:
        """Return it as an address has it, without what goes without saying."""
        new = msgspec.structs.replace(self, **changes)
        told = {name: str(getattr(new, name)) for name in self.__struct_fields__}
        usual = {"order": "worst", "page": "1"}
        return {name: value for name, value in told.items() if value != usual.get(name, "")}


class Counts(msgspec.Struct):
    """How many machines there are, and how they are; ``by_state`` holds every state."""

    machines: int
    by_state: dict[str, int]
    silent: int
    waiting: int
    shelved: int
    doubtful: int


class Site(msgspec.Struct):
    """A site, area or line: its machines, its devices, and how many of those are online."""

    name: str
    counts: Counts
    nodes: int
    online: int


class Drifting(msgspec.Struct):
    """How much of a class drifts from its beginnings.

    Attributes:
        asset_class: of the machines.
        machines: that have reported and are not silent.
        drifting: of those.
        channels: that drift on most of them: the process, or the season.
        worst: site, device and machine of some that drift.
    """

    asset_class: str
    machines: int
    drifting: int
    channels: tuple[str, ...]
    worst: tuple[tuple[str, str, str], ...]


class Seen(msgspec.Struct):
    """A machine with what was said of it, read."""

    row: Row
    report: Health | None
    alert: Alert | None
    node: Row | None
    status: NodeStatus | None
    config: NodeConfig | None


class Query:
    """Questions to the fleet's table; any thread.

    Args:
        engine: from ``server.fleet.store.open_engine``.
        silent_s: a machine of which nothing came for so long is silent.
    """

    def __init__(self, engine: Engine, silent_s: float) -> None:
        self._engine = engine
        self._silent_s = silent_s

    def is_silent(self, row: Row, now: float) -> bool:
        """Return whether nothing came of a machine for too long."""
        return bool(row["heard_s"] < now - self._silent_s)

    def counts(self, now: float) -> Counts:
        """Return the whole fleet at a glance."""
        with self._engine.connect() as db:
            found = self._counted(db, now, ())
        return _counts(found[0] if found else None)

    def sites(self, now: float) -> list[Site]:
        """Return the sites, those with the most failing machines first."""
        return self.places(now, "site")

    def places(self, now: float, kind: Place, site: str = "", area: str = "") -> list[Site]:
        """Return the sites, areas of a site or lines of an area, the worst first.

        Devices that do not say where they stand are in none.
        """
        of, machine = tables.node.c, tables.machine.c
        by = of[kind]
        where = [
            by != "",
            *([of.site == site] if site else []),
            *([of.area == area] if area else []),
        ]
        with self._engine.connect() as db:
            nodes = {
                name: (count, online or 0)
                for name, count, online in db.execute(
                    select(by, func.count(), _sum(of.online)).where(*where).group_by(by)
                )
            }
            if kind == "site":  # a machine may be known before its device
                found = self._counted(db, now, (machine.site,))
            else:
                of_it = and_(of.site == machine.site, of.node == machine.node)
                found = self._counted(
                    db, now, (by,), tables.machine.join(tables.node, of_it), where
                )
        known = {row[kind]: row for row in found}
        places = [
            Site(name, _counts(known.get(name)), *nodes.get(name, (0, 0)))
            for name in {*nodes, *known}
        ]
        return sorted(
            places,
            key=lambda s: (-s.counts.by_state["failing"], -s.counts.by_state["degraded"], s.name),
        )

    def _counted(
        self,
        db: Connection,
        now: float,
        by: Sequence[ColumnElement[Any]],
        among: FromClause = tables.machine,
        where: Sequence[ColumnElement[bool]] = (),
    ) -> list[RowMapping]:
        machine = tables.machine.c
        columns = [
            func.count().label("machines"),
            *(_sum(machine.state == state).label(state) for state in STATES),
            _sum(machine.heard_s < now - self._silent_s).label("silent"),
            _sum(machine.alert_now.in_(OPEN)).label("waiting"),
            _sum(machine.alert_now == "shelved").label("shelved"),
            _sum(machine.doubtful).label("doubtful"),
        ]
        asked = select(*by, *columns).select_from(among).where(*where).group_by(*by)
        return [row for row in db.execute(asked).mappings() if row["machines"]]

    def machines(self, asked: Filter, now: float) -> tuple[list[Row], int]:
        """Return a page of machines, and of how many."""
        where = and_(*self._where(asked, now))
        machine = tables.machine
        with self._engine.connect() as db:
            count = db.execute(select(func.count()).select_from(machine).where(where)).scalar_one()
            rows = db.execute(
                select(machine)
                .where(where)
                .order_by(*_order(asked.order))
                .limit(PER_PAGE)
                .offset((asked.page - 1) * PER_PAGE)
            ).mappings()
            return [dict(row) for row in rows], count

    def _where(self, asked: Filter, now: float) -> list[ColumnElement[bool]]:
        machine = tables.machine.c
        where: list[ColumnElement[bool]] = [machine.id == machine.id]
        for word in asked.q.split()[:8]:
            pattern = f"%{_escaped(word)}%"
            columns = machine.asset, machine.node, machine.site, machine.asset_class
            where.append(or_(*(column.ilike(pattern, escape="!") for column in columns)))
        for column, wanted in (
            (machine.site, asked.site),
            (machine.node, asked.node),
            (machine.state, asked.state),
        ):
            if wanted:
                where.append(column == wanted)
        labels = [
            tables.node.c[name] == wanted
            for name, wanted in (("area", asked.area), ("line", asked.line))
            if wanted
        ]
        if labels:
            of = tables.node.c
            there = exists().where(of.site == machine.site, of.node == machine.node, *labels)
            where.append(there)
        only: dict[str, ColumnElement[bool]] = {
            "silent": machine.heard_s < now - self._silent_s,
            "alert": machine.alert_now.in_(OPEN),
            "doubtful": machine.doubtful.is_(True),
        }
        if asked.only:
            where.append(only[asked.only])
        return where

    def labels(self, site: str = "", area: str = "") -> dict[str, list[str]]:
        """Return areas and lines that devices say, by name: of a site and an area, or of all."""
        of = tables.node.c
        found = {}
        with self._engine.connect() as db:
            for name in ("area", "line"):
                asked = select(of[name]).where(of[name] != "").distinct().order_by(of[name])
                asked = asked.where(of.site == site) if site else asked
                asked = asked.where(of.area == area) if area and name == "line" else asked
                found[name] = [str(value) for (value,) in db.execute(asked.limit(MOST_LABELS))]
        return found

    def drifting(self, now: float) -> list[Drifting]:
        """Return what drifts, class by class; classes of which nothing was said are left out."""
        machine = tables.machine.c
        heard = and_(machine.report != "", machine.heard_s >= now - self._silent_s)
        with self._engine.connect() as db:
            counted = select(machine.asset_class, func.count()).where(heard)
            rows_ = db.execute(counted.group_by(machine.asset_class)).all()
            counts = {str(name): int(count) for name, count in rows_}
            # As it came: only of those that drift is the report read.
            rows = db.execute(
                select(
                    machine.asset_class, machine.site, machine.node, machine.asset, machine.report
                )
                .where(heard, machine.report.like('%"drift":[{%'))
                .order_by(machine.rank, machine.health)
            ).all()
        found = []
        for name in sorted(counts):
            mine = [row for row in rows if row[0] == name]
            reports = [msgspec.json.decode(row[4], type=Health) for row in mine]
            channels = cohort_drift(reports, counts[name])
            worst = tuple((row[1], row[2], row[3]) for row in mine[:MOST_DRIFTING])
            found.append(Drifting(name, counts[name], len(mine), channels, worst))
        return found

    def machine(self, site: str, node: str, asset: str) -> Seen | None:
        """Return one machine; None: nothing was ever heard of it."""
        machine, of = tables.machine, tables.node
        with self._engine.connect() as db:
            row = (
                db.execute(
                    select(machine).where(
                        machine.c.site == site, machine.c.node == node, machine.c.asset == asset
                    )
                )
                .mappings()
                .first()
            )
            if row is None:
                return None
            its = (
                db.execute(select(of).where(of.c.site == site, of.c.node == node))
                .mappings()
                .first()
            )
        return Seen(
            dict(row),
            msgspec.json.decode(row["report"], type=Health) if row["report"] else None,
            msgspec.json.decode(row["alert"], type=Alert) if row["alert"] else None,
            dict(its) if its else None,
            msgspec.json.decode(its["status"], type=NodeStatus) if its and its["status"] else None,
            msgspec.json.decode(its["config"], type=NodeConfig) if its and its["config"] else None,
        )

    def history(self, machine_id: int, since_t: float | None) -> list[Row]:
        """Return points of a machine's history, oldest first; the newest of too many."""
        history = tables.history
        where = [history.c.machine_id == machine_id]
        if since_t is not None:
            where.append(history.c.t >= since_t)
        with self._engine.connect() as db:
            rows = db.execute(
                select(history).where(*where).order_by(history.c.t.desc()).limit(MOST_POINTS)
            )
            return [dict(row) for row in rows.mappings()][::-1]

    def features(
        self, machine_id: int, since_t: float | None
    ) -> dict[str, list[tuple[float, float]]]:
        """Return a machine's features over time by name, oldest first: time and value."""
        with self._engine.connect() as db:
            return pictures.features(db, machine_id, since_t, pictures.POINTS_PER_MACHINE)

    def spectra(self, machine_id: int) -> list[Spectrum]:
        """Return the spectrum of the newest burst of each of a machine's waveforms."""
        of = tables.spectrum.c
        with self._engine.connect() as db:
            rows = db.execute(
                select(of.body).where(of.machine_id == machine_id).order_by(of.waveform)
            )
            return [msgspec.json.decode(body, type=Spectrum) for (body,) in rows]

    def alerts(self, machine_id: int, most: int = 50) -> list[Row]:
        """Return the newest changes of a machine's alerts, newest first."""
        alert = tables.alert
        with self._engine.connect() as db:
            rows = db.execute(
                select(alert)
                .where(alert.c.machine_id == machine_id)
                .order_by(alert.c.t.desc(), alert.c.id.desc())
                .limit(most)
            )
            return [dict(row) for row in rows.mappings()]

    def said(self, machine_id: int, most: int = 10) -> list[Row]:
        """Return what people said of a machine on the page, newest first."""
        said = tables.said
        with self._engine.connect() as db:
            rows = db.execute(
                select(said)
                .where(said.c.machine_id == machine_id)
                .order_by(said.c.at_s.desc())
                .limit(most)
            )
            return [dict(row) for row in rows.mappings()]

    def live(self, site: str, node: str, asset_class: str, most: int = 20) -> list[Row]:
        """Return which releases judged a class on a device, newest first."""
        live = tables.live
        with self._engine.connect() as db:
            rows = db.execute(
                select(live)
                .where(
                    live.c.site == site,
                    live.c.node == node,
                    live.c.asset_class == asset_class,
                )
                .order_by(live.c.id.desc())
                .limit(most)
            )
            return [dict(row) for row in rows.mappings()]

    def nodes(self, page: int = 1) -> tuple[list[Row], int]:
        """Return a page of devices, those first that are gone or have a problem; and how many."""
        node = tables.node
        trouble = case((~node.c.online, 0), (node.c.problem != "", 1), else_=2)
        with self._engine.connect() as db:
            count = db.execute(select(func.count()).select_from(node)).scalar_one()
            rows = db.execute(
                select(node)
                .order_by(trouble, node.c.site, node.c.node)
                .limit(PER_PAGE)
                .offset((page - 1) * PER_PAGE)
            ).mappings()
            return [dict(row) for row in rows], count

    def node_counts(self, now: float) -> Row:
        """Return how many devices there are, online, with a problem, behind, asking to retrain."""
        node = tables.node.c
        behind = and_(node.replayed_s.is_not(None), node.replayed_s > now - BEHIND_S)
        with self._engine.connect() as db:
            row = db.execute(
                select(
                    func.count().label("nodes"),
                    _sum(node.online).label("online"),
                    _sum(node.problem != "").label("problem"),
                    _sum(behind).label("behind"),
                    _sum(node.retrain).label("retrain"),
                    func.max(case((behind, node.behind_s))).label("behind_s"),
                    func.coalesce(func.sum(node.readings), 0).label("readings"),
                    func.coalesce(func.sum(node.rejected), 0).label("rejected"),
                )
            ).mappings()
            return dict(row.one())


BEHIND_S = 120.0
"""A device that sent something out of its backlog within so long is catching up."""


def _counts(row: RowMapping | None) -> Counts:
    if row is None:
        return Counts(0, dict.fromkeys(STATES, 0), 0, 0, 0, 0)
    told = ("silent", "waiting", "shelved", "doubtful")
    by_state = {state: int(row[state]) for state in STATES}
    return Counts(int(row["machines"]), by_state, *(int(row[name]) for name in told))


def _sum(condition: ColumnElement[Any]) -> ColumnElement[int]:
    return func.coalesce(func.sum(case((condition, 1), else_=0)), 0)


def _order(order: Order) -> list[ColumnElement[Any]]:
    machine = tables.machine.c
    names = [machine.site, machine.asset, machine.node]
    chosen: dict[Order, list[ColumnElement[Any]]] = {
        "worst": [machine.rank.asc(), machine.health.asc().nulls_last()],
        "life": [machine.rul_h.asc().nulls_last(), machine.rank.asc()],
        "silent": [machine.heard_s.asc()],
        "name": [],
    }
    return [*chosen[order], *names]


def _escaped(word: str) -> str:
    """Return a word that stands for itself in a pattern.

    >>> _escaped("10%_a!")
    '10!%!_a!!'
    """
    return "".join(f"!{c}" if c in "!%_" else c for c in word)
