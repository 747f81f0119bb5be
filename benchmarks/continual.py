"""A value told from other channels while the process changes: learning on against standing still.

    python -m benchmarks.continual --data ../shared/data/gasturbine

NOx of a gas turbine, hour by hour, from nine other channels; labels come a week late. The first
year is learnt, each later one is told: prequentially (told first, learnt when its label comes), and
by what the first year taught, which stands still. Then the same where labels stop within a year.

Built of the contract's own parts (``GramSums`` with forgetting, ``Basis``, ``Expansion``), not run
through an agent: a target that is a channel is no option of an asset class. Two memories of one
expansion, one that forgets and one that does not, and a small fast one on what both leave. Settings
were chosen on the second year; the third was looked at once while designing.
"""

import argparse
import gzip
import json
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from contract.arrays import Floats
from contract.model_spec import Ridge
from contract.models.moments import Moments
from contract.models.ridge import Basis, GramSums

INPUTS = "AT", "AP", "AH", "AFDP", "GTEP", "TIT", "TAT", "TEY", "CDP"
DELAY = 168
"""Hours after which a label comes."""
STEP = 24
"""Hours that are told at a time."""


class Settings(NamedTuple):
    """Of the soft sensor.

    Attributes:
        random: features.
        width: of the random projection.
        clip: standardised inputs, in deviations.
        penalty: ridge penalty, absolute.
        half: hours after which what was learnt counts half.
        slow: what the memory that does not forget counts.
        fast_half: the same as ``half`` of the fast part.
        fast_penalty: of it.
        fade: hours without labels after which the fast part counts half.
        back: how far it goes back then to what the first year taught: 1: all the way.
        solve: steps from one solution of the large sums to the next.
    """

    random: int = 300
    width: float = 0.5
    clip: float = 2.5
    penalty: float = 10.0
    half: float = 8000.0
    slow: float = 0.3
    fast_half: float = 150.0
    fast_penalty: float = 400.0
    fade: float = 336.0
    back: float = 1.0
    solve: int = 7


class SoftSensor:
    """Learns a channel from others, forgets, and falls back when nothing is to be learnt.

    All that it knows is sums: merged over machines they are those of all rows.
    """

    def __init__(
        self, X: Floats, y: Floats, settings: Settings, activation: str, seed: int
    ) -> None:
        self.settings = settings
        self._basis = Basis.of(Moments.of(X, diagonal=True))
        spec = Ridge(
            random=settings.random,
            activation="relu" if activation == "relu" else "fourier",
            width=settings.width,
            seed=seed,
        )
        self._expansion = self._basis.expansion(spec)
        wide, narrow = self._rows(X)
        self.all = GramSums.of(wide, y)
        self.recent = GramSums.of(wide, y, 0.5 ** (np.arange(len(y))[::-1] / settings.half))
        self.fast = GramSums.empty(narrow.shape[1])
        self._slope: Floats = np.zeros(narrow.shape[1])
        self._solve()
        self.first = self._solved(self.all, settings.penalty)
        self._overdue = 0

    def _rows(self, X: Floats) -> tuple[Floats, Floats]:
        Z = np.clip(self._basis.apply(X), -self.settings.clip, self.settings.clip)
        wide = self._expansion.apply(Z)
        return wide, wide[:, : 1 + Z.shape[1]]

    @staticmethod
    def _solved(sums: GramSums, penalty: float) -> Floats:
        return sums.solve(penalty / sums.n)

    def _solve(self) -> None:
        both = self.recent.merge(self.all.decay(self.settings.slow))
        self._coefficients = self._solved(both, self.settings.penalty)

    def predict(self, X: Floats) -> Floats:
        """Return what is told for the next hours ``(n, F)``."""
        wide, narrow = self._rows(X)
        late = max(self._overdue - DELAY, 0)
        self._overdue += len(X)
        fresh = 0.5 ** (late / self.settings.fade)
        back = self.settings.back * (1.0 - fresh)
        now = wide @ self._coefficients + fresh * (narrow @ self._slope)
        told: Floats = (1.0 - back) * now + back * (wide @ self.first)
        return told

    def static(self, X: Floats) -> Floats:
        """Return what the first year alone taught."""
        told: Floats = self._rows(X)[0] @ self.first
        return told

    def learn(self, X: Floats, y: Floats, *, solve: bool) -> None:
        """Take labels, in the order of time."""
        wide, narrow = self._rows(X)
        self._overdue = 0
        age = np.arange(len(y))[::-1]
        rest = y - wide @ self._coefficients
        half = self.settings.fast_half
        self.fast = self.fast.decay(0.5 ** (len(y) / half)).add(narrow, rest, 0.5 ** (age / half))
        damped = self.fast.gram + self.settings.fast_penalty * np.eye(len(self._slope))
        self._slope = np.asarray(np.linalg.solve(damped, self.fast.target), dtype=np.float64)
        half = self.settings.half
        self.recent = self.recent.decay(0.5 ** (len(y) / half)).add(wide, y, 0.5 ** (age / half))
        self.all = self.all.add(wide, y)
        if solve:
            self._solve()


