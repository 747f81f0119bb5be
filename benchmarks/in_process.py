"""A fleet without a network: agents' own engines on recordings, and the nodes' own local rounds."""

from contextlib import ExitStack
from pathlib import Path

import msgspec
import numpy as np

from agent import config as agent_config
from agent.app import Engine
from agent.batch import Batch, Event, Rows
from agent.config import AgentConfig, Keep, Node
from agent.group import Group
from agent.local_round import answer
from agent.pipeline import Outcome
from agent.rollout import deliver
from contract import VERSION
from contract.arrays import Arrays, Floats
from contract.release import Release
from contract.spec import AssetClass
from contract.update import Request, Update
from server.merge import Contribution, Key

HOUR_NS = 3_600_000_000_000
START_NS = 1_199_145_600 * 10**9


def configured(path: Path, state: Path, name: str, **changes: object) -> AgentConfig:
    """Return a configuration file's agent under another name and folder, its class changed so."""
    base = agent_config.load(path)
    spec: AssetClass = msgspec.structs.replace(base.asset_class[0], **changes)
    return msgspec.structs.replace(
        base,
        node=Node(name=name, site="bench", state=str(state)),
        asset_class=(spec,),
        keep=Keep(power_loss_safe=False, evidence_mb=0.0),
    )


class Device:
    """One agent's engine."""

    def __init__(self, config: AgentConfig) -> None:
        self._opened = ExitStack()
        self.config = config
        self.engine = Engine(config, self._opened)

    def live(self, asset: str, values: Floats, *, failed: bool) -> list[Outcome]:
        """Let an asset live rows ``(n, C)``, one an hour; with ``failed`` the last is its end."""
        n = len(values)
        t_ns = START_NS + HOUR_NS * np.arange(1, n + 1)
        rows = Rows(asset, t_ns, values, np.arange(n), np.ones(n, dtype=np.bool_))
        events = [Event(n, asset, int(t_ns[-1]), "failed")] if failed else []
        return self.engine.process(Batch([rows], events))

    def answer(
        self, phase: str, arrays: Arrays, *, round_: int, models: tuple[str, ...] = ()
    ) -> Update:
        """Answer the server, as the node beside this agent would."""
        spec = self.config.asset_class[0]
        asked = Request(VERSION, phase, spec.name, spec.digest(), round_, models)
        return answer(self.config.state, asked, arrays)

    @property
    def group(self) -> Group:
        """Return what the agent knows of its only class."""
        return self.engine.pipeline.groups[self.config.asset_class[0].name]

    def learn(self) -> None:
        """Learn remaining life alone, from all finished lives in the store."""
        group = self.group
        group.rul.learn(self.engine.store.training(group.spec))

    def deliver(self, release: Release) -> None:
        """Lay a release into the agent's inbox, and let it judge that."""
        deliver(self.config.state, release)
        (verdict,) = self.engine.consider_releases(0)
        if not verdict.promoted:
            raise SystemExit(f"{self.config.name} refuses the release: {verdict.reason}")

    def close(self) -> None:
        """Write the checkpoint that the node reads, and close."""
        self.engine.checkpoint()
        self._opened.close()


def contribution(update: Update, tie: str) -> Contribution:
    """Return an update as the server keeps it."""
    head = update.head
    return Contribution(Key(head.node, head.epoch, tie, head.rows, head.lives), update.arrays)
