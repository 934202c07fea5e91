"""Worker processes and their pipes.  Knows jobs and outcomes; nothing of trees, records, files.

One pipe per worker, so a death is charged to the job that the worker held: that job runs once
more, alone, on a fresh worker, and fails if it kills that one too.  The others of its group go
back into the queue.  All of it happens on the owner's thread, in the callbacks of its selector.
"""

import contextlib
import fcntl
import mmap
import os
import selectors
import shutil
import signal
import socket
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, Protocol

from assetd import strays, testimony, wire
from assetd.forkserver import Child, ForkServer
from assetd.lanes import Lanes, Ticket
from assetd.model import Diagnostic, Outcome, Source
from assetd.trace import OFF, Trace

MEMORY_SECONDS: Final = 0.25
"""Between two looks at the memory of a worker that has a job."""
_PAGE: Final = os.sysconf("SC_PAGESIZE")
PRINTED_LIMIT: Final = 4096
"""What is kept of what a worker prints, for the message when it dies."""
BOOT_SECONDS: Final = 60.0
"""A worker that is not ready by then is started again."""
SILENT_SECONDS: Final = 60.0
"""A worker that holds jobs, is at none of them and says nothing is at fault by then."""
OVERDUE_SECONDS: Final = 1.0
"""A job that takes longer than that while others wait behind it in its group runs alone."""
LOST_LIMIT: Final = 20
"""So many workers in a row that die with a job before they are at it are no accident."""
UNFIT_LIMIT: Final = 3
"""So many workers in a row that die before they are ready: the jobs fail, saying why."""
UNFIT_SECONDS: Final = (0.02, 30.0)
"""First and longest wait before the next one is started after that; it doubles each time."""
LAST_WORDS_SECONDS: Final = 0.25
"""A worker whose pipe has ended gets so long to end by itself, so that we learn how."""

_PROGRESS: Final = struct.Struct("=qid")


class WorkerState(Enum):
    """Where a worker stands.  Every change goes through `Pool._move`."""

    STARTING = "starting"
    """The process runs and opens its processors; holds no job."""
    IDLE = "idle"
    """Ready, and holds no job."""
    BUSY = "busy"
    """Holds at least one job."""
    ENDING = "ending"
    """Was told to end; holds no job and gets none."""
    DEAD = "dead"
    """The process is gone and reaped; its jobs have been given back."""


@dataclass(slots=True)
class Worker:
    """One process; owned by the pool, read by `status`."""

    number: int
    process: Child
    lifeline: int
    """The only write end of a pipe: when it is closed, the kernel kills the worker's group."""
    pipe: socket.socket
    printed: int
    """The read end of its stdout and stderr."""
    progress: mmap.mmap
    generation: int
    state: WorkerState = WorkerState.STARTING
    since: float = 0.0
    """When it entered its state, by the monotonic clock."""
    heard: float = 0.0
    """When it last said anything or was given work."""
    held: dict[int, Ticket] = field(default_factory=dict)
    """What it was sent and has not answered, in the order of sending."""
    jobs: int = 0
    rss_bytes: int = 0
    will: testimony.Will | None = None
    """What becomes of the job that it is at, if this is its end."""
    tail: bytearray = field(default_factory=bytearray)
    reader: wire.Reader = field(default_factory=wire.Reader)
    unsent: bytearray = field(default_factory=bytearray)
    verdict: str | None = None
    """Why we killed it, if we did."""
    parted: bool = False
    """We killed it to run its jobs apart: nobody is to blame."""
    unfit: str | None = None

    def at_work(self) -> tuple[Ticket, float, str | None, float] | None:
        """The job that it is at, since when it is at its node, whose, and that one's limit.

        None if it is between jobs.
        """
        job, node, since = _PROGRESS.unpack(self.progress[: _PROGRESS.size])
        ticket = self.held.get(job)
        return None if ticket is None else (ticket, since, *ticket.node(node))


