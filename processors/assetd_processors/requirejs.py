"""The processor `requirejs`: a build of AMD modules by r.js, as its build file says.

Where `build_path` is set it takes every script of the mount: the build file makes what r.js
writes, the others make nothing of their own.  Every file that r.js reads is a dependency of the
build file.

What `out` of the build file names is an output where that lies in the mount, and so is what a
`dir` holds; where they lie outside, `out_path` says where the outputs go, and a `dir` without
it takes the place of the folder that it is made from.
"""

import os
from typing import Final

from assetd.processor import Option, Options, Processor, Step, same_name, suffix
from assetd_processors import tool_server, tools

PRIORITY: Final = 30
"""Before whatever else takes scripts."""
TIMEOUT_SECONDS: Final = 600.0

_js = suffix(".js")


def _matches(path: str, options: Options) -> bool:
    return bool(options["build_path"]) and _js(path, options)


def _requirejs(step: Step) -> None:
    build = os.path.normpath(step.options["build_path"].lstrip("/"))
    if step.path != build:
        return
    scratch = step.scratch()
    made = tool_server.ask(
        step,
        "requirejs",
        hide=(scratch,),
        timeout_seconds=TIMEOUT_SECONDS - 20.0,
        build=os.fspath(step.origin),
        scratch=os.fspath(scratch),
    )
    if made["dir"] is None:
        _single(step, made["out"], made["made"])
    else:
        _whole(step, made["dir"], made["root"], made["made"])


def _single(step: Step, out: str, made: list[str]) -> None:
    """One script, and its map beside it."""
    name = step.options["out_path"] or _in_mount(step, out)
    if name is None:
        raise step.fail(f"out: {out} is not in the mount: say where it goes with `out_path`")
    folder, base = os.path.split(name)
    for each in made:
        target = base if each == os.path.basename(out) else each
        _put(step, each, os.path.join(folder, target))


def _whole(step: Step, wanted: str, root: str, made: list[str]) -> None:
    """A folder: the scripts in it, and all that they need."""
    folder = step.options["out_path"] or _in_mount(step, wanted) or _in_mount(step, root)
    if folder is None:
        raise step.fail(f"dir: {wanted} is not in the mount: say where it goes with `out_path`")
    step.depends_glob(root, "**/*")
    for each in made:
        name = os.path.normpath(os.path.join(folder, each))
        # r.js brings along what is no script; where that would take the place of a source, it
        # is a copy of it, and others make an output of that.
        if _js(name, step.options) or not os.path.isfile(step.mount / name):
            _put(step, each, name)


def _in_mount(step: Step, path: str) -> str | None:
    name = os.path.relpath(path, step.mount)
    return None if name == ".." or name.startswith("../") else name


def _put(step: Step, made: str, name: str) -> None:
    with open(step.scratch() / "made" / made, "rb") as file:
        step.write(name, file.read())


requirejs = Processor(
    name="requirejs",
    version="1",
    matches=_matches,
    suffixes=(".js",),
    outputs=same_name,
    process=_requirejs,
    options=(
        Option("build_path", str, "", "The build file, in the mount; empty: there is none."),
        Option(
            "out_path",
            str,
            "",
            "Where the result goes in the output folder: a file for `out`, a folder for `dir`.",
        ),
    ),
    priority=PRIORITY,
    bypass=True,
    tool=tools.tool("requirejs"),
    warm=tool_server.shared,
    timeout_seconds=TIMEOUT_SECONDS,
)
