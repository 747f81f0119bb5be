"""A user's functions: called with what they asked for, kept to their folder, free to fail."""

import logging
from pathlib import Path

import numpy as np
import pytest

from agent.features.functions import UserFeatures, load
from contract.errors import ConfigError
from contract.spec import Function

COLUMNS = ("flow", "speed", "load")
ROWS = np.arange(30.0).reshape(10, 3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inside = tmp_path / "functions"
    inside.mkdir()
    return inside


def loaded(folder: Path, code: str, **options: object) -> UserFeatures:
    (folder / "mine.py").write_text(code)
    return load((Function("f", "mine:f", **options),), folder, COLUMNS)


def test_a_function_is_given_its_channels_in_its_order_and_the_newest_rows(folder: Path) -> None:
    (folder / "mine.py").write_text(
        "import numpy as np\n"
        "def first(rows): return rows[0, 0]\n"
        "def total(rows): return rows.sum()\n"
        "def shape(rows): return rows.shape[0] * 100 + rows.shape[1]\n"
    )
    features = load(
        (
            Function("a", "mine:first", ("load", "flow"), rows=2),
            Function("b", "mine:total", (), rows=1),
            Function("c", "mine:shape", rows=4),
        ),
        folder,
        COLUMNS,
    )
    assert features.names == ("a", "b", "c")
    assert features.rows == 4
    assert features.compute(ROWS).tolist() == [26.0, 27.0 + 28.0 + 29.0, 403.0]


def test_before_there_are_rows_enough_a_feature_is_missing_and_nothing_failed(folder: Path) -> None:
    features = loaded(folder, "def f(rows): return len(rows)", rows=5)
    assert np.isnan(features.compute(ROWS[:4])).all()
    assert features.compute(ROWS[:5]).tolist() == [5.0]
    assert features.failures == {"f": 0}


def test_a_function_can_neither_change_nor_be_changed_by_the_rows(folder: Path) -> None:
    features = loaded(
        folder,
        "kept = []\n"
        "def f(rows):\n"
        "    kept.append(rows)\n"
        "    if len(kept) == 2: rows[0, 0] = 5.0\n"
        "    return kept[0][0, 0]\n",
        rows=1,
    )
    rows = ROWS.copy()
    assert features.compute(rows).tolist() == [27.0]
    rows[:] = -1.0
    assert np.isnan(features.compute(rows)).all()  # it tried to write
    assert features.compute(rows).tolist() == [27.0]
    assert features.failures == {"f": 1}


@pytest.mark.parametrize(
    "body",
    ["1 / 0", "None", "'7'", "rows", "1j", "10 ** 400", "float('inf')", "rows[99]", "undefined"],
)
def test_what_raises_or_returns_no_number_is_missing_and_counted(folder: Path, body: str) -> None:
    features = loaded(folder, f"def f(rows): return {body}")
    found = features.compute(np.tile(ROWS, (7, 1)))
    assert np.isnan(found).all()
    assert features.failures == {"f": 1}


def test_nan_is_a_number_that_is_missing(folder: Path) -> None:
    features = loaded(folder, "def f(rows): return float('nan')", rows=1)
    assert np.isnan(features.compute(ROWS)).all()
    assert features.failures == {"f": 0}


def test_one_function_that_fails_takes_no_other_with_it(folder: Path) -> None:
    (folder / "mine.py").write_text("def bad(rows): raise KeyError\ndef good(rows): return True\n")
    functions = (Function("bad", "mine:bad", rows=1), Function("good", "mine:good", rows=1))
    found = load(functions, folder, COLUMNS).compute(ROWS)
    assert np.isnan(found[0])
    assert found[1] == 1.0


def test_failures_are_logged_the_1st_2nd_4th_and_8th_time(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    features = loaded(folder, "def f(rows): raise ValueError('no oil')", rows=1)
    with caplog.at_level(logging.WARNING):
        for _ in range(10):
            features.compute(ROWS)
    assert features.failures == {"f": 10}
    assert [vars(record)["count"] for record in caplog.records] == [1, 2, 4, 8]
    assert vars(caplog.records[0])["error"] == "ValueError: no oil"


def test_a_module_may_use_dataclasses(folder: Path) -> None:
    code = (
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "@dataclass\n"
        "class Pump:\n"
        "    flow: float\n"
        "def f(rows): return Pump(rows[0, 0]).flow\n"
    )
    assert loaded(folder, code, rows=1).compute(ROWS).tolist() == [27.0]


def test_a_module_cannot_import_its_neighbours(folder: Path) -> None:
    (folder / "neighbour_of_mine.py").write_text("x = 1")
    with pytest.raises(ConfigError, match="ModuleNotFoundError"):
        loaded(folder, "import neighbour_of_mine")


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (Function("f", "absent:f"), "no module absent.py"),
        (Function("f", "mine:g"), "mine.py has no function 'g'"),
        (Function("f", "mine:x"), "'x' in mine.py cannot be called"),
        (Function("f", "mine:f", ("power",)), "no channel 'power'"),
        (Function("f", "../outside:f"), "module:function"),
        (Function("f", "/etc/outside:f"), "module:function"),
        (Function("f", "os.path:join"), "module:function"),
        (Function("f", "mine"), "module:function"),
        (Function("f", "broken:f"), "broken.py: SyntaxError"),
        (Function("f", "raising:f"), "raising.py: RuntimeError: not today"),
        (Function("f", "link:f"), "leads out of its folder"),
        (Function("f", "circle:f"), "no module circle.py"),
        (Function("f", "directory:f"), "is not a Python file"),
        (Function("f", "json:dumps"), "no module json.py"),
    ],
    ids=lambda value: value.call if isinstance(value, Function) else "",
)
def test_what_cannot_be_loaded_is_refused_in_words(
    folder: Path, function: Function, words: str
) -> None:
    (folder / "mine.py").write_text("x = 1\ndef f(rows): return 0\n")
    (folder / "broken.py").write_text("def f(:\n")
    (folder / "raising.py").write_text("raise RuntimeError('not today')\n")
    (folder.parent / "outside.py").write_text("def f(rows): return 0\n")
    (folder / "link.py").symlink_to(folder.parent / "outside.py")
    (folder / "circle.py").symlink_to(folder / "circle.py")
    (folder / "directory.py").mkdir()
    with pytest.raises(ConfigError, match=words) as caught:
        load((function,), folder, COLUMNS)
    assert "function 'f'" in str(caught.value)


def test_a_link_within_the_folder_is_fine(folder: Path) -> None:
    (folder / "v2.py").write_text("def f(rows): return 2\n")
    (folder / "mine.py").symlink_to(folder / "v2.py")
    features = load((Function("f", "mine:f", rows=1),), folder, COLUMNS)
    assert features.compute(ROWS).tolist() == [2.0]


def test_names_that_repeat_are_refused(folder: Path) -> None:
    (folder / "mine.py").write_text("def f(rows): return 0\n")
    twice = (Function("f", "mine:f"), Function("f", "mine:f"))
    with pytest.raises(ConfigError, match="once"):
        load(twice, folder, COLUMNS)


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no module mine\.py"):
        load((Function("f", "mine:f"),), tmp_path / "absent", COLUMNS)


def test_no_functions_need_no_folder(tmp_path: Path) -> None:
    features = load((), tmp_path / "absent", COLUMNS)
    assert features.rows == 0
    assert features.compute(ROWS).shape == (0,)
