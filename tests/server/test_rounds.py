"""How a training listens: who is ready, when a phase closes, and what is left after a kill."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contract.release import Release
from server import checkpoint
from server.guard import Limits
from server.registry import Registry
from server.rounds import Fleet, Patience
from server.serving import Serving
from server.status import Status
from server.training import Settings, Training


class Killed(Exception):  # noqa: N818  # what happens, not an error of ours
    """The process ends here."""


class Clock:
    """Seconds that pass when somebody waits."""

    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s

    def wait(self, seconds: float) -> None:
        self.s += seconds


def new_training(state: Path, grid: Any, clock: Clock | None = None, **changes: Any) -> Training:
    settings = {
        "state": state,
        "asset_class": "",
        "rounds": 2,
        "min_nodes": 1,
        "deadline_s": 120.0,
        "interval_s": 3600.0,
        "strategy": "fedavg",
        "serve": False,
        "guard": Limits(),
        "ready_s": 60.0,
        "quorum": 0.8,
    }
    state.mkdir(exist_ok=True)
    clock = clock or Clock()
    fleet = Fleet(grid, wait=clock.wait, clock=clock)
    return Training(Settings(**settings | changes), fleet, Status())


def events(training: Training, kind: str) -> list[dict[str, Any]]:
    assert training.cohort is not None
    return [e for e in training.cohort.registry.journal() if e["event"] == kind]


def test_after_the_quorum_the_others_have_as_long_again() -> None:
    patience = Patience(deadline_s=120.0, quorum=0.8, grace_s=10.0)
    assert patience.until_s(None) == 120.0
    assert patience.until_s(3.0) == 13.0
    assert patience.until_s(40.0) == 80.0
    assert patience.until_s(100.0) == 120.0


def test_a_phase_closes_at_its_quorum_and_a_straggler_still_counts(
    stores: Any, grid: Any, tmp_path: Path
) -> None:
    for i in range(5):
        grid.states[i] = stores.make(f"rpi-{i}", stores.pump(), seed=i)
    clock = Clock()
    training = new_training(tmp_path / "server", grid, clock, ready_s=0.0)
    grid.held = {4}
    # It answers the statistics while the ridge sums are asked for.
    at_question(grid, 6, grid.held.clear)
    first = training.run()
    assert first is not None
    assert clock.s < 40  # not 120 for each phase
    assert [e["node"] for e in events(training, "late")] == ["rpi-4"]
    second = training.run()
    assert second is not None
    assert second.manifest.contributors == tuple(f"rpi-{i}" for i in range(5))


def test_who_does_not_say_that_it_is_ready_is_sent_nothing_large(
    stores: Any, grid: Any, tmp_path: Path
) -> None:
    for i in range(3):
        grid.states[i] = stores.make(f"rpi-{i}", stores.pump(), seed=i)
    grid.held = {2}  # asleep
    training = new_training(tmp_path / "server", grid)
    release = training.run()
    assert release is not None
    assert release.manifest.contributors == ("rpi-0", "rpi-1")
    assert [kind for node, kind in grid.kinds if node == 2] == ["query.status"]
    # A week later it is back, and takes part; what it says late of its readiness does no harm.
    grid.held = set()
    training.fleet.wait(7 * 86400.0)
    again = training.run()
    assert again is not None
    assert again.manifest.contributors == ("rpi-0", "rpi-1", "rpi-2")


def test_a_node_that_says_late_that_it_is_ready_joins_the_next_phase(
    stores: Any, grid: Any, tmp_path: Path
) -> None:
    spec = stores.pump(stores.ridge, stores.network)
    for i in range(4):
        grid.states[i] = stores.make(f"rpi-{i}", spec, seed=i)
    grid.held = {2, 3}
    training = new_training(tmp_path / "server", grid, quorum=0.5)
    # While the two that are ready are asked for their statistics.
    at_question(grid, 5, lambda: grid.held.discard(3))
    assert training.run() is not None
    assert ("readiness", "rpi-3") in {(e["phase"], e["node"]) for e in events(training, "late")}
    assert "train" in [kind for node, kind in grid.kinds if node == 3]
    assert "train" not in [kind for node, kind in grid.kinds if node == 2]


def test_a_node_that_runs_another_spec_is_not_sent_the_training(
    stores: Any, grid: Any, tmp_path: Path
) -> None:
    grid.states[0] = stores.make("rpi-0", stores.pump())
    assert new_training(tmp_path / "server", grid).run() is not None
    grid.states[1] = stores.make("rpi-1", stores.pump(stats=("mean_4",)), seed=2)
    grid.states[2] = tmp_path / "nowhere"
    training = new_training(tmp_path / "server", grid)
    assert training.run() is not None
    asked = [e for e in events(training, "phase") if e["phase"] == "readiness"][-1]
    assert "its pump is configured otherwise" in asked["failed"]["rpi-1"]
    assert "has the agent run with this state folder?" in asked["failed"]["node 2"]
    assert "train" not in [kind for node, kind in grid.kinds if node in {1, 2}]


def test_a_question_that_is_answered_after_all_does_not_end_the_run(
    stores: Any, grid: Any, tmp_path: Path
) -> None:
    grid.states[0] = stores.make("rpi-0", stores.pump())
    training = new_training(tmp_path / "server", grid, ask_s=1.0)
    training.run()
    serving = Serving(training)
    grid.held = {0}
    training.fleet.wait(10.0)
    assert serving._why([0], asked=False, due=False) == ""
    grid.held = set()
    assert training.run() is not None


def at_question(grid: Any, step: int, do: Callable[[], None]) -> Callable[[], None]:
    """Do something as the ``step``-th question from now is asked; returns how to forget it."""
    push = grid.push_messages
    count = 0

    def counting(messages: Any) -> Any:
        nonlocal count
        count += 1
        if count == step:
            do()
        return push(messages)

    def forget() -> None:
        grid.push_messages = push

    grid.push_messages = counting
    return forget


def kill() -> None:
    raise Killed


def killed(training: Training, grid: Any, step: int) -> None:
    """Run a training whose process ends as it asks for the ``step``-th time."""
    forget = at_question(grid, step, kill)
    with pytest.raises(Killed):
        training.run()
    forget()
    grid._replies.clear()  # with SuperLink, what was on its way is lost


def test_a_training_that_is_killed_at_any_question_goes_on_and_makes_the_same(
    stores: Any, grid: Any, tmp_path: Path
) -> None:
    spec = stores.pump(stores.ridge, stores.network)
    for i in range(2):
        grid.states[i] = stores.make(f"rpi-{i}", spec, seed=i)
    whole = new_training(tmp_path / "whole", grid).run()
    assert whole is not None
    questions = len(grid.kinds)
    assert questions == 10  # readiness, statistics, two rounds, evaluation; two nodes
    for step in range(1, questions + 1):
        state = tmp_path / f"killed-{step}"
        first = new_training(state, grid)
        first.why = "a person asked for it"
        killed(first, grid, step)
        resumed = new_training(state, grid)
        release = resumed.run()
        assert release is not None, step
        same(release, whole)
        assert checkpoint.read(state) is None
        assert [e["why"] for e in events(resumed, "release")] == ["a person asked for it"]
        # The class is not known, nor its journal there, before the statistics are.
        assert len(events(resumed, "resumed")) == (step > 4)


def same(one: Release, other: Release) -> None:
    assert one.version == other.version
    assert one.arrays.keys() == other.arrays.keys()
    for name, array in one.arrays.items():
        assert np.array_equal(array, other.arrays[name]), name


def test_rounds_that_are_done_are_not_asked_for_again(
    stores: Any, grid: Any, tmp_path: Path
) -> None:
    grid.states[0] = stores.make("rpi-0", stores.pump(stores.ridge, stores.network))
    killed(new_training(tmp_path / "server", grid), grid, 4)  # readiness, statistics, fit 1 | 2
    before = len(grid.kinds)
    resumed = new_training(tmp_path / "server", grid)
    assert resumed.run() is not None
    kinds = [kind for _, kind in grid.kinds[before:]]
    assert kinds == ["query.status", "train", "evaluate"]
    assert events(resumed, "resumed")[0]["round"] == 1


@pytest.mark.parametrize("event", ["before", "register", "release"])
def test_a_version_is_neither_lost_nor_made_twice(
    event: str, stores: Any, grid: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid.states[0] = stores.make("rpi-0", stores.pump())
    register, note, point = Registry.register, Registry.note, Registry.point

    def killing_register(self: Registry, release: Release) -> None:
        if event == "before":
            raise Killed
        register(self, release)

    def killing_point(self: Registry, version: int) -> None:
        if event == "register":
            raise Killed
        point(self, version)

    def killing_note(self: Registry, what: str, at_s: float, **facts: object) -> None:
        if what == event:
            raise Killed
        note(self, what, at_s, **facts)

    with monkeypatch.context() as patch:
        patch.setattr(Registry, "register", killing_register)
        patch.setattr(Registry, "point", killing_point)
        patch.setattr(Registry, "note", killing_note)
        with pytest.raises(Killed):
            new_training(tmp_path / "server", grid).run()
    resumed = new_training(tmp_path / "server", grid)
    release = resumed.run()
    assert release is not None
    registry = Registry(tmp_path / "server", "pump")
    assert registry.versions() == [1]
    assert registry.pointed() == 1
    assert [e["version"] for e in events(resumed, "release")] == [1]
    assert resumed.status.released is not None
    following = resumed.run()
    assert following is not None
    assert following.version == 2


def test_a_training_that_never_ends_is_given_up(stores: Any, grid: Any, tmp_path: Path) -> None:
    grid.states[0] = stores.make("rpi-0", stores.pump())
    assert new_training(tmp_path / "server", grid).run() is not None
    for _ in range(checkpoint.MOST_TRIES):
        killed(new_training(tmp_path / "server", grid), grid, 2)
    training = new_training(tmp_path / "server", grid)
    release = training.run()
    assert release is not None
    assert release.version == 2
    (abandoned,) = events(training, "abandoned")
    assert abandoned["tries"] == checkpoint.MOST_TRIES
    phases = [e["training"] for e in events(training, "phase")]
    assert phases[-1] == abandoned["training"] + 1


def test_a_damaged_checkpoint_is_said_and_the_training_begins_anew(
    stores: Any, grid: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    grid.states[0] = stores.make("rpi-0", stores.pump())
    training = new_training(tmp_path / "server", grid)
    (tmp_path / "server" / checkpoint.FILE).write_bytes(b"PK\x03\x04")
    assert training.run() is not None
    assert "a training that did not end is given up" in caplog.text


def test_a_server_takes_up_a_training_before_its_time(
    stores: Any, grid: Any, tmp_path: Path
) -> None:
    grid.states[0] = stores.make("rpi-0", stores.pump())
    assert new_training(tmp_path / "server", grid).run() is not None
    killed(new_training(tmp_path / "server", grid), grid, 3)
    training = new_training(tmp_path / "server", grid)
    current = training.open()
    clock = training.fleet.clock
    training.fleet.wait = ends(training.fleet.wait, lambda: clock() > 5)
    with pytest.raises(Killed):
        Serving(training).run(current)
    assert Registry(tmp_path / "server", "pump").versions() == [1, 2]


def ends(wait: Callable[[float], object], when: Callable[[], bool]) -> Callable[[float], object]:
    def waiting(seconds: float) -> None:
        wait(seconds)
        if when():
            raise Killed

    return waiting
