"""People's own programs: told of each batch, held to their limits, and never in the way."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from assetd import batch_command
from assetd.errand import LINES_TOLD
from assetd.testing import Daemon, Site, wait_for

COLLECT: Final = """#!/bin/sh
# Keeps what it is told, one file a run.
number=$(ls told | wc -l)
cat > told/$number.part
mv told/$number.part told/$number
"""

WAIT: Final = """#!/bin/sh
# Keeps what it is told, and waits until it is let go.
number=$(ls told | wc -l)
test -e running && touch overlapped
touch running
cat > told/$number
while ! test -e go; do sleep 0.01; done
rm running
"""

HANG: Final = """#!/bin/sh
# Starts a child that outlives it, if nobody sees to that.
sleep 1000 &
echo $! > child.part
mv child.part child
wait
"""

NOTIFY: Final = """#!/bin/sh
# Keeps its arguments, one file a call.
number=$(ls "$SHOWN" | wc -l)
printf '%s\\0' "$@" > "$SHOWN/$number.part"
mv "$SHOWN/$number.part" "$SHOWN/$number"
"""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    (tmp_path / "site").mkdir()
    site = Site(tmp_path / "site", "mounts: [assets]\nworkers: 1\n")
    site.write("assets/a.txt", "a")
    (site.root / "told").mkdir()
    return site


def command(site: Site, script: str, more: str = "", arguments: str = "") -> None:
    """Have *script* be run after each batch."""
    site.write("tell.sh", script).chmod(0o755)
    site.write(
        "assetd.yml", f"mounts: [assets]\nworkers: 1\non_batch: [./tell.sh{arguments}]\n{more}"
    )


def told(site: Site, count: int) -> list[dict[str, Any]]:
    """What the command was told in its first *count* runs."""

    def files() -> list[Path]:
        found = [site.root / "told" / str(number) for number in range(count)]
        return found if all(file.exists() and file.stat().st_size for file in found) else []

    return [json.loads(file.read_text()) for file in wait_for(files, f"{count} runs")]


def events(daemon: Daemon, name: str) -> list[str]:
    """The lines of the log about one event."""
    return [line for line in daemon.log.splitlines() if f"] {name} " in line]


def is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


# -- what it is told ----------------------------------------------------------------------


def test_each_batch_is_told(site: Site) -> None:
    """What was looked into, what was made of it, what fails, and what is gone."""
    command(site, COLLECT)
    with site.daemon() as daemon:
        (first,) = told(site, 1)
        site.write("assets/a.scss", "a { b: c }\n")
        told(site, 2)
        site.write("assets/a.scss", "a { b: $no }\n")
        told(site, 3)
        site.remove("assets/a.txt")
        _, second, third, fourth = told(site, 4)
        errors = json.loads(site.run("errors", "--json").stdout)["errors"]
        last = daemon.status()["last_batch"]
    root = os.path.realpath(site.root)
    none = {"changed": 0, "built": 0, "failed": 0, "deleted": 0}
    assert first == {
        "schema": 1,
        "id": first["id"],
        "trigger": "start",
        "batches": 1,
        "seconds": first["seconds"],
        "project": root,
        "out_dir": f"{root}/public",
        "changed": ["assets/a.txt"],
        "built": ["a.txt"],
        "failed": [],
        "deleted": [],
        "truncated": none,
    }
    assert (second["changed"], second["built"]) == (["assets/a.scss"], ["a.css"])
    assert (third["changed"], third["built"]) == (["assets/a.scss"], [])
    assert third["failed"] == errors
    assert errors[0]["line"] == 1
    assert (fourth["changed"], fourth["deleted"]) == (["assets/a.txt"], ["a.txt"])
    assert fourth["failed"] == []
    assert (fourth["id"], fourth["trigger"]) == (last["id"], "watch")
    assert first["id"] < second["id"] < third["id"] < fourth["id"]


def test_there_is_no_shell(site: Site) -> None:
    """Arguments arrive as they are written."""
    script = '#!/bin/sh\ncat > /dev/null\nprintf "%s|" "$@" > told/0\n'
    command(site, script, arguments=', "$(touch oh)", "a b", "*", ""')
    with site.daemon():
        wait_for((site.root / "told" / "0").exists, "the command")
    assert (site.root / "told" / "0").read_text() == "$(touch oh)|a b|*||"
    assert not (site.root / "oh").exists()


def test_it_runs_once_at_a_time_and_is_told_of_all_that_it_missed(site: Site) -> None:
    """What ended while it ran is told as one batch, in which what came last counts."""
    command(site, WAIT)
    with site.daemon() as daemon:
        told(site, 1)
        site.write("assets/b.scss", "a {\n")
        daemon.sync()
        site.write("assets/b.scss", "a { b: c }\n")
        daemon.sync()
        site.write("assets/c.txt", "c")
        daemon.sync()
        site.remove("assets/c.txt")
        daemon.sync()
        assert not (site.root / "told" / "1").exists()
        last = daemon.status()["last_batch"]["id"]
        site.write("go")
        second = told(site, 2)[1]
    assert second["batches"] == 4
    assert second["id"] == last
    assert second["changed"] == ["assets/b.scss", "assets/c.txt"]
    assert (second["built"], second["deleted"]) == (["b.css"], ["c.txt"])
    assert second["failed"] == []
    assert not (site.root / "overlapped").exists()


def test_names_that_are_too_many_are_counted() -> None:
    """A batch of a million files is no object of a hundred megabytes."""
    account = batch_command._Account()
    for number in range(batch_command.NAMES_TOLD + 5):
        account.note("built", str(number))
    account.note("built", "0")
    later = batch_command._Account()
    later.note("built", "one more")
    later.note("deleted", "1")
    account.add(later)
    assert len(account.built) == batch_command.NAMES_TOLD - 1
    assert account.truncated == {"changed": 0, "built": 6, "failed": 0, "deleted": 0}


def test_a_name_that_is_not_utf_8_arrives(site: Site) -> None:
    """As JSON that is ASCII, with the byte as a surrogate escape."""
    command(site, COLLECT)
    with site.daemon():
        told(site, 1)
        with open(os.fsencode(site.root) + b"/assets/\xff.txt", "w") as file:
            file.write("x")
        second = told(site, 2)[1]
    assert second["built"] == ["\udcff.txt"]


# -- how it is held -----------------------------------------------------------------------


def test_a_command_that_hangs_holds_up_nothing_and_is_ended(site: Site) -> None:
    """With all that it has started."""
    command(site, HANG, "on_batch_timeout: 1s\n")
    with site.daemon() as daemon:
        wait_for((site.root / "child").exists, "the command")
        child = int((site.root / "child").read_text())
        site.write("assets/b.txt", "b")
        daemon.sync()
        assert site.output("b.txt") == "b"
        assert daemon.status()["state"] == "idle"
        (line,) = wait_for(lambda: events(daemon, "on_batch_failed")[:1], "the end of it")
        assert "took longer than 1 s and was ended" in line
        wait_for(lambda: not is_alive(child), "the end of its child")


def test_a_command_that_ignores_being_asked_is_killed(site: Site) -> None:
    """Two seconds later."""
    command(site, "#!/bin/sh\ntrap '' TERM\n" + HANG, "on_batch_timeout: 100ms\n")
    with site.daemon() as daemon:
        wait_for(lambda: events(daemon, "on_batch_failed"), "the end of it")
        child = int((site.root / "child").read_text())
        wait_for(lambda: not is_alive(child), "the end of its child")


def test_what_a_command_leaves_running_ends_with_it(site: Site) -> None:
    """Else each batch would leave one more."""
    command(site, "#!/bin/sh\nsleep 1000 > /dev/null 2>&1 &\necho $! > child\n")
    with site.daemon() as daemon:
        wait_for(lambda: events(daemon, "on_batch_done"), "the end of it")
        child = int((site.root / "child").read_text())
        wait_for(lambda: not is_alive(child), "the end of its child")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_ends_with_the_daemon(site: Site, number: signal.Signals) -> None:
    """Also when the daemon had no time to see to it."""
    command(site, HANG)
    with site.daemon() as daemon:
        wait_for((site.root / "child").exists, "the command")
        child = int((site.root / "child").read_text())
        assert is_alive(child)
        daemon.process.send_signal(number)
        daemon.process.wait()
        wait_for(lambda: not is_alive(child), "the end of the command")


def test_a_failure_is_told_once_with_its_last_words(site: Site) -> None:
    """The exit code, the last line of standard error, and before that what it printed."""
    command(site, "#!/bin/sh\necho out\necho first >&2\nprintf 'no\\033[2J route' >&2\nexit 7\n")
    with site.daemon() as daemon:
        wait_for(lambda: events(daemon, "on_batch_failed"), "the failure")
        assert daemon.sync() == []
    (line,) = events(daemon, "on_batch_failed")
    assert "[warning  ]" in line
    assert "exited with code 7" in line
    assert re.search(r"said='no\\+x1b\[2J route'", line)
    assert "\x1b" not in daemon.log
    printed = [line.partition("line=")[2] for line in events(daemon, "on_batch_printed")]
    assert sorted(printed)[-2:] == ["first", "out"]
    assert len(printed) == 3


def test_a_flood_of_output_is_cut_off(site: Site) -> None:
    """The log is the daemon's; a line without an end fills no memory."""
    command(site, "#!/bin/sh\nseq 20000\nhead -c 5000000 /dev/zero | tr '\\0' x\n")
    with site.daemon() as daemon:
        (line,) = wait_for(lambda: events(daemon, "on_batch_done"), "the end of it")
        assert "lines_left_out=19951" in line
    assert len(events(daemon, "on_batch_printed")) == LINES_TOLD
    assert len(daemon.log) < 20_000


