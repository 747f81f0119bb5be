"""A Modbus device that is asked for its registers: RTU over a serial line, or TCP.

What was answered in one round becomes one JSON object, so that it is one row.
"""

import heapq
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import SplitResult, urlsplit

import msgspec

from agent.intake import Arrival
from agent.sources.registers import Poll, Request, Round, UnitId, rounds
from agent.sources.source import Put, SourceCounts, loud
from contract import topics
from contract.errors import ConfigError

if TYPE_CHECKING:
    from pymodbus.client import ModbusSerialClient, ModbusTcpClient
    from pymodbus.pdu import ModbusPDU

log = logging.getLogger("runout.modbus")

FIRST_RETRY_S = 0.1
LAST_RETRY_S = 30.0
_PATIENCE_S = 5.0
_NETWORK = ("tcp", "rtu+tcp")

_json = msgspec.json.Encoder()


class Modbus(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="modbus"
):
    """A serial line or network address, and what is asked there.

    Attributes:
        url: ``/dev/serial/by-id/...`` (RTU), ``tcp://host:port``, or ``rtu+tcp://host:port`` for a
            converter that passes RTU frames on.
        poll: the channels.
        name: one topic level, unlike that of any other source.
        asset: of channels that name none.
        unit_id: of channels that name none.
        baud: bits a second.
        bytesize: bits of a character.
        parity: none, even or odd, by its first letter; the standard's default is even.
        stopbits: behind a character.
        timeout_s: a device that has not answered by then will not.
    """

    url: str
    poll: Annotated[tuple[Poll, ...], msgspec.Meta(min_length=1, max_length=10_000)]
    name: str = "modbus"
    asset: str = ""
    unit_id: UnitId = 1
    baud: Annotated[int, msgspec.Meta(ge=300, le=12_000_000)] = 19_200
    bytesize: Literal[7, 8] = 8
    parity: Literal["N", "E", "O"] = "E"
    stopbits: Literal[1, 2] = 1
    timeout_s: Annotated[float, msgspec.Meta(ge=0.01, le=60)] = 1.0

    def __post_init__(self) -> None:
        """Refuse what could not run; msgspec turns this into an error with the path."""
        topics.check_name(self.name, "name")
        if self.asset:
            topics.check_name(self.asset, "asset")
        if not self.url:
            raise ValueError("url: name a device, as /dev/serial/by-id/..., or tcp://host:port")
        parts = urlsplit(self.url)
        if parts.scheme and parts.scheme not in _NETWORK:
            raise ValueError(f"url: {self.url!r}: a device's path, tcp:// or rtu+tcp://")
        if parts.scheme and not _has_address(parts):
            raise ValueError(f"url: {self.url!r}: write it as {parts.scheme}://host:port")
        seen = set()
        for poll in self.poll:
            asset = self.asset_of(poll)
            if not asset:
                raise ValueError(f"{poll.channel}: of which asset? Give the source one: asset")
            if (asset, poll.channel) in seen:
                raise ValueError(f"channel {poll.channel!r} of asset {asset!r} stands twice")
            seen.add((asset, poll.channel))

    def asset_of(self, poll: Poll) -> str:
        """Return the asset that a channel belongs to."""
        return self.asset if poll.asset is None else poll.asset

    def build(self) -> "ModbusSource":
        """Return the source, not yet open."""
        return ModbusSource(self)


