"""`sass` makes what LibSass makes, and knows all that the result came from."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sass as libsass
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assetd.model import Diagnostic
from assetd.processor import Names, Setting
from assetd.record import Reader
from assetd.testing import Site
from assetd_processors import sass_imports, sass_printed
from assetd_processors.sass import sass
from assetd_processors.sass_libsass import Engine

if TYPE_CHECKING:
    from tests.processors.conftest import Bench

OPTIONS: dict[str, Any] = {option.name: option.default for option in sass.options}
SITE = {
    "assets/css/site.scss": '@import "vars", "parts/nav";\n.x { color: $c; width: (10px/3) }\n',
    "assets/css/_vars.scss": "$c: red;\n",
    "assets/css/parts/nav.sass": '@import ../vars\nnav\n  a: $c\n  content: "é"\n',
}


def css_of(bench: "Bench", path: str = "css/site.scss", **options: Any) -> str:
    return bench.make(sass, path, **options)[path[:-5] + ".css"].decode()


def places(bench: "Bench", path: str = "css/site.scss", **options: Any) -> list[str]:
    return [place for _, place, _ in bench.run(sass, path, **options).depended]


def around(folder: str, name: str) -> list[str]:
    """Where LibSass looks for *name* in *folder* before it looks for an index."""
    stems = [f"{folder}/{name}", f"{folder}/_{name}"]
    return stems + [f"{folder}/{u}{name}{e}" for u in ("_", "") for e in (".scss", ".sass", ".css")]


# Names


def test_partials_are_no_sources() -> None:
    """A name that starts with `_` is for others to read; `main_theme.scss` is no such name."""
    names = ("a.scss", "b/_c.SASS", "_d/main_theme.scss", "_e.css", "f.css")
    assert [n for n in names if sass.matches(n, OPTIONS)] == [
        "a.scss",
        "b/_c.SASS",
        "_d/main_theme.scss",
    ]
    assert [n for n in names if sass.include_only(n, OPTIONS)] == ["b/_c.SASS"]


def test_the_map_is_announced_where_it_is_asked_for() -> None:
    """`x.scss` makes `x.css`, and `x.css.map` beside it."""
    assert sass.outputs("a/x.scss", OPTIONS) == Names(("a/x.css",))
    assert sass.outputs("a/x.SASS", OPTIONS | {"source_map": True}) == Names(
        ("a/x.css",), ("a/x.css.map",)
    )


def test_the_owner_learns_the_version_without_loading_the_compiler() -> None:
    """The extension holds the GIL and may crash: it is for workers."""
    code = (
        "import sys; from pathlib import Path; from assetd.processor import Setting;"
        "from assetd_processors.sass import sass;"
        "print(sass.tool(Setting(Path('/'), {'engine': 'libsass'}, None)));"
        "assert '_sass' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"version='{version('libsass')}'" in done.stdout


# What it makes


@pytest.mark.parametrize("style", ["nested", "expanded", "compact", "compressed"])
@pytest.mark.parametrize("precision", [0, 5, 12])
def test_the_css_is_that_of_the_compiler(bench: "Bench", style: str, precision: int) -> None:
    """Asking for the map and hearing the warnings change no byte."""
    bench.write(SITE)
    expected = libsass.compile(
        filename=str(bench.mount / "css/site.scss"), output_style=style, precision=precision
    )
    assert css_of(bench, style=style, precision=precision) == expected


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("bootstrap/scss/bootstrap.scss", {}),
        ("bootstrap-5/scss/bootstrap.scss", {"style": "compressed"}),
        ("bulma/bulma.sass", {"style": "expanded"}),
        (
            "foundation-sites/assets/foundation.scss",
            {"load_paths": ["node_modules/foundation-sites/scss"]},
        ),
    ],
)
def test_real_style_sheets_are_those_of_the_compiler(
    bench: "Bench", node_modules: Path, path: str, options: dict[str, Any]
) -> None:
    """Byte for byte, and it read nothing that we did not find ourselves."""
    bench.project, bench.mount_name = node_modules.parent, "node_modules"
    entry = str(bench.mount / path)
    css, source_map = libsass.compile(
        filename=entry,
        include_paths=[str(bench.project / folder) for folder in options.get("load_paths", [])],
        output_style=options.get("style", "nested"),
        source_map_filename="/map",
        omit_source_map_url=True,
    )
    desk = bench.run(sass, path, **options)
    assert Path(desk.staged[path[:-5] + ".css"]).read_bytes() == css.encode()
    read = {"/" + name for name in json.loads(source_map)["sources"]} - {entry}
    told = {str(bench.project / place) for _, place, _ in desk.depended}
    assert {name for name in told if os.path.isfile(name)} == read


@pytest.mark.parametrize("name", ["css/none.scss", "css/none.sass"])
def test_nothing_makes_nothing(bench: "Bench", name: str) -> None:
    """An empty source is no mistake."""
    bench.write({f"assets/{name}": ""})
    assert css_of(bench, name) == ""


def test_the_current_directory_is_not_searched(
    bench: "Bench", monkeypatch: pytest.MonkeyPatch
) -> None:
    """LibSass asks it before the load paths; who started us from where decides nothing."""
    bench.write(
        {
            "assets/css/site.scss": '@import "deep/part"; @import "../../up";',
            "assets/css/deep/_part.scss": '@import "odd";',
            "a/b/c/_odd.scss": "x { from: cwd }",
            "a/_up.scss": "y { from: cwd }",
            "vendor/a/b/_odd.scss": "x { from: load-path }",
            "vendor/_up.scss": "y { from: load-path }",
        }
    )
    here = bench.project / "a/b/c"
    monkeypatch.chdir(here)
    expected = "x {\n  from: load-path; }\n\ny {\n  from: load-path; }\n"
    assert css_of(bench, load_paths=["vendor/a/b"]) == expected
    assert Path.cwd() == here
    problem, _ = bench.refuse(sass, "css/site.scss")
    assert problem.message == "File to import not found or unreadable: odd."
    assert Path.cwd() == here


def test_what_another_processor_made_imports_as_if_it_lay_in_the_mount(
    bench: "Bench", tmp_path: Path
) -> None:
    """The folder that it would be in comes before the load paths."""
    bench.write(SITE | {"vendor/_vars.scss": "$c: blue;", "vendor/_only.scss": "y { z: $c }"})
    (bench.mount / "css/site.scss").unlink()
    made_before = tmp_path / "staging" / "7-0-1.scss"
    made_before.write_text('@import "vars", "only";\n')
    desk = bench.run(sass, "css/site.scss", made_before, load_paths=["vendor"], source_map=True)
    assert Path(desk.staged["css/site.css"]).read_text().startswith("y {\n  z: red; }")
    source_map = json.loads(Path(desk.staged["css/site.css.map"]).read_text())
    assert source_map["sources"] == [
        "assets/css/site.scss",
        "assets/css/_vars.scss",
        "vendor/_only.scss",
    ]
    made_before.write_text("a { b: $nope }")
    desk = bench.desk(sass, "css/site.scss", made_before)
    with pytest.raises(Exception, match="Undefined variable") as caught:
        sass.process(desk)
    assert caught.value.file == str(bench.mount / "css/site.scss")  # type: ignore[attr-defined]


# Maps and comments


def test_the_map_holds_its_sources_and_no_path_of_this_machine(bench: "Bench") -> None:
    """Names from the project, contents in the map: a browser needs nothing else."""
    bench.write(SITE | {"assets/css/a b#é.scss": '@import "site", "lib";', "../out/_lib.scss": ""})
    made = bench.make(sass, "css/a b#é.scss", source_map=True, load_paths=["../out"])
    assert made["css/a b#é.css"].endswith(b"\n\n/*# sourceMappingURL=a%20b%23%C3%A9.css.map */")
    source_map = json.loads(made["css/a b#é.css.map"])
    assert source_map["version"] == 3
    assert source_map["file"] == "a%20b%23%C3%A9.css"
    assert source_map["sources"] == [
        "assets/css/a%20b%23%C3%A9.scss",
        "assets/css/site.scss",
        "assets/css/_vars.scss",
        "assets/css/parts/nav.sass",
        "_lib.scss",
    ]
    assert source_map["sourcesContent"][2] == "$c: red;\n"
    assert len(source_map["sourcesContent"]) == len(source_map["sources"])
    assert source_map["mappings"]


def test_the_map_is_the_same_wherever_the_project_lies(bench: "Bench") -> None:
    """The same bytes from another folder."""
    bench.write(SITE)
    before = bench.make(sass, "css/site.scss", source_map=True, source_comments=True)
    moved = bench.project.parent / "somewhere" / "else"
    moved.parent.mkdir()
    bench.project.rename(moved)
    bench.project = moved
    assert bench.make(sass, "css/site.scss", source_map=True, source_comments=True) == before


def test_the_css_with_a_map_differs_in_its_last_line_only(bench: "Bench") -> None:
    """As LibSass writes it."""
    bench.write(SITE)
    plain = css_of(bench)
    assert css_of(bench, source_map=True) == f"{plain}\n/*# sourceMappingURL=site.css.map */"


def test_source_comments_name_files_from_the_project(
    bench: "Bench", monkeypatch: pytest.MonkeyPatch
) -> None:
    """What LibSass gives when it is run in the project's folder."""
    bench.write(SITE)
    monkeypatch.chdir(bench.project)
    expected = libsass.compile(filename="assets/css/site.scss", source_comments=True)
    monkeypatch.chdir("/")
    assert "/* line 2, assets/css/parts/nav.sass */" in expected
    assert css_of(bench, source_comments=True) == expected


