"""A real broker that remembers, real agents, and a small real client that talks to them."""

import getpass
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from agent.app import Engine
from agent.batch import Batch, Event, Rows
from agent.config import AgentConfig, Keep, Limits, Node
from agent.journal import JournalReader
from agent.pipeline import Outcome
from contract.arrays import Floats
from contract.model_spec import Moments, Ridge
from contract.report import NodeStatus
from contract.spec import AssetClass, Channel

ROOT = Path(__file__).parents[2]
SITE = "test"
HOUR_NS = 3_600_000_000_000
START_NS = 1_199_145_600 * 10**9
PATIENCE_S = 60

# As root, mosquitto would become another user, who could not write its memory down.
_CONFIG = """listener {port} 127.0.0.1
user {user}
allow_anonymous true
max_inflight_messages 1000
max_queued_messages 0
set_tcp_nodelay true
persistence true
persistence_location {folder}/
autosave_interval 1
autosave_on_changes true
"""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Reading:
    """Reads what a process says, so that its pipe is never full, and waits for words in it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self._lines.append(line.decode())
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    @property
    def text(self) -> str:
        with self._changed:
            return "".join(self._lines)

    def wait_for(self, words: str) -> None:
        """Return when these words were said; fail if they never are."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._ended or any(words in line for line in self._lines), PATIENCE_S
            )
            said = "".join(self._lines)
        assert words in said, f"never said {words!r}:\n{said}"

    def close(self) -> None:
        self._thread.join()
        assert self._process.stdout is not None
        self._process.stdout.close()


def wait_until(ready: Callable[[], bool]) -> None:
    """Return when something is so that nothing tells of by itself; fail if it never is."""
    deadline = time.monotonic() + PATIENCE_S
    pause = threading.Event()
    while not ready():
        assert time.monotonic() < deadline
        pause.wait(0.05)


