"""What runs inside Flower's ServerApp: trainings, and between them the hand-out to late joiners."""

import fcntl
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from flwr.serverapp import Grid

from contract import npz
from contract.errors import ContractError, RunoutError
from contract.release import Release
from server import checkpoint, readiness, select
from server.guard import Limits
from server.registry import cohorts
from server.retrain import Wishes
from server.rounds import Fleet
from server.status import LOG, REQUEST, STATE_VARIABLE, Status
from server.strategy import STRATEGIES
from server.training import Settings, Training
from server.wave import Policy
from server.waves import Waves

log = logging.getLogger("runout.server")

TICK_S = 2.0
"""Between two looks at who is there."""
SAY_S = 15.0
"""Between two lines that say that nodes are waited for."""
TIME = "it was time"
UNENDED = "the last training did not end"
AGAIN_S = 900.0
"""Between two times that a node is asked which classes it runs."""
PROMPT_S = 10.0
"""That is waited for; who answers later is heard as it does."""
RETRY_S = 30.0
"""Before a node that could not be handed a release is tried again."""


def _set_up_log(path: Path) -> None:
    """Log to a file, which the server's process shows, and to whoever streams the run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not to the terminal: SuperLink gives a ServerApp none.
    to_file = RotatingFileHandler(path, maxBytes=2_000_000, backupCount=3, encoding="utf-8")
    log.handlers = [to_file, _ToStream()]
    for handler in log.handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    log.setLevel(logging.INFO)
    log.propagate = False


class _ToStream(logging.Handler):
    """Writes to whatever standard output is at the time: Flower replaces it while a run goes on."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stdout.write(self.format(record) + "\n")
        sys.stdout.flush()


def settings_of(run_config: Mapping[str, Any], environment: Mapping[str, str]) -> Settings:
    """Read the run's configuration; raises ``RunoutError`` on what cannot be used."""
    state = Path(
        str(run_config.get("state", "")) or environment.get(STATE_VARIABLE, "") or "out/server"
    ).absolute()
    limits = _told(state / "guard.json", Limits())
    policy = _told(state / "waves.json", Policy())
    strategy = str(run_config.get("strategy", "fedavg"))
    if strategy not in STRATEGIES:
        raise RunoutError(f"strategy {strategy!r} is none of {', '.join(STRATEGIES)}")
    return Settings(
        state=state,
        asset_class=str(run_config.get("asset-class", "")),
        rounds=int(run_config.get("num-server-rounds", 3)),
        min_nodes=int(run_config.get("min-nodes", 1)),
        deadline_s=float(run_config.get("deadline-s", 120.0)),
        interval_s=float(run_config.get("interval-s", 3600.0)),
        strategy=strategy,
        serve=bool(run_config.get("serve", False)),
        guard=limits,
        ask_s=float(run_config.get("ask-s", 600.0)),
        new_lives=int(run_config.get("new-lives", 0)),
        ready_s=float(run_config.get("ready-s", 60.0)),
        quorum=float(run_config.get("quorum", 0.8)),
        parent=bool(run_config.get("parent", False)),
        waves=policy,
    )


_Told = TypeVar("_Told")


