"""A regional server before its parent: its ledgers answer as one node, whose nodes get the result.

What all its nodes told, added up, is one contribution; the parent's sum over regions is then the
sum over all nodes, to rounding. The standardisation that ridge sums are computed under is the
parent's: a region pins it and asks its nodes anew, and takes part from the parent's next training
on. What no sum tells, the region does not: a shaped model's directions, and errors on held-out
lives, which its devices measure before a release judges there.
"""

import fcntl
import hashlib
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np

from contract import VERSION, npz
from contract.arrays import Arrays
from contract.errors import ContractError
from contract.model_spec import Ridge
from contract.models.ridge import Basis
from contract.release import Release
from contract.report import Quality
from contract.spec import AssetClass
from contract.update import (
    EVALUATE,
    FIT,
    STATISTICS,
    ClassReadiness,
    Readiness,
    Request,
    Update,
    UpdateHead,
)
from server.merge import Statistics, Told, gram_total, kinds_total
from server.registry import Line, Registry, cohorts
from server.status import REQUEST
from server.training import Cohort, tie_of

log = logging.getLogger("runout.region")

NEVER = 1e300
"""Rows behind a standardisation that is not this server's to renew."""
EPOCHS = "parent_epochs.json"


def readiness(state: Path, name: str) -> Readiness:
    """Return what a region could bring to its parent's training."""
    classes = {}
    epoch = 0
    for asset_class in cohorts(state):
        cohort = Cohort.open(state, asset_class)
        line = cohort.registry.line()
        if line is None:
            continue
        told = cohort.statistics.under(line.digest)
        epoch = max(epoch, _epoch(cohort.registry, STATISTICS, told))
        current = cohort.registry.current()
        lives = sum(key.lives for key in cohort.ridge.under(tie_of(line)).keys)
        live = current.version if current else 0
        classes[asset_class] = ClassReadiness(line.digest, live, lives, 0, Quality())
    return Readiness(VERSION, name, epoch, classes)


def answer(state: Path, name: str, request: Request, arrays: Arrays) -> Update:
    """Answer a parent's question from the ledgers.

    Raises:
        ContractError: the class is not known here, runs another spec, or has no sums yet under
            the parent's standardisation.
    """
    if request.contract != VERSION:
        raise ContractError(
            f"the server speaks contract {request.contract}, this one {VERSION}: update the older"
        )
    cohort, line = _line(state, request)
    spec = line.asset_class
    told = cohort.statistics.under(line.digest)
    if not told.keys:
        raise ContractError(f"no device of {name} has told anything of {spec.name!r} yet")
    if request.phase == STATISTICS:
        reply, keys = _statistics(told, spec), told
    elif request.phase == FIT:
        reply, keys = _fit(state, cohort, line, request, Basis.from_arrays(arrays))
    elif request.phase == EVALUATE:
        reply, keys = {}, told
    else:
        raise ContractError(f"a region does not answer {request.phase!r}: no sum of its tells it")
    head = UpdateHead(
        contract=VERSION,
        phase=request.phase,
        asset_class=spec,
        node=name,
        epoch=_epoch(cohort.registry, request.phase, keys),
        rows=sum(key.rows for key in keys.keys),
        lives=sum(key.lives for key in keys.keys),
        heldout=0,
        live_version=0,
        metrics={},
    )
    return Update(head, reply)


def _line(state: Path, request: Request) -> tuple[Cohort, Line]:
    names = [request.asset_class] if request.asset_class else cohorts(state)
    for name in names:
        if name not in cohorts(state):
            continue
        cohort = Cohort.open(state, name)
        line = cohort.registry.line()
        if line is None:
            continue
        if request.digest and line.digest != request.digest:
            raise ContractError(
                f"asset class {name!r} is configured otherwise in this region: its digest is "
                f"{line.digest}, the parent's {request.digest}"
            )
        if request.trial is not None or line.asset_class.privacy is not None:
            raise ContractError("a region tells no trials, and nothing of a class with privacy")
        return cohort, line
    known = ", ".join(cohorts(state)) or "none"
    raise ContractError(f"this region has no asset class {request.asset_class!r}; it has {known}")


