"""Plans: what must be done and why, from a record and a disk that are dicts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from assetd import plan as plans
from assetd.claims import Claims
from assetd.model import (
    Cause,
    Dependency,
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
from assetd.plan import Plan, Sighting, Version
from assetd.tree import Node, Tree, TreeError

MOUNTS = ("site", "theme", "base")
OLD, NEW = Stamp(1, 1, 1, 1), Stamp(2, 2, 2, 2)
ASKED = Reason(Cause.REQUESTED)


def chain(path: str, *outputs: str, bypass: bool = False) -> Tree:
    """A tree of one node, which makes *outputs*."""
    return Tree((Node("p", path, None, outputs),), tuple((o, 0) for o in outputs), bypass)


@dataclass
class World:
    """A view: the record, the disk and the configuration, as dicts."""

    entries: dict[Source, Entry] = field(default_factory=dict)
    disk: dict[Source, Sighting] = field(default_factory=dict)
    trees: dict[Source, Tree | TreeError] = field(default_factory=dict)
    versions: dict[str, Version] = field(default_factory=lambda: {"p": Version("1", "o")})
    held: dict[tuple[Kind, Place, str], Digest] = field(default_factory=dict)
    outputs: dict[str, Output] = field(default_factory=dict)
    jobs: dict[Source, tuple[str, ...]] = field(default_factory=dict)

    def entry(self, source: Source) -> Entry | None:
        return self.entries.get(source)

    def sighting(self, source: Source) -> Sighting:
        return self.disk.get(source, Sighting(None))

    def tree(self, source: Source) -> Tree | None:
        tree = self.trees.get(source)
        if isinstance(tree, TreeError):
            raise tree
        return tree

    def version(self, _source: Source, processor: str) -> Version | None:
        return self.versions.get(processor)

    def now(self, key: tuple[Kind, Place, str]) -> Digest | None:
        return self.held.get(key)

    def at_odds(self, output: str) -> Sequence[tuple[str, Source]]:
        known = Claims()
        for source, claims in [
            *((s, e.claims) for s, e in self.entries.items()),
            *self.jobs.items(),
        ]:
            for claim in claims:
                known.add(claim, source)
        return known.at_odds(output)

    def in_place(self, output: str) -> Output | None:
        return self.outputs.get(output)

    def locked(self, source: Source) -> bool:
        return source in self.jobs

    def add(self, path: str, *outputs: str, mount: str = "site") -> Source:
        """A new file that would become *outputs*; by default its own name."""
        source = Source(mount, path)
        self.disk[source] = Sighting(OLD)
        self.trees[source] = chain(path, *(outputs or (path,)))
        return source

    def built(self, path: str, *outputs: str, mount: str = "site", **node: Any) -> Source:
        """A file that was built from what it is now, with its outputs in place."""
        source = self.add(path, *outputs, mount=mount)
        claims = outputs or (path,)
        record = NodeRecord("p", path, "1", "o", "d")._replace(**node)
        self.entries[source] = Entry(source, OLD, "d", EntryState.OK, claims, (record,))
        self.outputs |= {claim: Output(claim, source, "x", None) for claim in claims}
        return source

    def gone(self, source: Source) -> None:
        """Delete the file."""
        del self.disk[source]

    def state(self, source: Source, state: EntryState) -> None:
        """Record the source in another state."""
        self.entries[source] = self.entries[source]._replace(state=state)

    def make(self, *suspects: Source, asked: Mapping[Source, Reason] | None = None) -> Plan:
        every: dict[Source, Reason | None] = dict.fromkeys(suspects)
        return plans.make(every | dict(asked or {}), MOUNTS, self, place=place)

    def apply(self, plan: Plan) -> None:
        """Record what the plan says, as if every job had gone well."""
        for entry, _ in plan.drop:
            del self.entries[entry.source]
        for entry in plan.restate:
            self.entries[entry.source] = entry
        for job in plan.jobs:
            path = job.source.path
            node = NodeRecord("p", path, "1", "o", "d")
            stamp = self.disk[job.source].stamp
            self.entries[job.source] = Entry(
                job.source, stamp, "d", EntryState.OK, job.claims, (node,)
            )
            self.outputs |= {c: Output(c, job.source, "x", None) for c in job.claims}


def place(source: Source) -> Place:
    return f"{source.mount}/{source.path}"


def reasons(plan: Plan) -> list[tuple[Source, list[Reason]]]:
    return [(job.source, list(job.reasons)) for job in plan.jobs]


def causes(plan: Plan) -> dict[Source, list[Cause]]:
    return {job.source: [r.cause for r in job.reasons] for job in plan.jobs}


def states(plan: Plan) -> dict[Source, EntryState]:
    return {e.source: e.state for e in plan.restate}


@pytest.fixture
def world() -> World:
    return World()


def test_nothing_is_done_about_what_is_as_it_was(world: World) -> None:
    """A suspect is a question, not an order."""
    dependency = Dependency(Kind.FILE, "site/_v", "", "v")
    world.held[dependency.key] = "v"
    source = world.built("a", dependencies=(dependency, Dependency(Kind.FILE, "no", "", None)))
    assert Plan(clean=1) == world.make(source)


def test_what_never_was_a_source_and_is_none_is_nothing(world: World) -> None:
    """Events come for anything: a file that no processor takes, one of no mount."""
    stranger, elsewhere = Source("site", "x"), world.add("a", mount="unknown")
    world.disk[stranger] = Sighting(OLD)
    assert Plan() == world.make(stranger, elsewhere, Source("site", "absent"))


def test_a_new_source_is_built_with_its_claims_and_processors(world: World) -> None:
    """The plan says what its job will need."""
    source = world.add("a", "a.css", "a.css.map")
    [job] = world.make(source).jobs
    assert (source, None, (Reason(Cause.NEW),), ("a.css", "a.css.map"), ("p",)) == (
        job.source,
        job.entry,
        job.reasons,
        job.claims,
        tuple(node.processor for node in job.nodes),
    )


@pytest.mark.parametrize(
    ("seen", "new"),
    [(Sighting(NEW, "e"), "e"), (Sighting(NEW), None), (Sighting(NEW, "e", True), "e")],
)
def test_a_changed_source_is_built(world: World, seen: Sighting, new: Digest | None) -> None:
    """Without a look inside, a stamp that moved counts as a change."""
    source = world.built("a")
    world.disk[source] = seen
    changed = Reason(Cause.SOURCE_CHANGED, "a", "d", new)
    assert [(source, [changed])] == reasons(world.make(source))


def test_a_stamp_that_proves_nothing_asks_for_a_look_inside(world: World) -> None:
    """It was taken in the tick of the last write; the digest decides."""
    source = world.built("a")
    world.entries[source] = world.entries[source]._replace(stamp=None)
    assert {source: [Cause.SOURCE_CHANGED]} == causes(world.make(source))
    world.disk[source] = Sighting(OLD, "d")
    assert causes(world.make(source)) == {}


def test_a_stamp_that_moved_over_the_same_content_is_taken_anew(world: World) -> None:
    """Otherwise every look would read the file again; a racy one would prove nothing."""
    source = world.built("a")
    world.disk[source] = Sighting(NEW, "d")
    assert Plan(refresh=((source, NEW),), clean=1) == world.make(source)
    world.disk[source] = Sighting(NEW, "d", racy=True)
    assert Plan(clean=1) == world.make(source)


@pytest.mark.parametrize(
    ("old", "now", "cause"),
    [
        ("v", "w", Cause.DEPENDENCY_CHANGED),
        (None, "w", Cause.DEPENDENCY_APPEARED),
        ("v", None, Cause.DEPENDENCY_GONE),
    ],
)
def test_a_dependency_that_moved_is_a_reason_that_names_it(
    world: World, old: Digest | None, now: Digest | None, cause: Cause
) -> None:
    """Absent is a content too."""
    dependency = Dependency(Kind.FILE, "site/_v", "", old)
    source = world.built("a", dependencies=(dependency,))
    if now is not None:
        world.held[dependency.key] = now
    assert [(source, [Reason(cause, "site/_v", old, now)])] == reasons(world.make(source))


def test_a_glob_that_moved_is_named_with_its_pattern(world: World) -> None:
    """The folder alone would not say which names."""
    dependency = Dependency(Kind.GLOB, "site", "*.scss", "v")
    world.held[dependency.key] = "w"
    source = world.built("a", dependencies=(dependency,))
    changed = Reason(Cause.DEPENDENCY_CHANGED, "site/*.scss", "v", "w")
    assert [(source, [changed])] == reasons(world.make(source))


def test_other_versions_and_options_are_reasons(world: World) -> None:
    """Both are part of a node's key; all the reasons are told."""
    source = world.built("a")
    world.versions["p"] = Version("2", "oo")
    assert [
        (
            source,
            [
                Reason(Cause.VERSION_CHANGED, "p", "1", "2"),
                Reason(Cause.OPTIONS_CHANGED, "p", "o", "oo"),
            ],
        )
    ] == reasons(world.make(source))


