"""The connections of an HTTP source: what is checked before a request is delivered, and answers."""

import hmac
import io
import logging
import re
import socket
import socketserver
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qsl, urlsplit

from contract import topics

if TYPE_CHECKING:
    from agent.sources.http import HttpSource

log = logging.getLogger("runout.http")

PATH = "/v1/readings"
FORMATS = {
    "application/json": "json",
    "application/senml+json": "senml+json",
    "application/senml+cbor": "senml+cbor",
    "text/csv": "csv",
}
"""By content type. None of them can a web page send elsewhere without asking first (CORS)."""
_LENGTH = re.compile(r"[0-9]{1,18}")
MOST_NAME = 200
_LINGER_S = 1.0


class Server(ThreadingHTTPServer):
    """Listens, with a bound on the connections.

    Args:
        source: whose configuration it follows, and which requests are delivered to.
    """

    request_queue_size = 64

    def __init__(self, source: "HttpSource") -> None:
        self.source = source
        self._open: set[socket.socket] = set()
        self._changed = threading.Condition()
        if ":" in source.config.host:
            self.address_family = socket.AF_INET6
        super().__init__((source.config.host, source.config.port), _Connection)

    def server_bind(self) -> None:
        """Bind; ``HTTPServer`` would ask a name server for this machine's name."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.source.config.host, self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a connection's thread, or refuse one connection too many."""
        with self._changed:
            crowded = len(self._open) >= self.source.config.connections
            if not crowded:
                self._open.add(request)
        if crowded:
            self.source.note(HTTPStatus.SERVICE_UNAVAILABLE, 0, "too many connections")
            request.setblocking(False)
            try:
                request.sendall(
                    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n"
                    b"Connection: close\r\nContent-Length: 0\r\n\r\n"
                )
            except OSError:
                log.debug("gone before it could be refused")
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        super().shutdown_request(request)
        with self._changed:
            self._open.discard(request)
            self._changed.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Tell of a fault in a connection's thread; the others go on."""
        log.error("a connection's thread failed", exc_info=True)  # noqa: LOG014  # called from an except

    def finish(self, timeout_s: float) -> None:
        """Wait for the connections to end, having told them to read no more."""
        with self._changed:
            for request in self._open:
                try:
                    request.shutdown(socket.SHUT_RD)
                except OSError:
                    log.debug("gone by itself")
            self._changed.wait_for(lambda: not self._open, timeout_s)


