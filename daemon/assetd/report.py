"""What is told of the engine: its status as one object, its events as lines of a log."""

import contextlib
import os
import sys
import time
from collections.abc import Iterable
from typing import Any, Final

import structlog

from assetd import __version__, explain, history
from assetd.engine import Engine, Order
from assetd.model import Batch, EntryState, Reason, Source

SCHEMA: Final = 1
_PRIORITY: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}


def status(engine: Engine) -> dict[str, Any]:
    """The object that `assetd status --json` prints.  Keys are only ever added."""
    config = engine.layout.project.config
    counts = engine.standing.counts
    suspects, waiting, running = engine.queue()
    watcher = engine.lookout.watcher
    by_mount = {
        m: sum(n for (mount, _), n in counts.items() if mount == m) for m in engine.layout.mounts
    }
    return {
        "schema": SCHEMA,
        "state": engine.state.value,
        "pid": os.getpid(),
        "version": __version__,
        "project": config.project,
        "uptime_s": round(time.monotonic() - engine.started, 1),
        "sources": engine.standing.sources,
        "outputs": engine.outputs,
        "overridden": sum(n for (_, s), n in counts.items() if s is EntryState.OVERRIDDEN),
        "mounts": [
            {
                "path": name,
                "sources": by_mount[name],
                "processors": sorted(t.processor.name for t in engine.layout.takers(name)),
            }
            for name in engine.layout.mounts
        ],
        "watch": {
            "backend": "polling" if watcher is None else "inotify",
            "interval_s": config.watch.interval_seconds if watcher is None else None,
            "directories": 0 if watcher is None else len(watcher),
            "unwatched": 0 if watcher is None else len(watcher.deaf),
            "overflows": 0 if watcher is None else watcher.overflows,
            "rescans": engine.rescans,
        },
        "workers": [_worker(engine, number) for number in sorted(engine.pool.workers)],
        "queue": {"suspects": suspects, "jobs": waiting + running, "running": running},
        "last_batch": None
        if engine.standing.last_batch is None
        else history.batch(engine.standing.last_batch),
        "errors": errors(engine),
        "warnings": sum(engine.standing.warnings.values()),
        "not_followed": [{"path": p, "cause": why} for p, why in sorted(engine.links.items())],
        "config_errors": [str(problem) for problem in engine.problems],
        "trouble": engine.trouble,
        "latency_ms": _latency(engine),
    }


def errors(engine: Engine) -> list[dict[str, Any]]:
    """What fails now, one object a fault."""
    return _errors(engine, engine.standing.wrong)


def order(engine: Engine, order: Order, seconds: float) -> dict[str, Any]:
    """What came of an order: the batch, and what fails of what it was about."""
    asked = (
        engine.standing.wrong
        if order.sources is None
        else engine.standing.wrong.keys() & order.sources
    )
    return {
        "batch": {**history.batch(order.tally), "seconds": round(seconds, 4)},
        "errors": _errors(engine, asked),
        "outputs": engine.outputs,
        "unknown": list(order.unknown),
    }


def _errors(engine: Engine, sources: Iterable[Source]) -> list[dict[str, Any]]:
    return [
        fault
        for source in sorted(sources)
        for fault in history.faults(engine.standing.wrong[source])
    ]


def _worker(engine: Engine, number: int) -> dict[str, Any]:
    worker = engine.pool.workers[number]
    found = worker.at_work() if worker.held else None
    return {
        "id": number,
        "pid": worker.process.pid,
        "state": worker.state.value,
        "job": None if found is None else engine.layout.place(found[0].job.source),
        "jobs": worker.jobs,
        "rss_bytes": worker.rss_bytes,
        "restarts": engine.pool.restarts[number],
        "generation": worker.generation,
    }


def _latency(engine: Engine) -> dict[str, float | int | None]:
    times = sorted(engine.standing.latencies)

    def at(share: float) -> float | None:
        if not times:
            return None
        return round(times[min(len(times) - 1, int(share * len(times)))] * 1000, 1)

    return {"p50": at(0.5), "p95": at(0.95), "p99": at(0.99), "samples": len(times)}


class Log:
    """The engine's events on standard error: pretty, as JSON lines, or for the journal."""

    def __init__(self, style: str = "auto") -> None:
        """Set up.

        Args:
            style: `pretty`, `json`, or `auto`: pretty, with priorities under the journal.
        """
        journal = "JOURNAL_STREAM" in os.environ and style != "json"
        color = sys.stderr.isatty() and "NO_COLOR" not in os.environ
        color = color or "FORCE_COLOR" in os.environ
        renderer: Any = (
            structlog.processors.JSONRenderer(ensure_ascii=True)
            if style == "json"
            else structlog.dev.ConsoleRenderer(colors=color and not journal, pad_event_to=20)
        )
        steps: list[Any] = [structlog.processors.add_log_level]
        if not journal:
            stamp = "iso" if style == "json" else "%H:%M:%S"
            steps.append(structlog.processors.TimeStamper(fmt=stamp, utc=style == "json"))
        steps += [_plain, renderer]
        if journal:
            steps.append(_prioritized)
        self._log = structlog.wrap_logger(
            structlog.WriteLogger(sys.stderr),
            processors=steps,
            wrapper_class=structlog.BoundLogger,
            cache_logger_on_first_use=True,
        )

    def __call__(self, event: str, *, level: str = "info", **fields: object) -> None:
        """Write one event."""
        # Nobody reads our log any more, or its disk is full: the work goes on.
        with contextlib.suppress(OSError):
            getattr(self._log, level)(event, **fields)


def _plain(_logger: object, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    """Fields as people and JSON want them: reasons as sentences, no control characters."""
    plain: dict[str, Any] = {}
    for key, value in event.items():
        match value:
            case Reason():
                plain[key] = explain.reason(value)
            case Batch():
                plain["id"] = value.id
                plain["trigger"] = value.trigger
                plain["what"] = explain.batch(value)
            case str():
                plain[key] = explain.printable(value)
            case _:
                plain[key] = value
    return plain


def _prioritized(_logger: object, method: str, line: Any) -> Any:
    return f"<{_PRIORITY.get(method, 6)}>{line}"
