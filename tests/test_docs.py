"""What the documentation shows is what the programs take."""

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from agent.config import AgentConfig
from agent.features.burst import BurstFeatures
from contract.config import load_toml

ROOT = Path(__file__).parents[1]
CLASS = """
[[asset_class]]
name = "fan"
channels = [
  { name = "speed", unit = "rpm" },
  { name = "load", unit = "%" },
  { name = "frequency", unit = "Hz" },
]
"""


def blocks() -> list[tuple[str, str]]:
    """Return every TOML block of the agent's documentation, with where it stands."""
    found = []
    for path in sorted((ROOT / "docs").glob("*.md")):
        for match in re.finditer(
            r"^```toml\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE
        ):
            line = path.read_text()[: match.start()].count("\n") + 1
            found.append((f"{path.name}:{line}", match[1]))
    return found


@pytest.mark.parametrize(("where", "text"), blocks(), ids=[where for where, _ in blocks()])
def test_a_configuration_in_the_documentation_is_one_that_the_agent_takes(
    where: str, text: str, tmp_path: Path
) -> None:
    del where
    raw = tomllib.loads(text)
    if isinstance(raw.get("asset_class"), dict):  # a table of the class above it
        text = CLASS + text
    elif "asset_class" not in raw:
        text += CLASS
    path = tmp_path / "agent.toml"
    path.write_text(text)
    config = load_toml(path, AgentConfig)
    for spec in config.asset_class:
        for wave in spec.waveforms:
            BurstFeatures(wave)
    read = msgspec.json.decode(msgspec.json.encode(config), type=AgentConfig)
    assert read == config
