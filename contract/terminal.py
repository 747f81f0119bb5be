"""What all commands do alike at a terminal."""

import os
import select
import sys
from collections.abc import Callable

LEFT = 141
"""Exit code where who read the output has left: 128 and the number of SIGPIPE, as of a shell."""


def unless_left(do: Callable[[], int]) -> int:
    """Return what a command returns; ``LEFT`` where nobody reads its output (``| head``)."""
    try:
        code = do()
        sys.stdout.flush()
    except BrokenPipeError:
        if not _has_left(sys.stdout.fileno()):
            raise  # of a socket, which is another matter
        # What is still held back would fail again as the program ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return LEFT
    return code


def _has_left(number: int) -> bool:
    """Return whether nobody is at the other end of a pipe."""
    poll = select.poll()
    poll.register(number, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
