"""Settings of devices: changes of their configurations, signed, versioned, retained on the broker.

``<state>/settings/<site>/<node>.json`` holds each device's versions. What became of them, its
status says (``contract.settings.Standing``).
"""

import time
from pathlib import Path
from urllib.parse import quote, unquote

import msgspec

from contract import npz, topics
from contract.errors import ConfigError, RunoutError
from contract.settings import Settings, Signed, problem, sealed
from server.broadcast import retain
from server.fleet.config import Mqtt
from server.signing import key_of

KEPT = 100
"""Versions of a device; older ones are dropped."""


class _History(msgspec.Struct):
    versions: list[Settings]


def _path(state: Path, site: str, node: str) -> Path:
    return state / "settings" / quote(site, safe="") / f"{quote(node, safe='')}.json"


def history(state: Path, site: str, node: str) -> list[Settings]:
    """Return a device's versions, oldest first; raises ``ConfigError`` on a damaged file."""
    path = _path(state, site, node)
    try:
        return msgspec.json.decode(path.read_bytes(), type=_History).versions
    except FileNotFoundError:
        return []
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{path}: {error}: put it back from a copy, or move it away") from error


def known(state: Path) -> list[tuple[str, str]]:
    """Return the devices that have settings: site and node."""
    found = (state / "settings").glob("*/*.json")
    return sorted((unquote(path.parent.name), unquote(path.stem)) for path in found)


def push(
    state: Path,
    broker: Mqtt,
    devices: list[tuple[str, str]],
    changes: dict[str, str],
    *,
    only: bool = False,
    restores: int = 0,
) -> dict[tuple[str, str], int]:
    """Sign new settings for devices and put them on the broker; returns their versions.

    Args:
        state: of the server.
        broker: that the devices listen to.
        devices: site and node.
        changes: keys to values; an empty value takes a change back.
        only: these changes and no others; else over those that are in force.
        restores: the version these are of, where they were before.

    Raises:
        ConfigError: a key may not be changed from afar.
        RunoutError: the broker cannot be reached, or does not take them.
    """
    against = problem({key: value for key, value in changes.items() if value})
    if against:
        raise ConfigError(against)
    key = key_of(state)
    messages: dict[str, bytes] = {}
    versions: dict[tuple[str, str], int] = {}
    for site, node in devices:
        past = history(state, site, node)
        before = {} if only or not past else past[-1].changes
        merged = {name: v for name, v in (before | changes).items() if v}
        against = problem(merged)
        if against:
            raise ConfigError(f"{site}/{node}: {against}")
        # By the clock as well: a server whose state was lost must not begin below what is known.
        number = max(past[-1].version + 1 if past else 1, int(time.time()) - _EPOCH_S)
        settings = Settings(site, node, number, round(time.time(), 3), merged, restores)
        words = msgspec.json.encode(settings).decode()
        signed = Signed(words, key.sign(sealed(words)).hex())
        path = _path(state, site, node)
        path.parent.mkdir(parents=True, exist_ok=True)
        npz.write(path, msgspec.json.encode(_History([*past[1 - KEPT :], settings])))
        messages[topics.settings_topic(site, node)] = msgspec.json.encode(signed)
        versions[site, node] = number
    retain(broker, messages)
    return versions


_EPOCH_S = 1_760_000_000


def rollback(
    state: Path, broker: Mqtt, site: str, node: str, version: int | None = None
) -> tuple[int, int]:
    """Give a device the settings of an earlier version again, under a new number.

    Args:
        state: of the server.
        broker: that the device listens to.
        site: of the device.
        node: its name.
        version: which; 0: its own file alone; None: the one before the newest.

    Returns:
        the version that is given again and the new number.

    Raises:
        RunoutError: there is no such version.
    """
    past = history(state, site, node)
    if not past:
        raise RunoutError(f"{site}/{node}: it was never given any settings")
    if version is None:
        version = past[-2].version if len(past) > 1 else 0
    found = next((one for one in past if one.version == version), None)
    if version and found is None:
        there = ", ".join(str(one.version) for one in past)
        raise RunoutError(f"{site}/{node}: no version {version}; there are {there}")
    changes = found.changes if found is not None else {}
    pushed = push(state, broker, [(site, node)], changes, only=True, restores=version)
    return version, pushed[site, node]
