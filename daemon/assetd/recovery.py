"""What a start does about what the last end left behind.

Opens the record, sets a damaged one aside, does again what was begun and not committed, and
compares what is in place with what should be.  Runs once, before the engine's first turn.
"""

import contextlib
import os
import shutil
import time
from collections.abc import Iterator

from assetd import place as places
from assetd import publish
from assetd.config import Config
from assetd.errors import CorruptRecordError, OutdatedRecordError
from assetd.ledger import Known, boot_id
from assetd.model import Batch, Cause, Change, Deletion, Output, Reason, Tell
from assetd.reconcile import turned_out
from assetd.record import Record, salvage, set_aside
from assetd.tree import is_safe_name


def open_record(config: Config, tell: Tell, *, mend: bool = True) -> Record:
    """The project's record; a damaged one is set aside, named, and begun anew.

    Raises:
        CorruptRecordError: It is damaged, and not to be mended.
    """
    path = config.record_path
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
    """Set a damaged or outdated record aside, and begin a new one.

    It begins with the outputs that are known to be ours.  What is not known any more and differs
    from what we would make passes for somebody else's.
    """
    path = config.record_path
    aside = set_aside(path)
    known = [output for output in salvage(aside) if _is_sane(output)]
    if isinstance(cause, OutdatedRecordError):
        tell("record_outdated", cause=str(cause), kept_as=aside, saved=len(known))
    else:
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
    if record.meta("torn") == "1":
        return False
    if record.ledger.last > record.commits and record.ledger.boot != boot_id():
        return False  # not even that we ran has reached it
    return record.meta("clean") != "0" or record.meta("boot") in {boot_id(), None}


def redo(config: Config, record: Record, tell: Tell) -> None:
    """Do again what was begun and not committed, in the output root of that time."""
    known = record.meta("out_dir")
    old_root = None if known is None else places.path(known, config.project)
    for number, change in record.intents():
        batch = record.batch(change.batch) or Batch(change.batch, "start", time.time())
        root = old_root or config.out_dir
        done = publish.apply(
            root, change, record.output, record.made_folder, torn=not ended_cleanly(record)
        )
        record.commit(number, turned_out(change, done, record.entry), done, batch)
        tell("recovered", batch=change.batch, outputs=len(done.placed))
    catch_up(old_root or config.out_dir, record, tell)
    if old_root is not None and old_root != config.out_dir:
        move_out(old_root, record, tell)


def catch_up(out_dir: str, record: Record, tell: Tell) -> None:
    """Learn from the ledger whose outputs are that the record does not know, or not so.

    It knows of commits that the record has lost: with itself, by a power cut, or because
    somebody put an older copy in its place.
    """
    ledger = record.ledger
    if ledger.last > record.commits:
        last, torn = ledger.last, not ended_cleanly(record)
        found = [
            output
            for known in ledger.read(record.commits).values()
            if (output := _found(out_dir, known, record.output(known.path), torn=torn)) is not None
        ]
        record.adopt(found, last)
        if found:
            tell("record_behind", level="warning", outputs=len(found), first=found[0].path)
        record.write_ledger()
    elif ledger.last < record.commits:
        record.write_ledger()  # it has lost something itself


def _found(out_dir: str, known: Known, recorded: Output | None, *, torn: bool) -> Output | None:
    """What the record should say of an output; None if it is right.

    Args:
        out_dir: The output root.
        known: What the ledger says of it.
        recorded: What the record does.
        torn: Whether the machine went down, so that the disk may have it half written.
    """
    seen = publish.identify(out_dir, known.path)
    if seen is None:
        return None  # nothing is there that could be taken for somebody else's
    candidates = [digest for digest in known.digests if digest is not None]
    if recorded is not None:
        candidates.append(recorded.digest)
    # What is neither is half written, or edited: which of the two, the stamps and the digest
    # of the last one tell, as for any output.
    last = known.digests[-1]
    if last is None and torn and candidates:
        last = candidates[0]  # it was written and deleted, and the disk has the first half of that
    digest = seen[1] if seen[1] in candidates else last
    if digest is None or (recorded is not None and recorded.digest == digest == last):
        return None
    output = Output(known.path, known.source, digest, None)
    return output if _is_sane(output) else None


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
    """Note that we run, as soon as that matters: whoever finds nothing to do leaves no trace.

    That what is in place is torn is forgotten when all is built once.
    """
    torn = "0" if ended_cleanly(record) else "1"
    record.with_first_write(clean="0", boot=boot_id(), torn=torn)
    note_root(config, record)


def note_root(config: Config, record: Record) -> None:
    """Note where the outputs are: as a place, so that a project that is moved keeps them."""
    place = places.of(config.out_dir, config.project)
    if record.meta("out_dir") != place:
        record.set_meta(out_dir=place)


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
    for output in record.outputs() if verify else _moved(config.out_dir, record):
        seen = publish.identify(config.out_dir, output.path)
        if seen is None:
            lost.append(output)
        elif seen[1] == output.digest:
            restamped.append((output.path, seen[0]))
        elif verify:
            # The disk may hold half of what we wrote, which nobody can tell from an edit:
            # the bytes are kept elsewhere and the output is made anew.
            _keep_copy(config, output.path, seen[0].size, tell)
            lost.append(output)
        else:
            tell("output_edited", level="warning", output=output.path)
    for path, stamp in restamped:
        record.restamp_output(path, stamp)
    if lost:
        record.disown(o.path for o in lost)
        tell("outputs_missing", count=len(lost), first=lost[0].path)


def _moved(out_dir: str, record: Record) -> Iterator[Output]:
    """The outputs that have another stamp than the recorded one, or none.

    A start asks this of every output there is, so nothing is made of those that have not.
    """
    root = os.fsencode(out_dir) + b"/"
    for path, *stamp in record.output_stamps():
        try:
            found = os.stat(root + path)
            if stamp == [found.st_mtime_ns, found.st_size, found.st_ino, found.st_ctime_ns]:
                continue
        except OSError:
            pass
        output = record.output(os.fsdecode(path))
        if output is not None:
            yield output


def _keep_copy(config: Config, output: str, size: int, tell: Tell) -> None:
    """Move what a power cut left of an output out of its place; nothing is nobody's work."""
    there = os.path.join(config.out_dir, output)
    kept = os.path.join(config.state_dir, "kept", output)
    with contextlib.suppress(OSError):
        if size == 0:
            os.unlink(there)
            return
        os.makedirs(os.path.dirname(kept), exist_ok=True)
        shutil.move(there, kept)
        tell("output_set_aside", level="warning", output=output, kept_as=kept)
