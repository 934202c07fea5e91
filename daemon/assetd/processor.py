r"""The plugin contract: all that the author of a processor needs to read.

A processor is a value, not a class to derive from::

    from assetd.processor import Names, Option, Processor, Step, same_name, suffix

    def banner(step: Step) -> None:
        text = step.input.read_text()
        step.write(step.path, f"/* {step.options['text']} */\n{text}")

    processor = Processor(
        name="banner",
        version="1",
        matches=suffix(".js"),
        outputs=same_name,
        process=banner,
        options=(Option("text", str, "", "What stands on top of every script."),),
    )

It is found through the entry-point group `assetd.processors`, or as a module named in the
configuration's `plugins:`, where every `Processor` at the top level counts.

`matches`, `outputs` and `include_only` are asked in the owner's process, for every path, so
they must be pure and quick: they see a name, never a file.  `process` runs in a worker, where
it may take its time, leak or crash: only its own source suffers.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Protocol, TypeAlias

from assetd.errors import BuildError

__all__ = [
    "FIRST",
    "LAST",
    "NORMAL",
    "BuildError",
    "Context",
    "Found",
    "Names",
    "Option",
    "Options",
    "Processor",
    "Published",
    "Setting",
    "Step",
    "Tool",
    "same_name",
    "suffix",
]

Options: TypeAlias = Mapping[str, Any]
"""The processor's options by name, checked against its schema, defaults filled in."""

FIRST: Final = 0
NORMAL: Final = 50
LAST: Final = 100


@dataclass(frozen=True, slots=True)
class Names:
    """What a processor will make of a path, by name, relative to the mount."""

    primary: tuple[str, ...]
    """Each is offered to the processors that this branch has not used yet."""
    companions: tuple[str, ...] = ()
    """Made beside them and finished as they are (source maps).

    A processor further down the branch that makes a file of the same name takes its place;
    it finds the one it replaces in `Step.companions`.
    """


@dataclass(frozen=True, slots=True)
class Option:
    """One key of the processor's section in `assetd.yml`."""

    name: str
    type: type[bool | int | float | str | list[str] | dict[str, Any]]
    """`list` is of strings, and a string with spaces stands for one; `dict` is left unchecked."""
    default: bool | int | float | str | Sequence[str] | Mapping[str, Any] | None
    help: str
    choices: tuple[str | int, ...] = ()
    """All that is allowed; empty for anything of the type."""
    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True, slots=True)
class Tool:
    """The compiler behind a processor, as it is on this machine."""

    name: str
    version: str | None
    """None: it is not there."""
    cure: str | None = None
    """What to type where it is not there."""


@dataclass(frozen=True, slots=True)
class Published:
    """An output that is in place."""

    name: str
    """Relative to the output root."""
    source: Path
    """What it was made of, in the mount."""
    modified: int | None = None
    """When that was last modified, in whole seconds since the epoch; None if nobody asked."""


@dataclass(frozen=True, slots=True)
class Found:
    """What `Step.find` found."""

    kind: Literal["file", "folder", "other"] | None
    """None: nothing."""
    digest: str | None
    """The SHA-256 of the file's content; None if it is none, or cannot be read."""


class Step(Protocol):
    """One run of a processor on one path, in a worker."""

    @property
    def path(self) -> str:
        """The input's name, relative to the mount: `css/site.scss`."""

    @property
    def input(self) -> Path:
        """Where to read it: the source itself, or what the node before made of it."""

    @property
    def origin(self) -> Path:
        """Where it would be in the mount: relative imports start beside it.

        It exists if the node is the first of its tree, and is `input` then.
        """

    @property
    def mount(self) -> Path:
        """The mount's folder."""

    @property
    def project(self) -> Path:
        """The folder of `assetd.yml`; relative paths in options start there."""

    @property
    def options(self) -> Options:
        """This processor's options."""

    @property
    def companions(self) -> Mapping[str, Path]:
        """What the node before made beside the input, by name (source maps)."""

    @property
    def warm(self) -> Any:
        """What `Processor.warm` gave; None where there is no such function."""

    def output(self, name: str) -> Path:
        """Where to write the output *name*; folders are there.

        Raises:
            BuildError: *name* is not one that `outputs` announced.
        """

    def write(self, name: str, content: str | bytes) -> None:
        """Write the output *name* at once.  Text becomes UTF-8."""

    def copy(self) -> None:
        """Make the output `path` of the input, unchanged, the cheapest way there is."""

    def scratch(self) -> Path:
        """An empty folder for a tool's own files; gone after the step."""

    def depends(self, path: str | os.PathLike[str]) -> None:
        """The result comes from the content of this file too.

        Say it also of one that was looked for and is not there: when it appears, the
        node runs again.  Relative paths start from the project.
        """

    def find(self, paths: Iterable[str | os.PathLike[str]]) -> list[Found]:
        """What is at each of *paths*, links followed; the result comes from it, by `depends`.

        Cheaper than looks of one's own: what other steps found is known while it stands.
        """

    def depends_glob(self, folder: str | os.PathLike[str], pattern: str) -> Sequence[Path]:
        """The files that *pattern* finds below *folder*, sorted.

        `**` crosses folders, but no links to folders: they may lead in circles.
        The node runs again when a name comes or goes, not when a content changes: call
        `depends` for the files that are read.
        """

    def published(self, mount: str, pattern: str, *, dates: bool = False) -> Sequence[Published]:
        """The outputs that the sources of *mount* have in place and *pattern* finds, by name.

        The node runs again when a name comes or goes, and with *dates* when a source's time
        of modification changes: at the end of a batch, when all others are in place.

        Raises:
            BuildError: There is no such mount.
        """

    def warn(
        self,
        message: str,
        *,
        file: str | os.PathLike[str] | None = None,
        line: int | None = None,
        column: int | None = None,
    ) -> None:
        """Tell people something that does not make the result wrong."""

    def fail(
        self,
        message: str,
        *,
        file: str | os.PathLike[str] | None = None,
        line: int | None = None,
        column: int | None = None,
    ) -> BuildError:
        """The error to raise when the input is wrong; *file* defaults to the input.

        What `depends` was told before still counts: the fix of any of those files runs
        the node again.
        """


