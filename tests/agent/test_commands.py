"""What people say to an agent: over MQTT, HTTP and the command, once, and never to a stranger."""

import http.client
import json
import signal
from collections.abc import Callable
from contextlib import closing
from typing import Any

import msgspec
import pytest

from agent.assemble import Assembler
from agent.batch import Batch
from agent.config import AgentConfig, Limits, Mqtt, Subscription
from agent.intake import Arrival
from contract.report import Alert

Configure = Callable[..., AgentConfig]
Open = Callable[[AgentConfig], Any]
Make = Callable[..., Any]

START_S = 1_199_145_600
NOW_NS = (START_S + 400 * 3600) * 10**9
PATIENCE_S = 60


def row(hour: int, *, bad: bool = False) -> bytes:
    v = {"vibration": 5.0 + hour % 7 / 10 + 60.0 * bad, "temperature": 40.0 + hour % 5 / 10}
    return json.dumps({"t": START_S + 3600 * hour, "v": v}).encode()


class Desk:
    """A device, and an assembler that knows its assets; messages come as from the broker."""

    def __init__(self, device: Any) -> None:
        self.device = device
        self.assembler = Assembler(device.config, assets=device.engine.pipeline.assets)

    def hear(self, *messages: tuple[str, bytes]) -> tuple[list[Alert], list[tuple[str, str]]]:
        """Return the alerts that come of messages, and why others were refused."""
        arrivals = [
            Arrival(f"runout/v1/test/node/{leaf}", payload, n, NOW_NS)
            for n, (leaf, payload) in enumerate(messages, 1)
        ]
        return self.hear_all(*arrivals)

    def hear_all(self, *arrivals: Arrival) -> tuple[list[Alert], list[tuple[str, str]]]:
        batch, rejected = self.assembler.assemble(list(arrivals))
        said = self.device.engine.process(batch, rejected)
        told = [(one.reason, one.text) for one in rejected]
        return [one for one in said if isinstance(one, Alert)], told

    @property
    def assets(self) -> list[str]:
        return sorted(self.device.engine.pipeline.assets)


@pytest.fixture
def desk(configure: Configure, device: Open) -> Callable[..., Desk]:
    def make(**changes: Any) -> Desk:
        return Desk(device(configure(**changes)))

    return make


# -- to whom ---------------------------------------------------------------------------------------

SPOKEN = [
    ("command", b'{"command": "acknowledge"}', "acknowledge"),
    ("command", b'{"command": "shelve", "hours": 8}', "shelve"),
    ("command", b'{"command": "unshelve"}', "unshelve"),
    ("verdict", b'{"verdict": "confirmed"}', "verdict"),
    ("event", b'{"event": "failed"}', "failed"),
    ("event", b'{"event": "maintained"}', "maintained"),
    ("event", b'{"event": "replaced"}', "replaced"),
]


@pytest.mark.parametrize(("leaf", "payload", "word"), SPOKEN, ids=[one[2] for one in SPOKEN])
def test_what_is_said_of_an_asset_that_nobody_has_heard_of_makes_none(
    leaf: str, payload: bytes, word: str, desk: Callable[..., Desk]
) -> None:
    one = desk()
    said, refused = one.hear((f"nope/{leaf}", payload))
    assert (said, one.assets) == ([], [])
    assert refused == [
        (
            "asset",
            f"{word!r} of asset 'nope', of which no reading has come: is that its name?",
        )
    ]
    assert one.device.engine.rejected == {"asset": 1}


def test_a_life_may_be_started_before_its_first_reading(desk: Callable[..., Desk]) -> None:
    one = desk()
    assert one.hear(("pump-1/event", b'{"event": "started"}')) == ([], [])
    assert one.assets == ["pump-1"]
    one.hear(("pump-1/readings", row(1)))
    assert one.device.engine.pipeline.assets["pump-1"].life == 0


