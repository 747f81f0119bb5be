"""The sink against a real broker and real subscribers."""

import socket
import threading
from dataclasses import dataclass, field
from typing import Any

import pytest

from contract.errors import RunoutError
from contract.topics import READINGS, asset_topic
from simulator.sinks.mqtt import Address, MqttSink


@dataclass
class Said:
    """Takes the sink's lines, and lets a test wait for one."""

    lines: list[str] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def __call__(self, line: str) -> None:
        """Take a line."""
        with self.changed:
            self.lines.append(line)
            self.changed.notify_all()

    def wait_for(self, part: str) -> None:
        """Return when a line with this part was said."""
        with self.changed:
            assert self.changed.wait_for(lambda: any(part in s for s in self.lines), timeout=30)


def send(sink: MqttSink, t: int, node: str = "node-01") -> None:
    payload = b'{"t":%d,"v":{"flow":1.5}}' % t
    sink.send(node, asset_topic("demo", node, "pump-1", READINGS), payload)


def test_everything_sent_is_confirmed_when_finish_returns(broker: Any, listen: Any) -> None:
    agent = listen("node-01")
    with MqttSink(broker.address, site="demo", nodes=["node-01"], window=50, timeout_s=30) as sink:
        for t in range(2000):
            send(sink, t)
        sink.finish()
        assert sink.lag() == {"node-01": 0}
    assert [t for _, t in agent.rows] == list(range(2000))


def test_counts_from_before_the_replay_are_not_mistaken_for_its_own(
    broker: Any, listen: Any
) -> None:
    agent = listen("node-01", readings=5000)
    with MqttSink(broker.address, site="demo", nodes=["node-01"], window=10, timeout_s=30) as sink:
        for t in range(100):
            send(sink, t)
        sink.finish()
    assert len(agent.rows) == 100


def test_a_node_that_confirms_nothing_gets_no_more_than_the_window(
    broker: Any, listen: Any
) -> None:
    agent = listen("node-01")
    agent.wait(lambda: True)
    with MqttSink(
        broker.address, site="demo", nodes=["node-01"], window=25, timeout_s=1.0, say=Said()
    ) as sink:
        send(sink, 0)
        sink.finish()
        agent.mute = True

        def everything() -> None:
            for t in range(1, 100):
                send(sink, t)

        with pytest.raises(RunoutError, match="node-01: 1 of 26 rows and 0 of 0 events confirmed"):
            everything()
    assert len(agent.rows) == 26


def test_a_silent_node_is_named_and_the_replay_goes_on_when_it_comes(
    broker: Any, listen: Any
) -> None:
    said = Said()
    done = threading.Event()

    def replay() -> None:
        with MqttSink(
            broker.address,
            site="demo",
            nodes=["node-01"],
            timeout_s=60,
            notice_s=0.2,
            say=said,
        ) as sink:
            send(sink, 0)
            sink.finish()
        done.set()

    thread = threading.Thread(target=replay)
    thread.start()
    said.wait_for("waiting for node-01: no status on runout/v1/demo/node-01/status")
    listen("node-01")
    thread.join(timeout=60)
    assert done.is_set()


def test_a_standstill_ends_with_the_nodes_and_their_counts(broker: Any, listen: Any) -> None:
    listen("node-01")
    with (
        MqttSink(
            broker.address, site="demo", nodes=["node-01", "node-02"], timeout_s=0.5, say=Said()
        ) as sink,
        pytest.raises(RunoutError, match="node-02: no status"),
    ):
        send(sink, 0, "node-02")


def test_rows_that_a_node_already_holds_are_an_error_and_not_a_long_wait(
    broker: Any, listen: Any
) -> None:
    listen("node-01")
    options = {"site": "demo", "nodes": ["node-01"], "timeout_s": 60, "notice_s": 0.2}
    with MqttSink(broker.address, **options) as sink:
        send(sink, 0)
        sink.finish()
    with MqttSink(broker.address, **options) as sink:
        send(sink, 0)
        with pytest.raises(RunoutError, match="node-01 holds these rows already"):
            sink.finish()


def test_a_store_made_anew_is_said_and_the_replay_ends(broker: Any, listen: Any) -> None:
    agent, said = listen("node-01"), Said()
    with MqttSink(
        broker.address, site="demo", nodes=["node-01"], window=10, timeout_s=30, say=said
    ) as sink:
        for t in range(50):
            send(sink, t)
        sink.finish()
        agent.forget()
        for t in range(50, 100):
            send(sink, t)
        sink.finish()
    said.wait_for("its store was made anew")
    assert len(agent.rows) == 50


def test_a_broker_that_forgets_everything_loses_nothing(broker: Any, listen: Any) -> None:
    agent, said = listen("node-01"), Said()
    with MqttSink(
        broker.address, site="demo", nodes=["node-01"], window=100, timeout_s=60, say=said
    ) as sink:
        for t in range(500):
            send(sink, t)
        broker.stop()
        broker.start()
        for t in range(500, 1000):
            send(sink, t)
        sink.finish()
    assert {t for _, t in agent.rows} == set(range(1000))
    said.wait_for("connection lost")


def test_without_a_window_nobody_is_waited_for_but_the_broker(broker: Any, listen: Any) -> None:
    agent = listen("node-01", mute=True)
    with MqttSink(
        broker.address, site="demo", nodes=["node-01"], window=None, timeout_s=30
    ) as sink:
        for t in range(3000):
            send(sink, t)
        sink.finish()
        assert sink.lag() == {}
    agent.wait(lambda: bool(agent.rows))


def test_an_absent_broker_is_one_clear_line_with_the_mend() -> None:
    said = Said()
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        address = Address("127.0.0.1", reserved.getsockname()[1])
        sink = MqttSink(address, site="demo", nodes=["n"], connect_timeout_s=0.3, say=said)
        with pytest.raises(
            RunoutError, match=r"no broker at 127.0.0.1:\d+ within 0.3 s .*--broker"
        ):
            sink.__enter__()
    assert len(said.lines) == 1
    assert "Connection refused; trying for" in said.lines[0]


def test_what_listens_but_is_no_broker_is_told_apart() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = Address("127.0.0.1", server.getsockname()[1])
        sink = MqttSink(address, site="demo", nodes=["n"], connect_timeout_s=0.3)
        with pytest.raises(RunoutError, match="does not answer as an MQTT broker"):
            sink.__enter__()


@pytest.mark.parametrize("text", ["", "host:", ":1883", "host:0", "host:x", "host:70000"])
def test_an_address_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(RunoutError, match="HOST:PORT"):
        Address.parse(text)
