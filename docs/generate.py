"""Write the reference pages from what the programs themselves hold; ``--check``: are they current?

``docs/reference/config.md`` is made of the structures that read the TOML files, their defaults and
their docstrings; ``docs/reference/cli.md`` of each command's ``--help``; ``docs/adr/index.md`` of
the first line of each decision.
"""

import argparse
import inspect
import os
import re
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path

import msgspec

import agent.cli
import server.cli
import simulator.cli
from agent.config import AgentConfig
from agent.files.table import Table
from server.config import ServerConfig
from simulator.config import Scenario

DOCS = Path(__file__).parent
FILES: tuple[tuple[str, type[msgspec.Struct]], ...] = (
    ("The agent", AgentConfig),
    ("The server", ServerConfig),
    ("A scenario of the simulator", Scenario),
    ("A table for `runout-agent replay --format`", Table),
)
PROGRAMS = (
    ("runout-agent", agent.cli),
    ("runout-server", server.cli),
    ("runout-simulator", simulator.cli),
)
_PLAIN = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    type(None): "absent",
    types.NoneType: "absent",
}
_BOUNDS = (("ge", "at least"), ("gt", "above"), ("le", "at most"), ("lt", "below"))


def parts(hint: object) -> Iterator[type[msgspec.Struct]]:
    """Yield the tables that stand in a type."""
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        yield hint
    for argument in typing.get_args(hint):
        yield from parts(argument)


def words(hint: object, titles: dict[type, str]) -> str:
    """Say a type in words.

    >>> words(tuple[str, ...], {}), words(int | None, {}), words(typing.Literal[0, 1], {})
    ('list of text', 'whole number, or absent', '`0`, `1`')
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in titles:
        return f"[{titles[hint]}](#{anchor(titles[hint])})"
    if hint in _PLAIN:
        return _PLAIN[hint]
    if origin is typing.Annotated:
        said = [
            f"{text} {_number(getattr(meta, key))}"
            for meta in arguments[1:]
            for key, text in _BOUNDS
            if getattr(meta, key, None) is not None
        ]
        return ", ".join([words(arguments[0], titles), *said])
    if origin is typing.Literal:
        return ", ".join(f"`{_value(value)}`" for value in arguments)
    if origin in {typing.Union, types.UnionType}:
        return ", or ".join(words(argument, titles) for argument in arguments)
    if origin is tuple and arguments[-1] is not Ellipsis:
        return "[" + ", ".join(words(argument, titles) for argument in arguments) + "]"
    if origin in {tuple, list}:
        return f"list of {words(arguments[0], titles)}"
    if origin is dict:
        return f"table of {words(arguments[1], titles)}"
    return f"`{getattr(hint, '__name__', hint)}`"


def anchor(title: str) -> str:
    """Return the anchor that Markdown gives a heading.

    >>> anchor("A scenario: `machine`")
    'a-scenario-machine'
    """
    return re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower())


def meanings(table: type[msgspec.Struct]) -> dict[str, str]:
    """Return what the docstring's ``Attributes`` say of each key."""
    doc = inspect.getdoc(table) or ""
    _, _, text = doc.partition("Attributes:\n")
    text = text.partition("\n\n")[0]
    found = re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", text, re.MULTILINE)
    return {name: _markdown(" ".join(said.split())) for name, said in found}


def _markdown(text: str) -> str:
    return text.replace("``", "`").replace("|", "\\|")


def _number(value: float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _value(value: object) -> str:
    if isinstance(value, msgspec.Struct):
        return "the table's own"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, str):
        return f'"{value}"'
    return _number(value) if isinstance(value, int | float) else str(value)


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.default is not msgspec.NODEFAULT:
        value = field.default
    elif field.default_factory is not msgspec.NODEFAULT:
        value = field.default_factory()
    else:
        return "**needed**"
    if isinstance(value, msgspec.Struct):
        return ""
    return "" if value is None or value == {} else f"`{_value(value).replace('|', chr(92) + '|')}`"


def keys(title: str, root: type[msgspec.Struct]) -> str:
    """Return the chapter of one file: a section a table, a row a key."""
    titles: dict[type, str] = {root: title}
    queue: list[type[msgspec.Struct]] = [root]
    for table in queue:
        for hint in typing.get_type_hints(table, include_extras=True).values():
            for part in parts(hint):
                if part not in titles:
                    name = part.__name__
                    titles[part] = f"{title.replace('`', '')}: {name}"
                    queue.append(part)
    out = []
    for table in queue:
        hints = typing.get_type_hints(table, include_extras=True)
        said = meanings(table)
        first = (inspect.getdoc(table) or "").partition("\n")[0]
        out += [f"\n{'##' if table is root else '###'} {titles[table]}\n", _markdown(first), ""]
        info = msgspec.structs.fields(table)
        tag = table.__struct_config__.tag
        if not info and tag is None:
            continue
        out += ["| key | value | default | meaning |", "|---|---|---|---|"]
        if tag is not None:
            field = table.__struct_config__.tag_field
            out.append(f"| `{field}` | `{_value(tag)}` | **needed** | which of the kinds this is |")
        out += [
            f"| `{f.encode_name}` | {words(hints[f.name], titles)} | {_default(f)} "
            f"| {said.get(f.name, '')} |"
            for f in info
        ]
    return "\n".join(out) + "\n"


def config_page() -> str:
    """Return the page of all keys."""
    head = (
        "# Every key of every file\n\n"
        "Made by `docs/generate.py` from the structures that read the files, so it is what the "
        "programs take. A key that stands in none of these tables is refused, by its name. "
        "Commented examples are in the folder `configs/`.\n"
    )
    return head + "".join(keys(title, root) for title, root in FILES)


def helps(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    """Yield each command's name and help, the program's own first."""
    yield parser.prog, parser.format_help()
    for action in parser._actions:  # noqa: SLF001  # argparse has no other way to ask
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for sub in action.choices.values():
                yield from helps(sub)


def cli_page() -> str:
    """Return the page of all commands."""
    os.environ |= {"COLUMNS": "96", "USER": ""}
    os.environ.pop("FORCE_COLOR", None)
    out = ["# Every command", "", "Made by `docs/generate.py` from each command's `--help`."]
    for name, module in PROGRAMS:
        out += ["", f"## {name}"]
        for prog, text in helps(module._parser()):  # noqa: SLF001
            if prog != name:
                out += ["", f"### {prog}"]
            out += ["", "```text", text.rstrip(), "```"]
    return "\n".join(out) + "\n"


def adr_page() -> str:
    """Return the index of decisions."""
    out = [
        "# Decisions",
        "",
        "What was decided, why, and what it costs; a page each. Made by `docs/generate.py`.",
        "",
        "| | decision |",
        "|---|---|",
    ]
    for path in sorted((DOCS / "adr").glob("[0-9]*.md")):
        title = path.read_text().partition("\n")[0].lstrip("# ")
        title = re.sub(r"^(ADR )?[0-9]+[.:]? *", "", title)
        out.append(f"| {path.name[:4]} | [{title}]({path.name}) |")
    return "\n".join(out) + "\n"


PAGES = {
    "reference/config.md": config_page,
    "reference/cli.md": cli_page,
    "adr/index.md": adr_page,
}


def main() -> int:
    """Write the pages, or with ``--check`` say which are not current (1)."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if one is old")
    check = parser.parse_args().check
    old = []
    for name, page in PAGES.items():
        path, text = DOCS / name, page()
        if path.is_file() and path.read_text() == text:
            continue
        old.append(name)
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
            print(f"wrote docs/{name}")
    if check and old:
        print(f"not current: {', '.join(old)}: run python docs/generate.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
