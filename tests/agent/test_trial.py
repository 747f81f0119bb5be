"""A release is tried beside what judges, watched once it does, and taken back where it harms."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from agent.config import AgentConfig, Learning, TrialConfig
from agent.deployment import MOST_STARTS
from agent.local_round import readiness
from agent.rollout import deliver
from agent.status import read
from agent.trial import ASSETS, QUEUE, Bench, Count, Seen, Trial
from contract.release import Release
from contract.report import Alert, Health
from contract.update import Offered
from tests.agent.test_rollout import release, trained, worse

Configure = Callable[..., AgentConfig]
Open = Callable[[AgentConfig], Any]


def alarming(good: Release, *, version: int) -> Release:
    """Return a release that finds every machine sick."""
    limits = good.arrays["health/model/limits"] * 1e-6
    arrays = {**good.arrays, "health/model/limits": limits}
    return release(good.manifest.asset_class, arrays, version=version)


def numberless(good: Release, *, version: int) -> Release:
    """Return a release of finite numbers that makes none of a machine that moves at all."""
    variances = np.full_like(good.arrays["health/model/variances"], 1e-300)
    limits = good.arrays["health/model/limits"] * 1e-300
    arrays = {
        **good.arrays,
        "health/model/variances": variances,
        "health/model/limits": limits,
    }
    return release(good.manifest.asset_class, arrays, version=version)


class Plant:
    """A device whose pumps have failed a few times, and go on healthy."""

    def __init__(self, config: AgentConfig, device: Open) -> None:
        self.config = config
        self._open = device
        self.device = device(config)
        for n in range(6):
            self.device.wear_out(f"pump-{n}", n)
        self.device.engine.checkpoint()
        self._hour = 0

    def healthy(self, hours: int) -> list[Any]:
        """Let a pump run; return what is said of it."""
        rng = np.random.default_rng(self._hour)
        values = rng.normal(size=(hours, 2)) * 0.1 + [5.0, 40.0]
        said = self.device.live("pump-9", values, begin=self._hour)
        self._hour += hours
        return list(said)

    def offer(self, one: Release) -> str:
        return deliver(self.config.state, one)

    def pause(self) -> list[Any]:
        return list(self.device.engine.consider_releases(1))

    def run(self, hours: int) -> list[Any]:
        """Run with a pause every ten hours; return what became of releases."""
        verdicts = []
        for _ in range(hours // 10):
            self.healthy(10)
            verdicts += self.pause()
        return verdicts

    def again(self) -> None:
        """Kill the agent, and start it again."""
        self.device.kill()
        self.device = self._open(self.config)

    @property
    def live(self) -> int:
        return int(self.device.engine.status(online=True).live["pump"])

    @property
    def journal(self) -> list[tuple[int, str]]:
        rows = self.device.engine.store.database.rows(
            "SELECT version, verdict FROM rollout ORDER BY id"
        )
        return [(version, verdict) for version, verdict in rows]

    @property
    def offered(self) -> Offered:
        found = readiness(self.config.state).classes["pump"].offered
        assert found is not None
        return found


@pytest.fixture
def plant(configure: Configure, device: Open) -> Callable[..., Plant]:
    def make(name: str = "node", **trial: Any) -> Plant:
        return Plant(configure(name, learning=Learning(trial=TrialConfig(**trial))), device)

    return make


# -- shadow ----------------------------------------------------------------------------------------


def test_a_release_judges_beside_before_it_takes_the_place(plant: Callable[..., Plant]) -> None:
    one = plant(shadow=60, watch=0)
    one.healthy(40)
    good = trained(one.config)
    assert one.offer(good) == "delivered"
    (verdict,) = one.pause()
    assert (verdict.promoted, one.live) == (False, 0)
    assert one.offer(good) == "on trial"
    assert one.run(50) == []
    assert (one.offered.verdict, one.offered.settled) == ("shadow", False)
    (verdict,) = one.run(10)
    assert (verdict.promoted, one.live) == (True, 1)
    assert "held-out lives" in verdict.reason
    assert "of 60 vectors in alarm, by the other" in verdict.reason
    assert "ms for a vector" in verdict.reason
    assert one.journal == [(1, "shadow"), (1, "promoted")]
    told = one.offered
    assert (told.version, told.verdict, told.settled, told.vectors) == (1, "promoted", True, 0)
    assert told.error_h is not None
    assert [word for _, word, _ in read(one.config).rollouts] == ["promoted", "shadow"]


def test_what_is_said_is_the_same_to_the_bit_while_another_judges_beside(
    plant: Callable[..., Plant],
) -> None:
    beside, alone = plant("beside", shadow=500), plant("alone", shadow=500)
    for one in (beside, alone):
        one.healthy(40)
    beside.offer(trained(beside.config))
    for _ in range(6):
        expected = [msgspec.json.encode(said) for said in alone.healthy(10)]
        assert [msgspec.json.encode(said) for said in beside.healthy(10)] == expected
        beside.pause()
    assert beside.offered.verdict == "shadow"
    assert beside.device.state() == alone.device.state()


def test_a_shadow_goes_on_after_a_kill(plant: Callable[..., Plant]) -> None:
    one = plant(shadow=100, watch=0)
    one.healthy(40)
    one.offer(trained(one.config))
    one.pause()
    one.run(60)
    one.device.engine.checkpoint()
    one.again()
    verdicts = one.run(40)
    assert [verdict.promoted for verdict in verdicts] == [True]
    assert one.live == 1


def test_a_newer_release_takes_the_place_of_one_on_trial(plant: Callable[..., Plant]) -> None:
    one = plant(shadow=60, watch=0)
    one.healthy(40)
    one.offer(trained(one.config))
    one.pause()
    one.run(20)
    one.offer(trained(one.config, version=2))
    one.pause()
    one.run(60)
    assert one.live == 2
    assert one.journal == [(1, "shadow"), (1, "superseded"), (2, "shadow"), (2, "promoted")]


def test_a_release_waits_while_the_one_before_it_is_watched(plant: Callable[..., Plant]) -> None:
    one = plant(shadow=20, watch=60)
    one.healthy(40)
    one.offer(trained(one.config))
    one.pause()
    one.run(20)
    assert one.live == 1
    one.offer(trained(one.config, version=2))
    one.run(50)
    assert one.journal == [(1, "shadow"), (1, "promoted")]
    one.run(30)
    assert one.journal[2:] == [(1, "kept"), (2, "shadow"), (2, "promoted")]


def test_what_has_not_come_through_its_watch_is_nothing_to_go_back_to(
    plant: Callable[..., Plant],
) -> None:
    one = plant(watch=200)
    one.healthy(40)
    good = trained(one.config)
    one.offer(good)
    one.pause()
    one.again()
    one.offer(trained(one.config, version=2))
    one.pause()
    one.again()
    one.offer(alarming(good, version=3))
    one.pause()
    assert one.live == 3
    one.run(60)
    # 1 and 2 were promoted one after the other, and nobody knows of either yet.
    assert one.live == 0
    assert one.journal[-1] == (3, "rolled back")


def test_hours_of_the_data_count_too(plant: Callable[..., Plant]) -> None:
    one = plant(shadow=10, shadow_h=100.0, watch=0)
    one.healthy(40)
    one.offer(trained(one.config))
    one.run(100)
    assert one.live == 0
    one.run(20)
    assert one.live == 1


# -- bad models ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (alarming, "into alarm"),
        (numberless, "makes no number of"),
        (worse, "error on held-out lives"),
    ],
)
def test_what_the_newest_vectors_and_lives_speak_against_is_refused_at_once(
    bad: Callable[..., Release], words: str, plant: Callable[..., Plant]
) -> None:
    one = plant()
    one.healthy(120)
    good = trained(one.config)
    one.offer(good)
    one.pause()
    one.offer(bad(good, version=2))
    (verdict,) = one.pause()
    assert not verdict.promoted
    assert words in verdict.reason
    assert one.live == 1
    assert (one.offered.verdict, one.offered.settled) == ("rejected", True)
    assert {said.judged_by for said in one.healthy(5)} == {1}


def test_one_that_takes_too_long_is_refused_before_it_is_tried_on_lives(
    plant: Callable[..., Plant],
) -> None:
    one = plant(latency_ms=1e-6)
    one.healthy(60)
    one.offer(trained(one.config))
    (verdict,) = one.pause()
    assert not verdict.promoted
    assert "ms for a vector, and may 1e-06 ms" in verdict.reason
    assert one.live == 0


@pytest.mark.parametrize(
    ("bad", "words"), [(alarming, "into alarm"), (numberless, "makes no number of")]
)
def test_a_shadow_that_would_do_harm_never_judges(
    bad: Callable[..., Release], words: str, plant: Callable[..., Plant]
) -> None:
    one = plant(shadow=200)
    one.healthy(40)
    good = trained(one.config)
    one.again()  # nothing is remembered that it could be tried on
    one.offer(bad(good, version=1))
    one.pause()
    (verdict,) = one.run(60)
    assert words in verdict.reason
    assert one.journal == [(1, "shadow"), (1, "rejected")]
    assert one.live == 0
    assert one.offer(bad(good, version=1)).startswith("refused here before")


@pytest.mark.parametrize("bad", [alarming, numberless])
@pytest.mark.parametrize("first", [True, False], ids=["own models before", "a release before"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of what makes no number
def test_one_that_does_harm_once_it_judges_is_taken_back(
    bad: Callable[..., Release], first: bool, plant: Callable[..., Plant]
) -> None:
    one = plant(watch=60)
    one.healthy(40)
    good = trained(one.config)
    if not first:
        one.offer(good)
        one.pause()
        one.run(60)
    one.again()
    harm = bad(good, version=2)
    one.offer(harm)
    assert [verdict.promoted for verdict in one.pause()] == [True]
    (verdict,) = one.run(50)
    assert not verdict.promoted
    assert one.live == (0 if first else 1)
    told = one.offered
    assert (told.version, told.verdict, told.settled) == (2, "rolled back", True)
    judges = "this device's own models judge" if first else "version 1 judges again"
    assert told.reason.endswith(judges)
    assert one.journal[-1] == (2, "rolled back")
    said = [report for report in one.healthy(30) if isinstance(report, Health)]
    assert {report.judged_by for report in said} == {one.live}
    # Once more it is not tried, over a restart neither, unless a person says so.
    one.again()
    assert one.live == (0 if first else 1)
    assert one.offer(harm).startswith("refused here before")


def test_a_good_release_is_watched_and_kept(plant: Callable[..., Plant]) -> None:
    one = plant(watch=60)
    one.healthy(40)
    one.offer(trained(one.config))
    one.run(40)
    assert (one.live, one.offered.settled) == (1, False)
    one.device.engine.checkpoint()
    one.again()
    one.run(40)
    assert (one.live, one.offered.verdict, one.offered.settled) == (1, "promoted", True)
    assert one.journal == [(1, "promoted"), (1, "kept")]
    assert one.offered.alarms is not None


def test_a_machine_that_fails_while_a_release_is_watched_is_not_held_against_it(
    plant: Callable[..., Plant],
) -> None:
    one = plant(watch=100)
    one.healthy(60)
    one.offer(trained(one.config))
    one.pause()
    told = one.device.live("pump-9", np.full((60, 2), [9.0, 60.0]), begin=60)
    assert any(isinstance(said, Alert) and said.state == "raised" for said in told)
    one.pause()
    assert one.live == 1
    assert one.offered.alarms == pytest.approx(one.offered.alarms_before, abs=0.1)


@pytest.mark.parametrize("shadow", [0, 60])
def test_lives_that_end_while_a_release_is_on_trial_speak_in_the_end(
    shadow: int, plant: Callable[..., Plant], configure: Configure, device: Open
) -> None:
    bad = worse(trained(plant().config), version=1)
    trial = TrialConfig(shadow=shadow, watch=60, alarms_more=1.0)
    young = device(configure("young", learning=Learning(trial=trial)))
    young.live("pump-1", np.random.default_rng(1).normal(size=(40, 2)) * 0.1 + [5.0, 40.0])
    deliver(young.config.state, bad)
    (verdict,) = young.engine.consider_releases(1)
    assert "fleet's evidence" in verdict.reason
    for n in range(2, 8):
        young.wear_out(f"pump-{n}", n)
    verdicts = []
    while not verdicts:  # as many pauses as this machine needs
        verdicts = young.engine.consider_releases(2)
    assert "error on held-out lives" in verdicts[0].reason
    assert young.engine.status(online=True).live == {"pump": 0}
    row = young.engine.store.database.rows("SELECT verdict FROM rollout ORDER BY id")[-1]
    assert row == (("rejected",) if shadow else ("rolled back",))


def test_an_agent_that_ends_again_and_again_while_it_is_watched_takes_it_back(
    plant: Callable[..., Plant],
) -> None:
    one = plant()
    one.healthy(40)
    one.offer(trained(one.config))
    one.pause()
    for _ in range(MOST_STARTS):
        one.again()
    one.device.engine.checkpoint()  # this start did: it is not the release's fault
    for _ in range(MOST_STARTS):
        one.again()
        assert one.live == 1
    one.again()
    assert one.live == 0
    assert one.journal == [(1, "promoted"), (1, "rolled back")]
    one.again()
    assert one.live == 0


def test_what_a_person_restores_is_neither_compared_nor_watched(
    plant: Callable[..., Plant],
) -> None:
    one = plant(shadow=100)
    one.healthy(120)
    bad = alarming(trained(one.config), version=1)
    manifest = msgspec.structs.replace(bad.manifest, version=3, restores=1)
    one.offer(Release(manifest, bad.arrays))
    assert [verdict.promoted for verdict in one.pause()] == [True]
    assert one.run(60) == []
    assert one.live == 3


# -- bounds ----------------------------------------------------------------------------------------


def seen(asset: str, *, score: float = 0.1) -> Seen:
    return Seen(asset, 0, 1, np.zeros(2), np.zeros(2), score, None, score >= 1.0)


def test_what_waits_for_a_pause_is_bounded_and_the_rest_is_counted(configure: Configure) -> None:
    ticks = iter(range(100_000))
    bench = Bench(configure().asset_class[0], lambda: None, lambda: None)
    trial = Trial(bench, Count(), judges=False, clock=lambda: next(ticks) * 1e-5)
    for i in range(4 * QUEUE):
        trial.put(seen(f"pump-{i % (2 * ASSETS)}"))
    assert trial.count.left_out == QUEUE  # and of half of the assets nothing is looked at
    for _ in range(QUEUE):
        trial.work()
    assert trial.count.vectors == QUEUE
    slow = Trial(bench, Count(), judges=False, clock=lambda: next(ticks) * 1.0)
    for _ in range(20):
        slow.put(seen("pump-1"))
    for vectors in (1, 2, 3):
        slow.work()
        assert slow.count.vectors == vectors  # a pause ends behind the first that takes so long


def test_shares_are_compared_only_once_there_are_enough_of_them() -> None:
    config = TrialConfig(alarms=2.0, alarms_more=0.1)
    assert not Count(vectors=49, paired=49, alarms=49, paired_alarms=49).problem(config)
    assert Count(vectors=50, paired=50, alarms=50, paired_alarms=50).problem(config)
    # As many as the other, and a few more.
    assert not Count(vectors=50, paired=50, alarms=14, paired_alarms=14, before=5).problem(config)
    assert Count(vectors=50, paired=50, alarms=16, paired_alarms=16, before=5).problem(config)
    # With nothing to compare, most of all vectors.
    assert not Count(vectors=50, alarms=25).problem(config)
    assert Count(vectors=50, alarms=26).problem(config)


def test_a_folder_of_an_agent_of_before_says_nothing_of_releases(
    plant: Callable[..., Plant], tmp_path: Path
) -> None:
    one = plant()
    assert readiness(one.config.state).classes["pump"].offered is None
    assert readiness(tmp_path / "node").site == one.config.node.site
