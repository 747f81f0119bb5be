"""The command ``runout-agent``: see ``runout-agent --help``."""

import argparse
import logging
import os
import signal
import sys
from pathlib import Path

from agent.evidence import options as evidence
from agent.files import options
from agent.imports import options as imports
from agent.say import options as say
from agent.train import options as training
from contract.errors import BrokenError, RunoutError
from contract.log import FORMATS
from contract.terminal import unless_left


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code: 0 done, 1 a bad state, 2 a mistake to mend."""
    arguments = _parser().parse_args(argv)
    try:
        return unless_left(lambda: int(arguments.do(arguments)))
    except RunoutError as error:
        print(f"runout-agent: {error}", file=sys.stderr)
        return 1 if isinstance(error, BrokenError) else 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="runout-agent",
        description="Reads a machine's telemetry, learns what healthy looks like, says what is "
        "wrong, why, and how long is left. Works offline.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str, do: object, text: str, *, config: bool = True
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.add_argument(
            "--config", type=Path, required=config, metavar="FILE", help="e.g. configs/agent.toml"
        )
        sub.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help="in place of what the file says, e.g. --set mqtt.port=1884; may be repeated",
        )
        sub.set_defaults(do=do)
        return sub

    run = command("run", _run, "Run until SIGINT or SIGTERM.")
    run.add_argument("--verbose", action="store_true", help="log debugging detail too")
    run.add_argument(
        "--log-format",
        choices=FORMATS,
        default="auto",
        help="auto: for systemd's journal as fields, else in words",
    )
    check = command(
        "check", _check, "Check a configuration and say what the agent would do with it."
    )
    check.add_argument(
        "--live", action="store_true", help="hold the real stream against it, beside the agent"
    )
    check.add_argument(
        "--seconds", type=float, default=30.0, metavar="N", help="with --live: listen so long (30)"
    )
    check.add_argument(
        "--sources",
        action="store_true",
        help="with --live: open serial, Modbus and HTTP sources too; the agent must not run",
    )
    check.add_argument(
        "--json", action="store_true", help="with --live: one JSON object, for programs"
    )
    status = command("status", _status, "Show what the agent knows; it may be running or not.")
    status.add_argument("--json", action="store_true", help="one JSON object, for programs")
    history = command("history", _history, "Show which models judged when, and why.")
    history.add_argument("--json", action="store_true", help="a JSON object a line, for programs")
    options.add(command("replay", _replay, "Run recorded files through the agent's pipeline."))
    training.train(command("train", _train, training.TRAIN))
    training.select(command("select", _select, training.SELECT))
    training.reproduce(command("reproduce", _reproduce, training.REPRODUCE, config=False))
    say.add(command)
    evidence.explain(command("explain", _explain, evidence.EXPLAIN, config=False))
    evidence.export(command("export", _export, evidence.EXPORT))
    imports.add(commands.add_parser("import", help=imports.IMPORT, description=imports.IMPORT))
    doctor = command(
        "doctor", _doctor, "Look for the usual faults of a device, and say how each is mended."
    )
    doctor.add_argument("--json", action="store_true", help="one JSON object, for programs")
    join = commands.add_parser(
        "join",
        help="Unpack what the fleet's server made for this device.",
        description="Unpack what the fleet's server made for this device.",
    )
    join.add_argument("bundle", type=Path, help="as runout-server enrol made it")
    join.add_argument(
        "--folder", type=Path, default=Path("fleet"), help="for its files; default: fleet"
    )
    join.set_defaults(do=_join)
    node = command(
        "node",
        _node,
        "Join the federation: run runout-node for this agent, until SIGINT or SIGTERM.",
    )
    node.add_argument(
        "--stock", action="store_true", help="run Flower's own SuperNode in place of it"
    )
    node.add_argument("--print", action="store_true", help="print the command in place of it")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    # One thread of linear algebra: the vectors are short, the other cores are others'.
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    from agent.app import run
    from agent.config import load
    from agent.intake import Intake
    from agent.memory import give_back
    from contract.log import set_up

    give_back()
    config = load(arguments.config, arguments.set)
    set_up(logging.DEBUG if arguments.verbose else logging.INFO, arguments.log_format)
    stopping: list[int] = []
    intakes: list[Intake] = []

    def wake() -> None:
        for intake in intakes:
            intake.wake()

    def stop(number: int, _frame: object) -> None:
        stopping.append(number)
        wake()

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    remote = None
    if config.federation.settings:
        from agent.remote import Remote  # 5 MB that a device by itself does without

        remote = Remote(arguments.config, arguments.set, wake=wake)
    while True:
        if remote is not None:
            config = remote.begin()
        intake = Intake(config.limits.intake, round(config.limits.intake_mb * 1e6))
        intakes[:] = [intake]
        logging.getLogger("runout.agent").info(
            "started", extra={"node": config.name, "state": str(config.state), "pid": os.getpid()}
        )
        if remote is None:
            run(config, lambda: bool(stopping), intake)
            return 0
        try:
            run(config, lambda: bool(stopping) or remote.restart.is_set(), intake, remote)
        except RunoutError as error:
            if not remote.on_trial:
                raise
            remote.take_back(str(error))
        if stopping:
            return 0


def _check(arguments: argparse.Namespace) -> int:
    from agent.config import load
    from agent.facts import FactsFile
    from agent.routes import apart
    from contract.features import FeatureSpec
    from contract.spec import rul_name

    config = load(arguments.config, arguments.set)
    if arguments.live:
        from agent.live import run

        return run(
            config, seconds=arguments.seconds, sources=arguments.sources, as_json=arguments.json
        )
    if arguments.json or arguments.sources:
        raise RunoutError("--json and --sources are of a live check: say --live, too")
    facts = FactsFile(config).changed()
    print(f"{arguments.config}: good")
    print(f"  node    {config.name} at site {config.node.site}, state in {config.state}")
    tls = "TLS" if config.mqtt.tls else "no TLS"
    print(f"  broker  {config.mqtt.host}:{config.mqtt.port}, {tls}")
    for spec in config.asset_class:
        names = ", ".join(rul_name(model) for model in spec.rul) or "none"
        print(f"  class   {spec.name}, digest {spec.digest()}")
        print(f"          {len(spec.channels)} channels: {', '.join(spec.channel_names)}")
        print(f"          {len(FeatureSpec.of(spec))} features, every {spec.hop} rows")
        print(f"          remaining life by: {names}")
    for pattern, name in config.assets.items():
        print(f"  assets  {pattern} are of class {name}")
    if facts is not None:
        print(f"  facts   {config.facts}: {len(facts)} assets")
    for warning in apart(config):
        print(f"  warning {warning}")
    return 0


def _status(arguments: argparse.Namespace) -> int:
    from agent.config import load
    from agent.status import as_json, as_text, read

    seen = read(load(arguments.config, arguments.set))
    print(as_json(seen) if arguments.json else as_text(seen))
    return 0


def _history(arguments: argparse.Namespace) -> int:
    from agent.config import load
    from agent.history import as_json, as_text, read

    found = read(load(arguments.config, arguments.set))
    print(as_json(found) if arguments.json else as_text(found))
    return 0


def _replay(arguments: argparse.Namespace) -> int:
    # As for run: one thread of linear algebra, and memory that goes back.
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    from agent.memory import give_back
    from agent.replay import command

    give_back()
    return command(arguments)


def _doctor(arguments: argparse.Namespace) -> int:
    from agent.doctor import run

    return run(arguments)


def _explain(arguments: argparse.Namespace) -> int:
    # As for run: with more threads, linear algebra would round otherwise.
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    from agent.explain import command

    return command(arguments)


def _export(arguments: argparse.Namespace) -> int:
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    from agent.export import command

    return command(arguments)


def _one_thread() -> None:
    # As for run: with more threads, linear algebra would round otherwise.
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")


def _train(arguments: argparse.Namespace) -> int:
    _one_thread()
    from agent.train.command import train

    return train(arguments)


def _reproduce(arguments: argparse.Namespace) -> int:
    _one_thread()
    from agent.train.command import reproduce

    return reproduce(arguments)


def _select(arguments: argparse.Namespace) -> int:
    _one_thread()
    from agent.train.select import select

    return select(arguments)


def _join(arguments: argparse.Namespace) -> int:
    from agent.join import unpack

    print(unpack(arguments.bundle, arguments.folder), end="")
    return 0


def _node(arguments: argparse.Namespace) -> int:
    from agent.supernode import node

    return node(arguments)


if __name__ == "__main__":
    sys.exit(main())
