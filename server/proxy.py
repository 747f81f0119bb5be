"""What the fleet's nodes may reach of SuperLink, and nothing else of it: ``/v1/fleet/``, over TLS.

Flower's control interface has no authentication and shares SuperLink's port: who reaches it can
start runs, which is code on every device. So SuperLink listens on loopback, and this stands before
it. A SuperLink that is down is answered 503, which nodes wait out; any other answer ends them.

    python -m server.proxy --loaded STATE/proxy.json
"""

import argparse
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from server.config import ServerConfig

MOST_BYTES = 64 * 1024 * 1024
"""Of a request: Flower sends what is larger in pieces."""
HOP_BY_HOP = frozenset({"connection", "host", "content-length", "transfer-encoding", "keep-alive"})
TIMEOUT_S = 60.0


def app_of(upstream: str, ca: str) -> Starlette:
    """Return the application.

    Args:
        upstream: ``https://host:port`` of SuperLink.
        ca: PEM file of the authority that signed its certificate.
    """
    trusted = ssl.create_default_context(cafile=ca)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        limits = httpx.Limits(max_connections=200, max_keepalive_connections=50)
        async with httpx.AsyncClient(
            base_url=upstream, verify=trusted, timeout=TIMEOUT_S, limits=limits, trust_env=False
        ) as client:
            app.state.client = client
            yield

    async def forward(request: Request) -> Response:
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > MOST_BYTES:
                return PlainTextResponse("too large", 413)
        headers = [(k, v) for k, v in request.headers.items() if k.lower() not in HOP_BY_HOP]
        client: httpx.AsyncClient = request.app.state.client
        try:
            answer = await client.request(
                # As it was sent: a path that is decoded here might be another one there.
                request.method,
                request.scope["raw_path"].decode("ascii"),
                content=bytes(body),
                headers=headers,
            )
        except httpx.HTTPError:
            return PlainTextResponse("SuperLink is not there", 503, headers={"Retry-After": "5"})
        if answer.status_code >= 500:
            return PlainTextResponse("SuperLink is not well", 503, headers={"Retry-After": "5"})
        kept = {k: v for k, v in answer.headers.items() if k.lower() == "content-type"}
        return Response(answer.content, answer.status_code, headers=kept)

    return Starlette(
        routes=[Route("/v1/fleet/{rest:path}", forward, methods=["POST"])], lifespan=lifespan
    )


def run(config: ServerConfig) -> None:
    """Serve until a signal ends it."""
    if config.tls is None:
        raise SystemExit("the proxy speaks TLS alone: give [tls]")
    uvicorn.run(
        app_of(f"https://{config.inner}", str(Path(config.tls.ca).absolute())),
        host=config.host,
        port=config.port,
        ssl_certfile=config.tls.cert,
        ssl_keyfile=config.tls.key,
        log_level="warning",
        access_log=False,
        server_header=False,
    )


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loaded", type=Path, required=True, help="configuration, as JSON")
    content = parser.parse_args().loaded.read_bytes()
    run(msgspec.json.decode(content, type=ServerConfig))


if __name__ == "__main__":
    main()
