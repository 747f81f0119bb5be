"""Modbus devices as pymodbus serves them, over TCP and over a line of two pseudo-terminals."""

import asyncio
import os
import select
import socket
import struct
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import msgspec
import pytest

from agent.sources import Modbus, Source, SourceConfig
from agent.sources.registers import MOST_REGISTERS, Poll, rounds

pytest.importorskip("pymodbus")

from pymodbus import FramerType
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

Taken = Any
Start = Callable[[Source], None]
PATIENCE_S = 60


def words(layout: str, *values: float) -> list[int]:
    packed = struct.pack(layout, *values)
    return [number for (number,) in struct.iter_unpack(">H", packed)]


HOLDING = [
    *words(">f", 12.5),  # 0
    *words(">h", -250),  # 2
    *words(">H", 65000),  # 3
    *reversed(words(">i", -70000)),  # 4
    *words(">d", 1e-3),  # 6
    *words(">I", 4_000_000_000),  # 10
    *range(1000, 1188),  # 12 to 199
]


def device(unit_id: int, holding: list[int]) -> SimDevice:
    coils = SimData(0, values=[n % 3 == 0 for n in range(32)], datatype=DataType.BITS)
    discrete = SimData(0, values=[n % 2 == 0 for n in range(32)], datatype=DataType.BITS)
    held = SimData(0, values=holding, datatype=DataType.REGISTERS)
    measured = SimData(0, values=[7, 8, 9], datatype=DataType.REGISTERS)
    return SimDevice(unit_id, simdata=([coils], [discrete], [held], [measured]))


