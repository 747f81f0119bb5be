import numpy as np
import pytest

from agent.block import Block
from agent.decode.csv import add_checksum, decode
from contract.errors import DecodeError

AT_NS = 1_767_225_600 * 10**9
COLUMNS = ("flow", "speed")


def reasons(refused: list[tuple[bytes, DecodeError]]) -> list[tuple[bytes, str]]:
    return [(line, error.reason) for line, error in refused]


def one(payload: bytes, columns: tuple[str, ...] = COLUMNS, time: str = "") -> Block:
    (block,), refused = decode(payload, AT_NS, columns, time)
    assert refused == []
    return block


@pytest.mark.parametrize("separator", [b",", b";", b"\t"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_the_separator_and_the_line_end_are_found_out(separator: bytes, end: bytes) -> None:
    line = separator.join((b"12.5", b" 1480 ")) + end
    block = one(line * 3)
    assert block.asset == ""
    assert block.channels == COLUMNS
    assert block.values.tolist() == [[12.5, 1480.0]] * 3


def test_lines_without_a_time_came_on_arrival_and_stay_apart() -> None:
    assert one(b"1,2\n3,4\n5,6").t_ns.tolist() == [AT_NS - 2, AT_NS - 1, AT_NS]


def test_a_field_without_a_name_is_ignored_whatever_it_holds() -> None:
    assert one(b"pump,1,2\nmotor,3,4\n", ("", *COLUMNS)).values.tolist() == [[1, 2], [3, 4]]


def test_one_column_needs_no_separator() -> None:
    assert one(b"1\n2.5\n", ("flow",)).values.tolist() == [[1], [2.5]]


def test_an_empty_field_is_a_value_that_is_missing() -> None:
    assert np.isnan(one(b",2\n3, \n").values).tolist() == [[True, False], [False, True]]


@pytest.mark.parametrize(
    "text",
    [
        "1767225600",
        "1767225600000",
        "1767225600000000",
        "1767225600000000000",
        "1767225600.0",
        " 1767225600",
        "2026-01-01T00:00:00Z",
        "2026-01-01T01:00:00+01:00",
    ],
)
def test_times_are_read_in_any_unit_or_as_text(text: str) -> None:
    block = one(f"1,{text},2\n".encode() * 2, ("flow", "t", "speed"), "t")
    assert block.channels == COLUMNS
    assert block.t_ns.tolist() == [AT_NS, AT_NS]


def test_nanoseconds_are_kept() -> None:
    assert one(b"1767225600000000001,1,2\n", ("t", *COLUMNS), "t").t_ns[0] == AT_NS + 1


@pytest.mark.parametrize(
    "text",
    ["", "noon", "-5", "nan", "inf", "99999999999", "9" * 30, "9" * 5000, "1_0",
     "2026-01-01T00:00:00", "0001-01-01T00:00:00Z", "1500-01-01T00:00:00Z", "\xff"],
)  # fmt: skip
def test_a_line_whose_time_cannot_be_is_refused(text: str) -> None:
    payload = f"5,1,2\n{text},1,2\n".encode("latin-1")
    (block,), refused = decode(payload, AT_NS, ("t", *COLUMNS), "t")
    assert block.t_ns.tolist() == [5 * 10**9]
    assert reasons(refused) == [(payload.split(b"\n")[1], "time")]


def test_wrong_lines_are_told_and_cost_no_other() -> None:
    lines = [b"1,2", b"1", b"3,4", b"1,2,3", b"x,1", b"5,1_0", b"\xff\x00,1", b"7,0x10", b"9,8"]
    (block,), refused = decode(b"\n".join(lines), AT_NS, COLUMNS)
    assert block.values.tolist() == [[1, 2], [3, 4], [9, 8]]
    assert reasons(refused) == [
        (b"1", "csv"),
        (b"1,2,3", "csv"),
        (b"x,1", "number"),
        (b"5,1_0", "number"),
        (b"\xff\x00,1", "number"),
        (b"7,0x10", "number"),
    ]


@pytest.mark.parametrize("payload", [b"1,5;2", b"1,5;2,5", b"1,5\t2"])
def test_a_decimal_comma_is_refused_and_said(payload: bytes) -> None:
    blocks, ((_, error),) = decode(payload, AT_NS, COLUMNS)
    assert blocks == []
    assert "decimal sign is the point" in str(error)


def test_a_first_line_that_is_cut_off_does_not_hide_the_separator() -> None:
    (block,), refused = decode(b"5;7;9;2\n1\t2\n3\t4\n", AT_NS, COLUMNS)
    assert block.values.tolist() == [[1, 2], [3, 4]]
    assert len(refused) == 1


def test_a_header_that_equals_the_columns_is_skipped_wherever_it_comes() -> None:
    payload = b"n; flow ;speed\n1;2;3\nn;flow;speed\n4;5;6\n"
    assert one(payload, ("", *COLUMNS)).values.tolist() == [[2, 3], [5, 6]]


def test_nothing_but_blank_lines_is_nothing() -> None:
    assert decode(b"\n  \r\n\t\n", AT_NS, COLUMNS) == ([], [])
    assert decode(b"", AT_NS, COLUMNS, checksum=True) == ([], [])


def test_the_checksum_is_that_of_nmea_0183() -> None:
    # The sentence that receivers of GPS print in every manual.
    sentence = b"$GPGLL,5057.970,N,00146.110,E,142451,A"
    assert add_checksum(sentence) == sentence + b"*27"
    columns = ("", "lat", "", "lon", "", "", "")
    assert one(sentence + b"*27\r\n", columns).values.tolist() == [[5057.97, 146.11]]


def test_a_wrong_checksum_is_refused_where_it_is_there() -> None:
    payload = b"1,2\n" + add_checksum(b"3,4") + b"\n5,6*00\n7,8*\n9,9*zz\n"
    (block,), refused = decode(payload, AT_NS, COLUMNS)
    assert block.values.tolist() == [[1, 2], [3, 4]]
    assert reasons(refused) == [
        (b"5,6*00", "checksum"),
        (b"7,8*", "checksum"),
        (b"9,9*zz", "checksum"),
    ]


def test_a_checksum_can_be_demanded() -> None:
    payload = b"1,2\n" + add_checksum(b"3,4").lower() + b"\n*00\n"
    (block,), refused = decode(payload, AT_NS, COLUMNS, checksum=True)
    assert block.values.tolist() == [[3, 4]]
    assert reasons(refused) == [(b"1,2", "checksum"), (b"", "csv")]


def test_bulk_and_single_lines_are_read_alike() -> None:
    rng = np.random.default_rng(1)
    rows = [f"{t},{a!r},{b!r}" for t, a, b in
            zip((AT_NS + rng.integers(0, 10**12, 200)).tolist(), rng.normal(size=200).tolist(),
                rng.normal(size=200).tolist(), strict=True)]  # fmt: skip
    together = one("\n".join(rows).encode(), ("t", *COLUMNS), "t")
    alone = [one(row.encode(), ("t", *COLUMNS), "t") for row in rows]
    # With a wrong line among them, each is looked at by itself.
    (mixed,), refused = decode("\n".join([*rows, "x,y,z"]).encode(), AT_NS, ("t", *COLUMNS), "t")
    assert len(refused) == 1
    for other in (np.concatenate([block.values for block in alone]), mixed.values):
        assert np.array_equal(together.values, other)
    for times in (np.concatenate([block.t_ns for block in alone]), mixed.t_ns):
        assert np.array_equal(together.t_ns, times)


def test_columns_that_make_no_sense_are_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="no channel"):
        decode(b"1", AT_NS, ("t",), "t")
    with pytest.raises(ValueError, match="time column"):
        decode(b"1", AT_NS, ("flow",), "t")
