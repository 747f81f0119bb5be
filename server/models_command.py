"""``runout-server models``: what versions there are, and which of them is handed out."""

import argparse
import time
from pathlib import Path

import msgspec
import numpy as np

from contract.arrays import Floats
from contract.errors import RunoutError
from contract.release import Release
from server import wave
from server.config import ServerConfig
from server.merge import Ledger, ledger_folder
from server.registry import Registry, cohorts
from server.restore import before, locked, restore, version_of
from server.rounds import Fleet
from server.status import Status
from server.training import Settings, Training


def listed(config: ServerConfig, arguments: argparse.Namespace) -> int:
    """Print all versions."""
    row = "{:16} {:>7} {:20} {:>5} {:8} {:>8} {:>8} {:>8}  {}"
    print(row.format("class", "version", "made", "nodes", "judges", "rmse h", "worst", "alone", ""))
    for name in cohorts(config.folder):
        if arguments.asset_class not in {None, name}:
            continue
        registry = Registry(config.folder, name)
        current = registry.current()
        for known in registry.all():
            if known.release is None:
                print(row.format(name, known.version, *[""] * 6, known.problem))
                continue
            manifest = known.release.manifest
            metrics, model = manifest.metrics, manifest.rul_model
            numbers = [
                f"{metrics[key]:.1f}" if key in metrics else "-"
                for key in (f"rmse/{model}", f"rmse_worst/{model}", "rmse/local")
            ]
            live = current is not None and current.version == known.version
            marks = ["handed out"] if live else []
            found = wave.read(registry.folder)
            if found is not None and found.version == known.version and found.in_short:
                marks.append(found.in_short)
            if manifest.restores is not None:
                marks.append(f"restores {manifest.restores or 'own models'}")
            nodes = len(manifest.contributors)
            made = _when(manifest.created_ns)
            print(
                row.format(
                    *(name, known.version, made, nodes, model or "-"), *numbers, ", ".join(marks)
                )
            )
    return 0


def show(config: ServerConfig, arguments: argparse.Namespace) -> int:
    """Print all that is known of a version."""
    registry = registry_of(config, arguments)
    release = version_of(registry, arguments.version)
    manifest = release.manifest
    current = registry.current()
    live = current is not None and current.version == release.version
    size = registry.path(release.version).stat().st_size
    lines = [
        ("class", f"{manifest.asset_class.name}, spec {manifest.asset_class.digest()}"),
        ("version", f"{release.version}{', handed out' if live else ''}"),
        ("made", _when(manifest.created_ns)),
        ("from", f"version {manifest.parent}" if manifest.parent else "nothing before"),
        ("digest", release.digest),
        ("signature", release.signature or "none"),
        ("size", f"{size / 1e3:,.0f} kB"),
        ("judges", manifest.rul_model or "no remaining life"),
        ("models", ", ".join(_models_of(release)) or "none: each device's own judge"),
    ]
    if manifest.restores is not None:
        again = f"version {manifest.restores}" if manifest.restores else "each device's own models"
        lines.insert(4, ("restores", again))
    for text, value in lines:
        print(f"{text:12}{value}")
    print("contributors" if manifest.contributors else "contributors: none")
    for node in manifest.contributors:
        epoch, lives = manifest.epochs.get(node, 0), manifest.lives.get(node, 0)
        print(f"  {node:24} journal position {epoch}, {lives} finished lives")
    print("metrics" if manifest.metrics else "metrics: none")
    for name, measured in sorted(manifest.metrics.items()):
        print(f"  {name:24} {measured:.4g}")
    print("journal")
    for event in registry.journal():
        if event.get("version") == release.version:
            facts = {k: v for k, v in event.items() if k not in {"event", "t", "version"}}
            print(f"  {_when(round(_number(event['t']) * 1e9))}  {event['event']}  {_short(facts)}")
    return 0


def diff(config: ServerConfig, arguments: argparse.Namespace) -> int:
    """Print what two versions differ in."""
    registry = registry_of(config, arguments)
    one, other = (version_of(registry, version) for version in (arguments.one, arguments.other))
    if one.digest == other.digest:
        print("the same, to the last bit")
        return 0
    a, b = one.manifest, other.manifest
    if a.asset_class.digest() != b.asset_class.digest():
        print(f"spec       {a.asset_class.digest()} -> {b.asset_class.digest()}")
    if a.rul_model != b.rul_model:
        print(f"judges     {a.rul_model or '-'} -> {b.rul_model or '-'}")
    for text, names in (
        ("left", set(a.contributors) - set(b.contributors)),
        ("joined", set(b.contributors) - set(a.contributors)),
    ):
        if names:
            print(f"{text:10} {', '.join(sorted(names))}")
    for name in sorted(set(a.contributors) & set(b.contributors)):
        if a.lives.get(name, 0) != b.lives.get(name, 0):
            print(f"lives      {name}: {a.lives.get(name, 0)} -> {b.lives.get(name, 0)}")
    for name in sorted(a.metrics.keys() | b.metrics.keys()):
        before, after = a.metrics.get(name), b.metrics.get(name)
        if before != after:
            told = ["-" if v is None else f"{v:.4g}" for v in (before, after)]
            print(f"metric     {name}: {told[0]} -> {told[1]}")
    for name in sorted(one.arrays.keys() | other.arrays.keys()):
        print_array(name, one, other)
    return 0


