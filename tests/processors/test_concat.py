"""`concat` joins the files of a YAML list, and says which line is wrong."""

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from assetd.model import Kind
from assetd.processor import Names
from assetd_processors import source_maps
from assetd_processors.concat import concat
from assetd_processors.sass import sass

if TYPE_CHECKING:
    from tests.processors.conftest import Bench

PARTS: dict[str, str | bytes] = {
    "assets/js/a.js": "a",
    "assets/js/b.js": b"\xff\x00",
    "assets/js/more/c.js": "c\n",
    "assets/lib/d.js": "d",
    "shared/e.js": "e",
}


def test_the_output_has_the_name_without_the_suffix() -> None:
    """`app.js.concat` makes `app.js`, which the processors of `.js` may take then."""
    assert concat.matches("js/app.js.concat", {})
    assert not concat.matches("js/.concat", {})
    assert not concat.matches("js/app.concat.js", {})
    assert concat.outputs("js/app.js.concat", {"source_map": False}) == Names(("js/app.js",))


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ("files: [a.js]", b"a"),
        ("files: [b.js, a.js]", b"\xff\x00\na"),
        ('files: [a.js, more/c.js, a.js]\ndelim: ";\\n"', b"a;\nc\n"),
        ('files: [a.js, b.js]\ndelim: ""', b"a\xff\x00"),
        ("files: [../lib/d.js]\npath_mode: relative", b"d"),
        ("files: [lib/d.js, js/a.js]\npath_mode: absolute", b"d\na"),
        ("files: [/lib/d.js]", b"d"),
        ("files: [../../shared/e.js]", b"e"),
        ("files: ['*.js']", b"a\n\xff\x00"),
        ("files: [b.js, '*.js', '**/*.js']", b"\xff\x00\na\nc\n"),
        ("files: ['../*/[a-d].js']", b"a\n\xff\x00\nd"),
        ("files: ['*']", b"a\n\xff\x00"),
        ("files: ['../../shared/?.js']", b"e"),
    ],
)
def test_parts_are_joined_in_the_order_of_the_list(
    bench: "Bench", recipe: str, expected: bytes
) -> None:
    """As bytes, with the delimiter between them; no file is brought twice."""
    bench.write(PARTS | {"assets/js/app.js.concat": recipe})
    assert bench.make(concat, "js/app.js.concat") == {"js/app.js": expected}


def test_parts_and_patterns_are_dependencies(bench: "Bench") -> None:
    """A part that changes, and a name that comes or goes, runs it again."""
    bench.write(PARTS | {"assets/js/app.js.concat": "files: [a.js, '../lib/**/*.js']"})
    desk = bench.run(concat, "js/app.js.concat")
    assert list(desk.depended) == [
        (Kind.FILE, "assets/js/a.js", ""),
        (Kind.GLOB, "assets/lib", "**/*.js"),
        (Kind.FILE, "assets/lib/d.js", ""),
    ]


def test_a_missing_part_is_told_with_its_line_and_heals(bench: "Bench") -> None:
    """Every part is a dependency, those after the missing one too."""
    recipe = "files:\n  - a.js\n  - gone.js\n  - b.js\n"
    bench.write(PARTS | {"assets/js/app.js.concat": recipe})
    problem, desk = bench.refuse(concat, "js/app.js.concat")
    assert str(problem) == "assets/js/app.js.concat:3:5: assets/js/gone.js does not exist"
    assert problem.excerpt == "  - gone.js"
    assert [place for _, place, _ in desk.depended] == [
        "assets/js/a.js",
        "assets/js/gone.js",
        "assets/js/b.js",
    ]


def test_a_pattern_that_finds_nothing_is_a_warning(bench: "Bench") -> None:
    """It may find something later; a result of nothing at all is an error."""
    bench.write(PARTS | {"assets/js/app.js.concat": "files:\n- a.js\n- '*.ts'"})
    desk = bench.run(concat, "js/app.js.concat")
    assert [str(w) for w in desk.warnings] == ["assets/js/app.js.concat:3: *.ts finds no file"]
    bench.write({"assets/js/app.js.concat": "files: ['*.ts']"})
    problem, desk = bench.refuse(concat, "js/app.js.concat")
    assert problem.message == "nothing to join: no pattern finds a file"
    assert list(desk.depended) == [(Kind.GLOB, "assets/js", "*.ts")]


