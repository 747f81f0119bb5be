"""What a node sends and is asked: a head of words and numbers, and arrays. Never its readings."""

from typing import Final

import msgspec

from contract.arrays import Arrays
from contract.report import Quality
from contract.spec import AssetClass

STATISTICS = "statistics"
"""Phase 1: moments of features (the basis to come) and of healthy behaviour."""
SHAPE: Final = "shape"
"""Sums of the first, smaller ridge model, where the class's is shaped by one."""
GRADIENTS: Final = "gradients"
"""Sums of the outer products of that model's gradients."""
FIT = "fit"
"""Phase 2 and on: sums of the ridge model, and scikit-learn weights after local passes."""
EVALUATE = "evaluate"
"""Judge a candidate on the device's own held-out lives."""


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the server asks of a node; beside it travel the arrays to start from.

    Attributes:
        contract: of the server.
        phase: one of the above.
        asset_class: name of the cohort; empty: the node's only one.
        digest: of the cohort's spec; empty on the first contact.
        round: counts up over the life of the server.
        models: RUL models wanted in this phase, by name; empty: all of the class.
        seed: of what is random in the node's local training.
        trial: answer as if the class were configured so: with other models of remaining life over
            the same features; nothing that judges is changed. None: as it is.
    """

    contract: int
    phase: str
    asset_class: str
    digest: str
    round: int
    models: tuple[str, ...] = ()
    seed: int = 0
    trial: AssetClass | None = None


class Offered(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the newest release that was offered to a device fares there.

    Shares are of the feature vectors that it and what judged before it have both judged.

    Attributes:
        version: of it.
        digest: of it.
        verdict: ``shadow`` (it judges beside), ``promoted``, ``rejected`` or ``rolled back``.
        settled: nothing more comes of it by itself.
        reason: in words.
        vectors: that both have judged.
        alarms: share of these that it puts into alarm.
        alarms_before: that what judged before puts into alarm.
        disagree: on which only one of the two does.
        latency_ms: mean time that it takes for a vector; None: not measured.
        error_h: of remaining life on the device's held-out lives; None: there are none.
        error_before_h: the same of what judged before.
    """

    version: int
    digest: str
    verdict: str
    settled: bool
    reason: str
    vectors: int = 0
    alarms: float | None = None
    alarms_before: float | None = None
    disagree: float | None = None
    latency_ms: float | None = None
    error_h: float | None = None
    error_before_h: float | None = None


class ClassReadiness(msgspec.Struct, frozen=True):
    """What a node could bring to a round, of one asset class.

    Attributes:
        digest: of the spec it runs.
        live_version: release that judges; 0: its own models.
        lives: finished lives that may be learnt from.
        heldout: kept aside.
        quality: of its alerts; ``retrain`` says that it asks for a round, and why.
        offered: the newest release that was offered; None: none was, or the node does not say.
    """

    digest: str
    live_version: int
    lives: int
    heldout: int
    quality: Quality
    offered: Offered | None = None


class Readiness(msgspec.Struct, frozen=True):
    """How much is new on a node, and whether it asks for retraining: answers ``query.status``.

    Attributes:
        contract: of the node.
        node: its name.
        epoch: journal position.
        classes: by name.
        site: where it is; empty: it does not say.
    """

    contract: int
    node: str
    epoch: int
    classes: dict[str, ClassReadiness]
    site: str = ""


class UpdateHead(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who contributes, to what, and how much.

    Attributes:
        contract: of the node.
        phase: which question this answers.
        asset_class: the spec the node runs, digest included in it.
        node: the node's own name, one for the whole of its life.
        epoch: journal position: a later contribution of the node replaces an earlier one.
        rows: feature vectors behind the sums.
        lives: finished lives behind them.
        heldout: finished lives kept aside.
        live_version: release that judges on the node; 0: its own models.
        metrics: RMSE on held-out lives and the like, by name.
    """

    contract: int
    phase: str
    asset_class: AssetClass
    node: str
    epoch: int
    rows: int
    lives: int
    heldout: int
    live_version: int
    metrics: dict[str, float]


class Update(msgspec.Struct, frozen=True):
    """A head and its arrays."""

    head: UpdateHead
    arrays: Arrays
