"""A command decides how many threads linear algebra has; numpy looks only as it is imported."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["agent.cli", "contract", "contract.config", "contract.errors"])
def test_numpy_is_not_imported_before_a_command_has_set_its_threads(module: str) -> None:
    code = f"import sys, {module}; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def test_what_the_contract_exports_is_there_and_nothing_else_is() -> None:
    import contract
    from contract import release

    assert contract.Release is release.Release
    assert contract.load_model is release.load_model
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = contract.nothing
