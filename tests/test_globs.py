"""What a pattern finds: as the standard library has it, but for links to folders."""

import glob
import os
from pathlib import Path

import pytest

from assetd import globs

FILES = (
    *("a.js", "b.css", ".hidden.js", "[odd].js", "lib/a.js", "lib/.secret/a.js", "lib/deep/b.js"),
    *("lib/deep/er/a.js", "other/a.js", "other/b.js", "ümlaut/a.js", "new\nline.js"),
)


@pytest.fixture
def tree(tmp_path: Path) -> str:
    root = tmp_path / "tree"
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")
    (root / "folder.js").mkdir()
    (tmp_path / "beside.js").write_text("")
    return os.fspath(root)


@pytest.mark.parametrize(
    "pattern",
    [
        *("*.js", "*", "**", "**/*", "**/*.js", "**/a.js", "lib/**/*.js", "lib/*.js", "lib/**"),
        *("*/a.js", "*/*/*.js", "**/deep/*.js", "**/deep/**/*.js", "**.js", "?.js", "[ab].js"),
        *("[!a].js", "[[]odd].js", "a.js", "no.js", "no/*.js", "lib/deep/b.js", ".*", ".*.js"),
        *("lib/.secret/*.js", "lib/.*/*.js", "../*.js", "lib/../*.js", "lib/", "*/", "./*.js"),
        *("**/er/../*.js", "**/**/*.js", "folder.js", "*line.js", "a.js/x"),
    ],
)
def test_a_pattern_finds_what_the_standard_library_finds(tree: str, pattern: str) -> None:
    """Files alone, and without links to folders."""
    found = glob.glob(pattern, root_dir=tree, recursive=True, include_hidden=False)
    expected = sorted({n for n in found if os.path.isfile(os.path.join(tree, n))})
    assert globs.names(tree, pattern) == expected
    absolute = os.path.join(tree, pattern)
    assert globs.names("/", absolute) == [os.path.join(tree, name) for name in expected]


def test_links_to_folders_are_followed_where_a_pattern_names_them(tree: str) -> None:
    """Two that lead in circles are more than anybody can follow to their end."""
    for name in ("one", "two", "lib/up"):
        os.symlink(tree, os.path.join(tree, name))
    os.symlink("loop", os.path.join(tree, "loop"))
    os.symlink("a.js", os.path.join(tree, "link.js"))
    found = globs.names(tree, "**/*.js")
    assert "link.js" in found
    assert not [name for name in found if name.split("/")[0] in {"one", "two"} or "up/" in name]
    assert globs.names(tree, "one/a.js") == ["one/a.js"]
    assert globs.names(tree, "one/*.css") == ["one/b.css"]
    assert globs.names(tree, "on?/*.css") == ["one/b.css"]
    assert globs.names(tree, "loop/*.js") == globs.names(tree, "loo*/*.js") == []


def test_where_a_pattern_starts() -> None:
    """The folders that it names before it leaves anything open."""
    starts = {p: globs.start(p) for p in ("*.js", "a.js", "a/b.js", "a/*/b.js", "a/b/**", "**/a/b")}
    assert starts == {
        "*.js": "",
        "a.js": "",
        "a/b.js": "a",
        "a/*/b.js": "a",
        "a/b/**": "a/b",
        "**/a/b": "",
    }
