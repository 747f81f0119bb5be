"""The states of an alert: what leads from one to the other, by the data, by people, by time."""

from collections.abc import Callable
from typing import Any, Literal

import msgspec
import numpy as np
import pytest

from agent.alerts import RETURN_AT, AssetAlert
from agent.batch import Batch, Event
from agent.commands import word
from agent.config import AgentConfig
from agent.wording import in_words
from contract.model_spec import Moments
from contract.report import Acknowledge, Alert, LifeEvent, Shelve, Unshelve, Verdict
from contract.spec import AssetClass, Channel

Configure = Callable[..., AgentConfig]
Open = Callable[[AgentConfig], Any]

SPEC = AssetClass(
    "pump",
    (Channel("vibration", "mm/s"),),
    cap_h=100.0,
    alert_rul_h=10.0,
    health=Moments(on_delay=2, off_delay=2),
)
LATCHING = msgspec.structs.replace(SPEC, latch=True)
DEGRADED, FAILING, WELL = 1.5, 9.0, 0.1
HOUR = 3_600_000_000_000
START_S = 1_199_145_600


class Watched:
    """An alert, to which scores come one an hour."""

    def __init__(self, spec: AssetClass = SPEC) -> None:
        self.alert = AssetAlert(spec)
        self.t_ns = 0

    def push(self, *scores: float, rul_h: float | None = None) -> list[str]:
        """Return the changes that scores make."""
        changes: list[str] = []
        for score in scores:
            self.t_ns += HOUR
            changes.append(self.alert.push(self.t_ns, score, rul_h))
        return changes

    def shelve(self, hours: float) -> str:
        return self.alert.shelve(self.t_ns + round(hours * HOUR))

    def told(self, state: Any) -> Alert:
        return self.alert.report("pump-1", state, self.t_ns, judged_by=0)

    @property
    def state(self) -> str:
        return self.alert.state


def led_to(state: str, spec: AssetClass = SPEC) -> Watched:
    """Return an alert that was led to a state."""
    one = Watched(spec)
    if state == "normal":
        return one
    one.push(DEGRADED, DEGRADED)
    if state in {"acknowledged", "shelved"}:
        one.alert.acknowledge()
    if state == "shelved":
        one.shelve(8)
    if state in {"returned", "latched"}:
        one.push(WELL, WELL)
    assert one.state == state
    return one


# -- by the data -----------------------------------------------------------------------------------


def test_an_alert_is_raised_after_its_on_delay_and_counted_from_the_first_score() -> None:
    one = Watched()
    assert one.push(DEGRADED, WELL, DEGRADED, DEGRADED) == ["", "", "", "raised"]
    told = one.told("raised")
    assert (told.id, told.since, told.t) == ("pump-1/0/1", 3 * 3600, 4 * 3600)
    assert (told.now, told.severity) == ("unacknowledged", "degraded")


@pytest.mark.parametrize(
    ("score", "changes"),
    [(RETURN_AT + 0.01, ["", "", ""]), (RETURN_AT - 0.01, ["", "returned", ""])],
    ids=["within the hysteresis", "below it"],
)
def test_an_alert_ends_only_well_below_the_limit(score: float, changes: list[str]) -> None:
    one = led_to("unacknowledged")
    assert one.push(score, score, score) == changes


def test_a_score_that_goes_up_again_begins_the_off_delay_anew() -> None:
    one = led_to("unacknowledged")
    assert one.push(WELL, 0.9, WELL, 0.9, WELL) == [""] * 5
    assert one.push(WELL) == ["returned"]


def test_little_life_left_holds_an_alert_that_no_score_would_hold() -> None:
    one = Watched()
    assert one.push(WELL, WELL, rul_h=9.0) == ["", "raised"]
    assert "near the end of its life" in in_words(one.told("raised"), SPEC).text
    assert one.push(WELL, WELL, rul_h=9.0) == ["", ""]
    assert one.push(WELL, WELL, rul_h=50.0) == ["", "returned"]


def test_what_gets_worse_is_told_once_and_to_be_acknowledged_again() -> None:
    one = led_to("acknowledged")
    assert one.push(FAILING, FAILING, DEGRADED, FAILING) == ["escalated", "", "", ""]
    assert one.state == "unacknowledged"
    assert one.told("escalated").severity == "failing"
    assert one.told("escalated").text.startswith("pump-1: worse: failing, 9.0 times the limit")


