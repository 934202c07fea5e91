"""What must be done, and why.  Pure: suspects and what is known of them in, plan out.

The reasons and the decision come from one walk, `why`: a source is dirty if the walk finds a
reason.  Precedence between mounts and conflicts within one are decided here too, from who
claims which output, never from who came first.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from assetd.claims import Claims
from assetd.model import (
    Cause,
    Diagnostic,
    Digest,
    Entry,
    EntryState,
    Kind,
    NodeRecord,
    NodeState,
    Output,
    Place,
    Reason,
    Source,
    Stamp,
)
from assetd.tree import Tree, TreeError


class Sighting(NamedTuple):
    """What a look at a source's file has shown."""

    stamp: Stamp | None
    """None: it is not there."""
    digest: Digest | None = None
    """None: nobody looked inside; if the stamp moved, the content may have changed."""
    racy: bool = False
    """The stamp proves nothing about later."""


class Version(NamedTuple):
    """What of a processor is part of a node's key."""

    version: str
    options: Digest


class View(Protocol):
    """What a plan is made from: the record, the disk and the configuration, as functions."""

    def entry(self, source: Source) -> Entry | None:
        """What the record holds of it."""

    def sighting(self, source: Source) -> Sighting:
        """What its file is like now."""

    def tree(self, source: Source) -> Tree | None:
        """Its processing tree; None if it is no source (any more).  Raises TreeError."""

    def version(self, source: Source, processor: str) -> Version | None:
        """The processor as the source's mount has it."""

    def now(self, key: tuple[Kind, Place, str]) -> Digest | None:
        """What a dependency holds now."""

    def at_odds(self, output: str) -> Sequence[tuple[str, Source]]:
        """The claims at odds with one on *output*, by the record or of jobs under way.

        See `Claims.at_odds`.
        """

    def in_place(self, output: str) -> Output | None:
        """What the record knows to be published there."""

    def locked(self, source: Source) -> bool:
        """Whether a job for it is under way."""


class Planned(NamedTuple):
    """A source that a worker must look at."""

    source: Source
    entry: Entry | None
    reasons: tuple[Reason, ...]
    """At least one; the first is the one that people are told."""
    claims: tuple[str, ...]
    nodes: tuple[NodeRecord, ...] = ()
    """Its tree's, in order, as they are on record if nothing becomes of the job."""
    stamp: Stamp | None = None
    """Of its file when it was planned; None: it proves nothing."""


class Plan(NamedTuple):
    """What must be done about some suspects."""

    jobs: tuple[Planned, ...] = ()
    drop: tuple[tuple[Entry, Reason], ...] = ()
    """Entries whose sources are gone."""
    restate: tuple[Entry, ...] = ()
    """Entries that change without a job: overridden, in conflict, without a sane tree."""
    refresh: tuple[tuple[Source, Stamp], ...] = ()
    """Stamps that moved over contents that did not."""
    deferred: tuple[Source, ...] = ()
    """Sources that must wait for a job that is under way."""
    clean: int = 0
    """Suspects that turned out to be as they were."""


@dataclass(slots=True)
class _Candidate:
    source: Source
    entry: Entry | None
    tree: Tree | None
    error: TreeError | None
    there: bool
    claims: tuple[str, ...]
    neighbours: set[Source] = field(default_factory=set)
    state: EntryState = EntryState.OK
    problem: Diagnostic | None = None


