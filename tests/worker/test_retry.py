"""When and how often a study is tried again, and when the handing out stops."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prichexy_worker.contract import MAX_ATTEMPTS, MAX_CLAIMS, Reason, State
from prichexy_worker.retry import (
    BLAMED,
    LIMITS,
    PROBE_PATIENCE,
    RETRIABLE,
    STUDY_BUDGET,
    Blame,
    Circuit,
    RetryPolicy,
    after_report,
    attempts_left,
    excuses,
    is_final,
    probe_pause,
)

WORKER = Path(__file__).parents[2] / "worker" / "prichexy_worker"
NOW = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
CLOSED = {blame: Circuit(blame) for blame in Blame}


def test_pauses_double_up_to_ten_minutes() -> None:
    delays = [RetryPolicy().delay(retries, 0.0) for retries in range(8)]
    assert delays == [10, 20, 40, 80, 160, 320, 600, 600]


@given(st.integers(0, 1000), st.floats(0, 1, exclude_max=True))
def test_chance_takes_at_most_half_of_a_pause(retries: int, chance: float) -> None:
    whole = RetryPolicy().delay(retries, 0.0)
    assert whole / 2 <= RetryPolicy().delay(retries, chance) <= whole


@given(st.integers(0, 10**9), st.floats(5, 10**6), st.floats(0, 1, exclude_max=True))
def test_no_pause_outlasts_the_brokers_patience(
    retries: int, redelivery: float, chance: float
) -> None:
    policy = RetryPolicy.below(redelivery)
    assert 0 < policy.delay(retries, chance) < redelivery


@given(st.integers(0, 1000), st.floats(0, 1, exclude_max=True))
def test_pauses_never_shrink(retries: int, chance: float) -> None:
    assert RetryPolicy().delay(retries, chance) <= RetryPolicy().delay(retries + 1, chance)


def test_each_attempt_that_counts_leaves_one_less_and_time_that_is_used_up_none() -> None:
    left = [attempts_left(counted, timedelta(0)) for counted in range(MAX_ATTEMPTS + 2)]
    assert left == [5, 4, 3, 2, 1, 0, 0]
    assert attempts_left(0, STUDY_BUDGET) == MAX_ATTEMPTS
    assert attempts_left(0, STUDY_BUDGET + SECOND) == 0


def test_after_the_final_claim_the_plugin_allows_no_other() -> None:
    assert [is_final(counted) for counted in range(MAX_CLAIMS)] == [
        *[False] * (MAX_CLAIMS - 1),
        True,
    ]


def _raised(name: str) -> Iterator[tuple[str, Reason]]:
    """Give each reason that the worker's code raises ``name`` with, and where."""
    for file in WORKER.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and node.args):
                continue
            reason = node.args[0]
            if (
                isinstance(node.func, ast.Name)
                and node.func.id == name
                and isinstance(reason, ast.Attribute)
                and isinstance(reason.value, ast.Name)
                and reason.value.id == "Reason"
            ):
                yield f"{file.name}:{node.lineno}", Reason[reason.attr]


def test_what_is_raised_as_retriable_is_in_the_table_and_what_is_permanent_is_not() -> None:
    retriable, permanent = list(_raised("Retryable")), list(_raised("Rejected"))
    assert len(retriable) > 10
    assert len(permanent) > 10
    assert [place for place, reason in retriable if reason not in RETRIABLE] == []
    assert [place for place, reason in permanent if reason in RETRIABLE] == []


def test_only_what_may_pass_or_what_the_workers_lack_is_blamed_on_something() -> None:
    assert set(BLAMED) - RETRIABLE == {Reason.CHECK_IMPOSSIBLE}
    # A model that one study asks for is no other study's matter.
    others = {Reason.CHANGED_MEANWHILE, Reason.WORKER_STOPPED, Reason.MODEL_UNAVAILABLE}
    assert RETRIABLE - set(BLAMED) == others


@pytest.mark.parametrize("reason", list(Reason))
def test_no_study_is_excused_from_what_no_circuit_watches_but_from_a_worker_that_stops(
    reason: Reason,
) -> None:
    excused = excuses(reason, others_succeeded=False, circuit_open=True)
    at_no_cost = (Reason.WORKER_STOPPED, Reason.OLDER_WORKER)
    assert excused is (reason in BLAMED or reason in at_no_cost)


def test_an_answer_that_did_not_come_is_no_fault_of_the_study_unless_others_got_theirs() -> None:
    gone = Reason.TARGET_UNREACHABLE
    assert excuses(gone, others_succeeded=False, circuit_open=False)
    assert not excuses(gone, others_succeeded=True, circuit_open=False)
    assert not excuses(Reason.TARGET_REFUSED, others_succeeded=False, circuit_open=False)


def _failed(circuit: Circuit, jobs: str, reason: Reason = Reason.TARGET_UNREACHABLE) -> Circuit:
    for job in jobs:
        circuit = circuit.after_failure(job, reason, NOW)
    return circuit


