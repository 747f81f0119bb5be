"""The journal alone: what is read back after cuts and damage, and what it costs the disk."""

import itertools
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from agent.journal import Journal, JournalReader, records, segments

Open = Callable[..., Journal]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Open journals of one folder, each closed with the test."""
    with ExitStack() as stack:

        def make(most_bytes: float = 1e6, *, durable: bool = False) -> Journal:
            journal = Journal(tmp_path, most_bytes, durable=durable)
            stack.callback(journal.close)
            return journal

        yield make


def body(number: int, size: int = 200) -> bytes:
    return np.random.default_rng(number).bytes(size)


def fill(journal: Journal, begin: int, end: int, size: int = 200) -> None:
    for number in range(begin, end):
        journal.append(number, body(number, size))


def test_batches_come_back_in_their_order_from_all_segments(opened: Open, tmp_path: Path) -> None:
    journal = opened(20_000)
    fill(journal, 1, 101)
    reader = JournalReader(tmp_path)
    assert len(segments(tmp_path / "journal")) > 5
    assert list(reader.read()) == [(n, body(n)) for n in range(1, 101)]
    assert [n for n, _ in reader.read(37, 63)] == list(range(38, 64))
    assert (reader.first, reader.last) == (journal.first, journal.last) == (1, 100)
    journal.close()
    again = opened(20_000)
    assert (again.first, again.last, again.size) == (1, 100, journal.size)


@pytest.mark.parametrize("size", [1, 16_000, 17_000, 3_000_000])
def test_a_batch_of_any_size_comes_back(size: int, opened: Open, tmp_path: Path) -> None:
    journal = opened()
    fill(journal, 1, 4, size)
    assert list(JournalReader(tmp_path).read()) == [(n, body(n, size)) for n in range(1, 4)]


def test_small_batches_are_packed(opened: Open) -> None:
    journal = opened()
    journal.append(1, b"0123456789abcdef" * 100)
    assert journal.size < 200


@pytest.mark.parametrize("missing", [1, 30, 150, 220])
def test_a_batch_that_was_cut_off_does_not_count_and_the_next_takes_its_place(
    missing: int, opened: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = opened()
    fill(journal, 1, 11)
    journal.close()
    (segment,) = segments(tmp_path / "journal")
    *_, last = records(segment.path.read_bytes(), 1)
    os.truncate(segment.path, last.end - missing)
    again = opened()
    assert again.last == 9
    assert "the last batch is not whole" in caplog.text
    again.append(10, b"another")
    assert list(JournalReader(tmp_path).read(8)) == [(9, body(9)), (10, b"another")]


def test_a_damaged_batch_is_said_and_those_behind_it_are_kept(
    opened: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = opened()
    fill(journal, 1, 21)
    journal.close()
    (segment,) = segments(tmp_path / "journal")
    content = bytearray(segment.path.read_bytes())
    *_, sixth = itertools.islice(records(bytes(content), 1), 6)
    content[sixth.end - 100] ^= 1
    segment.path.write_bytes(content)
    again = opened()
    assert again.last == 20
    assert [n for n, _ in JournalReader(tmp_path).read()] == [*range(1, 6), *range(7, 21)]
    assert "the journal is damaged" in caplog.text
    (kept,) = (tmp_path / "journal").glob("damaged-1.*")
    assert kept.read_bytes() == content


def test_segments_that_are_not_needed_are_written_over(opened: Open, tmp_path: Path) -> None:
    journal = opened(20_000)
    seen = set()
    for begin in range(1, 2001, 20):
        fill(journal, begin, begin + 20)
        journal.forget(begin, beyond_bytes=10_000)
        files = list((tmp_path / "journal").iterdir())
        assert len(files) < 16
        seen |= {path.stat().st_ino for path in files}
        assert list(JournalReader(tmp_path).read(begin)) == [
            (n, body(n)) for n in range(begin + 1, begin + 20)
        ]
    assert len(seen) < 20, "new files were made in place of old ones"
    assert journal.size > 10_000
    journal.close()
    again = opened(20_000)
    assert again.last == 2000
    assert again.total == journal.total


def test_what_lies_behind_the_last_batch_of_a_segment_written_over_is_not_read(
    opened: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = opened(20_000)
    fill(journal, 1, 100)
    journal.forget(99)
    fill(journal, 100, 115)
    assert len(segments(tmp_path / "journal")) > 1
    journal.close()
    with caplog.at_level(logging.WARNING):
        assert opened(20_000).last == 114
    assert not caplog.records
    assert [n for n, _ in JournalReader(tmp_path).read()][-15:] == list(range(100, 115))


def test_another_journal_in_a_segment_that_is_written_over_is_not_read(
    opened: Open, tmp_path: Path
) -> None:
    journal = opened(20_000)
    fill(journal, 500, 540)
    journal.close()
    for number, segment in enumerate(segments(tmp_path / "journal")):
        segment.path.rename(segment.path.with_name(f"{number}.spare"))
    later = opened(20_000)
    fill(later, 1, 6)
    later.close()
    assert [n for n, _ in JournalReader(tmp_path).read()] == [1, 2, 3, 4, 5]
    assert opened(20_000).last == 5


def test_a_number_that_does_not_follow_makes_what_is_older_useless(
    opened: Open, tmp_path: Path
) -> None:
    journal = opened()
    fill(journal, 1, 11)
    journal.append(15, b"later")
    assert list(JournalReader(tmp_path).read()) == [(15, b"later")]
    journal.close()
    again = opened()
    assert (again.first, again.last) == (15, 15)


def test_what_is_cut_can_be_forgotten_apart(opened: Open, tmp_path: Path) -> None:
    journal = opened()
    fill(journal, 1, 11)
    journal.cut()
    fill(journal, 11, 13)
    journal.forget(10)
    assert [n for n, _ in JournalReader(tmp_path).read()] == [11, 12]


def test_a_flush_is_counted_only_where_there_is_one(opened: Open) -> None:
    safe = opened(durable=True)
    fill(safe, 1, 6)
    assert 5 <= safe.syncs <= 7
    safe.close()
    fast = opened(durable=False)
    fill(fast, 6, 11)
    assert fast.syncs == 0
