"""What devices show of machines, in the fleet's table: features over time, the newest spectra."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Table, delete, func, insert, select

from server.fleet import tables
from server.fleet.reports import FeaturesSaid, SpectrumSaid

POINTS_PER_MACHINE = 3000
"""Of features; beyond it the oldest are removed."""
WAVEFORMS = 16
"""Of a machine, whose spectra are kept."""


class Pictures:
    """Writes them, in the transaction of the store.

    Args:
        insert_: of the database.
        every_s: of data time, from one point of features to the next.
    """

    def __init__(self, insert_: Callable[[Table], Any], every_s: float) -> None:
        self._insert = insert_
        self._every_s = every_s
        self._names: dict[tuple[str, ...], int] = {}
        self._told: dict[int, float] = {}
        self._waves: dict[int, set[str]] = {}

    def forget(self) -> None:
        """Keep nothing in mind: it may not have been written, or is there no longer."""
        self._names.clear()
        self._told.clear()
        self._waves.clear()

    def write(
        self, db: Connection, said: Sequence[tuple[int, FeaturesSaid | SpectrumSaid]], now: float
    ) -> None:
        """Keep what was shown of machines, by their numbers."""
        points: dict[tuple[int, float], dict[str, Any]] = {}
        spectra: dict[tuple[int, str], dict[str, Any]] = {}
        for number, one in said:
            if isinstance(one, FeaturesSaid):
                if self._is_point(number, one.features.t):
                    points[number, one.features.t] = {
                        "machine_id": number,
                        "t": one.features.t,
                        "heard_s": now,
                        "names_id": self._names_id(db, one.features.names),
                        "body": msgspec.json.encode(one.features.values).decode(),
                    }
            elif self._has_room(db, number, one.spectrum.waveform):
                spectra[number, one.spectrum.waveform] = {
                    "machine_id": number,
                    "waveform": one.spectrum.waveform,
                    "t": one.spectrum.t,
                    "heard_s": now,
                    "body": one.body.decode(),
                }
        if points:
            db.execute(self._insert(tables.feature).on_conflict_do_nothing(), list(points.values()))
        if spectra:
            statement = self._insert(tables.spectrum)
            news = {name: statement.excluded[name] for name in ("t", "heard_s", "body")}
            db.execute(
                statement.on_conflict_do_update(
                    index_elements=("machine_id", "waveform"), set_=news
                ),
                list(spectra.values()),
            )

    def _is_point(self, number: int, t: float) -> bool:
        """Return whether it is time for one again; a clock that was set back begins anew."""
        told = self._told.get(number)
        if told is not None and told <= t < told + self._every_s:
            return False
        self._told[number] = t
        return True

    def _has_room(self, db: Connection, number: int, waveform: str) -> bool:
        known = self._waves.get(number)
        if known is None:
            of = tables.spectrum.c
            rows = db.execute(select(of.waveform).where(of.machine_id == number))
            known = self._waves[number] = {name for (name,) in rows}
        if waveform not in known and len(known) < WAVEFORMS:
            known.add(waveform)
        return waveform in known

    def _names_id(self, db: Connection, names: tuple[str, ...]) -> int:
        found = self._names.get(names)
        if found is None:
            text = msgspec.json.encode(names).decode()
            digest = hashlib.sha256(text.encode()).hexdigest()[:32]
            of = tables.feature_names
            row = db.execute(select(of.c.id).where(of.c.digest == digest)).scalar()
            if row is None:
                made = insert(of).values(digest=digest, names=text).returning(of.c.id)
                row = db.execute(made).scalar_one()
            found = self._names[names] = int(row)
        return found


def trim(db: Connection, before: float, gone: Any) -> None:
    """Remove what is older than is kept, or of machines that are forgotten.

    Args:
        db: of a transaction.
        before: seconds since 1970 UTC, by this server's clock.
        gone: query of the numbers of machines that are forgotten.
    """
    feature, spectrum = tables.feature, tables.spectrum
    for table in (feature, spectrum):
        db.execute(delete(table).where(table.c.machine_id.in_(gone)))
    db.execute(delete(feature).where(feature.c.heard_s < before))
    crowded = (
        select(feature.c.machine_id)
        .group_by(feature.c.machine_id)
        .having(func.count() > POINTS_PER_MACHINE)
    )
    for (number,) in db.execute(crowded).all():
        mine = feature.c.machine_id == number
        first = (
            select(feature.c.t)
            .where(mine)
            .order_by(feature.c.t.desc())
            .offset(POINTS_PER_MACHINE - 1)
            .limit(1)
        )
        db.execute(delete(feature).where(mine, feature.c.t < first.scalar_subquery()))
    used = select(feature.c.names_id)
    db.execute(delete(tables.feature_names).where(tables.feature_names.c.id.not_in(used)))


def features(
    db: Connection, machine_id: int, since_t: float | None, most: int
) -> dict[str, list[tuple[float, float]]]:
    """Return the features of a machine over time by name, oldest first."""
    feature, names = tables.feature, tables.feature_names
    where = [feature.c.machine_id == machine_id]
    if since_t is not None:
        where.append(feature.c.t >= since_t)
    rows = db.execute(
        select(feature.c.t, feature.c.body, names.c.names)
        .join(names, names.c.id == feature.c.names_id)
        .where(*where)
        .order_by(feature.c.t.desc())
        .limit(most)
    ).all()
    found: dict[str, list[tuple[float, float]]] = {}
    known: Mapping[str, tuple[str, ...]] = {
        text: tuple(msgspec.json.decode(text)) for text in {text for _, _, text in rows}
    }
    for t, body, text in reversed(rows):
        for name, value in zip(known[text], msgspec.json.decode(body), strict=False):
            curve = found.setdefault(name, [])
            if value is not None:
                curve.append((t, float(value)))
    return found
