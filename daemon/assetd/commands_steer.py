"""Commands that steer a running daemon: rebuild, pause, resume, reload."""

import argparse
import contextlib
import json
import sys

from assetd import command, words
from assetd.command import Commands


def add(commands: Commands) -> None:
    """Add the commands of this family."""
    rebuild = commands.add(
        "rebuild",
        _rebuild,
        "build again, also what is up to date, through the daemon",
        json=True,
        examples=("assetd rebuild", "assetd rebuild assets/css"),
    )
    rebuild.add_argument(
        "paths", nargs="*", metavar="PATH", help="only these sources, folders or outputs"
    )
    commands.add("pause", _pause, "begin nothing new until `assetd resume`", json=True)
    commands.add("resume", _pause, "go on after `assetd pause`", json=True)
    commands.add("reload", _reload, "read the configuration and look at everything", json=True)


def _rebuild(arguments: argparse.Namespace) -> int:
    with contextlib.closing(command.connect(arguments)) as connection:
        answer = connection.ask("build", paths=command.places_of(arguments), force=True)
    return command.built(answer, arguments)


def _pause(arguments: argparse.Namespace) -> int:
    with contextlib.closing(command.connect(arguments)) as connection:
        status = connection.ask(arguments.verb)
    if arguments.json:
        print(json.dumps(status))
        return command.OK
    if arguments.verb == "resume":
        print("assetd goes on", file=sys.stderr)
        return command.OK
    running = status["queue"]["running"]
    more = f"; {words.count(running, 'job')} still run to their end" if running else ""
    print(f"assetd is paused: it notes changes and builds nothing{more}", file=sys.stderr)
    return command.OK


def _reload(arguments: argparse.Namespace) -> int:
    with contextlib.closing(command.connect(arguments)) as connection:
        answer = connection.ask("reload")
    problems = answer["config_errors"]
    if arguments.json:
        print(json.dumps({"schema": 1, **answer}))
    for problem in problems:
        command.say(problem)
    if problems:
        command.say("the configuration before it stays in force")
        return command.MISCONFIGURED
    print("the configuration is in force; looking at everything", file=sys.stderr)
    return command.OK
