"""The processor `browserify`: CommonJS modules to one script, by Browserify, kept warm.

Only what `entries` names is bundled; every module of the bundle is a dependency, and so is
every path where a module would have been found first.
"""

import os
from typing import Any, Final

from assetd.processor import Names, Option, Options, Processor, Step, suffix
from assetd_processors import tool_server, tools
from assetd_processors.entries import is_entry

PRIORITY: Final = 40
"""Before the minifiers, which then take the bundle."""

_js = suffix(".js")


def _matches(path: str, options: Options) -> bool:
    return _js(path, options) and is_entry(path, options)


def _outputs(path: str, options: Options) -> Names:
    return Names((_target(path, options),))


def _target(path: str, options: Options) -> str:
    ext: str = options["out_ext"]
    return path[:-3] + (ext if ext.startswith(".") else "." + ext)


def _browserify(step: Step) -> None:
    made = tool_server.ask(
        step,
        "browserify",
        path=os.fspath(step.origin),
        text=None if step.input == step.origin else tool_server.text(step),
        options=step.options["options"],
    )
    step.write(_target(step.path, step.options), made["code"])


browserify = Processor(
    name="browserify",
    version="1",
    matches=_matches,
    suffixes=(".js",),
    outputs=_outputs,
    process=_browserify,
    options=(
        Option("entries", list[str], (), "Globs of the scripts to start from, in the mount."),
        Option(
            "options",
            dict[str, Any],
            {},
            "What Browserify is given: debug, standalone, paths, extensions, transform and its "
            "other options.",
        ),
        Option("out_ext", str, ".js", "The suffix of what it makes, such as .bundle.js."),
    ),
    priority=PRIORITY,
    default=False,
    tool=tools.tool("browserify"),
    warm=tool_server.shared,
)
