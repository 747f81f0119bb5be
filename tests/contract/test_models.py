"""Sums merge exactly, in any order, and what was merged can be taken out again."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.arrays import Floats
from contract.errors import ContractError
from contract.model_spec import Ridge
from contract.models import histogram
from contract.models.moments import HealthModel, Moments
from contract.models.ridge import Basis as RidgeBasis
from contract.models.ridge import GramSums, RidgeModel, expand, projection

SIZE = 3
Sums = Moments | GramSums


def full(X: Floats) -> Sums:
    return Moments.of(X)


def diagonal(X: Floats) -> Sums:
    return Moments.of(X, diagonal=True)


def gram(X: Floats) -> Sums:
    return GramSums.of(X, X.sum(axis=1))


FAMILIES = [full, diagonal, gram]

rows = st.builds(
    lambda seed, n, offset: np.random.default_rng(seed).normal(offset, 1.0, (n, SIZE)),
    st.integers(0, 2**32 - 1),
    st.integers(0, 30),
    st.sampled_from([0.0, 1.0, 100.0]),
)


def parts(sums: Sums) -> list[Any]:
    return list(sums.arrays("").values())


def assert_same(one: Sums, other: Sums) -> None:
    for a, b in zip(parts(one), parts(other), strict=True):
        # To the rounding of the largest number that went in.
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9 * 100.0)


@pytest.mark.parametrize("of", FAMILIES)
@settings(max_examples=40, deadline=None)
@given(X=rows, Y=rows)
def test_a_merge_is_what_all_rows_together_give(of: Any, X: Floats, Y: Floats) -> None:
    assert_same(of(X).merge(of(Y)), of(np.concatenate([X, Y])))


@pytest.mark.parametrize("of", FAMILIES)
@settings(max_examples=40, deadline=None)
@given(X=rows, Y=rows)
def test_a_merge_is_the_same_either_way_round(of: Any, X: Floats, Y: Floats) -> None:
    assert_same(of(X).merge(of(Y)), of(Y).merge(of(X)))


@pytest.mark.parametrize("of", FAMILIES)
@settings(max_examples=40, deadline=None)
@given(X=rows, Y=rows, Z=rows)
def test_merges_can_be_grouped_at_will(of: Any, X: Floats, Y: Floats, Z: Floats) -> None:
    assert_same(of(X).merge(of(Y)).merge(of(Z)), of(X).merge(of(Y).merge(of(Z))))


@pytest.mark.parametrize("of", FAMILIES)
@settings(max_examples=40, deadline=None)
@given(X=rows, Y=rows)
def test_what_was_merged_can_be_withdrawn(of: Any, X: Floats, Y: Floats) -> None:
    left = of(X).merge(of(Y)).withdraw(of(Y))
    if len(X):
        assert_same(left, of(X))
    else:
        assert parts(left)[0].ravel()[0] == 0


@pytest.mark.parametrize("of", FAMILIES)
def test_more_than_was_merged_cannot_be_withdrawn(of: Any) -> None:
    X = np.ones((3, SIZE))
    with pytest.raises(ContractError, match="cannot withdraw more"):
        of(X).withdraw(of(np.ones((4, SIZE))))


@pytest.mark.parametrize("of", FAMILIES)
@settings(max_examples=20, deadline=None)
@given(X=rows)
def test_sums_come_back_from_their_arrays_bit_for_bit(of: Any, X: Floats) -> None:
    sums = of(X)
    back = type(sums).from_arrays(sums.arrays("a/"), "a/")
    for a, b in zip(parts(back), parts(sums), strict=True):
        assert np.array_equal(a, b)


def test_moments_keep_their_digits_at_a_large_offset() -> None:
    X = np.random.default_rng(1).normal(1e6, 1e-2, size=(1000, SIZE))
    merged = Moments.empty(SIZE)
    for row in X:
        merged = merged.merge(Moments.of(row[None, :]))
    np.testing.assert_allclose(merged.variance(), X.var(axis=0), rtol=1e-4)


def test_a_score_of_healthy_rows_seldom_exceeds_the_limit_and_of_sick_ones_always() -> None:
    rng = np.random.default_rng(1)
    model = HealthModel.solve(Moments.of(rng.normal(size=(2000, 5))), variance=0.9, alarm_rate=0.01)
    scores = np.array([model.score(z)[0] for z in rng.normal(size=(2000, 5))])
    assert (scores > 1.0).mean() < 0.03
    sick = rng.normal([0.0, 12.0, 0.0, 0.0, 0.0], size=(100, 5))
    for z in sick:
        score, shares = model.score(z)
        assert score > 1.0
        assert shares.argmax() == 1
        assert shares.sum() == pytest.approx(1.0)


def test_ridge_learns_what_is_linear_and_its_predictions_stay_between_zero_and_the_cap() -> None:
    rng = np.random.default_rng(1)
    X = rng.normal(size=(500, SIZE))
    y = 50.0 + X @ [3.0, -2.0, 1.0]
    spec = Ridge(random=10, penalty=1e-6)
    basis = RidgeBasis.of(Moments.of(X, diagonal=True))
    sums = GramSums.of(expand(basis.apply(X), spec), y)
    model = RidgeModel(spec, basis, sums.solve(spec.penalty), 60.0)
    np.testing.assert_allclose(model.predict(X), np.clip(y, 0.0, 60.0), atol=0.05)
    wild = model.predict(np.array([[1e9, 0.0, 0.0], [-1e9, 0.0, 0.0]]))
    assert (wild >= 0.0).all()
    assert (wild <= 60.0).all()


def test_no_rows_teach_nothing() -> None:
    with pytest.raises(ContractError, match="no rows"):
        GramSums.empty(4).solve(1e-3)


def test_a_column_that_never_moved_says_nothing() -> None:
    X = np.column_stack([np.arange(10.0), np.full(10, 7.0)])
    basis = RidgeBasis.of(Moments.of(X, diagonal=True))
    assert basis.apply(np.array([[3.0, 1e6]]))[0, 1] == 0.0


def test_the_random_projection_is_part_of_the_contract() -> None:
    # If these numbers change, devices of two versions no longer draw the same: a new VERSION.
    weights, offsets, _ = projection(2, 2, 1)
    np.testing.assert_allclose(
        weights.ravel() / np.sqrt(2.0),
        [0.3838742855189409, -0.18970165293490385, -1.3246807582906428, 0.22616595298963463],
        rtol=1e-12,
    )
    np.testing.assert_allclose(offsets, [0.03369524742694742, -1.2737155793358501], rtol=1e-12)


@settings(max_examples=30, deadline=None)
@given(scores=st.lists(st.floats(0.0, 1e6), min_size=1, max_size=50), q=st.floats(0.0, 1.0))
def test_a_quantile_is_not_below_the_share_of_scores_it_is_for(
    scores: list[float], q: float
) -> None:
    counts = np.zeros(histogram.BINS, dtype=np.int64)
    for score in scores:
        counts[histogram.bin_of(score)] += 1
    limit = histogram.quantile(counts, q)
    below = sum(score <= limit * (1 + 1e-9) or score >= histogram.HIGH for score in scores)
    assert below >= q * len(scores) - 1e-9
