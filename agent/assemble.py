"""Decode what arrived, and put it together into a batch that is fit for the journal.

What cannot be used is told, never dropped unsaid: a message is used whole or not at all, but for
formats of one reading a line, where a bad line costs no other.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent import commands
from agent.batch import GONE, Batch, Event, Rejected, Rows, Shot
from agent.block import Block, Burst
from agent.clock import AHEAD_NS, DeviceClock
from agent.config import AgentConfig
from agent.decode import cobs, csv, waveform
from agent.decode import json as json_format
from agent.intake import Arrival
from agent.routes import Routes, Target
from agent.sources.source import loud
from contract import topics, units
from contract.arrays import Floats
from contract.errors import DecodeError
from contract.spec import AssetClass, Waveform

if TYPE_CHECKING:
    from agent.sparkplug.host import Host
    from agent.sparkplug.schema import Message
    from agent.sparkplug.session import Gone, Heard

log = logging.getLogger("runout.assemble")

Found = Sequence[Block | Burst]
Refused = list[tuple[bytes, DecodeError]]

MOST_TOPICS = 100_000
"""Whose meaning is remembered."""
RATE_TOLERANCE = 1e-3
"""Share by which a burst's rate may differ from the declared one."""
LOST = "spBv1.0/#lost"
"""Arrives where the connection to Sparkplug's nodes was lost; no topic of a broker can be this."""
STORED = frozenset({"sparkplug", "cobs"})
"""Formats in which a sender can say that a reading is from its own store."""


class Columns:
    """Where the values of a payload's channels go in a row of an asset class, and in which unit.

    Args:
        spec: of the class.
        channels: of the payload.
        given: their units, or (); "" for one: the class's.
        bursts: the features of bursts are channels, too, by the names of their columns.

    Attributes:
        at: column per channel that is known.
        known: which of the payload's channels those are; None: all, in the order of the row.
        factor: value times this ...
        offset: ... plus this is the value in the class's unit; both None where none is converted.
        unknown: channels that the class does not have.
    """

    __slots__ = ("at", "factor", "known", "offset", "unknown")

    def __init__(
        self,
        spec: AssetClass,
        channels: tuple[str, ...],
        given: tuple[str, ...],
        *,
        bursts: bool = False,
    ) -> None:
        if not channels:
            raise DecodeError("channel", "it names no channel")
        columns = spec.columns if bursts else spec.channels
        place = {column.name: i for i, column in enumerate(columns)}
        self.unknown = [name for name in channels if name not in place]
        if len(self.unknown) == len(channels):
            waves = "".join(f", waveform {wave.name}" for wave in spec.waveforms)
            raise DecodeError(
                "channel",
                f"asset class {spec.name!r} has no channel {channels[0]!r}; "
                f"it has {', '.join(place)}{waves}",
            )
        if len(set(channels)) != len(channels):
            raise DecodeError("channel", f"a channel stands twice among {channels}")
        known = [i for i, name in enumerate(channels) if name in place]
        self.at = np.array([place[channels[i]] for i in known])
        in_order = len(known) == len(channels) == len(spec.columns)
        self.known = None if in_order and (np.diff(self.at) == 1).all() else np.array(known)
        self.factor: Floats | None = None
        self.offset: Floats | None = None
        wanted = [columns[i].unit for i in self.at]
        told = [(given[i] if given else "") or unit for i, unit in zip(known, wanted, strict=True)]
        if told != wanted:
            pairs = [
                _conversion(channels[i], *pair)
                for i, *pair in zip(known, told, wanted, strict=True)
            ]
            self.factor, self.offset = (np.array(part) for part in zip(*pairs, strict=True))

    def rows(self, values: Floats, width: int) -> Floats:
        """Return values ``(n, channels)`` as rows ``(n, width)``, NaN where nothing is said."""
        if self.known is not None:
            values = values[:, self.known]
        if self.factor is not None and self.offset is not None:
            values = values * self.factor + self.offset
        if self.known is None:
            return values
        out = np.full((len(values), width), np.nan)
        out[:, self.at] = values
        return out


