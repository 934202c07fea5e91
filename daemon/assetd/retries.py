"""When what fails is tried again, and when it is left alone.  Knows no record and no jobs."""

from typing import Final

from assetd.model import Diagnostic, Entry, EntryState, Source, Stamp

RETRY_SECONDS: Final = (1.0, 30.0)
"""First and longest wait before a failure that may pass by itself is tried again."""
CRASH_LIMIT: Final = 3
"""So many failures in which workers were killed over one input are no accident."""


class Retries:
    """The sources whose failures may pass by themselves."""

    def __init__(self) -> None:
        self.due_at: float | None = None
        """By the monotonic clock; None: nothing is to be tried again."""
        self._sources: set[Source] = set()
        self._seconds = RETRY_SECONDS[0]

    def add(self, entry: Entry, now: float) -> None:
        """Have it tried again; less and less often if it costs a worker."""
        self._sources.add(entry.source)
        when = now + RETRY_SECONDS[0]
        problem = entry.problem
        if entry.state is EntryState.FAILED and problem is not None and problem.file is None:
            when = now + self._seconds
            self._seconds = min(self._seconds * 2, RETRY_SECONDS[1])
        self.due_at = when if self.due_at is None else min(self.due_at, when)

    def due(self, now: float) -> set[Source]:
        """Those to be looked at now, once."""
        if self.due_at is None or now < self.due_at:
            return set()
        self.due_at = None
        found, self._sources = self._sources, set()
        return found

    def all_went_well(self) -> None:
        """Nothing failed any more: the next failure is tried again as soon as the first."""
        self._seconds = RETRY_SECONDS[0]


class Quarantine:
    """The sources that cost workers by no fault of theirs that is known."""

    def __init__(self) -> None:
        self._crashes: dict[Source, tuple[Stamp | None, int]] = {}
        """Their stamps, and how often."""

    def judge(self, source: Source, stamp: Stamp | None, died: Diagnostic) -> Diagnostic:
        """What to say of a worker's end; final if the same input has done it again and again.

        Args:
            source: Whose job it had.
            stamp: Of its file when the job was planned.
            died: What is known of the end; `transient` if nobody is to blame.
        """
        if not died.transient:
            self.acquit(source)
            return died
        before, crashes = self._crashes.get(source, (stamp, 0))
        crashes = crashes + 1 if before == stamp else 1
        self._crashes[source] = (stamp, crashes)
        if crashes < CRASH_LIMIT:
            return died
        # Out of memory again, say: each try takes memory from everything else.
        told = f"{died.message}, {CRASH_LIMIT} times over: left alone until it changes"
        return died._replace(message=told, transient=False)

    def acquit(self, source: Source) -> None:
        """Its worker has lived."""
        self._crashes.pop(source, None)
