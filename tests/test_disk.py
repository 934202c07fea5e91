"""Errors from the disk: an output is the old one or the new one, and whoever asks hears why.

The kernel is made to refuse one system call after the other, by strace; and there are real file
systems without space, without room for another file, and read-only.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.disks import Disk

from assetd import client
from assetd.testing import Daemon, Site, wait_for

POINTS = int(os.environ.get("ASSETD_TEST_ERRORS", "36"))
PARTS = 3
ERRORS = ("ENOSPC", "EDQUOT", "EIO")
CALLS = (
    *("rename", "renameat", "renameat2", "link", "linkat", "unlink", "unlinkat"),
    *("mkdir", "mkdirat", "rmdir", "ftruncate"),
    *("write", "pwrite64", "fsync", "fdatasync"),
)
BUILD = (sys.executable, "-P", "-m", "assetd", "build", "--json")
PASSES_SECONDS = 2.0
"""Within so long the daemon goes on when the disk takes something again."""
SLACK_SECONDS = 3.0
"""What a noisy machine may add."""


def small_site(root: Path, config: str = "") -> Site:
    site = Site(root, f"mounts: [assets]\nworkers: 1\n{config}")
    site.write("assets/css/site.scss", '@import "vars"; a { b: $c }')
    site.write("assets/css/_vars.scss", "$c: red;")
    site.write("assets/js/app.js.concat", 'files: ["lib/*.js"]')
    site.write("assets/js/lib/a.js", "a")
    for n in range(3):
        site.write(f"assets/img/{n}.txt", f"image {n}")
    return site


def change(site: Site) -> None:
    """One batch with everything in it: new, changed, deleted."""
    site.write("assets/css/_vars.scss", "$c: blue;")
    site.write("assets/new/file.txt", "new")
    site.write("assets/img/0.txt", "another image")
    site.remove("assets/img/1.txt")
    site.remove("assets/js/lib")
    site.remove("assets/js/app.js.concat")


# -- one refusal after the other --------------------------------------------------------------


class Refusals:
    """A batch in which the disk refuses one call."""

    def __init__(self, folder: Path, durability: str) -> None:
        if shutil.which("strace") is None:
            pytest.skip("strace is not installed")
        base = small_site(folder / "base", f"durability: {durability}\n")
        base.build()
        self.before = base.outputs()
        change(base)
        self.after = base.clean_build()
        self.folder = folder
        self.template = base.root.rename(folder / "template")

    def site(self) -> Site:
        site = Site.__new__(Site)
        site.root = self.folder / "site"
        shutil.rmtree(site.root, ignore_errors=True)
        subprocess.run(["cp", "-a", str(self.template), str(site.root)], check=True)
        return site

    def build(self, site: Site, *options: str) -> subprocess.CompletedProcess[str]:
        trace = self.folder / "trace"
        done = subprocess.run(
            ["strace", "-f", "-y", "-o", str(trace), *options, *BUILD],
            cwd=site.root,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 1 and "ptrace" in done.stderr:
            pytest.skip("we may not trace processes here")
        return done

    def points(self) -> list[tuple[str, int]]:
        """The calls on files of the project, each with its number among its process's."""
        site = self.site()
        self.build(site, "-e", f"trace={','.join(CALLS)}")
        counts: dict[tuple[str, str], int] = {}
        found = []
        for line in (self.folder / "trace").read_text().splitlines():
            pid, rest = line.split(maxsplit=1)
            call, _, arguments = rest.partition("(")
            if call in CALLS:
                counts[pid, call] = counts.get((pid, call), 0) + 1
                writes = call in {"write", "pwrite64", "ftruncate", "fsync", "fdatasync"}
                if not writes or re.match(rf"\d+<{re.escape(str(site.root))}/", arguments):
                    found.append((call, counts[pid, call]))
        return list(dict.fromkeys(found))


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("error", ERRORS)
def test_a_build_to_which_the_disk_refuses_one_thing_halves_nothing(
    tmp_path: Path, error: str, part: int
) -> None:
    """It says so and exits with 1, or did without; the next build finishes."""
    refusals = Refusals(tmp_path, ("off", "normal", "full")[part])
    points = refusals.points()
    assert len(points) > 40
    most = POINTS // PARTS // len(ERRORS)
    if len(points) > most:
        points = [points[n * (len(points) - 1) // (most - 1)] for n in range(most)]
    print(f"{len(points)} refusals with {error}: each whole, each made up for")
    for call, number in points:
        site = refusals.site()
        refuse = f"inject={call}:error={error}:when={number}"
        done = refusals.build(site, "-e", f"trace={call}", "-e", refuse)
        where = f"{call} {number} {error}: {done.returncode} {done.stdout} {done.stderr}"
        assert "Traceback" not in done.stderr, where
        assert done.returncode in {0, 1}, where
        for path, content in site.outputs().items():
            if not path.startswith(".assetd-staging"):  # the probe may be what cannot be deleted
                assert content in {refusals.before.get(path), refusals.after.get(path)}, where
        if done.returncode == 0:
            assert json.loads(done.stdout)["errors"] == [], where
            assert site.outputs() == refusals.after, where
        else:
            said = done.stderr + done.stdout
            assert re.search("I/O|Input/output|No space|quota|full|lost on its way", said), where
        assert site.run("build").returncode == 0, where
        assert site.outputs() == refusals.after, where
        assert not [p for p in (site.root / ".assetd/staging").rglob("*") if p.is_file()], where


def test_an_answer_that_cannot_be_printed_is_told_in_one_line(tmp_path: Path) -> None:
    """What was asked for may go to a file on a disk without space: that is no bug of ours."""
    site = small_site(tmp_path / "site")
    for command in ("build --json", "list", "config"):
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [sys.executable, "-P", "-m", "assetd", *command.split()],
                cwd=site.root,
                stdin=subprocess.DEVNULL,
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
        assert done.returncode == 1
        assert done.stderr.endswith("nothing can be printed: No space left on device\n")
        assert "Traceback" not in done.stderr


# -- real disks -------------------------------------------------------------------------------


def on_disk(disk: Disk, config: str = "") -> Site:
    return small_site(disk.folder.parent, f"out_dir: disk/public\nstate_dir: disk/state\n{config}")


def asked(site: Site) -> Any:
    """A daemon that runs, whoever started it."""
    daemon = Daemon.__new__(Daemon)
    real = os.path.realpath(site.root)
    path = client.socket_path(real, os.path.join(real, "disk/state"))
    daemon.connect = lambda: client.Connection(path)  # type: ignore[method-assign]
    return daemon


@contextlib.contextmanager
def running(site: Site) -> Iterator[Any]:
    daemon = Daemon(site)
    daemon.connect = asked(site).connect  # type: ignore[method-assign]
    try:
        daemon.wait_until_ready()
        yield daemon
        assert daemon.end() == 0
        assert "Traceback" not in daemon.log
    finally:
        if daemon.process.poll() is None:
            daemon.kill()


def expected_of(site: Site) -> dict[str, bytes]:
    """A clean build of the same sources on a disk with space."""
    other = Site(site.root.with_name("expected"))
    shutil.rmtree(other.root / "assets")
    shutil.copytree(site.root / "assets", other.root / "assets")
    other.build()
    return other.outputs()


def words(daemon: Any) -> list[str]:
    """Why things do not go on, by `status`."""
    status = daemon.status()
    return [w for w in (status["trouble"], *(e["message"] for e in status["errors"])) if w]


def is_well(daemon: Any) -> bool:
    status = daemon.status()
    return status["trouble"] is None and not status["errors"] and status["state"] == "idle"


REFUSES = re.compile("full|No space|I/O|Read-only|readonly|read-only|unable to open")


def test_a_daemon_outlives_a_disk_that_takes_no_other_file(disk: Disk) -> None:
    """There is space, and no room for a name: it says why, and goes on within 2 s."""
    site = on_disk(disk)
    with running(site) as daemon:
        before = site.outputs("disk/public")
        disk.use_up_names()
        change(site)
        wait_for(lambda: any(map(REFUSES.search, words(daemon))), "the daemon to say why")
        after = expected_of(site)
        for path, content in site.outputs("disk/public").items():
            assert content in {before.get(path), after.get(path)}, path
        disk.free()
        freed = time.monotonic()
        wait_for(lambda: is_well(daemon), "the daemon to go on")
        assert time.monotonic() - freed < PASSES_SECONDS + SLACK_SECONDS
        assert daemon.sync() == []
        assert site.outputs("disk/public") == after
        assert not [p for p in (site.root / "disk/state/staging").rglob("*") if p.is_file()]


@pytest.mark.parametrize("how", ["names", "read-only"])
def test_a_build_on_a_disk_that_takes_nothing_says_so(disk: Disk, how: str) -> None:
    """Exit code 1 and the disk's own words; the next one finishes."""
    site = on_disk(disk)
    assert site.run("build").returncode == 0
    change(site)
    if how == "names":
        disk.use_up_names()
    else:
        disk.remount("ro")
    done = site.run("build")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert REFUSES.search(done.stderr), done.stderr
    if how == "read-only":
        disk.remount("rw")
    disk.free()
    assert site.run("build").returncode == 0
    assert site.outputs("disk/public") == expected_of(site)


def test_a_full_disk_takes_neither_answers_nor_proofs_away(disk: Disk) -> None:
    """The socket answers, a second daemon is refused, `sync` needs no cookie, the log goes on."""
    site = on_disk(disk)
    assert site.run("start").returncode == 0
    daemon = asked(site)
    try:
        assert daemon.sync() == []
        disk.use_up_space()
        disk.use_up_names()
        assert site.run("run").returncode == 4
        assert daemon.sync() == []
        site.write("assets/img/0.txt", "another image")
        wait_for(lambda: any(map(REFUSES.search, words(daemon))), "the daemon to say why")
        disk.free()
        wait_for(lambda: is_well(daemon), "the daemon to go on")
        assert daemon.sync() == []
        assert site.outputs("disk/public") == expected_of(site)
        site.write("assets/img/1.txt", "a third image")
        assert daemon.sync() == []
    finally:
        assert site.run("stop").returncode == 0
    log = (disk.folder / "state/log").read_text()
    assert "Traceback" not in log
    assert "stopping" in log.splitlines()[-1]


def test_a_daemon_starts_on_a_full_disk_and_finishes_when_there_is_space(disk: Disk) -> None:
    """The lock, the socket and the record are there already, and need no more."""
    site = on_disk(disk)
    assert site.run("build").returncode == 0
    change(site)
    disk.use_up_space()
    done = site.run("build")
    assert done.returncode == 1, done.stderr
    assert REFUSES.search(done.stderr), done.stderr
    disk.free()
    with running(site) as daemon:
        assert daemon.sync() == []
        assert site.outputs("disk/public") == expected_of(site)


def test_another_output_root_is_taken_when_the_disk_takes_it(disk: Disk) -> None:
    """The old one is in force until the record has let go of it, and the next one all at once."""
    site = small_site(disk.folder.parent, "out_dir: one\nstate_dir: disk/state\n")
    config = (site.root / "assetd.yml").read_text()
    with running(site) as daemon:
        disk.use_up_space()
        site.write("assetd.yml", config.replace("one", "other"))
        wait_for(lambda: any(map(REFUSES.search, words(daemon))), "the daemon to say why")
        disk.free()
        wait_for(lambda: is_well(daemon), "the daemon to go on")
        assert daemon.sync() == []
        site.write("assets/img/0.txt", "another image")
        assert daemon.sync() == []
        assert site.outputs("other") == expected_of(site)
        assert site.outputs("one") == {}
