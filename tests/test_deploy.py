"""What is put on a device: the installer for real in a trial folder, units, broker and limits."""

import ctypes
import getpass
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from agent.config import load

PI = Path(__file__).parents[1] / "deploy" / "pi"
UNITS = ("runout-agent.service", "runout-node.service")
PATIENCE_S = 300
EXPOSURE = {"runout-agent.service": 2.0, "runout-node.service": 2.0}
"""What systemd-analyze security may find at most, of 10."""
_PR_SET_MDWE = 65  # linux/prctl.h


def sh(script: str, *words: str, root: Path, folder: Path = PI) -> subprocess.CompletedProcess[str]:
    """Run the installer or the uninstaller, in a trial folder; nothing but Runout is installed."""
    return subprocess.run(
        ["sh", str(folder / script), "--root", str(root), *words],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=PATIENCE_S,
        env={**os.environ, "PIP_NO_DEPS": "1"},
    )


def install(root: Path, checkout: Path, *words: str) -> str:
    pi = checkout / "deploy" / "pi"
    done = sh("install.sh", "--python", sys.executable, *words, root=root, folder=pi)
    if done.returncode and "is there a network" in done.stderr and not os.environ.get("CI"):
        pytest.skip("no network: the installer fetches what builds a wheel")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tree(root: Path) -> dict[str, tuple[int, int, str]]:
    """Return everything in a folder: mode, time and, of a link, where it points."""
    return {
        str(path.relative_to(root)): (
            (seen := path.lstat()).st_mode,
            seen.st_mtime_ns,
            str(path.readlink()) if path.is_symlink() else "",
        )
        for path in root.rglob("*")
        if "__pycache__" not in path.parts
    }


