"""The log file of a daemon in the background: writing whole lines, rotation, reading it back.

Knows bytes and files; nothing of events.  The file is the daemon's standard error, so that what
Python or a library prints lands in it as well.
"""

import contextlib
import os
import time
from collections.abc import Generator
from typing import Final

NAME: Final = "log"
"""Of the file, in the state folder."""
LIMIT_BYTES: Final = 5 << 20
"""Beyond it a new file is begun."""
KEPT: Final = 3
"""Older files that are kept, as `log.1` to `log.3`."""
LOOK_SECONDS: Final = 0.2
"""Between two looks of a follower; nobody looks while nobody follows."""
_BLOCK: Final = 1 << 16
_STDOUT: Final = 1
_STDERR: Final = 2


def path_in(state_dir: str) -> str:
    """Where a daemon in the background writes its log."""
    return os.path.join(state_dir, NAME)


def is_open_as(path: str, descriptor: int) -> bool:
    """Whether *descriptor* of this process is the file at *path*."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except OSError:
        return False


class Lines:
    """Whole lines to standard error; to its own file with rotation, if it is one."""

    def __init__(self, path: str | None = None, *, limit_bytes: int = LIMIT_BYTES) -> None:
        """Set up.

        Args:
            path: Of the log file, which is rotated if it is our standard error.
            limit_bytes: Beyond it a new one is begun.
        """
        self._path = path if path is not None and is_open_as(path, _STDERR) else None
        self._limit = limit_bytes
        self._torn = False
        """The last line could not be written whole: the disk was full."""

    def write(self, line: bytes) -> None:
        """Write one line, in one call; raises OSError if nobody takes it."""
        text = b"\n" * self._torn + line + b"\n"
        while text:
            written = os.write(_STDERR, text)
            text = text[written:]
            self._torn = bool(text)  # if the next call fails, this one stays cut off
        if self._path is not None and os.fstat(_STDERR).st_size > self._limit:
            # It goes on in the old file if the disk has no room for a new one.
            with contextlib.suppress(OSError):
                self._rotate(self._path)

    def _rotate(self, path: str) -> None:
        """Put the file aside and go on in a new one.

        The new one takes our descriptors before it takes the name: who finds it under that
        name knows that nothing more is written to the old one.
        """
        if not is_open_as(path, _STDERR):
            self._path = None  # somebody else has put it aside: it is theirs now
            return
        fresh = f"{path}.new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        fd = os.open(fresh, flags, 0o600)
        try:
            for number in range(KEPT, 0, -1):
                older = path if number == 1 else f"{path}.{number - 1}"
                with contextlib.suppress(FileNotFoundError):
                    os.rename(older, f"{path}.{number}")
            if is_open_as(f"{path}.1", _STDOUT):
                os.dup2(fd, _STDOUT)
            os.dup2(fd, _STDERR)
            os.rename(fresh, path)
        finally:
            os.close(fd)


def files(path: str) -> list[str]:
    """The log's files that are there, the oldest first."""
    names = [*(f"{path}.{number}" for number in range(KEPT, 0, -1)), path]
    return [name for name in names if os.path.exists(name)]


def last_lines(path: str, count: int) -> tuple[list[bytes], int, int]:
    """The last *count* lines over all files of the log at *path*, and where to go on.

    Returns:
        The lines, each with its newline; the open descriptor of the newest file, which the
        caller closes; and the offset in it up to which the lines have it.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    # Opened first: a rotation from here on moves what we have open, and loses us nothing.
    size = os.fstat(fd).st_size
    found = _tail(fd, size, count)
    end = size
    if found and not found[-1].endswith(b"\n"):
        end -= len(found.pop())  # it is being written: the follower gets it whole
    for name in reversed(files(path)[:-1]):
        if len(found) >= count:
            break
        with contextlib.suppress(OSError), open(name, "rb") as older:
            if not os.path.samestat(os.fstat(older.fileno()), os.fstat(fd)):
                length = os.fstat(older.fileno()).st_size
                found[:0] = _tail(older.fileno(), length, count - len(found))
    return found[-count:] if count else [], fd, end


def _tail(fd: int, size: int, count: int) -> list[bytes]:
    """The last *count* lines of the first *size* bytes."""
    text = b""
    start = size
    while start > 0 and text.count(b"\n") <= count:
        step = min(_BLOCK, start)
        start -= step
        text = os.pread(fd, step, start) + text
    # By newlines alone: splitlines would part a line at a carriage return.
    *whole, rest = text.split(b"\n")
    lines = [line + b"\n" for line in whole] + ([rest] if rest else [])
    return lines[-(count + 1) :] if lines and not lines[-1].endswith(b"\n") else lines[-count:]


def follow(path: str, fd: int, offset: int) -> Generator[bytes, None, None]:
    """What is written to the log from *offset* of *fd* on, in whole lines; ends never.

    Takes over *fd*.  A rotation is followed: the old file is read to its end before the new one
    is begun.
    """
    rest = b""
    try:
        while True:
            # Asked before reading: once the next file has the name, this one is complete.
            fresh = _next_file(path, fd)
            try:
                while block := os.pread(fd, _BLOCK, offset):
                    offset += len(block)
                    whole, newline, rest = (rest + block).rpartition(b"\n")
                    if newline:
                        yield whole + newline
            except BaseException:
                if fresh is not None:
                    os.close(fresh)
                raise
            if fresh is not None:
                if rest:
                    yield rest + b"\n"
                os.close(fd)
                fd, offset, rest = fresh, 0, b""
                continue
            if os.fstat(fd).st_size < offset:  # somebody has emptied it
                offset, rest = 0, b""
            time.sleep(LOOK_SECONDS)
    finally:
        os.close(fd)


def _next_file(path: str, fd: int) -> int | None:
    """The file that was begun after the one that *fd* is, open; None if there is none yet.

    That need not be the newest: while nobody looked, several may have been begun.
    """
    fresh: int | None = None
    # The newest first: they are renamed towards the old ones, so none slips past us.
    for name in (path, *(f"{path}.{number}" for number in range(1, KEPT + 1))):
        try:
            older = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue  # in the middle of a rotation, or never begun
        if os.path.samestat(os.fstat(older), os.fstat(fd)):
            os.close(older)
            return fresh
        if fresh is not None:
            os.close(fresh)
        fresh = older
    return fresh  # ours is not kept any more
