"""The agent in a Sparkplug plant: as a host application, and as an edge node of its results.

Each has a connection of its own, because each has a will of its own. Both belong to the main
thread; what the network's thread does for them is said.
"""

import logging
import threading
import time
from collections import deque

import msgspec

from agent.assemble import LOST
from agent.config import Mqtt, SparkplugEdge
from agent.intake import Arrival, Intake
from agent.mqtt import Link
from agent.sparkplug.edge import EdgeNode, Metric, Value
from agent.sparkplug.host import Host
from agent.sparkplug.schema import DataType, Message
from agent.store import Store, Unsent
from contract.errors import DecodeError
from contract.report import Alert, Health

log = logging.getLogger("runout.sparkplug")


class HostLink:
    """The connection of a host application.

    Args:
        config: of the broker.
        client_id: of the connection.
        host: what it says and hears.
        intake: takes what is heard.
    """

    def __init__(self, config: Mqtt, client_id: str, host: Host, intake: Intake) -> None:
        self._host = host
        self._link = Link(
            config,
            client_id=client_id,
            filters=[(topic, 1) for topic in host.subscriptions()],
            will=None,
            # Sparkplug's readings come at QoS 0: none of them is acknowledged, or kept for us.
            receive=lambda arrivals: intake.put_all([a._replace(token=0) for a in arrivals]),
            persistent=False,
        )
        self._link.on_connecting = self._will
        # Among the messages: those that came before it are read first.
        self._link.on_lost = lambda: intake.put(Arrival(LOST, b"", 0, time.time_ns()))
        self._session = 0

    def _will(self) -> None:
        will = self._host.will(time.time_ns())
        self._link.will(will.topic, will.payload, retain=will.retain)

    @property
    def alive(self) -> bool:
        """Return whether the network's thread runs."""
        return self._link.alive

    def open(self) -> None:
        """Start to connect."""
        self._link.open()

    def tend(self, say: list[Message]) -> None:
        """Announce the host on a new connection, and publish what it says."""
        if not self._link.connected.is_set():
            return
        if self._session != self._link.session:
            self._session = self._link.session
            say = [self._host.birth(), *say]
        if say:
            self._link.say(say)

    def close(self) -> None:
        """Say that the host is gone, and disconnect."""
        if self._link.connected.is_set():
            self._link.say([self._host.death(time.time_ns())])
        self._link.close()


METRICS = (
    Metric("Health/State", DataType.String),
    Metric("Health/Index"),
    Metric("Health/Score"),
    Metric("Health/Life", DataType.Int64),
    Metric("Health/Release", DataType.Int64),
    Metric("Remaining/Hours", unit="h"),
    Metric("Remaining/Low", unit="h"),
    Metric("Remaining/High", unit="h"),
    Metric("Remaining/Coverage"),
    Metric("Data/Marks", DataType.String),
    Metric("Data/Lacks", DataType.String),
    Metric("Alert/State", DataType.String),
    Metric("Alert/Active", DataType.Boolean),
    Metric("Alert/Severity", DataType.String),
    Metric("Alert/Id", DataType.String),
    Metric("Alert/Text", DataType.String),
)
"""Of each asset: those of a health report, and those of an alert."""
NO_ALERT: dict[str, Value] = {"Alert/State": "normal", "Alert/Active": False}
AT_ONCE, BEHIND_AT_ONCE = 500, 50
"""New results, and results of the backlog, that one turn hands over."""
MOST_UNWRITTEN = 200
"""Packets that wait for the network, above which no more are added."""
MOST_HEARD = 100
"""Commands and states that wait to be looked at; the oldest go first."""
_SENT, _BD_SEQ = "edge_sent", "edge_bdseq"


