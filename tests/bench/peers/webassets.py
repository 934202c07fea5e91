"""webassets: a bundle for each output, watched by its own command.

Its command looks at the times of all files, twice a second by default; here it is left as it is.
"""

import subprocess
from pathlib import Path

from tests.bench.contenders import Contender, needs, run, start


def set_up(root: Path) -> None:
    """Write a bundle for each entry, script and style."""
    lines = ["directory: .", "url: /", "debug: False", "bundles:"]
    partials = {s: list((root / "assets").rglob(f"_*{s}")) for s in (".scss", ".sass")}
    for path in sorted((root / "assets").rglob("*")):
        suffix, source = path.suffix, path.relative_to(root)
        if not path.is_file() or path.name.startswith("_"):
            continue
        if suffix not in {".scss", ".sass", ".js", ".css"}:
            continue  # its sources must be UTF-8
        target = Path("out", *source.parts[1:])
        name = str(source).replace("/", "-").replace(".", "-")
        lines += [f"  {name}:", f"    contents: [{source}]"]
        if suffix in {".scss", ".sass"}:
            lines += ["    filters: libsass", f"    output: {target.with_suffix('.css')}"]
            globs = sorted({f"{p.parent.relative_to(root)}/_*{suffix}" for p in partials[suffix]})
            lines += ["    depends:", *(f"      - {glob}" for glob in globs)]
        else:
            lines += [f"    output: {target}"]
    (root / "webassets.yml").write_text("\n".join(lines) + "\n")


def build(root: Path) -> None:
    """What is out of date."""
    run(root, "webassets", "-c", "webassets.yml", "build")


def watch(root: Path) -> "subprocess.Popen[bytes]":
    """A build, and one for each change."""
    build(root)
    return start(root, "webassets", "-c", "webassets.yml", "watch")


PEER = Contender(
    "webassets",
    needs(("webassets", "pip install webassets libsass PyYAML")),
    frozenset({"T2", "T3"}),
    set_up,
    watch,
    build,
    only=frozenset({"entry", "partial", "script", "bootstrap"}),
    calm_seconds=0.6,
    says="Watching",
)
