"""What a check finds: how bad it is, what it is, and how it is mended."""

from typing import Literal

import msgspec


class Finding(msgspec.Struct, frozen=True):
    """One line of the doctor's.

    Attributes:
        check: what was looked at, in a word.
        level: ``warning``: the agent works, but not as it could; ``fault``: it does not, or loses.
        text: what was found.
        mend: what to do about it; empty where it is well.
    """

    check: str
    level: Literal["ok", "warning", "fault"]
    text: str
    mend: str = ""

    def __str__(self) -> str:
        """Return the line.

        >>> print(fault("disk", "full", "make room"))
        FAULT    disk: full. Mend: make room
        """
        word = "FAULT" if self.level == "fault" else self.level
        mend = f". Mend: {self.mend}" if self.mend else ""
        return f"{word:8} {self.check}: {' '.join(self.text.split())}{mend}"


def ok(check: str, text: str) -> Finding:
    """Return a finding that all is well."""
    return Finding(check, "ok", text)


def warning(check: str, text: str, mend: str) -> Finding:
    """Return a finding of something that could be better."""
    return Finding(check, "warning", text, mend)


def fault(check: str, text: str, mend: str) -> Finding:
    """Return a finding of something that must be mended."""
    return Finding(check, "fault", text, mend)
