"""When a certificate in a PEM file is valid: read from its DER, which Python does not tell."""

import ssl
from datetime import datetime
from pathlib import Path

_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
_SEQUENCE, _VERSION, _UTC_TIME = 0x30, 0xA0, 0x17


def validity(path: Path) -> tuple[datetime, datetime]:
    """Return from when until when all certificates of a file are valid.

    Raises:
        ValueError: there is none in it, or one that cannot be read.
        OSError: the file cannot be read.
    """
    text = path.read_text(encoding="utf-8", errors="replace")
    spans = []
    for part in text.split(_BEGIN)[1:]:
        body, end, _ = part.partition(_END)
        if not end:
            raise ValueError("a certificate in it has no end")
        spans.append(_validity(ssl.PEM_cert_to_DER_cert(f"{_BEGIN}{body}{_END}\n")))
    if not spans:
        raise ValueError("there is no certificate in it (PEM)")
    return max(begin for begin, _ in spans), min(end for _, end in spans)


def _validity(der: bytes) -> tuple[datetime, datetime]:
    """Walk to the validity of a certificate: RFC 5280, 4.1."""
    try:
        _, certificate, _ = _element(der)
        _, signed, _ = _element(certificate)
        tag, _, rest = _element(signed)
        skip = 4 if tag == _VERSION else 3  # version, serial number, signature, issuer
        for _ in range(skip - 1):
            _, _, rest = _element(rest)
        tag, both, _ = _element(rest)
        kind, begin, rest = _element(both)
        other_kind, end, _ = _element(rest)
        if tag != _SEQUENCE:
            raise ValueError("it is no X.509 certificate")
        return _moment(kind, begin), _moment(other_kind, end)
    except IndexError as error:
        raise ValueError("a certificate in it is cut short") from error


def _element(der: bytes) -> tuple[int, bytes, bytes]:
    """Return the tag and content of the first element, and what follows it."""
    tag, size, at = der[0], der[1], 2
    if size & 0x80:
        at = 2 + (size & 0x7F)
        size = int.from_bytes(der[2:at], "big")
    if at + size > len(der):
        raise IndexError
    return tag, der[at : at + size], der[at + size :]


def _moment(kind: int, text: bytes) -> datetime:
    # Two digits of a year are of 1950 to 2049.
    digits = text.decode("ascii", "replace").rstrip("Z")
    if kind == _UTC_TIME:
        digits = ("19" if digits[:2] >= "50" else "20") + digits
    try:
        return datetime.fromisoformat(f"{digits[:8]}T{digits[8:14]}+00:00")
    except ValueError as error:
        raise ValueError(f"a certificate in it is valid until {digits!r}") from error
