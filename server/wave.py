"""A release on its way to the fleet: to a canary, then to growing shares; what stops it.

Who is in which wave follows from a seed, the release and the devices' names and sites, and what is
decided from what the devices say: nothing here asks anybody or looks at a clock.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from contract import npz
from contract.errors import ContractError
from contract.update import Offered

FILE = "wave.json"
"""In a class's folder of the registry: the newest release's way, written whole or not at all."""
FEWEST = 200
"""Feature vectors, over all devices, below which no share of alarms is held against another."""
HARM = frozenset({"rejected", "rolled back"})

Share = Annotated[float, msgspec.Meta(gt=0, le=1)]
State = Literal["watched", "held", "done", "stopped"]
Asked = Literal["", "go", "hold", "stop"]


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a release reaches the fleet: ``[waves]``.

    Attributes:
        canary: devices that get it first; 0: everybody gets it at once.
        shares: of the fleet that have it with each wave behind the canary; the last is 1.
        watch_s: a wave is watched at least so long before the next.
        enough: share of a wave's devices on which it must have come well through its trial.
        stop: share of a wave's devices that may refuse it or roll it back; with more it is stopped.
        alarms: over all devices that have it, it may put so many times the share of vectors into
            alarm that what judged before does ...
        alarms_more: ... and this share more.
        error: over those, its error on held-out lives may be larger by this share.
        look_s: from one time that its devices are asked to the next.
        seed: of who comes first.
    """

    canary: Annotated[int, msgspec.Meta(ge=0)] = 0
    shares: tuple[Share, ...] = (0.25, 1.0)
    watch_s: Annotated[float, msgspec.Meta(ge=0)] = 3600.0
    enough: Share = 0.5
    stop: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.2
    alarms: Annotated[float, msgspec.Meta(ge=1)] = 1.5
    alarms_more: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.1
    error: Annotated[float, msgspec.Meta(ge=0)] = 0.05
    look_s: Annotated[float, msgspec.Meta(gt=0)] = 60.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse waves that do not grow; msgspec turns this into an error with the path."""
        if not self.shares or self.shares[-1] != 1.0:
            raise ValueError("shares: the last must be 1.0, or the rest would never get a release")
        if list(self.shares) != sorted(set(self.shares)):
            raise ValueError("shares: each must be larger than the one before it")


class Wave(msgspec.Struct):
    """How far a release has come.

    Attributes:
        version: of it.
        digest: of it.
        before: version that is handed out again if it is stopped; 0: the devices' own models.
        state: watched, held (by a person), done or stopped.
        number: of the newest wave; 0: the canary.
        opened_s: when that was, seconds since 1970 UTC.
        members: devices that get it, by name: with which wave.
        told: what each of them last said of it.
        why: it was stopped or held.
        asked: by a person, of the running server.
    """

    version: int
    digest: str
    before: int
    state: State = "watched"
    number: int = 0
    opened_s: float = 0.0
    members: dict[str, int] = {}
    told: dict[str, Offered] = {}
    why: str = ""
    asked: Asked = ""

    @property
    def under_way(self) -> bool:
        """Return whether some devices have it, and others wait for what becomes of it there."""
        return self.state in {"watched", "held"}

    @property
    def in_short(self) -> str:
        """Return how far it has come, in words."""
        many = f"{len(self.members)} devices"
        return f"wave {self.number}, {self.state}, {many}" if self.state != "done" else ""

    def of(self, number: int) -> list[str]:
        """Return the devices that came with a wave."""
        return sorted(name for name, wave in self.members.items() if wave == number)

    def save(self, folder: Path) -> None:
        """Replace the file."""
        npz.write(folder / FILE, msgspec.json.format(msgspec.json.encode(self), indent=2))


def read(folder: Path) -> Wave | None:
    """Return how far the newest release of a class has come; None: there are no waves.

    Raises:
        ContractError: the file cannot be read.
    """
    path = folder / FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Wave)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise ContractError(f"{path}: cannot be read ({error})") from error


def on_the_way(folder: Path, version: int) -> bool:
    """Return whether a version is for some devices only, as yet."""
    wave = read(folder)
    return wave is not None and wave.version == version and wave.under_way


def for_all(folder: Path, pointed: int | None) -> int | None:
    """Return the version that stands for the whole fleet.

    While the newest is on its way that is the one before it, where there is one.

    Args:
        folder: of the class in the registry.
        pointed: the version that is handed out; None: none is.
    """
    if pointed is None or not on_the_way(folder, pointed):
        return pointed
    found = read(folder)
    return found.before if found is not None and found.before else pointed


def order(sites: Mapping[str, str], seed: int, digest: str) -> list[str]:
    """Return devices in the order in which they get a release: of each site one, in turn.

    Args:
        sites: of each device, by name.
        seed: of the fleet.
        digest: of the release: each begins with others.

    >>> order({"a": "north", "b": "north", "c": "south", "d": "south"}, 0, "1f")
    ['b', 'd', 'a', 'c']
    """

    def place(name: str) -> str:
        return hashlib.sha256(f"{seed} {digest} {name}".encode()).hexdigest()

    of_site: dict[str, list[str]] = {}
    turn: dict[str, int] = {}
    for name in sorted(sites, key=place):
        mates = of_site.setdefault(sites[name], [])
        turn[name] = len(mates)
        mates.append(name)
    return sorted(sites, key=lambda name: (turn[name], place(name)))


def to_come(wave: Wave, policy: Policy, sites: Mapping[str, str], number: int) -> list[str]:
    """Return the devices that a wave brings a release to, beside those that have it.

    ``sites``: of the devices that are there, by name.
    """
    fleet = {**dict.fromkeys(wave.members, ""), **sites}
    size = policy.canary if number == 0 else math.ceil(policy.shares[number - 1] * len(fleet))
    here = {name: site for name, site in sites.items() if name not in wave.members}
    return order(here, policy.seed, wave.digest)[: max(size - len(wave.members), 0)]


def everybody(wave: Wave, policy: Policy) -> bool:
    """Return whether whoever comes gets it."""
    last = wave.number > 0 and policy.shares[min(wave.number, len(policy.shares)) - 1] >= 1.0
    return wave.state == "done" or (wave.under_way and last)


def regression(wave: Wave, policy: Policy) -> str:
    """Return why a release must be stopped, by what its devices say; empty: it need not be."""
    for number in range(wave.number + 1):
        members = wave.of(number)
        harmed = [n for n in members if n in wave.told and wave.told[n].verdict in HARM]
        if members and len(harmed) > policy.stop * len(members):
            first = f"{harmed[0]}: {wave.told[harmed[0]].verdict}: {wave.told[harmed[0]].reason}"
            return f"{len(harmed)} of {len(members)} devices of wave {number} do without ({first})"
    told = list(wave.told.values())
    return _alarms(told, policy) or _errors(told, policy)


def _alarms(told: Iterable[Offered], policy: Policy) -> str:
    vectors, now, before = 0, 0.0, 0.0
    for one in told:
        if one.alarms is not None and one.alarms_before is not None:
            vectors += one.vectors
            now += one.alarms * one.vectors
            before += one.alarms_before * one.vectors
    if vectors < FEWEST:
        return ""
    share, share_before = now / vectors, before / vectors
    if share <= share_before * policy.alarms + policy.alarms_more:
        return ""
    return (
        f"it puts {share:.0%} of {vectors} vectors into alarm, what judged before "
        f"{share_before:.0%}"
    )


def _errors(told: Iterable[Offered], policy: Policy) -> str:
    pairs = [
        (one.error_h, one.error_before_h)
        for one in told
        if one.error_h is not None and one.error_before_h is not None
    ]
    if not pairs:
        return ""
    now = sum(pair[0] for pair in pairs) / len(pairs)
    before = sum(pair[1] for pair in pairs) / len(pairs)
    if now <= before * (1.0 + policy.error):
        return ""
    return (
        f"it errs by {now:.1f} h on the held-out lives of {len(pairs)} devices, what judged before "
        f"by {before:.1f} h"
    )


def waited_for(wave: Wave, policy: Policy, at_s: float) -> str:
    """Return what the next wave waits for; empty: for nothing."""
    members = wave.of(wave.number)
    if not members and not wave.members:
        return "a device to be there"
    well = [n for n in members if n in wave.told and well_through(wave.told[n])]
    needed = math.ceil(policy.enough * len(members))
    if len(well) < needed:
        return f"{needed - len(well)} more of {len(members)} devices to come through their trial"
    left_s = wave.opened_s + policy.watch_s - at_s
    return f"{left_s:.0f} s to pass" if left_s > 0 else ""


def well_through(told: Offered) -> bool:
    """Return whether a release judges on a device, and nothing more comes of it by itself."""
    return told.settled and told.verdict == "promoted"
