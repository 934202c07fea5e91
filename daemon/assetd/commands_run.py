"""Commands that begin and end the daemon: run, start, stop, restart."""

import argparse
import contextlib
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from assetd import client, command, words
from assetd.command import Commands
from assetd.errors import (
    AlreadyRunningError,
    AssetdError,
    DeadlineError,
    NotRunningError,
    ProjectGoneError,
)

if TYPE_CHECKING:
    from assetd.service import Scope

START_SECONDS: Final = 600.0
RETURN_SECONDS: Final = 60.0
"""A project whose folder has gone may be back by then: somebody clones it anew."""


def add(commands: Commands) -> None:
    """Add the commands of this family."""
    run = commands.add("run", _run, "run the daemon in the foreground")
    start = commands.add(
        "start",
        _start,
        "run the daemon in the background",
        examples=("assetd start && assetd sync", "assetd start -j 2"),
    )
    restart = commands.add("restart", _restart, "end the daemon, if one runs, and start it")
    for each in (run, start, restart):
        each.add_argument(
            "--log-format",
            choices=("auto", "pretty", "json"),
            default="auto",
            help="how the log is written; auto is pretty, with priorities for the journal",
        )
        each.add_argument(
            "-j", dest="workers", type=command.workers, metavar="N", help="worker processes"
        )
    run.add_argument(
        "--trace", metavar="FILE", help="write there what takes how long, for Perfetto"
    )
    commands.add("stop", _stop, "end the daemon")


def _run(arguments: argparse.Namespace) -> int:
    from assetd import lock
    from assetd.forkserver import ForkServer

    begun = _Begun()
    project = command.load(arguments)
    config = project.config
    path = client.socket_path(config.project, config.state_dir)
    lock.check_ours(config.state_dir)
    try:
        with (
            lock.held(config.state_dir, path),
            contextlib.closing(ForkServer(config.state_dir)) as server,
        ):
            server.start()  # it gets warm while we import the rest
            from assetd import logfile, serve, trace
            from assetd.log import Log

            _warn(project)
            log = Log(arguments.log_format, logfile.path_in(config.state_dir))

            def ended(cause: str) -> None:
                log("trace_ended", level="warning", cause=cause)

            watched = (config.out_dir, *(mount.folder for mount in config.mounts))
            with trace.opened(arguments.trace, watched, ended) as opened:
                serve.serve(project, log, server, workers=arguments.workers, trace=opened)
    except ProjectGoneError as error:
        what = f"waiting {RETURN_SECONDS:g} s for it to come back"
        log("project_gone", level="error", cause=str(error), what=what)
        begun.again(config.file)
        raise
    return command.OK


class _Begun:
    """How this process was begun, to begin it once more in the same one."""

    def __init__(self) -> None:
        self._folder = os.getcwd()
        self._environment = dict(os.environ)  # the service manager's part of it is taken out

    def again(self, file: str) -> None:
        """Wait for *file* to be there again, and begin anew; returns if it does not come.

        Starting again is the recovery: nothing that this process holds, its lock included,
        has to do with the folder that is there now.
        """
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        deadline = time.monotonic() + RETURN_SECONDS
        while not os.path.exists(file):
            if time.monotonic() > deadline:
                return
            time.sleep(0.2)
        with contextlib.suppress(OSError):
            os.chdir(self._folder)
        argv = [sys.executable, *sys.orig_argv[1:]]
        os.execve(sys.executable, argv, self._environment)  # noqa: S606 - no shell is wanted


def _load(arguments: argparse.Namespace) -> Any:
    """The project; what deserves a warning is said, also of the command that it is to run."""
    project = command.load(arguments)
    _warn(project)
    return project


def _warn(project: Any) -> None:
    from assetd import batch_command

    problem = batch_command.problem(project.config)
    if problem is not None:
        command.say(str(problem))


def _start(arguments: argparse.Namespace) -> int:
    import subprocess

    from assetd import lock, logfile, service

    at = command.folders(arguments)
    with contextlib.suppress(NotRunningError), contextlib.closing(client.connect(*at)) as door:
        pid = door.ask("status")["pid"]
        raise AlreadyRunningError(
            f"another assetd holds this project (pid {pid}): "
            "`assetd restart` starts it anew, `assetd status` asks it"
        )
    unit = service.installed(at[0], os.environ)
    if unit is not None:
        return _have(arguments, "start", unit.scope, unit.name)
    lock.check_ours(at[1])  # before there is a log of ours in it
    config = _load(arguments).config
    log_path = logfile.path_in(config.state_dir)
    argv = [sys.executable, "-P", "-m", "assetd", "run", "--config", config.file]
    argv += ["--log-format", arguments.log_format]
    if arguments.workers is not None:
        argv += ["-j", str(arguments.workers)]
    with _opened(log_path) as log:
        began = log.tell()
        process = subprocess.Popen(
            argv,
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
            contextlib.closing(client.connect(*at)) as door,
        ):
            status = door.ask("status")
            if status["state"] != "starting":
                print(f"assetd is running (pid {status['pid']}); log: {log_path}")
                command.say_how_it_goes(status)
                return command.OK
        time.sleep(0.02)
    raise DeadlineError("assetd has not come up; its log: " + log_path)


