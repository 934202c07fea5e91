"""Both pools under one contract; then all that a processor can do to the real one."""

import contextlib
import os
import random
import selectors
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from assetd import registry
from assetd.errors import NotRunningError
from assetd.lanes import Lane, Ticket
from assetd.model import Job, NodeState, Outcome, Source
from assetd.pool import Jobs, Pool, Worker, WorkerState
from assetd.testing import InlinePool, Site, wait_for

ACTOR = """
import os
from assetd.processor import Processor, same_name, suffix

def act(step):
    exec(step.input.read_text(), {"step": step})
    step.write(step.path, step.input.read_text())

def warm(setting):
    pass

actor = Processor(name="actor", version="1", matches=suffix(".act"), outputs=same_name,
                  process=act, warm=warm, cheap=True, ends=True)
"""
NO_WARM = "    pass\n\nactor"
FINE = "pass"


class Bench:
    """A pool with its selector, as the engine has them, and the outcomes that came."""

    def __init__(
        self, root: Path, kind: Callable[..., Jobs], size: int, actor: str, **limits: Any
    ) -> None:
        self.site = Site(root, "mounts: [assets]\nplugins: [actor.py]\n")
        self.site.write("actor.py", actor)
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
def opened(
    root: Path,
    kind: Callable[..., Jobs] = Pool,
    size: int = 2,
    *,
    actor: str = ACTOR,
    **limits: Any,
) -> Iterator[Bench]:
    root.mkdir(exist_ok=True)
    bench = Bench(root, kind, size, actor, **limits)
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
    assert all(good(o) for o in either.outcomes)
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
        (
            "import os\nfor fd in range(3, 50):\n"
            "    try: os.write(fd, b'GET / HTTP/1.1')\n"
            "    except OSError: pass\n"
        ),
        "sent rubbish",
    ),
    "closes all": ("import os, time; os.closerange(0, 100); time.sleep(60)", "closed its pipe"),
    "truncates all": (
        (
            "import os\nfor fd in range(3, 50):\n"
            "    try: os.ftruncate(fd, 0)\n"
            "    except OSError: pass\n"
            "os._exit(9)"
        ),
        "exited with code 9",
    ),
    "kills its group": ("import os; os.killpg(0, 15)", "was killed by SIGTERM"),
    "forks and dies": (
        # The child holds the pipe open from a session of its own: no EOF ever comes.
        (
            "import os, time\n"
            "if os.fork() == 0:\n    os.setsid(); time.sleep(4); os._exit(0)\n"
            "os._exit(7)"
        ),
        "exited with code 7",
    ),
}


@pytest.mark.parametrize("what", MISDEEDS)
def test_a_processor_that_breaks_its_worker_fails_its_own_job_only(bench: Bench, what: str) -> None:
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
    assert died.message.startswith("its worker was killed by SIGKILL")
    assert died.transient


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
        assert bench.pool.restarts == {0: 0}, "it was no accident"
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


def test_a_job_that_takes_more_and_more_memory_fails_alone(tmp_path: Path) -> None:
    """Before the kernel has to end something, which may be something else."""
    with opened(tmp_path / "site", size=1, most_bytes=300 << 20) as bench:
        leak = "import os\nkept = []\nwhile True:\n    kept.append(bytes(9_999_999))"
        found = bench.run(bench.ticket("leak", leak), bench.ticket("next"))
        assert good(found["next"])
        died = found["leak"].died
        assert died is not None
        assert "took more than 300 MB of memory" in died.message
        assert died.message.endswith("was killed, twice")


def test_jobs_fail_with_the_reason_when_no_worker_can_start_and_it_recovers(
    tmp_path: Path,
) -> None:
    """It is tried again and again, in the background and less and less often."""
    root = tmp_path / "site"
    root.mkdir()
    (root / "broken").touch()
    warm = f"""
    if os.path.exists({str(root / "broken")!r}):
        raise RuntimeError("no licence")

actor"""
    with opened(root, actor=ACTOR.replace(NO_WARM, warm)) as bench:
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


def test_one_worker_that_cannot_start_fails_nobodys_job(tmp_path: Path) -> None:
    """As long as another can."""
    warm = """
    if setting.worker == 1:
        raise RuntimeError("only one licence")

actor"""
    with opened(tmp_path / "site", actor=ACTOR.replace(NO_WARM, warm)) as bench:
        bench.until(lambda: bench.pool.restarts[1] >= 4)
        found = bench.run(*[bench.ticket(f"j{n}") for n in range(5)])
        assert all(good(o) for o in found.values())


