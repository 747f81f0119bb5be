"""scikit-learn's ``partial_fit`` estimators as sets of arrays (means family).

State is the layers of weights and nothing else: each training starts a fresh optimiser from them,
with a seed that is told, so that the same weights, rows and seed give the same weights.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from contract.arrays import Arrays, Floats
from contract.model_spec import Sklearn
from contract.models.layers import Layers, layer_arrays, layers_of


class Plan(NamedTuple):
    """What to train, and how.

    Attributes:
        estimator: name of scikit-learn's class.
        hidden: sizes of hidden layers, of networks.
        rate: initial learning rate.
        alpha: L2 penalty; of SGDOneClassSVM the share of rows outside.
        epochs: passes over the rows.
        batch: rows of one ``partial_fit`` call.
        seed: of the first weights.
        kinds: how many, of classifiers.
        proximal: how strongly weights are held to those they start from (FedProx; Li et al. 2020).
    """

    estimator: str
    hidden: tuple[int, ...] = ()
    rate: float = 1e-3
    alpha: float = 1e-4
    epochs: int = 1
    batch: int = 64
    seed: int = 1
    kinds: int = 0
    proximal: float = 0.0


def fit(plan: Plan, Z: Floats, y: NDArray[Any] | None, layers: Layers, *, seed: int) -> Layers:
    """Train some passes over rows ``(n, F)``, from some layers on; from none: from the plan's seed.

    Args:
        plan: what, and how.
        Z: standardised features.
        y: targets ``(n,)`` or ``(n, outputs)``, kinds ``(n,)`` of classifiers, None of a border.
        layers: to start from, or ().
        seed: of the order of rows.
    """
    rng = np.random.default_rng(seed)
    kind = _KINDS[plan.estimator]
    outputs = 1 if y is None or y.ndim == 1 else y.shape[1]
    estimator = kind.build(plan, Z.shape[1], outputs)
    if layers:
        kind.put(estimator, layers)
    start = [part.copy() for part in kind.parts(estimator)]
    for _ in range(plan.epochs):
        order = rng.permutation(len(Z))
        for at in range(0, len(order), plan.batch):
            rows = order[at : at + plan.batch]
            if y is None:
                estimator.partial_fit(Z[rows])
            else:
                estimator.partial_fit(Z[rows], y[rows])
            if plan.proximal:
                _pull(kind.parts(estimator), start, plan.rate * plan.proximal)
    return kind.take(estimator)


def _pull(parts: list[NDArray[Any]], start: list[NDArray[Any]], share: float) -> None:
    """Take the step of FedProx' own term, towards the weights of the start."""
    share = min(share, 1.0)
    for part, first in zip(parts, start, strict=True):
        np.add(part, share * (first - part), out=part)


class _Kind(NamedTuple):
    """How a kind of estimator is made, and where its weights are.

    Attributes:
        build: from a plan, inputs and outputs; its arrays are there.
        put: layers in place of its own.
        take: its layers, copied.
        parts: its own arrays.
    """

    build: Callable[[Plan, int, int], Any]
    put: Callable[[Any, Layers], None]
    take: Callable[[Any], Layers]
    parts: Callable[[Any], list[NDArray[Any]]]


# scikit-learn is imported where it is needed: it costs 100 MB and two seconds.


def _sgd_regressor(plan: Plan, size: int, _outputs: int) -> Any:
    from sklearn.linear_model import SGDRegressor  # noqa: PLC0415

    linear = SGDRegressor(alpha=plan.alpha, eta0=plan.rate, random_state=plan.seed)
    return linear.partial_fit(np.zeros((1, size)), np.zeros(1))


def _sgd_classifier(plan: Plan, size: int, _outputs: int) -> Any:
    from sklearn.linear_model import SGDClassifier  # noqa: PLC0415

    linear = SGDClassifier(
        loss="log_loss",
        alpha=plan.alpha,
        learning_rate="constant",
        eta0=plan.rate,
        random_state=plan.seed,
    )
    linear.partial_fit(np.zeros((1, size)), np.zeros(1, dtype=int), classes=np.arange(plan.kinds))
    linear.coef_[:] = 0.0
    linear.intercept_[:] = 0.0
    return linear


def _sgd_border(plan: Plan, size: int, _outputs: int) -> Any:
    from sklearn.linear_model import SGDOneClassSVM  # noqa: PLC0415

    border = SGDOneClassSVM(
        nu=min(plan.alpha, 1.0),
        learning_rate="constant",
        eta0=plan.rate,
        random_state=plan.seed,
    )
    border.partial_fit(np.zeros((1, size)))
    border.coef_[:] = 0.0
    border.offset_[:] = 0.0
    return border