@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "one by one"])
def test_an_asset_can_be_spoken_of_from_its_first_reading_on(
    together: bool, desk: Callable[..., Desk]
) -> None:
    one = desk()
    command = b'{"command": "shelve", "hours": 1, "ref": "%d"}'
    messages = [
        ("pump-1/command", command % 1),
        ("pump-1/readings", row(1)),
        ("pump-1/command", command % 2),
    ]
    parts = [messages] if together else [[message] for message in messages]
    found = [one.hear(*part) for part in parts]
    assert [alert.ref for said, _ in found for alert in said] == ["2"]
    assert [reason for _, refused in found for reason, _ in refused] == ["asset"]


def test_strangers_take_no_place_from_the_machines(desk: Callable[..., Desk]) -> None:
    one = desk(limits=Limits(assets=3))
    for n in range(50):
        one.hear(
            (f"nope-{n}/command", b'{"command": "acknowledge"}'),
            (f"nope-{n}/verdict", b'{"verdict": "confirmed"}'),
            (f"nope-{n}/readings", b"no reading"),
        )
    for n in range(3):
        assert one.hear((f"pump-{n}/readings", row(1))) == ([], [])
    said, refused = one.hear(("pump-3/readings", row(1)), ("pump-3/event", b'{"event":"started"}'))
    assert (said, one.assets) == ([], ["pump-0", "pump-1", "pump-2"])
    assert refused == [("asset", "asset 'pump-3': over limits.assets = 3")] * 2


def test_the_limit_counts_what_was_known_before_a_restart(
    configure: Configure, device: Open
) -> None:
    config = configure(limits=Limits(assets=2))
    before = Desk(device(config))
    before.hear(("pump-1/readings", row(1)), ("pump-2/readings", row(1)))
    before.device.kill()
    after = Desk(device(config))
    assert after.hear(("pump-3/readings", row(1)))[1][0][0] == "asset"
    assert after.hear(("pump-2/readings", row(2)), ("pump-1/readings", row(2))) == ([], [])
    assert after.hear(("pump-1/event", b'{"event": "failed"}')) == ([], [])


def test_a_message_of_several_assets_is_taken_whole_or_not_at_all(
    desk: Callable[..., Desk],
) -> None:
    line = Subscription("line", format="senml+json")
    one = desk(limits=Limits(assets=2), mqtt=Mqtt(subscribe=(line,)))

    def of(*assets: str) -> tuple[list[Alert], list[tuple[str, str]]]:
        pack = [{"n": f"{asset}/vibration", "t": START_S, "v": 5.0} for asset in assets]
        return one.hear_all(Arrival("line", json.dumps(pack).encode(), 1, NOW_NS))

    assert of("pump-1", "pump-2", "pump-3")[1][0][0] == "asset"
    assert one.assets == []
    assert of("pump-3", "pump-4") == ([], [])
    assert one.assets == ["pump-3", "pump-4"]


def test_what_was_refused_leaves_nothing_in_the_journal(desk: Callable[..., Desk]) -> None:
    one = desk()
    one.hear(("nope/command", b'{"command": "acknowledge"}'), ("pump-1/readings", row(1)))
    batches = [Batch.decode(body) for _, body in one.device.engine.store.replay(0)]
    assert [event for batch in batches for event in batch.events] == []
    assert [batch.rejected for batch in batches] == [1]
    config = one.device.config
    one.device.kill()
    again = type(one.device)(config)
    try:
        assert sorted(again.engine.pipeline.assets) == ["pump-1"]
    finally:
        again.kill()


# -- once ------------------------------------------------------------------------------------------

AT = START_S + 50 * 3600
REPEATED = [
    ("command", {"command": "shelve", "hours": 8, "ref": "a1"}),
    ("command", {"command": "unshelve", "t": AT}),
    ("command", {"command": "acknowledge", "ref": "a2"}),
    ("verdict", {"verdict": "confirmed"}),
    ("verdict", {"verdict": "not_found", "ref": "a3"}),
    ("event", {"event": "maintained", "t": AT}),
    ("event", {"event": "maintained", "t": AT, "ref": "a4"}),
]


