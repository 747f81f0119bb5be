"""The whole configuration of an agent: one TOML file, every key checked before anything starts."""

import fnmatch
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from agent.decode.cobs import MOST_VALUES
from agent.notify import NotifyConfig
from agent.sources import SourceConfig
from agent.sources.source import check_columns, check_units
from agent.sparkplug.names import check_asset, check_name
from contract import topics, units
from contract.config import is_loopback, load_toml
from contract.errors import ConfigError
from contract.spec import AssetClass

Positive = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)] | None


class Node(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who this device is.

    Attributes:
        name: one for the whole life of the device; empty: its host name.
        site: where it stands.
        state: folder for the store, the checkpoint and the models.
        area: of the site, for the fleet's pages and lists; may be empty.
        line: of the area; may be empty.
    """

    name: str = ""
    site: str = "site"
    state: str = "out/agent"
    area: str = ""
    line: str = ""


class Tls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Files in PEM form; ``certificate`` and ``key`` where the broker asks for one."""

    ca: str
    certificate: str = ""
    key: str = ""


class Subscription(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Topics that others laid out, and what is read from them.

    Attributes:
        topic: a filter; a level may be ``{asset}`` or ``{channel}`` in place of ``+``.
        format: of what is published there; ``auto``: found by its content.
        asset: where the topic does not bear it.
        channel: where neither topic nor payload bear it.
        unit: of the values of the one channel that the topic or ``channel`` names, where it is not
            the one that the asset class declares.
        units: the same by channel, where the payload or ``columns`` name them.
        columns: of CSV lines and COBS records.
        time: the column that bears the time.
        qos: 0: what the broker cannot deliver at once is lost.
    """

    topic: str
    format: Literal[
        "auto", "json", "lines", "senml+json", "senml+cbor", "csv", "cobs", "waveform"
    ] = "auto"
    asset: str = ""
    channel: str = ""
    unit: str = ""
    units: dict[str, str] = {}
    columns: tuple[str, ...] = ()
    time: str = ""
    qos: Literal[0, 1] = 1

    def __post_init__(self) -> None:
        """Refuse what no topic could be; msgspec turns this into an error with the path."""
        levels = self.topic.split("/")
        named = [level for level in levels if level.startswith("{")]
        if set(named) - {"{asset}", "{channel}"} or len(set(named)) != len(named):
            raise ValueError(f"topic {self.topic!r}: levels have names {{asset}} and {{channel}}")
        for i, level in enumerate(levels):
            if (level not in {"+", *named} and any(c in level for c in "+{}")) or (
                "#" in level and (level != "#" or i < len(levels) - 1)
            ):
                raise ValueError(f"topic {self.topic!r} is no topic filter at {level!r}")
        if not self.topic or (not self.columns and self.format in {"csv", "cobs"}):
            raise ValueError(f"topic {self.topic!r}: {self.format} needs columns")
        for name, what in ((self.asset, "asset"), (self.channel, "channel")):
            if name:
                topics.check_name(name, what)
        self._check_columns()
        self._check_unit()

    def _check_columns(self) -> None:
        if self.format == "cobs" and self.time:
            raise ValueError("time: a cobs record has its own")
        if self.format == "cobs" and len(self.columns) > MOST_VALUES:
            raise ValueError(f"columns: {len(self.columns)}; a cobs record has {MOST_VALUES}")
        if self.columns:
            check_columns(self.columns, self.units, self.time)
        elif self.time:
            raise ValueError("time: it is the name of a column, and there are no columns")

    def _check_unit(self) -> None:
        if self.unit and self.units:
            raise ValueError("unit: units, a table by channel, says it already")
        if self.unit and not self.channel and "{channel}" not in self.topic.split("/"):
            raise ValueError(
                f"unit: topic {self.topic!r} names no channel: give units, a table by channel"
            )
        if self.unit:
            units.check(self.unit)
        check_units(self.units)


class Sparkplug(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Sparkplug B: the agent is a primary host application to some groups of edge nodes.

    Attributes:
        host_id: of this host, on its STATE topic.
        groups: that it listens to; "+": all.
        asset: name of a device's asset, of ``{group}``, ``{node}`` and ``{device}``.
        reorder_s: how long a missing message is waited for.
        history_s: what a node or device says after its birth is held so long for what it stored
            before, and longer while that comes; 0: what it stored is late.
    """

    host_id: str = "runout"
    groups: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] = ("+",)
    asset: str = "{device}"
    reorder_s: Annotated[float, msgspec.Meta(ge=0, le=60)] = 2.0
    history_s: Annotated[float, msgspec.Meta(ge=0, le=60)] = 2.0

    def __post_init__(self) -> None:
        """Refuse what no host application could be; msgspec turns this into an error."""
        check_name(self.host_id)
        for group in self.groups:
            if group != "+":
                check_name(group)
        check_asset(self.asset)


class SparkplugEdge(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Sparkplug B: the agent is an edge node that publishes its results, an asset a device.

    Attributes:
        group_id: of the node.
        edge_node_id: unique in the group.
        primary_host_id: nothing is published while this host application is not there, and then
            all that was found meanwhile; empty: whoever listens.
    """

    group_id: str
    edge_node_id: str
    primary_host_id: str = ""

    def __post_init__(self) -> None:
        """Refuse what is no name; msgspec turns this into an error with the path."""
        for name in (self.group_id, self.edge_node_id, self.primary_host_id or "none"):
            if not name or set(name) & set("+/#"):
                raise ValueError(f"{name!r} is no Sparkplug name: not empty, without + / #")


class Mqtt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The broker that readings come from and results go to.

    Attributes:
        host: of the broker.
        port: of the broker.
        version: of the protocol: ``3.1.1`` or ``5``.
        topics: patterns in Runout's own layout to subscribe to; empty: everything said of this
            node's assets.
        subscribe: other layouts.
        sparkplug: listen to Sparkplug B edge nodes, too.
        sparkplug_edge: publish results as a Sparkplug B edge node, too.
        username: where the broker asks for one.
        password_file: holds the password, on its first line.
        tls: needed beyond loopback, unless ``insecure`` says that the network is trusted.
        insecure: speak without TLS beyond loopback.
        keepalive_s: silence after which broker and agent give each other up.
    """

    host: str = "127.0.0.1"
    port: Port = 1883
    version: Literal["3.1.1", "5"] = "3.1.1"
    topics: tuple[str, ...] = ()
    subscribe: tuple[Subscription, ...] = ()
    sparkplug: Sparkplug | None = None
    sparkplug_edge: SparkplugEdge | None = None
    username: str = ""
    password_file: str = ""
    tls: Tls | None = None
    insecure: bool = False
    keepalive_s: Annotated[int, msgspec.Meta(ge=5, le=65535)] = 60


class Keep(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the store keeps, and how hard it holds on to it.

    Attributes:
        power_loss_safe: every commit reaches the disk; False: it survives a killed process only.
        checkpoint_s: seconds from one checkpoint to the next.
        journal_mb: of readings, kept behind the checkpoint.
        results: health reports and alerts kept.
        lives: finished lives kept per asset class.
        waveforms: keep bursts in the journal; False: their features only, so that an alert shows
            no waveform.
        evidence_mb: of what alerts are explained from; 0: none is kept.
        wait_ms: after the first message of a batch, so that more of them share its commit; results
            come so much later; 0: none. A card lives by it: see ``docs/durability.md``.
    """

    power_loss_safe: bool = True
    checkpoint_s: Positive = 60.0
    journal_mb: Positive = 64.0
    results: Count = 100_000
    lives: Count = 500
    waveforms: bool = True
    evidence_mb: Annotated[float, msgspec.Meta(ge=0)] = 32.0
    wait_ms: Annotated[float, msgspec.Meta(ge=0, le=2000)] = 0.0


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds on what others can make this device do.

    Attributes:
        intake: messages waiting to be processed.
        intake_mb: of their payload.
        future_s: a reading may be this far ahead of the device's clock.
        quarantine: unreadable messages kept for a look.
        assets: machines one agent takes on.
    """

    intake: Count = 20_000
    intake_mb: Positive = 2.0
    future_s: Positive = 300.0
    quarantine: Count = 1000
    assets: Count = 1000


class Bounds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds on figures of a class whose crossing asks for retraining; absent: none.

    Attributes:
        accuracy: least share of cases that were right.
        precision: least share of judged alerts that were right.
        recall: least share of failures and faults that had an alert.
        f1: least harmonic mean of both.
        false_alarms_per_month: most, per machine and month of 730 hours.
        rul_error_h: most, of predictions told before failures.
        drifting: most, as a share of the machines that are known.
        cases: before there are so many, nothing is asked for but by ``drifting``.
    """

    accuracy: Share = None
    precision: Share = None
    recall: Share = None
    f1: Share = None
    false_alarms_per_month: Annotated[float, msgspec.Meta(ge=0)] | None = None
    rul_error_h: Positive | None = None
    drifting: Share = None
    cases: Count = 5


class TrialConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a release is tried here, before it judges and for a while after.

    Attributes:
        shadow: feature vectors that it judges beside what judges now before it may take its place;
            0: it takes it at once.
        shadow_h: hours of the data's own time that it does so at least.
        watch: vectors for which what judged before it goes on beside it, to take its place again;
            0: it does not.
        watch_h: hours of the data's own time that it does so at least.
        alarms: a release may put so many times the share of vectors into alarm that the other
            does ...
        alarms_more: ... and this share of all vectors more.
        latency_ms: it may take so long for a vector at most.
    """

    shadow: Annotated[int, msgspec.Meta(ge=0)] = 0
    shadow_h: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    watch: Annotated[int, msgspec.Meta(ge=0)] = 500
    watch_h: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    alarms: Annotated[float, msgspec.Meta(ge=1)] = 2.0
    alarms_more: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.1
    latency_ms: Positive = 50.0


class Learning(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How this device learns alone, and when it trusts a release.

    Attributes:
        sklearn: train the scikit-learn model on the device too, without a server (100 MB more).
        tolerance: a release is promoted if its error on this device's held-out lives is at most
            ``1 + tolerance`` times the error of what judges now.
        bounds: beyond which retraining is asked for.
        trial: of a release.
    """

    sklearn: bool = False
    tolerance: Annotated[float, msgspec.Meta(ge=0)] = 0.1
    bounds: Bounds = Bounds()
    trial: TrialConfig = TrialConfig()


class Report(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How often health is told.

    Attributes:
        health_every_s: of data time, per asset, at least from one report to the next; alerts come
            at once; 0: at each feature vector.
        status_s: seconds between status messages while there is something to say.
        features_every_s: of data time, per asset, at least from one message with some of its
            features to the next; 0: none are sent.
        spectrum_every_s: the same of the spectrum of each waveform.
    """

    health_every_s: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    status_s: Positive = 0.2
    features_every_s: Annotated[float, msgspec.Meta(ge=0)] = 900.0
    spectrum_every_s: Annotated[float, msgspec.Meta(ge=0)] = 3600.0


class Federation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The fleet's server, for ``runout-agent node``; the agent itself works without.

    Attributes:
        superlink: ``host:port`` of Flower's SuperLink.
        ca: PEM file of the authority that signed the server's certificate; needed beyond loopback.
        key: this node's private key, where the server asks for one.
        poll_s: a node asks the server whether there is anything to do at least this often, and at
            most twice as often.
        poll_busy_s: it asks again after so long when there was, and then ever more slowly.
        port: on loopback, for the processes of Flower's own node (``--stock``); 0: a free one.
        release_key: PEM file of the fleet's public key: no release but those it has signed judges
            here; empty: whoever may lay a file into the state folder is trusted.
        over_mqtt: take releases from the broker, too; needs ``release_key``.
        settings: take changes of this configuration from the fleet, over the broker and signed; see
            ``contract.settings.ALLOWED``. Needs ``release_key``.
        settings_well_s: once the agent has been well with them for so long they are kept.
    """

    superlink: str = "127.0.0.1:9092"
    ca: str = ""
    key: str = ""
    poll_s: Annotated[float, msgspec.Meta(ge=1, le=3600)] = 30.0
    poll_busy_s: Annotated[float, msgspec.Meta(ge=0.2, le=3600)] = 1.0
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    release_key: str = ""
    over_mqtt: bool = False
    settings: bool = False
    settings_well_s: Positive = 60.0

    def __post_init__(self) -> None:
        """Refuse what anybody could forge; msgspec turns this into an error with the path."""
        if self.over_mqtt and not self.release_key:
            raise ValueError(
                "over_mqtt: give release_key (runout-server key): whoever may publish to the "
                "broker could else send models"
            )
        if self.settings and not self.release_key:
            raise ValueError(
                "settings: give release_key (runout-server key): whoever may publish to the "
                "broker could else change this configuration"
            )


class Web(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The agent's own page, metrics and ``/healthz``: see ``agent.page``.

    Attributes:
        enabled: serve them.
        host: address to listen at.
        port: 0: a free one.
        insecure: listen beyond loopback, without TLS; needs ``token_file``.
        token_file: holds on its first line the token that is asked for beyond loopback.
        names: under which this machine is asked for, beside its addresses and ``localhost``.
        broker_absent_min: minutes without the broker after which ``/healthz`` says so; 0: never.
        connections: at a time; one more is answered 503.
    """

    enabled: bool = True
    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8770
    insecure: bool = False
    token_file: str = ""
    names: tuple[str, ...] = ()
    broker_absent_min: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    connections: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 16

    def __post_init__(self) -> None:
        """Refuse what would stand open; msgspec turns this into an error with the path."""
        if not is_loopback(self.host) and not (self.insecure and self.token_file):
            raise ValueError(
                f"host: {self.host!r} is beyond loopback: say insecure = true and give token_file, "
                "or keep 127.0.0.1 and let a proxy speak TLS"
            )


class HomeAssistant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Home Assistant's MQTT discovery: see ``agent.home_assistant``.

    Attributes:
        enabled: announce each asset.
        prefix: of the topics on which Home Assistant looks.
    """

    enabled: bool = False
    prefix: str = "homeassistant"

    def __post_init__(self) -> None:
        """Refuse what is no topic; msgspec turns this into an error with the path."""
        for level in self.prefix.split("/"):
            topics.check_name(level, "prefix: a level of it,")


class AgentConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything; see ``configs/agent.toml`` for a commented example.

    Attributes:
        source: where readings come from beside MQTT.
        functions: folder of Python files whose functions an asset class may name.
        facts: CSV file of slow facts, a row per asset: see ``agent.facts``.
        asset_class: the cohorts of this device.
        assets: asset name patterns to class names, first match wins; empty: all of the only class.
        notify: who is told of alerts, and how.
        expect: assets that must be there, for ``runout-agent check --live``.
    """

    asset_class: Annotated[tuple[AssetClass, ...], msgspec.Meta(min_length=1)]
    node: Node = Node()
    mqtt: Mqtt = Mqtt()
    source: tuple[SourceConfig, ...] = ()
    functions: str = ""
    facts: str = ""
    assets: dict[str, str] = {}
    expect: tuple[str, ...] = ()
    keep: Keep = Keep()
    limits: Limits = Limits()
    learning: Learning = Learning()
    report: Report = Report()
    federation: Federation = Federation()
    web: Web = Web()
    notify: Annotated[tuple[NotifyConfig, ...], msgspec.Meta(max_length=16)] = ()
    home_assistant: HomeAssistant = HomeAssistant()

    @property
    def name(self) -> str:
        """Return the node's name."""
        return self.node.name or socket.gethostname()

    @property
    def state(self) -> Path:
        """Return the folder of the node's state."""
        return Path(self.node.state)

    def class_of(self, asset: str) -> AssetClass | None:
        """Return the asset's class, or None if no pattern matches its name."""
        if not self.assets:
            return self.asset_class[0]
        for pattern, name in self.assets.items():
            if fnmatch.fnmatchcase(asset, pattern):
                return next(c for c in self.asset_class if c.name == name)
        return None


def load(path: Path, overrides: Sequence[str] = ()) -> AgentConfig:
    """Read and check a configuration; raises ``ConfigError`` naming file, key and mend."""
    config = load_toml(path, AgentConfig, overrides)
    problem = _problem(config)
    if problem:
        raise ConfigError(f"{path}: {problem}")
    return config


def _problem(config: AgentConfig) -> str:
    names = [c.name for c in config.asset_class]
    if len(set(names)) != len(names):
        return "asset_class: a name stands twice"
    if len(names) > 1 and not config.assets:
        return "assets: with several asset classes, say which asset is of which: [assets]"
    for pattern, name in config.assets.items():
        if name not in names:
            return f"assets.{pattern!r}: no asset class {name!r}; there are {', '.join(names)}"
    try:
        topics.check_name(config.name, "node.name")
        topics.check_name(config.node.site, "node.site")
        for asset_class in config.asset_class:
            topics.check_name(asset_class.name, "asset_class.name")
            measured = [(channel.name, channel.unit) for channel in asset_class.channels]
            measured += [(wave.name, wave.unit) for wave in asset_class.waveforms]
            for name, unit in measured:
                place = f"asset_class {asset_class.name}: channel {name!r}"
                topics.check_name(name, f"asset_class {asset_class.name}: channel")
                if name in topics.RESERVED:
                    return f"{place} is a reserved topic level"
                try:
                    units.check(unit)
                except ValueError as error:
                    return f"{place}: {error}"
        for asset in config.expect:
            topics.check_name(asset, "expect:")
            if config.class_of(asset) is None:
                return f"expect: asset {asset!r} matches no pattern of [assets]"
    except ValueError as error:
        return str(error)
    sources = [source.name for source in config.source]
    if len(set(sources)) != len(sources):
        return "source: a name stands twice; give each source a name of its own"
    if any(c.functions for c in config.asset_class) and not Path(config.functions or "?").is_dir():
        return f"functions: {config.functions!r} is not the folder that holds the functions"
    mqtt = config.mqtt
    if mqtt.tls is None and not mqtt.insecure and not is_loopback(mqtt.host):
        return (
            f"mqtt.host: {mqtt.host!r} is beyond loopback: give [mqtt.tls] ca, or say "
            "insecure = true if the network is trusted"
        )
    files = [
        ("facts", config.facts),
        ("mqtt.password_file", mqtt.password_file),
        ("web.token_file", config.web.token_file),
        ("federation.ca", config.federation.ca),
    ]
    files.append(("federation.key", config.federation.key))
    files.append(("federation.release_key", config.federation.release_key))
    if mqtt.tls:
        files += [
            ("mqtt.tls.ca", mqtt.tls.ca),
            ("mqtt.tls.certificate", mqtt.tls.certificate),
            ("mqtt.tls.key", mqtt.tls.key),
        ]
    channels = [channel.title for channel in config.notify]
    if len(set(channels)) != len(channels):
        return "notify: a name stands twice; give each channel a name of its own"
    for channel in config.notify:
        files += [(f"notify {channel.title}: {key}", file) for key, file in channel.files.items()]
    for key, file in files:
        if file and not Path(file).is_file():
            return f"{key}: there is no file {file!r}"
    return ""
