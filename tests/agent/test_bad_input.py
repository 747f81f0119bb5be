"""Whatever comes is counted and told, never fatal, never at the cost of the good beside it."""

import io
import json
import logging
import signal
import sqlite3
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from agent.assemble import Assembler
from agent.batch import Batch, Rejected
from agent.clock import DeviceClock
from agent.config import AgentConfig, Keep, Limits, Mqtt, Subscription
from agent.intake import Arrival
from agent.rollout import folders
from agent.sources import Http
from agent.status import as_text, read
from agent.store import read_checkpoint
from contract import VERSION, npz
from contract.arrays import Arrays
from contract.models.moments import HealthModel, Moments
from contract.release import Manifest, Release
from contract.spec import AssetClass, Channel, Waveform

NOW_S = 1_800_000_000
T = NOW_S - 3600

Configure = Callable[..., AgentConfig]
Open = Callable[[AgentConfig], Any]


def arrivals(*messages: tuple[str, bytes]) -> list[Arrival]:
    """Return messages to an asset's topics (``pump-1/readings``), all of one moment."""
    return [
        Arrival(topic if topic.startswith("/") else f"runout/v1/test/node/{topic}", payload, 0, at)
        for at, (topic, payload) in enumerate(messages, start=NOW_S * 10**9)
    ]


def set_by_a_server(config: AgentConfig) -> Assembler:
    """Return an assembler of a device whose clock is known to be right."""
    clock = DeviceClock(round(config.limits.future_s * 1e9), is_set=lambda: True)
    return Assembler(config, clock)


def reading(t: object = T, **v: object) -> bytes:
    return json.dumps({"t": t, "v": v}).encode()


GOOD_BEFORE = ("pump-1/readings", reading(T, vibration=5.0, temperature=40.0))
GOOD_AFTER = ("pump-1/readings", reading(T + 60, vibration=5.1, temperature=40.1))
TIMES = json.dumps([T, 4 * 10**18, T + 1])

UNUSABLE = {
    "what is not JSON": ("pump-1/readings", b"{", "json"),
    "nothing": ("pump-1/vibration", b"", "json"),
    "bytes that are no text": ("pump-1/vibration", b"\xff\xfe", "json"),
    "brackets without an end": ("pump-1/vibration", b"[" * 100_000, "type"),
    "a nest that no reader gets out of": (
        "pump-1/vibration",
        b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b',"v":1}',
        "json",
    ),
    "text for a number": ("pump-1/vibration", b'{"t": 1799990000, "v": "warm"}', "type"),
    "half a character": ("pump-1/vibration", b'{"v": "\\ud800"}', "type"),
    "a unit under another name": ("pump-1/vibration", b'{"v": 1, "unit": "in/s"}', "type"),
    "a time under another name": (
        "pump-1/readings",
        b'[{"v": {"vibration": 1}}, {"time": 1, "v": {"vibration": 1}}]',
        "type",
    ),
    "no channel": ("pump-1/readings", b'{"v": {}}', "channel"),
    "a number beyond all": (
        "pump-1/vibration",
        b'[{"v": NaN}, {"v": 1' + b"0" * 400 + b"}]",
        "type",
    ),
    "a number where a table is needed": ("pump-1/readings", b"12.5", "type"),
    "a table where a number is needed": ("pump-1/vibration", b'{"v": {"temperature": 1}}', "type"),
    "an empty array": ("pump-1/vibration", b"[]", "empty"),
    "columns without rows": ("pump-1/vibration", b'{"t": [], "v": []}', "empty"),
    "an empty table": ("pump-1/readings", b'{"v": {}}', "channel"),
    "a table of strangers": ("pump-1/readings", b'{"v": {"rpm": 1, "flow": 2}}', "channel"),
    "a channel that there is not": ("pump-1/flow", b"1.0", "channel"),
    "columns of unlike length": (
        "pump-1/readings",
        b'{"t0": 1, "dt": 1, "v": {"vibration": [1, 2], "temperature": [1]}}',
        "type",
    ),
    "a topic of another house": ("/factory/pump-1", b"1.0", "topic"),
    "a topic that is the agent's to write": ("pump-1/status", b"{}", "topic"),
    "a reading from the future": (
        "pump-1/readings",
        reading(NOW_S + 301, vibration=5.0, temperature=40.0),
        "future",
    ),
    "one time from the future among others": (
        "pump-1/vibration",
        f'{{"t": {TIMES}, "v": [1, 2, 3]}}'.encode(),
        "future",
    ),
    "a time no clock ever showed": ("pump-1/vibration", b'{"t": 1e300, "v": 1}', "time"),
    "a time that is no number": ("pump-1/vibration", b'{"t": NaN, "v": 1}', "time"),
    "a time before all times": ("pump-1/vibration", b'{"t": -9e18, "v": 1}', "time"),
    "a local time": ("pump-1/vibration", b'{"t": "2026-01-01T00:00:00", "v": 1}', "time"),
    "words for a time": ("pump-1/vibration", b'{"t": "yesterday", "v": 1}', "time"),
    "values without times": ("pump-1/vibration", b'{"v": [1, 2]}', "time"),
    "values that stand still": ("pump-1/vibration", b'{"t0": 1, "dt": 0, "v": [1, 2]}', "time"),
    "fewer times than values": ("pump-1/vibration", b'{"t": [1], "v": [1, 2]}', "time"),
    "an event that nobody knows": ("pump-1/event", b'{"event": "exploded"}', "event"),
    "an event that is no text": ("pump-1/event", b'{"event": "\xff"}', "event"),
    "an event with a local time": (
        "pump-1/event",
        b'{"event": "failed", "t": "2026-01-01T00:00:00"}',
        "time",
    ),
    "an event from the future": (
        "pump-1/event",
        json.dumps({"event": "failed", "t": NOW_S + 301}).encode(),
        "future",
    ),
}