@pytest.mark.parametrize(("leaf", "said"), REPEATED, ids=[str(said) for _, said in REPEATED])
def test_what_the_broker_brings_again_is_recognised_after_a_kill_too(
    leaf: str, said: dict[str, Any], configure: Configure, device: Open
) -> None:
    one = Desk(device(configure()))
    rows = [("pump-1/readings", row(hour, bad=hour >= 40)) for hour in range(48)]
    assert one.hear(*rows)[0][-1].state == "raised"
    message = f"pump-1/{leaf}", json.dumps(said).encode()
    one.hear(message)
    before = one.device.state()[1]
    one.device.kill()
    back = Desk(device(one.device.config))
    assert back.hear(message) == ([], [])
    counts = back.device.engine.pipeline.counts
    assert counts.repeated == 1
    after = back.device.state()[1]
    assert after == before
    assert back.device.engine.store.database.rows("SELECT COUNT(*) FROM verdict")[0][0] == (
        leaf == "verdict"
    )


def test_a_verdict_is_kept_with_the_alert_that_it_means(desk: Callable[..., Desk]) -> None:
    one = desk()
    rows = [("pump-1/readings", row(hour, bad=40 <= hour < 44)) for hour in range(200)]
    first = next(alert for alert in one.hear(*rows)[0] if alert.state == "raised")
    rows = [("pump-1/readings", row(hour, bad=True)) for hour in range(200, 210)]
    second = one.hear(*rows)[0][-1]
    assert second.id != first.id
    verdict = {"verdict": "false_alarm", "alert": first.id, "by": "kim", "note": "a door"}
    (answer,), _ = one.hear(("pump-1/verdict", json.dumps(verdict).encode()))
    assert answer.id == second.id
    assert f"({first.id} is not the newest alert)" in answer.text
    assert answer.now == "unacknowledged"
    verdict = {"verdict": "confirmed", "fault": "bearing"}
    (answer,), _ = one.hear(("pump-1/verdict", json.dumps(verdict).encode()))
    assert (answer.state, answer.verdict) == ("acknowledged", "confirmed")
    query = "SELECT alert, verdict, fault, note, by FROM verdict ORDER BY id"
    assert one.device.engine.store.database.rows(query) == [
        (first.id, "false_alarm", "", "a door", "kim"),
        (second.id, "confirmed", "bearing", "", ""),
    ]


BAD = [
    ("command", b'{"command": "mute"}'),
    ("command", b'{"command": "shelve"}'),
    ("command", b'{"command": "shelve", "hours": -1}'),
    ("command", b'{"command": "shelve", "hours": 9000}'),
    ("command", b'{"command": "acknowledge", "who": "kim"}'),
    ("verdict", b'{"verdict": "maybe"}'),
    ("verdict", b"confirmed"),
    ("event", b'{"event": "exploded"}'),
    ("event", b"\xff"),
]


@pytest.mark.parametrize(("leaf", "payload"), BAD)
def test_what_cannot_be_understood_is_refused_with_an_example_that_can(
    leaf: str, payload: bytes, desk: Callable[..., Desk]
) -> None:
    one = desk()
    one.hear(("pump-1/readings", row(1)))
    _, ((reason, text),) = one.hear((f"pump-1/{leaf}", payload))
    assert reason == leaf
    example = text.partition("send ")[2].partition("}")[0] + "}"
    assert one.hear((f"pump-1/{leaf}", example.encode()))[1] == []


# -- over MQTT, HTTP and the command, to a running agent -------------------------------------------


@pytest.fixture
def running(
    broker: Any, connect: Callable[..., Any], agent: Make, free_ports: Callable[[], int]
) -> Any:
    """Return an agent with a pump that has an alert, a plant that hears it, and its HTTP port."""
    port = free_ports()
    plant = connect(broker, also=["runout/v1/test/+/+/alert", "runout/v1/test/+/+/alert/state"])
    process = agent(
        "node", "agent.minimal.toml", f'source=[{{kind="http", port={port}}}]', "web.enabled=false"
    ).start()
    plant.wait_for("node", lambda status: status.online)
    for hour in range(300):
        plant.send("node", "pump-1", "readings", row(hour, bad=hour >= 290))
    plant.wait(lambda: any(one.state == "raised" for one in alerts(plant)))
    return process, plant, port


