"""Which kind of fault it is: learnt from what people say, told of the next, shared by a fleet."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from agent import status
from agent.app import Engine
from agent.batch import Batch, Event, Rows
from agent.config import AgentConfig, Keep, Node, Report
from agent.local_round import answer
from agent.models.kinds import KindsLearner
from agent.pipeline import Outcome
from agent.rollout import deliver
from contract import VERSION
from contract.arrays import Floats
from contract.errors import ContractError
from contract.model_spec import Classifier, Faults, Linear, Moments, NaiveBayes, Ridge
from contract.models import kinds
from contract.models.kinds import ClassifierState, compressed
from contract.release import Manifest, Release
from contract.report import Alert, Health
from contract.spec import AssetClass, Channel
from contract.update import STATISTICS, Request
from server import guard
from server.merge import Contribution, Key, kinds_total

START_NS = 1_767_225_600 * 10**9
MINUTE_NS = 60 * 10**9
KINDS = ("bearing", "unbalance", "fouling")
SPECS: list[Faults] = [
    NaiveBayes(KINDS),
    Linear(KINDS),
    Linear(KINDS, random=60, width=0.5, penalty=1e-3, seed=2),
    Classifier(KINDS),
    Classifier(KINDS, estimator="SGDClassifier", rate=3e-2, alpha=1e-3, epochs=5, seed=3),
    Classifier(KINDS, estimator="MLPClassifier", hidden=(8, 4), epochs=40),
]
DIRECTIONS = np.array([[1.0, 0.2, 0.0, 0.0], [0.0, 1.0, 1.0, 0.0], [-1.0, 0.0, 0.3, 1.0]])


def named(spec: Faults) -> str:
    changed = [f"{n}={getattr(spec, n)}" for n in spec.__struct_fields__ if n != "kinds"]
    return f"{type(spec).__name__} {' '.join(changed)}"


every = pytest.mark.parametrize("spec", SPECS, ids=named)


def vectors(kind: int, seed: int, n: int = 16) -> Floats:
    """Return vectors of a fault that grows."""
    rng = np.random.default_rng(seed)
    sizes = np.linspace(3.0, 30.0, n)[:, None]
    Z: Floats = DIRECTIONS[kind] * sizes + rng.normal(size=(n, 4))
    return Z


def taught(spec: Faults, *alerts: tuple[int, int]) -> KindsLearner:
    learner = KindsLearner(spec, 4)
    for kind, seed in alerts:
        learner.learn(vectors(kind, seed), KINDS[kind])
    return learner


def same(one: Any, other: Any) -> None:
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_allclose(array, other[name], rtol=1e-9, atol=1e-9, err_msg=name)


@every
def test_a_kind_is_told_after_two_were_named_and_its_share_is_a_share(spec: Faults) -> None:
    learner = taught(spec, (0, 1))
    assert learner.tell(vectors(0, 9)) == ()  # of one alone nothing can be told apart
    learner = taught(spec, (0, 1), (1, 2), (2, 3), (1, 4), (0, 5))
    for kind, word in enumerate(KINDS):
        told = learner.tell(vectors(kind, 100 + kind))
        assert told[0].kind == word
        assert told[0].share > 0.5
        assert 0.85 < sum(one.share for one in told) <= 1.0 + 1e-3
        assert [one.share for one in told] == sorted((one.share for one in told), reverse=True)
    # What was told before each verdict was judged by it: the third and all after could be.
    assert learner.told == 3
    assert learner.right >= 2


@every
def test_state_and_model_come_back_as_they_were(spec: Faults) -> None:
    learner = taught(spec, (0, 1), (1, 2), (2, 3))
    again = KindsLearner(spec, 4)
    again.restore(learner.arrays())
    for one in (learner, again):
        one.learn(vectors(1, 7), KINDS[1])
    for name, array in again.arrays().items():
        assert np.array_equal(array, learner.arrays()[name]), name
    Z = vectors(2, 8)
    model = learner.state.solve()
    back = kinds.model_of(spec, model.arrays("m/"), "m/")
    assert back is not None
    assert np.array_equal(back.probabilities(Z), model.probabilities(Z))
    alone = np.concatenate([model.probabilities(z[None, :]) for z in Z])
    np.testing.assert_allclose(alone, model.probabilities(Z), rtol=1e-12)
    assert kinds.model_of(spec, {}, "m/") is None


@every
def test_merging_is_the_same_in_any_order_and_can_be_taken_back(spec: Faults) -> None:
    a, b, c = (taught(spec, (k, k), ((k + 1) % 3, 10 + k)).state for k in range(3))
    same(a.merge(b).arrays(""), b.merge(a).arrays(""))
    same(a.merge(b).merge(c).arrays(""), a.merge(b.merge(c)).arrays(""))
    same(a.merge(b).withdraw(b).arrays(""), a.arrays(""))
    with pytest.raises(ContractError, match=r"more (rows|vectors) than were merged"):
        a.withdraw(a.merge(b))
    assert a.merge(b).counts.sum() == 64
    assert a.merge(kinds.nothing(spec, 4)).counts.tolist() == a.counts.tolist()
    assert a.problem() == ""


@pytest.mark.parametrize("spec", SPECS[:3], ids=named)
def test_sums_of_two_devices_are_those_of_one_that_saw_all(spec: Faults) -> None:
    parts = taught(spec, (0, 1)).state.merge(taught(spec, (1, 2)).state)
    same(parts.arrays(""), taught(spec, (0, 1), (1, 2)).state.arrays(""))


def test_naive_bayes_is_scikit_learns() -> None:
    from sklearn.naive_bayes import GaussianNB

    from contract.models.naive_bayes import FLOOR

    learner = taught(SPECS[0], (0, 1), (1, 2), (2, 3))
    X = compressed(np.concatenate([vectors(k, k + 1) for k in range(3)]))
    theirs = GaussianNB(var_smoothing=0.0).fit(X, np.repeat(np.arange(3), 16))
    theirs.var_ += FLOOR * theirs.var_.max()
    Z = vectors(1, 50)
    ours = learner.state.solve().probabilities(Z)
    np.testing.assert_allclose(ours, theirs.predict_proba(compressed(Z)), atol=1e-9)


def test_weights_do_not_forget_a_kind_that_is_not_named_for_a_while() -> None:
    spec = SPECS[3]
    learner = taught(spec, (0, 1), *[(1, 20 + i) for i in range(10)])
    assert isinstance(learner.state, ClassifierState)
    assert learner.tell(vectors(0, 99))[0].kind == "bearing"


def test_kinds_are_two_at_least_and_each_once() -> None:
    for words in (("a",), ("a", "a"), ()):
        with pytest.raises(ValueError, match="two at least, each once"):
            NaiveBayes(words)


# -- in the agent --------------------------------------------------------------------------------


PUMP = AssetClass(
    "pump",
    (Channel("a", "mm/s"), Channel("b", "mm/s"), Channel("c", "degC")),
    stats=("last",),
    cap_h=10.0,
    health=Moments(baseline=30, learn=60, on_delay=3, off_delay=3, smoothing=0.5, alarm_rate=0.01),
    rul=(Ridge(random=4),),
    faults=NaiveBayes(KINDS),
    holdout=0,
)
OFFS = {
    "bearing": np.array([3.0, 0.0, 0.0]),
    "unbalance": np.array([0.0, 3.0, 0.0]),
    "fouling": np.array([0.0, 0.0, 3.0]),
}


class Plant:
    """An engine, and machines that fall ill in a way of their own."""

    def __init__(self, folder: Path, name: str = "node", seed: int = 1) -> None:
        self.config = AgentConfig(
            (PUMP,),
            node=Node(name, state=str(folder)),
            keep=Keep(power_loss_safe=False),
            report=Report(health_every_s=0.0),
        )
        self._minute: dict[str, int] = {}
        self._opened = ExitStack()
        self.engine = Engine(self.config, self._opened)
        self._rng = np.random.default_rng(seed)

    def close(self) -> None:
        self.engine.checkpoint()
        self._opened.close()

    def kill(self) -> None:
        self._opened.close()
        self._opened = ExitStack()
        self.engine = Engine(self.config, self._opened)

    def run(self, asset: str, rows: int, fault: str = "") -> list[Outcome]:
        off = OFFS[fault] if fault else np.zeros(3)
        values = self._rng.normal(size=(rows, 3)) * 0.1 + [5.0, 6.0, 40.0] + off
        begin = self._minute.get(asset, 0)
        self._minute[asset] = begin + rows + 1
        t_ns = START_NS + MINUTE_NS * (begin + np.arange(rows))
        part = Rows(asset, t_ns, values, np.arange(rows), np.ones(rows, dtype=np.bool_))
        return self.engine.process(Batch([part], []))

    def find(self, asset: str, fault: str) -> Alert:
        body = msgspec.json.encode({"verdict": "confirmed", "fault": fault, "ref": fault})
        t_ns = START_NS + MINUTE_NS * self._minute[asset]
        (said,) = self.engine.process(Batch([], [Event(0, asset, t_ns, "verdict", body)]))
        assert isinstance(said, Alert)
        return said

    def teach(self, asset: str, fault: str) -> None:
        self.run(asset, 60)
        self.run(asset, 20, fault)
        self.find(asset, fault)


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    plant = Plant(tmp_path / "state")
    yield plant
    plant.close()


def alerts(said: list[Outcome]) -> list[Alert]:
    return [one for one in said if isinstance(one, Alert) and one.state == "raised"]


def test_what_people_found_is_told_of_the_next_machine(plant: Plant) -> None:
    for asset, fault in (("p1", "bearing"), ("p2", "unbalance"), ("p3", "fouling")):
        plant.teach(asset, fault)
    plant.run("p4", 60)
    said = plant.run("p4", 20, "unbalance")
    (alert,) = alerts(said)
    assert alert.faults[0].kind == "unbalance"
    assert alert.faults[0].share > 0.9
    assert "; looks like unbalance (" in alert.text
    reports = [one for one in said if isinstance(one, Health)]
    assert reports[-1].faults[0].kind == "unbalance"
    assert reports[0].faults == ()  # no alert stood yet
    plant.find("p4", "unbalance")
    quality = plant.engine.quality["pump"]
    # The third verdict could be told before it came, and wrongly: its kind was not known.
    assert (quality.faults_told, quality.faults_right) == (2, 1)
    plant.engine.checkpoint()
    text = status.as_text(status.read(plant.config))
    assert "kinds of fault of pump: 1 of 2 told right" in text


def test_it_is_told_the_same_after_a_kill(plant: Plant) -> None:
    for asset, fault in (("p1", "bearing"), ("p2", "unbalance")):
        plant.teach(asset, fault)
    plant.run("p3", 60)
    plant.kill()
    (alert,) = alerts(plant.run("p3", 20, "bearing"))
    assert alert.faults[0].kind == "bearing"
    plant.kill()
    plant.find("p3", "bearing")
    learner = plant.engine.pipeline.groups["pump"].kinds
    assert learner is not None
    assert learner.state.counts.tolist() == [18.0, 9.0, 0.0]  # thinned: of 18 vectors each


def test_a_word_that_is_no_kind_or_an_alert_long_gone_is_answered_in_words(plant: Plant) -> None:
    plant.run("p1", 60)
    plant.run("p1", 20, "bearing")
    assert "'rust' is none of the kinds that are learnt" in plant.find("p1", "rust").text
    assert "(" not in plant.find("p1", "bearing").text.partition("since")[2].partition("UTC")[0]
    assert "nothing is kept any more to learn 'fouling'" in plant.find("p1", "fouling").text


def test_a_fleet_tells_kinds_that_no_single_device_knows(tmp_path: Path) -> None:
    told = []
    plants = [Plant(tmp_path / f"state-{i}", f"node-{i}", seed=i) for i in range(3)]
    for plant, faults in zip(plants, (("bearing",), ("unbalance", "fouling"), ()), strict=True):
        for k, fault in enumerate(faults):
            plant.teach(f"p{k}", fault)
        plant.run("new", 60)
        plant.engine.checkpoint()
        request = Request(VERSION, STATISTICS, "pump", PUMP.digest(), 1)
        update = answer(plant.config.state, request, {})
        assert guard.judge(update, request, PUMP) == []
        worse = update.arrays | {"faults/n": -1.0 - update.arrays["faults/n"]}
        against = guard.judge(msgspec.structs.replace(update, arrays=worse), request, PUMP)
        assert against == ["faults/a count is negative"]
        key = Key(update.head.node, update.head.epoch, "", update.head.rows)
        told.append(Contribution(key, update.arrays))
    assert PUMP.faults is not None
    total = kinds_total(told, PUMP.faults)
    assert total is not None
    assert total.counts.tolist() == [9.0, 9.0, 9.0]
    cohort = plants[2].engine.pipeline.groups["pump"].cohort
    assert cohort.model is not None
    manifest = Manifest(
        contract=VERSION,
        asset_class=PUMP,
        version=1,
        parent=0,
        created_ns=0,
        contributors=("node-0", "node-1"),
        rul_model="",
        metrics={},
    )
    arrays = cohort.model.arrays("health/model/") | total.solve().arrays("faults/model/")
    release = Release(manifest, arrays)
    deliver(plants[2].config.state, Release.from_bytes(release.to_bytes(), "x"))
    (verdict,) = plants[2].engine.consider_releases(0)
    assert verdict.promoted, verdict.reason
    (alert,) = alerts(plants[2].run("new", 20, "fouling"))
    assert alert.judged_by == 1
    assert alert.faults[0].kind == "fouling"
    with pytest.raises(ContractError, match="does not fit the class"):
        Release(manifest, arrays | {"faults/model/prior": np.zeros(2)})
    for plant in plants:
        plant.close()
