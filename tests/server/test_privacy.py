"""What leaves a device with differential privacy, and what a server makes of it."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from scipy.stats import norm

from agent.group import Group
from agent.local_round import answer
from agent.personal import personal
from agent.privacy import Budget, epsilon
from agent.store import open_readonly, read_lives
from contract import VERSION
from contract.errors import ContractError
from contract.model_spec import Chart, Privacy, Ridge, Sklearn
from contract.models.moments import Moments
from contract.models.ridge import GramSums
from contract.privacy import ROOT2, bordered, edged, noisy_gram, noisy_moments, noisy_step, sigma
from contract.spec import AssetClass
from contract.update import EVALUATE, FIT, STATISTICS, Request
from server import guard
from server.guard import Limits
from server.rounds import Fleet
from server.status import Status
from server.training import Settings, Training

CAP = 60.0
EXACT = Privacy(noise=1e-9, clip=1e6, norm=1e6, step=1e6, epsilon=1e30)


def private(stores: Any, privacy: Privacy, *, network: bool = False) -> AssetClass:
    models: tuple[Any, ...] = (Ridge(random=0, basis="own"),)
    if network:
        models += (Sklearn(hidden=(4,), epochs=1, basis="own"),)
    return msgspec.structs.replace(stores.pump(*models), privacy=privacy)


def training_of(state: Path, grid: Any) -> Training:
    state.mkdir()
    settings = Settings(state, "", 2, 1, 0.3, 60.0, "fedavg", False, Limits())
    return Training(settings, Fleet(grid), Status())


def sums_of(rng: np.random.Generator, spread: float) -> GramSums:
    phi = np.hstack([np.ones((40, 1)), rng.normal(size=(40, 5)) * spread])
    return GramSums.of(phi, rng.uniform(0, CAP, size=40))


def whole(sums: GramSums) -> np.ndarray:
    return bordered(sums, CAP)


def request_of(spec: AssetClass, phase: str) -> Request:
    return Request(VERSION, phase, spec.name, spec.digest(), 1)


def test_whatever_a_device_measures_changes_a_sum_by_no_more_than_the_noise_is_made_for() -> None:
    rng = np.random.default_rng(1)
    privacy = Privacy(noise=1e-12, clip=3.0, norm=2.0, step=0.5)
    for spread in (0.01, 1.0, 100.0):
        one, other = (noisy_gram(sums_of(rng, spread), CAP, privacy, rng) for _ in range(2))
        apart = np.linalg.norm(whole(one) - whole(other))
        assert apart <= ROOT2 * privacy.clip * (1 + 1e-9)
        rows = [rng.normal(size=(30, 4)) * spread + k for k in range(2)]
        told = [noisy_moments(Moments.of(X), privacy, rng) for X in rows]
        pair = [edged(m) for m in told]
        assert np.linalg.norm(pair[0] - pair[1]) <= ROOT2 * privacy.norm * (1 + 1e-9)
    start = {"sklearn/w0": np.zeros((3, 2)), "sklearn/b0": np.zeros(2)}
    far = {name: array + 7.0 for name, array in start.items()}
    step = noisy_step(far, start, privacy, rng)
    length = np.sqrt(sum(float((array**2).sum()) for array in step.values()))
    assert length == pytest.approx(privacy.step)


def test_the_noise_is_as_large_as_its_multiplier_says_and_shared_by_those_who_add_it_up() -> None:
    privacy = Privacy(noise=2.0, among=4, clip=3.0)
    rng = np.random.default_rng(2)
    nothing = GramSums.empty(40)
    drawn = whole(noisy_gram(nothing, CAP, privacy, rng))[np.triu_indices(41)]
    wanted = 2.0 * ROOT2 * 3.0 / 2.0
    assert sigma(privacy, ROOT2 * 3.0) == pytest.approx(wanted)
    # 861 draws: their standard deviation is known to 2.4 %.
    assert drawn.std() == pytest.approx(wanted, rel=0.1)


def test_epsilon_is_never_below_what_the_mechanism_is_worth_and_little_above() -> None:
    for multiplier, count in ((1.0, 1), (1.0, 10), (4.0, 20), (0.5, 1)):
        mu = np.sqrt(count) / multiplier
        told = epsilon({repr(multiplier): count}, 1e-5)
        # Balle and Wang 2018, theorem 8: what delta this epsilon has, exactly.
        exact = norm.cdf(mu / 2 - told / mu) - np.exp(told) * norm.cdf(-mu / 2 - told / mu)
        assert exact <= 1e-5
        tighter = told / 1.15
        over = norm.cdf(mu / 2 - tighter / mu) - np.exp(tighter) * norm.cdf(-mu / 2 - tighter / mu)
        assert over > 1e-5
    assert epsilon({"2.0": 3}, 1e-5, among=4) == pytest.approx(epsilon({"1.0": 3}, 1e-5))


def test_a_budget_ends_and_what_is_told_again_costs_nothing(stores: Any, tmp_path: Path) -> None:
    spec = private(stores, Privacy(noise=1.0, epsilon=10.0))
    budget = Budget(tmp_path, spec)
    exact = {"a": np.arange(3.0)}

    def noisy(rng: np.random.Generator) -> dict[str, Any]:
        return {"a": exact["a"] + rng.normal(size=3)}

    first = budget.tell("ridge", exact, noisy)
    again = Budget(tmp_path, spec).tell("ridge", exact, noisy)
    assert np.array_equal(first["a"], again["a"])
    assert budget.spent().updates == 1
    for k in range(2):
        budget.tell("ridge", {"a": exact["a"] + k + 1}, noisy)
    spent = budget.spent()
    assert spent.updates == 3
    assert 8.0 < spent.epsilon == spent.epsilon_server < 10.0
    with pytest.raises(ContractError, match=r"budget is spent: 3 noisy updates .* of 10"):
        budget.tell("ridge", {"a": exact["a"] + 9}, noisy)
    assert budget.spent().updates == 3
    account = tmp_path / "privacy" / spec.name / "told.json"
    account.write_text("{", encoding="utf-8")
    with pytest.raises(ContractError, match=r"told\.json: what this device has told"):
        budget.tell("statistics", exact, noisy)


def test_a_node_tells_neither_counts_nor_features_nor_errors(stores: Any) -> None:
    spec = private(stores, Privacy())
    folder = stores.make("rpi-0", spec)
    told = answer(folder, request_of(spec, STATISTICS), {})
    assert (told.head.rows, told.head.lives, told.head.heldout) == (1, 1, 0)
    assert not told.arrays["basis/n"]
    assert not told.arrays["basis/mean"].any()
    assert not told.arrays["health/histogram"].any()
    assert told.arrays["health/scatter"].any()
    judged = answer(folder, request_of(spec, EVALUATE), {})
    assert judged.head.metrics == {}
    assert judged.arrays == {}


def test_without_noise_to_speak_of_the_fleet_learns_what_it_would_without_privacy(
    stores: Any, grid: Any, tmp_path: Path
) -> None:
    spec = private(stores, EXACT, network=True)
    plain = msgspec.structs.replace(spec, privacy=None)
    for i in range(3):
        grid.states[i + 1] = stores.make(f"rpi-{i}", spec, seed=i)
    release = training_of(tmp_path / "server", grid).run()
    assert release is not None
    assert set(release.rul) == {"ridge", "sklearn"}
    assert not [name for name in release.manifest.metrics if name.startswith("rmse")]
    db = open_readonly(stores.folder / "rpi-0")
    lives = read_lives(db, plain, heldout=True)
    own = read_lives(db, plain, heldout=False)
    db.close()
    mine = personal(release, "rpi-0", own, "ridge")
    assert mine is not None
    X = np.concatenate([life.X for life in lives])
    y = np.concatenate([life.y for life in lives])
    missed = np.sqrt(np.mean((mine.model.predict(X) - y) ** 2))
    assert missed < 0.6 * np.sqrt(np.mean((y - y.mean()) ** 2))
    # Within a device's standardisation, whatever that is.
    assert release.basis is not None
    assert not release.basis.mean.any()


def test_too_few_nodes_make_no_release(stores: Any, grid: Any, tmp_path: Path) -> None:
    spec = private(stores, Privacy(noise=1e-6, among=3, epsilon=1e30))
    for i in range(2):
        grid.states[i + 1] = stores.make(f"rpi-{i}", spec, seed=i)
    training = training_of(tmp_path / "server", grid)
    assert training.run() is None
    grid.states[3] = stores.make("rpi-2", spec, seed=2)
    release = training.run()
    assert release is not None
    assert "ridge" in release.rul


def test_a_contribution_that_is_longer_than_a_clipped_and_noisy_one_is_refused(
    stores: Any,
) -> None:
    spec = private(stores, Privacy(noise=1.0))
    folder = stores.make("rpi-0", spec)
    basis = {"basis/mean": np.zeros(4), "basis/scale": np.ones(4)}
    for phase, name in ((STATISTICS, "health"), (FIT, "ridge")):
        request = request_of(spec, phase)
        told = answer(folder, request, basis)
        assert guard.judge(told, request, spec) == []
        large = {
            key: array * 30.0 if key.startswith(name) and array.dtype == float else array
            for key, array in told.arrays.items()
        }
        (against,) = guard.judge(msgspec.structs.replace(told, arrays=large), request, spec)
        assert against.startswith(f"{name}: sums of norm")


def test_a_device_without_a_life_of_its_own_tells_no_remaining_life_by_others(
    stores: Any, grid: Any, tmp_path: Path
) -> None:
    spec = private(stores, EXACT)
    grid.states[1] = stores.make("rpi-0", spec)
    release = training_of(tmp_path / "server", grid).run()
    assert release is not None
    group = Group(spec, tmp_path, sklearn=False)
    group.swap(release)
    assert group.predictor() is None
    db = open_readonly(stores.folder / "rpi-0")
    group.personal = personal(release, "rpi-1", read_lives(db, spec, heldout=False))
    db.close()
    found = group.predictor()
    assert found is not None
    assert found[0] == "ridge"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rul": (Ridge(random=0),)}, "privacy: ridge: basis"),
        ({"rul": (Sklearn(),)}, "privacy: sklearn: basis"),
        ({"rul": (Ridge(random=2, basis="own", shaping=2),)}, "leave out shaping"),
        ({"rul": (Ridge(random=2, basis="own", personal=True),)}, "leave out shaping"),
        ({"health": Chart()}, "only 'moments'"),
    ],
)
def test_what_would_tell_more_is_refused(stores: Any, change: dict[str, Any], said: str) -> None:
    spec = private(stores, Privacy())
    with pytest.raises(ValueError, match=said):
        msgspec.structs.replace(spec, **change)
