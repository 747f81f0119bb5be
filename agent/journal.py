"""The journal: everything that changes state, in segment files that are only ever appended to.

A card wears by what is written and by what is flushed. A batch costs its own bytes and one flush,
nothing is written twice, and segments that are no longer needed are written over in place of new
ones: a flush then concerns no size and no folder, which would cost more than the batch itself. The
database beside it may lag behind what was flushed here: what it lacks is worked out again from the
journal (``agent.store``).

A record: its head, then the body. A segment is named by the number of its first record, from which
the records' CRC begins; numbers count up by one. So what lies behind the last record of a segment,
from when it was another, is never taken for its own. One writer; any number of readers beside it.
"""

import contextlib
import errno
import logging
import os
import struct
import zlib
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from contract.errors import ConfigError

log = logging.getLogger("runout.store")

FOLDER = "journal"
SEGMENT_BYTES, LEAST_BYTES = 1024 * 1024, 256
"""Of a segment, at most and at least; where the journal is small, an eighth of it."""
SPARE = 8
"""Segments kept to be written over."""
PAGE_BYTES = 4096
AHEAD_BYTES = 64 * 1024
"""By which a new segment grows beyond a small batch: each time the file system has to note it."""
PACK_BYTES = 16 * 1024
"""A batch up to this size is packed: where it is small there is time to."""

_HEAD = struct.Struct("<4sIqqIB")
"""Mark, CRC of all behind it, number, bytes of all records up to this one, length, packed."""
_MARK = b"RnJ1"
_CHECKED = 8
"""Offset in the head behind the CRC."""


class Record(NamedTuple):
    """A batch as it lies in a segment.

    Attributes:
        seq: its number.
        total: bytes of all records up to and including it, since the first there ever was.
        begin: offset in the segment.
        end: offset behind it.
        body: as it was appended.
    """

    seq: int
    total: int
    begin: int
    end: int
    body: bytes


class Segment(NamedTuple):
    """A file of records.

    Attributes:
        first: number of its first record.
        path: of the file.
    """

    first: int
    path: Path


def segments(folder: Path) -> list[Segment]:
    """Return the segments in a folder, oldest first."""
    found = [Segment(int(path.stem), path) for path in folder.glob("*.seg") if path.stem.isdigit()]
    return sorted(found)


def records(content: bytes, first: int) -> Iterator[Record]:
    """Yield the records of a segment; what is damaged among them is left out."""
    at, least = 0, first
    while True:
        record = _record_at(content, at, first)
        if record is None or record.seq != least:
            record = _next_record(content, at, first, least)
        if record is None:
            return
        yield record
        at, least = record.end, record.seq + 1


def backwards(state: Path) -> Iterator[bytes]:
    """Yield the bodies of the batches in a state folder's journal, the newest first."""
    for first, path in reversed(segments(state / FOLDER)):
        for record in reversed(list(records(_content(path), first))):
            yield record.body


def _record_at(content: bytes, at: int, first: int) -> Record | None:
    """Return the record at an offset, or None: there is no whole one."""
    if len(content) < at + _HEAD.size:
        return None
    mark, crc, seq, total, length, packed = _HEAD.unpack_from(content, at)
    end = at + _HEAD.size + length
    if mark != _MARK or len(content) < end or _crc(content[at + _CHECKED : end], first) != crc:
        return None
    body = content[at + _HEAD.size : end]
    return Record(seq, total, at, end, zlib.decompress(body) if packed else body)


def _crc(content: bytes, first: int) -> int:
    return zlib.crc32(content, first & 0xFFFFFFFF)


def _next_record(content: bytes, at: int, first: int, least: int) -> Record | None:
    """Return the first whole record from an offset on with at least a number; None: the end."""
    while (at := content.find(_MARK, at)) >= 0:
        record = _record_at(content, at, first)
        if record is not None and record.seq >= least:
            return record
        at += 1
    return None


