"""`assetd doctor`: what is wrong around a project, each with its cure."""

import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from assetd import __version__, config, doctor
from assetd.record import Record
from assetd.testing import Site

ASSETD: Final = (sys.executable, "-P", "-m", "assetd")
POWERLESS: Final = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all")
"""Root without its right to read and write what it may not."""
CHECKS: Final = [
    *("versions", "config", "tools", "daemon", "record", "watches", "watchers", "events"),
    *("file systems", "space", "staging", "permissions", "links", "clock", "open files"),
]
TOOL_PLUGIN: Final = """
from assetd.processor import FIRST, Processor, Tool, same_name, suffix

lace = Processor(
    name="lace", version="1", matches=suffix(".lace"), outputs=same_name,
    process=lambda step: step.copy(), priority=FIRST,
    tool=lambda setting: Tool("bobbin", None, "pip install bobbin"),
)
"""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="taking a right away from root takes root")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A project with two sources."""
    (tmp_path / "site").mkdir(mode=0o755)
    site = Site(tmp_path / "site", "mounts: [assets]\nworkers: 1\n")
    site.write("assets/css/site.css", "body {}\n")
    site.write("assets/robots.txt", "User-agent: *\n")
    return site


def examined(site: Site, *before: str, code: int = 0) -> Any:
    """What `doctor --json` prints, run behind the words *before*."""
    done = subprocess.run(
        [*before, *ASSETD, "doctor", "--json"],
        cwd=site.root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert done.stdout.count("\n") == 1
    return json.loads(done.stdout)


def found(answer: Any, check: str) -> list[dict[str, Any]]:
    """The findings of one check, without those that are fine."""
    return [f for f in answer["findings"] if f["check"] == check and f["level"] != "ok"]


def the(answer: Any, check: str, level: str) -> dict[str, Any]:
    """The one finding of a check, which has to have a cure or be a mere note."""
    [finding] = found(answer, check)
    assert finding["level"] == level
    assert finding["cure"] or level == "note"
    return finding


def in_namespace(script: str) -> tuple[str, ...]:
    """Words to run a command behind *script*, as root of namespaces of its own."""
    return ("unshare", "-Urm", "sh", "-ec", f'{script}; exec "$@"', "sh")


def can(script: str) -> bool:
    return (
        subprocess.run([*in_namespace(script), "true"], check=False, capture_output=True).returncode
        == 0
    )


# -- what it says -------------------------------------------------------------------------


def test_a_sound_project_has_a_line_for_each_check(site: Site) -> None:
    """Exit code 0; aligned, without colour, messages under each other."""
    site.run("build", check=True)
    done = site.run("doctor")
    assert done.returncode == 0, done.stdout
    lines = [line for line in done.stdout.splitlines() if "→" not in line]
    assert [line[9:22].strip() for line in lines] == CHECKS
    assert all(line[21:23] == "  " and line[23] != " " for line in lines)
    assert "\x1b" not in done.stdout
    assert f"assetd {__version__}, python 3." in lines[0]
    assert "it is sound, and knows of 2 outputs" in done.stdout


def test_doctor_tells_scripts_the_numbers_too(site: Site) -> None:
    """Keys are only ever added."""
    answer = examined(site)
    assert answer["schema"] == 1
    assert [finding["check"] for finding in answer["findings"]] == CHECKS
    for finding in answer["findings"]:
        assert finding.keys() == {"check", "level", "message", "cure"}
        assert finding["level"] in {"ok", "note", "warning"}
    assert answer["files"] == 2
    assert answer["daemon"] is None
    assert answer["watches"]["allowed"] > answer["watches"]["needed"] > 2
    assert answer["versions"]["assetd"] == __version__
    assert answer["versions"]["watchdog"].startswith("7.1")


def test_doctor_leaves_no_trace(site: Site) -> None:
    """It only looks: not even a state folder is made."""
    examined(site)
    assert sorted(os.listdir(site.root)) == ["assetd.yml", "assets"]


def test_levels_are_coloured_where_colours_are_wanted(site: Site) -> None:
    """And readable where they are not."""
    done = site.run("doctor", FORCE_COLOR="1", NO_COLOR="")
    assert done.stdout.startswith("\x1b[32mok     \x1b[0m  versions")


def test_without_a_project_there_is_nothing_to_examine(tmp_path: Path) -> None:
    """Exit code 2, and how to begin; as for wrong usage."""
    done = subprocess.run(
        [*ASSETD, "doctor"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "`assetd init` writes one" in done.stderr
    assert Site(tmp_path).run("doctor", "--now").returncode == 2


# -- configuration and tools --------------------------------------------------------------


def test_every_mistake_in_the_configuration_is_named_and_the_rest_examined(site: Site) -> None:
    """Exit code 1; the sources are walked all the same."""
    site.write("assetd.yml", "mounts: [assets, gone]\nworkes: 1\nstore: much\n")
    answer = examined(site, code=1)
    messages = [finding["message"] for finding in found(answer, "config")]
    assert len(messages) == 3
    assert "assetd.yml:1:" in messages[0]
    assert 'unknown key "workes"' in messages[1]
    assert answer["files"] == 2
    assert {finding["check"] for finding in answer["findings"]} >= {"space", "watches", "clock"}


def test_a_configuration_that_is_no_yaml_stops_nothing_else(site: Site) -> None:
    """Disks, limits and versions are what they are."""
    site.write("assetd.yml", "mounts: [assets\n")
    answer = examined(site, code=1)
    assert "assetd.yml:" in the(answer, "config", "problem")["message"]
    assert {finding["check"] for finding in answer["findings"]} >= {"space", "watches", "clock"}


def test_a_missing_tool_is_a_problem_where_a_source_needs_it(site: Site) -> None:
    """Else it is good to know, no more."""
    site.write("lace.py", TOOL_PLUGIN)
    site.write("assetd.yml", "mounts: [assets]\nplugins: [lace.py]\n")
    note = the(examined(site), "tools", "note")
    assert note["message"] == "lace needs bobbin, which is not there; no source asks for it"
    assert note["cure"] == "pip install bobbin"
    site.write("assets/doily.lace", "")
    problem = the(examined(site, code=1), "tools", "problem")
    assert problem["message"].endswith("assets/doily.lace cannot be built")


# -- limits -------------------------------------------------------------------------------


@pytest.mark.skipif(
    not can("echo 100 > /proc/sys/user/max_inotify_watches"),
    reason="this kernel gives us no user namespace",
)
def test_too_few_watches_come_with_the_line_to_paste(site: Site) -> None:
    """For now and for good, with the key that sets the limit here."""
    before = in_namespace("echo 3 > /proc/sys/user/max_inotify_watches")
    finding = the(examined(site, *before, code=1), "watches", "problem")
    assert re.match(r"\d+ needed, \d+ held, 3 allowed$", finding["message"])
    runtime, for_good, instead = finding["cure"].splitlines()
    assert runtime == "sudo sysctl user.max_inotify_watches=524288"
    assert for_good.startswith("echo user.max_inotify_watches=524288 | sudo tee /etc/sysctl.d/")
    assert "backend: polling" in instead
    site.write("assetd.yml", "mounts: [assets]\nwatch: {backend: polling}\n")
    assert not found(examined(site, *before), "watches")


@pytest.mark.skipif(
    not can("echo 0 > /proc/sys/user/max_inotify_instances"),
    reason="this kernel gives us no user namespace",
)
def test_too_few_inotify_instances_are_a_problem(site: Site) -> None:
    """A daemon takes one."""
    before = in_namespace("echo 0 > /proc/sys/user/max_inotify_instances")
    finding = the(examined(site, *before, code=1), "watchers", "problem")
    assert "sudo sysctl user.max_inotify_instances=512" in finding["cure"]


def test_what_a_running_daemon_holds_is_counted(site: Site) -> None:
    """Its watches are needed once, and are found in /proc."""
    with site.daemon() as daemon:
        answer = examined(site)
        directories = daemon.status()["watch"]["directories"]
    assert answer["watches"]["held"] >= directories
    assert answer["watches"]["instances_held"] >= 1
    assert abs(answer["watches"]["needed"] - directories) <= 2


def test_a_small_queue_of_events_deserves_a_warning(site: Site) -> None:
    """It is machine-wide, so the kernel's is judged here and not set."""
    loaded, _ = config.read(str(site.root / "assetd.yml"))
    limits = doctor.Limits(10_000, 128, 512, "fs.inotify.max_user_watches", "")
    judged = doctor.judge_watches(loaded, 5, None, limits, doctor.Held(0, 0))
    [finding] = [each for each in judged if each.level is not doctor.Level.OK]
    assert finding.level is doctor.Level.WARNING
    assert "sudo sysctl fs.inotify.max_queued_events=16384" in str(finding.cure)


