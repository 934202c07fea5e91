"""A measured number, what it must be, and whether it is."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field


def percentile(times: Sequence[float], share: float) -> float:
    """The smallest of *times* that no more than *share* of them exceed."""
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    figure: str
    """Which promise it is about."""
    what: str
    value: float
    unit: str
    floor: float | None
    """What the same work costs bare, or costs somebody else; None where there is no such."""
    against: str
    """What the floor is."""
    limit: float | None
    """What the value must not exceed; None where nothing is promised."""
    target: str
    """The limit in words."""

    @property
    def ratio(self) -> float | None:
        """How many times the floor it is."""
        return self.value / self.floor if self.floor else None

    @property
    def holds(self) -> bool | None:
        """Whether it is what it must be; None where nothing is promised."""
        return None if self.limit is None else self.value <= self.limit


@dataclass(slots=True)
class Times:
    """The saves of one kind by one contender, in milliseconds."""

    kind: str
    name: str
    contender: str
    ms: list[float] = field(default_factory=list)

    @property
    def p50(self) -> float:
        """The median."""
        return statistics.median(self.ms)

    @property
    def p95(self) -> float:
        """Of a hundred, five take longer."""
        return percentile(self.ms, 0.95)

    @property
    def p99(self) -> float:
        """Of a hundred, one takes longer."""
        return percentile(self.ms, 0.99)


@dataclass(slots=True)
class Findings:
    """All that a run has found."""

    rows: list[Row] = field(default_factory=list)
    times: list[Times] = field(default_factory=list)
    scaling: dict[str, dict[int, float]] = field(default_factory=dict)
    """Milliseconds by the number of sources, for each line of a plot."""
    notes: list[str] = field(default_factory=list)
    """What was left out, and why."""
    save_phases: list[tuple[str, str, float]] = field(default_factory=list)
    """Where the time of one save goes: who, what, and milliseconds."""

    def of(self, kind: str, contender: str) -> Times | None:
        """The saves of one kind by one contender."""
        found = (t for t in self.times if (t.kind, t.contender) == (kind, contender) and t.ms)
        return next(found, None)

    def add(
        self,
        figure: str,
        what: str,
        value: float,
        unit: str = "ms",
        *,
        floor: float | None = None,
        against: str = "",
        limit: float | None = None,
        target: str = "",
    ) -> None:
        """Put a row into the table."""
        self.rows.append(Row(figure, what, value, unit, floor, against, limit, target))

    def scaled(self, line: str, size: int, ms: float) -> None:
        """Put a point into the plot of scaling."""
        self.scaling.setdefault(line, {})[size] = ms
