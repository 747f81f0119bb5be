"""Listens to what the agents publish: their status, health and alerts."""

import threading
from typing import Any

import msgspec
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from contract import topics
from contract.errors import DecodeError
from contract.report import Alert, Health, NodeStatus


class Listener:
    """The newest word on every node and asset; in the network's thread, read from any."""

    def __init__(self, port: int, site: str) -> None:
        self.nodes: dict[str, NodeStatus] = {}
        self.health: dict[str, Health] = {}
        self.alerts: dict[str, Alert] = {}
        self.reports = 0
        self.connected = threading.Event()
        self._site = site
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id="demo-listener")
        self._client.on_connect = self._on_connect
        self._client.on_message = self._on_message
        self._client.connect_async("127.0.0.1", port)
        self._client.reconnect_delay_set(1, 2)
        self._client.loop_start()

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()

    def forget(self) -> None:
        """Forget what was said of assets: a new play begins."""
        self.health = {}
        self.alerts = {}

    def _on_connect(self, client: paho.Client, *_: Any) -> None:
        base = f"{topics.PREFIX}/{self._site}"
        client.subscribe(
            [(f"{base}/+/status", 1), (f"{base}/+/+/health", 1), (f"{base}/+/+/alert", 1)]
        )
        self.connected.set()

    def _on_message(self, _client: Any, _data: Any, message: paho.MQTTMessage) -> None:
        try:
            if message.topic.endswith("/status"):
                status = msgspec.json.decode(message.payload, type=NodeStatus)
                self.nodes[status.node] = status
                return
            leaf = topics.parse(message.topic).leaf
            if leaf == topics.ALERT:
                alert = msgspec.json.decode(message.payload, type=Alert)
                self.alerts[alert.asset] = alert
            else:
                report = msgspec.json.decode(message.payload, type=Health)
                self.health[report.asset] = report
                self.reports += 1
        except (msgspec.MsgspecError, DecodeError):
            return  # not an agent's: nothing of the demonstration hangs on it
