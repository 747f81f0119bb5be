"""``runout-server models wave`` and ``history``: how far a release has come, what was live when."""

import argparse
import time

from contract.errors import ContractError, RunoutError
from contract.update import Offered
from server import wave, waves
from server.config import ServerConfig
from server.models_command import registry_of
from server.restore import locked

_HANDED = frozenset({"release", "restored", "wave", "withdrawn"})


def show(config: ServerConfig, arguments: argparse.Namespace) -> int:
    """Print how far the newest release has come; or ask the server to go on, hold or stop it."""
    registry = registry_of(config, arguments)
    if arguments.ask:
        with locked(config.folder):
            try:
                waves.ask(registry, arguments.ask)
            except ContractError as error:
                raise RunoutError(str(error)) from error
        print("asked for: the running server does it within seconds")
        return 0
    found = wave.read(registry.folder)
    if found is None:
        print("no waves: a release is for everybody at once ([waves] canary)")
        return 0
    why = f": {found.why}" if found.why else ""
    print(f"version {found.version}: wave {found.number}, {found.state}{why}")
    if found.under_way:
        waits = wave.waited_for(found, config.waves, time.time())
        print(f"opened {_when(found.opened_s)}, waits for {waits or 'nothing'}")
        again = f"version {found.before}" if found.before else "each device's own models"
        print(f"if it is stopped: {again} again")
    row = "{:24} {:>4}  {:12} {:>7} {:>7} {:>7} {:>7} {:>8} {:>8}  {}"
    head = ("alarms", "before", "apart", "ms", "error h", "before h")
    print(row.format("device", "wave", "said", *head, "").rstrip())
    for name, number in sorted(found.members.items(), key=lambda one: (one[1], one[0])):
        print(row.format(name, number, *_columns(found.told.get(name))).rstrip())
    return 0


def history(config: ServerConfig, arguments: argparse.Namespace) -> int:
    """Print which version was handed out when, to whom, and why."""
    registry = registry_of(config, arguments)
    for event in registry.journal():
        if event["event"] in _HANDED:
            at = event.get("t")
            when = _when(at if isinstance(at, int | float) else 0.0)
            print(f"{when}  {_in_words(event)}")
    return 0


def _columns(told: Offered | None) -> list[str]:
    if told is None:
        return ["nothing yet", *["-"] * 6, ""]
    word = "kept" if wave.well_through(told) else told.verdict
    shares = [
        "-" if share is None else f"{share:.1%}"
        for share in (told.alarms, told.alarms_before, told.disagree)
    ]
    numbers = [
        "-" if number is None else f"{number:.3g}"
        for number in (told.latency_ms, told.error_h, told.error_before_h)
    ]
    return [word, *shares, *numbers, told.reason]


def _in_words(event: dict[str, object]) -> str:
    version = event.get("version")
    if event["event"] == "release":
        why = f": {event['why']}" if event.get("why") else ""
        return f"version {version} was made{why}"
    if event["event"] == "restored":
        again = event.get("restores")
        return f"version {version} restores " + (
            f"version {again}" if again else "each device's own models"
        )
    if event["event"] == "withdrawn":
        return f"{event.get('node')} was taken out of the sums"
    devices = event.get("devices")
    to = f" to {', '.join(map(str, devices))}" if isinstance(devices, list) else ""
    why = f": {event['why']}" if event.get("why") else ""
    return f"version {version}, wave {event.get('wave')}: {event.get('state')}{to}{why}"


def _when(at_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_s))
