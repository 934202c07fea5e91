"""`assetd clean`: what is ours goes, and nothing else."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from assetd.model import Change, Publication, Source
from assetd.record import Record
from assetd.stamp import digest_bytes
from assetd.testing import Site, wait_for


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A project that is built, into a folder that was not there before."""
    (tmp_path / "site").mkdir()
    site = Site(tmp_path / "site", "mounts: [assets]\nworkers: 1\nout_dir: build/public\n")
    site.write("assets/css/site.scss", "body { color: navy; }\n")
    site.write("assets/robots.txt", "User-agent: *\n")
    site.run("build", check=True)
    return site


def tree(root: Path) -> list[str]:
    """Everything below *root*, folders with a slash; not what SQLite makes for readers."""
    return sorted(
        f"{path.relative_to(root)}{'/' if path.is_dir() and not path.is_symlink() else ''}"
        for path in root.rglob("*")
        if not path.name.endswith(("-wal", "-shm"))
    )


SOURCES = ["assetd.yml", "assets/", "assets/css/", "assets/css/site.scss", "assets/robots.txt"]


def facts(site: Site, *arguments: str, code: int = 0) -> Any:
    """What `clean --json` prints, which has to be one line."""
    done = site.run("clean", "--json", *arguments)
    assert done.returncode == code, done.stderr
    assert done.stdout.count("\n") == 1
    return json.loads(done.stdout)


def test_clean_leaves_the_sources_and_nothing_of_ours(site: Site) -> None:
    """Outputs, the folders that we made down to them, and the state; a build begins anew."""
    done = site.run("clean")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert done.stderr == "removed 2 outputs, 3 folders, the state in .assetd\n"
    assert tree(site.root) == SOURCES
    assert site.build()["batch"]["built"] == 2


def test_clean_tells_scripts_what_went(site: Site) -> None:
    """Outputs and folders are relative to the output folder, what is above it absolute."""
    answer = facts(site)
    assert answer["schema"] == 1
    assert answer["dry_run"] is False
    assert answer["outputs"] == ["css/site.css", "robots.txt"]
    assert answer["folders"] == ["css"]
    assert answer["roots"] == [str(site.root / "build/public"), str(site.root / "build")]
    assert answer["state"][-2:] == ["record.sqlite", "lock"]
    assert answer["kept"] == answer["stuck"] == answer["left"] == answer["remarks"] == []


def test_a_dry_run_says_what_would_go_and_changes_nothing(site: Site) -> None:
    """What it lists is what then goes."""
    before = tree(site.root)
    done = site.run("clean", "--dry-run")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[:5] == [
        *("build/public/css/site.css", "build/public/robots.txt", "build/public/css/"),
        *("build/public/", "build/"),
    ]
    assert ".assetd/record.sqlite" in lines
    assert done.stderr.startswith("would remove 2 outputs, 3 folders, the state")
    would = facts(site, "--dry-run")
    assert would["dry_run"] is True
    assert tree(site.root) == before
    did = facts(site)
    assert {key: did[key] for key in ("outputs", "folders", "roots")} == {
        key: would[key] for key in ("outputs", "folders", "roots")
    }


def test_what_was_edited_and_what_is_foreign_stays(site: Site) -> None:
    """The edit is reported, with how to be rid of it: exit code 1."""
    site.write("build/public/robots.txt", "mine\n")
    site.write("build/public/css/theirs.css", "theirs\n")
    assert site.run("clean", "--dry-run").returncode == 0
    done = site.run("clean")
    assert done.returncode == 1
    assert done.stdout == (
        "kept  build/public/robots.txt: it was edited since it was published: "
        "remove it by hand, or let `assetd build --take-over` replace it\n"
    )
    assert tree(site.root / "build") == [
        *("public/", "public/css/", "public/css/theirs.css", "public/robots.txt")
    ]
    assert not (site.root / ".assetd").exists()


def test_an_output_folder_that_was_there_before_stays(tmp_path: Path) -> None:
    """We made neither it nor what is in it already."""
    (tmp_path / "public/css").mkdir(parents=True)
    site = Site(tmp_path)
    site.write("assets/css/site.css", "a {}\n")
    site.run("build", check=True)
    site.run("clean", check=True)
    assert tree(tmp_path / "public") == ["css/"]


def test_nothing_is_removed_through_a_link(site: Site) -> None:
    """Neither an output behind a link, nor a folder that the state folder links to."""
    there = site.root.with_name("there")
    (site.root / "build/public/css").rename(there)
    (site.root / "build/public/css").symlink_to(there)
    store = site.root.with_name("store")
    (site.root / ".assetd/store").rename(store)
    (site.root / ".assetd/store").symlink_to(store)
    answer = facts(site, code=1)
    assert [each["path"] for each in answer["kept"]] == ["css/site.css"]
    assert (there / "site.css").exists()
    assert any(store.iterdir())
    assert not (site.root / ".assetd").exists()


def test_what_is_not_ours_in_the_state_folder_stays(site: Site) -> None:
    """A stranger's file, and edits that were set aside."""
    site.write(".assetd/notes", "mine\n")
    site.write(".assetd/kept/robots.txt", "mine\n")
    done = site.run("clean")
    assert "kept  .assetd/notes: it is not ours to remove" in done.stdout
    assert tree(site.root / ".assetd") == ["kept/", "kept/robots.txt", "notes"]


