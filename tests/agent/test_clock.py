"""A clock that is wrong costs no reading: neither this device's nor a sender's."""

import http.client
import json
import logging
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import msgspec
import numpy as np
import pytest

from agent.assemble import Assembler
from agent.batch import Batch, Clock, Rows
from agent.clock import DeviceClock, synchronised
from agent.config import AgentConfig, Node, load
from agent.doctor import machine
from agent.intake import Arrival
from agent.pipeline import Outcome
from agent.status import as_text, read
from agent.timebase import ROWS, TimeBase
from contract.arrays import Floats
from contract.model_spec import Moments
from contract.report import Alert, Health, Shelve
from contract.spec import AssetClass, Channel
from tests.agent.conftest import ROOT, pump_class, wait_until

START_S = 1_800_000_000
S_NS = 10**9
MINUTE_S, HOUR_S, DAY_S, YEAR_S = 60, 3600, 86_400, 365 * 86_400

Configure = Callable[..., AgentConfig]
Open = Callable[[AgentConfig], Any]


class Machine:
    """A pump that is told of each minute, with or without a time of its own."""

    def __init__(self, node: Any, *, is_set: bool = False, source: str = "") -> None:
        self.node = node
        self.clock = DeviceClock(300 * S_NS, is_set=lambda: is_set, built_ns=0)
        pipeline = node.engine.pipeline
        newest = max(node.engine.newest_ns().values(), default=0)
        self.clock.resume(pipeline.clock_ns, newest)
        self.assembler = Assembler(node.config, self.clock)
        self.refused: list[str] = []
        self._topic = source or "runout/v1/test/node/{}/readings"

    def come(
        self,
        minutes: Sequence[int],
        *,
        clock_s: float = 0,
        sender_s: float | None = None,
        asset: str = "pump-1",
        at_once: int = 7,
    ) -> list[Outcome]:
        """Let readings come; clocks are ahead of the time by so much; None: the sender has none."""
        said: list[Outcome] = []
        arrivals = []
        for minute in minutes:
            true_s = START_S + MINUTE_S * minute
            row: dict[str, object] = {
                "v": {"vibration": 5.0 + minute % 7 / 10, "temperature": 40.0 + minute % 5 / 10}
            }
            if sender_s is not None:
                row["t"] = true_s + sender_s
            at_ns = round((true_s + clock_s) * S_NS)
            body = json.dumps(row).encode()
            arrivals.append(Arrival(self._topic.format(asset), body, minute + 1, at_ns))
        for begin in range(0, len(arrivals), at_once):
            batch, rejected = self.assembler.assemble(arrivals[begin : begin + at_once])
            self.refused += [one.reason for one in rejected]
            said += self.node.engine.process(batch, rejected)
        return said


def minutes_of(said: list[Outcome]) -> list[int]:
    return [round((one.t - START_S) / MINUTE_S) for one in said if isinstance(one, Health)]


def test_readings_without_a_time_are_judged_on_when_the_clock_was_a_year_ahead_and_is_set(
    configure: Configure, device: Open, caplog: pytest.LogCaptureFixture
) -> None:
    node = device(configure())
    pump = Machine(node)
    pump.come(range(200))
    pump.come(range(200, 203), clock_s=YEAR_S)
    with caplog.at_level(logging.WARNING):
        said = pump.come(range(203, 1000))
    assert minutes_of(said) == list(range(203, 1000))
    counts = node.engine.pipeline.counts
    assert (counts.late, counts.repeated, counts.readings, counts.clock_steps) == (0, 0, 1000, 1)
    first = next(one for one in said if isinstance(one, Health))
    assert set(first.marks) == {"vibration.clock", "temperature.clock"}
    assert counts.marked == {"vibration.clock": 1, "temperature.clock": 1}
    assert caplog.text.count("this device's clock went back") == 1
    assert caplog.text.count("a clock was set back") == 1


