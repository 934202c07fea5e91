"""The engine's events as lines: pretty, as JSON, or for the journal; fewer of them in a storm.

Knows how an event reads and how often it may be told; where the lines go is `logfile`'s.
"""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

import structlog

from assetd import explain, logfile, words
from assetd.model import Batch, Reason

LINES_PER_WINDOW: Final = 100
"""Of one event; what is more is counted, and told in one line."""
WINDOW_SECONDS: Final = 10.0
_ENDS: Final = frozenset({"batch", "stopping"})
"""Events that end a story: what was left out of it is told before them."""
_PRIORITY: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}


class Log:
    """The engine's events on standard error."""

    def __init__(self, style: str = "auto", path: str | None = None) -> None:
        """Set up.

        Args:
            style: `pretty` or `auto`, or `json`; either has priorities under the journal.
            path: Of the log file, which is rotated if it is our standard error.
        """
        journal = _to_journal()
        terminal = sys.stderr.isatty()
        color = (terminal and not os.environ.get("NO_COLOR")) or bool(os.environ.get("FORCE_COLOR"))
        renderer: Any = (
            structlog.processors.JSONRenderer(ensure_ascii=True)
            if style == "json"
            else structlog.dev.ConsoleRenderer(
                colors=color and not journal, pad_event_to=20, sort_keys=False
            )
        )
        steps: list[Any] = [structlog.processors.add_log_level]
        if style == "json" or not journal:  # which has times of its own
            # A file is read days later.
            pretty = "%H:%M:%S" if terminal else "%Y-%m-%d %H:%M:%S"
            stamp = "iso" if style == "json" else pretty
            steps.append(structlog.processors.TimeStamper(fmt=stamp, utc=style == "json"))
        steps += [_plain, renderer]
        if journal:
            steps.append(_prioritized)
        self._log = structlog.wrap_logger(
            _Writer(logfile.Lines(path)),
            processors=steps,
            wrapper_class=structlog.BoundLogger,
            cache_logger_on_first_use=True,
        )
        self._throttle = Throttle()

    @property
    def left_out(self) -> int:
        """Lines that were not written, because there were too many of their kind."""
        return self._throttle.total

    def __call__(self, event: str, *, level: str = "info", **fields: object) -> None:
        """Write one event, unless there have been too many of its kind."""
        now = time.monotonic()
        if not self._throttle.admits(event, now):
            return
        for name, lines in self._throttle.due(event, now):
            self._write("left_out", "info", {"of": name, "lines": lines} | _where(name))
        self._write(event, level, fields)

    def _write(self, event: str, level: str, fields: dict[str, Any]) -> None:
        # Nobody reads our log any more, or its disk is full: the work goes on.
        with contextlib.suppress(OSError):
            getattr(self._log, level)(event, **fields)


class Throttle:
    """Which lines are too many, by event.  Pure, but for what it counts."""

    def __init__(self, limit: int = LINES_PER_WINDOW, window_seconds: float = WINDOW_SECONDS):
        self.total = 0
        """Lines that were not admitted, ever."""
        self._limit = limit
        self._window = window_seconds
        self._seen: dict[str, tuple[float, int]] = {}
        """Of each event: when its window began, and the lines in it."""
        self._left_out: dict[str, int] = {}
        """Of each event: lines that were not admitted since that was told last."""

    def admits(self, event: str, now: float) -> bool:
        """Whether one more of *event* is to be written."""
        began, lines = self._seen.get(event, (now, 0))
        if now - began >= self._window:
            began, lines = now, 0
        self._seen[event] = (began, lines + 1)
        if lines < self._limit:
            return True
        self._left_out[event] = self._left_out.get(event, 0) + 1
        self.total += 1
        return False

    def due(self, event: str, now: float) -> Iterator[tuple[str, int]]:
        """What was left out and is to be told before *event*, which was admitted.

        All of it at the end of a batch; else what is of a window that is over.  There is no
        timer: an idle daemon sleeps.
        """
        for name in list(self._left_out):
            if event in _ENDS or name == event or now - self._seen[name][0] >= self._window:
                yield name, self._left_out.pop(name)


class _Writer:
    """What structlog writes to: a method for each level."""

    def __init__(self, lines: logfile.Lines) -> None:
        self._lines = lines
        self._encoding = sys.stderr.encoding or "utf-8"

    def _write(self, line: str) -> None:
        self._lines.write(line.encode(self._encoding, "backslashreplace"))

    debug = info = warning = error = critical = _write


def _where(event: str) -> dict[str, str]:
    """Where what was left out can be found, as a field."""
    places = {"failed": "assetd errors", "built": "assetd why PATH", "gone": "assetd why PATH"}
    return {"see": places[event]} if event in places else {}


def _to_journal() -> bool:
    """Whether our standard error is the journal's socket.

    A service's children inherit the variable also where their standard error is a file: it
    names the socket, as systemd.exec(5) says, so that they can tell.
    """
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        found = os.fstat(2)
    except OSError:
        return False
    return (device, inode) == (str(found.st_dev), str(found.st_ino))


def _plain(_logger: object, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    """Fields as people and JSON want them: reasons as sentences, no control characters."""
    plain: dict[str, Any] = {}
    for key, value in event.items():
        match value:
            case Reason():
                plain[key] = explain.reason(value)
            case Batch():
                plain["id"] = value.id
                plain["trigger"] = value.trigger
                plain["what"] = explain.batch(value)
            case str():
                plain[key] = words.printable(value)
            case _:
                plain[key] = value
    return plain


def _prioritized(_logger: object, method: str, line: Any) -> Any:
    return f"<{_PRIORITY.get(method, 6)}>{line}"
