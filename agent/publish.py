"""Publish results in their order from the store; what the broker has not taken is sent again."""

from agent.mqtt import Link
from agent.store import Store
from contract import topics

WINDOW = 500
"""Results handed to the broker and not yet taken."""


class Publisher:
    """Follows the store's results to the broker; at least once, in order.

    Attributes:
        sent: number up to which all results are with the broker.
    """

    def __init__(self, store: Store, link: Link, site: str, node: str) -> None:
        self._store = store
        self._link = link
        self._place = (site, node)
        self.sent = int(store.meta("sent", "0"))
        self._cursor = self.sent
        self._saved = self.sent
        self._flying: dict[int, int] = {}

    def pump(self) -> None:
        """Take note of what has arrived, and hand over what is next."""
        for mid in self._link.take_acked():
            self._flying.pop(mid, None)
        self.sent = min(self._flying.values()) - 1 if self._flying else self._cursor
        room = WINDOW - len(self._flying)
        if room < WINDOW // 4 or not self._link.connected.is_set():
            return
        for number, asset, kind, body in self._store.results_after(self._cursor, room):
            topic = topics.asset_topic(*self._place, asset, kind)
            self._flying[self._link.publish(topic, body)] = number
            self._cursor = number

    @property
    def idle(self) -> bool:
        """Return whether everything handed over has arrived."""
        return not self._flying

    def save(self) -> None:
        """Write down how far the broker has everything; inside or outside a transaction."""
        if self.sent != self._saved:
            self._store.set_meta("sent", str(self.sent))
            self._saved = self.sent
