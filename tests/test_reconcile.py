"""Reconciling: from what jobs came to, to what one commit does to the record and the outputs."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from assetd.model import (
    Batch,
    Cause,
    Change,
    Deletion,
    Diagnostic,
    Digest,
    Done,
    Entry,
    EntryState,
    FileFact,
    Made,
    NodeRecord,
    NodeState,
    Outcome,
    Output,
    Publication,
    Reason,
    Source,
    Staged,
    Stamp,
)
from assetd.plan import Planned
from assetd.reconcile import Finished, Reconciled, reconcile, turned_out

A, B = Source("site", "a"), Source("theme", "a")
STAMP = Stamp(1, 1, 1, 1)
BATCH = Batch(7, "watch", 0.0)
CHANGED = Reason(Cause.SOURCE_CHANGED, "a")
OLD_NODE = NodeRecord("p", "a", "1", "o", "old", made=(Made("a.css", "old", 3),), seconds=2.0)


def entry(source: Source, *claims: str, state: EntryState = EntryState.OK) -> Entry:
    """As an earlier batch left it."""
    return Entry(source, STAMP, "d", state, claims, (OLD_NODE,), Reason(Cause.NEW), None, 3, 2.0)


def planned(source: Source, old: Entry | None, *claims: str) -> Planned:
    return Planned(source, old, (CHANGED, Reason(Cause.OPTIONS_CHANGED)), claims)


def node(state: NodeState, *made: str, digest: Digest = "new") -> NodeRecord:
    failure = Diagnostic("bad") if state is NodeState.FAILED else None
    return NodeRecord(
        "p", "a", "1", "o", "i", (), tuple(Made(n, digest, 3) for n in made), state, 0.5, failure
    )


def outcome(
    state: NodeState, *claims: str, staged: Sequence[str] = (), digest: Digest = "new"
) -> Outcome:
    return Outcome(
        1,
        STAMP,
        "d2",
        (node(state, *claims, digest=digest),),
        claims,
        tuple(Staged(name, f"/staging/{name}", digest, 3) for name in staged),
        (FileFact("site/_v", STAMP, "v"),),
        0.75,
    )


@dataclass
class Root:
    """What is in place, and who claims what, as dicts."""

    outputs: dict[str, Output] = field(default_factory=dict)
    claims: dict[str, list[Source]] = field(default_factory=dict)
    entries: dict[Source, Entry] = field(default_factory=dict)

    def holds(self, output: str, source: Source, digest: Digest = "old") -> None:
        """It is in place, and its source is recorded as well."""
        self.outputs[output] = Output(output, source, digest, None)
        known = self.entries.get(source, entry(source))
        self.entries[source] = known._replace(claims=(*known.claims, output))

    def at_odds(self, output: str) -> Sequence[tuple[str, Source]]:
        return [(output, source) for source in self.claims.get(output, ())]

    def reconcile(
        self,
        *finished: tuple[Planned, Outcome],
        drop: Sequence[tuple[Entry, Reason]] = (),
        restate: Sequence[Entry] = (),
        no_delete: bool = False,
    ) -> Reconciled:
        return reconcile(
            BATCH,
            [Finished(*each) for each in finished],
            drop,
            restate,
            self.outputs.get,
            self.at_odds,
            self.entries.get,
            no_delete=no_delete,
        )


@pytest.fixture
def root() -> Root:
    return Root()


def test_a_built_source_is_recorded_and_its_outputs_published(root: Root) -> None:
    """With the first reason, the files that were read and what each output replaces."""
    root.holds("a.css", A)
    done = root.reconcile(
        (
            planned(A, entry(A, "a.css"), "a.css", "a.map"),
            outcome(NodeState.BUILT, "a.css", "a.map", staged=("a.css", "a.map")),
        )
    )
    built = Entry(
        A,
        STAMP,
        "d2",
        EntryState.OK,
        ("a.css", "a.map"),
        (node(NodeState.BUILT, "a.css", "a.map"),),
        CHANGED,
        None,
        7,
        0.75,
    )
    assert (
        Reconciled(
            Change(
                7,
                (built,),
                (),
                (FileFact("site/_v", STAMP, "v"),),
                (
                    Publication("a.css", A, "new", "/staging/a.css", "old"),
                    Publication("a.map", A, "new", "/staging/a.map", None),
                ),
            ),
            (),
            BATCH._replace(changed=1, built=1),
        )
        == done
    )


def test_each_outcome_counts_once_and_on_top_of_what_was_counted(root: Root) -> None:
    """A source counts by the worst of its nodes: failed, built, cached, clean."""
    sources = {state: Source("site", state.value) for state in NodeState}
    done = root.reconcile(
        *((planned(source, None), outcome(state)) for state, source in sources.items())
    )
    # A waiting node alone never is: the one before it has failed.
    assert (
        done.tally.changed,
        done.tally.built,
        done.tally.cached,
        done.tally.clean,
        done.tally.failed,
    ) == (5, 1, 1, 2, 1)
    mixed = outcome(NodeState.BUILT)._replace(nodes=(node(NodeState.CACHED), node(NodeState.BUILT)))
    again = reconcile(
        done.tally,
        [Finished(planned(A, None), mixed)],
        (),
        (),
        lambda _o: None,
        lambda _o: (),
        lambda _s: None,
    )
    assert done.tally._replace(changed=6, built=2) == again.tally


def test_a_clean_source_keeps_the_story_of_its_last_build(root: Root) -> None:
    """Looked at and found as it was: only what proves it is new."""
    root.holds("a.css", A)
    old = entry(A, "a.css")
    clean = outcome(NodeState.CLEAN, "a.css")._replace(nodes=(OLD_NODE._replace(seconds=0.0),))
    clean = clean._replace(nodes=(clean.nodes[0]._replace(state=NodeState.CLEAN),))
    done = root.reconcile((planned(A, old, "a.css"), clean))
    kept = OLD_NODE._replace(state=NodeState.CLEAN)
    assert (old._replace(digest="d2", nodes=(kept,)),) == done.change.put
    assert (done.change.publish, done.change.delete, done.tally.clean) == ((), (), 1)


def test_a_failed_source_keeps_its_outputs(root: Root) -> None:
    """A site goes on with the last good build."""
    root.holds("a.css", A)
    done = root.reconcile(
        (planned(A, entry(A, "a.css"), "a.css"), outcome(NodeState.FAILED, "a.css"))
    )
    [put] = done.change.put
    assert (put.state, put.claims, put.reason) == (EntryState.FAILED, ("a.css",), CHANGED)
    assert (("p", Diagnostic("bad")),) == put.diagnostics
    assert (done.change.publish, done.change.delete, done.tally.failed) == ((), (), 1)


def test_a_failed_bypassing_root_goes_on_claiming_what_it_made(root: Root) -> None:
    """It names its outputs by making them, and has named none."""
    root.holds("a.css", A)
    done = root.reconcile((planned(A, entry(A, "a.css"), "a.css"), outcome(NodeState.FAILED)))
    assert [put.claims for put in done.change.put] == [("a.css",)]
    assert done.change.delete == ()


def test_what_a_failed_source_made_in_other_branches_is_published(root: Root) -> None:
    """One branch that fails does not hold back the others."""
    failed = outcome(NodeState.FAILED, "a.css", "a.js", staged=("a.js",))
    done = root.reconcile((planned(A, None, "a.css", "a.js"), failed))
    assert [p.output for p in done.change.publish] == ["a.js"]


def test_a_source_that_went_while_it_was_built_is_dropped_and_looked_at_again(root: Root) -> None:
    """Whoever it overrode by the plan does not know yet."""
    root.holds("a.css", A)
    done = root.reconcile((planned(A, entry(A, "a.css"), "a.css"), Outcome(1)))
    gone = Reason(Cause.SOURCE_GONE, "a")
    assert ((A,), ((A, gone),), (Deletion("a.css", A, "old", gone),), ()) == (
        done.again,
        done.change.drop,
        done.change.delete,
        done.change.put,
    )
    new = root.reconcile((planned(A, None, "a.css"), Outcome(1)))
    assert Reconciled(Change(7), (A,), BATCH) == new


def test_an_unsettled_source_changes_nothing_and_is_looked_at_again(root: Root) -> None:
    """What was read while it changed is worth nothing."""
    root.holds("a.css", A)
    unsettled = outcome(NodeState.BUILT, "b.css", staged=("b.css",))._replace(settled=False)
    done = root.reconcile((planned(A, entry(A, "a.css"), "b.css"), unsettled))
    assert Reconciled(Change(7), (A,), BATCH) == done


@pytest.mark.parametrize("known", [False, True])
def test_a_job_that_died_fails_its_source_and_touches_no_output(root: Root, known: bool) -> None:
    """The entry keeps its nodes and every claim, and says how the job died."""
    root.holds("a.css", A)
    died = Diagnostic("killed by signal 9", transient=True)
    old = entry(A, "a.css") if known else None
    done = root.reconcile((planned(A, old, "b.css"), Outcome(1, died=died)))
    [put] = done.change.put
    assert (
        EntryState.FAILED,
        ("b.css", "a.css") if known else ("b.css",),
        (OLD_NODE,) if known else (),
        died,
        None,
    ) == (put.state, put.claims, put.nodes, put.problem, put.digest)
    assert (done.change.publish, done.change.delete, done.tally.failed) == ((), (), 1)


def test_an_output_that_is_no_longer_made_is_deleted(root: Root) -> None:
    """The last build stands for it no more."""
    root.holds("a.css", A)
    root.holds("a.map", A, "m")
    done = root.reconcile(
        (planned(A, entry(A, "a.css", "a.map"), "a.css"), outcome(NodeState.BUILT, "a.css"))
    )
    reason = Reason(Cause.NO_LONGER_MADE, "a.map")
    assert (Deletion("a.map", A, "m", reason),) == done.change.delete


def test_an_output_that_is_anothers_is_not_deleted(root: Root) -> None:
    """Only what the record says is this source's own."""
    root.holds("a.map", B)
    done = root.reconcile(
        (
            planned(A, entry(A, "a.css", "a.map", "gone"), "a.css"),
            outcome(NodeState.BUILT, "a.css"),
        ),
        drop=[(entry(A, "a.map"), Reason(Cause.SOURCE_GONE))],
    )
    assert done.change.delete == ()


