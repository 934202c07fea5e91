"""The record: what went in comes out, a commit costs what changed, damage costs nothing else."""

import os
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from assetd.errors import RecordError
from assetd.model import (
    Cause,
    Change,
    Deletion,
    Dependency,
    Diagnostic,
    Done,
    Entry,
    EntryState,
    FileFact,
    Kind,
    Made,
    NodeRecord,
    NodeState,
    Output,
    Publication,
    Reason,
    Source,
    Stamp,
)
from assetd.record import CorruptRecordError, Reader, Record
from assetd.testing import Site

DIGEST = "ab" * 32
STAMP = Stamp(1_700_000_000_123_456_789, 17, 4711, 1_700_000_001_987_654_321)
NAMES = [
    "css/site.scss",
    "top.js",
    "a b/c'd\"e.css",
    "line\nbreak.css",
    "\x1b[31mred.css",
    "ünïcode/日本.css",
    os.fsdecode(b"caf\xe9/\xff\xfe.css"),
    "%s?#x=1.css",
]


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    found = Record(str(tmp_path / "record.sqlite"))
    yield found
    found.close()


def node(path: str, *dependencies: Dependency, **more: Any) -> NodeRecord:
    return NodeRecord(
        "sass", path, "1", DIGEST, DIGEST, dependencies, (Made(path, DIGEST, 5),), **more
    )


def entry(path: str, *dependencies: Dependency, mount: str = "assets", **more: Any) -> Entry:
    source = Source(mount, path)
    return Entry(
        source, STAMP, DIGEST, EntryState.OK, (path,), (node(path, *dependencies),), **more
    )


def on_file(place: str, digest: str | None = DIGEST) -> Dependency:
    return Dependency(Kind.FILE, place, "", digest)


def commit(
    record: Record,
    *put: Entry,
    drop: tuple[Source, ...] = (),
    files: tuple[FileFact, ...] = (),
    publish: tuple[Publication, ...] = (),
    delete: tuple[Deletion, ...] = (),
    **done: Any,
) -> None:
    """Commit one batch; without more, all that is to be published is in place."""
    batch = record.open_batch("test")
    reason = Reason(Cause.SOURCE_GONE)
    change = Change(
        batch.id,
        tuple(replace(each, batch=batch.id) for each in put),
        tuple((source, reason) for source in drop),
        files,
        publish,
        delete,
    )
    placed = done.pop("placed", {p.output: STAMP for p in publish})
    rest = {"blocked": {}, "deleted": (), "kept": {}, "stuck": {}} | done
    record.commit(record.intend(change), change, Done(placed, **rest), batch)


def published(source: Source, digest: str = DIGEST, replaces: str | None = None) -> Publication:
    return Publication(source.path, source, digest, None, replaces)


# -- what went in comes out -------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_everything_about_a_source_comes_back_whatever_its_name(record: Record, name: str) -> None:
    """A file name is bytes: not UTF-8, with newlines, with escapes."""
    full = Entry(
        Source("assets", name),
        STAMP,
        DIGEST,
        EntryState.FAILED,
        (name, f"{name}.map"),
        (
            node(
                name,
                on_file(name),
                on_file(f"absent/{name}", None),
                Dependency(Kind.GLOB, "assets", f"**/{name}", DIGEST),
                state=NodeState.FAILED,
                seconds=0.25,
                failure=Diagnostic("no", name, 3, 4, "x", transient=True),
                warnings=(Diagnostic("old", name),),
            ),
        ),
        Reason(Cause.DEPENDENCY_CHANGED, name, DIGEST, None),
        Diagnostic("why", name),
        1,
        0.5,
    )
    commit(
        record, full, files=(FileFact(name, STAMP, DIGEST), FileFact(f"absent/{name}", None, None))
    )
    assert record.entry(full.source) == full
    assert list(record.entries()) == [full]
    assert record.wrong() == record.warned() == [full]
    assert record.sources_of("assets") == [full.source]
    folder, _, base = name.rpartition("/")
    assert record.names_in("assets", folder) == {base: STAMP}
    assert record.file(name) == FileFact(name, STAMP, DIGEST)
    assert record.dependents(name) == record.dependents(f"absent/{name}") == [full.source]
    assert record.globs_at("assets") == [(f"**/{name}", full.source)]
    assert record.claimants(name) == [full.source]
    assert record.output(name) is None


