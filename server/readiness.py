"""Who is ready: nodes say what they run and could bring before anything large is sent to them."""

import logging
from dataclasses import dataclass, field

from flwr.app import RecordDict

from contract.errors import ContractError
from contract.update import Readiness
from server import messages
from server.rounds import Fleet, Heard, Patience

log = logging.getLogger("runout.server")

ABOUT = "readiness"
"""What a late answer is known by."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What nodes say of themselves.

    Attributes:
        told: by node id.
        refused: whose answer cannot be read, and why.
        heard: how the asking went.
    """

    told: dict[int, Readiness] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
    heard: Heard = field(default_factory=lambda: Heard([]))


def ask(fleet: Fleet, node_ids: list[int], deadline_s: float, quorum: float) -> Answers:
    """Ask nodes for their readiness; those that let the deadline pass are not in the answer."""
    told: dict[int, Readiness] = {}
    refused: dict[int, str] = {}

    def take(node_id: int, content: RecordDict) -> None:
        try:
            told[node_id] = read(fleet, node_id, content)
        except ContractError as error:
            refused[node_id] = str(error)
            log.warning("%s: %s", fleet.name(node_id), error)

    patience = Patience(deadline_s, quorum)
    heard = fleet.ask(
        node_ids, messages.STATUS, RecordDict(), patience=patience, about=ABOUT, take=take
    )
    return Answers(told, refused, heard)


def read(fleet: Fleet, node_id: int, content: RecordDict) -> Readiness:
    """Read one answer, and remember the node's name; raises ``ContractError``."""
    told = messages.read_readiness(content)
    fleet.names[node_id] = told.node
    fleet.classes[node_id] = frozenset(told.classes)
    return told


def unfit(told: Readiness, asset_class: str, digest: str) -> str:
    """Return why a node can take no part in a training of a class; empty: it can.

    Args:
        told: what it says.
        asset_class: name of the class; empty: not known yet.
        digest: of its spec; empty: not known yet.
    """
    if not asset_class:
        return "" if told.classes else "it has no asset class"
    known = told.classes.get(asset_class)
    if known is None:
        return f"it has no asset class {asset_class!r}"
    if digest and known.digest != digest:
        return f"its {asset_class} is configured otherwise: spec {known.digest}, not {digest}"
    return ""
