"""The processor `sass`: SCSS and the indented syntax to CSS, by one of two engines.

Here it is decided what is taken, what is made and who makes it; `sass_libsass` and `sass_dart`
make it.
"""

from assetd.processor import (
    Names,
    Option,
    Options,
    Processor,
    Setting,
    Step,
    Tool,
    suffix,
)
from assetd_processors import pip
from assetd_processors.sass_paths import load_paths

_matches = suffix(".scss", ".sass")


def _outputs(path: str, options: Options) -> Names:
    css = path[:-5] + ".css"
    return Names((css,), (css + ".map",) if options["source_map"] else ())


def _include_only(path: str, options: Options) -> bool:
    return path.rpartition("/")[2].startswith("_") and _matches(path, options)


def _tool(setting: Setting) -> Tool:
    if setting.options["engine"] == "libsass":
        return libsass()
    from assetd_processors import sass_dart

    return sass_dart.tool()


def libsass() -> Tool:
    """The engine `libsass` as it is on this machine, without loading it."""
    return pip.tool("libsass", "pip install 'libsass>=0.23,<0.24'")


# The engines are slow to import, and a build with nothing to do needs none.


def _warm(setting: Setting) -> object:
    if setting.options["engine"] == "libsass":
        from assetd_processors import sass_libsass

        return sass_libsass.Engine()
    from assetd_processors import sass_dart

    return sass_dart.warm()


def _sass(step: Step) -> None:
    if step.options["engine"] == "libsass":
        from assetd_processors import sass_libsass

        sass_libsass.make(step, load_paths(step))
    else:
        from assetd_processors import sass_dart

        sass_dart.make(step, load_paths(step))


sass = Processor(
    name="sass",
    version="2",
    matches=_matches,
    suffixes=(".scss", ".sass"),
    outputs=_outputs,
    process=_sass,
    options=(
        Option(
            "engine",
            str,
            "libsass",
            "Who compiles: LibSass, which knows only `@import`, or Dart Sass.",
            choices=("libsass", "dart"),
        ),
        Option(
            "style",
            str,
            "nested",
            "How the CSS is laid out; Dart Sass knows expanded, which it takes nested and "
            "compact for, and compressed.",
            choices=("nested", "expanded", "compact", "compressed"),
        ),
        Option("load_paths", list[str], (), "Where imports are looked for, from the project."),
        Option("source_map", bool, False, "Make x.css.map too, with the sources in it."),
        Option(
            "precision",
            int,
            5,
            "Digits behind the point; Dart Sass always takes 10.",
            minimum=0,
            maximum=20,
        ),
        Option(
            "source_comments",
            bool,
            False,
            "Say before each rule where it comes from; never in compressed CSS, nor by Dart Sass.",
        ),
        Option(
            "silence",
            list[str],
            (),
            "Deprecations that Dart Sass is not to warn of: import, global-builtin and so on.",
        ),
    ),
    include_only=_include_only,
    tool=_tool,
    warm=_warm,
)
