"""Promise 1, proved: whatever people do, the daemon ends where a clean build would.

Hypothesis drives a live daemon: edits of every kind, links, overrides, configurations, plugins,
git, outputs touched by hand, killed workers, daemons that are killed, stopped and started.
Whenever it has settled, its outputs, its errors and its record are compared with those of an
engine that knows nothing of before.  What it has found stands below it, as tests with names.

`ASSETD_TEST_SEQUENCES` says how many sequences, `ASSETD_TEST_LENGTH` how long they are, and
`ASSETD_TEST_SEED` repeats a run.
"""

import contextlib
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Final

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from assetd import registry, report
from assetd.engine import Engine, Order
from assetd.errors import ConfigError
from assetd.model import Entry, EntryState, Output, Source
from assetd.record import Reader
from assetd.registry import Project
from assetd.testing import Daemon, InlinePool, Site, wait_for

SUITE_SEQUENCES: Final = 200
SUITE_SEED: Final = 20261122
SEQUENCES = int(os.environ.get("ASSETD_TEST_SEQUENCES", SUITE_SEQUENCES))
STEPS = int(os.environ.get("ASSETD_TEST_LENGTH", "9"))
PARTS = int(os.environ.get("ASSETD_TEST_PARTS", "2"))
"""Tests that share the sequences, so that two run side by side."""

# -- what is compared --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a build has led to."""

    files: dict[str, bytes]
    """What is in the output roots, by its path from the project; of a link, where it leads."""
    entries: dict[Source, Entry]
    outputs: dict[str, Output]
    """What the record knows to be in place."""
    errors: list[dict[str, Any]]


def standing(record: Path, files: dict[str, bytes], errors: list[dict[str, Any]]) -> Standing:
    with contextlib.closing(Reader(os.fspath(record))) as reader:
        entries = {entry.source: entry for entry in reader.entries()}
        outputs = {output.path: output for output in reader.outputs()}
    return Standing(files, entries, outputs, errors)


def files_below(base: Path, prefix: str) -> dict[str, bytes]:
    found = {}
    for where, folders, names in os.walk(base):
        for name in (*names, *folders):
            path = Path(where, name)
            key = os.path.join(prefix, os.path.relpath(path, base))
            if path.is_symlink():
                found[key] = b"-> " + os.fsencode(path.readlink())
            elif path.is_file():
                found[key] = path.read_bytes()
    return found


def clean_standing(project: Project) -> Standing:
    """What a build of the same sources that knows nothing of before leads to."""
    with tempfile.TemporaryDirectory(prefix="clean-") as folder:
        out, state = os.path.join(folder, "out"), os.path.join(folder, "state")
        elsewhere = replace(project.config, out_dir=out, state_dir=state, durability="off")
        engine = Engine(
            replace(project, config=elsewhere),
            lambda *_args, **_fields: None,
            watching=False,
            open_pool=InlinePool,
        )
        done: list[Order] = []
        try:
            engine.build(Order(), done.append)
            engine.run_until(lambda: bool(done))
            errors = report.errors(engine)
        finally:
            engine.stop()
        files = files_below(Path(out), os.path.basename(project.config.out_dir))
        return standing(Path(state, "record.sqlite"), files, errors)


# -- a project and its daemon ------------------------------------------------------------------

MOUNTS: Final = ("assets", "theme", "extra")
ROOTS: Final = ("public", "dist")
"""The output roots that the configurations name."""

PLUGIN: Final = '''"""Shouts."""
from assetd.processor import Names, Processor, suffix
def process(step):
    {body}
shout = Processor(
    name="shout",
    version="1",
    matches={matches},
    outputs=lambda path, options: Names((path[:-3] + "{ending}",)),
    process=process,
    cheap={cheap},
)
'''
GOOD_PLUGIN: Final = {
    "body": "step.write(step.path[:-3] + '.txt', step.input.read_text().upper())",
    "matches": 'suffix(".up")',
    "ending": ".txt",
    "cheap": False,
}
PLUGINS: Final = (
    GOOD_PLUGIN,
    {**GOOD_PLUGIN, "body": "step.write(step.path[:-3] + '.txt', 'loud')"},
    {
        **GOOD_PLUGIN,
        "body": "step.write(step.path[:-3] + '.css', step.input.read_text())",
        "ending": ".css",
    },
    {**GOOD_PLUGIN, "body": "raise step.fail('hoarse')"},
    {**GOOD_PLUGIN, "body": "1 / 0"},
    {**GOOD_PLUGIN, "matches": "lambda path, options: path.endswith('.up') and 1 / 0"},
    {**GOOD_PLUGIN, "body": "step.depends(step.mount / 'x.txt'); step.write(step.path[:-3] + "
        "'.txt', str((step.mount / 'x.txt').exists()))"},
    {**GOOD_PLUGIN, "body": "names = step.depends_glob(step.mount, '**/*.txt'); step.write("
        "step.path[:-3] + '.txt', ' '.join(p.name for p in names))"},
    None,  # there is no such file
    "this is no Python (",
)  # fmt: skip


@dataclass(frozen=True)
class Setup:
    """A configuration that a project may have."""

    mounts: tuple[str, ...] = ("assets", "theme")
    style: str = "nested"
    source_map: bool = False
    load_paths: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    plugin: bool = True
    out_dir: str = "public"
    theme: str = ""
    """The filter of the mount `theme`, if it has one of its own."""
    polling: bool = False
    broken: str = ""
    """A last line that makes it wrong."""

    def text(self) -> str:
        """The file."""
        own = {"theme": f" {{processors: {self.theme}}}"} if self.theme else {}
        lines = [
            *(f"{key}: {value}" for key, value in (("out_dir", self.out_dir), ("workers", 1))),
            "durability: off",
            "sandbox_read: [..]",  # links lead there, and what it is compared with has no sandbox
            "processors: [sass, concat, copy" + (", shout]" if self.plugin else "]"),
            *(["plugins: [tools/shout.py]"] if self.plugin else []),
            "mounts:",
            *(f"  {mount}:{own.get(mount, ' {}')}" for mount in self.mounts),
            f"ignore: [{', '.join(map(repr, self.ignore))}]",
            "sass:",
            f"  style: {self.style}",
            f"  source_map: {str(self.source_map).lower()}",
            f"  load_paths: [{', '.join(self.load_paths)}]",
            *(["watch: {backend: polling, interval: 50ms}"] if self.polling else []),
            *([self.broken] if self.broken else []),
        ]
        return "\n".join(lines) + "\n"


