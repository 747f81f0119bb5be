"""The page's addresses: what is asked, checked, answered; and what people say, sent to agents."""

import secrets
import time
from collections.abc import Callable
from contextlib import asynccontextmanager
from importlib import resources
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, unquote

import msgspec
from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route

from contract import topics
from contract.errors import RunoutError
from contract.report import Acknowledge, Verdict
from server.fleet.federation import Federation
from server.fleet.page import devices, layout, machine, machines, rounds
from server.fleet.page.curves import SPANS
from server.fleet.page.events import Events
from server.fleet.page.gate import App, Gate, Session
from server.fleet.page.layout import Visit
from server.fleet.query import Filter, Query
from server.fleet.store import Place, first_line

MOST_BODY = 16_384
STATIC = {
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
SAID = {
    "acknowledged": "Sent: the device is told that somebody has seen it.",
    "verdict": "Sent: the device learns from what you found.",
    "restored": "Done: it is handed out; the running server tells the devices.",
    "round": "Asked for: a training begins when enough devices are there.",
}
NAME = "runout-name"


class Parts(NamedTuple):
    """What the page is made of.

    Attributes:
        query: the fleet's table.
        federation: the server's state folder.
        gate: who may see it.
        events: tells open pages of news.
        say: publishes a word to an agent; raises ``RunoutError``.
        note: keeps what is said, by whom, before it is.
        forget: takes that back.
        troubles: what is wrong with the server, in sentences.
        metrics: for Prometheus.
    """

    query: Query
    federation: Federation
    gate: Gate
    events: Events
    say: Callable[[str, bytes], None]
    note: Callable[[str, Place, str, str], None]
    forget: Callable[[str], None]
    troubles: Callable[[], list[str]]
    metrics: Callable[[], bytes]


def app_of(parts: Parts) -> App:
    """Return the application."""
    site = _Site(parts)
    routes = [
        Route("/", site.machines),
        Route("/machine", site.machine),
        Route("/machine/acknowledge", site.acknowledge, methods=["POST"]),
        Route("/machine/verdict", site.verdict, methods=["POST"]),
        Route("/devices", site.devices),
        Route("/federation", site.rounds),
        Route("/federation/round", site.ask, methods=["POST"]),
        Route("/federation/promote", site.promote, methods=["POST"]),
        Route("/federation/rollback", site.rollback, methods=["POST"]),
        Route("/login", site.login, methods=["GET", "POST"]),
        Route("/logout", site.logout, methods=["POST"]),
        Route("/events", site.events),
        Route("/healthz", site.healthz),
        Route("/metrics", site.metrics),
        *(Route(f"/static/{name}", _static(name, kind)) for name, kind in STATIC.items()),
    ]

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> Any:
        parts.events.begin()
        yield

    handlers: Any = {SQLAlchemyError: _broken, RunoutError: _refused}
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers)
    return parts.gate.around(app)


def _static(name: str, kind: str) -> Callable[[Request], Response]:
    body = resources.files("server.fleet.page").joinpath("static", name).read_bytes()

    def answer(_request: Request) -> Response:
        return Response(body, media_type=kind, headers={"Cache-Control": "no-cache"})

    return answer


async def _broken(_request: Request, error: Exception) -> Response:
    assert isinstance(error, SQLAlchemyError)  # noqa: S101  # for the type checker
    return PlainTextResponse(f"the fleet's table cannot be read: {first_line(error)}\n", 503)


async def _refused(_request: Request, error: Exception) -> Response:
    return PlainTextResponse(f"{error}\n", 503)


class _RefusedError(Exception):
    """A form that is not taken: ``args`` are its status and the reason."""


