"""The whole configuration of the server: one TOML file, every key checked before a start."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from contract.config import is_loopback, load_toml
from contract.errors import ConfigError
from contract.topics import check_name
from server.fleet.config import FleetConfig, Mqtt
from server.fleet.config import problem as fleet_problem
from server.guard import Limits
from server.wave import Policy

Positive = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]
StrategyName = Literal[
    "fedavg",
    "fedavgm",
    "fedmedian",
    "fedtrimmedavg",
    "fedadam",
    "fedyogi",
    "fedadagrad",
    "krum",
    "multikrum",
]


class Tls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Files in PEM form: the authority, and the server's certificate and key."""

    ca: str
    cert: str
    key: str


class Service(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Models over REST: ``runout-server service``.

    Attributes:
        listen: ``host:port``; beyond loopback it needs ``[tls]`` and ``token_file``.
        token_file: holds on its first line the bearer token that callers must give.
        most_rows: in one request.
        most_bytes: of one request.
        grpc: ``host:port`` for the same over gRPC; empty: REST alone.
    """

    listen: str = "127.0.0.1:8790"
    grpc: str = ""
    token_file: str = ""
    most_rows: Count = 10_000
    most_bytes: Count = 16_000_000

    @property
    def host(self) -> str:
        """Return the host to listen on."""
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """Return the port to listen on."""
        return int(self.listen.rpartition(":")[2])


class Scores(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Stored telemetry that is scored ahead: ``runout-server score``.

    Attributes:
        agent: configuration of the agents whose telemetry it is.
        files: patterns of files, as of ``runout-agent replay``; each is replayed by itself.
        database: SQLAlchemy's URL; empty: SQLite, ``scores.db`` in the state folder.
        every_s: from one look for files and versions to the next.
    """

    agent: str
    files: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    database: str = ""
    every_s: Positive = 3600.0


class Parent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The server above this one, for which this one's ledgers are one node.

    Attributes:
        superlink: ``host:port``.
        name: of this region, one for its whole life.
        ca: PEM file of the authority that signed the parent's certificate; needed beyond loopback.
        key: this region's private key, from the bundle of ``runout-server enrol`` there.
        poll_s: it asks the parent whether there is anything to do at least this often.
    """

    superlink: str
    name: str
    ca: str = ""
    key: str = ""
    poll_s: Positive = 30.0


class ServerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything; see ``configs/server.toml`` for a commented example.

    Attributes:
        state: folder for the registry, the ledgers, the logs and SuperLink's database.
        listen: ``host:port`` of SuperLink, where the nodes come in.
        asset_class: the cohort; empty: each class that ``min_nodes`` nodes or more run.
        rounds: of local training in one training, after the statistics.
        min_nodes: a training waits until that many are there.
        deadline_s: a phase ends here, with those who answered.
        interval_s: from one training to the next.
        ask_s: from one time that nodes are asked whether they wish for one sooner; 0: never.
            Flower's own SuperNode starts a process for each question.
        new_lives: finished lives, more than the newest version has learnt, that make one due;
            0: they do not.
        ready_s: nodes are asked before a training whether they are ready, and take part if they
            answer within that; 0: they are not asked.
        quorum: share of the nodes asked; once it has answered, the others have as long again as
            that took, at most until the deadline.
        strategy: merges the means family.
        tls: needed beyond loopback.
        node_auth: nodes that were enrolled come in, and no others; needs ``tls``.
        inner: where SuperLink itself listens, on loopback, behind a proxy at ``listen`` that passes
            on what nodes say and nothing else; empty: there is no proxy. Needs ``tls``.
        guard: how far one node may stand out.
        waves: how a release reaches the fleet.
        parent: the server above this one; None: there is none.
        service: models over REST and gRPC.
        scores: telemetry that is scored ahead; None: none is.
        mqtt: the broker on which agents report; None: ``run`` has no fleet page.
        fleet: the fleet's table and page.
    """

    state: str = "out/server"
    listen: str = "127.0.0.1:9092"
    asset_class: str = ""
    rounds: Count = 3
    min_nodes: Count = 2
    deadline_s: Positive = 120.0
    interval_s: Positive = 3600.0
    ask_s: Annotated[float, msgspec.Meta(ge=0)] = 600.0
    new_lives: Annotated[int, msgspec.Meta(ge=0)] = 0
    ready_s: Annotated[float, msgspec.Meta(ge=0)] = 60.0
    quorum: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.8
    strategy: StrategyName = "fedavg"
    tls: Tls | None = None
    node_auth: bool = False
    inner: str = ""
    guard: Limits = Limits()
    waves: Policy = Policy()
    parent: Parent | None = None
    service: Service = Service()
    scores: Scores | None = None
    mqtt: Mqtt | None = None
    fleet: FleetConfig = FleetConfig()

    @property
    def superlink(self) -> tuple[str, int]:
        """Return host and port of SuperLink itself."""
        host, _, port = (self.inner or self.listen).rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def folder(self) -> Path:
        """Return the state folder."""
        return Path(self.state).absolute()

    @property
    def host(self) -> str:
        """Return the host to listen on."""
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """Return the port to listen on."""
        return int(self.listen.rpartition(":")[2])


def load(path: Path) -> ServerConfig:
    """Read and check a configuration; raises ``ConfigError`` naming file, key and mend."""
    config = load_toml(path, ServerConfig)
    problem = _problem(config) or fleet_problem(config.mqtt, config.fleet)
    if problem:
        raise ConfigError(f"{path}: {problem}")
    return config


def _problem(config: ServerConfig) -> str:
    grpc = config.service.grpc
    for key, listen, example in (
        ("listen", config.listen, "127.0.0.1:9092"),
        ("service.listen", config.service.listen, "127.0.0.1:8790"),
        *((("service.grpc", grpc, "127.0.0.1:8791"),) if grpc else ()),
    ):
        host, _, port = listen.rpartition(":")
        if not host or not port.isdigit() or not 1 <= int(port) <= 65535:
            return f"{key}: {listen!r} is not host:port, such as {example}"
    service = config.service
    for key, listen in (("listen", service.listen), ("grpc", service.grpc or service.listen)):
        host = listen.rpartition(":")[0].strip("[]")
        if not is_loopback(host) and (config.tls is None or not service.token_file):
            return (
                f"service.{key}: {host!r} is beyond loopback: give [tls] and "
                "service.token_file, or put a proxy with TLS in front of loopback"
            )
    if config.scores is not None and not Path(config.scores.agent).is_file():
        return f"scores.agent: there is no file {config.scores.agent!r}"
    if config.inner:
        host, _, port = config.inner.rpartition(":")
        if not is_loopback(host.strip("[]")) or not port.isdigit() or config.tls is None:
            return f"inner: {config.inner!r} must be host:port on loopback, and takes [tls]"
    if config.parent is not None:
        host = config.parent.superlink.rpartition(":")[0].strip("[]")
        try:
            check_name(config.parent.name, "parent.name")
        except ValueError as error:
            return str(error)
        if not is_loopback(host) and not config.parent.ca:
            return f"parent.superlink: {host!r} is beyond loopback: give parent.ca"
    if config.node_auth and config.tls is None:
        return "node_auth: it takes [tls]: see runout-server init"
    if config.tls is None:
        if not is_loopback(config.host):
            return (
                f"listen: {config.host!r} is beyond loopback: give [tls] ca, cert and key; "
                "without TLS anyone on the network could read and alter the models"
            )
        return ""
    files = (("ca", config.tls.ca), ("cert", config.tls.cert), ("key", config.tls.key))
    for key, file in files:
        if not Path(file).is_file():
            return f"tls.{key}: there is no file {file!r}"
    return ""
