"""The evidence of one alert: the state before it, the batches since, and what was in force."""

import fnmatch
import hashlib
import os
import platform
import re
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.config import AgentConfig, Learning, Report
from contract import VERSION, npz
from contract.arrays import Arrays, Floats
from contract.errors import ContractError
from contract.report import Alert
from contract.spec import AssetClass

_STATE = "state/"


class Software(msgspec.Struct, frozen=True):
    """What computed: the same alert may round otherwise elsewhere.

    Attributes:
        runout: version of this program.
        contract: see ``contract.VERSION``.
        python: its version.
        numpy: its version.
        machine: kind of processor.
        processor: its name, as far as the system tells it.
        threads: of linear algebra, as the environment sets them; empty: it does not.
    """

    runout: str
    contract: int
    python: str
    numpy: str
    machine: str
    processor: str
    threads: str

    @classmethod
    def here(cls) -> "Software":
        """Return what computes here."""
        try:
            runout = metadata.version("runout")
        except metadata.PackageNotFoundError:  # run from its sources
            runout = "not installed"
        return cls(
            runout,
            VERSION,
            platform.python_version(),
            np.__version__,
            platform.machine(),
            _processor(),
            os.environ.get("OPENBLAS_NUM_THREADS", ""),
        )


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        return platform.processor()
    named = re.findall(r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", text, re.MULTILINE)
    return named[0] if named else platform.processor()


class Setting(msgspec.Struct, frozen=True):
    """What was in force on the device when the alert was raised.

    Attributes:
        asset_class: the whole configuration of the class.
        assets: asset name patterns to class names, first match wins; empty: all of this class.
        health_every_s: see ``agent.config.Report``.
        sklearn: see ``agent.config.Learning``.
        software: that judged.
        functions: SHA-256 of each module of the user's functions, by its name.
        first_life: numbers of the first lives of assets that were known before.
        since: number of the batch behind which the state follows from the journal.
        empty: whether there was no state at that place; else there was a checkpoint.
    """

    asset_class: AssetClass
    assets: dict[str, str]
    health_every_s: float
    sklearn: bool
    software: Software
    functions: dict[str, str]
    first_life: dict[str, int]
    since: int
    empty: bool

    @classmethod
    def of(
        cls,
        config: AgentConfig,
        spec: AssetClass,
        first_life: dict[str, int],
        since: int,
        *,
        empty: bool,
    ) -> "Setting":
        """Return what is in force in a configuration for one of its classes."""
        return cls(
            spec,
            config.assets,
            config.report.health_every_s,
            config.learning.sklearn,
            Software.here(),
            function_digests(spec, Path(config.functions)),
            {name: life for name, life in first_life.items() if config.class_of(name) is spec},
            since,
            empty,
        )

    def has(self, asset: str) -> bool:
        """Return whether an asset is of the class."""
        for pattern, name in self.assets.items():
            if fnmatch.fnmatchcase(asset, pattern):
                return name == self.asset_class.name
        return not self.assets

    def config(self, functions: str) -> AgentConfig:
        """Return a configuration for this class alone; ``functions``: folder of the user's."""
        return AgentConfig(
            asset_class=(self.asset_class,),
            functions=functions,
            learning=Learning(sklearn=self.sklearn),
            report=Report(health_every_s=self.health_every_s),
        )


class Raised(NamedTuple):
    """An alert whose evidence is to be gathered.

    Attributes:
        alert: as it was said.
        seq: number of the batch that raised it; 0: not known.
        setting: that was in force.
    """

    alert: Alert
    seq: int
    setting: Setting


class Head(msgspec.Struct, frozen=True):
    """The words of evidence.

    Attributes:
        alert: as it was said.
        seq: number of the batch that raised it; 0: not known.
        base: number of the last batch that is in the state.
        setting: that was in force.
        state: words of the state, as ``agent.pipeline.Pipeline.restore`` takes them; None: there
            was none, all of it follows from the batches.
        alone: the batches are of the asset alone: nothing was learnt from others meanwhile.
        lives: asset and number of the finished lives that are needed too, in order; None: none is.
    """

    alert: Alert
    seq: int
    base: int
    setting: Setting
    state: dict[str, Any] | None
    alone: bool
    lives: tuple[tuple[str, int], ...] | None


class Before(NamedTuple):
    """Readings of the asset that are in the state already, for people to look at.

    Attributes:
        t_ns: ``(n,)``.
        values: ``(n, C)``, NaN where nothing was said.
    """

    t_ns: NDArray[np.int64]
    values: Floats


class Evidence:
    """All that one alert is recomputed from, but releases and finished lives.

    Attributes:
        head: its words.
        state: arrays of the state, of the class, and of one asset or all of them.
        batches: number and body of the journalled batches since, with what is of the class.
        before: readings before.
    """

    def __init__(
        self, head: Head, state: Arrays, batches: list[tuple[int, bytes]], before: Before
    ) -> None:
        self.head = head
        self.state = state
        self.batches = batches
        self.before = before

    def to_bytes(self) -> bytes:
        """Return the stored form, with a digest of it all."""
        arrays: Arrays = {_STATE + name: array for name, array in self.state.items()}
        arrays["batches"] = np.frombuffer(b"".join(b for _, b in self.batches), dtype=np.uint8)
        arrays["numbers"] = np.array([number for number, _ in self.batches], dtype=np.int64)
        arrays["ends"] = np.cumsum([len(b) for _, b in self.batches], dtype=np.int64)
        arrays["before/t_ns"], arrays["before/values"] = self.before
        words = msgspec.json.encode(self.head)
        return npz.to_bytes(npz.digest_of(words, arrays).encode() + words, arrays)

    @classmethod
    def from_bytes(cls, content: bytes, name: str) -> "Evidence":
        """Read the stored form; raises ``ContractError`` where it is altered or another's."""
        head, arrays = npz.from_bytes(content, name)
        digest, words = head[:64], head[64:]
        if npz.digest_of(words, arrays).encode() != digest:
            raise ContractError(f"{name}: its content does not match its digest")
        try:
            numbers, ends = arrays["numbers"].tolist(), arrays["ends"].tolist()
            body = arrays["batches"].tobytes()
            starts = [0, *ends[:-1]]
            return cls(
                msgspec.json.decode(words, type=Head),
                {n.removeprefix(_STATE): a for n, a in arrays.items() if n.startswith(_STATE)},
                [(n, body[i:j]) for n, i, j in zip(numbers, starts, ends, strict=True)],
                Before(
                    np.asarray(arrays["before/t_ns"], dtype=np.int64),
                    np.asarray(arrays["before/values"], dtype=np.float64),
                ),
            )
        except (KeyError, ValueError, TypeError, msgspec.MsgspecError) as error:
            raise ContractError(f"{name}: it is not evidence of an alert ({error})") from error

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the stored form."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


def function_digests(spec: AssetClass, folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each module that a class's functions are in, empty if it is missing."""
    found = {}
    for module in sorted({function.call.partition(":")[0] for function in spec.functions}):
        path = folder / f"{module}.py"
        found[module] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    return found