@pytest.mark.parametrize("at_once", [1, 3, 1000])
def test_a_device_that_starts_behind_its_journal_goes_on_from_its_clock(
    at_once: int, configure: Configure, device: Open
) -> None:
    node = device(configure())
    Machine(node).come(range(100), at_once=at_once)
    node.close()
    node = device(node.config)
    # The power was off for an hour, the clock stood still for two.
    said = Machine(node).come(range(160, 220), clock_s=-2 * HOUR_S - 17, at_once=at_once)
    assert len(minutes_of(said)) == 60
    assert node.engine.pipeline.counts.clock_steps == 1
    said = Machine(node).come(range(220, 280), at_once=at_once)
    assert minutes_of(said) == list(range(220, 280))
    assert node.engine.pipeline.counts.late == 0


def test_every_source_notices_for_itself_and_one_that_had_to_wait_is_no_clock_set_back(
    configure: Configure, device: Open
) -> None:
    clock = DeviceClock(300 * S_NS, is_set=lambda: False)
    for pos, (topic, at_s) in enumerate(
        [("a", 100), ("source/mill/x", 40), ("a", 101), ("source/mill/x", 41), ("a", 90)]
    ):
        clock.meet(pos, topic, at_s * S_NS)
    assert clock.taken() == Clock(90 * S_NS, ((4, 90 * S_NS),))
    del configure, device


def test_a_sender_whose_clock_was_ahead_is_heard_again_after_a_few_readings(
    configure: Configure, device: Open
) -> None:
    node = device(configure())
    pump = Machine(node, is_set=True)
    pump.come(range(100), sender_s=0)
    assert minutes_of(pump.come(range(100, 103), sender_s=290)) == [105, 106, 107]
    # The first four are late; then the sender's own time has caught up.
    said = pump.come(range(103, 200), sender_s=0)
    assert minutes_of(said) == list(range(107, 200))
    assert node.engine.pipeline.counts.clock_steps == 0


def test_a_sender_that_was_far_ahead_while_the_clock_was_not_set_does_not_stay_deaf(
    configure: Configure, device: Open
) -> None:
    node = device(configure())
    pump = Machine(node)
    pump.come(range(100), sender_s=0)
    pump.come(range(100, 103), sender_s=YEAR_S)
    said = pump.come(range(103, 200), sender_s=0)
    assert minutes_of(said) == list(range(103 + ROWS - 1, 200))
    counts = node.engine.pipeline.counts
    assert (counts.late, counts.clock_steps, counts.rejected) == (ROWS - 1, 1, 0)


def test_a_sender_that_begins_in_1970_is_heard_and_so_is_its_clock_when_it_is_set(
    configure: Configure, device: Open
) -> None:
    node = device(configure())
    pump = Machine(node, is_set=True)
    pump.come(range(100), sender_s=0)
    for begin in (100, 300):
        lost = len(minutes_of(pump.come(range(begin, begin + 100), sender_s=-START_S)))
        assert lost == 100 - (ROWS - 1)
        said = pump.come(range(begin + 100, begin + 200), sender_s=0)
        assert minutes_of(said) == list(range(begin + 100, begin + 200))
    assert node.engine.pipeline.counts.clock_steps == 2


def test_what_a_gateway_sends_behind_of_an_hour_without_a_network_stays_late(
    configure: Configure, device: Open
) -> None:
    node = device(configure())
    pump = Machine(node, is_set=True)
    pump.come(range(100), sender_s=0)
    pump.come([160, 161], sender_s=0)
    assert pump.come(range(100, 160), sender_s=0, clock_s=2 * HOUR_S) == []
    assert minutes_of(pump.come(range(300, 310), sender_s=0)) == list(range(300, 310))
    counts = node.engine.pipeline.counts
    assert (counts.late, counts.clock_steps) == (60, 0)


def test_what_comes_again_behind_a_step_of_the_clock_changes_nothing(
    configure: Configure, device: Open
) -> None:
    node = device(configure())
    pump = Machine(node)
    pump.come(range(100), sender_s=0)
    pump.come(range(100, 103), sender_s=YEAR_S)
    pump.come(range(103, 130), sender_s=0)
    before = node.engine.pipeline.counts.readings
    assert pump.come(range(50, 100), sender_s=0) == []
    assert pump.come(range(120, 130), sender_s=0) == []
    counts = node.engine.pipeline.counts
    assert (counts.readings, counts.repeated) == (before, 60)


