"""What the main thread took from the intake at once: decoded, in order, and fit for the journal."""

from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.config import AgentConfig
from agent.decode import json as json_format
from agent.intake import Arrival
from contract import topics
from contract.arrays import Floats
from contract.errors import DecodeError
from contract.spec import AssetClass


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


class Event(NamedTuple):
    """A life event, at its place among the readings."""

    pos: int
    asset: str
    t_ns: int
    event: str


class Swap(NamedTuple):
    """A release that begins to judge, or 0: the device's own models again."""

    asset_class: str
    version: int
    digest: str


class Batch(NamedTuple):
    """A micro-batch: it is journalled, processed and committed whole."""

    rows: list[Rows]
    events: list[Event]
    rejected: int = 0
    swap: Swap | None = None

    def encode(self) -> bytes:
        """Return the journal's form."""
        rows = [
            (r.asset, r.t_ns.tobytes(), r.values.tobytes(), r.pos.tobytes(), r.whole.tobytes())
            for r in self.rows
        ]
        return _encoder.encode((rows, self.events, self.rejected, self.swap))

    @classmethod
    def decode(cls, body: bytes) -> "Batch":
        """Read the journal's form."""
        rows, events, rejected, swap = _decoder.decode(body)
        return cls(
            [_rows(*row) for row in rows],
            [Event(*event) for event in events],
            rejected,
            None if swap is None else Swap(*swap),
        )


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(
    tuple[
        list[tuple[str, bytes, bytes, bytes, bytes]],
        list[tuple[int, str, int, str]],
        int,
        tuple[str, int, str] | None,
    ]
)


def _rows(asset: str, t: bytes, values: bytes, pos: bytes, whole: bytes) -> Rows:
    t_ns = np.frombuffer(t, dtype=np.int64)
    return Rows(
        asset,
        t_ns,
        np.frombuffer(values).reshape(len(t_ns), -1),
        np.frombuffer(pos, dtype=np.int64),
        np.frombuffer(whole, dtype=np.bool_),
    )


class _Gathered:
    """The readings of one asset while a batch is put together."""

    __slots__ = ("channels", "empty", "order", "pos", "t", "values", "whole")

    def __init__(self, asset_class: AssetClass) -> None:
        self.channels = {name: i for i, name in enumerate(asset_class.channel_names)}
        self.order = tuple(self.channels)
        self.empty: list[float | None] = [None] * len(self.order)
        self.t: list[int] = []
        self.values: list[float | None] = []
        self.pos: list[int] = []
        self.whole: list[bool] = []


class Rejected(NamedTuple):
    """A message that could not be used, and why."""

    arrival: Arrival
    reason: str
    text: str


