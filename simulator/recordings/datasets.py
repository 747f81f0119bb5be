"""The recordings that can be replayed, by the name that the command uses."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from contract.errors import RunoutError
from simulator.recordings import ai4i, cwru, femto, gasturbine, nab, skab, table, tep, text
from simulator.recordings.series import Series


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says of a recording.

    Attributes:
        columns: description of a plain table.
        rate_hz: of waveforms whose files do not say it.
        samples: of a burst that is cut from a longer recording.
    """

    columns: Path | None
    rate_hz: float
    samples: int


def _csv(where: Path, options: Options) -> list[Series]:
    if options.columns is None:
        raise RunoutError("--dataset csv: say what the columns are with --map FILE.toml")
    described = table.load_map(options.columns)
    paths = text.found(where, ("*.csv", "*.txt"), "a table")
    return [series for path in paths for series in table.read(path, described)]


Load = Callable[[Path, Options], list[Series]]
DATASETS: dict[str, tuple[Load, str]] = {
    "skab": (lambda where, _: skab.load(where), "a water circuit, labelled; data/<group>/<n>.csv"),
    "nab": (lambda where, _: nab.load(where), "single values; data/<category>/<file>.csv, labels/"),
    "ai4i": (lambda where, _: ai4i.load(where), "made-up milling; ai4i2020.csv"),
    "gasturbine": (lambda where, _: gasturbine.load(where), "a real plant; gt_2011.csv to 2015"),
    "tep": (lambda where, _: tep.load(where), "Tennessee Eastman; d00.dat, d01_te.dat, ..."),
    "femto": (
        lambda where, _: femto.load(where),
        "bearings run to failure; Bearing1_1/acc_00001.csv, or femto_features*.csv",
    ),
    "cwru": (
        lambda where, options: cwru.load(where, options.rate_hz, options.samples),
        "bearings with seeded faults; *.mat, --rate 12000 or 48000",
    ),
    "csv": (_csv, "any table, by a description of its columns: --map FILE.toml"),
}
"""Beside C-MAPSS, which has engines and subsets of its own."""
