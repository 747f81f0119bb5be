"""``runout-server config``: what devices are told to do otherwise than their files say."""

import argparse
import time
from dataclasses import dataclass

import msgspec
from sqlalchemy import select

from contract.errors import ConfigError, RunoutError
from contract.report import NodeConfig, NodeStatus
from contract.settings import Settings, Standing
from server import settings
from server.config import ServerConfig
from server.fleet import tables
from server.fleet.config import Mqtt
from server.fleet.store import open_engine


@dataclass(frozen=True, slots=True)
class Device:
    """A device that has been heard."""

    site: str
    node: str
    area: str
    line: str
    standing: Standing


def devices(config: ServerConfig) -> list[Device]:
    """Return the devices in the fleet's table."""
    engine = open_engine(config.fleet.url(config.folder))
    try:
        with engine.connect() as db:
            rows = db.execute(select(tables.node)).mappings().all()
    finally:
        engine.dispose()
    found = []
    for row in rows:
        said = msgspec.json.decode(row["config"], type=NodeConfig) if row["config"] else None
        status = msgspec.json.decode(row["status"], type=NodeStatus) if row["status"] else None
        area, line = (said.area, said.line) if said else ("", "")
        standing = status.settings if status else Standing()
        found.append(Device(row["site"], row["node"], area, line, standing))
    return sorted(found, key=lambda one: (one.site, one.node))


def _chosen(config: ServerConfig, arguments: argparse.Namespace) -> list[tuple[str, str]]:
    """Return the devices that are meant."""
    known = devices(config)
    wanted = {name: getattr(arguments, name) for name in ("site", "area", "line")}
    narrowed = any(wanted.values())
    found = [
        (one.site, one.node)
        for one in known
        if all(not value or getattr(one, name) == value for name, value in wanted.items())
        and (not arguments.node or one.node in arguments.node)
    ]
    missing = set(arguments.node) - {node for _, node in found}
    if missing and wanted["site"] and not wanted["area"] and not wanted["line"]:
        # Not heard yet: with its site it can be told all the same.
        found += [(wanted["site"], node) for node in sorted(missing)]
        missing = set()
    if missing:
        raise RunoutError(
            f"no device {', '.join(sorted(missing))} was heard there; with --site it can be told "
            "before it is"
        )
    if not arguments.node and not narrowed and not arguments.all:
        raise RunoutError("say which devices: names, --site, --area, --line or --all")
    if not found:
        raise RunoutError("no device that was heard is meant by that")
    return found


def _broker(config: ServerConfig) -> Mqtt:
    if config.mqtt is None:
        raise ConfigError("there is no [mqtt] in the configuration: settings go over the broker")
    return config.mqtt


def push(config: ServerConfig, arguments: argparse.Namespace) -> int:
    """Change devices' configurations."""
    changes = {}
    for word in arguments.change:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise ConfigError(f"{word!r} is not KEY=VALUE, as in report.status_s=5")
        changes[key] = value
    meant = _chosen(config, arguments)
    pushed = settings.push(config.folder, _broker(config), meant, changes, only=arguments.only)
    for (site, node), version in pushed.items():
        print(f"{site}/{node}: settings {version} stand on the broker")
    print("runout-server config list says what became of them")
    return 0


def rollback(config: ServerConfig, arguments: argparse.Namespace) -> int:
    """Give devices earlier settings again."""
    arguments.all = False
    for site, node in _chosen(config, arguments):
        back, number = settings.rollback(config.folder, _broker(config), site, node, arguments.to)
        what = f"settings {back}" if back else "its own file alone"
        print(f"{site}/{node}: {what}, as settings {number}")
    return 0


def show(config: ServerConfig, arguments: argparse.Namespace) -> int:
    """Print a device's versions."""
    arguments.all = False
    known = {(one.site, one.node): one for one in devices(config)}
    for site, node in _chosen(config, arguments):
        print(f"{site}/{node}")
        heard = known.get((site, node))
        for one in settings.history(config.folder, site, node):
            print(f"  {one.version}  {_when(one)}{_became(one, heard)}")
            for key, value in one.changes.items():
                print(f"      {key} = {value}")
            if not one.changes:
                print("      nothing beside its own file")
    return 0


def listed(config: ServerConfig, arguments: argparse.Namespace) -> int:
    """Print what became of the newest settings of each device."""
    del arguments
    row = "{:24} {:16} {:16} {:>10} {:>10}  {}"
    print(row.format("device", "area", "line", "told", "has", ""))
    known = {(one.site, one.node): one for one in devices(config)}
    for place in sorted(known.keys() | set(settings.known(config.folder))):
        past = settings.history(config.folder, *place)
        heard = known.get(place)
        standing = heard.standing if heard else Standing()
        said = f"{standing.state} {standing.reason}".strip() if standing.version else "-"
        print(
            row.format(
                "/".join(place),
                heard.area if heard else "",
                heard.line if heard else "not heard yet",
                past[-1].version if past else "-",
                standing.version or "-",
                said.replace("rolled_back", "rolled back:").replace("refused", "refused:"),
            )
        )
    return 0


def _when(one: Settings) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(one.created_s))


def _became(one: Settings, heard: Device | None) -> str:
    again = f", those of {one.restores} again" if one.restores else ""
    if heard is None or heard.standing.version != one.version:
        return again
    return f"{again}, {heard.standing.state} {heard.standing.reason}".rstrip()
