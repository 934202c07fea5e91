"""A runner: the nodes that must run do, the others do not, and every result is of one moment."""

import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from assetd import stamp as stamps
from assetd.model import Diagnostic, Digest, Job, NodeState, Outcome, Source
from assetd.processor import Names, Processor, Step, suffix
from assetd.runner import CARRY_LIMIT, UNKEPT_LIMIT, MountSetting, Runner
from assetd.stamp import digest_bytes
from assetd.store import Store

BUILT, CACHED, CLEAN = NodeState.BUILT, NodeState.CACHED, NodeState.CLEAN
FAILED, WAITING = NodeState.FAILED, NodeState.WAITING

Process = Callable[[Step], None]


@dataclass(frozen=True)
class Opened:
    """A processor ready to run."""

    processor: Processor
    options: Mapping[str, Any] = field(default_factory=dict)
    version: str = "1"
    missing: str | None = None

    @property
    def options_digest(self) -> Digest:
        return digest_bytes(repr(sorted(self.options.items())).encode())


@dataclass
class Bench:
    """A project with one mount, and what a record would know of its sources."""

    root: Path
    takers: list[Opened] = field(default_factory=list)
    ran: list[str] = field(default_factory=list)
    """The processors that were asked in the last job."""
    jobs: dict[str, Job] = field(default_factory=dict)
    out: dict[str, str] = field(default_factory=dict)
    """What is in place, by output."""
    runner: Runner | None = None

    @property
    def mount(self) -> Path:
        return self.root / "site"

    @property
    def staging(self) -> Path:
        return self.root / "staging"

    def write(self, name: str, text: str) -> Path:
        """Write a file of the mount, and wait until its stamp proves its content."""
        path = self.mount / name
        path.write_text(text)
        settle(path)
        return path

    def take(
        self, name: str, from_: str, to: str, process: Process, map_: str = "", **more: Any
    ) -> None:
        """Add a processor that makes of a file that ends in *from_* one that ends in *to*."""

        def announce(path: str, _options: Mapping[str, Any]) -> Names:
            stem = path.removesuffix(from_)
            return Names((stem + to,), (stem + map_,) if map_ else ())

        def noted(step: Step) -> None:
            self.ran.append(name)
            process(step)

        made = Processor(
            name=name, version="1", matches=suffix(from_), outputs=announce, process=noted, **more
        )
        self.takers.append(Opened(made))

    def turn(self, name: str, **changes: Any) -> None:
        """Change a processor's version, options or tool, as a new configuration would."""
        self.takers = [
            replace(t, **changes) if t.processor.name == name else t for t in self.takers
        ]
        self.runner = None

    def opened(self) -> Runner:
        """A runner with the processors that there are now."""
        mounts = {"site": MountSetting(str(self.mount), tuple(self.takers))}
        store = Store(str(self.root / "store"))
        return Runner(str(self.root), mounts, str(self.staging), store, {})

    def build(self, path: str = "a.txt", *, force: bool = False) -> Outcome:
        """Run a job as the owner would, and put in place what it staged."""
        self.ran.clear()
        if self.runner is None:
            self.runner = self.opened()
        known = self.jobs.get(path, Job(1, Source("site", path)))
        published = {name: digest_bytes(text.encode()) for name, text in self.out.items()}
        outcome = self.runner.run(known._replace(published=published, force=force))
        self.runner.keep_all()
        # Whatever happened in a job, staging holds the outputs that it hands over alone.
        staged = {os.path.basename(s.staged) for s in outcome.staged}
        assert staged == set(os.listdir(self.staging))
        for each in outcome.staged:
            content = Path(each.staged).read_bytes()
            assert (each.digest, each.size) == (digest_bytes(content), len(content))
            self.out[each.output] = content.decode()
            os.unlink(each.staged)
        if outcome.settled and outcome.died is None:
            self.jobs[path] = known._replace(nodes=outcome.nodes)
        return outcome

    def states(self, path: str = "a.txt", *, force: bool = False) -> list[NodeState]:
        return [node.state for node in self.build(path, force=force).nodes]

    def failure(self, path: str = "a.txt") -> Diagnostic:
        """Run a job of which one node fails; gives how."""
        outcome = self.build(path)
        [failure] = [n.failure for n in outcome.nodes if n.failure is not None]
        assert outcome.failed
        return failure

    def chain(self) -> None:
        """Two nodes: strip the `#` lines, then add an end."""
        self.take("strip", ".txt", ".mid", strip)
        self.take("end", ".mid", ".out", end)


