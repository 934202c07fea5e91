"""The lock of a project: whoever holds it is the only one that builds there.

A lock on a file and not a file with a number in it: the kernel lets go of it, however we end.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator

from assetd.errors import AlreadyRunningError, RecordError


@contextlib.contextmanager
def held(state_dir: str, listens_at: str | None = None) -> Iterator[None]:
    """Hold the project.

    Args:
        state_dir: Of the project; the lock file lies in it.
        listens_at: Where a daemon's control socket will be, for clients to read in the
            lock file: their environment may name another place for it.

    Raises:
        AlreadyRunningError: Somebody else holds it; the text says who.
    """
    path = os.path.join(state_dir, "lock")
    fd = _locked(path)
    try:
        with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
            os.ftruncate(fd, 0)
            # Its own inode: in a copy of the project it says nothing of the copy.
            told = f"{os.getpid()}\n{listens_at or ''}\n{os.fstat(fd).st_ino}\n"
            os.pwrite(fd, os.fsencode(told), 0)
        yield
    finally:
        os.close(fd)


def _locked(path: str) -> int:
    """A descriptor of the file at *path*, which we hold the lock of."""
    while True:
        try:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            told = f"{path}: cannot be opened: {error.strerror}; `assetd doctor` says more"
            raise RecordError(told) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(OSError):
                if os.stat(path).st_ino == os.fstat(fd).st_ino:
                    return fd
        except BlockingIOError:
            holder = os.read(fd, 32).split(b"\n")[0].decode("ascii", "replace") or "unknown"
            os.close(fd)
            raise AlreadyRunningError(
                f"another assetd holds this project (pid {holder}): "
                "`assetd stop` ends it, `assetd status` asks it"
            ) from None
        # `assetd clean` took the file away between the two: what we hold is nobody's lock.
        os.close(fd)
