"""Recordings in their original formats: the real ones, and every way a file can be wrong."""

import gzip
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import io

from agent.decode import waveform
from contract.errors import ConfigError, DataError, RunoutError
from contract.report import Alert
from simulator import cli, score
from simulator.recordings import ai4i, cwru, femto, gasturbine, mat, nab, series, skab, table, tep
from simulator.recordings.datasets import DATASETS, Options
from simulator.truth import read

ROOT = Path(__file__).parents[2]
NO_OPTIONS = Options(None, 12_000.0, 4096)


@pytest.fixture(scope="session")
def data() -> Path:
    """Return the folder of the real recordings."""
    folder = (ROOT / os.environ.get("RUNOUT_DATA", "../shared/data")).resolve()
    if not folder.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"{folder} is absent, and CI must run these tests: set RUNOUT_DATA")
        pytest.skip(f"{folder} is absent: set RUNOUT_DATA to the recordings")
    return folder


# ---- the real ones -------------------------------------------------------------------------------


@pytest.mark.data
def test_skab_has_its_rows_units_and_labels(data: Path) -> None:
    found = skab.load(data / "skab_gpl3")
    assert [one.asset for one in found] == [f"valve1-{n}" for n in range(4)]
    first = found[0]
    assert first.values.shape == (1147, 8)
    assert first.units["flow"] == "l/min"
    assert first.values[0, 4] == 79.3366
    assert np.all(np.diff(first.t) >= 1.0)
    assert first.abnormal is not None
    assert len(first.abnormal) == 1
    assert first.t[0] == 1_583_748_873.0


@pytest.mark.data
def test_nab_has_its_windows_and_rows_whose_clock_went_back(data: Path) -> None:
    found = {one.asset: one for one in nab.load(data / "nab")}
    machine = found["machine_temperature_system_failure"]
    assert len(machine.t) == 22_695
    assert machine.abnormal is not None
    assert len(machine.abnormal) == 4
    assert (np.diff(machine.t) <= 0).any()
    played = list(series.messages([machine], ["n"]))
    assert [m.t for m in played] == sorted(m.t for m in played)
    assert sum(m.rows for m in played) == len(set(machine.t.tolist()))
    assert len(played) == len(machine.t)


@pytest.mark.data
def test_ai4i_is_a_part_a_minute_with_its_share_of_failures(data: Path) -> None:
    (mill,) = ai4i.load(data / "ai4i")
    assert mill.values.shape == (10_000, 5)
    assert mill.abnormal is not None
    wrong = sum(int(((mill.t >= a) & (mill.t <= b)).sum()) for a, b in mill.abnormal)
    assert wrong == 339


@pytest.mark.data
def test_the_gas_turbine_is_one_series_through_the_years(data: Path) -> None:
    (turbine,) = gasturbine.load(data / "gasturbine")
    assert turbine.values.shape == (7411 + 7628 + 7152, 11)
    assert set(np.diff(turbine.t)) == {3600.0}
    assert turbine.values[0, 0] == 4.5878
    assert turbine.abnormal is None


@pytest.mark.data
def test_tennessee_is_turned_over_where_it_is_stored_so_and_knows_its_faults(data: Path) -> None:
    found = {one.asset: one for one in tep.load(data / "tep")}
    assert sorted(found) == ["d00", "d00_te", "d01_te", "d04_te", "d05_te"]
    assert {name: one.values.shape for name, one in found.items()} == {
        "d00": (500, 52),
        **dict.fromkeys(("d00_te", "d01_te", "d04_te", "d05_te"), (960, 52)),
    }
    assert found["d00"].abnormal == found["d00_te"].abnormal == ()
    one = found["d01_te"]
    assert one.abnormal == ((float(one.t[160]), float(one.t[-1])),)
    # Stored transposed or not, the same variable is of the same size.
    assert found["d00"].values[:, 1].mean() == pytest.approx(one.values[:160, 1].mean(), rel=0.02)


@pytest.mark.data
def test_femto_bearings_run_to_failure(data: Path) -> None:
    found = femto.load(data / "femto")
    assert len(found) == 6
    assert sum(len(one.t) for one in found) == 7534
    assert all(one.failed for one in found)
    lives = series.truth(found, ["n"], "femto", "demo").lives
    assert all(life.failed and life.fault is None for life in lives)
    assert set(np.diff(found[0].t)) == {10.0}


