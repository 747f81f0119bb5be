"""Hands an earlier version out again, whether a server runs beside it or not."""

import fcntl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from contract.errors import RunoutError
from contract.release import Manifest, Release
from server.registry import Known, Registry

PATIENCE_S = 600.0
"""For a training that is running to end: a version made beside it would be made of half of it."""


@contextmanager
def locked(
    state: Path,
    patience_s: float = PATIENCE_S,
    wait: Callable[[str], None] = lambda words: print(words, flush=True),
) -> Iterator[None]:
    """Hold the state's lock, as a training does; waits for one that runs.

    ``wait``: told once, when it has to be waited for.

    Raises:
        RunoutError: it does not end.
    """
    until = time.monotonic() + patience_s
    with (state / "lock").open("a") as file:
        said = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > until:
                    raise RunoutError(
                        "a training holds the state and does not end; try again later"
                    ) from None
                if not said:
                    wait("waiting for the training that is running")
                    said = True
                threading.Event().wait(0.5)  # nobody says when a lock is free
                continue
            break
        yield


def version_of(registry: Registry, version: int) -> Release:
    """Return a version; raises ``RunoutError`` where there is none, or it is damaged."""
    if version not in registry.versions():
        there = ", ".join(str(v) for v in registry.versions()) or "none"
        raise RunoutError(f"{registry.asset_class} has no version {version}; it has {there}")
    return whole(next(one for one in registry.all() if one.version == version))


def whole(found: Known) -> Release:
    """Return the release of a version; raises ``RunoutError`` where it cannot be used."""
    if found.release is None:
        raise RunoutError(f"version {found.version} cannot be used: {found.problem}")
    return found.release


def before(name: str, current: Manifest | None, manifest_of: Callable[[int], Manifest]) -> int:
    """Return what judged before the version that is handed out; 0: each device's own models.

    Args:
        name: of the asset class.
        current: what is handed out.
        manifest_of: returns what is known of a version.

    Raises:
        RunoutError: nothing was handed out, or there is nothing before.
    """
    if current is None:
        raise RunoutError(f"{name}: nothing was handed out yet")
    # What a restored version stands for has a parent of its own.
    of = current.restores
    stands = current if of is None else (manifest_of(of) if of else None)
    if stands is None:
        raise RunoutError("each device's own models judge: there is nothing before them")
    restored = manifest_of(stands.parent).restores if stands.parent else None
    return stands.parent if restored is None else restored


def restore(registry: Registry, version: int, by: str = "") -> Release:
    """Hand a version's models out again under a new number; the caller holds the lock.

    Args:
        registry: of the class.
        version: 0: each device's own models.
        by: who asked for it, for the journal.

    Raises:
        RunoutError: there is no such version, or it is damaged.
    """
    if version:
        version_of(registry, version)
    return registry.restore(version, time.time(), by)