# Dependencies


def test_every_place_that_is_asked_is_a_dependency(bench: "Bench") -> None:
    """There or not, in the order of the asking: a file that would be found first counts."""
    bench.write(
        {
            "assets/css/site.scss": '@import "a";',
            "vendor/_a.scss": '@import "b";',
            "vendor/_b.scss": "",
        }
    )
    asked = [*around("assets/css", "a")]
    asked += [f"assets/css/a/{u}index{e}" for u in ("_", "") for e in (".scss", ".sass", ".css")]
    asked += [*around("vendor", "a"), *around("vendor", "b")]
    assert places(bench, load_paths=["vendor"]) == asked


@pytest.mark.parametrize(
    "found",
    [
        *around("assets/css/sub", "a"),
        *around("vendor/sub", "a"),
        "assets/css/sub/a/_index.scss",
        "assets/css/sub/a/index.css",
        "vendor/sub/a/index.sass",
    ],
)
def test_the_file_that_libsass_takes_is_one_of_those_asked(bench: "Bench", found: str) -> None:
    """Alone it is found; beside another of its folder it is ambiguous or comes first."""
    bench.write({"assets/css/site.scss": '@import "sub/a";', found: ""})
    assert found in places(bench, load_paths=["vendor"])


@pytest.mark.parametrize(
    ("package", "path", "load_path"),
    [
        ("assets", "css/site.scss", "vendor"),
        ("bulma", "bulma.sass", ""),
        ("foundation-sites", "assets/foundation.scss", "foundation-sites/scss"),
    ],
)
def test_the_compiler_asks_for_what_we_depend_on_and_no_more(
    bench: "Bench", node_modules: Path, package: str, path: str, load_path: str
) -> None:
    """Its questions as the kernel sees them are our dependencies."""
    if package == "assets":
        imports = ("a/b", "../css/vars", "./../css/./vars", "p/../vars", "x.scss", "//y", "a//e")
        bench.write(
            {
                "assets/css/site.scss": "\n".join(f'@import "{name}";' for name in imports),
                "assets/css/_vars.scss": "",
                "assets/css/p/keep": "",
                "vendor/a/b/_index.sass": "@import c, ../d",
                "vendor/a/b/c.css": "",
                "vendor/a/_d.scss": "",
                "vendor/a/_e": "",
                "vendor/_x.scss": "",
            }
        )
    else:
        bench.project, bench.mount_name = node_modules, package
    strace = shutil.which("strace")
    assert strace is not None, "strace is missing: apt-get install strace"
    entry = str(bench.mount / path)
    nowhere, log = bench.staging / "n/o/w/h/e/r/e", bench.staging / "log"
    nowhere.mkdir(parents=True)
    code = "import sass, sys; sass.compile(filename=sys.argv[1], include_paths=sys.argv[2:])"
    command = [strace, "-qq", "-s", "4096", "-e", "trace=/^stat$,/^newfstatat$,/^statx$", "-o"]
    command += [str(log), sys.executable, "-c", code, entry, str(bench.project / load_path)]
    subprocess.run(command, cwd=nowhere, check=True)
    asked = re.findall(r'^\w+\((?:AT_FDCWD, )?"([^"]+)"', log.read_text(), re.MULTILINE)
    # What Python asks for its own sake comes before the entry or lies elsewhere.
    asked = [os.path.relpath(name, bench.project) for name in asked[asked.index(entry) :]]
    expected = {name for name in asked if not name.startswith("../")} - {f"{package}/{path}"}
    assert set(places(bench, path, load_paths=[load_path])) == expected


