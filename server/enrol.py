"""Enrolment: the fleet's certificates, a key for each node, and taking a node's key back.

A bundle is one file for one device: server address, authority, its own key, the key that signs
releases, and how these stand in its configuration. Whoever has it is that node: send it safely.
"""

import datetime as dt
import io
import ipaddress
import json
import os
import subprocess
import zipfile
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID

from contract import npz
from contract.errors import RunoutError
from contract.topics import check_name
from server import superlink
from server.config import ServerConfig
from server.signing import public_pem

NODES = "nodes"
"""Folder in the state: a file for each node that was enrolled."""
YEARS = dt.timedelta(days=3650)
PATIENCE_S = 60.0
CONFIG = """\
# The federation server, as `runout-server init` made it: TLS, and a key for each node.
state = {state}
listen = {listen}
inner = {inner}      # SuperLink itself; `listen` passes on what nodes say, and nothing else
node_auth = true               # nodes that were enrolled, and no others: runout-server enrol NODE

[tls]
ca = {ca}
cert = {cert}
key = {key}
"""


class Enrolled(msgspec.Struct):
    """What is kept of a node.

    Attributes:
        node: its name.
        public: key, in OpenSSH's form.
        number: SuperLink's id of it; 0: it is to be registered when the server runs.
        revoked: its key is taken back.
    """

    node: str
    public: str
    number: int = 0
    revoked: bool = False


