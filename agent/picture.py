"""Shows people on the fleet's page features and spectra: thinned, the newest only, never again.

Nothing follows from it: it is not in the store, and what a lost connection takes along is lost. Of a
class with ``privacy`` none is shown: features would tell what noise was to hide.
"""

import math

import msgspec

from agent.asset import Run
from agent.batch import Batch, Shot
from agent.config import AgentConfig
from agent.features import picture
from agent.group import Group
from agent.mqtt import Link
from contract import topics
from contract.picture import MOST_FEATURES, Features
from contract.spec import Waveform

PER_S = 100.0
"""Messages with features a second, whatever the speed of the data."""
SPECTRUM_COSTS = 20.0
"""So many of them: five spectra a second, of 12 kB and 1 ms each."""
WAITING = 64
"""Messages that wait; of more, the one that has waited longest is dropped."""

_json = msgspec.json.Encoder()


class Pictures:
    """What is to be shown; of the main thread alone.

    Args:
        config: of the agent.
        link: to the broker.

    Attributes:
        dropped: messages that were not sent, because there were too many.
    """

    def __init__(self, config: AgentConfig, link: Link) -> None:
        self.dropped = 0
        self._config = config
        self._link = link
        self._features_ns = round(config.report.features_every_s * 1e9)
        self._spectrum_ns = round(config.report.spectrum_every_s * 1e9)
        self._chosen: dict[str, tuple[list[int], tuple[str, ...]]] = {}
        self._told: dict[tuple[str, str], int] = {}
        self._due: dict[tuple[str, str], Features | tuple[Waveform, Shot]] = {}
        self._allowed = 0.0
        self._filled_s = 0.0

    def look(self, run: Run, k: int) -> None:
        """Take the features of a vector that is reported; to be called by the pipeline."""
        name, t_ns = run.asset.name, run.t_ns[k]
        group = run.asset.group
        if group.spec.privacy is not None or not self._is_due((name, ""), t_ns, self._features_ns):
            return
        columns, names = self._columns(group)
        x = group.watched_of(run.X[k : k + 1])[0, columns]
        values = tuple(float(f"{v:.5g}") if math.isfinite(v) else None for v in x.tolist())
        self._wait((name, ""), Features(name, t_ns / 1e9, names, values))

    def note(self, batch: Batch) -> None:
        """Take the bursts of a batch that was processed."""
        for shot in reversed(batch.shots):
            if shot.reason or not len(shot.samples):
                continue
            spec = self._config.class_of(shot.asset)
            if spec is None or spec.privacy is not None:
                continue
            wave = spec.waveforms[shot.wave]
            if self._is_due((shot.asset, wave.name), shot.t_ns, self._spectrum_ns):
                self._wait((shot.asset, wave.name), (wave, shot))

    def pump(self, now_s: float) -> None:
        """Hand over what is due, as far as there is a connection; called in each turn."""
        self._allowed = min(self._allowed + (now_s - self._filled_s) * PER_S, PER_S)
        self._filled_s = now_s
        if not self._due or not self._link.connected.is_set():
            return
        messages = []
        while self._due and self._allowed >= 1.0:
            key = next(iter(self._due))
            found = self._due.pop(key)
            self._allowed -= 1.0 if isinstance(found, Features) else SPECTRUM_COSTS
            topic = topics.picture_topic(self._config.node.site, self._config.name, *key)
            # At QoS 0: the broker keeps none for a server that is away.
            messages.append((topic, _encoded(found), 0, False))
        self._link.say(messages)

    def _is_due(self, key: tuple[str, str], t_ns: int, every_ns: int) -> bool:
        """Return whether it is time again, by the data's clock; one that was set back begins anew.

        ``every_ns``: 0: never.
        """
        told = self._told.get(key)
        if not every_ns or (told is not None and told <= t_ns < told + every_ns):
            return False
        self._told[key] = t_ns
        return True

    def _wait(self, key: tuple[str, str], what: Features | tuple[Waveform, Shot]) -> None:
        self._due[key] = what  # the newest, in the place of the one before
        if len(self._due) > WAITING:
            del self._due[next(iter(self._due))]
            self.dropped += 1

    def _columns(self, group: Group) -> tuple[list[int], tuple[str, ...]]:
        """Return which columns are shown of a class, and their names."""
        found = self._chosen.get(group.spec.name)
        if found is None:
            columns = chosen(group.parts, MOST_FEATURES)
            names = tuple(" ".join(group.parts[i]) for i in columns)
            found = self._chosen[group.spec.name] = columns, names
        return found


def _encoded(what: "Features | tuple[Waveform, Shot]") -> bytes:
    if isinstance(what, Features):
        return _json.encode(what)
    wave, shot = what
    return _json.encode(picture.of_burst(wave, shot.asset, shot.t_ns, shot.samples, shot.rpm))


def chosen(parts: tuple[tuple[str, str], ...], most: int) -> list[int]:
    """Return the places of some features: one of each channel before the second of any.

    Args:
        parts: channel and statistic of each.
        most: of them.

    >>> chosen((("flow", "mean_6"), ("flow", "std_6"), ("speed", "mean_6")), 2)
    [0, 2]
    """
    count: dict[str, int] = {}
    ranked = []
    for i, (channel, _) in enumerate(parts):
        count[channel] = count.get(channel, 0) + 1
        ranked.append((count[channel], i))
    return sorted(i for _, i in sorted(ranked)[:most])
