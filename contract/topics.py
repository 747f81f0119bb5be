"""Topic names: ``runout/v1/<site>/<node>/<asset>/<leaf>``; one place builds and reads them."""

from typing import NamedTuple

from contract.errors import DecodeError

PREFIX = "runout/v1"
READINGS = "readings"
"""Leaf of a message with several channels of an asset; a leaf that is not reserved is a channel."""
EVENT = "event"
COMMAND = "command"
VERDICT = "verdict"
SPOKEN = frozenset({EVENT, COMMAND, VERDICT})
"""Leaves of what people say to the agent."""
HEALTH = "health"
ALERT = "alert"
RESULTS = frozenset({HEALTH, ALERT})
STATUS = "status"
FEATURE = "feature"
RESERVED = frozenset({READINGS, *SPOKEN, *RESULTS, STATUS, FEATURE})


class Topic(NamedTuple):
    """The four names in a topic."""

    site: str
    node: str
    asset: str
    leaf: str


def asset_topic(site: str, node: str, asset: str, leaf: str) -> str:
    """Build the topic of one leaf of an asset.

    >>> asset_topic("north", "rpi-1", "pump-3", READINGS)
    'runout/v1/north/rpi-1/pump-3/readings'
    """
    return f"{PREFIX}/{site}/{node}/{asset}/{leaf}"


def alert_state_topic(site: str, node: str, asset: str) -> str:
    """Build the retained topic on which the state of an asset's alert stands.

    One level below the alerts: the agent does not hear itself on it.
    """
    return f"{PREFIX}/{site}/{node}/{asset}/{ALERT}/state"


def picture_topic(site: str, node: str, asset: str, waveform: str = "") -> str:
    """Build the topic of an asset's features, or of the spectra of one of its waveforms.

    One level below, as the alert's state is: the agent does not hear itself on it.
    """
    leaf = f"spectrum/{waveform}" if waveform else "values"
    return f"{PREFIX}/{site}/{node}/{asset}/{FEATURE}/{leaf}"


def status_topic(site: str, node: str) -> str:
    """Build the retained topic on which a node says how it is."""
    return f"{PREFIX}/{site}/{node}/{STATUS}"


def release_topic(asset_class: str) -> str:
    """Build the retained topic on which the newest release of a class stands, for any site."""
    return f"{PREFIX}/releases/{asset_class}"


def settings_topic(site: str, node: str) -> str:
    """Build the retained topic on which the fleet's settings for a node stand."""
    return f"{PREFIX}/settings/{site}/{node}"


def config_topic(site: str, node: str) -> str:
    """Build the retained topic on which a node says what it measures."""
    return f"{PREFIX}/{site}/{node}/config"


def subscription(site: str, node: str) -> str:
    """Build the pattern that matches everything said of a node's assets."""
    return f"{PREFIX}/{site}/{node}/+/+"


def check_name(name: str, what: str) -> str:
    """Return ``name`` if it can stand in a topic; raise ``ValueError`` otherwise."""
    if not name or any(c in "/+#\0" or c.isspace() for c in name):
        raise ValueError(f"{what} {name!r} must be non-empty, without / + # or blanks")
    return name


def parse(topic: str) -> Topic:
    """Read an asset's topic; raises ``DecodeError`` (reason ``topic``) on any other."""
    parts = topic.split("/")
    if len(parts) != 6 or not topic.startswith(PREFIX + "/") or not all(parts):
        raise DecodeError("topic", f"topic {topic!r} is not {PREFIX}/<site>/<node>/<asset>/<leaf>")
    return Topic(*parts[2:])
