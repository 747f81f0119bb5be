"""Whatever comes, a decoder returns readings or says why not; nothing else."""

import json
from collections.abc import Callable
from typing import Any

import cbor2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.block import Block, Burst
from agent.decode import cobs, csv, senml, waveform
from agent.sparkplug.edge import EdgeNode, Metric
from agent.sparkplug.host import Host
from agent.sparkplug.schema import DataType, Payload
from contract.errors import DecodeError

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


FORMATS: dict[str, tuple[Callable[[bytes], list[Any]], list[bytes]]] = {
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
    check(read, bytes(payload))


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
