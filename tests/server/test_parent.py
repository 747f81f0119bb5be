"""Two levels: regional servers as nodes of a parent, held against one server of all."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from flwr.app import Context, RecordDict

from contract.errors import ConfigError, ContractError
from contract.update import FIT, STATISTICS, Request
from flowerapp.region import app as region_app
from server import parent
from server.config import load
from server.guard import Limits
from server.merge import withdraw
from server.registry import Registry
from server.rounds import Fleet
from server.status import REQUEST, Status
from server.training import Settings, Training
from tests.server.conftest import LocalGrid


class RegionGrid(LocalGrid):
    """A grid whose nodes are regional servers' state folders."""

    def push_messages(self, messages: Any) -> Any:
        ids = []
        for message in messages:
            node_id = message.metadata.dst_node_id
            number = f"message-{len(self.kinds)}"
            message.metadata.__dict__["_message_id"] = number
            self.kinds.append((node_id, message.metadata.message_type))
            config = {"state": str(self.states[node_id]), "node": f"region-{node_id}"}
            self._replies[number] = region_app(
                message, Context(1, node_id, config, RecordDict(), {})
            )
            ids.append(number)
        return ids


def training(state: Path, grid: Any, **changes: Any) -> Training:
    state.mkdir(exist_ok=True)
    settings = Settings(state, "", 1, 1, 0.3, 60.0, "fedavg", False, Limits())
    return Training(replace(settings, **changes), Fleet(grid), Status())


class Company:
    """Two regions of three devices each, their parent, and one server of all six."""

    def __init__(self, folder: Path, stores: Any, *rul: Any) -> None:
        self.folder, self.stores = folder, stores
        self.spec = stores.pump(*rul)
        self.above, self.all = RegionGrid(), LocalGrid()
        self.regions: list[Training] = []
        for r in range(2):
            grid = LocalGrid()
            state = folder / f"region-{r}"
            for i in range(3):
                number = 3 * r + i
                made = stores.make(f"rpi-{number}", self.spec, seed=number + 1, lives=4 + i)
                grid.states[number] = self.all.states[number] = made
            self.regions.append(training(state, grid, parent=True))
            self.above.states[r] = state
        self.parent = training(folder / "parent", self.above)
        self.flat = training(folder / "flat", self.all)


@pytest.fixture
def company(tmp_path: Path, stores: Any) -> Company:
    return Company(tmp_path, stores)


def test_a_parent_of_regions_comes_to_what_one_server_of_all_devices_does(
    company: Company,
) -> None:
    flat = company.flat.run()
    assert flat is not None
    # Alone, each region makes a version of its own.
    assert [one.run().version for one in company.regions] == [1, 1]  # type: ignore[union-attr]
    first = company.parent.run()
    assert first is not None
    assert not first.rul  # the regions have only now heard under which standardisation
    for one in company.regions:
        assert (one.settings.state / REQUEST).exists()
        assert one.run() is not None  # nothing came from the parent yet: it goes on alone
    second = company.parent.run()
    assert second is not None
    assert second.manifest.contributors == ("region-0", "region-1")
    assert second.manifest.lives == {"region-0": 11, "region-1": 11}
    for name in ("basis/mean", "basis/scale", "ridge/coefficients", "health/model/variances"):
        got, expected = second.arrays[name], flat.arrays[name]
        assert np.abs(got - expected).max() <= 1e-9 * np.abs(expected).max(), name
    assert np.array_equal(second.arrays["health/histogram"], flat.arrays["health/histogram"])


def test_the_parents_release_goes_to_the_regions_devices_and_stays_until_the_next(
    company: Company,
) -> None:
    for one in company.regions:
        one.run()
    company.parent.run()
    for one in company.regions:
        one.run()
    release = company.parent.run()
    assert release is not None
    assert company.parent.deploy(release, [0, 1]) == {0, 1}
    assert company.parent.deploy(release, [0, 1]) == {0, 1}  # twice does no harm
    region = company.regions[0]
    registry = Registry(region.settings.state, "pump")
    assert registry.versions() == [1, 2, 3]
    current = registry.current()
    assert current is not None
    assert current.version == 3
    assert current.signature  # by this region's key, which its devices trust
    assert np.array_equal(
        current.arrays["ridge/coefficients"], release.arrays["ridge/coefficients"]
    )
    # What a region learns from then on is for the parent, which makes the versions.
    company.stores.live(region.fleet.grid.states[0], "rpi-0", company.spec, lives=2, seed=77)
    assert region.run() is None
    assert registry.versions() == [1, 2, 3]
    third = company.parent.run(even_if_nothing_new=False)
    assert third is not None
    assert third.manifest.lives["region-0"] > release.manifest.lives["region-0"]
    # And a node that is taken out of a region is out of the whole.
    company.parent.run()
    assert company.parent.run(even_if_nothing_new=False) is None
    withdraw(region.settings.state, "rpi-0")
    less = company.parent.run(even_if_nothing_new=False)
    assert less is not None
    assert less.manifest.lives["region-0"] < third.manifest.lives["region-0"]


def test_weights_of_regions_are_merged_by_their_rows(tmp_path: Path, stores: Any) -> None:
    company = Company(tmp_path, stores, stores.ridge, stores.network)
    for _ in range(2):
        for one in company.regions:
            one.run()
        release = company.parent.run()
    assert release is not None
    assert {"ridge", "sklearn"} <= release.rul.keys()


def test_what_a_region_cannot_tell_is_said(company: Company) -> None:
    state = company.regions[0].settings.state
    request = Request(1, STATISTICS, "pump", "", 1)
    with pytest.raises(ContractError, match="this region has no asset class 'pump'; it has none"):
        parent.answer(state, "north", request, {})
    company.regions[0].run()
    with pytest.raises(ContractError, match="configured otherwise in this region"):
        parent.answer(state, "north", msgspec.structs.replace(request, digest="0" * 16), {})
    with pytest.raises(ContractError, match="no sum of its tells it"):
        parent.answer(state, "north", msgspec.structs.replace(request, phase="shape"), {})
    basis = company.regions[0].run()
    assert basis is not None
    other = {"basis/mean": np.ones(4), "basis/scale": np.ones(4)}
    with pytest.raises(ContractError, match="takes part in the next training"):
        parent.answer(state, "north", msgspec.structs.replace(request, phase=FIT), other)


def test_a_region_is_asked_whether_it_is_ready(company: Company) -> None:
    company.regions[0].run()
    told = parent.readiness(company.regions[0].settings.state, "north")
    assert told.node == "north"
    assert told.classes["pump"].lives == 11
    assert told.epoch > 0
    again = parent.readiness(company.regions[0].settings.state, "north")
    assert again.epoch == told.epoch


def test_beyond_loopback_the_parent_is_known_by_its_authority(tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    path.write_text('[parent]\nsuperlink = "hq.example:9092"\nname = "north"\n')
    with pytest.raises(ConfigError, match=r"parent\.superlink: 'hq\.example' is beyond loopback"):
        load(path)
    path.write_text('[parent]\nsuperlink = "127.0.0.1:9092"\nname = "a/b"\n')
    with pytest.raises(ConfigError, match=r"parent\.name"):
        load(path)
