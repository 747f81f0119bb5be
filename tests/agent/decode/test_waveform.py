import math
import struct

import numpy as np
import pytest

from agent.decode.waveform import MOST_SAMPLES, decode, encode
from contract.errors import DecodeError

AT_NS = 1_767_225_600 * 10**9
SAMPLES = np.random.default_rng(1).normal(size=4096).astype(np.float32)


def refused(payload: bytes) -> str:
    with pytest.raises(DecodeError) as caught:
        decode(payload, AT_NS)
    return caught.value.reason


def test_float_samples_come_back_as_they_were_without_a_copy() -> None:
    payload = encode(SAMPLES, 25_600.0, t_ns=AT_NS, unit="m/s2")
    (burst,) = decode(payload, AT_NS + 1)
    assert burst[:5] == ("", "", AT_NS, 25_600.0, "m/s2")
    assert np.array_equal(burst.samples, SAMPLES)
    assert np.shares_memory(burst.samples, np.frombuffer(payload, np.uint8))


def test_the_bytes_are_those_of_the_table() -> None:
    payload = encode(np.array([1, -1], np.int16), 1000.0, t_ns=5, unit="g", scale=0.5, offset=2.0)
    assert payload == struct.pack(
        "<2sBBIdqddBB1s2h", b"RW", 1, 1, 2, 1000.0, 5, 0.5, 2.0, 0, 1, b"g", 1, -1
    )


def test_whole_numbers_are_scaled_to_the_unit() -> None:
    raw = np.array([-32768, 0, 32767], np.int16)
    (burst,) = decode(encode(raw, 1000.0, scale=2.0**-15, offset=0.5), AT_NS)
    assert burst.samples.dtype == np.float32
    assert burst.samples.tolist() == [-0.5, 0.5, 1.5 - 2.0**-15]


def test_float_samples_can_be_scaled_too() -> None:
    (burst,) = decode(encode(np.array([1.0, 2.0]), 1000.0, scale=3.0, offset=1.0), AT_NS)
    assert burst.samples.tolist() == [4.0, 7.0]


def test_the_last_sample_of_a_burst_without_a_time_came_on_arrival() -> None:
    (burst,) = decode(encode(SAMPLES[:11], 10.0), AT_NS)
    assert burst.t_ns == AT_NS - 10**9


def test_several_bursts_in_a_payload_are_read_in_order() -> None:
    payload = encode(SAMPLES[:3], 10.0, t_ns=1, checksum=True) + encode(SAMPLES[:5], 20.0, t_ns=2)
    assert [(b.t_ns, len(b.samples)) for b in decode(payload, AT_NS)] == [(1, 3), (2, 5)]


def test_samples_that_are_no_number_are_passed_on() -> None:
    (burst,) = decode(encode(np.array([math.nan, math.inf, 1.0]), 10.0), AT_NS)
    assert np.isnan(burst.samples[0])
    assert np.isinf(burst.samples[1])


def test_a_scale_beyond_float32_makes_infinite_samples_and_no_warning() -> None:
    (burst,) = decode(encode(np.array([0.0, 1.0]), 10.0, scale=1e300, offset=1e300), AT_NS)
    assert not np.isfinite(burst.samples).any()


def test_a_damaged_burst_with_a_checksum_is_refused() -> None:
    payload = bytearray(encode(SAMPLES[:64], 10.0, checksum=True))
    assert len(decode(bytes(payload), AT_NS)) == 1
    payload[-20] ^= 1
    assert refused(bytes(payload)) == "checksum"


@pytest.mark.parametrize(
    ("offset", "form", "value", "reason"),
    [
        (0, "2s", b"RX", "waveform"),
        (2, "B", 2, "waveform"),
        (3, "B", 2, "waveform"),
        (4, "I", 0, "length"),
        (4, "I", 9, "length"),
        (4, "I", 2**32 - 1, "length"),
        (4, "I", MOST_SAMPLES + 1, "length"),
        (8, "d", 0.0, "waveform"),
        (8, "d", -1.0, "waveform"),
        (8, "d", math.nan, "waveform"),
        (8, "d", math.inf, "waveform"),
        (8, "d", 1e-9, "waveform"),
        (16, "q", -1, "time"),
        (24, "d", 0.0, "waveform"),
        (24, "d", math.inf, "waveform"),
        (32, "d", math.nan, "waveform"),
        (40, "B", 2, "waveform"),
        (41, "B", 31, "waveform"),
        (42, "B", 0, "waveform"),
        (42, "B", 200, "waveform"),
    ],
)
def test_a_header_that_cannot_be_is_refused(
    offset: int, form: str, value: object, reason: str
) -> None:
    payload = bytearray(encode(SAMPLES[:8], 10.0, unit="g"))
    struct.pack_into("<" + form, payload, offset, value)
    assert refused(bytes(payload)) == reason


def test_a_payload_that_is_cut_off_anywhere_is_refused() -> None:
    payload = encode(SAMPLES[:8], 10.0, unit="g", checksum=True)
    for end in range(len(payload)):
        assert refused(payload[:end]) == "length"


def test_what_follows_a_burst_must_be_one() -> None:
    assert refused(encode(SAMPLES[:8], 10.0) + b"\0" * 50) == "waveform"


def test_a_burst_without_samples_or_with_a_long_unit_is_not_written() -> None:
    with pytest.raises(ValueError, match="0 samples"):
        encode(SAMPLES[:0], 10.0)
    with pytest.raises(ValueError, match="30 letters"):
        encode(SAMPLES, 10.0, unit="x" * 31)
