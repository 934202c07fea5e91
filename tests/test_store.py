"""The store: results once made, bounded, worth nothing if they are not what they say."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from assetd.model import Dependency, DependencyKey, Diagnostic, Kind, Made
from assetd.stamp import digest_bytes
from assetd.store import RESULTS_PER_KEY, Result, Store, base_key

KEY = base_key("sass", "1", "0" * 64, "css/site.scss", "1" * 64)
DEPENDENCIES = (
    Dependency(Kind.FILE, "assets/css/_vars.scss", "", "2" * 64),
    Dependency(Kind.FILE, "assets/css/_absent.scss", "", None),
    Dependency(Kind.GLOB, "assets/css", "*.scss", "3" * 64),
)
MADE = (Made("css/site.css", "4" * 64, 17),)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def keep(store: Store, folder: Path, content: bytes) -> str:
    """Put *content* into the store; gives its digest."""
    file = folder / "content"
    file.write_bytes(content)
    digest = digest_bytes(content)
    store.put(digest, str(file))
    return digest


def found(store: Store) -> list[Result]:
    return list(store.find(KEY))


def objects(folder: Path, area: str = "objects") -> list[Path]:
    return [path for path in (folder / "store" / area).rglob("*") if path.is_file()]


def test_a_result_is_found_as_it_was_saved(store: Store) -> None:
    """Dependencies present and absent, outputs and warnings all come back."""
    result = Result(DEPENDENCIES, MADE, (Diagnostic("old syntax", "assets/a.scss", 3, 1),))
    assert not found(store)
    store.save(KEY, result)
    assert found(store) == [result]
    assert not list(store.find(base_key("sass", "2", "0" * 64, "css/site.scss", "1" * 64)))


def test_the_results_of_several_branches_are_remembered_the_latest_first(store: Store) -> None:
    """One set of dependencies each, and not without end."""
    results = [
        Result((Dependency(Kind.FILE, "assets/_a.scss", "", f"{n:064x}"),), MADE, ())
        for n in range(RESULTS_PER_KEY + 3)
    ]
    for result in results:
        store.save(KEY, result)
    store.save(KEY, results[-2])
    kept = found(store)
    assert len(kept) == RESULTS_PER_KEY
    assert kept[:3] == [results[-2], results[-1], results[-3]]


def test_the_results_that_hold_are_found_among_those_of_several_branches(store: Store) -> None:
    """Those whose dependencies have today's digests, and whoever is asked for one is asked once."""
    other = Dependency(Kind.FILE, "assets/css/_other.scss", "", "6" * 64)
    older = Result(DEPENDENCIES, MADE, ())
    wider = Result((*DEPENDENCIES, other), MADE, ())
    gone = Result((other._replace(digest=None),), MADE, ())
    for result in (older, wider, gone, older):
        store.save(KEY, result)
    assert found(store) == [older, gone, wider]
    now = {each.key: each.digest for each in wider.dependencies}
    asked = []

    def current(key: DependencyKey) -> str | None:
        asked.append(key)
        return now[key]

    assert list(store.find(KEY).holding(current)) == [older, wider]
    assert len(asked) == len(DEPENDENCIES) + 1 + len(wider.dependencies)
    now[other.key] = None
    assert list(store.find(KEY).holding(now.__getitem__)) == [older, gone]


def test_names_that_are_not_utf8_survive(store: Store) -> None:
    """A file name is bytes."""
    name = os.fsdecode(b"css/caf\xe9\n.scss")
    result = Result((Dependency(Kind.FILE, name, "", None),), (Made(name, "5" * 64, 0),), ())
    store.save(KEY, result)
    assert found(store) == [result]


