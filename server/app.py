"""The server's long-lived process: SuperLink, the run on it, and both again if they end."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from contract import npz
from contract.config import is_loopback
from contract.errors import RunoutError
from server import bundle, enrol, processes, status, superlink
from server.broadcast import publish
from server.config import ServerConfig
from server.superlink import SuperLink

STARTED_S = 90.0
"""A ServerApp that has not begun this long after it was submitted never will."""
STEADY_S = 60.0
"""A run that lasted this long was well: the next failure is retried at once."""
MOST_BACKOFF_S = 60.0
LOOK_S = 5.0
"""Between two looks for something new to put on the broker."""
RETRY_S = 60.0


class _Serving(msgspec.Struct):
    """What a ServerApp writes as it begins: see ``server.serving``."""

    pid: int
    run: str


class Beside:
    """A process beside SuperLink, where the configuration wants it; started again if it ends.

    Args:
        config: of the server.
        tell: called with each line that is meant for a person.
        name: of the process, in words.
        module: that is run.
        wanted: whether it is.
    """

    def __init__(
        self,
        config: ServerConfig,
        tell: Callable[[str], None],
        *,
        name: str = "the proxy",
        module: str = "server.proxy",
        wanted: bool | None = None,
    ) -> None:
        self._config = config
        self._tell = tell
        self._name = name
        self._module = module
        self._wanted = bool(config.inner) if wanted is None else wanted
        self._process: subprocess.Popen[bytes] | None = None
        self._again_s = 0.0

    @property
    def pid(self) -> int | None:
        """Return the process, where there is one."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start it, unless it runs."""
        config = self._config
        if not self._wanted or (self._process is not None and self._process.poll() is None):
            return
        # Of what was loaded and checked: the file may have been changed since.
        path = config.folder / f"{self._module.rpartition('.')[2]}.json"
        npz.write(path, msgspec.json.encode(config))
        self._process = subprocess.Popen(
            [sys.executable, "-m", self._module, "--loaded", str(path)],
            stdin=subprocess.DEVNULL,
            env=superlink.environment(config),
            start_new_session=True,  # Ctrl-C is ours to pass on
        )

    def tend(self) -> None:
        """Start it again, if it has ended, once in a while."""
        if self._process is None or self._process.poll() is None:
            return
        if time.monotonic() >= self._again_s:
            self._again_s = time.monotonic() + LOOK_S
            self._tell(f"{self._name} has ended; starting it again")
            self.start()

    def stop(self) -> None:
        """End it; safe at any time."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


class _Follower:
    """Reads what is added to a log file, line by line, over its rotations."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = path.stat().st_size if path.exists() else 0

    def lines(self) -> list[str]:
        """Return the whole lines that are new."""
        try:
            with self._path.open("rb") as file:
                if file.seek(0, os.SEEK_END) < self._at:
                    self._at = 0  # rotated: this is another file
                file.seek(self._at)
                new = file.read()
        except FileNotFoundError:
            return []
        whole = new[: new.rfind(b"\n") + 1]
        self._at += len(whole)
        return whole.decode(errors="replace").splitlines()


