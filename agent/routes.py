"""What a topic means: which asset, which channel, in which form; found out once per topic."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from agent.config import AgentConfig, Subscription
from agent.sources import Http, Modbus, Serial
from contract import topics


class Target(NamedTuple):
    """Where what is published on a topic belongs; "" where the payload says it.

    Attributes:
        asset: of the readings.
        leaf: a channel; ``readings``, ``event``, ``command``, ``verdict``, or one of our results.
        format: ``auto`` or the name of a decoder, see ``agent.decode``.
        whole: whether one message speaks of all channels it ever would at its time.
        units: by channel, where they are not the unit that the class declares.
        columns: of a CSV line or a COBS record.
        time: the column of them that bears the time.
        checksum: a CSV line must have one.
    """

    asset: str
    leaf: str = ""
    format: str = "auto"
    whole: bool = False
    units: dict[str, str] = {}  # noqa: RUF012  # never written to
    columns: tuple[str, ...] = ()
    time: str = ""
    checksum: bool = False


class Routes:
    """The subscriptions and sources of a configuration, as one question.

    Attributes:
        filters: what is to be subscribed to, with the quality of service.
    """

    def __init__(self, config: AgentConfig) -> None:
        site, node = config.node.site, config.name
        self._routes = [(_pattern(s.topic), s) for s in config.mqtt.subscribe]
        self._sources: dict[str, Target] = {}
        self._http: dict[str, Http] = {}
        for source in config.source:
            if isinstance(source, Http):
                self._http[source.name] = source
            else:
                self._sources[f"source/{source.name}"] = _target_of(source)
        sparkplug = config.mqtt.sparkplug
        self._sparkplug = bool(sparkplug)
        own = config.mqtt.topics or (topics.subscription(site, node),)
        self.filters: list[tuple[str, int]] = [(topic, 1) for topic in own]
        self.filters += [(topic_filter(s.topic), s.qos) for s in config.mqtt.subscribe]

    def target(self, topic: str) -> Target:
        """Return what a topic means; raises ``DecodeError`` (reason ``topic``) if it is nothing."""
        found = self._sources.get(topic)
        if found is not None:
            return found
        if topic.startswith("source/"):
            return self._posted(topic)
        if self._sparkplug and topic.startswith("spBv1.0/"):
            return Target("", format="sparkplug")
        for pattern, subscription in self._routes:
            match = pattern.fullmatch(topic)
            if match:
                return _subscribed(subscription, match.groupdict())
        parsed = topics.parse(topic)
        return Target(parsed.asset, parsed.leaf, whole=parsed.leaf == topics.READINGS)

    def _posted(self, topic: str) -> Target:
        # source/<name>/<format>/<asset>/<channel or "readings">, as agent.sources.http says.
        _, name, form, asset, leaf = topic.split("/", 4)
        source = self._http[name]
        leaf = "" if leaf == topics.READINGS and form != "json" else leaf
        return Target(
            "" if asset == "-" else asset,
            leaf,
            format=form,
            whole=leaf == topics.READINGS or form == "csv",
            units=source.units,
            columns=source.columns,
        )


def topic_filter(pattern: str) -> str:
    """Return the MQTT topic filter of a pattern with named levels.

    >>> topic_filter("plant/{asset}/sensors/{channel}")
    'plant/+/sensors/+'
    """
    return "/".join("+" if level.startswith("{") else level for level in pattern.split("/"))


def _pattern(pattern: str) -> re.Pattern[str]:
    parts = []
    for level in pattern.split("/"):
        if level == "+":
            parts.append("[^/]+")
        elif level == "#":
            parts.append(".*")
        elif level.startswith("{"):
            parts.append(f"(?P<{level[1:-1]}>[^/]+)")
        else:
            parts.append(re.escape(level))
    return re.compile("/".join(parts).replace("/.*", "(?:/.*)?"), re.DOTALL)


def _subscribed(subscription: Subscription, levels: dict[str, str]) -> Target:
    channel = levels.get("channel", subscription.channel)
    return Target(
        levels.get("asset", subscription.asset),
        channel,
        format=subscription.format,
        whole=not channel and bool(subscription.columns),
        units={channel: subscription.unit} if subscription.unit else {},
        columns=subscription.columns,
        time=subscription.time,
    )


def _target_of(source: Serial | Modbus) -> Target:
    if isinstance(source, Modbus):
        units = {poll.channel: poll.unit for poll in source.poll if poll.unit}
        return Target(source.asset, format="lines", units=units)
    form = "lines" if source.format == "json" else source.format
    return Target(
        source.asset,
        format=form,
        whole=source.format != "json",
        units=source.units,
        columns=source.columns,
        time=source.time,
        checksum=source.checksum,
    )


def overlapping(patterns: Sequence[str]) -> str:
    """Return the first pattern that stands twice, or nothing."""
    seen: set[str] = set()
    for pattern in patterns:
        if pattern in seen:
            return pattern
        seen.add(pattern)
    return ""
