"""Processing trees: source and processors in, tree out.  Pure; reads no file.

For a path the processors are asked in order; the first that matches takes it, what it will
make become the children, and each child is offered to the processors that its branch has not
used yet.  What nobody takes further is a leaf: an output.

A processor that names its outputs only by making them is asked of sources alone: what it made
of a child would not be known when the tree is planned.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from assetd.errors import AssetdError
from assetd.processor import Names, Options, Processor, never

_PARTS: Final = frozenset({"", ".", ".."})
"""No parts of a path that stays where it starts."""
NODE_LIMIT: Final = 64
"""More nodes than any sane chain has: two processors feed each other."""


class Taker(Protocol):
    """A processor with its options."""

    @property
    def processor(self) -> Processor:
        """The processor."""

    @property
    def options(self) -> Options:
        """Its options."""


class TreeError(AssetdError):
    """The processors make no sensible tree of this path; the text says why."""


class Node(NamedTuple):
    """One processor on one path."""

    processor: str
    path: str
    parent: int | None
    """Index of the node whose output this is; None for the source itself."""
    outputs: tuple[str, ...]
    companions: tuple[str, ...] = ()


class Tree(NamedTuple):
    """The chain that a source goes through, parents before children."""

    nodes: tuple[Node, ...]
    leaves: tuple[tuple[str, int], ...]
    """Each output and the index of the node that makes it.  Empty for a bypassing root,
    which names its outputs only by making them."""
    bypass: bool = False


def include_only(path: str, takers: Sequence[Taker]) -> str | None:
    """The name of the processor for which *path* is only there to be included."""
    for taker in _concerned(path, takers):
        if taker.processor.include_only is not never and _ask_matcher(taker, "include_only", path):
            return taker.processor.name
    return None


def _concerned(path: str, takers: Sequence[Taker]) -> list[Taker]:
    """Those whose processors can have to do with names like this one."""
    lowered = path.lower()
    return [t for t in takers if not (s := t.processor.suffixes) or lowered.endswith(s)]


def grow(path: str, takers: Sequence[Taker]) -> Tree | None:
    """The processing tree of *path*; None if it is no source of its own.

    Args:
        path: Relative to the mount.
        takers: The mount's processors in the order in which they are asked.

    Raises:
        TreeError: The processors feed each other, contradict each other, misname an output
            or raise.
    """
    if include_only(path, takers) is not None:
        return None
    nodes: list[Node] = []
    leaves: dict[str, int] = {}
    bypass = False

    def visit(path: str, parent: int | None, unused: Sequence[Taker]) -> bool:
        nonlocal bypass
        for taker in _concerned(path, unused):
            if _ask_matcher(taker, "matches", path) and (
                parent is None or not bypasses(taker, path)
            ):
                break
        else:
            return False
        if len(nodes) == NODE_LIMIT:
            raise TreeError(
                f"its processing tree has more than {NODE_LIMIT} nodes: "
                f"do {taker.processor.name} and {nodes[-1].processor} feed each other?"
            )
        here = len(nodes)
        if parent is None and bypasses(taker, path):
            bypass = True
            nodes.append(Node(taker.processor.name, path, parent, ()))
            return True
        names = _ask_names(taker, path)
        nodes.append(Node(taker.processor.name, path, parent, names.primary, names.companions))
        rest = [] if taker.processor.ends else [t for t in unused if t is not taker]
        for name in names.primary:
            if taker.processor.ends or not visit(name, here, rest):
                _add_leaf(leaves, name, here, nodes)
        for name in names.companions:
            # One that a node further down makes anew (a map of the minified file) has
            # taken this one's place already: children are visited first.
            if leaves.setdefault(name, here) < here:
                _add_leaf(leaves, name, here, nodes)
        return True

    if not visit(path, None, takers):
        return None
    return Tree(tuple(nodes), tuple(leaves.items()), bypass)


def bypasses(taker: Taker, path: str) -> bool:
    """Whether the processor names what it makes of *path* only by making it."""
    if isinstance(taker.processor.bypass, bool):
        return taker.processor.bypass
    return _ask_matcher(taker, "bypass", path)


def _add_leaf(leaves: dict[str, int], name: str, node: int, nodes: Sequence[Node]) -> None:
    other = leaves.setdefault(name, node)
    if other != node:
        raise TreeError(
            f"{nodes[other].processor} and {nodes[node].processor} would both make {name} of it"
        )


def _ask_matcher(taker: Taker, question: str, path: str) -> bool:
    try:
        return bool(getattr(taker.processor, question)(path, taker.options))
    except Exception as error:  # a plugin's bug must not end the daemon
        raise TreeError(_bug(taker, question, path, error)) from error


def _ask_names(taker: Taker, path: str) -> Names:
    try:
        names = taker.processor.outputs(path, taker.options)
        every = (*names.primary, *names.companions)
        bad = [name for name in every if not is_safe_name(name)]
    except Exception as error:  # a plugin's bug must not end the daemon
        raise TreeError(_bug(taker, "outputs", path, error)) from error
    if bad:
        raise TreeError(
            f"{taker.processor.name} would make {bad[0]!r}, which is no path below the output root"
        )
    if not names.primary or (len(every) > 1 and len(set(every)) != len(every)):
        raise TreeError(f"{taker.processor.name} announces {every!r}: expected different names")
    return names


def _bug(taker: Taker, question: str, path: str, error: Exception) -> str:
    name = taker.processor.name
    return f"{name}: {question}({path!r}) raised {type(error).__name__}: {error}"


def is_safe_name(name: object) -> bool:
    """Whether *name* is a relative path that stays where it starts."""
    return (
        isinstance(name, str)
        and 0 < len(name) < 4096
        and "\0" not in name
        and _PARTS.isdisjoint(name.split("/"))
    )
