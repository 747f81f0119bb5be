"""The agent's metrics, as Prometheus's own parser and tools read them."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from agent import metrics
from agent.app import Engine
from agent.config import AgentConfig
from agent.intake import Arrival, Intake
from agent.mqtt import Link
from agent.page.logbook import Logbook, Tally
from agent.publish import Publisher
from agent.snapshot import SeenAsset, SeenChannel, Snapshot
from agent.sources import Http
from contract.exposition import Exposition

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "runout-alerts.yml"
BOARD = ROOT / "deploy" / "grafana" / "runout-agent.json"
UNITS = ("_seconds", "_bytes", "_ratio")

CHANNEL = SeenChannel("ops", "webhook", True, 5, 2, 1, 0, 3, 1.8e9, "answered 500 Broken")

Samples = dict[str, dict[tuple[tuple[str, str], ...], float]]


def read(text: bytes) -> Samples:
    """Return the samples by name and labels, as Prometheus's own client reads them."""
    found: Samples = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            assert labels not in found.setdefault(sample.name, {}), "a sample stands twice"
            found[sample.name][labels] = sample.value
    return found


@pytest.fixture
def snapshot(configure: Callable[..., AgentConfig]) -> Any:
    """Return what is shown of a device with two pumps, one of which wears out."""
    config = configure(source=(Http(port=0),))
    with ExitStack() as opened:
        engine = Engine(config, opened)
        intake = Intake(100)
        link = Link(config.mqtt, client_id="x", filters=[], will=None, receive=intake.put_all)
        opened.callback(link.close)
        sources = {one.name: one.build() for one in config.source}
        publisher = Publisher(engine.store, link, "test", config.name)
        shown: list[Snapshot] = []
        logbook = Logbook(engine, link, sources, publisher, intake, shown.append)
        opened.callback(logbook.close)
        logbook.beat(1e9)
        (empty,) = shown
        assert empty.assets == ()
        yield engine, logbook


@pytest.fixture
def shown(snapshot: tuple[Engine, Logbook]) -> Snapshot:
    from agent.batch import Batch, Rejected, Rows

    engine, logbook = snapshot
    rng = np.random.default_rng(1)
    for name in ("pump-1", "pump-2"):
        values = rng.normal(size=(80, 2)) * 0.1 + [5.0, 40.0]
        if name == "pump-2":
            values[60:] += [30.0, 0.0]
        values[7, 0] = 500.0
        t_ns = 1_199_145_600 * 10**9 + 3_600_000_000_000 * np.arange(80)
        rows = Rows(name, t_ns, values, np.arange(80), np.ones(80, dtype=np.bool_))
        arrivals = [Arrival("a/b", b"x", 0, 0)] * 80
        bad = [Rejected(arrivals[0], "json", "no JSON")]
        logbook.note(engine.process(Batch([rows], []), bad), arrivals, engine.commit_s)
    engine.checkpoint()
    return logbook.snapshot()


def test_everything_is_said_as_prometheus_reads_it(shown: Snapshot) -> None:
    found = read(metrics.exposition(shown, healthy=False))
    assert found["runout_healthy"][()] == 0.0
    assert found["runout_readings_total"][()] == 160.0
    assert found["runout_messages_rejected_total"][(("reason", "json"),)] == 2.0
    marked = found["runout_values_marked_total"]
    assert marked[(("channel", "vibration"), ("reason", "high"))] == 2.0
    assert found["runout_asset_alert"] == {
        (("asset", "pump-1"),): 0.0,
        (("asset", "pump-2"),): 1.0,
    }
    assert found["runout_asset_score_ratio"][(("asset", "pump-2"),)] > 1.0
    assert found["runout_asset_health_ratio"][(("asset", "pump-2"),)] < 0.6
    assert sum(found["runout_assets_by_state"].values()) == 2.0
    assert found["runout_source_alive"][(("source", "http"),)] == 0.0
    assert found["runout_backlog_results"][()] > 0
    assert found["runout_journal_bytes"][()] > 1000
    assert found["runout_checkpoint_time_seconds"][()] > 1.7e9
    assert found["runout_alerts_raised_total"][()] >= 1.0
    # What is not known is not said.
    assert "runout_asset_remaining_life_seconds" not in found


def test_what_became_of_notices_is_said_by_channel_and_outcome(shown: Snapshot) -> None:
    found = read(metrics.exposition(msgspec.structs.replace(shown, channels=(CHANNEL,))))
    assert found["runout_notices_total"] == {
        (("channel", "ops"), ("outcome", "sent")): 5.0,
        (("channel", "ops"), ("outcome", "failed")): 2.0,
        (("channel", "ops"), ("outcome", "given_up")): 1.0,
        (("channel", "ops"), ("outcome", "dropped")): 0.0,
    }
    assert found["runout_notices_waiting"] == {(("channel", "ops"),): 3.0}
    assert found["runout_notices_alive"] == {(("channel", "ops"),): 1.0}
    assert "runout_notices_total" not in read(metrics.exposition(shown))