def test_an_output_that_changes_hands_within_a_change_is_not_deleted(root: Root) -> None:
    """One file goes and another takes over: readers must see no hole."""
    root.holds("a.css", A)
    done = root.reconcile(
        (planned(B, None, "a.css"), outcome(NodeState.BUILT, "a.css", staged=("a.css",))),
        drop=[(entry(A, "a.css"), Reason(Cause.SOURCE_GONE))],
    )
    assert (Publication("a.css", B, "new", "/staging/a.css", "old"),) == done.change.publish
    assert done.change.delete == ()


def test_the_right_bytes_of_another_source_change_hands_where_they_are(root: Root) -> None:
    """Nothing is copied: the record alone says whose they are."""
    root.holds("a.css", A, "new")
    done = root.reconcile(
        (planned(B, None, "a.css"), outcome(NodeState.CACHED, "a.css")),
        drop=[(entry(A, "a.css"), Reason(Cause.SOURCE_GONE))],
    )
    assert (Publication("a.css", B, "new", None, "new"),) == done.change.publish
    assert (done.change.delete, done.tally.cached) == ((), 1)


def test_a_failed_source_takes_over_nothing(root: Root) -> None:
    """It made no bytes, so those in place are not its own."""
    root.holds("a.css", A)
    done = root.reconcile((planned(B, None, "a.css"), outcome(NodeState.FAILED, "a.css")))
    assert done.change.publish == ()


