"""Records what agents say on a broker: one JSON line a message, as it was published."""

import sys
import threading
from pathlib import Path

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from contract.errors import RunoutError
from contract.topics import ALERT, HEALTH, PREFIX
from simulator.sinks.mqtt import Address


class Recorder:
    """Subscribes to the results of a site's agents and writes them to a file.

    Args:
        address: of the broker; one that goes away is waited for.
        site: whose results; ``+`` for all there are.
        path: file that is written anew.

    Raises:
        RunoutError: the file cannot be written, or no broker answers.
    """

    def __init__(self, address: Address, site: str, path: Path) -> None:
        self.messages = 0
        self._said = threading.Event()
        self.listening = threading.Event()
        self._filters = [(f"{PREFIX}/{site}/+/+/{leaf}", 1) for leaf in (HEALTH, ALERT)]
        self._failed: OSError | None = None
        self._path = path
        try:
            self._file = path.open("wb")
        except OSError as error:
            raise RunoutError(f"{path}: cannot be written ({error.strerror})") from error
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv311)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = lambda *_: self.listening.set()
        self._client.on_message = self._on_message
        try:
            self._client.connect(address.host, address.port)
        except OSError as error:
            self._file.close()
            raise RunoutError(f"no broker at {address}: {error.strerror or error}") from error
        self._client.loop_start()

    def wait(self, until: threading.Event, quiet_s: float | None) -> None:
        """Return when ``until`` is set, or nothing was said for ``quiet_s`` since something was.

        Raises:
            RunoutError: what was said could not be written.
        """
        while not until.is_set():
            heard = self._said.wait(quiet_s if self.messages and quiet_s else 0.2)
            if self._failed is not None:
                raise RunoutError(
                    f"{self._path}: cannot be written ({self._failed.strerror}); "
                    f"{self.messages:,} messages are in it"
                )
            if not heard and self.messages and quiet_s:
                return
            self._said.clear()

    def close(self) -> None:
        """End, with everything that was heard in the file."""
        self._client.disconnect()
        self._client.loop_stop()
        self._file.close()

    def _on_connect(
        self,
        client: mqtt.Client,
        _userdata: object,
        _flags: object,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if reason.is_failure:
            print(f"the broker refuses: {reason}", file=sys.stderr)
            return
        client.subscribe(self._filters)

    def _on_message(self, _client: object, _userdata: object, message: mqtt.MQTTMessage) -> None:
        if message.retain or self._failed is not None:
            return
        try:
            self._file.write(message.payload.replace(b"\n", b" ") + b"\n")
            self._file.flush()
        except OSError as error:
            self._failed = error
        else:
            self.messages += 1
        self._said.set()