def alerts(plant: Any) -> list[Alert]:
    return [
        msgspec.json.decode(payload, type=Alert)
        for topic, payload in list(plant.heard)
        if topic.endswith("/alert")
    ]


def answer_to(plant: Any, ref: str) -> Alert:
    """Return the answer to a command, when it has come."""
    plant.wait(lambda: any(one.ref == ref for one in alerts(plant)))
    return next(one for one in alerts(plant) if one.ref == ref)


def post(port: int, query: str, body: bytes) -> tuple[int, str]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)) as connection:
        connection.request(
            "POST", f"/v1/readings?{query}", body, {"Content-Type": "application/json"}
        )
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def test_commands_and_verdicts_come_over_mqtt_http_and_the_command(running: Any) -> None:
    process, plant, port = running
    alert = alerts(plant)[-1].id
    plant.send("node", "pump-1", "command", b'{"command":"shelve","hours":1,"ref":"m1"}')
    assert answer_to(plant, "m1").now == "shelved"
    shown = process.ask("status").stdout
    assert f"  {alert}  shelved" in shown
    assert "no alert" not in shown

    status, _ = post(port, "asset=pump-1&channel=command", b'{"command":"unshelve","ref":"h1"}')
    assert status == 204
    assert answer_to(plant, "h1").now == "unacknowledged"
    assert f"  {alert}  unacknowledged  pump-1: " in process.ask("status").stdout

    done = process.ask("ack", "pump-1", "--by", "kim")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("pump-1: acknowledged: ")
    assert done.stdout.endswith(f" [{alert}]\n")

    body = json.dumps({"verdict": "confirmed", "alert": alert, "ref": "h2"}).encode()
    assert post(port, "asset=pump-1&channel=verdict", body) == (204, "")
    assert answer_to(plant, "h2").verdict == "confirmed"
    done = process.ask("verdict", "pump-1", "not_found", "--alert", alert, "--note", "no play")
    assert done.returncode == 0
    assert done.stdout.endswith(f" [{alert}]\n")

    done = process.ask("event", "pump-1", "maintained")
    assert done.stdout == f"pump-1: maintained: alert closed [{alert}]\n"
    assert "no alert" in process.ask("status").stdout
    assert process.table("SELECT verdict, note FROM verdict ORDER BY id") == [
        ("confirmed", ""),
        ("not_found", "no play"),
    ]


def test_a_typing_error_is_told_and_makes_no_machine(running: Any) -> None:
    process, plant, port = running
    done = process.ask("ack", "pump-11", "--wait", "1")
    assert done.returncode == 1
    assert done.stdout.startswith("pump-11: node node has told of no such asset")
    status, text = post(port, "asset=pump-11&channel=event", b'{"event":"failed"}')
    assert (status, text.strip()) == (
        400,
        "'failed' of asset 'pump-11', of which no reading has come: is that its name?",
    )
    plant.wait_for("node", lambda one: one.rejected == 2)
    assert plant.statuses["node"].assets == 1
    assert not any("pump-11/alert" in topic for topic, _ in plant.heard)
    shown = process.ask("status").stdout
    assert "messages that could not be used: 2 asset" in shown
    assert "of asset 'pump-11', of which no reading has come" in shown


def test_who_asks_an_agent_that_is_away_is_told_so(running: Any) -> None:
    process, _, _ = running
    assert process.end(signal.SIGTERM) == 0
    done = process.ask("ack", "pump-1", "--wait", "0.5")
    assert done.returncode == 1
    assert "the agent has not answered within 0.5 s. It will act when it is back" in done.stdout
