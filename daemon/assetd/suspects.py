"""The sources that are to be looked at, and why.  Knows no record, no disk and no jobs.

Of two suspicions of one source nothing is lost: it is looked at as soon, for as good a reason
and for all who wait as each of them asks.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from assetd.lanes import Lane
from assetd.model import Reason, Source, Stamp


@dataclass(slots=True)
class Suspicion:
    """Of one source."""

    serial: int
    """Of the oldest note that led to it."""
    lane: Lane
    noted: float
    """When that was, by the monotonic clock."""
    reason: Reason | None = None
    """For which it is run whatever it is like; None: only if there is a reason."""
    stamp: Stamp | None = None
    """What a scan has just read; None: look yourself."""


class Suspects:
    """Those that may be looked at, and those *deferred* for a job that is under way."""

    def __init__(self) -> None:
        self._lanes: dict[Lane, dict[Source, Suspicion]] = {lane: {} for lane in Lane}
        self._deferred: dict[Source, Suspicion] = {}

    def __len__(self) -> int:
        """How many may be looked at."""
        return sum(map(len, self._lanes.values()))

    @property
    def deferred(self) -> int:
        """How many have to wait."""
        return len(self._deferred)

    def add(
        self,
        source: Source,
        serial: int,
        lane: Lane,
        *,
        reason: Reason | None = None,
        stamp: Stamp | None = None,
        noted: float | None = None,
    ) -> None:
        """Have *source* looked at; by default it is noted now."""
        known = self._lanes[Lane.URGENT].get(source) or self._lanes[Lane.BULK].get(source)
        if known is None:
            when = time.monotonic() if noted is None else noted
            self._lanes[lane][source] = Suspicion(serial, lane, when, reason, stamp)
            return
        known.serial = min(known.serial, serial)
        known.reason = known.reason or reason
        known.stamp = None  # a second look may show another one
        if lane < known.lane:
            self._lanes[lane][source] = self._lanes[known.lane].pop(source)
            known.lane = lane

    def take(self, most: int, *, urgent_only: bool) -> tuple[Lane, dict[Source, Suspicion]]:
        """So many at the most, to be planned together, and the lane of their jobs.

        A few saves go ahead of all else; with more of them than *most* it is a checkout, say,
        and nobody waits for one of them.  None of the others is taken if *urgent_only*.
        """
        urgent, bulk = self._lanes[Lane.URGENT], self._lanes[Lane.BULK]
        lane = Lane.URGENT if 0 < len(urgent) <= most else Lane.BULK
        if lane is Lane.BULK and urgent_only:
            return lane, {}
        among = urgent or bulk
        return lane, {source: among.pop(source) for source in list(islice(among, most))}

    def defer(self, source: Source, each: Suspicion) -> None:
        """Have *source* looked at after the next commit."""
        known = self._deferred.get(source)
        if known is not None:
            each.serial = min(each.serial, known.serial)
            each.lane = min(each.lane, known.lane)
            each.noted = min(each.noted, known.noted)
            each.reason = known.reason or each.reason
        self._deferred[source] = each

    def release(self) -> None:
        """Those that were deferred need not wait any more."""
        deferred, self._deferred = self._deferred, {}
        for source, each in deferred.items():
            self.add(source, each.serial, each.lane, reason=each.reason, noted=each.noted)

    def serials(self) -> Iterator[int]:
        """Of all of them, those that wait longest first, more or less."""
        for each in (*self._lanes.values(), self._deferred):
            for suspicion in each.values():
                yield suspicion.serial
