"""Both pools under one contract; then all that a processor can do to the real one."""

import contextlib
import os
import random
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from assetd import registry
from assetd.model import Job, NodeState, Outcome, Source
from assetd.pool import Jobs, Lane, Pool, Ticket, WorkerState
from assetd.testing import InlinePool, Site, wait_for

ACTOR = """
import os
from assetd.processor import Processor, same_name, suffix

def act(step):
    exec(step.input.read_text(), {"step": step})
    step.write(step.path, step.input.read_text())

actor = Processor(
    name="actor", version="1", matches=suffix(".act"), outputs=same_name, process=act, cheap=True)
"""
FINE = "pass"


class Bench:
    """A pool with its selector, as the engine has them, and the outcomes that came."""

    def __init__(self, root: Path, kind: Callable[..., Jobs], size: int, **limits: Any) -> None:
        self.site = Site(root, "mounts: [assets]\nplugins: [actor.py]\n")
        self.site.write("actor.py", ACTOR)
        self.selector = selectors.DefaultSelector()
        self.outcomes: list[Outcome] = []
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.serial = 0
        self.names: dict[int, str] = {}
        opening = {
            "recipe": registry.load(os.path.realpath(root / "assetd.yml")).recipe(),
            "store": str(root / "store"),
            "sync_files": False,
        }
        self.staging = root / "staging"
        self.pool = kind(
            size,
            opening,
            self.selector,
            self.outcomes.append,
            lambda event, fields: self.events.append((event, fields)),
            staging=str(self.staging),
            **limits,
        )

    def ticket(
        self,
        name: str,
        code: str = FINE,
        *,
        lane: Lane = Lane.BULK,
        timeout: float = 20.0,
        estimate: float = 1.0,
    ) -> Ticket:
        """A job that runs *code* in its worker."""
        self.site.write(f"assets/{name}.act", code)
        self.serial += 1
        self.names[self.serial] = name
        job = Job(self.serial, Source("assets", f"{name}.act"))
        return Ticket(job, lane, timeout, estimate)

    def turn(self, seconds: float = 0.05) -> None:
        """What the engine does between two waits."""
        deadline = self.pool.deadline()
        if deadline is not None:
            seconds = max(0.0, min(seconds, deadline - time.monotonic()))
        for key, mask in self.selector.select(seconds):
            key.data(mask)
        deadline = self.pool.deadline()
        if deadline is not None and time.monotonic() >= deadline:
            self.pool.tick()

    def until(self, question: Callable[[], bool], what: str = "the pool") -> None:
        """Turn until it is true."""

        def ask() -> bool:
            self.turn()
            return question()

        wait_for(ask, what)

    def run(self, *tickets: Ticket) -> dict[str, Outcome]:
        """Submit jobs and wait for their outcomes, by the jobs' names."""
        already = len(self.outcomes)
        self.pool.submit_all(list(tickets))
        self.until(lambda: len(self.outcomes) >= already + len(tickets), "outcomes")
        return {self.names[o.job]: o for o in self.outcomes[already:]}

    def ready(self) -> None:
        """Wait until every worker is ready."""
        self.until(
            lambda: all(w.state is WorkerState.IDLE for w in self.pool.workers.values()), "workers"
        )

    def pids(self) -> dict[int, int]:
        """The workers' processes, by number."""
        return {n: w.process.pid for n, w in self.pool.workers.items()}


@contextlib.contextmanager
def opened(root: Path, kind: Callable[..., Jobs] = Pool, size: int = 2, **limits: Any) -> Any:
    root.mkdir(exist_ok=True)
    bench = Bench(root, kind, size, **limits)
    try:
        yield bench
    finally:
        bench.pool.stop()
        bench.selector.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with opened(tmp_path / "site") as found:
        yield found


@pytest.fixture(params=[Pool, InlinePool])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    with opened(tmp_path / "site", request.param, 1) as found:
        yield found


