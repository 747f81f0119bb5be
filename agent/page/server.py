"""The agent's web page, metrics and ``/healthz``: a daemon thread reads the newest snapshot."""

import base64
import binascii
import errno
import hmac
import io
import logging
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import msgspec

from agent import metrics
from agent.config import Web
from agent.page import readings, view
from agent.page.listener import Hurried, Listener, is_own
from agent.snapshot import Snapshot
from contract.config import is_loopback
from contract.errors import ConfigError
from contract.spec import AssetClass

log = logging.getLogger("runout.page")

STALL_S = 5.0
"""A main loop that has not turned for so long is not well."""
PROBE_S = 5.0
"""Whether the store can be written to is tried at most so often."""
PROBE_BYTES = 65536
AGAIN_S = 10.0
REQUEST_S = 5.0
ANSWER_S = 10.0
LOOKED_S, LOOKED_MOST = 10.0, 4
"""For how long an asset that was asked for is looked at, and how many are at once."""

STATIC = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/draw.js": ("draw.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
JSON = "application/json; charset=utf-8"
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_ASSETS = "/v1/assets/"
_encoder = msgspec.json.Encoder()


class Page:
    """Serves what it was last shown.

    Args:
        config: where it listens, and for whom.
        state: folder of the store.
        class_of: returns the class of an asset, whose readings are drawn then; None: of none.
        request_s: a request has come whole by then, or is given up.
        again_s: an address that is taken is tried again after so long.

    Attributes:
        opened: whether it listens now.

    Raises:
        ConfigError: there is no token where the configuration says there is one.
    """

    def __init__(
        self,
        config: Web,
        state: Path,
        class_of: Callable[[str], AssetClass | None] = lambda _: None,
        *,
        request_s: float = REQUEST_S,
        again_s: float = AGAIN_S,
    ) -> None:
        self.config = config
        self.request_s = request_s
        self._again_s = again_s
        self.token = _token(config.token_file)
        self.names = frozenset(name.lower() for name in config.names)
        if not is_loopback(config.host):
            own = socket.gethostname().lower()
            self.names |= {own, f"{own}.local"}
        self.opened = threading.Event()
        self.files = {
            path: (resources.files("agent.page").joinpath("static", name).read_bytes(), kind)
            for path, (name, kind) in STATIC.items()
        }
        self._state = state
        self._class_of = class_of
        self._looked: dict[str, float] = {}
        """When each of the last assets that were opened was asked for; replaced, never changed."""
        self._snapshot: Snapshot | None = None
        self._closing = threading.Event()
        self._listener: Listener | None = None
        self._thread: threading.Thread | None = None
        self._probing = threading.Lock()
        self._probed_s, self._trouble = -PROBE_S, ""
        self._encoded: tuple[Snapshot, tuple[str, ...], bytes] | None = None
        self.problems: tuple[str, ...] = ()
        """What the main thread cannot do, or trust, at present; it sets them."""

    @property
    def port(self) -> int:
        """Return the port it listens at; raises ``RuntimeError`` while it does not."""
        if self._listener is None:
            raise RuntimeError("the page is not open")
        return int(self._listener.server_port)

    def open(self) -> None:
        """Start the thread; an address that is taken is waited for: the agent works without."""
        self._thread = threading.Thread(target=self._serve, name="page", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening; safe at any time."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(2.0)

    def show(self, snapshot: Snapshot) -> None:
        """Show this from here on; called by the main thread."""
        self._snapshot = snapshot

    def looked_at(self) -> Sequence[str]:
        """Return the assets that somebody looks at; called by the main thread."""
        since = time.monotonic() - LOOKED_S
        return [name for name, asked in self._looked.items() if asked > since]

    def _serve(self) -> None:
        said = ""
        while not self._closing.is_set():
            try:
                listener = self._bound()
            except OSError as error:
                if str(error) != said:
                    said = str(error)
                    log.warning(
                        "the page cannot be served yet: choose another web.port, or 0: a free one",
                        extra={"host": self.config.host, "port": self.config.port, "error": said},
                    )
                self._closing.wait(self._again_s)
                continue
            with listener:
                self._listener = listener
                host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
                log.info("page", extra={"url": f"http://{host}:{self.port}/"})
                self.opened.set()
                while not self._closing.is_set():
                    listener.handle_request()
            return

    def _bound(self) -> Listener:
        page = self

        class Connection(_Connection):
            shown = page

        listener = Listener(
            (self.config.host, self.config.port), Connection, self.config.connections
        )
        listener.timeout = 0.25  # after which it looks whether it is to end
        return listener

    # -- in a connection's thread -------------------------------------------------------------

    @property
    def snapshot(self) -> Snapshot | None:
        """Return what it was last shown; None: nothing yet."""
        return self._snapshot

    def status(self, snapshot: Snapshot) -> bytes:
        """Return the whole as JSON, made once for all who ask."""
        troubles = tuple(self.troubles(time.monotonic()))
        made = self._encoded
        if made is None or made[0] is not snapshot or made[1] != troubles:
            body = _encoder.encode({**view.status(snapshot), "troubles": troubles})
            made = self._encoded = snapshot, troubles, body
        return made[2]

    def asset(self, snapshot: Snapshot, name: str) -> dict[str, Any] | None:
        """Return one asset with its plots; None: there is none of this name."""
        told = view.asset(snapshot, name)
        if told is None:
            return None
        now = time.monotonic()
        last = sorted(self._looked.items(), key=lambda one: one[1])[1 - LOOKED_MOST :]
        self._looked = {**dict(last), name: now}
        spec = self._class_of(name)
        if spec is not None:
            found = readings.newest(self._state, name)
            first = [why.channel for why in told["report"].why]
            told["channels"] = readings.channels(found, spec, first)
            told["spectra"] = readings.spectra(found, spec)
        return told

    def troubles(self, now_s: float) -> list[str]:
        """Return why the agent is not well at a time of ``time.monotonic``; empty: it is."""
        snapshot = self._snapshot
        if snapshot is None:
            return ["the agent has only begun: nothing is known yet"]
        found = list(self.problems)
        stalled_s = now_s - snapshot.turned_s
        if stalled_s > STALL_S:
            found.append(f"the main loop has not turned for {stalled_s:.0f} s")
        if not snapshot.broker.alive:
            found.append("the network's thread has ended")
        found += [
            f"a thread of source {source.name} has ended"
            for source in snapshot.sources
            if not source.alive
        ]
        found += [
            f"the thread of channel {channel.name} has ended: no notices are sent"
            for channel in snapshot.channels
            if not channel.alive
        ]
        most_s = self.config.broker_absent_min * 60
        absent_s = snapshot.broker.absent_s + max(0.0, stalled_s)
        if most_s and not snapshot.broker.connected and absent_s > most_s:
            found.append(f"the broker has been absent for {absent_s / 60:.1f} min")
        trouble = self._probe(now_s)
        return [*found, trouble] if trouble else found

    def _probe(self, now_s: float) -> str:
        """Return why the store could not be written to, or nothing; tried now and then."""
        with self._probing:
            if now_s - self._probed_s >= PROBE_S:
                self._probed_s = now_s
                self._trouble = _write_trouble(self._state)
            return self._trouble


def _write_trouble(folder: Path) -> str:
    """Write beside the store, where a full or read-only disk is known by; nothing stays."""
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            file.write(bytes(PROBE_BYTES))
    except OSError as error:
        return f"the store cannot be written to: {os.strerror(error.errno or errno.EIO)}"
    return ""


class _Connection(BaseHTTPRequestHandler):
    shown: Page
    server: Listener
    protocol_version = default_request_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    error_message_format = "%(message)s\n"
    error_content_type = "text/plain; charset=utf-8"

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(Hurried(self.connection, self.shown.request_s))

    def handle(self) -> None:
        self.close_connection = True  # one request each: who keeps a connection, keeps a thread
        try:
            self.handle_one_request()
        except OSError as error:
            log.debug("connection broken", extra={"error": str(error)})

    def do_GET(self) -> None:
        self.close_connection = True
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or not is_own(hosts[0], self.shown.names):
            self._say(HTTPStatus.MISDIRECTED_REQUEST, "this is not the machine that you asked for")
        elif not self._known():
            self._say(HTTPStatus.UNAUTHORIZED, "the token of web.token_file is the password")
        else:
            self._route(self.path.partition("?")[0])

    do_HEAD = do_GET  # noqa: N815

    def _refuse_method(self) -> None:
        self.close_connection = True
        self._say(HTTPStatus.METHOD_NOT_ALLOWED, "GET, or HEAD")

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _refuse_method  # noqa: N815

    def _known(self) -> bool:
        """Return whether the request bears the token: as Bearer, or as password, for browsers."""
        if is_loopback(self.shown.config.host):
            return True
        scheme, _, given = self.headers.get("Authorization", "").partition(" ")
        word = given.strip().encode("latin-1", errors="replace")
        if scheme.lower() == "basic":
            try:
                word = base64.b64decode(word, validate=True).partition(b":")[2]
            except binascii.Error:
                return False
        elif scheme.lower() != "bearer":
            return False
        return hmac.compare_digest(word, self.shown.token)

    def _route(self, path: str) -> None:
        snapshot = self.shown.snapshot
        if path in self.shown.files:
            body, kind = self.shown.files[path]
            self._answer(HTTPStatus.OK, kind, body, cache="no-cache")
        elif path == "/healthz":
            troubles = self.shown.troubles(time.monotonic())
            status = HTTPStatus.SERVICE_UNAVAILABLE if troubles else HTTPStatus.OK
            said = {"well": not troubles, "reasons": troubles}
            self._answer(status, JSON, _encoder.encode(said))
        elif path not in {"/metrics", "/v1/status.json"} and not path.startswith(_ASSETS):
            self._say(HTTPStatus.NOT_FOUND, "there is nothing here")
        elif snapshot is None:
            self._say(HTTPStatus.SERVICE_UNAVAILABLE, "the agent has only begun: ask again")
        elif path == "/metrics":
            well = not self.shown.troubles(time.monotonic())
            body = metrics.exposition(snapshot, healthy=well)
            self._answer(HTTPStatus.OK, metrics.CONTENT_TYPE, body)
        elif path == "/v1/status.json":
            self._answer(HTTPStatus.OK, JSON, self.shown.status(snapshot))
        else:
            name = unquote(path.removeprefix(_ASSETS).removesuffix(".json"))
            found = self.shown.asset(snapshot, name) if path.endswith(".json") else None
            if found is None:
                self._say(HTTPStatus.NOT_FOUND, "there is no asset of this name")
            else:
                self._answer(HTTPStatus.OK, JSON, _encoder.encode(found))

    def _say(self, status: HTTPStatus, text: str) -> None:
        self._answer(status, self.error_content_type, text.encode() + b"\n")

    def _answer(
        self, status: HTTPStatus, kind: str, body: bytes, *, cache: str = "no-store"
    ) -> None:
        self.connection.settimeout(ANSWER_S)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", cache)
        if status == HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", 'Basic realm="runout", charset="UTF-8"')
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def end_headers(self) -> None:
        """End them, with those that every answer bears."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Connection", "close")
        super().end_headers()

    def version_string(self) -> str:
        return "runout"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # its name there
        log.debug(format, *args)


def _token(file: str) -> bytes:
    if not file:
        return b""
    try:
        token = Path(file).read_text(encoding="utf-8").partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"web.token_file: {file!r} cannot be read ({error})") from error
    if not token:
        raise ConfigError(f"web.token_file: {file!r} has no token on its first line")
    return token.encode()
