"""An agent that is configured otherwise starts, says what begins anew, and the rest goes on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from agent.batch import Batch, Event, Rows, Shot
from agent.config import AgentConfig, Keep, Learning, Report
from contract.features import FeatureSpec
from contract.model_spec import Moments, Ridge, Sklearn
from contract.report import Health
from contract.spec import AssetClass, Channel, Clustered, Declared, Function, Waveform

Configure = Callable[..., AgentConfig]
Open = Callable[[AgentConfig], Any]

S_NS = 10**9
START_NS = 1_767_225_600 * S_NS

FLOW = Channel("flow", "m3/h", low=0.0, high=100.0, flat_s=100.0)
SPEED = Channel("speed", "rpm")
CASE = Waveform("case", "m/s2", 1000.0, samples=64, features=("rms", "peak"))
QUICK = Moments(baseline=8, learn=16, on_delay=2, off_delay=2, alarm_rate=0.05)

PLAIN = AssetClass(
    "pump",
    (FLOW, SPEED),
    stats=("mean_3", "last"),
    hop=1,
    health=QUICK,
    rul=(Ridge(random=3),),
    cap_h=1.0,
    holdout=2,
)
GRIDDED = msgspec.structs.replace(
    PLAIN,
    every_s=1.0,
    wait_s=2.0,
    waveforms=(CASE,),
    regimes=Declared({"speed": (1000.0,)}),
    functions=(Function("swing", "own:swing", rows=4),),
)
OTHER = msgspec.structs.replace(PLAIN, name="fan", stats=("mean_4",), rul=())

CHANGES: dict[str, dict[str, object]] = {
    "a channel more": {"channels": (FLOW, SPEED, Channel("load", "kW"))},
    "a channel less": {"channels": (SPEED,)},
    "other order": {"channels": (SPEED, FLOW)},
    "another unit": {"channels": (FLOW, Channel("speed", "1/s"))},
    "another range": {"channels": (msgspec.structs.replace(FLOW, high=50.0), SPEED)},
    "more checks": {
        "channels": (FLOW, msgspec.structs.replace(SPEED, clip_high=1e4, step_per_s=1e3, every_s=1))
    },
    "no checks": {"channels": (Channel("flow", "m3/h"), SPEED)},
    "resampled otherwise": {"channels": (msgspec.structs.replace(FLOW, resample="mean"), SPEED)},
    "held for longer": {"channels": (FLOW, msgspec.structs.replace(SPEED, hold_s=20.0))},
    "a waveform more": {"waveforms": (CASE, msgspec.structs.replace(CASE, name="drive"))},
    "no waveform": {"waveforms": ()},
    "longer bursts": {"waveforms": (msgspec.structs.replace(CASE, samples=128),)},
    "other burst features": {"waveforms": (msgspec.structs.replace(CASE, features=("crest",)),)},
    "another range of bursts": {"waveforms": (msgspec.structs.replace(CASE, high=1.0, clip=9.0),)},
    "a speed for bursts": {"waveforms": (msgspec.structs.replace(CASE, speed="speed"),)},
    "another grid": {"every_s": 2.0},
    "a grid or none": {"every_s": 3.0, "wait_s": 0.0},
    "no grid": {"every_s": 0.0},
    "a shorter wait": {"wait_s": 0.0},
    "a longer wait": {"wait_s": 9.0},
    "clustered regimes": {"regimes": Clustered(("speed",), regimes=2)},
    "other limits": {"regimes": Declared({"speed": (500.0, 1500.0)})},
    "as many, but other limits": {"regimes": Declared({"speed": (500.0,)})},
    "no regimes": {"regimes": None},
    "a function more": {
        "functions": (Function("swing", "own:swing", rows=4), Function("top", "own:top", rows=9))
    },
    "a function of more rows": {"functions": (Function("swing", "own:swing", rows=40),)},
    "no function": {"functions": ()},
    "other statistics": {"stats": ("mean_30", "std_5", "ewma_3", "mean_all", "dev_4")},
    "another hop": {"hop": 4},
    "another warm-up": {"warmup": 20},
    "another cap": {"cap_h": 0.5},
    "another beginning": {"health": msgspec.structs.replace(QUICK, baseline=12)},
    "learns for longer": {"health": msgspec.structs.replace(QUICK, learn=50)},
    "watches less": {"health": msgspec.structs.replace(QUICK, stats=("last",))},
    "other alarms": {
        "health": msgspec.structs.replace(QUICK, smoothing=0.9, on_delay=9, alarm_rate=0.001)
    },
    "another variance": {"health": msgspec.structs.replace(QUICK, variance=0.5)},
    "another model": {"rul": (Ridge(random=9),)},
    "one more model": {"rul": (Ridge(random=3), Sklearn(hidden=(4,), epochs=1))},
    "no model": {"rul": ()},
    "what is its own affair": {"alert_rul_h": 0.1, "holdout": 0, "max_life_rows": 20},
    "another name": {"name": "press"},
}
KEEPS_ALL = {
    "another range",
    "another range of bursts",
    "a shorter wait",
    "a longer wait",
    "learns for longer",
    "more checks",
    "no checks",
    "other alarms",
    "another warm-up",
    "what is its own affair",
}
"""Changes with which windows and models go on, whatever the class."""


@pytest.fixture
def made(configure: Configure, tmp_path: Path) -> Callable[..., AgentConfig]:
    """Make the configuration of one device with a class, and another class beside it."""
    folder = tmp_path / "functions"
    folder.mkdir()
    (folder / "own.py").write_text(
        "def swing(rows):\n    return float(rows[:, 0].max() - rows[:, 0].min())\n"
        "def top(rows):\n    return float(rows[:, 0].max())\n"
    )

    def made(spec: AssetClass, **changes: object) -> AgentConfig:
        config = configure(
            asset_class=(spec, OTHER),
            assets={"a-*": spec.name, "b-*": "fan"},
            functions=str(folder),
            report=Report(health_every_s=0.0),
        )
        return msgspec.structs.replace(config, **changes)

    return made


def said_of(config: AgentConfig, asset: str, begin: int, seconds: int) -> tuple[Rows, list[Shot]]:
    """Return a row a second, and a burst every third second where there are waveforms."""
    spec = config.class_of(asset)
    assert spec is not None
    rng = np.random.default_rng(begin)
    values = np.full((seconds, len(spec.columns)), np.nan)
    level = {"flow": 20.0, "speed": 900.0, "load": 5.0}
    for c, channel in enumerate(spec.channels):
        values[:, c] = level[channel.name] + rng.normal(size=seconds)
        if channel.name == "speed":
            values[:, c] += 600.0 * (np.arange(begin, begin + seconds) // 20 % 2)
    t_ns = START_NS + S_NS * np.arange(begin, begin + seconds)
    pos = np.arange(seconds)
    rows = Rows(asset, t_ns, values, pos, np.ones(seconds, dtype=np.bool_))
    shots = [
        Shot(at, asset, wave, int(t_ns[at]), rng.normal(size=one.samples).astype(np.float32))
        for at in range(0, seconds, 3)
        for wave, one in enumerate(spec.waveforms)
    ]
    return rows, shots


def live(node: Any, begin: int, seconds: int, *, end: str = "") -> list[Health]:
    """Let one asset of each class live for a while; both in one batch."""
    rows, shots = zip(
        *[said_of(node.config, asset, begin, seconds) for asset in ("a-1", "b-1")], strict=True
    )
    t_ns = START_NS + S_NS * (begin + seconds)
    events = [Event(seconds, asset, t_ns, end) for asset in ("a-1", "b-1") if end]
    every = [shot for found in shots for shot in found]
    said: list[Any] = node.engine.process(Batch(list(rows), events, shots=every))
    return [one for one in said if isinstance(one, Health)]


def past(node: Any) -> None:
    """Make a past: finished lives, two checkpoints, and a journal behind them."""
    for n in range(3):
        live(node, 100 * n, 60, end="failed")
        if n < 2:
            node.engine.checkpoint()
    live(node, 300, 30)


def state_of(node: Any, name: str) -> dict[str, bytes]:
    return {
        key: found for key, found in node.state()[1].items() if key.startswith(f"class/{name}/")
    }


def changed(base: AssetClass, change: str) -> AssetClass:
    spec: AssetClass = msgspec.structs.replace(base, **CHANGES[change])
    if "speed" not in [channel.name for channel in spec.channels]:
        spec = msgspec.structs.replace(spec, regimes=None)
    return spec


CASES = [
    (base, change)
    for base in (PLAIN, GRIDDED)
    for change in CHANGES
    if changed(base, change) != base
]


@pytest.mark.parametrize("tidy", [True, False], ids=["left tidily", "killed"])
@pytest.mark.parametrize(
    ("base", "change"),
    CASES,
    ids=[f"{'gridded' if base is GRIDDED else 'plain'}, {change}" for base, change in CASES],
)
def test_whatever_is_configured_otherwise_the_agent_starts_and_goes_on(
    base: AssetClass,
    change: str,
    tidy: bool,
    made: Callable[..., AgentConfig],
    device: Open,
    caplog: pytest.LogCaptureFixture,
) -> None:
    node = device(made(base))
    past(node)
    fan = state_of(node, "fan")
    before = node.state()[0]
    (node.close if tidy else node.kill)()

    config = made(changed(base, change))
    caplog.clear()
    node = device(config)
    # The class beside it is what it was, to the last bit.
    assert state_of(node, "fan") == fan
    spec = config.asset_class[0]
    goes_on = spec.digest() == base.digest()
    assert goes_on or change not in KEEPS_ALL or (base is PLAIN and spec.waveforms)
    known = node.state()[0]["assets"]
    assert known == {spec.name: ["a-1"] if goes_on else [], "fan": ["b-1"]}
    said = "begin anew" in caplog.text
    assert said == (not goes_on)
    if tidy:  # what is counted is counted on
        assert node.engine.pipeline.counts.lives == before["counts"]["lives"]

    said_now = live(node, 400, 60, end="failed")
    assert {one.asset for one in said_now} == {"a-1", "b-1"}
    lives = {one.life for one in said_now if one.asset == "a-1"}
    assert lives == ({3} if goes_on else {4})
    live(node, 500, 40)
    expected = node.state()
    node.kill()
    node = device(config)
    assert node.state() == expected
    trained = node.engine.store.training(spec) + node.engine.store.heldout(spec)
    assert len({(life.asset, life.life) for life in trained}) == len(trained)
    same = spec.features_digest() == base.features_digest() and spec.name == base.name
    assert sum(life.life < 3 for life in trained) == (3 if same else 0)
    assert {life.X.shape[1] for life in trained} <= {len(FeatureSpec.of(spec))}


@pytest.mark.parametrize("tidy", [True, False], ids=["left tidily", "killed"])
def test_an_asset_that_becomes_one_of_another_class_begins_anew_there(
    tidy: bool,
    made: Callable[..., AgentConfig],
    device: Open,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = made(PLAIN, assets={"a-*": "pump", "c-*": "pump", "b-*": "fan"})
    node = device(config)
    past(node)
    (node.close if tidy else node.kill)()
    moved = msgspec.structs.replace(config, assets={"a-*": "fan", "b-*": "fan", "c-*": "pump"})
    node = device(moved)
    assert "[assets] was another" in caplog.text
    assert node.state()[0]["assets"] == {"pump": [], "fan": ["b-1"]}
    assert {(one.asset, one.life) for one in live(node, 400, 30)} == {("a-1", 4), ("b-1", 3)}
    expected = node.state()
    node.kill()
    assert device(moved).state() == expected


def test_a_class_that_was_gone_and_comes_back_with_other_features_has_no_old_lives(
    made: Callable[..., AgentConfig], device: Open
) -> None:
    node = device(made(PLAIN))
    past(node)
    node.close()
    alone = made(msgspec.structs.replace(PLAIN, name="press"))
    device(alone).close()
    back = msgspec.structs.replace(PLAIN, stats=("mean_3",))
    node = device(made(back))
    assert node.engine.store.training(back) == []
    live(node, 400, 60, end="failed")
    live(node, 500, 60, end="failed")
    lives = node.engine.store.training(back) + node.engine.store.heldout(back)
    assert [life.X.shape[1] for life in lives] == [2, 2]


def test_assets_that_match_no_pattern_any_more_are_left_out(
    made: Callable[..., AgentConfig], device: Open
) -> None:
    node = device(made(PLAIN))
    past(node)
    node.kill()
    node = device(made(PLAIN, assets={"x-*": "pump", "b-*": "fan"}))
    assert node.state()[0]["assets"] == {"pump": [], "fan": ["b-1"]}


def test_a_kill_before_the_new_configuration_was_written_down_does_no_harm(
    made: Callable[..., AgentConfig], device: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = device(made(PLAIN))
    past(node)
    node.kill()
    config = made(changed(PLAIN, "another hop"))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("agent.store.Store.forget_journal", killed)
        with pytest.raises(KeyboardInterrupt):
            device(config)
    node = device(config)
    live(node, 400, 60, end="failed")
    expected = node.state()
    node.kill()
    assert device(config).state() == expected


@pytest.mark.parametrize(
    "other",
    [
        {"keep": Keep(power_loss_safe=False, waveforms=False)},
        {"report": Report(health_every_s=60.0)},
        {"learning": Learning(sklearn=True)},
    ],
    ids=lambda other: next(iter(other)),
)
def test_what_is_no_part_of_a_class_changes_no_state(
    other: dict[str, object], made: Callable[..., AgentConfig], device: Open
) -> None:
    node = device(made(GRIDDED))
    past(node)
    node.engine.checkpoint()
    expected = node.state()
    node.kill()
    assert device(made(GRIDDED, **other)).state() == expected
