"""The first hour with assetd: somebody who knows nothing but what it says.

Every test is a place where such a person was held up or misled: real processes, real terminals.
"""

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from assetd import commands_ask, present, words
from assetd.testing import DEADLINE_SECONDS, Site, wait_for

ASSETD: Final = (sys.executable, "-P", "-m", "assetd")
PROJECT: Final = Path(__file__).parents[1]
BROKEN: Final = "$ink: $blak;\n"


def assetd(
    folder: Path, *arguments: str, before: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run the command line in *folder*, which need not be a project yet."""
    return subprocess.run(
        [*before, *ASSETD, *arguments],
        cwd=folder,
        env={**os.environ, "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_SECONDS,
    )


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A style sheet whose partial has an undefined variable, and one that is right."""
    (tmp_path / "site").mkdir()
    site = Site(tmp_path / "site", "mounts: [assets]\nworkers: 1\n")
    site.write("assets/css/_colors.scss", BROKEN)
    site.write("assets/css/site.scss", "@import 'colors';\nbody { color: $ink; }\n")
    site.write("assets/robots.txt", "User-agent: *\n")
    return site


@contextlib.contextmanager
def in_background(folder: Path) -> Iterator[subprocess.CompletedProcess[str]]:
    """A daemon as `assetd start` leaves it, stopped at the end whatever came of it."""
    try:
        yield assetd(folder, "start")
    finally:
        assetd(folder, "stop")


# -- the story ----------------------------------------------------------------------------


def test_from_an_empty_folder_to_a_mended_site_by_what_the_messages_say(tmp_path: Path) -> None:
    """Whoever types what the message before named gets from nothing to a site that is right."""
    lost = assetd(tmp_path, "start")
    assert lost.returncode == 2
    assert "`assetd init`" in lost.stderr

    css = tmp_path / "assets" / "css"
    css.mkdir(parents=True)
    (css / "_colors.scss").write_text(BROKEN)
    (css / "site.scss").write_text("@import 'colors';\nbody { color: $ink; }\n")
    (css / "print.css").write_text("body { color: black }\n")
    init = assetd(tmp_path, "init")
    assert init.returncode == 0
    assert "mounts: assets" in init.stderr
    assert "`assetd start`" in init.stderr

    with in_background(tmp_path) as start:
        assert start.returncode == 0
        assert re.search("`assetd (status|errors)`", start.stderr), start.stderr

        def settled() -> str:
            shown = assetd(tmp_path, "status").stdout
            return shown if "assetd is idle" in shown else ""

        status = wait_for(settled, "the first build")
        assert "assets/css/_colors.scss:1:7: " in status
        assert "`assetd errors`" in status

        errors = assetd(tmp_path, "errors")
        assert errors.returncode == 1
        assert "    1 | $ink: $blak;" in errors.stdout
        assert "`assetd why PATH`" in errors.stderr

        why = assetd(tmp_path, "why", "assets/css/site.scss")
        assert why.returncode == 0
        assert re.search(r"needs +assets/css/_colors\.scss", why.stdout), why.stdout
        assert "assets/css/_colors.scss:1:7: " in why.stdout

        (css / "_colors.scss").write_text("$ink: navy;\n")
        sync = assetd(tmp_path, "sync")
        assert (sync.returncode, sync.stdout) == (0, "")
        assert "navy" in (tmp_path / "public" / "css" / "site.css").read_text()
        assert assetd(tmp_path, "errors").stderr == "nothing fails\n"

        stop = assetd(tmp_path, "stop")
        assert stop.returncode == 0
        assert "assetd stopped" in stop.stderr
    again = assetd(tmp_path, "status")
    assert again.returncode == 3
    assert "`assetd start` starts it" in again.stderr


# -- a line that was mistyped -------------------------------------------------------------


def test_assetd_alone_shows_its_help_and_the_first_steps(tmp_path: Path) -> None:
    """It used to say that "COMMAND" is required, and not which there are."""
    alone = assetd(tmp_path)
    assert (alone.returncode, alone.stdout) == (2, "")
    steps = alone.stderr.partition("first steps:\n")[2].partition("\n\n")[0]
    named = re.findall(r"^  assetd (\w+)", steps, re.MULTILINE)
    assert named == ["init", "start", "status", "errors", "stop"]


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("staus", 'assetd: there is no command "staus" (did you mean "status"?)'),
        ("qqq", 'assetd: there is no command "qqq": `assetd --help` lists them'),
        ("help", 'assetd: there is no command "help": `assetd --help` tells'),
        ("version", 'assetd: there is no command "version": `assetd --version` tells'),
    ],
)
def test_an_unknown_command_is_answered_with_one_line(
    tmp_path: Path, typed: str, told: str
) -> None:
    """Not with the names of all of them, in quotes, one behind the other."""
    done = assetd(tmp_path, typed)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(told)
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("status --wach", 'unknown option "--wach" (did you mean "--watch"?)'),
        ("status --jsn=1", 'unknown option "--jsn" (did you mean "--json"?)'),
        ("start now", 'unknown argument "now"'),
    ],
)
def test_an_unknown_option_is_told_with_the_usage_of_its_command(
    tmp_path: Path, line: str, told: str
) -> None:
    """It was told with that of `assetd`, which has no options to choose from."""
    done = assetd(tmp_path, *line.split())
    name, *_ = line.split()
    assert done.returncode == 2
    assert done.stderr.startswith(f"usage: assetd {name} ")
    assert done.stderr.endswith(f"assetd {name}: error: {told}\n")


