"""Stamps and digests: equality of what a file holds, never an order of times."""

import hashlib
import os
import socket
import time
from pathlib import Path

import pytest

from assetd import stamp as stamps
from assetd.model import FileFact, Stamp
from assetd.stamp import Looker, NotAFileError, digest_bytes, digest_file, is_racy, look, read


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def old(path: Path) -> None:
    """Wait until the stamp of the file or folder proves something."""
    while is_racy(stamps.of_stat(path.stat())):
        time.sleep(0.002)


def test_a_stamp_moves_with_every_way_to_change_a_file(tmp_path: Path) -> None:
    """Written, replaced, or written back with its old time: each is another stamp."""
    path = tmp_path / "a"
    path.write_text("one")
    seen = {read(os.fspath(path))}
    for change in (
        lambda: path.write_text("longer"),
        lambda: os.utime(path, (0, 0)),
        lambda: path.chmod(0o600),
        lambda: os.replace(fresh(tmp_path), path),
    ):
        old(path)
        change()
        seen.add(read(os.fspath(path)))
    assert len(seen) == 5
    assert None not in seen


def fresh(folder: Path) -> Path:
    other = folder / "other"
    other.write_text("longer")
    os.utime(other, (0, 0))
    return other


def test_what_is_no_regular_file_has_no_stamp(tmp_path: Path) -> None:
    """Absent, a folder, a FIFO, a socket, a loop, a link to nowhere, a NUL: all are absent."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "nowhere").symlink_to("gone")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(os.fspath(tmp_path / "socket"))
    for name in ("gone", ".", "fifo", "loop", "nowhere", "socket", "a\0b", "x" * 300):
        assert read(f"{tmp_path}/{name}") is None


def test_a_link_has_the_stamp_of_its_target(tmp_path: Path) -> None:
    """Whose content it is."""
    (tmp_path / "file").write_text("one")
    (tmp_path / "link").symlink_to("file")
    assert read(f"{tmp_path}/link") == read(f"{tmp_path}/file") is not None


def test_a_stamp_of_the_last_tick_proves_nothing() -> None:
    """The file may be written once more within the tick of the clock that stamped it."""
    now = time.time_ns()
    assert is_racy(Stamp(0, 0, 1, now), now)
    assert is_racy(Stamp(0, 0, 1, now - stamps.TICK_NS + 1), now)
    assert not is_racy(Stamp(0, 0, 1, now - stamps.TICK_NS), now)
    assert is_racy(Stamp(0, 0, 1, now + 10**12), now)  # a clock set back


def test_a_time_that_somebody_set_proves_as_much_as_any_other() -> None:
    """Only the kernel's own time counts: unpackers set the other to years ago, or ahead."""
    now = time.time_ns()
    assert not is_racy(Stamp(now + 10**15, 0, 1, now - 10**9), now)
    assert is_racy(Stamp(0, 0, 1, now), now)


def test_a_digest_is_the_sha_256_of_the_content(tmp_path: Path) -> None:
    """Of small, empty and large files alike."""
    for content in (b"", b"abc", os.urandom(3_000_000)):
        (tmp_path / "a").write_bytes(content)
        digest, stamp = digest_file(f"{tmp_path}/a")
        assert digest == sha(content) == digest_bytes(content)
        assert stamp == read(f"{tmp_path}/a")


def test_what_cannot_be_read_raises_and_never_waits(tmp_path: Path) -> None:
    """A FIFO among the sources would wait for a writer, for ever."""
    os.mkfifo(tmp_path / "fifo")
    for name in ("fifo", "."):
        with pytest.raises(NotAFileError):
            digest_file(f"{tmp_path}/{name}")
    with pytest.raises(FileNotFoundError):
        digest_file(f"{tmp_path}/gone")


def test_a_look_never_raises(tmp_path: Path) -> None:
    """What cannot be read holds nothing, which is a content too."""
    os.mkfifo(tmp_path / "fifo")
    for name in ("gone", "fifo", ".", "a\0b"):
        assert look(f"{tmp_path}/{name}", "place") == FileFact("place", None, None)


def test_a_look_gives_a_stamp_only_if_it_proves_the_digest(tmp_path: Path) -> None:
    """A racy one is not handed out; whoever gets none looks again."""
    path = tmp_path / "a"
    path.write_text("one")
    os.utime(path)
    assert look(os.fspath(path), "a") == FileFact("a", None, sha(b"one"))
    old(path)
    assert look(os.fspath(path), "a") == FileFact("a", read(os.fspath(path)), sha(b"one"))


