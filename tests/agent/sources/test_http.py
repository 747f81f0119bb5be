"""Readings that are posted, by good clients, slow ones and bad ones."""

import http.client
import select
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.intake import Arrival
from agent.sources import Http, SourceConfig
from agent.sources.connections import PATH
from agent.sources.http import HttpSource
from contract.errors import ConfigError

Taken = Any
PATIENCE_S = 60
BODY = b'{"t": 1767225600, "v": {"flow": 12.5}}'
JSON = {"Content-Type": "application/json"}
ASKED = f"{PATH}?asset=pump-1"


@pytest.fixture
def listen(taken: Taken, opened: ExitStack) -> Callable[..., HttpSource]:
    """Return what opens a source, whose every request is committed, or refused with ``why``."""

    def listen(why: str = "", **changes: Any) -> HttpSource:
        source = Http(port=0, **changes).build()
        opened.callback(source.close)

        def put(arrival: Arrival) -> None:
            taken.put(arrival)
            source.acknowledge({arrival.token: why})

        source.open(put)
        return source

    return listen


@pytest.fixture
def mute(taken: Taken, opened: ExitStack) -> Callable[..., HttpSource]:
    """Return what opens a source whose requests are committed by the test, if at all."""

    def mute(**changes: Any) -> HttpSource:
        source = Http(port=0, **changes).build()
        opened.callback(source.close)
        source.open(taken.put)
        return source

    return mute


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.text = response.read().decode()


def post(
    source: HttpSource,
    path: str = ASKED,
    body: bytes = BODY,
    headers: dict[str, str] | None = None,
    method: str = "POST",
) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", source.port, timeout=PATIENCE_S)
    with closing(connection):
        connection.request(method, path, body, JSON if headers is None else headers)
        return Answer(connection.getresponse())


class Posting:
    """A request in a thread of its own."""

    def __init__(self, source: HttpSource, body: bytes = BODY) -> None:
        self.answer: Answer | None = None
        self._thread = threading.Thread(target=self._run, args=(source, body))
        self._thread.start()

    def _run(self, source: HttpSource, body: bytes) -> None:
        self.answer = post(source, body=body)

    def wait(self) -> Answer:
        self._thread.join(PATIENCE_S)
        assert self.answer is not None
        return self.answer


def talk(source: HttpSource, raw: bytes) -> bytes:
    """Say bytes and hear all that is answered."""
    with socket.create_connection(("127.0.0.1", source.port), PATIENCE_S) as sock:
        sock.sendall(raw)
        sock.shutdown(socket.SHUT_WR)
        heard = b""
        while chunk := sock.recv(65536):
            heard += chunk
    return heard


def request(*headers: str, body: bytes = b"", line: str = f"POST {ASKED} HTTP/1.1") -> bytes:
    head = "\r\n".join([line, "Host: x", "Content-Type: application/json", *headers, "", ""])
    return head.encode() + body


def test_it_is_answered_when_it_is_committed_and_not_before(
    mute: Callable[..., HttpSource], taken: Taken
) -> None:
    source = mute()
    posting = Posting(source)
    taken.wait(lambda: len(taken.arrivals) == 1)
    (arrival,) = taken.arrivals
    assert arrival.token > 0
    assert arrival.payload == BODY
    source.acknowledge({arrival.token + 1: "", arrival.token + 7: "somebody else's"})
    assert posting.answer is None
    source.acknowledge({arrival.token: ""})
    assert posting.wait().status == 204
    assert source.counts.frames == 1
    source.acknowledge({arrival.token: ""})  # once more does no harm


def test_what_is_refused_is_told_with_the_reason(listen: Callable[..., HttpSource]) -> None:
    source = listen(why="channel: pump has no channel 'flux'")
    answer = post(source)
    assert (answer.status, answer.text) == (400, "channel: pump has no channel 'flux'\n")
    assert source.counts.bad_frames == 1


