"""What a new device can tell, by how much it has seen: alone, and with its cohort's release.

    python -m benchmarks.cold_start --data ../shared/data/cmapss_fd001

Remaining life: C-MAPSS FD001; nine nodes with ten engines each make a release, the tenth node gets
it and ends ever more lives of its own; judged is the last cycle of each test engine. In turns each
node is the new one. Health: a simulated fleet of machines with unlike gains and one way of being
healthy; a new machine is judged by T² and SPE of its own first vectors, of its cohort's in its own
standardisation, and of its cohort's in raw units; AUROC of vectors that break the correlation.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.cmapss import CAP, CONFIG, Fleet, last_vectors, load, ridge_of, rmse
from benchmarks.federation import deal
from benchmarks.in_process import Device, configured
from benchmarks.privacy import auroc
from contract.arrays import Floats
from contract.models.moments import HealthModel, Moments, spread

LIVES = (0, 1, 2, 4, 7, 10)
"""Own finished lives of the new device."""
VECTORS = (30, 45, 60, 120, 500, 2000)
"""Own vectors of the new machine; the first 30 are its baseline."""
BASELINE = 30
MACHINES = 20
COLUMNS = 24
SEEDS = tuple(range(1, 11))
GUESS = "always the mean"


def remaining_life(data: Path, newcomers: int) -> dict[str, list[float]]:
    """Print the table of remaining life; return the errors by own lives."""
    train, test, raw = load(data, "FD001")
    true = np.minimum(raw, CAP)
    share = deal("A", train)
    alone: list[list[float]] = []
    joined: list[list[float]] = []
    for new in range(newcomers):
        with tempfile.TemporaryDirectory(prefix="runout-bench-") as name:
            folder = Path(name)
            # One way of flying: no levels to be learnt from a first life.
            others = [engines for i, engines in enumerate(share) if i != new]
            fleet = Fleet(folder / "fleet", others, holdout=0, regimes=None)
            X = last_vectors(fleet.devices[0], test)
            total = fleet.ridge(
                fleet.basis(), order=list(range(len(others))), twice=False, name="sums"
            )
            config = configured(CONFIG, folder / "new", "new", holdout=0, regimes=None)
            device = Device(config)
            fleet.devices.append(device)
            fleet.hand_out(total)
            errors: list[tuple[float, float]] = []
            ended = 0
            for wanted in LIVES:
                for engine in share[new][ended:wanted]:
                    device.live(f"own-{engine.unit:03d}", engine.values, failed=True)
                ended = wanted
                errors.append(_errors(device, X, true))
            alone.append([one for one, _ in errors])
            joined.append([other for _, other in errors])
            fleet.close()
    guess = rmse(np.full(len(true), float(true.mean())), true)
    found = {
        "alone": np.mean(alone, axis=0).tolist(),  # NaN without a life: there is no model
        "with_cohort": np.mean(joined, axis=0).tolist(),
    }
    print(f"{'own finished lives':28}" + "".join(f"{n:8}" for n in LIVES))
    for text, row in (("alone", found["alone"]), ("with its cohort", found["with_cohort"])):
        cells = "".join(f"{'-':>8}" if np.isnan(v) else f"{v:8.2f}" for v in row)
        print(f"{text:28}{cells}")
    print(f"{GUESS:28}{guess:8.2f}\n")
    found["alone"] = [None if np.isnan(v) else v for v in found["alone"]]
    return found


def _errors(device: Device, X: Floats, true: Floats) -> tuple[float, float]:
    group = device.group
    device.learn()
    own = group.rul.models.get("ridge")
    judging = group.predictor()
    if judging is None:
        raise SystemExit("the release does not judge")
    alone = np.nan if own is None else rmse(own.predict(X), true)
    return alone, rmse(judging[1].predict(X), true)


def health() -> dict[str, list[float]]:
    """Print the table of health; return AUROC by own vectors."""
    found = {"alone": np.zeros(len(VECTORS)), "cohort": np.zeros(len(VECTORS))}
    found["cohort_raw"] = np.zeros(len(VECTORS))
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        mixing = rng.normal(size=(4, COLUMNS))
        gains = np.exp(rng.normal(scale=1.0, size=(MACHINES + 1, COLUMNS)))
        offsets = 5.0 * rng.normal(size=(MACHINES + 1, COLUMNS))

        def draw(
            machine: int,
            n: int,
            rng: np.random.Generator = rng,
            mixing: Floats = mixing,
            gains: Floats = gains,
            offsets: Floats = offsets,
        ) -> Floats:
            common = rng.normal(size=(n, 4)) @ mixing + 0.3 * rng.normal(size=(n, COLUMNS))
            drawn: Floats = common * gains[machine] + offsets[machine]
            return drawn

        total, raw = Moments.empty(COLUMNS), Moments.empty(COLUMNS)
        for machine in range(MACHINES):
            X = draw(machine, 60)
            total = total.merge(Moments.of(standardised(X, X)))
            raw = raw.merge(Moments.of(X))
        new = MACHINES
        sick = draw(new, 2000)
        sick[:, 3] += 1.5 * gains[new, 3]
        well = draw(new, 2000)
        cohort = solved(total)
        all_raw = spread(raw.variance(), raw.mean)
        raw_model = solved(
            Moments(raw.n, np.zeros(COLUMNS), raw.scatter / np.outer(all_raw, all_raw))
        )
        for k, n in enumerate(VECTORS):
            own = draw(new, n)
            first = own[:BASELINE]
            alone = solved(Moments.of(standardised(own, first)))
            for name, model in (("alone", alone), ("cohort", cohort)):
                scores = (model.score_rows(standardised(Z, first)) for Z in (well, sick))
                found[name][k] += auroc(*scores)
            scores = (raw_model.score_rows((Z - raw.mean) / all_raw) for Z in (well, sick))
            found["cohort_raw"][k] += auroc(*scores)
    means = {name: (values / len(SEEDS)).tolist() for name, values in found.items()}
    print(f"{'own vectors':28}" + "".join(f"{n:8}" for n in VECTORS))
    for text, name in (
        ("its own moments", "alone"),
        ("its cohort's", "cohort"),
        ("its cohort's, in raw units", "cohort_raw"),
    ):
        print(f"{text:28}" + "".join(f"{v:8.3f}" for v in means[name]))
    return means


def standardised(X: Floats, first: Floats) -> Floats:
    """Return rows in the deviations of a beginning."""
    Z: Floats = (X - first.mean(axis=0)) / first.std(axis=0)
    return Z


def solved(moments: Moments) -> HealthModel:
    """Return the model that an agent would solve."""
    return HealthModel.solve(moments, variance=0.9, alarm_rate=0.001)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of train_FD001.txt(.gz)")
    parser.add_argument(
        "--newcomers", type=int, default=10, help="nodes that are the new one in turns, at most 10"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = ridge_of(configured(CONFIG, Path(folder), "x").asset_class[0])
    print(f"seeds: ridge {model.seed}, health {SEEDS[0]} to {SEEDS[-1]}\n")
    print("error of remaining life, cycles")
    life = remaining_life(arguments.data, min(arguments.newcomers, 10))
    print("AUROC of health")
    told = {"lives": LIVES, "remaining_life": life, "vectors": VECTORS, "health": health()}
    print("\n" + json.dumps(told))


if __name__ == "__main__":
    main()
