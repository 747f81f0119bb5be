"""What is retained at the broker for others: the newest word on each topic, and no word too long.

Which topics those are is kept across restarts, so that what nobody stands behind any more is taken
back with an empty message.
"""

MOST_GONE = 1000
"""Topics that are emptied at each new connection; of more, which the broker has heard of, none."""

Message = tuple[str, bytes, bool]
"""Topic, payload, retained."""


class Retained:
    """The words that are to stand, and the topics where none is to stand any more.

    Args:
        before: topics that words were retained on, by an earlier process.
    """

    def __init__(self, before: list[str]) -> None:
        self._wanted: dict[str, bytes] = {}
        self._gone = dict.fromkeys(before)
        self._due = dict.fromkeys(before)

    def keep(self, topic: str, payload: bytes) -> None:
        """Let a word stand, in place of the one before."""
        if self._wanted.get(topic) != payload:
            self._wanted[topic] = payload
            self._gone.pop(topic, None)
            self._due[topic] = None

    def begin(self) -> None:
        """Say everything again: the connection is a new one, and the broker may have forgotten."""
        while len(self._gone) > MOST_GONE:
            del self._gone[next(iter(self._gone))]
        self._due = dict.fromkeys([*self._gone, *self._wanted])

    @property
    def topics(self) -> list[str]:
        """Return the topics; to be kept before anything is said on them."""
        return [*self._gone, *self._wanted]

    def take(self, most: int) -> list[Message]:
        """Return what is to be said next."""
        out = []
        for topic in list(self._due)[:most]:
            del self._due[topic]
            out.append((topic, self._wanted.get(topic, b""), True))
        return out
