"""The links that lead nowhere, and where they would lead.  Knows no project.

What they lead to may come, and no event of the kernel names the link then.
"""

from collections.abc import Iterator
from os.path import exists

from assetd import place as places
from assetd.model import Place


class Awaited:
    """Places at which something may appear that sources lead to."""

    def __init__(self, root: str) -> None:
        """Begin with none.

        Args:
            root: The project's folder.
        """
        self._root = root
        self._targets: dict[Place, Place] = {}
        """By link."""

    def __contains__(self, place: Place) -> bool:
        return place in self._targets.values()

    def add(self, link: Place, target: Place) -> None:
        """Wait for *target*."""
        self._targets[link] = target

    def discard(self, link: Place) -> None:
        """There is no such link any more."""
        self._targets.pop(link, None)

    def folders(self) -> set[Place]:
        """The folders in which something may appear."""
        return {places.split(target)[0] for target in self._targets.values()}

    def any_below(self, folder: Place) -> bool:
        """Whether anything in *folder*, or that itself, is waited for."""
        return any(places.is_below(target, folder) for target in self._targets.values())

    def leading_to(self, place: Place) -> Iterator[Place]:
        """The links to what is at or below *place*; a link that leads somewhere now is let go."""
        for link, target in list(self._targets.items()):
            if places.is_below(target, place):
                if exists(places.path(link, self._root)):
                    del self._targets[link]
                yield link
