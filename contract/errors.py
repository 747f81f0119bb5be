"""The errors that cross a boundary: each names the place and the mend."""


class RunoutError(Exception):
    """An error a person can mend; its text is printed without a traceback."""


class BrokenError(RunoutError):
    """A part of this process ended that must not: started anew, it goes on from its journal."""


class ConfigError(RunoutError):
    """A configuration that cannot be used: names the file, the key and the nearest right one."""


class DecodeError(RunoutError):
    """A payload or topic that cannot be read: the sender's fault, counted and kept aside.

    Attributes:
        reason: one word that can be counted: ``json``, ``type``, ``topic``, ``channel``...
    """

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class DataError(RunoutError):
    """A recording that does not follow its format: names file, line and column."""


class ContractError(RunoutError):
    """An update or a release that this side must not use: names what disagrees."""
