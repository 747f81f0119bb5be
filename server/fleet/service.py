"""The fleet's part of the server, opened and closed as one: link, table, collector, page."""

import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from contract.config import is_loopback
from server.config import ServerConfig
from server.fleet.collector import Collector
from server.fleet.config import Mqtt
from server.fleet.federation import Federation
from server.fleet.link import Link
from server.fleet.metrics import exposition
from server.fleet.page.app import Parts, app_of
from server.fleet.page.events import Events
from server.fleet.page.gate import Gate
from server.fleet.page.listener import Listener
from server.fleet.query import Query
from server.fleet.reports import filters
from server.fleet.store import Store, open_engine

log = logging.getLogger("runout.fleet")


class Fleet:
    """What hears the fleet and serves its page, while it is open.

    Args:
        config: of the server.
        opened: everything is closed with it.

    Raises:
        RunoutError: database, password, certificate or address cannot be used.
    """

    def __init__(self, config: ServerConfig, opened: ExitStack) -> None:
        fleet = config.fleet
        names = fleet.names
        if not is_loopback(fleet.host):
            own = socket.gethostname().lower()
            names = *names, own, f"{own}.local"
        gate = Gate(fleet.password_file, names, secure=fleet.tls is not None)
        engine = open_engine(fleet.url(config.folder))
        opened.callback(engine.dispose)
        store = Store(engine, fleet)
        query = Query(engine, fleet.silent_min * 60)
        federation = Federation(config.folder)
        events = Events(federation.stamp)
        self.link = Link(config.mqtt or Mqtt(), filters(fleet.site))
        self.collector = Collector(self.link, store, events.changed)
        opened.callback(self.collector.close)
        opened.callback(self.link.close)
        parts = Parts(
            query=query,
            federation=federation,
            gate=gate,
            events=events,
            say=self.link.say,
            note=store.note,
            forget=store.forget,
            troubles=self.troubles,
            metrics=lambda: exposition(query, federation, self.troubles, store.dropped),
        )
        self._page = Listener(app_of(parts), fleet, events)
        opened.callback(self._page.close)
        self.url = self._page.url

    def open(self) -> None:
        """Begin."""
        self.collector.open()
        self.link.open()
        self._page.open()

    @property
    def alive(self) -> bool:
        """Return whether all of it works on."""
        return self.collector.alive and self.link.alive and self._page.alive

    def troubles(self) -> list[str]:
        """Return what is wrong, in sentences; empty: nothing."""
        found = []
        if not self.collector.alive or not self.link.alive:
            found.append("Reports are taken no longer: restart the server.")
        if not self.link.connected.is_set():
            found.append(
                f"There is no connection to the broker {self.link.name}: what is shown is as it "
                "was. Is the broker running, and is [mqtt] right?"
            )
        if self.collector.trouble:
            found.append(f"The fleet's table cannot be written: {self.collector.trouble}.")
        return found


class _Tell(logging.Handler):
    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        self._tell(record.getMessage())


@contextmanager
def opened(
    config: ServerConfig, tell: Callable[[str], None], *, words: bool = True
) -> Iterator[Fleet]:
    """Hear the fleet and serve its page until the end; ``tell`` gets lines meant for a person.

    ``words``: what is logged goes to ``tell`` as well; else it goes where the program's log goes.

    Raises:
        RunoutError: database, password, certificate or address cannot be used.
    """
    config.folder.mkdir(parents=True, exist_ok=True)
    handler = _Tell(tell)
    with ExitStack() as stack:
        log.setLevel(logging.INFO)
        if words:
            log.addHandler(handler)
            stack.callback(log.removeHandler, handler)
            log.propagate = False
        fleet = Fleet(config, stack)
        fleet.open()
        tell(f"listening to the agents on the broker {fleet.link.name}")
        tell(f"fleet page: {fleet.url}")
        yield fleet


def serve(config: ServerConfig, tell: Callable[[str], None], *, words: bool = True) -> int:
    """Serve until a signal ends it; returns the exit code: 1 if a part of it ended by itself."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with opened(config, tell, words=words) as fleet:
        while not stop.wait(1.0):
            if not fleet.alive:
                return 1
    return 0
