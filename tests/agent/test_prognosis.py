"""How long is left, and between which hours the truth lies."""

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from agent import config as agent_config
from agent.features.window import Window
from agent.labels import Life
from agent.prognosis import LEAST_LIVES, Interval, LocalRul
from contract.arrays import Floats
from contract.models.ridge import Basis
from contract.spec import AssetClass

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("RUNOUT_DATA", ROOT.parent / "shared" / "data"))
CAP_H = 100.0


class Guess:
    """Predicts the first feature, in hours."""

    basis = Basis(np.zeros(1), np.ones(1))

    def predict(self, X: Floats) -> Floats:
        return np.clip(X[:, 0], 0.0, CAP_H)


def lives(seed: int, count: int, spread: float = 0.2) -> list[Life]:
    """Return lives whose guesses are wrong by a share of their own of the hours left."""
    rng = np.random.default_rng(seed)
    found = []
    for n in range(count):
        y = np.minimum(np.arange(150.0)[::-1], CAP_H)
        wrong = 1.0 + spread * rng.normal()
        guesses = y * wrong + rng.normal(size=len(y))
        found.append(Life(f"pump-{n}", 0, guesses[:, None], y))
    return found


def covered(interval: Interval, predict: Callable[[Floats], Floats], life: Life) -> float:
    ends = np.array([interval.around(hours) for hours in predict(life.X)])
    return float(np.mean((ends[:, 0] <= life.y + 1e-9) & (life.y <= ends[:, 1] + 1e-9)))


@pytest.mark.parametrize("count", [9, 20, 60])
def test_the_truth_lies_within_the_interval_as_often_as_it_says(count: int) -> None:
    guess = Guess()
    found = []
    for seed in range(20):
        interval = Interval.of(guess, lives(seed, count), CAP_H)
        assert interval is not None
        assert interval.coverage == 0.9
        found += [covered(interval, guess.predict, life) for life in lives(1000 + seed, 20)]
    assert 0.87 < np.mean(found) < 0.99


def test_few_lives_vouch_for_less_and_fewer_for_nothing() -> None:
    some = Interval.of(Guess(), lives(1, LEAST_LIVES), CAP_H)
    assert some is not None
    assert some.coverage == LEAST_LIVES / (LEAST_LIVES + 1)
    assert Interval.of(Guess(), lives(1, LEAST_LIVES - 1), CAP_H) is None


def test_an_interval_holds_the_prediction_and_stays_between_nothing_and_the_cap() -> None:
    interval = Interval.of(Guess(), lives(3, 12, spread=0.6), CAP_H)
    assert interval is not None
    for hours in np.linspace(0.0, CAP_H, 41):
        low, high = interval.around(float(hours))
        assert 0.0 <= low <= hours <= high <= CAP_H


def test_errors_that_grow_with_the_hours_make_intervals_that_do() -> None:
    interval = Interval.of(Guess(), lives(5, 40), CAP_H)
    assert interval is not None
    widths = [high - low for low, high in map(interval.around, (3.0, 40.0))]
    assert widths[0] < 0.5 * widths[1]


def engines(spec: AssetClass) -> list[Life]:
    """Return the training engines of C-MAPSS FD001 as lives."""
    file = DATA / "cmapss_fd001" / "train_FD001.txt.gz"
    if not file.exists():
        if os.environ.get("CI"):
            pytest.fail(f"{file} is not there, and CI must run this")
        pytest.skip(f"{file} is not there: set RUNOUT_DATA")
    with gzip.open(file) as lines:
        table = np.loadtxt(lines)
    found = []
    for unit in np.unique(table[:, 0]):
        values = table[table[:, 0] == unit][:, 2:]
        window = Window(values.shape[1], spec.stats, hop=spec.hop, warmup=spec.warmup)
        _, X = window.push(values)
        y = np.minimum(np.arange(len(values))[::-1], spec.cap_h).astype(np.float64)
        found.append(Life(str(int(unit)), 0, X, y))
    return found


@pytest.mark.data
def test_intervals_hold_on_engines_that_nobody_learnt_from() -> None:
    spec = agent_config.load(ROOT / "configs" / "agent.turbofan.toml").asset_class[0]
    found = engines(spec)
    shares = []
    # Twenty lives make an interval that is itself uncertain: four parts of the fleet in turn.
    for first in range(0, len(found), 25):
        turned = found[first:] + found[:first]
        model = LocalRul(spec, sklearn=False)
        model.learn(turned[:30])
        ridge = model.models["ridge"]
        interval = Interval.of(ridge, turned[30:50], spec.cap_h)
        assert interval is not None
        shares += [covered(interval, ridge.predict, life) for life in turned[50:]]
    assert 0.86 < np.mean(shares) < 0.98
