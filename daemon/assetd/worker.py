"""A worker's main: opens its processors once, then runs the jobs that come through its pipe.

Started by `pool` as `python -m assetd.worker FD PROGRESS_FD OWNER_PID`.  It has one thread.
Standard output is not its protocol: what processors and compilers print goes to the owner's
log.  It ends when the pipe does, and the kernel ends it when the owner dies, even in the middle
of a compile.
"""

import ctypes
import mmap
import os
import signal
import socket
import struct
import sys
import time
import traceback
from pathlib import Path
from typing import Any, Final

from assetd import registry, wire
from assetd.model import Diagnostic, Job, Outcome
from assetd.processor import Context, Setting
from assetd.runner import MountSetting, Runner
from assetd.store import Store

FLUSH_SECONDS: Final = 0.004
"""Outcomes are sent together for so long: below that the pipe costs more than the jobs."""

_PR_SET_PDEATHSIG: Final = 1
_PROGRESS: Final = struct.Struct("=qd")


def main() -> None:
    """Run until the pipe ends."""
    pipe_fd, progress_fd, owner = (int(arg) for arg in sys.argv[1:4])
    _die_with(owner)
    # Ctrl-C in a terminal reaches the whole group; the owner decides when we stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    pipe = socket.socket(fileno=pipe_fd)
    progress = mmap.mmap(progress_fd, _PROGRESS.size)
    reader = wire.Reader()
    crew: Crew | None = None
    while data := pipe.recv(1 << 16):
        for message in reader.feed(data):
            match message:
                case {"open": opening}:
                    try:
                        crew = Crew(opening)
                    except Exception as error:  # a plugin's bug; the owner must hear of it
                        text = "".join(traceback.format_exception_only(error)).strip()
                        pipe.sendall(wire.encode({"unfit": text}))
                        return
                    pipe.sendall(wire.encode({"ready": True, "rss": _rss_bytes()}))
                case {"jobs": rows} if crew is not None:
                    _run(crew, rows, pipe, progress)
                case {"end": True}:
                    if crew is not None:
                        crew.end()
                    return


def _die_with(owner: int) -> None:
    # PR_SET_PDEATHSIG fires when the thread that started us ends: the owner starts its
    # workers from its main thread.  The check closes the gap before the call.
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != owner:
        sys.exit(0)


def _run(crew: "Crew", rows: list[Any], pipe: socket.socket, progress: mmap.mmap) -> None:
    done: list[Any] = []
    sent = time.monotonic()
    for row in rows:
        job = Job.of(row)
        # The owner reads this to know which job we hold: whom to blame, whose time is up.
        progress[:] = _PROGRESS.pack(job.id, time.monotonic())
        try:
            outcome = crew.runner.run(job)
        except Exception as error:  # our own bug must not take the batch with it
            text = "".join(traceback.format_exception(error)[-3:]).strip()
            outcome = Outcome(job.id, died=Diagnostic(f"internal error: {text}"))
        done.append(outcome.row())
        now = time.monotonic()
        if now - sent > FLUSH_SECONDS:
            pipe.sendall(wire.encode({"outcomes": done}))
            done = []
            sent = now
    progress[:] = _PROGRESS.pack(-1, 0.0)
    pipe.sendall(wire.encode({"outcomes": done, "rss": _rss_bytes()}))


class Crew:
    """The processors of one generation, opened and warm."""

    def __init__(self, opening: dict[str, Any]) -> None:
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
        )

    def end(self) -> None:
        """Run the processors' `end` hooks."""
        for opened in self._opened:
            if opened.processor.end is not None:
                opened.processor.end(self._context(opened))

    def _context(self, opened: registry.Opened) -> Context:
        config = self._project.config
        return Context(
            "worker", self._worker, Path(config.project), Path(config.out_dir), opened.options
        )


def _rss_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * mmap.PAGESIZE


if __name__ == "__main__":
    main()
