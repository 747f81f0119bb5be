"""One local round: answer a server's question from the store and the last checkpoint.

Runs in the node's process, apart from the agent, and touches nothing the agent judges with.
"""

import sqlite3
from pathlib import Path

import msgspec
import numpy as np

from agent.journal import JournalReader
from agent.labels import Life, own_basis
from agent.personal import personal
from agent.privacy import Budget
from agent.prognosis import LocalRul, error_h
from agent.rollout import file_name, live_version
from agent.store import open_readonly, read_checkpoint, read_lives, read_quality
from contract import VERSION, load_model
from contract.arrays import Arrays
from contract.errors import ContractError
from contract.features import FeatureSpec
from contract.model_spec import Ridge, Sklearn
from contract.models.healthy import learnt, nothing
from contract.models.kinds import KindState
from contract.models.kinds import learnt as kinds_of
from contract.models.kinds import nothing as nothing_of_kinds
from contract.models.moments import Moments
from contract.models.ridge import Basis, Gradients, GramSums, first_of, width
from contract.privacy import noisy_gram, noisy_moments, noisy_step
from contract.release import Predictor, Release
from contract.report import Quality
from contract.spec import AssetClass, rul_name
from contract.update import (
    EVALUATE,
    FIT,
    GRADIENTS,
    SHAPE,
    STATISTICS,
    ClassReadiness,
    Offered,
    Readiness,
    Request,
    Update,
    UpdateHead,
)

MOST_ROWS = 200_000


def answer(state: Path, request: Request, arrays: Arrays) -> Update:
    """Answer a request from the agent's state folder.

    Raises:
        ContractError: contract version, asset class or spec disagree, or there is no agent here.
    """
    if request.contract != VERSION:
        raise ContractError(
            f"the server speaks contract {request.contract}, this device {VERSION}: "
            "update the older one"
        )
    db = open_readonly(state)
    try:
        spec = _spec(db, request)
        training = read_lives(db, spec, heldout=False)
        heldout = read_lives(db, spec, heldout=True)
        live = live_version(db, spec.name)
        epoch = JournalReader(state).last
        (node,) = db.execute("SELECT value FROM meta WHERE key = 'node'").fetchone()
    finally:
        db.close()
    metrics: dict[str, float] = {}
    if request.phase == STATISTICS:
        reply = _statistics(state, spec, training)
        if spec.privacy is not None:
            reply = _noisy_statistics(reply, Budget(state, spec))
    elif request.phase in (SHAPE, GRADIENTS):
        reply = _shape(spec, request.phase, training, arrays)
    elif request.phase == FIT:
        reply = _fit(spec, request, training, arrays)
        if spec.privacy is not None:
            reply = _noisy_fit(reply, spec, arrays, Budget(state, spec), bool(training))
    elif request.phase == EVALUATE:
        reply = {}
        if spec.privacy is None:
            metrics = _evaluate(state, spec, live, node, training, heldout, arrays)
    else:
        raise ContractError(f"unknown phase {request.phase!r}")
    head = UpdateHead(
        contract=VERSION,
        phase=request.phase,
        asset_class=spec,
        node=node,
        epoch=epoch,
        rows=sum(len(life.y) for life in training),
        lives=len(training),
        heldout=len(heldout),
        live_version=live,
        metrics=metrics,
    )
    if spec.privacy is not None:
        # How much there was is of the data, too: each device counts one.
        head = msgspec.structs.replace(head, rows=1, lives=1, heldout=0)
    return Update(head, reply)


def readiness(state: Path) -> Readiness:
    """Return what this node could bring to a round, and whether it asks for one.

    Raises:
        ContractError: there is no agent here.
    """
    db = open_readonly(state)
    try:
        epoch = JournalReader(state).last
        (node,) = db.execute("SELECT value FROM meta WHERE key = 'node'").fetchone()
        known = read_quality(db)
        classes = {}
        for (words,) in db.execute("SELECT value FROM meta WHERE key LIKE 'class/%'").fetchall():
            spec = msgspec.json.decode(words, type=AssetClass)
            lives = dict(
                db.execute(
                    "SELECT heldout, COUNT(*) FROM life WHERE asset_class = ? GROUP BY heldout",
                    (spec.name,),
                ).fetchall()
            )
            classes[spec.name] = ClassReadiness(
                spec.digest(),
                live_version(db, spec.name),
                lives.get(0, 0),
                lives.get(1, 0),
                known.get(spec.name, Quality()),
                _offered(db, spec.name),
            )
        site = db.execute("SELECT value FROM meta WHERE key = 'site'").fetchone()
    finally:
        db.close()
    return Readiness(VERSION, node, epoch, classes, "" if site is None else site[0])


