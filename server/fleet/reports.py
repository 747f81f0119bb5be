"""What agents publish, as it comes: which topics are heard, and what each message is."""

import math
from itertools import pairwise
from typing import NamedTuple

import msgspec

from contract import topics
from contract.errors import DecodeError
from contract.picture import MOST_BYTES as MOST_PICTURE
from contract.picture import Features, Lines, Spectrum
from contract.report import Alert, Health, NodeConfig, NodeStatus

MOST_BYTES = 256 * 1024
MOST_NAME = 200
"""Characters of a site, node or asset."""


class StatusSaid(NamedTuple):
    """A node says how it is."""

    site: str
    node: str
    status: NodeStatus
    body: bytes


class ConfigSaid(NamedTuple):
    """A node says what it measures."""

    site: str
    node: str
    config: NodeConfig
    body: bytes


class HealthSaid(NamedTuple):
    """A node says how a machine is."""

    site: str
    node: str
    report: Health
    body: bytes


class AlertSaid(NamedTuple):
    """A node tells of a change of an alert, or, retained, how it stands."""

    site: str
    node: str
    alert: Alert
    body: bytes
    stands: bool


class FeaturesSaid(NamedTuple):
    """A node shows some features of a machine."""

    site: str
    node: str
    features: Features


class SpectrumSaid(NamedTuple):
    """A node shows the spectrum of a machine's burst."""

    site: str
    node: str
    spectrum: Spectrum
    body: bytes


Said = StatusSaid | ConfigSaid | HealthSaid | AlertSaid | FeaturesSaid | SpectrumSaid

_status = msgspec.json.Decoder(NodeStatus)
_config = msgspec.json.Decoder(NodeConfig)
_health = msgspec.json.Decoder(Health)
_alert = msgspec.json.Decoder(Alert)
_features = msgspec.json.Decoder(Features)
_spectrum = msgspec.json.Decoder(Spectrum)


def filters(site: str) -> list[str]:
    """Return the topic filters of a site, or of all by ``+``.

    >>> filters("north")[0]
    'runout/v1/north/+/status'
    """
    return [
        topics.status_topic(site, "+"),
        topics.config_topic(site, "+"),
        topics.asset_topic(site, "+", "+", topics.HEALTH),
        topics.asset_topic(site, "+", "+", topics.ALERT),
        topics.alert_state_topic(site, "+", "+"),
        topics.picture_topic(site, "+", "+"),
        topics.picture_topic(site, "+", "+", "+"),
    ]


def read(topic: str, payload: bytes) -> Said | None:
    """Read a message; None: an empty one, by which a word that was retained is taken back.

    Raises:
        DecodeError: it cannot be used.
    """
    parts = topic.removeprefix(topics.PREFIX + "/").split("/")
    if not topic.startswith(topics.PREFIX + "/") or not all(parts):
        raise DecodeError("topic", f"topic {topic!r} is none of Runout's")
    if any(len(part) > MOST_NAME for part in parts):
        raise DecodeError("topic", f"a name in topic {topic[:80]!r}... is too long")
    if not payload:
        return None
    if len(payload) > MOST_BYTES:
        raise DecodeError("size", f"{topic}: {len(payload)} bytes; {MOST_BYTES} at most")
    try:
        return _read(parts, payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError("json", f"{topic}: {error}") from error


def _read(parts: list[str], payload: bytes) -> Said:
    match parts:
        case [site, node, topics.STATUS]:
            status = _status.decode(payload)
            _same("node", status.node, node)
            return StatusSaid(site, node, status, payload)
        case [site, node, "config"]:
            config = _config.decode(payload)
            _same("node", config.node, node)
            return ConfigSaid(site, node, config, payload)
        case [site, node, asset, topics.HEALTH]:
            report = _health.decode(payload)
            _same("asset", report.asset, asset)
            return HealthSaid(site, node, report, payload)
        case [site, node, asset, topics.ALERT]:
            alert = _alert.decode(payload)
            _same("asset", alert.asset, asset)
            return AlertSaid(site, node, alert, payload, stands=False)
        case [site, node, asset, topics.ALERT, "state"]:
            alert = _alert.decode(payload)
            _same("asset", alert.asset, asset)
            return AlertSaid(site, node, alert, payload, stands=True)
        case [site, node, asset, topics.FEATURE, *below]:
            if len(payload) > MOST_PICTURE:
                raise DecodeError("size", f"{len(payload)} bytes of {asset!r}; {MOST_PICTURE} most")
            return _picture(site, node, asset, below, payload)
    raise DecodeError("topic", f"topic {'/'.join(parts)!r} bears no report")


def _picture(
    site: str, node: str, asset: str, below: list[str], payload: bytes
) -> FeaturesSaid | SpectrumSaid:
    match below:
        case ["values"]:
            features = _features.decode(payload)
            _same("asset", features.asset, asset)
            if len(features.names) != len(features.values):
                raise DecodeError("shape", f"{asset}: features and their names differ in number")
            return FeaturesSaid(site, node, features)
        case ["spectrum", waveform]:
            spectrum = _spectrum.decode(payload)
            _same("asset", spectrum.asset, asset)
            _same("waveform", spectrum.waveform, waveform)
            for lines in filter(None, (spectrum.lines, spectrum.envelope)):
                _check(asset, lines)
            if not all(hz > 0 for hz in spectrum.at_hz.values()):
                raise DecodeError("shape", f"{asset}: a line is expected at 0 Hz or below")
            return SpectrumSaid(site, node, spectrum, payload)
    raise DecodeError("topic", f"topic .../{'/'.join(below)} bears no picture")


def _check(asset: str, lines: Lines) -> None:
    if len(lines.hz) != len(lines.values):
        raise DecodeError("shape", f"{asset}: lines and amplitudes differ in number")
    if not all(low < high for low, high in pairwise((0.0, *lines.hz))):
        raise DecodeError("shape", f"{asset}: lines do not rise from above 0 Hz")
    if not all(0.0 <= value < math.inf for value in lines.values):
        raise DecodeError("shape", f"{asset}: an amplitude is below 0")


def _same(what: str, said: str, topic: str) -> None:
    if said != topic:
        raise DecodeError(what, f"{what} {said!r} reported on the topic of {topic!r}")