class _Site:
    """Answers requests; ``def`` ones in a thread of their own."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def _visit(self, request: Request) -> Visit:
        session: Session = request.scope["session"]
        return Visit(
            session,
            self._parts.gate.token(session),
            unquote(request.cookies.get(NAME, ""))[:64],
            time.time(),
            self._parts.troubles(),
            self._parts.gate.asks and session.allowed,
            SAID.get(request.query_params.get("said", ""), ""),
        )

    # -- looking ----------------------------------------------------------------------------

    def machines(self, request: Request) -> Response:
        asked = Filter.of(dict(request.query_params))
        return HTMLResponse(machines.fleet(self._visit(request), self._parts.query, asked))

    def machine(self, request: Request) -> Response:
        names = (request.query_params.get(name, "") for name in ("site", "node", "asset"))
        seen = self._parts.query.machine(*names)
        visit = self._visit(request)
        if seen is None:
            return HTMLResponse(machines.unknown(visit), 404)
        span = request.query_params.get("span", "all")
        span = span if span in SPANS else "all"
        every = request.query_params.get("features") == "all"
        return HTMLResponse(machine.machine(visit, self._parts.query, seen, span, every=every))

    def devices(self, request: Request) -> Response:
        page = Filter.of({"page": request.query_params.get("page", "1")}).page
        return HTMLResponse(devices.devices(self._visit(request), self._parts.query, page))

    def rounds(self, request: Request) -> Response:
        drifting = self._parts.query.drifting(time.time())
        return HTMLResponse(rounds.rounds(self._visit(request), self._parts.federation, drifting))

    async def events(self, _request: Request) -> Response:
        if self._parts.events.full:
            return PlainTextResponse("too many pages are open\n", 503)
        return StreamingResponse(
            self._parts.events.stream(),
            media_type="text/event-stream",
            headers={"X-Accel-Buffering": "no"},
        )

    def healthz(self, request: Request) -> Response:
        troubles = self._parts.troubles()
        allowed = request.scope["session"].allowed
        said = {"well": not troubles, "reasons": troubles if allowed else []}
        return JSONResponse(said, 503 if troubles else 200)

    def metrics(self, _request: Request) -> Response:
        kind = "text/plain; version=0.0.4; charset=utf-8"
        return Response(self._parts.metrics(), headers={"Content-Type": kind})

    # -- speaking ---------------------------------------------------------------------------

    async def acknowledge(self, request: Request) -> Response:
        return await self._speak(request, self._acknowledge)

    async def verdict(self, request: Request) -> Response:
        return await self._speak(request, self._judge)

    async def ask(self, request: Request) -> Response:
        return await self._speak(request, self._ask)

    async def promote(self, request: Request) -> Response:
        return await self._speak(request, self._promote)

    async def rollback(self, request: Request) -> Response:
        return await self._speak(request, self._roll_back)

    async def _speak(
        self, request: Request, do: Callable[[dict[str, str]], tuple[str, dict[str, str]]]
    ) -> Response:
        """Take a form, do what it says in a thread, and lead back to where it came from."""
        try:
            fields = await self._form(request)
            path, values = await run_in_threadpool(do, fields)
        except _RefusedError as refused:
            status, reason = refused.args
            return PlainTextResponse(f"{reason}\n", status)
        except msgspec.ValidationError as error:
            return PlainTextResponse(f"{error}\n", 422)
        answer = RedirectResponse(layout.address(path, values), 303)
        if fields.get("by"):
            answer.set_cookie(
                NAME,
                quote(fields["by"][:64]),
                max_age=365 * 86_400,
                httponly=True,
                samesite="strict",
                secure=self._parts.gate.secure,
            )
        return answer

    async def _form(self, request: Request) -> dict[str, str]:
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > MOST_BODY:
                raise _RefusedError(413, f"a form has {MOST_BODY} bytes at most")
        try:
            fields = dict(parse_qsl(body.decode(), max_num_fields=20, errors="strict"))
        except (UnicodeDecodeError, ValueError) as error:
            raise _RefusedError(422, "the form cannot be read") from error
        if not self._parts.gate.is_token(request.scope["session"], fields.get("token", "")):
            raise _RefusedError(
                403, "this form is of an earlier visit: go back, load the page again and repeat"
            )
        return fields

    def _acknowledge(self, fields: dict[str, str]) -> tuple[str, dict[str, str]]:
        alert = fields.get("alert", "")
        word = Acknowledge(alert=alert, by=fields.get("by", ""), ref=_ref())
        self._tell(fields, topics.COMMAND, word, "acknowledged")
        return self._back(fields, "acknowledged")

    def _judge(self, fields: dict[str, str]) -> tuple[str, dict[str, str]]:
        told = {
            "verdict": fields.get("verdict", ""),
            "alert": fields.get("alert", ""),
            "fault": fields.get("fault", "").strip(),
            "note": fields.get("note", "").strip(),
            "by": fields.get("by", ""),
            "ref": _ref(),
        }
        word = msgspec.convert(told, Verdict)
        found = {
            "confirmed": "found a fault",
            "false_alarm": "found a false alarm",
            "not_found": "found nothing",
        }[word.verdict]
        what = f"{found}{f' ({word.fault})' if word.fault else ''}"
        self._tell(fields, topics.VERDICT, word, what)
        return self._back(fields, "verdict")

    def _tell(
        self, fields: dict[str, str], leaf: str, word: Acknowledge | Verdict, what: str
    ) -> None:
        site, node, asset = (fields.get(name, "") for name in ("site", "node", "asset"))
        if self._parts.query.machine(site, node, asset) is None:
            raise _RefusedError(404, "there is no such machine")
        body = msgspec.json.encode(word)
        msgspec.json.decode(body, type=type(word))  # lengths, as the agent will hold them
        self._parts.note(word.ref, (site, node, asset), word.by, what)
        try:
            self._parts.say(topics.asset_topic(site, node, asset, leaf), body)
        except RunoutError:
            self._parts.forget(word.ref)
            raise
        self._parts.events.changed()

    @staticmethod
    def _back(fields: dict[str, str], said: str) -> tuple[str, dict[str, str]]:
        names = {name: fields.get(name, "") for name in ("site", "node", "asset")}
        return "/machine", names | {"said": said}

    def _ask(self, _fields: dict[str, str]) -> tuple[str, dict[str, str]]:
        self._parts.federation.ask_for_training()
        self._parts.events.changed()
        return "/federation", {"said": "round"}

    def _promote(self, fields: dict[str, str]) -> tuple[str, dict[str, str]]:
        version = fields.get("version", "")
        if not (version.isascii() and version.isdecimal() and int(version)):
            raise _RefusedError(422, "which version is not said")
        return self._restore(fields, int(version))

    def _roll_back(self, fields: dict[str, str]) -> tuple[str, dict[str, str]]:
        name = fields.get("asset_class", "")
        found = next((one for one in self._parts.federation.cohorts() if one.name == name), None)
        if found is None or found.before is None:
            raise _RefusedError(409, f"there is nothing to go back to for class {name!r}")
        if fields.get("version") != str(found.before):
            raise _RefusedError(409, "another version was handed out meanwhile: look again")
        return self._restore(fields, found.before)

    def _restore(self, fields: dict[str, str], version: int) -> tuple[str, dict[str, str]]:
        if not self._parts.gate.asks:
            raise _RefusedError(
                403, "what judges is changed only where a password is asked: fleet.password_file"
            )
        by = fields.get("by", "").strip()[:64]
        self._parts.federation.restore(fields.get("asset_class", ""), version, by)
        self._parts.events.changed()
        return "/federation", {"said": "restored"}

    # -- at the door ------------------------------------------------------------------------

    async def login(self, request: Request) -> Response:
        gate = self._parts.gate
        visit = self._visit(request)
        if not gate.asks or visit.session.allowed:
            return RedirectResponse("/", 303)
        if request.method == "GET":
            return HTMLResponse(layout.login(visit, ""))
        try:
            fields = await self._form(request)
        except _RefusedError as refused:
            status, reason = refused.args
            return HTMLResponse(layout.login(visit, reason), status)
        if not gate.patient:
            return HTMLResponse(layout.login(visit, "Too many wrong ones: wait a minute."), 429)
        if not gate.is_password(fields.get("password", "")):
            return HTMLResponse(layout.login(visit, "That is not the password."), 403)
        answer = RedirectResponse("/", 303)
        # Another session than the one before: who knew that one is not let in by it.
        answer.headers.append("Set-Cookie", gate.cookie(gate.new(allowed=True)))
        return answer

    async def logout(self, request: Request) -> Response:
        try:
            await self._form(request)
        except _RefusedError as refused:
            status, reason = refused.args
            return PlainTextResponse(f"{reason}\n", status)
        answer = RedirectResponse("/login", 303)
        answer.headers.append(
            "Set-Cookie", self._parts.gate.cookie(self._parts.gate.new(allowed=False))
        )
        return answer


def _ref() -> str:
    return f"fleet-{secrets.token_hex(12)}"