@pytest.mark.parametrize(
    ("path", "content_type", "topic"),
    [
        ("?asset=pump-1", "application/json", "source/http/json/pump-1/readings"),
        ("?asset=pump-1", "application/json; charset=utf-8", "source/http/json/pump-1/readings"),
        ("?asset=pump-1&channel=flow", "application/json", "source/http/json/pump-1/flow"),
        ("?asset=pump%2D1&channel=event", "application/json", "source/http/json/pump-1/event"),
        ("", "application/senml+json", "source/http/senml+json//readings"),
        ("?asset=a", "application/senml+cbor", "source/http/senml+cbor/a/readings"),
        ("?asset=a", "text/csv", "source/http/csv/a/readings"),
    ],
)
def test_the_topic_says_format_asset_and_channel(
    path: str, content_type: str, topic: str, listen: Callable[..., HttpSource], taken: Taken
) -> None:
    source = listen(columns=("flow",))
    assert post(source, PATH + path, headers={"Content-Type": content_type}).status == 204
    assert [arrival.topic for arrival in taken.arrivals] == [topic]


@pytest.mark.parametrize(
    ("path", "headers", "status", "words"),
    [
        ("/", JSON, 404, PATH),
        ("/v1/readings/", JSON, 404, PATH),
        (PATH, JSON, 400, "?asset=pump-1"),
        (f"{PATH}?channel=flow", {"Content-Type": "application/senml+json"}, 400, "?asset=pump-1"),
        (f"{PATH}?asset=", JSON, 400, "non-empty"),
        (f"{PATH}?asset=a%2Fb", JSON, 400, "without /"),
        (f"{PATH}?asset=a%0Ab", JSON, 400, "blanks"),
        (f"{PATH}?asset=a&asset=b", JSON, 400, "once each"),
        (f"{PATH}?asset=a&machine=b", JSON, 400, "asset and channel"),
        (f"{PATH}?asset={'a' * 201}", JSON, 400, "at most 200"),
        (ASKED, {}, 415, "application/json"),
        (ASKED, {"Content-Type": "text/plain"}, 415, "application/json"),
        (ASKED, {"Content-Type": "application/x-www-form-urlencoded"}, 415, "application/json"),
        (ASKED, {"Content-Type": "text/csv"}, 415, "without csv columns"),
        (ASKED, JSON | {"Content-Encoding": "gzip"}, 415, "without Content-Encoding"),
        (ASKED, JSON | {"Transfer-Encoding": "chunked"}, 411, "no chunks"),
    ],
)
def test_a_wrong_request_is_told_what_to_mend(
    path: str,
    headers: dict[str, str],
    status: int,
    words: str,
    listen: Callable[..., HttpSource],
    taken: Taken,
) -> None:
    source = listen()
    answer = post(source, path, headers=headers)
    assert answer.status == status
    assert words in answer.text
    assert not taken.arrivals
    assert source.counts.bad_frames == 1


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_only_post_is_taken(method: str, listen: Callable[..., HttpSource]) -> None:
    answer = post(listen(), method=method)
    assert answer.status == 405
    assert answer.headers["Allow"] == "POST"


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (request(), 411),
        (request("Content-Length: -1"), 400),
        (request("Content-Length: +5"), 400),
        (request("Content-Length: 1_0"), 400),
        (request("Content-Length: 5", "Content-Length: 6"), 400),
        (request("Content-Length: 5", "Transfer-Encoding: chunked"), 411),
        (request("Content-Length: 99999999999999999999"), 400),
        (request("Content-Length: 100", body=b"{}"), 400),
        (request("Content-Length: 2", body=b"{}", line="POST http://[ HTTP/1.1"), 400),
        (request("Content-Length: 2", body=b"{}", line=f"BREW {ASKED} HTTP/1.1"), 501),
        (request("Content-Length: 2", body=b"{}", line=f"POST {ASKED} HTTP/3.0"), 505),
        (request(line="GET http://[ HTTP/1.1"), 404),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (request(*[f"X-{n}: y" for n in range(200)]), 431),
        (b"POST /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", 414),
        (request("X: " + "y" * 70_000), 431),
    ],
)
def test_nonsense_is_answered_and_the_next_client_is_served(
    raw: bytes, status: int, listen: Callable[..., HttpSource], taken: Taken
) -> None:
    source = listen()
    heard = talk(source, raw)
    assert f" {status} ".encode() in heard.split(b"\r\n")[0], heard
    assert heard.count(b"HTTP/1.1") == 1
    assert source.counts.bad_frames + source.counts.overflows == 1
    assert post(source).status == 204
    assert "a connection's thread failed" not in taken.said