def settle(path: Path) -> None:
    deadline = time.monotonic() + 5.0
    found = stamps.read(str(path))
    while found is not None and stamps.is_racy(found):
        assert time.monotonic() < deadline
        time.sleep(0.002)


def strip(step: Step) -> None:
    lines = step.input.read_text().splitlines()
    step.write(step.path.replace(".txt", ".mid"), "|".join(x for x in lines if x[:1] != "#"))


def end(step: Step) -> None:
    text = step.input.read_text()
    if "bad" in text:
        raise step.fail("it is bad", line=1, column=3)
    step.write(step.path.replace(".mid", ".out"), text + step.options.get("end", "."))


def upper(step: Step) -> None:
    step.write(step.path.replace(".txt", ".out"), step.input.read_text().upper())


def including(name: str) -> Process:
    """A process whose output is the content of the file *name* beside the input."""

    def include(step: Step) -> None:
        path = step.mount / name
        step.depends(path)
        text = path.read_text() if path.exists() else "absent"
        if "bad" in text:
            raise step.fail("it is bad", file=path, line=1)
        step.write(step.path.replace(".txt", ".out"), text)

    return include


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path)
    made.mount.mkdir()
    made.staging.mkdir()
    made.write("a.txt", "one\n#note")
    return made


def test_a_source_is_built_and_then_clean_while_nothing_moves(bench: Bench) -> None:
    """The second job runs nobody, stages nothing and claims the same."""
    bench.chain()
    first = bench.build()
    assert ([n.state for n in first.nodes], bench.out) == ([BUILT, BUILT], {"a.out": "one."})
    assert (digest_bytes(b"one\n#note"), stamps.read(str(bench.mount / "a.txt")), True) == (
        first.digest,
        first.stamp,
        first.settled,
    )
    second = bench.build()
    assert ([n.state for n in second.nodes], bench.ran, second.staged) == ([CLEAN, CLEAN], [], ())
    assert ("a.out",) == first.claims == second.claims
    assert [n.made for n in first.nodes] == [n.made for n in second.nodes]


def test_a_result_that_is_what_it_was_stops_the_chain(bench: Bench) -> None:
    """A comment more in the source makes no work behind the node that strips it."""
    bench.chain()
    bench.build()
    bench.write("a.txt", "one\n#another note")
    assert (bench.states(), bench.ran) == ([BUILT, CLEAN], ["strip"])
    bench.write("a.txt", "two")
    assert (bench.states(), bench.out) == ([BUILT, BUILT], {"a.out": "two."})


def test_other_options_of_a_node_run_that_node_alone(bench: Bench) -> None:
    """Its input comes from the store."""
    bench.chain()
    bench.build()
    bench.turn("end", options={"end": "!"})
    assert (bench.states(), bench.ran) == ([CLEAN, BUILT], ["end"])
    assert bench.out == {"a.out": "one!"}


def test_an_input_that_the_store_has_lost_is_made_again(bench: Bench) -> None:
    """Nothing in the store is needed: losing it costs time."""
    bench.chain()
    bench.build()
    shutil.rmtree(bench.root / "store")
    assert bench.states() == [CLEAN, CLEAN]
    bench.turn("end", options={"end": "!"})
    assert (bench.states(), bench.ran) == ([BUILT, BUILT], ["strip", "end"])
    assert bench.out == {"a.out": "one!"}


def test_an_output_that_is_not_in_place_is_staged_from_the_store(bench: Bench) -> None:
    """Nobody runs for it, unless the store has lost it too."""
    bench.chain()
    bench.build()
    bench.out.clear()
    assert (bench.states(), bench.ran, bench.out) == ([CLEAN, CLEAN], [], {"a.out": "one."})
    bench.out.clear()
    shutil.rmtree(bench.root / "store")
    assert (bench.states(), bench.out) == ([BUILT, BUILT], {"a.out": "one."})


@pytest.mark.parametrize("change", [{"version": "2"}, {"options": {"other": 1}}])
def test_another_version_or_option_runs_the_node(bench: Bench, change: dict[str, Any]) -> None:
    """Both are part of its key."""
    bench.chain()
    bench.build()
    bench.turn("strip", **change)
    assert (bench.states(), bench.ran) == ([BUILT, CLEAN], ["strip"])


