"""A worker's main: opens its processors once, then runs the jobs that come through its pipe.

Forked by `forkserver_main`, as one thread.
Standard output is not its protocol: what processors and compilers print is kept for the message
if it dies.  It ends when the pipe does.  When the owner dies, the kernel ends it and the tools
that it started, even in the middle of a compile.
"""

import contextlib
import fcntl
import mmap
import os
import select
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from assetd import registry, wire
from assetd.confinement import Bounds, Confined
from assetd.model import Diagnostic, Job, Outcome
from assetd.processor import Context, Setting
from assetd.runner import MountSetting, Runner
from assetd.store import Store

FLUSH_SECONDS: Final = 0.004
"""Outcomes are sent together for so long: below that the pipe costs more than the jobs."""

_PROGRESS: Final = struct.Struct("=qid")


def main(pipe_fd: int, progress_fd: int, lifeline_fd: int) -> None:
    """Run until the pipe ends."""
    _die_with_owner(lifeline_fd)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the owner decides when we stop
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    pipe = socket.socket(fileno=pipe_fd)
    progress = mmap.mmap(progress_fd, _PROGRESS.size)
    os.close(progress_fd)
    reader = wire.Reader()
    crew: Crew | None = None
    confined: Confined | None = None
    while True:
        # Whoever sends us a job waits for it, and nobody waits for the store.
        while crew is not None and crew.runner.unkept and not _is_readable(pipe):
            crew.runner.keep_one()
        if not (data := pipe.recv(1 << 16)):
            return
        for message in reader.feed(data):
            match message:
                case {"open": opening}:
                    try:
                        # Before a line of a plugin runs here, and while we have one thread.
                        confined = _confine(opening)
                        crew = Crew(opening, partial(_denied, confined))
                    except Exception as error:  # noqa: BLE001 - a plugin's bug: tell the owner
                        text = "".join(traceback.format_exception_only(error)).strip()
                        if (why := _denied(confined, error)) is not None:
                            text += f" ({why})"
                        pipe.sendall(wire.encode({"unfit": text}))
                        return
                    pipe.sendall(wire.encode({"ready": True, "rss": _rss_bytes()}))
                case {"jobs": rows} if crew is not None:
                    _run(crew, rows, pipe, progress)
                case {"end": True}:
                    if crew is not None:
                        crew.end()
                    return


def _is_readable(pipe: socket.socket) -> bool:
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    return bool(poll.poll(0))


def _die_with_owner(lifeline: int) -> None:
    """Have the kernel kill our process group when the owner's end of *lifeline* goes.

    Not PR_SET_PDEATHSIG: that spares the tools that we start, and fires when the thread that
    started us ends.
    """
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, os.O_ASYNC | fcntl.fcntl(lifeline, fcntl.F_GETFL))
    gone = select.poll()
    gone.register(lifeline, 0)
    if gone.poll(0):  # it died before we were on the line
        sys.exit(0)


def _confine(opening: dict[str, Any]) -> Confined | None:
    """Keep us, and all that we start, to what the owner says; None where it says nothing."""
    row = opening.get("bounds")
    if row is None:
        return None
    bounds = Bounds.of(row)
    return Confined(replace(bounds, write=(*bounds.write, opening["staging"])))


def _denied(confined: Confined | None, error: BaseException) -> str | None:
    """Why *error* is the sandbox's doing; None if it is not."""
    if confined is None:
        return None
    if isinstance(error, PermissionError) and confined.is_stale():
        # The job runs again, on a worker that may touch the new one.
        sys.exit("a folder of the project was replaced by another one")
    return confined.bounds.denied(error)


def _note(progress: mmap.mmap, job: int, node: int) -> None:
    """Say where we are: the owner reads it to know whom to blame, and whose time is up."""
    progress[:] = _PROGRESS.pack(job, node, time.monotonic())


def _run(crew: "Crew", rows: list[Any], pipe: socket.socket, progress: mmap.mmap) -> None:
    done: list[Any] = []
    sent = time.monotonic()
    for row in rows:
        job = Job.of(row)
        _note(progress, job.id, -1)
        crew.runner.at_node = partial(_note, progress, job.id)
        crew.runner.testify = lambda said: pipe.sendall(wire.encode(said))
        try:
            outcome = crew.runner.run(job)
        except Exception as error:  # noqa: BLE001 - our bug must not end the batch
            text = "".join(traceback.format_exception(error)[-3:]).strip()
            outcome = Outcome(job.id, died=Diagnostic(f"internal error: {text}"))
        done.append(outcome)
        now = time.monotonic()
        if now - sent > FLUSH_SECONDS:
            pipe.sendall(wire.encode({"outcomes": done}))
            done = []
            sent = now
    progress[:] = _PROGRESS.pack(-1, -1, 0.0)
    pipe.sendall(wire.encode({"outcomes": done, "rss": _rss_bytes()}))


class Crew:
    """The processors of one generation, opened and warm."""

    def __init__(
        self,
        opening: dict[str, Any],
        denied: Callable[[BaseException], str | None] = lambda _error: None,
    ) -> None:
        self._project = registry.open_recipe(opening["recipe"])
        self._worker: int = opening["worker"]
        config = self._project.config
        os.chdir(config.project)
        self._opened = self._project.processors
        warm: dict[str, Any] = {}
        for opened in self._opened:
            if opened.processor.start is not None:
                opened.processor.start(self._context(opened))
        for opened in self._opened:
            if opened.processor.warm is not None:
                warm[opened.processor.name] = opened.processor.warm(
                    Setting(Path(config.project), opened.options, self._worker)
                )
        self.runner = Runner(
            config.project,
            {
                m.name: MountSetting(m.folder, tuple(self._project.enabled(m)))
                for m in config.mounts
            },
            opening["staging"],
            Store(opening["store"]),
            warm,
            sync_files=opening["sync_files"],
            in_place=lambda mount: _in_place(opening["record"], mount),
            denied=denied,
        )

    def end(self) -> None:
        """Keep what is not kept yet, and run the processors' `end` hooks."""
        self.runner.keep_all()
        for opened in self._opened:
            if opened.processor.end is not None:
                opened.processor.end(self._context(opened))

    def _context(self, opened: registry.Opened) -> Context:
        config = self._project.config
        return Context(
            "worker", self._worker, Path(config.project), Path(config.out_dir), opened.options
        )


def _in_place(record: str, mount: str) -> list[tuple[str, str]]:
    from assetd.record import Reader  # SQLite: few jobs ask

    with contextlib.closing(Reader(record)) as reader:
        return list(reader.outputs_of(mount))


def _rss_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * mmap.PAGESIZE