def test_a_job_whose_workers_were_dead_before_it_came_is_blamed_for_nothing(tmp_path: Path) -> None:
    """However many in a row: it was at work on none of them."""
    with opened(tmp_path / "site", size=6) as bench:
        bench.ready()
        killed = bench.pids()

        def end(pid: int) -> None:
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda: not alive(pid), "the worker to be dead")

        for pid in killed.values():  # one by one: we hear of the deaths in their order
            end(pid)
        bench.pool.submit_all([bench.ticket("job")])
        bench.until(lambda: len(bench.outcomes) == 1)
        assert good(bench.outcomes[0])
        lost = [e for e, fields in bench.events if e == "worker_died" and fields["source"]]
        assert len(lost) > 2, "it was sent to several of them"


def test_random_kills_never_hang_the_pool_nor_blame_the_wrong_job(bench: Bench) -> None:
    """Every job has one outcome: it is built, or its workers were killed twice over it."""
    kills = int(os.environ.get("ASSETD_TEST_KILLS", "300"))
    seed = int(os.environ.get("ASSETD_TEST_SEED", random.randrange(1 << 32)))
    print(f"ASSETD_TEST_SEED={seed}")
    dice = random.Random(seed)
    bench.ready()
    for name in ("a", "b", "c"):
        bench.site.write(f"assets/{name}.act", "import time; time.sleep(0.002)")
    done = 0
    submitted = 0
    hit: Counter[int] = Counter()
    fit = {WorkerState.IDLE, WorkerState.BUSY}
    killed: dict[int, tuple[Worker, float]] = {}
    delays: list[float] = []
    while done < kills:
        bench.until(lambda: any(w.state in fit for w in bench.pool.workers.values()))
        if bench.pool.waiting() < 20:
            batch = []
            for _ in range(10):
                bench.serial += 1
                source = Source("assets", f"{dice.choice('abc')}.act")
                batch.append(Ticket(Job(bench.serial, source), Lane.BULK, 20.0, 0.001))
            submitted += len(batch)
            bench.pool.submit_all(batch)
        bench.turn(0.001)
        for number, (victim, when) in list(killed.items()):
            if bench.pool.workers[number] is not victim:
                delays.append(bench.pool.workers[number].since - when)
                del killed[number]
        up = [w for w in bench.pool.workers.values() if w.state is not WorkerState.DEAD]
        if up and dice.random() < 0.3:
            # In its start, between jobs and in the middle of one.
            victim = dice.choice(up)
            if victim.state in fit:
                killed.setdefault(victim.number, (victim, time.monotonic()))
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim.process.pid, signal.SIGKILL)
            hit.update(victim.held.keys())
            done += 1
    bench.until(lambda: len(bench.outcomes) == submitted)
    delays.sort()
    p50, p95 = (delays[int(len(delays) * share)] * 1000 for share in (0.5, 0.95))
    print(f"{done:,} kills: the next worker is started after p50 {p50:.1f} ms, p95 {p95:.1f} ms")
    if kills >= 10_000:
        assert p95 < 100.0
    assert sorted(o.job for o in bench.outcomes) == list(range(1, submitted + 1))
    for outcome in bench.outcomes:
        if outcome.died is None:
            assert good(outcome)
        elif not outcome.died.message.startswith("the workers cannot start"):
            assert outcome.died.message.startswith("its worker was killed by SIGKILL")
            assert hit[outcome.job] >= 2


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_fork_server_that_is_killed_is_replaced(bench: Bench) -> None:
    """The workers that it has forked go on; how one of them ends nobody can tell then."""
    bench.ready()
    workers = list(bench.pool.workers.values())
    server = parent(workers[0].process.pid)
    assert server != os.getpid()
    assert {parent(worker.process.pid) for worker in workers} == {server}
    os.kill(server, signal.SIGKILL)
    wait_for(lambda: parent(workers[0].process.pid) != server, "the workers to be orphans")
    assert good(bench.run(bench.ticket("a"))["a"])
    os.kill(workers[0].process.pid, signal.SIGKILL)
    bench.until(lambda: bench.pool.workers[0] is not workers[0], "another worker")
    bench.ready()
    assert parent(bench.pool.workers[0].process.pid) not in {server, 1}
    assert good(bench.run(bench.ticket("b"))["b"])
    [(_, died)] = [each for each in bench.events if each[0] == "worker_died"]
    assert died["cause"] == "ended, and so had its parent: nobody knows how"


