"""`pygments_style` makes the style sheet of a Pygments style."""

import builtins
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from assetd.processor import Names, Setting
from assetd_processors.pygments_style import pygments_style

if TYPE_CHECKING:
    from tests.processors.conftest import Bench

OPTIONS = {option.name: option.default for option in pygments_style.options}


def css_of(bench: "Bench", text: str, **options: Any) -> str:
    bench.write({"assets/css/code.pygstyle": text})
    return bench.make(pygments_style, "css/code.pygstyle", **options)["css/code.css"].decode()


def by_command_line(style: str, prefix: str) -> str:
    command = [sys.executable, "-m", "pygments", "-f", "html", "-S", style, "-a", prefix]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_pygstyle_becomes_a_style_sheet() -> None:
    """The name that the ancestor took, and the one it made."""
    assert pygments_style.matches("css/code.pygstyle", OPTIONS)
    assert not pygments_style.matches("css/code.css", OPTIONS)
    assert pygments_style.outputs("css/code.pygstyle", OPTIONS) == Names(("css/code.css",))


@pytest.mark.parametrize(
    ("text", "options", "style", "prefix"),
    [
        ("", {}, "default", ".highlight"),
        ("style: monokai", {}, "monokai", ".highlight"),
        ("style: vim\nclass: .code pre", {}, "vim", ".code pre"),
        ("", {"style": "vim"}, "vim", ".highlight"),
        ("", {"class": ".src"}, "default", ".src"),
        ("style: monokai", {"style": "vim", "class": ".src"}, "monokai", ".src"),
    ],
)
def test_the_css_is_that_of_the_command_line(
    bench: "Bench", text: str, options: dict[str, Any], style: str, prefix: str
) -> None:
    """Byte for byte; what the file says goes before the options."""
    assert css_of(bench, text, **options) == by_command_line(style, prefix)


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("style: monokay", "1:8", "Pygments has no style 'monokay' (did you mean 'monokai'?)"),
        ("stile: vim", "1:1", "unknown key 'stile' (did you mean 'style'?)"),
        ("- vim", "1:1", "expected a mapping with the keys style and class"),
        ("style: [vim]", "1:8", "expected a name for style"),
        ("class:", "1:7", "expected a name for class"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(
    bench: "Bench", text: str, place: str, message: str
) -> None:
    """The line that people edit."""
    bench.write({"assets/x.pygstyle": text})
    problem, _ = bench.refuse(pygments_style, "x.pygstyle")
    assert str(problem) == f"assets/x.pygstyle:{place}: {message}"


def test_an_unknown_style_in_the_options_is_told_of_the_configuration(bench: "Bench") -> None:
    """The file is not wrong."""
    bench.write({"assets/x.pygstyle": ""})
    problem, _ = bench.refuse(pygments_style, "x.pygstyle", style="none-such")
    assert str(problem).startswith("assetd.yml: pygments_style.style: Pygments has no style")


def test_without_pygments_it_says_what_to_type(
    bench: "Bench", monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the list of processors, and at each source."""
    from importlib.metadata import version

    assert pygments_style.tool is not None
    setting = Setting(Path("/"), OPTIONS, None)
    assert pygments_style.tool(setting).version == version("Pygments")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "path", [])
        tool = pygments_style.tool(setting)
    assert (tool.version, tool.cure) == (None, "pip install 'assetd[pygments]'")
    real = builtins.__import__

    def blocked(name: str, *rest: Any) -> Any:
        if name.startswith("pygments"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", blocked)
    bench.write({"assets/x.pygstyle": ""})
    problem, _ = bench.refuse(pygments_style, "x.pygstyle")
    assert problem.message == "Pygments is not installed: pip install 'assetd[pygments]'"
