"""Listen to the real stream for a while, and hold it against the configuration: the data contract.

Runs beside an agent that runs: a client of its own, without a session, at QoS 0. Nothing is
stored, and nothing is published but that Sparkplug nodes are asked for their births.
"""

import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack

import msgspec

from agent.config import AgentConfig
from agent.conformity import Looked, as_text
from agent.intake import Intake
from agent.mqtt import Link
from agent.observed import Contract
from agent.sources import Http, Source, SourceConfig
from contract.errors import RunoutError
from contract.log import set_up

CONNECT_S = 10.0


def look(
    config: AgentConfig,
    seconds: float,
    stopping: Callable[[], bool],
    intake: Intake,
    *,
    sources: bool,
) -> Looked:
    """Listen for so long, or until ``stopping`` says so.

    Raises:
        RunoutError: the broker is not there.
        ConfigError: with ``sources``: one cannot be opened, as an agent that runs has it.
    """
    with ExitStack() as opened:
        chosen = config.source if sources else ()
        contract = Contract(config, [one.name for one in chosen])
        filters = [topic for topic, _ in contract.filters]
        if contract.host is not None:
            # What it would say of itself is the agent's to say.
            filters += [t for t in contract.host.subscriptions() if "/STATE/" not in t]
        link = Link(
            config.mqtt,
            client_id=f"runout-{config.node.site}-{config.name}-check-{os.getpid()}",
            filters=[(topic, 0) for topic in filters],
            will=None,
            receive=intake.put_all,
            persistent=False,
        )
        opened.callback(link.close)
        link.open()
        if not _connected(link, min(CONNECT_S, seconds), stopping):
            broker = f"{config.mqtt.host}:{config.mqtt.port}"
            raise RunoutError(
                f"no connection to the broker at {broker}: is it there, does it let us in?"
            )
        for one in chosen:
            source = _build(one)
            opened.callback(source.close)
            source.open(intake.put)
        opened.callback(intake.close)  # before the others: who puts must not wait for nobody
        print(f"listening for {seconds:g} s; Ctrl-C ends it early", file=sys.stderr, flush=True)
        begin = now = time.monotonic()
        while now - begin < seconds and not stopping():
            arrivals = intake.take(min(0.1, seconds - (now - begin)))
            now = time.monotonic()
            contract.count(len(arrivals))
            contract.take(*contract.assemble(arrivals), now)
            if contract.host is not None:
                contract.take(*contract.tick(time.time_ns()), now)
                link.say(contract.say)
                contract.say = []
        contract.take(*contract.flush(time.time_ns()), now)
        return contract.looked(begin, now, time.time_ns())


def _connected(link: Link, timeout_s: float, stopping: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + timeout_s
    while not link.connected.wait(0.1):
        if stopping() or time.monotonic() > deadline:
            return False
    return True


def _build(config: SourceConfig) -> Source:
    if isinstance(config, Http):
        # Nothing is committed here: who posts is told so at once, and posts it again to the agent.
        return msgspec.structs.replace(config, commit_s=0.05).build()
    return config.build()


def run(config: AgentConfig, *, seconds: float, sources: bool, as_json: bool) -> int:
    """Look, print what was found, and return the exit code; SIGINT ends the look early."""
    set_up(logging.WARNING)
    intake = Intake(config.limits.intake, round(config.limits.intake_mb * 1e6))
    stopping: list[int] = []

    def stop(number: int, _frame: object) -> None:
        stopping.append(number)
        intake.wake()

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    found = look(config, seconds, lambda: bool(stopping), intake, sources=sources)
    print(msgspec.json.encode(found).decode() if as_json else as_text(found))
    return 0 if found.ok else 1
