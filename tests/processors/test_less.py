"""`less` makes what `lessc` makes, and knows all that the result came from."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from assetd.processor import Names
from assetd_processors.less import less

if TYPE_CHECKING:
    from tests.processors.conftest import Bench, CommandLine

pytestmark = pytest.mark.usefixtures("tools")

OPTIONS: dict[str, Any] = {option.name: option.default for option in less.options}
SITE = {
    "assets/css/site.less": '@import "vars";\n.x { color: @c; width: (10px / 3); top: 2px / 2 }\n',
    "assets/css/vars.less": "@c: red;\n",
}


def css_of(bench: "Bench", path: str = "css/site.less", **options: Any) -> str:
    return bench.make(less, path, **options)[path[:-5] + ".css"].decode()


# Names


def test_partials_are_no_sources() -> None:
    """A name that starts with `_` is for others to read, as it is for Sass."""
    names = ("a.less", "b/_c.LESS", "_d/main_theme.less", "e.css")
    assert [n for n in names if less.matches(n, OPTIONS)] == [*names[:3]]
    assert [n for n in names if less.include_only(n, OPTIONS)] == ["b/_c.LESS"]


def test_the_map_is_announced_where_it_is_asked_for() -> None:
    """`x.less` makes `x.css`, and `x.css.map` beside it."""
    assert less.outputs("a/x.less", OPTIONS) == Names(("a/x.css",))
    assert less.outputs("a/x.LESS", OPTIONS | {"source_map": True}) == Names(
        ("a/x.css",), ("a/x.css.map",)
    )


# What it makes


@pytest.mark.parametrize(
    "entry",
    [
        "bootstrap-3/less/bootstrap.less",
        "bootstrap-3/less/theme.less",
        "font-awesome/less/font-awesome.less",
    ],
)
@pytest.mark.parametrize("compress", [False, True])
def test_real_style_sheets_are_those_of_lessc(
    bench: "Bench", cli: "CommandLine", node_modules: Path, entry: str, compress: bool
) -> None:
    """Byte for byte, and again from a compiler that is warm."""
    package = entry.partition("/")[0]
    shutil.copytree(node_modules / package, bench.mount / package)
    expected = cli("lessc", *(["--compress"] if compress else []), f"assets/{entry}")
    options = {"compress": True} if compress else {}
    for _ in range(2):
        desk = bench.run(less, entry, options=options)
        (made,) = desk.staged.values()
        assert Path(made).read_bytes() == expected
    listed = cli("lessc", "--depends", f"assets/{entry}", "out.css").decode()
    read = {str(Path(f).relative_to(bench.project)) for f in listed.partition(": ")[2].split()}
    assert {place for place, there in bench.depended(desk).items() if there} == read


def test_nothing_makes_nothing(bench: "Bench") -> None:
    """An empty source is no mistake."""
    bench.write({"assets/none.less": ""})
    made = bench.make(less, "none.less", source_map=True)
    assert made["none.css"] == b""
    assert json.loads(made["none.css.map"])["mappings"] == ""


def test_what_a_node_before_made_is_compiled_as_if_it_lay_in_the_mount(bench: "Bench") -> None:
    """Its imports start beside the name that it has."""
    bench.write({**SITE, "made": '@import "vars"; a { b: @c }'})
    desk = bench.run(less, "css/made.less", bench.project / "made")
    assert "b: red" in Path(desk.staged["css/made.css"]).read_text()
    assert bench.depended(desk) == {"assets/css/vars.less": True}


# Options


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ({"compress": True}, ["--compress"]),
        ({"math": "always"}, ["--math=always"]),
        ({"modifyVars": {"c": "blue"}}, ["--modify-var=c=blue"]),
        ({"urlArgs": "v=1"}, ["--url-args=v=1"]),
        ({"rootpath": "/x/"}, ["--rootpath=/x/"]),
    ],
)
def test_the_options_of_the_compiler_are_those_of_its_command_line(
    bench: "Bench", cli: "CommandLine", options: dict[str, Any], arguments: list[str]
) -> None:
    """What `lessc` knows by a switch, the section knows by the name in its interface."""
    bench.write(SITE | {"assets/css/vars.less": "@c: red; .u { background: url(i.png) }\n"})
    plain = css_of(bench)
    assert (
        css_of(bench, options=options) == cli("lessc", *arguments, "assets/css/site.less").decode()
    )
    assert css_of(bench, options=options) != plain
    assert css_of(bench) == plain, "options of one request must not reach the next"


def test_global_variables_do_not_move_the_place_of_an_error(bench: "Bench") -> None:
    """Less puts them before the text, and counts their lines."""
    bench.write({"assets/a.less": "\n.x { a: @g;\n  b: @none }\n"})
    wrong, _ = bench.refuse(less, "a.less", options={"globalVars": {"g": "1", "h": "2"}})
    assert (wrong.line, wrong.column, wrong.excerpt) == (3, 6, "  b: @none }")
    bench.write({"assets/a.less": ".x { a: @g }"})
    assert "a: 1" in css_of(bench, "a.less", options={"globalVars": {"g": "1"}})


def test_load_paths_start_from_the_project_and_come_in_order(bench: "Bench") -> None:
    """The importing file's own folder comes first; `paths` of the options come last."""
    bench.write(SITE | {"one/vars.less": "@c: one;", "two/vars.less": "@c: two;"})
    assert "color: red" in css_of(bench, load_paths=["one", "two"])
    (bench.mount / "css/vars.less").unlink()
    assert "color: one" in css_of(bench, load_paths=["one"], options={"paths": ["two"]})
    assert bench.told(less, "css/site.less", load_paths=["two"], options={"paths": ["one"]}) == {
        "assets/css/vars.less": False,
        "two/vars.less": True,
    }


