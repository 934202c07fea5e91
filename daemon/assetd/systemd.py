"""The service manager's end: `sd_notify` as datagrams.  Does nothing where there is none.

Knows signs of life and when they are due, and which service a process is; what the daemon does
meanwhile is told to it.
"""

import contextlib
import os
import re
import socket
import time
from collections.abc import Hashable
from typing import Final

STATUS_LENGTH: Final = 1000
"""Characters; a datagram of more than 4096 bytes is thrown away as a whole."""


def service_of(cgroups: str) -> tuple[str, bool] | None:
    """The service unit that a process runs as, and whether it is a user's; None if it is none.

    Args:
        cgroups: As in `/proc/PID/cgroup`.
    """
    services = re.findall(r"([^/\n]+\.service)(?=/|$)", cgroups, re.MULTILINE)
    own = [name for name in services if not name.startswith("user@")]
    return (own[-1], len(own) < len(services)) if own else None


def own_service(pid: int | str = "self") -> tuple[str, bool] | None:
    """The same of a process, if the service is assetd's and not, say, the terminal's."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            found = service_of(file.read())
    except OSError:
        return None
    return found if found is not None and found[0].startswith("assetd") else None


class Notifier:
    """Tells the service manager how we are."""

    def __init__(self) -> None:
        # Out of the environment: workers and tools are not to speak for us.
        self._address = os.environ.pop("NOTIFY_SOCKET", None)
        if self._address is not None and self._address.startswith("@"):
            self._address = "\0" + self._address[1:]
        microseconds = os.environ.pop("WATCHDOG_USEC", "")
        pid = os.environ.pop("WATCHDOG_PID", str(os.getpid()))
        ours = microseconds.isdecimal() and pid == str(os.getpid())
        self._allowed_us = int(microseconds) if ours and self._address is not None else 0
        self._next = 0.0
        self._status = ""
        self.is_ready = False
        """Whether the service manager was told that we are up: it may ask for reloads now."""
        self.is_reloading = False
        """Whether it waits for the end of a reload."""

    def tell(self, *lines: str) -> None:
        """Send some assignments: `READY=1`, `STATUS=…`."""
        if self._address is None:
            return
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as door,
        ):
            door.sendto("\n".join(lines).encode("utf-8", "replace"), self._address)

    def status(self, sentence: str) -> None:
        """Say what we are at, if it is something else than last time."""
        if sentence != self._status:
            self._status = sentence
            self.tell(f"STATUS={' '.join(sentence.split())[:STATUS_LENGTH]}")

    def ready(self) -> None:
        """The start is done, or the reload that was under way."""
        self.is_ready, self.is_reloading = True, False
        self.tell("READY=1")

    def reloading(self) -> None:
        """The configuration is being read again; `ready` is to follow."""
        self.is_reloading = True
        # In one message, and by the clock: what was sent before the signal ends no reload that
        # was asked for with it, as systemd.service(5) has it of Type=notify-reload.
        self.tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    @property
    def interval(self) -> float:
        """Seconds between two signs of life; 0.0 if nobody wants any."""
        # Half of what is allowed, as sd_watchdog_enabled(3) advises.
        return self._allowed_us / 2_000_000

    def deadline(self) -> float | None:
        """When the next sign of life is due, by the monotonic clock; None if nobody asks."""
        return self._next if self._allowed_us else None

    def is_due(self) -> bool:
        """Whether it is time for `alive`."""
        return bool(self._allowed_us) and time.monotonic() >= self._next

    def alive(self, *, gets_on: bool, busy: bool) -> None:
        """Give the sign of life that is due, or withhold it.

        Args:
            gets_on: What `Pulse` says; if not, this one falls out, and unless things pick
                up by the next the service manager restarts us.
            busy: A start or a reload is under way and its time limit runs: ask for more.
        """
        self._next = time.monotonic() + self.interval
        if gets_on:
            more = (f"EXTEND_TIMEOUT_USEC={self._allowed_us}",) if busy else ()
            self.tell("WATCHDOG=1", *more)


class Pulse:
    """Whether the owner gets on with what it has to do.

    There are two ways to hang.  The loop may not turn any more, as a plugin's hook, a dead
    disk or a bug of ours holds the owner: then nobody asks here, and no sign of life goes
    out.  Or the loop turns and nothing comes of it: jobs that no worker takes, sources that
    are never planned.  A daemon that only says that its loop turns looks well then, for
    ever.  So while work is owed, something must move: jobs done, sources seen off.

    No hang is what ends by itself or would be no better after a restart: nothing to do, a
    pause, a full disk, a long job within its own time limit.
    """

    def __init__(self) -> None:
        self._mark: Hashable = None
        self._since: float | None = None

    def beats(self, mark: Hashable, *, owes: bool, patience: float, now: float) -> bool:
        """Whether something moved within *patience* seconds, or nothing had to.

        Args:
            mark: Differs from the last one if something moved.
            owes: Whether there is work that should get on by now.
            patience: Seconds without a move that mean nothing.
            now: By the monotonic clock.
        """
        if not owes or mark != self._mark or self._since is None:
            self._mark, self._since = mark, now
        return now - self._since <= patience
