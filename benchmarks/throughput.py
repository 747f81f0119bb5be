"""Broker to score in one agent process: processor time per message, delay, memory.

    python -m benchmarks.throughput [--seconds 3]

A real mosquitto and a real ``runout-agent run``: at QoS 1, journalled, committed to disk, then
acknowledged. In turns with it, on the same core and the same messages, paho's own client with a
callback that only counts: what any subscriber in Python pays, and what the agent is held against.
The receiver has one core, broker and publisher the others. Linux.
"""

import argparse
import contextlib
import json
import math
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from agent.decode.waveform import decode
from agent.features.burst import BurstFeatures
from benchmarks.load import RATE_HZ, SHAPES, SITE, TOLD_S, Sent, Shape
from contract.spec import Waveform
from demo import broker

AGENT, PLAIN = "agent", "plain"  # as long as each other: so are the topics
TURNS = 3
WARM_UP = {"single": 3000, "batch100": 300, "rows24": 1500, "waveform4096": 400}
"""Messages before anything is measured: past what is learnt at the beginning of a life."""
SHARE = 0.5
"""Of the most that the agent takes by the clock: the rate at which delay is measured."""

CONFIG = """\
[node]
name = "{node}"
site = "{site}"
state = {state}

[mqtt]
port = {port}

[report]
status_s = {status_s}
health_every_s = {every_s}

[[asset_class]]
name = "{shape.name}"
hop = {shape.hop}
stats = {stats}
{measured}

[asset_class.health]
kind = "moments"
stats = {watched}
baseline = {baseline}
learn = {learn}
"""


WAVEFORM = """\
[[asset_class.waveforms]]
name = "{shape.names[0]}"
unit = "m/s2"
rate_hz = {rate_hz}
samples = {shape.samples}
features = [
  "rms", "peak", "crest", "skewness", "kurtosis", "velocity_rms", "centroid", "band_500_2000",
  "band_2000_8000", "envelope_rms", "bpfo", "bpfi", "bsf",
]
speed_rpm = 1480
bearing = {{ balls = 9, ball_mm = 7.94, pitch_mm = 39.04 }}
"""


def config(shape: Shape, port: int, state: Path) -> str:
    """Return the agent's configuration; what it does not say is as it comes."""
    stats = [f"{kind}_{shape.span}" for kind in ("mean", "std", "min", "max", "slope", "ewma")]
    return CONFIG.format(
        node=AGENT,
        site=SITE,
        state=json.dumps(str(state)),
        port=port,
        status_s=TOLD_S,
        shape=shape,
        stats=json.dumps(stats),
        # Bursts overlap in all 16 rows of a window: 32 vectors are two independent ones, by which
        # a healthy machine stands in alarm. As for any machine that is slow beside its window.
        baseline=320 if shape.samples else 30,
        learn=360 if shape.samples else 60,
        every_s=(0.1 if shape.samples else 1.0) if shape.told > 1 else 0.0,
        # Many channels are watched as an engineer would: level and spread.
        watched=json.dumps(stats if shape.channels == 1 and not shape.samples else stats[:2]),
        measured=WAVEFORM.format(shape=shape, rate_hz=RATE_HZ)
        if shape.samples
        else "channels = [\n"
        + "\n".join(f'  {{ name = "{name}", unit = "bar" }},' for name in shape.names)
        + "\n]",
    )


class Cores:
    """One core for what is measured, the others for the rest; nothing where the system cannot."""

    def __init__(self) -> None:
        self._all = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
        ordered = sorted(self._all)
        self._measured = set(ordered[-1:])
        self._others = set(ordered[:-1]) or self._measured

    @contextlib.contextmanager
    def given(self, *, measured: bool) -> Iterator[None]:
        """Give what is started meanwhile its cores: a process inherits them, threads and all."""
        if len(self._all) < 2:
            yield
            return
        os.sched_setaffinity(0, self._measured if measured else self._others)
        try:
            yield
        finally:
            os.sched_setaffinity(0, self._others)


class Bench:
    """Starts processes with their cores and logs, and ends them, each by its own handle."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.cores = Cores()

    @contextlib.contextmanager
    def started(
        self, name: str, command: list[str], *, measured: bool = False
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Run a process for a while."""
        with (self.folder / f"{name}.log").open("wb") as log, self.cores.given(measured=measured):
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C is ours: all of these are ended below.
                start_new_session=True,
            )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def send(
        self,
        shape: Shape,
        node: str,
        first: int,
        count: int,
        *,
        rate: float = 0.0,
        pid: int = 0,
    ) -> Sent:
        """Publish a stretch of messages to a node; returns when it has done with them."""
        numbers = {"port": self.port, "first": first, "count": count, "rate": rate, "pid": pid}
        command = [sys.executable, "-m", "benchmarks.load", "send"]
        command += ["--node", node, "--shape", shape.name]
        for name, number in numbers.items():
            command += [f"--{name}", str(number)]
        if node == AGENT:
            command += ["--scored"]
        with self.started("send", command) as process:
            code = process.wait()
        said = (self.folder / "send.log").read_text(encoding="utf-8")
        if code:
            log = self.folder / f"{shape.name}-{node}.log"
            tail = log.read_text(encoding="utf-8", errors="replace")[-2000:]
            raise SystemExit(f"{said}\nthe last that {node} said:\n{tail}")
        return msgspec.json.decode(said, type=Sent)


