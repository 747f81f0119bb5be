"""What an agent writes in a day, and how often it flushes: an SD card lives by both.

    python -m benchmarks.wear [--minutes 30] [--wait-ms 1000] [--health-every-s 10] [--all]

Ten assets of 24 channels once a second and a burst of 4096 samples a minute each, at phases of
their own; with and without ``keep.power_loss_safe``, by default with what ``deploy/pi/agent.toml``
ships. Nothing is left out: results go through the outbox and are noted as taken by the broker,
checkpoints come when they are due, alerts (false ones) have their evidence kept. The data's time is
simulated, or the clock's (``--live``). Messages that come within a commit wait (``keep.wait_ms``,
from the first of them) are one batch, committed by the agent's own engine to a real disk. What the
kernel writes by itself once it is half a minute old, ``sync`` writes here. The broker's share is
measured on a real mosquitto with ``deploy/pi/mosquitto-runout.conf``: ``benchmarks.wear_broker``.

Bytes: ``write_bytes`` of ``/proc/<pid>/io``, what the process made the page cache write, in whole
pages, again for each flush. Where the file system hides that (tmpfs, overlays), ``wchar``, what was
handed to write calls: less by the pages' unused ends. The file system's own journal is in neither:
``--device`` counts what the disk below the folder is given, by everybody who writes to it.
``docs/durability.md`` has it measured on one of its own. Flushes are counted by the kernel
(``perf``), or by ``strace``; where neither is there or allowed by the agent, which leaves out those
that SQLite does by itself, a few an hour.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from agent.app import Engine
from agent.assemble import Assembler
from agent.config import AgentConfig, Keep, Node, Report, load
from agent.decode import waveform
from agent.intake import MOST_BYTES, Arrival, weight
from agent.journal import FOLDER, Journal, segments
from agent.store import Store
from benchmarks import wear_broker
from contract import topics
from contract.model_spec import Moments
from contract.spec import AssetClass, Channel, Waveform

ASSETS, CHANNELS, SAMPLES = 10, 24, 4096
START_S = 1_767_225_600
RATE_HZ = 25_600.0
WARM_UP_S = 900
"""Past what is learnt at the beginning of a life."""
OLD_S = 30
"""How old the kernel lets get what nobody flushes."""
DAY_S, HOUR_S = 86_400, 3600
SHIPPED = Path(__file__).parents[1] / "deploy" / "pi" / "agent.toml"


class Setting(NamedTuple):
    """What is measured, in a word."""

    name: str
    keep: Keep
    report: Report

    def config(self, folder: Path) -> AgentConfig:
        """Return what the agent is configured to do; all that is not said is as it comes."""
        stats = tuple(f"{kind}_60" for kind in ("mean", "std", "min", "max", "slope"))
        vibration = Waveform(
            "vib",
            "m/s2",
            rate_hz=RATE_HZ,
            samples=SAMPLES,
            features=("rms", "crest", "kurtosis", "velocity_rms"),
        )
        machine = AssetClass(
            "machine",
            tuple(Channel(f"c{i:02d}", "bar") for i in range(CHANNELS)),
            waveforms=(vibration,),
            stats=stats,
            health=Moments(stats=("mean_60", "std_60"), baseline=60, learn=120),
        )
        return AgentConfig(
            asset_class=(machine,),
            node=Node(name="wear", site="bench", state=str(folder)),
            keep=self.keep,
            report=self.report,
        )


def arrivals(seconds: int) -> Iterator[Arrival]:
    """Yield what comes, in the order of time."""
    rng = random.Random(1)  # noqa: S311  # noise, no secret
    phases = [rng.random() for _ in range(ASSETS)]
    bursts = [rng.uniform(0.0, 60.0) for _ in range(ASSETS)]
    noise = np.random.default_rng(1).normal(size=SAMPLES + 997).astype(np.float32)
    levels = [[rng.uniform(1.0, 100.0) for _ in range(CHANNELS)] for _ in range(ASSETS)]
    for second in range(seconds):
        found: list[tuple[float, int, str, bytes]] = []
        for i, phase in enumerate(phases):
            t = START_S + second + phase
            v = {f"c{c:02d}": round(rng.gauss(x, x / 50), 2) for c, x in enumerate(levels[i])}
            body = json.dumps({"t": round(t, 3), "v": v}).encode()
            found.append((t, i, topics.READINGS, body))
            # The burst bears the time of a row: their features share it.
            if second % 60 == int(bursts[i]):
                at = rng.randrange(997)
                samples = noise[at : at + SAMPLES]
                t_ns = round(t, 3) * 10**9
                found.append((t, i, "vib", waveform.encode(samples, RATE_HZ, t_ns=int(t_ns))))
        for t, i, leaf, body in sorted(found, key=lambda one: one[:2]):
            topic = topics.asset_topic("bench", "wear", f"machine-{i}", leaf)
            yield Arrival(topic, body, 0, round(t * 1e9))


def batches(seconds: int, wait_s: float) -> Iterator[list[Arrival]]:
    """Yield what shares a commit: what comes within the wait, from the first on."""
    coming = arrivals(seconds)
    batch: list[Arrival] = []
    size = until_ns = 0
    for arrival in coming:
        if batch and (arrival.at_ns > until_ns or size >= MOST_BYTES):
            yield batch
            batch, size = [], 0
        if not batch:
            until_ns = arrival.at_ns + round(wait_s * 1e9)
        batch.append(arrival)
        size += weight(arrival)
    yield batch


def written(pid: int | str = "self") -> tuple[int, int]:
    """Return ``write_bytes`` and ``wchar`` of a process so far."""
    text = Path(f"/proc/{pid}/io").read_text(encoding="ascii")
    found = dict(line.split(": ") for line in text.splitlines())
    return int(found["write_bytes"]), int(found["wchar"])


def given_to_device(folder: Path) -> int:
    """Return the bytes that the disk below a folder was given so far."""
    number = folder.stat().st_dev
    stat = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/stat")
    return int(stat.read_text(encoding="ascii").split()[6]) * 512


class Flushes:
    """Counts what this process flushes to the disk meanwhile, by the best means there is.

    Attributes:
        count: how often it did; None: nothing outside the process can count it.
        by: what has counted.
    """

    def __init__(self) -> None:
        self.count: int | None = None
        self.by = "the agent"

    @contextmanager
    def counted(self, pid: int) -> Iterator[None]:
        """Count while the body runs; what this process starts meanwhile is not counted."""
        calls = ("fsync", "fdatasync", "msync")
        events = ",".join(f"syscalls:sys_enter_{call}" for call in calls)
        perf = ["stat", "--no-inherit", "-x", ";", "-e", events, "-p", str(pid)]
        strace = ["-c", "-U", "calls,name", "-e", f"trace={','.join(calls)}", "-p", str(pid)]
        for name, options in (("perf", perf), ("strace", strace)):
            program = shutil.which(name)
            if program is None or not _allowed(name, program):
                continue
            process = subprocess.Popen([program, *options], stderr=subprocess.PIPE, text=True)
            threading.Event().wait(1.0)  # neither says when it has begun
            if process.poll() is not None:
                process.communicate()
                continue
            yield
            process.send_signal(2)
            _, said = process.communicate(timeout=30)
            words = [line.replace(";", " ").split() for line in said.splitlines()]
            numbers = [int(w[0]) for w in words if len(w) > 1 and w[0].isdigit() and _is_call(w)]
            if numbers or name == "strace":
                self.count, self.by = sum(numbers), name
            return
        yield


def _is_call(words: list[str]) -> bool:
    return any("sync" in word for word in words[1:])


def _allowed(name: str, program: str) -> bool:
    """Return whether a program that is there may count, tried on one that flushes nothing."""
    if name == "strace":
        return True  # it ends at once where it may not
    tried = [program, "stat", "-e", "syscalls:sys_enter_fsync", "true"]
    return subprocess.run(tried, capture_output=True, check=False).returncode == 0


def measure(
    setting: Setting,
    folder: Path,
    minutes: float,
    *,
    live: bool = False,
    warm_up_s: int = WARM_UP_S,
) -> dict[str, float]:
    """Return what is written and flushed, extrapolated to a day and an hour."""
    keep = setting.keep
    told = setting.config(folder)
    seconds = round(minutes * 60)
    _age(folder, keep)
    with ExitStack() as opened:
        engine = Engine(told, opened)
        store = engine.store
        assembler = Assembler(told)
        flushes = Flushes()
        counting = ExitStack()
        opened.callback(counting.close)
        commits = checkpoints = syncs = below = 0
        began, began_s = (0, 0), 0.0
        at = checkpointed = aged = START_S * 10**9
        begin_ns = (START_S + warm_up_s) * 10**9
        measuring = False
        reached = [at]
        store.clock = lambda: reached[0]
        for batch in batches(warm_up_s + seconds, keep.wait_ms / 1000):
            at = reached[0] = batch[-1].at_ns
            if not measuring and at >= begin_ns:
                measuring, commits, checkpoints = True, 0, 0
                _empty_log(store)
                _write_back(folder)
                counting.enter_context(flushes.counted(os.getpid()))
                began, syncs, below = written(), store.syncs, given_to_device(folder)
                began_s = time.monotonic()
            if measuring and live:
                threading.Event().wait(max(0.0, began_s + (at - begin_ns) / 1e9 - time.monotonic()))
            engine.process(*assembler.assemble(batch))
            commits += 1
            store.note_unsent([], store.last_result)
            if at - checkpointed >= keep.checkpoint_s * 1e9:
                checkpointed = at
                engine.checkpoint()
                checkpoints += 1
            if not live and at - aged >= OLD_S * 1e9:
                aged = at
                _write_back(folder)
        _empty_log(store)
        ended = written()
        syncs = store.syncs - syncs
        counting.close()
        counts = engine.pipeline.counts
        if counts.rejected or counts.readings < ASSETS * seconds:
            raise SystemExit(f"not all was taken: {counts}")
        _write_back(folder)
        blocks, chars = (b - a for a, b in zip(began, ended, strict=True))
        found: dict[str, float] = {
            "bytes_per_day": round((blocks or chars) * DAY_S / seconds),
            "device_bytes_per_day": round((given_to_device(folder) - below) * DAY_S / seconds),
            "bytes_per_reading": round((blocks or chars) / (ASSETS * CHANNELS * seconds), 1),
            "fsyncs_per_hour": round(
                (syncs if flushes.count is None else flushes.count) * HOUR_S / seconds
            ),
            "commits_per_hour": round(commits * HOUR_S / seconds),
            "checkpoint_bytes": (folder / "checkpoint.npz").stat().st_size,
        }
    print(f"{setting.name}: {found}; flushes counted by {flushes.by}", file=sys.stderr)
    return found


def _age(folder: Path, keep: Keep) -> None:
    """Leave the journal of some hours: it has been full once, and is written over from then on."""
    with closing(Journal(folder, keep.journal_mb * 1e6, durable=False)) as journal:
        noise = random.Random(2).randbytes(50_000)  # noqa: S311
        for number in range(1, 1 + round(keep.journal_mb * 1e6) // len(noise)):
            journal.append(number, noise)
    spares = [path.rename(path.with_suffix(".spare")) for _, path in segments(folder / FOLDER)]
    subprocess.run(["sync", *map(str, spares)], check=True)


def _empty_log(store: Store) -> None:
    """Let SQLite write what is in its log into the file: else a short run knows nothing of it."""
    store.database.db.execute("PRAGMA wal_checkpoint(PASSIVE)")


def _write_back(folder: Path) -> None:
    """Let the kernel write what it would write by itself; in a process of its own, uncounted."""
    files = [str(path) for path in (*folder.glob("store.db*"), *folder.glob("journal/*.seg"))]
    subprocess.run(["sync", *files], check=True)


def _settings(arguments: argparse.Namespace) -> list[Setting]:
    shipped = load(SHIPPED)
    given = {
        "wait_ms": arguments.wait_ms,
        "checkpoint_s": arguments.checkpoint_s,
    }
    keep = msgspec.structs.replace(
        shipped.keep, **{key: value for key, value in given.items() if value is not None}
    )
    report = shipped.report
    if arguments.health_every_s is not None:
        report = msgspec.structs.replace(report, health_every_s=arguments.health_every_s)
    same = (keep, report) == (shipped.keep, shipped.report)
    settings = [Setting("as deploy/pi ships it" if same else "as told", keep, report)]
    if arguments.all:
        often = msgspec.structs.replace(report, health_every_s=1.0)
        settings += [
            Setting("health once a second", keep, often),
            Setting("wait_ms = 200", msgspec.structs.replace(keep, wait_ms=200.0), report),
            Setting("wait_ms = 2000", msgspec.structs.replace(keep, wait_ms=2000.0), report),
            Setting("without [keep] and [report]", Keep(), Report()),
        ]
    return settings


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0, help="of the data's time")
    parser.add_argument("--wait-ms", type=float, help="in place of what deploy/pi ships")
    parser.add_argument("--checkpoint-s", type=float, help="in place of what deploy/pi ships")
    parser.add_argument("--health-every-s", type=float, help="in place of what deploy/pi ships")
    parser.add_argument("--all", action="store_true", help="other settings beside it")
    parser.add_argument("--live", action="store_true", help="by the clock: as long as it takes")
    parser.add_argument("--device", action="store_true", help="the folder's disk is ours alone")
    parser.add_argument("--folder", type=Path, help="on the file system that counts")
    arguments = parser.parse_args()
    settings = _settings(arguments)
    keep = settings[0].keep
    broker = wear_broker.measure(arguments.folder, arrivals, keep.wait_ms / 1000)
    rows: list[tuple[str, dict[str, float], dict[str, float]]] = []
    for setting in settings:
        found = []
        for safe in (True, False):
            kept = msgspec.structs.replace(setting.keep, power_loss_safe=safe)
            with tempfile.TemporaryDirectory(prefix="runout-wear-", dir=arguments.folder) as name:
                one = setting._replace(keep=kept)
                found.append(measure(one, Path(name), arguments.minutes, live=arguments.live))
        rows.append((setting.name, found[0], found[1]))
    _show(rows, broker, device=arguments.device)
    _, safe_one, fast = rows[0]
    own = broker["bytes_per_day"] if broker else 0
    print(
        json.dumps(
            {
                "bytes_per_day": round(safe_one["bytes_per_day"] + own),
                "bytes_per_day_fast": round(fast["bytes_per_day"] + own),
                "fsyncs_per_hour": safe_one["fsyncs_per_hour"],
                "fsyncs_per_hour_fast": fast["fsyncs_per_hour"],
                "agent_bytes_per_day": safe_one["bytes_per_day"],
                "broker_bytes_per_day": own if broker else None,
                "broker_bytes_per_hour_away": broker["bytes_per_hour_away"] if broker else None,
                "bytes_per_reading": safe_one["bytes_per_reading"],
                "wait_ms": keep.wait_ms,
                "checkpoint_s": keep.checkpoint_s,
                "health_every_s": settings[0].report.health_every_s,
            }
        )
    )
    return 0


def _show(
    rows: list[tuple[str, dict[str, float], dict[str, float]]],
    broker: dict[str, float] | None,
    *,
    device: bool,
) -> None:
    """Print a table for people."""
    own = f"{broker['bytes_per_day'] / 1e9:.3f}" if broker else "-"
    print(
        f"\n{'GB a day':38}{'agent':>8}{'broker':>8}{'both':>8}{'fsyncs/h':>10}{'commits/h':>11}"
        + (f"{'disk':>8}" if device else "")
    )
    for name, *found in rows:
        for word, one in zip(("power-loss safe", "not"), found, strict=True):
            both = one["bytes_per_day"] + (broker["bytes_per_day"] if broker else 0)
            line = (
                f"{name + ', ' + word:38.38}{one['bytes_per_day'] / 1e9:8.2f}{own:>8}"
                f"{both / 1e9:8.2f}{one['fsyncs_per_hour']:10,.0f}{one['commits_per_hour']:11,.0f}"
            )
            print(line + (f"{one['device_bytes_per_day'] / 1e9:8.2f}" if device else ""))
    if broker is None:
        print("the broker is left out: no mosquitto here")
    else:
        print(
            f"while the agent is away the broker writes {broker['bytes_per_hour_away'] / 1e6:.0f} "
            f"MB in the first hour, {broker['saved_bytes_away'] / 1e6:.1f} MB at its end, every "
            f"{broker['autosave_s']:.0f} s"
        )
    print()


if __name__ == "__main__":
    sys.exit(main())
