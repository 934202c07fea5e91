"""The owner's end of the process that workers are forked from.  Knows nothing of what they do.

That process is warm, has one thread and holds no worker's pipe, which makes it safe to fork; so
a worker costs a fork instead of a start of Python.  It is the workers' parent: it reaps them,
and only when it is told to, so that the number of one cannot be somebody else's before that.
"""

import array
import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from assetd import strays, wire

ANSWER_SECONDS: Final = 20.0
"""Forking takes milliseconds; one that says nothing for so long is replaced."""


class Child:
    """A process that was forked for us."""

    def __init__(self, server: "ForkServer", pid: int, pidfd: int) -> None:
        self._server = server
        self._parent = server.pid
        self.pid = pid
        self.pidfd = pidfd
        """Readable once it has ended."""
        self.returncode: int | None = None
        """Negative for a signal; None until it is reaped, and if nobody knows."""

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for its end; whether it has ended."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(None if seconds is None else seconds * 1000))

    def kill(self) -> None:
        """Kill it and what it started, unless they left its group; not once it is reaped.

        It leads a session of its own, so its number is its group's, once it has got so far.
        """
        if self._keeps_number():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def reap(self) -> None:
        """Learn how it ended, after it has; from then on its number may be another's."""
        if self._keeps_number():
            with contextlib.suppress(OSError):  # its parent has died, too
                self.returncode = self._server.reap(self.pid)
        os.close(self.pidfd)

    def _keeps_number(self) -> bool:
        """Whether its parent lives, as far as we know: else init has reaped it."""
        return self._server.pid == self._parent


class ForkServer:
    """Started when the first worker is wanted or `start` is called, and again if it dies."""

    def __init__(self, mark: str) -> None:
        """Start nothing yet.

        Args:
            mark: What the processes of its workers are found by, wherever they hide: see
                `strays`.  Whoever uses one holds it alone: a lock's folder, say.
        """
        self.mark = mark
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: socket.socket | None = None

    @property
    def pid(self) -> int | None:
        """Of its process, if it runs."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Have it get warm, without waiting for that."""
        if self._process is not None:
            return
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "assetd.forkserver_main", str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    env={**os.environ, strays.MARK: self.mark},
                    # Ctrl-C in a terminal reaches the whole group; the owner decides.
                    start_new_session=True,
                )
            except BaseException:
                ours.close()
                raise
        self._pipe = ours

    def fork(self, name: str, fds: Sequence[int], environment: Mapping[str, str]) -> Child:
        """Start a worker.

        Args:
            name: What process listings show.
            fds: What it gets: its standard output and error in one, then what
                `worker.main` takes.
            environment: All of it.

        Raises:
            OSError: There is no memory, or no process, to be had.
        """
        wanted = {"fork": name, "environment": {**environment, strays.MARK: self.mark}}
        self.start()
        try:
            answer, received = self._ask(wanted, fds)
        except ConnectionError:  # it was killed, since we asked it last
            self.start()
            answer, received = self._ask(wanted, fds)
        return Child(self, answer["pid"], *received)

    def reap(self, pid: int) -> int:
        """The exit code of a worker that has ended.

        Raises:
            OSError: It died before the worker did: nobody knows.
        """
        answer, _ = self._ask({"reap": pid})
        return int(answer["code"])

    def close(self) -> None:
        """End it; its workers have ended."""
        process, self._process = self._process, None
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
        if process is not None:
            process.kill()
            process.wait()

    def _ask(
        self, message: wire.Message, fds: Sequence[int] = ()
    ) -> tuple[wire.Message, list[int]]:
        if self._pipe is None:
            raise ConnectionResetError("the fork server has ended")
        self._pipe.settimeout(ANSWER_SECONDS)
        try:
            send(self._pipe, message, fds)
            answer = receive(self._pipe)
        except OSError:
            self.close()
            raise
        if answer is None:
            self.close()
            raise ConnectionResetError("the fork server died")
        if "errno" in answer[0]:
            raise OSError(answer[0]["errno"], os.strerror(answer[0]["errno"]))
        return answer


def send(pipe: socket.socket, message: wire.Message, fds: Sequence[int] = ()) -> None:
    """Send a message, and descriptors with it."""
    data = wire.encode(message)
    sent = 0
    if fds:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        sent = pipe.sendmsg([data], rights)
    pipe.sendall(data[sent:])


def receive(pipe: socket.socket) -> tuple[wire.Message, list[int]] | None:
    """The next message, with its descriptors; None at the end.

    One is sent only after the one before was answered, so no more than one can be here.
    """
    reader = wire.Reader()
    received: list[int] = []
    while True:
        data, fds, _, _ = socket.recv_fds(pipe, 1 << 16, 8, socket.MSG_CMSG_CLOEXEC)
        received += fds
        if not data:
            return None
        for message in reader.feed(data):
            return message, received