def print_array(name: str, one: Release, other: Release) -> None:
    """Print how an array of two releases differs; nothing where it does not."""
    if name not in one.arrays or name not in other.arrays:
        print(f"array      {name}: {'added' if name in other.arrays else 'removed'}")
        return
    a, b = (np.asarray(r.arrays[name], dtype=np.float64) for r in (one, other))
    if a.shape != b.shape:
        print(f"array      {name}: shape {a.shape} -> {b.shape}")
        return
    if not np.array_equal(a, b):
        print(f"array      {name}: {_apart(a, b):.3g} of its size apart")


def _apart(a: Floats, b: Floats) -> float:
    both = np.isfinite(a) & np.isfinite(b)
    length = float(np.linalg.norm(a[both]))
    return float(np.linalg.norm(a[both] - b[both])) / max(length, 1e-300)


def promote(config: ServerConfig, arguments: argparse.Namespace) -> int:
    """Hand an earlier version's models out again."""
    return _restore(config, registry_of(config, arguments), arguments.version)


def rollback(config: ServerConfig, arguments: argparse.Namespace) -> int:
    """Hand out what judged before the version that is handed out."""
    registry = registry_of(config, arguments)
    to = arguments.to
    if to is None:
        current = registry.current()
        manifest = None if current is None else current.manifest
        to = before(registry.asset_class, manifest, lambda number: registry.get(number).manifest)
    return _restore(config, registry, to)


def _restore(config: ServerConfig, registry: Registry, version: int) -> int:
    if version:
        version_of(registry, version)
    with locked(config.folder):
        release = restore(registry, version)
    what = f"version {version}" if version else "each device's own models"
    print(
        f"{what}: handed out as version {release.version}; the running server tells the nodes, and "
        "devices take it without comparing it with what judges"
    )
    return 0


def withdraw(config: ServerConfig, arguments: argparse.Namespace) -> int:
    """Take a node out of the sums, and release what is left."""
    registry = registry_of(config, arguments)
    folder = ledger_folder(config.folder, registry.asset_class)
    with locked(config.folder):
        ledgers = {name: Ledger(folder / name) for name in ("statistics", "ridge")}
        taken = [name for name, ledger in ledgers.items() if ledger.withdraw(arguments.node)]
        if not taken:
            raise RunoutError(f"no contribution of {arguments.node!r} is kept")
        registry.note("withdrawn", time.time(), node=arguments.node, ledgers=taken)
        settings = Settings(
            state=config.folder,
            asset_class=registry.asset_class,
            rounds=1,
            min_nodes=1,
            deadline_s=config.deadline_s,
            interval_s=config.interval_s,
            strategy=config.strategy,
            serve=False,
            guard=config.guard,
        )
        # Nobody is asked: there is no grid, and the running server's status stays its own.
        training = Training(settings, Fleet(None), _Silent())  # type: ignore[arg-type]
        release = training.again()
    print(f"{arguments.node}: taken out of the sums of {', '.join(taken)}")
    if release is None:
        print("what is left makes no model; what was handed out stays until there is another")
        return 1
    kept = ", ".join(release.manifest.contributors)
    print(f"version {release.version}, from {kept}: handed out by the running server")
    return 0


class _Silent(Status):
    def write(self, state: Path, at_s: float) -> None:
        """Leave the file to the server that runs."""


def export(config: ServerConfig, arguments: argparse.Namespace) -> int:
    """Write a version for other runtimes."""
    registry = registry_of(config, arguments)
    release = version_of(registry, arguments.version)
    if arguments.onnx is None and arguments.mlflow is None:
        raise RunoutError("say where to: --onnx FOLDER or --mlflow URI")
    try:
        if arguments.onnx is not None:
            from server import onnx_export  # noqa: PLC0415  # an extra

            for path in onnx_export.write(release, arguments.onnx):
                print(path)
        if arguments.mlflow is not None:
            from server import mlflow_export  # noqa: PLC0415  # an extra

            number = mlflow_export.export(registry, release.version, arguments.mlflow)
            print(f"{arguments.mlflow}: version {number} of {registry.asset_class}")
    except ImportError as error:
        raise RunoutError(
            f"what it needs is not installed ({error}): pip install 'runout[onnx,mlflow]'"
        ) from error
    return 0


def registry_of(config: ServerConfig, arguments: argparse.Namespace) -> Registry:
    """Return the registry that is meant; raises ``RunoutError`` where that is not plain."""
    known = cohorts(config.folder)
    name = arguments.asset_class or config.asset_class
    if not name and len(known) == 1:
        (name,) = known
    if name not in known:
        there = ", ".join(known) or "none yet: no training has ended"
        raise RunoutError(f"--asset-class: say which; there is {there}")
    return Registry(config.folder, name)


def _models_of(release: Release) -> list[str]:
    found = [] if release.health is None else [type(release.manifest.asset_class.health).__name__]
    return [*(name.lower() for name in found), *release.rul, *(["kinds"] if release.kinds else [])]


def _when(at_ns: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_ns / 1e9))


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _short(facts: dict[str, object]) -> str:
    return msgspec.json.encode(facts).decode()[:160]
