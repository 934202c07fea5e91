"""The owner: one loop, one thread, all state.

Whatever happens arrives as a note, a message of a worker or a request, and is handled between
two waits of one selector.  A change on its way goes through five stations, each of them data
that no other thread sees:

    settling   places that were touched, until whoever writes them is likely to be done (`inbox`)
    suspects   sources to be looked at, with a reason where somebody asked (`suspects`)
    slices     what one plan decided; its jobs are in the pool (`slices`)
    commits    a slice whose jobs have ended is published and recorded, at once and whole
    deferred   suspects that must wait for a job that is under way (`suspects`)

Scans feed suspects piece by piece, only as fast as they are worked off, so that memory follows
the work in flight and not the tree.  Every station keeps the serial of the oldest note it
holds: `sync` is done when none is older than its own.
"""

import contextlib
import itertools
import os
import selectors
import time
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from operator import itemgetter
from typing import Final

from assetd import config as configs
from assetd import confinement, publish, recovery, registry
from assetd import place as places
from assetd import plan as plans
from assetd import stamp as stamps
from assetd.errors import (
    ConfigError,
    CorruptRecordError,
    ProjectGoneError,
    PublishError,
    RecordError,
)
from assetd.generation import Generation
from assetd.inbox import Pending
from assetd.lanes import Lane, Ticket
from assetd.lookout import Cookie, Lookout, Ripe
from assetd.material import Material
from assetd.model import (
    Batch,
    Cause,
    Change,
    Committed,
    Done,
    Entry,
    EntryState,
    Hear,
    Job,
    Kind,
    NodeState,
    Outcome,
    Output,
    Place,
    Problem,
    Reason,
    Source,
    Stamp,
    Tell,
)
from assetd.pool import Jobs, Pool
from assetd.reconcile import Finished, reconcile, turned_out
from assetd.registry import Project
from assetd.retries import Quarantine, Retries
from assetd.scan import Findings, has_changed, scan
from assetd.slices import Commit, Slice, Slices
from assetd.standing import Standing
from assetd.survey import Layout, Survey
from assetd.suspects import Suspects, Suspicion
from assetd.trace import OFF, Trace
from assetd.watch import NOWHERE

SLICE: Final = 100
"""Suspects that are planned, and so committed, together."""
IN_FLIGHT: Final = 1_500
"""Jobs beyond which scans and plans wait: enough to keep the workers busy."""
TURN_SECONDS: Final = 0.01
"""What one station may take of a turn; clients wait for no longer than a few of these."""
TROUBLE_SECONDS: Final = 1.0
"""Between two tries while the disk takes nothing."""
RESCAN_SECONDS: Final = 2.0
"""The longest wait between two scans for lost events; else it is as long as the last one took."""


class State(StrEnum):
    """What the engine is at; derived, never set, but for the two ends of its life."""

    STARTING = "starting"
    SCANNING = "scanning"
    BUILDING = "building"
    IDLE = "idle"
    PAUSED = "paused"
    STOPPING = "stopping"


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
    steps: Iterator[Findings]
    serial: int
    batch: int
    begun: bool = False


@dataclass(frozen=True, slots=True)
class _Moved:
    """What is in place has changed since those were asked who depend on it."""

    serial: int
    names: bool
    """Whether names came or went; else only what is in the outputs, or their sources' times."""


@dataclass(slots=True)
class _Waiter:
    proof: Cookie
    on_done: Callable[[], None]


