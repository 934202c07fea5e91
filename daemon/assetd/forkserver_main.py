"""The process that workers are forked from: its main.  Knows what a worker begins with.

Started by `forkserver` as `python -m assetd.forkserver_main FD`.  It has imported what a worker
imports, and opens nothing: no configuration, no plugin, so that a worker forked at any time is
a new one.  It ends when the owner's end of its socket does.
"""

import contextlib
import gc
import os
import socket
import sys

from assetd import worker
from assetd.forkserver import receive, send


def main() -> None:
    """Fork until the socket ends; in each worker that is forked, be that."""
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    # What is there now is shared with all workers, as long as nobody writes to it.
    gc.collect()
    gc.freeze()
    try:
        born = _serve(control)
    except ConnectionError:  # the owner was killed, and had asked for something
        return
    if born is not None:
        control.close()
        worker.main(*_become(*born))


def _serve(control: socket.socket) -> tuple[str, dict[str, str], list[int]] | None:
    """Answer until the socket ends; in a child, what it begins with."""
    while (request := receive(control)) is not None:
        match request:
            case {"fork": name, "environment": environment}, fds:
                try:
                    pid = os.fork()
                    if pid == 0:
                        return name, environment, fds
                    # Not ours to reap before we are told to, so the number is still its own.
                    pidfd = os.pidfd_open(pid)
                except OSError as error:
                    send(control, {"errno": error.errno})
                else:
                    send(control, {"pid": pid}, [pidfd])
                    os.close(pidfd)
                for fd in fds:
                    os.close(fd)
            case {"reap": pid}, _:
                try:
                    _, status = os.waitpid(pid, 0)
                except OSError as error:
                    send(control, {"errno": error.errno})
                else:
                    send(control, {"code": os.waitstatus_to_exitcode(status)})
    return None


def _become(name: str, environment: dict[str, str], fds: list[int]) -> list[int]:
    """Be a process of its own, as if a program had been started; the descriptors it is left."""
    os.setsid()
    os.dup2(fds[0], 1)
    os.dup2(fds[0], 2)
    os.close(fds[0])
    os.environ.clear()
    os.environ.update(environment)
    with contextlib.suppress(OSError), open("/proc/self/comm", "w", encoding="ascii") as file:
        file.write(name)  # for process listings
    return fds[1:]


if __name__ == "__main__":
    main()
