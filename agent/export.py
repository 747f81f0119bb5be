"""The command ``runout-agent export``: the evidence of an alert in one file."""

import argparse
import csv
import io
from pathlib import Path

import msgspec

from agent.config import AgentConfig, load
from agent.evidence import package
from agent.evidence.account import Readings
from agent.evidence.find import Burst
from agent.evidence.record import Software
from agent.evidence.words import in_words
from agent.explain import Beside, Explained, as_json, explain
from contract import npz
from contract.errors import ContractError
from contract.spec import Waveform


def command(arguments: argparse.Namespace) -> int:
    """Run it; returns 0: the same to the last bit, 1: packed, but the alert is not the same."""
    config = load(arguments.config, arguments.set)
    told = explain(config, arguments.alert)
    out = arguments.out or Path(f"alert-{package.plain(told.account.alert.id)}.zip")
    size = export(config, told, out)
    print(f"{out}: alert {told.account.alert.id}, {size} bytes")
    print(f"on another machine: runout-agent explain --from {out}")
    if not told.account.same:
        print(
            "the recomputed alert is NOT the same as the one that was raised: see explanation.txt"
        )
    return 0 if told.account.same else 1


def export(config: AgentConfig, told: Explained, out: Path) -> int:
    """Pack the evidence of an alert that was explained; returns the size of the file.

    Raises:
        ContractError: it cannot be recomputed, so that there is nothing to pack.
    """
    evidence, again, alert = told.found.evidence, told.again, told.account.alert
    if evidence is None or again is None:
        raise ContractError(f"alert {alert.id} cannot be recomputed: {told.account.lost}")
    setting = evidence.head.setting
    spec = setting.asset_class
    beside = Beside(alert, told.found.returned, told.found.kept, told.found.health)
    members = {
        "alert.json": msgspec.json.format(msgspec.json.encode(beside)),
        "class.json": msgspec.json.format(msgspec.json.encode(spec)),
        "software.json": msgspec.json.encode({"then": setting.software, "packed": Software.here()}),
        "explanation.txt": in_words(told.account).encode() + b"\n",
        "explanation.json": as_json(told.account).encode(),
        "evidence.npz": evidence.to_bytes(),
        "expected.npz": npz.to_bytes(b"{}", {} if again.sight is None else again.sight.arrays()),
    }
    if told.account.readings is not None:
        members["readings.csv"] = _readings(told.account.readings)
    if evidence.head.lives is not None:
        members["lives.npz"] = told.lives.to_bytes()
    for name, release in told.releases.items():
        members[f"releases/{package.plain(name)}"] = release.to_bytes()
    waves = {wave.name: wave for wave in spec.waveforms}
    for burst in told.found.bursts:
        stem = f"bursts/{package.plain(burst.wave)}-{burst.t_ns}"
        members[f"{stem}.npz"] = npz.to_bytes(
            msgspec.json.encode((burst.wave, burst.t_ns, burst.reason)),
            {"features": burst.features, "samples": burst.samples},
        )
        members[f"{stem}.csv"] = _samples(waves[burst.wave], burst)
    for module in setting.functions:
        path = Path(config.functions) / f"{module}.py"
        members[f"functions/{module}.py"] = path.read_bytes()
    package.write(out, alert.id, members)
    return out.stat().st_size


def _readings(readings: Readings) -> bytes:
    text = io.StringIO()
    rows = csv.writer(text)
    heads = [f"{n} [{u}]" for n, u in zip(readings.channels, readings.units, strict=True)]
    rows.writerow(["t", *heads])
    for t, values in zip(readings.t, readings.values, strict=True):
        rows.writerow([repr(t), *("" if v is None else repr(v) for v in values)])
    return text.getvalue().encode()


def _samples(wave: Waveform, burst: Burst) -> bytes:
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(["s", f"{wave.name} [{wave.unit}]"])
    for i, value in enumerate(burst.samples.tolist()):
        rows.writerow([repr(i / wave.rate_hz), repr(value)])
    return text.getvalue().encode()
