"""The same recording through the agent here and on 64-bit Arm: the same outcomes, to what digit?

    python -m benchmarks.arm64 --data DIR --there "PREFIX" [--engines 3]

``DIR`` holds ``train_FD001.txt`` of NASA's C-MAPSS, plain or gzipped. ``PREFIX`` is what makes a
command run over there, where Runout is installed too and this machine's temporary folder is seen
under the same name: an emulator (``proot -q qemu-aarch64-static -r ROOT -b /tmp ...``), a container
of that platform, a wrapper of ssh. ``PREFIX python3 -m agent.cli replay ...`` is run, without
scikit-learn, and here the same. Told values are rounded to four digits; behind them the feature
vectors and the models, which are not, are compared as well. An emulator is 10 to 20 times slower
than a device: the times say that it runs, not how fast.
"""

import argparse
import gzip
import shlex
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import msgspec
import numpy as np

from agent.store import read_checkpoint
from contract.arrays import Floats
from contract.report import Alert, Health

CONFIG = Path(__file__).parents[1] / "configs" / "agent.turbofan.toml"
TOLERANCE = 1e-6
LAST_DIGIT = 1e-4
"""Of what is told: a value on the edge of a rounding may fall to either side."""
_decoder = msgspec.json.Decoder(Health | Alert)


def cut(data: Path, engines: int, out: Path) -> None:
    """Write the rows of the first engines to a file."""
    plain = data / "train_FD001.txt"
    if plain.exists():
        lines = plain.read_text().splitlines(keepends=True)
    else:
        with gzip.open(data / "train_FD001.txt.gz", "rt") as file:
            lines = file.readlines()
    out.write_text("".join(line for line in lines if int(line.split(maxsplit=1)[0]) <= engines))


def replay(prefix: list[str], recording: Path, folder: Path) -> float:
    """Replay a recording; outcomes and state stand in the folder. Returns seconds on the wall."""
    folder.mkdir()
    config = folder / "agent.toml"
    config.write_bytes(CONFIG.read_bytes())
    command = [*prefix, "-m", "agent.cli", "replay", str(recording), "--quiet"]
    command += ["--config", str(config), "--set", "learning.sklearn=false"]
    command += ["--out", str(folder / "told.jsonl"), "--state", str(folder / "state")]
    begin = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - begin


def told(folder: Path) -> list[Health | Alert]:
    """Return what was said."""
    with (folder / "told.jsonl").open("rb") as file:
        return [_decoder.decode(line) for line in file]


def vectors(folder: Path) -> Floats:
    """Return the feature vectors that were kept, ``(n, F)``."""
    with closing(sqlite3.connect(folder / "state" / "store.db")) as db:
        rows = db.execute("SELECT x FROM life_row ORDER BY asset, life, t_ns").fetchall()
    return np.frombuffer(b"".join(row[0] for row in rows)).reshape(len(rows), -1)


def gap(one: Floats, other: Floats) -> float:
    """Return the largest difference, relative to the largest value of its column; NaN on NaN is 0.

    >>> gap(np.array([[1.0, 200.0]]), np.array([[1.0, 200.2]])) < 1.1e-3
    True
    >>> gap(np.array([np.nan]), np.array([1.0]))
    inf
    """
    if one.shape != other.shape or not np.array_equal(np.isnan(one), np.isnan(other)):
        return float("inf")
    known = np.nan_to_num(np.abs(one), posinf=0.0, neginf=0.0)
    scale = np.maximum(known.max(axis=0, initial=0.0), 1e-12)
    with np.errstate(invalid="ignore"):
        off = np.where(one == other, 0.0, np.abs(one - other))  # infinities that are equal, too
    return float(np.max(np.nan_to_num(off, nan=0.0, posinf=np.inf) / scale, initial=0.0))


def compare(here: Path, there: Path) -> tuple[list[str], bool]:
    """Compare two folders of ``replay``; returns lines for people, and whether they agree."""
    lines: list[str] = []
    mine, theirs = told(here), told(there)
    same_story = [_story(one) for one in mine] == [_story(one) for one in theirs]
    lines.append(f"{len(mine)} outcomes here, {len(theirs)} there, story the same: {same_story}")
    good = same_story
    if same_story:
        for name in ("health", "score", "rul_h", "rul_local_h"):
            a, b = _values(mine, name), _values(theirs, name)
            off = np.abs(a - b)[~np.isnan(a)]
            lines.append(
                f"told {name:12} largest difference {np.max(off, initial=0.0):.1e}, "
                f"{np.count_nonzero(off)} of {off.size} differ"
            )
            # Behind one digit of rounding the unrounded state below decides.
            good &= bool(np.max(off, initial=0.0) <= 1.001 * LAST_DIGIT)
    off_by = gap(vectors(here), vectors(there))
    lines.append(f"feature vectors   largest relative difference {off_by:.1e}")
    good &= off_by <= TOLERANCE
    _, own = read_checkpoint(here / "state" / "checkpoint.npz")
    _, other = read_checkpoint(there / "state" / "checkpoint.npz")
    if own.keys() != other.keys():
        return [*lines, "the checkpoints hold other arrays"], False
    worst, where = max(
        (gap(np.asarray(own[name], float), np.asarray(other[name], float)), name) for name in own
    )
    lines.append(f"{len(own)} arrays of state  largest relative difference {worst:.1e} in {where}")
    return lines, good


def _story(outcome: Health | Alert) -> tuple[object, ...]:
    """Return what is said without its numbers."""
    more = outcome.id if isinstance(outcome, Alert) else (outcome.life, outcome.rul_model)
    return (outcome.asset, outcome.t, outcome.state, more)


def _values(outcomes: list[Health | Alert], name: str) -> Floats:
    found = [getattr(one, name) for one in outcomes if isinstance(one, Health)]
    return np.array([np.nan if value is None else value for value in found])


def main() -> int:
    """Replay here and there; returns 0 if the outcomes agree, 1 if not."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--there", required=True, metavar="PREFIX", help="see above")
    parser.add_argument("--engines", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="runout-arm64-") as name:
        folder = Path(name)
        recording = folder / "train_FD001.txt"
        cut(arguments.data, arguments.engines, recording)
        here_s = replay([sys.executable], recording, folder / "here")
        there_s = replay([*shlex.split(arguments.there), "python3"], recording, folder / "there")
        print(f"{here_s:.1f} s here, {there_s:.1f} s there (start and, if so, emulation included)")
        lines, good = compare(folder / "here", folder / "there")
        print("\n".join(lines))
    print("they agree" if good else "THEY DO NOT AGREE")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