class Assembler:
    """Puts batches together from what arrived; what cannot be used is told, never dropped unsaid.

    Attributes:
        unknown_channels: how often a row named a channel its class does not have, per name.
    """

    def __init__(self, config: AgentConfig) -> None:
        self._config = config
        self._future_ns = round(config.limits.future_s * 1e9)
        self._classes: dict[str, AssetClass | None] = {}
        self._targets: dict[str, tuple[str, str] | DecodeError] = {}
        self.unknown_channels: dict[str, int] = {}

    def assemble(self, arrivals: list[Arrival]) -> tuple[Batch, list[Rejected]]:
        """Decode messages into a batch, and name those that could not be."""
        gathered: dict[str, _Gathered] = {}
        events: list[Event] = []
        rejected: list[Rejected] = []
        for pos, arrival in enumerate(arrivals):
            try:
                asset, leaf = self._target(arrival.topic)
                if leaf == topics.EVENT:
                    t_ns, event = json_format.decode_event(arrival.payload, arrival.at_ns)
                    self._check_time(t_ns, arrival.at_ns)
                    events.append(Event(pos, asset, t_ns, event.event))
                elif leaf not in topics.RESULTS:  # our own words, come back to us
                    self._add(gathered, asset, leaf, arrival, pos)
            except DecodeError as error:
                rejected.append(Rejected(arrival, error.reason, str(error)))
        rows = [
            Rows(
                asset,
                np.array(g.t, dtype=np.int64),
                np.array(g.values, dtype=np.float64).reshape(len(g.t), -1),
                np.array(g.pos, dtype=np.int64),
                np.array(g.whole, dtype=np.bool_),
            )
            for asset, g in gathered.items()
        ]
        return Batch(rows, events, len(rejected)), rejected

    def class_of(self, asset: str) -> AssetClass | None:
        """Return the class of an asset, remembered."""
        if asset not in self._classes:
            self._classes[asset] = self._config.class_of(asset)
        return self._classes[asset]

    def _target(self, topic: str) -> tuple[str, str]:
        """Return asset and leaf of a topic; what a topic means is found out once."""
        target = self._targets.get(topic)
        if target is None:
            target = self._resolve(topic)
            if len(self._targets) < 100_000:
                self._targets[topic] = target
        if isinstance(target, DecodeError):
            raise target
        return target

    def _resolve(self, topic: str) -> tuple[str, str] | DecodeError:
        try:
            parsed = topics.parse(topic)
        except DecodeError as error:
            return error
        asset_class = self.class_of(parsed.asset)
        if asset_class is None:
            del self._classes[parsed.asset]  # or anybody's inventions would pile up
            return DecodeError(
                "asset", f"asset {parsed.asset!r} matches no pattern of [assets] in the config"
            )
        known = len([c for c in self._classes.values() if c is not None])
        if known > self._config.limits.assets:
            del self._classes[parsed.asset]
            return DecodeError(
                "asset",
                f"asset {parsed.asset!r}: over limits.assets = {self._config.limits.assets}",
            )
        leaf = parsed.leaf
        if leaf not in topics.RESERVED and leaf not in asset_class.channel_names:
            return DecodeError(
                "channel",
                f"asset class {asset_class.name!r} has no channel {leaf!r}; "
                f"it has {', '.join(asset_class.channel_names)}",
            )
        if leaf in topics.RESERVED - {topics.READINGS, topics.EVENT} - topics.RESULTS:
            return DecodeError("topic", f"nothing is read from {leaf!r} topics")
        return parsed.asset, leaf

    def _check_time(self, t_ns: int, at_ns: int) -> None:
        if t_ns > at_ns + self._future_ns:
            ahead = (t_ns - at_ns) / 1e9
            raise DecodeError(
                "future", f"time is {ahead:.0f} s ahead of this device's clock; set either clock"
            )
        if t_ns <= -(2**62):
            raise DecodeError("time", "time is out of range")

    def _add(
        self,
        gathered: dict[str, _Gathered],
        asset: str,
        leaf: str,
        arrival: Arrival,
        pos: int,
    ) -> None:
        g = gathered.get(asset)
        if g is None:
            asset_class = self._classes[asset]
            if asset_class is None:
                raise DecodeError("asset", f"asset {asset!r} has no class")
            g = _Gathered(asset_class)
        pairs = json_format.decode(arrival.payload, arrival.at_ns)
        if not pairs:
            raise DecodeError("empty", "there is no reading in it")
        # All of a message or nothing of it: it is checked before it is added.
        times = [t for t, _ in pairs]
        self._check_time(max(times), arrival.at_ns)
        self._check_time(min(times), arrival.at_ns)
        if leaf == topics.READINGS:
            rows = [self._row(g, value) for _, value in pairs]
            for row in rows:
                g.values += row
        elif len(g.order) == 1:
            if any(isinstance(value, dict) for _, value in pairs):
                raise DecodeError("type", "a table of channels belongs on the readings topic")
            g.values += [value for _, value in pairs]  # type: ignore[misc]  # no dict among them
        else:
            column = g.channels[leaf]
            for _, value in pairs:
                if isinstance(value, dict):
                    raise DecodeError("type", "a table of channels belongs on the readings topic")
            for _, value in pairs:
                row = g.empty.copy()
                row[column] = value  # type: ignore[assignment]  # see above
                g.values += row
        gathered[asset] = g
        g.t += times
        g.pos += [pos] * len(pairs)
        g.whole += [leaf == topics.READINGS or len(g.order) == 1] * len(pairs)

    def _row(
        self, g: _Gathered, value: float | None | dict[str, float | None]
    ) -> list[float | None]:
        if not isinstance(value, dict):
            raise DecodeError(
                "type", 'a reading of several channels is {"t": ..., "v": {"channel": number}}'
            )
        row = [value.get(name) for name in g.order]
        if len(value) != len(g.order) or value.keys() != g.channels.keys():
            unknown = [name for name in value if name not in g.channels]
            if len(unknown) == len(value):
                raise DecodeError(
                    "channel", f"none of {unknown[:5]} is a channel; there are {', '.join(g.order)}"
                )
            for name in unknown:
                if name in self.unknown_channels or len(self.unknown_channels) < 1000:
                    self.unknown_channels[name] = self.unknown_channels.get(name, 0) + 1
        return row
