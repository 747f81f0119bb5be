"""Settings from the fleet: a real mosquitto, a real agent, what the server's command pushes."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import paho.mqtt.publish as paho_publish
import pytest

from agent.config import load
from agent.remote import MOST_STARTS, Remote
from contract import topics
from contract.errors import ConfigError, ContractError, RunoutError
from contract.report import NodeStatus
from contract.settings import Settings, Signed, sealed
from server import settings
from server.fleet.config import Mqtt
from server.signing import key_of, public_pem
from tests.agent.conftest import SITE

CONFIG = Path(__file__).parents[2] / "configs" / "agent.minimal.toml"
PLACE = (SITE, "node")


@pytest.fixture
def server(tmp_path: Path) -> Path:
    return tmp_path / "server"


@pytest.fixture
def key(server: Path, tmp_path: Path) -> Path:
    path = tmp_path / "fleet.pem"
    path.write_text(public_pem(server), encoding="utf-8")
    return path


def signed(server: Path, version: int, changes: dict[str, str], node: str = "node") -> bytes:
    words = msgspec.json.encode(Settings(SITE, node, version, 0.0, changes)).decode()
    return msgspec.json.encode(Signed(words, key_of(server).sign(sealed(words)).hex()))


def stands(version: int, state: str) -> Callable[[NodeStatus], bool]:
    return lambda s: s.online and (s.settings.version, s.settings.state) == (version, state)


def test_a_device_takes_what_is_signed_keeps_what_does_good_and_says_so(
    broker: Any,
    connect: Callable[..., Any],
    agent: Callable[..., Any],
    server: Path,
    key: Path,
) -> None:
    to = Mqtt(port=broker.port)
    plant = connect(broker)
    process = agent(
        "node",
        "agent.minimal.toml",
        f'federation.release_key="{key}"',
        "federation.settings=true",
        "federation.settings_well_s=0.5",
        'node.area="hall 2"',
    ).start()
    plant.wait_for("node", lambda s: s.online and s.resources is not None)
    pushed = settings.push(server, to, [PLACE], {"limits.intake": "5000"})
    first = pushed[PLACE]
    plant.wait_for("node", stands(first, "applied"))
    # Not of the fleet's key; another device's; older than what is known: each is left alone.
    topic = topics.settings_topic(*PLACE)
    for content in (
        signed(server.with_name("other"), first + 1, {"limits.intake": "1"}),
        signed(server, first + 1, {"limits.intake": "1"}, node="else"),
        signed(server, first - 1, {"limits.intake": "1"}),
        b"no settings",
    ):
        paho_publish.single(topic, content, qos=1, retain=True, port=broker.port)
    process.wait_for("its signature is not by the key")
    process.wait_for("on this device's topic")
    process.wait_for("settings that cannot be read")
    # What is signed and makes no configuration is refused, with the place; the other stands.
    bad = settings.push(server, to, [PLACE], {"limits.intake": '"many"'})[PLACE]
    plant.wait_for("node", stands(bad, "refused"))
    assert "limits.intake" in plant.statuses["node"].settings.reason
    back, number = settings.rollback(server, to, *PLACE)
    assert back == first
    plant.wait_for("node", stands(number, "applied"))
    assert [one.changes for one in settings.history(server, *PLACE)] == [
        {"limits.intake": "5000"},
        {"limits.intake": '"many"'},
        {"limits.intake": "5000"},
    ]
    # Killed, it starts with what was kept.
    process.end(signal.SIGKILL)
    process.start()
    plant.wait_for("node", stands(number, "applied"))
    assert process.end(signal.SIGTERM) == 0


def remote_of(tmp_path: Path, key: Path, **changes: str) -> tuple[Remote, list[float]]:
    """Return a device's side, with a clock that a test turns."""
    now = [0.0]
    words = {
        "node.name": "node",
        "node.site": SITE,
        "node.state": str(tmp_path / "agent"),
        "federation.release_key": str(key),
        "federation.settings": "true",
        **changes,
    }
    overrides = [f"{name}={value}" for name, value in words.items()]
    return Remote(CONFIG, overrides, clock=lambda: now[0]), now


def test_settings_with_which_the_device_never_becomes_well_are_taken_back(
    tmp_path: Path, server: Path, key: Path
) -> None:
    remote, now = remote_of(tmp_path, key)
    remote.begin()
    remote.take(signed(server, 7, {"limits.intake": "5000"}), "topic")
    assert remote.restart.is_set()
    assert remote.begin().limits.intake == 5000
    now[0] = 61.0
    remote.tend(well=True)
    assert remote.standing.state == "applied"
    remote.take(signed(server, 8, {"limits.intake": "6000"}), "topic")
    for _ in range(MOST_STARTS):  # killed each time, before it was well
        remote, now = remote_of(tmp_path, key)
        assert remote.begin().limits.intake == 6000
        now[0] = 61.0
        remote.tend(well=False)
        assert remote.on_trial
    remote, _ = remote_of(tmp_path, key)
    assert remote.begin().limits.intake == 5000
    assert remote.standing.state == "rolled_back"
    assert "3 starts" in remote.standing.reason
    # The broker shows it again, and it is known.
    remote.take(signed(server, 8, {"limits.intake": "6000"}), "topic")
    assert not remote.restart.is_set()
    remote.take(signed(server, 9, {"limits.intake": "4000"}), "topic")
    assert remote.begin().limits.intake == 4000


