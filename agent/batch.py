"""What the main thread took from the intake at once: decoded, in order, and fit for the journal."""

import math
from collections.abc import Callable, Collection
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.intake import Arrival
from contract.arrays import Floats
from contract.errors import ContractError


class Rows(NamedTuple):
    """Readings of one asset, in the order of arrival.

    Attributes:
        asset: which.
        t_ns: ``(n,)``.
        values: ``(n, C)``, NaN where a message said nothing of a channel.
        pos: ``(n,)`` index in the batch of the message each came with.
        whole: ``(n,)`` whether the message spoke of all the channels it ever would at that time.
    """

    asset: str
    t_ns: NDArray[np.int64]
    values: Floats
    pos: NDArray[np.int64]
    whole: NDArray[np.bool_]

    def piece(self, start: int, end: int) -> "Rows":
        """Return some of the rows."""
        part = slice(start, end)
        return Rows(
            self.asset, self.t_ns[part], self.values[part], self.pos[part], self.whole[part]
        )


GONE = "gone"
"""In an event: who sent an asset's readings says that none will come."""


class Event(NamedTuple):
    """A life event, a command or a verdict, at its place among the readings; or ``GONE``.

    Attributes:
        pos: index in the batch of the message it came with.
        asset: which.
        t_ns: its own time.
        event: in a word; see ``agent.commands``.
        detail: JSON of all of it; empty where the word says it all.
    """

    pos: int
    asset: str
    t_ns: int
    event: str
    detail: bytes = b""


class Shot(NamedTuple):
    """A burst of a waveform, at its place among the readings.

    Attributes:
        pos: index in the batch of the message it came with.
        asset: which.
        wave: index of the waveform in the asset's class.
        t_ns: of the first sample.
        samples: ``(n,)`` in the class's unit; empty in a journal that keeps no waveforms.
        features: ``(F,)``, once it was processed; NaN if it is bad.
        reason: why it is bad, once it was processed; 0: it is not. See ``agent.clean.Reason``.
        rpm: of the shaft, once it was processed, for who looks; the journal does without.
    """

    pos: int
    asset: str
    wave: int
    t_ns: int
    samples: NDArray[np.float32]
    features: Floats | None = None
    reason: int = 0
    rpm: float = math.nan


class Swap(NamedTuple):
    """A release that begins to judge, or 0: the device's own models again."""

    asset_class: str
    version: int
    digest: str


class Clock(NamedTuple):
    """What the device's clock said as the messages of a batch came.

    Attributes:
        at_ns: when the last of them did.
        back: before which of them, by position, it went back, and to where.
        ahead: positions of those whose own time was ahead of it.
    """

    at_ns: int
    back: tuple[tuple[int, int], ...] = ()
    ahead: frozenset[int] = frozenset()


class Batch(NamedTuple):
    """A micro-batch: it is journalled, processed and committed whole."""

    rows: list[Rows]
    events: list[Event]
    rejected: int = 0
    swap: Swap | None = None
    shots: list[Shot] = []  # noqa: RUF012  # never written to
    facts: dict[str, list[tuple[int, dict[str, float]]]] | None = None
    """Slow facts, as ``agent.facts`` has them, in place of all that were known; None: as they
    were."""
    clock: Clock | None = None
    """None: nothing came by itself, or it was journalled before this was."""

    def encode(self, *, waveforms: bool = True) -> bytes:
        """Return the journal's form; without ``waveforms`` the features of bursts only.

        Raises:
            ValueError: a burst is to be left out before its features are known.
        """
        rows = [
            (r.asset, r.t_ns.tobytes(), r.values.tobytes(), r.pos.tobytes(), r.whole.tobytes())
            for r in self.rows
        ]
        shots = [_shot_out(shot, waveforms=waveforms) for shot in self.shots]
        clock = self.clock and (self.clock.at_ns, self.clock.back, sorted(self.clock.ahead))
        return _encoder.encode(
            (rows, self.events, self.rejected, self.swap, shots, self.facts, clock)
        )

    @classmethod
    def decode(cls, body: bytes) -> "Batch":
        """Read the journal's form; raises ``ContractError`` where it is another's."""
        try:
            told = _decoder.decode(body)
            return cls(
                [_rows(*row) for row in told.rows],
                [Event(*event) for event in told.events],
                told.rejected,
                None if told.swap is None else Swap(*told.swap),
                [_shot_in(*shot) for shot in told.shots],
                told.facts,
                None if told.clock is None else Clock(*told.clock),
            )
        except (msgspec.DecodeError, ValueError) as error:  # ValueError: arrays cut short
            raise ContractError(f"a journalled batch cannot be read: {error}") from error

    def only(self, wanted: Callable[[str], bool], classes: Collection[str]) -> "Batch":
        """Return what is of some assets, and a swap if it is of one of some classes."""
        swap = self.swap if self.swap is not None and self.swap.asset_class in classes else None
        return Batch(
            [part for part in self.rows if wanted(part.asset)],
            [event for event in self.events if wanted(event.asset)],
            self.rejected,
            swap,
            [shot for shot in self.shots if wanted(shot.asset)],
            self.facts,
            self.clock,
        )


class _Told(msgspec.Struct, array_like=True):
    """A batch as it stands in the journal; what an older one does not end with is its default."""

    rows: list[tuple[str, bytes, bytes, bytes, bytes]]
    events: list[tuple[int, str, int, str, bytes]]
    rejected: int
    swap: tuple[str, int, str] | None
    shots: list[tuple[int, str, int, int, bytes, bytes, int]]
    facts: dict[str, list[tuple[int, dict[str, float]]]] | None
    clock: tuple[int, tuple[tuple[int, int], ...], frozenset[int]] | None = None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Told)


def _shot_out(shot: Shot, *, waveforms: bool) -> tuple[int, str, int, int, bytes, bytes, int]:
    if waveforms:
        return (*shot[:4], shot.samples.tobytes(), b"", 0)
    if shot.features is None:
        raise ValueError("a burst can be left out of the journal only once its features are known")
    return (*shot[:4], b"", shot.features.tobytes(), shot.reason)


def _shot_in(  # as it stands in the journal
    pos: int, asset: str, wave: int, t_ns: int, samples: bytes, features: bytes, reason: int
) -> Shot:
    found = np.frombuffer(features) if features else None
    return Shot(pos, asset, wave, t_ns, np.frombuffer(samples, dtype=np.float32), found, reason)


def _rows(asset: str, t: bytes, values: bytes, pos: bytes, whole: bytes) -> Rows:
    t_ns = np.frombuffer(t, dtype=np.int64)
    return Rows(
        asset,
        t_ns,
        np.frombuffer(values).reshape(len(t_ns), -1),
        np.frombuffer(pos, dtype=np.int64),
        np.frombuffer(whole, dtype=np.bool_),
    )


class Rejected(NamedTuple):
    """A message that could not be used, and why."""

    arrival: Arrival
    reason: str
    text: str
