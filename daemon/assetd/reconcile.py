"""From a plan and its outcomes to one change: publish, keep, delete, record.  Pure."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from assetd.model import (
    Batch,
    Cause,
    Change,
    Deletion,
    Diagnostic,
    Done,
    Entry,
    EntryState,
    FileFact,
    Kind,
    NodeState,
    Outcome,
    Output,
    Publication,
    Reason,
    Source,
)
from assetd.plan import Planned


class Finished(NamedTuple):
    """A job with its outcome."""

    planned: Planned
    outcome: Outcome


class Reconciled(NamedTuple):
    """What to commit, what to look at again, and how it counts."""

    change: Change
    again: tuple[Source, ...]
    """Sources that changed or went while they were built."""
    tally: Batch
    """The batch with the counts of this change added."""


InPlace = Callable[[str], Output | None]
AtOdds = Callable[[str], Sequence[tuple[str, Source]]]


def reconcile(
    batch: Batch,
    finished: Sequence[Finished],
    drop: Sequence[tuple[Entry, Reason]],
    restate: Sequence[Entry],
    in_place: InPlace,
    at_odds: AtOdds,
    recorded: Callable[[Source], Entry | None],
    *,
    no_delete: bool = False,
) -> Reconciled:
    """The change that brings record and output root to where the outcomes say.

    Args:
        batch: Counts so far.
        finished: The jobs that ended.
        drop: Entries whose sources are gone.
        restate: Entries that change without a job.
        in_place: What the record knows to be published at an output.
        at_odds: The claims at odds with one on an output, by the record: see `claims`.
        recorded: What the record says of a source, before this change.
        no_delete: Leave what would be deleted, and go on owning it.
    """
    put: list[Entry] = []
    gone: list[tuple[Entry, Reason]] = list(drop)
    again: list[Source] = []
    files: dict[str, FileFact] = {}
    publish: dict[str, Publication] = {}
    let_go: list[tuple[str, Source, Reason]] = []
    """Outputs that sources claimed before, and make no more or lose."""
    counts = dict.fromkeys(("built", "cached", "clean", "failed"), 0)

    for item in finished:
        planned, outcome = item.planned, item.outcome
        if not outcome.settled:
            again.append(planned.source)
            continue
        if outcome.digest is None and outcome.died is None:
            # It went on the way.  Whoever it overrode by the plan does not know yet.
            again.append(planned.source)
            if planned.entry is not None:
                gone.append((planned.entry, Reason(Cause.SOURCE_GONE, planned.source.path)))
            continue
        for node in outcome.nodes:
            for each in node.dependencies:
                if each.digest is None and each.kind is Kind.FILE:
                    files[each.place] = FileFact(each.place, None, None)
        files.update((fact.place, fact) for fact in outcome.files)
        entry = _entry(batch, item, at_odds)
        counts[_class_of(outcome, entry)] += 1
        new_claims = set(entry.claims)
        for claim in planned.entry.claims if planned.entry is not None else ():
            if claim not in new_claims:
                let_go.append((claim, planned.source, Reason(Cause.NO_LONGER_MADE, claim)))
                if no_delete and _owned(in_place(claim), planned.source):
                    entry = entry._replace(claims=(*entry.claims, claim))
        put.append(entry)
        if entry.state is EntryState.CONFLICT:
            continue
        publish.update((p.output, p) for p in _publications(outcome, entry, in_place))

    for entry in restate:
        put.append(entry._replace(batch=batch.id))
        if entry.state is EntryState.FAILED:
            counts["failed"] += 1
        if entry.state is EntryState.OVERRIDDEN:
            # What it made before may be called otherwise than what it would make now.
            old = recorded(entry.source)
            claims = dict.fromkeys((*entry.claims, *(old.claims if old is not None else ())))
            let_go += [(claim, entry.source, entry.reason) for claim in claims]
    for entry, reason in gone:
        let_go += [(claim, entry.source, reason) for claim in entry.claims]

    # The record tells who claimed what before this change; these claim something else now.
    after = {entry.source: entry for entry in put}
    left = {entry.source for entry, _ in gone}
    built = {item.planned.source for item in finished}

    def entry_of(source: Source) -> Entry | None:
        return after.get(source) or recorded(source)

    def stands_for(claim: str, source: Source) -> bool:
        if source in left:
            return False
        if source not in after and source in again:
            return True  # it will be built, and say then what it makes
        entry = entry_of(source)
        return (
            entry is not None and claim in entry.claims and entry.state is not EntryState.OVERRIDDEN
        )

    def will_make(claim: str, source: Source) -> bool:
        if not stands_for(claim, source):
            return False
        entry = entry_of(source)
        return source in again or (entry is not None and entry.state is not EntryState.FAILED)

    delete: dict[str, Deletion] = {}
    for claim, source, reason in () if no_delete else let_go:
        published = in_place(claim)
        if published is None or claim in publish or stands_for(claim, published.source):
            continue
        # Its owner is overridden, perhaps long since: whoever is built for it replaces it.  Who
        # has failed does not, and what another has made is no last good output of his.
        if published.source not in left | built and any(
            will_make(claim, other) for _, other in at_odds(claim)
        ):
            continue
        delete[claim] = Deletion(claim, source, published.digest, reason)
    change = Change(
        batch.id,
        tuple(put),
        () if no_delete else tuple((entry.source, reason) for entry, reason in gone),
        tuple(files.values()),
        tuple(publish.values()),
        tuple(delete.values()),
    )
    tally = batch._replace(
        changed=batch.changed + len(put) + len(gone),
        built=batch.built + counts["built"],
        cached=batch.cached + counts["cached"],
        clean=batch.clean + counts["clean"],
        failed=batch.failed + counts["failed"],
    )
    return Reconciled(change, tuple(again), tally)


def _entry(batch: Batch, item: Finished, at_odds: AtOdds) -> Entry:
    planned, outcome = item.planned, item.outcome
    old = planned.entry
    if outcome.died is not None:
        return Entry(
            planned.source,
            outcome.stamp or planned.stamp,
            outcome.digest,
            EntryState.FAILED,
            tuple(dict.fromkeys((*planned.claims, *(old.claims if old is not None else ())))),
            outcome.nodes or (old.nodes if old is not None else ()) or planned.nodes,
            planned.reasons[0],
            outcome.died,
            batch.id,
            outcome.seconds,
        )
    state = EntryState.FAILED if outcome.failed else EntryState.OK
    problem = None
    claims = outcome.claims
    if outcome.failed and old is not None:
        # A failed root that names its outputs by making them has named none: what it
        # made before stands.
        claims = tuple(dict.fromkeys((*claims, *(c for c in old.claims if not claims))))
    unexpected = [c for c in claims if c not in planned.claims]
    for claim in unexpected:
        # Only a bypassing root gets here: it names its outputs after the plan was made.
        other = next((s for _, s in at_odds(claim) if s != planned.source), None)
        if other is not None:
            state = EntryState.CONFLICT
            problem = Diagnostic(f"{other.path} would make {claim} too: remove or ignore one")
    reason = planned.reasons[0]
    if (
        old is not None
        and _class_of(outcome, None) == "clean"
        and state is old.state is EntryState.OK
    ):
        # Looked at and found as it was: the story of its last build is still the story.
        return old._replace(stamp=outcome.stamp, digest=outcome.digest, nodes=_merged(outcome, old))
    return Entry(
        planned.source,
        outcome.stamp,
        outcome.digest,
        state,
        claims,
        _merged(outcome, old),
        reason,
        problem,
        batch.id,
        outcome.seconds,
    )


def _merged(outcome: Outcome, old: Entry | None) -> tuple:  # type: ignore[type-arg]
    """The nodes to record: a clean one keeps how long it took when it ran."""
    before = {(n.processor, n.path): n for n in old.nodes} if old is not None else {}
    return tuple(
        node._replace(seconds=before[node.processor, node.path].seconds)
        if node.state is NodeState.CLEAN and (node.processor, node.path) in before
        else node
        for node in outcome.nodes
    )


def _class_of(outcome: Outcome, entry: Entry | None) -> str:
    if outcome.failed or (entry is not None and entry.state is not EntryState.OK):
        return "failed"
    states = {node.state for node in outcome.nodes}
    if NodeState.BUILT in states:
        return "built"
    return "cached" if NodeState.CACHED in states else "clean"


def _publications(outcome: Outcome, entry: Entry, in_place: InPlace) -> list[Publication]:
    found = []
    staged = {s.output: s for s in outcome.staged}
    for claim in outcome.claims:
        published = in_place(claim)
        old = None if published is None else published.digest
        if claim in staged:
            each = staged[claim]
            found.append(Publication(claim, entry.source, each.digest, each.staged, old))
        elif published is not None and published.source != entry.source:
            made = {m.name: m.digest for n in outcome.nodes for m in n.made}
            if made.get(claim) == published.digest:
                found.append(Publication(claim, entry.source, published.digest, None, old))
    return found


def turned_out(change: Change, done: Done, before: Callable[[Source], Entry | None]) -> Change:
    """The change as the output root let it happen: who was blocked says so, and is retried.

    Args:
        change: As it was intended.
        done: What became of it.
        before: The entries as the record still has them.
    """
    if not done.blocked and not done.stuck:
        return change
    wrong = {p.source: done.blocked[p.output] for p in change.publish if p.output in done.blocked}
    claims: dict[Source, tuple[str, ...]] = {}
    for deletion in change.delete:
        if deletion.output in done.stuck:
            wrong[deletion.source] = done.stuck[deletion.output]
            claims[deletion.source] = (*claims.get(deletion.source, ()), deletion.output)

    def blocked(entry: Entry) -> Entry:
        # What is stuck is claimed on, so that the next try deletes it.
        claimed = dict.fromkeys((*entry.claims, *claims.get(entry.source, ())))
        problem = wrong[entry.source]
        return entry._replace(state=EntryState.BLOCKED, claims=tuple(claimed), problem=problem)

    put = [blocked(e) if e.source in wrong else e for e in change.put]
    drop = []
    for source, reason in change.drop:
        entry = before(source) if source in claims else None
        if entry is None:
            drop.append((source, reason))
        else:
            put.append(blocked(entry)._replace(batch=change.batch, reason=reason))
    return change._replace(put=tuple(put), drop=tuple(drop))


def _owned(output: Output | None, source: Source) -> bool:
    return output is not None and output.source == source
