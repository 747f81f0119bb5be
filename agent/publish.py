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
        self._topics: dict[tuple[str, str], str] = {}
        self._saved = self.sent
        self._flying: dict[int, int] = {}
        self._session = link.session

    def pump(self) -> None:
        """Take note of what has arrived, and hand over what is next."""
        if self._session != self._link.session:
            # What the lost connection took with it is published again.
            self._session = self._link.session
            self._flying.clear()
            self._cursor = self.sent
        acked = self._link.take_acked()
        if acked:
            for mid in acked:
                self._flying.pop(mid, None)
        self.sent = next(iter(self._flying.values())) - 1 if self._flying else self._cursor
        room = WINDOW - len(self._flying)
        if room < WINDOW // 4 or not self._link.connected.is_set():
            return
        if self._cursor >= self._store.last_result:
            return
        found = self._store.results_after(self._cursor, room)
        if not found:
            return
        messages = [(self._topic(asset, kind), body, False) for _, asset, kind, body in found]
        numbers = self._link.publish(messages)
        self._flying.update(zip(numbers, (result[0] for result in found), strict=True))
        self._cursor = found[-1][0]

    def _topic(self, asset: str, kind: str) -> str:
        topic = self._topics.get((asset, kind))
        if topic is None:
            topic = self._topics[asset, kind] = topics.asset_topic(*self._place, asset, kind)
        return topic

    @property
    def idle(self) -> bool:
        """Return whether everything handed over has arrived."""
        return not self._flying

    def save(self) -> None:
        """Write down how far the broker has everything; inside or outside a transaction."""
        if self.sent != self._saved:
            self._store.set_meta("sent", str(self.sent))
            self._saved = self.sent
