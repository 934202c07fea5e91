"""`cleancss` makes what clean-css's command line makes."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from assetd.processor import Names
from assetd.testing import Site
from assetd_processors.cleancss import cleancss

if TYPE_CHECKING:
    from tests.processors.conftest import Bench, CommandLine

pytestmark = pytest.mark.usefixtures("tools")

OPTIONS: dict[str, Any] = {option.name: option.default for option in cleancss.options}
STYLE = "a { color: #ff0000; margin: 0px }\na { padding: 1px }\n.b { color: #ff0000; }\n"


@pytest.fixture
def cli(cli: "CommandLine", node_modules: Path) -> "CommandLine":
    """Its command line is a package of its own."""
    return type(cli)(node_modules / ".bin", cli.folder)


def test_the_output_has_the_suffix_that_is_asked_for() -> None:
    """Or stays as it is."""
    small = OPTIONS | {"out_ext": ".min.css"}
    assert cleancss.outputs("a/x.css", OPTIONS) == Names(("a/x.css",))
    assert cleancss.outputs("a/x.css", small) == Names(("a/x.min.css",))
    assert cleancss.outputs("a.css", OPTIONS | {"out_ext": "min.css"}) == Names(("a.min.css",))
    assert cleancss.outputs("a/x.css", small | {"source_map": True}).companions == (
        "a/x.min.css.map",
    )


def test_what_is_small_already_is_not_taken(tmp_path: Path) -> None:
    """By its name, as the ancestor knew it, or by `out_ext`: such a file goes on as it is."""
    names = ("a.css", "b.min.CSS", "c.less", "min.css", "d-s.css")
    for options in ({}, {"out_ext": ".min.css"}, {"out_ext": "min.css"}):
        taken = [n for n in names if cleancss.matches(n, OPTIONS | options)]
        assert taken == ["a.css", "min.css", "d-s.css"]
    assert not cleancss.matches("d.small.css", OPTIONS | {"out_ext": ".small.css"})
    (tmp_path / "site").mkdir()
    site = Site(tmp_path / "site", "mounts: {assets: {processors: all}}\n")
    for name in ("assets/a.css", "assets/b.min.css"):
        site.write(name, STYLE)
    site.build()
    assert site.output("b.min.css") == STYLE
    assert site.output("a.css") == "a{color:red;margin:0}a{padding:1px}.b{color:red}"
    site.write("assetd.yml", "mounts: {assets: {processors: all}}\ncleancss: {out_ext: .min.css}\n")
    site.build()
    assert set(site.outputs()) == {"a.min.css", "b.min.css"}
    assert site.output("b.min.css") == STYLE


def test_out_ext_names_the_file(bench: "Bench") -> None:
    """The content is the same."""
    bench.write({"assets/a.css": STYLE})
    made = bench.make(cleancss, "a.css", out_ext=".min.css")
    assert made == {"a.min.css": bench.text(cleancss, "a.css").encode()}


# Not 0: for the command line's `-O0`, level 1 stays on.
@pytest.mark.parametrize("level", [1, 2])
def test_bootstrap_is_that_of_the_command_line(
    bench: "Bench", cli: "CommandLine", node_modules: Path, level: int
) -> None:
    """Byte for byte, and again from a warm one."""
    bench.write({"assets/b.css": (node_modules / "bootstrap/dist/css/bootstrap.css").read_bytes()})
    cli("cleancss", f"-O{level}", "-o", "out.css", "assets/b.css")
    for _ in range(2):
        assert bench.text(cleancss, "b.css", level=level).encode() == cli.file("out.css")


def test_every_level_does_more(bench: "Bench") -> None:
    """0 only takes out blanks, 2 moves rules together."""
    bench.write({"assets/a.css": STYLE})
    sizes = [len(bench.text(cleancss, "a.css", level=level)) for level in (0, 1, 2)]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 3


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ({"format": "beautify"}, ["--format", "beautify"]),
        ({"compatibility": "ie7"}, ["--compatibility", "ie7"]),
        ({"level": {"2": {"all": True}}}, ["-O2", "all:on"]),
    ],
)
def test_options_are_those_of_the_command_line(
    bench: "Bench", cli: "CommandLine", options: dict[str, Any], arguments: list[str]
) -> None:
    """`level` with details takes the place of the plain one."""
    bench.write({"assets/a.css": STYLE + "c { margin: 1px 2px; background: url(a.png);*zoom: 1 }"})
    cli("cleancss", *arguments, "-o", "out.css", "assets/a.css")
    made = bench.text(cleancss, "a.css", options=options)
    assert made.encode() == cli.file("out.css")
    assert made != bench.text(cleancss, "a.css")


def test_imports_are_brought_in_and_are_dependencies(bench: "Bench", cli: "CommandLine") -> None:
    """Those that another one brings, too; what is elsewhere on the net stays."""
    bench.write(
        {
            "assets/css/a.css": '@import "parts/b.css"; @import url(//x.test/y.css); a { b: c }',
            "assets/css/parts/b.css": "@import url(c.css) screen;",
            "assets/css/parts/c.css": ".c { color: red }",
        }
    )
    cli("cleancss", "-o", "out.css", "assets/css/a.css")
    desk = bench.run(cleancss, "css/a.css")
    assert Path(desk.staged["css/a.css"]).read_bytes() == cli.file("out.css")
    assert ".c{color:red}" in cli.file("out.css").decode()
    assert bench.depended(desk) == {
        "assets/css/parts/b.css": True,
        "assets/css/parts/c.css": True,
    }


def test_an_import_that_is_not_there_heals_when_it_appears(bench: "Bench") -> None:
    """It is an error with its line, and a dependency."""
    bench.write({"assets/css/a.css": '/* x */\n@import "none.css";\n'})
    wrong, desk = bench.refuse(cleancss, "css/a.css")
    assert wrong.message == (
        'Ignoring local @import of "assets/css/none.css" as resource is missing.'
    )
    assert (wrong.file, wrong.line) == ("assets/css/a.css", 2)
    assert bench.depended(desk) == {"assets/css/none.css": False}


def test_what_a_node_before_made_imports_as_if_it_lay_in_the_mount(bench: "Bench") -> None:
    """`site.less` is compiled in staging; its imports start beside it."""
    bench.write({"made.css": '@import "b.css";', "assets/css/b.css": "b { c: d }"})
    desk = bench.run(cleancss, "css/a.css", bench.project / "made.css")
    assert Path(desk.staged["css/a.css"]).read_text() == "b{c:d}"
    assert bench.depended(desk) == {"assets/css/b.css": True}


def test_warnings_have_places_and_change_nothing(bench: "Bench") -> None:
    """What it leaves out is told."""
    bench.write({"assets/a.css": "a { b: c }\n.d { e: ; color: red }\n"})
    desk = bench.run(cleancss, "a.css")
    (said,) = desk.warnings
    assert (said.message, said.file, said.line) == (
        "Empty property 'e'. Ignoring.",
        "assets/a.css",
        2,
    )


def test_the_map_is_that_of_the_command_line(bench: "Bench", cli: "CommandLine") -> None:
    """With the sources in it."""
    bench.write({"assets/css/a.css": '@import "b.css";\n' + STYLE, "assets/css/b.css": "b{c:d}"})
    made = bench.make(cleancss, "css/a.css", source_map=True)
    cli("cleancss", "--source-map", "--source-map-inline-sources", "-o", "assets/css/a.min.css",
        "assets/css/a.css")  # fmt: skip
    expected = cli.file("assets/css/a.min.css").decode().replace("a.min.css.map", "a.css.map")
    assert made["css/a.css"].decode() == expected
    ours, theirs = (
        json.loads(text) for text in (made["css/a.css.map"], cli.file("assets/css/a.min.css.map"))
    )
    assert ours["mappings"] == theirs["mappings"]
    assert ours["sources"] == ["assets/css/b.css", "assets/css/a.css"]
    assert ours["file"] == "a.css"


def test_a_map_leads_back_through_the_one_before(bench: "Bench") -> None:
    """People debug what they wrote, not what lies between."""
    first = {
        "version": 3,
        "sources": ["assets/css/a.less"],
        "sourcesContent": ["a { b: c }"],
        "names": [],
        "mappings": "AAAA;EAAI,KAAA",
    }
    bench.write({"made.css": "a {\n  b: c;\n}\n", "made.css.map": json.dumps(first)})
    desk = bench.run(
        cleancss,
        "css/a.css",
        bench.project / "made.css",
        {"css/a.css.map": bench.project / "made.css.map"},
        source_map=True,
    )
    made = json.loads(Path(desk.staged["css/a.css.map"]).read_text())
    assert [source.rpartition("/")[2] for source in made["sources"]] == ["a.less"]


def test_it_minifies_what_less_has_made(tmp_path: Path) -> None:
    """An edited source and an edited option both reach the output."""
    head = "mounts: {assets: {processors: all -uglifyjs}}\n"
    (tmp_path / "site").mkdir()
    site = Site(tmp_path / "site", head)
    site.write("assets/site.less", "@c: red; .x { color: @c; margin: 0px }\n")
    site.build()
    assert site.output("site.css") == ".x{color:red;margin:0}"
    site.write("assets/site.less", "@c: blue; .x { color: @c; margin: 0px }\n")
    site.build()
    assert site.output("site.css") == ".x{color:#00f;margin:0}"
    site.write("assetd.yml", head + "cleancss: {level: 0}\n")
    site.build()
    assert site.output("site.css") == ".x{color:#00f;margin:0px}".replace("#00f", "blue")
    assert site.outputs() == site.clean_build()
