"""What every command of the command line stands on: the project it is about, and what it says.

Knows folders, files and the control socket's place; nothing of what the commands do.
Whatever is slow to import is imported by the command that needs it, so that `assetd status`
stays quick.
"""

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn, TextIO

from assetd import client, words
from assetd.errors import AssetdError, ConfigError, UsageError

if TYPE_CHECKING:
    from assetd.config import Config

OK: Final = 0
SOMETHING_FAILS: Final = 1
MISCONFIGURED: Final = 2
INTERRUPTED: Final = 130
ANSWER_SECONDS: Final = 10.0
"""A daemon that has not answered by then hangs."""

Command = Callable[[argparse.Namespace], int]


_ELSEWHERE: Final = {"help": "assetd --help", "version": "assetd --version"}
"""What people type as a command and is none."""


class Grammar(argparse.ArgumentParser):
    """A parser that says what may have been meant, and leaves lines of examples as they are."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*arguments, **options)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if not isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - it has no other name
            super()._check_value(action, value)
        elif value not in action.choices:
            told = f'there is no command "{words.printable(value)}"'
            if value in _ELSEWHERE:
                told += f": `{_ELSEWHERE[value]}` tells"
            else:
                told += f"{near(value, action.choices)}: `assetd --help` lists them"
            self.exit(MISCONFIGURED, f"assetd: {told}\n")

    def refuse(self, typed: Sequence[str]) -> NoReturn:
        """End with a message about what was *typed* and no argument of this command takes."""
        word = typed[0].partition("=")[0]
        options = [name for action in self._actions for name in action.option_strings]
        kind = "option" if word.startswith("-") else "argument"
        self.error(f'unknown {kind} "{words.printable(word)}"{near(word, options)}')


def near(word: str, names: Iterable[str]) -> str:
    """Which of *names* somebody may have meant, in parentheses; empty if none comes near."""
    import difflib

    found = difflib.get_close_matches(word, list(names), n=1)
    return f' (did you mean "{found[0]}"?)' if found else ""


class _Unused(argparse.ArgumentParser):
    """Takes the arguments of a command that nobody has typed, and forgets them."""

    def __init__(self) -> None:
        pass

    def add_argument(self, *_arguments: Any, **_options: Any) -> Any:
        return None

    def add_mutually_exclusive_group(self, **_options: Any) -> Any:
        return self

    def set_defaults(self, **_values: Any) -> None:
        return None


class Commands:
    """The grammar of the command line, to which each family of commands adds its own."""

    def __init__(
        self,
        top: argparse.ArgumentParser,
        parser: Callable[[], argparse.ArgumentParser],
        only: str | None = None,
    ) -> None:
        """Begin.

        Args:
            top: Where the commands go.
            parser: Makes the whole grammar anew, for who wants to look at it.
            only: The one command that is wanted: the others cost time.  None for all.
        """
        self.parser = parser
        self.names: list[str] = []
        """Those that were added."""
        self._only = only
        self._shared = argparse.ArgumentParser(add_help=False)
        for each, default in ((top, None), (self._shared, argparse.SUPPRESS)):  # on both sides
            each.add_argument(
                "-C", dest="directory", metavar="DIR", default=default, help="as if started in DIR"
            )
            each.add_argument(
                "--config", metavar="FILE", default=default, help="use this configuration file"
            )
        self._facts = argparse.ArgumentParser(add_help=False)
        self._facts.add_argument("--json", action="store_true", help="print JSON")
        self._added = top.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(
        self,
        name: str,
        command: Command,
        text: str,
        *,
        json: bool = False,
        examples: Sequence[str] = (),
    ) -> argparse.ArgumentParser:
        """A new command; the caller adds its arguments.

        Args:
            name: As it is typed.
            command: Gets the parsed arguments, returns the exit code.
            text: One line of help.
            json: Whether it prints facts, and so has `--json`.
            examples: Lines that somebody may type, told at the end of its help.
        """
        if self._only not in {None, name}:
            return _Unused()
        self.names.append(name)
        parents = [self._shared, self._facts] if json else [self._shared]
        epilog = "\n  ".join(("examples:", *examples)) if examples else None
        added = self._added.add_parser(
            name, parents=parents, help=text, description=text, epilog=epilog
        )
        added.set_defaults(command=command, verb=name, grammar=added)
        return added


def say(message: str) -> None:
    """Tell people something on standard error."""
    print(f"assetd: {words.printable(message)}", file=sys.stderr)


def workers(text: str) -> int:
    """A number of worker processes, from an argument."""
    number = int(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= number <= 1024:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to 1024, found {text!r}")
    return number


def seconds(text: str) -> float:
    """A duration, from an argument."""
    from assetd import document

    try:
        return document.seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def config_file(arguments: argparse.Namespace) -> str:
    """The configuration file of the project that the command is about; its folder is real."""
    start = arguments.directory or "."
    if not os.path.isdir(start):
        raise UsageError(f"{start} is no folder that is there")
    if arguments.config is not None:
        file = os.path.join(start, arguments.config)
        if not os.path.isfile(file):
            try:
                os.stat(file)
            except PermissionError as error:
                raise UsageError(f"{file} cannot be read: {error.strerror}") from error
            except OSError:
                pass
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


def load(arguments: argparse.Namespace) -> Any:
    """The project, with its processors; what deserves a warning is said."""
    from assetd import registry

    project = registry.load(config_file(arguments))
    for warning in project.warnings:
        say(str(warning))
    return project


def configuration(arguments: argparse.Namespace) -> "Config":
    """The configuration without its processors, so that no plugin is run.

    Raises:
        ConfigError: Something is wrong with it, so its folders may not be ours.
    """
    from assetd import config

    found, problems = config.read(config_file(arguments))
    if problems:
        raise ConfigError(problems)
    return found


def folders(arguments: argparse.Namespace) -> tuple[str, str]:
    """The project's folder and its state folder, without reading more than is needed."""
    file = config_file(arguments)
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
        state_dir = os.path.realpath(os.path.join(project, os.fsdecode(plain[0])))
        check_reachable(state_dir)
        return project, state_dir
    # It is written in a way that takes a YAML parser, which is slow to load.
    from assetd import config

    try:
        found, _ = config.read(file)
    except AssetdError:
        return project, os.path.join(project, ".assetd")
    check_reachable(found.state_dir)
    return found.project, found.state_dir


