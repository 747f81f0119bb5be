"""Ten thousand machines from one process: how fast, against what the broker alone takes.

    python -m benchmarks.simulator [--machines 10000] [--hours 12] [--turns 3]

A real mosquitto on one core, the simulator on another, QoS 1, each message acknowledged: a plant of
pumps as ``runout-simulator run --speed max`` plays it, from the first row to the last
acknowledgement. In turns with it, the broker alone: the same messages, put into packets before the
clock starts, and written as fast as it acknowledges them. Linux.
"""

import argparse
import json
import os
import resource
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from contract.topics import asset_topic
from demo import broker
from simulator.config import Life, Node, Scenario
from simulator.message import Message
from simulator.plant import Plant
from simulator.play import play
from simulator.progress import Progress
from simulator.sinks.bulk import BulkSink
from simulator.sinks.mqtt import Address

SITE = "bench"
NODE_SIZE = 100
"""Machines of a node."""
ALONE = 300_000
"""Messages by which the broker alone is measured."""
_CHUNK = 65_536
_UNACKED = 16_384
_HELLO = b"\x10\x10\x00\x04MQTT\x04\x02\x00\x00\x00\x04load"
_ACK = 4  # bytes


def plant(machines: int, hours: float) -> Plant:
    """Return new pumps, each somewhat more than ``hours`` into its life at the end."""
    nodes = tuple(
        Node(
            f"node-{first // NODE_SIZE:03d}",
            tuple(f"pump-{at:05d}" for at in range(first, min(first + NODE_SIZE, machines))),
            {"bearing": 1.0},
        )
        for first in range(0, machines, NODE_SIZE)
    )
    life = Life((hours / 0.85, hours / 0.85), (36.0, 54.0), (4.0, 12.0))
    return Plant(Scenario(SITE, datetime(2026, 1, 5, tzinfo=UTC), nodes, life=life))


def packets(messages: Iterable[Message]) -> bytes:
    """Return messages as packets of MQTT at QoS 1, numbered."""
    out = bytearray()
    for number, message in enumerate(messages):
        topic = asset_topic(SITE, message.node, message.asset, message.leaf).encode()
        body = len(topic).to_bytes(2, "big") + topic
        body += (number % 0xFFFF + 1).to_bytes(2, "big") + message.payload
        size = len(body)
        out.append(0x32)
        while size > 0x7F:
            out.append(size & 0x7F | 0x80)
            size >>= 7
        out.append(size)
        out += body
    return bytes(out)


def alone(address: Address, load: bytes, count: int) -> float:
    """Return the seconds in which the broker acknowledges ``count`` messages in ``load``."""
    with socket.create_connection((address.host, address.port)) as sock:
        sock.sendall(_HELLO)
        sock.recv(_ACK)
        sock.setblocking(False)
        left, acked = memoryview(load), 0
        mean = len(load) / count
        began = time.perf_counter()
        while acked < count * _ACK:
            sent = (len(load) - len(left)) / mean
            wants = [sock] if left and sent - acked / _ACK < _UNACKED else []
            readable, writable, _ = select.select([sock], wants, [], 60)
            if writable:
                left = left[sock.send(left[:_CHUNK]) :]
            if readable:
                acked += len(sock.recv(_CHUNK))
        return time.perf_counter() - began


def simulated(address: Address, of: Plant) -> tuple[int, float, float]:
    """Return rows, the seconds until the first, and from there to the last acknowledgement."""
    began = time.perf_counter()
    messages = of.messages(("present",))
    first = next(messages)

    def all_of_them() -> Iterator[Message]:
        yield first
        yield from messages

    ready = time.perf_counter()
    progress = Progress(0, sys.stderr, now=lambda: 0.0)
    with BulkSink(address) as sink:
        play(all_of_them(), sink, site=SITE, pace=None, progress=progress)
    return progress.rows, ready - began, time.perf_counter() - ready


@contextmanager
def mosquitto(folder: Path, core: int) -> Iterator[tuple[Address, int]]:
    """Run a broker on a core of its own; yields its address and process."""
    program = broker.mosquitto()
    if program is None:
        raise SystemExit("this needs Linux and mosquitto: apt install mosquitto")
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        address = Address("127.0.0.1", int(sock.getsockname()[1]))
    with subprocess.Popen(
        broker.command(address.port, folder, program),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        os.sched_setaffinity(process.pid, {core})
        assert process.stdout is not None
        for line in process.stdout:
            if b" running" in line:
                break
        try:
            yield address, process.pid
        finally:
            process.terminate()


def cpu_s(pid: int) -> float:
    """Return the processor time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main(argv: list[str] | None = None) -> int:
    """Measure and print; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machines", type=int, default=10_000)
    parser.add_argument("--hours", type=float, default=12.0, help="of data a machine")
    parser.add_argument("--turns", type=int, default=3)
    args = parser.parse_args(argv)
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit("this needs two cores: one for the broker")
    os.sched_setaffinity(0, {cores[1]})
    of = plant(args.machines, args.hours)
    load = packets(islice(of.messages(("present",)), ALONE))
    count = min(ALONE, sum(life.rows for life in of.lives))
    taken, played, ready, busy = [], [], [], []
    rows = 0
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        address, pid = opened.enter_context(mosquitto(folder, cores[0]))
        for turn in range(args.turns):
            taken.append(count / alone(address, load, count))
            before = cpu_s(pid)
            rows, ready_s, played_s = simulated(address, of)
            busy.append((cpu_s(pid) - before) / played_s)
            played.append(rows / played_s)
            ready.append(ready_s)
            print(
                f"turn {turn + 1}: broker alone {taken[-1]:,.0f} messages/s, simulated"
                f" {played[-1]:,.0f} rows/s, after {ready_s:.1f} s of making the machines",
                flush=True,
            )
    rate, least = statistics.median(played), statistics.median(taken)
    figures = {
        "machines": args.machines,
        "rows": rows,
        "rows_per_s": round(rate),
        "broker_alone_per_s": round(least),
        "ratio": round(rate / least, 3),
        "broker_busy": round(statistics.median(busy), 3),
        "ready_s": round(statistics.median(ready), 2),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    print(
        f"\nOne process, {args.machines:,} machines, {rows:,} rows; medians of {args.turns} turns\n"
    )
    for name, value in figures.items():
        print(f"{name.replace('_', ' '):24} {value:>12,}")
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
