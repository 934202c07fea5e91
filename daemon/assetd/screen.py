"""The live view of `assetd status --watch`: a terminal, a daemon that may come and go, a loop.

What is on the screen is decided by `present.live`; this draws it, again when something happened
and once a second.
"""

import contextlib
import os
import select
import shutil
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final, Self

from assetd import client, present
from assetd.errors import AssetdError, DeadlineError, NotRunningError, UsageError

REFRESH_SECONDS: Final = 1.0
"""Between two looks while nothing happens: it is not for nothing that a clock is shown."""
SHORTEST_SECONDS: Final = 0.1
"""Between two looks while much happens; faster than that nobody reads."""
BATCHES: Final = 30

_ENTER: Final = "\x1b[?1049h\x1b[?25l"
"""The other screen, and no cursor."""
_LEAVE: Final = "\x1b[?25h\x1b[?1049l"


def watch(connect: Callable[[], client.Connection], *, color: bool) -> int:
    """Keep the status on the screen until `q` or Ctrl-C; returns the exit code.

    Args:
        connect: Opens a connection; raises NotRunningError where no daemon is.
        color: Whether to use colours.

    Raises:
        UsageError: There is no terminal to draw on.
        NotRunningError: No daemon runs, to begin with.
    """
    if not sys.stdout.isatty():
        raise UsageError(
            "--watch needs a terminal: `assetd status --json` and `assetd events` do without"
        )
    view = _View(connect)
    with view, _screen():
        while True:
            size = shutil.get_terminal_size()
            lines = present.live(view.status, size.columns, size.lines, color=color)
            sys.stdout.write("\x1b[H" + "\x1b[K\r\n".join(lines) + "\x1b[K\x1b[J")
            sys.stdout.flush()
            if view.wait():
                return 0


class _View:
    """What the daemon said last, and what may change it."""

    def __init__(self, connect: Callable[[], client.Connection]) -> None:
        self._connect = connect
        self._open: contextlib.ExitStack = contextlib.ExitStack()
        self._asking: client.Connection | None = None
        self._events: client.Connection | None = None
        self._keys = sys.stdin.fileno() if sys.stdin.isatty() else None
        self._resized, self._resize = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.status: dict[str, Any] = {}
        self._join()
        self._look()

    def __enter__(self) -> Self:
        signal.signal(signal.SIGWINCH, self._on_resize)
        return self

    def __exit__(self, *_error: object) -> None:
        signal.signal(signal.SIGWINCH, signal.SIG_DFL)
        self._open.close()
        os.close(self._resized)
        os.close(self._resize)

    def _on_resize(self, _number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(OSError):
            os.write(self._resize, b"\0")

    def _join(self) -> None:
        asking = self._open.enter_context(contextlib.closing(self._connect()))
        events = self._open.enter_context(contextlib.closing(self._connect()))
        events.subscribe()
        self._asking, self._events = asking, events

    def _look(self) -> None:
        if self._asking is None:
            return
        deadline = time.monotonic() + 10.0
        self.status = self._asking.ask("status", deadline=deadline, recent=BATCHES)

    def _leave(self) -> None:
        self._open.close()
        self._asking = self._events = None
        self.status = {**self.status, "state": "stopped"}

    def wait(self) -> bool:
        """Wait until there may be something new, and look; True when the user has enough."""
        began = time.monotonic()
        if self._news(REFRESH_SECONDS):
            return True
        # What comes now is looked at in one go.
        while (left := began + SHORTEST_SECONDS - time.monotonic()) > 0:
            if self._news(left):
                return True
        try:
            if self._asking is None:
                self._join()
            self._look()
        except (NotRunningError, DeadlineError):
            self._leave()
        return False

    def _news(self, seconds: float) -> bool:
        """Wait for an event, a key or another size; True for the keys that end it."""
        doors: list[Any] = [self._resized]
        doors += [] if self._keys is None else [self._keys]
        doors += [] if self._events is None else [self._events]
        ready, _, _ = select.select(doors, [], [], seconds)
        if self._resized in ready:
            os.read(self._resized, 64)
        if self._events is not None and self._events in ready:
            try:
                self._events.drain()
            except AssetdError:
                self._leave()
        if self._keys is not None and self._keys in ready:
            typed = os.read(self._keys, 64)
            return not typed or b"q" in typed or b"\x03" in typed
        return False


@contextlib.contextmanager
def _screen() -> Iterator[None]:
    """The other screen of the terminal, and keys as they are typed; put back at the end."""
    keys = sys.stdin.fileno() if sys.stdin.isatty() else None
    before = None if keys is None else termios.tcgetattr(keys)
    sys.stdout.write(_ENTER)
    try:
        if keys is not None:
            tty.setcbreak(keys)
        yield
    finally:
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()
        if keys is not None and before is not None:
            termios.tcsetattr(keys, termios.TCSADRAIN, before)