def test_an_input_that_was_built_before_comes_from_the_store(bench: Bench) -> None:
    """Going back to another branch costs no run."""
    bench.chain()
    bench.build()
    bench.write("a.txt", "two")
    bench.build()
    bench.write("a.txt", "one\n#note")
    assert (bench.states(), bench.ran, bench.out) == ([CACHED, CACHED], [], {"a.out": "one."})


def test_a_content_that_the_store_holds_damaged_is_made_again(bench: Bench) -> None:
    """What does not have its digest is no result."""
    bench.chain()
    bench.build()
    for path in (bench.root / "store" / "objects").rglob("*"):
        if path.is_file():
            path.write_bytes(b"cut sh")
    bench.jobs.clear()
    bench.out.clear()
    assert (bench.states(), bench.out) == ([BUILT, BUILT], {"a.out": "one."})
    bench.jobs.clear()
    assert bench.states() == [CACHED, CACHED]


def test_force_runs_every_node_and_asks_nobody(bench: Bench) -> None:
    """Whatever its key says; what comes out as it was is not staged."""
    bench.chain()
    bench.build()
    outcome = bench.build(force=True)
    assert (
        [n.state for n in outcome.nodes],
        bench.ran,
        outcome.staged,
    ) == ([BUILT, BUILT], ["strip", "end"], ())


def test_a_cheap_result_is_not_kept(bench: Bench) -> None:
    """Running it costs less; behind a result from the store it counts as one."""
    bench.take("upper", ".txt", ".out", upper, cheap=True)
    bench.build()
    assert not (bench.root / "store").exists()
    bench.jobs.clear()
    assert (bench.states(), bench.ran) == ([BUILT], ["upper"])
    bench.takers.clear()
    bench.take("strip", ".txt", ".mid", strip)
    bench.take("end", ".mid", ".out", end, cheap=True)
    bench.runner = None
    assert bench.states() == [BUILT, BUILT]
    bench.jobs.clear()
    assert (bench.states(), bench.ran) == ([CACHED, CACHED], ["end"])


def test_what_a_tool_has_made_is_copied_and_what_we_wrote_is_passed_on(bench: Bench) -> None:
    """A copy of a node's output costs nothing, but a tool may have made it for itself alone."""
    modes, inodes = [], []

    def use_tool(step: Step) -> None:
        with open(os.open(step.output("a.mid"), os.O_CREAT | os.O_WRONLY, 0o600), "w") as file:
            file.write("tool")

    def carry(step: Step) -> None:
        step.copy()
        made = step.output(step.path).stat()
        modes.append(made.st_mode & 0o777)
        inodes.append((step.input.stat().st_ino, made.st_ino))

    for make in (use_tool, strip):
        bench.takers.clear()
        bench.runner = None
        bench.take("make", ".txt", ".mid", make)
        bench.take("carry", ".mid", ".mid", carry, cheap=True)
        assert bench.states(force=True)[:2] == [BUILT, BUILT]
        assert bench.out == {"a.mid": "one" if make is strip else "tool"}
    assert modes[0] == modes[1] != 0o600
    assert [given == made for given, made in inodes] == [False, True]


def test_a_failed_node_keeps_what_it_made_and_stays_failed(bench: Bench) -> None:
    """The same input is not tried again; what waits behind it is not asked."""
    bench.take("raw", ".txt", ".mid", lambda s: s.write("a.mid", s.input.read_bytes()))
    bench.take("end", ".mid", ".out", end)
    bench.take("last", ".out", ".end", lambda s: s.write("a.end", s.input.read_bytes()))
    first = bench.build()
    bench.write("a.txt", "bad")
    failed = bench.build()
    assert [n.state for n in failed.nodes] == [BUILT, FAILED, WAITING]
    assert first.nodes[1].made == failed.nodes[1].made
    assert first.nodes[2].made == failed.nodes[2].made
    assert (failed.claims, failed.staged) == (("a.end",), ())
    again = bench.build()
    assert ([n.state for n in again.nodes], bench.ran) == ([CLEAN, FAILED, WAITING], [])
    assert failed.nodes[1].failure == again.nodes[1].failure
    bench.write("a.txt", "good")
    assert (bench.states(), bench.out) == ([BUILT] * 3, {"a.end": "good."})


