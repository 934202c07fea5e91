"""`sass --watch`: the compiler's own watcher, as npm's `sass-embedded` brings it."""

import subprocess
from pathlib import Path

from tests.bench import npm
from tests.bench.contenders import Contender, run, start

OPTIONS = ("--no-source-map", "--quiet", "--quiet-deps")


def _binary() -> Path | None:
    packages = npm.packages(npm.PEERS)
    found = (
        [] if packages is None else sorted(packages.glob("sass-embedded-linux-*/dart-sass/sass"))
    )
    return found[0] if found else None


def lacks() -> str | None:
    """The compiler, if npm does not bring it."""
    return None if _binary() else "Dart Sass is missing: apt-get install npm"


def _folders(root: Path) -> list[str]:
    below = sorted(p.name for p in (root / "assets").iterdir() if any(p.rglob("*.s[ac]ss")))
    return [f"assets/{name}:out/{name}" for name in below]


def build(root: Path) -> None:
    """All of them: it has no other way but `--update`, which trusts times."""
    run(root, str(_binary()), *OPTIONS, "--update", *_folders(root))


def watch(root: Path) -> "subprocess.Popen[bytes]":
    """A build, and one for each change."""
    return start(root, str(_binary()), *OPTIONS, "--watch", *_folders(root))


PEER = Contender(
    "Dart Sass --watch",
    lacks,
    frozenset({"T2", "T3"}),
    lambda _root: None,
    watch,
    build,
    only=frozenset({"entry", "partial", "bootstrap"}),
    says="Sass is watching",
)
