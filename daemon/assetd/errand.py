"""Programs of other people, run beside the loop: no shell, and bounded in time and in words.

Knows arguments, bytes and exit codes; nothing of batches, nor of what a program is for.
"""

import contextlib
import fcntl
import os
import select
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

GRACE_SECONDS: Final = 2.0
"""Between being asked to end and being killed."""
LINES_TOLD: Final = 50
"""Of what one run prints."""
LINE_BYTES: Final = 500
"""Of one line; the rest of it is not told."""
_LAST_BYTES: Final = 1 << 20
"""What is still read of a program that has ended: something that it left may go on printing."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended."""

    cause: str | None
    """What went wrong; None: it exited with 0."""
    seconds: float
    last_words: str
    """The last line of its standard error, else of its standard output."""
    lines_left_out: int
    """Lines that it printed and nobody was told of."""


@dataclass(slots=True, eq=False)
class _Stream:
    """One of the two pipes of a run."""

    fd: int
    rest: bytes = b""
    last: str = ""


@dataclass(slots=True, eq=False)
class _Run:
    process: subprocess.Popen[bytes]
    pidfd: int
    lifeline: int
    """The only write end of a pipe: when it is closed, the kernel kills the run's group."""
    streams: tuple[_Stream, _Stream]
    on_line: Callable[[str], None]
    on_end: Callable[[Ending], None]
    limit_seconds: float
    due: float | None
    """When it is ended, by the monotonic clock; None: it has been killed."""
    began: float = field(default_factory=time.monotonic)
    overdue: bool = False
    lines: int = 0


