"""Source maps survive being taken apart and put together."""

import json
import shutil
import subprocess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assetd_processors import source_maps
from assetd_processors.source_maps import Joiner, MapError, Origin, Segment, SourceMap

NUMBERS = st.integers(0, 1 << 20)
ORIGINS = st.builds(Origin, NUMBERS, NUMBERS, NUMBERS, st.none() | NUMBERS)
SEGMENTS = st.builds(Segment, NUMBERS, st.none() | ORIGINS)
LINES = st.lists(
    st.lists(SEGMENTS, unique_by=lambda s: s.column).map(
        lambda line: sorted(line, key=lambda s: s.column)
    ),
    min_size=1,
)


def origin_of(text: str, line: int, column: int) -> tuple[str, int, int] | None:
    """Where a position comes from, by a reader that is not ours."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node reads the map for us")
    script = (
        "const {SourceMap} = require('module');"
        "const found = new SourceMap(JSON.parse(process.argv[1]))"
        ".findEntry(+process.argv[2], +process.argv[3]);"
        "console.log(JSON.stringify(found))"
    )
    command = [node, "-e", script, text, str(line), str(column)]
    found: dict[str, Any] = json.loads(
        subprocess.run(command, capture_output=True, text=True, check=True).stdout
    )
    if "originalSource" not in found:
        return None
    return found["originalSource"], found["originalLine"], found["originalColumn"]


@given(LINES)
def test_what_is_encoded_is_decoded(lines: list[list[Segment]]) -> None:
    """Any segment on any line."""
    assert source_maps.decode(source_maps.encode(lines)) == lines


def test_the_digits_are_those_of_the_format() -> None:
    """The examples of the specification's tests, and the edges of a digit."""
    lines = [[Segment(0, Origin(0, 0, 0))], [], [Segment(15, None), Segment(16, Origin(0, 1, 512))]]
    assert source_maps.encode(lines) == "AAAA;;e,CACggB"
    assert source_maps.decode("AAAA;;e,CACggB") == lines


@pytest.mark.parametrize(
    ("mappings", "message"),
    [
        ("A!", "'!' is no digit of a mapping"),
        ("AA", "the segment 'AA' has 2 fields"),
        ("g", "the mappings end within a number: 'g'"),
        ("D", "the segment 'D' lies before its line"),
        ("AADA", "the segment 'AADA' leads to before the start"),
        ("g" * 20 + "A", "a number in the mappings is too large"),
    ],
)
def test_broken_mappings_are_refused(mappings: str, message: str) -> None:
    """Other people's files are no reason to crash."""
    with pytest.raises(MapError) as caught:
        source_maps.decode(mappings)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"mappings": 1, "sources": []}',
        '{"mappings": "AAAA", "sources": []}',
        '{"mappings": "AAAAA", "sources": ["a"], "names": []}',
        '{"sections": [{}]}',
        "[" * 100_000,
    ],
)
def test_what_is_no_map_is_refused(text: str) -> None:
    """Whatever it is."""
    if text == '{"mappings": "AAAAA", "sources": ["a"], "names": []}':
        text = '{"mappings": "AAAAC", "sources": ["a"], "names": []}'
    with pytest.raises(MapError):
        source_maps.parse(text)


def test_joined_texts_lead_to_their_own_sources() -> None:
    """Also behind text on the same line, and past characters that are two code units."""
    joiner = Joiner()
    joiner.add("/*😀*/", None)
    joiner.add("a();\n b();", source_maps.identity("a();\n b();", "one.js"))
    joiner.add(";\n\n", None)
    inner = SourceMap([[Segment(2, Origin(0, 7, 3))]], ["two.ts"], ["…"], [])
    joiner.add("  c()", inner)
    text = source_maps.render(joiner.made(), "out.js")
    assert json.loads(text)["sources"] == ["one.js", "two.ts"]
    assert origin_of(text, 0, 6) == ("one.js", 0, 0)
    assert origin_of(text, 1, 1) == ("one.js", 1, 0)
    assert origin_of(text, 3, 2) == ("two.ts", 7, 3)
    made = joiner.made()
    assert [s.column for s in made.lines[0]] == [0, 6]
    assert made.lines[3] == [Segment(0, None), Segment(2, Origin(1, 7, 3))]


def test_a_map_with_sections_is_flattened() -> None:
    """As bundlers write them."""
    inner = {"version": 3, "sources": ["a.js"], "names": ["x"], "mappings": "AAAAA"}
    sections = [
        {"offset": {"line": 0, "column": 4}, "map": inner},
        {"offset": {"line": 2, "column": 1}, "map": inner | {"sourceRoot": "src"}},
    ]
    made = source_maps.parse(json.dumps({"version": 3, "sections": sections}))
    assert made.sources == ["a.js", "src/a.js"]
    text = source_maps.render(made, "out.js")
    assert origin_of(text, 0, 5) == ("a.js", 0, 0)
    assert origin_of(text, 2, 2) == ("src/a.js", 0, 0)
