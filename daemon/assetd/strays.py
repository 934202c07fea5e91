"""Processes that a worker has left behind, wherever they hid: found by a mark, and ended.

A worker dies with its process group, and so do the tools that it started.  What called setsid
is in no group of ours, and outlives even us; but it has the environment that it began with.
Knows processes; nothing of what they were for.
"""

import contextlib
import os
import signal
from collections.abc import Collection, Iterator
from typing import Final

MARK: Final = "ASSETD_WORKER_OF"
"""In the environment of every worker, and so of all that it starts."""


def end(
    owner: str,
    workers: Collection[int],
    *,
    spared: int | None = None,
    killed: Collection[int] = (),
) -> list[int]:
    """Kill what the workers of *owner* have left behind; returns the processes.

    Only for who holds the project: all that has its mark and does not descend from one of the
    *workers* is of a worker that is dead, ours or one of an owner before us.

    Args:
        owner: The value of the mark.
        workers: The processes of the workers that live.
        spared: A process that is left alone, but not what it has started.
        killed: Process groups that were sent SIGKILL: one with much memory takes a while to go.
    """
    wanted = os.fsencode(f"{MARK}={owner}")
    ended = []
    for pid in _processes():
        if pid in {os.getpid(), spared} or not _is_marked(pid, wanted) or _descends(pid, workers):
            continue
        with contextlib.suppress(OSError):
            if os.getpgid(pid) in killed:
                continue
            # By descriptor, and asked again: meanwhile the number may be somebody else's.
            fd = os.pidfd_open(pid)
            try:
                if _is_marked(pid, wanted):
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
                    ended.append(pid)
            finally:
                os.close(fd)
    return ended


def _processes() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def _is_marked(pid: int, wanted: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return wanted in file.read().split(b"\0")
    except OSError:
        return False  # it has gone, or is another user's


def _descends(pid: int, ancestors: Collection[int]) -> bool:
    """Whether a process is one of *ancestors*, or comes from one."""
    while pid > 1:
        if pid in ancestors:
            return True
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                pid = int(file.read().rpartition(b")")[2].split()[1])
        except OSError:
            return True  # it has gone
    return False
