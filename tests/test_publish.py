"""Publishing: nothing outside through a link, nothing of others replaced or taken away."""

import errno
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from assetd import publish
from assetd import stamp as stamps
from assetd.model import Cause, Change, Deletion, Done, Output, Publication, Reason, Source
from assetd.stamp import digest_bytes
from assetd.testing import Site

WHY = Reason(Cause.SOURCE_GONE)


@dataclass
class Place:
    """An output root and what a record would know of it."""

    root: Path
    known: dict[str, Output] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    serial: int = 0

    @property
    def out(self) -> Path:
        return self.root / "public"

    def stage(self, content: bytes) -> str:
        self.serial += 1
        path = self.root / "staging" / str(self.serial)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return str(path)

    def change(
        self, put: Mapping[str, bytes] | None = None, delete: tuple[str, ...] = ()
    ) -> Change:
        publications = [
            Publication(
                name,
                Source("assets", name),
                digest_bytes(content),
                self.stage(content),
                self.known[name].digest if name in self.known else None,
            )
            for name, content in (put or {}).items()
        ]
        deletions = [Deletion(n, Source("assets", n), self.known[n].digest, WHY) for n in delete]
        return Change(1, publish=tuple(publications), delete=tuple(deletions))

    def apply(self, change: Change, *, take_over: bool = False) -> Done:
        """Apply it, and remember what a record would."""
        done = publish.apply(
            str(self.out),
            change,
            self.known.get,
            self.folders.__contains__,
            take_over=take_over,
        )
        for each in change.publish:
            if each.output in done.placed:
                self.known[each.output] = Output(
                    each.output, each.source, each.digest, done.placed[each.output]
                )
        for output in (*done.deleted, *done.kept):
            del self.known[output]
        self.folders |= set(done.folders_made)
        self.folders -= set(done.folders_removed)
        return done

    def put(self, **contents: bytes) -> Done:
        return self.apply(self.change(contents))

    def files(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.out)): path.read_bytes()
            for path in self.out.rglob("*")
            if path.is_file()
        }


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A folder that must be as it was at the end."""
    folder = tmp_path / "outside"
    (folder / "css").mkdir(parents=True)
    (folder / "css" / "site.css").write_text("theirs")
    yield folder
    found = sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))
    assert found == ["css", "css/site.css"]
    assert (folder / "css" / "site.css").read_text() == "theirs"


def test_a_file_appears_whole_with_its_folders(place: Place) -> None:
    """By a rename: nothing of it is left in staging."""
    change = place.change({"css/deep/site.css": b"a {}"})
    done = place.apply(change)
    assert place.files() == {"css/deep/site.css": b"a {}"}
    assert done.placed["css/deep/site.css"] == stamps.read(str(place.out / "css/deep/site.css"))
    assert done.folders_made == ("css", "css/deep")
    assert list((place.root / "staging").iterdir()) == []


def test_a_change_may_be_applied_twice(place: Place) -> None:
    """As after a kill between the renames and the commit: the second time finds it done."""
    change = place.change({"a.css": b"a", "b.css": b"b"})
    first = publish.apply(str(place.out), change, place.known.get, lambda _: False)
    second = place.apply(change)
    assert second.placed == first.placed
    assert second.blocked == {}
    again = place.change({}, ("a.css",))
    publish.apply(str(place.out), again, place.known.get, lambda _: False)
    assert place.apply(again).deleted == ("a.css",)


# -- links ------------------------------------------------------------------------------------


def test_nothing_is_written_through_a_folder_that_became_a_link(
    place: Place, outside: Path
) -> None:
    """It is refused and said so; the other outputs are put in place."""
    place.out.mkdir()
    (place.out / "css").symlink_to(outside / "css")
    done = place.apply(place.change({"css/site.css": b"ours", "css/new.css": b"n", "a.js": b"a"}))
    assert set(done.blocked) == {"css/site.css", "css/new.css"}
    assert "is a link" in done.blocked["css/site.css"].message
    assert set(done.placed) == {"a.js"}


def test_nothing_is_deleted_through_a_folder_that_became_a_link(
    place: Place, outside: Path
) -> None:
    """Not even a file that holds what ours held."""
    place.apply(place.change({"css/site.css": b"theirs"}))
    (place.out / "css/site.css").unlink()
    (place.out / "css").rmdir()
    (place.out / "css").symlink_to(outside / "css")
    done = place.apply(place.change({}, ("css/site.css",)))
    assert set(done.kept) == {"css/site.css"}
    assert "is a link" in done.kept["css/site.css"]
    assert (place.out / "css").is_symlink()


@pytest.mark.parametrize("part", ["public", "."])
def test_nothing_is_written_when_the_output_root_itself_became_a_link(
    tmp_path: Path, outside: Path, part: str
) -> None:
    """Nor a folder above it: the real path that the configuration gave is what counts."""
    place = Place(tmp_path / "site")
    place.out.mkdir(parents=True)
    place.apply(place.change({"css/site.css": b"ours"}))
    change = place.change({"css/site.css": b"new", "b": b"b"}, ("css/site.css",))
    moved = (place.root / part).resolve()
    moved.rename(tmp_path / "elsewhere")
    moved.symlink_to(outside)
    done = publish.apply(str(place.out), change, place.known.get, lambda _: False)
    assert (done.placed, done.deleted, done.kept) == ({}, (), {})
    assert set(done.blocked) == {"css/site.css", "b"}
    assert "is a link" in done.blocked["b"].message
    assert done.blocked["b"].transient
    assert set(done.stuck) == {"css/site.css"}


def test_a_link_in_the_place_of_an_output_is_kept_and_not_followed(
    place: Place, outside: Path
) -> None:
    """Neither what it points at nor the link is replaced."""
    place.out.mkdir()
    (place.out / "site.css").symlink_to(outside / "css/site.css")
    done = place.apply(place.change({"site.css": b"ours"}))
    assert "a file that is not ours" in done.blocked["site.css"].message
    assert (place.out / "site.css").is_symlink()
    # Asked for, the link goes, and not what it points at.
    assert place.apply(place.change({"site.css": b"ours"}), take_over=True).blocked == {}
    assert not (place.out / "site.css").is_symlink()


def test_a_link_to_the_right_bytes_is_not_adopted(place: Place, outside: Path) -> None:
    """It would be deleted one day, as ours."""
    place.out.mkdir()
    (place.out / "site.css").symlink_to(outside / "css/site.css")
    done = place.apply(place.change({"site.css": b"theirs"}))
    assert set(done.blocked) == {"site.css"}
    assert publish.identify(str(place.out), "site.css") is None


def test_a_fifo_in_the_place_of_an_output_holds_nobody_up(place: Place) -> None:
    """Opening one waits for a writer, for ever, unless one takes care."""
    place.out.mkdir()
    os.mkfifo(place.out / "a.css")
    assert set(place.apply(place.change({"a.css": b"a"})).blocked) == {"a.css"}


# -- files and folders ------------------------------------------------------------------------


def test_a_file_gives_way_to_a_folder_of_the_same_name(place: Place) -> None:
    """The source `a` was replaced by `a/b`, in one change."""
    place.put(a=b"file")
    done = place.apply(place.change({"a/b": b"below"}, ("a",)))
    assert done.blocked == {}
    assert place.files() == {"a/b": b"below"}


def test_a_folder_gives_way_to_a_file_of_the_same_name(place: Place) -> None:
    """And the reverse, however deep it was."""
    place.apply(place.change({"a/b/c": b"1", "a/d": b"2"}))
    done = place.apply(place.change({"a": b"file"}, ("a/b/c", "a/d")))
    assert done.blocked == {}
    assert place.files() == {"a": b"file"}
    assert place.folders == set()


def test_a_folder_with_somebody_elses_file_does_not_give_way(place: Place) -> None:
    """The output is blocked, which is said; their file stays."""
    place.apply(place.change({"a/b": b"1"}))
    (place.out / "a/mine").write_text("theirs")
    done = place.apply(place.change({"a": b"file"}, ("a/b",)))
    assert "is a folder" in done.blocked["a"].message
    assert place.files() == {"a/mine": b"theirs"}


def test_a_file_of_ours_in_the_way_may_go_with_another_change(place: Place) -> None:
    """So the output is tried again by itself."""
    place.put(a=b"file")
    assert place.apply(place.change({"a/b": b"below"})).blocked["a/b"].transient
    (place.out / "x").write_text("theirs")
    assert not place.apply(place.change({"x/y": b"below"})).blocked["x/y"].transient


# -- what is not ours -------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["in place", "by rename"])
def test_an_output_edited_by_hand_is_neither_deleted_nor_replaced(place: Place, how: str) -> None:
    """What somebody has put into it is theirs."""
    place.put(a=b"ours", b=b"ours")
    for name in "ab":
        if how == "in place":
            (place.out / name).write_text("edited")
        else:
            (place.root / "new").write_text("edited")
            (place.root / "new").rename(place.out / name)
    done = place.apply(place.change({"a": b"new"}, ("b",)))
    assert place.files() == {"a": b"edited", "b": b"edited"}
    assert "it was edited since" in done.blocked["a"].message
    assert not done.blocked["a"].transient
    assert done.kept == {"b": "edited since we published it"}


def test_an_output_that_was_only_touched_is_still_ours(place: Place) -> None:
    """Its stamp has moved, its bytes have not."""
    place.put(a=b"ours", b=b"ours")
    for name in "ab":
        os.utime(place.out / name, (1, 1))
    done = place.apply(place.change({"a": b"new"}, ("b",)))
    assert (done.blocked, done.kept) == ({}, {})
    assert place.files() == {"a": b"new"}


def test_a_file_that_was_there_before_us_stays(place: Place) -> None:
    """Unless somebody asks for it to be taken over."""
    place.out.mkdir()
    (place.out / "a").write_text("theirs")
    done = place.put(a=b"ours")
    assert "a file that is not ours; remove it" in done.blocked["a"].message
    assert place.files() == {"a": b"theirs"}
    assert place.apply(place.change({"a": b"ours"}), take_over=True).blocked == {}
    assert place.files() == {"a": b"ours"}


def test_the_right_bytes_are_adopted_as_they_are(place: Place) -> None:
    """Not written again: what serves them sees no change."""
    place.out.mkdir()
    (place.out / "a").write_text("right")
    before = stamps.read(str(place.out / "a"))
    done = place.put(a=b"right")
    assert done.placed == {"a": before}
    assert stamps.read(str(place.out / "a")) == before
    assert list((place.root / "staging").iterdir()) == []


def test_an_output_that_was_lost_on_its_way_is_made_again(place: Place) -> None:
    """Its staged file did not survive a power loss: it must not count as published."""
    change = place.change({"a": b"a"})
    os.unlink(place.root / "staging/1")
    done = place.apply(change)
    assert done.placed == {}
    assert done.blocked["a"].transient


def test_a_folder_that_was_made_for_an_output_that_never_came_goes(place: Place) -> None:
    """As after a kill, when somebody has taken away the output root with all that was in it."""
    change = place.change({"a/b/x.txt": b"x", "a/y.txt": b"y"})
    lost, there = change.publish
    assert lost.staged is not None
    os.unlink(lost.staged)
    done = place.apply(change)
    assert (set(done.blocked), set(done.placed)) == ({lost.output}, {there.output})
    assert place.folders == {"a"}
    assert sorted(os.listdir(place.out / "a")) == ["y.txt"]


def test_folders_that_we_made_go_when_they_are_empty_and_others_stay(place: Place) -> None:
    """A folder of the user's is theirs even if nothing is in it."""
    (place.out / "theirs").mkdir(parents=True)
    place.apply(place.change({"theirs/a": b"1", "ours/deep/b": b"2", "mixed/c": b"3"}))
    (place.out / "mixed/mine").write_text("theirs")
    done = place.apply(place.change({}, ("theirs/a", "ours/deep/b", "mixed/c")))
    assert done.folders_removed == ("ours/deep", "ours")
    assert sorted(p.name for p in place.out.iterdir()) == ["mixed", "theirs"]


