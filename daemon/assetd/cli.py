"""The command line: arguments to a function to an exit code.

Data goes to standard output, messages to standard error.
"""

import argparse
import io
import os
import sys
from collections.abc import Sequence
from typing import Any, Final

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


class _UnprintableError(AssetdError):
    """What was asked for is known, and nobody can be told."""


class _Stdout(io.FileIO):
    """Standard output, whose disk may be full: that is no bug of ours."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _UnprintableError(f"nothing can be printed: {error.strerror}") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that *argv* names; returns the exit code."""
    if sys.stdout is sys.__stdout__ and isinstance(sys.stdout, io.TextIOWrapper):
        raw = io.BufferedWriter(_Stdout(sys.stdout.fileno(), "w", closefd=False))
        sys.stdout = io.TextIOWrapper(
            raw, sys.stdout.encoding, line_buffering=sys.stdout.line_buffering
        )
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
        if isinstance(error, _UnprintableError):
            _look_away()
        return error.exit_code
    except KeyboardInterrupt:
        return command.INTERRUPTED
    except BrokenPipeError:
        _look_away()  # whoever read our output has seen enough
        return command.OK
    return code


def _look_away() -> None:
    """Let nobody hear the rest; without this Python says at its end that it is lost."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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
