"""What the server is doing, as one JSON file that is always whole: ``STATE/status.json``."""

from pathlib import Path
from typing import Literal

import msgspec

from contract import npz
from contract.release import Release

LOG = Path("log") / "server.log"
"""In the state folder: what a ServerApp says to people; ``runout-server run`` shows it."""
STATE_VARIABLE = "RUNOUT_SERVER_STATE"
"""Environment variable that tells a ServerApp its state folder."""
REQUEST = "train.request"
"""File in the state folder that asks for a training now."""

Phase = Literal[
    "waiting",
    "readiness",
    "statistics",
    "shape",
    "gradients",
    "fit",
    "evaluate",
    "deploy",
    "serving",
    "ended",
    "failed",
    "stopped",
]


class Released(msgspec.Struct):
    """The version that is handed out.

    Attributes:
        version: of it.
        rul_model: which of its models judges.
        created_s: seconds since 1970 UTC.
        contributors: nodes whose data is in it.
        metrics: from the devices' held-out lives; see ``server.evaluate``.
        delivered: what each node said of it: ``delivered``, ``already live``, or why not.
    """

    version: int
    rul_model: str
    created_s: float
    contributors: tuple[str, ...]
    metrics: dict[str, float]
    delivered: dict[str, str] = {}


class Status(msgspec.Struct):
    """See ``STATE/status.json``.

    Attributes:
        phase: what goes on.
        pid: of the process that wrote this.
        run: Flower's id of the run.
        asset_class: the cohort; empty until it is known.
        training: counts the trainings of this run.
        round: of fitting, from 1; 0 in the other phases.
        rounds: of fitting in a training.
        online: nodes there.
        asked: nodes asked in this phase.
        answered: of those, who answered.
        accepted: of those, whose answer was used.
        failed: why not, by node.
        released: what is handed out, or None.
        bytes_up: from each node since the run began.
        bytes_down: to each node.
        seconds: how long the phases of the last training took.
        updated_s: when this was written, seconds since 1970 UTC.
        error: what ended the run, in words.
    """

    phase: Phase = "waiting"
    pid: int = 0
    run: str = ""
    asset_class: str = ""
    training: int = 0
    round: int = 0
    rounds: int = 0
    online: int = 0
    asked: list[str] = []
    answered: list[str] = []
    accepted: list[str] = []
    failed: dict[str, str] = {}
    released: Released | None = None
    bytes_up: dict[str, int] = {}
    bytes_down: dict[str, int] = {}
    seconds: dict[str, float] = {}
    updated_s: float = 0.0
    error: str = ""

    def write(self, state: Path, at_s: float) -> None:
        """Replace the file."""
        self.updated_s = round(at_s, 3)
        content = msgspec.json.format(msgspec.json.encode(self), indent=2)
        npz.write(state / "status.json", content, durable=False)

    def hand_out(self, release: Release | None) -> None:
        """Say which version is handed out from now on."""
        if release is None:
            self.released = None
            return
        manifest = release.manifest
        self.released = Released(
            version=manifest.version,
            rul_model=manifest.rul_model,
            created_s=manifest.created_ns / 1e9,
            contributors=manifest.contributors,
            metrics=manifest.metrics,
        )


def read(state: Path) -> Status | None:
    """Return the last status written, or None."""
    try:
        return msgspec.json.decode((state / "status.json").read_bytes(), type=Status)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None
