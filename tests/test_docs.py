"""What the documentation shows is what the programs take."""

import ast
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


def assertions() -> list[tuple[str, str, str]]:
    """Return what the documentation says of each of Sparkplug's assertions: id, word, how."""
    text = (ROOT / "docs/sparkplug.md").read_text()
    return re.findall(
        r"^\| `([\w-]+)` \| (covered|not applicable|not done) \| (.+) \|$", text, re.MULTILINE
    )


def test_an_assertion_of_sparkplug_that_is_called_covered_is_named_by_that_test() -> None:
    named: dict[str, set[str]] = {}
    for path in (ROOT / "tests/agent/decode").glob("test_sparkplug_*.py"):
        kind = path.stem.removeprefix("test_sparkplug_")
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef):
                ids = re.findall(r"tck-id-([\w-]+)", ast.get_docstring(node) or "")
                named[f"{kind}: `{node.name}`"] = {*ids}
    told = {(name, how) for name, word, how in assertions() if word == "covered"}
    assert told == {(name, how) for how, ids in named.items() for name in ids}
    assert len(told) > 200


def test_the_table_of_sparkplugs_assertions_holds_all_of_them_once() -> None:
    text = (ROOT / "docs/sparkplug.md").read_text()
    apart = re.findall(
        r"^## [^\n]+, not applicable\n(.+?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL
    )
    ids = [name for name, _, _ in assertions()]
    ids += [name for part in apart for name in re.findall(r"`([a-z][\w-]+)`", part)]
    assert len(ids) == len(set(ids)) == 299