def _told(path: Path, otherwise: _Told) -> _Told:
    """Return what ``runout-server run`` has written down of its configuration."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=type(otherwise))
    except FileNotFoundError:
        return otherwise


def serve(grid: Grid, run_config: Mapping[str, Any]) -> None:
    """Train once and end, or with ``serve`` go on until the process is ended."""
    settings = settings_of(run_config, os.environ)
    settings.state.mkdir(parents=True, exist_ok=True)
    _set_up_log(settings.state / LOG)
    run = str(grid.run.run_id)
    status = Status(pid=os.getpid(), run=run)
    training = Training(settings, Fleet(grid), status)
    release = training.open()
    training.write()
    npz.write(
        settings.state / "serving.json",
        msgspec.json.encode({"pid": os.getpid(), "run": run}),
        durable=False,
    )
    lines = Cohorts(training)
    try:
        if settings.serve and settings.ready_s and not settings.asset_class:
            lines.run()
        elif settings.serve:
            Serving(training).run(release)
        else:
            _once(training)
        status.phase = "ended"
    except RunoutError as error:
        status.phase, status.error = "failed", str(error)
        log.error("%s", error)  # noqa: TRY400  # a person's mistake: its text is enough
        raise
    finally:
        for one in lines.trainings or [training]:
            if status.phase in {"ended", "failed"}:
                one.status.phase, one.status.error = status.phase, status.error
            else:
                one.status.phase = "stopped"
            one.write()


def _once(training: Training) -> None:
    """Train with who is there within the deadline, hand the release out, end."""
    fleet, settings = training.fleet, training.settings
    end = fleet.clock() + settings.deadline_s
    said = 0.0
    while len(online := fleet.online()) < settings.min_nodes:
        if fleet.clock() >= end:
            raise RunoutError(
                f"{len(online)} of {settings.min_nodes} nodes came within "
                f"{settings.deadline_s:.0f} s; start more, or set min-nodes lower"
            )
        said = _say_waiting(training, len(online), said)
        fleet.wait(0.5)
    with only_writer(training):
        release = training.run()
        if release is None:
            raise RunoutError("the training brought no release; the lines above say why")
        # What is beyond a canary is for a server that stays, and watches it.
        waves, online = Waves(training), fleet.online()
        if waves.due(release):
            waves.tend(release, online)
        training.deploy(release, waves.admitted(release, online))


class Serving:
    """Trains when it is time or asked for, and hands the release to whoever joins."""

    def __init__(self, training: Training) -> None:
        self._training = training
        self._fleet = training.fleet
        self._settings = training.settings
        self._request = training.settings.state / REQUEST
        self._release: Release | None = None
        self._due = self._said = 0.0
        self._wanted_ns = self._answered_ns = 0
        self._has: dict[int, int] = {}
        self._retry: dict[int, float] = {}
        self._wishes = Wishes(training)
        self._waves = Waves(training)

    def run(self, release: Release | None) -> None:
        """Go on until the process is ended."""
        self.begin(release)
        while True:
            self.turn()
            self._fleet.wait(TICK_S)

    def begin(self, release: Release | None) -> None:
        """Say what is handed out now, before the first turn."""
        fleet = self._fleet
        self._release = release
        self._due = fleet.clock() if release is None else fleet.clock() + self._settings.interval_s
        if release is not None:
            name = release.manifest.asset_class.name
            log.info("version %d of %s is handed out", release.version, name)

    def turn(self) -> None:
        """Do what is due: train, go on with waves, hand out."""
        fleet, settings, release = self._fleet, self._settings, self._release
        online = self._training.there()
        self._has = {n: v for n, v in self._has.items() if n in online}
        self._retry = {n: t for n, t in self._retry.items() if n in online}
        asked = self._asked()
        enough = len(online) >= settings.min_nodes
        why = self._why(online, asked=asked, due=fleet.clock() >= self._due) if enough else ""
        if why:
            self._answered()
            self._training.why = why
            with only_writer(self._training):
                # It may have been another run's, which has ended meanwhile.
                if why != UNENDED or self._unended():
                    anyway = why != TIME or release is None
                    release = self._training.run(even_if_nothing_new=anyway) or release
            # They are handed it when they are back; the others need not wait for that.
            retry_s = fleet.clock() + RETRY_S
            self._retry |= dict.fromkeys(self._training.silent, retry_s)
            online = self._training.there()
            # Without any release soon again: the first lives may just have ended.
            wait = settings.interval_s if release else min(30.0, settings.interval_s)
            self._due = fleet.clock() + wait
        elif (wanted := select.pending(settings.state)) and len(online) >= settings.min_nodes:
            self._select(wanted)
        elif fleet.clock() >= self._due or asked:
            self._said = _say_waiting(self._training, len(online), self._said)
        release = self._tend(self._newest(release), online)
        if release is not None:
            self._hand_out(release, self._waves.admitted(release, online))
        if self._training.status.phase not in {"serving", "waiting"} or (
            self._training.status.online != len(online)
        ):
            self._training.status.phase = "serving" if release else "waiting"
            self._training.status.online = len(online)
            self._training.write()
        self._release = release

    def _asked(self) -> bool:
        """Return whether a person asks for a training that was not done yet."""
        try:
            self._wanted_ns = self._request.stat().st_mtime_ns
        except FileNotFoundError:
            return False
        return self._wanted_ns != self._answered_ns

    def _answered(self) -> None:
        """Take a person's wish as fulfilled; of several classes' it is removed by all of them."""
        if self._settings.several:
            self._answered_ns = self._wanted_ns
        else:
            self._request.unlink(missing_ok=True)

    @property
    def training(self) -> Training:
        """Return what trains."""
        return self._training

    @property
    def owes(self) -> bool:
        """Return whether a person's wish for a training waits."""
        return self._asked()

    def _unended(self) -> bool:
        of = self._settings.asset_class if self._settings.several else ""
        return checkpoint.path_of(self._settings.state, of).exists()

    def _why(self, online: list[int], *, asked: bool, due: bool) -> str:
        """Return why to train now; empty: there is no reason to."""
        if self._unended() and not locked(self._training):
            return UNENDED
        if asked:
            return "a person asked for it"
        if self._waves.under_way():
            return ""  # else a fleet that trains often would never get through its waves
        wish = self._wishes.reason(online)
        if wish:
            log.info("a training is due before its time: %s", wish)
            if self._training.cohort is not None:
                now = self._training.now()
                self._training.cohort.registry.note("retraining", now, why=wish)
            return wish
        return TIME if due else ""

    def _select(self, asked: select.Asked) -> None:
        """Try models on the fleet, as somebody asked."""
        cohort = self._training.cohort
        line = cohort.registry.line() if cohort else None
        if line is None or asked.asset_class not in {"", line.asset_class.name}:
            return  # not before the first training: it says what the class is
        with only_writer(self._training):
            select.run(self._training, asked, line.asset_class, log.info)

    def _tend(self, release: Release | None, online: list[int]) -> Release | None:
        """Go on with the waves; return what is handed out now."""
        if release is None or not self._waves.due(release):
            return release
        with only_writer(self._training):
            self._waves.tend(self._newest(release) or release, online)
        return self._newest(release)

    def _newest(self, release: Release | None) -> Release | None:
        """Return what is handed out now: another run on the same state may have trained."""
        cohort = self._training.cohort
        if cohort is None:
            return release
        newest = max(cohort.registry.versions(), default=0)
        if release is None or newest <= release.version:
            return release
        return self._training.open() or release

    def _hand_out(self, release: Release, online: list[int]) -> None:
        now = self._fleet.clock()
        lacking = [
            node_id
            for node_id in online
            if self._has.get(node_id, 0) < release.version and self._retry.get(node_id, 0.0) <= now
        ]
        if not lacking:
            return
        has = self._training.deploy(release, lacking)
        for node_id in lacking:
            if node_id in has:
                self._has[node_id] = release.version
            else:
                self._retry[node_id] = self._fleet.clock() + RETRY_S


