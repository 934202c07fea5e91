"""One build without a daemon: an engine that does not watch, run until it has nothing to do."""

import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TextIO

from assetd import lock, recovery, report, words
from assetd.batch_command import BatchCommand
from assetd.engine import Engine, Order
from assetd.errand import Errands
from assetd.errors import CorruptRecordError
from assetd.forkserver import ForkServer
from assetd.model import Place, Reason
from assetd.pool import Pool
from assetd.registry import Project
from assetd.trace import OFF, Trace

BAR_WIDTH = 30
_REFRESH_SECONDS = 0.1


def build(
    project: Project,
    server: ForkServer,
    *,
    paths: Sequence[Place] = (),
    force: bool = False,
    no_delete: bool = False,
    take_over: bool = False,
    repair: Sequence[str] = (),
    workers: int | None = None,
    progress: TextIO | None = None,
    trace: Trace = OFF,
) -> dict[str, Any]:
    """Bring everything up to date; returns what the daemon would answer, and what was said.

    The outputs of *repair* are made again, and files in their places are replaced.  `on_batch`
    is run, and waited for: nobody is left to end it.

    Raises:
        AlreadyRunningError: Somebody else holds the project and does not answer.
        UsageError: The state folder belongs to another user.
    """
    lock.check_ours(project.config.state_dir)
    with lock.held(project.config.state_dir):
        messages: list[str] = []
        failures: list[str] = []
        """Of `on_batch`."""

        def say(text: str) -> None:
            messages.append(words.printable(text))

        def tell(event: str, *, level: str = "info", **fields: Any) -> None:
            if event == "on_batch_printed":
                say(f"on_batch: {fields['line']}")
            elif event == "on_batch_failed":
                cause: str = fields["cause"]  # with the place in the configuration, or not
                failures.append(cause)
                say(cause if "on_batch: " in cause else f"on_batch: {cause}")
            elif level != "info" and event != "failed":
                shown = ", ".join(f"{name}: {value}" for name, value in fields.items())
                say(f"{event.replace('_', ' ')}: {shown}")

        began = time.monotonic()

        def run() -> dict[str, Any]:
            with trace.span("start"):
                engine = Engine(
                    project,
                    tell,
                    watching=False,
                    only=paths,
                    workers=workers,
                    no_delete=no_delete,
                    take_over=take_over,
                    open_pool=partial(Pool, server=server),
                    trace=trace,
                )
            order, ended = _run(engine, Order(tuple(paths), force), progress, repair)
            return report.order(engine, order, ended - began)

        try:
            told = run()
        except CorruptRecordError as error:
            recovery.give_up_record(project.config, tell, error)
            told = run()
        return {**told, "messages": messages, "on_batch_failed": next(iter(failures), None)}


def _run(
    engine: Engine, order: Order, progress: TextIO | None, repair: Sequence[str] = ()
) -> tuple[Order, float]:
    """Turn until *order* is done, and so is what comes after it; gives when it was."""
    bar: _Bar | None = None
    errands = Errands(engine.selector)
    engine.hearers.append(BatchCommand(engine, errands).hear)
    try:
        done: list[Order] = []
        if repair:
            engine.repair(repair, lambda: None)
        engine.build(order, done.append)
        if progress is not None:
            bar = _Bar(engine, progress)
        while not done:
            _turn(engine, errands, None if bar is None else _REFRESH_SECONDS)
            if bar is not None:
                bar.draw()
        ended = time.monotonic()
        if bar is not None:
            bar.clear()
        while errands.busy:
            _turn(engine, errands, None)
        return order, ended
    finally:
        if bar is not None:
            bar.clear()
        errands.stop()
        engine.stop()


def _turn(engine: Engine, errands: Errands, timeout: float | None) -> None:
    due = errands.deadline()
    if due is not None:
        left = max(0.0, due - time.monotonic())
        timeout = left if timeout is None else min(timeout, left)
    engine.turn(timeout)
    errands.tick()


def dry_run(
    project: Project, *, paths: Sequence[Place] = (), force: bool = False
) -> list[tuple[Place, Reason]]:
    """What `build` would do: each source with its first reason, or why it goes.

    Looks at the record and the disk and changes neither, so that it may be asked beside a
    daemon.  Where there is no record yet, or a damaged one, everything is new.
    """
    config = project.config
    with tempfile.TemporaryDirectory(prefix="assetd-") as folder:
        empty = replace(project, config=replace(config, state_dir=folder))
        if not os.path.exists(config.record_path):
            return _dry_run(empty, paths, force=force)
        try:
            return _dry_run(project, paths, force=force)
        except CorruptRecordError:
            return _dry_run(empty, paths, force=force)


def _dry_run(
    project: Project, paths: Sequence[Place], *, force: bool
) -> list[tuple[Place, Reason]]:
    engine = Engine(project, lambda *_args, **_fields: None, watching=False, dry=True, only=paths)
    try:
        order = Order(tuple(paths), force)
        done: list[Order] = []
        engine.build(order, done.append)
        while not done:
            engine.turn(0.0)
        todo = dict(order.reasons)
        return sorted((engine.layout.place(source), reason) for source, reason in todo.items())
    finally:
        engine.stop()


class _Bar:
    """A line on the terminal that says how far we are."""

    def __init__(self, engine: Engine, to: TextIO) -> None:
        self._engine = engine
        self._to = to
        self._next = time.monotonic() + 2 * _REFRESH_SECONDS  # a quick build needs none
        self._drawn = False

    def draw(self) -> None:
        """Draw it, if it is time."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _REFRESH_SECONDS
        done, known = self._engine.progress()
        filled = BAR_WIDTH * done // max(1, known)
        bar = "█" * filled + "░" * (BAR_WIDTH - filled)
        more = "+" if self._engine.state.value == "scanning" else ""
        self._to.write(f"\r\x1b[K{bar} {done:,} of {known:,}{more}")
        self._to.flush()
        self._drawn = True

    def clear(self) -> None:
        """Take it away."""
        if self._drawn:
            self._to.write("\r\x1b[K")
            self._to.flush()
            self._drawn = False
