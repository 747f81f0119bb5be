"""The command ``runout-agent explain``: why an alert was raised, recomputed."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from agent.batch import Batch, Swap
from agent.config import AgentConfig, load
from agent.evidence import find, package
from agent.evidence.account import Account, account
from agent.evidence.find import Burst, Found
from agent.evidence.lives import KnownLives, known
from agent.evidence.recompute import Recomputed, recompute
from agent.evidence.record import Evidence, function_digests
from agent.evidence.words import in_words
from agent.rollout import file_name
from agent.store import open_readonly
from contract import npz
from contract.arrays import Arrays
from contract.errors import ConfigError, ContractError
from contract.release import Release
from contract.report import Alert, Health


def command(arguments: argparse.Namespace) -> int:
    """Run it; returns 0: the same to the last bit, 1: not the same, or it cannot be recomputed."""
    if (arguments.package is None) == (arguments.config is None):
        raise ConfigError("say either --config FILE of the agent, or --from FILE.zip of a package")
    if arguments.package is not None:
        if arguments.alert is not None:
            raise ConfigError("a package holds one alert: leave out which, or --from")
        told = from_package(arguments.package, arguments.functions)
    else:
        if arguments.functions is not None:
            raise ConfigError("--functions goes with --from; else the configuration names them")
        told = explain(load(arguments.config, arguments.set), arguments.alert or "last").account
    print(as_json(told) if arguments.json else in_words(told))
    return 0 if told.same else 1


def as_json(told: Account) -> str:
    """Return one JSON object."""
    return msgspec.json.encode(told).decode()


class Explained(NamedTuple):
    """An alert, and all that its account was made from.

    Attributes:
        account: of it.
        found: in the store.
        again: what was recomputed, or None.
        lives: finished lives that were needed.
        releases: that were needed, by the name of their files.
    """

    account: Account
    found: Found
    again: Recomputed | None
    lives: KnownLives
    releases: dict[str, Release]


def explain(config: AgentConfig, text: str) -> Explained:
    """Explain an alert from the store of an agent, that may be running.

    Args:
        config: of the agent.
        text: the alert's id, an asset's name, or ``last``.

    Raises:
        ContractError: there is no store, or no such alert; names the nearest.
    """
    db = open_readonly(config.state)
    try:
        found = find.find(db, config, text)
        if found.evidence is None and not found.kept:
            # The agent may just have taken it away from where it was looked for, into its keeping.
            found = find.find(db, config, found.alert.id)
        lives, again, lost = KnownLives([]), None, ""
        releases: dict[str, Release] = {}
        if found.evidence is not None:
            try:
                head = found.evidence.head
                _check_functions(found.evidence, Path(config.functions))
                if head.lives is not None:
                    lives = known(db, head.setting.asset_class, head.lives)
                finder = _noting(find.release_finder(config.state), releases)
                again = recompute(found.evidence, config.functions, lives, finder)
            except ContractError as error:
                lost = str(error)
    finally:
        db.close()
    if again is not None:
        found = found._replace(bursts=found.bursts or _journalled(found, again))
    return Explained(account(found, again, lost), found, again, lives, releases)


def _noting(
    finder: Callable[[Swap], Release], releases: dict[str, Release]
) -> Callable[[Swap], Release]:
    def find_release(swap: Swap) -> Release:
        release = finder(swap)
        releases[file_name(swap.asset_class, swap.version)] = release
        return release

    return find_release


def _check_functions(evidence: Evidence, folder: Path) -> None:
    setting = evidence.head.setting
    here = function_digests(setting.asset_class, folder)
    other = [name for name, digest in setting.functions.items() if here[name] != digest]
    if other:
        raise ContractError(
            f"{folder}: {', '.join(f'{name}.py' for name in other)} is not the one that was in "
            "force when the alert was raised"
        )


def _journalled(found: Found, again: Recomputed) -> list[Burst]:
    """Return the last bursts before an alert that the journal holds with their samples."""
    if found.evidence is None or again.sight is None:
        return []
    waves = found.evidence.head.setting.asset_class.waveforms
    newest: dict[int, Burst] = {}
    for _, body in found.evidence.batches:
        for shot in Batch.decode(body).shots:
            if (
                shot.asset == found.alert.asset
                and shot.t_ns <= again.sight.t_ns
                and len(shot.samples)
            ):
                name = waves[shot.wave].name
                newest[shot.wave] = Burst(name, shot.t_ns, 0, np.empty(0), shot.samples)
    return [newest[wave] for wave in sorted(newest)]


# -- from a package -------------------------------------------------------------------------------


class Beside(msgspec.Struct, frozen=True):
    """What a package says of an alert beside its evidence.

    Attributes:
        alert: as it was said.
        returned: see ``agent.evidence.find.Found``.
        kept: see there.
        health: see there.
    """

    alert: Alert
    returned: float | None
    kept: bool
    health: Health | None


def from_package(path: Path, functions: Path | None = None) -> Account:
    """Recompute an alert from a package alone.

    Args:
        path: of the package.
        functions: folder of the class's own functions, which are run.

    Raises:
        ContractError: it is no whole package, or its class calls functions and no folder is given.
    """
    packed = package.read(path)
    evidence = Evidence.from_bytes(packed.member("evidence.npz"), f"{path}: evidence.npz")
    try:
        beside = msgspec.json.decode(packed.member("alert.json"), type=Beside)
    except msgspec.MsgspecError as error:
        raise ContractError(f"{path}: alert.json cannot be read ({error})") from error
    if evidence.head.setting.functions and functions is None:
        raise ContractError(
            f"{path}: its class calls functions of the user's own, in functions/ of the package: "
            "unpack and read them, then give their folder by --functions"
        )
    if functions is not None:
        _check_functions(evidence, functions)
    lives = KnownLives([])
    if evidence.head.lives is not None:
        lives = KnownLives.from_bytes(packed.member("lives.npz"), f"{path}: lives.npz")

    def find_release(swap: Swap) -> Release:
        name = f"releases/{package.plain(file_name(swap.asset_class, swap.version))}"
        release = Release.from_bytes(packed.member(name), f"{path}: {name}")
        if release.digest != swap.digest:
            raise ContractError(f"{path}: {name} is not the release that judged")
        return release

    again = recompute(evidence, str(functions or ""), lives, find_release)
    found = Found(
        alert=beside.alert,
        copy=evidence.head.alert,
        evidence=evidence,
        lost="",
        kept=beside.kept,
        returned=beside.returned,
        health=beside.health,
        bursts=_bursts(packed),
    )
    told = account(found, again, "")
    _, expected = npz.from_bytes(packed.member("expected.npz"), f"{path}: expected.npz")
    now: Arrays = {} if again.sight is None else again.sight.arrays()
    drift = apart(expected, now)
    same = told.same and not drift
    return msgspec.structs.replace(told, same=same, drift=drift)


def apart(then: Arrays, now: Arrays) -> dict[str, float]:
    """Return where numbers differ, and by how much of their value at most.

    >>> apart({"score": np.array([2.0, 4.0])}, {"score": np.array([2.0, 4.0 + 2**-50])})
    {'score': 2.220446049250313e-16}
    >>> apart({"score": np.array([2.0, np.nan])}, {"score": np.array([2.0, np.nan])})
    {}
    """
    found = {}
    for name in sorted({*then, *now}):
        a, b = (
            np.asarray(arrays.get(name, np.empty(0)), dtype=np.float64) for arrays in (then, now)
        )
        if a.shape != b.shape:
            found[name] = float("inf")
        elif a.tobytes() != b.tobytes():
            with np.errstate(invalid="ignore", divide="ignore"):
                by = np.abs(b - a) / np.maximum(np.abs(a), np.finfo(np.float64).tiny)
            by = by[~((a == b) | (np.isnan(a) & np.isnan(b)))]
            if len(by):
                found[name] = float(np.nan_to_num(by, nan=np.inf).max())
    return found


def _bursts(packed: package.Package) -> list[Burst]:
    found = []
    for name, content in sorted(packed.members.items()):
        if name.startswith("bursts/") and name.endswith(".npz"):
            head, arrays = npz.from_bytes(content, name)
            try:
                wave, t_ns, reason = msgspec.json.decode(head, type=tuple[str, int, int])
                features = np.asarray(arrays["features"], dtype=np.float64)
                samples = np.asarray(arrays["samples"], dtype=np.float32)
            except (msgspec.MsgspecError, KeyError, ValueError) as error:
                raise ContractError(f"{name}: this is no burst ({error})") from error
            found.append(Burst(wave, t_ns, reason, features, samples))
    return found
