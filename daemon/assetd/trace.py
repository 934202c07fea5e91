"""What the owner and its workers did when, for Perfetto and `chrome://tracing`.

Owns the file and its format, the JSON array of the trace-event format; knows names and times,
and nothing of what they stand for.  `OFF` is what everybody holds as long as nobody asked for
a trace: it does nothing, and does it quickly.

The format allows for an array that is not closed, so a trace is of use however we end; `read`
and the viewers take such a one.  https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
"""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Final, Protocol

from assetd.errors import UsageError
from assetd.model import Outcome

LIMIT_BYTES: Final = 256 << 20
"""A trace ends there: a day's would fill the disk, and no viewer opens it."""
SHORT_SECONDS: Final = 20e-6
"""What takes less and has nothing to tell is left out."""
IDLE_SECONDS: Final = 0.001
"""A turn of the loop that took less, and in which nothing happened, is left out."""
NAMES_SHOWN: Final = 5
"""Of what a span is about: the rest is counted."""

_OWNER: Final = 0


class Span(Protocol):
    """A stretch of time of the owner's; within another one, or beside it."""

    def __enter__(self) -> None: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None: ...


class Trace(Protocol):
    """What the engine and the pool say as they go."""

    def turn(self) -> Span:
        """One trip round the owner's loop, from when it woke up."""

    def span(self, name: str, **fields: object) -> Span:
        """Something that the owner does; with fields it is kept however short it was."""

    def save(self, began: float, names: Sequence[str]) -> None:
        """A change that somebody waited for is recorded.

        Args:
            began: When we first heard of it, by the monotonic clock.
            names: Its sources.
        """

    def started(self, worker: int, began: float, pid: int) -> None:
        """A worker is ready; its process was started at *began*."""

    def sent(self, worker: int, jobs: int) -> None:
        """A worker, which had none, was given jobs."""

    def answered(self, worker: int, answers: Sequence[tuple[str, Outcome]]) -> None:
        """A worker has done jobs, each named by its source."""

    def died(self, worker: int, cause: str) -> None:
        """A worker is gone."""


class _Nothing:
    """The span of no trace."""

    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


_NOTHING: Final = _Nothing()


class _Off:
    """No trace."""

    __slots__ = ()

    def turn(self) -> Span:
        return _NOTHING

    def span(self, name: str, **fields: object) -> Span:
        del name, fields
        return _NOTHING

    def save(self, began: float, names: Sequence[str]) -> None:
        pass

    def started(self, worker: int, began: float, pid: int) -> None:
        pass

    def sent(self, worker: int, jobs: int) -> None:
        pass

    def answered(self, worker: int, answers: Sequence[tuple[str, Outcome]]) -> None:
        pass

    def died(self, worker: int, cause: str) -> None:
        pass


OFF: Final[Trace] = _Off()


