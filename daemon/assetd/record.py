"""What we know from one run to the next, in SQLite.  The only SQL there is.

A commit writes what changed, never the whole.  What a commit is about to do is written down as
an intent first, whole, so that one that was cut short is done again on the next start.

SQLite notices a page that is no page any more, and nothing of a byte that changed within a row.
So every row ends with a seal, which is verified when it is read (`rows`).
Whole rows that are missing from `dependents` and `outputs` are found by the sources, each of
which keeps the checksum of those that are its own.  An orderly end writes down the digest of
the file, which saves the next start the look at every row.

`Record` is for its owner, one thread of one process; `Reader` is for anybody.
"""

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any, Final, TypeVar

from assetd import place as places
from assetd import stamp as stamps
from assetd.claims import folders
from assetd.errors import CorruptRecordError, OutdatedRecordError, RecordError
from assetd.ledger import Ledger
from assetd.model import (
    Batch,
    Change,
    Done,
    Entry,
    EntryState,
    FileFact,
    Kind,
    Output,
    Place,
    Reason,
    Source,
    Stamp,
)
from assetd.rows import (
    ENCODING,
    LINKS,
    NO_STAMP,
    NONSENSE,
    claim_sum,
    decoded,
    encoded,
    entry_of,
    fact_of,
    join,
    key_of,
    link_row,
    link_sum,
    opened,
    output_of,
    output_of_unsealed,
    raw_digest,
    row_of_entry,
    row_of_output,
    row_of_stamp,
    seal,
    sealed,
    source_of,
    split,
    split_bytes,
)

SCHEMA: Final = 2
LEDGER_NAME: Final = "ledger"
"""Of the file beside the record that says what we put in place."""
SEALED_NAME: Final = "record.sealed"
"""Of the file beside the record that an orderly end leaves: the digest of the record."""
DAMAGED_KEPT: Final = 3
"""Damaged records that are kept for whoever wants to know what happened."""
HISTORY_BATCHES: Final = 2_000
"""Batches that `why` can still tell about."""

_DDL: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB, seal INTEGER) WITHOUT ROWID;
CREATE TABLE sources (
    mount TEXT, folder BLOB, name BLOB,
    mtime_ns INTEGER, size INTEGER, inode INTEGER, ctime_ns INTEGER, digest BLOB,
    state TEXT, warnings INTEGER, batch INTEGER, seconds REAL, reason TEXT, detail TEXT,
    links INTEGER, seal INTEGER,
    PRIMARY KEY (mount, folder, name)) WITHOUT ROWID;
CREATE INDEX sources_wrong ON sources (state) WHERE state != 'ok';
CREATE INDEX sources_warned ON sources (warnings) WHERE warnings > 0;
CREATE TABLE files (
    place BLOB PRIMARY KEY,
    mtime_ns INTEGER, size INTEGER, inode INTEGER, ctime_ns INTEGER, digest BLOB,
    seal INTEGER) WITHOUT ROWID;
CREATE TABLE dependents (
    place BLOB, kind TEXT, pattern BLOB, source BLOB,
    PRIMARY KEY (place, kind, pattern, source)) WITHOUT ROWID;
CREATE TABLE outputs (
    path BLOB, source BLOB, digest BLOB,
    mtime_ns INTEGER, size INTEGER, inode INTEGER, ctime_ns INTEGER,
    seal INTEGER,
    PRIMARY KEY (path, source)) WITHOUT ROWID;
CREATE INDEX outputs_unplaced ON outputs (source) WHERE digest IS NULL;
CREATE TABLE folders (path BLOB PRIMARY KEY, seal INTEGER) WITHOUT ROWID;
CREATE TABLE intents (id INTEGER PRIMARY KEY, change TEXT, seal INTEGER);
CREATE TABLE batches (
    id INTEGER PRIMARY KEY, trigger TEXT, started_at REAL, seconds REAL, changed INTEGER,
    built INTEGER, cached INTEGER, clean INTEGER, failed INTEGER, deleted INTEGER,
    finished_at REAL, seal INTEGER);
CREATE TABLE history (
    source BLOB, batch INTEGER, reason TEXT, result TEXT, seconds REAL, seal INTEGER,
    PRIMARY KEY (source, batch)) WITHOUT ROWID;
CREATE INDEX history_batch ON history (batch);
CREATE TABLE timings (
    processor TEXT PRIMARY KEY, runs INTEGER, seconds REAL, slowest REAL,
    seal INTEGER) WITHOUT ROWID;