class JournalReader:
    """Reads the journal of a state folder, beside a running agent too.

    Args:
        state: folder of the agent.
    """

    def __init__(self, state: Path) -> None:
        self._folder = state / FOLDER

    @property
    def first(self) -> int:
        """Return the number of the oldest batch; 0: there is none."""
        return next((seq for seq, _ in self.read()), 0)

    @property
    def last(self) -> int:
        """Return the number of the newest batch; 0: there is none."""
        for first, path in reversed(segments(self._folder)):
            found = deque(records(_content(path), first), maxlen=1)
            if found:
                return found[0].seq
        return 0

    @property
    def size(self) -> int:
        """Return the bytes of the files."""
        found = 0
        for _, path in segments(self._folder):
            with contextlib.suppress(FileNotFoundError):  # its turn to be written over has come
                found += path.stat().st_size
        return found

    def read(self, after: int = 0, upto: int | None = None) -> Iterator[tuple[int, bytes]]:
        """Yield numbers and bodies of batches, in order; of damaged ones nothing."""
        found = segments(self._folder)
        done = after
        for i, (first, path) in enumerate(found):
            if upto is not None and first > upto:
                return
            end = found[i + 1].first if i + 1 < len(found) else None
            if end is not None and end <= after + 1:
                continue
            for record in records(_content(path), first):
                if upto is not None and record.seq > upto:
                    return
                if end is not None and record.seq >= end:  # written over meanwhile
                    break
                if record.seq > done:
                    yield record.seq, record.body
                    done = record.seq


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:  # its turn to be written over has come meanwhile
        return b""


