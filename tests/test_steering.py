"""Steering a daemon that runs, and being told what it does: real processes, every exit code."""

import contextlib
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from assetd.testing import DEADLINE_SECONDS, Daemon, Site, wait_for

ASSETD: Final = (sys.executable, "-P", "-m", "assetd")
CONFIG: Final = "mounts: [assets]\nworkers: 1\n"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A style sheet with a partial, and a plain file."""
    (tmp_path / "site").mkdir()
    site = Site(tmp_path / "site", CONFIG)
    site.write("assets/css/_ink.scss", "$ink: navy;\n")
    site.write("assets/css/site.scss", "@import 'ink';\nbody { color: $ink; }\n")
    site.write("assets/robots.txt", "User-agent: *\n")
    return site


@pytest.fixture
def daemon(site: Site) -> Iterator[Daemon]:
    with site.daemon() as found:
        yield found


def facts(site: Site, *arguments: str, code: int = 0) -> Any:
    """What a command prints with `--json`."""
    done = site.run(*arguments, "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


# -- rebuild ------------------------------------------------------------------------------


def test_rebuild_builds_again_what_it_is_given_and_no_more(site: Site, daemon: Daemon) -> None:
    """By source, by output, or everything; also where all is up to date."""
    assert facts(site, "rebuild", "assets/robots.txt")["batch"]["built"] == 1
    assert facts(site, "rebuild", "public/css/site.css")["batch"]["built"] == 1
    assert facts(site, "rebuild")["batch"]["built"] == 2
    done = site.run("rebuild", "assets")
    assert done.returncode == 0
    assert "2 built" in done.stderr


def test_rebuild_tells_failures_and_unknown_names_apart(site: Site, daemon: Daemon) -> None:
    """1 for what fails to build, 2 for what is nothing."""
    site.write("assets/css/site.scss", "body { color: $nope; }\n")
    done = site.run("rebuild", "assets/css/site.scss")
    assert done.returncode == 1
    assert "assets/css/site.scss:1:15" in done.stderr
    done = site.run("rebuild", "assets/nothing")
    assert done.returncode == 2
    assert "assets/nothing is no source" in done.stderr


# -- pause and resume ---------------------------------------------------------------------


def test_a_paused_daemon_notes_changes_and_builds_nothing(site: Site, daemon: Daemon) -> None:
    """`sync` says what it waits for, `build` is refused, and `resume` catches up."""
    assert facts(site, "pause")["state"] == "paused"
    site.write("assets/robots.txt", "later\n")
    wait_for(lambda: daemon.status()["queue"]["suspects"], "the change to be noted")
    status = site.run("status")
    assert "assetd is paused" in status.stdout
    assert "`assetd resume`" in status.stdout
    sync = site.run("sync", "--timeout", "1s")
    assert sync.returncode == 124
    assert "assetd is paused: waiting until somebody says `assetd resume`" in sync.stderr
    build = site.run("build")
    assert build.returncode == 1
    assert "`assetd resume`" in build.stderr
    assert site.output("robots.txt") == "User-agent: *\n"
    resumed = site.run("resume")
    assert (resumed.returncode, resumed.stderr) == (0, "assetd goes on\n")
    assert daemon.sync() == []
    assert site.output("robots.txt") == "later\n"


def test_a_pause_counts_for_no_save_s_latency(site: Site, daemon: Daemon) -> None:
    """A rebase that took ten minutes made the slowest save take ten minutes."""
    site.run("pause", check=True)
    site.write("assets/robots.txt", "later\n")
    wait_for(lambda: daemon.status()["queue"]["suspects"], "the change to be noted")
    paused = time.monotonic()
    assert site.run("sync", "--timeout", "1s").returncode == 124
    site.run("resume", check=True)
    assert daemon.sync() == []
    latency = facts(site, "status")["latency_ms"]
    assert latency["samples"] == 1
    assert latency["p99"] < 1000 * (time.monotonic() - paused - 1.0)


def test_a_daemon_that_is_paused_ends_all_the_same(site: Site, daemon: Daemon) -> None:
    """And the next one is not paused, and builds what was left."""
    site.run("pause", check=True)
    site.write("assets/robots.txt", "later\n")
    assert site.run("stop").returncode == 0
    with site.daemon() as second:
        assert second.sync() == []
        assert site.output("robots.txt") == "later\n"


# -- reload and restart -------------------------------------------------------------------


def test_reload_says_whether_the_configuration_is_in_force(site: Site, daemon: Daemon) -> None:
    """0 and the new one, or 2, the mistake with its line, and the old one."""
    before = daemon.status()["workers"][0]["generation"]
    site.write("assetd.yml", CONFIG + "sass: {style: compressed}\n")
    told = facts(site, "reload")
    assert told["config_errors"] == []
    assert told["generation"] == before + 1
    daemon.sync()
    assert site.output("css/site.css") == "body{color:navy}\n"
    site.write("assetd.yml", CONFIG + "sass: {stile: compressed}\n")
    refused = site.run("reload")
    assert refused.returncode == 2
    assert "assetd.yml:3" in refused.stderr
    assert 'did you mean "style"?' in refused.stderr
    assert "stays in force" in refused.stderr
    assert "assetd.yml:3" in facts(site, "reload", code=2)["config_errors"][0]


def test_restart_replaces_the_daemon(site: Site) -> None:
    """Or starts one where none runs."""
    try:
        assert site.run("restart").returncode == 0
        first = facts(site, "status")["pid"]
        assert site.run("restart").returncode == 0
        assert facts(site, "status")["pid"] != first
        site.write("assetd.yml", CONFIG + "nonsense: 1\n")
        second = facts(site, "status")["pid"]
        refused = site.run("restart")
        assert refused.returncode == 2
        assert "assetd.yml:3" in refused.stderr
        assert facts(site, "status")["pid"] == second
    finally:
        site.run("stop")


def test_a_daemon_is_found_whatever_the_environment_says(site: Site, tmp_path: Path) -> None:
    """The lock file says where it listens: a service's runtime folder is not ours."""
    (tmp_path / "run").mkdir()
    with site.daemon() as daemon:
        for folder in (str(tmp_path / "run"), str(tmp_path / "nowhere"), ""):
            done = site.run("status", "--json", XDG_RUNTIME_DIR=folder)
            assert json.loads(done.stdout)["pid"] == daemon.process.pid