def test_what_is_failing_at_once_is_raised_and_not_escalated() -> None:
    one = Watched()
    assert one.push(FAILING, FAILING, FAILING) == ["", "raised", ""]
    assert one.told("raised").severity == "failing"


def test_each_alert_of_an_asset_has_an_id_of_its_own() -> None:
    one = Watched()
    for number in (1, 2, 3):
        one.push(DEGRADED, DEGRADED)
        assert one.told("raised").id == f"pump-1/0/{number}"
        one.push(WELL, WELL)
    first = one.alert.find("pump-1", "pump-1/0/1")
    assert first is not None
    assert (first.since_ns, first.until_ns) == (HOUR, 4 * HOUR)
    for unknown in ("pump-1/0/4", "pump-1/1/1", "pump-2/0/1", "pump-1/0/x", "9" * 30):
        assert one.alert.find("pump-1", unknown) is None


# -- by people: the whole table --------------------------------------------------------------------

DONE = {
    "acknowledge": lambda one: one.alert.acknowledge(),
    "judge": lambda one: one.alert.judge("confirmed"),
    "shelve": lambda one: one.shelve(8),
    "unshelve": lambda one: one.alert.unshelve(),
}
# Before, what is done, what is answered, and the state behind it; latched: of a class that latches.
TABLE = [
    ("normal", "acknowledge", "normal", "normal"),
    ("normal", "judge", "normal", "normal"),
    ("normal", "shelve", "shelved", "shelved"),
    ("normal", "unshelve", "normal", "normal"),
    ("unacknowledged", "acknowledge", "acknowledged", "acknowledged"),
    ("unacknowledged", "judge", "acknowledged", "acknowledged"),
    ("unacknowledged", "shelve", "shelved", "shelved"),
    ("unacknowledged", "unshelve", "unacknowledged", "unacknowledged"),
    ("acknowledged", "acknowledge", "acknowledged", "acknowledged"),
    ("acknowledged", "judge", "acknowledged", "acknowledged"),
    ("acknowledged", "shelve", "shelved", "shelved"),
    ("acknowledged", "unshelve", "acknowledged", "acknowledged"),
    ("returned", "acknowledge", "normal", "normal"),
    ("returned", "judge", "normal", "normal"),
    ("returned", "shelve", "shelved", "shelved"),
    ("returned", "unshelve", "returned", "returned"),
    ("latched", "acknowledge", "returned", "normal"),
    ("latched", "judge", "returned", "normal"),
    ("latched", "shelve", "shelved", "shelved"),
    ("latched", "unshelve", "latched", "latched"),
    ("shelved", "acknowledge", "shelved", "shelved"),
    ("shelved", "judge", "shelved", "shelved"),
    ("shelved", "shelve", "shelved", "shelved"),
    ("shelved", "unshelve", "unshelved", "unacknowledged"),
]


@pytest.mark.parametrize(("before", "done", "answer", "behind"), TABLE)
def test_what_people_do_leads_from_each_state_to_another(
    before: str, done: str, answer: str, behind: str
) -> None:
    one = led_to(before, LATCHING if before == "latched" else SPEC)
    assert DONE[done](one) == answer
    assert one.state == behind


@pytest.mark.parametrize("before", ["unacknowledged", "acknowledged"])
def test_an_acknowledged_alert_that_returns_is_owed_nothing(before: str) -> None:
    one = led_to(before)
    assert one.push(WELL, WELL) == ["", "returned"]
    assert one.state == ("returned" if before == "unacknowledged" else "normal")


def test_only_what_nobody_has_acknowledged_is_latched() -> None:
    one = Watched(LATCHING)
    one.push(DEGRADED, DEGRADED)
    assert one.push(WELL, WELL) == ["", "latched"]
    one.push(DEGRADED, DEGRADED)
    one.alert.acknowledge()
    assert one.push(WELL, WELL) == ["", "returned"]
    assert one.state == "normal"


# -- shelved ---------------------------------------------------------------------------------------


