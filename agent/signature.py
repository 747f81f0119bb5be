"""Whether a release is of the fleet: signed by the key that this device was told to trust."""

from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from contract.errors import ConfigError
from contract.release import Release


class Trusted:
    """The key of the fleet's server.

    Args:
        path: PEM file of an Ed25519 public key, as ``runout-server key`` prints it.

    Raises:
        ConfigError: there is none.
    """

    def __init__(self, path: str) -> None:
        try:
            key = load_pem_public_key(Path(path).read_bytes())
        except OSError as error:
            raise ConfigError(
                f"federation.release_key: {path} cannot be read ({error.strerror})"
            ) from error
        except (ValueError, UnsupportedAlgorithm) as error:
            raise ConfigError(f"federation.release_key: {path} is no PEM key") from error
        if not isinstance(key, Ed25519PublicKey):
            raise ConfigError(f"federation.release_key: {path} holds no Ed25519 public key")
        self._key = key

    def problem(self, release: Release) -> str:
        """Return what speaks against a release, in words; empty: it is signed by this key."""
        return self.refuses(release.signature, release.digest.encode())

    def refuses(self, signature: str, content: bytes) -> str:
        """Return what speaks against a signature, in hexadecimal, of some bytes; empty: nothing."""
        if not signature:
            return "it is not signed, and this device takes what its fleet's key has signed"
        try:
            self._key.verify(bytes.fromhex(signature), content)
        except (InvalidSignature, ValueError):
            return "its signature is not by the key that this device trusts"
        return ""
