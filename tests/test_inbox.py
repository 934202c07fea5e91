"""The inbox and settling: no note is lost, and no change is taken before it is ripe."""

import select
import threading
from collections.abc import Iterator

import pytest

from assetd.inbox import Hint, Inbox, Settling

GAP, PATIENCE, DELETION = 0.1, 1.0, 0.5


@pytest.fixture
def settling() -> Settling:
    return Settling(GAP, PATIENCE, DELETION)


@pytest.fixture
def inbox() -> Iterator[Inbox[int]]:
    made: Inbox[int] = Inbox()
    yield made
    made.close()


def ready(settling: Settling, now: float) -> list[str]:
    return [place for place, _ in settling.ready(now)]


def rings(inbox: Inbox[int], seconds: float = 0.0) -> bool:
    return bool(select.select([inbox.fd], [], [], seconds)[0])


def burst(settling: Settling, start: float, count: int, every: float) -> float:
    """Note *count* finished places at intervals; gives the time of the last."""
    now = start
    for number in range(count):
        now = start + number * every
        settling.note(f"p{number}", Hint.FINISHED, now, number)
    return now


def test_a_file_that_was_closed_is_ready_at_once(settling: Settling) -> None:
    """One save must not wait for a second one; what was taken is gone."""
    settling.note("a.css", Hint.FINISHED, 10.0, 1)
    deadline = settling.deadline()
    assert deadline is not None
    assert deadline <= 10.0
    [(place, pending)] = settling.ready(10.0)
    assert (place, pending.first, pending.last, pending.serial) == ("a.css", 10.0, 10.0, 1)
    assert (
        settling.ready(99.0),
        len(settling),
        settling.deadline(),
        settling.oldest(),
    ) == ([], 0, None, None)


def test_a_burst_is_gathered_and_released_after_a_quiet_gap(settling: Settling) -> None:
    """A checkout is one batch."""
    last = burst(settling, 10.0, 20, 0.01)
    assert ready(settling, last) == []
    assert last + GAP == settling.deadline()
    assert ready(settling, last + GAP * 0.9) == []
    assert [f"p{n}" for n in range(20)] == ready(settling, last + GAP)


def test_changes_with_quiet_between_them_are_no_burst(settling: Settling) -> None:
    """As many as a burst has, but slower: each is ready at once."""
    last = burst(settling, 10.0, Settling.BURST, GAP)
    assert len(ready(settling, last)) == Settling.BURST


def test_one_fewer_than_a_burst_is_none(settling: Settling) -> None:
    """Saving all the open files of an editor is quick."""
    last = burst(settling, 10.0, Settling.BURST - 1, 0.0)
    assert len(ready(settling, last)) == Settling.BURST - 1


def test_a_burst_without_end_is_taken_when_patience_is_over(settling: Settling) -> None:
    """What came first waits no longer than the patience."""
    last = burst(settling, 10.0, 101, 0.01)
    assert ready(settling, last + 0.0101) == ["p0", "p1"]
    assert pytest.approx(10.0 + 0.02 + PATIENCE) == settling.deadline()


def test_a_place_that_is_noted_again_and_again_has_the_patience_of_its_first_note(
    settling: Settling,
) -> None:
    """A log that is rewritten all the time is built now and then, not never."""
    for number in range(100):
        settling.note("a.css", Hint.FINISHED, 10.0 + number * 0.01, number)
        assert number < Settling.BURST or ready(settling, 10.0 + number * 0.01) == []
    settling.note("a.css", Hint.FINISHED, 11.0, 100)
    assert ready(settling, 11.0) == ["a.css"]


def test_a_deletion_waits(settling: Settling) -> None:
    """Its output would vanish while an editor writes the file anew."""
    settling.note("a.css", Hint.GONE, 10.0, 1)
    assert settling.deadline() == 10.0 + DELETION
    assert ready(settling, 10.0 + DELETION - 0.01) == []
    assert [(place, p.hint) for place, p in settling.ready(10.0 + DELETION)] == [
        ("a.css", Hint.GONE)
    ]


def test_a_deletion_becomes_an_edit_when_the_file_is_back(settling: Settling) -> None:
    """Editors save by moving a new file into the old one's place."""
    settling.note("a.css", Hint.GONE, 10.0, 1)
    settling.note("a.css", Hint.FINISHED, 10.01, 2)
    [(place, pending)] = settling.ready(10.01)
    assert (
        place,
        pending.hint,
        pending.first,
        pending.serial,
    ) == ("a.css", Hint.FINISHED, 10.0, 1)


