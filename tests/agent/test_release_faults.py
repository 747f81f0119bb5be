"""What can be wrong with a release on its way: a running agent judges on with its last good one."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from agent.config import Node
from agent.rollout import deliver, folders
from contract.errors import ContractError
from contract.release import Release
from contract.report import Health
from contract.spec import AssetClass
from server.signing import public_pem, sign
from tests.agent.conftest import wait_until
from tests.agent.test_downlink import release_of, spec
from tests.agent.test_faults import fill, send_hours, small_disk
from tests.agent.test_rollout import trained

__all__ = ["small_disk", "spec"]

ROLLOUT = "SELECT version, verdict, reason FROM rollout ORDER BY id"


def broken(good: Release, kind: str) -> bytes:
    """Return the bytes of a release with a fault."""
    arrays = dict(good.arrays)
    if kind == "alarming":
        arrays["health/model/limits"] = arrays["health/model/limits"] * 1e-6
    if kind == "numberless":
        arrays["health/model/variances"] = arrays["health/model/variances"] * 1e-300
        arrays["health/model/limits"] = arrays["health/model/limits"] * 1e-300
    return Release(good.manifest, arrays).to_bytes()


@pytest.fixture
def signed(tmp_path: Path) -> Callable[[bytes], bytes]:
    def signed(content: bytes) -> bytes:
        one = Release.from_bytes(content, "made here")
        sign(one, tmp_path / "server")
        return one.to_bytes()

    return signed


def test_a_running_agent_judges_on_whatever_is_laid_into_its_inbox(
    broker: Any,
    connect: Callable[..., Any],
    agent: Callable[..., Any],
    spec: AssetClass,
    signed: Callable[[bytes], bytes],
    tmp_path: Path,
) -> None:
    key = tmp_path / "fleet.pem"
    key.write_text(public_pem(tmp_path / "server"), encoding="utf-8")
    plant = connect(broker)
    process = agent("node", "agent.minimal.toml", f'federation.release_key="{key}"').start()
    plant.wait_for("node", lambda status: status.online)
    hour = 300
    send_hours(plant, 0, hour)
    plant.wait_for("node", lambda status: status.readings == hour)
    inbox, _, rejected = folders(process.state)

    def lay(name: str, content: bytes) -> None:
        part = inbox / f"{name}.part"
        part.write_bytes(content)
        part.replace(inbox / name)

    lay("pump-v0001.npz", signed(release_of(spec, 1).to_bytes()))
    plant.wait_for("node", lambda status: status.live == {"pump": 1})
    good = release_of(spec, 2)
    content = signed(good.to_bytes())
    altered = bytearray(content)
    altered[content.index(good.arrays["health/model/axes"].tobytes()) + 5] ^= 1
    faults = [
        (good.to_bytes(), "it is not signed"),
        (bytes(altered), "Runout file"),  # its sum within the archive
        (redigested(good), "does not match its digest"),
        (content[: len(content) // 2], "not a whole Runout file"),
        (b"", "not a whole Runout file"),
        (signed(broken(good, "alarming")), "into alarm"),
        (signed(broken(good, "numberless")), "makes no number of"),
    ]
    for number, (laid, words) in enumerate(faults):
        lay("pump-v0002.npz", laid)
        wait_until(lambda n=number: len(process.table(ROLLOUT)) == n + 2)
        send_hours(plant, hour, hour + 5)
        hour += 5
        plant.wait_for("node", lambda status, n=hour: status.readings == n)
        rows = process.table(ROLLOUT)
        assert rows[-1][1] == "rejected"
        assert words in rows[-1][2]
        (body,) = process.table("SELECT body FROM result WHERE kind='health' ORDER BY id")[-1]
        said = msgspec.json.decode(body, type=Health)
        assert (said.judged_by, said.state) == (1, "healthy")
    assert (rejected / "pump-v0002.npz").exists()
    lay("pump-v0002.npz", content)  # and what is good comes to judge, after all of them
    plant.wait_for("node", lambda status: status.live == {"pump": 2})
    assert process.end(signal.SIGTERM) == 0
    assert "Traceback" not in process.said
    history = process.ask("history").stdout
    assert "promoted" in history
    assert "does not match its digest" in history


def redigested(good: Release) -> bytes:
    """Return a release whose content is whole, and not that of its digest."""
    other = Release(good.manifest, dict(good.arrays))
    other.digest = "0" * 64
    return other.to_bytes()


def test_a_full_disk_leaves_a_release_waiting_and_what_judges_judging(
    small_disk: Path, configure: Callable[..., Any], device: Callable[..., Any]
) -> None:
    config = configure(node=Node("node", "plant", str(small_disk / "state")))
    one = device(config)
    for n in range(6):
        one.wear_out(f"pump-{n}", n)
    one.engine.checkpoint()
    good = trained(config)
    deliver(config.state, good)
    assert [verdict.promoted for verdict in one.engine.consider_releases(1)] == [True]
    better = trained(config, version=2)
    deliver(config.state, better)
    filler = small_disk / "filler"
    fill(filler)
    for _ in range(3):
        assert one.engine.consider_releases(2) == []
    inbox, _, _ = folders(config.state)
    assert [path.name for path in inbox.iterdir()] == ["pump-v0002.npz"]
    with pytest.raises(ContractError, match=r"cannot be laid down \(No space left on device\)"):
        deliver(config.state, trained(config, version=3))
    assert [path.name for path in inbox.iterdir()] == ["pump-v0002.npz"]
    assert one.engine.status(online=True).live == {"pump": 1}
    filler.unlink()
    told = one.live("pump-9", np.full((30, 2), [5.0, 40.0]))
    assert {report.judged_by for report in told if isinstance(report, Health)} == {1}
    assert [verdict.promoted for verdict in one.engine.consider_releases(3)] == [True]
    assert one.engine.status(online=True).live == {"pump": 2}