def test_a_failed_node_depends_on_all_that_it_ever_read(bench: Bench) -> None:
    """The fix may lie in a file that the failing run did not get as far as."""

    def read_both(step: Step) -> None:
        text = ""
        for name in ("x", "y"):
            step.depends(step.mount / name)
            text += (step.mount / name).read_text()
            if "bad" in text:
                raise step.fail(f"{name} is bad")
        step.write("a.out", text)

    bench.take("both", ".txt", ".out", read_both)
    bench.write("x", "x1 ")
    bench.write("y", "y1")
    bench.build()
    bench.write("x", "bad")
    [node] = bench.build().nodes
    assert {"site/x", "site/y"} == {d.place for d in node.dependencies}
    bench.write("y", "y2")
    assert (bench.states(), bench.ran) == ([FAILED], ["both"])
    bench.write("x", "x2 ")
    assert (bench.states(), bench.out) == ([BUILT], {"a.out": "x2 y2"})


def test_a_failure_heals_when_a_dependency_goes_back(bench: Bench) -> None:
    """The result of before comes from the store."""
    bench.take("include", ".txt", ".out", including("inc"))
    bench.write("inc", "good")
    bench.build()
    bench.write("inc", "bad")
    assert Diagnostic("it is bad", "site/inc", 1, None, "bad") == bench.failure()
    bench.write("inc", "good")
    assert (bench.states(), bench.ran, bench.out) == ([CACHED], [], {"a.out": "good"})


def test_an_absent_dependency_that_appears_runs_the_node(bench: Bench) -> None:
    """Absent is a content; and so it is when it goes again."""
    bench.take("include", ".txt", ".out", including("inc"))
    [node] = bench.build().nodes
    assert [(d.place, d.digest) for d in node.dependencies] == [("site/inc", None)]
    bench.write("inc", "here")
    outcome = bench.build()
    assert ([n.state for n in outcome.nodes], bench.out) == ([BUILT], {"a.out": "here"})
    assert [digest_bytes(b"here")] == [f.digest for f in outcome.files]
    (bench.mount / "inc").unlink()
    assert (bench.states(), bench.out) == ([CACHED], {"a.out": "absent"})


def probing(step: Step) -> None:
    names = ("inc", "folder", "fifo")
    found = step.find([step.mount / name for name in names])
    told = "".join(
        f"{name} {each.kind} {each.digest}, " for name, each in zip(names, found, strict=True)
    )
    step.write(step.path.replace(".txt", ".out"), told)


def test_what_is_found_is_depended_on(bench: Bench) -> None:
    """The kind of each, the digest of a file; the node runs again when the answer is another."""
    bench.take("probe", ".txt", ".out", probing)
    (bench.mount / "folder").mkdir()
    os.mkfifo(bench.mount / "fifo")
    said = "folder folder None, fifo other None, "
    bench.build()
    assert bench.out == {"a.out": f"inc None None, {said}"}
    bench.write("inc", "here")
    assert bench.states() == [BUILT]
    assert bench.out == {"a.out": f"inc file {digest_bytes(b'here')}, {said}"}
    (bench.mount / "inc").unlink()
    assert bench.states() == [CACHED]
    assert [d.place for d in bench.jobs["a.txt"].nodes[0].dependencies] == [
        "site/inc",
        "site/folder",
        "site/fifo",
    ]


def test_what_is_found_and_changes_during_the_run_runs_it_again(bench: Bench) -> None:
    """Where something comes to a place that was empty, too."""

    def slow(step: Step) -> None:
        probing(step)
        if len(bench.ran) == 1:
            (bench.mount / "inc").write_text("late")

    bench.take("probe", ".txt", ".out", slow)
    outcome = bench.build()
    assert (outcome.settled, bench.ran) == (True, ["probe"] * 2)
    assert bench.out["a.out"].startswith(f"inc file {digest_bytes(b'late')}, ")


def listing(step: Step) -> None:
    found = step.depends_glob(step.mount, "**/*.inc")
    names = [path.relative_to(step.mount).as_posix() for path in found]
    step.write(step.path.replace(".txt", ".out"), " ".join(names))


def test_a_glob_runs_the_node_when_a_name_comes_or_goes(bench: Bench) -> None:
    """And not when a content changes."""
    bench.take("list", ".txt", ".out", listing)
    bench.write("1.inc", "")
    assert (bench.states(), bench.out) == ([BUILT], {"a.out": "1.inc"})
    bench.write("1.inc", "changed")
    assert bench.states() == [CLEAN]
    (bench.mount / "sub").mkdir()
    bench.write("sub/2.inc", "")
    assert (bench.states(), bench.out) == ([BUILT], {"a.out": "1.inc sub/2.inc"})
    (bench.mount / "1.inc").unlink()
    assert (bench.states(), bench.out) == ([BUILT], {"a.out": "sub/2.inc"})


