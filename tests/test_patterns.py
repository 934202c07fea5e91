"""Patterns mean what they mean to git, on whole components."""

import subprocess
import time
from pathlib import Path

import pytest

from assetd.patterns import BUILT_IN_IGNORES, Patterns, check

TREE = (
    "main.scss",
    "_vars.scss",
    "main_theme.scss",
    "notes.bak",
    "a/b/c.js",
    "a/b/notes.bak",
    "a/notes",
    "notes",
    "b/a/b/c.js",
    "cache/x.css",
    "a/cache/x.css",
    "a/x/y/b/c.js",
    "b/cache",
    "drafts/keep.css",
    "drafts/lost.css",
    "odd/[x].css",
    "odd/x.css",
    "odd/a-b.css",
    "odd/a]b.css",
    "odd/*.css",
    "v1/v2/v3.css",
)


@pytest.mark.parametrize(
    "patterns",
    [
        ["*.bak"],
        ["notes"],
        ["/notes"],
        ["a/notes"],
        ["a/b"],
        ["a/b/"],
        ["cache/"],
        ["b/cache/"],
        ["_*.scss"],
        ["?ain.scss"],
        ["**/b"],
        ["**/b/c.js"],
        ["a/**/c.js"],
        ["a/**"],
        ["/a/**"],
        ["a/**/b/**"],
        ["**/a/**/b/*.js"],
        ["**"],
        ["a**s"],
        ["*"],
        ["/*", "!/a"],
        ["a/*", "!a/b"],
        ["*.css", "!keep.css"],
        ["drafts", "!drafts/keep.css"],
        ["drafts/*", "!drafts/keep.css"],
        ["*.css", "!*.css", "x.css"],
        ["!x.css"],
        ["odd/[x].css"],
        ["odd/\\[x\\].css"],
        ["odd/[!x].css"],
        ["odd/[^x].css"],
        ["a[]-]b.css"],
        ["a[+-9]b.css"],
        ["a[!q]b"],
        ["odd/a[!q]b.css"],
        ["[a-c].js"],
        ["odd/\\*.css"],
        ["odd/?.css"],
        ["v[1-2]/v[!1]"],
    ],
    ids=" ".join,
)
def test_a_glob_means_what_it_means_to_git(tmp_path: Path, patterns: list[str]) -> None:
    """Whoever can write a `.gitignore` can write `ignore:`."""
    for name in TREE:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    git = ["git", "-c", "core.quotePath=false", "-c", "core.excludesFile=", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / ".git/info/exclude").write_text("\n".join(patterns) + "\n")
    listed = subprocess.run(
        [*git, "ls-files", "-z", "--others", "--exclude-standard"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    expected = set(TREE) - set(listed.split("\0"))
    ours = Patterns.of(patterns)
    assert expected == {name for name in TREE if ours.matches(name)}


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("_*.scss", "css/main_theme.scss"),
        ("_cache", "js/my_cache_busting.js"),
        (".git*", "img/logo.github.png"),
        ("cache", "my.cache"),
        ("*.sw?", "x.swap"),
    ],
)
def test_a_pattern_never_matches_a_part_of_a_name(pattern: str, path: str) -> None:
    """The ancestor's patterns did, and hid people's files."""
    assert not Patterns.of([pattern]).matches(path)


def test_text_between_slashes_is_a_regular_expression_over_the_relative_path() -> None:
    """Even `/foo/`, which to git would be a folder."""
    assert Patterns.of(["/^drafts\\/ /"]).matches("drafts/ x.css")
    assert Patterns.of(["/(?i)^DRAFTS\\//"]).matches("drafts/a/b.css")
    assert Patterns.of(["/foo/"]).matches("css/my_food.css")
    assert not Patterns.of(["/^foo/"]).matches("css/foo")
    assert not Patterns.of(["*.css", "!/^keep/"]).matches("keep.css")


def test_a_folder_pattern_does_not_match_a_file_of_the_name() -> None:
    """A slash at the end asks for a folder, wherever it is."""
    cache = Patterns.of(["cache/"])
    assert cache.matches("a/cache", is_dir=True)
    assert cache.matches("a/cache/b/c.css")
    assert not cache.matches("a/cache")


def test_a_scan_skips_a_folder_that_is_matched_and_no_other() -> None:
    """Nothing below a matched folder can be taken back, so nobody need look."""
    patterns = Patterns.of(["vendor", "!vendor/keep.js", "*.bak", "/^old\\/[0-9]/"])
    assert patterns.prunes("vendor")
    assert patterns.prunes("vendor/deep/er")
    assert patterns.matches("vendor/keep.js")
    assert patterns.prunes("x.bak")
    assert patterns.prunes("old/2019")
    assert not patterns.prunes("old")
    assert not patterns.prunes("")


def test_the_root_of_a_mount_is_never_matched() -> None:
    """A mount that is ignored as a whole would be a riddle: it is left out of `mounts`."""
    assert not Patterns.of(["*", "**", "/.*/"]).matches("", is_dir=True)


