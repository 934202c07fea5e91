"""One job: which nodes of a source's tree must run, and running them.

Knows the tree, the keys, the store and staging; nothing of pipes, the record and the output
root.  A worker has one for its generation; the kit's in-process pool has one too.

A node runs if its key moved: processor, version, options, input, dependencies.  Its result is
looked up in the store before the processor is asked.  Where a result is what it was, nothing
behind it runs.  A file that changes while it is read is caught by comparing before and after:
what was read of it is then worth nothing, and the node runs again.
"""

import contextlib
import errno
import os
import shutil
import stat
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from assetd import globs, listing
from assetd import place as places
from assetd import stamp as stamps
from assetd.errors import BuildError
from assetd.model import (
    Dependency,
    DependencyKey,
    Diagnostic,
    Digest,
    FileFact,
    Job,
    Kind,
    Made,
    NodeRecord,
    NodeState,
    Outcome,
    Place,
    Source,
    Staged,
    Stamp,
)
from assetd.processor import Options, Processor, Published
from assetd.step import Desk
from assetd.store import Result, Store, base_key
from assetd.tree import Node, Tree, TreeError, grow

CARRY_LIMIT: Final = 1 << 18
"""Bytes.  Larger files are not carried in one piece, by whoever has other things to do."""
UNKEPT_LIMIT: Final = 64
"""Files that are held open for the store at the most."""
ATTEMPTS: Final = 3
"""How often a node is run when its files change under it, before the owner is told to wait."""

