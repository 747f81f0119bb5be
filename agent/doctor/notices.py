"""The channels of notices: can they be built, do they send, and does anybody follow the alerts."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from functools import partial

from agent.config import AgentConfig
from agent.doctor.finding import Finding, fault, ok, warning
from agent.doctor.state import running
from agent.notify import NotifyConfig
from agent.notify.outbox import Counts, look, path_of
from agent.store import open_readonly
from contract.errors import ConfigError, ContractError

PATIENCE_S = 600.0
"""A notice that waits for longer is worth a word."""


def checks(config: AgentConfig) -> Iterator[Callable[[], Finding]]:
    """Yield a check of each channel."""
    for channel in config.notify:
        yield partial(sends, config, channel)


def sends(config: AgentConfig, channel: NotifyConfig, now: float | None = None) -> Finding:
    """Check that a channel can be built, and what became of its notices.

    ``now``: seconds since 1970 UTC; None: now.
    """
    name = f"notices by {channel.title}"
    try:
        channel.build()
    except ConfigError as error:
        return fault(name, str(error), f"correct it in [[notify]] of {channel.title}")
    path = path_of(config.state, channel.title)
    if not path.exists():
        return ok(name, "none yet: the agent has not run with this channel")
    try:
        counts, seen = look(path)
        unseen = _alerts_behind(config, seen)
    except (sqlite3.DatabaseError, ContractError) as error:
        mend = "start the agent: what is damaged it sets aside"
        return warning(name, f"{path} cannot be read ({error})", mend)
    told = _told(counts)
    late_s = (time.time() if now is None else now) - (counts.oldest or float("inf"))
    if counts.trouble:
        mend = "see that its address can be reached from here, and its secret; the agent goes on"
        return warning(name, f"{told}; the last attempt failed: {counts.trouble}", mend)
    if unseen and running(config):
        mend = "sudo systemctl restart runout-agent; its log says what ended the thread"
        return fault(name, f"{told}; {unseen} newer alerts were not looked at", mend)
    if late_s > PATIENCE_S:
        mend = "more asset_per_h or per_h, if that is too few: what is failing waits for neither"
        return warning(name, told, mend)
    if counts.given_up or counts.dropped:
        return warning(name, told, "see the agent's log: a notice was given up")
    return ok(name, told)


def _told(counts: Counts) -> str:
    parts = [f"{counts.sent} sent"]
    for number, word in ((counts.given_up, "given up"), (counts.dropped, "dropped")):
        if number:
            parts.append(f"{number} {word}")
    if counts.waiting and counts.oldest is not None:
        since = datetime.fromtimestamp(counts.oldest, UTC).strftime("%Y-%m-%d %H:%M UTC")
        parts.append(f"{counts.waiting} waiting, the oldest since {since}")
    return ", ".join(parts)


def _alerts_behind(config: AgentConfig, seen: int) -> int:
    with closing(open_readonly(config.state)) as db:
        query = "SELECT COUNT(*) FROM result WHERE kind = 'alert' AND id > ?"
        return int(db.execute(query, (seen,)).fetchone()[0])
