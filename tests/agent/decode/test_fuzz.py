"""Whatever comes, a decoder returns readings or says why not; nothing else."""

import json
from collections.abc import Callable
from typing import Any

import cbor2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.assemble import Assembler
from agent.batch import Batch
from agent.block import Block, Burst
from agent.config import AgentConfig, Mqtt, Sparkplug, Subscription
from agent.decode import cobs, csv, senml, waveform
from agent.decode import json as json_format
from agent.intake import Arrival
from agent.sparkplug.edge import EdgeNode, Metric
from agent.sparkplug.host import Host
from agent.sparkplug.schema import DataType, Payload
from contract.errors import DecodeError
from contract.spec import AssetClass, Channel, Waveform

AT_NS = 1_767_225_600 * 10**9
COLUMNS = ("t", "flow", "speed")
PACK: list[dict[str, Any]] = [
    {"bn": "pump/", "bt": 1.7e9, "bu": "V", "bver": 5, "n": "a", "v": 1.5, "s": 3},
    {"n": "b", "u": "A", "t": -5, "v": 2, "ut": 9},
    {"n": "c", "vb": True, "t": 1},
    {"n": "d", "vs": "text"},
]
LABELS = {"bn": -2, "bt": -3, "bu": -4, "bver": -1, "n": 0, "u": 1, "v": 2, "vs": 3, "vb": 4,
          "s": 5, "t": 6, "ut": 7}  # fmt: skip
EDGE = EdgeNode("g", "n")
EDGE.declare("d", (Metric("x", unit="V"), Metric("y", DataType.Int64)), AT_NS)
WILL = EDGE.will(AT_NS)
NBIRTH, DBIRTH = EDGE.connected(AT_NS)
(DDATA,) = EDGE.publish("d", {"x": 1.5, "y": -3}, AT_NS)


def sparkplug_array() -> bytes:
    message = Payload(timestamp=1, seq=0)
    message.metrics.add(name="bdSeq", int_value=0)
    metric = message.metrics.add(
        name="w", datatype=DataType.FloatArray, bytes_value=np.ones(8, np.float32).tobytes()
    )
    metric.properties.keys.append("sampleRate")
    metric.properties.values.add(double_value=10.0)
    data: bytes = message.SerializeToString()
    return data


def read_csv(payload: bytes) -> list[Block]:
    blocks, refused = csv.decode(payload, AT_NS, COLUMNS, "t")
    assert all(isinstance(error, DecodeError) for _, error in refused)
    return blocks


def read_cobs(payload: bytes) -> list[Block]:
    blocks, refused = cobs.decode_records(payload, AT_NS, COLUMNS)
    assert all(isinstance(error, DecodeError) for _, error in refused)
    return blocks


def read_sparkplug(payload: bytes) -> list[Block | Burst]:
    """Let a host hear the payload in every place it could have, after a birth and before."""
    host = Host("h")
    found: list[Block | Burst] = []
    messages = [
        ("spBv1.0/g/NDATA/n", payload),
        (NBIRTH.topic, NBIRTH.payload),
        (DBIRTH.topic, DBIRTH.payload),
        ("spBv1.0/g/NDATA/n", payload),
        ("spBv1.0/g/DDATA/n/d", payload),
        ("spBv1.0/g/DBIRTH/n/d", payload),
        ("spBv1.0/g/NBIRTH/n", payload),
        (DDATA.topic, DDATA.payload),
        ("spBv1.0/g/DDEATH/n/d", payload),
        ("spBv1.0/g/NDEATH/n", payload),
        ("spBv1.0/STATE/h", payload),
    ]
    host.birth()
    for i, (topic, data) in enumerate(messages):
        try:
            found += host.receive(topic, data, AT_NS + i * 10**9).readings
        except DecodeError:
            continue
    found += host.tick(AT_NS + 10**12).readings
    host.lost(AT_NS)
    edge = EdgeNode("g", "n", primary_host="h")
    edge.will(AT_NS)
    for topic in ("spBv1.0/STATE/h", "spBv1.0/g/NCMD/n"):
        try:
            edge.receive(topic, payload, AT_NS)
        except DecodeError:
            continue
    return found


