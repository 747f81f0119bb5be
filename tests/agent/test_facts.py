"""Slow facts: what their file may hold, and what becomes of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.config import AgentConfig
from agent.facts import EVER, FactsFile, read
from contract.errors import DataError
from contract.features import FeatureSpec
from contract.report import Health
from contract.spec import Fact
from tests.agent.conftest import HOUR_NS, START_NS, pump_class, wearing

Configure = Callable[..., AgentConfig]
Open = Callable[[AgentConfig], Any]

SPEC = pump_class(facts=("rated_kw", "age_years"))


def write(folder: Path, text: str) -> Path:
    path = folder / "facts.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_wanted_columns_are_read_and_others_left_alone(
    tmp_path: Path, configure: Configure
) -> None:
    path = write(tmp_path, "asset,maker,rated_kw,age_years\npump-1,KSB,7.5,4\n\npump-2,,11,\n")
    assert read(path, configure(spec=SPEC)) == {
        "pump-1": [(EVER, {"rated_kw": 7.5, "age_years": 4.0})],
        "pump-2": [(EVER, {"rated_kw": 11.0})],
    }


def test_rows_of_an_asset_hold_from_their_times_on_in_whatever_order_they_stand(
    tmp_path: Path, configure: Configure
) -> None:
    text = (
        "asset,from,rated_kw,age_years\n"
        "pump-1,2025-03-01T12:00:00+01:00,7.5,0\n"
        "pump-1,,7.5,4\n"
        "pump-1,2024-01-01,,5\n"
    )
    assert read(write(tmp_path, text), configure(spec=SPEC)) == {
        "pump-1": [
            (EVER, {"rated_kw": 7.5, "age_years": 4.0}),
            (1_704_067_200 * 10**9, {"age_years": 5.0}),
            (1_740_826_800 * 10**9, {"rated_kw": 7.5, "age_years": 0.0}),
        ]
    }


MAKER = Fact("maker", one_of=("KSB", "Wilo"))
DUTY = Fact("duty", order=("light", "normal", "heavy"))


def test_words_become_features_as_the_class_declares(tmp_path: Path, configure: Configure) -> None:
    spec = pump_class(facts=(MAKER, DUTY))
    assert FeatureSpec.of(spec).names[-3:] == ("maker=KSB", "maker=Wilo", "duty")
    text = "asset,maker,duty\npump-1,Wilo,heavy\npump-2,KSB,\npump-3,,light\n"
    assert read(write(tmp_path, text), configure(spec=spec)) == {
        "pump-1": [(EVER, {"maker=KSB": 0.0, "maker=Wilo": 1.0, "duty": 2.0})],
        "pump-2": [(EVER, {"maker=KSB": 1.0, "maker=Wilo": 0.0})],
        "pump-3": [(EVER, {"duty": 0.0})],
    }
    with pytest.raises(DataError, match=r":2, column 'maker': 'Grundfos' is none of KSB, Wilo"):
        read(write(tmp_path, "asset,maker,duty\npump-1,Grundfos,\n"), configure(spec=spec))


@pytest.mark.parametrize(
    "given",
    [{}, {"one_of": ("a",), "order": ("a",)}, {"one_of": ("a", "a")}, {"order": ("a", "a")}],
)
def test_a_fact_of_words_says_once_which_there_are(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="give its words, each once"):
        Fact("maker", **given)


def test_two_facts_that_become_one_feature_are_refused() -> None:
    with pytest.raises(ValueError, match="named once each"):
        pump_class(facts=("duty", DUTY))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "needs a column 'asset'"),
        ("machine,rated_kw,age_years\n", "needs a column 'asset'"),
        ("asset,rated_kw\npump-1,1\n", "no column 'age_years'"),
        ("asset,rated_kw,age_years\npump-1,1\n", ":2: 2 cells, 3 in the header"),
        ("asset,rated_kw,age_years\npump-1,1,2\npump-1,1,2\n", ":3: asset 'pump-1' stands twice"),
        ("asset,from,rated_kw,age_years\npump-1,soon,1,2\n", ":2, column 'from': 'soon'"),
        ("asset,rated_kw,age_years\npump-1,big,2\n", ":2, column 'rated_kw': 'big' is no number"),
        ("asset,rated_kw,age_years\npump-1,inf,2\n", ":2, column 'rated_kw': 'inf'"),
        ("asset,rated_kw,age_years\npump 1,1,2\n", ":2: asset 'pump 1'"),
    ],
)
def test_a_mistake_is_named_with_its_place(
    text: str, words: str, tmp_path: Path, configure: Configure
) -> None:
    with pytest.raises(DataError, match=r"facts\.csv") as caught:
        read(write(tmp_path, text), configure(spec=SPEC))
    assert words in str(caught.value)


def test_a_file_that_is_not_there_is_said_in_words(tmp_path: Path, configure: Configure) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path / "facts.csv", configure(spec=SPEC))


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
    node.engine.take_facts({"pump-1": [(EVER, {"rated_kw": 7.5})]})
    (report, *_) = node.live("pump-1", wearing(1, 1), begin=20)
    assert report.lacks == ()
    names = FeatureSpec.of(spec).names
    assert names[-1] == "rated_kw"
    vector = node.engine.store.last_vector("pump-1")
    assert len(vector) == len(names)
    assert vector[-1] == 7.5


def test_each_vector_bears_the_facts_of_its_own_time_however_batches_are_cut(
    configure: Configure, device: Open
) -> None:
    spec = pump_class(facts=("age_years",), hop=1)
    dated = [(START_NS + 3 * HOUR_NS, {"age_years": 1.0}), (START_NS + 6 * HOUR_NS, {})]
    readings = wearing(1, 9)
    lacking = []
    for name, cuts in (("one", [9]), ("other", [2, 4, 9])):
        node = device(configure(name, spec=spec))
        node.engine.take_facts({"pump-1": dated})
        reports, begin = [], 0
        for end in cuts:
            reports += node.live("pump-1", readings[begin:end], begin=begin)
            begin = end
        told = [report for report in reports if isinstance(report, Health)]
        lacking.append([(report.t, report.lacks) for report in told])
    first, second = lacking
    assert first == second
    known = [not lacks for _, lacks in first]
    assert known == [False] * 2 + [True] * 3 + [False] * 4


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
    node.engine.take_facts({"pump-1": [(EVER, {"rated_kw": 7.5})], "pump-2": []})
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
    assert table.changed() == {"pump-1": [(EVER, {"rated_kw": 7.5})]}
    assert table.changed() is None
    path.write_text("asset,rated_kw\npump-1,much\n")
    with pytest.raises(DataError, match="'much' is no number"):
        table.changed()
    assert table.changed() is None
    path.write_text("asset,rated_kw\npump-1,11\n")
    assert table.changed() == {"pump-1": [(EVER, {"rated_kw": 11.0})]}
