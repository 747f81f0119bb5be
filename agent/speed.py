"""The speed of a machine, as a burst's bearing lines want it: the newest plausible one."""

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.batch import Rows
from agent.clean import QUALITY, Cleaner, Quality
from contract.arrays import Arrays, Floats
from contract.spec import AssetClass

_NEVER = -(2**63)
_BACK_NS = 60_000_000_000
"""What is older by more is of a clock that was set back: it is the newest that there is."""


class Speed:
    """The newest reading of a channel of speed that is not bad.

    It is judged apart from the rows: a burst is met before its row is closed.

    Args:
        spec: of the asset's class.
        channel: that bears the speed. Where it declares no lower limit, that is 0.

    Attributes:
        value: the newest speed; NaN: none.

    >>> from contract.spec import Channel
    >>> speed = Speed(AssetClass("fan", (Channel("speed", "rpm"),)), "speed")
    >>> t_ns, rpm = np.array([1, 3, 2, 4]), np.array([[900.0], [910.0], [905.0], [-1.0]])
    >>> speed.take(Rows("fan-1", t_ns, rpm, np.arange(4), np.ones(4, dtype=bool))).tolist()
    [nan, 900.0, 910.0, 910.0, 910.0]
    """

    def __init__(self, spec: AssetClass, channel: str) -> None:
        self._column = spec.channel_names.index(channel)
        one = spec.channels[self._column]
        low = 0.0 if one.low is None else one.low
        self._cleaner = Cleaner((msgspec.structs.replace(one, low=low),))
        self._newest_ns = _NEVER
        self.value = np.nan

    def take(self, part: Rows) -> Floats:
        """Take readings; return the newest speed before them and after each of them ``(n + 1,)``.

        Of several at one time the first stands. One that is far older than the newest takes its
        place: speeds are there for bursts alone, and a clock that was set back shows here at once.
        """
        values = part.values[:, self._column : self._column + 1]
        marks = self._cleaner.judge(part.t_ns, values, np.zeros(len(values), dtype=np.bool_))
        good = ~np.isnan(values[:, 0])
        if marks is not None:
            good &= QUALITY[marks[:, 0]] != Quality.BAD
        t_ns = np.concatenate([[self._newest_ns], np.where(good, part.t_ns, _NEVER)])
        newest = np.maximum.accumulate(t_ns)
        newer = np.concatenate([[True], t_ns[1:] > newest[:-1]])
        if (t_ns[1:][good] < newest[:-1][good] - _BACK_NS).any():
            newer[1:] = self._newer_one_by_one(t_ns)
        at = np.maximum.accumulate(np.where(newer, np.arange(len(t_ns)), 0))
        speeds: Floats = np.concatenate([[self.value], values[:, 0]])[at]
        self._newest_ns, self.value = int(t_ns[at[-1]]), float(speeds[-1])
        return speeds

    @staticmethod
    def _newer_one_by_one(t_ns: NDArray[np.int64]) -> list[bool]:
        newest, *later = t_ns.tolist()
        newer = []
        for t in later:
            newer.append(t != _NEVER and (t > newest or t < newest - _BACK_NS))
            if newer[-1]:
                newest = t
        return newer

    def arrays(self) -> Arrays:
        """Return the state, in arrays of fixed shape."""
        newest = {"t_ns": np.array([self._newest_ns]), "value": np.array([self.value])}
        return {**self._cleaner.arrays(), **newest}

    def restore(self, arrays: Arrays) -> None:
        """Take back what ``arrays`` returned."""
        self._cleaner.restore(arrays)
        self._newest_ns, self.value = int(arrays["t_ns"][0]), float(arrays["value"][0])
