"""Home Assistant finds the machines by itself, on a real broker; its buttons do what they say."""

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from agent import home_assistant
from agent.retained import MOST_GONE, Retained
from contract.report import Alert, VerdictWord

Make = Callable[..., Any]
Connect = Callable[..., Any]

START_S = 1_199_145_600
ALSO = ["homeassistant/#", "runout/v1/test/+/+/alert", "runout/v1/test/+/+/alert/state"]


def row(hour: int, *, bad: bool = False) -> bytes:
    v = {"vibration": 5.0 + hour % 7 / 10 + 60.0 * bad, "temperature": 40.0 + hour % 5 / 10}
    return json.dumps({"t": START_S + 3600 * hour, "v": v}).encode()


def configs(plant: Any) -> dict[str, Any]:
    """Return the devices that are announced, by name; one that was taken away is not."""
    newest = {topic: body for topic, body in list(plant.heard) if topic.endswith("/config")}
    devices = [json.loads(body) for body in newest.values() if body]
    return {device["device"]["name"]: device for device in devices}


def alerts(plant: Any) -> list[Alert]:
    return [
        msgspec.json.decode(body, type=Alert)
        for topic, body in list(plant.heard)
        if topic.endswith("/alert")
    ]


def state(plant: Any, asset: str) -> Any:
    """Return what stands on the retained topic of an asset's alert."""
    topic = f"runout/v1/test/node/{asset}/alert/state"
    return next((json.loads(body) for at, body in reversed(plant.heard) if at == topic), None)


def press(plant: Any, button: dict[str, Any]) -> None:
    plant.publish(button["command_topic"], button["payload_press"].encode())


@pytest.fixture
def plant(broker: Any, connect: Connect) -> Any:
    return connect(broker, also=ALSO)


def started(agent: Make, plant: Any, *settings: str) -> Any:
    own = ["web.enabled=false", "home_assistant.enabled=true", *settings]
    process = agent("node", "agent.minimal.toml", *own).start()
    plant.wait_for("node", lambda status: status.online)
    return process


def test_each_machine_is_a_device_that_stays_announced(
    broker: Any, connect: Connect, plant: Any, agent: Make
) -> None:
    started(agent, plant)
    plant.send("node", "pump-1", "readings", row(0))
    plant.send("node", "pump-2", "readings", row(0))
    plant.wait(lambda: {"pump-1", "pump-2"} <= configs(plant).keys())
    later = connect_another(broker, connect)
    later.wait(lambda: {"pump-1", "pump-2"} <= configs(later).keys())  # it is retained
    device = configs(later)["pump-1"]
    assert device["device"]["manufacturer"] == "Runout"
    assert device["device"]["suggested_area"] == "test"
    assert device["availability"][0]["topic"] == "runout/v1/test/node/status"
    assert {key: (one["platform"], one["name"]) for key, one in device["components"].items()} == {
        "health": ("sensor", "Health"),
        "score": ("sensor", "Score"),
        "rul": ("sensor", "Remaining life"),
        "rul_low": ("sensor", "Remaining life, at least"),
        "rul_high": ("sensor", "Remaining life, at most"),
        "alert": ("sensor", "Alert"),
        "problem": ("binary_sensor", "Problem"),
        "acknowledge": ("button", "Acknowledge"),
        "confirmed": ("button", "Fault confirmed"),
        "false_alarm": ("button", "False alarm"),
        "not_found": ("button", "No fault found"),
    }
    idents = [one["unique_id"] for name in configs(later) for one in components(later, name)]
    assert len(set(idents)) == len(idents) == 22


def connect_another(broker: Any, connect: Connect) -> Any:
    return connect(broker, also=ALSO, prepare=_as_another)


def _as_another(client: Any) -> None:
    client._client_id = b"another"  # paho has no other way to it


def components(plant: Any, name: str) -> list[dict[str, Any]]:
    return list(configs(plant)[name]["components"].values())


def test_what_a_sensor_shows_is_in_what_the_agent_publishes(plant: Any, agent: Make) -> None:
    started(agent, plant)
    for hour in range(120):
        plant.send("node", "pump-1", "readings", row(hour))
    health = "runout/v1/test/node/pump-1/health"
    plant.wait(lambda: any(topic == health for topic, _ in plant.heard))
    plant.wait(lambda: bool(configs(plant)) and state(plant, "pump-1") is not None)
    shown = {
        health: next(json.loads(body) for topic, body in plant.heard if topic == health),
        "runout/v1/test/node/pump-1/alert/state": state(plant, "pump-1"),
    }
    for one in components(plant, "pump-1"):
        if "state_topic" in one:
            names = re.findall(r"value_json\.(\w+)", one["value_template"])
            assert names
            assert set(names) <= shown[one["state_topic"]].keys()


@pytest.mark.parametrize("word", get_args(VerdictWord))
def test_the_button_of_a_verdict_says_what_was_found_of_the_alert(
    word: str, plant: Any, agent: Make
) -> None:
    process = started(agent, plant)
    alert = raised(plant)
    press(plant, configs(plant)["pump-1"]["components"][word])
    plant.wait(lambda: alerts(plant)[-1].verdict == word)
    assert alerts(plant)[-1].id == alert.id
    plant.wait(lambda: state(plant, "pump-1")["now"] == "acknowledged")
    assert process.table("SELECT alert, verdict FROM verdict") == [(alert.id, word)]


