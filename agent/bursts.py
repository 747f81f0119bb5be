"""Bursts of waveforms: judged, turned into features, and put among the rows at their places.

Bursts of one kind are computed together, whichever asset they are of: each as if it were alone.
"""

from collections.abc import Callable

import numpy as np

from agent.asset import Asset, Counts
from agent.batch import Batch, Rows, Shot
from agent.clean import Reason, judge_bursts
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
    made: dict[str, list[Shot]] = {}
    for shot in batch.shots:
        if shot.reason:
            one = asset(shot.asset)
            one.note_burst(shot)
            name = one.group.spec.waveforms[shot.wave].name
            counts.mark(one.name, name, Reason(shot.reason).name.lower(), 1)
        made.setdefault(shot.asset, []).append(shot)
    for name, shots in made.items():
        by_asset.setdefault(name, []).append(_rows(asset(name), shots))
    return [_in_order(name, parts) for name, parts in by_asset.items()]


def _compute(shots: list[Shot], found: list[int], group: Group, rpm: list[float]) -> None:
    """Fill in the features of bursts of one waveform; NaN, and a reason, where one is bad."""
    wave = shots[found[0]].wave
    spec = group.spec.waveforms[wave]
    samples = np.stack([shots[i].samples for i in found])
    reasons = judge_bursts(spec, samples)
    good = np.array([not reason for reason in reasons])
    X = np.full((len(found), len(spec.features)), np.nan)
    if good.any():
        speeds = None if spec.bearing is None else np.array(rpm)[good]
        whole = samples if good.all() else samples[good]
        X[good] = group.bursts[wave].compute(whole, speeds)
    for i, x, reason, speed in zip(found, X, reasons, rpm, strict=True):
        shots[i] = shots[i]._replace(features=x, reason=int(reason), rpm=speed)


def _rows(asset: Asset, shots: list[Shot]) -> Rows:
    """Return the rows that an asset's bursts make, one each, in the order of the bursts."""
    spec = asset.group.spec
    waves = np.array([shot.wave for shot in shots])
    values: Floats = np.full((len(shots), len(spec.columns)), np.nan)
    at = len(spec.channels)
    for number, wave in enumerate(spec.waveforms):
        found = np.flatnonzero(waves == number)
        if len(found):
            features = [shots[i].features for i in found.tolist()]
            values[found, at : at + len(wave.features)] = features
        at += len(wave.features)
    return Rows(
        asset.name,
        np.array([shot.t_ns for shot in shots]),
        values,
        np.array([shot.pos for shot in shots]),
        np.full(len(shots), not spec.channels and len(spec.waveforms) == 1),
    )


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
