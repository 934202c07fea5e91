"""What the documents say is so."""

import argparse
import ast
import inspect
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from assetd import cli, config, control, registry
from assetd.processor import Processor

ROOT: Final = Path(__file__).resolve().parents[1]
README: Final = ROOT / "README.md"
CONFIGURATION: Final = ROOT / "docs" / "configuration.md"

FENCE: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OURS: Final = "assetd_processors."
LINK: Final = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
OTHER_FILE: Final = re.compile(r"# (\S+\.\S+)\n")
HEADING: Final = re.compile(r"^#+ +(.*)$", re.MULTILINE)

PLACES_THAT_ARE_NOBODY_ELSES: Final = {
    "a package registry": re.compile(
        r"https?://[\w.@:-]*\b(pypi|npmjs|pythonhosted|registry|artifactory|nexus|devpi)\b"
    ),
    "a home folder": re.compile(r"(?<![\w.}*$-])/(home|Users|root|work)/\w"),
    "this checkout": re.compile(re.escape(str(ROOT)) + r"\b"),
}
"""What works on one machine only, or sends people's installs to somebody's server."""


def tracked() -> list[Path]:
    """The files that git has, or would have if it were told; all of them outside a checkout."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a checkout: nothing is tracked")
    files = (ROOT / os.fsdecode(name) for name in listed.stdout.split(b"\0") if name)
    return [file for file in files if file.is_file()]


def documents() -> list[Path]:
    return sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def examples(file: Path, language: str) -> list[str]:
    """The fenced blocks of one language in a document."""
    return [text for name, text in FENCE.findall(file.read_text()) if name == language]


def commands() -> set[str]:
    (subparsers,) = (
        action for action in cli.parser()._actions if isinstance(action, argparse._SubParsersAction)
    )
    return {name for name in subparsers.choices if not name.startswith("_")}


def make_targets() -> set[str]:
    """The targets of the Makefile that explain themselves in `make help`."""
    return set(re.findall(r"^([a-z-]+):.*  ## ", (ROOT / "Makefile").read_text(), re.MULTILINE))


def keys(schema: Mapping[str, Any]) -> Iterator[str]:
    """Every key that the JSON Schema allows, at any depth."""
    for name, value in schema.items():
        if name == "properties":
            yield from value
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, dict):
                yield from keys(inner)


def processors() -> dict[str, Processor]:
    """The built-in processors that are here, by name."""
    found = (point.load() for point in entry_points(group=registry.GROUP))
    return {each.name: each for each in found if each.process.__module__.startswith(OURS)}


def anchors(file: Path) -> set[str]:
    """What a link into the document may name behind `#`."""
    titles = HEADING.findall(FENCE.sub("", file.read_text()))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_readme_names_every_command() -> None:
    """A command that the README does not have is found by nobody."""
    described = set(re.findall(r"^### `assetd (\w+)", README.read_text(), re.MULTILINE))
    assert described == commands()


@pytest.mark.parametrize("file", documents(), ids=lambda f: f.name)
def test_examples_use_commands_that_exist(file: Path) -> None:
    """Nobody types in a command from the documents and is told that there is none."""
    used = {
        name
        for text in examples(file, "console")
        for line in text.splitlines()
        if line.startswith("$ ")
        for name in re.findall(r"\bassetd (?:-C \S+ )?([a-z]+)", line.partition(" # ")[0])
    }
    assert used - commands() == set()


def told_events() -> set[str]:
    """The events that the daemon's code tells, by the first argument of whoever tells them."""
    tellers = {"tell", "_tell", "on_event", "_on_event", "everyone", "hear"}
    return {
        call.args[0].value
        for file in (ROOT / "daemon" / "assetd").glob("*.py")
        for call in ast.walk(ast.parse(file.read_text()))
        if isinstance(call, ast.Call)
        and getattr(call.func, "attr", getattr(call.func, "id", None)) in tellers
        and call.args
        and isinstance(call.args[0], ast.Constant)
        and isinstance(call.args[0].value, str)
        # A service manager is told in capitals.
        and re.fullmatch("[a-z_]+", call.args[0].value)
    }