def test_a_command_that_is_not_there_is_told_with_its_line(site: Site) -> None:
    """When the daemon starts, and once in the log; the batches go on."""
    site.write("assetd.yml", "mounts: [assets]\nworkers: 1\non_batch: [./no-such, x]\n")
    with site.daemon() as daemon:
        site.write("assets/b.txt", "b")
        daemon.sync()
        assert site.output("b.txt") == "b"
    file = os.path.join(os.path.realpath(site.root), "assetd.yml")
    assert daemon.log.splitlines()[0].startswith(
        f'assetd: {file}:3: on_batch: "./no-such" is no program that can be run'
    )
    assert len(events(daemon, "on_batch_failed")) == 1


def test_a_command_that_is_no_program_is_told(site: Site) -> None:
    """It is there, and cannot be executed."""
    site.write("tell.sh", "no script")
    site.write("assetd.yml", "mounts: [assets]\nworkers: 1\non_batch: [./tell.sh]\n")
    with site.daemon() as daemon:
        assert "make it executable" in events(daemon, "on_batch_failed")[0]


def test_a_line_for_a_shell_is_refused(site: Site) -> None:
    """Whoever writes one means several words."""
    site.write("assetd.yml", "mounts: [assets]\non_batch: make deploy\n")
    done = site.run("run")
    assert done.returncode == 2
    expected = (
        "assetd.yml:2: on_batch: there is no shell: write each word by itself, [make, deploy]"
    )
    assert expected in done.stderr


