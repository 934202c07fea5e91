"""What we put in place, line by line, beside the record: whose an output is when that is lost.

Append-only.  A line has a checksum, the number of the commit that it is of, the boot that it was
written in, and for each output its digest (none: it was to be deleted) and its source.  It is
written before the change is carried out, so the file holds the output's old digest or its new
one: the disk says which.  Nothing in it is ever needed while the record is whole, so a disk that
refuses a line costs nothing now.
"""

import contextlib
import functools
import itertools
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from assetd.model import Digest, Output, Source

_TAIL_BYTES: Final = 1 << 18
"""Where the last line is looked for first."""
_LINE_OUTPUTS: Final = 1_000
_SLACK_BYTES: Final = 8 << 20
"""How much more than eight times what is in place a ledger may grow to."""

Fact = tuple[str, Digest | None, Source]
"""An output, its digest (None: it goes), its source."""
_Parsed = tuple[int, str, list[Fact]]


@dataclass(frozen=True, slots=True)
class Known:
    """What the ledger says of one output."""

    path: str
    source: Source
    serial: int
    """Of the commit that touched it last."""
    digests: tuple[Digest | None, ...]
    """The last two, the latest last; None: it was to be deleted."""


class Ledger:
    """The ledger at one path.  One process writes it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.last: int = 0
        """The number of the last commit that it knows of."""
        self.boot = ""
        """Which boot of the machine that was in."""
        self._file: int | None = None
        self._torn = False
        """Whether it may end in the middle of a line."""
        self._size = 0
        self._compacted = 0
        with contextlib.suppress(OSError), open(path, "rb") as file:
            self._size = self._compacted = file.seek(0, os.SEEK_END)
            file.seek(max(0, self._size - _TAIL_BYTES))
            tail = file.read()
            self._torn = tail[-1:] not in {b"", b"\n"}
            found = _last(tail)
            if found is None and self._size > _TAIL_BYTES:
                file.seek(0)
                found = _last(file.read())
            if found is not None:
                self.last, self.boot, _ = found

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def note(self, serial: int, facts: Sequence[Fact], *, sync: bool = False) -> None:
        """Write down what the commit *serial* is about to put in place and to delete.

        Args:
            serial: Its number.
            facts: One for each output.
            sync: Return when it is on the disk.
        """
        if not facts:
            return
        text = _line(serial, facts)
        self.last = max(self.last, serial)
        whole = b"\n" + text if self._torn else text
        self._torn = True
        with contextlib.suppress(OSError):  # no space: it is written anew on the next start
            if self._file is None:
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
                self._file = os.open(self.path, flags, 0o600)
            written = os.write(self._file, whole)
            self._size += written
            self._torn = written != len(whole)
            if sync:
                os.fdatasync(self._file)

    def is_long(self) -> bool:
        """Whether it is worth writing anew."""
        return self._size > 8 * self._compacted + _SLACK_BYTES

    def rewrite(self, serial: int, outputs: Iterable[Output], *, sync: bool = False) -> None:
        """Begin anew with what is in place; may be cut short at any moment."""
        temporary = f"{self.path}.new"
        with contextlib.suppress(OSError):
            with open(temporary, "wb") as file:
                facts = ((each.path, each.digest, each.source) for each in outputs)
                while piece := tuple(itertools.islice(facts, _LINE_OUTPUTS)):
                    file.write(_line(serial, piece))
                file.write(_line(serial, ()))
                size = file.tell()
                file.flush()
                if sync:
                    os.fsync(file.fileno())
            os.chmod(temporary, 0o600)
            os.rename(temporary, self.path)
            self.close()
            self.last, self._torn = serial, False
            self._size = self._compacted = size
        with contextlib.suppress(OSError):
            os.unlink(temporary)

    def read(self, after: int) -> dict[str, Known]:
        """The outputs that commits later than *after* were about; damaged lines count for none."""
        known: dict[str, Known] = {}
        for serial, _, facts in self._lines():
            for path, digest, source in facts:
                old = known.get(path)
                before = old.digests[-1:] if old is not None else ()
                known[path] = Known(path, source, serial, (*before, digest))
        return {path: each for path, each in known.items() if each.serial > after}

    def _lines(self) -> Iterator[_Parsed]:
        with contextlib.suppress(OSError), open(self.path, "rb") as file:
            yield from (found for raw in file if (found := _parsed(raw.rstrip(b"\n"))))


@functools.cache
def boot_id() -> str:
    """Which boot of the machine this is; empty where nobody says."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _line(serial: int, facts: Sequence[Fact]) -> bytes:
    rows = [(path, digest, source.mount, source.path) for path, digest, source in facts]
    text = json.dumps([serial, boot_id(), rows]).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _last(text: bytes) -> _Parsed | None:
    """The last whole line of *text*; None if there is none."""
    return next((found for raw in reversed(text.split(b"\n")) if (found := _parsed(raw))), None)


def _parsed(raw: bytes) -> _Parsed | None:
    """What a line says; None if it is damaged."""
    if b"%08x" % zlib.crc32(raw[9:]) != raw[:8]:
        return None
    try:
        serial, boot, rows = json.loads(raw[9:])
        facts = [(path, digest, Source(m, source)) for path, digest, m, source in rows]
    except (ValueError, TypeError):
        return None
    return serial, boot, facts
