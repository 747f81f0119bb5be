"""Files of bursts: the waveform blocks of ``agent.decode.waveform``, one behind the other.

A file is of one waveform of one asset: ``pump-3.vib.rw``, or ``pump-3.rw`` where the class has one.
Their heads are read first: when each burst was taken, and where it stands. Its samples are read
when its turn comes.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from agent.assemble import shot_of
from agent.batch import Shot
from agent.config import AgentConfig
from agent.decode import waveform
from agent.files.chunk import Look
from agent.files.parse import NAMED
from agent.files.table import OF_FILE, PLACE, stem
from agent.files.times import Integers
from agent.routes import Target
from contract import topics
from contract.errors import ConfigError, DataError, DecodeError
from contract.spec import AssetClass


def is_one(path: Path) -> bool:
    """Return whether a file begins as a burst does."""
    try:
        with path.open("rb") as file:
            return file.read(3) == waveform.MAGIC + b"\x01"
    except OSError:
        return False  # said by who reads it as a table


class _File(NamedTuple):
    """A file of bursts, and whose they are."""

    path: Path
    asset: str
    wave: str
    spec: AssetClass


class _Queue:
    """The bursts of an asset: times, files and offsets ``(n,)``, in the order of time."""

    def __init__(self, t_ns: Integers, files: Integers, offsets: Integers) -> None:
        order = np.argsort(t_ns, kind="stable")
        self.t_ns, self.files, self.offsets = t_ns[order], files[order], offsets[order]
        self.at = 0


class Bursts:
    """The bursts of some files, by asset, in the order of time.

    Args:
        paths: of the files.
        config: of the agent.
        look: how files are to be read.
        say: told what each file is, and of the first bad bursts.

    Attributes:
        bad: bursts that could not be used, and were passed over.

    Raises:
        ConfigError: a file is of no asset, or of no waveform, that is configured.
        DataError: a file is not of whole bursts.
    """

    def __init__(
        self, paths: list[Path], config: AgentConfig, look: Look, say: Callable[[str], None]
    ) -> None:
        self._config = config
        self._look = look
        self._say = say
        self.bad = 0
        self._files = [_File(path, *self._whose(path)) for path in paths]
        parts: dict[str, list[tuple[Integers, Integers, Integers]]] = {}
        for i, file in enumerate(self._files):
            t_ns, offsets = _heads(file.path)
            say(f"{file.path}: {len(t_ns)} bursts of {file.asset}, {file.wave}")
            wanted = (t_ns >= look.from_ns) & (t_ns < look.until_ns)
            t_ns, offsets = t_ns[wanted], offsets[wanted]
            parts.setdefault(file.asset, []).append((t_ns, np.full(len(t_ns), i), offsets))
        self._queues = {
            asset: _Queue(*(np.concatenate(part) for part in zip(*found, strict=True)))
            for asset, found in parts.items()
        }

    def __contains__(self, asset: str) -> bool:
        return asset in self._queues

    def __len__(self) -> int:
        return len(self._queues)

    def due(self, asset: str, until_ns: int) -> int:
        """Return how many of an asset's bursts begin no later than a time."""
        queue = self._queues[asset]
        return max(0, int(queue.t_ns.searchsorted(until_ns, side="right")) - queue.at)

    def take(self, asset: str, until_ns: int, most: int) -> list[Shot]:
        """Take the first of the bursts that are due."""
        queue, begin = self._queues[asset], self._queues[asset].at
        queue.at += min(self.due(asset, until_ns), most)
        return list(self._shots(queue, range(begin, queue.at)))

    def rest(self) -> Iterator[Shot]:
        """Take all that are left, in the order of time."""
        left = [
            (int(queue.t_ns[i]), asset, i)
            for asset, queue in self._queues.items()
            for i in range(queue.at, len(queue.t_ns))
        ]
        for queue in self._queues.values():
            queue.at = len(queue.t_ns)
        for _, asset, i in sorted(left):
            yield from self._shots(self._queues[asset], range(i, i + 1))

    def _shots(self, queue: _Queue, numbers: range) -> Iterator[Shot]:
        for i in numbers:
            file, offset = self._files[int(queue.files[i])], int(queue.offsets[i])
            try:
                (burst,) = waveform.decode(_payload(file.path, offset), 0)
                yield shot_of(file.spec, file.asset, burst, file.wave, Target(file.asset))
            except DecodeError as error:
                place = f"{file.path}: the burst at byte {offset}: {error}"
                if not self._look.skip_bad:
                    raise DataError(place) from error
                self.bad += 1
                if self.bad <= NAMED:
                    self._say(place)

    def _whose(self, path: Path) -> tuple[str, str, AssetClass]:
        """Return asset, waveform and class that a file is of, by its name."""
        name = stem(path)
        waves = {w.name for spec in self._config.asset_class for w in spec.waveforms}
        wave = next((wave for wave in sorted(waves) if name.endswith(f".{wave}")), "")
        own = name.removesuffix(f".{wave}") if wave else name
        places = {"stem": own, "folder": path.resolve().parent.name}
        pattern = self._look.asset or "{stem}"
        strange = [word for word in PLACE.findall(pattern) if word not in OF_FILE]
        if strange:
            raise ConfigError(f"--asset: {path} has no column {strange[0]!r}: it holds bursts")
        asset = PLACE.sub(lambda match: places[match[1]], pattern)
        try:
            topics.check_name(asset, "asset")
        except ValueError as error:
            raise ConfigError(f"{path}: {error}: give it another name, --asset") from error
        spec = self._config.class_of(asset)
        if spec is None:
            raise ConfigError(f"{path}: asset {asset!r} matches no pattern of [assets]")
        names = [one.name for one in spec.waveforms]
        if wave not in names and len(names) == 1 and not wave:
            wave = names[0]
        if wave not in names:
            known = ", ".join(names) or "none"
            raise ConfigError(
                f"{path}: which waveform of asset {asset!r} is it of? Class {spec.name!r} has "
                f"{known}: call the file {asset}.WAVEFORM.rw"
            )
        return asset, wave, spec


def _heads(path: Path) -> tuple[Integers, Integers]:
    """Return when the bursts of a file were taken, and where they begin."""
    times: list[int] = []
    offsets: list[int] = []
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            at = 0
            while at < size:
                file.seek(at)
                head = file.read(waveform.HEAD)
                t_ns, end = waveform.time_of(head), at + waveform.size_of(head)
                if not t_ns or end > size:
                    text = "it bears no time" if end <= size else "the file ends before it does"
                    raise DataError(f"{path}: the burst at byte {at}: {text}")
                times.append(t_ns)
                offsets.append(at)
                at = end
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except DecodeError as error:  # where the next one begins is not known
        raise DataError(f"{path}: the burst at byte {at}: {error}") from error
    return np.array(times, dtype=np.int64), np.array(offsets, dtype=np.int64)


def _payload(path: Path, offset: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            head = file.read(waveform.HEAD)
            return head + file.read(waveform.size_of(head) - len(head))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
