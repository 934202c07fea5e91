"""Taking away what is ours: the outputs, by the record's word, and then the state folder.

`plan` looks and decides, and changes nothing; `carry_out` does it, in an order in which it may
be cut short anywhere and done again: what proves that something is ours goes after it.
"""

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from assetd import client, publish
from assetd import place as places
from assetd.config import RECORD_NAME, Config
from assetd.errors import CorruptRecordError, OutdatedRecordError
from assetd.model import Cause, Change, Deletion, Digest, Output, Reason, Stamp
from assetd.publish import Seen, There
from assetd.record import LEDGER_NAME, SEALED_NAME, Reader, salvage
from assetd.tree import is_safe_name

SCHEMA: Final = 1
LOCK_NAME: Final = "lock"
KEPT_NAME: Final = "kept"
"""Edited outputs that were set aside: somebody's work."""
_SLICE: Final = 1_000
_BY_HAND: Final = "remove it by hand, or let `assetd build --take-over` replace it"


@dataclass(frozen=True, slots=True)
class Kept:
    """A file that was ours and stays."""

    path: str
    """Relative to the output root."""
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to go, and what stays."""

    out_dir: str
    outputs: tuple[Output, ...] = ()
    """Each with the digest of what is there."""
    kept: tuple[Kept, ...] = ()
    folders: tuple[str, ...] = ()
    """Of the output root, made by us and empty once the outputs are gone."""
    made: tuple[str, ...] = ()
    """All that we made, whatever is in them."""
    roots: tuple[str, ...] = ()
    """The output root and those above it, absolute, if they go."""
    state: tuple[str, ...] = ()
    """Names in the state folder, in the order in which they go."""
    left: tuple[str, ...] = ()
    """Names in the state folder that are not ours, or hold somebody's work."""
    remarks: tuple[str, ...] = ()
    """What people should know of it."""


@dataclass(slots=True)
class Removed:
    """What has gone, and what has not."""

    outputs: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    roots: list[str] = field(default_factory=list)
    state: list[str] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)
    stuck: list[Kept] = field(default_factory=list)
    """What the disk refuses to delete.  The record stays, so that another try can."""


def plan(config: Config) -> Plan:
    """What is ours, and would go.

    Raises:
        RecordError: A newer assetd made the record: it knows what is there, we do not.
    """
    state_dir = config.state_dir
    known: list[Output] = []
    begun: dict[str, set[Digest]] = {}
    made: list[str] = []
    remarks: list[str] = []
    out_dir = config.out_dir
    path = os.path.join(state_dir, RECORD_NAME)
    try:
        with contextlib.closing(Reader(path)) as reader:
            out_dir = places.path(
                reader.meta("out_dir") or places.of(out_dir, config.project), config.project
            )
            known = list(reader.outputs())
            made = reader.folders()
            for _, change in reader.intents():
                # Cut short: the file may be the one of before, or the one that was to come.
                for each in change.publish:
                    begun.setdefault(each.output, set()).add(each.digest)
                    if reader.output(each.output) is None:
                        known.append(Output(each.output, each.source, each.digest, None))
    except FileNotFoundError:
        if _names(state_dir) and os.path.isdir(out_dir):
            remarks.append(_told_unknown(out_dir, "there is no record"))
    except CorruptRecordError as error:
        # Stamps from a damaged record are not believed, only what is in the files.
        saved = {o.path: o._replace(stamp=None) for o in salvage(path) if is_safe_name(o.path)}
        known = list(saved.values())
        old = isinstance(error, OutdatedRecordError)
        why = "an older assetd made the record" if old else f"the record is damaged ({error})"
        remarks.append(_told_unknown(out_dir, why, len(known)))
    known = list({output.path: output for output in reversed(known)}.values())
    outputs, kept = _sorted_out(out_dir, known, begun)
    # Only now: reading the record has made files beside it.
    ours, left = _of_state(state_dir, _names(state_dir))
    gone = {output.path for output in outputs}
    folders = _emptied(out_dir, made, gone)
    return Plan(
        out_dir,
        tuple(outputs),
        tuple(kept),
        tuple(folders),
        tuple(made),
        tuple(_roots(out_dir, state_dir, gone.union(folders))),
        tuple(ours),
        tuple(left),
        tuple(remarks),
    )


def _told_unknown(out_dir: str, why: str, known: int = 0) -> str:
    rest = f"but for {known:,} that it still tells of, " if known else ""
    return (
        f"{why}: {rest}which files in {out_dir} are ours is not known, and they are left; "
        "remove them by hand"
    )


def _sorted_out(
    out_dir: str, known: Iterable[Output], begun: Mapping[str, set[Digest]]
) -> tuple[list[Output], list[Kept]]:
    """The outputs that are as we made them, and those that are not."""
    outputs: list[Output] = []
    kept: list[Kept] = []

    def look_inside(output: Output, stamp: Stamp) -> bool:
        return stamp != output.stamp

    for output, seen in publish.see(out_dir, known, look_inside):
        if seen.there is There.NOTHING:
            continue
        digest = seen.digest or output.digest
        if seen.there is There.FILE and digest in {output.digest, *begun.get(output.path, ())}:
            outputs.append(output._replace(digest=digest))
        else:
            kept.append(Kept(output.path, _why_kept(seen)))
    key = lambda each: each.path  # noqa: E731 - of two kinds
    return sorted(outputs, key=key), sorted(kept, key=key)


