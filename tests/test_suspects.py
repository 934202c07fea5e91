"""Who is looked at next, and when what fails is tried again."""

from assetd.lanes import Lane
from assetd.model import Cause, Diagnostic, Entry, EntryState, Reason, Source, Stamp
from assetd.retries import CRASH_LIMIT, RETRY_SECONDS, Quarantine, Retries
from assetd.suspects import Suspects, Suspicion

A, B, C = (Source("site", name) for name in "abc")
STAMP, OTHER = Stamp(1, 1, 1, 1), Stamp(2, 1, 1, 1)
REQUESTED = Reason(Cause.REQUESTED)


def take_all(suspects: Suspects) -> dict[Source, Suspicion]:
    return {s: each for _ in Lane for s, each in suspects.take(100, urgent_only=False)[1].items()}


def test_a_few_saves_go_ahead_and_many_are_a_bulk() -> None:
    """Nobody waits for one of many."""
    suspects = Suspects()
    suspects.add(A, 1, Lane.BULK)
    suspects.add(B, 2, Lane.URGENT)
    assert suspects.take(2, urgent_only=True)[0] is Lane.URGENT
    suspects.add(B, 2, Lane.URGENT)
    suspects.add(C, 3, Lane.URGENT)
    assert suspects.take(1, urgent_only=True) == (Lane.BULK, {})
    assert [[*suspects.take(1, urgent_only=False)[1]] for _ in range(4)] == [[B], [C], [A], []]


def test_of_two_suspicions_nothing_is_lost() -> None:
    """The oldest note, the quicker lane, the reason of either; a stamp may be another by now."""
    suspects = Suspects()
    suspects.add(A, 5, Lane.BULK, reason=REQUESTED, noted=5.0)
    suspects.add(B, 6, Lane.BULK, stamp=STAMP, noted=6.0)
    suspects.add(A, 7, Lane.URGENT, noted=7.0)
    suspects.add(B, 4, Lane.BULK, reason=REQUESTED, noted=8.0)
    assert len(suspects) == 2
    assert take_all(suspects) == {
        A: Suspicion(5, Lane.URGENT, 5.0, REQUESTED),
        B: Suspicion(4, Lane.BULK, 6.0, REQUESTED),
    }
    assert not suspects


def test_who_is_deferred_waits_and_holds_up_who_waits_for_it() -> None:
    """What is suspected meanwhile is looked at at once; afterwards the two are one."""
    suspects = Suspects()
    suspects.defer(A, Suspicion(3, Lane.BULK, 3.0, REQUESTED))
    suspects.defer(A, Suspicion(2, Lane.URGENT, 9.0))
    suspects.add(A, 4, Lane.BULK, noted=4.0)
    assert sorted(suspects.serials()) == [2, 4]
    assert (len(suspects), suspects.deferred) == (1, 1)
    assert take_all(suspects) == {A: Suspicion(4, Lane.BULK, 4.0)}
    suspects.release()
    assert suspects.deferred == 0
    assert take_all(suspects) == {A: Suspicion(2, Lane.URGENT, 3.0, REQUESTED)}


def entry(*, blames: str | None) -> Entry:
    problem = Diagnostic("?", blames, transient=True)
    reason = Reason(Cause.NEW)
    return Entry(A, STAMP, None, EntryState.FAILED, (), (), reason, problem)


def test_what_costs_workers_is_tried_less_and_less_often() -> None:
    """Until all goes well; the rest is tried again every second."""
    retries = Retries()
    now, waits = 100.0, []
    for _ in range(8):
        retries.add(entry(blames=None), now)
        assert retries.due_at is not None
        waits.append(retries.due_at - now)
        assert retries.due(retries.due_at - 0.1) == set()
        now = retries.due_at
        assert retries.due(now) == {A}
        assert retries.due(now + 100) == set()
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    retries.add(entry(blames="site/a"), now)
    assert retries.due_at == now + RETRY_SECONDS[0]
    retries.all_went_well()
    retries.due(retries.due_at)
    retries.add(entry(blames=None), now)
    assert retries.due_at == now + RETRY_SECONDS[0]


def test_an_input_that_costs_workers_again_and_again_is_left_alone() -> None:
    """Until it is another one, or is built; what is known to be its own fault does not count."""
    died = Diagnostic("it was killed", transient=True)
    quarantine = Quarantine()
    for stamp in (STAMP, OTHER):
        for _ in range(CRASH_LIMIT - 1):
            assert quarantine.judge(A, stamp, died) == died
    final = quarantine.judge(A, OTHER, died)
    assert not final.transient
    assert final.message.startswith("it was killed, 3 times over")
    assert quarantine.judge(B, OTHER, died) == died
    for amnesty in (
        lambda: quarantine.acquit(A),
        lambda: quarantine.judge(A, OTHER, Diagnostic("it crashed")),
    ):
        amnesty()
        assert quarantine.judge(A, OTHER, died) == died
        assert quarantine.judge(A, OTHER, died) == died