def test_a_dependency_that_changes_during_the_run_runs_it_again(bench: Bench) -> None:
    """The output must not be of a content that nothing knows of any more."""
    include = including("inc")

    def slow(step: Step) -> None:
        include(step)
        if len(bench.ran) == 1:
            (bench.mount / "inc").write_text("late")

    bench.take("include", ".txt", ".out", slow)
    bench.write("inc", "early")
    outcome = bench.build()
    assert (outcome.settled, bench.ran, bench.out) == (True, ["include"] * 2, {"a.out": "late"})
    [dependency] = outcome.nodes[0].dependencies
    assert dependency.digest == digest_bytes(b"late")


def test_a_dependency_that_is_half_written_while_it_is_read_is_read_again(bench: Bench) -> None:
    """It is what it was before and after, so no event that follows says anything."""
    bench.write("inc", "whole")
    include = including("inc")

    def unlucky(step: Step) -> None:
        inc = bench.mount / "inc"
        if len(bench.ran) == 1 and bench.jobs:
            inc.write_text("")
            include(step)
            inc.write_text("whole")
        else:
            include(step)

    bench.take("include", ".txt", ".out", unlucky)
    bench.build()
    bench.write("a.txt", "other")
    outcome = bench.build()
    assert (outcome.settled, bench.ran, bench.out) == (True, ["include"] * 2, {"a.out": "whole"})


def test_a_dependency_that_is_touched_all_the_time_does_not_wait_for_ever(bench: Bench) -> None:
    """Its content is what counts."""
    bench.write("inc", "whole")
    include = including("inc")

    def beside(step: Step) -> None:
        include(step)
        os.utime(bench.mount / "inc", (len(bench.ran), len(bench.ran)))

    bench.take("include", ".txt", ".out", beside)
    bench.build()
    bench.write("a.txt", "other")
    outcome = bench.build()
    assert (outcome.settled, bench.ran, bench.out) == (True, ["include"] * 3, {"a.out": "whole"})


def test_a_result_of_a_half_written_source_is_not_kept_as_that_of_the_whole(bench: Bench) -> None:
    """Else the store would give it to everybody who writes the same again."""
    whole = "one"

    def unlucky(step: Step) -> None:
        if not bench.jobs:
            step.origin.write_text("")
            upper(step)
            step.origin.write_text(whole)
            bench.jobs["a.txt"] = Job(2, Source("site", "a.txt"))
        else:
            upper(step)

    bench.write("a.txt", whole)
    bench.take("upper", ".txt", ".out", unlucky)
    assert not bench.build().settled
    assert (bench.states(), bench.out) == ([BUILT], {"a.out": "ONE"})


# -- when it is kept --------------------------------------------------------------------------


@pytest.mark.parametrize("edited", [False, True])
def test_a_result_is_told_before_it_is_kept(bench: Bench, edited: bool) -> None:
    """Its output goes to its place meanwhile, and may be edited there: that is no result."""
    bench.take("upper", ".txt", ".out", upper)
    runner = bench.opened()
    bench.write("a.txt", "one")
    outcome = runner.run(Job(1, Source("site", "a.txt")))
    store = bench.root / "store"
    assert (runner.unkept, store.exists()) == (True, False)
    place = bench.root / "a.out"
    os.rename(outcome.staged[0].staged, place)
    if edited:
        place.write_text("by hand")
    runner.keep_all()
    assert not runner.unkept
    kept = [path.read_text() for path in (store / "objects").rglob("*") if path.is_file()]
    assert kept == ([] if edited else ["ONE"])
    again = runner.run(Job(2, Source("site", "a.txt")))
    assert [node.state for node in again.nodes] == [BUILT if edited else CACHED]


def test_what_is_not_kept_yet_is_found_all_the_same(bench: Bench) -> None:
    """A result once made is not made again."""
    bench.take("upper", ".txt", ".out", upper)
    runner = bench.opened()
    for text, state in (("one", BUILT), ("two", BUILT), ("one", CACHED)):
        bench.write("a.txt", text)
        outcome = runner.run(Job(1, Source("site", "a.txt")))
        assert [node.state for node in outcome.nodes] == [state]


