"""A serial port, or anything pyserial has a URL for: cut into frames here, read by a decoder."""

import logging
import socket
import termios
import threading
import time
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Protocol
from urllib.parse import urlsplit

import msgspec

from agent.decode.cobs import MOST_VALUES
from agent.intake import Arrival
from agent.sources.buffer import Buffer, WhenFull
from agent.sources.framing import LINE, Framer
from agent.sources.source import Put, SourceCounts, check_columns, check_units, loud
from contract import topics

log = logging.getLogger("runout.serial")

FIRST_RETRY_S = 0.1
LAST_RETRY_S = 30.0
_TURN_S = 0.1
"""A read waits so long at most, and closing no longer."""
_READ = 65536
_PATIENCE_S = 5.0
_URLS = ("alt", "cp2110", "hwgrep", "loop", "rfc2217", "socket", "spy")


class Serial(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="serial"
):
    """A serial port that says readings, a frame each.

    Attributes:
        url: ``/dev/serial/by-id/...``, ``socket://host:port``, ``rfc2217://host:port``, ``loop://``.
        name: one topic level, unlike that of any other source.
        baud: bits a second.
        bytesize: bits of a character.
        parity: none, even, odd, mark or space, by its first letter.
        stopbits: behind a character.
        format: of a frame: a ``csv`` line, a ``json`` line, or a ``cobs`` record ended by a zero.
        asset: of frames that name none: all but some json lines.
        columns: what the values of a line or record are, in order; "" is left out.
        units: of columns, where they are not the unit the asset class declares.
        time: the column that bears the time; empty: readings are of when they arrived.
        checksum: a CSV line ends with ``*`` and its checksum; one without is refused.
        max_line: bytes of a frame; what is longer is garbage.
        buffer: bytes that wait while the agent is busy.
        when_full: then ``wait`` and let the port overflow, or drop the ``oldest`` or ``newest``.
        silence_s: the port is opened anew after so long without a byte; 0: never.
    """

    url: str
    name: str = "serial"
    baud: Annotated[int, msgspec.Meta(ge=50, le=12_000_000)] = 115_200
    bytesize: Literal[5, 6, 7, 8] = 8
    parity: Literal["N", "E", "O", "M", "S"] = "N"
    stopbits: Literal[1, 2] = 1
    format: Literal["csv", "json", "cobs"] = "csv"
    asset: str = ""
    columns: tuple[str, ...] = ()
    units: dict[str, str] = {}
    time: str = ""
    checksum: bool = False
    max_line: Annotated[int, msgspec.Meta(ge=16, le=1_048_576)] = 4096
    buffer: Annotated[int, msgspec.Meta(ge=4096, le=67_108_864)] = 1_048_576
    when_full: WhenFull = "oldest"
    silence_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0

    def __post_init__(self) -> None:
        """Refuse what could not run; msgspec turns this into an error with the path."""
        topics.check_name(self.name, "name")
        if self.asset:
            topics.check_name(self.asset, "asset")
        if not self.url:
            raise ValueError("url: name a device, as /dev/serial/by-id/..., or a URL")
        scheme, there_is_one, _ = self.url.partition("://")
        if there_is_one and scheme not in _URLS:
            raise ValueError(f"url: {scheme}:// is none of {', '.join(_URLS)}")
        if scheme in {"socket", "rfc2217"}:
            _address(self.url)
        if self.format == "json":
            if self.columns or self.time or self.checksum:
                raise ValueError("a json line names its values: no columns, time or checksum")
            check_units(self.units)
            return
        if not self.columns or not self.asset:
            raise ValueError(f"{self.format} has no names: give asset, and columns in order")
        if self.format == "cobs" and (self.time or self.checksum):
            raise ValueError("a cobs record has its own time and CRC: no time or checksum")
        if self.format == "cobs" and len(self.columns) > MOST_VALUES:
            raise ValueError(f"columns: {len(self.columns)}; a cobs record has {MOST_VALUES}")
        check_columns(self.columns, self.units, self.time)

    def build(self) -> "SerialSource":
        """Return the source, not yet open."""
        return SerialSource(self)


class _Port(Protocol):
    def read_some(self) -> bytes: ...

    def close(self) -> None: ...


class _DevicePort:
    """A port of pyserial: a character is waited for, then all there is is taken."""

    def __init__(self, config: Serial) -> None:
        try:
            import serial  # noqa: PLC0415  # where there is a port

            self.device: Any = serial.serial_for_url(
                _pyserial_url(config.url),
                baudrate=config.baud,
                bytesize=config.bytesize,
                parity=config.parity,
                stopbits=config.stopbits,
                timeout=_TURN_S,
                exclusive=True,  # two readers would each get half of every line
            )
        except ValueError as error:  # as when the other end rejects a baud rate
            raise OSError(str(error)) from error
        if config.url.startswith("rfc2217://"):
            _keep_alive(self.device._socket)  # noqa: SLF001  # pyserial has no question for it

    def read_some(self) -> bytes:
        first: bytes = self.device.read(1)
        if not first:
            return first
        waiting = min(self.device.in_waiting, _READ)
        rest: bytes = self.device.read(waiting) if waiting else b""
        return first + rest

    def close(self) -> None:
        self.device.close()


class _SocketPort:
    """A TCP port: pyserial's own tells of one waiting byte at most, and leaks when it is lost."""

    def __init__(self, url: str) -> None:
        self._sock = socket.create_connection(_address(url), timeout=_PATIENCE_S)
        self._sock.settimeout(_TURN_S)
        _keep_alive(self._sock)

    def read_some(self) -> bytes:
        try:
            chunk = self._sock.recv(_READ)
        except TimeoutError:
            return b""
        if not chunk:
            raise ConnectionError("the other end closed the connection")
        return chunk

    def close(self) -> None:
        self._sock.close()


