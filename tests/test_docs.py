"""What the documentation shows is what the programs take."""

import ast
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import get_args
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from agent import cli, commands
from agent.config import (
    AgentConfig,
    Federation,
    HomeAssistant,
    Keep,
    Learning,
    Limits,
    Mqtt,
    Node,
    Report,
    Web,
)
from agent.features.burst import BurstFeatures
from agent.notify import Apprise, Webhook
from contract import topics
from contract.config import load_toml
from contract.report import Alert, AlertState, AlertWord
from contract.spec import AssetClass
from server.config import load as load_server
from server.wave import Policy

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
        if path.name == "fleet.md":  # the server's
            continue
        for match in re.finditer(
            r"^```toml\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE
        ):
            line = path.read_text()[: match.start()].count("\n") + 1
            found.append((f"{path.name}:{line}", match[1]))
    return found


@pytest.mark.parametrize(("where", "text"), blocks(), ids=[where for where, _ in blocks()])
def test_a_configuration_in_the_documentation_is_one_that_the_agent_takes(
    where: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del where
    raw = tomllib.loads(text)
    if "service" in raw:  # the server's
        text = text.replace("0.0.0.0", "127.0.0.1")  # noqa: S104  # beyond loopback: files
        (tmp_path / "server.toml").write_text(text)
        assert load_server(tmp_path / "server.toml").service.most_rows == 10_000
        return
    if "scores" in raw:  # the server's, too
        monkeypatch.chdir(ROOT)
        (tmp_path / "server.toml").write_text(text)
        scores = load_server(tmp_path / "server.toml").scores
        assert scores is not None
        assert scores.every_s == 3600.0
        return
    if "parent" in raw:  # the server's, too
        (tmp_path / "server.toml").write_text(text)
        above = load_server(tmp_path / "server.toml").parent
        assert above is not None
        assert above.name == "region-north"
        return
    if "waves" in raw:  # the server's, too
        (tmp_path / "server.toml").write_text(text)
        assert load_server(tmp_path / "server.toml").waves == Policy(canary=2)
        return
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


# -- alerts.md and agent.md ------------------------------------------------------------------------

ALERTS = (ROOT / "docs" / "alerts.md").read_text()
AGENT = (ROOT / "docs" / "agent.md").read_text()


def command_lines(program: str) -> list[list[str]]:
    """Return the words of each line of a program's in a block of alerts.md."""
    found = re.findall(r"^```sh\n(.*?)^```", ALERTS, re.DOTALL | re.MULTILINE)
    lines = [shlex.split(line) for text in found for line in text.splitlines()]
    return [words for words in lines if words[0] == program]


@pytest.mark.parametrize("words", command_lines("mosquitto_pub"), ids=" ".join)
def test_a_message_in_the_documentation_is_understood(words: list[str]) -> None:
    topic = topics.parse(words[words.index("-t") + 1])
    assert commands.decode(topic.leaf, words[words.index("-m") + 1].encode(), 0)[1]


@pytest.mark.parametrize("words", command_lines("curl"), ids=" ".join)
def test_what_is_posted_in_the_documentation_is_understood(words: list[str]) -> None:
    url = urlsplit(next(word for word in words if word.startswith("http://")))
    (leaf,) = parse_qs(url.query)["channel"]
    assert url.path == "/v1/readings"
    assert commands.decode(leaf, words[words.index("-d") + 1].encode(), 0)[1]


@pytest.mark.parametrize("words", command_lines("runout-agent"), ids=" ".join)
def test_a_command_in_the_documentation_is_one(words: list[str]) -> None:
    assert cli._parser().parse_args(words[1:]).do


def test_each_form_of_what_people_say_is_in_the_table() -> None:
    rows = re.findall(r"^\| `/(\w+)` \| (.*) \|$", ALERTS, re.MULTILINE)
    said = [(leaf, text) for leaf, text in rows if leaf in topics.SPOKEN]
    for leaf, text in said:
        payload = re.search(r"`(\{.*?\})`", text)
        assert payload is not None
        commands.decode(leaf, payload[1].encode(), 0)
    assert {leaf for leaf, _ in said} == topics.SPOKEN


def test_the_alert_in_the_documentation_is_one_with_all_its_fields() -> None:
    found = re.search(r"^```json\n(.*?)^```", ALERTS, re.DOTALL | re.MULTILINE)
    assert found is not None
    told = msgspec.json.decode(found[1], type=Alert)
    shown = msgspec.json.decode(found[1])
    assert told.text.endswith(f"[{told.id}]")
    assert shown.keys() >= {f.name for f in msgspec.structs.fields(Alert)} - {"replayed"}


def test_each_state_and_each_change_of_an_alert_is_explained() -> None:
    for word in {*get_args(AlertWord), *get_args(AlertState)}:
        assert f"`{word}`" in ALERTS


@pytest.mark.parametrize(
    "table",
    [
        AgentConfig, AssetClass, Node, Mqtt, Keep, Limits, Learning, Report, Federation, Web,
        HomeAssistant, Webhook, Apprise,
    ],
    ids=lambda table: table.__name__,
)  # fmt: skip
def test_every_key_of_the_configuration_is_explained(table: type[msgspec.Struct]) -> None:
    tables = {"node", "mqtt", "keep", "limits", "learning", "report", "federation", "web"}
    for field in msgspec.structs.fields(table):
        name = field.encode_name
        if table is AgentConfig and name in {*tables, "home_assistant"}:
            assert f"### [{name}]" in AGENT
        elif name == "notify":
            assert "### [[notify]]" in AGENT
        else:
            assert f"`{name}`" in AGENT, name


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


def test_the_generated_pages_are_current() -> None:
    ran = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr


def test_the_site_is_built_with_every_link_checked_and_fetches_nothing(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(tmp_path)],
        cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 40
    fetched = re.compile(r"<(?:script|img|iframe)[^>]+src=\"?https?:|<link[^>]+href=\"?https?:")
    for page in pages:
        assert not fetched.search(page.read_text()), page


def test_every_file_that_the_readme_and_the_manual_name_is_there() -> None:
    for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text()):
            if "://" not in target:
                assert (path.parent / target).exists(), f"{path.name}: {target}"
