"""The process that workers are forked from: its main.  Knows what a worker begins with.

Started by `forkserver` as `python -m assetd.forkserver_main FD`.  It has imported what a worker
imports, and opens nothing: no configuration, no plugin, so that a worker forked at any time is
a new one.  It ends when the owner's end of its socket does.
"""

import gc
import os
import socket
import sys
from typing import Any

from assetd import worker
from assetd.forkserver import receive, send


def main() -> None:
    """Fork until the socket ends; in each worker that is forked, be that."""
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    # What is there now is shared with all workers, as long as nobody writes to it.
    gc.collect()
    gc.freeze()
    theirs = _serve(control)
    if theirs is not None:
        worker.main(*theirs)


def _serve(control: socket.socket) -> list[int] | None:
    """Answer until the socket ends; in a child, the descriptors that it begins with."""
    while (request := receive(control)) is not None:
        match request:
            case {"fork": name, "environment": environment}, fds:
                try:
                    pid = os.fork()
                    if pid == 0:
                        control.close()
                        _become(name, environment, fds[0])
                        return fds[1:]
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


def _become(name: str, environment: dict[str, Any], printing: int) -> None:
    """Be a process of its own, as if a program had been started."""
    os.setsid()
    os.dup2(printing, 1)
    os.dup2(printing, 2)
    os.close(printing)
    os.environ.clear()
    os.environ.update(environment)
    with open("/proc/self/comm", "w", encoding="ascii") as file:
        file.write(name)


if __name__ == "__main__":
    main()
