"""Sentences for people: causes, batches, times and names.  Pure."""

import time
from typing import Final

from assetd.model import Batch, Cause, Diagnostic, Reason

_SENTENCES: Final = {
    Cause.NEW: "it is new",
    Cause.SOURCE_CHANGED: "its source changed{digests}",
    Cause.DEPENDENCY_CHANGED: "{about} changed{digests}",
    Cause.DEPENDENCY_APPEARED: "{about} appeared",
    Cause.DEPENDENCY_GONE: "{about} is gone",
    Cause.VERSION_CHANGED: "{about} is another version now ({old} → {new})",
    Cause.OPTIONS_CHANGED: "the options of {about} changed",
    Cause.TREE_CHANGED: "its processing tree changed ({old} → {new})",
    Cause.TREE_BROKEN: "its processors made no sensible tree of it",
    Cause.OUTPUT_MISSING: "its output {about} was missing",
    Cause.OUTPUT_CHANGED: "its output {about} was changed",
    Cause.REQUESTED: "somebody asked for it",
    Cause.FORCE_PATTERN: "a force pattern has it",
    Cause.NO_LONGER_OVERRIDDEN: "it is no longer overridden",
    Cause.OVERRIDDEN: "it is overridden by {about}",
    Cause.CONFLICT: "another source claims the same output",
    Cause.CONFLICT_ENDED: "it is no longer in conflict",
    Cause.CHANGED_WHILE_BUILT: "a file changed while it was built",
    Cause.RETRY: "what failed before was tried again",
    Cause.SOURCE_GONE: "{about} is gone",
    Cause.SOURCE_IGNORED: "{about} is no source any more",
    Cause.NO_LONGER_MADE: "nothing makes {about} any more",
}


def reason(reason: Reason) -> str:
    """*reason* as half a sentence, to stand behind "because"."""
    digests = ""
    if reason.old is not None and reason.new is not None:
        digests = f" ({short(reason.old)} → {short(reason.new)})"
    text = _SENTENCES[reason.cause].format(
        about=reason.about,
        old=reason.old or "nothing",
        new=reason.new or "nothing",
        digests=digests,
    )
    return printable(text)


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


def batch(batch: Batch) -> str:
    """What a batch did, as a sentence."""
    parts = [
        f"{number:,} {word}"
        for number, word in (
            (batch.built, "built"),
            (batch.cached, "from the store"),
            (batch.clean, "unchanged"),
            (batch.failed, "failed"),
            (batch.deleted, "deleted"),
        )
        if number
    ]
    return f"{', '.join(parts) or 'nothing to do'} in {duration(batch.seconds)}"


def diagnostic(diagnostic: Diagnostic) -> list[str]:
    """What is wrong and where, with the line it is about and a caret below it."""
    lines = [printable(str(diagnostic))]
    if diagnostic.excerpt is not None and diagnostic.line is not None:
        margin = f"{diagnostic.line:>5} | "
        shown = diagnostic.excerpt.replace("\t", " ")
        lines.append(margin + printable(shown))
        if diagnostic.column is not None and 0 < diagnostic.column <= len(shown) + 1:
            lead = printable(shown[: diagnostic.column - 1])
            lines.append(" " * len(margin[:-2]) + "| " + " " * len(lead) + "^")
    return lines