def _offered(db: sqlite3.Connection, asset_class: str) -> Offered | None:
    row = db.execute("SELECT value FROM meta WHERE key = ?", (f"offered/{asset_class}",)).fetchone()
    return None if row is None else msgspec.json.decode(row[0], type=Offered)


def _spec(db: sqlite3.Connection, request: Request) -> AssetClass:
    rows = db.execute("SELECT key, value FROM meta WHERE key LIKE 'class/%'").fetchall()
    specs = {key.removeprefix("class/"): value for key, value in rows}
    name = request.asset_class or next(iter(specs), "")
    if name not in specs:
        raise ContractError(
            f"this device has no asset class {name!r}; it has {', '.join(specs) or 'none'}"
        )
    spec = msgspec.json.decode(specs[name], type=AssetClass)
    if request.trial is not None:
        spec = _tried(spec, request.trial)
    if request.digest and spec.digest() != request.digest:
        raise ContractError(
            f"asset class {name!r} is configured otherwise on this device: its digest is "
            f"{spec.digest()}, the fleet's {request.digest}"
        )
    return spec


def _tried(spec: AssetClass, trial: AssetClass) -> AssetClass:
    """Return the class as it is to be tried; it must mean the same vectors."""
    if spec.privacy is not None:
        raise ContractError(
            f"asset class {spec.name!r}: with privacy no models are tried on this device: each "
            "would be told, and counted"
        )
    known = msgspec.structs.replace(trial, rul=spec.rul)
    if known.digest() != spec.digest():
        raise ContractError(
            f"asset class {spec.name!r} is configured otherwise on this device than in the trial, "
            "and not in its models of remaining life alone"
        )
    return msgspec.structs.replace(spec, rul=trial.rul)


def _statistics(state: Path, spec: AssetClass, lives: list[Life]) -> Arrays:
    columns = len(FeatureSpec.of(spec))
    watched = len(FeatureSpec.of(spec).columns(spec.health_stats))
    basis = Moments.empty(columns, diagonal=True)
    for life in lives:
        basis = basis.merge(Moments.of(life.X, diagonal=True))
    health = nothing(spec.health, watched)
    scores = np.zeros(256, dtype=np.int64)
    kinds: KindState | None = None
    try:
        head, saved = read_checkpoint(state / "checkpoint.npz")
    except ContractError:
        head, saved = {}, {}  # none yet, or being replaced: the next round will have it
    digests = head.get("digests")
    if isinstance(digests, dict) and digests.get(spec.name) == spec.digest():
        prefix = f"class/{spec.name}/cohort/"
        # Only what may leave the device: a block that waits to be learnt is no part of it.
        health = learnt(spec.health, saved, prefix + "healthy/")
        scores = np.asarray(saved[prefix + "scores"], dtype=np.int64)
        if spec.faults is not None:
            kinds = kinds_of(spec.faults, saved, f"class/{spec.name}/kinds/state/")
    faults: Arrays = {}
    if spec.faults is not None:
        faults = (kinds or nothing_of_kinds(spec.faults, watched)).arrays("faults/")
    told = {**basis.arrays("basis/"), **health.arrays("health/"), **faults}
    return {**told, "health/histogram": scores}


def _noisy_statistics(exact: Arrays, budget: Budget) -> Arrays:
    """Return statistics as they may leave: of health alone, features have no bound."""
    health = Moments.from_arrays(exact, "health/")
    told = budget.tell(
        STATISTICS,
        health.arrays("health/"),
        lambda rng: noisy_moments(health, budget.privacy, rng).arrays("health/"),
    )
    nothing_of = Moments.empty(len(exact["basis/mean"]), diagonal=True).arrays("basis/")
    return {**nothing_of, **told, "health/histogram": np.zeros_like(exact["health/histogram"])}


