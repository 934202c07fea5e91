"""What the rows of the record look like.  Knows no SQL.

Paths are bytes, for a file name is; digests are their 32 bytes, and a stamp is four columns.  A
source is its mount's name, a NUL and its path.  The last column is the seal, a checksum of the
others.  Whoever reads a row gets what was written or a `CorruptRecordError`.
"""

import json
import os
import sys
import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from assetd.errors import CorruptRecordError
from assetd.model import (
    Diagnostic,
    Digest,
    Entry,
    EntryState,
    FileFact,
    Kind,
    NodeRecord,
    Output,
    Place,
    Reason,
    Source,
    Stamp,
)

NONSENSE: Final = (ValueError, TypeError, AttributeError, KeyError, RecursionError)
"""What reading a row raises that is not what we wrote."""
NO_STAMP: Final = (None, None, None, None)
ENCODING: Final = sys.getfilesystemencoding()
LINKS: Final = 14
"""Where a row of `sources` has `links_of` its entry."""
_KINDS: Final = {kind: kind.value for kind in Kind}
"""For `value` of an enum is a slow property."""


def encoded(name: str) -> bytes:
    """As `os.fsencode`, at a third of its price: a commit of a hundred entries asks 3,000 times."""
    return name.encode(ENCODING, "surrogateescape")


def seal(*values: object) -> int:
    """The checksum of a row; of what SQLite gives back, so a real number is a float."""
    return zlib.crc32(ascii(values).encode())


def sealed(*values: object) -> tuple[Any, ...]:
    """The row with its seal."""
    return (*values, seal(*values))


def opened(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """The row without its seal.

    Raises:
        CorruptRecordError: It is not what was written.
    """
    if row[-1] != zlib.crc32(ascii(row[:-1]).encode()):
        raise CorruptRecordError("a row is not as it was written")
    return row[:-1]


def entry_of(row: tuple[Any, ...]) -> Entry:
    """Of a row of `sources`."""
    try:
        mount, folder, name, *stamp, digest, state, _, batch, seconds, reason, detail, _ = opened(
            row
        )
        claims, nodes, problem = json.loads(detail)
        return Entry(
            Source(mount, join(folder, name)),
            stamp_of(stamp),
            digest_of(digest),
            EntryState(state),
            tuple(claims),
            tuple(NodeRecord.of(n) for n in nodes),
            Reason.of(json.loads(reason)),
            None if problem is None else Diagnostic(*problem),
            batch,
            seconds,
        )
    except NONSENSE as error:
        raise CorruptRecordError(f"unreadable entry: {error}") from error


def row_of_entry(entry: Entry) -> tuple[Any, ...]:
    """For `sources`."""
    return sealed(
        entry.source.mount,
        *split(entry.source.path),
        *row_of_stamp(entry.stamp),
        raw_digest(entry.digest),
        entry.state.value,
        sum(len(node.warnings) for node in entry.nodes),
        entry.batch,
        float(entry.seconds),
        _reason_text(entry.reason),
        json.dumps([entry.claims, entry.nodes, entry.problem]),
        links_of(entry),
    )


@lru_cache(256)  # the sources of a batch have few different ones
def _reason_text(reason: Reason) -> str:
    return json.dumps(reason)


def links_of(entry: Entry) -> int:
    """The checksum of the rows of `dependents` and `outputs` that are there for *entry*."""
    key = key_of(entry.source)
    found = 0
    for each in {d.key for n in entry.nodes for d in n.dependencies}:
        found ^= link_sum(*link_row(each, key))
    for path in set(entry.claims):
        found ^= claim_sum(encoded(path), key)
    return found


def link_row(key: tuple[Kind, Place, str], source: bytes) -> tuple[bytes, str, bytes, bytes]:
    """For `dependents`: that the source with that key depends on what *key* names."""
    kind, place, pattern = key
    return encoded(place), _KINDS[kind], encoded(pattern), source


def link_sum(place: bytes, kind: str, pattern: bytes, key: bytes) -> int:
    """The checksum of a `link_row`."""
    return zlib.crc32(b"%b\0%b\0%b\0%b" % (place, kind.encode(), pattern, key))


def claim_sum(path: bytes, key: bytes) -> int:
    """The checksum of a claim: whose it is, and on what output."""
    return zlib.crc32(b"%b\0%b" % (path, key))


def row_of_output(
    path: str, source: Source, digest: Digest | None, stamp: Stamp | None = None
) -> tuple[Any, ...]:
    """For `outputs`; without a digest it is not in place."""
    return sealed(encoded(path), key_of(source), raw_digest(digest), *row_of_stamp(stamp))


def output_of(row: tuple[Any, ...]) -> Output:
    """Of a row of `outputs` that is in place."""
    return output_of_unsealed(opened(row))


def output_of_unsealed(row: tuple[Any, ...]) -> Output:
    """The same without the seal, of any schema."""
    path, source, digest, *stamp = row
    try:
        return Output(os.fsdecode(path), source_of(source), digest.hex(), stamp_of(stamp))
    except NONSENSE as error:
        raise CorruptRecordError(f"unreadable output: {error}") from error


def fact_of(row: tuple[Any, ...]) -> FileFact:
    """Of a row of `files`."""
    place, *stamp, digest = opened(row)
    try:
        return FileFact(os.fsdecode(place), stamp_of(stamp), digest_of(digest))
    except NONSENSE as error:
        raise CorruptRecordError(f"unreadable file: {error}") from error


def stamp_of(row: Sequence[int | None]) -> Stamp | None:
    """Of four columns."""
    mtime_ns, size, inode, ctime_ns = row
    if mtime_ns is None or size is None or inode is None or ctime_ns is None:
        return None
    return Stamp(mtime_ns, size, inode, ctime_ns)


def row_of_stamp(stamp: Stamp | None) -> tuple[int | None, ...]:
    """Four columns."""
    return NO_STAMP if stamp is None else stamp


def digest_of(digest: bytes | None) -> Digest | None:
    """Of its bytes."""
    return None if digest is None else digest.hex()


def raw_digest(digest: Digest | None) -> bytes | None:
    """Its bytes."""
    return None if digest is None else bytes.fromhex(digest)


def key_of(source: Source) -> bytes:
    """How rows name a source."""
    return encoded(f"{source.mount}\0{source.path}")


def decoded(raw: bytes) -> str:
    """The path of those bytes."""
    try:
        return os.fsdecode(raw)
    except TypeError as error:
        raise CorruptRecordError(f"unreadable name: {error}") from error


def source_of(key: bytes) -> Source:
    """Whose key it is."""
    mount, _, path = decoded(key).partition("\0")
    return Source(mount, path)


def split(path: str) -> tuple[bytes, bytes]:
    """The folder and the name of *path*."""
    return split_bytes(encoded(path))


def split_bytes(path: bytes) -> tuple[bytes, bytes]:
    """The same of a path that is bytes."""
    folder, slash, name = path.rpartition(b"/")
    return (folder or slash if path.startswith(b"/") else folder), name


def join(folder: bytes, name: bytes) -> str:
    """The path of a name in a folder."""
    return os.fsdecode(folder + b"/" + name if folder else name)
