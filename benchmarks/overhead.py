"""A training of Runout beside the plainest Flower app: same SuperLink, same nodes, as many bytes.

    python -m benchmarks.overhead [--nodes 4] [--rounds 3]

The plain app is FedAvg over one array as large as an update, a node answers with what it was sent.
Each of its rounds is two exchanges, train and evaluate. A training of Runout is three: statistics,
sums, evaluation. Stock SuperNodes, which start a process for each message. Linux.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from benchmarks.polls import running
from benchmarks.throughput import free_port
from benchmarks.virtual import SPEC
from contract.update import FIT, Request
from server import bundle
from server.config import ServerConfig
from server.guard import expected
from server.status import read
from server.superlink import CONNECTION, environment, program

ROOT = Path(__file__).resolve().parents[1]
PATIENCE_S = 300.0

PLAIN_SERVER = """\
import json, time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def main(grid, context):
    config = context.run_config
    start = ArrayRecord({"x": Array(np.ones(int(config["size"])))})
    nodes = int(config["nodes"])
    while len(list(grid.get_node_ids())) < nodes:
        time.sleep(0.5)
    began = time.monotonic()
    strategy = FedAvg(min_available_nodes=nodes, min_train_nodes=nodes, min_evaluate_nodes=nodes)
    strategy.start(grid=grid, initial_arrays=start, num_rounds=int(config["rounds"]), timeout=300)
    Path(config["out"]).write_text(json.dumps({"seconds": time.monotonic() - began}))
"""

PLAIN_CLIENT = """\
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message, context):
    arrays = next(iter(message.content.array_records.values()))
    metrics = MetricRecord({"num-examples": 1})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate(message, context):
    metrics = MetricRecord({"num-examples": 1, "loss": 0.0})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
"""

PROJECT = """\
[project]
name = "{name}"
version = "1.0.0"
description = "of a benchmark"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "runout"
fab-include = ["{name}/__init__.py", "{name}/server_app.py", "{name}/client_app.py"]

[tool.flwr.app.components]
serverapp = "{name}.server_app:app"
clientapp = "{name}.client_app:app"

[tool.flwr.app.config]
{config}
"""

VIRTUAL_CLIENT = """\
from flwr.clientapp import ClientApp

from benchmarks import virtual

app = ClientApp()


@app.train()
def train(message, context):
    return virtual.reply(int(context.node_config["partition-id"]), message)


@app.evaluate()
def evaluate(message, context):
    return virtual.reply(int(context.node_config["partition-id"]), message)


@app.query("deploy")
def deploy(message, context):
    from flwr.app import Message

    from server import messages

    return Message(messages.delivered_content("delivered"), reply_to=message)
"""


def app(
    folder: Path, name: str, server: str, client: str, config: dict[str, str | int | float | bool]
) -> Path:
    """Write a Flower app; returns its folder."""
    package = folder / name / name
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "server_app.py").write_text(server)
    (package / "client_app.py").write_text(client)
    project = PROJECT.format(name=name, config=bundle.toml(config))
    (folder / name / "pyproject.toml").write_text(project)
    return folder / name


def run_of(config: ServerConfig, path: Path, out: Path) -> None:
    """Run an app, and return once it has written ``out``."""
    done = subprocess.run(
        [program("flwr"), "run", str(path), CONNECTION, "--format", "json"],
        env=environment(config) | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    if done.returncode or '"success": true' not in done.stdout:
        raise SystemExit(f"flwr run: {done.stdout}{done.stderr}")
    pause = threading.Event()
    until = time.monotonic() + PATIENCE_S
    while not out.exists():
        if time.monotonic() > until:
            raise SystemExit(f"{path.name} did not end within {PATIENCE_S:.0f} s")
        pause.wait(0.2)


def measure(nodes: int, rounds: int, folder: Path) -> dict[str, float]:
    """Return seconds of an exchange and of a whole round, of both."""
    request = Request(1, FIT, SPEC.name, SPEC.digest(), 1, ("ridge",))
    size = sum(
        int(np.prod(shape)) * np.dtype(kind).itemsize
        for shape, kind in expected(SPEC, request).values()
    )
    config = ServerConfig(state=str(folder / "server"), listen=f"127.0.0.1:{free_port()}")
    plain_out, ours = folder / "plain.json", folder / "ours"
    plain = app(
        folder,
        "plain",
        PLAIN_SERVER,
        PLAIN_CLIENT,
        {"size": size // 8, "nodes": nodes, "rounds": rounds, "out": str(plain_out)},
    )
    runout = app(
        folder,
        "virtual",
        (ROOT / "flowerapp" / "server_app.py").read_text(),
        VIRTUAL_CLIENT,
        {**bundle.RUN_CONFIG, "num-server-rounds": 1, "min-nodes": nodes, "state": str(ours)}
        | {"ready-s": 0.0},
    )
    os.environ["PYTHONPATH"] = str(ROOT)
    started: list[subprocess.Popen[bytes]] = []
    with running(config):
        try:
            for number in range(nodes):
                home = folder / f"home-{number}"
                beside = Path(sys.executable).parent
                started.append(
                    subprocess.Popen(
                        [
                            program("flower-supernode"),
                            *("--insecure", "--superlink", config.listen),
                            *("--port", str(free_port())),
                            *("--node-config", f"partition-id={number}"),
                        ],
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL,
                        start_new_session=True,
                        env=os.environ
                        | {
                            "PATH": f"{beside}{os.pathsep}{os.environ['PATH']}",
                            "FLWR_HOME": str(home),
                        },
                    )
                )
            print(f"{nodes} nodes; the plain app", flush=True)
            run_of(config, plain, plain_out)
            plain_s = float(json.loads(plain_out.read_text())["seconds"]) / rounds
            print("a training of Runout", flush=True)
            run_of(config, runout, ours / "registry" / SPEC.name / "current")
            status = read(ours)
        finally:
            for node in started:
                node.terminate()
            for node in started:
                node.wait(30)
    if status is None:
        raise SystemExit("the training said nothing")
    phases = {name: s for name, s in status.seconds.items() if name != "deploy"}
    shutil.rmtree(folder, ignore_errors=True)
    return {
        "update_bytes": size,
        "plain_round_s": plain_s,
        "plain_exchange_s": plain_s / 2,
        "runout_training_s": sum(phases.values()),
        "runout_exchange_s": sum(phases.values()) / len(phases),
    }


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3, help="of the plain app")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="runout-bench-") as name:
        found = measure(arguments.nodes, arguments.rounds, Path(name))
    ratio = found["runout_exchange_s"] / found["plain_exchange_s"]
    print(f"{arguments.nodes} nodes, {found['update_bytes']:,.0f} bytes each\n")
    print(f"{'':10}{'a round, s':>14}{'an exchange, s':>16}")
    print(f"{'plain':10}{found['plain_round_s']:14.1f}{found['plain_exchange_s']:16.2f}")
    print(f"{'Runout':10}{found['runout_training_s']:14.1f}{found['runout_exchange_s']:16.2f}")
    print(f"\nan exchange takes {ratio:.2f} times the plain one's")
    told = {name: round(value, 2) for name, value in found.items()}
    print(json.dumps({**told, "nodes": arguments.nodes, "exchange_ratio": round(ratio, 3)}))


if __name__ == "__main__":
    main()
