"""What really is the matter with each asset: for judging predictions, never sent to an agent."""

from pathlib import Path

import msgspec

from contract.errors import RunoutError

FELT = 0.1
"""Severity from which a fault can be felt in the channels it moves: 0 at birth, 1 at failure."""


class LifeTruth(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One life of one asset. Times are seconds since 1970 UTC, of the data.

    Attributes:
        node: whose agent reads the asset.
        asset: which.
        life: which of its lives, from 0.
        phase: ``history``, ``present``, or the split of a recording.
        fault: what ends the life; None where nobody knows.
        started_t: first row.
        fault_began_t: birth of the fault, which may lie ahead; None where nobody knows.
        felt_t: when severity reaches ``FELT``, which may lie ahead; None where nobody knows.
        failure_t: end of the life, which may lie ahead.
        played_until_t: last row that was played.
        rows: how many were played.
        failed: whether the failure was played, with its life event.
        rul_h: hours from the last row played to failure; 0 when failed; not capped.
        severity: at the last row played; None where nobody knows.
        channels: those that the fault moves.
    """

    node: str
    asset: str
    life: int
    phase: str
    fault: str | None
    started_t: float
    fault_began_t: float | None
    felt_t: float | None
    failure_t: float
    played_until_t: float
    rows: int
    failed: bool
    rul_h: float
    severity: float | None
    channels: tuple[str, ...]


class SensorTruth(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A sensor that says something else than its machine does.

    Attributes:
        node: whose agent reads it.
        asset: whose sensor.
        channel: which; two where they changed places.
        fault: of the sensor.
        from_t: it begins.
        to_t: it ends; where it stays, the end of what was played of the life.
    """

    node: str
    asset: str
    channel: tuple[str, ...]
    fault: str
    from_t: float
    to_t: float


class OutageTruth(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A line that was down between two times; ``kept``: all was said in the end."""

    from_t: float
    to_t: float
    kept: bool


class NodeTruth(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is wrong with a node, beside its machines.

    Attributes:
        node: which.
        loss: share of its messages that never came.
        duplicate: share that came twice.
        delay_s: least and most that messages were late.
        reorder: share that came behind a newer one.
        outages: when the line was down.
        skew_s: by how much its clock was ahead, but for
        ppm: that it was fast, from ``present_t`` on, and
        leaps: when it was set, and by how many seconds.
        present_t: when its first present life began.
        gain: all its readings were multiplied by it.
        false_failures: assets and times of failures that were told and were none.
    """

    node: str
    present_t: float
    loss: float = 0.0
    duplicate: float = 0.0
    delay_s: tuple[float, float] = (0.0, 0.0)
    reorder: float = 0.0
    outages: tuple[OutageTruth, ...] = ()
    skew_s: float = 0.0
    ppm: float = 0.0
    leaps: tuple[tuple[float, float], ...] = ()
    gain: float = 1.0
    false_failures: tuple[tuple[str, float], ...] = ()


class DriftTruth(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A slow change of the process, of all machines of a kind.

    Attributes:
        assets: all of them.
        from_t: it begins.
        to_t: it is over, and stays.
        demand: more asked in the end, as a share of the rated.
        ambient_k: warmer in the end.
    """

    assets: tuple[str, ...]
    from_t: float
    to_t: float
    demand: float
    ambient_k: float


class Truth(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The truth about all that was played.

    Attributes:
        source: the scenario or recording.
        site: where it was played to.
        seed: of a scenario; None for a recording.
        phase: which phases were played.
        felt_severity: what ``felt_t`` means.
        lives: asset by asset.
        sensors: that were bad.
        nodes: with which something was wrong beside their machines.
        drifts: slow changes of the process, of all machines of a kind: nobody's fault.
    """

    source: str
    site: str
    seed: int | None
    phase: str
    felt_severity: float
    lives: tuple[LifeTruth, ...]
    sensors: tuple[SensorTruth, ...] = ()
    nodes: tuple[NodeTruth, ...] = ()
    drifts: tuple[DriftTruth, ...] = ()


def write(path: Path, truth: Truth) -> None:
    """Write the truth as JSON, whole or not at all."""
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(msgspec.json.format(msgspec.json.encode(truth), indent=1) + b"\n")
        part.replace(path)
    except OSError as error:
        raise RunoutError(f"{path}: the truth cannot be written ({error.strerror})") from error


def read(path: Path) -> Truth:
    """Read what ``write`` wrote; raises ``RunoutError``."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Truth)
    except OSError as error:
        raise RunoutError(f"{path}: cannot be read ({error.strerror})") from error
    except msgspec.DecodeError as error:
        raise RunoutError(f"{path}: not a truth file ({error})") from error
