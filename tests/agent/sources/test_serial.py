"""Serial ports as they are: pseudo-terminals, TCP servers and loops that break and come back."""

import fcntl
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import msgspec
import pytest

from agent.decode import cobs, csv
from agent.intake import Arrival
from agent.sources import Serial, Source, SourceConfig
from agent.sources.serial import SerialSource

Taken = Any
Start = Callable[[Source], None]
Plug = Callable[[], Any]

PATIENCE_S = 60

PORT_OPEN = "port open"
NO_PORT = "no port, trying again"


def csv_port(url: str, **changes: object) -> SerialSource:
    config = Serial(url=url, asset="pump-1", columns=("flow", "speed"))
    return msgspec.structs.replace(config, **changes).build()


def test_lines_arrive_once_and_in_order(plug: Plug, port: str, start: Start, taken: Taken) -> None:
    pty = plug()
    source = csv_port(port, when_full="wait")
    start(source)
    taken.wait_said(PORT_OPEN)
    lines = b"".join([b"%d.5,1480\n" % number for number in range(100_000)])
    begin, cpu = time.perf_counter(), time.process_time()
    pty.write(b"\n" + lines)
    taken.wait_for(lines)
    spent, cpu = time.perf_counter() - begin, time.process_time() - cpu
    print(f"a line: {spent * 10:.2f} us, of CPU, writer and reader together, {cpu * 10:.2f} us")
    assert all(arrival.payload.endswith(b"\n") for arrival in taken.arrivals)
    assert {(arrival.topic, arrival.token) for arrival in taken.arrivals} == {("source/serial", 0)}
    counts = source.counts
    assert counts.frames == 100_000
    assert counts.bytes == len(lines) + 1
    assert (counts.bad_frames, counts.garbage_bytes, counts.overflows) == (0, 1, 0)


def test_the_line_it_joined_in_the_middle_of_is_dropped(
    plug: Plug, port: str, start: Start, taken: Taken
) -> None:
    pty = plug()
    source = csv_port(port)
    start(source)
    taken.wait_said(PORT_OPEN)
    pty.write(b"480\n1.5,1480\n2.5,")
    taken.wait_for(b"1.5,1480\n")
    pty.write(b"1490\n")
    taken.wait_for(b"1.5,1480\n2.5,1490\n")
    assert source.counts.garbage_bytes == len(b"480\n")


def test_garbage_between_lines_is_passed_over_and_counted(
    plug: Plug, port: str, start: Start, taken: Taken
) -> None:
    pty = plug()
    source = csv_port(port, max_line=64, checksum=True)
    start(source)
    taken.wait_said(PORT_OPEN)
    good = [csv.add_checksum(b"%d.5,1480" % number) + b"\n" for number in range(3)]
    over_long = bytes(range(1, 10)) + b"\xff" * 5000 + b"\n"
    pty.write(b"\n" + good[0] + over_long + good[1] + b"\x00\xfe4,*7?\n" + good[2])
    taken.wait(lambda: taken.payload.endswith(good[2]))
    assert source.counts.bad_frames == 1
    assert source.counts.garbage_bytes == 1 + len(over_long)
    blocks, refused = csv.decode(taken.payload, 10**18, ("flow", "speed"), checksum=True)
    assert [row[0] for block in blocks for row in block.values] == [0.5, 1.5, 2.5]
    assert len(refused) == 1


def test_cobs_records_end_with_their_zeros(
    plug: Plug, port: str, start: Start, taken: Taken
) -> None:
    pty = plug()
    source = csv_port(port, format="cobs")
    start(source)
    taken.wait_said(PORT_OPEN)
    records = b"".join([cobs.encode_record([float(n), 10.0]) for n in range(1000)])
    pty.write(b"\0" + records)
    taken.wait_for(records)
    assert source.counts.frames == 1000


def test_an_unplugged_port_is_opened_again_when_it_is_back(
    plug: Plug, port: str, start: Start, taken: Taken
) -> None:
    source = csv_port(port)
    start(source)  # before there is any
    taken.wait_said(NO_PORT)
    for again in range(3):
        pty = plug()
        taken.wait_said(PORT_OPEN, again + 1)
        assert source.counts.connected
        pty.write(b"\n%d,1\n2,unfinish" % again)
        taken.wait(lambda end=b"%d,1\n" % again: taken.payload.endswith(end))
        pty.unplug()
        taken.wait_said(NO_PORT, again + 2)
        assert not source.counts.connected
    assert taken.payload == b"0,1\n1,1\n2,1\n"
    assert source.counts.reconnects == 2
    assert source.alive
    assert taken.said.count(NO_PORT) == 4  # once a change, not once an attempt


def test_a_port_that_another_program_holds_is_waited_for(
    plug: Plug, port: str, start: Start, taken: Taken
) -> None:
    pty = plug()
    other = os.open(port, os.O_RDWR | os.O_NOCTTY)
    fcntl.flock(other, fcntl.LOCK_EX)
    start(csv_port(port))
    taken.wait_said(NO_PORT)
    os.close(other)
    taken.wait_said(PORT_OPEN)
    pty.write(b"\n1,2\n")
    taken.wait_for(b"1,2\n")


def test_a_port_that_rejects_its_settings_is_told_and_tried_again(
    start: Start, taken: Taken
) -> None:
    source = csv_port("alt:///dev/null?class=NoSuchPort")
    start(source)
    taken.wait_said(NO_PORT)
    assert source.alive


def test_a_loop_hears_what_it_says(start: Start, taken: Taken) -> None:
    source = csv_port("loop://")
    start(source)
    taken.wait_said(PORT_OPEN)
    source._port.device.write(b"\n1,2\n3,4\n")  # type: ignore[union-attr]
    taken.wait_for(b"1,2\n3,4\n")