def test_a_changed_command_is_taken_while_running(site: Site) -> None:
    """As any other key; taken out, nothing is run any more."""
    with site.daemon() as daemon:
        command(site, COLLECT)
        wait_for(lambda: "configuration_taken" in daemon.log, "the configuration")
        site.write("assets/b.txt", "b")
        (first,) = told(site, 1)
        assert first["built"] == ["b.txt"]
        site.write("assetd.yml", "mounts: [assets]\nworkers: 1\n")
        wait_for(lambda: daemon.log.count("configuration_taken") == 2, "the configuration")
        site.write("assets/b.txt", "c")
        daemon.sync()
    assert len(os.listdir(site.root / "told")) == 1


# -- without a daemon ---------------------------------------------------------------------


def test_a_build_without_a_daemon_runs_it_and_waits(site: Site) -> None:
    """A build box has no daemon, and wants its upload; nothing done is nothing to tell."""
    command(site, f"{COLLECT}echo uploaded\n")
    built = site.run("build")
    assert built.returncode == 0
    assert built.stderr.startswith("assetd: on_batch: uploaded\n1 built in ")
    (first,) = told(site, 1)
    assert (first["trigger"], first["built"], first["batches"]) == ("start", ["a.txt"], 1)
    assert site.run("build").returncode == 0
    site.write("public/a.txt", "by hand")
    assert site.run("verify", "--repair").returncode == 0
    site.write("assets/b.scss", "a { b: $no }\n")
    answer = site.build()
    assert (answer["messages"], answer["on_batch_failed"]) == (["on_batch: uploaded"], None)
    _, second, third = told(site, 3)
    assert second["changed"] == ["assets/a.txt"]
    assert third["failed"] == answer["errors"]
    assert len(os.listdir(site.root / "told")) == 3


def test_a_build_without_a_daemon_fails_with_it(site: Site) -> None:
    """Nobody reads a log there; but what was built is in place."""
    command(site, "#!/bin/sh\nprintf 'no\\033[2J route' >&2\nexit 7\n")
    done = site.run("build")
    assert done.returncode == 1
    assert (
        "assetd: on_batch: no\\x1b[2J route\nassetd: on_batch: exited with code 7\n" in done.stderr
    )
    assert site.output("a.txt") == "a"
    site.write("assetd.yml", "mounts: [assets]\non_batch: [./no-such]\n")
    site.write("assets/b.txt", "b")
    done = site.run("build")
    assert done.returncode == 1
    file = os.path.join(os.path.realpath(site.root), "assetd.yml")
    assert f'assetd: {file}:2: on_batch: "./no-such" is no program' in done.stderr


