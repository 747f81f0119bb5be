"""A bounded place to wait: what is dropped is the configured, and is counted."""

import threading

import pytest

from agent.intake import Arrival
from agent.sources.buffer import Buffer, WhenFull

PATIENCE_S = 60


def arrival(number: int, size: int = 10) -> Arrival:
    return Arrival("source/test", bytes([number]) * size, number, 0)


def left_in(buffer: Buffer) -> list[int]:
    came: list[Arrival] = []
    buffer.close()
    buffer.hand_over(came.append)
    return [one.token for one in came]


@pytest.mark.parametrize(("when_full", "left"), [("oldest", [3, 4, 5]), ("newest", [1, 2, 3])])
def test_a_full_buffer_drops_what_it_is_told_to_and_says_how_much(
    when_full: WhenFull, left: list[int]
) -> None:
    buffer = Buffer(30, when_full)
    dropped = [buffer.add(arrival(number), frames=number) for number in range(1, 6)]
    assert dropped == ([0, 0, 0, 1, 2] if when_full == "oldest" else [0, 0, 0, 4, 5])
    assert left_in(buffer) == left


def test_one_that_is_larger_than_the_buffer_passes_alone() -> None:
    buffer = Buffer(30, "newest")
    assert buffer.add(arrival(1, size=100)) == 0
    assert buffer.add(arrival(2)) == 1
    assert left_in(buffer) == [1]


def test_a_thread_that_waits_for_room_goes_on_when_there_is_some() -> None:
    buffer = Buffer(30, "wait")
    adding = threading.Thread(
        target=lambda: [buffer.add(arrival(number)) for number in range(1, 101)]
    )
    came: list[int] = []
    taking = threading.Thread(target=buffer.hand_over, args=(lambda one: came.append(one.token),))
    adding.start()
    taking.start()
    adding.join(PATIENCE_S)
    buffer.close()
    taking.join(PATIENCE_S)
    assert came == list(range(1, 101))


def test_who_waits_for_room_is_let_in_when_it_must_end() -> None:
    buffer = Buffer(10, "wait")
    buffer.add(arrival(1))
    adding = threading.Thread(target=buffer.add, args=(arrival(2),))
    adding.start()
    buffer.hurry()
    adding.join(PATIENCE_S)
    assert not adding.is_alive()
    assert left_in(buffer) == [1, 2]


def test_what_is_withdrawn_in_time_is_not_handed_over() -> None:
    buffer = Buffer(20, "newest")
    buffer.add(arrival(1))
    buffer.add(arrival(2))
    assert buffer.withdraw(1)
    assert not buffer.withdraw(1)
    assert buffer.add(arrival(3)) == 0  # there is room again
    assert left_in(buffer) == [2, 3]