def good(outcome: Outcome) -> bool:
    return outcome.died is None and [n.state for n in outcome.nodes] == [NodeState.BUILT]


def alive(pid: int) -> bool:
    """Whether the process runs; one that waits to be reaped by init does not."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return text.rpartition(")")[2].split()[0] not in "ZX"


# -- the contract of every pool ---------------------------------------------------------------


def test_every_job_gets_exactly_one_outcome(either: Bench) -> None:
    """However many are submitted at once, and in whatever groups they travel."""
    tickets = [either.ticket(f"j{n}", estimate=0.0001) for n in range(200)]
    either.pool.submit_all(tickets)
    assert either.outcomes == []  # never from within the call
    either.until(lambda: len(either.outcomes) >= 200)
    for _ in range(5):
        either.turn(0.01)
    assert sorted(o.job for o in either.outcomes) == [t.job.id for t in tickets]
    assert [o for o in either.outcomes if not good(o)][:2] == []
    assert (either.pool.waiting(), either.pool.running()) == (0, 0)


def test_an_urgent_job_goes_before_bulk(either: Bench) -> None:
    """Somebody saved a file and waits; the first build of a large tree does not."""
    bulk = [either.ticket(f"bulk{n}") for n in range(5)]
    urgent = either.ticket("urgent", lane=Lane.URGENT)
    either.pool.submit_all([*bulk, urgent])
    either.until(lambda: len(either.outcomes) == 6)
    order = [either.names[o.job] for o in either.outcomes]
    assert order.index("urgent") <= 1  # behind the one that was under way, at the most
    assert [name for name in order if name != "urgent"] == [f"bulk{n}" for n in range(5)]


def test_a_broken_source_is_an_outcome_and_not_an_exception(either: Bench) -> None:
    """What is wrong with a source is a value; the pool and the other jobs go on."""
    found = either.run(
        either.ticket("bad", "raise ValueError('so not')"),
        either.ticket("good"),
    )
    assert found["bad"].failed
    failure = found["bad"].nodes[0].failure
    assert failure is not None
    assert failure.message == "actor raised ValueError: so not"
    assert good(found["good"])


def test_a_source_that_is_gone_is_an_outcome_too(either: Bench) -> None:
    """It went between the plan and its job."""
    ticket = either.ticket("gone")
    either.site.remove("assets/gone.act")
    outcome = either.run(ticket)["gone"]
    assert (outcome.digest, outcome.died, outcome.settled) == (None, None, True)


def test_what_waits_and_what_runs_adds_up(either: Bench) -> None:
    """`status` shows the sum, and the engine feeds more by it."""
    either.pool.submit_all([either.ticket(f"j{n}") for n in range(4)])
    assert either.pool.waiting() + either.pool.running() == 4
    either.until(lambda: len(either.outcomes) == 4)
    assert either.pool.waiting() + either.pool.running() == 0


def test_stopping_forgets_the_jobs(either: Bench) -> None:
    """Nobody gets an outcome after the end, and nothing is left to wait for."""
    either.pool.submit_all([either.ticket(f"j{n}") for n in range(20)])
    either.pool.stop()
    count = len(either.outcomes)
    assert (either.pool.waiting(), either.pool.running()) == (0, 0)
    assert either.pool.deadline() is None
    assert dict(either.selector.get_map()) == {}
    assert count == len(either.outcomes) < 20
    either.pool.stop = lambda: None  # type: ignore[method-assign]  # the fixture stops it too


# -- workers that die -------------------------------------------------------------------------


def test_a_job_whose_worker_is_killed_runs_once_more_and_nobody_notices(bench: Bench) -> None:
    """The death is charged to the one job that the worker held."""
    bench.ready()
    first = bench.site.root / "first"
    code = f"""
import os, time
if not os.path.exists({str(first)!r}):
    open({str(first)!r}, "w").close()
    time.sleep(60)
