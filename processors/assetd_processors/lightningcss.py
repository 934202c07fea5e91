"""The processor `lightningcss`: CSS made small and fit for the browsers that are named.

In this process: Lightning CSS is a native library without state.  It holds the GIL while it
works, which nobody in a worker minds; it has no loops that a style sheet could drive, and
rejects what is broken.
"""

import re
from typing import Any, Final

from assetd.processor import (
    NORMAL,
    BuildError,
    Option,
    Options,
    Processor,
    Setting,
    Step,
    Tool,
    same_name,
)
from assetd_processors import pip

_PACKAGE: Final = "lightningcss"
_CURE: Final = "pip install 'assetd[lightningcss]'"
_PLACE: Final = re.compile(r"^(?P<text>.*) at .*:(?P<line>\d+):(?P<column>\d+)$", re.DOTALL)
_NO_NESTING: Final = "chrome 111"
"""The last Chrome that does not know nested rules."""


def _matches(path: str, _options: Options) -> bool:
    name = path.lower()
    return name.endswith(".css") and not name.endswith(".min.css")


def _tool(_setting: Setting) -> Tool:
    return pip.tool(_PACKAGE, _CURE)


def _warm(_setting: Setting) -> Any:
    try:
        import lightningcss as library
    except ImportError:
        return None
    return library


def _process(step: Step) -> None:
    library, options = step.warm, step.options
    if library is None:
        raise step.fail(f"Lightning CSS is not installed: {_CURE}")
    data = step.input.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise step.fail("not UTF-8: save it as UTF-8", line=line) from error
    targets = [*options["targets"], *(() if options["nesting"] else (_NO_NESTING,))]
    try:
        css = library.process_stylesheet(
            text,
            filename="-",
            browsers_list=targets or None,
            minify=options["minify"],
        )
    except ValueError as error:
        raise _failure(step, str(error)) from error
    step.write(step.path, css)


def _failure(step: Step, message: str) -> BuildError:
    stage, _, told = message.partition(": ")
    found = _PLACE.match(told)
    if found is not None:
        # It counts lines from 0 and columns from 1.
        line, column = int(found["line"]) + 1, int(found["column"])
        return step.fail(found["text"], line=line, column=column)
    if "browsers_list" in stage:
        return step.fail(f"lightningcss.targets: {told}", file="assetd.yml")
    return step.fail(message)


lightningcss = Processor(
    name="lightningcss",
    version="1",
    matches=_matches,
    suffixes=(".css",),
    outputs=same_name,
    process=_process,
    default=False,
    priority=NORMAL + 20,  # behind those that make the CSS, and postcss
    options=(
        Option(
            "minify", bool, True, "Make it as small as it gets; else it is laid out for people."
        ),
        Option(
            "targets",
            list[str],
            (),
            "Browsers to be fit for, as Browserslist has them: prefixes and older syntax are "
            "made for these.  None: nothing is changed for a browser.  A YAML list: "
            "`[chrome 90, last 2 safari versions]`.",
        ),
        Option(
            "nesting",
            bool,
            True,
            "Keep nested rules where all targets know them; else they are resolved for everyone.",
        ),
    ),
    tool=_tool,
    warm=_warm,
)
