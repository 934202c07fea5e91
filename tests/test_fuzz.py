"""Rubbish of every kind: whoever says it is refused or told, and the daemon lives.

Four doors are open to what others wrote: the configuration, the control socket, the record and
what workers answer.  Each is fed what was right once, with something in it that is not.
`ASSETD_TEST_INPUTS` says how many inputs there are, `ASSETD_TEST_SEED` repeats a run.
"""

import contextlib
import copy
import json
import os
import random
import selectors
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from assetd import registry, testimony, wire
from assetd.control import Control
from assetd.engine import Engine, Order
from assetd.errors import AssetdError, ConfigError
from assetd.lanes import Lane, Ticket
from assetd.model import (
    Cause,
    Change,
    Deletion,
    Diagnostic,
    Job,
    Outcome,
    Publication,
    Reason,
    Source,
)
from assetd.pool import Pool, Worker, WorkerState
from assetd.record import Reader, Record
from assetd.rows import seal
from assetd.testing import InlinePool, Site

INPUTS = int(os.environ.get("ASSETD_TEST_INPUTS", "20000"))
"""How many inputs there are, of all four kinds together."""

HOSTILE: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, 1, -1, 7, 2**31, 2**63, 2**64, -(2**70), 0.5, -0.0, 1e308),
    *(float("inf"), float("-inf"), float("nan")),
    *("", ".", "..", "../x", "/", "/etc/passwd", "a/../../b", "a//b", "a/", "a\0b", "\n", " "),
    *("\ud800", "\udcff\udc80", "\x1b[31m", "é", "x" * 300, "x/" * 2_000, "**", "[", "*" * 30),
    *("all", "-copy", "sass", "file", "glob", "outputs", "built", "failed", "ok", "0" * 64),
    *([], {}, [[]], [None], {"": None}, [[[[[[[[]]]]]]]], {"a": {"b": [1]}}, ["x"] * 50),
)


SIGNS: Final = (
    *(b"\n", b"\0", b"\xff", b"'", b'"', b"{", b"[", b": ", b"- ", b"&a ", b"*a ", b"|\n", b"\t"),
    *(b"#", b"? ", b"!!python/object:os.system ", b"\\u0000", b"1e999", b"[" * 5_000),
)
"""What means something to YAML or JSON."""


def dice_of(what: str) -> random.Random:
    seed = int(os.environ.get("ASSETD_TEST_SEED", random.randrange(1 << 32)))
    print(f"ASSETD_TEST_SEED={seed}")
    return random.Random(f"{seed} {what}")


@contextlib.contextmanager
def counted(what: str, inputs: int) -> Iterator[None]:
    """Say how many inputs there were, and what each took."""
    began = time.process_time()
    yield
    spent = time.process_time() - began
    print(f"{inputs:,} inputs for {what}: {spent:.1f} s of CPU, {spent / inputs * 1e6:.0f} µs each")