def test_a_socket_is_read_and_reached_again(opened: ExitStack, start: Start, taken: Taken) -> None:
    server = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
    source = csv_port(f"socket://127.0.0.1:{server.getsockname()[1]}", when_full="wait")
    start(source)
    expected = b""
    for begin in (0, 20_000):
        connection, _ = server.accept()
        lines = b"".join([b"%d,1\n" % number for number in range(begin, begin + 20_000)])
        with connection:
            connection.sendall(b"\n" + lines)
        expected += lines
        taken.wait_for(expected)
    assert source.counts.reconnects == 1


def test_a_silent_port_is_opened_again(opened: ExitStack, start: Start, taken: Taken) -> None:
    server = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
    source = csv_port(f"socket://127.0.0.1:{server.getsockname()[1]}", silence_s=0.2)
    start(source)
    first, _ = server.accept()
    with first:
        second, _ = server.accept()  # it would wait for ever if the first were kept
        with second:
            second.sendall(b"\n1,2\n")
            taken.wait_for(b"1,2\n")
    assert source.counts.reconnects == 1


def test_reading_goes_on_while_the_intake_is_full_and_what_is_lost_is_counted(
    plug: Plug, port: str, start: Start, taken: Taken
) -> None:
    pty = plug()
    source = csv_port(port, buffer=4096, when_full="oldest")
    start(source)
    taken.wait_said(PORT_OPEN)
    taken.gate.clear()
    sent = [b"%d,1480\n" % number for number in range(20_000)]
    pty.write(b"\n" + b"".join(sent))  # comes back only because it is read
    taken.wait_said("readings dropped: the agent does not keep up")
    taken.gate.set()
    # One read's worth is dropped at a time: what comes now must not find the last one waiting.
    taken.wait(lambda: taken.payload.endswith(b"\n19999,1480\n"))
    pty.write(b"0,0\n")
    taken.wait(lambda: taken.payload.endswith(b"\n0,0\n"))
    came = taken.payload.splitlines(keepends=True)[:-1]
    assert source.counts.frames == len(sent) + 1
    assert len(came) + source.counts.overflows == len(sent)
    numbers = [int(line.split(b",")[0]) for line in came]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == len(sent) - 1
    assert source.alive


def test_what_came_whole_is_handed_over_before_it_closes(
    plug: Plug, port: str, start: Start, taken: Taken
) -> None:
    pty = plug()
    source = csv_port(port)
    start(source)
    taken.wait_said(PORT_OPEN)
    pty.write(b"\n0,0\n")
    taken.wait_for(b"0,0\n")
    taken.gate.clear()
    read = threading.Event()
    add = source._buffer.add

    def note(arrival: Arrival, frames: int = 1) -> int:
        dropped = add(arrival, frames)
        if arrival.payload.endswith(b"99,1\n"):
            read.set()
        return dropped

    source._buffer.add = note  # type: ignore[method-assign]
    lines = b"".join([b"%d,1\n" % number for number in range(100)])
    pty.write(lines)
    assert read.wait(PATIENCE_S)
    closing = threading.Thread(target=source.close)
    closing.start()
    taken.gate.set()
    closing.join(PATIENCE_S)
    assert taken.payload == b"0,0\n" + lines
    assert not source.alive


def test_it_closes_before_open_twice_and_while_there_is_no_port(port: str, taken: Taken) -> None:
    never = csv_port(port)
    never.close()
    never.open(taken.put)
    assert not never.alive
    waiting = csv_port(port)
    waiting.open(taken.put)
    assert waiting.alive
    waiting.close()
    waiting.close()
    assert not waiting.alive


def test_a_configuration_reads_from_plain_values() -> None:
    raw = {"kind": "serial", "url": "/dev/ttyACM0", "asset": "pump-1", "columns": ["flow", "", "t"]}
    config = msgspec.convert(raw, SourceConfig)
    assert isinstance(config, Serial)
    assert config.name == "serial"
    assert config.build().name == "serial"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"url": ""}, "name a device"),
        ({"url": "serail:///dev/ttyACM0"}, "none of alt, cp2110"),
        ({"url": "socket://host"}, "socket://host:port"),
        ({"url": "socket://host:99999"}, "socket://host:port"),
        ({"url": "rfc2217://host"}, "rfc2217://host:port"),
        ({"url": "rfc2217://:2217"}, "rfc2217://host:port"),
        ({"name": "a/b"}, "without /"),
        ({"asset": ""}, "give asset"),
        ({"columns": []}, "columns in order"),
        ({"columns": ["", ""]}, "none of them is a channel"),
        ({"columns": ["t"], "time": "t"}, "none of them is a channel"),
        ({"format": "cobs", "columns": [f"c{i}" for i in range(1025)]}, "a cobs record has 1024"),
        ({"units": {"flow": "m3/hour"}}, "units: flow: unknown unit"),
        ({"columns": ["flow", "flow"]}, "twice"),
        ({"time": "when"}, "none of columns"),
        ({"units": {"velocity": "mm/s"}}, "none of columns"),
        ({"format": "cobs", "checksum": True}, "its own time and CRC"),
        ({"format": "json"}, "names its values"),
        ({"parity": "X"}, "parity"),
        ({"max_line": 1}, "max_line"),
        ({"bauds": 9600}, "bauds"),
    ],
)
def test_a_wrong_configuration_says_what_to_mend(changes: dict[str, object], words: str) -> None:
    raw = {"kind": "serial", "url": "/dev/ttyACM0", "asset": "pump-1", "columns": ["flow"]}
    with pytest.raises(msgspec.ValidationError, match=words):
        msgspec.convert(raw | changes, SourceConfig)
