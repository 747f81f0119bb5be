"""C-MAPSS in one process: agents' own pipelines, nodes' local rounds, the server's own merge."""

from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np

from agent.prognosis import Interval, crossed
from benchmarks.in_process import Device, configured, contribution
from contract import VERSION
from contract.arrays import Arrays, Floats
from contract.model_spec import Ridge
from contract.models.layers import LayersModel
from contract.models.ridge import Basis, RidgeModel, first_of
from contract.release import Manifest, Release
from contract.spec import AssetClass
from contract.update import FIT, GRADIENTS, SHAPE, STATISTICS
from server.guard import Weights
from server.merge import Contribution, Ledger, Statistics, gram_total, shape_total
from server.strategy import WeightsMerger
from simulator.recordings import cmapss
from simulator.recordings.cmapss import Engine

CONFIG = Path(__file__).parent.parent / "configs" / "agent.turbofan.toml"
CAP = 125.0


def rmse(predicted: Floats, true: Floats) -> float:
    """Return the root mean square error."""
    return float(np.sqrt(np.mean((predicted - true) ** 2)))


def phm08(predicted: Floats, true: Floats) -> float:
    """Return the score of the PHM 2008 challenge (Saxena et al. 2008): late is worse than early."""
    d = predicted - true
    return float(np.where(d < 0, np.exp(-d / 13.0) - 1.0, np.exp(d / 10.0) - 1.0).sum())


def subsets(data: Path) -> list[str]:
    """Return which of FD001 to FD004 a folder holds."""
    names = ("FD001", "FD002", "FD003", "FD004")
    return [n for n in names if any(data.glob(f"train_{n}.txt*"))]


def ridge_of(spec: AssetClass) -> Ridge:
    """Return the ridge model of a class."""
    return next(model for model in spec.rul if isinstance(model, Ridge))


@dataclass(slots=True)
class Totals:
    """What a fleet's sums come to.

    Attributes:
        model: what they are solved for.
        arrays: the sums.
        lives: of each node in them.
        up: bytes that one node sent, in all phases.
        down: bytes that one node was sent, the release included.
    """

    model: RidgeModel
    arrays: Arrays
    lives: dict[str, int]
    up: int
    down: int


