"""Whole commands and whole daemons: builds, starts, checkouts, memory, idleness."""

import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench import floors, saves, trees
from tests.bench.contenders import (
    ASSETD,
    CONFIG,
    Contender,
    assetd,
    configured,
    end,
    place,
    run,
    running,
)
from tests.bench.eye import Eye
from tests.bench.figures import Findings, percentile
from tests.bench.saves import Save

from assetd import client, trace
from assetd_processors import tools as node_tools

COMPILED = {".scss", ".sass", ".less"}
"""Suffixes of five letters with the dot, of which CSS is made."""


@contextmanager
def daemon(root: Path, *arguments: str) -> Iterator[int]:
    """A running daemon that is ready; gives its pid."""
    process = running(root, *arguments)
    try:
        yield process.pid
    finally:
        end(process)


def ask(root: Path, do: str, **fields: object) -> Any:
    """One request to the daemon, and its answer."""
    real = os.path.realpath(root)
    with contextlib.closing(client.connect(real, os.path.join(real, ".assetd"))) as connection:
        return connection.ask(do, deadline=time.monotonic() + 1200.0, **fields)


# -- builds -------------------------------------------------------------------------------


def expected(assets: Path, *, styles_only: bool = False) -> set[str]:
    """The outputs of a tree without processors but Sass, named from the folder of outputs."""
    found = set()
    for path in assets.rglob("*"):
        name = str(path.relative_to(assets))
        if path.is_dir() or (styles_only and path.suffix not in COMPILED):
            continue
        if path.suffix not in COMPILED:
            found.add(name)
        elif not path.name.startswith("_"):
            found.add(f"{name[:-5]}.css")
    return found


def cold(
    tree: str,
    original: Path,
    who: Sequence[Contender],
    bare: Mapping[str, Callable[[Path], float]],
    runs: int,
    findings: Findings,
) -> tuple[dict[str, float], dict[str, float]]:
    """Builds from nothing and with nothing to do, by everybody in turns; medians, by name.

    Args:
        tree: Its name.
        original: A folder with it in `assets`; it is copied for each build.
        who: Those that can and that are there take part.
        bare: The floors: each gets `assets` and gives milliseconds.
        runs: How often.
        findings: Is told who gave up.
    """
    colds: dict[str, list[float]] = {}
    agains: dict[str, list[float]] = {}
    out_of: set[str] = set()
    for _ in range(runs):
        for name, measure in bare.items():
            colds.setdefault(name, []).append(measure(original / "assets"))
        for contender in who:
            build = contender.build
            if build is None or tree not in contender.can or contender.name in out_of:
                continue
            if contender.lacks() is not None:
                continue
            print(f"  cold {tree}: {contender.name}", file=sys.stderr, flush=True)
            root = place(contender, original.with_name("cold"))
            shutil.rmtree(root, ignore_errors=True)
            shutil.copytree(original, root, symlinks=True)
            try:
                contender.set_up(root)
                first = floors.timed(partial(build, root))
                _check(contender, root)
                again = floors.timed(partial(build, root))
            except Exception as error:
                if contender.name.startswith("assetd"):
                    raise
                out_of.add(contender.name)
                findings.notes.append(f"{contender.name} does not build {tree}: {error}")
                continue
            colds.setdefault(contender.name, []).append(first)
            agains.setdefault(contender.name, []).append(again)
    return (
        {name: statistics.median(times) for name, times in colds.items()},
        {name: statistics.median(times) for name, times in agains.items()},
    )


def _check(contender: Contender, root: Path) -> None:
    """See that all outputs are there, and that what is copied is the same."""
    assets, out = root / "assets", root / contender.out
    styles_only = bool(contender.only) and "plain" not in contender.only
    wanted = expected(assets, styles_only=styles_only)
    missing = [name for name in wanted if not (out / name).is_file()]
    if missing:
        raise AssertionError(f"{len(missing)} outputs are missing, {missing[0]} for one")
    if styles_only:
        return
    for path in assets.rglob("*.txt"):
        if path.read_bytes() != (out / path.relative_to(assets)).read_bytes():
            raise AssertionError(f"{path.relative_to(assets)} is not what it was copied from")


