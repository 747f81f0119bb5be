"""Bursts of waveforms: judged, turned into features, and put among the rows at their places.

Bursts of one kind are computed together, whichever asset they are of: each as if it were alone.
"""

from collections.abc import Callable

import numpy as np

from agent.asset import Asset, Counts
from agent.batch import Batch, Rows, Shot
from agent.clean import Reason, judge_burst
from agent.group import Group
from contract.arrays import Floats


def among_rows(batch: Batch, asset: Callable[[str], Asset], counts: Counts) -> list[Rows]:
    """Return the rows of a batch, and among them a row for each burst.

    What was found of the bursts is kept in ``batch.shots``, for a journal without waveforms.

    Args:
        batch: with bursts.
        asset: returns an asset's state.
        counts: of what was marked.
    """
    by_asset: dict[str, list[Rows]] = {}
    for part in batch.rows:
        by_asset.setdefault(part.asset, []).append(part)
    speeds = {
        name: asset(name).take_speeds(_in_order(name, parts)) for name, parts in by_asset.items()
    }
    alike: dict[tuple[str, int], list[int]] = {}
    for i, shot in enumerate(batch.shots):
        if shot.features is None:  # else it is of a journal that kept no waveforms
            group = asset(shot.asset).group
            alike.setdefault((group.spec.name, shot.wave), []).append(i)
    for found in alike.values():
        rpm = [
            asset(shot.asset).speed_at(shot, speeds.get(shot.asset))
            for shot in (batch.shots[i] for i in found)
        ]
        _compute(batch.shots, found, asset(batch.shots[found[0]].asset).group, rpm)
    for shot in batch.shots:
        one = asset(shot.asset)
        if shot.reason:
            one.note_burst(shot)
            name = one.group.spec.waveforms[shot.wave].name
            counts.mark(one.name, name, Reason(shot.reason).name.lower(), 1)
        by_asset.setdefault(shot.asset, []).append(_row(one, shot))
    return [_in_order(name, parts) for name, parts in by_asset.items()]


def _compute(shots: list[Shot], found: list[int], group: Group, rpm: list[float]) -> None:
    """Fill in the features of bursts of one waveform; NaN, and a reason, where one is bad."""
    wave = shots[found[0]].wave
    spec = group.spec.waveforms[wave]
    reasons = [judge_burst(spec, shots[i].samples) for i in found]
    X = np.full((len(found), len(spec.features)), np.nan)
    good = [k for k, reason in enumerate(reasons) if not reason]
    if good:
        samples = np.stack([shots[found[k]].samples for k in good])
        speeds = None if spec.bearing is None else np.array([rpm[k] for k in good])
        X[good] = group.bursts[wave].compute(samples, speeds)
    for i, x, reason in zip(found, X, reasons, strict=True):
        shots[i] = shots[i]._replace(features=x, reason=int(reason))


def _row(asset: Asset, shot: Shot) -> Rows:
    """Return the row that a burst makes."""
    spec = asset.group.spec
    at = len(spec.channels) + sum(len(wave.features) for wave in spec.waveforms[: shot.wave])
    values: Floats = np.full((1, len(spec.columns)), np.nan)
    values[0, at : at + len(spec.waveforms[shot.wave].features)] = shot.features
    whole = np.array([not spec.channels and len(spec.waveforms) == 1])
    return Rows(shot.asset, np.array([shot.t_ns]), values, np.array([shot.pos]), whole)


def _in_order(asset: str, parts: list[Rows]) -> Rows:
    """Join rows of an asset, in the order of the messages they came with."""
    if len(parts) == 1:
        return parts[0]
    pos = np.concatenate([part.pos for part in parts])
    order = np.argsort(pos, kind="stable")
    return Rows(
        asset,
        np.concatenate([part.t_ns for part in parts])[order],
        np.concatenate([part.values for part in parts])[order],
        pos[order],
        np.concatenate([part.whole for part in parts])[order],
    )
