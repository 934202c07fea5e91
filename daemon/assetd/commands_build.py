"""Commands that build: init, build, and what they tell of it."""

import argparse
import contextlib
import json
import os
import sys

from assetd import command, words
from assetd.command import Commands
from assetd.errors import NotRunningError, UsageError


def add(commands: Commands) -> None:
    """Add the commands of this family."""
    init = commands.add(
        "init",
        _init,
        "write a configuration that fits the folder it finds",
        examples=("assetd init", "assetd init my-site"),
    )
    init.add_argument(
        "folder", nargs="?", default=".", metavar="DIR", help="that folder, made if need be"
    )

    build = commands.add(
        "build",
        _build,
        "bring every output up to date, once",
        json=True,
        examples=(
            "assetd build",
            "assetd build assets/css public/js/app.js",
            "assetd build --dry-run",
        ),
    )
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
    build.add_argument(
        "--trace", metavar="FILE", help="write there what takes how long, for Perfetto"
    )
    build.add_argument(
        "-j", dest="workers", type=command.workers, metavar="N", help="worker processes"
    )


def _init(arguments: argparse.Namespace) -> int:
    from assetd import initial

    start = arguments.directory or "."
    if not os.path.isdir(start):
        raise UsageError(f"{start} is no folder that is there")
    folder = os.path.realpath(os.path.join(start, arguments.folder))
    path, mounts = initial.write(folder)
    listed = ", ".join(mounts)
    print(f"wrote {words.printable(path)}", file=sys.stderr)
    print(f"mounts: {words.printable(listed)}; `assetd build` builds them", file=sys.stderr)
    more = "`assetd start` keeps them built; keep .assetd and the outputs out of version control"
    print(more, file=sys.stderr)
    return command.OK


def _build(arguments: argparse.Namespace) -> int:
    if arguments.dry_run:
        return _dry_run(arguments)
    if not (arguments.no_delete or arguments.take_over):
        try:
            with contextlib.closing(command.connect(arguments)) as connection:
                if arguments.workers is not None:
                    command.say("a daemon is running, with workers of its own: -j is not used")
                if arguments.trace is not None:
                    command.say("a daemon is running, and it builds: --trace is for `assetd run`")
                answer = connection.ask(
                    "build", paths=command.places_of(arguments), force=arguments.force
                )
        except NotRunningError:
            pass
        else:
            return command.built(answer, arguments)
    from assetd.forkserver import ForkServer

    project = command.load(arguments)
    config = project.config
    server = ForkServer(config.state_dir)
    if not os.path.exists(config.record_path):
        server.start()  # there is work: it gets warm while we import the rest
    from assetd import once, trace

    def ended(cause: str) -> None:
        command.say(f"the trace ends early: {cause}")

    watched = (config.out_dir, *(mount.folder for mount in config.mounts))
    with (
        contextlib.closing(server),
        trace.opened(arguments.trace, watched, ended) as opened,
    ):
        answer = once.build(
            project,
            server,
            paths=command.places_of(arguments),
            force=arguments.force,
            no_delete=arguments.no_delete,
            take_over=arguments.take_over,
            workers=arguments.workers,
            progress=sys.stderr if sys.stderr.isatty() and not arguments.json else None,
            trace=opened,
        )
    return command.built(answer, arguments)


def _dry_run(arguments: argparse.Namespace) -> int:
    from assetd import explain, history, once

    todo = once.dry_run(
        command.load(arguments), paths=command.places_of(arguments), force=arguments.force
    )
    if arguments.json:
        rows = [{"source": place, "reason": history.reason(reason)} for place, reason in todo]
        print(json.dumps({"schema": 1, "would": rows}))
        return command.OK
    for place, reason in todo:
        shown = words.printable(place)
        told = explain.reason(reason)
        # The sentence was made to stand alone; here its subject has just been named.
        told = f"it {told.removeprefix(shown).lstrip()}" if told.startswith(f"{shown} ") else told
        print(f"{shown}: {told}")
    if not todo:
        print("nothing to do", file=sys.stderr)
    return command.OK