def why(
    entry: Entry | None, tree: Tree, sighting: Sighting, view: View, source: Source
) -> Iterator[Reason]:
    """The reasons for which *source* must be looked at; none if all is as it was."""
    if entry is None:
        yield Reason(Cause.NEW)
        return
    if entry.state is EntryState.OVERRIDDEN:
        yield Reason(Cause.NO_LONGER_OVERRIDDEN)
    elif entry.state is EntryState.CONFLICT:
        yield Reason(Cause.CONFLICT_ENDED)
    elif entry.state is EntryState.BLOCKED or (
        entry.problem is not None and entry.problem.transient
    ):
        yield Reason(Cause.RETRY)
    if (entry.stamp is None or sighting.stamp != entry.stamp) and (
        sighting.digest is None or sighting.digest != entry.digest
    ):
        yield Reason(Cause.SOURCE_CHANGED, source.path, entry.digest, sighting.digest)
    if entry.state is EntryState.FAILED and entry.reason.cause is Cause.TREE_BROKEN:
        yield Reason(Cause.TREE_CHANGED, None, "none", _chain(_pairs(tree)))
    planned = _pairs(tree)
    recorded = [(node.processor, node.path) for node in entry.nodes]
    if recorded and planned != recorded:
        yield Reason(Cause.TREE_CHANGED, None, _chain(recorded), _chain(planned))
    elif not tree.bypass and recorded and {n for n, _ in tree.leaves} != set(entry.claims):
        yield Reason(Cause.TREE_CHANGED, None, _names(entry.claims), _names(tree.leaves))
    for node in entry.nodes:
        version = view.version(source, node.processor)
        if version is None:
            continue  # the tree has changed
        if node.version != version.version:
            yield Reason(Cause.VERSION_CHANGED, node.processor, node.version, version.version)
        if node.options != version.options:
            yield Reason(Cause.OPTIONS_CHANGED, node.processor, node.options, version.options)
        if node.state is NodeState.WAITING:
            continue  # it is asked after the one before it
        for dependency in node.dependencies:
            now = view.now(dependency.key)
            if now == dependency.digest:
                continue
            about = dependency.place + (f"/{dependency.pattern}" if dependency.pattern else "")
            cause = Cause.DEPENDENCY_CHANGED
            if dependency.digest is None:
                cause = Cause.DEPENDENCY_APPEARED
            elif now is None:
                cause = Cause.DEPENDENCY_GONE
            yield Reason(cause, about, dependency.digest, now)
        if node.failure is not None and node.failure.transient:
            yield Reason(Cause.RETRY, node.processor)
    if entry.state is EntryState.OK:
        for output in entry.claims:
            published = view.in_place(output)
            if published is None or published.source != source:
                yield Reason(Cause.OUTPUT_MISSING, output)


def make(
    suspects: Mapping[Source, Reason | None],
    mounts: Sequence[str],
    view: View,
    *,
    place: Callable[[Source], Place],
) -> Plan:
    """The plan for some suspects and all that their claims touch.

    Args:
        suspects: Each with a reason of its own to be run (somebody asked), or None: then
            it runs if `why` finds a reason.
        mounts: Names, in the order of precedence.
        view: What is known.
        place: Names a source in messages.
    """
    rank = {mount: number for number, mount in enumerate(mounts)}
    candidates = _gather(suspects, mounts, rank, view)
    deferred = _behind_locks(candidates, view)
    _resolve([c for s, c in candidates.items() if s not in deferred], rank, place)

    jobs: list[Planned] = []
    drop: list[tuple[Entry, Reason]] = []
    restate: list[Entry] = []
    refresh: list[tuple[Source, Stamp]] = []
    clean = 0
    for source, candidate in candidates.items():
        if source in deferred:
            continue
        entry = candidate.entry
        if candidate.error is None and (not candidate.there or candidate.tree is None):
            if entry is not None:
                gone = Cause.SOURCE_IGNORED if candidate.there else Cause.SOURCE_GONE
                drop.append((entry, Reason(gone, place(source))))
            continue
        sighting = view.sighting(source)
        if candidate.error is not None or candidate.state is not EntryState.OK:
            changed = _restated(candidate, sighting, place(source))
            if changed != entry:
                restate.append(changed)
            continue
        assert candidate.tree is not None, "a source without a tree was dropped above"
        asked = suspects.get(source)
        reasons = tuple(why(entry, candidate.tree, sighting, view, source))
        if asked is not None:
            reasons = (asked, *reasons) if entry is not None else reasons
        if reasons:
            nodes = _unasked(source, candidate.tree, view)
            seen = None if sighting.racy else sighting.stamp
            jobs.append(Planned(source, entry, reasons, candidate.claims, nodes, seen))
        else:
            clean += 1
            stamp = sighting.stamp
            if entry is not None and stamp != entry.stamp and stamp and not sighting.racy:
                refresh.append((source, stamp))
    return Plan(tuple(jobs), tuple(drop), tuple(restate), tuple(refresh), tuple(deferred), clean)


