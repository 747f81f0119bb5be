"""What makes sums mergeable: any order, any repetition, exact withdrawal, kept over restarts."""

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.models.ridge import GramSums
from server.merge import Contribution, Key, Ledger, gram_total


def sums(seed: int, rows: int = 20) -> GramSums:
    rng = np.random.default_rng(seed)
    return GramSums.of(rng.normal(size=(rows, 5)) * 10.0**seed, rng.uniform(size=rows))


def contribution(node: str, epoch: int, tie: str = "basis") -> Contribution:
    return Contribution(Key(node, epoch, tie, 20), sums(epoch % 7).arrays("ridge/"))


MANY = st.lists(
    st.builds(contribution, st.sampled_from("abcd"), st.integers(0, 9)), min_size=1, max_size=12
)


def total(contributions: list[Contribution]) -> bytes:
    """Return the total of a fresh ledger, to the last bit."""
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder))
        for one in contributions:
            ledger.put(one)
        return bits(ledger)


def bits(ledger: Ledger) -> bytes:
    merged = gram_total(ledger.under("basis"))
    assert merged is not None
    return merged.gram.tobytes() + merged.target.tobytes() + repr(merged.n).encode()


@settings(max_examples=25, deadline=None)
@given(MANY, st.randoms())
def test_the_order_of_arrival_makes_no_difference(many: list[Contribution], random) -> None:  # noqa: ANN001
    shuffled = list(many)
    random.shuffle(shuffled)
    assert total(many) == total(shuffled)


@settings(max_examples=25, deadline=None)
@given(MANY)
def test_what_comes_again_changes_nothing(many: list[Contribution]) -> None:
    assert total(many) == total(many + many[::-1])


@settings(max_examples=25, deadline=None)
@given(MANY)
def test_withdrawal_is_exact(many: list[Contribution]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder))
        for one in many:
            ledger.put(one)
        before = bits(ledger)
        ledger.put(contribution("e", 3))
        assert bits(ledger) != before
        assert ledger.withdraw("e")
        assert not ledger.withdraw("e")
        assert bits(ledger) == before
        assert bits(Ledger(Path(folder))) == before


def test_a_total_is_the_sum_over_all_rows() -> None:
    rng = np.random.default_rng(5)
    phi, y = rng.normal(size=(90, 6)), rng.uniform(0, 100, 90)
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder))
        for i in range(3):
            part = slice(30 * i, 30 * i + 30)
            arrays = GramSums.of(phi[part], y[part]).arrays("ridge/")
            ledger.put(Contribution(Key(f"rpi-{i}", 1, "basis", 30), arrays))
        merged = gram_total(ledger.under("basis"))
    assert merged is not None
    whole = GramSums.of(phi, y)
    assert np.abs(merged.gram - whole.gram).max() <= 1e-9 * np.abs(whole.gram).max()
    assert np.abs(merged.solve(1e-3) - whole.solve(1e-3)).max() <= 1e-9


def test_a_newer_epoch_replaces_and_an_older_one_does_not(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    assert ledger.put(contribution("a", 5))
    assert not ledger.put(contribution("a", 4))
    assert not ledger.put(contribution("a", 5))
    assert ledger.put(contribution("a", 6))
    assert [one.key.epoch for one in Ledger(tmp_path).under("basis")] == [6]


def test_sums_of_another_basis_do_not_count(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.put(contribution("a", 5, tie="old"))
    ledger.put(contribution("b", 5))
    assert [one.key.node for one in ledger.under("basis")] == ["b"]
    assert ledger.nodes_not_under("basis") == ["a"]
    # The node's next one under the new basis counts, whatever its epoch was.
    assert ledger.put(contribution("a", 5))
    assert len(ledger.under("basis")) == 2


def test_a_truncated_file_costs_one_contribution_and_is_said(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.put(contribution("a", 1))
    ledger.put(contribution("b", 1))
    path = tmp_path / "a.npz"
    path.write_bytes(path.read_bytes()[:100])
    (tmp_path / "c.npz.part").write_bytes(b"killed while writing")
    again = Ledger(tmp_path)
    assert [one.key.node for one in again.under("basis")] == ["b"]
    assert len(again.unreadable) == 1
    assert again.put(contribution("a", 1))


def test_a_name_that_would_leave_the_folder_stays_in_it(tmp_path: Path) -> None:
    Ledger(tmp_path / "in").put(contribution("../out", 1))
    assert [path.name for path in tmp_path.rglob("*.npz")] == ["..%2Fout.npz"]
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