"""
_SEALED: Final = (
    *("meta", "sources", "files", "outputs"),
    *("folders", "intents", "batches", "history", "timings"),
)
"""The tables whose rows end with a seal."""

T = TypeVar("T")

_FAULTS: Final = (sqlite3.DatabaseError, UnicodeError)
"""What SQLite raises; the second for text, its own messages among it, that is damaged."""


class Reader:
    """The questions that anybody may ask, also while a daemon writes."""

    def __init__(self, path: str, *, read_only: bool = True) -> None:
        """Open the record at *path*.

        Raises:
            FileNotFoundError: There is none.
            CorruptRecordError: It is no record, or a damaged one, or an older assetd's.
            RecordError: A newer assetd made it.
        """
        if read_only and not os.path.exists(path):
            raise FileNotFoundError(path)
        self.path = path
        uri = f"file:{_quote(path)}?mode={'ro' if read_only else 'rwc'}"
        try:
            self._db = sqlite3.connect(uri, uri=True, timeout=5.0, isolation_level=None)
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
        except _FAULTS as error:
            raise _translated(error, path) from error
        self.version: int = version
        if version < 0 or (version > SCHEMA and self.meta("schema") != str(version)):
            raise CorruptRecordError(f"{path}: schema {version}, and it says so only once")
        if version > SCHEMA:
            raise RecordError(
                f"{path} was made by a newer assetd (schema {version}, ours is {SCHEMA}): "
                "use that one, or remove the file to build everything anew"
            )
        if 0 < version < SCHEMA:
            self._db.close()
            raise OutdatedRecordError(path, version, SCHEMA)
        if read_only and version == 0:
            raise CorruptRecordError(f"{path}: there is nothing in it")

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def _rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(sql, values).fetchall()
        except _FAULTS as error:
            raise _translated(error, self.path) from error

    def meta(self, key: str) -> str | None:
        """A remark kept under *key*."""
        # Another schema may seal in another way: all that is asked of it is which it is.
        sealed = self.version == SCHEMA
        rows = self._rows(
            f"SELECT {_META if sealed else 'key, value'} FROM meta WHERE key = ?", key
        )
        value = (opened(rows[0]) if sealed else rows[0])[1] if rows else None
        return os.fsdecode(value) if isinstance(value, str | bytes) else None

    def entry(self, source: Source) -> Entry | None:
        """What is known of *source*."""
        folder, name = split(source.path)
        rows = self._rows(
            f"SELECT {_ENTRY} FROM sources WHERE mount = ? AND folder = ? AND name = ?",
            source.mount,
            folder,
            name,
        )
        return entry_of(rows[0]) if rows else None

    def entries_of(self, sources: Iterable[Source]) -> dict[Source, Entry]:
        """What is known of those of *sources* that have an entry.

        One question for each folder, and not for each source, nor one with a list of row values:
        SQLite (3.40) answers that by reading the whole table.
        """
        names: dict[tuple[str, bytes], list[bytes]] = {}
        for source in sources:
            folder, name = split(source.path)
            names.setdefault((source.mount, folder), []).append(name)
        found = {}
        for (mount, folder), below in names.items():
            for piece in _pieces(below):
                for row in self._rows(
                    f"SELECT {_ENTRY} FROM sources WHERE mount = ? AND folder = ? "
                    f"AND name IN ({_marks(piece)})",
                    mount,
                    folder,
                    *piece,
                ):
                    entry = entry_of(row)
                    found[entry.source] = entry
        return found

    def entries(self, state: EntryState | None = None) -> Iterator[Entry]:
        """Every entry, or those in *state*, in the order of mounts and paths."""
        where, values = ("", ()) if state is None else (" WHERE state = ?", (state.value,))
        try:
            for row in self._db.execute(f"SELECT {_ENTRY} FROM sources{where}", values):
                yield entry_of(row)
        except _FAULTS as error:
            raise _translated(error, self.path) from error

    def wrong(self) -> list[Entry]:
        """The entries that fail, conflict or are blocked."""
        return [
            entry_of(row)
            for row in self._rows(
                f"SELECT {_ENTRY} FROM sources "
                "WHERE state != 'ok' AND state IN ('failed', 'conflict', 'blocked')"
            )
        ]

    def warned(self) -> list[Entry]:
        """The entries with warnings."""
        return [entry_of(r) for r in self._rows(f"SELECT {_ENTRY} FROM sources WHERE warnings > 0")]

    def count_sources(self) -> dict[tuple[str, EntryState], int]:
        """How many entries there are, by mount and state."""
        rows = self._rows("SELECT mount, state, count(*) FROM sources GROUP BY mount, state")
        try:
            return {(mount, EntryState(state)): count for mount, state, count in rows}
        except NONSENSE as error:
            raise CorruptRecordError(f"{self.path}: unreadable state: {error}") from error

    def count_outputs(self) -> int:
        """How many outputs are in place."""
        count: int = self._rows("SELECT count(*) FROM outputs WHERE digest IS NOT NULL")[0][0]
        return count

    def output(self, path: str) -> Output | None:
        """The output at *path*, if it is in place and ours."""
        rows = self._rows(
            f"SELECT {_OUTPUT} FROM outputs WHERE path = ? AND digest IS NOT NULL",
            encoded(path),
        )
        return output_of(rows[0]) if rows else None

    def outputs(self) -> Iterator[Output]:
        """Every output in place, by path."""
        try:
            for row in self._db.execute(f"SELECT {_OUTPUT} FROM outputs WHERE digest IS NOT NULL"):
                yield output_of(row)
        except _FAULTS as error:
            raise _translated(error, self.path) from error

    def output_stamps(
        self,
    ) -> Iterator[tuple[bytes, int | None, int | None, int | None, int | None]]:
        """The path of every output in place with the four numbers of its stamp, unread.

        For a start, which has checked the rows: it compares them with what `stat` says and
        makes nothing of those that fit.
        """
        try:
            yield from self._db.execute(
                "SELECT path, mtime_ns, size, inode, ctime_ns FROM outputs WHERE digest IS NOT NULL"
            )
        except _FAULTS as error:
            raise _translated(error, self.path) from error

    def outputs_of(self, mount: str) -> Iterator[tuple[str, str]]:
        """Each output that the sources of a mount have in place, with its source's path."""
        low = encoded(mount) + b"\0"
        try:
            for path, source in self._db.execute(
                "SELECT path, source FROM outputs "
                "WHERE source >= ? AND source < ? AND digest IS NOT NULL",
                (low, low[:-1] + b"\1"),
            ):
                yield decoded(path), source_of(source).path
        except _FAULTS as error:
            raise _translated(error, self.path) from error

    def listeners(self, mount: str, kind: Kind) -> list[Source]:
        """The sources that depend on what a mount has in place."""
        rows = self._rows(
            "SELECT DISTINCT source FROM dependents WHERE place = ? AND kind = ?",
            encoded(mount),
            kind.value,
        )
        return [source_of(row[0]) for row in rows]

    def outputs_below(self, folder: str) -> list[Output]:
        """The outputs in place in *folder* of the output root, at any depth."""
        low, high = _below(folder)
        return [
            output_of(row)
            for row in self._rows(
                f"SELECT {_OUTPUT} FROM outputs "
                "WHERE path >= ? AND path < ? AND digest IS NOT NULL",
                low,
                high,
            )
        ]

    def outputs_at(self, paths: Iterable[str]) -> dict[str, Output]:
        """What is in place at *paths*."""
        found: dict[str, Output] = {}
        for piece in _pieces([encoded(path) for path in paths]):
            for row in self._rows(
                f"SELECT {_OUTPUT} FROM outputs "
                f"WHERE path IN ({_marks(piece)}) AND digest IS NOT NULL",
                *piece,
            ):
                output = output_of(row)
                found[output.path] = output
        return found

    def at_odds(self, paths: Iterable[str]) -> dict[str, list[tuple[str, Source]]]:
        """For each of *paths* the claims at odds with one on it: see `claims`."""
        above = {path: [path, *folders(path)] for path in paths}
        asked = {each for every in above.values() for each in every}
        claimants: dict[str, list[tuple[str, Source]]] = {}
        for piece in _pieces([encoded(path) for path in asked]):
            for raw, source in self._rows(
                f"SELECT path, source FROM outputs WHERE path IN ({_marks(piece)})", *piece
            ):
                path = decoded(raw)
                claimants.setdefault(path, []).append((path, source_of(source)))
        found = {
            path: [claim for each in every for claim in claimants.get(each, ())]
            for path, every in above.items()
        }
        for piece in _pieces([encoded(path) for path in above]):
            for low, raw, source in self._rows(
                f"WITH wanted (low, high) AS (VALUES {', '.join(['(?, ?)'] * len(piece))}) "
                "SELECT low, path, source FROM wanted CROSS JOIN outputs "
                "ON path > low AND path < high",
                *(end for path in piece for end in (path + b"/", path + b"0")),
            ):
                found[decoded(low[:-1])].append((decoded(raw), source_of(source)))
        return found

    def claimants(self, path: str) -> list[Source]:
        """The sources whose trees end in the output *path*, overridden ones too."""
        rows = self._rows("SELECT source FROM outputs WHERE path = ?", encoded(path))
        return [source_of(row[0]) for row in rows]

    def dependents(self, place: Place) -> list[Source]:
        """The sources that depend on the file at *place*, present or absent."""
        rows = self._rows(
            "SELECT source FROM dependents WHERE place = ? AND kind = 'file'",
            encoded(place),
        )
        return [source_of(row[0]) for row in rows]

    def batch(self, number: int) -> Batch | None:
        """The batch with that number, if it is still known."""
        rows = self._rows(f"SELECT {_BATCH} FROM batches WHERE id = ?", number)
        return Batch(*opened(rows[0])) if rows else None

    def last_batches(self, count: int) -> list[Batch]:
        """The latest batches that came to an end, the latest first."""
        return [
            Batch(*opened(row))
            for row in self._rows(
                f"SELECT {_BATCH} FROM batches WHERE finished_at IS NOT NULL "
                "ORDER BY id DESC LIMIT ?",
                count,
            )
        ]

    def history(self, source: Source, count: int) -> list[tuple[int, Reason, str, float]]:
        """What happened to *source*: batch, reason, result and seconds, the latest first."""
        rows = self._rows(
            f"SELECT {_HISTORY} FROM history WHERE source = ? ORDER BY batch DESC LIMIT ?",
            key_of(source),
            count,
        )
        try:
            return [
                (batch, Reason.of(json.loads(reason)), result, seconds)
                for _, batch, reason, result, seconds in map(opened, rows)
            ]
        except NONSENSE as error:
            raise CorruptRecordError(f"{self.path}: unreadable history: {error}") from error

    def departed(self, count: int) -> list[Source]:
        """The sources that went, those that went last first; some may be back."""
        rows = self._rows(
            "SELECT source FROM history WHERE result = 'deleted' ORDER BY batch DESC LIMIT ?",
            count,
        )
        return [source_of(row[0]) for row in rows]

    def timings(self) -> list[tuple[str, int, float, float]]:
        """Per processor: its name, runs, seconds in all, seconds of the slowest run."""
        rows = self._rows(f"SELECT {_TIMING} FROM timings ORDER BY 3 DESC")
        return [(p, n, s, m) for p, n, s, m in map(opened, rows)]

    def folders(self) -> list[str]:
        """The folders of the output root that we made, those that hold others first."""
        rows = self._rows("SELECT path, seal FROM folders ORDER BY path")
        return [decoded(opened(row)[0]) for row in rows]

    def folders_of_files(self) -> set[Place]:
        """The folders in which dependencies are, or were looked for, and globs start."""
        rows = self._rows(
            "SELECT DISTINCT place, kind FROM dependents WHERE kind IN ('file', 'glob')"
        )
        return {
            decoded(place if kind == Kind.GLOB.value else split_bytes(place)[0])
            for place, kind in rows
        }

    def intents(self) -> list[tuple[int, Change]]:
        """What was begun and not committed."""
        rows = self._rows("SELECT id, change, seal FROM intents ORDER BY id")
        try:
            return [(number, Change.of(json.loads(text))) for number, text in map(opened, rows)]
        except NONSENSE as error:
            raise CorruptRecordError(f"{self.path}: unreadable intent: {error}") from error

    def check(self) -> None:
        """Read all of it, as after a stop that was not clean.

        Raises:
            CorruptRecordError: It is damaged.
        """
        rows = self._rows("PRAGMA integrity_check(1)")
        if rows != [("ok",)]:
            raise CorruptRecordError(f"{self.path}: {rows[0][0]}")
        links = 0
        try:
            for table in _SEALED:
                for row in self._db.execute(f"SELECT * FROM {table}"):
                    opened(row)
                    if table == "sources":
                        links ^= row[LINKS]
                    elif table == "outputs":
                        links ^= claim_sum(*row[:2])
            for row in self._db.execute("SELECT place, kind, pattern, source FROM dependents"):
                links ^= link_sum(*row)
        except _FAULTS as error:
            raise _translated(error, self.path) from error
        except NONSENSE as error:
            raise CorruptRecordError(f"{self.path}: unreadable row: {error}") from error
        if links:
            raise CorruptRecordError(f"{self.path}: rows are missing, or too many")


