"""The log tells the story of a save, whole, and not more of it than somebody can read."""

import contextlib
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from assetd import commands_tell, logfile
from assetd.log import LINES_PER_WINDOW, Throttle
from assetd.service import Scope
from assetd.testing import Site, wait_for

ASSETD: Final = (sys.executable, "-P", "-m", "assetd")
CONFIG: Final = "mounts: [assets]\nworkers: 1\n"

WRITER: Final = """
import sys
from assetd import logfile
lines = logfile.Lines(sys.argv[1], limit_bytes=int(sys.argv[2]))
for number in range(int(sys.argv[3])):
    lines.write(b"%06d " % number + b"x" * (number % 50) + b" end")
    if number % 100 == 0:
        print("python says", number, file=sys.stderr, flush=True)
"""
"""Writes numbered lines as a daemon does, and now and then as a library does."""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    (tmp_path / "site").mkdir()
    site = Site(tmp_path / "site", CONFIG)
    site.write("assets/site.scss", "a { b: c }\n")
    return site


@contextlib.contextmanager
def started(site: Site, *arguments: str) -> Iterator[None]:
    """A daemon in the background, by `assetd start`."""
    site.run("start", *arguments, check=True)
    try:
        yield
    finally:
        site.run("stop")


def log_of(site: Site) -> Path:
    return site.root / ".assetd" / "log"


def told(text: str) -> list[dict[str, Any]]:
    """The events of a log that was written as JSON."""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


# -- what is written ----------------------------------------------------------------------


def test_the_story_of_a_save_reads_from_top_to_bottom(site: Site) -> None:
    """What was built and why, then the batch; each an event with its fields."""
    with site.daemon("--log-format", "json") as daemon:
        site.write("assets/site.scss", "a { b: $no }\n")
        daemon.sync()
        site.write("assets/site.scss", "a { b: d }\n")
        daemon.sync()
    lines = daemon.log.splitlines()
    events = told(daemon.log)
    assert len(events) == len(lines)
    story = [event["event"] for event in events]
    assert story == [
        *("started", "batch", "ready"),
        *("failed", "batch"),
        *("healed", "built", "batch"),
        "stopping",
    ]
    failed, built = (next(e for e in events if e["event"] == n) for n in ("failed", "built"))
    assert failed["level"] == "error"
    assert failed["source"] == built["source"] == "assets/site.scss"
    assert "Undefined variable" in failed["message"]
    assert built["reason"].startswith("its source changed")
    assert all(re.match(r"\d{4}-\d\d-\d\dT", event["timestamp"]) for event in events)


def test_a_line_names_its_event_and_then_its_fields_as_they_were_told(site: Site) -> None:
    """The source comes before the reason: sorted by name, a line reads like a form."""
    with site.daemon() as daemon:
        site.write("assets/site.scss", "a { b: d }\n")
        daemon.sync()
    (line,) = [line for line in daemon.log.splitlines() if "] built " in line]
    assert re.match(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \[info     \] built +"
        r"source=assets/site.scss ms=\S+ reason='its source changed",
        line,
    )


def journal_lines(site: Site, stream: str, stderr: int, *arguments: str) -> int:
    """Run a daemon whose environment says what its standard error is; gives its exit code."""
    with subprocess.Popen(
        [*ASSETD, "run", *arguments],
        cwd=site.root,
        env={**os.environ, "JOURNAL_STREAM": stream},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
    ) as process:
        wait_for(lambda: site.run("status").returncode == 0, "the daemon to answer")
        site.run("sync", check=True)
        process.terminate()
        return process.wait()


@pytest.mark.parametrize(
    ("style", "first"), [("auto", "<6>[info     ] started"), ("json", '<6>{"pid": ')]
)
def test_the_journal_gets_priorities(site: Site, style: str, first: str) -> None:
    """It knows the time by itself, and shows errors in red if it is told of them."""
    ours, theirs = socket.socketpair()
    found = os.fstat(theirs.fileno())
    with ours, theirs:
        stream = f"{found.st_dev}:{found.st_ino}"
        journal_lines(site, stream, theirs.fileno(), "--log-format", style)
        theirs.close()
        text = b"".join(iter(lambda: ours.recv(1 << 16), b"")).decode()
    assert text.startswith(first)
    assert "\x1b" not in text


def test_a_file_gets_none_even_where_the_variable_is_inherited(site: Site) -> None:
    """A service's child whose standard error is a file writes for people."""
    log = site.root / "own.log"
    with log.open("wb") as file:
        journal_lines(site, "8:12345", file.fileno())
    assert " started " in log.read_text()
    assert "<6>" not in log.read_text()


