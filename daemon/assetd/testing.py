"""The test kit: real sites in temporary folders, for us and for authors of processors.

Nothing here is faked.  `Site` writes real files and runs the real command line; `InlinePool` is
a real pool that runs its jobs in this process, for tests that want to look inside.
"""

import contextlib
import json
import os
import selectors
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from assetd import client
from assetd.errors import NotRunningError
from assetd.lanes import Ticket
from assetd.model import Outcome
from assetd.pool import Worker
from assetd.worker import Crew

T = TypeVar("T")

DEADLINE_SECONDS: Final = 30.0


def wait_for(question: Callable[[], T], what: str = "it", seconds: float = DEADLINE_SECONDS) -> T:
    """Ask until the answer is true, and give it.

    Raises:
        AssertionError: It was not, by the deadline.
    """
    deadline = time.monotonic() + seconds
    while True:
        answer = question()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:g} s for {what}; last answer: {answer!r}")
        time.sleep(0.005)


class Site:
    """A project in a folder of its own."""

    def __init__(self, root: Path, config: str = "mounts: [assets]\n") -> None:
        self.root = root
        self.write("assetd.yml", config)
        (root / "assets").mkdir(exist_ok=True)

    def write(self, path: str, content: str | bytes = "") -> Path:
        """Write a file, with its folders, as an editor that truncates does."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        return target

    def replace(self, path: str, content: str) -> None:
        """Write a file as an editor that renames does."""
        target = self.root / path
        temporary = target.with_name(f".{target.name}.tmp~")
        temporary.write_text(content)
        temporary.rename(target)

    def remove(self, path: str) -> None:
        """Remove a file or a folder with all that is in it."""
        target = self.root / path
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        else:
            target.unlink()

    def outputs(self, folder: str = "public") -> dict[str, bytes]:
        """Every file below the output root, by its path; not those that go while we look."""
        base = self.root / folder
        found = {}
        for where, _, names in os.walk(base):
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    path = Path(where, name)
                    found[os.path.relpath(path, base)] = path.read_bytes()
        return found

    def output(self, path: str) -> str | None:
        """The text of one output; None if it is not there."""
        try:
            return (self.root / "public" / path).read_text()
        except FileNotFoundError:
            return None

    def run(
        self, *arguments: str, check: bool = False, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run `assetd` with *arguments* in the project's folder."""
        return subprocess.run(
            [sys.executable, "-P", "-m", "assetd", *arguments],
            cwd=self.root,
            env={**os.environ, "NO_COLOR": "1", **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=check,
            timeout=300,
        )

    def build(self, *arguments: str) -> dict[str, Any]:
        """Run `assetd build --json`; gives what it printed, whether or not something fails."""
        done = self.run("build", "--json", *arguments)
        if done.returncode not in {0, 1}:
            raise AssertionError(f"assetd build ended with {done.returncode}: {done.stderr}")
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def clean_build(self) -> dict[str, bytes]:
        """The outputs of a build of the same sources that knows nothing of before."""
        other = self.root.with_name(self.root.name + "-clean")
        shutil.rmtree(other, ignore_errors=True)
        shutil.copytree(
            self.root,
            other,
            symlinks=True,
            ignore=lambda folder, _: {"public", ".assetd"} if Path(folder) == self.root else set(),
        )
        clean = Site.__new__(Site)
        clean.root = other
        clean.build()
        found = clean.outputs()
        shutil.rmtree(other)
        return found

    @contextlib.contextmanager
    def daemon(
        self, *arguments: str, ready: bool = True, through: Sequence[str] = ()
    ) -> Iterator["Daemon"]:
        """A running daemon, ended at the end."""
        daemon = Daemon(self, *arguments, through=through)
        try:
            if ready:
                daemon.wait_until_ready()
            yield daemon
        finally:
            daemon.end()


class Daemon:
    """`assetd run` as a process of ours."""

    def __init__(self, site: Site, *arguments: str, through: Sequence[str] = ()) -> None:
        """Start it.

        Args:
            site: Its project.
            arguments: More of `assetd run`.
            through: A command that takes ours as its last arguments and becomes it: `unshare`.
        """
        self.site = site
        self._log = site.root.with_name(site.root.name + ".log")
        with open(self._log, "ab") as log:
            self.process = subprocess.Popen(
                [*through, sys.executable, "-P", "-m", "assetd", "run", *arguments],
                cwd=site.root,
                env={**os.environ, "NO_COLOR": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        """All that it has written."""
        return self._log.read_text(errors="replace")

    def connect(self) -> client.Connection:
        """A connection to its control socket, which for tests is in the usual place."""
        root = os.path.realpath(self.site.root)
        return client.connect(root, os.path.join(root, ".assetd"))

    def ask(self, do: str, *, seconds: float = 60.0, **fields: object) -> Any:
        """One request and its answer, which comes within so many seconds."""
        with contextlib.closing(self.connect()) as connection:
            return connection.ask(do, deadline=time.monotonic() + seconds, **fields)

    def status(self) -> dict[str, Any]:
        """What `assetd status --json` prints."""
        status: dict[str, Any] = self.ask("status")
        return status

    def sync(self, seconds: float = 60.0) -> list[dict[str, Any]]:
        """Wait until all that was written is built; gives what fails then."""
        errors: list[dict[str, Any]] = self.ask("sync", seconds=seconds)["errors"]
        return errors

    def wait_until_ready(self) -> None:
        """Wait until its first scan is built."""

        def ready() -> bool:
            if self.process.poll() is not None:
                raise AssertionError(
                    f"assetd ended with {self.process.returncode}:\n{self.log[-4000:]}"
                )
            try:
                return bool(self.status()["state"] in {"idle", "paused"})
            except NotRunningError:
                return False

        wait_for(ready, "the daemon to be ready")

    def kill(self) -> None:
        """End it as a power cut would, as far as a signal can."""
        self.process.kill()
        self.process.wait()

    def end(self) -> int:
        """End it in order; gives its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15.0)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"assetd did not end:\n{self.log[-4000:]}") from None
        return self.process.returncode


class InlinePool:
    """A pool without processes: jobs run in this one, one at a time, between two turns."""

    def __init__(
        self,
        size: int,
        opening: Mapping[str, Any],
        selector: selectors.BaseSelector,
        on_outcome: Callable[[Outcome], None],
        on_event: Callable[[str, dict[str, Any]], None],
        *,
        generation: int = 1,
        staging: str,
        **_limits: object,
    ) -> None:
        del size, on_event, generation
        here = os.path.join(staging, "w0")
        os.makedirs(here, exist_ok=True)
        self._folder = os.getcwd()
        self._crew = Crew({**opening, "worker": 0, "staging": here})
        self._on_outcome = on_outcome
        self._queues: tuple[deque[Ticket], ...] = (deque(), deque())
        self._selector = selector
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        selector.register(self._bell, selectors.EVENT_READ, self._run_one)
        self.workers: dict[int, Worker] = {}
        self.restarts: dict[int, int] = {}

    def submit_all(self, tickets: list[Ticket]) -> None:
        """See `pool.Jobs`."""
        for ticket in tickets:
            self._queues[ticket.lane].append(ticket)
        os.eventfd_write(self._bell, 1)

    def waiting(self) -> int:
        """See `pool.Jobs`."""
        return sum(len(queue) for queue in self._queues)

    def running(self) -> int:
        """See `pool.Jobs`."""
        return 0

    def deadline(self) -> float | None:
        """See `pool.Jobs`."""
        return None

    def tick(self) -> None:
        """See `pool.Jobs`."""

    def stop(self) -> None:
        """See `pool.Jobs`."""
        for queue in self._queues:
            queue.clear()
        self._crew.end()
        self._selector.unregister(self._bell)
        os.close(self._bell)
        os.chdir(self._folder)

    def _run_one(self, _mask: int) -> None:
        os.eventfd_read(self._bell)
        queue = next((q for q in self._queues if q), None)
        if queue is None:
            return
        ticket = queue.popleft()
        if self.waiting():
            os.eventfd_write(self._bell, 1)
        self._on_outcome(self._crew.runner.run(ticket.job))
