"""A regional server as one node of its parent: ``python -m flowerapp.region --loaded FILE``.

The same warm node as beside an agent; what answers is the server's own state folder.
"""

import argparse
import contextlib
import logging
import os
import random
import signal
import sys
import threading
from pathlib import Path

import msgspec
from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from contract.config import is_loopback
from contract.errors import ContractError, RunoutError
from contract.release import Release
from flowerapp.cli import number_of, remember
from flowerapp.keys import authority, private_key
from flowerapp.link import Link
from flowerapp.node import Node
from server import messages, parent
from server.config import Parent, ServerConfig

app = ClientApp()
BUSY_S = 1.0


@app.train()
def train(message: Message, context: Context) -> Message:
    """Answer with the region's sums."""
    return _answer(message, context)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Answer that this region measures nothing before its devices have it."""
    return _answer(message, context)


@app.query("status")
def status(message: Message, context: Context) -> Message:
    """Answer what the region could bring."""
    state, name = _who(context)
    content = messages.readiness_content(parent.readiness(state, name))
    return Message(content, reply_to=message)


@app.query("deploy")
def deploy(message: Message, context: Context) -> Message:
    """Hand the parent's release to the region's devices."""
    try:
        release = Release.from_bytes(messages.read_release(message.content), "release")
        said = parent.take(_who(context)[0], release)
    except ContractError as error:
        return _refuse(message, error)
    return Message(messages.delivered_content(said), reply_to=message)


def _answer(message: Message, context: Context) -> Message:
    state, name = _who(context)
    try:
        request, arrays = messages.read_request(message.content)
        update = parent.answer(state, name, request, arrays)
    except ContractError as error:
        return _refuse(message, error)
    return Message(messages.update_content(update), reply_to=message)


def _refuse(message: Message, error: ContractError) -> Message:
    return Message(Error(messages.REFUSED, str(error)), reply_to=message)


def _who(context: Context) -> tuple[Path, str]:
    return Path(str(context.node_config["state"])), str(context.node_config["node"])


def run(config: ServerConfig, above: Parent) -> None:
    """Answer the parent until a signal ends it; raises ``RunoutError`` on files that are not."""
    host = above.superlink.rpartition(":")[0].strip("[]")
    plain = is_loopback(host) and not above.ca
    ca = None if plain else authority(above.ca)
    key = private_key(above.key) if above.key else None
    config.folder.mkdir(parents=True, exist_ok=True)
    path = config.folder / "region.number"
    node = Node(
        Link(above.superlink, ca=ca, key=key, number=number_of(path)),
        app,
        {"node": above.name, "state": str(config.folder)},
        remember=lambda found: remember(path, found),
        poll_s=above.poll_s,
        busy_s=min(BUSY_S, above.poll_s),
        wait=threading.Event().wait,
        rng=random.Random(),  # noqa: S311  # jitter, no secret
    )
    try:
        node.run()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # it is ending
        node.close()


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loaded", type=Path, required=True)
    config = msgspec.json.decode(parser.parse_args().loaded.read_bytes(), type=ServerConfig)
    os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    if config.parent is None:
        return 2
    try:
        with contextlib.suppress(KeyboardInterrupt):
            run(config, config.parent)
    except RunoutError as error:
        print(f"region: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
