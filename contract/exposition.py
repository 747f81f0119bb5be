"""Metrics as Prometheus reads them: text format 0.0.4. Names begin with ``runout_``."""

from collections.abc import Iterable, Sequence
from typing import Protocol

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = tuple[tuple[str, str], ...]


class Histogram(Protocol):
    """Counts of values by upper bound; the last count is of those above all bounds."""

    @property
    def bounds(self) -> Sequence[float]:
        """Return the upper bounds, rising."""
        ...

    @property
    def counts(self) -> Sequence[int]:
        """Return how many lie in each stretch."""
        ...

    @property
    def sum(self) -> float:
        """Return the sum of all values."""
        ...


class Exposition:
    """Lines of text; each metric is said once, with its samples behind it."""

    def __init__(self) -> None:

        self._lines: list[str] = []

    def many(
        self, name: str, kind: str, text: str, samples: Iterable[tuple[Labels, float | None]]
    ) -> None:
        """Add a metric with a sample per set of labels; one without a value is left out."""
        name = f"runout_{name}"
        said = [
            f"{name}{_braced(labels)} {_number(value)}"
            for labels, value in samples
            if value is not None
        ]
        if said:
            self._lines += [f"# HELP {name} {_help(text)}", f"# TYPE {name} {kind}", *said]

    def one(self, name: str, kind: str, text: str, value: float | None) -> None:
        """Add a metric without labels."""
        self.many(name, kind, text, [((), value)])

    def histogram(self, name: str, text: str, found: Histogram) -> None:
        """Add a histogram; its counts are said cumulatively."""
        name = f"runout_{name}"
        self._lines += [f"# HELP {name} {_help(text)}", f"# TYPE {name} histogram"]
        total = 0
        for bound, count in zip((*found.bounds, float("inf")), found.counts, strict=True):
            total += count
            self._lines.append(f'{name}_bucket{{le="{_number(bound)}"}} {total}')
        self._lines += [f"{name}_sum {_number(found.sum)}", f"{name}_count {total}"]

    def text(self) -> bytes:
        """Return the page."""
        return ("\n".join(self._lines) + "\n").encode()


def _braced(labels: Labels) -> str:
    r"""Write labels.

    >>> _braced((("asset", 'a"b\\'),))
    '{asset="a\\"b\\\\"}'
    """
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels) + "}"


def _number(value: float) -> str:
    """Write a number as Go reads it.

    >>> [_number(v) for v in (3, 0.25, 1.0, float("inf"), float("nan"), 1e21)]
    ['3', '0.25', '1', '+Inf', 'NaN', '1e+21']
    """
    if value != value:  # noqa: PLR0124  # NaN
        return "NaN"
    if value in {float("inf"), float("-inf")}:
        return "+Inf" if value > 0 else "-Inf"
    return repr(int(value)) if value == int(value) and abs(value) < 2**53 else repr(float(value))


def _help(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
