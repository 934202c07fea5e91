"""When events do not help: lost, refused, cut off.  The daemon is never silently deaf.

Each of these is noticed by itself (no test here begins with a `sync`), shows in the log or the
status, and ends where a clean build does.  `ASSETD_TEST_FILES` and `ASSETD_TEST_CHECKOUT` say how
many files change at once.
"""

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from assetd.testing import Daemon, Site, wait_for

PLAIN = "mounts: [assets]\nworkers: 1\n"
FILES = int(os.environ.get("ASSETD_TEST_FILES", "300"))
"""How many files change while the observer is stopped."""
CHECKOUT = int(os.environ.get("ASSETD_TEST_CHECKOUT", "800"))
"""How many files git writes in one go."""
SOON_SECONDS = 5.0
"""Within so long the outputs are right again, once nobody stands in the way."""
SLACK_SECONDS = 10.0
"""What a noisy machine may add."""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A project with the mount `assets`."""
    (tmp_path / "site").mkdir()
    return Site(tmp_path / "site", PLAIN)


def assert_clean(site: Site) -> None:
    """The outputs are those of a build that knows nothing of before."""
    assert site.outputs() == site.clean_build()


def is_stopped(pid: int) -> bool:
    """Whether every thread of a process has stopped."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return all((t / "stat").read_text().rpartition(")")[2].split()[0] == "T" for t in tasks)


@contextlib.contextmanager
def stopped(daemon: Daemon) -> Iterator[None]:
    """Nothing of it moves meanwhile, and the kernel's queue fills."""
    os.kill(daemon.process.pid, signal.SIGSTOP)
    wait_for(lambda: is_stopped(daemon.process.pid), "the daemon to stop")
    try:
        yield
    finally:
        os.kill(daemon.process.pid, signal.SIGCONT)


def in_a_namespace(limit: str, *, later: tuple[Path, str] | None = None) -> tuple[str, ...]:
    """A user namespace of its own, in which *limit*, `name=number`, holds.

    Args:
        limit: Of inotify's watches or instances.
        later: Another one, which holds as soon as the file of that name is there.
    """

    def line(limit: str) -> str:
        name, _, number = limit.partition("=")
        return f"echo {number} > /proc/sys/user/max_inotify_{name}"

    script = line(limit)
    if later is not None:
        sign, then = later
        script += f"; (while [ ! -e {sign} ]; do sleep 0.02; done; {line(then)}) &"
    return "unshare", "-Ur", "sh", "-ec", f'{script}\nexec "$@"', "sh"


BY_AN_OWNER = ("unshare", "-U", "--map-user=1000")
"""As the owner of the files, who may not read what nobody may: root may."""


def can(through: tuple[str, ...]) -> bool:
    return subprocess.run([*through, "true"], check=False, stderr=-3).returncode == 0


needs_limits = pytest.mark.skipif(
    not can(in_a_namespace("watches=1000")), reason="this kernel gives us no user namespace"
)


# -- lost events ------------------------------------------------------------------------------


