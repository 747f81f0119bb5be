"""Notices to people: what is worth telling, how often, and that what is failing is told always."""

import http.server
import json
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.config import AgentConfig, Keep, NotifyConfig, Web
from agent.doctor import notices
from agent.intake import Intake
from agent.mqtt import Link
from agent.notify import Apprise, Webhook
from agent.notify.channel import Limits, NotSent
from agent.notify.courier import Courier
from agent.notify.outbox import Counts, Outbox, path_of
from agent.page.logbook import Logbook
from agent.page.server import Page
from agent.publish import Publisher
from agent.store import Store
from contract.errors import ConfigError
from contract.report import Alert

HOUR_S = 3600.0
PATIENCE_S = 60
PLACE = ("north", "rpi-1")
Configure = Callable[..., AgentConfig]
Open = Callable[[AgentConfig], Any]
through_apprise = pytest.mark.filterwarnings("ignore:.*imghdr:DeprecationWarning")


def alert(
    state: Any,
    number: int = 1,
    *,
    asset: str = "pump-1",
    failing: bool = False,
    **changes: Any,
) -> Alert:
    """Return a change of state of an asset's alert."""
    severity: Any = "failing" if failing else "degraded"
    ident = f"{asset}/0/{number}"
    text = f"{asset}: {state} [{ident}]"
    plain = Alert(ident, asset, state, 0.0, 0.0, 1.5, None, 0, (), text, severity=severity)
    return msgspec.structs.replace(plain, **changes)


# -- what is told, and how often -------------------------------------------------------------------


