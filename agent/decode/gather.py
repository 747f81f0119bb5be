"""Single readings of many channels, as some formats bring them, gathered into blocks."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from agent.block import Block


class Channel(NamedTuple):
    """What readings must have in common to be of one channel."""

    asset: str
    name: str
    unit: str
    historical: bool = False


Series = tuple[list[int], list[float]]
"""Times in nanoseconds, and values."""


def gather(channels: Mapping[Channel, Series]) -> list[Block]:
    """Make blocks: channels of an asset that were read at the same times share one.

    What was read at other times stays apart, so that a block is never mostly empty, however a
    payload is made up.

    >>> t = [1, 2]
    >>> pump = {Channel("pump", "flow", "l/s"): (t, [3.0, 4.0]),
    ...         Channel("pump", "speed", "rpm"): (t, [1480.0, 1490.0])}
    >>> gather(pump)[0].channels
    ('flow', 'speed')
    """
    together: dict[tuple[str, bool, tuple[int, ...]], list[dict[str, Channel]]] = {}
    for channel, (t_ns, _) in channels.items():
        blocks = together.setdefault((channel.asset, channel.historical, tuple(t_ns)), [])
        # One name may come in two units (a position as lat and lon): not in one block.
        for block in blocks:
            if channel.name not in block:
                block[channel.name] = channel
                break
        else:
            blocks.append({channel.name: channel})
    return [
        Block(
            asset,
            tuple(block),
            np.array(t_ns, dtype=np.int64),
            np.array([channels[channel][1] for channel in block.values()], dtype=np.float64).T,
            tuple([channel.unit for channel in block.values()]),
            historical,
        )
        for (asset, historical, t_ns), blocks in together.items()
        for block in blocks
    ]
