"""Where a frame ends in a stream of bytes that may begin, break off or be garbled anywhere.

Sans-IO: how the stream is cut into chunks makes no difference to what comes out.
"""

LINE = b"\n"
"""Ends a line; so do, when it is asked for, a CR alone and a CR before it."""


class Framer:
    r"""Cuts a stream at its terminator; what cannot be a frame is dropped and counted.

    What comes before the first terminator is dropped: the stream was joined in the middle.

    Args:
        terminator: one byte that ends a frame and stands nowhere in it. ``LINE``: CR and CR LF are
            taken for it, and it comes out in their place.
        most: bytes of a frame; a longer one is garbage.

    Attributes:
        frames: whole ones that came out.
        bad_frames: that were too long.
        garbage_bytes: that were dropped.

    >>> framer = Framer(b"\n", most=4)
    >>> [framer.push(chunk) for chunk in (b"23\n1,2\n3", b",4\n", b"far too long\n5\n")]
    [b'1,2\n', b'3,4\n', b'5\n']
    >>> framer.frames, framer.bad_frames, framer.garbage_bytes
    (3, 1, 16)
    >>> Framer(LINE, most=4).push(b"0\r1,2\r\n3,4\r")
    b'1,2\n3,4\n'
    """

    def __init__(self, terminator: bytes, most: int) -> None:
        self._terminator = terminator
        self._most = most
        self._lines = terminator == LINE
        self._after_cr = False
        self._rest = b""
        self._skipping = True
        self.frames = self.bad_frames = self.garbage_bytes = 0

    def push(self, chunk: bytes) -> bytes:
        """Return the frames that are whole with this chunk, terminators included."""
        if self._lines and chunk and (self._after_cr or b"\r" in chunk):
            chunk = self._without_cr(chunk)
        if self._skipping:
            found = chunk.find(self._terminator) + 1
            if not found:
                self.garbage_bytes += len(chunk)
                return b""
            self.garbage_bytes += found
            self._skipping = False
            chunk = chunk[found:]
        data = self._rest + chunk if self._rest else chunk
        end = data.rfind(self._terminator) + 1
        self._rest = data[end:]
        if len(self._rest) > self._most:
            self.bad_frames += 1
            self.garbage_bytes += len(self._rest)
            self._rest = b""
            self._skipping = True
        return self._whole(data[:end]) if end else b""

    def restart(self) -> None:
        """Forget what is unfinished: the stream broke off."""
        self.garbage_bytes += len(self._rest)
        self._rest = b""
        self._skipping = True
        self._after_cr = False

    def _without_cr(self, chunk: bytes) -> bytes:
        if self._after_cr and chunk[:1] == b"\n":
            chunk = chunk[1:]  # the CR before it has ended the line
        self._after_cr = chunk[-1:] == b"\r"
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _whole(self, data: bytes) -> bytes:
        lines = data.split(self._terminator)
        if max(map(len, lines)) <= self._most:
            self.frames += len(lines) - 1
            return data
        good = [line for line in lines[:-1] if len(line) <= self._most]
        self.frames += len(good)
        self.bad_frames += len(lines) - 1 - len(good)
        whole = b"".join([line + self._terminator for line in good])
        self.garbage_bytes += len(data) - len(whole)
        return whole