class ModbusSource:
    """One thread that asks when it is time, and puts what was answered."""

    def __init__(self, config: Modbus) -> None:
        self.name = config.name
        self.counts = SourceCounts()
        self._config = config
        self._topic = f"source/{config.name}"
        self._rounds = rounds(config.poll, config.asset, config.unit_id)
        self._networked = bool(urlsplit(config.url).scheme)
        self._opened = self._told_lost = False
        self._opening = threading.Lock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def alive(self) -> bool:
        """Return whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def open(self, put: Put) -> None:
        """Start to ask; a device that is absent is waited for."""
        with self._opening:
            if self._closing.is_set() or self._thread is not None:
                return
            client = _client(self._config)
            self._thread = threading.Thread(
                target=self._run, args=(client, put), name=f"{self.name} asks", daemon=True
            )
            self._thread.start()

    def close(self) -> None:
        """End the thread, once the request under way is answered or timed out."""
        self._closing.set()
        with self._opening:
            if self._thread is not None:
                self._thread.join(_PATIENCE_S + self._config.timeout_s)

    def acknowledge(self, outcomes: Mapping[int, str]) -> None:
        """Do nothing: a register says what it holds now."""

    # -- in the asking thread -----------------------------------------------------------------

    def _run(self, client: "ModbusTcpClient | ModbusSerialClient", put: Put) -> None:
        due = [(time.monotonic(), number) for number in range(len(self._rounds))]
        retry_s = FIRST_RETRY_S
        try:
            while not self._closing.wait(max(0.0, due[0][0] - time.monotonic())):
                self.counts.connected = client.connected
                if not client.connect():
                    self._lost()
                    self._closing.wait(retry_s)
                    retry_s = min(2 * retry_s, LAST_RETRY_S)
                    due = [(max(at, time.monotonic()), number) for at, number in due]
                    heapq.heapify(due)
                    continue
                retry_s = FIRST_RETRY_S
                self._found()
                at, number = due[0]
                self._ask(client, self._rounds[number], put)
                heapq.heapreplace(due, (self._next(at, self._rounds[number]), number))
        finally:
            client.close()  # type: ignore[no-untyped-call]
            self.counts.connected = False

    def _next(self, at: float, asked: Round) -> float:
        """Return the next time on the beat of a round; what is past is left out."""
        missed = int(max(0.0, time.monotonic() - at) // asked.every_s)
        if missed:
            if loud(self.counts.overflows, self.counts.overflows + missed):
                log.warning(
                    "rounds left out: the device or the agent takes longer than every_s",
                    extra={"source": self.name, "every_s": asked.every_s},
                )
            self.counts.overflows += missed
        return at + (missed + 1) * asked.every_s

    def _ask(self, client: "ModbusTcpClient | ModbusSerialClient", asked: Round, put: Put) -> None:
        """Put what is answered; a channel that is not is left out, not made up."""
        values: dict[str, float] = {}
        units: dict[str, str] = {}
        at_ns = time.time_ns()
        for request in asked.requests:
            registers = [] if self._closing.is_set() else self._read(client, request)
            for poll in request.polls if registers else ():
                first = poll.register - request.first
                values[poll.channel] = poll.value(registers[first : first + poll.size])
                if poll.unit:  # said here: another asset's channel of that name may have another
                    units[poll.channel] = poll.unit
        if values:
            row = {"asset": asked.asset, "t": at_ns, "v": values}
            payload = _json.encode(row | {"u": units} if units else row)
            self.counts.frames += 1
            put(Arrival(self._topic, payload, 0, at_ns, source=self.name))

    def _read(
        self, client: "ModbusTcpClient | ModbusSerialClient", request: Request
    ) -> Sequence[int]:
        """Return what the registers hold, or nothing."""
        from pymodbus.exceptions import ModbusException  # noqa: PLC0415  # an extra

        read = {
            "holding": client.read_holding_registers,
            "input": client.read_input_registers,
            "coil": client.read_coils,
            "discrete": client.read_discrete_inputs,
        }[request.kind]
        try:
            answer: ModbusPDU = read(request.first, count=request.size, device_id=request.unit_id)
        except (ModbusException, OSError) as error:
            if self._networked:
                client.close()  # type: ignore[no-untyped-call]  # an answer that comes late must not be taken for the next one's
            self._note_failure(request, str(error))
            return []
        if answer.isError():
            self._note_failure(request, f"exception {answer.exception_code}")
            return []
        is_bit = request.kind in {"coil", "discrete"}
        found = [int(bit) for bit in answer.bits] if is_bit else answer.registers
        # Bits come filled up to whole bytes.
        if len(found) < request.size or (len(found) > request.size and not is_bit):
            self._note_failure(request, f"{len(found)} values in place of {request.size}")
            return []
        self.counts.bytes += (request.size + 7) // 8 if is_bit else 2 * request.size
        return found

    def _note_failure(self, request: Request, error: str) -> None:
        counts = self.counts
        counts.bad_frames += 1
        if loud(counts.bad_frames - 1, counts.bad_frames):
            log.warning(
                "a device did not answer as asked",
                extra={
                    "source": self.name,
                    "unit_id": request.unit_id,
                    "kind": request.kind,
                    "register": request.first,
                    "count": request.size,
                    "error": error,
                    "times": counts.bad_frames,
                },
            )

    def _found(self) -> None:
        if self.counts.connected:
            return
        self.counts.connected = True
        if self._opened:
            self.counts.reconnects += 1
        # A network connection is made anew after each answer that did not come: no news.
        if self._told_lost or not self._opened:
            log.info("connected", extra={"source": self.name, "url": self._config.url})
        self._opened, self._told_lost = True, False

    def _lost(self) -> None:
        self.counts.connected = False
        if not self._told_lost:
            log.warning(
                "cannot be reached, trying again",
                extra={"source": self.name, "url": self._config.url},
            )
        self._told_lost = True


def _has_address(parts: SplitResult) -> bool:
    try:
        return bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is no number, or above 65535
        return False


def _client(config: Modbus) -> "ModbusTcpClient | ModbusSerialClient":
    try:
        from pymodbus import FramerType  # noqa: PLC0415  # an extra
        from pymodbus.client import ModbusSerialClient, ModbusTcpClient  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            f"source {config.name!r} needs pymodbus: pip install 'runout[modbus]'"
        ) from error
    # It logs every failure; what is to be said of one is said here.
    logging.getLogger("pymodbus.logging").setLevel(logging.CRITICAL)
    parts = urlsplit(config.url)
    if parts.scheme:
        return ModbusTcpClient(
            str(parts.hostname),
            port=parts.port or 502,
            framer=FramerType.RTU if parts.scheme == "rtu+tcp" else FramerType.SOCKET,
            timeout=config.timeout_s,
            retries=0,
        )
    return ModbusSerialClient(
        config.url,
        baudrate=config.baud,
        bytesize=config.bytesize,
        parity=config.parity,
        stopbits=config.stopbits,
        timeout=config.timeout_s,
        retries=0,
    )