def test_a_looker_sees_a_change_that_keeps_size_and_time(tmp_path: Path) -> None:
    """Written over within a tick, with the old time set again: the content counts."""
    path = tmp_path / "a"
    looker = Looker(os.fspath(tmp_path))
    for number in range(50):
        content = f"{number:04}".encode()
        path.write_bytes(content)
        os.utime(path, (1_000_000_000, 1_000_000_000))
        looker.look_again()
        assert looker.fact("a").digest == sha(content)


def test_a_looker_reads_a_file_once_while_its_stamp_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is what makes it worth having."""
    path = tmp_path / "a"
    path.write_text("one")
    old(path)
    looker = Looker(os.fspath(tmp_path))
    first = looker.fact("a")
    assert first == FileFact("a", read(os.fspath(path)), sha(b"one"))
    with monkeypatch.context() as patch:
        patch.setattr(stamps, "digest_file", None)  # whoever reads it fails
        looker.look_again()
        assert looker.fact("a") == first
    path.unlink()
    assert looker.fact("a") == first, "the same moment"
    looker.look_again()
    assert looker.fact("a") == FileFact("a", None, None)


def test_a_looker_looks_at_a_folder_for_all_that_is_not_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for each moment, as long as its stamp stands: then nothing has come into it."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/a").touch()
    old(tmp_path / "folder")
    looker = Looker(os.fspath(tmp_path))
    names = [f"folder/{n}" for n in range(10)] + [f"folder/none/{n}" for n in range(10)]
    assert {looker.seen(name).kind for name in names} == {None}
    with monkeypatch.context() as patch:
        patch.setattr(os, "lstat", None)
        looker.look_again()
        assert {looker.seen(name).kind for name in names} == {None}
    (tmp_path / "folder/3").touch()
    (tmp_path / "folder/none").mkdir()
    (tmp_path / "folder/none/4").mkdir()
    looker.look_again()
    assert {name: looker.seen(name).kind for name in names} == dict.fromkeys(names) | {
        "folder/3": "file",
        "folder/none/4": "folder",
    }


def test_a_looker_sees_what_comes_into_a_folder_within_a_tick(tmp_path: Path) -> None:
    """A folder that has changed just now proves nothing: its clock may not have ticked since."""
    looker = Looker(os.fspath(tmp_path))
    for number in range(200):
        name, next_one = f"{number}", f"{number + 1}"
        (tmp_path / name).touch()
        looker.look_again()
        assert looker.seen(name).kind == "file"
        assert looker.seen(next_one).kind is None


def test_a_looker_sees_a_folder_of_the_same_stamp_in_the_place_of_another(tmp_path: Path) -> None:
    """It is another one by its inode, and its names are others."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    (tmp_path / "two/a").touch()
    for name in ("one", "two"):
        old(tmp_path / name)
    looker = Looker(os.fspath(tmp_path))
    assert looker.seen("one/a").kind is None
    (tmp_path / "one").rename(tmp_path / "three")
    (tmp_path / "two").rename(tmp_path / "one")
    looker.look_again()
    assert looker.seen("one/a").kind == "file"


def test_a_looker_follows_a_link_to_wherever_it_leads_by_now(tmp_path: Path) -> None:
    """No folder proves that a link leads nowhere, and no stamp that a file is no link."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "a").symlink_to("elsewhere/b")
    old(tmp_path)
    looker = Looker(os.fspath(tmp_path))
    target = os.fspath(tmp_path / "elsewhere/b")
    assert (looker.seen("a").kind, looker.links("a")) == (None, (target,))
    (tmp_path / "elsewhere/b").write_text("two")
    old(tmp_path / "elsewhere/b")
    looker.look_again()
    assert (looker.seen("a").kind, looker.links("a")) == ("file", (target,))
    assert looker.fact("a").digest == sha(b"two")

    assert looker.links("elsewhere/b") == ()
    looker.seen("elsewhere/b")
    (tmp_path / "elsewhere/b").rename(tmp_path / "c")
    (tmp_path / "elsewhere/b").symlink_to(tmp_path / "c")
    looker.look_again()
    assert looker.links("elsewhere/b") == (os.fspath(tmp_path / "c"),)


def test_a_looker_gets_at_nothing_that_is_no_place(tmp_path: Path) -> None:
    """It is as if it were not there, and nothing waits or raises."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    looker = Looker(os.fspath(tmp_path))
    for _ in range(2):
        assert looker.seen("fifo").kind == "other"
        for name in ("loop", "a\0b", "fifo/a", "x" * 300, "gone/a"):
            assert looker.seen(name).kind is None, name
            assert looker.fact(name) == FileFact(name, None, None)
        looker.look_again()