SETUPS: Final = st.builds(
    Setup,
    mounts=st.sampled_from(
        [
            ("assets", "theme"),
            ("theme", "assets"),
            ("assets",),
            ("assets", "theme", "extra"),
            ("extra", "assets"),
        ]
    ),
    style=st.sampled_from(["nested", "compressed"]),
    source_map=st.booleans(),
    load_paths=st.sampled_from([(), ("vendor",), ("vendor/deep", "vendor")]),
    ignore=st.sampled_from([(), ("*.tmp",), ("/a",), ("*.css", "x"), ("_q.scss", "b", "a/c")]),
    plugin=st.booleans(),
    out_dir=st.sampled_from(["public", "public", "public", "dist"]),
    theme=st.sampled_from(["", "", "", "copy"]),
    polling=st.sampled_from([False, False, False, False, True]),
    broken=st.sampled_from(["", "", "", "", "mounts: [", "sas: {}", "processors: nothing"]),
)


@dataclass
class Bench:
    """A site and its daemon, which one sequence hands on to the next while all is well."""

    site: Site
    daemon: Daemon | None = None
    healthy: bool = True
    serial: int = 0

    @property
    def root(self) -> Path:
        return self.site.root

    def end(self) -> None:
        if self.daemon is not None:
            self.daemon.kill()
            self.daemon = None
        shutil.rmtree(self.root.parent, ignore_errors=True)


BENCHES: Final[list[Bench]] = []
"""The one that is free, if there is one."""


def a_bench() -> Bench:
    if BENCHES:
        return BENCHES.pop()
    root = Path(os.path.realpath(tempfile.mkdtemp(prefix="convergence-")), "site")
    root.mkdir()
    return Bench(Site(root, Setup().text()))


def clear(bench: Bench) -> None:
    """Put a bench back to where it began, by way of what the daemon must follow."""
    for path in bench.root.iterdir():
        if path.name not in {".assetd", "assetd.yml", *MOUNTS, *ROOTS}:
            Site.remove(bench.site, path.name)
    for mount in MOUNTS:
        make_mount(bench.root / mount)
        for path in (bench.root / mount).iterdir():
            bench.site.remove(os.path.relpath(path, bench.root))
    for name in ROOTS:
        shutil.rmtree(bench.root / name, ignore_errors=True)
    for name in ("vendor/deep", "shared", "tools"):
        (bench.root / name).mkdir(parents=True)
    write_plugin(bench.site, GOOD_PLUGIN)
    bench.site.write("assetd.yml", Setup().text())


def make_mount(folder: Path) -> None:
    if folder.is_symlink() or not folder.is_dir():
        folder.unlink(missing_ok=True)
        folder.mkdir()


def write_plugin(site: Site, plugin: Any) -> None:
    if plugin is None:
        (site.root / "tools/shout.py").unlink(missing_ok=True)
    else:
        site.write("tools/shout.py", plugin if isinstance(plugin, str) else PLUGIN.format(**plugin))


def git(root: Path, *arguments: str, check: bool = False) -> None:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    who = {f"GIT_{a}_{b}": "nobody@example.org" for a in ("AUTHOR", "COMMITTER")
           for b in ("NAME", "EMAIL")}  # fmt: skip
    subprocess.run(
        ["git", "-c", "gc.auto=0", "-c", "init.defaultBranch=main", *arguments],
        cwd=root,
        env={**clean, **who, "GIT_CONFIG_NOSYSTEM": "1", "HOME": os.devnull},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=check,
        timeout=60,
    )


