"""Replay: the live agent's outcomes from files, in every form the recordings come in."""

import gzip
import importlib
import importlib.util
import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.app import Engine
from agent.assemble import Assembler
from agent.config import AgentConfig, load
from agent.facts import FactsFile
from agent.files import table, times
from agent.files.chunk import Chunk, Look
from agent.files.pace import Pace
from agent.files.player import Done
from agent.files.recording import Recording
from agent.files.score import Judge
from agent.files.truth import Windows
from agent.intake import Arrival
from agent.pipeline import Outcome
from agent.replay import Job, replay
from contract import topics
from contract.errors import ConfigError, DataError
from contract.model_spec import Moments, Ridge
from contract.report import Alert, Health
from contract.spec import AssetClass, Channel

ROOT = Path(__file__).parents[2]
Configure = Callable[..., AgentConfig]
START = "2026-01-01T00:00:00Z"


@pytest.fixture(scope="session")
def data() -> Path:
    """Return the folder of the real recordings."""
    folder = (ROOT / os.environ.get("RUNOUT_DATA", "../shared/data")).resolve()
    if not folder.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"{folder} is absent, and CI must run these tests: set RUNOUT_DATA")
        pytest.skip(f"{folder} is absent: set RUNOUT_DATA to the recordings")
    return folder


def read(path: Path, look: Look | None = None, known: Sequence[str] = ()) -> list[Chunk]:
    said: list[str] = []
    with Recording(
        path, look or Look(), set(known), {}, most_assets=1000, windows=None, say=said.append
    ) as recording:
        return list(recording.chunks())


def values_of(chunks: list[Chunk]) -> np.ndarray:
    return np.concatenate([chunk.values for chunk in chunks])


def times_of(chunks: list[Chunk]) -> list[int]:
    return [int(t) for chunk in chunks for t in chunk.t_ns]


def run(config: AgentConfig, *files: Path, **job: object) -> Done:
    return replay(config, Job(files, **job), threading.Event())  # type: ignore[arg-type]


def outcomes_in(path: Path) -> list[Outcome]:
    decoder = msgspec.json.Decoder(Health | Alert)
    return [decoder.decode(line) for line in path.read_text().splitlines()]


def live(config: AgentConfig, messages: list[tuple[str, str, dict[str, object]]]) -> list[Outcome]:
    """Return what an agent says to messages (asset, leaf, JSON) that come over MQTT."""
    arrivals = [
        Arrival(
            topics.asset_topic(config.node.site, config.name, asset, leaf),
            json.dumps(body).encode(),
            number + 1,
            10**18 * 4,
        )
        for number, (asset, leaf, body) in enumerate(messages)
    ]
    said: list[Outcome] = []
    with ExitStack() as opened:
        engine = Engine(config, opened)
        facts = FactsFile(config).changed()
        if facts is not None:
            engine.take_facts(facts)
        assembler = Assembler(config)
        for begin in range(0, len(arrivals), 37):
            batch, rejected = assembler.assemble(arrivals[begin : begin + 37])
            assert not rejected, rejected[0].text
            said += engine.process(batch, rejected)
    return said


def turbofans(folder: Path) -> AgentConfig:
    """Return the turbofans' configuration, with a model that is quick to learn."""
    config = load(ROOT / "configs/agent.turbofan.toml", [f"node.state={folder / 'live'}"])
    spec = msgspec.structs.replace(config.asset_class[0], rul=(Ridge(random=40, penalty_alone=1),))
    return msgspec.structs.replace(config, asset_class=(spec,))


# -- the same as live -------------------------------------------------------------------------


@pytest.mark.data
def test_turbofans_from_a_file_are_judged_as_they_are_over_mqtt(tmp_path: Path, data: Path) -> None:
    whole = gzip.decompress((data / "cmapss_fd001/train_FD001.txt.gz").read_bytes()).decode()
    lines = whole.splitlines()[:847]
    path = tmp_path / "train_FD001.txt"
    path.write_text("\n".join(lines) + "\n")
    config = turbofans(tmp_path)
    names = config.asset_class[0].channel_names
    messages: list[tuple[str, str, dict[str, object]]] = []
    rows = [line.split() for line in lines]
    for row, after in zip(rows, [*rows[1:], None], strict=True):
        asset = f"train_FD001-{row[0]}"
        t = 1_199_145_600 + 3600 * int(row[1])
        v = dict(zip(names, map(float, row[2:]), strict=True))
        messages.append((asset, "readings", {"t": t, "v": v}))
        if after is None or after[0] != row[0]:
            messages.append((asset, "event", {"t": t, "event": "failed"}))
    expected = live(config, messages)
    done = run(config, path, out=tmp_path / "said.jsonl")
    assert outcomes_in(tmp_path / "said.jsonl") == expected
    assert sum(isinstance(one, Alert) for one in expected) > 3
    assert any(one.rul_h is not None for one in expected)
    assert [done.rows, len(done.seen)] == [847, 4]
    assert sum(one.failures for one in done.seen.values()) == 4


