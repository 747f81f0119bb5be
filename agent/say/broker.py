"""Publish a message to a running agent, through its broker, and wait for the answer."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import NamedTuple

import msgspec

from agent import commands
from agent.config import AgentConfig, load
from agent.intake import Arrival
from agent.mqtt import Link
from contract import topics
from contract.errors import RunoutError
from contract.report import Alert

BROKER_S = 10.0
"""For the broker to be reached, and to take the message on."""


class Heard(NamedTuple):
    """What came back.

    Attributes:
        answer: the agent's; None: none was heard in time.
        known: whether an agent has said of this asset what its alert is.
        node: whose asset it was said to be.
    """

    answer: Alert | None
    known: bool
    node: str


def tell(
    path: Path,
    overrides: Sequence[str],
    where: tuple[str, str],
    body: bytes,
    ref: str,
    wait_s: float,
) -> Heard:
    """Publish a message to an agent; return what is heard of it in time.

    Args:
        path: of the agent's configuration.
        overrides: of its keys.
        where: asset and leaf.
        body: of the message.
        ref: that the answer will bear.
        wait_s: for the answer.

    Raises:
        RunoutError: the agent would refuse it; the broker was not reached, or did not take it on.
    """
    config = load(path, overrides)
    asset, leaf = where
    _check(config, asset)
    commands.decode(leaf, body, time.time_ns())
    place = config.node.site, config.name, asset
    state_topic = topics.alert_state_topic(*place)
    heard: SimpleQueue[Arrival] = SimpleQueue()

    def receive(arrivals: list[Arrival]) -> None:
        for arrival in arrivals:
            heard.put(arrival)

    link = Link(
        config.mqtt,
        client_id=f"runout-{config.node.site}-{config.name}-tell-{os.getpid()}",
        # The state of each asset's alert is retained: it comes first, if there is one.
        filters=[(topics.asset_topic(*place, topics.ALERT), 1), (state_topic, 1)],
        will=None,
        receive=receive,
        persistent=False,
    )
    broker = f"{config.mqtt.host}:{config.mqtt.port}"
    try:
        link.open()
        if not link.connected.wait(BROKER_S):
            raise RunoutError(f"the broker at {broker} was not reached within {BROKER_S:g} s")
        # The subscription went before it, on the same connection: no answer is missed.
        (number,) = link.publish([(topics.asset_topic(*place, leaf), body, False)])
        deadline = time.monotonic() + BROKER_S
        while number not in link.take_acked():
            if time.monotonic() > deadline or not link.connected.is_set():
                raise RunoutError(f"the broker at {broker} did not take the message on")
            link.wait_for_acks(0.5)
        answer, states = _answer(heard, ref, wait_s, state_topic)
        return Heard(answer, answer is not None or states > 0, config.name)
    finally:
        link.close()


def _answer(
    heard: "SimpleQueue[Arrival]", ref: str, wait_s: float, state_topic: str
) -> tuple[Alert | None, int]:
    """Return the answer, and how many messages said what state the alert is in."""
    states = 0
    deadline = time.monotonic() + wait_s
    while (left := deadline - time.monotonic()) > 0:
        try:
            arrival = heard.get(timeout=left)
        except Empty:
            break
        try:
            alert = msgspec.json.decode(arrival.payload, type=Alert)
        except msgspec.MsgspecError:
            continue  # not an agent's
        states += arrival.topic == state_topic
        if alert.ref == ref:
            return alert, states
    return None, states


def _check(config: AgentConfig, asset: str) -> None:
    try:
        topics.check_name(asset, "asset")
    except ValueError as error:
        raise RunoutError(str(error)) from error
    if config.class_of(asset) is None:
        raise RunoutError(f"asset {asset!r} matches no pattern of [assets] in the config")
