"""The demonstration: ``python -m demo``, or ``make demo``."""

import argparse
import json
import re
import shutil
import socket
import sys
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from agent import config as agent_config
from contract.errors import RunoutError
from demo import broker, plan, report
from demo.listener import Listener
from demo.processes import Children, Stopped
from server import status as server_status

CONFIGS = Path(__file__).parent.parent / "configs"


KEEP_DAYS, KEEP_SPEED = 120, 1800
"""A plant that is kept: days from one play's beginning to the next, seconds of data in one."""


class Demo:
    """One run of a plan, from an empty folder to a report."""

    def __init__(
        self,
        chosen: plan.Plan,
        out: Path,
        children: Children,
        opened: ExitStack,
        mosquitto: str | None,
    ) -> None:
        self.plan = chosen
        self._mosquitto = mosquitto
        self.out = out
        self.children = children
        self._opened = opened
        self._began = time.monotonic()
        self._said = ""
        self.mqtt, self.flower = _free_ports(2)
        self.server_log = out / "log" / "server.log"
        self.page = ""
        self.site = "demo"
        opened.callback(children.close)

    def say(self, text: str, *, again: bool = True) -> None:
        """Print a line with the seconds since the beginning; not the same line twice."""
        if again or text != self._said:
            print(f"[{time.monotonic() - self._began:5.1f} s] {text}", flush=True)
        self._said = text

    def run(self) -> dict[str, object]:
        """Play, learn, federate, judge; returns the report."""
        self.say(self.plan.title)
        self._start_broker_and_agents()
        self._play("learn", "the past: lives up to their failure", start_server=True)
        self._federate()
        self.listener.forget()
        self._play("judge", "the present: what is the matter now, nobody has been told")
        self.children.wait(self._all_said, 30, "the agents' last words")
        return self._report()

    def _start_broker_and_agents(self) -> None:
        program = "mosquitto" if self._mosquitto else "iotcore"
        self.children.start("broker", broker.command(self.mqtt, self.out, self._mosquitto))
        self.listener = Listener(self.mqtt, self.site)
        self._opened.callback(self.listener.close)
        self.children.wait(self.listener.connected.is_set, 20, f"{program} on port {self.mqtt}")
        self.say(f"broker: {program} on 127.0.0.1:{self.mqtt}")
        for name in self.plan.nodes:
            self.children.start(f"agent-{name}", ["runout-agent", "run", *self._agent(name)])
        nodes = self.listener.nodes
        self.children.wait(lambda: len(nodes) == len(self.plan.nodes), 60, "the agents")
        self.say(f"{len(nodes)} agents: {', '.join(self.plan.nodes)}")

    def _agent(self, name: str) -> list[str]:
        changes = {
            "node.name": name,
            "node.site": self.site,
            "node.state": str(self.out / name),
            "mqtt.port": self.mqtt,
            "keep.checkpoint_s": 2.0,
            # A demonstration may lose what it has when the power goes.
            "keep.power_loss_safe": "false",
            # Between its two plays nothing comes that a release could be tried on in shadow.
            "learning.trial.shadow": 0,
            "federation.superlink": f"127.0.0.1:{self.flower}",
            # Four nodes on one machine: nobody's server is spared by waiting.
            "federation.poll_s": 1.0,
            "federation.poll_busy_s": 0.3,
        }
        changed = [f"{key}={value}" for key, value in changes.items()]
        sets = [word for change in (*self.plan.settings, *changed) for word in ("--set", change)]
        return ["--config", str(self.plan.config), *sets]

    def _play(self, phase: str, what: str, *, start_server: bool = False) -> None:
        self.say(f"the simulator plays {what}")
        arguments = self.plan.learn if phase == "learn" else self.plan.judge
        truth = str(self.out / f"truth-{phase}.json")
        name = f"simulator-{phase}"
        before = self._readings()
        where = ["--broker", f"127.0.0.1:{self.mqtt}", "--truth", truth]
        self.children.start(name, ["runout-simulator", *arguments, *where])
        if start_server:
            self._start_server()
        due = [time.monotonic() + 3]

        def played() -> bool:
            self._say_page()
            if time.monotonic() >= due[0]:
                due[0] = time.monotonic() + 3
                count = self._readings() - before
                lives = sum(status.lives for status in self.listener.nodes.values())
                self.say(
                    f"  {count:,} readings judged, {lives} lives known to their end", again=False
                )
            return self.children.finished(name)

        self.children.wait(played, 900, "the simulator")
        self.say(f"  all {self._readings() - before:,} readings judged")

    def _start_server(self) -> None:
        config = self.out / "server.toml"
        self.server_state = self.out / "server"
        plan.server_config(
            config,
            state=self.server_state,
            port=self.flower,
            broker_port=self.mqtt,
            nodes=len(self.plan.nodes),
            rounds=self.plan.rounds,
        )
        self.children.start("server", ["runout-server", "run", "--config", str(config)])

    def _say_page(self) -> None:
        """Say where the fleet's page is, once the server has."""
        if not self.page and self.server_log.exists():
            found = re.search(r"fleet page: (\S+)", self.server_log.read_text(encoding="utf-8"))
            if found:
                self.page = found[1]
                self.say(f"the fleet's page, while this runs: {self.page}")

    def keep(self) -> None:
        """Leave the plant running, and play on, until somebody ends it."""
        print(f"\nthe plant runs on: {self.page}; Ctrl-C ends it", flush=True)
        scenario = self.plan.scenario
        days = 0
        while not self.children.stopping.is_set():
            if scenario is None:
                self.children.stopping.wait()
                break
            days += KEEP_DAYS
            name = f"simulator-{days}"
            play = plan.later(scenario, self.out / "later.toml", days)
            words = ["--scenario", str(play), "--seed", str(days), "--speed", str(KEEP_SPEED)]
            where = ["--broker", f"127.0.0.1:{self.mqtt}"]
            self.children.start(name, ["runout-simulator", "run", *words, *where])
            self.children.wait(partial(self.children.finished, name), 1e9, name)

    def _federate(self) -> None:
        """Let a node join beside each agent; the server trains once all are there."""
        self.say(
            "a Flower node joins beside each agent; updates leave the devices, readings do not"
        )
        for name in self.plan.nodes:
            flwr_home = str(self.out / name / "flwr")
            command = ["runout-agent", "node", *self._agent(name)]
            self.children.start(f"node-{name}", command, FLWR_HOME=flwr_home)

        def in_use() -> bool:
            status = server_status.read(self.server_state)
            if status is not None:
                self._tell_server(status)
            live = [max(s.live.values(), default=0) for s in self.listener.nodes.values()]
            delivered = status is not None and status.phase == "serving" and status.released
            # A device may refuse a release on its own evidence: that is an answer, too.
            return bool(delivered) and (all(live) or self._settled(live))

        self.children.wait(in_use, 600, "the first release", pause_s=0.5)
        live = [max(s.live.values(), default=0) for s in self.listener.nodes.values()]
        self.say(f"release {max(live)} judges on {sum(map(bool, live))} of {len(live)} devices")
        self.status = server_status.read(self.server_state)
        # They have done their part: the present needs no server.
        self.children.stop("node-", 2.0)

    def _settled(self, live: list[int]) -> bool:
        """Return whether every device that does not use the release has refused it."""
        refused = sum(
            any((self.out / name / "models" / "rejected").glob("*.npz")) for name in self.plan.nodes
        )
        return sum(map(bool, live)) + refused >= len(live)

    def _tell_server(self, status: server_status.Status) -> None:
        if status.phase == "waiting":
            self.say(f"  {status.online} of {len(self.plan.nodes)} nodes are there", again=False)
        elif status.phase in {"statistics", "fit", "evaluate", "deploy"}:
            which = f" round {status.round} of {status.rounds}" if status.phase == "fit" else ""
            asked, answered = len(status.asked), len(status.answered)
            self.say(f"  {status.phase}{which}: {answered} of {asked} answered", again=False)

    def _readings(self) -> int:
        return sum(status.readings for status in self.listener.nodes.values())

    def _all_said(self) -> bool:
        """Return whether the last report of every asset that was played has come."""
        true = plan.what_is_true(self.out / "truth-judge.json")
        return all(
            asset.asset in self.listener.health
            and self.listener.health[asset.asset].t >= asset.until_t - 1e-3
            for asset in true
        )

    def _report(self) -> dict[str, object]:
        true = plan.what_is_true(self.out / "truth-judge.json")
        spec = agent_config.load(self.plan.config, self.plan.settings).asset_class[0]
        health = {a.asset: self.listener.health[a.asset] for a in true}
        alerts = {a: alert for a, alert in self.listener.alerts.items() if a in health}
        local, federated = report.errors(health, true, spec.cap_h)
        released = self.status.released if self.status else None
        sent = sum(
            plan.rows_played(self.out / f"truth-{phase}.json") for phase in ("learn", "judge")
        )
        return {
            "flagged": report.flagged(health, alerts),
            "truth": report.truths(true),
            "rounds": self.plan.rounds + 1,
            "nodes": len(self.plan.nodes),
            "released_version": released.version if released else 0,
            "rul_model": released.rul_model if released else "",
            "local_error": local,
            "federated_error": federated,
            "heldout": dict(released.metrics) if released else {},
            "readings_sent": sent,
            "readings_processed": self._readings(),
            "seconds": round(time.monotonic() - self._began, 1),
        }


