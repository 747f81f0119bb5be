"""The command ``runout-simulator``: plays recordings and simulated plants, and judges agents."""

import argparse
import math
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from contract.errors import RunoutError
from contract.terminal import unless_left

if TYPE_CHECKING:
    from collections.abc import Iterable

    from simulator.message import Message
    from simulator.truth import Truth

_EPILOG = """examples:
  runout-simulator list
  runout-simulator run --scenario configs/scenarios/demo.toml --phase history --truth truth.json
  runout-simulator replay --dataset cmapss --data DIR --subset FD001 --nodes 3
  runout-simulator replay --dataset cmapss --data DIR --subset FD001 --speed 3600
  runout-simulator replay --dataset skab --data DIR --truth truth.json
  runout-simulator record --out said.jsonl
  runout-simulator score --truth truth.json said.jsonl

--speed auto (the default) goes as fast as the agents commit: it waits for each node's retained
status, and returns when every row and event is confirmed. --speed X goes by the clock, X seconds
of data time in one second (3600: an hour a second), and waits for the broker only. --speed max
goes as fast as the broker takes it.
"""
_ENGINES = re.compile(r"[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*")


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0 done, 2 a mistake that can be mended, 130 ended by Ctrl-C."""
    args = _parser().parse_args(argv)
    try:
        return unless_left(lambda: _do(args))
    except RunoutError as error:
        print(f"runout-simulator: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("runout-simulator: ended by Ctrl-C; not all was played", file=sys.stderr)
        return 130


def _do(args: argparse.Namespace) -> int:
    commands: dict[str, Callable[[argparse.Namespace], None]] = {
        "run": _run,
        "replay": _replay,
        "record": _record,
        "score": _score,
        "list": lambda args: _list(args.scenarios),
    }
    commands[args.command](args)
    return 0


def _run(args: argparse.Namespace) -> None:
    import msgspec

    from simulator.config import load
    from simulator.plant import PHASES, Plant

    scenario = load(args.scenario)
    if args.seed is not None:
        scenario = msgspec.structs.replace(scenario, seed=args.seed)
    plant = Plant(scenario)
    lives = plant.played(PHASES[args.phase])
    if not lives:
        raise RunoutError(f"{args.scenario}: lives = 0, so there is no history to play")
    _play(
        args,
        plant.messages(PHASES[args.phase]),
        plant.truth(args.phase, str(args.scenario)),
        site=scenario.site,
        nodes=[node.name for node in scenario.nodes],
        rows=sum(life.rows + plant.bursts(life) for life in lives),
        what=f"{len(lives)} lives of {len({life.asset for life in lives})} machines",
    )


def _replay(args: argparse.Namespace) -> None:
    from contract.topics import check_name

    nodes = _nodes(args.nodes)
    try:
        check_name(args.site, "site")
        for node in nodes:
            check_name(node, "node")
    except ValueError as error:
        raise RunoutError(str(error)) from error
    if args.dataset == "cmapss":
        _replay_engines(args, nodes)
    else:
        _replay_series(args, nodes)


def _replay_series(args: argparse.Namespace, nodes: list[str]) -> None:
    from fnmatch import fnmatchcase

    from simulator.recordings import series
    from simulator.recordings.datasets import DATASETS, Options

    load, _ = DATASETS[args.dataset]
    found = load(args.data, Options(args.map, args.rate, args.samples))
    played = [one for one in found if fnmatchcase(one.asset, args.only)]
    if not played:
        there = ", ".join(one.asset for one in found[:10])
        raise RunoutError(f"--only {args.only}: fits none of the recordings; there are {there}")
    _play(
        args,
        series.messages(played, nodes),
        series.truth(played, nodes, args.dataset, args.site),
        site=args.site,
        nodes=nodes[: len(played)],
        rows=sum(one.rows for one in played),
        what=f"{len(played)} recordings",
    )


def _replay_engines(args: argparse.Namespace, nodes: list[str]) -> None:
    from simulator import replay
    from simulator.recordings import cmapss

    everything = cmapss.load(args.data, args.subset, args.split)
    picked = replay.pick(everything, _engines(args.engines))
    engines = [engine for _, engine in picked]
    left = None
    if args.split == "test" and args.truth is not None:
        left = cmapss.load_rul(args.data, args.subset)[[at for at, _ in picked]]
    dealt = {replay.node_of(engine, nodes) for engine in engines}
    _play(
        args,
        replay.messages(engines, args.subset, args.split, nodes),
        replay.truth(engines, left, args.subset, args.split, nodes, args.site),
        site=args.site,
        nodes=[node for node in nodes if node in dealt],
        rows=sum(len(engine) for engine in engines),
        what=f"{len(engines)} engines",
    )


def _play(
    args: argparse.Namespace,
    messages: "Iterable[Message]",
    truth: "Truth",
    *,
    site: str,
    nodes: list[str],
    rows: int,
    what: str,
) -> None:
    from simulator.clock import Pace, WallClock
    from simulator.play import play
    from simulator.progress import Progress
    from simulator.sinks import outlet
    from simulator.truth import write

    speed: float | None = args.speed
    by_clock = speed is not None and math.isfinite(speed)
    progress = Progress(rows, sys.stderr)
    way = outlet.of(
        args.sink,
        outlet.Asked(
            form=args.format,
            batch=args.batch,
            broker=args.broker,
            site=site,
            nodes=nodes,
            window=args.window if speed is None else None,
            timeout_s=args.timeout,
            connect_timeout_s=args.connect_timeout,
            out=args.out,
            link=args.link,
            asset=args.asset,
            bulk=speed is not None and not by_clock,
            say=progress.say,
        ),
    )
    pace = Pace(speed, WallClock()) if speed is not None and by_clock else None
    try:
        with way.sink as sink:
            play(way.encode(messages), sink, site=site, pace=pace, progress=progress)
    finally:
        progress.clear()
    if args.truth is not None:
        write(args.truth, truth)
    # Where messages are on standard output, words are not.
    print(
        f"played {progress.rows:,} rows and {progress.events:,} events of {what} in"
        f" {progress.seconds:.1f} s ({progress.rows / max(progress.seconds, 1e-9):,.0f} rows/s);"
        f" {way.done()}",
        file=sys.stderr if args.sink == "stdout" else sys.stdout,
    )


def _record(args: argparse.Namespace) -> None:
    import signal
    import threading

    from simulator.record import Recorder
    from simulator.sinks.mqtt import Address

    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    recorder = Recorder(Address.parse(args.broker), args.site, args.out)
    try:
        if recorder.listening.wait(30.0):
            print(f"listening; recording to {args.out}, until Ctrl-C", file=sys.stderr, flush=True)
            recorder.wait(ended, args.quiet)
        else:
            raise RunoutError(f"the broker at {args.broker} lets nobody subscribe")
    finally:
        recorder.close()
    print(f"{recorder.messages:,} messages in {args.out}")


def _score(args: argparse.Namespace) -> None:
    import msgspec

    from simulator import score
    from simulator.truth import read

    truth = read(args.truth)
    said = score.read_said(args.said)
    judged = score.judge(truth, said, cap_h=math.inf if args.cap is None else args.cap)
    figures = score.summary(judged)
    print(score.table(judged))
    print()
    for name, value in figures.items():
        text = "-" if value is None else f"{value:,.3g}" if isinstance(value, float) else value
        print(f"{name.replace('_', ' '):32} {text}")
    print(msgspec.json.encode(figures).decode())


def _list(scenarios: Path) -> None:
    from simulator.config import load
    from simulator.faults import FAULTS
    from simulator.machines import MACHINES
    from simulator.recordings.datasets import DATASETS

    print("machines")
    for name, machine in MACHINES.items():
        print(f"  {name}: {machine.what}")
        for channel, unit in zip(machine.channels, machine.units, strict=True):
            print(f"    {channel} {unit}")
    print("faults")
    for name, fault in FAULTS.items():
        print(f"  {name}: {fault.what}")
    print(f"scenarios in {scenarios}")
    for path in sorted(scenarios.glob("*.toml")):
        scenario = load(path)
        counts = Counter(scenario.kind(n, name) for n in scenario.nodes for name in n.machines)
        machines = ", ".join(f"{count} {_plural(kind)}" for kind, count in counts.items())
        print(
            f"  {path.name}: {len(scenario.nodes)} nodes, {machines},"
            f" {scenario.lives} finished lives each"
        )
    print("datasets")
    print("  cmapss: NASA turbofan engines; train_FD001.txt, test_FD001.txt, RUL_FD001.txt, or .gz")
    for name, (_, what) in DATASETS.items():
        print(f"  {name}: {what}")


def _plural(kind: str) -> str:
    """Return the word for several machines of a kind.

    >>> _plural("pump"), _plural("gearbox")
    ('pumps', 'gearboxes')
    """
    return kind + ("es" if kind.endswith("x") else "s")


def _nodes(text: str) -> list[str]:
    """Read a number of nodes, or their names.

    >>> _nodes("2"), _nodes("hall-a,hall-b")
    (['node-01', 'node-02'], ['hall-a', 'hall-b'])
    """
    if text.isdecimal():
        if not 1 <= int(text) <= 10_000:
            raise RunoutError(f"--nodes {text}: give 1 to 10000, or names")
        return [f"node-{number:02d}" for number in range(1, int(text) + 1)]
    names = [name.strip() for name in text.split(",")]
    if len(set(names)) != len(names):
        raise RunoutError(f"--nodes {text}: a name repeats")
    return names


def _engines(text: str | None) -> list[int] | None:
    """Read numbers and ranges of engines.

    >>> _engines("1-3,7")
    [1, 2, 3, 7]
    """
    if text is None:
        return None
    text = text.replace(" ", "")
    if not _ENGINES.fullmatch(text):
        raise RunoutError(f"--engines {text!r}: give numbers and ranges, as in 1-20,31")
    units: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        units.update(range(int(first), min(int(last or first), 100_000) + 1))
    return sorted(units)


def _speed(text: str) -> float | None:
    if text == "auto":
        return None
    return math.inf if text == "max" else _positive(text)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from error
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} must be above 0")
    return value


def _seconds(text: str) -> float:
    return 0.0 if text in {"0", "0.0"} else _positive(text)


def _rows(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number from 1")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--broker",
        default="127.0.0.1:1883",
        metavar="HOST[:PORT]",
        help="MQTT broker (default %(default)s)",
    )
    common.add_argument(
        "--speed",
        type=_speed,
        default="auto",
        metavar="auto|max|X",
        help="auto: as fast as the agents commit (default); max: as fast as the broker takes it;"
        " X: seconds of data time in one second; both do not wait for agents",
    )
    common.add_argument(
        "--sink",
        choices=("mqtt", "serial", "file", "stdout"),
        default="mqtt",
        help="where it is played to (default %(default)s); serial: a pseudo-terminal, whose name"
        " is said",
    )
    common.add_argument(
        "--format",
        default="json",
        help="json (default), json-array, json-columns, senml-json, senml-cbor, csv or sparkplug;"
        " serial: csv, json or cobs",
    )
    common.add_argument(
        "--batch",
        type=_rows,
        default=1,
        metavar="ROWS",
        help="of a machine in one message, where the format holds several (default %(default)s)",
    )
    common.add_argument("--out", type=Path, metavar="FILE", help="of --sink file; written anew")
    common.add_argument(
        "--link", type=Path, metavar="FILE", help="of --sink serial: a name for the port"
    )
    common.add_argument(
        "--asset", metavar="NAME", help="of --sink serial: the machine at the port (json: all)"
    )
    common.add_argument(
        "--truth",
        type=Path,
        metavar="FILE",
        help="when all is played, write what really is the matter with each asset, as JSON",
    )
    common.add_argument(
        "--window",
        type=_rows,
        default=400,
        metavar="ROWS",
        help="with --speed auto, rows that a node may be behind (default %(default)s)",
    )
    common.add_argument(
        "--timeout",
        type=_seconds,
        default=300.0,
        metavar="S",
        help="give up when nothing has moved for so many seconds; 0: never (default %(default)g)",
    )
    common.add_argument(
        "--connect-timeout",
        type=_positive,
        default=30.0,
        metavar="S",
        help="give up when no broker answers for so many seconds (default %(default)g)",
    )
    parser = argparse.ArgumentParser(
        prog="runout-simulator",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run",
        parents=[common],
        help="play a simulated plant whose truth is known",
        description="Play a simulated plant: its history of failures, and how it is at present.",
    )
    run.add_argument(
        "--scenario", type=Path, required=True, metavar="FILE", help="TOML, see configs/scenarios"
    )
    run.add_argument(
        "--phase",
        choices=("history", "present", "all"),
        default="all",
        help="history: finished lives; present: the lives that are going on; (default %(default)s)",
    )
    run.add_argument("--seed", type=int, metavar="N", help="instead of the scenario's")
    replay = commands.add_parser(
        "replay",
        parents=[common],
        help="play a public recording",
        description="Play a recording in its original format; one cycle is one hour of data time.",
    )
    replay.add_argument(
        "--dataset",
        choices=("cmapss", "skab", "nab", "ai4i", "gasturbine", "tep", "femto", "cwru", "csv"),
        default="cmapss",
        help="which kind (default %(default)s); see list",
    )
    replay.add_argument("--map", type=Path, metavar="FILE", help="of csv: what its columns are")
    replay.add_argument(
        "--only", default="*", metavar="PATTERN", help="assets to play, but for cmapss, as in d0*"
    )
    replay.add_argument(
        "--rate",
        type=_positive,
        default=12_000.0,
        metavar="HZ",
        help="of cwru: samples a second (default %(default)g)",
    )
    replay.add_argument(
        "--samples",
        type=_rows,
        default=4096,
        metavar="N",
        help="of cwru: in a burst (default %(default)s)",
    )
    replay.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of the recording's files, or one of them",
    )
    replay.add_argument(
        "--subset",
        choices=("FD001", "FD002", "FD003", "FD004"),
        default="FD001",
        help="(default %(default)s)",
    )
    replay.add_argument(
        "--split",
        choices=("train", "test"),
        default="train",
        help="train: engines run to failure; test: cut off before (default %(default)s)",
    )
    replay.add_argument("--site", default="demo", help="in the topics (default %(default)s)")
    replay.add_argument(
        "--nodes",
        default="1",
        metavar="N|NAMES",
        help="how many nodes (node-01, node-02, ...) or their names, separated by commas; engines"
        " are dealt to them in turn (default %(default)s)",
    )
    replay.add_argument(
        "--engines", metavar="LIST", help="numbers and ranges, as in 1-20,31 (default: all)"
    )
    record = commands.add_parser(
        "record",
        help="record what agents say, to be scored",
        description="Record the health and the alerts that agents publish, a JSON line each.",
    )
    record.add_argument(
        "--broker",
        default="127.0.0.1:1883",
        metavar="HOST[:PORT]",
        help="MQTT broker (default %(default)s)",
    )
    record.add_argument("--site", default="+", help="of the agents (default: every site there is)")
    record.add_argument("--out", type=Path, required=True, metavar="FILE", help="written anew")
    record.add_argument(
        "--quiet",
        type=_positive,
        metavar="S",
        help="end when nothing was said for so many seconds, after something was",
    )
    scoring = commands.add_parser(
        "score",
        help="judge what agents said by what is true",
        description="Judge what agents said by the truth that run and replay write: which faults "
        "were told, how long before failure, false alarms per machine and month, the error of "
        "remaining life, and whether the alert names what the fault moves. The last line is JSON.",
    )
    scoring.add_argument(
        "--truth", type=Path, required=True, metavar="FILE", help="of run or replay --truth"
    )
    scoring.add_argument(
        "said",
        type=Path,
        nargs="+",
        metavar="SAID",
        help="files of record, or of runout-agent replay --out FILE.jsonl",
    )
    scoring.add_argument(
        "--cap",
        type=_positive,
        metavar="H",
        help="hours up to which remaining life is told (cap_h of the asset class)",
    )
    listing = commands.add_parser(
        "list", help="say which machines, faults, scenarios and datasets there are"
    )
    listing.add_argument(
        "--scenarios",
        type=Path,
        default=Path("configs/scenarios"),
        metavar="DIR",
        help="where to look for scenarios (default %(default)s)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
