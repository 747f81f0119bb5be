"""What a topic means: which asset, which channel, in which form; found out once per topic."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from agent.config import AgentConfig, Subscription
from agent.sources import Http, Modbus, Serial
from contract import topics
from contract.errors import DecodeError


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
                self._sources[source.name] = _target_of(source)
        sparkplug = config.mqtt.sparkplug
        self._sparkplug = bool(sparkplug)
        own = config.mqtt.topics or (topics.subscription(site, node),)
        self.filters: list[tuple[str, int]] = [(topic, 1) for topic in own]
        self.filters += [(topic_filter(s.topic), s.qos) for s in config.mqtt.subscribe]

    def target(self, topic: str, source: str = "") -> Target:
        """Return what a topic of MQTT or of a source means.

        Raises:
            DecodeError: ``topic``: it means nothing; ``unit``.
        """
        if source:
            return self._sources.get(source) or self._posted(self._http[source], topic)
        if self._sparkplug and topic.startswith("spBv1.0/"):
            return Target("", format="sparkplug")
        for pattern, subscription in self._routes:
            match = pattern.fullmatch(topic)
            if match:
                return _subscribed(subscription, match.groupdict())
        parsed = topics.parse(topic)
        return Target(parsed.asset, parsed.leaf, whole=parsed.leaf == topics.READINGS)

    def _posted(self, source: Http, topic: str) -> Target:
        # source/<name>/<format>/<asset>/<channel or "readings">, as agent.sources.http says.
        _, _, form, asset, leaf = topic.split("/", 4)
        leaf = "" if leaf == topics.READINGS and form != "json" else leaf
        return Target(
            asset,
            leaf,
            format=form,
            whole=leaf == topics.READINGS or form == "csv",
            units=source.units,
            columns=source.columns,
            time=source.time,
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
    if channel == topics.READINGS and subscription.unit:
        raise DecodeError(
            "unit", f"one unit, {subscription.unit!r}, for several channels: give units, a table"
        )
    return Target(
        levels.get("asset", subscription.asset),
        channel,
        format=subscription.format,
        whole=not channel and bool(subscription.columns),
        units={channel: subscription.unit} if subscription.unit else subscription.units,
        columns=subscription.columns,
        time=subscription.time,
    )


def _target_of(source: Serial | Modbus) -> Target:
    if isinstance(source, Modbus):
        return Target(source.asset, format="lines")
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


def apart(config: AgentConfig) -> list[str]:
    """Return, in words, where channels that come by themselves will hardly ever make a row.

    Without a grid a row is of one time, and lacks what was read at another.
    """
    loose = {
        spec.name: f"asset_class {spec.name} has no every_s"
        for spec in config.asset_class
        if not spec.every_s and len(spec.channels) > 1
    }
    found = []
    for one in config.mqtt.subscribe:
        spec = config.class_of(one.asset) if one.asset else None
        names = [spec.name] if spec else [*loose]
        if one.channel or "{channel}" in one.topic.split("/"):
            found += [
                f"{loose[name]}: channels from {one.topic!r} make one row only where they bear the "
                "same time, and each is missing in the others' rows: give the class every_s"
                for name in names
                if name in loose
            ]
    for source in config.source:
        if not isinstance(source, Modbus):
            continue
        beats: dict[str, set[float]] = {}
        for poll in source.poll:
            beats.setdefault(source.asset_of(poll), set()).add(poll.every_s)
        found += [
            f"{loose[spec.name]}: channels of {asset!r} are polled at several rates by source "
            f"{source.name!r}, and each is missing in the others' rows: give the class every_s"
            for asset, rates in beats.items()
            if len(rates) > 1 and (spec := config.class_of(asset)) and spec.name in loose
        ]
    return found


def overlapping(patterns: Sequence[str]) -> str:
    """Return the first pattern that stands twice, or nothing."""
    seen: set[str] = set()
    for pattern in patterns:
        if pattern in seen:
            return pattern
        seen.add(pattern)
    return ""
