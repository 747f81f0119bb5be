"""A recording of engines as messages: dealt to nodes, side by side, one cycle an hour."""

from collections.abc import Iterator, Sequence

from contract.arrays import Floats
from contract.errors import RunoutError
from contract.report import LifeEvent
from simulator.message import Message, life_event, reading
from simulator.recordings.cmapss import CHANNELS, Engine, Split
from simulator.truth import FELT, LifeTruth, Truth

EPOCH = 1_199_145_600
"""2008-01-01T00:00:00Z, the year of the recordings; cycle k is k hours later."""
CYCLE_S = 3600


def asset_name(subset: str, split: Split, unit: int) -> str:
    """Name an engine's asset.

    >>> asset_name("FD001", "train", 7)
    'FD001-train-007'
    """
    return f"{subset}-{split}-{unit:03d}"


def pick(engines: list[Engine], units: Sequence[int] | None) -> list[tuple[int, Engine]]:
    """Return the position in the file and the engine of each unit asked for; None: all."""
    by_unit = {engine.unit: (at, engine) for at, engine in enumerate(engines)}
    wanted = sorted(by_unit) if units is None else units
    missing = [unit for unit in wanted if unit not in by_unit]
    if missing:
        raise RunoutError(
            f"engine {missing[0]} is not in the recording: it holds {min(by_unit)} to"
            f" {max(by_unit)}"
        )
    return [by_unit[unit] for unit in wanted]


def messages(
    engines: Sequence[Engine], subset: str, split: Split, nodes: Sequence[str]
) -> Iterator[Message]:
    """Yield cycle by cycle a row of every living engine; a training engine's end is an event."""
    living = [
        (engine, node_of(engine, nodes), asset_name(subset, split, engine.unit))
        for engine in engines
    ]
    cycle = 0
    while living:
        t = EPOCH + (cycle + 1) * CYCLE_S
        for engine, node, asset in living:
            values = dict(zip(CHANNELS, engine.values[cycle].tolist(), strict=True))
            yield reading(t, node, asset, values)
            if split == "train" and cycle + 1 == len(engine):
                # The last cycle has a remaining life of 0: it is the time of the failure.
                yield life_event(node, asset, LifeEvent("failed", t))
        cycle += 1
        living = [one for one in living if len(one[0]) > cycle]


def node_of(engine: Engine, nodes: Sequence[str]) -> str:
    """Deal engines to nodes in turn by their number."""
    return nodes[(engine.unit - 1) % len(nodes)]


def truth(
    engines: Sequence[Engine],
    left: Floats | None,
    subset: str,
    split: Split,
    nodes: Sequence[str],
    site: str,
) -> Truth:
    """Return what is known of the engines; ``left`` are cycles to failure, None for 0."""
    lives = []
    for at, engine in enumerate(engines):
        rul_h = 0.0 if left is None else float(left[at])
        last_t = EPOCH + len(engine) * CYCLE_S
        lives.append(
            LifeTruth(
                node=node_of(engine, nodes),
                asset=asset_name(subset, split, engine.unit),
                life=0,
                phase=split,
                fault=None,
                started_t=EPOCH + CYCLE_S,
                fault_began_t=None,
                felt_t=None,
                failure_t=last_t + rul_h * 3600,
                played_until_t=last_t,
                rows=len(engine),
                failed=split == "train",
                rul_h=rul_h,
                severity=None,
                channels=(),
            )
        )
    return Truth(f"cmapss {subset}", site, None, split, FELT, tuple(lives))
