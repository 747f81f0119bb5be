"""Writes messages to a file or to standard output, a JSON line each."""

import base64
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import msgspec

from contract.errors import RunoutError


class Line(msgspec.Struct, omit_defaults=True):
    """One message.

    Attributes:
        topic: it would have been published on.
        payload: where it is text.
        payload_base64: where it is not.
    """

    topic: str
    payload: str | None = None
    payload_base64: str | None = None


class LinesSink:
    """Takes messages for a file that is written anew, or for a stream that is already open.

    Raises:
        RunoutError: the file cannot be written.
    """

    def __init__(self, to: Path | BinaryIO) -> None:
        self._path = to if isinstance(to, Path) else None
        self._stream = None if isinstance(to, Path) else to

    def __enter__(self) -> Self:
        """Open the file."""
        if self._path is not None:
            try:
                self._stream = self._path.open("wb")
            except OSError as error:
                raise RunoutError(f"{self._path}: cannot be written ({error.strerror})") from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file; leave a stream as it was."""
        if self._path is not None and self._stream is not None:
            self._stream.close()

    def send(
        self,
        node: str,
        topic: str,
        payload: bytes,
        *,
        rows: int = 1,
        events: int = 0,
        qos: int = 1,
    ) -> None:
        """Write a line."""
        del node, rows, events, qos
        try:
            line = Line(topic, payload=payload.decode())
        except UnicodeDecodeError:
            line = Line(topic, payload_base64=base64.b64encode(payload).decode())
        self._write(msgspec.json.encode(line) + b"\n")

    def finish(self) -> None:
        """Give everything to the system."""
        self._write(b"", flush=True)

    def lag(self) -> dict[str, int]:
        """Return nothing: all that was sent is written."""
        return {}

    def _write(self, data: bytes, *, flush: bool = False) -> None:
        if self._stream is None:
            raise RuntimeError("not open: use it in a with statement")
        try:
            self._stream.write(data)
            if flush:
                self._stream.flush()
        except OSError as error:
            where = self._path or "standard output"
            raise RunoutError(f"{where}: cannot be written ({error.strerror})") from error
