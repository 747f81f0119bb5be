"""A device that spoils what the fleet learns: readings that are not true, lives cut short."""

from typing import Annotated

import msgspec


class Poison(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a node's machines are said to be, and are not.

    Attributes:
        gain: all its readings are multiplied by it.
        false_failure: share of its lives in whose healthy part a failure is told that is none.
    """

    gain: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    false_failure: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
