"""The processor `cleancss`: CSS made smaller, by clean-css, kept warm.

It inlines `@import` of files that are there, as its command line does; those and the ones that
it does not find are dependencies.  A name that ends in `.min.css`, or in another `out_ext` than
`.css`, is not taken: it is small already.
"""

import os
from typing import Any, Final

from assetd.processor import Names, Option, Options, Processor, Step, suffix
from assetd_processors import tool_server, tools

PRIORITY: Final = 80
"""After all that makes style sheets."""

_css = suffix(".css")
_small = suffix(".min.css")


def _ext(options: Options) -> str:
    """The suffix of what it makes; `min.css` means `.min.css`."""
    ext: str = options["out_ext"]
    return ext if ext.startswith(".") else "." + ext


def _matches(path: str, options: Options) -> bool:
    if not _css(path, options) or _small(path, options):
        return False
    ext = _ext(options)
    return ext == ".css" or not path.lower().endswith(ext.lower())


def _target(path: str, options: Options) -> str:
    ext = _ext(options)
    return path if ext == ".css" else path[:-4] + ext


def _outputs(path: str, options: Options) -> Names:
    css = _target(path, options)
    return Names((css,), (css + ".map",) if options["source_map"] else ())


def _cleancss(step: Step) -> None:
    options = {"level": step.options["level"], **step.options["options"]}
    css = _target(step.path, step.options)
    made = tool_server.ask(
        step,
        "cleancss",
        path=os.fspath(step.origin),
        text=tool_server.text(step),
        output=css,
        map=step.options["source_map"],
        chained=tool_server.chained(step),
        options=options,
    )
    step.write(css, made["css"])
    if step.options["source_map"]:
        step.write(css + ".map", made["map"])


cleancss = Processor(
    name="cleancss",
    version="1",
    matches=_matches,
    suffixes=(".css",),
    outputs=_outputs,
    process=_cleancss,
    options=(
        Option("level", int, 1, "How hard it tries.", choices=(0, 1, 2)),
        Option(
            "options",
            dict[str, Any],
            {},
            "What clean-css is given: compatibility, format, inline, rebaseTo, level with its "
            "details, and its other options.",
        ),
        Option("out_ext", str, ".css", "The suffix of what it makes, such as .min.css."),
        Option("source_map", bool, False, "Make x.css.map too, with the sources in it."),
    ),
    priority=PRIORITY,
    tool=tools.tool("clean-css"),
    warm=tool_server.shared,
)