"""
    slow = bench.ticket("slow", code)
    others = [bench.ticket(f"o{n}", "import time; time.sleep(0.01)") for n in range(10)]
    bench.pool.submit_all([slow, *others])
    bench.until(first.exists, "the job to be under way")
    held = [w for w in bench.pool.workers.values() if slow.job.id in w.held]
    assert len(held) == 1
    os.kill(held[0].process.pid, signal.SIGKILL)
    bench.until(lambda: len(bench.outcomes) == 11)
    assert all(good(o) for o in bench.outcomes)
    died = [fields for event, fields in bench.events if event == "worker_died"]
    assert [(f["source"], f["cause"]) for f in died] == [("slow.act", "was killed by SIGKILL")]


MISDEEDS = {
    "segfault": ("import ctypes; ctypes.string_at(0)", "was killed by SIGSEGV"),
    "abort": ("import os; os.abort()", "was killed by SIGABRT"),
    "exit": ("import os; os._exit(3)", "exited with code 3"),
    "sys.exit": ("import sys; sys.exit(5)", "exited with code 5"),
    "hang": ("while True: pass", "showed no progress for 0.5 s and was killed"),
    "last words": (
        "import os; os.write(2, b'x\\ngo: no heap left\\n'); os._exit(2)",
        "exited with code 2 (go: no heap left)",
    ),
    "garbage": (
        "import os\nfor fd in range(3, 50):\n"
        "    try: os.write(fd, b'GET / HTTP/1.1')\n"
        "    except OSError: pass\n",
        "sent rubbish",
    ),
    "closes all": ("import os, time; os.closerange(0, 100); time.sleep(60)", "closed its pipe"),
    "truncates all": (
        "import os\nfor fd in range(3, 50):\n"
        "    try: os.ftruncate(fd, 0)\n"
        "    except OSError: pass\n"
        "os._exit(9)",
        "exited with code 9",
    ),
    "kills its group": ("import os; os.killpg(0, 15)", "was killed by SIGTERM"),
    "forks and dies": (
        # The child holds the pipe open from a session of its own: no EOF ever comes.
        "import os, time\n"
        "if os.fork() == 0:\n    os.setsid(); time.sleep(4); os._exit(0)\n"
        "os._exit(7)",
        "exited with code 7",
    ),
}


@pytest.mark.parametrize("what", MISDEEDS)
def test_a_processor_that_breaks_its_worker_fails_its_own_job_only(
    bench: Bench, what: str
) -> None:
    """Its message says how the worker died; the jobs beside and behind it are built."""
    code, cause = MISDEEDS[what]
    found = bench.run(
        bench.ticket("before", estimate=0.0001),
        bench.ticket("bad", code, timeout=0.5, estimate=0.0001),
        *[bench.ticket(f"after{n}", estimate=0.0001) for n in range(20)],
    )
    died = found.pop("bad").died
    assert died is not None
    assert died.message.startswith(f"its worker {cause}")
    assert died.message.endswith(", twice")
    assert not died.transient  # it would come again: no need to try every few seconds
    assert all(good(o) for o in found.values())
    assert good(bench.run(bench.ticket("next"))["next"])


def test_a_job_whose_worker_is_killed_from_outside_every_time_may_be_tried_again(
    bench: Bench,
) -> None:
    """SIGKILL is what the kernel sends when there is no memory left: that may pass."""
    died = bench.run(bench.ticket("big", "import os; os.kill(os.getpid(), 9)"))["big"].died
    assert died is not None
    assert (died.message, died.transient) == ("its worker was killed by SIGKILL, twice", True)


def test_a_job_that_is_out_of_time_takes_the_tools_that_it_started_along(bench: Bench) -> None:
    """They would go on writing into staging."""
    note = bench.site.root / "child"
    code = f"""