def test_clean_is_refused_while_a_daemon_runs(site: Site) -> None:
    """Exit code 4, and how to end it; only to look is allowed."""
    with site.daemon() as daemon:
        before = tree(site.root)
        done = site.run("clean")
        assert done.returncode == 4
        assert f"(pid {daemon.process.pid}): `assetd stop` ends it" in done.stderr
        assert tree(site.root) == before
        assert site.run("clean", "--dry-run").returncode == 0


def test_clean_of_what_was_never_built_leaves_no_trace(tmp_path: Path) -> None:
    """Not even a lock."""
    done = Site(tmp_path).run("clean")
    assert done.returncode == 0
    assert done.stderr == "nothing to remove\n"
    assert tree(tmp_path) == ["assetd.yml", "assets/"]


def test_clean_with_a_broken_configuration_removes_nothing(site: Site) -> None:
    """Its folders may not be ours then: exit code 2."""
    before = tree(site.root)
    site.write("assetd.yml", "mounts: [assets]\nstate_dir: .\n")
    done = site.run("clean")
    assert done.returncode == 2
    assert "assetd.yml:2: state_dir" in done.stderr
    assert tree(site.root) == before
    assert site.run("clean", "--all").returncode == 2


def test_without_a_record_the_outputs_stay(site: Site) -> None:
    """Nothing proves that they are ours; people are told."""
    site.remove(".assetd/record.sqlite")
    done = site.run("clean")
    assert done.returncode == 0
    assert "there is no record: which files in" in done.stderr
    assert len(site.outputs("build/public")) == 2
    assert not (site.root / ".assetd").exists()


def test_of_a_damaged_record_what_can_be_read_counts(site: Site) -> None:
    """And only by digest: what is not what it says stays."""
    record = site.root / ".assetd/record.sqlite"
    with contextlib.closing(sqlite3.connect(record)) as db:
        db.execute("PRAGMA user_version = 7")  # the record says 1 elsewhere: it is damaged
        db.commit()
    site.write("build/public/robots.txt", "mine\n")
    done = site.run("clean")
    assert done.returncode == 1
    assert "the record is damaged" in done.stderr
    assert "but for 2 that it still tells of" in done.stderr
    assert site.outputs("build/public") == {"robots.txt": b"mine\n"}


def test_a_record_of_a_newer_assetd_is_left_to_it(site: Site) -> None:
    """It knows what is there; we do not."""
    record = site.root / ".assetd/record.sqlite"
    with contextlib.closing(sqlite3.connect(record)) as db:
        db.execute("PRAGMA user_version = 99")
        db.execute("UPDATE meta SET value = '99' WHERE key = 'schema'")
        db.commit()
    done = site.run("clean")
    assert done.returncode == 1
    assert "made by a newer assetd" in done.stderr
    assert len(site.outputs("build/public")) == 2


def test_outputs_of_a_build_that_was_cut_short_are_ours(site: Site) -> None:
    """Renamed and not committed: the intent says that we made it."""
    site.write("build/public/robots.txt", "half way\n")
    with contextlib.closing(Record(str(site.root / ".assetd/record.sqlite"))) as record:
        digest = digest_bytes(b"half way\n")
        source = Source("assets", "robots.txt")
        record.intend(Change(9, publish=(Publication("robots.txt", source, digest, None),)))
    site.run("clean", check=True)
    assert tree(site.root) == SOURCES


@pytest.mark.skipif(os.geteuid() != 0, reason="taking a right away from root takes root")
def test_what_the_disk_refuses_to_delete_is_tried_again(site: Site) -> None:
    """The record stays until then, for it alone knows that the output is ours."""
    folder = site.root / "build/public/css"
    folder.chmod(0o500)
    done = subprocess.run(
        [
            *("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"),
            *(sys.executable, "-P", "-m", "assetd", "clean"),
        ],
        cwd=site.root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "stuck  build/public/css/site.css: cannot delete" in done.stdout
    assert "run `assetd clean` again" in done.stderr
    folder.chmod(0o700)
    site.run("clean", check=True)
    assert tree(site.root) == SOURCES


@pytest.mark.parametrize("left", [290, 150, 1, 0])
def test_a_clean_that_was_killed_is_finished_by_the_next(site: Site, left: int) -> None:
    """Wherever it was: what proves that something is ours goes after it."""
    for number in range(300):
        site.write(f"assets/many/{number % 20}/{number}.txt", str(number))
    site.write("build/public/many/3/theirs", "theirs\n")
    site.run("build", check=True)
    many = site.root / "build/public/many"
    words = [sys.executable, "-P", "-m", "assetd", "clean"]
    with subprocess.Popen(words, cwd=site.root) as process:
        wait_for(
            lambda: (
                process.poll() is not None or sum(len(n) for _, _, n in os.walk(many)) <= left + 1
            ),
            "the outputs to go",
        )
        process.send_signal(signal.SIGKILL)
    assert site.run("clean").returncode == 0
    assert tree(site.root / "build") == [
        *("public/", "public/many/", "public/many/3/", "public/many/3/theirs")
    ]
    assert not (site.root / ".assetd").exists()
