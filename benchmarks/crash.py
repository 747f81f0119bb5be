"""Kill an agent at random instants under load, again and again: is anything lost, or counted twice?

    python -m benchmarks.crash [--kills 200] [--seed 1]

A real mosquitto with a persistent session and two real ``runout-agent run``, fed the same messages
at QoS 1: single channels, whole rows, columns, bursts, a class on a grid, life events, commands and
verdicts of alerts, late and repeated messages. One is killed with SIGKILL; the other is never
disturbed. In the end:

- *lost*: what was sent, is not in the killed agent's journal and is not among the messages that the
  broker still holds for it; and what it counts less of than the other;
- *duplicated*: what it counts more of than the other;
- *differing_outputs*: results that differ, by their number, in the store, and verdicts; results
  that were heard from the one and not from the other, or out of their order; and arrays of the
  final state that differ in a bit;
- *late_again*: readings that came too late to be used, came again when the agent remembered too
  many others, and were counted as late twice. They are no error of this benchmark.

Linux and mosquitto are needed. The seed fixes messages and delays; where exactly in the agent a
kill falls is the machine's affair.
"""

import argparse
import contextlib
import getpass
import itertools
import json
import queue
import random
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import msgspec
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from agent.batch import Batch
from agent.journal import JournalReader
from agent.store import read_checkpoint
from benchmarks.crash_load import COLUMNS, END, Keys, Message, messages
from benchmarks.throughput import Bench
from contract import topics
from contract.report import Alert, Health
from demo import broker

SITE = "bench"
STEADY, KILLED = "steady", "killed"
REPLAYED = b',"replayed":true}'
PACE = 400.0
"""Messages a second."""
WORK_S = 0.7
"""A kill falls within this long after the agent is at work ..."""
A_KILL = 600
"""Messages from one kill to the next, at most: a broker with ever more of them gets slow."""
EARLY = 0.15
"""... but this share of them while it starts."""
PATIENCE_S = 60.0

BROKER = """listener {port} 127.0.0.1
user {user}
allow_anonymous true
max_inflight_messages 1000
max_queued_messages 0
set_tcp_nodelay true
persistence true
persistence_location {folder}/
"""

CONFIG = """\
[node]
name = "{node}"
site = "{site}"
state = {state}
[mqtt]
port = {port}
[report]
health_every_s = 0
[keep]
checkpoint_s = 0.25
journal_mb = 4000
results = 10_000_000
lives = 8
[web]
enabled = false
[assets]
"fan-*" = "fan"
"press-*" = "press"
"*" = "pump"

[[asset_class]]
name = "pump"
stats = ["last", "mean_4", "std_4"]
cap_h = 48
holdout = 3
channels = [
  {{ name = "flow", unit = "l/s", low = -50, high = 50 }},
  {{ name = "pressure", unit = "bar" }},
]
[asset_class.health]
kind = "moments"
baseline = 16
learn = 24
on_delay = 2
off_delay = 2
alarm_rate = 0.01
[[asset_class.rul]]
kind = "ridge"
random = 20

[[asset_class]]
name = "fan"
stats = ["mean_4"]
channels = [{{ name = "speed", unit = "1/min" }}]
[[asset_class.waveforms]]
name = "vib"
unit = "m/s2"
rate_hz = 25600
samples = 512
features = ["rms", "crest", "kurtosis", "band_500_2000"]
[asset_class.health]
kind = "moments"
baseline = 16
learn = 24

[[asset_class]]
name = "press"
every_s = 10
wait_s = 5
stats = ["last", "mean_8"]
channels = [
  {{ name = "oil", unit = "degC", every_s = 30, hold_s = 90 }},
  {{ name = "force", unit = "kN", resample = "max" }},
]
[asset_class.health]
kind = "moments"
baseline = 16
learn = 24
"""


