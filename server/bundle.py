"""The Flower app that is submitted to SuperLink: three thin files and this description of them.

``[tool.flwr.app]`` in the ``pyproject.toml`` of the project says the same, for ``flwr run .``; a
test holds the two together.
"""

import json
import shutil
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

PACKAGES = Path(__file__).resolve().parents[1]
"""The folder that our packages are in, installed or not."""
FILES = ("__init__.py", "client_app.py", "server_app.py")
"""All of ``flowerapp`` that travels. A FAB's folder goes first on ``sys.path`` of every device."""

RUN_CONFIG: Mapping[str, str | int | float | bool] = {
    "asset-class": "",
    "num-server-rounds": 3,
    "min-nodes": 1,
    "deadline-s": 120.0,
    "state": "",
    "serve": False,
    "interval-s": 3600.0,
    "ask-s": 600.0,
    "new-lives": 0,
    "ready-s": 60.0,
    "quorum": 0.8,
    "parent": False,
    "strategy": "fedavg",
}
"""What ``flwr run -c`` may override, and its defaults."""

_PYPROJECT = """\
[project]
name = "runout"
version = "{version}"
description = "Predictive maintenance on a Raspberry Pi beside the machine."
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "runout"
fab-include = [{include}]

[tool.flwr.app.components]
serverapp = "flowerapp.server_app:app"
clientapp = "flowerapp.client_app:app"

[tool.flwr.app.config]
{config}
"""


def pyproject() -> str:
    """Return the description of the app, in TOML."""
    return _PYPROJECT.format(
        version=metadata.version("runout"),
        include=", ".join(f'"flowerapp/{name}"' for name in FILES),
        config=toml(RUN_CONFIG),
    )


def toml(values: Mapping[str, str | int | float | bool]) -> str:
    r"""Return scalars as lines of TOML: JSON's and TOML's are written alike.

    >>> toml({"serve": True, "state": "/var/lib/runout"})
    'serve = true\nstate = "/var/lib/runout"'
    """
    return "\n".join(f"{key} = {json.dumps(value)}" for key, value in values.items())


def write(folder: Path) -> None:
    """Lay the app into a folder, in place of what is there."""
    if folder.exists():
        shutil.rmtree(folder)
    package = folder / "flowerapp"
    package.mkdir(parents=True)
    for name in FILES:
        (package / name).write_bytes((PACKAGES / "flowerapp" / name).read_bytes())
    (folder / "pyproject.toml").write_text(pyproject(), encoding="utf-8")
