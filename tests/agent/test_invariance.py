"""However arrivals are cut into batches, and wherever a device is killed: the same, bit for bit."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from agent.app import Engine
from agent.batch import GONE, Batch, Clock, Event, Rows, Shot
from agent.clock import AHEAD_NS, DeviceClock
from agent.config import AgentConfig, Keep, Node, Report
from agent.pipeline import Outcome, Pipeline
from agent.store import Store
from contract.arrays import Floats
from contract.model_spec import Chart, Lagged, Moments, Ridge
from contract.release import Release
from contract.report import Alert, Health
from contract.spec import AssetClass, Bearing, Channel, Clustered, Declared, Function, Waveform

START_NS = 1_767_225_600 * 10**9
S_NS = 10**9

FUNCTIONS = '''
import numpy as np

def swing(rows):
    """Largest less least; NaN where nothing is known, and now and then a failure."""
    if np.isnan(rows).all():
        return float("nan")
    if np.nanmax(rows) > 60.0:
        raise ValueError("too warm for me")
    return float(np.nanmax(rows) - np.nanmin(rows))
'''

QUICK = Moments(baseline=6, learn=10, on_delay=2, off_delay=2, smoothing=0.5, alarm_rate=0.05)

PUMP = AssetClass(
    "pump",
    (
        Channel("vibration", "mm/s", high=40.0, step_per_s=3.0, clip_high=30.0),
        Channel("temperature", "degC", flat_s=60.0),
        Channel("speed", "rpm", low=0.0, every_s=10.0),
    ),
    functions=(Function("swing", "own:swing", channels=("temperature",), rows=4),),
    regimes=Clustered(("speed",), regimes=2),
    stats=("last", "mean_3", "std_4", "ewma_3", "dev_5", "mean_all"),
    hop=2,
    warmup=3,
    cap_h=1.0,
    health=msgspec.structs.replace(QUICK, stats=("mean_3", "std_4", "swing")),
    rul=(Ridge(random=4),),
    alert_rul_h=0.02,
    holdout=2,
)
FAN = AssetClass(
    "fan",
    (
        Channel("speed", "rpm", low=0.0, step_per_s=400.0, every_s=10.0, resample="linear"),
        Channel("load", "kW", high=90.0, flat_s=80.0, resample="mean", hold_s=60.0),
    ),
    waveforms=(
        Waveform(
            "drive",
            "m/s2",
            2560.0,
            samples=256,
            features=("rms", "kurtosis", "bpfo"),
            clip=8.0,
            bearing=Bearing(8, 8.0, 40.0),
            speed="speed",
        ),
        Waveform("free", "m/s2", 2560.0, samples=128, features=("peak",), high=9.0),
    ),
    regimes=Declared({"speed": (1000.0,)}),
    every_s=10.0,
    wait_s=15.0,
    stats=("mean_2", "max_3"),
    health=QUICK,
)
GEAR = AssetClass(
    "gear",
    waveforms=(Waveform("case", "m/s2", 2560.0, samples=64, features=("rms", "crest"), high=9.0),),
    stats=("mean_2",),
    health=Lagged(
        baseline=6,
        learn=30,
        lags=1,
        weights=(0.5,),
        on_delay=2,
        off_delay=2,
        smoothing=0.5,
        alarm_rate=0.05,
    ),
)
MIXED = AssetClass(
    "mixed",
    (Channel("flow", "m3/h", high=30.0, wander=1.5), Channel("speed", "rpm")),
    waveforms=(
        Waveform(
            "case",
            "m/s2",
            2560.0,
            samples=256,
            features=("rms", "bpfi"),
            bearing=Bearing(8, 8.0, 40.0),
            speed="speed",
        ),
    ),
    stats=("mean_6", "max_4"),
    hop=3,
    health=Chart(
        baseline=6,
        learn=10,
        recent=3,
        floor=1.0,
        follow=8.0,
        power=4,
        limit=3.0,
        on_delay=2,
        off_delay=2,
    ),
)
CLASSES = {one.name: one for one in (PUMP, FAN, GEAR, MIXED)}
ASSETS = ("pump-1", "pump-2", "fan-1", "fan-2", "gear-1", "mixed-1")


LATE = ("fan-2", 1, True)


class Part(NamedTuple):
    """Rows of one asset, within a message."""

    asset: str
    t_ns: NDArray[np.int64]
    values: Floats
    whole: bool


class Ticked(NamedTuple):
    """What the device's clock said as a message came."""

    clock: Clock


