"""Results wait for the broker in the store: new ones go at once, old ones beside them, marked."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import Keep, Mqtt
from agent.mqtt import Link
from agent.publish import REPLAY_WINDOW, STRETCHES, Publisher, _joined
from agent.store import Store, Unsent

SITE = "test"
S = 1_000_000_000


class Outbox:
    """A store, and a publisher that follows it to a real broker; time is the test's."""

    def __init__(self, folder: Path, port: int, keep: Keep) -> None:
        self.now_s = 0.0
        self._opened = ExitStack()
        self.store = Store(folder, keep, clock=lambda: round(self.now_s * S))
        self._opened.callback(self.store.close)
        self.link = Link(
            Mqtt(port=port),
            client_id="outbox",
            filters=[],
            will=None,
            receive=lambda _: None,
        )
        self._opened.callback(self.link.close)
        self.publisher = Publisher(self.store, self.link, SITE, "node", clock=lambda: self.now_s)

    def say(self, numbers: range, kind: str = "health", asset: str = "pump-1") -> None:
        """Write results with these numbers down."""
        self.store.begin()
        self.store.add_results([(asset, kind, b'{"n":%d}' % n) for n in numbers])
        self.store.commit()

    def connect(self) -> None:
        self.link.open()
        assert self.link.connected.wait(60)

    def pump(self, plant: Any, until: Callable[[], bool], step_s: float = 0.01) -> None:
        """Let the publisher work, and its time go on, until something is so."""
        for _ in range(6000):
            self.now_s += step_s
            self.publisher.pump()
            if until():
                return
            self.link.wait_for_acks(0.01)
        pytest.fail(f"never so; {len(plant.heard)} results were heard")

    def drain(self, plant: Any, count: int) -> None:
        """Work until everything is with the broker, and so many results were heard."""
        self.pump(plant, lambda: self.publisher.waiting == 0 and len(plant.heard) >= count)

    def close(self) -> None:
        self._opened.close()


@pytest.fixture
def outbox(tmp_path: Path, stopped_broker: Any) -> Iterator[Callable[..., Outbox]]:
    """Open outboxes on one store, one after the other."""
    with ExitStack() as opened:

        def make(**keep: Any) -> Outbox:
            config = Keep(**{"power_loss_safe": False, **keep})
            made = Outbox(tmp_path / "state", stopped_broker.port, config)
            opened.callback(made.close)
            return made

        yield make


def heard(plant: Any) -> list[dict[str, Any]]:
    """Return what was heard of results, in its order; the last level of the topic as ``kind``."""
    found = []
    for topic, payload in list(plant.heard):
        found.append({"kind": topic.rsplit("/", 1)[1], **msgspec.json.decode(payload)})
    return found


@pytest.fixture
def plant(broker: Any, connect: Callable[..., Any]) -> Any:
    return connect(broker, also=[f"runout/v1/{SITE}/+/+/alert"])


def test_after_an_outage_what_is_new_does_not_wait_for_the_backlog(
    plant: Any, outbox: Callable[..., Outbox]
) -> None:
    box = outbox()
    box.say(range(2000))
    box.connect()
    box.publisher.pump()
    box.say(range(2000, 2010))
    # Time stands: no more of the backlog may go than goes at once, and what is new goes all.
    box.pump(plant, lambda: len(plant.heard) >= REPLAY_WINDOW + 10, step_s=0.0)
    for _ in range(20):
        box.publisher.pump()
        box.link.wait_for_acks(0.01)
    found = heard(plant)
    assert [one["n"] for one in found if "replayed" not in one] == list(range(2000, 2010))
    assert [one["n"] for one in found if "replayed" in one] == list(range(REPLAY_WINDOW))
    assert box.publisher.waiting == 2000 - REPLAY_WINDOW
    box.drain(plant, 2010)
    replayed = [one["n"] for one in heard(plant) if one.get("replayed") is True]
    assert replayed == list(range(2000))


def test_alerts_of_a_backlog_are_replayed_before_its_health(
    plant: Any, outbox: Callable[..., Outbox]
) -> None:
    box = outbox()
    for n in range(0, 300, 3):
        box.say(range(n, n + 2))
        box.say(range(n + 2, n + 3), kind="alert")
    box.connect()
    box.drain(plant, 300)
    found = heard(plant)
    kinds = [one["kind"] for one in found]
    assert kinds == ["alert"] * 100 + ["health"] * 200
    for kind in ("alert", "health"):
        numbers = [one["n"] for one in found if one["kind"] == kind]
        assert numbers == sorted(numbers)


