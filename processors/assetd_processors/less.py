"""The processor `less`: Less to CSS, by the compiler that `lessc` runs, kept warm.

An import is looked for in the folder of the importing file, in the entry's, in `load_paths`, in
`paths` of `options`, in the project's `node_modules` (a name that starts with neither `.` nor
`/`) and in the project's folder, and `.less` is put to a name without a suffix.  What was looked
for in vain is a dependency too.  Files that start with `_` are only there to be imported.
"""

import os
from typing import Any, Final

from assetd.processor import Names, Option, Options, Processor, Step, suffix
from assetd_processors import tool_server, tools

_matches = suffix(".less")
_OURS: Final = {
    "filename": "it is the source's",
    "plugins": "name them in the source, with @plugin",
    "rootFileInfo": "it is the source's",
    "sourceMap": "that is what the option source_map is for",
    "syncImport": "it would only be slower",
}


def _outputs(path: str, options: Options) -> Names:
    css = path[:-5] + ".css"
    return Names((css,), (css + ".map",) if options["source_map"] else ())


def _include_only(path: str, options: Options) -> bool:
    return path.rpartition("/")[2].startswith("_") and _matches(path, options)


def _less(step: Step) -> None:
    options: dict[str, Any] = dict(step.options["options"])
    for name in options.keys() & _OURS.keys():
        raise step.fail(f"less.options cannot have {name}: {_OURS[name]}", file="assetd.yml")
    paths = [*step.options["load_paths"], *options.pop("paths", ())]
    css = step.path[:-5] + ".css"
    made = tool_server.ask(
        step,
        "less",
        path=os.fspath(step.origin),
        text=tool_server.text(step),
        output=css,
        paths=[os.path.join(step.project, path) for path in paths],
        map=step.options["source_map"],
        options=options,
    )
    step.write(css, made["css"])
    if step.options["source_map"]:
        # Less makes no map of nothing.
        step.write(css + ".map", made["map"] or '{"version":3,"sources":[],"mappings":""}')


less = Processor(
    name="less",
    version="1",
    matches=_matches,
    suffixes=(".less",),
    outputs=_outputs,
    process=_less,
    options=(
        Option(
            "options",
            dict[str, Any],
            {},
            "What the compiler is given: compress, math, strictUnits, globalVars, modifyVars, "
            "rewriteUrls and its other options.",
        ),
        Option("load_paths", list[str], (), "Where imports are looked for, from the project."),
        Option("source_map", bool, False, "Make x.css.map too, with the sources in it."),
    ),
    include_only=_include_only,
    tool=tools.tool("less"),
    warm=tool_server.shared,
)
