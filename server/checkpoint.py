"""How far a training has come, in one file, so that what was killed goes on where it was.

``STATE/training.npz``: written before the first question, after each round of fitting, and before
a version is registered. Sums need no place in it: they are in the ledgers as they arrive.
"""

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import msgspec

from contract import npz
from contract.arrays import Arrays
from contract.errors import ContractError

FILE = "training.npz"
"""Of a server that trains one class; beside it ``training-<class>.npz`` for each of several."""
MOST_TRIES = 3
"""A training that was begun so often and never ended is given up."""


class _Head(msgspec.Struct):
    training: int
    why: str
    began_s: float
    anyway: bool
    tries: int
    names: dict[str, str]
    told: list[str]
    round: int
    version: int


@dataclass(slots=True, eq=False)
class Checkpoint:
    """A training that is under way, or was when its process ended.

    Attributes:
        training: its number.
        why: it runs.
        began_s: seconds since 1970 UTC.
        anyway: even if the nodes have nothing new.
        tries: how often it was begun or resumed.
        names: of nodes, by Flower's id: the ids outlive a restart.
        told: nodes whose statistics of this training are in the ledger.
        round: of fitting, the last that is done; 0: none.
        version: about to be registered; 0: not so far yet.
        weights: after that round.
    """

    training: int
    why: str
    began_s: float
    anyway: bool = True
    tries: int = 1
    names: dict[int, str] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    round: int = 0
    version: int = 0
    weights: Arrays = field(default_factory=dict)

    def save(self, state: Path, of: str = "") -> None:
        """Replace the file."""
        head = _Head(
            self.training,
            self.why,
            self.began_s,
            self.anyway,
            self.tries,
            {str(node_id): name for node_id, name in self.names.items()},
            self.told,
            self.round,
            self.version,
        )
        npz.write(path_of(state, of), npz.to_bytes(msgspec.json.encode(head), self.weights))


def path_of(state: Path, of: str = "") -> Path:
    """Return where the training of a class is kept; empty: of the only one."""
    return state / (f"training-{quote(of, safe='')}.npz" if of else FILE)


def read(state: Path, of: str = "") -> Checkpoint | None:
    """Return the training that did not end, or None.

    Raises:
        ContractError: the file is damaged.
    """
    path = path_of(state, of)
    if not path.exists():
        return None
    content, weights = npz.read(path)
    try:
        head = msgspec.json.decode(content, type=_Head)
    except msgspec.MsgspecError as error:
        raise ContractError(f"{path}: {error}") from error
    return Checkpoint(
        head.training,
        head.why,
        head.began_s,
        head.anyway,
        head.tries,
        {int(node_id): name for node_id, name in head.names.items()},
        head.told,
        head.round,
        head.version,
        weights,
    )


def clear(state: Path, of: str = "") -> None:
    """Forget it: the training has ended."""
    path_of(state, of).unlink(missing_ok=True)
