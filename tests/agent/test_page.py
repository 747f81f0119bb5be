"""The agent's page, over real HTTP, in a real browser, of a real agent."""

import base64
import http.client
import json
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from agent.batch import Batch, Rows, Shot
from agent.config import AgentConfig, Web, load
from agent.intake import Arrival, Intake
from agent.mqtt import Link
from agent.page import readings
from agent.page.logbook import Logbook
from agent.page.server import HEADERS, STALL_S, Page
from agent.page.trace import SIZE, Recent, Trend
from agent.publish import Publisher
from agent.snapshot import Snapshot
from agent.sources import Http
from agent.wording import reason
from contract.errors import ConfigError
from contract.report import Health, Why
from contract.spec import AssetClass, Channel, Waveform
from tests.browser import CONTRAST, Seen, chromium, until

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

__all__ = ["chromium"]

PATIENCE_S = 60
START_S = 1_800_000_000
NOTHING = Health("", 0.0, "learning", None, None, None, None, None, 0, "", 0, ())


PUMP = AssetClass("pump", (Channel("vibration", "mm/s"), Channel("temperature", "degC")))


def get(
    port: int, path: str, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of one answer."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)) as connection:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()


def told(port: int, path: str = "/v1/status.json") -> Any:
    return json.loads(get(port, path)[2])


class Desk:
    """A logbook of an engine, on a link to a broker that is not there."""

    def __init__(self, device: Any, opened: ExitStack, plotted: int) -> None:
        self.device = device
        self.engine = engine = device.engine
        config = engine.config
        self.intake = Intake(100)
        self.link = Link(
            config.mqtt, client_id="desk", filters=[], will=None, receive=self.intake.put_all
        )
        self.publisher = Publisher(engine.store, self.link, "test", config.name)
        opened.callback(self.link.close)
        self.shown: list[Snapshot] = []
        sources = {one.name: one.build() for one in config.source}
        self.logbook = Logbook(
            engine, self.link, sources, self.publisher, self.intake, self.shown.append,
            plotted=plotted,
        )  # fmt: skip
        opened.callback(self.logbook.close)


@pytest.fixture
def desk(
    configure: Callable[..., AgentConfig], device: Callable[..., Any]
) -> Iterator[Callable[..., Desk]]:
    """Make desks on the same store."""
    with ExitStack() as opened:

        def make(plotted: int = 200, **changes: Any) -> Desk:
            return Desk(device(configure(**changes)), opened, plotted)

        yield make


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Callable[..., Page]]:
    """Open pages at free ports."""
    with ExitStack() as opened:

        def make(snapshot: Snapshot | None = None, **changes: Any) -> Page:
            options = {k: changes.pop(k) for k in ("request_s", "again_s") if k in changes}
            made = Page(Web(**{"port": 0, **changes}), tmp_path, **options)
            opened.callback(made.close)
            if snapshot is not None:
                made.show(snapshot)
            made.open()
            if made.config.port == 0:
                assert made.opened.wait(PATIENCE_S)
            return made

        yield make


def report(name: str, **changes: Any) -> Health:
    return msgspec.structs.replace(NOTHING, asset=name, t=time.time(), **changes)


def with_reports(snapshot: Snapshot, *reports: Health, alert: Sequence[str] = ()) -> Snapshot:
    """Return a snapshot of these assets, plotted."""
    seen = []
    for one in reports:
        recent = Recent()
        for t in range(100):
            recent.add(one.t - 100 + t, health=one.health, score=one.score, rul_h=one.rul_h)
        points = recent.points()
        mold = snapshot.assets[0]
        seen.append(
            msgspec.structs.replace(
                mold,
                report=one,
                why=tuple(reason(why, PUMP) for why in one.why),
                alert=one.asset in alert,
                alert_state="unacknowledged" if one.asset in alert else "normal",
                recent=points,
                trend=points,
            )
        )
    return msgspec.structs.replace(
        snapshot, assets=tuple(seen), at=time.time(), turned_s=time.monotonic()
    )


@pytest.fixture
def snapshot(desk: Callable[..., Desk]) -> Snapshot:
    """Return what is shown of a device with a pump that has a life behind it."""
    made = desk(source=(Http(port=0),))
    rng = np.random.default_rng(1)
    outcomes = made.device.live("pump-1", rng.normal(size=(80, 2)) * 0.1 + [5.0, 40.0])
    made.logbook.note(outcomes, [Arrival("t", b"", 0, time.time_ns())], 0.002)
    return made.logbook.snapshot()


