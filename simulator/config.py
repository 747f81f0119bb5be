"""Scenarios: which machines there are, how they fail, and how they are now. Read from TOML."""

import difflib
import re
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from contract.config import load_toml
from contract.errors import ConfigError
from contract.topics import check_name

FaultName = Literal["bearing", "cavitation", "fouling"]
Hours = Annotated[float, msgspec.Meta(gt=0)]
Range = tuple[Hours, Hours]


class Life(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long lives last: each length is drawn evenly between two hours of data time.

    Attributes:
        healthy_h: from the start of a life to the birth of its fault.
        fault_h: from birth to failure.
        repair_h: from failure to the start of the next life.
    """

    healthy_h: Range = (18.0, 30.0)
    fault_h: Range = (36.0, 54.0)
    repair_h: Range = (4.0, 12.0)


class Present(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A machine that has a fault now; machines that are not named have none.

    Attributes:
        machine: which.
        fault: what ails it.
        left_h: hours from now to failure.
    """

    machine: str
    fault: FaultName
    left_h: Hours


class Node(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One agent's machines.

    Attributes:
        name: of the node.
        machines: names of its assets.
        faults: shares of the lives that each kind of fault ends.
        present: machines that have a fault now.
    """

    name: str
    machines: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    faults: dict[FaultName, Annotated[float, msgspec.Meta(gt=0)]]
    present: tuple[Present, ...] = ()


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A plant and its truth.

    Attributes:
        site: name of the plant, in the topics.
        start: when the first lives begin: a time with its zone.
        nodes: the agents.
        machine: kind of machine.
        sample_s: from one row of a machine to the next, seconds of data time.
        lives: finished lives of each machine before the present one.
        life: how long lives last.
        seed: of everything that is drawn.
    """

    site: str
    start: datetime
    nodes: Annotated[tuple[Node, ...], msgspec.Meta(min_length=1)]
    machine: Literal["pump"] = "pump"
    sample_s: Annotated[float, msgspec.Meta(gt=0)] = 600.0
    lives: Annotated[int, msgspec.Meta(ge=0)] = 0
    life: Life = Life()
    seed: int = 1


_VALUE = re.compile(r"Invalid enum value '(?P<key>[^']*)'")
_WORDS = ("bearing", "cavitation", "fouling", "pump")


def load(path: Path) -> Scenario:
    """Read a scenario; raises ``ConfigError`` that names the file, the key and the nearest."""
    try:
        scenario = load_toml(path, Scenario)
    except ConfigError as error:
        value = _VALUE.search(str(error))
        mend = _nearest(value["key"], _WORDS) if value else ""
        raise ConfigError(f"{error}{mend}") from error
    try:
        _check(scenario)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
    return scenario


def _nearest(word: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"


def _check(scenario: Scenario) -> None:
    """Refuse what msgspec cannot see; the ``ValueError`` names the key."""
    check_name(scenario.site, "site")
    if scenario.start.tzinfo is None:
        raise ValueError("start needs a zone, as in 2026-01-05T00:00:00Z")
    for name in scenario.life.__struct_fields__:
        low, high = getattr(scenario.life, name)
        if low > high:
            raise ValueError(f"life.{name}: {low:g} is above {high:g}")
        if high * 3600 < 2 * scenario.sample_s:
            raise ValueError(f"life.{name}: shorter than two samples of sample_s")
    machines: set[str] = set()
    names: set[str] = set()
    for node in scenario.nodes:
        if check_name(node.name, "node") in names:
            raise ValueError(f"nodes: the name {node.name!r} repeats")
        names.add(node.name)
        if not node.faults:
            raise ValueError(f"nodes.{node.name}.faults: name at least one, as in bearing = 1")
        for machine in node.machines:
            if check_name(machine, "machine") in machines:
                raise ValueError(f"nodes.{node.name}.machines: the name {machine!r} repeats")
            machines.add(machine)
        _check_present(node, scenario.life)


def _check_present(node: Node, life: Life) -> None:
    named: set[str] = set()
    for present in node.present:
        where = f"nodes.{node.name}.present"
        if present.machine not in node.machines:
            near = _nearest(present.machine, node.machines)
            raise ValueError(f"{where}: {present.machine!r} is no machine of this node{near}")
        if present.machine in named:
            raise ValueError(f"{where}: {present.machine!r} is named twice")
        named.add(present.machine)
        if present.left_h >= life.fault_h[0]:
            raise ValueError(
                f"{where}: left_h = {present.left_h:g} of {present.machine!r} must be below the"
                f" shortest life.fault_h ({life.fault_h[0]:g}), or its fault would not have begun"
            )
