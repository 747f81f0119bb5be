"""What travels to the devices: three thin files, and the same whoever submits it."""

import os
import subprocess
import tomllib
import zipfile
from pathlib import Path

import pytest

from server import bundle
from server.superlink import program

ROOT = Path(__file__).parents[2]
OURS = {f"flowerapp/{name}" for name in bundle.FILES}


def fab_of(app: Path, out: Path) -> set[str]:
    """Build as Flower does when a run is submitted; returns the names of the files."""
    quiet = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    built = subprocess.run(
        [program("flwr"), "build", "--app", str(app)],
        cwd=out,
        env=os.environ | quiet | {"FLWR_HOME": str(out / "flwr")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (fab,) = out.glob("*.fab")
    with zipfile.ZipFile(fab) as archive:
        return {name for name in archive.namelist() if not name.startswith(".info/")}


@pytest.mark.flower
def test_the_fab_of_the_server_holds_three_files(tmp_path: Path) -> None:
    bundle.write(tmp_path / "app")
    (tmp_path / "out").mkdir()
    assert fab_of(tmp_path / "app", tmp_path / "out") - {"pyproject.toml", "LICENSE"} == OURS


@pytest.mark.flower
def test_the_fab_of_the_project_holds_the_same(tmp_path: Path) -> None:
    assert fab_of(ROOT, tmp_path) - {"pyproject.toml", "LICENSE"} == OURS


def test_the_project_and_the_server_describe_the_same_app() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["flwr"]
    assert tomllib.loads(bundle.pyproject())["tool"]["flwr"] == project


def test_the_app_is_replaced_whole(tmp_path: Path) -> None:
    stale = tmp_path / "app" / "flowerapp" / "agent.py"
    stale.parent.mkdir(parents=True)
    stale.write_text("raise SystemExit")
    bundle.write(tmp_path / "app")
    assert not stale.exists()
