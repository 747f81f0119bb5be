"""The command ``runout-node``: see ``runout-node --help``."""

import argparse
import logging
import os
import random
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from agent.config import AgentConfig, load
from agent.supernode import is_plain
from contract.errors import RunoutError

if TYPE_CHECKING:
    from flowerapp.link import Link


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
    arguments = parser.parse_args(argv)
    # Both signals end whatever is under way, a training too, and the server is told.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        config = load(arguments.config, arguments.set)
        _run(config, logging.DEBUG if arguments.verbose else logging.INFO)
    except RunoutError as error:
        print(f"runout-node: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        pass
    return 0


def _run(config: AgentConfig, level: int) -> None:
    # Before numpy and Flower are imported: they look once.
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    from agent.log import set_up
    from agent.memory import give_back

    give_back()
    set_up(level)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each poll
    wait = threading.Event().wait
    log = logging.getLogger("runout.node")
    log.info("started", extra={"node": config.name, "server": config.federation.superlink})
    state = config.state.resolve()
    from flowerapp.node import Node, wait_for_clock

    wait_for_clock(state, wait)
    from flowerapp.client_app import app

    node = Node(
        link_of(config),
        app,
        {"node": config.name, "state": str(state)},
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


def link_of(config: AgentConfig) -> "Link":
    """Return the connection that a configuration describes; raises ``ConfigError``."""
    from flowerapp.link import Link, authority, private_key

    federation = config.federation
    return Link(
        federation.superlink,
        ca=None if is_plain(federation) else authority(federation.ca),
        key=private_key(federation.key) if federation.key else None,
    )


if __name__ == "__main__":
    sys.exit(main())
