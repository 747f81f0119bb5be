"""The examples are those of RFC 8428, sections 5.1 and 6."""

import json
import math
from decimal import Decimal
from typing import Any

import cbor2
import numpy as np
import pytest

from agent.block import Block
from agent.decode.senml import decode_cbor, decode_json, split_name
from contract.errors import DecodeError

NOW_S = 1_767_225_600
AT_NS = NOW_S * 10**9
DEVICE = "urn:dev:ow:10e2073a01080063"
LABELS = {
    "bver": -1, "bn": -2, "bt": -3, "bu": -4, "bv": -5, "bs": -6,
    "n": 0, "u": 1, "v": 2, "vs": 3, "vb": 4, "s": 5, "t": 6, "ut": 7, "vd": 8,
}  # fmt: skip

Reading = tuple[str, str, float, float]
"""Name, unit, seconds since 1970 or from now, value."""


def readings(blocks: list[Block]) -> list[Reading]:
    """Return what blocks say, one by one and sorted, seconds rounded to a millisecond."""
    return sorted(
        (
            f"{block.asset}|{channel}",
            block.units[j],
            round(t / 1e9 - (NOW_S if t / 1e9 > 1.7e9 else 0), 3),
            value,
        )
        for block in blocks
        for j, channel in enumerate(block.channels)
        for t, value in zip(block.t_ns.tolist(), block.values[:, j].tolist(), strict=True)
    )


def as_cbor(pack: list[dict[str, Any]]) -> bytes:
    return cbor2.dumps([{LABELS.get(k, k): v for k, v in record.items()} for record in pack])


def both(text: str) -> list[Reading]:
    """Read JSON and the same pack in CBOR, which must mean the same."""
    found = readings(decode_json(text.encode(), AT_NS))
    assert readings(decode_cbor(as_cbor(json.loads(text)), AT_NS)) == found
    return found


def reason(pack: str | list[dict[str, Any]]) -> str:
    with pytest.raises(DecodeError) as caught:
        decode_json((pack if isinstance(pack, str) else json.dumps(pack)).encode(), AT_NS)
    if not isinstance(pack, str):
        with pytest.raises(DecodeError) as again:
            decode_cbor(as_cbor(pack), AT_NS)
        assert again.value.reason == caught.value.reason
    return caught.value.reason


def test_5_1_1_a_single_data_point_is_taken_now() -> None:
    text = '[{"n":"urn:dev:ow:10e2073a01080063","u":"Cel","v":23.1}]'
    assert both(text) == [("urn:dev:ow|10e2073a01080063", "Cel", 0, 23.1)]


VOLTAGE_AND_CURRENT = """[
  {"bn":"urn:dev:ow:10e2073a01080063:","n":"voltage","u":"V","v":120.1},
  {"n":"current","u":"A","v":1.2}
]"""


def test_5_1_2_channels_of_one_time_share_a_block() -> None:
    assert both(VOLTAGE_AND_CURRENT) == [
        (f"{DEVICE}|current", "A", 0, 1.2),
        (f"{DEVICE}|voltage", "V", 0, 120.1),
    ]
    (block,) = decode_json(VOLTAGE_AND_CURRENT.encode(), AT_NS)
    assert (block.channels, block.units) == (("voltage", "current"), ("V", "A"))
    assert block.values.shape == (1, 2)


SIX_CURRENTS = """[
  {"bn":"urn:dev:ow:10e2073a0108006:","bt":1.276020076001e+09,"bu":"A","bver":5,
   "n":"voltage","u":"V","v":120.1},
  {"n":"current","t":-5,"v":1.2},
  {"n":"current","t":-4,"v":1.3},
  {"n":"current","t":-3,"v":1.4},
  {"n":"current","t":-2,"v":1.5},
  {"n":"current","t":-1,"v":1.6},
  {"n":"current","v":1.7}
]"""


