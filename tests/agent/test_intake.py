"""The queue between the sources and the main thread: what is waited for, and what is not."""

import threading

from agent.intake import BURST_SHARE, ENOUGH, MOST_BYTES, Arrival, Intake

FOREVER_S = 60.0


def arrivals(count: int) -> list[Arrival]:
    return [Arrival("topic", b"1", i + 1, 0) for i in range(count)]


def test_what_comes_within_the_wait_shares_a_batch() -> None:
    intake = Intake(10_000)
    intake.put_all(arrivals(3))
    later = threading.Timer(0.05, lambda: intake.put_all(arrivals(2)))
    later.start()
    assert len(intake.take(FOREVER_S, 1.0)) == 5
    later.join()


def test_more_than_enough_is_not_waited_for() -> None:
    intake = Intake(10_000)
    intake.put(arrivals(1)[0])
    later = threading.Timer(0.05, lambda: intake.put_all(arrivals(ENOUGH)))
    later.start()
    assert len(intake.take(FOREVER_S, FOREVER_S)) == ENOUGH + 1
    later.join()


def test_a_full_intake_is_emptied_without_a_wait() -> None:
    intake = Intake(2)
    intake.put_all(arrivals(2))
    assert len(intake.take(FOREVER_S, FOREVER_S)) == 2


def test_a_wait_ends_when_the_agent_is_to_stop() -> None:
    intake = Intake(10_000)
    intake.put_all(arrivals(1))
    later = threading.Timer(0.05, intake.wake)
    later.start()
    assert len(intake.take(FOREVER_S, FOREVER_S)) == 1
    later.join()


def test_a_batch_of_bursts_is_longer_than_one_of_text() -> None:
    intake = Intake(10_000)
    text = [Arrival("topic", b"1" * 16_384, 0, 0) for _ in range(100)]
    bursts = [Arrival("topic", b"RW" + bytes(16_382), 0, 0) for _ in range(100)]
    intake.put_all(text[:50] + bursts + text[50:])
    of_text = MOST_BYTES // 16_384
    assert [len(intake.take(FOREVER_S)) for _ in range(6)] == [of_text] * 6
    assert len(intake.take(FOREVER_S)) == 2 + BURST_SHARE * (of_text - 2)
    taken = 50 + BURST_SHARE * (of_text - 2)
    while len(intake):
        taken += len(intake.take(FOREVER_S))
    assert taken == 200
    intake.put_all(text[:1])
    assert len(intake.take(FOREVER_S)) == 1
