"""What is told of the engine, as objects: its status, what fails, what came of an order."""

import os
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

from assetd import __version__, history, systemd
from assetd.engine import Engine, Order
from assetd.model import Batch, EntryState, Reason, Source

SCHEMA: Final = 1
RECENT_SAVES: Final = 60
"""Times of saves that a live view gets."""


def status(engine: Engine) -> dict[str, Any]:
    """The object that `assetd status --json` prints.  Keys are only ever added."""
    config = engine.layout.project.config
    counts = engine.standing.counts
    suspects, waiting, running = engine.queue()
    watcher = engine.lookout.watcher
    service = systemd.own_service()
    by_mount = {
        m: sum(n for (mount, _), n in counts.items() if mount == m) for m in engine.layout.mounts
    }
    return {
        "schema": SCHEMA,
        "state": engine.state.value,
        "pid": os.getpid(),
        "service": None if service is None else service[0],
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
            "interval_s": engine.lookout.interval_seconds if watcher is None else None,
            "directories": 0 if watcher is None else len(watcher),
            "refusal": engine.lookout.refusal,
            "unwatched": 0 if watcher is None else len(watcher.deaf),
            "overflows": 0 if watcher is None else watcher.overflows,
            "rescans": engine.rescans,
        },
        "sandbox": engine.sandbox,
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


def recent(engine: Engine, count: int) -> dict[str, Any]:
    """What a live view shows beside the status: the last batches, and how long saves took.

    Args:
        engine: Whose.
        count: Of the batches; as many times are told.
    """
    batches = [
        {
            **history.batch(batch),
            "reasons": [
                {"source": engine.layout.place(source), **history.reason(reason)}
                for source, reason in engine.standing.reasons.get(batch.id, ())
            ],
        }
        for batch in engine.record.last_batches(count)
    ]
    times = list(engine.standing.latencies)[-RECENT_SAVES:]
    return {"recent": batches, "saves_ms": [round(each * 1000, 1) for each in times]}


def event(name: str, level: str, fields: Mapping[str, object]) -> dict[str, Any]:
    """An event as a JSON object: what a subscriber gets."""
    told: dict[str, Any] = {"event": name, "at": history.moment(time.time()), "level": level}
    for key, value in fields.items():
        match value:
            case Reason():
                told[key] = history.reason(value)
            case Batch():
                told[key] = history.batch(value)
            case _:
                told[key] = value
    return told


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