def test_a_copy_of_a_project_has_no_daemon(site: Site, daemon: Daemon, tmp_path: Path) -> None:
    """Its lock file names that of the original, which builds other sources."""
    shutil.copytree(site.root, tmp_path / "copy", ignore=shutil.ignore_patterns("*.sock"))
    done = subprocess.run(
        [*ASSETD, "status", "--json"], cwd=tmp_path / "copy", capture_output=True, check=False
    )
    assert done.returncode == 3
    assert json.loads(done.stdout)["state"] == "stopped"


def test_what_comes_while_a_daemon_starts_waits_for_it(site: Site) -> None:
    """Its lock is taken before its socket is there: that is no other daemon, and not none."""
    site.write(
        "plugin.py",
        "import os, time\n"
        "from assetd.processor import Processor, same_name, suffix\n"
        "open('begun', 'w').close()\n"
        "def start(context):\n"
        "    while context.worker is None and not os.path.exists('go'):\n"
        "        time.sleep(0.01)\n"
        "slow = Processor(name='slow', version='1', matches=suffix('.slow'), outputs=same_name,\n"
        "    process=lambda step: step.copy(), start=start)\n",
    )
    site.write("assetd.yml", CONFIG + "plugins: [plugin.py]\nsandbox: off\n")
    with site.daemon(ready=False) as daemon:
        lock = site.root / ".assetd" / "lock"
        mine = f"{daemon.process.pid}\n"
        wait_for(lambda: lock.exists() and lock.read_text().startswith(mine), "the lock")
        try:
            status = facts(site, "status")
            assert (status["state"], status["pid"]) == ("starting", daemon.process.pid)
            build = subprocess.Popen([*ASSETD, "build"], cwd=site.root, stderr=subprocess.DEVNULL)
        finally:
            site.write("go")
        assert build.wait(DEADLINE_SECONDS) == 0


@pytest.mark.parametrize("command", ["rebuild", "pause", "resume", "reload", "events"])
def test_who_steers_needs_a_daemon(site: Site, command: str) -> None:
    """Exit code 3, and how to get one."""
    done = site.run(command)
    assert done.returncode == 3
    assert "`assetd start` starts one" in done.stderr


# -- events -------------------------------------------------------------------------------