def test_a_broken_partial_is_named_and_heals(bench: "Bench") -> None:
    """All that is reached counts, also behind the place where the compiler gave up."""
    bench.write(
        SITE
        | {
            "assets/css/site.scss": '@import "vars";\n@import "broken";\n@import "late";',
            "assets/css/_broken.scss": "a {\n  b: $nope;\n}\n",
            "assets/css/_late.scss": '@import "later";',
            "assets/css/_later.scss": "",
        }
    )
    problem, desk = bench.refuse(sass, "css/site.scss")
    assert problem == Diagnostic(
        'Undefined variable: "$nope".', "assets/css/_broken.scss", 2, 6, "  b: $nope;"
    )
    told = {place for _, place, _ in desk.depended}
    partials = {f"assets/css/_{name}.scss" for name in ("vars", "broken", "late", "later")}
    assert partials <= told


def test_a_missing_import_heals_wherever_it_appears(bench: "Bench") -> None:
    """In its own folder or in a load path, under any of its names."""
    bench.write({"assets/css/site.scss": 'a { b: c }\n  @import "gone";'})
    problem, desk = bench.refuse(sass, "css/site.scss", load_paths=["vendor"])
    assert str(problem) == (
        "assets/css/site.scss:2:3: File to import not found or unreadable: gone."
    )
    told = {place for _, place, _ in desk.depended}
    assert {*around("assets/css", "gone"), *around("vendor", "gone")} <= told


