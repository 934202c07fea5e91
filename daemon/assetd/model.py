"""The shared vocabulary, as frozen data.  Imports nothing of ours.

Named tuples, not dataclasses: a cold build makes, hashes and compares a hundred of them for
each source, which C does five times as fast, and to JSON they are arrays as they stand.

A *place* names a file: relative to the project folder when it is below it, else
absolute; separated by `/`; bytes that are not UTF-8 as surrogate escapes.
A *digest* is a SHA-256 in hexadecimal.
"""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple, TypeAlias

Place: TypeAlias = str
Digest: TypeAlias = str
Tell: TypeAlias = Callable[..., None]
"""`tell(event, level=…, **fields)`: one event, for the log and whoever listens."""
Row: TypeAlias = list[Any]
"""A fact as the JSON array that `json.dumps` makes of it: the form in which it crosses pipes and
rests in the record.  `of` makes the fact of it again."""


class Source(NamedTuple):
    """A file below a mount."""

    mount: str
    """The mount's name: its path as the configuration gives it."""
    path: str
    """Relative to the mount."""


class Stamp(NamedTuple):
    """What `stat` says of a file's identity.  For equality only, never for order."""

    mtime_ns: int
    size: int
    inode: int
    ctime_ns: int


class Problem(NamedTuple):
    """Something wrong with the configuration, and where."""

    message: str
    file: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        if self.file is None:
            return self.message
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{where}: {self.message}"


class Diagnostic(NamedTuple):
    """What is wrong with a source, or deserves a warning, and where."""

    message: str
    file: Place | None = None
    line: int | None = None
    """Counted from 1."""
    column: int | None = None
    """Counted from 1."""
    excerpt: str | None = None
    """The line that it is about."""
    transient: bool = False
    """The cause may go away by itself (no space, a killed worker): worth another try."""

    def __str__(self) -> str:
        where = ":".join(str(p) for p in (self.file, self.line, self.column) if p is not None)
        return f"{where}: {self.message}" if where else self.message


class Kind(StrEnum):
    """What a dependency is on."""

    FILE = "file"
    """The content of the file at a place; absent is a content too."""
    GLOB = "glob"
    """The names that a pattern below a folder finds, whatever is in them."""
    OUTPUTS = "outputs"
    """The names of the outputs that the sources of a mount have in place, by a pattern."""
    DATED_OUTPUTS = "dated-outputs"
    """The same, with the times at which those sources were last modified."""


DependencyKey: TypeAlias = tuple[Kind, Place, str]
"""What is depended on, whatever it holds: `Dependency.key`."""


class Dependency(NamedTuple):
    """Something besides its input that a node's result came from."""

    kind: Kind
    place: Place
    """Of the file; for a glob, of the folder that the pattern starts from; for outputs, the
    mount's name."""
    pattern: str
    """Of a glob or of outputs; empty for a file."""
    digest: Digest | None
    """Of the content or of the list of names.  None: the file was not there."""

    @property
    def key(self) -> DependencyKey:
        """What is depended on, whatever it holds."""
        return (self.kind, self.place, self.pattern)


class Made(NamedTuple):
    """A file that a node made."""

    name: str
    """Relative to the mount, and to the output root if it is a leaf."""
    digest: Digest
    size: int


class NodeState(StrEnum):
    """How a node ended in its last job."""

    BUILT = "built"
    """The processor ran."""
    CACHED = "cached"
    """The store had the result."""
    CLEAN = "clean"
    """Nothing that the result comes from had changed."""
    FAILED = "failed"
    """The processor said that the input is wrong, or broke.  What it made before stands."""
    WAITING = "waiting"
    """A node before it failed; this one was not asked."""


class NodeRecord(NamedTuple):
    """A node as it last ran: what went in, what came out."""

    processor: str
    path: str
    version: str
    """Of the processor and its tool."""
    options: Digest
    input: Digest
    """Of the file that went in, and of its companions."""
    dependencies: tuple[Dependency, ...] = ()
    made: tuple[Made, ...] = ()
    state: NodeState = NodeState.BUILT
    seconds: float = 0.0
    failure: Diagnostic | None = None
    warnings: tuple[Diagnostic, ...] = ()

    @staticmethod
    def of(row: Row) -> "NodeRecord":
        """The fact that a row stands for."""
        processor, path, version, options, input_, deps, made, state, seconds, failure, warns = row
        return NodeRecord(
            processor,
            path,
            version,
            options,
            input_,
            tuple([Dependency(KINDS[k], p, g, d) for k, p, g, d in deps]),
            tuple([Made(*m) for m in made]),
            NODE_STATES[state],
            seconds,
            None if failure is None else Diagnostic(*failure),
            tuple([Diagnostic(*w) for w in warns]),
        )


