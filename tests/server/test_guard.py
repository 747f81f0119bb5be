"""Each thing a node could get wrong, or do wrong, is named before anything merges."""

from typing import Any

import msgspec
import numpy as np
import pytest

from contract import VERSION
from contract.model_spec import Ridge, Sklearn
from contract.models.histogram import BINS
from contract.models.moments import Moments
from contract.models.ridge import GramSums, width
from contract.spec import AssetClass, Channel
from contract.update import EVALUATE, FIT, STATISTICS, Request, Update, UpdateHead
from server.guard import Limits, Weights, balance, expected, judge

SPEC = AssetClass(
    "pump",
    (Channel("vibration", "mm/s"), Channel("temperature", "degC")),
    stats=("mean_8", "std_8"),
    rul=(Ridge(random=3), Sklearn(hidden=(5,))),
)
ROWS = 50


def asked(phase: str) -> Request:
    return Request(VERSION, phase, SPEC.name, SPEC.digest(), 1)


def head(phase: str, **changes: Any) -> UpdateHead:
    good = UpdateHead(VERSION, phase, SPEC, "rpi-1", 7, ROWS, 2, 1, 0, {})
    return msgspec.structs.replace(good, **changes)


def statistics() -> Update:
    rng = np.random.default_rng(1)
    arrays = {
        **Moments.of(rng.normal(size=(ROWS, 4)), diagonal=True).arrays("basis/"),
        **Moments.of(rng.normal(size=(ROWS, 4))).arrays("health/"),
        "health/histogram": np.ones(BINS, dtype=np.int64),
    }
    return Update(head(STATISTICS), arrays)


def fit() -> Update:
    rng = np.random.default_rng(1)
    phi = np.concatenate([np.ones((ROWS, 1)), rng.normal(size=(ROWS, 7))], axis=1)
    arrays = GramSums.of(phi, rng.uniform(0, 100, ROWS)).arrays("ridge/")
    for name, (shape, _) in expected(SPEC, asked(FIT)).items():
        if name.startswith("sklearn/"):
            arrays[name] = rng.normal(size=shape)
    return Update(head(FIT), arrays)


def test_good_answers_pass() -> None:
    assert width(4, Ridge(random=3)) == 8
    assert judge(statistics(), asked(STATISTICS), SPEC) == []
    assert judge(fit(), asked(FIT), SPEC) == []
    assert judge(Update(head(EVALUATE), {}), asked(EVALUATE), SPEC) == []


def test_a_node_without_lives_needs_no_weights() -> None:
    size = width(4, Ridge(random=3))
    bare = Update(head(FIT, rows=0), GramSums.empty(size).arrays("ridge/"))
    assert judge(bare, asked(FIT), SPEC) == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"contract": VERSION + 1}, "contract"),
        ({"phase": FIT}, "asked was"),
        ({"asset_class": msgspec.structs.replace(SPEC, cap_h=7.0)}, "runs spec"),
        ({"node": "a/b"}, "blanks"),
        ({"node": "x" * 101}, "letters"),
        ({"rows": -1}, "rows is -1"),
        ({"epoch": -1}, "epoch is -1"),
        ({"heldout": -5}, "heldout"),
        ({"rows": 10**9}, "the head says"),
        ({"metrics": {"rmse/ridge": float("nan")}}, "not finite"),
        ({"metrics": {f"m{i}": 0.0 for i in range(65)}}, "metrics"),
    ],
)
def test_a_head_that_cannot_be_is_named(change: dict[str, Any], word: str) -> None:
    update = statistics()
    bad = Update(msgspec.structs.replace(update.head, **change), update.arrays)
    (reason, *_) = judge(bad, asked(STATISTICS), SPEC)
    assert word in reason