@pytest.mark.parametrize(("limit", "level", "code"), [(500, "warning", 0), (100, "problem", 1)])
def test_few_open_files_are_told(site: Site, limit: int, level: str, code: int) -> None:
    """Few hinder clients, very few the daemon itself."""
    before = ("sh", "-ec", f'ulimit -n {limit}; exec "$@"', "sh")
    assert "LimitNOFILE=" in the(examined(site, *before, code=code), "open files", level)["cure"]


# -- disks --------------------------------------------------------------------------------


@pytest.mark.skipif(
    not can("mount -t tmpfs tmpfs /mnt"), reason="this kernel gives us no mount namespace"
)
def test_a_disk_that_is_nearly_full_is_told(site: Site) -> None:
    """Bytes and inodes; a state folder of its own is staged elsewhere, and tmpfs forgets."""
    (site.root / ".assetd").mkdir(mode=0o700)
    (site.root / "public").mkdir()
    answer = examined(
        site, *in_namespace("mount -t tmpfs -o size=8m,mode=700 tmpfs .assetd"), code=1
    )
    assert "8.0 MiB" in the(answer, "space", "problem")["message"]
    assert "two file systems" in the(answer, "staging", "note")["message"]
    assert "state_dir is on tmpfs" in the(answer, "file systems", "note")["message"]
    answer = examined(
        site, *in_namespace("mount -t tmpfs -o size=512m,nr_inodes=5000 tmpfs public")
    )
    assert "inodes left" in the(answer, "space", "warning")["message"]