def _epoch(registry: Registry, phase: str, told: Told) -> int:
    """Return a number that grows whenever what is summed is another: also by a withdrawal."""
    words = msgspec.json.encode([(key.node, key.epoch, key.tie) for key in told.keys])
    print_ = hashlib.sha256(words).hexdigest()
    path = registry.folder / EPOCHS
    try:
        known = msgspec.json.decode(path.read_bytes(), type=dict[str, tuple[str, int]])
    except (FileNotFoundError, msgspec.MsgspecError):
        known = {}
    before, epoch = known.get(phase, ("", 0))
    if before == print_:
        return epoch
    # By the clock as well, so that a server whose file was lost does not begin below.
    epoch = max(epoch + 1, int(time.time()))
    npz.write(path, msgspec.json.encode(known | {phase: (print_, epoch)}))
    return epoch


def _statistics(told: Told, spec: AssetClass) -> Arrays:
    total = Statistics.of(told, spec.health)
    if total is None:
        raise ContractError("nothing was told yet")
    reply = {
        **total.basis.arrays("basis/"),
        **total.health.arrays("health/"),
        "health/histogram": total.histogram,
    }
    if spec.faults is not None and (kinds := kinds_total(told, spec.faults)) is not None:
        reply |= kinds.arrays("faults/")
    return reply


def _fit(
    state: Path, cohort: Cohort, line: Line, request: Request, basis: Basis
) -> tuple[Arrays, Told]:
    own = cohort.registry.basis(line)
    if own is None or not _same(own, basis):
        # Not known again as one of its own: the rows behind it are the whole fleet's.
        with _alone(state):
            cohort.registry.pin(msgspec.structs.replace(line, basis_rows=NEVER), basis)
        (state / REQUEST).touch()
        raise ContractError(
            "the standardisation is taken over, and this region's devices are asked anew: it takes "
            "part in the next training"
        )
    told = cohort.ridge.under(tie_of(line))
    reply: Arrays = {}
    for model in line.asset_class.rul:
        if isinstance(model, Ridge):
            total = gram_total(told)
            if total is None:
                raise ContractError("no device has told sums under this standardisation yet")
            if not request.models or "ridge" in request.models:
                reply |= total.arrays("ridge/")
        elif not request.models or "sklearn" in request.models:
            reply |= _weights(cohort.registry, basis)
    return reply, told


def _weights(registry: Registry, basis: Basis) -> Arrays:
    """Return the weights that this region's devices have come to; they count by its rows."""
    release = registry.current()
    if release is None or release.basis is None or not _same(release.basis, basis):
        raise ContractError("no weights under this standardisation yet")
    weights = {n: a for n, a in release.arrays.items() if n.startswith("sklearn/")}
    if not weights:
        raise ContractError("this region has no weights of a network yet")
    return weights


def _same(one: Basis, other: Basis) -> bool:
    if not np.array_equal(one.mean, other.mean) or not np.array_equal(one.scale, other.scale):
        return False
    if one.shape is None or other.shape is None:
        return one.shape is other.shape
    return np.array_equal(one.shape, other.shape)


def take(state: Path, release: Release) -> str:
    """Hand a parent's release to this region's devices, as a version of its own.

    Raises:
        ContractError: it is for a class that is not here, or a training is under way: try again.
    """
    name = release.manifest.asset_class.name
    if name not in cohorts(state):
        raise ContractError(f"this region has no asset class {name!r}")
    registry = Registry(state, name)
    line = registry.line()
    if line is None or line.digest != release.manifest.asset_class.digest():
        raise ContractError(f"asset class {name!r} is configured otherwise in this region")
    came = registry.from_parent()
    if release.digest in came:
        return "delivered"
    with _alone(state):
        current = registry.current()
        manifest = msgspec.structs.replace(
            release.manifest,
            version=registry.next_version(),
            parent=current.version if current else 0,
            created_ns=time.time_ns(),
        )
        own = Release(manifest, release.arrays)
        registry.register(own)
        registry.note(
            "from_parent", time.time(), version=own.version, parent_version=release.version
        )
        registry.keep_from_parent(came | {release.digest: own.version})
    log.info("version %d of the parent is version %d here", release.version, own.version)
    return "delivered"


@contextmanager
def _alone(state: Path) -> Iterator[None]:
    """Hold the state's lock, or raise at once: the parent comes again."""
    with (state / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ContractError("a training of this region is under way: try again") from error
        yield