def test_a_circuit_opens_after_different_studies_failed_in_a_row() -> None:
    assert LIMITS[Blame.TARGET] == 3
    assert not _failed(Circuit(Blame.TARGET), "aabbabab").is_open
    assert _failed(Circuit(Blame.TARGET), "aabbc").is_open
    assert not _failed(_failed(Circuit(Blame.TARGET), "ab").after_success(NOW), "cd").is_open


def test_an_open_circuit_admits_one_probe_at_a_time_and_closes_with_its_success() -> None:
    opened = _failed(Circuit(Blame.TARGET), "abc")
    assert not opened.admits("a")
    assert not opened.wants_probe(NOW + probe_pause(0) - SECOND)
    assert opened.wants_probe(NOW + probe_pause(0))
    probing = opened.with_probe("b", NOW)
    assert probing.admits("b")
    assert not probing.admits("a")
    assert not probing.wants_probe(NOW + PROBE_PATIENCE - SECOND)
    assert probing.wants_probe(NOW + PROBE_PATIENCE), "it is lost"
    assert probing.after_success(NOW) == Circuit(Blame.TARGET, succeeded=NOW)


def test_a_failed_probe_makes_the_next_pause_longer_and_others_failures_change_nothing() -> None:
    probing = _failed(Circuit(Blame.TARGET), "abc").with_probe("b", NOW)
    assert _failed(probing, "acd") == probing
    failed = _failed(probing, "b")
    assert failed.probe is None
    assert failed.probe_at == NOW + timedelta(seconds=60)
    assert failed.is_open


def test_a_probe_that_says_nothing_on_the_matter_makes_room_for_another_at_once() -> None:
    probing = _failed(Circuit(Blame.TARGET), "abc").with_probe("b", NOW)
    over = probing.after_no_answer("b", NOW)
    assert over.is_open
    assert over.wants_probe(NOW)
    assert probing.after_no_answer("a", NOW) == probing


@pytest.mark.parametrize("probing", [False, True])
def test_a_clock_that_was_ahead_when_a_circuit_opened_holds_no_probe_up(probing: bool) -> None:
    ahead = NOW + timedelta(days=1)
    opened = Circuit(Blame.TARGET)
    for study in ("a", "b", "c"):
        opened = opened.after_failure(study, Reason.TARGET_REFUSED, ahead)
    if probing:
        opened = opened.with_probe("d", ahead)
    assert not opened.wants_probe(ahead)
    assert opened.wants_probe(NOW), "not in a day: the clock was set right"


def test_pauses_between_probes_double_from_half_a_minute_to_a_quarter_of_an_hour() -> None:
    pauses = [probe_pause(failed).total_seconds() for failed in (0, 1, 2, 3, 4, 5, 6, 10**6)]
    assert pauses == [30, 60, 120, 240, 480, 900, 900, 900]


@pytest.mark.parametrize(
    ("state", "reason", "closed"),
    [
        (State.EXPORTED, None, set(Blame)),
        (State.QUARANTINED, Reason.BURNED_IN_TEXT, {Blame.SOURCE, Blame.WORKER}),
        (State.QUARANTINED, Reason.CHECK_IMPOSSIBLE, set()),
        (State.QUEUED, Reason.TARGET_REFUSED, {Blame.SOURCE, Blame.WORKER}),
        (State.QUEUED, Reason.CHANGED_MEANWHILE, {Blame.SOURCE}),
        (State.QUEUED, Reason.UNEXPECTED, set()),
        (State.FAILED, Reason.TOO_MANY_ATTEMPTS, set()),
    ],
)
def test_a_verdict_closes_what_it_shows_to_work(
    state: State, reason: Reason | None, closed: set[Blame]
) -> None:
    opened = {blame: Circuit(blame, opened=NOW, probe="p", probe_at=NOW) for blame in Blame}
    after = after_report(opened, "p", state, reason, NOW)
    assert {blame for blame in Blame if not after[blame].is_open} == closed


@given(st.lists(st.tuples(st.sampled_from("abcdefghijklm"), st.sampled_from(list(RETRIABLE)))))
def test_at_most_one_study_is_let_through_while_a_circuit_is_open(
    history: list[tuple[str, Reason]],
) -> None:
    circuits = dict(CLOSED)
    for number, (job, reason) in enumerate(history):
        now = NOW + number * timedelta(minutes=20)
        for blame, circuit in circuits.items():
            if circuit.wants_probe(now):
                circuits[blame] = circuit.with_probe(job, now)
        circuits = after_report(circuits, job, State.QUEUED, reason, now)
        for circuit in circuits.values():
            assert len(circuit.studies) <= LIMITS[circuit.blame]
            assert circuit.is_open == (len(circuit.studies) == LIMITS[circuit.blame])
            assert (circuit.probe_at is not None) == circuit.is_open
            assert sum(circuit.admits(one) for one in "abcdefghijklm") <= (
                13 if not circuit.is_open else 1
            )
