"""A fleet with unlike machines: a line of training for each asset class."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from server import checkpoint
from server.guard import Limits
from server.registry import Registry
from server.rounds import Fleet
from server.serving import AGAIN_S, Cohorts
from server.status import REQUEST, Status
from server.training import Settings, Training
from tests.server.test_rounds import Clock, Killed, at_question, kill


class Plant:
    """Two devices with pumps, two with fans, one with a press."""

    def __init__(self, folder: Path, grid: Any, stores: Any) -> None:
        self.state, self.grid, self.stores = folder / "server", grid, stores
        self.state.mkdir()
        self.specs = {
            name: msgspec.structs.replace(stores.pump(), name=name)
            for name in ("pump", "fan", "press")
        }
        for number, name in enumerate(["pump", "fan", "pump", "fan", "press"]):
            self.add(number, name)
        self.clock = Clock()

    def add(self, number: int, name: str) -> None:
        spec = self.specs[name]
        made = self.stores.make(f"rpi-{number}", spec, seed=number + 1)
        self.grid.states[number] = made

    def server(self) -> Cohorts:
        settings = Settings(
            *(self.state, "", 1, 2, 120.0, 3600.0, "fedavg", True, Limits()),
            ready_s=60.0,
            quorum=0.8,
        )
        fleet = Fleet(self.grid, wait=self.clock.wait, clock=self.clock)
        return Cohorts(Training(settings, fleet, Status()))

    def versions(self, name: str) -> list[int]:
        return Registry(self.state, name).versions()

    def inbox(self, number: int) -> list[str]:
        folder = self.stores.folder / f"rpi-{number}" / "models" / "inbox"
        return sorted(path.name for path in folder.glob("*")) if folder.exists() else []


@pytest.fixture
def plant(tmp_path: Path, grid: Any, stores: Any) -> Plant:
    return Plant(tmp_path, grid, stores)


def test_each_class_that_enough_nodes_run_is_trained_and_handed_to_those_alone(
    plant: Plant,
) -> None:
    plant.server().turn()
    assert plant.versions("pump") == plant.versions("fan") == [1]
    assert not plant.versions("press")  # one device, and two are asked for
    assert [plant.inbox(n) for n in range(5)] == [
        ["pump-v0001.npz"],
        ["fan-v0001.npz"],
        ["pump-v0001.npz"],
        ["fan-v0001.npz"],
        [],
    ]
    contributors = {
        name: Registry(plant.state, name).get(1).manifest.contributors for name in ("pump", "fan")
    }
    assert contributors == {"pump": ("rpi-0", "rpi-2"), "fan": ("rpi-1", "rpi-3")}


def test_a_class_that_comes_later_is_found(plant: Plant) -> None:
    server = plant.server()
    server.turn()
    plant.add(5, "press")
    plant.clock.wait(10.0)
    server.turn()
    assert plant.versions("press") == [1]
    assert plant.versions("pump") == [1]


def test_a_device_that_is_configured_otherwise_is_asked_again(plant: Plant) -> None:
    server = plant.server()
    server.turn()
    plant.add(0, "press")
    plant.clock.wait(AGAIN_S)
    server.turn()
    assert plant.versions("press") == [1]


def test_a_person_asks_all_classes_once(plant: Plant) -> None:
    server = plant.server()
    server.turn()
    (plant.state / REQUEST).touch()
    for _ in range(3):
        plant.clock.wait(2.0)
        server.turn()
    assert plant.versions("pump") == plant.versions("fan") == [1, 2]
    assert not (plant.state / REQUEST).exists()


def test_each_class_goes_on_where_its_training_was_killed(plant: Plant) -> None:
    server = plant.server()
    server.turn()
    (plant.state / REQUEST).touch()
    plant.clock.wait(2.0)
    before = len(plant.grid.kinds)
    forget = at_question(plant.grid, 5, kill)  # of fans, which are first: two ready, two told
    with pytest.raises(Killed):
        server.turn()
    forget()
    assert len(plant.grid.kinds) == before + 4
    assert checkpoint.path_of(plant.state, "fan").exists()
    assert not checkpoint.path_of(plant.state, "pump").exists()
    plant.grid._replies.clear()
    again = plant.server()
    again.turn()
    assert plant.versions("fan") == [1, 2]
    assert plant.versions("pump") == [1, 2]
    events = [e["event"] for e in Registry(plant.state, "fan").journal()]
    assert "resumed" in events


def test_a_late_answer_is_kept_for_its_own_class(plant: Plant) -> None:
    server = plant.server()
    plant.grid.held = {0}  # answers late, from the first question on
    server.turn()
    assert plant.versions("fan") == [1]
    assert not plant.versions("pump")
    plant.grid.held = set()
    plant.clock.wait(2.0)
    server.turn()
    assert plant.versions("pump") == [1]
    assert Registry(plant.state, "pump").get(1).manifest.contributors == ("rpi-0", "rpi-2")
