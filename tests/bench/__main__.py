"""Run the measurements and print the table.

    python -m tests.bench [--quick] [--json FILE]

Absolute times say more about the machine than about us: look at the ratios.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from tests.bench import trees

from assetd.testing import Daemon, Site, wait_for
from assetd_processors import tools as node_tools


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement."""

    what: str
    ours_ms: float
    floor: str
    floor_ms: float

    @property
    def ratio(self) -> float:
        """How many times the floor we take."""
        return self.ours_ms / self.floor_ms if self.floor_ms else float("nan")


def timed(work: Callable[[], object]) -> float:
    """Milliseconds that *work* takes."""
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


def median(work: Callable[[], object], runs: int, reset: Callable[[], object] = int) -> float:
    """The median of several runs, with *reset* before each."""
    times = []
    for _ in range(runs):
        reset()
        times.append(timed(work))
    return statistics.median(times)


@contextmanager
def project(make: Callable[[Path], None]) -> Iterator[Site]:
    """A project in memory, where the disk's mood does not count."""
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=base) as folder:
        root = Path(folder) / "site"
        root.mkdir()
        make(root)
        site = Site.__new__(Site)
        site.root = root
        yield site


def cold(name: str, site: Site, runs: int) -> list[Row]:
    """A build from nothing, and one with nothing to do, as whole processes."""
    copy = site.root.with_name("copy")

    def forget() -> None:
        for folder in (site.root / "public", site.root / ".assetd", copy):
            shutil.rmtree(folder, ignore_errors=True)

    def scan() -> None:
        for where, _, names in os.walk(site.root / "assets"):
            for each in names:
                os.stat(os.path.join(where, each))

    cp = median(
        lambda: subprocess.run(["cp", "-r", site.root / "assets", copy], check=True), runs, forget
    )
    python = median(lambda: subprocess.run([sys.executable, "-c", "pass"], check=True), runs)
    built = median(lambda: site.run("build", check=True), runs, forget)
    again = median(lambda: site.run("build", check=True), runs)
    return [
        Row(f"{name}: cold build", built, "cp -r", cp),
        Row(f"{name}: nothing to do", again, "walk with stat, and a Python", timed(scan) + python),
    ]


@dataclass(frozen=True, slots=True)
class Save:
    """A file to be saved again and again, and the output to wait for."""

    source: str
    output: str
    text: Callable[[int], str]

    def once(self, site: Site, number: int) -> float:
        """Milliseconds from a save to its output."""
        target = site.root / "public" / self.output
        before = target.read_bytes()

        def save() -> None:
            site.write(self.source, self.text(number))
            wait(target, before)

        return timed(save)


def saves(name: str, site: Site, save: Save, runs: int, floor: float) -> Row:
    """From the end of a save to its output, in a running daemon."""
    times = []
    with site.daemon() as daemon:
        for number in range(runs):
            _quiet(daemon)
            times.append(save.once(site, number))
    times.sort()
    p99 = times[int(len(times) * 0.99)]
    print(f"  {name}: p50 {statistics.median(times):.2f}, p99 {p99:.2f} ms", file=sys.stderr)
    return Row(f"{name}: a save, p50", statistics.median(times), "copy and rename", floor)


def wait(target: Path, before: bytes) -> None:
    """Spin until the file holds something else."""
    deadline = time.monotonic() + 30
    while target.read_bytes() == before:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{target} was not built")


def _quiet(daemon: Daemon) -> None:
    wait_for(lambda: daemon.status()["state"] == "idle", "the daemon to be idle")
    time.sleep(0.03)  # so that the next save is a save and no burst


def less(site: Site, runs: int, measured: int) -> list[Row]:
    """A cold build of Less files on 2 workers, against a `lessc` process for each.

    The first row is the one to go by: both have 2 processes at work, and ours has all of
    `assetd build` in it.

    Args:
        site: With the tree.
        runs: Of our build.
        measured: How many of the files `lessc` is run on; the rest is taken to last as long.
    """
    node_tools.install(sys.stderr)
    lessc = node_tools.packages() / ".bin" / "lessc"
    sources = sorted((site.root / "assets/less").glob("*.less"))
    theirs = site.root.with_name("theirs")
    theirs.mkdir()

    def forget() -> None:
        for folder in (site.root / "public", site.root / ".assetd"):
            shutil.rmtree(folder, ignore_errors=True)

    def compile_one(source: Path) -> None:
        subprocess.run([lessc, source, theirs / f"{source.stem}.css"], check=True)

    def one_by_one() -> None:
        for source in sources[:measured]:
            compile_one(source)

    def two_at_a_time() -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(compile_one, sources[:measured]))

    built = median(lambda: site.run("build", check=True), runs, forget)
    scale = len(sources) / len(sources[:measured])
    alone, paired = timed(one_by_one) * scale, timed(two_at_a_time) * scale
    # Nothing was compared unless both made the same.
    for made in theirs.iterdir():
        ours = site.root / "public/less" / made.name
        if made.read_bytes() != ours.read_bytes():
            raise AssertionError(f"{ours} is not what lessc makes")
    name = f"{len(sources)} Less, 2 workers"
    return [
        Row(
            f"{name}: cold build",
            built,
            f"a lessc for each, {how}: {ms / built:.1f} times ours",
            ms,
        )
        for how, ms in (("2 at a time", paired), ("one by one", alone))
    ]


def copy_floor(runs: int) -> float:
    """A 4 KB copy and a rename, bare."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        source = Path(folder, "a")
        source.write_bytes(os.urandom(4096))

        def once() -> None:
            shutil.copyfile(source, Path(folder, "b"))
            os.rename(Path(folder, "b"), Path(folder, "c"))

        return median(once, runs)


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(prog="bench")
    parser.add_argument("--quick", action="store_true", help="fewer and smaller: two minutes")
    parser.add_argument("--json", metavar="FILE", help="write the rows there")
    arguments = parser.parse_args()
    runs, many = (3, 100) if arguments.quick else (5, 500)
    rows: list[Row] = []
    floor = copy_floor(200)

    plain = Save("assets/d00000/f00.txt", "d00000/f00.txt", lambda n: f"{n} " * 1000)
    entry = Save(
        "assets/scss/e0000.scss",
        "scss/e0000.css",
        lambda n: f'@import "parts/p00";\n.e {{ @include m0; margin: {n}px; }}\n',
    )
    for size in (100, 10_000):
        name = f"{size:,} files"
        with project(partial(trees.plain, files=size)) as site:
            rows += cold(name, site, runs)
            rows.append(saves(name, site, plain, many, floor))
    with project(trees.mixed) as site:
        rows += cold("mixed", site, runs)
        rows.append(saves("mixed, a Sass entry", site, entry, many, floor))
    with project(trees.less) as site:
        rows += less(site, runs, 20 if arguments.quick else 200)
    small, large = (r for r in rows if r.what.endswith("files: a save, p50"))
    rows.append(Row("a save in 10,000 files", large.ours_ms, "in 100 files", small.ours_ms))

    print(f"| {'what':<36} | {'ours':>10} | {'floor':>10} | ratio | the floor is |")
    print(f"| {'-' * 36} | {'-' * 10} | {'-' * 10} | ----- | --- |")
    for row in rows:
        print(
            f"| {row.what:<36} | {row.ours_ms:7.1f} ms | {row.floor_ms:7.2f} ms "
            f"| {row.ratio:5.{1 if row.ratio >= 1 else 2}f} | {row.floor} |"
        )
    if arguments.json:
        Path(arguments.json).write_text(json.dumps([asdict(r) for r in rows], indent=1))


if __name__ == "__main__":
    main()