def raised(plant: Any) -> Alert:
    """Let a pump wear out; return its alert."""
    for hour in range(300):
        plant.send("node", "pump-1", "readings", row(hour, bad=hour >= 290))
    plant.wait(lambda: any(one.state == "raised" for one in alerts(plant)))
    plant.wait(lambda: "pump-1" in configs(plant))
    plant.wait(lambda: state(plant, "pump-1")["now"] == "unacknowledged")
    return alerts(plant)[-1]


def test_the_button_acknowledge_acknowledges_and_the_problem_stands(
    plant: Any, agent: Make
) -> None:
    started(agent, plant)
    alert = raised(plant)
    press(plant, configs(plant)["pump-1"]["components"]["acknowledge"])
    plant.wait(lambda: state(plant, "pump-1")["now"] == "acknowledged")
    assert state(plant, "pump-1")["id"] == alert.id
    template = configs(plant)["pump-1"]["components"]["problem"]["value_template"]
    assert "'acknowledged'" in template


def test_nothing_is_announced_that_nobody_has_heard_of(plant: Any, agent: Make) -> None:
    started(agent, plant)
    plant.send("node", "nope", "command", b'{"command":"acknowledge"}')
    plant.send("node", "pump-1", "readings", row(0))
    plant.wait(lambda: bool(configs(plant)))
    plant.wait_for("node", lambda status: status.rejected == 1)
    assert configs(plant).keys() == {"pump-1"}


def test_what_is_announced_no_longer_is_taken_away(
    broker: Any, connect: Connect, plant: Any, agent: Make
) -> None:
    process = started(agent, plant)
    plant.send("node", "pump-1", "readings", row(0))
    plant.wait(lambda: "pump-1" in configs(plant))
    topic = home_assistant.config_topic("homeassistant", "test", "node", "pump-1")
    assert process.end(signal.SIGTERM) == 0
    plant.wait_for("node", lambda status: not status.online)
    started(agent, plant, "home_assistant.enabled=false")
    plant.wait(lambda: (topic, b"") in plant.heard)
    later = connect_another(broker, connect)
    later.wait(lambda: state(later, "pump-1") is not None)  # that is retained still
    assert configs(later) == {}


def test_another_prefix_moves_the_devices(plant: Any, agent: Make) -> None:
    process = started(agent, plant)
    plant.send("node", "pump-1", "readings", row(0))
    plant.wait(lambda: "pump-1" in configs(plant))
    assert process.end(signal.SIGTERM) == 0
    plant.wait_for("node", lambda status: not status.online)
    started(agent, plant, "home_assistant.prefix=homeassistant/two")
    old, new = (
        home_assistant.config_topic(prefix, "test", "node", "pump-1")
        for prefix in ("homeassistant", "homeassistant/two")
    )
    plant.wait(lambda: (old, b"") in plant.heard)
    plant.wait(lambda: any(topic == new and body for topic, body in plant.heard))


def test_a_broker_that_has_forgotten_everything_is_told_again(
    broker: Any, connect: Connect, plant: Any, agent: Make, tmp_path: Path
) -> None:
    process = started(agent, plant)
    alert = raised(plant)
    broker.stop()
    (tmp_path / "broker" / "mosquitto.db").unlink()
    process.wait_for("connection lost")
    broker.start()
    later = connect_another(broker, connect)
    later.wait(lambda: "pump-1" in configs(later) and state(later, "pump-1") is not None)
    assert state(later, "pump-1")["id"] == alert.id
    assert state(later, "pump-1")["now"] == "unacknowledged"


def test_a_restarted_agent_shows_the_alert_as_it_was_told(
    broker: Any, connect: Connect, plant: Any, agent: Make
) -> None:
    process = started(agent, plant)
    alert = raised(plant)
    process.kill()
    broker.stop()
    process.start()
    broker.start()
    later = connect_another(broker, connect)
    later.wait(lambda: state(later, "pump-1") is not None)
    told = msgspec.convert(state(later, "pump-1"), Alert)
    assert told.text == alert.text
    assert told.why == alert.why != ()


def test_topics_that_are_to_be_emptied_are_bounded() -> None:
    kept = Retained([f"old/{n}" for n in range(2 * MOST_GONE)])
    kept.keep("new", b"1")
    kept.begin()
    assert len(kept.topics) == MOST_GONE + 1
    said: list[tuple[str, bytes, bool]] = []
    while more := kept.take(100):
        said += more
    assert len(said) == MOST_GONE + 1
    assert said[-1] == ("new", b"1", True)
    assert {body for _, body, _ in said[:-1]} == {b""}
    kept.keep("new", b"1")
    assert kept.take(10) == []  # it stands
    kept.keep("new", b"2")
    assert kept.take(10) == [("new", b"2", True)]


def test_names_that_look_alike_are_devices_of_their_own() -> None:
    names = ["pump-1", "pump_1", "pump 1", "pümp-1", "pump-1 ", "x" * 200, "x" * 201]
    idents = {home_assistant.device_id("north", "rpi", name) for name in names}
    assert len(idents) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,128}", ident) for ident in idents)