def _gather(
    suspects: Mapping[Source, Reason | None],
    mounts: Sequence[str],
    rank: Mapping[str, int],
    view: View,
) -> dict[Source, _Candidate]:
    """The suspects and, again and again, whoever shares a path or an output with them.

    A source that appears, goes or claims something else may free or take outputs of others,
    and those may be overridden by or override yet others.  One that claims what it has claimed
    does nothing of the kind; so an edit in a folder for which another mount has a file is not
    one of all that is in the folder.
    """
    candidates: dict[Source, _Candidate] = {}
    waiting = list(suspects)
    touched_by = Claims()
    reached: set[Source] = set()
    beyond: dict[Source, set[Source]] = {}
    """Who is at odds with a suspect that only changed: they count once anybody reaches it."""
    while waiting:
        source = waiting.pop()
        if source in candidates:
            continue
        entry = view.entry(source)
        known = source.mount in rank
        there = known and view.sighting(source).stamp is not None
        tree: Tree | None = None
        error: TreeError | None = None
        if known:
            try:
                tree = view.tree(source)
            except TreeError as caught:
                error = caught
        if entry is None and tree is None and error is None:
            continue  # never was a source, and is none
        before = entry.claims if entry is not None else ()
        if tree is None:
            claims = before if error is not None else ()
        elif tree.bypass:
            claims = before
        else:
            claims = tuple(name for name, _ in tree.leaves)
        # What it would claim counts even if it is gone and the record never had it: its job
        # may have been under way, and others have been overridden by it.
        touched = {*claims, *before}
        if not there:
            tree, error, claims = None, None, ()
        candidate = _Candidate(source, entry, tree, error, there, claims)
        candidates[source] = candidate
        others: set[Source] = set()
        at_odds: set[Source] = set()
        for claim in touched:
            for near in (touched_by.at_odds(claim), view.at_odds(claim)):
                for path, other in near:
                    (others if path == claim else at_odds).add(other)
            touched_by.add(claim, source)
        as_ever = entry is not None and entry.state is EntryState.OK and claims == before
        if as_ever and source not in reached:
            beyond[source] = at_odds - {source}
        else:
            others |= at_odds
        for mount in mounts:
            other = Source(mount, source.path)
            if mount != source.mount and (
                other in candidates
                or other in suspects
                or view.locked(other)  # it may be so new that the record has not heard of it
                or view.entry(other) is not None
            ):
                others.add(other)
        others.discard(source)
        candidate.neighbours = others
        waiting.extend(others)
        reached |= others
        for other in beyond.keys() & others:
            more = beyond.pop(other)
            candidates[other].neighbours |= more
            waiting.extend(more)
            reached |= more
    return candidates


def _behind_locks(candidates: Mapping[Source, _Candidate], view: View) -> set[Source]:
    """The candidates that are, or touch, a source with a job under way."""
    links: dict[Source, set[Source]] = {}
    for source, candidate in candidates.items():
        for other in candidate.neighbours:
            links.setdefault(source, set()).add(other)
            links.setdefault(other, set()).add(source)
    behind: set[Source] = set()
    waiting = [source for source in candidates if view.locked(source)]
    waiting += [s for s in links if s not in candidates and view.locked(s)]
    while waiting:
        source = waiting.pop()
        if source in behind:
            continue
        behind.add(source)
        waiting.extend(links.get(source, ()))
    return {source for source in behind if source in candidates}


