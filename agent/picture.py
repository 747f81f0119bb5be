"""Shows people on the fleet's page features and spectra: thinned, and never again.

Nothing follows from it: it is not in the store, and what a lost connection takes along is lost.
Of a class with ``privacy`` none is shown: features would tell what noise was to hide.
"""

import math
from collections import deque

import msgspec

from agent.asset import Run
from agent.batch import Batch, Shot
from agent.config import AgentConfig
from agent.features import picture
from agent.group import Group
from agent.mqtt import Link
from contract import topics
from contract.picture import MOST_FEATURES, Features, Spectrum
from contract.spec import Waveform

FEATURES_PER_S = 100.0
SPECTRA_PER_S = 5.0
"""Messages, whatever the speed of the data; a spectrum is of 12 kB and takes 1 ms."""
WAITING = 256
"""Of each kind; of more, the one that has waited longest is dropped."""

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
        self._features: deque[Features] = deque()
        self._spectra: dict[tuple[str, str], tuple[Waveform, Shot]] = {}
        self._may_features = _Allowance(FEATURES_PER_S)
        self._may_spectra = _Allowance(SPECTRA_PER_S)

    def look(self, run: Run, k: int) -> None:
        """Take the features of a vector that is reported; to be called by the pipeline."""
        name, t_ns = run.asset.name, run.t_ns[k]
        group = run.asset.group
        if group.spec.privacy is not None or not self._is_due((name, ""), t_ns, self._features_ns):
            return
        columns, names = self._columns(group)
        x = group.watched_of(run.X[k : k + 1])[0, columns]
        values = tuple(float(f"{v:.5g}") if math.isfinite(v) else None for v in x.tolist())
        self._features.append(Features(name, t_ns / 1e9, names, values))
        if len(self._features) > WAITING:
            self._features.popleft()
            self.dropped += 1

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
                self._spectra[shot.asset, wave.name] = wave, shot  # the newest alone is shown
                if len(self._spectra) > WAITING:
                    del self._spectra[next(iter(self._spectra))]
                    self.dropped += 1

    def pump(self, now_s: float) -> None:
        """Hand over what is due, as far as there is a connection; called in each turn."""
        self._may_features.fill(now_s)
        self._may_spectra.fill(now_s)
        if not (self._features or self._spectra) or not self._link.connected.is_set():
            return
        messages = []
        while self._spectra and self._may_spectra.take():
            key = next(iter(self._spectra))
            wave, shot = self._spectra.pop(key)
            found = picture.of_burst(wave, shot.asset, shot.t_ns, shot.samples, shot.rpm)
            messages.append(self._message(found, *key))
        while self._features and self._may_features.take():
            one = self._features.popleft()
            messages.append(self._message(one, one.asset))
        if messages:
            self._link.say(messages)

    def _message(
        self, what: Features | Spectrum, asset: str, waveform: str = ""
    ) -> tuple[str, bytes, int, bool]:
        node = self._config.node
        topic = topics.picture_topic(node.site, self._config.name, asset, waveform)
        # At QoS 0: the broker keeps none for a server that is away.
        return topic, _json.encode(what), 0, False

    def _is_due(self, key: tuple[str, str], t_ns: int, every_ns: int) -> bool:
        """Return whether it is time again, by the data's clock; one that was set back begins anew.

        ``every_ns``: 0: never.
        """
        told = self._told.get(key)
        if not every_ns or (told is not None and told <= t_ns < told + every_ns):
            return False
        self._told[key] = t_ns
        return True

    def _columns(self, group: Group) -> tuple[list[int], tuple[str, ...]]:
        """Return which columns are shown of a class, and their names."""
        found = self._chosen.get(group.spec.name)
        if found is None:
            columns = chosen(group.parts, MOST_FEATURES)
            names = tuple(" ".join(group.parts[i]) for i in columns)
            found = self._chosen[group.spec.name] = columns, names
        return found


class _Allowance:
    """How many messages may go out now; what was not used in a second is not saved up."""

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._left = 0.0
        self._filled_s = 0.0

    def fill(self, now_s: float) -> None:
        self._left = min(self._left + (now_s - self._filled_s) * self._per_s, self._per_s)
        self._filled_s = now_s

    def take(self) -> bool:
        """Return whether one more may go."""
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


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
