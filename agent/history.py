"""What was live when on this device, read from its store: the agent may be running or not."""

from datetime import UTC, datetime

import msgspec

from agent.config import AgentConfig
from agent.rollout import live_version
from agent.store import open_readonly


class Step(msgspec.Struct):
    """What became of a release.

    Attributes:
        at: seconds since 1970 UTC, by the device's clock.
        asset_class: it is for; empty if it could not even be read.
        version: of it.
        digest: of it.
        verdict: see ``agent.standing.Word``.
        reason: in words.
    """

    at: float
    asset_class: str
    version: int
    digest: str
    verdict: str
    reason: str


class History(msgspec.Struct):
    """All steps, the oldest first, and what judges now by asset class; 0: its own models."""

    steps: list[Step]
    live: dict[str, int]


def read(config: AgentConfig) -> History:
    """Read the store; raises ``ContractError`` if there is none."""
    db = open_readonly(config.state)
    try:
        rows = db.execute(
            "SELECT at_ns, asset_class, version, digest, verdict, reason FROM rollout ORDER BY id"
        ).fetchall()
        live = {spec.name: live_version(db, spec.name) for spec in config.asset_class}
    finally:
        db.close()
    return History([Step(at_ns / 1e9, *rest) for at_ns, *rest in rows], live)


def as_json(found: History) -> str:
    """Return a JSON object a line, and last what judges now."""
    lines = [msgspec.json.encode(step).decode() for step in found.steps]
    return "\n".join([*lines, msgspec.json.encode({"live": found.live}).decode()])


def as_text(found: History) -> str:
    """Return a line a step."""
    lines = []
    for step in found.steps:
        at = datetime.fromtimestamp(step.at, UTC).strftime("%Y-%m-%d %H:%M:%S")
        what = f"{step.asset_class or '(unreadable)'} {step.version or ''}".strip()
        lines.append(f"{at}  {what:16} {step.verdict:12} {step.reason}")
    for name, version in found.live.items():
        lines.append(f"{name}: {f'version {version}' if version else 'own models'} judges now")
    return "\n".join(lines)