class Cause(StrEnum):
    """Why a source is looked at again, or an output deleted."""

    NEW = "new"
    SOURCE_CHANGED = "source-changed"
    DEPENDENCY_CHANGED = "dependency-changed"
    DEPENDENCY_APPEARED = "dependency-appeared"
    DEPENDENCY_GONE = "dependency-gone"
    VERSION_CHANGED = "version-changed"
    OPTIONS_CHANGED = "options-changed"
    TREE_CHANGED = "tree-changed"
    TREE_BROKEN = "tree-broken"
    OUTPUT_MISSING = "output-missing"
    OUTPUT_CHANGED = "output-changed"
    REQUESTED = "requested"
    FORCE_PATTERN = "force-pattern"
    NO_LONGER_OVERRIDDEN = "no-longer-overridden"
    OVERRIDDEN = "overridden"
    CONFLICT = "conflict"
    CONFLICT_ENDED = "conflict-ended"
    CHANGED_WHILE_BUILT = "changed-while-built"
    RETRY = "retry"
    SOURCE_GONE = "source-gone"
    SOURCE_IGNORED = "source-ignored"
    NO_LONGER_MADE = "no-longer-made"


class Reason(NamedTuple):
    """A cause, and what it was about."""

    cause: Cause
    about: str | None = None
    """A place, an output or a processor, as the cause has it."""
    old: str | None = None
    """A digest, a version or a place, as the cause has it.  None: there was none."""
    new: str | None = None

    @staticmethod
    def of(row: Row) -> "Reason":
        """The fact that a row stands for."""
        cause, about, old, new = row
        return Reason(_CAUSES[cause], about, old, new)


class EntryState(StrEnum):
    """Where a source stands."""

    OK = "ok"
    FAILED = "failed"
    """A node of it fails; its last good outputs stand."""
    OVERRIDDEN = "overridden"
    """A mount before it has the path or claims an output; it is not built."""
    CONFLICT = "conflict"
    """Another source of its mount claims an output; neither is built."""
    BLOCKED = "blocked"
    """An output of it could not be put in place: somebody else's file is there."""


class Entry(NamedTuple):
    """What the record holds of a source."""

    source: Source
    stamp: Stamp | None
    """None: it proves nothing (taken in the tick of the last write), so look inside."""
    digest: Digest | None
    """None: never read."""
    state: EntryState
    claims: tuple[str, ...]
    """The outputs that its tree ends in."""
    nodes: tuple[NodeRecord, ...] = ()
    reason: Reason = Reason(Cause.NEW)
    problem: Diagnostic | None = None
    """Why it is overridden, in conflict or blocked, or how its job died."""
    batch: int = 0
    """The last one that looked at it."""
    seconds: float = 0.0

    @staticmethod
    def of(row: Row) -> "Entry":
        """The fact that a row stands for."""
        source, stamp, digest, state, claims, nodes, reason, problem, batch, seconds = row
        return Entry(
            Source(*source),
            None if stamp is None else Stamp(*stamp),
            digest,
            _ENTRY_STATES[state],
            tuple(claims),
            tuple([NodeRecord.of(n) for n in nodes]),
            Reason.of(reason),
            None if problem is None else Diagnostic(*problem),
            batch,
            seconds,
        )

    @property
    def diagnostics(self) -> tuple[tuple[str | None, Diagnostic], ...]:
        """What is wrong with it: the processor's name (None: no processor's fault) and what."""
        # With a problem of its own it was not run, so its nodes tell how it failed before.
        unasked = self.problem is not None and self.state is not EntryState.BLOCKED
        found: list[tuple[str | None, Diagnostic]] = [
            (n.processor, n.failure) for n in self.nodes if n.failure is not None and not unasked
        ]
        if self.problem is not None and self.state is not EntryState.OVERRIDDEN:
            found.append((None, self.problem))
        return tuple(found)


class Output(NamedTuple):
    """A file below the output root that the record says we made."""

    path: str
    """Relative to the output root."""
    source: Source
    digest: Digest
    stamp: Stamp | None
    """As we left it.  None: taken in the tick of the write, so compare the digest."""


class FileFact(NamedTuple):
    """What a file was found to hold."""

    place: Place
    stamp: Stamp | None
    """None: it proves nothing, or the file is not there."""
    digest: Digest | None
    """None: it is not there, or nobody has read it."""

    @staticmethod
    def of(row: Row) -> "FileFact":
        """The fact that a row stands for."""
        place, stamp, digest = row
        return FileFact(place, None if stamp is None else Stamp(*stamp), digest)


class Job(NamedTuple):
    """One source to be brought up to date by a worker."""

    id: int
    source: Source
    nodes: tuple[NodeRecord, ...] = ()
    """As the record has them; empty for a new source."""
    published: Mapping[str, Digest] | None = None
    """What is in place now, by output.  None is short for nothing."""
    force: bool = False
    """Run every node, whatever its key says, and do not ask the store."""
    testify: bool = False
    """It has cost a worker: tell at once what it turns out to depend on, while there is time."""

    @staticmethod
    def of(row: Row) -> "Job":
        """The fact that a row stands for."""
        id_, source, nodes, published, force, testify = row
        known = tuple([NodeRecord.of(n) for n in nodes])
        return Job(id_, Source(*source), known, published, force, testify)