_TRANSIENT: Final = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE),
        *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN),
    }
)
"""The machine is in trouble, not the source: worth another try when nothing has changed."""
_KINDS: Final = {stat.S_IFLNK: "a link", stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO"}

InPlace: TypeAlias = Callable[[str], Iterable[tuple[str, str]]]
"""Each output that the sources of a mount have in place, with its source's path."""


class Opened(Protocol):
    """A processor ready to run: what the registry gives."""

    @property
    def processor(self) -> Processor:
        """The processor."""

    @property
    def options(self) -> Options:
        """Its options."""

    @property
    def version(self) -> str:
        """Of the processor and its tool."""

    @property
    def options_digest(self) -> Digest:
        """Of its options."""

    @property
    def missing(self) -> str | None:
        """Which tool it lacks, and what to type; None if it can run."""


@dataclass(frozen=True, slots=True)
class MountSetting:
    """A mount as a runner needs it."""

    folder: str
    takers: tuple[Opened, ...]


class _Unkept(NamedTuple):
    """A result that the store does not have yet."""

    source: Source
    key: Digest
    result: Result
    contents: tuple[tuple[Digest, int], ...]
    """In open files: when they are read, they have gone from staging to their places."""


class _NeedsRunError(Exception):
    """The result of a clean node is wanted and nobody has it any more."""

    def __init__(self, index: int) -> None:
        self.index = index


class Runner:
    """Runs jobs one after the other, keeping warm what can be kept."""

    def __init__(
        self,
        project: str,
        mounts: Mapping[str, MountSetting],
        staging: str,
        store: Store,
        warm: Mapping[str, Any],
        *,
        sync_files: bool = False,
        in_place: InPlace = lambda _mount: (),
        denied: Callable[[BaseException], str | None] = lambda _error: None,
    ) -> None:
        """Set up.

        Args:
            project: Absolute path of the project folder.
            mounts: By the mount's name.
            staging: A folder of our own, on the output root's file system.
            store: Results made before.
            warm: What each processor's `warm` gave, by its name.
            sync_files: Bring staged files to the disk before they are handed over.
            in_place: What the sources of a mount have in place.
            denied: Says of an error why it is the sandbox's doing, if it is.
        """
        self.project = project
        self.mounts = mounts
        self.staging = staging
        self.store = store
        self.warm = warm
        self.sync_files = sync_files
        self.in_place = in_place
        self.denied = denied
        self.at_node: Callable[[int], None] = lambda _index: None
        """Is told which node of the tree is about to run."""
        self.testify: Callable[[dict[str, Any]], None] = lambda _said: None
        """Is told of a job that has cost a worker: see `testimony.Will`."""
        self.looker = stamps.Looker(project)
        self.paths = {folder: Path(folder) for folder in (project, *_folders(mounts))}
        """The folders that every step is told of: paths are slow to make."""
        self._unkept: deque[_Unkept] = deque()

    @property
    def unkept(self) -> bool:
        """Whether there are results that `keep_one` has to keep."""
        return bool(self._unkept)

    def keep_one(self) -> None:
        """Keep a result in the store: when nobody waits for anything else.

        A result is told first and kept afterwards, for its outputs need not wait for the store.
        """
        each = self._unkept.popleft()
        for digest, fd in each.contents:
            self.store.put(digest, fd)
        self.store.save(each.key, each.result)

    def keep_all(self) -> None:
        """Keep all of them."""
        while self._unkept:
            self.keep_one()

    def carry(self, job: Job, taker: Opened, output: str) -> Outcome | None:
        """Bring a source up to date that becomes *output* as it is; None: `run` must do it.

        The shortest way for the most frequent job: the file is read once, and nobody is asked.
        What is large, a link, no regular file or behind a link on the way is left to `run`,
        and so is everything that goes wrong: it knows what to say.

        Args:
            job: Whose tree is a single node.
            taker: Of that node; `Processor.verbatim`.
            output: What it makes.
        """
        started = time.perf_counter()
        source = job.source.path
        origin = f"{self.mounts[job.source.mount].folder}/{source}"
        old = job.nodes[0] if job.nodes else None
        if old is not None and (old.dependencies or old.failure):
            return None
        try:
            found = stamps.read_whole(origin, CARRY_LIMIT)
        except OSError:
            return None
        if found is None:
            return None
        content, stamp = found
        digest = stamps.digest_bytes(content)
        made = (Made(output, digest, len(content)),)
        name = taker.processor.name
        state = NodeState.BUILT
        staged: tuple[Staged, ...] = ()
        key = (name, source, taker.version, taker.options_digest, digest, (), made)
        if (job.published or {}).get(output) == digest:
            if not job.force and old is not None and old[: len(key)] == key:
                state = NodeState.CLEAN
        else:
            path = f"{self.staging}/{job.id}-0-0{os.path.splitext(output)[1][:16]}"
            try:
                with open(path, "xb", 0) as file:
                    whole = file.write(content) == len(content)
                    if self.sync_files:
                        os.fsync(file.fileno())
            except OSError:
                whole = False
            if not whole:
                with contextlib.suppress(OSError):
                    os.unlink(path)
                return None
            staged = (Staged(output, path, digest, len(content)),)
        racy = stamps.is_racy(stamp)
        if racy and stamps.look(origin, "").digest != digest:
            for each in staged:
                os.unlink(each.staged)
            return None
        seconds = time.perf_counter() - started
        ran = seconds if state is NodeState.BUILT else 0.0
        node = NodeRecord(*key, state, ran)
        told = None if racy else stamp
        return Outcome(job.id, told, digest, (node,), (output,), staged, (), seconds)

    def run(self, job: Job) -> Outcome:
        """Bring one source up to date.  Never raises for anything that a source can cause."""
        started = time.perf_counter()
        if any(each.source == job.source for each in self._unkept):
            self.keep_all()  # it may be what this job is about to look for
        self.looker.look_again()
        mount = self.mounts[job.source.mount]
        origin = os.path.join(mount.folder, job.source.path)
        try:
            digest, stamp = stamps.digest_file(origin)
        except (FileNotFoundError, NotADirectoryError):
            return Outcome(job.id)
        except stamps.NotAFileError:
            return self._refuse(job, origin, "it is no regular file: cannot be built")
        except OSError as error:
            return self._refuse(
                job,
                origin,
                self.denied(error)
                or f"it cannot be read: {error.strerror} (we run as user {os.geteuid()})",
            )
        try:
            tree = grow(job.source.path, mount.takers)
        except TreeError as error:
            return self._refuse(job, origin, str(error))
        if tree is None:
            return self._refuse(job, origin, "the processors do not agree whether to take it")
        must: set[int] = set(range(len(tree.nodes))) if job.force else set()
        while True:
            proof = None if stamps.is_racy(stamp) else stamp
            attempt = _Attempt(self, job, mount, tree, digest, proof, must)
            try:
                outcome = attempt.run()
                break
            except _NeedsRunError as need:
                must.add(need.index)
                attempt.discard(keep=())
            except OSError as error:
                # Staging cannot be written, or the source went while it was read.
                attempt.discard(keep=())
                if not os.path.exists(origin):
                    return Outcome(job.id)
                outcome = Outcome(job.id, died=_os_diagnostic(error, job, self))
                break
        after = stamps.read(origin)
        moved = after != stamp or (
            stamps.is_racy(stamp) and stamps.look(origin, "").digest != digest
        )
        if outcome.died is None and (moved or not outcome.settled):
            # What was compiled is perhaps not what has this digest: no result to be kept.
            attempt.discard(keep=())
            return Outcome(job.id, settled=False, digest=digest)
        if outcome.died is None:
            self._unkept.extend(attempt.unkept())
            while sum(len(each.contents) for each in self._unkept) > UNKEPT_LIMIT:
                self.keep_one()
            attempt.discard(keep=tuple(s.staged for s in outcome.staged))
        return outcome._replace(
            stamp=None if stamps.is_racy(stamp) else stamp,
            digest=digest,
            seconds=time.perf_counter() - started,
        )

    def _refuse(self, job: Job, origin: str, message: str) -> Outcome:
        place = places.of(origin, self.project)
        fact = stamps.read(origin)
        return Outcome(
            job.id,
            stamp=None if fact is None or stamps.is_racy(fact) else fact,
            died=Diagnostic(message, place),
        )


def _folders(mounts: Mapping[str, MountSetting]) -> Iterator[str]:
    return (mount.folder for mount in mounts.values())


def _os_diagnostic(error: OSError, job: Job, runner: Runner) -> Diagnostic:
    origin = os.path.join(runner.mounts[job.source.mount].folder, job.source.path)
    what = f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
    return Diagnostic(what, places.of(origin, runner.project), transient=True)


class _Attempt:
    """One walk over the tree of one job."""

    def __init__(
        self,
        runner: Runner,
        job: Job,
        mount: MountSetting,
        tree: Tree,
        digest: Digest,
        stamp: Stamp | None,
        must: set[int],
    ) -> None:
        self.runner = runner
        self.job = job
        self.mount = mount
        self.tree = tree
        self.digest = digest
        self.stamp = stamp
        self.must = must
        self.takers = {t.processor.name: t for t in mount.takers}
        self.old = {(n.processor, n.path): n for n in job.nodes}
        self.records: list[NodeRecord] = []
        self.staged: dict[tuple[int, str], str] = {}
        self.ours: dict[str, Digest] = {}
        """What we have written to staging ourselves: plain files that nobody else has."""
        self.every_staged: list[str] = []
        self.facts: dict[Place, FileFact] = {}
        self.listings: dict[tuple[str, str, bool], tuple[Published, ...]] = {}
        self.settled = True
        self.results: list[tuple[str, Result, int]] = []
        """What the store is to keep: under which key, and of which node."""

    def run(self) -> Outcome:
        """Decide and do everything; what is staged and not handed over is left to `discard`."""
        # Parents stand before their children, so one pass forward decides everything: by the
        # time a node is looked at, its input's digest is known, whether the input was made
        # now, came from the store, or is still what it was.
        for index, node in enumerate(self.tree.nodes):
            self.records.append(self._node(index, node))
        wanted = self._wanted()
        staged = []
        for name, index in wanted:
            made = self._made(index, name)
            if made is None or (self.job.published or {}).get(name) == made.digest:
                continue
            staged.append(Staged(name, self._materialize(index, name), made.digest, made.size))
        if self.runner.sync_files:
            for each in staged:
                _sync(each.staged)
        return Outcome(
            self.job.id,
            nodes=tuple(self.records),
            claims=tuple(name for name, _ in wanted),
            staged=tuple(staged),
            files=self._found(),
            settled=self.settled,
        )

    def _found(self) -> tuple[FileFact, ...]:
        return tuple([fact for fact in self.facts.values() if fact.digest is not None])

    def _wanted(self) -> Sequence[tuple[str, int]]:
        if self.tree.bypass:
            return [(made.name, 0) for made in self.records[0].made]
        return self.tree.leaves

    def discard(self, keep: Sequence[str]) -> None:
        """Remove from staging all but *keep*."""
        kept = set(keep)
        for path in self.every_staged:
            if path not in kept:
                try:
                    os.unlink(path)
                except IsADirectoryError:  # a processor's bug
                    shutil.rmtree(path, ignore_errors=True)
                except OSError:
                    pass

    def _node(self, index: int, node: Node) -> NodeRecord:
        taker = self.takers[node.processor]
        old = self.old.get((node.processor, node.path))
        input_ = self._input_digest(node)
        if input_ is None:
            return _waiting(node, taker, old)
        same_way = (
            old is not None
            and old.state is not NodeState.WAITING
            and old.version == taker.version
            and old.options == taker.options_digest
            and old.input == input_
        )
        # Where a link leads is a dependency that whoever built the same bytes from a file has not.
        led = self._led_to(node)
        before: dict[DependencyKey, Digest | None] = {}
        if old is not None:
            for dependency in old.dependencies:
                before[dependency.key] = self._current(dependency.key)
        if (
            same_way
            and old is not None
            and index not in self.must
            and list(before.values()) == [d.digest for d in old.dependencies]
            and before.keys() >= led
            and not (old.failure is not None and old.failure.transient)
        ):
            still = NodeState.FAILED if old.failure is not None else NodeState.CLEAN
            return old._replace(state=still, seconds=0.0)
        key = ""
        keeps = not taker.processor.cheap
        if keeps:
            # The place and not the path in the mount: what is imported relatively differs
            # from mount to mount, and so do the names in a source map.
            place = places.of(os.path.join(self.mount.folder, node.path), self.runner.project)
            key = base_key(node.processor, taker.version, taker.options_digest, place, input_)
            found = None if self.job.force else self._find(index, key, before, led)
            if found is not None:
                return NodeRecord(
                    node.processor,
                    node.path,
                    taker.version,
                    taker.options_digest,
                    input_,
                    found.dependencies,
                    found.made,
                    NodeState.CACHED,
                    warnings=found.warnings,
                )
        record = self._process(index, node, taker, input_, before, old)
        if (
            taker.processor.cheap
            and record.state is NodeState.BUILT
            and node.parent is not None
            and self.records[node.parent].state is NodeState.CACHED
        ):
            # Only carried to its place: it counts as what it is a copy of.
            record = record._replace(state=NodeState.CACHED)
        if keeps and record.state is NodeState.BUILT:
            result = Result(record.dependencies, record.made, record.warnings)
            self.results.append((key, result, index))
        return record

    def unkept(self) -> Iterator[_Unkept]:
        """What the store is to keep; for a source that was the same throughout."""
        for key, result, index in self.results:
            files = [(made.digest, self.staged[index, made.name]) for made in result.made]
            contents: list[tuple[Digest, int]] = []
            with contextlib.suppress(OSError):  # no descriptors: it costs time, some day
                for digest, path in files:
                    if len(files) > UNKEPT_LIMIT:
                        self.runner.store.put(digest, path)
                    else:
                        contents.append((digest, os.open(path, os.O_RDONLY | os.O_CLOEXEC)))
            yield _Unkept(self.job.source, key, result, tuple(contents))

    def _find(
        self,
        index: int,
        key: Digest,
        before: dict[DependencyKey, Digest | None],
        led: frozenset[DependencyKey],
    ) -> Result | None:
        def current(key: DependencyKey) -> Digest | None:
            if key not in before:
                before[key] = self._current(key)
            return before[key]

        for result in self.runner.store.find(key).holding(current):
            if led and not led <= {d.key for d in result.dependencies}:
                continue
            # Fetched at once: a result whose contents were trimmed away is no result.
            if all(self._fetch(index, made) for made in result.made):
                return result
        return None

    def _led_to(self, node: Node) -> frozenset[DependencyKey]:
        """The files that the source leads to, if it is a link."""
        if node.parent is not None:
            return frozenset()
        origin = os.path.join(self.mount.folder, node.path)
        root = self.runner.project
        return frozenset((Kind.FILE, places.of(t, root), "") for t in stamps.targets(origin))

    def _fetch(self, index: int, made: Made) -> bool:
        path = self._stage_path(index, made.name)
        if not self.runner.store.fetch(made.digest, path):
            return False
        self.staged[index, made.name] = path
        self.ours[path] = made.digest
        return True

    def _process(
        self,
        index: int,
        node: Node,
        taker: Opened,
        input_: Digest,
        before: dict[DependencyKey, Digest | None],
        old: NodeRecord | None,
    ) -> NodeRecord:
        runner = self.runner
        origin = os.path.join(self.mount.folder, node.path)
        companions: dict[str, Path] = {}
        if node.parent is not None:
            parent = self.tree.nodes[node.parent]
            companions = {n: Path(self._materialize(node.parent, n)) for n in parent.companions}
        started = time.perf_counter()
        for attempt in range(ATTEMPTS):
            began_ns = time.time_ns()
            were = {
                place: runner.looker.seen(place).stamp
                for (kind, place, _), digest in before.items()
                if digest is not None and kind is Kind.FILE
            }
            given = self._input_path(node)
            desk = Desk(
                node.processor,
                node.path,
                given,
                origin,
                runner.paths[self.mount.folder],
                runner.paths[runner.project],
                taker.options,
                None if self.tree.bypass else (*node.outputs, *node.companions),
                lambda name: self._stage_path(index, name),
                runner.looker,
                companions,
                runner.warm.get(node.processor),
                self._listing,
                self.ours.get(given),
                self._testify if self.job.testify else None,
            )
            if self.job.testify:
                self._begin_testimony(index, node, taker, input_, old)
            if node.parent is None:
                for target in stamps.targets(origin):
                    desk.depends(target)
            failure: Diagnostic | None = None
            made: tuple[Made, ...] = ()
            runner.at_node(index)
            try:
                _run(taker, desk)
                made = self._collect(desk)
            except BuildError as error:
                failure = desk.diagnose(error)
                if (why := runner.denied(error)) is not None:
                    failure = failure._replace(message=f"{failure.message} ({why})")
            except OSError as error:
                text = f"{node.processor}: {runner.denied(error) or error}"
                transient = error.errno in _TRANSIENT
                failure = desk.diagnose(BuildError(text))._replace(transient=transient)
            except Exception as error:  # noqa: BLE001 - a plugin's bug fails its own job
                text = f"{node.processor} raised {type(error).__name__}: {error}"
                if (why := runner.denied(error)) is not None:
                    text += f" ({why})"
                failure = desk.diagnose(BuildError(text))
            finally:
                desk.clear_scratch()
            told = dict(desk.depended)
            if failure is not None and old is not None:
                # The fix may lie in a file that this run did not get as far as.
                # What it did see of them stands.
                told = dict.fromkeys(d.key for d in old.dependencies) | told
            runner.looker.look_again()
            dependencies, same, untouched = self._check(told, before, were, began_ns, old)
            if same and untouched:
                break
            if attempt == ATTEMPTS - 1 and not same:
                self.settled = False
        seconds = time.perf_counter() - started
        if failure is not None:
            return NodeRecord(
                node.processor,
                node.path,
                taker.version,
                taker.options_digest,
                input_,
                dependencies,
                old.made if old is not None else (),
                NodeState.FAILED,
                seconds,
                failure,
                tuple(desk.warnings),
            )
        for name, path in desk.staged.items():
            self.staged[index, name] = path
            if name in desk.digests:
                self.ours[path] = desk.digests[name]
        return NodeRecord(
            node.processor,
            node.path,
            taker.version,
            taker.options_digest,
            input_,
            dependencies,
            made,
            NodeState.BUILT,
            seconds,
            None,
            tuple(desk.warnings),
        )

    def _begin_testimony(
        self, index: int, node: Node, taker: Opened, input_: Digest, old: NodeRecord | None
    ) -> None:
        """Tell how the job would end if this node never did."""
        known = () if old is None else old.dependencies
        failed = NodeRecord(
            node.processor,
            node.path,
            taker.version,
            taker.options_digest,
            input_,
            tuple(Dependency(*d.key, self._current(d.key)) for d in known),
            () if old is None else old.made,
            NodeState.FAILED,
        )
        rest = [
            _waiting(each, self.takers[each.processor], self.old.get((each.processor, each.path)))
            for each in self.tree.nodes[index + 1 :]
        ]
        outcome = Outcome(
            self.job.id,
            self.stamp,
            self.digest,
            (*self.records, failed, *rest),
            files=self._found(),
        )
        self.runner.testify({"will": outcome, "at": index})

    def _testify(self, key: DependencyKey) -> None:
        """Tell what the node turns out to depend on."""
        dependency = Dependency(*key, self._current(key))
        fact = self.facts[key[1]] if key[0] is Kind.FILE else None
        known = None if fact is None or fact.digest is None else fact
        self.runner.testify({"met": dependency, "fact": known})

    def _check(
        self,
        told: Mapping[DependencyKey, Digest | None],
        before: dict[DependencyKey, Digest | None],
        were: Mapping[Place, Stamp | None],
        began_ns: int,
        old: NodeRecord | None,
    ) -> tuple[tuple[Dependency, ...], bool, bool]:
        """The dependencies as they are now, whether they are the same, and whether untouched.

        One that was looked at before the run must be unchanged, and a glob must find what
        it found during the run.  A new file counts as unchanged if it is older than the run,
        a new absence if the folder is; after a change it joins *before*, so that the next
        attempt can tell.  One that is the same and was touched may have been half written
        when it was read; but who is touched all the time must not wait for ever.
        """
        same_all = untouched = True
        found = []
        was = {} if old is None else {d.key: d for d in old.dependencies}
        limit_ns = began_ns - stamps.TICK_NS
        folders: dict[Place, bool] = {}
        for key, seen in told.items():
            kind, place, pattern = key
            now = self._current(key)
            if seen is not None:
                same_all &= seen == now
            if key in before:
                same_all &= before[key] == now
                if place in were and kind is Kind.FILE:
                    untouched &= were[place] == self.runner.looker.seen(place).stamp
            elif kind is Kind.FILE and now is not None:
                stamp = self.runner.looker.fact(place).stamp
                same_all &= stamp is not None and stamp.ctime_ns < limit_ns
            elif kind is Kind.FILE:
                folder = places.split(place)[0]
                if folder not in folders:
                    path = places.path(folder, self.runner.project)
                    folders[folder] = _is_older(path, limit_ns)
                same_all &= folders[folder]
            before[key] = now
            same = was.get(key)
            if same is None or same.digest != now:
                same = Dependency(kind, place, pattern, now)
            found.append(same)
        return tuple(found), same_all, untouched

    def _collect(self, desk: Desk) -> tuple[Made, ...]:
        made = []
        names = desk.announced if desk.announced is not None else tuple(desk.staged)
        for name in names:
            path = desk.staged.get(name)
            try:
                found = None if path is None else os.lstat(path)
            except FileNotFoundError:
                found = None
            if path is None or found is None:
                raise BuildError(f"{desk.processor} announced {name} and did not make it")
            if not stat.S_ISREG(found.st_mode):
                kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
                raise BuildError(f"{desk.processor} made {kind} of {name}: expected a file")
            digest = desk.digests.get(name)
            if digest is None:
                digest = stamps.digest_file(path)[0]
            made.append(Made(name, digest, found.st_size))
        return tuple(made)

    def _input_digest(self, node: Node) -> Digest | None:
        """The digest of what goes in, companions included; None if it failed to be made."""
        if node.parent is None:
            return self.digest
        parent = self.records[node.parent]
        if parent.state in {NodeState.FAILED, NodeState.WAITING}:
            return None
        made = {m.name: m.digest for m in parent.made}
        companions = self.tree.nodes[node.parent].companions
        if not companions:
            return made[node.path]
        parts = [made[node.path], *(made[name] for name in companions)]
        return stamps.digest_bytes("\n".join(parts).encode())

    def _input_path(self, node: Node) -> str:
        if node.parent is None:
            return os.path.join(self.mount.folder, node.path)
        return self._materialize(node.parent, node.path)

    def _made(self, index: int, name: str) -> Made | None:
        record = self.records[index]
        if record.state in {NodeState.FAILED, NodeState.WAITING}:
            return None
        return next(m for m in record.made if m.name == name)

    def _materialize(self, index: int, name: str) -> str:
        """Where the output *name* of a node lies in staging.

        Raises:
            _NeedsRunError: The node is clean and nobody has its result: run it after all.
        """
        path = self.staged.get((index, name))
        if path is not None:
            return path
        made = self._made(index, name)
        assert made is not None, "a child of a failed node is not asked"
        if not self._fetch(index, made):
            raise _NeedsRunError(index)
        return self.staged[index, name]

    def _stage_path(self, index: int, name: str) -> str:
        suffix = os.path.splitext(name)[1][:16]
        serial = len(self.every_staged)
        path = f"{self.runner.staging}/{self.job.id}-{index}-{serial}{suffix}"
        self.every_staged.append(path)
        return path

    def _current(self, key: DependencyKey) -> Digest | None:
        kind, place, pattern = key
        if kind in {Kind.OUTPUTS, Kind.DATED_OUTPUTS}:
            if place not in self.runner.mounts:
                return None
            return listing.digest(self._listing(place, pattern, kind is Kind.DATED_OUTPUTS))
        if kind is Kind.GLOB:
            return globs.digest(places.path(place, self.runner.project), pattern)
        fact = self.facts[place] = self.runner.looker.seen(place).fact
        return fact.digest

    def _listing(self, name: str, pattern: str, dates: bool) -> tuple[Published, ...]:
        """What a mount had in place when this attempt first asked: all of it sees the same."""
        mount = self.runner.mounts.get(name)
        if mount is None:
            known = ", ".join(self.runner.mounts)
            raise BuildError(f"there is no mount {name!r} (known: {known})")
        key = (name, pattern, dates)
        if key not in self.listings:
            rows = self.runner.in_place(name)
            self.listings[key] = listing.select(rows, mount.folder, pattern, dates=dates)
        return self.listings[key]


def _waiting(node: Node, taker: Opened, old: NodeRecord | None) -> NodeRecord:
    """What is noted of a node whose input is not there."""
    empty = NodeRecord(node.processor, node.path, taker.version, taker.options_digest, "")
    # The version is today's, so that nobody takes it for changed; it is asked anyway as soon as
    # there is an input.
    return (old or empty)._replace(
        version=taker.version,
        options=taker.options_digest,
        state=NodeState.WAITING,
        failure=None,
        seconds=0.0,
    )


def _is_older(folder: str, limit_ns: int) -> bool:
    """Whether no name has come to or gone from *folder*, or what there is of it, since."""
    while True:
        try:
            return os.stat(folder).st_ctime_ns < limit_ns
        except NotADirectoryError:
            pass
        except FileNotFoundError:
            if folder == "/":
                return True
        except OSError:
            return True  # nobody can look into it, the processor neither
        folder = os.path.dirname(folder)


def _run(taker: Opened, desk: Desk) -> None:
    if taker.missing is not None:
        raise BuildError(f"{taker.processor.name} {taker.missing}")
    taker.processor.process(desk)


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
