"""What people say to the agent: life events, commands and verdicts, as they come and are kept."""

import hashlib

import msgspec

from agent.batch import Event
from agent.decode.json import time_ns
from contract import topics
from contract.errors import ContractError, DecodeError
from contract.report import Acknowledge, Command, LifeEvent, Shelve, Unshelve, Verdict

Said = LifeEvent | Acknowledge | Shelve | Unshelve | Verdict

_EXAMPLES = {
    topics.EVENT: '{"event": "failed"}',
    topics.COMMAND: '{"command": "acknowledge"}, {"command": "shelve", "hours": 8} or '
    '{"command": "unshelve"}',
    topics.VERDICT: '{"verdict": "confirmed"}, "false_alarm" or "not_found"',
}
_decoders: dict[str, msgspec.json.Decoder[Said]] = {
    topics.EVENT: msgspec.json.Decoder(LifeEvent),
    topics.COMMAND: msgspec.json.Decoder(Command),
    topics.VERDICT: msgspec.json.Decoder(Verdict),
}
_encoder = msgspec.json.Encoder()


def decode(leaf: str, payload: bytes, at_ns: int) -> tuple[int, str, bytes]:
    """Read what came on a topic: its time, what it is, and its normal form for the journal.

    Raises:
        DecodeError: reason ``event``, ``command`` or ``verdict``; or ``time``.
    """
    try:
        said = _decoders[leaf].decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError(leaf, f"not a {leaf}: {error}; send {_EXAMPLES[leaf]}") from error
    t_ns = at_ns if said.t is None else time_ns(said.t)
    if not -(2**62) < t_ns < 2**62:
        raise DecodeError("time", "time is out of range")
    if isinstance(said, LifeEvent) and not said.ref:
        return t_ns, said.event, b""  # all there is
    return t_ns, word(said), _encoder.encode(said)


def word(said: Said) -> str:
    """Return what it is in a word: a life event's own, or ``acknowledge``, ``verdict``...

    >>> word(Verdict("confirmed"))
    'verdict'
    """
    if isinstance(said, LifeEvent):
        return said.event
    return "verdict" if isinstance(said, Verdict) else str(said.__struct_config__.tag)


def read(event: Event) -> Said:
    """Read what was journalled.

    Raises:
        ContractError: it is none of this version's.
    """
    leaf = {"acknowledge": topics.COMMAND, "shelve": topics.COMMAND, "unshelve": topics.COMMAND}
    kind = leaf.get(event.event, topics.VERDICT if event.event == "verdict" else topics.EVENT)
    try:
        if kind == topics.EVENT and not event.detail:
            return msgspec.convert({"event": event.event}, LifeEvent)
        said = _decoders[kind].decode(event.detail)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        what = f"{event.event!r} of {event.asset!r}"
        raise ContractError(f"{what} cannot be read: {error}") from error
    if word(said) != event.event:
        raise ContractError(f"{event.event!r} of {event.asset!r} says it is {word(said)!r}")
    return said


def key(event: Event, said: Said, alert: str) -> tuple[int, int] | None:
    """Return what two events have in common if one repeats the other; None: it does no harm.

    The broker repeats what was not acknowledged, and people what they are not sure of. What has
    no time of its own has another at each arrival; an acknowledgement or a shelving that comes
    twice leaves all as it is.

    Args:
        event: as it came.
        said: the same, read.
        alert: id of the newest alert, which a verdict without an id means.
    """
    if isinstance(said, LifeEvent) and not said.ref:
        return event.t_ns, _digest(event.event)
    if said.ref or said.t is not None:
        return event.t_ns if said.t is not None else 0, _digest(event.event, event.detail)
    return (0, _digest(event.event, event.detail, alert)) if isinstance(said, Verdict) else None


def _digest(event: str, detail: bytes = b"", alert: str = "") -> int:
    parts = msgspec.json.encode((event, detail, alert))
    return int.from_bytes(hashlib.blake2b(parts, digest_size=8).digest(), "big", signed=True)