# -- what is shown --------------------------------------------------------------------------------


def test_a_snapshot_does_not_change_when_more_is_noted(desk: Callable[..., Desk]) -> None:
    made = desk()
    rng = np.random.default_rng(1)
    values = rng.normal(size=(60, 2)) * 0.1 + [5.0, 40.0]
    made.logbook.note(made.device.live("pump-1", values[:30]), [], 0.001)
    before = made.logbook.snapshot()
    seen = before.asset("pump-1")
    assert seen is not None
    assert seen.recent is not None
    t, newest = seen.recent.t.copy(), seen.report.t
    with pytest.raises(ValueError, match="read-only"):
        seen.recent.values[0] = 0.0
    made.logbook.note(made.device.live("pump-1", values[30:], begin=30), [], 0.001)
    after = made.logbook.snapshot().asset("pump-1")
    assert after is not None
    assert after.recent is not None
    assert after.report.t > newest
    assert len(after.recent.t) > len(t)
    assert seen.recent.t.tolist() == t.tolist()
    assert seen.report.t == newest


def test_an_asset_of_which_nothing_new_is_noted_is_not_copied_again(
    desk: Callable[..., Desk],
) -> None:
    made = desk()
    made.logbook.note(made.device.live("pump-1", np.full((20, 2), 5.0)), [], 0.001)
    assert made.logbook.snapshot().assets[0] is made.logbook.snapshot().assets[0]


def test_what_was_told_before_a_restart_is_shown_after_it(desk: Callable[..., Desk]) -> None:
    made = desk()
    device = made.device
    rng = np.random.default_rng(1)
    values = rng.normal(size=(80, 2)) * 0.1 + [5.0, 40.0]
    values[60:] += [30.0, 0.0]
    made.logbook.note(device.live("pump-1", values), [], 0.001)
    before = made.logbook.snapshot()
    device.close()
    made.logbook.close()

    after = desk().logbook.snapshot()
    assert before.raised > 0
    assert after.alerts == before.alerts
    old, new = before.assets[0], after.assets[0]
    assert old.alert
    assert new.alert
    assert new.report == old.report
    assert new.heard is not None
    assert new.recent is not None
    assert old.recent is not None
    assert new.recent.t.tolist() == old.recent.t.tolist()
    assert after.raised == 0  # since the process began


def test_an_asset_with_an_alert_is_plotted_in_place_of_one_without(
    desk: Callable[..., Desk],
) -> None:
    made = desk(plotted=1)
    rng = np.random.default_rng(1)
    values = rng.normal(size=(80, 2)) * 0.1 + [5.0, 40.0]
    made.logbook.note(made.device.live("pump-1", values), [], 0.001)
    made.logbook.note(made.device.live("pump-2", values), [], 0.001)
    plotted = {a.report.asset: a.recent is not None for a in made.logbook.snapshot().assets}
    assert plotted == {"pump-1": True, "pump-2": False}
    outcomes = made.device.live("pump-2", values[:40] + np.array([30.0, 0.0]), begin=80)
    made.logbook.note(outcomes, [], 0.001)
    plotted = {a.report.asset: a.recent is not None for a in made.logbook.snapshot().assets}
    assert plotted == {"pump-1": False, "pump-2": True}


def test_a_trend_reaches_back_to_the_beginning_and_keeps_the_highest_scores() -> None:
    trend = Trend()
    peaks = {123, 5_000, 9_876}
    for t in range(10_000):
        trend.add(float(t), health=0.5, score=9.0 if t in peaks else 0.1, rul_h=None)
    points = trend.points()
    assert len(points.t) <= SIZE + 1
    assert points.t[0] < 100
    assert points.t[-1] > 9_900
    assert set(points.t[points.values[:, 1] > 8].tolist()) == peaks


def test_what_was_told_of_a_time_that_has_not_come_is_forgotten_when_time_is_set_back() -> None:
    recent, trend = Recent(4), Trend(4)
    for t in (1.0, 2.0, 3.0, 4.0, 5.0, 900.0, 901.0, 6.0, 7.0):
        for plot in (recent, trend):
            plot.add(t, health=1.0, score=0.0, rul_h=None)
    assert recent.points().t.tolist() == [4.0, 5.0, 6.0, 7.0]
    assert trend.points().t.tolist() == sorted(trend.points().t.tolist())
    assert 5.0 <= trend.points().t[-1] < 900.0