def test_a_body_over_the_bound_is_not_read(listen: Callable[..., HttpSource], taken: Taken) -> None:
    source = listen(max_body=4096)
    assert post(source, body=b"x" * 4097).status == 413
    assert post(source, body=b" " * 4096).status == 204
    assert [len(arrival.payload) for arrival in taken.arrivals] == [4096]


def test_who_is_refused_may_talk_out_and_hears_why(listen: Callable[..., HttpSource]) -> None:
    source = listen()
    with socket.create_connection(("127.0.0.1", source.port), PATIENCE_S) as sock:
        sock.sendall(request("Content-Length: 3000000"))
        assert b" 413 " in sock.recv(65536)
        broken = select.poll()
        broken.register(sock, 0)  # tells of errors only
        for _ in range(3):
            sock.sendall(b"x" * 65536)
            # A connection closed at once is reset, and what was answered may be thrown away.
            assert not broken.poll(50)


def test_a_connection_serves_many_requests(listen: Callable[..., HttpSource], taken: Taken) -> None:
    source = listen()
    connection = http.client.HTTPConnection("127.0.0.1", source.port, timeout=PATIENCE_S)
    with closing(connection):
        connection.connect()
        sock = connection.sock
        for number in range(20):
            connection.request("POST", ASKED, b"%d" % number, JSON)
            response = connection.getresponse()
            assert response.status == 204
            response.read()
            assert connection.sock is sock
    assert [arrival.payload for arrival in taken.arrivals] == [b"%d" % n for n in range(20)]


def test_a_token_is_asked_for(listen: Callable[..., HttpSource], tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("s3cret\n")
    source = listen(token_file=str(file))
    for wrong in ({}, {"Authorization": "Bearer s3cre"}, {"Authorization": "Basic s3cret"}):
        answer = post(source, headers=JSON | wrong)
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert "s3cret" not in answer.text
    assert post(source, headers=JSON | {"Authorization": "Bearer s3cret"}).status == 204
    assert post(source, headers=JSON | {"Authorization": "bearer  s3cret"}).status == 204


@pytest.mark.parametrize("content", [None, "", "\nsecond line\n"])
def test_without_the_token_it_is_not_built(content: str | None, tmp_path: Path) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match="token_file"):
        Http(token_file=str(file)).build()


def test_who_is_slow_is_given_up(mute: Callable[..., HttpSource], taken: Taken) -> None:
    source = mute(request_s=0.2)
    with socket.create_connection(("127.0.0.1", source.port), PATIENCE_S) as sock:
        sock.sendall(request("Content-Length: 100", body=b"{"))
        assert b" 408 " in sock.recv(65536)
    with socket.create_connection(("127.0.0.1", source.port), PATIENCE_S) as sock:
        sock.sendall(b"POST /v1/rea")
        assert sock.recv(65536) == b""
    with socket.create_connection(("127.0.0.1", source.port), PATIENCE_S) as sock:
        # A byte in time, again and again, is no request in time.
        for _ in range(1000):
            sock.sendall(b"x")
            if select.select([sock], [], [], 0.02)[0]:
                assert sock.recv(65536) == b""
                break
        else:
            pytest.fail("it listens to a dripping client for ever")
    assert not taken.arrivals


def test_what_is_not_committed_in_time_is_answered_503_and_taken_back(
    mute: Callable[..., HttpSource], taken: Taken
) -> None:
    source = mute(commit_s=0.2)
    taken.gate.clear()
    first = Posting(source, b"1").wait()  # it is with the intake already
    assert first.status == 503
    assert "it may be yet" in first.text
    second = Posting(source, b"2").wait()
    assert second.status == 503
    assert second.headers["Retry-After"] == "1"
    assert "it may be yet" not in second.text
    taken.gate.set()
    third = Posting(source, b"3")
    taken.wait(lambda: any(arrival.payload == b"3" for arrival in taken.arrivals))
    third.wait()
    assert [arrival.payload for arrival in taken.arrivals] == [b"1", b"3"]


