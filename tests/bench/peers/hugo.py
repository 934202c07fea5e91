"""Hugo: its pipes compile Sass; a template publishes everything.

It needs the extended binary, which Debian's is.
"""

import shutil
import subprocess
from pathlib import Path

from tests.bench.contenders import Contender, run, start

TEMPLATE = """\
{{ range resources.Match "**" }}
{{ if findRE "\\\\.s[ac]ss$" .Name }}
{{ if not (strings.HasPrefix (path.Base .Name) "_") }}
{{ $t := replaceRE "\\\\.s[ac]ss$" ".css" .Name }}
{{ (. | toCSS (dict "targetPath" $t)).Publish }}
{{ end }}
{{ else }}{{ .Publish }}{{ end }}
{{ end }}
"""

CONFIG = """\
baseURL = "/"
publishDir = "out"
disableKinds = ["taxonomy", "term", "RSS", "sitemap", "404"]
"""


def lacks() -> str | None:
    """Hugo with LibSass."""
    if shutil.which("hugo") is None:
        return "hugo is missing: apt-get install hugo"
    said = subprocess.run(["hugo", "version"], capture_output=True, text=True, check=False).stdout
    return None if "extended" in said else "hugo has no LibSass: install the extended one"


def set_up(root: Path) -> None:
    """Write the configuration and the template."""
    (root / "config.toml").write_text(CONFIG)
    (root / "layouts").mkdir()
    (root / "layouts/index.html").write_text(TEMPLATE)


def build(root: Path) -> None:
    """All of it."""
    run(root, "hugo", "--quiet")


def watch(root: Path) -> "subprocess.Popen[bytes]":
    """A build, and one for each change."""
    return start(root, "hugo", "--watch")


PEER = Contender(
    "Hugo",
    lacks,
    frozenset({"T2", "T3"}),
    set_up,
    watch,
    build,
    calm_seconds=0.6,
    says="Watching for config changes",
)
