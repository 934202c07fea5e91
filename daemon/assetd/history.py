"""What the record tells of now and before, as JSON objects.  Needs no daemon, and writes nothing.

The daemon's own answers about failures and batches are made here too, so that both say the same.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final, TypeAlias

from assetd import explain
from assetd import place as places
from assetd.document import shown
from assetd.errors import OutdatedRecordError, RecordError, UsageError
from assetd.model import (
    Batch,
    Dependency,
    Entry,
    EntryState,
    Kind,
    Place,
    Reason,
    Source,
)
from assetd.record import Reader
from assetd.registry import Project
from assetd.survey import Layout
from assetd.tree import TreeError

Facts: TypeAlias = dict[str, Any]

SCHEMA: Final = 1
HISTORY_LENGTH: Final = 10
"""Older builds that `why` tells of."""
_SEARCHED: Final = 20_000
"""Names that are compared with one that is unknown; more would make a typing error slow."""
_DEPARTED: Final = 500
"""Sources that went, whose trees are grown again to find out who made an output."""


class NothingBuiltError(UsageError):
    """There is no record yet."""

    def __init__(self) -> None:
        super().__init__("nothing has been built here yet: `assetd build` does it")


# -- what others tell too -----------------------------------------------------------------


def faults(entry: Entry) -> list[Facts]:
    """What is wrong with a source, one object a fault."""
    return [
        {
            "mount": entry.source.mount,
            "source": entry.source.path,
            "state": entry.state.value,
            "processor": processor,
            "message": diagnostic.message,
            "file": diagnostic.file,
            "line": diagnostic.line,
            "column": diagnostic.column,
            "excerpt": diagnostic.excerpt,
        }
        for processor, diagnostic in entry.diagnostics
    ]


def batch(batch: Batch) -> Facts:
    """A batch as a JSON object."""
    return {
        "id": batch.id,
        "trigger": batch.trigger,
        "changed": batch.changed,
        "built": batch.built,
        "cached": batch.cached,
        "clean": batch.clean,
        "failed": batch.failed,
        "deleted": batch.deleted,
        "seconds": round(batch.seconds, 4),
        "finished_at": None if batch.finished_at is None else utc(batch.finished_at),
    }


def reason(reason: Reason) -> Facts:
    """A reason as a JSON object, with its sentence."""
    return {
        "cause": reason.cause.value,
        "sentence": explain.reason(reason),
        "about": reason.about,
        "old": reason.old,
        "new": reason.new,
    }


def utc(when: float) -> str:
    """A time as JSON has it."""
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def moment(when: float) -> str:
    """The same, to the millisecond."""
    text = datetime.fromtimestamp(when, UTC).isoformat(timespec="milliseconds")
    return text.removesuffix("+00:00") + "Z"


# -- without a daemon ---------------------------------------------------------------------


@contextlib.contextmanager
def opened(state_dir: str) -> Iterator[Reader]:
    """The record, to be read.

    Raises:
        NothingBuiltError: There is none yet.
    """
    try:
        reader = Reader(os.path.join(state_dir, "record.sqlite"))
    except FileNotFoundError:
        raise NothingBuiltError from None
    try:
        yield reader
    finally:
        reader.close()


def known(project: str, state_dir: str) -> Facts:
    """What can be said while no daemon runs: some of the keys of `assetd status --json`."""
    facts: Facts = {"schema": SCHEMA, "state": "stopped", "project": project}
    try:
        with opened(state_dir) as reader:
            counts = reader.count_sources()
            mounts = dict.fromkeys(mount for mount, _ in counts)
            last = reader.last_batches(1)
            return {
                **facts,
                "sources": sum(counts.values()),
                "outputs": reader.count_outputs(),
                "overridden": sum(
                    number
                    for (_, state), number in counts.items()
                    if state is EntryState.OVERRIDDEN
                ),
                "mounts": [
                    {"path": name, "sources": sum(n for (m, _), n in counts.items() if m == name)}
                    for name in mounts
                ],
                "last_batch": batch(last[0]) if last else None,
                "errors": [fault for entry in reader.wrong() for fault in faults(entry)],
                "warnings": sum(len(n.warnings) for e in reader.warned() for n in e.nodes),
            }
    except NothingBuiltError:
        return facts
    except OutdatedRecordError as error:
        return {**facts, "outdated": str(error)}
    except RecordError as error:
        return {**facts, "trouble": str(error)}


def errors(state_dir: str) -> list[Facts] | None:
    """What failed when the record was last written; None if nothing was ever built."""
    try:
        with opened(state_dir) as reader:
            return [fault for entry in reader.wrong() for fault in faults(entry)]
    except NothingBuiltError:
        return None


# -- why ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Subject:
    """What a path turned out to name."""

    place: Place
    source: Source | None = None
    """None: a file that sources depend on."""
    output: str | None = None
    """The output that was asked for, if it was one."""
    gone: bool = False


def why(project: Project, path: str, cwd: str) -> Facts:
    """All that is known of a source, an output, or a file that others depend on.

    Args:
        project: Whose.
        path: Absolute, relative to *cwd*, to the project, to the output root or to a mount.
        cwd: Absolute.

    Raises:
        UsageError: Nothing of that name is known; the text says what may have been meant.
    """
    layout = Layout(project)
    with opened(project.config.state_dir) as reader:
        subject = find(reader, layout, path, cwd)
        if subject.source is None:
            return _of_dependency(reader, layout, subject.place)
        return _of_source(reader, layout, subject, subject.source)


def readings(path: str, cwd: str, project: str) -> list[str]:
    """The absolute paths that *path* may stand for, the likeliest first."""
    found = [os.path.normpath(os.path.join(base, path)) for base in (cwd, project)]
    # A mount may be reached through a link; it is known by its real folder.
    real = [
        os.path.join(os.path.realpath(os.path.dirname(full)), os.path.basename(full))
        for full in found
    ]
    return list(dict.fromkeys(found + real))


def find(reader: Reader, layout: Layout, path: str, cwd: str) -> Subject:
    """What *path* names: a source first, then an output, then what others depend on."""
    full = readings(path, cwd, layout.root)
    at = [places.of(each, layout.root) for each in full]
    sources = [(place, layout.locate(place)) for place in at]
    relative = os.path.normpath(path)
    sources += [
        (layout.place(source), source)
        for source in (Source(mount, relative) for mount in layout.mounts)
        if not os.path.isabs(path)
    ]
    for place, source in sources:
        if source is not None and reader.entry(source) is not None:
            return Subject(place, source)
    root = layout.project.config.out_dir
    outputs = [os.path.relpath(each, root) for each in full if places.is_below(each, root)]
    outputs += [] if os.path.isabs(path) else [relative]
    for output in outputs:
        owner = _owner(reader, layout, output)
        if owner is not None:
            return Subject(layout.place(owner), owner, output)
    for place in at:
        if reader.dependents(place):
            return Subject(place)
    for place, source in sources:
        if source is not None and reader.history(source, 1):
            return Subject(place, source, gone=True)
    for output in outputs:
        owner = _maker_that_went(reader, layout, output)
        if owner is not None:
            return Subject(layout.place(owner), owner, output, gone=True)
    for place, source in sources:
        if source is not None and os.path.isfile(layout.path(source)):
            return _unrecorded(layout, place, source)
    folder = next((place for each, place in zip(full, at, strict=True) if os.path.isdir(each)), "")
    if folder:
        raise UsageError(f"{shown(folder)} is a folder: name a file")
    entries = (layout.place(entry.source) for entry in islice(reader.entries(), _SEARCHED))
    placed = (output.path for output in islice(reader.outputs(), _SEARCHED))
    near = _near(relative, [*entries, *placed])
    hint = f": did you mean {' or '.join(map(shown, near))}?" if near else ""
    raise UsageError(f"{shown(path)} is no source, no output, and nothing depends on it{hint}")


def _owner(reader: Reader, layout: Layout, output: str) -> Source | None:
    """Whose an output is: of who made what is there, else of who comes first."""
    placed = reader.output(output)
    if placed is not None:
        return placed.source
    rank = {name: number for number, name in enumerate(layout.mounts)}
    claimants = sorted(reader.claimants(output), key=lambda s: (rank.get(s.mount, 99), s))
    return claimants[0] if claimants else None


def _maker_that_went(reader: Reader, layout: Layout, output: str) -> Source | None:
    """The source, gone by now, whose tree would end in *output*."""
    for source in dict.fromkeys(reader.departed(_DEPARTED)):
        with contextlib.suppress(TreeError):
            tree = layout.tree(source)
            if tree is not None and any(name == output for name, _ in tree.leaves):
                return source
    return None


def _unrecorded(layout: Layout, place: Place, source: Source) -> Subject:
    """A file in a mount of which the record knows nothing."""
    mount = layout.mounts[source.mount]
    parts = source.path.split("/")
    folders = ("/".join(parts[:depth]) for depth in range(1, len(parts)))
    ignored = layout.ignored(mount, source.path, is_folder=False) or any(
        layout.ignored(mount, folder, is_folder=True) for folder in folders
    )
    if ignored:
        raise UsageError(f"{shown(place)} is ignored: by a pattern of `ignore`, or always")
    try:
        if layout.tree(source) is None:
            return Subject(place)  # to be included only, and nobody does
    except TreeError:
        pass
    raise UsageError(f"{shown(place)} has not been built yet: `assetd build` does it")


def _near(name: str, known: Sequence[str]) -> list[str]:
    """Up to three of *known* that somebody who wrote *name* may have meant."""
    import difflib

    last = os.path.basename(name)
    same = sorted({each for each in known if os.path.basename(each) == last})
    return same[:3] or difflib.get_close_matches(name, dict.fromkeys(known), 3, 0.7)


def _of_dependency(reader: Reader, layout: Layout, place: Place) -> Facts:
    """The story of a file that is no source of its own."""
    dependents = reader.dependents(place)
    entries = [entry for entry in map(reader.entry, dependents) if entry is not None]
    recorded = {
        dependency.digest
        for entry in entries
        for node in entry.nodes
        for dependency in node.dependencies
        if dependency.kind is Kind.FILE and dependency.place == place
    }
    digest = next(iter(recorded), None) if len(recorded) == 1 else None
    there = os.path.isfile(places.path(place, layout.root))
    latest = max(
        (entry for entry in entries if entry.reason.about == place),
        key=lambda entry: entry.batch,
        default=None,
    )
    return {
        "schema": SCHEMA,
        "kind": "dependency",
        "path": place,
        "state": "there" if there else "absent",
        "digest": digest,
        "dependents": sorted(layout.place(source) for source in dependents),
        "reason": None if latest is None else reason(latest.reason),
        "batch": None if latest is None else _batch(reader, latest.batch),
        "errors": [fault for entry in entries for fault in faults(entry) if fault["file"] == place],
    }


def _of_source(reader: Reader, layout: Layout, subject: Subject, source: Source) -> Facts:
    """The story of a source, or of the output that was asked for."""
    place = layout.place(source)
    entry = reader.entry(source)
    story: Facts = {
        "schema": SCHEMA,
        "kind": "source" if subject.output is None else "output",
        "path": place if subject.output is None else subject.output,
        "source": place,
        "mount": source.mount,
    }
    past = _past(reader, source)
    if entry is None:
        latest, *older = past
        return {
            **story,
            "state": "gone",
            "reason": latest["reason"],
            "batch": latest["batch"],
            "dependents": sorted(map(layout.place, reader.dependents(place))),
            "history": older,
        }
    overridden = entry.state is EntryState.OVERRIDDEN and entry.problem is not None
    return {
        **story,
        "state": entry.state.value,
        "digest": entry.digest,
        "outputs": [_output(reader, claim, source) for claim in entry.claims],
        "chain": _chain(entry),
        "reason": reason(entry.reason),
        "batch": _batch(reader, entry.batch),
        "seconds": round(entry.seconds, 6),
        "depends_on": _needs(entry),
        "dependents": sorted(map(layout.place, reader.dependents(place))),
        "history": past,
        "errors": faults(entry),
        "warnings": [str(warning) for node in entry.nodes for warning in node.warnings],
        "overridden_by": entry.problem.file if overridden and entry.problem else None,
        "overrides": _overrides(reader, layout, entry),
    }


def _output(reader: Reader, claim: str, source: Source) -> Facts:
    placed = reader.output(claim)
    ours = placed is not None and placed.source == source
    return {"path": claim, "in_place": ours, "digest": placed.digest if ours and placed else None}


def _chain(entry: Entry) -> list[Facts]:
    return [
        {
            "processor": node.processor,
            "path": node.path,
            "made": [made.name for made in node.made],
            "state": node.state.value,
            "seconds": round(node.seconds, 6),
            "version": node.version,
        }
        for node in entry.nodes
    ]


def _needs(entry: Entry) -> Facts:
    every: dict[tuple[Kind, Place, str], Dependency] = {
        dependency.key: dependency for node in entry.nodes for dependency in node.dependencies
    }
    files = [d for d in every.values() if d.kind is Kind.FILE]
    return {
        "files": [{"path": d.place, "digest": d.digest} for d in files if d.digest is not None],
        "globs": [
            {"folder": d.place, "pattern": d.pattern, "digest": d.digest}
            for d in every.values()
            if d.kind is not Kind.FILE
        ],
        "absent": sum(d.digest is None for d in files),
    }


def _overrides(reader: Reader, layout: Layout, entry: Entry) -> list[Place]:
    """Who is overridden by this source, as far as its path and outputs show."""
    others = {Source(mount, entry.source.path) for mount in layout.mounts}
    for claims in reader.at_odds(entry.claims).values():
        others.update(source for _, source in claims)
    found = [reader.entry(source) for source in others - {entry.source}]
    place = layout.place(entry.source)
    return sorted(
        layout.place(other.source)
        for other in found
        if other is not None
        and other.state is EntryState.OVERRIDDEN
        and other.problem is not None
        and other.problem.file == place
    )


def _past(reader: Reader, source: Source) -> list[Facts]:
    return [
        {
            "batch": _batch(reader, number),
            "reason": reason(why),
            "result": result,
            "seconds": round(seconds, 6),
        }
        for number, why, result, seconds in reader.history(source, HISTORY_LENGTH)
    ]


def _batch(reader: Reader, number: int) -> Facts:
    found = reader.batch(number)
    return {"id": number, "trigger": None} if found is None else batch(found)