def test_what_is_shelved_says_nothing_until_its_hours_are_over() -> None:
    one = led_to("unacknowledged")
    assert one.shelve(4) == "shelved"
    assert one.push(FAILING, WELL, WELL) == ["", "", ""]
    assert one.push(WELL) == ["normal"]
    assert one.state == "normal"


def test_what_was_raised_while_shelved_is_raised_when_the_hours_are_over() -> None:
    one = Watched()
    one.shelve(4)
    assert one.push(DEGRADED, DEGRADED, DEGRADED, DEGRADED) == ["", "", "", "raised"]
    assert one.told("raised").since == 3600
    assert one.state == "unacknowledged"


def test_what_stands_still_is_unshelved_and_to_be_acknowledged_again() -> None:
    one = led_to("shelved")
    assert one.push(*[DEGRADED] * 7) == [""] * 7
    assert one.push(DEGRADED) == ["unshelved"]
    assert one.state == "unacknowledged"
    assert one.told("unshelved").text.startswith("pump-1: shelved no longer: 1.5 times the limit")


def test_time_without_a_score_ends_a_shelving_too() -> None:
    one = led_to("shelved")
    assert one.alert.expire(one.t_ns + 8 * HOUR - 1) == ""
    assert one.alert.expire(one.t_ns + 8 * HOUR) == "unshelved"


def test_a_shelving_that_is_over_when_it_comes_hides_nothing() -> None:
    one = led_to("unacknowledged")
    assert one.alert.shelve(one.t_ns - HOUR) == "unshelved"
    assert one.state == "unacknowledged"


@pytest.mark.parametrize("acknowledged", [False, True])
def test_what_latched_while_it_was_shelved_is_held_when_it_is_shown_again(
    acknowledged: bool,
) -> None:
    one = Watched(LATCHING)
    one.push(DEGRADED, DEGRADED)
    if acknowledged:
        one.alert.acknowledge()
    one.shelve(4)
    assert one.push(WELL, WELL) == ["", ""]
    assert one.alert.unshelve() == ("normal" if acknowledged else "latched")


def test_what_is_shelved_says_until_when_and_what_it_hides() -> None:
    one = led_to("unacknowledged")
    one.push(FAILING)
    one.shelve(8)
    told = one.told("shelved")
    assert told.until == (one.t_ns + 8 * HOUR) / 1e9
    assert told.text == (
        "pump-1: shelved until 1970-01-01 11:00 UTC; failing, 9.0 times the limit since "
        "1970-01-01 01:00 UTC [pump-1/0/1]"
    )
    assert not told.stands


# -- the end of a life -----------------------------------------------------------------------------


@pytest.mark.parametrize("latch", [False, True], ids=["", "latching"])
@pytest.mark.parametrize(
    "before", ["normal", "unacknowledged", "acknowledged", "returned", "latched", "shelved"]
)
def test_with_the_life_everything_about_its_alert_ends(before: str, latch: bool) -> None:
    if (before == "latched" and not latch) or (before == "returned" and latch):
        pytest.skip("there is no such state")
    one = led_to(before, LATCHING if latch else SPEC)
    assert one.alert.end(one.t_ns) is (before != "normal")
    assert one.state == "normal"
    assert one.push(WELL, WELL) == ["", ""]
    assert one.push(DEGRADED, DEGRADED) == ["", "raised"]


def say(node: Any, asset: str, *said: Any, at: float) -> list[Any]:
    """Let people say something at an hour; return what comes of it."""
    t_ns = (START_S + round(at * 3600)) * 10**9
    events = [
        Event(n, asset, t_ns, word(one), msgspec.json.encode(one)) for n, one in enumerate(said)
    ]
    found: list[Any] = node.engine.process(Batch([], events))
    return found


def readings(bad: int, *, well: int = 40) -> Any:
    """Return healthy hours, and then bad ones."""
    values = np.random.default_rng(3).normal([5.0, 40.0], 0.1, size=(well + bad, 2))
    values[well:] += 10.0
    return values


def alerts(outcomes: list[Any]) -> list[Alert]:
    return [one for one in outcomes if isinstance(one, Alert)]


