"""A serial port behind another machine's ser2net, which speaks RFC 2217."""

import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from agent.sources import Serial, Source

PATIENCE_S = 60

pytestmark = pytest.mark.filterwarnings(
    "ignore:set(Daemon|Name)\\(:DeprecationWarning"
)  # pyserial's

_CONFIG = """connection: &port
  accepter: telnet(rfc2217),tcp,127.0.0.1,{tcp}
  connector: serialdev(nouucplock=true),{device},115200n81,local
"""


class Ser2net:
    """A ser2net of one's own, in front of a device."""

    def __init__(self, folder: Path, device: str, opened: ExitStack) -> None:
        path = shutil.which("ser2net") or shutil.which("ser2net", path="/usr/sbin")
        if path is None:
            if os.environ.get("CI"):
                pytest.fail("ser2net is not on PATH, and CI must run this test")
            pytest.skip("ser2net is not on PATH (Debian: ser2net)")
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port = int(sock.getsockname()[1])
        config = folder / "ser2net.yaml"
        config.write_text(_CONFIG.format(tcp=self.port, device=device))
        self._command = [path, "-n", "-c", str(config), "-P", str(folder / "ser2net.pid")]
        self._process: subprocess.Popen[bytes] | None = None
        opened.callback(self.stop)

    def start(self) -> None:
        """Start; whoever connects waits until it listens."""
        self._process = subprocess.Popen(self._command)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE_S)
            self._process = None


@pytest.mark.parametrize("query", ["", "?logging=error"])
def test_a_port_behind_ser2net_is_read_and_read_again_when_that_was_restarted(
    query: str,
    plug: Callable[[], Any],
    port: str,
    tmp_path: Path,
    start: Callable[[Source], None],
    taken: Any,
    opened: ExitStack,
) -> None:
    pty = plug()
    server = Ser2net(tmp_path, port, opened)
    server.start()
    url = f"rfc2217://127.0.0.1:{server.port}{query}"
    source = Serial(url=url, asset="pump-1", columns=("flow", "speed")).build()
    start(source)
    taken.wait_said("port open")
    # A modem line is never asked for: over a pseudo-terminal nobody would answer.
    assert "no port, trying again" not in taken.said[taken.said.index("port open") :]
    sock = source._port.device._socket  # type: ignore[union-attr]
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    lines = b"".join([b"%d.5,1480\n" % number for number in range(1000)])
    pty.write(b"\n" + lines)
    taken.wait_for(lines)
    server.stop()
    taken.wait_said("no port, trying again", 1 + taken.said.count("no port, trying again"))
    server.start()
    taken.wait_said("port open", 2)
    pty.write(b"\n" + lines)
    taken.wait_for(lines + lines)
    assert source.counts.reconnects == 1
    assert source.alive
