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
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from assetd import place as places
from assetd.model import Digest, FileFact, Place, Stamp

TICK_NS: Final = 20_000_000
"""Twice the coarsest clock tick of Linux (HZ=100): the kernel stamps files with that clock."""

_CHUNK: Final = 1 << 20
_OPEN: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
_WRITE: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
# O_NONBLOCK: opening a FIFO among the sources would wait for a writer, for ever.

_LINKS: Final = 40
"""As many as the kernel follows."""

_FolderStamp: TypeAlias = tuple[int, ...]
"""Device, inode, mtime and ctime."""
_NO_FOLDER: Final[_FolderStamp] = ()
"""There is no folder, so nothing is in it."""


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


def read_link(path: str) -> Stamp | None:
    """The stamp of the link at *path* itself; None if there is none."""
    try:
        found = os.lstat(path)
    except (OSError, ValueError):
        return None
    return of_stat(found) if stat.S_ISLNK(found.st_mode) else None


def shared_inode(path: str) -> int | None:
    """The inode of the file at *path* if it has other names, too: hard links."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_ino if found.st_nlink > 1 and stat.S_ISREG(found.st_mode) else None


def identity(path: str) -> tuple[int, int] | None:
    """Which file or folder it is, whatever it is called; None if there is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


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


def write_file(path: str, content: bytes) -> None:
    """Make the file at *path* hold *content*.  A third of what `open` takes for a small one."""
    fd = os.open(path, _WRITE, 0o666)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(fd, rest) :]
    finally:
        os.close(fd)


def look(path: str, place: Place) -> FileFact:
    """What the file at *path* holds now; an absent or unreadable one has no digest."""
    try:
        digest, stamp = digest_file(path)
    except (OSError, ValueError):
        return FileFact(place, None, None)
    return FileFact(place, None if is_racy(stamp) else stamp, digest)


def targets(path: str) -> Iterator[str]:
    """Where the link at *path* leads, step by step; nothing if it is none.

    An edit of what a link leads to happens there, where no watch of the link hears it.
    """
    for _ in range(_LINKS):
        try:
            path = os.path.join(os.path.dirname(path), os.readlink(path))
        except OSError:
            return
        yield path


def way(path: str) -> tuple[list[str], str | None]:
    """The links that are passed on the way to *path*, and where that ends, if it ends before.

    Each is named by the real folder that it is in: what happens to it happens there.
    """
    links: list[str] = []
    rest = path.split("/")[::-1]
    at = ""
    while rest:
        name = rest.pop()
        if name == "..":
            at = os.path.dirname(at)
        if name in {"", ".", ".."}:
            continue
        there = f"{at}/{name}"
        try:
            target = os.readlink(there)
        except FileNotFoundError:
            return links, there
        except OSError:  # it is no link
            at = there
            continue
        if len(links) == _LINKS:
            break
        links.append(there)
        at = "" if target.startswith("/") else at
        rest.extend(target.split("/")[::-1])
    return links, None


def crosses_link(folder: str, path: str) -> bool:
    """Whether *path*, which is relative to *folder*, leads through a link."""
    names = path.split("/") if path else []
    return any(
        os.path.islink(os.path.join(folder, *names[: number + 1])) for number in range(len(names))
    )


@dataclass(slots=True)
class Seen:
    """What was found at a place, links followed."""

    fact: FileFact
    kind: Literal["file", "folder", "other"] | None
    """None: nothing is there, or nobody can get at it."""
    links: tuple[str, ...]
    """Where it leads, step by step, if it is a link."""
    moment: int
    """When: see `Looker.look_again`."""
    path: str
    above: str
    """The path of the folder that it is in."""
    proof: _FolderStamp | None
    """Of that folder: nothing has come to this place while it has this stamp."""
    stamp: Stamp | None = None
    """Of a file, racy or not: while it is the same nobody has written to it, as far as the clock
    of the file system can tell."""


