"""What a Modbus device is asked for: channels, and the fewest requests that read them.

Channels of one asset that are asked equally often are one round.
"""

import struct
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal, NamedTuple

import msgspec

from contract import topics, units

MOST_REGISTERS = 125
"""That one answer can hold (Modbus Application Protocol V1.1b3, 6.3); of bits it is 2000 (6.1)."""
MOST_BITS = 2000

_FORMATS = {
    "int16": ">h",
    "uint16": ">H",
    "int32": ">i",
    "uint32": ">I",
    "float32": ">f",
    "float64": ">d",
}

UnitId = Annotated[int, msgspec.Meta(ge=0, le=255)]


class Poll(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One channel, and where in the device it stands.

    Attributes:
        channel: its value is this many ``scale`` plus ``offset``.
        register: number of the first register or bit, from 0: 40001 of a manual is 0 here.
        kind: of register: ``holding`` or ``input``, or a bit: ``coil`` or ``discrete``.
        type: of the number; of a bit ``bool``; absent: ``uint16``, ``bool``.
        word_order: which register of a longer number comes first: that of the ``big`` end or of
            the ``little`` end.
        scale: the number is multiplied by it.
        offset: is added then.
        unit: of the value.
        every_s: seconds from one request to the next.
        unit_id: of the device on the bus; absent: the source's.
        asset: it belongs to; absent: the source's.
    """

    channel: str
    register: Annotated[int, msgspec.Meta(ge=0, le=65535)]
    kind: Literal["holding", "input", "coil", "discrete"] = "holding"
    type: Literal["int16", "uint16", "int32", "uint32", "float32", "float64", "bool"] | None = None
    word_order: Literal["big", "little"] = "big"
    scale: float = 1.0
    offset: float = 0.0
    unit: str = ""
    every_s: Annotated[float, msgspec.Meta(ge=0.01, le=86_400)] = 1.0
    unit_id: UnitId | None = None
    asset: str | None = None

    def __post_init__(self) -> None:
        """Refuse what no device could answer."""
        topics.check_name(self.channel, "channel")
        if self.unit:
            units.check(self.unit)
        if self.asset is not None:
            topics.check_name(self.asset, "asset")
        if (self.type or "bool") != "bool" and self.is_bit:
            raise ValueError(f"{self.channel}: a {self.kind} is a bit: leave type out")
        if self.type == "bool" and not self.is_bit:
            raise ValueError(f"{self.channel}: type bool is of a coil or discrete, not a register")
        if self.register + self.size > 65536:
            raise ValueError(f"{self.channel}: ends behind register 65535")

    @property
    def is_bit(self) -> bool:
        """Return whether it is one bit, not a number."""
        return self.kind in {"coil", "discrete"}

    @property
    def size(self) -> int:
        """Return how many registers or bits it takes."""
        return 1 if self.is_bit else struct.calcsize(_FORMATS[self.type or "uint16"]) // 2

    def value(self, registers: Sequence[int]) -> float:
        """Return the channel's value from its registers.

        >>> Poll("flow", 0, type="int32", word_order="little", scale=0.1).value([65535, 0])
        6553.5
        """
        if self.type is None or self.is_bit:
            number: float = registers[0]
        else:
            words = registers if self.word_order == "big" else registers[::-1]
            packed = struct.pack(f">{len(words)}H", *words)
            (number,) = struct.unpack(_FORMATS[self.type], packed)
        return number * self.scale + self.offset


class Request(NamedTuple):
    """A stretch of registers or bits of one device that is read at once."""

    unit_id: int
    kind: str
    first: int
    size: int
    polls: tuple[Poll, ...]


class Round(NamedTuple):
    """What is asked together, and becomes one row of one asset."""

    asset: str
    every_s: float
    requests: tuple[Request, ...]


def rounds(polls: Iterable[Poll], asset: str, unit_id: int) -> tuple[Round, ...]:
    """Return the rounds, with as few requests as can be: only what touches is read together.

    A gap is never read across: some devices answer a request over one with an error.

    >>> polls = Poll("a", 0, type="float32"), Poll("b", 2), Poll("c", 4)
    >>> (asked,) = rounds(polls, asset="pump", unit_id=1)
    >>> [(request.first, request.size) for request in asked.requests]
    [(0, 3), (4, 1)]

    Args:
        polls: the channels.
        asset: of channels that name none.
        unit_id: of channels that name none.
    """
    together: dict[tuple[str, float], list[Poll]] = {}
    for poll in polls:
        together.setdefault((poll.asset or asset, poll.every_s), []).append(poll)
    return tuple(
        Round(name, every_s, tuple(_requests(channels, unit_id)))
        for (name, every_s), channels in together.items()
    )


def _requests(polls: Iterable[Poll], unit_id: int) -> Iterable[Request]:
    def place(poll: Poll) -> tuple[int, str, int]:
        return unit_id if poll.unit_id is None else poll.unit_id, poll.kind, poll.register

    together: list[Poll] = []
    begin = (0, "", 0)
    size = 0
    for poll in sorted(polls, key=place):
        at = place(poll)
        reach = max(size, at[2] + poll.size - begin[2])
        most = MOST_BITS if poll.is_bit else MOST_REGISTERS
        if together and at[:2] == begin[:2] and at[2] <= begin[2] + size and reach <= most:
            together.append(poll)
            size = reach
            continue
        if together:
            yield Request(*begin, size, tuple(together))
        together, begin, size = [poll], at, poll.size
    yield Request(*begin, size, tuple(together))
