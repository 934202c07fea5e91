"""The processor `postcss`: CSS through PostCSS with Autoprefixer, kept warm.

Without `browsers`, Browserslist's own configuration counts: `.browserslistrc` or
`browserslist` in `package.json`, in the folder of the file or above it.
"""

import os
from typing import Final

from assetd.processor import Names, Option, Options, Processor, Step, suffix
from assetd_processors import tool_server, tools

PRIORITY: Final = 60
"""After the compilers, before the minifiers."""


def _outputs(path: str, options: Options) -> Names:
    return Names((path,), (path + ".map",) if options["source_map"] else ())


def _postcss(step: Step) -> None:
    made = tool_server.ask(
        step,
        "postcss",
        path=os.fspath(step.origin),
        text=tool_server.text(step),
        output=step.path,
        map=step.options["source_map"],
        chained=tool_server.chained(step),
        plugins=step.options["plugins"],
        browsers=step.options["browsers"],
    )
    step.write(step.path, made["css"])
    if step.options["source_map"]:
        step.write(step.path + ".map", made["map"])


postcss = Processor(
    name="postcss",
    version="1",
    matches=suffix(".css"),
    suffixes=(".css",),
    outputs=_outputs,
    process=_postcss,
    options=(
        Option("browsers", list[str], (), 'Queries of Browserslist, such as "last 2 versions".'),
        Option(
            "plugins",
            list[str],
            ("autoprefixer",),
            "What the style sheet goes through, in order.",
            choices=("autoprefixer",),
        ),
        Option("source_map", bool, False, "Make x.css.map too, with the sources in it."),
    ),
    priority=PRIORITY,
    default=False,
    tool=tools.tool("postcss", "autoprefixer"),
    warm=tool_server.shared,
)
