"""Sentences for people about causes, batches and what is wrong.  Pure."""

from typing import Final

from assetd import words
from assetd.model import Batch, Cause, Diagnostic, Reason
from assetd.words import printable, short

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


def batch(batch: Batch) -> str:
    """What a batch did, as a sentence."""
    return words.tally(batch._asdict())


def diagnostic(diagnostic: Diagnostic) -> list[str]:
    """What is wrong and where, with the line it is about and a caret below it."""
    shown = words.excerpt(diagnostic.excerpt, diagnostic.line, diagnostic.column)
    return [printable(str(diagnostic)), *shown]