def test_a_content_comes_back_byte_for_byte(store: Store, tmp_path: Path) -> None:
    """Whatever it is; what nobody kept is not there."""
    for content in (b"", b"a { b: c }", bytes(range(256)) * 5000):
        digest = keep(store, tmp_path, content)
        assert store.fetch(digest, str(tmp_path / "back"))
        assert (tmp_path / "back").read_bytes() == content
    assert not store.fetch("f" * 64, str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_a_content_is_a_copy_that_edits_do_not_reach(store: Store, tmp_path: Path) -> None:
    """People edit outputs in place now and then."""
    digest = keep(store, tmp_path, b"ours")
    (tmp_path / "content").write_bytes(b"theirs")
    assert store.fetch(digest, str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == b"ours"


@pytest.mark.parametrize("damage", [b"", b"half", b"x" * 100_000])
def test_a_content_that_is_not_what_its_name_says_is_dropped(
    store: Store, tmp_path: Path, damage: bytes
) -> None:
    """A power loss cuts files short; the next put makes it whole."""
    digest = keep(store, tmp_path, b"content")
    [path] = objects(tmp_path)
    path.write_bytes(damage)
    assert not store.fetch(digest, str(tmp_path / "back"))
    assert objects(tmp_path) == []
    keep(store, tmp_path, b"content")
    assert store.fetch(digest, str(tmp_path / "back"))


@pytest.mark.parametrize("damage", [b"", b"[[", b"{}", b"[[1, 2]]", b"[5]", b"\xff\xfe", b"null"])
def test_a_result_that_cannot_be_read_is_dropped(
    store: Store, tmp_path: Path, damage: bytes
) -> None:
    """It is worth nothing, so it makes room for one that can."""
    store.save(KEY, Result(DEPENDENCIES, MADE, ()))
    [path] = objects(tmp_path, "results")
    path.write_bytes(damage)
    assert not found(store)
    store.save(KEY, Result(DEPENDENCIES, MADE, ()))
    assert len(found(store)) == 1


def test_trimming_keeps_what_was_used_last_within_the_bound(store: Store, tmp_path: Path) -> None:
    """The least recently used goes first, and using it counts."""
    digests = [keep(store, tmp_path, bytes([n]) * 1000) for n in range(10)]
    for age, digest in enumerate(digests):
        path = tmp_path / "store" / "objects" / digest[:2] / digest[2:]
        when = time.time() - 1000 + age
        os.utime(path, (when, when))
    assert store.fetch(digests[0], str(tmp_path / "back"))
    *_, left = store.trim(3500)
    assert left == 3000
    assert sum(path.stat().st_size for path in objects(tmp_path)) == 3000
    kept = [d for d in digests if store.fetch(d, str(tmp_path / "back"))]
    assert kept == [digests[0], digests[8], digests[9]]


def test_a_store_that_cannot_be_written_costs_time_and_nothing_else(tmp_path: Path) -> None:
    """Nothing in it is ever needed: a full disk must not fail a job over it."""
    (tmp_path / "store").write_text("in the way")
    store = Store(str(tmp_path / "store"))
    digest = keep(store, tmp_path, b"content")
    store.save(KEY, Result(DEPENDENCIES, MADE, ()))
    assert not found(store)
    assert not store.fetch(digest, str(tmp_path / "back"))
    assert list(store.trim(0)) == []


USER = """
import hashlib, sys
from assetd.model import Dependency, Kind, Made
from assetd.store import Result, Store, base_key
folder, number = sys.argv[1], int(sys.argv[2])
store = Store(f"{folder}/store")
for n in range(300):
    content = f"{n % 30}".encode() * 500
    digest = hashlib.sha256(content).hexdigest()
    key = base_key("p", "1", "", f"{n % 7}", "")
    with open(f"{folder}/in{number}", "wb") as file:
        file.write(content)
    store.put(digest, f"{folder}/in{number}")
    assert store.fetch(digest, f"{folder}/out{number}") or number == 2
    store.save(key, Result((), (Made("a", digest, 1),), ()))
    assert list(store.find(key)) or number == 2
    if number == 2:
        for _ in store.trim(20_000):
            pass
"""


@pytest.mark.parametrize("numbers", [(0, 1), (0, 3)])
def test_two_processes_at_once_never_see_half_a_file(
    tmp_path: Path, numbers: tuple[int, int]
) -> None:
    """They write the same names and agree on nothing."""
    users = [subprocess.Popen([sys.executable, "-c", USER, str(tmp_path), str(n)]) for n in numbers]
    assert [user.wait(60) for user in users] == [0, 0]
    assert all(path.name.count(".") == 0 for path in objects(tmp_path))


def test_trimming_beside_a_writer_breaks_neither(tmp_path: Path) -> None:
    """What was trimmed between a put and its fetch is simply not there."""
    script = USER.replace("number == 2", "True", 2)
    users = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path), str(n)]) for n in (1, 2)
    ]
    assert [user.wait(60) for user in users] == [0, 0]