class Desk:
    """An outbox, its time the test's; whoever takes notices takes them at once."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path = path
        self.limits = limits
        self.now = 1e9
        self.number = 0
        self.box = Outbox(path, limits, 0)

    def hear(self, *alerts: Alert) -> None:
        """Take alerts, as the agent has stored them."""
        self.number += len(alerts)
        first = self.number - len(alerts) + 1
        found = [(first + i, msgspec.json.encode(one)) for i, one in enumerate(alerts)]
        self.box.take(found, self.number, self.now)

    def sent(self) -> list[tuple[str, str, int]]:
        """Send what may be sent now: kind, alert, and how many it stands for."""
        found = []
        while (one := self.box.next(self.now)[0]) is not None:
            found.append((one.kind, one.alert.id, one.held))
            self.box.done(one, self.now, sent=True)
        return found

    def wait_h(self, hours: float) -> None:
        self.now += hours * HOUR_S

    def kill(self) -> None:
        """Open the file again, as after a kill."""
        self.box.close()
        self.box = Outbox(self.path, self.limits, self.number)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Callable[..., Desk]]:
    with ExitStack() as opened:

        def make(**limits: Any) -> Desk:
            made = Desk(tmp_path / "notify" / "ops.db", Limits(**limits))
            opened.callback(lambda: made.box.close())  # noqa: PLW0108  # it is another by then
            return made

        yield make


def came_and_went(number: int, *, failing: bool = False) -> list[Alert]:
    return [
        alert("raised", number, failing=failing),
        alert("returned", number, failing=failing, now="returned"),
    ]


def test_an_alert_is_told_when_it_comes_when_it_gets_worse_and_when_it_is_over(
    desk: Callable[..., Desk],
) -> None:
    one = desk()
    one.hear(
        alert("raised"),
        alert("acknowledged"),
        alert("escalated", failing=True),
        alert("acknowledged", failing=True),
        alert("returned", failing=True),
        alert("normal", failing=True),
    )
    # What is worse stands for what was not told before it.
    assert one.sent() == [("escalated", "pump-1/0/1", 1), ("returned", "pump-1/0/1", 0)]


def test_what_was_told_is_not_told_again(desk: Callable[..., Desk]) -> None:
    one = desk()
    one.hear(alert("raised"))
    assert one.sent() == [("raised", "pump-1/0/1", 0)]
    one.hear(alert("raised"), alert("unacknowledged"), alert("acknowledged"))
    assert one.sent() == []


@pytest.mark.parametrize("used", [False, True], ids=["room", "none left"])
def test_what_closed_an_alert_with_the_life_is_told_as_its_end(
    used: bool, desk: Callable[..., Desk]
) -> None:
    one = desk(asset_per_h=1 if used else 6)
    one.hear(alert("raised"))
    assert one.sent() == [("raised", "pump-1/0/1", 0)]
    one.hear(alert("normal", event="failed"))
    assert one.sent() == [("returned", "pump-1/0/1", 0)]


def test_of_an_asset_that_flaps_the_first_are_told_and_then_nothing_that_was_over_at_once(
    desk: Callable[..., Desk],
) -> None:
    one = desk(asset_per_h=3)
    for number in range(1, 9):
        one.hear(*came_and_went(number))
        told = one.sent()
        expected = ("raised", f"pump-1/0/{number}", 0), ("returned", f"pump-1/0/{number}", 0)
        assert told == (list(expected) if number <= 3 else [])
        one.wait_h(0.01)
    one.hear(alert("raised", 9))
    assert one.sent() == []
    one.wait_h(1)
    assert one.sent() == [("raised", "pump-1/0/9", 10)]
    assert one.box.counts.sent == 7


def test_what_is_over_counts_against_no_limit(desk: Callable[..., Desk]) -> None:
    one = desk(asset_per_h=2, per_h=2)
    one.hear(*came_and_went(1), *came_and_went(2))
    assert len(one.sent()) == 4


def test_a_failing_machine_is_told_whatever_was_told_before(desk: Callable[..., Desk]) -> None:
    one = desk(asset_per_h=2, per_h=2)
    one.hear(*came_and_went(1), *came_and_went(2))
    one.sent()
    one.hear(alert("raised", 3))
    assert one.sent() == []
    one.hear(alert("escalated", 3, failing=True), alert("normal", 3, failing=True, event="failed"))
    assert one.sent() == [("escalated", "pump-1/0/3", 1), ("returned", "pump-1/0/3", 0)]
    one.hear(*came_and_went(4, failing=True))
    assert one.sent() == [("raised", "pump-1/0/4", 0), ("returned", "pump-1/0/4", 0)]


def test_what_is_failing_goes_before_what_has_waited_longer(desk: Callable[..., Desk]) -> None:
    one = desk()
    one.hear(
        alert("raised", asset="pump-1"),
        alert("raised", asset="pump-2"),
        alert("raised", asset="pump-3", failing=True),
    )
    assert [ident for _, ident, _ in one.sent()] == ["pump-3/0/1", "pump-1/0/1", "pump-2/0/1"]


def test_of_one_machine_all_is_told_in_order_however_urgent(desk: Callable[..., Desk]) -> None:
    one = desk()
    one.hear(alert("raised"))
    one.sent()
    one.hear(
        alert("raised", asset="pump-2"),
        alert("returned"),
        *came_and_went(2),
        *came_and_went(3, failing=True),
        alert("raised", 4, failing=True),
    )
    assert one.sent() == [
        ("returned", "pump-1/0/1", 0),
        ("raised", "pump-1/0/3", 2),
        ("returned", "pump-1/0/3", 0),
        ("raised", "pump-1/0/4", 0),
        ("raised", "pump-2/0/1", 0),
    ]


@pytest.mark.parametrize("failing", [False, True], ids=["degraded", "failing"])
def test_shelving_takes_back_what_is_degraded_and_not_yet_told_and_nothing_failing(
    failing: bool, desk: Callable[..., Desk]
) -> None:
    one = desk()
    one.hear(alert("raised", failing=failing), alert("shelved", failing=failing))
    assert one.sent() == ([("raised", "pump-1/0/1", 0)] if failing else [])
    one.hear(alert("normal", failing=failing))
    assert one.sent() == ([("returned", "pump-1/0/1", 0)] if failing else [])


def test_what_was_told_shelved_and_shown_again_is_told_again_and_so_is_its_end(
    desk: Callable[..., Desk],
) -> None:
    one = desk(asset_per_h=1)
    one.hear(alert("raised"))
    assert one.sent() == [("raised", "pump-1/0/1", 0)]
    one.hear(alert("shelved"), alert("unshelved"))
    assert one.sent() == []  # no room
    one.hear(alert("returned", now="returned"))
    assert one.sent() == [("returned", "pump-1/0/1", 0)]
    one.hear(alert("raised", 2))
    one.wait_h(1)
    assert one.sent() == [("raised", "pump-1/0/2", 1)]


def test_the_limit_of_all_assets_together_holds_back_the_newest_too(
    desk: Callable[..., Desk],
) -> None:
    one = desk(per_h=2)
    for number in range(1, 5):
        one.hear(alert("raised", asset=f"pump-{number}"))
    assert [ident for _, ident, _ in one.sent()] == ["pump-1/0/1", "pump-2/0/1"]
    assert one.box.next(one.now) == (None, HOUR_S)
    one.hear(alert("returned", asset="pump-3"))  # nobody knew
    assert one.sent() == []
    one.wait_h(1)
    assert one.sent() == [("raised", "pump-4/0/1", 0)]


def test_when_too_much_waits_the_oldest_gives_way_and_what_is_failing_last(
    desk: Callable[..., Desk],
) -> None:
    one = desk(backlog=3)
    one.hear(alert("raised", asset="pump-0", failing=True))
    one.hear(*[alert("raised", asset=f"pump-{n}") for n in range(1, 6)])
    assert one.box.counts.dropped == 3
    assert [ident for _, ident, _ in one.sent()] == ["pump-0/0/1", "pump-4/0/1", "pump-5/0/1"]


def test_after_a_kill_all_goes_on_where_it_stood(desk: Callable[..., Desk]) -> None:
    one = desk(asset_per_h=1)
    one.hear(alert("raised"), alert("raised", asset="pump-2"))
    assert len(one.sent()) == 2
    one.hear(alert("returned"), *came_and_went(2), alert("raised", 3))
    one.box.failed("no way")
    counts = one.box.counts
    one.kill()
    assert one.box.seen == one.number
    assert one.box.counts == counts
    assert counts == Counts(2, 1, 0, 0, 4, one.now, "no way")
    assert one.sent() == [("returned", "pump-1/0/1", 0)]
    one.kill()
    assert one.sent() == []
    one.wait_h(1)
    assert one.sent() == [("raised", "pump-1/0/3", 2)]
    assert one.box.counts.trouble == ""


def test_a_damaged_file_is_set_aside_and_begun_anew(desk: Callable[..., Desk]) -> None:
    one = desk()
    one.hear(alert("raised"))
    one.box.close()
    one.path.write_bytes(b"this is no database" * 1000)
    for end in ("-wal", "-shm"):
        one.path.with_name(one.path.name + end).unlink(missing_ok=True)
    one.kill()
    assert one.path.with_name("damaged-ops.db").exists()
    one.hear(alert("raised", 2))
    assert one.sent() == [("raised", "pump-1/0/2", 0)]


# -- sent, to a real server ------------------------------------------------------------------------


class Receiver:
    """A server that takes notices on, or answers as it is told to."""

    def __init__(self) -> None:
        self.answers: deque[int] = deque()
        """Of the next requests; then 204."""
        self.got: list[dict[str, Any]] = []
        """Bodies that were taken on."""
        self.headers: list[dict[str, str]] = []
        self.asked = 0
        self._changed = threading.Condition()
        own = self

        class Connection(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with own._changed:
                    own.asked += 1
                    status = own.answers.popleft() if own.answers else 204
                    if status < 300:
                        own.got.append(body)
                        own.headers.append(dict(self.headers))
                    own._changed.notify_all()
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Connection)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def wait(self, ready: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(ready, PATIENCE_S), self.got

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


class Agent:
    """A store that alerts are written to, and couriers that follow it."""

    def __init__(self, folder: Path, opened: ExitStack) -> None:
        self.folder = folder
        self.store = Store(folder, Keep(power_loss_safe=False))
        self._opened = opened
        opened.callback(self.store.close)

    def courier(self, config: NotifyConfig, clock: Callable[[], float] = lambda: 1e9) -> Courier:
        made = Courier(config, self.folder, PLACE, clock)
        self._opened.callback(made.close)
        follow(made)
        return made

    def say(self, courier: Courier, *alerts: Alert) -> None:
        self.store.begin()
        self.store.add_results([(one.asset, "alert", msgspec.json.encode(one)) for one in alerts])
        self.store.commit()
        courier.wake()


@pytest.fixture
def agent_store(tmp_path: Path) -> Iterator[Agent]:
    with ExitStack() as opened:
        yield Agent(tmp_path / "state", opened)


def follow(courier: Courier) -> None:
    """Start a courier, and wait until it has looked: a new one begins behind what is there."""
    before = courier.counts
    courier.open()
    until(lambda: courier.counts is not before)


def until(ready: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    pause = threading.Event()
    for _ in range(PATIENCE_S * 100):
        if ready():
            return
        pause.wait(0.01)
    pytest.fail("it never came")


def test_a_notice_is_posted_as_json_and_names_the_alert(
    agent_store: Agent, receiver: Receiver, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("Bearer abc\n")
    config = Webhook(name="ops", url=receiver.url, secret_file=str(tmp_path / "secret"))
    courier = agent_store.courier(config)
    agent_store.say(courier, alert("raised", failing=True, rul_h=31.0))
    receiver.wait(lambda: len(receiver.got) == 1)
    (body,), (headers,) = receiver.got, receiver.headers
    number = f"north/rpi-1/{agent_store.store.last_result}"
    assert {key: body[key] for key in ("type", "id", "kind", "site", "node", "held_back")} == {
        "type": "notice",
        "id": number,
        "kind": "raised",
        "site": "north",
        "node": "rpi-1",
        "held_back": 0,
    }
    assert body["text"] == "pump-1: raised [pump-1/0/1]"
    assert body["alert"]["id"] == "pump-1/0/1"
    assert body["alert"]["rul_h"] == 31.0
    assert headers["Authorization"] == "Bearer abc"
    assert headers["Idempotency-Key"] == f'"{number}"'
    until(lambda: courier.counts.sent == 1)


def test_what_could_not_be_sent_is_sent_again_and_in_order(
    agent_store: Agent, receiver: Receiver
) -> None:
    receiver.answers.extend([500, 503])
    courier = agent_store.courier(Webhook(url=receiver.url, retry_max_s=1.0))
    agent_store.say(courier, alert("raised"), alert("raised", asset="pump-2"))
    receiver.wait(lambda: len(receiver.got) == 2)
    assert [body["alert"]["asset"] for body in receiver.got] == ["pump-1", "pump-2"]
    until(lambda: courier.counts.sent == 2)
    assert courier.counts == Counts(sent=2, failed=2)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_the_receiver_refuses_is_given_up_and_the_next_one_goes(
    status: int, agent_store: Agent, receiver: Receiver
) -> None:
    receiver.answers.append(status)
    courier = agent_store.courier(Webhook(url=receiver.url))
    agent_store.say(courier, alert("raised"), alert("raised", asset="pump-2"))
    receiver.wait(lambda: len(receiver.got) == 1)
    until(lambda: courier.counts.sent == 1)
    assert (courier.counts.given_up, receiver.asked) == (1, 2)


def test_what_could_not_be_sent_for_too_long_is_given_up(
    agent_store: Agent, receiver: Receiver
) -> None:
    hours = [0.0]
    receiver.answers.extend([500, 500])
    config = Webhook(url=receiver.url, give_up_h=2.0, retry_max_s=1.0)
    courier = agent_store.courier(config, lambda: 1e9 + hours[0] * HOUR_S)
    agent_store.say(courier, alert("raised"))
    until(lambda: courier.counts.failed == 1)
    hours[0] = 3.0
    receiver.wait(lambda: receiver.asked == 2)
    until(lambda: courier.counts.given_up == 1)
    assert courier.counts.waiting == 0
    agent_store.say(courier, alert("raised", 2))
    receiver.wait(lambda: len(receiver.got) == 1)


def test_a_redirection_is_not_followed(receiver: Receiver) -> None:
    receiver.answers.append(302)
    channel = Webhook(url=receiver.url).build()
    with pytest.raises(NotSent, match="302"):
        channel.send(_notice(alert("raised")))
    assert receiver.asked == 1


def test_who_cannot_be_reached_is_told_of_in_plain_words(
    free_ports: Callable[[], int],
) -> None:
    channel = Webhook(url=f"http://127.0.0.1:{free_ports()}/").build()
    with pytest.raises(NotSent, match=r"^\[Errno \d+\] Connection refused$") as told:
        channel.send(_notice(alert("raised")))
    assert not told.value.final


def test_what_waited_when_the_agent_ended_is_sent_by_the_next(
    agent_store: Agent, receiver: Receiver
) -> None:
    receiver.answers.extend([503] * 3)
    courier = agent_store.courier(Webhook(url=receiver.url))
    agent_store.say(courier, alert("raised"))
    receiver.wait(lambda: receiver.asked >= 1)
    courier.close()
    assert not courier.alive
    agent_store.say(courier, alert("escalated", failing=True))  # while nobody follows
    receiver.answers.clear()
    again = agent_store.courier(Webhook(url=receiver.url))
    receiver.wait(lambda: len(receiver.got) == 1)
    (body,) = receiver.got
    assert (body["kind"], body["held_back"]) == ("escalated", 1)
    until(lambda: again.counts.sent == 1)
    again.close()


def test_a_channel_that_is_new_does_not_tell_what_is_past(
    agent_store: Agent, receiver: Receiver
) -> None:
    first = agent_store.courier(Webhook(url=receiver.url))
    agent_store.say(first, alert("raised"))
    receiver.wait(lambda: len(receiver.got) == 1)
    second = agent_store.courier(Webhook(name="second", url=receiver.url))
    agent_store.say(second, alert("raised", asset="pump-2"))
    receiver.wait(lambda: len(receiver.got) == 2)
    assert receiver.got[1]["alert"]["asset"] == "pump-2"
    assert second.counts.waiting == 0


# -- through Apprise -------------------------------------------------------------------------------


def _notice(one: Alert, kind: Any = "raised", held: int = 0) -> Any:
    from agent.notify.channel import Notice

    return Notice("north/rpi-1/7", kind, *PLACE, one.text, held, one)


@through_apprise
@pytest.mark.parametrize(
    ("kind", "one", "kind_there", "title"),
    [
        ("raised", alert("raised"), "warning", "pump-1: alert (north/rpi-1)"),
        ("raised", alert("raised", failing=True), "failure", "pump-1: alert (north/rpi-1)"),
        (
            "escalated",
            alert("escalated", failing=True),
            "failure",
            "pump-1: alert, worse (north/rpi-1)",
        ),
        (
            "returned",
            alert("returned", failing=True),
            "success",
            "pump-1: alert over (north/rpi-1)",
        ),
        (
            "returned",
            alert("normal", failing=True, event="failed"),
            "info",
            "pump-1: alert over (north/rpi-1)",
        ),
    ],
    ids=["degraded", "failing", "worse", "over", "failed"],
)
def test_apprise_says_how_bad_it_is(
    kind: str, one: Alert, kind_there: str, title: str, receiver: Receiver, tmp_path: Path
) -> None:
    urls = tmp_path / "urls"
    urls.write_text(f"# of the shift\n\njson://127.0.0.1:{receiver.port}/apprise\n")
    Apprise(urls_file=str(urls)).build().send(_notice(one, kind, held=2))
    (body,) = receiver.got
    assert (body["type"], body["title"]) == (kind_there, title)
    assert body["message"] == f"{one.text}\n(2 earlier notices of it were held back)"


@through_apprise
def test_what_apprise_could_not_deliver_is_sent_again(receiver: Receiver, tmp_path: Path) -> None:
    urls = tmp_path / "urls"
    urls.write_text(f"json://127.0.0.1:{receiver.port}/")
    channel = Apprise(urls_file=str(urls)).build()
    receiver.answers.append(500)
    with pytest.raises(NotSent) as told:
        channel.send(_notice(alert("raised")))
    assert not told.value.final
    channel.send(_notice(alert("raised")))
    assert len(receiver.got) == 1


@through_apprise
def test_a_url_that_apprise_does_not_know_is_named_by_its_line_and_not_shown(
    tmp_path: Path,
) -> None:
    urls = tmp_path / "urls"
    urls.write_text("# here\nnosuch://secret@host\n")
    with pytest.raises(ConfigError, match=r"urls:2: Apprise does not know") as told:
        Apprise(urls_file=str(urls)).build()
    assert "secret" not in str(told.value)


# -- for who looks ---------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_channel_whose_thread_has_ended_is_not_well(
    configure: Configure, device: Open, receiver: Receiver
) -> None:
    node = device(configure())
    with ExitStack() as opened:
        courier = Courier(Webhook(name="ops", url=receiver.url), node.config.state, PLACE)
        opened.callback(courier.close)
        follow(courier)
        link = Link(node.config.mqtt, client_id="x", filters=[], will=None, receive=_nothing)
        opened.callback(link.close)
        link.open()
        publisher = Publisher(node.engine.store, link, "test", "node")
        page = Page(Web(port=0), node.config.state)
        logbook = Logbook(
            node.engine, link, {}, publisher, Intake(10), page.show, couriers=[courier]
        )
        opened.callback(logbook.close)

        def shown() -> Any:
            page.show(logbook.snapshot())
            return page.troubles(0.0)

        assert shown() == []
        # An alert that is none ends the thread, as a fault of the program would.
        store = node.engine.store
        store.begin()
        store.add_results([("pump-1", "alert", b'{"type":"alert"}')])
        store.commit()
        courier.wake()
        until(lambda: not courier.alive)
        assert shown() == ["the thread of channel ops has ended: no notices are sent"]


def _nothing(_: object) -> None:
    pass


def test_the_doctor_says_what_became_of_notices(
    configure: Configure, device: Open, receiver: Receiver, tmp_path: Path
) -> None:
    channel = Webhook(name="ops", url=receiver.url)
    config = configure(notify=(channel,))

    def found(now: float = 1e9) -> tuple[str, str]:
        (check,) = notices.checks(config)
        del check
        one = notices.sends(config, channel, now)
        return one.level, one.text

    assert found() == ("ok", "none yet: the agent has not run with this channel")
    device(config)
    box = Outbox(path_of(config.state, "ops"), channel, 0)
    try:
        assert found() == ("ok", "0 sent")
        box.take([(1, msgspec.json.encode(alert("raised")))], 1, 1e9)
        assert found(1e9 + 60)[0] == "ok"
        assert found(1e9 + 3600) == (
            "warning",
            "0 sent, 1 waiting, the oldest since 2001-09-09 01:46 UTC",
        )
        box.failed("answered 500 Broken")
        level, text = found()
        assert level == "warning"
        assert text.endswith("UTC; the last attempt failed: answered 500 Broken")
        one, _ = box.next(1e9)
        assert one is not None
        box.done(one, 1e9, sent=True)
        assert found() == ("ok", "1 sent")
    finally:
        box.close()
    lost = Webhook(name="lost", url=receiver.url, secret_file=str(tmp_path / "none"))
    assert notices.sends(config, lost).level == "fault"