import subprocess, time
child = subprocess.Popen(["sleep", "60"])
open({str(note)!r}, "a").write(f"{{child.pid}} ")
time.sleep(60)
"""
    found = bench.run(bench.ticket("hang", code, timeout=0.3))
    assert found["hang"].failed
    children = [int(pid) for pid in note.read_text().split()]
    assert len(children) == 2
    wait_for(lambda: not any(alive(pid) for pid in children), "the tools to be gone")


def test_a_job_that_prints_megabytes_is_built(bench: Bench) -> None:
    """What it prints is nobody's protocol, and a full pipe must not stop it."""
    code = "import os\nfor fd in (1, 2):\n    for _ in range(200): os.write(fd, b'x' * 50_000)\n"
    found = bench.run(bench.ticket("noisy", code), bench.ticket("other"))
    assert all(good(o) for o in found.values())


def test_a_job_that_forks_a_child_that_stays_is_built(bench: Bench) -> None:
    """The child holds a copy of the pipe, and sends nothing through it."""
    code = "import os, time\nif os.fork() == 0:\n    time.sleep(60); os._exit(0)\n"
    found = bench.run(bench.ticket("forks", code), bench.ticket("other"))
    assert all(good(o) for o in found.values())


def test_blame_inside_a_group_falls_on_the_job_that_died(tmp_path: Path) -> None:
    """Small jobs travel together; those of the group that had no part in it are built."""
    with opened(tmp_path / "site", size=1) as bench:
        bench.ready()
        tickets = [bench.ticket(f"j{n}", estimate=0.0001) for n in range(30)]
        bad = bench.ticket("bad", "import os; os._exit(1)", estimate=0.0001)
        tickets.insert(17, bad)
        found = bench.run(*tickets)
        assert [name for name, o in found.items() if not good(o)] == ["bad"]
        sources = {f["source"] for event, f in bench.events if event == "worker_died"}
        assert sources == {"bad.act"}
        assert bench.pool.restarts == {0: 2}


def test_the_others_of_a_group_do_not_wait_for_one_that_hangs(bench: Bench) -> None:
    """It is run again, alone; its time limit is nobody else's."""
    bench.ready()
    began = time.monotonic()
    bench.pool.submit_all(
        [
            bench.ticket("hang", "import time; time.sleep(600)", timeout=600.0, estimate=0.0001),
            *[bench.ticket(f"j{n}", estimate=0.0001) for n in range(40)],
        ]
    )
    bench.until(lambda: len(bench.outcomes) == 40)
    assert time.monotonic() - began < 10.0
    assert bench.pool.running() == 1
    assert all(good(o) for o in bench.outcomes)


def test_what_a_dead_worker_has_left_in_staging_is_removed(bench: Bench) -> None:
    """Or it would fill up over weeks; what waits to be published stays."""
    code = "step.output(step.path).write_text('half'); import os; os._exit(1)"
    found = bench.run(bench.ticket("good"), bench.ticket("bad", code))
    left = [str(p) for p in bench.staging.rglob("*") if p.is_file()]
    assert left == [found["good"].staged[0].staged]


# -- recycling and starting -------------------------------------------------------------------


def test_a_worker_is_replaced_after_so_many_jobs(tmp_path: Path) -> None:
    """What processors leak little by little goes with it, and no job is lost."""
    with opened(tmp_path / "site", size=1, recycle_jobs=10) as bench:
        bench.ready()
        before = bench.pids()
        found = bench.run(*[bench.ticket(f"j{n}") for n in range(25)])
        assert all(good(o) for o in found.values())
        bench.ready()
        assert bench.pool.restarts == {0: 2}
        assert bench.pids() != before
        assert not alive(before[0])
        assert {event for event, _ in bench.events} == {"worker_recycled"}


def test_a_worker_is_replaced_when_it_holds_too_much_memory(tmp_path: Path) -> None:
    """Its job is done and kept; only the process goes."""
    limit = 150 << 20
    with opened(tmp_path / "site", size=1, recycle_bytes=limit) as bench:
        leak = "import sys; sys.leaked = bytearray(200 << 20)"
        found = bench.run(bench.ticket("leak", leak), bench.ticket("next"))
        assert all(good(o) for o in found.values())
        bench.ready()
        [(event, fields)] = bench.events
        assert event == "worker_recycled"
        assert fields["rss_bytes"] > limit
        assert bench.pool.workers[0].rss_bytes < limit


