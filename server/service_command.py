"""``runout-server service``: uvicorn with the models in it."""

from pathlib import Path

import uvicorn

from contract.config import is_loopback
from contract.errors import ConfigError
from server.config import ServerConfig
from server.service import app_of


def serve(config: ServerConfig) -> int:
    """Serve until a signal ends it."""
    service = config.service
    tls = None if is_loopback(service.host) else config.tls
    app = app_of(config.folder, service, token_of(service.token_file))
    print(
        f"models over REST: {'https' if tls else 'http'}://{service.listen}/openapi.json",
        flush=True,
    )
    uvicorn.run(
        app,
        host=service.host,
        port=service.port,
        log_level="warning",
        access_log=False,
        server_header=False,
        ssl_certfile=tls.cert if tls else None,
        ssl_keyfile=tls.key if tls else None,
    )
    return 0


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