def _mlp_regressor(plan: Plan, size: int, outputs: int) -> Any:
    from sklearn.neural_network import MLPRegressor  # noqa: PLC0415

    network = MLPRegressor(
        hidden_layer_sizes=plan.hidden,
        learning_rate_init=plan.rate,
        alpha=plan.alpha,
        random_state=plan.seed,
    )
    y = np.zeros(1) if outputs == 1 else np.zeros((1, outputs))
    # One step on nothing makes the arrays; then a fresh optimiser.
    return _fresh(network.partial_fit(np.zeros((1, size)), y))


def _mlp_classifier(plan: Plan, size: int, _outputs: int) -> Any:
    from sklearn.neural_network import MLPClassifier  # noqa: PLC0415

    network = MLPClassifier(
        hidden_layer_sizes=plan.hidden,
        learning_rate_init=plan.rate,
        alpha=plan.alpha,
        random_state=plan.seed,
    )
    first = np.zeros(1, dtype=int)
    return _fresh(network.partial_fit(np.zeros((1, size)), first, classes=np.arange(plan.kinds)))


def _fresh(network: Any) -> Any:
    del network._optimizer  # noqa: SLF001  # or partial_fit would go on with its memory
    return network


def _put_linear(linear: Any, layers: Layers) -> None:
    weights, offsets = _single(layers[0], linear.coef_.shape[0])
    linear.coef_[:] = weights.T
    linear.intercept_[:] = offsets


def _take_linear(linear: Any) -> Layers:
    return (
        _double((linear.coef_.T.copy(), linear.intercept_.copy()), hasattr(linear, "classes_")),
    )


def _put_border(border: Any, layers: Layers) -> None:
    weights, offsets = layers[0]
    border.coef_[:] = weights[:, 0]
    border.offset_[:] = -offsets


def _take_border(border: Any) -> Layers:
    return ((border.coef_.reshape(-1, 1).copy(), -np.atleast_1d(border.offset_)),)


def _put_network(network: Any, layers: Layers) -> None:
    last = len(layers) - 1
    for i, layer in enumerate(layers):
        wanted = network.coefs_[i].shape[1]
        weights, offsets = _single(layer, wanted) if i == last else layer
        network.coefs_[i] = np.array(weights)
        network.intercepts_[i] = np.array(offsets)


def _take_network(network: Any) -> Layers:
    layers = [
        (w.copy(), b.copy()) for w, b in zip(network.coefs_, network.intercepts_, strict=True)
    ]
    layers[-1] = _double(layers[-1], hasattr(network, "classes_"))
    return tuple(layers)


def _double(layer: tuple[Floats, Floats], classifies: bool) -> tuple[Floats, Floats]:
    """Return one output for each kind; where scikit-learn has one for two, half of it each way."""
    weights, offsets = layer
    if not classifies or weights.shape[1] > 1:
        return layer
    return np.hstack([-weights / 2, weights / 2]), np.concatenate([-offsets / 2, offsets / 2])


def _single(layer: tuple[Floats, Floats], wanted: int) -> tuple[Floats, Floats]:
    weights, offsets = layer
    if weights.shape[1] == wanted:
        return layer
    return weights[:, 1:] - weights[:, :1], offsets[1:] - offsets[:1]


_LINEAR = (_put_linear, _take_linear, lambda one: [one.coef_, one.intercept_])
_NETWORK = (_put_network, _take_network, lambda one: [*one.coefs_, *one.intercepts_])
_KINDS = {
    "SGDRegressor": _Kind(_sgd_regressor, *_LINEAR),
    "SGDClassifier": _Kind(_sgd_classifier, *_LINEAR),
    "SGDOneClassSVM": _Kind(
        _sgd_border, _put_border, _take_border, lambda one: [one.coef_, one.offset_]
    ),
    "MLPRegressor": _Kind(_mlp_regressor, *_NETWORK),
    "MLPClassifier": _Kind(_mlp_classifier, *_NETWORK),
}


def train(
    spec: Sklearn, Z: Floats, y: Floats, start: Arrays, *, seed: int, prefix: str = "sklearn/"
) -> Arrays:
    """Train remaining life: some passes over standardised rows ``(n, F)``.

    Args:
        spec: which estimator, and how it learns.
        Z: standardised features.
        y: what is to be predicted, about 0 to 1.
        start: weights to start from, as this function returns them; empty: the spec's seed's.
        seed: of the order of rows.
        prefix: of the names in ``start`` and in what is returned.
    """
    plan = _plan(spec)
    if not start:
        plan = plan._replace(proximal=0.0)
    return layer_arrays(fit(plan, Z, y, layers_of(start, prefix), seed=seed), prefix)


def first_weights(spec: Sklearn, size: int, prefix: str = "sklearn/") -> Arrays:
    """Return the weights that training of F features starts from where there are none."""
    kind = _KINDS[spec.estimator]
    return layer_arrays(kind.take(kind.build(_plan(spec), size, 1)), prefix)


def _plan(spec: Sklearn) -> Plan:
    return Plan(
        spec.estimator,
        spec.hidden,
        spec.rate,
        spec.alpha,
        spec.epochs,
        spec.batch,
        spec.seed,
        proximal=spec.proximal,
    )