def _keep_alive(sock: socket.socket) -> None:
    """Notice a server that lost its power: it says nothing, for ever."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:  # no number, or above 65535
        host = port = None
    if not host or not port:
        raise ValueError(f"url: {url!r}: write it as {parts.scheme}://host:port")
    return host, port


def _pyserial_url(url: str) -> str:
    """Return what pyserial is asked to open.

    Of a port behind RFC 2217 it would set the modem lines, and wait in vain for a server to say so
    whose own port has none. They are never ours to set.
    """
    if not url.startswith("rfc2217://") or "ign_set_control" in url:
        return url
    return f"{url}{'&' if '?' in url else '?'}ign_set_control"


class SerialSource:
    """One thread reads and frames, so that the port is always emptied; one hands over."""

    def __init__(self, config: Serial) -> None:
        self.name = config.name
        self.counts = SourceCounts()
        self._config = config
        self._topic = f"source/{config.name}"
        terminator = b"\0" if config.format == "cobs" else LINE
        self._framer = Framer(terminator, config.max_line)
        self._buffer = Buffer(config.buffer, config.when_full)
        self._port: _Port | None = None
        self._opened = self._told_lost = False
        self._opening = threading.Lock()
        self._closing = threading.Event()
        self._reader: threading.Thread | None = None
        self._hander: threading.Thread | None = None

    @property
    def alive(self) -> bool:
        """Return whether both threads run."""
        threads = (self._reader, self._hander)
        return all(thread is not None and thread.is_alive() for thread in threads)

    def open(self, put: Put) -> None:
        """Start to open the port; one that is absent is waited for."""
        with self._opening:
            if self._closing.is_set() or self._reader is not None:
                return
            self._hander = threading.Thread(
                target=self._buffer.hand_over, args=(put,), name=f"{self.name} hands", daemon=True
            )
            self._reader = threading.Thread(
                target=self._run, name=f"{self.name} reads", daemon=True
            )
            self._hander.start()
            self._reader.start()

    def close(self) -> None:
        """End both threads, frames that came whole handed over first."""
        self._closing.set()
        self._buffer.hurry()
        with self._opening:
            if self._reader is None or self._hander is None:
                return
            self._reader.join()
            self._buffer.close()
            self._hander.join(_PATIENCE_S)
            lost = self._buffer.abandon() if self._hander.is_alive() else 0
        if lost:
            self.counts.overflows += lost
            log.warning("closed with frames nobody took", extra={"source": self.name, "lost": lost})

    def acknowledge(self, outcomes: Mapping[int, str]) -> None:
        """Do nothing: a line cannot be asked for again."""

    # -- in the reading thread ----------------------------------------------------------------

    def _run(self) -> None:
        retry_s = FIRST_RETRY_S
        while not self._closing.is_set():
            before = self.counts.bytes
            try:
                self._session()
            except (OSError, termios.error) as error:  # a SerialException is an OSError
                self._lost(str(error))
            # A port that opens and fails at once is as good as absent.
            retry_s = FIRST_RETRY_S if self.counts.bytes > before else retry_s
            self._closing.wait(retry_s)
            retry_s = min(2 * retry_s, LAST_RETRY_S)

    def _session(self) -> None:
        """Read until the port fails (raises), falls silent or the source is closed (returns)."""
        socketed = self._config.url.startswith("socket://")
        port = _SocketPort(self._config.url) if socketed else _DevicePort(self._config)
        self._port = port
        try:
            self._found()
            heard = time.monotonic()
            while not self._closing.is_set():
                chunk = port.read_some()
                if chunk:
                    heard = time.monotonic()
                    self._take(chunk)
                elif 0 < self._config.silence_s <= time.monotonic() - heard:
                    self._lost(f"silent for {self._config.silence_s:g} s")
                    return
        finally:
            self.counts.connected = False
            self._port = None
            self._framer.restart()
            self._tell_framing()
            port.close()

    def _take(self, chunk: bytes) -> None:
        counts = self.counts
        counts.bytes += len(chunk)
        before = self._framer.frames
        frames = self._framer.push(chunk)
        self._tell_framing()
        if not frames:
            return
        counts.frames = self._framer.frames
        arrival = Arrival(self._topic, frames, 0, time.time_ns(), source=self.name)
        dropped = self._buffer.add(arrival, self._framer.frames - before)
        if dropped:
            if loud(counts.overflows, counts.overflows + dropped):
                log.warning(
                    "readings dropped: the agent does not keep up",
                    extra={"source": self.name, "dropped": counts.overflows + dropped},
                )
            counts.overflows += dropped

    def _tell_framing(self) -> None:
        counts, framer = self.counts, self._framer
        if loud(counts.bad_frames, framer.bad_frames):
            log.warning(
                "over-long lines dropped: other baud rate or format?",
                extra={"source": self.name, "lines": framer.bad_frames},
            )
        counts.bad_frames = framer.bad_frames
        counts.garbage_bytes = framer.garbage_bytes

    def _found(self) -> None:
        self.counts.connected = True
        if self._opened:
            self.counts.reconnects += 1
        self._opened, self._told_lost = True, False
        log.info("port open", extra={"source": self.name, "url": self._config.url})

    def _lost(self, why: str) -> None:
        if not self._told_lost:
            log.warning(
                "no port, trying again",
                extra={"source": self.name, "url": self._config.url, "error": why},
            )
        self._told_lost = True
