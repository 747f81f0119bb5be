"""A scenario unfolded: every life of every machine, its readings, its messages and its truth."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from contract.arrays import Floats
from contract.report import LifeEvent
from simulator import sensors as sensing
from simulator import vibration
from simulator.burst import encode
from simulator.config import FaultName, Node, Range, Scenario, Waveform
from simulator.faults import FAULTS, felt_age, moved
from simulator.machines import MACHINES, Machine, Surroundings
from simulator.merge import merged
from simulator.message import Message, life_event, reading, waveform
from simulator.network import Network, through
from simulator.poison import Poison
from simulator.sensors import Sensor, Swapped
from simulator.signals import yearly
from simulator.truth import (
    FELT,
    DriftTruth,
    LifeTruth,
    NodeTruth,
    OutageTruth,
    SensorTruth,
    Truth,
)

Phase = Literal["history", "present"]
_PIECE = 64
PHASES: dict[str, tuple[Phase, ...]] = {
    "history": ("history",),
    "present": ("present",),
    "all": ("history", "present"),
}


@dataclass(frozen=True, slots=True)
class PlannedLife:
    """One life to be played; times in seconds since 1970 UTC, of the data.

    Attributes:
        node: whose agent reads the asset.
        asset: which.
        kind: of machine.
        number: which of its lives, from 0.
        phase: ``history`` ends in failure, ``present`` is cut off now.
        fault: by name.
        start_t: first row.
        birth_t: the fault begins; may lie ahead.
        failure_t: may lie ahead.
        rows: to be played.
    """

    node: str
    asset: str
    kind: str
    number: int
    phase: Phase
    fault: str
    start_t: float
    birth_t: float
    failure_t: float
    rows: int


class Plant:
    """All that a scenario says and its seed draws.

    Lives are planned whole, whichever phase is played later, so that phases played apart are the
    same as together.

    Attributes:
        scenario: what was asked for.
        lives: machine by machine, in the order of time.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        past = [life for node in scenario.nodes for life in self._history(node)]
        now_t = self._now(past)
        present = [life for node in scenario.nodes for life in self._present(node, now_t)]
        self.lives = sorted(past + present, key=lambda life: (life.node, life.asset, life.number))
        self._nodes = {node.name: node for node in scenario.nodes}
        self._present_t: dict[str, float] = {}
        for life in present:
            known = self._present_t.get(life.node, life.start_t)
            self._present_t[life.node] = min(known, life.start_t)

    def played(self, phases: Iterable[Phase]) -> list[PlannedLife]:
        """Return the lives of some phases."""
        wanted = set(phases)
        return [life for life in self.lives if life.phase in wanted]

    def times(self, life: PlannedLife) -> Floats:
        """Return the times of a life's rows, ``(n,)``."""
        times: Floats = life.start_t + self.scenario.sample_s * np.arange(
            life.rows, dtype=np.float64
        )
        return times

    def severity(self, life: PlannedLife) -> Floats:
        """Return the severity of a life's fault at its rows, ``(n,)``."""
        age = (self.times(life) - life.birth_t) / (life.failure_t - life.birth_t)
        return FAULTS[life.fault].severity(age)

    def readings(self, life: PlannedLife) -> Floats:
        """Return what a life's sensors say, ``(n, C)``; the same for the same seed and life."""
        readings, times = self.measured(life), self.times(life)
        machine, hours = MACHINES[life.kind], (times - life.start_t) / 3600
        for number, sensor in self._sensors(life):
            rng = self._rng(life.asset, f"sensor {life.number} {number}")
            readings = sensing.spoil_rows(
                sensor, readings, hours, machine.channels, machine.units, rng
            )
        return readings

    def measured(self, life: PlannedLife) -> Floats:
        """Return what good sensors would say, ``(n, C)``."""
        effect = FAULTS[life.fault].effect(self.severity(life))
        rng = self._rng(life.asset, f"life {life.number}")
        times = self.times(life)
        return self.machine(life).run(times, effect, rng, self._around(life.kind, times))

    def machine(self, life: PlannedLife) -> Machine:
        """Return the machine that lives a life; the same in each of its lives."""
        return MACHINES[life.kind].draw(self._rng(life.asset, "machine"))

    def messages(self, phases: Iterable[Phase]) -> Iterator[Message]:
        """Yield the messages of some phases in the order of data time, machines side by side."""
        lives = self.played(phases)
        assets = dict.fromkeys(life.asset for life in lives)
        by_asset: dict[str, list[PlannedLife]] = {asset: [] for asset in assets}
        for life in lives:
            by_asset[life.asset].append(life)
        series = [self._through(asset, of_it) for asset, of_it in by_asset.items()]
        return merged(series)

    def truth(self, phase: str, source: str) -> Truth:
        """Return the truth about what ``messages`` of a phase (``all`` is both) say."""
        lives = tuple(self._truth(life) for life in self.played(PHASES[phase]))
        return Truth(
            source,
            self.scenario.site,
            self.scenario.seed,
            phase,
            FELT,
            lives,
            tuple(self._bad_sensors(phase)),
            tuple(self._bad_nodes(phase)),
            tuple(self._drifts()),
        )

    def burst(self, life: PlannedLife, at: int, readings: Floats) -> Floats:
        """Return what a life's vibration sensor hears at its row ``at``: ``(samples,)`` in g.

        The shaft turns as the channel ``speed`` of the row, of ``measured``, says.

        Raises:
            ValueError: the machine has no such sensor, or the scenario no ``waveform``.
        """
        machine, wanted = self.machine(life), self.scenario.waveform
        if machine.structure is None or wanted is None:
            raise ValueError(f"{life.asset}: nobody listens to a {life.kind}'s waveform here")
        t = life.start_t + self.scenario.sample_s * at
        age = np.array([(t - life.birth_t) / (life.failure_t - life.birth_t)])
        fault = FAULTS[life.fault]
        heard = vibration.burst(
            machine.structure,
            fault.shakes(float(fault.severity(age)[0])),
            shaft_hz=float(readings[at, machine.channels.index("speed")]) / 60,
            velocity_mms=machine.vibration_mms,
            rate_hz=wanted.rate_hz,
            samples=wanted.samples,
            rng=self._rng(life.asset, f"burst {life.number} {at}"),
        )
        for number, sensor in self._sensors(life):
            if sensor.channel == wanted.channel:
                rng = self._rng(life.asset, f"sensor {life.number} {number} {at}")
                hour = (t - life.start_t) / 3600
                heard = sensing.spoil_burst(sensor, heard, hour, wanted.rate_hz, rng)
        return heard

    def _heard(self, life: PlannedLife) -> tuple[Waveform, int] | None:
        """Return how a life's bursts are taken, and each how many rows; None: there are none."""
        wanted = self.scenario.waveform
        if wanted is None or MACHINES[life.kind].structure is None:
            return None
        return wanted, max(round(wanted.every_s / self.scenario.sample_s), 1)

    def _burst(
        self,
        life: PlannedLife,
        at: int,
        times: tuple[float, float],
        readings: Floats,
        wanted: Waveform,
    ) -> Message:
        t, said_t = times
        payload = encode(
            self.burst(life, at, readings),
            wanted.rate_hz,
            t_ns=round(said_t * 1e9),
            unit="g",
            scale_end=wanted.scale_end,
        )
        return waveform(t, life.node, life.asset, wanted.channel, payload)

    def bursts(self, life: PlannedLife) -> int:
        """Return how many bursts a life has."""
        heard = self._heard(life)
        return 0 if heard is None else -(-life.rows // heard[1])

    def _around(self, kind: str, times: Floats) -> Surroundings | None:
        """Return what season and drift do to a kind of machine; None: there are none."""
        season = self.scenario.season
        drifts = [drift for drift in self.scenario.drift if drift.machine == kind]
        if season is None and not drifts:
            return None
        around = Surroundings.none(len(times))
        ambient_k, demand = around.ambient_k, around.demand
        if season is not None:
            ambient_k = season.swing_k * yearly(times, season.warmest_day)
        for drift in drifts:
            hours = (times - self.scenario.start.timestamp()) / 3600 - drift.from_h
            grown = np.clip(hours / drift.over_h, 0.0, 1.0)
            ambient_k = ambient_k + drift.ambient_k * grown
            demand = demand + drift.demand * grown
        return Surroundings(ambient_k, demand)

    def _through(self, asset: str, lives: list[PlannedLife]) -> Iterator[Message]:
        """Return what comes of a machine's messages."""
        network = self._nodes[lives[0].node].network
        series = self._series(lives)
        if network is None:
            return series
        return through(
            series,
            network,
            self._rng(asset, "network"),
            present_t=self._present_t[lives[0].node],
            sample_s=self.scenario.sample_s,
        )

    def _sensors(self, life: PlannedLife) -> list[tuple[int, Sensor]]:
        """Return what is wrong with a life's sensors, numbered as in the scenario."""
        return [
            (number, sensor)
            for number, sensor in enumerate(self._nodes[life.node].sensors)
            if sensor.machine == life.asset
            and life.number == (self.scenario.lives if sensor.life is None else sensor.life)
        ]

    def _false_failure(self, life: PlannedLife) -> int | None:
        """Return the row of a life behind which a failure is told that is none."""
        poison = self._nodes[life.node].poison
        if poison is None:
            return None
        drawn, where = self._rng(life.asset, f"poison {life.number}").uniform(size=2)
        healthy = round((life.birth_t - life.start_t) / self.scenario.sample_s)
        row = int(healthy * (0.4 + 0.4 * where))
        return row if drawn < poison.false_failure and row + 1 < life.rows else None

    def _series(self, lives: list[PlannedLife]) -> Iterator[Message]:
        for life in lives:
            machine, node = MACHINES[life.kind], self._nodes[life.node]
            channels, units = (
                machine.channels,
                dict(zip(machine.channels, machine.units, strict=True)),
            )
            false_failure = self._false_failure(life)
            if life.number:
                started = LifeEvent("started", life.start_t)
                yield life_event(life.node, life.asset, started)
            readings, times = self.readings(life), self.times(life)
            if node.poison is not None:
                readings = np.round(readings * node.poison.gain, 4)
            heard = self._heard(life)
            measured = readings if heard is None else self.measured(life)
            for at, t, row in _rows(times, readings):
                values = dict(zip(channels, row, strict=True))
                said_t = None
                if node.network is not None:
                    said_t = node.network.said_t(t, self._present_t[life.node])
                yield reading(t, life.node, life.asset, values, said_t=said_t, units=units)
                if heard is not None and at % heard[1] == 0:
                    clock = (t, t if said_t is None else said_t)
                    yield self._burst(life, at, clock, measured, heard[0])
                if at == false_failure:
                    yield life_event(life.node, life.asset, LifeEvent("failed", t))
            if life.phase == "history":
                failed = LifeEvent("failed", life.failure_t)
                yield life_event(life.node, life.asset, failed)

    def _truth(self, life: PlannedLife) -> LifeTruth:
        fault = FAULTS[life.fault]
        last_t = float(self.times(life)[-1])
        span_s = life.failure_t - life.birth_t
        return LifeTruth(
            node=life.node,
            asset=life.asset,
            life=life.number,
            phase=life.phase,
            fault=life.fault,
            started_t=life.start_t,
            fault_began_t=life.birth_t,
            felt_t=life.birth_t + felt_age(fault, FELT) * span_s,
            failure_t=life.failure_t,
            played_until_t=last_t,
            rows=life.rows,
            failed=life.phase == "history",
            rul_h=(life.failure_t - last_t) / 3600,
            severity=float(self.severity(life)[-1]),
            channels=self._moved(life),
        )

    def _bad_sensors(self, phase: str) -> Iterator[SensorTruth]:
        for life in self.played(PHASES[phase]):
            last_t = float(self.times(life)[-1])
            for _, sensor in self._sensors(life):
                from_t = life.start_t + 3600 * sensor.from_h
                if from_t <= last_t:
                    to_t = last_t if sensor.to_h is None else life.start_t + 3600 * sensor.to_h
                    pair = (sensor.other,) if isinstance(sensor, Swapped) else ()
                    yield SensorTruth(
                        life.node,
                        life.asset,
                        (sensor.channel, *pair),
                        str(sensor.__struct_config__.tag),
                        from_t,
                        min(to_t, last_t),
                    )

    def _bad_nodes(self, phase: str) -> Iterator[NodeTruth]:
        for node in self.scenario.nodes:
            if node.network is None and node.poison is None:
                continue
            network, poison = node.network or Network(), node.poison or Poison()
            zero_t = self._present_t[node.name]
            yield NodeTruth(
                node.name,
                zero_t,
                loss=network.loss,
                duplicate=network.duplicate,
                delay_s=network.delay_s,
                reorder=network.reorder,
                outages=tuple(
                    OutageTruth(
                        zero_t + 3600 * outage.from_h,
                        zero_t + 3600 * (outage.from_h + outage.for_h),
                        outage.keeps,
                    )
                    for outage in network.outage
                ),
                skew_s=network.skew_s,
                ppm=network.ppm,
                leaps=tuple((zero_t + 3600 * leap.at_h, leap.by_s) for leap in network.leap),
                gain=poison.gain,
                false_failures=tuple(
                    (life.asset, float(self.times(life)[row]))
                    for life in self.played(PHASES[phase])
                    if life.node == node.name and (row := self._false_failure(life)) is not None
                ),
            )

    def _drifts(self) -> Iterator[DriftTruth]:
        start_t = self.scenario.start.timestamp()
        for drift in self.scenario.drift:
            yield DriftTruth(
                tuple(
                    machine
                    for node in self.scenario.nodes
                    for machine in node.machines
                    if self.scenario.kind(node, machine) == drift.machine
                ),
                start_t + 3600 * drift.from_h,
                start_t + 3600 * (drift.from_h + drift.over_h),
                drift.demand,
                drift.ambient_k,
            )

    def _moved(self, life: PlannedLife) -> tuple[str, ...]:
        channels = moved(FAULTS[life.fault], MACHINES[life.kind].channels)
        heard = self._heard(life)
        # There is no fault that does not shake.
        return channels if heard is None else (*channels, heard[0].channel)

    def _history(self, node: Node) -> Iterator[PlannedLife]:
        scenario = self.scenario
        faults = self._deal_kinds(node, scenario.lives, "history")
        for asset in node.machines:
            start_t = scenario.start.timestamp()
            for number in range(scenario.lives):
                rng = self._rng(asset, f"plan {number}")
                healthy, ill = (
                    self._draw(scenario.life.healthy_h, rng),
                    self._draw(scenario.life.fault_h, rng),
                )
                birth_t = start_t + healthy * scenario.sample_s
                failure_t = birth_t + ill * scenario.sample_s
                yield PlannedLife(
                    node.name,
                    asset,
                    scenario.kind(node, asset),
                    number,
                    "history",
                    faults[scenario.kind(node, asset)].pop(),
                    start_t,
                    birth_t,
                    failure_t,
                    rows=healthy + ill + 1,
                )
                repair = self._draw(scenario.life.repair_h, rng)
                start_t = failure_t + repair * scenario.sample_s

    def _now(self, past: list[PlannedLife]) -> float:
        """Return a now so late that every machine's last repair is over before its life begins."""
        life, sample_s = self.scenario.life, self.scenario.sample_s
        ended_t = max((one.failure_t for one in past), default=self.scenario.start.timestamp())
        repair_h = life.repair_h[1] if past else 0.0
        longest = (life.healthy_h[1] + life.fault_h[1] + repair_h) * 3600
        return ended_t + (longest // sample_s + 1) * sample_s

    def _present(self, node: Node, now_t: float) -> Iterator[PlannedLife]:
        scenario = self.scenario
        ailing = {present.machine: present for present in node.present}
        kinds = self._deal_kinds(node, 1, "present")
        for asset in node.machines:
            rng = self._rng(asset, f"plan {scenario.lives}")
            healthy = self._draw(scenario.life.healthy_h, rng)
            ill = self._draw(scenario.life.fault_h, rng)
            kind = scenario.kind(node, asset)
            fault = kinds[kind].pop()
            if asset in ailing:
                fault = ailing[asset].fault
                left = max(round(ailing[asset].left_h * 3600 / scenario.sample_s), 1)
                age = healthy + ill - left
            else:
                age = max(int(rng.uniform(0.7, 1.0) * healthy), 1)  # before any fault is born
            start_t = now_t - age * scenario.sample_s
            birth_t = start_t + healthy * scenario.sample_s
            failure_t = birth_t + ill * scenario.sample_s
            yield PlannedLife(
                node.name,
                asset,
                kind,
                scenario.lives,
                "present",
                fault,
                start_t,
                birth_t,
                failure_t,
                rows=age + 1,
            )

    def _deal_kinds(self, node: Node, lives: int, what: str) -> dict[str, list[str]]:
        """Return the faults of ``lives`` lives of each machine, by kind of machine."""
        counts: dict[str, int] = {}
        for asset in node.machines:
            kind = self.scenario.kind(node, asset)
            counts[kind] = counts.get(kind, 0) + lives
        if len(counts) == 1:
            return {
                kind: self._deal(node, node.faults, count, what) for kind, count in counts.items()
            }
        dealt = {}
        for kind, count in counts.items():
            whose = f"{what} {kind}"
            can = [fault for fault in node.faults if fault in MACHINES[kind].faults]
            # Where there are fewer lives than faults, not always the first of them.
            order = self._rng(node.name, f"order {whose}").permutation(len(can))
            shares = {can[at]: node.faults[can[at]] for at in order}
            dealt[kind] = self._deal(node, shares, count, whose)
        return dealt

    def _deal(
        self, node: Node, faults: Mapping[FaultName, float], count: int, what: str
    ) -> list[str]:
        """Return ``count`` faults in the node's shares, as near as whole lives allow, shuffled."""
        shares = np.array(list(faults.values())) / sum(faults.values()) * count
        whole = np.floor(shares).astype(int)
        for at in np.argsort(whole - shares, kind="stable")[: count - whole.sum()]:
            whole[at] += 1
        dealt = [fault for fault, n in zip(faults, whole, strict=True) for _ in range(n)]
        order = self._rng(node.name, f"faults {what}").permutation(count)
        return [dealt[at] for at in order]

    def _draw(self, hours: Range, rng: np.random.Generator) -> int:
        """Draw a length in samples, at least one."""
        return max(round(rng.uniform(*hours) * 3600 / self.scenario.sample_s), 1)

    def _rng(self, name: str, what: str) -> np.random.Generator:
        """Return the generator of one thing: another for each seed, name and purpose."""
        digest = hashlib.sha256(f"{self.scenario.seed}/{name}/{what}".encode()).digest()
        return np.random.default_rng(int.from_bytes(digest[:16]))


def _rows(times: Floats, readings: Floats) -> Iterator[tuple[int, float, list[float]]]:
    """Yield number, time and values of each row; a piece at a time, for there are many machines."""
    for first in range(0, len(times), _PIECE):
        piece = slice(first, first + _PIECE)
        rows = zip(times[piece].tolist(), readings[piece].tolist(), strict=True)
        for at, (t, row) in enumerate(rows, first):
            yield at, t, row
