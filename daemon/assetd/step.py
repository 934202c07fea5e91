"""One run of a processor: the `processor.Step` that it is handed, on real folders.

Knows one node and its staging; nothing of trees, keys and records.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

from assetd import globs
from assetd import place as places
from assetd import stamp as stamps
from assetd.errors import BuildError
from assetd.model import DependencyKey, Diagnostic, Digest, Kind, Place
from assetd.processor import Found, Options, Published
from assetd.tree import is_safe_name

_CHUNK: Final = 1 << 20
_NOTHING: Final = Found(None, None)
EXCERPT_LIMIT: Final = 200
_EXCERPT_LINES: Final = 100_000
WARNING_LIMIT: Final = 100


@dataclass(slots=True)
class Desk:
    """Where a processor works on one path; fulfils `processor.Step`."""

    processor: str
    path: str
    input_path: str
    origin_path: str
    mount: Path
    project: Path
    options: Options
    announced: Sequence[str] | None
    """The outputs that `Processor.outputs` named; None for a bypassing root."""
    stage: Callable[[str], str]
    """Gives a fresh path in staging for an output's name."""
    looker: stamps.Looker
    companions: Mapping[str, Path] = field(default_factory=dict)
    warm: Any = None
    in_place: Callable[[str, str, bool], Sequence[Published]] = lambda _mount, _pattern, _dates: ()
    """The outputs of a mount that a pattern finds, dated or not."""
    staged_digest: Digest | None = None
    """Of the input, if we have written it to staging and nobody else wants it."""
    testify: Callable[[DependencyKey], None] | None = None
    """Hears at once of what is depended on."""

    staged: dict[str, str] = field(default_factory=dict)
    """Where each output was written, by name."""
    digests: dict[str, Digest] = field(default_factory=dict)
    """Of the outputs that were written through us."""
    depended: dict[DependencyKey, Digest | None] = field(default_factory=dict)
    """What was depended on, in the order of the telling; for a glob what it found then."""
    warnings: list[Diagnostic] = field(default_factory=list)
    _scratch: str | None = None
    _lines: dict[str, Sequence[str]] = field(default_factory=dict)
    """Of the files that diagnostics are about."""

    @property
    def input(self) -> Path:
        """See `processor.Step`."""
        return Path(self.input_path)

    @property
    def origin(self) -> Path:
        """See `processor.Step`."""
        return Path(self.origin_path)

    def output(self, name: str) -> Path:
        """See `processor.Step`."""
        return Path(self._output(name))

    def write(self, name: str, content: str | bytes) -> None:
        """See `processor.Step`."""
        data = content.encode() if isinstance(content, str) else content
        stamps.write_file(self._output(name), data)
        self.digests[name] = stamps.digest_bytes(data)

    def copy(self) -> None:
        """See `processor.Step`."""
        self._check(self.path)
        if self.staged_digest is not None:
            self.staged[self.path] = self.input_path
            self.digests[self.path] = self.staged_digest
            return
        target = self._output(self.path)
        state = hashlib.sha256()
        # Read and written by hand: the digest must be of the very bytes that we wrote, and
        # copy_file_range would read them where we cannot see them.
        with open(self.input_path, "rb", buffering=0) as source, open(target, "wb", 0) as file:
            while chunk := source.read(_CHUNK):
                state.update(chunk)
                view = memoryview(chunk)
                while view:
                    view = view[file.write(view) :]
        self.digests[self.path] = state.hexdigest()

    def _output(self, name: str) -> str:
        self._check(name)
        if name not in self.staged:
            self.staged[name] = self.stage(name)
        self.digests.pop(name, None)
        return self.staged[name]

    def _check(self, name: str) -> None:
        if self.announced is None:
            if not is_safe_name(name):
                raise BuildError(f"{self.processor} makes {name!r}, no path below the output root")
        elif name not in self.announced:
            expected = ", ".join(self.announced)
            raise BuildError(f"{self.processor} makes {name!r}, but announced {expected}")

    def scratch(self) -> Path:
        """See `processor.Step`."""
        if self._scratch is None:
            self._scratch = self.stage("scratch")
            os.mkdir(self._scratch)
        return Path(self._scratch)

    def depends(self, path: str | os.PathLike[str]) -> None:
        """See `processor.Step`."""
        place = self.looker.place(os.fspath(path))
        self._depend(place, self.looker.links(place))

    def find(self, paths: Iterable[str | os.PathLike[str]]) -> list[Found]:
        """See `processor.Step`."""
        found = []
        for path in paths:
            place = self.looker.place(os.fspath(path))
            seen = self.looker.seen(place)
            self._depend(place, seen.links)
            found.append(Found(seen.kind, seen.fact.digest) if seen.kind else _NOTHING)
        return found

    def _depend(self, place: Place, links: Iterable[str]) -> None:
        self._note((Kind.FILE, place, ""))
        for target in links:
            self._note((Kind.FILE, self.looker.place(target), ""))

    def _note(self, key: DependencyKey, found: Digest | None = None) -> None:
        if self.testify is not None and key not in self.depended:
            self.testify(key)
        self.depended.setdefault(key, found)

    def depends_glob(self, folder: str | os.PathLike[str], pattern: str) -> Sequence[Path]:
        """See `processor.Step`."""
        place = places.of(folder, str(self.project))
        base = places.path(place, str(self.project))
        names = globs.names(base, pattern)
        self._note((Kind.GLOB, place, pattern), globs.digest_of(names))
        return tuple(Path(base, name) for name in names)

    def published(self, mount: str, pattern: str, *, dates: bool = False) -> Sequence[Published]:
        """See `processor.Step`."""
        kind = Kind.DATED_OUTPUTS if dates else Kind.OUTPUTS
        self._note((kind, mount, pattern))
        return self.in_place(mount, pattern, dates)

    def warn(
        self,
        message: str,
        *,
        file: str | os.PathLike[str] | None = None,
        line: int | None = None,
        column: int | None = None,
    ) -> None:
        """See `processor.Step`."""
        if len(self.warnings) < WARNING_LIMIT:
            self.warnings.append(self._diagnostic(message, file, line, column))

    def fail(
        self,
        message: str,
        *,
        file: str | os.PathLike[str] | None = None,
        line: int | None = None,
        column: int | None = None,
    ) -> BuildError:
        """See `processor.Step`."""
        return BuildError(
            message, file=None if file is None else os.fspath(file), line=line, column=column
        )

    def diagnose(self, error: BuildError) -> Diagnostic:
        """What people are told of *error*, with the line that it is about."""
        return self._diagnostic(error.message, error.file, error.line, error.column)

    def clear_scratch(self) -> None:
        """Remove what `scratch` gave."""
        if self._scratch is None:
            return
        try:
            os.rmdir(self._scratch)  # mostly it is empty, and this is much quicker
        except OSError:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def _diagnostic(
        self,
        message: str,
        file: str | os.PathLike[str] | None,
        line: int | None,
        column: int | None,
    ) -> Diagnostic:
        # A plugin may hand us anything.
        line = line if isinstance(line, int) else None
        column = column if isinstance(column, int) else None
        message = str(message)
        path = os.path.join(self.project, self.origin_path if file is None else os.fspath(file))
        if path == self.input_path != self.origin_path:
            path = self.origin_path  # nobody can open staging
        place = self.looker.place(path)
        return Diagnostic(message, place, line, column, self._excerpt(path, line))

    def _excerpt(self, path: str, line: int | None) -> str | None:
        if line is None:
            return None
        lines = self._lines.get(path)
        if lines is None:  # a compiler may have much to say of one file
            lines = self._lines[path] = _lines(path)
        return lines[line - 1].rstrip("\r\n")[:EXCERPT_LIMIT] if 1 <= line <= len(lines) else None


def _lines(path: str) -> Sequence[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return list(islice(file, _EXCERPT_LINES))
    except (OSError, ValueError):
        return ()