def _conversion(channel: str, told: str, wanted: str) -> tuple[float, float]:
    try:
        return units.convert(told, wanted)
    except ValueError as error:
        raise DecodeError("unit", f"channel {channel!r}: {error}") from error


class _Gathered:
    """The readings of one asset while a batch is put together."""

    __slots__ = ("asset_class", "empty", "parts", "place", "pos", "t", "values", "whole", "width")

    def __init__(self, asset_class: AssetClass) -> None:
        self.asset_class = asset_class
        self.width = len(asset_class.columns)
        self.place = {channel.name: i for i, channel in enumerate(asset_class.channels)}
        self.empty: list[float | list[float | None] | None] = [None] * self.width
        self.parts: list[tuple[NDArray[np.int64], Floats, NDArray[np.int64], NDArray[np.bool_]]]
        self.parts = []
        self.t: list[int] = []
        self.values: list[float | list[float | None] | None] = []  # no list among them
        self.pos: list[int] = []
        self.whole: list[bool] = []

    def add(self, t_ns: NDArray[np.int64], values: Floats, pos: int, *, whole: bool) -> None:
        """Add rows ``(n, width)``."""
        self._gather()
        n = len(t_ns)
        self.parts.append((t_ns, values, np.full(n, pos), np.full(n, whole)))

    def add_row(
        self, t_ns: int, row: list[float | list[float | None] | None], pos: int, *, whole: bool
    ) -> None:
        """Add the values of the channels, in their order; None: nothing is said."""
        self.t.append(t_ns)
        self.values += row
        if len(row) < self.width:
            self.values += [None] * (self.width - len(row))
        self.pos.append(pos)
        self.whole.append(whole)

    def _gather(self) -> None:
        if self.t:
            self.parts.append(
                (
                    np.array(self.t, dtype=np.int64),
                    np.array(self.values, dtype=np.float64).reshape(len(self.t), -1),
                    np.array(self.pos, dtype=np.int64),
                    np.array(self.whole, dtype=np.bool_),
                )
            )
            self.t, self.values, self.pos, self.whole = [], [], [], []

    def rows(self, asset: str) -> Rows:
        """Return everything, in the order of arrival."""
        self._gather()
        if len(self.parts) == 1:
            return Rows(asset, *self.parts[0])
        t, values, pos, whole = zip(*self.parts, strict=True)
        return Rows(
            asset, np.concatenate(t), np.concatenate(values), np.concatenate(pos),
            np.concatenate(whole),
        )  # fmt: skip


