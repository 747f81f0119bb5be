"""The command's side of ``runout-server select``: asks the running server, and waits for it."""

import argparse
import secrets
import sys
import threading
from pathlib import Path

from contract.errors import ConfigError, RunoutError
from contract.selection import toml_of, variations
from server import processes
from server.config import ServerConfig
from server.registry import Line, Registry, cohorts
from server.select import Asked, Candidate, Selection, candidates_of, request, table, told
from server.status import read

LOOK_S = 0.5


def select(config: ServerConfig, arguments: argparse.Namespace) -> int:
    """Ask for a selection, show how it goes, print what came of it."""
    line = _line(config.folder, arguments.asset_class or config.asset_class)
    usual = [] if arguments.only else variations(line.asset_class)
    candidates = [Candidate(name, model) for name, model in usual]
    for path in arguments.candidate:
        candidates += candidates_of(path)
    if not candidates:
        raise RunoutError("--only: name models to try with --candidate FILE")
    asked = Asked(secrets.token_hex(8), candidates, line.asset_class.name)
    request(config.folder, asked)
    print(f"asked for: {len(candidates)} models of {line.asset_class.name}", file=sys.stderr)
    selection = _wait(config.folder, asked)
    print("\n".join(table(selection)))
    chosen = next((c for c in candidates if c.name == selection.chosen), None)
    if chosen is None:
        return 1
    text = toml_of(chosen.model)
    if arguments.out is None:
        print(f"\n{text}")
        return 0
    try:
        arguments.out.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--out {arguments.out}: cannot be written ({error.strerror})") from error
    print(
        f"\n{arguments.out}: the chosen model; put it in place of [[asset_class.rul]] on all nodes"
    )
    return 0


def _line(state: Path, name: str) -> Line:
    known = cohorts(state)
    if not name and len(known) == 1:
        (name,) = known
    line = Registry(state, name).line() if name in known else None
    if line is None:
        there = ", ".join(known) or "none yet: train once before"
        raise RunoutError(f"--asset-class: name the class to select for; there is {there}")
    return line


def _wait(state: Path, asked: Asked) -> Selection:
    """Return the selection when all is tried; says each step meanwhile."""
    said, look = 0, threading.Event()
    while True:
        found = told(state)
        if found is not None and found.number == asked.number:
            tried = len(found.rows) + len(found.failed)
            if tried > said:
                print(f"{tried} of {len(asked.candidates)} tried", file=sys.stderr)
                said = tried
            if found.done:
                return found
        status = read(state)
        if status is None or not processes.runs(status.pid):
            raise RunoutError(
                f"{state}: no server runs with this state folder; start it with runout-server run"
            )
        look.wait(LOOK_S)  # another process writes the file
