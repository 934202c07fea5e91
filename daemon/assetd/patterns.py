r"""Which paths a pattern means.  Pure: it sees names, never a file.

The grammar is that of `.gitignore`, on whole components of a path below a mount::

    *.bak         no slash: a name at any depth
    /notes  a/b   a slash at the start or inside: from the mount's root
    cache/        a slash at the end: folders only
    !keep.bak     takes back what a pattern before it caught
    /^v\d+/       between slashes: a regular expression, searched in the relative path

Within a component `*`, `?`, `[a-z]`, `[!a]` and `\` mean what they do in a shell; a component
`**` stands for any number of folders.  The last pattern that matches decides.  A folder that
matches takes everything below it with it and, as in git, `!` does not reach in there again.

Unlike in git, `/foo/` is a regular expression too, and finds `my_food.css`: the folder at the
root is `/foo`, or `/foo/**` to be sure that it is one; `a/b/` is no regular expression.
"""

import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final, Literal

BUILT_IN_IGNORES: Final = (
    # version control
    *(".git", ".hg", ".svn", ".bzr", "CVS"),
    *(".gitignore", ".gitattributes", ".gitmodules", ".gitkeep"),
    # what editors leave for a moment: Emacs, Vim (4913 is how it tries a folder), Kate, GLib,
    # JetBrains, LibreOffice
    *("*~", ".#*", "#*#", ".*.sw?", "4913", ".*.kate-swp", ".goutputstream-*"),
    *("*___jb_tmp___", "*___jb_old___", ".~lock.*#"),
    # what editors and desktops leave for good
    *(".DS_Store", "Thumbs.db", ".idea", ".vscode", ".editorconfig"),
    # our own
    ".assetd",
)
"""Never sources, unless the configuration takes them back.  Other dotfiles are sources:
`.htaccess` and `.well-known` belong to sites."""

_FOLDERS_KEPT: Final = 100_000
"""Decisions on folders that are remembered; in weeks more names than that come and go."""

_TOKEN: Final = re.compile(
    r"""(?P<star>\*+) | (?P<one>\?)
    | \[ (?P<no>[!^]?) (?P<set>\]?(?:\\.|[^\]\\])*) \]
    | \\(?P<escaped>.) | (?P<plain>[^\[\\])""",
    re.VERBOSE | re.DOTALL,
)


def check(pattern: str) -> None:
    """Whether *pattern* can be used.

    Raises:
        ValueError: It cannot; the text says why, and what would.
    """
    _rule(pattern)


@dataclass(frozen=True, slots=True)
class Patterns:
    """Patterns made ready for many paths.

    A path is relative, without a slash at either end; the mount's root, "", never matches.
    """

    patterns: tuple[str, ...]
    _files: "tuple[_Run, ...]" = field(repr=False, compare=False)
    _folders: "tuple[_Run, ...]" = field(repr=False, compare=False)
    _known: dict[str, bool] = field(default_factory=dict, repr=False, compare=False)
    """By folder.  Most paths share their folders, so each is decided once."""

    @staticmethod
    def of(patterns: Iterable[str]) -> "Patterns":
        """*patterns*, ready to match.

        Raises:
            ValueError: One of them cannot be used.
        """
        patterns = tuple(patterns)
        rules = [_rule(pattern) for pattern in patterns]
        files = [rule for rule in rules if not rule.folders_only]
        return Patterns(patterns, _runs(files), _runs(rules))

    def matches(self, path: str, *, is_dir: bool = False) -> bool:
        """Whether the patterns mean *path*, by itself or through a folder above it."""
        if is_dir:
            return self.prunes(path)
        folder, _, name = path.rpartition("/")
        return self.prunes(folder) or (name != "" and _decide(self._files, path, name))

    def prunes(self, folder: str) -> bool:
        """Whether they mean *folder*, and so everything below it: a scan need not go in."""
        above: list[str] = []
        # Up to a folder that is known, then down again.  A loop, because a path may have
        # more components than Python has stack.
        while folder and folder not in self._known:
            above.append(folder)
            folder = folder.rpartition("/")[0]
        matched = folder != "" and self._known[folder]
        if len(self._known) + len(above) > _FOLDERS_KEPT:
            self._known.clear()
        for folder in reversed(above):
            matched = matched or _decide(self._folders, folder, folder.rpartition("/")[2])
            self._known[folder] = matched
        return matched


@dataclass(frozen=True, slots=True)
class _Rule:
    """One pattern, understood."""

    takes: bool
    """False: it takes back."""
    folders_only: bool
    on: Literal["literal", "name", "path", "search"]
    """What it is held against: the name as it stands, the name, the path, any part of it."""
    regex: str


@dataclass(frozen=True, slots=True)
class _Run:
    """Neighbouring patterns of one sign: whichever of them matches, the answer is the same."""

    takes: bool
    literals: frozenset[str]
    name: re.Pattern[str] | None
    path: re.Pattern[str] | None
    searches: tuple[re.Pattern[str], ...]
    """Not joined: they may have flags and groups of their own."""


