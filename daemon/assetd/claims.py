"""Who claims which outputs, and which claims are at odds.  Knows no record and no disk.

Two claims are at odds if they are for one output, or if one is for a folder that the other
lies in: what has a path is a file or a folder.
"""

from collections.abc import Sequence
from functools import lru_cache

from assetd.model import Source


class Claims:
    """Outputs with the sources that claim them."""

    def __init__(self) -> None:
        self._claimants: dict[str, set[Source]] = {}
        self._below: dict[str, set[str]] = {}
        """The claimed outputs in each folder, at any depth."""

    def add(self, output: str, source: Source) -> None:
        """Have *source* claim *output*."""
        known = self._claimants.get(output)
        if known is not None:
            known.add(source)
            return
        self._claimants[output] = {source}
        for folder in folders(output):
            self._below.setdefault(folder, set()).add(output)

    def discard(self, output: str, source: Source) -> None:
        """Have *source* claim *output* no more."""
        known = self._claimants.get(output)
        if known is None:
            return
        known.discard(source)
        if known:
            return
        del self._claimants[output]
        for folder in folders(output):
            outputs = self._below[folder]
            outputs.discard(output)
            if not outputs:
                del self._below[folder]

    def at_odds(self, output: str) -> Sequence[tuple[str, Source]]:
        """The claims that cannot be met beside one on *output*, in an order of their own.

        Those on the output itself come first, then those on a folder of it, the nearest first,
        then those in it.
        """
        if not self._claimants:
            return ()
        found: list[tuple[str, Source]] = []
        for path in (output, *folders(output), *sorted(self._below.get(output, ()))):
            known = self._claimants.get(path)
            if known is not None:
                found += [(path, source) for source in sorted(known)]
        return found


def folders(output: str) -> Sequence[str]:
    """The folders that an output lies in, the nearest first, without the output root."""
    return _and_above(output.rpartition("/")[0])


@lru_cache(4096)  # most outputs have a neighbour
def _and_above(folder: str) -> Sequence[str]:
    return (folder, *folders(folder)) if folder else ()
