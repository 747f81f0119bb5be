"""Every payload format, read back by the agent's own decoders: the same rows, in the same order."""

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest

from agent.block import Block, Burst
from agent.decode import cobs, csv, json, senml
from agent.sparkplug.host import Host
from contract.report import LifeEvent
from simulator.config import Waveform, load
from simulator.formats import MQTT_FORMATS, SERIAL_FORMATS, Sparkplug, packed
from simulator.machines import MACHINES
from simulator.message import Message, life_event, reading
from simulator.plant import PHASES, Plant

SCENARIO = Path(__file__).parents[2] / "configs" / "scenarios" / "one_bearing.toml"
CHANNELS = MACHINES["pump"].channels
UNITS = dict(zip(CHANNELS, MACHINES["pump"].units, strict=True))
MS = 10**6


def plant() -> list[Message]:
    return list(Plant(load(SCENARIO)).messages(PHASES["history"]))


MESSAGES = plant()
Rows = dict[tuple[str, float], dict[str, float]]


def rows_of(blocks: Iterable[Block], asset: str = "") -> Rows:
    found: Rows = {}
    for block in blocks:
        for at, t_ns in enumerate(block.t_ns.tolist()):
            row = found.setdefault((block.asset or asset, t_ns / 1e9), {})
            row |= dict(zip(block.channels, block.values[at].tolist(), strict=True))
    return found


TRUE: Rows = {(m.asset, m.t): m.values for m in MESSAGES if m.values is not None}


def decode(form: str, message: Message) -> list[Block]:
    payload = message.payload
    if form.startswith("json"):
        found = json.decode(payload, 0)
        assert isinstance(found, list)
        return found
    if form == "senml-json":
        return senml.decode_json(payload, 0)
    if form == "senml-cbor":
        return senml.decode_cbor(payload, 0)
    blocks, refused = csv.decode(payload, 0, ("t", *CHANNELS), "t")
    assert not refused
    return blocks


@pytest.mark.parametrize("batch", [1, 7, 10_000])
@pytest.mark.parametrize("form", ["json-array", "json-columns", "senml-json", "senml-cbor", "csv"])
def test_agents_read_the_same_rows_whatever_the_format(form: str, batch: int) -> None:
    pack = MQTT_FORMATS[form]
    assert pack is not None
    sent = list(packed(MESSAGES, pack, batch))
    found: Rows = {}
    for message in sent:
        if not message.events:
            found |= rows_of(decode(form, message), message.asset)
    assert found == TRUE
    assert sum(m.rows for m in sent) == len(TRUE)
    assert [m for m in sent if m.events] == [m for m in MESSAGES if m.events]
    if batch == 1:
        assert len(sent) == len(MESSAGES)
    else:
        # Each life's rows are all there before its end is told.
        assert len(sent) < len(MESSAGES) / 4
    for sooner, later in pairwise([m for m in sent if m.asset == "pump-1"]):
        assert sooner.t <= later.t


@pytest.mark.parametrize("form", ["senml-json", "senml-cbor"])
def test_senml_says_units_and_assets(form: str) -> None:
    pack = MQTT_FORMATS[form]
    assert pack is not None
    message = next(packed(MESSAGES, pack, 3))
    blocks = decode(form, message)
    assert {block.asset for block in blocks} == {message.asset}
    said = {
        name: unit
        for block in blocks
        for name, unit in zip(block.channels, block.units, strict=True)
    }
    assert said == UNITS


def test_rows_that_are_not_evenly_apart_say_each_its_time() -> None:
    uneven = [reading(t, "n", "pump-1", {"flow": t}) for t in (1e9, 1e9 + 60, 1e9 + 180)]
    (message,) = packed(uneven, MQTT_FORMATS["json-columns"], 9)  # type: ignore[arg-type]
    assert msgspec.json.decode(message.payload)["t"] == [1e9, 1e9 + 60, 1e9 + 180]
    found = json.decode(message.payload, 0)
    assert isinstance(found, list)
    assert rows_of(found, "pump-1") == {("pump-1", m.t): m.values for m in uneven}


def test_a_wrong_clock_is_in_every_format() -> None:
    late = reading(1e9, "n", "pump-1", {"flow": 1.5}, said_t=1e9 - 60, units={"flow": "m3/h"})
    for form in ("json-array", "json-columns", "senml-json", "senml-cbor"):
        (message,) = packed([late], MQTT_FORMATS[form], 1)  # type: ignore[arg-type]
        assert message.t == 1e9
        assert set(rows_of(decode(form, message), "pump-1")) == {("pump-1", 1e9 - 60)}
    *_, data = Sparkplug("demo", ["n"]).encode([late, late])
    host = Host("h")
    for message in Sparkplug("demo", ["n"]).encode([late]):
        heard = host.receive(str(message.topic), message.payload, 0)
    assert data.topic == "spBv1.0/demo/NDEATH/n"
    assert heard.gone


