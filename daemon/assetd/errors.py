"""The exceptions that end what we were doing, a sentence each.

A user's broken source is no exception: it is a value, `model.Diagnostic`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `assetd status` has no use for the vocabulary, and it takes its time
    from assetd.model import Problem


class AssetdError(Exception):
    """We cannot go on; the text is one line that says what to do about it."""

    exit_code = 1


class ConfigError(AssetdError):
    """The configuration cannot be used; holds every problem that was found, not the first."""

    exit_code = 2

    def __init__(self, problems: Sequence["Problem"]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class UsageError(AssetdError):
    """What was asked for does not exist or does not fit."""

    exit_code = 2


class NotRunningError(AssetdError):
    """No daemon runs for this project."""

    exit_code = 3


class AlreadyRunningError(AssetdError):
    """Another daemon holds the project."""

    exit_code = 4


class DeadlineError(AssetdError):
    """What we waited for did not happen in time."""

    exit_code = 124


class RecordError(AssetdError):
    """The record cannot be used: it is newer than we are, or cannot be written."""


class CorruptRecordError(RecordError):
    """The record is damaged; it has to be set aside and made anew."""


class OutdatedRecordError(CorruptRecordError):
    """An older assetd made it.  It is set aside as well, and nothing is wrong with it."""

    def __init__(self, path: str, version: int, ours: int) -> None:
        super().__init__(
            f"{path} was made by an older assetd (schema {version}, ours is {ours}): the next "
            "build makes it anew, and leaves outputs that are right as they are"
        )


class ProjectGoneError(AssetdError):
    """The project's folder is gone, or another one is in its place: nothing here is ours."""


class PublishError(AssetdError):
    """One output could not be put in place or taken away; the text says why."""


class BuildError(AssetdError):
    """Raised by a processor: this source is wrong, and where.

    It never crosses a pipe: the worker turns it into a `model.Diagnostic`.
    """

    def __init__(
        self,
        message: str,
        *,
        file: str | None = None,
        line: int | None = None,
        column: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.file = file
        self.line = line
        self.column = column
