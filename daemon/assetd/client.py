"""The other end of the control socket: where it is, who holds the project, and asking over it.

Knows bytes and JSON; imports little, because `assetd status` starts with it.
"""

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from typing import Any, Final, NamedTuple, TypeAlias

from assetd.errors import AssetdError, DeadlineError, NotRunningError

Reply: TypeAlias = dict[str, Any]

VERSION: Final = 1
LINE_LIMIT: Final = 64 << 20
"""Bytes of one reply; a list of all errors of a large project may be long."""
PATIENCE_SECONDS: Final = 10.0
"""A daemon that does not listen so long after it took the project is stuck."""


def socket_path(project: str, state_dir: str) -> str:
    """Where a daemon of *project* that is started here listens.

    Below `$XDG_RUNTIME_DIR` if there is one, for then it goes with the session; else in
    the state folder.  Both are private.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.path.isdir(runtime):
        import hashlib  # which brings OpenSSL along; mostly the lock file has the answer

        name = hashlib.sha256(os.fsencode(project)).hexdigest()[:16]
        return os.path.join(runtime, "assetd", f"{name}.sock")
    return os.path.join(state_dir, "control.sock")


@contextlib.contextmanager
def address(path: str) -> Iterator[str]:
    """An address of *path* that fits: the kernel takes 107 bytes, folders go deeper."""
    folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{os.path.basename(path)}"
    finally:
        os.close(folder)


class Holder(NamedTuple):
    """Who holds a project."""

    pid: int
    socket: str | None
    """Where it listens, or soon will; None for a build that is no daemon."""


def holder(state_dir: str) -> Holder | None:
    """Who holds the project now; None if nobody does.

    Only looks: to try the lock would be to hold it for a moment, and a daemon that starts
    just then would be told that another one runs.
    """
    noted = _noted(state_dir)
    if noted is None:
        return None
    found, inode = noted
    with contextlib.suppress(OSError):
        return found if _is_locked(inode) else None
    return None


def _noted(state_dir: str) -> tuple[Holder, int] | None:
    """Who has held the project last, by the lock file, and the file's inode.

    None in a copy of a project: the file notes its own inode.
    """
    try:
        fd = os.open(os.path.join(state_dir, "lock"), os.O_RDONLY | os.O_CLOEXEC)
        try:
            pid, _, rest = os.read(fd, 8192).partition(b"\n")
            own = os.fstat(fd).st_ino
        finally:
            os.close(fd)
    except OSError:
        return None
    path, _, inode = rest.rstrip(b"\n").rpartition(b"\n")
    if not pid.isdigit() or inode != b"%d" % own:
        return None
    return Holder(int(pid), os.fsdecode(path) or None), own


def _is_locked(inode: int) -> bool:
    """Whether anybody has locked a file of that number, as proc_locks(5) lists them."""
    wanted = f":{inode}"
    with open("/proc/locks", encoding="ascii") as locks:
        return any(
            fields[1] == "FLOCK" and fields[5].endswith(wanted)
            for fields in map(str.split, locks)
            if len(fields) > 5
        )


class Connection:
    """One client's connection."""

    def __init__(self, path: str) -> None:
        """Connect.

        Raises:
            NotRunningError: Nobody listens there.
        """
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            with address(path) as where:
                self._socket.connect(where)
        except OSError as error:
            self._socket.close()
            raise NotRunningError("no assetd is running here: `assetd start` starts one") from error
        self._buffer = bytearray()

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def subscribe(self, *names: str) -> None:
        """From now on `receive` gives what happens, one event at a time.

        Args:
            names: Of the events that are wanted; none for all.
        """
        self.ask("subscribe", events=list(names))

    def fileno(self) -> int:
        """Of the socket, to wait on."""
        return self._socket.fileno()

    def drain(self) -> None:
        """Forget what has come; it is waited for nothing.

        Raises:
            NotRunningError: The daemon hung up.
        """
        self._buffer.clear()
        try:
            while data := self._socket.recv(1 << 16, socket.MSG_DONTWAIT):
                del data
        except BlockingIOError:
            return
        except OSError as error:
            raise NotRunningError("assetd hung up") from error
        raise NotRunningError("assetd has ended")

    def send(self, do: str, **fields: object) -> None:
        """Send one request."""
        request = {"v": VERSION, "do": do, **fields}
        self._socket.sendall(json.dumps(request).encode("ascii") + b"\n")

    def receive(self, deadline: float | None = None) -> Reply:
        """The next line that comes.

        Args:
            deadline: By the monotonic clock.

        Raises:
            DeadlineError: Nothing came by then.
            NotRunningError: The daemon hung up.
        """
        while b"\n" not in self._buffer:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise DeadlineError("timed out: assetd has not answered yet")
            self._socket.settimeout(left)
            try:
                data = self._socket.recv(1 << 16)
            except TimeoutError as error:
                raise DeadlineError("timed out: assetd has not answered yet") from error
            except OSError as error:
                raise NotRunningError("assetd hung up") from error
            if not data:
                raise NotRunningError("assetd ended before it answered")
            self._buffer += data
            if len(self._buffer) > LINE_LIMIT:
                raise AssetdError("assetd's answer is too long")
        line, _, rest = bytes(self._buffer).partition(b"\n")
        self._buffer = bytearray(rest)
        reply: Reply = json.loads(line)
        return reply

    def ask(self, do: str, *, deadline: float | None = None, **fields: object) -> Any:
        """Send a request and give what comes back.

        Raises:
            AssetdError: The daemon refuses; the text says why.
        """
        self.send(do, **fields)
        return answer(self.receive(deadline))


def answer(reply: Reply) -> Any:
    """What a reply says.

    Raises:
        AssetdError: The daemon refuses; the text says why.
    """
    if not reply.get("ok"):
        raise AssetdError(str(reply.get("error", "assetd gave no reason")))
    return reply.get("data")


def connect(project: str, state_dir: str, patience_seconds: float = PATIENCE_SECONDS) -> Connection:
    """A connection to the daemon of *project*.

    Args:
        project: Its folder, real and absolute.
        state_dir: Its state folder, likewise.
        patience_seconds: How long a daemon that is about to listen is waited for.

    Raises:
        NotRunningError: There is none; or, without patience, it does not listen yet.
        DeadlineError: There is one, and it does not listen.
    """
    deadline = time.monotonic() + patience_seconds
    while True:
        noted = _noted(state_dir)
        path = None if noted is None else noted[0].socket
        try:
            return Connection(path or socket_path(project, state_dir))
        except NotRunningError:
            if path is None or patience_seconds == 0:
                raise
            # Not before: the kernel takes 10 ms to list its locks.
            found = holder(state_dir)
            if found is None:
                raise
            if time.monotonic() >= deadline:
                told = f"assetd (pid {found.pid}) holds the project and does not listen yet"
                raise DeadlineError(told) from None
        time.sleep(0.02)
