"""What remaining life is learnt by: age, directions, operating regimes, and whose lives count."""

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from agent import personal
from agent.batch import Batch, Event, Rows
from agent.config import AgentConfig
from agent.labels import Life
from agent.local_round import answer
from agent.personal import FEWEST
from agent.prognosis import LocalRul, crossed, shaped
from contract import VERSION
from contract.arrays import Arrays, Floats
from contract.errors import ContractError
from contract.model_spec import Moments, Ridge
from contract.models.moments import Moments as Sums
from contract.models.ridge import Basis, Gradients, GramSums, RidgeModel, first_of
from contract.release import Manifest, Release
from contract.spec import AssetClass, Channel, Clustered
from contract.update import FIT, GRADIENTS, SHAPE, STATISTICS, Request

HOUR_NS = 3_600_000_000_000
START_NS = 1_199_145_600 * 10**9
CAP = 40.0
SHAPED = Ridge(random=60, shaping=30, penalty=1e-3, penalty_alone=1e-3)


def lives_of(count: int, seed: int, bend: float = 1.0) -> list[Life]:
    """Return lives of ten columns, of which one product of two tells how long is left."""
    rng = np.random.default_rng(seed)
    found = []
    for n in range(count):
        hours = int(rng.integers(40, 80))
        left = np.arange(hours, 0, -1.0)
        wear = np.exp(-left / 15.0)
        X = rng.normal(size=(hours, 10))
        X[:, 0] = 3.0 * wear * bend + 0.2 * X[:, 0]
        X[:, 1] = np.abs(X[:, 0]) + 0.2 * X[:, 1]
        found.append(Life(f"pump-{n}", 0, X, np.minimum(left, CAP)))
    return found


def basis_of(lives: list[Life]) -> Basis:
    total = Sums.empty(lives[0].X.shape[1], diagonal=True)
    for life in lives:
        total = total.merge(Sums.of(life.X, diagonal=True))
    return Basis.of(total)


def model_of(spec: Ridge, basis: Basis, lives: list[Life]) -> RidgeModel:
    sums = GramSums.of_rows(basis, spec, [life.rows for life in lives])
    return RidgeModel(spec, basis, sums.solve(spec.penalty), CAP)


def error(model: RidgeModel, lives: list[Life]) -> float:
    missed = [np.mean((model.predict(life.X) - life.y) ** 2) for life in lives]
    return float(np.sqrt(np.mean(missed)))


# -- directions -----------------------------------------------------------------------------------


def test_random_features_look_along_the_directions_that_matter() -> None:
    train, test = lives_of(12, 1), lives_of(30, 2)
    basis = basis_of(train)
    along = shaped(basis, SHAPED, train)
    assert along.shape is not None
    # Most of what is drawn looks along the two columns of ten that tell anything.
    weights = along.expansion(SHAPED).weights
    assert np.square(weights[:2]).sum() > 0.8 * np.square(weights).sum()
    blind = model_of(SHAPED, basis, train)
    assert error(model_of(SHAPED, along, train), test) < 0.95 * error(blind, test)


def test_gradients_are_the_slopes_of_the_prediction() -> None:
    rng = np.random.default_rng(3)
    Z, d = rng.normal(size=(5, 4)), 1e-6
    for activation in ("relu", "fourier"):
        spec = Ridge(random=30, activation=activation, seed=2)  # type: ignore[arg-type]
        basis = Basis(np.zeros(4), np.ones(4), rng.normal(size=(4, 4)))
        expansion = basis.expansion(spec)
        coefficients = rng.normal(size=35)
        found = expansion.gradients(Z, coefficients)
        for column in range(4):
            up, down = Z.copy(), Z.copy()
            up[:, column] += d
            down[:, column] -= d
            slope = (expansion.apply(up) - expansion.apply(down)) @ coefficients / (2 * d)
            np.testing.assert_allclose(found[:, column], slope, rtol=1e-5, atol=1e-6)


def test_gradients_of_parts_add_up_to_those_of_the_whole() -> None:
    lives = lives_of(6, 4)
    basis, first = basis_of(lives), first_of(SHAPED)
    rows = [life.rows for life in lives]
    coefficients = GramSums.of_rows(basis, first, rows).solve(first.penalty)
    parts = [Gradients.of(basis, first, coefficients, rows[i::2]) for i in range(2)]
    whole = Gradients.of(basis, first, coefficients, rows)
    merged = parts[0].merge(parts[1])
    np.testing.assert_allclose(merged.outer, whole.outer, rtol=1e-9)
    np.testing.assert_allclose(whole.withdraw(parts[0]).outer, parts[1].outer, rtol=1e-6, atol=1e-9)
    assert Gradients.empty(3).shape() is None