@pytest.mark.data
@pytest.mark.parametrize(
    ("dataset", "folder", "rows"),
    [("skab", "skab_gpl3", 4515), ("tep", "tep", 4340), ("femto", "femto", 7534)],
)
def test_a_recording_is_replayed_with_its_truth(
    data: Path, tmp_path: Path, dataset: str, folder: str, rows: int
) -> None:
    out, truth = tmp_path / "played.jsonl", tmp_path / "truth.json"
    args = ["replay", "--dataset", dataset, "--data", str(data / folder), "--nodes", "2"]
    assert cli.main([*args, "--sink", "file", "--out", str(out), "--truth", str(truth)]) == 0
    topics = Counter(json.loads(line)["topic"] for line in out.read_text().splitlines())
    assert sum(n for topic, n in topics.items() if topic.endswith("readings")) == rows
    assert {topic.split("/")[3] for topic in topics} == {"node-01", "node-02"}
    told = read(truth)
    assert sum(life.rows for life in told.lives) == rows
    assert told.source == dataset


# ---- what is true of a labelled recording --------------------------------------------------------


def labelled(*abnormal: tuple[float, float]) -> series.Series:
    t = np.arange(100.0) * 3600
    return series.Series("a", {"x": "1"}, t, np.zeros((100, 1)), abnormal)


def test_a_life_ends_with_each_time_that_something_was_wrong() -> None:
    hour = 3600.0
    of = labelled((30 * hour, 39 * hour), (70 * hour, 75 * hour))
    told = series.truth([of], ["n"], "skab", "demo")
    assert [(life.started_t, life.failure_t) for life in told.lives] == [
        (0, 39 * hour), (40 * hour, 75 * hour), (76 * hour, 99 * hour),
    ]  # fmt: skip
    assert [life.fault for life in told.lives] == ["skab", "skab", ""]
    assert sum(life.rows for life in told.lives) == 100

    def alert(h: float) -> Alert:
        return Alert(f"a/{h}", "a", "raised", h * hour, h * hour, 1.5, None, 0, (), "said")

    figures = score.summary(score.judge(told, [alert(20), alert(33), alert(90)]))
    assert (figures["faults_felt"], figures["faults_told"]) == (2, 1)
    assert figures["false_alarms"] == 2


def test_nothing_is_said_of_a_recording_that_nobody_labelled() -> None:
    t = np.arange(3.0)
    plain = series.Series("a", {"x": "1"}, t, np.zeros((3, 1)))
    (life,) = series.truth([plain], ["n"], "gas", "demo").lives
    assert (life.fault, life.severity, life.failed) == (None, None, False)
    figures = score.summary(score.judge(series.truth([plain], ["n"], "g", "s"), []))
    assert figures["false_alarms"] is None


def test_what_was_not_recorded_is_not_said() -> None:
    values = np.array([[1.0, np.nan], [np.nan, np.nan], [1.0, 2.0]])
    of = series.Series("a", {"x": "1", "y": "1"}, np.arange(3.0), values)
    said = [m.values for m in series.messages([of], ["n"])]
    assert said == [{"x": 1.0}, {"x": 1.0, "y": 2.0}]


# ---- tables --------------------------------------------------------------------------------------

MAP = """separator = ";"
decimal = ","
asset = "press-{machine}"
label = "faulty"
ends = "failed"
[time]
column = "when"
offset = "+01:00"
[channels]
"Oel" = { channel = "oil", unit = "degC" }
"""
ROWS = """when;machine;Oel;faulty;note
2026-01-05 01:00:00;1;40,5;0;a
2026-01-05 01:00:00;2;41;0;b
2026-01-05 01:01:00;1;;1;c
"""


def write(folder: Path, rows: str = ROWS, described: str = MAP) -> tuple[Path, Path]:
    (folder / "press.toml").write_text(described)
    (folder / "press.csv").write_text(rows)
    return folder / "press.csv", folder / "press.toml"