# What is wrong


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"site.scss": "a { b: }"}, 'site.scss:1:7: Invalid CSS after "a { b:": expected'),
        ({"site.scss": "@mixin m { a: $x }\nb { @include m }"}, "site.scss:1:15: Undefined"),
        ({"site.scss": "a { b: nth(1, 3) }"}, "site.scss:1:8: index out of bounds"),
        ({"site.scss": "\n@error 'on line 3:4 of x';"}, "site.scss:2:1: on line 3:4 of x"),
        ({"site.scss": "a { @extend .b }"}, "site.scss:1: The target selector was not found.\n"),
        ({"site.scss": b"a {\n b: '\xff' }"}, "site.scss:2:6: not UTF-8: save it as UTF-8"),
        ({"site.scss": '@import "p";', "_p.scss": b"/* \xe9"}, "_p.scss:1:4: not UTF-8"),
        ({"site.scss": b"\xff\xfea\0"}, "site.scss:1:1: only UTF-8 documents are"),
        ({"site.sass": "a\n\n  b: c\n\nd\n  e: $nope"}, 'site.sass:6: Undefined variable: "$nope"'),
        (
            {"site.scss": '@import "p";', "_p.scss": "", "p.sass": ""},
            (
                "site.scss:1:1: It's not clear which file to import for '@import \"p\"'.\n"
                "Candidates:\n  _p.scss\n  p.sass\n"
            ),
        ),
        (
            {"site.scss": '@import "p";', "_p.scss": '@import "site";'},
            (
                "_p.scss:1:1: An @import loop has been found:\n"
                "    assets/css/site.scss imports assets/css/_p.scss"
            ),
        ),
        (
            {"site.scss": '/* @use "a" */ @use "b";\na { b: c }'},
            "site.scss:1:16: needs the modern compiler (@use); LibSass knows only @import",
        ),
        (
            {"site.scss": '@import "p";', "_p.scss": '\n@forward "q";'},
            "_p.scss:2:1: needs the modern compiler (@forward); LibSass knows only @import",
        ),
        (
            {"site.scss": '@import "p";', "_p.scss": '@use "sass:math";\na { b: math.abs(1) }'},
            "_p.scss:1:1: needs the modern compiler (@use); LibSass knows only @import",
        ),
    ],
)
def test_the_message_stands_at_the_broken_place(
    bench: "Bench", files: dict[str, str | bytes], expected: str
) -> None:
    """The file that is broken, not the one that imports it; lines and columns from 1."""
    bench.write({f"assets/css/{name}": content for name, content in files.items()})
    problem, _ = bench.refuse(sass, "css/" + next(iter(files)))
    assert str(problem)[: len(expected) + 11] == f"assets/css/{expected}"


