"""Commands that tell what the daemon has counted and logged: metrics, logs."""

import argparse
import contextlib
import os
import shlex
import sys
import time
from typing import TYPE_CHECKING, BinaryIO, Final

from assetd import command, words
from assetd.command import Commands
from assetd.errors import AssetdError, DeadlineError, NotRunningError, UsageError

if TYPE_CHECKING:
    from assetd.service import Scope

LINES: Final = 50
"""Of the log, unless somebody asks for more."""


def add(commands: Commands) -> None:
    """Add the commands of this family."""
    commands.add("metrics", _metrics, "numbers in the text format of Prometheus")
    logs = commands.add(
        "logs",
        _logs,
        "the log of a daemon in the background",
        examples=("assetd logs -n 20", "assetd logs -f"),
    )
    logs.add_argument("-f", "--follow", action="store_true", help="go on, as it is written")
    logs.add_argument(
        "-n",
        "--lines",
        type=_count,
        default=LINES,
        metavar="LINES",
        help=f"how many of the last lines, {LINES} unless you say otherwise",
    )


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise argparse.ArgumentTypeError(f"expected a number, found {text!r}")
    return int(text)


def _metrics(arguments: argparse.Namespace) -> int:
    with contextlib.closing(command.connect(arguments)) as connection:
        deadline = time.monotonic() + command.ANSWER_SECONDS
        print(connection.ask("metrics", deadline=deadline)["text"], end="")
    return command.OK


def _logs(arguments: argparse.Namespace) -> int:
    from assetd import logfile, service

    project, state_dir = command.folders(arguments)
    path = logfile.path_in(state_dir)
    elsewhere = _elsewhere(arguments, path)
    if isinstance(elsewhere, str):
        raise UsageError(elsewhere)
    unit = service.installed(project, os.environ)
    if elsewhere is None and unit is not None and not os.path.exists(path):
        elsewhere = unit.scope, unit.name
    if elsewhere is not None:
        return _journal(arguments, *elsewhere)
    try:
        lines, fd, end = logfile.last_lines(path, arguments.lines)
    except FileNotFoundError:
        raise UsageError(
            "nothing was logged here yet: `assetd start` runs assetd in the background, with a log"
        ) from None
    except OSError as error:
        raise AssetdError(f"{path}: cannot be read: {error.strerror}") from error
    out = sys.stdout.buffer
    _write(out, b"".join(lines))
    if not arguments.follow:
        os.close(fd)
        return command.OK
    for more in logfile.follow(path, fd, end):
        _write(out, more)
    return command.OK


def _journal(arguments: argparse.Namespace, scope: "Scope", name: str) -> int:
    """Show the journal of a service, and say with which command."""
    import subprocess

    from assetd import service

    line = f"{service.journal(scope, name)} -n {arguments.lines}{' -f' if arguments.follow else ''}"
    print(f"assetd is a service here: {line}", file=sys.stderr)
    try:
        return subprocess.run([*shlex.split(line), "--no-pager"], check=False).returncode
    except OSError as error:
        raise AssetdError(f"there is no journalctl here ({error.strerror})") from error


def _write(out: BinaryIO, text: bytes) -> None:
    out.write(text)
    out.flush()


def _elsewhere(arguments: argparse.Namespace, path: str) -> "tuple[Scope, str] | str | None":
    """Where the log is, if a daemon runs that does not write it to *path*.

    Returns:
        The service whose journal has it, or a sentence.
    """
    try:
        with contextlib.closing(command.connect(arguments)) as connection:
            status = connection.ask("status", deadline=time.monotonic() + command.ANSWER_SECONDS)
    except (NotRunningError, DeadlineError):
        return None  # what it has left, or has to say about why it hangs
    pid = int(status["pid"])
    stderr = f"/proc/{pid}/fd/2"
    goes_to = ""
    with contextlib.suppress(OSError):
        goes_to = os.readlink(stderr)
        if os.path.samestat(os.stat(stderr), os.stat(path)):
            return None
    who = f"assetd (pid {pid})"
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cgroup", "rb") as file:
        found = journal_of(os.fsdecode(file.read()))
        # Where another user's standard error goes is not for us to see.
        ours = found is not None and found[1].startswith("assetd") and not goes_to
        if ours or (found is not None and goes_to.startswith("socket:")):
            return found
    if goes_to.startswith(("/dev/pts/", "/dev/tty")):
        return f"{who} runs in a terminal, {goes_to}: its log is there"
    if goes_to.startswith("/"):
        return f"{who} writes its log to {words.printable(goes_to)}"
    return f"{who} was not started by `assetd start`: whoever started it has its log"


def journal_of(cgroups: str) -> "tuple[Scope, str] | None":
    """The service that a process of these control groups is; None if it is none.

    Args:
        cgroups: As in `/proc/PID/cgroup`.
    """
    from assetd import service, systemd

    found = systemd.service_of(cgroups)
    return None if found is None else (service.Scope.of(is_users=found[1]), found[0])