def test_5_1_2_base_time_unit_and_version_hold_for_what_follows() -> None:
    now = 1_276_020_076.001
    assert both(SIX_CURRENTS) == [
        *(
            ("urn:dev:ow:10e2073a0108006|current", "A", round(now - 5 + i, 3), (12 + i) / 10)
            for i in range(6)
        ),
        ("urn:dev:ow:10e2073a0108006|voltage", "V", now, 120.1),
    ]
    voltage, current = decode_json(SIX_CURRENTS.encode(), AT_NS)
    assert voltage.values.shape == (1, 1)
    assert current.values.shape == (6, 1)
    assert current.t_ns[-1] == 1_276_020_076_001_000_000


def test_6_the_bytes_of_the_cbor_example_say_the_same() -> None:
    payload = bytes.fromhex("""
        87 a7 21 78 1b 75 72 6e 3a 64 65 76 3a 6f 77 3a
        31 30 65 32 30 37 33 61 30 31 30 38 30 30 36 3a
        22 fb 41 d3 03 a1 5b 00 10 62 23 61 41 20 05 00
        67 76 6f 6c 74 61 67 65 01 61 56 02 fb 40 5e 06
        66 66 66 66 66 a3 00 67 63 75 72 72 65 6e 74 06
        24 02 fb 3f f3 33 33 33 33 33 33 a3 00 67 63 75
        72 72 65 6e 74 06 23 02 fb 3f f4 cc cc cc cc cc
        cd a3 00 67 63 75 72 72 65 6e 74 06 22 02 fb 3f
        f6 66 66 66 66 66 66 a3 00 67 63 75 72 72 65 6e
        74 06 21 02 f9 3e 00 a3 00 67 63 75 72 72 65 6e
        74 06 20 02 fb 3f f9 99 99 99 99 99 9a a3 00 67
        63 75 72 72 65 6e 74 06 00 02 fb 3f fb 33 33 33
        33 33 33""")
    assert readings(decode_cbor(payload, AT_NS)) == both(SIX_CURRENTS)


def test_5_1_2_many_times_of_one_name_are_one_block() -> None:
    text = """[
      {"bn":"urn:dev:ow:10e2073a01080063","bt":1.320067464e+09,"bu":"%RH","v":21.2},
      {"t":10,"v":21.3}, {"t":20,"v":21.4}, {"t":30,"v":21.4}, {"t":40,"v":21.5},
      {"t":50,"v":21.5}, {"t":60,"v":21.5}, {"t":70,"v":21.6}, {"t":80,"v":21.7}
    ]"""
    values = [21.2, 21.3, 21.4, 21.4, 21.5, 21.5, 21.5, 21.6, 21.7]
    assert both(text) == [
        ("urn:dev:ow|10e2073a01080063", "%RH", 1_320_067_464 + 10 * i, value)
        for i, value in enumerate(values)
    ]
    assert len(decode_json(text.encode(), AT_NS)) == 1


MOVING = """[
  {"bn":"urn:dev:ow:10e2073a01080063","bt":1.320067464e+09,"bu":"%RH","v":20},
  {"u":"lon","v":24.30621}, {"u":"lat","v":60.07965},
  {"t":60,"v":20.3}, {"u":"lon","t":60,"v":24.30622}, {"u":"lat","t":60,"v":60.07965},
  {"t":120,"v":20.7}, {"u":"lon","t":120,"v":24.30623}, {"u":"lat","t":120,"v":60.07966},
  {"u":"%EL","t":150,"v":98},
  {"t":180,"v":21.2}, {"u":"lon","t":180,"v":24.30628}, {"u":"lat","t":180,"v":60.07967}
]"""


def test_5_1_3_and_5_1_4_the_resolved_form_says_the_same() -> None:
    n = '"n":"urn:dev:ow:10e2073a01080063"'
    resolved = [
        ("%RH", 0, 20), ("lon", 0, 24.30621), ("lat", 0, 60.07965),
        ("%RH", 60, 20.3), ("lon", 60, 24.30622), ("lat", 60, 60.07965),
        ("%RH", 120, 20.7), ("lon", 120, 24.30623), ("lat", 120, 60.07966),
        ("%EL", 150, 98),
        ("%RH", 180, 21.2), ("lon", 180, 24.30628), ("lat", 180, 60.07967),
    ]  # fmt: skip
    text = ",".join(
        f'{{{n},"u":"{unit}","t":{1_320_067_464 + t},"v":{v}}}' for unit, t, v in resolved
    )
    assert both(MOVING) == both(f"[{text}]")
    assert both(MOVING) == sorted(
        ("urn:dev:ow|10e2073a01080063", unit, 1_320_067_464 + t, v) for unit, t, v in resolved
    )


