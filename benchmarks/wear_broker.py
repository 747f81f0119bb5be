"""The broker's share of the wear: what mosquitto writes with ``deploy/pi/mosquitto-runout.conf``.

It writes all it holds into one file, at each autosave. Here a save is asked for (SIGUSR1) and what
it writes is counted, once while a subscriber takes everything as the agent does, and once while the
agent was away for an hour.
"""

import getpass
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from agent.intake import Arrival
from benchmarks.throughput import Bench
from contract import topics
from demo import broker

CONF = Path(__file__).parents[1] / "deploy" / "pi" / "mosquitto-runout.conf"
MACHINES = 10
LIVE_S = 5
AWAY_S = 3600
DAY_S = 86_400
PATIENCE_S = 60.0


def measure(
    folder: Path | None, arrivals: Callable[[int], Iterable[Arrival]], wait_s: float
) -> dict[str, float] | None:
    """Return what the broker writes; None: there is none here.

    Args:
        folder: on the file system that counts.
        arrivals: what is published in so many seconds.
        wait_s: what the agent takes to acknowledge.
    """
    program = broker.mosquitto()
    if program is None or shutil.which("mosquitto", path=str(Path(program).parent)) is None:
        return None
    told = CONF.read_text(encoding="utf-8")
    (autosave_s,) = (
        float(line.split()[1]) for line in told.splitlines() if line.startswith("autosave_interval")
    )
    with ExitStack() as opened:
        here = Path(
            opened.enter_context(tempfile.TemporaryDirectory(prefix="runout-wear-", dir=folder))
        )
        bench = Bench(here)
        config = here / "mosquitto.conf"
        config.write_text(
            f"{told}\nlistener {bench.port} 127.0.0.1\nallow_anonymous true\n"
            f"user {getpass.getuser()}\npersistence true\npersistence_location {here}/\n",
            encoding="utf-8",
        )
        process = opened.enter_context(bench.started("broker", [program, "-c", str(config)]))
        publisher = _connected(bench.port, "wear-machines")
        opened.callback(publisher.loop_stop)
        opened.callback(publisher.disconnect)
        for i in range(MACHINES):  # as an agent does: the state of each machine's alert
            topic = topics.alert_state_topic("bench", "wear", f"machine-{i}")
            publisher.publish(topic, b"x" * 400, qos=1, retain=True)
        agent = _Agent(bench.port, wait_s)
        _publish(publisher, arrivals(LIVE_S), paced=True)
        connected = _saved(process.pid, here)
        agent.leave()
        _publish(publisher, arrivals(AWAY_S), paced=False)
        away = _saved(process.pid, here)
    saves = AWAY_S / autosave_s
    return {
        "autosave_s": autosave_s,
        "bytes_per_day": connected * DAY_S / autosave_s,
        "saved_bytes_away": away,
        # The queue grows evenly.
        "bytes_per_hour_away": away * (saves + 1) / 2,
    }


class _Agent:
    """A subscriber that acknowledges what came once in a while, as one does that commits."""

    def __init__(self, port: int, wait_s: float) -> None:
        self._waiting: list[paho.MQTTMessage] = []
        self._wait_s = wait_s
        self._client = _connected(port, "wear-agent", manual_ack=True, clean=False)
        self._client.on_message = lambda _client, _data, message: self._waiting.append(message)
        self._client.subscribe("runout/v1/bench/wear/#", qos=1)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._acknowledge)
        self._thread.start()

    def _acknowledge(self) -> None:
        while not self._stopping.wait(self._wait_s):
            waiting, self._waiting = self._waiting, []
            for message in waiting:
                self._client.ack(message.mid, message.qos)

    def leave(self) -> None:
        """Be away from here on; the session stays."""
        self._stopping.set()
        self._thread.join()
        self._client.disconnect()
        self._client.loop_stop()


def _connected(
    port: int, name: str, *, manual_ack: bool = False, clean: bool = True
) -> paho.Client:
    client = paho.Client(
        CallbackAPIVersion.VERSION2, client_id=name, clean_session=clean, manual_ack=manual_ack
    )
    client.max_inflight_messages_set(1000)
    client.max_queued_messages_set(0)
    up = threading.Event()
    client.on_connect = lambda *_: up.set()
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            client.connect("127.0.0.1", port)
            break
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            threading.Event().wait(0.05)
    client.loop_start()
    if not up.wait(PATIENCE_S):
        raise SystemExit("the broker does not answer")
    return client


def _publish(publisher: paho.Client, arrivals: Iterable[Arrival], *, paced: bool) -> None:
    """Publish, at the pace of the data's time or as fast as it goes."""
    began_s = time.monotonic()
    first_ns = None
    last = None
    for arrival in arrivals:
        first_ns = first_ns or arrival.at_ns
        if paced:
            due_s = began_s + (arrival.at_ns - first_ns) / 1e9
            threading.Event().wait(max(0.0, due_s - time.monotonic()))
        last = publisher.publish(arrival.topic, arrival.payload, qos=1)
    if last is not None:
        last.wait_for_publish(PATIENCE_S)


def _saved(pid: int, folder: Path) -> int:
    """Let the broker save, and return what that writes."""
    file = folder / "mosquitto.db"

    def written() -> int:
        text = Path(f"/proc/{pid}/io").read_text(encoding="ascii")
        found = dict(line.split(": ") for line in text.splitlines())
        return int(found["write_bytes"]) or int(found["wchar"])

    before = file.stat().st_mtime_ns if file.exists() else 0
    began = written()
    os.kill(pid, signal.SIGUSR1)
    deadline = time.monotonic() + PATIENCE_S
    while not file.exists() or file.stat().st_mtime_ns == before:
        if time.monotonic() > deadline:
            raise SystemExit("the broker does not save")
        threading.Event().wait(0.05)
    return written() - began