# ---- serial --------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", SERIAL_FORMATS)
def test_agents_read_the_same_rows_from_a_serial_line(form: str) -> None:
    of_one = [m for m in MESSAGES if m.asset == "pump-1" and m.values is not None]
    line = b"".join(m.payload for m in packed(of_one, SERIAL_FORMATS[form], 5))
    if form == "csv":
        blocks, refused = csv.decode(line, 0, ("t", *CHANNELS), "t", checksum=True)
    elif form == "cobs":
        blocks, refused = cobs.decode_records(line, 0, CHANNELS)
    else:
        blocks, refused = json.decode_lines(line, 0)
    assert not refused
    found = rows_of(blocks, "pump-1")
    assert found.keys() == {("pump-1", m.t) for m in of_one}
    for key, row in found.items():
        assert row == pytest.approx(TRUE[key], rel=1e-6 if form == "cobs" else 0)


def test_a_flipped_bit_is_noticed() -> None:
    (message,) = packed(MESSAGES[:1], SERIAL_FORMATS["csv"], 1)
    broken = message.payload.replace(b",", b";", 1)
    assert csv.decode(broken, 0, ("t", *CHANNELS), "t", checksum=True)[1]
    (frame,) = packed(MESSAGES[:1], SERIAL_FORMATS["cobs"], 1)
    bits = bytearray(frame.payload)
    bits[20] ^= 1
    assert cobs.decode_records(bytes(bits), 0, CHANNELS)[1]


def test_long_runs_without_a_zero_are_stuffed() -> None:
    values = {f"c{at}": 1.1 for at in range(200)}
    (frame,) = packed([reading(1.1e9, "n", "a", values)], SERIAL_FORMATS["cobs"], 1)
    assert frame.payload.count(0) == 1
    blocks, refused = cobs.decode_records(frame.payload, 0, tuple(values))
    assert not refused
    assert np.allclose(blocks[0].values, 1.1)


# ---- Sparkplug -----------------------------------------------------------------------------------


def heard(messages: Iterable[Message]) -> tuple[list[Block | Burst], Host]:
    host, found = Host("host", ("demo",)), []
    for message in messages:
        if message.topic is None:
            continue
        told = host.receive(message.topic, message.payload, 10**18)
        assert not told.say, "a birth was asked for"
        assert not told.refused
        assert not told.left_out
        found += told.readings
    return found, host


def test_a_host_reads_the_same_rows_with_their_units() -> None:
    sent = list(Sparkplug("demo", ["node-01"]).encode(MESSAGES))
    blocks, _ = heard(sent)
    assert all(isinstance(block, Block) for block in blocks)
    only = [block for block in blocks if isinstance(block, Block)]
    assert rows_of(only) == TRUE
    assert {dict(zip(b.channels, b.units, strict=True))["flow"] for b in only} == {"m3/h"}
    assert sum(m.rows for m in sent) == len(TRUE)
    verbs = [str(m.topic).split("/")[2] for m in sent if m.topic is not None]
    assert verbs[:2] == ["NBIRTH", "DBIRTH"]
    assert verbs.count("DBIRTH") == 2
    assert verbs[-1] == "NDEATH"
    assert all(m.qos == 0 for m in sent if m.topic is not None)
    assert [m for m in sent if m.events] == [m for m in MESSAGES if m.events]


def test_a_host_that_comes_late_is_told_all_again_when_it_asks() -> None:
    edge = Sparkplug("demo", ["node-01"])
    assert edge.rebirth("node-01") == []
    stream = edge.encode(MESSAGES)
    for _ in range(300):  # more than one round of the sequence numbers
        next(stream)
    host = Host("host", ("demo",), reorder_s=0.0)
    for topic, payload in edge.rebirth("node-01"):
        told = host.receive(topic, payload, 10**18)
        assert not told.say
    after = next(m for m in stream if m.topic is not None)
    told = host.receive(str(after.topic), after.payload, 10**18)
    assert not told.say
    assert len(told.readings) == 1
    assert edge.command_topic("node-01") == "spBv1.0/demo/NCMD/node-01"


def test_bursts_and_events_have_their_own_topics_beside_sparkplug() -> None:
    scenario = msgspec.structs.replace(load(SCENARIO), waveform=Waveform(samples=256))
    few = list(Plant(scenario).messages(PHASES["present"]))[:50]
    failed = life_event("node-01", "pump-1", LifeEvent("failed", few[-1].t))
    sent = list(Sparkplug("demo", ["node-01"]).encode([*few, failed]))
    assert [m for m in sent if m.topic is None] == [m for m in [*few, failed] if m.values is None]
    assert any(m.leaf == "accel" for m in sent)
