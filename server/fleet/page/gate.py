"""Who may see the page and speak through it: host, password, session, token of a form.

Pure ASGI: what it lets through is streamed as it comes.
"""

import base64
import binascii
import hashlib
import hmac
import ipaddress
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any

import msgspec
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from contract.errors import ConfigError

COOKIE = "runout-fleet"
SESSION_S = 12 * 3600
FAILURES, FAILURES_S = 10, 60.0
"""So many wrong passwords in so long, and none is looked at for a while."""
OPEN = frozenset({"/login", "/healthz"})
"""Paths that ask for no password; and what is below /static/."""

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Session(msgspec.Struct, frozen=True):
    """A visitor.

    Attributes:
        id: that its cookie bears.
        until_s: by ``time.time``.
        allowed: has said the password, or none is asked for.
    """

    id: str
    until_s: int
    allowed: bool


class Gate:
    """Knows the password and signs sessions; their key ends with the process.

    Args:
        password_file: holds the password on its first line; empty: none is asked for.
        names: under which this machine is asked for, beside its addresses and ``localhost``.
        secure: the page speaks HTTPS.
        clock: seconds, for the bound on failures.

    Raises:
        ConfigError: there is no password in the file.
    """

    def __init__(
        self,
        password_file: str,
        names: tuple[str, ...] = (),
        *,
        secure: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.secure = secure
        self.names = frozenset(name.lower() for name in names)
        self._password = _password(password_file)
        self._key = secrets.token_bytes(32)
        self._clock = clock
        self._failures: deque[float] = deque(maxlen=FAILURES)

    @property
    def asks(self) -> bool:
        """Return whether a password is asked for."""
        return bool(self._password)

    # -- passwords ------------------------------------------------------------------------------

    @property
    def patient(self) -> bool:
        """Return whether a password is looked at now."""
        full = len(self._failures) == FAILURES
        return not full or self._clock() - self._failures[0] > FAILURES_S

    def is_password(self, given: str) -> bool:
        """Return whether it is right; after too many wrong ones it is not looked at."""
        if not self.patient:
            return False
        if hmac.compare_digest(given.encode(errors="replace"), self._password):
            return True
        self._failures.append(self._clock())
        return False

    def _is_authorized(self, header: str) -> bool:
        """Return whether a request bears the password: as Bearer, or Basic with any name."""
        scheme, _, given = header.partition(" ")
        if scheme.lower() == "basic":
            try:
                words = base64.b64decode(given.strip(), validate=True).decode()
            except (binascii.Error, UnicodeDecodeError):
                return False
            return self.is_password(words.partition(":")[2])
        return scheme.lower() == "bearer" and self.is_password(given.strip())

    # -- sessions -------------------------------------------------------------------------------

    def new(self, *, allowed: bool) -> Session:
        """Return a session that nobody has had."""
        return Session(secrets.token_urlsafe(18), int(time.time()) + SESSION_S, allowed)

    def cookie(self, session: Session) -> str:
        """Return the header that gives a visitor its session."""
        text = f"{session.id}.{session.until_s}.{int(session.allowed)}"
        secure = "; Secure" if self.secure else ""
        return (
            f"{COOKIE}={text}.{self._sign('session', text)}; Path=/; Max-Age={SESSION_S}; "
            f"HttpOnly; SameSite=Strict{secure}"
        )

    def session(self, headers: Headers) -> Session | None:
        """Return whose request it is; None: nobody's that is known."""
        try:
            morsel = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return None
        text, _, signature = (morsel.value if morsel else "").rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._sign("session", text).encode()):
            return None
        name, until, allowed = text.split(".")
        found = Session(name, int(until), allowed == "1")
        return found if found.until_s > time.time() else None

    def token(self, session: Session) -> str:
        """Return what a form must bear, which a page from elsewhere cannot read."""
        return self._sign("form", session.id)

    def is_token(self, session: Session, given: str) -> bool:
        """Return whether a form bears it."""
        return hmac.compare_digest(given.encode(errors="replace"), self.token(session).encode())

    def _sign(self, what: str, text: str) -> str:
        return hmac.new(self._key, f"{what}\n{text}".encode(), hashlib.sha256).hexdigest()

    # -- at the door ----------------------------------------------------------------------------

    def around(self, app: App) -> App:
        """Return the application behind this gate; ``scope["session"]`` says who it is."""

        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            headers = Headers(scope=scope)
            session = self.session(headers)
            fresh = session is None
            if session is None:
                session = self.new(allowed=not self.asks)
            scope["session"] = session
            refused = self._refuse(scope, headers, session)

            async def with_headers(message: MutableMapping[str, Any]) -> None:
                if message["type"] == "http.response.start":
                    answer = MutableHeaders(scope=message)
                    for name, value in HEADERS.items():
                        answer[name] = value
                    answer.setdefault("Cache-Control", "no-store")
                    if fresh and answer.get("content-type", "").startswith("text/html"):
                        answer.append("Set-Cookie", self.cookie(session))
                await send(message)

            await (refused or app)(scope, receive, with_headers)

        return guarded

    def _refuse(self, scope: Scope, headers: Headers, session: Session) -> Response | None:
        """Return why a request is not answered; None: it is."""
        path: str = scope["path"]
        if not is_own(headers.get("host", ""), self.names):
            return PlainTextResponse("this is not the machine that you asked for\n", 421)
        if scope["method"] not in {"GET", "HEAD"}:
            origin = headers.get("origin")
            if origin is not None and origin.partition("://")[2] != headers.get("host"):
                return PlainTextResponse("a form of another page is not taken\n", 403)
        if session.allowed or path in OPEN or path.startswith("/static/"):
            return None
        if self._is_authorized(headers.get("authorization", "")):
            scope["session"] = msgspec.structs.replace(session, allowed=True)
            return None
        if scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
            return RedirectResponse("/login", 303)
        return PlainTextResponse(
            "the password of fleet.password_file is asked for\n",
            401,
            {"WWW-Authenticate": 'Basic realm="runout", charset="UTF-8"'},
        )


def is_own(host: str, names: frozenset[str]) -> bool:
    """Return whether a Host header may be answered: an address, or a name that is this machine's.

    A stranger's page can let its own name point here (DNS rebinding); it cannot make the browser
    say another name in the header.

    >>> [is_own(h, frozenset({"plant"})) for h in ("127.0.0.1:8780", "[::1]:8780", "Plant", "::1")]
    [True, True, True, True]
    >>> [is_own(h, frozenset()) for h in ("localhost:80", "evil.example", "", "[::1", "a:b:c")]
    [True, False, False, False, False]
    """
    name = host.lower()
    if name.startswith("["):
        name, closed, _ = name[1:].partition("]")
        if not closed:
            return False
    elif name.count(":") == 1:
        name = name.partition(":")[0]
    name = name.rstrip(".")
    if name == "localhost" or name in names:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _password(file: str) -> bytes:
    if not file:
        return b""
    try:
        first = Path(file).read_text(encoding="utf-8").partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"fleet.password_file: {file!r} cannot be read ({error})") from error
    if not first:
        raise ConfigError(f"fleet.password_file: {file!r} has no password on its first line")
    return first.encode()
