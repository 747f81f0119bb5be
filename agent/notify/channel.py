"""What every channel of notices has, and what it must do."""

from typing import Annotated, Literal, Protocol

import msgspec

from contract import topics
from contract.errors import RunoutError
from contract.report import Alert

Kind = Literal["raised", "escalated", "returned"]


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A channel's name, and how much it may say.

    Attributes:
        name: one topic level, unlike that of any other channel.
        asset_per_h: notices of one asset in any hour; more are held back, and the newest is sent
            when there is room again. What is failing is never held back, and what is over does not
            count.
        per_h: the same of all assets together.
        backlog: notices that wait, at most; the oldest gives way, what is failing last of all.
        retry_max_s: longest pause between two attempts; the first is a second, each the double of
            the one before.
        give_up_h: a notice that could not be sent for so long is given up.
    """

    name: str = ""
    asset_per_h: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 6
    per_h: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 60
    backlog: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1000
    retry_max_s: Annotated[float, msgspec.Meta(ge=1, le=86400)] = 300.0
    give_up_h: Annotated[float, msgspec.Meta(gt=0, le=8784)] = 72.0

    def __post_init__(self) -> None:
        """Refuse a name that is none; msgspec turns this into an error with the path."""
        topics.check_name(self.name or "-", "name")


class Notice(msgspec.Struct, frozen=True, tag_field="type", tag="notice"):
    """What is sent.

    Attributes:
        id: one for each notice of a node; what comes twice bears it twice.
        kind: why it is sent.
        site: where the node stands.
        node: which.
        text: the alert in words, for those who show nothing else.
        held_back: notices of this asset that were not sent since the last, and for which this
            one stands, too.
        alert: as it was published.
    """

    id: str
    kind: Kind
    site: str
    node: str
    text: str
    held_back: int
    alert: Alert


class NotSent(RunoutError):  # noqa: N818  # what became of a notice
    """A notice that could not be sent.

    Attributes:
        final: it would be refused again.
    """

    def __init__(self, text: str, *, final: bool = False) -> None:
        super().__init__(text)
        self.final = final


class Channel(Protocol):
    """What a channel's configuration builds; used by one thread."""

    def send(self, notice: Notice) -> None:
        """Send a notice; returns when it was taken on. Raises ``NotSent``."""
