"""An alert is recomputed to the last bit: at once, long after, elsewhere; what is not is said."""

import hashlib
import json
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from agent.app import Engine
from agent.batch import Batch, Rows, Shot
from agent.cli import main
from agent.config import AgentConfig, Keep, load
from agent.evidence import custody, package
from agent.evidence.account import Account
from agent.evidence.custody import Custody
from agent.evidence.record import Evidence
from agent.explain import explain, from_package
from agent.export import export
from agent.journal import Journal, JournalReader
from agent.rollout import deliver
from contract import VERSION, npz
from contract.arrays import Arrays, Floats
from contract.errors import ContractError
from contract.model_spec import Moments, Ridge
from contract.release import Manifest, Release
from contract.report import Alert
from contract.spec import AssetClass, Channel, Function, Waveform

Configure = Callable[..., AgentConfig]
Open = Callable[[AgentConfig], Any]

HOUR_NS = 3_600_000_000_000
PUMP = AssetClass(
    "pump",
    (Channel("vibration", "mm/s", low=0.0, high=100.0), Channel("temperature", "degC")),
    stats=("last", "mean_4", "std_4"),
    cap_h=48.0,
    health=Moments(baseline=16, learn=24, on_delay=2, off_delay=2, alarm_rate=0.01),
    rul=(Ridge(random=20),),
    holdout=3,
)
SHORT = Keep(power_loss_safe=False, journal_mb=0.001)
"""A journal that reaches no further back than it must."""


def healthy(seed: int, hours: int) -> Floats:
    values: Floats = np.random.default_rng(seed).normal(size=(hours, 2)) * 0.1 + [5.0, 40.0]
    return values


def wearing(seed: int, hours: int = 50) -> Floats:
    wear: Floats = np.maximum(np.linspace(-1.5, 1.0, hours), 0.0)[:, None] * [4.0, 20.0]
    return healthy(seed, hours) + wear


def raised(device: Any, asset: str, values: Floats, *, begin: int = 0, step: int = 7) -> Alert:
    """Let an asset live in pieces, with a checkpoint behind each third; return its last alert."""
    said: list[Alert] = []
    for number, at in enumerate(range(0, len(values), step)):
        outcomes = device.live(asset, values[at : at + step], begin=begin + at)
        said += [one for one in outcomes if isinstance(one, Alert) and one.state == "raised"]
        if number % 3 == 2:
            device.engine.checkpoint()
    assert said, "the machine wore out and nobody was told"
    return said[-1]


def told(config: AgentConfig, text: str = "last") -> Account:
    return explain(config, text).account


def edit(config: AgentConfig, sql: str, *args: object) -> list[Any]:
    with closing(sqlite3.connect(config.state / "store.db")) as db, db:
        return db.execute(sql, args).fetchall()


def journal_without_its_first(state: Path) -> None:
    batches = list(JournalReader(state).read())
    shutil.rmtree(state / "journal")
    with closing(Journal(state, 1e6, durable=False)) as journal:
        for seq, body in batches[1:]:
            journal.append(seq, body)


def row_of(config: AgentConfig, alert: str) -> tuple[int, bytes | None, str]:
    ((row, body, lost),) = edit(
        config, "SELECT id, body, lost FROM evidence WHERE alert = ?", alert
    )
    return row, body, lost


def evidence_of(config: AgentConfig, alert: str) -> Evidence:
    _, body, _ = row_of(config, alert)
    assert body is not None
    return Evidence.from_bytes(body, alert)


# -- the same to the last bit ----------------------------------------------------------------------


def test_an_alert_is_recomputed_right_after_it_was_raised(
    configure: Configure, device: Open
) -> None:
    config = configure(spec=PUMP)
    alert = raised(device(config), "pump-1", wearing(1), step=50)
    account = told(config)
    assert (account.alert, account.same, account.differences) == (alert, True, [])
    assert row_of(config, alert.id)[1] is None, "this test is of evidence that is not gathered yet"
    assert not account.kept


def test_an_alert_is_recomputed_when_its_journal_is_long_gone(
    configure: Configure, device: Open
) -> None:
    config = configure(spec=PUMP, keep=SHORT)
    node = device(config)
    alert = raised(node, "pump-1", wearing(1))
    for hour in range(50, 80):
        node.live("pump-1", healthy(hour, 1), begin=hour)
        node.engine.checkpoint()
    head = evidence_of(config, alert.id).head
    assert JournalReader(config.state).first > head.seq, "the journal is still there"
    account = told(config)
    assert (account.alert, account.same, account.kept) == (alert, True, True)


