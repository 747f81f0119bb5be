"""Readings that are posted: ``POST /v1/readings``, answered once they are committed.

HTTP/1.1 by the standard library, a thread a connection, all bounded. For programs of this machine;
beyond it only with a token, and a proxy that speaks TLS in front is better.
"""

import itertools
import logging
import threading
import time
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec

from agent.intake import Arrival
from agent.sources.buffer import Buffer
from agent.sources.source import Put, SourceCounts, check_columns, loud
from contract import topics
from contract.config import is_loopback
from contract.errors import ConfigError

if TYPE_CHECKING:
    from agent.sources.connections import Server

log = logging.getLogger("runout.http")

_CLOSING = "the agent is closing"
_PATIENCE_S = 5.0


class Http(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="http"):
    """An address of this machine where readings are posted.

    Attributes:
        name: one topic level, unlike that of any other source.
        host: address to listen at.
        port: 0: a free one.
        insecure: listen beyond loopback, without TLS; needs ``token_file``.
        token_file: holds the bearer token on its first line; empty: nobody is asked for one.
        columns: what the values of a CSV line are, in order; without them CSV is refused.
        units: of columns, where they are not the unit the asset class declares.
        time: the column that bears the time; empty: readings are of when they arrived.
        max_body: bytes of a request.
        buffer: bytes of requests that wait while the agent is busy; more is answered 503.
        connections: at a time; one more is answered 503.
        request_s: a request has come whole by then, or is given up.
        commit_s: it is committed by then, or is answered 503.
    """

    name: str = "http"
    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8780
    insecure: bool = False
    token_file: str = ""
    columns: tuple[str, ...] = ()
    units: dict[str, str] = {}
    time: str = ""
    max_body: Annotated[int, msgspec.Meta(ge=1024, le=67_108_864)] = 1_048_576
    buffer: Annotated[int, msgspec.Meta(ge=4096, le=268_435_456)] = 8_388_608
    connections: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 32
    request_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 10.0
    commit_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 30.0

    def __post_init__(self) -> None:
        """Refuse what would stand open; msgspec turns this into an error with the path."""
        topics.check_name(self.name, "name")
        check_columns(self.columns, self.units, self.time)
        if not is_loopback(self.host) and not (self.insecure and self.token_file):
            raise ValueError(
                f"host: {self.host!r} is beyond loopback: say insecure = true and give token_file, "
                "or keep 127.0.0.1 and let a proxy speak TLS"
            )

    def build(self) -> "HttpSource":
        """Return the source, not yet open; raises ``ConfigError`` if there is no token."""
        return HttpSource(self)


class HttpSource:
    """A server whose connections' threads wait for the fate of what they put."""

    def __init__(self, config: Http) -> None:
        self.name = config.name
        self.config = config
        self.counts = SourceCounts()
        self.token = _token(config.token_file)
        self.buffer = Buffer(config.buffer, "newest")
        self._numbers = itertools.count(1)
        self._waiting: dict[int, _Fate] = {}
        self._changed = threading.Lock()
        self._opening = threading.Lock()
        self._closing = False
        self._server: Server | None = None
        self._threads: list[threading.Thread] = []

    @property
    def alive(self) -> bool:
        """Return whether it listens and hands over."""
        return bool(self._threads) and all(thread.is_alive() for thread in self._threads)

    @property
    def port(self) -> int:
        """Return the port it listens at; 0 before it is open."""
        return self._server.server_address[1] if self._server else 0

    def open(self, put: Put) -> None:
        """Listen; raises ``ConfigError`` if the address is taken or not this machine's."""
        with self._opening:
            if self._closing or self._server is not None:
                return
            config = self.config
            try:
                from agent.sources.connections import Server  # noqa: PLC0415  # 2 MB

                self._server = Server(self)
            except OSError as error:
                raise ConfigError(
                    f"source {self.name!r}: cannot listen at {config.host} port {config.port} "
                    f"({error.strerror}): choose another port, or end what listens there"
                ) from error
            self._threads = [
                threading.Thread(
                    target=self._server.serve_forever, args=(0.1,), name=self.name, daemon=True
                ),
                threading.Thread(
                    target=self.buffer.hand_over,
                    args=(put,),
                    name=f"{self.name} hands",
                    daemon=True,
                ),
            ]
            for thread in self._threads:
                thread.start()
            self.counts.connected = True
            log.info("listening", extra={"source": self.name, "port": self.port})

    def close(self) -> None:
        """Stop listening; who still waits is answered 503."""
        with self._opening:
            self._closing = True
            if self._server is None or not self.counts.connected:
                return
            self.counts.connected = False
            self._server.shutdown()
            with self._changed:
                fates = list(self._waiting.values())
            for fate in fates:
                fate.settle(_CLOSING)
            self._server.finish(_PATIENCE_S)
            self._server.server_close()
            self.buffer.abandon()  # nobody waits for it any more
            self.buffer.close()
            for thread in self._threads:
                thread.join(_PATIENCE_S)

    def acknowledge(self, outcomes: Mapping[int, str]) -> None:
        """Let those be answered whose requests are committed ("") or refused (why)."""
        for token, why in outcomes.items():
            with self._changed:
                fate = self._waiting.get(token)
            if fate is not None:
                fate.settle(why)

    # -- in a connection's thread -------------------------------------------------------------

    def deliver(self, topic: str, body: bytes) -> tuple[int, str]:
        """Put a request's body, and wait; returns the status to answer, and why."""
        token = next(self._numbers)
        fate = _Fate()
        with self._changed:
            if self._closing:
                return HTTPStatus.SERVICE_UNAVAILABLE, _CLOSING
            self._waiting[token] = fate
        try:
            arrival = Arrival(topic, body, token, time.time_ns(), source=self.name)
            if self.buffer.add(arrival):
                return HTTPStatus.SERVICE_UNAVAILABLE, "too much waits: try again"
            if not fate.settled.wait(self.config.commit_s):
                taken = "" if self.buffer.withdraw(token) else "; it may be yet"
                return HTTPStatus.SERVICE_UNAVAILABLE, f"not committed in time{taken}"
        finally:
            with self._changed:
                del self._waiting[token]
        if fate.why == _CLOSING:
            return HTTPStatus.SERVICE_UNAVAILABLE, _CLOSING
        return (HTTPStatus.BAD_REQUEST, fate.why) if fate.why else (HTTPStatus.NO_CONTENT, "")

    def note(self, status: int, size: int, why: str) -> None:
        """Count an answer."""
        with self._changed:
            counts = self.counts
            counts.bytes += size
            before = counts.bad_frames + counts.overflows
            if status < HTTPStatus.BAD_REQUEST:
                counts.frames += 1
            elif status < HTTPStatus.INTERNAL_SERVER_ERROR:
                counts.bad_frames += 1
            else:
                counts.overflows += 1
            after = counts.bad_frames + counts.overflows
        if loud(before, after):
            log.warning(
                "request refused",
                extra={"source": self.name, "status": status, "why": why, "times": after},
            )


class _Fate:
    """What became of a request."""

    def __init__(self) -> None:
        self.settled = threading.Event()
        self.why = ""

    def settle(self, why: str) -> None:
        if not self.settled.is_set():
            self.why = why
            self.settled.set()


def _token(file: str) -> bytes:
    if not file:
        return b""
    try:
        lines = Path(file).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"token_file: {file!r} cannot be read ({error})") from error
    token = lines[0].strip()
    if not token:
        raise ConfigError(f"token_file: {file!r} has no token on its first line")
    return token.encode()