def test_packages_of_the_project_are_found(bench: "Bench") -> None:
    """A bare name is looked for in the project's `node_modules`, as `lessc` does."""
    bench.write(
        {
            "assets/a.less": '@import "grid/less/grid";',
            "node_modules/grid/less/grid.less": ".g { a: b }",
        }
    )
    assert ".g" in css_of(bench, "a.less")
    # Less itself is a package, of ours: nobody's source means that.
    bench.write({"assets/a.less": '@import (optional, inline) "less/bin/lessc";'})
    assert css_of(bench, "a.less") == ""


def test_the_source_map_is_that_of_lessc(bench: "Bench", cli: "CommandLine") -> None:
    """It holds the sources, named from the project, so that it is the same everywhere."""
    bench.write(SITE)
    made = bench.make(less, "css/site.less", source_map=True)
    cli(
        "lessc",
        "--source-map",
        "--source-map-include-source",
        "--source-map-basepath=.",
        "assets/css/site.less",
        "out/site.css",
    )
    assert made["css/site.css"] == cli.file("out/site.css")
    assert json.loads(made["css/site.css.map"])["sources"] == ["assets/css/site.less"]
    expected = json.loads(cli.file("out/site.css.map"))
    expected["sources"] = ["assets/css/site.less"]
    assert json.loads(made["css/site.css.map"]) == expected


@pytest.mark.parametrize("name", ["filename", "plugins", "sourceMap"])
def test_options_that_are_ours_are_refused(bench: "Bench", name: str) -> None:
    """They would be overwritten without a word."""
    bench.write({"assets/a.less": ""})
    wrong, _ = bench.refuse(less, "a.less", options={name: 1})
    assert wrong.message.startswith(f"less.options cannot have {name}: ")


# What the result comes from


def test_what_was_looked_for_in_vain_is_a_dependency(bench: "Bench") -> None:
    """A file that would have been found first makes the result another one."""
    bench.write({"assets/css/a.less": '@import "b"; @import "c.less";', "lib/b.less": "",
                 "lib/c.less": ""})  # fmt: skip
    assert bench.told(less, "css/a.less", load_paths=["other", "lib"]) == {
        "assets/css/b.less": False,
        "other/b.less": False,
        "lib/b.less": True,
        "assets/css/c.less": False,
        "other/c.less": False,
        "lib/c.less": True,
    }


def test_everything_that_is_read_is_a_dependency(bench: "Bench") -> None:
    """Inlined, referenced, optional, plugins with what they require, and data of images."""
    bench.write(
        {
            "assets/a.less": '@import (inline) "i.css"; @import (reference) "r";\n'
            '@import (optional) "o"; @plugin "p"; .x { a: data-uri("x.svg"); b: q() }',
            "assets/i.css": "i {}",
            "assets/r.less": '@import "s";',
            "assets/s.less": "",
            "assets/p.js": "const h = require('./h');\nfunctions.add('q', () => h.value);",
            "assets/h.js": "module.exports = { value: 1 };",
            "assets/x.svg": "<svg/>",
        }
    )
    told = bench.told(less, "a.less")
    there = {"i.css", "r.less", "s.less", "p.js", "h.js", "x.svg"}
    assert {place for place, is_there in told.items() if is_there} == {f"assets/{n}" for n in there}
    assert "assets/o.less" in told
    assert "b: 1" in css_of(bench, "a.less")
    bench.write({"assets/h.js": "module.exports = { value: 2 };"})
    assert "b: 2" in css_of(bench, "a.less")


# What is wrong


def test_an_error_has_its_place(bench: "Bench") -> None:
    """In the file that it is in, and counted from 1."""
    bench.write(SITE | {"assets/css/vars.less": "@c: red;\n\n.y { color: @none }\n"})
    wrong, desk = bench.refuse(less, "css/site.less")
    assert (wrong.message, wrong.file, wrong.line, wrong.column, wrong.excerpt) == (
        "variable @none is undefined",
        "assets/css/vars.less",
        3,
        13,
        ".y { color: @none }",
    )
    assert bench.depended(desk) == {"assets/css/vars.less": True}


def test_a_missing_import_heals_when_it_appears(bench: "Bench") -> None:
    """Every place where it would have been found is a dependency of the failure."""
    bench.write({"assets/a.less": '\n@import "none";'})
    wrong, desk = bench.refuse(less, "a.less", load_paths=["lib"])
    assert (wrong.file, wrong.line) == ("assets/a.less", 2)
    assert wrong.message.startswith("'none' wasn't found. Tried - assets/none.less, lib/none.less")
    assert {"assets/none.less": False, "lib/none.less": False}.items() <= bench.depended(
        desk
    ).items()


def test_an_unclosed_block_is_told(bench: "Bench") -> None:
    """The parser's errors have a place too."""
    bench.write({"assets/a.less": "a {\n  b: c\n"})
    wrong, _ = bench.refuse(less, "a.less")
    assert (wrong.message, wrong.line) == ("Unrecognised input. Possibly missing something", 3)


def test_deprecations_are_warnings(bench: "Bench") -> None:
    """What the compiler warns of does not make the result wrong."""
    bench.write({"assets/a.less": ".m() { a: b }\n.x { .m; }\n"})
    desk = bench.run(less, "a.less")
    assert len(desk.warnings) == 1


def test_a_source_that_is_not_utf_8_is_refused(bench: "Bench") -> None:
    """With the line, as everywhere."""
    bench.write({"assets/a.less": b"a {}\n\xff"})
    wrong, _ = bench.refuse(less, "a.less")
    assert (wrong.message, wrong.line) == ("not UTF-8: save it as UTF-8", 2)
