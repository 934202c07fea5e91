"""The owner: one loop, one thread, all state.

Whatever happens arrives as a note, a message of a worker or a request, and is handled between
two waits of one selector.  A change on its way goes through five stations, each a dictionary or
list here and nothing else:

    settling   places that were touched, until whoever writes them is likely to be done
    suspects   sources to be looked at, with a reason where somebody asked
    slices     what one plan decided; its jobs are in the pool
    commits    a slice whose jobs have ended is published and recorded, at once and whole
    deferred   suspects that must wait for a job that is under way

Scans feed suspects piece by piece, only as fast as they are worked off, so that memory follows
the work in flight and not the tree.  Every station keeps the serial of the oldest note it
holds: `sync` is done when none is older than its own.
"""

import contextlib
import os
import selectors
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from assetd import place as places
from assetd import plan as plans
from assetd import publish, registry
from assetd import stamp as stamps
from assetd.errors import ConfigError
from assetd.inbox import Hint, Inbox, Settling
from assetd.model import (
    Batch,
    Cause,
    Change,
    Diagnostic,
    Done,
    Entry,
    EntryState,
    FileFact,
    Job,
    NodeState,
    Outcome,
    Place,
    Problem,
    Reason,
    Source,
    Stamp,
)
from assetd.pool import Jobs, Lane, Pool, Ticket
from assetd.processor import Context
from assetd.reconcile import Finished, reconcile
from assetd.record import CorruptRecordError, Record, set_aside
from assetd.registry import Project
from assetd.store import Store
from assetd.survey import Layout, Survey
from assetd.watch import Area, Note, Overflow, Seen, Watcher, walk

SLICE: Final = 250
"""Suspects that are planned, and so committed, together."""
IN_FLIGHT: Final = 1_500
"""Jobs beyond which scans and plans wait: enough to keep the workers busy."""
TURN_SECONDS: Final = 0.01
"""What one station may take of a turn; clients wait for no longer than a few of these."""
RETRY_SECONDS: Final = (1.0, 30.0)
"""First and longest wait before a failure that may pass by itself is tried again."""
POLL_DEAF_SECONDS: Final = 2.0

Tell = Callable[..., None]
"""`tell(event, **fields)`: one event for the log and whoever listens."""


class State(StrEnum):
    """What the engine is at; derived, never set, but for the two ends of its life."""

    STARTING = "starting"
    SCANNING = "scanning"
    BUILDING = "building"
    IDLE = "idle"
    PAUSED = "paused"
    STOPPING = "stopping"


@dataclass(slots=True)
class _Suspicion:
    serial: int
    lane: Lane
    noted: float
    reason: Reason | None = None
    stamp: Stamp | None = None


@dataclass(slots=True)
class _Slice:
    """What one plan decided, until it is committed."""

    batch: int
    serial: int
    noted: float
    lane: Lane
    waiting: dict[Source, plans.Planned]
    drop: tuple[tuple[Entry, Reason], ...]
    restate: tuple[Entry, ...]
    before: dict[Source, Entry | None]
    finished: list[Finished] = field(default_factory=list)


@dataclass(slots=True)
class _OpenBatch:
    tally: Batch
    began: float
    lane: Lane
    slices: int = 0
    feeding: int = 0
    """Scans that still add to it."""


@dataclass(slots=True)
class _Scan:
    place: Place
    steps: Iterator[None]
    serial: int
    batch: int
    begun: bool = False


@dataclass(slots=True)
class _Waiter:
    serial: int | None
    """None: its cookie has not come back yet."""
    on_done: Callable[[], None]


@dataclass(slots=True)
class Order:
    """What somebody asked to be built, and what has come of it."""

    paths: tuple[str, ...] = ()
    """Places of sources or folders, or outputs; empty for everything."""
    force: bool = False
    tally: Batch = Batch(0, "build", 0.0)
    reasons: list[tuple[Source, Reason]] = field(default_factory=list)


