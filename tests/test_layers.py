"""Imports run one way, and the daemon knows no processor by name."""

import ast
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Final

import pytest

LAYERS: Final = (
    # Lowest first: a module imports from the lines above its own, wherever in it the import
    # stands.  A new module goes into the lowest line that has all it needs above it.
    ("__init__",),
    ("model", "words"),
    ("claims", "errors", "explain", "lanes", "place"),
    (
        "awaited",
        "stamp",
        "patterns",
        "processor",
        "wire",
        "ledger",
        "document",
        "client",
        "present",
        "errand",
        "heard",
        "retries",
        "installed",
        "logfile",
        "material",
        "strays",
    ),
    ("confinement", "forkserver", "globs", "rows"),
    (
        "config",
        "tree",
        "store",
        "publish",
        "record",
        "inbox",
        "service",
        "systemd",
        "listing",
        "log",
        "lock",
        "screen",
        "trace",
    ),
    ("registry", "initial", "plan", "step", "watch", "audit", "removal", "testimony"),
    ("reconcile", "runner", "survey", "catalog"),
    ("worker", "pool", "scan", "lookout", "history", "recovery", "standing", "doctor"),
    ("generation", "suspects", "slices"),
    ("engine", "inventory", "forkserver_main"),
    ("report", "metrics", "batch_command", "desktop"),
    ("control",),
    ("serve",),
    ("once", "command", "testing"),
    ("deployment",),
    (
        "commands_ask",
        "commands_build",
        "commands_keep",
        "commands_look",
        "commands_run",
        "commands_service",
        "commands_steer",
        "commands_tell",
    ),
    ("cli",),
    ("__main__",),
)

PEERS: Final[tuple[tuple[str, str], ...]] = (
    # Within a line nobody imports anybody, but for these: importer, imported.
)

FOR_PROCESSORS: Final = frozenset({"processor", "errors"})
"""All of `assetd` that the built-in processors see: what any plugin may see."""

TOO_HEAVY_FOR_STATUS: Final = (
    *("asyncio", "dataclasses", "sass", "sqlite3", "structlog", "subprocess", "watchdog", "yaml"),
)
"""Each costs more to import than `assetd status` takes altogether."""

ROOT: Final = Path(__file__).resolve().parents[1]
DAEMON: Final = ROOT / "daemon" / "assetd"
PROCESSORS: Final = ROOT / "processors" / "assetd_processors"

LEVELS: Final = {name: level for level, names in enumerate(LAYERS) for name in names}
MODULES: Final = tuple(sorted(p.stem for p in DAEMON.glob("*.py")))
PLUGINS: Final = tuple(sorted(p.stem for p in PROCESSORS.glob("*.py")))


def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_bytes(), str(file))


def dotted_imports(tree: ast.Module, package: str) -> Iterator[tuple[str, int]]:
    """Everything that is imported anywhere in *tree*, as `package.module.name`, with its line."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((alias.name, node.lineno) for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                origin = ".".join(part for part in (package if level else None, module) if part)
                yield from ((f"{origin}.{alias.name}", node.lineno) for alias in names)
            case _:
                pass


def imports(file: Path, package: str) -> Iterator[tuple[str, int]]:
    """The modules of `assetd` that *file* imports, by their short names, with the line."""
    for dotted, line in dotted_imports(parsed(file), package):
        top, _, rest = dotted.partition(".")
        if top == "assetd":
            first = rest.partition(".")[0]
            yield (first if first in MODULES else "__init__"), line


def processor_names() -> frozenset[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return frozenset(project["entry-points"]["assetd.processors"])


def test_every_module_has_one_layer() -> None:
    """A module without a layer escapes the rule, so there is none."""
    unplaced = sorted(set(MODULES) - set(LEVELS))
    assert not unplaced, f"put {', '.join(unplaced)} into a line of LAYERS in {__file__}"
    assert len(LEVELS) == sum(map(len, LAYERS)), "a module stands in two lines of LAYERS"
    assert not [p.name for p in DAEMON.iterdir() if (p / "__init__.py").exists()], (
        "packages inside assetd are invisible to this test: teach it first"
    )


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_downwards(module: str) -> None:
    """A module knows what is below it, never what is above or beside it."""
    if module not in LEVELS:
        pytest.skip("it has no layer, as another test says")
    wrong = [
        f"{module}.py:{line} imports {name}, which is not below it in LAYERS ({__file__})"
        for name, line in imports(DAEMON / f"{module}.py", "assetd")
        if LEVELS.get(name, 0) >= LEVELS[module] and (module, name) not in PEERS
    ]
    assert wrong == [], "\n".join(wrong)


def test_peers_are_listed_only_where_they_are_of_one_line() -> None:
    """The exceptions soften the rule inside a line; they never turn a layer upside down."""
    assert [pair for pair in PEERS if LEVELS[pair[0]] != LEVELS[pair[1]]] == []
    assert [pair for pair in PEERS if pair[::-1] in PEERS] == []


@pytest.mark.parametrize("module", MODULES)
def test_the_daemon_names_no_processor(module: str) -> None:
    """The built-in processors plug in as anyone else's do: nothing here knows which there are."""
    tree = parsed(DAEMON / f"{module}.py")
    imported = [
        f"{module}.py:{line} imports {dotted}"
        for dotted, line in dotted_imports(tree, "assetd")
        if dotted.partition(".")[0] == PROCESSORS.name
    ]
    named = [
        f"{module}.py:{node.lineno} names the processor {node.value!r}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and node.value in processor_names()
    ]
    assert imported + named == [], "\n".join(imported + named)


@pytest.mark.parametrize("plugin", PLUGINS)
def test_processors_see_only_the_plugin_contract(plugin: str) -> None:
    """What the built-in processors need beyond it, other people's would miss."""
    wrong = [
        f"{plugin}.py:{line} imports assetd.{name}"
        for name, line in imports(PROCESSORS / f"{plugin}.py", PROCESSORS.name)
        if name not in FOR_PROCESSORS
    ]
    assert wrong == [], "\n".join(wrong)


def test_the_command_line_starts_light() -> None:
    """An editor asks for the status after every save: heavy imports belong to the daemon alone."""
    script = (
        "import sys; before = set(sys.modules); import assetd.cli;"
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before}))"
    )
    path = os.pathsep.join(
        chain((str(DAEMON.parent), str(PROCESSORS.parent)), filter(None, [os.getenv("PYTHONPATH")]))
    )
    loaded = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert loaded.returncode == 0, loaded.stderr
    assert sorted(set(loaded.stdout.split()) & set(TOO_HEAVY_FOR_STATUS)) == []
