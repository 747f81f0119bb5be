"""What every model must do, written once: health's families, kinds of faults and remaining life."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from agent.models.healthy import learnt, nothing
from contract.arrays import Arrays, Floats
from contract.errors import ContractError
from contract.model_spec import (
    Chart,
    Clusters,
    Extremes,
    HalfSpace,
    Health,
    Lagged,
    Moments,
    Network,
)
from contract.models import healthy
from contract.models.naive_bayes import KindMoments
from contract.models.ridge import GramSums

SIZE = 4
SPECS: list[Health] = [
    Moments(),
    Moments(variance=0.5, alarm_rate=0.05),
    Chart(),
    Chart(alarm_rate=0.05),
    Chart(power=2),
    Chart(power=4, limit=4.0),
    HalfSpace(),
    HalfSpace(trees=40, depth=6, seed=3),
    HalfSpace(trees=60, depth=10),
    Clusters(),
    Clusters(clusters=2, seed=5),
    Network(),
    Network(hidden=(6, 3, 6), rate=3e-3, alpha=1e-3, epochs=10, block=32, seed=2),
    Extremes(),
    Extremes(tail=0.02, margin=1.2),
    Lagged(),
    Lagged(lags=4, weights=(0.3,), penalty=0.01, shrink=0.2, alarm_rate=0.01),
    Network(estimator="SGDOneClassSVM"),
    Network(estimator="SGDOneClassSVM", random=200, alpha=0.05, rate=3e-3, epochs=5, seed=4),
]
EXACT = (Moments, Chart, HalfSpace, Extremes)
"""Whose merge is the same as learning all rows in one place."""


def named(spec: Health) -> str:
    told = {k: v for k, v in vars_of(spec).items() if v != vars_of(type(spec)())[k]}
    return " ".join([type(spec).__name__, *(f"{k}={v}" for k, v in told.items())])


def vars_of(spec: Health) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in spec.__struct_fields__}


def rows(seed: int, n: int = 200) -> Floats:
    """Return healthy rows: correlated, of unit spread, as standardised vectors are."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(n, 2))
    mixed = hidden @ np.array([[1.0, 0.8, 0.0, 0.3], [0.0, 0.5, 1.0, -0.4]])
    return np.asarray((mixed + 0.3 * rng.normal(size=(n, SIZE))) / 1.1)


def score(model: healthy.Scorer, Z: Floats) -> Floats:
    """Score rows that follow each other."""
    return model.score_rows(healthy.seen(model, Z))


def rows_of(spec: Health, seed: int, n: int = 200) -> Floats:
    """Return healthy rows as a model of the family is to learn them."""
    return healthy.shown(spec, rows(seed, n))


def same(one: Arrays, other: Arrays) -> None:
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_allclose(array, other[name], rtol=1e-9, atol=1e-9, err_msg=name)


every = pytest.mark.parametrize("spec", SPECS, ids=named)


@every
def test_state_and_model_come_back_as_they_were(spec: Health) -> None:
    state = nothing(spec, SIZE).learn(rows_of(spec, 1))
    again = learnt(spec, state.arrays("x/"), "x/")
    for name, array in again.arrays("x/").items():
        assert np.array_equal(array, state.arrays("x/")[name]), name
    # It learns on as if nothing had been between.
    Z, more = rows(2, 30), rows_of(spec, 2, 30)
    for name, array in again.learn(more).arrays("").items():
        assert np.array_equal(array, state.learn(more).arrays("")[name]), name
    model = state.solve()
    back = healthy.scorer(spec, model.arrays("m/"), "m/")
    assert back is not None
    assert np.array_equal(score(back, Z), score(model, Z))
    assert healthy.scorer(spec, {}, "m/") is None


@every
def test_what_leaves_the_device_fits_what_the_server_expects(spec: Health) -> None:
    state = learnt(spec, nothing(spec, SIZE).learn(rows_of(spec, 1)).arrays(""), "")
    told = healthy.learnt(spec, state.arrays(""), "").arrays("")
    expected = healthy.nothing(spec, SIZE).arrays("")
    assert {n: a.shape for n, a in told.items()} == {n: a.shape for n, a in expected.items()}
    assert healthy.learnt(spec, told, "").problem() == ""
    # No row of what was measured is in it.
    assert "block" not in told


@every
def test_scoring_changes_nothing_and_no_row_depends_on_the_others(spec: Health) -> None:
    state = nothing(spec, SIZE).learn(rows_of(spec, 1))
    before = state.arrays("")
    model = state.solve()
    Z = healthy.seen(model, rows(3, 50))
    together = model.score_rows(Z)
    alone = np.array([model.score_rows(z[None, :])[0] for z in Z])
    assert np.array_equal(together, alone)
    assert np.array_equal(together, model.score_rows(Z))
    for name, array in state.arrays("").items():
        assert np.array_equal(array, before[name])