def test_jobs_fail_with_the_reason_when_no_worker_can_start_and_it_recovers(
    tmp_path: Path,
) -> None:
    """It is tried again and again, in the background and less and less often."""
    root = tmp_path / "site"
    root.mkdir()
    (root / "broken").touch()
    broken_warm = f"""
def warm(setting):
    if os.path.exists({str(root / "broken")!r}):
        raise RuntimeError("no licence")

actor = Processor(name="actor", version="1", matches=suffix(".act"), outputs=same_name,
                  process=act, cheap=True, warm=warm)
"""
    global ACTOR
    before, ACTOR = ACTOR, ACTOR + broken_warm
    try:
        with opened(root) as bench:
            died = bench.run(bench.ticket("job"))["job"].died
            assert died is not None
            assert died.message == "the workers cannot start: RuntimeError: no licence"
            assert died.transient
            began = time.monotonic()
            assert bench.run(bench.ticket("again"))["again"].failed
            assert time.monotonic() - began < 5.0  # at once, unless one is starting just now
            (root / "broken").unlink()
            bench.ready()
            assert good(bench.run(bench.ticket("mended"))["mended"])
    finally:
        ACTOR = before


def test_one_worker_that_cannot_start_fails_nobodys_job(tmp_path: Path) -> None:
    """As long as another can."""
    global ACTOR
    before = ACTOR
    ACTOR = (
        before
        + """
def warm(setting):
    if setting.worker == 1:
        raise RuntimeError("only one licence")

actor = Processor(name="actor", version="1", matches=suffix(".act"), outputs=same_name,
                  process=act, cheap=True, warm=warm)
"""
    )
    try:
        with opened(tmp_path / "site") as bench:
            bench.until(lambda: bench.pool.restarts[1] >= 4)
            found = bench.run(*[bench.ticket(f"j{n}") for n in range(5)])
            assert all(good(o) for o in found.values())
    finally:
        ACTOR = before


@pytest.mark.parametrize(
    "kills", [300, pytest.param(10_000, marks=[pytest.mark.soak, pytest.mark.timeout(0)])]
)
def test_random_kills_never_hang_the_pool_nor_blame_the_wrong_job(
    bench: Bench, kills: int
) -> None:
    """Every job has one outcome: it is built, or its workers were killed twice over it."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    bench.ready()
    for name in ("a", "b", "c"):
        bench.site.write(f"assets/{name}.act", "import time; time.sleep(0.002)")
    done = 0
    submitted = 0
    while done < kills:
        if bench.pool.waiting() < 20:
            batch = []
            for _ in range(10):
                bench.serial += 1
                source = Source("assets", f"{dice.choice('abc')}.act")
                batch.append(Ticket(Job(bench.serial, source), Lane.BULK, 20.0, 0.001))
            submitted += len(batch)
            bench.pool.submit_all(batch)
        bench.turn(0.001)
        up = [w for w in bench.pool.workers.values() if w.state is not WorkerState.DEAD]
        if up and dice.random() < 0.5:
            # In its start, between jobs and in the middle of one.
            with contextlib.suppress(ProcessLookupError):
                os.kill(dice.choice(up).process.pid, signal.SIGKILL)
            done += 1
            if dice.random() < 0.9:
                bench.until(lambda: any(w.held for w in bench.pool.workers.values()))
    bench.until(lambda: len(bench.outcomes) == submitted)
    assert sorted(o.job for o in bench.outcomes) == list(range(1, submitted + 1))
    causes = {o.died.message for o in bench.outcomes if o.died is not None}
    assert causes <= {
        "its worker was killed by SIGKILL, twice",
        "the workers cannot start: was killed by SIGKILL",
    }
    assert sum(good(o) for o in bench.outcomes) > submitted * 0.8