def test_machines_side_by_side_in_other_units_with_gaps_are_judged_as_over_mqtt(
    tmp_path: Path, configure: Configure
) -> None:
    rng = np.random.default_rng(5)
    lines = ["when;machine;Temperature [degF];vibration [mm/s];operator"]
    messages: list[tuple[str, str, dict[str, object]]] = []
    for hour in range(150):
        for machine in "ab":
            worn = (hour / 100) ** 4 if machine == "b" else 0.0
            vibration: float | None = round(float(rng.normal(5 + 4 * worn, 0.1)), 4)
            if (hour + len(machine)) % 40 == 7:
                vibration = None
            degrees = round(float(rng.normal(104, 1)), 3)
            when = f"{datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=hour):%Y-%m-%d %H:%M:%S}"
            text = "" if vibration is None else str(vibration)
            lines.append(f"{when};{machine};{degrees};{text};Ada")
            v = {"temperature": degrees, "vibration": vibration}
            body: dict[str, object] = {
                "t": f"{when}Z",
                "v": v,
                "u": {"temperature": "degF", "vibration": "mm/s"},
            }
            messages.append((f"pump-{machine}", "readings", body))
    path = tmp_path / "log.csv"
    path.write_text("\r\n".join(lines).replace("Temperature", "temperature") + "\r\n")
    description = tmp_path / "pumps.toml"
    description.write_text(
        'asset = "pump-{machine}"\nignore = ["operator"]\n[time]\ncolumn = "when"\noffset = "Z"\n'
    )
    facts = write(tmp_path / "facts.csv", "asset,age_years\npump-a,2.5\npump-b,7\n")
    config = configure(facts=str(facts))
    spec = msgspec.structs.replace(config.asset_class[0], facts=("age_years",))
    config = msgspec.structs.replace(config, asset_class=(spec,))
    expected = live(config, messages)
    look = Look(format=str(description))
    done = run(config, path, look=look, out=tmp_path / "said.jsonl")
    assert outcomes_in(tmp_path / "said.jsonl") == expected
    assert {one.asset for one in expected if isinstance(one, Alert)} == {"pump-b"}
    assert done.seen["pump-a"].marks == {"vibration.missing": 4}


def test_what_was_learnt_is_kept_in_a_state_folder_and_nothing_waits_to_be_published(
    tmp_path: Path, configure: Configure
) -> None:
    path = write(tmp_path / "pump-1.csv", pump_rows(60))
    config = configure()
    run(config, path, look=PUMP, state=tmp_path / "kept")
    with ExitStack() as opened:
        node = msgspec.structs.replace(config.node, state=str(tmp_path / "kept"))
        engine = Engine(msgspec.structs.replace(config, node=node), opened)
        assert engine.status(online=False).readings == 60
        assert int(engine.store.meta("sent", "0")) == engine.store.last_result > 0
    again = run(config, path, look=PUMP, state=tmp_path / "kept")
    assert again.notes == ["60 rows came again (asset and time known already), and changed nothing"]
    bad = write(tmp_path / "pump-2.csv", "vibration,temperature\n5,40\n5,x\n")
    with pytest.raises(DataError, match="line 3"):
        run(config, bad, look=PUMP, state=tmp_path / "kept")
    run(config, path, look=PUMP, state=tmp_path / "kept")


def test_what_an_agent_has_not_published_yet_is_not_taken_for_published(
    tmp_path: Path, configure: Configure
) -> None:
    config = configure()
    reading: dict[str, object] = {"t": 1767225600, "v": {"vibration": 5.0, "temperature": 40.0}}
    assert len(live(config, [("pump-1", "readings", reading)])) == 1
    path = write(tmp_path / "pump-1.csv", pump_rows(5))
    with pytest.raises(ConfigError, match="1 reports that are not published yet"):
        run(config, path, look=PUMP, state=config.state)


# -- forms ------------------------------------------------------------------------------------

PUMP = Look(step_s=60.0)


