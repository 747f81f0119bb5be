"""Versions shown, compared, restored and withdrawn by the command, on a state that was trained."""

import fcntl
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contract.release import Release
from server.cli import main
from server.guard import Limits
from server.registry import Registry
from server.restore import locked
from server.rounds import Fleet
from server.signing import FILE, key_of
from server.status import Status, read
from server.training import Settings, Training


class Server:
    """A server's state, a fleet in this process, and the command."""

    def __init__(self, folder: Path, grid: Any, stores: Any) -> None:
        self.state = folder / "server"
        self.state.mkdir()
        self.config = folder / "server.toml"
        self.config.write_text(f'state = "{self.state}"\n', encoding="utf-8")
        self.stores = stores
        self.spec = stores.pump(stores.ridge, stores.network)
        self.grid = grid
        settings = Settings(self.state, "", 1, 1, 0.3, 60.0, "fedavg", False, Limits())
        self.training = Training(settings, Fleet(grid), Status())

    def join(self, number: int) -> None:
        self.grid.states[number] = self.stores.make(f"rpi-{number}", self.spec, seed=number)

    def train(self) -> Release:
        release = self.training.run()
        assert release is not None
        return release

    def say(self, *words: str) -> int:
        return main([*words, "--config", str(self.config)])

    @property
    def registry(self) -> Registry:
        return Registry(self.state, "pump")


@pytest.fixture
def server(tmp_path: Path, grid: Any, stores: Any) -> Server:
    server = Server(tmp_path, grid, stores)
    server.join(1)
    server.join(2)
    server.train()
    server.join(3)
    server.train()
    return server


def test_versions_are_listed_with_the_one_that_is_handed_out(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    assert server.say("models") == 0
    first = capsys.readouterr().out
    assert server.say("models", "list") == 0
    assert capsys.readouterr().out == first
    one, two = first.splitlines()[1:]
    assert "handed out" in two
    assert "handed out" not in one
    assert main(["models", "--config", str(server.config), "list"]) == 0
    assert capsys.readouterr().out == first
    with pytest.raises(SystemExit):
        main(["models", "show", "1"])
    assert "required: --config" in capsys.readouterr().err
    assert server.say("models", "list", "--asset-class", "fan") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_version_says_whence_it_comes_and_who_is_in_it(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    assert server.say("models", "show", "2") == 0
    said = capsys.readouterr().out
    release = server.registry.get(2)
    for words in (
        "2, handed out",
        "from        version 1",
        release.digest,
        release.signature,
        "rpi-3",
        "rmse/ridge",
        "moments, ridge, sklearn",
    ):
        assert words in said
    assert server.say("models", "show", "7") == 2
    assert "pump has no version 7; it has 1, 2" in capsys.readouterr().err


def test_two_versions_are_compared(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert server.say("models", "diff", "1", "2") == 0
    said = capsys.readouterr().out
    assert "joined     rpi-3" in said
    assert "array      ridge/coefficients:" in said
    assert "metric     rmse/local:" in said
    assert server.say("models", "diff", "2", "2") == 0
    assert "the same, to the last bit" in capsys.readouterr().out


def test_an_earlier_version_is_handed_out_again_under_a_new_number(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    assert server.say("models", "rollback") == 0
    assert "version 1: handed out as version 3" in capsys.readouterr().out
    current = server.registry.current()
    assert current is not None
    assert (current.version, current.manifest.parent, current.manifest.restores) == (3, 2, 1)
    first = server.registry.get(1)
    for name, array in first.arrays.items():
        assert np.array_equal(array, current.arrays[name])
    # Before version 1 there was nothing: each device's own models.
    assert server.say("models", "rollback") == 0
    assert server.say("models", "rollback") == 2
    assert "there is nothing before them" in capsys.readouterr().err
    assert server.say("models", "promote", "2") == 0
    assert server.say("models", "rollback", "--to", "0") == 0
    own = server.registry.current()
    assert own is not None
    assert (own.version, own.arrays, own.manifest.restores) == (6, {}, 0)
    assert server.say("models", "list") == 0
    assert "restores own models" in capsys.readouterr().out
    assert [event["restores"] for event in server.registry.journal() if "restores" in event] == [
        1,
        0,
        2,
        0,
    ]
    # Training goes on from there.
    server.join(4)
    assert server.train().version == 7


def test_a_node_is_withdrawn_and_the_result_is_as_if_it_had_never_been(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    before = read(server.state)
    assert server.say("models", "withdraw", "rpi-3") == 0
    said = capsys.readouterr().out
    assert "rpi-3: taken out of the sums of statistics, ridge" in said
    assert "version 3, from rpi-1, rpi-2" in said
    release = server.registry.current()
    assert release is not None
    assert release.manifest.contributors == ("rpi-1", "rpi-2")
    assert "sklearn" not in release.rul  # nobody can be taken out of weights
    first = server.registry.get(1)
    np.testing.assert_allclose(
        release.arrays["ridge/coefficients"], first.arrays["ridge/coefficients"], rtol=1e-12
    )
    assert read(server.state) == before  # the running server's status is its own
    assert server.say("models", "withdraw", "rpi-3") == 2
    assert "no contribution of 'rpi-3' is kept" in capsys.readouterr().err


def test_versions_are_signed_by_a_key_that_nobody_else_can_read(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (server.state / FILE).stat().st_mode & 0o777 == 0o600
    assert server.say("key") == 0
    assert capsys.readouterr().out.startswith("-----BEGIN PUBLIC KEY-----")
    for version in (1, 2):
        release = server.registry.get(version)
        key_of(server.state).public_key().verify(
            bytes.fromhex(release.signature), release.digest.encode()
        )
    (server.state / FILE).write_text("no key", encoding="utf-8")
    assert server.say("key") == 2
    assert "is no PEM key" in capsys.readouterr().err


def test_the_command_waits_for_a_training_that_holds_the_state(server: Server) -> None:
    with (
        locked(server.state),
        (server.state / "lock").open("a") as other,
        pytest.raises(BlockingIOError),
    ):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with (server.state / "lock").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