def test_a_model_learnt_life_by_life_comes_back_the_same() -> None:
    spec = AssetClass(
        "pump", tuple(Channel(f"c{i}", "1") for i in range(10)), stats=("last",), cap_h=CAP,
        rul=(SHAPED,), holdout=0,
    )  # fmt: skip
    lives = lives_of(7, 5)
    one = LocalRul(spec, sklearn=False)
    for n in range(1, 8):
        one.learn(lives[:n])
    other = LocalRul(spec, sklearn=False)
    other.restore(one.arrays(), lives)
    a, b = one.models["ridge"], other.models["ridge"]
    assert isinstance(a, RidgeModel)
    assert isinstance(b, RidgeModel)
    assert a.basis.shape is not None
    assert np.array_equal(a.coefficients, b.coefficients)
    assert one.interval is not None
    assert other.interval is not None
    assert np.array_equal(one.interval.low, other.interval.low)
    # The store was lost: what was learnt judges on.
    lost = LocalRul(spec, sklearn=False)
    lost.restore(one.arrays(), [])
    assert np.array_equal(lost.models["ridge"].predict(lives[0].X), a.predict(lives[0].X))


def test_an_interval_by_turns_holds_as_often_as_it_says() -> None:
    train, test = lives_of(40, 6), lives_of(200, 7)
    basis = basis_of(train)
    interval = crossed(SHAPED, basis, train, CAP)
    assert interval is not None
    model = model_of(SHAPED, basis, train)
    inside = []
    for life in test:
        at = int(np.random.default_rng(len(inside)).integers(len(life.y)))
        low, high = interval.around(float(model.predict(life.X[at : at + 1])[0]))
        inside.append(low <= life.y[at] <= high)
    assert 0.84 <= np.mean(inside) <= 0.98
    assert crossed(SHAPED, basis, train[:3], CAP) is None


# -- whose lives count ----------------------------------------------------------------------------


def release_of(lives: dict[str, list[Life]], **arrays: np.ndarray) -> Release:
    """Return what a server releases of some nodes' lives."""
    spec = AssetClass(
        "pump", tuple(Channel(f"c{i}", "1") for i in range(10)), stats=("last",), cap_h=CAP,
        rul=(msgspec.structs.replace(SHAPED, personal=True),), health=Moments(),
    )  # fmt: skip
    model = spec.rul[0]
    assert isinstance(model, Ridge)
    whole = [life for own in lives.values() for life in own]
    basis = shaped(basis_of(whole), model, whole)
    sums = GramSums.of_rows(basis, model, [life.rows for life in whole])
    content: Arrays = {
        **basis.arrays(),
        "ridge/coefficients": sums.solve(model.penalty),
        **sums.arrays("fleet/"),
        **arrays,
    }
    told = {node: len(own) for node, own in lives.items()}
    return Release(Manifest(VERSION, spec, 1, 0, 0, (*lives,), "ridge", {}, lives=told), content)


def test_a_device_like_the_others_takes_them_all() -> None:
    lives = {f"rpi-{n}": lives_of(10, 10 + n) for n in range(4)}
    own = personal.personal(release_of(lives), "rpi-0", lives["rpi-0"])
    assert own is not None
    assert own.share >= 0.3


def test_a_device_unlike_the_others_goes_by_its_own_lives() -> None:
    lives = {f"rpi-{n}": lives_of(10, 20 + n) for n in range(3)}
    lives["odd"] = lives_of(10, 30, bend=-1.0)
    release = release_of(lives)
    own = personal.personal(release, "odd", lives["odd"])
    assert own is not None
    assert own.share <= 0.1
    test = lives_of(20, 31, bend=-1.0)
    fleet = release.rul["ridge"]
    assert isinstance(fleet, RidgeModel)
    assert error(own.model, test) < error(fleet, test)


def test_with_all_of_the_others_it_is_the_fleets_model_to_rounding() -> None:
    lives = {f"rpi-{n}": lives_of(10, 40 + n) for n in range(2)}
    release = release_of(lives)
    own = personal.personal(release, "rpi-1", lives["rpi-1"])
    assert own is not None
    own = own if own.share == 1.0 else None
    if own is not None:
        fleet = release.arrays["ridge/coefficients"]
        np.testing.assert_allclose(own.model.coefficients, fleet, rtol=1e-5, atol=1e-5)
    back = personal.restored(release, {} if own is None else own.arrays())
    assert (back is None) == (own is None)


def test_a_device_with_few_lives_or_forgotten_ones_takes_the_fleets_model() -> None:
    lives = {"rpi-0": lives_of(10, 50), "rpi-1": lives_of(10, 51)}
    release = release_of(lives)
    assert personal.personal(release, "new", lives_of(FEWEST - 1, 52)) is None
    assert personal.personal(release, "new", lives_of(FEWEST, 52)) is not None
    assert personal.personal(release, "rpi-0", lives["rpi-0"][:9]) is None


def test_sums_of_the_fleet_that_fit_no_model_are_refused() -> None:
    with pytest.raises(ContractError, match="fleet/target is not of shape"):
        release_of({"rpi-0": lives_of(4, 1)}, **{"fleet/target": np.zeros(3)})


# -- through the pipeline -------------------------------------------------------------------------

