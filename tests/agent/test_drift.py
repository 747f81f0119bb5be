"""Drift: found soon, seldom for nothing, and the same however arrivals are cut."""

from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from agent.app import Engine
from agent.batch import Batch, Rows
from agent.config import AgentConfig, Keep, Node, Report
from agent.drift import BLOCK, Watch, distances
from contract.arrays import Floats
from contract.model_spec import Drift, Moments
from contract.report import Drifted, Health, cohort_drift, drift_of
from contract.spec import AssetClass, Channel

START_NS = 1_767_225_600 * 10**9
SPEC = Drift(warm=400)


def autocorrelated(rng: np.random.Generator, rows: int, columns: int, alike: float) -> Floats:
    noise = rng.normal(size=(rows, columns)) * np.sqrt(1 - alike**2)
    X = np.empty_like(noise)
    X[0] = rng.normal(size=columns)
    for t in range(1, rows):
        X[t] = alike * X[t - 1] + noise[t]
    return X


@pytest.mark.parametrize("alike", [0.0, 0.9])
def test_healthy_signals_that_are_alike_for_a_while_are_no_drift(alike: float) -> None:
    X = autocorrelated(np.random.default_rng(3), 4000, 100, alike)
    # 300,000 values: at most one in 10,000.
    assert len(Watch(Drift(), 100).push_rows(X)) <= 30


@pytest.mark.parametrize(
    ("change", "kind"),
    [(lambda x: x + 1.5, 0), (lambda x: x - 1.5, 1), (lambda x: x * 2.0, 2), (lambda x: x / 2, 3)],
)
def test_a_change_of_level_or_variance_is_found_and_named(change: object, kind: int) -> None:
    assert callable(change)
    X = np.random.default_rng(7).normal(size=(1400, 3))
    X[800:, 1] = change(X[800:, 1])
    found = [alarm for alarm in Watch(SPEC, 3).push_rows(X) if alarm.row >= 800]
    assert found
    assert found[0].column == 1
    assert found[0].kind == kind
    assert found[0].row < 1000
    assert {alarm.column for alarm in found} == {1}


def test_what_is_missing_or_never_moves_says_nothing() -> None:
    X = np.random.default_rng(1).normal(size=(2000, 3)) + 1e6
    X[::3, 0] = np.nan
    X[900:1000, 0] = np.nan
    X[:, 1] = 7.0
    X[:, 2] = np.nan
    assert Watch(SPEC, 3).push_rows(X) == []


def test_the_reference_does_not_learn_a_drift() -> None:
    X = np.random.default_rng(2).normal(size=(2400, 1))
    X[600:] += 1.5
    found = Watch(SPEC, 1).push_rows(X)
    # It is still there, and still said, 1,800 rows later.
    assert found[-1].row > 2300


def test_a_state_that_is_given_back_goes_on_to_the_last_bit() -> None:
    X = np.random.default_rng(5).normal(size=(1000, 4)) + np.linspace(0, 3, 1000)[:, None]
    X[::7, 2] = np.nan
    one, other = Watch(SPEC, 4), Watch(SPEC, 4)
    for at in range(0, 1000, 37):
        one.push_rows(X[at : at + 37])
    for row in X:
        other.push(row)
        state = other.arrays()
        other = Watch(SPEC, 4)
        assert other.fits(state)
        other.restore(state)
    assert {n: a.tobytes() for n, a in one.arrays().items()} == {
        n: a.tobytes() for n, a in other.arrays().items()
    }
    assert one.standing == other.standing != []


def test_one_signal_begins_anew_and_the_others_go_on() -> None:
    X = np.random.default_rng(5).normal(size=(800, 2))
    watch, alone = Watch(SPEC, 2), Watch(SPEC, 2)
    watch.push_rows(X[:600])
    alone.push_rows(X[:600])
    watch.forget(1)
    moved = X[600:] + np.array([2.0, 50.0])
    found = watch.push_rows(moved)
    assert {alarm.column for alarm in found} == {0}
    expected = [alarm for alarm in alone.push_rows(moved) if alarm.column == 0]
    assert found == expected != []


def test_the_inputs_are_held_against_their_beginning() -> None:
    rng = np.random.default_rng(1)
    watch = Watch(SPEC, 2)
    watch.push_rows(rng.normal(size=(400 + 2 * BLOCK, 2)))
    assert np.isnan(watch.psi).all()
    watch.push_rows(rng.normal(size=(400, 2)) + np.array([0.0, 1.0]))
    assert watch.psi[0] < 0.15
    assert watch.psi[1] > 0.5
    assert watch.ks[0] < 0.15
    assert watch.ks[1] > 0.3


def test_histograms_of_two_machines_add() -> None:
    one, two = np.array([5, 5, 0]), np.array([0, 10, 30])
    assert distances(one + two, one + two) == (0.0, 0.0)
    assert distances(one, two)[0] > 1.0