def read_json(payload: bytes) -> list[Block]:
    found = json_format.decode(payload, AT_NS)
    if isinstance(found, list):
        return found
    t_ns, value = found
    row = value if isinstance(value, dict) else {"": value}
    values = np.array([list(row.values())], dtype=np.float64)
    return [Block("", tuple(row), np.array([t_ns]), values)]


def read_lines(payload: bytes) -> list[Block]:
    blocks, refused = json_format.decode_lines(payload, AT_NS)
    assert all(isinstance(error, DecodeError) for _, error in refused)
    return blocks


MESSAGES = [
    b'{"t": 1767225600.5, "v": {"flow": 12.5, "speed": 1480}}',
    b'[{"t": "2026-01-01T00:00:00Z", "v": 1.5}, {"v": null, "u": "l/min", "asset": "pump-1"}]',
    b'{"t0": 1767225600, "dt": 0.5, "v": {"flow": [1, null, true], "speed": [1, 2, 3]}}',
    b'{"t": [1, 2], "v": [1.5, NaN], "u": "rpm"}',
    b'[{"t": 1, "v": {"n": 1480, "bn": 1}}]',
    b"-12.5e3",
]

FORMATS: dict[str, tuple[Callable[[bytes], list[Any]], list[bytes]]] = {
    "json": (read_json, MESSAGES),
    "lines": (read_lines, [b"\n".join(MESSAGES)]),
    "senml+json": (lambda p: senml.decode_json(p, AT_NS), [json.dumps(PACK).encode()]),
    "senml+cbor": (
        lambda p: senml.decode_cbor(p, AT_NS),
        [cbor2.dumps([{LABELS[k]: v for k, v in record.items()} for record in PACK])],
    ),
    "waveform": (
        lambda p: list(waveform.decode(p, AT_NS)),
        [
            waveform.encode(np.arange(9, dtype=np.int16), 10.0, unit="g", scale=0.5, checksum=c)
            for c in (True, False)
        ],
    ),
    "csv": (
        read_csv,
        [
            b"t,flow,speed\r\n1767225600.5,1.5,2\n2026-01-01T00:00:00Z,,3\n" * 2,
            csv.add_checksum(b"5;1.5;2") + b"\n" + csv.add_checksum(b"$6;1.5;2"),
        ],
    ),
    "cobs": (
        read_cobs,
        [
            cobs.encode_record([1.0, 0.0, 2.0], AT_NS) * 3,
            cobs.encode_record([1.0, 0.0, 2.0], historical=True) * 30,
        ],
    ),
    "sparkplug": (
        read_sparkplug,
        [NBIRTH.payload, DBIRTH.payload, DDATA.payload, WILL.payload, sparkplug_array()],
    ),
}


def check(read: Callable[[bytes], list[Any]], payload: bytes) -> None:
    try:
        found = read(payload)
    except DecodeError:
        return
    for one in found:
        if isinstance(one, Burst):
            assert 1 <= len(one.samples) <= waveform.MOST_SAMPLES
            assert one.samples.dtype == np.float32
            assert one.rate_hz > 0
        else:
            n, c = one.values.shape
            assert (n, c) == (len(one.t_ns), len(one.channels))
            assert one.t_ns.dtype == np.int64
            assert one.values.dtype == np.float64
            assert len(one.units) in {0, c}
            assert n * c <= 100_000