Message = list[Part | Shot | Event | Ticked]
"""What one message said; positions are those of the batch it will be in."""


class Story:
    """What machines say: in and out of order, good and bad, whole and in parts; and how they end.

    The device's clock is ahead for a while; the mixed machine and the gear bear its time. A
    sender's clock is ahead for a while, too, and another's falls back to 1970.

    ``hours`` is the number of rounds, ten seconds each.
    """

    def __init__(self, seed: int, rounds: int) -> None:
        self._rng = np.random.default_rng(seed)
        self.told: list[Message] = []
        at_ns: list[int] = []
        for step in range(rounds):
            for asset in self._rng.permutation(ASSETS).tolist():
                self._say(asset, step)
            if self._often(0.2):  # a message of several machines, the later name first
                self.told.append(
                    [*self._row("pump-2", 10 * step + 5), *self._row("pump-1", 10 * step + 5)]
                )
            now_ns = self._ns(10.0 * step + self._ahead(step))
            at_ns += [now_ns] * (len(self.told) - len(at_ns))
        self.told = [[*m, Ticked(c)] for m, c in zip(self.told, self._clock(at_ns), strict=True)]

    def _clock(self, at_ns: list[int]) -> Iterator[Clock]:
        clock = DeviceClock(10**18, is_set=lambda: True)
        for message, at in zip(self.told, at_ns, strict=True):
            clock.meet(0, "", at)
            for one in message:
                times = one.t_ns.tolist() if isinstance(one, Part) else [getattr(one, "t_ns", 0)]
                if max(times) > at + AHEAD_NS:
                    clock.check(0, "", max(times), at)
            yield clock.taken()

    @staticmethod
    def _ahead(step: int) -> float:
        return 600.0 if 20 <= step < 24 else 0.0

    def _often(self, share: float) -> bool:
        return bool(self._rng.random() < share)

    def _say(self, asset: str, step: int) -> None:
        kind = asset.partition("-")[0]
        # A clock with a jitter, late readings, and a long silence.
        second = 10.0 * step + (300.0 if step > 40 else 0.0)
        if self._often(0.1):
            second += self._rng.normal() * 8.0
        if kind in {"mixed", "gear"}:
            second += self._ahead(step)
        if asset in {"pump-2", "fan-1"} and 8 <= step < 11:
            second += 400.0
        if asset == "fan-2" and 44 <= step < 56:
            second -= 86_400_000.0
        waves = CLASSES[kind].waveforms
        for wave in range(len(waves)):
            # One speaks only when all else of its asset has been learnt.
            if kind == "gear" or (self._often(0.5) and (asset, wave, step < 30) != LATE):
                self.told.append([self._burst(asset, wave, second, step)])
        if kind != "gear":
            if self._often(0.3):
                self._one_by_one(asset, second)
            elif self._often(0.1):
                rows = [self._row(asset, second + k)[0] for k in range(4)]
                table = [np.concatenate(part) for part in zip(*[r[1:3] for r in rows], strict=True)]
                self.told.append([Part(asset, table[0], table[1], whole=True)])
            else:
                self.told.append([*self._row(asset, second)])
        if self._often(0.08):
            self.told.append(self.told[-1 - int(self._rng.integers(min(6, len(self.told))))])
        if self._often(0.02):
            event = str(self._rng.choice(["failed", "failed", "maintained", GONE, GONE]))
            self.told.append([Event(0, asset, self._ns(second), event)])

    def _ns(self, second: float) -> int:
        return START_NS + round(second * 1000) * 10**6

    def _values(self, asset: str, second: float) -> list[float]:
        fast = int(second) // 150 % 2
        speed = (1500.0 if fast else 600.0) + self._rng.normal() * 5.0
        bad = 12.0 if int(second) % 400 > 330 else 0.0
        values = {
            "pump": [5.0 + fast + bad, 40.0, speed],
            "fan": [speed, 20.0 + 10 * fast + bad],
            "mixed": [10.0 + bad, speed],
        }[asset.partition("-")[0]]
        values = [value + float(self._rng.normal()) * 0.3 for value in values]
        for c in range(len(values)):
            if self._often(0.06):
                odd = [np.nan, 1e6, -1e6, np.inf, 30.5, 45.0, 20.0, 61.0]
                values[c] = float(self._rng.choice(odd))
        if asset == "pump-2" and int(second) % 300 > 180:
            values[1] = 41.0  # stuck
        return values

    def _row(self, asset: str, second: float) -> list[Part]:
        spec = CLASSES[asset.partition("-")[0]]
        values = np.full((1, len(spec.columns)), np.nan)
        own = self._values(asset, second)
        values[0, : len(own)] = own
        return [Part(asset, np.array([self._ns(second)]), values, whole=True)]

    def _one_by_one(self, asset: str, second: float) -> None:
        row = self._row(asset, second)[0]
        for c in self._rng.permutation(len(CLASSES[asset.partition("-")[0]].channels)).tolist():
            if self._often(0.85):
                values = np.full_like(row.values, np.nan)
                values[0, c] = row.values[0, c]
                self.told.append([Part(asset, row.t_ns, values, whole=False)])

    def _burst(self, asset: str, wave: int, second: float, step: int) -> Shot:
        spec = CLASSES[asset.partition("-")[0]].waveforms[wave]
        samples = self._rng.normal(size=spec.samples)
        if step % 30 > 24:
            samples[::16] += 5.0
        if self._often(0.1):
            samples[:4] = self._rng.choice([np.nan, np.inf, 20.0, 8.0])
        if self._often(0.03):
            samples[:] = 1.0
        t_ns = self._ns(second) + (3 * S_NS if self._often(0.5) else 0)
        return Shot(0, asset, wave, t_ns, samples.astype(np.float32))