@pytest.mark.parametrize(
    "path",
    [
        ".git/config",
        "a/.git/HEAD",
        ".hg/store",
        "CVS/Root",
        "a/.gitignore",
        ".gitkeep",
        "css/site.scss~",
        "css/.site.scss.swp",
        "css/.site.scss.swx",
        "css/4913",
        "css/.#site.scss",
        "css/#site.scss#",
        "css/.site.scss.kate-swp",
        ".goutputstream-XYZ123",
        "site.scss___jb_tmp___",
        "site.scss___jb_old___",
        ".~lock.table.ods#",
        ".DS_Store",
        "img/Thumbs.db",
        ".idea/workspace.xml",
        ".vscode/settings.json",
        ".editorconfig",
        ".assetd/record.sqlite",
    ],
)
def test_what_editors_and_version_control_leave_is_ignored(path: str) -> None:
    """They come and go at every save; none of them is anybody's asset."""
    assert Patterns.of(BUILT_IN_IGNORES).matches(path)


@pytest.mark.parametrize(
    "path",
    [
        ".htaccess",
        ".well-known/security.txt",
        "img/logo.github.png",
        "js/idea.js",
        "a/14913",
        "4913.css",
        "css/a.swp",
        "#1.css",
        ".github-badge.svg",
        "cvs/x",
    ],
)
def test_what_a_site_may_serve_is_not_ignored(path: str) -> None:
    """A leading dot is no reason: sites serve such files."""
    assert not Patterns.of(BUILT_IN_IGNORES).matches(path)


def test_the_built_in_ignores_can_be_taken_back() -> None:
    """The configuration comes after them, and the last pattern decides."""
    assert not Patterns.of((*BUILT_IN_IGNORES, "!.editorconfig")).matches(".editorconfig")


def test_any_name_that_linux_allows_can_be_matched() -> None:
    """Line breaks and bytes that are not UTF-8 are names like others."""
    patterns = Patterns.of(["a?b", "/x/**", "[!q]\udcff"])
    assert patterns.matches("a\nb")
    assert patterns.matches("x/\n")
    assert patterns.matches("\n\udcff")


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("", 'the pattern "" is empty'),
        ("/", 'the pattern "/" is empty'),
        ("//", 'the pattern "//" is empty'),
        ("!", 'the pattern "!" is empty'),
        ("/(/", 'the pattern "/(/" is no regular expression: missing ), unterminated subpat'),
        ("/a{99999999999}/", 'the pattern "/a{99999999999}/" is no regular expression: '),
        ("*.[ch", 'the pattern "*.[ch" ends inside "[ch": write "\\[" for the character itself'),
        ("a[]", 'the pattern "a[]" ends inside "[]"'),
        ("x\\", 'the pattern "x\\" ends inside "\\": write "\\\\" for the character itself'),
        ("[z-a]", 'the pattern "[z-a]" is no regular expression: bad character range z-a'),
        ("[[:alpha:]]", 'the pattern "[[:alpha:]]" has a class such as [:alpha:]'),
        ("./a", 'the pattern "./a" can match nothing'),
        ("a//b", 'the pattern "a//b" can match nothing'),
        ("../a", 'the pattern "../a" can match nothing'),
    ],
)
def test_a_pattern_that_cannot_be_used_says_why(pattern: str, message: str) -> None:
    """A pattern that silently matches nothing is worse than an error."""
    with pytest.raises(ValueError, match="pattern") as caught:
        check(pattern)
    assert str(caught.value).startswith(message)


def test_no_glob_is_slow_on_any_name() -> None:
    """Many stars are tried in one order only, not in every one."""
    patterns = Patterns.of(["*a" * 12 + "*b", "**/a" * 12 + "/b"])
    started = time.perf_counter()
    assert not patterns.matches("a" * 255)
    assert not patterns.matches("a/" * 200 + "a")
    assert time.perf_counter() - started < 5


def test_a_path_may_be_deeper_than_the_stack() -> None:
    """Linux allows 2,048 components in a path; Python allows 1,000 calls."""
    assert Patterns.of(["/a"]).matches("a/" * 2_000 + "b")


def test_a_large_tree_is_decided_quickly() -> None:
    """A folder is decided once, whatever is in it."""
    patterns = Patterns.of((*BUILT_IN_IGNORES, "*.bak", "drafts/", "/^v\\d+\\//", "a/**/b"))
    paths = [f"css/{n % 100}/part/{n}.scss" for n in range(50_000)]
    started = time.perf_counter()
    assert not any(map(patterns.matches, paths))
    assert time.perf_counter() - started < 3


def test_a_regular_expression_that_python_warns_of_is_taken() -> None:
    """A warning is about a Python to come, and the daemon has nobody to tell it to."""
    assert Patterns.of(["/^drafts[[x]/"]).matches("drafts[")
