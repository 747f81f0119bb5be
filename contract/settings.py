"""Changes of a device's configuration from afar: which may be, and how they are signed.

What could lock a device out or weaken it stays with whoever stands before it: state folder, names,
broker, TLS, keys, secrets, the page, notices, sources. See ``ALLOWED``.
"""

import msgspec

from contract.errors import ContractError

ALLOWED = ("asset_class.", "assets.", "expect", "learning.", "limits.", "report.")
"""What keys may begin with."""
MOST = 200
MOST_BYTES = 64_000
_SEAL = b"runout settings 1\n"
"""Before what is signed, so that no signature of anything else fits."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one device is to change.

    Attributes:
        site: of the device.
        node: its name.
        version: counts up for each device; an older one, or the same, is refused.
        created_s: seconds since 1970 UTC.
        changes: keys to values as ``--set KEY=VALUE`` has them, over the device's own file; all
            there are, not those since the last version.
        restores: the version whose changes these are again; 0: none.
    """

    site: str
    node: str
    version: int
    created_s: float
    changes: dict[str, str]
    restores: int = 0


class Signed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings on their way: the words as they were signed, and the signature in hexadecimal."""

    settings: str
    signature: str


class Standing(msgspec.Struct, frozen=True):
    """What became of settings on a device.

    Attributes:
        version: of the settings; 0: none ever came.
        state: ``trial`` while it is not known whether the device is well with them.
        reason: in words; empty for ``applied``.
    """

    version: int = 0
    state: str = "none"
    reason: str = ""


def sealed(words: str) -> bytes:
    """Return what is signed."""
    return _SEAL + words.encode()


def opened(content: bytes, name: str) -> tuple[Signed, Settings]:
    """Read signed settings; the signature is not checked here.

    Raises:
        ContractError: they cannot be read, or are too many.
    """
    if len(content) > MOST_BYTES:
        raise ContractError(f"{name}: {len(content):,} bytes of settings; {MOST_BYTES:,} at most")
    try:
        signed = msgspec.json.decode(content, type=Signed)
        settings = msgspec.json.decode(signed.settings, type=Settings)
    except msgspec.MsgspecError as error:
        raise ContractError(f"{name}: settings that cannot be read ({error})") from error
    return signed, settings


def problem(changes: dict[str, str]) -> str:
    """Return what speaks against changes, in words; empty: each key may be changed from afar.

    >>> problem({"report.status_s": "5", "mqtt.host": "evil"})
    'mqtt.host: may not be changed from afar: it is none of asset_class, assets, expect, learning, limits, report'
    """  # noqa: E501  # a doctest line
    if len(changes) > MOST:
        return f"{len(changes)} changes; {MOST} at most"
    for key, value in changes.items():
        if not any(key == one or key.startswith(one) for one in ALLOWED):
            names = ", ".join(one.rstrip(".") for one in ALLOWED)
            return f"{key}: may not be changed from afar: it is none of {names}"
        if "\n" in value or "=" in key:
            return f"{key}: is not one key and one value"
    return ""