class Broker:
    """A mosquitto of one's own; what it had acknowledged is there again after a restart.

    Args:
        folder: to be made.
        more: of its configuration; a key in it stands in place of the same above.
    """

    def __init__(self, folder: Path, more: str = "") -> None:
        folder.mkdir()
        self.port = free_port()
        self._config = folder / "mosquitto.conf"
        text = _CONFIG.format(port=self.port, folder=folder, user=getpass.getuser())
        told = {line.split(" ")[0] for line in more.splitlines()}
        kept = [line for line in text.splitlines() if line.split(" ")[0] not in told]
        self._config.write_text("\n".join([*kept, more]))
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
        self._reading = Reading(self._process)
        # As mosquitto says it: the word alone may stand in the path of a test's folder.
        self._reading.wait_for(" running\n")

    def stop(self) -> None:
        """End, if it runs."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=PATIENCE_S)
            self._reading.close()
            self._process = None


class AgentProcess:
    """A ``runout-agent run``."""

    def __init__(self, node: str, config: Path, folder: Path, settings: list[str]) -> None:
        self.node = node
        self.state = folder / node
        command = [str(Path(sys.executable).with_name("runout-agent")), "run"]
        command += ["--config", str(config)]
        for setting in [f"node.name={node}", f"node.site={SITE}", f"node.state={self.state}"]:
            command += ["--set", setting]
        for setting in settings:
            command += ["--set", setting]
        self._command = command
        self.words = command[2:]
        """What names its configuration, to other commands."""
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> "AgentProcess":
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self._reading = Reading(self._process)
        return self

    def ask(self, command: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run another command on the same configuration, as a person beside the agent does."""
        return subprocess.run(
            [self._command[0], command, *self._command[2:], *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )

    def wait_for(self, words: str) -> None:
        """Return when the agent's log has said these words, since it was last started."""
        self._reading.wait_for(words)

    def end(self, number: signal.Signals | None = None) -> int:
        """Send a signal, if one is needed, and wait for the end; returns the exit code."""
        assert self._process is not None
        if number is not None:
            self._process.send_signal(number)
        code = self._process.wait(timeout=PATIENCE_S)
        self._reading.close()
        self._process = None
        return code

    @property
    def said(self) -> str:
        return self._reading.text

    def table(self, query: str) -> list[tuple[Any, ...]]:
        """Return what a query finds in the agent's store."""
        with closing(sqlite3.connect(self.state / "store.db")) as db:
            return db.execute(query).fetchall()

    def batches(self) -> list[Batch]:
        """Return what the agent has journalled."""
        return [Batch.decode(body) for _, body in JournalReader(self.state).read()]

    def values(self, asset: str, column: int) -> list[float]:
        """Return the readings of an asset that the agent has journalled, in order."""
        parts = [
            rows.values[:, column] for b in self.batches() for rows in b.rows if rows.asset == asset
        ]
        found = np.concatenate(parts) if parts else np.empty(0)
        return [float(value) for value in found if not np.isnan(value)]

    def kill(self) -> None:
        """End at once, if it runs."""
        if self._process is not None:
            self.end(signal.SIGKILL)


class Plant:
    """Publishes as machines do, and hears what the agents say.

    Args:
        port: of the broker.
        also: topic filters of more that is heard.
        prepare: told the client before it connects.
    """

    def __init__(
        self,
        port: int,
        also: Sequence[str] = (),
        prepare: Callable[[mqtt.Client], None] = lambda _: None,
    ) -> None:
        self.statuses: dict[str, NodeStatus] = {}
        """Newest by node."""
        self.heard: deque[tuple[str, bytes]] = deque()
        """Results: topic and payload."""
        self._changed = threading.Condition()
        self._sent = self._taken = 0
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id="plant", clean_session=False
        )
        self._filters = [(f"runout/v1/{SITE}/{end}", 1) for end in ("+/status", "+/+/health")]
        self._filters += [(topic, 1) for topic in also]
        prepare(self._client)
        self._client.max_inflight_messages_set(1000)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        self._client.on_publish = self._on_publish
        self._ready = threading.Event()
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._ready.wait(PATIENCE_S)

    def send(self, node: str, asset: str, leaf: str, payload: bytes) -> None:
        self.publish(f"runout/v1/{SITE}/{node}/{asset}/{leaf}", payload)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        # Counted, not named: the broker may take a message on before its number is known here.
        self._sent += 1
        self._client.publish(topic, payload, qos=1, retain=retain)

    def settle(self) -> None:
        """Wait until the broker has acknowledged everything sent."""
        self.wait(lambda: self._taken == self._sent)

    def wait(self, ready: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(ready, PATIENCE_S), self.statuses

    def wait_for(self, node: str, ready: Callable[[NodeStatus], bool]) -> None:
        """Wait until the newest status of a node is so."""
        self.wait(lambda: node in self.statuses and ready(self.statuses[node]))

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(self, client: mqtt.Client, *_: object) -> None:
        client.subscribe(self._filters)

    def _on_subscribe(self, *_: object) -> None:
        self._ready.set()

    def _on_message(self, _client: object, _data: object, message: mqtt.MQTTMessage) -> None:
        with self._changed:
            if message.topic.endswith("/status"):
                status = msgspec.json.decode(message.payload, type=NodeStatus)
                self.statuses[status.node] = status
            else:
                self.heard.append((message.topic, message.payload))
            self._changed.notify_all()

    def _on_publish(self, _client: object, _data: object, *_: object) -> None:
        with self._changed:
            self._taken += 1
            self._changed.notify_all()


@pytest.fixture
def stopped_broker(tmp_path: Path) -> Iterator[Broker]:
    """Return a broker that is to be started."""
    broker = Broker(tmp_path / "broker")
    yield broker
    broker.stop()


@pytest.fixture
def broker(stopped_broker: Broker) -> Broker:
    stopped_broker.start()
    return stopped_broker


@pytest.fixture
def connect() -> Iterator[Callable[[Broker], Plant]]:
    """Connect plants that disconnect with the test."""
    with ExitStack() as opened:

        def connect(broker: Broker, **options: Any) -> Plant:
            plant = Plant(broker.port, **options)
            opened.callback(plant.close)
            return plant

        yield connect


@pytest.fixture
def agent(tmp_path: Path, stopped_broker: Broker) -> Iterator[Callable[..., AgentProcess]]:
    """Make agents that end with the test."""
    with ExitStack() as opened:

        def make(node: str, config: str = "agent.minimal.toml", *settings: str) -> AgentProcess:
            own = [f"mqtt.port={stopped_broker.port}", "report.status_s=0.02", *settings]
            process = AgentProcess(node, ROOT / "configs" / config, tmp_path, own)
            opened.callback(process.kill)
            return process

        yield make


class Device:
    """An engine on a store in a folder, that can be closed, killed and opened again."""

    def __init__(self, config: AgentConfig) -> None:
        self.config = config
        with ExitStack() as opened:  # closed here if the engine cannot be made
            self.engine = Engine(config, opened)
            self._opened = opened.pop_all()

    def kill(self) -> None:
        """Leave as a killed process does: no checkpoint."""
        self._opened.close()

    def close(self) -> None:
        """Leave tidily."""
        self.engine.checkpoint()
        self._opened.close()

    def live(
        self, asset: str, values: Floats, *, begin: int = 0, failed: bool = False
    ) -> list[Outcome]:
        """Let an asset live rows ``(n, C)``, one an hour, in one batch."""
        n = len(values)
        t_ns = START_NS + HOUR_NS * np.arange(begin + 1, begin + n + 1)
        rows = Rows(asset, t_ns, values, np.arange(n), np.ones(n, dtype=np.bool_))
        events = [Event(n, asset, int(t_ns[-1]), "failed")] if failed else []
        return self.engine.process(Batch([rows], events))

    def wear_out(self, asset: str, seed: int, *, begin: int = 0, hours: int = 60) -> int:
        """Let an asset live to its failure; returns the hour of it."""
        self.live(asset, wearing(seed, hours), begin=begin, failed=True)
        return begin + hours

    def state(self) -> tuple[dict[str, object], dict[str, bytes]]:
        """Return everything that makes the pipeline what it is, comparable bit for bit."""
        head, arrays = self.engine.pipeline.arrays()
        return head, {
            name: str(array.dtype).encode() + str(array.shape).encode() + array.tobytes()
            for name, array in arrays.items()
        }


@pytest.fixture
def once() -> Callable[[Any], dict[str, Any]]:
    """Return what takes out of an agent's counts what the broker sent again."""

    def without(marked: dict[str, int]) -> dict[str, int]:
        return {mark: n for mark, n in marked.items() if not mark.endswith(".duplicate")}

    def once(counts: Any) -> dict[str, Any]:
        marked_of = {asset: without(marked) for asset, marked in counts["marked_of"].items()}
        return {
            **{name: count for name, count in counts.items() if name != "repeated"},
            "marked": without(counts["marked"]),
            "marked_of": {asset: marked for asset, marked in marked_of.items() if marked},
        }

    return once


def wearing(seed: int, hours: int) -> Floats:
    """Return ``(hours, 2)`` readings of a pump that wears out."""
    rng = np.random.default_rng(seed)
    wear = np.linspace(0.0, 1.0, hours)[:, None] ** 3
    return rng.normal(size=(hours, 2)) * 0.1 + [5.0, 40.0] + wear * [4.0, 20.0]


def pump_class(**changes: object) -> AssetClass:
    """Return a class with two channels, quick to know what healthy is."""
    base = AssetClass(
        "pump",
        (Channel("vibration", "mm/s", low=0.0, high=100.0), Channel("temperature", "degC")),
        stats=("last", "mean_4", "std_4"),
        cap_h=48.0,
        health=Moments(baseline=16, learn=24, on_delay=2, off_delay=2, alarm_rate=0.01),
        rul=(Ridge(random=20),),
        holdout=3,
    )
    return msgspec.structs.replace(base, **changes)


@pytest.fixture
def configure(tmp_path: Path) -> Callable[..., AgentConfig]:
    """Make configurations of a device with pumps; each keyword replaces a part."""

    def configure(
        name: str = "node", spec: AssetClass | None = None, **changes: object
    ) -> AgentConfig:
        config = AgentConfig(
            asset_class=(spec or pump_class(),),
            node=Node(name=name, site=SITE, state=str(tmp_path / name)),
            keep=Keep(power_loss_safe=False),
            limits=Limits(future_s=300.0),
        )
        return msgspec.structs.replace(config, **changes)

    return configure


@pytest.fixture
def device() -> Iterator[Callable[[AgentConfig], Device]]:
    """Open devices that are closed with the test."""
    with ExitStack() as opened:

        def open_device(config: AgentConfig) -> Device:
            made = Device(config)
            opened.callback(made.kill)
            return made

        yield open_device


@pytest.fixture
def free_ports() -> Callable[[], int]:
    """Return what finds a port that nobody listens at."""
    return free_port
