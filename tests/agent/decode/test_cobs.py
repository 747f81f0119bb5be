import binascii
import math
import struct
from itertools import pairwise

import numpy as np
import pytest

from agent.decode.cobs import (
    decode_records,
    encode_record,
    frame,
    stuff,
    unframe,
    unstuff,
)
from contract.errors import DecodeError

AT_NS = 1_767_225_600 * 10**9
COLUMNS = ("flow", "speed")


@pytest.mark.parametrize(
    ("data", "stuffed"),
    [
        # The examples of the encyclopedias; the last ones are where runs of 254 end.
        (b"\x00", "01 01"),
        (b"\x00\x00", "01 01 01"),
        (b"\x00\x11\x00", "01 02 11 01"),
        (b"\x11\x22\x00\x33", "03 11 22 02 33"),
        (b"\x11\x22\x33\x44", "05 11 22 33 44"),
        (b"\x11\x00\x00\x00", "02 11 01 01 01"),
        (bytes(range(1, 255)), "ff " + bytes(range(1, 255)).hex(" ") + " 01"),
        (bytes(range(255)), "01 ff " + bytes(range(1, 255)).hex(" ") + " 01"),
        (bytes(range(1, 256)), "ff " + bytes(range(1, 255)).hex(" ") + " 02 ff"),
        (bytes(range(2, 256)) + b"\0", "ff " + bytes(range(2, 256)).hex(" ") + " 01 01"),
        (bytes(range(3, 256)) + b"\0\1", "fe " + bytes(range(3, 256)).hex(" ") + " 02 01"),
    ],
)
def test_bytes_are_stuffed_as_the_paper_says(data: bytes, stuffed: str) -> None:
    assert stuff(data).hex(" ") == stuffed
    assert unstuff(stuff(data)) == data


def test_a_full_run_at_the_end_may_go_without_a_code_after_it() -> None:
    data = bytes(range(1, 255))
    assert unstuff(b"\xff" + data) == unstuff(b"\xff" + data + b"\x01") == data


def test_a_frame_holds_no_zero_but_its_last_byte() -> None:
    rng = np.random.default_rng(1)
    for length in range(600):
        body = rng.choice(np.array([0, 1, 255], np.uint8), length).tobytes()
        framed = frame(body)
        assert framed.index(0) == len(framed) - 1
        assert unframe(framed) == unframe(framed[:-1]) == body


def test_a_record_is_laid_out_as_the_table_says() -> None:
    body = unframe(encode_record([1.5, -2.0], 7, historical=True))
    assert body == struct.pack("<BBQH2f", 1, 1, 7, 2, 1.5, -2.0)


def test_one_wrong_bit_is_always_seen() -> None:
    good = encode_record([1.0, 0.0], AT_NS)
    for bit in range((len(good) - 1) * 8):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        blocks, refused = decode_records(bytes(bad), AT_NS, COLUMNS)
        assert blocks == []
        assert refused


@pytest.mark.parametrize("count", [1, 5, 23, 24, 500])
def test_many_records_are_read_as_one_block(count: int) -> None:
    values = np.random.default_rng(1).integers(-3, 3, (count, 2)).astype(np.float32)
    payload = b"".join(encode_record(row, AT_NS + i) for i, row in enumerate(values.tolist()))
    (block,), refused = decode_records(payload, 0, COLUMNS)
    assert refused == []
    assert block.channels == COLUMNS
    assert block.asset == ""
    assert np.array_equal(block.values, values)
    assert block.t_ns.tolist() == [AT_NS + i for i in range(count)]


def test_records_with_more_values_than_a_short_frame_holds_are_read() -> None:
    columns = tuple(f"c{i}" for i in range(300))
    rows = np.random.default_rng(1).integers(0, 2, (40, 300)).astype(np.float32)
    payload = b"".join(encode_record(row, 1) for row in rows.tolist())
    (block,), refused = decode_records(payload, 0, columns)
    assert not refused
    assert np.array_equal(block.values, rows)