def test_the_hours_left_are_said_with_their_interval(shown: Snapshot) -> None:
    first, *rest = shown.assets
    known = msgspec.structs.replace(first.report, rul_h=12.0, rul_low_h=9.0, rul_high_h=20.0)
    assets = (msgspec.structs.replace(first, report=known), *rest)
    found = read(metrics.exposition(msgspec.structs.replace(shown, assets=assets)))
    asset = (("asset", first.report.asset),)
    assert found["runout_asset_remaining_life_low_seconds"] == {asset: 9 * 3600.0}
    assert found["runout_asset_remaining_life_high_seconds"] == {asset: 20 * 3600.0}


def test_the_same_snapshot_gives_the_same_text(shown: Snapshot) -> None:
    assert metrics.exposition(shown) == metrics.exposition(shown)
    assert b"runout_healthy" not in metrics.exposition(shown)


def test_each_metric_says_what_it_is_and_in_which_unit(shown: Snapshot) -> None:
    for family in text_string_to_metric_families(metrics.exposition(shown, healthy=True).decode()):
        assert family.name.startswith("runout_")
        assert family.documentation
        assert family.type in {"gauge", "counter", "histogram"}
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples)
        for word in ("second", "byte", "ratio"):
            if word in family.name:
                assert family.name.endswith(UNITS), family.name
        for word in ("hour", "milli", "_ms", "kilo", "mega", "percent", "minute"):
            assert word not in family.name


def test_counts_of_a_histogram_are_cumulative(shown: Snapshot) -> None:
    found = read(metrics.exposition(shown))
    for name, whole in (("processing_seconds", 160), ("batch_messages", 2), ("commit_seconds", 2)):
        buckets = found[f"runout_{name}_bucket"]
        counts = [n for _, n in sorted((float(dict(k)["le"]), n) for k, n in buckets.items())]
        assert counts == sorted(counts)
        assert counts[-1] == found[f"runout_{name}_count"][()] == whole
    assert found["runout_batch_messages_sum"][()] == 160.0


@given(st.lists(st.floats(min_value=0, max_value=100), max_size=50))
def test_a_tally_counts_one_by_one_as_it_counts_many(values: list[float]) -> None:
    bounds = (0.5, 1.0, 10.0)
    one, many = Tally(bounds), Tally(bounds)
    for value in values:
        one.add(value)
    many.add_all(values)
    assert one.frozen().counts == many.frozen().counts
    assert one.frozen().sum == pytest.approx(many.frozen().sum)
    expected = [sum(v <= bound for v in values) for bound in bounds]
    assert list(np.cumsum(one.frozen().counts)) == [*expected, len(values)]


# Prometheus's own client ends lines at more than line feeds; Prometheus itself does not.
_LETTERS = st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]) | st.sampled_from('\n"\\')


@given(st.lists(st.text(_LETTERS), min_size=1, max_size=5, unique=True))
def test_whatever_a_label_says_is_read_back(words: list[str]) -> None:
    page = Exposition()
    page.many("x", "gauge", "a\nb\\c", [((("asset", word),), 1.0) for word in words])
    found = read(page.text())
    assert found["runout_x"] == {(("asset", word),): 1.0 for word in words}


def many_assets(shown: Snapshot, count: int) -> Snapshot:
    """Return a snapshot of so many assets, ever worse."""

    def seen(i: int) -> SeenAsset:
        mold = shown.assets[0]
        report = msgspec.structs.replace(
            mold.report, asset=f"a{i}", health=1 - i / count, score=float(i), rul_h=float(count - i)
        )
        return msgspec.structs.replace(mold, report=report, alert=i == count - 1)

    return msgspec.structs.replace(shown, assets=tuple(seen(i) for i in range(count)))


def test_beyond_the_bound_assets_are_said_together_by_the_worst_of_them(shown: Snapshot) -> None:
    count = metrics.MOST_ASSETS + 1500
    found = read(metrics.exposition(many_assets(shown, count)))
    other = (("asset", metrics.OTHER),)
    for name in ("health_ratio", "score_ratio", "alert", "remaining_life_seconds"):
        assert len(found[f"runout_asset_{name}"]) == metrics.MOST_ASSETS + 1
    assert found["runout_asset_health_ratio"][other] == pytest.approx(1 / count)
    assert found["runout_asset_score_ratio"][other] == count - 1
    assert found["runout_asset_remaining_life_seconds"][other] == 3600.0
    assert found["runout_asset_alert"][other] == 1.0


