"""ninja with sassc, woken by inotifywait.

The manifest names each entry's partials, as a generator of such manifests would: sassc writes
no dependency files.
"""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.bench.contenders import Contender, needs, run, start

RULES = """\
rule sass
  command = sassc $in_entry $out
  description = $out
rule copy
  command = cp $in $out
  description = $out
"""

# Drains what came meanwhile, so that one save is one run.
LOOP = """\
inotifywait -m -r -q -e close_write -e moved_to assets | while read -r _; do
  while read -r -t 0; do read -r _; done
  ninja -j2 --quiet
done
"""

_IMPORT = re.compile(r"@import\s+([^;\n]+)")
_NAME = re.compile(r"""["']([^"']+)["']|(^[\w./-]+)""")


def manifest(root: Path) -> None:
    """Write `build.ninja` for all below `assets`."""
    lines = [RULES]
    for path in sorted((root / "assets").rglob("*")):
        if not path.is_file():
            continue
        source = path.relative_to(root)
        target = Path("out", *source.parts[1:])
        if path.suffix not in {".scss", ".sass"}:
            lines.append(f"build {target}: copy {source}\n")
        elif not path.name.startswith("_"):
            used = sorted({str(p.relative_to(root)) for p in _reached(path)} - {str(source)})
            lines.append(f"build {target.with_suffix('.css')}: sass {source} | {' '.join(used)}\n")
            lines.append(f"  in_entry = {source}\n")
    (root / "build.ninja").write_text("".join(lines))


def _reached(entry: Path) -> set[Path]:
    found: set[Path] = set()
    waiting = [entry]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += _imports(path)
    return found


def _imports(path: Path) -> Iterator[Path]:
    for listed in _IMPORT.findall(path.read_text()):
        for quoted, bare in _NAME.findall(listed):
            name = Path(path.parent, quoted or bare)
            for suffix in (".scss", ".sass"):
                for each in (name.with_name(f"_{name.name}{suffix}"), Path(f"{name}{suffix}")):
                    if each.is_file():
                        yield each.resolve()


def build(root: Path) -> None:
    """What is out of date, two at a time."""
    run(root, "ninja", "-j2", "--quiet")


def watch(root: Path) -> "subprocess.Popen[bytes]":
    """A build, and one for each change."""
    build(root)
    return start(root, "bash", "-c", LOOP)


NEEDED = (
    ("ninja", "apt-get install ninja-build"),
    ("sassc", "apt-get install sassc"),
)

PEER = Contender(
    "inotifywait with ninja",
    needs(*NEEDED, ("inotifywait", "apt-get install inotify-tools")),
    frozenset({"T1", "T2", "T3"}),
    manifest,
    watch,
    build,
)
