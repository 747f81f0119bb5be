"""Where the recordings are that benchmarks are tried on."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def recordings() -> Path:
    """Return the folder of recordings; without it a test is skipped, or fails in CI."""
    folder = (ROOT / os.environ.get("RUNOUT_DATA", "../shared/data")).resolve()
    if not folder.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"{folder} is absent, and CI must run these tests: set RUNOUT_DATA")
        pytest.skip(f"{folder} is absent: set RUNOUT_DATA to the recordings")
    return folder