class Staged(NamedTuple):
    """An output that waits in staging for its turn to be published."""

    output: str
    staged: str
    """Absolute path; on the file system of the output root."""
    digest: Digest
    size: int


class Outcome(NamedTuple):
    """What became of a job."""

    job: int
    stamp: Stamp | None = None
    digest: Digest | None = None
    """Of the source.  None: it was not there to be read."""
    nodes: tuple[NodeRecord, ...] = ()
    claims: tuple[str, ...] = ()
    """The leaves, as they turned out (a root that bypasses its tree names them only now)."""
    staged: tuple[Staged, ...] = ()
    """The leaves whose content is not what is in place."""
    files: tuple[FileFact, ...] = ()
    """The dependencies as they were found, for the record's stamps.  Those that were not there
    are among the nodes' dependencies and have none, so they are not said twice."""
    seconds: float = 0.0
    settled: bool = True
    """False: a file changed while it was read; run it again."""
    died: Diagnostic | None = None
    """The worker could not finish it: why.  The rest is then what it told before, if it did."""

    @property
    def failed(self) -> bool:
        """Whether any node of it failed, or the job died."""
        return self.died is not None or any(n.state is NodeState.FAILED for n in self.nodes)


class Publication(NamedTuple):
    """An output to be put in place."""

    output: str
    source: Source
    digest: Digest
    staged: str | None
    """Absolute path.  None: the right bytes are in place already, and become this source's."""
    replaces: Digest | None = None
    """What the record says is there now; None for nothing of ours."""

    @staticmethod
    def of(row: Row) -> "Publication":
        """The fact that a row stands for."""
        output, source, digest, staged, replaces = row
        return Publication(output, Source(*source), digest, staged, replaces)


class Deletion(NamedTuple):
    """An output to be taken away."""

    output: str
    source: Source
    """Whose it was."""
    digest: Digest
    reason: Reason

    @staticmethod
    def of(row: Row) -> "Deletion":
        """The fact that a row stands for."""
        output, source, digest, reason = row
        return Deletion(output, Source(*source), digest, Reason.of(reason))


class Change(NamedTuple):
    """All that one commit does, to the output root and to the record.

    It is written down as the intent before anything is done, so that a commit that was cut
    short can be done again.
    """

    batch: int
    put: tuple[Entry, ...] = ()
    drop: tuple[tuple[Source, Reason], ...] = ()
    files: tuple[FileFact, ...] = ()
    publish: tuple[Publication, ...] = ()
    delete: tuple[Deletion, ...] = ()

    @staticmethod
    def of(row: Row) -> "Change":
        """The fact that a row stands for."""
        batch, put, drop, files, publish, delete = row
        return Change(
            batch,
            tuple(Entry.of(e) for e in put),
            tuple((Source(*source), Reason.of(reason)) for source, reason in drop),
            tuple(FileFact.of(f) for f in files),
            tuple(Publication.of(p) for p in publish),
            tuple(Deletion.of(d) for d in delete),
        )


class Done(NamedTuple):
    """What became of the publications and deletions of a change."""

    placed: Mapping[str, Stamp]
    """The outputs that are in place, with their stamps."""
    blocked: Mapping[str, Diagnostic]
    """The outputs that could not be put in place: why.  What was there is there."""
    deleted: tuple[str, ...]
    kept: Mapping[str, str]
    """The outputs that were to be deleted and stay: why.  They are ours no more."""
    stuck: Mapping[str, Diagnostic]
    """The outputs that the disk refuses to delete: why.  They are still ours."""
    folders_made: tuple[str, ...] = ()
    folders_removed: tuple[str, ...] = ()


class Batch(NamedTuple):
    """One trip round the loop, as the record keeps it."""

    id: int
    trigger: str
    started_at: float
    """Seconds since the epoch."""
    seconds: float = 0.0
    changed: int = 0
    """Sources that were looked into."""
    built: int = 0
    """Sources of which a processor ran for at least one node."""
    cached: int = 0
    """Sources whose results all came from the store."""
    clean: int = 0
    """Sources that turned out as they were."""
    failed: int = 0
    deleted: int = 0
    """Outputs taken away."""
    finished_at: float | None = None
    """None while it goes on, or if it was cut short."""


class Committed(NamedTuple):
    """A change that is published and recorded, for whoever counts it or tells it on."""

    change: Change
    """As it turned out."""
    done: Done
    healed: frozenset[Source]
    """The sources that failed before, and do no more."""
    latency_seconds: float | None
    """From the first event of a save to here; None for what nobody waits for."""


Hear: TypeAlias = Callable[[Committed | Batch], None]
"""Gets every change when it is committed, and every batch that did something when it ends."""

# By value.  A lookup, for calling an enum with a value costs ten times as much.
KINDS: Final = {str(each): each for each in Kind}
NODE_STATES: Final = {str(each): each for each in NodeState}
_ENTRY_STATES: Final = {str(each): each for each in EntryState}
_CAUSES: Final = {str(each): each for each in Cause}