def test_an_override_deletes_what_nobody_else_claims(root: Root) -> None:
    """A claim of the one that overrides it will be replaced, so it stays until then."""
    for name in ("a.css", "a.map", "other"):
        root.holds(name, B)
    root.holds("other", A)
    root.entries[A] = entry(A, "a.css", "other")
    root.claims = {"a.css": [A, B], "a.map": [B], "other": [B]}
    reason = Reason(Cause.OVERRIDDEN, "site/a")
    lost = entry(B, "a.css", "a.map", "other", state=EntryState.OVERRIDDEN)._replace(reason=reason)
    done = root.reconcile(restate=[lost])
    assert (Deletion("a.map", B, "old", reason),) == done.change.delete
    assert (lost._replace(batch=7),) == done.change.put
    assert BATCH._replace(changed=1) == done.tally


def test_an_override_takes_along_what_was_made_under_another_name(root: Root) -> None:
    """Its tree changed together with who is before it."""
    root.holds("old.css", B)
    root.claims = {"old.css": [B], "new.css": [A, B]}
    lost = entry(B, "new.css", state=EntryState.OVERRIDDEN)
    done = root.reconcile(restate=[lost])
    assert [d.output for d in done.change.delete] == ["old.css"]


@pytest.mark.parametrize("settles", [True, False])
def test_an_override_does_not_rely_on_another_that_is_overridden_itself(
    root: Root, settles: bool
) -> None:
    """Neither makes the output any more; nor does one that went before it was built."""
    third = Source("base", "c")
    root.holds("a.css", B)
    root.entries[third] = entry(third, "a.css", state=EntryState.OVERRIDDEN)
    root.claims = {"a.css": [B, third]}
    lost = entry(B, "a.css", state=EntryState.OVERRIDDEN)
    if settles:
        done = root.reconcile(restate=[lost])
        assert [d.output for d in done.change.delete] == ["a.css"]
        return
    unsettled = outcome(NodeState.BUILT, "a.css")._replace(settled=False)
    waits = planned(third, root.entries[third], "a.css")
    done = root.reconcile((waits, unsettled), restate=[lost])
    assert (done.again, done.change.delete) == ((third,), ())  # it takes over, once it is built
    root.entries[B] = lost
    reason = Reason(Cause.SOURCE_GONE, "c")
    done = root.reconcile(drop=[(root.entries[third], reason)])
    assert done.change.delete == (Deletion("a.css", third, "old", reason),)


