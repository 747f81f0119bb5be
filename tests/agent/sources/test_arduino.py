"""An Arduino Uno, emulated to the register, at the other end of the port."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from agent.decode import csv
from agent.sources import Serial, Source

SKETCH = Path(__file__).parent / "arduino" / "telemetry.c"
LINES = 2000


def _tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        words = f"{name} is not on PATH (Debian: qemu-system-misc gcc-avr avr-libc)"
        if os.environ.get("CI"):
            pytest.fail(f"{words}, and CI must run this test")
        pytest.skip(words)
    return path


@pytest.fixture
def board(tmp_path: Path, opened: ExitStack) -> str:
    """Return the port of a board that runs the sketch."""
    compiler, emulator = _tool("avr-gcc"), _tool("qemu-system-avr")
    program = tmp_path / "telemetry.elf"
    command = [compiler, "-mmcu=atmega328p", "-DF_CPU=16000000UL", "-Os", "-Wall", "-Werror"]
    subprocess.run([*command, "-o", program, SKETCH], check=True)
    command = [emulator, "-M", "uno", "-bios", str(program), "-display", "none"]
    process = subprocess.Popen(
        [*command, "-monitor", "none", "-serial", "pty"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )

    def end() -> None:
        process.kill()
        process.communicate()

    opened.callback(end)
    assert process.stdout is not None
    for said in process.stdout:
        if found := re.search(r"redirected to (/dev/\S+)", said):
            return found[1]
    pytest.fail("the emulator told no port")


def test_an_arduino_is_read_once_and_in_order(
    board: str, start: Callable[[Source], None], taken: Any
) -> None:
    config = Serial(url=board, asset="pump-1", columns=("number", "flow", "speed"), checksum=True)
    source = config.build()
    start(source)
    taken.wait_said("port open")
    source._port.device.write(b"\n")  # type: ignore[union-attr]  # the sketch waits for it
    taken.wait(lambda: b"$%d," % (LINES - 1) in taken.payload and taken.payload[-1:] == b"\n")
    blocks, refused = csv.decode(taken.payload, 10**18, config.columns, checksum=True)
    assert not refused
    rows = [list(row) for block in blocks for row in block.values]
    # The first line is the one it might have joined in the middle of.
    assert rows == [[n, 10 + n % 7 + n % 10 / 10, 1480 + n % 5] for n in range(1, LINES)]
    assert source.counts.bad_frames == 0
