"""The messages of ``benchmarks.crash``: all kinds that change an agent's state, each with a time.

Machines wear out and fail, so that lives end, alerts come and remaining life is learnt. People
acknowledge alerts, shelve them and say what they found. A few messages come late, and a few come
twice.
"""

import json
import random
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from agent.decode import waveform
from contract import topics

START_MS = 1_199_145_600_000
LIFE = 90
"""Rows, about."""
COLUMNS = {
    "pump": ("flow", "pressure"),
    "fan": ("speed",),
    "press": ("oil", "force"),
}
"""Channels by the first word of an asset's name."""

Keys = frozenset[tuple[str, int, str]]


class Message(NamedTuple):
    """Where it goes, what it is, and what of it must be in the journal: asset, time, channel."""

    asset: str
    leaf: str
    payload: bytes
    keys: Keys


class _Machine:
    """One that wears out; its readings are a step of data time apart."""

    def __init__(self, asset: str, step_ms: int, rng: random.Random) -> None:
        self.asset = asset
        self._step_ms = step_ms
        self._rng = rng
        self._t_ms = START_MS
        self._age = 0
        self._length = LIFE
        self._sent: deque[Message] = deque(maxlen=30)

    def turn(self) -> Iterator[Message]:
        """Yield what the machine says next."""
        self._t_ms += self._step_ms
        self._age += 1
        for message in self._readings(self._t_ms):
            self._sent.append(message)
            yield message
        if self._rng.random() < 0.03:
            yield self._rng.choice(self._sent)
        if self._rng.random() < 0.02:
            yield from self._readings(self._t_ms - 5 * self._step_ms - self._step_ms // 3)
        if self._rng.random() < 0.04:
            said = self._said()
            yield from [said] * (2 if self._rng.random() < 0.2 else 1)
        if self._age >= self._length:
            word = "failed" if self._rng.random() < 0.8 else "maintained"
            yield self._event(word)
            if self._rng.random() < 0.2:
                yield self._event(word)
            self._age = 0
            self._length = self._rng.randint(LIFE // 2, LIFE)

    def _event(self, word: str) -> Message:
        body = json.dumps({"event": word, "t": self._t_ms}).encode()
        return Message(self.asset, "event", body, self._keys(self._t_ms, word))

    def _said(self) -> Message:
        """Return what somebody says of the newest alert, whether there is one or not."""
        word = self._rng.choice(["acknowledge", "shelve", "unshelve", "verdict"])
        said: dict[str, object] = {"t": self._t_ms, "by": "benchmark"}
        if word == "verdict":
            said["verdict"] = self._rng.choice(["confirmed", "false_alarm", "not_found"])
        else:
            said["command"] = word
        if word == "shelve":
            said["hours"] = self._rng.choice([0.5, 2.0, 8.0])
        leaf = topics.VERDICT if word == "verdict" else topics.COMMAND
        keys = self._keys(self._t_ms, word)
        return Message(self.asset, leaf, json.dumps(said).encode(), keys)

    def _keys(self, t_ms: int, *names: str) -> Keys:
        return frozenset((self.asset, t_ms * 1_000_000, name) for name in names)

    def _value(self, level: float) -> float:
        if self._rng.random() < 0.002:
            return 99.0  # beyond what flow can be
        wear = (self._age / LIFE) ** 3
        return round(self._rng.gauss(level * (1.0 + wear), 0.1), 3)

    def _readings(self, t_ms: int) -> Iterator[Message]:
        raise NotImplementedError

    def _single(self, t_ms: int, name: str, level: float) -> Message:
        body = json.dumps({"t": t_ms, "v": self._value(level)}).encode()
        return Message(self.asset, name, body, self._keys(t_ms, name))


class _Singles(_Machine):
    """A message a channel; now and then one of them is missing."""

    def _readings(self, t_ms: int) -> Iterator[Message]:
        names = ["flow", "pressure"]
        self._rng.shuffle(names)
        for name in names[: 1 if self._rng.random() < 0.02 else 2]:
            yield self._single(t_ms, name, 5.0 if name == "flow" else 40.0)


class _WholeRows(_Machine):
    def _readings(self, t_ms: int) -> Iterator[Message]:
        row = {"flow": self._value(5.0), "pressure": self._value(40.0)}
        body = json.dumps({"t": t_ms, "v": row}).encode()
        yield Message(self.asset, "readings", body, self._keys(t_ms, *row))


class _Columns(_Machine):
    """A message for twelve rows."""

    def _readings(self, t_ms: int) -> Iterator[Message]:
        n = 12
        self._t_ms += (n - 1) * self._step_ms
        self._age += n - 1
        v = {"flow": [self._value(5.0) for _ in range(n)]}
        v["pressure"] = [self._value(40.0) for _ in range(n)]
        body = json.dumps({"t0": t_ms, "dt": self._step_ms / 1000, "v": v}).encode()
        times = [t_ms + i * self._step_ms for i in range(n)]
        keys = frozenset().union(*(self._keys(t, *v) for t in times))
        yield Message(self.asset, "readings", body, keys)


class _Bursts(_Machine):
    """A burst, and the speed at its time."""

    def _readings(self, t_ms: int) -> Iterator[Message]:
        yield self._single(t_ms, "speed", 1480.0)
        noise = np.random.default_rng(self._rng.getrandbits(32)).normal(size=512)
        samples = (noise * self._value(1.0)).astype(np.float32)
        body = waveform.encode(samples, 25_600.0, t_ns=t_ms * 1_000_000)
        yield Message(self.asset, "vib", body, self._keys(t_ms, "vib"))


class _OwnRates(_Machine):
    """Channels at their own rates, for a class on a grid."""

    def _readings(self, t_ms: int) -> Iterator[Message]:
        yield self._single(t_ms, "force", 12.0)
        if t_ms // self._step_ms % 7 == 0:
            yield self._single(t_ms + 137, "oil", 60.0)


_LAST_MS = START_MS + 10**10
END = Message(
    "pump-end",
    "readings",
    json.dumps({"t": _LAST_MS, "v": {"flow": 5.0, "pressure": 40.0}}).encode(),
    frozenset(("pump-end", _LAST_MS * 1_000_000, name) for name in COLUMNS["pump"]),
)
"""Both agents answer it."""


def messages(rng: random.Random) -> Iterator[Message]:
    """Yield messages without an end; the same for the same seed."""
    machines = [
        _Singles("pump-1", 3_600_000, rng),
        _WholeRows("pump-2", 3_600_000, rng),
        _WholeRows("pump-3", 1_800_000, rng),
        _Columns("pump-4", 600_000, rng),
        _Bursts("fan-1", 60_000, rng),
        _OwnRates("press-1", 4_300, rng),
    ]
    while True:
        yield from rng.choice(machines).turn()
