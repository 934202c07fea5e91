"""What LibSass prints: caught while it compiles, and understood as warnings with places.

Its binding hands over nothing of it.  A custom function named `@warn` would be handed those
messages, but without their places, and the binding dies with SIGSEGV when it is to hand over a
value that it does not know, such as a function.
"""

import contextlib
import os
import re
import resource
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

PRINTED_BYTES: Final = 64 << 20
"""Whoever prints more does so for ever: the kernel ends the process, and its source fails."""

# LibSass prints in these forms (`error_handling.cpp`, and `eval.cpp` for @warn).
_WARNING: Final = re.compile(
    rb"""
    ^(?:DEPRECATION[ ])?WARNING[ ]on[ ]line[ ](?P<line1>\d+)(?:,[ ]column[ ](?P<column1>\d+))?
        [ ]of[ ](?P<file1>.+):\n
        (?P<text1>(?:.+\n)+)\n?
    |^DEPRECATION[ ]WARNING:[ ](?P<text2>(?:.+\n)+?)
        (?:[ ]+on[ ]line[ ](?P<line2>\d+)[ ]of[ ](?P<file2>.+)\n|\n)
    |^WARNING:[ ](?P<text3>(?s:.*?))\n
        [ ]+on[ ]line[ ](?P<line3>\d+)(?::(?P<column3>\d+))?[ ]of[ ](?P<file3>.+?)
        (?:,[ ]in[ ](?:function|mixin)[ ]`[^`\n]*`)?\n
        (?:[ ]+from[ ]line[ ].*\n)*\n?
    """,
    re.MULTILINE | re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Warned:
    """One warning."""

    message: str
    file: str | None
    """As it was printed: from the folder that the compiler ran in, or absolute."""
    line: int | None
    column: int | None


@contextlib.contextmanager
def caught(printed: bytearray) -> Iterator[None]:
    """While it is open, what C code prints to stderr goes to *printed*.

    For the main thread of a process that has no other.  Of a process that crashes meanwhile,
    nothing is kept.
    """
    # Not a pipe: nobody could empty it, as LibSass holds the GIL.
    catch = os.memfd_create("stderr")
    own = os.dup(2)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Python ignores the signal, and then a C++ stream that met the limit is broken for good.
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        most = PRINTED_BYTES if limits[0] < 0 else min(PRINTED_BYTES, limits[0])
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
        os.dup2(catch, 2)
        yield
    finally:
        os.dup2(own, 2)
        os.close(own)
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
        printed += os.pread(catch, os.fstat(catch).st_size, 0)
        os.close(catch)


def pass_on(printed: bytes) -> None:
    """Print what was caught after all."""
    # Whoever reads it may be gone, which is no fault of the source.
    with contextlib.suppress(OSError), open(2, "wb", buffering=0, closefd=False) as stderr:
        while printed:
            printed = printed[stderr.write(printed) :]


def understood(printed: bytes) -> tuple[list[Warned], bytes]:
    """The warnings in *printed*, each once, and what is left (`@debug`, and the unknown)."""
    warnings: dict[Warned, None] = {}
    rest = bytearray()
    end = 0
    for match in _WARNING.finditer(printed):
        rest += printed[end : match.start()]
        end = match.end()
        found = {k.rstrip("123"): v for k, v in match.groupdict().items() if v is not None}
        line, column, file = found.get("line"), found.get("column"), found.get("file")
        warned = Warned(
            found["text"].decode(errors="replace").rstrip("\n"),
            None if file is None else os.fsdecode(file),
            None if line is None else int(line),
            None if column is None else int(column),
        )
        warnings[warned] = None
    return list(warnings), bytes(rest + printed[end:])