@pytest.mark.parametrize("kind", ["nfs4", "9p", "vboxsf", "fuse.sshfs", "overlay"])
def test_sources_on_a_disk_that_others_write_want_polling(site: Site, kind: str) -> None:
    """The kernel tells of its own writes only; who polls already needs no advice."""
    loaded, _ = config.read(str(site.root / "assetd.yml"))
    mounts = (
        "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        f"45 21 0:40 / /srv/the\\040site rw,relatime shared:5 - {kind} there rw\n"
    )
    there = doctor.file_system("/srv/the site/assets", mounts)
    here = doctor.file_system("/srv/the site-2", mounts)
    assert (there.kind, here.kind) == (kind, "ext4")
    kinds = dict.fromkeys(("project", "out_dir", "state_dir"), here)
    [finding] = doctor.judge_file_systems(loaded, kinds, {"assets": there})
    assert finding.level in {doctor.Level.WARNING, doctor.Level.NOTE}
    assert "watch: {backend: polling}" in str(finding.cure)
    polling = replace(loaded, watch=config.Watch(backend="polling"))
    [finding] = doctor.judge_file_systems(polling, kinds, {"assets": there})
    assert finding.level is doctor.Level.OK


def test_a_record_on_a_network_file_system_is_a_problem(site: Site) -> None:
    """SQLite's WAL needs memory that all its users share."""
    loaded, _ = config.read(str(site.root / "assetd.yml"))
    local, nfs = doctor.FileSystem("ext4", "1"), doctor.FileSystem("nfs4", "2")
    kinds = {"project": local, "out_dir": local, "state_dir": nfs}
    [finding] = doctor.judge_file_systems(loaded, kinds, {"assets": local})
    assert finding.level is doctor.Level.PROBLEM
    assert "state_dir" in str(finding.cure)


# -- permissions, links, clock ------------------------------------------------------------


def test_a_state_folder_that_others_may_look_into_deserves_a_warning(site: Site) -> None:
    """It holds copies of everything."""
    (site.root / ".assetd").mkdir()
    (site.root / ".assetd").chmod(0o755)
    cure = the(examined(site), "permissions", "warning")["cure"]
    assert cure == f"chmod 700 {site.root}/.assetd"