class Journal:
    """Appends to the journal of a state folder.

    Args:
        state: folder of the agent.
        most_bytes: that it is to hold, about.
        durable: whether a batch has reached the disk when ``append`` returns.

    Attributes:
        last: number of the newest batch; 0: there is none.
        total: bytes of all batches there ever were.
        syncs: flushes to the disk, since this process began.

    Raises:
        ConfigError: the folder cannot be written to.
    """

    def __init__(self, state: Path, most_bytes: float, *, durable: bool) -> None:
        self._folder = state / FOLDER
        self._durable = durable
        self._segment_bytes = max(LEAST_BYTES, min(SEGMENT_BYTES, round(most_bytes / 8)))
        self.last = self.total = self.syncs = 0
        self._at = self._size = 0
        self._file: int | None = None
        self._full = False
        try:
            self._folder.mkdir(exist_ok=True)
            self._spares = sorted(self._folder.glob("*.spare"))
            self._segments = deque(segments(self._folder))
            while self._segments and self._file is None:
                self._open(self._segments[-1])
        except OSError as error:
            mend = {
                errno.ENOSPC: "make some room on the disk",
                errno.EROFS: "is the disk mounted read-only? Look at the kernel's log (dmesg)",
            }.get(error.errno or 0, "give the agent's user the folder, or name another one")
            raise ConfigError(
                f"node.state: {self._folder} cannot be written to ({error.strerror}): {mend}"
            ) from error
        self._began = [self._bytes_before(segment) for segment in self._segments]
        """For each segment, bytes of all batches before it."""

    def _open(self, segment: Segment) -> None:
        """Take up the newest segment behind its last record; without one, remove it."""
        content = segment.path.read_bytes()
        least, at, damaged = segment.first, 0, 0
        for record in records(content, segment.first):
            damaged += record.seq - least
            at, least = record.end, record.seq + 1
            self.last, self.total = record.seq, record.total
        if damaged:
            kept = _free_name(segment.path)
            kept.write_bytes(content)
            log.critical(
                "the journal is damaged: some batches are lost, those behind them are not",
                extra={"batches": damaged, "copied_to": str(kept)},
            )
        if content[at : at + 4] == _MARK and _HEAD.unpack_from(
            content[at : at + _HEAD.size].ljust(_HEAD.size, b"\0")
        )[2] in {least, 0}:
            # As a kill in the midst of a commit leaves it; of a damaged last one it looks alike.
            log.warning(
                "the last batch is not whole and does not count: cut off, or damaged",
                extra={"batch": least},
            )
        if not at:
            segment.path.unlink()
            self._segments.pop()
            return
        self._at, self._size = at, len(content)
        self._file = os.open(segment.path, os.O_RDWR)
        if self._durable:  # a kill may have come between writing and flushing
            os.fdatasync(self._file)
            self.syncs += 1

    def _bytes_before(self, segment: Segment) -> int:
        with segment.path.open("rb") as file:
            head = file.read(_HEAD.size)
        mark, _, _, total, length, _ = _HEAD.unpack(head.ljust(_HEAD.size, b"\0"))
        if mark != _MARK:  # damaged: it goes with the newest at the latest
            return self.total
        return int(total) - int(length) - _HEAD.size

    @property
    def first(self) -> int:
        """Return the number of the oldest batch; 0: there is none."""
        return self._segments[0].first if self._segments else 0

    @property
    def size(self) -> int:
        """Return the bytes of the batches that are kept."""
        return self.total - self._began[0] if self._began else 0

    def append(self, seq: int, body: bytes) -> None:
        """Append a batch; on an ``OSError`` it is as if it had not been tried, and may be again.

        A number that does not follow the last one makes all that is older useless: it goes.
        """
        packed = len(body) <= PACK_BYTES
        kept = zlib.compress(body, 1) if packed else body
        size = _HEAD.size + len(kept)
        file = self._file
        if file is None or self._full or seq != self.last + 1 or self._crowded(size):
            file = self._begin_segment(seq)
        head = _HEAD.pack(_MARK, 0, seq, self.total + size, len(kept), packed)[_CHECKED:]
        crc = zlib.crc32(kept, _crc(head, self._segments[-1].first))
        record = _MARK + crc.to_bytes(4, "little") + head + kept
        if self._at + size > self._size and size < AHEAD_BYTES:
            room = min(AHEAD_BYTES, max(0, self._segment_bytes - self._at - size))
            _write(file, record + bytes(room), self._at)
            self._size = self._at + size + room
        else:
            _write(file, record, self._at)
            self._size = max(self._size, self._at + size)
        if self._durable:
            os.fdatasync(file)
            self.syncs += 1
        self._at += size
        self.total += size
        self.last = seq

    def _crowded(self, size: int) -> bool:
        return self._at > 0 and self._at + size > self._segment_bytes

    def _begin_segment(self, seq: int) -> int:
        path = self._folder / f"{seq:020d}.seg"
        if self._spares:
            self._spares[-1].replace(path)
            self._spares.pop()
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        if self._file is not None:
            os.close(self._file)
        self._file = file
        self._at, self._size = 0, os.fstat(file).st_size
        self._full = False
        broken = self._segments and seq != self.last + 1
        if not self._segments or self._segments[-1].first != seq:
            self._segments.append(Segment(seq, path))
            self._began.append(self.total)
        if broken:
            self._drop(len(self._segments) - 1)
        self._sync_folder()
        return file

    def cut(self) -> None:
        """Let the next batch begin a segment, so that all that is before it can be forgotten."""
        self._full = True

    def forget(self, upto: int, *, beyond_bytes: float = 0.0) -> None:
        """Drop segments that end with a number or before; keep the newest ``beyond_bytes``."""
        most = self.total - beyond_bytes
        count = 0
        for (first, _), began in zip(list(self._segments)[1:], self._began[1:], strict=True):
            if first > upto + 1 or began > most:
                break
            count += 1
        self._drop(count)

    def _drop(self, count: int) -> None:
        """Drop the oldest segments: some are kept to be written over."""
        for _ in range(count):
            segment = self._segments.popleft()
            del self._began[0]
            if len(self._spares) < SPARE:
                spare = segment.path.with_suffix(".spare")
                segment.path.replace(spare)
                self._spares.append(spare)
            else:
                segment.path.unlink()

    def _sync_folder(self) -> None:
        if not self._durable:
            return
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
            self.syncs += 1
        finally:
            os.close(folder)

    def close(self) -> None:
        """Close; safe more than once."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _write(file: int, content: bytes, at: int) -> None:
    """Write it all: a little of it by the page, which is how the kernel then holds it.

    What was written in one piece it may count, and write, in one piece again for each byte changed.
    """
    done, size = 0, len(content)
    while done < size:
        upto = size if size > 2 * AHEAD_BYTES else done + PAGE_BYTES - (at + done) % PAGE_BYTES
        done += os.pwrite(file, content[done:upto], at + done)


def _free_name(path: Path) -> Path:
    number = 1
    while (found := path.with_name(f"damaged-{number}.{path.stem}")).exists():
        number += 1
    return found