def test_every_alert_is_recomputed_however_batches_and_checkpoints_fell(
    configure: Configure, device: Open
) -> None:
    config = configure(spec=PUMP, keep=SHORT)
    node = device(config)
    rng = np.random.default_rng(4)
    values = {name: np.concatenate([wearing(i), wearing(9 + i)]) for i, name in enumerate("abc")}
    said: list[Alert] = []
    at = dict.fromkeys(values, 0)
    while any(at[name] < 100 for name in at):
        for name in at:
            step = int(rng.integers(1, 9))
            part = values[name][at[name] : at[name] + step]
            if len(part):
                failed = at[name] < 50 <= at[name] + len(part)
                said += [
                    one
                    for one in node.live(name, part, begin=at[name], failed=failed)
                    if isinstance(one, Alert) and one.state == "raised"
                ]
                at[name] += len(part)
            if rng.random() < 0.2:
                node.engine.checkpoint()
    assert len(said) >= 6
    for alert in said:
        account = told(config, alert.id)
        assert (account.alert, account.same) == (alert, True), account.lost


def test_after_a_kill_the_alerts_before_it_and_behind_it_are_recomputed(
    configure: Configure, device: Open
) -> None:
    config = configure(spec=PUMP, keep=SHORT)
    node = device(config)
    node.live("pump-1", wearing(1)[:30])
    node.engine.checkpoint()
    first = raised(node, "pump-1", wearing(1)[30:], begin=30, step=50)
    node.kill()
    again = device(config)
    again.live("pump-1", healthy(2, 20), begin=50)
    second = raised(again, "pump-1", wearing(3), begin=70)
    again.close()
    assert first.id != second.id
    for alert in (first, second):
        account = told(config, alert.id)
        assert (account.alert, account.same, account.kept) == (alert, True, True)


def test_an_alert_is_judged_by_the_configuration_in_force_when_it_was_raised(
    configure: Configure, device: Open
) -> None:
    config = configure(spec=PUMP)
    node = device(config)
    first = raised(node, "pump-1", wearing(1), step=50)
    node.kill()
    slow = msgspec.structs.replace(PUMP.health, on_delay=9)
    later = configure(spec=msgspec.structs.replace(PUMP, health=slow))
    again = device(later)
    second = raised(again, "pump-2", wearing(2), step=50)
    again.engine.checkpoint()
    for alert, delay in ((first, 2), (second, 9)):
        account = told(later, alert.id)
        assert (account.alert, account.same) == (alert, True), account.lost
        assert account.judgement is not None
        assert account.judgement.on_delay == delay


def test_an_alert_after_windows_began_anew_is_recomputed(
    configure: Configure, device: Open
) -> None:
    config = configure(spec=PUMP)
    node = device(config)
    node.wear_out("pump-1", 1)
    node.close()
    for path in config.state.glob("checkpoint*.npz"):
        path.unlink()
    journal_without_its_first(config.state)
    again = device(config)
    alert = raised(again, "pump-1", wearing(3), begin=60, step=50)
    assert alert.id.startswith("pump-1/1/"), "the life has its own number all the same"
    assert told(config).same is True
    again.engine.checkpoint()
    assert told(config).same is True


def release_of(node: Any, version: int, factor: float = 1.0) -> Release:
    """Return a release of what the device has learnt, its limits some times as wide."""
    group = node.engine.pipeline.groups["pump"]
    ridge = group.rul.models["ridge"]
    health = group.cohort.model.arrays("health/model/")
    health["health/model/limits"] = health["health/model/limits"] * factor
    arrays: Arrays = {
        **health,
        "health/histogram": group.cohort.scores,
        **ridge.basis.arrays(),
        "ridge/coefficients": ridge.coefficients,
    }
    spec = group.spec
    manifest = Manifest(VERSION, spec, version, version - 1, 0, ("a", "b"), "ridge", {})
    return Release(manifest, arrays)


def test_an_alert_is_recomputed_when_a_release_was_swapped_in_before_and_another_behind(
    configure: Configure, device: Open
) -> None:
    config = configure(spec=PUMP, keep=SHORT)
    node = device(config)
    node.wear_out("pump-1", 1)
    node.live("pump-1", wearing(2)[:20], begin=60)
    node.engine.checkpoint()
    first = release_of(node, 1, 1.5)
    deliver(config.state, first)
    assert [verdict.promoted for verdict in node.engine.consider_releases(1)] == [True]
    alert = raised(node, "pump-1", wearing(2)[20:], begin=80, step=40)
    assert alert.judged_by == 1
    deliver(config.state, release_of(node, 2, 0.5))
    node.engine.consider_releases(2)
    for _ in range(2):  # before it is gathered, and afterwards
        account = told(config)
        assert (account.alert, account.same) == (alert, True), account.lost
        assert account.model is not None
        assert (account.model.version, account.model.digest) == (1, first.digest)
        assert account.model.judges_health
        assert account.model.contributors == 2
        node.engine.checkpoint()
    (config.state / "models" / "releases" / "pump-v0001.npz").unlink()
    account = told(config)
    assert account.same is None
    assert "pump-v0001.npz" in account.lost