class _Hurried(io.RawIOBase):
    """A socket to read from until a deadline: each byte in time is not a request in time."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        self._sock = sock
        self.deadline = 0.0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._sock.settimeout(left)
        return self._sock.recv_into(buffer)


class _Refused(Exception):  # noqa: N818  # an answer, no error of ours
    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


class _Connection(BaseHTTPRequestHandler):
    server: Server
    protocol_version = default_request_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    error_message_format = "%(message)s\n"
    error_content_type = "text/plain; charset=utf-8"

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self._source = self.server.source
        self._raw = _Hurried(self.connection)
        self.rfile = io.BufferedReader(self._raw)

    def handle_one_request(self) -> None:
        self._raw.deadline = time.monotonic() + self._source.config.request_s
        try:
            super().handle_one_request()
        except ConnectionError as error:
            log.debug("connection broken", extra={"error": str(error)})
            self.close_connection = True

    def do_POST(self) -> None:
        size = 0
        try:
            topic = self._topic()
            body = self._body()
            size = len(body)
            status, why = self._source.deliver(topic, body)
        except _Refused as refused:
            self.close_connection = True  # its body is not read
            status, why = refused.status, str(refused)
        self._source.note(status, size, why)
        self._answer(status, why)
        if self.close_connection:
            self._let_talk_out()

    def _let_talk_out(self) -> None:
        """Throw away what still comes: closed at once, the other end would not read the answer."""
        self._raw.deadline = time.monotonic() + _LINGER_S
        left = 4 * self._source.config.max_body
        try:
            self.connection.shutdown(socket.SHUT_WR)
            while left > 0 and (chunk := self.rfile.read1(65536)):
                left -= len(chunk)
        except OSError:  # a TimeoutError among them
            log.debug("closed on one that still talks")

    def _refuse_method(self) -> None:
        try:
            known = self._url().path == PATH
        except _Refused:
            known = False
        status = HTTPStatus.METHOD_NOT_ALLOWED if known else HTTPStatus.NOT_FOUND
        self.close_connection = True
        self._source.note(status, 0, self.command)
        self._answer(status, f"POST to {PATH}")

    do_GET = do_HEAD = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _refuse_method  # noqa: N815

    def _url(self) -> SplitResult:
        try:
            return urlsplit(self.path)
        except ValueError as error:
            raise _Refused(HTTPStatus.BAD_REQUEST, f"no URL: {error}") from error

    def _topic(self) -> str:
        """Check all that can be checked before the body is read; returns where it belongs."""
        url = self._url()
        if url.path != PATH:
            raise _Refused(HTTPStatus.NOT_FOUND, f"POST to {PATH}")
        self._check_token()
        kind = self.headers.get_content_type() if "Content-Type" in self.headers else ""
        if kind not in FORMATS:
            raise _Refused(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Content-Type: one of {', '.join(FORMATS)}"
            )
        if self.headers.get("Content-Encoding", "identity") != "identity":
            raise _Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send it without Content-Encoding")
        asked = parse_qsl(url.query, keep_blank_values=True)
        names = dict(asked)
        if len(names) < len(asked) or not names.keys() <= {"asset", "channel"}:
            raise _Refused(HTTPStatus.BAD_REQUEST, "query: asset and channel, once each")
        try:
            for key, name in names.items():
                topics.check_name(name, key)
                if len(name) > MOST_NAME:
                    raise _Refused(HTTPStatus.BAD_REQUEST, f"{key}: at most {MOST_NAME} letters")
        except ValueError as error:
            raise _Refused(HTTPStatus.BAD_REQUEST, str(error)) from error
        form = FORMATS[kind]
        asset = names.get("asset", "")
        if form == "csv" and not self._source.config.columns:
            raise _Refused(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "this source is configured without csv columns"
            )
        # SenML has names of its own.
        if not asset and (form in {"json", "csv"} or "channel" in names):
            raise _Refused(HTTPStatus.BAD_REQUEST, f"of which asset? {PATH}?asset=pump-1")
        return f"source/{self._source.name}/{form}/{asset}/{names.get('channel', topics.READINGS)}"

    def _check_token(self) -> None:
        wanted = self._source.token
        if not wanted:
            return
        scheme, _, given = self.headers.get("Authorization", "").partition(" ")
        # compare_digest takes as long for a wrong token as for the right one.
        right = hmac.compare_digest(given.strip().encode("latin-1", errors="replace"), wanted)
        if scheme.lower() != "bearer" or not right:
            raise _Refused(HTTPStatus.UNAUTHORIZED, "Authorization: Bearer <token>")

    def _body(self) -> bytes:
        lengths = self.headers.get_all("Content-Length", [])
        if "Transfer-Encoding" in self.headers or not lengths:
            raise _Refused(HTTPStatus.LENGTH_REQUIRED, "send Content-Length, and no chunks")
        if len(lengths) > 1 or not _LENGTH.fullmatch(lengths[0].strip()):
            raise _Refused(HTTPStatus.BAD_REQUEST, "Content-Length is not one number")
        length = int(lengths[0])
        if length > self._source.config.max_body:
            raise _Refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"at most {self._source.config.max_body} bytes in one request",
            )
        try:
            body = self.rfile.read(length)
        except TimeoutError:
            raise _Refused(HTTPStatus.REQUEST_TIMEOUT, "the body did not come in time") from None
        if len(body) < length:
            raise _Refused(HTTPStatus.BAD_REQUEST, f"{len(body)} bytes came in place of {length}")
        return body

    def _answer(self, status: int, why: str) -> None:
        self.connection.settimeout(self._source.config.request_s)  # the answer's own
        text = b"" if self.command == "HEAD" else why.encode(errors="replace") + b"\n"
        self.send_response(status)
        if status == HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", "Bearer")
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "POST")
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            self.send_header("Retry-After", "1")
        if self.close_connection:
            self.send_header("Connection", "close")
        if status == HTTPStatus.NO_CONTENT:
            self.end_headers()
            return
        self.send_header("Content-Type", self.error_content_type)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what the library refused: no HTTP, or too much of it."""
        self._source.note(code, 0, message or "")
        super().send_error(code, message, explain)
        self._let_talk_out()

    def version_string(self) -> str:
        return "runout"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # its name there
        log.debug(format, *args)
