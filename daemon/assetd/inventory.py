"""What the record holds, source by source, as JSON objects.  Needs no daemon; writes nothing."""

from collections.abc import Iterator
from typing import Any, TypeAlias

from assetd import history
from assetd import place as places
from assetd.config import Config
from assetd.errors import UsageError
from assetd.model import Entry, EntryState, Made, NodeRecord
from assetd.record import Reader
from assetd.registry import Project
from assetd.survey import Layout

Facts: TypeAlias = dict[str, Any]


def sources(config: Config, state: EntryState | None = None) -> Iterator[Facts]:
    """Every source that the record knows, by its place, with its outputs.

    Args:
        config: Of the project.
        state: Only the sources that are in it; None for all.

    Raises:
        NothingBuiltError: There is no record yet.
    """
    folders = {mount.name: mount.place for mount in config.mounts}
    with history.opened(config.state_dir) as reader:
        for entry in reader.entries(state):
            folder = folders.get(entry.source.mount, entry.source.mount)
            yield {
                "source": places.join(folder, entry.source.path),
                "mount": entry.source.mount,
                "path": entry.source.path,
                "state": entry.state.value,
                "outputs": list(entry.claims),
                "processors": list(dict.fromkeys(node.processor for node in entry.nodes)),
                "warnings": sum(len(node.warnings) for node in entry.nodes),
                "batch": entry.batch,
                "seconds": round(entry.seconds, 6),
            }


def tree(project: Project, path: str, cwd: str) -> Facts:
    """The processing tree of a source, or of the source of an output, with each node's state.

    Args:
        project: Whose.
        path: As `why` takes it.
        cwd: Absolute.

    Raises:
        UsageError: Nothing of that name is known, or it is no source.
    """
    layout = Layout(project)
    with history.opened(project.config.state_dir) as reader:
        subject = history.find(reader, layout, path, cwd)
        entry = None if subject.source is None else reader.entry(subject.source)
        if subject.source is None:
            raise UsageError(f"{subject.place} is no source: others include it")
        if entry is None:
            raise UsageError(f"{subject.place} is gone: `assetd why` tells its story")
        left = list(entry.nodes)
        nodes = _below(reader, entry, entry.source.path, left)
        while left:  # what waits for a node that fails is not below anything that was made
            nodes += _below(reader, entry, left[0].path, left)
        return {
            "schema": history.SCHEMA,
            "source": subject.place,
            "mount": entry.source.mount,
            "state": entry.state.value,
            "digest": entry.digest,
            "nodes": nodes,
            "errors": history.faults(entry),
        }


def _below(reader: Reader, entry: Entry, path: str, left: list[NodeRecord]) -> list[Facts]:
    """The nodes that take *path*, with all that comes of them; takes them out of *left*."""
    taking = [node for node in left if node.path == path]
    # A name may come again further down (`app.js` of `app.js`): each node is told once.
    for node in taking[:1]:
        left.remove(node)
    return [
        {
            "processor": node.processor,
            "path": node.path,
            "version": node.version,
            "state": node.state.value,
            "seconds": round(node.seconds, 6),
            "input": node.input,
            "failure": None if node.failure is None else str(node.failure),
            "warnings": [str(warning) for warning in node.warnings],
            "made": [_made(reader, entry, made, left) for made in node.made],
        }
        for node in taking[:1]
    ]


def _made(reader: Reader, entry: Entry, made: Made, left: list[NodeRecord]) -> Facts:
    nodes = _below(reader, entry, made.name, left)
    placed = None if nodes else reader.output(made.name)
    return {
        "path": made.name,
        "digest": made.digest,
        "bytes": made.size,
        "is_output": made.name in entry.claims and not nodes,
        "in_place": placed is not None
        and placed.source == entry.source
        and placed.digest == made.digest,
        "nodes": nodes,
    }
