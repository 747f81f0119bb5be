"""``runout-server service``: uvicorn with the models in it, and gRPC beside it."""

import signal
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import uvicorn

from contract.config import is_loopback
from contract.errors import ConfigError
from server.config import ServerConfig
from server.scores import open_engine
from server.scores_rest import router_of
from server.service import app_of


def serve(config: ServerConfig) -> int:
    """Serve until a signal ends it."""
    service = config.service
    tls = None if is_loopback(service.host) else config.tls
    token = token_of(service.token_file)
    # uvicorn ends at a signal and then raises it again: what is opened here must be closed first.
    signal.signal(signal.SIGTERM, lambda *_: None)
    with ExitStack() as opened:
        scores = None
        if config.scores is not None or (config.folder / "scores.db").exists():
            engine = open_engine(config)
            opened.callback(engine.dispose)
            scores = router_of(engine)
        if service.grpc:
            port = opened.enter_context(grpc_of(config, token))
            print(f"models over gRPC: {service.grpc.rpartition(':')[0]}:{port}", flush=True)
        print(
            f"models over REST: {'https' if tls else 'http'}://{service.listen}/openapi.json",
            flush=True,
        )
        uvicorn.run(
            app_of(config.folder, service, token, scores),
            host=service.host,
            port=service.port,
            log_level="warning",
            access_log=False,
            server_header=False,
            ssl_certfile=tls.cert if tls else None,
            ssl_keyfile=tls.key if tls else None,
        )
    return 0


def grpc_of(config: ServerConfig, token: str) -> AbstractContextManager[int]:
    """Return what serves gRPC while it is open; raises ``ConfigError`` if it is not installed."""
    try:
        # Here, not above: it is an extra.
        from server.grpc_service import serving  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            f"service.grpc: what it needs is not installed ({error}): pip install 'runout[grpc]'"
        ) from error
    host = config.service.grpc.rpartition(":")[0].strip("[]")
    return serving(config.folder, config.service, token, None if is_loopback(host) else config.tls)


def token_of(path: str) -> str:
    """Return the token in a file's first line; no file, no token.

    Raises:
        ConfigError: it cannot be read, or there is none in it.
    """
    if not path:
        return ""
    try:
        first = Path(path).read_text(encoding="utf-8").partition("\n")[0].strip()
    except OSError as error:
        raise ConfigError(
            f"service.token_file: {path} cannot be read ({error.strerror})"
        ) from error
    if not first:
        raise ConfigError(f"service.token_file: the first line of {path} is empty")
    return first
