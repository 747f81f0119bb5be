"""Candidates for remaining life, and which of them is taken: on one device, or by a fleet.

Chosen is the simplest whose error is within one standard error of the least (L. Breiman et al.,
*Classification and regression trees*, 1984): what is not better for sure is worth no more.
"""

import json
from collections.abc import Iterable
from typing import Protocol, TypeVar

import msgspec

from contract.model_spec import Ridge, RulModel
from contract.spec import AssetClass, rul_name


class Measured(Protocol):
    """What is known of a candidate."""

    @property
    def error_h(self) -> float:
        """Return the root mean square error in hours."""

    @property
    def standard_error_h(self) -> float:
        """Return the standard error of that."""

    @property
    def numbers(self) -> int:
        """Return how many numbers were learnt."""


M = TypeVar("M", bound=Measured)


def choose(rows: Iterable[M]) -> M:
    """Return the simplest that is as good as the best, as far as can be told."""
    rows = list(rows)
    best = min(rows, key=lambda row: row.error_h)
    good = [row for row in rows if row.error_h <= best.error_h + best.standard_error_h]
    return min(good, key=lambda row: (row.numbers, row.error_h))


def variations(spec: AssetClass) -> list[tuple[str, RulModel]]:
    """Return the models of a class one by one, and sizes and kinds of ridge beside them.

    >>> from contract.spec import Channel
    >>> pump = AssetClass("pump", (Channel("flow", "m3/h"),), rul=(Ridge(random=100),))
    >>> [name for name, _ in variations(pump)]
    ['ridge', 'linear', 'ridge 30', 'ridge 300', 'ridge fourier', 'ridge shaped']
    """
    found: list[tuple[str, RulModel]] = [(rul_name(model), model) for model in spec.rul]
    ridge = next((model for model in spec.rul if isinstance(model, Ridge)), Ridge())
    change = msgspec.structs.replace
    others: list[tuple[str, RulModel]] = [("linear", change(ridge, random=0, shaping=0))]
    others += [(f"ridge {n}", change(ridge, random=n)) for n in (30, 300)]
    others += [("ridge fourier", change(ridge, activation="fourier", width=0.3))]
    flat = "ridge unshaped" if ridge.shaping else "ridge shaped"
    others += [(flat, change(ridge, shaping=0 if ridge.shaping else 100))]
    known = [model for _, model in found]
    return found + [(name, model) for name, model in others if model not in known]


def toml_of(model: RulModel) -> str:
    """Return a model as it stands in a configuration.

    >>> print(toml_of(Ridge(random=30, seed=2)))
    [[asset_class.rul]]
    kind = "ridge"
    random = 30
    seed = 2
    """
    words: dict[str, object] = {"kind": rul_name(model)}
    plain = type(model)()
    for name in model.__struct_fields__:
        value = getattr(model, name)
        if value != getattr(plain, name):
            words[name] = list(value) if isinstance(value, tuple) else value
    lines = [f"{name} = {json.dumps(value)}" for name, value in words.items()]
    return "\n".join(["[[asset_class.rul]]", *lines])