class Jobs(Protocol):
    """What an engine asks of a pool; the kit's in-process pool answers the same."""

    workers: dict[int, Worker]
    restarts: dict[int, int]

    def submit_all(self, tickets: list[Ticket]) -> None:
        """Queue jobs; the outcome of each comes through the callback, exactly once.

        Never from within this call.
        """

    def waiting(self) -> int:
        """Jobs that no worker holds yet."""

    def running(self) -> int:
        """Jobs that a worker holds."""

    def deadline(self) -> float | None:
        """When `tick` wants to be called next, by the monotonic clock."""

    def tick(self) -> None:
        """Look after what has a time limit."""

    def stop(self) -> None:
        """End the workers; jobs without an outcome are forgotten."""


class Pool:
    """A fixed number of workers, kept alive."""

    def __init__(
        self,
        size: int,
        opening: Mapping[str, Any],
        selector: selectors.BaseSelector,
        on_outcome: Callable[[Outcome], None],
        on_event: Callable[[str, dict[str, Any]], None],
        *,
        generation: int = 1,
        staging: str,
        server: ForkServer | None = None,
        trace: Trace = OFF,
        warm: bool = True,
        weigh: Callable[[Source], float] = lambda _source: 0.0,
        recycle_jobs: int = 20_000,
        recycle_bytes: int = 1 << 30,
        most_bytes: int = 3 << 30,
    ) -> None:
        """Start the workers.

        Args:
            size: How many.
            opening: What each is opened with, besides its number and its staging folder.
            selector: The owner's; our callbacks are its keys' data.
            on_outcome: Gets each outcome, on the owner's thread.
            on_event: Gets what is worth a line in the log.
            generation: Of the configuration that they are opened with.
            staging: A folder; each worker gets one of its own below it.
            server: Forks the workers, and is closed by whoever made it; None for one of our own.
            trace: Is told what each worker does, and for how long.
            warm: Start all of them now; else as many as there are jobs for, when there are.
            weigh: Of two jobs that are expected to take as long, the heavier is begun first.
            recycle_jobs: A worker is replaced after so many.
            recycle_bytes: A worker is replaced when it holds more memory than that.
            most_bytes: One that comes to hold more than that in the middle of a job is killed.
        """
        self._opening = dict(opening)
        self._selector = selector
        self._on_outcome = on_outcome
        self._on_event = on_event
        self._generation = generation
        self._staging = staging
        self._server = ForkServer(staging) if server is None else server
        self._closes_server = server is None
        self._trace = trace
        self._recycle_jobs = recycle_jobs
        self._recycle_bytes = recycle_bytes
        self._most_bytes = most_bytes
        self._looked = 0.0
        """When the workers' memory was looked at last."""
        self._lanes = Lanes(weigh)
        self._unfit = 0
        """Workers in a row that died before they were ready."""
        self._unfit_cause = ""
        self._not_before = 0.0
        self._missing: list[int] = []
        self.restarts: dict[int, int] = dict.fromkeys(range(size), 0)
        self.workers: dict[int, Worker] = {}
        if size:
            self._end_strays()  # of an owner before us, which was killed
        self._asleep = list(reversed(range(size)))
        """Workers that nobody has needed yet."""
        if warm:
            self._wake(size)

    # -- what the engine asks -------------------------------------------------------------

    def submit_all(self, tickets: list[Ticket]) -> None:
        """Queue jobs; the outcome of each comes through the callback, exactly once."""
        self._lanes.add(tickets)
        if self._asleep:
            self._wake(self.waiting() - len(self.workers))
        self._serve()

    def waiting(self) -> int:
        """Jobs that no worker holds yet."""
        return len(self._lanes)

    def running(self) -> int:
        """Jobs that a worker holds."""
        return sum(len(worker.held) for worker in self.workers.values())

    def deadline(self) -> float | None:
        """When `tick` wants to be called next, by the monotonic clock."""
        now = time.monotonic()
        times = [t for worker in self.workers.values() if (t := self._limit(worker)) is not None]
        # A worker goes from node to node without a word to us, and the next one may have less
        # time than the one that it is at: look again before that is up.
        held = [t for worker in self.workers.values() for t in worker.held.values()]
        times += [now + seconds for ticket in held for _, seconds in ticket.nodes]
        if held:
            times.append(self._looked + MEMORY_SECONDS)
        if self._missing:
            times.append(self._not_before)
        if self._hopeless() and self.waiting():
            times.append(0.0)
        return min(times, default=None)

    def tick(self) -> None:
        """Kill the workers whose time is up; start those that are missing."""
        now = time.monotonic()
        self._looked = now
        for worker in self.workers.values():
            if worker.held and worker.verdict is None and _holds(worker) > self._most_bytes:
                worker.verdict = f"took more than {self._most_bytes >> 20:,} MB of memory"
                worker.process.kill()
        for worker in list(self.workers.values()):
            limit = self._limit(worker)
            if limit is None or now < limit:
                continue
            found = worker.at_work()
            if worker.verdict is not None or worker.parted:
                pass  # it was killed already
            elif worker.state is WorkerState.STARTING:
                worker.verdict = f"was not ready after {BOOT_SECONDS:g} s"
            elif worker.state is WorkerState.ENDING:
                worker.verdict = "did not end when told to"
            elif found is None:
                worker.verdict = f"said nothing for {SILENT_SECONDS:g} s"
            elif now >= found[1] + found[3]:
                worker.verdict = f"showed no progress for {found[3]:g} s"
            else:
                worker.parted = True
            worker.process.kill()
        if self._missing and now >= self._not_before:
            missing, self._missing = self._missing, []
            for number in missing:
                self._start(number)
        if self._hopeless() and self.waiting():
            self._give_up()

    def stop(self, grace_seconds: float = 2.0) -> None:
        """End the workers; jobs without an outcome are forgotten."""
        self._lanes.clear()
        for worker in self.workers.values():
            if worker.state is WorkerState.DEAD:
                continue
            busy = bool(worker.held)
            worker.held.clear()
            if busy or worker.state is WorkerState.STARTING:
                # Nobody waits for its job any more, and it would not hear us before that.
                worker.process.kill()
            else:
                worker.pipe.setblocking(True)
                with contextlib.suppress(OSError):
                    worker.pipe.sendall(wire.encode({"end": True}))
        deadline = time.monotonic() + grace_seconds
        for worker in list(self.workers.values()):
            if worker.state is not WorkerState.DEAD:
                worker.process.wait(max(0.0, deadline - time.monotonic()))
                self._bury(worker)
        if self.workers:
            self._end_strays()
        if self._closes_server:
            self._server.close()
        self._missing.clear()

    # -- processes ------------------------------------------------------------------------

    def _wake(self, count: int) -> None:
        while self._asleep and count > 0:
            self._start(self._asleep.pop())
            count -= 1

    def _start(self, number: int) -> None:
        staging = f"{self._staging}/w{number}"
        try:
            # No more than that: a project that has gone is not to come back as an empty folder.
            for folder in (self._staging, staging):
                with contextlib.suppress(FileExistsError):
                    os.mkdir(folder)
            worker = self._spawn(number, self._environment(staging))
        except OSError as error:
            # No memory, no descriptors, no space: it may pass.
            self._missing.append(number)
            self._count_unfit(f"cannot be started: {error.strerror or error}")
            return
        worker.since = worker.heard = time.monotonic()
        self.workers[number] = worker
        for fd, callback in (
            (worker.pipe, self._on_pipe),
            (worker.printed, self._on_printed),
            (worker.process.pidfd, self._on_end),
        ):
            self._selector.register(
                fd, selectors.EVENT_READ, lambda mask, w=worker, c=callback: c(w, mask)
            )
        opening = {**self._opening, "worker": number, "staging": staging}
        self._send(worker, {"open": opening})

    def _environment(self, staging: str) -> dict[str, str]:
        """That of a worker."""
        if self._opening.get("bounds") is None:
            return dict(os.environ)
        # It may not write to /tmp, which others read from.  What the one before it has left
        # there is nobody's.
        private = f"{staging}/private"
        with contextlib.suppress(OSError):  # unless it is a folder, as it should be
            os.unlink(private)
        shutil.rmtree(private, ignore_errors=True)
        os.mkdir(private, 0o700)
        return {**os.environ, "TMPDIR": private, "XDG_CACHE_HOME": private}

    def _spawn(self, number: int, environment: dict[str, str]) -> Worker:
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:

            def keep(fd: int, where: contextlib.ExitStack) -> int:
                where.callback(os.close, fd)
                return fd

            pipe, their_pipe = socket.socketpair()
            ours.callback(pipe.close)
            theirs.callback(their_pipe.close)
            printed, printing = os.pipe()
            keep(printed, ours)
            keep(printing, theirs)
            their_lifeline, lifeline = os.pipe()
            keep(lifeline, ours)
            keep(their_lifeline, theirs)
            progress_fd = keep(
                os.memfd_create("assetd-progress", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), theirs
            )
            os.truncate(progress_fd, _PROGRESS.size)
            # Sealed: were it cut short by a worker, our next look would be our end (SIGBUS).
            fcntl.fcntl(progress_fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
            progress = mmap.mmap(progress_fd, _PROGRESS.size)
            ours.callback(progress.close)
            progress[:] = _PROGRESS.pack(-1, -1, 0.0)
            fds = (printing, their_pipe.fileno(), progress_fd, their_lifeline)
            process = self._server.fork(f"assetd-worker-{number}", fds, environment)
            ours.pop_all()
        pipe.setblocking(False)
        os.set_blocking(printed, False)
        return Worker(number, process, lifeline, pipe, printed, progress, self._generation)

    def _move(self, worker: Worker, state: WorkerState) -> None:
        worker.state = state
        worker.since = time.monotonic()

    def _on_pipe(self, worker: Worker, mask: int) -> None:
        if worker.state is WorkerState.DEAD:
            return  # buried by a callback of this very turn
        if mask & selectors.EVENT_WRITE:
            self._flush(worker)
        if not mask & selectors.EVENT_READ:
            return
        try:
            data = worker.pipe.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._on_data(worker, data)
            self._serve()
        else:
            self._on_death(worker)

    def _on_end(self, worker: Worker, _mask: int) -> None:
        """The process has ended: take what it still said, and bury it."""
        while worker.state is not WorkerState.DEAD:
            try:
                data = worker.pipe.recv(1 << 18)
            except OSError:
                data = b""
            if not data:
                self._on_death(worker)
                return
            self._on_data(worker, data)

    def _on_data(self, worker: Worker, data: bytes) -> None:
        if worker.verdict is not None:
            return  # it sent rubbish, or its time is up: what it says is worth nothing
        worker.heard = time.monotonic()
        outcomes: list[Outcome] = []
        try:
            for message in worker.reader.feed(data):
                outcomes += self._understand(worker, message)
        except (TypeError, ValueError, LookupError, AttributeError, OverflowError) as error:
            worker.verdict = f"sent rubbish ({error})"
            worker.process.kill()
        # The outcomes are the owner's business now, and so are the exceptions.
        for outcome in outcomes:
            self._on_outcome(outcome)
        if worker.state is WorkerState.BUSY and not worker.held:
            self._move(worker, WorkerState.IDLE)
            if worker.jobs >= self._recycle_jobs or worker.rss_bytes > self._recycle_bytes:
                self._recycle(worker)

    def _understand(self, worker: Worker, message: wire.Message) -> list[Outcome]:
        worker.rss_bytes = testimony.whole(message.get("rss", worker.rss_bytes))
        if "unfit" in message:
            worker.unfit = str(message["unfit"])
        if "ready" in message and worker.state is WorkerState.STARTING:
            self._unfit = 0
            self._trace.started(worker.number, worker.since, worker.process.pid)
            self._move(worker, WorkerState.IDLE)
        if "will" in message:
            worker.will = testimony.Will.of(message)
        elif "met" in message and worker.will is not None:
            worker.will.add(message)
        outcomes = [testimony.outcome(row) for row in message.get("outcomes", ())]
        staging = f"{self._staging}/w{worker.number}"
        answers: list[tuple[str, Outcome]] = []
        unanswered = dict(worker.held)
        for outcome in outcomes:
            for each in outcome.staged:
                # The owner moves it, and may move what the worker may not.
                if os.path.dirname(each.staged) != staging:
                    raise ValueError(f"{each.staged} is not in its staging")
            ticket = unanswered.pop(outcome.job, None)
            if ticket is None:
                raise ValueError(f"an outcome of job {outcome.job}, which it does not hold")
            answers.append((ticket.job.source.path, outcome))
        # Not before all of it is believed: a job that nobody holds any more has no end.
        worker.held = unanswered
        worker.jobs += len(answers)
        if answers:
            self._trace.answered(worker.number, answers)
        return outcomes

    def _recycle(self, worker: Worker) -> None:
        self._on_event(
            "worker_recycled",
            {
                "level": "info",
                "worker": worker.number,
                "jobs": worker.jobs,
                "rss_bytes": worker.rss_bytes,
            },
        )
        self._move(worker, WorkerState.ENDING)
        self._send(worker, {"end": True})

    def _on_printed(self, worker: Worker, _mask: int = 0) -> None:
        if worker.printed < 0:
            return
        try:
            data = os.read(worker.printed, 1 << 16)
        except BlockingIOError:
            return
        if not data:
            self._selector.unregister(worker.printed)
            os.close(worker.printed)
            worker.printed = -1
            return
        worker.tail += data
        if len(worker.tail) > PRINTED_LIMIT:
            del worker.tail[:-PRINTED_LIMIT]

    def _on_death(self, worker: Worker) -> None:
        blamed = worker.at_work()
        ready = worker.state is not WorkerState.STARTING
        ending = worker.state is WorkerState.ENDING
        held = list(worker.held.values())
        worker.held.clear()
        # Between jobs nobody is to blame: it may have been dead before we sent them.  Were the
        # next one its death after all, that would show, for it is sent alone from now on.
        culprit = blamed[0] if blamed is not None else next(iter(held), None)
        self._bury(worker)
        self._end_strays()
        self._sweep(worker.number, held)
        cause = _obituary(worker)
        self._trace.died(worker.number, cause)
        self._missing.append(worker.number)
        if not ending:
            self.restarts[worker.number] += 1
            self._on_event(
                "worker_died",
                {
                    "worker": worker.number,
                    "pid": worker.process.pid,
                    "cause": cause,
                    "source": None if culprit is None else culprit.job.source.path,
                },
            )
        for ticket in reversed(held):
            if ticket is not culprit:
                self._lanes.add_first(ticket)
            elif worker.parted:
                self._lanes.add_last(ticket._replace(alone=True))
            elif blamed is None and ticket.lost < LOST_LIMIT:
                again = ticket._replace(lost=ticket.lost + 1, alone=True)
                self._lanes.add_first(again)
            elif ticket.deaths == 0:
                job = ticket.job._replace(testify=True)
                again = ticket._replace(job=job, deaths=1, alone=True)
                self._lanes.add_first(again)
            else:
                where = f" in {blamed[2]}" if blamed is not None and blamed[2] else ""
                why = f"its worker {cause}{where}, twice"
                self._fail(ticket, why, transient=_may_pass(worker), will=worker.will)
        if not ready:
            self._count_unfit(cause)
        if time.monotonic() >= self._not_before:
            self.tick()
        self._serve()

    def _count_unfit(self, cause: str) -> None:
        # One that cannot start is not tried again in a tight loop, and not given up either:
        # what is wrong may be mended.
        self._unfit += 1
        self._unfit_cause = cause
        first, longest = UNFIT_SECONDS
        over = self._unfit - UNFIT_LIMIT
        wait = min(longest, first * 2 ** min(over, 30)) if over >= 0 else 0.0
        self._not_before = time.monotonic() + wait

    def _hopeless(self) -> bool:
        """Whether no worker starts any more, so that jobs would wait in vain."""
        return self._unfit >= UNFIT_LIMIT and len(self._missing) + len(self._asleep) == len(
            self.restarts
        )

    def _give_up(self) -> None:
        for ticket in self._lanes.take_all():
            why = f"the workers cannot start: {self._unfit_cause}"
            self._fail(ticket, why, transient=True)

    def _fail(
        self,
        ticket: Ticket,
        why: str,
        *,
        transient: bool,
        will: testimony.Will | None = None,
    ) -> None:
        died = Diagnostic(why, transient=transient)
        if will is None or transient or will.outcome.job != ticket.job.id:
            self._on_outcome(Outcome(ticket.job.id, died=died))
        else:
            self._on_outcome(will.carried_out(died))

    def _sweep(self, number: int, held: list[Ticket]) -> None:
        """Remove from a dead worker's staging what it made for jobs that it did not finish."""
        jobs = {str(ticket.job.id) for ticket in held}
        with contextlib.suppress(OSError), os.scandir(f"{self._staging}/w{number}") as entries:
            for entry in entries:
                if entry.name.partition("-")[0] not in jobs:
                    continue  # it waits for its slice to be published
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    os.unlink(entry.path)

    def _end_strays(self) -> None:
        live, dead = set[int](), set[int]()
        for worker in self.workers.values():
            (dead if worker.state is WorkerState.DEAD else live).add(worker.process.pid)
        for pid in strays.end(self._server.mark, live, spared=self._server.pid, killed=dead):
            self._on_event("stray_ended", {"pid": pid, "cause": "its worker is dead"})

    def _bury(self, worker: Worker) -> None:
        if worker.state is WorkerState.DEAD:
            return
        self._move(worker, WorkerState.DEAD)
        if (
            not worker.process.wait(LAST_WORDS_SECONDS)
            and worker.verdict is None
            and not worker.parted
        ):
            worker.verdict = "closed its pipe"
        # Its group too: a tool that it started must not write into staging any more.
        worker.process.kill()
        os.close(worker.lifeline)
        worker.process.wait()
        self._selector.unregister(worker.process.pidfd)
        worker.process.reap()
        self._selector.unregister(worker.pipe)
        worker.pipe.close()
        self._on_printed(worker)
        if worker.printed >= 0:
            self._selector.unregister(worker.printed)
            os.close(worker.printed)
            worker.printed = -1
        worker.progress.close()

    def _limit(self, worker: Worker) -> float | None:
        if worker.state in {WorkerState.STARTING, WorkerState.ENDING}:
            return worker.since + BOOT_SECONDS
        if worker.state is WorkerState.BUSY:
            found = worker.at_work()
            if found is None:
                return worker.heard + SILENT_SECONDS
            _, since, _, allowed = found
            return since + (min(OVERDUE_SECONDS, allowed) if len(worker.held) > 1 else allowed)
        return None

    # -- jobs -----------------------------------------------------------------------------

    def _serve(self) -> None:
        for worker in self.workers.values():
            if worker.state is not WorkerState.IDLE:
                continue
            group = self._lanes.take(len(self.workers))
            if not group:
                return
            self._move(worker, WorkerState.BUSY)
            worker.heard = worker.since
            worker.held = {ticket.job.id: ticket for ticket in group}
            self._trace.sent(worker.number, len(group))
            self._send(worker, {"jobs": [ticket.job for ticket in group]})

    def _send(self, worker: Worker, message: wire.Message) -> None:
        worker.unsent += wire.encode(message)
        self._flush(worker)

    def _flush(self, worker: Worker) -> None:
        try:
            while worker.unsent:
                sent = worker.pipe.send(worker.unsent)
                del worker.unsent[:sent]
        except BlockingIOError:
            pass
        except OSError:
            worker.unsent.clear()  # it died: reading its pipe tells us next
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if worker.unsent else 0)
        key = self._selector.get_key(worker.pipe)
        if key.events != events:
            self._selector.modify(worker.pipe, events, key.data)


