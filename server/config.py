"""The whole configuration of the server: one TOML file, every key checked before a start."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from contract.config import is_loopback, load_toml
from contract.errors import ConfigError
from server.guard import Limits

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


class ServerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything; see ``configs/server.toml`` for a commented example.

    Attributes:
        state: folder for the registry, the ledgers, the logs and SuperLink's database.
        listen: ``host:port`` of SuperLink, where the nodes come in.
        asset_class: the cohort; empty: the class most nodes report.
        rounds: of local training in one training, after the statistics.
        min_nodes: a training waits until that many are there.
        deadline_s: a phase ends here, with those who answered.
        interval_s: from one training to the next.
        strategy: merges the means family.
        tls: needed beyond loopback.
        guard: how far one node may stand out.
    """

    state: str = "out/server"
    listen: str = "127.0.0.1:9092"
    asset_class: str = ""
    rounds: Count = 3
    min_nodes: Count = 2
    deadline_s: Positive = 120.0
    interval_s: Positive = 3600.0
    strategy: StrategyName = "fedavg"
    tls: Tls | None = None
    guard: Limits = Limits()

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
    problem = _problem(config)
    if problem:
        raise ConfigError(f"{path}: {problem}")
    return config


def _problem(config: ServerConfig) -> str:
    host, _, port = config.listen.rpartition(":")
    if not host or not port.isdigit() or not 1 <= int(port) <= 65535:
        return f"listen: {config.listen!r} is not host:port, such as 127.0.0.1:9092"
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