@pytest.mark.parametrize("name", NAMES)
def test_an_output_comes_back_whatever_its_name(record: Record, name: str) -> None:
    """With its owner, its digest and its stamp."""
    one = entry(name)
    commit(record, one, publish=(published(one.source),))
    assert record.output(name) == Output(name, one.source, DIGEST, STAMP)
    assert list(record.outputs()) == [record.output(name)]
    assert record.count_outputs() == 1
    folder = name.rpartition("/")[0]
    if folder:
        assert record.outputs_below(folder) == [record.output(name)]
    assert record.outputs_below("") == [record.output(name)]


def test_a_reader_sees_what_was_committed_while_the_owner_goes_on(
    record: Record, tmp_path: Path
) -> None:
    """`why` and `list` ask beside a running daemon."""
    reader = Reader(str(tmp_path / "record.sqlite"))
    assert reader.entry(Source("assets", "a.css")) is None
    commit(record, entry("a.css"))
    assert reader.entry(Source("assets", "a.css")) == record.entry(Source("assets", "a.css"))
    with pytest.raises(RecordError, match="readonly"):
        reader._rows("DELETE FROM sources")
    reader.close()


# -- what a commit changes --------------------------------------------------------------------


def test_the_index_of_dependents_follows_each_commit(record: Record) -> None:
    """Also for files that nobody depends on any more, whose stamps are forgotten."""
    a, b = on_file("assets/_a.scss"), on_file("assets/_b.scss")
    facts = (FileFact(a.place, STAMP, DIGEST), FileFact(b.place, STAMP, DIGEST))
    one, two = entry("1.scss", a, b), entry("2.scss", a)
    commit(record, one, two, files=facts)
    assert record.dependents(a.place) == [one.source, two.source]
    assert record.dependents(b.place) == [one.source]
    commit(record, entry("1.scss", a))
    assert record.dependents(b.place) == []
    assert record.file(b.place) is None
    assert record.file(a.place) is not None
    commit(record, drop=(one.source, two.source))
    assert record.dependents(a.place) == []
    assert record.files_below("") == []
    assert list(record.entries()) == []


def test_a_commit_costs_what_changed_and_not_the_whole(record: Record) -> None:
    """The rows that it touches are those of its sources, among however many others."""
    shared = on_file("assets/_vars.scss")
    many = [entry(f"css/{n}.scss", shared) for n in range(5000)]
    commit(record, *many, publish=tuple(published(e.source) for e in many))

    def steps(work: Callable[[], None]) -> int:
        """How many thousand instructions SQLite takes for it."""
        count = 0

        def tick() -> int:
            nonlocal count
            count += 1
            return 0

        record._db.set_progress_handler(tick, 10)
        work()
        record._db.set_progress_handler(None, 0)
        return count

    other = on_file("assets/_other.scss")
    for change in (
        lambda: commit(record, entry("css/7.scss", shared, other)),
        lambda: commit(record, entry("css/7.scss", shared)),
        lambda: commit(record, drop=(Source("assets", "css/8.scss"),)),
        lambda: record.finish_batch(record.open_batch("test")),
        lambda: record.disown(["css/9.scss"]),
        lambda: record.restamp_output("css/10.scss", STAMP),
        lambda: record.refresh((FileFact(shared.place, STAMP, DIGEST),), ()),
        lambda: record.refresh((), [(Source("assets", "css/11.scss"), STAMP)]),
    ):
        assert steps(change) < 100  # a table scan takes 2,500


def test_the_ownership_of_an_output_moves_with_the_commit(record: Record) -> None:
    """One owner at a time; whoever claims it too is still known."""
    theme, own = entry("a.css", mount="theme"), entry("a.css", mount="assets")
    commit(record, theme, publish=(published(theme.source),))
    new = "cd" * 32
    overridden = replace(theme, state=EntryState.OVERRIDDEN, nodes=())
    commit(record, own, overridden, publish=(published(own.source, new, DIGEST),))
    assert record.output("a.css") == Output("a.css", own.source, new, STAMP)
    assert set(record.claimants("a.css")) == {own.source, theme.source}
    assert record.count_outputs() == 1
    assert record.unplaced() == [theme.source]
    commit(
        record,
        theme,
        drop=(own.source,),
        publish=(published(theme.source, DIGEST, new),),
    )
    assert record.output("a.css") == Output("a.css", theme.source, DIGEST, STAMP)
    assert record.claimants("a.css") == [theme.source]
    assert record.unplaced() == []