def test_a_looker_remembers_only_so_many(tmp_path: Path) -> None:
    """Weeks of a running daemon see more files than fit."""
    looker = Looker(os.fspath(tmp_path), limit=10)
    for number in range(25):
        (tmp_path / f"{number}").write_text(f"{number}")
    old(tmp_path / "24")
    for number in range(25):
        assert looker.place(os.fspath(tmp_path / f"{number}")) == f"{number}"
        assert looker.fact(f"{number}").digest == sha(f"{number}".encode())
        assert len(looker._seen) <= 10
        assert len(looker._places) <= 10


def test_a_file_is_read_whole_or_not_at_all(tmp_path: Path) -> None:
    """Content and stamp of one moment; nothing of what is longer, no file, or led elsewhere."""
    folder = tmp_path.resolve()
    (folder / "a").write_bytes(b"12345")
    (folder / "link").symlink_to("a")
    (folder / "way").symlink_to(".")
    stamp = read(f"{folder}/a")
    assert (b"12345", stamp) == stamps.read_whole(f"{folder}/a", 5)
    assert stamps.read_whole(f"{folder}/a", 4) is None
    assert stamps.read_whole(f"{folder}/way/a", 5) is None
    assert stamps.read_whole(f"{folder}", 1 << 20) is None
    for name in ("link", "gone"):
        with pytest.raises(OSError, match=name):
            stamps.read_whole(f"{folder}/{name}", 5)


def test_the_way_to_a_path_names_the_links_that_are_passed(tmp_path: Path) -> None:
    """By the real folders that they are in, in order; and where it ends, if it ends before."""
    root = os.path.realpath(tmp_path)
    os.makedirs(f"{root}/a/b")
    os.symlink("../a", f"{root}/a/up")
    os.symlink(f"{root}/a/up/b", f"{root}/absolute")
    os.symlink("absolute/../absolute", f"{root}/dots")
    os.symlink("nowhere/x", f"{root}/dangling")
    os.symlink("loop", f"{root}/loop")
    up, absolute = f"{root}/a/up", f"{root}/absolute"
    assert stamps.way(f"{root}/a/b") == ([], None)
    assert stamps.way(f"{root}/a/b/c/d") == ([], f"{root}/a/b/c")
    assert stamps.way(f"{root}/absolute/c") == ([absolute, up], f"{root}/a/b/c")
    assert stamps.way(f"{root}/dots") == (
        [f"{root}/dots", absolute, up],
        f"{root}/a/absolute",  # `..` is of the folder that the link led to
    )
    assert stamps.way(f"{root}/dangling") == ([f"{root}/dangling"], f"{root}/nowhere")
    links, end = stamps.way(f"{root}/loop/x")
    assert (set(links), end) == ({f"{root}/loop"}, None)


def test_whether_a_path_crosses_a_link(tmp_path: Path) -> None:
    """At its end or on the way; what is above the folder does not count."""
    root = os.fspath(tmp_path)
    os.makedirs(f"{root}/a/b")
    os.symlink("a", f"{root}/link")
    assert [stamps.crosses_link(root, path) for path in ("", "a", "a/b", "no/x")] == [False] * 4
    assert [stamps.crosses_link(root, path) for path in ("link", "link/b")] == [True] * 2
    assert not stamps.crosses_link(f"{root}/link", "b")


def test_the_stamp_of_a_link_is_its_own(tmp_path: Path) -> None:
    """Not that of what it leads to; a file has none of this kind."""
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("text")
    link.symlink_to("file")
    seen = stamps.read_link(os.fspath(link))
    file.write_text("longer")
    assert stamps.read_link(os.fspath(link)) == seen == stamps.of_stat(link.lstat())
    assert stamps.read_link(os.fspath(file)) is None
    assert stamps.read_link(os.fspath(tmp_path / "nothing")) is None
