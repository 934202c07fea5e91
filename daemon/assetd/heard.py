"""What changed while jobs were under way.  Knows places; nothing of jobs, slices and records.

What a job depends on is known to nobody before it is recorded.  A change that comes after the
job has looked and before that concerns nobody as far as the record can tell, so it is kept here
until all that is under way is recorded.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from assetd import place as places
from assetd.model import Dependency, Kind, Place


class Note(NamedTuple):
    """A change of a file, or a look at all that is in a folder."""

    number: int
    """Counts all notes."""
    serial: int
    """Of whoever waits for it."""
    when: float
    """By the monotonic clock."""


class Heard:
    """The changes since it was cleared."""

    def __init__(self) -> None:
        self.count = 0
        """What a slice that begins now has to remember."""
        self._notes: dict[Place, Note] = {}
        self._within: dict[Place, Note] = {}
        """The last one in each folder, at any depth."""

    def note(self, place: Place, serial: int, when: float) -> None:
        """Something happened at *place*, a file's or a folder's; the empty one is everything."""
        known = self._notes.get(place)
        note = Note(self.count, serial if known is None else min(serial, known.serial), when)
        self.count += 1
        self._notes[place] = note
        for folder in _on_the_way(place):
            self._within[folder] = note

    def clear(self) -> None:
        """Forget them: nothing is under way any more."""
        self._notes.clear()
        self._within.clear()

    def concerning(self, dependencies: Iterable[Dependency], since: int) -> Note | None:
        """A change since *since*, a former `count`, that may be of one of *dependencies*."""
        if self.count == since:
            return None
        for each in dependencies:
            if each.kind is Kind.GLOB:
                within = self._within.get(each.place)
                if within is not None and within.number >= since:
                    return within
            elif each.kind is not Kind.FILE:
                continue  # what is in place is asked for when nothing else is under way
            for place in _on_the_way(each.place):
                note = self._notes.get(place)
                if note is not None and note.number >= since:
                    return note
        return None


def _on_the_way(place: Place) -> Iterator[Place]:
    """The place itself, the folders above it, and the empty place, which stands for all."""
    yield place
    yield from places.above(place)
    yield ""
