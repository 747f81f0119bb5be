"""A scikit-learn ``partial_fit`` estimator as a set of arrays (means family).

State is the weights and nothing else: each round of training starts a fresh optimiser from them,
with a seed that is told, so that the same weights, lives and seed give the same weights.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from contract.arrays import Arrays, Floats
from contract.models.layers import layer_arrays
from contract.spec import Sklearn


def train(
    spec: Sklearn, Z: Floats, y: Floats, start: Arrays, *, seed: int, prefix: str = "sklearn/"
) -> Arrays:
    """Train some passes over standardised rows ``(n, F)`` and targets ``(n,)``.

    Args:
        spec: which estimator, and how it learns.
        Z: standardised features.
        y: what is to be predicted, about 0 to 1.
        start: weights to start from, as this function returns them; empty: the spec's seed's.
        seed: of the order of rows.
        prefix: of the names in ``start`` and in what is returned.
    """
    rng = np.random.default_rng(seed)
    layers = [
        (start[f"{prefix}w{i}"], start[f"{prefix}b{i}"]) for i in range(_count(start, prefix))
    ]
    estimator = _build(spec, Z.shape[1], layers)
    for _ in range(spec.epochs):
        order = rng.permutation(len(Z))
        for at in range(0, len(order), spec.batch):
            rows = order[at : at + spec.batch]
            estimator.partial_fit(Z[rows], y[rows])
    return _arrays(spec, estimator, prefix)


def _count(arrays: Arrays, prefix: str) -> int:
    return sum(1 for name in arrays if name.startswith(prefix + "w"))


def _build(spec: Sklearn, size: int, layers: Sequence[tuple[Any, Any]]) -> Any:
    # Imported here: scikit-learn costs 100 MB and two seconds, and few processes need it.
    if spec.estimator == "SGDRegressor":
        from sklearn.linear_model import SGDRegressor  # noqa: PLC0415

        linear = SGDRegressor(alpha=spec.alpha, eta0=spec.rate, random_state=spec.seed)
        linear.partial_fit(np.zeros((1, size)), np.zeros(1))
        for weights, offset in layers:
            linear.coef_[:] = weights[:, 0]
            linear.intercept_[:] = offset
        return linear
    from sklearn.neural_network import MLPRegressor  # noqa: PLC0415

    network = MLPRegressor(
        hidden_layer_sizes=spec.hidden,
        learning_rate_init=spec.rate,
        alpha=spec.alpha,
        random_state=spec.seed,
    )
    # One step on nothing makes the arrays; then the weights to start from, and a fresh optimiser.
    network.partial_fit(np.zeros((1, size)), np.zeros(1))
    del network._optimizer  # noqa: SLF001  # or partial_fit would go on with its memory
    for i, (weights, offsets) in enumerate(layers):
        network.coefs_[i] = np.array(weights)
        network.intercepts_[i] = np.array(offsets)
    return network


def _arrays(spec: Sklearn, estimator: Any, prefix: str) -> Arrays:
    if spec.estimator == "SGDRegressor":
        return layer_arrays([estimator.coef_[:, None]], [estimator.intercept_], prefix)
    return layer_arrays(estimator.coefs_, estimator.intercepts_, prefix)