class Fleet:
    """Devices with their finished lives, and what the server makes of them.

    Args:
        folder: for the devices' stores.
        deal: engines of each device.
        changes: of the class's spec.
    """

    def __init__(self, folder: Path, deal: list[list[Engine]], **changes: object) -> None:
        self._folder = folder
        self.devices: list[Device] = []
        self.sent = self.told = 0
        for i, engines in enumerate(deal, 1):
            name = f"node-{i:02d}"
            device = Device(configured(CONFIG, folder / name, name, **changes))
            for engine in engines:
                device.live(f"train-{engine.unit:03d}", engine.values, failed=True)
            self.devices.append(device)

    @property
    def spec(self) -> AssetClass:
        """Return the class as it is configured now."""
        return self.devices[0].config.asset_class[0]

    def change(self, **changes: object) -> None:
        """Go on under another spec; the lives stay."""
        for i, device in enumerate(self.devices):
            spec = msgspec.structs.replace(device.config.asset_class[0], **changes)
            config = msgspec.structs.replace(device.config, asset_class=(spec,))
            device.close()
            self.devices[i] = Device(config)

    def basis(self) -> Basis:
        """Merge the statistics, and let first models say along which directions to look."""
        ledger = Ledger(self._folder / "statistics")
        self.sent = self.told = 0
        for device in self.devices:
            update = device.answer(STATISTICS, {}, round_=0)
            ledger.put(contribution(update, self.spec.digest()))
        self.sent += _size(update.arrays)
        total = Statistics.of(ledger.under(self.spec.digest()), self.spec.health)
        if total is None:
            raise SystemExit("no node answered")
        basis = Basis.of(total.basis)
        model = ridge_of(self.spec)
        if not model.shaping:
            return basis
        first = first_of(model)
        sums = gram_total(self._answers(SHAPE, basis.arrays()), "first/")
        if sums is None:
            raise SystemExit("no node answered")
        arrays = {**basis.arrays(), "first/coefficients": sums.solve(first.penalty)}
        return replace(basis, shape=shape_total(self._answers(GRADIENTS, arrays)))

    def _answers(self, phase: str, arrays: Arrays) -> list[Contribution]:
        answers = [contribution(one.answer(phase, arrays, round_=0), "") for one in self.devices]
        self.sent += _size(answers[0].arrays)
        self.told += _size(arrays)
        return answers

    def ridge(self, basis: Basis, *, order: list[int], twice: bool, name: str) -> Totals:
        """Merge the sums in some order of arrival, each once or twice."""
        ledger = Ledger(self._folder / name)
        model = ridge_of(self.spec)
        lives: dict[str, int] = {}
        for i in order:
            update = self.devices[i].answer(FIT, basis.arrays(), round_=1, models=("ridge",))
            lives[update.head.node] = update.head.lives
            for _ in range(2 if twice else 1):
                ledger.put(contribution(update, "basis"))
        total = gram_total(ledger.under("basis"))
        if total is None:
            raise SystemExit("no node answered")
        up = self.sent + _size(update.arrays)
        coefficients = total.solve(model.penalty)
        down = self.told + 2 * _size(basis.arrays()) + coefficients.nbytes
        solved = RidgeModel(model, basis, coefficients, CAP)
        return Totals(solved, total.arrays("fleet/"), lives, up, down)

    def network(self, basis: Basis, rounds: int) -> LayersModel:
        """Average weights over some rounds by Flower's FedAvg."""
        # FedAvg never asks the grid: it takes the replies it is given.
        merger = WeightsMerger("fedavg", None)  # type: ignore[arg-type]
        merged: Arrays = {}
        plain = replace(basis, shape=None)
        for round_ in range(1, rounds + 1):
            weights = []
            for device in self.devices:
                update = device.answer(
                    FIT, plain.arrays() | merged, round_=round_, models=("sklearn",)
                )
                weights.append(Weights(update.head.node, update.head.rows, update.arrays))
            merged = merger.merge(round_, None, weights)
        return LayersModel.from_arrays(merged, "sklearn/", plain, CAP)

    def hand_out(self, totals: Totals) -> int:
        """Release what was merged to each device, which makes it its own; bytes of the release."""
        arrays = {
            **totals.model.basis.arrays(),
            "ridge/coefficients": totals.model.coefficients,
            **totals.arrays,
        }
        manifest = Manifest(
            contract=VERSION,
            asset_class=self.spec,
            version=1,
            parent=0,
            created_ns=0,
            contributors=tuple(sorted(totals.lives)),
            rul_model="ridge",
            metrics={},
            lives=totals.lives,
        )
        release = Release(manifest, arrays)
        for device in self.devices:
            device.deliver(release)
        return len(release.to_bytes())

    def interval(self, basis: Basis) -> Interval | None:
        """Return the interval of a fleet of one device, each life told by a model without it."""
        model = ridge_of(self.spec)
        model = msgspec.structs.replace(model, penalty_alone=model.penalty)
        return crossed(model, basis, self.devices[0].engine.store.training(self.spec), CAP)

    def close(self) -> None:
        """Close all devices."""
        for device in self.devices:
            device.close()


def last_vectors(device: Device, engines: list[Engine]) -> Floats:
    """Play test engines to a device; return each one's last feature vector ``(n, F)``."""
    last = []
    for engine in engines:
        asset = f"test-{engine.unit:03d}"
        device.live(asset, engine.values, failed=False)
        last.append(device.engine.store.last_vector(asset))
    return np.stack(last)


def load(data: Path, subset: str) -> tuple[list[Engine], list[Engine], Floats]:
    """Return training engines, test engines and what was left of those, in cycles."""
    train, test = (cmapss.load(data, subset, split) for split in ("train", "test"))
    return train, test, cmapss.load_rul(data, subset)


def _size(arrays: Arrays) -> int:
    return sum(array.nbytes for array in arrays.values())
