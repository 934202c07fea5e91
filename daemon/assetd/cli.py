"""The command line: arguments to a function to an exit code.

Data goes to standard output, messages to standard error.  Whatever is slow to import is imported
by the command that needs it, so that `assetd status` stays quick.
"""

import argparse
import contextlib
import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TextIO

from assetd import __version__, client, explain
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
ANSWER_SECONDS: Final = 10.0
"""A daemon that has not answered by then hangs."""

Command = Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that *argv* names; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that is not UTF-8
    arguments = parser().parse_args(argv)
    command: Command = arguments.command
    try:
        code = command(arguments)
        sys.stdout.flush()
    except AssetdError as error:
        for line in str(error).splitlines():
            _say(line)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough; without this Python says so at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    return code


def _say(message: str) -> None:
    """Tell people something on standard error."""
    print(f"assetd: {explain.printable(message)}", file=sys.stderr)


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
    for each, default in ((top, None), (shared, argparse.SUPPRESS)):  # on both sides of COMMAND
        each.add_argument(
            "-C", dest="directory", metavar="DIR", default=default, help="as if started in DIR"
        )
        each.add_argument(
            "--config", metavar="FILE", default=default, help="use this configuration file"
        )
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
    build.add_argument(
        "paths",
        nargs="*",
        metavar="PATH",
        help="only these sources, folders or outputs, and what includes these files",
    )
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
    processors = add("processors", _processors, "what turns which files into others", json=True)
    processors.add_argument("name", nargs="?", metavar="NAME", help="only this one, with options")
    tools = add("tools", _tools, "the compilers that processors need")
    tools.add_argument("deed", choices=("install",), help="install what is missing")
    return top