class Looker:
    """What is at the places of a project, remembered while stamps prove it.  Bounded.

    The stamp of a file proves its content.  The stamp of a folder proves that a name is still
    not in it: so a hundred paths that an import does not find cost a look at their folder.
    """

    def __init__(self, project: str, limit: int = 20_000) -> None:
        """Begin, knowing nothing.

        Args:
            project: The absolute path of its folder.
            limit: How many places are remembered.
        """
        self._project = project
        self._limit = limit
        self._moment = 0
        self._seen: dict[Place, Seen] = {}
        self._folders: dict[str, tuple[int, _FolderStamp | None]] = {}
        self._places: dict[str, Place] = {}

    def look_again(self) -> None:
        """From now on trust nothing that was seen before, unless a stamp proves it."""
        self._moment += 1

    def place(self, path: str) -> Place:
        """The place of *path*."""
        place = self._places.get(path)
        if place is None:
            place = places.of(path, self._project)
            _room(self._places, self._limit)
            self._places[path] = place
        return place

    def fact(self, place: Place) -> FileFact:
        """What the file at *place* holds, with the stamp where it proves the digest."""
        return self.seen(place).fact

    def links(self, place: Place) -> tuple[str, ...]:
        """Where *place* leads if it is a link; no file is read for it."""
        seen = self._seen.get(place)
        if seen is None or not self._stands(seen):
            return tuple(targets(places.path(place, self._project)))
        return seen.links

    def seen(self, place: Place) -> Seen:
        """What is at *place*: as it is now, or was when it was last seen at this moment."""
        seen = self._seen.get(place)
        if seen is None or not (seen.moment == self._moment or self._stands(seen)):
            if seen is None:
                _room(self._seen, self._limit)
            seen = self._seen[place] = self._look(place, None if seen is None else seen.fact)
        return seen

    def _stands(self, seen: Seen) -> bool:
        """Whether what was seen before is proven to be there now."""
        if seen.moment == self._moment:
            return True
        if seen.kind is None:
            if seen.proof is None or self._folder(seen.above) != seen.proof:
                return False
        elif seen.kind != "file" or seen.links or not _is_there(seen):
            return False
        seen.moment = self._moment
        return True

    def _look(self, place: Place, fact: FileFact | None) -> Seen:
        """What is there now; *fact* is what was there before."""
        path = places.path(place, self._project)
        above = os.path.dirname(path)
        # The folder first: what comes into it after this shows in its stamp.
        proof = self._folder(above)
        nothing = FileFact(place, None, None)
        absent = Seen(nothing, None, (), self._moment, path, above, proof)
        if proof == _NO_FOLDER:
            return absent
        links: tuple[str, ...] = ()
        try:
            found = os.lstat(path)
            if stat.S_ISLNK(found.st_mode):
                absent.proof = None  # what it leads to may come, elsewhere
                absent.links = links = tuple(targets(path))
                found = os.stat(path)
        except FileNotFoundError:
            return absent
        except (OSError, ValueError):
            absent.proof = None
            return absent
        if not stat.S_ISREG(found.st_mode):
            kind: Final = "folder" if stat.S_ISDIR(found.st_mode) else "other"
            return Seen(nothing, kind, links, self._moment, path, above, None)
        if fact is None or not _is_of(fact.stamp, found):
            fact = look(path, place)
        return Seen(fact, "file", links, self._moment, path, above, None, of_stat(found))

    def _folder(self, path: str) -> _FolderStamp | None:
        """The stamp of a folder; None if it proves nothing."""
        known = self._folders.get(path)
        if known is not None and known[0] == self._moment:
            return known[1]
        now_ns = time.time_ns()
        stamp: _FolderStamp | None
        try:
            found = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            stamp = _NO_FOLDER
        except (OSError, ValueError):
            stamp = None
        else:
            stamp = (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns)
            if not stat.S_ISDIR(found.st_mode):
                stamp = _NO_FOLDER
            elif found.st_ctime_ns > now_ns - TICK_NS:
                stamp = None
        if known is None:
            _room(self._folders, self._limit)
        self._folders[path] = (self._moment, stamp)
        return stamp


def _is_there(seen: Seen) -> bool:
    """Whether the file is there with its stamp, and no link to one that has it."""
    try:
        found = os.lstat(seen.path)
    except OSError:
        return False
    return _is_of(seen.fact.stamp, found) and stat.S_ISREG(found.st_mode)


def _is_of(stamp: Stamp | None, found: os.stat_result) -> bool:
    return stamp is not None and (
        stamp.mtime_ns == found.st_mtime_ns
        and stamp.size == found.st_size
        and stamp.inode == found.st_ino
        and stamp.ctime_ns == found.st_ctime_ns
    )


def _room(known: dict[str, Any], limit: int) -> None:
    """Make room for one more in *known*."""
    if len(known) >= limit:
        known.clear()