class Assembler:
    """Puts batches together from what arrived.

    Args:
        config: of the agent.
        clock: of the device, held against what comes; None: one that knows nothing yet.
        assets: that the agent knows; of another nothing is done but to take its readings, and to
            begin its life. None: of any that matches a pattern.

    Attributes:
        clock: that one.
        unknown_channels: how often a message named a channel its class does not have, per name.
        left_out: values that nothing was made of, by reason: of those channels; and of Sparkplug
            what is no number, or may mean something else than before.
        filters: topic filters to subscribe to, with the quality of service.
        host: to Sparkplug's edge nodes, or None.
        say: what is to be published in answer: Sparkplug's requests.
    """

    def __init__(
        self,
        config: AgentConfig,
        clock: DeviceClock | None = None,
        *,
        assets: Collection[str] | None = None,
    ) -> None:
        self._config = config
        self._assets = assets
        self._taken_on: set[str] = set()
        """Assets that batches were put together of; bounded by ``limits.assets``."""
        self._routes = Routes(config)
        self.clock = clock or DeviceClock(round(config.limits.future_s * 1e9))
        self._classes: dict[str, AssetClass] = {}
        self._targets: dict[tuple[str, str], Target] = {}
        self._columns: dict[tuple[str, tuple[str, ...], tuple[str, ...]], Columns] = {}
        self.unknown_channels: dict[str, int] = {}
        self._faults = 0
        self.left_out: dict[str, int] = {}
        self._newest: dict[str, int] = {}
        """By asset, of readings in formats that may bring stored ones behind new ones."""
        self._gone: list[Gone] = []
        self.say: list[Message] = []
        sparkplug = config.mqtt.sparkplug
        self.host: Host | None = None
        if sparkplug is not None:
            from agent.sparkplug import host  # noqa: PLC0415  # 10 MB that few devices need

            edge = config.mqtt.sparkplug_edge
            self.host = host.Host(
                sparkplug.host_id,
                sparkplug.groups,
                asset=sparkplug.asset,
                reorder_s=sparkplug.reorder_s,
                history_s=sparkplug.history_s,
                own=("", "") if edge is None else (edge.group_id, edge.edge_node_id),
            )
        self.filters = self._routes.filters
        self._decoders: dict[str, Callable[[bytes, int, Target, Refused], Found]] = {
            "auto": self._auto,
            "json": _json,
            "lines": _lines,
            "senml+json": _senml_json,
            "senml+cbor": _senml_cbor,
            "csv": _csv,
            "cobs": _cobs,
            "waveform": lambda payload, at_ns, _t, _r: waveform.decode(payload, at_ns),
        }

    def assemble(self, arrivals: list[Arrival]) -> tuple[Batch, list[Rejected]]:
        """Decode messages into a batch, and name those that could not be."""
        gathered: dict[str, _Gathered] = {}
        events: list[Event] = []
        shots: list[Shot] = []
        rejected: list[Rejected] = []
        for pos, arrival in enumerate(arrivals):
            refused: Refused = []
            self.clock.meet(pos, arrival.topic, arrival.at_ns)
            try:
                target = self._target(arrival)
                if target.leaf in topics.SPOKEN:
                    events.append(self._event(target, arrival, pos))
                elif target.leaf not in topics.RESULTS:  # our own words, come back to us
                    self._take(target, arrival, pos, gathered, shots, refused)
            except DecodeError as error:
                rejected.append(Rejected(arrival, error.reason, str(error)))
            except Exception as error:  # noqa: BLE001
                # Ours, but no restart would mend it: the broker brings the same message again, and
                # the agent would end at it for ever. Nothing of it is taken, so that no state is
                # in doubt; it is told with its trace, and kept aside for who is to mend this.
                rejected.append(self._fault(arrival, error))
            if self._gone:
                events += self._take_gone(pos, arrival.at_ns)
            for line, wrong in refused:
                part = arrival._replace(payload=line)
                rejected.append(Rejected(part, wrong.reason, str(wrong)))
        rows = [g.rows(asset) for asset, g in gathered.items() if g.t or g.parts]
        clock = self.clock.taken()
        return Batch(rows, events, len(rejected), shots=shots, clock=clock), rejected

    def _fault(self, arrival: Arrival, error: Exception) -> Rejected:
        self._faults += 1
        if loud(self._faults - 1, self._faults):
            log.error(
                "a fault of this program: a message was put aside",
                extra={"topic": arrival.topic, "times": self._faults},
                exc_info=error,
            )
        if self.host is not None and arrival.topic.startswith("spBv1.0/"):
            self.host.forget(arrival.topic)
        kind = type(error).__name__
        return Rejected(arrival, "fault", f"{kind}: {error}: please report it, with the message")

    def tick(self, at_ns: int) -> tuple[Batch, list[Rejected]]:
        """Return what Sparkplug held back until now, for messages that did not come."""
        return self._held(self.host.tick(at_ns), at_ns) if self.host else (Batch([], []), [])

    def flush(self, at_ns: int) -> tuple[Batch, list[Rejected]]:
        """Return what Sparkplug holds back, before leaving."""
        return self._held(self.host.flush(), at_ns) if self.host else (Batch([], []), [])

    def _held(self, heard: "Heard", at_ns: int) -> tuple[Batch, list[Rejected]]:
        gathered: dict[str, _Gathered] = {}
        shots: list[Shot] = []
        refused: Refused = []
        target = Target("", format="sparkplug")
        found = self._heard(heard, refused)
        self._put_each(found, target, at_ns, 0, gathered, shots, refused)
        arrival = Arrival("spBv1.0/held", b"", 0, at_ns)
        rejected = [Rejected(arrival, error.reason, str(error)) for _, error in refused]
        rows = [g.rows(asset) for asset, g in gathered.items() if g.t or g.parts]
        gone, clock = self._take_gone(0, at_ns), self.clock.taken()
        return Batch(rows, gone, len(rejected), shots=shots, clock=clock), rejected

    def _heard(self, heard: "Heard", refused: Refused) -> Found:
        """Take what follows from a message beside its readings; return these."""
        self.say += heard.say
        self._gone += heard.gone
        self._leave_out("sparkplug", heard.left_out)
        # Of messages that waited for this one; their payloads are gone.
        refused += [(b"", error) for error in heard.refused]
        return heard.readings

    def _take_gone(self, pos: int, at_ns: int) -> list[Event]:
        """Return as events which assets are gone, among those of which anything was read.

        What a message told of an asset before that stands at the same position: the event goes
        behind it.
        """
        gone, self._gone = self._gone, []
        events = [
            Event(pos + (not one.over), one.asset, min(one.t_ns, at_ns), GONE)
            for one in gone
            if one.asset in self._classes
        ]
        return sorted(events, key=lambda event: event.pos)

    def _leave_out(self, reason: str, count: int) -> None:
        if count:
            self.left_out[reason] = self.left_out.get(reason, 0) + count

    def class_of(self, asset: str) -> AssetClass:
        """Return the class of an asset; raises ``DecodeError`` where there is none."""
        found = self._classes.get(asset)
        if found is not None:
            return found
        try:
            topics.check_name(asset, "asset")
        except ValueError as error:
            raise DecodeError("asset", str(error)) from error
        found = self._config.class_of(asset)
        if found is None:
            raise DecodeError(
                "asset", f"asset {asset!r} matches no pattern of [assets] in the config"
            )
        if len(self._classes) < MOST_TOPICS:
            self._classes[asset] = found
        return found

    def _knows(self, asset: str) -> bool:
        return asset in self._taken_on or (self._assets is not None and asset in self._assets)

    def _take_on(self, assets: Iterable[str]) -> None:
        """Let there be these assets: all, or none where they would be too many."""
        new = {asset for asset in assets if not self._knows(asset)}
        if not new:
            return
        most = self._config.limits.assets
        if len(self._taken_on.union(self._assets or ())) + len(new) > most:
            raise DecodeError("asset", f"asset {min(new)!r}: over limits.assets = {most}")
        self._taken_on |= new

    def _target(self, arrival: Arrival) -> Target:
        if arrival.over:
            raise DecodeError("size", f"a message of {arrival.over} bytes is too large")
        key = arrival.topic, arrival.source
        target = self._targets.get(key)
        if target is None:
            target = self._routes.target(*key)
            if target.asset:
                self._check_leaf(target)
            if len(self._targets) < MOST_TOPICS:
                self._targets[key] = target
        if arrival.retained:
            self._check_retained(target, arrival)
        return target

    def _check_retained(self, target: Target, arrival: Arrival) -> None:
        """Refuse a retained message whose time is that of its arrival: it is older, by any age.

        It would be a new reading, or a new event, each time the agent connects.
        """
        if target.format == "sparkplug" or target.leaf in topics.RESULTS:
            return
        times = [
            self._times_of(target, arrival.payload, arrival.at_ns + later) for later in (0, 10**9)
        ]
        if times[0] != times[1]:
            raise DecodeError(
                "retained",
                "the broker kept it (retained), and it does not say of when it is: publish it "
                "without the retain flag, or with its time",
            )

    def _times_of(self, target: Target, payload: bytes, at_ns: int) -> list[int]:
        if target.leaf in topics.SPOKEN:
            return [commands.decode(target.leaf, payload, at_ns)[0]]
        found = self._decoders[target.format](payload, at_ns, target, [])
        times: list[int] = []
        for one in found:
            times += [one.t_ns] if isinstance(one, Burst) else one.t_ns.tolist()
        return times

    def _check_leaf(self, target: Target) -> None:
        spec = self.class_of(target.asset)
        leaf = target.leaf
        if leaf in topics.RESERVED - {topics.READINGS} - topics.SPOKEN - topics.RESULTS:
            raise DecodeError("topic", f"nothing is read from {leaf!r} topics")
        waves = {wave.name for wave in spec.waveforms}
        if leaf and leaf not in topics.RESERVED and leaf not in waves:
            self._place(spec, (leaf,), ())

    def _event(self, target: Target, arrival: Arrival, pos: int) -> Event:
        t_ns, word, detail = commands.decode(target.leaf, arrival.payload, arrival.at_ns)
        self._check_time(t_ns, t_ns, arrival.at_ns, pos, target.asset)
        if word == "started":  # a life may be said to begin before its first reading
            self._take_on((target.asset,))
        elif self._assets is not None and not self._knows(target.asset):
            raise DecodeError(
                "asset",
                f"{word!r} of asset {target.asset!r}, of which no reading has come: is that its "
                "name?",
            )
        return Event(pos, target.asset, t_ns, word, detail)

    def _check_time(self, first_ns: int, last_ns: int, at_ns: int, pos: int, asset: str) -> None:
        if last_ns > at_ns + AHEAD_NS:
            self.clock.check(pos, asset, last_ns, at_ns)
        if first_ns <= -(2**62):
            raise DecodeError("time", "time is out of range")

    def _take(
        self,
        target: Target,
        arrival: Arrival,
        pos: int,
        gathered: dict[str, _Gathered],
        shots: list[Shot],
        refused: Refused,
    ) -> None:
        blocks: Found
        if target.format == "sparkplug":
            blocks = self._sparkplug(arrival, refused)
        elif target.format == "auto" and _is_json(arrival):
            found = json_format.decode(arrival.payload, arrival.at_ns)
            if isinstance(found, tuple):  # one moment: what most messages are of
                if self._add_one(found, target, arrival, pos, gathered):
                    return
                found = [_named(found)]
            blocks = found
        else:
            blocks = self._decoders[target.format](arrival.payload, arrival.at_ns, target, refused)
        if not blocks and not refused and target.format != "sparkplug":
            raise DecodeError("empty", "there is no reading in it")
        if self._gone:  # a death: the readings are of messages before it
            self._put_each(blocks, target, arrival.at_ns, pos, gathered, shots, refused)
            return
        self._put(blocks, target, arrival.at_ns, pos, gathered, shots, refused)

    def _put(
        self,
        blocks: Found,
        target: Target,
        at_ns: int,
        pos: int,
        gathered: dict[str, _Gathered],
        shots: list[Shot],
        refused: Refused,
    ) -> None:
        """Add blocks and bursts: all of a message or nothing of it, but for what is too old."""
        if len(blocks) > 1 or target.format == "sparkplug":
            blocks = self._known(blocks, target)
        if target.format in STORED and any(isinstance(b, Block) and b.historical for b in blocks):
            blocks = sorted(blocks, key=_begins_ns)  # what was stored first, beside what is new
        ready = [self._ready(block, target, at_ns, pos) for block in blocks]
        self._take_on(one.asset if isinstance(one, Shot) else one[0] for one in ready)
        for block, one in zip(blocks, ready, strict=True):
            if isinstance(one, Shot):
                shots.append(one._replace(pos=pos))
                continue
            asset, t_ns, values = one
            if target.format in STORED and isinstance(block, Block):
                fresh = self._fresh(asset, t_ns, refused, historical=block.historical)
                t_ns, values = t_ns[fresh], values[fresh]
            if len(t_ns):
                self._gathered(asset, gathered).add(t_ns, values, pos, whole=target.whole)

    def _put_each(
        self,
        blocks: Found,
        target: Target,
        at_ns: int,
        pos: int,
        gathered: dict[str, _Gathered],
        shots: list[Shot],
        refused: Refused,
    ) -> None:
        """Add blocks and bursts of several messages: what is wrong with one costs no other."""
        for block in blocks:
            try:
                self._put([block], target, at_ns, pos, gathered, shots, refused)
            except DecodeError as error:
                refused.append((b"", error))

    def _fresh(
        self, asset: str, t_ns: NDArray[np.int64], refused: Refused, *, historical: bool
    ) -> NDArray[np.bool_]:
        """Return which readings from a sender's store are not behind what was read since."""
        fresh = np.ones(len(t_ns), dtype=np.bool_)
        if historical:
            spec = self.class_of(asset)
            newest = self._newest.get(asset, -(2**63))
            fresh = t_ns > newest - round((spec.wait_s + spec.every_s) * 1e9)
            late = len(t_ns) - int(fresh.sum())
            if late:
                text = (
                    f"{late} readings of {asset!r} from its sender's store are older than what was "
                    "read since: what is stored is to be sent before what is new"
                )
                refused.append((b"", DecodeError("historical", text)))
        if fresh.any():
            self._newest[asset] = max(int(t_ns[fresh].max()), self._newest.get(asset, -(2**63)))
        return fresh

    def _known(self, blocks: Found, target: Target) -> Found:
        """Leave out blocks of channels that the class does not have, beside others that it has.

        As a row is used for the channels that are known. A Sparkplug node tells of all it has,
        changes one by one: there it is no fault if none is known.
        """
        known: list[Block | Burst] = []
        strange: list[tuple[str, tuple[str, ...], int]] = []
        for block in blocks:
            asset = block.asset or target.asset
            names = block.channels if isinstance(block, Block) else (block.channel,)
            spec = self.class_of(asset) if asset and all(names) else None
            if (
                spec is None
                or any(channel.name in names for channel in spec.channels)
                or any(wave.name in names for wave in spec.waveforms)
            ):
                known.append(block)
            else:
                strange.append((asset, names, len(block.t_ns) if isinstance(block, Block) else 1))
        if not known and target.format != "sparkplug":
            return blocks
        for one in strange:
            self._note_unknown(*one)
        return known

    def _note_unknown(self, _asset: str, names: Sequence[str], times: int) -> None:
        """Count channels that the class of an asset does not have."""
        self._leave_out("unknown channel", times * len(names))
        for name in names:
            if name in self.unknown_channels or len(self.unknown_channels) < 1000:
                self.unknown_channels[name] = self.unknown_channels.get(name, 0) + times

    def _add_one(
        self,
        found: json_format.Reading,
        target: Target,
        arrival: Arrival,
        pos: int,
        gathered: dict[str, _Gathered],
    ) -> bool:
        """Add one moment of an asset that the topic names, if it is as plain as that."""
        if target.units or not target.asset:
            return False
        g = gathered.get(target.asset)
        if g is None:
            g = _Gathered(self.class_of(target.asset))
        t_ns, value = found
        if isinstance(value, dict):
            if target.leaf != topics.READINGS or value.keys() != g.place.keys():
                return False
            row = [value[name] for name in g.place]
        else:
            column = g.place.get(target.leaf)
            if column is None:
                return False
            row = g.empty.copy()
            row[column] = value
        self._check_time(t_ns, t_ns, arrival.at_ns, pos, target.asset)
        if target.asset not in gathered:
            self._take_on((target.asset,))
            gathered[target.asset] = g
        g.add_row(t_ns, row, pos, whole=target.whole or g.width == 1)
        return True

    def _gathered(self, asset: str, gathered: dict[str, _Gathered]) -> _Gathered:
        g = gathered.get(asset)
        if g is None:
            g = gathered[asset] = _Gathered(self.class_of(asset))
        return g

    def _ready(
        self, found: Block | Burst, target: Target, at_ns: int, pos: int
    ) -> Shot | tuple[str, NDArray[np.int64], Floats]:
        asset = found.asset or target.asset
        if not asset:
            raise DecodeError("asset", "it is not said which asset it is of")
        spec = self.class_of(asset)
        leaf = "" if target.leaf == topics.READINGS else target.leaf
        if isinstance(found, Burst):
            self._check_time(found.t_ns, found.t_ns, at_ns, pos, asset)
            return shot_of(spec, asset, found, found.channel or leaf, target)
        if not len(found.t_ns):
            raise DecodeError("empty", "there is no reading in it")
        self._check_time(int(found.t_ns.min()), int(found.t_ns.max()), at_ns, pos, asset)
        names = found.channels
        if not names:
            raise DecodeError("channel", "it names no channel")
        if names == ("",):
            if not leaf:
                raise DecodeError(
                    "type",
                    'a reading of several channels is {"t": ..., "v": {"channel": number}}'
                    if target.whole
                    else "it is not said which channel it is of",
                )
            names = (leaf,)
        elif leaf and names != (leaf,):
            raise DecodeError("type", "a table of channels belongs on the readings topic")
        if any(wave.name == names[0] for wave in spec.waveforms):
            return shot_of(spec, asset, _as_burst(found, names[0]), names[0], target)
        given = found.units
        if target.units:
            given = tuple(
                (unit or target.units.get(name, ""))
                for name, unit in zip(names, given or ("",) * len(names), strict=True)
            )
        columns = self._place(spec, names, given)
        self._note_unknown(asset, columns.unknown, len(found.t_ns))
        return asset, found.t_ns, columns.rows(found.values, len(spec.columns))

    def _place(self, spec: AssetClass, names: tuple[str, ...], given: tuple[str, ...]) -> Columns:
        key = (spec.name, names, given)
        columns = self._columns.get(key)
        if columns is None:
            columns = Columns(spec, names, given)
            if len(self._columns) < MOST_TOPICS:
                self._columns[key] = columns
        return columns

    def _sparkplug(self, arrival: Arrival, refused: Refused) -> Found:
        if self.host is None:
            raise DecodeError("topic", "Sparkplug is not configured: [mqtt.sparkplug]")
        if arrival.topic == LOST:
            return self._heard(self.host.lost(arrival.at_ns), refused)
        heard = self.host.receive(arrival.topic, arrival.payload, arrival.at_ns)
        return self._heard(heard, refused)

    def _auto(self, payload: bytes, at_ns: int, target: Target, refused: Refused) -> Found:
        head = payload[:2]
        if head == MAGIC:
            return waveform.decode(payload, at_ns)
        if head[:1] and 0x80 <= head[0] <= 0x9F:
            return _senml_cbor(payload, at_ns, target, refused)
        if payload[:200].lstrip()[:1] == b"[" and _is_senml(payload):
            return _senml_json(payload, at_ns, target, refused)
        if target.columns and payload.lstrip()[:1] not in (b"{", b"["):
            return _csv(payload, at_ns, target, refused)
        return _json(payload, at_ns, target, refused)


