"""What a node gets back: the models of a cohort, their version, and whence they come."""

from pathlib import Path

import msgspec
import numpy as np

from contract import npz
from contract.arrays import Arrays, Floats
from contract.errors import ContractError
from contract.features import FeatureSpec
from contract.model_spec import Ridge, RulModel, Sklearn
from contract.models.healthy import scorer, seen
from contract.models.kinds import KindModel, model_of
from contract.models.layers import LayersModel
from contract.models.ridge import Basis, RidgeModel, width
from contract.spec import AssetClass, rul_name


class Manifest(msgspec.Struct, frozen=True):
    """What is known of a release beside its arrays.

    Attributes:
        contract: ``contract.VERSION`` of the side that wrote it.
        asset_class: the spec its models were trained for.
        version: counts up from 1 within a cohort; 0 is a device's own.
        parent: the version before, 0 for none.
        created_ns: when, nanoseconds since 1970 UTC.
        contributors: nodes whose data is in it.
        rul_model: which of the RUL models judges.
        metrics: what was measured on the devices' held-out lives.
        epochs: per contributor, which of its contributions.
        lives: per contributor, of how many of its finished lives the sums of remaining life are.
        restores: the version whose models these are again, as a person decided: devices do not
            compare it with what judges; 0: their own models; None: it is new.
    """

    contract: int
    asset_class: AssetClass
    version: int
    parent: int
    created_ns: int
    contributors: tuple[str, ...]
    rul_model: str
    metrics: dict[str, float]
    epochs: dict[str, int] = {}
    lives: dict[str, int] = {}
    restores: int | None = None


Predictor = RidgeModel | LayersModel


