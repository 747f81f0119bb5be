"""How fast features are, on one core: rolling ones per sample and channel, bursts per second.

``python -m benchmarks.features [--seconds N]``. All contenders are run in turns in one process, and
medians count. Those that roll are shown to compute the same before they are timed. What is not
installed is left out with a word. The last line is one JSON object.
"""

import argparse
import ctypes
import functools
import importlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from agent.features.burst import BurstFeatures
from agent.features.window import Window
from contract.arrays import Floats
from contract.spec import Bearing, Waveform

SEED = 1
LENGTH = 256
BLOCK = 1024
"""Rows that are pushed at once."""
ALL = ("mean", "std", "rms", "min", "max", "peak", "crest", "skew", "kurt", "slope")
RIVER = ("mean", "std", "min", "max")
"""What River can roll: its Skew and Kurtosis cannot forget a value."""
PANDAS = ("mean", "std", "min", "max", "skew", "kurt")
"""What pandas rolls by itself; its skewness and kurtosis are the bias-corrected ones."""

WAVE = Waveform(
    name="case",
    unit="m/s2",
    rate_hz=25_600.0,
    samples=4096,
    features=(
        *("rms", "peak", "crest", "skewness", "kurtosis", "velocity_rms", "centroid"),
        *("band_10_1000", "band_2000_8000", "envelope_rms", "bpfo", "bpfi", "bsf", "ftf"),
    ),
    bearing=Bearing(balls=9, ball_mm=7.94, pitch_mm=39.04),
    speed_rpm=3000.0,
)

_SOURCE = """
#include <math.h>
#include <string.h>
#define MOST 64
void roll(const double *x, long n, long c, long w, long hop, const double *weights, double *out) {
  double a[MOST], lo[MOST], hi[MOST], s2[MOST], s3[MOST], s4[MOST], sl[MOST];
  for (long end = w; end <= n; end += hop, out += 10 * c) {
    const double *p = x + (end - w) * c;
    for (long j = 0; j < c; j++) { a[j] = 0; lo[j] = hi[j] = p[j]; }
    for (long i = 0; i < w; i++)
      for (long j = 0; j < c; j++) {
        double v = p[i * c + j];
        a[j] += v; lo[j] = v < lo[j] ? v : lo[j]; hi[j] = v > hi[j] ? v : hi[j];
      }
    for (long j = 0; j < c; j++) { a[j] /= w; s2[j] = s3[j] = s4[j] = sl[j] = 0; }
    for (long i = 0; i < w; i++)
      for (long j = 0; j < c; j++) {
        double d = p[i * c + j] - a[j], q = d * d;
        s2[j] += q; s3[j] += q * d; s4[j] += q * q; sl[j] += weights[i] * d;
      }
    for (long j = 0; j < c; j++) {
      double v = s2[j] / w, r = sqrt(v + a[j] * a[j]), pk = fmax(fabs(lo[j]), fabs(hi[j]));
      out[j] = a[j]; out[c + j] = sqrt(v); out[2*c + j] = r; out[3*c + j] = lo[j];
      out[4*c + j] = hi[j]; out[5*c + j] = pk; out[6*c + j] = pk / r;
      out[7*c + j] = s3[j] / w / (v * sqrt(v)); out[8*c + j] = s4[j] / w / (v * v);
      out[9*c + j] = sl[j];
    }
  }
}
"""


@dataclass
class Contender:
    """One way of computing features, and how long each turn of it took.

    Attributes:
        name: for people.
        run: computes, and returns vectors ``(k, F)``.
        units: of work in one run: samples times channels, or bursts.
    """

    name: str
    run: Callable[[], Floats]
    units: int
    seconds: list[float] = field(default_factory=list)

    @property
    def us(self) -> float:
        """Return the median of microseconds per unit."""
        return 1e6 * statistics.median(self.seconds) / self.units

    @property
    def spread(self) -> str:
        """Return the quickest and the slowest turn in microseconds per unit."""
        quick, slow = (1e6 * bound(self.seconds) / self.units for bound in (min, max))
        return f"{quick:.3f} .. {slow:.3f}"


