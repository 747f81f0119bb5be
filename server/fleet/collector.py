"""Carries reports from the broker into the table: takes what is there, commits, acknowledges."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from contract.errors import DecodeError
from server.fleet.link import Link, Message
from server.fleet.reports import Said, read
from server.fleet.store import DAY_S, Store, first_line

log = logging.getLogger("runout.fleet")

MOST = 2000
"""Reports that share a commit."""
AGAIN_S = 5.0
"""After so long the database is tried again."""
REASONS = 20
"""Reasons of rejection that are counted apart."""


class Collector:
    """One thread: the only one that writes reports.

    Args:
        link: where they come from.
        store: where they go to.
        changed: called after each commit.

    Attributes:
        reports: committed since the process began.
        rejected: messages that could not be used, by reason.
        trouble: why nothing can be stored at present; empty: it can.
    """

    def __init__(self, link: Link, store: Store, changed: Callable[[], None]) -> None:
        self.reports = 0
        self.rejected: Counter[str] = Counter()
        self.trouble = ""
        self._link = link
        self._store = store
        self._changed = changed
        self._closing = threading.Event()
        self._trimmed_s = -DAY_S
        self._thread = threading.Thread(target=self._run, name="fleet", daemon=True)

    def open(self) -> None:
        """Start."""
        self._thread.start()

    def close(self) -> None:
        """End; the link must be closed first, so that nothing more is waited for."""
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def alive(self) -> bool:
        """Return whether reports are taken."""
        return self._thread.is_alive()

    def _run(self) -> None:
        asked = False
        try:
            while messages := self._link.take(MOST):
                reports = [one for one in map(self._read, messages) if one is not None]
                if not self._keep(reports):
                    break
                self._link.acknowledge(messages)
                self.reports += len(reports)
                if reports:
                    self._changed()
            asked = True
        finally:
            if not asked:
                log.critical("reports are taken no longer: restart the server")

    def _read(self, message: Message) -> Said | None:
        try:
            return read(message.topic, message.payload)
        except DecodeError as error:
            known = error.reason in self.rejected or len(self.rejected) < REASONS
            reason = error.reason if known else "other"
            if not self.rejected[reason]:
                log.warning("a report that cannot be used: %s", error)
            self.rejected[reason] += 1
            return None

    def _keep(self, reports: list[Said]) -> bool:
        """Write, again and again where the database will not; False: the end came first."""
        while True:
            try:
                if time.monotonic() - self._trimmed_s > DAY_S:
                    self._store.trim()
                    self._trimmed_s = time.monotonic()
                if reports:
                    self._store.write(reports)
            except SQLAlchemyError as error:
                # No room, or no server: nothing is acknowledged, so the broker keeps it.
                said = first_line(error)
                if said != self.trouble:
                    log.error("the fleet's table cannot be written: %s; trying again", said)  # noqa: TRY400
                self.trouble = said
                if self._closing.wait(AGAIN_S):
                    return False
                continue
            if self.trouble:
                log.info("the fleet's table can be written again")
            self.trouble = ""
            return True
