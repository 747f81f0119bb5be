"""Where the reports come from, and where the fleet's table and page are."""

from pathlib import Path
from typing import Annotated

import msgspec

from contract.config import is_loopback

Positive = Annotated[float, msgspec.Meta(gt=0)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]


class MqttTls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Files in PEM form; ``certificate`` and ``key`` where the broker asks for one."""

    ca: str
    certificate: str = ""
    key: str = ""


class Mqtt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The broker on which the agents report.

    Attributes:
        host: of the broker.
        port: of the broker.
        client_id: another one for each server on a broker; it keeps what is said while it is away.
        username: where the broker asks for one.
        password_file: holds the password, on its first line.
        tls: needed beyond loopback, unless ``insecure`` says that the network is trusted.
        insecure: speak without TLS beyond loopback.
        keepalive_s: silence after which broker and server give each other up.
        releases: what is handed out stands on it, too, for devices outside the federation.
    """

    host: str = "127.0.0.1"
    port: Port = 1883
    client_id: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] = "runout-fleet"
    username: str = ""
    password_file: str = ""
    tls: MqttTls | None = None
    insecure: bool = False
    keepalive_s: Annotated[int, msgspec.Meta(ge=5, le=65535)] = 60
    releases: bool = False


class PageTls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Files in PEM form with which the page speaks HTTPS."""

    certificate: str
    key: str


class FleetConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The fleet's table, and its page.

    Attributes:
        site: whose reports; ``+``: all sites on the broker.
        database: SQLAlchemy's URL; empty: SQLite in the state folder. ``postgresql+psycopg://...``
            where that driver is installed.
        keep_days: history, alerts and machines that nothing was heard of for so long are removed.
        history_s: a point of history per machine at most so often, by the time of its data; one
            more where its state changes.
        features_s: a point of a machine's features at most so often, by the time of its data.
        silent_min: a machine of which nothing came for so long is silent.
        most_machines: reports of more are counted and not kept.
        host: where the page listens.
        port: of the page; 0: a free one.
        names: under which this machine is asked for, beside its addresses and ``localhost``.
        password_file: holds on its first line the password of the page; needed beyond loopback.
        tls: of the page; needed beyond loopback, unless ``insecure`` says that a proxy or the
            network sees to it.
        insecure: serve the page without TLS beyond loopback.
    """

    site: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] = "+"
    database: str = ""
    keep_days: Positive = 90.0
    history_s: Annotated[float, msgspec.Meta(ge=0)] = 900.0
    features_s: Annotated[float, msgspec.Meta(ge=0)] = 3600.0
    silent_min: Positive = 60.0
    most_machines: Annotated[int, msgspec.Meta(ge=1)] = 50_000
    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8780
    names: tuple[str, ...] = ()
    password_file: str = ""
    tls: PageTls | None = None
    insecure: bool = False

    def url(self, state: Path) -> str:
        """Return where the table is."""
        return self.database or f"sqlite:///{state / 'fleet.db'}"


def problem(mqtt: Mqtt | None, fleet: FleetConfig) -> str:
    """Return what cannot be used as it stands, with the key and the mend; empty: nothing."""
    if not is_loopback(fleet.host):
        if not fleet.password_file:
            return (
                f"fleet.host: {fleet.host!r} is beyond loopback: give fleet.password_file, "
                "or keep 127.0.0.1 and let people come by ssh -L"
            )
        if fleet.tls is None and not fleet.insecure:
            return (
                f"fleet.host: {fleet.host!r} is beyond loopback: give [fleet.tls] certificate and "
                "key, or say insecure = true if the network is trusted"
            )
    if any(c in fleet.site for c in "/#") or ("+" in fleet.site and fleet.site != "+"):
        return f"fleet.site: {fleet.site!r} is not a site's name, nor + for all"
    files = [("fleet.password_file", fleet.password_file)]
    if fleet.tls is not None:
        files += [
            ("fleet.tls.certificate", fleet.tls.certificate),
            ("fleet.tls.key", fleet.tls.key),
        ]
    if mqtt is not None:
        if mqtt.tls is None and not mqtt.insecure and not is_loopback(mqtt.host):
            return (
                f"mqtt.host: {mqtt.host!r} is beyond loopback: give [mqtt.tls] ca, or say "
                "insecure = true if the network is trusted"
            )
        files.append(("mqtt.password_file", mqtt.password_file))
        if mqtt.tls is not None:
            files += [
                ("mqtt.tls.ca", mqtt.tls.ca),
                ("mqtt.tls.certificate", mqtt.tls.certificate),
                ("mqtt.tls.key", mqtt.tls.key),
            ]
    for key, file in files:
        if file and not Path(file).is_file():
            return f"{key}: there is no file {file!r}"
    return ""
