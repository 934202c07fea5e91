"""What there is to be counted, for Prometheus.

Owns the counters, which are plain numbers that every commit adds to; the gauges are read from
their owners when somebody asks.  The library that writes the format is loaded on the first
question: it takes some 2 MB and 10 ms, and many daemons are never asked.
"""

import contextlib
import os
import platform
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from assetd import __version__, words
from assetd.engine import Engine, State
from assetd.log import Log
from assetd.model import Batch, Committed, EntryState, NodeState

if TYPE_CHECKING:
    from prometheus_client.core import Metric

RUN_BOUNDS: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0)
"""Seconds, from copying a file to compiling a framework in a cold tool."""
SAVE_BOUNDS: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Seconds, from what nobody notices to what everybody does."""
WALK_SECONDS: Final = 0.02
"""What one question may take for measuring the store."""
_RAN: Final = {NodeState.BUILT, NodeState.FAILED}
_SKIPPED: Final = NodeState.WAITING


class Histogram:
    """Numbers by size."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Count one more."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """How many were at most as large as each bound, as Prometheus wants them."""
        found: list[tuple[str, float]] = []
        total = 0
        for bound, count in zip((*self._bounds, None), self._counts, strict=True):
            total += count
            found.append(("+Inf" if bound is None else str(bound), total))
        return found


class Counts:
    """What has happened since the daemon began; `hear` is for `Engine.hearers`."""

    def __init__(self, log: Log | None = None) -> None:
        """Begin at nothing.

        Args:
            log: Whose lines that were left out are told, if it is ours.
        """
        self.log = log
        self.began = time.time()
        self.batches: Counter[str] = Counter()
        """By trigger."""
        self.jobs: Counter[tuple[str, str]] = Counter()
        """Runs by processor and how they ended."""
        self.died = 0
        """Jobs that no worker lived through."""
        self.runs: dict[str, Histogram] = {}
        """Seconds by processor, of those that really ran."""
        self.saves = Histogram(SAVE_BOUNDS)
        """Seconds from a save to its commit."""
        self.published = 0
        self.deleted = 0
        self.store = StoreSize()

    def hear(self, told: Committed | Batch) -> None:
        """Count what happened."""
        if isinstance(told, Batch):
            self.batches[told.trigger] += 1
            return
        self.published += len(told.done.placed)
        self.deleted += len(told.done.deleted)
        if told.latency_seconds is not None:
            self.saves.add(told.latency_seconds)
        for entry in told.change.put:
            if entry.problem is not None:
                # Restated without a job, or its job died: the nodes are those of before.
                self.died += entry.state is EntryState.FAILED and entry.problem.file is None
                continue
            for node in entry.nodes:
                if node.state is _SKIPPED:
                    continue
                self.jobs[node.processor, node.state.value] += 1
                if node.state in _RAN:
                    histogram = self.runs.get(node.processor)
                    if histogram is None:
                        histogram = self.runs[node.processor] = Histogram(RUN_BOUNDS)
                    histogram.add(node.seconds)


class StoreSize:
    """How large the store is, without a look at each of its files for each question.

    Files come to the store's folders and leave them, and are never written to; so a folder whose
    time has not moved holds what it held.  A large store is measured piece by piece, over the
    first few questions.
    """

    def __init__(self) -> None:
        self._folders: dict[str, tuple[int, int]] = {}
        """Of each folder: its time, and the bytes in it."""

    def measure(self, root: str, seconds: float = WALK_SECONDS) -> int | None:
        """The bytes below *root*; None while they are not known yet."""
        until = time.monotonic() + seconds
        there: dict[str, tuple[int, int]] = {}
        complete = True
        for area in ("objects", "results"):
            for folder in _folders(os.path.join(root, area)):
                known = self._folders.get(folder.path)
                with contextlib.suppress(OSError):
                    moved = folder.stat().st_mtime_ns
                    if known is None or known[0] != moved:
                        if time.monotonic() < until:
                            known = (moved, _size(folder.path))
                        elif known is None:
                            complete = False
                            continue
                    there[folder.path] = known
        self._folders = there
        return sum(size for _, size in there.values()) if complete else None


def text(engine: Engine, counts: Counts) -> str:
    """All metrics in Prometheus's text format."""
    from prometheus_client.exposition import generate_latest

    return generate_latest(_Collector(engine, counts)).decode("utf-8")


class _Collector:
    """What Prometheus's library asks."""

    def __init__(self, engine: Engine, counts: Counts) -> None:
        self._engine = engine
        self._counts = counts

    def collect(self) -> "Iterator[Metric]":
        """The families, in the order in which they are printed."""
        yield from _happened(self._engine, self._counts)
        yield from _stands(self._engine)
        yield from _holds(self._engine, self._counts)


