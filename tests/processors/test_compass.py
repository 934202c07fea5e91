"""`compass` compiles Sass with Compass: under LibSass, or by the user's own command."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from assetd.model import Kind
from assetd.processor import Names, Setting
from assetd.testing import Site
from assetd_processors import tools as node_tools
from assetd_processors.compass import compass
from assetd_processors.sass import sass

if TYPE_CHECKING:
    from tests.processors.conftest import Bench

OPTIONS = {option.name: option.default for option in compass.options}
ON = OPTIONS | {"enable": True}
COMMAND = ON | {"engine": "command"}

COMPASS = """#!/usr/bin/python3
import json, os, pathlib, sys
if sys.argv[1:] == ["--version"]:
    print("Compass 1.0.3 (Polaris)")
    sys.exit()
here = pathlib.Path(__file__).parent
with open(here / "runs", "a") as log:
    log.write(json.dumps({"cwd": os.getcwd(), "arguments": sys.argv[1:]}) + "\\n")
(out,) = [a.split("=")[1] for a in sys.argv if a.startswith("--css-dir=")]
config = pathlib.Path(sys.argv[sys.argv.index("--config") + 1]).read_text()
for source in sorted(pathlib.Path().rglob("*.s[ac]ss")):
    text = source.read_text()
    if "broken" in text:
        print(f"\\x1b[31m    error {source} (Line 2: Undefined variable: \\"$c\\".)\\x1b[0m")
        sys.exit(1)
    if not source.name.startswith("_"):
        made = pathlib.Path(out, source.with_suffix(".css"))
        made.parent.mkdir(parents=True, exist_ok=True)
        made.write_text(f"/* {config} */\\n{text}")
"""


@pytest.fixture
def command(tmp_path: Path) -> Path:
    """A stand-in for the user's Compass; its runs are in `runs` beside it."""
    path = tmp_path / "bin" / "compass"
    path.parent.mkdir()
    path.write_text(COMPASS)
    path.chmod(0o755)
    return path


def runs(command: Path) -> list[dict[str, Any]]:
    log = command.with_name("runs")
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


# What it takes


def test_it_takes_nothing_until_it_is_enabled() -> None:
    """Then it comes before `sass`."""
    assert not compass.matches("a.scss", OPTIONS)
    assert not compass.include_only("_a.scss", OPTIONS)
    assert [n for n in ("a.scss", "b.SASS", "c.css") if compass.matches(n, ON)] == [
        "a.scss",
        "b.SASS",
    ]
    assert compass.include_only("x/_a.scss", ON)
    assert compass.priority < sass.priority
    with_map = ON | {"source_map": True}
    assert compass.outputs("x/a.scss", with_map) == Names(("x/a.css",), ("x/a.css.map",))


def test_the_command_takes_its_configuration_and_leaves_nothing_to_sass() -> None:
    """One root; the style sheets are there to be included."""
    names = ("config.rb", "css/config.rb", "a.scss")
    assert [n for n in names if compass.matches(n, COMMAND)] == ["config.rb"]
    elsewhere = COMMAND | {"config_path": "./css/config.rb"}
    assert [n for n in names if compass.matches(n, elsewhere)] == ["css/config.rb"]
    assert compass.include_only("a.scss", COMMAND)
    assert callable(compass.bypass)
    assert [compass.bypass("config.rb", options) for options in (COMMAND, ON)] == [True, False]


# The engine libsass


def css_of(bench: "Bench", text: str, **options: Any) -> str:
    bench.write({"assets/x.scss": text})
    return bench.make(compass, "x.scss", enable=True, **options)["x.css"].decode()


def test_the_framework_is_there(bench: "Bench", tools: Path) -> None:
    """Mixins and functions of Compass, and all of its style sheets as dependencies."""
    text = '@import "compass";\na { @include border-radius(4px); b: shade(#fff, 50%) }'
    made = css_of(bench, text, style="expanded")
    assert "  -webkit-border-radius: 4px;\n" in made
    assert "  border-radius: 4px;\n" in made
    assert "shade" not in made
    desk = bench.run(compass, "x.scss", enable=True)
    assert str(tools / "compass-mixins/lib/_compass.scss") in [p for _, p, _ in desk.depended]


