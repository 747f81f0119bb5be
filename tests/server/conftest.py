"""Agents' state folders as an agent leaves them, and a grid that calls the ClientApp in place."""

import warnings
from collections.abc import Iterable
from pathlib import Path

import msgspec
import numpy as np
import pytest

with warnings.catch_warnings():
    # What Flower imports warns of what that imports in turn; nothing of it is ours.
    warnings.simplefilter("ignore", DeprecationWarning)
    import flwr.app  # noqa: F401

from flwr.app import Context, Message, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from agent.config import Keep
from agent.store import Store
from contract.model_spec import Ridge, RulModel, Sklearn
from contract.models.histogram import BINS, bin_of
from contract.models.moments import Moments
from contract.spec import AssetClass, Channel
from flowerapp.client_app import app as client_app

RIDGE = Ridge(random=40, penalty=1e-3)
NETWORK = Sklearn(hidden=(8,), epochs=2)
HOUR_NS = 3_600_000_000_000


class Stores:
    """Writes stores with finished lives of machines that wear out."""

    ridge = RIDGE
    network = NETWORK

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def pump(self, *rul: RulModel, stats: tuple[str, ...] = ("mean_8", "std_8")) -> AssetClass:
        channels = (Channel("vibration", "mm/s"), Channel("temperature", "degC"))
        return AssetClass("pump", channels, stats=stats, cap_h=60.0, rul=rul or (RIDGE,), holdout=3)

    def make(self, node: str, spec: AssetClass, *, lives: int = 6, seed: int = 1) -> Path:
        """Return the agent's folder: a store with lives, a checkpoint with healthy behaviour."""
        folder = self.folder / node
        store = Store(folder, Keep(power_loss_safe=False))
        store.begin()
        store.set_meta("node", node)
        store.set_meta(f"class/{spec.name}", msgspec.json.encode(spec).decode())
        store.commit()
        store.close()
        self.live(folder, node, spec, lives=lives, seed=seed)
        return folder

    def live(self, folder: Path, node: str, spec: AssetClass, *, lives: int, seed: int) -> None:
        """Add lives to a store."""
        rng = np.random.default_rng(seed)
        store = Store(folder, Keep(power_loss_safe=False))
        store.begin()
        store.journal(b"")
        width = len(spec.channels) * len(spec.stats)
        healthy = np.zeros((0, width))
        for life in range(lives):
            hours = int(rng.integers(60, 100))
            wear = np.linspace(0.0, 1.0, hours) ** 3
            X = rng.normal(size=(hours, width)) * 0.1 + wear[:, None] * np.arange(1, width + 1)
            number = 1000 * seed + life
            for hour in range(hours):
                store.add(f"{node}-asset", number, hour * HOUR_NS, X[hour])
            store.finish(spec, f"{node}-asset", number, hours * HOUR_NS)
            healthy = np.concatenate([healthy, X[:20] / 0.1])
        store.commit()
        scores = np.zeros(BINS, dtype=np.int64)
        for z in healthy:
            scores[bin_of(float(np.sqrt((z**2).mean())))] += 1
        prefix = f"class/{spec.name}/cohort/"
        arrays = {**Moments.of(healthy).arrays(prefix + "healthy/"), prefix + "scores": scores}
        store.checkpoint({"digests": {spec.name: spec.digest()}}, arrays)
        store.close()


class LocalGrid(Grid):
    """Nodes in this process: each message goes through the ClientApp as it is sent.

    Attributes:
        states: node id to the agent's folder.
        held: ids of nodes whose answers are held back.
    """

    def __init__(self) -> None:
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
        self.states: dict[int, Path] = {}
        self.held: set[int] = set()
        self.kinds: list[tuple[int, str]] = []
        self._replies: dict[str, Message] = {}

    def set_run(self, run: Run) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Run:
        raise NotImplementedError

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        raise NotImplementedError

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        raise NotImplementedError

    def get_nodes(self) -> Iterable[NodeInfo]:
        return [NodeInfo(node_id=node_id) for node_id in self.states]

    def get_node_ids(self) -> Iterable[int]:
        return list(self.states)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            node_id = message.metadata.dst_node_id
            number = f"message-{len(self.kinds)}"
            message.metadata.__dict__["_message_id"] = number
            self.kinds.append((node_id, message.metadata.message_type))
            context = Context(1, node_id, {"state": str(self.states[node_id])}, RecordDict(), {})
            self._replies[number] = client_app(message, context)
            ids.append(number)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        ready = [i for i in message_ids if i in self._replies]
        ready = [i for i in ready if self._replies[i].metadata.src_node_id not in self.held]
        return [self._replies.pop(i) for i in ready]


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    return Stores(tmp_path / "agents")


@pytest.fixture(scope="session")
def stores_in() -> type[Stores]:
    return Stores


@pytest.fixture
def grid() -> LocalGrid:
    return LocalGrid()