def test_5_1_5_text_and_bytes_are_left_out_beside_numbers() -> None:
    text = """[
      {"bn":"urn:dev:ow:10e2073a01080063:","n":"temp","u":"Cel","v":23.1},
      {"n":"label","vs":"Machine Room"},
      {"n":"open","vb":false},
      {"n":"nfc-reader","vd":"aGkgCg"}
    ]"""
    expected = [(f"{DEVICE}|open", "", 0, 0), (f"{DEVICE}|temp", "Cel", 0, 23.1)]
    assert readings(decode_json(text.encode(), AT_NS)) == expected
    pack = json.loads(text)
    pack[3]["vd"] = b"hi \n"
    assert readings(decode_cbor(as_cbor(pack), AT_NS)) == expected


def test_5_1_6_a_base_name_may_come_again_and_the_base_time_stays() -> None:
    text = """[
      {"bn":"2001:db8::2/","bt":1.320078429e+09,"n":"temperature","u":"Cel","v":25.2},
      {"n":"humidity","u":"%RH","v":30},
      {"bn":"2001:db8::1/","n":"temperature","u":"Cel","v":12.3},
      {"n":"humidity","u":"%RH","v":67}
    ]"""
    assert both(text) == [
        ("2001:db8::1|humidity", "%RH", 1_320_078_429, 67),
        ("2001:db8::1|temperature", "Cel", 1_320_078_429, 12.3),
        ("2001:db8::2|humidity", "%RH", 1_320_078_429, 30),
        ("2001:db8::2|temperature", "Cel", 1_320_078_429, 25.2),
    ]


def test_5_1_7_settings_are_read_as_numbers_too() -> None:
    text = """[
      {"bn":"urn:dev:ow:10e2073a01080063:"},
      {"n":"temp","u":"Cel","v":23.1},
      {"n":"heat","u":"/","v":1},
      {"n":"fan","u":"/","v":0}
    ]"""
    assert both(text) == [
        (f"{DEVICE}|fan", "/", 0, 0),
        (f"{DEVICE}|heat", "/", 0, 1),
        (f"{DEVICE}|temp", "Cel", 0, 23.1),
    ]
    lights = """[
      {"bt":1.320078429e+09,"bu":"/","n":"2001:db8::3","v":1},
      {"n":"2001:db8::4","v":1}
    ]"""
    assert [r[2:] for r in both(lights)] == [(1_320_078_429, 1)] * 2
    dimmed = """[
      {"bt":1.320078429e+09,"bu":"/","n":"2001:db8::3","v":0.5},
      {"n":"2001:db8::4","v":0.5},
      {"n":"2001:db8::3","t":0.1,"v":0},
      {"n":"2001:db8::4","t":0.1,"v":0}
    ]"""
    assert [r[2:] for r in both(dimmed)] == [(1_320_078_429, 0.5), (1_320_078_429.1, 0)] * 2


@pytest.mark.parametrize(
    ("name", "asset", "channel"),
    [
        ("flow", "", "flow"),
        ("pump-3/flow", "pump-3", "flow"),
        ("pump-3:flow", "pump-3", "flow"),
        ("site/pump-3/flow", "site/pump-3", "flow"),
        ("urn:dev:mac:0024befffe804ff1/flow", "urn:dev:mac:0024befffe804ff1", "flow"),
        ("pump-3/flow:1", "pump-3/flow", "1"),
        ("pump-3/", "", "pump-3"),
        ("a://b", "a", "b"),
    ],
)
def test_a_name_is_split_after_its_last_level(name: str, asset: str, channel: str) -> None:
    assert split_name(name) == (asset, channel)