def _workers(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= number <= 1024:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to 1024, found {text!r}")
    return number


def _seconds(text: str) -> float:
    from assetd import document

    try:
        return document.seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


# -- finding the project ------------------------------------------------------------------


def _config_file(arguments: argparse.Namespace) -> str:
    start = arguments.directory or "."
    if not os.path.isdir(start):
        raise UsageError(f"{start} is no folder that is there")
    if arguments.config is not None:
        file = os.path.join(start, arguments.config)
        if not os.path.isfile(file):
            raise UsageError(f"{arguments.config} is no file that is there")
        # Of the folder, not of the file: a linked configuration counts where the link is.
        return os.path.join(os.path.realpath(os.path.dirname(file)), os.path.basename(file))
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
        _say(str(warning))
    return project


def _paths(arguments: argparse.Namespace) -> tuple[str, str]:
    """The project's folder and its state folder, without reading more than is needed."""
    file = _config_file(arguments)
    project = os.path.dirname(file)
    try:
        with open(file, "rb") as opened:
            text = opened.read()
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from error
    plain = re.findall(rb"^state_dir:[ ]+([\w./-]+)[ \t]*(?:#.*)?\r?$", text, re.MULTILINE)
    if b"state_dir" not in text:
        plain = [b".assetd"]
    if len(plain) == 1:
        return project, os.path.realpath(os.path.join(project, os.fsdecode(plain[0])))
    # It is written in a way that takes a YAML parser, which is slow to load.
    from assetd import config

    try:
        found, _ = config.read(file)
    except AssetdError:
        return project, os.path.join(project, ".assetd")
    return found.project, found.state_dir


def _connect(arguments: argparse.Namespace) -> client.Connection:
    project, state_dir = _paths(arguments)
    return client.Connection(client.socket_path(project, state_dir))


# -- commands -----------------------------------------------------------------------------


def _init(arguments: argparse.Namespace) -> int:
    from assetd import initial

    start = arguments.directory or "."
    if not os.path.isdir(start):
        raise UsageError(f"{start} is no folder that is there")
    folder = os.path.realpath(os.path.join(start, arguments.folder))
    path, mounts = initial.write(folder)
    listed = ", ".join(mounts)
    print(f"wrote {explain.printable(path)}", file=sys.stderr)
    print(f"mounts: {explain.printable(listed)}; `assetd build` builds them", file=sys.stderr)
    return OK


def _build(arguments: argparse.Namespace) -> int:
    if arguments.dry_run:
        return _dry_run(arguments)
    if not (arguments.no_delete or arguments.take_over):
        try:
            with contextlib.closing(_connect(arguments)) as connection:
                if arguments.workers is not None:
                    _say("a daemon is running, with workers of its own: -j is not used")
                answer = connection.ask("build", paths=_places(arguments), force=arguments.force)
        except NotRunningError:
            pass
        else:
            return _built(answer, arguments)
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
    return _built(answer, arguments)


def _places(arguments: argparse.Namespace) -> list[str]:
    """The PATHs as the engine names them: places of sources, names of outputs."""
    if not arguments.paths:
        return []
    from assetd import config, place

    file = _config_file(arguments)
    found, _ = config.read(file)
    start = os.path.realpath(arguments.directory or ".")
    named = []
    for path in arguments.paths:
        full = os.path.normpath(os.path.join(start, path))
        # A mount may be reached through a link; it is known by its real folder.
        real = os.path.join(os.path.realpath(os.path.dirname(full)), os.path.basename(full))
        if place.is_below(real, found.out_dir):
            named.append(os.path.relpath(real, found.out_dir))
        else:
            named.append(place.of(real, found.project))
    return named


def _dry_run(arguments: argparse.Namespace) -> int:
    from assetd import history, once

    todo = once.dry_run(_load(arguments), paths=_places(arguments), force=arguments.force)
    if arguments.json:
        rows = [{"source": place, "reason": history.reason(reason)} for place, reason in todo]
        print(json.dumps({"schema": 1, "would": rows}))
        return OK
    for place, reason in todo:
        print(f"{explain.printable(place)}: {explain.reason(reason)}")
    if not todo:
        print("nothing to do", file=sys.stderr)
    return OK


def _built(answer: dict[str, Any], arguments: argparse.Namespace) -> int:
    from assetd import model

    errors = answer["errors"]
    unknown = [
        f"{path} is no source and no output of this project"
        for path, place in zip(arguments.paths, _places(arguments), strict=True)
        if place in answer["unknown"]
    ]
    if arguments.json:
        print(json.dumps({"schema": 1, **answer}))
    elif not unknown or len(unknown) < len(arguments.paths):
        row = answer["batch"]
        counts = ("changed", "built", "cached", "clean", "failed", "deleted")
        tally = model.Batch(
            row["id"], row["trigger"], 0.0, row["seconds"], *(row[name] for name in counts)
        )
        for message in answer.get("messages", ()):
            _say(message)
        _print_errors(errors, sys.stderr)
        outputs = explain.count(answer["outputs"], "output")
        wrong = len({(each["mount"], each["source"]) for each in errors})
        fail = f"; {explain.count(wrong, 'source fails', 'sources fail')}" if wrong else ""
        print(f"{explain.batch(tally)}; {outputs}{fail}", file=sys.stderr)
    if unknown:
        raise UsageError("\n".join(unknown))
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
        with (
            contextlib.suppress(NotRunningError),
            contextlib.closing(client.Connection(path)) as door,
        ):
            status = door.ask("status")
            if status["state"] != "starting":
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
    from assetd import present

    code = OK
    try:
        with contextlib.closing(_connect(arguments)) as connection:
            status = connection.ask("status", deadline=time.monotonic() + ANSWER_SECONDS)
    except NotRunningError as error:
        from assetd import history

        status = history.known(*_paths(arguments))
        code = error.exit_code
    if arguments.json:
        print(json.dumps(status))
    else:
        print("\n".join(present.status(status, color=_color(sys.stdout))))
    if code != OK:
        _say("`assetd start` starts it")
    return code


def _sync(arguments: argparse.Namespace) -> int:
    deadline = None if arguments.timeout is None else time.monotonic() + arguments.timeout
    with contextlib.closing(_connect(arguments)) as connection:
        answer = connection.ask("sync", deadline=deadline)
    if arguments.json:
        print(json.dumps({"schema": 1, **answer}))
    else:
        _print_errors(answer["errors"], sys.stdout)
    return SOMETHING_FAILS if answer["errors"] else OK


def _errors(arguments: argparse.Namespace) -> int:
    """What the daemon knows to fail; without one, what the record does."""
    problems: Sequence[str] = ()
    errors: Sequence[Mapping[str, Any]] | None
    try:
        with contextlib.closing(_connect(arguments)) as connection:
            status = connection.ask("status", deadline=time.monotonic() + ANSWER_SECONDS)
        errors, problems = status["errors"], status["config_errors"]
    except (NotRunningError, DeadlineError):
        from assetd import history

        _, state_dir = _paths(arguments)
        errors = history.errors(state_dir)
    if arguments.json:
        facts = {"schema": 1, "errors": errors or [], "config_errors": list(problems)}
        print(json.dumps(facts))
    else:
        for problem in problems:
            print(explain.printable(problem))
        _print_errors(errors or [], sys.stdout)
        if errors is None:
            print("nothing has been built here yet: `assetd build` does it", file=sys.stderr)
        elif not errors and not problems:
            print("nothing fails", file=sys.stderr)
    return SOMETHING_FAILS if errors or problems else OK


def _print_errors(errors: Sequence[Mapping[str, Any]], to: TextIO) -> None:
    if errors:
        from assetd import present

        print("\n".join(present.errors(errors, color=_color(to))), file=to)


def _why(arguments: argparse.Namespace) -> int:
    from assetd import history

    start = os.path.realpath(arguments.directory or ".")
    story = history.why(_load(arguments), arguments.path, start)
    if arguments.json:
        print(json.dumps(story))
    else:
        from assetd import present

        print("\n".join(present.why(story, color=_color(sys.stdout))))
    return OK


def _processors(arguments: argparse.Namespace) -> int:
    from assetd import catalog

    found = catalog.rows(_load(arguments), arguments.name)
    if arguments.json:
        print(json.dumps({"schema": 1, "processors": found}))
    else:
        lines = catalog.table(found) if arguments.name is None else catalog.page(found[0])
        print("\n".join(lines))
    return OK


def _tools(_arguments: argparse.Namespace) -> int:
    from assetd import catalog

    catalog.install_tools(sys.stderr)
    return OK


def _color(to: TextIO) -> bool:
    if os.environ.get("FORCE_COLOR"):
        return True
    return to.isatty() and not os.environ.get("NO_COLOR")
