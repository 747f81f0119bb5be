"""Releases and settings from the broker: fetched, verified, laid aside.

They stand retained on a topic of their class. What the fleet's key has not signed is dropped here;
whether it shall judge is then the rollout's decision, as for any other.
"""

import logging

from agent import signature
from agent.config import AgentConfig
from agent.intake import Arrival
from agent.mqtt import Link
from agent.remote import Remote
from agent.rollout import deliver
from contract import topics
from contract.errors import ContractError
from contract.release import Release

log = logging.getLogger("runout.downlink")


class Downlink:
    """The connection that releases come by: one of its own, so that no reading waits for them.

    Args:
        config: with ``federation.over_mqtt`` or ``federation.settings``.
        client_id: of the connection.
        remote: takes settings, where the configuration lets them come.
    """

    def __init__(self, config: AgentConfig, client_id: str, remote: Remote | None = None) -> None:
        federation = config.federation
        filters = []
        if federation.over_mqtt:
            filters += [(topics.release_topic(spec.name), 1) for spec in config.asset_class]
        self._settings = topics.settings_topic(config.node.site, config.name)
        if federation.settings:
            filters.append((self._settings, 1))
        self._remote = remote
        self._state = config.state
        self._trusted = signature.Trusted(config.federation.release_key)
        self._known: set[str] = set()
        """Digests that were looked at: the broker sends what it retains with each connection."""
        self._link = Link(
            config.mqtt,
            client_id=client_id,
            filters=filters,
            will=None,
            receive=self._receive,
            persistent=False,
        )

    def open(self) -> None:
        """Start to connect."""
        self._link.open()

    def close(self) -> None:
        """Disconnect; safe at any time."""
        self._link.close()

    def _receive(self, arrivals: list[Arrival]) -> None:
        """Take releases; called in the network's thread."""
        for arrival in arrivals:
            if arrival.over or not arrival.payload:  # empty: there is none any more
                continue
            try:
                if arrival.topic == self._settings:
                    if self._remote is not None:
                        self._remote.take(arrival.payload, arrival.topic)
                    continue
                self._take(Release.from_bytes(arrival.payload, arrival.topic))
            except (ContractError, OSError) as error:
                log.error(  # noqa: TRY400  # the sender's fault, or a full disk: no traceback
                    "what came was not taken", extra={"topic": arrival.topic, "error": str(error)}
                )
        self._link.acknowledge([arrival.token for arrival in arrivals])

    def _take(self, release: Release) -> None:
        if release.digest in self._known:
            return
        problem = self._trusted.problem(release)
        if problem:
            raise ContractError(problem)
        said = deliver(self._state, release)
        self._known.add(release.digest)
        log.info("a release came", extra={"version": release.version, "said": said})
