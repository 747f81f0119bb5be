"""A small HTTP server for few: bounded connections and time, and no trust in the Host header."""

import io
import ipaddress
import logging
import socket
import socketserver
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

log = logging.getLogger("runout.page")


class Listener(ThreadingHTTPServer):
    """Listens; one connection too many is answered 503.

    Args:
        address: host and port; port 0: a free one.
        connection: answers one connection.
        most: connections at a time.
    """

    request_queue_size = 16

    def __init__(
        self, address: tuple[str, int], connection: type[BaseHTTPRequestHandler], most: int
    ) -> None:
        self._free = threading.BoundedSemaphore(most)
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, connection)

    def server_bind(self) -> None:
        """Bind; ``HTTPServer`` would ask a name server for this machine's name."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a connection's thread, or refuse the connection."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
            return
        request.setblocking(False)
        try:
            request.sendall(
                b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n"
                b"Connection: close\r\nContent-Length: 0\r\n\r\n"
            )
        except OSError:
            log.debug("gone before it could be refused")
        self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer a connection, in a thread of its own."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Tell of a fault in a connection's thread; the others go on."""
        log.error("a connection's thread failed", exc_info=True)  # noqa: LOG014  # called from an except


class Hurried(io.RawIOBase):
    """A socket to read from until a deadline: each byte in time is not a request in time."""

    def __init__(self, sock: socket.socket, seconds: float) -> None:
        super().__init__()
        self._sock = sock
        self._deadline = time.monotonic() + seconds

    def readable(self) -> bool:
        """Return that it is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what there is; raises ``TimeoutError`` after the deadline."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._sock.settimeout(left)
        return self._sock.recv_into(buffer)


def is_own(host: str, names: frozenset[str]) -> bool:
    """Return whether a Host header may be answered: an address, or a name that is this machine's.

    A page of a stranger can let its own name point here (DNS rebinding), and then reads what it
    likes; it cannot make the browser say another name in the header.

    >>> [is_own(h, frozenset({"node-1"})) for h in ("127.0.0.1:8770", "[::1]:8770", "Node-1")]
    [True, True, True]
    >>> [is_own(h, frozenset()) for h in ("localhost:80", "evil.example", "", "[::1", "a:b:c")]
    [True, False, False, False, False]
    """
    if host.startswith("["):
        name, closed, _ = host[1:].partition("]")
        if not closed:
            return False
    else:
        name = host.partition(":")[0] if host.count(":") == 1 else host
    name = name.lower().rstrip(".")
    if name == "localhost" or name in names:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
