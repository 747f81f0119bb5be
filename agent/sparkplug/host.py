"""A Sparkplug host application: what edge nodes publish becomes readings; sans-IO.

Connect with a clean session, ``will`` as the will; subscribe to ``subscriptions``, then publish
``birth``; give every message to ``receive`` and publish what it says; call ``tick`` each second
or so, ``lost`` when the connection is gone, and publish ``death`` before leaving on purpose.

Messages of a node carry numbers (0 to 255 and round again). One that comes early is held until
those before it are there, at most for the reorder timeout. Then the node is asked to be born
again, and until it is, only metrics that bear their names are read: what an alias means may have
changed with the message that is missing.
"""

import msgspec

from agent.sparkplug.names import check_asset, check_name
from agent.sparkplug.schema import LATEST_MS, NAMESPACE, Message, read_payload, read_topic
from agent.sparkplug.session import Heard, Session
from contract.errors import DecodeError

MOST_NODES = 1024
MOST_ASSETS = 16_384


class State(msgspec.Struct):
    """What a host application says of itself; ``timestamp`` in milliseconds since 1970 UTC."""

    online: bool
    timestamp: int


class Host:
    """A (primary) host application.

    Args:
        host_id: unique among the host applications of the broker.
        groups: whose nodes are read; "+": all.
        asset: what an asset is called, of ``{group}``, ``{node}`` and ``{device}``; for what a
            node says of itself, its name stands in the place of the device's. Where two devices
            come to share a name, the second is refused.
        reorder_s: how long a missing message is waited for.
        rebirth_s: a node is asked to be born again at most so often.
        history_s: what a node or device says after its birth is held so long for what it stored
            before, and longer while that comes; 0: it is not.
        own: group and name of an edge node that is not listened to; none: "".
    """

    def __init__(
        self,
        host_id: str,
        groups: tuple[str, ...] = ("+",),
        *,
        asset: str = "{device}",
        reorder_s: float = 2.0,
        rebirth_s: float = 10.0,
        history_s: float = 0.0,
        own: tuple[str, str] = ("", ""),
    ) -> None:
        for name in (host_id, *(group for group in groups if group != "+")):
            check_name(name)
        check_asset(asset)
        self._state_topic = f"{NAMESPACE}/STATE/{host_id}"
        self._groups = groups
        self._asset_name = asset
        self._reorder_ns = round(reorder_s * 1e9)
        self._rebirth_ns = round(rebirth_s * 1e9)
        self._history_ns = round(history_s * 1e9)
        self._own = own
        self._sessions: dict[tuple[str, str], Session] = {}
        self._owners: dict[str, tuple[str, str, str]] = {}
        self._will_ms = 0
        self._born = False

    def subscriptions(self) -> list[str]:
        """Return topic filters, all for QoS 1."""
        filters = [self._state_topic]
        for group in self._groups:
            for verb in ("BIRTH", "DATA", "DEATH"):
                filters.append(f"{NAMESPACE}/{group}/N{verb}/+")
                filters.append(f"{NAMESPACE}/{group}/D{verb}/+/+")
        return filters

    def will(self, at_ns: int) -> Message:
        """Return the will for a connection that is about to be made."""
        self._will_ms = at_ns // 10**6
        self._born = False
        return self._state(online=False, ms=self._will_ms)

    def birth(self) -> Message:
        """Return what is published once the subscriptions stand, with the will's time."""
        self._born = True
        return self._state(online=True, ms=self._will_ms)

    def death(self, at_ns: int) -> Message:
        """Return what is published before the connection is closed on purpose."""
        self._born = False
        return self._state(online=False, ms=at_ns // 10**6)

    def lost(self, at_ns: int) -> Heard:
        """Take note that the connection is gone: nobody is known to be there any more."""
        return _all([session.leave(at_ns) for session in self._sessions.values()])

    def tick(self, at_ns: int) -> Heard:
        """Give up on what was waited for too long."""
        return _all([session.tick(at_ns) for session in self._sessions.values()])

    def flush(self) -> Heard:
        """Return what is held, before leaving."""
        return _all([session.flush() for session in self._sessions.values()])

    def receive(self, topic: str, payload: bytes, at_ns: int) -> Heard:
        """Read one message.

        Raises:
            DecodeError: ``topic``, ``protobuf``, ``compressed``, ``state``, ``seq``, ``bdSeq``,
                ``metric``, ``value``, ``properties``, ``text``, ``time``, ``asset`` (two share a
                name), ``bound``. The message is lost, those before and after it are not.
        """
        if topic == self._state_topic:
            insists = self._born and not read_state(payload).online
            return Heard([], [self.birth()] if insists else [], [])
        where = read_topic(topic)
        if where.verb in {"NCMD", "DCMD"} or (where.group, where.node) == self._own:
            return Heard([], [], [])
        read = read_payload(payload)
        if read.timestamp > LATEST_MS:
            raise DecodeError("time", f"time {read.timestamp} ms is out of range")
        session = self._session(where.group, where.node)
        if where.verb == "NDEATH":
            return session.died(read, at_ns)
        if not (read.HasField("seq") and read.seq <= 255):
            raise DecodeError("seq", f"{where.verb} without a number seq of 0 to 255")
        if where.verb == "NBIRTH":
            return session.born(where, read, at_ns)
        return session.receive(where, read, at_ns)

    def forget(self, topic: str) -> None:
        """Know nothing of the node a topic is of: its next message asks it to be born again."""
        try:
            where = read_topic(topic)
        except DecodeError:
            return
        self._sessions.pop((where.group, where.node), None)

    def _session(self, group: str, node: str) -> Session:
        session = self._sessions.get((group, node))
        if session is None:
            if len(self._sessions) >= MOST_NODES:
                raise DecodeError("bound", f"more than {MOST_NODES} edge nodes")
            session = self._sessions[group, node] = Session(
                group,
                node,
                lambda device: self._asset(group, node, device),
                self._reorder_ns,
                self._rebirth_ns,
                self._history_ns,
            )
        return session

    def _asset(self, group: str, node: str, device: str) -> str:
        asset = self._asset_name.format(group=group, node=node, device=device or node)
        if asset not in self._owners and len(self._owners) >= MOST_ASSETS:
            raise DecodeError("bound", f"more than {MOST_ASSETS} nodes and devices")
        owner = self._owners.setdefault(asset, (group, node, device))
        if owner != (group, node, device):
            text = (
                f"{asset!r} is {'/'.join(filter(None, owner))}, too: name assets by node and device"
            )
            raise DecodeError("asset", text)
        return asset

    def _state(self, *, online: bool, ms: int) -> Message:
        payload = msgspec.json.encode(State(online, ms))
        return Message(self._state_topic, payload, qos=1, retain=True)


def _all(parts: list[Heard]) -> Heard:
    heard = Heard([], [], [])
    for part in parts:
        heard = heard.and_then(part)
    return heard


def read_state(payload: bytes) -> State:
    """Read a STATE message.

    Raises:
        DecodeError: ``state``.
    """
    try:
        return msgspec.json.decode(payload, type=State)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError("state", f"not a STATE message: {error}") from error
