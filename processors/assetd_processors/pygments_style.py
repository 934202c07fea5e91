r"""The processor `pygments_style`: a style of Pygments as a style sheet.

`css/code.pygstyle` makes `css/code.css`::

    style: monokai        # what `pygmentize -L styles` lists
    class: .highlight     # stands before every selector

Both may be left out, and so may everything: then the options have them.
"""

from typing import TYPE_CHECKING, Final

from assetd.processor import Names, Option, Options, Processor, Setting, Step, Tool, suffix
from assetd_processors import pip, recipes

if TYPE_CHECKING:
    import yaml

_PACKAGE: Final = "Pygments"
_CURE: Final = "pip install 'assetd[pygments]'"
_SUFFIX: Final = ".pygstyle"
_KEYS: Final = ("style", "class")


def _outputs(path: str, _options: Options) -> Names:
    return Names((path[: -len(_SUFFIX)] + ".css",))


def _tool(_setting: Setting) -> Tool:
    return pip.tool(_PACKAGE, _CURE)


def _process(step: Step) -> None:
    try:
        from pygments.formatters import HtmlFormatter
        from pygments.styles import get_all_styles
    except ImportError as error:
        raise step.fail(f"Pygments is not installed: {_CURE}") from error
    root = recipes.compose(step)
    values: dict[str, yaml.Node] = {}
    if root is not None:
        values = recipes.mapping(
            step, root, _KEYS, f"a mapping with the keys {' and '.join(_KEYS)}"
        )
    told = {
        key: recipes.scalar(step, node, f"expected a name for {key}")
        for key, node in values.items()
    }
    style: str = told["style"] if "style" in told else step.options["style"]
    known = sorted(get_all_styles())
    if style not in known:
        message = f"Pygments has no style {style!r}{recipes.did_you_mean(style, known)}"
        if "style" in values:
            raise recipes.wrong(step, values["style"], message)
        raise step.fail(f"pygments_style.style: {message}", file="assetd.yml")
    css: str = HtmlFormatter(style=style).get_style_defs(told.get("class", step.options["class"]))
    step.write(step.path[: -len(_SUFFIX)] + ".css", css + "\n")


pygments_style = Processor(
    name="pygments_style",
    version="1",
    matches=suffix(_SUFFIX),
    suffixes=(_SUFFIX,),
    outputs=_outputs,
    process=_process,
    options=(
        Option("style", str, "default", "The style of files that name none."),
        Option(
            "class", str, ".highlight", "What stands before the selectors of files that say none."
        ),
    ),
    tool=_tool,
    cheap=True,
)
