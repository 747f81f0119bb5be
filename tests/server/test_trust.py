"""Sums that lie are found by what most others agree on; honest ones that are unlike are not."""

from typing import Any

import numpy as np
import pytest

from contract.arrays import Floats
from contract.model_spec import Ridge
from contract.models.moments import Moments
from contract.models.ridge import GramSums
from server.guard import Limits
from server.merge import Contribution, Key
from server.trust import error, trusted, trusted_statistics

LIMITS = Limits()
TRUTH = np.array([30.0, 8.0, -4.0, 2.0])
CAP = 60.0


def rows_of(
    seed: int, n: int = 200, *, off: float = 0.0, gain: float = 1.0
) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    Z = gain * rng.normal(size=(n, 3)) + off
    phi = np.hstack([np.ones((n, 1)), Z])
    return phi, phi @ TRUTH + 3.0 * rng.normal(size=n)


def told(node: str, phi: Floats, y: Floats, scale: float = 1.0) -> Contribution:
    sums = GramSums.of(phi, y).decay(scale)
    return Contribution(Key(node, 1, "", round(sums.n)), sums.arrays("ridge/"))


def fleet(n: int = 10) -> list[Contribution]:
    return [told(f"node-{i}", *rows_of(i)) for i in range(n)]


def test_the_error_by_sums_is_the_error_on_the_rows() -> None:
    phi, y = rows_of(1)
    coefficients = np.array([20.0, 5.0, 1.0, 0.0])
    by_rows = np.sqrt(np.mean((phi @ coefficients - y) ** 2))
    assert error(GramSums.of(phi, y), coefficients) == pytest.approx(by_rows)


def test_honest_nodes_are_believed_also_where_they_are_unlike_each_other() -> None:
    unlike = [
        told("near", *rows_of(21, off=0.5)),
        told("wide", *rows_of(22, gain=2.0)),
        told("few", *rows_of(23, 30)),
        told("many", *rows_of(24, 1500)),
    ]
    found = trusted(fleet(6) + unlike, 1e-3, LIMITS)
    assert len(found.contributions) == 10
    assert (found.reduced, found.left_out) == ({}, {})


@pytest.mark.parametrize("scale", [1.0, 5.0])
@pytest.mark.parametrize(
    "lie",
    [
        lambda phi, y: (phi, CAP - y),
        lambda phi, y: (phi, 10.0 * y),
        lambda phi, y: (phi, -y),
        lambda phi, y: (phi, np.roll(y, 7) * 3.0),
    ],
    ids=["turned round", "times ten", "other sign", "shuffled"],
)
def test_a_colluding_fifth_is_left_out_and_named(lie: Any, scale: float) -> None:
    honest = fleet()
    liars = [told(f"node-{i}", *lie(*rows_of(i)), scale) for i in (2, 6)]
    found = trusted([*honest[:2], *honest[3:6], *honest[7:], *liars], 1e-3, LIMITS)
    assert found.left_out.keys() == {"node-2", "node-6"}
    assert "the fleet's model errs by" in found.left_out["node-2"]
    assert len(found.contributions) == 8


def test_even_where_less_than_half_of_the_fleet_is_honest_but_one() -> None:
    liars = [told(f"liar-{i}", rows_of(50 + i)[0], CAP - rows_of(50 + i)[1]) for i in range(4)]
    found = trusted(fleet(6) + liars, 1e-3, LIMITS)
    assert found.left_out.keys() == {f"liar-{i}" for i in range(4)}


def test_who_claims_far_more_rows_than_others_counts_for_less() -> None:
    found = trusted([*fleet(), told("heavy", *rows_of(40), 1000.0)], 1e-3, LIMITS)
    assert found.left_out == {}
    assert "claims 200000 rows, counted as 2000" in found.reduced["heavy"]
    heavy = next(one for one in found.contributions if one.key.node == "heavy")
    assert float(heavy.arrays["ridge/n"][0]) == pytest.approx(2000)


