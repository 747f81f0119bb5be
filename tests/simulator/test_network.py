"""Bad networks and clocks: what comes, when, in which order, and what the truth tells of it."""

import math
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import pytest

from contract.errors import ConfigError
from contract.topics import EVENT, READINGS
from simulator import truth
from simulator.config import Node, Scenario, load
from simulator.message import Message
from simulator.network import Leap, Network, Outage
from simulator.plant import PHASES, Plant
from simulator.poison import Poison


def plant(network: Network | None = None, poison: Poison | None = None) -> Plant:
    node = Node("node-01", ("p-1", "p-2", "p-3"), {"bearing": 1.0}, network=network, poison=poison)
    good = Node("node-02", ("q-1",), {"bearing": 1.0})
    start = datetime(2026, 1, 5, tzinfo=UTC)
    return Plant(Scenario("demo", start, (node, good), lives=1))


def play(network: Network | None = None) -> list[Message]:
    return list(plant(network).messages(PHASES["all"]))


def rows(messages: list[Message], node: str = "node-01") -> list[Message]:
    return [m for m in messages if m.leaf == READINGS and m.node == node]


CLEAN = play()


def test_a_network_that_does_nothing_changes_nothing() -> None:
    def plain(messages: list[Message]) -> Counter[tuple[float, str, bytes, int]]:
        return Counter((m.t, m.asset, m.payload, m.rows) for m in messages)

    assert plain(play(Network())) == plain(CLEAN)


def test_what_is_lost_never_comes_and_no_event_is_lost() -> None:
    got = play(Network(loss=0.2))
    share = len(rows(got)) / len(rows(CLEAN))
    spread = math.sqrt(0.2 * 0.8 / len(rows(CLEAN)))
    assert share == pytest.approx(0.8, abs=4 * spread)
    assert rows(got, "node-02") == rows(CLEAN, "node-02")
    assert [m for m in got if m.leaf == EVENT] == [m for m in CLEAN if m.leaf == EVENT]
    assert {m.payload for m in rows(got)} < {m.payload for m in rows(CLEAN)}


def test_what_comes_twice_counts_once() -> None:
    got = rows(play(Network(duplicate=0.3)))
    times = Counter(m.payload for m in got)
    assert set(times.values()) == {1, 2}
    assert sum(m.rows for m in got) == len(times) == len(rows(CLEAN))
    assert len(got) / len(times) == pytest.approx(1.3, abs=0.06)


def test_what_is_late_comes_in_the_order_of_its_coming() -> None:
    got = play(Network(delay_s=(0.0, 1500.0)))
    came = [m.t for m in got]
    assert came == sorted(came)
    late = [m.t - said(m) for m in rows(got)]
    assert min(late) >= 0
    assert max(late) == pytest.approx(1500, abs=50)
    of_one = [said(m) for m in rows(got) if m.asset == "p-1"]
    assert of_one != sorted(of_one)
    assert sorted(m.payload for m in rows(got)) == sorted(m.payload for m in rows(CLEAN))


def test_reordering_swaps_neighbours_now_and_then() -> None:
    of_one = [said(m) for m in rows(play(Network(reorder=0.1))) if m.asset == "p-1"]
    back = np.mean(np.diff(of_one) < 0)
    assert 0.05 < back < 0.13


def said(message: Message) -> float:
    return float(msgspec.json.decode(message.payload)["t"])


@pytest.mark.parametrize("keeps", [True, False])
def test_an_outage_is_silent_and_ends_with_what_was_kept(keeps: bool) -> None:
    of = plant(Network(outage=(Outage(2.0, 3.0, keeps),)))
    zero = min(x.start_t for x in of.lives if x.phase == "present" and x.node == "node-01")
    begin, end = zero + 2 * 3600, zero + 5 * 3600
    got = rows(list(of.messages(PHASES["all"])))
    assert not [m for m in got if begin <= m.t < end]
    kept = [m for m in got if m.t == end and said(m) < end]
    missed = [m for m in rows(CLEAN) if begin <= m.t < end]
    assert len(kept) == (len(missed) if keeps else 0)
    assert len(missed) > 10
    for asset in ("p-1", "p-2", "p-3"):
        of_one = [said(m) for m in got if m.asset == asset]
        assert of_one == sorted(of_one)


def test_a_clock_is_off_runs_fast_and_leaps() -> None:
    network = Network(skew_s=90.0, ppm=200.0, leap=(Leap(1.0, -600.0),))
    of = plant(network)
    zero = min(x.start_t for x in of.lives if x.phase == "present" and x.node == "node-01")
    for got, true in zip(rows(list(of.messages(PHASES["all"]))), rows(CLEAN), strict=True):
        assert got.t == true.t
        off = 90.0 + 200e-6 * (got.t - zero) - (600.0 if got.t >= zero + 3600 else 0.0)
        assert said(got) - said(true) == pytest.approx(off, abs=1e-6)


def test_the_same_seed_loses_the_same() -> None:
    network = Network(loss=0.1, duplicate=0.1, delay_s=(0.0, 900.0), reorder=0.1)
    assert play(network) == play(network)


def test_a_poisoned_device_says_what_is_not_and_tells_failures_that_were_none() -> None:
    of = plant(poison=Poison(gain=1.5, false_failure=1.0))
    got = list(of.messages(PHASES["all"]))
    bad, true = rows(got)[0].values, rows(CLEAN)[0].values
    assert bad is not None
    assert true is not None
    assert bad == pytest.approx({name: 1.5 * value for name, value in true.items()}, abs=1e-3)
    assert rows(got, "node-02") == rows(CLEAN, "node-02")
    told = of.truth("all", "poisoned").nodes[0]
    assert (told.node, told.gain) == ("node-01", 1.5)
    assert len(told.false_failures) == 6
    events = {(m.asset, m.t) for m in got if m.leaf == EVENT and b"failed" in m.payload}
    assert set(told.false_failures) < events
    lives = [x for x in of.lives if x.node == "node-01"]
    for asset, t in told.false_failures:
        assert any(x.asset == asset and x.start_t < t < x.birth_t for x in lives)


def test_the_truth_tells_of_the_network(tmp_path: Path) -> None:
    network = Network(loss=0.1, skew_s=3.0, outage=(Outage(1.0, 2.0),), leap=(Leap(4.0, 60.0),))
    told = plant(network).truth("present", "net")
    truth.write(tmp_path / "truth.json", told)
    assert truth.read(tmp_path / "truth.json") == told
    (node,) = told.nodes
    assert (node.loss, node.skew_s) == (0.1, 3.0)
    (outage,) = node.outages
    assert (outage.from_t - node.present_t, outage.to_t - outage.from_t) == (3600, 7200)
    assert node.leaps == ((node.present_t + 4 * 3600, 60.0),)
    assert not plant().truth("present", "net").nodes


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("loss = 1", "network.loss"),
        ("delay_s = [5, 4]", "delay_s: 5 is above 4"),
        (
            "outage = [{ from_h = 0, for_h = 2 }, { from_h = 1, for_h = 1 }]",
            "that from 1 h begins before another has ended",
        ),
        ("lose = 1", "did you mean"),
    ],
)
def test_a_wrong_network_is_named_with_its_place(tmp_path: Path, table: str, said: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'site = "demo"\nstart = 2026-01-05T00:00:00Z\n[[nodes]]\nname = "n"\nmachines = ["p"]\n'
        f"faults = {{ bearing = 1 }}\n[nodes.network]\n{table}\n"
    )
    with pytest.raises(ConfigError) as raised:
        load(path)
    assert said in str(raised.value)
