"""What is under way: the slices that are planned and not recorded.  Knows no record and no pool.

A source belongs to one slice at the most, and is *locked* for as long.  Until a slice is
recorded nobody else knows what its sources will make and what they depend on; so what they
claim is kept here, and what is heard of meanwhile.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from assetd.claims import Claims
from assetd.heard import Heard, Note
from assetd.lanes import Lane
from assetd.model import Change, Done, Entry, Place, Reason, Source
from assetd.plan import Planned
from assetd.reconcile import Finished, Reconciled


@dataclass(slots=True, eq=False)
class Slice:
    """What one plan decided, until it is recorded."""

    batch: int
    serial: int
    """Of the oldest note that led to it."""
    noted: float
    """When that was, by the monotonic clock."""
    lane: Lane
    waiting: dict[Source, Planned]
    """The jobs that have not ended."""
    drop: tuple[tuple[Entry, Reason], ...]
    restate: tuple[Entry, ...]
    before: dict[Source, Entry | None]
    """What the record says of those in *restate*."""
    finished: list[Finished] = field(default_factory=list)
    heard: int = 0
    """`Heard.count` when it began."""

    def sources(self) -> Iterator[Source]:
        """All that it is about."""
        yield from self.waiting
        yield from (each.planned.source for each in self.finished)
        yield from (entry.source for entry, _ in self.drop)
        yield from (entry.source for entry in self.restate)

    def claimers(self) -> Iterator[Planned | Entry]:
        """Who claims outputs: those in conflict too, of whom nobody else knows as yet."""
        yield from self.waiting.values()
        yield from (each.planned for each in self.finished)
        yield from self.restate

    def claims(self) -> set[str]:
        """The outputs that it may touch, once its jobs have ended."""
        found: set[str] = set()
        for each in self.finished:
            found.update(each.planned.claims, each.outcome.claims)
            if each.planned.entry is not None:
                found.update(each.planned.entry.claims)
        known = (entry for entry in self.before.values() if entry is not None)
        for entry in (*self.restate, *known, *(entry for entry, _ in self.drop)):
            found.update(entry.claims)
        return found

    def replaced(self) -> dict[Source, Entry | None]:
        """The entries as they were, once its jobs have ended."""
        found = {each.planned.source: each.planned.entry for each in self.finished}
        return found | {entry.source: entry for entry, _ in self.drop} | self.before


@dataclass(frozen=True, slots=True)
class Commit:
    """A slice that is published, and not recorded yet."""

    piece: Slice
    result: Reconciled
    intent: int
    change: Change
    """As it turned out."""
    done: Done


class Slices:
    """All that are under way."""

    def __init__(self) -> None:
        self._open: list[Slice] = []
        self._heard = Heard()
        self.locked: dict[Source, Slice] = {}
        self.claimed = Claims()

    def __len__(self) -> int:
        return len(self._open)

    def open(self, piece: Slice) -> None:
        """Begin one: its sources are locked from now on."""
        piece.heard = self._heard.count
        self._open.append(piece)
        self.locked.update(dict.fromkeys(piece.sources(), piece))
        for claimer in piece.claimers():
            for claim in claimer.claims:
                self.claimed.add(claim, claimer.source)

    def close(self, piece: Slice) -> None:
        """It is recorded or given up: its sources may be looked at again."""
        self._open.remove(piece)
        for source in piece.sources():
            self.locked.pop(source, None)
        for claimer in piece.claimers():
            for claim in claimer.claims:
                self.claimed.discard(claim, claimer.source)

    def hear(self, place: Place, serial: int, when: float) -> None:
        """Something happened at *place*: see `Heard.note`."""
        if self._open:
            self._heard.note(place, serial, when)

    def missed(self, piece: Slice, change: Change) -> list[tuple[Source, Note]]:
        """Whom of *change* something concerns that was heard of since *piece* began."""
        found = []
        if self._heard.count > piece.heard:
            for entry in change.put:
                needs = (each for node in entry.nodes for each in node.dependencies)
                note = self._heard.concerning(needs, piece.heard)
                if note is not None:
                    found.append((entry.source, note))
        if not self._open:
            self._heard.clear()
        return found

    def serials(self) -> Iterator[int]:
        """Of all of them."""
        return (piece.serial for piece in self._open)
