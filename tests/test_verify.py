"""`assetd verify`: what is in place is what was made, and `--repair` makes it so."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests import plugins

from assetd import publish
from assetd.model import Change, Publication, Source
from assetd.record import Record
from assetd.testing import Site, wait_for


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A project that is built: a style sheet, a text, and a file of somebody else's."""
    (tmp_path / "site").mkdir()
    site = Site(tmp_path / "site", "mounts: [assets]\nworkers: 1\n")
    site.write("assets/css/site.scss", "body { color: navy; }\n")
    site.write("assets/robots.txt", "User-agent: *\n")
    site.write("public/theirs.html", "theirs\n")
    site.run("build", check=True)
    return site


def facts(site: Site, *arguments: str, code: int = 0) -> Any:
    """What `verify --json` prints, which has to be one line."""
    done = site.run("verify", "--json", *arguments)
    assert done.returncode == code, done.stderr
    assert done.stdout.count("\n") == 1
    return json.loads(done.stdout)


def faults(answer: Any) -> dict[str, str]:
    return {each["path"]: each["fault"] for each in answer["wrong"]}


@contextlib.contextmanager
def paused(site: Site) -> Iterator[None]:
    with site.daemon() as daemon:
        daemon.ask("pause")
        yield


def test_outputs_that_are_as_they_were_made_are_all_right(site: Site) -> None:
    """Exit code 0; what is not ours is counted and not judged."""
    done = site.run("verify")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "2 outputs: all right (1 other file beside them)\n"
    assert facts(site) == {
        "schema": 1,
        "out_dir": str(site.root / "public"),
        "outputs": 2,
        "right": 2,
        "wrong": [],
        "foreign": 1,
    }


def test_what_is_missing_or_edited_is_named(site: Site) -> None:
    """Exit code 1, a line each, and the command that helps; nothing is changed."""
    site.remove("public/css/site.css")
    site.write("public/robots.txt", "mine\n")
    done = site.run("verify")
    assert done.returncode == 1
    assert done.stdout == "missing     css/site.css\nedited      robots.txt\n"
    assert "2 outputs: 1 missing, 1 edited; `assetd verify --repair`" in done.stderr
    answer = facts(site, code=1)
    assert answer["right"] == 0
    assert answer["wrong"] == [
        {
            "path": "css/site.css",
            "source": "assets/css/site.scss",
            "fault": "missing",
            "what": None,
        },
        {"path": "robots.txt", "source": "assets/robots.txt", "fault": "edited", "what": None},
    ]
    assert site.output("robots.txt") == "mine\n"


def test_an_edit_that_keeps_time_and_size_is_seen(site: Site) -> None:
    """It goes by the digest, never by the stamp."""
    robots = site.root / "public/robots.txt"
    before = robots.stat()
    robots.write_text("User-agent: x\n")
    os.utime(robots, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert faults(facts(site, code=1)) == {"robots.txt": "edited"}


def test_links_and_folders_in_the_place_of_outputs_are_wrong(site: Site) -> None:
    """A link that leads to the right bytes is not what we made: it is not followed."""
    (site.root / "copy").write_text("User-agent: *\n")
    site.remove("public/robots.txt")
    (site.root / "public/robots.txt").symlink_to(site.root / "copy")
    site.remove("public/css/site.css")
    (site.root / "public/css/site.css").mkdir()
    answer = facts(site, code=1)
    assert faults(answer) == {"css/site.css": "replaced", "robots.txt": "replaced"}
    assert [each["what"] for each in answer["wrong"]] == ["a folder is there", "a link is there"]


def test_control_characters_in_names_are_escaped(site: Site) -> None:
    """A name cannot write on the terminal."""
    site.write("assets/a\x1b[31m.txt")
    site.run("build", check=True)
    site.remove("public/a\x1b[31m.txt")
    assert "missing     a\\x1b[31m.txt" in site.run("verify").stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="taking a right away from root takes root")