@pytest.mark.parametrize("number", [None, signal.SIGINT, signal.SIGKILL])
def test_it_ends_with_the_build(site: Site, number: signal.Signals | None) -> None:
    """By its own limit, or when somebody has waited for long enough."""
    command(site, HANG, "on_batch_timeout: 1s\n" if number is None else "")
    build = subprocess.Popen(
        [sys.executable, "-P", "-m", "assetd", "build"],
        cwd=site.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with build:
        wait_for((site.root / "child").exists, "the command")
        child = int((site.root / "child").read_text())
        if number is not None:
            build.send_signal(number)
        _, told = build.communicate(timeout=30.0)
        wait_for(lambda: not is_alive(child), "the end of its child")
    if number is None:
        assert "assetd: on_batch: took longer than 1 s and was ended\n" in told
    assert build.returncode == {None: 1, signal.SIGINT: 130, signal.SIGKILL: -9}[number]


# -- the desktop --------------------------------------------------------------------------


@pytest.fixture
def shown(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[int], list[list[str]]]:
    """The arguments of the first calls of `notify-send`, which here is a script of ours."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "shown").mkdir()
    program = tmp_path / "bin" / "notify-send"
    program.write_text(NOTIFY)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("SHOWN", f"{tmp_path}/shown")
    site.write("assetd.yml", "mounts: [assets]\nworkers: 1\nnotify: desktop\n")

    def calls(count: int) -> list[list[str]]:
        files = [tmp_path / "shown" / str(number) for number in range(count)]
        wait_for(lambda: all(file.exists() for file in files), f"{count} notifications")
        assert len(os.listdir(tmp_path / "shown")) == count
        return [file.read_text().split("\0")[:-1] for file in files]

    return calls


def test_the_desktop_is_told_when_it_breaks_and_when_it_is_mended(
    site: Site, shown: Callable[[int], list[list[str]]]
) -> None:
    """Once each: not of every file that fails, nor of every batch that does not."""
    with site.daemon() as daemon:
        site.write("assets/a.scss", "a { b: $no }\n")
        daemon.sync()
        shown(1)
        site.write("assets/b.scss", "a { b: $no }\n")
        daemon.sync()
        site.write("assets/a.scss", "a { b: c }\n")
        daemon.sync()
        shown(1)
        site.write("assets/b.scss", "a { b: c }\n")
        daemon.sync()
        broken, mended = shown(2)
        site.write("assets/b.scss", "a { b: d }\n")
        daemon.sync()
        shown(2)
    assert broken[:3] == ["--app-name=assetd", "--urgency=critical", "--"]
    assert broken[3] == "site: 1 source fails"
    assert broken[4].startswith("assets/a.scss: Undefined variable")
    assert mended[1:] == ["--urgency=normal", "--", "site is mended", "Everything builds again."]


def test_what_is_shown_has_no_markup(site: Site, shown: Callable[[int], list[list[str]]]) -> None:
    """Names of files and messages are other people's text."""
    with site.daemon() as daemon:
        site.write("assets/<b>&\x1b\\.scss", "a {\n")
        daemon.sync()
        (broken,) = shown(1)
    assert broken[4].startswith("assets/&lt;b&gt;&amp;\\\\x1b\\\\.scss: ")


def test_what_was_broken_before_is_no_news(
    site: Site, shown: Callable[[int], list[list[str]]]
) -> None:
    """A daemon that starts where the last one ended says nothing, until it is mended."""
    site.write("assets/a.scss", "a {\n")
    site.run("build")
    with site.daemon() as daemon:
        site.write("assets/b.txt", "b")
        daemon.sync()
        shown(0)
        site.write("assets/a.scss", "a { b: c }\n")
        daemon.sync()
        assert shown(1)[0][3] == "site is mended"


def test_a_desktop_that_is_not_there_is_told_once(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    site.write("assetd.yml", "mounts: [assets]\nworkers: 1\nnotify: desktop\n")
    with site.daemon() as daemon:
        for text in ("a {", "a { b: c }", "a {"):
            site.write("assets/a.scss", text)
            daemon.sync()
    (line,) = events(daemon, "notify_failed")
    assert re.search("notify-send: .*libnotify-bin", line)