def test_records_without_a_time_came_on_arrival_and_stay_apart() -> None:
    payload = encode_record([1, 2]) + encode_record([3, 4], 9) + encode_record([5, math.nan])
    (block,), _ = decode_records(payload, AT_NS, COLUMNS)
    assert block.t_ns.tolist() == [AT_NS - 2, 9, AT_NS]
    assert np.isnan(block.values[2, 1])


def test_historical_records_are_a_block_of_their_own() -> None:
    payload = encode_record([1, 2], 5) + encode_record([3, 4], 3, historical=True)
    live, old = decode_records(payload, AT_NS, COLUMNS)[0]
    assert (live.historical, live.t_ns.tolist()) == (False, [5])
    assert (old.historical, old.values.tolist()) == (True, [[3, 4]])


def test_a_column_without_a_name_is_left_out() -> None:
    (block,), _ = decode_records(encode_record([1, 2], 5), AT_NS, ("", "speed"))
    assert (block.channels, block.values.tolist()) == (("speed",), [[2]])


@pytest.mark.parametrize(
    ("framed", "reason"),
    [
        (b"\x05\x01\x00", "cobs"),
        (b"\x03\x01\x02\x00", "checksum"),
        (frame(b"\x01"), "record"),
        (frame(struct.pack("<BBQH2f", 2, 0, 1, 2, 1, 2)), "record"),
        (frame(struct.pack("<BBQH2f", 1, 2, 1, 2, 1, 2)), "record"),
        (frame(struct.pack("<BBQH2f", 1, 0, 1, 3, 1, 2)), "record"),
        (frame(struct.pack("<BBQH3f", 1, 0, 1, 3, 1, 2, 3)), "record"),
        (frame(struct.pack("<BBQH2f", 1, 0, 2**63, 2, 1, 2)), "time"),
        (encode_record([1, 2])[:-1], "cobs"),
    ],
)
@pytest.mark.parametrize("others", [1, 100])
def test_a_wrong_frame_is_told_and_costs_no_other(framed: bytes, reason: str, others: int) -> None:
    payload = encode_record([1, 2], 5) * others + framed
    (block,), refused = decode_records(payload, AT_NS, COLUMNS)
    assert len(block.values) == others
    ((_, error),) = refused
    assert error.reason == reason


def test_zeros_between_frames_mean_nothing() -> None:
    payload = b"\0\0" + encode_record([1, 2], 5) + b"\0"
    (block,), refused = decode_records(payload, AT_NS, COLUMNS)
    assert (len(block.values), refused) == (1, [])


def flipped(count: int, seed: int) -> tuple[bytes, list[list[float]]]:
    """Return frames with one byte in a thousand altered, and the readings that were sent."""
    rng = np.random.default_rng(seed)
    sent = rng.integers(0, 50, (count, 2)).astype(np.float32)
    frames = [encode_record(row, AT_NS + i) for i, row in enumerate(sent.tolist())]
    line = np.frombuffer(b"".join(frames), np.uint8).copy()
    hit = rng.random(len(line)) < 0.001
    line[hit] ^= rng.integers(1, 256, hit.sum(), dtype=np.uint8)
    return line.tobytes(), sent.tolist()


def test_of_20_000_frames_with_flipped_bytes_no_wrong_reading_gets_through() -> None:
    payload, sent = flipped(20_000, 1)
    blocks, refused = decode_records(payload, 0, COLUMNS)
    rows = [
        (int(t) - AT_NS, row)
        for block in blocks
        for t, row in zip(block.t_ns, block.values.tolist(), strict=True)
    ]
    assert len(refused) > 300
    assert len(rows) > 19_000
    assert all(0 <= i < len(sent) and sent[i] == row for i, row in rows)
    assert all(a < b for (a, _), (b, _) in pairwise(rows))


def test_the_checksum_begins_with_ones_so_that_zeros_before_a_body_count() -> None:
    body = b"\0\0\x01"
    assert unframe(frame(body)) == body
    wrong = stuff(body[1:] + binascii.crc_hqx(body, 0xFFFF).to_bytes(2, "big"))
    with pytest.raises(DecodeError, match="CRC-16"):
        unframe(wrong)


def test_columns_are_needed() -> None:
    with pytest.raises(ValueError, match="0 columns"):
        decode_records(b"", 0, ())