@pytest.mark.parametrize("what", UNUSABLE)
def test_what_cannot_be_used_is_quarantined_and_the_good_beside_it_is_processed(
    what: str, configure: Configure, device: Open
) -> None:
    config = configure()
    topic, payload, reason = UNUSABLE[what]
    node = device(config)
    batch, rejected = set_by_a_server(config).assemble(
        arrivals(GOOD_BEFORE, (topic, payload), GOOD_AFTER)
    )
    node.engine.process(batch, rejected)
    assert [message.reason for message in rejected] == [reason]
    assert node.engine.rejected == {reason: 1}
    status = node.engine.status(online=True)
    assert (status.readings, status.rejected, status.events) == (3, 1, 0)
    node.kill()
    assert read(config).quarantined == {reason: 1}


def test_every_bad_message_alone_makes_a_batch_that_the_journal_can_hold(
    configure: Configure, device: Open
) -> None:
    config = configure()
    node = device(config)
    assembler = set_by_a_server(config)
    for topic, payload, _ in UNUSABLE.values():
        node.engine.process(*assembler.assemble(arrivals((topic, payload))))
    node.kill()
    again = device(config)
    assert again.engine.pipeline.counts.rejected == len(UNUSABLE)
    assert again.engine.pipeline.assets == {}


def test_the_quarantine_keeps_the_newest_messages_up_to_its_bound(
    configure: Configure, device: Open
) -> None:
    config = configure(limits=Limits(quarantine=3))
    node = device(config)
    bad = arrivals(*[("pump-1/readings", b"{" * n) for n in range(1, 6)])
    node.engine.process(*Assembler(config).assemble(bad))
    node.kill()
    assert read(config).quarantined == {"json": 3}
    assert node.engine.pipeline.counts.rejected == 5


def test_an_asset_that_matches_no_pattern_is_rejected_by_name(configure: Configure) -> None:
    config = configure(assets={"pump-*": "pump"})
    batch, (rejected,) = Assembler(config).assemble(
        arrivals(GOOD_BEFORE, ("fan-1/vibration", b"1.0"))
    )
    assert rejected.reason == "asset"
    assert "'fan-1'" in rejected.text
    assert [rows.asset for rows in batch.rows] == ["pump-1"]


def test_assets_over_the_limit_are_rejected_and_those_known_go_on(configure: Configure) -> None:
    config = configure(limits=Limits(assets=2))
    assembler = Assembler(config)
    batch, rejected = assembler.assemble(
        arrivals(*[(f"pump-{n}/vibration", b"1.0") for n in (1, 2, 3, 1)])
    )
    assert [rows.asset for rows in batch.rows] == ["pump-1", "pump-2"]
    assert [message.reason for message in rejected] == ["asset"]