def test_base_values_and_sums_are_added() -> None:
    text = """[
      {"bn":"m:","bv":20,"bs":100,"n":"p","u":"W","v":0.5,"s":7},
      {"n":"p","u":"W","t":-1,"s":8},
      {"n":"q","v":1},
      {"n":"b","vb":true}
    ]"""
    assert both(text) == [
        ("m|b", "", 0, 1), ("m|b.sum", "s", 0, 100),
        ("m|p", "W", -1, 20), ("m|p", "W", 0, 20.5),
        ("m|p.sum", "W.s", -1, 108), ("m|p.sum", "W.s", 0, 107),
        ("m|q", "", 0, 21), ("m|q.sum", "s", 0, 100),
    ]  # fmt: skip


def test_a_record_may_have_a_sum_alone() -> None:
    assert both('[{"n":"m/energy","u":"W","s":3600}]') == [("m|energy.sum", "W.s", 0, 3600)]


def test_times_below_2_to_the_28_are_from_now() -> None:
    text = '[{"n":"a","v":1,"t":268435455},{"n":"a","v":2,"t":268435456},{"n":"a","v":3,"t":-0.5}]'
    (block,) = decode_json(text.encode(), AT_NS)
    assert block.t_ns.tolist() == [
        AT_NS + 268_435_455 * 10**9,
        268_435_456 * 10**9,
        AT_NS - 5 * 10**8,
    ]


def test_what_a_small_time_adds_to_a_large_one_is_kept() -> None:
    text = f'[{{"bt":{NOW_S},"n":"a","v":1}},{{"n":"a","v":2,"t":1e-6}},{{"n":"a","v":2,"t":2e-8}}]'
    (block,) = decode_json(text.encode(), 0)
    assert (block.t_ns - AT_NS).tolist() == [0, 1000, 20]


def test_fields_that_are_not_known_are_ignored() -> None:
    assert both('[{"n":"a","v":1,"x":[1,{"y_":2}],"ut":60}]') == [("|a", "", 0, 1)]


@pytest.mark.parametrize("label", ["x_", "_", "n_", "a_b_"])
def test_a_field_that_must_be_understood_is_refused(label: str) -> None:
    assert reason([{"n": "a", "v": 1, label: None}]) == "field"


def test_a_field_that_must_be_understood_is_found_when_escaped() -> None:
    assert reason(r'[{"n":"a","v":1,"x\u005f":1}]') == "field"
    assert reason(r'[{"n":"a","v":1,"x\u005F":1}]') == "field"


@pytest.mark.parametrize("bver", [11, 0, -1, 10**30])
def test_a_version_that_is_not_understood_is_refused(bver: int) -> None:
    assert reason([{"bver": bver, "n": "a", "v": 1}]) in {"version", "type"}


def test_all_records_of_a_pack_have_the_same_version() -> None:
    assert reason([{"bver": 5, "n": "a", "v": 1}, {"bver": 10, "n": "a", "v": 1}]) == "version"
    assert reason([{"n": "a", "v": 1}, {"bver": 5, "n": "a", "v": 1}]) == "version"
    assert both('[{"n":"a","v":1},{"bver":10,"n":"a","v":1}]')


@pytest.mark.parametrize("name", ["", "-a", ":a", "a b", "a#", "ä", "a\n", "/a", "_a"])
def test_a_name_that_is_not_allowed_is_refused(name: str) -> None:
    assert reason([{"n": name, "v": 1}]) == "name"


def test_the_name_that_counts_is_the_whole() -> None:
    assert both('[{"bn":"a","n":"_b","v":1}]') == [("|a_b", "", 0, 1)]
    assert reason([{"v": 1}]) == "name"


@pytest.mark.parametrize(
    "record",
    [
        {"n": "a", "v": 1, "vb": True},
        {"n": "a", "v": 1, "vs": "x"},
        {"n": "a", "vs": "x"},
        {"n": "a"},
        {"n": "a", "u": "V", "t": 5},
        {"bn": "a"},
        {},
    ],
)
def test_a_record_without_one_value_is_refused(record: dict[str, Any]) -> None:
    assert reason([record]) == "value"


