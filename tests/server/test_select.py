"""Models tried by a fleet: the real ClientApp on real stores, in one process."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.local_round import answer
from contract import VERSION
from contract.errors import ConfigError, ContractError
from contract.model_spec import Privacy, Ridge
from contract.update import FIT, Request
from server import select
from server.guard import Limits
from server.rounds import Fleet
from server.status import Status
from server.training import Settings, Training


@pytest.fixture
def training(tmp_path: Path, grid: Any) -> Training:
    (tmp_path / "server").mkdir()
    settings = Settings(tmp_path / "server", "", 1, 1, 0.3, 60.0, "fedavg", False, Limits())
    return Training(settings, Fleet(grid), Status())


def candidates(*models: Any) -> list[select.Candidate]:
    return [select.Candidate(f"model {i}", model) for i, model in enumerate(models)]


def test_the_simplest_of_those_as_good_as_the_best_is_chosen_and_nothing_is_released(
    stores: Any, grid: Any, training: Training
) -> None:
    spec = stores.pump()
    for i in range(3):
        grid.states[i + 1] = stores.make(f"rpi-{i}", spec, seed=i)
    assert training.run() is not None
    asked = select.Asked("7", candidates(Ridge(random=60), Ridge(random=0), stores.network))
    said: list[str] = []
    select.request(training.settings.state, asked)
    assert select.pending(training.settings.state) == asked
    select.run(training, asked, spec, said.append)
    found = select.told(training.settings.state)
    assert found is not None
    assert (found.number, found.done, found.failed) == ("7", True, {})
    by_name = {row.candidate.name: row for row in found.rows}
    best = min(found.rows, key=lambda row: row.error_h)
    within = best.error_h + best.standard_error_h
    good = [row for row in found.rows if row.error_h <= within]
    assert by_name[found.chosen] is min(good, key=lambda row: row.numbers)
    # A wear that is a cube of time is no line.
    assert by_name["model 0"].error_h < by_name["model 1"].error_h
    assert by_name["model 0"].numbers > by_name["model 1"].numbers
    assert all(
        row.nodes == 3 and row.up_kb > 0 and row.worst_h >= row.error_h for row in found.rows
    )
    assert said == [f"selection: {i + 1} of 3, model {i}" for i in range(3)]
    assert training.cohort is not None
    assert training.cohort.registry.versions() == [1]
    assert select.pending(training.settings.state) is None
    lines = select.table(found)
    assert len(lines) == 4
    assert sum(line.endswith("<- chosen") for line in lines) == 1


def test_a_trial_is_told_by_the_model_it_will_be_and_the_next_training_is_as_before(
    stores: Any, grid: Any, training: Training
) -> None:
    spec = stores.pump()
    for i in range(2):
        grid.states[i + 1] = stores.make(f"rpi-{i}", spec, seed=i)
    first = training.run()
    select.run(training, select.Asked("1", candidates(Ridge(random=5))), spec, lambda _: None)
    second = training.run()
    assert first is not None
    assert second is not None
    assert (second.arrays["ridge/coefficients"] == first.arrays["ridge/coefficients"]).all()


def test_nodes_without_lives_to_judge_by_say_so(stores: Any, grid: Any, training: Training) -> None:
    spec = stores.pump()
    grid.states[1] = stores.make("rpi-0", spec, lives=0)
    select.run(training, select.Asked("1", candidates(Ridge(random=5))), spec, lambda _: None)
    found = select.told(training.settings.state)
    assert found is not None
    assert (found.rows, found.chosen, found.done) == ([], "", True)
    assert "finished lives" in found.failed["model 0"]
    assert "not judged" in select.table(found)[1]


def test_a_device_tries_nothing_that_means_other_features_or_that_privacy_would_count(
    stores: Any,
) -> None:
    spec = stores.pump()
    folder = stores.make("rpi-0", spec)
    for changes in ({"stats": ("mean_4", "std_8")}, {"cap_h": 30.0}, {"hop": 2}):
        trial = msgspec.structs.replace(spec, **changes)
        request = Request(VERSION, FIT, spec.name, "", 1, trial=trial)
        with pytest.raises(ContractError, match="configured otherwise"):
            answer(folder, request, {})
    private = msgspec.structs.replace(spec, rul=(Ridge(random=0, basis="own"),), privacy=Privacy())
    other = stores.make("rpi-1", private)
    with pytest.raises(ContractError, match="with privacy no models are tried"):
        answer(other, Request(VERSION, FIT, spec.name, "", 1, trial=spec), {})


def test_candidates_come_from_a_configuration_or_from_what_was_chosen(tmp_path: Path) -> None:
    file = tmp_path / "small.toml"
    file.write_text('[[asset_class.rul]]\nkind = "ridge"\nrandom = 5\n', encoding="utf-8")
    assert select.candidates_of(file) == [select.Candidate("small ridge", Ridge(random=5))]
    whole = Path(__file__).parents[2] / "configs" / "agent.turbofan.toml"
    assert [one.name for one in select.candidates_of(whole)] == [
        "agent.turbofan ridge",
        "agent.turbofan sklearn",
    ]
    file.write_text('[[asset_class.rul]]\nkind = "rigde"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"small\.toml: Invalid value 'rigde'"):
        select.candidates_of(file)
    file.write_text('[asset_class]\nname = "x"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="there is no"):
        select.candidates_of(file)
    with pytest.raises(ConfigError, match="No such file"):
        select.candidates_of(tmp_path / "none.toml")
