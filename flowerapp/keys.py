"""The files by which a node and its server know each other."""

from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from contract.errors import ConfigError


def authority(path: str) -> str:
    """Read the certificates that the server's is held against; raises ``ConfigError``."""
    try:
        text = Path(path).read_text(encoding="ascii")
        x509.load_pem_x509_certificates(text.encode())
    except OSError as error:
        raise ConfigError(f"federation.ca: {path!r} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ConfigError(f"federation.ca: {path!r} is no PEM file of certificates") from error
    return text


def private_key(path: str) -> ec.EllipticCurvePrivateKey:
    """Read a node's key, in OpenSSH's format; raises ``ConfigError``."""
    try:
        key = load_ssh_private_key(Path(path).read_bytes(), None)
    except OSError as error:
        raise ConfigError(f"federation.key: {path!r} cannot be read ({error.strerror})") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"federation.key: {path!r} is no private key of OpenSSH's") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"federation.key: {path!r} is no elliptic curve key: ssh-keygen -t ecdsa")
    return key
