"""What is wanted of a file, and what comes of it: rows of assets, and how these ended."""

from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.files.formats import FORMATS
from agent.files.table import Table, load
from agent.files.times import Integers
from contract.arrays import Floats
from contract.errors import ConfigError

EVER = 2**63 - 1


class Ended(NamedTuple):
    """The end of an asset's life, before row ``at`` of a chunk."""

    at: int
    asset: str
    t_ns: int


class Chunk(NamedTuple):
    """Rows in the order of the file.

    Attributes:
        assets: names.
        which: ``(n,)`` index of each row's asset among them.
        t_ns: ``(n,)``.
        values: ``(n, C)``, a column per channel of the layout.
        label: ``(n,)`` whether a row is faulty, or None: nothing is known of it.
        ended: in order.
        bad: lines passed over since the last chunk.
    """

    assets: list[str]
    which: Integers
    t_ns: Integers
    values: Floats
    label: NDArray[np.bool_] | None
    ended: list[Ended]
    bad: int


class Look(msgspec.Struct, frozen=True):
    """How files are to be read, whatever they hold.

    Attributes:
        format: name of one, or a TOML file that describes it; "": found by the content.
        columns: names of a table's columns.
        asset: name, or pattern of names, of the assets.
        step_s: seconds from one row to the next, where no column bears the time.
        offset: from UTC of times that bear none.
        skip_bad: count bad lines, in place of raising ``DataError``.
        from_ns: rows before it are left out.
        until_ns: rows from it on are left out.
    """

    format: str = ""
    columns: tuple[str, ...] = ()
    asset: str = ""
    step_s: float | None = None
    offset: str = ""
    skip_bad: bool = False
    from_ns: int = -EVER
    until_ns: int = EVER

    def table(self, found: str) -> Table:
        """Return what the files look like; ``found`` is the format that their content has.

        Raises:
            ConfigError: there is no such format, or the changes do not go with it.
        """
        name = self.format or (found if not self.columns else "") or "csv"
        if name in FORMATS:
            table = FORMATS[name]
        elif Path(name).suffix == ".toml":
            table = load(Path(name))
        else:
            raise ConfigError(
                f"--format {name!r}: there are {', '.join(FORMATS)}; or give a TOML file that "
                "describes the table"
            )
        time = msgspec.to_builtins(table.time)
        if self.step_s is not None:
            time |= {"step_s": self.step_s}
        if self.offset:
            time |= {"offset": self.offset}
        changes: dict[str, object] = {"time": time}
        if self.columns:
            changes["names"] = self.columns
        if self.asset:
            changes["asset"] = self.asset
        try:
            return msgspec.convert(msgspec.to_builtins(table) | changes, Table)
        except msgspec.ValidationError as error:
            raise ConfigError(f"format {name!r}, as changed by the options: {error}") from error
