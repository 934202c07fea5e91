"""The processor `uglifyjs`: JavaScript made smaller, by UglifyJS, kept warm.

A name that ends in `.min.js` is not taken: it is small already.  With `source_map`, the map
leads back to what the node before made its input of, if that made a map too.
"""

import os
from typing import Any, Final

from assetd.processor import Names, Option, Options, Processor, Step, suffix
from assetd_processors import tool_server, tools

PRIORITY: Final = 80
"""After all that makes scripts."""


_js = suffix(".js")
_small = suffix(".min.js")


def _matches(path: str, options: Options) -> bool:
    return _js(path, options) and not _small(path, options)


def _outputs(path: str, options: Options) -> Names:
    return Names((path,), (path + ".map",) if options["source_map"] else ())


def _uglifyjs(step: Step) -> None:
    made = tool_server.ask(
        step,
        "uglifyjs",
        path=os.path.relpath(step.origin, step.project),
        text=tool_server.text(step),
        output=step.path,
        map=step.options["source_map"],
        chained=tool_server.chained(step),
        options=step.options["options"],
    )
    step.write(step.path, made["code"])
    if step.options["source_map"]:
        step.write(step.path + ".map", made["map"])


uglifyjs = Processor(
    name="uglifyjs",
    version="1",
    matches=_matches,
    suffixes=(".js",),
    outputs=_outputs,
    process=_uglifyjs,
    options=(
        Option(
            "options",
            dict[str, Any],
            {},
            "What UglifyJS is given: compress, mangle, output, toplevel and its other options.",
        ),
        Option("source_map", bool, False, "Make x.js.map too, with the sources in it."),
    ),
    priority=PRIORITY,
    tool=tools.tool("uglify-js"),
    warm=tool_server.shared,
)