def test_an_asset_that_is_called_other_is_said_once(shown: Snapshot) -> None:
    many = many_assets(shown, metrics.MOST_ASSETS + 2)
    first, *rest = many.assets
    named = msgspec.structs.replace(first.report, asset=metrics.OTHER)
    many = msgspec.structs.replace(
        many, assets=(msgspec.structs.replace(first, report=named), *rest)
    )
    found = read(metrics.exposition(many))  # which fails on a sample that stands twice
    assert (("asset", metrics.OTHER),) in found["runout_asset_alert"]


def test_beyond_the_bound_counts_are_added_up(shown: Snapshot) -> None:
    marked = {f"c{i}.high": 1 for i in range(metrics.MOST_MARKS + 7)}
    rejected = {f"r{i}": 2 for i in range(metrics.MOST_REASONS + 3)}
    marked_of = {f"a.{i}": {"vib.axial.high": 3} for i in range(metrics.MOST_MARKS + 2)}
    found = read(
        metrics.exposition(
            msgspec.structs.replace(shown, marked=marked, rejected=rejected, marked_of=marked_of)
        )
    )
    by_asset = found["runout_asset_values_marked_total"]
    assert len(by_asset) == metrics.MOST_MARKS + 1
    assert by_asset[(("asset", "a.0"), ("channel", "vib.axial"), ("reason", "high"))] == 3.0
    other = tuple((name, metrics.OTHER) for name in ("asset", "channel", "reason"))
    assert by_asset[other] == 6.0
    other = (("channel", metrics.OTHER), ("reason", metrics.OTHER))
    assert found["runout_values_marked_total"][other] == 7.0
    assert found["runout_messages_rejected_total"][(("reason", metrics.OTHER),)] == 6.0


def test_a_channel_with_a_dot_in_its_name_keeps_it(shown: Snapshot) -> None:
    text = metrics.exposition(msgspec.structs.replace(shown, marked={"vib.axial.high": 3}))
    key = (("channel", "vib.axial"), ("reason", "high"))
    assert read(text)["runout_values_marked_total"][key] == 3.0


# -- what is deployed with it ---------------------------------------------------------------------


def full(shown: Snapshot) -> set[str]:
    """Return the names of all metrics there may be."""
    (first, *rest) = shown.assets
    known = msgspec.structs.replace(
        first.report, rul_h=12.0, rul_error_h=3.0, rul_low_h=9.0, rul_high_h=20.0
    )
    assets = (msgspec.structs.replace(first, report=known), *rest)
    told = msgspec.structs.replace(shown, assets=assets, channels=(CHANNEL,))
    text = metrics.exposition(told, healthy=True)
    families = {family.name for family in text_string_to_metric_families(text.decode())}
    # A counter's family is called as its samples are, without _total: nobody asks for it so.
    return {name for name in families if f"{name}_total" not in read(text)} | set(read(text))


def expressions(value: Any) -> list[str]:
    """Return what is asked of Prometheus, anywhere in a dashboard."""
    if isinstance(value, list):
        return [expr for one in value for expr in expressions(one)]
    if not isinstance(value, dict):
        return []
    own = [value[key] for key in ("expr", "definition") if isinstance(value.get(key), str)]
    return own + [expr for one in value.values() for expr in expressions(one)]


def test_the_dashboard_asks_for_metrics_that_there_are(shown: Snapshot) -> None:
    board = json.loads(BOARD.read_text())
    asked = expressions(board)
    assert len(asked) > 25
    names = {name for expr in asked for name in re.findall(r"\brunout_\w+", expr)}
    assert names <= full(shown), names - full(shown)
    idents = [panel["id"] for panel in board["panels"]]
    assert len(set(idents)) == len(idents)
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24


def test_the_dashboard_and_the_rules_show_every_metric_of_an_asset(shown: Snapshot) -> None:
    used = set(re.findall(r"\brunout_asset_\w+", BOARD.read_text() + RULES.read_text()))
    known = {name for name in full(shown) if name.startswith("runout_asset_")}
    assert known - used == {"runout_asset_report_time_seconds"}


def test_the_alert_rules_ask_for_metrics_that_there_are(shown: Snapshot) -> None:
    names = set(re.findall(r"\brunout_\w+", RULES.read_text()))
    assert names <= full(shown), names - full(shown)


def test_every_metric_stands_in_the_documentation(shown: Snapshot) -> None:
    text = (ROOT / "docs" / "status.md").read_text(encoding="utf-8")
    said = metrics.exposition(shown, healthy=True).decode()
    names = {line.split()[2] for line in said.splitlines() if line.startswith("# TYPE")}
    assert len(names) > 30
    assert {name for name in names if f"`{name}`" not in text} == set()


