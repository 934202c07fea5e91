"""Commands that need no daemon to say what is.

`why`, `tree` and `list` read the record; `config`, `processors`, `tools` and `completion` do not.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from typing import Final

from assetd import command
from assetd.command import Commands

STATES: Final = ("ok", "failed", "overridden", "conflict", "blocked")
"""Those of `model.EntryState`, which takes its time to import."""
_FILES: Final = {"PATH", "FILE"}
_FOLDERS: Final = {"DIR"}


def add(commands: Commands) -> None:
    """Add the commands of this family."""
    why = commands.add(
        "why",
        _why,
        "why a source or an output is as it is",
        json=True,
        examples=("assetd why assets/css/site.scss", "assetd why public/css/site.css"),
    )
    why.add_argument(
        "path", metavar="PATH", help="a source, an output, or a file that sources include"
    )
    tree = commands.add(
        "tree",
        _tree,
        "what a source goes through, node by node",
        json=True,
        examples=("assetd tree assets/css/site.scss",),
    )
    tree.add_argument("path", metavar="PATH", help="a source, or an output of it")
    listed = commands.add(
        "list",
        _list,
        "the sources and their outputs",
        json=True,
        examples=("assetd list --state failed",),
    )
    listed.add_argument("--state", choices=STATES, help="only those in that state")
    config = commands.add(
        "config",
        _config,
        "the configuration in full",
        json=True,
        examples=("assetd config", "assetd config --schema > assetd.schema.json"),
    )
    config.add_argument(
        "--schema", action="store_true", help="print the JSON Schema of assetd.yml, for editors"
    )
    processors = commands.add(
        "processors",
        _processors,
        "what turns which files into others",
        json=True,
        examples=("assetd processors", "assetd processors sass"),
    )
    processors.add_argument("name", nargs="?", metavar="NAME", help="only this one, with options")
    completion = commands.add(
        "completion",
        _completion,
        "completion for a shell, to be sourced",
        examples=(
            "source <(assetd completion bash)",
            'assetd completion zsh > "${fpath[1]}/_assetd"',
            "assetd completion fish > ~/.config/fish/completions/assetd.fish",
        ),
    )
    completion.add_argument(
        "shell", metavar="SHELL", choices=("bash", "zsh", "fish"), help="bash, zsh or fish"
    )
    completion.set_defaults(parser=commands.parser)
    tools = commands.add(
        "tools", _tools, "the compilers that processors need", examples=("assetd tools install",)
    )
    tools.add_argument(
        "deed", metavar="install", choices=("install",), help="install what is missing"
    )


def _completion(arguments: argparse.Namespace) -> int:
    import shtab

    top = arguments.parser()
    for action in _actions(top):
        if action.metavar in _FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif action.metavar in _FOLDERS:
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
    print(shtab.complete(top, arguments.shell))
    return command.OK


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:  # noqa: SLF001 - there is no public way to walk it
        yield action
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for each in action.choices.values():
                yield from _actions(each)


def _why(arguments: argparse.Namespace) -> int:
    from assetd import history

    command.folders(arguments)  # whoever may not look is told so, and not that there is nothing
    start = os.path.realpath(arguments.directory or ".")
    story = history.why(command.load(arguments), arguments.path, start)
    if arguments.json:
        print(json.dumps(story))
    else:
        from assetd import present

        print("\n".join(present.why(story, color=command.color(sys.stdout))))
    return command.OK


def _tree(arguments: argparse.Namespace) -> int:
    from assetd import inventory, present

    command.folders(arguments)
    start = os.path.realpath(arguments.directory or ".")
    tree = inventory.tree(command.load(arguments), arguments.path, start)
    if arguments.json:
        print(json.dumps(tree))
    else:
        print("\n".join(present.tree(tree, color=command.color(sys.stdout))))
    return command.OK


def _list(arguments: argparse.Namespace) -> int:
    from assetd import config, inventory, present
    from assetd.model import EntryState

    command.folders(arguments)
    found, _ = config.read(command.config_file(arguments))
    state = None if arguments.state is None else EntryState(arguments.state)
    sources = inventory.sources(found, state)
    if arguments.json:
        print(json.dumps({"schema": 1, "sources": list(sources)}))
        return command.OK
    color = command.color(sys.stdout)
    for source in sources:
        print(present.row(source, color=color))
    return command.OK


def _config(arguments: argparse.Namespace) -> int:
    from assetd import catalog

    project = command.load(arguments)
    if arguments.schema:
        print(json.dumps(catalog.schema(project), indent=2))
    elif arguments.json:
        print(json.dumps({"schema": 1, **catalog.configuration(project)}))
    else:
        print(catalog.written(project), end="")
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
