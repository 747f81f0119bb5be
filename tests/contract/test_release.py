"""A release comes back as it was written, or is refused."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract import VERSION, load_model, npz
from contract.arrays import Arrays
from contract.errors import ContractError
from contract.model_spec import Ridge
from contract.models.moments import HealthModel, Moments
from contract.models.ridge import Basis, width
from contract.release import Manifest, Release
from contract.spec import AssetClass, Channel

SPEC = AssetClass(
    "pump",
    (Channel("flow", "m3/h"), Channel("speed", "rpm")),
    stats=("mean_4", "std_4"),
    rul=(Ridge(random=5),),
)


def arrays() -> Arrays:
    rng = np.random.default_rng(1)
    X = rng.normal(size=(100, 4))
    X[:, 3] = 2.0  # never moves: its scale is infinite, by intent
    health = HealthModel.solve(Moments.of(X), variance=0.9, alarm_rate=0.01)
    return {
        **health.arrays("health/model/"),
        **Basis.of(Moments.of(X, diagonal=True)).arrays(),
        "ridge/coefficients": rng.normal(size=width(4, Ridge(random=5))),
    }


def release(**changes: object) -> Release:
    manifest = Manifest(VERSION, SPEC, 3, 2, 17, ("a", "b"), "ridge", {"rmse/ridge": 4.5})
    return Release(msgspec.structs.replace(manifest, **changes), arrays())


def test_a_release_read_back_is_the_one_that_was_written(tmp_path: Path) -> None:
    made = release()
    made.save(tmp_path / "release.npz")
    read = load_model(tmp_path / "release.npz")
    assert (read.digest, read.manifest) == (made.digest, made.manifest)
    X = np.random.default_rng(2).normal(size=(7, 4))
    assert np.array_equal(read.predict(X), made.predict(X))
    assert np.array_equal(read.score(X), made.score(X))
    assert [path.name for path in tmp_path.iterdir()] == ["release.npz"]


CONTENT = release().to_bytes()


@settings(max_examples=150, deadline=None)
@given(at=st.integers(0, len(CONTENT) - 1), bit=st.integers(0, 7))
def test_an_altered_byte_is_refused_or_changes_nothing(at: int, bit: int) -> None:
    altered = bytearray(CONTENT)
    altered[at] ^= 1 << bit
    try:
        read = Release.from_bytes(bytes(altered), "release")
    except ContractError:
        return
    # A zip has bytes that say nothing: dates, the name twice.
    assert read.digest == release().digest


@settings(max_examples=60, deadline=None)
@given(length=st.integers(0, len(CONTENT) - 1))
def test_a_truncated_release_is_refused(length: int) -> None:
    with pytest.raises(ContractError):
        Release.from_bytes(CONTENT[:length], "release")


def test_other_arrays_under_the_same_digest_are_refused() -> None:
    head, found = npz.from_bytes(CONTENT, "release")
    found["ridge/coefficients"] = np.asarray(found["ridge/coefficients"]) + 1.0
    with pytest.raises(ContractError, match="does not match its digest"):
        Release.from_bytes(npz.to_bytes(head, found), "release")


def test_another_contract_is_refused_with_the_mend() -> None:
    content = release(contract=VERSION + 1).to_bytes()
    with pytest.raises(ContractError, match="update the older side"):
        Release.from_bytes(content, "release")


@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        ("ridge/coefficients", np.ones(3), "wrong shape"),
        ("ridge/coefficients", np.full(10, np.nan), "not finite"),
        ("basis/mean", np.zeros(3), "basis of shape"),
        ("health/model/axes", np.zeros((3, 1)), "not for 4 features"),
    ],
)
def test_arrays_that_do_not_fit_the_class_are_refused(
    name: str, array: np.ndarray, words: str
) -> None:
    with pytest.raises(ContractError, match=words):
        Release(release().manifest, {**arrays(), name: array})


def test_a_model_that_is_not_there_cannot_be_asked() -> None:
    with pytest.raises(ContractError, match="no RUL model 'sklearn'"):
        release().predict(np.zeros((1, 4)), "sklearn")


def test_a_release_that_is_not_there_is_said_in_words(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="cannot be read"):
        load_model(tmp_path / "none.npz")


def test_the_digest_of_a_class_is_of_what_must_agree_and_of_no_more() -> None:
    same = [{"holdout": 9}, {"alert_rul_h": 3.0}, {"max_life_rows": 7}]
    other = [{"cap_h": 1.0}, {"hop": 2}, {"stats": ("mean_4",)}, {"rul": ()}, {"name": "fan"}]
    assert {msgspec.structs.replace(SPEC, **c).digest() for c in same} == {SPEC.digest()}
    digests = {msgspec.structs.replace(SPEC, **change).digest() for change in other}
    assert len(digests | {SPEC.digest()}) == len(other) + 1