def test_lost_events_are_made_up_for_by_a_scan(site: Site) -> None:
    """The kernel's queue is bounded: when it overflows, everything is looked at."""
    for number in range(FILES):
        site.write(f"assets/{number % 9}/{number}.txt", f"{number}")
    site.write("assets/d/gone.txt", "gone")
    site.build()
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    with site.daemon() as daemon:
        with stopped(daemon):
            # Two files by turns: the kernel drops an event that is like the one before it.
            a, b = site.root / "assets/0/0.txt", site.root / "assets/1/1.txt"
            for _ in range(limit // 2 + 1_000):
                os.utime(a)
                os.utime(b)
            for number in range(FILES):
                if number % 3:
                    site.write(f"assets/{number % 9}/{number}.txt", f"{number} edited")
                else:
                    site.write(f"assets/new/{number % 7}/{number}.txt", f"{number}")
            site.remove("assets/8/8.txt")
            site.remove("assets/d")
            site.remove("public/7")
            site.write("assetd.yml", PLAIN + "ignore: [6.txt]\n")
            began = time.monotonic()
            expected = site.clean_build()
            cold = time.monotonic() - began
        # To read them all is as much work as to build them: only once a few are right.
        few = random.sample(sorted(expected), min(len(expected), 20))
        began = time.monotonic()
        wait_for(
            lambda: (
                all((site.output(path) or "").encode() == expected[path] for path in few)
                and site.outputs() == expected
            ),
            "it to look at everything",
            60 + FILES / 50,
        )
        seconds = time.monotonic() - began
        print(
            f"{FILES:,} files changed while nobody read: right {seconds:.1f} s after that; "
            f"a full build {cold:.1f} s"
        )
        assert seconds < SOON_SECONDS + SLACK_SECONDS + cold
        watch = daemon.status()["watch"]
        assert watch["overflows"] >= 1
        assert watch["rescans"] >= 1
        assert "events_lost" in daemon.log
        site.write("assets/new/3/after.txt", "heard of as before")
        wait_for(lambda: site.output("new/3/after.txt"), "a save after that")


def test_a_daemon_that_loses_events_all_the_time_does_not_scan_all_the_time(site: Site) -> None:
    """One scan makes up for any number of losses before it."""
    for number in range(300):
        site.write(f"assets/{number}.txt", f"{number}")
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    with site.daemon() as daemon:
        for turn in range(4):
            with stopped(daemon):
                a, b = site.root / "assets/0.txt", site.root / "assets/1.txt"
                for _ in range(limit // 2 + 1_000):
                    os.utime(a)
                    os.utime(b)
                site.write("assets/2.txt", f"turn {turn}")
        wait_for(lambda: site.output("2.txt") == "turn 3", "the last edit")
        daemon.sync()
        watch = daemon.status()["watch"]
        assert 1 <= watch["rescans"] <= watch["overflows"]
        assert_clean(site)


GIT = "git -c user.name=t -c user.email=t@t -c init.defaultBranch=main -c core.hooksPath=/dev/null"


def shell(command: str, folder: Path) -> None:
    """Run a command as a person would."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    done = subprocess.run(
        ["sh", "-ec", command], cwd=folder, capture_output=True, text=True, check=False, env=clean
    )
    assert done.returncode == 0, done.stderr


def test_a_checkout_of_very_many_files_costs_what_a_build_of_them_does(site: Site) -> None:
    """However many events that is, and however many of them are lost."""
    site.write(".gitignore", "public\n.assetd\n")
    site.write("assets/always.txt", "main")
    shell(f"{GIT} init -q; {GIT} add .; {GIT} commit -qm 1; {GIT} checkout -qb many", site.root)
    for number in range(CHECKOUT):
        site.write(f"assets/{number % 97}/{number}.txt", f"{number}")
    site.write("assets/always.txt", "many")
    shell(f"{GIT} add -A; {GIT} commit -qm 2", site.root)
    began = time.monotonic()
    assert site.run("build").returncode == 0
    cold = time.monotonic() - began
    expected = site.outputs()
    shell(f"{GIT} checkout -q main", site.root)
    for folder in ("public", ".assetd"):
        shutil.rmtree(site.root / folder)
    with site.daemon() as daemon:
        assert site.outputs() == {"always.txt": b"main"}
        began = time.monotonic()
        shell(f"{GIT} checkout -q many", site.root)
        written = time.monotonic()
        assert daemon.sync(60 + CHECKOUT / 100) == []
        seconds = time.monotonic() - written
        assert site.outputs() == expected
        print(
            f"{CHECKOUT:,} files: git took {written - began:.1f} s, we {seconds:.1f} s after it; "
            f"a full build {cold:.1f} s: {seconds / cold:.2f} times; "
            f"{daemon.status()['watch']['overflows']} overflows"
        )
        if CHECKOUT >= 100_000:
            assert seconds < 1.3 * cold


# -- limits -----------------------------------------------------------------------------------


@needs_limits
def test_folders_that_cannot_be_watched_are_scanned(site: Site) -> None:
    """No silent deafness: the status counts them, and what is in them is built all the same."""
    for number in range(12):
        site.write(f"assets/{number}/x.txt", f"{number}")
    with site.daemon(through=in_a_namespace("watches=6")) as daemon:
        assert daemon.status()["watch"]["unwatched"] > 0
        assert "folders_unwatched" in daemon.log
        site.write("assets/11/y.txt", "nobody syncs")
        site.write("assets/0/y.txt", "nobody syncs")
        wait_for(lambda: site.output("11/y.txt") and site.output("0/y.txt"), "the scan", 10.0)
        for number in range(12):
            site.write(f"assets/{number}/x.txt", f"{number} edited")
        daemon.sync()
        assert_clean(site)
        for number in range(12):
            site.remove(f"assets/{number}")
        site.write("assets/new/z.txt", "enough watches now")
        daemon.sync()
        assert_clean(site)
        wait_for(lambda: daemon.status()["watch"]["unwatched"] == 0, "all to be watched", 10.0)


@needs_limits
def test_what_changes_just_before_a_folder_can_be_watched_is_found(site: Site) -> None:
    """Between the last look and the watch nobody heard of it: one more look follows."""
    for number in range(12):
        site.write(f"assets/{number}/x.txt", f"{number}")
    more = site.root.parent / "more"
    with site.daemon(through=in_a_namespace("watches=6", later=(more, "watches=99"))) as daemon:
        site.write("assets/0/y.txt", "a poll")
        site.write("assets/11/y.txt", "a poll")
        wait_for(lambda: site.output("0/y.txt") and site.output("11/y.txt"), "a poll", 10.0)
        more.touch()
        for number in range(12):
            site.write(f"assets/{number}/x.txt", f"{number} edited")
        wait_for(lambda: daemon.status()["watch"]["unwatched"] == 0, "all to be watched", 10.0)
        expected = site.clean_build()
        wait_for(lambda: site.outputs() == expected, "the last look", 10.0)


@needs_limits
def test_a_kernel_that_gives_us_no_inotify_at_all_is_polled(site: Site) -> None:
    """It is told of, looked at again and again, and watched as soon as there is one."""
    site.write("assets/a.txt", "one")
    more = site.root.parent / "more"
    with site.daemon(through=in_a_namespace("instances=0", later=(more, "instances=9"))) as daemon:
        assert site.output("a.txt") == "one"
        assert daemon.status()["watch"]["backend"] == "polling"
        assert "Too many open files" in daemon.log
        site.write("assets/a.txt", "nobody syncs")
        wait_for(lambda: site.output("a.txt") == "nobody syncs", "the poll", 10.0)
        site.write("assets/b/c.txt", "for the proof")
        assert daemon.sync() == []
        assert_clean(site)
        more.touch()
        wait_for(lambda: daemon.status()["watch"]["backend"] == "inotify", "it to watch", 10.0)
        for text in ("heard", "of at once"):
            site.write("assets/b/c.txt", text)
            wait_for(lambda t=text: site.output("b/c.txt") == t, "the save")  # type: ignore[misc]


@pytest.mark.skipif(not can(BY_AN_OWNER), reason="this kernel gives us no user namespace")
def test_a_folder_that_may_not_be_read_is_told_of_and_read_as_soon_as_it_may(site: Site) -> None:
    """From the start, and while it runs; in a mount, and on the way to a dependency."""
    site.write("assetd.yml", PLAIN + "sass: {load_paths: [vendor]}\n")
    site.write("assets/open.txt", "open")
    site.write("assets/shut/in.txt", "one")
    site.write("assets/site.scss", "@import 'lib'; a { b: $c }")
    site.write("vendor/_lib.scss", "$c: one;")
    shut = [site.root / "assets/shut", site.root / "vendor"]
    for folder in shut:
        folder.chmod(0)
    try:
        with site.daemon(through=BY_AN_OWNER) as daemon:
            for turn in ("one", "two"):
                wait_for(lambda: daemon.status()["not_followed"], "it to say so", 10.0)
                [told] = daemon.status()["not_followed"]
                assert told["path"] == "assets/shut"
                assert "cannot be read" in told["cause"]
                assert [e["source"] for e in daemon.sync()] == ["site.scss"]
                for folder in shut:
                    folder.chmod(0o755)
                site.write("vendor/_lib.scss", f"$c: {turn};")
                site.write("assets/shut/in.txt", turn)
                wait_for(lambda t=turn: site.output("shut/in.txt") == t, "the folder", 10.0)  # type: ignore[misc]
                wait_for(lambda t=turn: t in (site.output("site.css") or ""), "the partial", 10.0)  # type: ignore[misc]
                wait_for(lambda: daemon.status()["not_followed"] == [], "the end of it", 10.0)
                site.write("assets/shut/in.txt", "heard of as before")
                wait_for(lambda: "heard" in (site.output("shut/in.txt") or ""), "a save")
                assert_clean(site)
                for folder in shut:
                    folder.chmod(0)
    finally:
        for folder in shut:
            folder.chmod(0o755)


@pytest.mark.skipif(not can(BY_AN_OWNER), reason="this kernel gives us no user namespace")
def test_a_file_that_may_not_be_read_fails_and_heals(site: Site) -> None:
    """A chmod makes an event like any other."""
    path = site.write("assets/a.txt", "a")
    path.chmod(0)
    with site.daemon(through=BY_AN_OWNER) as daemon:
        [error] = daemon.status()["errors"]
        assert error["source"] == "a.txt"
        path.chmod(0o644)
        wait_for(lambda: site.output("a.txt") == "a", "the file")
        path.chmod(0)
        path.chmod(0o600)
        path.write_text("b")
        wait_for(lambda: site.output("a.txt") == "b", "the file")
        assert daemon.sync() == []


# -- roots ------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["deleted", "renamed"])
def test_a_mount_that_goes_and_comes_again_is_heard_of(site: Site, how: str) -> None:
    """Nobody asks: its outputs go with it, and come again."""
    site.write("assets/sub/a.txt", "one")
    with site.daemon():
        for turn in range(2):
            if how == "deleted":
                site.remove("assets")
            else:
                (site.root / "assets").rename(site.root / f"away{turn}")
            wait_for(lambda: site.outputs() == {}, "the outputs to go")
            for text in (f"two {turn}", f"three {turn}"):
                site.write("assets/sub/a.txt", text)
                wait_for(lambda t=text: site.output("sub/a.txt") == t, "the save")  # type: ignore[misc]


@pytest.mark.parametrize("how", ["deleted", "renamed"])
def test_a_project_whose_folder_goes_and_comes_again_is_built_in_the_new_one(
    site: Site, how: str
) -> None:
    """Everything went with it, the record and the output root too; whoever comes back saves."""
    site.write("assets/a.txt", "one")
    with site.daemon() as daemon:
        assert site.output("a.txt") == "one"
        if how == "deleted":
            shutil.rmtree(site.root)
        else:
            site.root.rename(site.root.with_name("away"))
        wait_for(lambda: "project_gone" in daemon.log, "it to notice")
        site.root.mkdir()
        site.write("assets/a.txt", "two")
        site.write("assets/b/c.txt", "new")
        site.write("assetd.yml", PLAIN)
        expected = {"a.txt": b"two", "b/c.txt": b"new"}
        wait_for(lambda: site.outputs() == expected, f"the new one: {daemon.log}", 15.0)
        site.write("assets/b/c.txt", "heard of")
        wait_for(lambda: site.output("b/c.txt") == "heard of", "a save")
        assert daemon.process.poll() is None


# -- a reader that dies -----------------------------------------------------------------------

KILLER = """
import ctypes, os, threading, time
from assetd.processor import Processor, same_name, suffix

def kill_readers(project):
    while True:
        if os.path.exists(project / "kill") or os.path.exists(project / "kill-always"):
            for thread in threading.enumerate():
                if type(thread).__mro__[1].__name__ == "InotifyFD":
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(
                        ctypes.c_ulong(thread.ident), ctypes.py_object(MemoryError))
            if os.path.exists(project / "kill"):
                os.unlink(project / "kill")
        time.sleep(0.01)

def start(context):
    if context.role == "main":
        threading.Thread(target=kill_readers, args=(context.project,), daemon=True).start()

killer = Processor(name="killer", version="1", matches=suffix(".none"), outputs=same_name,
                   process=lambda step: None, start=start)
"""


@pytest.fixture
def fragile(site: Site) -> Site:
    """A project whose observer thread dies when there is a file `kill`."""
    site.write("assetd.yml", PLAIN + "plugins: [killer.py]\n")
    site.write("killer.py", KILLER)
    site.write("assets/a.txt", "a")
    return site


def test_a_reader_that_dies_is_started_again_by_itself(fragile: Site) -> None:
    """Nobody asks anything, and nobody touches a file again after the thread has gone."""
    site = fragile
    with site.daemon() as daemon:
        for turn in range(2):
            site.write("kill")
            wait_for(lambda: not (site.root / "kill").exists(), "the shot")
            # The thread falls over the next event: this edit's is lost with it.
            site.write("assets/a.txt", f"edit {turn}")
            wait_for(lambda t=turn: site.output("a.txt") == f"edit {t}", "the edit", 15.0)  # type: ignore[misc]
            wait_for(lambda t=turn: daemon.log.count("watcher_died") > t, "it to say so")  # type: ignore[misc]
            site.write("assets/a.txt", f"next {turn}")
            wait_for(lambda t=turn: site.output("a.txt") == f"next {t}", "the next edit", 15.0)  # type: ignore[misc]
        assert daemon.sync() == []
        assert "MemoryError" in daemon.log
        assert daemon.status()["watch"]["rescans"] >= 2


def test_a_reader_that_dies_again_and_again_is_started_less_and_less_often(fragile: Site) -> None:
    """It is looked at all the same, and `sync` holds."""
    site = fragile
    with site.daemon() as daemon:
        site.write("kill-always")
        began = time.monotonic()
        for turn in range(40):
            site.write("assets/a.txt", f"edit {turn}")
            assert daemon.sync() == []
            assert site.output("a.txt") == f"edit {turn}"
        site.write("assets/a.txt", "nobody asks")
        wait_for(lambda: site.output("a.txt") == "nobody asks", "the scan", 15.0)
        lived = time.monotonic() - began
        deaths = len(re.findall("watcher_died", daemon.log))
        assert 1 <= deaths <= 5 + lived / 2
        site.remove("kill-always")
        wait_for(lambda: daemon.status()["watch"]["backend"] == "inotify", "it to watch", 20.0)
        site.write("assets/a.txt", "heard")
        wait_for(lambda: site.output("a.txt") == "heard", "the save")