TREES: Final = {
    "main": {"assets/x.txt": "main", "assets/a/y.scss": "@import 'p'; a { b: main }",
             "assets/a/_p.scss": "p { q: main }", "theme/y.css": "main"},
    "other": {"assets/x.txt": "other", "assets/b/all.txt.concat": "files: ['../**/x.txt']",
              "theme/a/_p.scss": "p { q: other }", "theme/x.txt": "other", "assets/a/x": "other"},
    "topic": {"assets/x.txt": "main", "assets/z.scss": "@import 'a/p'; z { b: topic }",
              "assets/a/_p.scss": "p { q: main }", "theme/y.css": "main", "assets/a/c/m.up": "up"},
}  # fmt: skip


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `.git` with the branches of `TREES`, each with one commit above a common one."""
    root = tmp_path_factory.mktemp("repository")
    git(root, "init", "-q", check=True)
    (root / ".git/info/exclude").write_text("/*\n!/assets\n!/theme\n")
    git(root, "commit", "-q", "--allow-empty", "-m", "begin", check=True)
    git(root, "tag", "begin", check=True)
    for branch, tree in TREES.items():
        git(root, "checkout", "-q", "-B", branch, "begin", check=True)
        site = Site.__new__(Site)
        site.root = root
        for path, text in tree.items():
            site.write(path, text)
        git(root, "add", "assets", "theme", check=True)
        git(root, "commit", "-q", "-m", branch, check=True)
    git(root, "checkout", "-q", "main", check=True)
    return root / ".git"


REPOSITORY: list[Path] = []
"""Where `repository` is: a state machine gets no fixtures."""

# -- the machine -------------------------------------------------------------------------------

FOLDERS: Final = ("", "", "", "a", "a", "b", "a/c")
NAMES: Final = (
    *("x.txt", "y.css", "y.scss", "z.scss", "_p.scss", "_q.scss"),
    *("all.txt.concat", "y.css.concat", "x", "m.up", "w.tmp"),
)
IN_MOUNTS: Final = st.builds(
    os.path.join,
    st.sampled_from(("assets", "assets", "assets", "theme", "theme", "extra")),
    st.sampled_from(FOLDERS),
    st.sampled_from(NAMES),
)
OUTSIDE: Final = st.sampled_from(
    ["vendor/_p.scss", "vendor/deep/_q.scss", "shared/x.txt", "shared/_p.scss", "shared/deep/x"]
)
PLACES: Final = st.one_of(
    st.builds(os.path.join, st.sampled_from(MOUNTS), st.sampled_from(("a", "b", "a/c", "x"))),
    st.sampled_from([*MOUNTS, "vendor", "vendor/deep", "shared", "away", "assets/a/c/deep"]),
)
OUTPUTS: Final = st.builds(
    os.path.join,
    st.sampled_from(FOLDERS),
    st.sampled_from(["x.txt", "y.css", "z.css", "all.txt", "x", "m.txt", "w.tmp", "z.css.map"]),
)
NUMBERS: Final = st.integers(0, 7)


START: Final = {
    "assets/x.txt": 0, "assets/a/x.txt": 2, "assets/all.txt.concat": 0, "assets/y.scss": 2,
    "assets/_p.scss": 3, "assets/_q.scss": 0, "assets/a/z.scss": 3, "assets/a/_q.scss": 4,
    "assets/b/m.up": 1, "assets/b/all.js.concat": 3, "shared/x.txt": 5,
    "theme/x.txt": 1, "theme/y.css": 1, "theme/z.scss": 2, "theme/_p.scss": 0, "theme/b/x": 0,
}  # fmt: skip
"""Files that depend on each other and hide each other: what a sequence may begin with."""
FILES: Final = st.one_of(
    # Of those that are there at the beginning, so that things happen to one file again and again.
    *(st.sampled_from([each for each in START if each.startswith(mount)]) for mount in MOUNTS[:2]),
    *(IN_MOUNTS, IN_MOUNTS, OUTSIDE),
)


def text(path: str, number: int) -> str:
    """What is written to a file: something that fits its name."""
    if path.endswith(".concat"):
        files = (
            "['*.txt']", "[x.txt]", "[a/x.txt, '**/y.css']", "[../shared/x.txt]", "[x.txt, nope]",
            "['../vendor/**/*.scss']", "[x]", "['**/x*', '*.scss']",
        )[number]  # fmt: skip
        return f"files: {files}"
    if path.endswith(".scss"):
        name = os.path.basename(path)
        imports = ("", "", "p", "q", "a/p", "deep/q", "c/q", "../shared/p")[number]
        if name == "_q.scss" or (name == "_p.scss" and not imports.endswith("q")):
            imports = ""  # no circles
        line = f"@import '{imports}'; " if imports else ""
        return f"{line}{name[0]} {{ b: {'$no' if number == 1 else number} }}"
    return f"{os.path.basename(path)} {number}"


class Convergence(RuleBasedStateMachine):
    """One sequence of what people do, with a look whenever it has settled."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = a_bench()
        self.root = self.bench.root
        self.site = self.bench.site
        self.by_hand: dict[str, bytes] = {}
        """What somebody put into an output root, by its path from the project."""
        self.folders_by_hand: set[str] = set()
        self.reconfigured = False
        """Whether the daemon may or may not have taken another configuration by now."""
        self.open: dict[str, Any] = {}
        self.in_force: Project | None = None

    # -- the daemon's life ------------------------------------------------------------------

    @initialize(bare=st.sampled_from([False, False, False, True]))
    def begin(self, *, bare: bool) -> None:
        bench = self.bench
        bench.healthy = False  # until the end says otherwise
        clear(bench)
        if bench.daemon is None:
            self.up()
        self.settle()
        assert bench.daemon is not None
        left = standing(self.root / ".assetd/record.sqlite", self.files(), [])
        assert (left.files, left.entries, left.outputs) == ({}, {}, {})
        if not bare:
            for place, number in START.items():
                self.site.write(place, text(place, number))

    def up(self) -> None:
        """Start a daemon; a broken configuration is refused, and mended."""
        _, problems = self.loaded()
        if problems:
            refused = self.site.run("run")
            assert refused.returncode == 2, refused.stderr
            assert problems[0].splitlines()[0] in refused.stderr
            for mount in MOUNTS:
                make_mount(self.root / mount)
            write_plugin(self.site, GOOD_PLUGIN)
            self.site.write("assetd.yml", Setup().text())
        self.in_force = None
        self.reconfigured = True  # it has not read it yet
        self.bench.daemon = Daemon(self.site)

    def loaded(self) -> tuple[Project | None, list[str]]:
        """What the configuration, as it is now, says, or what is wrong with it."""
        try:
            return registry.load(os.fspath(self.root / "assetd.yml")), []
        except ConfigError as error:
            return None, [str(problem) for problem in error.problems]

    @property
    def running(self) -> Daemon:
        if self.bench.daemon is None:
            self.up()
        assert self.bench.daemon is not None
        return self.bench.daemon

    @rule()
    def restart(self) -> None:
        if self.bench.daemon is None:
            self.up()
        else:
            self.bench.daemon.kill()
            self.bench.daemon = None
            self.up()

    @rule()
    def kill(self) -> None:
        if self.bench.daemon is not None:
            self.bench.daemon.kill()
            self.bench.daemon = None

    @rule()
    def stop(self) -> None:
        if self.bench.daemon is not None:
            self.bench.daemon.wait_until_ready()
            assert self.bench.daemon.end() == 0
            self.bench.daemon = None

    @rule()
    def kill_a_worker(self) -> None:
        if self.bench.daemon is None:
            return
        # Two kills in the same job would be that job's fault.
        self.settle()
        daemon = self.bench.daemon
        # Those that are killed again and again before they are ready count as unable to start.
        wait_for(
            lambda: all(each["state"] == "idle" for each in daemon.status()["workers"]), "them"
        )
        for worker in daemon.status()["workers"]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker["pid"], 9)

    # -- files ------------------------------------------------------------------------------

    def about(self, *places: str) -> None:
        """Come to rest first, if what follows decides which configuration is in force."""
        roots = {place for place in places if place in MOUNTS}
        roots |= {m for m in MOUNTS if not (self.root / m).is_dir()}
        if roots & {place.partition("/")[0] for place in places}:
            self.reconfigure()

    def reconfigure(self) -> None:
        if self.reconfigured and self.bench.daemon is not None:
            self.settle()
        self.reconfigured = True

    def path(self, place: str) -> Path:
        """A path whose folder is there, if that can be."""
        self.about(place)
        path = self.root / place
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def part(self, place: str) -> None:
        """See that what happens in *place* has no other name that is watched in its stead."""
        path = self.root / place
        if path.is_file() and path.stat().st_nlink > 1 and path.parent != self.root / "assets":
            content = path.read_bytes()
            path.unlink()
            path.write_bytes(content)

    @rule(place=FILES, number=NUMBERS)
    def write(self, place: str, number: int) -> None:
        with contextlib.suppress(OSError):
            path = self.path(place)
            self.part(place)
            path.write_text(text(place, number))

    @rule(places=st.lists(FILES, min_size=4, max_size=8), number=NUMBERS)
    def write_many(self, places: list[str], number: int) -> None:
        for place in places:
            self.write(place, number)

    @rule(place=FILES)
    def truncate(self, place: str) -> None:
        with contextlib.suppress(OSError):
            self.part(place)
            os.truncate(self.root / place, 0)

    @rule(place=FILES, number=NUMBERS)
    def append(self, place: str, number: int) -> None:
        """Begin to append, or go on, or end."""
        file = self.open.get(place)
        with contextlib.suppress(OSError):
            if file is None:
                self.part(place)
                file = self.open[place] = self.path(place).open("ab", 0)
            file.write(f"/* {number} */".encode())
            if number % 2:
                self.open.pop(place).close()

    @rule(place=FILES, number=NUMBERS, temporary=st.sampled_from([".{}.swp", "{}~", "sed{}", "{}"]))
    def save_by_rename(self, place: str, number: int, temporary: str) -> None:
        path = self.path(place)
        with contextlib.suppress(OSError):
            new = path.with_name(temporary.format(path.name) + "1")
            new.write_text(text(place, number))
            new.rename(path)

    @rule(place=FILES, number=NUMBERS)
    def save_by_backup(self, place: str, number: int) -> None:
        path = self.path(place)
        with contextlib.suppress(OSError):
            path.rename(path.with_name(path.name + "~"))
            path.write_text(text(place, number))
            path.with_name(path.name + "~").unlink()

    @rule(place=FILES, number=NUMBERS)
    def recreate(self, place: str, number: int) -> None:
        with contextlib.suppress(OSError):
            self.path(place).unlink(missing_ok=True)
            self.path(place).write_text(text(place, number))

    @rule(one=FILES, other=FILES)
    def rename(self, one: str, other: str) -> None:
        with contextlib.suppress(OSError):
            (self.root / one).rename(self.path(other))

    @rule(place=FILES)
    def delete(self, place: str) -> None:
        with contextlib.suppress(OSError):
            (self.root / place).unlink()

    @rule(place=FILES, mtime_ns=st.sampled_from([0, 1, 10**18, 4 * 10**18, -(10**9)]))
    def touch(self, place: str, mtime_ns: int) -> None:
        with contextlib.suppress(OSError):
            os.utime(self.root / place, ns=(mtime_ns, mtime_ns))

    @rule(place=FILES, number=NUMBERS)
    def forge(self, place: str, number: int) -> None:
        """Another content of equal size, with the time that it had."""
        path = self.root / place
        with contextlib.suppress(OSError):
            self.part(place)
            before = path.stat()
            content = text(place, number).encode()[: before.st_size]
            with path.open("r+b") as file:
                file.write(content.ljust(before.st_size))
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    @rule(place=FILES, mode=st.sampled_from([0o644, 0o755, 0o400, 0]))
    def chmod(self, place: str, mode: int) -> None:
        with contextlib.suppress(OSError):
            (self.root / place).chmod(mode)

    @rule(
        place=FILES,
        to=st.one_of(
            FILES,
            PLACES,
            st.sampled_from(["shared/x.txt", "assets/x.txt", "nowhere", "../outside.txt"]),
        ),
        loop=st.booleans(),
    )
    def link(self, place: str, to: str, *, loop: bool) -> None:
        with contextlib.suppress(OSError):
            path = self.path(place)
            path.unlink(missing_ok=True)
            target = path if loop and place[-1] == "t" else self.root / to
            path.symlink_to(os.path.relpath(target, path.parent))

    @rule(place=FILES, to=FILES)
    def hard_link(self, place: str, to: str) -> None:
        with contextlib.suppress(OSError):
            path = self.path(place)
            path.unlink(missing_ok=True)
            path.hardlink_to(self.root / to)

    # -- folders ----------------------------------------------------------------------------

    @rule(one=PLACES, other=PLACES)
    def rename_folder(self, one: str, other: str) -> None:
        self.about(one, other)
        with contextlib.suppress(OSError):
            if (self.root / one).is_dir():
                self.path(other)
                (self.root / one).rename(self.root / other)

    @rule(one=PLACES, other=PLACES)
    def swap_folders(self, one: str, other: str) -> None:
        self.about(one, other)
        between = self.root / "between"
        with contextlib.suppress(OSError):
            (self.root / one).rename(between)
            with contextlib.suppress(OSError):
                (self.root / other).rename(self.root / one)
            between.rename(self.root / other)

    @rule(place=PLACES)
    def delete_folder(self, place: str) -> None:
        self.about(place)
        shutil.rmtree(self.root / place, ignore_errors=True)

    @rule(place=PLACES)
    def make_folder(self, place: str) -> None:
        self.about(place)
        with contextlib.suppress(OSError):
            (self.root / place).mkdir(parents=True)

    @rule(place=PLACES, to=PLACES, instead=st.booleans())
    def link_folder(self, place: str, to: str, *, instead: bool) -> None:
        if place in MOUNTS:
            return  # it is resolved when the configuration is read
        with contextlib.suppress(OSError):
            path = self.path(place)
            if instead:
                self.site.remove(place)
            path.symlink_to(os.path.relpath(self.root / to, path.parent))

    # -- configuration ----------------------------------------------------------------------

    @rule(setup=SETUPS, by_rename=st.booleans())
    def configure(self, setup: Setup, *, by_rename: bool) -> None:
        self.reconfigure()
        if by_rename:
            self.site.replace("assetd.yml", setup.text())
        else:
            self.site.write("assetd.yml", setup.text())

    @rule()
    def mend_configuration(self) -> None:
        self.reconfigure()
        self.site.write("assetd.yml", Setup().text())

    @rule(plugin=st.sampled_from(PLUGINS))
    def edit_plugin(self, plugin: Any) -> None:
        self.reconfigure()
        write_plugin(self.site, plugin)

    # -- git --------------------------------------------------------------------------------

    @rule(
        command=st.sampled_from(
            [
                *(f"checkout -qf {branch}" for branch in TREES),
                *("stash -qu", "stash pop -q", "rebase -q main", "rebase -q other"),
                *("rebase --abort", "reset -q --hard", "clean -fdq", "reset -q --hard main~1"),
            ]
        )
    )
    def run_git(self, command: str) -> None:
        self.reconfigure()
        if not (self.root / ".git").exists():
            shutil.copytree(REPOSITORY[0], self.root / ".git")
        git(self.root, *command.split())

    # -- the output root --------------------------------------------------------------------

    def out_dir(self) -> str:
        """The output root, once it is known which one that is."""
        if self.bench.daemon is not None:
            self.settle()  # else somebody edits what is replaced at the same moment
        project = self.in_force or self.loaded()[0]
        return "public" if project is None else os.path.basename(project.config.out_dir)

    def forget(self, place: str) -> None:
        """Somebody took away what is at *place*."""
        for each in list(self.by_hand):
            if each == place or each.startswith(place + "/"):
                del self.by_hand[each]
        while place := os.path.dirname(place):
            self.folders_by_hand.add(place)

    @rule(output=OUTPUTS, link=st.sampled_from([False, False, True]))
    def edit_output(self, output: str, *, link: bool) -> None:
        place = os.path.join(self.out_dir(), output)
        self.bench.serial += 1
        with contextlib.suppress(OSError):
            path = self.root / place
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_symlink() and not link:
                return
            self.forget(place)
            if link:
                path.unlink(missing_ok=True)
                path.symlink_to(f"by-hand-{self.bench.serial}")
            else:
                path.write_text(f"by hand {self.bench.serial}")
            content = b"-> " + os.fsencode(path.readlink()) if link else path.read_bytes()
            self.by_hand[place] = content

    @rule(output=OUTPUTS)
    def delete_output(self, output: str) -> None:
        place = os.path.join(self.out_dir(), output)
        with contextlib.suppress(OSError):
            (self.root / place).unlink()
            self.forget(place)

    @rule(folder=st.sampled_from(["", "", "a", "b", "a/c"]), away=st.booleans())
    def delete_output_folder(self, folder: str, *, away: bool) -> None:
        place = os.path.join(self.out_dir(), folder).rstrip("/")
        with contextlib.suppress(OSError):
            if away:
                self.bench.serial += 1
                (self.root / place).rename(self.root / f"removed{self.bench.serial}")
            else:
                shutil.rmtree(self.root / place)
            self.forget(place)

    @rule(output=OUTPUTS, copy=st.booleans())
    def touch_output(self, output: str, *, copy: bool) -> None:
        path = self.root / self.out_dir() / output
        with contextlib.suppress(OSError):
            if copy and not path.is_symlink():
                content = path.read_bytes()
                path.unlink()
                path.write_bytes(content)
            else:
                os.utime(path, ns=(0, 0), follow_symlinks=False)

    # -- the proof --------------------------------------------------------------------------

    def files(self) -> dict[str, bytes]:
        return {k: v for root in ROOTS for k, v in files_below(self.root / root, root).items()}

    @rule()
    def settle(self) -> None:
        """Wait until all is built, and compare with a clean build."""
        daemon = self.running
        if self.in_force is None:
            daemon.wait_until_ready()
        errors = daemon.sync()
        status = daemon.status()
        self.reconfigured = False
        project, problems = self.loaded()
        self.in_force = project or self.in_force
        assert self.in_force is not None
        if all((self.root / mount).is_dir() for mount in MOUNTS):
            # A mount's folder that goes changes no configuration that is in force already.
            assert bool(status["config_errors"]) == bool(problems)
        expected = clean_standing(self.in_force)
        found = standing(self.root / ".assetd/record.sqlite", self.files(), errors)
        compare(expected, found, self.by_hand, os.path.basename(self.in_force.config.out_dir))
        self.check_folders()
        assert [p for p in (self.root / ".assetd/staging").rglob("*") if not p.is_dir()] == []

    def check_folders(self) -> None:
        """No folder is left behind empty, but what somebody emptied or made by hand."""
        empty = {
            os.path.relpath(where, self.root)
            for root in ROOTS
            for where, folders, names in os.walk(self.root / root)
            if not folders and not names
        }
        assert empty - self.folders_by_hand - set(ROOTS) == set()

    def teardown(self) -> None:
        for file in self.open.values():
            file.close()
        bench = self.bench
        try:
            self.settle()
            # What was edited by hand and taken away comes back.
            for place in list(self.by_hand):
                (self.root / place).unlink()
                self.forget(place)
            self.settle()
            assert bench.daemon is not None
            assert "Traceback" not in bench.daemon.log
            bench.daemon._log.write_bytes(b"")
            bench.healthy = True
        finally:
            if bench.healthy:
                BENCHES.append(bench)
            else:
                if bench.daemon is not None:
                    print(bench.daemon.log[-3000:])
                bench.end()


