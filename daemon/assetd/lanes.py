"""The jobs that wait for a worker, and whose turn it is.  Knows no worker and no record."""

from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum
from math import inf
from typing import Final, NamedTuple

from assetd.model import Job, Source

GROUP_LIMIT: Final = 50
"""Jobs sent at once: at 50 the pipe costs less than 3 µs a job."""
GROUP_SECONDS: Final = 0.02
"""Work sent at once, by the estimates: an urgent job waits so long at the most."""


class Lane(IntEnum):
    """Which of two queues a job waits in; the first is always served first."""

    URGENT = 0
    """Somebody saved a file and waits for it."""
    BULK = 1


WAVES: Final = {Lane.URGENT: 1, Lane.BULK: 8}
"""Submissions among which the longest job is begun first.  Of saves the earlier one goes first.
In bulk, more of them would leave each with a short job that is not done, and so not recorded."""


class Ticket(NamedTuple):
    """A job on its way through the pool."""

    job: Job
    lane: Lane
    timeout_seconds: float
    estimate_seconds: float
    """How long it took last time; a guess for a new one."""
    deaths: int = 0
    """Workers that died over it."""
    lost: int = 0
    """Workers that died when they held it and were between jobs."""
    alone: bool = False
    """Send no other job along: it may kill or hold up its worker."""
    nodes: tuple[tuple[str, float], ...] = ()
    """Of its tree: each node's processor, and for how long that may show no progress."""

    def node(self, index: int) -> tuple[str | None, float]:
        """Who is at work at that node, as far as it is known, and the limit that holds."""
        if 0 <= index < len(self.nodes):
            return self.nodes[index]
        return None, self.timeout_seconds


class Lanes:
    """The tickets of both lanes, in the order of their turns."""

    def __init__(self, weigh: Callable[[Source], float] = lambda _source: 0.0) -> None:
        """Begin with none.

        Args:
            weigh: Of two jobs that are expected to take as long, the heavier source's is begun
                first.  It is asked late, and may know more by then.
        """
        self._weigh = weigh
        self._waiting: dict[Lane, list[tuple[float, Ticket]]] = {lane: [] for lane in Lane}
        """With the wave of each; sorted if it is not in `_unsorted`, the next one last."""
        self._unsorted: set[Lane] = set()
        self._submissions = dict.fromkeys(Lane, 0)

    def __len__(self) -> int:
        """How many wait."""
        return sum(map(len, self._waiting.values()))

    def add(self, tickets: Sequence[Ticket]) -> None:
        """Take tickets that were made together."""
        for lane in {ticket.lane for ticket in tickets}:
            wave = -(self._submissions[lane] // WAVES[lane])
            self._submissions[lane] += 1
            added = [(wave, ticket) for ticket in reversed(tickets) if ticket.lane is lane]
            self._waiting[lane][:0] = added
            self._unsorted.add(lane)

    def add_first(self, ticket: Ticket) -> None:
        """It has had its turn, and nothing came of it."""
        self._waiting[ticket.lane].append((inf, ticket))

    def add_last(self, ticket: Ticket) -> None:
        """It has had its turn, and held up others."""
        self._waiting[ticket.lane].insert(0, (-inf, ticket))

    def take(self, workers: int) -> list[Ticket]:
        """What to send to one of so many *workers* next: a job, or a group of small ones."""
        for lane in Lane:
            waiting = self._sorted(lane)
            if not waiting:
                continue
            group = [waiting.pop()[1]]
            if group[0].alone:
                return group
            seconds = group[0].estimate_seconds
            # No more than this worker's share: the last jobs of a batch must not queue up
            # behind one worker while the others have nothing to do.
            share = max(1, len(waiting) // max(1, workers))
            while waiting and len(group) < min(GROUP_LIMIT, share) and not waiting[-1][1].alone:
                seconds += waiting[-1][1].estimate_seconds
                if seconds > GROUP_SECONDS:
                    break
                group.append(waiting.pop()[1])
            return group
        return []

    def take_all(self) -> Iterator[Ticket]:
        """All of them, in their order; none is left."""
        for lane in Lane:
            waiting = self._sorted(lane)
            while waiting:
                yield waiting.pop()[1]

    def clear(self) -> None:
        """Forget all of them."""
        for waiting in self._waiting.values():
            waiting.clear()

    def _sorted(self, lane: Lane) -> list[tuple[float, Ticket]]:
        waiting = self._waiting[lane]
        if lane in self._unsorted:
            self._unsorted.remove(lane)
            waiting.sort(key=self._rank)
        return waiting

    def _rank(self, each: tuple[float, Ticket]) -> tuple[float, float, float]:
        wave, ticket = each
        return wave, ticket.estimate_seconds, self._weigh(ticket.job.source)
