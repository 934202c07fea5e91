"""Results by key: a result once made is never made again.  Content-addressed and bounded.

`objects/` holds contents by their digest, `results/` holds for a base key (processor, version,
options, path, input) the results seen, each with the dependencies that it came from.  Workers
read and write it side by side without agreement: a file appears by a rename, its name says what
it must hold, and who reads it checks.  Nothing in it is ever needed: losing it costs time.
"""

import contextlib
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from assetd import stamp as stamps
from assetd.model import KINDS, Dependency, DependencyKey, Diagnostic, Digest, Made

RESULTS_PER_KEY: Final = 8
"""How many sets of dependencies one input is remembered with: branches that one goes between."""

_FORM: Final = 2
"""Of the files below `results/`: those of another one are as good as damaged."""


class Result(NamedTuple):
    """What a node made, and of which dependencies."""

    dependencies: tuple[Dependency, ...]
    made: tuple[Made, ...]
    warnings: tuple[Diagnostic, ...]


@dataclass(frozen=True, slots=True)
class Results:
    """The results remembered for a key, the latest first; most of them are never looked at.

    They come of the same dependencies, but for a few, with other contents: so these are named
    once, and asked for once.
    """

    _named: tuple[tuple[DependencyKey, ...], ...] = ()
    """What each set of dependencies is on."""
    _rows: tuple[list[Any], ...] = ()
    """Each a result: the index of its set, the digests in the same order, made, warnings."""

    def __iter__(self) -> Iterator[Result]:
        for row in self._rows:
            yield self._result(row)

    def holding(self, current: Callable[[DependencyKey], Digest | None]) -> Iterator[Result]:
        """Those whose dependencies have the digests that *current* gives."""
        asked: dict[int, list[Digest | None]] = {}
        for row in self._rows:
            named, digests, _, _ = row
            if named not in asked:
                asked[named] = [current(key) for key in self._named[named]]
            if asked[named] == digests:
                yield self._result(row)

    def _result(self, row: list[Any]) -> Result:
        named, digests, made, warnings = row
        return Result(
            tuple(
                Dependency(kind, place, pattern, digest)
                for (kind, place, pattern), digest in zip(self._named[named], digests, strict=True)
            ),
            tuple(Made(*m) for m in made),
            tuple(Diagnostic(*w) for w in warnings),
        )

    def with_(self, result: Result) -> "Results":
        """These with *result* before them, as many as are remembered."""
        on = tuple(d.key for d in result.dependencies)
        digests = [d.digest for d in result.dependencies]
        others = [
            (self._named[named], *rest)
            for named, *rest in self._rows
            if (self._named[named], rest[0]) != (on, digests)
        ]
        kept = [(on, digests, result.made, result.warnings), *others][:RESULTS_PER_KEY]
        numbers = {each: n for n, each in enumerate(dict.fromkeys(named for named, *_ in kept))}
        return Results(tuple(numbers), tuple([numbers[named], *rest] for named, *rest in kept))

    def text(self) -> str:
        """The fact as JSON."""
        return json.dumps([self._named, self._rows], separators=(",", ":"))

    @staticmethod
    def of(text: bytes) -> "Results":
        """The fact that `text()` made."""
        named, rows = json.loads(text)
        return Results(
            tuple(tuple((KINDS[kind], *rest) for kind, *rest in keys) for keys in named),
            tuple(rows),
        )


def base_key(processor: str, version: str, options: Digest, path: str, input_: Digest) -> Digest:
    """What a node's result comes from, but for the dependencies, which only a run tells."""
    text = json.dumps([processor, version, options, path, input_])
    return hashlib.sha256(text.encode()).hexdigest()