@pytest.mark.parametrize(
    ("name", "missing"),
    [("tools", "install"), ("service", "{install,uninstall}"), ("completion", "SHELL")],
)
def test_a_word_that_is_missing_is_called_what_the_usage_calls_it(
    tmp_path: Path, name: str, missing: str
) -> None:
    """And not by a name that only the code has."""
    done = assetd(tmp_path, name)
    assert done.returncode == 2
    assert done.stderr.endswith(f"the following arguments are required: {missing}\n")


def test_an_event_that_there_is_not_is_refused(tmp_path: Path, site: Site) -> None:
    """A misspelt name was waited for, in silence, until somebody gave up."""
    done = site.run("events", "btch")
    assert done.returncode == 2
    assert done.stderr == 'assetd: there is no event "btch" (did you mean "batch"?)\n'


def test_the_events_are_those_of_the_documentation() -> None:
    """What the protocol promises may be asked for."""
    text = (PROJECT / "docs" / "control-protocol.md").read_text()
    rows = text.partition("| event | means |")[2].partition("\n\n")[0].splitlines()
    promised = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert promised - set(commands_ask.EVENTS) == set()


# -- help ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("init", "build", "start", "service", "sync", "events", "rebuild", "logs", "why", "tree"),
        *("list", "config", "processors", "completion", "tools"),
    ],
)
def test_the_help_of_a_command_with_arguments_has_an_example(tmp_path: Path, name: str) -> None:
    """Examples are a line each, as they are typed."""
    done = assetd(tmp_path, name, "--help")
    assert done.returncode == 0
    examples = done.stdout.partition("\nexamples:\n")[2].splitlines()
    assert examples
    assert all(f"assetd {name}" in line for line in examples), examples


@pytest.mark.parametrize("name", ["init", "why", "tree", "service", "completion"])
def test_the_help_says_what_each_word_stands_for(tmp_path: Path, name: str) -> None:
    """A positional argument without a text is a riddle."""
    shown = assetd(tmp_path, name, "--help").stdout
    words = shown.partition("positional arguments:\n")[2].partition("\n\n")[0]
    assert re.match(r"  \S+\s+\S+", words), words


def test_the_page_of_a_processor_says_where_its_options_go(site: Site) -> None:
    """`set "engine: dart" for sass` is of no use to who does not know where; and it is YAML."""
    page = site.run("processors", "sass").stdout
    assert "  default false\n" in page
    assert "'" not in "".join(re.findall(r"^  default .*", page, re.MULTILINE))
    example = page.partition("in assetd.yml, for example:\n")[2]
    assert "engine" in example
    lines = "".join(line.removeprefix("  ") for line in example.splitlines(keepends=True))
    site.write("assetd.yml", f"mounts: [assets]\n{lines}")
    assert site.run("config").returncode == 0


# -- starting and stopping ----------------------------------------------------------------