def check_reachable(state_dir: str) -> None:
    """See to it that a state folder that we may not look into does not pass for an empty one.

    Raises:
        UsageError: It is somebody else's.
    """
    if not os.path.isdir(state_dir) or os.access(state_dir, os.R_OK | os.X_OK):
        return
    owner = words.user(os.stat(state_dir).st_uid)
    raise UsageError(
        f"{state_dir} is closed to us, so what assetd does here is not known: "
        f"ask as its owner, `sudo -u {owner} assetd`, or let `assetd doctor` look"
    )


def connect(
    arguments: argparse.Namespace, patience_seconds: float = client.PATIENCE_SECONDS
) -> client.Connection:
    """A connection to the daemon; the caller closes it.

    Raises:
        NotRunningError: There is none.
        DeadlineError: One that is about to listen did not within *patience_seconds*.
    """
    return client.connect(*folders(arguments), patience_seconds)


def places_of(arguments: argparse.Namespace) -> list[str]:
    """The PATHs as the engine names them: places of sources, names of outputs."""
    if not arguments.paths:
        return []
    from assetd import config, place

    file = config_file(arguments)
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


def print_errors(errors: Sequence[Mapping[str, Any]], to: TextIO) -> None:
    """Print what fails, with places and excerpts."""
    if errors:
        from assetd import present

        print("\n".join(present.errors(errors, color=color(to))), file=to)


def say_how_it_goes(status: Mapping[str, Any]) -> None:
    """What somebody who has just started it would ask next."""
    if status["errors"]:
        wrong = len({(each["mount"], each["source"]) for each in status["errors"]})
        fail = words.count(wrong, "source fails", "sources fail")
        print(f"{fail}: `assetd errors` shows where", file=sys.stderr)
    elif status["state"] in {"scanning", "building"}:
        told = "it is building: `assetd status` says how it goes, `assetd sync` waits for it"
        print(told, file=sys.stderr)


def color(to: TextIO) -> bool:
    """Whether what goes there may be coloured."""
    if os.environ.get("FORCE_COLOR"):
        return True
    return to.isatty() and not os.environ.get("NO_COLOR")


def built(answer: Mapping[str, Any], arguments: argparse.Namespace) -> int:
    """Tell what came of a build, and give the exit code.

    Raises:
        UsageError: Some of the paths stand for nothing.
    """
    errors = answer["errors"]
    # Mostly there are none, and the configuration need not be read once more.
    named = zip(arguments.paths, places_of(arguments), strict=True) if answer["unknown"] else ()
    unknown = [
        f"{path} is no source and no output of this project"
        for path, place in named
        if place in answer["unknown"]
    ]
    if arguments.json:
        print(json.dumps({"schema": 1, **answer}))
    elif not unknown or len(unknown) < len(arguments.paths):
        for message in answer.get("messages", ()):
            say(message)
        print_errors(errors, sys.stderr)
        outputs = words.count(answer["outputs"], "output")
        wrong = len({(each["mount"], each["source"]) for each in errors})
        fail = f"; {words.count(wrong, 'source fails', 'sources fail')}" if wrong else ""
        print(f"{words.tally(answer['batch'])}; {outputs}{fail}", file=sys.stderr)
    if unknown:
        raise UsageError("\n".join(unknown))
    return SOMETHING_FAILS if errors or answer.get("on_batch_failed") else OK
