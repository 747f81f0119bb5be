"""Arrays and a JSON head in one ``.npz`` file: written whole or not at all, never a pickle."""

import hashlib
import io
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from contract.arrays import Arrays
from contract.errors import ContractError

_HEAD = "head.json"
MOST_PLAIN = 16_384
"""Bytes of a head; beyond it a file is deflated."""

# RuntimeError is how zipfile says that a member is encrypted, or of a version it does not know.
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    KeyError,
    ValueError,
    OSError,
    RuntimeError,
)


def digest_of(head: bytes, arrays: Arrays) -> str:
    """Return the SHA-256 of a head and of every array's name, type, shape and bytes."""
    h = hashlib.sha256(head)
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        h.update(f"\0{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        h.update(array.tobytes())
    return h.hexdigest()


def to_bytes(head: bytes, arrays: Arrays) -> bytes:
    """Return the content of such a file."""
    buffer = io.BytesIO()
    members: dict[str, Any] = {_HEAD: np.frombuffer(head, dtype=np.uint8), **arrays}
    # Of a large fleet a head names thousands of nodes, which deflate to a tenth.
    save = np.savez_compressed if len(head) > MOST_PLAIN else np.savez
    save(buffer, allow_pickle=False, **members)
    return buffer.getvalue()


def write(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write under a temporary name, fsync, replace: a reader sees the old file or the new one."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        if durable:
            os.fsync(file.fileno())
    part.replace(path)
    if durable:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the rename itself
        finally:
            os.close(folder)


def from_bytes(content: bytes, name: str) -> tuple[bytes, Arrays]:
    """Read a head and its arrays; raises ``ContractError`` on truncated or foreign bytes."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as loaded:
            arrays: Arrays = {member: loaded[member] for member in loaded.files}
        head = arrays.pop(_HEAD).tobytes()
    except _UNREADABLE as error:
        raise ContractError(f"{name}: not a whole Runout file ({error})") from error
    return head, arrays


def read(path: Path) -> tuple[bytes, Arrays]:
    """Read a head and its arrays from a file; raises ``ContractError`` as ``from_bytes``."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ContractError(f"{path}: cannot be read ({error.strerror})") from error
    return from_bytes(content, str(path))
