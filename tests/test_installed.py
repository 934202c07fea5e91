"""Entry points: what `importlib.metadata` says of the packages that are installed, sooner."""

import importlib.metadata
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from assetd import installed
from assetd.installed import Point, entry_points

POINTS = """
# ours
[console_scripts]
tool = tool.cli:main

[a.group]
one=one.first:value
two = two : deep.value [extra]
# not now
three = three
"""
EXPECTED = [
    Point("one", "one.first", "value"),
    Point("three", "three", ""),
    Point("two", "two", "deep.value"),
]


def package(folder: Path, name: str, text: str, version: str = "1.0") -> None:
    place = folder / f"{name}-{version}.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (place / "entry_points.txt").write_text(text)


def asked(group: str) -> list[Point]:
    """What `importlib.metadata` says."""
    listed = importlib.metadata.entry_points(group=group)
    return sorted(Point(each.name, each.module, each.attr or "") for each in listed)


def test_it_says_what_the_library_says_of_all_that_is_here() -> None:
    """Of every group, and without asking it."""
    for group in sorted(importlib.metadata.entry_points().groups):
        assert installed._quick(group) is not None
        assert entry_points(group) == asked(group)


def test_the_first_package_of_a_name_on_the_path_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the one that would be imported; case and dashes are no difference."""
    package(tmp_path / "first", "Some_Package", POINTS)
    package(tmp_path / "second", "some_package", "[a.group]\nlate = late:value\n", "2.0")
    (tmp_path / "second/plain.egg-info").touch()
    for name in ("second", "none", "first"):
        monkeypatch.syspath_prepend(tmp_path / name)
    assert entry_points("a.group") == asked("a.group") == EXPECTED
    assert entry_points("another.group") == []


def test_packages_in_archives_and_of_other_finders_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library knows them all: it is asked."""
    package(tmp_path / "folder", "inside", POINTS)
    archive = tmp_path / "archive.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in (tmp_path / "folder/inside-1.0.dist-info").iterdir():
            file.write(path, f"inside-1.0.dist-info/{path.name}")
    monkeypatch.syspath_prepend(archive)
    assert entry_points("a.group") == asked("a.group") == EXPECTED


def test_an_entry_that_is_not_understood_is_left_to_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it makes of it."""
    package(tmp_path, "odd", "[a.group]\none = one:value\ntwo\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert installed._quick("a.group") is None


def test_a_build_with_nothing_to_do_imports_no_compiler_and_no_mail(tmp_path: Path) -> None:
    """They take longer to import than all the rest has to do."""
    (tmp_path / "assets").mkdir()
    (tmp_path / "assetd.yml").write_text("mounts: [assets]\n")
    code = (
        "import sys; from assetd.cli import main; main(['build']); "
        "print(*sorted({'email', 'zipfile', 'csv', 'html', 'asyncio', 'ssl', 'prometheus_client', "
        "'structlog', 'sass', '_sass', 'assetd_processors.sass_libsass', "
        "'assetd_processors.concat_maps'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
