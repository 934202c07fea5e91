"""From the kernel's events to places that are ripe to be looked at.

Owns the watches, what is settling, and the cookies of `sync`.  Knows which paths matter; what
became of them is for others to find out.
"""

import contextlib
import os
import selectors
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from assetd import globs
from assetd import place as places
from assetd import stamp as stamps
from assetd.awaited import Awaited
from assetd.inbox import Hint, Inbox, Pending, Settling
from assetd.model import Place, Tell
from assetd.record import Record
from assetd.survey import Layout
from assetd.watch import Area, Note, Overflow, Seen, Watcher

TURN_SECONDS: Final = 0.01
"""What reading notes may take of a turn of the loop."""
POLL_DEAF_SECONDS: Final = 2.0
"""Between two scans while some folders cannot be watched, or none."""
POLL_SHARE: Final = 4.0
"""Between two scans passes at least so many times what the last one took."""
REVIVAL_SECONDS: Final = (1.0, 60.0)
"""First and longest wait before a reader that died again is started again; one that has lived
for as long as the longest is started at once."""

Ripe = list[tuple[Place, Pending]]


@dataclass(slots=True)
class Cookie:
    """A file whose event proves that every event before it has arrived."""

    serial: int | None = None
    """Of the last note before it; None: it has not come back yet."""