class Cohorts:
    """A line of training for each asset class that enough nodes run.

    Which classes there are the nodes say as they are asked for their readiness: each as it
    comes, all again every ``AGAIN_S``, since a node may be configured otherwise meanwhile.

    Args:
        base: whose settings, fleet and status the trainings of all classes have.
    """

    def __init__(self, base: Training) -> None:
        self._base = base
        self._fleet = base.fleet
        self._settings = base.settings
        self._servings: dict[str, Serving] = {}
        self._asked_s: dict[int, float] = {}
        self._said = 0.0

    @property
    def trainings(self) -> list[Training]:
        """Return those of all classes."""
        return [serving.training for serving in self._servings.values()]

    def run(self) -> None:
        """Go on until the process is ended."""
        for name in cohorts(self._settings.state):
            self._add(name)
        while True:
            self.turn()
            self._fleet.wait(TICK_S)

    def turn(self) -> None:
        """Look for classes, and give each its turn."""
        online = self._fleet.online()
        self._discover(online)
        for serving in self._servings.values():
            serving.turn()
        request = self._settings.state / REQUEST
        if self._servings and not any(one.owes for one in self._servings.values()):
            request.unlink(missing_ok=True)
        if not self._servings:
            self._said = _say_waiting(self._base, len(online), self._said)

    def _discover(self, online: list[int]) -> None:
        now = self._fleet.clock()
        self._asked_s = {n: at for n, at in self._asked_s.items() if n in online}
        for node_id in [n for n in self._fleet.classes if n not in online]:
            self._fleet.classes.pop(node_id)
        due = [n for n in online if now - self._asked_s.get(n, -AGAIN_S) >= AGAIN_S]
        if due:
            self._asked_s |= dict.fromkeys(due, now)
            patience_s = min(self._settings.ready_s, PROMPT_S)
            readiness.ask(self._fleet, due, patience_s, self._settings.quorum)
        self._hear_late()
        told = Counter(name for n in online for name in self._fleet.classes.get(n, ()))
        for name in sorted(told):
            if told[name] >= self._settings.min_nodes and name not in self._servings:
                self._add(name)

    def _hear_late(self) -> None:
        """Take what nodes say of themselves after nobody waits for it any more."""
        for late in self._fleet.late():
            if late.about != readiness.ABOUT:
                self._fleet.put_back(late)
                continue
            try:
                readiness.read(self._fleet, late.node_id, late.content)
            except ContractError as error:
                log.warning("%s: %s", self._fleet.name(late.node_id), error)

    def _add(self, name: str) -> None:
        settings = replace(self._settings, asset_class=name, several=True)
        status = Status(pid=self._base.status.pid, run=self._base.status.run)
        training = Training(settings, self._fleet, status, now=self._base.now)
        serving = self._servings[name] = Serving(training)
        serving.begin(training.open())


def _say_waiting(training: Training, online: int, said: float) -> float:
    now = training.fleet.clock()
    if now - said < SAY_S:
        return said
    log.info("waiting for nodes: %d of at least %d are there", online, training.settings.min_nodes)
    training.status.phase, training.status.online = "waiting", online
    training.write()
    return now


def locked(training: Training) -> bool:
    """Return whether another run trains on the same state now."""
    with (training.settings.state / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextmanager
def only_writer(training: Training) -> Iterator[None]:
    """Hold the state's lock: a run from outside and the serving one take turns."""
    with (training.settings.state / "lock").open("a") as file:
        said = 0.0
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() - said > SAY_S:
                    log.info("waiting for another training on %s", training.settings.state)
                    said = time.monotonic()
                training.fleet.wait(0.5)
                continue
            break
        yield  # the lock goes with the file, and with the process