def pump_rows(n: int, seed: int = 3) -> str:
    rng = np.random.default_rng(seed)
    rows = rng.normal([5.0, 40.0], [0.1, 0.5], size=(n, 2)).round(4).tolist()
    return "vibration,temperature\n" + "".join(f"{v},{t}\n" for v, t in rows)


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.data
@pytest.mark.parametrize(
    ("file", "name", "rows", "assets", "faulty", "failures"),
    [
        ("cmapss_fd001/train_FD001.txt.gz", "cmapss", 20_631, 100, None, 100),
        ("cmapss_fd001/test_FD001.txt.gz", "cmapss", 13_096, 100, None, 0),
        ("skab_gpl3/data/valve1/0.csv.gz", "skab", 1147, 1, 401, 0),
        ("gasturbine/gt_2013.csv.gz", "gasturbine", 7152, 1, None, 0),
        ("tep/d00.dat.gz", "tep", 500, 1, 0, 0),
        ("tep/d00_te.dat.gz", "tep", 960, 1, 0, 0),
        ("tep/d04_te.dat.gz", "tep", 960, 1, 800, 0),
        ("ai4i/ai4i2020.csv.gz", "ai4i", 10_000, 1, 339, 0),
        ("femto/femto_features_learning.csv.gz", "femto", 7534, 6, None, 6),
    ],
)
def test_real_recordings_are_recognised_and_have_their_published_sizes(
    data: Path, file: str, name: str, rows: int, assets: int, faulty: int | None, failures: int
) -> None:
    with Recording(
        data / file, Look(), set(), {}, most_assets=1000, windows=None, say=pytest.fail
    ) as recording:
        chunks = list(recording.chunks())
        assert recording.format == name
        assert not recording.layout.unused
    assert sum(len(chunk.t_ns) for chunk in chunks) == rows
    assert len({name for chunk in chunks for name in chunk.assets}) == assets
    labels = [chunk.label for chunk in chunks if len(chunk.t_ns)]
    if faulty is None:
        assert labels == [None] * len(labels)
    else:
        assert sum(int(label.sum()) for label in labels if label is not None) == faulty
    ended = [end for chunk in chunks for end in chunk.ended]
    assert len({end.asset for end in ended}) == len(ended) == failures
    assert np.isfinite(values_of(chunks)).all()


@pytest.mark.data
def test_real_recordings_are_read_as_numpy_reads_them(data: Path) -> None:
    train = data / "cmapss_fd001/train_FD001.txt.gz"
    assert np.array_equal(values_of(read(train)), np.loadtxt(train)[:, 2:])
    transposed = data / "tep/d00.dat.gz"
    assert np.array_equal(values_of(read(transposed)), np.loadtxt(transposed).T)
    skab = data / "skab_gpl3/data/valve1/2.csv.gz"
    table = np.loadtxt(skab, delimiter=";", skiprows=1, usecols=range(1, 10))
    chunks = read(skab)
    assert np.array_equal(values_of(chunks), table[:, :8])
    labels = np.concatenate([c.label for c in chunks if c.label is not None])
    assert np.array_equal(labels, table[:, 8] != 0)
    assert times_of(chunks)[0] == 1583751274 * 10**9


@pytest.mark.data
def test_hours_of_a_turbine_go_on_from_year_to_year(data: Path) -> None:
    config = load(ROOT / "configs/agent.gasturbine.toml")
    files = [data / f"gasturbine/gt_{year}.csv.gz" for year in (2011, 2012)]
    done = run(config, *files)
    (seen,) = done.seen.values()
    assert seen.rows == done.rows == 7411 + 7628
    assert (seen.last_ns - seen.first_ns) == (done.rows - 1) * 3600 * 10**9


def test_a_file_longer_than_a_block_is_read_whole_with_its_line_numbers(tmp_path: Path) -> None:
    text = pump_rows(30_000)
    path = write(tmp_path / "a.csv", text)
    chunks = read(path, PUMP)
    assert len(chunks) > 3
    expected = np.loadtxt(io.StringIO(text), delimiter=",", skiprows=1)
    assert np.array_equal(values_of(chunks), expected)
    lines = text.splitlines()
    lines[25_000] = "1.0,x"
    lines.insert(100, "   ")
    write(path, "\n".join(lines))
    with pytest.raises(DataError, match=r"a\.csv: line 25002, column 2 \(temperature\): 'x' is no"):
        read(path, PUMP)


