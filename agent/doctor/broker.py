"""The broker: is it there, is it who it says, does it let us in, and does it keep enough for us?"""

import os
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from agent.config import AgentConfig, Mqtt, Tls
from agent.doctor.certificates import validity
from agent.doctor.finding import Finding, fault, ok, warning
from agent.doctor.sources import PATIENCE_S, why_not
from agent.doctor.state import running
from agent.intake import Arrival
from agent.mqtt import Link
from contract import topics
from contract.config import is_loopback
from contract.report import NodeStatus

_SOON = timedelta(days=30)
_MOST_IN_FLIGHT = 100
_MOSQUITTO = Path("/etc/mosquitto/mosquitto.conf")
_EXPIRED, _NOT_YET, _OTHER_NAME = 10, 9, (62, 64)  # X509_verify_cert_error_string(3)
_IDENTIFIER, _UNAVAILABLE, _VERSION = (2, 0x85), (3, 0x88), (1, 0x84)
_LOGIN = (4, 5, 0x86, 0x87)  # MQTT 3.1.1, 3.2.2.3, and MQTT 5, 3.2.2.2


def files(config: AgentConfig) -> Finding:
    """Check the files that the login needs: certificates, key and password."""
    mqtt = config.mqtt
    if mqtt.password_file:
        found = password(Path(mqtt.password_file))
        if found.level != "ok":
            return found
    if mqtt.tls is None:
        return ok("login files", "no TLS" + (", a password" if mqtt.password_file else ""))
    return certificates(mqtt.tls, "login files")


def password(path: Path) -> Finding:
    """Check that a password file bears one, and shows it to nobody else."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        mode = path.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        mend = f"sudo chgrp runout {path}; sudo chmod 640 {path}"
        return fault("login files", f"{path} cannot be read ({error})", mend)
    if not lines or not lines[0]:
        return fault("login files", f"{path} has nothing in its first line", "write it there")
    if mode & 0o007:
        return warning("login files", f"everybody may read {path}", f"sudo chmod o= {path}")
    return ok("login files", "a password")


def certificates(tls: Tls, check: str, now: datetime | None = None) -> Finding:
    """Check that the files of TLS can be read, are valid and fit each other."""
    now = now or datetime.now(UTC)
    nearest: tuple[datetime, str] | None = None
    for name in (tls.ca, tls.certificate):
        if not name:
            continue
        try:
            begin, end = validity(Path(name))
        except (OSError, ValueError) as error:
            return fault(check, f"{name}: {error}", "put the PEM file there, readable by the agent")
        if end < now:
            return fault(check, f"{name} expired on {end:%Y-%m-%d}", "have it issued anew")
        if begin > now:
            mend = "is the clock right? Else wait, or have it issued anew"
            return fault(check, f"{name} is valid from {begin:%Y-%m-%d %H:%M} on", mend)
        nearest = min(nearest or (end, name), (end, name))
    try:
        _context(tls)
    except OSError as error:  # an SSLError is one
        text = f"{tls.certificate or tls.ca} and {tls.key or 'no key'} do not go together ({error})"
        return fault(check, text, "give certificate and key of one pair, readable by the agent")
    if nearest and nearest[0] < now + _SOON:
        text = f"{nearest[1]} expires on {nearest[0]:%Y-%m-%d}"
        return warning(check, text, "have it issued anew before")
    return ok(check, f"valid until {nearest[0]:%Y-%m-%d}" if nearest else "none")


def _context(tls: Tls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(tls.ca)
    if tls.certificate:
        context.load_cert_chain(tls.certificate, tls.key or None)
    return context


def refusal(host: str, error: OSError) -> tuple[str, str]:
    """Return what a failed connection says, and what may be done about it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code == _EXPIRED:
            return "its certificate has expired", "have it issued anew; is this clock right?"
        if error.verify_code == _NOT_YET:
            return "its certificate is not valid yet", "is this device's clock right?"
        if error.verify_code in _OTHER_NAME:
            mend = f"use the name in it, or have one issued for {host}"
            return f"its certificate is for another name ({error.verify_message})", mend
        mend = "give the certificate of the authority that signed it (openssl s_client shows who)"
        return f"its certificate is not trusted ({error.verify_message})", mend
    if isinstance(error, ssl.SSLError):
        mend = "is it the port for TLS, does it ask for a certificate of ours?"
        return f"no TLS with it ({error.reason or error})", mend
    return f"cannot be reached ({error})", why_not(host, error)