def test_what_drifted_is_told_as_far_as_one_machine_can_tell() -> None:
    flow, heat, score = Drifted("flow", "up"), Drifted("heat", "wider"), Drifted("", "up")
    rms, crest = Drifted("case.rms", "up"), Drifted("case.crest", "up")
    sensors = {"flow": "flow", "heat": "heat", "case.rms": "case", "case.crest": "case"}
    assert drift_of((), sensors) == ""
    assert drift_of((flow, score), sensors) == "sensor"
    assert drift_of((rms, crest), sensors) == "sensor"  # one burst's features
    assert drift_of((flow, heat), sensors) == "machine"
    assert drift_of((flow, rms), sensors) == "machine"
    assert drift_of((score,), sensors) == "score"
    assert drift_of((flow,), {"flow": "flow"}) == "unknown"


# -- in the pipeline ------------------------------------------------------------------------------

PUMP = AssetClass(
    "pump",
    tuple(Channel(name, "mm/s") for name in ("a", "b", "c")),
    stats=("last",),
    health=Moments(baseline=40, learn=60, on_delay=10**6),
    drift=SPEC,
)


def config_of(folder: Path, spec: AssetClass = PUMP) -> AgentConfig:
    return AgentConfig(
        (spec,),
        node=Node("node", state=str(folder)),
        keep=Keep(power_loss_safe=False),
        report=Report(health_every_s=0.0),
    )


def rows_of(asset: str, X: Floats, begin: int = 0) -> Rows:
    t_ns = START_NS + 10**9 * np.arange(begin, begin + len(X))
    return Rows(asset, t_ns, X, np.arange(len(X)), np.ones(len(X), dtype=np.bool_))


def run(folder: Path, X: Floats, cuts: list[int], kills: set[int]) -> tuple[list[Health], object]:
    said: list[Health] = []
    with ExitStack() as every:
        opened = every.enter_context(ExitStack())
        engine = Engine(config_of(folder), opened)
        ends = [0, *cuts, len(X)]
        for number, (begin, end) in enumerate(pairwise(ends)):
            batch = Batch([rows_of("pump-1", X[begin:end], begin)], [])
            said += [one for one in engine.process(batch) if isinstance(one, Health)]
            if number % 3 == 1:
                engine.checkpoint()
            if number in kills:
                opened.close()
                opened = every.enter_context(ExitStack())
                engine = Engine(config_of(folder), opened)
        _, arrays = engine.pipeline.arrays()
        return said, {name: array.tobytes() for name, array in arrays.items()}


def test_a_drift_is_in_the_health_report_and_says_where(tmp_path: Path) -> None:
    X = np.random.default_rng(7).normal(size=(1200, 3))
    X[700:, 1] += 2.0
    said, _ = run(tmp_path, X, [400], set())
    assert all(report.drift == () for report in said[:700])
    (first,) = [report for report in said if report.drift][:1]
    assert first.drift_of == "sensor"
    assert first.drift[0].channel == "b"
    assert first.drift[0].change == "up"
    assert first.t < START_NS / 1e9 + 760
    assert any(one.psi is not None and one.psi > 0.5 for one in said[-1].drift)


def test_many_channels_are_the_machine(tmp_path: Path) -> None:
    X = np.random.default_rng(1).normal(size=(1000, 3))
    X[700:] += 2.0
    said, _ = run(tmp_path, X, [], set())
    assert said[-1].drift_of == "machine"
    assert {one.channel for one in said[-1].drift} >= {"a", "b", "c"}


def test_how_arrivals_are_cut_and_kills_make_no_difference_to_drift(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    X = rng.normal(size=(900, 3))
    X[600:, 2] += 1.0
    X[rng.random(X.shape) < 0.02] = np.nan
    expected = run(tmp_path / "whole", X, [], set())
    cuts = sorted(set(rng.integers(1, 900, 40).tolist()))
    assert run(tmp_path / "cut", X, cuts, {3, 11, 12, 30}) == expected
    assert any(report.drift for report in expected[0])


def test_watching_can_be_switched_on_later(tmp_path: Path) -> None:
    from msgspec.structs import replace

    X = np.random.default_rng(1).normal(size=(100, 3))
    for spec in (replace(PUMP, drift=None), PUMP, replace(PUMP, drift=Drift(warm=300, order=2))):
        with ExitStack() as opened:
            engine = Engine(config_of(tmp_path, spec), opened)
            known = engine.pipeline.assets.get("pump-1")
            assert known is None or known.life == 0
            before = engine.pipeline.counts.vectors
            engine.process(Batch([rows_of("pump-1", X, before)], []))
            engine.checkpoint()
    assert before == 200


def test_the_same_drift_on_most_machines_is_the_cohorts(tmp_path: Path) -> None:
    X = np.random.default_rng(1).normal(size=(1000, 3))
    X[700:, 0] += 2.0
    calm = np.random.default_rng(2).normal(size=(1000, 3))
    with ExitStack() as opened:
        engine = Engine(config_of(tmp_path), opened)
        newest: dict[str, Health] = {}
        for name, values in (("p1", X), ("p2", X), ("p3", calm)):
            for one in engine.process(Batch([rows_of(name, values)], [])):
                assert isinstance(one, Health)
                newest[name] = one
    assert cohort_drift(list(newest.values())) == ("a",)
    assert cohort_drift([newest["p1"], newest["p3"], newest["p3"]]) == ()
    assert cohort_drift([newest["p1"], newest["p2"]]) == ()