def prequential(
    X: Floats, y: Floats, start: int, sensor: SoftSensor, stop: int | None = None
) -> Floats:
    """Return what is told of each hour from ``start`` on; NaN before.

    ``stop``: no label of a later hour ever comes; None: all come.
    """
    told = np.full(len(y), np.nan)
    known = start
    for turn, t in enumerate(range(start, len(y), STEP)):
        told[t : t + STEP] = sensor.predict(X[t : t + STEP])
        upto = min(t + STEP - DELAY, len(y) if stop is None else stop)
        if upto > known:
            sensor.learn(X[known:upto], y[known:upto], solve=turn % sensor.settings.solve == 0)
            known = upto
    return told


def load(folder: Path) -> dict[int, tuple[Floats, Floats]]:
    """Return inputs and NOx by year, of files ``gt_YYYY.csv``, plain or ``.gz``."""
    years = {}
    for path in sorted(folder.glob("gt_*.csv*")):
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
            names = next(lines).strip().upper().split(",")
            table = np.array(
                [[float(v) for v in line.split(",")] for line in lines if line.strip()]
            )
        X = table[:, [names.index(name) for name in INPUTS]]
        years[int(path.name[3:7])] = X, table[:, names.index("NOX")]
    if len(years) < 2:
        raise SystemExit(f"{folder}: two years at least are needed, gt_2011.csv, gt_2012.csv ...")
    return years


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with gt_2011.csv ...")
    parser.add_argument("--seed", type=int, default=1, help="of the random features")
    parser.add_argument("--activation", choices=["fourier", "relu"], default="fourier")
    parser.add_argument("--set", nargs=2, action="append", default=[], help="setting and value")
    parser.add_argument("--until", type=int, default=9999, help="last year that is told")
    parser.add_argument("--brief", action="store_true", help="leave out where labels stop")
    arguments = parser.parse_args()
    years = {y: d for y, d in load(arguments.data).items() if y <= arguments.until}
    settings = Settings(**{name: json.loads(value) for name, value in arguments.set})
    X = np.concatenate([x for x, _ in years.values()])
    y = np.concatenate([labels for _, labels in years.values()])
    year = np.repeat(list(years), [len(labels) for _, labels in years.values()])
    start = int((year == min(years)).sum())
    later = sorted(years)[1:]
    began = time.process_time()

    def sensor() -> SoftSensor:
        return SoftSensor(X[:start], y[:start], settings, arguments.activation, arguments.seed)

    def error(told: Floats, at: NDArray[np.bool_]) -> float:
        return round(float(np.abs(told - y[: len(told)])[at].mean()), 3)

    static = sensor().static(X)
    told = prequential(X, y, start, sensor())
    print(f"prequential: {time.process_time() - began:.0f} s of processor", file=sys.stderr)
    result = {
        "mae_prequential": {str(v): error(told, year == v) for v in later},
        "mae_static": {str(v): error(static, year == v) for v in later},
    }
    print("\n| NOx, mean absolute error in mg/m3 | learning on | standing still |\n|---|---|---|")
    for name, on in result["mae_prequential"].items():
        print(f"| {name} | {on} | {result['mae_static'][name]} |")
    stops: dict[str, list[float]] = {}
    for v in [] if arguments.brief else later:
        first, end = (int(i) for i in np.flatnonzero(year == v)[[0, -1]])
        for part in (0.1, 0.25, 0.5, 0.75):
            stop = int(first + part * (end - first))
            after = np.arange(end + 1) >= stop + DELAY
            left = prequential(X[: end + 1], y[: end + 1], start, sensor(), stop)
            pair = [error(left, after), error(static[: end + 1], after)]
            stops[f"{v} from {part:.0%}"] = pair
            print(
                f"| {v}, no labels from {part:.0%} of it on | {pair[0]} | {pair[1]} |", flush=True
            )
    worse = [name for name, (on, still) in stops.items() if on > still]
    print(f"\nWorse than standing still once labels stop: {', '.join(worse) or 'never'}.\n")
    print(json.dumps(result | {"mae_labels_stop": stops}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
