"""What the sources of a mount have in place, as something to depend on.  Pure but for `stat`."""

import functools
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from assetd import stamp as stamps
from assetd.model import Digest
from assetd.processor import Published

_TOKEN: Final = re.compile(r"(\*\*/|\*\*|\*|\?|\[!?\]?[^\]/]*\])")
_KNOWN: Final = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def select(
    rows: Iterable[tuple[str, str]], folder: str, pattern: str, *, dates: bool
) -> tuple[Published, ...]:
    """The outputs whose names fit *pattern*, sorted by name.

    Args:
        rows: Outputs in place, each with its source's path in the mount.
        folder: Of the mount.
        pattern: A glob; `**` crosses folders.
        dates: Look when the sources were last modified.
    """
    fits = _compiled(pattern).fullmatch
    chosen = sorted((name, os.path.join(folder, path)) for name, path in rows if fits(name))
    return tuple(
        Published(name, Path(source), _modified(source) if dates else None)
        for name, source in chosen
    )


def digest(outputs: Iterable[Published]) -> Digest:
    """The digest that a dependency on these outputs has."""
    told = [
        each.name if each.modified is None else f"{each.name}\1{each.modified}" for each in outputs
    ]
    return stamps.digest_bytes(os.fsencode("\0".join(told)))


def _modified(source: str) -> int | None:
    try:
        return int(os.stat(source).st_mtime)
    except OSError:
        return None


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    parts = _TOKEN.split(pattern.removeprefix("/"))
    return re.compile("".join(_translated(part) for part in parts), re.DOTALL)


def _translated(part: str) -> str:
    if part in _KNOWN:
        return _KNOWN[part]
    if part.startswith("[") and part.endswith("]") and len(part) > 2:
        inside = part[1:-1].replace("\\", r"\\")
        return f"[^{inside[1:]}]" if inside.startswith("!") else f"[{inside}]"
    return re.escape(part)
