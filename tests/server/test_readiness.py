"""A node says what it could bring to a round, and whether it asks for one."""

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from agent.app import Engine
from agent.batch import Batch, Event, Rows
from agent.config import AgentConfig, Bounds, Keep, Learning, Node
from contract import VERSION
from contract.errors import ContractError
from contract.spec import AssetClass, Channel
from flowerapp import client_app
from server import messages

SPEC = AssetClass("pump", (Channel("a", "mm/s"),), stats=("last",))
START_NS = 1_767_225_600 * 10**9


def a_node(folder: Path, failures: int) -> str:
    """Return the state folder of an agent whose machine failed so often without an alert."""
    config = AgentConfig(
        (SPEC,),
        node=Node("node-7", state=str(folder)),
        keep=Keep(power_loss_safe=False),
        learning=Learning(bounds=Bounds(recall=0.5, cases=2)),
    )
    rng = np.random.default_rng(1)
    with ExitStack() as opened:
        engine = Engine(config, opened)
        for life in range(failures):
            t_ns = START_NS + 10**9 * np.arange(50 * life, 50 * life + 50)
            values = rng.normal(size=(50, 1))
            rows = Rows("p1", t_ns, values, np.arange(50), np.ones(50, dtype=np.bool_))
            engine.process(Batch([rows], [Event(50, "p1", int(t_ns[-1]) + 1, "failed")]))
    return str(folder)


def asked(state: str) -> Message:
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    message = Message(RecordDict(), dst_node_id=1, message_type=messages.STATUS)
    context = Context(
        run_id=1, node_id=1, node_config={"state": state}, state=RecordDict(), run_config={}
    )
    return client_app.app(message, context)


@pytest.mark.parametrize(("failures", "asks"), [(1, False), (3, True)])
def test_a_node_asks_for_retraining_when_a_bound_is_crossed(
    tmp_path: Path, failures: int, *, asks: bool
) -> None:
    reply = asked(a_node(tmp_path, failures))
    found = messages.read_readiness(reply.content)
    assert (found.contract, found.node) == (VERSION, "node-7")
    assert found.epoch == failures
    pump = found.classes["pump"]
    assert pump.digest == SPEC.digest()
    assert pump.live_version == 0
    assert pump.quality.missed == failures
    assert pump.quality.retrain == (("recall 0 is below 0.5",) if asks else ())


def test_a_node_without_an_agent_answers_an_error(tmp_path: Path) -> None:
    reply = asked(str(tmp_path))
    assert reply.has_error()
    assert reply.error.code == messages.REFUSED


@pytest.mark.parametrize("words", ["", "{}", '{"contract": 1}'])
def test_an_answer_that_is_none_is_refused(words: str) -> None:
    content = RecordDict({"status": ConfigRecord({"status": words})})
    with pytest.raises(ContractError):
        messages.read_readiness(content)