def _begins_ns(block: Block | Burst) -> int:
    return int(block.t_ns[0]) if isinstance(block, Block) else block.t_ns


MAGIC = b"RW"
_SENML_FIELDS = (b'"n"', b'"bn"')
_SENML_KEYS = frozenset({"n", "bn", "bt", "bu", "bv", "bs", "bver"})
_items = msgspec.json.Decoder(list[msgspec.Raw])
_keys = msgspec.json.Decoder(dict[str, msgspec.Raw])


def _is_senml(payload: bytes) -> bool:
    """Tell a pack from an array of our own: by the keys of its first record, not of its values."""
    if not any(field in payload[:400] for field in _SENML_FIELDS):
        return False
    try:
        items = _items.decode(payload)
        return bool(items) and not _SENML_KEYS.isdisjoint(_keys.decode(items[0]))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False  # told by who reads arrays of our own


def _is_json(arrival: Arrival) -> bool:
    # A waveform begins with its letters, SenML with a bracket, CBOR above all letters.
    return arrival.payload[:1] in _JSON_VALUE


_JSON_VALUE = frozenset(bytes([c]) for c in b'{-0123456789nNI"')


def _named(found: json_format.Reading) -> Block:
    t_ns, value = found
    if isinstance(value, dict):
        values = np.array([list(value.values())], dtype=np.float64)
        return Block("", tuple(value), np.array([t_ns]), values)
    return Block("", ("",), np.array([t_ns]), np.array([[value]], dtype=np.float64))


