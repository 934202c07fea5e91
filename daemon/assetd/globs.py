"""The files that a pattern finds.  Knows folders; nothing of a project.

As the standard library's `glob`, but for one thing: `**` does not go through links to folders.
They may lead in circles, of which two are more than anybody can follow to their end; and what
comes and goes behind them happens elsewhere.  A link that the pattern names is followed.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from fnmatch import translate
from functools import lru_cache
from typing import Final

from assetd import stamp as stamps
from assetd.model import Digest

_MAGIC: Final = re.compile(r"[*?[]")


def names(folder: str, pattern: str) -> list[str]:
    """The names of the files that *pattern* finds below *folder*, relative to it, sorted.

    What begins with a dot is found by a pattern that does so, too.
    """
    found = set(_below(folder, "", tuple(pattern.split("/"))))
    return sorted(name for name in found if os.path.isfile(os.path.join(folder, name)))


def digest(folder: str, pattern: str) -> Digest:
    """The digest that a dependency on a pattern has now."""
    return digest_of(names(folder, pattern))


def digest_of(found: Sequence[str]) -> Digest:
    """The digest of what a pattern found."""
    return stamps.digest_bytes(os.fsencode("\0".join(found)))


def start(pattern: str) -> str:
    """The folder that *pattern* names before it leaves anything open; empty if it names none."""
    parts = pattern.split("/")[:-1]
    fixed = next((n for n, part in enumerate(parts) if _MAGIC.search(part)), len(parts))
    return "/".join(parts[:fixed])


def _below(folder: str, prefix: str, parts: Sequence[str]) -> Iterator[str]:
    """What the rest of a pattern finds in the folder *prefix* of *folder*."""
    first, rest = parts[0], parts[1:]
    if not _MAGIC.search(first):
        if not rest:
            yield prefix + first
        elif os.path.isdir(os.path.join(folder, prefix + first)):
            yield from _below(folder, f"{prefix}{first}/", rest)
        return
    if first == "**" and rest:
        yield from _below(folder, prefix, rest)
    fits = _fitting("*" if first == "**" else first)
    for entry in _entries(os.path.join(folder, prefix)):
        if (entry.name[0] == "." and first[0] != ".") or not fits(entry.name):
            continue
        if first == "**" and entry.is_dir(follow_symlinks=False):
            yield from _below(folder, f"{prefix}{entry.name}/", parts)
        elif not rest:
            yield prefix + entry.name
        elif first != "**" and os.path.isdir(entry.path):
            yield from _below(folder, f"{prefix}{entry.name}/", rest)


@lru_cache(256)
def _fitting(pattern: str) -> Callable[[str], re.Match[str] | None]:
    return re.compile(translate(pattern)).match


def _entries(folder: str) -> Sequence["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return ()