def _happened(engine: Engine, counts: Counts) -> "Iterator[Metric]":
    watcher = engine.lookout.watcher
    yield _by(
        "counter",
        "assetd_batches",
        "Batches that did something, by what they were because of.",
        ("trigger",),
        {(trigger,): number for trigger, number in counts.batches.items()},
    )
    yield _by(
        "counter",
        "assetd_jobs",
        "Files that a processor was asked for, by how that ended.",
        ("processor", "outcome"),
        {(name, outcome): number for (name, outcome), number in counts.jobs.items()},
    )
    yield _one("counter", "assetd_jobs_died", "Jobs that no worker lived through.", counts.died)
    yield _histograms(
        "assetd_processor_seconds",
        "Time that a processor took for one file, where it had to run.",
        ("processor",),
        {(name,): histogram for name, histogram in counts.runs.items()},
    )
    yield _histograms(
        "assetd_save_latency_seconds",
        "Time from the first event of a save until it was built, in place and recorded.",
        (),
        {(): counts.saves},
    )
    yield _one("counter", "assetd_outputs_published", "Outputs put in place.", counts.published)
    yield _one("counter", "assetd_outputs_deleted", "Outputs taken away.", counts.deleted)
    yield _one(
        "counter",
        "assetd_watch_overflows",
        "Times that the kernel lost events and everything was looked at again.",
        0 if watcher is None else watcher.overflows,
    )
    yield _one("counter", "assetd_rescans", "Scans because events were lost.", engine.rescans)
    yield _by(
        "counter",
        "assetd_worker_restarts",
        "Worker processes that were replaced, dead or recycled.",
        ("worker",),
        {(str(number),): restarts for number, restarts in engine.pool.restarts.items()},
    )
    left_out = 0 if counts.log is None else counts.log.left_out
    yield _one(
        "counter",
        "assetd_log_lines_left_out",
        "Lines that were not logged, because there were too many of their kind.",
        left_out,
    )


def _stands(engine: Engine) -> "Iterator[Metric]":
    standing = engine.standing
    suspects, waiting, running = engine.queue()
    watcher = engine.lookout.watcher
    yield _by(
        "gauge",
        "assetd_state",
        "What the daemon is at: 1 for the one that holds.",
        ("state",),
        {(state.value,): state is engine.state for state in State},
    )
    yield _one("gauge", "assetd_suspects", "Files that wait to be looked at.", suspects)
    yield _one("gauge", "assetd_jobs_waiting", "Jobs that no worker holds yet.", waiting)
    yield _one("gauge", "assetd_jobs_running", "Jobs that a worker holds.", running)
    yield _by(
        "gauge",
        "assetd_sources",
        "Sources, by mount and by where they stand.",
        ("mount", "state"),
        {(mount, state.value): number for (mount, state), number in standing.counts.items()},
    )
    yield _one("gauge", "assetd_sources_failing", "Sources that fail.", len(standing.wrong))
    warnings = sum(standing.warnings.values())
    yield _one("gauge", "assetd_warnings", "Warnings of what is built.", warnings)
    yield _one("gauge", "assetd_outputs", "Outputs that are in place.", engine.outputs)
    yield _one(
        "gauge",
        "assetd_watches",
        "Folders that the kernel watches for us.",
        0 if watcher is None else len(watcher),
    )
    yield _one(
        "gauge",
        "assetd_watches_refused",
        "Folders that the kernel refuses to watch.",
        0 if watcher is None else len(watcher.deaf),
    )
    yield _one(
        "gauge",
        "assetd_config_generation",
        "Counts the configurations that were taken.",
        engine.generation,
    )
    yield _one(
        "gauge",
        "assetd_config_refused",
        "Whether the configuration file, as it is now, is not the one in force.",
        bool(engine.problems),
    )
    yield _one(
        "gauge",
        "assetd_trouble",
        "Whether nothing can be recorded at the moment: the disk is full, say.",
        engine.trouble is not None,
    )


def _holds(engine: Engine, counts: Counts) -> "Iterator[Metric]":
    config = engine.layout.project.config
    yield _by(
        "gauge",
        "assetd_worker_resident_memory_bytes",
        "Memory that each worker had after its last job.",
        ("worker",),
        {(str(number),): worker.rss_bytes for number, worker in engine.pool.workers.items()},
    )
    memory = _resident_bytes()
    yield _one("gauge", "assetd_resident_memory_bytes", "The daemon's own memory.", memory)
    size = sum(_file_bytes(engine.record.path + end) for end in ("", "-wal", "-shm"))
    yield _one("gauge", "assetd_record_bytes", "The size of the record.", size)
    kept = counts.store.measure(os.path.join(config.state_dir, "store"))
    if kept is not None:
        yield _one("gauge", "assetd_store_bytes", "The size of the kept results.", kept)
    yield _one(
        "gauge",
        "assetd_store_limit_bytes",
        "The room that kept results may take.",
        config.store_bytes,
    )
    yield _one(
        "gauge",
        "assetd_start_time_seconds",
        "When the daemon began, in seconds since 1970.",
        counts.began,
    )
    yield _by(
        "gauge",
        "assetd_build_info",
        "Which assetd this is, and on which Python; always 1.",
        ("version", "python"),
        {(__version__, platform.python_version()): 1},
    )


def _by(
    kind: str,
    name: str,
    text: str,
    labels: Sequence[str],
    values: Mapping[tuple[str, ...], float],
) -> "Metric":
    """A family with a sample for each combination of labels."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    family: CounterMetricFamily | GaugeMetricFamily
    if kind == "counter":
        family = CounterMetricFamily(name, text, labels=labels)
    else:
        family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in sorted(values.items()):
        family.add_metric([words.printable(part) for part in key], value)
    return family


def _one(kind: str, name: str, text: str, value: float) -> "Metric":
    """A family with one sample."""
    return _by(kind, name, text, (), {(): value})


def _histograms(
    name: str, text: str, labels: Sequence[str], values: Mapping[tuple[str, ...], Histogram]
) -> "Metric":
    from prometheus_client.core import HistogramMetricFamily

    family = HistogramMetricFamily(name, text, labels=labels)
    for key, histogram in sorted(values.items()):
        family.add_metric(list(key), histogram.buckets(), histogram.sum)
    return family


def _folders(path: str) -> "list[os.DirEntry[str]]":
    try:
        with os.scandir(path) as found:
            return [entry for entry in found if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _size(folder: str) -> int:
    with os.scandir(folder) as found:
        return sum(entry.stat(follow_symlinks=False).st_size for entry in found)


def _file_bytes(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