def places_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where in a JSON value something could be exchanged: keys and indices from the top."""
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from places_in(value[key], (*path, key))
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from places_in(each, (*path, number))


def mutated(dice: random.Random, value: Any, places: list[tuple[Any, ...]] | None = None) -> Any:
    """A copy of a JSON value with one to three things in it exchanged, doubled or left out."""
    made = copy.deepcopy(value)
    places = places or list(places_in(value))
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        *way, last = dice.choice(places) or (None,)
        if last is None:
            return copy.deepcopy(dice.choice(HOSTILE))
        at = made
        with contextlib.suppress(KeyError, IndexError, TypeError, AttributeError):
            for step in way:
                at = at[step]
            match dice.randrange(6):
                case 0:
                    del at[last]
                case 1 if isinstance(at, list):
                    at.insert(last, copy.deepcopy(at[last]))
                case 2 if isinstance(at, list):
                    dice.shuffle(at)
                case 2 | 3 if isinstance(at, dict):
                    at[dice.choice(("x", "", "\0", str(last) + "s"))] = at.pop(last)
                case _:
                    at[last] = copy.deepcopy(dice.choice(HOSTILE))
    return made


def scrambled(dice: random.Random, content: bytes) -> bytes:
    """A copy of some bytes with some of them exchanged, doubled or left out."""
    made = bytearray(content)
    for _ in range(dice.randrange(1, 5)):
        at, end = sorted(dice.randrange(len(made) + 1) for _ in range(2))
        end = min(end, at + 20)
        match dice.randrange(5):
            case 0:
                del made[at:end]
            case 1:
                made[at:at] = made[at:end]
            case 2:
                made[at:at] = dice.choice(SIGNS)
            case 3 if made:
                made[at % len(made)] = dice.randrange(256)
            case _:
                made[at:at] = dice.randbytes(3)
    return bytes(made)


# -- the configuration ------------------------------------------------------------------------

CONFIG: Final[dict[str, Any]] = {
    "out_dir": "public",
    "state_dir": ".assetd",
    "mounts": {"assets": {}, "theme/assets": {"processors": "all -uglifyjs -cleancss"}},
    "ignore": ["*.bak", "/^drafts\\//"],
    "force": ["*.sitemap"],
    "workers": "auto",
    "sass": {"style": "compressed", "load_paths": ["vendor/scss"], "source_map": True},
    "less": {"options": {"compress": True}},
    "watch": {"backend": "polling", "interval": "1s"},
    "settle": {"gap": "20ms", "patience": "1s"},
    "store": "1GB",
    "durability": "normal",
    "sandbox": "auto",
    "on_batch": ["echo", "done"],
    "job_timeout": "20s",
}


def test_no_configuration_ends_the_daemon(tmp_path: Path) -> None:
    """It is taken, or refused with a message for each mistake; nothing else is raised."""
    dice = dice_of("config")
    site = Site(tmp_path, json.dumps(CONFIG))
    for folder in ("theme/assets", "vendor/scss"):
        (site.root / folder).mkdir(parents=True)
    file = site.root / "assetd.yml"
    registry.load(str(file))
    text = "\n".join(f"{key}: {json.dumps(value)}" for key, value in CONFIG.items())
    block = (
        "out_dir: public\nmounts:\n  assets: {}\n  theme/assets:\n    processors: all -sass\n"
        "ignore:\n  - '*.bak'\n  - &a x\nsass:\n  style: compressed\n  load_paths: [vendor/scss]\n"
    )
    places = list(places_in(CONFIG))
    taken, inputs = 0, INPUTS // 40
    with counted("the configuration", inputs):
        for number in range(inputs):
            if number % 2:
                content = json.dumps(mutated(dice, CONFIG, places)).encode()
            else:
                content = scrambled(dice, dice.choice((text, block)).encode())
            file.write_bytes(content)
            try:
                registry.load(str(file))
            except ConfigError as error:
                told = [str(problem) for problem in error.problems]
            except Exception as error:
                raise AssertionError(f"{content!r}") from error
            else:
                taken += 1
                continue
            assert told
    assert 0 < taken < inputs


# -- the control socket -----------------------------------------------------------------------

REQUESTS: Final[tuple[dict[str, Any], ...]] = (
    {"v": 1, "do": "status", "recent": 3},
    {"v": 1, "do": "sync"},
    {"v": 1, "do": "build", "paths": ["assets/a.txt", "public/a.txt"], "force": False},
    {"v": 1, "do": "repair", "outputs": ["a.txt"]},
    {"v": 1, "do": "subscribe", "events": ["batch"]},
    {"v": 1, "do": "reload"},
    {"v": 1, "do": "metrics"},
    {"v": 1, "do": "pause"},
    {"v": 1, "do": "stop"},
)


def engine_of(
    site: Site, told: list[str], open_pool: Callable[..., Any] = InlinePool, **more: Any
) -> Engine:
    def tell(event: str, **fields: object) -> None:
        told.append(f"{event} {fields}")

    return Engine(
        registry.load(str(site.root / "assetd.yml")),
        tell,
        watching=False,
        open_pool=open_pool,
        **more,
    )


def small_site(root: Path) -> Site:
    site = Site(root, "mounts: [assets, theme]\ndurability: off\nworkers: 1\n")
    (root / "theme").mkdir()
    site.write("assets/a.txt", "a")
    site.write("assets/b.scss", "@import 'p'; a { b: c }")
    site.write("assets/_p.scss", "p { q: r }")
    site.write("assets/all.js.concat", "files: ['*.part', '../shared/x.part']")
    site.write("assets/one.part", "1")
    site.write("theme/a.txt", "theme")
    site.write("assets/bad.scss", "a { b: $no }")
    return site


def built(engine: Engine) -> None:
    done: list[Order] = []
    engine.build(Order(), done.append)
    engine.run_until(lambda: bool(done))


def test_no_request_ends_the_daemon(tmp_path: Path) -> None:
    """Each line has one answer, and the next one is answered, too."""
    dice = dice_of("control")
    inputs = INPUTS * 8 // 20
    site = small_site(tmp_path / "site")
    engine = engine_of(site, [])
    built(engine)
    control = Control(engine, str(tmp_path / "sock/control"), lambda: None)
    with contextlib.ExitStack() as stack:
        stack.callback(engine.stop)
        stack.callback(control.close)

        def connect() -> socket.socket:
            door = socket.socket(socket.AF_UNIX)
            door.connect(str(tmp_path / "sock/control"))
            door.setblocking(False)
            return door

        stack.enter_context(counted("the socket", inputs))
        door, answers = connect(), b""
        for number in range(inputs):
            request = dice.choice(REQUESTS)
            if number % 3:
                line = json.dumps(mutated(dice, request)).encode()
            else:
                line = scrambled(dice, json.dumps(request).encode()).replace(b"\n", b" ")
            if number % 50 == 49:
                line = b'{"do": "resume"}'
            if number % 200 == 199:  # it is subscribed by now
                door.close()
                door, answers = connect(), b""
            door.sendall(line + b"\n")
            for _ in range(10_000):
                engine.turn(0.0)
                with contextlib.suppress(BlockingIOError):
                    answers += door.recv(1 << 20)
                *whole, answers = answers.split(b"\n")
                if any(b'"ok": ' in each[:8] for each in whole):
                    break
                if engine.paused and b'"sync"' in line:
                    engine.paused = False
            else:
                raise AssertionError(f"no answer to {line!r}")
        door.close()


# -- the record -------------------------------------------------------------------------------


def ask_everything(reader: Reader) -> None:
    """All that anybody asks a record."""
    source = Source("assets", "b.scss")
    for entry in reader.entries():
        assert entry.diagnostics is not None
    for asked in (
        *(reader.wrong, reader.warned, reader.count_sources, reader.intents),
        *(reader.folders, reader.folders_of_files, reader.timings),
    ):
        asked()
    list(reader.outputs())
    list(reader.outputs_of("assets"))
    reader.entry(source)
    reader.history(source, 5)
    reader.last_batches(5)
    reader.departed(5)
    reader.claimants("a.txt")
    reader.dependents("assets/_p.scss")
    reader.meta("clean")


class Rows:
    """The rows of a record, to be spoilt one by one."""

    def __init__(self, path: Path) -> None:
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.create_function("seal", -1, seal, deterministic=True)
        self.db.execute("PRAGMA synchronous = OFF")
        names = self.db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        self.columns = {
            name: columns
            for (name,) in names
            if (columns := [c[1] for c in self.db.execute(f"PRAGMA table_info({name})")])[-1]
            == "seal"
        }
        self.rows = [
            (table, row)
            for table in self.columns
            for row in self.db.execute(f"SELECT * FROM {table}").fetchall()
        ]

    def put(self, table: str, old: tuple[Any, ...], new: tuple[Any, ...]) -> bool:
        """Write *new* over *old*; whether SQLite takes it."""
        columns = self.columns[table]
        there = " AND ".join(f"{column} IS ?" for column in columns)
        values = ", ".join(f"{column} = ?" for column in columns)
        try:
            self.db.execute(f"UPDATE {table} SET {values} WHERE {there}", (*new, *old))
        except (sqlite3.Error, OverflowError, UnicodeError):
            return False
        return True

    def spoil(self, dice: random.Random, *, matching: bool) -> tuple[str, Any, Any] | None:
        """Exchange one value; its row's checksum is made to match, or left.

        Returns:
            The table, the row as it was and as it is; None if SQLite did not take it.
        """
        table, row = dice.choice(self.rows)
        at = dice.randrange(len(row) - 1)
        new = (*row[:at], _spoilt(dice, row[at]), *row[at + 1 :])
        if not self.put(table, row, new):
            return None
        if matching:
            # As SQLite has it now, which makes a number of some texts and nothing of others.
            columns = self.columns[table]
            there = " AND ".join(f"{column} IS ?" for column in columns)
            seal = f"UPDATE {table} SET seal = seal({', '.join(columns[:-1])}) WHERE {there}"
            self.db.execute(seal, self.other(table) or row)
        return table, row, self.other(table) or row

    def other(self, table: str) -> Any:
        """The row that is not as it was; None if all are."""
        known = {row for name, row in self.rows if name == table}
        found = self.db.execute(f"SELECT * FROM {table}").fetchall()
        return next((row for row in found if row not in known), None)


def test_no_row_of_the_record_ends_the_daemon(tmp_path: Path) -> None:
    """A row that is not what was written is noticed, and all outputs are right after that."""
    dice = dice_of("record")
    site = small_site(tmp_path / "site")
    engine = engine_of(site, [])
    built(engine)
    engine.stop()
    expected = site.outputs()
    path = site.root / ".assetd/record.sqlite"
    with contextlib.closing(Record(str(path))) as record:
        record.intend(a_change(record), [])
    whole = path.read_bytes()
    inputs = INPUTS // 200
    noticed = 0
    with counted("the record, and a start with it", inputs):
        for _ in range(inputs):
            path.write_bytes(whole)
            (site.root / ".assetd/record.sealed").unlink(missing_ok=True)
            rows = Rows(path)
            with contextlib.closing(rows.db):
                spoilt = rows.spoil(dice, matching=False)
            told: list[str] = []
            again = engine_of(site, told)
            built(again)
            again.stop()
            found = any("record_damaged" in line for line in told)
            assert found or spoilt is None or spoilt[1] == spoilt[2], spoilt
            noticed += found
            assert site.outputs() == expected
    assert noticed


def test_no_row_with_a_checksum_to_match_raises_anything_of_its_own(tmp_path: Path) -> None:
    """It is read, or it is a damaged record."""
    dice = dice_of("rows")
    site = small_site(tmp_path / "site")
    engine = engine_of(site, [])
    built(engine)
    engine.stop()
    path = site.root / ".assetd/record.sqlite"
    with contextlib.closing(Record(str(path))) as record:
        record.intend(a_change(record), [])
    inputs = INPUTS * 9 // 100
    refused = 0
    rows = Rows(path)
    with (
        contextlib.closing(rows.db),
        contextlib.closing(Reader(str(path))) as reader,
        counted("the rows of a record", inputs),
    ):
        for _ in range(inputs):
            spoilt = rows.spoil(dice, matching=True)
            if spoilt is None:
                continue
            try:
                ask_everything(reader)
            except AssetdError:
                refused += 1
            except Exception as error:
                raise AssertionError(f"{spoilt}") from error
            assert rows.put(spoilt[0], spoilt[2], spoilt[1])
    assert 0 < refused < inputs


def a_change(record: Record) -> Change:
    """One with something of everything, as an intent that was cut short."""
    source = Source("assets", "a.txt")
    entry, output = record.entry(source), record.output("a.txt")
    assert entry is not None
    assert output is not None
    reason = Reason(Cause.NO_LONGER_MADE, "gone.txt")
    gone = Source("assets", "gone.txt")
    return Change(
        1,
        (entry,),
        ((gone, reason),),
        (),
        (Publication("a.txt", source, output.digest, None, output.digest),),
        (Deletion("gone.txt", gone, "0" * 64, reason),),
    )


def _spoilt(dice: random.Random, value: Any) -> Any:
    if isinstance(value, str) and value[:1] in "[{":
        with contextlib.suppress(ValueError):
            return json.dumps(mutated(dice, json.loads(value)))
    if isinstance(value, str | bytes) and dice.random() < 0.5:
        content = scrambled(dice, value if isinstance(value, bytes) else value.encode())
        return content if isinstance(value, bytes) else content.decode("utf-8", "replace")
    other = dice.choice(HOSTILE)
    if isinstance(other, str):
        other = other.encode("utf-8", "surrogatepass")
        return other if dice.random() < 0.5 else other.decode("utf-8", "replace")
    return other if isinstance(other, int | float | None) else b"\xff"


# -- what workers answer ----------------------------------------------------------------------


class Liars(InlinePool):
    """A pool whose workers do their jobs and then say something else.

    What they say is read by the real pool; the worker that says it is a process that has ended.
    """

    def __init__(
        self,
        size: int,
        opening: Any,
        selector: selectors.BaseSelector,
        on_outcome: Callable[[Outcome], None],
        on_event: Callable[[str, dict[str, Any]], None],
        *,
        staging: str,
        **more: Any,
    ) -> None:
        super().__init__(size, opening, selector, on_outcome, on_event, staging=staging, **more)
        self.dice = random.Random(0)
        self.honest = True
        self.refused = 0
        self.said = b""
        self._pool = Pool(
            0, {}, selector, on_outcome, on_event, staging=staging, recycle_bytes=1 << 63
        )
        self._ended = subprocess.Popen(["true"])
        self._mine, self._theirs = socket.socketpair()

    def stop(self) -> None:
        super().stop()
        self._ended.wait()
        self._mine.close()
        self._theirs.close()

    def _run_one(self, _mask: int) -> None:
        os.eventfd_read(self._bell)
        queue = next((q for q in self._queues if q), None)
        if queue is None:
            return
        ticket = queue.popleft()
        if self.waiting():
            os.eventfd_write(self._bell, 1)
        outcome = self._crew.runner.run(ticket.job)
        if self.honest:
            self._on_outcome(outcome)
        else:
            self.lie(ticket, outcome)

    def lie(self, ticket: Ticket, outcome: Outcome) -> None:
        self.said = spoken(self.dice, outcome)
        worker = a_worker(self._ended, self._mine, ticket)
        self._pool._on_data(worker, self.said)
        self.refused += worker.verdict is not None
        if worker.held:  # its death, or nothing more from it for a minute
            self._on_outcome(Outcome(ticket.job.id, died=Diagnostic("its worker lied")))


def spoken(dice: random.Random, outcome: Outcome) -> bytes:
    """What a worker says that is not quite this."""
    told = json.loads(json.dumps(outcome))
    message: Any = {"outcomes": [told], "rss": 1}
    if dice.random() < 0.2:
        needs = [["file", "assets/a", "", None], ["glob", "assets", "*", "0" * 64]]
        wills = [{"will": told, "at": 0}]
        mets = [{"met": each, "fact": None} for each in needs]
        message = {**dice.choice(wills + mets), "rss": 1}
    if dice.random() < 0.9:
        return wire.encode(mutated(dice, message))
    return scrambled(dice, wire.encode(message))


def a_worker(process: Any, pipe: socket.socket, ticket: Ticket) -> Worker:
    """One that has a job, and has ended."""
    worker = Worker(0, process, -1, pipe, -1, None, 1)  # type: ignore[arg-type]
    worker.state = WorkerState.BUSY
    worker.held = {ticket.job.id: ticket}
    return worker


def test_no_answer_of_a_worker_ends_the_daemon(tmp_path: Path) -> None:
    """It is refused, and the worker with it, or it is a result; what is recorded can be read."""
    dice = dice_of("workers")
    site = small_site(tmp_path / "site")
    inputs = INPUTS * 5 // 200
    refused = asked = 0
    sources = ["a.txt", "b.scss", "all.js.concat", "bad.scss", "one.part"]
    with counted("the engine, from a worker", inputs):
        while asked < inputs:
            engine = engine_of(site, [], Liars)
            pool = engine.pool
            assert isinstance(pool, Liars)
            try:
                built(engine)  # whatever was recorded before is read again
                pool.honest, pool.dice = False, dice
                for _ in range(min(400, inputs - asked)):
                    asked += 1
                    order: list[Order] = []
                    paths = (f"assets/{dice.choice(sources)}",)
                    engine.build(Order(paths, force=True), order.append)
                    engine.run_until(lambda: bool(order))  # noqa: B023
            except Exception as error:
                raise AssertionError(f"{pool.said!r}") from error
            finally:
                refused += pool.refused
                engine.stop()
    assert refused


def test_what_a_worker_says_is_an_outcome_or_its_end(tmp_path: Path) -> None:
    """And no job is lost over it: each is answered, or still held by the worker that dies."""
    dice = dice_of("pipe")
    site = small_site(tmp_path / "site")
    honest: list[Outcome] = []

    class Listening(Liars):
        def _run_one(self, mask: int) -> None:
            to = self._on_outcome

            def heard(outcome: Outcome) -> None:
                honest.append(outcome)
                to(outcome)

            self._on_outcome = heard
            super()._run_one(mask)
            self._on_outcome = to

    engine = engine_of(site, [], Listening)
    built(engine)
    engine.stop()
    outcomes: list[Outcome] = []
    inputs = INPUTS * 91 // 200
    refused = 0
    with (
        subprocess.Popen(["true"]) as ended,
        contextlib.closing(selectors.DefaultSelector()) as selector,
        socket.socket() as pipe,
        counted("the pipe of a worker", inputs),
    ):
        ended.wait()
        pool = Pool(
            0, {}, selector, outcomes.append, lambda *_: None, staging="/x", recycle_bytes=1 << 63
        )
        for _ in range(inputs):
            outcome = dice.choice(honest)
            staged = tuple(each._replace(staged=f"/x/w0/{each.output}") for each in outcome.staged)
            ticket = Ticket(Job(outcome.job, Source("assets", "a")), Lane.BULK, 9.0, 0.0)
            worker = a_worker(ended, pipe, ticket)
            said = spoken(dice, outcome._replace(staged=staged))
            before = len(outcomes)
            try:
                pool._on_data(worker, said)
            except Exception as error:
                raise AssertionError(f"{said!r}") from error
            assert len(outcomes) - before + len(worker.held) == 1, said
            refused += worker.verdict is not None
    assert 0 < refused < inputs
    for outcome in outcomes[:100]:
        assert testimony.outcome(json.loads(json.dumps(outcome))) == outcome


def test_what_is_negative_and_nothing_is_nothing() -> None:
    """SQLite gives -0.0 back as 0.0, and the row passed for damaged."""
    told = json.loads(json.dumps(Outcome(1)._replace(seconds=-0.0)))
    assert str(testimony.outcome(told).seconds) == "0.0"