def test_an_output_that_could_not_be_replaced_is_still_ours(record: Record) -> None:
    """Else it would pass for somebody else's file when the disk has space again."""
    one = entry("a.css")
    commit(record, one, publish=(published(one.source),))
    new = "cd" * 32
    why = Diagnostic("No space left on device", transient=True)
    other = entry("a.css", mount="theme", problem=why)
    commit(
        record,
        replace(other, state=EntryState.BLOCKED),
        drop=(one.source,),
        publish=(published(other.source, new, DIGEST),),
        placed={},
        blocked={"a.css": why},
    )
    assert record.output("a.css") == Output("a.css", other.source, DIGEST, None)
    assert record.count_outputs() == 1
    [wrong] = record.wrong()
    assert (wrong.state, wrong.problem) == (EntryState.BLOCKED, why)


def test_what_was_deleted_or_kept_is_ours_no_more(record: Record) -> None:
    """An output that its owner still claims is known to be missing."""
    one, two = entry("a.css"), entry("b.css")
    commit(record, one, two, publish=(published(one.source), published(two.source)))
    reason = Reason(Cause.NO_LONGER_MADE)
    commit(
        record,
        one,
        drop=(two.source,),
        delete=tuple(Deletion(e.source.path, e.source, DIGEST, reason) for e in (one, two)),
        deleted=("a.css",),
        kept={"b.css": "edited"},
    )
    assert record.count_outputs() == 0
    assert record.unplaced() == [one.source]
    assert record.claimants("b.css") == []


def test_folders_that_we_made_are_known(record: Record) -> None:
    """They go when they are empty; others stay."""
    commit(record, entry("a/b/c.css"), folders_made=("a", "a/b"))
    assert record.made_folder("a/b")
    assert not record.made_folder("a/c")
    commit(record, entry("a/b/c.css"), folders_removed=("a/b",))
    assert not record.made_folder("a/b")


def test_why_can_be_asked_days_later(record: Record) -> None:
    """Each batch that built a source is told with its reason, once."""
    source = Source("assets", "a.css")
    for n, cause in enumerate((Cause.NEW, Cause.SOURCE_CHANGED, Cause.OPTIONS_CHANGED)):
        commit(record, entry("a.css", reason=Reason(cause), seconds=float(n)))
    commit(record, drop=(source,))
    told = [(reason.cause, result) for _, reason, result, _ in record.history(source, 10)]
    assert told == [
        (Cause.SOURCE_GONE, "deleted"),
        (Cause.OPTIONS_CHANGED, "ok"),
        (Cause.SOURCE_CHANGED, "ok"),
        (Cause.NEW, "ok"),
    ]
    assert record.departed(5) == [source]


def test_a_source_that_turned_out_as_it_was_tells_its_story_once(record: Record) -> None:
    """Looking at it again, without a build, is no event in its life."""
    one = replace(entry("a.css"), batch=1)
    batch = record.open_batch("test")
    for _ in range(2):
        record.commit(0, Change(batch.id, (one,)), Done({}, {}, (), {}, {}), batch)
    assert record.history(one.source, 10) == []


def test_what_was_intended_and_not_committed_is_there_after_a_crash(tmp_path: Path) -> None:
    """Whole, with names that are not UTF-8, so that it can be done again."""
    path = str(tmp_path / "record.sqlite")
    source = Source("assets", NAMES[-2])
    change = Change(
        7,
        (replace(entry(NAMES[-2], on_file(NAMES[3])), batch=7),),
        ((Source("assets", "gone"), Reason(Cause.SOURCE_GONE, "gone")),),
        (FileFact(NAMES[3], STAMP, DIGEST),),
        (Publication(NAMES[-2], source, DIGEST, "/staging/1", None),),
        (Deletion("gone", Source("assets", "gone"), DIGEST, Reason(Cause.SOURCE_GONE)),),
    )
    first = Record(path)
    number = first.intend(change)
    first._db.close()  # without a word
    second = Record(path)
    assert second.intents() == [(number, change)]
    done = Done({NAMES[-2]: STAMP}, {}, ("gone",), {}, {})
    second.commit(number, change, done, second.open_batch("start"))
    assert second.intents() == []
    assert second.output(NAMES[-2]) is not None
    second.close()


# -- damage -----------------------------------------------------------------------------------