def batch_of(messages: Sequence[Message]) -> Batch:
    """Return messages as the assembler puts them together."""
    parts: dict[str, list[tuple[int, Part]]] = {}
    events, shots = [], []
    back: list[tuple[int, int]] = []
    ahead = set()
    at_ns = 0
    for pos, message in enumerate(messages):
        for one in message:
            if isinstance(one, Part):
                parts.setdefault(one.asset, []).append((pos, one))
            elif isinstance(one, Shot):
                shots.append(one._replace(pos=pos))
            elif isinstance(one, Ticked):
                at_ns = one.clock.at_ns
                back += [(pos, to_ns) for _, to_ns in one.clock.back]
                ahead |= {pos for _ in one.clock.ahead}
            else:
                events.append(one._replace(pos=pos))
    rows = [
        Rows(
            asset,
            np.concatenate([part.t_ns for _, part in found]),
            np.concatenate([part.values for _, part in found]),
            np.concatenate([np.full(len(part.t_ns), pos) for pos, part in found]),
            np.concatenate([np.full(len(part.t_ns), part.whole) for _, part in found]),
        )
        for asset, found in parts.items()
    ]
    return Batch(rows, events, shots=shots, clock=Clock(at_ns, tuple(back), frozenset(ahead)))


def pieces(told: list[Message], cuts: set[int]) -> Iterator[list[Message]]:
    ends = [0, *sorted(cut for cut in cuts if cut < len(told)), len(told)]
    for begin, end in pairwise(ends):
        yield told[begin:end]


@contextmanager
def a_config(*, every_s: float = 0.0, waveforms: bool = True) -> Iterator[AgentConfig]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "own.py").write_text(FUNCTIONS)
        yield AgentConfig(
            tuple(CLASSES.values()),
            node=Node("node", state=str(folder / "state")),
            functions=str(folder),
            assets={f"{kind}-*": kind for kind in CLASSES},
            keep=Keep(power_loss_safe=False, waveforms=waveforms),
            report=Report(health_every_s=every_s),
        )


def no_release(_: object) -> Release:
    raise AssertionError("nothing was released")


State = tuple[object, dict[str, bytes]]


