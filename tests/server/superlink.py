"""A stock SuperLink with TLS and a key for each node, and a ServerApp that asks what it is told."""

import hashlib
import os
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from flwr.cli.build import build_fab_from_disk
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    RegisterNodeRequest,
    StartRunRequest,
    UnregisterNodeRequest,
)
from flwr.proto.fab_pb2 import Fab
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from server import processes, superlink
from server.config import load
from server.enrol import init
from tests.agent.conftest import PATIENCE_S, Reading, free_port, wait_until

ASKING = Path(__file__).parent / "asking"


class StockSuperLink:
    """SuperLink as Flower ships it, on loopback, and our proxy before it.

    Args:
        folder: to be made; state, keys and certificates.
    """

    def __init__(self, folder: Path) -> None:
        inner, listen = free_port(), free_port()
        init(folder, f"127.0.0.1:{listen}", ["127.0.0.1"], f"127.0.0.1:{inner}")
        self.folder = folder
        self.config = load(folder / "server.toml")
        self.config.folder.mkdir(parents=True, exist_ok=True)
        self.address, self.outside = f"127.0.0.1:{inner}", f"127.0.0.1:{listen}"
        self.ca = (folder / "ca.crt").read_text()
        self._process: subprocess.Popen[bytes] | None = None
        self._proxy: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return once it takes connections."""
        self._process = subprocess.Popen(
            superlink.command(self.config),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=superlink.environment(self.config),
        )
        self._reading = Reading(self._process)
        wait_until(lambda: self._takes(self.address))

    def start_proxy(self) -> None:
        """Let nodes in from outside."""
        loaded = self.folder / "proxy.json"
        loaded.write_bytes(msgspec.json.encode(self.config))
        command = [sys.executable, "-m", "server.proxy", "--loaded", str(loaded)]
        self._proxy = subprocess.Popen(command, env=superlink.environment(self.config))
        wait_until(lambda: self._takes(self.outside))

    def _takes(self, address: str) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._reading.text
        host, _, port = address.partition(":")
        with socket.socket() as probe:
            return probe.connect_ex((host, int(port))) == 0

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        assert self._process is not None
        for pid in [self._process.pid, *processes.descendants(self._process.pid)]:
            os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._reading.close()
        self._process = None

    def close(self) -> None:
        if self._proxy is not None:
            self._proxy.terminate()
            self._proxy.wait(PATIENCE_S)
        if self._process is not None:
            self.kill()

    # -- what the server's people may do --------------------------------------------------------

    def _control(self) -> ControlHttpClient:
        return ControlHttpClient.from_server_address(
            self.address, insecure=False, root_certificates=self.ca.encode(), interceptors=[]
        )

    def enrol(self, name: str) -> ec.EllipticCurvePrivateKey:
        """Register a key that is made for it; it is in a file ``NAME.key``, too."""
        key = ec.generate_private_key(ec.SECP384R1())
        (self.folder / f"{name}.key").write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        )
        with self._control() as control:
            control.RegisterNode(
                RegisterNodeRequest(public_key=public_key_to_bytes(key.public_key()), name=name)
            )
        return key

    def revoke(self, number: int) -> None:
        with self._control() as control:
            control.UnregisterNode(UnregisterNodeRequest(node_id=number))

    def states(self) -> dict[int, str]:
        """Return what it thinks of each node: registered, online, offline."""
        with self._control() as control:
            found = control.ListNodes(ListNodesRequest()).nodes_info
        return {node.node_id: node.status for node in found}

    def ask(self, out: Path, nodes: int, wait: Callable[[Callable[[], bool]], None]) -> None:
        """Run the ServerApp of ``asking/``; return once it has written its answers."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Flower's affair
            content = build_fab_from_disk(ASKING)
        fab = Fab(hash_str=hashlib.sha256(content).hexdigest(), content=content)
        request = StartRunRequest(fab=fab)
        with self._control() as control:
            request.override_config["out"].string = str(out)
            request.override_config["nodes"].sint64 = nodes
            assert control.StartRun(request).run_id
        wait((out / "answers.json").exists)