@pytest.mark.parametrize("state", [EntryState.FAILED, EntryState.CONFLICT])
def test_an_entry_that_is_restated_otherwise_keeps_its_outputs(
    root: Root, state: EntryState
) -> None:
    """Its last good outputs stand; a failure counts as one."""
    root.holds("a.css", A)
    done = root.reconcile(restate=[entry(A, "a.css", state=state)])
    assert ((), int(state is EntryState.FAILED)) == (done.change.delete, done.tally.failed)


def test_dropped_entries_lose_their_outputs_and_are_forgotten(root: Root) -> None:
    """With the reason that the plan gave."""
    root.holds("a.css", A)
    reason = Reason(Cause.SOURCE_IGNORED, "site/a")
    done = root.reconcile(drop=[(entry(A, "a.css", "never"), reason)])
    assert (
        Reconciled(
            Change(7, drop=((A, reason),), delete=(Deletion("a.css", A, "old", reason),)),
            (),
            BATCH._replace(changed=1),
        )
        == done
    )


def test_without_deletion_everything_stays_and_stays_owned(root: Root) -> None:
    """What is no longer made is claimed on and what is gone is remembered, for a later run."""
    for name, source in (("a.css", A), ("a.map", A), ("b.css", B)):
        root.holds(name, source)
    done = root.reconcile(
        (planned(A, entry(A, "a.css", "a.map"), "a.css"), outcome(NodeState.BUILT, "a.css")),
        drop=[(entry(B, "b.css"), Reason(Cause.SOURCE_GONE))],
        no_delete=True,
    )
    assert (
        done.change.delete,
        done.change.drop,
        [put.claims for put in done.change.put],
    ) == ((), (), [("a.css", "a.map")])


def test_a_bypassing_root_that_names_anothers_output_is_in_conflict(root: Root) -> None:
    """It names its outputs after the plan was made; nothing of it is published."""
    root.claims = {"b.css": [A, B]}
    done = root.reconcile(
        (planned(A, None, "a.css"), outcome(NodeState.BUILT, "a.css", "b.css", staged=("b.css",)))
    )
    [put] = done.change.put
    said = Diagnostic("a would make b.css too: remove or ignore one")
    assert (EntryState.CONFLICT, said, ()) == (put.state, put.problem, done.change.publish)
    assert done.tally.failed == 1


def test_a_blocked_source_says_so(root: Root) -> None:
    """The rest of the change is recorded as it was meant."""
    change = root.reconcile(
        (planned(A, None, "a.css"), outcome(NodeState.BUILT, "a.css", staged=("a.css",))),
        (planned(B, None, "b.css"), outcome(NodeState.BUILT, "b.css", staged=("b.css",))),
    ).change
    assert change == turned_out(change, Done({}, {}, (), {}, {}), lambda _source: None)
    foreign = Diagnostic("somebody else's file is there")
    put = turned_out(change, Done({}, {"a.css": foreign}, (), {}, {}), lambda _source: None).put
    assert {A: (EntryState.BLOCKED, foreign), B: (EntryState.OK, None)} == {
        e.source: (e.state, e.problem) for e in put
    }


def test_what_the_disk_refuses_to_delete_is_claimed_on(root: Root) -> None:
    """The next try deletes it, so an entry that was to be dropped stays, blocked."""
    for name, source in (("a.css", A), ("a.map", A), ("b.css", B)):
        root.holds(name, source)
    gone = entry(B, "b.css")
    change = root.reconcile(
        (planned(A, entry(A, "a.css", "a.map"), "a.css"), outcome(NodeState.BUILT, "a.css")),
        drop=[(gone, Reason(Cause.SOURCE_GONE))],
    ).change
    stuck = {name: Diagnostic(f"{name}: read-only") for name in ("a.map", "b.css")}
    turned = turned_out(change, Done({}, {}, (), {}, stuck), {B: gone}.get)
    assert {
        A: (EntryState.BLOCKED, ("a.css", "a.map"), stuck["a.map"]),
        B: (EntryState.BLOCKED, ("b.css",), stuck["b.css"]),
    } == {e.source: (e.state, e.claims, e.problem) for e in turned.put}
    assert turned.drop == ()