def state_of(pipeline: Pipeline) -> State:
    head, arrays = pipeline.arrays()
    return head, {
        name: f"{array.dtype} {array.shape} ".encode() + array.tobytes()
        for name, array in arrays.items()
    }


class Run(NamedTuple):
    """What was said, what the pipeline is in the end, and what is in the store."""

    said: list[Outcome]
    state: State
    kept: list[object]


def without_store(config: AgentConfig, batches: Iterator[list[Message]]) -> Run:
    """Run a pipeline alone; the state is taken and given back once in a while."""
    with ExitStack() as opened:
        store = Store(config.state, config.keep)
        opened.callback(store.close)
        pipeline = Pipeline(config, store, no_release)
        said: list[Outcome] = []
        for number, messages in enumerate(batches):
            store.begin()
            said += pipeline.process(batch_of(messages))
            store.commit()
            if number % 5 == 4:
                restored = Pipeline(config, store, no_release)
                restored.restore(*pipeline.arrays())
                pipeline = restored
        return Run(said, state_of(pipeline), kept_in(store))


def kept_in(store: Store) -> list[object]:
    rows = store.database.rows
    return [
        rows("SELECT asset_class, asset, life, end_ns, heldout FROM life ORDER BY id"),
        rows("SELECT * FROM life_row ORDER BY asset, life, t_ns"),
        rows("SELECT * FROM ended ORDER BY id"),
    ]


def on_a_device(
    config: AgentConfig, batches: Iterator[list[Message]], kills: set[int], checkpoints: set[int]
) -> Run:
    """Run an engine on a real store, killed behind some batches."""
    with ExitStack() as every:
        opened = every.enter_context(ExitStack())
        engine = Engine(config, opened)
        said: list[Outcome] = []
        for number, messages in enumerate(batches):
            said += engine.process(batch_of(messages))
            if number in checkpoints:
                engine.checkpoint()
            if number in kills:
                opened.close()
                opened = every.enter_context(ExitStack())
                engine = Engine(config, opened)
        told = engine.store.database.rows("SELECT asset, kind, body FROM result ORDER BY id")
        assert [msgspec.json.decode(body, type=Health | Alert) for *_, body in told] == said
        return Run(said, state_of(engine.pipeline), [told, *kept_in(engine.store)])


def assert_alike(one: Run, other: Run) -> None:
    """Assert that two runs are the same; names what is not, which pytest would be long about."""
    for mine, yours in zip(one.said, other.said, strict=False):
        assert mine == yours
    assert len(one.said) == len(other.said)
    assert one.state[0] == other.state[0]
    assert one.state[1].keys() == other.state[1].keys()
    assert [n for n, found in one.state[1].items() if other.state[1][n] != found] == []
    assert one.kept == other.kept


CUTS = st.sets(st.integers(1, 900), max_size=120)
SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, cuts=CUTS, every_s=st.sampled_from([0.0, 35.0]))
def test_how_arrivals_are_cut_makes_no_difference(
    seed: int, cuts: set[int], every_s: float
) -> None:
    told = Story(seed, 60).told
    with a_config(every_s=every_s) as config:
        expected = without_store(config, pieces(told, set()))
    with a_config(every_s=every_s) as config:
        assert_alike(without_store(config, pieces(told, cuts)), expected)


@settings(max_examples=4, deadline=None)
@given(seed=SEEDS)
def test_one_by_one_is_the_same_as_all_at_once(seed: int) -> None:
    told = Story(seed, 60).told
    with a_config() as config:
        expected = without_store(config, pieces(told, set()))
    with a_config() as config:
        assert_alike(without_store(config, pieces(told, set(range(len(told))))), expected)


@settings(max_examples=10, deadline=None)
@given(
    seed=SEEDS,
    cuts=CUTS,
    kills=st.sets(st.integers(0, 40), min_size=1, max_size=5),
    checkpoints=st.sets(st.integers(0, 40), max_size=5),
    waveforms=st.booleans(),
    every_s=st.sampled_from([0.0, 35.0]),
)
def test_a_device_that_is_killed_says_and_becomes_what_one_does_that_never_is(
    seed: int,
    cuts: set[int],
    kills: set[int],
    checkpoints: set[int],
    waveforms: bool,  # hypothesis passes it by name
    every_s: float,
) -> None:
    told = Story(seed, 60).told
    with a_config(every_s=every_s) as config:
        expected = on_a_device(config, pieces(told, set()), set(), set())
    with a_config(every_s=every_s, waveforms=waveforms) as config:
        assert_alike(on_a_device(config, pieces(told, cuts), kills, checkpoints), expected)