@dataclass(slots=True)
class Order:
    """What somebody asked to be built, and what has come of it."""

    paths: tuple[str, ...] = ()
    """Places of sources or folders, or outputs; empty for everything."""
    force: bool = False
    tally: Batch = field(default_factory=lambda: Batch(0, "build", 0.0))
    reasons: list[tuple[Source, Reason]] = field(default_factory=list)
    sources: frozenset[Source] | None = None
    """What the paths stand for; None for everything."""
    unknown: tuple[str, ...] = ()
    """The paths that stand for nothing."""


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
        only: Sequence[str] = (),
        open_pool: Callable[..., Jobs] = Pool,
        trace: Trace = OFF,
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
            only: Look at nothing but these paths of an order, and what depends on them;
                for one build.
            open_pool: Makes the pool; the kit has one that runs in this process.
            trace: Is told what we do, and for how long.
        """
        self.selector = selectors.DefaultSelector()
        self.started = time.monotonic()
        self.turns = 0
        self.tell = tell
        self.problems: tuple[Problem, ...] = ()
        """Why the configuration file, as it is now, is not the one in force."""
        self.ready = False
        """Whether the first scan and its batch are done."""
        self.links: dict[Place, str] = {}
        """What scans did not follow or could not read, and why."""
        self.rescans = 0
        self.stopping = False
        self.paused = False
        self.trouble: str | None = None
        """Why nothing can be recorded at the moment: the disk is full, say."""
        self.hearers: list[Hear] = []

        self._went_on = 0.0
        """When the latest pause ended, by the monotonic clock."""
        self._watching = watching
        self._workers = workers
        self._no_delete = no_delete
        self._take_over = take_over
        self._dry = dry
        self._only = tuple(only)
        self._pool_maker = open_pool
        self._trace = trace
        self._job = 0
        self._suspects = Suspects()
        self._slices = Slices()
        self._material = Material()
        """Until the first scan is built: then there are times to go by."""
        self._jobs: dict[int, tuple[Slice, plans.Planned]] = {}
        self._batches: dict[int, _OpenBatch] = {}
        self._scans: deque[_Scan] = deque()
        self._waiters: list[_Waiter] = []
        self._orders: list[Order] = []
        self._reloaders: list[Callable[[], None]] = []
        self._quarantine = Quarantine()
        self._repairs: dict[str, Stamp | None] = {}
        """Outputs that somebody asked to have back, with the stamps of what is there instead."""
        self._retries = Retries()
        self._rescanning_since: float | None = None
        self._rescan_at = 0.0
        """Before that nothing is scanned for lost events again: they may be lost all the time."""
        self._moved: _Moved | None = None
        self._asked: set[Source] = set()
        """Whom `_ask_listeners` suspected last."""
        self._pending: list[Commit] = []
        self._trouble_at: float | None = None
        """When the disk is tried again; until then nothing new is begun."""
        self._trouble_lost = False
        """Whether suspects were lost over it, so that a scan has to follow."""
        self._trimming: Iterator[int] | None = None
        self._kept_results = 0
        self._thorough = False
        self._torn = False
        """Whether the machine went down, and not everything is built again since."""
        self._fingerprint_due: str | None = None
        """Of the configuration whose first scan is not built yet: if that is cut short, the
        next start must scan as thoroughly."""

        self._home = stamps.identity(project.config.project)
        self._current = self._open(project, 1)
        config = project.config
        self.record = recovery.open_record(config, tell, mend=not dry)
        self.lookout = Lookout(self.layout, self.record, self.selector, tell)
        fingerprint = self.layout.fingerprint()
        # What a shared file holds is noted with the first commit that was built from it.  If we
        # ended before the others were, its stamp says nothing of them: ask every source.
        self._thorough = (
            self.record.meta("fingerprint") != fingerprint or self.record.meta("clean") == "0"
        )
        if dry:
            self._suspect_missing()
        else:
            self._torn = verify = not recovery.ended_cleanly(self.record)
            recovery.redo(config, self.record, tell)
            recovery.clear_staging(self._current.staging)
            recovery.begin(config, self.record)
            recovery.check_outputs(config, self.record, tell, verify=verify)
        if not dry and not self._only:
            if self._thorough and not no_delete:
                self._fingerprint_due = fingerprint
            serial = self.lookout.next_serial()
            for source in self.record.unplaced():
                self._suspects.add(source, serial, Lane.BULK)
        self.standing = Standing(self.record)
        if not self._only:
            self._suspect_retries(self.lookout.next_serial())
        self._begin_generation()
        self._configured = project.stamps
        if watching:
            self.lookout.start()
            self._check_configuration()  # it was read before it was watched
        if not self._only:
            self._scan_everything("start")

    # -- what others ask ------------------------------------------------------------------

    @property
    def layout(self) -> Layout:
        """The configuration in force."""
        return self._current.layout

    @property
    def pool(self) -> Jobs:
        """The workers."""
        return self._current.pool

    @property
    def generation(self) -> int:
        """How many configurations have been in force."""
        return self._current.number

    @property
    def sandbox(self) -> str:
        """What confines the workers, in words."""
        return self._current.sandbox

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
            or self._suspects.deferred
            or self._moved is not None
            or len(self.lookout)
            or self.lookout.reload_at is not None
            or self.lookout.lost
        )

    @property
    def outputs(self) -> int:
        """How many outputs are in place."""
        return self.record.in_place

    def queue(self) -> tuple[int, int, int]:
        """Suspects, jobs that wait for a worker, jobs that a worker holds."""
        suspects = len(self._suspects) + self._suspects.deferred + len(self.lookout)
        return suspects, self.pool.waiting(), self.pool.running()

    def sync(self, on_done: Callable[[], None]) -> None:
        """Call *on_done* when every change made before this call is built and recorded."""
        if self.lookout.proves():
            # The kernel keeps the order of events: when this file's comes out of the inbox,
            # those of every earlier change have come out before it.
            with contextlib.suppress(OSError):  # no space for a cookie: look instead
                self._waiters.append(_Waiter(self.lookout.bake(), on_done))
                return
        self._check_configuration()
        if not any(scan.place == "" and not scan.begun for scan in self._scans):
            self._scan("", "sync")
        # A serial of its own: what is suspected already, by an order say, is waited for too.
        self._waiters.append(_Waiter(Cookie(self.lookout.next_serial()), on_done))

    def build(self, order: Order, on_done: Callable[[Order], None]) -> None:
        """Bring everything up to date and call *on_done*; *order* is filled in.

        The order's paths limit what is forced, and what it tells of; an engine that was made
        for nothing else looks at nothing else.
        """
        self._orders.append(order)
        serial = self.lookout.next_serial()
        named = {path: set(self._matching([path])) for path in order.paths}
        batch = self._open_batch("build", Lane.BULK)  # is written only if it does something
        reason = Reason(Cause.REQUESTED) if order.force else None
        if order.force or self._only:
            for source in self._matching(order.paths):
                self._suspects.add(source, serial, Lane.BULK, reason=reason)
        if self._only:
            for path in self._only:
                self._look_at(path, serial, reason)
        if not order.force and self.layout.project.config.force:
            for source in self._matching(order.paths):
                if self.layout.forced(source):
                    forced = Reason(Cause.FORCE_PATTERN)
                    self._suspects.add(source, serial, Lane.BULK, reason=forced)
        self._batches[batch].feeding -= 1
        among = set().union(*named.values()) if self._only else None
        self._suspect_retries(serial, among)

        def done() -> None:
            self._orders.remove(order)
            if order.paths:
                for path, found in named.items():
                    found.update(self._matching([path]))
                order.sources = frozenset().union(*named.values())
                order.unknown = tuple(path for path, found in named.items() if not found)
            on_done(order)

        if self._only:
            self._waiters.append(_Waiter(Cookie(serial), done))
        else:
            self.sync(done)

    def repair(self, outputs: Iterable[str], on_done: Callable[[], None]) -> None:
        """Make *outputs* again and call *on_done*; files in their places now are replaced.

        What is edited after this call stays, and folders in their places do.
        """
        serial = self.lookout.next_serial()
        out_dir = self.layout.project.config.out_dir
        owned = [output for path in outputs if (output := self.record.output(path)) is not None]
        wanted: dict[str, Stamp | None] = {}
        for output, seen in publish.see(out_dir, owned, lambda _output, _stamp: False):
            if seen.stamp is None and seen.there is not publish.There.NOTHING:
                continue
            missing = seen.there is publish.There.NOTHING
            cause = Cause.OUTPUT_MISSING if missing else Cause.OUTPUT_CHANGED
            wanted[output.path] = seen.stamp
            self._suspects.add(output.source, serial, Lane.BULK, reason=Reason(cause, output.path))
        self._repairs |= wanted

        def done() -> None:
            for path in wanted:
                self._repairs.pop(path, None)
            on_done()

        self._waiters.append(_Waiter(Cookie(serial), done))

    def _suspect_retries(self, serial: int, among: set[Source] | None = None) -> None:
        """Suspect what fails for a reason that may have passed by now."""
        for source, entry in self.standing.wrong.items():
            passing = any(diagnostic.transient for _, diagnostic in entry.diagnostics)
            if (among is None or source in among) and (
                passing or entry.state is EntryState.BLOCKED
            ):
                self._suspects.add(source, serial, Lane.BULK)

    def _look_at(self, path: Place, serial: int, reason: Reason | None) -> None:
        """Suspect what the disk holds at or below *path*, whatever the record says of it."""
        full = places.path(path, self.layout.root)
        if os.path.isdir(full):
            self._thorough = True
            self._scan(path, "build", serial)
        elif (source := self.layout.locate(path)) is not None:
            self._suspects.add(source, serial, Lane.BULK, reason=reason)

    def _suspect_missing(self) -> None:
        """Suspect the sources of outputs that are not there, and let the record be."""
        out_dir = self.layout.project.config.out_dir
        for output in self.record.outputs():
            if stamps.read(f"{out_dir}/{output.path}") is None:
                missing = Reason(Cause.OUTPUT_MISSING, output.path)
                self._suspects.add(output.source, 0, Lane.BULK, reason=missing)

    def reload(self, on_done: Callable[[], None] | None = None) -> None:
        """Read the configuration again, soon; *on_done* is called when it is taken or refused."""
        self.lookout.reload_at = time.monotonic()
        if on_done is not None:
            self._reloaders.append(on_done)

    def pause(self) -> None:
        """Begin nothing new until `resume`."""
        self.paused = True

    def resume(self) -> None:
        """Go on with what was noted meanwhile."""
        if self.paused:
            self.paused = False
            self._went_on = time.monotonic()

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
        ready = self.selector.select(wait)
        self.turns += 1
        with self._trace.turn():
            for key, mask in ready:
                key.data(mask)
            try:
                self._step()
            except CorruptRecordError:
                self.check_home()
                raise
            except RecordError as error:
                self.check_home()
                # What was at hand may be lost: a scan finds it again.
                self._in_trouble(error, lost=True)

    def _step(self) -> None:
        span = self._trace.span
        with span("take notes"):
            self.lookout.take_notes()
        now = time.monotonic()
        if self._trouble_at is not None and now >= self._trouble_at:
            self._try_again()
        deadline = self.pool.deadline()
        if deadline is not None and now >= deadline:
            self.pool.tick()
        with span("watch over"):
            self._watch_over(now)
        with span("ripen"):
            self._ripen(now)
        with span("scan"):
            self._advance_scans()
        with span("ask listeners"):
            self._ask_listeners()
        with span("plan"):
            self._plan()
        with span("close batches"):
            self._close_batches()
        self._wake_waiters()
        with span("trim store"):
            self._trim_store()

    def run_until(self, done: Callable[[], bool]) -> None:
        """Turn until *done* says so."""
        while not done():
            self.turn()

    def stop(self) -> None:
        """End: what is in flight is given up, and done again on the next start."""
        unfinished = not self.idle or bool(self._only) or self._no_delete
        self.stopping = True
        self._current.end()
        self.lookout.stop()
        if not self._dry:
            with contextlib.suppress(RecordError):
                if self.record.written:
                    self.record.set_meta(clean="1", **({"fingerprint": ""} if unfinished else {}))
            staging = self._current.staging
            recovery.clear_staging(staging)
            if os.path.basename(staging) == publish.STAGING_NAME:
                with contextlib.suppress(OSError):
                    os.rmdir(staging)
        self.record.close()
        self.selector.close()

    # -- opening --------------------------------------------------------------------------

    def _open(self, project: Project, number: int) -> Generation:
        return Generation(project, number, self.tell, dry=self._dry)

    def _begin_generation(self) -> None:
        """Run the hooks and start the workers of the generation that there is now."""
        current = self._current
        current.start()
        self.lookout.use(current.layout)  # hooks may have added patterns
        current.open(
            self._pool_maker,
            self.record.path,
            self.selector,
            self._on_outcome,
            lambda event, fields: self.tell(event, **{"level": "warning", **fields}),
            workers=self._workers,
            trace=self._trace,
            warm=self._watching,
            weigh=self._material.around,
        )
        self._note_bounds(repr(current.bounds))

    def _note_bounds(self, bounds: str) -> None:
        """Try again what fails, if it may be because of other bounds than those of now."""
        digest = stamps.digest_bytes(os.fsencode(bounds))
        if self._dry or self._only or self.record.meta("sandbox") == digest:
            return
        serial = self.lookout.next_serial()
        reason = Reason(Cause.OPTIONS_CHANGED, confinement.NAME)
        for source in self.standing.wrong:
            self._suspects.add(source, serial, Lane.BULK, reason=reason)
        with contextlib.suppress(RecordError):  # no space: the next start asks them again
            self.record.set_meta(sandbox=digest)

    # -- from hints to suspects -----------------------------------------------------------

    def _watch_over(self, now: float) -> None:
        """What is due by the clock: retries, a changed configuration, polling, dead threads."""
        for source in self._retries.due(now):
            self._suspects.add(source, self.lookout.next_serial(), Lane.BULK)
        lookout = self.lookout
        if self._may_reload() and lookout.reload_at is not None and now >= lookout.reload_at:
            lookout.reload_at = None
            try:
                self._reload()
            except RecordError:
                lookout.reload_at = now
                raise
            lookout.refused = bool(self.problems)
            reloaders, self._reloaders = self._reloaders, []
            for on_done in reloaders:
                on_done()
        if lookout.look_after(now, scanning=bool(self._scans)):
            self._check_configuration()
            self._scan("", "poll")
        if self._rescanning_since is not None and not self._scans:
            self._rescan_at = now + min(now - self._rescanning_since, RESCAN_SECONDS)
            self._rescanning_since = None
        if lookout.lost and not self._scans and now >= self._rescan_at:
            lookout.lost = False
            self._rescanning_since = now
            self.rescans += 1
            self._check_configuration()
            lookout.crumble(self._scan("", "overflow"))

    def _ripen(self, now: float) -> None:
        files, folders, outputs = self.lookout.ripe(now)
        for place, each in (*files, *self._other_names(files)):
            self._slices.hear(place, each.serial, each.first)
            for source in self._affected(place):
                self._suspects.add(source, each.serial, Lane.URGENT, noted=each.first)
        for place, each in folders:
            self._scan(place, "watch", each.serial)
            for source in self._leading_to(place):
                self._suspects.add(source, each.serial, Lane.URGENT, noted=each.first)
        blocked = list(self._blocked()) if outputs else []
        for path, each in outputs:
            for output in self.record.outputs_below(path):
                self.lookout.watch_output_folder(output.path.rpartition("/")[0])
                self._look_at_output(output.path, each.serial)
            self._look_at_output(path, each.serial)
            for source, claim in blocked:
                # What was in the way may have been a file where a folder has to be.
                if places.is_below(claim, path):
                    self._suspects.add(source, each.serial, Lane.URGENT)

    def _globbing(self, place: Place) -> Iterator[Source]:
        """Who may find something behind *place*, if a link to a folder came there or went."""
        if self.record.globs and not os.path.isfile(places.path(place, self.layout.root)):
            for folder in places.above(place):
                yield from (s for pattern, s in self.record.globs_at(folder) if "/" in pattern)

    def _other_names(self, files: Ripe) -> Iterator[tuple[Place, Pending]]:
        """The places that may be hard links of *files*: the kernel names only the one in use."""
        root = self.layout.root
        inodes = {
            inode: each
            for place, each in files
            if (inode := stamps.shared_inode(places.path(place, root))) is not None
        }
        if not inodes:
            return
        sources = map(self.layout.place, self.record.sources_on(inodes))
        for place in {*sources, *self.record.files_on(inodes)}.difference(p for p, _ in files):
            inode = stamps.shared_inode(places.path(place, root))
            if inode in inodes:
                yield place, inodes[inode]

    def _affected(self, place: Place) -> set[Source]:
        """The sources that a change of the file at *place* may concern."""
        found = set(self._leading_to(place))
        source = self.layout.locate(place)
        if source is not None:
            found.add(source)
        if self.record.file(place) is not None:
            found.update(self.record.dependents(place))
        found.update(self.record.globbers(place))
        found.update(self._globbing(place))
        return found

    def _look_at_output(self, path: str, serial: int) -> None:
        """Compare one output with the record, after something happened to it."""
        record = self.record
        output = record.output(path)
        if output is None:
            return
        out_dir = self.layout.project.config.out_dir
        found = stamps.read(f"{out_dir}/{path}")
        if found is not None and found == output.stamp:
            return
        seen = publish.identify(out_dir, path)
        if seen is None:
            record.disown([path])
            reason = Reason(Cause.OUTPUT_MISSING, path)
            self._suspects.add(output.source, serial, Lane.URGENT, reason=reason)
        elif seen[1] == output.digest:
            record.restamp_output(path, seen[0])
        else:
            self.tell("output_edited", level="warning", output=path)

    def _blocked(self) -> Iterator[tuple[Source, str]]:
        """The sources that something in the output root is in the way of, by their outputs."""
        for source, entry in self.standing.wrong.items():
            if entry.state is EntryState.BLOCKED:
                yield from ((source, claim) for claim in entry.claims)

    def _matching(self, paths: Sequence[str]) -> Iterator[Source]:
        """The known sources at or below *paths*, and those of outputs and partials there."""
        for mount in self.layout.mounts.values():
            for source in self.record.sources_of(mount.name):
                place = self.layout.place(source)
                if not paths or any(places.is_below(place, path) for path in paths):
                    yield source
        for path in paths:
            yield from self.record.claimants(path)
            yield from self.record.dependents(path)

    # -- scans ----------------------------------------------------------------------------

    def _scan_everything(self, trigger: str, serial: int | None = None) -> int:
        known = set(self.layout.mounts)
        serial = self.lookout.next_serial() if serial is None else serial
        for mount in self.record.mounts():
            if mount not in known:
                for source in self.record.sources_of(mount):
                    self._suspects.add(source, serial, Lane.BULK)
        return self._scan("", trigger, serial)

    def _scan(self, place: Place, trigger: str, serial: int | None = None) -> int:
        """Queue a scan of everything at and below *place*; returns its serial.

        Args:
            place: Of a folder.
            trigger: What the batch is because of.
            serial: Of the note that asks for it; a new one if there was none.
        """
        serial = self.lookout.next_serial() if serial is None else serial
        self._slices.hear(place, serial, time.monotonic())
        batch = self._open_batch(trigger, Lane.BULK)
        self.links = {p: why for p, why in self.links.items() if not places.is_below(p, place)}
        steps = scan(
            self.layout,
            self.record,
            place,
            self.lookout.watch_folder,
            self._on_link,
            thorough=self._thorough,
        )
        if place == "" and trigger != "start":  # a start has checked them already
            steps = itertools.chain(steps, self._scan_outputs(serial))
        self._scans.append(_Scan(place, steps, serial, batch))
        self._thorough = False
        return serial

    def _scan_outputs(self, serial: int) -> Iterator[Findings]:
        """Compare what is in place with the record, piece by piece."""
        for number, output in enumerate(self.record.outputs()):
            self._look_at_output(output.path, serial)
            if number % SLICE == SLICE - 1:
                yield []
        out_dir = self.layout.project.config.out_dir
        yield [(s, None) for s, claim in self._blocked() if publish.is_free(out_dir, claim)]

    def _check_configuration(self) -> None:
        """Have the configuration read again if it changed and no event said so."""
        now = registry.stamps_of(self.layout.project.config)
        if self.lookout.reload_at is None and self._configured != now:
            self.reload()

    def _advance_scans(self) -> None:
        if self._trouble_at is not None:
            return
        end = time.monotonic() + TURN_SECONDS
        while self._scans and len(self._suspects) < 2 * SLICE and self._has_room():
            each = self._scans[0]
            if not each.begun:
                each.begun = True
                self._watch_nearby(None, each.serial)
                for source in self._slices.locked:
                    # The record may not have heard of it yet, and the scan not find it any more.
                    if places.is_below(self.layout.place(source), each.place):
                        self._suspects.add(source, each.serial, Lane.BULK)
            try:
                found = next(each.steps)
            except StopIteration:
                self._scans.popleft()
                self._batches[each.batch].feeding -= 1
                continue
            for source, stamp in found:
                self._suspects.add(source, each.serial, Lane.BULK, stamp=stamp)
            if time.monotonic() > end:
                return

    def _watch_nearby(self, folders: Iterable[Place] | None = None, serial: int = 0) -> bool:
        """Watch what matters outside the mounts; look at it too where nobody watched before.

        Args:
            folders: Those that matter; None for all of them.
            serial: Of the note because of which they do: who waits for that must wait for what
                was changed there before anybody watched.

        Returns:
            Whether there is such a place.
        """
        new = self.lookout.watch_nearby(folders)
        for folder in new:
            suspects = set(self._leading_to(folder))
            for fact in self.record.files_below(folder):
                if has_changed(self.layout, fact):
                    suspects.update(self.record.dependents(fact.place))
            for source in suspects:
                self._suspects.add(source, serial, Lane.BULK)
        return bool(new)

    def _on_link(self, place: Place, why: str) -> None:
        if why == NOWHERE:
            self._await(place, self._scans[0].serial)
            return
        if self.links.get(place) != why:
            self.links[place] = why
            self.tell("not_followed", level="warning", path=place, cause=why)

    def _await(self, link: Place, serial: int) -> None:
        """Remember a link that leads nowhere: what it leads to may come, and no event names it."""
        target = places.of(os.path.realpath(places.path(link, self.layout.root)), self.layout.root)
        self.lookout.awaited.add(link, target)
        self._watch_nearby([places.split(target)[0]], serial)

    def _leading_to(self, place: Place) -> Iterator[Source]:
        """The sources that are links to what is at or below *place*, and was not there."""
        for link in self.lookout.awaited.leading_to(place):
            source = self.layout.locate(link)
            if source is not None:
                yield source

    def _has_room(self) -> bool:
        return self._dry or len(self._jobs) < IN_FLIGHT

    # -- plans and jobs -------------------------------------------------------------------

    def _open_batch(self, trigger: str, lane: Lane) -> int:
        tally = self.record.open_batch(trigger)
        self._batches[tally.id] = _OpenBatch(tally, time.monotonic(), lane, feeding=1)
        return tally.id

    def _may_plan(self) -> bool:
        # While a changed configuration waits, what is in flight ends with the one that it
        # began with, and nothing new begins.
        waits = self.lookout.reload_at is not None and bool(self._slices)
        return not (self.paused or self.stopping or waits or self._trouble_at is not None)

    def _plan(self) -> None:
        if not self._may_plan():
            return
        end = time.monotonic() + TURN_SECONDS
        while True:
            lane, chosen = self._suspects.take(SLICE, urgent_only=not self._has_room())
            if not chosen:
                return
            self._plan_slice(chosen, lane)
            if time.monotonic() > end:
                return

    def _plan_slice(self, suspects: dict[Source, Suspicion], lane: Lane) -> None:
        def sighted(source: Source) -> Stamp | None:
            each = suspects.get(source)
            return None if each is None else each.stamp

        slices = self._slices
        survey = Survey(self.layout, self.record, slices.locked, sighted, slices.claimed)
        survey.expect(suspects)
        decided = plans.make(
            {source: each.reason for source, each in suspects.items()},
            tuple(self.layout.mounts),
            survey,
            place=self.layout.place,
        )
        serial = min(each.serial for each in suspects.values())
        for source in suspects:
            stamp = survey.sighting(source).stamp
            if stamp is None:
                if os.path.islink(self.layout.path(source)):
                    self._await(self.layout.place(source), serial)
                else:
                    self.lookout.awaited.discard(self.layout.place(source))
            elif not self.ready and survey.is_material(source):
                self._material.add(source, stamp.size)
        now = time.monotonic()
        # How long somebody else made it wait says nothing of how quick we are.
        noted = max(self._went_on, min(each.noted for each in suspects.values()))
        for source in decided.deferred:
            each = suspects.get(source) or Suspicion(serial, lane, now)
            self._suspects.defer(source, each)
        if self._dry:
            self._note_dry(decided)
            return
        facts = tuple(survey.learned.values())
        if not decided.jobs and not decided.drop and not decided.restate:
            if decided.refresh or facts:
                self.record.refresh(facts, decided.refresh)
            # The same content, but perhaps of another time.  Those who were only asked what they
            # make of that are no news, or there would be no end to it.
            if decided.clean and not suspects.keys() <= self._asked:
                self._note_moved(serial, names=False)
            return
        if self.layout.project.config.force and lane is Lane.URGENT:
            self._force_along(decided, serial)
        batch = self._batch_for(lane)
        piece = Slice(
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
        slices.open(piece)
        self._batches[batch].slices += 1
        self._begin(piece, survey)
        if not piece.waiting:
            self._commit(piece)

    def _begin(self, piece: Slice, survey: Survey) -> None:
        """Carry over what only has to be carried over, and give the pool the rest."""
        tickets: list[Ticket] = []
        with self._trace.span("carry", sources=len(piece.waiting)):
            for planned in list(piece.waiting.values()):
                job = self._job_of(planned, survey.in_place)
                chain = tuple([node.processor for node in planned.nodes])
                limits = self.layout.limits(planned.source.mount, chain)
                carried = (
                    self._current.runner.carry(job, limits.carries, planned.claims[0])
                    if limits.carries is not None and len(planned.claims) == 1
                    else None
                )
                if carried is not None:
                    self._take(piece, planned, carried)
                    continue
                self._jobs[job.id] = (piece, planned)
                took = planned.entry.seconds if planned.entry is not None else 0.0
                tickets.append(
                    Ticket(
                        job, piece.lane, limits.longest, took or limits.guess, nodes=limits.nodes
                    )
                )
        self.pool.submit_all(tickets)

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
        planned = {p.source for p in decided.jobs}
        touched = {source.mount for source in planned}
        for mount in touched:
            for source in self.record.sources_of(mount):
                free = source not in self._slices.locked and source not in planned
                if free and self.layout.forced(source):
                    reason = Reason(Cause.FORCE_PATTERN)
                    self._suspects.add(source, serial, Lane.BULK, reason=reason)

    def _note_dry(self, decided: plans.Plan) -> None:
        for order in self._orders:
            order.reasons += [(p.source, p.reasons[0]) for p in decided.jobs]
            order.reasons += [(entry.source, reason) for entry, reason in decided.drop]
            order.reasons += [(entry.source, entry.reason) for entry in decided.restate]

    def _job_of(self, planned: plans.Planned, in_place: Callable[[str], Output | None]) -> Job:
        self._job += 1
        entry = planned.entry
        published: dict[str, str] = {}
        for claim in {*planned.claims, *(entry.claims if entry is not None else ())}:
            output = in_place(claim)
            if output is not None and claim not in self._repairs:
                published[claim] = output.digest
        first = planned.reasons[0]
        force = first.cause in {Cause.REQUESTED, Cause.FORCE_PATTERN}
        force |= first.cause is Cause.OPTIONS_CHANGED and first.about == confinement.NAME
        nodes = entry.nodes if entry is not None else ()
        return Job(self._job, planned.source, nodes, published, force)

    def _on_outcome(self, outcome: Outcome) -> None:
        piece, planned = self._jobs.pop(outcome.job)
        self._take(piece, planned, self._quarantined(planned, outcome))
        if not piece.waiting:
            self._commit(piece)

    def _take(self, piece: Slice, planned: plans.Planned, outcome: Outcome) -> None:
        del piece.waiting[planned.source]
        piece.finished.append(Finished(planned, outcome))

    def _quarantined(self, planned: plans.Planned, outcome: Outcome) -> Outcome:
        """The outcome; final if the same input has cost workers again and again."""
        if outcome.died is None:
            self._quarantine.acquit(planned.source)
            return outcome
        died = self._quarantine.judge(planned.source, planned.stamp, outcome.died)
        return outcome._replace(died=died)

    # -- commits --------------------------------------------------------------------------

    def _commit(self, piece: Slice) -> None:
        """Publish and record one slice; from here on its sources may be looked at again."""
        record, config = self.record, self.layout.project.config
        open_batch = self._batches[piece.batch]
        span = self._trace.span
        with span("reconcile", jobs=len(piece.finished)):
            outputs = record.outputs_at(piece.claims())
            result = reconcile(
                open_batch.tally,
                piece.finished,
                piece.drop,
                piece.restate,
                outputs.get,
                lambda claim: record.at_odds([claim])[claim],
                record.entry,
                no_delete=self._no_delete,
            )
        change = result.change
        try:
            with span("intend"):
                given_up = self._given_up(change)
                outputs.update((output.path, output) for output in given_up)
                intent = record.intend(change, given_up) if change.publish or change.delete else 0
        except CorruptRecordError:
            raise
        except RecordError as error:
            self._give_back(piece, change)
            self._in_trouble(error)
            return
        with span("publish", outputs=len(change.publish), deletions=len(change.delete)):
            done = publish.apply(
                config.out_dir,
                change,
                lambda path: outputs.get(path) or record.output(path),  # or what is in the way
                record.made_folder,
                sync_folders=config.durability == "full",
                take_over=self._take_over,
                torn=self._torn,
            )
        deleted = result.tally.deleted + len(done.deleted)
        open_batch.tally = result.tally._replace(deleted=deleted)
        change = turned_out(change, done, record.entry)
        self._finish(Commit(piece, result, intent, change, done))

    def _given_up(self, change: Change) -> list[Output]:
        """The outputs of *change* whose edits are to be replaced, with the stamps of those."""
        asked = [
            (output, stamp)
            for publication in change.publish
            if (stamp := self._repairs.get(publication.output)) is not None
            and (output := self.record.output(publication.output)) is not None
        ]
        return [output._replace(stamp=stamp) for output, stamp in asked]

    def _give_back(self, piece: Slice, change: Change) -> None:
        """Undo a slice of which nothing is published: its sources are suspects again."""
        for publication in change.publish:
            if publication.staged is not None:
                with contextlib.suppress(OSError):
                    os.unlink(publication.staged)
        self._close_slice(piece)
        for source in piece.sources():
            reason = Reason(Cause.RETRY)
            self._suspects.add(source, piece.serial, piece.lane, reason=reason, noted=piece.noted)
        self._suspects.release()

    def _finish(self, commit: Commit) -> None:
        """Record what is published; until that succeeds its sources stay locked."""
        piece, change, done = commit.piece, commit.change, commit.done
        try:
            with self._trace.span("commit", entries=len(change.put), drops=len(change.drop)):
                tally = self._batches[piece.batch].tally
                before = piece.replaced()
                self.record.commit(commit.intent, change, done, tally, _timings(change), before)
        except CorruptRecordError:
            raise
        except RecordError as error:
            self._pending.append(commit)
            self._in_trouble(error)
            return
        healed = self.standing.take(change, before)
        self._close_slice(piece)
        for source, note in self._slices.missed(piece, change):
            self._suspects.add(source, note.serial, Lane.URGENT, noted=note.when)
        self._note_moved(piece.serial, names=_names_moved(piece, change, done))
        if done.deleted:
            # What was in somebody's way may be gone: a build that does not watch has no retry.
            for source, entry in self.standing.wrong.items():
                passing = entry.problem is not None and entry.problem.transient
                if entry.state is EntryState.BLOCKED and passing:
                    self._suspects.add(source, piece.serial, Lane.BULK)
        with self._trace.span("tell"):
            self._after_commit(piece, change, done, healed)
        for source in commit.result.again:
            reason = Reason(Cause.CHANGED_WHILE_BUILT)
            again = Suspicion(piece.serial, piece.lane, piece.noted, reason)
            self._suspects.defer(source, again)
        self._suspects.release()
        latency = time.monotonic() - piece.noted if piece.lane is Lane.URGENT else None
        if latency is not None:
            self.standing.latencies.append(latency)
            self._trace.save(piece.noted, [self.layout.place(s) for s in piece.sources()])
        for hear in self.hearers:
            hear(Committed(change, done, frozenset(healed), latency))

    def _note_moved(self, serial: int, *, names: bool) -> None:
        """Remember that what is in place has changed; `_ask_listeners` sees to it."""
        known = self._moved or _Moved(serial, names=False)
        self._moved = _Moved(min(serial, known.serial), names=names or known.names)

    def _nothing_left(self) -> bool:
        """Whether nothing is under way that might change what is in place."""
        waits = self._suspects or self._suspects.deferred
        return not (self._scans or self._slices or waits)

    def _ask_listeners(self) -> None:
        """Suspect who depends on what is in place, once nothing else is about to change it.

        Not with each commit: a cold build would make its sitemap again for every slice.
        """
        moved = self._moved
        if moved is None or not self._nothing_left():
            return
        self._moved = None
        self._asked.clear()
        kinds = (Kind.DATED_OUTPUTS, Kind.OUTPUTS) if moved.names else (Kind.DATED_OUTPUTS,)
        for mount in self.layout.mounts:
            for kind in kinds:
                for source in self.record.listeners(mount, kind):
                    self._asked.add(source)
                    self._suspects.add(source, moved.serial, Lane.BULK)

    def _close_slice(self, piece: Slice) -> None:
        """Let go of the sources and the claims of a slice."""
        self._batches[piece.batch].slices -= 1
        self._slices.close(piece)

    # -- trouble --------------------------------------------------------------------------

    def _in_trouble(self, error: RecordError, *, lost: bool = False) -> None:
        """Nothing can be recorded: begin nothing new, and try again in a while."""
        if self.trouble is None:
            self.tell("trouble", level="error", cause=str(error), what="waiting for it to pass")
        self.trouble = str(error)
        self._trouble_at = time.monotonic() + TROUBLE_SECONDS
        self._trouble_lost |= lost

    def _try_again(self) -> None:
        """See whether the disk takes anything, and record what waits to be recorded."""
        self._trouble_at = None
        try:
            recovery.begin(self.layout.project.config, self.record)
            self.record.set_meta(clean="0")  # see that it takes that
        except CorruptRecordError:
            raise
        except RecordError as error:
            self._in_trouble(error)
            return
        pending, self._pending = self._pending, []
        for commit in pending:
            self._finish(commit)
        if self._pending:
            return
        self.trouble = None
        self.tell("trouble_over")
        if self._trouble_lost:
            self._trouble_lost = False
            self._scan("", "trouble", 0)  # whoever waits for anything, waits for this

    # -- what is told ---------------------------------------------------------------------

    def _after_commit(
        self, piece: Slice, change: Change, done: Done, healed: Container[Source]
    ) -> None:
        """Tell what happened, and take note of what fails now."""
        for publication in change.publish if done.blocked else ():
            if publication.output in done.blocked and publication.staged is not None:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(publication.staged)
        outside: set[Place] = set()
        for entry in change.put:
            self._note_entry(entry, piece, healed=entry.source in healed)
            for node in entry.nodes:
                self._kept_results += node.state is NodeState.BUILT
                for each in node.dependencies:
                    if each.kind is Kind.GLOB:
                        outside.add(each.place)
                    elif each.kind is Kind.FILE:
                        outside.add(places.split(each.place)[0])
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
        # Not only those that we made: somebody may have been faster.
        for folder in {"", *(path.rpartition("/")[0] for path in done.placed)}:
            if not self.lookout.watch_output_folder(folder):
                for output in self.record.outputs_below(folder):
                    self._look_at_output(output.path, piece.serial)
        out_dir = self.layout.project.config.out_dir
        for path, problem in done.blocked.items():
            # What is in the way may go: from here, or from a folder on the way here.
            for folder in places.above(path):
                self.lookout.watch_output_folder(folder)
            if not problem.transient and publish.is_free(out_dir, path):  # it went before that
                for source in self.record.claimants(path):
                    self._suspects.add(source, piece.serial, Lane.URGENT)
        if outside:
            self._watch_nearby(outside, piece.serial)

    def _note_entry(self, entry: Entry, piece: Slice, *, healed: bool) -> None:
        place = self.layout.place(entry.source)
        if entry.state in {EntryState.OK, EntryState.OVERRIDDEN}:
            if healed:
                self.tell("healed", source=place)
            if piece.lane is Lane.URGENT and entry.batch == piece.batch:
                self.tell(
                    "built" if entry.state is EntryState.OK else "overridden",
                    source=place,
                    ms=round(entry.seconds * 1000, 1),
                    reason=entry.reason,
                )
            return
        for processor, diagnostic in entry.diagnostics:
            self.tell(
                "failed",
                level="error",
                source=place,
                processor=processor,
                message=str(diagnostic),
                reason=entry.reason,
            )
            if diagnostic.transient and self._watching:
                self._retries.add(entry, time.monotonic())

    def _close_batches(self) -> None:
        for number, batch in list(self._batches.items()):
            if batch.slices or batch.feeding:
                continue
            waits = self._suspects or self._suspects.deferred or self._moved
            if batch.lane is Lane.BULK and waits and not self.paused:
                continue
            del self._batches[number]
            seconds = time.monotonic() - batch.began
            tally = batch.tally._replace(seconds=seconds, finished_at=time.time())
            nothing_left = self._nothing_left()
            if nothing_left and self._fingerprint_due is not None:
                self.record.set_meta(fingerprint=self._fingerprint_due)
                self._fingerprint_due = None
            if nothing_left and self._torn and not self._only:
                self._torn = False
                self.record.set_meta(torn="0")
            first = nothing_left and not self.ready
            self.ready = self.ready or nothing_left
            if first:
                self._material.clear()
            if tally.changed or tally.deleted:
                self.record.finish_batch(tally)
                self.standing.last_batch = tally
                if not tally.failed:
                    self._retries.all_went_well()
                for order in self._orders:
                    order.tally = _added(order.tally, tally)
                self.tell("batch", batch=tally)
                for hear in self.hearers:
                    hear(tally)
            if first:
                self.tell("ready", sources=self.standing.sources, outputs=self.outputs)

    def _wake_waiters(self) -> None:
        lookout = self.lookout
        if self._trouble_at is not None or lookout.reload_at is not None or lookout.lost:
            return
        proven = ((w.proof.serial, w) for w in self._waiters if w.proof.serial is not None)
        for serial, waiter in sorted(proven, key=itemgetter(0)):
            # Whoever holds up one holds up those behind it.
            if any(held <= serial for held in self._serials()):
                return
            self._waiters.remove(waiter)
            waiter.on_done()

    def _serials(self) -> Iterator[int]:
        """Of all that has not come to its end; the oldest are among the first."""
        yield from self._slices.serials()
        yield from self._suspects.serials()
        yield from (scan.serial for scan in self._scans)
        oldest = self.lookout.oldest()
        yield from () if oldest is None else (oldest,)
        yield from () if self._moved is None else (self._moved.serial,)

    # -- the rest -------------------------------------------------------------------------

    def _may_reload(self) -> bool:
        # What is in flight ends with the configuration that it began with.
        return not self._slices and self._trouble_at is None

    def _reload(self) -> None:
        config = self.layout.project.config
        self.check_home()
        self._configured = registry.stamps_of(config)
        try:
            project = registry.load(config.file)
        except ConfigError as error:
            known, self.problems = self.problems, error.problems
            for problem in error.problems if known != error.problems else ():
                self.tell("configuration_refused", level="error", message=str(problem))
            self._watch_for(config.file)
            return
        self.problems = ()
        new = project.config
        if new.state_dir != config.state_dir:
            self.problems = (Problem("state_dir changed: restart assetd to use the new one"),)
            self.tell("configuration_refused", level="error", message=str(self.problems[0]))
            return
        fingerprint = Layout(project).fingerprint()
        same = (
            fingerprint == self.layout.fingerprint()
            and replace(new, mounts=config.mounts, sections=config.sections, lines=config.lines)
            == config
            and [m.place for m in new.mounts] == [m.place for m in config.mounts]
        )
        if same and not self._hooks_matter(project):
            if self._watch_nearby():  # a folder of what it names may be another one now
                self.lookout.reload_at = time.monotonic()
            return
        before = self._current
        try:
            following = self._open(project, before.number + 1)
        except (OSError, PublishError) as error:
            self.problems = (Problem(f"out_dir cannot be used: {error}"),)
            self.tell("configuration_refused", level="error", message=str(self.problems[0]))
            return
        # First what the disk may refuse: then nothing has ended, and it is tried again.
        if new.out_dir != config.out_dir:
            recovery.move_out(config.out_dir, self.record, self.tell)
        recovery.note_root(new, self.record)
        before.end()
        self._current = following
        self._fingerprint_due = fingerprint
        self._thorough = True
        self._configured = project.stamps
        self._begin_generation()
        if following.sandbox != before.sandbox:
            self.tell("sandbox", confined=following.sandbox)
        if new.watch != config.watch:
            self.lookout.restart()
        while self._scans:  # they compare with the old configuration
            self._batches[self._scans.popleft().batch].feeding -= 1
        self.links.clear()
        self.lookout.watch_nearby()
        self.lookout.watch_output_folder("")
        self._check_configuration()  # it was read before all of it was watched
        self.tell("configuration_taken", generation=self.generation)
        self._scan_everything("config", 0)  # whoever waits for anything, waits for this

    def check_home(self) -> None:
        """See that the project's folder is the one that we opened.

        Raises:
            ProjectGoneError: It is not: our record, outputs and lock went with the old one.
        """
        folder = self.layout.project.config.project
        if stamps.identity(folder) != self._home:
            raise ProjectGoneError(f"{folder}: the folder was removed, renamed or replaced")

    def _watch_for(self, file: str) -> None:
        """Watch where what a refused configuration lacks would come: a mount, a plugin."""
        with contextlib.suppress(ConfigError):
            named = [places.of(folder, self.layout.root) for folder in configs.named_in(file)]
            if self._watch_nearby(named):  # it may have come before it was watched
                self.lookout.reload_at = time.monotonic()

    def _hooks_matter(self, project: Project) -> bool:
        return project.plugins != self.layout.project.plugins

    def _trim_store(self) -> None:
        """Keep the store within its bound, a little whenever there is nothing else to do."""
        if self._trimming is None:
            if self._kept_results < 2_000 or not self.idle:
                return
            self._kept_results = 0
            self._trimming = self._current.store.trim(self.layout.project.config.store_bytes)
        end = time.monotonic() + TURN_SECONDS
        while time.monotonic() < end:
            if next(self._trimming, None) is None:
                self._trimming = None
                return

    def _wait_seconds(self) -> float | None:
        """How long there is nothing to do; None for as long as nothing happens."""
        scanning = self._scans and self._has_room() and self._trouble_at is None
        if self._trimming is not None or scanning:
            return 0.0
        if self._suspects and self._may_plan() and self._has_room():
            return 0.0
        if self._moved is not None and self._nothing_left():
            return 0.0
        times = [
            t
            for t in (
                self.lookout.deadline(),
                self.pool.deadline(),
                self._retries.due_at,
                self._trouble_at,
                self.lookout.reload_at if self._may_reload() else None,
                self._rescan_at if self.lookout.lost else None,
            )
            if t is not None
        ]
        if not times:
            return None
        return max(0.0, min(times) - time.monotonic())


def _timings(change: Change) -> list[tuple[str, int, float, float]]:
    """Of each processor that ran for *change*: its name, runs, seconds, those of the slowest."""
    ran: dict[str, list[float]] = {}
    for entry in change.put:
        for node in entry.nodes if entry.batch == change.batch else ():
            if node.state is NodeState.BUILT or node.state is NodeState.FAILED:
                ran.setdefault(node.processor, []).append(node.seconds)
    return [(name, len(took), sum(took), max(took)) for name, took in ran.items()]


def _names_moved(piece: Slice, change: Change, done: Done) -> bool:
    """Whether other outputs are in place after a commit, or other mounts have them."""
    before = piece.replaced()
    return (
        bool(change.drop or done.deleted or done.kept or done.blocked)
        or any(publication.replaces is None for publication in change.publish)
        or any(
            (old := before.get(entry.source)) is None
            or (old.claims, old.state) != (entry.claims, entry.state)
            for entry in change.put
        )
    )


def _added(one: Batch, other: Batch) -> Batch:
    return one._replace(
        changed=one.changed + other.changed,
        built=one.built + other.built,
        cached=one.cached + other.cached,
        clean=one.clean + other.clean,
        failed=one.failed + other.failed,
        deleted=one.deleted + other.deleted,
    )
