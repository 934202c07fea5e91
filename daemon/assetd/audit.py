"""Whether what is in place is what we made: every owned output against its digest.

Knows the record and the output root, and changes neither; how things are put right again is
the engine's business.
"""

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from assetd import place as places
from assetd import publish
from assetd.model import EntryState, Output, Place, Source
from assetd.publish import Seen, There
from assetd.record import Reader

SCHEMA: Final = 1
PATIENCE_SECONDS: Final = 5.0
"""How long a change that is being published just now is waited for."""


class Fault(StrEnum):
    """How an output differs from what we made."""

    MISSING = "missing"
    EDITED = "edited"
    UNREADABLE = "unreadable"
    REPLACED = "replaced"
    """Something that is no regular file stands there, or in the way."""
    BLOCKED = "blocked"
    """What stands there is somebody else's, or was edited before its source changed."""
    NOT_MADE = "not made"
    """It was to be made again, and its source could not."""


@dataclass(frozen=True, slots=True)
class Flaw:
    """An output that is not as we made it."""

    output: str
    source: Source
    fault: Fault
    what: str | None = None
    """More of it, where the fault does not say everything."""

    def facts(self) -> dict[str, Any]:
        """The flaw as a JSON object."""
        return {
            "path": self.output,
            "source": places.join(self.source.mount, self.source.path),
            "fault": self.fault.value,
            "what": self.what,
        }


@dataclass(frozen=True, slots=True)
class Audit:
    """What an examination found."""

    out_dir: str
    """The output root, as the record has it."""
    outputs: int
    """How many are ours."""
    flaws: tuple[Flaw, ...]
    """By path."""
    foreign: int
    """Files below the output root that are not ours."""

    def facts(self) -> dict[str, Any]:
        """The audit as a JSON object."""
        return {
            "schema": SCHEMA,
            "out_dir": self.out_dir,
            "outputs": self.outputs,
            "right": self.outputs - len(self.flaws),
            "wrong": [flaw.facts() for flaw in self.flaws],
            "foreign": self.foreign,
        }


def examine(reader: Reader, project: Place, *, in_use: bool, also: Iterable[str] = ()) -> Audit:
    """Compare every owned output with its digest.

    Args:
        reader: The record.
        project: The project's folder.
        in_use: Somebody may be publishing meanwhile: what differs is looked at again.
        also: Outputs that were ours, and have to be again if anybody still makes them.

    Raises:
        FileNotFoundError: Nothing has been built yet.
    """
    known = reader.meta("out_dir")
    if known is None:
        raise FileNotFoundError(reader.path)
    out_dir = places.path(known, project)
    count = 0
    there = 0
    suspects: list[Output] = []
    for output, seen in publish.see(out_dir, reader.outputs(), _always):
        count += 1
        there += seen.there is not There.NOTHING
        if seen.digest != output.digest:
            suspects.append(output)
    found = _settled(reader, out_dir, suspects, PATIENCE_SECONDS if in_use else 0.0)
    flaws = {output.path: _flaw(output, seen) for output, seen in found}
    unplaced = {flaw.output: flaw for flaw in (*_not_made(reader, also), *_blocked(reader))}
    flaws |= unplaced
    in_the_way = sum(os.path.lexists(os.path.join(out_dir, path)) for path in unplaced)
    foreign = max(0, _files_below(out_dir) - there - in_the_way)
    return Audit(
        out_dir, count + len(unplaced), tuple(flaws[path] for path in sorted(flaws)), foreign
    )


def _settled(
    reader: Reader, out_dir: str, suspects: Sequence[Output], patience_seconds: float
) -> list[tuple[Output, Seen]]:
    """The suspects that differ for good, not because they are being published just now.

    An intent is in the record before its file is renamed, and its row after it.  So an output
    differs if its row was the same before and after the look, and no intent names it then.
    """
    deadline = time.monotonic() + patience_seconds
    found: list[tuple[Output, Seen]] = []
    waiting = list(suspects)
    while waiting:
        looked = list(publish.see(out_dir, waiting, _always))
        busy = {
            path
            for _, change in reader.intents()
            for path in (
                *(publication.output for publication in change.publish),
                *(deletion.output for deletion in change.delete),
            )
        }
        late = time.monotonic() >= deadline
        waiting = []
        for before, seen in looked:
            now = reader.output(before.path)
            if now is None or seen.digest == now.digest:
                continue
            same = now._replace(stamp=None) == before._replace(stamp=None)
            if late or (same and before.path not in busy):
                found.append((now, seen))
            else:
                waiting.append(now)
        if waiting:
            time.sleep(0.02)
    return found


def _flaw(output: Output, seen: Seen) -> Flaw:
    fault = {
        There.NOTHING: Fault.MISSING,
        There.FILE: Fault.EDITED,
        There.UNREADABLE: Fault.UNREADABLE,
        There.OTHER: Fault.REPLACED,
    }[seen.there]
    return Flaw(output.path, output.source, fault, seen.what)


def _not_made(reader: Reader, outputs: Iterable[str]) -> Iterator[Flaw]:
    """Those of *outputs* that nobody has in place and somebody should."""
    for path in outputs:
        if reader.output(path) is not None:
            continue  # it is among those that were looked at
        for source in reader.claimants(path):
            entry = reader.entry(source)
            if entry is not None and entry.state is not EntryState.OVERRIDDEN:
                yield Flaw(path, source, Fault.NOT_MADE, "`assetd errors` says why")


def _blocked(reader: Reader) -> Iterator[Flaw]:
    """The outputs that could not be put in place."""
    for entry in reader.wrong():
        if entry.state is EntryState.BLOCKED:
            what = "its place is taken" if entry.problem is None else entry.problem.message
            for path in entry.claims:
                if reader.output(path) is None:
                    yield Flaw(path, entry.source, Fault.BLOCKED, what)


def _always(_output: Output, _stamp: object) -> bool:
    return True


def _files_below(out_dir: str) -> int:
    return sum(1 for _ in _walk(out_dir))


def _walk(folder: str) -> Iterator[str]:
    """The files below *folder*, links not followed; not what we stage there."""
    waiting = [folder]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        if entry.name != publish.STAGING_NAME:
                            waiting.append(entry.path)
                    else:
                        yield entry.path
        except OSError:
            continue