def test_its_css_is_that_of_libsass_with_the_package_as_load_path(
    bench: "Bench", tools: Path
) -> None:
    """Byte for byte."""
    import sass as libsass

    text = '@import "compass/css3";\na { @include transition(color 1s); @include opacity(.5) }'
    expected = libsass.compile(
        string=text, include_paths=[str(tools / "compass-mixins/lib")], output_style="compressed"
    )
    assert css_of(bench, text, style="compressed") == expected


def test_it_has_the_options_of_sass(bench: "Bench", tools: Path) -> None:
    """They do what they do there."""
    bench.write({"vendor/_lib.scss": "$n: 1/3;"})
    text = '@import "lib";\na { b: $n + 0 }'
    made = css_of(bench, text, load_paths=["vendor"], precision=2, source_comments=True)
    assert made == "/* line 2, assets/x.scss */\na {\n  b: 0.33; }\n"
    bench.write({"assets/x.scss": "a { b: c }"})
    assert "x.css.map" in bench.make(compass, "x.scss", enable=True, source_map=True)


@pytest.mark.parametrize(
    ("text", "place", "what"),
    [
        ('a {\n  b: inline-image("x.png") }', "2:6", "inline-image()"),
        ('a { width: image-width("x.png") }', "1:12", "image-width()"),
        ('$m: sprite-map("i/*.png");\na { b: sprite($m, x) }', None, "sprite"),
        ('@import "icons/*.png";', "1:1", "sprites"),
    ],
)
def test_what_ruby_does_is_refused(
    bench: "Bench", tools: Path, text: str, place: str | None, what: str
) -> None:
    """LibSass would publish the call as CSS."""
    bench.write({"assets/x.scss": text})
    problem, _ = bench.refuse(compass, "x.scss", enable=True)
    assert problem.message.startswith(what)
    assert "needs Compass's Ruby: set `compass: {engine: command}`" in problem.message
    if place is not None:
        assert str(problem).startswith(f"assets/x.scss:{place}: ")


def test_other_errors_are_those_of_libsass(bench: "Bench", tools: Path) -> None:
    """With their place."""
    bench.write({"assets/x.scss": '@import "compass";\na { b: $c }'})
    problem, _ = bench.refuse(compass, "x.scss", enable=True)
    assert str(problem) == 'assets/x.scss:2:8: Undefined variable: "$c".'