def test_no_more_than_some_files_are_held_open_for_the_store(bench: Bench) -> None:
    """A build that never rests keeps its results on the way."""
    bench.take("upper", ".txt", ".out", upper)
    runner = bench.opened()
    names = [f"{number}.txt" for number in range(UNKEPT_LIMIT + 10)]
    for name in names:
        bench.write(name, name)
    before = len(os.listdir("/proc/self/fd"))
    for number, name in enumerate(names):
        runner.run(Job(number, Source("site", name)))
    assert len(os.listdir("/proc/self/fd")) == before + UNKEPT_LIMIT
    runner.keep_all()
    assert len(os.listdir("/proc/self/fd")) == before
    assert sum(path.is_file() for path in (bench.root / "store/results").rglob("*")) == len(names)


# -- what is only carried over ----------------------------------------------------------------


def carrier(bench: Bench) -> Runner:
    """A runner with a processor that copies, and says so."""
    bench.take("carry", ".txt", ".txt", lambda step: step.copy(), verbatim=True, cheap=True)
    return bench.opened()


def told(outcome: Outcome | None) -> Outcome | None:
    """An outcome without what differs from run to run: where things lie, and how long it took."""
    if outcome is None:
        return None
    staged = tuple(each._replace(staged=Path(each.staged).read_text()) for each in outcome.staged)
    nodes = tuple(node._replace(seconds=0.0) for node in outcome.nodes)
    for each in outcome.staged:
        os.unlink(each.staged)
    return outcome._replace(staged=staged, nodes=nodes, seconds=0.0)


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("before", ["nothing", "the same", "another content", "another version"])
@pytest.mark.parametrize("in_place", ["nothing", "the same", "another content"])
def test_carrying_over_comes_to_what_a_run_comes_to(
    bench: Bench, force: bool, before: str, in_place: str
) -> None:
    """The short way has the outcome of the long one, whatever was there before."""
    runner = carrier(bench)
    content = "other" if before == "another content" else "text"
    bench.write("a.txt", content)
    job = Job(1, Source("site", "a.txt"))
    first = runner.run(job)
    told(first)
    nodes = tuple(
        n._replace(version="0") if before == "another version" else n for n in first.nodes
    )
    bench.write("a.txt", "text")
    published = {"the same": {"a.txt": digest_bytes(b"text")}, "another content": {"a.txt": "0"}}
    job = job._replace(
        nodes=() if before == "nothing" else nodes,
        published=published.get(in_place, {}),
        force=force,
    )
    expected = told(runner.run(job))
    assert expected is not None
    assert expected.stamp is not None
    if expected.nodes[0].state is CLEAN and in_place != "the same":
        expected = expected._replace(nodes=(expected.nodes[0]._replace(state=BUILT),))
    assert expected == told(runner.carry(job, runner.mounts["site"].takers[0], "a.txt"))


def test_what_was_just_written_is_carried_over_without_a_stamp(bench: Bench) -> None:
    """A stamp of this very tick proves nothing, for whoever takes it."""
    runner = carrier(bench)
    (bench.mount / "a.txt").write_text("text")
    job = Job(1, Source("site", "a.txt"))
    outcome = told(runner.carry(job, runner.mounts["site"].takers[0], "a.txt"))
    assert outcome is not None
    assert (None, digest_bytes(b"text")) == (outcome.stamp, outcome.digest)


def test_only_a_plain_file_of_a_sane_size_is_carried_over(bench: Bench) -> None:
    """A link may lead to what the workers must not read; the rest is theirs to complain of."""
    runner = carrier(bench)
    bench.write("real.txt", "text")
    (bench.mount / "link.txt").symlink_to("real.txt")
    (bench.mount / "folder").mkdir()
    (bench.mount / "folder/a.txt").write_text("text")
    (bench.mount / "way").symlink_to("folder")
    (bench.mount / "large.txt").write_bytes(bytes(CARRY_LIMIT + 1))
    (bench.mount / "is.txt").mkdir()
    os.mkfifo(bench.mount / "fifo.txt")
    names = ("link.txt", "way/a.txt", "large.txt", "is.txt", "fifo.txt", "gone.txt")
    for name in names:
        job = Job(1, Source("site", name))
        assert runner.carry(job, runner.mounts["site"].takers[0], name) is None
    assert os.listdir(bench.staging) == []


def test_what_cannot_be_staged_is_left_to_a_run(bench: Bench) -> None:
    """It knows what to say of a full disk, or of a folder that is gone."""
    runner = carrier(bench)
    bench.write("a.txt", "text")
    bench.staging.rmdir()
    job = Job(1, Source("site", "a.txt"))
    assert runner.carry(job, runner.mounts["site"].takers[0], "a.txt") is None
