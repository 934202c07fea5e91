"""What a Sass file imports, and where LibSass looks for it.  Pure: knows text and names, no files.

LibSass reports neither the paths that it probed in vain nor, when it fails, the files that it
read, so we find both ourselves.  All of this may find too much, never too little: an import in
a comment at the end of a line counts, and costs a dependency that changes nothing.

Measured on LibSass 3.6.6 with strace; `tests/processors/test_sass.py` holds us to it.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final, NamedTuple

_EXTENSIONS: Final = (".scss", ".sass", ".css")

# Hiding an import behind a comment that is none would be worse than finding one too many, and
# `//` and `/*` may stand in a string, a URL or a comment.  So a comment counts only where it
# opens a line, and `//` only up to what would end the string, the URL or the comment.
_LINE: Final = r"""(?:[^\r\n\f"')*]|\*(?!/))*+"""
_IMPORT: Final = r"@import(?![\w-])"
_SCSS: Final = re.compile(
    rf"^[ \t]*+(?://{_LINE}|/\*.*?(?:\*/|\Z))|{_IMPORT}", re.DOTALL | re.MULTILINE
)
# In the indented syntax a comment ends with its indentation, not with `*/`: take its first line.
_INDENTED: Final = re.compile(rf"^[ \t]*+/[/*]{_LINE}|{_IMPORT}", re.MULTILINE)

_GAP: Final = re.compile(r"(?:\s++|//[^\r\n\f]*+|/\*.*?\*/)*+", re.DOTALL)
_BLANKS: Final = re.compile(r"[^\S\r\n]*+")
_STRING: Final = re.compile(r"""(?:"((?:[^"\\]|\\.)*+)"|'((?:[^'\\]|\\.)*+)')""", re.DOTALL)
_URL: Final = re.compile(
    r"""[\w-]+\(\s*+(?:"(?:[^"\\]|\\.)*+"|'(?:[^'\\]|\\.)*+'|[^)"'])*+\)""", re.DOTALL
)
_UNQUOTED: Final = re.compile(r"[^\s\"',][^,\r\n]*+")
_FEATURE: Final = r"(?:[a-z]++|\([\w\s:.-]++\))"
_MEDIA: Final = re.compile(rf"{_FEATURE}(?:[\s,]++{_FEATURE})*+[ \t]*+(?:[;}}\r\n]|\Z)")
_PLAIN: Final = re.compile(r"//|[\w-]+://")
_ESCAPE: Final = re.compile(r"\\(?:([0-9a-fA-F]{1,6})\s?|(.))", re.DOTALL)

_USE: Final = re.compile(
    r"/\*.*?(?:\*/|\Z)|//[^\r\n]*+|"
    r""""(?:[^"\\]|\\.)*+"|'(?:[^'\\]|\\.)*+'"""
    r"|url\([^)]*+\)"
    r"""|(@use|@forward)(?=\s*["'])""",
    re.DOTALL,
)


class Use(NamedTuple):
    """A rule of the module system, which LibSass does not have."""

    rule: str
    line: int
    column: int


def is_indented(path: str) -> bool:
    """Whether LibSass reads the file in the indented syntax."""
    return path[-5:].lower() == ".sass"


def imports(text: str, *, indented: bool) -> Iterator[str]:
    """The names that LibSass may load for *text*; plain CSS imports are left out."""
    for match in (_INDENTED if indented else _SCSS).finditer(text):
        if match[0] == "@import":
            yield from _names(text, match.end(), indented=indented)


def _names(text: str, position: int, *, indented: bool) -> Iterator[str]:
    gap = _BLANKS if indented else _GAP
    names = []
    while True:
        position = _skip(gap, text, position)
        if string := _STRING.match(text, position):
            names.append(_unescape(string[1] if string[1] is not None else string[2]))
            position = string.end()
        elif url := _URL.match(text, position):
            position = url.end()
        elif indented and (word := _UNQUOTED.match(text, position)):
            names.append(_unescape(word[0].strip()))
            position = word.end()
        elif not text.startswith(",", position):
            break
        position = _skip(gap, text, position)
        if not text.startswith(",", position):
            break
        position += 1
    if _MEDIA.match(text, position):
        return  # with a media query the whole list is plain CSS
    for name in names:
        is_css = len(name) > 4 and name.endswith(".css")
        if not is_css and not _PLAIN.match(name) and "\0" not in name:
            yield name


def _skip(gap: re.Pattern[str], text: str, position: int) -> int:
    match = gap.match(text, position)
    return position if match is None else match.end()


def _unescape(quoted: str) -> str:
    if "\\" not in quoted:
        return quoted

    def plain(match: re.Match[str]) -> str:
        if match[1]:
            code = int(match[1], 16)
            return chr(code) if code < 0xD800 or 0xDFFF < code < 0x110000 else "\ufffd"
        return match[2]

    return _ESCAPE.sub(plain, quoted)


@lru_cache(4096)
def direct(folder: str, name: str) -> tuple[str, ...]:
    """Where LibSass looks for *name* in *folder*: two that are there are an error."""
    path = _join(folder, name)
    base, slash, last = path.rpartition("/")
    base += slash
    return (
        path,
        f"{base}_{last}",
        *(f"{base}_{last}{e}" for e in _EXTENSIONS),
        *(path + e for e in _EXTENSIONS),
    )


@lru_cache(4096)
def index(folder: str, name: str) -> tuple[str, ...]:
    """Where it looks in *folder* if none of `direct` is there."""
    if name.endswith(_EXTENSIONS):
        return ()
    path = _join(folder, name)
    return (
        *(f"{path}/_index{e}" for e in _EXTENSIONS),
        *(f"{path}/index{e}" for e in _EXTENSIONS),
    )


def _join(folder: str, name: str) -> str:
    # LibSass takes leading steps off the text of the path; the kernel takes those inside,
    # where a link or a missing folder counts.
    if name.startswith("/"):
        return name
    while name.startswith(("./", "../")):
        step, _, name = name.partition("/")
        if step == "..":
            folder = folder.rpartition("/")[0]
    return f"{folder}/{name}"


def first_use(text: str) -> Use | None:
    """The first `@use` or `@forward` in *text*, comments and strings left out."""
    for match in _USE.finditer(text):
        if match[1]:
            start = text.rfind("\n", 0, match.start()) + 1
            line = text.count("\n", 0, match.start()) + 1
            return Use(match[1], line, match.start() - start + 1)
    return None
