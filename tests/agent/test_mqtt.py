"""MQTT as plants have it: version 5, certificates, other layouts of topics, messages too large."""

import datetime as dt
import ipaddress
import json
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agent.cli import main
from agent.config import Mqtt
from agent.intake import Arrival
from agent.mqtt import MOST_PACKET, Link

Connect = Callable[..., Any]
Make = Callable[..., Any]
VERSIONS = ("3.1.1", "5")
START_S = 1_199_145_600
PATIENCE_S = 60


def row(hour: int) -> bytes:
    v = {"vibration": 5.0 + hour % 7 / 10, "temperature": 40.0 + hour % 5 / 10}
    return json.dumps({"t": START_S + 3600 * hour, "v": v}).encode()


def send_hours(plant: Any, begin: int, end: int) -> None:
    for hour in range(begin, end):
        plant.send("node", "pump-1", "readings", row(hour))


# -- version 5 -----------------------------------------------------------------------------------


def test_over_mqtt_5_a_broker_restarted_in_mid_stream_costs_nothing(
    broker: Any, connect: Connect, agent: Make
) -> None:
    plant = connect(broker)
    process = agent("node", "agent.minimal.toml", 'mqtt.version="5"').start()
    plant.wait_for("node", lambda status: status.online)
    send_hours(plant, 0, 300)
    plant.settle()
    broker.stop()
    process.wait_for("connection lost")
    send_hours(plant, 300, 400)
    broker.start()
    send_hours(plant, 400, 500)
    plant.wait_for("node", lambda s: s.online and s.readings == 500)
    assert (plant.statuses["node"].rejected, plant.statuses["node"].late) == (0, 0)
    plant.wait(lambda: len(plant.heard) >= 500)
    process.kill()
    plant.wait_for("node", lambda status: not status.online)  # the will
    send_hours(plant, 500, 510)  # kept by the session
    process.start()
    plant.wait_for("node", lambda s: s.online and s.readings == 510)
    assert process.end(signal.SIGTERM) == 0
    ((results, newest),) = process.table("SELECT COUNT(*), MAX(id) FROM result")
    ((sent,),) = process.table("SELECT value FROM meta WHERE key = 'sent'")
    assert (results, int(sent)) == (510, newest)


class Ear:
    """What a link brought."""

    def __init__(self) -> None:
        self._arrivals: list[Arrival] = []
        self._changed = threading.Condition()

    def receive(self, arrivals: list[Arrival]) -> None:
        with self._changed:
            self._arrivals += arrivals
            self._changed.notify_all()

    def wait_for(self, topic: str) -> list[str]:
        """Return the topics that came, up to and with this one."""

        def topics() -> list[str]:
            return [arrival.topic for arrival in self._arrivals]

        with self._changed:
            assert self._changed.wait_for(lambda: topic in topics(), PATIENCE_S), topics()
            return topics()


@pytest.mark.parametrize(("version", "back"), [("3.1.1", ["x/own"]), ("5", [])])
def test_what_we_publish_comes_back_to_us_in_version_3_and_not_in_5(
    version: Any, back: list[str], broker: Any
) -> None:
    ears = {name: Ear() for name in ("one", "other")}
    links = {
        name: Link(
            Mqtt(port=broker.port, version=version),
            client_id=name,
            filters=[("x/#", 1)],
            will=None,
            receive=ear.receive,
        )
        for name, ear in ears.items()
    }
    with closing(links["one"]), closing(links["other"]):
        for name, link in links.items():
            link.open()
            assert link.connected.wait(PATIENCE_S)
            # Retained, so that it is there for whoever's subscription stands later.
            links["one"].publish([(f"x/{name}", b"1", True)])
        ears["other"].wait_for("x/other")
        links["one"].publish([("x/own", b"1", False)])
        ears["other"].wait_for("x/own")
        links["other"].publish([("x/last", b"1", False)])
        heard = ears["one"].wait_for("x/last")
    assert [topic for topic in heard if topic == "x/own"] == back


# -- certificates --------------------------------------------------------------------------------


class Authority:
    """A certificate authority of one's own, its files in a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = name
        self.ca = folder / f"{name}.crt"
        self.ca.write_bytes(self._sign(name, self._key.public_key(), authority=True))

    def issue(self, name: str) -> tuple[Path, Path]:
        """Return the files of a certificate, good for 127.0.0.1 and no other name, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        files = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        files[0].write_bytes(self._sign(name, key.public_key(), authority=False))
        files[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return files

    def _sign(self, name: str, key: ec.EllipticCurvePublicKey, *, authority: bool) -> bytes:
        def called(who: str) -> x509.Name:
            return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, who)])

        day = dt.timedelta(days=1)
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(called(name))
            .issuer_name(called(self._name))
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - day)
            .not_valid_after(now + day)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        )
        if authority:
            usage = x509.KeyUsage(
                digital_signature=False,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=True,
                crl_sign=True,
                encipher_only=False,
                decipher_only=False,
            )
            builder = builder.add_extension(usage, critical=True)
        else:
            address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
            builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


