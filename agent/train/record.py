"""The run manifest: all that a model came of, so that it can be made again to the last bit."""

import hashlib
import platform
from importlib import metadata
from pathlib import Path

import msgspec
import numpy as np

from agent.train.fit import Check
from agent.train.source import Origin
from contract import VERSION
from contract.errors import ContractError
from contract.spec import AssetClass

PACKAGES = ("runout", "numpy", "msgspec", "scikit-learn")


class Run(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A run manifest; it stands beside its model as ``MODEL.run.json``.

    Attributes:
        contract: ``contract.VERSION``.
        model: digest of the release.
        asset_class: the spec, seeds included.
        config: path of the configuration.
        config_sha256: of its text.
        functions: folder of the user's functions, with the SHA-256 of each file in it.
        origin: of the data.
        packages: versions.
        python: version.
        machine: architecture and, since they round each in its own way, numpy's linear algebra.
        checks: what was looked at.
    """

    contract: int
    model: str
    asset_class: AssetClass
    config: str
    config_sha256: str
    functions: dict[str, str]
    origin: Origin
    packages: dict[str, str]
    python: str
    machine: str
    checks: tuple[Check, ...]


def software() -> dict[str, str]:
    """Return the versions of what computes."""
    return {name: metadata.version(name) for name in PACKAGES}


def machine() -> str:
    """Return what rounds."""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return f"{platform.machine()} {blas.get('name', '')} {blas.get('version', '')}".strip()


def functions_of(folder: str) -> dict[str, str]:
    """Return the SHA-256 of each of the user's functions' files, by name."""
    if not folder:
        return {}
    files = sorted(Path(folder).glob("*.py"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def path_of(model: Path) -> Path:
    """Return where a model's run manifest stands."""
    return model.with_name(model.name + ".run.json")


def here(
    asset_class: AssetClass,
    model: str,
    config: Path,
    functions: str,
    origin: Origin,
    checks: list[Check],
) -> Run:
    """Return the manifest of a model that was trained in this process."""
    return Run(
        VERSION,
        model,
        asset_class,
        str(config),
        hashlib.sha256(config.read_bytes()).hexdigest(),
        functions_of(functions),
        origin,
        software(),
        platform.python_version(),
        machine(),
        tuple(checks),
    )


def write(run: Run, model: Path) -> None:
    """Write a manifest beside its model."""
    text = msgspec.json.format(msgspec.json.encode(run), indent=1)
    path_of(model).write_bytes(text + b"\n")


def read(model: Path) -> Run:
    """Read the manifest beside a model; raises ``ContractError`` where there is none."""
    path = path_of(model)
    try:
        return msgspec.json.decode(path.read_bytes(), type=Run)
    except OSError as error:
        raise ContractError(
            f"{path}: cannot be read ({error.strerror}): it is written beside each model"
        ) from error
    except msgspec.MsgspecError as error:
        raise ContractError(f"{path}: is no run manifest ({error})") from error
