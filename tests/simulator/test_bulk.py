"""In bulk, as fast as the broker takes it: nothing lost, and many machines in the order of time."""

import heapq
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.enums import CallbackAPIVersion

from contract.errors import RunoutError
from simulator import cli
from simulator.merge import merged
from simulator.message import Message
from simulator.sinks.bulk import MAX_UNACKED, BulkSink
from simulator.sinks.mqtt import Address

SCENARIO = Path(__file__).parents[2] / "configs" / "scenarios" / "one_bearing.toml"


class Subscriber:
    """Keeps what is published."""

    def __init__(self, address: Address, topic: str) -> None:
        self.heard: list[tuple[str, bytes, int]] = []
        self.changed = threading.Condition()
        ready = threading.Event()
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2)
        self.client.on_message = self._on_message
        self.client.on_subscribe = lambda *_: ready.set()
        self.client.connect(address.host, address.port)
        self.client.subscribe(topic, qos=1)
        self.client.loop_start()
        assert ready.wait(10)

    def _on_message(self, _client: object, _userdata: object, message: mqtt.MQTTMessage) -> None:
        with self.changed:
            self.heard.append((message.topic, message.payload, message.qos))
            self.changed.notify_all()

    def wait(self, count: int) -> None:
        """Return when so many messages were heard."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.heard) >= count, timeout=60)


@pytest.fixture
def subscriber(broker: Any) -> Iterator[Subscriber]:
    listening = Subscriber(broker.address, "t/#")
    yield listening
    listening.client.disconnect()
    listening.client.loop_stop()


def test_all_of_it_arrives_once_in_order_whatever_the_size(
    broker: Any, subscriber: Subscriber
) -> None:
    # Lengths around those at which a packet's own length grows by a byte.
    payloads = [bytes([at % 251]) * size for at in range(40) for size in (0, 120, 125, 16_370)]
    with BulkSink(broker.address) as sink:
        for at, payload in enumerate(payloads):
            sink.send("n", f"t/{at % 3}", payload, qos=at % 2)
        sink.finish()
    subscriber.wait(len(payloads))
    assert [payload for _, payload, _ in subscriber.heard] == payloads
    assert [(topic, qos) for topic, _, qos in subscriber.heard] == [
        (f"t/{at % 3}", at % 2) for at in range(len(payloads))
    ]


def test_more_messages_than_there_are_numbers(broker: Any) -> None:
    with BulkSink(broker.address) as sink:
        for _ in range(65_536 + 2 * MAX_UNACKED):
            sink.send("n", "u", b"x")
        sink.finish()
        assert sink.lag() == {}


def test_a_will_is_left_where_the_connection_breaks(broker: Any, subscriber: Subscriber) -> None:
    with BulkSink(broker.address, will=("t/gone", b"w" * 200)) as sink:
        assert sink.lag() == {}
    subscriber.wait(1)
    assert subscriber.heard == [("t/gone", b"w" * 200, 1)]
    with BulkSink(broker.address, will=("t/gone", b"again")) as sink:
        sink.finish()
    with BulkSink(broker.address) as sink:
        sink.send("n", "t/2", b"last")
        sink.finish()
    subscriber.wait(2)
    assert b"again" not in {payload for _, payload, _ in subscriber.heard}


def test_a_broker_that_is_not_there_or_goes_is_said(broker: Any) -> None:
    with (
        pytest.raises(RunoutError, match=r"no broker at 127\.0\.0\.1:1 "),
        BulkSink(Address("127.0.0.1", 1)),
    ):
        pass
    with BulkSink(broker.address) as sink:
        broker.stop()
        with pytest.raises(RunoutError, match="is gone"):
            sink.finish()


def test_a_broker_that_takes_nothing_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = Address("127.0.0.1", server.getsockname()[1])
        with (
            pytest.raises(RunoutError, match="has taken nothing"),
            BulkSink(address, timeout_s=0.2),
        ):
            pass


def test_a_plant_is_played_as_fast_as_the_broker_takes_it(
    broker: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    subscriber = Subscriber(broker.address, "runout/v1/demo/node-01/+/readings")
    args = ["run", "--scenario", str(SCENARIO), "--speed", "max", "--phase", "present"]
    try:
        assert cli.main([*args, "--broker", str(broker.address)]) == 0
        said = capsys.readouterr().out
        rows = int(said.split()[1])
        assert "all taken by the broker for node-01" in said
        subscriber.wait(rows)
        assert len(subscriber.heard) == rows
    finally:
        subscriber.client.disconnect()
        subscriber.client.loop_stop()
    assert cli.main([*args, "--format", "sparkplug"]) == 2
    assert "take --speed X" in capsys.readouterr().err


def message(series: int, t: float, at: int) -> Message:
    return Message(t, "n", str(series), str(at), b"", 1, 0)


@given(st.lists(st.lists(st.integers(0, 5)), max_size=6))
def test_merging_is_that_of_the_library(times: list[list[int]]) -> None:
    def series() -> list[Iterator[Message]]:
        return [
            iter([message(number, t, at) for at, t in enumerate(sorted(of))])
            for number, of in enumerate(times)
        ]

    assert list(merged(series())) == list(heapq.merge(*series(), key=lambda m: m.t))