def test_start_says_that_something_fails(site: Site) -> None:
    """It said "assetd is running", which passed for "all is well"."""
    site.run("build")
    with in_background(site.root) as start:
        assert start.returncode == 0
        assert start.stdout.startswith("assetd is running (pid ")
        assert start.stderr == "1 source fails: `assetd errors` shows where\n"


def test_start_beside_a_daemon_says_what_to_do(site: Site) -> None:
    """As `assetd run` always did."""
    with site.daemon():
        done = site.run("start")
    assert done.returncode == 4
    assert "`assetd restart`" in done.stderr
    assert "`assetd status`" in done.stderr


def test_stop_without_a_daemon_does_not_advise_to_start_one(site: Site) -> None:
    """Whoever wants it ended has what they want; the exit code says that it was so before."""
    done = site.run("stop")
    assert done.returncode == 3
    assert done.stderr == "assetd: no assetd is running here: there is nothing to stop\n"


SLOW: Final = """
import time

from assetd.processor import FIRST, Processor, same_name, suffix


def wait(step):
    while not (step.project / "go").exists():
        time.sleep(0.01)
    step.copy()


slow = Processor(
    name="slow", version="1", matches=suffix(".slow"), outputs=same_name, process=wait,
    priority=FIRST,
)
"""


def test_errors_of_a_first_build_that_still_runs_does_not_say_that_nothing_fails(
    site: Site,
) -> None:
    """Right after `assetd start` it is too early to say so; what comes next is named."""
    site.write("slow.py", SLOW)
    site.write("assets/css/_colors.scss", "$ink: navy;\n")
    site.write("assetd.yml", "mounts: [assets]\nworkers: 1\nplugins: [slow.py]\n")
    site.write("assets/page.slow", "at last\n")
    try:
        with in_background(site.root) as start:
            assert "`assetd status` says how it goes, `assetd sync` waits" in start.stderr
            told = site.run("errors")
            assert (told.returncode, told.stdout) == (0, "")
            assert told.stderr == "nothing fails so far: `assetd sync` waits for the rest\n"
            (site.root / "go").touch()
            assert site.run("sync").returncode == 0
            assert site.run("errors").stderr == "nothing fails\n"
    finally:
        (site.root / "go").touch()


# -- what may not be read or written ------------------------------------------------------


def without_privileges() -> tuple[str, ...]:
    """The words before a command that take from root what others do not have."""
    if os.geteuid() != 0:
        return ()
    if shutil.which("setpriv") is None:
        pytest.skip("root may read everything, and there is no setpriv to end that")
    return ("setpriv", "--bounding-set=-all", "--inh-caps=-all")


@pytest.fixture
def closed(site: Site) -> Iterator[Site]:
    """A site that was built, whose state folder is somebody else's."""
    site.run("build")
    state = site.root / ".assetd"
    state.chmod(0)
    try:
        yield site
    finally:
        state.chmod(0o700)


@pytest.mark.parametrize("line", ["status", "errors", "list", "start", "stop", "logs", "verify"])
def test_a_state_folder_that_is_closed_does_not_pass_for_an_empty_one(
    closed: Site, line: str
) -> None:
    """It said "nothing was built here yet" beside a daemon of another user."""
    done = assetd(closed.root, line, before=without_privileges())
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{closed.root}/.assetd is closed to us" in done.stderr
    assert "sudo -u " in done.stderr
    assert "`assetd doctor`" in done.stderr


def test_run_in_a_folder_that_cannot_be_written_is_not_tried_again(closed: Site) -> None:
    """A service manager would have started it once a second: 2 is a code that ends it."""
    done = assetd(closed.root, "run", before=without_privileges())
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"assetd: {closed.root}/.assetd/lock: cannot be opened: Permission denied; "
        "`assetd doctor` says more\n"
    )


@pytest.mark.parametrize("line", ["build", "run", "start"])
@pytest.mark.parametrize("whose", [".assetd", ".assetd/store"])
def test_root_leaves_nothing_in_another_user_s_state_folder(
    site: Site, line: str, whose: str
) -> None:
    """After `sudo assetd start` the daemon of the folder's owner could never start again."""
    if os.geteuid() != 0:
        pytest.skip("only root may write to another user's folder")
    site.run("build")
    shutil.chown(site.root / whose, "daemon")
    before = sorted(p.name for p in (site.root / ".assetd").iterdir())
    site.write("assets/new.txt", "new")
    done = assetd(site.root, line)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{site.root}/{whose} belongs to daemon" in done.stderr
    assert f"`sudo chown -R root {site.root}/.assetd` makes it root's" in done.stderr
    assert ("`sudo -u daemon assetd …`" in done.stderr) is (whose == ".assetd")
    assert sorted(p.name for p in (site.root / ".assetd").iterdir()) == before
    assert "new.txt" not in site.outputs()


