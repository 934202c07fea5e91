"""Watching: the kernel's events as notes in the inbox, and the scan for when they do not do.

watchdog's inotify thread reads and parses; what an event means is decided by the owner, who
alone knows which folder a watch descriptor stands for.  Three things follow.  Notes arrive in
the kernel's order, so a cookie file's event proves that everything before it has arrived.  No
state is shared between threads.  And watchdog's half second of waiting for the other half of a
move is not ours: an event is a hint, and two hints are as good as a pair.

A scan watches each folder before it lists it, so that nothing falls between the two.
"""

import ctypes
import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

from watchdog.observers.inotify_c import (
    InotifyConstants,
    InotifyEvent,
    InotifyFD,
    Mask,
    inotify_add_watch,
    inotify_rm_watch,
)

from assetd import place as places
from assetd.inbox import Hint, Inbox
from assetd.model import Place, Stamp
from assetd.stamp import of_stat

_C: Final = InotifyConstants
_SOURCES: Final = Mask(
    _C.IN_CLOSE_WRITE
    | _C.IN_MODIFY
    | _C.IN_ATTRIB
    | _C.IN_CREATE
    | _C.IN_DELETE
    | _C.IN_MOVED_FROM
    | _C.IN_MOVED_TO
    | _C.IN_DELETE_SELF
    | _C.IN_MOVE_SELF
    | _C.IN_ONLYDIR
    | _C.IN_MASK_ADD
)
# IN_MASK_ADD: a folder that is watched for two reasons keeps the events of both.
# Not IN_MOVED_TO and IN_CREATE: that is how we publish ourselves.
_OUTPUTS: Final = Mask(
    _C.IN_CLOSE_WRITE
    | _C.IN_DELETE
    | _C.IN_MOVED_FROM
    | _C.IN_DELETE_SELF
    | _C.IN_MOVE_SELF
    | _C.IN_ONLYDIR
    | _C.IN_MASK_ADD
)


NOWHERE: Final = "what it leads to is not there"
"""Why a link is not followed, as long as that is so."""


class Area(Enum):
    """Why a folder is watched."""

    MOUNT = "mount"
    NEARBY = "nearby"
    """Dependencies are there, or the configuration, or a mount's root; not below it."""
    OUTPUT = "output"
    COOKIES = "cookies"


@dataclass(frozen=True, slots=True)
class Note:
    """What the watchdog thread leaves in the inbox."""

    wd: int
    mask: int
    name: bytes


@dataclass(frozen=True, slots=True)
class Seen:
    """A note, understood."""

    path: str
    """Absolute; the folder itself if `itself`."""
    area: Area
    hint: Hint
    is_folder: bool


class Overflow:
    """The kernel dropped events: whatever is watched may have changed."""


class _Thread(InotifyFD):
    """watchdog's reader, whose events go straight to the inbox."""

    def __init__(self, post: Callable[[Note], None]) -> None:
        super().__init__()
        # watchdog leaves the descriptor inheritable: a worker would keep it open.
        os.set_inheritable(self.descriptor, False)
        self._post = post
        self.ended: str | None = None
        """How it ended, if it has."""

    def run(self) -> None:
        """Read until told to stop; wakes the owner however that ends."""
        try:
            super().run()
            self.ended = "it has ended"
        except BaseException as error:  # noqa: BLE001 - nobody else would hear of it
            self.ended = f"{type(error).__name__}: {error}".rstrip(": ")
        # An owner that has nothing to do would never look whether we live.
        self._post(Note(-1, 0, b""))

    @property
    def descriptor(self) -> int:
        """The inotify descriptor."""
        return self._inotify_fd

    def handle_event(self, event: InotifyEvent) -> None:
        """Called on the watchdog thread, for every event; does next to nothing."""
        self._post(Note(event.wd, event.mask, event.name))


