"""Every option of every processor has an effect.

What each does exactly is in the processor's own tests; here is the proof that none was
forgotten.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from assetd.errors import BuildError
from assetd.processor import Processor
from assetd_processors.browserify import browserify
from assetd_processors.cleancss import cleancss
from assetd_processors.compass import compass
from assetd_processors.concat import concat
from assetd_processors.copy import copy
from assetd_processors.esbuild import esbuild
from assetd_processors.less import less
from assetd_processors.lightningcss import lightningcss
from assetd_processors.postcss import postcss
from assetd_processors.pygments_style import pygments_style
from assetd_processors.requirejs import requirejs
from assetd_processors.sass import sass
from assetd_processors.sass_compiler import Compiler
from assetd_processors.sitemap import sitemap
from assetd_processors.svgo import svgo
from assetd_processors.uglifyjs import uglifyjs

if TYPE_CHECKING:
    from tests.processors.conftest import Bench

pytestmark = pytest.mark.usefixtures("tools")

ROOT = Path(__file__).parents[2]
COMPASS = "#!/bin/sh\n[ $1 = -v ] || for a; do case $a in --css-dir=*) d=${a#*=};; esac; done\n"
COMPASS += 'echo "$@" >$d/a.css; cat config.rb other.rb >>$d/a.css\n'
FILES = {
    "assets/app.ts": "import x from './x';\nimport './x.css';\nimport t from './t.dat';\n"
    "import p from 'p';\nexport const v = DEBUG ?? x?.y ?? t ?? p;\n",
    "assets/plain.ts": "export const v = DEBUG ?? self?.y;\n",
    "assets/view.jsx": "export const v = <a />;\n",
    "assets/x.js": "export default { y: 1 };\n",
    "assets/x.css": "i { user-select: none }\nb { color: #ff0000; & u { top: 0 } }\n",
    "assets/t.dat": "text\n",
    "assets/lib.ts": "import p from 'p';\nexport default p;\n",
    "node_modules/p/package.json": '{"main": "m.js", "module": "e.js"}',
    "node_modules/p/m.js": "module.exports = 1;\n",
    "node_modules/p/e.js": "export default 2;\n",
    "assets/a.js": "exports.number = function (argument) { return argument + 1 + 1; };\n",
    "assets/a.js.concat": "files: [a.js]\n",
    "assets/a.less": ".a { color: red; top: 1px + 1px }\n",
    "assets/far.less": '@import "far-away";\n',
    "far/far-away.less": ".far { top: 0 }\n",
    "assets/a.scss": "a { top: (1px/3); }\n",
    "assets/far.scss": '@import "far-away";\n',
    "far/_far-away.scss": ".far { top: (1px/3) }\n",
    "assets/old.scss": "a { b: red(#123456) }\n",
    "assets/a.pygstyle": "",
    "assets/a.sitemap": "locations: [{url: /b}, {url: /c}]\n",
    "assets/whole.sitemap": "locations: [{url: 'http://x/b'}, {url: 'http://x/c'}]\n",
    "assets/a.svg": '<svg xmlns="http://www.w3.org/2000/svg"><path d="M1.2345 2.3456L3 4"/></svg>',
    "assets/build.js": "({ baseUrl: '.', name: 'm', out: 'made.js', optimize: 'none' })\n",
    "assets/m.js": "define('m', {});\n",
    "assets/config.rb": "one\n",
    "assets/other.rb": "two\n",
    "compass": COMPASS,
}
BUNDLE = {"entries": ["**/*"]}
MAPS = [(p, n) for p, n in ((less, "a.less"), (uglifyjs, "a.js"), (cleancss, "x.css"))]
MAPS += [(postcss, "x.css"), (sass, "a.scss"), (concat, "a.js.concat")]
SERVED = {"base_url": "http://x/"}
COMMAND = {"enable": True, "engine": "command", "bin": "./compass"}
ON = {"enable": True}

EFFECTS: list[tuple[Processor, str, dict[str, Any], dict[str, Any]]] = [
    # Processor, path, what stands beside the option, the option.
    *((p, path, {}, {"source_map": True}) for p, path in MAPS),
    (requirejs, "build.js", {}, {"build_path": "build.js"}),
    (requirejs, "build.js", {"build_path": "build.js"}, {"out_path": "there.js"}),
    (browserify, "a.js", {}, {"entries": ["a.js"]}),
    (browserify, "a.js", BUNDLE, {"options": {"standalone": "App"}}),
    (browserify, "a.js", BUNDLE, {"out_ext": ".b.js"}),
    (esbuild, "plain.ts", {}, {"entries": ["plain.ts"]}),
    (esbuild, "lib.ts", BUNDLE, {"bundle": False}),
    (esbuild, "plain.ts", BUNDLE, {"minify": True}),
    (esbuild, "plain.ts", BUNDLE, {"target": ["es2019"]}),
    (esbuild, "plain.ts", BUNDLE, {"format": "cjs"}),
    (esbuild, "lib.ts", BUNDLE, {"platform": "node"}),
    (esbuild, "view.jsx", BUNDLE | {"bundle": False}, {"jsx": "preserve"}),
    (esbuild, "app.ts", BUNDLE | {"css": True}, {"loader": {".dat": "text"}}),
    (esbuild, "lib.ts", BUNDLE, {"external": ["p"]}),
    (esbuild, "plain.ts", BUNDLE, {"define": {"DEBUG": "7"}}),
    (esbuild, "app.ts", BUNDLE | {"loader": {".dat": "text"}}, {"css": True}),
    (esbuild, "plain.ts", BUNDLE, {"source_map": True}),
    (less, "a.less", {}, {"options": {"compress": True}}),
    (less, "far.less", {}, {"load_paths": ["far"]}),
    (uglifyjs, "a.js", {}, {"options": {"mangle": False}}),
    (cleancss, "x.css", {}, {"level": 0}),
    (cleancss, "x.css", {}, {"options": {"format": "beautify"}}),
    (cleancss, "x.css", {}, {"out_ext": ".min.css"}),
    (postcss, "x.css", {}, {"browsers": ["safari 9"]}),
    (postcss, "x.css", {"browsers": ["safari 9"]}, {"plugins": []}),
    (svgo, "a.svg", {}, {"config": {"floatPrecision": 1}}),
    (lightningcss, "x.css", {}, {"minify": False}),
    (lightningcss, "x.css", {}, {"targets": ["safari 9"]}),
    (lightningcss, "x.css", {}, {"nesting": False}),
    (pygments_style, "a.pygstyle", {}, {"style": "vim"}),
    (pygments_style, "a.pygstyle", {}, {"class": ".code"}),
    (sitemap, "a.sitemap", {}, SERVED),
    (sitemap, "whole.sitemap", SERVED, {"max_urls": 1}),
    (sitemap, "whole.sitemap", SERVED, {"max_bytes": 180}),
    (sass, "a.scss", {}, {"engine": "dart"}),
    (sass, "a.scss", {}, {"style": "compressed"}),
    (sass, "far.scss", {}, {"load_paths": ["far"]}),
    (sass, "a.scss", {}, {"precision": 2}),
    (sass, "a.scss", {}, {"source_comments": True}),
    (sass, "old.scss", {"engine": "dart"}, {"silence": ["global-builtin"]}),
    (compass, "a.scss", {}, ON),
    (compass, "config.rb", ON | {"bin": "./compass"}, {"engine": "command"}),
    (compass, "a.scss", ON, {"style": "compressed"}),
    (compass, "far.scss", ON, {"load_paths": ["far"]}),
    (compass, "a.scss", ON, {"precision": 2}),
    (compass, "a.scss", ON, {"source_comments": True}),
    (compass, "a.scss", ON, {"source_map": True}),
    (compass, "config.rb", COMMAND | {"bin": "none"}, {"bin": "./compass"}),
    (compass, "other.rb", COMMAND, {"config_path": "other.rb"}),
    (compass, "config.rb", COMMAND, {"frameworks": ["susy"]}),
    (compass, "config.rb", COMMAND, {"options": "--css-dir=%out_dir% --time"}),
]


def shown(case: Any) -> str | None:
    """A case by its processor and its option."""
    return case.name if isinstance(case, Processor) else None


def result(bench: "Bench", processor: Processor, path: str, options: dict[str, Any]) -> object:
    """All that people see: what is taken, what is made of it and what is said about it."""
    every = {option.name: option.default for option in processor.options} | options
    if not processor.matches(path, every):
        return "not taken"
    try:
        desk = bench.run(processor, path, **options)
    except BuildError as error:
        return str(error)
    finally:
        # What is warm depends on the options.
        if isinstance(compiler := bench.warm.pop(processor.name, None), Compiler):
            compiler.stop()
    made = {name: Path(file).read_bytes() for name, file in desk.staged.items()}
    return made, [str(warning) for warning in desk.warnings]


@pytest.mark.parametrize(("processor", "path", "beside", "option"), EFFECTS, ids=shown)
def test_an_option_has_an_effect(
    bench: "Bench", processor: Processor, path: str, beside: dict[str, Any], option: dict[str, Any]
) -> None:
    """With it something else comes out than without, and it is no error."""
    bench.write(FILES)
    os.chmod(bench.project / "compass", 0o755)
    with_it = result(bench, processor, path, beside | option)
    assert isinstance(with_it, tuple), with_it
    assert with_it[0], "something is made"
    assert with_it != result(bench, processor, path, beside)


def test_no_option_is_forgotten() -> None:
    """Of no processor that assetd brings along."""
    text = (ROOT / "pyproject.toml").read_text()
    entries = text.partition('"assetd.processors"]\n')[2].partition("\n\n")[0]
    names = {line.partition("=")[0].strip() for line in entries.splitlines() if "=" in line}
    ours = {processor.name: processor for processor, *_ in EFFECTS} | {"copy": copy}
    assert ours.keys() == names
    proven = {(processor.name, name) for processor, _, _, option in EFFECTS for name in option}
    assert proven == {(p.name, option.name) for p in ours.values() for option in p.options}