def test_another_tree_is_a_reason_that_shows_both_chains(world: World) -> None:
    """A processor came into the chain, or the names of the outputs differ."""
    source = world.built("a")
    world.trees[source] = Tree(
        (Node("p", "a", None, ("b",)), Node("q", "b", 0, ("a",))), (("a", 1),)
    )
    assert [(source, [Reason(Cause.TREE_CHANGED, None, "p", "p → q")])] == reasons(
        world.make(source)
    )
    world.trees[source] = chain("a", "c", "b")
    assert [(source, [Reason(Cause.TREE_CHANGED, None, "a", "b, c")])] == reasons(
        world.make(source)
    )


def test_a_bypassing_root_keeps_the_outputs_it_named_last(world: World) -> None:
    """It names them only by making them, so they are no reason, and its claims."""
    source = world.built("a", "x", "y")
    world.trees[source] = chain("a", bypass=True)
    assert Plan(clean=1) == world.make(source)
    [job] = world.make(asked={source: ASKED}).jobs
    assert job.claims == ("x", "y")


def test_an_output_that_is_missing_or_anothers_is_a_reason(world: World) -> None:
    """A source stands for all that it claims."""
    source = world.built("a", "x", "y", "z")
    del world.outputs["x"]
    world.outputs["z"] = world.outputs["z"]._replace(source=Source("site", "other"))
    assert [
        (source, [Reason(Cause.OUTPUT_MISSING, "x"), Reason(Cause.OUTPUT_MISSING, "z")])
    ] == reasons(world.make(source))


