"""Slow facts: what their file may hold, and what becomes of them."""

from pathlib import Path

import pytest

from agent.facts import read
from contract.errors import DataError

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
