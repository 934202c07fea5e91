"""The engine `command`: the user's own Compass, run once for everything below its `config.rb`.

Compass compiles a whole project at a time, so the file that `config_path` names is the one
source, the root; it names its outputs only by making them.  The SCSS and Sass files are there
to be included, and dependencies of the root: many that change in one batch are one run.
"""

import os
import re
import shlex
import shutil
import subprocess
from typing import Any, Final

from assetd.processor import BuildError, Option, Setting, Step, Tool

TIMEOUT_SECONDS: Final = 100.0
OPTIONS: Final = (
    Option("bin", str, "compass", "The command to run: a name, or a path from the project."),
    Option("config_path", str, "config.rb", "Compass's configuration, from the mount: the root."),
    Option("frameworks", list[str], (), "Folders or names of frameworks to load (`--load`)."),
    Option(
        "options",
        str,
        "--sass-dir=. --css-dir=%out_dir%",
        "More options, with `%out_dir%` for where the CSS must go, and `%tmp_dir%`.",
    ),
)
_READ: Final = ("scss", "sass", "css", "rb", "png", "gif", "jpg", "jpeg", "svg")
"""What a run may read.  Compass does not tell what it did read."""
_ERROR: Final = re.compile(
    r"^\s*error (?P<file>\S.*?) \(Line (?P<line>\d+)(?: of (?P<of>.+?))?: (?P<text>.*)\)\s*$",
    re.MULTILINE,
)
_ANSI: Final = re.compile(r"\x1b\[[0-9;]*m")
_VERSION: Final = re.compile(r"\d+(?:\.\w+)+")


def tool(setting: Setting) -> Tool:
    """The command as it is on this machine."""
    cure = "gem install compass, or say where it is with `compass: {bin: ...}`"
    command = _command(setting.options["bin"], os.fspath(setting.project))
    if command is None:
        return Tool("compass", None, cure)
    try:
        done = subprocess.run(
            [command, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=10.0,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return Tool("compass", None, cure)
    found = _VERSION.search(done.stdout)
    return Tool("compass", found[0] if found else "of an unknown version")


def make(step: Step) -> None:
    """Run Compass, and take over every file that it made."""
    options, folder = step.options, step.origin.parent
    command = _command(options["bin"], os.fspath(step.project))
    for extension in _READ:
        for path in step.depends_glob(folder, f"**/*.{extension}"):
            if path != step.origin:
                step.depends(path)
    if command is None:
        raise step.fail(f"the command {options['bin']} is not there", file=step.origin)
    # Relative to where it runs: Compass joins `css_dir` to the folder, even an absolute one.
    made, scratch = step.scratch() / "out", step.scratch() / "tmp"
    made.mkdir()
    scratch.mkdir()
    places = {
        "%out_dir%": os.path.relpath(made.resolve(), folder.resolve()),
        "%tmp_dir%": os.path.relpath(scratch.resolve(), folder.resolve()),
    }
    try:
        words = shlex.split(options["options"])
    except ValueError as error:
        raise step.fail(f"compass.options: {error}", file=step.origin) from error
    for name, place in places.items():
        words = [word.replace(name, place) for word in words]
    loads = [word for framework in options["frameworks"] for word in ("--load", framework)]
    output = _run(step, [command, "compile", "--config", step.origin.name, *loads, *words])
    before = os.path.dirname(step.path)
    found = sorted(os.path.relpath(path, made) for path in made.rglob("*") if path.is_file())
    for name in found:
        shutil.copyfile(made / name, step.output(os.path.join(before, name)))
    if not found:
        text = output.strip()[-500:] or "nothing"
        raise step.fail(f"compass made no file in %out_dir%; it said: {text}", file=step.origin)


def _command(name: str, project: str) -> str | None:
    return shutil.which(os.path.join(project, name) if "/" in name else name)


def _run(step: Step, command: list[str]) -> str:
    try:
        done = subprocess.run(
            command,
            cwd=step.origin.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except OSError as error:
        raise step.fail(f"{command[0]} does not run: {error.strerror}", file=step.origin) from error
    except subprocess.TimeoutExpired as error:
        told = f"compass was not done after {TIMEOUT_SECONDS:g} seconds"
        raise step.fail(told, file=step.origin) from error
    output = _ANSI.sub("", done.stdout)
    if done.returncode != 0 or _ERROR.search(output):
        raise _failure(step, output, done.returncode)
    return output


def _failure(step: Step, output: str, code: int) -> BuildError:
    found = _ERROR.search(output)
    if found is None:
        text = output.strip()[-500:] or "it said nothing"
        return step.fail(f"compass ended with {code}: {text}", file=step.origin)
    place: dict[str, Any] = {"line": int(found["line"])}
    path = os.path.join(step.origin.parent, found["of"] or found["file"])
    return step.fail(found["text"], file=path, **place)