def test_a_failed_source_is_left_alone_until_something_moves(world: World) -> None:
    """The same input fails in the same way, whatever is not in place."""
    failure = Diagnostic("bad")
    source = world.built("a", state=NodeState.FAILED, failure=failure)
    world.state(source, EntryState.FAILED)
    world.outputs.clear()
    assert Plan(clean=1) == world.make(source)


@pytest.mark.parametrize("where", ["blocked", "problem", "node"])
def test_what_may_go_away_by_itself_is_tried_again(world: World, where: str) -> None:
    """No space, a killed worker, somebody's file in the way."""
    transient = Diagnostic("no space", transient=True)
    source = world.built("a", failure=transient if where == "node" else None)
    world.state(source, EntryState.BLOCKED if where == "blocked" else EntryState.FAILED)
    if where == "problem":
        world.entries[source] = world.entries[source]._replace(problem=transient)
    assert [(source, [Reason(Cause.RETRY, "p" if where == "node" else None)])] == reasons(
        world.make(source)
    )


def test_a_waiting_node_is_no_reason(world: World) -> None:
    """It is asked after the one before it, which failed."""
    changed = Dependency(Kind.FILE, "x", "", "old")
    source = world.built("a", state=NodeState.WAITING, dependencies=(changed,))
    assert Plan(clean=1) == world.make(source)