def test_an_output_that_cannot_be_read_is_named(site: Site) -> None:
    """Nobody can say whether it is right."""
    (site.root / "public/robots.txt").chmod(0)
    done = subprocess.run(
        [
            *("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"),
            *(sys.executable, "-P", "-m", "assetd", "verify"),
        ],
        cwd=site.root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout.startswith("unreadable  robots.txt  (it cannot be read: Permission denied)")


def test_what_was_never_built_cannot_be_verified(tmp_path: Path) -> None:
    """Exit code 2, and the command to begin with."""
    done = Site(tmp_path).run("verify")
    assert done.returncode == 2
    assert "nothing has been built here yet: `assetd build`" in done.stderr
    assert not (tmp_path / ".assetd").exists()
    assert Site(tmp_path).run("verify", "--repare").returncode == 2


def test_repair_makes_the_outputs_those_of_a_clean_build(site: Site) -> None:
    """It says which were made again, and which edits it replaced; others' files stay."""
    site.remove("public/css/site.css")
    site.write("public/robots.txt", "mine\n")
    done = site.run("verify", "--repair")
    assert done.returncode == 0, done.stderr
    assert "made again  css/site.css  (it was missing)" in done.stdout
    assert "replaced    robots.txt  (it was edited)" in done.stdout
    assert "2 outputs: all right" in done.stderr
    outputs = site.outputs()
    assert outputs.pop("theirs.html") == b"theirs\n"
    assert outputs == site.clean_build()
    assert site.run("verify").returncode == 0


def test_repair_goes_through_a_running_daemon(site: Site) -> None:
    """Which owns the record; it goes on running, and takes the outputs for its own."""
    with site.daemon() as daemon:
        site.write("public/robots.txt", "mine\n")
        wait_for(lambda: "output_edited" in daemon.log, "the daemon to see the edit")
        answer = facts(site, "--repair")
        assert [each["path"] for each in answer["repaired"]] == ["robots.txt"]
        assert site.output("robots.txt") == "User-agent: *\n"
        site.write("assets/robots.txt", "Allow: *\n")
        assert daemon.sync() == []
        assert site.output("robots.txt") == "Allow: *\n"
    assert "its output robots.txt was changed" in site.run("why", "robots.txt").stdout


def test_a_paused_daemon_repairs_nothing(site: Site) -> None:
    """It says so at once, and how to go on."""
    with paused(site):
        site.write("public/robots.txt", "mine\n")
        done = site.run("verify", "--repair")
    assert done.returncode == 1
    assert "assetd is paused: `assetd resume`" in done.stderr
    assert site.output("robots.txt") == "mine\n"


def test_repair_trusts_no_damaged_store(site: Site) -> None:
    """What the store holds counts only if it has the digest that it is kept under."""
    for path in (site.root / ".assetd/store/objects").rglob("*"):
        if path.is_file():
            path.write_bytes(b"rotten")
    site.remove("public/css/site.css")
    site.write("public/robots.txt", "mine\n")
    facts(site, "--repair")
    outputs = site.outputs()
    del outputs["theirs.html"]
    assert outputs == site.clean_build()


def test_repair_that_cannot_make_an_output_says_so(site: Site) -> None:
    """A source that is broken now has no output to give: exit code 1."""
    site.write("assets/css/site.scss", "body { color: $nope; }\n")
    site.remove("public/css/site.css")
    site.remove(".assetd/store")
    done = site.run("verify", "--repair")
    assert done.returncode == 1
    assert done.stdout == "not made    css/site.css  (`assetd errors` says why)\n"


def test_repair_leaves_a_folder_in_the_place_of_an_output(site: Site) -> None:
    """What is in it is somebody's; exit code 1 until it has gone."""
    site.remove("public/robots.txt")
    site.write("public/robots.txt/notes", "mine\n")
    done = site.run("verify", "--repair")
    assert done.returncode == 1
    assert site.output("robots.txt/notes") == "mine\n"
    assert "robots.txt" in done.stdout


def test_an_output_whose_place_is_taken_is_wrong(site: Site) -> None:
    """Edited, and then its source changed: the edit is somebody's, and is kept."""
    site.write("public/robots.txt", "mine\n")
    site.write("assets/robots.txt", "Allow: *\n")
    assert site.run("build").returncode == 1
    answer = facts(site, "--repair", code=1)
    assert faults(answer) == {"robots.txt": "blocked"}
    assert "--take-over" in answer["wrong"][0]["what"]
    assert site.output("robots.txt") == "mine\n"
    site.run("build", "--take-over", check=True)
    assert facts(site)["right"] == 2


def test_a_repair_that_was_killed_can_be_made_again(site: Site) -> None:
    """Until the new file is in place the edited one stays, and stays known as ours."""
    site.write("slow.py", plugins.SLOW)
    site.write("assetd.yml", "mounts: [assets]\nworkers: 1\nplugins: [slow.py]\nsandbox: off\n")
    site.write("assets/page.slow", "right\n")
    site.write("go")
    site.run("build", check=True)
    site.remove("go")
    site.remove("begun")
    site.remove(".assetd/store")
    site.write("public/page.slow", "mine\n")
    words = [sys.executable, "-P", "-m", "assetd", "verify", "--repair"]
    with subprocess.Popen(words, cwd=site.root) as process:
        wait_for((site.root / "begun").exists, "the build to begin")
        process.send_signal(signal.SIGKILL)
    assert site.output("page.slow") == "mine\n"
    assert faults(facts(site, code=1)) == {"page.slow": "edited"}
    site.write("go")
    facts(site, "--repair")
    assert site.output("page.slow") == "right\n"


def test_a_repair_that_was_cut_short_before_its_rename_is_finished(site: Site) -> None:
    """The intent says that the edited file may go, so the next start replaces it."""
    root, out_dir = site.root, str(site.root / "public")
    edited = site.write("public/robots.txt", "mine\n")
    staged = site.write(".assetd/staging/new", "User-agent: *\n")
    with contextlib.closing(Record(str(root / ".assetd/record.sqlite"))) as record:
        output = record.output("robots.txt")
        assert output is not None
        [(_, seen)] = publish.see(out_dir, [output], lambda _output, _stamp: False)
        source = Source("assets", "robots.txt")
        entry = record.entry(source)
        assert entry is not None
        publication = Publication("robots.txt", source, output.digest, str(staged), output.digest)
        change = Change(9, put=(entry,), publish=(publication,))
        given_up = type(output)(output.path, source, output.digest, seen.stamp)
        record.intend(change, [given_up])
    assert site.run("build").returncode == 0
    assert edited.read_text() == "User-agent: *\n"
    assert facts(site)["right"] == 2


def test_a_damaged_record_is_told_and_mended_by_a_build(site: Site) -> None:
    """Without it nobody knows what was made: exit code 1."""
    record = site.root / ".assetd/record.sqlite"
    record.write_bytes(b"no database at all" * 300)
    done = site.run("verify")
    assert done.returncode == 1
    assert "the record is damaged" in done.stderr
    assert "`assetd build` sets it aside" in done.stderr
    site.run("build", check=True)
    assert site.run("verify").returncode == 0


def test_what_is_being_published_is_not_taken_for_wrong(site: Site) -> None:
    """Between a file's rename and its commit the record is behind; verify waits for it."""
    for number in range(40):
        site.write(f"assets/many/{number}.txt", "0")
    with site.daemon() as daemon:
        for round_ in range(1, 6):
            words = [sys.executable, "-P", "-m", "assetd", "verify"]
            with subprocess.Popen(words, cwd=site.root, stdout=subprocess.PIPE) as process:
                edits = 0
                while process.poll() is None:
                    edits += 1
                    for number in range(40):
                        site.write(f"assets/many/{number}.txt", f"{round_} {edits}")
                assert process.communicate()[0] == b""
        assert daemon.sync() == []
    assert facts(site)["right"] == 42