class Record(Reader):
    """The owner's view: the questions of planning and scanning, and every write."""

    def __init__(self, path: str, *, durability: str = "normal") -> None:
        """Open the record at *path*, making it if it is not there.

        Raises:
            CorruptRecordError: It is damaged: `set_aside` it.
            RecordError: A newer assetd made it, or the disk refuses.
        """
        # The name of a new output may reach the disk before its content and our commit do.
        # An empty file that nobody knows would be left; `full` syncs the commit itself.
        self._syncs = durability == "normal"
        self._whole = _is_sealed(path)
        self.written = False
        """Whether we have written anything to it."""
        self._remarks: dict[str, str] = {}
        super().__init__(path, read_only=False)
        synchronous = {"off": "OFF", "normal": "NORMAL", "full": "FULL"}[durability]
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute(f"PRAGMA synchronous = {synchronous}")
            self._db.execute("PRAGMA cache_size = -16000")
            self._db.execute("PRAGMA wal_autocheckpoint = 4000")
            self._db.create_function("seal", -1, seal, deterministic=True)
            if self.version == 0:
                schema = seal("schema", str(SCHEMA))
                self._db.executescript(
                    f"BEGIN; {_DDL} INSERT INTO meta VALUES ('schema', '{SCHEMA}', {schema}); "
                    f"PRAGMA user_version = {SCHEMA}; COMMIT;"
                )
                self.version = SCHEMA
            os.chmod(path, 0o600)
            self._inode = os.stat(path).st_ino
        except OSError as error:
            raise RecordError(f"{path}: {error.strerror}") from error
        except _FAULTS as error:
            raise _translated(error, path) from error
        self.globs = self._rows("SELECT count(*) FROM dependents WHERE kind = 'glob'")[0][0] > 0
        """Whether any source depends on a glob; saves asking for every suspect."""
        self.in_place = self.count_outputs()
        """How many outputs are in place; kept, for counting a million takes its time."""
        self.ledger = Ledger(os.path.join(os.path.dirname(path), LEDGER_NAME))
        self.commits = self._number("commits")
        """How many commits have published or deleted anything."""

    def close(self) -> None:
        """Let go of the file; if we wrote to it, note what it holds now."""
        self.ledger.close()
        whole = False
        if self.written:
            with contextlib.suppress(*_FAULTS):
                busy = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
                whole = not busy
        super().close()
        if whole:
            with contextlib.suppress(OSError):
                digest, _ = stamps.digest_file(self.path)
                sealed = _beside(self.path, SEALED_NAME)
                with open(f"{sealed}.new", "w", encoding="ascii") as file:
                    file.write(digest)
                os.rename(f"{sealed}.new", sealed)

    def check(self) -> None:
        """As `Reader.check`, but for a record that is as an orderly end left it."""
        if not self._whole:
            super().check()

    def _number(self, key: str) -> int:
        try:
            return int(self.meta(key) or 0)
        except ValueError as error:
            raise CorruptRecordError(f"{self.path}: unreadable number: {error}") from error

    def set_meta(self, **remarks: str) -> None:
        """Keep remarks."""
        with self._transaction():
            self._db.executemany(
                _SET_META,
                [sealed(key, encoded(value)) for key, value in remarks.items()],
            )

    def with_first_write(self, **remarks: str) -> None:
        """Keep remarks from the next write on, in the same transaction."""
        self._remarks |= remarks

    # -- scanning and planning ------------------------------------------------------------

    def mounts(self) -> list[str]:
        """The mounts that any entry is of."""
        return [row[0] for row in self._rows("SELECT DISTINCT mount FROM sources")]

    def names_in(self, mount: str, folder: str) -> dict[str, Stamp | None]:
        """The sources in one folder of a mount, with their stamps."""
        rows = self._rows(
            "SELECT name, mtime_ns, size, inode, ctime_ns FROM sources "
            "WHERE mount = ? AND folder = ?",
            mount,
            encoded(folder),
        )
        return {
            name.decode(ENCODING, "surrogateescape"): None if stamp[0] is None else Stamp(*stamp)
            for name, *stamp in rows
        }

    def folders_below(self, mount: str, folder: str) -> list[str]:
        """The folders at or below *folder* that hold sources."""
        low, high = _below(folder)
        rows = self._rows(
            "SELECT DISTINCT folder FROM sources "
            "WHERE mount = ? AND (folder = ? OR folder >= ? AND folder < ?)",
            mount,
            encoded(folder),
            low,
            high,
        )
        return [os.fsdecode(row[0]) for row in rows]

    def sources_of(self, mount: str) -> list[Source]:
        """Every source of a mount."""
        rows = self._rows("SELECT folder, name FROM sources WHERE mount = ?", mount)
        return [Source(mount, join(folder, name)) for folder, name in rows]

    def file(self, place: Place) -> FileFact | None:
        """What a dependency held when it was last looked at; None if nobody depends on it."""
        rows = self._rows(
            "SELECT * FROM files WHERE place = ?",
            encoded(place),
        )
        return fact_of(rows[0]) if rows else None

    def files_at(self, wanted: Iterable[Place]) -> dict[Place, FileFact]:
        """What is known of those of *wanted* that somebody depends on."""
        found = {}
        for piece in _pieces([encoded(place) for place in wanted]):
            for row in self._rows(f"SELECT * FROM files WHERE place IN ({_marks(piece)})", *piece):
                fact = fact_of(row)
                found[fact.place] = fact
        return found

    def files_below(self, folder: Place) -> list[FileFact]:
        """The dependencies in *folder*, at any depth; all of them for the empty place."""
        if folder == "":
            rows = self._rows("SELECT * FROM files")
        else:
            rows = self._rows("SELECT * FROM files WHERE place >= ? AND place < ?", *_below(folder))
        return [fact_of(row) for row in rows]

    def globs_at(self, folder: Place) -> list[tuple[str, Source]]:
        """The patterns that start from *folder*, and who depends on each."""
        rows = self._rows(
            "SELECT pattern, source FROM dependents WHERE place = ? AND kind = 'glob'",
            encoded(folder),
        )
        return [(os.fsdecode(pattern), source_of(source)) for pattern, source in rows]

    def globbers(self, place: Place) -> Iterator[Source]:
        """Who depends on a pattern that may find the file at *place*.

        `*` of fnmatch crosses slashes, so this lets through too much, never too little.
        """
        for folder in places.above(place) if self.globs else ():
            name = place[len(folder) :].lstrip("/")
            for pattern, source in self.globs_at(folder):
                if fnmatchcase(name, pattern.replace("**/", "*")):
                    yield source

    def globs_below(self, folder: Place) -> list[tuple[Place, str, Source]]:
        """The patterns that start at or below *folder*: from where, what, for whom."""
        low, high = _below(folder)
        rows = self._rows(
            "SELECT place, pattern, source FROM dependents "
            "WHERE kind = 'glob' AND (? OR place = ? OR place >= ? AND place < ?)",
            folder == "",  # never the text itself: SQLite takes no name that is not UTF-8
            encoded(folder),
            low,
            high,
        )
        return [
            (os.fsdecode(place), os.fsdecode(pattern), source_of(source))
            for place, pattern, source in rows
        ]

    def unplaced(self) -> list[Source]:
        """The sources with a claim that is not in place, for whatever reason."""
        return [
            source_of(r[0])
            for r in self._rows("SELECT DISTINCT source FROM outputs WHERE digest IS NULL")
        ]

    def sources_on(self, inodes: Collection[int]) -> list[Source]:
        """The sources whose files have, or may have, one of *inodes*: those are hard links."""
        return [
            Source(mount, join(folder, name))
            for piece in _pieces(list(inodes))
            for mount, folder, name in self._rows(
                "SELECT mount, folder, name FROM sources "
                f"WHERE inode IN ({_marks(piece)}) OR inode IS NULL",
                *piece,
            )
        ]

    def files_on(self, inodes: Collection[int]) -> list[Place]:
        """The dependencies that have, or may have, one of *inodes*."""
        return [
            os.fsdecode(place)
            for piece in _pieces(list(inodes))
            for (place,) in self._rows(
                "SELECT place FROM files WHERE digest IS NOT NULL "
                f"AND (inode IN ({_marks(piece)}) OR inode IS NULL)",
                *piece,
            )
        ]

    def made_folder(self, path: str) -> bool:
        """Whether we made that folder of the output root."""
        return bool(self._rows("SELECT 1 FROM folders WHERE path = ?", encoded(path)))

    # -- writing --------------------------------------------------------------------------

    def open_batch(self, trigger: str) -> Batch:
        """Number a new batch.  It is written with its first commit, or not at all."""
        last = self._rows("SELECT max(id) FROM batches")[0][0] or 0
        self._last_batch = max(getattr(self, "_last_batch", 0), last) + 1
        return Batch(self._last_batch, trigger, time.time())

    def intend(self, change: Change, given_up: Iterable[Output] = ()) -> int:
        """Write down what is about to be done; returns the intent's number.

        Args:
            change: What to do.
            given_up: Outputs that were edited and that somebody asked to have back: the file
                with this stamp counts as ours, so that the change replaces it.
        """
        text = json.dumps(change, separators=(",", ":"))
        with self._transaction():
            self._db.executemany(_RESTAMP, [_restamped(o.path, o.stamp) for o in given_up])
            number = self._db.execute("SELECT 1 + ifnull(max(id), 0) FROM intents").fetchone()[0]
            self._db.execute("INSERT INTO intents VALUES (?, ?, ?)", sealed(number, text))
        # Only now: what is published has to be known there, what never will be has not.
        self.ledger.note(
            self.commits + 1,
            [
                *((each.output, each.digest, each.source) for each in change.publish),
                *((each.output, None, each.source) for each in change.delete),
            ],
            sync=self._syncs and any(each.replaces is None for each in change.publish),
        )
        return int(number)

    def commit(
        self,
        intent: int,
        change: Change,
        done: Done,
        batch: Batch,
        timings: Iterable[tuple[str, int, float, float]] = (),
        before: Mapping[Source, Entry | None] = MappingProxyType({}),
    ) -> None:
        """Write what was done, and that nothing is left of the intent.

        Args:
            intent: What `intend` gave.
            change: What was done.
            done: What became of it.
            batch: Which it counts for, with its counts.
            timings: Of each processor that ran: name, runs, seconds, the slowest of them.
            before: Entries as they are on record, as far as they are at hand: to read them is
                a tenth of a commit.
        """
        outputs = {p.output for p in change.publish} | {d.output for d in change.delete}
        with self._transaction(), self._counting(outputs):
            self._put(
                change.put,
                {(p.output, key_of(p.source)) for p in change.publish if p.output in done.placed},
                before,
            )
            self._drop(change, before)
            self._learn(change.files)
            self._settle_outputs(change, done)
            self._db.execute("DELETE FROM intents WHERE id = ?", (intent,))
            self._write_batch(batch)
            self._db.executemany(
                _TIME,
                [sealed(name, n, float(took), float(most)) for name, n, took, most in timings],
            )
            if outputs:
                self._db.execute(_SET_META, sealed("commits", b"%d" % (self.commits + 1)))
        self.commits += bool(outputs)
        if self.ledger.is_long():
            self.write_ledger()

    def write_ledger(self) -> None:
        """Write the ledger anew, if nothing is under way that only it knows of."""
        if not self._rows("SELECT 1 FROM intents"):
            self.ledger.rewrite(self.commits, self.outputs(), sync=self._syncs)

    def finish_batch(self, batch: Batch) -> None:
        """Write a batch that has come to its end; forget those that are too old."""
        with self._transaction():
            self._write_batch(batch)
            oldest = batch.id - HISTORY_BATCHES
            self._db.execute("DELETE FROM batches WHERE id < ?", (oldest,))
            self._db.execute("DELETE FROM history WHERE batch < ?", (oldest,))

    def refresh(self, facts: Sequence[FileFact], stamps: Sequence[tuple[Source, Stamp]]) -> None:
        """Remember stamps of files whose content turned out to be what it was."""
        with self._transaction():
            self._learn(facts)
            self._db.executemany(
                "UPDATE sources SET mtime_ns = ?1, size = ?2, inode = ?3, ctime_ns = ?4, "
                "seal = seal(mount, folder, name, ?1, ?2, ?3, ?4, digest, state, warnings, "
                "batch, seconds, reason, detail, links) "
                "WHERE mount = ?5 AND folder = ?6 AND name = ?7",
                [(*stamp, s.mount, *split(s.path)) for s, stamp in stamps],
            )

    def restamp_output(self, path: str, stamp: Stamp) -> None:
        """Remember the stamp of an output whose content turned out to be what it was."""
        with self._transaction():
            self._db.execute(_RESTAMP, _restamped(path, stamp))

    def disown(self, paths: Iterable[str]) -> None:
        """Forget that outputs are in place: they are missing, or somebody edited them."""
        gone = set(paths)
        with self._transaction(), self._counting(gone):
            self._db.executemany(_UNPLACE, [(encoded(path),) for path in gone])

    def adopt(self, outputs: Iterable[Output], commits: int = 0) -> None:
        """Take over outputs that another record, or the ledger, knows to be ours, and of whom.

        Their stamps are not believed, only their digests: what somebody else has put there
        is not taken for ours.  Nothing is believed of their sources: they are built again,
        and what turns out as it is there stays as it is.

        Args:
            outputs: One for each path.
            commits: How many commits there have been, by the ledger.
        """
        claims: dict[Source, list[str]] = {}
        rows = []
        for output in outputs:
            claims.setdefault(output.source, []).append(output.path)
            rows.append(row_of_output(output.path, output.source, output.digest))
        entries = []
        for source, paths in claims.items():
            old = self.entry(source)
            known = () if old is None else old.claims
            both = tuple(dict.fromkeys((*known, *paths)))
            entries.append(Entry(source, None, None, EntryState.OK, both))
        with self._transaction():
            self._put(entries, (), {})
            self._db.executemany(_UNPLACE, [row[:1] for row in rows])
            self._db.executemany(_PLACE, rows)
            if commits > self.commits:
                self._db.execute(_SET_META, sealed("commits", b"%d" % commits))
        self.commits = max(self.commits, commits)
        self.in_place = self.count_outputs()

    def _put(
        self,
        entries: Sequence[Entry],
        placed: Container[tuple[str, bytes]],
        before: Mapping[Source, Entry | None],
    ) -> None:
        before = self._known([entry.source for entry in entries], before)
        self._reindex([(before.get(entry.source), entry) for entry in entries], placed)
        # The row itself holds the latest story; what it held before moves to the history.  A
        # cold build writes none, which halves its commit.
        self._remember(
            old
            for entry in entries
            if (old := before.get(entry.source)) is not None and old.batch != entry.batch
        )
        self._db.executemany(
            f"INSERT OR REPLACE INTO sources VALUES ({', '.join('?' * 16)})",
            [row_of_entry(entry) for entry in entries],
        )

    def _known(
        self, sources: Iterable[Source], before: Mapping[Source, Entry | None]
    ) -> Mapping[Source, Entry | None]:
        """*before*, and what the record says of those of *sources* that are not in it."""
        missing = [source for source in sources if source not in before]
        return {**before, **self.entries_of(missing)} if missing else before

    def _remember(self, entries: Iterable[Entry]) -> None:
        self._db.executemany(
            _TELL,
            [
                sealed(
                    key_of(old.source),
                    old.batch,
                    json.dumps(old.reason),
                    old.state.value,
                    float(old.seconds),
                )
                for old in entries
            ],
        )

    def _reindex(
        self,
        changes: Iterable[tuple[Entry | None, Entry | None]],
        placed: Container[tuple[str, bytes]] = (),
    ) -> None:
        """Bring the rows that are there for entries from what they were to what they will be."""
        links_gone: list[tuple[bytes, str, bytes, bytes]] = []
        links_new: list[tuple[bytes, str, bytes, bytes]] = []
        claims_gone: list[tuple[bytes, bytes]] = []
        claims_new: list[tuple[Any, ...]] = []
        for old, new in changes:
            key = key_of((old or new).source)  # type: ignore[union-attr]  # one of them is there
            before = set() if old is None else {d.key for n in old.nodes for d in n.dependencies}
            after = set() if new is None else {d.key for n in new.nodes for d in n.dependencies}
            links_gone += [link_row(each, key) for each in before - after]
            links_new += [link_row(each, key) for each in after - before]
            claims_before = set() if old is None else set(old.claims)
            claims_after = set() if new is None else set(new.claims)
            claims_gone += [(encoded(path), key) for path in claims_before - claims_after]
            # The row of what is put in place comes with its stamp, once.
            claims_new += [
                sealed(encoded(path), key, None, *NO_STAMP)
                for path in claims_after - claims_before
                if (path, key) not in placed
            ]
        execute = self._db.executemany
        execute(
            "DELETE FROM dependents WHERE place = ? AND kind = ? AND pattern = ? AND source = ?",
            links_gone,
        )
        execute("INSERT OR IGNORE INTO dependents VALUES (?, ?, ?, ?)", links_new)
        self.globs = self.globs or any(kind == Kind.GLOB.value for _, kind, _, _ in links_new)
        # Nobody asks for the stamp of a file that nobody depends on.
        execute(
            "DELETE FROM files WHERE place = ?1 AND NOT EXISTS "
            "(SELECT 1 FROM dependents WHERE place = ?1 AND kind = 'file')",
            [(place,) for place, kind, _, _ in links_gone if kind == Kind.FILE.value],
        )
        execute("DELETE FROM outputs WHERE path = ? AND source = ?", claims_gone)
        execute("INSERT OR IGNORE INTO outputs VALUES (?, ?, ?, ?, ?, ?, ?, ?)", claims_new)

    def _drop(self, change: Change, before: Mapping[Source, Entry | None]) -> None:
        reasons = dict(change.drop)
        entries = self._known(reasons, before)
        known = {source: old for source in reasons if (old := entries.get(source)) is not None}
        self._reindex([(old, None) for old in known.values()])
        self._remember(known.values())
        self._db.executemany(
            _TELL,
            [
                sealed(key_of(source), change.batch, json.dumps(reasons[source]), "deleted", 0.0)
                for source in known
            ],
        )
        self._db.executemany(
            "DELETE FROM sources WHERE mount = ? AND folder = ? AND name = ?",
            [(source.mount, *split(source.path)) for source in known],
        )

    def _learn(self, facts: Iterable[FileFact]) -> None:
        self._db.executemany(
            "INSERT OR REPLACE INTO files SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7 "
            "WHERE EXISTS (SELECT 1 FROM dependents WHERE place = ?1 AND kind = 'file')",
            [sealed(encoded(f.place), *row_of_stamp(f.stamp), raw_digest(f.digest)) for f in facts],
        )

    def _settle_outputs(self, change: Change, done: Done) -> None:
        placed = [p for p in change.publish if p.output in done.placed]
        # What the disk would not replace is still the file that we made, whoever asked for it.
        # What somebody has edited is theirs.
        blocked = [p for p in change.publish if p.output in done.blocked and p.replaces]
        still = [p for p in blocked if done.blocked[p.output].transient]
        self._db.executemany(
            _UNPLACE,
            [
                (encoded(path),)
                for path in (
                    *done.deleted,
                    *done.kept,
                    *(p.output for p in blocked),
                )
            ],
        )
        # Its own row is written anew below.
        self._db.executemany(
            f"{_UNPLACE} AND source != ?",
            [(encoded(p.output), key_of(p.source)) for p in placed if p.replaces],
        )
        self._db.executemany(
            "INSERT OR IGNORE INTO folders VALUES (?, ?)",
            [sealed(encoded(path)) for path in done.folders_made],
        )
        self._db.executemany(
            "DELETE FROM folders WHERE path = ?",
            [(encoded(path),) for path in done.folders_removed],
        )
        self._db.executemany(
            _PLACE,
            [
                row_of_output(
                    p.output,
                    p.source,
                    p.digest if p.output in done.placed else p.replaces,
                    done.placed.get(p.output),
                )
                for p in (*placed, *still)
            ],
        )

    def _write_batch(self, batch: Batch) -> None:
        self._db.execute(
            f"INSERT OR REPLACE INTO batches ({_BATCH}) VALUES ({', '.join('?' * 12)})",
            sealed(
                batch.id,
                batch.trigger,
                float(batch.started_at),
                float(batch.seconds),
                batch.changed,
                batch.built,
                batch.cached,
                batch.clean,
                batch.failed,
                batch.deleted,
                None if batch.finished_at is None else float(batch.finished_at),
            ),
        )

    @contextlib.contextmanager
    def _counting(self, outputs: Collection[str]) -> Iterator[None]:
        """Keep `in_place` right over what is done to *outputs*."""
        before = self._count_of(outputs)
        yield
        self.in_place += self._count_of(outputs) - before

    def _count_of(self, outputs: Collection[str]) -> int:
        total = 0
        for piece in _pieces([encoded(output) for output in outputs]):
            total += self._db.execute(
                f"SELECT count(*) FROM outputs WHERE path IN ({_marks(piece)}) "
                "AND digest IS NOT NULL",
                piece,
            ).fetchone()[0]
        return total

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._begin_writing()
            remarks = self._remarks
            if remarks and self._syncs:
                # That we run reaches the disk before anything that we do.
                self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._db.executemany(_SET_META, [sealed(k, encoded(v)) for k, v in remarks.items()])
                yield
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
            if remarks:
                self._remarks = {}
                if self._syncs:
                    self._db.execute("PRAGMA synchronous = NORMAL")
        except _FAULTS as error:
            raise _translated(error, self.path) from error

    def _begin_writing(self) -> None:
        """See that the file is still the one that we opened, and that nobody takes it for whole.

        SQLite goes on with a file that was deleted or exchanged, and all is lost in the end.
        """
        try:
            if os.stat(self.path).st_ino != self._inode:
                raise CorruptRecordError(f"{self.path}: somebody has put another file there")
            if not self.written:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(_beside(self.path, SEALED_NAME))
                self.written = True
        except FileNotFoundError as error:
            raise CorruptRecordError(f"{self.path}: somebody has deleted it") from error
        except OSError as error:
            raise RecordError(f"{self.path}: {error.strerror}") from error