def _opened(log_path: str) -> BinaryIO:
    """The log of a daemon in the background, to be added to; its folder is made."""
    try:
        os.makedirs(os.path.dirname(log_path), mode=0o700, exist_ok=True)
        return open(log_path, "ab")
    except OSError as error:
        raise AssetdError(
            f"{error.filename}: cannot be written: {error.strerror}: "
            "`assetd doctor` says what to do about it"
        ) from error


def _stop(arguments: argparse.Namespace) -> int:
    running = _service(client.holder(command.folders(arguments)[1]))
    try:
        opened = command.connect(arguments)
    except NotRunningError as error:
        if _stop_waiting(arguments):
            return command.OK
        raise NotRunningError("no assetd is running here: there is nothing to stop") from error
    with contextlib.closing(opened) as connection:
        deadline = time.monotonic() + command.ANSWER_SECONDS
        if running is not None and _may_steer(running[0]):
            from assetd import deployment

            pid = int(connection.ask("status", deadline=deadline)["pid"])
            deployment.steer(*running, "stop")
        else:
            pid = int(connection.ask("stop", deadline=deadline)["pid"])
        # It ends after it has answered; it has hung up on us by then.
        with contextlib.suppress(NotRunningError):
            connection.receive(time.monotonic() + 10.0)
    deadline = time.monotonic() + 10.0
    while _is_alive(pid):
        if time.monotonic() > deadline:
            raise DeadlineError(f"assetd (pid {pid}) was told to stop and has not ended yet")
        time.sleep(0.005)
    print(f"assetd stopped (pid {pid})", file=sys.stderr)
    if running is not None:
        _say_it_comes_back(running[0])
    return command.OK


def _stop_waiting(arguments: argparse.Namespace) -> bool:
    """Stop a service that fails again and again, and is between two attempts."""
    from assetd import deployment, service

    unit = service.installed(command.folders(arguments)[0], os.environ)
    if unit is None or not deployment.is_up(unit):
        return False
    deployment.steer(unit.scope, unit.name, "stop")
    _say_it_comes_back(unit.scope)
    return True


def _say_it_comes_back(scope: "Scope") -> None:
    when = "when you log in" if scope.value == "user" else "with the machine"
    command.say(f"it starts again {when}, unless `assetd service uninstall` takes it away")


def _restart(arguments: argparse.Namespace) -> int:
    from assetd import deployment, service

    project, state_dir = command.folders(arguments)
    holder = client.holder(state_dir)
    running = _service(holder)
    # A configuration that is refused must not cost the daemon that runs.
    owner = os.stat(state_dir).st_uid if running is not None else os.geteuid()
    if owner != os.geteuid():
        deployment.check_as(words.user(owner), command.config_file(arguments))
    elif holder is not None or service.installed(project, os.environ) is None:
        _load(arguments)
    if running is not None:
        # Its manager would take our end for a failure, or never know of the new one.
        return _have(arguments, "restart", *running)
    with contextlib.suppress(NotRunningError):
        _stop(arguments)
    return _start(arguments)


def _have(arguments: argparse.Namespace, verb: str, scope: "Scope", name: str) -> int:
    """Have the service manager do what would otherwise be ours, and say how it goes."""
    from assetd import deployment, service

    if arguments.workers is not None or arguments.log_format != "auto":
        command.say("the service has its own settings: -j and --log-format are not used")
    deployment.steer(scope, name, verb)
    with contextlib.closing(command.connect(arguments)) as door:
        status = door.ask("status", deadline=time.monotonic() + command.ANSWER_SECONDS)
    print(f"assetd is running (pid {status['pid']}); log: {service.journal(scope, name)}")
    command.say_how_it_goes(status)
    return command.OK


def _service(holder: client.Holder | None) -> "tuple[Scope, str] | None":
    """The service that holds the project, as the service manager knows it; None if none does."""
    from assetd import service, systemd

    found = None if holder is None else systemd.own_service(holder.pid)
    return None if found is None else (service.Scope.of(is_users=found[1]), found[0])


def _may_steer(scope: "Scope") -> bool:
    """Whether the service manager will obey, without asking for a password."""
    return scope.value == "user" or os.geteuid() == 0


def _is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False
