"""The models over gRPC: what ``server.service`` answers over REST; health and reflection beside it.

Needs ``runout[grpc]``. Limits, token and TLS are those of the REST service.
"""

import hmac
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from fastapi import HTTPException
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from contract.errors import ConfigError
from server.config import Service, Tls
from server.grpc_schema import METHODS, SERVICE, message
from server.service import Models, diagnosed, predicted, scored, summaries

WORKERS = 8
MOST_CALLS = 64
"""At once, those that wait for their turn included; more are refused with RESOURCE_EXHAUSTED."""
GRACE_S = 5.0
ASKED_FREELY = "/grpc.health.v1.Health/Check"
_CODES = {
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.INVALID_ARGUMENT,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
}


class _Answers:
    """One method for each of the service's."""

    def __init__(self, models: Models, most_rows: int) -> None:
        self._models = models
        self._most = most_rows

    def classes(self, _asked: Any) -> Any:
        told = message("ClassesReply")()
        for one in summaries(self._models):
            # There, `digest` is the spec's; in an answer it is the release's.
            release = self._models.get(one.asset_class, one.version)
            told.classes.add(
                asset_class=one.asset_class,
                version=one.version,
                digest=release.digest,
                features=one.features,
                watched=one.watched,
                kinds=one.kinds,
            )
        return told

    def predict(self, asked: Any) -> Any:
        told = predicted(self._release(asked), self._rows(asked), self._most, asked.model)
        return message("PredictReply")(
            **_by(told), model=told.model, remaining_life_h=told.remaining_life
        )

    def score(self, asked: Any) -> Any:
        told = scored(self._release(asked), self._rows(asked), self._most)
        return message("ScoreReply")(**_by(told), scores=told.scores)

    def diagnose(self, asked: Any) -> Any:
        told = diagnosed(self._release(asked), self._rows(asked), self._most)
        reply = message("DiagnoseReply")(**_by(told), kinds=told.kinds)
        for shares in told.shares:
            reply.shares.add(values=shares)
        return reply

    def _release(self, asked: Any) -> Any:
        return self._models.get(asked.asset_class, asked.version or None)

    def _rows(self, asked: Any) -> list[list[float]]:
        rows = [list(row.values) for row in asked.rows]
        if not rows:
            raise HTTPException(409, "rows: give one at least")
        for number, row in enumerate(rows):
            if not np.isfinite(row).all():
                raise HTTPException(409, f"row {number} holds a number that is not finite")
        return rows


def _by(told: Any) -> dict[str, Any]:
    return {"asset_class": told.asset_class, "version": told.version, "digest": told.digest}


def _handler(answer: Callable[[Any], Any], asked: str, told: str) -> grpc.RpcMethodHandler:
    def handle(request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return answer(request)
        except HTTPException as error:
            code = _CODES.get(error.status_code, grpc.StatusCode.INTERNAL)
            context.abort(code, str(error.detail))

    return grpc.unary_unary_rpc_method_handler(
        handle,
        request_deserializer=message(asked).FromString,
        response_serializer=message(told).SerializeToString,
    )


class _Bearer(grpc.ServerInterceptor):  # type: ignore[misc]  # no types are shipped
    """Refuses calls without the token; whether the service is there may be asked by anyone.

    Asked once: who watches it stays, and must have the token.
    """

    def __init__(self, token: str) -> None:
        self._wanted = f"Bearer {token}".encode()

        def refuse(_request: Any, context: grpc.ServicerContext) -> None:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "a bearer token is asked for")

        # What is refused before it is read may be of any kind.
        self._refuse = grpc.stream_stream_rpc_method_handler(refuse)

    def intercept_service(self, go_on: Callable[..., Any], call: grpc.HandlerCallDetails) -> Any:
        given = dict(call.invocation_metadata).get("authorization", "")
        given = given.encode() if isinstance(given, str) else given
        if call.method == ASKED_FREELY or hmac.compare_digest(given, self._wanted):
            return go_on(call)
        return self._refuse


@contextmanager
def serving(state: Path, service: Service, token: str, tls: Tls | None) -> Iterator[int]:
    """Serve while the context is open; yields the port.

    Raises:
        ConfigError: the address cannot be listened on.
    """
    options = [
        ("grpc.max_receive_message_length", service.most_bytes),
        ("grpc.so_reuseport", 0),
    ]
    interceptors = [_Bearer(token)] if token else []
    server = grpc.server(
        ThreadPoolExecutor(WORKERS, thread_name_prefix="grpc"),
        interceptors=interceptors,
        options=options,
        maximum_concurrent_rpcs=MOST_CALLS,
    )
    answers = _Answers(Models(state), service.most_rows)
    handlers = {
        name: _handler(getattr(answers, name.lower()), asked, told)
        for name, (asked, told) in METHODS.items()
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    well = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(well, server)
    names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    try:
        if tls is None:
            port = server.add_insecure_port(service.grpc)
        else:
            files = (Path(tls.key).read_bytes(), Path(tls.cert).read_bytes())
            port = server.add_secure_port(service.grpc, grpc.ssl_server_credentials([files]))
    except RuntimeError as error:
        raise ConfigError(f"service.grpc: {service.grpc} cannot be listened on") from error
    for name in ("", SERVICE):
        well.set(name, health_pb2.HealthCheckResponse.SERVING)
    server.start()
    try:
        yield int(port)
    finally:
        well.enter_graceful_shutdown()
        server.stop(GRACE_S).wait()