def test_an_agent_killed_anywhere_round_a_step_of_the_clock_becomes_what_it_would_have(
    configure: Configure, device: Open
) -> None:
    story = [(range(60), 0), (range(60, 63), YEAR_S), (range(63, 70), 0), (range(70, 90), -DAY_S)]
    steady = Machine(device(configure("steady")))
    for minutes, clock_s in story:
        steady.come(minutes, clock_s=clock_s, at_once=100)
    node = device(configure("killed"))
    for i, (minutes, clock_s) in enumerate(story):
        Machine(node).come(minutes, clock_s=clock_s, at_once=1 + i)
        if i % 2:
            node.engine.checkpoint()
        node.kill()
        node = device(node.config)
    killed, other = node.state(), steady.node.state()
    assert killed == other


def test_channels_on_a_grid_go_on_after_a_step_and_hold_nothing_across_it(
    configure: Configure, device: Open
) -> None:
    spec = AssetClass(
        "pump",
        (Channel("vibration", "mm/s", every_s=60.0), Channel("temperature", "degC")),
        every_s=60.0,
        stats=("last",),
        health=Moments(baseline=4, learn=4),
    )
    node = device(configure(spec=spec))
    pump = Machine(node)
    pump.come(range(50))
    pump.come(range(50, 53), clock_s=YEAR_S)
    said = pump.come(range(53, 100))
    # What was open when the clock was set is closed; the last row is closed by the next.
    told = minutes_of(said)
    assert told[-46:] == list(range(53, 99))
    assert all(minute > 400_000 for minute in told[:-46])
    assert node.engine.pipeline.counts.late == 0


def test_a_shelved_alert_stays_shelved_as_long_as_was_asked_for_and_no_longer(
    configure: Configure, device: Open
) -> None:
    spec = pump_class(health=Moments(baseline=8, learn=12, on_delay=2, off_delay=2))
    node = device(configure(spec=spec))
    pump = Machine(node)
    pump.come(range(60))
    asset = node.engine.pipeline.assets["pump-1"]
    pump.come(range(60, 63), clock_s=YEAR_S)
    until_s = START_S + 63 * MINUTE_S + YEAR_S + HOUR_S
    shelved = msgspec.json.encode(Shelve(hours=1.0, t=START_S + 63 * MINUTE_S + YEAR_S))
    topic = "runout/v1/test/node/pump-1/command"
    at_ns = (START_S + 63 * MINUTE_S + YEAR_S) * S_NS
    node.engine.process(*pump.assembler.assemble([Arrival(topic, shelved, 1, at_ns)]))
    assert asset.alert.state == "shelved"
    said = pump.come(range(63, 200))
    normal = [one for one in said if isinstance(one, Alert)]
    assert [alert.state for alert in normal] == ["normal"]
    assert abs(normal[0].t - (START_S + 124 * MINUTE_S)) <= 2 * MINUTE_S
    del until_s


# -- this device's clock is behind ------------------------------------------------------------


def test_what_comes_while_the_clock_is_behind_and_not_set_is_judged_and_told(
    configure: Configure, device: Open, caplog: pytest.LogCaptureFixture
) -> None:
    node = device(configure())
    pump = Machine(node)
    with caplog.at_level(logging.WARNING):
        said = pump.come(range(100), sender_s=0, clock_s=-7 * DAY_S)
    assert minutes_of(said) == list(range(100))
    assert pump.refused == []
    assert caplog.text.count("clock is behind the data") == 1
    now_ns = (START_S + 99 * MINUTE_S - 7 * DAY_S) * S_NS
    problem = pump.clock.look(now_ns, node.engine.newest_ns())
    assert problem.startswith("the clock is behind the data: that of pump-1 is 7.0 days ahead")
    assert "fake-hwclock" in problem
    # Once the clock is set, nothing is said any more.
    assert pump.clock.look(now_ns + 7 * DAY_S * S_NS, node.engine.newest_ns()) == ""


