"""The server's key, which signs releases: Ed25519, made once, readable by nobody else."""

import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from contract.errors import RunoutError
from contract.release import Release

FILE = "release.key"
"""In the state folder, in PEM form."""


def key_of(state: Path) -> Ed25519PrivateKey:
    """Return the key of a server's state folder; makes it where there is none.

    Raises:
        RunoutError: the file holds something else, and must be put back or moved away.
    """
    path = state / FILE
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return _made(path)
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise RunoutError(
            f"{path}: is no PEM key ({error}): put the file back, or move it away for a new key, "
            "which each device must then be told of"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise RunoutError(f"{path}: is no Ed25519 key")
    return key


def _made(path: Path) -> Ed25519PrivateKey:
    key = Ed25519PrivateKey.generate()
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(file, "wb") as opened:
        opened.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        opened.flush()
        os.fsync(opened.fileno())
    new.replace(path)
    return key


def public_pem(state: Path) -> str:
    """Return the public key, for the devices to trust."""
    public = key_of(state).public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def sign(release: Release, state: Path) -> None:
    """Sign a release."""
    release.signature = key_of(state).sign(release.digest.encode()).hex()