@as_root
@pytest.mark.parametrize("path", ["assets/robots.txt", "assets/css"])
def test_sources_that_cannot_be_read_are_a_problem(site: Site, path: str) -> None:
    """Files and folders, with the first one's name."""
    (site.root / path).chmod(0)
    finding = the(examined(site, *POWERLESS, code=1), "permissions", "problem")
    assert f"cannot be read: {path}" in finding["message"]
    (site.root / path).chmod(0o755)


@as_root
def test_an_output_folder_that_cannot_be_written_is_a_problem(site: Site) -> None:
    """Nothing could be put in place."""
    (site.root / "public").mkdir()
    (site.root / "public").chmod(0o555)
    finding = the(examined(site, *POWERLESS, code=1), "permissions", "problem")
    assert finding["message"] == f"{site.root}/public cannot be written"


def test_links_to_folders_are_not_followed_and_named(site: Site) -> None:
    """They could lead in circles, or out."""
    (site.root / "assets/out").symlink_to("/usr/share")
    finding = the(examined(site), "links", "note")
    assert "1 link not followed: assets/out" in finding["message"]


def test_files_from_the_future_deserve_a_warning(site: Site) -> None:
    """Their names cannot write on the terminal."""
    name = site.write("assets/a\x1b[31m.txt", "")
    os.utime(name, (time.time() + 86_400,) * 2)
    assert "1 file among" in the(examined(site), "clock", "warning")["message"]
    shown = site.run("doctor").stdout
    assert "assets/a\\x1b[31m.txt" in shown
    assert "\x1b" not in shown


def test_a_clock_that_was_never_set_is_a_problem() -> None:
    """As on a machine whose battery is flat."""
    [finding] = doctor.judge_clock(doctor.Sources(), 1_000_000.0)
    assert finding.level is doctor.Level.PROBLEM
    assert "1970" in finding.message


# -- daemon and record --------------------------------------------------------------------


def test_a_daemon_that_is_well_is_named(site: Site) -> None:
    """With its number, and what it is at."""
    with site.daemon() as daemon:
        answer = examined(site)
    assert answer["daemon"] == {"pid": daemon.process.pid, "answers": True}
    assert not found(answer, "daemon")
    assert f"pid {daemon.process.pid} is idle" in str(answer["findings"])


def test_a_daemon_that_hangs_is_a_problem(site: Site) -> None:
    """It holds the project and answers nobody: exit code 1, and how to end it."""
    with site.daemon() as daemon:
        daemon.process.send_signal(signal.SIGSTOP)
        try:
            finding = the(examined(site, code=1), "daemon", "problem")
        finally:
            daemon.process.send_signal(signal.SIGCONT)
    assert f"kill -9 {daemon.process.pid}" in finding["cure"]


def test_a_daemon_of_another_version_deserves_a_warning() -> None:
    """It goes on with its own code until it is started again."""
    old = doctor.Daemon(4711, listens=True, status={"version": "0.0.1"})
    [finding] = doctor.judge_daemon(old)
    assert finding.level is doctor.Level.WARNING
    assert "assetd 0.0.1" in finding.message


def test_a_damaged_record_is_a_problem(site: Site) -> None:
    """A build mends it, as the cure says."""
    site.run("build", check=True)
    (site.root / ".assetd/record.sqlite").write_bytes(b"no database at all" * 300)
    cure = the(examined(site, code=1), "record", "problem")["cure"]
    site.run(*cure.split("#")[0].split()[1:], check=True)
    assert not found(examined(site), "record")


def test_a_record_of_a_newer_assetd_is_a_problem(site: Site) -> None:
    """We would not open it either."""
    site.run("build", check=True)
    with contextlib.closing(sqlite3.connect(site.root / ".assetd/record.sqlite")) as db:
        db.execute("PRAGMA user_version = 99")
        db.execute("UPDATE meta SET value = '99' WHERE key = 'schema'")
        db.commit()
    [finding] = found(examined(site, code=1), "record")
    assert "made by a newer assetd" in finding["message"]


def test_a_clock_behind_the_record_deserves_a_warning(site: Site) -> None:
    """Its latest batch has not happened yet."""
    site.run("build", check=True)
    with contextlib.closing(Record(str(site.root / ".assetd/record.sqlite"))) as record:
        (last,) = record.last_batches(1)
        record.finish_batch(last._replace(finished_at=time.time() + 7200))
    assert "the clock has been set back" in the(examined(site), "record", "warning")["message"]
