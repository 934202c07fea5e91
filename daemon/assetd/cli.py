"""The command line: arguments to a function to an exit code.

Data goes to standard output, messages to standard error.  Whatever is slow to import is imported
by the command that needs it, so that `assetd status` stays quick.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from assetd import __version__, client
from assetd.errors import (
    AlreadyRunningError,
    AssetdError,
    DeadlineError,
    NotRunningError,
    UsageError,
)

OK: Final = 0
SOMETHING_FAILS: Final = 1
INTERRUPTED: Final = 130
START_SECONDS: Final = 600.0

Command = Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that *argv* names; returns the exit code."""
    arguments = parser().parse_args(argv)
    command: Command = arguments.command
    try:
        return command(arguments)
    except AssetdError as error:
        for line in str(error).splitlines():
            print(f"assetd: {line}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough; without this Python says so at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK


def parser() -> argparse.ArgumentParser:
    """The grammar of the command line."""
    top = argparse.ArgumentParser(
        prog="assetd",
        description="Builds web assets, and keeps them right while people edit.",
        epilog="Exit codes: 0 done; 1 something fails to build; 2 usage or configuration; "
        "3 no daemon runs; 4 another daemon holds the project; 124 timed out; 130 interrupted.",
    )
    top.add_argument("--version", action="version", version=f"assetd {__version__}")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("-C", dest="directory", metavar="DIR", help="as if started in DIR")
    shared.add_argument("--config", metavar="FILE", help="use this configuration file")
    facts = argparse.ArgumentParser(add_help=False)
    facts.add_argument("--json", action="store_true", help="print JSON")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, command: Command, text: str, *, json: bool = False) -> Any:
        parents = [shared, facts] if json else [shared]
        added = commands.add_parser(name, parents=parents, help=text, description=text)
        added.set_defaults(command=command)
        return added

    init = add("init", _init, "write a configuration that fits the folder it finds")
    init.add_argument("folder", nargs="?", default=".", metavar="DIR")

    build = add("build", _build, "bring every output up to date, once", json=True)
    build.add_argument("paths", nargs="*", metavar="PATH", help="sources, folders or outputs")
    build.add_argument("--force", action="store_true", help="build also what is up to date")
    build.add_argument("--dry-run", action="store_true", help="only say what would be done")
    build.add_argument("--no-delete", action="store_true", help="leave outputs without a source")
    build.add_argument(
        "--take-over",
        action="store_true",
        help="replace files in the output folder that assetd did not make",
    )
    build.add_argument("-j", dest="workers", type=_workers, metavar="N", help="worker processes")

    run = add("run", _run, "run the daemon in the foreground")
    run.add_argument("-j", dest="workers", type=_workers, metavar="N", help="worker processes")
    run.add_argument("--log-format", choices=("auto", "pretty", "json"), default="auto")
    start = add("start", _start, "run the daemon in the background")
    start.add_argument("-j", dest="workers", type=_workers, metavar="N", help="worker processes")
    add("stop", _stop, "end the daemon")
    add("status", _status, "is it running, is it busy, what is wrong", json=True)
    sync = add("sync", _sync, "wait until every change made before now is built", json=True)
    sync.add_argument("--timeout", type=_seconds, default=None, metavar="TIME", help="30s, 500ms")
    add("errors", _errors, "what fails now, and where", json=True)
    why = add("why", _why, "why a source or an output is as it is", json=True)
    why.add_argument("path", metavar="PATH")
    return top


