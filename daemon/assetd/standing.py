"""How the project stands, kept up to date commit by commit, so that `status` costs nothing.

Owns the counts, what fails now, what was warned of and how long saves take.  The record could
tell most of it, by reading all that it has.
"""

from collections import deque
from collections.abc import Mapping

from assetd.model import Batch, Change, Entry, EntryState, Reason, Source
from assetd.record import Record

RECENT_BATCHES = 100
REASONS_KEPT = 3
"""Of each recent batch; the record has them all, but not by batch."""
_WRONG = {EntryState.FAILED, EntryState.CONFLICT, EntryState.BLOCKED}


class Standing:
    """The present state of every source, in numbers, and in full where something is wrong."""

    def __init__(self, record: Record) -> None:
        self.counts = record.count_sources()
        """Entries by mount and state."""
        self.wrong: dict[Source, Entry] = {e.source: e for e in record.wrong()}
        self.warnings: dict[Source, int] = {e.source: _warnings(e) for e in record.warned()}
        self.last_batch: Batch | None = next(iter(record.last_batches(1)), None)
        """The latest that changed anything."""
        self.latencies: deque[float] = deque(maxlen=1000)
        """Seconds from a change's first event to its commit, of the latest saves."""
        self.reasons: dict[int, list[tuple[Source, Reason]]] = {}
        """Why some of the sources of recent batches were looked into, by the batch."""

    @property
    def sources(self) -> int:
        """How many sources there are."""
        return sum(self.counts.values())

    def take(self, change: Change, before: Mapping[Source, Entry | None]) -> set[Source]:
        """Take a committed change into account; returns the sources that fail no more.

        Args:
            change: As it was committed.
            before: The entries that it replaces.
        """
        for entry in change.put:
            old = before.get(entry.source)
            if old is not None:
                self._count(old, -1)
            self._count(entry, +1)
        told = self.reasons.setdefault(change.batch, [])
        news = [(e.source, e.reason) for e in change.put if e.batch == change.batch]
        told += [*news, *change.drop][: REASONS_KEPT - len(told)]
        if len(self.reasons) > RECENT_BATCHES:
            del self.reasons[next(iter(self.reasons))]
        failed = {e.source for e in change.put if e.state in _WRONG}
        healed = {e.source for e in change.put if e.source in self.wrong} - failed
        gone = [source for source, _ in change.drop]
        for source in gone:
            old = before.get(source)
            if old is not None:
                self._count(old, -1)
        for source in (*healed, *gone):
            self.wrong.pop(source, None)
        self.wrong.update((e.source, e) for e in change.put if e.source in failed)
        for source in (*gone, *(e.source for e in change.put)):
            self.warnings.pop(source, None)
        self.warnings.update((e.source, n) for e in change.put if (n := _warnings(e)))
        return healed

    def _count(self, entry: Entry, by: int) -> None:
        key = (entry.source.mount, entry.state)
        self.counts[key] = self.counts.get(key, 0) + by


def _warnings(entry: Entry) -> int:
    return sum(len(node.warnings) for node in entry.nodes)
