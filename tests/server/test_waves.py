"""A release reaches real agents wave by wave, and is taken back from those that it harms."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from agent.app import Engine
from agent.batch import Batch, Rows
from agent.config import AgentConfig, Keep, Learning, Node, TrialConfig
from contract.errors import ConfigError
from contract.model_spec import Moments
from contract.release import Release
from contract.spec import AssetClass, Channel
from contract.update import Offered
from server import cli, wave
from server.config import load
from server.fleet.federation import Federation
from server.fleet.page.gate import Session
from server.fleet.page.layout import Visit
from server.fleet.page.rounds import rounds
from server.guard import Limits
from server.registry import Line, Registry
from server.rounds import Fleet
from server.serving import Serving
from server.status import Status
from server.training import Settings, Training
from server.wave import Policy, Wave
from tests.agent.test_downlink import release_of
from tests.server.test_retrain import Clock, EnoughError

HOUR_NS = 3_600_000_000_000
START_NS = 1_199_145_600 * 10**9
SPEC = AssetClass(
    "pump",
    (Channel("vibration", "mm/s"), Channel("temperature", "degC")),
    stats=("mean_4", "std_4"),
    health=Moments(baseline=10, learn=20, alarm_rate=0.01),
)
POLICY = Policy(canary=1, shares=(0.5, 1.0), watch_s=20.0, enough=1.0, alarms_more=0.5, look_s=4.0)


class Machine:
    """An agent and its pump, which stays healthy."""

    def __init__(self, folder: Path, name: str, seed: int, site: str) -> None:
        self.name = name
        config = AgentConfig(
            (SPEC,),
            node=Node(name, site, str(folder)),
            keep=Keep(power_loss_safe=False),
            learning=Learning(trial=TrialConfig(watch=60, alarms_more=0.5)),
        )
        self.state = config.state
        self._opened = ExitStack()
        self.engine = Engine(config, self._opened)
        self._rng = np.random.default_rng(seed)
        self._hour = 0
        self.versions = [0]
        """That judged, one after the other."""

    def live(self, hours: int) -> None:
        values = self._rng.normal(size=(hours, 2)) * 0.1 + [5.0, 40.0]
        t_ns = START_NS + HOUR_NS * np.arange(self._hour, self._hour + hours)
        self._hour += hours
        rows = Rows("pump-1", t_ns, values, np.arange(hours), np.ones(hours, dtype=np.bool_))
        self.engine.process(Batch([rows], []))

    def tend(self) -> None:
        """Do what a running agent does in a while."""
        self.engine.consider_releases(1)
        self.live(15)
        if self.version != self.versions[-1]:
            self.versions.append(self.version)

    @property
    def version(self) -> int:
        return self.engine.status(online=True).live["pump"]

    def close(self) -> None:
        self._opened.close()


def harmful(good: Release) -> Release:
    """Return a release that finds every machine sick."""
    limits = good.arrays["health/model/limits"] * 1e-6
    return Release(good.manifest, {**good.arrays, "health/model/limits": limits})


class Site:
    """A server, its clock, and the machines that it looks after."""

    def __init__(self, folder: Path, grid: Any, count: int, policy: Policy) -> None:
        self.state = folder / "server"
        self.state.mkdir()
        self.grid = grid
        self.policy = policy
        self.clock = Clock()
        self.clock.meanwhile = self._meanwhile
        self.machines = [
            Machine(folder / f"rpi-{i}", f"rpi-{i}", i, ("north", "south")[i % 2])
            for i in range(count)
        ]
        for i, machine in enumerate(self.machines):
            machine.live(60)
            machine.engine.checkpoint()
            grid.states[i + 1] = machine.state
        self.ever: dict[int, set[str]] = {}
        """By version, the machines that it ever judged."""
        self.start()

    def _meanwhile(self) -> None:
        for machine in self.machines:
            machine.tend()
        for machine in self.machines:
            self.ever.setdefault(machine.version, set()).add(machine.name)
        found = wave.read(self.registry.folder)
        if found is not None and not wave.everybody(found, self.policy):
            assert self.ever.get(found.version, set()) <= found.members.keys()

    def start(self) -> None:
        """Start the server, or another one in the place of one that was killed."""
        base = Settings(self.state, "", 1, 1, 0.3, 1e6, "fedavg", True, Limits())
        fleet = Fleet(self.grid, wait=self.clock.wait, clock=self.clock)
        settings = replace(base, waves=self.policy)
        self.serving = Serving(Training(settings, fleet, Status(), now=self.clock))

    def serve(self, until: Callable[[], bool]) -> None:
        self.clock.until = until
        with pytest.raises(EnoughError):
            self.serving.run(self.serving._training.open())

    def serve_for(self, seconds: float) -> None:
        until = self.clock.s + seconds
        self.serve(lambda: self.clock.s >= until)

    def all_at(self, version: int) -> Callable[[], bool]:
        return lambda: all(machine.version == version for machine in self.machines)

    @property
    def registry(self) -> Registry:
        return Registry(self.state, "pump")

    @property
    def wave(self) -> Wave:
        found = wave.read(self.registry.folder)
        assert found is not None
        return found

    @property
    def waves(self) -> list[tuple[object, ...]]:
        events = [event for event in self.registry.journal() if event["event"] == "wave"]
        return [(event["version"], event["wave"], event["state"]) for event in events]

    def next_version(self) -> Release:
        """Return the present version again, as a training makes it from nothing new."""
        current = self.registry.current()
        assert current is not None
        number = self.registry.next_version()
        parent = current.version
        manifest = msgspec.structs.replace(
            current.manifest, version=number, parent=parent, restores=None
        )
        return Release(manifest, current.arrays)

    def register(self, release: Release) -> Release:
        self.registry.register(release)
        return release

    def forget_recent(self) -> None:
        """Leave the machines nothing that a release could be tried on before it judges."""
        for machine in self.machines:
            for recent in machine.engine.deployment._recent.values():
                recent.clear()


@pytest.fixture
def site(tmp_path: Path, grid: Any) -> Iterator[Callable[..., Site]]:
    with ExitStack() as opened:

        def make(count: int = 6, policy: Policy = POLICY) -> Site:
            made = Site(tmp_path, grid, count, policy)
            for machine in made.machines:
                opened.callback(machine.close)
            return made

        yield make


def test_a_release_comes_to_a_canary_then_to_half_then_to_all(site: Callable[..., Site]) -> None:
    one = site()
    one.serve(lambda: one.wave.number == 1 if one.registry.versions() else False)
    (canary,) = one.wave.of(0)
    assert one.wave.told[canary].verdict == "promoted"
    one.serve(lambda: one.wave.number == 2)
    second = one.wave.of(1)
    assert len(second) == 2
    # Of each site as many, as far as that goes.
    sites = [int(name[-1]) % 2 for name in [canary, *second]]
    assert sorted(sites) in ([0, 0, 1], [0, 1, 1])
    one.serve(lambda: one.wave.state == "done")
    assert one.all_at(1)()
    assert [machine.versions for machine in one.machines] == [[0, 1]] * 6
    assert one.waves == [
        (1, 0, "watched"), (1, 1, "watched"), (1, 2, "watched"), (1, 2, "done"),
    ]  # fmt: skip


def test_who_comes_first_follows_from_seed_and_release_and_from_nothing_else() -> None:
    sites = {f"rpi-{i}": ("north", "south", "west")[i % 3] for i in range(30)}
    first = wave.order(sites, 1, "ab")
    assert wave.order(dict(reversed(sites.items())), 1, "ab") == first
    assert wave.order(sites, 2, "ab") != first
    assert wave.order(sites, 1, "ac") != first
    for at in range(0, 30, 3):
        assert {sites[name] for name in first[at : at + 3]} == {"north", "south", "west"}


@pytest.mark.parametrize("first", [True, False], ids=["the first release", "a later one"])
def test_a_release_that_harms_its_canary_comes_no_further_and_is_taken_back(
    first: bool, site: Callable[..., Site]
) -> None:
    one = site()
    before = 0
    if first:
        one.registry.pin(Line(SPEC.digest(), SPEC))
        harm = one.register(harmful(release_of(SPEC, 1)))
    else:
        one.serve(lambda: bool(one.registry.versions()) and one.wave.state == "done")
        before = 1
        assert one.all_at(before)()
        harm = one.register(harmful(one.next_version()))
    one.forget_recent()
    one.serve(lambda: one.registry.versions()[-1] > harm.version and one.wave.state == "done")
    (stopped,) = [e for e in one.registry.journal() if e.get("state") == "stopped"]
    assert stopped["version"] == harm.version
    assert "1 of 1 devices of wave 0 do without" in str(stopped["why"])
    assert "into alarm" in str(stopped["why"])
    assert len(one.ever[harm.version]) == 1
    again = one.registry.current()
    assert again is not None
    assert again.manifest.restores == before
    one.serve(one.all_at(again.version))
    assert len(one.ever[harm.version]) == 1


def test_a_server_that_is_killed_in_a_wave_goes_on_where_it_was(site: Callable[..., Site]) -> None:
    one = site()
    one.serve(lambda: bool(one.registry.versions()) and len(one.wave.members) == 1)
    (canary,) = one.wave.of(0)
    one.start()
    one.serve_for(6.0)
    assert (one.wave.of(0), one.wave.number) == ([canary], 0)
    one.serve(lambda: one.wave.number == 1)
    one.start()
    one.serve(lambda: one.wave.state == "done")
    assert one.all_at(1)()
    assert one.wave.of(0) == [canary]


def test_a_server_killed_as_it_stops_a_release_takes_it_back_when_it_is_there_again(
    site: Callable[..., Site],
) -> None:
    one = site(3)
    one.serve(lambda: bool(one.registry.versions()) and one.wave.state == "done")
    made = one.register(one.next_version())
    one.serve(lambda: one.wave.version == made.version and bool(one.wave.members))
    found = one.wave
    found.state, found.why = "stopped", "as it was decided before the kill"
    found.save(one.registry.folder)
    one.start()
    one.serve(lambda: len(one.registry.versions()) == 3)
    one.serve(one.all_at(3))
    current = one.registry.current()
    assert current is not None
    assert current.manifest.restores == 1


def test_while_a_release_is_on_its_way_none_is_made_beside_it(site: Callable[..., Site]) -> None:
    one = site(3, msgspec.structs.replace(POLICY, watch_s=1000.0))
    one.serve(lambda: bool(one.registry.versions()))
    one.serving._settings = replace(one.serving._settings, interval_s=10.0)
    one.serve_for(60.0)
    assert one.registry.versions() == [1]
    assert (one.wave.number, one.wave.under_way) == (0, True)


def test_a_device_that_joins_gets_what_everybody_has(site: Callable[..., Site]) -> None:
    one = site(4)
    late = one.grid.states.pop(4)
    one.serve(lambda: bool(one.registry.versions()) and len(one.wave.members) == 1)
    one.grid.states[4] = late
    one.serve_for(6.0)
    assert one.machines[3].version == 0
    one.serve(lambda: one.wave.state == "done")
    assert one.all_at(1)()


def test_without_waves_everybody_gets_it_at_once(site: Callable[..., Site]) -> None:
    one = site(4, Policy())
    one.serve(one.all_at(1))
    assert wave.read(one.registry.folder) is None
    assert one.clock.s < 60


# -- what is decided -------------------------------------------------------------------------------


def told(verdict: str = "promoted", *, settled: bool = True, **more: Any) -> Offered:
    return Offered(2, "d", verdict, settled=settled, reason="so it is", **more)


def wave_of(count: int, *said: Offered, **more: Any) -> Wave:
    members = {f"rpi-{i:02}": 0 for i in range(count)}
    return Wave(2, "d", 1, members=members, told=dict(zip(members, said, strict=False)), **more)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (wave_of(10, told(), told("rejected"), told("rolled back")), ""),
        (wave_of(10, told("rejected"), told("rejected"), told("rolled back")), "3 of 10 devices"),
        (wave_of(2, told(vectors=300, alarms=0.12, alarms_before=0.02)), ""),
        (wave_of(2, told(vectors=300, alarms=0.2, alarms_before=0.02)), "20% of 300 vectors"),
        (wave_of(2, told(vectors=150, alarms=0.9, alarms_before=0.02)), ""),
        (
            wave_of(
                2,
                told(vectors=300, alarms=0.0, alarms_before=0.0),
                told(vectors=100, alarms=0.6, alarms_before=0.0),
            ),
            "15% of 400 vectors",
        ),
        (wave_of(2, told(error_h=5.2, error_before_h=5.0)), ""),
        (
            wave_of(
                2,
                told(error_h=5.4, error_before_h=5.0),
                told(error_h=5.4, error_before_h=5.0),
            ),
            "errs by 5.4 h on the held-out lives of 2 devices",
        ),
        (wave_of(2, told(error_h=5.4)), ""),
    ],
)
def test_what_stops_a_release(found: Wave, words: str) -> None:
    why = wave.regression(found, Policy(canary=1))
    assert words in why
    assert bool(words) == bool(why)


def test_what_a_wave_waits_for() -> None:
    policy = Policy(canary=4, enough=0.5, watch_s=60.0)
    assert "device to be there" in wave.waited_for(wave_of(0), policy, 0.0)
    running = told(settled=False)
    assert "1 more of 4" in wave.waited_for(wave_of(4, told(), running), policy, 100.0)
    assert wave.waited_for(wave_of(4, told(), told()), policy, 20.0) == "40 s to pass"
    assert not wave.waited_for(wave_of(4, told(), told()), policy, 60.0)


def test_until_it_has_come_to_all_the_version_before_it_stands_for_the_fleet(
    tmp_path: Path,
) -> None:
    assert wave.for_all(tmp_path, 2) == 2
    found = wave_of(3)
    found.save(tmp_path)
    assert wave.for_all(tmp_path, 2) == 1
    assert wave.for_all(tmp_path, 3) == 3
    found.before = 0  # the first: before it there is none
    found.save(tmp_path)
    assert wave.for_all(tmp_path, 2) == 2
    found.state = "done"
    found.save(tmp_path)
    assert wave.for_all(tmp_path, 2) == 2
    assert wave.for_all(tmp_path, None) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("shares = [0.5]", "the last must be 1.0"),
        ("shares = [0.5, 0.2, 1.0]", "larger than the one before"),
        ("canary = -1", "waves.canary"),
        ("cannary = 1", "cannary"),
    ],
)
def test_a_mistake_in_the_waves_names_the_key(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    path.write_text(f"[waves]\n{text}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=words):
        load(path)


def page_of(site: Site) -> str:
    """Return the page that shows the federation."""
    visit = Visit(Session("s", 0, allowed=True), "t", "", site.clock.s, (), asks=False, said="")
    return rounds(visit, Federation(site.state), [])


# -- by hand ---------------------------------------------------------------------------------------


def test_a_person_sees_holds_continues_and_stops_a_release(
    site: Callable[..., Site], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = site(4, msgspec.structs.replace(POLICY, watch_s=5000.0))
    path = tmp_path / "server.toml"
    path.write_text(f'state = "{one.state}"\n', encoding="utf-8")

    def command(*words: str) -> str:
        assert cli.main(["models", *words, "--config", str(path)]) == 0
        return capsys.readouterr().out

    one.serve(lambda: bool(one.registry.versions()) and bool(one.wave.told))
    assert "version 1: wave 0, watched" in command("wave")
    assert "wave 0, watched, 1 devices" in page_of(one)
    command("wave", "--hold")
    one.serve(lambda: one.wave.state == "held")
    one.serve_for(30.0)
    assert one.ever[1] == set(one.wave.of(0))
    command("wave", "--go")
    one.serve(lambda: one.wave.number == 1)
    assert one.wave.state == "watched"
    said = command("wave")
    assert "kept" in said
    (canary,) = one.wave.of(0)
    assert canary in said
    assert "wave 1" in command("list")
    command("wave", "--stop")
    one.serve(lambda: one.all_at(2)() and one.wave.state == "done")
    history = command("history")
    assert "a person stopped it" in history
    assert "restores each device's own models" in history
    assert "stopped: a person stopped it" in page_of(one)
    assert "restores each device&#x27;s own models" in page_of(one)
    assert cli.main(["models", "wave", "--go", "--config", str(path)]) == 2
    assert "no release is on its way" in capsys.readouterr().err
