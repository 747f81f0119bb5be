"""A node that stays: one process polls the server, and calls the ClientApp that is installed here.

It never takes code from the network. The agent runs without it, and it without the agent: what it
answers from is the agent's state folder.
"""

import logging
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from agent.clock import right_since, synchronised
from flowerapp.link import HEARTBEAT_S, AwayError, Link, LinkError, OverError, RefusedError, failed

log = logging.getLogger("runout.node")

GROWTH = 1.5
"""After a message, from one poll's wait to the next: a training's next message comes soon."""
AWAY_S = (1.0, 60.0)
REFUSED_S = (5.0, 120.0)
"""First and longest wait until a server is tried again."""
CLOCK_S = 5.0
CLOCK_PATIENCE_S = 600.0
SLACK_S = 60.0
"""Between the clock that stamps a file and the one that is read."""


class Node:
    """Answers the server's messages, one at a time, and comes back by itself.

    Args:
        link: to the server.
        app: that answers.
        config: ``node`` and ``state``, as the app finds them in its context.
        remember: told the number by which the server knows this node.
        poll_s: longest wait from one poll to the next; the shortest is half of it.
        busy_s: wait after a message.
        wait: ``wait(seconds)``.
        rng: of the jitter, by which a fleet that was started together drifts apart.
    """

    def __init__(
        self,
        link: Link,
        app: ClientApp,
        config: dict[str, str],
        *,
        remember: Callable[[int], object],
        poll_s: float,
        busy_s: float,
        wait: Callable[[float], object],
        rng: random.Random,
    ) -> None:
        self._link = link
        self._app = app
        self._config = config
        self._remember = remember
        self._poll_s = poll_s
        self._busy_s = busy_s
        self._wait = wait
        self._rng = rng
        self._pending: tuple[Message, float] | None = None
        self._trouble = ""
        self._ended = threading.Event()
        self._beating = threading.Thread(target=self._beat, daemon=True)

    def run(self) -> None:
        """Answer until an exception ends it: ``KeyboardInterrupt``, or a fault of our own."""
        self._beating.start()
        tries = 0
        while True:
            try:
                number = self._link.open()
                self._remember(number)
                log.info("connected", extra={"node_id": number})
                tries, self._trouble = 0, ""
                self._serve()
            except (AwayError, RefusedError) as error:
                first, longest = AWAY_S if isinstance(error, AwayError) else REFUSED_S
                if str(error) != self._trouble:  # the same is said once
                    log.warning("waiting for the server: %s", error)
                self._trouble = str(error)
                wait_s = min(longest, first * 2.0 ** min(tries, 10))
                tries += 1
                self._wait(self._rng.uniform(wait_s / 2, wait_s))

    def close(self) -> None:
        """End the heartbeats and tell the server."""
        self._ended.set()
        if self._beating.is_alive():
            self._beating.join(timeout=10.0)
        self._link.close()

    def _serve(self) -> None:
        wait_s = self._busy_s
        while True:
            if self.turn():
                wait_s = self._busy_s
            longest = min(wait_s, self._poll_s)
            self._wait(self._rng.uniform(longest / 2, longest))
            wait_s = min(self._poll_s, wait_s * GROWTH)

    def turn(self) -> bool:
        """Send what is due, take a message and answer it; returns whether there was one.

        Raises:
            LinkError: the connection is lost; an answer that is made is kept for the next.
        """
        try:
            self._send()
            message = self._link.receive()
            if message is None:
                return False
            log.info("message", extra={"kind": message.metadata.message_type})
            began = time.monotonic()
            reply = self._answer(message)
            self._pending = reply, time.monotonic() - began
            self._send()
        except OverError as error:
            log.info("dropped: %s", error)
            self._pending = None
        return True

    def _send(self) -> None:
        if self._pending is not None:
            self._link.send(*self._pending)
            self._pending = None

    def _answer(self, message: Message) -> Message:
        context = Context(
            message.metadata.run_id, self._link.node_id, {**self._config}, RecordDict(), {}
        )
        try:
            return self._app(message, context)
        except Exception as error:  # one message's fault, told to who sent it
            log.warning("a message was not answered", exc_info=error)
            return failed(message, error)

    def _beat(self) -> None:
        while not self._ended.wait(self._rng.uniform(0.7, 0.9) * HEARTBEAT_S):
            try:
                self._link.beat()
            except LinkError as error:
                log.debug("no heartbeat: %s", error)  # the next poll meets the same and acts


def wait_for_clock(
    state: Path,
    wait: Callable[[float], object],
    now: Callable[[], float] = time.time,
    is_set: Callable[[], bool] = synchronised,
) -> None:
    """Return once this device's clock is not behind what was written here before.

    A Raspberry Pi without a battery starts at a time that has been. The server would refuse what
    is signed then, and its certificate seem not valid yet. Where the clock is not set in ten
    minutes the server is asked all the same: it says by how much the clock is off.
    """
    for tried in range(round(CLOCK_PATIENCE_S / CLOCK_S)):
        behind_s = right_since(state) - now()
        if behind_s < SLACK_S or is_set():
            if tried:
                log.info("the clock is set")
            return
        if not tried:
            log.warning(
                "waiting for the clock: it is behind files of this device; a time server sets it, "
                "or: sudo timedatectl set-time",
                extra={"behind_s": round(behind_s)},
            )
        wait(CLOCK_S)
    log.warning("the clock was not set; asking the server all the same")
