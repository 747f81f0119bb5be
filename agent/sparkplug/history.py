"""A node's readings after its birth, held for a moment: what it stored while it was away is older.

A node that comes back says what is now, and then what was: taken as they come, everything that was
would be late. So both are held until no more of the past comes, and are read in the order of time.
"""

from agent.block import Block, Burst
from agent.decode.gather import Channel, Series, gather

MOST_KEPT = 20_000
"""Readings of one node; more of the past are read before what is now, which waits on."""
SAMPLES = 16
"""Samples of a burst that take as much memory as a reading."""
MOST_WAITS = 20
"""Times the wait that anything is held, however much comes."""


class History:
    """The readings of one node that are held.

    Args:
        wait_ns: so long more of the past is waited for; 0: nothing is held.
    """

    def __init__(self, wait_ns: int) -> None:
        self._wait_ns = wait_ns
        self._open = False
        self._until_ns = self._latest_ns = 0
        self._channels: dict[Channel, Series] = {}
        self._bursts: list[Burst] = []
        self._size = 0

    def begin(self, at_ns: int) -> None:
        """Hold what comes from here on: somebody is back."""
        if not self._wait_ns:
            return
        if not self._open:
            self._open = True
            self._latest_ns = at_ns + MOST_WAITS * self._wait_ns
        self._wait(at_ns)

    def _wait(self, at_ns: int) -> None:
        self._until_ns = min(at_ns + self._wait_ns, self._latest_ns)

    def add(
        self, channels: dict[Channel, Series], bursts: list[Burst], at_ns: int
    ) -> list[Block | Burst]:
        """Take readings; return those that are to be read now."""
        if not self._open:
            return [*bursts, *gather(channels)]
        for channel, (t_ns, values) in channels.items():
            kept = self._channels.setdefault(channel, ([], []))
            kept[0].extend(t_ns)
            kept[1].extend(values)
            self._size += len(t_ns)
        self._bursts += bursts
        self._size += sum(len(burst.samples) // SAMPLES for burst in bursts)
        if any(channel.historical for channel in channels):
            self._wait(at_ns)
        if self._size <= MOST_KEPT:
            return []
        past = {channel: self._channels.pop(channel) for channel in [*self._channels]
                if channel.historical}  # fmt: skip
        self._size -= sum(len(t_ns) for t_ns, _ in past.values())
        return _in_order(past, []) if self._size <= MOST_KEPT // 2 else self._end(past)

    def due(self, at_ns: int) -> list[Block | Burst]:
        """Return what was held, if it was waited for long enough."""
        return self.release() if self._open and at_ns >= self._until_ns else []

    def release(self) -> list[Block | Burst]:
        """Return what was held, in the order of time; nothing is held any more."""
        return self._end({}) if self._open else []

    def _end(self, more: dict[Channel, Series]) -> list[Block | Burst]:
        found = _in_order({**self._channels, **more}, self._bursts)
        self._open, self._size = False, 0
        self._channels, self._bursts = {}, []
        return found


def _in_order(channels: dict[Channel, Series], bursts: list[Burst]) -> list[Block | Burst]:
    """Make blocks and bursts that follow one another in time, asset by asset.

    >>> past, now = Channel("pump", "flow", "", historical=True), Channel("pump", "flow", "")
    >>> [block.values.ravel().tolist() for block in
    ...  _in_order({now: ([9], [3.0]), past: ([2, 1], [2.0, 1.0])}, [])]
    [[1.0, 2.0], [3.0]]
    """
    moments: dict[str, dict[int, dict[Channel, list[float]]]] = {}
    for channel, (times, values) in channels.items():
        of_asset = moments.setdefault(channel.asset, {})
        for t, value in zip(times, values, strict=True):
            of_asset.setdefault(t, {}).setdefault(channel, []).append(value)
    shot: dict[str, dict[int, list[Burst]]] = {}
    for burst in bursts:
        shot.setdefault(burst.asset, {}).setdefault(burst.t_ns, []).append(burst)
    out: list[Block | Burst] = []
    for asset in dict.fromkeys([*moments, *shot]):
        said, heard = moments.get(asset, {}), shot.get(asset, {})
        run: dict[Channel, Series] = {}
        for t in sorted({*said, *heard}):
            now = said.get(t, {})
            if now.keys() != run.keys():
                out += gather(run)
                run = {channel: ([], []) for channel in now}
            for channel, values in now.items():
                run[channel][0].extend([t] * len(values))
                run[channel][1].extend(values)
            if t in heard:
                out += [*gather(run), *heard[t]]
                run = {}
        out += gather(run)
    return out
