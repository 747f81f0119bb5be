"""Virtual nodes: each tells sums of rows of its own, over Flower's messages, as a device would.

Their rows follow from their number: 50 to learn from, 25 held out, on a line that the fleet shares
and noise; healthy behaviour beside it.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from contract import VERSION
from contract.arrays import Arrays, Floats
from contract.model_spec import Ridge
from contract.models.histogram import BINS, bin_of
from contract.models.moments import Moments
from contract.models.ridge import Basis, GramSums
from contract.release import Release
from contract.spec import AssetClass, Channel
from contract.update import EVALUATE, STATISTICS, Request, Update, UpdateHead
from server import messages

FEATURES = 24
MODEL = Ridge(random=40)
SPEC = AssetClass(
    "pump",
    tuple(Channel(f"c{i:02d}", "1") for i in range(FEATURES)),
    stats=("last",),
    rul=(MODEL,),
)
ROWS, HELDOUT = 50, 25
SEED = 1


def rows_of(number: int) -> tuple[Floats, Floats, np.random.Generator]:
    """Return feature vectors (75, 24), hours left (75,), and the chance that comes after them."""
    rng = np.random.default_rng((SEED, number))
    Z = rng.normal(size=(ROWS + HELDOUT, FEATURES))
    noise = 4.0 * rng.normal(size=len(Z))
    return Z, np.clip(60.0 + 12.0 * Z[:, 0] - 5.0 * Z[:, 1] + noise, 0.0, 125.0), rng


def head_of(number: int, phase: str, metrics: dict[str, float]) -> UpdateHead:
    """Return who a virtual node says it is."""
    return UpdateHead(
        contract=VERSION,
        phase=phase,
        asset_class=SPEC,
        node=f"node-{number:05d}",
        epoch=1,
        rows=ROWS,
        lives=1,
        heldout=1,
        live_version=0,
        metrics=metrics,
    )


def answer(number: int, request: Request, arrays: Arrays) -> Update:
    """Answer what a server asks of a node."""
    Z, y, rng = rows_of(number)
    head = head_of(number, request.phase, {})
    if request.phase == STATISTICS:
        healthy = rng.normal(size=(64, FEATURES))
        scores = np.zeros(BINS, dtype=np.int64)
        for z in healthy:
            scores[bin_of(float(np.sqrt((z**2).mean())))] += 1
        told = Moments.of(Z[:ROWS], diagonal=True).arrays("basis/")
        told |= Moments.of(healthy).arrays("health/")
        return Update(head, {**told, "health/histogram": scores})
    if request.phase == EVALUATE:
        release = Release.from_bytes(arrays["release"].tobytes(), "release")
        error = release.rul["ridge"].predict(Z[ROWS:]) - y[ROWS:]
        metrics = {"heldout_rows": float(HELDOUT), "rmse/ridge": float(np.sqrt(np.mean(error**2)))}
        return Update(head_of(number, request.phase, metrics), {})
    sums = GramSums.of_rows(Basis.from_arrays(arrays), MODEL, [(Z[:ROWS], y[:ROWS], np.ones(ROWS))])
    return Update(head, sums.arrays("ridge/"))


def reply(number: int, message: Message) -> Message:
    """Answer one of Flower's messages."""
    request, arrays = messages.read_request(message.content)
    return Message(messages.update_content(answer(number, request, arrays)), reply_to=message)


client_app = ClientApp()


@client_app.train()
def train(message: Message, context: Context) -> Message:
    """Answer with sums."""
    return reply(int(str(context.node_config["partition-id"])), message)


@client_app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Answer with the error on held-out rows."""
    return reply(int(str(context.node_config["partition-id"])), message)


class VirtualGrid(Grid):
    """A grid whose nodes answer as they are looked for, in this process; holds no answer.

    Args:
        nodes: how many.
    """

    def __init__(self, nodes: int) -> None:
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
        self._nodes = nodes
        self._asked: dict[str, Message] = {}
        self._count = 0

    def set_run(self, run: Run) -> None:
        """Raise: there is no run."""
        raise NotImplementedError

    @property
    def run(self) -> Run:
        """Raise: there is no run."""
        raise NotImplementedError

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Raise: deprecated."""
        raise NotImplementedError

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Raise: the server asks otherwise."""
        raise NotImplementedError

    def get_nodes(self) -> Iterable[NodeInfo]:
        """Return the nodes, numbered from 1."""
        return [NodeInfo(node_id=number + 1) for number in range(self._nodes)]

    def get_node_ids(self) -> Iterable[int]:
        """Return their numbers."""
        return range(1, self._nodes + 1)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Keep the questions; an answer is made when it is pulled."""
        ids = []
        for message in messages:
            self._count += 1
            name = f"message-{self._count}"
            message.metadata.__dict__["_message_id"] = name
            self._asked[name] = message
            ids.append(name)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return answers, one at a time."""
        for name in message_ids:
            message: Any = self._asked.pop(name, None)
            if message is not None:
                yield reply(message.metadata.dst_node_id - 1, message)
