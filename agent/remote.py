"""Settings of the fleet on the device: signed, versioned, tried, and taken back by themselves.

``settings/current.json`` what is in force · ``previous.json`` what was before · ``trial.json``
that it is not known yet whether the device is well with it, and how often it was started since ·
``standing.json`` what became of the newest. Each is replaced whole: after a kill at any instant the
device starts with one or the other, and a third start that did not become well takes them back.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from agent import signature
from agent.config import AgentConfig, load
from contract import npz
from contract.errors import ConfigError, ContractError
from contract.settings import Settings, Signed, Standing, opened, problem, sealed

log = logging.getLogger("runout.settings")

MOST_STARTS = 3
"""Starts on trial; one that begins after so many takes the settings back."""


_T = TypeVar("_T", bound=msgspec.Struct)


class _Trial(msgspec.Struct):
    version: int
    starts: int


class Remote:
    """What the fleet wants of this device's configuration, and what became of it.

    Args:
        path: the device's own configuration.
        overrides: of the command line; they go before what comes from afar.
        clock: seconds, monotonic.
        wake: called, in any thread, when the agent is to start anew.
    """

    def __init__(
        self,
        path: Path,
        overrides: Sequence[str],
        *,
        wake: Callable[[], object] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._overrides = tuple(overrides)
        self._wake = wake
        self._clock = clock
        base = load(path, overrides)
        self._own = base
        self._trusted: signature.Trusted | None = None
        self._folder = base.state / "settings"
        self._begun = clock()
        self._lock = threading.Lock()
        self.restart = threading.Event()
        """Whether the agent is to start anew, with what has come."""
        self.standing = Standing()
        if base.federation.settings:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._trusted = signature.Trusted(base.federation.release_key)
            self.standing = self._read("standing", Standing) or Standing()

    def begin(self) -> AgentConfig:
        """Return the configuration to start with; takes settings back that did no good."""
        self.restart.clear()
        self._begun = self._clock()
        if self._trusted is None:
            return self._own
        trial = self._read("trial", _Trial)
        if trial is not None:
            if trial.starts >= MOST_STARTS:
                self.take_back(f"{trial.starts} starts with them, and none was well")
            else:
                self._write("trial", _Trial(trial.version, trial.starts + 1))
        try:
            return self._with(self._current())
        except ConfigError as error:
            # Of settings that were good when they came: the device's own file has changed.
            self.take_back(str(error))
        return self._with(self._current())

    @property
    def on_trial(self) -> bool:
        """Return whether it is not known yet that the device is well with its settings."""
        return self._trusted is not None and (self._folder / "trial.json").exists()

    def take(self, content: bytes, name: str) -> None:
        """Take settings that came; any thread.

        Raises:
            ContractError: they are not this device's, not signed, or cannot be read. What is this
                device's and signed, and cannot be used, is told in ``standing``.
        """
        if self._trusted is None:
            return
        signed, settings = opened(content, name)
        self._check(signed, settings)
        with self._lock:
            known = self.standing.version
            if settings.version <= known:
                return  # what the broker retains comes with each connection
            against = problem(settings.changes)
            if not against:
                try:
                    self._with(settings)
                except ConfigError as error:
                    against = str(error)
            if against:
                self._stand(Standing(settings.version, "refused", against))
                log.error("settings are refused", extra={"problem": against})
                return
            self._adopt(signed, settings)
        self.restart.set()
        self._wake()

    def _check(self, signed: Signed, settings: Settings) -> None:
        own = self._own
        if (settings.site, settings.node) != (own.node.site, own.name):
            raise ContractError(
                f"settings of {settings.site}/{settings.node} on this device's topic"
            )
        assert self._trusted is not None  # noqa: S101  # for the type checker
        against = self._trusted.refuses(signed.signature, sealed(signed.settings))
        if against:
            raise ContractError(against)

    def _adopt(self, signed: Signed, settings: Settings) -> None:
        # On trial first: a kill between the two finds a trial of what is in force already.
        before = self._folder / "current.json"
        content = before.read_bytes() if before.exists() else b""
        if not self.on_trial:  # what was on trial is nothing to go back to
            npz.write(self._folder / "previous.json", content)
        self._write("trial", _Trial(settings.version, 0))
        self._stand(Standing(settings.version, "trial", "the agent starts anew with them"))
        npz.write(before, msgspec.json.encode(signed))
        log.info("settings came", extra={"version": settings.version})

    def tend(self, *, well: bool) -> None:
        """Call now and then: what has been well for long enough is kept.

        Args:
            well: whether the agent runs, has its broker, and can store.
        """
        if not well:
            self._begun = self._clock()
            return
        if not self.on_trial or self._clock() - self._begun < self._own.federation.settings_well_s:
            return
        with self._lock:
            if self.restart.is_set():
                return
            trial = self._read("trial", _Trial)
            if trial is not None and self.standing.state == "trial":
                self._stand(Standing(trial.version, "applied"))
                log.info("settings are kept", extra={"version": trial.version})
            (self._folder / "trial.json").unlink(missing_ok=True)

    def take_back(self, reason: str) -> None:
        """Go back to what was before, and say why."""
        previous = self._folder / "previous.json"
        content = previous.read_bytes() if previous.exists() else b""
        version = self.standing.version
        self._stand(Standing(version, "rolled_back", reason))
        if content:
            npz.write(self._folder / "current.json", content)
        else:
            (self._folder / "current.json").unlink(missing_ok=True)
        (self._folder / "trial.json").unlink(missing_ok=True)
        previous.unlink(missing_ok=True)
        log.error("settings are taken back", extra={"version": version, "problem": reason})

    def _with(self, settings: Settings | None) -> AgentConfig:
        changes = () if settings is None else settings.changes.items()
        words = [f"{key}={value}" for key, value in changes]
        return load(self._path, [*words, *self._overrides])

    def _current(self) -> Settings | None:
        path = self._folder / "current.json"
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            signed, settings = opened(content, str(path))
            self._check(signed, settings)  # who can write here could else change what is allowed
        except ContractError as error:
            log.error("settings are left out", extra={"problem": str(error)})  # noqa: TRY400
            return None
        return settings if not problem(settings.changes) else None

    def _stand(self, standing: Standing) -> None:
        self._write("standing", standing)
        self.standing = standing

    def _write(self, name: str, value: msgspec.Struct) -> None:
        npz.write(self._folder / f"{name}.json", msgspec.json.encode(value))

    def _read(self, name: str, kind: type[_T]) -> _T | None:
        try:
            return msgspec.json.decode((self._folder / f"{name}.json").read_bytes(), type=kind)
        except (FileNotFoundError, msgspec.MsgspecError):
            return None