def test_a_table_of_ones_own_is_read_by_its_description(tmp_path: Path) -> None:
    path, described = write(tmp_path)
    one, two = table.read(path, table.load_map(described))
    assert (one.asset, two.asset) == ("press-1", "press-2")
    assert one.t.tolist() == [1_767_571_200.0, 1_767_571_260.0]
    assert one.units == {"oil": "degC"}
    assert one.values[0, 0] == 40.5
    assert np.isnan(one.values[1, 0])
    assert one.abnormal == ((1_767_571_260.0, 1_767_571_260.0),)
    assert one.failed
    (tmp_path / "press.csv.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    again = DATASETS["csv"][0](tmp_path, Options(described, 1.0, 1))
    assert np.array_equal(again[0].values, one.values, equal_nan=True)


def test_a_table_without_a_header_or_times(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text("1.5 2.5\n3.5 4.5\n")
    of = table.Table(
        {"a": table.Source("flow", "l/s")},
        separator=" ",
        names=("a", "b"),
        time=table.Time(step_s=10.0, start="2026-01-01T00:00:00Z"),
    )
    (one,) = table.read(path, of)
    assert (one.asset, one.values.ravel().tolist()) == ("log", [1.5, 3.5])
    assert np.diff(one.t).tolist() == [10.0]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("40,5", "x", "press.csv: line 2, column 3: 'x' is not a number"),
        ("40,5", "inf", "line 2, column 3: 'inf' is not a finite number"),
        ("2026-01-05 01:01:00", "soon", "line 4, column 1: 'soon' is no time"),
        (";1;;1;c", ";1;;1", "line 4: 4 columns, expected 5"),
        ("Oel;", "oil;", "line 1: no column 'Oel'; there are when, machine, oil"),
        (";machine;", ";machines;", "asset: no column 'machine'"),
        ("00;1;40", "00;a/b;40", "asset 'press-a/b' must be non-empty"),
        (ROWS, "", "is empty"),
    ],
)
def test_a_wrong_table_is_named_with_the_place(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    path, described = write(tmp_path, ROWS.replace(old, new))
    with pytest.raises(DataError) as raised:
        table.read(path, table.load_map(described))
    assert "press.csv" in str(raised.value)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"degC"', '"C"', "degC (temperature)"),
        ("decimal", "decimals", "did you mean 'decimal'?"),
        ('"failed"', '"dead"', "ends = 'dead': only failed is known"),
        ('column = "when"', "", "time: give column, or step_s and start"),
        ('"+01:00"', '"CET"', "CET"),
        ('channel = "oil"', 'channel = "oil temp"', "'oil temp' must be non-empty"),
    ],
)
def test_a_wrong_description_is_named_with_the_key(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    _, described = write(tmp_path, described=MAP.replace(old, new))
    with pytest.raises((DataError, ConfigError)) as raised:
        table.load_map(described)
    assert str(raised.value).startswith(str(described))
    assert said in str(raised.value)


def test_a_table_needs_its_description(tmp_path: Path) -> None:
    with pytest.raises(RunoutError, match=r"--map FILE\.toml"):
        DATASETS["csv"][0](tmp_path, NO_OPTIONS)


@pytest.mark.parametrize("dataset", [name for name in DATASETS if name != "csv"])
def test_a_folder_without_the_recording_says_what_was_looked_for(
    tmp_path: Path, dataset: str
) -> None:
    with pytest.raises(DataError, match=r"is not there; looked for .*plain or \.gz"):
        DATASETS[dataset][0](tmp_path, NO_OPTIONS)


def test_tennessee_refuses_other_shapes(tmp_path: Path) -> None:
    path = tmp_path / "d01.dat"
    path.write_text("1.0 2.0\n3.0 4.0\n")
    with pytest.raises(DataError, match="neither rows nor columns are 52"):
        tep.load(tmp_path)
    path.write_text("1.0 2.0\n3.0\n")
    with pytest.raises(DataError, match=r"d01\.dat: line 2: 1 columns, expected 2"):
        tep.load(tmp_path)


def test_windows_that_are_none_are_named(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "combined_windows.json").write_text('{"a/b.csv": [["x", "y"]]}')
    with pytest.raises(DataError, match=r"combined_windows\.json: not windows as NAB has them"):
        nab.load(tmp_path)


# ---- waveforms -----------------------------------------------------------------------------------


def test_pronostia_snapshots_become_bursts(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    folder = tmp_path / "Learning_set" / "Bearing1_1"
    folder.mkdir(parents=True)
    waves = rng.standard_normal((12, 2560, 2)).round(3)
    for at, wave in enumerate(waves, start=1):
        text = "".join(f"9,39,39,{n},{h},{v}\n" for n, (h, v) in enumerate(wave.tolist()))
        (folder / f"acc_{at:05d}.csv").write_text(text.replace(",", ";") if at == 2 else text)
    (one,) = femto.load(tmp_path)
    assert (one.asset, one.failed, one.rows) == ("Bearing1_1", True, 24)
    bursts = [m for m in series.messages([one], ["n"]) if m.rows]
    assert [m.leaf for m in bursts[:4]] == ["h", "v", "h", "v"]
    (read_back,) = waveform.decode(bursts[3].payload, 0)
    assert (read_back.rate_hz, read_back.unit) == (25_600.0, "g")
    assert np.abs(read_back.samples - waves[1, :, 1]).max() < 2e-4
    assert bursts[2].t - bursts[0].t == 10.0
    (folder / "acc_00003.csv").write_text("9,39,39,1\n")
    with pytest.raises(DataError, match=r"acc_00003\.csv: line 1: 4 columns, expected 6"):
        femto.load(tmp_path)


def matlab(path: Path, *, compressed: bool, **more: Any) -> np.ndarray:  # type: ignore[type-arg]
    rng = np.random.default_rng(3)
    wave = rng.standard_normal((10_000, 1))
    arrays = {"X105_DE_time": wave, "X105_FE_time": 2 * wave, "X105RPM": 1797, **more}
    io.savemat(path, arrays, do_compression=compressed)
    return wave.ravel()


@pytest.mark.parametrize("compressed", [True, False])
def test_matlab_files_are_read_as_scipy_writes_them(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / "105.mat"
    more = {
        "whole": np.arange(6, dtype=np.int16).reshape(2, 3),
        "text": "not a number",
        "struct": {"a": 1},
        "complex": np.array([1 + 2j]),
        "single": np.array([[1.5, 2.5]], dtype=np.float32),
        "v": np.array([7]),
    }
    wave = matlab(path, compressed=compressed, **more)
    arrays = mat.load(path)
    assert set(arrays) == {
        "X105_DE_time", "X105_FE_time", "X105RPM", "whole", "single", "v",
    }  # fmt: skip
    assert np.array_equal(arrays["X105_DE_time"].ravel(), wave)
    assert arrays["whole"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert arrays["single"].tolist() == [[1.5, 2.5]]
    assert arrays["X105RPM"].item() == 1797


def test_a_file_of_cwru_becomes_bursts_and_a_speed(tmp_path: Path) -> None:
    wave = matlab(tmp_path / "105.mat", compressed=True)
    (one,) = cwru.load(tmp_path, rate_hz=12_000.0, samples=4096)
    assert one.asset == "105"
    assert one.units == {"speed": "rpm"}
    assert one.values.ravel().tolist() == [1797.0, 1797.0]
    played = list(series.messages([one], ["n"]))
    assert Counter(m.leaf for m in played) == {"readings": 2, "de": 2, "fe": 2}
    second = [m for m in played if m.leaf == "de"][1]
    (burst,) = waveform.decode(second.payload, 0)
    assert np.abs(burst.samples - wave[4096:8192]).max() < 2e-4
    assert burst.t_ns / 1e9 == pytest.approx(one.t[0] + 4096 / 12_000)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda content: content[:-2000], "cut off or damaged"),
        (lambda _: b"MATLAB 7.3 MAT-file, HDF5" + bytes(200), 'save it with "-v7"'),
        (lambda _: b"1,2,3\n" * 100, "not a MATLAB file of level 5"),
        (lambda content: content[:128], "no X..._DE_time; there are no arrays"),
    ],
)
def test_a_wrong_matlab_file_is_named(tmp_path: Path, spoil: Any, said: str) -> None:
    path = tmp_path / "105.mat"
    matlab(path, compressed=False)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(DataError) as raised:
        cwru.load(tmp_path)
    assert str(raised.value).startswith("105.mat: ")
    assert said in str(raised.value)


def test_a_recording_shorter_than_a_burst_is_refused(tmp_path: Path) -> None:
    matlab(tmp_path / "105.mat", compressed=False)
    with pytest.raises(DataError, match="shorter than a burst of 20000 samples"):
        cwru.load(tmp_path, samples=20_000)


def test_only_some_are_played_and_a_pattern_that_fits_none_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, described = write(tmp_path)
    out = tmp_path / "played.jsonl"
    args = ["replay", "--dataset", "csv", "--map", str(described), "--data", str(path)]
    args += ["--sink", "file", "--out", str(out)]
    assert cli.main([*args, "--only", "*-2"]) == 0
    assert "played 1 rows and 1 events of 1 recordings" in capsys.readouterr().out
    assert cli.main([*args, "--only", "x*"]) == 2
    assert "--only x*: fits none of the recordings; there are press-1, press-2" in (
        capsys.readouterr().err
    )