def test_an_edit_becomes_a_deletion_when_the_file_goes(settling: Settling) -> None:
    """The last hint counts, from when it came."""
    settling.note("a.css", Hint.TOUCHED, 10.0, 1)
    settling.note("a.css", Hint.GONE, 10.2, 2)
    assert settling.deadline() == 10.2 + DELETION


def test_a_file_that_is_open_for_writing_waits_longer(settling: Settling) -> None:
    """Half a file gives a wrong result, so it gets several gaps, but not without end."""
    settling.note("a.css", Hint.TOUCHED, 10.0, 1)
    assert pytest.approx(10.0 + Settling.OPEN_FACTOR * GAP) == settling.deadline()
    end = 10.0 + Settling.OPEN_FACTOR * PATIENCE
    now = 10.0
    while now < end - 0.05:
        assert ready(settling, now) == []
        settling.note("a.css", Hint.TOUCHED, now, 2)
        now += 0.1
    assert pytest.approx(end) == settling.deadline()
    assert ready(settling, end) == ["a.css"]


def test_a_file_that_is_closed_waits_no_longer(settling: Settling) -> None:
    """The writer said that it is done."""
    settling.note("a.css", Hint.TOUCHED, 10.0, 1)
    settling.note("a.css", Hint.FINISHED, 10.05, 2)
    assert ready(settling, 10.05) == ["a.css"]


def test_who_waits_for_a_serial_forces_what_came_up_to_it(settling: Settling) -> None:
    """`sync` takes what is there, and nothing that came after it was asked."""
    settling.note("touched", Hint.TOUCHED, 10.0, 1)
    settling.note("gone", Hint.GONE, 10.0, 2)
    settling.note("later", Hint.GONE, 10.0, 3)
    settling.note("touched", Hint.TOUCHED, 10.0, 4)
    settling.force(2)
    settling.force(1)
    assert ready(settling, 10.0) == ["touched", "gone"]
    assert settling.oldest() == 3
    settling.note("gone", Hint.GONE, 10.0, 5)
    assert ready(settling, 10.0) == []


def test_the_oldest_serial_is_that_of_a_first_note(settling: Settling) -> None:
    """Whoever waits for a serial waits until the note that had it is taken."""
    assert settling.oldest() is None
    settling.note("a", Hint.GONE, 10.0, 5)
    settling.note("b", Hint.TOUCHED, 10.0, 6)
    settling.note("a", Hint.GONE, 10.3, 7)
    assert (settling.oldest(), len(settling)) == (5, 2)
    assert ready(settling, 10.3 + DELETION - 0.1) == ["b"]
    assert settling.oldest() == 5


def test_other_numbers_count_for_what_waits_already(settling: Settling) -> None:
    """A configuration that is read anew drops nothing."""
    settling.note("a", Hint.GONE, 10.0, 1)
    settling.retune(GAP, PATIENCE, 0.01)
    assert ready(settling, 10.01) == ["a"]


def test_a_note_wakes_the_descriptor_until_it_is_taken(inbox: Inbox[int]) -> None:
    """The owner sleeps in a select and must not miss it, nor wake for nothing."""
    assert not rings(inbox)
    inbox.post(1)
    inbox.post(2)
    assert (rings(inbox), len(inbox)) == (True, 2)
    assert inbox.take(10) == [1, 2]
    assert (rings(inbox), inbox.take(10)) == (False, [])
    inbox.post(3)
    assert (rings(inbox), inbox.take(10)) == (True, [3])


def test_what_is_left_above_the_limit_keeps_the_descriptor_ready(inbox: Inbox[int]) -> None:
    """The owner comes back for it, the oldest first."""
    for number in range(5):
        inbox.post(number)
    assert (inbox.take(2), rings(inbox)) == ([0, 1], True)
    assert (inbox.take(2), rings(inbox)) == ([2, 3], True)
    assert (inbox.take(2), rings(inbox)) == ([4], False)


def test_many_threads_lose_no_note(inbox: Inbox[int]) -> None:
    """Each thread's notes come in its order, and the owner needs nothing but the descriptor."""
    threads, each = 10, 1000

    def post(thread: int) -> None:
        for number in range(each):
            inbox.post(thread * each + number)

    posting = [threading.Thread(target=post, args=(n,)) for n in range(threads)]
    for thread in posting:
        thread.start()
    taken: list[int] = []
    while len(taken) < threads * each:
        assert rings(inbox, 5.0), f"asleep over {len(inbox)} notes"
        taken += inbox.take(7)
    for thread in posting:
        thread.join()
    assert list(range(threads * each)) == sorted(taken)
    for first in range(0, threads * each, each):
        mine = [n for n in taken if first <= n < first + each]
        assert mine == sorted(mine)