DRIVEN = AssetClass(
    "drive",
    (Channel("speed", "rpm"), Channel("heat", "degC")),
    stats=("last", "mean_4"),
    age=True,
    cap_h=CAP,
    health=Moments(baseline=16, learn=24, on_delay=2, off_delay=2, alarm_rate=0.01),
    regimes=Clustered(("speed",), regimes=4, levels=True),
    rul=(msgspec.structs.replace(SHAPED, personal=True),),
    holdout=0,
)


def driven(seed: int, hours: int) -> Floats:
    """Return rows of a machine at two speeds; heat follows speed, and a little the wear."""
    rng = np.random.default_rng(seed)
    fast = rng.random(hours) < 0.5
    wear = np.linspace(0.0, 1.0, hours) ** 3
    speed = np.where(fast, 1400.0, 700.0) + rng.normal(size=hours)
    heat = np.where(fast, 90.0, 40.0) + 0.5 * rng.normal(size=hours) + 4.0 * wear
    return np.stack([speed, heat], axis=1)


def batches(asset: str, values: Floats, *, failed: bool, cut: int) -> list[Batch]:
    """Return a life in pieces of ``cut`` rows, with its end."""
    n = len(values)
    t_ns = START_NS + HOUR_NS * np.arange(1, n + 1)
    found = []
    for at in range(0, n, cut):
        size = min(cut, n - at)
        whole = np.ones(size, dtype=np.bool_)
        rows = Rows(asset, t_ns[at : at + size], values[at : at + size], np.arange(size), whole)
        end = [Event(size, asset, int(t_ns[-1]), "failed")] if failed and at + size == n else []
        found.append(Batch([rows], end))
    return found


def lived(node: Any, *, cut: int, count: int = 5) -> None:
    for n in range(count):
        for batch in batches(f"drive-{n}", driven(n, 60 + 5 * n), failed=True, cut=cut):
            node.engine.process(batch)
    for batch in batches("drive-now", driven(99, 30), failed=False, cut=cut):
        node.engine.process(batch)


def test_vectors_are_of_values_within_their_regime_and_bear_the_age(
    configure: Callable[..., AgentConfig], device: Callable[..., Any]
) -> None:
    node = device(configure("node", DRIVEN))
    lived(node, cut=7)
    lives = node.engine.store.training(DRIVEN)
    # The first life is there too, though nothing was known of regimes while it was lived.
    assert [len(life.y) for life in lives] == [60, 65, 70, 75, 80]
    X = lives[3].X
    assert np.array_equal(X[:, 0], np.zeros(75))  # speed has told all it knows
    early, late = X[:30, 1], X[-10:, 1]
    assert early.std() < 2.0  # and not the 25 degrees between two speeds
    assert late.mean() - early.mean() > 2.0
    assert np.array_equal(X[:, -2], np.arange(75.0))
    np.testing.assert_allclose(X[:, -1], np.log1p(np.arange(75.0)))


def test_how_a_life_is_cut_makes_no_difference_and_it_comes_back_after_a_kill(
    configure: Callable[..., AgentConfig], device: Callable[..., Any]
) -> None:
    states = []
    for name, cut in (("one", 1), ("seven", 7), ("all", 500)):
        node = device(configure(name, DRIVEN))
        lived(node, cut=cut)
        states.append(node.state()[1])
        node.kill()
        again = device(configure(name, DRIVEN))
        assert again.state()[1] == states[-1]
        again.close()
        closed = device(configure(name, DRIVEN))  # from the checkpoint, and no journal
        assert closed.state()[1] == states[-1]
        closed.close()
    assert states[0] == states[1] == states[2]


def test_levels_need_lives_that_end() -> None:
    with pytest.raises(ValueError, match="learnt from lives that end"):
        msgspec.structs.replace(DRIVEN, rul=())


def test_a_node_answers_the_phases_that_shape_a_model(
    configure: Callable[..., AgentConfig], device: Callable[..., Any]
) -> None:
    config = configure("node", DRIVEN)
    node = device(config)
    lived(node, cut=50)
    node.close()
    model = first_of(SHAPED)

    def ask(phase: str, arrays: Arrays) -> Arrays:
        asked = Request(VERSION, phase, DRIVEN.name, DRIVEN.digest(), 1, ())
        return answer(config.state, asked, arrays).arrays

    statistics = ask(STATISTICS, {})
    basis = Basis.of(Sums.from_arrays(statistics, "basis/"))
    sums = GramSums.from_arrays(ask(SHAPE, basis.arrays()), "first/")
    with pytest.raises(ContractError, match="no coefficients of the first model"):
        ask(GRADIENTS, basis.arrays())
    arrays = {**basis.arrays(), "first/coefficients": sums.solve(model.penalty)}
    shape = Gradients.from_arrays(ask(GRADIENTS, arrays), "gradients/").shape()
    assert shape is not None
    assert np.square(shape).sum() == pytest.approx(1.0)
    told = ask(FIT, Basis(basis.mean, basis.scale, shape).arrays())
    # Rows far from the end count for less than one.
    assert GramSums.from_arrays(told, "ridge/").n < sum(60 + 5 * n for n in range(5))
