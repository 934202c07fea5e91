"""Commands that ask the daemon: status, sync, errors."""

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from assetd import command, explain
from assetd.command import Commands
from assetd.errors import DeadlineError, NotRunningError


def add(commands: Commands) -> None:
    """Add the commands of this family."""
    commands.add("status", _status, "is it running, is it busy, what is wrong", json=True)
    sync = commands.add(
        "sync", _sync, "wait until every change made before now is built", json=True
    )
    sync.add_argument(
        "--timeout", type=command.seconds, default=None, metavar="TIME", help="30s, 500ms"
    )
    commands.add("errors", _errors, "what fails now, and where", json=True)


def _status(arguments: argparse.Namespace) -> int:
    from assetd import present

    code = command.OK
    try:
        with contextlib.closing(command.connect(arguments)) as connection:
            status = connection.ask("status", deadline=time.monotonic() + command.ANSWER_SECONDS)
    except NotRunningError as error:
        from assetd import history

        status = history.known(*command.folders(arguments))
        code = error.exit_code
    if arguments.json:
        print(json.dumps(status))
    else:
        print("\n".join(present.status(status, color=command.color(sys.stdout))))
    if code != command.OK:
        command.say("`assetd start` starts it")
    return code


def _sync(arguments: argparse.Namespace) -> int:
    deadline = None if arguments.timeout is None else time.monotonic() + arguments.timeout
    with contextlib.closing(command.connect(arguments)) as connection:
        answer = connection.ask("sync", deadline=deadline)
    if arguments.json:
        print(json.dumps({"schema": 1, **answer}))
    else:
        command.print_errors(answer["errors"], sys.stdout)
    return command.SOMETHING_FAILS if answer["errors"] else command.OK


def _errors(arguments: argparse.Namespace) -> int:
    """What the daemon knows to fail; without one, what the record does."""
    problems: Sequence[str] = ()
    errors: Sequence[Mapping[str, Any]] | None
    try:
        with contextlib.closing(command.connect(arguments)) as connection:
            status = connection.ask("status", deadline=time.monotonic() + command.ANSWER_SECONDS)
        errors, problems = status["errors"], status["config_errors"]
    except (NotRunningError, DeadlineError):
        from assetd import history

        _, state_dir = command.folders(arguments)
        errors = history.errors(state_dir)
    if arguments.json:
        facts = {"schema": 1, "errors": errors or [], "config_errors": list(problems)}
        print(json.dumps(facts))
    else:
        for problem in problems:
            print(explain.printable(problem))
        command.print_errors(errors or [], sys.stdout)
        if errors is None:
            print("nothing has been built here yet: `assetd build` does it", file=sys.stderr)
        elif not errors and not problems:
            print("nothing fails", file=sys.stderr)
    return command.SOMETHING_FAILS if errors or problems else command.OK