def installed(name: str) -> ModuleType | None:
    """Return a module, or None after saying that it is not there."""
    try:
        return importlib.import_module(name)
    except ImportError:
        print(f"{name} is not installed: left out")
        return None


def ours(rows: Floats, stats: tuple[str, ...], hop: int) -> Contender:
    """Return our window, pushed in blocks; each turn goes on where the last one ended."""
    n, width = rows.shape
    names = tuple(f"{stat}_{LENGTH}" for stat in stats)
    window = Window(width, names, hop=hop, warmup=LENGTH)
    window.push(rows[n - LENGTH :])

    def run() -> Floats:
        return np.concatenate([window.push(rows[at : at + BLOCK])[1] for at in range(0, n, BLOCK)])

    return Contender(f"runout, {width} channels, hop {hop}, {len(stats)} stats", run, rows.size)


def compiled(folder: Path) -> Callable[[Floats, int], Floats] | None:
    """Return the same ten statistics in C, or None after saying that there is no compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        print("no compiler: C left out")
        return None
    (folder / "roll.c").write_text(_SOURCE)
    library = folder / "roll.so"
    options = ["-O3", "-march=native", "-ffast-math", "-shared", "-fPIC"]
    subprocess.run(
        [compiler, *options, str(folder / "roll.c"), "-o", str(library), "-lm"], check=True
    )
    roll = ctypes.CDLL(str(library)).roll
    doubles = np.ctypeslib.ndpointer(np.float64, flags="C_CONTIGUOUS")
    roll.argtypes = [doubles, *[ctypes.c_long] * 4, doubles, doubles]
    roll.restype = None
    k = np.arange(LENGTH) - (LENGTH - 1) / 2.0
    weights = k / (k @ k)

    def run(rows: Floats, hop: int) -> Floats:
        n, width = rows.shape
        out = np.empty(((n - LENGTH) // hop + 1, 10 * width))
        roll(rows, n, width, LENGTH, hop, weights, out)
        return out

    return run


def river(rows: Floats, hop: int) -> Contender | None:
    """Return River's rolling statistics, asked at each hop."""
    if installed("river") is None:
        return None
    stats, utils = (importlib.import_module(f"river.{part}") for part in ("stats", "utils"))
    width = rows.shape[1]
    values = rows.tolist()

    def run() -> Floats:
        rolling = [
            [utils.Rolling(stats.Mean, window_size=LENGTH) for _ in range(width)],
            [utils.Rolling(stats.Var, window_size=LENGTH, ddof=0) for _ in range(width)],
            [stats.RollingMin(LENGTH) for _ in range(width)],
            [stats.RollingMax(LENGTH) for _ in range(width)],
        ]
        found = []
        for i, row in enumerate(values, start=1):
            for kind in rolling:
                for one, value in zip(kind, row, strict=True):
                    one.update(value)
            if i >= LENGTH and i % hop == 0:
                found.append([one.get() for kind in rolling for one in kind])
        vectors = np.array(found)
        vectors[:, width : 2 * width] **= 0.5
        return vectors

    return Contender(f"River, {width} channels, hop {hop}, {len(RIVER)} stats", run, rows.size)


def pandas(rows: Floats, hop: int) -> Contender | None:
    """Return pandas' rolling statistics of all rows at once."""
    module = installed("pandas")
    if module is None:
        return None
    frame = module.DataFrame(rows)

    def run() -> Floats:
        rolling = frame.rolling(LENGTH)
        found = [
            rolling.mean(),
            rolling.std(ddof=0),
            rolling.min(),
            rolling.max(),
            rolling.skew(),
            rolling.kurt(),
        ]
        stacked: Floats = np.concatenate([f.to_numpy()[LENGTH - 1 :: hop] for f in found], axis=1)
        return stacked

    name = f"pandas in batch, {rows.shape[1]} channels, hop {hop}, {len(PANDAS)} stats"
    return Contender(name, run, rows.size)


