"""The processor `compass`: Sass with the Compass framework, by one of two engines; off by default.

`libsass` compiles each file with the style sheets of the npm package `compass-mixins`.  What
Compass does in Ruby (sprites, measuring and inlining images) does not exist there: a file that
needs it is refused.  `command` runs the user's own Compass: see `compass_command`.
"""

import json
import os
import re
from collections.abc import Callable, Mapping
from typing import Final

from assetd.processor import (
    NORMAL,
    BuildError,
    Names,
    Option,
    Options,
    Processor,
    Setting,
    Step,
    Tool,
    suffix,
)
from assetd_processors import compass_command, sass, tools
from assetd_processors.sass_paths import load_paths

_PACKAGE: Final = "compass-mixins"
_is_sass = suffix(".scss", ".sass")

_RUBY: Final = re.compile(
    r"(?<![\w-])(?:sprite[\w-]*|image-(?:url|width|height)|inline-(?:image|font-files|sprite)|"
    r"stylesheet-url|generated-image-url)(?=\()"
)
_SPRITE_IMPORT: Final = re.compile(
    r"""^@import\s+["'][^"']*\*\.(?:png|gif|jpe?g|svg)""", re.MULTILINE
)


def _runs_command(options: Options) -> bool:
    return bool(options["engine"] == "command")


def _is_root(path: str, options: Options) -> bool:
    return bool(path == os.path.normpath(options["config_path"]))


def _matches(path: str, options: Options) -> bool:
    if not options["enable"]:
        return False
    return _is_root(path, options) if _runs_command(options) else _is_sass(path, options)


def _bypass(_path: str, options: Options) -> bool:
    return _runs_command(options)


def _include_only(path: str, options: Options) -> bool:
    if not (options["enable"] and _is_sass(path, options)):
        return False
    return _runs_command(options) or path.rpartition("/")[2].startswith("_")


def _outputs(path: str, options: Options) -> Names:
    return sass.sass.outputs(path, options)


def _tool(setting: Setting) -> Tool:
    if setting.options["enable"] and _runs_command(setting.options):
        return compass_command.tool(setting)
    compiler = sass.libsass()
    mixins = _mixins_version()
    if mixins is None or compiler.version is None:
        return Tool(_PACKAGE, None, tools.cure() if mixins is None else compiler.cure)
    return Tool(_PACKAGE, f"{mixins} with {compiler.name} {compiler.version}")


def _mixins_version() -> str | None:
    try:
        told = json.loads((tools.packages() / _PACKAGE / "package.json").read_bytes())
    except (FileNotFoundError, PermissionError):
        return None
    return str(told["version"])


def _warm(setting: Setting) -> object:
    options = setting.options
    if not options["enable"] or _runs_command(options):
        return None
    from assetd_processors import sass_libsass

    return sass_libsass.Engine()


def _compass(step: Step) -> None:
    if _runs_command(step.options):
        compass_command.make(step)
        return
    from assetd_processors import sass_libsass

    mixins = tools.packages() / _PACKAGE / "lib"
    if not mixins.is_dir():
        raise step.fail(f"{_PACKAGE} is not installed: {tools.cure()}")

    def check(css: str, texts: Callable[[], Mapping[str, str]]) -> BuildError | None:
        found = _RUBY.search(css)
        return None if found is None else _ruby_only(step, found[0], texts())

    try:
        sass_libsass.make(step, [*load_paths(step), os.fspath(mixins)], check)
    except BuildError as error:
        text = "" if error.file is None else _text(os.path.join(step.project, error.file))
        if _SPRITE_IMPORT.search(text) and "unreadable" in error.message:
            told = _message("sprites")
            raise step.fail(told, file=error.file, line=error.line, column=error.column) from error
        raise


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _ruby_only(step: Step, function: str, texts: Mapping[str, str]) -> BuildError:
    """The error for a function that LibSass took for plain CSS, where it is called."""
    call = re.compile(rf"(?<![\w-]){re.escape(function)}(?=\()")
    for path, text in texts.items():
        if (found := call.search(text)) is not None:
            start = text.rfind("\n", 0, found.start()) + 1
            line = text.count("\n", 0, start) + 1
            file = step.origin if path == next(iter(texts)) else path
            column = found.start() - start + 1
            return step.fail(_message(f"{function}()"), file=file, line=line, column=column)
    return step.fail(_message(f"{function}()"))


def _message(what: str) -> str:
    return f"{what} needs Compass's Ruby: set `compass: {{engine: command}}`, or do without it"


_shared = {"style", "load_paths", "source_map", "precision", "source_comments"}

compass = Processor(
    name="compass",
    version="1",
    matches=_matches,
    outputs=_outputs,
    process=_compass,
    priority=NORMAL - 10,
    bypass=_bypass,
    options=(
        Option("enable", bool, False, "Whether it takes SCSS and Sass files before `sass` does."),
        Option(
            "engine",
            str,
            "libsass",
            "Who compiles: LibSass with Compass's style sheets, or your own `compass`.",
            choices=("libsass", "command"),
        ),
        *(option for option in sass.sass.options if option.name in _shared),
        *compass_command.OPTIONS,
    ),
    include_only=_include_only,
    tool=_tool,
    warm=_warm,
)