def _holds(worker: Worker) -> int:
    """Bytes of memory that a worker holds now; 0 if it has gone."""
    try:
        with open(f"/proc/{worker.process.pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except OSError:
        return 0


def _may_pass(worker: Worker) -> bool:
    """Whether the cause of its death may go away by itself.

    A crash, an exit or a hang comes from the job and comes again.  SIGKILL comes from outside:
    of the kernel when there is no memory left, say.
    """
    return worker.verdict is None and worker.process.returncode in {None, -signal.SIGKILL}


def _obituary(worker: Worker) -> str:
    """How it ended, for people: `was killed by SIGSEGV`, with what it printed last."""
    code = worker.process.returncode
    if worker.parted:
        return "was ended to run its jobs one by one"
    if worker.verdict is not None:
        cause = f"{worker.verdict} and was killed"
    elif worker.unfit is not None:
        return worker.unfit
    elif code is None:
        cause = "ended, and so had its parent: nobody knows how"
    elif code < 0:
        try:
            cause = f"was killed by {signal.Signals(-code).name}"
        except ValueError:
            cause = f"was killed by signal {-code}"
    else:
        cause = f"exited with code {code}"
    last = worker.tail.decode(errors="replace").strip().rpartition("\n")[2][:200]
    return f"{cause} ({last})" if last else cause
