"""Killed at any moment, on a full disk, on one that refuses: starting again is the recovery."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.disks import Disk

from assetd import registry
from assetd.engine import Engine, Order
from assetd.errors import AssetdError
from assetd.model import Batch as Tally
from assetd.model import Committed, EntryState, NodeState, Source
from assetd.record import Reader
from assetd.testing import Daemon, InlinePool, Site, wait_for

CONFIG = "mounts: [assets]\nworkers: 1\n"
PASSES_SECONDS = 2.0
"""Within so long the daemon goes on when the disk takes something again."""
SLACK_SECONDS = 3.0
"""What a noisy machine may add."""


def small_site(root: Path, config: str = CONFIG) -> Site:
    site = Site(root, config)
    site.write("assets/css/site.scss", '@import "vars"; a { b: $c }')
    site.write("assets/css/print.scss", '@import "vars"; p { b: $c }')
    site.write("assets/css/_vars.scss", "$c: red;")
    site.write("assets/js/app.js.concat", 'files: ["lib/*.js"]')
    site.write("assets/js/lib/a.js", "a")
    for n in range(4):
        site.write(f"assets/img/{n}.txt", f"image {n}")
    return site


def mutate(site: Site, dice: random.Random) -> None:
    """One thing that people do to their sources."""
    n = dice.randrange(8)
    image = site.root / f"assets/img/{n}.txt"
    match dice.randrange(8):
        case 0 | 1:
            site.write(f"assets/img/{n}.txt", dice.randbytes(dice.randrange(5000)))
        case 2:
            site.replace("assets/css/_vars.scss", f"$c: c{dice.randrange(99)};")
        case 3:
            site.write(f"assets/js/lib/{n}.js", f"{dice.random()}")
        case 4:
            image.unlink(missing_ok=True)
        case 5 if image.exists():
            target = site.root / f"assets/moved/{dice.randrange(3)}/{n}.txt"
            target.parent.mkdir(parents=True, exist_ok=True)
            image.rename(target)
        case 6:
            shutil.rmtree(site.root / "assets/moved", ignore_errors=True)
        case _:
            site.write("assets/css/print.scss", f"p {{ b: {dice.randrange(99)} }}")


def staged(site: Site, state: str = ".assetd") -> list[str]:
    """The files in staging."""
    base = site.root / state / "staging"
    return [str(path) for path in base.rglob("*") if not path.is_dir()]


def identities(site: Site) -> dict[str, tuple[int, int]]:
    """Inode and time of change of each output: whether it is the very same file."""
    base = site.root / "public"
    stats = {path: (base / path).stat() for path in site.outputs()}
    return {path: (found.st_ino, found.st_mtime_ns) for path, found in stats.items()}


def dice_of(number: int) -> random.Random:
    seed = int(os.environ.get("ASSETD_TEST_SEED", random.randrange(1 << 32)))
    print(f"ASSETD_TEST_SEED={seed}")
    return random.Random(seed + number)


# -- kills ------------------------------------------------------------------------------------

KILLS = int(os.environ.get("ASSETD_TEST_KILLS", "60"))
RUNS = 4


@pytest.mark.parametrize("run", range(RUNS))
def test_a_daemon_that_is_killed_at_any_moment_converges(tmp_path: Path, run: int) -> None:
    """Byte for byte to the clean build: no orphan output, nothing left in staging."""
    dice = dice_of(run)
    site = small_site(tmp_path / "site")
    kills = 0
    while kills < KILLS // RUNS:
        log = site.root.with_name("site.log")
        log.unlink(missing_ok=True)
        with site.daemon(ready=False) as daemon:
            # Python takes a while to start; the moments after that are the interesting ones.
            wait_for(lambda: " started " in daemon.log, "the daemon to start")
            end = time.monotonic() + dice.uniform(0.0, 0.25)
            while time.monotonic() < end:
                mutate(site, dice)
                time.sleep(dice.uniform(0.0, 0.03))
            daemon.kill()
        kills += 1
        if kills % 12 == 10:
            check(site, dice)
            kills += 2
    check(site, dice)


def check(site: Site, dice: random.Random) -> None:
    """Start it again, let it come to rest, and compare."""
    with site.daemon() as daemon:
        assert daemon.sync() == []
        assert site.outputs() == site.clean_build()
        assert staged(site) == []
        last = daemon.status()["last_batch"]
        before = identities(site)
        daemon.kill()
    # It was at rest: there is nothing to build, whatever was going on before.
    with site.daemon() as daemon:
        assert daemon.status()["last_batch"] == last
        assert identities(site) == before
        mutate(site, dice)
        daemon.kill()


def test_a_build_that_is_killed_at_any_moment_converges(tmp_path: Path) -> None:
    """As the daemon does."""
    dice = dice_of(0)
    site = small_site(tmp_path / "site")
    for _ in range(max(8, KILLS // 8)):
        for _ in range(3):
            mutate(site, dice)
        build = subprocess.Popen(
            [sys.executable, "-P", "-m", "assetd", "build"],
            cwd=site.root,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            build.wait(dice.uniform(0.15, 0.6))
        build.kill()
        build.wait()
    assert site.build()["errors"] == []
    assert site.outputs() == site.clean_build()
    assert staged(site) == []
    before = identities(site)
    assert site.build()["batch"]["changed"] == 0
    assert identities(site) == before


# -- a kill at every step ---------------------------------------------------------------------

STEPS = int(os.environ.get("ASSETD_TEST_STEPS", "40"))
PARTS = 4
CALLS = (
    *("rename", "renameat", "renameat2", "link", "linkat", "unlink", "unlinkat"),
    *("mkdir", "mkdirat", "rmdir", "ftruncate"),
    *("write", "pwrite64", "fsync", "fdatasync"),
)
"""All that a batch does to the disk."""
BUILD = (sys.executable, "-P", "-m", "assetd", "build")


class Batch:
    """One batch with everything in it, to be done again and again from the same beginning."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("strace") is None:
            pytest.skip("strace is not installed")
        base = small_site(folder / "base")
        base.build()
        # New, changed and deleted, a folder for a file.
        base.write("assets/css/_vars.scss", "$c: blue;")
        base.write("assets/new/deep/file.txt", "new")
        base.write("assets/new/page.scss", "@import '../css/vars'; p { d: $c; }")
        base.remove("assets/img")
        base.write("assets/img", "a file now")
        base.remove("assets/js/lib")
        base.remove("assets/js/app.js.concat")
        self.expected = base.clean_build()
        self.folder = folder
        self.template = base.root.rename(folder / "template")

    def site(self, name: str) -> Site:
        """A copy of it as it is before the batch."""
        site = Site.__new__(Site)
        site.root = self.folder / name
        subprocess.run(["cp", "-a", str(self.template), str(site.root)], check=True)
        return site

    def steps(self) -> list[tuple[str, str, int]]:
        """Who does what for the how manieth time, in the order of time."""
        site, trace = self.site("whole"), self.folder / "trace"
        done = subprocess.run(
            ["strace", "-f", "-o", str(trace), "-e", f"trace={','.join(CALLS)}", *BUILD],
            cwd=site.root,
            capture_output=True,
            check=False,
        )
        if done.returncode == 1 and b"ptrace" in done.stderr:
            pytest.skip("we may not trace processes here")
        shutil.rmtree(site.root)
        counts: dict[tuple[str, str], int] = {}
        found = []
        owner = ""
        for line in trace.read_text().splitlines():
            pid, rest = line.split(maxsplit=1)
            owner = owner or pid
            call = rest.partition("(")[0]
            if call in CALLS:
                who = "owner" if pid == owner else "worker"
                counts[pid, call] = counts.get((pid, call), 0) + 1
                found.append((who, call, counts[pid, call]))
        return found