@pytest.mark.parametrize("event", ["failed", "maintained", "replaced", "started"])
def test_a_life_event_says_that_it_closed_the_alert_and_not_that_the_machine_is_well(
    event: Literal["failed", "maintained", "replaced", "started"],
    configure: Configure,
    device: Open,
) -> None:
    node = device(configure())
    raised = alerts(node.live("pump-1", readings(20)))[-1]
    (closed,) = alerts(say(node, "pump-1", LifeEvent(event, ref="r1"), at=61))
    assert (closed.state, closed.now, closed.event, closed.ref) == ("normal", "normal", event, "r1")
    assert closed.id == raised.id
    assert closed.score > 1.0
    assert closed.text == f"pump-1: {event}: alert closed [{raised.id}]"
    (noted,) = alerts(say(node, "pump-1", LifeEvent(event, ref="r2"), at=62))
    assert (noted.text, noted.event) == (f"pump-1: no alert ({event}: noted)", "")


def test_a_life_event_that_closes_nothing_and_that_nobody_waits_for_says_nothing(
    configure: Configure, device: Open
) -> None:
    node = device(configure())
    node.live("pump-1", readings(0, well=10))
    assert say(node, "pump-1", LifeEvent("maintained"), at=41) == []


def test_the_life_that_begins_after_a_failure_is_the_next_one(
    configure: Configure, device: Open
) -> None:
    node = device(configure())
    for life in range(3):
        begin = 100 * life
        say(node, "pump-1", LifeEvent("started"), at=begin)
        said = node.live("pump-1", readings(20), begin=begin)
        assert alerts(said)[0].id.startswith(f"pump-1/{life}/")
        assert {one.life for one in said if not isinstance(one, Alert)} == {life}
        node.kill()
        node = device(configure())  # the journal alone says whether a life has begun
        say(node, "pump-1", LifeEvent("failed"), at=begin + 61)
    assert node.engine.pipeline.assets["pump-1"].life == 3
    assert node.engine.pipeline.counts.lives == 3


def test_a_life_of_one_open_row_counts(configure: Configure, device: Open) -> None:
    node = device(configure())
    node.live("pump-1", readings(0, well=1))
    say(node, "pump-1", LifeEvent("started"), at=2)
    assert node.engine.pipeline.assets["pump-1"].life == 1


# -- kill and replay -------------------------------------------------------------------------------

SCRIPT: list[tuple[str, Any]] = [
    ("live", 30),
    ("say", Acknowledge(ref="a")),
    ("say", Shelve(hours=5.0)),
    ("live", 3),
    ("say", Verdict("confirmed", by="kim", fault="bearing")),
    ("live", 4),
    ("say", Unshelve()),
    ("say", Verdict("false_alarm", by="kim")),
    ("live", 2),
    ("say", LifeEvent("maintained", ref="m")),
    ("say", LifeEvent("started")),
    ("live", 6),
]


def played(node: Any, device: Open, *, killed: bool) -> tuple[Any, list[Any]]:
    """Play the script, with a kill behind each step or none; return the device and its words."""
    said: list[Any] = node.live("pump-1", readings(0))
    hour = 40
    for what, detail in SCRIPT:
        if what == "live":
            said += node.live("pump-1", readings(detail)[40:], begin=hour)
            hour += detail
        else:
            said += say(node, "pump-1", detail, at=hour)
        if killed:
            node.kill()
            node = device(node.config)
    return node, said


@pytest.mark.parametrize("latch", [False, True], ids=["", "latching"])
def test_a_killed_device_comes_back_with_the_same_alert_and_says_the_same(
    latch: bool, configure: Configure, device: Open
) -> None:
    spec = msgspec.structs.replace(configure().asset_class[0], latch=latch)
    left, said = played(device(configure("never", spec)), device, killed=False)
    back, again = played(device(configure("often", spec)), device, killed=True)
    assert again == said
    states = {one.now for one in alerts(said)}
    assert states >= {"unacknowledged", "acknowledged", "shelved", "normal"}
    assert back.state() == left.state()
    query = "SELECT alert, verdict, fault, by FROM verdict ORDER BY id"
    found = [one.engine.store.database.rows(query) for one in (left, back)]
    raised = next(one.id for one in alerts(said) if one.ref == "a")
    assert (
        found[0]
        == found[1]
        == [
            (raised, "confirmed", "bearing", "kim"),
            (raised, "false_alarm", "", "kim"),
        ]
    )
