"""The whole configuration of an agent: one TOML file, every key checked before anything starts."""

import fnmatch
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec

from contract import topics
from contract.config import is_loopback, load_toml
from contract.errors import ConfigError
from contract.spec import AssetClass

Positive = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]


class Node(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who this device is.

    Attributes:
        name: one for the whole life of the device; empty: its host name.
        site: where it stands.
        state: folder for the store, the checkpoint and the models.
    """

    name: str = ""
    site: str = "site"
    state: str = "out/agent"


class Tls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Files in PEM form; ``certificate`` and ``key`` where the broker asks for one."""

    ca: str
    certificate: str = ""
    key: str = ""


class Mqtt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The broker that readings come from and results go to.

    Attributes:
        host: of the broker.
        port: of the broker.
        topics: patterns to subscribe to; empty: everything said of this node's assets.
        username: where the broker asks for one.
        password_file: holds the password, on its first line.
        tls: needed beyond loopback, unless ``insecure`` says that the network is trusted.
        insecure: speak without TLS beyond loopback.
        keepalive_s: silence after which broker and agent give each other up.
    """

    host: str = "127.0.0.1"
    port: Port = 1883
    topics: tuple[str, ...] = ()
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
    """

    power_loss_safe: bool = True
    checkpoint_s: Positive = 60.0
    journal_mb: Positive = 64.0
    results: Count = 100_000
    lives: Count = 500


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds on what others can make this device do.

    Attributes:
        intake: messages waiting to be processed.
        future_s: a reading may be this far ahead of the device's clock.
        quarantine: unreadable messages kept for a look.
        assets: machines one agent takes on.
    """

    intake: Count = 20_000
    future_s: Positive = 300.0
    quarantine: Count = 1000
    assets: Count = 1000


class Learning(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How this device learns alone, and when it trusts a release.

    Attributes:
        sklearn: train the scikit-learn model on the device too, without a server (100 MB more).
        tolerance: a release is promoted if its error on this device's held-out lives is at most
            ``1 + tolerance`` times the error of what judges now.
    """

    sklearn: bool = False
    tolerance: Annotated[float, msgspec.Meta(ge=0)] = 0.1


class Report(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How often health is told.

    Attributes:
        health_every_s: of data time, per asset; 0: at each feature vector.
        status_s: seconds between status messages while there is something to say.
    """

    health_every_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    status_s: Positive = 0.2


class Federation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The fleet's server, for ``runout-agent node``; the agent itself works without.

    Attributes:
        superlink: ``host:port`` of Flower's SuperLink.
        ca: PEM file of the authority that signed the server's certificate; needed beyond loopback.
        key: this node's private key, where the server asks for one.
        port: on loopback, for the node's own processes; 0: a free one.
    """

    superlink: str = "127.0.0.1:9092"
    ca: str = ""
    key: str = ""
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0


class AgentConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything; see ``configs/agent.toml`` for a commented example.

    Attributes:
        asset_class: the cohorts of this device.
        assets: asset name patterns to class names, first match wins; empty: all of the only class.
    """

    asset_class: Annotated[tuple[AssetClass, ...], msgspec.Meta(min_length=1)]
    node: Node = Node()
    mqtt: Mqtt = Mqtt()
    assets: dict[str, str] = {}
    keep: Keep = Keep()
    limits: Limits = Limits()
    learning: Learning = Learning()
    report: Report = Report()
    federation: Federation = Federation()

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
            for channel in asset_class.channel_names:
                topics.check_name(channel, f"asset_class {asset_class.name}: channel")
                if channel in topics.RESERVED:
                    return f"asset_class {asset_class.name}: {channel!r} is a reserved topic level"
    except ValueError as error:
        return str(error)
    mqtt = config.mqtt
    if mqtt.tls is None and not mqtt.insecure and not is_loopback(mqtt.host):
        return (
            f"mqtt.host: {mqtt.host!r} is beyond loopback: give [mqtt.tls] ca, or say "
            "insecure = true if the network is trusted"
        )
    files = [("mqtt.password_file", mqtt.password_file), ("federation.ca", config.federation.ca)]
    files.append(("federation.key", config.federation.key))
    if mqtt.tls:
        files += [
            ("mqtt.tls.ca", mqtt.tls.ca),
            ("mqtt.tls.certificate", mqtt.tls.certificate),
            ("mqtt.tls.key", mqtt.tls.key),
        ]
    for key, file in files:
        if file and not Path(file).is_file():
            return f"{key}: there is no file {file!r}"
    return ""