class Secure:
    """A broker that wants a certificate, a name and a password; what it takes to be let in."""

    def __init__(self, folder: Path) -> None:
        authority = Authority(folder, "plant")
        certificate, key = authority.issue("broker")
        passwords = folder / "passwords"
        passwords.touch(mode=0o600)
        for user in ("plant", "node"):
            command = ["mosquitto_passwd", "-b", str(passwords), user, f"secret of {user}"]
            subprocess.run(command, check=True, capture_output=True)
        self.more = (
            f"cafile {authority.ca}\ncertfile {certificate}\nkeyfile {key}\n"
            f"require_certificate true\nallow_anonymous false\npassword_file {passwords}\n"
            "autosave_on_changes false\n"  # it is not stopped here, and writing takes its time
        )
        self._folder = folder
        self._authority = authority
        self._certificate, self._key = authority.issue("node")
        password = folder / "node.password"
        password.write_text("secret of node\nwhat stands below is not read\n")
        self._settings = {
            "mqtt.tls.ca": str(authority.ca),
            "mqtt.tls.certificate": str(self._certificate),
            "mqtt.tls.key": str(self._key),
            "mqtt.username": "node",
            "mqtt.password_file": str(password),
        }

    def settings(self, **changes: str) -> list[str]:
        """Return what an agent needs, with changes: ``tls_ca`` is ``mqtt.tls.ca``."""
        told = dict(self._settings)
        for key, value in changes.items():
            told["mqtt." + key.replace("tls_", "tls.")] = value
        return [f"{key}={value}" for key, value in told.items() if value]

    def prepare(self, client: paho.Client) -> None:
        """Give a client of the test's what it needs."""
        certificate, key = self._authority.issue("plant-client")
        client.tls_set(str(self._authority.ca), str(certificate), str(key))
        client.username_pw_set("plant", "secret of plant")

    def strange(self) -> Path:
        """Return the file of another authority."""
        return Authority(self._folder, "stranger").ca


@pytest.fixture
def secure(tmp_path: Path) -> Secure:
    return Secure(tmp_path)


@pytest.fixture
def secure_broker(tmp_path: Path, stopped_broker: Any, secure: Secure) -> Iterator[Any]:
    broker = type(stopped_broker)(tmp_path / "secure", secure.more)
    broker.start()
    yield broker
    broker.stop()


@pytest.mark.parametrize("version", VERSIONS)
def test_with_a_private_authority_a_certificate_and_a_password_it_is_let_in(
    version: str, secure: Secure, secure_broker: Any, connect: Connect, agent: Make
) -> None:
    plant = connect(secure_broker, prepare=secure.prepare)
    settings = [f"mqtt.port={secure_broker.port}", f'mqtt.version="{version}"']
    process = agent("node", "agent.minimal.toml", *settings, *secure.settings()).start()
    plant.wait_for("node", lambda status: status.online)
    send_hours(plant, 0, 1000)  # more than one record of TLS holds
    plant.wait_for("node", lambda status: status.readings == 1000)
    plant.wait(lambda: len(plant.heard) >= 1000)
    assert process.end(signal.SIGTERM) == 0
    assert "secret" not in process.said


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tls_ca": "a stranger's"}, "certificate verify failed"),
        ({"host": "localhost"}, "Hostname mismatch"),
        ({"tls_certificate": "", "tls_key": ""}, "certificate required"),
        ({"username": "nobody"}, "Not authorized"),
        ({"password_file": ""}, "Not authorized"),
    ],
    ids=["authority", "host", "certificate", "name", "password"],
)
def test_what_is_wrong_with_the_connection_is_said_in_the_log(
    changes: dict[str, str], words: str, secure: Secure, secure_broker: Any, agent: Make
) -> None:
    if "tls_ca" in changes:
        changes = {"tls_ca": str(secure.strange())}
    settings = [f"mqtt.port={secure_broker.port}", *secure.settings(**changes)]
    process = agent("node", "agent.minimal.toml", *settings).start()
    process.wait_for(words)
    assert process.end(signal.SIGTERM) == 0
    assert "Traceback" not in process.said


