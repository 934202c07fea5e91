"""Vite: `vite build --watch` of Bootstrap, as its users bundle it."""

import subprocess
from pathlib import Path

from tests.bench import npm
from tests.bench.contenders import Contender, run, start

CONFIG = """\
export default {
  logLevel: 'warn',
  css: { preprocessorOptions: { scss: { quietDeps: true, silenceDeprecations: ['import',
    'global-builtin', 'color-functions', 'abs-percent', 'if-function'] } } },
  build: {
    outDir: 'out', minify: false, emptyOutDir: false, cssMinify: false,
    rollupOptions: {
      input: 'assets/bootstrap/bootstrap.scss',
      output: { assetFileNames: 'bootstrap/bootstrap.css' }
    }
  }
}
"""


def lacks() -> str | None:
    """Vite, if npm does not bring it."""
    return None if npm.packages(npm.PEERS) else "Vite is missing: apt-get install npm"


def set_up(root: Path) -> None:
    """Write the configuration, and have the packages beside it."""
    (root / "vite.config.mjs").write_text(CONFIG)
    packages = npm.packages(npm.PEERS)
    assert packages is not None
    (root / "node_modules").symlink_to(packages)


def build(root: Path) -> None:
    """Bootstrap alone."""
    run(root, "node_modules/.bin/vite", "build")


def watch(root: Path) -> "subprocess.Popen[bytes]":
    """A build, and one for each change."""
    return start(root, "node_modules/.bin/vite", "build", "--watch")


PEER = Contender(
    "Vite",
    lacks,
    frozenset({"T2"}),
    set_up,
    watch,
    only=frozenset({"bootstrap"}),
    calm_seconds=0.6,
)
