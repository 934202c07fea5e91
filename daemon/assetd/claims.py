"""Who claims which outputs, and which claims are at odds.  Knows no record and no disk.

Two claims are at odds if they are for one output, or if one is for a folder that the other
lies in: what has a path is a file or a folder.
"""

from collections.abc import Iterator

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

    def at_odds(self, output: str) -> Iterator[tuple[str, Source]]:
        """The claims that cannot be met beside one on *output*, in an order of their own.

        Those on the output itself come first, then those on a folder of it, the nearest first,
        then those in it.
        """
        for path in (output, *folders(output), *sorted(self._below.get(output, ()))):
            known = self._claimants.get(path)
            if known is not None:
                yield from ((path, source) for source in sorted(known))


def folders(output: str) -> Iterator[str]:
    """The folders that an output lies in, the nearest first, without the output root."""
    end = output.rfind("/")
    while end > 0:
        yield output[:end]
        end = output.rfind("/", 0, end)
