"""The means family, merged by Flower's own strategies: weights in, weights out.

The replies are ours, collected and judged before; a strategy only merges them. What it remembers
(momentum, second moments) lives as long as the ``WeightsMerger``, which is one training.
"""

import time
from collections.abc import Callable
from functools import partial

from flwr.app import ConfigRecord, Message, Metadata, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import (
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedTrimmedAvg,
    FedYogi,
    Krum,
    MultiKrum,
)

from contract.arrays import Arrays
from server.guard import Weights
from server.messages import TRAIN, from_record, to_record

STRATEGIES: dict[str, Callable[[], FedAvg]] = {
    "fedavg": FedAvg,
    "fedavgm": partial(FedAvgM, server_momentum=0.5),
    "fedmedian": FedMedian,
    "fedtrimmedavg": partial(FedTrimmedAvg, beta=0.2),
    # Reddi et al. 2021 take steps of 0.01 to 0.1; weights of small networks bear the smaller.
    "fedadam": partial(FedAdam, eta=0.01),
    "fedyogi": partial(FedYogi, eta=0.01),
    "fedadagrad": partial(FedAdagrad, eta=0.01),
    "krum": partial(Krum, num_malicious_nodes=1),
    "multikrum": partial(MultiKrum, num_malicious_nodes=1, num_nodes_to_select=3),
}
"""By the name in the configuration. FedProx is ``proximal`` of the class's model: nodes do it."""


class WeightsMerger:
    """Merges the weights of one training, round by round."""

    def __init__(self, name: str, grid: Grid) -> None:
        self._strategy = STRATEGIES[name]()
        # With nobody to sample, ``configure_train`` only notes where the round starts.
        self._strategy.fraction_train = 0.0
        self._plain = FedAvg()
        self._grid = grid

    def merge(self, round_: int, start: Arrays | None, weights: list[Weights]) -> Arrays:
        """Return the merged weights; without a ``start`` (the first ever) their plain mean."""
        replies = [_reply(one) for one in sorted(weights, key=lambda one: one.node)]
        strategy = self._strategy
        if start is None:
            # An adaptive strategy corrects a step, and the first round has none yet.
            robust = isinstance(strategy, FedMedian | FedTrimmedAvg | Krum | MultiKrum)
            strategy = strategy if robust else self._plain
        else:
            strategy.configure_train(round_, to_record(start), ConfigRecord(), self._grid)
        arrays, _ = strategy.aggregate_train(round_, replies)
        return {} if arrays is None else from_record(arrays)


def _reply(one: Weights) -> Message:
    content = RecordDict(
        {
            "arrays": to_record(one.arrays),
            "metrics": MetricRecord({"num-examples": float(one.rows)}),
        }
    )
    metadata = Metadata(
        run_id=0,
        message_id=one.node,
        src_node_id=0,
        dst_node_id=0,
        reply_to_message_id="",
        group_id="",
        created_at=time.time(),
        ttl=60.0,
        message_type=TRAIN,
    )
    return Message(metadata=metadata, content=content)  # type: ignore[call-overload,no-any-return]
