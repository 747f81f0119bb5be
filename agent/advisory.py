"""Advisory generation (ISO 13374) beyond the stream of results: who is told, and how it is shown.

The state of each alert, retained; Home Assistant; notices to people. Belongs to the main thread,
which waits for none of them.
"""

import logging
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING

import msgspec

from agent import home_assistant
from agent.asset import Asset
from agent.config import AgentConfig
from agent.mqtt import Link
from agent.pipeline import Outcome
from agent.retained import Retained
from agent.store import Store
from contract import topics
from contract.report import Alert

if TYPE_CHECKING:
    from agent.notify.courier import Courier

log = logging.getLogger("runout.agent")

AT_ONCE = 50
"""Retained messages handed to the broker in one go, of the 1000 that may be under way."""

_json = msgspec.json.Encoder()


class Advisory:
    """Tells those who asked for it.

    Args:
        config: of the agent.
        store: of the agent.
        link: to the broker.
        assets: of the pipeline, its state restored.
        opened: what is to be closed with the agent.

    Raises:
        ConfigError: a channel of notices cannot be built.
    """

    def __init__(
        self,
        config: AgentConfig,
        store: Store,
        link: Link,
        assets: Mapping[str, Asset],
        opened: ExitStack,
    ) -> None:
        self._config = config
        self._store = store
        self._link = link
        self._assets = assets
        self._place = (config.node.site, config.name)
        self._session = 0
        self._seen: set[str] = set()
        self._dead: set[str] = set()
        self._kept = msgspec.json.decode(store.meta("retained", "[]"), type=list[str])
        self._retained = Retained(self._kept)
        found = (msgspec.json.decode(body, type=Alert) for body in store.last_alerts())
        self._last = {alert.asset: alert for alert in found}
        self._show()
        self._last.clear()
        self.couriers = _couriers(config, opened)

    def note(self, outcomes: Iterable[Outcome]) -> None:
        """Take note of what was said, and committed."""
        alerts = [outcome for outcome in outcomes if isinstance(outcome, Alert)]
        if not alerts:
            return
        self._show()
        for alert in alerts:
            topic = topics.alert_state_topic(*self._place, alert.asset)
            self._retained.keep(topic, _json.encode(alert))
        for courier in self.couriers:
            courier.wake()
        self.tend()

    def tend(self) -> None:
        """Show the assets that are new, and hand over what is due; often."""
        self._show()
        for courier in self.couriers:
            if not courier.alive and courier.name not in self._dead:
                # The machines matter more than who is told of them: no reason to end.
                self._dead.add(courier.name)
                log.critical(
                    "a channel of notices has ended: restart the agent",
                    extra={"channel": courier.name},
                )
        if not self._link.connected.is_set():
            return
        if self._session != self._link.session:
            self._session = self._link.session
            self._retained.begin()
        known = self._retained.topics
        if known != self._kept:
            self._store.set_meta("retained", _json.encode(known).decode())
            self._kept = known
        messages = self._retained.take(AT_ONCE)
        if messages:
            self._link.publish(messages)

    def _show(self) -> None:
        if len(self._seen) == len(self._assets):
            return
        site, node = self._place
        mine = self._config.home_assistant
        for name in [name for name in self._assets if name not in self._seen]:
            self._seen.add(name)
            asset = self._assets[name]
            t_ns = max(asset.told_ns, 0)
            alert = asset.alert.report(
                name,
                asset.alert.state,
                t_ns,
                interval=asset.group.interval,
                judged_by=asset.group.version,
            )
            last = self._last.get(name)
            if last is not None and (last.id, last.now) == (alert.id, alert.now):
                alert = last  # as it was told, with its reasons
            self._retained.keep(topics.alert_state_topic(site, node, name), _json.encode(alert))
            if mine.enabled:
                self._retained.keep(
                    home_assistant.config_topic(mine.prefix, site, node, name),
                    home_assistant.config(site, node, name, asset.group.spec.name),
                )


def _couriers(config: AgentConfig, opened: ExitStack) -> "list[Courier]":
    if not config.notify:
        return []
    from agent.notify.courier import Courier  # noqa: PLC0415  # 4 MB, only where it is asked for

    place = config.node.site, config.name
    couriers = [Courier(channel, config.state, place) for channel in config.notify]
    for courier in couriers:
        opened.callback(courier.close)
        courier.open()
    return couriers