def test_an_unknown_channel_in_a_row_is_counted_and_the_row_is_used(configure: Configure) -> None:
    assembler = Assembler(configure())
    batch, rejected = assembler.assemble(
        arrivals(("pump-1/readings", reading(T, vibration=5.0, rpm=1480.0)))
    )
    assert rejected == []
    assert assembler.unknown_channels == {"rpm": 1}
    assert batch.rows[0].values[0, 0] == 5.0
    assert np.isnan(batch.rows[0].values[0, 1])


def test_a_key_of_other_senders_is_refused_with_the_one_that_is_read(configure: Configure) -> None:
    for key, right in [("time", "t"), ("timestamp", "t"), ("ts", "t"), ("unit", "u")]:
        for value in (b"1767225600", b"NaN"):
            payload = b'{"%s": %s, "v": 1}' % (key.encode(), value)
            _, (rejected,) = Assembler(configure()).assemble(arrivals(("pump-1/flow", payload)))
            assert rejected.reason == "channel"  # of the topic: it is looked at first
            _, (rejected,) = Assembler(configure()).assemble(
                arrivals(("pump-1/vibration", payload))
            )
            assert rejected.text == f"{key!r} is not read: write it as {right!r}"
    more = arrivals(("pump-1/vibration", b'{"v": 1, "sequence": 7, "time": null}'))
    assert Assembler(configure()).assemble(more)[1] == []


@pytest.mark.parametrize(
    "waveforms", [(), (Waveform("axial", "m/s2", rate_hz=1000.0, samples=64),)]
)
def test_a_message_without_a_channel_is_refused_whatever_the_class_has(
    waveforms: tuple[Waveform, ...], configure: Configure
) -> None:
    spec = AssetClass("pump", (Channel("vibration", "mm/s"),), waveforms=waveforms)
    for payload in (b'{"v": {}}', b'{"t0": 1, "dt": 1, "v": {}}', b'[{"v": {}}]'):
        batch, (rejected,) = Assembler(configure(spec=spec)).assemble(
            arrivals(("pump-1/readings", payload), ("pump-1/vibration", b"1"))
        )
        assert (rejected.reason, rejected.text) == ("channel", "it names no channel")
        assert len(batch.rows[0].t_ns) == 1


def test_truths_are_one_and_nought(configure: Configure) -> None:
    messages = [
        ("pump-1/vibration", b"true"),
        ("pump-1/vibration", b'{"v": false}'),
        ("pump-1/readings", b'{"v": {"vibration": true, "temperature": false}}'),
        ("pump-1/readings", b'{"t": [1, 2], "v": {"vibration": [true, 2], "temperature": [0, 1]}}'),
    ]
    batch, rejected = Assembler(configure()).assemble(arrivals(*messages))
    assert rejected == []
    assert batch.rows[0].values[:, 0].tolist() == [1.0, 0.0, 1.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b'[{"t": 1, "v": {"n": 1480}}, {"t": 2, "v": {"n": 1490, "bn": 1}}]', [1480.0, 1490.0]),
        (b' [{"bn": "pump-1/", "n": "n", "t": 1e9, "v": 7}]', [7.0]),
        (b'[{"bt": 1e9, "bu": "1/min"}, {"n": "pump-1/n", "v": 8}]', [8.0]),
    ],
)
def test_an_array_is_a_pack_of_senml_by_its_own_keys_and_not_by_its_channels(
    payload: bytes, expected: list[float], configure: Configure
) -> None:
    spec = AssetClass("pump", (Channel("n", "rpm"), Channel("bn", "1")))
    batch, rejected = Assembler(configure(spec=spec)).assemble(
        arrivals(("pump-1/readings", payload))
    )
    assert rejected == []
    assert batch.rows[0].values[:, 0].tolist() == pytest.approx(expected)


def test_a_fault_in_a_decoder_costs_one_message_and_is_told_with_its_trace(
    configure: Configure, device: Open, caplog: pytest.LogCaptureFixture
) -> None:
    class Faulty(Assembler):
        def _ready(self, *args: Any) -> Any:
            ready: Any = super()._ready(*args)
            return ready[3]  # as a slip of ours would be

    node = device(configure())
    later = ("pump-1/readings", b'{"t": [%d, %d], "v": {"vibration": [1, 2]}}' % (T + 9, T + 10))
    batch, (rejected,) = Faulty(node.config).assemble(arrivals(GOOD_BEFORE, later, GOOD_AFTER))
    node.engine.process(batch, [rejected])
    assert (rejected.reason, rejected.arrival.payload) == ("fault", later[1])
    assert "IndexError" in rejected.text
    assert "in _ready" in caplog.text
    assert node.engine.pipeline.counts.vectors == 2


