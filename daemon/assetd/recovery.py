"""What a start does about what the last end left behind.

Opens the record, sets a damaged one aside, does again what was begun and not committed, and
compares what is in place with what should be.  Runs once, before the engine's first turn.
"""

import contextlib
import os
import shutil
import time
from pathlib import Path
from typing import Final

from assetd import place as places
from assetd import publish
from assetd import stamp as stamps
from assetd.config import Config
from assetd.model import Batch, Cause, Change, Deletion, Output, Reason, Tell
from assetd.reconcile import turned_out
from assetd.record import CorruptRecordError, Record, salvage, set_aside
from assetd.tree import is_safe_name

RECORD_NAME: Final = "record.sqlite"


def open_record(config: Config, tell: Tell, *, mend: bool = True) -> Record:
    """The project's record; a damaged one is set aside, named, and begun anew.

    Raises:
        CorruptRecordError: It is damaged, and not to be mended.
    """
    path = os.path.join(config.state_dir, RECORD_NAME)
    try:
        record = Record(path, durability=config.durability)
        record.check()
    except CorruptRecordError as error:
        if not mend:
            raise
        give_up_record(config, tell, error)
        record = Record(path, durability=config.durability)
    return record


def give_up_record(config: Config, tell: Tell, cause: CorruptRecordError) -> None:
    """Set a damaged record aside and begin a new one with the outputs that are known to be ours.

    What is not known any more and differs from what we would make passes for somebody else's.
    """
    path = os.path.join(config.state_dir, RECORD_NAME)
    aside = set_aside(path)
    known = [output for output in salvage(aside) if _is_sane(output)]
    tell("record_damaged", level="warning", cause=str(cause), kept_as=aside, saved=len(known))
    with contextlib.closing(Record(path, durability=config.durability)) as record:
        record.adopt(known)
        note_root(config, record)


def _is_sane(output: Output) -> bool:
    """Whether no part of it can be damaged in a way that matters: its digest decides the rest."""
    names = (output.path, output.source.path)
    return output.source.mount.isprintable() and all(map(is_safe_name, names))


def ended_cleanly(record: Record) -> bool:
    """Whether all that the record claims has reached the disk.

    True after a kill, too: what a process has written survives it.  False if the machine
    went down while we ran.
    """
    return record.meta("clean") != "0" or record.meta("boot") in {_boot_id(), None}


def redo(config: Config, record: Record, tell: Tell) -> None:
    """Do again what was begun and not committed, in the output root of that time."""
    known = record.meta("out_dir")
    old_root = None if known is None else places.path(known, config.project)
    for number, change in record.intents():
        batch = record.batch(change.batch) or Batch(change.batch, "start", time.time())
        root = old_root or config.out_dir
        done = publish.apply(root, change, record.output, record.made_folder)
        record.commit(number, turned_out(change, done, record.entry), done, batch)
        tell("recovered", batch=change.batch, outputs=len(done.placed))
    if old_root is not None and old_root != config.out_dir:
        move_out(old_root, record, tell)


def move_out(old_root: str, record: Record, tell: Tell) -> None:
    """The output root is another one now: take our outputs out of the old one."""
    outputs = list(record.outputs())
    reason = Reason(Cause.NO_LONGER_MADE, old_root)
    change = Change(0, delete=tuple(Deletion(o.path, o.source, o.digest, reason) for o in outputs))
    if os.path.isdir(old_root):
        done = publish.apply(old_root, change, record.output, record.made_folder)
        tell("output_root_moved", old=old_root, deleted=len(done.deleted))
    record.disown(o.path for o in outputs)


def begin(config: Config, record: Record) -> None:
    """Note that we run."""
    record.set_meta(clean="0", boot=_boot_id())
    note_root(config, record)


def note_root(config: Config, record: Record) -> None:
    """Note where the outputs are: as a place, so that a project that is moved keeps them."""
    record.set_meta(out_dir=places.of(config.out_dir, config.project))


def clear_staging(staging: str) -> None:
    """Remove what workers left in staging; nobody needs it once intents are done again."""
    with contextlib.suppress(FileNotFoundError), os.scandir(staging) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                os.unlink(entry.path)


def check_outputs(config: Config, record: Record, tell: Tell, *, verify: bool) -> None:
    """Compare what is in place with the record, which forgets what is not there.

    Args:
        config: Tells the output root.
        record: Gets the stamps of outputs that are as they were.
        tell: Hears of what is missing or edited.
        verify: Look into every output: after a power loss the stamps prove nothing.
    """
    lost = []
    restamped = []
    for output in record.outputs():
        found = stamps.read(f"{config.out_dir}/{output.path}")
        if found is not None and found == output.stamp and not verify:
            continue
        seen = publish.identify(config.out_dir, output.path)
        if seen is None:
            lost.append(output)
        elif seen[1] == output.digest:
            restamped.append((output.path, seen[0]))
        elif verify:
            # The disk may hold half of what we wrote, which nobody can tell from an edit:
            # the bytes are kept elsewhere and the output is made anew.
            _keep_copy(config, output.path, tell)
            lost.append(output)
        else:
            tell("output_edited", level="warning", output=output.path)
    for path, stamp in restamped:
        record.restamp_output(path, stamp)
    if lost:
        record.disown(o.path for o in lost)
        tell("outputs_missing", count=len(lost), first=lost[0].path)


def _keep_copy(config: Config, output: str, tell: Tell) -> None:
    kept = os.path.join(config.state_dir, "kept", output)
    os.makedirs(os.path.dirname(kept), exist_ok=True)
    with contextlib.suppress(OSError):
        shutil.move(os.path.join(config.out_dir, output), kept)
        tell("output_set_aside", level="warning", output=output, kept_as=kept)


def _boot_id() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""