@dataclass
class Measured:
    """What came out for one shape."""

    shape: Shape
    agent: list[Sent] = field(default_factory=list)
    plain: list[Sent] = field(default_factory=list)
    paced: Sent = field(default_factory=lambda: Sent(0, 0.0, 0.0, []))
    rest_mb: float = 0.0
    peak_mb: float = 0.0
    sklearn: bool = False
    floor_us: float = math.nan

    @property
    def cpu_us(self) -> float:
        """Return the agent's microseconds of processor time per message."""
        return _cpu_us(self.agent)

    @property
    def bare_cpu_us(self) -> float:
        """Return the plain subscriber's microseconds of processor time per message."""
        return _cpu_us(self.plain)

    @property
    def ratio(self) -> float:
        """Return how much more the agent costs."""
        return self.cpu_us / self.bare_cpu_us

    @property
    def messages_per_s_core(self) -> float:
        """Return the messages that a second of one core pays for."""
        return 1e6 / self.cpu_us

    @property
    def samples(self) -> int:
        """Return the samples in a message."""
        return max(self.shape.rows * self.shape.channels, self.shape.samples)

    @property
    def wall_per_s(self) -> float:
        """Return the messages a second by the clock, as fast as the agent takes them."""
        return statistics.median(sent.messages / sent.wall_s for sent in self.agent)

    def delay_ms(self, share: float) -> float:
        """Return a quantile of the delay from publishing to the score."""
        ordered = sorted(self.paced.latencies_ms)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]

    def cells(self) -> list[str]:
        """Return the column of the table."""
        return [
            f"{self.cpu_us:,.0f}",
            f"{self.bare_cpu_us:,.0f}",
            f"{self.ratio:.2f}",
            f"{self.messages_per_s_core:,.0f}",
            f"{self.messages_per_s_core * self.samples:,.0f}",
            f"{self.wall_per_s:,.0f}",
            f"{self.paced.messages / self.paced.wall_s:,.0f}",
            f"{self.delay_ms(0.5):.1f}",
            f"{self.delay_ms(0.99):.1f}",
            f"{self.paced.cpu_s / self.paced.wall_s:.0%}",
            f"{self.rest_mb:.0f}",
            f"{self.peak_mb:.0f}",
            f"{sum(sent.messages for sent in self.agent):,}",
            "" if math.isnan(self.floor_us) else f"{self.floor_us:,.0f}",
        ]


ROWS = [
    "agent, us of CPU a message",
    "plain subscriber, us of CPU a message",
    "ratio",
    "messages a second and core",
    "samples a second and core",
    "messages a second by the clock",
    "delay measured at messages a second",
    "  publish to score, p50, ms",
    "  publish to score, p99, ms",
    "  of a core that takes",
    "agent's memory after start, MB",
    "  at its highest, MB",
    "messages measured, none lost",
    "receive, features and write alone, us",
]


def _cpu_us(stretches: list[Sent]) -> float:
    return statistics.median(sent.cpu_s / sent.messages * 1e6 for sent in stretches)


