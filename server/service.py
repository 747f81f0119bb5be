"""Models as a service: the registry's versions over REST, one row or many at a time.

The version and digest that answered stand in every answer. Nothing is learnt or kept of what is
asked.
"""

import hmac
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from contract.arrays import Floats
from contract.errors import ContractError
from contract.features import FeatureSpec
from contract.release import Release
from server.config import Service
from server.registry import Registry, cohorts
from server.wave import for_all

KEPT = 8
"""Versions that are kept ready."""

Row = Annotated[list[FiniteFloat], Field(min_length=1, max_length=20_000)]
Rows = Annotated[list[Row], Field(min_length=1)]
Version = Annotated[int, Field(ge=1, le=10**9)]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: Version | None = Field(None, description="null: the one that is handed out")


class PredictRequest(_Asked):
    """Feature vectors, raw, in the order of ``features``."""

    rows: Rows
    model: Literal["ridge", "sklearn"] | None = Field(None, description="null: the one that judges")


class ScoreRequest(_Asked):
    """Watched features, in deviations of the asset's own beginning, in the order of ``watched``."""

    rows: Rows


class Answered(BaseModel):
    """Which version answered."""

    asset_class: str
    version: int
    digest: str


class Predicted(Answered):
    """Remaining life of each row."""

    model: str
    unit: Literal["h"] = "h"
    remaining_life: list[float]


class Scored(Answered):
    """Anomaly score of each row: 1 is the limit of healthy, higher is worse."""

    scores: list[float]


class Diagnosed(Answered):
    """Share of each kind of fault, by row."""

    kinds: list[str]
    shares: list[list[float]]


class VersionSummary(BaseModel):
    """A version in the registry."""

    version: int
    parent: int
    created_s: float
    contributors: list[str]
    rul_model: str
    metrics: dict[str, float]
    restores: int | None
    handed_out: bool


class ClassSummary(BaseModel):
    """An asset class: what its rows consist of."""

    asset_class: str
    digest: str
    version: int
    features: list[str]
    watched: list[str]
    kinds: list[str]


class Problem(BaseModel):
    """What went wrong, in words."""

    detail: str


class Models:
    """The registry's versions, the newest asked for kept ready."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self._kept: OrderedDict[tuple[str, int], Release] = OrderedDict()
        self._lock = threading.Lock()

    def registry(self, asset_class: str) -> Registry:
        """Return the registry of a class; raises 404."""
        if asset_class not in cohorts(self.state):
            raise HTTPException(404, f"there is no asset class {asset_class!r}")
        return Registry(self.state, asset_class)

    def get(self, asset_class: str, version: int | None) -> Release:
        """Return a version, or the one that is handed out to all; raises 404."""
        registry = self.registry(asset_class)
        if version is None:
            version = for_all(registry.folder, registry.pointed())
        if version is None:
            raise HTTPException(404, f"{asset_class}: no version is handed out yet")
        with self._lock:
            known = self._kept.get((asset_class, version))
            if known is not None:
                self._kept.move_to_end((asset_class, version))
                return known
        if version not in registry.versions():
            raise HTTPException(404, f"{asset_class} has no version {version}")
        try:
            release = registry.get(version)
        except ContractError as error:
            raise HTTPException(404, f"version {version} cannot be used: {error}") from error
        with self._lock:
            self._kept[asset_class, version] = release
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return release


def app_of(
    state: Path, service: Service, token: str = "", scores: APIRouter | None = None
) -> FastAPI:
    """Return the application.

    Args:
        state: the server's folder.
        service: limits.
        token: that callers must bear; empty: none.
        scores: what was scored before, see ``server.scores_rest``; None: nothing was.
    """
    bearer = HTTPBearer(auto_error=False)

    def allowed(
        told: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
    ) -> None:
        given = "" if told is None else told.credentials
        if token and not hmac.compare_digest(given.encode(), token.encode()):
            raise HTTPException(
                401, "a bearer token is asked for", headers={"WWW-Authenticate": "Bearer"}
            )

    said: dict[int | str, dict[str, Any]] = {
        code: {"model": Problem} for code in (400, *((401,) if token else ()), 404, 409, 413, 422)
    }
    app = FastAPI(
        title="Runout models",
        version="1",
        description="Remaining life, anomaly score and kind of fault by the fleet's models.",
        dependencies=[Depends(allowed)] if token else [],
        responses=said,
        # Their pages are fetched from elsewhere; the description itself is at /openapi.json.
        docs_url=None,
        redoc_url=None,
    )
    models = Models(state)
    app.include_router(_about(models))
    app.include_router(_answers(models, service))
    if scores is not None:
        app.include_router(scores)
    app.add_exception_handler(RequestValidationError, _wrong)
    app.add_middleware(_Limited, most_bytes=service.most_bytes)
    return app


async def _wrong(_request: Request, error: Exception) -> JSONResponse:
    """Say what is wrong with a request, without what it held: that may be no JSON, as NaN is."""
    assert isinstance(error, RequestValidationError)  # noqa: S101  # for the type checker
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return JSONResponse({"detail": f"{where}: {first['msg']}"}, 422)


def _about(models: Models) -> APIRouter:
    """Return what says which classes and versions there are."""
    router = APIRouter(prefix="/v1")

    @router.get("/health")
    def health() -> dict[Literal["status"], Literal["ok"]]:
        """Say that the service is there."""
        return {"status": "ok"}

    @router.get("/classes")
    def classes() -> list[ClassSummary]:
        """List the asset classes that have a version handed out."""
        return summaries(models)

    @router.get("/classes/{asset_class}/versions")
    def versions(asset_class: str) -> list[VersionSummary]:
        """List the versions of a class, oldest first."""
        registry = models.registry(asset_class)
        live = for_all(registry.folder, registry.pointed())
        found = []
        for known in registry.all():
            if known.release is None:
                continue
            manifest = known.release.manifest
            found.append(
                VersionSummary(
                    version=known.version,
                    parent=manifest.parent,
                    created_s=manifest.created_ns / 1e9,
                    contributors=list(manifest.contributors),
                    rul_model=manifest.rul_model,
                    metrics=manifest.metrics,
                    restores=manifest.restores,
                    handed_out=known.version == live,
                )
            )
        return found

    @router.get(
        "/classes/{asset_class}/versions/{version}/release",
        response_class=FileResponse,
        responses={200: {"content": {"application/octet-stream": {}}}},
    )
    def release_file(asset_class: str, version: Version) -> FileResponse:
        """Send a version as it is: signed, for ``contract.load_model`` or an agent's inbox."""
        models.get(asset_class, version)
        path = models.registry(asset_class).path(version)
        return FileResponse(path, media_type="application/octet-stream", filename=path.name)

    return router