@pytest.mark.parametrize(
    ("name", "array", "word"),
    [
        ("basis/mean", None, "missing"),
        ("extra", np.zeros(3), "not asked for"),
        ("basis/mean", np.zeros(1), "shape"),
        ("basis/mean", np.zeros((4, 1)), "shape"),
        ("basis/mean", np.zeros(4, dtype=np.float32), "float32"),
        ("basis/mean", np.array(["a"] * 4), "<U1"),
        ("health/histogram", np.ones(BINS), "float64"),
        ("basis/mean", np.array([0.0, np.nan, 0.0, 0.0]), "not finite"),
        ("basis/scatter", np.full(4, np.inf), "not finite"),
        ("basis/scatter", np.array([1.0, -1.0, 1.0, 1.0]), "negative"),
        ("basis/n", np.array(-1.0), "head says"),
        ("health/n", np.array(-1.0), "health/n is negative"),
        ("health/histogram", np.full(BINS, -1), "below nothing"),
        ("health/scatter", np.triu(np.ones((4, 4))), "not symmetric"),
        ("health/scatter", np.diag([1.0, 1.0, 1.0, -0.1]), "semidefinite"),
    ],
)
def test_statistics_that_cannot_be_are_named(name: str, array: Any, word: str) -> None:
    update = statistics()
    update.arrays.pop(name, None)
    if array is not None:
        update.arrays[name] = array
    reasons = judge(update, asked(STATISTICS), SPEC)
    assert word in " ".join(reasons)


@pytest.mark.parametrize(
    ("name", "change", "word"),
    [
        ("ridge/n", lambda a: np.add(a, [1, 0]), "head says"),
        ("ridge/n", lambda a: a * [1, -1], "negative"),
        ("ridge/n", lambda a: a * [1, 1e-3], "semidefinite"),
        ("ridge/gram", lambda a: -a, "counts -50 rows"),
        ("ridge/gram", lambda a: a * np.where(np.arange(len(a)) == 5, 1e3, 1), "semidefinite"),
        ("ridge/target", lambda a: a * 1e3, "semidefinite"),
        ("ridge/target", lambda a: a[:-1], "shape"),
        ("sklearn/w0", lambda a: a * np.nan, "not finite"),
        ("sklearn/w0", lambda a: a[:1], "shape"),
        ("sklearn/b1", lambda a: a.astype(np.float32), "float32"),
    ],
)
def test_sums_and_weights_that_cannot_be_are_named(name: str, change: Any, word: str) -> None:
    update = fit()
    update.arrays[name] = change(update.arrays[name])
    assert word in " ".join(judge(update, asked(FIT), SPEC))


def weights(node: str, rows: float, value: float) -> Weights:
    return Weights(node, rows, {"sklearn/w0": np.full((2, 1), value)})


def test_whoever_claims_far_more_rows_than_the_others_is_capped_and_named() -> None:
    few = [weights("a", 100, 1.0), weights("b", 120, 1.1), weights("c", 1e9, 0.9)]
    balanced, said = balance(few, None, Limits(rows_cap=10))
    assert [one.rows for one in balanced] == [100, 120, 1100]
    assert said == ["c: claims 1000000000 rows, counted as 1100"]


def test_a_step_far_longer_than_the_others_is_shortened_and_named() -> None:
    start = {"sklearn/w0": np.ones((2, 1))}
    few = [weights("a", 1, 1.1), weights("b", 1, 0.9), weights("c", 1, 1001.0)]
    balanced, said = balance(few, start, Limits(norm_cap=5))
    assert np.allclose(balanced[2].arrays["sklearn/w0"], 1.5)
    assert balanced[0].arrays["sklearn/w0"][0, 0] == 1.1
    assert len(said) == 1
    assert said[0].startswith("c: a step of length")


def test_like_nodes_are_left_alone() -> None:
    few = [weights("a", 100, 1.0), weights("b", 300, 1.3), weights("c", 90, 0.8)]
    balanced, said = balance(few, None, Limits())
    assert said == []
    assert [one.rows for one in balanced] == [100, 300, 90]
    assert balance(few[:1], None, Limits())[0] == few[:1]
