"""The evidence of an alert in one ZIP file, for another machine; nothing in it is trusted.

Nothing is ever unpacked to disk: members are read into memory, each within its bounds, and held
against the manifest. A digest shows that a file is whole, not who made it.
"""

import hashlib
import io
import math
import re
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from contract import npz
from contract.errors import ContractError

FORM = 1
MANIFEST = "manifest.json"
MOST_BYTES = 512_000_000
"""Of all members together, unpacked."""
MOST_MEMBERS = 256
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=-]*(/[A-Za-z0-9_][A-Za-z0-9_.=-]*)?")
_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError)
"""RuntimeError is how zipfile says that a member is encrypted."""


class Member(msgspec.Struct, frozen=True):
    """SHA-256 and size of a member."""

    sha256: str
    bytes: int


class Manifest(msgspec.Struct, frozen=True):
    """What is in a package.

    Attributes:
        form: of packages; another is refused.
        alert: its id.
        members: all but the manifest.
    """

    form: int
    alert: str
    members: dict[str, Member]


class Package(NamedTuple):
    """A package that was read, and held against its manifest.

    Attributes:
        alert: id of the alert.
        members: content by name.
    """

    alert: str
    members: dict[str, bytes]

    def member(self, name: str) -> bytes:
        """Return a member; raises ``ContractError`` if it is missing."""
        found = self.members.get(name)
        if found is None:
            raise ContractError(f"the package has no {name}")
        return found


def write(path: Path, alert: str, members: dict[str, bytes]) -> None:
    """Write a package, whole or not at all; equal members make an equal file."""
    listed = {
        name: Member(hashlib.sha256(content).hexdigest(), len(content))
        for name, content in members.items()
    }
    manifest = msgspec.json.encode(Manifest(FORM, alert, listed), order="sorted")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in [(MANIFEST, manifest), *members.items()]:
            if not _NAME.fullmatch(name):
                raise ContractError(f"{name!r} cannot be the name of a member of a package")
            info = zipfile.ZipInfo(name)  # of 1980: when it was packed is no evidence
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, content)
    try:
        npz.write(path, buffer.getvalue())
    except OSError as error:
        raise ContractError(f"{path}: cannot be written ({error.strerror})") from error


def read(path: Path) -> Package:
    """Read a package.

    Raises:
        ContractError: it is none, or of another form, too large, altered, or a member has a name
            that leads elsewhere.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(archive, str(path))
    except _UNREADABLE as error:
        raise ContractError(f"{path}: not a whole package ({error})") from error
    try:
        manifest = msgspec.json.decode(members.pop(MANIFEST, b""), type=Manifest)
    except msgspec.MsgspecError as error:
        raise ContractError(f"{path}: its manifest cannot be read ({error})") from error
    if manifest.form != FORM:
        raise ContractError(f"{path}: a package of form {manifest.form}; this reads {FORM}")
    for name in sorted({*members, *manifest.members}):
        if name not in manifest.members:
            raise ContractError(f"{path}: {name} is not in its manifest")
        if name not in members:
            raise ContractError(f"{path}: {name} is missing")
        if hashlib.sha256(members[name]).hexdigest() != manifest.members[name].sha256:
            raise ContractError(f"{path}: {name} does not match its digest")
        if name.endswith(".npz"):
            check_arrays(members[name], f"{path}: {name}")
    return Package(manifest.alert, members)


def _members(archive: zipfile.ZipFile, name: str) -> dict[str, bytes]:
    infos = archive.infolist()
    if len(infos) > MOST_MEMBERS:
        raise ContractError(f"{name}: {len(infos)} members, at most {MOST_MEMBERS}")
    members: dict[str, bytes] = {}
    left = MOST_BYTES
    for info in infos:
        if not _NAME.fullmatch(info.filename) or info.filename in members:
            raise ContractError(f"{name}: a member is named {info.filename!r}")
        if info.file_size > left:
            raise ContractError(f"{name}: more than {MOST_BYTES} bytes")
        with archive.open(info) as file:
            # Not by what the header claims: by what comes.
            content = file.read(left + 1)
        left -= len(content)
        if left < 0:
            raise ContractError(f"{name}: more than {MOST_BYTES} bytes")
        members[info.filename] = content
    return members


def check_arrays(content: bytes, name: str) -> None:
    """Refuse an ``.npz`` whose arrays claim more than they hold, before numpy makes room for them.

    Raises:
        ContractError: too large, packed, or of objects.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for info in archive.infolist():
                if info.compress_type != zipfile.ZIP_STORED or info.file_size > len(content):
                    raise ContractError(f"{name}: {info.filename} is packed")
                with archive.open(info) as file:
                    version = np.lib.format.read_magic(file)
                    header = (
                        np.lib.format.read_array_header_1_0
                        if version == (1, 0)
                        else np.lib.format.read_array_header_2_0
                    )
                    shape, _, dtype = header(file)
                if dtype.hasobject or math.prod(shape) * dtype.itemsize > info.file_size:
                    raise ContractError(f"{name}: {info.filename} claims more than it holds")
    except _UNREADABLE as error:
        raise ContractError(f"{name}: not a whole file of arrays ({error})") from error


def plain(name: str) -> str:
    """Return a name fit for a file; where that changes it, two names still differ.

    >>> plain("pump-3/0/1"), plain("Pumpe Süd")
    ('pump-3-0-1', 'Pumpe-S-d-f76744')
    """
    plain = re.sub(r"[^A-Za-z0-9_.=-]", "-", name.replace("/", "-")).lstrip(".-") or "alert"
    if plain == name.replace("/", "-"):
        return plain
    return f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
