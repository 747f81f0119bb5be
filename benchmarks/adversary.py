"""What a colluding fifth of a fleet can do to its models: merged as they come, and guarded.

    python -m benchmarks.adversary --data ../shared/data/cmapss_fd001

C-MAPSS FD001, ten nodes of ten engines, two of which lie in the same way; error of remaining life
on the last cycle of each test engine, capped at 125. Sums: the nodes' own ridge sums, altered as
their device could, and merged by the server's ledger with and without its guard and trust. Weights:
a small network's, averaged plainly, or balanced and merged by a trimmed mean.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.cmapss import CAP, Fleet, last_vectors, load, ridge_of, rmse
from benchmarks.federation import deal
from benchmarks.in_process import contribution
from contract import VERSION
from contract.arrays import Arrays, Floats
from contract.models.layers import LayersModel
from contract.models.ridge import Basis, GramSums, RidgeModel
from contract.update import FIT, Request, Update
from server.guard import Limits, Weights, balance, judge
from server.merge import Contribution, gram_total
from server.strategy import WeightsMerger
from server.trust import trusted

LIARS = (2, 6)
ROUNDS = 5
LIMITS = Limits()
SEED = 1


def _altered(update: Update, change: Callable[[GramSums], GramSums], rows: float = 1.0) -> Update:
    sums = change(GramSums.from_arrays(update.arrays, "ridge/"))
    head = msgspec.structs.replace(update.head, rows=round(update.head.rows * rows))
    return Update(head, {**update.arrays, **sums.arrays("ridge/")})


def _flipped(sums: GramSums) -> GramSums:
    """Return the sums of the same rows, whose labels are the cap less what they were."""
    target = CAP * sums.gram[0] - sums.target
    energy = CAP**2 * sums.n - 2 * CAP * float(sums.target[0]) + sums.energy
    return GramSums(sums.n, sums.gram, target, energy)


def _ten_times(sums: GramSums) -> GramSums:
    return GramSums(sums.n, sums.gram, 10.0 * sums.target, 100.0 * sums.energy)


def _noise(sums: GramSums) -> GramSums:
    """Return the sums of rows of noise with labels of noise."""
    rng = np.random.default_rng(SEED)
    phi = np.hstack([np.ones((500, 1)), 3.0 * rng.normal(size=(500, len(sums.target) - 1))])
    return GramSums.of(phi, rng.uniform(0, CAP, 500)).decay(sums.n / 500)


def _floats(array: NDArray[np.generic]) -> Floats:
    return np.asarray(array, dtype=np.float64)


SUMS: dict[str, Callable[[Update], Update]] = {
    "labels turned round": lambda one: _altered(one, _flipped),
    "labels times ten": lambda one: _altered(one, _ten_times),
    "labels turned round, 1,000 times the rows": lambda one: _altered(
        one, lambda sums: _flipped(sums).decay(1000.0), 1000.0
    ),
    "rows of noise": lambda one: _altered(one, _noise),
    "target of the other sign, energy as it was": lambda one: _altered(
        one, lambda sums: replace(sums, target=-sums.target)
    ),
    "not a number": lambda one: _altered(
        one, lambda sums: replace(sums, target=sums.target * np.nan)
    ),
    "one array too short": lambda one: Update(
        one.head, {**one.arrays, "ridge/target": one.arrays["ridge/target"][:-1]}
    ),
    "more rows claimed than sent": lambda one: _altered(one, lambda sums: sums, 0.001),
}
WEIGHTS: dict[str, Callable[[Arrays, Arrays], Arrays]] = {
    "steps of the other sign, times ten": lambda own, start: {
        name: _floats(start[name]) - 10.0 * (_floats(own[name]) - _floats(start[name]))
        for name in own
    },
    "weights times a hundred": lambda own, _: {name: 100.0 * _floats(own[name]) for name in own},
}


def attacked_sums(fleet: Fleet, X: Floats, true: Floats) -> list[dict[str, object]]:
    """Print what each attack on sums comes to."""
    basis = fleet.basis()
    model = ridge_of(fleet.spec)
    asked = Request(VERSION, FIT, fleet.spec.name, fleet.spec.digest(), 1, ("ridge",))
    honest = [d.answer(FIT, basis.arrays(), round_=1, models=("ridge",)) for d in fleet.devices]

    def judged(told: Sequence[Contribution]) -> float:
        total = gram_total(told)
        if total is None:
            return float("nan")
        return rmse(RidgeModel(model, basis, total.solve(model.penalty), CAP).predict(X), true)

    clean = judged([contribution(one, "") for one in honest])
    rows: list[dict[str, object]] = []
    print(f"\n{'sums':46}{'as they come':>13}{'guarded':>9}  by what")
    print(f"{'nobody lies':46}{clean:13.2f}{_guarded(honest, asked, fleet, judged)[0]:9.2f}")
    for name, lie in SUMS.items():
        told = [lie(one) if i in LIARS else one for i, one in enumerate(honest)]
        try:
            plain = judged([contribution(one, "") for one in told])
        except ValueError:
            plain = float("nan")  # it cannot even be added
        guarded, why = _guarded(told, asked, fleet, judged)
        told_plain = "no model" if np.isnan(plain) else f"{plain:.2f}"
        print(f"{name:46}{told_plain:>13}{guarded:9.2f}  {why}")
        rows.append(
            {"attack": name, "mean": None if np.isnan(plain) else plain, "guarded": guarded}
        )
    rows.append({"attack": "", "mean": clean, "guarded": clean})
    return rows


def _guarded(
    told: list[Update],
    asked: Request,
    fleet: Fleet,
    judged: Callable[[Sequence[Contribution]], float],
) -> tuple[float, str]:
    spec = fleet.spec
    passed, why = [], ""
    for one in told:
        against = judge(one, asked, spec)
        why = f"guard: {against[0]}" if against else why
        if not against:
            passed.append(contribution(one, ""))
    found = trusted(passed, ridge_of(spec).penalty, LIMITS)
    for name, reason in (found.reduced | found.left_out).items():
        why = f"trust: {name}: {reason}"
    return judged(found.contributions), why[:100]


def attacked_weights(fleet: Fleet, X: Floats, true: Floats) -> list[dict[str, object]]:
    """Print what each attack on weights comes to."""
    basis = replace(fleet.basis(), shape=None)

    def run(lie: Callable[[Arrays, Arrays], Arrays] | None, *, guarded: bool) -> float:
        merger = WeightsMerger("fedtrimmedavg" if guarded else "fedavg", None)  # type: ignore[arg-type]
        merged: Arrays = {}
        for round_ in range(1, ROUNDS + 1):
            weights = []
            for i, device in enumerate(fleet.devices):
                arrays = basis.arrays() | merged
                update = device.answer(FIT, arrays, round_=round_, models=("sklearn",))
                own = update.arrays
                if lie is not None and i in LIARS:
                    own = lie(own, merged or {n: np.zeros_like(a) for n, a in own.items()})
                weights.append(Weights(update.head.node, float(update.head.rows), own))
            if guarded:
                weights, _ = balance(weights, merged or None, LIMITS)
            merged = merger.merge(round_, None, weights)
        return _network_error(merged, basis, X, true)

    rows: list[dict[str, object]] = []
    print(f"\n{'weights, ' + str(ROUNDS) + ' rounds':46}{'FedAvg':>13}{'guarded':>9}")
    clean, guarded = run(None, guarded=False), run(None, guarded=True)
    print(f"{'nobody lies':46}{clean:13.2f}{guarded:9.2f}")
    for name, lie in WEIGHTS.items():
        plain, held = run(lie, guarded=False), run(lie, guarded=True)
        print(f"{name:46}{plain:13.2f}{held:9.2f}")
        rows.append({"attack": name, "mean": plain, "guarded": held})
    return rows


def _network_error(arrays: Arrays, basis: Basis, X: Floats, true: Floats) -> float:
    return rmse(LayersModel.from_arrays(arrays, "sklearn/", basis, CAP).predict(X), true)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of train_FD001.txt(.gz)")
    arguments = parser.parse_args()
    train, test, raw = load(arguments.data, "FD001")
    true = np.minimum(raw, CAP)
    print(f"error of remaining life, cycles; nodes {LIARS} of 0 to 9 lie; seed {SEED}")
    with tempfile.TemporaryDirectory(prefix="runout-bench-") as folder:
        fleet = Fleet(Path(folder), deal("A", train), holdout=0)
        X = last_vectors(fleet.devices[0], test)
        sums = attacked_sums(fleet, X, true)
        weights = attacked_weights(fleet, X, true)
        fleet.close()
    clean = sums.pop()["mean"]
    worst = [row for row in sums if isinstance(row["mean"], float)]
    last = {
        "clean": clean,
        "attacked_mean": max(float(str(row["mean"])) for row in worst),
        "attacked_guarded": max(float(str(row["guarded"])) for row in sums),
        "sums": sums,
        "weights": weights,
    }
    print("\n" + json.dumps(last))


if __name__ == "__main__":
    main()
