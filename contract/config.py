"""Read a TOML file into a typed configuration; an unknown key names itself and the nearest one."""

import difflib
import ipaddress
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from contract.errors import ConfigError

T = TypeVar("T")


def load_toml(path: Path, into: type[T], overrides: Sequence[str] = ()) -> T:
    """Read ``path`` as ``into``; raises ``ConfigError`` with file, key and mend.

    Args:
        path: of the file.
        into: the type of the whole.
        overrides: ``key.key=value`` each, in place of what the file says; values as in TOML, and
            what is no TOML value is a string. A table of an array is named by its place, from 0:
            ``asset_class.0.hop=4``.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    for override in overrides:
        _override(raw, override)
    unknown = _unknown(raw, msgspec.inspect.type_info(into), "")
    if unknown:
        raise ConfigError(f"{path}: {unknown}")
    try:
        return msgspec.convert(raw, into)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {error}") from error


def is_loopback(host: str) -> bool:
    """Return whether a host name is this machine's own, without asking any name server."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _override(raw: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(f"--set {override!r}: write it as key.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *above, last = key.split(".")
    place: Any = raw
    for name in above:
        if isinstance(place, list):
            place = place[_index(place, name, override)]
        elif isinstance(place, dict):
            place = place.setdefault(name, {})
        if not isinstance(place, (dict, list)):
            raise ConfigError(f"--set {override!r}: {name!r} is not a table")
    place[_index(place, last, override) if isinstance(place, list) else last] = value


def _index(place: list[Any], name: str, override: str) -> int:
    if not name.isdecimal() or int(name) >= len(place):
        raise ConfigError(
            f"--set {override!r}: {name!r} should be the place in a list of {len(place)}, from 0"
        )
    return int(name)


def _unknown(value: Any, info: msgspec.inspect.Type, place: str) -> str:
    """Return what is wrong with the first key that the type does not have, or nothing."""
    if isinstance(info, msgspec.inspect.UnionType):
        info = _choose(value, info)
    if isinstance(info, msgspec.inspect.StructType) and isinstance(value, dict):
        return _unknown_field(value, info, place)
    if isinstance(info, msgspec.inspect.DictType) and isinstance(value, dict):
        below = ((f"{place}.{key}", child, info.value_type) for key, child in value.items())
    elif isinstance(info, (msgspec.inspect.ListType, msgspec.inspect.VarTupleType)) and isinstance(
        value, list
    ):
        below = ((f"{place}[{i}]", child, info.item_type) for i, child in enumerate(value))
    else:
        return ""
    return next((text for at, child, kind in below if (text := _unknown(child, kind, at))), "")


def _unknown_field(value: dict[str, Any], info: msgspec.inspect.StructType, place: str) -> str:
    known = {field.encode_name: field.type for field in info.fields}
    names = [*known, *([info.tag_field] if info.tag_field else [])]
    for key, child in value.items():
        at = f"{place}.{key}".lstrip(".")
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
            mend = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(names))}"
            return f"unknown key {at!r}; {mend}"
        if key in known and (text := _unknown(child, known[key], at)):
            return text
    return ""


def _choose(value: Any, union: msgspec.inspect.UnionType) -> msgspec.inspect.Type:
    """Return the member of a union that a value's tag (or its being a table) points to."""
    structs = [t for t in union.types if isinstance(t, msgspec.inspect.StructType)]
    for struct in structs:
        if (
            isinstance(value, dict)
            and struct.tag_field
            and value.get(struct.tag_field) == struct.tag
        ):
            return struct
    if isinstance(value, dict) and len(structs) == 1:
        return structs[0]
    return msgspec.inspect.AnyType()
