"""Log lines in words, with their facts behind them as ``name=value``."""

import logging

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class _Facts(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        facts = " ".join(
            f"{name}={value!r}" if isinstance(value, str) and " " in value else f"{name}={value}"
            for name, value in vars(record).items()
            if name not in _OWN
        )
        return f"{super().format(record)} {facts}".rstrip()


def set_up(level: int) -> None:
    """Send this program's log to standard error."""
    output = logging.StreamHandler()
    output.setFormatter(_Facts("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers = [output]
    root.setLevel(level)