def _noisy_fit(
    exact: Arrays, spec: AssetClass, asked: Arrays, budget: Budget, learnt_any: bool
) -> Arrays:
    """Return sums and weights as they may leave."""
    reply: Arrays = {}
    if "ridge/n" in exact:
        sums = GramSums.from_arrays(exact, "ridge/")
        reply |= budget.tell(
            "ridge",
            sums.arrays("ridge/"),
            lambda rng: noisy_gram(sums, spec.cap_h, budget.privacy, rng).arrays("ridge/"),
        )
    weights = {name: a for name, a in exact.items() if name.startswith("sklearn/")}
    model = next((m for m in spec.rul if isinstance(m, Sklearn)), None)
    if weights and learnt_any and model is not None:
        from agent.models.sklearn_adapter import first_weights  # noqa: PLC0415

        start = {name: a for name, a in asked.items() if name.startswith("sklearn/")}
        start = start or first_weights(model, len(FeatureSpec.of(spec)))
        exact_step = {**weights, **{f"from/{name}": a for name, a in start.items()}}
        reply |= budget.tell(
            "sklearn", exact_step, lambda rng: noisy_step(weights, start, budget.privacy, rng)
        )
    return reply


def _shape(spec: AssetClass, phase: str, lives: list[Life], arrays: Arrays) -> Arrays:
    """Answer the two phases that find out along which directions random features look."""
    basis = _basis(arrays)
    models = [model for model in spec.rul if isinstance(model, Ridge) and model.shaping]
    if not models:
        raise ContractError(f"asset class {spec.name!r} has no model that is shaped")
    first = first_of(models[0])
    basis = own_basis(models[0], basis, lives)
    rows = [life.rows for life in lives]
    if phase == SHAPE:
        return GramSums.of_rows(basis, first, rows).arrays("first/")
    coefficients = np.asarray(arrays.get("first/coefficients", ()), dtype=np.float64)
    if coefficients.shape != (width(len(basis.mean), first),):
        raise ContractError("the request for gradients holds no coefficients of the first model")
    return Gradients.of(basis, first, coefficients, rows).arrays("gradients/")


def _basis(arrays: Arrays) -> Basis:
    if "basis/mean" not in arrays or "basis/scale" not in arrays:
        raise ContractError("the request to fit holds no basis")
    return Basis.from_arrays(arrays)


def _fit(spec: AssetClass, request: Request, lives: list[Life], arrays: Arrays) -> Arrays:
    basis = _basis(arrays)
    reply: Arrays = {}
    for model in spec.rul:
        if request.models and rul_name(model) not in request.models:
            continue
        if isinstance(model, Ridge):
            own = own_basis(model, basis, lives)
            sums = GramSums.of_rows(own, model, [life.rows for life in lives])
            reply |= sums.arrays("ridge/")
        elif isinstance(model, Sklearn) and lives:
            # Here and not above: only nodes that train one pay for scikit-learn.
            from agent.models.sklearn_adapter import train  # noqa: PLC0415

            own = own_basis(model, basis, lives)
            Z = own.apply(np.concatenate([life.X for life in lives]))
            y = np.concatenate([life.y for life in lives]) / spec.cap_h
            seed = 1000 * request.round + request.seed
            reply |= train(model, Z[-MOST_ROWS:], y[-MOST_ROWS:], arrays, seed=seed)
    return reply


def _evaluate(
    state: Path,
    spec: AssetClass,
    live: int,
    node: str,
    training: list[Life],
    heldout: list[Life],
    arrays: Arrays,
) -> dict[str, float]:
    if "release" not in arrays:
        raise ContractError("the request to evaluate holds no release")
    candidate = Release.from_bytes(
        np.asarray(arrays["release"], dtype=np.uint8).tobytes(), "release"
    )
    if candidate.manifest.asset_class.digest() != spec.digest():
        raise ContractError("the candidate was trained for another configuration")
    metrics = {"heldout_rows": float(sum(len(life.y) for life in heldout))}
    # Each as it would judge here.
    models: dict[str, Predictor] = dict(candidate.rul)
    for name in candidate.rul:
        mine = personal(candidate, node, training, name)
        if mine is not None:
            models[name] = mine.model
    errors = {name: error_h(model, heldout) for name, model in models.items()}
    own = LocalRul(spec, sklearn=False)
    own.learn(training)
    local = next(iter(own.models.values()), None)
    errors["local"] = None if local is None else error_h(local, heldout)
    errors["live"] = errors["local"]
    if live:
        release = load_model(state / "models" / "releases" / file_name(spec.name, live))
        judging = release.rul.get(release.manifest.rul_model)
        errors["live"] = None if judging is None else error_h(judging, heldout)
    return metrics | {f"rmse/{name}": e for name, e in errors.items() if e is not None}