class Engine:
    """Everything that one project's daemon knows and does."""

    def __init__(
        self,
        project: Project,
        tell: Tell,
        *,
        watching: bool = True,
        workers: int | None = None,
        no_delete: bool = False,
        take_over: bool = False,
        dry: bool = False,
        open_pool: Callable[..., Jobs] = Pool,
    ) -> None:
        """Open the record and start the workers; nothing is built before `turn` is called.

        Args:
            project: Configuration and processors.
            tell: Gets every event.
            watching: Keep watching; else this is one build and its end.
            workers: How many; None for what the configuration says.
            no_delete: Leave the outputs that would be deleted.
            take_over: Replace files in the output root that are not ours.
            dry: Plan only; `Order.reasons` tells what would be done.
            open_pool: Makes the pool; the kit has one that runs in this process.
        """
        self.selector = selectors.DefaultSelector()
        self.started = time.monotonic()
        self.generation = 1
        self.tell = tell
        self.problems: tuple[Problem, ...] = ()
        """Why the configuration file, as it is now, is not the one in force."""
        self.ready = False
        """Whether the first scan and its batch are done."""
        self.latencies: deque[float] = deque(maxlen=1000)
        """Seconds from a change's first event to its commit, of the latest saves."""
        self.last_batch: Batch | None = None
        self.links: dict[Place, str] = {}
        """What scans did not follow or could not read, and why."""
        self.rescans = 0
        self.stopping = False
        self.paused = False
        self.trouble: str | None = None
        """Why nothing can be recorded at the moment: the disk is full, say."""

        self._watching = watching
        self._workers = workers
        self._no_delete = no_delete
        self._take_over = take_over
        self._dry = dry
        self._pool_maker = open_pool
        self._serial = 0
        self._job = 0
        self._suspects: dict[Source, _Suspicion] = {}
        self._deferred: dict[Source, _Suspicion] = {}
        self._slices: list[_Slice] = []
        self._jobs: dict[int, tuple[_Slice, plans.Planned]] = {}
        self._locked: dict[Source, _Slice] = {}
        self._batches: dict[int, _OpenBatch] = {}
        self._scans: deque[_Scan] = deque()
        self._waiters: list[_Waiter] = []
        self._cookies: dict[str, _Waiter] = {}
        self._orders: list[Order] = []
        self._retry_at: float | None = None
        self._retry_seconds = RETRY_SECONDS[0]
        self._retries: set[Source] = set()
        self._reload_at: float | None = None
        self._poll_at: float | None = None
        self._git_since: float | None = None
        self._trimming: Iterator[int] | None = None
        self._kept_results = 0
        self._thorough = False

        self._open_project(project)
        self.record = self._open_record()
        self._inbox: Inbox[Note] = Inbox()
        self.selector.register(self._inbox.fd, selectors.EVENT_READ, lambda _mask: None)
        self._settle_anew()
        self.watcher: Watcher | None = None
        self._recover()
        self._check_outputs()
        self.counts = self.record.count_sources()
        self.outputs = self.record.count_outputs()
        self.wrong: dict[Source, Entry] = {e.source: e for e in self.record.wrong()}
        self.warned: dict[Source, int] = {
            e.source: sum(len(n.warnings) for n in e.nodes) for e in self.record.warned()
        }
        self.last_batch = next(iter(self.record.last_batches(1)), None)
        self._start_hooks()
        self.pool = self._open_pool()
        if watching:
            self._start_watching()
        self._scan_everything("start")

    # -- what others ask ------------------------------------------------------------------

    @property
    def state(self) -> State:
        """What the engine is at."""
        if self.stopping:
            return State.STOPPING
        if not self.ready and not self._scans and not self._slices:
            return State.STARTING
        if self._scans:
            return State.SCANNING
        if self._slices or (self._suspects and not self.paused):
            return State.BUILDING
        return State.PAUSED if self.paused else State.IDLE

    @property
    def idle(self) -> bool:
        """Whether nothing is left to do that we know of."""
        return not (
            self._scans
            or self._slices
            or self._suspects
            or self._deferred
            or len(self._settling)
            or len(self._folders)
            or len(self._outputs)
            or len(self._inbox)
            or self._reload_at is not None
        )

    def queue(self) -> tuple[int, int, int]:
        """Suspects, jobs that wait for a worker, jobs that a worker holds."""
        suspects = len(self._suspects) + len(self._deferred) + len(self._settling)
        return suspects, self.pool.waiting(), self.pool.running()

    def sync(self, on_done: Callable[[], None]) -> None:
        """Call *on_done* when every change made before this call is built and recorded."""
        if self.watcher is None or self.watcher.deaf or not self.watcher.alive():
            # Events prove nothing here: look.
            ahead = (s.serial for s in self._scans if s.place == "" and not s.begun)
            serial = next(ahead, None) or self._scan("", "sync")
            self._waiters.append(_Waiter(serial, on_done))
            return
        # The kernel keeps the order of events: when this file's comes out of the inbox,
        # those of every earlier change have come out before it.
        waiter = _Waiter(None, on_done)
        name = f"{time.monotonic_ns()}-{len(self._cookies)}"
        self._cookies[name] = waiter
        self._waiters.append(waiter)
        path = os.path.join(self._cookie_folder, name)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        os.unlink(path)

    def build(self, order: Order, on_done: Callable[[Order], None]) -> None:
        """Bring everything, or the order's paths, up to date; *order* is filled in."""
        self._orders.append(order)
        serial = self._next_serial()
        batch: int | None = None
        if order.force:
            batch = self._open_batch("build", Lane.BULK)
            reason = Reason(Cause.REQUESTED)
            for source in self._matching(order.paths):
                self._suspect(source, serial, Lane.BULK, reason=reason)
            self._batches[batch].feeding -= 1
        else:
            for mount in self.layout.mounts.values():
                if not self.layout.project.config.force:
                    break
                for source in self.record.sources_of(mount.name):
                    if self.layout.forced(source):
                        forced = Reason(Cause.FORCE_PATTERN)
                        self._suspect(source, serial, Lane.BULK, reason=forced)
        for source, entry in self.wrong.items():
            if any(d.transient for _, d in entry.diagnostics) or (
                entry.state is EntryState.BLOCKED
            ):
                self._suspect(source, serial, Lane.BULK)

        def done() -> None:
            self._orders.remove(order)
            on_done(order)

        self.sync(done)

    def reload(self) -> None:
        """Read the configuration again, soon."""
        self._reload_at = time.monotonic()

    def rescan(self) -> None:
        """Look at everything again."""
        self._scan_everything("rescan")

    def progress(self) -> tuple[int, int]:
        """Jobs done since the start, and jobs known of."""
        return self._job - len(self._jobs), self._job + len(self._suspects)

    def turn(self, timeout: float | None = None) -> None:
        """One trip round the loop: wait for something, then do what is ripe.

        Args:
            timeout: Seconds to wait at the most; None for as long as it takes.
        """
        wait = self._wait_seconds()
        if timeout is not None:
            wait = timeout if wait is None else min(wait, timeout)
        for key, mask in self.selector.select(wait):
            key.data(mask)
        self._take_notes()
        now = time.monotonic()
        deadline = self.pool.deadline()
        if deadline is not None and now >= deadline:
            self.pool.tick()
        self._watch_over(now)
        self._ripen(now)
        self._advance_scans()
        self._plan()
        self._close_batches()
        self._wake_waiters()
        self._trim_store()

    def run_until(self, done: Callable[[], bool]) -> None:
        """Turn until *done* says so."""
        while not done():
            self.turn()

    def stop(self) -> None:
        """End: what is in flight is given up, and done again on the next start."""
        self.stopping = True
        self.pool.stop()
        for opened in self.layout.project.processors:
            self._hook(opened, "end")
        if self.watcher is not None:
            self.watcher.stop()
        if not self._dry:
            self.record.set_meta(clean="1")
            self._clear_staging()
            with contextlib.suppress(OSError):
                if os.path.basename(self.staging) == publish.STAGING_NAME:
                    os.rmdir(self.staging)
        self.record.close()
        self.selector.close()
        self._inbox.close()

    # -- opening --------------------------------------------------------------------------

    def _open_project(self, project: Project) -> None:
        self.layout = Layout(project)
        config = project.config
        os.makedirs(config.state_dir, mode=0o700, exist_ok=True)
        self.store = Store(os.path.join(config.state_dir, "store"))
        self.staging = publish.staging_folder(config.out_dir, config.state_dir)
        self._cookie_folder = os.path.join(config.state_dir, "cookies")

    def _settle_anew(self) -> None:
        settle = self.layout.project.config.settle
        numbers = (settle.gap_seconds, settle.patience_seconds, settle.deletion_seconds)
        self._settling = Settling(*numbers)
        self._folders = Settling(*numbers)
        self._outputs = Settling(*numbers)

    def _open_record(self) -> Record:
        config = self.layout.project.config
        path = os.path.join(config.state_dir, "record.sqlite")
        try:
            record = Record(path, durability=config.durability)
            if record.meta("clean") == "0" and record.meta("boot") != _boot_id():
                record.check()
        except CorruptRecordError as error:
            aside = set_aside(path)
            self.tell("record_damaged", level="warning", cause=str(error), kept_as=aside)
            record = Record(path, durability=config.durability)
            record.set_meta(clean="0", boot="")
        return record

    def _recover(self) -> None:
        """Do again what was begun and not committed; then clear what nobody needs."""
        if self._dry:
            return
        config = self.layout.project.config
        record = self.record
        self._verify = record.meta("clean") == "0" and record.meta("boot") not in {
            _boot_id(),
            None,
        }
        old_root = record.meta("out_dir")
        root = old_root or config.out_dir
        for number, change in record.intents():
            batch = record.batch(change.batch) or Batch(change.batch, "start", time.time())
            done = publish.apply(root, change, record.output, record.made_folder)
            record.commit(number, change, done, batch)
            self.tell("recovered", batch=change.batch, outputs=len(done.placed))
        if old_root is not None and old_root != config.out_dir:
            self._move_out(old_root)
        fingerprint = self.layout.fingerprint()
        self._thorough = record.meta("fingerprint") != fingerprint
        self._clear_staging()
        record.set_meta(
            clean="0", boot=_boot_id(), out_dir=config.out_dir, fingerprint=fingerprint
        )

    def _move_out(self, old_root: str) -> None:
        """The output root is another one now: take our outputs out of the old one."""
        from assetd.model import Deletion

        outputs = list(self.record.outputs())
        reason = Reason(Cause.NO_LONGER_MADE, old_root)
        change = Change(
            0, delete=tuple(Deletion(o.path, o.source, o.digest, reason) for o in outputs)
        )
        if os.path.isdir(old_root):
            done = publish.apply(old_root, change, self.record.output, self.record.made_folder)
            self.tell("output_root_moved", old=old_root, deleted=len(done.deleted))
        self.record.disown(o.path for o in outputs)

    def _clear_staging(self) -> None:
        with contextlib.suppress(FileNotFoundError), os.scandir(self.staging) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    os.unlink(entry.path)

    def _check_outputs(self) -> None:
        """Compare what is in place with the record; what is missing makes its source dirty."""
        if self._dry:
            return
        out_dir = self.layout.project.config.out_dir
        lost = []
        restamped = []
        for output in self.record.outputs():
            found = stamps.read(f"{out_dir}/{output.path}")
            if found is not None and found == output.stamp and not self._verify:
                continue
            seen = publish.identify(out_dir, output.path)
            if seen is None:
                lost.append(output)
            elif seen[1] == output.digest:
                restamped.append((output.path, seen[0]))
            elif self._verify:
                # After a power loss the disk may hold half of what we wrote; nobody can
                # tell that from an edit, so the bytes are kept and the output made anew.
                self._keep_copy(output.path)
                lost.append(output)
            else:
                self.tell("output_edited", level="warning", output=output.path)
        for path, stamp in restamped:
            self.record.restamp_output(path, stamp)
        if lost:
            self.record.disown(o.path for o in lost)
            self.tell("outputs_missing", count=len(lost), first=lost[0].path)
        serial = self._next_serial()
        for source in self.record.unplaced():
            self._suspect(source, serial, Lane.BULK)

    def _keep_copy(self, output: str) -> None:
        config = self.layout.project.config
        kept = os.path.join(config.state_dir, "kept", output)
        os.makedirs(os.path.dirname(kept), exist_ok=True)
        with contextlib.suppress(OSError):
            shutil.move(os.path.join(config.out_dir, output), kept)
            self.tell("output_set_aside", level="warning", output=output, kept_as=kept)

    def _start_hooks(self) -> None:
        more: list[str] = []
        for opened in self.layout.project.processors:
            more += self._hook(opened, "start")
        if more:
            self.layout = Layout(self.layout.project, more)

    def _hook(self, opened: registry.Opened, which: str) -> list[str]:
        function = getattr(opened.processor, which)
        if function is None:
            return []
        config = self.layout.project.config
        context = Context(
            "main", None, Path(config.project), Path(config.out_dir), opened.options
        )
        try:
            function(context)
        except Exception as error:  # noqa: BLE001 - a plugin's bug must not end the daemon
            name = opened.processor.name
            self.tell("hook_failed", level="error", processor=name, hook=which, cause=str(error))
        return context.ignored

    def _open_pool(self) -> Jobs:
        config = self.layout.project.config
        opening = {
            "recipe": self.layout.project.recipe(),
            "store": os.path.join(config.state_dir, "store"),
            "sync_files": config.durability == "full",
        }
        size = 0 if self._dry else (self._workers or config.workers)
        return self._pool_maker(
            size,
            opening,
            self.selector,
            self._on_outcome,
            lambda event, fields: self.tell(event, level="warning", **fields),
            generation=self.generation,
            staging=self.staging,
        )

    def _start_watching(self) -> None:
        config = self.layout.project.config
        shutil.rmtree(self._cookie_folder, ignore_errors=True)
        os.makedirs(self._cookie_folder, mode=0o700)
        if config.watch.backend == "polling":
            self._poll_at = time.monotonic() + config.watch.interval_seconds
            return
        self.watcher = Watcher(self._inbox)
        self.watcher.add(self._cookie_folder, Area.COOKIES)
        self._watch_nearby()
        folders = {os.path.dirname(o.path) for o in self.record.outputs()}
        for folder in sorted(folders | {""}):
            self._watch_output_folder(folder)

    def _watch_output_folder(self, folder: str) -> None:
        if self.watcher is not None:
            path = os.path.join(self.layout.project.config.out_dir, folder).rstrip("/")
            self.watcher.add(path, Area.OUTPUT)

    def _watch_nearby(self, facts: Iterable[Place] | None = None) -> None:
        """Watch the folders outside the mounts that matter, or what there is of their way."""
        if self.watcher is None:
            return
        config = self.layout.project.config
        wanted: set[str] = set()
        if facts is None:
            wanted |= {os.path.dirname(path) for path in (config.file, *config.plugins)}
            wanted |= {os.path.dirname(mount.folder) for mount in config.mounts}
            wanted |= {config.out_dir and os.path.dirname(config.out_dir)}
            facts = self.record.folders_of_files()
        for folder in facts:
            if not any(places.is_below(folder, m.place) for m in config.mounts):
                wanted.add(places.path(folder, config.project))
        for folder in wanted:
            at = folder
            while not self.watcher.add(at, Area.NEARBY) and at not in {"/", ""}:
                if at in self.watcher.deaf:
                    break
                at = os.path.dirname(at)

    # -- notes ----------------------------------------------------------------------------

    def _next_serial(self) -> int:
        self._serial += 1
        return self._serial

    def _take_notes(self) -> None:
        watcher = self.watcher
        if watcher is None:
            return
        end = time.monotonic() + TURN_SECONDS
        while notes := self._inbox.take(500):
            now = time.monotonic()
            for note in notes:
                match watcher.understand(note):
                    case Overflow():
                        self._on_overflow()
                    case Seen() as seen:
                        self._on_seen(seen, now)
                    case None:
                        pass
            if now > end:
                return

    def _on_overflow(self) -> None:
        self.tell("events_lost", level="warning", what="the kernel's queue overflowed: scanning")
        self.rescans += 1
        serial = self._scan("", "overflow")
        for waiter in self._cookies.values():
            waiter.serial = serial  # its cookie may be lost; the scan proves more
        self._cookies.clear()

    def _on_seen(self, seen: Seen, now: float) -> None:
        config = self.layout.project.config
        if seen.area is Area.COOKIES:
            waiter = self._cookies.pop(os.path.basename(seen.path), None)
            if waiter is not None:
                waiter.serial = self._serial
                for station in (self._settling, self._folders, self._outputs):
                    station.force(self._serial)
                if self._reload_at is not None:
                    self._reload_at = now
            return
        serial = self._next_serial()
        if seen.area is Area.OUTPUT:
            self._outputs.note(os.path.relpath(seen.path, config.out_dir), seen.hint, now, serial)
            return
        place = places.of(seen.path, config.project)
        if seen.is_folder:
            self._on_folder(seen, place, now, serial)
            return
        if seen.path == config.file or seen.path in config.plugins:
            self._reload_at = now + config.settle.gap_seconds * 2
            return
        source = self.layout.locate(place)
        if source is not None:
            mount = self.layout.mounts[source.mount]
            if self.layout.ignored(mount, source.path, is_folder=False):
                # Not even a sign of activity: an editor's temporary file would delay the
                # save that it is for.
                return
        elif seen.area is Area.NEARBY and not self._matters(place):
            return
        self._settling.note(place, seen.hint, now, serial)

    def _matters(self, place: Place) -> bool:
        return self.record.file(place) is not None or (
            self.record.globs and any(self.record.globs_at(f) for f in _above(place))
        )

    def _on_folder(self, seen: Seen, place: Place, now: float, serial: int) -> None:
        config = self.layout.project.config
        source = self.layout.locate(place)
        if source is not None and self.layout.ignored(
            self.layout.mounts[source.mount], source.path, is_folder=True
        ):
            return
        if seen.area is Area.NEARBY and source is None:
            roots = [m.place for m in config.mounts]
            ours = any(places.is_below(root, place) for root in roots)
            if not ours and not self.record.files_below(place):
                if not self.record.globs_below(place):
                    return
        if seen.hint is Hint.GONE and self.watcher is not None:
            self.watcher.drop_below(seen.path)
        self._folders.note(place, seen.hint, now, serial)

    # -- from hints to suspects -----------------------------------------------------------

    def _watch_over(self, now: float) -> None:
        """What is due by the clock: retries, a changed configuration, polling, dead threads."""
        if self._retry_at is not None and now >= self._retry_at:
            self._retry_at = None
            retries, self._retries = self._retries, set()
            for source in retries:
                self._suspect(source, self._next_serial(), Lane.BULK)
        if self._reload_at is not None and now >= self._reload_at and not self._slices:
            self._reload_at = None
            self._reload()
        watcher = self.watcher
        if watcher is not None and not watcher.alive():
            self.tell("watcher_died", level="error", what="starting it again, and scanning")
            self.watcher = None
            self._start_watching()
            self._on_overflow()
        config = self.layout.project.config
        if watcher is not None and watcher.deaf and self._poll_at is None:
            self._poll_at = now + POLL_DEAF_SECONDS
            folder, code = next(iter(watcher.deaf.items()))
            self.tell(
                "folders_unwatched",
                level="warning",
                count=len(watcher.deaf),
                first=folder,
                cause=os.strerror(code),
                what=f"scanning every {POLL_DEAF_SECONDS:g} s instead",
            )
        if self._poll_at is not None and now >= self._poll_at:
            if watcher is not None and not watcher.deaf:
                self._poll_at = None
                return
            interval = POLL_DEAF_SECONDS if watcher is not None else config.watch.interval_seconds
            self._poll_at = now + interval
            if not self._scans:
                self._scan("", "poll")
                for output in self.record.outputs():
                    self._look_at_output(output.path, self._serial)

    def _ripen(self, now: float) -> None:
        if len(self._settling) and self._git_is_busy(now):
            return
        for place, each in self._settling.ready(now):
            for source in self._affected(place):
                self._suspect(source, each.serial, Lane.URGENT, noted=each.first)
        for place, each in self._folders.ready(now):
            self._scan(place, "watch", each.serial)
        for path, each in self._outputs.ready(now):
            for output in self.record.outputs_below(path):
                self._look_at_output(output.path, each.serial)
            self._look_at_output(path, each.serial)

    def _git_is_busy(self, now: float) -> bool:
        """Whether git is rewriting the work tree: it holds its index lock meanwhile."""
        lock = self._git_lock()
        try:
            held = lock is not None and os.stat(lock)
        except OSError:
            held = None
        settle = self.layout.project.config.settle
        if not held or time.time() - held.st_mtime > settle.git_seconds:
            self._git_since = None  # a lock that old was left behind by a git that crashed
            return False
        if self._git_since is None:
            self._git_since = now
        return now - self._git_since < settle.git_seconds

    def _git_lock(self) -> str | None:
        folder = self.layout.root
        while True:
            git = os.path.join(folder, ".git")
            if os.path.isdir(git):
                return os.path.join(git, "index.lock")
            if os.path.isfile(git):  # a worktree: the file says where its index is
                with contextlib.suppress(OSError, UnicodeDecodeError):
                    text = Path(git).read_text().strip().removeprefix("gitdir: ")
                    return os.path.join(folder, text, "index.lock")
                return None
            above = os.path.dirname(folder)
            if above == folder:
                return None
            folder = above

    def _suspect(
        self,
        source: Source,
        serial: int,
        lane: Lane,
        *,
        reason: Reason | None = None,
        stamp: Stamp | None = None,
        noted: float | None = None,
    ) -> None:
        when = time.monotonic() if noted is None else noted
        known = self._suspects.get(source)
        if known is None:
            self._suspects[source] = _Suspicion(serial, lane, when, reason, stamp)
            return
        known.serial = min(known.serial, serial)
        known.lane = min(known.lane, lane)
        known.reason = known.reason or reason
        known.stamp = None  # a second look may show another one

    def _affected(self, place: Place) -> set[Source]:
        """The sources that a change of the file at *place* may concern."""
        found: set[Source] = set()
        source = self.layout.locate(place)
        if source is not None:
            found.add(source)
        if self.record.file(place) is not None:
            found.update(self.record.dependents(place))
        if self.record.globs:
            for folder in _above(place):
                name = place[len(folder) :].lstrip("/")
                for pattern, dependent in self.record.globs_at(folder):
                    # `*` of fnmatch crosses slashes, so this lets through too much, never
                    # too little.
                    if fnmatchcase(name, pattern.replace("**/", "*")):
                        found.add(dependent)
        return found

    def _look_at_output(self, path: str, serial: int) -> None:
        """Compare one output with the record, after something happened to it."""
        record = self.record
        output = record.output(path)
        if output is None:
            for source in record.claimants(path):
                entry = self.wrong.get(source)
                if entry is not None and entry.state is EntryState.BLOCKED:
                    self._suspect(source, serial, Lane.URGENT)
            return
        out_dir = self.layout.project.config.out_dir
        found = stamps.read(f"{out_dir}/{path}")
        if found is not None and found == output.stamp:
            return
        seen = publish.identify(out_dir, path)
        if seen is None:
            record.disown([path])
            self.outputs -= 1
            reason = Reason(Cause.OUTPUT_MISSING, path)
            self._suspect(output.source, serial, Lane.URGENT, reason=reason)
        elif seen[1] == output.digest:
            record.restamp_output(path, seen[0])
        else:
            self.tell("output_edited", level="warning", output=path)

    def _matching(self, paths: Sequence[str]) -> Iterator[Source]:
        """The known sources at or below *paths*; those of outputs among them too."""
        for mount in self.layout.mounts.values():
            for source in self.record.sources_of(mount.name):
                place = self.layout.place(source)
                if not paths or any(places.is_below(place, path) for path in paths):
                    yield source
        for path in paths:
            yield from self.record.claimants(path)

    # -- scans ----------------------------------------------------------------------------

    def _scan_everything(self, trigger: str) -> int:
        known = set(self.layout.mounts)
        serial = self._next_serial()
        for mount in self.record.mounts():
            if mount not in known:
                for source in self.record.sources_of(mount):
                    self._suspect(source, serial, Lane.BULK)
        return self._scan("", trigger)

    def _scan(self, place: Place, trigger: str, serial: int | None = None) -> int:
        """Queue a scan of everything at and below *place*; returns its serial.

        Args:
            place: Of a folder.
            trigger: What the batch is because of.
            serial: Of the note that asks for it; a new one if there was none.
        """
        serial = self._next_serial() if serial is None else serial
        batch = self._open_batch(trigger, Lane.BULK)
        steps = self._scan_steps(place, serial, thorough=self._thorough)
        self._scans.append(_Scan(place, steps, serial, batch))
        self._thorough = False
        return serial

    def _advance_scans(self) -> None:
        end = time.monotonic() + TURN_SECONDS
        while self._scans and len(self._suspects) < 2 * SLICE and self._has_room():
            scan = self._scans[0]
            scan.begun = True
            try:
                next(scan.steps)
            except StopIteration:
                self._scans.popleft()
                self._batches[scan.batch].feeding -= 1
            if time.monotonic() > end:
                return

    def _has_room(self) -> bool:
        return self._dry or len(self._jobs) < IN_FLIGHT

    def _scan_steps(self, place: Place, serial: int, *, thorough: bool) -> Iterator[None]:
        record, layout = self.record, self.layout
        for mount in layout.mounts.values():
            if places.is_below(mount.place, place):
                start = ""
            elif places.is_below(place, mount.place):
                start = place[len(mount.place) :].lstrip("/")
            else:
                continue

            def skip(path: str, is_folder: bool, mount: Any = mount) -> bool:
                return layout.ignored(mount, path, is_folder=is_folder)

            def watch(folder: str) -> None:
                if self.watcher is not None:
                    self.watcher.add(folder, Area.MOUNT)

            def link(path: str, why: str, mount: Any = mount) -> None:
                at = places.join(mount.place, path)
                if self.links.get(at) != why:
                    self.links[at] = why
                    self.tell("not_followed", level="warning", path=at, cause=why)

            seen = set()
            if not (start and skip(start, is_folder=True)):
                for listing in walk(mount.folder, start, skip, watch, link):
                    seen.add(listing.folder)
                    recorded = record.names_in(mount.name, listing.folder)
                    for name, stamp in listing.files.items():
                        if thorough or name not in recorded or recorded[name] != stamp:
                            path = f"{listing.folder}/{name}" if listing.folder else name
                            source = Source(mount.name, path)
                            self._suspect(source, serial, Lane.BULK, stamp=stamp)
                    for name in recorded.keys() - listing.files.keys():
                        path = f"{listing.folder}/{name}" if listing.folder else name
                        self._suspect(Source(mount.name, path), serial, Lane.BULK)
                    yield
            for folder in record.folders_below(mount.name, start):
                if folder not in seen:
                    for name in record.names_in(mount.name, folder):
                        path = f"{folder}/{name}" if folder else name
                        self._suspect(Source(mount.name, path), serial, Lane.BULK)
                    yield
        for number, fact in enumerate(record.files_below(place)):
            stamp_now = stamps.read(places.path(fact.place, layout.root))
            if stamp_now != fact.stamp:
                for source in record.dependents(fact.place):
                    self._suspect(source, serial, Lane.BULK)
            if number % 200 == 199:
                yield
        for _, _, source in record.globs_below(place):
            self._suspect(source, serial, Lane.BULK)
        self._watch_nearby()

    # -- plans and jobs -------------------------------------------------------------------

    def _open_batch(self, trigger: str, lane: Lane) -> int:
        tally = self.record.open_batch(trigger)
        self._batches[tally.id] = _OpenBatch(tally, time.monotonic(), lane, feeding=1)
        return tally.id

    def _plan(self) -> None:
        if self.paused or self.stopping:
            return
        end = time.monotonic() + TURN_SECONDS
        while self._suspects:
            urgent = [s for s, each in self._suspects.items() if each.lane is Lane.URGENT]
            if not urgent and not self._has_room():
                return
            chosen = (urgent or list(self._suspects))[:SLICE]
            lane = Lane.URGENT if 0 < len(urgent) <= SLICE else Lane.BULK
            self._plan_slice({s: self._suspects.pop(s) for s in chosen}, lane)
            if time.monotonic() > end:
                return

    def _plan_slice(self, suspects: dict[Source, _Suspicion], lane: Lane) -> None:
        def sighted(source: Source) -> Stamp | None:
            each = suspects.get(source)
            return None if each is None else each.stamp

        survey = Survey(self.layout, self.record, self._locked, sighted)
        decided = plans.make(
            {source: each.reason for source, each in suspects.items()},
            tuple(self.layout.mounts),
            survey,
            place=self.layout.place,
        )
        now = time.monotonic()
        serial = min(each.serial for each in suspects.values())
        noted = min(each.noted for each in suspects.values())
        for source in decided.deferred:
            each = suspects.get(source) or _Suspicion(serial, lane, now)
            self._deferred[source] = each
        if self._dry:
            self._note_dry(decided)
            return
        facts = tuple(survey.learned.values())
        if not decided.jobs and not decided.drop and not decided.restate:
            if decided.refresh or facts:
                self.record.refresh(facts, decided.refresh)
            return
        if self.layout.project.config.force and lane is Lane.URGENT:
            self._force_along(decided, serial)
        batch = self._batch_for(lane)
        piece = _Slice(
            batch,
            serial,
            noted,
            lane,
            {p.source: p for p in decided.jobs},
            decided.drop,
            decided.restate,
            {e.source: survey.entry(e.source) for e in decided.restate},
        )
        if decided.refresh:
            self.record.refresh((), decided.refresh)
        self._slices.append(piece)
        self._batches[batch].slices += 1
        for source in (
            *piece.waiting,
            *(e.source for e, _ in piece.drop),
            *(e.source for e in piece.restate),
        ):
            self._locked[source] = piece
        self.pool.submit_all([self._ticket(piece, planned) for planned in decided.jobs])
        if not piece.waiting:
            self._commit(piece)

    def _batch_for(self, lane: Lane) -> int:
        """The batch that a new slice counts for: a bulk one joins what is under way."""
        if lane is Lane.BULK:
            for number, batch in self._batches.items():
                if batch.lane is Lane.BULK:
                    return number
        number = self._open_batch("watch", lane)
        self._batches[number].feeding -= 1
        return number

    def _force_along(self, decided: plans.Plan, serial: int) -> None:
        """A batch that touches a mount takes the mount's forced sources along."""
        touched = {p.source.mount for p in decided.jobs}
        for mount in touched:
            for source in self.record.sources_of(mount):
                if self.layout.forced(source) and source not in self._locked:
                    if all(p.source != source for p in decided.jobs):
                        reason = Reason(Cause.FORCE_PATTERN)
                        self._suspect(source, serial, Lane.BULK, reason=reason)

    def _note_dry(self, decided: plans.Plan) -> None:
        for order in self._orders:
            order.reasons += [(p.source, p.reasons[0]) for p in decided.jobs]
            order.reasons += [(entry.source, reason) for entry, reason in decided.drop]
            order.reasons += [(entry.source, entry.reason) for entry in decided.restate]

    def _ticket(self, piece: _Slice, planned: plans.Planned) -> Ticket:
        self._job += 1
        entry = planned.entry
        published: dict[str, str] = {}
        for claim in {*planned.claims, *(entry.claims if entry is not None else ())}:
            output = self.record.output(claim)
            if output is not None:
                published[claim] = output.digest
        force = planned.reasons[0].cause in {Cause.REQUESTED, Cause.FORCE_PATTERN}
        job = Job(
            self._job,
            planned.source,
            entry.nodes if entry is not None else (),
            published,
            force,
        )
        self._jobs[self._job] = (piece, planned)
        takers = {t.processor.name: t.processor for t in self.layout.takers(planned.source.mount)}
        used = [takers[name] for name in planned.processors]
        limit = self.layout.project.config.job_timeout_seconds
        if limit is None:
            limit = max((p.timeout_seconds for p in used), default=60.0)
        estimate = entry.seconds if entry is not None and entry.seconds else 0.0
        if not estimate:
            estimate = 0.0005 if all(p.cheap for p in used) else 0.02
        return Ticket(job, piece.lane, limit, estimate)

    def _on_outcome(self, outcome: Outcome) -> None:
        piece, planned = self._jobs.pop(outcome.job)
        del piece.waiting[planned.source]
        piece.finished.append(Finished(planned, outcome))
        if not piece.waiting:
            self._commit(piece)

    # -- commits --------------------------------------------------------------------------

    def _commit(self, piece: _Slice) -> None:
        """Publish and record one slice; from here on its sources may be looked at again."""
        record, config = self.record, self.layout.project.config
        open_batch = self._batches[piece.batch]
        result = reconcile(
            open_batch.tally,
            piece.finished,
            piece.drop,
            piece.restate,
            record.output,
            record.claimants,
            no_delete=self._no_delete,
        )
        change = result.change
        intent = record.intend(change) if change.publish or change.delete else 0
        done = publish.apply(
            config.out_dir,
            change,
            record.output,
            record.made_folder,
            sync_folders=config.durability == "full",
            take_over=self._take_over,
        )
        tally = replace(result.tally, deleted=result.tally.deleted + len(done.deleted))
        self._count(piece, change, done)
        record.commit(intent, change, done, tally)
        open_batch.tally = tally
        open_batch.slices -= 1
        self._slices.remove(piece)
        for source, owner in list(self._locked.items()):
            if owner is piece:
                del self._locked[source]
        self._after_commit(piece, change, done)
        for source in result.again:
            self._deferred[source] = _Suspicion(
                piece.serial, piece.lane, piece.noted, Reason(Cause.CHANGED_WHILE_BUILT)
            )
        deferred, self._deferred = self._deferred, {}
        for source, each in deferred.items():
            self._suspect(
                source, each.serial, each.lane, reason=each.reason, noted=each.noted
            )
        if piece.lane is Lane.URGENT:
            self.latencies.append(time.monotonic() - piece.noted)

    def _count(self, piece: _Slice, change: Change, done: Done) -> None:
        before = {p.planned.source: p.planned.entry for p in piece.finished}
        before |= {entry.source: entry for entry, _ in piece.drop}
        before |= piece.before
        for entry in change.put:
            old = before.get(entry.source)
            if old is not None:
                self._count_one(old, -1)
            self._count_one(entry, +1)
        for source, _ in change.drop:
            old = before.get(source)
            if old is not None:
                self._count_one(old, -1)
                self.wrong.pop(source, None)
                self.warned.pop(source, None)
        fresh = [
            p for p in change.publish if p.output in done.placed and p.replaces is None
        ]
        self.outputs += len(fresh) - len(done.deleted) - len(done.kept)

    def _count_one(self, entry: Entry, by: int) -> None:
        key = (entry.source.mount, entry.state)
        self.counts[key] = self.counts.get(key, 0) + by

    def _after_commit(self, piece: _Slice, change: Change, done: Done) -> None:
        """Tell what happened, and take note of what fails now."""
        timings: dict[str, tuple[int, float, float]] = {}
        blocked = {p.source: done.blocked[p.output] for p in change.publish
                   if p.output in done.blocked}
        for publication in change.publish:
            if publication.output in done.blocked and publication.staged is not None:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(publication.staged)
        outside: set[Place] = set()
        for entry in change.put:
            if entry.source in blocked:
                why = blocked[entry.source]
                self._count_one(entry, -1)
                entry = replace(  # noqa: PLW2901 - what the record has made of it
                    entry, state=EntryState.BLOCKED, problem=Diagnostic(why)
                )
                self._count_one(entry, +1)
            self._note_entry(entry, piece)
            for node in entry.nodes:
                if entry.batch == piece.batch and node.state in {
                    NodeState.BUILT,
                    NodeState.FAILED,
                }:
                    runs, seconds, slowest = timings.get(node.processor, (0, 0.0, 0.0))
                    timings[node.processor] = (
                        runs + 1,
                        seconds + node.seconds,
                        max(slowest, node.seconds),
                    )
                    self._kept_results += 1
                for dependency in node.dependencies:
                    outside.add(places.split(dependency.place)[0])
        for source, reason in change.drop:
            self.tell("gone", source=self.layout.place(source), reason=reason)
        for deletion in change.delete:
            if deletion.output in done.kept:
                self.tell(
                    "output_kept",
                    level="warning",
                    output=deletion.output,
                    cause=done.kept[deletion.output],
                )
        if timings:
            self.record.add_timings((name, *numbers) for name, numbers in timings.items())
        for folder in done.folders_made:
            self._watch_output_folder(folder)
        if outside:
            self._watch_nearby(outside)

    def _note_entry(self, entry: Entry, piece: _Slice) -> None:
        source, place = entry.source, self.layout.place(entry.source)
        warnings = sum(len(node.warnings) for node in entry.nodes)
        if warnings:
            self.warned[source] = warnings
        else:
            self.warned.pop(source, None)
        if entry.state in {EntryState.OK, EntryState.OVERRIDDEN}:
            if self.wrong.pop(source, None) is not None:
                self.tell("healed", source=place)
            if piece.lane is Lane.URGENT and entry.batch == piece.batch:
                self.tell(
                    "built" if entry.state is EntryState.OK else "overridden",
                    source=place,
                    ms=round(entry.seconds * 1000, 1),
                    reason=entry.reason,
                )
            return
        self.wrong[source] = entry
        for processor, diagnostic in entry.diagnostics:
            self.tell(
                "failed",
                level="error",
                source=place,
                processor=processor,
                message=str(diagnostic),
                reason=entry.reason,
            )
            if diagnostic.transient:
                self._retries.add(source)
                if self._retry_at is None and self._watching:
                    self._retry_at = time.monotonic() + self._retry_seconds
                    self._retry_seconds = min(self._retry_seconds * 2, RETRY_SECONDS[1])

    def _close_batches(self) -> None:
        for number, batch in list(self._batches.items()):
            if batch.slices or batch.feeding:
                continue
            if batch.lane is Lane.BULK and (self._suspects or self._deferred) and not self.paused:
                continue
            del self._batches[number]
            seconds = time.monotonic() - batch.began
            tally = replace(batch.tally, seconds=seconds, finished_at=time.time())
            nothing_left = not (self._scans or self._slices or self._suspects or self._deferred)
            first = nothing_left and not self.ready
            self.ready = self.ready or nothing_left
            if tally.changed or tally.deleted:
                self.record.finish_batch(tally)
                self.last_batch = tally
                if not tally.failed:
                    self._retry_seconds = RETRY_SECONDS[0]
                for order in self._orders:
                    order.tally = _added(order.tally, tally)
                self.tell("batch", batch=tally)
            if first:
                self.tell("ready", sources=sum(self.counts.values()), outputs=self.outputs)

    def _wake_waiters(self) -> None:
        if not self._waiters:
            return
        serials = [s for s in (st.oldest() for st in (
            self._settling, self._folders, self._outputs)) if s is not None]
        serials += [each.serial for each in self._suspects.values()]
        serials += [each.serial for each in self._deferred.values()]
        serials += [each.serial for each in self._slices]
        serials += [scan.serial for scan in self._scans]
        oldest = min(serials, default=None)
        if self._reload_at is not None:
            return
        for waiter in list(self._waiters):
            if waiter.serial is not None and (oldest is None or oldest > waiter.serial):
                self._waiters.remove(waiter)
                waiter.on_done()

    # -- the rest -------------------------------------------------------------------------

    def _reload(self) -> None:
        config = self.layout.project.config
        try:
            project = registry.load(config.file)
        except ConfigError as error:
            self.problems = error.problems
            for problem in error.problems:
                self.tell("configuration_refused", level="error", message=str(problem))
            return
        self.problems = ()
        new = project.config
        if new.state_dir != config.state_dir:
            self.problems = (Problem("state_dir changed: restart assetd to use the new one"),)
            self.tell("configuration_refused", level="error", message=str(self.problems[0]))
            return
        fingerprint = Layout(project).fingerprint()
        same = fingerprint == self.layout.fingerprint() and replace(
            new, mounts=config.mounts
        ) == config and [m.place for m in new.mounts] == [m.place for m in config.mounts]
        if same and not self._hooks_matter(project):
            return
        self.generation += 1
        self.pool.stop()
        if new.out_dir != config.out_dir:
            self._move_out(config.out_dir)
            self.outputs = 0
        self._open_project(project)
        self._start_hooks()
        self._settle_anew()
        self.pool = self._open_pool()
        self.record.set_meta(fingerprint=fingerprint, out_dir=new.out_dir)
        self._thorough = True
        self._watch_nearby()
        self._watch_output_folder("")
        self.tell("configuration_taken", generation=self.generation)
        self._scan_everything("config")

    def _hooks_matter(self, project: Project) -> bool:
        return project.plugins != self.layout.project.plugins

    def _trim_store(self) -> None:
        """Keep the store within its bound, a little whenever there is nothing else to do."""
        if self._trimming is None:
            if self._kept_results < 2_000 or not self.idle:
                return
            self._kept_results = 0
            self._trimming = self.store.trim(self.layout.project.config.store_bytes)
        end = time.monotonic() + TURN_SECONDS
        while time.monotonic() < end:
            if next(self._trimming, None) is None:
                self._trimming = None
                return

    def _wait_seconds(self) -> float | None:
        """How long there is nothing to do; None for as long as nothing happens."""
        if self._trimming is not None or (self._scans and self._has_room()):
            return 0.0
        if self._suspects and not self.paused and self._has_room():
            return 0.0
        times = [
            t
            for t in (
                self._settling.deadline(),
                self._folders.deadline(),
                self._outputs.deadline(),
                self.pool.deadline(),
                self._retry_at,
                None if self._slices else self._reload_at,
                self._poll_at,
            )
            if t is not None
        ]
        if not times:
            return None
        wait = max(0.0, min(times) - time.monotonic())
        return max(wait, 0.02) if self._git_since is not None else wait


def _above(place: Place) -> Iterator[Place]:
    """The folders that *place* lies in, the nearest first, the project's own last."""
    folder = place
    while folder not in {"", "/"}:
        folder = places.split(folder)[0]
        yield folder


def _added(one: Batch, other: Batch) -> Batch:
    return replace(
        one,
        changed=one.changed + other.changed,
        built=one.built + other.built,
        cached=one.cached + other.cached,
        clean=one.clean + other.clean,
        failed=one.failed + other.failed,
        deleted=one.deleted + other.deleted,
    )


def _boot_id() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


