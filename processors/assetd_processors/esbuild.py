"""The processor `esbuild`: TypeScript, JSX and modules to what browsers run, by esbuild.

Only what `entries` names is built; `app.ts` makes `app.js`.  Every module of the bundle is a
dependency, and so are the paths where one would have been found first.  The names of outputs
must be known before anything is read: style sheets that scripts import are collected in
`app.css` with `css: true`, and images and fonts go into the text with a loader like `dataurl`.
"""

import os
from typing import Any, Final

from assetd.processor import Names, Option, Options, Processor, Step, suffix
from assetd_processors import tool_server, tools
from assetd_processors.entries import is_entry

PRIORITY: Final = 40
"""Before the minifiers, which then take the bundle."""

_PASSED: Final = (
    "bundle",
    "minify",
    "target",
    "format",
    "platform",
    "jsx",
    "loader",
    "external",
    "define",
)
_SUFFIXES: Final = (".ts", ".tsx", ".mts", ".jsx", ".mjs", ".js", ".css")
_known = suffix(*_SUFFIXES)


def _matches(path: str, options: Options) -> bool:
    return _known(path, options) and is_entry(path, options)


def _outputs(path: str, options: Options) -> Names:
    stem, ext = os.path.splitext(path)
    names = [stem + (".css" if ext.lower() == ".css" else ".js")]
    if options["css"] and names[0].endswith(".js"):
        names.append(stem + ".css")
    return Names(tuple(names), tuple(f"{n}.map" for n in names) if options["source_map"] else ())


def _esbuild(step: Step) -> None:
    options = {name: step.options[name] for name in _PASSED if step.options[name]}
    if step.options["source_map"]:
        options["sourcemap"] = True
    names = _outputs(step.path, step.options)
    made = tool_server.ask(
        step,
        "esbuild",
        path=os.fspath(step.origin),
        text=None if step.input == step.origin else tool_server.text(step),
        output=names.primary[0],
        options=options,
    )
    files: dict[str, str] = dict(made["files"])
    for name in (*names.primary, *names.companions):
        # A bundle without a style sheet, or a style sheet without a map, is an empty one.
        empty = '{"version":3,"sources":[],"mappings":""}' if name.endswith(".map") else ""
        step.write(name, files.pop(os.path.basename(name), empty))
    for name in files:
        if name.endswith((".css", ".css.map")):
            raise step.fail(f"makes {name} too: announce it with `css: true`")
        raise step.fail(
            f"makes {name} too, which cannot be announced: let it go into the text, with "
            f"`loader: {{'{os.path.splitext(name)[1]}': dataurl}}`"
        )


esbuild = Processor(
    name="esbuild",
    version="1",
    matches=_matches,
    suffixes=_SUFFIXES,
    outputs=_outputs,
    process=_esbuild,
    options=(
        Option("entries", list[str], (), "Globs of the files to start from, in the mount."),
        Option("bundle", bool, True, "Bring what is imported into the output."),
        Option("minify", bool, False, "Make it smaller."),
        Option("target", list[str], (), "What it must run on, such as es2020 or safari15."),
        Option(
            "format",
            str,
            "",
            "How the output is a module; the default depends on `bundle`.",
            choices=("", "iife", "cjs", "esm"),
        ),
        Option(
            "platform",
            str,
            "browser",
            "Which packages and conditions are preferred.",
            choices=("browser", "node", "neutral"),
        ),
        Option(
            "jsx",
            str,
            "transform",
            "What becomes of JSX.",
            choices=("transform", "automatic", "preserve"),
        ),
        Option("loader", dict[str, Any], {}, "How files are read, by suffix: {.svg: dataurl}."),
        Option("external", list[str], (), "What is imported at run time, and not brought in."),
        Option("define", dict[str, Any], {}, "Names that are replaced by an expression."),
        Option("css", bool, False, "Make app.css too, of the style sheets that are imported."),
        Option("source_map", bool, False, "Make x.js.map too, with the sources in it."),
    ),
    priority=PRIORITY,
    default=False,
    tool=tools.tool("esbuild"),
    warm=tool_server.shared,
)