@pytest.mark.parametrize(
    "topic", ["source/x", "source/a/b/c/d", "source/http/json/pump-1/readings"]
)
def test_a_topic_that_looks_like_a_sources_is_none(topic: str, configure: Configure) -> None:
    config = configure(source=(Http(),), mqtt=Mqtt(subscribe=(Subscription("source/#"),)))
    arrival = Arrival(topic, GOOD_BEFORE[1], 7, NOW_S * 10**9)
    batch, (rejected,) = Assembler(config).assemble([arrival])
    assert (batch.rows, rejected.reason) == ([], "asset")
    posted = arrival._replace(topic="source/http/json/pump-1/readings", source="http")
    assert Assembler(config).assemble([posted])[1] == []


KEPT = {
    "a reading": ("pump-1/vibration", b"5.5"),
    "a row": ("pump-1/readings", reading(None, vibration=5.0, temperature=40.0)),
    "a pack": ("pump-1/vibration", b'[{"n": "pump-1/vibration", "v": 5.5, "t": -60}]'),
    "columns": ("pump-1/vibration", b'{"dt": 1, "v": [5.5, 5.6]}'),
    "an event": ("pump-1/event", b'{"event": "failed"}'),
    "a command": ("pump-1/command", b'{"command": "acknowledge"}'),
}


@pytest.mark.parametrize("what", KEPT)
def test_what_the_broker_kept_and_bears_no_time_is_refused(what: str, configure: Configure) -> None:
    (arrival,) = arrivals(KEPT[what])
    assembler = Assembler(configure())
    assert assembler.assemble([arrival])[1] == []
    batch, (rejected,) = assembler.assemble([arrival._replace(retained=True)])
    assert (batch.rows, batch.events, rejected.reason) == ([], [], "retained")
    assert "without the retain flag, or with its time" in rejected.text


def test_what_the_broker_kept_is_used_if_it_bears_its_time(configure: Configure) -> None:
    kept = [
        GOOD_BEFORE,
        ("pump-1/vibration", b'{"t0": %d, "dt": 1, "v": [5.5, 5.6]}' % T),
        ("pump-1/event", b'{"event": "started", "t": %d}' % T),
        ("pump-1/health", b"our own"),
    ]
    retained = [arrival._replace(retained=True) for arrival in arrivals(*kept)]
    batch, rejected = Assembler(configure()).assemble(retained)
    assert rejected == []
    assert (len(batch.rows[0].t_ns), len(batch.events)) == (3, 1)


@pytest.mark.parametrize(
    ("value", "mark"),
    [
        ("null", "vibration.missing"),
        ("NaN", "vibration.missing"),
        ("Infinity", "vibration.infinite"),
        ("-Infinity", "vibration.infinite"),
        ("-0.5", "vibration.low"),
        ("100.5", "vibration.high"),
    ],
)
def test_a_bad_value_is_marked_and_its_row_counts(
    value: str, mark: str, configure: Configure, device: Open
) -> None:
    config = configure()
    node = device(config)
    payload = f'{{"t": {T}, "v": {{"vibration": {value}, "temperature": 40.0}}}}'.encode()
    batch, rejected = Assembler(config).assemble(arrivals(("pump-1/readings", payload), GOOD_AFTER))
    node.engine.process(batch, rejected)
    counts = node.engine.pipeline.counts
    assert rejected == []
    assert counts.marked == {mark: 1}
    assert (counts.readings, counts.vectors) == (2, 2)


