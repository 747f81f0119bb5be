"""The registry after whatever may happen to a disk and a process."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from contract import VERSION
from contract.errors import ContractError, RunoutError
from contract.models.moments import HealthModel, Moments
from contract.models.ridge import Basis
from contract.release import Manifest, Release
from contract.spec import AssetClass, Channel
from server.registry import Line, Registry, cohorts

SPEC = AssetClass("pump", (Channel("flow", "m3/h"), Channel("speed", "rpm")), stats=("mean_8",))


def release(version: int) -> Release:
    moments = Moments.of(np.random.default_rng(version).normal(size=(40, 2)))
    arrays = HealthModel.solve(moments, variance=0.9, alarm_rate=0.01).arrays("health/model/")
    manifest = Manifest(VERSION, SPEC, version, version - 1, 0, ("rpi-1",), "", {})
    return Release(manifest, arrays)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry(tmp_path, "pump")
    for version in (1, 2, 3):
        registry.register(release(version))
    return registry


def current_version(registry: Registry) -> int:
    current = registry.current()
    assert current is not None
    return current.version


def test_every_version_is_kept_and_the_last_is_handed_out(registry: Registry) -> None:
    assert registry.versions() == [1, 2, 3]
    assert current_version(registry) == 3
    assert registry.get(1).digest == release(1).digest
    assert registry.next_version() == 4


def test_a_version_never_changes(registry: Registry) -> None:
    with pytest.raises(RunoutError, match="versions never change"):
        registry.register(release(2))


def test_a_truncated_version_is_listed_with_its_problem_and_not_handed_out(
    registry: Registry,
) -> None:
    path = registry.path(3)
    path.write_bytes(path.read_bytes()[:200])
    assert current_version(registry) == 2
    assert registry.next_version() == 4
    assert [bool(known.problem) for known in registry.all()] == [False, False, True]
    with pytest.raises(ContractError, match="not a whole Runout file"):
        registry.get(3)


def test_an_altered_version_is_not_handed_out(registry: Registry) -> None:
    # Whole, but not what its name says it is.
    registry.path(3).write_bytes(registry.path(3).read_bytes().replace(b"rpi-1", b"rpi-2"))
    assert current_version(registry) == 2


@pytest.mark.parametrize("content", [b"", b"nonsense", b"99"])
def test_a_damaged_pointer_falls_back_to_the_newest(registry: Registry, content: bytes) -> None:
    (registry.folder / "current").write_bytes(content)
    assert current_version(registry) == 3
    (registry.folder / "current").unlink()
    assert current_version(registry) == 3


def test_what_a_killed_process_left_half_written_is_ignored(registry: Registry) -> None:
    (registry.folder / "v0004.npz.part").write_bytes(b"half")
    (registry.folder / "current.part").write_bytes(b"4")
    assert registry.versions() == [1, 2, 3]
    assert current_version(registry) == 3
    registry.register(release(4))
    assert current_version(registry) == 4


def test_a_torn_line_of_the_journal_costs_that_line_only(registry: Registry) -> None:
    registry.note("phase", 1.0, phase="fit")
    with (registry.folder / "rounds.jsonl").open("a") as file:
        file.write('{"event": "pha')
    registry.note("release", 2.0, version=1)
    assert [event["event"] for event in registry.journal()] == ["phase", "release"]


def test_the_line_and_its_basis_are_pinned(registry: Registry) -> None:
    assert registry.line() is None
    basis = Basis(np.array([1.0, 2.0]), np.array([0.5, np.inf]))
    line = registry.pin(Line(SPEC.digest(), SPEC, basis_rows=10.0), basis)
    assert registry.line() == line
    assert line.basis_version == 1
    pinned = registry.basis(line)
    assert pinned is not None
    assert np.array_equal(pinned.scale, basis.scale)
    path = registry.folder / "basis-0001.npz"
    path.write_bytes(path.read_bytes()[:50])
    assert registry.basis(line) is None
    assert registry.unpin()
    assert registry.line() is None
    assert not registry.unpin()


def test_classes_with_odd_names_have_folders_of_their_own(tmp_path: Path) -> None:
    Registry(tmp_path, "a/../b")
    Registry(tmp_path, "pump")
    assert cohorts(tmp_path) == ["a/../b", "pump"]


_WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_registry import release
from server.registry import Registry
registry = Registry(Path({state!r}), "pump")
print("ready", flush=True)
while True:
    registry.register(release(registry.next_version()))
    registry.note("release", 0.0, version=registry.next_version())
"""


def test_a_registry_survives_kill_9_at_any_instant(tmp_path: Path) -> None:
    code = _WRITER.format(tests=str(Path(__file__).parent), state=str(tmp_path))
    before = 0
    for _ in range(4):
        writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()
        registry = Registry(tmp_path, "pump")
        while len(registry.versions()) < before + 3:
            os.sched_yield()
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        assert not [known.problem for known in registry.all() if known.problem]
        newest = max(registry.versions())
        assert current_version(registry) in {newest, newest - 1}
        before = newest