def _workers(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= number <= 1024:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to 1024, found {text!r}")
    return number


def _seconds(text: str) -> float:
    from assetd import config

    try:
        return config.seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


# -- finding the project ------------------------------------------------------------------


def _config_file(arguments: argparse.Namespace) -> str:
    start = arguments.directory or "."
    if not os.path.isdir(start):
        raise UsageError(f"{start} is no folder")
    if arguments.config is not None:
        file = os.path.join(start, arguments.config)
        if not os.path.isfile(file):
            raise UsageError(f"{arguments.config} is not there")
        return os.path.realpath(file)
    folder = os.path.realpath(start)
    while True:
        for name in ("assetd.yml", "assetd.yaml"):
            if os.path.isfile(os.path.join(folder, name)):
                return os.path.join(folder, name)
        if folder == os.path.dirname(folder):
            raise UsageError(
                f"no assetd.yml in {os.path.realpath(start)} or any folder above it: "
                "`assetd init` writes one"
            )
        folder = os.path.dirname(folder)


def _load(arguments: argparse.Namespace) -> Any:
    from assetd import registry

    project = registry.load(_config_file(arguments))
    for warning in project.warnings:
        print(f"assetd: {warning}", file=sys.stderr)
    return project


def _paths(arguments: argparse.Namespace) -> tuple[str, str]:
    """The project's folder and its state folder, without reading more than is needed."""
    file = _config_file(arguments)
    project = os.path.dirname(file)
    usual = os.path.join(project, ".assetd")
    if os.path.isdir(usual):
        return project, usual
    from assetd import config

    try:
        found, _ = config.read(file)
    except AssetdError:
        return project, usual
    return found.project, found.state_dir


def _connect(arguments: argparse.Namespace) -> client.Connection:
    project, state_dir = _paths(arguments)
    return client.Connection(client.socket_path(project, state_dir))


# -- commands -----------------------------------------------------------------------------


def _init(arguments: argparse.Namespace) -> int:
    from assetd import initial

    start = arguments.directory or "."
    folder = os.path.realpath(os.path.join(start, arguments.folder))
    path, mounts = initial.write(folder)
    print(f"wrote {path}", file=sys.stderr)
    print(f"mounts: {', '.join(mounts)}; `assetd build` builds them", file=sys.stderr)
    return OK


def _build(arguments: argparse.Namespace) -> int:
    if arguments.dry_run:
        return _dry_run(arguments)
    if not (arguments.no_delete or arguments.take_over):
        try:
            with contextlib.closing(_connect(arguments)) as connection:
                if arguments.workers is not None:
                    print("assetd: a daemon is running: -j is its own", file=sys.stderr)
                answer = connection.ask(
                    "build", paths=_places(arguments), force=arguments.force
                )
        except NotRunningError:
            pass
        else:
            return _built(answer, as_json=arguments.json)
    from assetd import once

    project = _load(arguments)
    answer = once.build(
        project,
        paths=_places(arguments),
        force=arguments.force,
        no_delete=arguments.no_delete,
        take_over=arguments.take_over,
        workers=arguments.workers,
        progress=sys.stderr if sys.stderr.isatty() and not arguments.json else None,
    )
    return _built(answer, as_json=arguments.json)


def _places(arguments: argparse.Namespace) -> list[str]:
    from assetd import place

    project = os.path.dirname(_config_file(arguments))
    start = os.path.realpath(arguments.directory or ".")
    out_dir: str | None = None
    found = []
    for path in arguments.paths:
        full = os.path.normpath(os.path.join(start, path))
        if out_dir is None:
            from assetd import config

            out_dir = config.read(os.path.join(_config_file(arguments)))[0].out_dir
        if full.startswith(out_dir + "/"):
            found.append(full[len(out_dir) + 1 :])
        else:
            found.append(place.of(full, project))
    return found


def _dry_run(arguments: argparse.Namespace) -> int:
    from assetd import explain, once

    todo = once.dry_run(_load(arguments), paths=_places(arguments), force=arguments.force)
    if arguments.json:
        rows = [{"source": place, "reason": reason.row()} for place, reason in todo]
        print(json.dumps({"schema": 1, "would": rows}))
        return OK
    for place, reason in todo:
        print(f"{explain.printable(place)}: {explain.reason(reason)}")
    if not todo:
        print("nothing to do", file=sys.stderr)
    return OK


def _built(answer: dict[str, Any], *, as_json: bool) -> int:
    from assetd import explain, model

    errors = answer["errors"]
    if as_json:
        print(json.dumps({"schema": 1, **answer}))
        return SOMETHING_FAILS if errors else OK
    row = answer["batch"]
    tally = model.Batch(
        row["id"],
        row["trigger"],
        0.0,
        row["seconds"],
        row["changed"],
        row["built"],
        row["cached"],
        row["clean"],
        row["failed"],
        row["deleted"],
    )
    _print_errors(errors)
    outputs = explain.count(answer["outputs"], "output")
    wrong = len({(each["mount"], each["source"]) for each in errors})
    fail = f"; {explain.count(wrong, 'source fails', 'sources fail')}" if wrong else ""
    print(f"{explain.batch(tally)}; {outputs}{fail}", file=sys.stderr)
    return SOMETHING_FAILS if errors else OK


def _run(arguments: argparse.Namespace) -> int:
    from assetd import report, serve

    project = _load(arguments)
    with serve.lock(project.config.state_dir):
        serve.serve(project, report.Log(arguments.log_format), workers=arguments.workers)
    return OK


def _start(arguments: argparse.Namespace) -> int:
    project = _load(arguments)
    config = project.config
    path = client.socket_path(config.project, config.state_dir)
    with contextlib.suppress(NotRunningError), contextlib.closing(client.Connection(path)) as door:
        pid = door.ask("status")["pid"]
        raise AlreadyRunningError(f"another assetd holds this project (pid {pid})")
    os.makedirs(config.state_dir, mode=0o700, exist_ok=True)
    log_path = os.path.join(config.state_dir, "log")
    command = [sys.executable, "-P", "-m", "assetd", "run", "--config", config.file]
    if arguments.workers is not None:
        command += ["-j", str(arguments.workers)]
    with open(log_path, "ab") as log:
        began = log.tell()
        process = subprocess.Popen(
            command,
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
            return code or SOMETHING_FAILS
        with contextlib.suppress(NotRunningError):
            with contextlib.closing(client.Connection(path)) as door:
                status = door.ask("status")
                if status["state"] not in {"starting"}:
                    print(f"assetd is running (pid {status['pid']}); log: {log_path}")
                    return OK
        time.sleep(0.02)
    raise DeadlineError("assetd has not come up; its log: " + log_path)


def _stop(arguments: argparse.Namespace) -> int:
    with contextlib.closing(_connect(arguments)) as connection:
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
    return OK


def _is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False


def _status(arguments: argparse.Namespace) -> int:
    try:
        with contextlib.closing(_connect(arguments)) as connection:
            connection.send("status")
            reply = connection.receive(time.monotonic() + 10.0)
            status = reply["data"]
    except NotRunningError as error:
        if arguments.json:
            print(json.dumps({"schema": 1, "state": "stopped"}))
        else:
            print("stopped")
            from assetd import history

            project, state_dir = _paths(arguments)
            for line in history.stopped(project, state_dir):
                print(line)
            print(f"assetd: {error}", file=sys.stderr)
        return error.exit_code
    if arguments.json:
        print(json.dumps(status))
    else:
        from assetd import present

        print("\n".join(present.status(status, color=_color())))
    return OK


def _sync(arguments: argparse.Namespace) -> int:
    deadline = None if arguments.timeout is None else time.monotonic() + arguments.timeout
    with contextlib.closing(_connect(arguments)) as connection:
        answer = connection.ask("sync", deadline=deadline)
    if arguments.json:
        print(json.dumps({"schema": 1, **answer}))
    else:
        _print_errors(answer["errors"])
    return SOMETHING_FAILS if answer["errors"] else OK


def _errors(arguments: argparse.Namespace) -> int:
    from assetd import history

    project, state_dir = _paths(arguments)
    errors = history.errors(state_dir)
    del project
    if arguments.json:
        print(json.dumps({"schema": 1, "errors": errors}))
    else:
        _print_errors(errors, to=sys.stdout)
        if not errors:
            print("nothing fails", file=sys.stderr)
    return SOMETHING_FAILS if errors else OK


def _print_errors(errors: Sequence[dict[str, Any]], to: Any = None) -> None:
    if errors:
        from assetd import present

        print("\n".join(present.errors(errors, color=_color())), file=to or sys.stderr)


def _why(arguments: argparse.Namespace) -> int:
    from assetd import history

    story = history.why(_load(arguments), arguments.path, os.path.realpath(
        arguments.directory or "."))
    if arguments.json:
        print(json.dumps(story))
    else:
        from assetd import present

        print("\n".join(present.why(story, color=_color())))
    return OK


def _color() -> bool:
    if os.environ.get("FORCE_COLOR"):
        return True
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(main())