SAME_ROWS = {
    "rows": [("readings", reading(T + n, vibration=n, temperature=n + 40)) for n in range(3)],
    "an array of rows": [
        (
            "readings",
            json.dumps(
                [{"t": T + n, "v": {"vibration": n, "temperature": n + 40}} for n in range(3)]
            ).encode(),
        )
    ],
    "columns with a step": [
        (
            "readings",
            json.dumps(
                {"t0": T, "dt": 1, "v": {"vibration": [0, 1, 2], "temperature": [40, 41, 42]}}
            ).encode(),
        )
    ],
    "columns with times": [
        (
            "readings",
            json.dumps(
                {
                    "t": [T, T + 1, T + 2],
                    "v": {"vibration": [0, 1, 2], "temperature": [40, 41, 42]},
                }
            ).encode(),
        )
    ],
    "milliseconds": [
        ("readings", reading((T + n) * 1000, vibration=n, temperature=n + 40)) for n in range(3)
    ],
    "ISO 8601": [
        ("readings", reading(f"2027-01-15T08:00:0{n}+01:00", vibration=n, temperature=n + 40))
        for n in range(3)
    ],
}


@pytest.mark.parametrize("form", SAME_ROWS)
def test_one_and_the_same_rows_can_be_said_in_every_form(form: str, configure: Configure) -> None:
    batch, rejected = Assembler(configure()).assemble(
        arrivals(*[(f"pump-1/{leaf}", payload) for leaf, payload in SAME_ROWS[form]])
    )
    assert rejected == []
    (rows,) = batch.rows
    assert rows.t_ns.tolist() == [(T + n) * 10**9 for n in range(3)]
    assert rows.values.tolist() == [[n, n + 40] for n in range(3)]


def test_a_reading_without_a_time_was_taken_when_it_arrived(configure: Configure) -> None:
    batch, _ = Assembler(configure()).assemble(arrivals(("pump-1/vibration", b"5.0")))
    assert batch.rows[0].t_ns.tolist() == [NOW_S * 10**9]


def test_a_very_long_list_is_read_whole(configure: Configure, device: Open) -> None:
    config = configure(spec=AssetClass("pump", (Channel("vibration", "mm/s"),), hop=1000))
    node = device(config)
    payload = json.dumps({"t0": T, "dt": 0.01, "v": [5.0] * 200_000}).encode()
    node.engine.process(*Assembler(config).assemble(arrivals(("pump-1/vibration", payload))))
    assert node.engine.pipeline.counts.readings == 200_000
    assert node.engine.pipeline.counts.vectors == 200


def test_late_rows_and_rows_that_come_again_are_told_apart(
    configure: Configure, device: Open
) -> None:
    config = configure()
    node = device(config)
    times = [T, T + 60, T, T + 30, T + 60, T + 120]
    messages = [("pump-1/readings", reading(t, vibration=5.0, temperature=40.0)) for t in times]
    node.engine.process(*Assembler(config).assemble(arrivals(*messages)))
    counts = node.engine.pipeline.counts
    assert (counts.readings, counts.repeated, counts.late, counts.vectors) == (4, 2, 1, 3)
    assert counts.marked_of == {
        "pump-1": {
            "vibration.late": 1,
            "temperature.late": 1,
            "vibration.duplicate": 2,
            "temperature.duplicate": 2,
        }
    }
    assert counts.bad == 0
    assert node.engine.status(online=True).marked_of == counts.marked_of
    node.close()
    seen = read(config)
    assert seen.marked_of == counts.marked_of
    assert "  of pump-1: 2 vibration.duplicate, 2 temperature.duplicate" in as_text(seen)


def test_a_late_reading_is_told_in_the_next_report_and_comes_again_unnoticed(
    configure: Configure, device: Open
) -> None:
    def tell(*times: int) -> list[tuple[str, ...]]:
        messages = [("pump-1/readings", reading(t, vibration=5.0, temperature=40.0)) for t in times]
        outcomes = node.engine.process(*Assembler(config).assemble(arrivals(*messages)))
        return [one.marks for one in outcomes]

    config = configure()
    node = device(config)
    late = ("vibration.late", "temperature.late")
    assert tell(T, T + 60, T + 30, T + 120) == [(), (), late]
    node.close()
    node = device(config)
    # As the broker sends again what was not acknowledged: no report differs for it.
    assert tell(T, T + 60, T + 30, T + 120, T + 180) == [()]
    counts = node.engine.pipeline.counts
    assert (counts.late, counts.repeated) == (1, 4)


