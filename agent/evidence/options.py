"""Arguments of ``runout-agent explain`` and ``export``; costs no import of what they run."""

import argparse
from pathlib import Path

EXPLAIN = "Say why an alert was raised, and recompute it to the last bit."
EXPORT = "Pack the evidence of an alert, to recompute it on another machine."


def explain(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``explain``."""
    parser.add_argument(
        "alert",
        nargs="?",
        metavar="ALERT",
        help="its id, as in pump-3/0/1; or an asset's name: its newest; or last, as by default",
    )
    parser.add_argument(
        "--from",
        dest="package",
        type=Path,
        metavar="FILE.zip",
        help="recompute from a package that export made, on any machine; needs no --config",
    )
    parser.add_argument(
        "--functions",
        type=Path,
        metavar="FOLDER",
        help="with --from: where the class's own functions lie; they are run",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object, for programs")


def export(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``export``."""
    parser.add_argument("alert", metavar="ALERT", help="as of explain")
    parser.add_argument(
        "--out", type=Path, metavar="FILE.zip", help="where to; else alert-ASSET-LIFE-COUNT.zip"
    )