@pytest.mark.parametrize(
    "text",
    [
        "time,a,b\n1767225600,1.5,2\n1767225660,,-3e2\n",
        "\ufefftime;a;b\r\n2026-01-01T00:00:00Z;1.5;2\r\n2026-01-01T00:01:00Z;NA;-300\r\n",
        "Time\ta\tb\n2026-01-01 01:00:00+01:00\t1.5\t2\n2026-01-01 01:01:00+01:00\tnull\t-300",
        "time a b\n1767225600.0 1.5 2\n1767225660.0 nan -300\n",
        'b,"a",timestamp\n2,"1.5","2026-01-01T00:00:00Z"\n"-300","",2026-01-01T02:01:00+0200\n',
        "DATETIME,a,b\n1767225600000,1.5,2\n\n1767225660000,?,-300\n",
    ],
    ids=["epoch", "semicolons", "tabs", "blanks", "quotes", "milliseconds"],
)
def test_tables_of_every_make_say_the_same(tmp_path: Path, text: str) -> None:
    chunks = read(write(tmp_path / "x.csv", text), known=["a", "b"])
    with Recording(
        tmp_path / "x.csv", Look(), {"a", "b"}, {}, most_assets=1, windows=None, say=pytest.fail
    ) as recording:
        order = [recording.layout.channels.index(name) for name in "ab"]
    values = values_of(chunks)[:, order]
    assert np.array_equal(values, [[1.5, 2.0], [np.nan, -300.0]], equal_nan=True)
    assert times_of(chunks) == [1767225600 * 10**9, 1767225660 * 10**9]


def test_decimal_commas_and_columns_without_a_header_are_described(tmp_path: Path) -> None:
    description = tmp_path / "d.toml"
    description.write_text(
        'separator = ";"\ndecimal = ","\nnames = ["time", "a"]\n[time]\noffset = "+01:00"\n'
    )
    path = write(tmp_path / "x.csv", "2026-01-01 01:00:00;1,25\n2026-01-01 01:00:01,5;-2\n")
    chunks = read(path, Look(format=str(description)))
    assert values_of(chunks).tolist() == [[1.25], [-2.0]]
    assert times_of(chunks) == [1767225600 * 10**9, 1767225601_500_000_000]


def test_the_manual_describes_a_table_that_can_be_read(tmp_path: Path) -> None:
    manual = (ROOT / "docs/replay.md").read_text()
    text = manual.partition("```text\n")[2].partition("```")[0]
    look = Look(format=str(write(tmp_path / "press.toml", text)))
    assert table.load(tmp_path / "press.toml").label == "faulty"
    row = "2026-01-01 01:00:00;7;61,5;Ada;0\n"
    path = write(tmp_path / "x.csv", "when;machine;Öltemperatur;operator;faulty\n" + row)
    (chunk, ended) = read(path, look)
    assert [chunk.assets, chunk.values.tolist()] == [["press-7"], [[61.5]]]
    assert [end.asset for end in ended.ended] == ["press-7"]


