"""`postcss` makes what the command line of PostCSS with Autoprefixer makes."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from assetd.processor import Names
from assetd_processors.postcss import postcss

if TYPE_CHECKING:
    from tests.processors.conftest import Bench, CommandLine

pytestmark = pytest.mark.usefixtures("tools")

OPTIONS: dict[str, Any] = {option.name: option.default for option in postcss.options}
STYLE = "a { user-select: none; display: grid }\n::placeholder { color: gray }\n"


@pytest.fixture
def cli(cli: "CommandLine", node_modules: Path) -> "CommandLine":
    """Its command line is a package of its own."""
    return type(cli)(node_modules / ".bin", cli.folder)


def test_it_is_for_those_who_name_it() -> None:
    """Chains stay predictable: `all` does not mean it."""
    assert not postcss.default
    assert postcss.matches("a.css", OPTIONS)
    assert postcss.outputs("a.css", OPTIONS | {"source_map": True}) == Names(
        ("a.css",), ("a.css.map",)
    )


def test_bootstrap_is_that_of_the_command_line(
    bench: "Bench", cli: "CommandLine", node_modules: Path
) -> None:
    """Byte for byte, and again from a warm one."""
    text = (node_modules / "bootstrap-5/dist/css/bootstrap.css").read_bytes()
    bench.write({"assets/b.css": text, ".browserslistrc": "safari 9\n"})
    cli("postcss", "assets/b.css", "--no-map", "--use", "autoprefixer", "-o", "out.css")
    for _ in range(2):
        assert bench.text(postcss, "b.css").encode() == cli.file("out.css")


def test_browsers_decide_which_prefixes_are_needed(bench: "Bench") -> None:
    """They take the place of a configuration that lies about."""
    bench.write({"assets/a.css": STYLE, ".browserslistrc": "ie 11\n"})
    assert "-ms-user-select" in bench.text(postcss, "a.css")
    assert "-ms-" not in bench.text(postcss, "a.css", browsers=["safari 9"])
    assert "-webkit-user-select" in bench.text(postcss, "a.css", browsers=["safari 9"])


def test_without_plugins_nothing_changes(bench: "Bench") -> None:
    """Autoprefixer is the one that there is."""
    bench.write({"assets/a.css": STYLE})
    assert bench.text(postcss, "a.css", plugins=[]) == STYLE


def test_the_configuration_of_browserslist_is_a_dependency(bench: "Bench") -> None:
    """The one that is there, and every place where one would have come first."""
    bench.write({"assets/css/a.css": STYLE, ".browserslistrc": "safari 9\n"})
    told = bench.told(postcss, "css/a.css")
    assert told[".browserslistrc"]
    assert told["assets/css/.browserslistrc"] is False
    assert told["assets/package.json"] is False
    before = bench.text(postcss, "css/a.css")
    bench.write({"assets/css/.browserslistrc": "ie 11\n"})
    assert bench.text(postcss, "css/a.css") != before, "a warm one must not remember it"


def test_an_error_has_its_place(bench: "Bench") -> None:
    """Counted from 1."""
    bench.write({"assets/a.css": "a { b: c }\n.d { e: f\n"})
    wrong, _ = bench.refuse(postcss, "a.css")
    assert (wrong.message, wrong.file, wrong.line, wrong.column) == (
        "Unclosed block",
        "assets/a.css",
        2,
        1,
    )


def test_a_query_that_browserslist_does_not_know_is_told(bench: "Bench") -> None:
    """With its own words."""
    bench.write({"assets/a.css": STYLE})
    wrong, _ = bench.refuse(postcss, "a.css", browsers=["netscape 4"])
    assert "Unknown browser netscape" in wrong.message


def test_the_map_leads_back_through_the_one_before(bench: "Bench") -> None:
    """A map is made beside the output, and holds the source."""
    bench.write({"assets/a.css": STYLE})
    made = bench.make(postcss, "a.css", source_map=True)
    assert made["a.css"].endswith(b"/*# sourceMappingURL=a.css.map */")
    assert json.loads(made["a.css.map"])["sourcesContent"] == [STYLE]
    first = {"version": 3, "sources": ["a.less"], "names": [], "mappings": "AAAA"}
    bench.write({"made.css": STYLE, "made.css.map": json.dumps(first)})
    desk = bench.run(
        postcss,
        "a.css",
        bench.project / "made.css",
        {"a.css.map": bench.project / "made.css.map"},
        source_map=True,
    )
    assert "a.less" in json.loads(Path(desk.staged["a.css.map"]).read_text())["sources"]