def _is_sealed(path: str) -> bool:
    """Whether the record is, byte for byte, what an orderly end has left."""
    try:
        with open(_beside(path, SEALED_NAME), encoding="ascii") as file:
            known = file.read(100)
        if os.path.exists(f"{path}-wal") and os.path.getsize(f"{path}-wal") > 0:
            return False
        return stamps.digest_file(path)[0] == known
    except (OSError, ValueError):
        return False


def salvage(path: str) -> list[Output]:
    """The outputs that can still be read out of the damaged record at *path*."""
    found: list[Output] = []
    with contextlib.suppress(sqlite3.Error, CorruptRecordError, *NONSENSE):
        uri = f"file:{_quote(path)}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as db:
            columns = "path, source, digest, mtime_ns, size, inode, ctime_ns"  # of any schema
            for row in db.execute(f"SELECT {columns} FROM outputs WHERE digest IS NOT NULL"):
                output = output_of_unsealed(row)
                if len(output.digest) == 64:
                    found.append(output)
    return found


def set_aside(path: str) -> str:
    """Move a damaged record out of the way; returns where it is now."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_beside(path, SEALED_NAME))
    aside = f"{path}.damaged-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    for suffix in ("-wal", "-shm", ""):
        with contextlib.suppress(FileNotFoundError):
            os.rename(path + suffix, aside + suffix)
    folder, name = os.path.split(path)
    known = sorted(n for n in os.listdir(folder) if n.startswith(f"{name}.damaged-"))
    for old in known[: -3 * DAMAGED_KEPT]:  # each with its two companions
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(folder, old))
    return aside


_META: Final = "key, value, seal"
_SET_META: Final = "INSERT OR REPLACE INTO meta VALUES (?, ?, ?)"
_ENTRY: Final = (
    "mount, folder, name, mtime_ns, size, inode, ctime_ns, digest, state, warnings, batch, "
    "seconds, reason, detail, links, seal"
)
_MANY: Final = 500
"""So many values may stand in one statement, whatever SQLite this is."""
_RESTAMP: Final = (
    "UPDATE outputs SET mtime_ns = ?1, size = ?2, inode = ?3, ctime_ns = ?4, "
    "seal = seal(path, source, digest, ?1, ?2, ?3, ?4) WHERE path = ?5 AND digest IS NOT NULL"
)
_PLACE: Final = "INSERT OR REPLACE INTO outputs VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_UNPLACE: Final = (
    "UPDATE outputs SET digest = NULL, mtime_ns = NULL, size = NULL, inode = NULL, "
    "ctime_ns = NULL, seal = seal(path, source, NULL, NULL, NULL, NULL, NULL) "
    "WHERE path = ? AND digest IS NOT NULL"
)
_OUTPUT: Final = "path, source, digest, mtime_ns, size, inode, ctime_ns, seal"
_TELL: Final = "INSERT OR REPLACE INTO history VALUES (?, ?, ?, ?, ?, ?)"
_TIME: Final = (
    "INSERT INTO timings VALUES (?, ?, ?, ?, ?) ON CONFLICT (processor) DO UPDATE SET "
    "runs = runs + excluded.runs, seconds = seconds + excluded.seconds, "
    "slowest = max(slowest, excluded.slowest), "
    "seal = seal(processor, runs + excluded.runs, seconds + excluded.seconds, "
    "max(slowest, excluded.slowest))"
)
_HISTORY: Final = "source, batch, reason, result, seconds, seal"
_TIMING: Final = "processor, runs, seconds, slowest, seal"
_BATCH: Final = (
    "id, trigger, started_at, seconds, changed, built, cached, clean, failed, deleted, "
    "finished_at, seal"
)


_REFUSALS: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_AUTH,
        sqlite3.SQLITE_PROTOCOL,
    }
)
"""What the disk or the system is at fault for; anything else is wrong inside the file: our SQL
is tested, so a table that it does not find was there."""
_SHORT: Final = frozenset(
    {sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_IOERR_CORRUPTFS, sqlite3.SQLITE_IOERR_DATA}
)


def _translated(error: Exception, path: str) -> RecordError:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
    if code & 0xFF in _REFUSALS and code not in _SHORT:
        return RecordError(f"{path}: {error}")
    return CorruptRecordError(f"{path}: {error}")


def _restamped(path: str, stamp: Stamp | None) -> tuple[Any, ...]:
    """What `_RESTAMP` takes."""
    return (*row_of_stamp(stamp), encoded(path))


def _below(folder: str) -> tuple[bytes, bytes]:
    """The range of the paths below *folder*: `0` is what comes after `/`."""
    if folder in {"", "/"}:
        raw = encoded(folder)
        return raw, b"\xff" * 300
    raw = encoded(folder)
    return raw + b"/", raw + b"0"


def _pieces(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """*values*, so many at once as may stand in one statement."""
    return (values[start : start + _MANY] for start in range(0, len(values), _MANY))


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


def _beside(path: str, name: str) -> str:
    return os.path.join(os.path.dirname(path), name)


def _quote(path: str) -> str:
    from urllib.parse import quote_from_bytes

    return quote_from_bytes(encoded(path))
