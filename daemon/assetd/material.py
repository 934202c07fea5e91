"""How much there is to import, folder by folder.  Knows sizes; nothing of times and trees.

A source that was never built has no time on record.  But what it imports lies mostly below its
own folder: of two, the one with more of that around it is likely to take longer.
"""

from assetd import place as places
from assetd.model import Source


class Material:
    """The bytes of partials and their like at and below each folder of a mount."""

    def __init__(self) -> None:
        self._bytes: dict[Source, int] = {}
        """By the folder: a mount and a path in it."""

    def add(self, source: Source, size: int) -> None:
        """Take *size* bytes of what is no source itself into account."""
        for folder in places.above(source.path):
            each = Source(source.mount, folder)
            self._bytes[each] = self._bytes.get(each, 0) + size

    def around(self, source: Source) -> int:
        """The bytes at and below the folder of *source*."""
        if not self._bytes:
            return 0
        return self._bytes.get(Source(source.mount, places.split(source.path)[0]), 0)

    def clear(self) -> None:
        """Forget all of it: what is built once has a time of its own."""
        self._bytes.clear()
