"""Look for the usual faults of a device, and say how each is mended: ``runout-agent doctor``.

Nothing is changed, nothing is published, no session of the agent's is taken, no serial port opened.
"""

import argparse
import os
import pwd
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import msgspec

from agent.config import AgentConfig, load
from agent.doctor import broker, federation, machine, notices, sources, state
from agent.doctor.finding import Finding, fault, ok
from contract.errors import ConfigError

Check = Callable[[], Finding]


def checks(config: AgentConfig | None) -> Iterator[Check]:
    """Yield the checks; without a configuration those of the machine."""
    yield machine.architecture
    yield machine.python
    yield machine.numpy
    yield machine.memory
    yield machine.power
    yield partial(machine.clock, config)
    if config is None:
        return
    for check in (state.state, state.disk, state.card, state.agents, state.store, state.checkpoint):
        yield partial(check, config)
    yield from sources.checks(config)
    yield from notices.checks(config)
    for check in (broker.files, broker.login, broker.same_name, broker.keeps):
        yield partial(check, config)
    for check in (federation.server, federation.bundle, federation.releases):
        yield partial(check, config)


def examine(path: Path, settings: Sequence[str] = ()) -> Iterator[Finding]:
    """Yield what is found with a device of this configuration, the configuration first."""
    config: AgentConfig | None = None
    try:
        config = load(path, settings)
    except ConfigError as error:
        yield fault("config", str(error), "correct it; runout-agent check says when it is good")
    else:
        yield ok("config", f"{path} is good")
        yield _as_whom(config, path)
    for check in checks(config):
        yield check()


def _as_whom(config: AgentConfig, path: Path) -> Finding:
    """Become the user of the state folder, if this is root: root may do what the agent may not."""
    if os.geteuid() == 0 and config.state.exists() and (uid := config.state.stat().st_uid):
        try:
            user = pwd.getpwuid(uid)
        except KeyError:
            text = f"{config.state} belongs to user {uid}, who has no name"
            return fault("user", text, f"sudo chown -R runout: {config.state}")
        os.initgroups(user.pw_name, user.pw_gid)
        os.setgid(user.pw_gid)
        os.setuid(uid)
    me = state.user_name(os.geteuid())
    if not os.access(path, os.R_OK):
        return fault("user", f"{me} cannot read {path}", f"chgrp {me} {path}; chmod g+r {path}")
    if not os.access(sys.executable, os.X_OK):
        text = f"{me} cannot run {sys.executable}"
        return fault("user", text, "install it where everybody may read, as install.sh does")
    return ok("user", f"looked at as {me}")


def run(arguments: argparse.Namespace) -> int:
    """Print the findings; returns 1 if there is a fault among them, else 0."""
    found = []
    for finding in examine(arguments.config, arguments.set):
        found.append(finding)
        if not arguments.json:
            print(finding, flush=True)
    faults = sum(finding.level == "fault" for finding in found)
    warnings = sum(finding.level == "warning" for finding in found)
    if arguments.json:
        told = {"faults": faults, "warnings": warnings, "findings": found}
        print(msgspec.json.encode(told).decode())
    else:
        print(f"{faults} faults, {warnings} warnings", file=sys.stderr)
    return 1 if faults else 0
