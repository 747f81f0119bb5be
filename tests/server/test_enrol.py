"""A fleet with TLS and a key for each node: real SuperLink and SuperNodes, and a stranger."""

import os
import signal
import ssl
import stat
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from cryptography import x509

from agent.join import unpack
from contract.errors import ConfigError, RunoutError
from server import processes, status
from server.cli import main
from server.config import load
from server.enrol import all_enrolled, enrol, init, revoke
from server.superlink import program

pause = threading.Event().wait
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def initiated(folder: Path, port: int) -> Path:
    """Return the configuration of a fleet on loopback."""
    init(folder, f"127.0.0.1:{port}", ["127.0.0.1"], f"127.0.0.1:{free_port()}")
    config = folder / "server.toml"
    config.write_text(
        "min_nodes = 1\nrounds = 1\ndeadline_s = 40.0\nask_s = 0.0\n"
        + config.read_text(encoding="utf-8"),
        encoding="utf-8",
    )
    return config


class Processes:
    """Whatever is started, ended by its own handle."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, *line: str) -> subprocess.Popen[bytes]:
        beside = Path(sys.executable).parent
        variables = {
            "PATH": f"{beside}{os.pathsep}{os.environ['PATH']}",
            "FLWR_HOME": str(self.folder / f"flwr-{name}"),
        }
        with (self.folder / f"{name}.txt").open("w") as output:
            process = subprocess.Popen(
                line,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | QUIET | (variables if name != "server" else {}),
                cwd=self.folder,
            )
        self._started.append(process)
        return process

    def said(self, name: str) -> str:
        return (self.folder / f"{name}.txt").read_text(encoding="utf-8", errors="replace")

    def wait(self, name: str, ready: Callable[[str], bool], within_s: float = 150.0) -> None:
        end = time.monotonic() + within_s
        while not ready(self.said(name)):
            if time.monotonic() > end:
                pytest.fail(f"not within {within_s} s: {self.said(name)[-3000:]}")
            pause(0.2)

    def close(self) -> None:
        for process in self._started:
            below = processes.descendants(process.pid)
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            for pid in below:
                if processes.runs(pid):
                    os.kill(pid, signal.SIGKILL)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Processes]:
    started = Processes(tmp_path)
    yield started
    started.close()


@pytest.mark.flower
@pytest.mark.timeout(600)
def test_who_is_enrolled_comes_in_a_stranger_does_not_and_whoever_is_revoked_goes(
    run: Processes, tmp_path: Path, stores: Any
) -> None:
    port = free_port()
    config = initiated(tmp_path / "fleet", port)
    address = f"127.0.0.1:{port}"
    spec = stores.pump()
    run.start("server", program("runout-server"), "run", "--config", str(config))
    run.wait("server", lambda said: "nodes may join" in said)

    def node(name: str, *keys: str) -> subprocess.Popen[bytes]:
        folder = stores.make(name, spec)
        return run.start(
            name,
            *(program("flower-supernode"), "--superlink", address),
            *("--root-certificates", str(tmp_path / "fleet" / "ca.crt")),
            *("--port", str(free_port()), "--node-config", f'state="{folder}"', *keys),
        )

    stranger = node("stranger")
    out = tmp_path / "rpi-1.runout"
    words = ["enrol", "rpi-1", "--address", address, "--out", str(out), "--config", str(config)]
    assert main(words) == 0
    run.wait("server", lambda said: "rpi-1 is registered" in said)
    text = unpack(out, tmp_path / "device")
    assert f'superlink = "{address}"' in text
    node("rpi-1", "--auth-supernode-private-key", str(tmp_path / "device" / "node.key"))
    run.wait("server", lambda said: "version 1 of pump, from 1 nodes" in said)
    seen = status.read(load(config).folder)
    assert seen is not None
    assert seen.released is not None
    assert seen.released.contributors == ("rpi-1",)
    assert "stranger" not in seen.bytes_up
    # From outside there is nothing but what nodes say.
    trusted = ssl.create_default_context(cafile=str(tmp_path / "fleet" / "ca.crt"))
    with httpx.Client(base_url=f"https://{address}", verify=trusted) as outside:
        for path in (
            "/",
            "/v1/control/list-runs",
            "/v1/control/register-node",
            "/v1/fleet/%2e%2e/control/register-node",
        ):
            for method in ("GET", "POST"):
                assert outside.request(method, path).status_code in {404, 405}
    assert stranger.poll() not in {None, 0} or "rror" in run.said("stranger")
    assert main(["revoke", "rpi-1", "--config", str(config)]) == 0
    assert all_enrolled(load(config)) == []

    def nobody(_said: str) -> bool:
        now = status.read(load(config).folder)
        return now is not None and now.online == 0

    run.wait("server", nobody)
    with pytest.raises(RunoutError, match="rpi-1 is not enrolled; nobody is"):
        revoke(load(config), "rpi-1")


def test_a_superlink_that_is_down_is_answered_503(run: Processes, tmp_path: Path) -> None:
    port = free_port()
    config = load(initiated(tmp_path / "fleet", port))
    loaded = tmp_path / "proxy.json"
    loaded.write_bytes(msgspec.json.encode(config))
    run.start("proxy", sys.executable, "-m", "server.proxy", "--loaded", str(loaded))
    trusted = ssl.create_default_context(cafile=str(tmp_path / "fleet" / "ca.crt"))
    transport = httpx.HTTPTransport(verify=trusted, retries=8)
    with httpx.Client(base_url=f"https://127.0.0.1:{port}", transport=transport) as node:
        answer = node.post("/v1/fleet/create-node", content=b"x")
        assert answer.status_code == 503
        assert "SuperLink is not there" in answer.text
        large = node.post("/v1/fleet/push-messages", content=b"x" * (65 * 1024 * 1024))
        assert large.status_code == 413


def test_what_init_makes_is_for_nobody_else_and_never_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "fleet"
    words = ["init", str(folder), "--name", "plant.example", "--name", "10.0.0.7"]
    assert main(words) == 0
    assert "next: runout-server run" in capsys.readouterr().out
    for name in ("ca.key", "server.key"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    config = load(folder / "server.toml")
    assert config.node_auth
    assert config.listen == "0.0.0.0:9092"
    authority, own = (
        x509.load_pem_x509_certificate((folder / name).read_bytes())
        for name in ("ca.crt", "server.pem")
    )
    own.verify_directly_issued_by(authority)
    names = own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["plant.example", "localhost"]
    addresses = [str(one) for one in names.get_values_for_type(x509.IPAddress)]
    assert addresses == ["10.0.0.7", "127.0.0.1"]
    assert main(words) == 2
    assert "is there already" in capsys.readouterr().err


def test_a_bundle_holds_what_a_device_needs_and_a_node_is_enrolled_once(tmp_path: Path) -> None:
    config = load(initiated(tmp_path / "fleet", 9092))
    out = tmp_path / "rpi-1.runout"
    enrol(config, "rpi-1", "plant.example:9092", out)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    with pytest.raises(RunoutError, match="rpi-1 is enrolled already"):
        enrol(config, "rpi-1", "plant.example:9092", tmp_path / "again.runout")
    with pytest.raises(RunoutError, match="must be non-empty"):
        enrol(config, "rpi/1", "plant.example:9092", tmp_path / "odd.runout")
    with pytest.raises(RunoutError, match="is there already"):
        enrol(config, "rpi-2", "plant.example:9092", out)
    text = unpack(out, tmp_path / "device")
    for name in ("ca.crt", "node.key", "fleet.pem"):
        path = tmp_path / "device" / name
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert str(path) in text
    with pytest.raises(ConfigError, match="move it away to join again"):
        unpack(out, tmp_path / "device")


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.runout"
    with pytest.raises(ConfigError, match="cannot be read"):
        unpack(path, tmp_path / "device")
    path.write_text("nothing", encoding="utf-8")
    with pytest.raises(ConfigError, match="is no bundle"):
        unpack(path, tmp_path / "device")
    with zipfile.ZipFile(path, "w") as bundle:
        bundle.writestr("ca.crt", "x" * 200_000)
    with pytest.raises(ConfigError, match=r"ca\.crt is missing or too large"):
        unpack(path, tmp_path / "device")
    assert not (tmp_path / "device").exists()


def test_keys_for_nodes_take_tls(tmp_path: Path) -> None:
    config = tmp_path / "server.toml"
    config.write_text("node_auth = true\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"node_auth: it takes \[tls\]"):
        load(config)
    config.write_text("", encoding="utf-8")
    with pytest.raises(RunoutError, match="enrolment takes"):
        enrol(load(config), "rpi-1", "x:1", tmp_path / "x.runout")