@contextlib.contextmanager
def events(site: Site, *names: str) -> Iterator["subprocess.Popen[str]"]:
    """`assetd events`, subscribed: the daemon has to know it before anything happens."""
    process = subprocess.Popen(
        [*ASSETD, "events", *names], cwd=site.root, stdout=subprocess.PIPE, text=True
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def until(process: "subprocess.Popen[str]", name: str) -> list[dict[str, Any]]:
    """The events up to the first of that name."""
    assert process.stdout is not None
    found = []
    for line in process.stdout:
        found.append(json.loads(line))
        if found[-1]["event"] == name:
            break
    return found


def prod(site: Site, process: "subprocess.Popen[str]") -> None:
    """Pause and resume until an event comes: from then on it is subscribed."""
    assert process.stdout is not None

    def heard() -> bool:
        site.run("pause", check=True)
        site.run("resume", check=True)
        assert process.stdout is not None
        return bool(select.select([process.stdout], [], [], 0.2)[0])

    wait_for(heard, "the first event")


def test_events_tell_the_story_of_a_save(site: Site, daemon: Daemon) -> None:
    """One JSON object a line, as it happens: what was built, why, and the batch."""
    with events(site) as process:
        prod(site, process)
        site.write("assets/css/_ink.scss", "$ink: teal;\n")
        story = until(process, "batch")
        (built,) = [each for each in story if each["event"] == "built"]
        assert built["source"] == "assets/css/site.scss"
        assert built["reason"]["cause"] == "dependency-changed"
        assert built["reason"]["about"] == "assets/css/_ink.scss"
        assert story[-1]["batch"]["built"] == 1
        assert all(each["level"] == "info" and each["at"].endswith("Z") for each in story)
        site.write("assets/css/_ink.scss", "$ink: $nope;\n")
        failed = until(process, "failed")[-1]
        assert failed["level"] == "error"
        assert "assets/css/_ink.scss:1" in failed["message"]


def test_events_may_be_chosen_by_name(site: Site, daemon: Daemon) -> None:
    """Nothing else comes through."""
    with events(site, "batch", "state") as process:
        prod(site, process)
        site.write("assets/robots.txt", "new\n")
        assert {each["event"] for each in until(process, "batch")} == {"state", "batch"}


def test_events_end_with_the_daemon_or_when_interrupted(site: Site) -> None:
    """3 where the daemon has gone, 130 after Ctrl-C."""
    with site.daemon(), events(site, "state") as first, events(site, "state") as second:
        prod(site, first)
        prod(site, second)
        first.send_signal(signal.SIGINT)
        assert first.wait(DEADLINE_SECONDS) == 130
        site.run("stop", check=True)
        assert second.wait(DEADLINE_SECONDS) == 3


# -- status --watch -----------------------------------------------------------------------


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, site: Site, *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        kept = {k: v for k, v in os.environ.items() if k not in {"NO_COLOR", "FORCE_COLOR"}}
        self.process = subprocess.Popen(
            [*ASSETD, *arguments],
            cwd=site.root,
            env={**kept, "LINES": "30", "COLUMNS": "100"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self.shown = b""

    def see(self, text: str) -> str:
        """Wait until the last screen has *text*, and give that screen."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            screen = self.shown.rpartition(b"\x1b[H")[2].decode(errors="replace")
            if text in screen and screen.endswith("\x1b[J"):
                return screen
            assert time.monotonic() < deadline, f"no {text!r} in {screen}"
            if select.select([self._ours], [], [], 0.1)[0]:
                self.shown += os.read(self._ours, 1 << 16)

    def type(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)


@pytest.fixture
def watching(site: Site) -> Iterator[Terminal]:
    with site.daemon():
        terminal = Terminal(site, "status", "--watch")
        try:
            yield terminal
        finally:
            terminal.close()


def test_status_watch_keeps_the_status_on_the_screen(site: Site, watching: Terminal) -> None:
    """State, queue, workers, batches with their reasons, errors; `q` puts the screen back."""
    watching.see("idle")
    site.write("assets/css/_ink.scss", "$ink: teal;\n")
    screen = watching.see("_ink.scss changed")
    for told in ("sources", "queue", "saves", "workers", "batches", "1 built in"):
        assert told in screen
    site.write("assets/css/_ink.scss", "$ink: $nope;\n")
    watching.see("Undefined variable")
    watching.type(b"q")
    assert watching.process.wait(DEADLINE_SECONDS) == 0
    wait_for(lambda: select.select([watching._ours], [], [], 0)[0])
    watching.shown += os.read(watching._ours, 1 << 16)
    assert watching.shown.endswith(b"\x1b[?25h\x1b[?1049l")


def test_status_watch_outlives_the_daemon(site: Site, watching: Terminal) -> None:
    """It says that it has gone, and goes on with the next one; Ctrl-C ends with 130."""
    watching.see("idle")
    site.run("stop", check=True)
    watching.see("gone")
    with site.daemon():
        watching.see("idle")
        watching.process.send_signal(signal.SIGINT)
        assert watching.process.wait(DEADLINE_SECONDS) == 130


def test_status_watch_is_for_people(site: Site, daemon: Daemon) -> None:
    """Without a terminal, or with --json, it says what scripts use."""
    for arguments in (["--watch"], ["--watch", "--json"]):
        done = site.run("status", *arguments)
        assert done.returncode == 2
        assert "`assetd events`" in done.stderr


def test_status_watch_without_a_daemon_ends_with_3(site: Site) -> None:
    """There is nothing to be watched."""
    terminal = Terminal(site, "status", "--watch")
    try:
        assert terminal.process.wait(DEADLINE_SECONDS) == 3
    finally:
        terminal.close()
