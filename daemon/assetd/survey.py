"""What is known of sources, outputs and dependencies: record, disk and configuration together.

`Layout` is the configuration as questions about paths.  `Survey` is the `plan.View` of one
moment: it looks at a file once and remembers; a new moment needs a new survey.  Both know how
to find out, and decide nothing.
"""

import contextlib
import os
from collections.abc import Callable, Collection, Container, Iterable, Sequence
from typing import Final, NamedTuple

from assetd import globs, listing
from assetd import place as places
from assetd import stamp as stamps
from assetd.claims import Claims
from assetd.config import Mount
from assetd.model import Digest, Entry, FileFact, Kind, Output, Place, Source, Stamp
from assetd.patterns import BUILT_IN_IGNORES, Patterns
from assetd.plan import Sighting, Version
from assetd.record import Record
from assetd.registry import Opened, Project
from assetd.tree import Tree, TreeError, grow

HASH_LIMIT: Final = 1 << 20
"""Bytes.  The owner looks into smaller files to spare a worker the job; larger ones would
hold up everything else, so a worker looks into those."""


class Limits(NamedTuple):
    """How long a chain of processors may take, and does."""

    nodes: tuple[tuple[str, float], ...]
    """Of each: its name, and the seconds for which it may show no progress."""
    longest: float
    guess: float
    """Seconds that a source takes which was never built."""
    carries: Opened | None
    """The one processor of the chain, if all that it does is to carry the source over."""


class Layout:
    """A project's configuration, as questions about paths."""

    def __init__(self, project: Project, more_ignored: Iterable[str] = ()) -> None:
        config = project.config
        self.project = project
        self.root = config.project
        self.mounts: dict[str, Mount] = {mount.name: mount for mount in config.mounts}
        self._ignored = Patterns.of((*BUILT_IN_IGNORES, *config.ignore, *more_ignored))
        self._forced = Patterns.of(config.force) if config.force else None
        never = [places.of(path, config.project) for path in (config.state_dir, config.out_dir)]
        self._never = {
            mount.name: tuple(place for place in never if places.is_below(place, mount.place))
            for mount in config.mounts
        }
        self._limits: dict[tuple[str, tuple[str, ...]], Limits] = {}
        self._versions = {
            mount.name: {
                o.processor.name: Version(o.version, o.options_digest)
                for o in project.enabled(mount)
            }
            for mount in config.mounts
        }

    def takers(self, mount: str) -> tuple[Opened, ...]:
        """The processors of a mount, in the order in which they are asked."""
        return self.project.enabled(mount)

    def ignored(self, mount: Mount, path: str, *, is_folder: bool) -> bool:
        """Whether a path of a mount is none of our business."""
        if self._ignored.matches(path, is_dir=is_folder):
            return True
        never = self._never[mount.name]
        return bool(never) and any(
            places.is_below(places.join(mount.place, path), each) for each in never
        )

    def forced(self, source: Source) -> bool:
        """Whether a force pattern has it."""
        return self._forced is not None and self._forced.matches(source.path)

    def locate(self, place: Place) -> Source | None:
        """The source that the file at *place* would be; None outside all mounts."""
        for mount in self.mounts.values():
            if place != mount.place and places.is_below(place, mount.place):
                start = len(mount.place) + 1 if mount.place not in {"", "/"} else len(mount.place)
                return Source(mount.name, place[start:])
        return None

    def place(self, source: Source) -> Place:
        """How we name a source in messages and files."""
        mount = self.mounts.get(source.mount)
        return places.join(source.mount if mount is None else mount.place, source.path)

    def path(self, source: Source) -> str:
        """Where its file is."""
        return places.path(self.place(source), self.root)

    def tree(self, source: Source) -> Tree | None:
        """Its processing tree; None if it is no source.  Raises TreeError."""
        mount = self.mounts.get(source.mount)
        if mount is None or self.ignored(mount, source.path, is_folder=False):
            return None
        return grow(source.path, self.takers(source.mount))

    def version(self, source: Source, processor: str) -> Version | None:
        """The processor as the source's mount has it."""
        return self._versions.get(source.mount, {}).get(processor)

    def limits(self, mount: str, chain: tuple[str, ...]) -> Limits:
        """How long the processors of a *chain* may take, by their names."""
        known = self._limits.get((mount, chain))
        if known is None:
            by_name = {opened.processor.name: opened for opened in self.takers(mount)}
            used = [by_name[name].processor for name in chain]
            carries = len(used) == 1 and used[0].verbatim and not used[0].bypass
            given = self.project.config.job_timeout_seconds
            nodes = tuple((p.name, p.timeout_seconds if given is None else given) for p in used)
            known = self._limits[mount, chain] = Limits(
                nodes,
                max((seconds for _, seconds in nodes), default=60.0),
                0.0005 if all(p.cheap for p in used) else 0.02,
                by_name[chain[0]] if carries else None,
            )
        return known

    def fingerprint(self) -> str:
        """Of all that decides which trees there are and what their nodes' versions are."""
        config = self.project.config
        parts = [
            repr([(m.name, m.place) for m in config.mounts]),
            repr((config.ignore, config.force, BUILT_IN_IGNORES)),
            *(
                repr(
                    (
                        m.name,
                        [
                            (o.processor.name, o.version, o.options_digest)
                            for o in self.takers(m.name)
                        ],
                    )
                )
                for m in config.mounts
            ),
        ]
        return stamps.digest_bytes("\n".join(parts).encode("utf-8", "surrogateescape"))