# -- ends -------------------------------------------------------------------------------------

STUCK = {
    "in Sass": ("assets/site.scss", "$x: 1;\n@while true { $x: $x + 1; }\n"),
    "in a tool": ("assets/a.act", "import subprocess; subprocess.run(['sleep', '600'])"),
    "waiting": ("assets/a.act", FINE),
}


def children(pid: int) -> set[int]:
    """The process and all below it."""
    found = {pid}
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in os.listdir(f"/proc/{pid}/task"):
            for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                found |= children(int(child))
    return found


@pytest.mark.parametrize("what", STUCK)
def test_nothing_outlives_the_owner_when_it_is_killed(tmp_path: Path, what: str) -> None:
    """Not a worker that is stuck in C, nor a tool that a worker started."""
    site = Site(tmp_path / "site", "mounts: [assets]\nplugins: [actor.py]\nworkers: 2\n")
    site.write("actor.py", ACTOR)
    site.write(*STUCK[what])
    with site.daemon(ready=what == "waiting") as daemon:
        if what != "waiting":

            def stuck() -> bool:
                with contextlib.suppress(NotRunningError):
                    return any(w["job"] for w in daemon.status()["workers"])
                return False

            wait_for(stuck, "the worker to be stuck")
            time.sleep(0.2)  # until it is in C, or its tool has started
        family = children(daemon.process.pid)
        assert len(family) == (5 if what == "in a tool" else 4)  # with the fork server
        daemon.kill()
        wait_for(lambda: not any(alive(pid) for pid in family), "the family to be gone", 5.0)


HOOKS = """
import os
from assetd.processor import Processor, same_name, suffix

def note(context, what):
    with open(context.project / "notes", "a") as file:
        file.write(f"{what} {context.role} {context.worker} {context.is_first_worker} "
                   f"{context.is_pipeline_process} {context.out_dir.name}\\n")

def start(context):
    note(context, "start")
    context.ignore("*.draft")
    if context.is_pipeline_process and os.path.exists(context.project / "raise"):
        raise RuntimeError("no network")

def end(context):
    note(context, "end")
    if context.is_pipeline_process and os.path.exists(context.project / "raise"):
        raise RuntimeError("no network")

hooked = Processor(name="hooked", version="1", matches=suffix(".none"), outputs=same_name,
                   process=lambda step: None, start=start, end=end)
"""


@pytest.mark.parametrize("raising", [False, True])
def test_hooks_run_in_the_main_process_and_in_every_worker(tmp_path: Path, raising: bool) -> None:
    """Each is told where it runs; what it ignores is ignored; one that raises ends nothing."""
    config = "mounts: [assets]\nplugins: [hooks.py]\nworkers: 2\nsandbox_write: [notes]\n"
    site = Site(tmp_path / "site", config)
    site.write("notes")
    site.write("hooks.py", HOOKS)
    site.write("assets/a.txt", "a")
    site.write("assets/b.draft", "b")
    if raising:
        site.write("raise")
    with site.daemon() as daemon:
        wait_for(
            lambda: all(w["state"] == "idle" for w in daemon.status()["workers"]), "the workers"
        )
        assert site.outputs() == {"a.txt": b"a"}
        assert daemon.end() == 0
        assert daemon.log.count("hook_failed") == (2 if raising else 0)
    expected = [
        f"{what} {where}"
        for what in ("start", "end")
        for where in (
            "main None False True public",
            "worker 0 True False public",
            "worker 1 False False public",
        )
    ]
    notes = site.root.joinpath("notes").read_text().splitlines()
    assert sorted(notes) == sorted(expected)
    assert notes[0] == expected[0]  # the main process starts before its workers
    assert notes[-1] == expected[3]  # and ends after them


