"""One daemon for one project: the engine, the socket, the signals, the service manager.

Stays in the foreground.  A damaged record is set aside here and everything is opened anew; any
other surprise ends the process, and the next start recovers.
"""

import contextlib
import faulthandler
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Final

from assetd import client, recovery, words
from assetd.batch_command import BatchCommand
from assetd.control import Control
from assetd.desktop import Desktop
from assetd.engine import Engine, State
from assetd.errand import Errands
from assetd.errors import CorruptRecordError
from assetd.forkserver import ForkServer
from assetd.log import Log
from assetd.metrics import Counts
from assetd.model import Tell
from assetd.pool import Jobs, Pool
from assetd.registry import Project
from assetd.systemd import Notifier, Pulse
from assetd.trace import OFF, Trace

DAMAGE_LIMIT: Final = 3
"""So many damaged records within one life are no accident: the disk is broken."""


def serve(
    project: Project,
    tell: Tell,
    server: ForkServer,
    *,
    workers: int | None = None,
    trace: Trace = OFF,
) -> None:
    """Run the daemon of *project* until somebody ends it.  The caller holds the lock."""
    open_pool = partial(Pool, server=server)
    signals = _Signals()
    notifier = Notifier()
    # The watchdog ends us with SIGABRT: let the journal have where we hung.
    faulthandler.enable()
    notifier.status("Opening the record.")
    counts = Counts(tell if isinstance(tell, Log) else None)
    damages = 0
    while True:
        try:
            _serve_once(project, tell, signals, notifier, counts, workers, open_pool, trace)
        except CorruptRecordError as error:
            damages += 1
            if damages == DAMAGE_LIMIT:
                raise
            recovery.give_up_record(project.config, tell, error)
        else:
            return


def _serve_once(
    project: Project,
    tell: Tell,
    signals: "_Signals",
    notifier: Notifier,
    counts: Counts,
    workers: int | None,
    open_pool: Callable[..., Jobs],
    trace: Trace,
) -> None:
    config = project.config
    listeners = [tell]

    def everyone(event: str, **fields: object) -> None:
        for listener in listeners:
            listener(event, **fields)

    with trace.span("start"):
        engine = Engine(project, everyone, workers=workers, open_pool=open_pool, trace=trace)
    errands = Errands(engine.selector)
    engine.hearers += [
        counts.hear,
        BatchCommand(engine, errands).hear,
        Desktop(engine, errands).hear,
    ]
    control: Control | None = None
    state, pulse, hangs = engine.state, Pulse(), False
    if notifier.is_reloading:  # it was cut short by a record that has been set aside since
        engine.reload()
    try:
        path = client.socket_path(config.project, config.state_dir)
        control = Control(engine, path, signals.ask_to_stop, counts)
        listeners.append(control.hear)
        engine.selector.register(signals.fd, selectors.EVENT_READ, signals.drain)
        tell(
            "started",
            pid=os.getpid(),
            project=config.project,
            workers=len(engine.pool.workers),
            sandbox=engine.sandbox,
        )
        while not signals.stop:
            deadline = min(
                (t for t in (notifier.deadline(), errands.deadline()) if t is not None),
                default=None,
            )
            engine.turn(None if deadline is None else max(0.0, deadline - time.monotonic()))
            errands.tick()
            if notifier.is_due():
                gets_on = _gets_on(engine, pulse, notifier.interval)
                if hangs is gets_on:
                    hangs = not gets_on
                    _tell_hanging(engine, tell, hangs=hangs)
                busy = notifier.is_reloading or not notifier.is_ready
                notifier.alive(gets_on=gets_on, busy=busy)
            if notifier.is_reloading and engine.lookout.reload_at is None:  # taken, or refused
                notifier.ready()
            if signals.reload:
                signals.reload = False
                if notifier.is_ready:  # before that, the READY=1 that ends it would be a lie
                    notifier.reloading()
                engine.reload()
                engine.rescan()
            if engine.ready and not notifier.is_ready:
                notifier.ready()
            notifier.status(_sentence(engine))
            if engine.state is not state:
                state = engine.state
                control.hear("state", state=state.value)
        notifier.tell("STOPPING=1")
        tell("stopping")
    finally:
        if control is not None:
            control.close()
        errands.stop()
        engine.stop()


def _gets_on(engine: Engine, pulse: Pulse, interval: float) -> bool:
    now = time.monotonic()
    limit = engine.pool.deadline()
    has_work = engine.pool.waiting() + engine.pool.running() > 0 or (
        engine.state in {State.STARTING, State.BUILDING} and not engine.paused
    )
    # A scan takes a step in each turn.  A job has a limit of its own, and so has the start of a
    # worker; only when that is over and nobody has acted on it, something is wrong.
    owes = has_work and engine.trouble is None and not (limit is not None and limit > now)
    # While git holds its lock, what it writes waits.
    patience = interval + engine.layout.project.config.settle.git_seconds
    mark = (engine.generation, engine.outputs, *engine.progress())
    return pulse.beats(mark, owes=owes, patience=patience, now=now)


def _tell_hanging(engine: Engine, tell: Tell, *, hangs: bool) -> None:
    suspects, waiting, running = engine.queue()
    tell(
        "hangs" if hangs else "gets_on",
        level="error" if hangs else "info",
        state=engine.state.value,
        suspects=suspects,
        waiting=waiting,
        running=running,
    )


def _sentence(engine: Engine) -> str:
    sources = words.count(engine.standing.sources, "source")
    wrong = (
        f", {words.count(len(engine.standing.wrong), 'fails', 'fail')}"
        if engine.standing.wrong
        else ""
    )
    refused = f"  Configuration not taken: {engine.problems[0]}" if engine.problems else ""
    if engine.state is State.IDLE:
        return f"Idle: {sources}, {words.count(engine.outputs, 'output')}{wrong}.{refused}"
    return f"{engine.state.value.capitalize()}: {sources}{wrong}.{refused}"


class _Signals:
    """Signals as flags; each wakes the loop through a descriptor."""

    def __init__(self) -> None:
        self.stop = False
        self.reload = False
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)
        self.fd = self._read
        signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)

    def ask_to_stop(self) -> None:
        """As if a signal had come."""
        self.stop = True

    def drain(self, _mask: int) -> None:
        """Empty the descriptor; the flags say what came."""
        with contextlib.suppress(BlockingIOError):
            while self._read.recv(64):
                pass

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self.reload = True
        else:
            self.stop = True
