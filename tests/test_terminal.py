"""Commands whose output nobody reads to its end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from contract.terminal import LEFT, unless_left

CONFIGS = Path(__file__).parents[1] / "configs"


@pytest.mark.parametrize(
    "words",
    [
        ["runout-simulator", "list"],
        ["runout-agent", "check", "--config", str(CONFIGS / "agent.toml")],
        ["runout-server", "check", "--config", str(CONFIGS / "server.toml")],
    ],
    ids=lambda words: words[0],
)
@pytest.mark.parametrize("held_back", [True, False])
def test_who_leaves_early_is_no_error(words: list[str], tmp_path: Path, held_back: bool) -> None:
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    if not held_back:
        environ["PYTHONUNBUFFERED"] = "1"
    read, write = os.pipe()
    os.close(read)
    program = Path(sys.executable).with_name(words[0])
    done = subprocess.run(
        [program, *words[1:]],
        stdout=write,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=environ,
        check=False,
        timeout=60,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (LEFT, b"")


@pytest.mark.usefixtures("capfd")
def test_a_broken_socket_is_another_matter() -> None:
    def do() -> int:
        raise BrokenPipeError("of a socket")

    with pytest.raises(BrokenPipeError, match="of a socket"):
        unless_left(do)
