"""``runout-agent node``: the program that learns with the fleet takes this one's place.

``runout-node`` by default; with ``--stock`` Flower's own SuperNode, which does the same with more
memory and a process for each message. The agent needs neither.
"""

import argparse
import os
import shlex
import shutil
import socket
import sys
from pathlib import Path
from typing import NoReturn

from agent.config import AgentConfig, Federation, load
from contract.config import is_loopback
from contract.errors import ConfigError, RunoutError


def node(arguments: argparse.Namespace) -> int:
    """Run the command; returns only where it prints."""
    config = load(arguments.config, arguments.set)
    if arguments.stock:
        command = _stock(config)
    else:
        is_plain(config.federation)  # said here, and not by a program that is started again
        sets = [word for change in arguments.set for word in ("--set", change)]
        command = ["runout-node", "--config", str(arguments.config), *sets]
    if not arguments.print:
        _become(command, config.state.resolve(), needs_path=arguments.stock)
    print(shlex.join(command))
    return 0


def is_plain(federation: Federation) -> bool:
    """Return whether a node speaks without TLS: on loopback alone.

    Raises:
        ConfigError: there is no authority to trust, where one is needed.
    """
    host, _, port = federation.superlink.rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(
            f"federation.superlink: {federation.superlink!r} is no address: write host:port"
        )
    if federation.ca:
        return False
    if federation.key:
        raise ConfigError("federation.key: it takes federation.ca: a node shows its key over TLS")
    if not is_loopback(host.strip("[]")):
        raise ConfigError(
            f"federation.superlink: {federation.superlink!r} is beyond loopback: give federation.ca"
        )
    return True


def _stock(config: AgentConfig) -> list[str]:
    federation = config.federation
    command = ["flower-supernode", "--superlink", federation.superlink]
    command += ["--insecure"] if is_plain(federation) else ["--root-certificates", federation.ca]
    if federation.key:
        command += ["--auth-supernode-private-key", federation.key]
    command += ["--port", str(federation.port or _free_port())]
    return [*command, "--node-config", f'node="{config.name}" state="{config.state.resolve()}"']


def _become(command: list[str], state: Path, *, needs_path: bool) -> NoReturn:
    """Let a program take this one's place."""
    beside = Path(sys.executable).with_name(command[0])
    program = str(beside) if beside.exists() else shutil.which(command[0])
    if program is None:
        raise RunoutError(f"{command[0]} is not installed: pip install runout")
    if needs_path:
        # The node's own processes look for each other on PATH.
        os.environ["PATH"] = f"{Path(program).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    os.environ.setdefault("FLWR_HOME", str(state / "flwr"))
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.stdout.flush()
    os.execv(program, command)  # noqa: S606  # a fixed program, no shell


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
