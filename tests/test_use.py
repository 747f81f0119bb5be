"""The example for data scientists runs on a registry's file, and imports no more than numpy."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from contract import VERSION
from contract.model_spec import Ridge
from contract.models.moments import HealthModel, Moments
from contract.models.ridge import Basis, width
from contract.release import Manifest, Release
from contract.spec import AssetClass, Channel
from server.registry import Registry

ROOT = Path(__file__).parents[1]


def test_the_example_of_a_model_as_a_dependency_runs_and_imports_numpy_and_msgspec_alone(
    tmp_path: Path,
) -> None:
    spec = AssetClass(
        "pump",
        (Channel("vibration", "mm/s"), Channel("temperature", "degC")),
        stats=("mean_8", "std_8"),
        rul=(Ridge(random=5),),
    )
    X = np.random.default_rng(1).normal(size=(100, 4))
    arrays = {
        **HealthModel.solve(Moments.of(X), variance=0.9, alarm_rate=0.01).arrays("health/model/"),
        **Basis.of(Moments.of(X, diagonal=True)).arrays(),
        "ridge/coefficients": np.full(width(4, Ridge(random=5)), 3.0),
    }
    registry = Registry(tmp_path, "pump")
    registry.register(Release(Manifest(VERSION, spec, 1, 0, 0, ("a",), "ridge", {}), arrays))
    text = (ROOT / "docs" / "use.md").read_text(encoding="utf-8")
    found = re.search(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert found is not None
    before = "import sys, numpy, msgspec; alone = set(sys.modules)"
    after = (
        "new = {name.partition('.')[0] for name in set(sys.modules) - alone}\n"
        "print(sorted(n for n in new - sys.stdlib_module_names if 'cython' not in n))"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{before}\n{found[1]}\n{after}"],
        cwd=registry.folder,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "pump version 1"
    assert lines[1].endswith("hours left")
    assert lines[2].endswith("times the limit of healthy")
    assert lines[3] == "['contract', 'numpy']"  # of numpy itself what it loads when it is needed
