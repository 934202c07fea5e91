"""The command line as people and scripts meet it: real processes, real sites, every exit code."""

import contextlib
import ctypes
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from tests import plugins

from assetd import registry
from assetd.testing import Site, wait_for

ASSETD: Final = (sys.executable, "-P", "-m", "assetd")
BROKEN: Final = "@import 'colors';\nbody { color: $nope; }\n"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A project with a partial, two style sheets that include it, and a plain file."""
    (tmp_path / "site").mkdir()
    site = Site(tmp_path / "site", "mounts: [assets]\nworkers: 1\n")
    site.write("assets/css/_colors.scss", "$ink: navy;\n")
    site.write("assets/css/site.scss", "@import 'colors';\nbody { color: $ink; }\n")
    site.write("assets/css/print.scss", "@import 'colors';\np { color: $ink; }\n")
    site.write("assets/robots.txt", "User-agent: *\n")
    return site


@pytest.fixture
def slow(site: Site) -> Site:
    """A project with one source that is not built before there is a file `go`."""
    site.write("slow.py", plugins.SLOW)
    site.write("assetd.yml", "mounts: [assets]\nworkers: 1\nplugins: [slow.py]\nsandbox: off\n")
    site.write("assets/page.slow", "at last\n")
    return site


def everything(root: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below *root* with its time and content."""
    return {
        str(path.relative_to(root)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in root.rglob("*")
        if path.is_file()
    }


def facts(site: Site, *arguments: str, code: int = 0) -> Any:
    """What a command prints with `--json`, which has to be one line of ASCII."""
    done = site.run(*arguments, "--json")
    assert done.returncode == code, done.stderr
    assert done.stdout.isascii()
    assert done.stdout.count("\n") == 1
    return json.loads(done.stdout)


def on_a_terminal(site: Site, *arguments: str, **environment: str) -> tuple[int, str]:
    """Run a command with a terminal as its output; gives its exit code and what was shown."""
    ours, theirs = pty.openpty()
    shown = b""
    kept = {k: v for k, v in os.environ.items() if k not in {"NO_COLOR", "FORCE_COLOR"}}
    process = subprocess.Popen(
        [*ASSETD, *arguments],
        cwd=site.root,
        env={**kept, **environment},
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    with contextlib.suppress(OSError):  # EIO: whoever had the other end has closed it
        while data := os.read(ours, 1 << 16):
            shown += data
            if b" of " in shown:
                site.write("go")
    os.close(ours)
    return process.wait(), shown.decode()


@contextlib.contextmanager
def started(site: Site) -> Iterator[None]:
    """A daemon in the background, by `assetd start`."""
    site.run("start", check=True)
    try:
        yield
    finally:
        site.run("stop")


# -- init ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "mounts"),
    [
        (["assets/a.css"], ["assets"]),
        (["src/a.js", "static/b.png"], ["src", "static"]),
        (["css/a.css", "js/a.js", "docs/a.md"], ["css", "js"]),
        (["scss/a.scss", "images/.gitkeep"], ["scss"]),
        (["src/assets/a.css", "src/main.py"], ["src/assets"]),
        (["theme/assets/a.css", "assets/b.css"], ["assets", "theme/assets"]),
        (["theme/css/a.css", "theme/js/a.js"], ["theme"]),
        (
            ["themes/plain/a.css", "themes/dark/assets/a.css"],
            ["themes/dark/assets", "themes/plain"],
        ),
        (['theme/no: \u00fc"/a.css'], ['theme/no: \u00fc"']),
        ([], ["assets"]),
        (["public/index.html"], ["assets"]),
    ],
)
def test_init_writes_a_configuration_that_fits_the_folder(
    tmp_path: Path, files: list[str], mounts: list[str]
) -> None:
    """What it writes loads as it stands, and names the folders that hold files."""
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("a {}")
    done = subprocess.run([*ASSETD, "init", tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"wrote {tmp_path}/assetd.yml" in done.stderr
    project = registry.load(str(tmp_path / "assetd.yml"))
    assert [mount.name for mount in project.config.mounts] == mounts
    assert project.warnings == ()


def test_init_leaves_a_public_folder_with_files_to_its_owner(tmp_path: Path) -> None:
    """What is in `public` already is somebody's site, so outputs go elsewhere."""
    (tmp_path / "public").mkdir()
    (tmp_path / "public/index.html").write_text("mine")
    subprocess.run([*ASSETD, "init"], cwd=tmp_path, check=True, capture_output=True)
    out_dir = registry.load(str(tmp_path / "assetd.yml")).config.out_dir
    assert out_dir == str(tmp_path / "dist")


def test_init_takes_no_folder_twice_and_none_from_outside(tmp_path: Path) -> None:
    """A link to a mount, to the project or out of it would make each file two sources."""
    root = tmp_path / "site"
    (root / "assets/css").mkdir(parents=True)
    (root / "assets/css/a.css").write_text("a {}")
    (root / "css").symlink_to("assets/css")
    (root / "static").symlink_to(".")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/a.js").write_text("1")
    (root / "js").symlink_to("../elsewhere")
    subprocess.run([*ASSETD, "init"], cwd=root, check=True, capture_output=True)
    mounts = registry.load(str(root / "assetd.yml")).config.mounts
    assert [mount.name for mount in mounts] == ["assets"]


def test_init_makes_the_folder_that_it_is_given(tmp_path: Path) -> None:
    """`assetd init my-site && cd my-site && assetd build` works from nothing."""
    subprocess.run([*ASSETD, "init", "my-site"], cwd=tmp_path, check=True, capture_output=True)
    done = subprocess.run([*ASSETD, "build"], cwd=tmp_path / "my-site", check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("name", ["assetd.yml", "assetd.yaml"])
def test_init_overwrites_nothing(tmp_path: Path, name: str) -> None:
    """A configuration that is there stays as it is."""
    (tmp_path / name).write_text("mounts: [mine]\n")
    done = subprocess.run([*ASSETD, "init", tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "is there already" in done.stderr
    assert os.listdir(tmp_path) == [name]


def test_init_of_a_file_is_refused(tmp_path: Path) -> None:
    """A project is a folder."""
    (tmp_path / "file").write_text("")
    done = subprocess.run(
        [*ASSETD, "init", tmp_path / "file"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


# -- build --------------------------------------------------------------------------------


def test_build_says_what_it_did_on_stderr(site: Site) -> None:
    """Facts go to stdout, and a build that went well has none to tell."""
    done = site.run("build")
    assert done.returncode == 0
    assert done.stdout == ""
    assert re.fullmatch(r"3 built in \d+ ms; 3 outputs\n|3 built in .* s; 3 outputs\n", done.stderr)
    assert "nothing to do" in site.run("build").stderr


def test_build_tells_scripts_what_it_did(site: Site) -> None:
    """The object of `--json` is the same from a build of its own and from a daemon's."""
    alone = facts(site, "build")
    assert alone["schema"] == 1
    assert alone["batch"]["built"] == 3
    assert alone["errors"] == []
    assert alone["outputs"] == 3
    with site.daemon():
        through = facts(site, "build", "--force")
    assert through["batch"]["built"] == 3
    assert through.keys() == alone.keys() - {"messages", "on_batch_failed"}


def test_a_build_with_failures_ends_with_1_and_keeps_the_last_good_output(site: Site) -> None:
    """It says which file, line and column, shows the line, and builds the rest."""
    site.run("build", check=True)
    site.write("assets/css/site.scss", BROKEN)
    site.write("assets/robots.txt", "changed\n")
    done = site.run("build")
    assert done.returncode == 1
    assert "assets/css/site.scss:2:" in done.stderr
    assert "2 | body { color: $nope; }" in done.stderr
    assert "1 source fails" in done.stderr
    assert "navy" in str(site.output("css/site.css"))
    assert site.output("robots.txt") == "changed\n"
    assert facts(site, "build", code=1)["errors"][0]["line"] == 2


def test_a_fault_in_a_shared_file_is_told_once(site: Site) -> None:
    """Whoever has broken a partial needs one message, and the names of what it breaks."""
    site.write("assets/css/_colors.scss", "$ink: ;\n")
    done = site.run("build")
    assert done.stderr.count("assets/css/_colors.scss:1") == 1
    assert "breaks assets/css/print.scss, assets/css/site.scss (sass)" in done.stderr


def test_without_a_configuration_every_command_says_how_to_begin(tmp_path: Path) -> None:
    """Exit code 2, and the name of the command that helps."""
    for command in ("build", "run", "start", "stop", "status", "sync", "errors", "why x"):
        done = subprocess.run(
            [*ASSETD, *command.split()], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 2, command
        assert "no assetd.yml in" in done.stderr
        assert "`assetd init` writes one" in done.stderr


def test_the_project_is_found_from_a_folder_inside_it(site: Site) -> None:
    """As git does; `-C` starts elsewhere, before the command or behind it."""
    inside = site.root / "assets" / "css"
    for arguments in (
        ["-C", str(inside), "build"],
        ["build", "-C", str(inside)],
        ["build", "--config", str(site.root / "assetd.yml")],
        ["-C", str(site.root), "--config", "assetd.yml", "build"],
    ):
        shutil.rmtree(site.root / "public", ignore_errors=True)
        done = subprocess.run([*ASSETD, *arguments], cwd="/", capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        assert len(site.outputs()) == 3


@pytest.mark.parametrize("arguments", [["-C", "nowhere"], ["--config", "nowhere.yml"]])
def test_what_c_and_config_name_has_to_be_there(site: Site, arguments: list[str]) -> None:
    """Exit code 2, and the name that was given."""
    done = site.run("build", *arguments)
    assert done.returncode == 2
    assert "nowhere" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["build", "-j", "0"],
        ["build", "-j", "many"],
        ["sync", "--timeout", "soon"],
        ["bild"],
        ["why"],
        [],
    ],
)
def test_wrong_usage_ends_with_2(site: Site, arguments: list[str]) -> None:
    """And says what was expected."""
    done = site.run(*arguments)
    assert done.returncode == 2
    assert re.search("usage: assetd|`assetd --help` lists them", done.stderr)
    assert "Traceback" not in done.stderr


def test_a_dry_run_of_a_new_project_leaves_no_trace(site: Site) -> None:
    """Not even a state folder."""
    before = everything(site.root)
    done = site.run("build", "--dry-run")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "assets/css/print.scss: it is new",
        "assets/css/site.scss: it is new",
        "assets/robots.txt: it is new",
    ]
    assert everything(site.root) == before
    assert sorted(os.listdir(site.root)) == ["assetd.yml", "assets"]


def test_a_dry_run_says_what_a_build_would_do_and_changes_nothing(site: Site) -> None:
    """Edits, deletions, lost outputs and changed options are seen as the build sees them."""
    site.write("assets/old.txt", "")
    site.run("build", check=True)
    site.run("build", check=True)
    site.write("assets/robots.txt", "changed\n")
    site.remove("assets/old.txt")
    site.remove("public/css/print.css")
    site.write("assetd.yml", "mounts: [assets]\nworkers: 1\nsass: {style: compressed}\n")
    before = everything(site.root)
    would = facts(site, "build", "--dry-run")["would"]
    assert {each["source"]: each["reason"]["cause"] for each in would} == {
        "assets/css/print.scss": "output-missing",
        "assets/css/site.scss": "options-changed",
        "assets/old.txt": "source-gone",
        "assets/robots.txt": "source-changed",
    }
    assert everything(site.root) == before
    assert facts(site, "build")["batch"]["changed"] == 4
    assert site.run("build", "--dry-run").stderr == "nothing to do\n"


def test_a_dry_run_goes_beside_a_daemon(site: Site) -> None:
    """It needs no lock: it only looks."""
    with site.daemon() as daemon:
        done = site.run("build", "--dry-run", "--force")
        assert done.returncode == 0
        assert "assets/robots.txt: somebody asked for it" in done.stdout
        assert daemon.status()["last_batch"]["trigger"] == "start"


def test_no_delete_leaves_the_outputs_of_what_went(site: Site) -> None:
    """And the next build without it takes them away."""
    site.run("build", check=True)
    site.remove("assets/robots.txt")
    site.run("build", "--no-delete", check=True)
    assert site.output("robots.txt") is not None
    site.run("build", check=True)
    assert site.output("robots.txt") is None


def test_no_delete_under_another_configuration_postpones_it_only(site: Site) -> None:
    """What a changed pattern makes stale goes with the next build that may delete."""
    site.run("build", check=True)
    site.write("assetd.yml", "mounts: [assets]\nworkers: 1\nignore: [robots.txt]\n")
    site.run("build", "--no-delete", check=True)
    assert site.output("robots.txt") is not None
    site.run("build", check=True)
    assert site.output("robots.txt") is None


def test_a_forced_build_waits_for_what_it_forces(site: Site) -> None:
    """Also where a scan finds nothing: its end was once taken for that of the order."""
    settled = ("build", "--json")
    wait_for(lambda: json.loads(site.run(*settled).stdout)["batch"]["changed"] == 0)
    assert facts(site, "build", "--force")["batch"]["built"] == 3


def test_force_builds_what_is_up_to_date(site: Site) -> None:
    """A path limits it, and a partial stands for what includes it."""
    site.run("build", check=True)
    assert facts(site, "build", "--force")["batch"]["built"] == 3
    assert facts(site, "build", "--force", "assets/robots.txt")["batch"]["built"] == 1
    assert facts(site, "build", "--force", "assets/css")["batch"]["built"] == 2
    assert facts(site, "build", "--force", "public/css/site.css")["batch"]["built"] == 1
    assert facts(site, "build", "--force", "css/site.css")["batch"]["built"] == 1
    assert facts(site, "build", "--force", "assets/css/_colors.scss")["batch"]["built"] == 2
    with site.daemon():
        assert facts(site, "build", "--force", "assets/css")["batch"]["built"] == 2


def test_a_path_limits_what_is_built(site: Site) -> None:
    """Only what is at or below it is looked at; the rest is still to do afterwards."""
    site.run("build", "assets/css", check=True)
    assert set(site.outputs()) == {"css/site.css", "css/print.css"}
    site.run("build", check=True)
    site.write("assets/css/_colors.scss", "$ink: teal;\n")
    site.write("assets/robots.txt", "changed\n")
    site.run("build", "assets/css/site.scss", check=True)
    assert "teal" in str(site.output("css/site.css"))
    assert "navy" in str(site.output("css/print.css"))
    assert site.output("robots.txt") != "changed\n"
    site.run("build", check=True)
    assert site.outputs() == site.clean_build()


def test_a_path_limits_which_failures_count(site: Site) -> None:
    """Whoever asks for one file wants to know whether that one is right."""
    site.write("assets/css/site.scss", BROKEN)
    assert site.run("build").returncode == 1
    assert site.run("build", "assets/robots.txt").returncode == 0
    assert site.run("build", "assets/css/site.scss").returncode == 1
    with site.daemon():
        assert site.run("build", "assets/robots.txt").returncode == 0
        assert site.run("build", "assets/css/site.scss").returncode == 1


def test_a_build_of_a_path_does_not_hide_a_changed_option(site: Site) -> None:
    """The build of everything that comes after it must still see the change everywhere."""
    site.run("build", check=True)
    site.write("assetd.yml", "mounts: [assets]\nworkers: 1\nsass: {style: compressed}\n")
    site.run("build", "assets/css/site.scss", check=True)
    site.run("build", check=True)
    assert site.outputs() == site.clean_build()


def test_a_path_that_is_nothing_ends_with_2(site: Site) -> None:
    """A typing error must not look like success."""
    done = site.run("build", "assets/nope.scss")
    assert done.returncode == 2
    assert "assets/nope.scss is no source and no output" in done.stderr
    with site.daemon():
        assert site.run("build", "assets/nope.scss").returncode == 2


def test_a_number_of_workers_can_be_asked_for(site: Site) -> None:
    """A daemon has workers of its own, and says so."""
    assert site.run("build", "-j", "2").returncode == 0
    with site.daemon("-j", "2") as daemon:
        assert len(daemon.status()["workers"]) == 2
        done = site.run("build", "-j", "3")
        assert done.returncode == 0
        assert "-j is not used" in done.stderr


def test_other_peoples_outputs_are_taken_over_only_when_asked(site: Site) -> None:
    """A file that is in the way blocks its source, and stays."""
    site.write("public/robots.txt", "mine\n")
    done = site.run("build")
    assert done.returncode == 1
    assert "robots.txt" in done.stderr
    assert site.output("robots.txt") == "mine\n"
    assert site.run("build", "--take-over").returncode == 0
    assert site.output("robots.txt") == "User-agent: *\n"


def test_build_goes_through_a_daemon_that_runs(site: Site) -> None:
    """Everything written before is in place when it returns."""
    with site.daemon() as daemon:
        site.write("assets/new.txt", "new\n")
        done = site.run("build")
        assert done.returncode == 0, done.stderr
        assert site.output("new.txt") == "new\n"
        assert daemon.process.poll() is None


@pytest.mark.parametrize("option", ["--no-delete", "--take-over"])
def test_what_a_daemon_cannot_do_needs_the_project_for_itself(site: Site, option: str) -> None:
    """Exit code 4, and the process that has it."""
    with site.daemon() as daemon:
        done = site.run("build", option)
        assert done.returncode == 4
        assert f"pid {daemon.process.pid}" in done.stderr


def test_an_interrupted_build_ends_with_130(slow: Site) -> None:
    """Without a traceback, without a worker left behind; the next build does the rest."""
    process = subprocess.Popen(
        [*ASSETD, "build"],
        cwd=slow.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for((slow.root / "begun").exists, "the job to begin")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the workers get it too
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", "")
    wait_for(lambda: not group_is_alive(process.pid), "the workers to end")
    slow.write("go")
    assert slow.run("build").returncode == 0
    assert slow.output("page.slow") == "at last\n"


def group_is_alive(number: int) -> bool:
    try:
        os.killpg(number, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_progress_bar_is_drawn_on_a_terminal_only(slow: Site) -> None:
    """It goes up to the number of sources, and is gone at the end."""
    code, shown = on_a_terminal(slow, "build", NO_COLOR="1")
    assert code == 0
    assert re.search(r"[█░]{30} \d of 4", shown)
    assert shown.rpartition("\x1b[K")[2].startswith("4 built in ")
    assert "█" not in slow.run("build", "--force").stderr


# -- colours and pipes --------------------------------------------------------------------


def test_colours_are_for_terminals_and_for_those_who_ask(site: Site) -> None:
    """NO_COLOR takes them away, FORCE_COLOR brings them anywhere."""
    site.write("assets/css/site.scss", BROKEN)
    site.run("build")
    assert "\x1b[" in on_a_terminal(site, "errors")[1]
    assert "\x1b[" not in on_a_terminal(site, "errors", NO_COLOR="1")[1]
    assert "\x1b[" not in site.run("errors", NO_COLOR="").stdout
    assert "\x1b[" in site.run("errors", FORCE_COLOR="1").stdout


def test_colour_changes_no_word(site: Site) -> None:
    """Whoever sees no colour misses nothing."""
    site.write("assets/css/site.scss", BROKEN)
    site.run("build")
    for command in (["status"], ["errors"], ["why", "css/site.css"]):
        plain = site.run(*command).stdout
        painted = site.run(*command, FORCE_COLOR="1").stdout
        assert "\x1b[" in painted
        ages = re.compile(r"\d+(\.\d)? (s|ms) ago|just now")
        assert ages.sub("", re.sub(r"\x1b\[\d+m", "", painted)) == ages.sub("", plain)


def test_a_reader_that_has_seen_enough_is_no_error(site: Site) -> None:
    """`assetd errors | head -1` ends in silence."""
    site.run("build")
    ours, theirs = os.pipe()
    os.close(ours)
    done = subprocess.run(
        [*ASSETD, "status", "--json"],
        cwd=site.root,
        stdout=theirs,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(theirs)
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


# -- run, start, stop ---------------------------------------------------------------------


def test_run_stays_until_it_is_told_to_end(site: Site) -> None:
    """SIGTERM and SIGINT end it in order: exit code 0."""
    for number in (signal.SIGTERM, signal.SIGINT):
        with site.daemon() as daemon:
            daemon.process.send_signal(number)
            assert daemon.process.wait(15) == 0
            assert "Traceback" not in daemon.log


def test_run_logs_json_if_asked(site: Site) -> None:
    """One object a line."""
    with site.daemon("--log-format", "json") as daemon:
        events = [json.loads(line)["event"] for line in daemon.log.splitlines()]
    assert "ready" in events


def is_gone(pid: int) -> bool:
    """Whether it has ended, be it that nobody has asked for its exit code yet."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def test_a_second_daemon_says_who_holds_the_project(site: Site) -> None:
    """`run` and `start` end with 4, and the first one goes on."""
    with site.daemon() as daemon:
        for command in ("run", "start"):
            done = site.run(command)
            assert done.returncode == 4, command
            assert f"pid {daemon.process.pid}" in done.stderr
        assert daemon.status()["pid"] == daemon.process.pid


def test_start_returns_when_the_daemon_answers_and_stop_when_it_is_gone(site: Site) -> None:
    """Between the two, its log is in the state folder."""
    done = site.run("start", "-j", "1")
    assert done.returncode == 0, done.stderr
    match = re.fullmatch(r"assetd is running \(pid (\d+)\); log: (.*)\n", done.stdout)
    assert match is not None
    assert Path(match[2]).read_text() != ""
    status = facts(site, "status")
    assert status["pid"] == int(match[1])
    done = site.run("stop")
    assert done.returncode == 0
    assert match[1] in done.stderr
    assert is_gone(int(match[1]))


def test_start_with_a_broken_configuration_says_what_is_wrong(site: Site) -> None:
    """Exit code 2, and nothing runs."""
    site.write("assetd.yml", "mounts: [assets]\nworkers: lots\n")
    done = site.run("start")
    assert done.returncode == 2
    assert "assetd.yml:2: workers: expected auto or a whole number" in done.stderr
    assert site.run("status").returncode == 3


@pytest.mark.parametrize(
    ("command", "told"),
    [("stop", "there is nothing to stop"), ("sync", "`assetd start` starts one")],
)
def test_what_needs_a_daemon_says_so(site: Site, command: str, told: str) -> None:
    """Exit code 3, and how to start one, for who wants one."""
    done = site.run(command)
    assert done.returncode == 3
    assert told in done.stderr


# -- status -------------------------------------------------------------------------------


def test_status_says_how_a_daemon_is(site: Site) -> None:
    """The state first; then what there is, and the last batch."""
    with site.daemon() as daemon:
        done = site.run("status")
        assert done.returncode == 0
        first, *rest = done.stdout.splitlines()
        assert first.startswith(f"assetd is idle at {site.root}, up for ")
        assert first.endswith(f"(pid {daemon.process.pid})")
        assert rest[0] == "  sources     3; 3 outputs"
        assert re.fullmatch(r"  last batch  \d+ \(start\), just now: 3 built in .*s", rest[2])
        assert facts(site, "status")["pid"] == daemon.process.pid


def test_status_shows_what_a_busy_daemon_is_at(slow: Site) -> None:
    """Who waits for a build wants to know for what."""
    with slow.daemon(ready=False):
        wait_for((slow.root / "begun").exists, "the job to begin")
        shown = slow.run("status").stdout
        assert shown.startswith("assetd is building")
        assert re.search(r"  workers +0: assets/page.slow\n", shown)
        assert re.search(r"  queue .* 1 running\n", shown)
        slow.write("go")


def test_status_without_a_daemon_tells_what_the_record_knows(site: Site) -> None:
    """Exit code 3 all the same."""
    done = site.run("status")
    assert done.returncode == 3
    assert done.stdout == f"assetd is stopped at {site.root}; nothing was built here yet\n"
    assert facts(site, "status", code=3) == {
        "schema": 1,
        "state": "stopped",
        "project": str(site.root),
    }
    site.write("assets/css/site.scss", BROKEN)
    site.run("build")
    done = site.run("status")
    assert done.returncode == 3
    assert done.stdout.startswith(f"assetd is stopped at {site.root}\n  sources     3; 2 outputs\n")
    assert "assets/css/site.scss:2:" in done.stdout
    known = facts(site, "status", code=3)
    assert (known["state"], known["sources"], len(known["errors"])) == ("stopped", 3, 1)


def test_status_without_a_daemon_survives_a_damaged_record(site: Site) -> None:
    """It says so; the next start mends it."""
    site.run("build", check=True)
    site.write(".assetd/record.sqlite", "rubbish" * 1000)
    done = site.run("status")
    assert done.returncode == 3
    assert "trouble: " in done.stdout


def test_status_shows_five_failures_and_counts_the_rest(site: Site) -> None:
    """`assetd errors` has them all."""
    for number in range(8):
        site.write(f"assets/{number}.scss", "a { color: $nope; }")
    site.run("build")
    shown = site.run("status").stdout
    assert shown.count("Undefined variable") == 5
    assert shown.endswith("and 3 more: `assetd errors` shows them all\n")
    assert site.run("errors").stdout.count("Undefined variable") == 8


def test_status_and_errors_show_a_configuration_that_was_refused(site: Site) -> None:
    """The one before it stays in force until that is mended."""
    with site.daemon() as daemon:
        site.write("assetd.yml", "mounts: [assets]\nworkers: lots\n")
        wait_for(lambda: daemon.status()["config_errors"], "the daemon to read it")
        done = site.run("status")
        assert done.returncode == 0
        assert "assetd.yml:2: workers: expected" in done.stdout
        assert "stays in force" in done.stdout
        done = site.run("errors")
        assert done.returncode == 1
        assert "assetd.yml:2: workers: expected" in done.stdout
        assert len(facts(site, "errors", code=1)["config_errors"]) == 1


def test_status_says_that_it_polls(site: Site) -> None:
    """So that nobody wonders why a save takes a second."""
    site.write("assetd.yml", "mounts: [assets]\nwatch: {backend: polling, interval: 5s}\n")
    with site.daemon():
        assert "looks for changes every 5.0 s" in site.run("status").stdout


@pytest.mark.parametrize("more", ["", "state_dir: .assetd  # usual\n", "state_dir: .cache/state\n"])
def test_status_of_a_running_daemon_loads_nothing_heavy(site: Site, more: str) -> None:
    """An editor asks after every save: no YAML, no database, no engine."""
    site.write("assetd.yml", "mounts: [assets]\nworkers: 1\n" + more)
    with started(site):
        done = subprocess.run(
            [sys.executable, "-P", "-X", "importtime", "-m", "assetd", "status"],
            cwd=site.root,
            capture_output=True,
            text=True,
            check=True,
        )
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "assetd.present" in loaded
    heavy = {"yaml", "sqlite3", "structlog", "watchdog", "sass", "asyncio", "assetd.engine"}
    assert loaded & heavy == set()


def test_a_state_folder_elsewhere_is_found_beside_an_old_one(site: Site) -> None:
    """A `.assetd` that was left behind is not where the daemon is."""
    site.run("build", check=True)
    site.write("assetd.yml", "mounts: [assets]\nworkers: 1\n'state_dir': '.cache/state'\n")
    with started(site):
        assert site.run("status").returncode == 0


# -- sync ---------------------------------------------------------------------------------


def test_sync_returns_when_what_was_written_is_built(site: Site) -> None:
    """Exit code 0 and silence, or 1 and what fails."""
    with site.daemon():
        site.write("assets/css/_colors.scss", "$ink: teal;\n")
        done = site.run("sync")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert "teal" in str(site.output("css/site.css"))
        assert facts(site, "sync")["errors"] == []
        site.write("assets/css/site.scss", BROKEN)
        done = site.run("sync")
        assert done.returncode == 1
        assert "assets/css/site.scss:2:" in done.stdout
        assert facts(site, "sync", code=1)["errors"][0]["line"] == 2


def test_sync_gives_up_after_its_timeout(slow: Site) -> None:
    """Exit code 124, as timeout(1) has it."""
    slow.write("go")
    with slow.daemon():
        slow.remove("go")
        slow.remove("begun")
        slow.write("assets/page.slow", "another\n")
        wait_for((slow.root / "begun").exists, "the job to begin")
        done = slow.run("sync", "--timeout", "50ms")
        assert done.returncode == 124
        assert "timed out" in done.stderr
        slow.write("go")
        assert slow.run("sync", "--timeout", "30s").returncode == 0


# -- errors -------------------------------------------------------------------------------


def test_errors_shows_what_fails_with_and_without_a_daemon(site: Site) -> None:
    """Place, message, the line, and a caret below the column."""
    assert "nothing has been built here yet" in site.run("errors").stderr
    site.run("build", check=True)
    done = site.run("errors")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "nothing fails\n")
    site.write("assets/css/site.scss", BROKEN)
    site.run("build")
    done = site.run("errors")
    assert done.returncode == 1
    head, line, caret, by = done.stdout.splitlines()
    assert re.match(r"assets/css/site.scss:2:\d+: Undefined variable", head)
    assert line == "    2 | body { color: $nope; }"
    assert caret.startswith("      | ")
    assert line[caret.index("^")] in "$;"
    assert by == "    sass"
    alone = facts(site, "errors", code=1)
    with site.daemon():
        assert site.run("errors").stdout == done.stdout
        assert facts(site, "errors", code=1) == alone
    assert alone["schema"] == 1


# -- why ----------------------------------------------------------------------------------


def test_why_tells_the_story_of_an_output(site: Site) -> None:
    """Trigger, changed dependency with both digests, chain, batch, duration, dependents."""
    with site.daemon() as daemon:
        site.write("assets/css/_colors.scss", "$ink: teal;\n")
        daemon.sync()
        story = facts(site, "why", "css/site.css")
        shown = site.run("why", "css/site.css").stdout
    assert story["schema"] == 1
    assert story["kind"] == "output"
    assert story["source"] == "assets/css/site.scss"
    reason = story["reason"]
    assert (reason["cause"], reason["about"]) == ("dependency-changed", "assets/css/_colors.scss")
    assert re.fullmatch("[0-9a-f]{64}", reason["old"])
    assert re.fullmatch("[0-9a-f]{64}", reason["new"])
    assert story["batch"]["trigger"] == "watch"
    assert [node["processor"] for node in story["chain"]] == ["sass", "copy"]
    assert story["depends_on"]["files"] == [
        {"path": "assets/css/_colors.scss", "digest": reason["new"]}
    ]
    assert [each["reason"]["cause"] for each in story["history"]] == ["new"]
    assert story["dependents"] == []
    assert shown.startswith("css/site.css comes from assets/css/site.scss\n")
    digests = f"{reason['old'][:8]} → {reason['new'][:8]}"
    assert f"because    assets/css/_colors.scss changed ({digests})" in shown
    assert re.search(r"batch +\d+ \(watch\), (just now|[\d.]+ s ago): 2 built in ", shown)
    assert re.search(r"took +\d+ ms", shown)
    assert re.search(r"before +batch \d+ .* it is new", shown)


def test_why_takes_any_name_that_people_have_for_a_file(site: Site) -> None:
    """A source or an output, absolute or relative to where they are, the project or a mount."""
    site.run("build", check=True)
    names = [
        "assets/css/site.scss",
        "css/site.scss",
        "css/site.css",
        "public/css/site.css",
        str(site.root / "assets/css/site.scss"),
        str(site.root / "public/css/site.css"),
        "./assets/../assets/css/site.scss",
    ]
    for name in names:
        assert facts(site, "why", name)["source"] == "assets/css/site.scss", name
    here = facts(site, "why", "site.scss", "-C", str(site.root / "assets/css"))
    assert here["source"] == "assets/css/site.scss"


def test_why_of_a_partial_names_what_is_made_from_it(site: Site) -> None:
    """It is no source, and matters all the same."""
    site.run("build", check=True)
    story = facts(site, "why", "assets/css/_colors.scss")
    assert story["kind"] == "dependency"
    assert story["dependents"] == ["assets/css/print.scss", "assets/css/site.scss"]
    site.write("assets/css/_nobody.scss", "")
    assert facts(site, "why", "assets/css/_nobody.scss")["dependents"] == []


def test_why_names_who_overrides_whom(site: Site) -> None:
    """From both sides."""
    site.write("theme/robots.txt", "theme\n")
    site.write("assetd.yml", "mounts: [assets, theme]\nworkers: 1\n")
    site.run("build", check=True)
    assert facts(site, "why", "theme/robots.txt")["overridden_by"] == "assets/robots.txt"
    assert facts(site, "why", "robots.txt")["overrides"] == ["theme/robots.txt"]
    assert "is overridden by assets/robots.txt" in site.run("why", "theme/robots.txt").stdout


def test_why_shows_what_is_wrong(site: Site) -> None:
    """With the line, as `errors` does."""
    site.write("assets/css/site.scss", BROKEN)
    site.run("build")
    done = site.run("why", "assets/css/site.scss")
    assert done.returncode == 0
    assert "it fails, and has never been built" in done.stdout
    assert "2 | body { color: $nope; }" in done.stdout
    story = facts(site, "why", "assets/css/site.scss")
    assert story["state"] == "failed"
    assert story["errors"] == facts(site, "errors", code=1)["errors"]


def test_why_remembers_what_went(site: Site) -> None:
    """A deletion has a reason, too, for the source and for its output."""
    site.run("build", check=True)
    site.remove("assets/css/print.scss")
    site.run("build", check=True)
    for name in ("assets/css/print.scss", "css/print.css"):
        story = facts(site, "why", name)
        assert story["state"] == "gone"
        assert story["reason"]["cause"] == "source-gone"
    shown = site.run("why", "css/print.css").stdout
    assert shown.startswith("css/print.css came from assets/css/print.scss, which is gone\n")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("css/sit.css", 'did you mean "css/site.css"'),
        ("elsewhere/print.css", '"css/print.css"?'),
        ("zzz", '"zzz" is no source, no output, and nothing depends on it\n'),
        ("assets/css", "is a folder"),
        ("assets/notes.txt~", "is ignored"),
        ("assets/new.txt", "has not been built yet"),
    ],
)
def test_why_of_something_unknown_helps_to_find_it(site: Site, name: str, told: str) -> None:
    """Exit code 2, and what may have been meant."""
    site.run("build", check=True)
    site.write("assets/notes.txt~")
    site.write("assets/new.txt")
    done = site.run("why", name)
    assert done.returncode == 2
    assert told in done.stderr


def test_why_before_the_first_build_says_so(site: Site) -> None:
    """Exit code 2."""
    done = site.run("why", "css/site.css")
    assert done.returncode == 2
    assert "nothing has been built here yet" in done.stderr


# -- bad input ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (
            "mounts: [asets]\n",
            'assetd.yml:1: mounts: "asets" is not there (did you mean "assets"?)',
        ),
        ("mounts: [assets]\nout_dir: assets/public\n", "assetd.yml:2: out_dir: lies in the mount"),
        ("mounts: [assets, assets/css]\n", "lie one in the other"),
        ("mounts: [assets\n", "assetd.yml:"),
        ("", "no mounts"),
    ],
)
def test_a_configuration_that_cannot_work_ends_with_2(site: Site, config: str, told: str) -> None:
    """Every command that needs it names file and line, and touches nothing."""
    site.write("assetd.yml", config)
    for command in ("build", "run", "start"):
        done = site.run(command)
        assert done.returncode == 2, command
        assert told in done.stderr
        assert "Traceback" not in done.stderr
    assert sorted(os.listdir(site.root)) == ["assetd.yml", "assets"]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"new\nline\x1b[31m.js.concat", r"assets/new\nline\x1b[31m.js.concat"),
        (b"caf\xe9.js.concat", r"assets/caf\xe9.js.concat"),
    ],
)
def test_odd_names_are_built_and_shown_harmless(site: Site, name: bytes, shown: str) -> None:
    """No terminal obeys a file name, and JSON stays ASCII."""
    raw = os.fsencode(site.root / "assets") + b"/" + name
    Path(os.fsdecode(raw)).write_text("files: [robots.txt]\n")
    assert site.run("build").returncode == 0
    assert len(site.outputs()) == 4
    Path(os.fsdecode(raw)).write_text("files: [nope.js]\n")
    done = site.run("build")
    assert done.returncode == 1
    for printed in (done.stderr, site.run("errors").stdout, site.run("status").stdout):
        assert shown in printed
        assert "\x1b" not in printed
    error = facts(site, "errors", code=1)["errors"][0]
    assert os.fsencode(error["source"]) == name
    told = site.run("why", os.fsdecode(b"assets/" + name))
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith(shown)
    with site.daemon() as daemon:
        assert os.fsencode(daemon.status()["errors"][0]["source"]) == name
        assert shown in site.run("status").stdout


def test_an_empty_file_is_a_file(site: Site) -> None:
    """It is built to an empty output."""
    site.write("assets/empty.txt")
    site.write("assets/empty.scss")
    assert site.run("build").returncode == 0
    assert site.outputs()["empty.txt"] == b""
    assert site.outputs()["empty.css"].strip() == b""


def test_loops_of_links_are_named_and_not_followed(site: Site) -> None:
    """A link to itself, two that point at each other, and a folder inside itself."""
    (site.root / "assets/self").symlink_to("self")
    (site.root / "assets/one").symlink_to("two")
    (site.root / "assets/two").symlink_to("one")
    (site.root / "assets/down").symlink_to(".")
    done = site.run("build")
    assert done.returncode == 0
    for name in ("self", "one", "two", "down"):
        assert f"path: assets/{name}," in done.stderr
    assert len(site.outputs()) == 3
    with site.daemon():
        assert "not followed: assets/down: it is a link to a folder" in site.run("status").stdout


def without_roots_eyes() -> None:
    """Let the program that this process becomes read no more than permissions say."""
    drop_from_bounding_set, dac_override, dac_read_search = 24, 1, 2  # linux/prctl.h, capability.h
    libc = ctypes.CDLL(None)
    for capability in (dac_override, dac_read_search):
        libc.prctl(drop_from_bounding_set, capability)


def test_an_unreadable_file_fails_alone(site: Site) -> None:
    """The rest is built, the message names the file, and a chmod heals it."""

    def build() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*ASSETD, "build"],
            cwd=site.root,
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=without_roots_eyes,
        )

    secret = site.root / "assets/robots.txt"
    secret.chmod(0)
    done = build()
    assert done.returncode == 1
    assert "assets/robots.txt" in done.stderr
    assert "ermission denied" in done.stderr
    assert set(site.outputs()) == {"css/print.css", "css/site.css"}
    secret.chmod(0o644)
    done = build()
    assert done.returncode == 0, done.stderr
    assert site.output("robots.txt") == "User-agent: *\n"
