"""The command line of ``runout-agent replay``."""

import argparse
from pathlib import Path


def add(parser: argparse.ArgumentParser) -> None:
    """Add files and options to a command's parser."""
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="plain or .gz")
    parser.add_argument(
        "--format",
        default="",
        metavar="F",
        help="csv, cmapss, skab, nab, gasturbine, tep, ai4i, femto or a TOML file that describes "
        "the table; absent: found by the content",
    )
    parser.add_argument(
        "--columns", default="", metavar="A,B,C", help="names of the columns, where no header is"
    )
    parser.add_argument(
        "--asset", default="", metavar="NAME", help="may have {column}, {stem} and {folder} in it"
    )
    parser.add_argument(
        "--step", type=float, metavar="S", help="seconds from row to row, where no column says"
    )
    parser.add_argument(
        "--offset", default="", metavar="+HH:MM", help="from UTC, of times that bear none; or Z"
    )
    parser.add_argument(
        "--state", type=Path, metavar="DIR", help="keep what is learnt here; absent: nowhere"
    )
    parser.add_argument(
        "--release",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="judge by this release of the fleet; may be given again, for another class",
    )
    parser.add_argument(
        "--speed",
        type=float,
        default=0.0,
        metavar="X",
        help="times the data's own pace; 0, the default: as fast as it goes",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="health and alerts, as .jsonl or .csv"
    )
    parser.add_argument("--from", dest="begin", default="", metavar="T", help="leave out before T")
    parser.add_argument("--until", default="", metavar="T", help="leave out from T on")
    parser.add_argument(
        "--labels", type=Path, metavar="JSON", help="windows in which files are faulty, as NAB's"
    )
    parser.add_argument(
        "--rul", type=Path, metavar="FILE", help="rows left after each asset's last, one a line"
    )
    parser.add_argument("--skip-bad", action="store_true", help="count bad lines, and go on")
    parser.add_argument("--quiet", action="store_true", help="the summary only")