def _decide(runs: Sequence[_Run], path: str, name: str) -> bool:
    for run in runs:
        if (
            name in run.literals
            or (run.name is not None and run.name.fullmatch(name))
            or (run.path is not None and run.path.fullmatch(path))
            or (run.searches and any(regex.search(path) for regex in run.searches))
        ):
            return run.takes
    return False


def _runs(rules: Iterable[_Rule]) -> tuple[_Run, ...]:
    """The rules in as few steps as their order allows, the last one first."""

    def joined(run: Sequence[_Rule], on: str) -> re.Pattern[str] | None:
        regexes = [rule.regex for rule in run if rule.on == on]
        return _regex("|".join(regexes), re.DOTALL) if regexes else None

    runs: list[_Run] = []
    for takes, neighbours in groupby(rules, key=lambda rule: rule.takes):
        run = list(neighbours)
        literals = frozenset(rule.regex for rule in run if rule.on == "literal")
        searches = tuple(_regex(rule.regex) for rule in run if rule.on == "search")
        runs.append(_Run(takes, literals, joined(run, "name"), joined(run, "path"), searches))
    return tuple(reversed(runs))


def _rule(pattern: str) -> _Rule:
    takes = not pattern.startswith("!")
    text = pattern if takes else pattern[1:]
    if len(text) > 1 and text.startswith("/") and text.endswith("/"):
        regex = text[1:-1]
        if regex == "":
            raise ValueError(f'the pattern "{pattern}" is empty')
        _compiled(pattern, regex)
        return _Rule(takes, False, "search", regex)
    folders_only = text.endswith("/")
    text = text.removesuffix("/")
    parts = text.removeprefix("/").split("/")
    if parts == [""]:
        raise ValueError(f'the pattern "{pattern}" is empty')
    if not {"", ".", ".."}.isdisjoint(parts):
        raise ValueError(
            f'the pattern "{pattern}" can match nothing: paths start at the mount, '
            'without ".", ".." and "//"'
        )
    if "/" in text:
        rule = _Rule(takes, folders_only, "path", _path(pattern, parts))
    elif re.search(r"[*?\[\\]", text):
        rule = _Rule(takes, folders_only, "name", _component(pattern, text))
    else:
        return _Rule(takes, folders_only, "literal", text)
    _compiled(pattern, rule.regex)
    return rule


def _regex(text: str, flags: int = 0) -> re.Pattern[str]:
    with warnings.catch_warnings():
        # What Python may read otherwise one day, `[[` say, it reads today as people mean it.
        warnings.simplefilter("ignore", FutureWarning)
        return re.compile(text, flags)


def _compiled(pattern: str, regex: str) -> None:
    try:
        _regex(regex, re.DOTALL)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f'the pattern "{pattern}" is no regular expression: {error}') from None


def _path(pattern: str, parts: Sequence[str]) -> str:
    """The regex for a whole path: `**` is a gap between chunks of components."""
    chunks = [""]
    for part in parts[:-1]:
        if part == "**":
            chunks.append("")
        else:
            chunks[-1] += _component(pattern, part) + "/"
    chunks[-1] += ".+" if parts[-1] == "**" else _component(pattern, parts[-1])
    return _spread(chunks, "(?:[^/]+/)*")


def _component(pattern: str, glob: str) -> str:
    """The regex for one component: `*` is a gap between chunks of characters."""
    chunks = [""]
    at = 0
    while at < len(glob):
        token = _TOKEN.match(glob, at)
        if token is None or token["set"] == "":
            raise ValueError(
                f'the pattern "{pattern}" ends inside "{glob[at:]}": '
                f'write "\\{glob[at]}" for the character itself'
            )
        at = token.end()
        if token["star"]:
            chunks.append("")
        elif token["one"]:
            chunks[-1] += "[^/]"
        elif token["set"]:
            chunks[-1] += _set(pattern, token["no"], token["set"])
        else:
            chunks[-1] += re.escape(token["escaped"] or token["plain"])
    return _spread(chunks, "[^/]*")


def _set(pattern: str, no: str, members: str) -> str:
    if "[:" in members:
        raise ValueError(f'the pattern "{pattern}" has a class such as [:alpha:]: write a range')
    # Everything is escaped but the dash of a range.  The slash is never a member, whether
    # through `[!a]` or `[+-9]`.
    inside = re.sub(
        r"\\?(.)", lambda m: "-" if m[0] == "-" else re.escape(m[1]), members, flags=re.DOTALL
    )
    return f"(?!/)[{'^' if no else ''}{inside}]"


def _spread(chunks: Sequence[str], gap: str) -> str:
    """The chunks in their order with gaps between them.

    What stands between the first and the last chunk may take the first fit and keep it
    (`(?>…)`), because an early fit leaves most to the others.  Without that a pattern like
    `*a*a*a*a*b` tries every way to share out the letters.
    """
    if len(chunks) == 1:
        return chunks[0]
    middle = "".join(f"(?>{gap}?{chunk})" for chunk in chunks[1:-1])
    return f"{chunks[0]}{middle}{gap}{chunks[-1]}"