def test_a_channel_that_comes_when_its_row_is_made_is_late_once_and_then_a_duplicate(
    configure: Configure, device: Open
) -> None:
    config = configure()
    node = device(config)
    cold = ("pump-1/temperature", b'{"t": %d, "v": 40.0}' % T)
    messages = [("pump-1/vibration", b'{"t": %d, "v": 5.0}' % t) for t in (T, T + 60)]
    again = [cold, ("pump-1/vibration", b'{"t": %d, "v": 5.0}' % T), cold]
    node.engine.process(*Assembler(config).assemble(arrivals(*messages, *again)))
    counts = node.engine.pipeline.counts
    assert counts.marked_of["pump-1"] == {
        "temperature.missing": 1,
        "temperature.late": 1,
        "temperature.duplicate": 1,
        "vibration.duplicate": 1,
    }
    assert (counts.late, counts.repeated) == (1, 2)


def test_a_life_event_that_comes_again_ends_no_second_life(
    configure: Configure, device: Open
) -> None:
    config = configure()
    node = device(config)
    node.wear_out("pump-1", 1)
    node.wear_out("pump-1", 1)  # all of it again, as after a lost acknowledgement
    node.live("pump-1", np.full((5, 2), 20.0), begin=60)
    node.engine.process(Batch([], []))
    counts = node.engine.pipeline.counts
    assert (counts.events, counts.lives, counts.repeated) == (1, 1, 61)
    assert node.engine.pipeline.assets["pump-1"].life == 1


def test_bad_messages_over_a_broker_are_counted_in_the_status_and_the_agent_goes_on(
    broker: Any, connect: Callable[..., Any], agent: Callable[..., Any]
) -> None:
    plant = connect(broker)
    process = agent("node").start()
    plant.wait_for("node", lambda status: status.online)
    # The agent's clock is the wall's, which may be beyond the future of these messages.
    bad = [(t, p) for t, p, reason in UNUSABLE.values() if t[0] != "/" and reason != "future"]
    for topic, payload in bad:
        asset, _, leaf = topic.partition("/")
        plant.send("node", asset, leaf, payload)
    plant.send("node", "pump-1", "readings", reading(1, vibration=5.0, temperature=40.0))
    plant.wait_for("node", lambda status: status.readings > len(bad))
    assert plant.statuses["node"].rejected == len(bad)
    assert process.end(signal.SIGTERM) == 0
    assert "Traceback" not in process.said


# -- state that was damaged ------------------------------------------------------------------------


def lived(node: Any) -> None:
    """Make a past: two checkpoints, and a journal behind them with more than one life in it."""
    node.wear_out("pump-1", 1)
    node.wear_out("pump-2", 2)
    node.engine.checkpoint()
    node.wear_out("pump-1", 3, begin=60)  # held out
    node.wear_out("pump-2", 4, begin=60)
    node.engine.checkpoint()
    node.wear_out("pump-1", 5, begin=120)
    node.wear_out("pump-2", 6, begin=120)
    node.wear_out("pump-3", 7)
    node.live("pump-1", np.random.default_rng(8).normal(5.0, 1.0, (30, 2)), begin=180)


def test_a_truncated_checkpoint_costs_a_longer_replay_and_not_the_state(
    configure: Configure, device: Open, caplog: pytest.LogCaptureFixture
) -> None:
    config = configure()
    node = device(config)
    lived(node)
    expected = node.state()
    node.kill()
    newest = config.state / "checkpoint.npz"
    newest.write_bytes(newest.read_bytes()[:-1000])
    again = device(config)
    assert "a checkpoint cannot be used" in caplog.text
    assert again.state() == expected
    # Set aside: the next checkpoint must not push it over the good one before it.
    assert not newest.exists()
    assert (config.state / "damaged-checkpoint.npz").exists()
    assert (config.state / "checkpoint.prev.npz").exists()


def test_an_altered_byte_in_a_checkpoint_is_found(configure: Configure, device: Open) -> None:
    config = configure()
    node = device(config)
    lived(node)
    expected = node.state()
    node.kill()
    newest = config.state / "checkpoint.npz"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    assert device(config).state() == expected


