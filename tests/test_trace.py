"""What a trace says of a build and of a daemon, and that it can be read however that ended."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from assetd import trace
from assetd.errors import UsageError
from assetd.model import Diagnostic, NodeRecord, NodeState, Outcome
from assetd.testing import Site, wait_for

Event: TypeAlias = dict[str, Any]

PHASES = (
    *("take notes", "watch over", "ripen", "scan"),
    *("ask listeners", "plan", "close batches", "trim store"),
)
"""Of each turn of the owner, in order."""
ROUNDING_MICROS = 0.11
"""Times are written with one decimal."""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    (tmp_path / "site").mkdir()
    site = Site(tmp_path / "site")
    site.write("assets/css/_base.scss", "$c: red;\n")
    site.write("assets/css/site.scss", '@import "base";\n.a { color: $c; }\n')
    site.write("assets/plain.txt", "one\n")
    return site


def tracks(events: Sequence[Event]) -> dict[str, int]:
    """The number of each track, by its name."""
    return {e["args"]["name"]: e["tid"] for e in events if e["name"] == "thread_name"}


def spans(events: Sequence[Event], track: int | None = None) -> list[Event]:
    return [e for e in events if e["ph"] == "X" and track in {None, e["tid"]}]


def names(events: Sequence[Event], track: int) -> set[str]:
    return {e["name"] for e in spans(events, track)}


def assert_nested(events: Sequence[Event]) -> None:
    """Of two spans of a track one contains the other, or they do not meet."""
    for track in {e["tid"] for e in spans(events)}:
        open_until: list[float] = []
        for each in sorted(spans(events, track), key=lambda e: (e["ts"], -e["dur"])):
            assert each["ts"] >= 0.0, each
            assert each["dur"] >= 0.0, each
            end = each["ts"] + each["dur"]
            while open_until and open_until[-1] <= each["ts"] + ROUNDING_MICROS:
                open_until.pop()
            assert not open_until or end <= open_until[-1] + ROUNDING_MICROS, each
            open_until.append(end)


def test_a_build_shows_what_the_owner_and_the_workers_did(site: Site, tmp_path: Path) -> None:
    """Every phase of a slice is there, in its order; so is each job, with its processors."""
    file = tmp_path / "build.json"
    site.run("build", "-j", "1", "--trace", os.fspath(file), check=True)
    events = json.loads(file.read_text())
    assert events == trace.read(os.fspath(file))
    assert_nested(events)
    track = tracks(events)
    assert set(track) == {"owner", "worker 0"}
    owner = spans(events, track["owner"])
    assert {"start", "turn", "plan", "intend"} <= {e["name"] for e in owner}
    steps = [e for e in owner if e["name"] in {"reconcile", "publish", "commit"}]
    assert [e["name"] for e in steps] == ["reconcile", "publish", "commit"]
    assert [e["args"] for e in steps] == [
        {"jobs": 2},
        {"outputs": 2, "deletions": 0},
        {"entries": 2, "drops": 0},
    ]
    assert all(one["ts"] + one["dur"] <= other["ts"] for one, other in pairwise(steps))
    assert names(events, track["worker 0"]) == {
        "start",
        "css/site.scss",
        "sass",
        "copy",
    }
    (carried,) = (e for e in owner if e["name"] == "carry")
    assert carried["args"] == {"sources": 2}


def test_a_processor_lies_within_its_job(site: Site, tmp_path: Path) -> None:
    """Whoever looks for what a job spent its time on finds it inside of it."""
    file = tmp_path / "build.json"
    site.run("build", "-j", "1", "--trace", os.fspath(file), check=True)
    events = trace.read(os.fspath(file))
    (job,) = (e for e in spans(events) if e["name"] == "css/site.scss")
    (sass,) = (e for e in spans(events) if e["name"] == "sass")
    assert sass["args"] == {"path": "css/site.scss", "state": "built"}
    assert job["tid"] == sass["tid"]
    assert job["ts"] <= sass["ts"] + ROUNDING_MICROS
    assert sass["ts"] + sass["dur"] <= job["ts"] + job["dur"] + ROUNDING_MICROS


def test_a_daemon_shows_each_save_from_the_event_to_the_record(site: Site, tmp_path: Path) -> None:
    """The time that somebody waited is one stretch, with what filled it below."""
    file = tmp_path / "run.json"
    with site.daemon("-j", "1", "--trace", os.fspath(file)) as daemon:
        site.write("assets/plain.txt", "two\n")
        daemon.sync()
    events = json.loads(file.read_text())
    assert_nested(events)
    began, ended = (e for e in events if e["name"] == "save")
    assert (began["ph"], ended["ph"]) == ("b", "e")
    assert began["id"] == ended["id"]
    assert began["args"] == {"sources": 1, "names": ["assets/plain.txt"]}
    commit = [e for e in spans(events) if e["name"] == "commit"][-1]
    carry = [e for e in spans(events) if e["name"] == "carry"][-1]
    for inner in (commit, carry):
        assert began["ts"] <= inner["ts"]
        assert inner["ts"] + inner["dur"] <= ended["ts"]


def test_an_idle_daemon_writes_nothing_into_its_trace(site: Site) -> None:
    """In a folder that is watched, each line would be the cause of the next one."""
    file = site.root / "run.json"
    with site.daemon("-j", "1", "--trace", "run.json") as daemon:
        daemon.sync()
        wait_for(lambda: daemon.status()["workers"][0]["state"] == "idle", "its worker")

        def rests() -> bool:
            size = file.stat().st_size
            daemon.status()  # the turn that answered the last one has come to its end then
            return file.stat().st_size == size

        wait_for(rests, "the last lines")
        before = file.stat().st_size
        for _ in range(3):
            site.write("beside.txt", "of no meaning\n")
            daemon.status()
        wait_for(rests, "silence")
        more = [json.loads(line.rstrip(",")) for line in file.read_text()[before:].splitlines()]
    # A turn that a busy machine made long is worth a line, and so is what made it long; its own
    # line is not.
    turns = [line for line in more if line["name"] == "turn"]
    assert not any(line.get("args") for line in more)
    assert {line["name"] for line in more} <= {"turn", *PHASES}
    assert len(turns) <= 12
    assert len(more) <= len(turns) * (1 + len(PHASES))


def test_the_trace_of_a_killed_daemon_can_be_read(site: Site, tmp_path: Path) -> None:
    """What it did up to its end is of most interest then."""
    file = tmp_path / "run.json"
    with site.daemon("-j", "1", "--trace", os.fspath(file)) as daemon:
        daemon.sync()
        daemon.kill()
    text = file.read_text()
    with pytest.raises(ValueError, match=r"Expecting|Illegal"):
        json.loads(text)
    events = trace.read(os.fspath(file))
    assert "commit" in names(events, tracks(events)["owner"])
    # As the documentation of the format has it, and the viewers do.
    assert json.loads(text.rstrip().rstrip(",") + "]") == events


def test_half_a_line_at_the_end_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "cut.json"
    file.write_text('[\n{"name":"one","ph":"i"},\n{"name":"tw')
    assert trace.read(os.fspath(file)) == [{"name": "one", "ph": "i"}]


@pytest.mark.parametrize("where", ["assets/trace.json", "public/trace.json"])
def test_a_trace_is_not_written_where_it_would_be_built(site: Site, where: str) -> None:
    """Each of its lines would be a change."""
    done = site.run("build", "--trace", where)
    assert done.returncode == UsageError.exit_code
    assert "name a file that is not below" in done.stderr
    assert not (site.root / where).exists()


def test_a_trace_that_cannot_be_written_is_refused(site: Site) -> None:
    done = site.run("build", "--trace", "nowhere/trace.json")
    assert done.returncode == UsageError.exit_code
    assert "No such file or directory" in done.stderr


def test_a_build_through_a_daemon_says_that_it_has_no_trace(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "build.json"
    with site.daemon():
        done = site.run("build", "--trace", os.fspath(file))
    assert done.returncode == 0
    assert "--trace is for `assetd run`" in done.stderr
    assert not file.exists()


@pytest.fixture
def tracer(tmp_path: Path) -> Iterator[Callable[..., trace.Tracer]]:
    made: list[trace.Tracer] = []

    def make(**options: Any) -> trace.Tracer:
        fd = os.open(tmp_path / "t.json", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        made.append(trace.Tracer(fd, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_a_trace_has_an_end(tracer: Callable[..., trace.Tracer], tmp_path: Path) -> None:
    """It stops at its limit, says so to whoever reads it and to whoever writes it."""
    causes: list[str] = []
    mine = tracer(on_end=causes.append, limit_bytes=2000)
    for number in range(100):
        with mine.turn(), mine.span("commit", number=number):
            pass
    assert causes == ["it has reached its limit"]
    events = json.loads((tmp_path / "t.json").read_text())
    assert events[-1]["name"] == "the trace ends here: it has reached its limit"
    assert (tmp_path / "t.json").stat().st_size < 2500


def test_a_full_disk_ends_the_trace_and_nothing_else() -> None:
    causes: list[str] = []
    mine = trace.Tracer(os.open("/dev/full", os.O_WRONLY), causes.append)
    with mine.turn(), mine.span("commit", entries=1):
        pass
    mine.close()
    assert causes == ["No space left on device"]


def test_a_clock_that_disagrees_makes_no_negative_time(
    tracer: Callable[..., trace.Tracer], tmp_path: Path
) -> None:
    """What a worker says of its times need not fit between what we saw."""
    mine = tracer()
    node = NodeRecord("sass", "a.scss", "1", "", "", seconds=70.0)
    late = NodeRecord("copy", "a.css", "1", "", "", state=NodeState.CLEAN, seconds=0.0)
    with mine.turn():
        mine.started(0, 0.0, 1)
        mine.sent(0, 2)
        mine.answered(
            0,
            [
                ("a.scss", Outcome(1, nodes=(node, late), seconds=60.0)),
                ("b.scss", Outcome(2, seconds=1.0, died=Diagnostic("its worker died"))),
            ],
        )
        mine.died(0, "was killed")
    mine.close()
    events = json.loads((tmp_path / "t.json").read_text())
    assert_nested(events)
    assert [e["name"] for e in spans(events, 1)] == ["start", "a.scss", "sass", "b.scss"]


def test_a_name_that_is_no_utf8_can_be_written(
    tracer: Callable[..., trace.Tracer], tmp_path: Path
) -> None:
    mine = tracer()
    with mine.turn():
        mine.save(0.0, [os.fsdecode(b"a\xff.txt")])
    mine.close()
    text = (tmp_path / "t.json").read_bytes()
    assert b"a\\udcff.txt" in text
    assert json.loads(text)


def test_without_a_trace_nothing_is_made() -> None:
    """One object serves all spans, so that it costs nothing to ask for one."""
    assert trace.OFF.span("plan") is trace.OFF.span("commit", entries=1) is trace.OFF.turn()
