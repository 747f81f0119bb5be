"""The fleet's part of the server, opened and closed as one: link, table, collector, page."""

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from server.config import ServerConfig
from server.fleet.collector import Collector
from server.fleet.config import Mqtt
from server.fleet.link import Link
from server.fleet.reports import filters
from server.fleet.store import Store, open_engine

log = logging.getLogger("runout.fleet")


class _Tell(logging.Handler):
    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        self._tell(record.getMessage())


@contextmanager
def opened(config: ServerConfig, tell: Callable[[str], None]) -> Iterator[Collector]:
    """Hear the fleet and serve its page until the end; ``tell`` gets lines meant for a person.

    Raises:
        RunoutError: database, password or address cannot be used.
    """
    config.folder.mkdir(parents=True, exist_ok=True)
    mqtt = config.mqtt or Mqtt()
    with ExitStack() as stack:
        handler = _Tell(tell)
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False
        stack.callback(log.removeHandler, handler)
        engine = open_engine(config.fleet.url(config.folder))
        stack.callback(engine.dispose)
        store = Store(engine, config.fleet)
        link = Link(mqtt, filters(config.fleet.site))
        collector = Collector(link, store, lambda: None)
        stack.callback(collector.close)
        stack.callback(link.close)
        collector.open()
        link.open()
        tell(f"listening to the agents on the broker {link.name}")
        yield collector


def serve(config: ServerConfig, tell: Callable[[str], None]) -> int:
    """Serve until a signal ends it; returns the exit code."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with opened(config, tell) as collector:
        while not stop.wait(1.0):
            if not collector.alive:
                return 1
    return 0
