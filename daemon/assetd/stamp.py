"""Paths to stamps and content digests.  Equality only: no time is ever compared by order.

The one exception is the racy stamp: a file system's clock ticks every few milliseconds, so a
stamp taken within a tick of the change it shows may belong to two contents.  Such a stamp is
not handed out; whoever gets none looks inside again.
"""

import errno
import hashlib
import os
import stat
import time
from typing import Final

from assetd.model import Digest, FileFact, Place, Stamp

TICK_NS: Final = 20_000_000
"""Twice the coarsest clock tick of Linux (HZ=100): the kernel stamps files with that clock."""

_CHUNK: Final = 1 << 20
_OPEN: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
# O_NONBLOCK: opening a FIFO among the sources would wait for a writer, for ever.


class NotAFileError(OSError):
    """The path is there but is a folder, a socket, a FIFO or a device."""


def of_stat(found: os.stat_result) -> Stamp:
    """The stamp in a stat result."""
    return Stamp(found.st_mtime_ns, found.st_size, found.st_ino, found.st_ctime_ns)


def read(path: str) -> Stamp | None:
    """The stamp of the regular file at *path*, links followed; None if there is none.

    Anything that is in the way of an answer (no permission on a folder, a loop of links)
    counts as absent: opening it would fail in the same way.
    """
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return of_stat(found) if stat.S_ISREG(found.st_mode) else None


def is_racy(stamp: Stamp, now_ns: int | None = None) -> bool:
    """Whether the file may change once more without its stamp changing.

    A clock that was set back makes every stamp of the future racy, which costs a digest
    each time and is never wrong.
    """
    return stamp.ctime_ns > (time.time_ns() if now_ns is None else now_ns) - TICK_NS


def digest_bytes(content: bytes) -> Digest:
    """The digest of *content*."""
    return hashlib.sha256(content).hexdigest()


def digest_file(path: str) -> tuple[Digest, Stamp]:
    """The digest of the regular file at *path* and the stamp that it had throughout.

    Raises:
        NotAFileError: It is something else.
        OSError: It is not there or cannot be read; EAGAIN if it changed all the time.
    """
    fd = os.open(path, _OPEN)
    try:
        before = os.fstat(fd)
        if not stat.S_ISREG(before.st_mode):
            raise NotAFileError(errno.EINVAL, "not a regular file", path)
        for _ in range(3):
            os.lseek(fd, 0, os.SEEK_SET)
            state = hashlib.sha256()
            while chunk := os.read(fd, _CHUNK):
                state.update(chunk)
            after = os.fstat(fd)
            if of_stat(before) == of_stat(after):
                break
            before = after
        # A file that somebody keeps writing to gets the digest of some moment and a stamp
        # that no longer fits: the next look sees that it moved.
        return state.hexdigest(), of_stat(before)
    finally:
        os.close(fd)


def read_whole(path: str, limit_bytes: int) -> tuple[bytes, Stamp] | None:
    """The content of the regular file at *path* and the stamp that it had throughout.

    Returns:
        None for what is no regular file or is longer, changes while it is read, or is not where
        *path* says: a link, or something behind one.  Who may read more than others must not be
        led elsewhere by them.

    Raises:
        OSError: It is not there or cannot be read.
    """
    fd = os.open(path, _OPEN | os.O_NOFOLLOW)
    try:
        before = os.fstat(fd)
        if not stat.S_ISREG(before.st_mode) or before.st_size > limit_bytes:
            return None
        if os.readlink(f"/proc/self/fd/{fd}") != path:
            return None
        content = os.read(fd, before.st_size + 1)
        stamp = of_stat(before)
        if len(content) != before.st_size or stamp != of_stat(os.fstat(fd)):
            return None
        return content, stamp
    finally:
        os.close(fd)


def look(path: str, place: Place) -> FileFact:
    """What the file at *path* holds now; an absent or unreadable one has no digest."""
    try:
        digest, stamp = digest_file(path)
    except (OSError, ValueError):
        return FileFact(place, None, None)
    return FileFact(place, None if is_racy(stamp) else stamp, digest)


class Looker:
    """Digests of files, remembered while their stamps prove them.  Bounded."""

    def __init__(self, limit: int = 50_000) -> None:
        self._limit = limit
        self._known: dict[str, tuple[Stamp, Digest]] = {}

    def digest(self, path: str) -> Digest | None:
        """The digest of the file at *path* as it is now; None if it cannot be read."""
        now = read(path)
        if now is None:
            return None
        known = self._known.get(path)
        if known is not None and known[0] == now:
            return known[1]
        fact = look(path, path)
        if fact.stamp is None or fact.digest is None:
            self._known.pop(path, None)
            return fact.digest
        if len(self._known) >= self._limit:
            self._known.clear()
        self._known[path] = (fact.stamp, fact.digest)
        return fact.digest

    def fact(self, path: str, place: Place) -> FileFact:
        """Like `digest`, with the stamp where it proves the digest."""
        digest = self.digest(path)
        known = self._known.get(path)
        return FileFact(place, None if known is None or digest is None else known[0], digest)
