"""The lock of a project: whoever holds it is the only one that builds there.

A lock on a file and not a file with a number in it: the kernel lets go of it, however we end.
"""

import contextlib
import errno
import fcntl
import os
import shlex
import tempfile
from collections.abc import Iterator

from assetd import words
from assetd.errors import AlreadyRunningError, RecordError, UsageError


@contextlib.contextmanager
def held(state_dir: str, listens_at: str | None = None) -> Iterator[None]:
    """Hold the project.

    Args:
        state_dir: Of the project; the lock file lies in it.
        listens_at: Where a daemon's control socket will be, for clients to read in the
            lock file: their environment may name another place for it.

    Raises:
        AlreadyRunningError: Somebody else holds it; the text says who.
        UsageError: The state folder is closed to us.
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


def check_ours(state_dir: str) -> None:
    """See to it that a build, which writes all over the state folder, leaves it usable.

    Root may write anywhere.  But what root leaves in another user's state folder, that user's
    daemon can neither replace nor delete: it would never start again.

    Raises:
        UsageError: The folder, or something in it, belongs to another user.
    """
    try:
        folder = os.stat(state_dir).st_uid
        entries = {each.path: _owner(each) for each in os.scandir(state_dir)}
    except OSError:
        return  # it is not there yet; or what is wrong is told by whoever opens it
    me = words.user(os.geteuid())
    mend = f"`sudo chown -R {me} {shlex.quote(state_dir)}` makes it {me}'s"
    if not _is_ours(folder, state_dir):
        owner = words.user(folder)
        told = f"{state_dir} belongs to {owner}: build as {owner}, `sudo -u {owner} assetd …`; or "
        raise UsageError(told + mend)
    for path, uid in entries.items():
        if not _is_ours(uid, state_dir):
            raise UsageError(f"{path} belongs to {words.user(uid)}, and not to {me}: {mend}")


def _owner(entry: "os.DirEntry[str]") -> int:
    return entry.stat(follow_symlinks=False).st_uid


def _is_ours(owner: int, folder: str) -> bool:
    if owner == os.geteuid():
        return True
    try:
        # On a folder that a host shares, say, whatever we make is another user's.
        with tempfile.TemporaryFile(dir=folder) as file:
            return os.fstat(file.fileno()).st_uid == owner
    except OSError:
        return False


def _locked(path: str) -> int:
    """A descriptor of the file at *path*, which we hold the lock of."""
    while True:
        try:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            told = f"{path}: cannot be opened: {error.strerror}; `assetd doctor` says more"
            # Where it is forbidden, a service manager need not try again.  A disk that the kernel
            # has made read-only may come back.
            forbidden = error.errno in {errno.EACCES, errno.EPERM}
            raise (UsageError(told) if forbidden else RecordError(told)) from error
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