def test_who_asks_is_told_first_and_is_enough(world: World) -> None:
    """A new source's reason stays that it is new."""
    old, new = world.built("a"), world.add("b")
    world.disk[old] = Sighting(NEW)
    plan = world.make(asked={old: ASKED, new: ASKED})
    assert {old: [Cause.REQUESTED, Cause.SOURCE_CHANGED], new: [Cause.NEW]} == causes(plan)
    world.disk[old] = Sighting(OLD)
    assert {old: [Cause.REQUESTED]} == causes(world.make(asked={old: ASKED}))


def test_a_source_that_is_gone_or_taken_by_nobody_any_more_is_dropped(world: World) -> None:
    """The reason tells the one from the other."""
    gone, ignored, unmounted = world.built("a"), world.built("b"), world.built("c", mount="old")
    world.gone(gone)
    del world.trees[ignored]
    plan = world.make(gone, ignored, unmounted)
    assert {
        gone: Reason(Cause.SOURCE_GONE, "site/a"),
        ignored: Reason(Cause.SOURCE_IGNORED, "site/b"),
        unmounted: Reason(Cause.SOURCE_GONE, "old/c"),
    } == {entry.source: reason for entry, reason in plan.drop}
    assert (plan.jobs, plan.restate, plan.clean) == ((), (), 0)


def test_the_same_path_in_a_mount_before_overrides(world: World) -> None:
    """Even if the two would make different outputs; the problem says by whom."""
    low = world.built("a", "low", mount="theme")
    high = world.add("a", "high")
    plan = world.make(high)
    assert {high: [Cause.NEW]} == causes(plan)
    [entry] = plan.restate
    assert (
        low,
        EntryState.OVERRIDDEN,
        Reason(Cause.OVERRIDDEN, "site/a"),
        (),
        Diagnostic("overridden by site/a", "site/a"),
    ) == (entry.source, entry.state, entry.reason, entry.nodes, entry.problem)
    world.apply(plan)
    assert Plan(clean=1) == world.make(low)


def test_the_same_output_in_a_mount_before_overrides(world: World) -> None:
    """`a.scss` of the site takes the place of the theme's `a.css`."""
    low, high = world.built("a.css", mount="theme"), world.add("a.scss", "a.css")
    for suspects in ((high,), (low, high), (high, low)):
        plan = world.make(*suspects)
        assert {high: [Cause.NEW]} == causes(plan)
        assert {low: EntryState.OVERRIDDEN} == states(plan)


def test_the_order_of_the_mounts_decides_and_not_who_came_first(world: World) -> None:
    """A new source behind a built one is recorded as overridden and not built."""
    high, low = world.built("a"), world.add("a", mount="theme")
    plan = world.make(low)
    assert ({}, {low: EntryState.OVERRIDDEN}) == (causes(plan), states(plan))
    assert high not in states(plan)
    assert [e.digest for e in plan.restate] == [None]


def test_an_overridden_source_is_built_when_the_other_goes(world: World) -> None:
    """Nothing of its own has changed, so that is the reason."""
    low, high = world.add("a", mount="theme"), world.add("a")
    world.apply(world.make(low, high))
    world.gone(high)
    plan = world.make(high)
    assert {low: [Cause.NO_LONGER_OVERRIDDEN]} == {s: c[:1] for s, c in causes(plan).items()}
    assert [high] == [entry.source for entry, _ in plan.drop]


def test_overrides_go_through_three_mounts(world: World) -> None:
    """One who is overridden overrides nobody; the chain turns over when the first goes."""
    top = world.add("a", "one", mount="site")
    middle = world.add("a", "two", mount="theme")
    bottom = world.add("b", "two", mount="base")
    plan = world.make(bottom, middle, top)
    assert {top: [Cause.NEW], bottom: [Cause.NEW]} == causes(plan)
    assert {middle: EntryState.OVERRIDDEN} == states(plan)
    world.apply(plan)
    world.gone(top)
    plan = world.make(top)
    assert [middle] == [job.source for job in plan.jobs]
    assert {bottom: EntryState.OVERRIDDEN} == states(plan)
    world.apply(plan)
    assert Plan(clean=1) == world.make(top)


