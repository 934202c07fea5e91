"""Commands that need no daemon to say what is: why, processors, tools."""

import argparse
import json
import os
import sys

from assetd import command
from assetd.command import Commands


def add(commands: Commands) -> None:
    """Add the commands of this family."""
    why = commands.add("why", _why, "why a source or an output is as it is", json=True)
    why.add_argument("path", metavar="PATH")
    processors = commands.add(
        "processors", _processors, "what turns which files into others", json=True
    )
    processors.add_argument("name", nargs="?", metavar="NAME", help="only this one, with options")
    tools = commands.add("tools", _tools, "the compilers that processors need")
    tools.add_argument("deed", choices=("install",), help="install what is missing")


def _why(arguments: argparse.Namespace) -> int:
    from assetd import history

    start = os.path.realpath(arguments.directory or ".")
    story = history.why(command.load(arguments), arguments.path, start)
    if arguments.json:
        print(json.dumps(story))
    else:
        from assetd import present

        print("\n".join(present.why(story, color=command.color(sys.stdout))))
    return command.OK


def _processors(arguments: argparse.Namespace) -> int:
    from assetd import catalog

    found = catalog.rows(command.load(arguments), arguments.name)
    if arguments.json:
        print(json.dumps({"schema": 1, "processors": found}))
    else:
        lines = catalog.table(found) if arguments.name is None else catalog.page(found[0])
        print("\n".join(lines))
    return command.OK


def _tools(_arguments: argparse.Namespace) -> int:
    from assetd import catalog

    catalog.install_tools(sys.stderr)
    return command.OK