def test_what_others_taught_meanwhile_is_in_the_evidence_and_else_the_asset_alone(
    configure: Configure, device: Open
) -> None:
    config = configure(spec=PUMP, keep=SHORT)
    node = device(config)
    for i in range(3):
        node.live(f"pump-{i}", healthy(i, 30))
    node.engine.checkpoint()
    node.live("pump-2", healthy(8, 4), begin=30)
    alone = raised(node, "pump-0", wearing(3), begin=30, step=50)
    node.engine.checkpoint()
    node.live("pump-3", healthy(9, 18))  # learns while pump-1 is judged
    both = raised(node, "pump-1", wearing(4), begin=30, step=50)
    node.engine.checkpoint()
    for alert, expected, assets in (
        (alone, True, {"pump-0"}),
        (both, False, {"pump-0", "pump-1", "pump-2"}),
    ):
        evidence = evidence_of(config, alert.id)
        assert evidence.head.alone is expected
        assert evidence.head.state is not None
        assert set(evidence.head.state["assets"]["pump"]) == assets
        assert told(config, alert.id).same is True


def test_a_life_that_ended_meanwhile_is_needed_and_its_loss_is_said(
    configure: Configure, device: Open
) -> None:
    config = configure(spec=PUMP, keep=SHORT)
    node = device(config)
    hour = node.wear_out("pump-1", 1)
    node.engine.checkpoint()
    hour = node.wear_out("pump-1", 2, begin=hour)
    alert = raised(node, "pump-1", wearing(3), begin=hour, step=50)
    assert alert.rul_h is not None
    node.engine.checkpoint()
    node.wear_out("pump-2", 5)  # a life that was not known then
    assert evidence_of(config, alert.id).head.lives == (("pump-1", 0), ("pump-1", 1))
    assert told(config, alert.id).same is True
    edit(config, "DELETE FROM life WHERE asset = 'pump-1' AND life = 0")
    account = told(config, alert.id)
    assert account.same is None
    assert "pump-1/0" in account.lost


def test_a_life_of_another_that_ended_meanwhile_is_part_of_the_evidence(
    configure: Configure, device: Open
) -> None:
    config = configure(spec=PUMP, keep=SHORT)
    node = device(config)
    for i in range(2):
        node.live(f"pump-{i}", healthy(i, 30))
    node.wear_out("pump-2", 7)
    node.engine.checkpoint()
    node.live("pump-1", wearing(4)[30:], begin=30, failed=True)  # all have learnt what they may
    alert = raised(node, "pump-0", wearing(3), begin=30, step=50)
    node.engine.checkpoint()
    head = evidence_of(config, alert.id).head
    assert (head.alone, head.lives) == (False, (("pump-2", 0), ("pump-1", 0)))
    account = told(config, alert.id)
    assert (account.alert, account.same) == (alert, True)
    assert account.model is not None
    assert account.model.rul_lives == 2