def promtool(*words: str, given: bytes | None = None) -> None:
    program = shutil.which("promtool")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("promtool is not on PATH, and CI must run these tests")
        pytest.skip("promtool is not on PATH")
    done = subprocess.run([program, *words], input=given, capture_output=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()


def test_prometheus_finds_nothing_to_mend_in_the_metrics(shown: Snapshot) -> None:
    promtool("check", "metrics", given=metrics.exposition(shown, healthy=True))


def test_prometheus_takes_the_rules() -> None:
    promtool("check", "rules", str(RULES))


def test_the_rules_fire_when_they_should_and_not_before(tmp_path: Path) -> None:
    cases = tmp_path / "cases.yml"
    cases.write_text(
        f"""
rule_files: [{RULES}]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - series: 'runout_asset_alert{{instance="n",asset="a"}}'
        values: '0 0 0 1x20'
      - series: 'runout_asset_health_ratio{{instance="n",asset="a"}}'
        values: '1 1 1 0.2x20'
      - series: 'runout_asset_stale{{instance="n",asset="a"}}'
        values: '0 0 0 1x20'
      - series: 'runout_broker_absent_seconds{{instance="n"}}'
        values: '0+60x30'
      - series: 'runout_backlog_age_seconds{{instance="n"}}'
        values: '0+60x30'
      - series: 'runout_broker_connected{{instance="n"}}'
        values: '0x30'
      - series: 'runout_readings_total{{instance="n"}}'
        values: '0+600x60'
      - series: 'runout_clock_trusted{{instance="n"}}'
        values: '1 1 1 0x20 1x20'
      - series: 'runout_values_marked_total{{instance="n",channel="flow",reason="high"}}'
        values: '0+90x70'
      - series: 'runout_values_marked_total{{instance="n",channel="flow",reason="flat"}}'
        values: '0+30x70'
      - series: 'runout_notices_alive{{instance="n",channel="ops"}}'
        values: '1 1 1 0x20'
      - series: 'runout_notices_waiting_since_seconds{{instance="n",channel="ops"}}'
        values: '_ 60x60'
    alert_rule_test:
      - eval_time: 3m
        alertname: RunoutNoticesDead
      - eval_time: 4m
        alertname: RunoutNoticesDead
        exp_alerts:
          - exp_labels: {{severity: critical, instance: n, channel: ops}}
            exp_annotations:
              summary: n sends no notices by ops
              description: "The thread that sends them has ended: restart the agent."
      - eval_time: 30m
        alertname: RunoutNoticesWait
      - eval_time: 40m
        alertname: RunoutNoticesWait
        exp_alerts:
          - exp_labels: {{severity: warning, instance: n, channel: ops}}
            exp_annotations:
              summary: "n: notices by ops wait for 39m 0s"
              description: "Its page says why: the other side is away, or there are too many."
      - eval_time: 2m
        alertname: RunoutMachineAlert
      - eval_time: 3m
        alertname: RunoutMachineAlert
        exp_alerts:
          - exp_labels: {{severity: warning, instance: n, asset: a}}
            exp_annotations:
              summary: a stands over its limit
              description: Seen by n; its page says why.
      - eval_time: 5m
        alertname: RunoutMachineFailing
        exp_alerts:
          - exp_labels: {{severity: critical, instance: n, asset: a}}
            exp_annotations:
              summary: "a is failing: health 20%"
              description: Seen by n; its page says why.
      - eval_time: 12m
        alertname: RunoutMachineStale
      - eval_time: 13m
        alertname: RunoutMachineStale
        exp_alerts:
          - exp_labels: {{severity: warning, instance: n, asset: a}}
            exp_annotations:
              summary: Nothing is known of a
              description: Its edge node or device said that it leaves, or the broker lost it.
      - eval_time: 10m
        alertname: RunoutBrokerAbsent
      - eval_time: 11m
        alertname: RunoutBrokerAbsent
        exp_alerts:
          - exp_labels: {{severity: warning, instance: n}}
            exp_annotations:
              summary: n has been without its broker for 11m 0s
              description: It goes on judging; results wait in its store.
      - eval_time: 12m
        alertname: RunoutClockWrong
      - eval_time: 13m
        alertname: RunoutClockWrong
        exp_alerts:
          - exp_labels: {{severity: warning, instance: n}}
            exp_annotations:
              summary: The clock of n is behind its data
              description: "Nothing is lost; what it stamps is wrong. Its /healthz says more."
      - eval_time: 30m
        alertname: RunoutClockWrong
      - eval_time: 25m
        alertname: RunoutBacklog
      - eval_time: 60m
        alertname: RunoutValuesMarked
        exp_alerts:
          - exp_labels: {{severity: warning, instance: n, channel: flow, reason: high}}
            exp_annotations:
              summary: "n: channel flow is often marked high"
              description: "More than one in ten readings: a sensor before a machine."
      - eval_time: 40m
        alertname: RunoutNoReadings
"""
    )
    promtool("test", "rules", str(cases))
