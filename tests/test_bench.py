"""What is measured is the same everywhere, and what is printed can be read."""

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from tests.bench import plots, saves, tables, trees
from tests.bench.eye import Eye
from tests.bench.figures import Findings, Times, percentile


def content(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_a_tree_is_made_of_the_same_bytes_each_time(tmp_path: Path) -> None:
    """Numbers of two machines, and of two days, are about the same work."""
    for name in ("one", "two"):
        trees.mixed(tmp_path / name, entries=20, plain_files=10)
        trees.plain(tmp_path / name, 10)
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_another_twist_changes_every_file_but_the_partials(tmp_path: Path) -> None:
    for twist in (0, 1):
        trees.mixed(tmp_path / str(twist), entries=20, plain_files=10, twist=twist)
    one, other = content(tmp_path / "0"), content(tmp_path / "1")
    same = {name for name in one if one[name] == other[name]}
    assert {Path(name).parent.name for name in same} == {"parts"}


def test_as_many_entries_as_promised_import_the_partial(tmp_path: Path) -> None:
    trees.mixed(tmp_path, plain_files=0)
    assert len(trees.dependents(tmp_path)) == trees.DEPENDENTS


def test_an_output_with_the_wrong_content_does_not_count(tmp_path: Path) -> None:
    """A save is over when the output is right, not when it is new."""
    (tmp_path / "files").mkdir()
    save = saves.plain()
    with Eye([tmp_path / "files"]) as eye, pytest.raises(TimeoutError):
        eye.wait({tmp_path / save.outputs[0]: lambda found: found == b"right"}, 0.1)
    (tmp_path / save.outputs[0]).write_bytes(b"right")
    with Eye([tmp_path / "files"]) as eye:
        eye.wait({tmp_path / save.outputs[0]: lambda found: found == b"right"}, 0.1)


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50.0), (0.95, 95.0), (0.99, 99.0), (1, 100)])
def test_percentiles(share: float, expected: float) -> None:
    assert percentile([float(n) for n in range(1, 101)], share) == expected


@pytest.fixture
def findings() -> Findings:
    found = Findings()
    found.add("save", "p50", 5.0, floor=1.0, against="a copy", limit=4.0, target="1 + 3 ms")
    found.add("save", "p99", 9.0, limit=10.0, target="10 ms")
    found.times.append(Times("plain", "a plain <file>", "assetd", [4.0, 5.0, 6.0]))
    found.times.append(Times("plain", "a plain <file>", "another", [40.0, 50.0, 60.0]))
    for size in (100, 1000):
        found.scaled("a scan", size, size / 100)
    found.notes.append("tup is left out")
    return found


def test_the_table_says_of_each_row_whether_it_holds(findings: Findings) -> None:
    text = tables.markdown(findings, "make bench", tables.machine())
    rows = [line for line in text.splitlines() if line.startswith("| save ")]
    assert "misses it, by 1.00 ms" in rows[0]
    assert rows[1].endswith("| holds                 |")
    assert "1 of 2 rows that have a target hold." in text
    assert "| 10.00" in text  # times assetd
    assert "- tup is left out" in text


def test_the_json_has_all_of_it(findings: Findings, tmp_path: Path) -> None:
    tables.write_json(tmp_path / "b.json", findings, "make bench", tables.machine())
    told = json.loads((tmp_path / "b.json").read_text())
    assert [row["holds"] for row in told["rows"]] == [False, True]
    assert [each["p50"] for each in told["saves"]] == [5.0, 50.0]


def test_plots_are_well_formed(findings: Findings) -> None:
    for svg in (plots.latency(findings), plots.scaling(findings.scaling)):
        assert ET.fromstring(svg).tag.endswith("svg")
    for svg in (plots.latency(Findings()), plots.scaling({})):
        assert ET.fromstring(svg).tag.endswith("svg")