@pytest.mark.parametrize("damage", ["garbage", "truncated"])
def test_a_damaged_store_is_set_aside_and_the_models_of_the_checkpoint_go_on(
    damage: str, configure: Configure, device: Open, caplog: pytest.LogCaptureFixture
) -> None:
    config = configure()
    node = device(config)
    lived(node)
    node.close()
    x = np.linspace(1.0, 50.0, 6)[None, :]
    models = node.engine.pipeline.groups["pump"].rul.models
    expected, score = models["ridge"].predict(x), node.engine.pipeline.groups["pump"].judge()
    path = config.state / "store.db"
    content = path.read_bytes()
    path.write_bytes(b"\0garbage" * 5000 if damage == "garbage" else content[: len(content) // 2])

    for _ in range(2):  # and again: by then the checkpoint is one of the time without lives
        again = device(config)
        group = again.engine.pipeline.groups["pump"]
        assert np.array_equal(group.rul.models["ridge"].predict(x), expected)
        judge = group.judge()
        assert judge is not None
        assert score is not None
        assert np.array_equal(judge.model.axes, score.model.axes)
        assert again.engine.pipeline.assets["pump-1"].life == 3
        again.close()
    assert (config.state / "store.damaged-1.db").exists()
    assert not (config.state / "store.damaged-2.db").exists()
    assert "set aside" in caplog.text

    again = device(config)
    again.wear_out("pump-1", 9, begin=300)
    assert again.engine.pipeline.groups["pump"].rul.models
    again.close()
    assert read(config).lives == {"pump": 1}


def rewrite(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Write a checkpoint again with another head, its digest in order."""
    head, arrays = read_checkpoint(path)
    words = json.dumps(change(dict(head))).encode()
    path.write_bytes(npz.to_bytes(npz.digest_of(words, arrays).encode() + words, arrays))


def test_a_checkpoint_of_another_contract_is_not_used_and_lives_keep_their_numbers(
    configure: Configure, device: Open, caplog: pytest.LogCaptureFixture
) -> None:
    config = configure(keep=Keep(power_loss_safe=False, journal_mb=1e-6))
    node = device(config)
    lived(node)
    node.close()
    for name in ("checkpoint.npz", "checkpoint.prev.npz"):
        rewrite(config.state / name, lambda head: head | {"contract": VERSION + 1})
    again = device(config)
    said = [str(vars(record).get("error")) for record in caplog.records]
    assert sum(f"of contract {VERSION + 1}, this is {VERSION}" in words for words in said) == 2
    assert "windows begin anew" in caplog.text
    assert not again.engine.pipeline.groups["pump"].rul.models
    again.wear_out("pump-1", 9, begin=300)
    lives = again.engine.store.training(config.asset_class[0])
    lives += again.engine.store.heldout(config.asset_class[0])
    # A life that was given an old one's number would have been lost in it.
    assert len({(life.asset, life.life) for life in lives}) == len(lives) == 8
    assert all(len(life.y) == 60 for life in lives)
    assert again.engine.pipeline.groups["pump"].rul.models


def test_other_channels_in_the_configuration_begin_anew_and_say_so(
    configure: Configure, device: Open, caplog: pytest.LogCaptureFixture
) -> None:
    config = configure()
    node = device(config)
    lived(node)
    node.close()
    spec = config.asset_class[0]
    other = msgspec.structs.replace(spec, channels=(*spec.channels, Channel("speed", "rpm")))
    changed = msgspec.structs.replace(config, asset_class=(other,))
    again = device(changed)
    assert "configured with other channels or features" in caplog.text
    assert "a checkpoint was not used" in caplog.text
    assert again.engine.store.training(other) == []
    assert again.engine.pipeline.assets == {}
    again.live("pump-1", np.ones((5, 3)))
    again.close()
    assert len(device(changed).engine.pipeline.assets) == 1


def test_models_configured_otherwise_begin_anew_and_the_lives_remain(
    configure: Configure, device: Open
) -> None:
    config = configure()
    node = device(config)
    lived(node)
    node.close()
    other = msgspec.structs.replace(config.asset_class[0], cap_h=40.0)
    again = device(msgspec.structs.replace(config, asset_class=(other,)))
    again.wear_out("pump-1", 9, begin=300)
    assert len(again.engine.store.training(other)) + len(again.engine.store.heldout(other)) == 8


# -- releases that must not judge ------------------------------------------------------------------


def release_of(spec: AssetClass, *, version: int = 1, contract: int = VERSION) -> Release:
    rng = np.random.default_rng(1)
    size = len(spec.channels) * len(spec.health_stats)
    model = HealthModel.solve(
        Moments.of(rng.normal(size=(200, size))), variance=0.9, alarm_rate=0.01
    )
    arrays: Arrays = model.arrays("health/model/")
    return Release(Manifest(contract, spec, version, 0, 0, ("a",), "ridge", {}), arrays)


def verdicts(state: Path) -> list[tuple[int, str, str]]:
    db = sqlite3.connect(state / "store.db")
    try:
        return db.execute("SELECT version, verdict, reason FROM rollout ORDER BY id").fetchall()
    finally:
        db.close()


def spoilt(kind: str, spec: AssetClass) -> bytes:
    """Return a release that a device with this spec must refuse."""
    if kind == "contract":
        return release_of(spec, version=2, contract=VERSION + 1).to_bytes()
    if kind == "class":
        return release_of(msgspec.structs.replace(spec, name="fan"), version=2).to_bytes()
    if kind == "configuration":
        return release_of(msgspec.structs.replace(spec, cap_h=7.0), version=2).to_bytes()
    content = release_of(spec, version=2).to_bytes()
    if kind == "truncated":
        return content[: len(content) // 2]
    if kind == "empty":
        return b""
    head, arrays = npz.from_bytes(content, "release")
    if kind == "altered":
        arrays["health/model/variances"] = np.asarray(arrays["health/model/variances"]) * 2.0
    elif kind == "not finite":
        arrays["health/model/variances"] = np.full_like(arrays["health/model/variances"], np.nan)
    elif kind == "words":
        arrays["health/model/variances"] = np.array(["large"])
    elif kind == "manifest":
        head = b"[1, 2"
    elif kind == "pickle":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as file:
            for name, array in {"head.json": np.frombuffer(head, np.uint8)}.items():
                with file.open(f"{name}.npy", "w") as member:
                    np.lib.format.write_array(member, array)
            with file.open("health/model/axes.npy", "w") as member:
                np.lib.format.write_array(member, np.array([{}]), allow_pickle=True)
        return buffer.getvalue()
    return npz.to_bytes(head, arrays)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("contract", "written for contract"),
        ("class", "has no asset class 'fan'"),
        ("configuration", "trained for other channels, features or models"),
        ("truncated", "not a whole Runout file"),
        ("empty", "not a whole Runout file"),
        ("altered", "does not match its digest"),
        ("not finite", "not finite"),
        ("words", "do not fit its manifest"),
        ("manifest", "manifest cannot be read"),
        ("pickle", "not a whole Runout file"),
    ],
)
def test_a_spoilt_release_is_rejected_with_a_reason_and_the_live_one_goes_on(
    kind: str, words: str, configure: Configure, device: Open, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    config = configure()
    spec = config.asset_class[0]
    node = device(config)
    inbox, _, refused = folders(config.state)
    release_of(spec).save(inbox / "pump-v0001.npz")
    assert [verdict.promoted for verdict in node.engine.consider_releases(1)] == [True]
    (inbox / "pump-v0002.npz").write_bytes(spoilt(kind, spec))
    (verdict,) = node.engine.consider_releases(2)
    assert not verdict.promoted
    assert words in verdict.reason
    assert list(inbox.iterdir()) == []
    assert (refused / "pump-v0002.npz").exists()
    assert node.engine.status(online=True).live == {"pump": 1}
    node.kill()
    (_, first, _), (_, second, reason) = verdicts(config.state)
    assert (first, second) == ("promoted", "rejected")
    assert words in reason


def test_a_release_is_judged_by_what_it_is_and_not_by_the_name_of_its_file(
    configure: Configure, device: Open
) -> None:
    pump = configure().asset_class[0]
    fan = AssetClass("fan", (Channel("speed", "rpm"),))
    config = configure(assets={"pump*": "pump", "*": "fan"}, asset_class=(pump, fan))
    node = device(config)
    lived(node)
    inbox, _, _ = folders(config.state)
    release_of(fan).save(inbox / "pump-v0001.npz")
    (verdict,) = node.engine.consider_releases(1)
    assert (verdict.asset_class, verdict.promoted) == ("fan", True)


def test_a_rejected_message_is_kept_as_it_came(configure: Configure) -> None:
    message = arrivals(("pump-1/readings", b"{"))
    _, rejected = Assembler(configure()).assemble(message)
    assert rejected == [Rejected(message[0], "json", "not JSON: Input data was truncated")]