def _json(payload: bytes, at_ns: int, _target: Target, _refused: Refused) -> Found:
    found = json_format.decode(payload, at_ns)
    if isinstance(found, tuple):
        return [_named(found)]
    return found


def _lines(payload: bytes, at_ns: int, _target: Target, refused: Refused) -> Found:
    blocks, wrong = json_format.decode_lines(payload, at_ns)
    refused += wrong
    return blocks


def _csv(payload: bytes, at_ns: int, target: Target, refused: Refused) -> Found:
    blocks, wrong = csv.decode(
        payload, at_ns, target.columns, target.time, checksum=target.checksum
    )
    refused += wrong
    return blocks


def _cobs(payload: bytes, at_ns: int, target: Target, refused: Refused) -> Found:
    blocks, wrong = cobs.decode_records(payload, at_ns, target.columns)
    refused += wrong
    return blocks


# Imported where they are met: a megabyte or more that few devices need.


def _senml_json(payload: bytes, at_ns: int, _target: Target, _refused: Refused) -> Found:
    from agent.decode import senml  # noqa: PLC0415

    return _meant(senml.decode_json(payload, at_ns))


def _senml_cbor(payload: bytes, at_ns: int, _target: Target, _refused: Refused) -> Found:
    from agent.decode import senml  # noqa: PLC0415

    return _meant(senml.decode_cbor(payload, at_ns))