class EdgeLink:
    """The connection of an edge node: an asset is a device, and its results are metrics.

    It follows the results in the store. Those from before the births of the present connection
    are told as historical, beside the new ones; how far it has come is kept in the store. What
    was handed to the network is taken as said: QoS 0 is what Sparkplug asks for.

    Args:
        config: of the broker.
        edge: of the node.
        client_id: of the connection.
        store: of the agent.
        intake: woken when there is something to answer.
    """

    def __init__(
        self, config: Mqtt, edge: SparkplugEdge, client_id: str, store: Store, intake: Intake
    ) -> None:
        self._store = store
        self._edge = EdgeNode(
            edge.group_id,
            edge.edge_node_id,
            primary_host=edge.primary_host_id,
            bd_seq=int(store.meta(_BD_SEQ, "0")),
        )
        # The edge node makes a will in the network's thread, and all else in the main one.
        self._lock = threading.Lock()
        self._heard: deque[tuple[int, str, bytes]] = deque(maxlen=MOST_HEARD)
        self._wake = intake.wake
        self._link = Link(
            config,
            client_id=client_id,
            filters=[(topic, 1) for topic in self._edge.subscriptions()],
            will=None,
            receive=self._hear,
            persistent=False,
        )
        self._link.on_connecting = self._will
        self._link.on_connected = intake.wake
        self._session, self._willed = 0, -1
        self._devices: set[str] = set()
        self._stale: set[str] = set()
        """Devices that are gone ..."""
        self._unburied: set[str] = set()
        """... and of those the ones that are still to be said to be."""
        sent = int(store.meta(_SENT, str(store.last_result)))
        self._behind = min(sent, store.last_result)
        self._upto = self._live = store.last_result
        self._remember(0)

    # -- in the network's thread ------------------------------------------------------------------

    def _will(self) -> None:
        with self._lock:
            now_ns = time.time_ns()
            # A number is one connection's: of an attempt that came to nothing it is used again.
            will = self._edge.will(now_ns, again=self._willed == self._link.session)
            self._willed = self._link.session
            for asset in self._stale:  # born again, so that its backlog can be told
                self._edge.declare(asset, METRICS, now_ns)
        self._link.will(will.topic, will.payload, retain=will.retain)

    def _hear(self, arrivals: list[Arrival]) -> None:
        session = self._link.session
        self._heard.extend((session, one.topic, one.payload) for one in arrivals)
        self._wake()

    # -- in the main thread -----------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Return whether the network's thread runs."""
        return self._link.alive

    def open(self) -> None:
        """Start to connect."""
        self._link.open()

    def pump(self) -> None:
        """Follow the connection, commands, the primary host and the results; often."""
        again = False
        with self._lock:
            if self._link.connected.is_set():
                if self._session != self._link.session:
                    self._session = self._link.session
                    self._store.note(_BD_SEQ, str((self._edge.bd_seq + 1) % 256))
                    self._remember(self._live)
                    self._say(self._edge.connected(time.time_ns()), births=self._edge.born)
                again = self._answer()
                if self._edge.born and not again:
                    self._follow()
        if again:
            # Without the lock: the thread that is to end may wait for it.
            self._link.close(with_will=True)
            self._link.open()

    def save(self) -> None:
        """Note how far the results have been told: it is written with a later batch."""
        sent = str(self._behind if self._behind < self._upto else self._live)
        if self._store.meta(_SENT, "") != sent:
            self._store.note(_SENT, sent)

    def close(self) -> None:
        """Say that the node is gone, and disconnect."""
        with self._lock:
            if self._link.connected.is_set():
                self._link.say(self._edge.death(time.time_ns()))
        self._link.close(with_will=True)

    def _say(self, messages: list[Message], *, births: bool = False) -> None:
        """Publish; ``births``: what was found until now is behind them."""
        if births:
            self._behind = self._behind if self._behind < self._upto else self._live
            self._upto = self._live = self._store.last_result
            self._unburied = {*self._stale}
        self._link.say(messages)

    def _answer(self) -> bool:
        """Do what commands ask for, and follow the host; returns whether to connect again."""
        while self._heard:
            session, topic, payload = self._heard.popleft()
            if session != self._session:
                continue  # of a connection that is gone, and so is the state that it speaks of
            before = self._edge.born
            if not before:
                self._remember(self._live)
            try:
                answer = self._edge.receive(topic, payload, time.time_ns())
            except DecodeError as error:
                log.warning("a message to the edge node", extra={"error": str(error)})
                continue
            self._say(answer.say, births=self._edge.born and not before)
            if answer.disconnect:
                log.warning("the primary host is gone: results wait for it")
                return True
        return False

    def _follow(self) -> None:
        """Tell what is new, and beside it what is behind, as far as the network takes it."""
        if self._link.unwritten > MOST_UNWRITTEN:
            return
        self._live = self._tell(self._live, self._store.last_result, AT_ONCE)
        if self._behind < self._upto:
            self._behind = self._tell(self._behind, self._upto, BEHIND_AT_ONCE, historical=True)
        else:
            for asset in sorted(self._unburied):
                self._link.say(self._edge.gone(asset, time.time_ns()))
            self._unburied.clear()

    def _tell(self, after: int, upto: int, most: int, *, historical: bool = False) -> int:
        """Tell the next results of a stretch; return the number of the last of them."""
        found = self._store.results(Unsent("", after, upto), most) if after < upto else []
        for _, _, _, body in found:
            self._link.say(self._said(body, historical=historical))
        return found[-1][0] if len(found) == most else upto

    def _remember(self, after: int) -> None:
        """Know what was found last of each asset, of the results behind a number: births say it."""
        newest = "SELECT MAX(id) FROM result WHERE id > ? GROUP BY asset, kind"
        query = f"SELECT body FROM result WHERE id IN ({newest}) ORDER BY id"  # noqa: S608
        for (body,) in self._store.database.rows(query, after):
            self._said(body, historical=False)

    def _said(self, body: bytes, *, historical: bool) -> list[Message]:
        """Return the messages that tell of a result."""
        result = msgspec.json.decode(body, type=Health | Alert)
        asset, at_ns, t_ns = result.asset, time.time_ns(), round(result.t * 1e9)
        values = _of_health(result) if isinstance(result, Health) else _of_alert(result)
        said: list[Message] = []
        if asset not in self._devices:
            self._devices.add(asset)
            said = self._edge.declare(asset, METRICS, at_ns)
            values = NO_ALERT | values
        said += self._edge.publish(asset, values, at_ns, t_ns=t_ns, historical=historical)
        if historical or not isinstance(result, Health):
            return said
        if result.state == "stale":
            self._stale.add(asset)
            # Before the births it stays, for its backlog: it is said to be gone behind that.
            return said + self._edge.gone(asset, at_ns) if self._edge.born else said
        if asset in self._stale:
            self._stale.discard(asset)
            self._unburied.discard(asset)
            said += self._edge.declare(asset, METRICS, at_ns)  # with what is known by now
        return said


def _of_health(report: Health) -> dict[str, Value]:
    return {
        "Health/State": report.state,
        "Health/Index": report.health,
        "Health/Score": report.score,
        "Health/Life": report.life,
        "Health/Release": report.judged_by,
        "Remaining/Hours": report.rul_h,
        "Remaining/Low": report.rul_low_h,
        "Remaining/High": report.rul_high_h,
        "Remaining/Coverage": report.rul_coverage,
        "Data/Marks": " ".join(report.marks),
        "Data/Lacks": " ".join(report.lacks),
    }


def _of_alert(alert: Alert) -> dict[str, Value]:
    return {
        "Alert/State": alert.now,
        "Alert/Active": alert.stands,
        "Alert/Severity": alert.severity,
        "Alert/Id": alert.id,
        "Alert/Text": alert.text,
    }
