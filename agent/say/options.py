"""The commands that say something to an agent: their options, and what they say."""

import argparse
import os
import time
import uuid
from typing import Protocol

import msgspec

from contract import topics
from contract.report import Acknowledge, LifeEvent, Shelve, Unshelve, Verdict

Said = LifeEvent | Acknowledge | Shelve | Unshelve | Verdict


class MakeCommand(Protocol):
    """Makes a command of its name, what it calls, and its help."""

    def __call__(self, name: str, do: object, text: str) -> argparse.ArgumentParser:
        """Return the parser of the command."""


def add(command: MakeCommand) -> None:
    """Add the commands."""
    ack = _with_asset(command("ack", _ack, "Acknowledge the alert of an asset."))
    ack.add_argument("--alert", default="", metavar="ID", help="which; default: the newest")
    shelve = _with_asset(command("shelve", _shelve, "Hide the alert of an asset for some hours."))
    shelve.add_argument("--hours", type=float, required=True, help="by the time of its data")
    _with_asset(command("unshelve", _unshelve, "Hide the alert of an asset no longer."))
    verdict = _with_asset(command("verdict", _verdict, "Say what was found of an alert."))
    verdict.add_argument("verdict", choices=("confirmed", "false_alarm", "not_found"))
    verdict.add_argument("--alert", default="", metavar="ID", help="which; default: the newest")
    verdict.add_argument("--fault", default="", metavar="WORD", help="e.g. bearing")
    verdict.add_argument("--note", default="", metavar="TEXT", help="up to 1000 letters")
    event = _with_asset(command("event", _event, "Say what happened to an asset."), by=False)
    event.add_argument("event", choices=("started", "maintained", "failed", "replaced"))


def _with_asset(parser: argparse.ArgumentParser, *, by: bool = True) -> argparse.ArgumentParser:
    parser.add_argument("asset", metavar="ASSET")
    parser.add_argument("--t", metavar="TIME", help="seconds since 1970 or ISO 8601; default: now")
    parser.add_argument(
        "--wait", type=float, default=5.0, metavar="N", help="seconds for an answer (5)"
    )
    if by:
        parser.add_argument("--by", default=os.environ.get("USER", "")[:64], metavar="NAME")
    return parser


def _ack(asked: argparse.Namespace) -> int:
    said = Acknowledge(asked.alert, _time(asked), asked.by, _ref())
    return _tell(asked, topics.COMMAND, said)


def _shelve(asked: argparse.Namespace) -> int:
    return _tell(asked, topics.COMMAND, Shelve(asked.hours, _time(asked), asked.by, _ref()))


def _unshelve(asked: argparse.Namespace) -> int:
    return _tell(asked, topics.COMMAND, Unshelve(_time(asked), asked.by, _ref()))


def _verdict(asked: argparse.Namespace) -> int:
    said = Verdict(
        asked.verdict,
        alert=asked.alert,
        fault=asked.fault,
        note=asked.note,
        t=_time(asked),
        by=asked.by,
        ref=_ref(),
    )
    return _tell(asked, topics.VERDICT, said)


def _event(asked: argparse.Namespace) -> int:
    return _tell(asked, topics.EVENT, LifeEvent(asked.event, _time(asked), _ref()))


def _time(asked: argparse.Namespace) -> float | str:
    if asked.t is None:
        return round(time.time(), 3)
    try:
        return float(asked.t)
    except ValueError:
        return str(asked.t)


def _ref() -> str:
    return uuid.uuid4().hex


def _tell(asked: argparse.Namespace, leaf: str, said: Said) -> int:
    from agent.say.broker import tell  # noqa: PLC0415  # --help must not cost a second

    body = msgspec.json.encode(said)
    heard = tell(asked.config, asked.set, (asked.asset, leaf), body, said.ref, asked.wait)
    if heard.answer is not None:
        print(heard.answer.text)
        return 0
    if heard.known:
        print(
            f"{asked.asset}: the broker has it; the agent has not answered within "
            f"{asked.wait:g} s. It will act when it is back; what it refuses it keeps aside: "
            "see runout-agent status"
        )
    else:
        print(
            f"{asked.asset}: node {heard.node} has told of no such asset, and has not answered "
            f"within {asked.wait:g} s. Is that its name? What is said of an asset before its first "
            "reading is refused, but that it is started"
        )
    return 1
