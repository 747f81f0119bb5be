"""``runout-agent train`` and ``reproduce``: a model and all that it came of; the same again."""

import argparse
import sys
from pathlib import Path

import msgspec
import numpy as np

from agent.config import AgentConfig, load
from agent.files.chunk import Look
from agent.train import record
from agent.train.fit import Check, fit
from agent.train.source import Gathered, digest_of, gather
from contract.errors import ConfigError, ContractError
from contract.release import load_model
from contract.spec import AssetClass


def class_of(config: AgentConfig, name: str) -> AssetClass:
    """Return the class that is meant; raises ``ConfigError`` where that is not clear."""
    known = {spec.name: spec for spec in config.asset_class}
    if not name and len(known) == 1:
        return next(iter(known.values()))
    if name not in known:
        raise ConfigError(f"--class: say which: {', '.join(known)}")
    return known[name]


def look_of(arguments: argparse.Namespace) -> Look:
    """Return how files are to be read."""
    columns = tuple(name for name in arguments.columns.split(",") if arguments.columns)
    return Look(
        format=arguments.format,
        columns=columns,
        asset=arguments.asset,
        step_s=arguments.step,
        offset=arguments.offset,
    )


def train(arguments: argparse.Namespace) -> int:
    """Train a class from files, or from the agent's store; 1: a check says not to use the model."""
    config = load(arguments.config, arguments.set)
    spec = class_of(config, arguments.asset_class)
    gathered = gather(config, spec, arguments.files, look_of(arguments), sys.stderr)
    release, checks = fit(gathered)
    out = arguments.out
    try:
        release.save(out)
        run = record.here(
            spec, release.digest, arguments.config, config.functions, gathered.origin, checks
        )
        record.write(run, out)
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be written ({error.strerror})") from error
    print("\n".join(told(checks)))
    print(f"{out}: {out.stat().st_size / 1e6:.2f} MB, digest {release.digest[:16]}")
    print(f"{record.path_of(out)}: what it came of")
    return 0 if all(check.good for check in checks) else 1


def told(checks: list[Check]) -> list[str]:
    """Return checks as lines for people."""
    return [f"{'good' if c.good else 'BAD '}  {c.name:22} {c.text}" for c in checks]


def reproduce(arguments: argparse.Namespace) -> int:
    """Train a model anew from what its manifest names; 0: the same to the last bit, 1: not."""
    path: Path = arguments.model
    model, run = load_model(path), record.read(path)
    config = load(arguments.config or Path(run.config), arguments.set)
    differs = _otherwise(run, config, model.digest)
    gathered = gather(
        msgspec.structs.replace(config, asset_class=(run.asset_class,)),
        run.asset_class,
        [Path(file.path) for file in run.origin.files],
        run.origin.look,
        sys.stderr,
    )
    gathered, lost = _as_then(gathered, run)
    if lost:
        raise ContractError(
            f"{path}: lives it was learnt from are not here, or other ones: {', '.join(lost[:5])}"
        )
    again, _ = fit(gathered)
    for line in differs:
        print(f"other  {line}")
    if again.digest == model.digest:
        print(f"{path}: made again, the same to the last bit ({again.digest[:16]})")
        return 0
    print(f"{path}: made again, and another: {again.digest[:16]}, not {model.digest[:16]}")
    for name, array in sorted(model.arrays.items()):
        other = again.arrays.get(name)
        if other is None or other.shape != array.shape:
            print(f"  {name}: of another shape")
        elif not np.array_equal(other, array):
            gap = np.abs(np.asarray(other, np.float64) - np.asarray(array, np.float64)).max()
            print(f"  {name}: differs by {gap:.2g} at most")
    return 1


def _otherwise(run: record.Run, config: AgentConfig, digest: str) -> list[str]:
    """Return in words what is not as it was then."""
    differs = []
    if run.model != digest:
        differs.append("the manifest is of another model")
    for name, version in run.packages.items():
        if (now := record.software()[name]) != version:
            differs.append(f"{name} was {version}, is {now}")
    if run.machine != record.machine():
        differs.append(f"the machine was {run.machine}, is {record.machine()}")
    if run.functions != record.functions_of(config.functions):
        differs.append("the functions of one's own are others")
    changed = [f for f in run.origin.files if digest_of(Path(f.path)) != f.sha256]
    return differs + [f"{file.path} has changed" for file in changed]


def _as_then(gathered: Gathered, run: record.Run) -> tuple[Gathered, list[str]]:
    """Return the lives that were there then, and the names of those that are not any more."""
    known = {(one.asset, one.life): one for one in gathered.origin.lives}
    lost = [
        f"{one.asset}/{one.life}"
        for one in run.origin.lives
        if known.get((one.asset, one.life)) != one
    ]
    wanted = {(one.asset, one.life) for one in run.origin.lives}
    training = [life for life in gathered.training if (life.asset, life.life) in wanted]
    heldout = [life for life in gathered.heldout if (life.asset, life.life) in wanted]
    return Gathered(gathered.spec, training, heldout, gathered.healthy, run.origin), lost
