"""Scenarios: which machines there are, how they fail, and how they are now. Read from TOML."""

import difflib
import re
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal, get_args

import msgspec

from contract.config import load_toml
from contract.errors import ConfigError
from contract.topics import check_name
from simulator import network as networks
from simulator import sensors as sensing
from simulator.machines import MACHINES
from simulator.network import Network
from simulator.poison import Poison
from simulator.sensors import Sensor

FaultName = Literal[
    "bearing",
    "bearing_outer",
    "bearing_inner",
    "bearing_ball",
    "bearing_cage",
    "cavitation",
    "fouling",
    "gear_wear",
    "looseness",
    "misalignment",
    "unbalance",
    "winding",
]
MachineName = Literal["pump", "fan", "motor", "gearbox", "compressor", "conveyor", "turbofan"]
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
        faults: shares of the lives that each kind of fault ends; of a machine, those of them that
            its kind can have.
        present: machines that have a fault now.
        kinds: of machines that are not of the scenario's kind.
        sensors: what is wrong with which of its sensors.
        network: what is wrong on the way to the agent; absent: nothing.
        poison: how it spoils what the fleet learns; absent: it does not.
    """

    name: str
    machines: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    faults: dict[FaultName, Annotated[float, msgspec.Meta(gt=0)]]
    present: tuple[Present, ...] = ()
    kinds: dict[str, MachineName] = {}
    sensors: tuple[Sensor, ...] = ()
    network: Network | None = None
    poison: Poison | None = None


class Season(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The year's wave of the temperature around all machines.

    Attributes:
        swing_k: half the difference between the warmest and the coldest day.
        warmest_day: of the year.
    """

    swing_k: Annotated[float, msgspec.Meta(ge=0)] = 10.0
    warmest_day: Annotated[float, msgspec.Meta(ge=0, le=366)] = 200.0


class Drift(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A slow change of what all machines of a kind are asked to do, or stand in: nobody's fault.

    Attributes:
        machine: which kind.
        from_h: hours after ``start``, from which it grows evenly,
        over_h: for so many hours; then it stays.
        demand: more asked of them in the end, as a share of the rated; below 0: less.
        ambient_k: warmer in the end, in kelvin.
    """

    machine: MachineName
    from_h: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    over_h: Hours = 720.0
    demand: Annotated[float, msgspec.Meta(ge=-0.5, le=0.5)] = 0.0
    ambient_k: Annotated[float, msgspec.Meta(ge=-40, le=40)] = 0.0


class Waveform(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bursts of the vibration sensors, in g.

    Attributes:
        channel: its name in the topic.
        rate_hz: samples a second.
        samples: in a burst.
        every_s: from one burst of a machine to the next, rounded to rows.
        scale_end: of the sensor, both ways, in g.
    """

    channel: str = "accel"
    rate_hz: Annotated[float, msgspec.Meta(ge=1000, le=200_000)] = 25_600.0
    samples: Annotated[int, msgspec.Meta(ge=64, le=1_048_576)] = 8192
    every_s: Annotated[float, msgspec.Meta(gt=0)] = 3600.0
    scale_end: Annotated[float, msgspec.Meta(gt=0)] = 50.0


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A plant and its truth.

    Attributes:
        site: name of the plant, in the topics.
        start: when the first lives begin: a time with its zone.
        nodes: the agents.
        machine: kind of all machines that have none in their node's ``kinds``.
        sample_s: from one row of a machine to the next, seconds of data time.
        lives: finished lives of each machine before the present one.
        life: how long lives last.
        seed: of everything that is drawn.
        season: of the year; absent: none.
        drift: slow changes of the process, of all machines of a kind.
        waveform: how machines that have a vibration sensor send bursts; absent: none is sent.
    """

    site: str
    start: datetime
    nodes: Annotated[tuple[Node, ...], msgspec.Meta(min_length=1)]
    machine: MachineName = "pump"
    sample_s: Annotated[float, msgspec.Meta(gt=0)] = 600.0
    lives: Annotated[int, msgspec.Meta(ge=0)] = 0
    life: Life = Life()
    seed: int = 1
    season: Season | None = None
    drift: tuple[Drift, ...] = ()
    waveform: Waveform | None = None

    def kind(self, node: Node, machine: str) -> str:
        """Return what kind a machine is of."""
        return node.kinds.get(machine, self.machine)


_VALUE = re.compile(r"Invalid enum value '(?P<key>[^']*)'")
_WORDS = (*get_args(FaultName), *get_args(MachineName))


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
    if scenario.waveform is not None:
        check_name(scenario.waveform.channel, "waveform.channel")
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
        _check_kinds(node, scenario)
        _check_present(node, scenario)
        _check_sensors(node, scenario)
        if node.network is not None:
            try:
                networks.check(node.network)
            except ValueError as error:
                raise ValueError(f"nodes.{node.name}.network: {error}") from error


def _check_kinds(node: Node, scenario: Scenario) -> None:
    for machine in node.kinds:
        if machine not in node.machines:
            near = _nearest(machine, node.machines)
            raise ValueError(f"nodes.{node.name}.kinds: {machine!r} is no machine of it{near}")
    for machine in node.machines:
        kind = scenario.kind(node, machine)
        if not set(node.faults) & set(MACHINES[kind].faults):
            raise ValueError(
                f"nodes.{node.name}.faults: none of them is one that {machine!r}, a {kind}, can"
                f" have: {', '.join(MACHINES[kind].faults)}"
            )
    used = {scenario.kind(node, machine) for machine in node.machines}
    for fault in node.faults:
        if not any(fault in MACHINES[kind].faults for kind in used):
            raise ValueError(
                f"nodes.{node.name}.faults: no {' and no '.join(sorted(used))} can have {fault!r}"
            )


def _check_present(node: Node, scenario: Scenario) -> None:
    life = scenario.life
    named: set[str] = set()
    for present in node.present:
        where = f"nodes.{node.name}.present"
        if present.machine not in node.machines:
            near = _nearest(present.machine, node.machines)
            raise ValueError(f"{where}: {present.machine!r} is no machine of this node{near}")
        if present.machine in named:
            raise ValueError(f"{where}: {present.machine!r} is named twice")
        named.add(present.machine)
        kind = scenario.kind(node, present.machine)
        if present.fault not in MACHINES[kind].faults:
            raise ValueError(
                f"{where}: {present.machine!r} is a {kind}, which cannot have"
                f" {present.fault!r}; there are {', '.join(MACHINES[kind].faults)}"
            )
        if present.left_h >= life.fault_h[0]:
            raise ValueError(
                f"{where}: left_h = {present.left_h:g} of {present.machine!r} must be below the"
                f" shortest life.fault_h ({life.fault_h[0]:g}), or its fault would not have begun"
            )


def _check_sensors(node: Node, scenario: Scenario) -> None:
    for number, sensor in enumerate(node.sensors):
        where = f"nodes.{node.name}.sensors[{number}]"
        if sensor.machine not in node.machines:
            near = _nearest(sensor.machine, node.machines)
            raise ValueError(f"{where}: {sensor.machine!r} is no machine of this node{near}")
        if sensor.life is not None and not 0 <= sensor.life <= scenario.lives:
            raise ValueError(f"{where}: life = {sensor.life}, of 0 to {scenario.lives}")
        machine = MACHINES[scenario.kind(node, sensor.machine)]
        heard = scenario.waveform is not None and machine.structure is not None
        wave = scenario.waveform.channel if scenario.waveform is not None and heard else ""
        try:
            sensing.check(sensor, machine.channels, machine.units, wave)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
