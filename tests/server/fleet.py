"""What tests of the fleet share: reports as agents publish them, and a server that hears them."""

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from contract import topics
from contract.report import (
    Alert,
    ClassConfig,
    Health,
    Measured,
    NodeConfig,
    NodeStatus,
    Why,
)
from tests.agent.conftest import PATIENCE_S, Plant, Reading

T = 1_800_000_000.0
WHY = (Why("vibration", 0.8, "mean_16", 6.3), Why("temperature", 0.2, "std_4", -2.0))
encode = msgspec.json.encode


def health(asset: str, t: float = T, state: Any = "healthy", **more: Any) -> Health:
    base = Health(asset, t, state, 0.95, 0.4, 40.0, 6.0, 38.0, 2, "ridge", 0, ())
    return msgspec.structs.replace(base, **more)


def alert(asset: str, state: Any = "raised", t: float = T, **more: Any) -> Alert:
    text = f"{asset}: 2.0 times the limit since 2027-01-15 08:00 UTC: vibration high"
    base = Alert(f"{asset}/0/1", asset, state, t, t, 2.0, 20.0, 2, WHY, text, now="unacknowledged")
    return msgspec.structs.replace(base, **more)


def config(node: str) -> NodeConfig:
    channels = (Measured("vibration", "mm/s"), Measured("temperature", "degC"))
    pump = ClassConfig("pump", "d" * 16, channels, (), ("vibration.mean_16",))
    return NodeConfig(node, 1, (pump,), {"pump-*": "pump"})


class Said:
    """What nodes publish, by a real client.

    Args:
        plant: that publishes.
        site: of the nodes.
    """

    def __init__(self, plant: Plant, site: str = "north") -> None:
        self.plant = plant
        self.site = site

    def status(self, node: str, *, online: bool = True, **more: Any) -> None:
        status = NodeStatus(node, online, **more)
        self.plant.publish(topics.status_topic(self.site, node), encode(status), retain=True)

    def config(self, node: str) -> None:
        self.plant.publish(topics.config_topic(self.site, node), encode(config(node)), retain=True)

    def health(self, node: str, *reports: Health) -> None:
        for report in reports:
            topic = topics.asset_topic(self.site, node, report.asset, topics.HEALTH)
            self.plant.publish(topic, encode(report))

    def alert(self, node: str, one: Alert) -> None:
        topic = topics.asset_topic(self.site, node, one.asset, topics.ALERT)
        self.plant.publish(topic, encode(one))
        state = topics.alert_state_topic(self.site, node, one.asset)
        self.plant.publish(state, encode(one), retain=True)

    def settle(self) -> None:
        self.plant.settle()


class FleetProcess:
    """A ``runout-server fleet``."""

    def __init__(
        self,
        folder: Path,
        broker_port: int,
        settings: Sequence[str] = (),
        options: Sequence[str] = (),
    ) -> None:
        self._options = options
        self.state = folder / "server"
        self._config = folder / "server.toml"
        top = [one for one in settings if not one.startswith("[") and "mqtt." not in one]
        more = [one.removeprefix("mqtt.") for one in settings if one.startswith("mqtt.")]
        self._config.write_text(
            "\n".join(
                [
                    f'state = "{self.state}"',
                    "[mqtt]",
                    f"port = {broker_port}",
                    *more,
                    "[fleet]",
                    *([] if any(one.startswith("port") for one in top) else ["port = 0"]),
                    *top,
                ]
            )
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> "FleetProcess":
        program = str(Path(sys.executable).with_name("runout-server"))
        self._process = subprocess.Popen(
            [program, "fleet", "--config", str(self._config), *self._options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._reading = Reading(self._process)
        return self

    def wait_for(self, words: str) -> None:
        self._reading.wait_for(words)

    @property
    def said(self) -> str:
        return self._reading.text

    @property
    def url(self) -> str:
        self.wait_for("fleet page: ")
        found = re.search(r"fleet page: (\S+)", self.said)
        assert found
        return found[1]

    def end(self, *, kill: bool = False) -> int:
        assert self._process is not None
        if kill:
            self._process.kill()
        else:
            self._process.terminate()
        code = self._process.wait(timeout=PATIENCE_S)
        self._reading.close()
        self._process = None
        return code

    def close(self) -> None:
        if self._process is not None:
            self.end(kill=True)