def agent(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the installed program; what it depends on is lent to it from here."""
    return subprocess.run(
        [str(root / "usr" / "local" / "bin" / "runout-agent"), *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
        cwd=root,
        env={**os.environ, "PYTHONPATH": sysconfig.get_path("purelib")},
    )


def take_off(root: Path) -> None:
    """Uninstall: first said only, then but for the data, then all."""
    program = root / "opt" / "runout"
    (root / "var" / "lib" / "runout" / "store.db").write_text("what it has learnt")
    said = sh("uninstall.sh", "--dry-run", root=root).stdout
    assert "would remove /opt/runout/venv" in said
    assert (program / "venv").exists()
    done = sh("uninstall.sh", root=root)
    assert done.returncode == 0, done.stderr
    assert "kept: /var/lib/runout" in done.stdout
    left = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    assert left == {
        "etc/mosquitto/conf.d/runout.conf",
        "etc/runout/agent.toml",
        "etc/runout/agent.toml.new",
        "var/lib/runout/store.db",
    }
    assert not [path for path in root.rglob("*") if path.is_symlink()]
    purged = sh("uninstall.sh", "--purge", root=root)
    assert purged.returncode == 0
    assert "restart mosquitto: until then it goes on with what was in it" in purged.stdout
    assert not [path for path in root.rglob("*") if path.is_file()]
    assert "nothing to remove" in sh("uninstall.sh", "--purge", root=root).stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a copy of this checkout, as it is now, without what was made in it."""
    made = [".*", "out", "build", "dist", "*.egg-info", "__pycache__"]
    ignore = shutil.ignore_patterns(*made)
    return Path(shutil.copytree(PI.parents[1], tmp_path / "checkout", ignore=ignore))


def test_a_device_is_installed_updated_switched_back_and_cleared(
    checkout: Path, tmp_path: Path
) -> None:
    root = tmp_path / "device"
    root.mkdir()
    program, config = root / "opt" / "runout", root / "etc" / "runout" / "agent.toml"

    # A dry run says all of it, and does nothing.
    said = install(root, checkout, "--dry-run")
    assert "would write /etc/runout/agent.toml" in said
    assert list(root.iterdir()) == []

    said = install(root, checkout)
    assert "write /etc/systemd/system/runout-agent.service" in said
    checked = agent(root, "check", "--config", str(config))
    assert checked.returncode == 0, checked.stderr
    assert "state in /var/lib/runout" in checked.stdout
    python = str(program / "venv" / "bin" / "python")
    imported = [python, "-c", "import agent; print(agent.__file__)"]
    where = subprocess.run(imported, capture_output=True, text=True, check=True, cwd=root)
    assert where.stdout.startswith(str(program))  # not the checkout
    assert not (program / "build").exists()
    # What is no Python is easily left out of a wheel: [tool.setuptools.package-data].
    packages = Path(where.stdout.strip()).parents[1]
    for package in ("agent", "contract", "demo", "flowerapp", "server", "simulator"):
        for path in sorted((checkout / package).rglob("*")):
            if path.is_file() and path.name != "py.typed":
                assert (packages / path.relative_to(checkout)).is_file(), path

    # Again: nothing is changed, and nothing is fetched.
    before = tree(root)
    assert "everything is as it should be" in install(root, checkout)
    assert tree(root) == before

    # What the user wrote is never overwritten.
    mine = config.read_text().replace('site = "plant"', 'site = "hall-3"')
    config.write_text(mine)
    assert "agent.toml.new" in install(root, checkout)
    assert config.read_text() == mine
    assert (config.parent / "agent.toml.new").read_text() == (PI / "agent.toml").read_text()
    assert "everything is as it should be" in install(root, checkout)

    # An update stands beside what was there, which is kept for a way back.
    first = (program / "venv").readlink()
    install(root, checkout, "--extra", "modbus")
    second = (program / "venv").readlink()
    assert (program / "venv.previous").readlink() == first != second
    assert "switch back" in install(root, checkout, "--back")
    assert (program / "venv").readlink() == first
    assert agent(root, "--help").returncode == 0

    # One that was cut off is made anew, and older ones are not kept for ever.
    (program / second / "whole").unlink()
    assert "install the program" in install(root, checkout, "--extra", "modbus")
    assert (program / second / "whole").exists()
    with (checkout / "agent" / "__init__.py").open("a") as file:
        file.write("# newer\n")
    install(root, checkout)
    kept = {path.name for path in program.glob("venv-*")}
    assert kept == {(program / "venv").readlink().name, str(second)}

    take_off(root)


@pytest.mark.parametrize(
    ("words", "mend"),
    [
        (["--whele", "x.whl"], "--help says which there are"),
        (["--wheel"], "give it a value"),
        (["--wheel", "/none.whl"], "there is no such file"),
        (["--wheels", "/none"], "there is no such folder"),
        (["--prefix", "opt"], "begins with /"),
        (["--prefix", "/opt/a b"], "letters, digits"),
        (["--back"], "no program before this one"),
        (["--python", "/bin/false"], "missing: python3-venv"),
    ],
    ids=" ".join,
)
def test_a_mistake_is_said_in_one_line_and_changes_nothing(
    words: list[str], mend: str, tmp_path: Path
) -> None:
    done = sh("install.sh", *words, root=tmp_path)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert mend in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_a_network_the_packages_come_from_a_folder_or_the_old_program_stays(
    tmp_path: Path,
) -> None:
    empty = tmp_path / "wheels"
    empty.mkdir()
    root = tmp_path / "device"
    root.mkdir()
    words = ["--python", sys.executable, "--wheels", str(empty)]
    done = sh("install.sh", *words, root=root)
    assert done.returncode == 1
    assert not (root / "opt" / "runout" / "venv").exists()
    assert not (root / "opt" / "runout" / "build").exists()
    assert not (root / "etc").exists()


@pytest.mark.parametrize("script", ["install.sh", "uninstall.sh"])
def test_scripts_are_clean_by_shellcheck(script: str) -> None:
    program = shutil.which("shellcheck")
    if program is None:
        pytest.skip("shellcheck is not installed")
    subprocess.run([program, "--shell=sh", str(PI / script)], check=True)


def test_the_configuration_of_a_device_is_a_good_one() -> None:
    config = load(PI / "agent.toml")
    assert str(config.state) == "/var/lib/runout"
    assert config.keep.power_loss_safe


# -- systemd -------------------------------------------------------------------------------------


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """Return a folder of the units, with a program that is there."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    program = tmp_path / "venv" / "bin" / "runout-agent"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for unit in UNITS:
        text = (PI / unit).read_text().replace("/opt/runout/", f"{tmp_path}/")
        (tmp_path / unit).write_text(text)
    return tmp_path


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_knows_every_word_of_a_unit(unit: str, units: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(units / unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    # An unknown word is only warned of.
    said = [line for line in done.stderr.splitlines() if "runout" in line]
    assert (done.returncode, said) == (0, [])


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_exposes_no_more_than_is_stated(unit: str, units: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(units / unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) <= EXPOSURE[unit], done.stdout


def test_the_agent_starts_without_a_network_and_again_whenever_it_ends() -> None:
    text = (PI / "runout-agent.service").read_text()
    said = dict(line.split("=", 1) for line in text.splitlines() if re.match(r"\w+=", line))
    assert "network" not in text.replace("# No network is waited for", "")
    assert (said["Type"], said["Restart"], said["StartLimitIntervalSec"]) == (
        "notify",
        "always",
        "0",
    )
    assert (said["WatchdogSec"], said["StartLimitIntervalSec"]) == ("3min", "0")


# -- the broker ----------------------------------------------------------------------------------


def test_mosquitto_takes_the_drop_in_beside_debians_own_configuration(tmp_path: Path) -> None:
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("mosquitto is not on PATH, and CI must run these tests")
        pytest.skip("mosquitto is not on PATH")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (tmp_path / "conf.d").mkdir()
    shutil.copy(PI / "mosquitto-runout.conf", tmp_path / "conf.d" / "runout.conf")
    main = tmp_path / "mosquitto.conf"
    main.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nuser {getpass.getuser()}\n"
        f"persistence true\npersistence_location {tmp_path}/\n"
        f"include_dir {tmp_path}/conf.d\n"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([program, "-c", str(main)], stderr=pipe, text=True) as broker:
        assert broker.stderr is not None
        said = [next(broker.stderr)]
        while not re.search(r"running|rror", said[-1]):
            said.append(next(broker.stderr))
        if "running" in said[-1]:
            # It says so before its loop begins, and a signal that comes between is forgotten.
            with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
                client.sendall(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01t")
                assert client.recv(4)
        broker.send_signal(signal.SIGTERM)
        broker.communicate()
    assert "running" in said[-1], said
    assert (tmp_path / "mosquitto.db").exists()


# -- limits --------------------------------------------------------------------------------------

WITHOUT_WRITABLE_CODE = f"""
import ctypes, os, sys
if ctypes.CDLL(None, use_errno=True).prctl({_PR_SET_MDWE}, 1, 0, 0, 0):
    sys.exit(77)
os.execv(sys.argv[1], sys.argv[1:])
"""
WRITABLE_CODE = "import mmap; mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC)"


def test_numpy_works_where_no_memory_may_be_written_and_run(tmp_path: Path) -> None:
    """Check MemoryDenyWriteExecute, by the kernel's own means, on models that learn and judge."""
    if ctypes.CDLL(None).prctl(_PR_SET_MDWE + 1, 0, 0, 0, 0) < 0:
        pytest.skip("this kernel is before 6.3: it cannot deny it to a process")
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(400, 2)) + np.array([5.0, 40.0])
    recording = tmp_path / "pump-1.csv"
    lines = [f"{1_700_000_000 + 60 * i},{a:.3f},{b:.3f}" for i, (a, b) in enumerate(rows)]
    recording.write_text("\n".join(["t,vibration,temperature", *lines]) + "\n")

    def denied(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", WITHOUT_WRITABLE_CODE, *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )

    assert "PermissionError" in denied(sys.executable, "-c", WRITABLE_CODE).stderr
    program = str(Path(sys.executable).with_name("runout-agent"))
    config = ["--config", str(PI / "agent.toml"), "--asset", "pump-1"]
    done = denied(program, "replay", str(recording), *config)
    assert done.returncode == 0, done.stderr
    assert "400 rows of 1 assets" in done.stdout