class Server:
    """Runs until it is told to stop; with ``once`` until one training is done.

    Args:
        config: of the server.
        tell: called with each line that is meant for a person.
        once: train once and end.
    """

    def __init__(self, config: ServerConfig, tell: Callable[[str], None], *, once: bool) -> None:
        self._config = config
        self._tell = tell
        self._once = once
        self._stop = threading.Event()
        self._proxy = Beside(config, tell)
        self._region = Beside(
            config,
            tell,
            name="the node of the parent",
            module="flowerapp.region",
            wanted=config.parent is not None,
        )
        self._broadcast_s = self._let_in_s = 0.0
        self._follower = _Follower(config.folder / status.LOG)

    def stop(self) -> None:
        """End soon; may be called from a signal handler."""
        self._stop.set()

    def run(self) -> bool:
        """Return once stopped, or with ``once`` whether the training brought a release."""
        config = self._config
        config.folder.mkdir(parents=True, exist_ok=True)
        npz.write(config.folder / "guard.json", msgspec.json.encode(config.guard))
        npz.write(config.folder / "waves.json", msgspec.json.encode(config.waves))
        bundle.write(config.folder / "app")
        superlink.write_connection(config)
        processes.adopt_orphans()
        link = SuperLink(config, tell=self._tell, wait=self._stop.wait, stopping=self._stop.is_set)
        backoff_s = 1.0
        try:
            while not self._stop.is_set():
                began = time.monotonic()
                problem = self._live(link)
                if problem is None or self._stop.is_set():
                    return problem is None
                if self._once:
                    raise RunoutError(problem)
                if time.monotonic() - began > STEADY_S:
                    backoff_s = 1.0
                self._tell(f"{problem}; starting again in {backoff_s:.0f} s")
                self._stop.wait(backoff_s)
                backoff_s = min(2 * backoff_s, MOST_BACKOFF_S)
        finally:
            self._region.stop()
            self._proxy.stop()
            link.stop()
        return True

    def _live(self, link: SuperLink) -> str | None:
        """Run SuperLink, if need be, and one run on it; returns what ended it, None for its end."""
        if link.ended():
            link.stop()
            self._tell(f"starting SuperLink on {self._config.listen}")
            link.start()
            if self._stop.is_set():
                return None
            self._let_in()
            self._proxy.start()
            self._region.start()
            self._tell(f"nodes may join: runout-agent node, superlink = {self._config.listen}")
            if not is_loopback(self._config.superlink[0]):
                # Flower has no key for its control interface, and it shares this port.
                self._tell(
                    "whoever reaches this port can start runs on the devices: let a firewall "
                    "admit the nodes alone"
                )
        run = self._submit()
        if run is None:
            return None if self._stop.is_set() else "SuperLink did not take the run"
        serving = self._begun(link, run)
        if serving is None:
            return None if self._stop.is_set() else f"the ServerApp of run {run} did not begin"
        while processes.runs(serving.pid):
            self._pass_on()
            self._broadcast()
            self._let_in()
            self._proxy.tend()
            self._region.tend()
            if self._stop.wait(0.5):
                return None
            if link.ended():
                return "SuperLink ended"
        self._pass_on()
        last = status.read(self._config.folder)
        if last is not None and last.run == run and last.phase == "ended":
            return None
        why = last.error if last is not None and last.error else "see log/superlink.log"
        return f"the training run ended: {why}"

    def _broadcast(self) -> None:
        """Put what is newly handed out on the broker, where there is one."""
        broker = self._config.mqtt
        if broker is None or not broker.releases or time.monotonic() < self._broadcast_s:
            return
        self._broadcast_s = time.monotonic() + LOOK_S
        try:
            for name, version in publish(self._config.folder, broker).items():
                self._tell(f"version {version} of {name}: retained on the broker")
        except RunoutError as error:
            self._tell(f"{error}; tried again in {RETRY_S:.0f} s")
            self._broadcast_s = time.monotonic() + RETRY_S

    def _let_in(self) -> None:
        """Register whoever was enrolled since the last look."""
        if not self._config.node_auth or time.monotonic() < self._let_in_s:
            return
        self._let_in_s = time.monotonic() + LOOK_S
        try:
            for name in enrol.register_all(self._config):
                self._tell(f"{name} is registered: it may come in with its key")
        except RunoutError as error:
            self._tell(f"{error}; tried again in {RETRY_S:.0f} s")
            self._let_in_s = time.monotonic() + RETRY_S

    def _pass_on(self) -> None:
        for line in self._follower.lines():
            self._tell(line)

    def _submit(self) -> str | None:
        """Submit the app as a run; returns its number."""
        config = self._config
        values: dict[str, str | int | float | bool] = {
            "asset-class": config.asset_class,
            "num-server-rounds": config.rounds,
            "min-nodes": config.min_nodes,
            "deadline-s": config.deadline_s,
            "state": str(config.folder),
            "serve": not self._once,
            "interval-s": config.interval_s,
            "ask-s": config.ask_s,
            "new-lives": config.new_lives,
            "ready-s": config.ready_s,
            "quorum": config.quorum,
            "parent": config.parent is not None,
            "strategy": config.strategy,
        }
        overrides = config.folder / "run.toml"
        overrides.write_text(bundle.toml(values) + "\n", encoding="utf-8")
        process = subprocess.Popen(
            [
                superlink.program("flwr"),
                *("run", str(config.folder / "app"), superlink.CONNECTION),
                *("--format", "json", "-c", str(overrides)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=superlink.environment(config),
            text=True,
            start_new_session=True,
        )
        until = time.monotonic() + STARTED_S
        while process.poll() is None:
            if self._stop.wait(0.1) or time.monotonic() > until:
                process.kill()
        said, _ = process.communicate()
        if self._stop.is_set():
            return None
        try:
            run = json.loads(said[said.index("{") :])["run-id"]
        except (ValueError, KeyError, TypeError):
            self._tell(f"flwr run: {' '.join(said.split())[-500:]}")
            return None
        return str(run)

    def _begun(self, link: SuperLink, run: str) -> _Serving | None:
        """Wait for the ServerApp of a run to say that it is there."""
        path = self._config.folder / "serving.json"
        until = time.monotonic() + STARTED_S
        while time.monotonic() < until and not link.ended():
            try:
                serving = msgspec.json.decode(path.read_bytes(), type=_Serving)
            except (FileNotFoundError, msgspec.MsgspecError):
                serving = None
            if serving is not None and serving.run == run:
                return serving
            if self._stop.wait(0.2):
                return None
        return None