def cold_builds(
    original: Path,
    tree: str,
    peers: Sequence[Contender],
    runs: int,
    findings: Findings,
) -> None:
    """The rows of one tree's cold build, and of building it with nothing to do."""
    bare: dict[str, Callable[[Path], float]] = {}
    target = original.with_name("copied")
    with contextlib.ExitStack() as stack:
        if tree == "T3":
            compile_all = stack.enter_context(floors.two_compilers())

            def warm_then_copy(assets: Path) -> float:
                entries = sorted((assets / "scss").glob("*.scss"))
                compile_all(entries[:32])
                rest = sum(floors.cp(assets / n, target) for n in ("js", "css", "files"))
                return compile_all(entries) + rest

            bare["floor"] = warm_then_copy
        else:
            bare["floor"] = lambda assets: floors.cp(assets, target)
        bare["scan"] = floors.scan
        bare["python"] = lambda _assets: floors.python()
        first, again = cold(tree, original, [assetd(), *peers], bare, runs, findings)
    shutil.rmtree(target, ignore_errors=True)
    ours, figure = first["assetd"], f"cold build of {tree}"
    ninja = first.get("inotifywait with ninja")
    match tree:
        case "T1":
            findings.add(
                figure,
                "assetd build, process start included",
                ours,
                floor=first["floor"],
                against="cp -r",
                limit=3 * first["floor"],
                target="3 times cp -r",
            )
        case "T2":
            findings.add(
                figure,
                "assetd build, process start included",
                ours,
                floor=ninja,
                against="ninja -j2 with sassc" if ninja else "ninja is not measured",
                limit=None if ninja is None else 1.1 * ninja,
                target="1.1 times ninja with sassc",
            )
        case _:
            findings.add(
                figure,
                "assetd build, process start included",
                ours,
                floor=first["floor"],
                against="compiles in two warm processes, and cp -r of the rest",
                limit=1.25 * first["floor"],
                target="1.25 times the floor",
            )
    for name, ms in first.items():
        if name not in {"assetd", *bare}:
            findings.add(figure, name, ms, floor=ours, against="assetd")
    limit = 4 * first["scan"] + first["python"]
    figure = f"nothing to do in {tree}"
    findings.add(
        figure,
        "assetd build, no daemon",
        again["assetd"],
        floor=first["scan"] + first["python"],
        against="scandir with stat, and Python's start with the imports",
        limit=limit if tree == "T1" else None,
        target="4 times the scan + Python" if tree == "T1" else "",
    )
    for name, ms in again.items():
        if name != "assetd":
            findings.add(figure, name, ms, floor=again["assetd"], against="assetd")


def less_builds(original: Path, runs: int, measured: int, findings: Findings) -> None:
    """A cold build of Less files on 2 workers, against a `lessc` process for each.

    Args:
        original: A folder with the tree.
        runs: Of our build.
        measured: How many of the files `lessc` is run on; the rest is taken to last as long.
        findings: Gets the rows.
    """
    lessc = node_tools.packages() / ".bin" / "lessc"
    if not lessc.exists():
        findings.notes.append("Less is left out: run `assetd tools install`")
        return
    first, _ = cold("less", original, [assetd()], {}, runs, findings)
    ours = first["assetd"]
    sources = sorted((original / "assets/less").glob("*.less"))
    theirs = original.with_name("lessc")
    theirs.mkdir()

    def compile_one(source: Path) -> None:
        subprocess.run([lessc, source, theirs / f"{source.stem}.css"], check=True)

    def one_by_one() -> None:
        for source in sources[:measured]:
            compile_one(source)

    def two_at_a_time() -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(compile_one, sources[:measured]))

    scale = len(sources) / len(sources[:measured])
    for how, work in (("2 at a time", two_at_a_time), ("one by one", one_by_one)):
        findings.add(
            f"cold build of {len(sources)} Less",
            f"assetd build, against a lessc for each, {how}",
            ours,
            floor=floors.timed(work) * scale,
            against=f"a lessc for each, {how}",
        )
    # Nothing was compared unless both made the same.
    for made in theirs.iterdir():
        if made.read_bytes() != (original.with_name("cold") / "out/less" / made.name).read_bytes():
            raise AssertionError(f"{made.name} is not what lessc makes")


# -- sizes --------------------------------------------------------------------------------


@dataclass(slots=True)
class Edits:
    """Saves of one file among many."""

    ms: list[float] = field(default_factory=list)
    commits: list[float] = field(default_factory=list)
    """What the record took of each."""
    grown: list[float] = field(default_factory=list)
    """By how many MiB the owner grew over a round."""
    owner_mib: float = 0.0