class Tracer:
    """A trace that goes to a file."""

    def __init__(
        self,
        fd: int,
        on_end: Callable[[str], None] = lambda _cause: None,
        limit_bytes: int = LIMIT_BYTES,
    ) -> None:
        """Begin.

        Args:
            fd: Of an empty file; ours from now on.
            on_end: Is told why, if the trace ends before we do.
            limit_bytes: How long the file may become.
        """
        self.on_end = on_end
        self._fd = fd
        self._left = limit_bytes
        self._began = time.monotonic()
        self._pid = os.getpid()
        self._lines: list[str] = []
        """Those of this turn, and those before it that are not written yet."""
        self._told = False
        """Whether something happened in this turn."""
        self._busy_until: dict[int, float] = {}
        """Up to when the time of each worker is accounted for."""
        self._saves = 0
        self._write("[\n")
        self._event("M", _OWNER, "process_name", args={"name": "assetd"})
        self._event("M", _OWNER, "thread_name", args={"name": "owner"})
        self._event("i", _OWNER, "trace", self._began, s="g", args={"began_at": time.time()})

    # -- what happens ---------------------------------------------------------------------

    def turn(self) -> Span:
        """See `Trace`."""
        return _Turn(self)

    def begin_turn(self) -> int:
        """Forget what happened before; gives what `end_turn` wants to have."""
        self._told = False
        return len(self._lines)

    def span(self, name: str, **fields: object) -> Span:
        """See `Trace`."""
        return _Stretch(self, name, fields)

    def save(self, began: float, names: Sequence[str]) -> None:
        """See `Trace`."""
        # Saves overlap, so they are no spans of a track: each is a pair with a number.
        self._saves += 1
        args = {"sources": len(names), "names": list(names[:NAMES_SHOWN])}
        began = max(began, self._began)
        self._event("b", _OWNER, "save", began, cat="save", id=self._saves, args=args)
        self._event("e", _OWNER, "save", time.monotonic(), cat="save", id=self._saves)

    def started(self, worker: int, began: float, pid: int) -> None:
        """See `Trace`."""
        now = time.monotonic()
        began = max(began, self._busy_until.get(worker, self._began))
        self._event("M", 1 + worker, "thread_name", args={"name": f"worker {worker}"})
        self._complete(1 + worker, "start", began, now - began, {"pid": pid})
        self._busy_until[worker] = now

    def sent(self, worker: int, jobs: int) -> None:
        """See `Trace`."""
        now = time.monotonic()
        self._event("i", 1 + worker, "sent", now, s="t", args={"jobs": jobs})
        self._busy_until[worker] = now

    def answered(self, worker: int, answers: Sequence[tuple[str, Outcome]]) -> None:
        """See `Trace`.

        A worker tells how long each job and each of its nodes took, and not when.  So the jobs
        of one answer are laid end to end before the moment at which it came; what there is
        of a gap is the pipe, and the worker's own work between two jobs.
        """
        now = time.monotonic()
        at = max(
            self._busy_until.get(worker, self._began),
            now - sum(outcome.seconds for _, outcome in answers),
        )
        for name, outcome in answers:
            seconds = min(outcome.seconds, now - at)
            args: dict[str, object] = {"job": outcome.job, "outputs": len(outcome.staged)}
            if outcome.died is not None:
                args["died"] = str(outcome.died)
            self._complete(1 + worker, name, at, seconds, args)
            ran = sum(node.seconds for node in outcome.nodes)
            # The processors stand in their order at the end of their job: before them is what
            # was read and compared.
            inner = at + max(0.0, seconds - ran)
            for node in outcome.nodes:
                took = min(node.seconds, at + seconds - inner)
                if took > 0.0:
                    state: dict[str, object] = {"path": node.path, "state": node.state.value}
                    self._complete(1 + worker, node.processor, inner, took, state)
                    inner += took
            at += seconds
        self._busy_until[worker] = now

    def died(self, worker: int, cause: str) -> None:
        """See `Trace`."""
        now = time.monotonic()
        self._event("i", 1 + worker, "died", now, s="t", args={"cause": cause})
        self._busy_until[worker] = now

    def end_turn(self, began: float, mark: int) -> None:
        """Write of a turn, if there is anything to write of."""
        now = time.monotonic()
        if not self._told and now - began < IDLE_SECONDS:
            # Nothing happened: and if it was our own writing that woke us, we must not write
            # of it, or it would never end.
            del self._lines[mark:]
            return
        self._complete(_OWNER, "turn", began, now - began, {})
        self._flush()

    def end_span(self, name: str, began: float, fields: dict[str, object]) -> None:
        """Note a span, unless it was short and has nothing to tell."""
        seconds = time.monotonic() - began
        if fields:
            self._told = True
        elif seconds < SHORT_SECONDS:
            return
        self._complete(_OWNER, name, began, seconds, fields)

    # -- the file -------------------------------------------------------------------------

    def close(self) -> None:
        """Write what is left and the end of the array."""
        if self._fd < 0:
            return
        self._flush()
        if self._fd >= 0:
            last = {"name": "end", "ph": "i", "s": "g", "pid": self._pid, "tid": _OWNER}
            last["ts"] = self._micros(time.monotonic())
            self._write(f"{json.dumps(last)}\n]\n")
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _complete(
        self, track: int, name: str, began: float, seconds: float, args: dict[str, object]
    ) -> None:
        if track != _OWNER:
            self._told = True
        # From both ends, so that what lies within another one stays within it when rounded.
        start, end = self._micros(began), self._micros(began + seconds)
        self._add(
            {
                "name": name,
                "ph": "X",
                "pid": self._pid,
                "tid": track,
                "ts": start,
                "dur": round(end - start, 1),
                "args": args,
            }
        )

    def _event(
        self, phase: str, track: int, name: str, at: float | None = None, **fields: object
    ) -> None:
        self._told = True
        event: dict[str, object] = {"name": name, "ph": phase, "pid": self._pid, "tid": track}
        if at is not None:
            event["ts"] = self._micros(at)
        self._add(event | fields)

    def _micros(self, at: float) -> float:
        return round((at - self._began) * 1e6, 1)

    def _add(self, event: dict[str, object]) -> None:
        if self._fd >= 0:
            # ASCII: a source's name may be no UTF-8.
            self._lines.append(json.dumps(event, separators=(",", ":")) + ",\n")

    def _flush(self) -> None:
        if self._fd < 0 or not self._lines:
            return
        text = "".join(self._lines)
        self._lines.clear()
        if len(text) <= self._left:
            self._write(text)
            return
        cause = "it has reached its limit"
        last = {"name": f"the trace ends here: {cause}", "ph": "i", "s": "g", "tid": _OWNER}
        last |= {"pid": self._pid, "ts": self._micros(time.monotonic())}
        self._write(f"{json.dumps(last)}\n]\n")
        self._give_up(cause)

    def _write(self, text: str) -> None:
        left = memoryview(text.encode("ascii"))
        self._left -= len(left)
        try:
            while left:
                left = left[os.write(self._fd, left) :]
        except OSError as error:
            self._give_up(error.strerror or str(error))

    def _give_up(self, cause: str) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self.on_end(cause)