def differences(found: Mapping[Any, object], expected: Mapping[Any, object]) -> dict[Any, object]:
    """What is found where something else was expected, and what that is."""
    keys = found.keys() | expected.keys()
    pairs: dict[Any, Any] = {key: (found.get(key), expected.get(key)) for key in keys}
    wrong: dict[Any, object] = {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
    assert not wrong, wrong
    return wrong


def compare(expected: Standing, found: Standing, by_hand: dict[str, bytes], out_dir: str) -> None:
    """Whether it is where a clean build is, but for what may differ.

    What somebody put into the output root stays, and whoever needs its place says so.  A source
    that fails keeps its last good outputs, which a clean build does not have.
    """

    def in_the_way(output: str) -> bool:
        place = f"{out_dir}/{output}"
        return any(
            f"{place}/".startswith(f"{each}/") or f"{each}/".startswith(f"{place}/")
            for each in by_hand
        )

    assert {k: v for k, v in found.files.items() if k in by_hand} == by_hand
    blocked = {
        source
        for source, entry in found.entries.items()
        if entry.state is EntryState.BLOCKED and any(map(in_the_way, entry.claims))
    }

    def states(entries: dict[Source, Entry]) -> dict[Source, tuple[str, tuple[str, ...]]]:
        return {
            source: (entry.state.value, entry.claims if entry.state is EntryState.OK else ())
            for source, entry in entries.items()
            if source not in blocked
        }

    def errors(standing: Standing) -> list[dict[str, Any]]:
        return [
            error
            for error in standing.errors
            if Source(error["mount"], error["source"]) not in blocked
        ]

    assert differences(states(found.entries), states(expected.entries)) == {}
    assert errors(found) == errors(expected), (errors(found), errors(expected))
    for source in blocked:
        assert expected.entries[source].state is EntryState.OK
    lost = {
        f"{out_dir}/{claim}"
        for source in blocked
        for claim in found.entries[source].claims
        if in_the_way(claim)
    }
    kept = {
        f"{out_dir}/{path}"
        for path, output in found.outputs.items()
        if found.entries[output.source].state not in {EntryState.OK, EntryState.OVERRIDDEN}
    }
    ours = {k: v for k, v in found.files.items() if k not in by_hand}
    wanted = {
        k: v
        for k, v in expected.files.items()
        if k not in lost and not in_the_way(k[len(out_dir) + 1 :])
    }
    assert differences({k: v for k, v in ours.items() if k in wanted}, wanted) == {}
    extra = ours.keys() - wanted.keys() - kept - lost
    assert not extra, extra


@pytest.mark.timeout(0)
@pytest.mark.parametrize("part", range(PARTS))
def test_whatever_happens_the_daemon_ends_where_a_clean_build_does(
    part: int, repository: Path
) -> None:
    """Outputs, errors and record, byte for byte, after each of some hundred sequences."""
    REPOSITORY[:] = [repository]
    # The suite runs the same sequences each time; the soak finds new ones.
    default = SUITE_SEED if SEQUENCES == SUITE_SEQUENCES else random.randrange(1 << 32)
    number = int(os.environ.get("ASSETD_TEST_SEED", default))
    print(f"ASSETD_TEST_SEED={number}")
    machine = hypothesis.seed(number + part)(type("Machine", (Convergence,), {}))
    try:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=max(1, SEQUENCES // PARTS),
                stateful_step_count=STEPS,
                deadline=None,
                database=None,
                print_blob=True,
                phases=(Phase.generate, Phase.shrink),
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        while BENCHES:
            BENCHES.pop().end()


# -- what it found -----------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A project with the mount `assets`."""
    (tmp_path / "site").mkdir()
    return Site(tmp_path / "site", "mounts: [assets]\nworkers: 1\nprocessors: [sass, copy]\n")


def test_a_conflict_does_not_tell_of_a_failure_from_before(site: Site) -> None:
    """A source that is not run has the error that keeps it from running, and no other."""
    site.write("assets/y.scss", "a { b: $no }")
    with site.daemon() as daemon:
        assert [e["processor"] for e in daemon.sync()] == ["sass"]
        site.write("assets/y.css", "")
        errors = daemon.sync()
        assert [e["source"] for e in errors] == ["y.css", "y.scss"]
        assert {e["processor"] for e in errors} == {None}
        site.remove("assets/y.css")
        assert [e["processor"] for e in daemon.sync()] == ["sass"]
        site.write("assets/y.scss", "a { b: c }")
        assert daemon.sync() == []


@pytest.mark.parametrize("backend", ["inotify", "polling"])
@pytest.mark.parametrize("way", ["file", "link", "file for a folder", "link for a folder"])
def test_what_was_in_the_way_of_an_output_goes(site: Site, way: str, backend: str) -> None:
    """Nobody watched the folders of the output root that had no output of ours yet."""
    site.write(
        "assetd.yml",
        f"mounts: [assets]\nworkers: 1\nwatch: {{backend: {backend}, interval: 50ms}}\n",
    )
    place = site.root / "public/a/b" / ("" if way.endswith("folder") else "x.txt")
    place.parent.mkdir(parents=True)
    if way.startswith("link"):
        (site.root / "elsewhere").mkdir()
        place.symlink_to(site.root / "elsewhere")
    else:
        place.write_text("by hand")
    site.write("assets/a/b/x.txt", "ours")
    with site.daemon() as daemon:
        assert [e["state"] for e in daemon.sync()] == ["blocked"]
        place.unlink()
        assert daemon.sync() == []
        assert site.outputs() == {"a/b/x.txt": b"ours"}


@pytest.mark.parametrize("how", ["deleted", "moved away"])
def test_the_folder_of_a_plugin_is_another_one(site: Site, how: str) -> None:
    """With the same plugin in it, or none at first: a later edit is heard all the same."""
    site.write("assetd.yml", Setup(mounts=("assets",)).text())
    write_plugin(site, GOOD_PLUGIN)
    site.write("assets/a.up", "a")
    with site.daemon() as daemon:
        for turn in range(2):
            if how == "deleted":
                site.remove("tools")
            else:
                (site.root / "tools").rename(site.root / f"away{turn}")
            if turn:
                daemon.sync()
                (site.root / "tools").mkdir()
                daemon.sync()
                assert daemon.status()["config_errors"] != []
            write_plugin(site, GOOD_PLUGIN)
            daemon.sync()
            assert daemon.status()["config_errors"] == []
            assert site.output("a.txt") == "A"
            write_plugin(site, PLUGINS[1])
            daemon.sync()
            assert site.output("a.txt") == "loud"
            write_plugin(site, None)
            daemon.sync()
            assert daemon.status()["config_errors"] != []
            write_plugin(site, GOOD_PLUGIN)
            daemon.sync()


def test_an_override_that_makes_something_else_takes_the_old_output_along(site: Site) -> None:
    """Who claimed an output before a change does not stand for it afterwards."""
    for mount in ("theme", "assets"):
        site.write(f"{mount}/z.scss", f"a {{ b: {mount} }}")
    site.write("assetd.yml", Setup(mounts=("assets", "theme"), plugin=False).text())
    with site.daemon() as daemon:
        daemon.sync()
        assert set(site.outputs()) == {"z.css"}
        setup = Setup(mounts=("theme", "assets"), theme="copy", plugin=False)
        site.write("assetd.yml", setup.text())
        assert daemon.sync() == []
        assert set(site.outputs()) == {"z.scss"}


@pytest.mark.parametrize("target", ["target.txt", "away/target.txt", "../beside/it/target.txt"])
def test_what_a_link_leads_to_appears_goes_and_comes_again(site: Site, target: str) -> None:
    """No event names the link; where it leads is watched for it."""
    (site.root / "assets/link.txt").symlink_to(target)
    path = os.path.normpath(f"assets/{target}")
    with site.daemon() as daemon:
        daemon.sync()
        for text in ("text", "more"):
            site.write(path, text)
            daemon.sync()
            assert site.output("link.txt") == text
            site.remove(path)
            daemon.sync()
            assert site.output("link.txt") is None
        (site.root / "made").mkdir()
        site.write("made/target.txt", "moved")
        if "/" in target:
            folder = os.path.dirname(site.root / path)
            if os.path.isdir(folder):
                os.rmdir(folder)
            (site.root / "made").rename(folder)
        else:
            (site.root / "made/target.txt").rename(site.root / path)
        daemon.sync()
        assert site.output("link.txt") == "moved"


def test_a_link_to_nowhere_that_is_made_while_it_runs_is_awaited_too(site: Site) -> None:
    """Also one that comes to lead elsewhere."""
    with site.daemon() as daemon:
        (site.root / "assets/link.txt").symlink_to("target.txt")
        daemon.sync()
        site.write("assets/target.txt", "text")
        daemon.sync()
        assert site.output("link.txt") == "text"


@pytest.mark.parametrize("link", ["stays", "is made again"])
@pytest.mark.parametrize("folder", ["away", "away/deep", "../beside"])
def test_the_folder_that_a_link_leads_to_goes_and_comes_again(
    site: Site, folder: str, link: str
) -> None:
    """Its watch went with it; what comes into the next one of that name is heard all the same."""
    place = site.root / "assets/link.txt"
    target = os.path.normpath(site.root / folder)
    site.write("assetd.yml", "mounts: [assets]\nworkers: 1\nsandbox: off\n")
    os.makedirs(target)
    place.symlink_to(os.path.join(target, "target.txt"))
    with site.daemon() as daemon:
        for text in ("text", "more"):
            daemon.sync()
            shutil.rmtree(site.root / "away" if folder.startswith("away") else target)
            if link == "is made again":
                place.unlink()
            daemon.sync()
            os.makedirs(target)
            if link == "is made again":
                place.symlink_to(os.path.join(target, "target.txt"))
            daemon.sync()
            Path(target, "target.txt").write_text(text)
            daemon.sync()
            assert site.output("link.txt") == text


@pytest.mark.parametrize("how", ["moved away", "deleted", "moved away with its parent"])
def test_a_folder_that_goes_while_nobody_needs_it_is_watched_when_somebody_does(
    site: Site, how: str
) -> None:
    """It was watched once, and the one that has its name now is another one."""
    with_import, without = "@import '../lib/vendor/p'; a { b: $c }", "a { b: c }"
    site.write("lib/vendor/_p.scss", "$c: one;")
    site.write("assets/a.scss", with_import)
    with site.daemon() as daemon:
        assert daemon.sync() == []
        site.write("assets/a.scss", without)
        assert daemon.sync() == []
        if how == "deleted":
            site.remove("lib/vendor")
        else:
            gone = "lib" if how.endswith("parent") else "lib/vendor"
            (site.root / gone).rename(site.root / "away")
        assert daemon.sync() == []
        site.write("lib/vendor/_p.scss", "$c: two;")
        site.write("assets/a.scss", with_import)
        assert daemon.sync() == []
        assert "two" in (site.output("a.css") or "")
        site.write("lib/vendor/_p.scss", "$c: three;")
        assert daemon.sync() == []
        assert "three" in (site.output("a.css") or "")


@pytest.mark.parametrize("other", ["assets/y.txt", "assets/deep/ignored.tmp", "lib/_q.scss"])
@pytest.mark.parametrize("what", ["source", "dependency"])
def test_a_file_that_is_written_to_by_another_name_of_it_is_built(
    site: Site, what: str, other: str
) -> None:
    """The kernel names only the one in use, and that one may be nobody's."""
    site.write("assetd.yml", "mounts: [assets]\nworkers: 1\nignore: ['*.tmp']\n")
    site.write("lib/_p.scss", "$c: one;")
    site.write("assets/a.scss", "@import '../lib/p'; a { b: $c }")
    site.write("assets/x.txt", "$c: one;")
    (site.root / other).parent.mkdir(exist_ok=True)
    path = site.root / ("assets/x.txt" if what == "source" else "lib/_p.scss")
    (site.root / other).hardlink_to(path)
    with site.daemon() as daemon:
        for text in ("two", "three"):
            (site.root / other).write_text(f"$c: {text};")
            assert daemon.sync() == []
            assert text in (site.output("x.txt" if what == "source" else "a.css") or "")


@pytest.mark.parametrize("pattern", ["lib/*.txt", "l*/*.txt", "deep/lib/*.txt"])
def test_a_link_to_a_folder_that_a_pattern_goes_through_comes_and_goes(
    site: Site, pattern: str
) -> None:
    """And what comes into what it leads to is found, although nothing was found there before."""
    site.write("assetd.yml", "mounts: [assets]\nworkers: 1\nplugins: [all.py]\n")
    site.write(
        "all.py",
        f"""
from assetd.processor import Names, Processor, suffix
def process(step):
    found = step.depends_glob(step.mount, "{pattern}")
    step.write(step.path[:-4], " ".join(path.name for path in found))
every = Processor(name="every", version="1", matches=suffix(".all"), process=process,
                  outputs=lambda path, options: Names((path[:-4],)))
""",
    )
    site.write("assets/names.all")
    for name in ("one", "two"):
        (site.root / name).mkdir()
    (site.root / "assets/deep").mkdir()
    link = site.root / "assets" / ("deep/lib" if pattern.startswith("deep") else "lib")
    with site.daemon() as daemon:
        assert daemon.sync() == []
        assert site.output("names") == ""
        site.write("one/a.txt")
        link.symlink_to(site.root / "one")
        daemon.sync()
        assert site.output("names") == "a.txt"
        link.unlink()
        daemon.sync()
        assert site.output("names") == ""
        link.symlink_to(site.root / "two")
        daemon.sync()
        assert site.output("names") == ""
        if pattern != "l*/*.txt":  # what might be found behind any link is not watched
            site.write("two/b.txt")
            daemon.sync()
            assert site.output("names") == "b.txt"


LINKED: Final = {
    "lib": "../lib", "vendor/current": "../vendor/current", "assets/lib": "lib",
    "chain/of": "../chain/of/links",
}  # fmt: skip
"""Links to a folder, and how a style sheet in `assets` says what is in that."""
WAYS: Final = ("replaced", "removed first", "removed for a while")
"""In which people make a link lead elsewhere."""


def lead_to_two(site: Site, link: Path, way: str, meanwhile: Callable[[], object]) -> None:
    """Have *link* lead to the folder `two`; *meanwhile* is called while it is away."""
    if way == "replaced":
        (site.root / "new").symlink_to(site.root / "two")
        (site.root / "new").rename(link)
        return
    link.unlink()
    if way == "removed for a while":
        meanwhile()
    link.symlink_to(site.root / "two")


@pytest.mark.parametrize("way", [*WAYS, "not there"])
@pytest.mark.parametrize("link", LINKED)
def test_a_link_to_a_folder_of_dependencies_comes_to_lead_elsewhere(
    site: Site, link: str, way: str
) -> None:
    """No path that somebody depends on is touched by that; and what it leads to is watched."""
    place = site.root / link
    for version in ("one", "two"):
        site.write(f"{version}/_p.scss", f"$c: {version};")
        (site.root / version / "links").symlink_to(".")
    place.parent.mkdir(exist_ok=True)
    site.write("assets/a.scss", f"@import '{LINKED[link]}/p'; a {{ b: $c }}")

    def made(text: str, errors: int = 0) -> None:
        assert len(daemon.sync()) == errors
        assert text in (site.output("a.css") or "")
        assert site.outputs().keys() <= {"a.css"}

    if way != "not there":
        place.symlink_to(site.root / "one")
    with site.daemon() as daemon:
        if way == "not there":
            made("", errors=1)
            place.symlink_to(site.root / "one")
        made("one")
        site.write("one/_p.scss", "$c: uno;")
        made("uno")
        lead_to_two(site, place, way, lambda: made("uno", errors=1))
        made("two")
        site.write("one/_p.scss", "$c: tres;")
        site.write("two/_p.scss", "$c: dos;")
        site.write("two/new.css", "")
        made("dos")


def test_a_link_on_the_way_of_another_one_comes_to_lead_elsewhere(site: Site) -> None:
    """`lib` leads to `current`, which is what changes."""
    for version in ("one", "two"):
        site.write(f"{version}/_p.scss", f"$c: {version};")
    site.write("assets/a.scss", "@import '../lib/p'; a { b: $c }")
    (site.root / "lib").symlink_to("versions/current")
    (site.root / "versions").mkdir()
    with site.daemon() as daemon:
        for version in ("one", "two", "one"):
            (site.root / "versions/current").unlink(missing_ok=True)
            (site.root / "versions/current").symlink_to(f"../{version}")
            assert daemon.sync() == []
            assert version in (site.output("a.css") or "")


@pytest.mark.parametrize("backend", ["inotify", "polling"])
@pytest.mark.parametrize(
    ("link", "way"),
    # Where there is no output root any more, one is made.
    [("public", "replaced"), *product(("theme", "themes/current", "tools"), WAYS)],
)
def test_a_link_that_the_configuration_names_comes_to_lead_elsewhere(
    site: Site, link: str, way: str, backend: str
) -> None:
    """To a mount, the output root or the folder of a plugin: it is another one from then on."""
    place = site.root / link
    place.parent.mkdir(exist_ok=True)
    for folder, plugin in (("one", PLUGINS[1]), ("two", GOOD_PLUGIN)):
        site.write(f"{folder}/shout.py", PLUGIN.format(**plugin))
        site.write(f"{folder}/a.up", folder)
    place.symlink_to(site.root / "one")
    mount = link if link.startswith("theme") else "assets"
    tools = "tools" if link == "tools" else "two"
    site.write("assets/a.up", "text")
    out_dir = "public/out" if link == "public" else "out"
    site.write(
        "assetd.yml",
        f"mounts: [{mount}]\nout_dir: {out_dir}\nworkers: 1\nplugins: [{tools}/shout.py]\n"
        f"processors: [shout]\nwatch: {{backend: {backend}, interval: 50ms}}\n",
    )
    text = {"tools": ("loud", "TEXT"), "public": ("TEXT", "TEXT")}.get(link, ("ONE", "TWO"))
    with site.daemon() as daemon:
        assert daemon.sync() == []
        assert site.outputs(out_dir) == {"a.txt": text[0].encode()}
        lead_to_two(site, place, way, daemon.sync)
        assert daemon.sync() == []
        assert site.outputs(out_dir) == {"a.txt": text[1].encode()}
        assert site.outputs("one/out") == {}


@pytest.mark.parametrize("known", [True, False], ids=["known", "new"])
def test_a_source_that_wins_and_fails_leaves_nothing_of_the_loser(site: Site, known: bool) -> None:
    """It has made nothing yet that could be kept; so it is in a clean build."""
    site.write("theme/y.css.concat", "files: [not-there.css]")
    site.write("assets/y.scss", "a { b: c }")
    mounts = ("assets", "theme") if known else ("assets",)
    for each in (mounts, ("theme", "assets")):
        config = f"mounts: [{', '.join(each)}]\nworkers: 1\nprocessors: [sass, concat, copy]\n"
        site.write("assetd.yml", config)
        if each is mounts:
            assert site.build()["errors"] == []
            assert set(site.outputs()) == {"y.css"}
    [error] = site.build()["errors"]
    assert error["source"] == "y.css.concat"
    assert site.outputs() == {}
    site.write("theme/not-there.css", "x")
    assert site.build()["errors"] == []
    assert site.outputs() == site.clean_build()


@pytest.mark.parametrize("first", ["file", "folder"])
@pytest.mark.parametrize("higher", ["file", "folder"])
def test_a_file_and_a_folder_of_one_name_are_decided_by_precedence(
    site: Site, first: str, higher: str
) -> None:
    """Whoever came first; and who was overridden comes when the other goes."""
    mounts = {"file": "assets", "folder": "theme"}
    sources = {"file": "assets/x.scss", "folder": "theme/x.css/y.txt"}
    outputs = {"file": "x.css", "folder": "x.css/y.txt"}
    text = {"file": "a { b: c }", "folder": "y"}
    lower, second = ({"file", "folder"} - {each} for each in (higher, first))
    order = [mounts[each] for each in (higher, *lower)]
    config = f"mounts: [{', '.join(order)}]\nworkers: 1\nprocessors: [sass, copy]\n"
    site.write("assetd.yml", config)
    make_mount(site.root / "theme")
    with site.daemon() as daemon:
        for each in (first, *second):
            site.write(sources[each], text[each])
            assert daemon.sync() == []
        assert set(site.outputs()) == {outputs[higher]}
        assert site.outputs() == site.clean_build()
        site.remove(sources[higher])
        assert daemon.sync() == []
        assert [*map(outputs.get, lower)] == list(site.outputs())
        assert site.outputs() == site.clean_build()
        site.write(sources[higher], text[higher])
        assert daemon.sync() == []
        assert set(site.outputs()) == {outputs[higher]}


def test_a_file_and_a_folder_of_one_name_in_one_mount_are_neither_built(site: Site) -> None:
    """As with two that would make one output."""
    site.write("assetd.yml", "mounts: [assets]\nworkers: 1\nprocessors: [sass, copy]\n")
    site.write("assets/x.css/y.txt", "y")
    site.write("assets/x.scss", "a { b: c }")
    errors = site.build()["errors"]
    assert [error["source"] for error in errors] == ["x.css/y.txt", "x.scss"]
    assert site.outputs() == {}
    site.remove("assets/x.css/y.txt")
    assert site.build()["errors"] == []
    assert set(site.outputs()) == {"x.css"}
