"""`lightningcss` makes CSS small, and fit for the browsers that are named."""

import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from assetd.processor import Names, Setting
from assetd_processors.lightningcss import lightningcss

if TYPE_CHECKING:
    from tests.processors.conftest import Bench

OPTIONS = {option.name: option.default for option in lightningcss.options}


def made(bench: "Bench", css: str | bytes, **options: Any) -> str:
    bench.write({"assets/x.css": css})
    return bench.make(lightningcss, "x.css", **options)["x.css"].decode()


def test_it_takes_style_sheets_that_are_not_small_yet() -> None:
    """Only where a filter names it: a chain must not change because a library is installed."""
    assert [
        n for n in ("a.css", "b.CSS", "c.min.css", "d.scss") if lightningcss.matches(n, {})
    ] == [
        "a.css",
        "b.CSS",
    ]
    assert lightningcss.outputs("a.css", OPTIONS) == Names(("a.css",))
    assert not lightningcss.default


@pytest.mark.parametrize(
    ("css", "options", "expected"),
    [
        ("a { color: #ff0000 }", {}, "a{color:red}"),
        ("a { color: #ff0000 }", {"minify": False}, "a {\n  color: red;\n}\n"),
        ("a { user-select: none }", {}, "a{user-select:none}"),
        (
            "a { user-select: none }",
            {"targets": ["safari 10", "chrome 90"]},
            "a{-webkit-user-select:none;user-select:none}",
        ),
        ("a { & b { c: d } }", {}, "a{& b{c:d}}"),
        ("a { & b { c: d } }", {"nesting": False}, "a b{c:d}"),
        ("a { & b { c: d } }", {"targets": ["chrome 120"]}, "a{& b{c:d}}"),
        ("a { & b { c: d } }", {"targets": ["chrome 120"], "nesting": False}, "a b{c:d}"),
        ("a { & b { c: d } }", {"targets": ["chrome 80"]}, "a b{c:d}"),
        ("\ufeffa { b: c }", {}, "a{b:c}"),
        ("", {}, ""),
    ],
)
def test_each_option_has_its_effect(
    bench: "Bench", css: str, options: dict[str, Any], expected: str
) -> None:
    """And without any, the result is small and means the same everywhere."""
    assert made(bench, css, **options) == expected


def test_a_real_style_sheet_is_that_of_the_library(bench: "Bench", node_modules: Path) -> None:
    """Byte for byte."""
    import lightningcss as library

    css = (node_modules / "bootstrap-5/dist/css/bootstrap.css").read_text()
    assert made(bench, css) == library.process_stylesheet(css)


@pytest.mark.parametrize(
    ("css", "expected"),
    [
        ("a { b: c }\n\n  .x[ { d: e }", "assets/x.css:3:15: Unexpected end of input"),
        ("\n\n\n>>> b {}", "assets/x.css:4:1: Invalid empty selector"),
        (b"a {}\n\xff", "assets/x.css:2: not UTF-8: save it as UTF-8"),
    ],
)
def test_broken_css_is_told_with_its_place(bench: "Bench", css: str | bytes, expected: str) -> None:
    """Lines and columns from 1."""
    bench.write({"assets/x.css": css})
    problem, _ = bench.refuse(lightningcss, "x.css")
    assert str(problem).startswith(expected)


def test_an_unknown_browser_is_told_of_the_configuration(bench: "Bench") -> None:
    """The style sheet is not wrong."""
    bench.write({"assets/x.css": ""})
    problem, _ = bench.refuse(lightningcss, "x.css", targets=["netscape 4"])
    assert str(problem) == "assetd.yml: lightningcss.targets: unknown browser: 'netscape'"


def test_without_the_library_it_says_what_to_type(
    bench: "Bench", monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the list of processors, and at each source."""
    setting = Setting(Path("/"), OPTIONS, None)
    assert lightningcss.tool is not None
    assert lightningcss.tool(setting).version == version("lightningcss")

    with monkeypatch.context() as patch:
        patch.setattr(sys, "path", [])
        tool = lightningcss.tool(setting)
    assert (tool.version, tool.cure) == (None, "pip install 'assetd[lightningcss]'")
    bench.write({"assets/x.css": ""})
    bench.warm["lightningcss"] = None
    problem, _ = bench.refuse(lightningcss, "x.css")
    assert problem.message.endswith("is not installed: pip install 'assetd[lightningcss]'")
