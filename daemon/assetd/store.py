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
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from assetd import stamp as stamps
from assetd.model import Dependency, Diagnostic, Digest, Kind, Made

RESULTS_PER_KEY: Final = 8
"""How many sets of dependencies one input is remembered with: branches that one goes between."""


class Result(NamedTuple):
    """What a node made, and of which dependencies."""

    dependencies: tuple[Dependency, ...]
    made: tuple[Made, ...]
    warnings: tuple[Diagnostic, ...]


def base_key(processor: str, version: str, options: Digest, path: str, input_: Digest) -> Digest:
    """What a node's result comes from, but for the dependencies, which only a run tells."""
    text = json.dumps([processor, version, options, path, input_])
    return hashlib.sha256(text.encode()).hexdigest()


class Store:
    """The results below one folder."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._serial = 0

    def find(self, key: Digest) -> tuple[Result, ...]:
        """The results remembered for *key*, the latest first."""
        path = self._path("results", key)
        try:
            with open(path, "rb") as file:
                rows = _opened(key, file.read())
            results = tuple(
                Result(
                    tuple(Dependency(Kind(k), p, g, d) for k, p, g, d in deps),
                    tuple(Made(*m) for m in made),
                    tuple(Diagnostic(*w) for w in warnings),
                )
                for deps, made, warnings in rows
            )
        except FileNotFoundError:
            return ()
        except (OSError, ValueError, TypeError):
            # Cut short by a power loss, or edited: worth nothing, so make room.
            with contextlib.suppress(OSError):
                os.unlink(path)
            return ()
        with contextlib.suppress(OSError):
            os.utime(path)
        return results

    def save(self, key: Digest, result: Result) -> None:
        """Remember *result* for *key*; its contents are there already, by `put`."""
        kept = [r for r in self.find(key) if r.dependencies != result.dependencies]
        rows = [result, *kept][:RESULTS_PER_KEY]
        with contextlib.suppress(OSError):  # no space: it costs time, some day
            self._write(self._path("results", key), _sealed(key, json.dumps(rows).encode()))

    def put(self, digest: Digest, path: str) -> None:
        """Keep the content of the file at *path*, which has *digest*.

        A copy and not a link: outputs are edited by hand now and then, in place.
        """
        target = self._path("objects", digest)
        with contextlib.suppress(OSError):
            # One that a power cut has emptied would be good for nothing, for ever.
            if stamps.digest_file(target)[0] == digest:
                os.utime(target)
                return
        with contextlib.suppress(OSError):  # no space: it costs time, some day
            with open(path, "rb") as file:
                content = file.read()
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
            file = open(temporary, "wb")  # noqa: SIM115 - closed below, opened on the second try
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            file = open(temporary, "wb")  # noqa: SIM115
        try:
            with file:
                file.write(content)
            os.rename(temporary, path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise


def _sealed(key: Digest, text: bytes) -> bytes:
    """A result with a checksum: half a word of it may be JSON, too, and mean another thing."""
    return b"%08x%s" % (zlib.crc32(key.encode() + text), text)


def _opened(key: Digest, content: bytes) -> Any:
    """The rows of a result; raises ValueError if they are not what was written."""
    text = content[8:]
    if content[:8] != b"%08x" % zlib.crc32(key.encode() + text):
        raise ValueError("a result is not as it was written")
    return json.loads(text)


def _entries(folder: str) -> Sequence[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except OSError:
        return ()