def test_settings_that_no_longer_fit_the_devices_own_file_are_taken_back(
    tmp_path: Path, server: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "agent.toml"
    own.write_text(CONFIG.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr("tests.agent.test_remote.CONFIG", own)
    remote, _ = remote_of(tmp_path, key)
    remote.begin()
    name = load(own).asset_class[0].name
    remote.take(signed(server, 1, {"assets.fan-1": f'"{name}"'}), "topic")
    assert remote.begin().assets["fan-1"] == name
    text = own.read_text(encoding="utf-8")
    own.write_text(text.replace(f'"{name}"', '"other"'), encoding="utf-8")
    remote, _ = remote_of(tmp_path, key)
    assert "fan-1" not in remote.begin().assets
    assert remote.standing.state == "rolled_back"
    assert f"no asset class '{name}'" in remote.standing.reason


@pytest.mark.parametrize("point", range(4))
def test_a_kill_while_settings_are_laid_down_leaves_one_or_the_other(
    point: int, tmp_path: Path, server: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from contract import npz

    remote, now = remote_of(tmp_path, key)
    remote.begin()
    remote.take(signed(server, 1, {"limits.intake": "5000"}), "topic")
    remote.begin()
    now[0] = 61.0
    remote.tend(well=True)
    write, count = npz.write, 0

    def killing(path: Path, content: bytes, **how: bool) -> None:
        nonlocal count
        if count == point:
            raise KeyboardInterrupt
        count += 1
        write(path, content, **how)

    with monkeypatch.context() as patch:
        patch.setattr(npz, "write", killing)
        with pytest.raises(KeyboardInterrupt):
            remote.take(signed(server, 2, {"limits.intake": "6000"}), "topic")
    remote, now = remote_of(tmp_path, key)
    assert remote.begin().limits.intake == 5000
    now[0] = 61.0
    remote.tend(well=True)
    # And the broker brings them once more, or they are known and another brings them.
    remote.take(signed(server, 3, {"limits.intake": "6000"}), "topic")
    assert remote.begin().limits.intake == 6000


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mqtt.host": "elsewhere"}, "mqtt.host: may not be changed from afar"),
        ({"node.state": "elsewhere"}, "node.state: may not be changed from afar"),
        ({"federation.release_key": "other.pem"}, "may not be changed from afar"),
        ({"limits.intake": "1\nmqtt.port=1"}, "is not one key and one value"),
    ],
)
def test_what_could_lock_a_device_out_is_refused_on_both_sides(
    changes: dict[str, str], words: str, tmp_path: Path, server: Path, key: Path
) -> None:
    with pytest.raises(ConfigError, match=words):
        settings.push(server, Mqtt(port=1), [PLACE], changes)
    remote, _ = remote_of(tmp_path, key)
    remote.begin()
    remote.take(signed(server, 1, changes), "topic")
    assert remote.standing.state == "refused"
    assert words in remote.standing.reason
    assert not remote.restart.is_set()


def test_what_is_altered_on_the_disk_is_left_out(tmp_path: Path, server: Path, key: Path) -> None:
    remote, now = remote_of(tmp_path, key)
    remote.begin()
    remote.take(signed(server, 1, {"limits.intake": "5000"}), "topic")
    remote.begin()
    now[0] = 61.0
    remote.tend(well=True)
    path = tmp_path / "agent" / "settings" / "current.json"
    path.write_bytes(path.read_bytes().replace(b"5000", b"9000"))
    remote, _ = remote_of(tmp_path, key)
    assert remote.begin().limits.intake == load(CONFIG).limits.intake


def test_without_a_key_no_settings_are_taken() -> None:
    with pytest.raises(ConfigError, match="settings: give release_key"):
        load(CONFIG, ["federation.settings=true"])


def test_what_is_no_message_of_this_device_is_an_error(
    tmp_path: Path, server: Path, key: Path
) -> None:
    remote, _ = remote_of(tmp_path, key)
    for content in (b"", b"{}", b"x" * 70_000, signed(server, 1, {}, node="else")):
        with pytest.raises(ContractError):
            remote.take(content, "topic")


def test_a_broker_that_is_not_there_is_said(server: Path, free_ports: Callable[[], int]) -> None:
    with pytest.raises(RunoutError, match="cannot be reached"):
        settings.push(server, Mqtt(port=free_ports()), [PLACE], {"limits.intake": "5000"})