def test_more_than_can_wait_is_answered_503(mute: Callable[..., HttpSource], taken: Taken) -> None:
    source = mute(buffer=4096)
    taken.gate.clear()
    held = [Posting(source, b"x" * 4000)]
    taken.wait(lambda: taken.begun == 1)
    # One is with the intake, one waits, one is too much: whichever comes last.
    held += [Posting(source, b"x" * 4000) for _ in range(2)]
    taken.wait_said("request refused")
    assert source.counts.overflows == 1
    taken.gate.set()
    taken.wait(lambda: len(taken.arrivals) == 2)
    source.acknowledge({arrival.token: "" for arrival in taken.arrivals})
    assert sorted(posting.wait().status for posting in held) == [204, 204, 503]


def test_one_connection_too_many_is_answered_503(mute: Callable[..., HttpSource]) -> None:
    source = mute(connections=2)
    with ExitStack() as connected:
        address = ("127.0.0.1", source.port)
        for _ in range(2):
            connected.enter_context(socket.create_connection(address, PATIENCE_S))
        crowd = connected.enter_context(socket.create_connection(address, PATIENCE_S))
        assert crowd.recv(65536).startswith(b"HTTP/1.1 503 ")


def test_closing_answers_who_waits_and_lets_who_idles_go(
    mute: Callable[..., HttpSource], taken: Taken
) -> None:
    source = mute()
    assert source.alive
    with socket.create_connection(("127.0.0.1", source.port), PATIENCE_S) as idle:
        idle.sendall(request("Content-Length: 2", body=b"{}"))
        taken.wait(lambda: len(taken.arrivals) == 1)
        source.acknowledge({taken.arrivals[0].token: ""})
        assert idle.recv(65536).startswith(b"HTTP/1.1 204 ")
        waiting = Posting(source)
        taken.wait(lambda: len(taken.arrivals) == 2)
        source.close()
        assert idle.recv(65536) == b""
    assert waiting.wait().status == 503
    assert not source.alive
    source.close()


def test_it_closes_before_open(taken: Taken) -> None:
    source = Http(port=0).build()
    source.close()
    source.open(taken.put)
    assert not source.alive
    assert source.port == 0


def test_a_port_that_is_taken_is_told(mute: Callable[..., HttpSource], taken: Taken) -> None:
    port = mute().port
    second = Http(port=port).build()
    with pytest.raises(ConfigError, match=f"port {port} .*choose another port"):
        second.open(taken.put)
    second.close()


def test_it_listens_on_ipv6_too(listen: Callable[..., HttpSource]) -> None:
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    source = listen(host="::1")
    connection = http.client.HTTPConnection("::1", source.port, timeout=PATIENCE_S)
    with closing(connection):
        connection.request("POST", ASKED, BODY, JSON)
        assert connection.getresponse().status == 204


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"host": "0.0.0.0"}, "beyond loopback"),  # noqa: S104
        ({"host": "192.168.1.5", "insecure": True}, "token_file"),
        ({"host": "192.168.1.5", "token_file": "token"}, "insecure = true"),
        ({"name": ""}, "non-empty"),
        ({"columns": ["a", "a"]}, "twice"),
        ({"time": "t"}, "none of columns"),
        ({"port": 70000}, "port"),
    ],
)
def test_a_wrong_configuration_says_what_to_mend(changes: dict[str, object], words: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=words):
        msgspec.convert({"kind": "http"} | changes, SourceConfig)


def test_beyond_loopback_it_takes_a_word_and_a_token() -> None:
    raw = {"kind": "http", "host": "0.0.0.0", "insecure": True, "token_file": "t"}  # noqa: S104
    assert isinstance(msgspec.convert(raw, SourceConfig), Http)