class Lookout:
    """Watches what matters to one project, on the owner's thread."""

    def __init__(
        self, layout: Layout, record: Record, selector: selectors.BaseSelector, tell: Tell
    ) -> None:
        self._record = record
        self._selector = selector
        self._tell = tell
        self._inbox: Inbox[Note] = Inbox()
        selector.register(self._inbox.fd, selectors.EVENT_READ, lambda _mask: None)
        self._cookies: dict[str, Cookie] = {}
        self._git_since: float | None = None
        self._poll_at: float | None = None
        self._polling_since: float | None = None
        """When the poll that is going on began."""
        self._revive_at: float | None = None
        """When to try again to watch, while the kernel or a bug keeps us from it."""
        self._revival_seconds = 0.0
        self._watching_since = 0.0
        self.refusal: str | None = None
        """Why we do not watch although we are to."""
        self.serial = 0
        """Grows with each note, and with everything else that `sync` has to wait for."""
        self.lost = False
        """Events were lost: everything has to be scanned.  The engine clears it."""
        self.reload_at: float | None = None
        """When the configuration, which changed, is to be read.  The engine clears it."""
        self.refused = False
        """Whether the configuration, as it is now, is not the one in force.  The engine sets it."""
        self.awaited = Awaited(layout.root)
        self._ways: dict[str, set[Place]] = {}
        """The links on the way to folders that matter, and where such a way ends, by their paths:
        if something happens there, these folders are other ones."""
        self.watcher: Watcher | None = None
        numbers = _numbers(layout)
        self._files = Settling(*numbers)
        self._folders = Settling(*numbers)
        self._outputs = Settling(*numbers)
        self._stations = (self._files, self._folders, self._outputs)
        self.use(layout)

    def use(self, layout: Layout) -> None:
        """From now on this is the configuration."""
        self._layout = layout
        for station in self._stations:
            station.retune(*_numbers(layout))

    def start(self) -> None:
        """Begin to watch; what is in the mounts is watched by the scan that follows."""
        config = self._layout.project.config
        folder = os.path.join(config.state_dir, "cookies")
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder, mode=0o700)
        self._cookie_folder = folder
        if config.watch.backend == "polling":
            self._poll_at = time.monotonic() + config.watch.interval_seconds
            return
        self._watch()

    def _watch(self) -> bool:
        """Begin to watch, if the kernel lets us; else look again and again until it does."""
        try:
            self.watcher = Watcher(self._inbox)
        except OSError as error:
            if self.refusal is None:
                self.refusal = (
                    f"{os.strerror(error.errno or 0)}; raise fs.inotify.max_user_instances"
                )
                self._tell(
                    "not_watching",
                    level="error",
                    cause=self.refusal,
                    what=f"scanning every {POLL_DEAF_SECONDS:g} s instead",
                )
            self._revive_at = time.monotonic()
            self._poll_at = self._revive_at + POLL_DEAF_SECONDS
            return False
        self._revive_at = self._poll_at = self.refusal = None
        self._watching_since = time.monotonic()
        self.watcher.add(self._cookie_folder, Area.COOKIES)
        self.watch_nearby()
        # As they stand in the record: of very many outputs there are few folders.
        folders = {path.rpartition(b"/")[0] for path, *_ in self._record.output_stamps()}
        for each in sorted(folders | {b""}):
            self.watch_output_folder(os.fsdecode(each))
        return True

    def restart(self) -> None:
        """Watch in the way that the configuration says now; a scan has to follow."""
        self._end_watcher()
        self._poll_at = self._revive_at = self.refusal = None
        self.start()
        self.crumble(self.serial)

    def _end_watcher(self) -> None:
        if self.watcher is not None:
            self.watcher.stop()
            self.watcher = None
            while self._inbox.take(500):
                pass  # the next one counts its watches from one again

    def stop(self) -> None:
        """End the watching."""
        self._end_watcher()
        self._selector.unregister(self._inbox.fd)
        self._inbox.close()

    # -- what is watched ------------------------------------------------------------------

    def watch_folder(self, path: str) -> None:
        """Watch one folder of a mount."""
        if self.watcher is not None:
            self.watcher.add(path, Area.MOUNT)

    def watch_output_folder(self, folder: str) -> bool:
        """Watch one folder of the output root, named relative to it.

        Returns:
            Whether it was watched all along: else what is in it may be gone again.
        """
        if self.watcher is None:
            return True
        path = os.path.join(self._layout.project.config.out_dir, folder).rstrip("/")
        before = len(self.watcher)
        self.watcher.add(path, Area.OUTPUT)
        return path in self.watcher.deaf or (
            len(self.watcher) == before and self.watcher.add(path, Area.OUTPUT)
        )

    def watch_nearby(self, folders: Iterable[Place] | None = None) -> list[Place]:
        """Watch the folders outside the mounts that matter, or what there is of their way.

        Args:
            folders: Of dependencies; None for all that the record, the configuration and links
                to nowhere name.

        Returns:
            The folders that were not watched before: what is in them may have changed
            since somebody last looked.
        """
        if self.watcher is None:
            return []
        config = self._layout.project.config
        wanted: set[str] = set()
        linked: dict[Place, tuple[list[str], str | None]] = {}
        if folders is None:
            paths = (config.file, *config.plugins, *(m.folder for m in config.mounts))
            wanted |= {os.path.dirname(path) for path in (*paths, config.out_dir, *config.links)}
            folders = {*self._record.folders_of_files(), *self.awaited.folders()}
            self._ways.clear()
        folders = set(folders)
        patterns: dict[Place, list[str]] = {}
        for folder in list(folders) if self._record.globs else ():
            patterns[folder] = [pattern for pattern, _ in self._record.globs_at(folder)]
            starts = {globs.start(pattern) for pattern in patterns[folder]} - {""}
            folders |= {places.join(folder, each) for each in starts}
        for folder in folders:
            path = places.path(folder, config.project)
            links, end = stamps.way(path)
            marks = links if end is None else [*links, end]
            for mark in marks:
                self._ways.setdefault(mark, set()).add(folder)
            if links:
                linked[folder] = links, end
                holders = {os.path.dirname(mark) for mark in marks}
                wanted |= {h for h in holders if not self._is_scanned(places.of(h, config.project))}
            if links or not self._is_scanned(folder):
                wanted.add(path)
            if any("/" in pattern for pattern in patterns.get(folder, ())):
                for where, below, _ in os.walk(path):
                    # What we write ourselves must not be news, and git writes all the time.
                    ours = {config.out_dir, config.state_dir}
                    below[:] = [n for n in below if n != ".git" and f"{where}/{n}" not in ours]
                    if not self._is_scanned(places.of(where, config.project)):
                        wanted.add(where)
        for path in list(wanted):
            # A folder on the way that is moved takes ours along, and ours hears nothing.
            above = path
            while above != config.project and places.is_below(above, config.project):
                above = os.path.dirname(above)
                wanted.add(above)
        before = len(self.watcher)
        new: list[Place] = []
        for folder in wanted:
            at = folder
            while True:
                if self.watcher.add(at, Area.NEARBY):
                    if len(self.watcher) > before:
                        before = len(self.watcher)
                        new.append(places.of(at, config.project))
                    if at == folder or not os.path.isdir(folder):
                        break
                    at = folder  # it has come while we were on our way up
                elif at in self.watcher.deaf or at == "/":
                    break
                else:
                    at = os.path.dirname(at)
        for folder, way in linked.items():
            if stamps.way(places.path(folder, config.project)) != way:
                # A link on the way was changed before anybody watched it.
                self._folders.note(folder, Hint.TOUCHED, time.monotonic(), self.next_serial())
        return new

    def _is_scanned(self, folder: Place) -> bool:
        """Whether it is part of a mount, and not ignored there: then the scan watches it."""
        layout = self._layout
        if any(folder == mount.place for mount in layout.mounts.values()):
            return True
        source = layout.locate(folder)
        return source is not None and not layout.ignored(
            layout.mounts[source.mount], source.path, is_folder=True
        )

    # -- proof ----------------------------------------------------------------------------

    def next_serial(self) -> int:
        """A serial that is higher than any before."""
        self.serial += 1
        return self.serial

    def proves(self) -> bool:
        """Whether events prove anything: everything is watched, and the reader lives."""
        return self.watcher is not None and not self.watcher.deaf and self.watcher.alive()

    def bake(self) -> Cookie:
        """Make a cookie; its serial is set once its event has come through the inbox."""
        cookie = Cookie()
        name = f"{time.monotonic_ns()}-{len(self._cookies)}"
        self._cookies[name] = cookie
        path = os.path.join(self._cookie_folder, name)
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError:
            del self._cookies[name]  # nothing will come of it
            raise
        os.unlink(path)
        return cookie

    def crumble(self, serial: int) -> None:
        """Cookies may be lost with other events: a scan with *serial* proves as much."""
        for cookie in self._cookies.values():
            cookie.serial = serial
        self._cookies.clear()

    def oldest(self) -> int | None:
        """The lowest serial of what still settles."""
        serials = (station.oldest() for station in self._stations)
        return min((s for s in serials if s is not None), default=None)

    def __len__(self) -> int:
        return sum(map(len, self._stations)) + len(self._inbox)

    # -- notes ----------------------------------------------------------------------------

    def take_notes(self) -> None:
        """Read what the watchdog thread has left, for as long as a turn allows."""
        watcher = self.watcher
        if watcher is None:
            return
        end = time.monotonic() + TURN_SECONDS
        while notes := self._inbox.take(500):
            now = time.monotonic()
            for note in notes:
                match watcher.understand(note):
                    case Overflow():
                        self._tell("events_lost", level="warning", what="scanning everything")
                        self.lost = True
                    case names:
                        for seen in names:
                            self._on_seen(seen, now)
            if now > end:
                return

    def look_after(self, now: float, *, scanning: bool) -> bool:
        """Restart a reader that died; returns whether it is time to poll."""
        watcher = self.watcher
        if watcher is not None and not watcher.alive():
            self._bury(watcher, now)
            return False
        if self._polling_since is not None and not scanning:
            # A scan that takes longer than the wait for it would be all that we do.
            least = now + POLL_SHARE * (now - self._polling_since)
            self._polling_since = None
            self._poll_at = None if self._poll_at is None else max(self._poll_at, least)
        if watcher is not None and watcher.deaf and self._poll_at is None:
            self._poll_at = now + POLL_DEAF_SECONDS
            folder, code = next(iter(watcher.deaf.items()))
            self._tell(
                "folders_unwatched",
                level="warning",
                count=len(watcher.deaf),
                first=folder,
                cause=os.strerror(code),
                what=f"scanning every {POLL_DEAF_SECONDS:g} s instead",
            )
        if self._poll_at is None or now < self._poll_at:
            return False
        self._poll_at = now + self.interval_seconds
        if scanning:
            return False
        if self._revive_at is not None and now >= self._revive_at and self._watch():
            self.lost = True
            return False
        if watcher is not None:
            watcher.retry()
            if not watcher.deaf:
                self._poll_at = None  # this last scan finds what came before we could watch
        self._polling_since = now
        return True

    @property
    def interval_seconds(self) -> float:
        """Between two scans, when it is not events that tell what changes."""
        config = self._layout.project.config.watch
        return config.interval_seconds if config.backend == "polling" else POLL_DEAF_SECONDS

    def _bury(self, watcher: Watcher, now: float) -> None:
        """A reader has died: start another, and less and less soon if they die young."""
        first, longest = REVIVAL_SECONDS
        young = now - self._watching_since < longest
        wait, self._revival_seconds = (
            (self._revival_seconds, min(longest, max(first, self._revival_seconds * 2)))
            if young
            else (0.0, first)
        )
        again = f"in {wait:g} s" if wait else "at once"
        self._tell(
            "watcher_died",
            level="error",
            cause=watcher.cause_of_death,
            what=f"scanning; starting it again {again}",
        )
        self._end_watcher()
        self.lost = True
        if not wait:
            self._watch()
            return
        self.refusal = f"the reader of events died again: {watcher.cause_of_death}"
        self._revive_at = now + wait
        self._poll_at = now + POLL_DEAF_SECONDS

    def _on_seen(self, seen: Seen, now: float) -> None:
        config, layout = self._layout.project.config, self._layout
        if seen.area is Area.COOKIES:
            cookie = self._cookies.pop(os.path.basename(seen.path), None)
            if cookie is not None:
                cookie.serial = self.serial
                for station in self._stations:
                    station.force(self.serial)
                if self.reload_at is not None:
                    self.reload_at = now
            return
        if seen.path in config.links:
            self.reload_at = now + config.settle.gap_seconds * 2
        serial = self.next_serial()
        if seen.area is Area.OUTPUT:
            path = os.path.relpath(seen.path, config.out_dir)
            if seen.is_folder and seen.hint is Hint.GONE and self.watcher is not None:
                # We may have made it anew already, and taken its old watch for the new one.
                self.watcher.drop_below(seen.path)
                self.watcher.add(seen.path, Area.OUTPUT)
            self._outputs.note("" if path == "." else path, seen.hint, now, serial)
            return
        for folder in self._ways.get(seen.path, ()):
            if self.watcher is not None:  # of what it led to before
                self.watcher.drop_below(places.path(folder, config.project))
            self._folders.note(folder, seen.hint, now, serial)
        place = places.of(seen.path, config.project)
        if self.refused and seen.area is Area.NEARBY:
            # What it needs (the folder of a mount, a plugin) may have come.
            self.reload_at = now + config.settle.gap_seconds * 2
        if seen.is_folder:
            self._on_folder(seen, place, now, serial)
            return
        if seen.path == config.file or seen.path in config.plugins:
            self.reload_at = now + config.settle.gap_seconds * 2
            return
        source = layout.locate(place)
        if source is not None:
            ignored = layout.ignored(layout.mounts[source.mount], source.path, is_folder=False)
            if ignored and not (self._is_asked_for(place) or stamps.shared_inode(seen.path)):
                # Not even a sign of activity: an editor's temporary file would delay the
                # save that it is for.
                return
        elif seen.area is Area.NEARBY and not (
            self._matters(place) or stamps.shared_inode(seen.path)
        ):
            return
        self._files.note(place, seen.hint, now, serial)

    def _matters(self, place: Place) -> bool:
        record = self._record
        return (
            place in self.awaited
            or record.file(place) is not None
            or (record.globs and any(record.globs_at(folder) for folder in places.above(place)))
        )

    def _is_asked_for(self, place: Place) -> bool:
        """Whether somebody depends on the file at *place*, which is no source."""
        record = self._record
        return (
            place in self.awaited
            or record.file(place) is not None
            or any(True for _ in record.globbers(place))
        )

    def _on_folder(self, seen: Seen, place: Place, now: float, serial: int) -> None:
        layout = self._layout
        if seen.hint is Hint.GONE and self.watcher is not None:
            # Even if nobody needs it now: whoever needs the next one of that name, some day,
            # would take the watch of this one for its own.
            self.watcher.drop_below(seen.path)
            out_dir = layout.project.config.out_dir
            if places.is_below(out_dir, seen.path):
                self.watcher.add(out_dir, Area.OUTPUT)  # we may have made it anew already
                self._outputs.note("", seen.hint, now, serial)
        source = layout.locate(place)
        if source is not None:
            mount = layout.mounts[source.mount]
            if layout.ignored(mount, source.path, is_folder=True) and not self._leads_to_any(place):
                return
        elif seen.area is Area.NEARBY:
            config = layout.project.config
            if any(file.startswith(f"{seen.path}/") for file in (config.file, *config.plugins)):
                # The watch went with the old folder: the reading that follows watches the new.
                self.reload_at = now + config.settle.gap_seconds * 2
            holds_mount = any(places.is_below(m.place, place) for m in layout.mounts.values())
            if not (holds_mount or self._leads_to_any(place)):
                return
        self._folders.note(place, seen.hint, now, serial)

    def _leads_to_any(self, place: Place) -> bool:
        """Whether somebody depends on anything in the folder at *place*."""
        record = self._record
        return bool(
            self.awaited.any_below(place)
            or record.files_below(place)
            or record.globs_below(place)
            or (record.globs and any(map(record.globs_at, places.above(place))))
        )

    # -- ripeness -------------------------------------------------------------------------

    def ripe(self, now: float) -> tuple[Ripe, Ripe, Ripe]:
        """What is to be looked at now: files, folders, and paths of the output root."""
        if len(self._files) and self._git_is_busy(now):
            return [], [], []
        return self._files.ready(now), self._folders.ready(now), self._outputs.ready(now)

    def deadline(self) -> float | None:
        """When something may be ripe if nothing more happens, by the monotonic clock."""
        times = [t for station in self._stations if (t := station.deadline()) is not None]
        if self._poll_at is not None:
            times.append(self._poll_at)
        if not times:
            return None
        if self._git_since is not None:
            # Nothing tells us that the lock has gone; until then what is ripe waits.
            return max(min(times), time.monotonic() + 0.02)
        return min(times)

    def _git_is_busy(self, now: float) -> bool:
        """Whether git is rewriting the work tree: it holds its index lock meanwhile."""
        limit = self._layout.project.config.settle.git_seconds
        lock = _git_lock(self._layout.root)
        try:
            age = None if lock is None else time.time() - os.stat(lock).st_mtime
        except OSError:
            age = None
        if age is None or age > limit:
            self._git_since = None  # a lock that old was left behind by a git that crashed
            return False
        if self._git_since is None:
            self._git_since = now
        return now - self._git_since < limit


def _numbers(layout: Layout) -> tuple[float, float, float]:
    settle = layout.project.config.settle
    return settle.gap_seconds, settle.patience_seconds, settle.deletion_seconds


def _git_lock(folder: str) -> str | None:
    """Where the git that *folder* belongs to keeps its index lock; None without git."""
    while True:
        git = os.path.join(folder, ".git")
        if os.path.isdir(git):
            return os.path.join(git, "index.lock")
        if os.path.isfile(git):  # a worktree: the file says where its index is
            with contextlib.suppress(OSError, UnicodeDecodeError):
                text = Path(git).read_text().strip().removeprefix("gitdir: ")
                return os.path.join(folder, text, "index.lock")
            return None
        parent = os.path.dirname(folder)
        if parent == folder:
            return None
        folder = parent
