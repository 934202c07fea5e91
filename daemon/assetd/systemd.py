"""The service manager's end: `sd_notify` as a datagram.  Does nothing where there is none."""

import contextlib
import os
import socket
import time


class Notifier:
    """Tells the service manager how we are."""

    def __init__(self) -> None:
        self._address = os.environ.pop("NOTIFY_SOCKET", None)
        if self._address is not None and self._address.startswith("@"):
            self._address = "\0" + self._address[1:]
        microseconds = os.environ.pop("WATCHDOG_USEC", None)
        pid = os.environ.pop("WATCHDOG_PID", str(os.getpid()))
        # Half of what is allowed, as sd_watchdog_enabled(3) advises.
        ours = microseconds is not None and pid == str(os.getpid())
        self._interval = int(microseconds or 0) / 2_000_000 if ours else None
        self._next = 0.0
        self._status = ""

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
            self.tell(f"STATUS={sentence}")

    def deadline(self) -> float | None:
        """When the next sign of life is due, by the monotonic clock; None if nobody asks."""
        return None if self._interval is None or self._address is None else self._next

    def alive(self) -> None:
        """The loop went round: say so, if it is time."""
        if self._interval is not None and time.monotonic() >= self._next:
            self._next = time.monotonic() + self._interval
            self.tell("WATCHDOG=1")