class Agent:
    """A ``runout-agent run``, and how long it took to be at work."""

    def __init__(self, node: str, folder: Path, port: int) -> None:
        self.node = node
        self.state = folder / node
        self._config = folder / f"{node}.toml"
        self._config.write_text(
            CONFIG.format(node=node, site=SITE, state=json.dumps(str(self.state)), port=port)
        )
        self._log = folder / f"{node}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.connected = threading.Event()
        self.took: dict[str, list[float]] = {}

    def start(self) -> None:
        """Start; returns at once."""
        self.connected = threading.Event()
        program = str(Path(sys.executable).with_name("runout-agent"))
        self._process = subprocess.Popen(
            [program, "run", "--config", str(self._config)],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is ours
        )
        self._reader = threading.Thread(
            target=self._read, args=(self._process, time.monotonic(), self.connected)
        )
        self._reader.start()

    def _read(
        self, process: subprocess.Popen[bytes], began: float, connected: threading.Event
    ) -> None:
        assert process.stderr is not None
        with self._log.open("ab") as log:
            for line in process.stderr:
                log.write(line)
                for words, name in (
                    (b": started", "imports"),
                    (b": state restored", "restored"),
                    (b": connected", "connected"),
                ):
                    if words in line:
                        self.took.setdefault(name, []).append(time.monotonic() - began)
                        if name == "connected":
                            connected.set()

    def end(self, number: signal.Signals) -> None:
        """Send a signal and wait for the end; safe when it is over."""
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        assert self._process.stderr is not None
        self._process.stderr.close()
        self._process = None

    @property
    def ended(self) -> bool:
        """Return whether it ended by itself, which it must not."""
        return self._process is not None and self._process.poll() is not None

    def tail(self) -> str:
        """Return the end of its log."""
        return self._log.read_text(encoding="utf-8", errors="replace")[-3000:]

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return what a query finds in the store."""
        with closing(sqlite3.connect(self.state / "store.db")) as db:
            return db.execute(query).fetchall()

    def journalled(self) -> set[tuple[str, int, str]]:
        """Return asset, time and channel, waveform or event of all that was journalled."""
        found: set[tuple[str, int, str]] = set()
        for _, body in JournalReader(self.state).read():
            batch = Batch.decode(body)
            for part in batch.rows:
                names = COLUMNS[part.asset.partition("-")[0]]
                for t_ns, values in zip(part.t_ns.tolist(), part.values, strict=True):
                    found.update(
                        (part.asset, t_ns, name)
                        for name, value in zip(names, values, strict=False)
                        if value == value  # noqa: PLR0124  # not NaN
                    )
            found.update((shot.asset, shot.t_ns, "vib") for shot in batch.shots)
            found.update((event.asset, event.t_ns, event.event) for event in batch.events)
        return found


class Load:
    """Sends both agents the same messages at a pace, and hears what they say."""

    def __init__(self, port: int, seed: int) -> None:
        self.sent: set[tuple[str, int, str]] = set()
        self.keys: dict[tuple[str, str, bytes], Keys] = {}
        """What each message said, by asset, leaf and payload."""
        self.messages = 0
        self.heard: dict[str, list[bytes]] = {STEADY: [], KILLED: []}
        self._online: set[str] = set()
        self._ended: set[str] = set()
        self._stopping = threading.Event()
        self._changed = threading.Condition()
        self._unacked = 0
        self._may = 0
        self._messages = messages(random.Random(seed))  # noqa: S311  # no secret
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id="crash-load", clean_session=False
        )
        self._client.max_inflight_messages_set(1000)
        self._client.on_message = self._on_message
        self._client.on_publish = self._on_publish
        subscribed = threading.Event()
        self._client.on_subscribe = lambda *_: subscribed.set()
        filters = [(topics.asset_topic(SITE, "+", "+", kind), 1) for kind in ("health", "alert")]
        filters.append((topics.status_topic(SITE, "+"), 1))
        self._client.on_connect = lambda client, *_: client.subscribe(filters)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        if not subscribed.wait(PATIENCE_S):
            raise SystemExit("the broker does not answer")
        self._thread = threading.Thread(target=self._send)

    def start(self) -> None:
        """Begin to send, once both agents have subscribed: they speak of themselves behind it."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._online) == 2, PATIENCE_S)
        self._thread.start()

    def more(self) -> None:
        """Let so many messages go as belong to a kill."""
        self._may = self.messages + A_KILL

    def _send(self) -> None:
        while not self._stopping.is_set():
            if self.messages < self._may:
                self._say(next(self._messages))
            self._stopping.wait(1.0 / PACE)

    def _say(self, message: Message) -> None:
        self.messages += 1
        self.sent |= message.keys
        self.keys[message.asset, message.leaf, message.payload] = message.keys
        for node in (STEADY, KILLED):
            with self._changed:
                self._unacked += 1
            topic = topics.asset_topic(SITE, node, message.asset, message.leaf)
            self._client.publish(topic, message.payload, qos=1)

    def _on_message(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        node = message.topic.split("/")[3]
        with self._changed:
            if message.topic.endswith("/status"):
                self._online.add(node)
            else:
                self.heard[node].append(bytes(message.payload))
            if message.topic.split("/")[4] == END.asset:
                self._ended.add(node)
            self._changed.notify_all()

    def _on_publish(self, *_: object) -> None:
        with self._changed:
            self._unacked -= 1
            self._changed.notify_all()

    def stop(self) -> None:
        """End the load with a message that both agents answer; safe more than once."""
        if not self._stopping.is_set() and self._thread.is_alive():
            self._stopping.set()
            self._thread.join()
            self._say(END)
        self._stopping.set()

    def answered(self) -> bool:
        """Wait until both agents have answered the last message, and all they owe has come.

        As long as anything comes; not so long as the last message is to be answered by both.
        """
        with self._changed:
            while True:
                both = self._ended == {STEADY, KILLED}
                # What was written while the connection was lost may come behind it.
                if not self._changed.wait(2.0 if both else PATIENCE_S):
                    return both and not self._unacked

    def close(self) -> None:
        """Disconnect."""
        self.stop()
        self._client.disconnect()
        self._client.loop_stop()


def held(port: int, node: str) -> list[tuple[str, str, bytes]]:
    """Return asset, leaf and payload of what the broker still holds for an agent that has ended."""
    client = paho.Client(
        CallbackAPIVersion.VERSION2,
        client_id=f"runout-{SITE}-{node}",
        clean_session=False,
        manual_ack=True,
    )
    came: queue.SimpleQueue[tuple[str, str, bytes]] = queue.SimpleQueue()

    def on_message(_client: object, _data: object, message: paho.MQTTMessage) -> None:
        asset, leaf = message.topic.split("/")[4:6]
        came.put((asset, leaf, bytes(message.payload)))

    client.on_message = on_message
    client.connect("127.0.0.1", port)
    client.loop_start()
    found = []
    with contextlib.suppress(queue.Empty):
        while True:
            found.append(came.get(timeout=1.0))
    client.disconnect()
    client.loop_stop()
    return found


def differing(steady: Agent, killed: Agent, heard: dict[str, list[bytes]]) -> Iterator[str]:
    """Yield what of the outputs differs, a line each."""
    query = "SELECT asset, t_ns, verdict, alert, life, since_ns, until_ns FROM verdict ORDER BY id"
    for said_one, said_other in itertools.zip_longest(steady.rows(query), killed.rows(query)):
        if said_one != said_other:
            yield f"verdict {said_one} became {said_other}"
    query = "SELECT asset, kind, body FROM result ORDER BY id"
    expected, found = steady.rows(query), killed.rows(query)
    for i, (said_one, said_other) in enumerate(zip(expected, found, strict=False)):
        if said_one != said_other:
            yield f"result {i}: {said_one} became {said_other}"
    for i in range(min(len(expected), len(found)), max(len(expected), len(found))):
        yield f"result {i} is only in one of them"
    place = {body: i for i, (_, _, body) in enumerate(expected)}
    for node, said in heard.items():
        plain = [_plain(body) for body in said]
        for body in place.keys() - set(plain):
            yield f"never heard from {node}: {body!r}"
        for body in set(plain) - place.keys():
            yield f"heard from {node} alone: {body!r}"
        last: dict[str, int] = {}
        for body in said:
            if not body.endswith(REPLAYED) and body in place:
                asset = msgspec.json.decode(body, type=Alert | Health).asset
                if place[body] <= last.get(asset, -1):
                    yield f"out of order from {node}: {body!r}"
                last[asset] = place[body]
    _, arrays = read_checkpoint(steady.state / "checkpoint.npz")
    _, others = read_checkpoint(killed.state / "checkpoint.npz")
    for name in sorted(arrays.keys() | others.keys()):
        one, other = arrays.get(name), others.get(name)
        if one is None or other is None or one.dtype != other.dtype or one.shape != other.shape:
            yield f"array {name} is of another form"
        elif one.tobytes() != other.tobytes():
            yield f"array {name} differs"


def _plain(body: bytes) -> bytes:
    return body[: -len(REPLAYED)] + b"}" if body.endswith(REPLAYED) else body


def counts(agent: Agent) -> dict[str, int]:
    """Return what an agent counts, but for what came again: that the two must differ in."""
    head, _ = read_checkpoint(agent.state / "checkpoint.npz")
    found = head["counts"]
    assert isinstance(found, dict)
    kept = agent.rows("SELECT asset, life, COUNT(*) FROM life_row GROUP BY asset, life")
    return {
        "readings in time": found["readings"] - found["late"],
        **{name: found[name] for name in ("late", "vectors", "events", "lives")},
        **{
            f"marked {key}": n
            for key, n in found["marked"].items()
            if not key.endswith((".duplicate", ".late"))
        },
        **{f"vectors of {asset}/{life}": int(n) for asset, life, n in kept},
    }


def run(folder: Path, kills: int, seed: int) -> dict[str, int]:
    """Run, and return what came out."""
    rng = random.Random(seed + 1)  # noqa: S311
    with ExitStack() as opened:
        bench = Bench(folder)
        config = folder / "mosquitto.conf"
        config.write_text(BROKER.format(port=bench.port, folder=folder, user=getpass.getuser()))
        opened.enter_context(bench.started("broker", [_mosquitto(), "-c", str(config)]))
        load = _connected_load(bench.port, seed)
        opened.callback(load.close)
        steady, killed = (Agent(node, folder, bench.port) for node in (STEADY, KILLED))
        for agent in (steady, killed):
            opened.callback(agent.end, signal.SIGKILL)
            agent.start()
            _at_work(agent)
        load.more()
        load.start()
        began = time.monotonic()
        for number in range(1, kills + 1):
            if rng.random() < EARLY:
                killed.connected.wait(rng.uniform(0.0, 1.0))
            else:
                _at_work(killed)
                _wait(rng.uniform(0.0, WORK_S))
            for agent in (steady, killed):
                if agent.ended:
                    raise SystemExit(f"{agent.node} ended by itself:\n{agent.tail()}")
            killed.end(signal.SIGKILL)
            load.more()
            killed.start()
            if number % 10 == 0 or number == kills:
                per_s = (time.monotonic() - began) / number
                print(f"{number} kills, {per_s:.2f} s each", file=sys.stderr)
        _at_work(killed)
        load.stop()
        complete = load.answered()
        for agent in (steady, killed):
            agent.end(signal.SIGTERM)
        still = [] if complete else held(bench.port, KILLED)
        _report(killed, load, still)
        return _compare(steady, killed, load, still)


def _compare(
    steady: Agent, killed: Agent, load: Load, still: list[tuple[str, str, bytes]]
) -> dict[str, int]:
    missing = load.sent - killed.journalled()
    missing -= {key for message in still for key in load.keys.get(message, ())}
    for key in sorted(missing)[:10]:
        print(f"not in the journal: {key}", file=sys.stderr)
    ours, theirs = Counter(counts(killed)), Counter(counts(steady))
    # Of late readings, which are left out, few are remembered: others are late once more.
    late_again = max(0, ours["late"] - theirs["late"])
    ours["late"] -= late_again
    for word, less in (("less", theirs - ours), ("more", ours - theirs)):
        for name, n in less.items():
            print(f"{n} {word}: {name}", file=sys.stderr)
    lines = list(differing(steady, killed, load.heard))
    for line in lines[:10]:
        print(line[:600], file=sys.stderr)
    return {
        "lost": len(missing) + (theirs - ours).total(),
        "duplicated": (ours - theirs).total(),
        "differing_outputs": len(lines),
        "late_again": late_again,
    }


def _report(killed: Agent, load: Load, still: list[tuple[str, str, bytes]]) -> None:
    head, _ = read_checkpoint(killed.state / "checkpoint.npz")
    replayed = sum(body.endswith(REPLAYED) for body in load.heard[KILLED])
    print(
        f"{load.messages} messages, {len(load.sent)} readings and events; {len(still)} still with "
        f"the broker; {len(load.heard[KILLED])} results heard, {replayed} of them replayed; "
        f"counts {head['counts']}",
        file=sys.stderr,
    )
    for name, took in killed.took.items():
        ordered = sorted(took)
        print(
            f"start to {name}: median {statistics.median(ordered):.2f} s, "
            f"longest {ordered[-1]:.2f} s",
            file=sys.stderr,
        )


def _at_work(agent: Agent) -> None:
    if not agent.connected.wait(PATIENCE_S):
        raise SystemExit(f"{agent.node} is not at work after {PATIENCE_S:.0f} s:\n{agent.tail()}")


def _wait(seconds: float) -> None:
    threading.Event().wait(seconds)  # a random instant is what is waited for


def _connected_load(port: int, seed: int) -> Load:
    """Wait for a broker that is just starting."""
    deadline = time.monotonic() + 10.0
    while True:
        try:
            return Load(port, seed)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            _wait(0.05)


def _mosquitto() -> str:
    program = broker.mosquitto()
    if sys.platform != "linux" or program is None:
        raise SystemExit("this needs Linux and mosquitto: apt install mosquitto")
    return program


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where everything goes, and is kept")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    print(f"seed {arguments.seed}", file=sys.stderr)
    try:
        with ExitStack() as opened:
            if arguments.folder:
                arguments.folder.mkdir(parents=True)
                folder = arguments.folder
            else:
                folder = Path(
                    opened.enter_context(tempfile.TemporaryDirectory(prefix="runout-crash-"))
                )
            found = run(folder, arguments.kills, arguments.seed)
    except KeyboardInterrupt:
        return 130
    print(json.dumps({"kills": arguments.kills, **found}))
    return int(any(found[word] for word in ("lost", "duplicated", "differing_outputs")))


if __name__ == "__main__":
    sys.exit(main())
