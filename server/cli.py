"""The command ``runout-server``: run, check, round, select, models, service and more."""

import argparse
import importlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from contract.errors import RunoutError
from contract.log import FORMATS, Format, chosen, set_up
from contract.terminal import unless_left
from server.config import ServerConfig, load


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code: 0 done, 1 nothing came of it, 2 a mistake to mend."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.config is None:
        parser.error("the following arguments are required: --config")
    try:
        return unless_left(lambda: int(arguments.do(arguments)))
    except RunoutError as error:
        print(f"runout-server: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


class _Command(Protocol):
    def __call__(
        self, name: str, do: object, text: str, *, actions: bool = False
    ) -> argparse.ArgumentParser: ...


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="runout-server",
        description="Merges what the devices of a cohort learnt, never their data, and hands the "
        "result back to them.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str, do: object, text: str, *, actions: bool = False
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.add_argument(
            "--config",
            type=Path,
            required=not actions,
            metavar="FILE",
            help="e.g. configs/server.toml",
        )
        sub.set_defaults(do=do)
        return sub

    _add_enrolment(commands, command)
    run = command(
        "run", _run, "Run SuperLink, train and serve the fleet page, until SIGINT or SIGTERM."
    )
    run.add_argument("--once", action="store_true", help="train once, hand the release out, end")
    run.add_argument("--rounds", type=int, metavar="N", help="in place of the configured number")
    _add_log_format(run)
    command("check", _check, "Check a configuration and say what the server would do with it.")
    command("round", _round, "Ask the running server to train now.")
    select = command("select", _select, "Try several models on the fleet, and choose one.")
    select.add_argument("--asset-class", metavar="NAME", help="where the server knows several")
    select.add_argument(
        "--candidate",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="models of remaining life to try beside the usual ones: a configuration",
    )
    select.add_argument(
        "--only", action="store_true", help="try the models of --candidate, and not the usual ones"
    )
    select.add_argument("--out", type=Path, metavar="FILE", help="write the chosen model here")
    _add_models(command)
    _add_config(command)
    withdraw = command(
        "withdraw", _withdraw, "Take a node out of the sums; the next training goes without."
    )
    withdraw.add_argument("node", help="its name")
    command("key", _key, "Print the public key that devices trust (federation.release_key).")
    command("publish", _publish, "Put what is handed out on the broker, for devices to fetch.")
    _add_log_format(command("fleet", _fleet, "Serve the fleet page alone, until a signal ends it."))
    command("service", _service, "Serve the models over REST and gRPC, until SIGINT or SIGTERM.")
    score = command("score", _score, "Score stored telemetry into a table, time after time.")
    score.add_argument("--once", action="store_true", help="what is new now, and end")
    board = command("tensorboard", _tensorboard, "Write the journals as TensorBoard event files.")
    board.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="tensorboard --logdir"
    )
    _add_evidently(command)
    command("repin", _repin, "Let the next training pin the spec that most nodes run then.")
    return parser


def _add_evidently(command: _Command) -> None:
    sub = command("evidently", _evidently, "Write an Evidently report of a machine's drift.")
    sub.add_argument("machine", metavar="SITE/NODE/MACHINE")
    sub.add_argument("--out", type=Path, metavar="FILE", help="as a page, 4 MB")
    sub.add_argument("--json", type=Path, metavar="FILE", help="for programs")
    sub.add_argument("--days", type=float, default=7.0, metavar="N", help="the newest (default 7)")
    sub.add_argument(
        "--reference-days", type=float, default=30.0, metavar="N", help="before (default 30)"
    )
    sub.add_argument(
        "--threshold",
        type=float,
        default=0.5,
        metavar="X",
        help="Wasserstein's distance, in deviations of the reference (default 0.5)",
    )


def _add_log_format(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--log-format",
        choices=FORMATS,
        default="auto",
        help="auto: for systemd's journal as fields, else in words",
    )