@dataclass(frozen=True, slots=True)
class Setting:
    """What a processor is opened with, once per worker and generation."""

    project: Path
    options: Options
    worker: int | None
    """The worker's number; None in the owner's process."""


@dataclass(frozen=True, slots=True)
class Context:
    """Where a pipeline hook runs.  Hooks run in the main process and in every worker."""

    role: Literal["main", "worker"]
    worker: int | None
    """The worker's number; None in the main process."""
    project: Path
    out_dir: Path
    options: Options
    ignored: list[str] = field(default_factory=list)

    @property
    def is_pipeline_process(self) -> bool:
        """Whether this is the main process: do once-only work there."""
        return self.role == "main"

    @property
    def is_first_worker(self) -> bool:
        """Whether this is worker 0."""
        return self.worker == 0

    def ignore(self, pattern: str) -> None:
        """Add a pattern to the configuration's `ignore`; counts in the main process only."""
        self.ignored.append(pattern)


Matcher: TypeAlias = Callable[[str, Options], bool]
Namer: TypeAlias = Callable[[str, Options], Names]


def never(_path: str, _options: Options) -> bool:
    """A matcher for no path."""
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Processor:
    """One way to turn a file into others."""

    name: str
    """Of its section in `assetd.yml` and in filters: lower case, no spaces."""
    version: str
    """Change it when the same input would give other bytes: that dirties what it made."""
    matches: Matcher
    """Whether it takes a path."""
    outputs: Namer
    """What it makes of a path that it takes.  Ignored where `bypass` is set."""
    process: Callable[[Step], None]
    """Makes every output that was announced, or raises `step.fail(...)`."""
    suffixes: tuple[str, ...] = ()
    """In lower case.  Of a path that ends in none of these, whatever its case, `matches` and
    `include_only` are not asked, which spares most of the questions; empty: of any path."""
    options: tuple[Option, ...] = ()
    priority: int = NORMAL
    """The lowest that matches takes the path."""
    default: bool = True
    """Whether `all` in a filter means this one too."""
    cheap: bool = False
    """Running it costs less than keeping its results in the store."""
    ends: bool = False
    """Its outputs are leaves, offered to nobody."""
    verbatim: bool = False
    """It makes one output, which is the input as it is: whoever has the bytes may carry them
    over without asking `process`."""
    bypass: bool | Matcher = False
    """It names its outputs only by making them, and no processor comes after it.

    A function where that depends on the options; it is asked of paths that `matches` takes.
    """
    include_only: Matcher = never
    """Paths that only others read: no sources, whatever other processors match them."""
    tool: Callable[[Setting], Tool] | None = None
    """Asked once in the main process for the tool that the options choose; its version is
    part of the key of every node."""
    warm: Callable[[Setting], object] | None = None
    """Makes what a worker keeps between steps: a compiler, a connection."""
    start: Callable[[Context], None] | None = None
    """Runs when the pipeline starts, in the main process and then in every worker."""
    end: Callable[[Context], None] | None = None
    """Runs when the pipeline ends, in every worker and then in the main process."""
    timeout_seconds: float = 120.0
    """A job that shows no progress for so long is killed, with its worker."""

    def __post_init__(self) -> None:
        if any(not each or each != each.lower() for each in self.suffixes):
            raise ValueError(f"{self.name}: suffixes {self.suffixes!r}: expected lower case")


def suffix(*suffixes: str) -> Matcher:
    """A matcher for names that end in one of *suffixes*, whatever their case."""
    lowered = tuple(s.lower() for s in suffixes)

    def matches(path: str, _options: Options) -> bool:
        return path.lower().endswith(lowered)

    return matches


def same_name(path: str, _options: Options) -> Names:
    """The output has the input's name."""
    return Names((path,))