def test_a_sender_ahead_of_a_clock_that_a_server_has_set_is_refused_as_before(
    configure: Configure, device: Open
) -> None:
    pump = Machine(device(configure()), is_set=True)
    assert pump.come(range(5), sender_s=7 * DAY_S) == []
    assert pump.refused == ["future"] * 5


def test_a_clock_behind_the_journal_refuses_nothing_whatever_it_says_of_itself(
    configure: Configure, device: Open
) -> None:
    node = device(configure())
    Machine(node, is_set=True).come(range(10), sender_s=0)
    pump = Machine(node, is_set=True)
    said = pump.come(range(70, 80), sender_s=0, clock_s=-DAY_S)
    assert minutes_of(said) == list(range(70, 80))
    assert pump.refused == []


def test_a_time_in_another_unit_is_refused_by_a_clock_that_knows_nothing(
    configure: Configure, device: Open
) -> None:
    pump = Machine(device(configure()))
    assert pump.come(range(3), sender_s=40 * YEAR_S) == []
    assert pump.refused == ["future"] * 3


def test_a_clock_that_went_back_is_told_for_a_day_or_until_it_is_set() -> None:
    at_ns = START_S * S_NS
    is_set: list[bool] = []
    clock = DeviceClock(300 * S_NS, is_set=lambda: bool(is_set))
    clock.resume(at_ns, 0)
    behind_ns = at_ns - 2 * DAY_S * S_NS
    # Before anything comes it is known by the journal, then by the step.
    assert "behind what was stored" in clock.look(behind_ns, {})
    clock.meet(0, "topic", behind_ns)
    assert clock.look(behind_ns, {}).startswith("the clock went back by 2880 min")
    assert clock.look(behind_ns + (DAY_S - 1) * S_NS, {})
    is_set.append(True)
    assert clock.look(behind_ns, {}) == ""
    is_set.clear()
    assert clock.look(behind_ns, {}) == ""


def test_what_comes_by_itself_before_any_message_does_not_forget_where_the_clock_was() -> None:
    clock = DeviceClock(300 * S_NS, is_set=lambda: False)
    clock.resume(START_S * S_NS, 0)
    assert clock.taken() == Clock(START_S * S_NS)


def test_a_sender_that_is_a_little_ahead_does_not_fill_the_log(
    configure: Configure, device: Open, caplog: pytest.LogCaptureFixture
) -> None:
    pump = Machine(device(configure()))
    with caplog.at_level(logging.WARNING):
        for minute in range(0, 600, 10):
            pump.come([minute], sender_s=6 * MINUTE_S)
            later_ns = (START_S + (minute + 8) * MINUTE_S) * S_NS
            assert pump.clock.look(later_ns, pump.node.engine.newest_ns()) == ""
    assert caplog.text.count("clock is behind the data") == 6  # the 1st, 2nd, 4th, 8th...


def test_the_kernel_can_be_asked_whether_the_clock_is_set() -> None:
    assert synchronised() in {True, False}


def test_a_running_agent_tells_everybody_of_a_clock_that_is_behind_its_data(
    broker: Any,
    connect: Callable[..., Any],
    agent: Callable[..., Any],
    free_ports: Callable[[], int],
) -> None:
    if synchronised():
        pytest.skip("a time server has set this machine's clock: what is ahead of it is refused")
    port = free_ports()
    plant = connect(broker)
    process = agent("node", "agent.minimal.toml", f"web.port={port}").start()
    plant.wait_for("node", lambda status: status.online and not status.problem)
    process.wait_for("page url=")
    for n in range(20):
        t = time.time() + 7 * DAY_S + n
        body = json.dumps({"t": t, "v": {"vibration": 5.0, "temperature": 40.0}}).encode()
        plant.send("node", "pump-1", "readings", body)
    plant.wait_for("node", lambda status: status.readings == 20 and bool(status.problem))
    status = plant.statuses["node"]
    assert (status.rejected, status.problem[:28]) == (0, "the clock is behind the data")
    reasons: list[str] = []

    def told() -> bool:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as asking:
            asking.request("GET", "/healthz")
            answer = asking.getresponse()
            reasons[:] = json.load(answer).get("reasons", [])
            return answer.status == 503

    wait_until(told)
    (reason,) = reasons
    assert reason.startswith("the clock is behind the data: that of pump-1 is 7.0 days ahead")
    assert process.end(signal.SIGTERM) == 0
    config = msgspec.structs.replace(
        load(ROOT / "configs" / "agent.minimal.toml"), node=Node("node", state=str(process.state))
    )
    assert "PROBLEM: the clock is behind the data" in as_text(read(config))
    found = machine.clock(config, synchronised=lambda: False)
    assert (found.level, "behind the data" in found.text) == ("fault", True)


