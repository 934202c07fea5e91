"""The command line: arguments to a function to an exit code.

Data goes to standard output, messages to standard error.
"""

import argparse
import io
import os
import sys
from collections.abc import Sequence
from typing import Final

from assetd import (
    __version__,
    command,
    commands_ask,
    commands_build,
    commands_keep,
    commands_look,
    commands_run,
    commands_service,
    commands_steer,
    commands_tell,
)
from assetd.errors import AssetdError

FAMILIES: Final = (
    commands_build,
    commands_run,
    commands_service,
    commands_ask,
    commands_steer,
    commands_tell,
    commands_look,
    commands_keep,
)
"""In the order of `assetd --help`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that *argv* names; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that is not UTF-8
    words = sys.argv[1:] if argv is None else argv
    try:
        grammar = parser(words[0] if words else None)
    except KeyError:  # an option comes first, or somebody mistyped it
        grammar = parser()
    if not words:
        grammar.print_help(sys.stderr)
        return command.MISCONFIGURED
    arguments, more = grammar.parse_known_args(words)
    if more:
        arguments.grammar.refuse(more)
    run: command.Command = arguments.command
    try:
        code = run(arguments)
        sys.stdout.flush()
    except AssetdError as error:
        for line in str(error).splitlines():
            command.say(line)
        return error.exit_code
    except KeyboardInterrupt:
        return command.INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough; without this Python says so at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return command.OK
    return code


_MORE: Final = """\
first steps:
  assetd init      writes assetd.yml
  assetd start     builds, and builds again whatever is edited
  assetd status    says how it goes
  assetd errors    shows what fails, and where
  assetd stop      ends it

`assetd COMMAND --help` has the options of a command, and examples.

Exit codes: 0 done; 1 something fails to build; 2 usage or configuration;
3 no daemon runs; 4 another daemon holds the project; 124 timed out;
130 interrupted."""


def parser(only: str | None = None) -> argparse.ArgumentParser:
    """The grammar of the command line.

    Args:
        only: The one command that is wanted; None for all.

    Raises:
        KeyError: There is no such command.
    """
    top = command.Grammar(
        prog="assetd",
        description="Builds web assets, and keeps them right while people edit.",
        epilog=_MORE,
    )
    top.add_argument("--version", action="version", version=f"assetd {__version__}")
    commands = command.Commands(top, parser, only)
    for family in FAMILIES:
        family.add(commands)
    if not commands.names:
        raise KeyError(only)
    return top
