"""gulp 5 with gulp-dart-sass: tasks as its users write them."""

import subprocess
from pathlib import Path

from tests.bench import npm
from tests.bench.contenders import Contender, run, start

GULPFILE = """\
const { src, dest, watch, series, parallel, lastRun } = require('gulp')
const sass = require('gulp-dart-sass')
const styles = ['assets/**/*.scss', 'assets/**/*.sass']
const rest = ['assets/**/*', '!assets/**/*.scss', '!assets/**/*.sass']
function css () {
  return src(styles, { base: 'assets' })
    .pipe(sass.sync({ quietDeps: true, silenceDeprecations: ['import', 'global-builtin',
      'color-functions', 'slash-div', 'legacy-js-api', 'abs-percent',
      'if-function'] })
      .on('error', sass.logError))
    .pipe(dest('out'))
}
function copy () {
  return src(rest, { base: 'assets', encoding: false, since: lastRun(copy) }).pipe(dest('out'))
}
exports.default = parallel(css, copy)
exports.watch = series(exports.default, function watching () {
  watch(styles, css)
  watch(rest, copy)
})
"""


def lacks() -> str | None:
    """gulp, if npm does not bring it."""
    return None if npm.packages(npm.PEERS) else "gulp is missing: apt-get install npm"


def set_up(root: Path) -> None:
    """Write the tasks, and have the packages beside them."""
    (root / "gulpfile.js").write_text(GULPFILE)
    packages = npm.packages(npm.PEERS)
    assert packages is not None
    (root / "node_modules").symlink_to(packages)


def build(root: Path) -> None:
    """All of it."""
    run(root, "node_modules/.bin/gulp", "--silent")


def watch(root: Path) -> "subprocess.Popen[bytes]":
    """A build, and one for each change."""
    return start(root, "node_modules/.bin/gulp", "watch")


PEER = Contender(
    "gulp 5",
    lacks,
    frozenset({"T2", "T3"}),
    set_up,
    watch,
    build,
    only=frozenset({"plain", "entry", "script", "bootstrap", "partial"}),
    calm_seconds=0.5,
    says="Starting 'watching'",
)