def test_alerts_that_are_too_many_at_once_are_gathered_with_the_next_checkpoint(
    configure: Configure, device: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(custody, "AT_ONCE", 1)
    config = configure(spec=PUMP, keep=SHORT)
    node = device(config)
    for i in range(2):
        node.live(f"pump-{i}", healthy(i, 30))
    node.engine.checkpoint()
    alerts = [raised(node, f"pump-{i}", wearing(i), begin=30, step=50) for i in range(2)]
    node.engine.checkpoint()
    node.live("pump-0", healthy(5, 1), begin=90)
    assert [row_of(config, alert.id)[1] is None for alert in alerts] == [False, True]
    node.engine.checkpoint()
    for alert in alerts:
        assert row_of(config, alert.id)[1] is not None
        assert told(config, alert.id).same is True


def test_a_note_of_another_version_of_the_program_is_lost_and_ends_nothing(
    configure: Configure, device: Open
) -> None:
    config = configure(spec=PUMP)
    node = device(config)
    alerts = [raised(node, f"pump-{i}", wearing(i), step=50) for i in range(3)]
    edit(config, "UPDATE evidence SET setting = '{}' WHERE alert = ?", alerts[1].id)
    node.engine.checkpoint()
    assert [told(config, alert.id).same for alert in alerts] == [True, None, True]
    assert "another version" in told(config, alerts[1].id).lost


def test_an_alert_before_a_kill_is_kept_when_the_features_are_configured_otherwise(
    configure: Configure, device: Open
) -> None:
    config = configure(spec=PUMP)
    node = device(config)
    alert = raised(node, "pump-1", wearing(1), step=50)
    node.kill()
    later = configure(spec=msgspec.structs.replace(PUMP, stats=("last", "mean_8")))
    device(later)
    account = told(later)
    assert (account.alert, account.same, account.kept) == (alert, True, True)
    assert [f.stat for f in account.features if f.stat.startswith("mean")] == ["mean_4", "mean_4"]


def test_an_alert_of_an_agent_that_kept_no_evidence_is_looked_for_in_the_journal(
    configure: Configure, device: Open
) -> None:
    config = configure(spec=PUMP)
    node = device(config)
    alert = raised(node, "pump-1", wearing(1))
    node.close()
    edit(config, "DROP TABLE evidence")
    edit(config, "DROP TABLE evidence_burst")
    account = told(config)
    assert (account.alert, account.same, account.kept) == (alert, True, False)
    shutil.rmtree(config.state / "journal")
    account = told(config)
    assert account.same is None
    assert "neither its evidence nor a state before it" in account.lost


def test_a_users_own_functions_must_be_those_that_judged(
    configure: Configure, device: Open, tmp_path: Path
) -> None:
    folder = tmp_path / "functions"
    folder.mkdir()
    (folder / "own.py").write_text("def spread(rows):\n    return float(rows[:, 0].max())\n")
    spec = msgspec.structs.replace(PUMP, functions=(Function("spread", "own:spread", rows=4),))
    config = configure(spec=spec, functions=str(folder))
    node = device(config)
    alert = raised(node, "pump-1", wearing(1))
    node.close()
    explained = explain(config, "last")
    assert explained.account.same is True
    out = tmp_path / "alert.zip"
    export(config, explained, out)
    with pytest.raises(ContractError, match="give their folder by --functions"):
        from_package(out)
    assert from_package(out, folder).alert == alert
    (folder / "own.py").write_text("def spread(rows):\n    return 0.0\n")
    account = told(config)
    assert account.same is None
    assert "own.py" in account.lost
    with pytest.raises(ContractError, match=r"own\.py"):
        from_package(out, folder)


# -- what is shown ---------------------------------------------------------------------------------


def test_the_account_names_the_features_behind_the_score_and_where_its_limit_comes_from(
    configure: Configure, device: Open
) -> None:
    config = configure(spec=PUMP)
    node = device(config)
    values = wearing(1)
    values[:, 1] = healthy(1, 50)[:, 1]  # the temperature stays
    values[44, 1] = np.inf
    alert = raised(node, "pump-1", values, step=50)
    account = told(config)
    first = account.features[0]
    assert first.channel == alert.why[0].channel == "vibration"
    assert [f.share for f in account.features] == sorted(
        (f.share for f in account.features), reverse=True
    )
    assert sum(f.share for f in account.features) == pytest.approx(1.0)
    by_name = {(f.channel, f.stat): f for f in account.features}
    for why in alert.why:
        sigmas = by_name[why.channel, why.feature].sigmas
        assert sigmas is not None
        assert round(sigmas, 2) == why.sigmas
        share = sum(f.share for f in account.features if f.channel == why.channel)
        assert round(share, 3) == why.share
    for f in account.features:
        assert f.value is not None
        assert f.mean is not None
        assert f.sd is not None
        assert f.sigmas == pytest.approx((f.value - f.mean) / f.sd)
    judged = account.judgement
    assert judged is not None
    assert round(judged.score, 4) == alert.score
    assert (judged.alarm_rate, judged.needed) == (0.01, 20.0)
    assert judged.healthy_scores <= node.engine.pipeline.groups["pump"].cohort.scores.sum()
    assert account.trail[-1][1] == judged.score
    # The smoothed score moves by its weight towards that of the vector alone.
    assert judged.score - account.trail[-2][1] == pytest.approx(
        judged.smoothing * (judged.raw / judged.limit - account.trail[-2][1])
    )
    assert account.readings is not None
    assert account.readings.t[-1] == alert.t
    shown = account.readings.values[-1]
    assert shown == values[int(account.readings.t[-1] - account.readings.t[0]) // 3600].tolist()
    assert account.class_digest == PUMP.digest()


def test_marks_before_an_alert_are_shown_and_readings_from_before_the_state(
    configure: Configure, device: Open
) -> None:
    config = configure(spec=PUMP)
    node = device(config)
    values = wearing(1)
    values[20] = [np.nan, 40.0]
    node.live("pump-1", values[:19])
    node.engine.checkpoint()
    alert = raised(node, "pump-1", values[19:], begin=19, step=50)
    account = told(config)
    assert account.same is True
    assert [mark for _, mark in account.marks] == ["vibration.missing"]
    assert account.readings is not None
    count = round((alert.t - account.readings.t[0]) / 3600) + 1
    assert [len(account.readings.t), account.readings.values[1]] == [count, values[1].tolist()]


def test_the_words_say_what_is_high_by_what_it_was_judged_and_that_it_is_the_same(
    configure: Configure, device: Open, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    config, path = on_disk(configure, tmp_path)
    node = device(config)
    alert = raised(node, "pump-1", wearing(1))
    assert main(["explain", "--config", str(path)]) == 0
    said = capsys.readouterr().out
    for words in (
        f"alert {alert.id}: {alert.text}",
        "the same to the last bit",
        "standard deviations above this machine's own beginning",
        "alarm_rate 0.01",
        "the device's own model, of",
        "vibration mm/s",
        config.asset_class[0].digest(),
    ):
        assert words in said
    assert main(["explain", "pump-1", "--json", "--config", str(path)]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["alert"]["id"], shown["same"]) == (alert.id, True)


def test_an_unknown_alert_names_the_nearest(
    configure: Configure, device: Open, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    config, path = on_disk(configure, tmp_path)
    node = device(config)
    with pytest.raises(ContractError, match="no alert was raised here"):
        told(config)
    first = raised(node, "pump-1", wearing(1))
    second = raised(node, "fan-7", wearing(2))
    assert told(config, "pump-1").alert == first
    assert told(config, second.id).alert == second
    assert told(config, "last").alert in {first, second}
    assert main(["explain", "pump-1/0/77", "--config", str(path)]) == 2
    assert f"the nearest: {first.id}" in capsys.readouterr().err
    with pytest.raises(ContractError, match="no alert 'zzz' is known; the newest: "):
        told(config, "zzz")


# -- bursts ----------------------------------------------------------------------------------------

MOTOR = AssetClass(
    "motor",
    waveforms=(Waveform("case", "m/s2", 1000.0, samples=256, features=("rms", "crest")),),
    stats=("last", "mean_4"),
    health=Moments(baseline=16, learn=24, on_delay=2, off_delay=2, alarm_rate=0.01),
)


def level(hour: int) -> float:
    return 0.5 if hour < 40 else 0.5 * (hour - 38)


def burst(hour: int) -> Shot:
    rng = np.random.default_rng(hour)
    tone = level(hour) * np.sin(2 * np.pi * 125.0 * np.arange(256) / 1000.0)
    samples = (tone + 0.1 * rng.normal(size=256)).astype(np.float32)
    return Shot(0, "motor-1", 0, HOUR_NS * (1_000_000 + hour), samples)


def raised_by_bursts(engine: Engine, *, after: int) -> tuple[Alert, int]:
    """Return the alert, and the hour in which it was raised."""
    found: list[tuple[Alert, int]] = []
    for hour in range(70):
        shot = burst(hour)
        said = engine.process(Batch([], [], shots=[shot]))
        found += [(o, hour) for o in said if isinstance(o, Alert) and o.state == "raised"]
        if hour % 16 == 15:
            engine.checkpoint()
        if found and hour == found[0][1] + after:
            return found[0]
    raise AssertionError("nobody was told")


@pytest.mark.parametrize("waveforms", [True, False])
def test_the_bursts_round_an_alert_are_kept_whether_the_journal_has_them_or_not(
    configure: Configure, device: Open, tmp_path: Path, *, waveforms: bool
) -> None:
    config = configure(spec=MOTOR, keep=msgspec.structs.replace(SHORT, waveforms=waveforms))
    node = device(config)
    alert, hour = raised_by_bursts(node.engine, after=3)
    node.engine.checkpoint()
    explained = explain(config, "last")
    account = explained.account
    assert (account.alert, account.same, account.kept) == (alert, True, True)
    assert [shown.t for shown in account.bursts] == [burst(h).t_ns / 1e9 for h in (hour, hour + 1)]
    first = burst(hour).samples
    assert explained.found.bursts[0].samples.tobytes() == first.tobytes()
    shown = account.bursts[0]
    assert shown.lines[0].hz == 125.0
    assert shown.lines[0].amplitude == pytest.approx(level(hour), rel=0.1)
    assert shown.features["rms"] == pytest.approx(np.sqrt(np.mean(first**2)), rel=1e-5)
    out = tmp_path / "burst.zip"
    export(config, explained, out)
    shutil.rmtree(config.state)
    again = from_package(out)
    assert again.same is True
    assert again.bursts == account.bursts
    with zipfile.ZipFile(out) as archive:
        rows = archive.read(f"bursts/case-{burst(hour).t_ns}.csv").decode().splitlines()
    assert rows[0] == "s,case [m/s2]"
    assert np.float32(rows[2].split(",")[1]) == first[1]


def test_an_agent_that_restarted_shows_the_bursts_of_its_journal(
    configure: Configure, device: Open
) -> None:
    config = configure(spec=MOTOR)
    node = device(config)
    alert, hour = raised_by_bursts(node.engine, after=0)
    edit(config, "DELETE FROM evidence_burst")
    account = told(config)
    assert (account.alert, account.same) == (alert, True)
    assert [shown.t for shown in account.bursts] == [burst(hour).t_ns / 1e9]


# -- what was tampered with ------------------------------------------------------------------------


@pytest.fixture
def kept(configure: Configure, device: Open) -> tuple[AgentConfig, Alert]:
    """Return a closed store with an alert whose evidence is kept."""
    config = configure(spec=PUMP)
    node = device(config)
    alert = raised(node, "pump-1", wearing(1))
    node.close()
    return config, alert


def test_evidence_with_one_bit_changed_is_refused(kept: tuple[AgentConfig, Alert]) -> None:
    config, alert = kept
    row, body, _ = row_of(config, alert.id)
    assert body is not None
    at = body.index(b"vibration")
    changed = body[:at] + b"w" + body[at + 1 :]
    edit(config, "UPDATE evidence SET body = ? WHERE id = ?", changed, row)
    account = told(config)
    assert account.same is None
    assert "not a whole Runout file" in account.lost or "digest" in account.lost


def test_readings_that_were_changed_with_their_digest_give_another_alert(
    kept: tuple[AgentConfig, Alert],
) -> None:
    config, alert = kept
    evidence = evidence_of(config, alert.id)
    seq, body = evidence.batches[-1]
    batch = Batch.decode(body)
    (part,) = batch.rows
    values = part.values.copy()
    values[:, 0] -= 0.25
    forged = batch._replace(rows=[part._replace(values=values)])
    evidence.batches[-1] = (seq, forged.encode())
    edit(config, "UPDATE evidence SET body = ? WHERE alert = ?", evidence.to_bytes(), alert.id)
    account = told(config)
    assert account.same is False
    assert account.differences


def test_an_alert_that_was_changed_after_it_was_said_is_found(
    kept: tuple[AgentConfig, Alert],
) -> None:
    config, alert = kept
    forged = msgspec.structs.replace(alert, score=alert.score + 0.0001)
    for body in (forged, alert):
        edit(
            config,
            "UPDATE result SET body = ? WHERE kind = 'alert' AND body = ?",
            msgspec.json.encode(forged),
            msgspec.json.encode(body),
        )
    account = told(config)
    assert account.same is False
    assert f"score: said {forged.score!r}, recomputed {alert.score!r}" in account.differences
    assert any("in its copy" in text for text in account.differences)


def test_evidence_of_another_alert_is_refused(kept: tuple[AgentConfig, Alert]) -> None:
    config, alert = kept
    edit(config, "UPDATE evidence SET alert = 'pump-1/0/9' WHERE alert = ?", alert.id)
    other = msgspec.structs.replace(alert, id="pump-1/0/9")
    edit(config, "UPDATE evidence SET said = ?", msgspec.json.encode(other))
    account = told(config, "pump-1/0/9")
    assert account.same is None
    assert alert.id in account.lost


# -- beside a running agent ------------------------------------------------------------------------

TOML = """
[node]
name = "node"
site = "test"
state = "{state}"

[keep]
power_loss_safe = false

[[asset_class]]
name = "pump"
stats = ["last", "mean_4", "std_4"]
cap_h = 48.0
holdout = 3
channels = [
  {{ name = "vibration", unit = "mm/s", low = 0.0, high = 100.0 }},
  {{ name = "temperature", unit = "degC" }},
]
[asset_class.health]
kind = "moments"
baseline = 16
learn = 24
on_delay = 2
off_delay = 2
alarm_rate = 0.01
"""


def on_disk(_configure: Configure, folder: Path) -> tuple[AgentConfig, Path]:
    """Return a configuration, and the file it stands in."""
    path = folder / "agent.toml"
    path.write_text(TOML.format(state=folder / "node"))
    return load(path), path


def tree(folder: Path) -> dict[str, str]:
    """Return the digests of the files in a folder, but for what SQLite shares between readers."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith("-shm")
    }


def test_an_alert_is_explained_beside_a_running_agent_and_changes_nothing(
    configure: Configure, device: Open, tmp_path: Path
) -> None:
    config, path = on_disk(configure, tmp_path)
    node = device(config)
    alert = raised(node, "pump-1", wearing(1))
    before = tree(config.state)
    program = str(Path(sys.executable).with_name("runout-agent"))
    done = subprocess.run(
        [program, "explain", alert.id, "--json", "--config", str(path)],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["same"] is True
    assert tree(config.state) == before
    # While a batch is being written, too.
    node.engine.store.begin()
    assert told(config).same is True
    node.engine.store.commit()
    node.live("pump-1", healthy(3, 2), begin=60)


def test_without_a_store_it_is_said_where_it_was_looked_for(
    configure: Configure, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    _, path = on_disk(configure, tmp_path)
    assert main(["explain", "--config", str(path)]) == 2
    assert "no store.db here" in capsys.readouterr().err
    assert main(["explain"]) == 2
    assert "--config FILE of the agent, or --from" in capsys.readouterr().err


# -- bounds ----------------------------------------------------------------------------------------


@pytest.fixture
def engine_of() -> Iterator[Callable[..., Engine]]:
    """Make engines that keep so many megabytes of evidence."""
    with ExitStack() as opened:

        def make(config: AgentConfig, evidence_mb: float) -> Engine:
            engine = Engine(config, opened)
            engine.custody = Custody(engine.store, config, evidence_mb=evidence_mb)
            engine.custody.begin(engine.pipeline, 0, empty=True)
            return engine

        yield make


def alerts_of(engine: Engine, count: int) -> list[Alert]:
    said: list[Alert] = []
    for i in range(count):
        values = wearing(i)
        t_ns = HOUR_NS * np.arange(1, 51)
        rows = Rows(f"pump-{i}", t_ns, values, np.arange(50), np.ones(50, dtype=np.bool_))
        said += [o for o in engine.process(Batch([rows], [])) if isinstance(o, Alert)]
        engine.checkpoint()
    return [alert for alert in said if alert.state == "raised"]


def test_the_oldest_evidence_goes_first_when_its_room_is_full(
    configure: Configure, engine_of: Callable[..., Engine]
) -> None:
    config = configure(spec=PUMP, keep=SHORT)
    engine = engine_of(config, 0.5)
    said = alerts_of(engine, 12)
    ((total, count),) = edit(config, "SELECT SUM(bytes), COUNT(*) FROM evidence")
    ((true,),) = edit(config, "SELECT SUM(LENGTH(said) + COALESCE(LENGTH(body), 0)) FROM evidence")
    assert total == true <= 500_000
    assert 0 < count < len(said)
    assert told(config, said[-1].id).same is True
    account = told(config, said[0].id)
    assert account.same is None
    assert "keep.evidence_mb" in account.lost
    assert account.alert == said[0]


def test_evidence_larger_than_its_room_is_not_kept_and_that_is_said(
    configure: Configure, engine_of: Callable[..., Engine]
) -> None:
    config = configure(spec=PUMP, keep=SHORT)
    engine = engine_of(config, 0.01)
    said = alerts_of(engine, 2)
    account = told(config, said[-1].id)
    assert account.same is None
    assert "was not kept" in account.lost
    assert "keep.evidence_mb" in account.lost


def test_without_room_for_evidence_none_is_kept(
    configure: Configure, engine_of: Callable[..., Engine]
) -> None:
    config = configure(spec=PUMP)
    assert alerts_of(engine_of(config, 0.0), 2)
    assert edit(config, "SELECT * FROM evidence") == []


def test_bursts_in_memory_and_rows_of_alerts_are_bounded(
    configure: Configure, engine_of: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(custody, "BURST_BYTES", 5 * 1024)
    monkeypatch.setattr(custody, "MOST_ROWS", 3)
    motors = engine_of(configure("motors", spec=MOTOR), 32.0)
    for i in range(20):
        shot = burst(i)._replace(asset=f"motor-{i}")
        motors.process(Batch([], [], shots=[shot]))
    assert [asset for asset, _ in motors.custody._bursts] == [f"motor-{i}" for i in range(15, 20)]
    config = configure(spec=PUMP)
    said = alerts_of(engine_of(config, 32.0), 8)
    kept = [alert for (alert,) in edit(config, "SELECT alert FROM evidence ORDER BY id")]
    assert kept == [alert.id for alert in said[-3:]]


# -- packages --------------------------------------------------------------------------------------


@pytest.fixture
def packed(kept: tuple[AgentConfig, Alert], tmp_path: Path) -> tuple[Path, Account]:
    """Return a package, whose device is gone, and what the device said."""
    config, _ = kept
    explained = explain(config, "last")
    out = tmp_path / "alert.zip"
    assert export(config, explained, out) == out.stat().st_size
    shutil.rmtree(config.state)
    return out, explained.account


def repacked(path: Path, change: Callable[[dict[str, bytes]], object]) -> Path:
    """Pack the members of a package again, changed, with a manifest that fits them."""
    members = dict(package.read(path).members)
    change(members)
    out = path.with_name("again.zip")
    package.write(out, "pump-1/0/1", members)
    return out


def test_a_package_alone_is_enough_on_another_machine(
    packed: tuple[Path, Account], capsys: pytest.CaptureFixture[str]
) -> None:
    path, before = packed
    after = from_package(path)
    assert msgspec.structs.replace(after, kept=before.kept) == before
    assert main(["explain", "--from", str(path)]) == 0
    assert "the same to the last bit" in capsys.readouterr().out
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        rows = archive.read("readings.csv").decode().splitlines()
        assert before.alert.text in archive.read("explanation.txt").decode()
    assert names == {
        "manifest.json",
        "alert.json",
        "class.json",
        "software.json",
        "explanation.txt",
        "explanation.json",
        "evidence.npz",
        "expected.npz",
        "readings.csv",
    }
    assert rows[0] == "t,vibration [mm/s],temperature [degC]"
    assert before.readings is not None
    assert [float(cell) for cell in rows[-1].split(",")[1:]] == before.readings.values[-1]


def test_the_same_evidence_makes_the_same_file(
    kept: tuple[AgentConfig, Alert], tmp_path: Path
) -> None:
    config, _ = kept
    for name in ("a.zip", "b.zip"):
        export(config, explain(config, "last"), tmp_path / name)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_a_package_has_the_releases_and_lives_that_are_needed(
    configure: Configure, device: Open, tmp_path: Path
) -> None:
    config = configure(spec=PUMP, keep=SHORT)
    node = device(config)
    hour = node.wear_out("pump-1", 1)
    node.engine.checkpoint()
    hour = node.wear_out("pump-1", 2, begin=hour)
    deliver(config.state, release_of(node, 1, 1.5))
    node.engine.consider_releases(1)
    alert = raised(node, "pump-1", wearing(3), begin=hour, step=50)
    node.close()
    out = tmp_path / "alert.zip"
    export(config, explain(config, "last"), out)
    shutil.rmtree(config.state)
    account = from_package(out)
    assert (account.alert, account.same) == (alert, True)
    assert account.model is not None
    assert account.model.version == 1
    for name in ("lives.npz", "releases/pump-v0001.npz"):
        lacking = repacked(out, lambda members, name=name: members.pop(name))  # type: ignore[misc]
        with pytest.raises(ContractError, match=f"no {name}"):
            from_package(lacking)


def test_numbers_that_another_processor_rounds_otherwise_are_named_with_their_difference(
    packed: tuple[Path, Account], capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = packed

    def round_otherwise(members: dict[str, bytes]) -> None:
        head, arrays = npz.from_bytes(members["expected.npz"], "expected.npz")
        arrays["sigmas"] = np.asarray(arrays["sigmas"], dtype=np.float64) * (1.0 + 2.0**-50)
        members["expected.npz"] = npz.to_bytes(head, arrays)

    other = repacked(path, round_otherwise)
    account = from_package(other)
    assert account.same is False
    assert account.differences == []
    assert list(account.drift) == ["sigmas"]
    assert 0.0 < account.drift["sigmas"] < 2.0**-49
    assert main(["explain", "--from", str(other)]) == 1
    assert "numbers behind it that differ" in capsys.readouterr().out


def test_a_package_whose_member_was_changed_is_refused(packed: tuple[Path, Account]) -> None:
    path, _ = packed
    out = path.with_name("forged.zip")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, content.replace(b"raised", b"RAISED"))
    with pytest.raises(ContractError, match=r"alert\.json does not match its digest"):
        from_package(out)


@pytest.mark.parametrize(
    "name", ["../outside.txt", "/etc/passwd", "a/../b", "a\\b", "C:/b", "a/b/c", "..", "é"]
)
def test_a_member_whose_name_leads_elsewhere_is_refused(
    packed: tuple[Path, Account], name: str
) -> None:
    path, _ = packed
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zipfile.ZipInfo(name), b"x")
    with pytest.raises(ContractError, match="a member is named"):
        from_package(path)


def test_a_member_that_stands_twice_or_in_no_manifest_is_refused(
    packed: tuple[Path, Account],
) -> None:
    path, _ = packed
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("more.txt", b"x")
    with pytest.raises(ContractError, match=r"more\.txt is not in its manifest"):
        from_package(path)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("more.txt", b"y")
    with pytest.raises(ContractError, match="a member is named"):
        from_package(path)


def test_a_package_that_unpacks_to_too_much_is_refused(
    packed: tuple[Path, Account], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = packed
    whole = sum(len(content) for content in package.read(path).members.values())
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", b"\0" * 10_000_000)
    monkeypatch.setattr(package, "MOST_BYTES", whole + 5_000_000)
    with pytest.raises(ContractError, match="more than"):
        from_package(path)


def test_arrays_that_claim_more_than_they_hold_are_refused(packed: tuple[Path, Account]) -> None:
    path, _ = packed

    def claim(members: dict[str, bytes]) -> None:
        content = members["evidence.npz"]
        at = content.index(b"'shape': (")
        end = content.index(b")", at)
        size = end - at
        shape = b"'shape': (" + b"9" * (size - 11) + b","
        members["evidence.npz"] = content[:at] + shape + content[end:]

    # Packed again by hand: the package's own check of the bytes in between must not save it.
    members = dict(package.read(path).members)
    claim(members)
    with pytest.raises(ContractError, match=r"claims more|not a whole"):
        package.check_arrays(members["evidence.npz"], "evidence.npz")
    out = path.with_name("claims.zip")
    package.write(out, "pump-1/0/1", members)
    with pytest.raises(ContractError, match=r"claims more|not a whole"):
        from_package(out)


@pytest.mark.parametrize("cut", [0, 10, 1000, -30])
def test_a_package_that_is_not_whole_is_refused(packed: tuple[Path, Account], cut: int) -> None:
    path, _ = packed
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ContractError, match="not a whole package"):
        from_package(path)


def test_a_package_is_not_written_where_nothing_can_be_recomputed(
    kept: tuple[AgentConfig, Alert], tmp_path: Path
) -> None:
    config, _ = kept
    edit(config, "UPDATE evidence SET body = NULL, lost = 'by a test'")
    with pytest.raises(ContractError, match="by a test"):
        export(config, explain(config, "last"), tmp_path / "alert.zip")
    assert not (tmp_path / "alert.zip").exists()


def test_export_names_its_file_by_the_alert(
    configure: Configure,
    device: Open,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config, path = on_disk(configure, tmp_path)
    alert = raised(device(config), "pump-1", wearing(1))
    monkeypatch.chdir(tmp_path)
    assert main(["export", "last", "--config", str(path)]) == 0
    name = f"alert-{alert.id.replace('/', '-')}.zip"
    assert name in capsys.readouterr().out
    assert main(["explain", "--from", name]) == 0