def login(config: AgentConfig) -> Finding:
    """Connect as the agent would, but under another client id: its session is not touched."""
    mqtt = config.mqtt
    at = f"{mqtt.host}:{mqtt.port}"
    try:
        code = _connect(mqtt, f"runout-{config.node.site}-{config.name}-doctor-{os.getpid()}")
    except TimeoutError:
        mend = "is it an MQTT broker, with or without TLS as configured?"
        return fault("broker", f"{at} does not answer", mend)
    except OSError as error:
        text, mend = refusal(mqtt.host, error)
        if is_loopback(mqtt.host) and isinstance(error, ConnectionRefusedError):
            mend = "sudo systemctl start mosquitto; if it does not: journalctl -u mosquitto"
        return fault("broker", f"{at}: {text}", mend)
    except (ValueError, IndexError) as error:
        return fault("broker", f"{at} is no MQTT broker ({error})", "is the port right?")
    if code in _LOGIN:
        who = f"user {mqtt.username!r}" if mqtt.username else "a client without a user name"
        mend = "mqtt.username and the password in mqtt.password_file must be ones it knows"
        return fault("broker", f"{at} refuses {who} (code {code})", mend)
    if code in _VERSION:
        other = "3.1.1" if mqtt.version == "5" else "5"
        return fault("broker", f"{at} does not speak {mqtt.version}", f'mqtt.version = "{other}"')
    if code:
        mend = "try again later" if code in _UNAVAILABLE else "look at its log"
        return fault("broker", f"{at} refuses us (code {code})", mend)
    return ok("broker", f"{at} lets {mqtt.username or 'us'} in")


def _connect(mqtt: Mqtt, client_id: str) -> int:
    """Return the code of the broker's answer to a CONNECT; 0: welcome."""
    flags = 0x02  # a clean session
    fields = [client_id.encode()]
    if mqtt.username:
        flags |= 0x80
        fields.append(mqtt.username.encode())
        if mqtt.password_file:
            flags |= 0x40
            text = Path(mqtt.password_file).read_text(encoding="utf-8")
            fields.append(text.splitlines()[0].encode() if text else b"")
    v5 = mqtt.version == "5"
    head = b"\0\4MQTT" + bytes([5 if v5 else 4, flags, 0, 30]) + (b"\0" if v5 else b"")
    body = head + b"".join(len(field).to_bytes(2, "big") + field for field in fields)
    size, rest = len(body) & 0x7F, len(body) >> 7
    packet = bytes([0x10, size | 0x80, rest] if rest else [0x10, size]) + body
    with ExitStack() as opened:
        sock = socket.create_connection((mqtt.host, mqtt.port), timeout=PATIENCE_S)
        opened.callback(sock.close)
        if mqtt.tls:
            sock = _context(mqtt.tls).wrap_socket(sock, server_hostname=mqtt.host)
            opened.callback(sock.close)
        sock.sendall(packet)
        answer = b""
        while len(answer) < 5 and not (len(answer) == 4 and answer[1] < 0x80):
            chunk = sock.recv(256)
            if not chunk:
                raise ConnectionResetError("it closed the connection without an answer")
            answer += chunk
        if answer[0] != 0x20:
            raise ValueError(f"it answers {answer[:8].hex()}")
        sock.sendall(b"\xe0\0")
    return answer[4] if answer[1] >= 0x80 else answer[3]