@pytest.mark.parametrize(
    ("recipe", "place", "message"),
    [
        ("files: [a.js", "1:13", "bad YAML: expected ',' or ']', but got '<stream end>'"),
        ("a: b: c", "1:5", "bad YAML: mapping values are not allowed here"),
        (
            "files:\n- *.js",
            "2:4",
            (
                "bad YAML: expected alphabetic or numeric character, but found '.'"
                " (a pattern that starts with * needs quotes)"
            ),
        ),
        (
            "files:\n- *js",
            "2:3",
            "bad YAML: found undefined alias 'js' (a pattern that starts with * needs quotes)",
        ),
        (b"files:\n- \xff", "2", "not UTF-8: save it as UTF-8"),
        ("files:\n- a\0", "2", "bad YAML: special characters are not allowed"),
        ("[" * 5000, "", "bad YAML: nested too deeply"),
        ("", "1", "expected a mapping with the key files"),
        ("- a.js", "1:1", "expected a mapping with the key files"),
        ("delim: x", "1:1", "the key files is missing"),
        ("files: []", "1:8", "files is empty"),
        ("files: a.js", "1:8", "files must be a list of paths"),
        ("files: {a: b}", "1:8", "files must be a list of paths"),
        ("files: [a.js, [b.js]]", "1:15", "expected a path or a pattern"),
        ("files:\n- a.js\n-\n", "3:2", "expected a path or a pattern"),
        ("files: [/]", "1:9", "expected a path or a pattern"),
        ('files: ["a\\0"]', "1:9", "a path cannot hold a NUL character"),
        ("files: [a.js]\nfile: b", "2:1", "unknown key 'file' (did you mean 'files'?)"),
        ("files: [a.js]\nxyz: b", "2:1", "unknown key 'xyz' (known: files, path_mode, delim)"),
        ("files: [a.js]\n[x]: b", "2:1", "expected a name for a key"),
        ("files: [a.js]\nfiles: [b.js]", "2:1", "the key files is given twice"),
        (
            "files: [a.js]\npath_mode: relativ",
            "2:12",
            "path_mode must be relative or absolute (did you mean 'relative'?)",
        ),
        ("files: [a.js]\npath_mode: []", "2:12", "path_mode must be relative or absolute"),
        ("files: [a.js]\ndelim: 1", "2:8", 'delim must be a string (nothing between files: "")'),
        ("files: [a.js]\ndelim:\n", "2:7", 'delim must be a string (nothing between files: "")'),
        ("files: [more]", "1:9", "assets/js/more is a folder, not a file"),
        ("files: [../../../o.js]", "1:9", "../../../o.js leads out of the project"),
        ("files: ['../../../*.js']", "1:9", "../../../*.js leads out of the project"),
        ("files: [../../link.js]", "1:9", "../../link.js leads out of the project"),
        ("files: [../../link/o.js]", "1:9", "../../link/o.js leads out of the project"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(
    bench: "Bench", recipe: str | bytes, place: str, message: str
) -> None:
    """The file that people edit, the line, and what is wrong there."""
    bench.write(PARTS | {"assets/js/app.js.concat": recipe, "../o.js": "o"})
    (bench.project / "link.js").symlink_to("../o.js")
    (bench.project / "link").symlink_to("..")
    problem, _ = bench.refuse(concat, "js/app.js.concat")
    where = f"assets/js/app.js.concat:{place}" if place else "assets/js/app.js.concat"
    assert str(problem) == f"{where}: {message}"


def test_a_joined_style_sheet_goes_on_to_the_next_processor() -> None:
    """The output is a file like any other for those that match it."""
    assert concat.outputs("css/all.scss.concat", {"source_map": True}) == Names(("css/all.scss",))
    assert sass.matches("css/all.scss", {})


# Source maps

MAPPED = (
    '{"version":3,"file":"b.min.js","sources":["src/b.ts"],"sourcesContent":["let b = 1"],'
    '"names":["b"],"mappings":"AAAAA,IAAAA"}'
)


def origin_of(text: str, line: int, column: int) -> tuple[str, int, int] | None:
    """Where a position comes from."""
    parsed = source_maps.parse(text)
    before = [s for s in parsed.lines[line] if s.column <= column]
    origin = before[-1].origin if before else None
    return None if origin is None else (parsed.sources[origin.source], origin.line, origin.column)


def made_with_map(bench: "Bench", name: str = "js/app.js") -> tuple[str, dict[str, Any]]:
    made = bench.make(concat, f"{name}.concat", source_map=True)
    return made[name].decode(), json.loads(made[f"{name}.map"])


def test_the_map_is_announced_for_scripts_and_style_sheets() -> None:
    """Nobody reads a source map of anything else."""
    for name, companions in (("a.js", ("a.js.map",)), ("a.css", ("a.css.map",)), ("a.scss", ())):
        names = concat.outputs(f"{name}.concat", {"source_map": True})
        assert names == Names((name,), companions)


def test_every_position_leads_to_where_it_comes_from(bench: "Bench") -> None:
    """To the part, or by its own map to where that comes from: beside it, or inside."""
    inline = base64.b64encode(MAPPED.replace("src/b.ts", "deep/c.ts").encode()).decode()
    bench.write(
        {
            "assets/js/a.js": "a1();\na2();\n",
            "assets/lib/b.min.js": "b = 1\n//# sourceMappingURL=maps/b.map\n",
            "assets/lib/maps/b.map": MAPPED,
            "assets/js/c.js": f"c = 1 //@ sourceMappingURL=data:application/json;base64,{inline}",
            "assets/js/app.js.concat": "files: [a.js, ../lib/b.min.js, c.js]",
        }
    )
    text, source_map = made_with_map(bench)
    assert text == "a1();\na2();\n\nb = 1\n\n\nc = 1 \n//# sourceMappingURL=app.js.map\n"
    assert source_map["file"] == "app.js"
    names = ["assets/js/a.js", "assets/lib/maps/src/b.ts", "assets/js/deep/c.ts"]
    assert source_map["sources"] == names
    assert source_map["sourcesContent"] == ["a1();\na2();\n", "let b = 1", "let b = 1"]
    written = json.dumps(source_map)
    assert origin_of(written, 0, 0) == (names[0], 0, 0)
    assert origin_of(written, 1, 2) == (names[0], 1, 0)
    assert origin_of(written, 3, 0) == (names[1], 0, 0)
    assert origin_of(written, 6, 4) == (names[2], 0, 0)


def test_style_sheets_have_maps_too(bench: "Bench") -> None:
    """Their comments are of another form; a source without content is read."""
    bench.write(
        {
            "assets/a.css": "a{b:c}/*# sourceMappingURL=a%20b.map */\n",
            "assets/a b.map": '{"version":3,"sources":["a.less"],"names":[],"mappings":"AAAA"}',
            "assets/a.less": "a { b: c }",
            "assets/all.css.concat": 'files: [a.css]\ndelim: ""',
        }
    )
    text, source_map = made_with_map(bench, "all.css")
    assert text == "a{b:c}\n/*# sourceMappingURL=all.css.map */\n"
    assert source_map["sources"] == ["assets/a.less"]
    assert source_map["sourcesContent"] == ["a { b: c }"]
    desk = bench.run(concat, "all.css.concat", source_map=True)
    assert [place for _, place, _ in desk.depended] == [
        "assets/a.css",
        "assets/a b.map",
        "assets/a.less",
    ]


@pytest.mark.parametrize(
    ("link", "told"),
    [
        ("gone.map", "assets/x.js:2: its source map gone.map does not exist"),
        ("bad.map", "assets/bad.map: not a source map: it is no JSON"),
        ("data:application/json;base64,!", "assets/x.js:2: not a source map: "),
        ("https://example.org/x.map", "assets/x.js:2: the source map https://example.org/x.map is"),
        (".", "assets/x.js:2: its source map . cannot be read: Is a directory"),
    ],
)
def test_a_map_that_cannot_be_had_is_a_warning(bench: "Bench", link: str, told: str) -> None:
    """The map leads to the part then, and heals when the part's map does."""
    bench.write(
        {
            "assets/x.js": f"x\n//# sourceMappingURL={link}\n",
            "assets/bad.map": "{",
            "assets/app.js.concat": "files: [x.js]",
        }
    )
    desk = bench.run(concat, "app.js.concat", source_map=True)
    (warning,) = desk.warnings
    assert str(warning).startswith(told)
    assert json.loads(Path(desk.staged["app.js.map"]).read_text())["sources"] == ["assets/x.js"]
    if link == "gone.map":
        assert "assets/gone.map" in [place for _, place, _ in desk.depended]


def test_without_the_option_bytes_stay_as_they_are(bench: "Bench") -> None:
    """Comments too."""
    bench.write(
        {"assets/x.js": "x //# sourceMappingURL=x.map", "assets/app.js.concat": "files: [x.js]"}
    )
    assert bench.make(concat, "app.js.concat") == {"app.js": b"x //# sourceMappingURL=x.map"}