class Release:
    """Arrays and manifest, and the models they make.

    Attributes:
        manifest: see there.
        arrays: everything the models need, by name.
        digest: SHA-256 of both.
        signature: Ed25519, in hexadecimal, of the digest; empty: nobody has signed it.
    """

    signature = ""

    def __init__(self, manifest: Manifest, arrays: Arrays) -> None:
        self.manifest = manifest
        self.arrays = arrays
        self._words = msgspec.json.encode(manifest, order="sorted")
        self.digest = npz.digest_of(self._words, arrays)
        spec = manifest.asset_class
        self.health = scorer(spec.health, arrays, "health/model/")
        self.basis = Basis.from_arrays(arrays) if "basis/mean" in arrays else None
        self.kinds = model_of(spec.faults, arrays, "faults/model/")
        self.rul: dict[str, Predictor] = {}
        for model in spec.rul:
            predictor = self._predictor(model)
            if predictor is not None:
                self.rul[rul_name(model)] = predictor
        self._check()

    def _predictor(self, model: RulModel) -> Predictor | None:
        cap_h = self.manifest.asset_class.cap_h
        if self.basis is None:
            return None
        if isinstance(model, Ridge):
            if "ridge/coefficients" not in self.arrays:
                return None
            coefficients = np.asarray(self.arrays["ridge/coefficients"], dtype=np.float64)
            return RidgeModel(model, self.basis, coefficients, cap_h)
        if isinstance(model, Sklearn) and "sklearn/w0" in self.arrays:
            return LayersModel.from_arrays(self.arrays, "sklearn/", self.basis, cap_h)
        return None

    def _check(self) -> None:
        """Refuse what would only fail at the first reading: shapes and numbers."""
        spec = self.manifest.asset_class
        columns = len(FeatureSpec.of(spec))
        watched = len(FeatureSpec.of(spec).columns(spec.health_stats))
        for name, array in self.arrays.items():
            # The scale of a column that never moved is infinite, by intent.
            numbers = array[array != np.inf] if name == "basis/scale" else array
            if not np.isfinite(numbers).all():
                raise ContractError(f"release: array {name} holds numbers that are not finite")
        if self.health is not None:
            self._check_health(watched)
        if self.kinds is not None and spec.faults is not None:
            self._check_kinds(self.kinds, watched, len(spec.faults.kinds))
        if self.basis is not None and self.basis.mean.shape != (columns,):
            raise ContractError(f"release: basis of shape {self.basis.mean.shape}, not {columns}")
        if any(name.startswith("fleet/") for name in self.arrays):
            self._check_fleet(columns)
        for predictor in self.rul.values():
            if isinstance(predictor, RidgeModel):
                if predictor.coefficients.shape != (width(columns, predictor.spec),):
                    raise ContractError("release: ridge coefficients have the wrong shape")
            else:
                predictor.predict(np.zeros((1, columns)))

    def _check_fleet(self, columns: int) -> None:
        """Refuse sums of the fleet that no device could mix its own with."""
        for model in self.manifest.asset_class.rul:
            if isinstance(model, Ridge):
                size = width(columns, model)
                wanted = {"n": (2,), "gram": (size * (size + 1) // 2,), "target": (size,)}
                for name, shape in wanted.items():
                    array = self.arrays.get(f"fleet/{name}")
                    if array is None or array.shape != shape:
                        raise ContractError(f"release: fleet/{name} is not of shape {shape}")

    def _check_kinds(self, model: KindModel, watched: int, kinds: int) -> None:
        try:
            shares = model.probabilities(np.zeros((1, watched)))
        except (ValueError, IndexError) as error:
            raise ContractError(
                f"release: its model of kinds of faults does not fit the class ({error})"
            ) from error
        if shares.shape != (1, kinds) or not np.isfinite(shares).all():
            raise ContractError("release: its model of kinds of faults does not fit the class")

    def _check_health(self, watched: int) -> None:
        """Try the health model on one row: of another size, it could not judge any."""
        try:
            scores = self.score(np.zeros((1, watched))) if self.health else np.zeros(1)
        except (ValueError, IndexError) as error:
            raise ContractError(
                f"release: its health model is not for {watched} features ({error})"
            ) from error
        if not np.isfinite(scores).all():
            raise ContractError("release: its health model scores what is healthy as no number")

    @property
    def version(self) -> int:
        """Return the version within the cohort."""
        return self.manifest.version

    def predict(self, X: Floats, model: str = "") -> Floats:
        """Return remaining life in hours ``(n,)`` for raw feature vectors ``(n, F)``."""
        name = model or self.manifest.rul_model
        if name not in self.rul:
            raise ContractError(f"release {self.version} holds no RUL model {name!r}")
        return self.rul[name].predict(X)

    def score(self, Z: Floats) -> Floats:
        """Return the anomaly score ``(n,)`` of rows in an asset's own standardisation.

        1 is the limit of healthy; higher is worse. To a model that remembers they follow each
        other.
        """
        if self.health is None:
            raise ContractError(f"release {self.version} holds no health model")
        return self.health.score_rows(seen(self.health, Z))

    def diagnose(self, Z: Floats) -> Floats:
        """Return the share of each kind of fault ``(n, K)``, rows as of ``score``.

        Kinds stand in the order of ``manifest.asset_class.faults.kinds``.
        """
        if self.kinds is None:
            raise ContractError(f"release {self.version} holds no model of kinds of faults")
        return self.kinds.probabilities(Z)

    def to_bytes(self) -> bytes:
        """Return the content of a release file."""
        head = _Head(self.digest, msgspec.Raw(self._words), self.signature)
        return npz.to_bytes(msgspec.json.encode(head), self.arrays)

    def save(self, path: Path) -> None:
        """Write as ``.npz``, whole or not at all."""
        npz.write(path, self.to_bytes())

    @classmethod
    def from_bytes(cls, content: bytes, name: str) -> "Release":
        """Read a release and check its digest; ``name`` is said in errors.

        Raises:
            ContractError: truncated, altered, of another contract version, or not finite.
        """
        from contract import VERSION  # noqa: PLC0415  # defined beside this import

        head, arrays = npz.from_bytes(content, name)
        try:
            told = msgspec.json.decode(head, type=_Head)
            contract = msgspec.json.decode(told.manifest, type=_AnyManifest).contract
            if contract != VERSION:
                raise ContractError(
                    f"{name}: written for contract {contract}, this is {VERSION}; "
                    "update the older side"
                )
            manifest = msgspec.json.decode(told.manifest, type=Manifest)
        except msgspec.MsgspecError as error:
            raise ContractError(f"{name}: its manifest cannot be read ({error})") from error
        try:
            release = cls(manifest, arrays)
        except (KeyError, ValueError, IndexError, TypeError) as error:
            raise ContractError(f"{name}: its arrays do not fit its manifest ({error})") from error
        # Of the words as they stand: who wrote it may have known more of them than this side.
        release._words = bytes(told.manifest)  # its own
        release.digest = npz.digest_of(release._words, arrays)
        if release.digest != told.digest:
            raise ContractError(f"{name}: its content does not match its digest")
        release.signature = told.signature
        return release


class _Head(msgspec.Struct, array_like=True, frozen=True):
    digest: str
    manifest: msgspec.Raw
    signature: str = ""


class _AnyManifest(msgspec.Struct):
    contract: int


def load_model(path: str | Path) -> Release:
    """Read a release from a file, ready to ``predict`` and ``score``; raises ``ContractError``."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ContractError(f"{path}: cannot be read ({error.strerror})") from error
    return Release.from_bytes(content, str(path))
