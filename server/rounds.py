"""Ask nodes over Flower's grid and collect what they say, up to a deadline and no longer.

Flower's own ``send_and_receive`` looks every three seconds and forgets what comes after its
timeout; here replies are looked for twice a second, and late ones are kept for whoever asks next.
"""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from server.messages import size_of

POLL_S = 0.5
LATE_S = 600.0
"""How long past its phase's deadline a reply is still waited for, on the side."""

_ERRORS = {
    1: "its ClientApp cannot be loaded",
    2: "its ClientApp failed",
    3: "did not fetch the question in time",
    4: "its answer got lost",
    5: "is gone",
    8: "its ClientApp was killed",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A question that is out.

    Attributes:
        node_id: whom.
        about: what the asker knows the question by.
        until_s: on the clock; afterwards nobody waits for it.
    """

    node_id: int
    about: str
    until_s: float


@dataclass(slots=True)
class Heard:
    """What came of a question to several nodes.

    Attributes:
        asked: node ids.
        answers: content by node id, in the order of arrival.
        failed: why not, by node id; those that are only late are in neither.
        seconds: from asking to the end.
    """

    asked: list[int]
    answers: dict[int, RecordDict] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def silent(self) -> list[int]:
        """Return who has not said anything."""
        return [n for n in self.asked if n not in self.answers and n not in self.failed]


@dataclass(frozen=True, slots=True, eq=False)
class Late:
    """An answer to an earlier question."""

    node_id: int
    about: str
    content: RecordDict


class Fleet:
    """The nodes as the grid sees them.

    Args:
        grid: Flower's.
        wait: ``wait(seconds)``; an event's, so that whoever ends the process is not waited for.
        clock: seconds, monotonic.

    Attributes:
        names: node id to the name the node gives itself, where it has.
        bytes_up: from each node id.
        bytes_down: to each node id.
    """

    def __init__(
        self,
        grid: Grid,
        *,
        wait: Callable[[float], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.grid = grid
        self.wait = wait or threading.Event().wait
        self.clock = clock
        self.names: dict[int, str] = {}
        self.bytes_up: dict[int, int] = {}
        self.bytes_down: dict[int, int] = {}
        self._out: dict[str, Asked] = {}
        self._late: list[Late] = []

    def name(self, node_id: int) -> str:
        """Return what to call a node."""
        return self.names.get(node_id, f"node {node_id}")

    def online(self) -> list[int]:
        """Return the nodes that are there."""
        return sorted(node.node_id for node in self.grid.get_nodes())

    def ask(
        self,
        node_ids: Iterable[int],
        kind: str,
        content: RecordDict,
        *,
        deadline_s: float,
        about: str,
        heard: Callable[[Heard], None] = lambda _: None,
    ) -> Heard:
        """Send one question to several nodes; return at the deadline, or once all have spoken.

        Args:
            node_ids: whom.
            kind: Flower's message type.
            content: the question.
            deadline_s: from now.
            about: given back with an answer that comes after the deadline.
            heard: called when something new was said.
        """
        began = self.clock()
        result = Heard(list(node_ids))
        mine = self._push(result, kind, content, deadline_s, about)
        while True:
            news = self._pull(mine, result)
            result.seconds = self.clock() - began
            if news:
                heard(result)
            left = deadline_s - result.seconds
            if not result.silent or left <= 0:
                return result
            self.wait(min(POLL_S, left))

    def late(self) -> list[Late]:
        """Return the answers to earlier questions that came meanwhile; each once."""
        self._pull({}, Heard([]))
        late, self._late = self._late, []
        return late

    def _push(
        self, result: Heard, kind: str, content: RecordDict, deadline_s: float, about: str
    ) -> dict[str, int]:
        size = size_of(content)
        mine: dict[str, int] = {}
        ttl = deadline_s + LATE_S
        for node_id in result.asked:
            # One by one: a request that holds them all may be larger than SuperLink takes.
            message = Message(content, node_id, kind, ttl=ttl)
            ids: list[str | None] = list(self.grid.push_messages([message]))
            if not ids or not ids[0]:
                result.failed[node_id] = "could not be asked: SuperLink did not take the message"
                continue
            mine[ids[0]] = node_id
            self._out[ids[0]] = Asked(node_id, about, self.clock() + ttl)
            self.bytes_down[node_id] = self.bytes_down.get(node_id, 0) + size
        return mine

    def _pull(self, mine: dict[str, int], result: Heard) -> bool:
        now = self.clock()
        self._out = {id_: asked for id_, asked in self._out.items() if asked.until_s > now}
        if not self._out:
            return False
        news = False
        for reply in self.grid.pull_messages(list(self._out)):
            # Not by its sender: an error that SuperLink itself reports comes from node 1.
            id_ = reply.metadata.reply_to_message_id
            asked = self._out.pop(id_, None)
            if asked is None:
                continue
            news = news or id_ in mine
            if reply.has_error():
                if id_ in mine:
                    result.failed[asked.node_id] = _reason(reply)
                continue
            size = self.bytes_up.get(asked.node_id, 0) + size_of(reply.content)
            self.bytes_up[asked.node_id] = size
            if id_ in mine:
                result.answers[asked.node_id] = reply.content
            else:
                self._late.append(Late(asked.node_id, asked.about, reply.content))
        return news


def _reason(reply: Message) -> str:
    code = reply.error.code
    said = (reply.error.reason or "").strip()
    short = said.splitlines()[-1][:500] if said else f"error {code}"
    return f"{_ERRORS[code]} ({short})" if code in _ERRORS else short