def test_a_storm_is_counted_and_its_errors_are_all_to_be_found(site: Site) -> None:
    """A hundred lines tell as much as ten thousand; `assetd errors` has every source."""
    broken = LINES_PER_WINDOW + 50
    for number in range(broken):
        site.write(f"assets/{number}.scss", "a {\n")
    with site.daemon("--log-format", "json") as daemon:
        errors = json.loads(site.run("errors", "--json").stdout)["errors"]
        metrics = site.run("metrics", check=True).stdout
    assert len(errors) == broken
    events = told(daemon.log)
    assert sum(event["event"] == "failed" for event in events) == LINES_PER_WINDOW
    (left_out,) = (event for event in events if event["event"] == "left_out")
    assert (left_out["of"], left_out["lines"], left_out["see"]) == ("failed", 50, "assetd errors")
    story = [event["event"] for event in events]
    assert story.index("left_out") == story.index("batch") - 1
    assert "assetd_log_lines_left_out_total 50.0" in metrics


def test_the_throttle_counts_by_event_and_by_window() -> None:
    """An event that storms silences no other; what was left out is told once."""
    throttle = Throttle(limit=2, window_seconds=10.0)
    assert [throttle.admits("a", float(now)) for now in range(5)] == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert throttle.admits("b", 5.0)
    assert list(throttle.due("b", 5.0)) == []
    assert throttle.admits("a", 10.0)
    assert list(throttle.due("a", 10.0)) == [("a", 3)]
    assert throttle.admits("a", 11.0)
    assert not throttle.admits("a", 12.0)
    assert list(throttle.due("batch", 12.0)) == [("a", 1)]
    assert list(throttle.due("batch", 13.0)) == []
    assert not throttle.admits("a", 19.0)
    assert list(throttle.due("b", 20.0)) == [("a", 1)]
    assert throttle.total == 5


# -- where it is written ------------------------------------------------------------------


def write(path: Path, limit: int, count: int) -> None:
    """Have a process write *count* lines to the log at *path*."""
    with path.open("ab") as file:
        subprocess.run(
            [sys.executable, "-P", "-c", WRITER, str(path), str(limit), str(count)],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            check=True,
        )


def test_no_line_is_lost_or_torn_at_a_rotation(tmp_path: Path) -> None:
    """Neither in the files, nor for somebody who follows them."""
    log = tmp_path / "log"
    log.touch()
    with log.open("ab") as file:
        _, fd, end = logfile.last_lines(str(log), 0)
        writer = subprocess.Popen(
            [sys.executable, "-P", "-c", WRITER, str(log), "65000", "8000"],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        )
    followed = b""
    following = logfile.follow(str(log), fd, end)
    for more in following:
        followed += more
        if b"\n007999 " in followed:
            break
    following.close()
    assert writer.wait() == 0
    numbered = [line for line in followed.splitlines() if b"python" not in line]
    assert [int(line[:6]) for line in numbered] == list(range(8000))
    assert all(line.endswith(b" end") for line in numbered)
    assert followed.count(b"python says") == 80
    names = [str(log), *(f"{log}.{number}" for number in range(1, logfile.KEPT + 1))]
    assert sorted(map(str, tmp_path.iterdir())) == names
    kept = b"".join(Path(name).read_bytes() for name in logfile.files(str(log)))
    assert followed.endswith(kept)
    assert len(kept) > 200_000


def test_a_rotation_that_is_impossible_ends_nothing(tmp_path: Path) -> None:
    """The disk is full: it goes on in the old file."""
    log = tmp_path / "log"
    (tmp_path / "log.new").mkdir()
    write(log, 1000, 100)
    assert log.read_bytes().count(b" end\n") == 100


def test_a_full_disk_tears_no_later_line(tmp_path: Path) -> None:
    """A line that was cut off is ended before the next one begins."""
    script = (
        "import resource, signal, sys\n"
        "from assetd import logfile\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "lines = logfile.Lines()\n"
        "limit = lambda n: resource.setrlimit(resource.RLIMIT_FSIZE, (n, -1))\n"
        "lines.write(b'first')\n"
        "limit(9)\n"
        "try:\n"
        "    lines.write(b'second')\n"
        "except OSError:\n"
        "    pass\n"
        "limit(-1)\n"
        "lines.write(b'third')\n"
    )
    log = tmp_path / "log"
    with log.open("ab") as file:
        subprocess.run([sys.executable, "-P", "-c", script], stderr=file, check=True)
    assert log.read_bytes() == b"first\nsec\nthird\n"


