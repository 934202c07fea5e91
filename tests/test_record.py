"""The record: what went in comes out, a commit costs what changed, damage costs nothing else."""

import contextlib
import json
import os
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from assetd.errors import CorruptRecordError, RecordError
from assetd.ledger import Known, Ledger
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
from assetd.record import Reader, Record
from assetd.stamp import digest_bytes
from assetd.testing import Site, wait_for

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
    timings: tuple[tuple[str, int, float, float], ...] = (),
    **done: Any,
) -> None:
    """Commit one batch; without more, all that is to be published is in place."""
    batch = record.open_batch("test")
    reason = Reason(Cause.SOURCE_GONE)
    change = Change(
        batch.id,
        tuple(each._replace(batch=batch.id) for each in put),
        tuple((source, reason) for source in drop),
        files,
        publish,
        delete,
    )
    placed = done.pop("placed", {p.output: STAMP for p in publish})
    rest = {"blocked": {}, "deleted": (), "kept": {}, "stuck": {}} | done
    record.commit(record.intend(change), change, Done(placed, **rest), batch, timings)


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
    overridden = theme._replace(state=EntryState.OVERRIDDEN, nodes=())
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
        other._replace(state=EntryState.BLOCKED),
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
    one = entry("a.css")._replace(batch=1)
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
        (entry(NAMES[-2], on_file(NAMES[3]))._replace(batch=7),),
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
        assert "was made by a newer assetd (schema 99, ours is 2): use that one" in done.stderr
    assert path.read_bytes() == before


