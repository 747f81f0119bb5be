"""The examples of docs/extend.md do what it says of them."""

import functools
import queue
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import pytest

from agent.features.functions import load
from agent.intake import Arrival
from contract.model_spec import Chart
from contract.models import healthy
from contract.spec import Function
from simulator.faults import FAULTS, felt_age

TEXT = (Path(__file__).parents[2] / "docs/extend.md").read_text()


@functools.cache
def code(title: str) -> str:
    """Return the example under a heading."""
    found = re.search(rf"^## {title}\n.*?^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


def example(title: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the example under a heading; return it as a module."""
    module = ModuleType(f"extend_{title[-4:].strip()}")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # dataclasses look it up there
    exec(compile(code(title), f"docs/extend.md: {title}", "exec"), module.__dict__)  # noqa: S102
    return module


def test_the_source_puts_what_it_reads_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = example("A source", monkeypatch)
    path = tmp_path / "temp"
    path.write_text("48312\n")
    source = module.Thermal("pump-1", str(path), every_s=0.01).build()
    arrived: queue.Queue[Arrival] = queue.Queue()
    source.open(arrived.put)
    first = arrived.get(timeout=60)
    assert source.alive
    source.close()
    assert not source.alive
    row = msgspec.json.decode(first.payload)
    assert (row["asset"], row["v"], first.source) == ("pump-1", {"temperature": 48.312}, "thermal")
    assert source.counts.frames == 1 + arrived.qsize()


def test_the_feature_is_computed_by_the_agent(tmp_path: Path) -> None:
    (tmp_path / "drive.py").write_text(code("A feature"))
    function = Function("slip", "drive:slip", ("speed", "frequency"), rows=2)
    assert load((function,), tmp_path, ("speed", "frequency")) is not None
    space: dict[str, Any] = {}
    exec(code("A feature"), space)  # noqa: S102
    assert space["slip"](np.array([[1455.0, 50.0], [1455.0, 50.0]])) == pytest.approx(0.03)


def test_the_model_is_a_family_of_health(monkeypatch: pytest.MonkeyPatch) -> None:
    module = example("A model", monkeypatch)
    # In place of a family that is there, so that the tables of healthy.py lead to it.
    monkeypatch.setitem(healthy._SUMS, Chart, module.AbsoluteSums)
    monkeypatch.setitem(healthy._MODELS, Chart, module.AbsoluteModel)
    spec, rng = Chart(), np.random.default_rng(1)
    one, other = rng.normal(size=(200, 3)), rng.normal(size=(100, 3))
    merged = healthy.nothing(spec, 3).learn(one).merge(healthy.nothing(spec, 3).learn(other))
    whole = healthy.nothing(spec, 3).learn(np.vstack([one, other]))
    np.testing.assert_allclose(merged.arrays("")["total"], whole.arrays("")["total"], rtol=1e-12)
    back = whole.withdraw(healthy.nothing(spec, 3).learn(other))
    np.testing.assert_allclose(
        back.arrays("")["total"], healthy.nothing(spec, 3).learn(one).arrays("")["total"]
    )
    assert whole.problem() == ""
    assert healthy.learnt(spec, whole.arrays("x/"), "x/").n == 300
    model = healthy.scorer(spec, whole.solve().arrays("m/"), "m/")
    assert model is not None
    scores = model.score_rows(np.array([[0.0, 0.5, 0.0], [0.0, 8.0, 0.0]]))
    assert scores[0] < 1 < scores[1]
    assert model.shares(np.array([0.0, 8.0, 0.0])).argmax() == 1


def test_the_fault_is_one_that_machines_can_have(monkeypatch: pytest.MonkeyPatch) -> None:
    fault = example("A fault of the simulator", monkeypatch).SlippingBelt()
    monkeypatch.setitem(FAULTS, fault.name, fault)
    ages = np.linspace(0, 1, 101)
    severity = FAULTS["slipping_belt"].severity(ages)
    assert (severity[0], severity[-1]) == (0, 1)
    assert np.all(np.diff(severity) >= 0)
    assert felt_age(fault, 0.1) == pytest.approx(0.1**0.5, abs=1e-3)
    assert fault.effect(severity).friction[-1] == pytest.approx(0.8)
    assert fault.shakes(1.0).halves == 0.5