def test_the_daemon_rotates_its_log_and_all_that_it_prints_goes_along(site: Site) -> None:
    """What Python itself says when it dies comes at the end of the new file."""
    log = log_of(site)
    log.parent.mkdir()
    log.write_bytes(b"old\n" * (logfile.LIMIT_BYTES // 4))
    site.run("start", check=True)
    pid = int(re.findall(r"\d+", (site.root / ".assetd" / "lock").read_text())[0])
    first = log.with_name("log.1").read_text()
    assert first.startswith("old\n")
    assert " started " in first + log.read_text()
    for descriptor in (1, 2):
        assert os.readlink(f"/proc/{pid}/fd/{descriptor}") == os.path.realpath(log)
    os.kill(pid, signal.SIGABRT)
    wait_for(lambda: "Fatal Python error: Aborted" in log.read_text(), "Python's last words")
    shown = site.run("logs", check=True).stdout
    assert "Fatal Python error: Aborted" in shown


# -- assetd logs --------------------------------------------------------------------------


def test_logs_shows_the_last_lines_also_of_older_files(site: Site) -> None:
    """As many as were asked for, whichever file they are in, after the daemon's end too."""
    log = log_of(site)
    log.parent.mkdir()
    write(log, 5000, 400)
    assert len(logfile.files(str(log))) > 2
    everything = b"".join(Path(name).read_bytes() for name in logfile.files(str(log)))
    lines = everything.decode().splitlines(keepends=True)
    assert site.run("logs", check=True).stdout == "".join(lines[-50:])
    for count in (0, 1, 7, 150, len(lines), 100_000):
        done = site.run("logs", "-n", str(count), check=True)
        assert done.stdout == ("".join(lines[-count:]) if count else "")


def test_logs_follows_until_it_is_interrupted(site: Site) -> None:
    """Each event as it happens, over a rotation, and then 130 as for any command."""
    with started(site):
        wait_for(lambda: " ready " in log_of(site).read_text(), "the first scan")
        with subprocess.Popen(
            [*ASSETD, "logs", "-f", "-n", "1"],
            cwd=site.root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                assert process.stdout is not None
                assert " ready " in process.stdout.readline()
                site.write("assets/site.scss", "a { b: d }\n")
                assert " built " in process.stdout.readline()
                assert " batch " in process.stdout.readline()
                with log_of(site).open("ab") as file:  # so much that the next line is one too many
                    file.write(b"much\n" * (logfile.LIMIT_BYTES // 5))
                site.write("assets/site.scss", "a { b: e }\n")
                for line in process.stdout:
                    if line != "much\n":
                        break
                assert " built " in line
                assert " batch " in process.stdout.readline()
                process.send_signal(signal.SIGINT)
                assert process.wait() == 130
            finally:
                process.kill()
        assert log_of(site).with_name("log.1").exists()


def test_logs_of_a_daemon_in_the_foreground_says_where_they_are(site: Site) -> None:
    """An old log of another daemon would pass for this one's."""
    with started(site):
        pass
    with site.daemon() as daemon:
        done = site.run("logs")
        assert (done.returncode, done.stdout) == (2, "")
        where = os.path.realpath(daemon._log)
        assert (
            done.stderr == f"assetd: assetd (pid {daemon.process.pid}) writes its log to {where}\n"
        )


def test_logs_of_a_daemon_in_a_terminal_says_which(site: Site) -> None:
    """Somebody has it open in another window, in colour and with the time of day."""
    ours, theirs = pty.openpty()
    name = os.ttyname(theirs)
    process = subprocess.Popen(
        [*ASSETD, "run"],
        cwd=site.root,
        env={name: text for name, text in os.environ.items() if name != "NO_COLOR"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    try:
        wait_for(lambda: site.run("status").returncode == 0, "the daemon to answer")
        done = site.run("logs")
        assert done.returncode == 2
        assert f"runs in a terminal, {name}" in done.stderr
        shown = os.read(ours, 1 << 16).decode()
        assert re.match(r"\x1b\[2m\d\d:\d\d:\d\d\x1b\[0m \[\x1b.*started", shown)
    finally:
        process.terminate()
        process.wait()
        os.close(ours)


@pytest.mark.parametrize(
    ("cgroups", "expected"),
    [
        (
            "0::/user.slice/user-1000.slice/user@1000.service/app.slice/assetd.service\n",
            (Scope.USER, "assetd.service"),
        ),
        (
            "0::/system.slice/system-assetd.slice/assetd@srv-my\\x2dsite.service\n",
            (Scope.SYSTEM, "assetd@srv-my\\x2dsite.service"),
        ),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/run-u7.scope\n", None),
        ("0::/user.slice/user-1000.slice/session-2.scope\n", None),
        ("0::/\n", None),
    ],
)
def test_logs_of_a_service_are_the_journals(
    cgroups: str, expected: tuple[Scope, str] | None
) -> None:
    """That of the user's own service manager, or the system's."""
    assert commands_tell.journal_of(cgroups) == expected


def test_logs_where_nothing_was_logged_says_what_to_do(site: Site) -> None:
    """And it is no silent success."""
    done = site.run("logs")
    assert (done.returncode, done.stdout) == (2, "")
    assert "`assetd start`" in done.stderr


@pytest.mark.parametrize("count", ["-1", "all", "1e3", "٣"])
def test_logs_refuses_what_is_no_number_of_lines(site: Site, count: str) -> None:
    """With a usage error."""
    done = site.run("logs", f"-n{count}")
    assert done.returncode == 2
    assert "expected a number" in done.stderr


def test_a_daemon_in_the_background_may_write_json(site: Site) -> None:
    """For whatever collects it."""
    with started(site, "--log-format", "json"):
        wait_for(lambda: '"ready"' in log_of(site).read_text(), "the first scan")
        shown = site.run("logs", check=True).stdout
    assert [event["event"] for event in told(shown)] == ["started", "batch", "ready"]
