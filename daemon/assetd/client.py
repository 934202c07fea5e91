"""The other end of the control socket: where it is, and asking over it.

Knows bytes and JSON; imports little, because `assetd status` starts with it.
"""

import contextlib
import hashlib
import json
import os
import socket
import time
from typing import Any, Final, TypeAlias

from assetd.errors import AssetdError, DeadlineError, NotRunningError

Reply: TypeAlias = dict[str, Any]

VERSION: Final = 1
LINE_LIMIT: Final = 64 << 20
"""Bytes of one reply; a list of all errors of a large project may be long."""


def socket_path(project: str, state_dir: str) -> str:
    """Where the daemon of *project* listens.

    Below `$XDG_RUNTIME_DIR` if there is one, for then it goes with the session; else in
    the state folder.  Both are private.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.path.isdir(runtime):
        name = hashlib.sha256(os.fsencode(project)).hexdigest()[:16]
        return os.path.join(runtime, "assetd", f"{name}.sock")
    return os.path.join(state_dir, "control.sock")


@contextlib.contextmanager
def address(path: str) -> Any:
    """An address of *path* that fits: the kernel takes 107 bytes, folders go deeper."""
    folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{os.path.basename(path)}"
    finally:
        os.close(folder)


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
            if deadline is not None:
                left = deadline - time.monotonic()
                if left <= 0:
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
        reply = self.receive(deadline)
        if not reply.get("ok"):
            raise AssetdError(str(reply.get("error", "assetd gave no reason")))
        return reply.get("data")