def test_features_are_copied_only_of_an_asset_that_somebody_looks_at(
    desk: Callable[..., Desk], tmp_path: Path
) -> None:
    made = desk()
    rng = np.random.default_rng(1)
    for begin in (0, 40):  # the first report of an asset makes its place
        for name in ("pump-1", "pump-2"):
            values = rng.normal(size=(40, 2)) * 0.1 + [5.0, 40.0]
            made.logbook.note(made.device.live(name, values, begin=begin), [], 0.001)
    assert made.logbook.snapshot().features == {}
    shown = Page(Web(), tmp_path)
    made.logbook._looked_at = shown.looked_at
    assert shown.asset(made.logbook.snapshot(), "pump-2") is not None
    assert shown.asset(made.logbook.snapshot(), "nobody") is None
    (name, found), *others = made.logbook.snapshot().features.items()
    assert (name, others) == ("pump-2", [])
    assert found.parts[0] == ("vibration", "last")
    assert found.told.values.shape == (40, len(found.parts))
    assert np.isclose(found.told.values[-1, 0], values[-1, 0])
    told = shown.asset(made.logbook.snapshot(), "pump-2")
    assert told is not None
    assert len(told["features"]["of"]) == 6
    assert told["features"]["t"][-1] == told["report"].t


def test_no_more_than_a_few_assets_are_looked_at_at_once(
    snapshot: Snapshot, tmp_path: Path
) -> None:
    shown = Page(Web(), tmp_path)
    many = with_reports(snapshot, *[report(f"pump-{n}") for n in range(20)])
    for n in range(20):
        shown.asset(many, f"pump-{n}")
    assert sorted(shown.looked_at()) == ["pump-16", "pump-17", "pump-18", "pump-19"]


def test_the_newest_readings_and_the_last_burst_are_read_out_of_the_journal(
    configure: Callable[..., AgentConfig], device: Callable[..., Any]
) -> None:
    wave = Waveform("drive", "m/s2", 2560.0, samples=1024, features=("rms",))
    spec = AssetClass(
        "pump",
        (Channel("vibration", "mm/s", low=0.0, high=9.0), Channel("temperature", "degC")),
        waveforms=(wave,),
    )
    config = configure(spec=spec)
    node = device(config)
    t_ns = (START_S + np.arange(500)) * 10**9
    for begin in range(0, 500, 20):
        part = slice(begin, begin + 20)
        values = np.full((20, 3), np.nan)
        values[:, 0] = np.arange(500)[part] % 7
        values[::2, 1] = 40.0
        rows = [
            Rows(name, t_ns[part], values, np.arange(20), np.ones(20, dtype=np.bool_))
            for name in ("pump-1", "pump-2")
        ]
        node.engine.process(Batch(rows, []))
    x = np.arange(1024) / 2560
    sine = (4 * np.sin(2 * np.pi * 200 * x)).astype(np.float32)
    node.engine.process(Batch([], [], shots=[Shot(0, "pump-1", 0, int(t_ns[-1]), sine)]))

    found = readings.newest(config.state, "pump-1")
    vibration, temperature = readings.channels(found, spec, [])
    assert vibration["t"] == (START_S + np.arange(320, 500)).tolist()
    assert vibration["values"] == (np.arange(320, 500) % 7).tolist()
    assert (vibration["low"], vibration["high"], vibration["unit"]) == (0.0, 9.0, "mm/s")
    assert set(temperature["values"]) == {40.0}
    first = [one["name"] for one in readings.channels(found, spec, ["temperature", "drive.rms"])]
    assert first == ["temperature", "vibration"]
    (spectrum,) = readings.spectra(found, spec)
    at = int(np.argmax(spectrum["values"]))
    assert abs(spectrum["hz"][at] - 200) < 5
    assert abs(spectrum["values"][at] - 4) < 0.2
    assert readings.channels(readings.newest(config.state, "nobody"), spec, []) == []
    assert readings.newest(config.state / "nowhere", "pump-1").rows == []

    # A clock that was a year ahead: what it stamped is not drawn beside what comes behind it.
    for times in (t_ns[:20] + 365 * 86_400 * 10**9, t_ns[:20] + 500 * 10**9):
        rows = [Rows("pump-1", times, values, np.arange(20), np.ones(20, dtype=np.bool_))]
        node.engine.process(Batch(rows, []))
    vibration, _ = readings.channels(readings.newest(config.state, "pump-1"), spec, [])
    assert vibration["t"][-20:] == (START_S + 500 + np.arange(20)).tolist()
    assert vibration["t"] == sorted(vibration["t"])


