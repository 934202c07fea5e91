"""Commands that begin and end the daemon: run, start, stop."""

import argparse
import contextlib
import os
import subprocess
import sys
import time
from typing import Final

from assetd import client, command
from assetd.command import Commands
from assetd.errors import AlreadyRunningError, DeadlineError, NotRunningError

START_SECONDS: Final = 600.0


def add(commands: Commands) -> None:
    """Add the commands of this family."""
    run = commands.add("run", _run, "run the daemon in the foreground")
    run.add_argument("--log-format", choices=("auto", "pretty", "json"), default="auto")
    start = commands.add("start", _start, "run the daemon in the background")
    for each in (run, start):
        each.add_argument(
            "-j", dest="workers", type=command.workers, metavar="N", help="worker processes"
        )
    commands.add("stop", _stop, "end the daemon")


def _run(arguments: argparse.Namespace) -> int:
    from assetd import report, serve

    project = command.load(arguments)
    with serve.lock(project.config.state_dir):
        serve.serve(project, report.Log(arguments.log_format), workers=arguments.workers)
    return command.OK


def _start(arguments: argparse.Namespace) -> int:
    project = command.load(arguments)
    config = project.config
    path = client.socket_path(config.project, config.state_dir)
    with contextlib.suppress(NotRunningError), contextlib.closing(client.Connection(path)) as door:
        pid = door.ask("status")["pid"]
        raise AlreadyRunningError(f"another assetd holds this project (pid {pid})")
    os.makedirs(config.state_dir, mode=0o700, exist_ok=True)
    log_path = os.path.join(config.state_dir, "log")
    words = [sys.executable, "-P", "-m", "assetd", "run", "--config", config.file]
    if arguments.workers is not None:
        words += ["-j", str(arguments.workers)]
    with open(log_path, "ab") as log:
        began = log.tell()
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=config.project,
        )
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        code = process.poll()
        if code is not None:
            with open(log_path, "rb") as log:
                log.seek(began)
                sys.stderr.write(log.read()[-4000:].decode(errors="replace"))
            return code or command.SOMETHING_FAILS
        with (
            contextlib.suppress(NotRunningError),
            contextlib.closing(client.Connection(path)) as door,
        ):
            status = door.ask("status")
            if status["state"] != "starting":
                print(f"assetd is running (pid {status['pid']}); log: {log_path}")
                return command.OK
        time.sleep(0.02)
    raise DeadlineError("assetd has not come up; its log: " + log_path)


def _stop(arguments: argparse.Namespace) -> int:
    with contextlib.closing(command.connect(arguments)) as connection:
        pid = int(connection.ask("stop")["pid"])
        # It ends after it has answered; it has hung up on us by then.
        with contextlib.suppress(NotRunningError):
            connection.receive(time.monotonic() + 10.0)
    deadline = time.monotonic() + 10.0
    while _is_alive(pid):
        if time.monotonic() > deadline:
            raise DeadlineError(f"assetd (pid {pid}) was told to stop and has not ended yet")
        time.sleep(0.005)
    print(f"assetd stopped (pid {pid})", file=sys.stderr)
    return command.OK


def _is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False
