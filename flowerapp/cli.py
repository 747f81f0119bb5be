"""The command ``runout-node``: see ``runout-node --help``."""

import argparse
import contextlib
import logging
import os
import random
import signal
import sys
import threading
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from agent.config import AgentConfig, load
from agent.memory import give_back
from agent.supernode import is_plain
from contract import npz
from contract.errors import RunoutError
from contract.log import FORMATS, Format, set_up
from flowerapp.keys import authority, private_key

NUMBER = "node.number"
"""In the state folder: a node that was killed is the same one at once, by it and its key."""


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code: 0 ended by a signal, 2 a mistake to mend."""
    parser = argparse.ArgumentParser(
        prog="runout-node",
        description="Learns with the fleet beside an agent, in one process, until SIGINT or "
        "SIGTERM. The agent works without.",
    )
    parser.add_argument(
        "--config", type=Path, required=True, metavar="FILE", help="the agent's configuration"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="in place of what the file says, e.g. --set federation.poll_s=10; may be repeated",
    )
    parser.add_argument("--verbose", action="store_true", help="log debugging detail too")
    parser.add_argument(
        "--log-format",
        choices=FORMATS,
        default="auto",
        help="auto: for systemd's journal as fields, else in words",
    )
    arguments = parser.parse_args(argv)
    try:
        config = load(arguments.config, arguments.set)
        federation = config.federation
        ca = None if is_plain(federation) else authority(federation.ca)
        key = private_key(federation.key) if federation.key else None
    except RunoutError as error:
        print(f"runout-node: {error}", file=sys.stderr)
        return 2
    # Both signals end whatever is under way, a training too, and the server is told.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        level = logging.DEBUG if arguments.verbose else logging.INFO
        _run(config, ca, key, level, arguments.log_format)
    return 0


def _run(
    config: AgentConfig,
    ca: str | None,
    key: ec.EllipticCurvePrivateKey | None,
    level: int,
    form: Format,
) -> None:
    # Before numpy and Flower are imported: they look once.
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    give_back()
    set_up(level, form, "runout-node")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each poll
    wait = threading.Event().wait
    log = logging.getLogger("runout.node")
    log.info("started", extra={"node": config.name, "server": config.federation.superlink})
    state = config.state.resolve()
    from flowerapp.client_app import app
    from flowerapp.link import Link
    from flowerapp.node import Node, wait_for_clock

    wait_for_clock(state, wait)
    remembered = state / NUMBER
    node = Node(
        Link(config.federation.superlink, ca=ca, key=key, number=number_of(remembered)),
        app,
        {"node": config.name, "state": str(state)},
        remember=lambda found: remember(remembered, found),
        poll_s=config.federation.poll_s,
        busy_s=config.federation.poll_busy_s,
        wait=wait,
        rng=random.Random(),  # noqa: S311  # jitter, no secret
    )
    try:
        node.run()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # it is ending
        node.close()
        log.info("ended")


def number_of(path: Path) -> int:
    """Return what was remembered; 0 where it is nothing, or something else."""
    try:
        return int(path.read_bytes())
    except (OSError, ValueError):
        return 0


def remember(path: Path, number: int) -> None:
    """Keep a node's number for its next start, where that is possible."""
    try:
        npz.write(path, str(number).encode())
    except OSError as error:  # a full disk, or no agent was here yet: it is a convenience
        logging.getLogger("runout.node").warning("%s is not written (%s)", path, error.strerror)


if __name__ == "__main__":
    sys.exit(main())