def same_name(config: AgentConfig) -> Finding:
    """Check that no other device says it is this node: they would take each other's session."""
    if running(config):
        return ok("node name", f"{config.name} is this device's agent, which runs")
    if "fault" in {files(config).level, login(config).level}:
        return ok("node name", f"{config.name}; the broker cannot be asked for another")
    heard: list[NodeStatus] = []
    came = threading.Event()

    def receive(arrivals: list[Arrival]) -> None:
        for arrival in arrivals:
            try:
                heard.append(msgspec.json.decode(arrival.payload, type=NodeStatus))
            except msgspec.DecodeError:  # another's, of another version
                continue
        came.set()

    link = Link(
        config.mqtt,
        client_id=f"runout-{config.node.site}-{config.name}-doctor-{os.getpid()}",
        filters=[(topics.status_topic(config.node.site, config.name), 0)],
        will=None,
        receive=receive,
        persistent=False,
    )
    link.open()
    try:
        if link.connected.wait(PATIENCE_S):
            came.wait(1.0)  # what is retained comes at once
    finally:
        link.close()
    if heard and heard[-1].online:
        return fault(
            "node name",
            f"an agent named {config.name} is online, and it is not this one",
            "give each device a node.name of its own",
        )
    if config.name == "raspberrypi":
        mend = "give this device a node.name of its own"
        return warning("node name", "raspberrypi is what every new device is called", mend)
    return ok("node name", f"{config.name}, nobody else says so")


def keeps(config: AgentConfig, conf: Path = _MOSQUITTO) -> Finding:
    """Check mosquitto's configuration, if it is this device's: a broker cannot be asked for it."""
    if not is_loopback(config.mqtt.host) or not conf.is_file():
        return ok("broker keeps", "not this device's mosquitto: it cannot be asked what it keeps")
    try:
        lines = list(_settings(conf))
    except OSError as error:
        return ok("broker keeps", f"{conf} cannot be read ({error.strerror})")
    said = {key: value for key, value in lines if value.isdecimal() or key == "persistence"}
    ports = {value.split()[0] for key, value in lines if key == "listener" and value}
    if "port" in said or not ports:
        ports.add(said.get("port", "1883"))  # without a listener, one at mosquitto's own
    if str(config.mqtt.port) not in ports:
        return ok(
            "broker keeps",
            f"port {config.mqtt.port} is another broker's than that of {conf}: it cannot be asked",
        )
    in_flight = int(said.get("max_inflight_messages", "20"))
    queued = int(said.get("max_queued_messages", "1000"))
    drop_in = "deploy/pi/mosquitto-runout.conf, as /etc/mosquitto/conf.d/runout.conf"
    if 0 < in_flight < _MOST_IN_FLIGHT:
        return warning(
            "broker keeps",
            f"max_inflight_messages is {in_flight}: the agent will starve",
            f"{drop_in}, sets 1000",
        )
    if 0 < queued < 10_000:
        text = f"max_queued_messages is {queued}: the rest is lost while the agent is away"
        return warning("broker keeps", text, f"{drop_in}, sets 100000")
    if said.get("persistence") != "true":
        text = "its queue is lost when it ends"
        return warning("broker keeps", text, "persistence true, in /etc/mosquitto/mosquitto.conf")
    return ok("broker keeps", f"{in_flight} in flight, {queued} queued, persistent")


def _settings(conf: Path) -> Iterator[tuple[str, str]]:
    """Yield the settings of a configuration and of what it includes, the last word last."""
    for line in conf.read_text(encoding="utf-8").splitlines():
        key, _, value = line.strip().partition(" ")
        if key == "include_dir":
            for path in sorted(Path(value.strip()).glob("*.conf")):
                yield from _settings(path)
        elif re.fullmatch(r"\w+", key):
            yield key, value.strip()