def test_without_the_package_it_says_what_to_type(
    bench: "Bench", tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the list of processors, and at each source."""
    assert compass.tool is not None
    tool = compass.tool(Setting(tmp_path, ON, None))
    assert tool.version is not None
    assert tool.version.startswith("0.12.12 with libsass 0.23")
    monkeypatch.setattr(node_tools, "packages", lambda: tmp_path)
    tool = compass.tool(Setting(tmp_path, ON, None))
    assert (tool.version, tool.cure) == (None, "run `assetd tools install`")
    bench.write({"assets/x.scss": ""})
    problem, _ = bench.refuse(compass, "x.scss", enable=True)
    assert problem.message == "compass-mixins is not installed: run `assetd tools install`"


# The engine command


def test_the_tool_is_the_users(command: Path, tmp_path: Path) -> None:
    """Asked for its version, or said how to get one; a relative path starts from the project."""
    assert compass.tool is not None
    for name in (str(command), "bin/compass"):
        tool = compass.tool(Setting(tmp_path, COMMAND | {"bin": name}, None))
        assert (tool.name, tool.version) == ("compass", "1.0.3")
    tool = compass.tool(Setting(tmp_path, COMMAND | {"bin": "no-such-compass"}, None))
    assert (tool.version, (tool.cure or "")[:19]) == (None, "gem install compass")


def test_it_runs_where_its_configuration_lies(bench: "Bench", command: Path) -> None:
    """With what the options say, and all that it may read as dependencies."""
    bench.write(
        {
            "assets/css/setup.rb": "v1",
            "assets/css/a.scss": "a {}",
            "assets/css/_p.scss": "",
            "assets/css/i/x.png": b"",
            "assets/other.scss": "",
        }
    )
    given: dict[str, Any] = {
        "bin": str(command),
        "config_path": "css/setup.rb",
        "frameworks": ["susy", "ext/more"],
        "options": "--sass-dir=. --css-dir=%out_dir%/c --cache='%tmp_dir%/a b'",
    }
    desk = bench.run(compass, "css/setup.rb", enable=True, engine="command", **given)
    made = {name: Path(path).read_text() for name, path in desk.staged.items()}
    assert made == {"css/c/a.css": "/* v1 */\na {}"}
    (ran,) = runs(command)
    assert ran["cwd"] == str(bench.mount / "css")
    arguments = ran["arguments"]
    assert arguments[:7] == [
        "compile",
        "--config",
        "setup.rb",
        "--load",
        "susy",
        "--load",
        "ext/more",
    ]
    assert arguments[9].startswith("--cache=../../../staging/")
    assert arguments[9].endswith("/tmp/a b")
    places = [place for kind, place, _ in desk.depended if kind is Kind.FILE]
    assert places == ["assets/css/_p.scss", "assets/css/a.scss", "assets/css/i/x.png"]
    assert (Kind.GLOB, "assets/css", "**/*.scss") in desk.depended


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        (
            {"assets/a.scss": "\nbroken"},
            {},
            'assets/a.scss:2: Undefined variable: "$c".',
        ),
        ({}, {}, "assets/config.rb: compass made no file in %out_dir%; it said: nothing"),
        ({}, {"options": "'"}, "assets/config.rb: compass.options: No closing quotation"),
        ({}, {"bin": "/no/compass"}, "assets/config.rb: the command /no/compass is not there"),
        ({}, {"options": "--x"}, "assets/config.rb: compass ended with 1: Traceback"),
    ],
)
def test_what_is_wrong_is_told(
    bench: "Bench",
    command: Path,
    files: dict[str, str | bytes],
    options: dict[str, Any],
    message: str,
) -> None:
    """At the style sheet, if Compass names one."""
    bench.write({"assets/config.rb": ""} | files)
    given = {"bin": str(command)} | options
    problem, _ = bench.refuse(compass, "config.rb", enable=True, engine="command", **given)
    assert str(problem).startswith(message)


def test_it_runs_once_per_batch_and_once_only(command: Path, tmp_path: Path) -> None:
    """However many files changed, in a build and in a daemon; what it no longer makes goes."""
    site = Site(
        tmp_path / "site",
        "mounts: [assets]\nworkers: 2\n"
        f"compass: {{enable: true, engine: command, bin: {command}}}\n"
        f"sandbox_write: {command.parent}\n",
    )
    site.write("assets/config.rb", "one")
    for name in ("a", "b", "sub/c"):
        site.write(f"assets/{name}.scss", f"{name} {{}}")
    site.write("assets/_p.scss")
    site.build()
    expected = {f"{n}.css": f"/* one */\n{n} {{}}".encode() for n in ("a", "b", "sub/c")}
    assert site.outputs() == expected
    assert len(runs(command)) == 1
    with site.daemon() as daemon:
        assert len(runs(command)) == 1
        site.write("assets/_p.scss", "$x: 1;")
        assert daemon.sync() == []
        assert len(runs(command)) == 2
        site.remove("assets/a.scss")
        site.write("assets/d.scss", "d {}")
        assert daemon.sync() == []
        assert set(site.outputs()) == {"b.css", "d.css", "sub/c.css"}
        assert 3 <= len(runs(command)) <= 4  # a deletion settles later than an edit
        assert site.outputs() == site.clean_build()