def test_beyond_loopback_tls_is_demanded(
    secure: Secure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(
        '[mqtt]\nhost = "192.0.2.1"\n'
        '[[asset_class]]\nname = "pump"\nchannels = [{name = "flow", unit = "m3/h"}]\n'
    )
    assert main(["run", "--config", str(path)]) == 2
    assert "beyond loopback: give [mqtt.tls] ca" in capsys.readouterr().err
    more = [word for setting in secure.settings() for word in ("--set", setting)]
    assert main(["check", "--config", str(path), *more]) == 0
    assert "192.0.2.1:1883, TLS" in capsys.readouterr().out
    # A password alone, in the clear, is no answer.
    assert main(["check", "--config", str(path), "--set", "mqtt.username=node"]) == 2


# -- topics that others laid out ------------------------------------------------------------------

LAYOUTS = """
[[asset_class]]
name = "pump"
channels = [{ name = "flow", unit = "m3/h" }, { name = "temperature", unit = "degC" }]

[[mqtt.subscribe]]
topic = "plant/{asset}/sensors/{channel}"

[[mqtt.subscribe]]
topic = "hall/3/oil"
asset = "press-1"
channel = "temperature"
unit = "degF"

[[mqtt.subscribe]]
topic = "loggers/{asset}/csv"
format = "csv"
columns = ["time", "flow", "", "temperature"]
time = "time"

[[mqtt.subscribe]]
topic = "fast/{asset}/{channel}"
qos = 0

[[mqtt.subscribe]]
topic = "source/{asset}"

[[mqtt.subscribe]]
topic = "rows/{asset}"
units = { temperature = "degF" }
"""


@pytest.fixture
def layouts(tmp_path: Path) -> str:
    path = tmp_path / "layouts.toml"
    path.write_text(LAYOUTS)
    return str(path)


def test_topics_of_other_houses_are_read_as_they_are_laid_out(
    layouts: str, broker: Any, connect: Connect, agent: Make
) -> None:
    plant = connect(broker)
    process = agent("node", layouts).start()
    plant.wait_for("node", lambda status: status.online)
    for n in range(3):
        plant.publish("plant/pump-1/sensors/flow", b'{"t": %d, "v": %d}' % (START_S + n, n))
        plant.publish("hall/3/oil", b'{"t": %d, "v": %d}' % (START_S + n, 212 + 9 * n))
    plant.publish(
        "loggers/pump-2/csv",
        b"".join([b"%d,%d,x,%d\n" % (START_S + n, n, 20 + n) for n in range(3)]),
    )
    plant.publish("fast/pump-3/flow", b'{"t": %d, "v": 7}' % START_S)
    plant.publish("plant/pump-1/sensors/flow/raw", b"1")  # a level too deep: not subscribed to
    plant.publish("plant/pump-1/sensors/level", b"1")  # no channel of the class
    plant.publish("loggers/pump-2/csv", b"1,2\n")
    plant.wait_for("node", lambda status: status.readings == 12)
    assert plant.statuses["node"].rejected == 2
    assert process.end(signal.SIGTERM) == 0
    assert process.values("pump-1", 0) == [0, 1, 2]
    assert process.values("press-1", 1) == pytest.approx([100, 105, 110])
    assert process.values("pump-2", 0) == [0, 1, 2]
    assert process.values("pump-2", 1) == [20, 21, 22]
    assert process.values("pump-3", 0) == [7]
    reasons = dict(process.table("SELECT reason, COUNT(*) FROM quarantine GROUP BY reason"))
    assert reasons == {"channel": 1, "csv": 1}


def test_at_qos_0_what_comes_while_the_agent_is_away_is_lost_and_at_qos_1_it_is_kept(
    layouts: str, broker: Any, connect: Connect, agent: Make
) -> None:
    plant = connect(broker)
    process = agent("node", layouts).start()
    plant.wait_for("node", lambda status: status.online)
    assert process.end(signal.SIGTERM) == 0
    plant.wait_for("node", lambda status: not status.online)
    plant.publish("fast/pump-3/flow", b'{"t": %d, "v": 1}' % START_S)
    plant.publish("plant/pump-1/sensors/flow", b'{"t": %d, "v": 1}' % START_S)
    plant.settle()
    process.start()
    plant.wait_for("node", lambda status: status.online and status.readings == 1)
    plant.publish("fast/pump-3/flow", b'{"t": %d, "v": 2}' % (START_S + 1))
    plant.wait_for("node", lambda status: status.readings == 2)
    assert process.end(signal.SIGTERM) == 0
    assert process.values("pump-3", 0) == [2]
    assert process.values("pump-1", 0) == [1]


def test_a_topic_that_begins_as_a_sources_name_is_read_as_any_other(
    layouts: str, broker: Any, connect: Connect, agent: Make
) -> None:
    plant = connect(broker)
    process = agent("node", layouts).start()
    plant.wait_for("node", lambda status: status.online)
    plant.publish("source/pump-1", b'{"t": %d, "v": {"flow": 3, "temperature": 20}}' % START_S)
    plant.publish("rows/pump-2", b'{"t": %d, "v": {"flow": 3, "temperature": 212}}' % START_S)
    plant.publish("rows/pump-2", b'{"t": %d, "v": {"flow": 3}}' % (START_S + 1))
    plant.wait_for("node", lambda status: status.readings == 3)
    assert process.end(signal.SIGTERM) == 0
    assert process.values("pump-1", 0) == [3]
    assert process.values("pump-2", 1) == [pytest.approx(100.0)]


# -- retained -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "times"), [("3.1.1", 3), ("5", 1)])
def test_what_the_broker_keeps_is_no_new_reading_and_no_new_event_at_each_start(
    version: str, times: int, broker: Any, connect: Connect, agent: Make
) -> None:
    plant = connect(broker)
    topic = "runout/v1/test/node/pump-1/"
    plant.publish(topic + "vibration", b"5.5", retain=True)
    plant.publish(topic + "event", b'{"event": "failed"}', retain=True)
    plant.publish(topic + "readings", row(0), retain=True)
    plant.settle()
    process = agent("node", "agent.minimal.toml", f'mqtt.version="{version}"')
    for start in range(3):
        process.start()
        # By the session of version 5 they come once; the one with a time is a repetition then.
        came = min(start + 1, times)
        plant.wait_for("node", lambda s, n=came: s.online and s.rejected == 2 * n)
        plant.send("node", "pump-1", "readings", row(start + 1))
        plant.wait_for("node", lambda s, n=start, r=came: s.readings == 2 + n + 2 * r)
        assert process.end(signal.SIGTERM) == 0
        plant.wait_for("node", lambda status: not status.online)
    status = plant.statuses["node"]
    assert (status.events, status.late) == (0, 0)
    assert process.table("SELECT reason, COUNT(*) FROM quarantine GROUP BY reason") == [
        ("retained", 2 * times)
    ]


# -- what is not MQTT -----------------------------------------------------------------------------

MALFORMED = {
    "a message without a topic": ("3.1.1", "30 00"),
    "an acknowledgement of nothing": ("3.1.1", "40 00"),
    "a topic beyond its packet": ("3.1.1", "32 03 00 ff 61"),
    "a message without a number": ("3.1.1", "32 03 00 01 61"),
    "a message without properties": ("5", "30 03 00 01 61"),
    "properties beyond their packet": ("5", "30 05 00 01 61 7f 00"),
    "a length without an end": ("3.1.1", "30 ff ff ff ff"),
    "the head of what is too large, and no message": ("3.1.1", "20 ff ff ff 7f"),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_what_is_not_mqtt_ends_the_connection_and_not_the_thread(what: str) -> None:
    version, packet = MALFORMED[what]
    accept = "20 02 00 00" if version == "3.1.1" else "20 03 00 00 00"
    good = "30 04 00 01 61 62" if version == "3.1.1" else "30 05 00 01 61 00 62"
    ear = Ear()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE_S)
        config = Mqtt(port=server.getsockname()[1], version=version)  # type: ignore[arg-type]
        link = Link(config, client_id="x", filters=[], will=None, receive=ear.receive)
        with closing(link):
            link.open()
            for answer in (packet, good):  # it comes back, and goes on
                connection, _ = server.accept()
                with closing(connection):
                    connection.settimeout(PATIENCE_S)
                    assert connection.recv(1000)[:1] == b"\x10"
                    connection.sendall(bytes.fromhex(accept + answer))
                    if answer == packet:
                        while connection.recv(1000):
                            pass
                    else:
                        assert ear.wait_for("a") == ["a"]
            assert link.alive


# -- too much at once -----------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_a_message_that_is_too_large_is_rejected_and_the_stream_goes_on(
    version: str, broker: Any, connect: Connect, agent: Make
) -> None:
    plant = connect(broker)
    process = agent("node", "agent.minimal.toml", f'mqtt.version="{version}"').start()
    plant.wait_for("node", lambda status: status.online)
    send_hours(plant, 0, 10)
    plant.send("node", "pump-1", "readings", b"[" + b" " * MOST_PACKET + row(10) + b"]")
    send_hours(plant, 11, 20)
    just = b"[" + b" " * (MOST_PACKET - 1000) + row(20) + b"]"
    plant.send("node", "pump-1", "readings", just)
    send_hours(plant, 21, 30)
    plant.wait_for("node", lambda s: s.readings == 30)
    assert plant.statuses["node"].rejected == 1
    assert process.table("SELECT reason FROM quarantine") == [("size",)]
    process.wait_for("a message is too large")
    # It was acknowledged: it does not come again.
    assert process.end(signal.SIGTERM) == 0
    process.start()
    send_hours(plant, 30, 31)
    plant.wait_for("node", lambda s: s.online and s.readings == 31)
    assert "too large" not in process.said
    assert process.end(signal.SIGTERM) == 0