def scipy_bursts(bursts: NDArray[np.float32]) -> Contender | None:
    """Return the same features as one would write them with scipy, burst by burst."""
    signal, stats = installed("scipy.signal"), installed("scipy.stats")
    if signal is None or stats is None:
        return None
    top = 0.45 * WAVE.rate_hz
    band = signal.butter(4, [top / 2.0, top], "bandpass", fs=WAVE.rate_hz, output="sos")
    features = BurstFeatures(WAVE)
    lines_hz = 50.0 * np.array([3.585, 5.415, 2.357, 0.398])

    def one(burst: Floats) -> list[float]:
        rms, peak = np.sqrt(np.mean(burst**2)), np.abs(burst).max()
        hz, power = signal.welch(burst, WAVE.rate_hz, nperseg=1024)
        step = hz[1]
        slow = (hz >= 10.0) & (hz < 1000.0)
        velocity = np.sqrt((power[slow] * (1e3 / (2.0 * np.pi * hz[slow])) ** 2).sum() * step)
        bands = [
            np.sqrt(power[(hz >= low) & (hz < high)].sum() * step)
            for low, high in ((10.0, 1000.0), (2000.0, 8000.0))
        ]
        envelope = np.abs(signal.hilbert(signal.sosfiltfilt(band, burst)))
        beats = np.abs(np.fft.rfft(envelope**2 * signal.get_window("hann", len(burst))))
        floor = np.median(beats[3 : len(beats) // 4])
        lines = []
        for line_hz in lines_hz:
            at = np.rint(line_hz * np.arange(1, 4) * len(burst) / WAVE.rate_hz).astype(int)
            lines.append(np.mean([beats[i - 1 : i + 2].max() for i in at]) / floor)
        centroid = (power * hz).sum() / power.sum()
        shape = [stats.skew(burst), stats.kurtosis(burst, fisher=False)]
        whole = [rms, peak, peak / rms, *shape, velocity, centroid, *bands]
        return [float(v) for v in (*whole, np.sqrt(np.mean(envelope**2)), *lines)]

    exact = bursts.astype(np.float64)

    def run() -> Floats:
        return np.array([one(burst) for burst in exact])

    found = run()
    if found.shape[1] != len(features.names):
        raise AssertionError("scipy computes other features")
    return Contender("scipy welch, sosfiltfilt, hilbert", run, len(bursts))


def take_turns(contenders: list[Contender], seconds: float) -> None:
    """Run all in turns until the time is over, five turns at least."""
    for contender in contenders:
        contender.run()
    end = time.perf_counter() + seconds
    turns = 0
    while turns < 5 or time.perf_counter() < end:
        for contender in contenders:
            begin = time.perf_counter()
            contender.run()
            contender.seconds.append(time.perf_counter() - begin)
        turns += 1
    print(f"\n{turns} turns each, medians\n")


def pin() -> None:
    """Stay on one core, and keep numpy's BLAS to one thread: start anew if it has more."""
    if os.environ.get("OPENBLAS_NUM_THREADS") != "1":
        again = [sys.executable, "-m", "benchmarks.features", *sys.argv[1:]]
        os.execve(again[0], again, {**os.environ, "OPENBLAS_NUM_THREADS": "1"})  # noqa: S606
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def agree(name: str, found: Floats, expected: Floats) -> None:
    """Refuse to compare what does not compute the same."""
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9, err_msg=name)


def rolling_peers(rows: Floats, folder: Path) -> dict[str, Contender]:
    """Return who else rolls, by name, after a comparison with what we compute of the same rows."""
    window = Window(rows.shape[1], tuple(f"{s}_{LENGTH}" for s in ALL), hop=64, warmup=LENGTH)
    expected = window.push(rows)[1]
    by_stat = dict(zip(ALL, np.split(expected, len(ALL), axis=1), strict=True))
    peers = {}
    few = rows[:BLOCK]
    if (peer := river(few, 64)) is not None:
        found = peer.run()
        same = np.concatenate([by_stat[stat] for stat in RIVER], axis=1)
        agree("River", found, same[: len(found)])
        peers["river"] = peer
    if (peer := pandas(rows, 64)) is not None:
        # Its skewness and kurtosis are of another definition: compared by the rest.
        same = np.concatenate([by_stat[stat] for stat in PANDAS[:4]], axis=1)
        agree("pandas", peer.run()[:, : same.shape[1]], same)
        peers["pandas"] = peer
    if (roll := compiled(folder)) is not None:
        agree("C", roll(rows, 64), expected)
        for hop in (16, 64):
            name = f"C, {rows.shape[1]} channels, hop {hop}, {len(ALL)} stats"
            peers[f"c{hop}"] = Contender(name, functools.partial(roll, rows, hop), rows.size)
    return peers


def show(rolling: list[Contender], bursts: list[Contender]) -> None:
    """Print the tables for people."""
    print(f"{'us a sample and channel':42}{'median':>10}  quickest .. slowest")
    for one in rolling:
        print(f"{one.name:42}{one.us:10.4f}  {one.spread}")
    print(f"\n{'us a burst':42}{'median':>10}  quickest .. slowest{'':12}a second")
    for one in bursts:
        print(f"{one.name:42}{one.us:10.1f}  {one.spread:31}{1e6 / one.us:.0f}")
    print(f"\nof bursts: {', '.join(WAVE.features)}")
    print(f"River has, of ours: {', '.join(RIVER)}; times_river is for these, at hop 64\n")


def main() -> None:
    """Measure, and print a table and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="of measuring, at least")
    seconds = parser.parse_args().seconds
    pin()
    print(f"seed {SEED}, numpy {np.__version__}, Python {platform.python_version()}")
    print(f"{platform.machine()}, windows of {LENGTH} rows, pushed {BLOCK} at a time")
    rng = np.random.default_rng(SEED)
    rows = rng.normal(20.0, 3.0, (8 * BLOCK, 8))
    wide = rng.normal(20.0, 3.0, (4 * BLOCK, 64))
    bursts = rng.standard_normal((96, WAVE.samples)).astype(np.float32)
    features = BurstFeatures(WAVE)

    hop16, hop64, stacked = ours(rows, ALL, 16), ours(rows, ALL, 64), ours(wide, ALL, 64)
    same = ours(rows, RIVER, 64)
    burst = Contender("runout, bursts of 4096", lambda: features.compute(bursts), len(bursts))
    scipy_peer = scipy_bursts(bursts[:8])
    of_bursts = [burst] if scipy_peer is None else [burst, scipy_peer]
    with tempfile.TemporaryDirectory() as folder:
        peers = rolling_peers(rows, Path(folder))
        rolling = [hop16, hop64, stacked, same, *peers.values()]
        take_turns([*rolling, *of_bursts], seconds)
    show(rolling, of_bursts)

    def us(name: str) -> float | None:
        return peers[name].us if name in peers else None

    result = {
        "us_hop16": hop16.us,
        "us_hop64": hop64.us,
        "us_hop64_stacked64": stacked.us,
        "times_river": peers["river"].us / same.us if "river" in peers else None,
        "vibration_blocks_per_s": 1e6 / burst.us,
        "us_hop64_river_stats": same.us,
        "us_hop64_river": us("river"),
        "us_hop64_pandas": us("pandas"),
        "us_hop16_c": us("c16"),
        "us_hop64_c": us("c64"),
        "vibration_blocks_per_s_scipy": None if scipy_peer is None else 1e6 / scipy_peer.us,
        "seed": SEED,
    }
    rounded = {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in result.items()}
    print(json.dumps(rounded))


if __name__ == "__main__":
    main()
