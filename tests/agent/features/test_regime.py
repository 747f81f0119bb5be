"""Regimes are found where there are some, and one is found where there is one."""

import numpy as np
import pytest

from agent.features.regime import Regime
from contract.arrays import Floats
from contract.errors import ConfigError
from contract.spec import Clustered, Declared

COLUMNS = ("flow", "speed", "load")
BOTH = Clustered(channels=("speed", "load"), regimes=4)
CENTRES = np.array([[900.0, 20.0], [1500.0, 20.0], [1500.0, 80.0]])


def rows_of(labels: list[int], *, spread: float = 0.01, seed: int = 1) -> Floats:
    """Rows of flow, speed and load around the centres of some regimes."""
    rng = np.random.default_rng(seed)
    own = CENTRES[labels] * (1.0 + spread * rng.standard_normal((len(labels), 2)))
    return np.column_stack([rng.standard_normal(len(labels)), own])


def fitted(rows: Floats, spec: Clustered = BOTH) -> Regime:
    regime = Regime(spec, COLUMNS)
    regime.fit(rows)
    return regime


def test_declared_limits_of_two_channels_cross() -> None:
    regime = Regime(Declared({"speed": (1000.0,), "load": (30.0, 60.0)}), COLUMNS)
    rows = np.array([[0, speed, load] for speed in (900.0, 1000.0) for load in (10.0, 30.0, 90.0)])
    assert regime.size == regime.found == 6
    assert regime.known
    assert regime.of(rows).tolist() == [0, 1, 2, 3, 4, 5]
    assert regime.arrays() == {}


@pytest.mark.parametrize("mixed", [True, False], ids=["mixed", "one after another"])
def test_three_regimes_are_found_and_numbered_by_their_centres(*, mixed: bool) -> None:
    labels = [0, 1, 2] * 20 if mixed else [0] * 20 + [1] * 20 + [2] * 20
    regime = fitted(rows_of(labels))
    assert regime.found == 3
    number = regime.of(rows_of([0, 1, 2], spread=0.0))
    assert number[0] == 0  # the slow one
    assert sorted(number.tolist()) == [0, 1, 2]
    fresh = [2, 0, 1, 1, 2, 0]
    assert regime.of(rows_of(fresh, seed=2)).tolist() == number[fresh].tolist()


def test_settings_that_never_vary_are_regimes() -> None:
    regime = fitted(rows_of([0, 1, 2] * 10, spread=0.0))
    assert regime.found == 3
    assert regime.of(rows_of([1, 2], spread=0.0)).tolist() == [1, 2]


@pytest.mark.parametrize("n", [30, 60, 300])
@pytest.mark.parametrize("shape", ["normal", "uniform", "ramp", "exponential", "constant"])
@pytest.mark.parametrize("seed", range(5))
def test_one_way_of_running_is_one_regime_however_it_is_spread(
    shape: str, n: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    drawn = {
        "normal": rng.standard_normal((n, 3)),
        "uniform": rng.random((n, 3)),
        "ramp": np.linspace([0.0] * 3, [1.0] * 3, n),
        "exponential": rng.exponential(size=(n, 3)),
        "constant": np.full((n, 3), 0.1),
    }[shape]
    regime = fitted(1500.0 + 200.0 * drawn)
    assert regime.found == 1
    assert set(regime.of(rows_of([0, 1, 2])).tolist()) == {0}


@pytest.mark.parametrize("spread", [0.0, 5.0])
@pytest.mark.parametrize("seed", range(10))
def test_a_channel_that_is_mere_noise_does_not_hide_what_another_tells(
    spread: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 40)
    speed = 1000.0 + 50.0 * labels + spread * rng.standard_normal(40)
    regime = fitted(np.column_stack([speed, speed, rng.normal(50.0, 10.0, 40)]))
    assert regime.found == 2
    assert regime.of(np.column_stack([speed, speed, np.full(40, 90.0)])).tolist() == labels.tolist()


def test_the_steps_of_a_sensor_are_no_regimes() -> None:
    rng = np.random.default_rng(1)
    rows = np.column_stack([np.zeros(60), 1500.0 + rng.integers(0, 2, 60), np.full(60, 80.0)])
    assert fitted(rows).found == 1


def test_a_handful_of_rows_is_no_regime() -> None:
    assert fitted(rows_of([0] * 40 + [2] * 4)).found == 1
    assert fitted(rows_of([0] * 40 + [2] * 6)).found == 2


def test_a_row_with_a_bad_value_has_no_known_regime_and_teaches_nothing() -> None:
    rows = rows_of([0, 1, 2] * 20)
    spoilt = np.repeat(rows, 2, axis=0)
    spoilt[::2, 1] = np.nan
    spoilt[::4, 2] = np.inf
    regime = fitted(spoilt)
    assert regime.of(spoilt)[::2].tolist() == [-1] * 60
    np.testing.assert_array_equal(regime.of(rows), fitted(rows).of(rows))
    flow = rows.copy()
    flow[:, 0] = np.nan  # not a channel that tells regimes
    np.testing.assert_array_equal(regime.of(flow), regime.of(rows))


def test_before_a_beginning_is_known_so_is_no_regime() -> None:
    regime = Regime(BOTH, COLUMNS)
    regime.fit(np.full((9, 3), np.nan))
    assert not regime.known
    assert regime.of(rows_of([0, 1])).tolist() == [-1, -1]
    regime.fit(rows_of([0]))
    assert regime.known
    regime.reset()
    assert not regime.known


def test_what_is_found_does_not_depend_on_when_it_is_found() -> None:
    rows = rows_of([0, 1, 2] * 20)
    first, second = fitted(rows).arrays(), fitted(rows).arrays()
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name])


@pytest.mark.parametrize("found", [0, 1, 3])
def test_state_has_a_fixed_shape_and_comes_back(found: int) -> None:
    regime = Regime(BOTH, COLUMNS)
    empty = {name: values.shape for name, values in regime.arrays().items()}
    if found:
        regime.fit(rows_of(list(range(found)) * 20))
    arrays = regime.arrays()
    assert {name: values.shape for name, values in arrays.items()} == empty
    back = Regime(BOTH, COLUMNS)
    back.restore(arrays)
    assert back.found == regime.found == found
    rows = rows_of([0, 1, 2] * 5, spread=0.2)
    np.testing.assert_array_equal(back.of(rows), regime.of(rows))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (Clustered(("speed", "power")), "'power'.*flow, speed, load"),
        (Clustered(()), "at least one"),
        (Clustered(("speed", "speed")), "once each|each channel once"),
        (Declared({}), "at least one"),
        (Declared({"rpm": (1.0,)}), "'rpm'"),
        (Declared({"speed": ()}), "'speed'.*ascending"),
        (Declared({"speed": (2.0, 1.0)}), "'speed'.*ascending"),
        (Declared({"speed": (1.0, float("nan"))}), "'speed'.*ascending"),
        (Declared({"speed": tuple(range(64))}), "65 regimes"),
    ],
    ids=repr,
)
def test_regimes_that_cannot_be_are_refused(spec: Clustered | Declared, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Regime(spec, COLUMNS)
