"""What fault tests judge by: each thing that may not be is seen."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from prichexy_testing.faults.gathered import telling_files
from prichexy_testing.faults.invariants import AuditLine, LedgerRow, Sent, World, violations
from prichexy_worker.contract import State

W, P, Q, C, E = State.WATCHED, State.PENDING, State.QUEUED, State.PROCESSING, State.EXPORTED
STUDY = Sent("study", "2.25.1", frozenset({"2.25.11", "2.25.12"}))
ROW = LedgerRow("study", "job", E, revision=1, attempts=1)
QUARANTINED = frozenset({State.QUARANTINED})


def trail(*states: State) -> tuple[AuditLine, ...]:
    """Tell the story of the one job, a line a second."""
    workers = {C, E, State.QUARANTINED, State.FAILED}
    start = datetime(2030, 1, 1, tzinfo=UTC)
    steps = zip((None, *states), states, strict=False)
    return tuple(
        AuditLine(
            number,
            "job",
            start + timedelta(seconds=number),
            before,
            after,
            "worker-1" if after in workers else "plugin",
        )
        for number, (before, after) in enumerate(steps)
    )


WELL = World(
    sent=(STUDY,),
    rows=(ROW,),
    lines=trail(W, P, Q, C, E),
    ingest=frozenset({"study"}),
    peer={"2.25.1": ("2.25.11", "2.25.12")},
)


def ended(state: State) -> World:
    """Give a world whose study ended otherwise, and is not at the peer."""
    return replace(WELL, rows=(replace(ROW, state=state),), lines=trail(W, P, Q, C, state), peer={})


def test_nothing_is_wrong_with_a_study_that_is_whole_at_the_peer():
    assert violations(WELL) == []


def test_nothing_is_wrong_with_a_study_that_is_in_quarantine_and_not_at_the_peer():
    world = replace(ended(State.QUARANTINED), sent=(replace(STUDY, ends=QUARANTINED),))
    assert violations(world) == []


def test_nothing_is_wrong_with_a_study_that_was_claimed_anew_after_a_worker_was_lost():
    world = replace(WELL, rows=(replace(ROW, attempts=2),), lines=trail(W, P, Q, C, P, Q, C, E))
    assert violations(world) == []


STORIES = {
    "it ended twice": (trail(W, P, Q, C, E, P, Q, C, E), "more ends than revisions"),
    "a claim is not in the count": (trail(W, P, Q, C, C, E), "claims are not counted"),
    "a line is missing": (trail(W, P, C, E)[:2] + trail(W, P, Q, C, E)[3:], "is broken"),
    "the last line is missing": (trail(W, P, Q, C), "is not whole"),
    "the first line is missing": (trail(W, P, Q, C, E)[1:], "is not whole"),
    "there are no lines": ((), "is not whole"),
    "it left out the claim": (trail(W, P, Q, C, W, P, Q, E), "a step that there is not"),
}


@pytest.mark.parametrize("story", STORIES)
def test_a_trail_that_does_not_tell_what_happened_is_seen(story):
    lines, what = STORIES[story]
    assert any(what in found.what for found in violations(replace(WELL, lines=lines)))


def test_a_line_that_stands_twice_is_seen():
    lines = trail(W, P, Q, C, E)
    doubled = (*lines, replace(lines[-1], number=9))
    assert "an audit line stands more than once" in told(replace(WELL, lines=doubled))


WORLDS = {
    "has no end": ended(State.PROCESSING),
    "has another end": ended(State.FAILED),
    "not once in the ledger": replace(WELL, rows=(), lines=()),
    "the original was lost": replace(WELL, ingest=frozenset()),
    "the original came back": replace(WELL, sent=(replace(STUDY, deleted=True),)),
    "nobody sent it": replace(WELL, sent=(), peer={}),
    "not whole at the peer": replace(WELL, peer={"2.25.1": ("2.25.11",)}),
    "more than once at the peer": replace(WELL, peer={"2.25.1": ("2.25.11", "2.25.12") * 2}),
    "left at the peer": replace(ended(State.QUARANTINED), peer={"2.25.1": ("2.25.11",)}),
    "at the peer, and nobody sent it": replace(WELL, peer={**WELL.peer, "2.25.2": ("2.25.21",)}),
    "a file tells of a patient": replace(WELL, telling=("scratch/core",)),
}


@pytest.mark.parametrize("what", WORLDS)
def test_each_thing_that_may_not_be_is_seen(what):
    assert what in told(WORLDS[what])


def test_a_stranger_within_a_study_is_seen():
    world = replace(WELL, peer={"2.25.1": ("2.25.11", "2.25.12", "2.25.13")})
    assert told(world) == ["not whole at the peer"]


def test_two_rows_of_one_study_are_seen():
    rows = (ROW, replace(ROW, job_id="other"))
    assert "not once in the ledger" in told(replace(WELL, rows=rows))


def told(world: World) -> list[str]:
    return [found.what for found in violations(world)]


@pytest.mark.parametrize("content", [b"\0" * 128 + b"DICM", b"of PATIENT-1", b"\x7fELF core"])
def test_a_file_that_tells_of_a_patient_is_found_and_others_are_not(tmp_path, content):
    (tmp_path / "of ours").write_bytes(b"nothing")
    assert telling_files([tmp_path], ["PATIENT-1"]) == ()
    (tmp_path / "left").write_bytes(content)
    assert telling_files([tmp_path], ["PATIENT-1"]) == (f"{tmp_path.name}/left",)