@every
def test_what_is_far_from_healthy_scores_high_and_what_is_healthy_low(spec: Health) -> None:
    state = nothing(spec, SIZE)
    for begin in range(0, 600, 40):
        state = state.learn(rows_of(spec, begin, 40))
    model = state.solve()
    usual = score(model, rows(9999, 500))
    far = rows(9998, 100)
    far[:, 0] += 8.0
    unlike = score(model, far)
    assert np.median(unlike) > np.quantile(usual, 0.98)
    # The limit is where it is said to be, before it is corrected by what is seen.
    assert np.mean(usual > 1.0) < 2 * spec.alarm_rate + 0.05
    shares = model.shares(healthy.seen(model, far)[40])
    assert shares.shape == (SIZE,)
    assert shares.argmax() == 0 or isinstance(spec, Moments)
    assert abs(shares.sum() - 1.0) < 1e-9


@every
def test_merging_is_the_same_in_any_order_and_grouping(spec: Health) -> None:
    a, b, c = (healthy_of(spec, seed) for seed in (1, 2, 3))
    same(a.merge(b).arrays(""), b.merge(a).arrays(""))
    same(a.merge(b).merge(c).arrays(""), a.merge(b.merge(c)).arrays(""))


@every
def test_what_was_merged_can_be_taken_out_again(spec: Health) -> None:
    a, b = (healthy_of(spec, seed) for seed in (1, 2))
    same(a.merge(b).withdraw(b).arrays(""), a.arrays(""))
    with pytest.raises(ContractError, match="more rows than were merged"):
        a.withdraw(a.merge(b))


@pytest.mark.parametrize("spec", [s for s in SPECS if isinstance(s, EXACT)], ids=named)
def test_a_merge_of_sums_is_what_all_rows_in_one_place_give(spec: Health) -> None:
    parts = healthy_of(spec, 1).merge(healthy_of(spec, 2))
    whole = nothing(spec, SIZE).learn(np.concatenate([rows(1), rows(2)]))
    same(parts.arrays(""), whole.arrays(""))


@every
def test_what_is_no_number_is_refused_and_an_absent_column_is_not(spec: Health) -> None:
    Z = rows_of(spec, 1, 64)
    state = nothing(spec, SIZE).learn(Z)
    before = state.arrays("")
    for wrong in (np.nan, np.inf):
        bad = rows_of(spec, 2, 20)
        bad[3, 1] = wrong
        with pytest.raises(ContractError, match="row 3, column 1"):
            state.learn(bad)
    without = rows_of(spec, 2, 64)
    without[:, 2] = np.nan
    for array in state.learn(without).arrays("").values():
        assert np.isfinite(array).all()
    for name, array in state.arrays("").items():
        assert np.array_equal(array, before[name])


@every
def test_what_is_forgotten_counts_for_less(spec: Health) -> None:
    """A machine that has come to vary more is judged by how it is now."""
    state = nothing(spec, SIZE)
    for seed in range(4):
        state = state.learn(rows_of(spec, seed, 64))
    n = state.n
    assert state.decay(0.25).n == pytest.approx(n / 4)
    moved = state
    for seed in range(12):
        moved = moved.decay(0.7).learn(3.0 * rows_of(spec, seed, 64))
    here = score(moved.solve(), 3.0 * rows(77, 200))
    there = score(state.solve(), 3.0 * rows(77, 200))
    fixed = isinstance(spec, Chart) and spec.limit
    assert np.median(here) < np.median(there) or fixed


def healthy_of(spec: Health, seed: int) -> Any:
    """Return what a device would send: of a network without the rows that wait."""
    state = nothing(spec, SIZE).learn(rows_of(spec, seed))
    return healthy.learnt(spec, state.arrays(""), "")


# -- sums of labelled rows ------------------------------------------------------------------------


@dataclass(frozen=True)
class Labelled:
    name: str
    of: Callable[[Floats, np.ndarray], Any]


LABELLED = [
    Labelled("naive bayes", lambda Z, y: KindMoments.empty(SIZE, 3).learn(Z, y)),
    Labelled("gram", lambda Z, y: GramSums.of(Z, y.astype(np.float64))),
    Labelled("gram of kinds", lambda Z, y: GramSums.of(Z, np.eye(3)[y])),
]


@pytest.mark.parametrize("kind", LABELLED, ids=lambda one: one.name)
def test_sums_of_labelled_rows_add_and_can_be_taken_out(kind: Labelled) -> None:
    y = np.arange(200) % 3
    a, b = kind.of(rows(1), y), kind.of(rows(2), y)
    whole = kind.of(np.concatenate([rows(1), rows(2)]), np.concatenate([y, y]))
    same(a.merge(b).arrays(""), whole.arrays(""))
    same(b.merge(a).arrays(""), whole.arrays(""))
    same(whole.withdraw(b).arrays(""), a.arrays(""))
    same(a.decay(0.5).merge(a.decay(0.5)).arrays(""), a.arrays(""))
