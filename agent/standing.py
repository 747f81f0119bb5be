"""How far a release has come on this device, as it is kept and as the server is told."""

from typing import Literal

import msgspec

from agent.batch import Swap
from agent.rollout import Errors, Verdict
from agent.trial import Count
from contract.release import Release
from contract.update import Offered

Phase = Literal["shadow", "swap", "watch"]
Word = Literal["shadow", "promoted", "rejected", "kept", "rolled back", "superseded", "lost"]
"""What became of a release, in the store's ``rollout``."""


class Standing(msgspec.Struct):
    """A trial that is under way; in the store's ``meta``, as ``trial/<class>``.

    Attributes:
        asset_class: of the release.
        phase: the release judges beside (shadow), is about to judge (swap), or is watched.
        version: of it.
        digest: of it.
        before_version: what judged before it, or does; 0: the device's own models.
        before_digest: of that.
        reason: what the gate found.
        errors: of remaining life on held-out lives: the release's, and of what judged before.
        count: what has come of it so far.
        starts: of the agent, while it is watched, that did not come as far as a checkpoint.
        problem: why what judged before is about to judge again; empty: it is not.
    """

    asset_class: str
    phase: Phase
    version: int
    digest: str
    before_version: int
    before_digest: str
    reason: str
    errors: Errors | None
    count: Count
    starts: int = 0
    problem: str = ""

    @property
    def meta(self) -> tuple[str, str]:
        """Return key and value under which it is in the store."""
        return f"trial/{self.asset_class}", msgspec.json.encode(self).decode()


def standing_of(
    phase: Phase, release: Release, before: Swap, errors: Errors | None, reason: str
) -> Standing:
    """Return how a release stands as its trial begins."""
    return Standing(
        before.asset_class,
        phase,
        release.version,
        release.digest,
        before.version,
        before.digest,
        reason,
        errors,
        Count(),
    )


def offered(
    verdict: Verdict,
    word: Word,
    *,
    settled: bool,
    errors: Errors | None = None,
    standing: Standing | None = None,
) -> dict[str, str]:
    """Return what the server is told of a release, by the key that it is kept under."""
    count = Count() if standing is None else standing.count
    error, before = (errors or (standing.errors if standing else None)) or (None, None)
    told = Offered(
        version=verdict.version,
        digest=verdict.digest,
        verdict=word,
        settled=settled,
        reason=verdict.reason,
        vectors=count.vectors,
        alarms=count.share if count.vectors else None,
        alarms_before=count.share_before if count.vectors else None,
        disagree=count.disagree / count.paired if count.paired else None,
        latency_ms=count.latency_ms,
        error_h=error,
        error_before_h=before,
    )
    return {f"offered/{verdict.asset_class}": msgspec.json.encode(told).decode()}
