"""What crosses a wire, and what two sides must compute alike. Imports numpy and msgspec only."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contract.release import Release, load_model

VERSION = 1
"""Travels with every update and release; a device of another version trains on nothing."""

__all__ = ["VERSION", "Release", "load_model"]


def __getattr__(name: str) -> Any:
    """Import the release with its numpy only once it is asked for.

    A command sets how many threads BLAS may have before numpy is imported; whoever reads a
    configuration or an error's name from here must not import it earlier.
    """
    if name in {"Release", "load_model"}:
        from contract import release  # noqa: PLC0415

        return getattr(release, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
