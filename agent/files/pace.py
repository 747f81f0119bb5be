"""Rows let go at the pace of their own times."""

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np

from agent.files.chunk import Chunk


class Pace:
    """Lets rows go when their time has come, at a multiple of the data's own pace.

    Where another asset begins at an earlier time, as one does that stands behind the last in
    a file, the clock of the data is set back to there.

    Args:
        speed: above 0.
        clock: seconds.
        wait: waits for so many seconds, or less; True: it is to be stopped.
    """

    def __init__(
        self, speed: float, clock: Callable[[], float], wait: Callable[[float], bool]
    ) -> None:
        self._speed = speed
        self._clock = clock
        self._wait = wait
        self._began: tuple[float, int] | None = None
        self._newest = 0
        self._asset = ""

    def pieces(self, chunk: Chunk) -> Iterator[tuple[int, int]]:
        """Yield the rows of a chunk, from and to, as they are due; ends early when it is to."""
        n = len(chunk.t_ns)
        back = (np.diff(chunk.t_ns) < 0) & (np.diff(chunk.which) != 0)
        cuts = [0, *(np.flatnonzero(back) + 1).tolist(), n]
        for start, end in pairwise(cuts):
            if start == end:
                continue
            asset = chunk.assets[chunk.which[start]]
            first = int(chunk.t_ns[start])
            if self._began is None or (asset != self._asset and first < self._newest):
                self._began = self._clock(), first
            self._asset = chunk.assets[chunk.which[end - 1]]
            due = np.maximum.accumulate(chunk.t_ns[start:end])
            self._newest = int(due[-1])
            at = start
            while at < end:
                began_s, began_ns = self._began
                now_ns = began_ns + round((self._clock() - began_s) * self._speed * 1e9)
                to = start + int(np.searchsorted(due, now_ns, side="right"))
                if to > at:
                    yield at, to
                    at = to
                elif self._wait((int(due[at - start]) - now_ns) / 1e9 / self._speed):
                    return
        if n == 0:
            yield 0, 0