class Errands:
    """The programs that run now, each in a process group of its own."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._runs: list[_Run] = []

    def run(
        self,
        words: Sequence[str],
        *,
        folder: str,
        given: bytes,
        limit_seconds: float,
        on_line: Callable[[str], None],
        on_end: Callable[[Ending], None],
    ) -> None:
        """Begin a run; returns at once.

        Args:
            words: The program and its arguments.
            folder: Where it runs; a program with a slash in its name is looked for from here.
            given: What it finds on its standard input.
            limit_seconds: It is ended after that, with all that it has started.
            on_line: Gets the first lines that it prints.
            on_end: Called once, when it has ended; not when `stop` ends it.

        Raises:
            OSError: It cannot be run.
        """
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:

            def keep(fd: int, where: contextlib.ExitStack) -> int:
                where.callback(os.close, fd)
                return fd

            # In memory and not in a pipe: it may read late, or never, and we wait for nobody.
            stdin = keep(os.memfd_create("assetd-given"), theirs)
            with os.fdopen(os.dup(stdin), "wb") as file:
                file.write(given)
            os.lseek(stdin, 0, os.SEEK_SET)

            def pipe() -> tuple[int, int]:
                read, write = os.pipe()
                return keep(read, ours), keep(write, theirs)

            out, their_out = pipe()
            err, their_err = pipe()
            their_lifeline, lifeline = os.pipe()
            keep(lifeline, ours)
            keep(their_lifeline, theirs)
            process = subprocess.Popen(
                list(words),
                stdin=stdin,
                stdout=their_out,
                stderr=their_err,
                pass_fds=(their_lifeline,),
                cwd=folder,
                start_new_session=True,
            )
            try:
                _tie(their_lifeline, process.pid)
                pidfd = os.pidfd_open(process.pid)
            except OSError:
                process.kill()
                process.wait()
                raise
            ours.pop_all()
        streams = (_Stream(out), _Stream(err))
        due = time.monotonic() + limit_seconds
        run = _Run(process, pidfd, lifeline, streams, on_line, on_end, limit_seconds, due)
        self._runs.append(run)
        for stream in streams:
            os.set_blocking(stream.fd, False)
            self._selector.register(
                stream.fd, selectors.EVENT_READ, lambda _mask, s=stream: self._read(run, s)
            )
        self._selector.register(pidfd, selectors.EVENT_READ, lambda _mask: self._on_end(run))

    @property
    def busy(self) -> bool:
        """Whether anything runs."""
        return bool(self._runs)

    def deadline(self) -> float | None:
        """When `tick` wants to be called next, by the monotonic clock."""
        return min((run.due for run in self._runs if run.due is not None), default=None)

    def tick(self) -> None:
        """End what has run for too long: ask first, then kill."""
        now = time.monotonic()
        for run in self._runs:
            if run.due is None or now < run.due:
                continue
            _signal(run, signal.SIGKILL if run.overdue else signal.SIGTERM)
            run.due = None if run.overdue else now + GRACE_SECONDS
            run.overdue = True

    def stop(self) -> None:
        """End all that runs, and return when it has ended."""
        for run in self._runs:
            _signal(run, signal.SIGTERM)
        self._wait(GRACE_SECONDS)
        for run in self._runs:
            _signal(run, signal.SIGKILL)
        self._wait(GRACE_SECONDS)

    def _wait(self, seconds: float) -> None:
        """Bury those that end within *seconds*."""
        until = time.monotonic() + seconds
        while self._runs and (left := until - time.monotonic()) > 0:
            poll = select.poll()
            for run in self._runs:
                poll.register(run.pidfd, select.POLLIN)
            ended = {fd for fd, _ in poll.poll(left * 1000)}
            for run in [run for run in self._runs if run.pidfd in ended]:
                self._bury(run)

    def _on_end(self, run: _Run) -> None:
        if run not in self._runs:
            return
        self._bury(run)
        code = run.process.returncode
        cause = None if code == 0 else _obituary(code)
        if run.overdue:
            cause = f"took longer than {run.limit_seconds:g} s and was ended"
        last = run.streams[1].last or run.streams[0].last
        left_out = max(0, run.lines - LINES_TOLD)
        run.on_end(Ending(cause, time.monotonic() - run.began, last, left_out))

    def _bury(self, run: _Run) -> None:
        """Take its last words, and end what it has left behind."""
        self._runs.remove(run)
        # Before we wait for it, its number is nobody else's.
        _signal(run, signal.SIGKILL)
        run.process.wait()
        self._selector.unregister(run.pidfd)
        os.close(run.pidfd)
        os.close(run.lifeline)
        for stream in run.streams:
            for _ in range(_LAST_BYTES >> 16):
                if stream.fd < 0 or not self._read(run, stream):
                    break
            self._close(run, stream)

    def _read(self, run: _Run, stream: _Stream) -> bool:
        """Take what has come; False if nothing has."""
        if stream.fd < 0:
            return False
        try:
            data = os.read(stream.fd, 1 << 16)
        except BlockingIOError:
            return False
        if not data:
            self._close(run, stream)
            return False
        *whole, rest = (stream.rest + data).split(b"\n")
        stream.rest = rest[:LINE_BYTES]  # a line without an end must not fill our memory
        for line in whole:
            self._tell(run, stream, line)
        return True

    def _close(self, run: _Run, stream: _Stream) -> None:
        if stream.fd >= 0:
            self._selector.unregister(stream.fd)
            os.close(stream.fd)
            stream.fd = -1
            if stream.rest:
                self._tell(run, stream, stream.rest)

    def _tell(self, run: _Run, stream: _Stream, line: bytes) -> None:
        text = line[:LINE_BYTES].decode("utf-8", "surrogateescape").rstrip()
        if text:
            stream.last = text
            run.lines += 1
            if run.lines <= LINES_TOLD:
                run.on_line(text)


def _tie(fd: int, group: int) -> None:
    """Have the kernel kill *group* when the other end of the pipe *fd* is closed.

    We may be killed ourselves, and it must not run on beside the next daemon.  The program keeps
    *fd* open by inheriting it, and does not need to know of it.
    """
    with contextlib.suppress(ProcessLookupError):  # it has ended already
        fcntl.fcntl(fd, fcntl.F_SETOWN, -group)
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)


def _signal(run: _Run, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(run.process.pid, number)


def _obituary(code: int) -> str:
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