def _resolve(
    candidates: Sequence[_Candidate],
    rank: Mapping[str, int],
    place: Callable[[Source], Place],
) -> None:
    """Set the state of each candidate by precedence and conflicts."""
    standing = [c for c in candidates if c.there and (c.tree is not None or c.error is not None)]
    paths: dict[str, Source] = {}
    taken = Claims()
    for mount in sorted({c.source.mount for c in standing}, key=rank.__getitem__):
        fresh = Claims()
        for candidate in standing:
            if candidate.source.mount != mount:
                continue
            winner = paths.get(candidate.source.path) or next(
                (source for claim in candidate.claims for _, source in taken.at_odds(claim)), None
            )
            if winner is not None:
                candidate.state = EntryState.OVERRIDDEN
                candidate.problem = Diagnostic(f"overridden by {place(winner)}", place(winner))
                continue
            for claim in candidate.claims:
                fresh.add(claim, candidate.source)
        for candidate in standing:
            source = candidate.source
            if source.mount != mount or candidate.state is EntryState.OVERRIDDEN:
                continue
            paths[source.path] = source
            for claim in candidate.claims:
                taken.add(claim, source)
                others = [(path, place(s)) for path, s in fresh.at_odds(claim) if s != source]
                if others and candidate.state is not EntryState.CONFLICT:
                    candidate.state = EntryState.CONFLICT
                    candidate.problem = Diagnostic(_conflict(claim, others), place(source))


def _conflict(claim: str, others: Sequence[tuple[str, Place]]) -> str:
    """Why a source is not built whose *claim* is at odds with those of *others*."""
    names = ", ".join(sorted({name for path, name in others if path == claim}))
    wish = "rename, remove or ignore all but one"
    if names:
        return f"{names} would make {claim} too: neither is built; {wish}"
    path, name = others[0]
    both = min(claim, path, key=len)
    return (
        f"{name} would make {path}, and {both} cannot be a file and a folder: "
        f"neither is built; {wish}"
    )


def _restated(candidate: _Candidate, sighting: Sighting, place: Place) -> Entry:
    """The entry of a source that is not to be built."""
    entry = candidate.entry
    stamp = None if sighting.racy else sighting.stamp
    state, problem = candidate.state, candidate.problem
    reason = Reason(Cause.NEW)
    if candidate.error is not None:
        state, problem = EntryState.FAILED, Diagnostic(str(candidate.error), place)
        reason = Reason(Cause.TREE_BROKEN)
    elif state is EntryState.OVERRIDDEN:
        assert problem is not None, "whoever is overridden knows by whom"
        reason = Reason(Cause.OVERRIDDEN, problem.file)
    elif state is EntryState.CONFLICT:
        reason = Reason(Cause.CONFLICT)
    if entry is None:
        return Entry(candidate.source, stamp, None, state, candidate.claims, (), reason, problem)
    claims = candidate.claims
    if state is not EntryState.OVERRIDDEN:
        # What was there stays, so its owner goes on claiming it.
        claims = tuple(dict.fromkeys((*claims, *entry.claims)))
    if entry.state is state and entry.problem == problem:
        reason = entry.reason
    digest = entry.digest if sighting.stamp == entry.stamp else sighting.digest
    return entry._replace(
        stamp=stamp,
        digest=digest,
        state=state,
        claims=claims,
        nodes=() if state is EntryState.OVERRIDDEN else entry.nodes,
        reason=reason,
        problem=problem,
    )


def _unasked(source: Source, tree: Tree, view: View) -> tuple[NodeRecord, ...]:
    """The nodes of a tree that nobody has run; their versions tell when to try again."""
    found = []
    for node in tree.nodes:
        version = view.version(source, node.processor) or Version("", "")
        key = (version.version, version.options, "")
        found.append(NodeRecord(node.processor, node.path, *key, state=NodeState.WAITING))
    return tuple(found)


def _pairs(tree: Tree) -> list[tuple[str, str]]:
    return [(node.processor, node.path) for node in tree.nodes]


def _chain(nodes: Sequence[tuple[str, str]]) -> str:
    return " → ".join(processor for processor, _ in nodes)


def _names(claims: Sequence[str | tuple[str, int]]) -> str:
    return ", ".join(sorted(c if isinstance(c, str) else c[0] for c in claims))
