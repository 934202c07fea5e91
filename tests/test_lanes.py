"""Whose turn it is when a worker is free, and how much is sent to it at once."""

from collections.abc import Iterator
from pathlib import Path

from assetd.lanes import GROUP_LIMIT, GROUP_SECONDS, WAVES, Lane, Lanes, Ticket
from assetd.material import Material
from assetd.model import Job, Source
from assetd.testing import Site

LONG = 1.0
"""Longer than a group may take: it goes alone."""


def ticket(name: str, seconds: float = LONG, lane: Lane = Lane.BULK) -> Ticket:
    return Ticket(Job(0, Source("site", name)), lane, 60.0, seconds)


def turns(lanes: Lanes, workers: int = 2) -> Iterator[list[str]]:
    while group := lanes.take(workers):
        yield [each.job.source.path for each in group]


def test_saves_go_first_and_in_their_order() -> None:
    """Whoever saved first does not wait for a longer job of somebody else."""
    lanes = Lanes()
    lanes.add([ticket("bulk", 9.0)])
    lanes.add([ticket("a1", 1.0, Lane.URGENT), ticket("a2", 2.0, Lane.URGENT)])
    lanes.add([ticket("b", 3.0, Lane.URGENT)])
    assert len(lanes) == 4
    assert [*turns(lanes)] == [["a2"], ["a1"], ["b"], ["bulk"]]


def test_in_bulk_the_longest_goes_first_and_equals_in_their_order() -> None:
    """Begun last, it would be all that is left to wait for."""
    lanes = Lanes()
    lanes.add([ticket("a", 1.0), ticket("b", 2.0)])
    lanes.add([ticket("c", 3.0), ticket("d", 1.0)])
    assert [*turns(lanes)] == [["c"], ["b"], ["a"], ["d"]]


def test_a_short_job_is_not_put_off_for_ever() -> None:
    """A slice is recorded when all of its jobs are done: some later ones pass it by, not all."""
    lanes = Lanes()
    lanes.add([ticket("short", 1.0)])
    for number in range(1, WAVES[Lane.BULK] + 1):
        lanes.add([ticket(f"long{number}", 2.0)])
    order = [name for (name,) in turns(lanes)]
    assert order[-2:] == ["short", f"long{WAVES[Lane.BULK]}"]


def test_of_equals_the_heavier_goes_first_by_what_is_known_when_it_goes() -> None:
    """Jobs are submitted while the scan still finds out what there is."""
    material = Material()
    lanes = Lanes(material.around)
    lanes.add([ticket("a/x"), ticket("b/x"), ticket("c/x", 2.0)])
    material.add(Source("site", "b/deep/_y"), 10)
    assert [*turns(lanes)] == [["c/x"], ["b/x"], ["a/x"]]


def test_material_counts_for_the_folders_that_it_is_in() -> None:
    """Of its own mount, and until there are times to go by."""
    material = Material()
    material.add(Source("site", "a/b/_x"), 10)
    material.add(Source("site", "a/_y"), 5)
    seen = {p: material.around(Source("site", p)) for p in ("x", "a/x", "a/b/x", "a/b/c/x")}
    assert seen == {"x": 15, "a/x": 15, "a/b/x": 10, "a/b/c/x": 0}
    assert material.around(Source("theme", "x")) == 0
    material.clear()
    assert material.around(Source("site", "x")) == 0


def test_small_jobs_go_together_but_leave_the_other_workers_their_share() -> None:
    """Up to some work, up to some number, and nothing along with what must be alone."""
    lanes = Lanes()
    lanes.add([ticket(f"{n}", GROUP_SECONDS / 4) for n in range(20)])
    assert [len(group) for group in turns(lanes)] == [4, 4, 4, 3, 2, 1, 1, 1]
    lanes.add([ticket(f"{n}", 0.0) for n in range(3 * GROUP_LIMIT)])
    assert len(lanes.take(1)) == GROUP_LIMIT
    lanes.clear()
    assert len(lanes) == 0
    lanes.add([ticket(f"{n}", 0.0)._replace(alone=n % 2 == 0) for n in range(4)])
    assert [*turns(lanes, 1)] == [["0"], ["1"], ["2"], ["3"]]


def test_what_comes_back_is_first_or_last_in_its_lane() -> None:
    """It was under way when its worker died, or it held up those behind it."""
    lanes = Lanes()
    lanes.add([ticket("a"), ticket("b")])
    lanes.add_last(ticket("last", 9.0))
    lanes.add_first(ticket("second", 1.0))
    lanes.add_first(ticket("first", 1.0))
    lanes.add([ticket("c", 5.0)])
    assert [*lanes.take_all()] == [
        *(ticket("first", 1.0), ticket("second", 1.0)),
        *(ticket("c", 5.0), ticket("a"), ticket("b")),
        ticket("last", 9.0),
    ]


def test_jobs_that_come_while_all_are_taken_are_taken_too() -> None:
    """The outcome of one may lead to another."""
    lanes = Lanes()
    lanes.add([ticket("a"), ticket("b")])
    taken = []
    for each in lanes.take_all():
        taken.append(each.job.source.path)
        if len(taken) == 1:
            lanes.add([ticket("c")])
    assert sorted(taken) == ["a", "b", "c"]
    assert len(lanes) == 0


def test_a_first_build_begins_with_what_has_most_to_import(tmp_path: Path) -> None:
    """Nobody has timed anything yet; it is all that is left to wait for if it is begun last."""
    site = Site(tmp_path, "mounts: [assets]\nprocessors: [sass]\n")
    for folder, partials in (("a", 1), ("b", 30), ("c", 3)):
        for number in range(partials):
            site.write(f"assets/{folder}/parts/_p{number}.scss", f"$x{number}: 1;\n" * 100)
        site.write(f"assets/{folder}/site.scss", "a { b: c }")
    trace = tmp_path / "trace.json"
    done = site.run("build", "-j", "1", "--trace", str(trace))
    assert done.returncode == 0, done.stderr
    text = trace.read_text()
    places = [text.index(f'"name":"{folder}/site.scss"') for folder in "bca"]
    assert places == sorted(places)
