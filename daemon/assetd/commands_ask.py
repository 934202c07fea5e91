"""Commands that ask the daemon: status, sync, errors, events."""

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from assetd import client, command, words
from assetd.command import Commands
from assetd.errors import DeadlineError, NotRunningError, UsageError

HINT_SECONDS: Final = 0.5
"""Who waits longer than that wants to know what for."""
EVENTS: Final = (
    *("state", "ready", "built", "overridden", "failed", "healed", "gone", "batch"),
    *("output_edited", "outputs_missing", "output_kept", "output_set_aside"),
    *("output_root_moved", "configuration_taken", "configuration_refused", "not_followed"),
    *("trouble", "trouble_over", "events_lost", "watcher_died", "not_watching"),
    "folders_unwatched",
    *("worker_died", "worker_unresponsive", "worker_recycled", "stray_ended", "printed"),
    *("on_batch_done", "on_batch_failed", "on_batch_printed", "notify_failed"),
    *("started", "stopping", "recovered", "record_damaged", "record_outdated"),
    *("hook_failed", "trace_ended"),
    *("sandbox", "record_behind", "hangs", "gets_on", "missed"),
)
"""All that there are: a misspelt one would be waited for until the end of days."""


def add(commands: Commands) -> None:
    """Add the commands of this family."""
    status = commands.add("status", _status, "is it running, is it busy, what is wrong", json=True)
    status.add_argument("--watch", action="store_true", help="keep it on the screen")
    sync = commands.add(
        "sync",
        _sync,
        "wait until every change made before now is built",
        json=True,
        examples=("assetd sync --timeout 30s", "assetd sync && firefox public/index.html"),
    )
    sync.add_argument(
        "--timeout",
        type=command.seconds,
        default=None,
        metavar="TIME",
        help="give up after that, with exit code 124: 30s, 500ms",
    )
    commands.add("errors", _errors, "what fails now, and where", json=True)
    events = commands.add(
        "events",
        _events,
        "what happens, as JSON lines, until interrupted",
        examples=("assetd events batch failed healed",),
    )
    events.add_argument(
        "names", nargs="*", metavar="EVENT", help=f"only these, such as {', '.join(EVENTS[:8])}"
    )


def _status(arguments: argparse.Namespace) -> int:
    from assetd import present

    if arguments.watch:
        return _watch(arguments)
    code = command.OK
    try:
        with contextlib.closing(command.connect(arguments, 0.0)) as connection:
            status = connection.ask("status", deadline=time.monotonic() + command.ANSWER_SECONDS)
    except NotRunningError as error:
        status = _without_daemon(arguments)
        if "pid" not in status:
            code = error.exit_code
    if arguments.json:
        print(json.dumps(status))
    else:
        print("\n".join(present.status(status, color=command.color(sys.stdout))))
    if code != command.OK:
        command.say(_how_to_start(arguments))
    return code


def _how_to_start(arguments: argparse.Namespace) -> str:
    from assetd import service

    unit = service.installed(command.folders(arguments)[0], os.environ)
    if unit is None:
        return "`assetd start` starts it"
    ask = service.journal(unit.scope, unit.name)
    return f"it is a service: `assetd start` starts it, `{ask}` shows its log"


def _without_daemon(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the record tells, and whether a daemon is about to tell more."""
    from assetd import history

    project, state_dir = command.folders(arguments)
    known = history.known(project, state_dir)
    holder = client.holder(state_dir)
    if holder is None or holder.socket is None:
        return known
    return known | {"state": "starting", "pid": holder.pid}


def _watch(arguments: argparse.Namespace) -> int:
    from assetd import screen

    if arguments.json:
        raise UsageError("--watch draws for people: `assetd events` is for scripts")
    return screen.watch(lambda: command.connect(arguments), color=command.color(sys.stdout))


def _events(arguments: argparse.Namespace) -> int:
    for name in arguments.names:
        if name not in EVENTS:
            near = command.near(name, EVENTS) or f": there are {', '.join(EVENTS)}"
            raise UsageError(f'there is no event "{words.printable(name)}"{near}')
    with contextlib.closing(command.connect(arguments)) as connection:
        connection.subscribe(*arguments.names)
        while True:
            print(json.dumps(connection.receive()), flush=True)


def _sync(arguments: argparse.Namespace) -> int:
    deadline = None if arguments.timeout is None else time.monotonic() + arguments.timeout
    with contextlib.closing(command.connect(arguments)) as connection:
        connection.send("sync")
        soon = time.monotonic() + HINT_SECONDS
        try:
            reply = connection.receive(soon if deadline is None else min(soon, deadline))
        except DeadlineError:
            _say_if_paused(arguments)
            reply = connection.receive(deadline)
        answer = client.answer(reply)
    if arguments.json:
        print(json.dumps({"schema": 1, **answer}))
    else:
        command.print_errors(answer["errors"], sys.stdout)
    return command.SOMETHING_FAILS if answer["errors"] else command.OK


def _say_if_paused(arguments: argparse.Namespace) -> None:
    with contextlib.closing(command.connect(arguments)) as connection:
        if connection.ask("status")["state"] == "paused":
            command.say("assetd is paused: waiting until somebody says `assetd resume`")


def _errors(arguments: argparse.Namespace) -> int:
    """What the daemon knows to fail; without one, what the record does."""
    problems: Sequence[str] = ()
    building = False
    errors: Sequence[Mapping[str, Any]] | None
    try:
        with contextlib.closing(command.connect(arguments)) as connection:
            status = connection.ask("status", deadline=time.monotonic() + command.ANSWER_SECONDS)
        errors, problems = status["errors"], status["config_errors"]
        building = status["state"] == "building"
    except (NotRunningError, DeadlineError):
        from assetd import history

        _, state_dir = command.folders(arguments)
        errors = history.errors(state_dir)
    if arguments.json:
        facts = {"schema": 1, "errors": errors or [], "config_errors": list(problems)}
        print(json.dumps(facts))
    else:
        for problem in problems:
            print(words.printable(problem))
        command.print_errors(errors or [], sys.stdout)
        if errors is None:
            print("nothing has been built here yet: `assetd build` does it", file=sys.stderr)
        elif errors:
            print("`assetd why PATH` tells what came to that, of a file above", file=sys.stderr)
        elif building:
            print("nothing fails so far: `assetd sync` waits for the rest", file=sys.stderr)
        elif not problems:
            print("nothing fails", file=sys.stderr)
    return command.SOMETHING_FAILS if errors or problems else command.OK
