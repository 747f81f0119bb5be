"""A server's questions are answered from the store; its release judges if it is good enough."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from agent.config import AgentConfig, Federation, Learning
from agent.local_round import answer
from agent.rollout import deliver
from agent.store import read_checkpoint
from contract import VERSION
from contract.arrays import Arrays
from contract.errors import ConfigError, ContractError
from contract.model_spec import Ridge
from contract.models.moments import HealthModel, Moments
from contract.models.ridge import Basis, GramSums, expand
from contract.release import Manifest, Release
from contract.report import Health
from contract.spec import AssetClass
from contract.update import EVALUATE, FIT, STATISTICS, Request, Update

Configure = Callable[..., AgentConfig]
Open = Callable[[AgentConfig], Any]


def ask(config: AgentConfig, phase: str, arrays: Arrays, **changes: object) -> Update:
    spec = config.asset_class[0]
    request = Request(VERSION, phase, spec.name, spec.digest(), 1)
    return answer(config.state, msgspec.structs.replace(request, **changes), arrays)


def basis_of(update: Update) -> Basis:
    return Basis.of(Moments.from_arrays(update.arrays, "basis/"))


def trained(config: AgentConfig, *, version: int = 1) -> Release:
    """Return the release that a server would make of this one device."""
    spec = config.asset_class[0]
    statistics = ask(config, STATISTICS, {})
    basis = basis_of(statistics)
    sums = GramSums.from_arrays(ask(config, FIT, basis.arrays()).arrays, "ridge/")
    health = HealthModel.solve(
        Moments.from_arrays(statistics.arrays, "health/"), variance=0.9, alarm_rate=0.01
    )
    ridge = spec.rul[0]
    assert isinstance(ridge, Ridge)
    arrays: Arrays = {
        **health.arrays("health/model/"),
        "health/histogram": statistics.arrays["health/histogram"],
        **basis.arrays(),
        "ridge/coefficients": sums.solve(ridge.penalty),
    }
    return release(spec, arrays, version=version)


def release(spec: AssetClass, arrays: Arrays, *, version: int) -> Release:
    metrics = {"rmse/ridge": 3.25}
    manifest = Manifest(VERSION, spec, version, version - 1, 0, ("node",), "ridge", metrics)
    return Release(manifest, arrays)


def worse(good: Release, *, version: int) -> Release:
    """Return a release that takes every pump for new."""
    arrays = dict(good.arrays)
    coefficients = np.zeros_like(arrays["ridge/coefficients"])
    coefficients[0] = 48.0
    arrays["ridge/coefficients"] = coefficients
    return release(good.manifest.asset_class, arrays, version=version)


@pytest.fixture
def config(configure: Configure) -> AgentConfig:
    return configure()


@pytest.fixture
def node(config: AgentConfig, device: Open) -> Any:
    """Return a device with six finished lives, two of them held out, and a checkpoint."""
    made = device(config)
    for n in range(6):
        made.wear_out(f"pump-{n}", n)
    made.engine.checkpoint()
    return made


# -- local rounds ----------------------------------------------------------------------------------


def test_statistics_are_the_moments_of_what_the_device_has_lived(
    config: AgentConfig, node: Any
) -> None:
    update = ask(config, STATISTICS, {})
    lives = node.engine.store.training(config.asset_class[0])
    X = np.concatenate([life.X for life in lives])
    basis = Moments.from_arrays(update.arrays, "basis/")
    assert basis.n == len(X) == update.head.rows
    np.testing.assert_allclose(basis.mean, X.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(basis.variance(), X.var(axis=0), rtol=1e-9)
    cohort = node.engine.pipeline.groups["pump"].cohort
    assert np.array_equal(update.arrays["health/scatter"], cohort.healthy.moments.scatter)
    assert np.array_equal(update.arrays["health/histogram"], cohort.scores)
    head = update.head
    assert (head.node, head.lives, head.heldout, head.live_version) == ("node", 4, 2, 0)
    assert head.epoch == node.engine.store.seq


def test_no_reading_is_in_what_is_sent(config: AgentConfig, node: Any) -> None:
    statistics = ask(config, STATISTICS, {})
    fit = ask(config, FIT, basis_of(statistics).arrays())
    columns = len(config.asset_class[0].channels) * len(config.asset_class[0].stats)
    expanded = 1 + columns + 20
    sizes = {array.size for array in (*statistics.arrays.values(), *fit.arrays.values())}
    # Sizes by the number of columns alone: none by the number of rows.
    assert sizes <= {1, 2, 256, columns, columns**2, expanded, expanded * (expanded + 1) // 2}
    assert node.engine.pipeline.counts.vectors not in sizes


def test_a_fit_is_the_sums_over_the_training_lives(config: AgentConfig, node: Any) -> None:
    spec = config.asset_class[0]
    basis = basis_of(ask(config, STATISTICS, {}))
    update = ask(config, FIT, basis.arrays())
    lives = node.engine.store.training(spec)
    X, y, w = (np.concatenate([life.rows[i] for life in lives]) for i in range(3))
    whole = GramSums.of(expand(basis.apply(X), spec.rul[0]), y, w)
    sums = GramSums.from_arrays(update.arrays, "ridge/")
    assert sums.n == whole.n
    np.testing.assert_allclose(sums.gram, whole.gram, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(sums.target, whole.target, rtol=1e-9, atol=1e-9)


def test_an_evaluation_compares_the_candidate_with_what_judges(
    config: AgentConfig, node: Any
) -> None:
    good = trained(config)
    heldout = node.engine.store.heldout(config.asset_class[0])
    for candidate in (good, worse(good, version=2)):
        content = np.frombuffer(candidate.to_bytes(), dtype=np.uint8)
        metrics = ask(config, EVALUATE, {"release": content}).head.metrics
        errors = [np.mean((candidate.predict(life.X) - life.y) ** 2) for life in heldout]
        assert metrics["rmse/ridge"] == pytest.approx(np.sqrt(np.mean(errors)))
        assert metrics["heldout_rows"] == sum(len(life.y) for life in heldout)
        own = node.engine.pipeline.groups["pump"].error_h
        assert metrics["rmse/live"] == metrics["rmse/local"] == pytest.approx(own)


def test_a_question_can_be_asked_beside_a_running_agent(config: AgentConfig, node: Any) -> None:
    before = ask(config, STATISTICS, {})
    node.wear_out("pump-9", 9)
    after = ask(config, STATISTICS, {})
    assert after.head.epoch > before.head.epoch
    assert after.head.lives + after.head.heldout == before.head.lives + before.head.heldout + 1


@pytest.mark.parametrize(
    ("phase", "arrays", "changes", "words"),
    [
        (STATISTICS, {}, {"contract": VERSION + 1}, "update the older one"),
        (STATISTICS, {}, {"asset_class": "fan", "digest": ""}, "no asset class 'fan'"),
        (STATISTICS, {}, {"digest": "0" * 16}, "configured otherwise"),
        ("guess", {}, {}, "unknown phase 'guess'"),
        (FIT, {}, {}, "no basis"),
        (EVALUATE, {}, {}, "no release"),
        (EVALUATE, {"release": np.zeros(9, np.uint8)}, {}, "not a whole Runout file"),
    ],
)
def test_a_question_that_does_not_fit_is_refused_in_words(
    phase: str,
    arrays: Arrays,
    changes: dict[str, object],
    words: str,
    config: AgentConfig,
    node: Any,
) -> None:
    del node  # it need only have lived
    with pytest.raises(ContractError, match=words):
        ask(config, phase, arrays, **changes)


def test_where_no_agent_has_run_there_is_nothing_to_answer(config: AgentConfig) -> None:
    with pytest.raises(ContractError, match="has the agent run"):
        ask(config, STATISTICS, {})


# -- releases --------------------------------------------------------------------------------------


def test_a_good_release_is_promoted_without_a_restart_and_judges_at_once(
    config: AgentConfig, node: Any
) -> None:
    assert deliver(config.state, trained(config)) == "delivered"
    (verdict,) = node.engine.consider_releases(1)
    assert verdict.promoted
    assert "2 held-out lives" in verdict.reason
    told = node.live("pump-9", np.full((30, 2), [5.0, 40.0]))
    reports = [one for one in told if isinstance(one, Health)]
    assert {(one.judged_by, one.rul_model, one.rul_error_h) for one in reports} == {
        (1, "ridge", 3.25)
    }
    assert all(one.rul_local_h is not None for one in reports)
    assert ask(config, STATISTICS, {}).head.live_version == 1


def test_a_release_that_judges_already_is_not_delivered_again(
    config: AgentConfig, node: Any
) -> None:
    made = trained(config)
    deliver(config.state, made)
    node.engine.consider_releases(1)
    assert deliver(config.state, made) == "already live"
    assert node.engine.consider_releases(2) == []


def test_a_release_clearly_worse_on_held_out_lives_is_rejected(
    config: AgentConfig, node: Any
) -> None:
    good = trained(config)
    deliver(config.state, good)
    node.engine.consider_releases(1)
    deliver(config.state, worse(good, version=2))
    (verdict,) = node.engine.consider_releases(2)
    assert not verdict.promoted
    assert "error on held-out lives" in verdict.reason
    assert node.engine.status(online=True).live == {"pump": 1}


def test_a_release_worse_than_the_devices_own_models_is_rejected(
    config: AgentConfig, node: Any
) -> None:
    deliver(config.state, worse(trained(config), version=1))
    assert [verdict.promoted for verdict in node.engine.consider_releases(1)] == [False]
    assert node.engine.status(online=True).live == {"pump": 0}


def test_how_much_worse_is_too_much_is_the_devices_to_say(
    configure: Configure, device: Open
) -> None:
    config = configure(learning=Learning(tolerance=1e6))
    made = device(config)
    for n in range(6):
        made.wear_out(f"pump-{n}", n)
    deliver(config.state, worse(trained(config), version=1))
    assert [verdict.promoted for verdict in made.engine.consider_releases(1)] == [True]


def test_without_held_out_lives_a_release_is_taken_on_the_fleets_evidence(
    config: AgentConfig, node: Any, configure: Configure, device: Open
) -> None:
    made = trained(config)
    young = configure("young")
    other = device(young)
    deliver(young.state, made)
    (verdict,) = other.engine.consider_releases(1)
    assert verdict.promoted
    assert "fleet's evidence" in verdict.reason
    told = other.live("pump-1", np.full((30, 2), [5.0, 40.0]))
    assert any(isinstance(one, Health) and one.rul_h is not None for one in told)
    assert node.engine.status(online=True).live == {"pump": 0}


@pytest.mark.parametrize("checkpointed", [True, False], ids=["checkpoint", "journal alone"])
def test_after_a_kill_the_release_still_judges(
    checkpointed: bool, config: AgentConfig, node: Any, device: Open
) -> None:
    deliver(config.state, trained(config))
    node.engine.consider_releases(1)
    node.live("pump-9", np.full((30, 2), [5.0, 40.0]))
    if checkpointed:
        node.engine.checkpoint()
    expected = node.state()
    node.kill()
    again = device(config)
    assert again.state() == expected
    assert again.engine.status(online=True).live == {"pump": 1}
    told = again.live("pump-9", np.full((3, 2), [5.0, 40.0]), begin=30)
    assert {one.judged_by for one in told} == {1}


def test_a_release_whose_file_was_lost_leaves_the_judging_to_the_device(
    config: AgentConfig, node: Any, device: Open
) -> None:
    made = trained(config)
    deliver(config.state, made)
    node.engine.consider_releases(1)
    node.close()
    for path in (config.state / "models" / "releases").iterdir():
        path.unlink()
    again = device(config)
    assert again.engine.status(online=True).live == {"pump": 0}
    # So that the fleet may send it once more.
    assert deliver(config.state, made) == "delivered"
    assert [verdict.promoted for verdict in again.engine.consider_releases(2)] == [True]


def test_the_checkpoint_says_which_release_judged(config: AgentConfig, node: Any) -> None:
    made = trained(config)
    deliver(config.state, made)
    node.engine.consider_releases(1)
    node.close()
    head, _ = read_checkpoint(config.state / "checkpoint.npz")
    assert head["released"] == {"pump": [1, made.digest]}


# -- who may release -------------------------------------------------------------------------------


def key_file(folder: Path) -> tuple[Ed25519PrivateKey, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    key = Ed25519PrivateKey.generate()
    path = folder / "fleet.pem"
    path.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return key, path


def test_a_device_that_trusts_a_key_takes_what_that_has_signed_and_nothing_else(
    configure: Configure, device: Open, tmp_path: Path
) -> None:
    key, path = key_file(tmp_path / "keys")
    config = configure(federation=Federation(release_key=str(path)))
    made = device(config)
    for n in range(6):
        made.wear_out(f"pump-{n}", n)
    made.engine.checkpoint()
    release = trained(config)
    reasons = []
    other, _ = key_file(tmp_path / "others")
    for signature in ("", "zz", other.sign(release.digest.encode()).hex()):
        release.signature = signature
        deliver(config.state, release)
        (verdict,) = made.engine.consider_releases(1)
        assert not verdict.promoted
        reasons.append(verdict.reason)
    assert "not signed" in reasons[0]
    assert reasons[1] == reasons[2] == "its signature is not by the key that this device trusts"
    assert made.engine.status(online=True).live == {"pump": 0}
    release.signature = key.sign(release.digest.encode()).hex()
    deliver(config.state, release)
    (verdict,) = made.engine.consider_releases(1)
    assert verdict.promoted


def test_a_key_that_is_none_is_said_before_anything_runs(
    configure: Configure, device: Open, tmp_path: Path
) -> None:
    path = tmp_path / "key.pem"
    for content, words in ((None, "cannot be read"), ("nothing", "is no PEM key")):
        if content is not None:
            path.write_text(content, encoding="utf-8")
        with pytest.raises(ConfigError, match=words):
            device(configure(federation=Federation(release_key=str(path))))


def test_what_a_person_restores_is_taken_even_if_it_errs_more(
    config: AgentConfig, node: Any
) -> None:
    good = trained(config)
    bad = worse(good, version=2)
    deliver(config.state, good)
    node.engine.consider_releases(1)
    manifest = msgspec.structs.replace(bad.manifest, version=3, restores=2)
    deliver(config.state, Release(manifest, bad.arrays))
    (verdict,) = node.engine.consider_releases(2)
    assert verdict.promoted
    assert verdict.reason.startswith("restores version 2; error on 2 held-out lives")


def test_back_to_the_devices_own_models(config: AgentConfig, node: Any) -> None:
    good = trained(config)
    deliver(config.state, good)
    node.engine.consider_releases(1)
    none = msgspec.structs.replace(good.manifest, version=2, restores=0, rul_model="", metrics={})
    deliver(config.state, Release.from_bytes(Release(none, {}).to_bytes(), "none"))
    (verdict,) = node.engine.consider_releases(2)
    assert verdict.promoted
    assert "this device's own models judge" in verdict.reason
    told = node.live("pump-9", np.full((30, 2), [5.0, 40.0]))
    reports = [one for one in told if isinstance(one, Health)]
    assert {one.judged_by for one in reports} == {2}
    assert any(one.rul_h is not None and one.rul_h == one.rul_local_h for one in reports)
