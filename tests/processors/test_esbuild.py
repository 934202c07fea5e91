"""`esbuild` makes what esbuild's command line makes."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from assetd.processor import Names
from assetd_processors.esbuild import esbuild

if TYPE_CHECKING:
    from tests.processors.conftest import Bench, CommandLine

pytestmark = pytest.mark.usefixtures("tools")

OPTIONS: dict[str, Any] = {option.name: option.default for option in esbuild.options}
SITE = {
    "assets/js/app.tsx": "import { h, name } from './lib';\nimport pkg from 'pkg';\n"
    "export const view = <p title={name as string}>{pkg ?? DEBUG}</p>;\n",
    "assets/js/lib.ts": "export const h = (...all: unknown[]) => all;\n"
    "export const name: string = 'n';\n",
    "node_modules/pkg/package.json": '{"main": "main.js", "module": "module.mjs"}',
    "node_modules/pkg/main.js": "module.exports = 'main';\n",
    "node_modules/pkg/module.mjs": "export default 'module';\n",
}


def test_it_takes_the_entries_and_nothing_else() -> None:
    """Names of outputs are known beforehand."""
    assert not esbuild.default
    assert not esbuild.matches("app.ts", OPTIONS)
    options = OPTIONS | {"entries": ["**/app.*"]}
    names = ("app.ts", "a/app.TSX", "app.mjs", "app.css", "app.svg", "lib.ts")
    assert [n for n in names if esbuild.matches(n, options)] == [*names[:4]]
    assert esbuild.outputs("a/app.ts", options) == Names(("a/app.js",))
    assert esbuild.outputs("a/app.css", options | {"source_map": True}) == Names(
        ("a/app.css",), ("a/app.css.map",)
    )
    assert esbuild.outputs("app.ts", options | {"css": True}) == Names(("app.js", "app.css"))


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ({}, ["--bundle"]),
        ({"bundle": False}, []),
        ({"minify": True}, ["--bundle", "--minify"]),
        ({"target": ["es2019"]}, ["--bundle", "--target=es2019"]),
        ({"format": "esm"}, ["--bundle", "--format=esm"]),
        ({"platform": "node"}, ["--bundle", "--platform=node"]),
        ({"jsx": "preserve"}, ["--bundle", "--jsx=preserve"]),
        ({"external": ["pkg"], "format": "esm"}, ["--bundle", "--external:pkg", "--format=esm"]),
        ({"define": {"DEBUG": "true"}}, ["--bundle", "--define:DEBUG=true"]),
    ],
    ids=lambda value: next(iter(value), "none") if isinstance(value, dict) else "",
)
def test_options_are_those_of_the_command_line(
    bench: "Bench", cli: "CommandLine", options: dict[str, Any], arguments: list[str]
) -> None:
    """Byte for byte; each has an effect, and none of them reaches the next request."""
    bench.write(SITE)
    expected = cli("esbuild", "assets/js/app.tsx", *arguments)
    assert bench.text(esbuild, "js/app.tsx", **options).encode() == expected
    assert (bench.text(esbuild, "js/app.tsx").encode() != expected) == bool(options)


def test_every_module_is_a_dependency(bench: "Bench") -> None:
    """So is every path where one would have been found first."""
    bench.write(SITE | {"tsconfig.json": "{}"})
    told = bench.told(esbuild, "js/app.tsx")
    assert {place for place, there in told.items() if there} == {
        "assets/js/lib.ts",
        "node_modules/pkg/package.json",
        "node_modules/pkg/module.mjs",
        "tsconfig.json",
    }
    absent = {"assets/js/lib", "assets/js/lib.tsx", "assets/js/tsconfig.json",
              "assets/js/node_modules/pkg/package.json"}  # fmt: skip
    assert absent <= {place for place, there in told.items() if not there}
    assert "assets/js/lib.js" not in told, "it comes after the one that was found"


def test_an_edited_module_is_read_anew(bench: "Bench") -> None:
    """A warm one remembers nothing."""
    bench.write(SITE)
    before = bench.text(esbuild, "js/app.tsx")
    bench.write({"assets/js/lib.ts": SITE["assets/js/lib.ts"].replace("'n'", "'edited'")})
    assert bench.text(esbuild, "js/app.tsx") == before.replace('"n"', '"edited"')


def test_the_map_is_that_of_the_command_line(bench: "Bench", cli: "CommandLine") -> None:
    """It lies beside the output, and holds the sources."""
    bench.write(SITE)
    made = bench.make(esbuild, "js/app.tsx", source_map=True)
    cli("esbuild", "assets/js/app.tsx", "--bundle", "--sourcemap", "--outfile=assets/js/app.js")
    assert made["js/app.js"] == cli.file("assets/js/app.js")
    assert made["js/app.js.map"] == cli.file("assets/js/app.js.map")
    assert "lib.ts" in json.loads(made["js/app.js.map"])["sources"]


def test_style_sheets_are_announced_with_css(bench: "Bench") -> None:
    """What cannot be known beforehand is refused, with what to do."""
    bench.write({"assets/a.js": "import './b.css';", "assets/b.css": "b { c: d }",
                 "assets/e.js": "1"})  # fmt: skip
    wrong, _ = bench.refuse(esbuild, "a.js")
    assert wrong.message == "makes a.css too: announce it with `css: true`"
    made = bench.make(esbuild, "a.js", css=True, minify=True)
    assert made["a.css"] == b"b{c:d}\n"
    assert bench.make(esbuild, "e.js", css=True)["e.css"] == b""


def test_files_that_cannot_be_announced_are_refused(bench: "Bench") -> None:
    """They go into the text."""
    bench.write({"assets/a.js": "import x from './x.png'; export default x;",
                 "assets/x.png": "png"})  # fmt: skip
    wrong, _ = bench.refuse(esbuild, "a.js", loader={".png": "file"})
    assert "`loader: {'.png': dataurl}`" in wrong.message
    assert "data:image/png" in bench.text(esbuild, "a.js", loader={".png": "dataurl"})


def test_a_style_sheet_is_an_entry_too(bench: "Bench", cli: "CommandLine") -> None:
    """With its imports."""
    bench.write({"assets/a.css": "@import './b.css';", "assets/b.css": ".x { .y & { c: d } }"})
    assert bench.text(esbuild, "a.css").encode() == cli("esbuild", "assets/a.css", "--bundle")
    assert bench.told(esbuild, "a.css")["assets/b.css"]


@pytest.mark.parametrize("suffix", ["ts", "mts", "mjs", "jsx"])
def test_what_a_node_before_made_is_built_as_if_it_lay_in_the_mount(
    bench: "Bench", suffix: str
) -> None:
    """Its imports start beside the name that it has."""
    bench.write({"made": "export { b } from './b';", "assets/js/b.ts": "export const b = 1;"})
    desk = bench.run(esbuild, f"js/a.{suffix}", bench.project / "made", format="esm")
    bench.write({f"assets/js/a.{suffix}": "export { b } from './b';"})
    assert Path(desk.staged["js/a.js"]).read_text() == bench.text(
        esbuild, f"js/a.{suffix}", format="esm"
    )
    assert bench.depended(desk)["assets/js/b.ts"]


def test_a_module_that_is_not_there_heals_when_it_appears(bench: "Bench") -> None:
    """The error has its place, and every path where it was looked for is a dependency."""
    bench.write({"assets/a.js": "import './b';", "assets/b.js": "\nimport './none';"})
    wrong, desk = bench.refuse(esbuild, "a.js")
    assert (wrong.message, wrong.file, wrong.line, wrong.column) == (
        'Could not resolve "./none"',
        "assets/b.js",
        2,
        8,
    )
    told = bench.depended(desk)
    assert told["assets/b.js"]
    assert {"assets/none.ts", "assets/none/index.js"} <= told.keys()


def test_warnings_have_places(bench: "Bench") -> None:
    """They do not make the result wrong."""
    bench.write({"assets/a.js": "let x = 1;\nif (x === NaN) x = 2;\n"})
    (said,) = bench.run(esbuild, "a.js").warnings
    assert (said.file, said.line) == ("assets/a.js", 2)