def test_the_stories_are_ones_in_which_everything_happens() -> None:
    said: list[Outcome] = []
    marked: dict[str, int] = {}
    late = repeated = lives = 0
    for seed in range(3):
        with a_config() as config:
            run = without_store(config, pieces(Story(seed, 60).told, {100, 500}))
        said += run.said
        head = msgspec.convert(run.state[0], dict)
        for name, count in head["counts"]["marked"].items():
            marked[name] = marked.get(name, 0) + count
        late += head["counts"]["late"]
        repeated += head["counts"]["repeated"]
        lives += head["counts"]["lives"]
        assert head["counts"]["clock_steps"] >= 4
    alerts = [one for one in said if isinstance(one, Alert)]
    healths = [one for one in said if isinstance(one, Health)]
    assert {alert.state for alert in alerts} >= {"raised", "returned"}
    assert {alert.asset.partition("-")[0] for alert in alerts} >= {"pump", "fan", "gear"}
    for kind in CLASSES:
        scores = [one.score for one in healths if one.asset.startswith(kind)]
        assert None in scores
        assert any(score is not None for score in scores), kind
    assert any(one.rul_h is not None for one in healths)
    assert any("swing" in one.lacks for one in healths)
    fan = [one for one in healths if one.asset == "fan-2"]
    assert any("free.peak" in one.lacks and one.score is not None for one in fan)
    assert any(not one.lacks for one in fan)
    assert min(late, repeated, lives) > 0
    reasons = {name.rpartition(".")[2] for name in marked}
    everything = {"missing", "infinite", "low", "high", "step", "flat", "clipped"}
    assert reasons >= everything | {"gap", "jitter", "clock"}
    assert {name for name in marked if name.startswith("drive.")} >= {
        "drive.infinite",
        "drive.clipped",
        "drive.flat",
    }
    told = {mark for one in healths for mark in one.marks}
    assert told >= {"drive.clipped", "free.high", "vibration.step", "temperature.flat"}


@pytest.mark.parametrize("every_s", [0.0, 35.0])
def test_waveforms_left_out_of_the_journal_change_nothing(every_s: float) -> None:
    told = Story(11, 60).told
    runs = []
    for waveforms in (True, False):
        with a_config(every_s=every_s, waveforms=waveforms) as config:
            runs.append(on_a_device(config, pieces(told, {50, 120, 400}), {0, 1, 2}, {1}))
    assert_alike(*runs)


@pytest.mark.parametrize("checkpoints", [(), (2,), (3, 5), (2, 4, 6, 8)])
def test_a_replay_knows_lives_that_the_store_has_no_more_room_for(
    checkpoints: tuple[int, ...],
    configure: Callable[..., AgentConfig],
    device: Callable[[AgentConfig], Any],
) -> None:
    keep = Keep(power_loss_safe=False, lives=3)
    whole = configure("killed").asset_class[0]
    spec = msgspec.structs.replace(whole, max_life_rows=25, alert_rul_h=20.0)
    node = device(configure("killed", spec, keep=keep))
    steady = device(configure("steady", spec, keep=keep))
    for n in range(10):
        for one in (node, steady):
            one.wear_out("pump-1", n, begin=60 * n)
        if n in checkpoints:
            node.engine.checkpoint()
        node.kill()
        node = device(node.config)
        assert node.state() == steady.state()
    for one in (node, steady):
        one.engine.checkpoint()
        one.engine.store.seq += 1  # as if more had come: a checkpoint of nothing new is left out
        one.engine.checkpoint()
    tables = [
        one.engine.store.database.rows("SELECT * FROM life_row ORDER BY asset, life, t_ns")
        for one in (node, steady)
    ]
    assert tables[0] == tables[1]
    assert len(tables[0]) == 2 * 3 * 25
