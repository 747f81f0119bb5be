"""uvicorn in a thread of its own, on a socket that is bound before it begins."""

import socket
import threading

import uvicorn

from contract.errors import ConfigError
from server.fleet.config import FleetConfig
from server.fleet.page.events import Events
from server.fleet.page.gate import App

PATIENCE_S = 3.0
"""For answers that are on their way at the end."""
BACKLOG = 128
"""Connections that wait to be taken."""


class Listener:
    """Serves an application until it is closed.

    Args:
        app: that answers.
        config: where to listen, and with which certificate.
        events: streams that are to be ended first.

    Raises:
        ConfigError: the address cannot be had, or the certificate is none.
    """

    def __init__(self, app: App, config: FleetConfig, events: Events) -> None:
        self._events = events
        tls = config.tls
        settings = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            ssl_certfile=tls.certificate if tls else None,
            ssl_keyfile=tls.key if tls else None,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=int(PATIENCE_S),
            limit_concurrency=1000,
            proxy_headers=False,
            log_config=None,
        )
        try:
            settings.load()
        except (OSError, ValueError) as error:
            raise ConfigError(f"[fleet.tls]: certificate or key cannot be used: {error}") from error
        family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((config.host, config.port))
        except OSError as error:
            self._socket.close()
            raise ConfigError(
                f"fleet.host, fleet.port: {config.host}:{config.port} cannot be had "
                f"({error.strerror}); choose another port, or 0: a free one"
            ) from error
        host = f"[{config.host}]" if ":" in config.host else config.host
        self.url = f"http{'s' if tls else ''}://{host}:{self._socket.getsockname()[1]}/"
        self._server = uvicorn.Server(settings)
        self._thread = threading.Thread(target=self._serve, name="fleet page", daemon=True)

    def open(self) -> None:
        """Start to answer; who comes at once waits until the thread is there."""
        self._socket.listen(BACKLOG)
        self._thread.start()

    def close(self) -> None:
        """End; safe at any time."""
        self._events.close()
        self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join(2 * PATIENCE_S)
        self._socket.close()

    @property
    def alive(self) -> bool:
        """Return whether it answers."""
        return self._thread.is_alive()

    def _serve(self) -> None:
        self._server.run(sockets=[self._socket])