def test_a_few_nodes_have_no_majority_and_none_of_them_is_left_out() -> None:
    phi, y = rows_of(9)
    few = [*fleet(2), told("liar", phi, CAP - y)]
    assert trusted(few, 1e-3, LIMITS).contributions is few


def test_nodes_without_rows_are_neither_asked_nor_left_out() -> None:
    empty = Contribution(Key("new", 1, "", 0), GramSums.empty(4).arrays("ridge/"))
    found = trusted([*fleet(5), empty], 1e-3, LIMITS)
    assert len(found.contributions) == 6


# -- statistics ------------------------------------------------------------------------------------


def healthy(node: str, seed: int, n: int = 60, gain: float = 1.0, off: float = 0.0) -> Contribution:
    Z = gain * np.random.default_rng(seed).normal(size=(n, 5)) + off
    basis = Moments.of(Z, diagonal=True)
    arrays = {**basis.arrays("basis/"), **Moments.of(Z).arrays("health/")}
    return Contribution(Key(node, 1, "", n), arrays)


def test_healthy_vectors_that_spread_unlike_all_others_are_left_out() -> None:
    honest = [healthy(f"node-{i}", i, gain=1.0 + 0.1 * i) for i in range(6)]
    liars = [
        healthy("blind", 20, gain=30.0),
        healthy("alarm", 21, gain=0.05),
        healthy("away", 22, off=9.0),
    ]
    found = trusted_statistics([*honest, *liars], LIMITS)
    assert found.left_out.keys() == {"blind", "alarm", "away"}
    assert len(found.contributions) == 6
    heavy = healthy("heavy", 23, n=60_000)
    found = trusted_statistics([*honest, heavy], LIMITS)
    assert found.reduced.keys() == {"heavy"}
    kept = found.contributions[-1]
    assert float(kept.arrays["health/n"]) == pytest.approx(600)
    variance = np.diagonal(kept.arrays["health/scatter"]) / float(kept.arrays["health/n"])
    np.testing.assert_allclose(variance, 1.0, atol=0.05)


def test_statistics_that_are_no_moments_pass() -> None:
    others = [Contribution(Key(f"n{i}", 1, "", 5), {"health/mass": np.ones(3)}) for i in range(5)]
    assert trusted_statistics(others, LIMITS).contributions is others


# -- in a training ---------------------------------------------------------------------------------


def test_a_training_leaves_a_liar_out_and_writes_down_why(
    stores: Any, grid: Any, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    import sqlite3

    from server.registry import Registry
    from server.rounds import Fleet
    from server.status import Status
    from server.training import Settings, Training

    spec = stores.pump(Ridge(random=10))
    for i in range(5):
        grid.states[i + 1] = stores.make(f"rpi-{i}", spec, seed=i)
    db = sqlite3.connect(stores.folder / "rpi-4" / "store.db")
    # A device that tells its lives the other way round.
    lives = db.execute("SELECT asset, life, t_ns FROM life_row ORDER BY asset, life, t_ns")
    content = db.execute("SELECT x FROM life_row ORDER BY asset, life, t_ns DESC")
    turned = [(x, *key) for key, (x,) in zip(lives.fetchall(), content.fetchall(), strict=True)]
    db.executemany("UPDATE life_row SET x = ? WHERE asset = ? AND life = ? AND t_ns = ?", turned)
    db.commit()
    db.close()
    (tmp_path / "server").mkdir()
    settings = Settings(tmp_path / "server", "", 1, 1, 0.3, 60.0, "fedavg", False, LIMITS)
    release = Training(settings, Fleet(grid), Status()).run()
    assert release is not None
    assert "rpi-4: its ridge sums are left out" in caplog.text
    events = Registry(tmp_path / "server", "pump").journal()
    (noted,) = [event for event in events if event["event"] == "left_out"]
    assert noted["node"] == "rpi-4"
    assert release.manifest.lives.keys() == {"rpi-0", "rpi-1", "rpi-2", "rpi-3"}
