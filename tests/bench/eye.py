"""Sees files change, by an inotify descriptor of this process: no polling, no naps.

Everybody is watched with the same eye, so what it costs (a wake-up, and a read of the output)
is in every number, those of the floors included.
"""

import ctypes
import os
import select
import struct
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, Self

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_HEAD: Final = struct.Struct("iIII")

CLOSE_WRITE: Final = 0x8
MOVED_TO: Final = 0x80
_MODIFY: Final = 0x2
_CREATE: Final = 0x100


class Eye:
    """Watches folders, not what is below them."""

    def __init__(
        self, folders: Iterable[Path], mask: int = CLOSE_WRITE | MOVED_TO | _MODIFY | _CREATE
    ) -> None:
        self.fd: int = _LIBC.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        self._folders: dict[int, Path] = {}
        for folder in folders:
            number = _LIBC.inotify_add_watch(self.fd, os.fsencode(folder), mask)
            if number < 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(folder))
            self._folders[number] = folder

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)

    def changed(self, timeout_seconds: float) -> list[Path]:
        """The files that something happened to, waiting for the first; none if time is up."""
        if not select.select([self.fd], [], [], timeout_seconds)[0]:
            return []
        data, at, found = os.read(self.fd, 1 << 16), 0, []
        while at < len(data):
            watch, _, _, length = _HEAD.unpack_from(data, at)
            name = data[at + _HEAD.size : at + _HEAD.size + length].rstrip(b"\0")
            at += _HEAD.size + length
            if watch in self._folders:
                found.append(self._folders[watch] / os.fsdecode(name))
        return found

    def wait(self, wanted: Mapping[Path, Callable[[bytes], bool]], seconds: float) -> float:
        """When the last of the files held what it must, by the performance counter.

        Args:
            wanted: Whether a content is right, for each file.
            seconds: How long to wait at the most.

        Raises:
            TimeoutError: One of them never did.
        """
        deadline = time.monotonic() + seconds
        pending = dict(wanted)
        look = list(pending)
        while True:
            for path in look:
                is_right = pending.get(path)
                if is_right is not None and is_right(_content(path)):
                    del pending[path]
            now = time.perf_counter()
            if not pending:
                return now
            left = deadline - time.monotonic()
            if left <= 0.0:
                name = next(iter(pending))
                raise TimeoutError(f"{name} and {len(pending) - 1} more were not built")
            # Now and then all of them: a folder that is made anew has no watch any more.
            look = self.changed(min(1.0, left)) or list(pending)


def _content(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""