def test_the_backlog_is_as_old_as_its_oldest_result(desk: Callable[..., Desk]) -> None:
    made = desk()
    assert made.logbook.snapshot().broker.backlog == 0
    assert made.logbook.snapshot().broker.backlog_s == 0.0
    made.device.live("pump-1", np.full((20, 2), 5.0))
    first = made.logbook.snapshot().broker
    assert first.backlog == made.engine.store.last_result > 0
    made.device.live("pump-2", np.full((20, 2), 5.0))
    second = made.logbook.snapshot().broker
    assert second.backlog > first.backlog
    assert second.backlog_s > first.backlog_s


# -- over HTTP ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/", "/page.js", "/page.css", "/icon.svg", "/metrics", "/healthz", "/v1/status.json"]
)
def test_every_answer_says_what_a_browser_may_do_with_it(
    page: Callable[..., Page], snapshot: Snapshot, path: str
) -> None:
    port = page(snapshot).port
    status, headers, body = get(port, path)
    assert status == (503 if path == "/healthz" else 200)  # its link is not open
    assert HEADERS.items() <= headers.items()
    assert int(headers["Content-Length"]) == len(body) > 0
    assert "script-src 'self'" in headers["Content-Security-Policy"]
    head = get(port, path, "HEAD")
    assert head[0] == status
    assert head[2] == b""


def test_nothing_on_the_page_comes_from_elsewhere(
    page: Callable[..., Page], snapshot: Snapshot
) -> None:
    port = page(snapshot).port
    for path in ("/", "/page.js", "/draw.js", "/page.css", "/icon.svg"):
        text = get(port, path)[2].decode()
        assert "https:" not in text
        assert text.count("http:") == text.count("http://www.w3.org/2000/svg")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
def test_a_host_name_of_a_stranger_is_refused(
    page: Callable[..., Page], snapshot: Snapshot, host: str
) -> None:
    status, headers, body = get(page(snapshot).port, "/v1/status.json", Host=host)
    assert status == 421
    assert b"pump" not in body
    assert HEADERS.items() <= headers.items()


def test_a_name_in_the_configuration_is_answered(
    page: Callable[..., Page], snapshot: Snapshot
) -> None:
    port = page(snapshot, names=("Node-1.plant",)).port
    assert get(port, "/", Host="node-1.plant:8770")[0] == 200
    assert get(port, "/", Host="node-2.plant")[0] == 421


def test_what_is_not_there_is_not_found_and_what_is_not_asked_is_refused(
    page: Callable[..., Page], snapshot: Snapshot
) -> None:
    port = page(snapshot).port
    for path in ("/nothing", "/v1/assets/none.json", "/v1/assets/pump-1", "/../agent/config.py"):
        assert get(port, path)[0] == 404
    status, headers, _ = get(port, "/v1/status.json", "POST")
    assert (status, headers["Allow"]) == (405, "GET, HEAD")
    found = told(port, "/v1/assets/pump%2D1.json")
    assert found["name"] == "pump-1"
    assert len(found["recent"]["t"]) == len(found["recent"]["score"]) > 10


def test_a_request_that_does_not_come_whole_is_given_up(
    page: Callable[..., Page], snapshot: Snapshot
) -> None:
    port = page(snapshot, request_s=0.2).port
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as slow:
        slow.sendall(b"GET / HTTP/1.1\r\nHost: local")
        assert slow.recv(100) == b""


def test_a_connection_too_many_is_told_to_come_again(
    page: Callable[..., Page], snapshot: Snapshot
) -> None:
    port = page(snapshot, connections=2).port
    with ExitStack() as opened:
        for _ in range(2):
            idle = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
            opened.enter_context(idle)
        assert get(port, "/")[0] == 503
    assert until(lambda: get(port, "/")[0] == 200)


