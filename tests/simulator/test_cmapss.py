"""The C-MAPSS loader: the real recording, and every way a file can be wrong."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from contract.errors import DataError
from simulator.recordings import cmapss

SENSORS = " ".join(f"{v}.5" for v in range(24))


def line(unit: object, cycle: object, rest: str = SENSORS) -> str:
    return f"{unit} {cycle} {rest}  \n"


def write(folder: Path, text: str, name: str = "train_FD001.txt") -> Path:
    (folder / name).write_text(text)
    return folder


@pytest.mark.data
def test_the_real_recording_has_its_published_sizes(cmapss_folder: Path) -> None:
    train = cmapss.load(cmapss_folder, "FD001", "train")
    test = cmapss.load(cmapss_folder, "FD001", "test")
    assert [len(train), len(test)] == [100, 100]
    assert sum(map(len, train)) == 20_631
    assert sum(map(len, test)) == 13_096
    first = dict(zip(cmapss.CHANNELS, train[0].values[0], strict=True))
    assert (first["T24"], first["Nf"], first["W32"]) == (641.82, 2388.06, 23.4190)
    rul = cmapss.load_rul(cmapss_folder, "FD001")
    assert rul.shape == (100,)
    assert rul[:2].tolist() == [112, 98]


def test_plain_and_gzipped_files_read_alike(tmp_path: Path) -> None:
    text = line(1, 1) + line(1, 2) + line(2, 1)
    plain = cmapss.load(write(tmp_path, text), "FD001", "train")
    (tmp_path / "train_FD001.txt").unlink()
    (tmp_path / "train_FD001.txt.gz").write_bytes(gzip.compress(text.encode()))
    zipped = cmapss.load(tmp_path, "FD001", "train")
    assert [e.unit for e in zipped] == [1, 2]
    assert zipped[0].cycles.tolist() == [1, 2]
    for one, other in zip(plain, zipped, strict=True):
        assert np.array_equal(one.values, other.values)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            line(1, 1) + line(1, 2, SENSORS.replace("2.5", "abc", 1)),
            "line 2, column 5: 'abc' is not a number",
        ),
        (
            line(1, 1, SENSORS.replace("3.5", "nan", 1)),
            "line 1, column 6: 'nan' is not a finite number",
        ),
        (line(1, 1, SENSORS.replace("3.5", "\u00b53", 1)), "line 1, column 6: "),
        (line(1, 1) + line(1, 2, "1 2 3"), "line 2: 5 columns, expected 26"),
        (line(1, 1) + "\n" + line(1, 2), "line 2: 0 columns, expected 26"),
        (line(1, 1) + line(1, 3), "line 2, column 2: cycle 3 of unit 1, expected 2"),
        (line(1, 2), "line 1, column 2: cycle 2 of unit 1, expected 1"),
        (line(2, 1) + line(1, 1), "line 2, column 1: unit 1 comes after unit 2"),
        (line("1.5", 1), "line 1, column 1: '1.5' is not a unit number"),
        (line(1, 0), "line 1, column 2: '0' is not a cycle number"),
        ("\n \n", "holds no engines"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_named_with_the_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(DataError) as raised:
        cmapss.load(write(tmp_path, text), "FD001", "train")
    assert "train_FD001.txt" in str(raised.value)
    assert said in str(raised.value)


def test_a_missing_file_is_said_with_the_names_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"neither test_FD003.txt nor test_FD003.txt.gz"):
        cmapss.load(tmp_path, "FD003", "test")


def test_a_truncated_or_foreign_gzip_is_said(tmp_path: Path) -> None:
    path = tmp_path / "train_FD001.txt.gz"
    path.write_bytes(gzip.compress(line(1, 1).encode() * 100)[:-20])
    with pytest.raises(DataError, match=r"train_FD001.txt.gz: ends before .*truncated"):
        cmapss.load(tmp_path, "FD001", "train")
    path.write_bytes(b"1 1 2 3")
    with pytest.raises(DataError, match=r"train_FD001.txt.gz: not a whole gzip file"):
        cmapss.load(tmp_path, "FD001", "train")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("112 \n", "RUL_FD001.txt: 1 lines, but test_FD001.txt holds 2 engines"),
        ("112 \n-1 \n", "line 2, column 1"),
        ("112 3\n", "line 1: 2 columns, expected 1"),
        ("x\n", "line 1, column 1: 'x' is not a number"),
    ],
)
def test_a_wrong_rul_file_is_named_with_the_place(tmp_path: Path, text: str, said: str) -> None:
    write(tmp_path, line(1, 1) + line(2, 1), "test_FD001.txt")
    write(tmp_path, text, "RUL_FD001.txt")
    with pytest.raises(DataError) as raised:
        cmapss.load_rul(tmp_path, "FD001")
    assert said in str(raised.value)


def test_every_channel_has_a_unit() -> None:
    assert len(cmapss.CHANNELS) == 24
    assert all(cmapss.UNITS[channel] for channel in cmapss.CHANNELS)
