"""What a node of the federation takes: ``runout-node``, and Flower's own SuperNode beside it.

    python -m benchmarks.node

Two nodes and a real server on this machine, with settings as they come: a training by health and
600 random features (no scikit-learn), then a second one on demand. Memory is the highest sum over
a node and all that it starts, as a share of pages that are shared (PSS); for one process of its own
resident size, too. Processor time is that of a node and all it starts, in the second training.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import psutil

from benchmarks.in_process import Device, configured
from contract.model_spec import Ridge
from server import status

ROOT = Path(__file__).parent.parent
CONFIG = ROOT / "configs" / "agent.minimal.toml"
NODES = ("rpi-1", "rpi-2")
LIVES = 12
PATIENCE_S = 600.0
LOOK_S = 0.2

pause = threading.Event().wait


class Tree:
    """A node and all that it starts, looked at now and then."""

    def __init__(self, command: list[str], output: Path) -> None:
        self._command, self._output = command, output
        self.most_mb = self.rss_mb = 0.0
        self.processes: set[int] = set()
        self._cpu_s: dict[int, float] = {}

    def start(self) -> None:
        """Start the node."""
        with self._output.open("w") as output:
            self._process = subprocess.Popen(
                self._command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )

    def look(self) -> None:
        """Note what it takes now."""
        total = 0.0
        me = psutil.Process(self._process.pid)
        self.rss_mb = max(self.rss_mb, me.memory_info().rss / 1e6)
        for one in [me, *me.children(recursive=True)]:
            try:
                total += one.memory_full_info().pss / 1e6
                spent = one.cpu_times()
            except psutil.Error:
                continue  # it has ended
            self.processes.add(one.pid)
            self._cpu_s[one.pid] = spent.user + spent.system
        self.most_mb = max(self.most_mb, total)

    @property
    def cpu_s(self) -> float:
        """Return the processor time seen so far; the last moments of what ended are missed."""
        return sum(self._cpu_s.values())

    def end(self) -> None:
        """End it and all it started."""
        below = psutil.Process(self._process.pid).children(recursive=True)
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()
        for one in below:
            if one.is_running():
                one.kill()


def states(folder: Path) -> dict[str, Path]:
    """Return a configuration for each node, beside which an agent has seen pumps wear out."""
    found = {}
    for k, name in enumerate(NODES):
        config = configured(CONFIG, folder / name, name, rul=(Ridge(),))
        device = Device(config)
        rng = np.random.default_rng(k)
        for life in range(LIVES):
            hours = int(rng.integers(60, 120))
            wear = np.linspace(0.0, 1.0, hours)[:, None] ** 3
            values = rng.normal(size=(hours, 2)) * 0.1 + [5.0, 40.0] + wear * [4.0, 20.0]
            device.live(f"pump-{life}", values, failed=True)
        device.close()
        found[name] = folder / name
    return found


def measure(*, stock: bool) -> dict[str, float]:
    """Return what two nodes of a kind take, and how long their trainings."""
    beside = Path(sys.executable).parent
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        config = folder / "server.toml"
        config.write_text(
            f'state = "{folder / "server"}"\nlisten = "127.0.0.1:{port}"\n'
            "min_nodes = 2\nrounds = 2\nask_s = 0\n"
        )
        trees = []
        for name, state in states(folder).items():
            changes = [f"node.name={name}", f"node.state={state}"]
            changes.append(f"federation.superlink=127.0.0.1:{port}")
            sets = [word for change in changes for word in ("--set", change)]
            kind = ["--stock"] if stock else []
            command = [str(beside / "runout-agent"), "node", "--config", str(CONFIG)]
            trees.append(Tree([*command, *sets, *kind], folder / f"{name}.txt"))
        with (folder / "server.txt").open("w") as output:
            server = subprocess.Popen(
                [str(beside / "runout-server"), "run", "--config", str(config)],
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        opened.callback(server.wait)
        opened.callback(server.terminate)

        def wait(ready: Callable[[status.Status], object]) -> float:
            began = time.monotonic()
            while True:
                seen = status.read(folder / "server")
                if seen is not None and ready(seen):
                    return time.monotonic() - began
                if server.poll() is not None or time.monotonic() - began > PATIENCE_S:
                    raise SystemExit((folder / "server.txt").read_text())
                for tree in started:
                    tree.look()
                pause(LOOK_S)

        def delivered(version: int) -> Callable[[status.Status], object]:
            return lambda s: (
                s.phase == "serving"
                and s.released is not None
                and s.released.version == version
                and len(s.released.delivered) == len(NODES)
            )

        started: list[Tree] = []
        wait(lambda s: s.phase == "waiting")
        for tree in trees:
            tree.start()
            opened.callback(tree.end)
            started.append(tree)
        first_s = wait(delivered(1))
        before_s = [tree.cpu_s for tree in trees]
        subprocess.run(
            [str(beside / "runout-server"), "round", "--config", str(config)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        second_s = wait(delivered(2))
        spent = [tree.cpu_s - one for tree, one in zip(trees, before_s, strict=True)]
        return {
            "mb": max(tree.most_mb for tree in trees),
            "rss_mb": max(tree.rss_mb for tree in trees),
            "processes": max(len(tree.processes) for tree in trees),
            "first_s": first_s,
            "second_s": second_s,
            "cpu_s": sum(spent) / len(spent),
        }


def main() -> None:
    """Run the command; the last line is JSON."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    found = {"runout-node": measure(stock=False), "SuperNode": measure(stock=True)}
    print(f"{'':36}{'runout-node':>12}{'SuperNode':>12}")
    for text, key in (
        ("memory of a node and its own, MB", "mb"),
        ("processes in two trainings", "processes"),
        ("until the first release, s", "first_s"),
        ("from a wish to the second, s", "second_s"),
        ("processor time in the second, s", "cpu_s"),
    ):
        print(f"{text:36}" + "".join(f"{one[key]:12.1f}" for one in found.values()))
    warm, own = found.values()
    print(
        json.dumps(
            {
                "nodes": len(NODES),
                "rss_mb": round(warm["rss_mb"], 1),
                "stock_mb": round(own["mb"], 1),
                "processes": warm["processes"],
                "stock_processes": own["processes"],
                "second_s": round(warm["second_s"], 1),
                "stock_second_s": round(own["second_s"], 1),
                "cpu_s": round(warm["cpu_s"], 2),
                "stock_cpu_s": round(own["cpu_s"], 2),
            }
        )
    )


if __name__ == "__main__":
    main()