def _meant(blocks: list[Block]) -> list[Block]:
    """Return blocks with the units that SenML's names mean."""
    try:
        return [
            block._replace(units=tuple(unit and units.from_senml(unit) for unit in block.units))
            for block in blocks
        ]
    except ValueError as error:
        raise DecodeError("unit", str(error)) from error


def _as_burst(block: Block, name: str) -> Burst:
    """Return a list of values with its times as a burst, if it is one."""
    t_ns = block.t_ns
    steps = np.diff(t_ns)
    if len(block.channels) != 1 or len(t_ns) < 2 or steps.min() <= 0:
        raise DecodeError("type", f"{name!r} is a waveform: it comes in bursts, as t0, dt and v")
    step = (int(t_ns[-1]) - int(t_ns[0])) / (len(t_ns) - 1)
    if np.abs(steps - step).max() > max(2.0, 0.01 * step):
        raise DecodeError("rate", f"the samples of the waveform {name!r} are not evenly spaced")
    unit = block.units[0] if block.units else ""
    samples = block.values[:, 0].astype(np.float32)
    return Burst(block.asset, name, int(t_ns[0]), 1e9 / step, unit, samples)


def shot_of(spec: AssetClass, asset: str, burst: Burst, name: str, target: Target) -> Shot:
    """Return a burst of a waveform as its class declares it; raises ``DecodeError``."""
    index = next((i for i, wave in enumerate(spec.waveforms) if wave.name == name), -1)
    if index < 0:
        known = ", ".join(wave.name for wave in spec.waveforms) or "none"
        raise DecodeError(
            "channel", f"asset class {spec.name!r} has no waveform {name!r}; it has {known}"
        )
    wave = spec.waveforms[index]
    samples = _checked(wave, burst)
    factor, offset = _conversion(name, burst.unit or target.units.get(name, wave.unit), wave.unit)
    if (factor, offset) != (1.0, 0.0):
        samples = samples * np.float32(factor) + np.float32(offset)
    return Shot(0, asset, index, burst.t_ns, samples)


def _checked(wave: Waveform, burst: Burst) -> NDArray[np.float32]:
    if abs(burst.rate_hz / wave.rate_hz - 1.0) > RATE_TOLERANCE:
        raise DecodeError(
            "rate", f"waveform {wave.name!r}: sampled at {burst.rate_hz:g} Hz, not {wave.rate_hz:g}"
        )
    if len(burst.samples) != wave.samples:
        raise DecodeError(
            "length", f"waveform {wave.name!r}: {len(burst.samples)} samples, not {wave.samples}"
        )
    return burst.samples