def test_a_disk_that_refuses_a_deletion_is_asked_again(place: Place) -> None:
    """The output is still ours, so it must not be forgotten."""
    place.put(a=b"a", b=b"b")
    place.out.mkdir(exist_ok=True)
    done_chattr = subprocess.run(
        ["chattr", "+i", str(place.out / "a")], capture_output=True, check=False
    )
    if done_chattr.returncode:
        pytest.skip("this file system knows no immutable files, or we may not make any")
    try:
        done = place.apply(place.change({"b": b"new"}, ("a",)))
    finally:
        subprocess.run(["chattr", "-i", str(place.out / "a")], check=True)
    assert done.stuck["a"].transient
    assert os.strerror(errno.EPERM) in done.stuck["a"].message
    assert (done.deleted, done.kept) == ((), {})
    assert place.apply(place.change({}, ("a",))).deleted == ("a",)


# -- staging ----------------------------------------------------------------------------------


def test_staging_is_in_the_state_folder_where_a_rename_reaches_the_output_root(
    tmp_path: Path,
) -> None:
    """And the question leaves nothing behind."""
    found = publish.staging_folder(str(tmp_path / "out"), str(tmp_path / "state"))
    assert found == str(tmp_path / "state/staging")
    assert list((tmp_path / "out").iterdir()) == []
    assert list((tmp_path / "state/staging").iterdir()) == []


