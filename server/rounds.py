"""Ask nodes over Flower's grid and collect what they say, up to a deadline and no longer.

Flower's own ``send_and_receive`` looks every three seconds and forgets what comes after its
timeout; here replies are looked for twice a second, and late ones are kept for whoever asks next.
"""

import math
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from server.messages import size_of

POLL_S = 0.5
PULLED = 100
MOST_LATE = 1000
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
        answered: node ids, in the order of arrival.
        failed: why not, by node id; those that are only late are in neither.
        seconds: from asking to the end.
    """

    asked: list[int]
    answered: list[int] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def silent(self) -> list[int]:
        """Return who has not said anything."""
        spoken = self.failed.keys() | set(self.answered)
        return [n for n in self.asked if n not in spoken]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long answers are waited for.

    Attributes:
        deadline_s: at most.
        quorum: once this share of those asked has answered, the others have as long again as
            that took; 1: they have until the deadline.
        grace_s: and no less than this.
    """

    deadline_s: float
    quorum: float = 1.0
    grace_s: float = 10.0

    def until_s(self, quorate_s: float | None) -> float:
        """Return when waiting ends, in seconds from asking.

        Args:
            quorate_s: when the quorum was there; None: it is not.
        """
        if quorate_s is None:
            return self.deadline_s
        return min(self.deadline_s, quorate_s + max(quorate_s, self.grace_s))


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
        classes: node id to the asset classes it says it runs, where it has.
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
        self.classes: dict[int, frozenset[str]] = {}

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
        patience: Patience,
        about: str,
        take: Callable[[int, RecordDict], None],
        heard: Callable[[Heard], None] = lambda _: None,
    ) -> Heard:
        """Send one question to several nodes; return once all have spoken, or patience ends.

        Args:
            node_ids: whom.
            kind: Flower's message type.
            content: the question.
            patience: how long.
            about: given back with an answer that comes afterwards.
            take: called with each answer as it comes; nothing else keeps it.
            heard: called when something new was said.
        """
        began = self.clock()
        result = Heard(list(node_ids))
        mine = self._push(result, kind, content, patience.deadline_s, about)
        enough = math.ceil(patience.quorum * len(result.asked))
        quorate_s: float | None = None
        while True:
            news = self._pull(mine, result, take)
            result.seconds = self.clock() - began
            if news:
                heard(result)
            if quorate_s is None and len(result.answered) >= enough:
                quorate_s = result.seconds
            left = patience.until_s(quorate_s) - result.seconds
            if not result.silent or left <= 0:
                return result
            self.wait(min(POLL_S, left))

    def late(self) -> list[Late]:
        """Return the answers to earlier questions that came meanwhile; each once."""
        self._pull({}, Heard([]), lambda _, __: None)
        late, self._late = self._late, []
        return late

    def put_back(self, late: Late) -> None:
        """Keep a late answer for whoever asked; of too many the oldest are dropped."""
        self._late = [*self._late[1 - MOST_LATE :], late]

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

    def _pull(
        self, mine: dict[str, int], result: Heard, take: Callable[[int, RecordDict], None]
    ) -> bool:
        now = self.clock()
        self._out = {id_: asked for id_, asked in self._out.items() if asked.until_s > now}
        news = False
        ids = list(self._out)
        # Some at a time: what is pulled in one piece is in memory in one piece.
        for i in range(0, len(ids), PULLED):
            for reply in self.grid.pull_messages(ids[i : i + PULLED]):
                news = self._reply(reply, mine, result, take) or news
        return news

    def _reply(
        self,
        reply: Message,
        mine: dict[str, int],
        result: Heard,
        take: Callable[[int, RecordDict], None],
    ) -> bool:
        """Take one reply; returns whether it answers what is asked now."""
        # Not by its sender: an error that SuperLink itself reports comes from node 1.
        id_ = reply.metadata.reply_to_message_id
        asked = self._out.pop(id_, None)
        if asked is None:
            return False
        if reply.has_error():
            if id_ in mine:
                result.failed[asked.node_id] = _reason(reply)
            return id_ in mine
        size = self.bytes_up.get(asked.node_id, 0) + size_of(reply.content)
        self.bytes_up[asked.node_id] = size
        if id_ not in mine:
            self._late.append(Late(asked.node_id, asked.about, reply.content))
            return False
        take(asked.node_id, reply.content)
        result.answered.append(asked.node_id)
        return True


def _reason(reply: Message) -> str:
    code = reply.error.code
    said = (reply.error.reason or "").strip()
    short = said.splitlines()[-1][:500] if said else f"error {code}"
    return f"{_ERRORS[code]} ({short})" if code in _ERRORS else short
