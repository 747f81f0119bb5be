"""Agents' state folders as an agent leaves them, filled with lives of machines that wear out."""

from pathlib import Path

import msgspec
import numpy as np

from agent.config import Keep
from agent.store import Store
from contract.models.histogram import BINS, bin_of
from contract.models.moments import Moments
from contract.spec import AssetClass, Channel, Ridge, RulModel, Sklearn

RIDGE = Ridge(random=40, penalty=1e-3)
NETWORK = Sklearn(hidden=(8,), epochs=2)


def pump(*rul: RulModel) -> AssetClass:
    return AssetClass(
        "pump",
        (Channel("vibration", "mm/s"), Channel("temperature", "degC")),
        stats=("mean_8", "std_8"),
        cap_h=60.0,
        rul=rul or (RIDGE,),
        holdout=3,
    )


def make(folder: Path, node: str, spec: AssetClass, *, lives: int = 6, seed: int = 1) -> Path:
    """Write a store with some finished lives and a checkpoint; returns the folder."""
    rng = np.random.default_rng(seed)
    store = Store(folder, Keep(power_loss_safe=False))
    store.begin()
    store.set_meta("node", node)
    store.set_meta(f"class/{spec.name}", msgspec.json.encode(spec).decode())
    store.journal(b"")
    width = len(spec.channels) * len(spec.stats)
    healthy = []
    for life in range(lives):
        hours = int(rng.integers(60, 100))
        wear = np.linspace(0.0, 1.0, hours) ** 3
        X = rng.normal(size=(hours, width)) * 0.1 + wear[:, None] * np.arange(1, width + 1)
        for hour in range(hours):
            store.add(f"{node}-asset", life, hour * 3_600_000_000_000, X[hour])
        store.finish(spec, f"{node}-asset", life, hours * 3_600_000_000_000)
        healthy.append(X[:20] / 0.1)
    store.commit()
    Z = np.concatenate(healthy) if healthy else np.zeros((0, width))
    scores = np.zeros(BINS, dtype=np.int64)
    for z in Z:
        scores[bin_of(float(np.sqrt((z**2).mean())))] += 1
    prefix = f"class/{spec.name}/cohort/"
    arrays = {**Moments.of(Z).arrays(prefix + "moments/"), prefix + "scores": scores}
    store.checkpoint({"digests": {spec.name: spec.digest()}}, arrays)
    store.close()
    return folder
