"""Finished lives as an alert's recomputation needs them: those that were known then, and no more.

Only where a life of the class ended between the state and the alert; else the models of remaining
life are in the state as they were.
"""

import sqlite3
from typing import Any

import msgspec
import numpy as np

from agent.labels import Life
from agent.store import read_lives
from contract import npz
from contract.arrays import Arrays, Floats
from contract.errors import ContractError
from contract.spec import AssetClass


class KnownLives:
    """Finished lives in the order in which they ended; see ``agent.pipeline.Lives``.

    Args:
        lives: each, and whether it is held out.
    """

    def __init__(self, lives: list[tuple[Life, bool]]) -> None:
        self._lives = lives

    def add(self, asset: str, life: int, t_ns: int, x: Floats) -> None:
        """Keep nothing: what is recomputed is not learnt from."""

    def finish(self, _spec: AssetClass, asset: str, life: int, _end_ns: int) -> bool:
        """Return whether the life is known: it was labelled when it ended."""
        return any((one.asset, one.life) == (asset, life) for one, _ in self._lives)

    def forget(self, asset: str, life: int) -> None:
        """Drop nothing."""

    def training(self, _spec: AssetClass, until: tuple[str, int] | None = None) -> list[Life]:
        """Return the lives that were learnt from, up to one if it is told."""
        found = []
        for life, heldout in self._lives:
            if not heldout:
                found.append(life)
            if until == (life.asset, life.life):
                break
        return found

    def heldout(self, _spec: AssetClass) -> list[Life]:
        """Return none: how good a model is changes no alert."""
        return []

    def to_bytes(self) -> bytes:
        """Return the form in which they travel."""
        words = [(life.asset, life.life, len(life.y), heldout) for life, heldout in self._lives]
        arrays: Arrays = {
            f"{i}/{key}": array
            for i, (life, _) in enumerate(self._lives)
            for key, array in (("X", life.X), ("y", life.y), ("w", life.weights))
        }
        return npz.to_bytes(msgspec.json.encode(words), arrays)

    @classmethod
    def from_bytes(cls, content: bytes, name: str) -> "KnownLives":
        """Read the form in which they travel; raises ``ContractError`` where it is another's."""
        head, arrays = npz.from_bytes(content, name)
        try:
            words = msgspec.json.decode(head, type=list[tuple[str, int, int, bool]])
            return cls(
                [
                    (Life(asset, life, *(_floats(arrays[f"{i}/{key}"]) for key in "Xyw")), held)
                    for i, (asset, life, _, held) in enumerate(words)
                ]
            )
        except (KeyError, ValueError, TypeError, msgspec.MsgspecError) as error:
            raise ContractError(f"{name}: these are no finished lives ({error})") from error


def known(
    db: sqlite3.Connection, spec: AssetClass, wanted: tuple[tuple[str, int], ...]
) -> KnownLives:
    """Read the lives that were known at an alert.

    Raises:
        ContractError: the store has forgotten one of them since.
    """
    rows = db.execute(
        "SELECT asset, life, heldout FROM life WHERE asset_class = ? ORDER BY id", (spec.name,)
    ).fetchall()
    order = {(asset, life): bool(heldout) for asset, life, heldout in rows}
    lost = [f"{asset}/{life}" for asset, life in wanted if (asset, life) not in order]
    if lost:
        raise ContractError(
            f"the remaining-life model then in force was learnt from lives that are no longer kept "
            f"(keep.lives): {', '.join(lost[:5])}"
        )
    found = {
        (life.asset, life.life): life
        for heldout in (False, True)
        for life in read_lives(db, spec, heldout=heldout)
    }
    return KnownLives([(found[key], order[key]) for key in wanted if key in found])


def _floats(array: Any) -> Floats:
    return np.asarray(array, dtype=np.float64)
