"""The command lines of ``runout-agent train``, ``reproduce`` and ``select``."""

import argparse
from pathlib import Path

TRAIN = "Train a class's models from recorded files, or from the agent's own store."
REPRODUCE = "Train a model anew from what its run manifest names, and compare every bit."
SELECT = "Compare several models on blocks of time, side by side, and write the chosen one."


def train(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``train``."""
    _source(parser)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="the model, e.g. model.npz"
    )


def reproduce(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``reproduce``."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="as train wrote it")


def select(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``select``."""
    _source(parser)
    parser.add_argument(
        "--candidate",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="another configuration to compare, with its own features; may be repeated",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="for the chosen model's TOML")


def _source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files", type=Path, nargs="*", metavar="FILE", help="plain or .gz; none: the agent's store"
    )
    parser.add_argument(
        "--class", dest="asset_class", default="", metavar="NAME", help="where there are several"
    )
    parser.add_argument("--format", default="", metavar="F", help="as of replay")
    parser.add_argument("--columns", default="", metavar="A,B,C", help="as of replay")
    parser.add_argument("--asset", default="", metavar="NAME", help="as of replay")
    parser.add_argument("--step", type=float, metavar="S", help="as of replay")
    parser.add_argument("--offset", default="", metavar="+HH:MM", help="as of replay")
