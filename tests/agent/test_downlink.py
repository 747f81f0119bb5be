"""Releases over the broker: a real mosquitto, a real agent, what a server's registry publishes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.publish as paho_publish
import pytest

from agent import config as agent_config
from contract import VERSION, topics
from contract.errors import ConfigError, RunoutError
from contract.features import FeatureSpec
from contract.models.moments import HealthModel, Moments
from contract.release import Manifest, Release
from contract.report import NodeStatus
from contract.spec import AssetClass
from server.broadcast import publish
from server.fleet.config import Mqtt as ServerBroker
from server.registry import Registry
from server.signing import public_pem
from server.wave import Wave

CONFIG = Path(__file__).parents[2] / "configs" / "agent.minimal.toml"


def release_of(spec: AssetClass, version: int) -> Release:
    """Return a release that holds a model of health."""
    watched = len(FeatureSpec.of(spec).columns(spec.health_stats))
    Z = np.random.default_rng(version).normal(size=(200, watched))
    model = HealthModel.solve(Moments.of(Z), variance=0.9, alarm_rate=0.01)
    manifest = Manifest(VERSION, spec, version, version - 1, 0, ("a",), "", {})
    return Release(manifest, model.arrays("health/model/"))


@pytest.fixture
def spec() -> AssetClass:
    return agent_config.load(CONFIG).asset_class[0]


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "fleet.pem"
    path.write_text(public_pem(tmp_path / "server"), encoding="utf-8")
    return path


def test_a_device_outside_the_federation_takes_signed_releases_as_they_come(
    broker: Any,
    connect: Callable[..., Any],
    agent: Callable[..., Any],
    spec: AssetClass,
    key: Path,
    tmp_path: Path,
) -> None:
    to = ServerBroker(port=broker.port)
    registry = Registry(tmp_path / "server", spec.name)
    registry.register(release_of(spec, 1))
    assert publish(tmp_path / "server", to) == {spec.name: 1}
    assert publish(tmp_path / "server", to) == {}  # it stands there already
    plant = connect(broker)
    settings = [f'federation.release_key="{key}"', "federation.over_mqtt=true"]
    process = agent("node", "agent.minimal.toml", *settings).start()

    def judges(version: int) -> Callable[[NodeStatus], bool]:
        return lambda status: status.online and status.live.get(spec.name) == version

    plant.wait_for("node", judges(1))
    # Somebody else who may publish: not signed by the fleet's key.
    other = Registry(tmp_path / "other", spec.name)
    for version in (1, 2, 3):
        other.register(release_of(spec, version))
    forged = other.get(3).to_bytes()
    topic = topics.release_topic(spec.name)
    for content in (forged, b"no release", forged[:-40]):
        paho_publish.single(topic, content, qos=1, retain=True, port=broker.port)
    process.wait_for("its signature is not by the key that this device trusts")
    registry.register(release_of(spec, 2))
    assert publish(tmp_path / "server", to) == {spec.name: 2}
    plant.wait_for("node", judges(2))
    assert [row[0] for row in process.table("SELECT version FROM rollout ORDER BY id")] == [1, 2]


def test_what_is_on_its_way_in_waves_is_not_on_the_broker_yet(
    broker: Any, spec: AssetClass, tmp_path: Path
) -> None:
    to = ServerBroker(port=broker.port)
    registry = Registry(tmp_path, spec.name)
    registry.register(release_of(spec, 1))
    assert publish(tmp_path, to) == {spec.name: 1}
    second = release_of(spec, 2)
    registry.register(second)
    way = Wave(2, second.digest, 1, members={"a": 0})
    way.save(registry.folder)
    assert publish(tmp_path, to, anew=True) == {}
    way.state = "done"
    way.save(registry.folder)
    assert publish(tmp_path, to) == {spec.name: 2}


def test_without_a_key_no_release_is_taken_over_mqtt(tmp_path: Path) -> None:
    text = CONFIG.read_text(encoding="utf-8")
    path = tmp_path / "agent.toml"
    path.write_text(f"{text}\n[federation]\nover_mqtt = true\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="over_mqtt: give release_key"):
        agent_config.load(path)
    path.write_text(
        f'{text}\n[federation]\nover_mqtt = true\nrelease_key = "none.pem"\n', encoding="utf-8"
    )
    with pytest.raises(ConfigError, match=r"federation\.release_key"):
        agent_config.load(path)


def test_a_broker_that_is_not_there_is_said(
    tmp_path: Path, spec: AssetClass, free_ports: Callable[[], int]
) -> None:
    Registry(tmp_path, spec.name).register(release_of(spec, 1))
    with pytest.raises(RunoutError, match="cannot be reached"):
        publish(tmp_path, ServerBroker(port=free_ports()))
    assert not (tmp_path / "broadcast.json").exists()
