"""``runout-agent join``: a bundle of the fleet's server becomes files and configuration."""

import json
import os
import zipfile
from pathlib import Path

import msgspec

from contract.errors import ConfigError

FILES = ("ca.crt", "node.key", "fleet.pem")
MOST_BYTES = 100_000
"""Of a file in a bundle: keys and certificates are short."""


class _Bundle(msgspec.Struct):
    node: str
    superlink: str


def unpack(bundle: Path, folder: Path) -> str:
    """Write a bundle's files, readable by nobody else; return the configuration that names them.

    Raises:
        ConfigError: it is no bundle, or a file is there already.
    """
    try:
        with zipfile.ZipFile(bundle) as opened:
            sizes = {one.filename: one.file_size for one in opened.infolist()}
            for name in (*FILES, "bundle.json"):
                if sizes.get(name, MOST_BYTES + 1) > MOST_BYTES:
                    raise ConfigError(f"{bundle}: is no bundle: {name} is missing or too large")
            content = {name: opened.read(name) for name in (*FILES, "bundle.json")}
        about = msgspec.json.decode(content["bundle.json"], type=_Bundle)
    except OSError as error:
        raise ConfigError(f"{bundle}: cannot be read ({error.strerror})") from error
    except (zipfile.BadZipFile, msgspec.MsgspecError) as error:
        raise ConfigError(f"{bundle}: is no bundle of runout-server enrol ({error})") from error
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: (folder / name).absolute() for name in FILES}
    for path in paths.values():
        if path.exists():
            raise ConfigError(f"{path}: is there already; move it away to join again")
    for name, path in paths.items():
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(file, "wb") as written:
            written.write(content[name])
    return (
        f"# for the agent's configuration; its [node] name is {json.dumps(about.node)}\n"
        "[federation]\n"
        f"superlink = {json.dumps(about.superlink)}\n"
        f"ca = {json.dumps(str(paths['ca.crt']))}\n"
        f"key = {json.dumps(str(paths['node.key']))}\n"
        f"release_key = {json.dumps(str(paths['fleet.pem']))}\n"
    )
