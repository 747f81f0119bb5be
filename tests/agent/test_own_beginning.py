"""What an asset is held against: its own beginning, and each option of it."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from agent.group import Group
from agent.health import AssetHealth, Cohort
from contract.arrays import Floats
from contract.model_spec import Chart, Extremes, Health, Lagged, Moments
from contract.spec import AssetClass, Channel

BASELINE = 40


def fan(health: Health, *, wander: float = 1.0) -> AssetClass:
    channels = (Channel("flow", "m3/h", wander=wander), Channel("speed", "rpm"))
    return AssetClass("fan", channels, stats=("mean_8",), health=health)


def chart(**options: Any) -> Chart:
    return Chart(**{"baseline": BASELINE, "learn": BASELINE, "smoothing": 1.0, **options})


class Machine:
    """One asset with its class, vector by vector."""

    def __init__(self, spec: AssetClass) -> None:
        self.spec = spec
        self.cohort = Cohort(spec)
        self.health = AssetHealth(spec)

    def live(self, X: Floats, rows: Floats | None = None) -> list[float | None]:
        rows = X if rows is None else rows
        said = []
        for x, row in zip(X, rows, strict=True):
            judged = self.health.push(x, row, self.cohort, self.cohort.judge())
            said.append(judged.score)
        return said

    def own(self) -> tuple[Floats, Floats]:
        mean, scale = self.health.arrays()["health/own"]
        return mean[0], scale[0]


def steady(seed: int = 1, n: int = BASELINE) -> Floats:
    return np.random.default_rng(seed).normal([5.0, 900.0], [0.5, 3.0], size=(n, 2))


def test_the_own_mean_is_that_of_the_most_recent_vectors_and_the_spread_that_of_all() -> None:
    X = steady() + np.linspace(0.0, 4.0, BASELINE)[:, None]
    whole, recent = Machine(fan(chart())), Machine(fan(chart(recent=10)))
    for machine in (whole, recent):
        machine.live(X)
    assert np.allclose(whole.own()[0], X.mean(axis=0))
    assert np.allclose(recent.own()[0], X[-10:].mean(axis=0))
    assert np.array_equal(whole.own()[1], recent.own()[1])


def test_a_floor_adds_what_the_mean_of_independent_readings_would_vary() -> None:
    X, rows = steady(1), steady(2)
    X[:, 0] = 5.0 + 1e-3 * X[:, 0]  # a mean that hardly moved while readings did
    plain, floored = Machine(fan(chart())), Machine(fan(chart(floor=2.0)))
    for machine in (plain, floored):
        machine.live(X, rows)
    expected = np.sqrt(X.var(axis=0) + 2.0 * rows.var(axis=0) / 8.0)
    assert np.allclose(floored.own()[1], expected)
    assert floored.own()[1][0] > 100 * plain.own()[1][0]


def test_a_floor_knows_nothing_of_what_is_no_mean() -> None:
    spec = msgspec.structs.replace(fan(chart(floor=1.0)), stats=("max_8",))
    machine = Machine(spec)
    X = steady()
    machine.live(X)
    assert np.allclose(machine.own()[1], X.std(axis=0))


def test_a_channel_that_wanders_is_held_to_less() -> None:
    X = steady()
    strict, lenient = Machine(fan(chart())), Machine(fan(chart(), wander=3.0))
    for machine in (strict, lenient):
        machine.live(X)
    assert np.allclose(lenient.own()[1], strict.own()[1] * [3.0, 1.0])
    far = X.mean(axis=0) + np.array([6 * 0.5, 0.0])
    alarms = [machine.live(far[None, :])[0] for machine in (strict, lenient)]
    assert (alarms[0] or 0.0) > 1.0 > (alarms[1] or 0.0)


def test_the_own_mean_follows_what_is_near_and_nothing_that_is_far() -> None:
    machine = Machine(fan(chart(follow=20.0, limit=4.0)))
    machine.live(steady())
    before = machine.own()[0].copy()
    moved = steady(3, 400) + np.array([0.4, 30.0])  # the flow a little, the speed ten deviations
    machine.live(moved)
    after = machine.own()[0]
    assert after[0] - before[0] > 0.3
    assert after[1] == before[1]
    stays = Machine(fan(chart(limit=4.0)))
    stays.live(steady())
    stays.live(moved)
    assert np.array_equal(stays.own()[0], before)


def test_what_must_not_be_learnt_from_moves_nothing() -> None:
    machine = Machine(fan(chart(follow=20.0, limit=4.0)))
    machine.live(steady())
    before = machine.own()[0].copy()
    X = steady(3, 30) + np.array([0.4, 0.0])
    judge = machine.cohort.judge()
    machine.health.judge_settled(X, X, judge, np.ones(30, dtype=np.bool_))
    assert np.array_equal(machine.own()[0], before)
    machine.health.judge_settled(X, X, judge, None)
    assert machine.own()[0][0] > before[0]


def test_a_fixed_limit_is_in_deviations_of_the_own_beginning() -> None:
    machine = Machine(fan(chart(limit=4.0)))
    X = steady()
    machine.live(X)
    mean, scale = machine.own()
    (score,) = machine.live((mean + [6.0, 0.0] * scale)[None, :])
    assert score == pytest.approx(1.5)


@pytest.mark.parametrize(("power", "expected"), [(0, 4.0), (2, 5.0), (4, 337.0**0.25)])
def test_deviations_of_several_columns_come_together_by_a_power(
    power: int, expected: float
) -> None:
    machine = Machine(fan(chart(limit=1.0, power=power)))
    machine.live(steady())
    mean, scale = machine.own()
    (score,) = machine.live((mean + [3.0, -4.0] * scale)[None, :])
    assert score == pytest.approx(expected)


OPTIONS: list[Health] = [
    chart(recent=10, floor=1.0, follow=30.0, power=4, limit=3.0),
    Lagged(baseline=BASELINE, learn=200, lags=2),
    Extremes(baseline=BASELINE, learn=1000, guarded=False, memory=50),
    Moments(baseline=BASELINE, learn=60, follow=30.0, floor=0.5, recent=20),
]


@pytest.mark.parametrize("health", OPTIONS, ids=lambda h: type(h).__name__)
@pytest.mark.parametrize("at", [20, 45, 90])
def test_a_machine_goes_on_from_its_state_as_if_nothing_had_been_between(
    health: Health, at: int
) -> None:
    spec = fan(health, wander=1.5)
    X = steady(1, 140)
    X[100:] += [3.0, 0.0]
    whole = Machine(spec)
    expected = whole.live(X)
    first, second = Machine(spec), Machine(spec)
    said = first.live(X[:at])
    second.cohort.restore(first.cohort.arrays())
    second.health.restore(first.health.arrays())
    assert said + second.live(X[at:]) == expected
    assert any(score is not None and score > 1.0 for score in expected[100:])
    shapes = [
        {n: a.shape for n, a in one.health.arrays().items()} for one in (whole, Machine(spec))
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("health", [OPTIONS[0], OPTIONS[3]], ids=["chart", "moments"])
def test_many_at_once_are_judged_as_one_by_one(health: Health) -> None:
    X = steady(1, 140)
    one, many = Machine(fan(health)), Machine(fan(health))
    for machine in (one, many):
        machine.live(X[:80])
    expected = one.live(X[80:])
    judged = many.health.judge_settled(X[80:], X[80:], many.cohort.judge())
    assert [each.score for each in judged] == expected
    for name, array in one.health.arrays().items():
        assert np.array_equal(array, many.health.arrays()[name]), name


def test_what_comes_unannounced_is_found_where_its_size_says_nothing() -> None:
    rng = np.random.default_rng(4)
    noise = rng.normal(size=(900, 2))
    X = np.zeros((900, 2))
    for t in range(1, 900):
        X[t] = 0.97 * X[t - 1] + 0.1 * noise[t]  # it strays slowly, and far
    X[700:, 0] = X[700:, 0] + 0.8 * (-1.0) ** np.arange(200)
    options: dict[str, Any] = {"baseline": 400, "learn": 400, "smoothing": 1.0, "alarm_rate": 0.01}
    lagged = Machine(fan(Lagged(**options)))
    size = Machine(fan(Moments(**options)))
    by_lag, by_size = (np.array(machine.live(X)[400:], dtype=float) for machine in (lagged, size))
    assert np.mean(by_lag[:300] > 1.0) < 0.03
    assert np.mean(by_lag[300:] > 1.0) > 0.95
    assert np.mean(by_size[300:] > 1.0) < 0.7


def test_a_silence_ends_what_is_remembered() -> None:
    machine = Machine(fan(OPTIONS[1]))
    X = steady(1, 60)
    machine.live(X)
    assert machine.health.arrays()["health/memory"][0] == 3.0
    machine.live(np.full((1, 2), np.nan))
    assert not machine.health.arrays()["health/memory"].any()
    machine.live(X[:1])
    assert machine.health.arrays()["health/memory"][0] == 1.0


def test_what_is_rare_is_news_once_where_all_is_learnt() -> None:
    X = steady(1, 400)
    X[200:] += [20.0, 0.0]
    learns = Machine(fan(OPTIONS[2])).live(X)
    guards = Machine(fan(msgspec.structs.replace(OPTIONS[2], guarded=True))).live(X)
    assert (learns[202] or 0.0) > 1.0
    assert (learns[-1] or 9.0) < 1.0
    assert (guards[-1] or 0.0) > 1.0


def test_options_that_are_not_used_leave_the_digest_as_it_was() -> None:
    plain = fan(Chart())
    assert [*Chart().shared()] == ["chart", {"baseline": 30}]
    other = [
        fan(Chart(recent=4)),
        fan(Chart(floor=1.0)),
        fan(Chart(follow=50.0)),
        fan(Chart(power=4)),
        fan(Chart(limit=3.0)),
        fan(Chart(), wander=2.0),
    ]
    digests = {spec.digest() for spec in (plain, *other)}
    assert len(digests) == 1 + len(other)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"kind": "chart", "recent": 31}, "recent"),
        ({"kind": "moments", "follow": 0.5}, "follow"),
        ({"kind": "lagged", "lags": 16, "baseline": 30}, "baseline"),
    ],
)
def test_settings_that_cannot_be_are_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=problem):
        msgspec.convert(options, Health)


def test_a_false_alarm_counts_for_a_model_of_what_follows_and_teaches_it_nothing(
    tmp_path: Path,
) -> None:
    spec = AssetClass(
        "pump", (Channel("flow", "l/s"), Channel("heat", "degC")), stats=("last",), health=Lagged()
    )
    group = Group(spec, tmp_path, sklearn=False)
    before = group.cohort.healthy.n
    group.acquit(np.zeros((3, 2)), np.array([1.5, 1.6, 1.7]), 2)
    assert group.cohort.healthy.n == before
    assert group.cohort.scores.sum() == 6