class Store:
    """The results below one folder."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._serial = 0

    def find(self, key: Digest) -> Results:
        """The results remembered for *key*."""
        path = self._path("results", key)
        try:
            with open(path, "rb") as file:
                results = Results.of(_opened(key, file.read()))
        except FileNotFoundError:
            return Results()
        except (OSError, ValueError, TypeError, LookupError):
            # Cut short by a power loss, or edited: worth nothing, so make room.
            with contextlib.suppress(OSError):
                os.unlink(path)
            return Results()
        with contextlib.suppress(OSError):
            os.utime(path)
        return results

    def save(self, key: Digest, result: Result) -> None:
        """Remember *result* for *key*, beside others; its contents are there already, by `put`."""
        results = self.find(key).with_(result)
        with contextlib.suppress(OSError):  # no space: it costs time, some day
            self._write(self._path("results", key), _sealed(key, results.text().encode()))

    def put(self, digest: Digest, source: str | int) -> None:
        """Keep a content that has *digest*.

        A copy and not a link: outputs are edited by hand now and then, in place.  Perhaps this
        one was by now: then there is nothing to keep.

        Args:
            digest: What it is called by.
            source: The path of a file that holds it, or an open one, which is closed.
        """
        target = self._path("objects", digest)
        # No space, say: it costs time, some day.
        with contextlib.suppress(OSError), open(source, "rb", buffering=0) as file:
            with contextlib.suppress(OSError):
                # One that a power cut has emptied would be good for nothing, for ever.
                if stamps.digest_file(target)[0] == digest:
                    os.utime(target)
                    return
            content = file.read()
            if stamps.digest_bytes(content) == digest:
                self._write(target, content)

    def fetch(self, digest: Digest, path: str) -> bool:
        """Copy the content with *digest* to *path*; False if we do not have it (any more)."""
        source = self._path("objects", digest)
        try:
            with open(source, "rb") as file:
                content = file.read()
            os.utime(source)
        except OSError:
            return False
        if hashlib.sha256(content).hexdigest() != digest:
            with contextlib.suppress(OSError):
                os.unlink(source)
            return False
        with open(path, "wb") as file:
            file.write(content)
        return True

    def trim(self, limit_bytes: int) -> Iterator[int]:
        """Delete what was used least recently, down to *limit_bytes*; yields between steps.

        The caller goes on when it has time; each yield gives the bytes known so far, the last
        one those that are left.
        """
        found: list[tuple[int, int, str]] = []
        total = 0
        for area in ("results", "objects"):
            for folder in _entries(os.path.join(self._root, area)):
                for entry in _entries(folder.path):
                    with contextlib.suppress(OSError):
                        stat = entry.stat()
                        found.append((stat.st_mtime_ns, stat.st_size, entry.path))
                        total += stat.st_size
                yield total
        if total > limit_bytes:
            found.sort()
            for _, size, path in found:
                if total <= limit_bytes:
                    break
                with contextlib.suppress(OSError):
                    os.unlink(path)
                total -= size
                yield total

    def _path(self, area: str, name: Digest) -> str:
        return f"{self._root}/{area}/{name[:2]}/{name[2:]}"

    def _write(self, path: str, content: bytes) -> None:
        self._serial += 1
        temporary = f"{path}.{os.getpid()}-{self._serial}"
        try:
            try:
                stamps.write_file(temporary, content)
            except FileNotFoundError:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                stamps.write_file(temporary, content)
            os.rename(temporary, path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise


def _sealed(key: Digest, text: bytes) -> bytes:
    """A result with a checksum: half a word of it may be JSON, too, and mean another thing."""
    return b"%08x%s" % (_sum(key, text), text)


def _opened(key: Digest, content: bytes) -> bytes:
    """What was sealed; raises ValueError if it is not what was written."""
    text = content[8:]
    if content[:8] != b"%08x" % _sum(key, text):
        raise ValueError("a result is not as it was written")
    return text


def _sum(key: Digest, text: bytes) -> int:
    return zlib.crc32(text, zlib.crc32(key.encode(), _FORM))


def _entries(folder: str) -> Sequence[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except OSError:
        return ()
