"""The scan: a subtree of the project compared with the record, piece by piece.

One code path for start-up, lost events, new folders and polling.  Says what may have changed;
what that means is the plan's business.
"""

from collections.abc import Callable, Iterator

from assetd import place as places
from assetd import stamp as stamps
from assetd.config import Mount
from assetd.model import FileFact, Place, Source, Stamp
from assetd.record import Record
from assetd.survey import Layout
from assetd.watch import walk

Findings = list[tuple[Source, Stamp | None]]
"""Sources that may have changed, each with the stamp that was just read, if one was."""

_CHUNK = 200


def scan(
    layout: Layout,
    record: Record,
    place: Place,
    on_folder: Callable[[str], object],
    on_link: Callable[[Place, str], object],
    *,
    thorough: bool = False,
) -> Iterator[Findings]:
    """What may have changed at and below *place*, folder by folder.

    Args:
        layout: The configuration.
        record: What was there.
        place: Of a folder; empty for everything that the project has to do with.
        on_folder: Called with the absolute path of each mount's folder before it is listed.
        on_link: Called with what is not followed or cannot be read, and why.
        thorough: Name every source, changed or not: the configuration did.
    """
    for mount in layout.mounts.values():
        if place == "" or places.is_below(mount.place, place):  # one outside the project, too
            start = ""
        elif places.is_below(place, mount.place):
            start = place[len(mount.place) :].lstrip("/")
        else:
            continue
        yield from _mount(layout, record, mount, start, on_folder, on_link, thorough=thorough)
    found: Findings = []
    for number, fact in enumerate(record.files_below(place)):
        if has_changed(layout, fact):
            found += [(source, None) for source in record.dependents(fact.place)]
        if number % _CHUNK == _CHUNK - 1:
            yield found
            found = []
    yield found
    yield [(source, None) for _, _, source in record.globs_below(place)]
    if record.globs:
        for folder in places.above(place):
            yield [(s, None) for pattern, s in record.globs_at(folder) if "/" in pattern]


def has_changed(layout: Layout, fact: FileFact) -> bool:
    """Whether a dependency may hold something else now."""
    now = stamps.read(places.path(fact.place, layout.root))
    # A stamp of None is that of a file that is not there, or proves nothing.
    return fact.digest is not None if now is None else now != fact.stamp


def _mount(
    layout: Layout,
    record: Record,
    mount: Mount,
    start: str,
    on_folder: Callable[[str], object],
    on_link: Callable[[Place, str], object],
    *,
    thorough: bool,
) -> Iterator[Findings]:
    def skip(path: str, is_folder: bool) -> bool:
        return layout.ignored(mount, path, is_folder=is_folder)

    def link(path: str, why: str) -> None:
        on_link(places.join(mount.place, path), why)

    seen = set()
    if not (start and (skip(start, True) or stamps.crosses_link(mount.folder, start))):
        for listing in walk(mount.folder, start, skip, on_folder, link):
            seen.add(listing.folder)
            recorded = record.names_in(mount.name, listing.folder)
            prefix = f"{listing.folder}/" if listing.folder else ""
            found: Findings = [
                (Source(mount.name, prefix + name), stamp)
                for name, stamp in listing.files.items()
                # A recorded stamp of None proves nothing: it equals none that is found.
                if thorough or name not in recorded or recorded[name] != stamp
            ]
            found += [
                (Source(mount.name, prefix + name), None)
                for name in recorded.keys() - listing.files.keys()
            ]
            yield found
    for folder in record.folders_below(mount.name, start):
        if folder not in seen:
            prefix = f"{folder}/" if folder else ""
            names = record.names_in(mount.name, folder)
            yield [(Source(mount.name, prefix + name), None) for name in names]
