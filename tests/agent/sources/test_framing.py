"""What comes out of a stream does not depend on how it was cut."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from agent.sources.framing import LINE, Framer

MOST = 8
ends = st.sampled_from([b"\n", b"\r", b"\r\n"])
streams = st.lists(st.one_of(ends, st.binary(max_size=6), st.binary(min_size=7, max_size=20))).map(
    b"".join
)


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    at = sorted({0, len(stream), *(place % (len(stream) + 1) for place in places)})
    return [stream[a:b] for a, b in itertools.pairwise(at)]


@given(streams, st.lists(st.integers(0, 1000), max_size=20))
def test_a_stream_gives_its_whole_short_lines_however_it_is_cut(
    stream: bytes, places: list[int]
) -> None:
    framer = Framer(LINE, MOST)
    came = b"".join([framer.push(chunk) for chunk in cut(stream, places)])
    stream = stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n")  # all three end a line
    whole = stream.split(b"\n")[1:-1]
    expected = [line for line in whole if len(line) <= MOST]
    assert came == b"".join([line + b"\n" for line in expected])
    assert framer.frames == len(expected)
    framer.restart()
    assert framer.garbage_bytes == len(stream) - len(came)
    unfinished = stream.split(b"\n")[1:][-1:]
    assert framer.bad_frames == len(whole) - len(expected) + sum(
        len(rest) > MOST for rest in unfinished
    )


def test_after_a_break_the_rest_of_a_line_is_dropped() -> None:
    framer = Framer(b"\0", MOST)
    assert framer.push(b"\0ab\0c") == b"ab\0"
    framer.restart()
    assert framer.push(b"d\0ef\0") == b"ef\0"
    assert framer.garbage_bytes == 1 + 1 + 2


def test_a_break_between_cr_and_lf_makes_no_line() -> None:
    framer = Framer(LINE, MOST)
    assert framer.push(b"\r1\r") == b"1\n"
    assert framer.push(b"") == b""
    assert framer.push(b"\n2\r\n3\r") == b"2\n3\n"
    assert framer.frames == 3


def test_a_line_without_end_takes_no_memory() -> None:
    framer = Framer(LINE, MOST)
    framer.push(b"\n")
    for _ in range(1000):
        assert framer.push(b"x" * 1000) == b""
    assert len(framer._rest) <= MOST
    assert framer.push(b"\n1\n") == b"1\n"
    assert (framer.frames, framer.bad_frames) == (1, 1)