def _add_enrolment(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", command: _Command
) -> None:
    """Add what makes a fleet, and lets devices in and out."""
    begin = commands.add_parser(
        "init",
        help="Make certificates and a configuration for a fleet with TLS and node keys.",
        description="Make certificates and a configuration for a fleet with TLS and node keys.",
    )
    begin.add_argument("folder", type=Path, help="for the files; nothing in it is overwritten")
    begin.add_argument(
        "--name",
        action="append",
        required=True,
        metavar="HOST",
        help="name or address under which devices reach this server; may be given again",
    )
    begin.add_argument("--listen", default="0.0.0.0:9092", metavar="HOST:PORT")
    begin.set_defaults(do=_init, config="")
    enrolment = command("enrol", _enrol, "Make a device's bundle: address, authority and its key.")
    enrolment.add_argument("node", help="its name, as in the agent's configuration")
    enrolment.add_argument("--address", required=True, metavar="HOST:PORT", help="of this server")
    enrolment.add_argument("--out", type=Path, metavar="FILE", help="default: NODE.runout")
    taken = command("revoke", _revoke, "Take a device's key back: it is ejected at once.")
    taken.add_argument("node", help="its name")


def _add_models(command: _Command) -> None:
    """Add what is done with versions."""
    models = command(
        "models",
        _models_list,
        "List versions, or show, compare, restore and withdraw them.",
        actions=True,
    )
    actions = models.add_subparsers(metavar="ACTION")

    def action(
        name: str, do: str, text: str, *names: str, module: str = "models_command"
    ) -> argparse.ArgumentParser:
        sub = actions.add_parser(name, help=text, description=text)
        sub.set_defaults(do=_models(do, module))
        # Where people write it; before the action it is taken, too.
        sub.add_argument("--config", type=Path, default=argparse.SUPPRESS, metavar="FILE")
        for one in names:
            sub.add_argument(one, type=int, metavar="VERSION")
        sub.add_argument("--asset-class", metavar="NAME", help="where the server knows several")
        return sub

    models.set_defaults(asset_class=None)
    action("list", "listed", "All versions there are (the default).")
    action("show", "show", "Whence a version comes, who is in it, and how it did.", "version")
    action("diff", "diff", "What two versions differ in.", "one", "other")
    export = action("export", "export", "Write a version for other runtimes.", "version")
    export.add_argument("--onnx", type=Path, metavar="FOLDER", help="a graph for each model")
    export.add_argument("--mlflow", metavar="URI", help="register it there, with its lineage")
    action("promote", "promote", "Hand an earlier version's models out again.", "version")
    back = action("rollback", "rollback", "Hand out what judged before the newest version.")
    back.add_argument(
        "--to", type=int, metavar="VERSION", help="this one; 0: each device's own models"
    )
    waves = "waves_command"
    way = action("wave", "show", "How far the newest version has come, by device.", module=waves)
    ask = way.add_mutually_exclusive_group()
    for flag, text in (
        ("go", "open the next wave now, or go on after --hold"),
        ("hold", "open none until --go"),
        ("stop", "stop it, and hand out again what was before"),
    ):
        ask.add_argument(f"--{flag}", dest="ask", action="store_const", const=flag, help=text)
    action("history", "history", "Which version was handed out when, and to whom.", module=waves)
    out = action("withdraw", "withdraw", "Take a node out of the sums, and release the result.")
    out.add_argument("node", help="its name")


