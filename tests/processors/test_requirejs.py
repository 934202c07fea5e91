"""`requirejs` makes what r.js makes of a build file."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from assetd.step import Desk
from assetd.testing import Site
from assetd_processors.requirejs import requirejs

if TYPE_CHECKING:
    from tests.processors.conftest import Bench, CommandLine

pytestmark = pytest.mark.usefixtures("tools")

OPTIONS: dict[str, Any] = {option.name: option.default for option in requirejs.options}
COUNT = 20


def module(number: int) -> str:
    """A module that needs two others, as the nodes of a tree do."""
    below = [f"'app/m{k}'" for k in (number * 2, number * 2 + 1) if k <= COUNT]
    return (
        f"define([{', '.join(below)}], function () {{\n"
        f"  var number = {number};\n  return number + arguments.length;\n}});\n"
    )


MODULES = {f"assets/js/app/m{n}.js": module(n) for n in range(1, COUNT + 1)}
BUILD = "({ baseUrl: 'js', name: 'main', out: 'built.js' })\n"
SITE = {
    **MODULES,
    "assets/js/main.js": "require(['app/m1', 'text'], function (one) { window.one = one; });\n",
    "assets/js/text.js": "define({ load: function (n, r, done) { done(n); } });\n",
    "assets/js/stray.js": "window.stray = 1;\n",
    "assets/build.js": BUILD,
}
READ = {*MODULES, "assets/js/main.js", "assets/js/text.js"}


def built(bench: "Bench", **options: Any) -> tuple[Desk, dict[str, bytes]]:
    desk = bench.run(requirejs, "build.js", build_path="build.js", **options)
    return desk, {name: Path(path).read_bytes() for name, path in desk.staged.items()}


def test_it_takes_every_script_of_the_mount() -> None:
    """But nothing where there is no build file."""
    names = ("build.js", "js/app/m1.JS", "a.css")
    assert [n for n in names if requirejs.matches(n, OPTIONS)] == []
    assert [n for n in names if requirejs.matches(n, OPTIONS | {"build_path": "build.js"})] == [
        "build.js",
        "js/app/m1.JS",
    ]


def test_a_build_is_that_of_the_command_line(bench: "Bench", cli: "CommandLine") -> None:
    """Byte for byte, and again from a warm one; every module is a dependency."""
    bench.write(SITE)
    cli("r.js", "-o", "assets/build.js")
    for _ in range(2):
        desk, made = built(bench)
        assert made == {"built.js": cli.file("assets/built.js")}
    assert len(READ) == COUNT + 2
    assert {place for place, there in bench.depended(desk).items() if there} == READ


def test_the_other_scripts_make_nothing(bench: "Bench") -> None:
    """They are in the build, or nowhere."""
    bench.write(SITE)
    desk = bench.run(requirejs, "js/stray.js", build_path="/build.js")
    assert (desk.staged, desk.depended) == ({}, {})


def test_an_edited_module_is_read_anew(bench: "Bench") -> None:
    """r.js keeps texts in itself: a warm one must not."""
    bench.write(SITE)
    _, before = built(bench)
    bench.write({"assets/js/app/m20.js": "define('changed');\n"})
    _, after = built(bench)
    assert before != after
    assert b"changed" in after["built.js"]


def test_out_path_says_where_it_goes(bench: "Bench") -> None:
    """A script whose `out` lies outside the mount needs it."""
    bench.write(SITE)
    _, made = built(bench, out_path="js/all.js")
    assert list(made) == ["js/all.js"]
    bench.write({"assets/build.js": BUILD.replace("built.js", "../../elsewhere.js")})
    wrong, _ = bench.refuse(requirejs, "build.js", build_path="build.js")
    assert "is not in the mount: say where it goes with `out_path`" in wrong.message
    _, again = built(bench, out_path="js/all.js")
    assert again == made
    assert not (bench.project / "elsewhere.js").exists()


def test_a_map_is_an_output_too(bench: "Bench", cli: "CommandLine") -> None:
    """As every file that is written."""
    options = "optimize: 'uglify', generateSourceMaps: true, preserveLicenseComments: false"
    bench.write(SITE | {"assets/build.js": BUILD.replace("})", f", {options} }})")})
    cli("r.js", "-o", "assets/build.js")
    _, made = built(bench)
    assert set(made) == {"built.js", "built.js.map"}
    assert made["built.js"] == cli.file("assets/built.js")
    ours, theirs = (json.loads(m) for m in (made["built.js.map"], cli.file("assets/built.js.map")))
    assert ours["mappings"] == theirs["mappings"]


DIR = "({ appDir: 'js', baseUrl: '.', dir: '../out', modules: [{ name: 'main' }] })\n"


def test_a_folder_takes_the_place_of_what_it_is_made_from(
    bench: "Bench", cli: "CommandLine"
) -> None:
    """Where it would lie outside the mount; what is no script is left to its own processor."""
    bench.write(SITE | {"assets/build.js": DIR, "assets/js/page.css": "a { b: c }"})
    cli("r.js", "-o", "assets/build.js")
    for _ in range(2):
        desk, made = built(bench)
        written = {
            os.path.relpath(os.path.join(where, name), bench.project / "out")
            for where, _, names in os.walk(bench.project / "out")
            for name in names
        } - {"page.css"}
        assert made == {f"js/{name}": cli.file(f"out/{name}") for name in written}
    assert len(made) == COUNT + 4
    told = {place for place, there in bench.depended(desk).items() if there}
    assert told == READ | {"assets/js/stray.js", "assets/js/page.css"}
    assert ("glob", "assets/js", "**/*") in {(k.value, p, g) for k, p, g in desk.depended}


def test_out_path_of_a_folder_is_a_folder(bench: "Bench") -> None:
    """There everything is an output."""
    bench.write(SITE | {"assets/build.js": DIR, "assets/js/page.css": "a { b: c }"})
    _, made = built(bench, out_path="dist")
    assert {"dist/main.js", "dist/app/m20.js", "dist/page.css", "dist/build.txt"} <= set(made)


def test_a_module_that_is_not_there_heals_when_it_appears(bench: "Bench") -> None:
    """The path where it was looked for is a dependency of the failure."""
    bench.write(SITE | {"assets/js/app/m9.js": "define(['app/none'], function () {});\n"})
    wrong, desk = bench.refuse(requirejs, "build.js", build_path="build.js")
    assert "app/none.js" in wrong.message
    told = bench.depended(desk)
    assert told["assets/js/app/none.js"] is False
    assert told["assets/js/app/m9.js"]
    (bench.mount / "js/app/none.js").write_text("define({});")
    assert list(built(bench)[1]) == ["built.js"]


def test_a_syntax_error_names_its_file(bench: "Bench") -> None:
    """And the line, as far as r.js knows it."""
    bench.write(SITE | {"assets/js/app/m9.js": "define([], function () {\n  var = 1;\n});\n"})
    wrong, _ = bench.refuse(requirejs, "build.js", build_path="build.js")
    assert (wrong.file, wrong.line) == ("assets/js/app/m9.js", 2)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1", "a build file holds one object in parentheses"),
        ("({ baseUrl: 'js' })", "expected `out` or `dir` as text"),
        ("({", "Unexpected end of input"),
    ],
)
def test_a_build_file_that_is_none_is_told(bench: "Bench", text: str, told: str) -> None:
    """Before r.js takes it for something else."""
    bench.write(SITE | {"assets/build.js": text})
    wrong, _ = bench.refuse(requirejs, "build.js", build_path="build.js")
    assert told in wrong.message


def test_what_concat_makes_in_its_mount_goes_its_own_way(tmp_path: Path) -> None:
    """It takes sources alone: no script that another processor makes."""
    (tmp_path / "site").mkdir()
    head = "mounts: {assets: {processors: all}}\nrequirejs: {build_path: build.js}\n"
    site = Site(tmp_path / "site", head)
    for name, text in SITE.items():
        site.write(name, text)
    site.write("assets/vendor.js.concat", "files: [parts/a.txt, parts/b.txt]\n")
    site.write("assets/parts/a.txt", "var first = 1;")
    site.write("assets/parts/b.txt", "var second = 2;")
    assert site.build()["errors"] == []
    made = site.outputs()
    assert set(made) == {"built.js", "vendor.js", "parts/a.txt", "parts/b.txt"}
    assert made["vendor.js"] == b"var first=1,second=2;"  # by uglifyjs
    assert b"return 20" in made["built.js"]
    site.write("assets/parts/b.txt", "var second = 3;")
    site.write("assets/js/app/m20.js", "define('changed');\n")
    assert site.build()["errors"] == []
    assert site.output("vendor.js") == "var first=1,second=3;"
    assert "changed" in (site.output("built.js") or "")
    assert site.outputs() == site.clean_build()