def spread(points: list[Any], most: int, part: int) -> list[Any]:
    """At most so many of them, evenly spread; the share of one part of the test."""
    if len(points) > most:
        points = [points[n * (len(points) - 1) // (most - 1)] for n in range(most)]
    return points[part::PARTS]


@dataclass
class Rebuilt:
    """What one build in this process came to."""

    tally: Tally
    told: list[str]
    ran: set[Source]
    """The sources of which a processor ran."""
    healed: set[Source]
    """Those that had failed, or whose outputs something had been in the way of."""


def rebuild(site: Site) -> Rebuilt:
    """What `assetd build` does, in this process."""
    told: list[str] = []
    ran: set[Source] = set()
    healed: set[Source] = set()
    project = registry.load(str(site.root / "assetd.yml"))
    engine = Engine(
        project,
        lambda event, **fields: told.append(f"{event} {fields}"),
        watching=False,
        open_pool=InlinePool,
    )

    def hear(heard: Committed | Tally) -> None:
        if isinstance(heard, Committed):
            healed.update(heard.healed)
            ran.update(
                entry.source
                for entry in heard.change.put
                if any(node.state is NodeState.BUILT for node in entry.nodes)
            )

    engine.hearers.append(hear)
    done: list[Order] = []
    engine.build(Order(), done.append)
    engine.run_until(lambda: bool(done))
    wrong = [f"{e.source.path}: {e.problem}" for e in engine.record.wrong()]
    engine.stop()
    assert wrong == [], told
    return Rebuilt(done[0].tally, told, ran, healed)


def decided(site: Site) -> set[Source]:
    """The sources whose part of the batch is in the record: done, or only intended.

    A loaded machine plans a batch in several pieces, each with a commit of its own.
    """
    with contextlib.closing(Reader(str(site.root / ".assetd/record.sqlite"))) as reader:
        entries = list(reader.entries())
        for _, change in reader.intents():
            entries += change.put
    return {e.source for e in entries if e.batch > 1 and e.state is EntryState.OK}


def check_recovery(site: Site, expected: dict[str, bytes], point: object) -> None:
    """One build, and all is as after a clean one; what was decided is not built again."""
    before_that = decided(site)
    done = rebuild(site)
    told = done.told
    assert site.outputs() == expected, point
    assert staged(site) == [], point
    assert sorted(p.name for p in (site.root / "public").iterdir()) == ["css", "img", "new"], point
    assert not [line for line in told if "damaged" in line or "behind" in line], point
    # Whoever something was in the way of was not published, and is run again when that has gone.
    assert (before_that & done.ran) - done.healed == set(), (point, told)
    before = identities(site)
    assert rebuild(site).tally.changed == 0, point
    assert identities(site) == before, point
    names = {p.name for p in (site.root / ".assetd").iterdir()}
    known = {"ledger", "lock", "made-folders", "record.sealed", "record.sqlite", "staging", "store"}
    assert names <= known, point


@pytest.mark.parametrize("part", range(PARTS))
def test_a_kill_at_every_step_of_a_batch_is_recovered_from(tmp_path: Path, part: int) -> None:
    """Before each rename, deletion, write and sync of the owner, who dies with its workers."""
    batch = Batch(tmp_path)
    points = [(call, n) for who, call, n in batch.steps() if who == "owner"]
    assert len(points) > 60
    missed: list[tuple[str, int]] = []
    for call, number in spread(points, STEPS * 3 // 4, part):
        site = batch.site("site")
        kill = f"inject={call}:signal=SIGKILL:when={number}"
        killed = subprocess.run(
            ["strace", "-o", "/dev/null", "-e", f"trace={call}", "-e", kill, *BUILD],
            cwd=site.root,
            capture_output=True,
            check=False,
        )
        # It may be planned in fewer pieces than when it was traced, and not come to that step.
        missed += [(call, number)] * (killed.returncode == 0)
        check_recovery(site, batch.expected, (call, number))
        shutil.rmtree(site.root)
    assert len(missed) <= len(points) // 10
    print(f"{part + 1} of {PARTS} parts of {len(points)} steps: all recovered")


@pytest.mark.parametrize("part", range(PARTS))
def test_a_kill_at_every_step_of_a_worker_is_recovered_from(tmp_path: Path, part: int) -> None:
    """Owner and worker die together, after each thing that the worker does to the disk."""
    batch = Batch(tmp_path)
    points = [(call, n) for who, call, n in batch.steps() if who == "worker"]
    assert len(points) > 20
    for call, number in spread(points, STEPS // 4, part):
        site = batch.site("site")
        stop = f"inject={call}:signal=SIGSTOP:when={number}"
        trace = tmp_path / "stopped"
        trace.write_text("")
        tracer = subprocess.Popen(
            ["strace", "-f", "-o", str(trace), "-e", f"trace={call}", "-e", stop, *BUILD],
            cwd=site.root,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for(lambda: "stopped by SIGSTOP" in trace.read_text(), str((call, number)))  # noqa: B023
        killed = below(tracer.pid)
        for pid in killed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        tracer.wait()
        wait_for(lambda: not any(map(is_alive, killed)), "all to be dead")  # noqa: B023
        check_recovery(site, batch.expected, (call, number))
        shutil.rmtree(site.root)


def test_a_file_in_the_place_of_a_folder_waits_for_the_folder_to_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loaded machine planned it before the deletions, and one build left it blocked."""
    monkeypatch.setattr("assetd.engine.SLICE", 1)
    site = small_site(tmp_path / "site")
    rebuild(site)
    site.remove("assets/img")
    site.write("assets/img", "a file now")
    rebuild(site)
    assert site.output("img") == "a file now"


def below(pid: int) -> list[int]:
    """The processes that *pid* started, and those that these did."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                parents[int(folder.name)] = int(fields[1])
    found = [pid]
    for parent in found:
        found += [child for child, of in parents.items() if of == parent]
    return found[1:]


def is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    return False


# -- disks ------------------------------------------------------------------------------------


PLACES = {
    "both": "out_dir: disk/public\nstate_dir: disk/state\n",
    "outputs": "out_dir: disk/public\n",
    "state": "state_dir: disk/state\n",
}


def disk_site(disk: Disk, where: str) -> Site:
    return small_site(disk.folder.parent, CONFIG + PLACES[where])


def folders(where: str) -> tuple[str, str]:
    """Output root and state folder."""
    out = "public" if where == "state" else "disk/public"
    return out, ".assetd" if where == "outputs" else "disk/state"


def running(site: Site, state: str) -> Any:
    daemon = Daemon(site)
    real = os.path.realpath(site.root)
    from assetd import client

    path = client.socket_path(real, os.path.join(real, state))
    daemon.connect = lambda: client.Connection(path)  # type: ignore[method-assign]
    return daemon


def expected_of(site: Site, out: str, sources: Path) -> dict[str, bytes]:
    """A clean build of the same sources on a disk with space."""
    other = Site(sources)
    shutil.rmtree(other.root / "assets")
    shutil.copytree(site.root / "assets", other.root / "assets")
    other.build()
    return other.outputs()


@pytest.mark.parametrize("where", PLACES)
def test_a_full_disk_ends_nothing_and_halves_nothing(
    tmp_path: Path, disk: Disk, where: str
) -> None:
    """The daemon lives, says why, and goes on when there is space."""
    site = disk_site(disk, where)
    out, state = folders(where)
    daemon = running(site, state)
    try:
        daemon.wait_until_ready()
        before = site.outputs(out)
        disk.use_up_space()
        big = "x" * 200_000
        site.write("assets/css/_vars.scss", "$c: blue;")
        site.write("assets/img/0.txt", big)
        site.write("assets/new/file.txt", big)
        site.remove("assets/img/1.txt")

        def says_why() -> bool:
            status = daemon.status()
            words = [status["trouble"] or "", *(e["message"] for e in status["errors"])]
            return any("full" in w or "No space" in w or "I/O" in w for w in words)

        wait_for(says_why, "the daemon to say why")
        time.sleep(1.0)  # it tries again meanwhile
        assert daemon.process.poll() is None, daemon.log
        after = expected_of(site, out, tmp_path / "expected")
        for path, content in site.outputs(out).items():
            if ".assetd-staging" not in path:
                assert content in {before.get(path), after.get(path)}, path
        disk.free()
        freed = time.monotonic()

        def over() -> bool:
            status = daemon.status()
            return status["trouble"] is None and not status["errors"] and status["state"] == "idle"

        wait_for(over, "the daemon to go on")
        assert time.monotonic() - freed < PASSES_SECONDS + SLACK_SECONDS
        assert daemon.sync() == []
        found = site.outputs(out)
        assert found == after
        assert staged(site, state) == []
        assert daemon.end() == 0
        assert "Traceback" not in daemon.log
    finally:
        with contextlib.suppress(AssertionError):
            daemon.end()


@pytest.mark.parametrize("where", PLACES)
def test_a_build_on_a_full_disk_says_so_and_the_next_one_finishes(
    tmp_path: Path, disk: Disk, where: str
) -> None:
    """One line or an error for each source; no traceback, nothing half-written."""
    site = disk_site(disk, where)
    out, state = folders(where)
    disk.use_up_space()
    first = site.run("build")
    assert first.returncode == 1
    assert "Traceback" not in first.stderr
    assert any(w in first.stderr for w in ("No space left", "full", "I/O error")), first.stderr
    disk.free()
    assert site.run("build").returncode == 0
    assert site.outputs(out) == expected_of(site, out, tmp_path / "expected")
    assert staged(site, state) == []


@pytest.mark.parametrize("restart", [False, True])
def test_an_output_root_that_is_read_only_is_caught_up_with(
    tmp_path: Path, disk: Disk, restart: bool
) -> None:
    """What could not be replaced or deleted is, when it is writable again."""
    site = disk_site(disk, "outputs")
    out, state = folders("outputs")
    daemon = running(site, state)
    try:
        daemon.wait_until_ready()
        before = site.outputs(out)
        disk.remount("ro")
        site.write("assets/css/_vars.scss", "$c: blue;")
        site.remove("assets/img/1.txt")
        wait_for(
            lambda: any("Read-only" in e["message"] for e in daemon.status()["errors"]),
            "the daemon to say why",
        )
        found = site.outputs(out)
        assert {p: c for p, c in found.items() if ".assetd-staging" not in p} == before
        if restart:
            daemon.kill()
        disk.remount("rw")
        if restart:
            daemon = running(site, state)
            daemon.wait_until_ready()
        began = time.monotonic()
        wait_for(lambda: not daemon.status()["errors"], "the daemon to go on")
        assert time.monotonic() - began < PASSES_SECONDS + SLACK_SECONDS
        assert daemon.sync() == []
        assert site.outputs(out) == expected_of(site, out, tmp_path / "expected")
    finally:
        with contextlib.suppress(AssertionError):
            daemon.end()


def test_a_build_into_an_output_root_that_is_read_only_says_so(disk: Disk) -> None:
    """One line, not a traceback."""
    site = disk_site(disk, "outputs")
    disk.remount("ro")
    done = site.run("build")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "cannot be written: Read-only file system" in done.stderr


def test_a_project_that_is_moved_takes_its_outputs_along(tmp_path: Path) -> None:
    """With changes that are not built yet: the outputs are still ours."""
    site = small_site(tmp_path / "site")
    site.build()
    site.write("assets/css/_vars.scss", "$c: blue;")
    site.remove("assets/img/1.txt")
    site.root = site.root.rename(tmp_path / "moved")
    assert site.build()["errors"] == []
    assert site.outputs() == site.clean_build()


def test_a_second_start_while_the_first_recovers_is_refused(tmp_path: Path) -> None:
    """The lock goes with the process, however it ends, and not with a file."""
    site = small_site(tmp_path / "site")
    with site.daemon() as daemon:
        second = site.run("run")
        assert second.returncode == 4
        assert str(daemon.process.pid) in second.stderr
        daemon.kill()
        with pytest.raises(AssetdError):
            daemon.status()
    with site.daemon() as daemon:
        assert daemon.sync() == []
