"""`uglifyjs` makes what UglifyJS's command line makes."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from assetd.processor import Names
from assetd.testing import Site
from assetd_processors.uglifyjs import uglifyjs

if TYPE_CHECKING:
    from tests.processors.conftest import Bench, CommandLine

pytestmark = pytest.mark.usefixtures("tools")

OPTIONS: dict[str, Any] = {option.name: option.default for option in uglifyjs.options}
SCRIPT = """/** @license of the script */
function add(first, second) {
  if (false) first = 0;
  return first + second;
}
add(1 + 2);
"""


def test_the_output_has_the_name_of_the_input() -> None:
    """With a map beside it where one is asked for."""
    assert uglifyjs.outputs("a/x.js", OPTIONS) == Names(("a/x.js",))
    assert uglifyjs.outputs("a/x.js", OPTIONS | {"source_map": True}) == Names(
        ("a/x.js",), ("a/x.js.map",)
    )


def test_what_is_small_already_is_not_taken(tmp_path: Path) -> None:
    """By its name, as the ancestor knew it: such a file goes on as it is."""
    names = ("a.js", "b.JS", "c.min.js", "d.MIN.JS", "min.js", "amin.js", "e.mjs", "f.json")
    assert [n for n in names if uglifyjs.matches(n, OPTIONS)] == [
        "a.js",
        "b.JS",
        "min.js",
        "amin.js",
    ]
    (tmp_path / "site").mkdir()
    site = Site(tmp_path / "site", "mounts: {assets: {processors: all}}\n")
    for name in ("assets/a.js", "assets/a.min.js"):
        site.write(name, SCRIPT)
    site.build()
    assert site.output("a.min.js") == SCRIPT
    assert site.output("a.js") == "function add(d,n){return d+n}add(3);"


def test_jquery_is_that_of_the_command_line(
    bench: "Bench", cli: "CommandLine", node_modules: Path
) -> None:
    """Byte for byte, and again from a warm one."""
    bench.write({"assets/jquery.js": (node_modules / "jquery/dist/jquery.js").read_bytes()})
    cli("uglifyjs", "-c", "-m", "-o", "out.js", "assets/jquery.js")
    for _ in range(2):
        assert bench.text(uglifyjs, "jquery.js").encode() == cli.file("out.js")


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ({}, ["-c", "-m"]),
        ({"compress": False}, ["-m"]),
        ({"mangle": False}, ["-c"]),
        ({"toplevel": True}, ["-c", "-m", "--toplevel"]),
        ({"output": {"comments": "some"}}, ["-c", "-m", "--comments", "some"]),
        ({"output": {"beautify": True}, "compress": False, "mangle": False}, ["-b"]),
    ],
)
def test_options_are_those_of_the_command_line(
    bench: "Bench", cli: "CommandLine", options: dict[str, Any], arguments: list[str]
) -> None:
    """Each has an effect, and none of them reaches the next request."""
    bench.write({"assets/a.js": SCRIPT})
    plain = bench.text(uglifyjs, "a.js")
    made = bench.text(uglifyjs, "a.js", options=options)
    cli("uglifyjs", "assets/a.js", *arguments, "-o", "out.js")
    assert made.encode() == cli.file("out.js")
    assert (made != plain) == bool(options)
    assert bench.text(uglifyjs, "a.js") == plain


def test_the_map_is_that_of_the_command_line(bench: "Bench", cli: "CommandLine") -> None:
    """It holds the source, named from the project."""
    bench.write({"assets/js/a.js": SCRIPT})
    made = bench.make(uglifyjs, "js/a.js", source_map=True)
    bench.write({"out/.keep": ""})
    options = "includeSources,filename='a.js',url='a.js.map'"
    cli("uglifyjs", "assets/js/a.js", "-c", "-m", "--source-map", options, "-o", "out/a.js")
    assert made["js/a.js"] == cli.file("out/a.js")
    assert json.loads(made["js/a.js.map"]) == json.loads(cli.file("out/a.js.map"))
    assert json.loads(made["js/a.js.map"])["sources"] == ["assets/js/a.js"]


def test_a_map_leads_back_through_the_one_before(bench: "Bench") -> None:
    """People debug what they wrote, not what lies between."""
    first = {
        "version": 3,
        "sources": ["assets/js/origin.ts"],
        "sourcesContent": ["let original = 1;"],
        "names": [],
        "mappings": "AAAA",
    }
    bench.write({"made.js": "var made = 1;", "made.js.map": json.dumps(first)})
    desk = bench.run(
        uglifyjs,
        "js/a.js",
        bench.project / "made.js",
        {"js/a.js.map": bench.project / "made.js.map"},
        source_map=True,
    )
    made = json.loads(Path(desk.staged["js/a.js.map"]).read_text())
    assert made["sources"] == ["assets/js/origin.ts"]


def test_an_error_has_its_place(bench: "Bench") -> None:
    """Counted from 1."""
    bench.write({"assets/a.js": "var a;\nvar b = ;\n"})
    wrong, _ = bench.refuse(uglifyjs, "a.js")
    assert (wrong.message, wrong.file, wrong.line, wrong.column, wrong.excerpt) == (
        "Unexpected token: punc «;»",
        "assets/a.js",
        2,
        9,
        "var b = ;",
    )


def test_an_option_that_uglifyjs_does_not_know_is_told(bench: "Bench") -> None:
    """It is no error of the script."""
    bench.write({"assets/a.js": "1"})
    wrong, _ = bench.refuse(uglifyjs, "a.js", options={"compres": True})
    assert "`compres` is not a supported option" in wrong.message


def test_nothing_else_is_a_dependency(bench: "Bench") -> None:
    """It reads what it is given."""
    bench.write({"assets/a.js": SCRIPT})
    assert bench.told(uglifyjs, "a.js") == {}