def test_a_record_of_an_older_assetd_is_no_trouble(tmp_path: Path) -> None:
    """Everybody says what comes of it, nobody that it is damaged."""
    site = small_site(tmp_path / "site")
    site.build()
    before = identities(site)
    path = site.root / ".assetd/record.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 1")
        db.execute("DROP TABLE batches")
    db.close()
    told = f"{path} was made by an older assetd (schema 1, ours is 2): the next build makes it anew"
    done = site.run("status")
    assert done.returncode == 3
    assert done.stdout.splitlines()[:3] == [
        f"assetd is stopped at {site.root}",
        "",
        f"{told}, and leaves outputs that are right as they are",
    ]
    status = json.loads(site.run("status", "--json").stdout)
    assert "trouble" not in status
    assert status["outdated"].startswith(told)
    for command in ("errors", "list", "verify"):
        done = site.run(command)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert done.stderr.startswith(f"assetd: {told}")
    for command in ("doctor", "clean"):
        said = site.run(command, *(["--dry-run"] if command == "clean" else []))
        assert "damaged" not in said.stdout + said.stderr
        assert "older assetd" in said.stdout + said.stderr
    done = site.run("build")
    assert (done.returncode, done.stderr.count("\n")) == (0, 1)
    assert identities(site) == before
    assert len(list(path.parent.glob("record.sqlite.damaged-*[0-9]"))) == 1
    assert "outdated" not in json.loads(site.run("status", "--json").stdout)


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
        match dice.randrange(8):
            case 0:
                del content[dice.randrange(len(content)) :]
            case 1:  # one page for another
                here, there = (dice.randrange(len(content) // 4096) * 4096 for _ in range(2))
                content[here : here + 4096] = content[there : there + 4096]
            case 2:
                at = dice.randrange(len(content) // 512) * 512
                content[at : at + 512] = bytes(512)
            case 3:  # one bit
                content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
            case _:
                for _ in range(dice.randrange(1, 20)):
                    at = dice.randrange(len(content))
                    content[at : at + 4] = dice.randbytes(4)
        path.write_bytes(content)
        if dice.random() < 0.5:  # as after a kill
            (site.root / ".assetd/record.sealed").unlink(missing_ok=True)
        text = f"logo {dice.random()}"
        site.write("assets/img/logo.txt", text)
        outputs["img/logo.txt"] = text.encode()
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


# -- what SQLite does not notice --------------------------------------------------------------


def flip(path: Path, old: bytes, new: bytes) -> None:
    """Change bytes in the middle of a row; SQLite has nothing to say against it."""
    content = path.read_bytes()
    assert len(old) == len(new)
    assert old in content
    path.write_bytes(content.replace(old, new))
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"sass"', b'"ssas"'),
        (b"site.css", b"sitf.css"),
        (bytes.fromhex(digest_bytes(b"logo")), bytes.fromhex(digest_bytes(b"lego"))),
        (b"_vars.scss", b"_vbrs.scss"),
    ],
    ids=["a processor", "an output", "a digest", "a dependency"],
)
@pytest.mark.parametrize("killed", [False, True])
def test_a_byte_that_changed_within_a_row_is_noticed(
    tmp_path: Path, old: bytes, new: bytes, killed: bool
) -> None:
    """`PRAGMA quick_check` and `integrity_check` take it for what was written."""
    site = small_site(tmp_path / "site")
    site.build()
    before = identities(site)
    path = site.root / ".assetd/record.sqlite"
    if killed:
        (site.root / ".assetd/record.sealed").unlink()
    flip(path, old, new)
    answer = site.build()
    assert answer["errors"] == []
    assert any("record damaged" in message for message in answer["messages"])
    assert identities(site) == before
    site.write("assets/css/_vars.scss", "$c: blue;")
    assert site.build()["batch"]["built"] == 1
    assert site.outputs() == site.clean_build()


@pytest.mark.parametrize("table", ["dependents", "outputs", "sources"])
def test_a_row_that_is_missing_is_noticed(record: Record, table: str) -> None:
    """A dependency that nobody knows of would leave an output as it is for ever."""
    one, two = entry("a.css", on_file("x"), on_file("y")), entry("b.css", on_file("x"))
    commit(record, one, two, publish=(published(one.source), published(two.source)))
    record.check()
    with contextlib.closing(sqlite3.connect(record.path)) as db, db:
        column = {"dependents": "place", "outputs": "path", "sources": "name"}[table]
        db.execute(f"DELETE FROM {table} WHERE {column} IN (?, ?)", (b"a.css", b"y"))
    with pytest.raises(CorruptRecordError, match="rows are missing"):
        record.check()


def test_whatever_is_done_to_a_record_its_checksums_are_right(record: Record) -> None:
    """Stamps that move, outputs that are disowned, adopted, blocked; sources that go."""
    dice = random.Random(5)
    names = [f"{n}.css" for n in range(6)]
    for _ in range(200):
        name = dice.choice(names)
        source = Source("assets", name)
        known = record.output(name)
        match dice.randrange(7):
            case 0:
                record.disown([name])
            case 1:
                record.restamp_output(name, STAMP._replace(size=dice.randrange(99)))
            case 2:
                record.refresh((FileFact("x", STAMP, DIGEST),), ((source, STAMP),))
            case 3:
                record.adopt([Output(name, source, DIGEST, None)])
            case 4:
                commit(record, drop=(source,), files=(FileFact("x", None, None),))
            case 5:
                commit(record, timings=(("sass", 1, dice.random(), dice.random()),))
            case _:
                old = None if known is None else known.digest
                one = entry(name, *(on_file(dice.choice("xyz")) for _ in range(2)))
                commit(record, one, publish=(published(source, DIGEST, old),))
        record.finish_batch(record.open_batch("test"))
        record.check()
    assert record.count_outputs() == record.in_place


def test_an_orderly_end_saves_the_look_at_every_row(tmp_path: Path) -> None:
    """Only the file that it left, byte for byte, is believed; a kill leaves no such word."""
    path = tmp_path / "record.sqlite"
    first = Record(str(path))
    commit(first, entry("a.css"))
    assert not (tmp_path / "record.sealed").exists()
    first.close()
    assert (tmp_path / "record.sealed").read_text() == digest_bytes(path.read_bytes())
    second = Record(str(path))
    assert second._whole
    second.set_meta(clean="0")
    assert not (tmp_path / "record.sealed").exists()
    second.close()
    with open(path, "ab") as file:
        file.write(b"\0")
    assert not Record(str(path))._whole


def test_a_record_that_is_deleted_while_the_daemon_runs_is_made_anew(tmp_path: Path) -> None:
    """SQLite would go on writing to a file that has no name, and all would be lost at the end."""
    site = small_site(tmp_path / "site")
    with site.daemon() as daemon:
        daemon.sync()
        before = identities(site)
        for name in ("record.sqlite", "record.sqlite-wal", "record.sqlite-shm"):
            (site.root / ".assetd" / name).unlink(missing_ok=True)
        site.write("assets/css/_vars.scss", "$c: blue;")
        wait_for(lambda: "blue" in (site.output("css/site.css") or ""), "the edit")
        daemon.wait_until_ready()
        assert daemon.sync() == []
        assert "somebody has deleted it" in daemon.log
        del before["css/site.css"]
        assert before.items() <= identities(site).items()
        assert site.outputs() == site.clean_build()
    assert site.build()["batch"]["changed"] == 0


def test_a_record_that_is_replaced_by_an_older_copy_while_the_daemon_runs_is_noticed(
    tmp_path: Path,
) -> None:
    """What was published since is ours all the same."""
    site = small_site(tmp_path / "site")
    site.build()
    path = site.root / ".assetd/record.sqlite"
    older = tmp_path / "older"
    older.write_bytes(path.read_bytes())
    with site.daemon() as daemon:
        site.write("assets/img/new.txt", "new")
        site.write("assets/img/logo.txt", "other logo")
        assert daemon.sync() == []
        older.rename(path)
        site.write("assets/img/logo.txt", "a third logo")
        site.remove("assets/img/new.txt")
        wait_for(lambda: site.output("img/logo.txt") == "a third logo", "the edit")
        daemon.wait_until_ready()
        assert daemon.sync() == []
        assert "another file there" in daemon.log
        assert site.outputs() == site.clean_build()


# -- the ledger -------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", ["gone", "older", "of another schema"])
def test_outputs_are_ours_although_the_record_is_lost_and_their_sources_were_edited(
    tmp_path: Path, lost: str
) -> None:
    """They were taken for somebody else's until `build --take-over`."""
    site = small_site(tmp_path / "site")
    site.build()
    path = site.root / ".assetd/record.sqlite"
    older = path.read_bytes()
    site.write("assets/css/_vars.scss", "$c: green;")
    site.write("assets/img/new.txt", "new")
    site.build()
    match lost:
        case "gone":
            path.unlink()
        case "older":
            path.write_bytes(older)
        case _:
            with contextlib.closing(sqlite3.connect(path)) as db, db:
                db.execute("PRAGMA user_version = 1")
                db.execute("DROP TABLE outputs")
    site.write("assets/css/_vars.scss", "$c: blue;")
    site.remove("assets/img/new.txt")
    (site.root / "public/js/app.js").write_text("edited by hand")
    site.write("assets/js/a.js", "other a")
    answer = site.build()
    [error] = answer["errors"]
    assert (error["source"], error["state"]) == ("js/app.js.concat", "blocked")
    assert site.outputs() == site.clean_build() | {"js/app.js": b"edited by hand"}


def test_a_ledger_says_the_last_word_of_each_output_and_the_one_before(tmp_path: Path) -> None:
    """The disk decides between the two: a commit may have been cut short."""
    ledger = Ledger(str(tmp_path / "ledger"))
    sources = [Source("assets", name) for name in NAMES]
    ledger.note(1, [(source.path, "1" * 64, source) for source in sources])
    ledger.note(2, [(sources[-1].path, "2" * 64, sources[-1]), (NAMES[0], None, sources[0])])
    again = Ledger(ledger.path)
    assert again.last == 2
    known = again.read(0)
    assert sorted(known) == sorted(NAMES)
    assert known[NAMES[-1]] == Known(NAMES[-1], sources[-1], 2, ("1" * 64, "2" * 64))
    assert known[NAMES[0]].digests == ("1" * 64, None)
    assert sorted(again.read(1)) == sorted([NAMES[0], NAMES[-1]])
    again.rewrite(7, [Output("a", sources[0], "3" * 64, None)])
    assert Ledger(ledger.path).last == 7
    assert Ledger(ledger.path).read(0) == {"a": Known("a", sources[0], 7, ("3" * 64,))}


def test_a_ledger_that_is_cut_short_anywhere_is_good_for_what_is_whole(tmp_path: Path) -> None:
    """And what is written after that is whole again."""
    path = tmp_path / "ledger"
    whole = Ledger(str(path))
    for n in range(1, 4):
        whole.note(n, [(f"{n}.css", DIGEST, Source("assets", f"{n}.css"))])
    whole.close()
    content = path.read_bytes()
    ends = [n + 1 for n, byte in enumerate(content) if byte == 10]
    for length in range(len(content)):
        path.write_bytes(content[:length])
        # A line is whole without its end of line, too.
        count = sum(end - 1 <= length for end in ends)
        cut = Ledger(str(path))
        assert cut.last == count
        cut.note(9, [("new", DIGEST, Source("assets", "new"))])
        cut.close()
        assert len(Ledger(str(path)).read(0)) == count + 1


def test_a_ledger_does_not_grow_without_end(tmp_path: Path) -> None:
    """It is written anew when it is many times what is in place."""
    record = Record(str(tmp_path / "record.sqlite"), durability="off")
    one = entry("a.css")
    record.ledger._size = 3 << 20
    commit(record, one, publish=(published(one.source),))
    assert os.path.getsize(record.ledger.path) < 1_000
    assert record.ledger.read(0)["a.css"].digests == (DIGEST,)
    record.close()


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


# -- many at once -----------------------------------------------------------------------------


def test_many_entries_and_claims_are_asked_for_at_once(record: Record) -> None:
    """The answers are those of one question for each."""
    sources = [Source("assets", f"d{n % 3}/{name}") for n, name in enumerate(NAMES * 80)]
    put = [entry(s.path) for s in dict.fromkeys(sources)]
    commit(record, *put, publish=tuple(published(e.source) for e in put[::2]))
    other = entry(put[0].source.path, mount="theme")._replace(state=EntryState.OVERRIDDEN)
    commit(record, other)
    asked = [e.source for e in (*put, other)]
    nobody = Source("assets", "d0/nobody")
    known = record.entries_of([*asked, nobody])
    assert {source: record.entry(source) for source in asked} == known
    paths = [e.source.path for e in put]
    outputs = record.outputs_at([*paths, "nothing"])
    assert {p: o for p in paths if (o := record.output(p)) is not None} == outputs
    assert record.at_odds([*paths, "nothing"]) == {
        "nothing": [],
        **{p: [(p, source) for source in record.claimants(p)] for p in paths},
    }


def test_a_claim_on_a_folder_and_one_on_what_is_in_it_are_at_odds(record: Record) -> None:
    """At any depth, and whatever bytes come next to the slash; nobody else's are."""
    names = ("a", "a/b", "a/b/c", "a-b/c", "a0/c", "a/\udcff", "ab/c", "a/b.c/d")
    put = [entry(name) for name in names]
    commit(record, *put)
    found = record.at_odds([*names, "a/b/c/d"])
    assert all(path == source.path for claims in found.values() for path, source in claims)
    assert {asked: sorted(path for path, _ in claims) for asked, claims in found.items()} == {
        "a": sorted(["a", "a/b", "a/b/c", "a/\udcff", "a/b.c/d"]),
        "a/b": ["a", "a/b", "a/b/c"],
        "a/b/c": ["a", "a/b", "a/b/c"],
        "a-b/c": ["a-b/c"],
        "a0/c": ["a0/c"],
        "a/\udcff": ["a", "a/\udcff"],
        "ab/c": ["ab/c"],
        "a/b.c/d": ["a", "a/b.c/d"],
        "a/b/c/d": ["a", "a/b", "a/b/c"],
    }


def test_many_dependencies_are_asked_for_at_once(record: Record) -> None:
    """The answers are those of one question for each; nothing of what nobody depends on."""
    known = [FileFact(f"{n}/{name}", STAMP, DIGEST) for n in range(100) for name in NAMES]
    absent = FileFact("absent", None, None)
    needs = [on_file(fact.place, fact.digest) for fact in (*known, absent)]
    commit(record, entry("a.css", *needs), files=(*known, absent))
    places = [fact.place for fact in (*known, absent)]
    assert {place: record.file(place) for place in places} == record.files_at([*places, "nobody"])


def test_a_remark_waits_for_the_first_write(tmp_path: Path) -> None:
    """Whoever finds nothing to do leaves the record as it was, byte for byte."""
    path = tmp_path / "record.sqlite"
    with contextlib.closing(Record(str(path))) as record:
        commit(record, entry("a.css"))
    before = path.read_bytes()
    with contextlib.closing(Record(str(path))) as record:
        record.with_first_write(clean="0")
        assert record.meta("clean") is None
    assert before == path.read_bytes()
    with contextlib.closing(Record(str(path))) as record:
        record.with_first_write(clean="0")
        record.set_meta(other="1")
        assert record.meta("clean") == "0"
        record.set_meta(clean="1")
        record.set_meta(other="2")
        assert record.meta("clean") == "1"


def test_a_build_with_nothing_to_do_leaves_no_trace(tmp_path: Path) -> None:
    """Not even in the record: its digest is what spares the next start the look at every row."""
    site = Site(tmp_path / "site")
    site.write("assets/a.txt", "text")
    site.build()
    site.build()  # stamps of the very tick of the first one have been looked into now
    state = tmp_path / "site/.assetd"
    before = {name: (state / name).read_bytes() for name in ("record.sqlite", "record.sealed")}
    site.build()
    assert before == {name: (state / name).read_bytes() for name in before}