def test_start_in_a_folder_that_cannot_be_written_ends_with_a_sentence(closed: Site) -> None:
    """It ended with a traceback."""
    (closed.root / ".assetd").chmod(0o500)
    done = assetd(closed.root, "start", before=without_privileges())
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"assetd: {closed.root}/.assetd/log: cannot be written: Permission denied: "
        "`assetd doctor` says what to do about it\n"
    )


# -- what is told, and how ----------------------------------------------------------------


def test_a_refused_configuration_is_named_once(site: Site) -> None:
    """`assetd.yml: assetd.yml:3:` said it twice."""
    with site.daemon() as daemon:
        site.write("assetd.yml", "mounts: [assets]\nworkers: 1\nengine: dart\n")

        def refused() -> Any:
            return daemon.status()["config_errors"]

        wait_for(refused, "the configuration to be refused")
        shown = site.run("status").stdout
    assert 'refused: assetd.yml:3: unknown key "engine"\n' in shown


def test_a_source_is_not_told_to_break_itself(site: Site) -> None:
    """Of a file that is kept, its own source is the head of the message."""
    site.write("public/robots.txt", "mine\n")
    done = site.run("build", "assets/robots.txt")
    assert done.returncode == 1
    assert "robots.txt in the output folder is kept" in done.stderr
    assert "breaks" not in done.stderr


def test_verify_does_not_offer_to_repair_what_it_cannot(site: Site) -> None:
    """What is somebody else's is blocked, and stays so however often it is repaired."""
    site.write("assets/css/_colors.scss", "$ink: navy;\n")
    site.write("public/robots.txt", "mine\n")
    site.run("build")
    done = site.run("verify")
    assert done.returncode == 1
    assert "1 blocked" in done.stderr
    assert "--repair" not in done.stderr


def test_a_dry_run_does_not_name_a_source_that_went_twice(site: Site) -> None:
    """`a.txt: a.txt is gone` is a sentence that was made for another place."""
    site.run("build")
    site.remove("assets/robots.txt")
    shown = site.run("build", "--dry-run").stdout.splitlines()
    assert "assets/robots.txt: it is gone" in shown


def test_what_happened_a_minute_ago_is_told_in_whole_seconds() -> None:
    """Moments are kept to the second: "107.0 s ago" was made up, and ragged in a table."""
    import time

    assert re.fullmatch(r"10[78] s ago", words.ago(time.time() - 107.2))


def test_what_is_overridden_is_not_red() -> None:
    """Red is what somebody should mend; a theme is there to be overridden."""
    row = {"source": "theme/a.css", "state": "overridden", "outputs": ["a.css"]}
    assert "\x1b[31m" not in present.row(row, color=True)


def test_a_small_screen_shows_what_fails_before_who_is_idle(site: Site) -> None:
    """In ten lines the one thing that is wrong was cut off, and a heading stood without rows."""
    with site.daemon() as daemon:
        status = daemon.ask("status", recent=5)
    for height in range(3, 24):
        shown = present.live(status, 40, height, color=False)
        assert len(shown) == height
        told = [line for line in shown[:-1] if line]
        assert told[-1] not in {"  workers", "  batches"}
        if "  workers" in shown:
            assert any("_colors.scss:1:7" in line for line in shown)
    assert any("_colors.scss:1:7" in line for line in present.live(status, 40, 10, color=False))


def test_the_doctor_names_a_line_only_where_there_is_one(site: Site) -> None:
    """An empty file has none that could be mended."""
    site.write("assetd.yml", "")
    shown = site.run("doctor").stdout
    assert "→ mend the configuration, and ask again" in shown
    site.write("assetd.yml", "mounts: [assets]\nengine: dart\n")
    assert "→ mend this line, and ask again" in site.run("doctor").stdout
