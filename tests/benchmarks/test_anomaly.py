"""The benchmarks of anomalies: their rules by examples, and that they run."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import anomaly, nab, process, skab

STANDARD = nab.PROFILES["standard"]
STREAM = nab.File("a.csv", np.zeros(2000), np.zeros(2000), ((1000, 1099), (1500, 1599)))
QUIET = nab.File("b.csv", np.zeros(2000), np.zeros(2000), ())


def of(rows: list[int], more: list[int] | None = None) -> float:
    return nab.score([STREAM, QUIET], [rows, more or []], STANDARD)


# -- NAB's rules -----------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", nab.PROFILES)
def test_to_detect_nothing_is_0_and_all_at_once_is_100(profile: str) -> None:
    files, rules = [STREAM, QUIET], nab.PROFILES[profile]
    assert nab.score(files, [[], []], rules) == 0.0
    assert nab.score(files, [[1000, 1500], []], rules) == pytest.approx(100.0)


def test_a_window_counts_once_by_its_earliest_detection() -> None:
    assert of([1000, 1010, 1050]) == of([1000]) == pytest.approx(50.0)
    assert of([1000]) > of([1030]) > of([1099]) > of([])


def test_the_worth_of_a_detection_is_that_of_the_published_sigmoid() -> None:
    # In the middle of a window of 100 rows: 2 / (1 + e^-2.5) - 1, over that of its first row.
    worth = (2 / (1 + np.exp(-2.5)) - 1) / (2 / (1 + np.exp(-5.0)) - 1)
    assert of([1050]) == pytest.approx(100.0 * (1.0 + worth) / 4.0)


def test_a_false_detection_costs_less_just_after_a_window_and_nothing_in_probation() -> None:
    costs = of([1000]) - of([1000, 1400])
    assert costs == pytest.approx(100.0 * 0.11 / 4.0)
    assert of([1000]) - of([1000, 1101]) < 0.15 * costs
    assert of([1000]) - of([900, 1000]) == pytest.approx(costs)  # before any window
    assert of([1000]) - of([1000], [500]) == pytest.approx(costs)  # in a file without one
    assert nab.probation(2000) == 300
    assert of([299, 1000]) == of([1000])
    assert of([300, 1000]) < of([1000])


def test_false_detections_cost_twice_with_few_of_them_wanted_and_misses_with_all_found() -> None:
    files = [STREAM, QUIET]
    few, all_found = (nab.PROFILES[name] for name in ("low_fp", "low_fn"))
    perfect, spoilt = [[1000, 1500], []], [[1000, 1500], [500]]
    lost = nab.score(files, perfect, few) - nab.score(files, spoilt, few)
    assert lost == pytest.approx(100.0 * 0.22 / 4.0)
    lost = nab.score(files, perfect, all_found) - nab.score(files, [[1000], []], all_found)
    assert lost == pytest.approx(100.0 * 3.0 / 6.0)


def test_a_simple_detector_that_finds_both_late_and_errs_once_scores_in_between() -> None:
    assert 50.0 < of([700, 1040, 1560]) < 90.0


# -- SKAB's figures --------------------------------------------------------------------------------


def test_figures_of_rows_are_pooled() -> None:
    faulty = np.array([False, False, False, True, True])
    figures = skab.Figures.of(np.array([0.2, 1.5, 0.3, 0.9, 2.0]), faulty, 1.0)
    assert figures.f1 == pytest.approx(0.5)
    assert [figures.far_percent, figures.mar_percent] == pytest.approx([100 / 3, 50.0])
    assert figures.auroc == pytest.approx(5 / 6)


def test_a_recording_without_labels_is_not_judged(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "valve1"
    folder.mkdir(parents=True)
    row = "2020-03-09 10:14:33;" + ";".join("1.0" for _ in range(8))
    head = "datetime;" + ";".join("abcdefgh")
    (folder / "0.csv").write_text(f"{head};anomaly;changepoint\n{row};1.0;0.0\n{row};0.0;0.0\n")
    healthy = tmp_path / "data" / "anomaly-free"
    healthy.mkdir()
    (healthy / "anomaly-free.csv").write_text(f"{head}\n{row}\n")
    (file,) = skab.load(tmp_path)
    assert file.name == "valve1-0"
    assert file.values.shape == (2, 8)
    assert file.faulty.tolist() == [True, False]


# -- the commands ----------------------------------------------------------------------------------


@pytest.mark.data
def test_skab_is_told_from_health_better_than_what_is_published(
    recordings: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = last_line(
        anomaly.main, ["--dataset", "skab"], recordings / "skab_gpl3", monkeypatch, capsys
    )
    assert list(told) == ["dataset", "f1", "far_percent", "mar_percent", "auroc"]
    assert told["f1"] > 0.84
    assert told["far_percent"] < 13.5


@pytest.mark.data
def test_a_stream_of_nab_is_scored(
    recordings: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # The smallest of its files, and the labels of all: what is not there is left out.
    name = "realKnownCause/ambient_temperature_system_failure.csv.gz"
    for part in ("labels/combined_windows.json", f"data/{name}"):
        to = tmp_path / part
        to.parent.mkdir(parents=True)
        to.write_bytes((recordings / "nab" / part).read_bytes())
    told = last_line(anomaly.main, ["--dataset", "nab"], tmp_path, monkeypatch, capsys)
    assert list(told) == ["dataset", "standard", "low_fp", "low_fn"]
    assert 20.0 < told["low_fp"] <= told["standard"] < 100.0


@pytest.mark.data
def test_faults_of_the_tennessee_eastman_process_are_found(
    recordings: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("d00", "d00_te", "d05_te"):
        path = f"{name}.dat.gz"
        (tmp_path / path).write_bytes((recordings / "tep" / path).read_bytes())
    told = last_line(process.main, [], tmp_path, monkeypatch, capsys)
    assert list(told)[:3] == ["detection_rate", "false_alarm_rate", "pca_detection_rate"]
    assert told["detection_rate"] > 0.95
    assert told["pca_detection_rate"] < 0.5
    assert told["false_alarm_rate"] <= 0.01
    assert told["faults"].keys() == {"5"}


def last_line(
    main: Callable[[], int],
    more: list[str],
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> dict[str, Any]:
    """Run a benchmark as its command does; return what its last line says."""
    monkeypatch.setattr(sys, "argv", ["benchmark", *more, "--data", str(data)])
    assert main() == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return told
