"""`browserify` makes what Browserify's command line makes."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from assetd.processor import Names
from assetd_processors.browserify import browserify

if TYPE_CHECKING:
    from tests.processors.conftest import Bench, CommandLine

pytestmark = pytest.mark.usefixtures("tools")

OPTIONS: dict[str, Any] = {option.name: option.default for option in browserify.options}
PACKAGES = ("ms", "inherits", "xtend", "escape-html", "once")
APP = "".join(f"exports['{name}'] = require('{name}');\n" for name in PACKAGES)


def matched(*entries: str) -> list[str]:
    names = ("app.js", "js/app.js", "js/deep/app.js", "js/lib.js", "app.css")
    return [n for n in names if browserify.matches(n, OPTIONS | {"entries": entries})]


def test_it_takes_the_entries_and_nothing_else() -> None:
    """They are globs from the mount's folder; without any it takes nothing."""
    assert not browserify.default
    assert matched() == []
    assert matched("app.js") == ["app.js"]
    assert matched("js/*.js") == ["js/app.js", "js/lib.js"]
    assert matched("**/app.js", "/js/lib.js") == [
        "app.js",
        "js/app.js",
        "js/deep/app.js",
        "js/lib.js",
    ]
    assert matched("?pp.js", "app.css") == ["app.js"]


def test_the_output_has_the_suffix_that_is_asked_for(bench: "Bench") -> None:
    """The bundle takes the place of its entry, or stands beside it."""
    assert browserify.outputs("js/a.js", OPTIONS) == Names(("js/a.js",))
    assert browserify.outputs("a.js", OPTIONS | {"out_ext": "b.js"}) == Names(("a.b.js",))
    bench.write({"assets/a.js": "1"})
    made = bench.make(browserify, "a.js", out_ext=".bundle.js")
    assert made == {"a.bundle.js": bench.text(browserify, "a.js").encode()}


def test_a_bundle_of_packages_is_that_of_the_command_line(
    bench: "Bench", cli: "CommandLine", node_modules: Path
) -> None:
    """Byte for byte, and again from a warm one; every module is a dependency."""
    for package in (*PACKAGES, "wrappy"):
        shutil.copytree(node_modules / package, bench.project / "node_modules" / package)
    bench.write({"assets/js/app.js": APP})
    expected = cli("browserify", "assets/js/app.js")
    for _ in range(2):
        assert bench.text(browserify, "js/app.js").encode() == expected
    modules = cli("browserify", "--list", "assets/js/app.js").decode().split()
    told = bench.told(browserify, "js/app.js")
    read = {str(Path(m).relative_to(bench.project)) for m in modules} - {"assets/js/app.js"}
    assert len(read) >= 6
    assert read <= {place for place, there in told.items() if there}
    assert told["node_modules/ms/package.json"]
    assert told["assets/js/node_modules/ms/package.json"] is False


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ({"debug": True}, ["--debug"]),
        ({"standalone": "App"}, ["--standalone", "App"]),
        ({"bare": True}, ["--bare"]),
    ],
)
def test_options_are_those_of_the_command_line(
    bench: "Bench", cli: "CommandLine", options: dict[str, Any], arguments: list[str]
) -> None:
    """Each has an effect, and none of them reaches the next request."""
    bench.write({"assets/a.js": "exports.x = process.argv + require('./b');",
                 "assets/b.js": "module.exports = 1;"})  # fmt: skip
    plain = bench.text(browserify, "a.js")
    made = bench.text(browserify, "a.js", options=options)
    assert made.encode() == cli("browserify", *arguments, "assets/a.js")
    assert made != plain
    assert bench.text(browserify, "a.js") == plain


def test_a_transform_of_the_project_is_loaded_anew(bench: "Bench") -> None:
    """It is code of the user's, and a dependency as any other."""
    transform = (
        "module.exports = () => new (require('stream').Transform)({{"
        " transform(c, e, next) {{ next(null, String(c).replace('HERE', '{0}')); }} }});"
    )
    bench.write({"assets/a.js": "HERE", "t.js": transform.format("one")})
    options = {"transform": ["./t.js"]}
    assert "\none\n" in bench.text(browserify, "a.js", options=options)
    assert bench.told(browserify, "a.js", options=options)["t.js"]
    bench.write({"t.js": transform.format("two")})
    assert "\ntwo\n" in bench.text(browserify, "a.js", options=options)


def test_an_edited_module_is_read_anew(bench: "Bench") -> None:
    """A warm one remembers nothing."""
    bench.write({"assets/a.js": "require('./b');", "assets/b.js": "1;"})
    assert "\n1;\n" in bench.text(browserify, "a.js")
    bench.write({"assets/b.js": "2;"})
    assert "\n2;\n" in bench.text(browserify, "a.js")


def test_what_a_node_before_made_is_bundled_as_if_it_lay_in_the_mount(bench: "Bench") -> None:
    """`app.js` may come from `app.js.concat`."""
    bench.write({"made.js": "require('./b');", "assets/js/b.js": "module.exports = 1;"})
    desk = bench.run(browserify, "js/app.js", bench.project / "made.js")
    made = Path(desk.staged["js/app.js"]).read_text()
    bench.write({"assets/js/app.js": "require('./b');"})
    assert made == bench.text(browserify, "js/app.js")
    assert bench.depended(desk)["assets/js/b.js"]


@pytest.mark.parametrize("name", ["none", "./none"])
def test_a_module_that_is_not_there_heals_when_it_appears(bench: "Bench", name: str) -> None:
    """Every place where it would have been found is a dependency of the failure."""
    bench.write({"assets/js/a.js": "require('./b');", "assets/js/b.js": f"\nrequire('{name}');"})
    wrong, desk = bench.refuse(browserify, "js/a.js")
    assert (wrong.message, wrong.file, wrong.line) == (
        f"cannot find module '{name}'",
        "assets/js/b.js",
        2,
    )
    told = bench.depended(desk)
    if name == "none":
        wanted = {"node_modules/none/package.json", "assets/js/node_modules/none/index.js"}
    else:
        wanted = {"assets/js/none.js", "assets/js/none.json", "assets/js/none/index.js"}
    assert wanted <= {place for place, there in told.items() if not there}
    for place in wanted:
        assert place.startswith(("assets/", "node_modules/"))


def test_a_syntax_error_has_its_place(bench: "Bench") -> None:
    """In the module that it is in."""
    bench.write({"assets/a.js": "require('./b');", "assets/b.js": "1;\nvar = 2;\n"})
    wrong, desk = bench.refuse(browserify, "a.js")
    assert (wrong.message, wrong.file, wrong.line, wrong.column) == (
        "Unexpected token",
        "assets/b.js",
        2,
        5,
    )
    assert bench.depended(desk)["assets/b.js"]
