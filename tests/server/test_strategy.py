"""Flower's strategies on our replies."""

from typing import Any

import numpy as np
import pytest

from server.guard import Weights
from server.strategy import STRATEGIES, WeightsMerger


def weights(node: str, rows: float, value: float) -> Weights:
    arrays = {"sklearn/w0": np.full((2, 1), value), "sklearn/b0": np.full(1, -value)}
    return Weights(node, rows, dict(arrays))


FEW = [weights("a", 10, 1.0), weights("b", 30, 2.0), weights("c", 10, 1.5), weights("d", 10, 1.2)]


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_merges_over_rounds_and_keeps_shapes(name: str, grid: Any) -> None:
    merger = WeightsMerger(name, grid)
    merged = None
    for round_ in (1, 2, 3):
        merged = merger.merge(round_, merged, FEW)
        assert {k: a.shape for k, a in merged.items()} == {"sklearn/w0": (2, 1), "sklearn/b0": (1,)}
        assert all(np.isfinite(array).all() for array in merged.values())
        assert 0.9 < merged["sklearn/w0"][0, 0] < 2.1


def test_fedavg_is_the_mean_by_rows(grid: Any) -> None:
    merged = WeightsMerger("fedavg", grid).merge(1, None, FEW)
    assert merged["sklearn/w0"][0, 0] == pytest.approx(97 / 60)


def test_the_order_of_replies_makes_no_difference(grid: Any) -> None:
    one = WeightsMerger("fedavg", grid).merge(1, None, FEW)
    other = WeightsMerger("fedavg", grid).merge(1, None, FEW[::-1])
    assert np.array_equal(one["sklearn/w0"], other["sklearn/w0"])


def test_the_median_bears_a_liar(grid: Any) -> None:
    liar = weights("e", 10, 1e6)
    merged = WeightsMerger("fedmedian", grid).merge(1, None, [*FEW, liar])
    assert merged["sklearn/w0"][0, 0] == 1.5


def test_an_adaptive_strategy_remembers_between_rounds(grid: Any) -> None:
    merger = WeightsMerger("fedadam", grid)
    start = merger.merge(1, None, FEW)
    towards = [weights("a", 10, 3.0), weights("b", 10, 3.0)]
    steps, at = [], start
    for round_ in (2, 3):
        to = merger.merge(round_, at, towards)
        steps.append(float(to["sklearn/w0"][0, 0] - at["sklearn/w0"][0, 0]))
        at = to
    fresh = WeightsMerger("fedadam", grid).merge(3, start, towards)
    assert steps[0] > 0
    assert steps[1] != pytest.approx(float(fresh["sklearn/w0"][0, 0] - start["sklearn/w0"][0, 0]))