def test_garbage_is_answered_and_the_page_goes_on(
    page: Callable[..., Page], snapshot: Snapshot
) -> None:
    port = page(snapshot).port
    for garbage in (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as stranger:
            stranger.sendall(garbage)
            assert stranger.recv(1000).startswith((b"HTTP/1.1 4", b"HTTP/1.1 505"))
    assert get(port, "/")[0] == 200


def test_beyond_loopback_the_token_is_asked_for(
    page: Callable[..., Page], snapshot: Snapshot, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("sésame\nnot this\n")
    port = page(snapshot, host="0.0.0.0", insecure=True, token_file=str(token)).port  # noqa: S104

    def status(word: str) -> int:
        return get(port, "/v1/status.json", Authorization=word)[0]

    basic = base64.b64encode("anyone:sésame".encode()).decode()
    assert get(port, "/metrics")[0] == 401
    assert get(port, "/")[1]["WWW-Authenticate"].startswith("Basic")
    assert status(f"Basic {basic}") == 200
    assert status("Bearer " + "sésame".encode().decode("latin-1")) == 200
    wrong = base64.b64encode(b"anyone:sesame").decode()
    for word in (f"Basic {wrong}", "Basic !", "Basic", "Bearer sesame", "Bearer ", "Digest x"):
        assert status(word) == 401


def test_a_page_beyond_loopback_without_a_token_is_a_mistake_to_mend(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    text = '[[asset_class]]\nname = "pump"\nchannels = [{ name = "a", unit = "1" }]\n'
    file.write_text(text + '[web]\nhost = "0.0.0.0"\n')
    with pytest.raises(ConfigError, match=r"beyond loopback.*insecure.*token_file.*web"):
        load(file)
    file.write_text(text + '[web]\nhost = "0.0.0.0"\ninsecure = true\ntoken_file = "nowhere"\n')
    with pytest.raises(ConfigError, match=r"web\.token_file: there is no file"):
        load(file)
    empty = tmp_path / "token"
    empty.write_text("\n")
    with pytest.raises(ConfigError, match="no token on its first line"):
        Page(Web(token_file=str(empty)), tmp_path)


def test_a_port_that_is_taken_is_waited_for(
    page: Callable[..., Page], snapshot: Snapshot, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        waiting = page(snapshot, port=other.getsockname()[1], again_s=0.05)
        assert until(lambda: "cannot be served yet" in caplog.text)
        assert not waiting.opened.is_set()
    assert waiting.opened.wait(PATIENCE_S)
    assert get(waiting.port, "/")[0] == 200
    assert caplog.text.count("cannot be served yet") == 1


# -- whether it is well ---------------------------------------------------------------------------


def well(snapshot: Snapshot, **changes: Any) -> Snapshot:
    broker = msgspec.structs.replace(snapshot.broker, alive=True, **changes)
    sources = tuple(msgspec.structs.replace(s, alive=True) for s in snapshot.sources)
    return msgspec.structs.replace(
        snapshot, broker=broker, sources=sources, turned_s=time.monotonic()
    )


def test_an_agent_that_has_only_begun_is_not_well_yet(page: Callable[..., Page]) -> None:
    port = page().port
    assert get(port, "/v1/status.json")[0] == 503
    status, _, body = get(port, "/healthz")
    assert status == 503
    assert json.loads(body)["reasons"] == ["the agent has only begun: nothing is known yet"]


def test_healthz_says_what_is_wrong(page: Callable[..., Page], snapshot: Snapshot) -> None:
    good = well(snapshot, connected=False, absent_s=1e6)
    shown = page(good)
    assert get(shown.port, "/healthz")[0] == 200  # the agent works without a broker
    assert shown.troubles(good.turned_s + STALL_S) == []
    assert shown.troubles(good.turned_s + 7) == ["the main loop has not turned for 7 s"]

    dead = tuple(msgspec.structs.replace(s, alive=False) for s in good.sources)
    shown.show(msgspec.structs.replace(good, sources=dead))
    assert shown.troubles(good.turned_s) == ["a thread of source http has ended"]
    shown.show(snapshot)
    assert "the network's thread has ended" in shown.troubles(snapshot.turned_s)


def test_healthz_may_be_told_to_need_the_broker(
    page: Callable[..., Page], snapshot: Snapshot
) -> None:
    shown = page(broker_absent_min=2.0)
    for absent_s, wrong in ((119.0, False), (121.0, True)):
        now = well(snapshot, connected=False, absent_s=absent_s)
        shown.show(now)
        found = shown.troubles(now.turned_s)
        assert found == (["the broker has been absent for 2.0 min"] if wrong else [])
    assert get(shown.port, "/healthz")[0] == 503


def test_healthz_says_what_the_main_loop_cannot_do_or_trust(
    page: Callable[..., Page], snapshot: Snapshot
) -> None:
    good = well(snapshot)
    shown = page(good)
    shown.problems = ("the clock is behind the data",)
    status, _, body = get(shown.port, "/healthz")
    assert (status, json.loads(body)["reasons"]) == (503, ["the clock is behind the data"])
    assert told(shown.port)["troubles"] == ["the clock is behind the data"]
    shown.problems = ()
    assert get(shown.port, "/healthz")[0] == 200
    assert told(shown.port)["troubles"] == []


def test_healthz_tries_to_write_where_the_store_is(snapshot: Snapshot, tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    shown = Page(Web(), folder)
    good = well(snapshot)
    shown.show(good)
    assert shown.troubles(good.turned_s) == []
    assert list(folder.iterdir()) == []  # it leaves nothing behind
    folder.rmdir()
    assert shown.troubles(good.turned_s) == []  # tried a moment ago: the disk is left in peace
    other = Page(Web(), folder)
    other.show(good)
    (found,) = other.troubles(good.turned_s)
    assert found == "the store cannot be written to: No such file or directory"


def test_a_running_agent_serves_its_page_and_knows_when_its_broker_is_gone(
    broker: Any, agent: Callable[..., Any], connect: Callable[..., Any],
    free_ports: Callable[[], int],
) -> None:  # fmt: skip
    port = free_ports()
    process = agent(
        "node", "agent.minimal.toml", f"web.port={port}", "web.broker_absent_min=0.001"
    ).start()
    process.wait_for("page url=")
    plant = connect(broker)
    plant.wait_for("node", lambda status: status.online)
    now = time.time()
    for t in range(40):
        body = {"t": now - 400 + 10 * t, "v": {"vibration": 5.0 + t % 3, "temperature": 40.0}}
        plant.send("node", "pump-1", "readings", json.dumps(body).encode())
    plant.send("node", "pump-1", "readings", b"nonsense")
    plant.wait_for("node", lambda status: status.readings >= 41)

    until(lambda: get(port, "/v1/status.json")[0] == 200)
    found = until(lambda: (s := told(port)) and s["data"]["rejected"] and s)
    assert [a["name"] for a in found["assets"]] == ["pump-1"]
    assert sum(found["data"]["rejected"].values()) == 1
    assert found["broker"]["connected"]
    assert sum(found["latency"]["counts"]) >= 41  # the broker may bring one again
    assert get(port, "/healthz")[0] == 200
    assert b'runout_asset_report_time_seconds{asset="pump-1"}' in get(port, "/metrics")[2]

    broker.stop()
    until(lambda: get(port, "/healthz")[0] == 503)
    assert "broker has been absent" in json.loads(get(port, "/healthz")[2])["reasons"][0]
    assert b"\nrunout_broker_connected 0\n" in get(port, "/metrics")[2]


@pytest.mark.usefixtures("broker")
def test_two_agents_that_want_the_same_port_both_run(
    agent: Callable[..., Any], free_ports: Callable[[], int]
) -> None:
    port = free_ports()
    first = agent("first", "agent.minimal.toml", f"web.port={port}").start()
    first.wait_for("page url=")
    second = agent("second", "agent.minimal.toml", f"web.port={port}").start()
    second.wait_for("connected")
    second.wait_for("the page cannot be served yet")
    assert told_by(port) == "first"


def told_by(port: int) -> str:
    return str(until(lambda: get(port, "/v1/status.json")[0] == 200 and told(port))["node"])


@pytest.mark.usefixtures("broker")
def test_an_agent_without_a_page_listens_nowhere(
    agent: Callable[..., Any], free_ports: Callable[[], int]
) -> None:
    port = free_ports()
    process = agent("node", "agent.minimal.toml", f"web.port={port}", "web.enabled=false").start()
    process.wait_for("connected")
    with pytest.raises(ConnectionRefusedError):
        get(port, "/")


# -- in a browser ---------------------------------------------------------------------------------

HOSTILE = (
    "<script>document.title='owned';window.owned=1</script>",
    '<img src=x onerror="window.owned=1">',
    "\"'><svg/onload=window.owned=1>",
    "javascript:window.owned=1",
    "%2e%2e%2f",
    "ünïcode \u202e name",
)


@pytest.fixture
def seen(chromium: "Chrome", page: Callable[..., Page], snapshot: Snapshot) -> Seen:
    """Return a page of four pumps, each in another state, shown until the test is over."""
    why = (Why("vibration", 0.8, "mean_16", 6.3), Why("temperature", 0.2, "std_4", -2.0))
    pumps = with_reports(
        well(snapshot, connected=True),
        report("pump-good", state="healthy", health=0.98, score=0.3, rul_h=44.0, rul_error_h=6.0),
        report("pump-new", state="learning"),
        report(
            "pump-bad", state="failing", health=0.1, score=7.5, rul_h=3.2, rul_low_h=1.0,
            rul_high_h=6.0, why=why, marks=("vibration.high",),
        ),
        report("pump-poor", state="degraded", health=0.5, score=1.9, why=why[:1]),
        alert=("pump-bad", "pump-poor"),
    )  # fmt: skip
    shown = page(pumps)
    return Seen(chromium, f"http://127.0.0.1:{shown.port}/")


def test_the_table_shows_the_worst_first_in_words_shapes_and_numbers(seen: Seen) -> None:
    seen.show()
    rows = seen("return [...document.querySelectorAll('#assets tbody tr')].map(r => r.innerText)")
    assert [row.split()[0] for row in rows] == ["pump-bad", "pump-poor", "pump-good", "pump-new"]
    for word in (
        "failing",
        "alert unacknowledged",
        "10 %",
        "3.2 h",
        "1.0 to 6.0 h",
        "7.50",
        "vibration high",
    ):
        assert word in rows[0]
    assert "vibration.high" in rows[0]
    assert "± 6.0 h" in rows[2]
    assert "not known yet" in rows[3]
    shapes = seen("return [...document.querySelectorAll('.state path')].map(p => p.outerHTML)")
    assert len(set(shapes)) == 4  # colour alone tells not everybody
    assert seen("return document.getElementById('overall').innerText").startswith(
        "2 alerts on 4 machines"
    )
    assert seen("return document.title").startswith("(2) node")
    assert seen("return document.querySelectorAll('#assets .spark .limit').length") == 3


def test_a_machine_that_is_opened_shows_its_channels_and_what_it_is_judged_by(
    chromium: "Chrome", broker: Any, agent: Callable[..., Any], connect: Callable[..., Any],
    free_ports: Callable[[], int],
) -> None:  # fmt: skip
    port = free_ports()
    plant = connect(broker)
    process = agent("node", "agent.minimal.toml", f"web.port={port}").start()
    plant.wait_for("node", lambda status: status.online)

    def send(begin: int, end: int) -> None:
        for n in range(begin, end):
            v = {"vibration": 5.0 + n % 7 / 10, "temperature": 40.0 + n % 5 / 10}
            row = json.dumps({"t": time.time() - 600 + n, "v": v}).encode()
            plant.send("node", "pump-1", "readings", row)
        plant.wait_for("node", lambda status: status.readings == end)

    send(0, 200)
    send(200, 400)
    shown = Seen(chromium, f"http://127.0.0.1:{port}/")
    shown.show("#/asset/pump-1")
    plots = "[...document.querySelectorAll('#one .plots.small figure')]"
    shown.wait(f"{plots}.length >= 8")
    titles = shown(f"return {plots}.map(f => f.querySelector('h3').innerText)")
    assert titles[:2] == ["vibration, mm/s", "temperature, degC"]
    assert any(title.startswith("vibration ") for title in titles[2:])
    drawn = shown(f"return {plots}.map(f => f.querySelector('path.curve')?.getAttribute('d'))")
    assert all(len(path) > 500 for path in drawn)
    send(400, 420)  # and they live
    shown.wait(f"{plots}[0].querySelector('path.curve').getAttribute('d') !== {drawn[0]!r}")
    shown.leave()
    assert process.end(signal.SIGTERM) == 0


def test_what_is_wrong_with_the_device_is_said_on_the_page(
    chromium: "Chrome", page: Callable[..., Page], snapshot: Snapshot
) -> None:
    made = page(well(snapshot, connected=True))
    made.problems = ("the clock is behind the data: <b>that of pump-1</b>",)
    shown = Seen(chromium, f"http://127.0.0.1:{made.port}/")
    shown.show()
    said = shown("return document.getElementById('troubles').innerText")
    assert said == "Not well: the clock is behind the data: <b>that of pump-1</b>"
    made.problems = ()
    shown.wait("document.getElementById('troubles').hidden")
    shown.leave()


def test_a_machine_is_opened_by_keyboard_and_left_again(seen: Seen) -> None:
    from selenium.webdriver import Keys

    seen.show()
    seen("document.querySelector('#assets a').focus()")
    seen.press(Keys.TAB, Keys.ENTER)  # the second row
    seen.wait("document.body.dataset.ready === 'pump-poor'")
    assert seen("return document.activeElement.id") == "asset"
    assert seen("return document.getElementById('all').hidden")
    drawn = seen(
        "return [...document.querySelectorAll('#one svg[role=img] title')].map(t => t.textContent)"
    )
    assert [title.split(":")[0] for title in drawn] == ["Health", "Score"]
    seen("document.getElementById('stretch-trend').focus()")
    seen.press(Keys.ENTER)
    assert seen("return document.activeElement.getAttribute('aria-pressed')") == "true"
    seen("document.getElementById('back').focus()")
    seen.press(Keys.ENTER)
    seen.wait("document.body.dataset.ready === 'all' && !document.getElementById('all').hidden")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_stays_a_name(
    chromium: "Chrome", page: Callable[..., Page], snapshot: Snapshot, name: str
) -> None:
    hostile = report(
        name, state="failing", health=0.1, score=3.0, marks=(f"{name}.{name}",),
        why=(Why(name, 1.0, name, 4.0),),
    )  # fmt: skip
    good = with_reports(well(snapshot, connected=True), hostile, alert=(name,))
    shown = page(
        msgspec.structs.replace(
            good, node=name, site=name, rejected={name: 3}, marked={f"{name}.{name}": 2}
        )
    )
    seen = Seen(chromium, f"http://127.0.0.1:{shown.port}/")
    seen.show()
    assert seen("return document.querySelector('#assets tbody a').textContent") == name
    seen("document.querySelector('#assets tbody a').click()")
    seen.wait(f"document.body.dataset.ready === {json.dumps(name)}")
    assert seen("return document.getElementById('asset').textContent") == name
    assert seen("return window.owned === undefined")
    assert seen("return document.scripts.length") == 1
    assert seen("return document.querySelectorAll('img').length") == 0
    assert "owned" not in seen("return document.title").replace(name, "")
    assert chromium.get_log("browser") == []  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["", "#/asset/pump-bad"])
def test_all_text_can_be_read(seen: Seen, scheme: str, path: str) -> None:
    seen.show(path, scheme=scheme)
    found = seen(CONTRAST)
    assert len(found) > 20
    assert min(found) >= [4.5], min(found)  # WCAG 2.2, AA


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
@pytest.mark.parametrize("path", ["", "#/asset/pump-bad"])
def test_the_page_is_as_wide_as_the_screen(seen: Seen, width: int, path: str) -> None:
    seen.show(path, width=width)
    assert seen("return document.documentElement.scrollWidth <= innerWidth")
    assert seen("return innerWidth") == width


def test_the_page_asks_nobody_but_the_agent_and_breaks_none_of_its_own_rules(
    seen: Seen,
) -> None:
    seen.chromium.get_log("browser")  # type: ignore[no-untyped-call]
    seen.show()
    seen.show("#/asset/pump-bad")
    asked = seen("return performance.getEntriesByType('resource').map(r => r.name)")
    assert any(url.endswith("/v1/assets/pump-bad.json") for url in asked)
    assert all(url.startswith(seen.url) for url in asked)
    assert seen.chromium.get_log("browser") == []  # type: ignore[no-untyped-call]


def test_the_page_says_when_the_agent_is_silent(
    chromium: "Chrome", page: Callable[..., Page], snapshot: Snapshot
) -> None:
    shown = page(well(snapshot, connected=True))
    seen = Seen(chromium, f"http://127.0.0.1:{shown.port}/")
    seen.show()
    assert seen("return document.getElementById('silent').hidden")
    shown.close()
    seen.wait("!document.getElementById('silent').hidden")
    assert "No answer from the agent since" in seen(
        "return document.getElementById('silent').innerText"
    )


def test_what_changes_is_shown_without_a_reload(
    chromium: "Chrome", page: Callable[..., Page], snapshot: Snapshot
) -> None:
    good = well(snapshot, connected=True)
    before = with_reports(good, report("pump-1", state="healthy", health=0.9, score=0.2))
    shown = page(before)
    seen = Seen(chromium, f"http://127.0.0.1:{shown.port}/")
    seen.show()
    seen("document.querySelector('#assets a').focus()")
    after = with_reports(
        good,
        report("pump-1", state="healthy", health=0.9, score=0.2),
        report("pump-2", state="failing", health=0.1, score=4.0),
        alert=("pump-2",),
    )
    shown.show(after)
    seen.wait("document.querySelector('#assets a').textContent === 'pump-2'")
    # Who reads the table by keyboard stays where he was.
    assert seen("return document.activeElement.textContent") == "pump-1"