def test_the_protocol_page_has_every_request_and_every_event() -> None:
    """Whoever writes a client has only that page."""
    text = (ROOT / "docs" / "control-protocol.md").read_text()
    rows = re.findall(r"^\| (`.*?`) \|", text, re.MULTILINE)
    described = {name for row in rows for name in re.findall(r"`([a-z_]+)`", row)}
    served = set(re.findall(r'case "(\w+)"|\| "(\w+)" as', inspect.getsource(control.Control)))
    assert {name for pair in served for name in pair if name} - described == set()
    assert told_events() - described == set()


def test_the_readme_names_every_make_target() -> None:
    """`make help` and the README list the same."""
    described = set(re.findall(r"^\| `make ([\w-]+)` \|", README.read_text(), re.MULTILINE))
    assert described == make_targets()


def test_the_readme_begins_with_the_two_commands() -> None:
    """Whoever clones this wants to see it run, and then to see it tested."""
    first = examples(README, "console")[0]
    assert re.findall(r"^\$ (make \w+)", first, re.MULTILINE) == ["make run", "make test"]


def test_the_configuration_page_has_every_key() -> None:
    """Each key has a heading of its own, or a row in the table of its processor."""
    text = CONFIGURATION.read_text() + (ROOT / "docs" / "processors.md").read_text()
    described = set(re.findall(r"^#+ (\w+)$", text, re.MULTILINE))
    described |= set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    sections = {name: processor.options for name, processor in processors().items()}
    assert set(keys(config.schema(sections))) - described == set()


def test_the_examples_of_the_configuration_page_are_configurations() -> None:
    """But for those that say in their first line which other file they are."""
    known = processors()
    for text in examples(CONFIGURATION, "yaml"):
        other = OTHER_FILE.match(text)
        if other is None or other[1] in config.FILE_NAMES:
            draft = config.parse(text.encode(), "assetd.yml")
            assert draft.problems == (), text
            for name, section in draft.sections.items():
                options = {option.name: option for option in known[name].options}
                for key, value in section.values.items():
                    registry.checked(options[key], value)


@pytest.mark.parametrize("file", documents(), ids=lambda f: f.name)
def test_yaml_examples_parse(file: Path) -> None:
    """An example that is pasted works."""
    for text in examples(file, "yaml"):
        assert isinstance(yaml.safe_load(text), dict), text


def test_the_processor_of_the_guide_is_one() -> None:
    """The example that people start from is a processor as it stands."""
    text, *_ = examples(ROOT / "docs" / "writing-a-processor.md", "python")
    names: dict[str, Any] = {}
    exec(compile(text, "banner.py", "exec"), names)
    (banner,) = (value for value in names.values() if isinstance(value, Processor))
    assert banner.matches("js/app.js", {})
    assert banner.outputs("js/app.js", {}).primary == ("js/app.js",)


@pytest.mark.parametrize("file", documents(), ids=lambda f: f.name)
def test_links_between_documents_lead_somewhere(file: Path) -> None:
    """Files and headings that are linked to are there."""
    broken = []
    for link in LINK.findall(FENCE.sub("", file.read_text())):
        path, _, anchor = link.partition("#")
        if ":" in path:
            continue  # elsewhere on the net: no business of a test
        target = (file.parent / path) if path else file
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_nothing_tracked_names_a_place_of_ours() -> None:
    """A clone installs from where its owner says, and works in any folder."""
    found = [
        f"{file.relative_to(ROOT)}: {what}: {match.group()}"
        for file in tracked()
        for what, pattern in PLACES_THAT_ARE_NOBODY_ELSES.items()
        for match in [pattern.search(file.read_text(errors="replace"))]
        if match
    ]
    assert found == [], "\n".join(found)