class _Turn:
    """See `Trace.turn`."""

    __slots__ = ("_began", "_mark", "_tracer")

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def __enter__(self) -> None:
        self._began = time.monotonic()
        self._mark = self._tracer.begin_turn()

    def __exit__(self, *_: object) -> None:
        self._tracer.end_turn(self._began, self._mark)


class _Stretch:
    """See `Trace.span`."""

    __slots__ = ("_began", "_fields", "_name", "_tracer")

    def __init__(self, tracer: Tracer, name: str, fields: dict[str, object]) -> None:
        self._tracer = tracer
        self._name = name
        self._fields = fields

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._tracer.end_span(self._name, self._began, self._fields)


@contextlib.contextmanager
def opened(
    path: str | None, watched: Sequence[str], on_end: Callable[[str], None]
) -> Iterator[Trace]:
    """A trace that goes to the file at *path*, or none.

    Args:
        path: Of a file that is made, or emptied.
        watched: Folders that it must not lie in: each line would be a change to be built.
        on_end: Is told why, if the trace ends before we do.

    Raises:
        UsageError: It cannot be written there.
    """
    if path is None:
        yield OFF
        return
    real = os.path.realpath(path)
    for folder in watched:
        if real.startswith(folder.rstrip("/") + "/"):
            raise UsageError(f"--trace {path}: name a file that is not below {folder}")
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise UsageError(f"--trace {path}: cannot be written: {error.strerror}") from error
    tracer = Tracer(fd, on_end)
    try:
        yield tracer
    finally:
        tracer.close()


def read(path: str) -> list[dict[str, Any]]:
    """The events of a trace, also of one whose writer was killed."""
    with open(path, encoding="ascii", errors="replace") as file:
        lines = file.read().splitlines()
    events: list[dict[str, Any]] = []
    for line in lines:
        text = line.rstrip(",")
        if text.startswith("{"):
            with contextlib.suppress(ValueError):  # the last one, cut short
                events.append(json.loads(text))
    return events
