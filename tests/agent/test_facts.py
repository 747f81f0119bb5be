"""Slow facts: what their file may hold, and what becomes of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.config import AgentConfig
from agent.facts import FactsFile, read
from contract.errors import DataError
from contract.features import FeatureSpec
from tests.agent.conftest import pump_class, wearing

Configure = Callable[..., AgentConfig]
Open = Callable[[AgentConfig], Any]

WANTED = frozenset({"rated_kw", "age_years"})


def write(folder: Path, text: str) -> Path:
    path = folder / "facts.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_wanted_columns_are_read_and_others_left_alone(tmp_path: Path) -> None:
    path = write(tmp_path, "asset,maker,rated_kw,age_years\npump-1,KSB,7.5,4\n\npump-2,,11,\n")
    assert read(path, WANTED) == {
        "pump-1": {"rated_kw": 7.5, "age_years": 4.0},
        "pump-2": {"rated_kw": 11.0},
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "needs a column 'asset'"),
        ("machine,rated_kw,age_years\n", "needs a column 'asset'"),
        ("asset,rated_kw\npump-1,1\n", "no column 'age_years'"),
        ("asset,rated_kw,age_years\npump-1,1\n", ":2: 2 cells, 3 in the header"),
        ("asset,rated_kw,age_years\npump-1,1,2\npump-1,1,2\n", ":3: asset 'pump-1' stands twice"),
        ("asset,rated_kw,age_years\npump-1,big,2\n", ":2, column 'rated_kw': 'big' is no number"),
        ("asset,rated_kw,age_years\npump-1,inf,2\n", ":2, column 'rated_kw': 'inf'"),
        ("asset,rated_kw,age_years\npump 1,1,2\n", ":2: asset 'pump 1'"),
    ],
)
def test_a_mistake_is_named_with_its_place(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"facts\.csv") as caught:
        read(write(tmp_path, text), WANTED)
    assert words in str(caught.value)


def test_a_file_that_is_not_there_is_said_in_words(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path / "facts.csv", WANTED)


# -- in the pipeline -------------------------------------------------------------------------------


def test_facts_are_columns_of_feature_vectors_from_when_they_are_known(
    configure: Configure, device: Open
) -> None:
    spec = pump_class(facts=("rated_kw",), hop=1)
    config = configure(spec=spec)
    node = device(config)
    node.live("pump-1", wearing(1, 20))
    assert node.engine.pipeline.counts.vectors == 20
    with pytest.raises(KeyError):  # a vector that lacks a fact is not learnt from
        node.engine.store.last_vector("pump-1")
    node.engine.take_facts({"pump-1": {"rated_kw": 7.5}})
    (report, *_) = node.live("pump-1", wearing(1, 1), begin=20)
    assert report.lacks == ()
    names = FeatureSpec.of(spec).names
    assert names[-1] == "rated_kw"
    vector = node.engine.store.last_vector("pump-1")
    assert len(vector) == len(names)
    assert vector[-1] == 7.5


def test_a_vector_says_which_fact_it_lacks(configure: Configure, device: Open) -> None:
    node = device(configure(spec=pump_class(facts=("rated_kw",))))
    reports = node.live("pump-1", wearing(1, 3))
    assert reports[-1].lacks == ("rated_kw",)


def test_facts_come_back_after_a_kill_and_from_a_checkpoint(
    configure: Configure, device: Open
) -> None:
    config = configure(spec=pump_class(facts=("rated_kw",)))
    node = device(config)
    node.live("pump-1", wearing(1, 5))
    node.engine.take_facts({"pump-1": {"rated_kw": 7.5}, "pump-2": {}})
    node.live("pump-1", wearing(2, 5), begin=5)
    before = node.state()
    node.kill()
    again = device(config)
    assert again.state() == before
    again.close()
    assert device(config).state() == before


def test_the_table_is_read_again_when_it_changes_and_a_bad_one_is_told_once(
    tmp_path: Path, configure: Configure
) -> None:
    path = write(tmp_path, "asset,rated_kw\npump-1,7.5\n")
    config = configure(spec=pump_class(facts=("rated_kw",)), facts=str(path))
    table = FactsFile(config)
    assert table.changed() == {"pump-1": {"rated_kw": 7.5}}
    assert table.changed() is None
    path.write_text("asset,rated_kw\npump-1,much\n")
    with pytest.raises(DataError, match="'much' is no number"):
        table.changed()
    assert table.changed() is None
    path.write_text("asset,rated_kw\npump-1,11\n")
    assert table.changed() == {"pump-1": {"rated_kw": 11.0}}