# -- the journal ------------------------------------------------------------------------------


def test_a_batch_keeps_what_the_clock_said_and_one_of_before_can_be_read() -> None:
    rows = Rows(
        "pump-1", np.array([1, 2]), np.zeros((2, 1)), np.array([0, 1]), np.ones(2, dtype=np.bool_)
    )
    clock = Clock(7, ((1, 5),), frozenset({0, 1}))
    assert Batch.decode(Batch([rows], [], clock=clock).encode()).clock == clock
    body = Batch([rows], []).encode()
    older = msgspec.msgpack.encode(msgspec.msgpack.decode(body)[:6])
    read = Batch.decode(older)
    assert read.clock is None
    assert read.rows[0].t_ns.tolist() == [1, 2]


def test_a_checkpoint_of_before_goes_on_where_its_rows_had_come_to(
    configure: Configure, device: Open
) -> None:
    node = device(configure())
    Machine(node).come(range(50), sender_s=0)
    asset = node.engine.pipeline.assets["pump-1"]
    arrays = asset.arrays()
    del arrays["time"], arrays["anew"]
    asset.restore(arrays)
    assert asset.newest_ns == (START_S + 49 * MINUTE_S) * S_NS


def met(base: TimeBase, times: list[int]) -> list[int]:
    """Return where time begins anew; what was there before counts as known."""
    seen: set[int] = set()
    begun = []
    for t in times:
        if base.meet(t * S_NS, ahead=False, known=seen.__contains__):
            begun.append(t)
        seen.add(t * S_NS)
    return begun


@pytest.mark.parametrize("cut", [1, 2, 5, 100])
def test_many_readings_at_once_are_met_as_one_by_one(cut: int) -> None:
    rng = np.random.default_rng(3)
    times: Floats = np.cumsum(rng.integers(1, 100, size=400)) + 10**9
    times[::17] -= 500
    times[150:180] -= 900 * DAY_S
    times[260] += 40 * DAY_S
    t_ns = times.astype(np.int64) * S_NS
    clock = Clock(0, (), frozenset(range(0, 100, 9)))
    states = []
    for plainly in (False, True):
        base = TimeBase()
        begun = 0
        for begin in range(0, len(t_ns), cut):
            part = t_ns[begin : begin + cut]
            pos = np.arange(len(part))
            if plainly and base.plain(part, pos, clock):
                continue
            for t, at in zip(part.tolist(), pos.tolist(), strict=True):
                begun += base.meet(t, ahead=at in clock.ahead, known=lambda _: False)
        states.append((begun, base.arrays()["time"].tolist()))
    assert states[0] == states[1]
    assert states[0][0] > 0


def test_readings_that_are_older_but_not_in_a_row_begin_nothing() -> None:
    base = TimeBase()
    live = list(range(10**9, 10**9 + 2000, 10))
    behind = list(range(10**8, 10**8 + 2000, 10))
    mixed = [t for pair in zip(live, behind, strict=True) for t in pair]
    assert met(base, mixed) == []
    assert met(TimeBase(), [*live, *behind[:20]]) == [behind[ROWS - 1]]
    assert met(TimeBase(), [*live, *behind[:20:-1]]) == []