def test_results_written_while_the_connection_stands_keep_their_order_and_bear_no_mark(
    plant: Any, outbox: Callable[..., Outbox]
) -> None:
    box = outbox()
    box.connect()
    box.publisher.pump()
    for n in range(0, 1500, 5):
        box.say(range(n, n + 5), kind="alert" if n % 50 == 0 else "health")
        box.publisher.pump()
    box.drain(plant, 1500)
    assert [one["n"] for one in heard(plant)] == list(range(1500))
    assert not any("replayed" in one for one in heard(plant))


def test_the_backlog_says_how_much_waits_and_how_old_it_is(
    plant: Any, outbox: Callable[..., Outbox]
) -> None:
    box = outbox()
    box.now_s = 100.0
    box.say(range(40))
    box.now_s = 160.0
    box.say(range(40, 50), kind="alert")
    assert box.publisher.waiting == 50
    assert box.publisher.oldest_age_s(170 * S) == 70.0
    box.connect()
    box.drain(plant, 50)
    assert box.publisher.oldest_age_s(999 * S) == 0.0
    assert box.publisher.sent == 50


def test_a_connection_lost_in_mid_backlog_loses_nothing_and_what_waited_goes_on(
    broker: Any, plant: Any, outbox: Callable[..., Outbox]
) -> None:
    box = outbox()
    box.say(range(600))
    box.connect()
    box.pump(plant, lambda: box.publisher.waiting <= 400)
    broker.stop()
    box.pump(plant, lambda: not box.link.connected.is_set())
    box.say(range(600, 700))
    broker.start()
    assert box.link.connected.wait(60)
    box.publisher.pump()
    box.say(range(700, 710))
    box.pump(plant, lambda: {one["n"] for one in heard(plant)} == set(range(710)))
    box.drain(plant, 710)
    assert all(one.get("replayed") for one in heard(plant) if one["n"] < 700)
    assert not any(one.get("replayed") for one in heard(plant) if one["n"] >= 700)


def test_an_agent_killed_in_mid_backlog_sends_what_the_broker_did_not_take(
    plant: Any, outbox: Callable[..., Outbox]
) -> None:
    box = outbox()
    box.say(range(1000))
    box.connect()
    box.publisher.pump()
    box.say(range(1000, 1010))
    box.pump(plant, lambda: box.publisher.waiting <= 600)
    box.publisher.save()
    box.now_s += 10.0
    box.say(range(1010, 1011))  # what was noted is written with a later batch
    box.close()
    known = len(plant.heard)
    box = outbox()
    assert box.publisher.waiting <= 601
    box.connect()
    box.pump(plant, lambda: {one["n"] for one in heard(plant)} == set(range(1011)))
    box.drain(plant, 1011)
    assert len(plant.heard) - known < 1000


def test_an_agent_that_stops_soon_after_its_last_note_sends_nothing_twice(
    plant: Any, outbox: Callable[..., Outbox]
) -> None:
    box = outbox()
    box.connect()
    box.say(range(10))
    box.drain(plant, 10)
    box.publisher.save()
    box.store.checkpoint({}, {})  # the last thing that it does, and no later batch comes
    box.close()
    box = outbox()
    assert (box.publisher.sent, box.publisher.waiting) == (10, 0)


def test_a_backlog_beyond_the_bound_is_dropped_oldest_health_first_and_counted(
    plant: Any, outbox: Callable[..., Outbox], caplog: pytest.LogCaptureFixture
) -> None:
    box = outbox(results=100)
    box.say(range(3), kind="alert")
    box.say(range(3, 253))
    box.store.checkpoint({}, {})
    assert box.store.overflowed == 150
    assert "results were dropped" in caplog.text
    box.connect()
    box.drain(plant, 103)
    found = heard(plant)
    assert [one["n"] for one in found] == [0, 1, 2, *range(153, 253)]
    box.say(range(253, 600))
    box.drain(plant, 450)
    box.publisher.save()
    box.store.seq += 1
    box.store.checkpoint({}, {})
    assert box.store.overflowed == 150, "what the broker has may go"
    box.close()
    assert outbox(results=100).store.overflowed == 150


@given(
    st.lists(st.integers(0, 10_000), min_size=2, max_size=60, unique=True).map(sorted),
)
def test_stretches_are_bounded_and_cover_what_they_did(edges: list[int]) -> None:
    pairs = zip(edges[::2], edges[1::2], strict=False)
    stretches = [Unsent("health", after, upto) for after, upto in pairs]
    found = _joined(stretches)
    assert len(found) <= STRETCHES
    assert [one.after for one in found] == sorted(one.after for one in found)
    for one in stretches:
        assert any(kept.after <= one.after and one.upto <= kept.upto for kept in found)