@pytest.mark.parametrize(
    "text",
    ["a { b: \"@use 'x'\" }", '// @use "x";\na { b: c }', 'a { b: "@forward" }'],
)
def test_the_words_alone_need_no_modern_compiler(bench: "Bench", text: str) -> None:
    """In strings and comments they are just words."""
    bench.write({"assets/css/site.scss": text})
    assert css_of(bench) == libsass.compile(string=text)


def test_a_path_that_libsass_cannot_take_is_refused_clearly(bench: "Bench") -> None:
    """It knows paths as UTF-8, and load paths as one string with colons."""
    bench.write({os.fsdecode(b"assets/\xff.scss"): "", "assets/a.scss": ""})
    problem, _ = bench.refuse(sass, os.fsdecode(b"\xff.scss"))
    assert problem.message == "LibSass cannot open a path that is not UTF-8"
    problem, _ = bench.refuse(sass, "a.scss", load_paths=["a:b"])
    assert problem.message == f"LibSass splits load paths at ':': {bench.project}/a:b"


def test_warnings_are_told_and_change_nothing(bench: "Bench") -> None:
    """Each once for each place, as `@warn` prints it, even where it has blank lines."""
    text = (
        "@mixin m { @warn 'old: #{1 + 1}'; }\n@include m; @include m;\n"
        "@warn 1.5px, a b; @warn null; @warn true; @warn (k: v); @warn 'x\\a\\a y'; a { b: c }"
    )
    bench.write({"assets/css/site.scss": text})
    desk = bench.run(sass, "css/site.scss")
    assert [str(w) for w in desk.warnings] == [
        f"assets/css/site.scss:{told}"
        for told in (
            *("1:12: old: 2", "3:1: 1.5px, a b", "3:19: null", "3:31: true", "3:43: (k: v)"),
            "3:57: x\n\ny",
        )
    ]
    assert Path(desk.staged["css/site.css"]).read_text() == "a {\n  b: c; }\n"


def test_warning_of_a_function_does_not_kill_the_worker(bench: "Bench") -> None:
    """The binding segfaults when it hands one over."""
    bench.write({"assets/css/site.scss": "@warn get-function('red'); a { b: c }"})
    desk = bench.run(sass, "css/site.scss")
    assert [str(w) for w in desk.warnings] == ['assets/css/site.scss:1:1: get-function("red")']


DEPRECATED = {
    "assets/css/site.scss": '@import "old", "sub/plain";\n@debug "WARNING: no\\a one";\n',
    "assets/css/_old.scss": (
        "@function f() { @return 1; }\n"
        "@mixin m { $new: 1 !global; @warn 'stale'; }\n"
        ".a.b { w: call('f'); x: unquote(red); @include m; }\n"
        ".c { @extend .a.b; }\n"
    ),
    "assets/css/sub/plain.sass": ".d\n  e: unquote(red)\n  @warn 'here'\n",
}