def _free_ports(count: int) -> list[int]:
    with ExitStack() as probes:
        ports = []
        for _ in range(count):
            probe = probes.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            ports.append(int(probe.getsockname()[1]))
        return ports


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="demo", description="The whole of Runout on one machine.")
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="folder with NASA's train_FD001.txt ... (plain or .gz)",
    )
    parser.add_argument("--out", type=Path, default=Path("out/demo"), metavar="DIR")
    parser.add_argument(
        "--broker",
        choices=["auto", "iotcore"],
        default="auto",
        help="auto: mosquitto where it is on PATH, else the embedded iotcore (default: auto)",
    )
    parser.add_argument(
        "--keep", action="store_true", help="leave the plant running, and play on, until Ctrl-C"
    )
    arguments = parser.parse_args()
    out: Path = arguments.out.resolve()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    children = Children(out / "log")
    try:
        chosen = (
            plan.turbofans(CONFIGS, arguments.data.resolve())
            if arguments.data
            else plan.plant(CONFIGS)
        )
        with ExitStack() as opened:
            mosquitto = broker.mosquitto() if arguments.broker == "auto" else None
            demo = Demo(chosen, out, children, opened, mosquitto)
            result = demo.run()
            (out / "report.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
            print(report.in_words(result))
            print(f"\nAll of it: {out / 'report.json'}; logs: {out / 'log'}", flush=True)
            if arguments.keep:
                demo.keep()
    except Stopped:
        print("\nstopped; no process is left", file=sys.stderr)
        return 130
    except RunoutError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
