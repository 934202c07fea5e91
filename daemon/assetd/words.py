"""Numbers, times, names and lines as people read them.  Light: every command has it."""

import time
from collections.abc import Mapping
from typing import Any


def short(digest: str) -> str:
    """A digest as people compare it."""
    return digest[:8]


def printable(text: str) -> str:
    """*text* without anything that a terminal would obey: escapes, newlines, raw bytes."""
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, as a surrogate escape
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def user(uid: int) -> str:
    """The name of a user, or `#1000`, as `sudo -u` takes it."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"


def count(number: int, one: str, many: str | None = None) -> str:
    """`1 source`, `2 sources`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def duration(seconds: float) -> str:
    """A time span in the unit that fits."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} days"


def ago(when: float) -> str:
    """How long ago a moment was, from seconds since the epoch."""
    passed = time.time() - when
    if passed < 2:
        return "just now"
    # Moments are kept to the second: tenths of it would be made up.
    return f"{passed:.0f} s ago" if passed < 119.5 else f"{duration(passed)} ago"


def tally(counts: Mapping[str, Any]) -> str:
    """What a batch did, as a sentence, from its fields."""
    parts = [
        f"{counts[name]:,} {word}"
        for name, word in (
            ("built", "built"),
            ("cached", "from the store"),
            ("clean", "unchanged"),
            ("failed", "failed"),
            ("deleted", "deleted"),
        )
        if counts[name]
    ]
    return f"{', '.join(parts) or 'nothing to do'} in {duration(counts['seconds'])}"


def excerpt(text: str | None, line: int | None, column: int | None) -> list[str]:
    """The line that something is about, with its number and a caret below the column."""
    if text is None or line is None:
        return []
    margin = f"{line:>5} | "
    shown = text.replace("\t", " ")
    lines = [margin + printable(shown)]
    if column is not None and 0 < column <= len(shown) + 1:
        lead = printable(shown[: column - 1])
        lines.append(" " * len(margin[:-2]) + "| " + " " * len(lead) + "^")
    return lines
