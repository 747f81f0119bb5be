"""A channel at work: a thread that follows the agent's alerts and sends what is to be told.

It reads the store beside the main thread, which waits for nothing of it and tells it nothing but
that there is something new. What cannot be sent is tried again, and waits on the disk meanwhile.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

from agent.notify import NotifyConfig
from agent.notify.channel import Channel, NotSent
from agent.notify.outbox import HOUR_S, Counts, Outbox, Waiting, path_of
from agent.store import open_readonly

log = logging.getLogger("runout.notify")

AT_ONCE = 200
"""Alerts looked at in one go."""
PATIENCE_S = 3.0
"""For a notice on its way when the agent ends; it is sent again after that."""
DISK_S = 30.0
"""Until a disk that failed is tried again."""


class Courier:
    """One channel and its thread.

    Args:
        config: of the channel.
        folder: the agent's state.
        place: site and node.
        clock: seconds since 1970 UTC.

    Attributes:
        name: of the channel.
        kind: of the channel.
        counts: what became of its notices; another tuple when they change.
        stuck: why its file cannot be used; empty: it can.
    """

    def __init__(
        self,
        config: NotifyConfig,
        folder: Path,
        place: tuple[str, str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._folder = folder
        self._place = place
        self._clock = clock
        self._channel: Channel = config.build()
        self._wake = threading.Event()
        self._closing = False
        self._failures = 0
        self.name = config.title
        self.kind = str(type(config).__struct_config__.tag)
        self.counts = Counts()
        self.stuck = ""
        self._thread = threading.Thread(target=self._run, name=f"notify {self.name}", daemon=True)

    def open(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Say that the store may have something new."""
        self._wake.set()

    @property
    def alive(self) -> bool:
        """Return whether the thread runs."""
        return self._thread.is_alive()

    def close(self) -> None:
        """End the thread; a notice on its way gets a little time, and is sent again after that."""
        self._closing = True
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(PATIENCE_S)

    # -- in its thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing:
            try:
                self._follow()
            except (sqlite3.DatabaseError, OSError) as error:  # full, locked, failing, damaged
                self.stuck = str(error)
                log.error(  # noqa: TRY400
                    "notices cannot be stored", extra={"channel": self.name, "error": str(error)}
                )
                self._wake.wait(DISK_S)

    def _follow(self) -> None:
        store = open_readonly(self._folder)
        try:
            outbox = Outbox(path_of(self._folder, self.name), self._config, _newest(store))
            try:
                while not self._closing:
                    wait_s = self._step(store, outbox)
                    self._wake.wait(wait_s)
                    self._wake.clear()
            finally:
                outbox.close()
        finally:
            store.close()

    def _step(self, store: sqlite3.Connection, outbox: Outbox) -> float:
        """Take what is new, and send what may be sent; return how long there is nothing to do."""
        wait_s = 0.0
        while not self._closing and wait_s <= 0:
            self._read(store, outbox)
            one, wait_s = outbox.next(self._clock())
            if one is not None:
                wait_s = self._send(one, outbox)
            self.counts, self.stuck = outbox.counts, ""
        return min(wait_s, HOUR_S)

    def _read(self, store: sqlite3.Connection, outbox: Outbox) -> None:
        newest = _newest(store)
        while outbox.seen < newest:
            found = store.execute(
                "SELECT id, body FROM result WHERE kind = 'alert' AND id > ? AND id <= ? "
                "ORDER BY id LIMIT ?",
                (outbox.seen, newest, AT_ONCE),
            ).fetchall()
            outbox.take(found, found[-1][0] if len(found) == AT_ONCE else newest, self._clock())

    def _send(self, one: Waiting, outbox: Outbox) -> float:
        """Send a notice; return the pause that a failure makes."""
        told = {"channel": self.name, "alert": one.alert.id, "kind": one.kind}
        try:
            self._channel.send(one.notice(*self._place))
        except NotSent as error:
            now = self._clock()
            outbox.failed(str(error))
            if error.final or now - one.since > self._config.give_up_h * HOUR_S:
                log.error("a notice was given up", extra={**told, "error": str(error)})  # noqa: TRY400
                outbox.done(one, now, sent=False)
                return 0.0
            self._failures += 1
            pause_s = min(2.0 ** min(self._failures - 1, 30), self._config.retry_max_s)
            if self._failures & (self._failures - 1) == 0:  # the 1st, 2nd, 4th, 8th...
                log.warning(
                    "a notice could not be sent and is tried again",
                    extra={**told, "error": str(error), "times": self._failures},
                )
            self.counts = outbox.counts
            return self._pause(pause_s)
        if self._failures:
            log.info("notices are sent again", extra={"channel": self.name})
        self._failures = 0
        outbox.done(one, self._clock(), sent=True)
        return 0.0

    def _pause(self, seconds: float) -> float:
        """Wait, whatever else is new: who could not be reached is not asked more often for it."""
        until = time.monotonic() + seconds
        while not self._closing and (left := until - time.monotonic()) > 0:
            self._wake.wait(left)
            if not self._closing:
                self._wake.clear()
        return 0.0


def _newest(store: sqlite3.Connection) -> int:
    return int(store.execute("SELECT COALESCE(MAX(id), 0) FROM result").fetchone()[0])