def _add_config(command: _Command) -> None:
    """Add what is done with devices' configurations."""
    config = command(
        "config",
        _settings("listed"),
        "Change devices' configurations from here, or say what became of that.",
        actions=True,
    )
    actions = config.add_subparsers(metavar="ACTION")

    def action(name: str, do: str, text: str) -> argparse.ArgumentParser:
        sub = actions.add_parser(name, help=text, description=text)
        sub.set_defaults(do=_settings(do))
        sub.add_argument("--config", type=Path, default=argparse.SUPPRESS, metavar="FILE")
        return sub

    def of_devices(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("node", nargs="*", help="names of devices")
        for name in ("site", "area", "line"):
            sub.add_argument(f"--{name}", default="", help=f"devices of that {name}")

    action("list", "listed", "What became of each device's newest settings (the default).")
    of_devices(action("show", "show", "All settings a device was given."))
    push = action("push", "push", "Give devices other settings: signed, tried there, taken back.")
    of_devices(push)
    push.add_argument("--all", action="store_true", help="all devices that were heard")
    push.add_argument(
        "--set",
        dest="change",
        action="append",
        default=[],
        required=True,
        metavar="KEY=VALUE",
        help="as of runout-agent; may be given again; without a value: as the device's file says",
    )
    push.add_argument("--only", action="store_true", help="take back what was set before")
    back = action("rollback", "rollback", "Give devices the settings of an earlier version again.")
    of_devices(back)
    back.add_argument("--to", type=int, metavar="VERSION", help="0: their own files alone")


def _settings(name: str) -> Callable[[argparse.Namespace], int]:
    def do(arguments: argparse.Namespace) -> int:
        from server import settings_command

        run: Callable[[ServerConfig, argparse.Namespace], int] = getattr(settings_command, name)
        return run(load(arguments.config), arguments)

    return do


def _run(arguments: argparse.Namespace) -> int:
    from server.app import Server

    config = load(arguments.config)
    if arguments.rounds is not None:
        if arguments.rounds < 1:
            raise RunoutError(f"--rounds {arguments.rounds}: at least 1")
        config = msgspec.structs.replace(config, rounds=arguments.rounds)
    tell = _teller(arguments.log_format)
    server = Server(config, tell, once=arguments.once)

    def stop(_number: int, _frame: object) -> None:
        server.stop()

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    if config.mqtt is None:
        return 0 if server.run() else 1
    from server.fleet.service import opened

    with opened(config, tell, words=tell is _tell):
        return 0 if server.run() else 1


def _teller(form: Format) -> Callable[[str], None]:
    """Return what tells a line: to standard output in words, else to the log."""
    if chosen(form, os.environ) == "text":
        return _tell
    set_up(logging.INFO, form, "runout-server")
    return _note


def _note(line: str) -> None:
    # A line of the ServerApp begins with the time that the log gives, too.
    text = line.partition(" ")[2] if line[2:3] == ":" else line
    logging.getLogger("runout.server").info("%s", text)


def _tell(line: str) -> None:
    # What comes from the ServerApp has its own time.
    stamp = "" if line[2:3] == ":" else time.strftime("%H:%M:%S ")
    # In one piece: several threads tell, and print() may part a line from its end.
    sys.stdout.write(f"{stamp}{line}\n")
    sys.stdout.flush()


def _init(arguments: argparse.Namespace) -> int:
    from server.enrol import init

    for path in init(arguments.folder, arguments.listen, arguments.name):
        print(path)
    config = arguments.folder / "server.toml"
    print(f"next: runout-server run --config {config}")
    print(f"      runout-server enrol NODE --address HOST:PORT --config {config}")
    print("keep ca.key and the state's release.key where nobody else can read them, and a copy")
    return 0


def _enrol(arguments: argparse.Namespace) -> int:
    from server.enrol import enrol

    out = arguments.out or Path(f"{arguments.node}.runout")
    enrol(load(arguments.config), arguments.node, arguments.address, out)
    print(f"{out}: bring it to the device safely, there: runout-agent join {out.name}")
    print("the running server lets it in within seconds, or when it is started")
    return 0


def _revoke(arguments: argparse.Namespace) -> int:
    from server.enrol import revoke

    revoke(load(arguments.config), arguments.node)
    print(
        f"{arguments.node}: its key is taken back. What it has contributed stays: "
        f"runout-server models withdraw {arguments.node}"
    )
    return 0


def _check(arguments: argparse.Namespace) -> int:
    config = load(arguments.config)
    print(f"{arguments.config}: good")
    print(f"  SuperLink  {config.listen}, {'TLS' if config.tls else 'no TLS, this machine only'}")
    print(f"  state      {config.folder}")
    print(f"  cohort     {config.asset_class or 'each class that enough nodes run'}")
    print(
        f"  training   with {config.min_nodes} nodes or more, {config.rounds} rounds by "
        f"{config.strategy}, again after {config.interval_s:.0f} s"
    )
    shares = ", ".join(f"{share:.0%}" for share in config.waves.shares)
    waves = f"{config.waves.canary} devices, then {shares}" if config.waves.canary else "none"
    print(f"  waves      {waves}")
    broker = f"of the broker {config.mqtt.host}:{config.mqtt.port}" if config.mqtt else ""
    page = f"{config.fleet.host}:{config.fleet.port}"
    print(f"  fleet      {f'{page}, {broker}' if broker else 'no page: give [mqtt]'}")
    return 0


def _round(arguments: argparse.Namespace) -> int:
    from server.status import REQUEST

    config = load(arguments.config)
    if not config.folder.is_dir():
        raise RunoutError(f"{config.folder}: no server has run with this state folder")
    (config.folder / REQUEST).touch()
    print("asked for: the running server trains as soon as enough nodes are there")
    return 0


def _select(arguments: argparse.Namespace) -> int:
    from server.select_command import select

    return select(load(arguments.config), arguments)


def _models(name: str, module: str = "models_command") -> Callable[[argparse.Namespace], int]:
    def do(arguments: argparse.Namespace) -> int:
        found = importlib.import_module(f"server.{module}")
        run: Callable[[ServerConfig, argparse.Namespace], int] = getattr(found, name)
        return run(load(arguments.config), arguments)

    return do


_models_list = _models("listed")


def _publish(arguments: argparse.Namespace) -> int:
    from server.broadcast import publish

    config = load(arguments.config)
    if config.mqtt is None:
        raise RunoutError(f"{arguments.config}: there is no [mqtt] to publish to")
    for name, version in publish(config.folder, config.mqtt, anew=True).items():
        print(f"version {version} of {name}: retained on the broker")
    return 0


def _fleet(arguments: argparse.Namespace) -> int:
    from server.fleet.service import serve

    tell = _teller(arguments.log_format)
    return serve(load(arguments.config), tell, words=tell is _tell)


def _service(arguments: argparse.Namespace) -> int:
    from server.service_command import serve

    return serve(load(arguments.config))


def _score(arguments: argparse.Namespace) -> int:
    from server.scores_command import score

    return score(load(arguments.config), _tell, once=arguments.once)


def _tensorboard(arguments: argparse.Namespace) -> int:
    from server.tensorboard import write

    paths = write(load(arguments.config).folder, arguments.out)
    for path in paths:
        print(path)
    if not paths:
        print("runout-server: nothing was trained yet", file=sys.stderr)
    return 0 if paths else 1


def _evidently(arguments: argparse.Namespace) -> int:
    from server.drift_report import report, windows

    found = windows(
        load(arguments.config), arguments.machine, arguments.days, arguments.reference_days
    )
    told = report(found, arguments.threshold, arguments.out, arguments.json)
    print(f"{arguments.machine}: {len(found.current)} points now, {len(found.reference)} before")
    for one in told:
        print(f"{one.distance:8.2f}  {'drifted' if one.drifted else '       '}  {one.feature}")
    if found.left_out:
        print(f"too few points of {', '.join(found.left_out)}")
    for path in filter(None, (arguments.out, arguments.json)):
        print(path)
    return 0


def _key(arguments: argparse.Namespace) -> int:
    from server.signing import public_pem

    print(public_pem(load(arguments.config).folder), end="")
    return 0


def _withdraw(arguments: argparse.Namespace) -> int:
    from server.merge import withdraw

    config = load(arguments.config)
    taken = withdraw(config.folder, arguments.node)
    if not taken:
        print(f"runout-server: no contribution of {arguments.node!r} is kept", file=sys.stderr)
        return 1
    print(f"taken out of the sums of {', '.join(taken)}; the next training goes without")
    return 0


def _repin(arguments: argparse.Namespace) -> int:
    from server.registry import Registry, cohorts

    config = load(arguments.config)
    names = [n for n in cohorts(config.folder) if config.asset_class in {"", n}]
    unpinned = [name for name in names if Registry(config.folder, name).unpin()]
    print(f"no longer pinned: {', '.join(unpinned) or 'nothing was'}")
    return 0 if unpinned else 1


if __name__ == "__main__":
    sys.exit(main())