def test_what_a_kill_leaves_of_the_question_goes_with_the_next(tmp_path: Path) -> None:
    """Or it would stay in the output root for ever."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / f"{publish.STAGING_NAME}-probe").write_text("")
    publish.staging_folder(str(tmp_path / "out"), str(tmp_path / "state"))
    assert list((tmp_path / "out").iterdir()) == []


@pytest.fixture
def shm(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system."""
    base = Path("/dev/shm")
    if not os.access(base, os.W_OK) or base.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("/dev/shm is no other file system that we may write to")
    folder = base / f"assetd-test-{os.getpid()}"
    folder.mkdir()
    yield folder
    subprocess.run(["rm", "-rf", str(folder)], check=True)


def test_outputs_on_another_file_system_than_the_state(tmp_path: Path, shm: Path) -> None:
    """Staging is beside them then, and gone at the end."""
    site = Site(tmp_path / "site", f"mounts: [assets]\nout_dir: {shm}/public\n")
    site.write("assets/css/a.scss", "a { b: c }")
    site.write("assets/b.txt", "b")

    def outputs() -> set[str]:
        return {str(p.relative_to(shm / "public")) for p in (shm / "public").rglob("*")}

    with site.daemon() as daemon:
        assert os.path.isdir(shm / "public" / publish.STAGING_NAME)
        site.write("assets/c.txt", "c")
        site.remove("assets/b.txt")
        assert daemon.sync() == []
        assert daemon.end() == 0
    assert outputs() == {"css", "css/a.css", "c.txt"}
    site.write("assets/c.txt", "d")
    assert site.build()["batch"]["built"] == 1
    assert outputs() == {"css", "css/a.css", "c.txt"}
    assert (shm / "public/c.txt").read_text() == "d"