class Watcher:
    """Which folders are watched, and what their events mean.  Only for the owner's thread."""

    def __init__(self, inbox: Inbox[Note]) -> None:
        """Begin to read.  Raises OSError if the kernel gives us no more inotify instances."""
        self._thread = _Thread(inbox.post)
        self._folders: dict[int, list[tuple[str, Area]]] = {}
        """The names of each watch: links may lead to one folder by two ways."""
        self._watches: dict[tuple[str, Area], int] = {}
        self._children: dict[str, set[str]] = {}
        self.deaf: dict[str, int] = {}
        """Folders that could not be watched, with the error number."""
        self._deaf_areas: dict[str, Area] = {}
        self.overflows = 0
        self._thread.start()

    def alive(self) -> bool:
        """Whether events still come."""
        return self._thread.is_alive() and self._thread.ended is None

    @property
    def cause_of_death(self) -> str:
        """Why no events come any more."""
        return self._thread.ended or "it has ended"

    def __len__(self) -> int:
        return len(self._folders)

    def add(self, folder: str, area: Area) -> bool:
        """Watch one folder, not those in it; again is harmless.  False if it stays deaf."""
        if (folder, area) in self._watches:
            return True
        mask = _OUTPUTS if area is Area.OUTPUT else _SOURCES
        wd = inotify_add_watch(self._thread.descriptor, os.fsencode(folder), mask)
        if wd < 0:
            code = ctypes.get_errno()
            self.deaf.pop(folder, None)
            if code not in {errno.ENOENT, errno.ENOTDIR}:
                self.deaf[folder] = code
                self._deaf_areas[folder] = area
            return False
        self.deaf.pop(folder, None)
        for name in list(self._folders.get(wd, ())):
            if name[0] != folder and not _is_same(name[0], folder):
                # It was moved, and the kernel goes on with the watch that it had.
                self._forget(wd, name)
        self._folders.setdefault(wd, []).append((folder, area))
        self._watches[folder, area] = wd
        # All the way up: whoever hears that a folder far above is gone finds us below it.
        while (parent := os.path.dirname(folder)) != folder:
            children = self._children.setdefault(parent, set())
            if folder in children:
                break
            children.add(folder)
            folder = parent
        return True

    def retry(self) -> None:
        """Try again to watch what could not be watched; forget what is not there any more."""
        for folder in list(self.deaf):
            self.add(folder, self._deaf_areas[folder])

    def drop_below(self, folder: str) -> None:
        """Watch *folder* and all that is in it no more: it is gone, or goes by another name.

        But for the cookies: their folder is looked for nowhere else.
        """
        waiting = [folder]
        while waiting:
            each = waiting.pop()
            waiting.extend(self._children.get(each, ()))
            self.deaf.pop(each, None)
            for area in Area:
                wd = self._watches.get((each, area))
                if wd is not None and area is not Area.COOKIES:
                    self._forget(wd, (each, area))
                    if wd not in self._folders:
                        inotify_rm_watch(self._thread.descriptor, wd)  # type: ignore[arg-type]

    def understand(self, note: Note) -> tuple[Seen, ...] | Overflow:
        """What a note means, for each name of its folder; nothing if nothing (any more)."""
        if note.mask & _C.IN_Q_OVERFLOW:
            self.overflows += 1
            return Overflow()
        names = tuple(self._folders.get(note.wd, ()))
        if note.mask & _C.IN_IGNORED:
            for name in names:
                self._forget(note.wd, name)
            return ()
        seen = (_understood(note, folder, area) for folder, area in names)
        return tuple(each for each in seen if each is not None)

    def stop(self) -> None:
        """End the watchdog thread."""
        self._thread.stop()
        self._thread.join(5.0)

    def _forget(self, wd: int, name: tuple[str, Area]) -> None:
        self._folders[wd].remove(name)
        if not self._folders[wd]:
            del self._folders[wd]
        self._watches.pop(name, None)
        folder = name[0]
        while folder not in self._children and not any((folder, a) in self._watches for a in Area):
            parent = os.path.dirname(folder)
            siblings = self._children.get(parent)
            if siblings is None:
                break
            siblings.discard(folder)
            if siblings:
                break
            del self._children[parent]
            folder = parent


def _understood(note: Note, folder: str, area: Area) -> Seen | None:
    """What a note means for a folder of that name."""
    if area is Area.OUTPUT and not note.mask & _OUTPUTS:
        return None
    if note.mask & (_C.IN_DELETE_SELF | _C.IN_MOVE_SELF):
        return Seen(folder, area, Hint.GONE, is_folder=True)
    if not note.name:
        return None
    if note.mask & (_C.IN_DELETE | _C.IN_MOVED_FROM):
        hint = Hint.GONE
    elif note.mask & (_C.IN_CLOSE_WRITE | _C.IN_MOVED_TO):
        hint = Hint.FINISHED
    else:
        hint = Hint.TOUCHED
    path = os.path.join(folder, os.fsdecode(note.name))
    return Seen(path, area, hint, bool(note.mask & _C.IN_ISDIR))


def _is_same(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


@dataclass(frozen=True, slots=True)
class Listing:
    """One folder of a mount, as a scan found it."""

    folder: str
    """Relative to the mount; empty for the mount itself."""
    files: dict[str, Stamp]
    """The regular files that are not ignored, links to files among them, by name."""


def walk(
    root: str,
    start: str,
    ignored: Callable[[str, bool], bool],
    on_folder: Callable[[str], object],
    on_link: Callable[[Place, str], object],
) -> Iterator[Listing]:
    """The folders of a mount at and below *start*, each watched before it is listed.

    Args:
        root: The mount's folder, absolute.
        start: Relative to it; empty for all of it.
        ignored: Of a relative path and whether it is a folder.
        on_folder: Called with the absolute path of each folder before it is listed.
        on_link: Called with the relative path of what is not followed, and why.
    """
    waiting = [start]
    while waiting:
        folder = waiting.pop()
        path = places.join(root, folder) if folder else root
        on_folder(path)
        files: dict[str, Stamp] = {}
        below = []
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    name = f"{folder}/{entry.name}" if folder else entry.name
                    try:
                        is_dir = entry.is_dir(follow_symlinks=False)
                        if ignored(name, is_dir):
                            continue
                        if is_dir:
                            below.append(name)
                            continue
                        found = entry.stat()
                    except OSError as error:
                        if error.errno == errno.ELOOP:
                            on_link(name, "it is a loop of links")
                        elif entry.is_symlink():
                            on_link(name, NOWHERE)
                        continue  # or it is gone again
                    if stat.S_ISREG(found.st_mode):
                        files[entry.name] = of_stat(found)
                    elif stat.S_ISDIR(found.st_mode):
                        # Following it could lead in circles or out of the project, and its
                        # files would be sources twice.
                        on_link(name, "it is a link to a folder, which is not followed")
        except OSError as error:
            if error.errno in {errno.EACCES, errno.EPERM}:
                on_link(folder, f"the folder cannot be read: {error.strerror}")
        yield Listing(folder, files)
        waiting.extend(sorted(below, reverse=True))