def init(folder: Path, listen: str, names: list[str], inner: str = "127.0.0.1:9093") -> list[Path]:
    """Make an authority, the server's certificate and a configuration; return the files.

    Args:
        folder: for them; nothing in it is overwritten.
        listen: ``host:port`` where the nodes come in.
        inner: the same of SuperLink, on loopback.
        names: host names and addresses under which devices reach the server.

    Raises:
        RunoutError: one of the files is there already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / name for name in ("ca.crt", "ca.key", "server.pem", "server.key")}
    config = folder / "server.toml"
    for path in (*paths.values(), config):
        if path.exists():
            raise RunoutError(f"{path}: is there already; a new authority would lock all nodes out")
    # SuperLink itself is reached by this.
    names = [*names, *({"127.0.0.1", "localhost"} - set(names))]
    now = dt.datetime.now(dt.UTC)
    authority_key = ec.generate_private_key(ec.SECP384R1())
    authority = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Runout fleet authority")])
    authority_cert = (
        x509.CertificateBuilder()
        .subject_name(authority)
        .issuer_name(authority)
        .public_key(authority_key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + YEARS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .sign(authority_key, hashes.SHA384())
    )
    key = ec.generate_private_key(ec.SECP384R1())
    cert = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])]))
        .issuer_name(authority)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + YEARS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), False)
        .sign(authority_key, hashes.SHA384())
    )
    _secret(paths["ca.key"], _private(authority_key))
    _secret(paths["server.key"], _private(key))
    paths["ca.crt"].write_bytes(authority_cert.public_bytes(Encoding.PEM))
    paths["server.pem"].write_bytes(cert.public_bytes(Encoding.PEM))
    text = CONFIG.format(
        state=json.dumps(str((folder / "state").absolute())),
        listen=json.dumps(listen),
        inner=json.dumps(inner),
        ca=json.dumps(str(paths["ca.crt"].absolute())),
        cert=json.dumps(str(paths["server.pem"].absolute())),
        key=json.dumps(str(paths["server.key"].absolute())),
    )
    config.write_text(text, encoding="utf-8")
    return [config, *paths.values()]


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _secret(path: Path, content: bytes) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(file, "wb") as opened:
        opened.write(content)


def enrol(config: ServerConfig, node: str, address: str, out: Path) -> Enrolled:
    """Make a node's key and bundle.

    Args:
        config: with TLS and ``node_auth``.
        node: its name, as in the agent's configuration.
        address: ``host:port`` under which the device reaches the server.
        out: the bundle's file.

    Raises:
        RunoutError: there is no TLS, the node is enrolled already, or the file is there.
    """
    try:
        check_name(node, "node")
    except ValueError as error:
        raise RunoutError(str(error)) from error
    if config.tls is None or not config.node_auth:
        raise RunoutError("enrolment takes [tls] and node_auth = true: see runout-server init")
    if _path(config, node).exists():
        raise RunoutError(
            f"{node} is enrolled already; runout-server revoke {node} takes its key back, then it "
            "may be enrolled again"
        )
    if out.exists():
        raise RunoutError(f"{out}: is there already")
    key = ec.generate_private_key(ec.SECP384R1())
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    files = {
        "ca.crt": Path(config.tls.ca).read_bytes(),
        "node.key": key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()),
        "fleet.pem": public_pem(config.folder).encode(),
        "bundle.json": msgspec.json.encode({"node": node, "superlink": address}),
    }
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, data in files.items():
            bundle.writestr(name, data)
    enrolled = Enrolled(node, public)
    _keep(config, enrolled)
    _secret(out, content.getvalue())
    return enrolled


def revoke(config: ServerConfig, node: str) -> Enrolled:
    """Take a node's key back: it is ejected, and that key never comes in again.

    Raises:
        RunoutError: it is not enrolled, or the server does not run and could not be told.
    """
    known = {one.node: one for one in all_enrolled(config)}
    if node not in known:
        there = ", ".join(sorted(known)) or "nobody"
        raise RunoutError(f"{node} is not enrolled; {there} is")
    one = known[node]
    if one.number:
        _flwr(config, "unregister", str(one.number))
    _path(config, node).unlink()
    one.revoked = True
    npz.write(_path(config, f"{node}.revoked-{one.number}"), msgspec.json.encode(one))
    return one


def all_enrolled(config: ServerConfig) -> list[Enrolled]:
    """Return the nodes that are enrolled and not revoked, by name."""
    found = []
    for path in sorted((config.folder / NODES).glob("*.json")):
        one = msgspec.json.decode(path.read_bytes(), type=Enrolled)
        if not one.revoked:
            found.append(one)
    return found


def register_all(config: ServerConfig) -> list[str]:
    """Register with a running SuperLink whoever is not yet; return their names."""
    done = []
    for one in all_enrolled(config):
        if one.number:
            continue
        register(config, one)
        done.append(one.node)
    return done


def register(config: ServerConfig, one: Enrolled) -> None:
    """Register a node's key with the running SuperLink; raises ``RunoutError``."""
    path = config.folder / NODES / f"{one.node}.pub"
    path.write_text(one.public, encoding="utf-8")
    try:
        said = _flwr(config, "register", str(path), "--name", one.node)
    finally:
        path.unlink(missing_ok=True)
    try:
        one.number = int(said["node-id"])  # type: ignore[call-overload]
    except (KeyError, TypeError, ValueError) as error:
        raise RunoutError(f"SuperLink did not register {one.node}: {said}") from error
    _keep(config, one)


def _flwr(config: ServerConfig, action: str, what: str, *more: str) -> dict[str, object]:
    """Ask the running SuperLink for something about a node; returns what it said."""
    line = [
        superlink.program("flwr"),
        *("supernode", action, what, superlink.CONNECTION, *more, "--format", "json"),
    ]
    try:
        done = subprocess.run(
            line,
            env=superlink.environment(config),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise RunoutError("SuperLink does not answer: is runout-server run at work?") from error
    text = done.stdout
    try:
        said = msgspec.json.decode(text[text.index("{") : text.rindex("}") + 1].encode())
    except (ValueError, msgspec.MsgspecError):
        said = None
    if not isinstance(said, dict) or said.get("success") is False or done.returncode:
        tail = " ".join((done.stdout + done.stderr).split())[-400:]
        raise RunoutError(f"SuperLink did not {action} the node: {tail}")
    return said


def _keep(config: ServerConfig, one: Enrolled) -> None:
    path = _path(config, one.node)
    path.parent.mkdir(parents=True, exist_ok=True)
    npz.write(path, msgspec.json.encode(one))


def _path(config: ServerConfig, node: str) -> Path:
    return config.folder / NODES / f"{node}.json"
