"""The one door into the owner's thread, and when a change that came through it is ripe.

Observer threads and signal handlers post notes; only the owner takes them out.  `Settling` is
pure: it is told what happened when, and says what is ready.
"""

import contextlib
import os
from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from assetd.model import Place

T = TypeVar("T")


class Inbox(Generic[T]):
    """Notes from other threads.  No lock: a deque's append and popleft are atomic."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._notes: deque[T] = deque()
        self._rung = False

    def post(self, note: T) -> None:
        """Leave a note; from any thread.  Wakes the owner unless somebody just did."""
        self._notes.append(note)
        if not self._rung:
            self._rung = True
            os.eventfd_write(self.fd, 1)

    def take(self, limit: int) -> list[T]:
        """The oldest notes, at most *limit*; only for the owner.

        While some are left the descriptor stays ready, so that the owner comes back.
        """
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.fd)
        # Before the notes are taken: a post that comes in between rings once too often,
        # which is harmless; the other order would lose the ring.
        self._rung = False
        taken: list[T] = []
        while self._notes and len(taken) < limit:
            taken.append(self._notes.popleft())
        if self._notes:
            os.eventfd_write(self.fd, 1)
        return taken

    def __len__(self) -> int:
        return len(self._notes)

    def close(self) -> None:
        """Let go of the descriptor."""
        os.close(self.fd)


class Hint(Enum):
    """What an event says about a path.  A hint: the disk is the truth."""

    FINISHED = "finished"
    """A writer closed it, or it was moved here whole."""
    TOUCHED = "touched"
    """Created, written to or changed in its attributes; a writer may still be at it."""
    GONE = "gone"
    """Deleted or moved away; an editor may be about to put it back."""


@dataclass(slots=True)
class Pending:
    """A place that waits, and since when."""

    hint: Hint
    first: float
    """When it was first noted, by the monotonic clock."""
    last: float
    serial: int
    """Of its first note."""


class Settling:
    """Suspects that wait until whoever writes them is likely to be done."""

    BURST = 4
    """So many paths within the quiet gap are a burst: gather them."""
    OPEN_FACTOR = 4.0
    """A file that is still open for writing gets so many times the gap and the patience."""

    def __init__(
        self, gap_seconds: float, patience_seconds: float, deletion_seconds: float
    ) -> None:
        self._gap = gap_seconds
        self._patience = patience_seconds
        self._deletion = deletion_seconds
        self._pending: dict[Place, Pending] = {}
        self._recent: deque[float] = deque(maxlen=self.BURST)
        self._forced_below = 0

    def retune(self, gap_seconds: float, patience_seconds: float, deletion_seconds: float) -> None:
        """Go on with other numbers; what waits goes on waiting."""
        self._gap = gap_seconds
        self._patience = patience_seconds
        self._deletion = deletion_seconds

    def note(self, place: Place, hint: Hint, now: float, serial: int) -> None:
        """Something happened at *place*; *serial* grows with each note."""
        self._recent.append(now)
        known = self._pending.get(place)
        if known is None:
            self._pending[place] = Pending(hint, now, now, serial)
        else:
            known.hint = hint
            known.last = now

    def ready(self, now: float) -> list[tuple[Place, Pending]]:
        """Take out the places whose time has come."""
        ripe = [(p, each) for p, each in self._pending.items() if now >= self._due(each)]
        for place, _ in ripe:
            del self._pending[place]
        return ripe

    def force(self, serial: int) -> None:
        """What was noted up to *serial* is ready now: somebody waits for it."""
        self._forced_below = max(self._forced_below, serial + 1)

    def deadline(self) -> float | None:
        """When something becomes ready if nothing more happens."""
        return min((self._due(each) for each in self._pending.values()), default=None)

    def oldest(self) -> int | None:
        """The lowest serial that still waits."""
        first = next(iter(self._pending.values()), None)  # they came in the order of serials
        return None if first is None else first.serial

    def __len__(self) -> int:
        return len(self._pending)

    def _due(self, pending: Pending) -> float:
        if pending.serial < self._forced_below:
            return 0.0
        if pending.hint is Hint.GONE:
            return pending.last + self._deletion
        if pending.hint is Hint.TOUCHED:
            return min(
                pending.last + self.OPEN_FACTOR * self._gap,
                pending.first + self.OPEN_FACTOR * self._patience,
            )
        burst = len(self._recent) == self.BURST and self._recent[-1] - self._recent[0] < self._gap
        if not burst:
            return 0.0
        return min(self._recent[-1] + self._gap, pending.first + self._patience)