def sizes(folder: Path, numbers: Sequence[int], runs: int, each: int, findings: Findings) -> None:
    """What the number of sources does: to builds with nothing to do, to starts, to an edit."""
    roots: dict[int, Path] = {}
    for number in numbers:
        root = folder / f"s{number}"
        root.mkdir()
        print(f"  {number:,} small sources", file=sys.stderr, flush=True)
        trees.small(root, number)
        configured(root)
        first = floors.timed(partial(run, root, *ASSETD, "build"))
        findings.scaled("cold build", number, first)
        _one_size(root, number, runs, findings)
        roots[number] = root
    few, many = max(1000, numbers[0]), numbers[-1]
    edits = {number: Edits() for number in (few, many)}
    for _ in range(runs):
        for number, found in edits.items():
            _edit(roots[number], found, each)
    one, other = edits[few], edits[many]
    figure = f"an edit among {many:,} against among {few:,}"
    for what, ours, theirs in (
        ("a save, p50", other.ms, one.ms),
        ("its commit, p50", other.commits, one.commits),
    ):
        floor = statistics.median(theirs)
        findings.add(
            figure,
            what,
            statistics.median(ours),
            floor=floor,
            against=f"among {few:,}",
            limit=1.2 * floor,
            target="1.2 times",
        )
    floor = statistics.median(one.grown)
    findings.add(
        figure,
        f"how much {each} saves make the owner grow",
        statistics.median(other.grown),
        "MiB",
        floor=floor,
        against=f"among {few:,}",
        limit=max(1.2 * floor, floor + 1.0),
        target="1.2 times, or 1 MiB more",
    )
    limit = 60.0 if many <= 10_000 else 300.0
    findings.add(
        "memory",
        f"the owner, with {many:,} sources",
        other.owner_mib,
        "MiB",
        limit=limit if many in {10_000, 1_000_000} else None,
        target=f"{limit:g} MiB" if many in {10_000, 1_000_000} else "",
    )


def _one_size(root: Path, number: int, runs: int, findings: Findings) -> None:
    scans, pythons, agains, throughs, readies = [], [], [], [], []
    for _ in range(runs):
        scans.append(floors.scan(root / "assets"))
        pythons.append(floors.python())
        agains.append(floors.timed(lambda: run(root, *ASSETD, "build")))
        began = time.perf_counter()
        with daemon(root):
            readies.append((time.perf_counter() - began) * 1000)
            throughs.append(floors.timed(lambda: run(root, *ASSETD, "build")))
    scan, python = statistics.median(scans), statistics.median(pythons)
    again, through = statistics.median(agains), statistics.median(throughs)
    ready = statistics.median(readies)
    findings.scaled("scandir with stat", number, scan)
    findings.scaled("nothing to do, no daemon", number, again)
    findings.scaled("nothing to do, through a daemon", number, through)
    findings.scaled("start to ready", number, ready)
    findings.add(
        "nothing to do, no daemon",
        f"assetd build, {number:,} sources",
        again,
        floor=scan + python,
        against="scandir with stat, and Python's start with the imports",
        limit=4 * scan + python if number >= 10_000 else None,
        target="4 times the scan + Python" if number >= 10_000 else "",
    )
    findings.add(
        "nothing to do, through a daemon",
        f"assetd build, {number:,} sources",
        through,
        limit=80.0,
        target="80 ms",
    )
    findings.add(
        "start to READY, nothing changed",
        f"assetd run, {number:,} sources",
        ready,
        floor=scan,
        against="scandir with stat",
        limit=3 * scan if number == 100_000 else None,
        target="3 times the scan" if number == 100_000 else "",
    )


def _edit(root: Path, found: Edits, each: int) -> None:
    save = saves.plain("d00000/f00.txt")
    file = root.with_name("edits.json")
    with daemon(root, "--trace", os.fspath(file)) as pid, Eye(save.folders(root / "out")) as eye:
        base = int(time.time()) % 500_000
        before = 0.0
        for count in range(3 + each):
            ms = save.once(root / "assets", root / "out", eye, base + count)
            if count == 2:
                before = rss_mib(pid)
            if count > 2:
                found.ms.append(ms)
            time.sleep(0.1)
        found.owner_mib = rss_mib(pid)
        found.grown.append(max(0.0, found.owner_mib - before))
    commits = [e["dur"] / 1000 for e in trace.read(os.fspath(file)) if e["name"] == "commit"]
    found.commits += commits[-each:]


# -- git ----------------------------------------------------------------------------------


