"""Run as a process: an agent's engine is killed before each call that writes, one after the other.

``python -m tests.agent.killed CONFIG STATE SCRATCH``: a step with a release is taken on a copy of
the state folder, in a process of its own that kills itself before its n-th call that writes or
commits, for n = 1, 2, ... until it lives to the end. Each time the engine is opened again: a line
of JSON says what judged then, and what came of it.
"""

import io
import itertools
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from agent.app import Engine
from agent.batch import Batch, Rows
from agent.config import AgentConfig
from contract.report import Health

CALLS = {"write", "fsync", "fdatasync", "replace", "rename", "unlink"}
START_NS = 1_262_304_000 * 10**9


def live(engine: Engine, hours: int, begin: int) -> set[int]:
    """Let a healthy pump run; return what judged it."""
    rng = np.random.default_rng(begin)
    values = rng.normal(size=(hours, 2)) * 0.1 + [5.0, 40.0]
    t_ns = START_NS + 3_600_000_000_000 * np.arange(begin, begin + hours)
    rows = Rows("pump-9", t_ns, values, np.arange(hours), np.ones(hours, dtype=np.bool_))
    said = engine.process(Batch([rows], []))
    return {one.judged_by for one in said if isinstance(one, Health)}


def killed_before(n: int) -> Callable[[Any, str, Any], None]:
    """Return a profile function that kills this process before its n-th call that writes."""
    left = itertools.count(n - 1, -1)

    def profile(frame: Any, event: str, arg: Any) -> None:
        if event != "c_call" or isinstance(getattr(arg, "__self__", None), io.BytesIO):
            return
        # Of a transaction nothing is there before its end.
        commits = arg.__name__ == "execute" and "COMMIT" in frame.f_code.co_consts
        if (commits or arg.__name__ in CALLS) and next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return profile


def step(config: AgentConfig, n: int) -> None:
    """Take the step, and die in it."""
    with ExitStack() as opened:
        engine = Engine(config, opened)
        live(engine, 60, 0)
        sys.setprofile(killed_before(n))
        engine.consider_releases(1)
        sys.setprofile(None)
    os._exit(0)


def afterwards(config: AgentConfig) -> dict[str, Any]:
    """Open what is left; return what judges, and what does once all has come to its end."""
    with ExitStack() as opened:
        engine = Engine(config, opened)
        then = sorted(live(engine, 10, 100))
        for hour in range(200, 400, 50):
            engine.consider_releases(2)
            live(engine, 50, hour)
        engine.consider_releases(3)
        rows = engine.store.database.rows("SELECT version, verdict FROM rollout ORDER BY id")
        left = [path.name for path in (config.state / "models" / "inbox").iterdir()]
        left += [path.name for path in (config.state / "models" / "shadow").iterdir()]
        return {
            "then": then,
            "judged_by": sorted(live(engine, 10, 500)),
            "journal": [f"{version} {verdict}" for version, verdict in rows],
            "left": left,
        }


def main(config_path: str, state: str, scratch: str) -> None:
    for n in itertools.count(1):
        folder = Path(scratch) / str(n)
        shutil.copytree(state, folder)
        config = msgspec.json.decode(Path(config_path).read_bytes(), type=AgentConfig)
        node = msgspec.structs.replace(config.node, state=str(folder))
        config = msgspec.structs.replace(config, node=node)
        child = os.fork()
        if child == 0:
            step(config, n)
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        print(json.dumps({"killed": killed, "status": status, **afterwards(config)}), flush=True)
        shutil.rmtree(folder)
        if not killed:
            return


if __name__ == "__main__":
    main(*sys.argv[1:])