def test_deprecations_are_warnings_with_places(
    bench: "Bench", capfd: pytest.CaptureFixture[str]
) -> None:
    """Of the file that is old, whatever imports it; what is no warning stays on stderr."""
    bench.write(DEPRECATED)
    desk = bench.run(sass, "css/site.scss")
    assert [
        str(w).partition("\n")[0].removesuffix(" in future versions.") for w in desk.warnings
    ] == [
        "assets/css/site.scss: Passing a string to call() is deprecated and will be illegal",
        "assets/css/_old.scss:3: Passing red, a non-string value, to unquote()",
        "assets/css/_old.scss:2: !global assignments won't be able to declare new variables",
        "assets/css/_old.scss:2:29: stale",
        "assets/css/_old.scss:4:14: Compound selectors may no longer be extended.",
        "assets/css/sub/plain.sass:2: Passing red, a non-string value, to unquote()",
        "assets/css/sub/plain.sass:3: here",
    ]
    assert desk.warnings[1].excerpt == ".a.b { w: call('f'); x: unquote(red); @include m; }"
    said = capfd.readouterr().err
    assert said == f"{bench.mount}/css/site.scss:2 DEBUG: WARNING: no\none\n"


def test_a_source_that_is_wrong_has_its_warnings_too(
    bench: "Bench", capfd: pytest.CaptureFixture[str]
) -> None:
    """And whatever else was printed; stderr is our own again."""
    bench.write({"assets/css/site.scss": "@warn 'first';\n@debug 'then';\na { b: 1px + 1s }"})
    _, desk = bench.refuse(sass, "css/site.scss")
    assert [str(w) for w in desk.warnings] == ["assets/css/site.scss:1:1: first"]
    os.write(2, b"ours\n")
    assert capfd.readouterr().err.endswith("css/site.scss:2 DEBUG: then\nours\n")


def test_what_is_not_understood_is_passed_on(capfd: pytest.CaptureFixture[str]) -> None:
    """Not a byte gets lost, of whatever encoding."""
    text = b"WARNING: of nothing\n\xff\n\nDEPRECATION WARNING on Monday\nWARNING"
    assert sass_printed.understood(text) == ([], text)
    sass_printed.pass_on(text)
    assert capfd.readouterr().err.encode(errors="surrogateescape").startswith(text[:20])
    warned = b"WARNING: \xff\n    on line 1:2 of \xfe.scss, in mixin `m`\n    from line 1 of b\n\n"
    (known,), rest = sass_printed.understood(b"before\n" + warned + text)
    assert known == sass_printed.Warned("\ufffd", os.fsdecode(b"\xfe.scss"), 1, 2)
    assert rest == b"before\n" + text


def test_a_source_that_prints_without_end_is_ended(bench: "Bench") -> None:
    """Before the memory is: the kernel ends its worker, which has no use for a limit else."""
    bench.write({"assets/a.scss": f"@while true {{ @debug '{'x' * 100_000}' }}"})
    code = (
        "import sys; from pathlib import Path; from tests.processors.conftest import Bench;"
        "from assetd_processors.sass import sass;"
        "Bench(Path(sys.argv[1]), Path(sys.argv[2])).run(sass, 'a.scss')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, bench.project, bench.staging],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        check=False,
        timeout=100,
    )
    assert (done.returncode, done.stderr) == (-signal.SIGXFSZ, b"")


def test_the_record_has_a_deprecation_with_its_place(tmp_path: Path) -> None:
    """A warning and no error: the output is in place."""
    (tmp_path / "site").mkdir()
    site = Site(tmp_path / "site")
    for name, text in DEPRECATED.items():
        site.write(name, text)
    site.run("build", check=True)
    with contextlib.closing(Reader(os.fspath(site.root / ".assetd/record.sqlite"))) as reader:
        (entry,) = (e for e in reader.entries() if e.source.path == "css/site.scss")
    warnings = [w for node in entry.nodes for w in node.warnings]
    assert ("assets/css/_old.scss", 4, 14) in {(w.file, w.line, w.column) for w in warnings}
    assert site.output("css/site.css")


