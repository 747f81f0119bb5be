"""What crosses a wire, and what two sides must compute alike. Imports numpy and msgspec only."""

from contract.release import Release, load_model

VERSION = 1
"""Travels with every update and release; a device of another version trains on nothing."""

__all__ = ["VERSION", "Release", "load_model"]
