"""What it costs SuperLink that a node asks whether there is something to do, and how many it bears.

    python -m benchmarks.polls [--seconds 15] [--registered 1000]

A real SuperLink in the way the server starts it; connections of Flower's own, three at a time, that
poll without a pause: processor time by polls. Then the same over TLS through the proxy that stands
before it. And SuperLink's memory before and after a number of nodes have registered. Linux.
"""

import argparse
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}

import msgspec
from flwr.proto.fleet_pb2 import ActivateNodeRequest, RegisterNodeFleetRequest
from flwr.supercore.primitives.asymmetric import generate_key_pairs, public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.fleet_http_connection import http_request_response
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from benchmarks.load import cpu_s
from benchmarks.throughput import free_port, memory_mb
from server.app import Beside
from server.config import ServerConfig, load
from server.enrol import init
from server.superlink import SuperLink, write_connection

CONNECTIONS = 3
WARM_S = 3.0
HALF = 0.5
POLL_S = 30.0
"""Between two polls of a node that waits (``runout-node``)."""


@contextmanager
def running(config: ServerConfig) -> Iterator[list[int]]:
    """Run SuperLink, and the proxy where the configuration has one."""
    pause = threading.Event()
    config.folder.mkdir(parents=True, exist_ok=True)
    write_connection(config)
    link = SuperLink(config, tell=print, wait=pause.wait, stopping=pause.is_set)
    proxy = Beside(config, print)
    try:
        link.start()
        proxy.start()
        yield [pid for pid in (link.pid, proxy.pid) if pid is not None]
    finally:
        proxy.stop()
        link.stop()


def polls(
    address: str, ca: Path | None, watched: list[int], seconds: float
) -> tuple[float, list[float]]:
    """Poll for some time; returns polls a second and processor seconds a poll, by process."""
    stop = threading.Event()
    counts = [0] * CONNECTIONS

    def poll(number: int) -> None:
        certificates = None if ca is None else ca.read_bytes()
        with http_request_response(address, ca is None, certificates) as (_, receive, *_rest):
            while not stop.is_set():
                receive()
                counts[number] += 1

    threads = [threading.Thread(target=poll, args=(n,)) for n in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    try:
        stop.wait(WARM_S)
        before, polled, began = [cpu_s(one) for one in watched], sum(counts), time.monotonic()
        stop.wait(seconds)
        took = time.monotonic() - began
        done = sum(counts) - polled
        spent = [cpu_s(one) - was for one, was in zip(watched, before, strict=True)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    return done / took, [one / max(done, 1) for one in spent]


def register(address: str, nodes: int, say: Callable[[int], None]) -> None:
    """Register nodes, each with a key of its own, and let them report for work."""
    for number in range(nodes):
        private, public = generate_key_pairs()
        key = public_key_to_bytes(public)
        with FleetHttpClient.from_server_address(
            address, True, None, interceptors=[NodeAuthHttpInterceptor(private, public)]
        ) as client:
            client.RegisterNode(RegisterNodeFleetRequest(public_key=key))
            client.ActivateNode(ActivateNodeRequest(public_key=key, heartbeat_interval=60.0))
        if (number + 1) % 500 == 0:
            say(number + 1)


def measure(seconds: float, registered: int) -> dict[str, float]:
    """Return the figures; prints a table."""
    found: dict[str, float] = {}
    print(f"{'':28}{'polls/s':>10}{'ms a poll':>12}{'at half a core':>16}{'nodes, 30 s':>13}")
    with tempfile.TemporaryDirectory(prefix="runout-bench-") as name:
        port = free_port()
        config = ServerConfig(state=name, listen=f"127.0.0.1:{port}")
        with running(config) as (link,):
            rate, (each,) = polls(config.listen, None, [link], seconds)
            found["polls_per_s_at_half_core"] = _row("SuperLink", rate, each)
            found["superlink_rest_mb"] = round(memory_mb(link, "VmRSS"), 1)
            register(config.listen, registered, lambda n: print(f"  {n:,} registered", flush=True))
            rate, (each,) = polls(config.listen, None, [link], seconds)
            found["polls_per_s_with_registered"] = _row(f"{registered:,} registered", rate, each)
            found["registered"] = registered
            found["superlink_mb"] = round(memory_mb(link, "VmRSS"), 1)
    with tempfile.TemporaryDirectory(prefix="runout-bench-") as name:
        outer, inner = free_port(), free_port()
        folder = Path(name) / "fleet"
        init(folder, f"127.0.0.1:{outer}", ["127.0.0.1"], f"127.0.0.1:{inner}")
        config = load(folder / "server.toml")
        # Polls of nodes that come without a key, so that nobody need be enrolled for them.
        config = msgspec.structs.replace(config, node_auth=False)
        with running(config) as (link, proxy):
            rate, (each, passing) = polls(
                f"127.0.0.1:{outer}", folder / "ca.crt", [link, proxy], seconds
            )
            _row("over TLS, SuperLink", rate, each)
            _row("over TLS, the proxy", rate, passing)
            found["polls_per_s_at_half_core_tls"] = round(HALF / (each + passing), 1)
            found["proxy_mb"] = round(memory_mb(proxy, "VmRSS"), 1)
    return found


def _row(name: str, rate: float, each: float) -> float:
    bearable = HALF / each
    print(f"{name:28}{rate:10.1f}{each * 1e3:12.2f}{bearable:16.1f}{bearable * POLL_S:13,.0f}")
    return round(bearable, 1)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--registered", type=int, default=1000)
    arguments = parser.parse_args()
    found = measure(arguments.seconds, arguments.registered)
    print(
        f"\nSuperLink: {found['superlink_rest_mb']:.0f} MB, with {arguments.registered:,} nodes "
        f"registered {found['superlink_mb']:.0f} MB"
    )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