def test_the_compiler_is_loaded_once(bench: "Bench") -> None:
    """What is warm is the library, and what a file imports, by its content."""
    assert sass.warm is not None
    assert isinstance(sass.warm(Setting(bench.project, OPTIONS, 0)), Engine)
    for name in ("a", "b", "a"):
        bench.write(
            {
                "assets/css/site.scss": "@import 'c';",
                "assets/css/_c.scss": f"@import '{name}';",
                f"assets/css/_{name}.scss": f".{name} {{ d: e }}",
            }
        )
        assert f".{name} {{" in css_of(bench)
        assert f"assets/css/_{name}.scss" in bench.told(sass, "css/site.scss")


def test_a_file_that_changes_while_it_is_looked_at_is_not_remembered(tmp_path: Path) -> None:
    """What it imports would be said of the old content, in all compilations to come."""
    engine = Engine()
    path = tmp_path / "a.scss"
    path.write_text("@import 'new';")
    old = hashlib.sha256(b"@import 'old';").hexdigest()
    assert engine.imports(os.fspath(path), old) == ("new",)
    path.write_text("@import 'old';")
    assert engine.imports(os.fspath(path), old) == ("old",)
    path.unlink()
    assert engine.imports(os.fspath(path), old) == ("old",)
    assert engine.imports(os.fspath(path), None) == ()


# The scanner


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('@import "a", \'b\' ;@import"c"', ["a", "b", "c"]),
        ('@import // x\n "a" /* y */, // z\n "b"; c {}', ["a", "b"]),
        ('x { @import "a" }', ["a"]),
        ("@import '\\61';", ["a"]),
        ('// @import "a";\n/* @import "b";\n@import "c"; */ @import "d";', ["d"]),
        ('a { b: url(//x) } @import "c";', ["c"]),
        ('a { b: "\n// c"; @import "d"; }', ["d"]),
        ('@import "a.css", "b.scss", "http://c/d", "//e";', ["b.scss"]),
        ('@import url(a), url("b"), "c";', ["c"]),
        ('@import "a" screen; @import "b", "c" (min-width: 1px) and print;', []),
        ('@import-x "a"; @importb "c";', []),
    ],
)
def test_the_imports_of_scss_are_found(text: str, names: list[str]) -> None:
    """Plain CSS imports are not among them."""
    assert list(sass_imports.imports(text, indented=False)) == names


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("@import a\n@import b, c/d , 'e'\nx\n  @import f\r\n@import g", [*"ab", "c/d", *"efg"]),
        ("@import a.css\n@import url(b)\n@import http://c\n@import d e", ["d e"]),
        ("/* x\n@import a\n// @import b\n", ["a"]),
    ],
)
def test_the_imports_of_the_indented_syntax_are_found(text: str, names: list[str]) -> None:
    """Without quotes, to the end of the line."""
    assert list(sass_imports.imports(text, indented=True)) == names


TOKENS = (
    *("@import", "@import ", '@import "a"', '@import "b";', "@import a\n", '"a"', "'b'", "a"),
    *(" ", "\n", "\n", "\r\n", "\n  ", "\t", "\f", ", ", ",", ";", ";\n", "//", "/*", "*/", "{"),
    *("}", "x{", "y:z;", "url(", "url(x)", ")", '"', "'", "\\\n", "#{1}", "c d", "screen"),
)


@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(words=st.lists(st.sampled_from(TOKENS), max_size=12), indented=st.booleans())
def test_nothing_that_libsass_imports_escapes_us(
    bench: "Bench", words: list[str], indented: bool
) -> None:
    """Whatever the text, the files that it read and the one that it missed were found."""
    text = "".join(words)
    entry = bench.project / ("in.sass" if indented else "in.scss")
    entry.write_text(text, newline="")
    for name in ("a.scss", "b.scss", "c d.scss"):
        (bench.project / name).touch()
    found = {n.removesuffix(".scss") for n in sass_imports.imports(text, indented=indented)}
    try:
        _, source_map = libsass.compile(filename=str(entry), source_map_filename="/map")
    except libsass.CompileError as error:
        missed = re.search(r"unreadable: (.*)\.\n        on line", str(error), re.DOTALL)
        name = missed[1].replace("\n       ", "\n") if missed else ""
        # A blank name is no name that a file could be given.
        assert name in found or not name.strip()
    else:
        read = {Path(name).stem for name in json.loads(source_map, strict=False)["sources"][1:]}
        assert read <= found