@given(
    st.lists(st.integers(-(2**51), 2**52), min_size=1, max_size=5),
    st.sampled_from(["Z", "+05:30", "-08:00"]),
    st.sampled_from(["seconds", "microseconds", "auto"]),
)
def test_times_are_those_of_the_calendar(moments: list[int], offset: str, spec: str) -> None:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    written = [(epoch + timedelta(microseconds=m)).replace(tzinfo=None) for m in moments]
    texts = [moment.isoformat(timespec=spec).encode() for moment in written]
    zone = "+00:00" if offset == "Z" else offset
    exact = [datetime.fromisoformat(text.decode() + zone) for text in texts]
    expected = [(one - epoch) // timedelta(microseconds=1) * 1000 for one in exact]
    assert times.iso_ns(texts, offset).tolist() == expected
    assert times.iso_ns([text + offset.encode() for text in texts], "").tolist() == expected


def test_parquet_without_pyarrow_names_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # as where it is not installed
    path = tmp_path / "x.parquet"
    path.write_bytes(b"PAR1....PAR1")
    with pytest.raises(DataError, match=r"pip install 'runout\[parquet\]'"):
        read(path)


def test_parquet_is_read_as_the_same_table_in_text_is(tmp_path: Path) -> None:
    if importlib.util.find_spec("pyarrow") is None:
        if os.environ.get("CI"):
            pytest.fail("pyarrow is not installed, and CI must run these tests")
        pytest.skip("pyarrow is not installed: no Parquet")
    arrow, parquet = map(importlib.import_module, ("pyarrow", "pyarrow.parquet"))
    n = 5000
    rng = np.random.default_rng(1)
    moments = np.datetime64("2026-01-01T00:00:00") + np.arange(n)
    a, machine = rng.normal(size=n).round(5), [f"m{i % 3}" for i in range(n)]
    text = "time,machine,a,count,faulty\n" + "".join(
        f"{moments[i]},{machine[i]},{a[i]},{i},{int(i > 10)}\n" for i in range(n)
    )
    table = arrow.table(
        {
            "time": arrow.array(moments.astype("M8[us]")),
            "machine": machine,
            "a": a,
            "count": arrow.array(range(n), arrow.int32()),
            "faulty": [i > 10 for i in range(n)],
        }
    )
    parquet.write_table(table, tmp_path / "x.parquet")
    description = tmp_path / "d.toml"
    description.write_text('asset = "{machine}"\nlabel = "faulty"\n[time]\noffset = "Z"\n')
    look = Look(format=str(description))
    one, other = read(tmp_path / "x.parquet", look), read(write(tmp_path / "x.csv", text), look)
    assert np.array_equal(values_of(one), values_of(other))
    assert times_of(one) == times_of(other)
    for chunks in (one, other):
        names = [chunk.assets[k] for chunk in chunks for k in chunk.which]
        assert names == machine
        labels = [chunk.label for chunk in chunks if chunk.label is not None]
        assert int(np.concatenate(labels).sum()) == n - 11
    (tmp_path / "bad.parquet").write_bytes((tmp_path / "x.parquet").read_bytes()[:-9])
    with pytest.raises(DataError, match="not a whole Parquet file"):
        read(tmp_path / "bad.parquet", look)


# -- what is wrong is named -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("time,a\n1767225600,1\n1767225601,b7\n", r"line 3, column 2 \(a\): 'b7' is not a number"),
        ("time,a\n1767225600,1\n1767225601\n", "line 3: 1 columns, expected 2"),
        ("time,a\n1767225600,1_0\n", "line 2, column 2 .*underscore"),
        ("time,a\n2026-01-01T00:00:00,1\n", "line 2, column 1 .* no offset from UTC.*--offset"),
        ("time,a\n2026-02-30T00:00:00Z,1\n", "line 2, column 1 .*2026-02-30.* does not exist"),
        ("time,a\n2026-01-01T00:00:00Z,1\nsoon,1\n", "line 3, column 1 .*'soon' is no time"),
        ("time,a\n1767225600,1\n,2\n", r"line 3, column 1 \(time\)"),
        ('time,a\n1767225600,"1\n2",3\n', "line 2: its quotes do not close"),
        ("time,a\n", "holds no rows"),
        ("\n\n", "holds no rows"),
        ("time,asset,a\n1767225600,x y,1\n", "asset 'x y' .*--asset"),
    ],
)
def test_a_bad_line_is_named_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path / "bad.csv", text)
    with pytest.raises(DataError, match=said) as raised:
        read(path, known=["a"])
    assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    ("text", "look", "said"),
    [
        ("a,b\n1,2\n", Look(), "no column is called t, time.*--step"),
        ("time,a,a\n1,2,3\n", Look(), "column 'a' stands twice"),
        ("time,a\n1,2\n", Look(asset="{machin}"), r"asset: there is no column 'machin'"),
        ("time,a\n1,2\n", Look(format="cmaps"), "--format 'cmaps': there are csv, cmapss"),
        ("time,a\n1,2\n", Look(offset="CET"), "offset 'CET': write it as Z"),
    ],
)
def test_a_description_that_does_not_fit_is_named(
    tmp_path: Path, text: str, look: Look, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        read(write(tmp_path / "x.csv", text), look)


def test_bad_lines_are_counted_where_it_is_asked_for(tmp_path: Path, configure: Configure) -> None:
    text = pump_rows(40).replace("\n", "\nbroken\n", 3).replace("broken", "5.0", 1)
    path = write(tmp_path / "pump-1.csv", text)
    stream = io.StringIO()
    look = Look(step_s=60.0, skip_bad=True)
    done = replay(configure(), Job([path], look), threading.Event(), stream)
    assert [done.rows, done.bad] == [40, 3]
    assert "3 lines could not be read, and were passed over" in done.notes
    assert "line 2: 1 columns, expected 2: passed over" in stream.getvalue()
    with pytest.raises(DataError, match=r"line 2: 1 columns.*--skip-bad"):
        run(configure(), path, look=PUMP)


def test_truncated_and_foreign_gzip_files_are_said(tmp_path: Path) -> None:
    path = tmp_path / "x.csv.gz"
    body = gzip.compress(pump_rows(20_000).encode())
    path.write_bytes(body[: len(body) // 2])
    with pytest.raises(DataError, match=r"x\.csv\.gz: ends before .*truncated"):
        read(path, PUMP)
    path.write_bytes(body[:100] + bytes(20) + body[120:])
    with pytest.raises(DataError, match=r"x\.csv\.gz: not a whole gzip file"):
        read(path, PUMP)
    path.write_bytes(pump_rows(3).encode())
    with pytest.raises(DataError, match="not a gzip file, as its name says"):
        read(path, PUMP)
    with pytest.raises(DataError, match=r"none\.csv: cannot be read \(No such file"):
        read(tmp_path / "none.csv", PUMP)


def test_a_line_without_end_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b"vibration,temperature\n" + b"1" * 3_000_000)
    with pytest.raises(DataError, match="line 2 is longer than"):
        read(path, PUMP)


def test_missing_channels_name_both_lists_and_unknown_ones_are_named_once(
    tmp_path: Path, configure: Configure
) -> None:
    rows = pump_rows(5).splitlines()
    more = "\n".join([rows[0] + ",humidity", *(row + ",1" for row in rows[1:])])
    files = [write(tmp_path / f"pump-{i}.csv", more) for i in range(3)]
    stream = io.StringIO()
    replay(configure(), Job(files, PUMP), threading.Event(), stream)
    assert stream.getvalue().count("left out: humidity") == 1
    bad = write(tmp_path / "bad.csv", pump_rows(5).replace("vibration", "vibrations"))
    with pytest.raises(
        ConfigError, match=r"'pump' lacks vibration; the file's columns bear vibrations, temperat"
    ):
        run(configure(), files[0], bad, look=PUMP)
    other = write(tmp_path / "u.csv", pump_rows(5).replace("vibration", "vibration [degC]"))
    with pytest.raises(ConfigError, match=r"degC .*cannot be converted to mm/s"):
        run(configure(), other, look=PUMP)


# -- ends, limits of time, pace ---------------------------------------------------------------


def test_lives_end_where_they_are_said_to_and_not_where_the_rows_are_cut_off(
    tmp_path: Path, configure: Configure
) -> None:
    rows = "".join(f"{m},{i},{5 + i % 3},40\n" for m in "ab" for i in range(30))
    path = write(tmp_path / "fatal.csv", "m,n,vibration,temperature\n" + rows)
    description = (
        'asset = "pump-{m}"\nends = "failed"\nends_in = ["fatal*"]\n'
        '[time]\ncolumn = "n"\nstep_s = 3600\n'
    )
    for contiguous in ("false", "true"):
        toml = write(tmp_path / "d.toml", f"contiguous = {contiguous}\n{description}")
        look = Look(format=str(toml))
        done = run(configure(), path, look=look)
        assert [one.failures for one in done.seen.values()] == [1, 1]
        chunks = read(path, look)
        ended = [end for chunk in chunks for end in chunk.ended]
        assert [end.asset for end in ended] == ["pump-a", "pump-b"]
        assert ended[0].at == (30 if contiguous == "true" else 0)
        assert ended[0].t_ns == 29 * 3600 * 10**9
        cut = msgspec.structs.replace(look, until_ns=20 * 3600 * 10**9, from_ns=3600 * 10**9)
        done = run(configure(), path, look=cut)
        assert done.rows == 2 * 19
        assert [one.failures for one in done.seen.values()] == [0, 0]
    again = write(tmp_path / "fatal2.csv", path.read_text() + "a,40,5,40\n")
    with pytest.raises(DataError, match="row 61: asset 'pump-a' comes again"):
        run(configure(), again, look=look)


class Clock:
    """A clock that waiting moves on."""

    def __init__(self) -> None:
        self.now = 100.0
        self.waited: list[float] = []

    def read(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        self.waited.append(seconds)
        self.now += seconds
        return False


def test_rows_go_when_the_times_of_the_data_say_so() -> None:
    clock = Clock()
    pace = Pace(10.0, clock.read, clock.wait)
    # An asset, then another whose rows stand behind it but begin at the same time.
    t_ns = np.array([0, 0, 20, 50, 0, 30], dtype=np.int64) * 10**9
    which = np.array([0, 0, 0, 0, 1, 1])
    chunk = Chunk(["a", "b"], which, t_ns, np.zeros((6, 1)), None, [], 0)
    gone = [(piece, clock.now) for piece in pace.pieces(chunk)]
    assert gone == [
        ((0, 2), 100.0), ((2, 3), 102.0), ((3, 4), 105.0), ((4, 5), 105.0), ((5, 6), 108.0)
    ]  # fmt: skip
    assert sum(clock.waited) == 8.0


def test_at_a_pace_the_outcomes_are_the_same(tmp_path: Path, configure: Configure) -> None:
    path = write(tmp_path / "pump-1.csv", pump_rows(80))
    run(configure(), path, look=PUMP, out=tmp_path / "fast.jsonl")
    clock = Clock()
    stopping = threading.Event()
    stopping.wait = lambda timeout=None: clock.wait(timeout or 0.0)  # type: ignore[method-assign]
    job = Job([path], PUMP, speed=5.0, out=tmp_path / "slow.jsonl")
    replay(configure(), job, stopping, clock=clock.read)
    assert len(clock.waited) == 79
    assert (tmp_path / "slow.jsonl").read_text() == (tmp_path / "fast.jsonl").read_text()


# -- back-testing -----------------------------------------------------------------------------


def alert(t: float, state: str) -> Alert:
    return Alert("a/0/1", "a", state, t, t, 2.0, None, 0, (), "")  # type: ignore[arg-type]


def health(t: float, score: float | None) -> Health:
    return Health("a", t, "healthy", None, score, None, None, None, 0, "", 0, ())


@pytest.mark.parametrize("cut", [1, 3, 20])
@pytest.mark.parametrize("lag", [0, 4])
def test_alerts_are_held_against_labels_however_the_rows_are_cut(cut: int, lag: int) -> None:
    # Rows 0..19; learning until 4; faulty 8..11 and 16..17; alerts 6, 10..13.
    t_ns = np.arange(20) * 10**9
    label = np.isin(np.arange(20), [2, 8, 9, 10, 11, 16, 17])
    said: list[Outcome] = [health(1, None), health(4, 0.1)]
    said += [alert(6, "raised"), alert(7, "returned"), alert(10, "raised"), alert(14, "returned")]
    judge = Judge(lag * 10**9)
    for start in range(0, 20, cut):
        rows = slice(start, min(start + cut, 20))
        for outcome in said:
            if start <= outcome.t + lag < start + cut:
                judge.hear(outcome)
        judge.push(t_ns[rows], label[rows])
    for outcome in said:
        if outcome.t + lag >= 20:
            judge.hear(outcome)
    tally = judge.finish()
    assert [tally.rows, tally.learning] == [16, 4]
    assert [tally.faulty, tally.alarmed, tally.both] == [6, 5, 2]
    assert [tally.faults, tally.found, tally.alerts, tally.true_alerts] == [2, 1, 2, 1]
    assert list(tally.delays_s) == [2.0]
    assert tally.healthy_s == 9.0
    words = " ".join(tally.in_words())
    assert "1 of 2 found, 2 s after" in words
    assert "precision 0.400, recall 0.333" in words


@pytest.mark.data
def test_skab_is_back_tested_against_its_labels(data: Path) -> None:
    config = load(ROOT / "configs/agent.skab.toml")
    files = sorted((data / "skab_gpl3/data/valve1").glob("*.gz"))
    done = run(config, *files)
    truth = done.truth
    assert truth is not None
    assert truth.rows + truth.learning == done.rows == 4515
    assert [truth.faults, truth.found] == [4, 4]
    # Better than chance by far: faulty are 1544 of the rows judged.
    assert truth.both / truth.faulty > 0.6
    assert (truth.alarmed - truth.both) / (truth.rows - truth.faulty) < 0.45
    assert any(line.startswith("faults: 4 of 4 found") for line in done.in_words())


@pytest.mark.data
def test_the_windows_of_nab_are_labels(data: Path, configure: Configure) -> None:
    labels = data / "nab/labels/combined_windows.json"
    file = data / "nab/data/realKnownCause/machine_temperature_system_failure.csv.gz"
    windows = Windows(labels).of(file)
    assert windows.shape == (4, 2)
    spec = AssetClass(
        "machine", (Channel("value", "degF"),), stats=("mean_12", "std_12"), holdout=0,
        health=Moments(baseline=288, learn=576, on_delay=6),
    )  # fmt: skip
    done = run(configure(spec=spec), file, look=Look(format="nab"), labels=labels)
    assert done.truth is not None
    assert [done.rows, done.truth.faults] == [22_695, 4]
    chunk_labels = 0
    with Recording(
        file, Look(format="nab"), set(), {}, most_assets=1, windows=windows, say=pytest.fail
    ) as recording:
        chunk_labels = sum(int(c.label.sum()) for c in recording.chunks() if c.label is not None)
    assert chunk_labels == done.truth.faulty == 2268
    with pytest.raises(DataError, match=r"says nothing of .*train_FD001"):
        Windows(labels).of(data / "cmapss_fd001/train_FD001.txt.gz")


@pytest.mark.data
def test_remaining_lives_are_held_against_the_true_ones(tmp_path: Path, data: Path) -> None:
    def some(name: str, engines: int) -> Path:
        text = gzip.decompress((data / f"cmapss_fd001/{name}.gz").read_bytes()).decode()
        lines = [line for line in text.splitlines() if int(line.split()[0]) <= engines]
        return write(tmp_path / name, "\n".join(lines))

    left = gzip.decompress((data / "cmapss_fd001/RUL_FD001.txt.gz").read_bytes()).split()
    true = write(tmp_path / "RUL.txt", "\n".join(word.decode() for word in left[:8]))
    config = turbofans(tmp_path)
    files = some("train_FD001.txt", 4), some("test_FD001.txt", 8)
    done = run(config, *files, rul=true)
    assert done.rul is not None
    assert [done.rul.told, done.rul.asked] == [8, 8]
    predicted = np.array([
        one.last.rul_h for name, one in done.seen.items() if name.startswith("test") and one.last
    ], dtype=float)  # fmt: skip
    actual = np.array([float(word) for word in left[:8]])
    capped = np.minimum(predicted, 125) - np.minimum(actual, 125)
    assert done.rul.rmse == pytest.approx(np.sqrt(np.mean(capped**2)))
    assert done.rul.rmse_raw == pytest.approx(np.sqrt(np.mean((predicted - actual) ** 2)))
    assert done.rul.rmse < 35  # who always says 125 is 37 off
    write(true, "1\n2\n")
    done = run(config, files[1], rul=true)
    assert "2 remaining lives for 8 assets" in done.problem
    assert done.rows > 0


# -- the command ------------------------------------------------------------------------------


def command(*arguments: object) -> list[str]:
    program = str(Path(sys.executable).with_name("runout-agent"))
    return [program, "replay", *map(str, arguments)]


@pytest.mark.data
def test_the_command_tells_the_worst_first_and_writes_a_table(tmp_path: Path, data: Path) -> None:
    out = tmp_path / "said.csv"
    files = sorted((data / "skab_gpl3/data/valve1").glob("*.gz"))[:2]
    arguments = [*files, "--config", ROOT / "configs/agent.skab.toml", "--out", out]
    told = subprocess.run(command(*arguments), capture_output=True, text=True, check=True)
    lines = told.stdout.splitlines()
    assert lines[0].split()[:3] == ["asset", "rows", "from"]
    health = [float(line.split()[7]) for line in lines[1:3]]
    assert health == sorted(health)
    assert "4515" not in told.stdout
    assert "2292 rows of 2 assets" in told.stdout
    assert f"{files[0]}: skab" in told.stderr
    rows = out.read_text().splitlines()
    assert rows[0].startswith("type,asset,time,t,state,health")
    assert sum(row.startswith("alert,") for row in rows) >= 2


def test_ctrl_c_ends_with_what_was_done_so_far(tmp_path: Path) -> None:
    config = write(
        tmp_path / "c.toml",
        '[[asset_class]]\nname = "pump"\nholdout = 0\n'
        '[[asset_class.channels]]\nname = "vibration"\nunit = "mm/s"\n'
        '[[asset_class.channels]]\nname = "temperature"\nunit = "degC"\n',
    )
    path = write(tmp_path / "pump-1.csv", pump_rows(50))
    out = tmp_path / "said.jsonl"
    arguments = command(
        path, "--config", config, "--step", 3600, "--speed", 1, "--out", out,
        "--state", tmp_path / "kept",
    )  # fmt: skip
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        # It is said before the first row goes; the second would be due in an hour.
        assert "pump-1.csv: a table" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        said = process.stdout.read()
        assert process.wait(timeout=60) == 1
        assert "Traceback" not in process.stderr.read()
    assert "stopped before the end" in said
    assert (tmp_path / "kept/checkpoint.npz").exists()
    assert len(outcomes_in(out)) <= 1


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--speed", "-1"], "--speed -1: 0 is as fast as it goes"),
        (["--from", "2026-01-02", "--until", "2026-01-01"], "--from is not before --until"),
        (["--from", "soon"], "'soon' is no time"),
        (["--out", "x.txt"], "--out x.txt: call it .jsonl or .csv"),
        (["--format", "nothing.toml"], "nothing.toml: cannot be read"),
    ],
)
def test_a_mistake_is_said_in_one_line(tmp_path: Path, more: list[str], said: str) -> None:
    path = write(tmp_path / "pump-1.csv", "time,vibration\n1767225600,1\n")
    config = ROOT / "configs/agent.minimal.toml"
    arguments = command(path, "--config", config, "--quiet", *more)
    told = subprocess.run(arguments, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert told.returncode == 2
    assert said in told.stderr
    assert len(told.stderr.splitlines()) == 1


def test_the_input_is_never_written_over(tmp_path: Path, configure: Configure) -> None:
    path = write(tmp_path / "pump-1.csv", pump_rows(5))
    with pytest.raises(ConfigError, match="is one of the files that are read"):
        run(configure(), path, look=PUMP, out=path)
    assert path.read_text() == pump_rows(5)
