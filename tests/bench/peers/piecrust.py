"""PieCrust, whose asset pipeline is the ancestor of this one: `chef serve` watches and bakes.

Its Sass processor calls Ruby's `scss`, which is gone: here that is sassc, by a script that
leaves out the options that sassc does not know.
"""

import subprocess
from pathlib import Path

from tests.bench.contenders import Contender, needs, start

CONFIG = """\
site:
  title: bench
sass:
  bin: {scss}
"""

SCSS = """\
#!/bin/sh
# The last two are the input and the output.  The map's sources must be absolute, as Ruby's are:
# else it believes in no map, and compiles everything each time.
while [ $# -gt 2 ]; do shift; done
sassc --sourcemap=auto "$1" "$2" && sed -i 's#"[./]*/assets/#"'"$PWD"'/assets/#g' "$2.map"
"""

CACHE = "_cache/cf1e8c14e54505f60aa10ceb8d5d8ab3/server"
"""Named by a digest of how it was called, which is always the same."""


def set_up(root: Path) -> None:
    """Write a site of nothing but assets."""
    script = root / "scss.sh"
    script.write_text(SCSS)
    script.chmod(0o755)
    (root / "config.yml").write_text(CONFIG.format(scss=script))
    (root / "pages").mkdir()
    (root / "templates").mkdir()


def watch(root: Path) -> "subprocess.Popen[bytes]":
    """A build, and one for each change; its outputs are where it serves them from."""
    return start(root, "chef", "serve", "--port", "18099")


PEER = Contender(
    "PieCrust",
    needs(
        ("chef", "pip install piecrust, in an environment of its own"),
        ("sassc", "apt-get install sassc"),
    ),
    frozenset({"T3"}),
    set_up,
    watch,
    out=CACHE,
    calm_seconds=0.6,
    says="Running on",
)
