"""What an agent writes in a day, and how often it flushes: an SD card lives by both.

    python -m benchmarks.wear [--minutes 20] [--wait-ms 200] [--checkpoint-s 60]

Ten assets of 24 channels once a second and a burst of 4096 samples a minute each, at phases of
their own. The data's time is simulated; what is not is the commit: messages that come within a
commit wait (``keep.wait_ms``, from the first of them) are one batch, committed by the agent's own
engine to a real disk, in the durability that is configured. Checkpoints and what is noted of the
broker's acknowledgements come when the data's time says so. The folder must lie on the file system
that counts: on tmpfs nothing is written.

Bytes: ``write_bytes`` of ``/proc/<pid>/io``, what the process made the page cache write, in whole
pages, again for each flush. Where the file system hides that (tmpfs, overlays), ``wchar``, what was
handed to write calls: less by the pages' unused ends. The file system's own journal is in neither;
``docs/durability.md`` has it measured on a device of its own. Flushes are counted by the kernel
(``perf``), or by ``strace``; where neither is there or allowed they are left out.
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
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
import numpy as np

from agent.app import Engine
from agent.assemble import Assembler
from agent.config import AgentConfig, Keep, Node
from agent.decode import waveform
from agent.intake import MOST_BYTES, Arrival
from contract import topics
from contract.model_spec import Moments
from contract.spec import AssetClass, Channel, Waveform

ASSETS, CHANNELS, SAMPLES = 10, 24, 4096
START_S = 1_767_225_600
RATE_HZ = 25_600.0
WARM_UP_S = 180
DAY_S, HOUR_S = 86_400, 3600


def config(folder: Path, keep: Keep) -> AgentConfig:
    """Return what the agent is configured to do; all that is not said is as it comes."""
    stats = tuple(f"{kind}_60" for kind in ("mean", "std", "min", "max", "slope"))
    names = tuple(Channel(f"c{i:02d}", "bar") for i in range(CHANNELS))
    vibration = Waveform(
        "vib",
        "m/s2",
        rate_hz=RATE_HZ,
        samples=SAMPLES,
        features=("rms", "crest", "kurtosis", "velocity_rms"),
    )
    machine = AssetClass(
        "machine",
        names,
        waveforms=(vibration,),
        stats=stats,
        health=Moments(stats=("mean_60", "std_60"), baseline=60, learn=120),
    )
    return AgentConfig(
        asset_class=(machine,),
        node=Node(name="wear", site="bench", state=str(folder)),
        keep=keep,
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
        size += len(arrival.payload)
    yield batch


def written() -> tuple[int, int]:
    """Return ``write_bytes`` and ``wchar`` of this process so far."""
    found = dict(
        line.split(": ") for line in Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    )
    return int(found["write_bytes"]), int(found["wchar"])


class Flushes:
    """Counts what this process flushes to the disk meanwhile; None where nothing can count it."""

    def __init__(self) -> None:
        self.count: int | None = None

    @contextmanager
    def counted(self, pid: int) -> Iterator[None]:
        """Count while the body runs."""
        program = shutil.which("perf")
        if program is None:
            yield
            return
        events = "syscalls:sys_enter_fsync,syscalls:sys_enter_fdatasync,syscalls:sys_enter_msync"
        command = [program, "stat", "-x", ";", "-e", events, "-p", str(pid)]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        threading.Event().wait(1.0)  # it does not say when it has begun
        yield
        process.send_signal(2)
        _, said = process.communicate(timeout=10)
        numbers = [line.split(";")[0] for line in said.splitlines() if "sys_enter" in line]
        if numbers and all(number.isdigit() for number in numbers):
            self.count = sum(int(number) for number in numbers)


def measure(folder: Path, keep: Keep, minutes: float) -> dict[str, float]:
    """Return what is written and flushed, extrapolated, in one durability."""
    told = config(folder, keep)
    seconds = round(minutes * 60)
    with ExitStack() as opened:
        engine = Engine(told, opened)
        assembler = Assembler(told)
        flushes = Flushes()
        counting = ExitStack()
        opened.callback(counting.close)
        began = (0, 0)
        commits = checkpoints = 0
        at = checkpointed = START_S * 10**9
        measuring = False
        reached = [at]
        engine.store.clock = lambda: reached[0]
        for batch in batches(WARM_UP_S + seconds, keep.wait_ms / 1000):
            at = batch[-1].at_ns
            reached[0] = at
            if not measuring and at >= (START_S + WARM_UP_S) * 10**9:
                measuring, commits, checkpoints = True, 0, 0
                counting.enter_context(flushes.counted(os.getpid()))
                began = written()
            engine.process(*assembler.assemble(batch))
            commits += 1
            engine.store.note_unsent([], engine.store.last_result)
            if at - checkpointed >= keep.checkpoint_s * 1e9:
                checkpointed = at
                engine.checkpoint()
                checkpoints += 1
        ended = written()
        counting.close()
        counts = engine.pipeline.counts
        if counts.rejected or counts.readings < ASSETS * seconds:
            raise SystemExit(f"not all was taken: {counts}")
        blocks, chars = (b - a for a, b in zip(began, ended, strict=True))
        size = (folder / "checkpoint.npz").stat().st_size
        found: dict[str, float] = {
            "bytes_per_day": round((blocks or chars) * DAY_S / seconds),
            "wchar_per_day": round(chars * DAY_S / seconds),
            "commits_per_hour": round(commits * HOUR_S / seconds),
            "checkpoints_per_hour": round(checkpoints * HOUR_S / seconds, 1),
            "checkpoint_bytes": size,
        }
        if flushes.count is not None:
            found["fsyncs_per_hour"] = round(flushes.count * HOUR_S / seconds)
        return found


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20.0, help="of the data's time")
    parser.add_argument("--wait-ms", type=float, help="in place of the default")
    parser.add_argument("--checkpoint-s", type=float, help="in place of the default")
    parser.add_argument("--folder", type=Path, help="on the file system that counts")
    arguments = parser.parse_args()
    keep = Keep()
    if arguments.wait_ms is not None:
        keep = msgspec.structs.replace(keep, wait_ms=arguments.wait_ms)
    if arguments.checkpoint_s is not None:
        keep = msgspec.structs.replace(keep, checkpoint_s=arguments.checkpoint_s)
    last: dict[str, object] = {}
    for safe in (True, False):
        with tempfile.TemporaryDirectory(prefix="runout-wear-", dir=arguments.folder) as name:
            found = measure(
                Path(name),
                msgspec.structs.replace(keep, power_loss_safe=safe),
                arguments.minutes,
            )
        word = "power_loss_safe" if safe else "not power_loss_safe"
        print(f"{word}: {found}", file=sys.stderr)
        last |= found if safe else {"not_power_loss_safe": found}
    told = {"wait_ms": keep.wait_ms, "checkpoint_s": keep.checkpoint_s}
    print(json.dumps({**last, **told}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