def summaries(models: Models) -> list[ClassSummary]:
    """Return the asset classes that have a version handed out."""
    found = []
    for name in cohorts(models.state):
        if models.registry(name).pointed() is None:
            continue
        release = models.get(name, None)
        spec = release.manifest.asset_class
        features = FeatureSpec.of(spec)
        found.append(
            ClassSummary(
                asset_class=name,
                digest=spec.digest(),
                version=release.version,
                features=list(features.names),
                watched=[features.names[i] for i in features.columns(spec.health_stats)],
                kinds=[] if spec.faults is None else list(spec.faults.kinds),
            )
        )
    return found


def _answers(models: Models, service: Service) -> APIRouter:
    """Return what the models answer."""
    router = APIRouter(prefix="/v1")

    @router.post("/classes/{asset_class}/predict")
    def predict(asset_class: str, asked: PredictRequest) -> Predicted:
        """Tell remaining life, in hours."""
        release = models.get(asset_class, asked.version)
        return predicted(release, asked.rows, service.most_rows, asked.model or "")

    @router.post("/classes/{asset_class}/score")
    def score(asset_class: str, asked: ScoreRequest) -> Scored:
        """Tell how far from healthy each row is."""
        return scored(models.get(asset_class, asked.version), asked.rows, service.most_rows)

    @router.post("/classes/{asset_class}/diagnose")
    def diagnose(asset_class: str, asked: ScoreRequest) -> Diagnosed:
        """Tell which kind of fault each row looks like."""
        return diagnosed(models.get(asset_class, asked.version), asked.rows, service.most_rows)

    return router


def predicted(
    release: Release, rows: Sequence[Sequence[float]], most: int, model: str = ""
) -> Predicted:
    """Return what a release says of raw feature vectors; raises 404, 409, 413."""
    spec = release.manifest.asset_class
    matrix = _matrix(rows, len(FeatureSpec.of(spec)), most)
    model = model or release.manifest.rul_model
    if model not in release.rul:
        there = ", ".join(release.rul) or "none"
        raise HTTPException(404, f"version {release.version} holds {there}, not {model!r}")
    hours = release.predict(matrix, model)
    return Predicted(**_by(release), model=model, remaining_life=hours.tolist())


def scored(release: Release, rows: Sequence[Sequence[float]], most: int) -> Scored:
    """Return what a release says of watched features; raises 404, 409, 413."""
    matrix = _matrix(rows, _watched(release), most)
    try:
        scores = release.score(matrix)
    except ContractError as error:
        raise HTTPException(404, str(error)) from error
    return Scored(**_by(release), scores=np.nan_to_num(scores).tolist())


def diagnosed(release: Release, rows: Sequence[Sequence[float]], most: int) -> Diagnosed:
    """Return which kinds of faults watched features look like; raises 404, 409, 413."""
    matrix = _matrix(rows, _watched(release), most)
    faults = release.manifest.asset_class.faults
    try:
        shares = release.diagnose(matrix)
    except ContractError as error:
        raise HTTPException(404, str(error)) from error
    kinds = [] if faults is None else list(faults.kinds)
    return Diagnosed(**_by(release), kinds=kinds, shares=shares.tolist())


def _by(release: Release) -> dict[str, Any]:
    name = release.manifest.asset_class.name
    return {"asset_class": name, "version": release.version, "digest": release.digest}


def _watched(release: Release) -> int:
    spec = release.manifest.asset_class
    return len(FeatureSpec.of(spec).columns(spec.health_stats))


def _matrix(rows: Sequence[Sequence[float]], width: int, most: int) -> Floats:
    if len(rows) > most:
        raise HTTPException(413, f"{len(rows)} rows; {most} at most at a time")
    for number, row in enumerate(rows):
        if len(row) != width:
            raise HTTPException(409, f"row {number} has {len(row)} numbers, not {width}")
    return np.asarray(rows, dtype=np.float64)


Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class _Limited:
    """Answers 413 to a body that is too large, as soon as that is known."""

    def __init__(
        self, app: Callable[[Scope, Receive, Send], Awaitable[None]], most_bytes: int
    ) -> None:
        self._app = app
        self._most = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = bytearray()
        while True:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > self._most:
                await _refuse(send, self._most)
                return
            if not message.get("more_body", False):
                break
        told = False

        async def again() -> MutableMapping[str, Any]:
            nonlocal told
            if told:
                return await receive()
            told = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        await self._app(scope, again, send)


async def _refuse(send: Send, most: int) -> None:
    body = f'{{"detail": "a request has {most} bytes at most"}}'.encode()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": body})
