"""The benchmark of features runs, with whatever peers there are, and ends in one line of JSON."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_benchmark_ends_in_one_line_of_json() -> None:
    command = [sys.executable, "-m", "benchmarks.features", "--seconds", "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    for key in ("us_hop16", "us_hop64", "us_hop64_stacked64", "vibration_blocks_per_s"):
        assert result[key] > 0
    assert result["times_river"] is None or result["times_river"] > 0
    assert isinstance(result["seed"], int)