def test_two_of_one_mount_that_claim_one_output_are_both_in_conflict(world: World) -> None:
    """Neither wins; what was in place stays claimed; each is told of the other."""
    old, new = world.built("a.css", "a.css", "extra"), world.add("a.scss", "a.css")
    world.trees[old] = chain("a.css", "a.css")
    plan = world.make(new)
    assert causes(plan) == {}
    problems = {e.source: (e.state, e.problem, e.claims) for e in plan.restate}
    said = "would make a.css too: neither is built; rename, remove or ignore all but one"
    assert {
        old: (
            EntryState.CONFLICT,
            Diagnostic(f"site/a.scss {said}", "site/a.css"),
            ("a.css", "extra"),
        ),
        new: (EntryState.CONFLICT, Diagnostic(f"site/a.css {said}", "site/a.scss"), ("a.css",)),
    } == problems
    world.apply(plan)
    assert Plan() == world.make(old, new)


def test_a_conflict_ends_when_one_goes(world: World) -> None:
    """The other is built, and that is why."""
    old, new = world.built("a.css"), world.add("a.scss", "a.css")
    world.apply(world.make(new))
    world.gone(new)
    plan = world.make(new)
    assert {old: [Cause.CONFLICT_ENDED]} == causes(plan)
    assert [new] == [entry.source for entry, _ in plan.drop]


def test_a_file_overrides_what_would_be_in_a_folder_of_its_name(world: World) -> None:
    """At any depth, and only there: one path cannot be a file and a folder."""
    own = world.add("a.scss", "lib/a")
    theirs = [world.built(f"{n}.png", f"lib/a/{n}", mount="theme") for n in ("1", "2/3")]
    beside = [world.built(n, f"lib/{n}", mount="theme") for n in ("a-1", "a.png", "a0/b")]
    plan = world.make(own)
    assert [job.source for job in plan.jobs] == [own]
    assert {e.source: (e.state, e.problem) for e in plan.restate} == {
        source: (
            EntryState.OVERRIDDEN,
            Diagnostic("overridden by site/a.scss", "site/a.scss"),
        )
        for source in theirs
    }
    assert not world.make(*beside).jobs


def test_what_is_in_a_folder_overrides_a_file_of_the_folders_name(world: World) -> None:
    """Until the last of it goes."""
    own = [world.add("1.png", "a/1"), world.add("2.png", "a/b/2")]
    theirs = world.built("a.scss", "a", mount="theme")
    world.apply(world.make(*own))
    assert world.entries[theirs].state is EntryState.OVERRIDDEN
    world.gone(own[0])
    world.apply(world.make(own[0]))
    assert world.entries[theirs].state is EntryState.OVERRIDDEN
    world.gone(own[1])
    plan = world.make(own[1])
    assert [job.source for job in plan.jobs] == [theirs]
    assert plan.jobs[0].reasons[0].cause is Cause.NO_LONGER_OVERRIDDEN


def test_an_edit_in_a_folder_that_is_a_file_elsewhere_looks_at_nobody_else(world: World) -> None:
    """However many there are in it; but who comes or goes is looked at with all of them."""
    own = [world.built(f"a/{n}") for n in range(5)]
    theirs = world.built("a", mount="theme")
    world.state(theirs, EntryState.OVERRIDDEN)
    world.disk[own[0]] = Sighting(NEW, "other")
    plan = world.make(own[0])
    assert ([job.source for job in plan.jobs], plan.clean) == ([own[0]], 0)
    world.gone(own[1])
    plan = world.make(own[1])
    assert (len(plan.drop), plan.clean) == (1, 3)


