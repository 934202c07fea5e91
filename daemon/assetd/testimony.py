"""What a worker says of its jobs, taken for an outcome only if it is one in every part.

A worker runs other people's code, and that may write to its pipe.  What passes here is planned
from, published and recorded by the owner, who is not to fall over it.
"""

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from assetd.model import (
    KINDS,
    NODE_STATES,
    Dependency,
    DependencyKey,
    Diagnostic,
    FileFact,
    Made,
    NodeRecord,
    NodeState,
    Outcome,
    Row,
    Staged,
    Stamp,
)
from assetd.tree import is_safe_name

_DIGEST: Final = re.compile("[0-9a-f]{64}").fullmatch


def outcome(row: Row) -> Outcome:
    """The outcome that a worker sent as *row*.

    Raises:
        ValueError: It is none; or TypeError, KeyError or OverflowError.
    """
    job, stamp, digest, nodes, claims, staged, files, seconds, settled, died = row
    return Outcome(
        whole(job),
        _stamp(stamp),
        _maybe_digest(digest),
        tuple(map(_node, nodes)),
        tuple(map(_name, claims)),
        tuple(map(_staged, staged)),
        tuple(map(_fact, files)),
        _seconds(seconds),
        _truth(settled),
        None if died is None else _diagnostic(died),
    )


@dataclass(slots=True)
class Will:
    """How a job ends if its worker does not come back from a node: all that anybody knows.

    Without it nobody knew what a source depends on that hangs or crashes its compiler when it
    is seen first, so mending the partial that is to blame did not build it again.
    """

    outcome: Outcome
    at: int
    """The index of that node, which has failed."""
    met: dict[DependencyKey, Dependency] = field(default_factory=dict)
    facts: list[FileFact] = field(default_factory=list)

    @staticmethod
    def of(message: Mapping[str, Any]) -> "Will":
        """What a worker has told of a job before it is done.  Raises as `outcome` does."""
        told, at = outcome(message["will"]), whole(message["at"])
        if (
            at < 0
            or told.nodes[at].state is not NodeState.FAILED
            or told.staged
            or not told.settled
        ):
            raise ValueError(f"a will: {_short(at)}")
        return Will(told, at)

    def add(self, message: Mapping[str, Any]) -> None:
        """Take in one more thing that the node depends on."""
        found, fact = _dependency(message["met"]), message["fact"]
        self.met[found.key] = found
        if fact is not None:
            self.facts.append(_fact(fact))

    def carried_out(self, died: Diagnostic) -> Outcome:
        """The outcome of the job."""
        node = self.outcome.nodes[self.at]
        met = {d.key: d for d in node.dependencies} | self.met
        failed = node._replace(dependencies=tuple(met.values()), failure=died)
        nodes = (*self.outcome.nodes[: self.at], failed, *self.outcome.nodes[self.at + 1 :])
        files = (*self.outcome.files, *self.facts)
        return self.outcome._replace(nodes=nodes, files=files, died=died)


def whole(value: Any) -> int:
    """A number that SQLite takes, and no bool.  Raises ValueError."""
    if type(value) is not int or not -(1 << 63) <= value < 1 << 63:
        raise ValueError(f"a number: {_short(value)}")
    return value


def _node(row: Row) -> NodeRecord:
    processor, path, version, options, given, needs, made, state, seconds, failure, warnings = row
    return NodeRecord(
        _word(processor),
        _place(path),
        _text(version),
        _text(options),
        _text(given),
        tuple(map(_dependency, needs)),
        tuple(map(_made, made)),
        NODE_STATES[state],
        _seconds(seconds),
        None if failure is None else _diagnostic(failure),
        tuple(map(_diagnostic, warnings)),
    )


def _dependency(row: Row) -> Dependency:
    kind, place, pattern, digest = row
    return Dependency(KINDS[kind], _place(place), _place(pattern), _maybe_digest(digest))


def _made(row: Row) -> Made:
    name, digest, size = row
    return Made(_name(name), _digest(digest), whole(size))


def _staged(row: Row) -> Staged:
    output, staged, digest, size = row
    return Staged(_name(output), _place(staged), _digest(digest), whole(size))


def _fact(row: Row) -> FileFact:
    place, stamp, digest = row
    return FileFact(_place(place), _stamp(stamp), _maybe_digest(digest))


def _diagnostic(row: Row) -> Diagnostic:
    message, file, line, column, excerpt, transient = row
    return Diagnostic(
        _text(message),
        None if file is None else _place(file),
        None if line is None else whole(line),
        None if column is None else whole(column),
        None if excerpt is None else _text(excerpt),
        _truth(transient),
    )


def _stamp(row: Row | None) -> Stamp | None:
    if row is None:
        return None
    mtime_ns, size, inode, ctime_ns = map(whole, row)
    return Stamp(mtime_ns, size, inode, ctime_ns)


def _seconds(value: Any) -> float:
    if type(value) not in {int, float} or not 0 <= value < math.inf:
        raise ValueError(f"seconds: {_short(value)}")
    return float(value) or 0.0  # not -0.0, which SQLite gives back as 0.0


def _truth(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError(f"true or false: {_short(value)}")
    return value


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError(f"a text: {_short(value)}")
    return value


def _word(value: Any) -> str:
    if not _text(value).isprintable():
        raise ValueError(f"a word: {_short(value)}")
    return str(value)


def _place(value: Any) -> str:
    """A text that may stand for a file: no half surrogate, no NUL."""
    if "\0" in _text(value):
        raise ValueError(f"a place: {_short(value)}")
    if not value.isascii():
        os.fsencode(value)
    return str(value)


def _name(value: Any) -> str:
    """A name that leads nowhere else."""
    if not is_safe_name(value):
        raise ValueError(f"a name: {_short(value)}")
    return _place(value)


def _digest(value: Any) -> str:
    if type(value) is not str or _DIGEST(value) is None:
        raise ValueError(f"a digest: {_short(value)}")
    return value


def _maybe_digest(value: Any) -> str | None:
    return None if value is None else _digest(value)


def _short(value: Any) -> str:
    return ascii(value)[:60]