def _why_kept(seen: Seen) -> str:
    if seen.there is There.FILE:
        return f"it was edited since it was published: {_BY_HAND}"
    return f"{seen.what}: {_BY_HAND}"


def _emptied(out_dir: str, made: Sequence[str], gone: set[str]) -> list[str]:
    """Those of the folders *made* that hold nothing but outputs and folders that go."""
    going: set[str] = set()
    for folder in sorted(made, key=lambda path: path.count("/"), reverse=True):
        try:
            names = os.listdir(os.path.join(out_dir, folder))
        except OSError:
            continue
        inside = {f"{folder}/{name}" for name in names}
        if inside <= gone | going:
            going.add(folder)
    return sorted(going)


def _roots(out_dir: str, state_dir: str, gone: set[str]) -> Iterator[str]:
    """Of the output root and those above it, those that we made and that hold nothing else."""
    below = {*gone, publish.STAGING_NAME}
    for root in publish.made_roots(out_dir, state_dir):
        if not below.issuperset(os.listdir(root)):
            return
        yield root
        below = {os.path.basename(root)}


def _names(state_dir: str) -> list[str]:
    try:
        return sorted(os.listdir(state_dir))
    except OSError:
        return []


def _of_state(state_dir: str, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The names that we put there, in the order in which they go, and the others."""
    order = (
        ("staging", "cookies", "store"),
        ("control.sock", publish.MADE_NAME, KEPT_NAME),
        (f"{SEALED_NAME}.new", SEALED_NAME, f"{LEDGER_NAME}.new", LEDGER_NAME),
        (f"{RECORD_NAME}-wal", f"{RECORD_NAME}-shm", RECORD_NAME, LOCK_NAME),
    )
    last = [name for group in order for name in group]
    logs = [name for name in names if name == "log" or name.startswith("log.")]
    damaged = [name for name in names if name.startswith(f"{RECORD_NAME}.damaged-")]
    after = (*order[0], *logs, *damaged, *(name for group in order[1:] for name in group))
    ours = [name for name in after if name in names]
    left = sorted(set(names) - {*last, *logs, *damaged})
    if KEPT_NAME in names and _holds_files(os.path.join(state_dir, KEPT_NAME)):
        ours.remove(KEPT_NAME)
        left.append(KEPT_NAME)
    return ours, left


def _holds_files(folder: str) -> bool:
    return os.path.islink(folder) or any(names for _, _, names in os.walk(folder))


def carry_out(plan: Plan, config: Config) -> Removed:
    """Do it.  The caller holds the project's lock, whose file goes last."""
    removed = Removed(kept=list(plan.kept))
    known = {output.path: output for output in plan.outputs}
    made = frozenset(plan.made)
    reason = Reason(Cause.REQUESTED)
    for start in range(0, len(plan.outputs), _SLICE):
        piece = plan.outputs[start : start + _SLICE]
        change = Change(
            0, delete=tuple(Deletion(o.path, o.source, o.digest, reason) for o in piece)
        )
        done = publish.apply(plan.out_dir, change, known.get, made.__contains__)
        removed.outputs += done.deleted
        removed.folders += done.folders_removed
        removed.kept += [Kept(path, f"{why}: {_BY_HAND}") for path, why in done.kept.items()]
        removed.stuck += [Kept(path, each.message) for path, each in done.stuck.items()]
    # Those that an earlier try emptied, and had no time to remove.
    removed.folders += publish.remove_folders(plan.out_dir, made)
    if removed.stuck:
        return removed
    removed.roots += publish.remove_root(plan.out_dir, config.state_dir)
    socket = client.socket_path(config.project, config.state_dir)
    with contextlib.suppress(OSError):
        os.unlink(socket)  # left behind by a daemon that was killed
    for name in plan.state:
        path = os.path.join(config.state_dir, name)
        try:
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            removed.stuck.append(Kept(path, f"cannot delete {error.filename}: {error.strerror}"))
            return removed
        removed.state.append(name)
    with contextlib.suppress(OSError):
        os.rmdir(config.state_dir)
    return removed


def facts(plan: Plan, removed: Removed | None, config: Config) -> dict[str, Any]:
    """The removal as a JSON object.

    Args:
        plan: What was decided.
        removed: What came of it; None if it was only asked for.
        config: Tells the folders.
    """
    done = removed or Removed(
        [output.path for output in plan.outputs],
        list(plan.folders),
        list(plan.roots),
        list(plan.state),
        list(plan.kept),
    )
    return {
        "schema": SCHEMA,
        "dry_run": removed is None,
        "out_dir": plan.out_dir,
        "state_dir": config.state_dir,
        "outputs": done.outputs,
        "folders": sorted(done.folders),
        "roots": done.roots,
        "state": done.state,
        "kept": [{"path": each.path, "why": each.why} for each in done.kept],
        "stuck": [{"path": each.path, "why": each.why} for each in done.stuck],
        "left": list(plan.left),
        "remarks": list(plan.remarks),
    }