class Survey:
    """The `plan.View` of one moment."""

    def __init__(
        self,
        layout: Layout,
        record: Record,
        locked: Container[Source],
        sighted: Callable[[Source], Stamp | None] | None = None,
        claimed: Claims | None = None,
    ) -> None:
        """Begin a survey.

        Args:
            layout: The configuration.
            record: The record.
            locked: The sources with a job under way.
            sighted: Stamps that a scan has just read, to be spared a second look.
            claimed: What the jobs under way will make, of which the record may know nothing.
        """
        self._layout = layout
        self._record = record
        self._locked = locked
        self._sighted = sighted
        self._claimed = claimed or Claims()
        self._entries: dict[Source, Entry | None] = {}
        self._sightings: dict[Source, Sighting] = {}
        self._recorded: dict[Place, FileFact | None] = {}
        """The dependencies as the record has them."""
        self._facts: dict[Place, FileFact] = {}
        self._globs: dict[tuple[Place, str], Digest] = {}
        self._outputs: dict[str, Output | None] = {}
        self._at_odds: dict[str, list[tuple[str, Source]]] = {}
        self._trees: dict[Source, Tree | None] = {}
        self._behind_link: dict[tuple[str, str], bool] = {}
        self.learned: dict[Place, FileFact] = {}
        """Facts of dependencies whose stamps moved: for the record, once it is up to date."""

    def expect(self, sources: Collection[Source]) -> None:
        """Ask the record about *sources* at once: a question for each is most of a cold build."""
        paths = {source.path for source in sources}
        around = {*sources, *(Source(m, p) for m in self._layout.mounts for p in paths)}
        known = self._record.entries_of(around)
        self._entries.update((source, known.get(source)) for source in around)
        claims: set[str] = set()
        for entry in known.values():
            claims.update(entry.claims)
        for source in sources:
            with contextlib.suppress(TreeError):
                tree = self.tree(source)
                claims.update(name for name, _ in (tree.leaves if tree is not None else ()))
        needed = {
            dependency.place
            for entry in known.values()
            for node in entry.nodes
            for dependency in node.dependencies
            if dependency.kind is Kind.FILE
        }
        facts = self._record.files_at(needed)
        self._recorded.update((place, facts.get(place)) for place in needed)
        outputs = self._record.outputs_at(claims)
        self._outputs.update((claim, outputs.get(claim)) for claim in claims)
        self._at_odds.update(self._record.at_odds(claims))

    def entry(self, source: Source) -> Entry | None:
        """See `plan.View`."""
        if source not in self._entries:
            self._entries[source] = self._record.entry(source)
        return self._entries[source]

    def sighting(self, source: Source) -> Sighting:
        """See `plan.View`."""
        known = self._sightings.get(source)
        if known is None:
            known = self._sightings[source] = self._look(source)
        return known

    def _look(self, source: Source) -> Sighting:
        stamp = self._sighted(source) if self._sighted is not None else None
        if stamp is None and not self._is_behind_link(source):
            stamp = stamps.read(self._layout.path(source))
        if stamp is None:
            return Sighting(None)
        entry = self.entry(source)
        racy = stamps.is_racy(stamp)
        if entry is None or entry.digest is None or stamp == entry.stamp or stamp.size > HASH_LIMIT:
            return Sighting(stamp, None, racy)
        path = self._layout.path(source)
        if os.path.islink(path):
            # The same content, perhaps, but what it leads to has to be known from now on.
            return Sighting(stamp, None, racy)
        fact = stamps.look(path, "")
        return Sighting(stamp, fact.digest, fact.stamp is None)

    def _is_behind_link(self, source: Source) -> bool:
        """Whether a link to a folder leads to it: no scan follows that, but events may come."""
        folder = places.split(source.path)[0]
        mount = self._layout.mounts.get(source.mount)
        if not folder or mount is None:
            return False
        known = self._behind_link.get((source.mount, folder))
        if known is None:
            known = stamps.crosses_link(mount.folder, folder)
            self._behind_link[source.mount, folder] = known
        return known

    def tree(self, source: Source) -> Tree | None:
        """See `plan.View`."""
        if source not in self._trees:
            self._trees[source] = self._layout.tree(source)
        return self._trees[source]

    def is_material(self, source: Source) -> bool:
        """Whether it is known to be no source, so that it is there for others, if at all."""
        return source in self._trees and self._trees[source] is None

    def version(self, source: Source, processor: str) -> Version | None:
        """See `plan.View`."""
        return self._layout.version(source, processor)

    def now(self, key: tuple[Kind, Place, str]) -> Digest | None:
        """See `plan.View`."""
        kind, place, pattern = key
        if kind is Kind.GLOB:
            if (place, pattern) not in self._globs:
                folder = places.path(place, self._layout.root)
                self._globs[place, pattern] = globs.digest(folder, pattern)
            return self._globs[place, pattern]
        if kind in {Kind.OUTPUTS, Kind.DATED_OUTPUTS}:
            return self._listing(place, pattern, dates=kind is Kind.DATED_OUTPUTS)
        return self.fact(place).digest

    def _listing(self, name: str, pattern: str, *, dates: bool) -> Digest | None:
        mount = self._layout.mounts.get(name)
        if mount is None:
            return None
        rows = self._record.outputs_of(name)
        return listing.digest(listing.select(rows, mount.folder, pattern, dates=dates))

    def fact(self, place: Place) -> FileFact:
        """What the dependency at *place* holds now."""
        known = self._facts.get(place)
        if known is not None:
            return known
        path = places.path(place, self._layout.root)
        if place not in self._recorded:
            self._recorded[place] = self._record.file(place)
        recorded = self._recorded[place]
        stamp = stamps.read(path)
        if stamp is None:
            fact = FileFact(place, None, None)
        elif recorded is not None and recorded.stamp == stamp:
            fact = recorded
        else:
            fact = stamps.look(path, place)
            if fact.stamp is not None:
                self.learned[place] = fact
        self._facts[place] = fact
        return fact

    def at_odds(self, output: str) -> Sequence[tuple[str, Source]]:
        """See `plan.View`."""
        if output not in self._at_odds:
            self._at_odds.update(self._record.at_odds([output]))
        return [*self._at_odds[output], *self._claimed.at_odds(output)]

    def in_place(self, output: str) -> Output | None:
        """See `plan.View`."""
        if output not in self._outputs:
            self._outputs[output] = self._record.output(output)
        return self._outputs[output]

    def locked(self, source: Source) -> bool:
        """See `plan.View`."""
        return source in self._locked