def checkout(folder: Path, files: int, runs: int, findings: Findings) -> None:
    """`git checkout` of a branch in which every file is another one, and back again.

    The files are as those of T3: one in five is a Sass entry.  What counts begins when git is
    done: before that its lock holds us off, and that time is git's.
    """
    there: list[float] = []
    back: list[float] = []
    colds: list[float] = []
    for number in range(runs):
        root = folder / f"checkout{number}"
        root.mkdir()
        configured(root)
        (root / ".gitignore").write_text("/out\n/.assetd\n*.log\n")
        _git(root, "init", "-q", "-b", "one")
        for branch, twist in (("one", 0), ("two", 1)):
            trees.mixed(root, entries=files // 5, plain_files=files * 3 // 5, twist=twist)
            if branch != "one":
                _git(root, "checkout", "-q", "-b", branch)
            _git(root, "add", "-A")
            _git(root, "commit", "-q", "-m", branch)
        colds.append(floors.timed(partial(run, root, *ASSETD, "build")))
        for name in ("out", ".assetd"):
            shutil.rmtree(root / name)
        _git(root, "checkout", "-q", "one")
        with daemon(root):
            for branch, times in (("two", there), ("one", back)):
                time.sleep(1.0)
                _git(root, "checkout", "-q", branch)
                times.append(floors.timed(partial(ask, root, "sync")))
                _check(assetd(), root)
        shutil.rmtree(root)
    floor = statistics.median(colds)
    figure = f"git checkout that changes {files:,} files"
    for what, times, factor in (
        ("there, from git's end to sync", there, 1.3),
        ("and back again, results in the store", back, 0.5),
    ):
        findings.add(
            figure,
            what,
            statistics.median(times),
            floor=floor,
            against="a cold build of those",
            limit=factor * floor,
            target=f"{factor:g} times a cold build",
        )


def _git(root: Path, *words: str) -> None:
    run(root, "git", "-c", "user.name=bench", "-c", "user.email=bench@localhost", *words)


# -- interactive first --------------------------------------------------------------------


def during_cold_build(
    t3: Path, t2: Path, save: Save, rounds: int, idle_saves: int, findings: Findings
) -> None:
    """A save in T3 while T2, which has just come, is built for the first time."""
    root = t3.with_name("both")
    shutil.copytree(t3, root)
    (root / "library").mkdir()
    configured(root, CONFIG.replace("[assets]", "[assets, library]"))
    idle: list[float] = []
    busy: list[float] = []
    number = 1
    with daemon(root), Eye(save.folders(root / "out")) as eye:

        def once(times: list[float]) -> None:
            nonlocal number
            number += 1
            times.append(save.once(root / "assets", root / "out", eye, number))

        for each in range(rounds):
            for _ in range(idle_saves):
                once(idle)
                time.sleep(0.15)
            prepared = root / f"prepared{each}"
            shutil.copytree(t2 / "assets", prepared)
            wanted = [root / "out" / f"r{each}" / name for name in expected(prepared)]
            prepared.rename(root / "library" / f"r{each}")
            deadline = time.monotonic() + 120.0
            # Not before the build has begun: the first output shows that.
            time.sleep(0.1)
            while not all(path.exists() for path in wanted):
                if time.monotonic() > deadline:
                    raise TimeoutError("T2 was not built")
                once(busy)
                time.sleep(0.05)
    own = statistics.median(idle)
    findings.add(
        "a save in T3 during a cold build of T2",
        f"a T3 entry, p50 of {len(busy)}",
        statistics.median(busy),
        floor=own,
        against="its own time",
        limit=own + 30.0,
        target="its own time + 30 ms",
    )
    findings.add(
        "a save in T3 during a cold build of T2",
        "p99",
        percentile(busy, 0.99),
        floor=percentile(idle, 0.99),
        against="its own p99",
    )
    shutil.rmtree(root)


# -- memory and idleness ------------------------------------------------------------------


def family(pid: int) -> list[int]:
    """A process and all that it started, directly or not."""
    children: dict[int, list[int]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            fields = Path("/proc", name, "stat").read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found


def rss_mib(pid: int) -> float:
    """Resident memory of a process."""
    return _status(Path("/proc", str(pid), "status"), "VmRSS") / 1024


def _status(file: Path, name: str) -> int:
    for line in file.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise KeyError(name)


def _ticks(pid: int) -> int:
    fields = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _wakes(pid: int) -> int:
    tasks = Path("/proc", str(pid), "task")
    return sum(_status(task / "status", "voluntary_ctxt_switches") for task in tasks.iterdir())


def rest(root: Path, save: Save, seconds: float, findings: Findings) -> None:
    """What a daemon and its workers hold and do when nothing happens, after some saves."""
    with daemon(root) as pid, Eye(save.folders(root / "out")) as eye:
        for number in range(10):
            save.once(root / "assets", root / "out", eye, 700_000 + number)
            time.sleep(0.2)
        ask(root, "sync")
        time.sleep(3.0)
        everybody = family(pid)
        ticks, wakes = sum(map(_ticks, everybody)), sum(map(_wakes, everybody))
        began = time.monotonic()
        time.sleep(seconds)
        took = time.monotonic() - began
        ticks, wakes = sum(map(_ticks, everybody)) - ticks, sum(map(_wakes, everybody)) - wakes
        workers = [each["pid"] for each in ask(root, "status")["workers"]]
        heaviest = max(map(rss_mib, workers))
    percent = 100 * ticks / os.sysconf("SC_CLK_TCK") / took
    figure = f"idle over {seconds:g} s, {len(everybody)} processes"
    findings.add(figure, "CPU", percent, "%", limit=0.05, target="0.0 %")
    findings.add(figure, "wake-ups in 5 s", wakes / took * 5, "", limit=1.0, target="1 in 5 s")
    needs = _compiler_mib(root / "assets" / save.source) - _compiler_mib(None)
    findings.add(
        "memory",
        "a worker, beyond what its compiler needs",
        heaviest - needs,
        "MiB",
        floor=needs,
        against="what LibSass adds to a bare Python",
        limit=45.0,
        target="45 MiB",
    )


def owner_memory(root: Path, number: int, findings: Findings) -> None:
    """The owner of a tree that is built, after a start and a scan."""
    with daemon(root) as pid:
        ask(root, "sync")
        held = rss_mib(pid)
    findings.add(
        "memory",
        f"the owner, with {number:,} sources",
        held,
        "MiB",
        limit=60.0 if number == 10_000 else None,
        target="60 MiB" if number == 10_000 else "",
    )


def _compiler_mib(entry: Path | None) -> float:
    """What a bare Python holds that has compiled *entry*, or nothing."""
    script = "print(next(l.split()[1] for l in open('/proc/self/status') if 'VmRSS' in l))"
    if entry is not None:
        script = f"import sass; sass.compile(filename={os.fspath(entry)!r})\n{script}"
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, check=True)
    return int(done.stdout) / 1024


# -- where the time of one save goes ------------------------------------------------------


def phases(root: Path, kinds: Sequence[Save], each: int, findings: Findings) -> None:
    """Ask a trace what a save is made of: medians over *each* saves of each kind."""
    for save in kinds:
        file = root.with_name(f"{save.kind}.json")
        with (
            daemon(root, "--trace", os.fspath(file)),
            Eye(save.folders(root / "out")) as eye,
        ):
            for number in range(3 + each):
                save.once(root / "assets", root / "out", eye, 800_000 + number)
                time.sleep(0.15)
        for what, ms in _phases(trace.read(os.fspath(file)))[:20]:
            findings.save_phases.append((save.name, what, ms))


def _phases(events: Sequence[dict[str, Any]]) -> list[tuple[str, float]]:
    """The medians over all saves: each phase that lies within one, and its whole time."""
    names = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    begins = {e["id"]: e["ts"] for e in events if e["ph"] == "b"}
    totals: dict[str, list[float]] = {}
    saves_seen = [(begins[e["id"]], e["ts"]) for e in events if e["ph"] == "e"][3:]
    for began, ended in saves_seen:
        sums: dict[str, float] = {"from the event to the record": (ended - began) / 1000}
        for event in events:
            if event["ph"] != "X" or event["name"] == "turn":
                continue
            if began <= event["ts"] and event["ts"] + event["dur"] <= ended + 0.2:
                track = "owner" if names[event["tid"]] == "owner" else "worker"
                inner = event["name"] if "job" not in event["args"] else "the whole job"
                key = f"{track}: {inner}"
                sums[key] = sums.get(key, 0.0) + event["dur"] / 1000
        for key, ms in sums.items():
            totals.setdefault(key, []).append(ms)
    found = [
        (key, statistics.median(ms)) for key, ms in totals.items() if len(ms) * 2 > len(saves_seen)
    ]
    return sorted(found, key=lambda each: -each[1])


def free(folder: Path) -> None:
    """Give the memory of a tree back."""
    for path in folder.iterdir():
        shutil.rmtree(path, ignore_errors=True)