def test_a_changed_configuration_ends_what_the_one_before_has_started(tmp_path: Path) -> None:
    """The main process goes on, but its hooks are those of a generation, like the workers'."""
    config = "mounts: [assets]\nplugins: [hooks.py]\nworkers: 1\nsandbox_write: [notes]\n"
    site = Site(tmp_path / "site", config)
    site.write("notes")
    site.write("hooks.py", HOOKS)
    site.write("assets/a.txt", "a")
    with site.daemon() as daemon:
        wait_for(lambda: daemon.status()["workers"][0]["state"] == "idle", "the worker")
        site.write("assetd.yml", f"{config}sass: {{style: compressed}}\n")
        daemon.sync()
        wait_for(lambda: daemon.status()["workers"][0]["state"] == "idle", "the next worker")
        assert daemon.end() == 0
    notes = [line.split()[:2] for line in (site.root / "notes").read_text().splitlines()]
    one = [[what, role] for what in ("start", "end") for role in ("main", "worker")]
    begun, ended = one[:2], one[:1:-1]
    assert notes == [*begun, *ended, *begun, *ended]


def test_a_daemon_tells_what_a_crashing_plugin_did_and_goes_on(tmp_path: Path) -> None:
    """`status` names the source and the signal; mending the source heals it."""
    site = Site(tmp_path / "site", "mounts: [assets]\nplugins: [actor.py]\n")
    site.write("actor.py", ACTOR)
    site.write("assets/bad.act", "import ctypes; ctypes.string_at(0)")
    site.write("assets/good.act", FINE)
    with site.daemon() as daemon:
        [error] = daemon.status()["errors"]
        assert error["source"] == "bad.act"
        assert error["message"].startswith("its worker was killed by SIGSEGV")
        assert site.output("good.act") == FINE
        site.write("assets/bad.act", FINE)
        assert daemon.sync() == []
        assert site.output("bad.act") == FINE


def test_a_plugin_that_breaks_in_its_workers_is_told_of_and_heals_when_it_is_mended(
    tmp_path: Path,
) -> None:
    """The jobs fail with the reason; a new text of the plugin starts new workers."""
    site = Site(tmp_path / "site", "mounts: [assets]\nplugins: [actor.py]\n")
    condition = "'assetd.forkserver_main' in sys.orig_argv"
    broken = f"import os, sys\nif {condition}: raise OSError('no licence')\n"
    site.write("actor.py", broken + ACTOR)
    site.write("assets/a.act", FINE)
    with site.daemon() as daemon:
        [error] = daemon.status()["errors"]
        assert "the workers cannot start: " in error["message"]
        assert "no licence" in error["message"]
        site.write("actor.py", ACTOR)
        wait_for(lambda: daemon.status()["errors"] == [], "the plugin to be taken")
        assert site.output("a.act") == FINE


ENDLESS = "@while true { $c: $c + 1; }"


@pytest.mark.parametrize("new", [True, False], ids=["new", "known"])
@pytest.mark.parametrize("how", ["hangs", "crashes"])
def test_mending_the_partial_that_ended_a_worker_builds_its_source(
    tmp_path: Path, how: str, new: bool
) -> None:
    """Also if no build of the source has come to its end yet, to tell what it depends on."""
    config = "mounts: [assets]\nworkers: 1\njob_timeout: 1s\nplugins: [actor.py]\n"
    site = Site(tmp_path / "site", config)
    site.write("actor.py", ACTOR)
    if how == "hangs":
        source, partial = "css/page.scss", "assets/css/_part.scss"
        text, fine, bad = '@import "part"; a { b: $c; }', "$c: 1;", f"$c: 1; {ENDLESS}"
    else:
        source, partial = "page.act", "assets/part.txt"
        text = (
            f"import os\npath = step.project / '{partial}'\nstep.depends(path)\n"
            "'crash' in path.read_text() and os.abort()"
        )
        fine, bad = "fine", "crash"
    with site.daemon() as daemon:
        site.write(partial, fine if not new else bad)
        site.write(f"assets/{source}", text)
        if not new:
            assert daemon.sync() == []
            site.write(partial, bad)
        [error] = daemon.sync()
        assert error["source"] == source
        assert error["message"].startswith("its worker ")
        site.write("assets/other.txt", "of no matter")
        assert daemon.sync() == [error]
        assert daemon.status()["workers"][0]["restarts"] == 2  # nobody tried it again
        site.write(partial, fine)
        assert daemon.sync() == []
    assert site.outputs() == site.clean_build()
