"""What a device has told with differential privacy so far, and whether it may tell more.

Written down before it leaves: whoever pulls the plug gains no update that is not counted. What has
not changed since it was told is told again with the same noise, which costs nothing.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import msgspec
import numpy as np

from contract import npz
from contract.arrays import Arrays
from contract.errors import ConfigError, ContractError
from contract.model_spec import Privacy
from contract.spec import AssetClass

FOLDER = "privacy"


class Told(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many noisy updates have left, by their noise multiplier (its ``repr``)."""

    updates: dict[str, int] = {}


class Spent(NamedTuple):
    """What was told, as epsilon at the class's delta.

    Attributes:
        updates: how many.
        epsilon: for whoever sees sums of ``among`` devices, and releases.
        epsilon_server: for the server, which sees each device's.
    """

    updates: int
    epsilon: float
    epsilon_server: float


def epsilon(updates: dict[str, int], delta: float, *, among: int = 1) -> float:
    """Return what updates add up to, by Google's accountant (Mironov 2017, Rényi).

    Args:
        updates: how many, by noise multiplier.
        delta: that may be failed with.
        among: devices that share the noise: of one alone there is less.

    Raises:
        ConfigError: the package is not there.
    """
    if not updates:
        return 0.0
    try:
        from dp_accounting.dp_event import GaussianDpEvent  # noqa: PLC0415  # 90 MB
        from dp_accounting.rdp import RdpAccountant  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            "asset_class.privacy: epsilon is counted by the package dp-accounting, which is not "
            "here: pip install 'runout[privacy]'"
        ) from error
    accountant = RdpAccountant()
    for multiplier, count in updates.items():
        accountant.compose(GaussianDpEvent(float(multiplier) / np.sqrt(among)), count)
    return float(accountant.get_epsilon(delta))


class Budget:
    """The account of one asset class on this device.

    Args:
        state: the agent's folder.
        spec: of the class, with ``privacy``.
        rng: of the noise; by default of the system's entropy: a seed would take it off again.
    """

    def __init__(
        self, state: Path, spec: AssetClass, rng: np.random.Generator | None = None
    ) -> None:
        if spec.privacy is None:
            raise ValueError(f"asset class {spec.name!r} has no privacy")
        self.privacy: Privacy = spec.privacy
        self._spec = spec
        self._folder = state / FOLDER / quote(spec.name, safe="")
        self._path = self._folder / "told.json"
        self._rng = np.random.default_rng() if rng is None else rng

    def _told(self) -> Told:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Told)
        except FileNotFoundError:
            return Told()
        except (OSError, msgspec.MsgspecError) as error:
            # Begun anew, it would allow what has been told already.
            raise ContractError(
                f"{self._path}: what this device has told cannot be read ({error}): it tells "
                "nothing more until the file is put back"
            ) from error

    def spent(self) -> Spent:
        """Return what was told so far."""
        return self._spent(self._told())

    def _spent(self, told: Told) -> Spent:
        privacy = self.privacy
        return Spent(
            sum(told.updates.values()),
            epsilon(told.updates, privacy.delta),
            epsilon(told.updates, privacy.delta, among=privacy.among),
        )

    def in_words(self) -> str:
        """Return what was told, for people.

        Raises:
            ConfigError, ContractError: as ``spent``.
        """
        spent, privacy = self.spent(), self.privacy
        said = (
            f"{spent.updates} noisy updates told, epsilon {spent.epsilon:.2f} of "
            f"{privacy.epsilon:g} (delta {privacy.delta:g})"
        )
        if privacy.among == 1:
            return said
        return f"{said} where {privacy.among} add up; for the server {spent.epsilon_server:.2f}"

    def tell(
        self, kind: str, exact: Arrays, noisy: Callable[[np.random.Generator], Arrays]
    ) -> Arrays:
        """Return what may leave of some arrays.

        Args:
            kind: of the update: each has its newest kept.
            exact: what it is made of: the same again is told as before.
            noisy: makes it, once.

        Raises:
            ContractError: the budget would be overdrawn, or its account cannot be read.
        """
        digest = npz.digest_of(f"{kind} {self._spec.digest()}".encode(), exact)
        kept = self._folder / f"{kind}.npz"
        known = _known(kept, digest)
        if known is not None:
            return known
        told = self._told()
        multiplier = repr(self.privacy.noise)
        updates = told.updates | {multiplier: told.updates.get(multiplier, 0) + 1}
        after = self._spent(Told(updates))
        if after.epsilon > self.privacy.epsilon:
            raise ContractError(
                f"asset class {self._spec.name!r}: this device's privacy budget is spent: "
                f"{after.updates - 1} noisy updates were told, one more would make epsilon "
                f"{after.epsilon:.2f} of {self.privacy.epsilon:g} (delta {self.privacy.delta:g}): "
                "more privacy.noise makes updates cheaper, a larger privacy.epsilon allows more"
            )
        self._folder.mkdir(parents=True, exist_ok=True)
        npz.write(self._path, msgspec.json.encode(Told(updates)))
        arrays = noisy(self._rng)
        npz.write(kept, npz.to_bytes(msgspec.json.encode(digest), arrays))
        return arrays


def _known(path: Path, digest: str) -> Arrays | None:
    """Return what was told of the same; None: nothing, or it cannot be read, and is told anew."""
    if not path.exists():
        return None
    try:
        head, arrays = npz.read(path)
        return arrays if msgspec.json.decode(head, type=str) == digest else None
    except (ContractError, msgspec.MsgspecError):
        return None