def test_a_record_of_a_newer_assetd_is_refused_and_left_alone(tmp_path: Path) -> None:
    """One line that says what to do; the file stays as it is."""
    site = Site(tmp_path / "site")
    site.write("assets/a.txt", "a")
    site.build()
    path = site.root / ".assetd/record.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
        db.execute("UPDATE meta SET value = '99' WHERE key = 'schema'")
    db.close()
    before = path.read_bytes()
    for command in ("build", "run"):
        done = site.run(command)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert "was made by a newer assetd (schema 99, ours is 1): use that one" in done.stderr
    assert path.read_bytes() == before


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def cut_short(path: Path) -> None:
    os.truncate(path, 100)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def garbage_header(path: Path) -> None:
    with open(path, "r+b") as file:
        file.write(b"GARBAGE!" * 4)


def garbage(path: Path) -> None:
    path.write_bytes(random.Random(7).randbytes(path.stat().st_size))


def no_tables(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 1")
    db.close()


def other_rows(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("UPDATE sources SET detail = '{', reason = '[]'")
    db.close()


def newer_by_accident(path: Path) -> None:
    with open(path, "r+b") as file:
        file.seek(60)  # where SQLite keeps the version of the schema
        file.write(b"\0\0\0\x87")


def gone(path: Path) -> None:
    path.unlink()


DAMAGES = [
    truncate,
    cut_short,
    empty,
    garbage_header,
    garbage,
    no_tables,
    other_rows,
    newer_by_accident,
    gone,
]


def small_site(root: Path) -> Site:
    site = Site(root)
    site.write("assets/css/site.scss", '@import "vars"; a { b: $c }')
    site.write("assets/css/_vars.scss", "$c: red;")
    site.write("assets/js/app.js.concat", "files: [a.js, b.js]")
    site.write("assets/js/a.js", "a")
    site.write("assets/js/b.js", "b")
    site.write("assets/img/logo.txt", "logo")
    return site


def identities(site: Site) -> dict[str, tuple[int, int]]:
    """Inode and time of change of each output: whether it is the very same file."""
    base = site.root / "public"
    stats = {path: (base / path).stat() for path in site.outputs()}
    return {path: (found.st_ino, found.st_mtime_ns) for path, found in stats.items()}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_build_sets_a_damaged_record_aside_and_makes_it_anew(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    """Outputs that are right are adopted, not written again, and the next edit is built."""
    site = small_site(tmp_path / "site")
    site.build()
    outputs, before = site.outputs(), identities(site)
    damage(site.root / ".assetd/record.sqlite")
    assert site.build("--force" if damage is other_rows else "--json")["errors"] == []
    assert identities(site) == before
    site.write("assets/css/_vars.scss", "$c: blue;")
    assert site.build()["batch"]["built"] == 1
    assert site.outputs() == outputs | {"css/site.css": b"a {\n  b: blue; }\n"}
    aside = [
        p
        for p in (site.root / ".assetd").glob("record.sqlite.damaged-*")
        if p.suffix[-1] in "0123456789"
    ]
    assert len(aside) == (0 if damage in {gone, empty} else 1)


@pytest.mark.parametrize("damage", [truncate, gone])
def test_a_daemon_sets_a_damaged_record_aside_and_makes_it_anew(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    """As a build does; and it goes on watching."""
    site = small_site(tmp_path / "site")
    site.build()
    before = identities(site)
    damage(site.root / ".assetd/record.sqlite")
    with site.daemon() as daemon:
        assert daemon.status()["errors"] == []
        assert identities(site) == before
        assert ("record_damaged" in daemon.log) is (damage is not gone)
        site.write("assets/css/_vars.scss", "$c: blue;")
        assert daemon.sync() == []
    assert site.output("css/site.css") == "a {\n  b: blue; }\n"


def test_what_a_damaged_record_still_tells_is_not_forgotten(tmp_path: Path) -> None:
    """Outputs that it knew to be ours are replaced and deleted, whatever happened meanwhile."""
    site = small_site(tmp_path / "site")
    site.write("assets/img/old.txt", "old")
    site.build()
    other_rows(site.root / ".assetd/record.sqlite")
    site.remove("assets/img/old.txt")
    site.write("assets/img/logo.txt", "new logo")
    (site.root / "public/js/app.js").write_text("edited by hand")
    site.write("assets/js/a.js", "other a")
    answer = site.build()
    [error] = answer["errors"]
    assert (error["source"], error["state"]) == ("js/app.js.concat", "blocked")
    expected = site.clean_build() | {"js/app.js": b"edited by hand"}
    assert site.outputs() == expected


def test_a_record_whose_log_is_lost_is_used_or_set_aside(tmp_path: Path) -> None:
    """The write-ahead log went after a kill: the record is older than the outputs."""
    site = small_site(tmp_path / "site")
    site.build()
    with site.daemon() as daemon:
        site.write("assets/img/new.txt", "new")
        site.write("assets/img/logo.txt", "other logo")
        assert daemon.sync() == []
        daemon.kill()
    (site.root / ".assetd/record.sqlite-wal").unlink()
    (site.root / ".assetd/record.sqlite-shm").unlink()
    before = identities(site)
    assert site.build()["errors"] == []
    assert identities(site) == before
    assert site.outputs() == site.clean_build()


def test_random_damage_never_gives_a_wrong_output(tmp_path: Path) -> None:
    """Wherever a few bytes of the record are overwritten while nobody runs."""
    rounds = int(os.environ.get("ASSETD_TEST_DAMAGES", "12"))
    seed = int(os.environ.get("ASSETD_TEST_SEED", random.randrange(1 << 32)))
    print(f"ASSETD_TEST_SEED={seed}")
    dice = random.Random(seed)
    site = small_site(tmp_path / "site")
    site.build()
    path = site.root / ".assetd/record.sqlite"
    outputs = site.outputs()
    for _ in range(rounds):
        content = bytearray(path.read_bytes())
        for _ in range(dice.randrange(1, 20)):
            at = dice.randrange(len(content))
            content[at : at + 4] = dice.randbytes(4)
        path.write_bytes(content)
        answer = site.build()
        assert answer["errors"] == []
        assert site.outputs() == outputs


def test_damage_that_is_found_while_the_daemon_runs_does_not_end_it(tmp_path: Path) -> None:
    """It sets the record aside, begins a new one, and goes on."""
    site = small_site(tmp_path / "site")
    with site.daemon() as daemon:
        daemon.sync()
        with sqlite3.connect(site.root / ".assetd/record.sqlite", timeout=5) as db:
            db.execute("UPDATE sources SET detail = '{'")
        db.close()
        site.write("assets/css/_vars.scss", "$c: blue;")
        deadline = time.monotonic() + 20
        while "blue" not in (site.output("css/site.css") or ""):
            assert time.monotonic() < deadline, daemon.log
            assert daemon.process.poll() is None, daemon.log
            time.sleep(0.02)
        daemon.wait_until_ready()
        assert daemon.sync() == []
        assert "record_damaged" in daemon.log
        assert site.outputs() == site.clean_build()


def test_only_the_last_few_damaged_records_are_kept(tmp_path: Path) -> None:
    """Or they would fill the disk that breaks them."""
    site = Site(tmp_path / "site")
    site.write("assets/a.txt", "a")
    site.build()
    state = site.root / ".assetd"
    for n in range(10):
        (state / f"record.sqlite.damaged-20200101-0000{n:02}-1").write_text("old")
    garbage(state / "record.sqlite")
    site.build()
    assert len(list(state.glob("record.sqlite.damaged-*"))) <= 9


def test_outputs_are_verified_after_the_machine_went_down(tmp_path: Path) -> None:
    """The stamps of a disk that lost its last writes prove nothing; the bytes do."""
    site = small_site(tmp_path / "site")
    with site.daemon() as daemon:
        daemon.sync()
        daemon.kill()
    path = site.root / "public/img/logo.txt"
    found = path.stat()
    path.write_text("l\0\0o")  # as long as before
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    record = Record(str(site.root / ".assetd/record.sqlite"))
    output = record.output("img/logo.txt")
    assert output is not None
    after = path.stat()
    record.restamp_output(
        output.path, Stamp(after.st_mtime_ns, after.st_size, after.st_ino, after.st_ctime_ns)
    )
    record.set_meta(boot="another")
    record.close()
    before = identities(site)
    assert site.build()["errors"] == []
    assert site.outputs() == site.clean_build()
    assert (site.root / ".assetd/kept/img/logo.txt").read_text() == "l\0\0o"
    del before["img/logo.txt"]
    assert before.items() <= identities(site).items()


def test_a_disk_that_refuses_is_no_damage(tmp_path: Path) -> None:
    """The record is not set aside for it."""
    path = str(tmp_path / "record.sqlite")
    record = Record(path)
    commit(record, entry("a.css"))
    record._db.execute("PRAGMA max_page_count = 1")
    with pytest.raises(RecordError, match="full") as caught:
        commit(record, *(entry(f"{n}.css") for n in range(500)))
    assert not isinstance(caught.value, CorruptRecordError)
    assert [e.source.path for e in record.entries()] == ["a.css"]
    record.close()
