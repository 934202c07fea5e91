"""One daemon for one project: the lock, the engine, the socket, the signals, the service manager.

Stays in the foreground.  A damaged record is set aside here and everything is opened anew; any
other surprise ends the process, and the next start recovers.
"""

import contextlib
import fcntl
import os
import selectors
import signal
import socket
import time
from collections.abc import Iterator
from types import FrameType
from typing import Final

from assetd import client, explain, recovery
from assetd.control import Control
from assetd.engine import Engine, State
from assetd.errors import AlreadyRunningError, RecordError
from assetd.model import Tell
from assetd.record import CorruptRecordError
from assetd.registry import Project
from assetd.systemd import Notifier

DAMAGE_LIMIT: Final = 3
"""So many damaged records within one life are no accident: the disk is broken."""


@contextlib.contextmanager
def lock(state_dir: str) -> Iterator[None]:
    """Hold the project.  The kernel lets go of it when we end, however we end.

    Raises:
        AlreadyRunningError: Somebody else holds it; the text says who.
    """
    path = os.path.join(state_dir, "lock")
    try:
        os.makedirs(state_dir, mode=0o700, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise RecordError(f"{path}: cannot be opened: {error.strerror}") from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(fd, 32).decode("ascii", "replace").strip() or "unknown"
            raise AlreadyRunningError(
                f"another assetd holds this project (pid {holder}): "
                "`assetd stop` ends it, `assetd status` asks it"
            ) from None
        with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode("ascii"), 0)
        yield
    finally:
        os.close(fd)


def serve(project: Project, tell: Tell, *, workers: int | None = None) -> None:
    """Run the daemon of *project* until somebody ends it.  The caller holds the lock."""
    signals = _Signals()
    notifier = Notifier()
    damages = 0
    while True:
        try:
            _serve_once(project, tell, signals, notifier, workers)
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
    workers: int | None,
) -> None:
    config = project.config
    engine = Engine(project, tell, workers=workers)
    control: Control | None = None
    ready = False
    try:
        path = client.socket_path(config.project, config.state_dir)
        control = Control(engine, path, signals.ask_to_stop)
        engine.selector.register(signals.fd, selectors.EVENT_READ, signals.drain)
        tell("started", pid=os.getpid(), project=config.project, workers=len(engine.pool.workers))
        while not signals.stop:
            deadline = notifier.deadline()
            engine.turn(None if deadline is None else max(0.0, deadline - time.monotonic()))
            notifier.alive()
            if signals.reload:
                signals.reload = False
                engine.reload()
                engine.rescan()
            if engine.ready and not ready:
                ready = True
                notifier.tell("READY=1")
            notifier.status(_sentence(engine))
        notifier.tell("STOPPING=1")
        tell("stopping")
    finally:
        if control is not None:
            control.close()
        engine.stop()


def _sentence(engine: Engine) -> str:
    sources = explain.count(engine.standing.sources, "source")
    wrong = (
        f", {explain.count(len(engine.standing.wrong), 'fails', 'fail')}"
        if engine.standing.wrong
        else ""
    )
    if engine.state is State.IDLE:
        return f"Idle: {sources}, {explain.count(engine.outputs, 'output')}{wrong}."
    return f"{engine.state.value.capitalize()}: {sources}{wrong}."


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
