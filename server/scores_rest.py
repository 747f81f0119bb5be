"""What was scored ahead, over REST: by machine, time and version, a page at a time."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, FiniteFloat
from sqlalchemy import Engine, and_, or_, select

from server.scores import scores

MOST = 10_000


class ScoredRow(BaseModel):
    """What a version says of a machine at one time."""

    file: str
    asset: str
    t: float
    asset_class: str
    version: int
    digest: str
    state: str
    health: float | None
    score: float | None
    remaining_life_h: float | None
    remaining_life_low_h: float | None
    remaining_life_high_h: float | None
    model: str


class ScoredPage(BaseModel):
    """Rows in the order of time, and where the next page begins; null: there is none."""

    rows: list[ScoredRow]
    next: str | None


class ScoredAsset(BaseModel):
    """A machine that rows are there of."""

    asset: str
    asset_class: str


def router_of(engine: Engine) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/v1")

    @router.get("/scores/assets")
    def assets(
        after: Annotated[str, Query(max_length=500)] = "",
        limit: Annotated[int, Query(ge=1, le=MOST)] = 1000,
    ) -> list[ScoredAsset]:
        """List machines that were scored, by name."""
        asked = (
            select(scores.c.asset, scores.c.asset_class)
            .where(scores.c.asset > _plain(after))
            .distinct()
            .order_by(scores.c.asset)
            .limit(limit)
        )
        with engine.connect() as db:
            return [ScoredAsset(**row) for row in db.execute(asked).mappings()]

    @router.get("/scores")
    def rows(
        asset: Annotated[str, Query(max_length=500)],
        from_s: Annotated[FiniteFloat, Query(description="seconds since 1970 UTC")] = -1e12,
        until_s: Annotated[FiniteFloat, Query(description="not included")] = 1e12,
        version: Annotated[int | None, Query(ge=1, le=10**9)] = None,
        limit: Annotated[int, Query(ge=1, le=MOST)] = 1000,
        after: Annotated[
            str, Query(max_length=700, pattern=r"^$|^-?[0-9.e+-]{1,40} [0-9a-f]{64} ")
        ] = "",
    ) -> ScoredPage:
        """Return rows of a machine, oldest first; ``after`` is the ``next`` of the page before."""
        c = scores.c
        asked = select(scores).where(c.asset == _plain(asset), c.t >= from_s, c.t < until_s)
        if version is not None:
            asked = asked.where(c.version == version)
        if after:
            t, digest, file = _plain(after).split(" ", 2)
            at = _number(t)
            asked = asked.where(
                or_(
                    c.t > at,
                    and_(c.t == at, c.digest > digest),
                    and_(c.t == at, c.digest == digest, c.file > file),
                )
            )
        asked = asked.order_by(c.t, c.digest, c.file).limit(limit + 1)
        with engine.connect() as db:
            found = [ScoredRow(**row) for row in db.execute(asked).mappings()]
        page, rest = found[:limit], found[limit:]
        last = page[-1] if rest else None
        following = None if last is None else f"{last.t!r} {last.digest} {last.file}"
        return ScoredPage(rows=page, next=following)

    return router


def _plain(text: str) -> str:
    """Return text without the one character that databases do not take."""
    return text.replace("\0", "")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return -1e12  # what no page said: from the beginning
