"""One agent with ever more assets and channels, and one under load for long: cost and memory.

    python -m benchmarks.scale [--seconds 3] [--soak 600]

The set-up of ``benchmarks.throughput``: a real mosquitto, a real ``runout-agent run`` pinned to a
core, QoS 1, journalled and committed. A row of channels a message. For the soak, single samples at
half the rate that the agent takes; its memory is noted in equal steps.
"""

import argparse
import json
import signal
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks.load import SCALES, SHAPES, Shape
from benchmarks.throughput import AGENT, SHARE, WARM_UP, Bench, config, memory_mb
from demo import broker

TURNS = 3
STEPS = 10


def cost(bench: Bench, shape: Shape, seconds: float) -> tuple[float, float]:
    """Return the agent's microseconds of processor time a message, and its memory in MB."""
    file = bench.folder / f"{shape.name}.toml"
    file.write_text(config(shape, bench.port, bench.folder / f"{shape.name}-state"))
    program = str(Path(sys.executable).with_name("runout-agent"))
    command = [program, "run", "--config", str(file)]
    with bench.started(f"{shape.name}-{AGENT}", command, measured=True) as agent:
        # Past the beginning of each asset's life, in which it learns.
        first = max(1500, 320 * shape.assets)
        warm = bench.send(shape, AGENT, 0, first)
        n = max(int(seconds * warm.messages / warm.wall_s), 2 * shape.assets)
        costs = []
        for _ in range(TURNS):
            sent = bench.send(shape, AGENT, first, n, pid=agent.pid)
            costs.append(sent.cpu_s / sent.messages * 1e6)
            first += n
        return statistics.median(costs), memory_mb(agent.pid, "VmHWM")


def soak(bench: Bench, seconds: float, rate: float) -> list[float]:
    """Return the agent's memory in MB after each tenth of a long load."""
    shape = SHAPES["single"]
    file = bench.folder / "soak.toml"
    file.write_text(config(shape, bench.port, bench.folder / "soak-state"))
    program = str(Path(sys.executable).with_name("runout-agent"))
    command = [program, "run", "--config", str(file)]
    with bench.started(f"{shape.name}-{AGENT}", command, measured=True) as agent:
        first = WARM_UP[shape.name]
        warm = bench.send(shape, AGENT, 0, first)
        rate = rate or SHARE * warm.messages / warm.wall_s
        found = []
        for step in range(STEPS):
            # In stretches: the publisher makes all its messages beforehand.
            left = seconds / STEPS
            while left > 0:
                stretch = min(left, 20.0)
                n = int(stretch * rate)
                bench.send(shape, AGENT, first, n, rate=rate)
                first += n
                left -= stretch
            found.append(memory_mb(agent.pid, "VmRSS"))
            print(f"soak {step + 1}/{STEPS}: {found[-1]:.1f} MB", file=sys.stderr)
        return found


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="about, of each stretch")
    parser.add_argument("--soak", type=float, default=0.0, help="seconds under load; 0: none")
    parser.add_argument(
        "--rate", type=float, default=0.0, help="of the soak, messages a second; 0: half the most"
    )
    arguments = parser.parse_args()
    program = broker.mosquitto()
    if sys.platform != "linux" or program is None:
        raise SystemExit("this needs Linux and mosquitto: apt install mosquitto")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    last: dict[str, object] = {}
    try:
        with ExitStack() as opened:
            folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="runout-bench-")))
            bench = Bench(folder)
            serve = broker.command(bench.port, folder, program)
            opened.enter_context(bench.started("broker", serve))
            print(f"{'':14}{'us a message':>14}{'us a value':>12}{'MB':>8}")
            for shape in SCALES.values():
                us, mb = cost(bench, shape, arguments.seconds)
                print(f"{shape.name:14}{us:14.1f}{us / shape.channels:12.2f}{mb:8.0f}", flush=True)
                last[shape.name] = {"cpu_us": round(us, 2), "rss_mb": round(mb, 1)}
            if arguments.soak:
                last["soak_s"] = arguments.soak
                last["soak_rss_mb"] = [
                    round(mb, 1) for mb in soak(bench, arguments.soak, arguments.rate)
                ]
    except KeyboardInterrupt:
        return 130
    print(json.dumps(last))
    return 0


if __name__ == "__main__":
    sys.exit(main())
