"""`on_batch`: people's own command, told of each batch as JSON on its standard input.

Owns what is collected of the batches that are open, and what waits for the command to end.  How
a program is run is `errand`'s.
"""

import json
import os
import shutil
from dataclasses import dataclass, field
from typing import Any, Final

from assetd import history
from assetd.config import Config
from assetd.document import shown
from assetd.engine import Engine
from assetd.errand import Ending, Errands
from assetd.model import Batch, Committed, EntryState, Problem

SCHEMA: Final = 1
NAMES_TOLD: Final = 10_000
"""Of each list; the others are counted."""
_FAILS: Final = {EntryState.FAILED, EntryState.CONFLICT, EntryState.BLOCKED}


def problem(config: Config) -> Problem | None:
    """What is wrong with the command, if it cannot be run."""
    if not config.on_batch:
        return None
    word = config.on_batch[0]
    path = os.path.join(config.project, word) if "/" in word else word
    if shutil.which(path) is not None:
        return None
    if "/" in word:
        where = "make it executable" if os.path.exists(path) else "it is looked for from here"
    else:
        where = "install it, or name it with its folder, as in ./tools/deploy"
    return Problem(
        f"on_batch: {shown(word)} is no program that can be run: {where}",
        config.file,
        config.lines.get("on_batch"),
    )


@dataclass(slots=True)
class _Account:
    """What one batch did, or several: by name, in the order in which it was done."""

    changed: dict[str, None] = field(default_factory=dict)
    built: dict[str, None] = field(default_factory=dict)
    failed: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    deleted: dict[str, None] = field(default_factory=dict)
    truncated: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("changed", "built", "failed", "deleted"), 0)
    )
    batches: int = 0
    seconds: float = 0.0

    def note(self, which: str, name: str, what: Any = None) -> None:
        """Add a name to one of the lists, or count it."""
        names = getattr(self, which)
        if name in names or len(names) < NAMES_TOLD:
            names[name] = what
        else:
            self.truncated[which] += 1

    def add(self, later: "_Account") -> None:
        """Take the account of a later batch into this one: what came last counts."""
        for source in later.changed:
            self.failed.pop(source, None)
            self.note("changed", source)
        for source, faults in later.failed.items():
            self.note("failed", source, faults)
        for output in later.built:
            self.deleted.pop(output, None)
            self.note("built", output)
        for output in later.deleted:
            self.built.pop(output, None)
            self.note("deleted", output)
        for which, number in later.truncated.items():
            self.truncated[which] += number
        self.batches += later.batches
        self.seconds += later.seconds


class BatchCommand:
    """Runs the command after each batch, one run at a time."""

    def __init__(self, engine: Engine, errands: Errands) -> None:
        self._engine = engine
        self._errands = errands
        self._open: dict[int, _Account] = {}
        """By batch."""
        self._waiting: tuple[Batch, _Account] | None = None
        """What has ended while the command ran, for its next run: the latest batch, and all."""
        self._running = False
        self._refused: tuple[str, ...] | None = None
        """The command that could not be run, and that we have told of."""

    def hear(self, told: Committed | Batch) -> None:
        """Collect what a batch does; run the command when it has ended."""
        if not self._engine.layout.project.config.on_batch:
            self._open.clear()
            return
        match told:
            case Committed():
                self._collect(told)
            case Batch():
                account = self._open.pop(told.id, None) or _Account()
                account.batches, account.seconds = 1, told.seconds
                if self._waiting is not None:
                    self._waiting[1].add(account)
                    account = self._waiting[1]
                self._waiting = (told, account)
                self._run()

    def _collect(self, told: Committed) -> None:
        change, layout = told.change, self._engine.layout
        if not change.put and not change.drop:
            return  # the batch may never be told of
        account = self._open.setdefault(change.batch, _Account())
        later = _Account()
        for entry in change.put:
            place = layout.place(entry.source)
            later.note("changed", place)
            if entry.state in _FAILS:
                later.note("failed", place, history.faults(entry))
        for source, _ in change.drop:
            later.note("changed", layout.place(source))
        for publication in change.publish:
            if (
                publication.output in told.done.placed
                and publication.digest != publication.replaces
            ):
                later.note("built", publication.output)
        for output in told.done.deleted:
            later.note("deleted", output)
        account.add(later)

    def _run(self) -> None:
        config = self._engine.layout.project.config
        if self._running or self._waiting is None or not config.on_batch:
            return
        (batch, account), self._waiting = self._waiting, None
        try:
            self._errands.run(
                config.on_batch,
                folder=config.project,
                given=_object(config, batch, account),
                limit_seconds=config.on_batch_timeout_seconds,
                on_line=self._print,
                on_end=lambda ending: self._end(batch.id, ending),
            )
        except OSError as error:
            if self._refused != config.on_batch:
                self._refused = config.on_batch
                cause = problem(config) or f"on_batch: cannot be run: {error.strerror}"
                self._engine.tell("on_batch_failed", level="warning", cause=str(cause))
            return
        self._running, self._refused = True, None

    def _print(self, line: str) -> None:
        self._engine.tell("on_batch_printed", line=line)

    def _end(self, batch: int, ending: Ending) -> None:
        self._running = False
        fields: dict[str, Any] = {"batch": batch, "ms": round(ending.seconds * 1000, 1)}
        if ending.lines_left_out:
            fields["lines_left_out"] = ending.lines_left_out
        if ending.cause is None:
            self._engine.tell("on_batch_done", **fields)
        else:
            fields |= {"cause": ending.cause, "said": ending.last_words}
            self._engine.tell("on_batch_failed", level="warning", **fields)
        self._run()


def _object(config: Config, batch: Batch, account: _Account) -> bytes:
    """What the command finds on its standard input: one line of ASCII."""
    told = {
        "schema": SCHEMA,
        "id": batch.id,
        "trigger": batch.trigger,
        "batches": account.batches,
        "seconds": round(account.seconds, 4),
        "project": config.project,
        "out_dir": config.out_dir,
        "changed": list(account.changed),
        "built": list(account.built),
        "failed": [fault for faults in account.failed.values() for fault in faults],
        "deleted": list(account.deleted),
        "truncated": account.truncated,
    }
    return json.dumps(told).encode("ascii") + b"\n"