class Plc:
    """A Modbus server in a thread with a loop of its own."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._server: Any = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._ready.wait(PATIENCE_S)

    def _run(self) -> None:
        async def serve() -> None:
            self._server = self._make()
            await self._server.serve_forever(background=True)
            self._ready.set()
            await self._server.serving

        self._loop.run_until_complete(serve())
        self._loop.close()

    def stop(self) -> None:
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._server.shutdown(), self._loop)
            self._thread.join(PATIENCE_S)


@pytest.fixture
def serve(opened: ExitStack) -> Callable[..., Plc]:
    def serve(make: Callable[[], Any]) -> Plc:
        plc = Plc(make)
        opened.callback(plc.stop)
        return plc

    return serve


@pytest.fixture
def tcp_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture
def line() -> Iterator[tuple[str, str]]:
    """Return the two ends of a serial line."""
    pairs = [os.openpty(), os.openpty()]
    for _, slave in pairs:
        tty.setraw(slave)
    one, other = pairs[0][0], pairs[1][0]
    stop_r, stop_w = os.pipe()

    def carry() -> None:
        while True:
            ready, _, _ = select.select([one, other, stop_r], [], [])
            if stop_r in ready:
                return
            for end in ready:
                os.write(other if end == one else one, os.read(end, 4096))

    carrying = threading.Thread(target=carry)
    carrying.start()
    yield os.ttyname(pairs[0][1]), os.ttyname(pairs[1][1])
    os.write(stop_w, b"x")
    carrying.join(PATIENCE_S)
    for fd in (*pairs[0], *pairs[1], stop_r, stop_w):
        os.close(fd)


def said(taken: Taken) -> list[tuple[str, dict[str, float]]]:
    messages = [msgspec.json.decode(arrival.payload) for arrival in taken.arrivals]
    return [(message["asset"], message["v"]) for message in messages]


POLLS = (
    Poll("flow", 0, type="float32"),
    Poll("temperature", 2, type="int16", scale=0.1, offset=5.0),
    Poll("speed", 3),
    Poll("torque", 4, type="int32", word_order="little"),
    Poll("leak", 6, type="float64"),
    Poll("hours", 10, type="uint32"),
    Poll("level", 2, kind="input"),
    Poll("running", 3, kind="coil"),
    Poll("door", 3, kind="discrete"),
)
VALUES = {
    "flow": 12.5,
    "temperature": -20.0,
    "speed": 65000.0,
    "torque": -70000.0,
    "leak": 1e-3,
    "hours": 4e9,
    "level": 9.0,
    "running": 1.0,
    "door": 0.0,
}


@pytest.mark.parametrize("framer", [FramerType.SOCKET, FramerType.RTU])
def test_every_type_is_read_over_tcp(
    framer: FramerType, tcp_port: int, serve: Callable[..., Plc], start: Start, taken: Taken
) -> None:
    address = ("127.0.0.1", tcp_port)
    serve(lambda: ModbusTcpServer(device(1, HOLDING), address=address, framer=framer))
    scheme = "tcp" if framer == FramerType.SOCKET else "rtu+tcp"
    source = Modbus(f"{scheme}://127.0.0.1:{tcp_port}", POLLS, asset="press-2").build()
    start(source)
    taken.wait(lambda: len(taken.arrivals) >= 2)
    first = taken.arrivals[0]
    assert first.topic == "source/modbus"
    assert first.token == 0
    assert said(taken)[0] == ("press-2", pytest.approx(VALUES))
    assert msgspec.json.decode(first.payload)["t"] == first.at_ns
    assert source.counts.bad_frames == 0
    # 12 holding registers, one input register, two bits
    assert source.counts.bytes >= 2 * (24 + 2 + 1 + 1)


def test_devices_on_one_serial_line_are_read_and_an_absent_one_is_told(
    line: tuple[str, str], serve: Callable[..., Plc], start: Start, taken: Taken
) -> None:
    devices = [device(1, HOLDING), device(2, [5] * 20)]
    serve(
        lambda: ModbusSerialServer(
            devices, port=line[0], baudrate=115200, ignore_missing_devices=True
        )
    )
    polls = (
        Poll("flow", 0, type="float32", every_s=0.05),
        Poll("flow", 0, asset="pump-2", unit_id=2, every_s=0.05),
        Poll("flow", 0, asset="pump-3", unit_id=3, every_s=0.05),
    )
    config = Modbus(
        line[1], polls, asset="pump-1", baud=115_200, parity="N", timeout_s=0.1, name="line"
    )
    source = config.build()
    start(source)
    taken.wait(lambda: source.counts.bad_frames >= 2 and len(taken.arrivals) >= 6)
    assert {asset: v["flow"] for asset, v in said(taken)} == {"pump-1": 12.5, "pump-2": 5.0}
    assert taken.said.count("a device did not answer as asked") >= 1
    assert source.counts.connected
    assert source.counts.reconnects == 0  # the others' line is not to be blamed


def test_a_channel_the_device_refuses_is_left_out_and_not_made_up(
    tcp_port: int, serve: Callable[..., Plc], start: Start, taken: Taken
) -> None:
    serve(lambda: ModbusTcpServer(device(1, HOLDING), address=("127.0.0.1", tcp_port)))
    polls = (Poll("flow", 0, type="float32"), Poll("nowhere", 5000))
    source = Modbus(f"tcp://127.0.0.1:{tcp_port}", polls, asset="press-2").build()
    start(source)
    taken.wait(lambda: bool(taken.arrivals))
    assert said(taken)[0] == ("press-2", {"flow": 12.5})
    assert source.counts.bad_frames >= 1
    assert source.counts.reconnects == 0


def test_a_device_that_went_away_is_reached_again(
    tcp_port: int, serve: Callable[..., Plc], start: Start, taken: Taken
) -> None:
    def make() -> ModbusTcpServer:
        return ModbusTcpServer(device(1, HOLDING), address=("127.0.0.1", tcp_port))

    poll = (Poll("flow", 0, type="float32", every_s=0.05),)
    source = Modbus(f"tcp://127.0.0.1:{tcp_port}", poll, asset="press-2").build()
    start(source)
    taken.wait_said("cannot be reached, trying again")
    plc = serve(make)
    taken.wait(lambda: len(taken.arrivals) >= 2)
    plc.stop()
    taken.wait_said("cannot be reached, trying again", 2)
    assert not source.counts.connected
    came = len(taken.arrivals)
    serve(make)
    taken.wait(lambda: len(taken.arrivals) > came)
    assert source.counts.reconnects >= 1
    assert all(v == {"flow": 12.5} for _, v in said(taken))


def test_a_line_that_is_unplugged_is_opened_again(
    plug: Callable[[], Any], port: str, start: Start, taken: Taken
) -> None:
    poll = (Poll("flow", 0, every_s=0.02),)
    source = Modbus(port, poll, asset="press-2", parity="N", timeout_s=0.02).build()
    start(source)
    taken.wait_said("cannot be reached, trying again")
    pty = plug()
    taken.wait_said("connected")
    taken.wait_said("a device did not answer as asked")  # nobody is at the other end
    pty.unplug()
    taken.wait_said("cannot be reached, trying again", 2)
    plug()
    taken.wait_said("connected", 2)
    assert not taken.arrivals
    assert source.alive


def test_rounds_keep_the_beat_and_what_is_missed_is_left_out(taken: Taken) -> None:
    poll = (Poll("flow", 0, every_s=1000.0),)
    source = Modbus("tcp://127.0.0.1:1", poll, asset="press-2").build()
    (asked,) = source._rounds
    begin = time.monotonic() - 1.0
    assert source._next(begin, asked) == begin + 1000.0
    assert source.counts.overflows == 0
    assert source._next(begin - 10_500.0, asked) == pytest.approx(begin + 500.0)
    assert source.counts.overflows == 10
    assert taken.said == ["rounds left out: the device or the agent takes longer than every_s"]


def test_it_closes_before_open_twice_and_while_nobody_answers(tcp_port: int, taken: Taken) -> None:
    config = Modbus(f"tcp://127.0.0.1:{tcp_port}", (Poll("flow", 0),), asset="press-2")
    never = config.build()
    never.close()
    never.open(taken.put)
    assert not never.alive
    waiting = config.build()
    waiting.open(taken.put)
    assert waiting.alive
    waiting.close()
    waiting.close()
    assert not waiting.alive


def test_registers_that_touch_are_one_request_up_to_what_an_answer_holds() -> None:
    polls = [Poll(f"c{n}", n) for n in range(200)]
    (asked,) = rounds(reversed(polls), "press-2", 1)
    assert [(one.first, one.size) for one in asked.requests] == [(0, MOST_REGISTERS), (125, 75)]
    assert [poll.channel for one in asked.requests for poll in one.polls] == [
        f"c{n}" for n in range(200)
    ]


def test_a_long_number_is_never_cut_in_two() -> None:
    polls = [Poll(f"c{n}", 2 * n, type="float32") for n in range(100)]
    (asked,) = rounds(polls, "press-2", 1)
    assert [(one.first, one.size) for one in asked.requests] == [(0, 124), (124, 76)]


def test_other_periods_devices_and_kinds_are_other_requests() -> None:
    polls = [
        Poll("a", 0),
        Poll("b", 1, every_s=2.0),
        Poll("c", 1, unit_id=2),
        Poll("d", 1, kind="input"),
        Poll("e", 1),
        Poll("f", 1, type="int16"),  # the same register, read as something else
    ]
    asked = rounds(polls, "press-2", 1)
    assert [(one.every_s, len(one.requests)) for one in asked] == [(1.0, 3), (2.0, 1)]
    assert [poll.channel for poll in asked[0].requests[0].polls] == ["a", "e", "f"]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"url": ""}, "name a device"),
        ({"url": "udp://plc"}, "tcp:// or rtu"),
        ({"url": "tcp://"}, "tcp://host:port"),
        ({"asset": ""}, "of which asset"),
        ({"poll": []}, "poll"),
        ({"poll": [{"channel": "a", "register": 0}, {"channel": "a", "register": 1}]}, "twice"),
        ({"poll": [{"channel": "a", "register": 65535, "type": "int32"}]}, "behind register 65535"),
        ({"poll": [{"channel": "a", "register": 0, "kind": "coil", "type": "int16"}]}, "is a bit"),
        ({"poll": [{"channel": "a", "register": 0, "type": "bool"}]}, "coil or discrete"),
        ({"poll": [{"channel": "a", "register": 0, "every_s": 0}]}, "every_s"),
    ],
)
def test_a_wrong_configuration_says_what_to_mend(changes: dict[str, object], match: str) -> None:
    poll = [{"channel": "flow", "register": 0}]
    raw = {"kind": "modbus", "url": "tcp://plc:502", "asset": "press-2", "poll": poll}
    assert isinstance(msgspec.convert(raw, SourceConfig), Modbus)
    with pytest.raises(msgspec.ValidationError, match=match):
        msgspec.convert(raw | changes, SourceConfig)
