"""`svgo` makes what SVGO's command line makes."""

import json
from typing import TYPE_CHECKING

import pytest

from assetd.processor import Names
from assetd_processors.svgo import svgo

if TYPE_CHECKING:
    from tests.processors.conftest import Bench, CommandLine

pytestmark = pytest.mark.usefixtures("tools")

DRAWING = """<?xml version="1.0"?>
<!-- drawn by hand -->
<svg xmlns="http://www.w3.org/2000/svg" width="20" height="20" viewBox="0 0 20 20">
  <title>A line</title>
  <g><g/></g>
  <path d="M 10.12345 10 L 20 20"/>
</svg>
"""


def test_it_is_for_those_who_name_it() -> None:
    """Chains stay predictable: `all` does not mean it."""
    assert not svgo.default
    assert svgo.matches("a/b.SVG", {})
    assert svgo.outputs("a/b.svg", {}) == Names(("a/b.svg",))


def test_a_drawing_is_that_of_the_command_line(bench: "Bench", cli: "CommandLine") -> None:
    """Byte for byte, and again from a warm one."""
    bench.write({"assets/a.svg": DRAWING})
    cli("svgo", "assets/a.svg", "-o", "out.svg")
    for _ in range(2):
        assert bench.text(svgo, "a.svg").encode() == cli.file("out.svg")
    assert bench.told(svgo, "a.svg") == {}


def test_config_is_what_a_configuration_file_holds(bench: "Bench", cli: "CommandLine") -> None:
    """Precision, layout, plugins with parameters."""
    config = {
        "floatPrecision": 1,
        "multipass": True,
        "js2svg": {"pretty": True},
        "plugins": [{"name": "preset-default", "params": {"overrides": {"removeComments": False}}}],
    }
    text = f"export default {json.dumps(config)};"
    bench.write({"assets/a.svg": DRAWING, "svgo.config.mjs": text})
    plain = bench.text(svgo, "a.svg")
    cli("svgo", "--config", "svgo.config.mjs", "assets/a.svg", "-o", "out.svg")
    made = bench.text(svgo, "a.svg", config=config)
    assert made.encode() == cli.file("out.svg")
    assert made != plain


def test_an_error_has_its_place(bench: "Bench") -> None:
    """Counted from 1."""
    bench.write({"assets/a.svg": "<svg>\n<g></svg>"})
    wrong, _ = bench.refuse(svgo, "a.svg")
    assert (wrong.message, wrong.file, wrong.line) == ("Unexpected close tag", "assets/a.svg", 2)
