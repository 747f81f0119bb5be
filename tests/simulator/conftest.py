"""A real broker, and a small real subscriber that counts as an agent does."""

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from contract.report import NodeStatus
from contract.topics import EVENT, READINGS, parse, status_topic, subscription
from simulator.sinks.mqtt import Address

_CONFIG = """listener {port} 127.0.0.1
allow_anonymous true
max_inflight_messages 1000
max_queued_messages 0
set_tcp_nodelay true
"""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Mosquitto:
    """A broker process of one's own; remembers nothing when it is started again."""

    def __init__(self, folder: Path) -> None:
        self.address = Address("127.0.0.1", free_port())
        self._config = folder / "mosquitto.conf"
        self._config.write_text(_CONFIG.format(port=self.address.port))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return when connections are taken."""
        path = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
        if path is None:
            if os.environ.get("CI"):
                pytest.fail("mosquitto is not on PATH, and CI must run these tests")
            pytest.skip("mosquitto is not on PATH")
        self._process = subprocess.Popen(
            [path, "-c", str(self._config)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if b" running\n" in line:
                break
        else:
            pytest.fail("mosquitto ended before it was ready")
        # Drained, so that a full pipe can never hold the broker up.
        self._drain = threading.Thread(target=self._process.stdout.read)
        self._drain.start()
        socket.create_connection((self.address.host, self.address.port), timeout=10).close()

    def stop(self) -> None:
        """End, if it runs."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=10)
            self._drain.join()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None


class Listener:
    """Reads a node's assets and reports its counts, as an agent does; keeps what it read.

    Attributes:
        rows: (asset, t) to values, in the order of arrival.
        events: (asset, event, t), in the order of arrival.
        repeated: rows that came again.
    """

    def __init__(
        self,
        address: Address,
        node: str,
        *,
        site: str = "demo",
        readings: int = 0,
        mute: bool = False,
    ) -> None:
        self.node, self.site = node, site
        self.rows: dict[tuple[str, float], dict[str, float]] = {}
        self.events: list[tuple[str, str, float]] = []
        self.repeated = 0
        self.base = readings
        self.mute = mute
        self.changed = threading.Condition()
        self._address = address
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv311)
        self._client.reconnect_delay_set(1, 1)
        self._client.max_inflight_messages_set(1000)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message

    def start(self) -> "Listener":
        """Connect, now or when the broker comes."""
        self._client.connect_async(self._address.host, self._address.port)
        self._client.loop_start()
        return self

    def stop(self) -> None:
        """End, if it runs."""
        self._client.disconnect()
        self._client.loop_stop()

    def forget(self) -> None:
        """Begin with an empty store."""
        with self.changed:
            self.rows, self.events, self.base, self.repeated = {}, [], 0, 0

    def wait(self, ready: Callable[[], bool]) -> None:
        """Wait until what was read makes ``ready`` true."""
        with self.changed:
            assert self.changed.wait_for(ready, timeout=60)

    def say(self) -> None:
        """Publish the status."""
        status = NodeStatus(
            self.node,
            online=True,
            readings=self.base + len(self.rows),
            events=len(self.events),
            repeated=self.repeated,
        )
        self._client.publish(
            status_topic(self.site, self.node), msgspec.json.encode(status), qos=1, retain=True
        )

    def _on_connect(self, *_: object) -> None:
        self._client.subscribe(subscription(self.site, self.node), qos=1)

    def _on_subscribe(self, *_: object) -> None:
        if not self.mute:
            self.say()

    def _on_message(self, _client: object, _userdata: object, message: mqtt.MQTTMessage) -> None:
        topic = parse(message.topic)
        body = msgspec.json.decode(message.payload)
        with self.changed:
            if topic.leaf == READINGS:
                key = (topic.asset, body["t"])
                if key in self.rows:
                    self.repeated += 1
                self.rows[key] = body["v"]
            elif topic.leaf == EVENT:
                event = (topic.asset, body["event"], body["t"])
                if event not in self.events:
                    self.events.append(event)
            self.changed.notify_all()
        if not self.mute:
            self.say()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    mosquitto = Mosquitto(tmp_path)
    mosquitto.start()
    yield mosquitto
    mosquitto.stop()


@pytest.fixture
def listen(broker: Mosquitto) -> Iterator[Callable[..., Listener]]:
    """Start listeners that end with the test."""
    started: list[Listener] = []

    def start(node: str, *, readings: int = 0, mute: bool = False) -> Listener:
        started.append(Listener(broker.address, node, readings=readings, mute=mute).start())
        return started[-1]

    yield start
    for listener in started:
        listener.stop()


@pytest.fixture(scope="session")
def cmapss_folder() -> Path:
    """Return the folder of the real recording."""
    root = Path(__file__).parents[2]
    folder = (root / os.environ.get("RUNOUT_DATA", "../shared/data") / "cmapss_fd001").resolve()
    if not folder.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"{folder} is absent, and CI must run these tests: set RUNOUT_DATA")
        pytest.skip(f"{folder} is absent: set RUNOUT_DATA to the recordings")
    return folder
