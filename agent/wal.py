"""Is a write-ahead log of SQLite whole? SQLite itself stops at the first bad frame, and is silent.

After a kill the last commit may be cut off, and that is as it should be. A bad frame that good
ones follow is damage: commits that were whole, and acknowledged, are behind it.
Source: https://www.sqlite.org/fileformat2.html#walformat
"""

import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_HEAD, _FRAME_HEAD = 32, 24
_MAGIC = {0x377F0682: "<u4", 0x377F0683: ">u4"}

Words = NDArray[np.uint32]


class Damage(NamedTuple):
    """Where a log cannot be read.

    Attributes:
        first: index of the first bad frame.
        frames: of this generation in the log, bad ones included.
        inside: whether a whole commit follows it: then it is not the end that was cut off.
    """

    first: int
    frames: int
    inside: bool


@functools.lru_cache(2)
def _weights(words: int) -> tuple[Words, Words]:
    """Return what each word, and the sums before, contribute to the two sums.

    The sums ``s0 += x0 + s1; s1 += x1 + s0`` are linear modulo 2**32.

    Returns:
        ``(words, 2)`` and ``(2, 2)``.
    """
    weight = np.empty((words, 2), dtype=np.uint32)
    a, b, c, d = 1, 0, 0, 1  # powers of [[1, 1], [1, 2]]
    for at in range(words - 2, -1, -2):
        # x0 goes into s0, and with it into s1; x1 goes into s1.
        weight[at] = (a + b) & 0xFFFFFFFF, (c + d) & 0xFFFFFFFF
        weight[at + 1] = b, d
        a, b, c, d = (v & 0xFFFFFFFF for v in (a + b, a + 2 * b, c + d, c + 2 * d))
    return weight, np.array([[a, c], [b, d]], dtype=np.uint32)


def _sums(words: Words, before: Words) -> Words:
    """Return the checksums ``(n, 2)`` of rows of words ``(n, w)`` behind sums ``(n, 2)``."""
    weight, carry = _weights(words.shape[1])
    found: Words = words @ weight + before @ carry
    return found


def damage_of(path: Path) -> Damage | None:
    """Return where a log cannot be read, or None: it can, or there is none."""
    if not path.exists():
        return None
    content = path.read_bytes()
    kind = _MAGIC.get(int.from_bytes(content[:4], "big"))
    page = int.from_bytes(content[8:12], "big")
    if kind is None or not 512 <= page <= 65536:
        return None  # SQLite begins it anew
    size = _FRAME_HEAD + page
    frames = np.frombuffer(content[_HEAD : _HEAD + (len(content) - _HEAD) // size * size], np.uint8)
    frames = frames.reshape(-1, size)
    salts = np.frombuffer(content[16:24], np.uint8)
    # Behind the last one of this generation lie those of the one before.
    ours = (frames[:, 8:16] == salts).all(axis=1)
    count = len(ours) if ours.all() else int(np.argmin(ours))
    if not count:
        return None
    frames = frames[:count]
    stored = np.ascontiguousarray(frames[:, 16:24]).view(">u4").astype(np.uint32)
    first = np.frombuffer(content[24:32], ">u4").astype(np.uint32)
    before = np.concatenate([first[None, :], stored[:-1]])
    words = np.ascontiguousarray(np.concatenate([frames[:, :8], frames[:, 24:]], axis=1))
    good = (_sums(words.view(kind).astype(np.uint32), before) == stored).all(axis=1)
    if good.all():
        return None
    bad = int(np.argmin(good))
    commits = np.ascontiguousarray(frames[:, 4:8]).view(">u4")[:, 0] > 0
    return Damage(bad, count, bool((good & commits)[bad + 1 :].any()))