def measure(bench: Bench, shape: Shape, seconds: float) -> Measured:
    """Measure one shape: agent and plain subscriber in turns, then the agent's delay."""
    found = Measured(shape)
    file = bench.folder / f"{shape.name}.toml"
    file.write_text(config(shape, bench.port, bench.folder / f"{shape.name}-state"))
    program = str(Path(sys.executable).with_name("runout-agent"))
    count = [sys.executable, "-m", "benchmarks.load", "count", "--port", str(bench.port)]
    count += ["--node", PLAIN, "--shape", shape.name]
    with ExitStack() as opened:
        agent, plain = (
            opened.enter_context(bench.started(f"{shape.name}-{node}", command, measured=True)).pid
            for node, command in (
                (AGENT, [program, "run", "--config", str(file)]),
                (PLAIN, count),
            )
        )
        bench.send(shape, AGENT, 0, 0)
        found.rest_mb = memory_mb(agent, "VmRSS")
        found.sklearn = "sklearn" in Path(f"/proc/{agent}/maps").read_text(encoding="utf-8")
        first, n = 0, WARM_UP.get(shape.name, 1500 + 80 * shape.assets)
        warm = bench.send(shape, AGENT, first, n)
        bench.send(shape, PLAIN, first, n)
        first += n
        n = max(int(seconds * n / warm.wall_s), n // 2)
        for _ in range(TURNS):
            found.agent.append(bench.send(shape, AGENT, first, n, pid=agent))
            found.plain.append(bench.send(shape, PLAIN, first, n, pid=plain))
            first += n
        rate = SHARE * found.wall_per_s
        n = max(int(1.5 * seconds * rate), shape.hop)
        found.paced = bench.send(shape, AGENT, first, n, rate=rate, pid=agent)
        found.peak_mb = memory_mb(agent, "VmHWM")
    if shape.samples:
        found.floor_us = found.bare_cpu_us + floor_us(shape, bench.cores, bench.folder)
    return found


def floor_us(shape: Shape, cores: Cores, folder: Path) -> float:
    """Return what cannot be left out of a burst, in microseconds of CPU: features, and a write.

    The features that the agent computes of it, and its bytes written and flushed, 32 at a time as
    a busy agent does; beside them there is what any subscriber pays to receive it.
    """
    text = WAVEFORM.format(shape=shape, rate_hz=RATE_HZ)
    wave = msgspec.toml.decode(text.replace("[[asset_class.waveforms]]", "[wave]"), type=_Wave).wave
    features = BurstFeatures(wave)
    payload = shape.payload(1)
    at_once, turns = 32, 60
    samples = np.stack([decode(shape.payload(i), 0)[0].samples for i in range(at_once)])
    with cores.given(measured=True), (folder / "floor").open("wb", buffering=0) as file:
        began = 0.0
        for turn in range(turns + 5):
            if turn == 5:
                began = time.thread_time()
            features.compute(samples)
            file.write(payload * at_once)
            os.fdatasync(file.fileno())
        return (time.thread_time() - began) / turns / at_once * 1e6


class _Wave(msgspec.Struct):
    wave: Waveform


def memory_mb(pid: int, key: str) -> float:
    """Return what ``/proc`` says of a process's memory: ``VmRSS`` now, ``VmHWM`` at its highest."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"/proc/{pid}/status says nothing of {key}")


def free_port() -> int:
    """Return a port on loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(program: str, seconds: float, parent: Path | None) -> list[Measured]:
    """Measure all shapes against one broker."""
    with ExitStack() as opened:
        folder = Path(
            opened.enter_context(tempfile.TemporaryDirectory(prefix="runout-bench-", dir=parent))
        )
        bench = Bench(folder)
        opened.enter_context(bench.started("broker", broker.command(bench.port, folder, program)))
        found = []
        for shape in SHAPES.values():
            print(f"{shape.name} ...", file=sys.stderr)
            found.append(measure(bench, shape, seconds))
        return found


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--seconds", type=float, default=3.0, help="about, of each measured stretch"
    )
    parser.add_argument(
        "--folder",
        type=Path,
        help="where the agent's state goes meanwhile: on the disk that counts",
    )
    arguments = parser.parse_args()
    program = broker.mosquitto()
    if sys.platform != "linux" or program is None:
        raise SystemExit("this needs Linux and mosquitto: apt install mosquitto")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        found = run(program, arguments.seconds, arguments.folder)
    except KeyboardInterrupt:
        return 130
    print(f"\nBroker to score in one process, QoS 1, committed; medians of {TURNS} turns\n")
    print(f"{'':40}" + "".join(f"{m.shape.name:>14}" for m in found))
    for text, *cells in zip(ROWS, *(m.cells() for m in found), strict=True):
        print(f"{text:40}" + "".join(f"{cell:>14}" for cell in cells))
    print(f"scikit-learn loaded: {'yes' if any(m.sklearn for m in found) else 'no'}\n")
    last: dict[str, object] = {}
    for m in found:
        cost = {"cpu_us": m.cpu_us, "bare_cpu_us": m.bare_cpu_us, "ratio": m.ratio}
        rate = {"messages_per_s_core": m.messages_per_s_core}
        if m.shape.samples:
            rate = {"blocks_per_s_core": m.messages_per_s_core, "floor_cpu_us": m.floor_us}
        if m.shape.rows > 1:
            rate = {"samples_per_s_core": m.messages_per_s_core * m.samples}
        last[m.shape.name] = {name: round(value, 2) for name, value in (cost | rate).items()}
    single = found[0]
    last["p50_ms"] = round(single.delay_ms(0.5), 3)
    last["p99_ms"] = round(single.delay_ms(0.99), 3)
    last["rss_mb"] = round(max(m.peak_mb for m in found), 1)
    print(json.dumps(last))
    return 0


if __name__ == "__main__":
    sys.exit(main())