@pytest.mark.parametrize("name", FORMATS)
@given(payload=st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(name: str, payload: bytes) -> None:
    check(FORMATS[name][0], payload)


@pytest.mark.parametrize("name", FORMATS)
@given(data=st.data())
def test_an_altered_payload_is_read_or_refused(name: str, data: st.DataObject) -> None:
    read, payloads = FORMATS[name]
    check(read, altered(data, payloads))


def altered(data: st.DataObject, payloads: list[bytes]) -> bytes:
    payload = bytearray(data.draw(st.sampled_from(payloads)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(payload)))
        match data.draw(st.sampled_from(("set", "insert", "cut", "repeat"))):
            case "set" if at < len(payload):
                payload[at] = data.draw(st.integers(0, 255))
            case "insert":
                payload[at:at] = data.draw(st.binary(min_size=1, max_size=9))
            case "cut":
                del payload[at : at + data.draw(st.integers(1, 20))]
            case _:
                payload[at:at] = payload[max(0, at - 20) : at]
    return bytes(payload)


CONFIG = AgentConfig(
    asset_class=(
        AssetClass(
            "pump",
            (Channel("flow", "m3/h"), Channel("speed", "rpm")),
            waveforms=(Waveform("axial", "g", rate_hz=10.0, samples=64),),
        ),
    ),
    mqtt=Mqtt(
        subscribe=(
            Subscription("csv/{asset}", format="csv", columns=COLUMNS, time="t"),
            Subscription("cobs/{asset}", format="cobs", columns=("", "flow", "speed")),
            Subscription("lines/{asset}", format="lines", units={"flow": "l/min"}),
            Subscription("pack/{asset}", format="senml+json"),
            Subscription("one/{channel}", asset="pump-1", unit="l/min"),
        ),
        sparkplug=Sparkplug(),
    ),
)
TOPICS = [
    *(f"runout/v1/site/node/pump-1/{leaf}" for leaf in ("readings", "flow", "axial", "x")),
    *(f"runout/v1/site/node/pump-1/{leaf}" for leaf in ("event", "command", "verdict", "health")),
    *("csv/pump-1", "cobs/pump-1", "lines/pump-1", "pack/pump-1", "one/flow", "one/readings"),
    *("spBv1.0/g/NDATA/n", NBIRTH.topic, DBIRTH.topic, "spBv1.0/g/DDATA/n/d", "source/http/x"),
]


def assemble(payload: bytes) -> None:
    """Let an agent's assembler have the payload on every topic, as it comes and as it was kept."""
    assembler = Assembler(CONFIG)
    for retained in (False, True):
        batch, rejected = assembler.assemble(
            [Arrival(topic, payload, 0, AT_NS, retained=retained) for topic in TOPICS]
        )
        assert [one for one in rejected if one.reason == "fault"] == []
        assert len(Batch.decode(batch.encode()).rows) == len(batch.rows)
    assembler.tick(AT_NS + 10**12)


@given(payload=st.binary(max_size=300))
def test_any_bytes_on_any_topic_are_used_or_refused(payload: bytes) -> None:
    assemble(payload)


@pytest.mark.parametrize("name", FORMATS)
@given(data=st.data())
def test_an_altered_payload_on_any_topic_is_used_or_refused(name: str, data: st.DataObject) -> None:
    assemble(altered(data, FORMATS[name][1]))


_numbers = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
_values = _numbers | st.lists(_numbers, max_size=3)
_messages = st.fixed_dictionaries(
    {"v": _values | st.dictionaries(st.sampled_from(["flow", "speed", "axial", ""]), _values)},
    optional={
        "t": st.none() | st.integers(0, 2**62) | st.lists(_numbers, max_size=3),
        "dt": st.none() | st.floats(0, 2),
        "u": _values | st.just({"flow": "l/min"}),
        **dict.fromkeys(["t0", "asset", "time", "units", "n", "x"], _values),
    },
)


@given(message=_values | _messages | st.lists(_messages, max_size=3))
def test_json_of_any_types_is_used_or_refused(message: Any) -> None:
    assemble(json.dumps(message).encode("utf-8", "surrogatepass"))


@given(lines=st.lists(st.text("0123456789.,;*-+eEnaif_ TZ:\t$", max_size=30), max_size=6))
def test_lines_of_almost_numbers_are_read_or_refused(lines: list[str]) -> None:
    check(read_csv, "\n".join(lines).encode())


_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)


@given(
    pack=st.lists(
        st.dictionaries(st.sampled_from([*LABELS, "bv", "bs", "vd", "x_", "x"]), _scalars),
        max_size=4,
    )
)
def test_packs_of_any_types_are_read_or_refused(pack: list[dict[str, Any]]) -> None:
    numbered = {**LABELS, "bv": -5, "bs": -6, "vd": 8}
    check(FORMATS["senml+json"][0], json.dumps(pack).encode("utf-8", "surrogatepass"))
    payload = cbor2.dumps([{numbered.get(k, k): v for k, v in record.items()} for record in pack])
    check(FORMATS["senml+cbor"][0], payload)
