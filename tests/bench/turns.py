"""Everybody saves the same files, in turns.

Rounds of a few saves each, so that a bad minute of the machine falls on all of them.
"""

import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench import contenders
from tests.bench.contenders import Contender
from tests.bench.eye import Eye
from tests.bench.figures import Findings, Times
from tests.bench.saves import Save

WARM_UP = 3
"""Saves of each round that do not count."""
BUDGET_SECONDS = 30.0
"""Who has taken so long over a kind within a round saves no more of it: some take 20 s each."""


@dataclass(slots=True)
class Entrant:
    """A contender with a copy of the tree of its own."""

    contender: Contender
    root: Path
    out_of: str | None = None
    """Why it takes part no more."""
    number: int = 1
    kinds_failed: set[str] = field(default_factory=set)

    @property
    def assets(self) -> Path:
        """Its sources."""
        return self.root / "assets"

    @property
    def out(self) -> Path:
        """Its outputs."""
        return self.root / self.contender.out


def enter(who: Sequence[Contender], tree: str, original: Path, findings: Findings) -> list[Entrant]:
    """Give a copy of the tree to each contender that can build it, and set it up."""
    entrants = []
    for contender in who:
        if tree not in contender.can:
            continue
        why = contender.lacks()
        if why is not None:
            note = f"{contender.name} is left out: {why}"
            if note not in findings.notes:
                findings.notes.append(note)
            continue
        name = f"{original.name}-{contender.name.replace(' ', '-')}"
        root = contenders.place(contender, original.with_name(name))
        shutil.copytree(original, root, symlinks=True)
        try:
            contender.set_up(root)
        except Exception as error:  # noqa: BLE001 - whatever ails a peer must not end the run
            findings.notes.append(f"{contender.name} cannot be set up for {tree}: {error}")
            continue
        entrants.append(Entrant(contender, root))
    return entrants


def take(
    entrants: Sequence[Entrant],
    kinds: Sequence[Save],
    findings: Findings,
    *,
    rounds: int,
    each: int,
    before_round: Callable[[], None] = lambda: None,
) -> None:
    """Let each save each kind, *each* times in each of the rounds.

    Args:
        entrants: Who takes part.
        kinds: What is saved.
        findings: Gets the times.
        rounds: How many.
        each: Saves of a kind within a round, without those that warm it up.
        before_round: For the floors, which are measured between the rounds.
    """
    times: Mapping[tuple[str, str], Times] = {
        (save.kind, e.contender.name): Times(save.kind, save.name, e.contender.name)
        for save in kinds
        for e in entrants
    }
    for number in range(rounds):
        before_round()
        for entrant in entrants:
            mine = [
                s for s in kinds if not entrant.contender.only or s.kind in entrant.contender.only
            ]
            if entrant.out_of is not None or not mine:
                continue
            _say(f"round {number + 1} of {rounds}: {entrant.contender.name}")
            try:
                _one_round(entrant, mine, times, each)
            except Exception as error:
                if entrant.contender.name.startswith("assetd"):
                    raise
                entrant.out_of = str(error)
                findings.notes.append(f"{entrant.contender.name} gave up: {error}")
    findings.times += [t for t in times.values() if t.ms]


def _one_round(
    entrant: Entrant,
    kinds: Sequence[Save],
    times: Mapping[tuple[str, str], Times],
    each: int,
) -> None:
    contender = entrant.contender
    log = entrant.root / "watch.log"
    said_before = log.stat().st_size if log.exists() else 0
    process = contender.watch(entrant.root)
    try:
        _wait_for_outputs(entrant, kinds, said_before)
        time.sleep(contender.calm_seconds)
        for save in kinds:
            if save.kind in entrant.kinds_failed:
                continue
            began = time.monotonic()
            with Eye(save.folders(entrant.out)) as eye:
                for count in range(WARM_UP + each):
                    if count > WARM_UP and time.monotonic() - began > BUDGET_SECONDS:
                        break
                    entrant.number += 1
                    try:
                        ms = save.once(entrant.assets, entrant.out, eye, entrant.number)
                    except TimeoutError:
                        if contender.name.startswith("assetd"):
                            raise
                        entrant.kinds_failed.add(save.kind)
                        _say(f"{contender.name} never builds {save.name}")
                        break
                    if count >= WARM_UP:
                        times[save.kind, contender.name].ms.append(ms)
                    # Longer after what took long: it may go on behind our back.
                    time.sleep(max(contender.calm_seconds, min(2.0, ms / 1000)))
    finally:
        contender.stop(entrant.root)
        contenders.end(process)


def _wait_for_outputs(entrant: Entrant, kinds: Sequence[Save], said_before: int) -> None:
    deadline = time.monotonic() + contenders.READY_SECONDS
    wanted = [entrant.out / output for save in kinds for output in save.outputs]
    says, log = entrant.contender.says.encode(), entrant.root / "watch.log"
    while says not in log.read_bytes()[said_before:] or not all(
        path.exists() and path.stat().st_size for path in wanted
    ):
        if time.monotonic() > deadline:
            raise TimeoutError("its outputs never came")
        time.sleep(0.1)
    # All of them: the others of a first build may still be on their way.
    before = -1
    while (count := sum(1 for path in entrant.out.rglob("*") if path.is_file())) != before:
        before = count
        time.sleep(0.5)


def _say(what: str) -> None:
    print(f"  {what}", file=sys.stderr, flush=True)