def test_a_pack_of_bytes_alone_is_refused() -> None:
    assert reason('[{"n":"a","vd":"aGkgCg"}]') == "value"
    with pytest.raises(DecodeError, match="text or bytes"):
        decode_cbor(as_cbor([{"n": "a", "vd": b"hi"}]), AT_NS)


@pytest.mark.parametrize("t", [1e11, 9.3e9, -1e10, -2e9, 1e300])
def test_a_time_that_cannot_be_is_refused(t: float) -> None:
    assert reason([{"n": "a", "v": 1, "t": t}]) == "time"


@pytest.mark.parametrize("t", [math.nan, math.inf, -math.inf])
def test_cbor_times_that_are_no_number_are_refused(t: float) -> None:
    with pytest.raises(DecodeError) as caught:
        decode_cbor(as_cbor([{"n": "a", "v": 1, "t": t}]), AT_NS)
    assert caught.value.reason == "time"


@pytest.mark.parametrize(
    "pack",
    [
        [{"n": "a", "v": "1"}],
        [{"n": "a", "v": True}],
        [{"n": "a", "v": None}],
        [{"n": "a", "vb": 1}],
        [{"n": 1, "v": 1}],
        [{"n": "a", "v": 1, "t": "now"}],
        [{"n": "a", "v": 1, "bver": 1.5}],
        [{"n": "a", "v": 1, "ut": "x"}],
        [[]],
        [1],
    ],
)
def test_what_is_of_another_type_is_refused(pack: list[Any]) -> None:
    with pytest.raises(DecodeError) as caught:
        decode_json(json.dumps(pack).encode(), AT_NS)
    assert caught.value.reason == "type"
    with pytest.raises(DecodeError) as caught:
        decode_cbor(as_cbor(pack) if isinstance(pack[0], dict) else cbor2.dumps(pack), AT_NS)
    assert caught.value.reason == "type"


def test_what_is_no_pack_is_refused() -> None:
    assert reason('{"n":"a","v":1}') == "type"
    assert reason("[]") == "value"
    assert reason("[") == "json"
    assert reason("") == "json"
    for payload, why in ((b"\xa0", "type"), (b"\x80", "value"), (b"\x81", "cbor"), (b"", "cbor")):
        with pytest.raises(DecodeError) as caught:
            decode_cbor(payload, AT_NS)
        assert caught.value.reason == why


def test_cbor_numbers_may_be_decimal_fractions_and_arrays_may_be_open() -> None:
    payload = cbor2.dumps([{0: "a", 2: Decimal("271.15")}])
    assert readings(decode_cbor(payload, AT_NS)) == [("|a", "", 0, 271.15)]
    opened = b"\x9f" + payload[1:] + b"\xff"
    assert readings(decode_cbor(opened, AT_NS)) == [("|a", "", 0, 271.15)]


@pytest.mark.parametrize(
    "value",
    ["c5820a03", "d81e820103", "d8236161", "c074" + b"2013-03-21T20:04:00Z".hex(), "d81d00"],
)
def test_cbor_tags_that_senml_does_not_have_are_refused(value: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode_cbor(bytes.fromhex("81a200616102" + value), AT_NS)
    assert caught.value.reason == "cbor"


def test_cbor_labels_are_the_numbers_of_the_table() -> None:
    with pytest.raises(DecodeError, match="no name"):
        decode_cbor(cbor2.dumps([{"n": "a", 2: 1}]), AT_NS)


@pytest.mark.parametrize(
    "claim", ["9b7fffffffffffffff", "9affffffff", "bb00000000ffffffff", "5affffffff"]
)
def test_lengths_that_are_claimed_and_not_there_cost_nothing(claim: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode_cbor(bytes.fromhex(claim), AT_NS)
    assert caught.value.reason == "cbor"


def test_a_large_pack_becomes_one_block() -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(500, 3))
    pack = [
        {"n": f"pump/{name}", "u": "V", "t": NOW_S + i, "v": value}
        for i, row in enumerate(rows.tolist())
        for name, value in zip("abc", row, strict=True)
    ]
    (block,) = decode_json(json.dumps(pack).encode(), AT_NS)
    assert np.array_equal(block.values, rows)
    assert block.channels == ("a", "b", "c")