def test_who_is_overridden_lets_go_of_all_that_it_has_overridden(world: World) -> None:
    """Whether it is a suspect itself, for another reason, or not; and whoever comes first."""
    last = world.built("a/2", mount="base")
    world.state(last, EntryState.OVERRIDDEN)
    middle = world.built("a", mount="theme")
    new = world.add("a/1")
    for suspects in ((new, middle), (middle, new), (new,)):
        plan = world.make(*suspects)
        assert {job.source for job in plan.jobs} == {new, last}
        assert [entry.source for entry in plan.restate] == [middle]


def test_a_file_and_a_folder_of_one_mount_are_in_conflict(world: World) -> None:
    """Each says what the other would make."""
    file = world.add("a.scss", "a.css")
    below = world.add("a.css/b/c.png")
    plan = world.make(file, below)
    assert not plan.jobs
    assert {e.source: e.problem.message for e in plan.restate if e.problem is not None} == {
        file: "site/a.css/b/c.png would make a.css/b/c.png, and a.css cannot be a file and a "
        "folder: neither is built; rename, remove or ignore all but one",
        below: "site/a.scss would make a.css, and a.css cannot be a file and a folder: "
        "neither is built; rename, remove or ignore all but one",
    }
    world.apply(plan)
    world.gone(below)
    assert [job.source for job in world.make(below).jobs] == [file]


def test_what_a_job_under_way_makes_is_waited_for_by_what_is_at_odds_with_it(world: World) -> None:
    """The record knows nothing of it."""
    file = world.add("a.scss", "a", mount="theme")
    world.jobs[world.add("b.png", "a/b")] = ("a/b",)
    assert file in world.make(file).deferred


def test_a_conflict_overrides_the_mounts_behind_it(world: World) -> None:
    """Otherwise the output would change hands while people repair the conflict."""
    one, two = world.add("a.css"), world.add("a.scss", "a.css")
    low = world.built("a.less", "a.css", mount="theme")
    assert {
        one: EntryState.CONFLICT,
        two: EntryState.CONFLICT,
        low: EntryState.OVERRIDDEN,
    } == states(world.make(one, two))


def test_a_source_without_a_sane_tree_fails_and_keeps_its_outputs(world: World) -> None:
    """The text of the error is its problem; it is said once."""
    source, new = world.built("a"), world.add("b")
    world.trees[source] = world.trees[new] = TreeError("they feed each other")
    plan = world.make(source, new)
    assert {
        source: (EntryState.FAILED, Diagnostic("they feed each other", "site/a"), ("a",)),
        new: (EntryState.FAILED, Diagnostic("they feed each other", "site/b"), ()),
    } == {e.source: (e.state, e.problem, e.claims) for e in plan.restate}
    world.apply(plan)
    assert Plan() == world.make(source, new)


@pytest.mark.parametrize("known", [False, True])
def test_a_source_is_built_when_its_tree_is_sane_again(world: World, known: bool) -> None:
    """The plugin was repaired; the file has not moved."""
    source = world.built("a") if known else world.add("a")
    world.trees[source] = TreeError("they feed each other")
    world.apply(world.make(source))
    world.trees[source] = chain("a", "a")
    assert [source] == [job.source for job in world.make(source).jobs]


def test_a_source_with_a_job_under_way_waits_with_all_that_it_touches(world: World) -> None:
    """Its outcome decides what they may claim; nobody else waits."""
    busy, low = world.add("a"), world.add("a", mount="theme")
    rival, free = world.add("b", "a"), world.add("c")
    world.jobs[busy] = ("a",)
    plan = world.make(low, rival, free)
    assert {busy, low, rival} == set(plan.deferred)
    assert ({free: [Cause.NEW]}, {}) == (causes(plan), states(plan))
    world.jobs.clear()
    assert world.make(busy, low, rival, free).deferred == ()


def test_a_source_that_goes_while_its_job_runs_waits_for_the_job(world: World) -> None:
    """What the job publishes must be deleted after it, not before."""
    busy = world.built("a")
    world.jobs[busy] = ("a",)
    world.gone(busy)
    assert Plan(deferred=(busy,)) == world.make(busy)
