"""``runout-agent import``: its arguments, and what it does with them."""

import argparse
from pathlib import Path

from contract.errors import ConfigError, RunoutError

IMPORT = "Turn what another service has collected into files for replay, and a configuration."


def add(parser: argparse.ArgumentParser) -> None:
    """Add the services, and the arguments of each."""
    services = parser.add_subparsers(required=True, metavar="SERVICE")
    monitron = services.add_parser(
        "monitron",
        help="Amazon Monitron: the JSON records of its export",
        description="Amazon Monitron: the JSON records of its export, schema 1 or 2.",
    )
    monitron.add_argument("files", type=Path, nargs="+", metavar="FILE", help="plain or .gz")
    monitron.add_argument("--site", default="", metavar="NAME", help="this site's machines only")
    monitron.add_argument(
        "--replaced-is-failed",
        action="store_true",
        help="a confirmed failure mended by REPLACE or OVERHAUL ends a life, to learn from",
    )
    monitron.set_defaults(do=_monitron)
    lookout = services.add_parser(
        "lookout",
        help="Amazon Lookout for Equipment: the data set of one machine",
        description="Amazon Lookout for Equipment: the data set of one machine.",
    )
    lookout.add_argument(
        "files", type=Path, nargs="+", metavar="PATH", help="folders of .csv, or such files"
    )
    lookout.add_argument("--asset", required=True, metavar="NAME", help="the machine")
    lookout.add_argument(
        "--offset", required=True, metavar="+HH:MM", help="of the times from UTC; or Z"
    )
    lookout.add_argument("--labels", type=Path, metavar="CSV", help="start and end, no header")
    lookout.add_argument(
        "--results", type=Path, metavar="JSONL", help="of inferences; where there are no labels"
    )
    lookout.add_argument(
        "--unit", action="append", default=[], metavar="CHANNEL=UNIT", help="may be repeated"
    )
    lookout.add_argument(
        "--day-first", action="store_true", help="31/1/2020, not 1/31/2020, where the year is last"
    )
    lookout.set_defaults(do=_lookout)
    for sub, name in ((monitron, "monitron"), (lookout, "machine")):
        sub.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
        sub.add_argument(
            "--class", dest="asset_class", default=name, metavar="NAME", help=f"default: {name}"
        )


def _monitron(asked: argparse.Namespace) -> int:
    from agent.imports import folder, monitron

    found = monitron.read(asked.files, site=asked.site, replaced_failed=asked.replaced_is_failed)
    return _told(folder.write(found, asked.out, asked.asset_class), asked.out)


def _lookout(asked: argparse.Namespace) -> int:
    from agent.files.table import Time
    from agent.imports import folder, lookout
    from contract import units

    given: dict[str, str] = {}
    for pair in asked.unit:
        name, equals, unit = pair.partition("=")
        if not equals:
            raise ConfigError(f"--unit {pair}: write it as CHANNEL=UNIT")
        given[name] = unit
    try:
        Time(offset=asked.offset)
        for unit in given.values():
            units.check(unit)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if not asked.offset:
        raise RunoutError("--offset: say how far the times are from UTC: Z or +01:00")
    found = lookout.read(
        asked.files,
        asset=asked.asset,
        offset=asked.offset,
        labels=asked.labels,
        results=asked.results,
        units=given,
        day_first=asked.day_first,
    )
    return _told(folder.write(found, asked.out, asked.asset_class), asked.out)


def _told(said: list[str], out: Path) -> int:
    print("\n".join(said))
    print(f"next: look at {out}/agent.toml, then")
    print(
        f"  runout-agent replay {out}/rows/*.csv --format {out}/tables.toml "
        f"--labels {out}/labels.json --config {out}/agent.toml"
    )
    return 0
