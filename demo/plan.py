"""What a demonstration is made of: which agents, which plant, and what is known to be true."""

import re
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import msgspec

from simulator import truth

_SMALL_RUL = (
    '{kind="ridge", random=200, activation="relu", width=1.0, shaping=50, penalty=1e-3, '
    "personal=true, penalty_alone=0.1}"
)


class Asset(NamedTuple):
    """What is true of an asset at the end of what was played.

    Attributes:
        asset: its name.
        fault: by name; empty for a healthy one; None where nobody knows.
        began: when, seconds since 1970 UTC; None for a healthy one, or where nobody knows.
        until_t: the last row that was played.
        rul_h: hours left, uncapped.
        channels: that the fault moves.
    """

    asset: str
    fault: str | None
    began: float | None
    until_t: float
    rul_h: float
    channels: tuple[str, ...]


class Plan(NamedTuple):
    """A demonstration.

    Attributes:
        title: in words.
        config: of each agent.
        nodes: their names.
        learn: arguments of the simulator for the lives that are learnt from.
        judge: arguments for what is judged at the end.
        rounds: of federated training.
        settings: of each agent in place of what its configuration says, ``key=value``.
        scenario: that goes on where the plant is kept running; None: nothing is played then.
    """

    title: str
    config: Path
    nodes: tuple[str, ...]
    learn: list[str]
    judge: list[str]
    rounds: int
    settings: tuple[str, ...] = ()
    scenario: Path | None = None


def plant(configs: Path) -> Plan:
    """Return the plant of pumps with known faults: three halls, an agent each."""
    scenario = str(configs / "scenarios" / "demo.toml")
    play = ["run", "--scenario", scenario, "--phase"]
    return Plan(
        "21 pumps in three halls; each hall has seen other faults",
        configs / "agent.toml",
        ("hall-a", "hall-b", "hall-c"),
        [*play, "history"],
        [*play, "present"],
        2,
        scenario=Path(scenario),
    )


def turbofans(configs: Path, data: Path) -> Plan:
    """Return NASA's turbofans: ten agents with ten engines each, then the 100 test engines."""
    play = ["replay", "--dataset", "cmapss", "--data", str(data), "--subset", "FD001"]
    play += ["--nodes", "10", "--split"]
    return Plan(
        "100 turbofan engines of NASA's C-MAPSS FD001 on ten devices, then 100 others to judge",
        configs / "agent.turbofan.toml",
        tuple(f"node-{i:02d}" for i in range(1, 11)),
        [*play, "train"],
        [*play, "test"],
        1,
        # Ten devices share one machine here: fewer random features, and remaining life by sums
        # alone. What the configuration as it stands reaches: docs/measured.md.
        (f"asset_class.0.rul=[{_SMALL_RUL}]",),
    )


def what_is_true(path: Path) -> list[Asset]:
    """Read the simulator's truth about the assets that did not end in a failure."""
    known = truth.read(path)
    return [
        Asset(
            life.asset,
            _fault(life, known.felt_severity),
            life.fault_began_t if life.severity else None,
            life.played_until_t,
            life.rul_h,
            life.channels,
        )
        for life in known.lives
        if not life.failed
    ]


def _fault(life: truth.LifeTruth, felt: float) -> str | None:
    if life.severity is None:
        return None
    return life.fault if life.severity >= felt else ""


def rows_played(path: Path) -> int:
    """Return how many rows the simulator says it played."""
    return sum(life.rows for life in truth.read(path).lives)


def server_config(
    path: Path, *, state: Path, port: int, broker_port: int, nodes: int, rounds: int
) -> None:
    """Write the federation server's configuration, fleet page and all."""
    content = {
        "state": str(state),
        "listen": f"127.0.0.1:{port}",
        "rounds": rounds,
        "min_nodes": nodes,
        "deadline_s": 90.0,
        "ready_s": 0.0,  # all of them have just come
    }
    lines = [f"{key} = {msgspec.json.encode(value).decode()}" for key, value in content.items()]
    lines += ["[mqtt]", f"port = {broker_port}", "[fleet]", "port = 0"]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def later(scenario: Path, out: Path, days: int) -> Path:
    """Write a scenario that begins so many days after its own beginning, with other chances."""
    text = scenario.read_text(encoding="utf-8")
    start = tomllib.loads(text)["start"]
    moved = (start + timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")
    text = re.sub(r"(?m)^start = .*$", f"start = {moved}", text, count=1)
    out.write_text(text, encoding="utf-8")
    return out
