"""What was exported of a study stays until somebody decides, whatever Orthanc lost of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import update
from sqlalchemy.orm import Session

from prichexy_plugin.database import open_database
from prichexy_plugin.exports import lacks, mark_of, marks_in, packed
from prichexy_plugin.retention import Rules
from prichexy_plugin.schema import StudyRow
from prichexy_testing.old_ledgers import DONE, QUEUED, schema_1
from prichexy_testing.one_study import STUDY, Gateway, originals
from prichexy_testing.plugin_fakes import report_of
from prichexy_worker.contract import Reason, State

MARKS = st.frozensets(st.from_regex("[0-9a-f]{16}", fullmatch=True), max_size=8)


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    one = Gateway()
    one.look("1", "2")
    one.export("1", "2")
    yield one
    one.engine.dispose()


@given(MARKS)
def test_marks_are_kept_in_eight_bytes_each(marks: frozenset[str]) -> None:
    assert marks_in(packed(marks)) == marks
    assert len(packed(marks)) == 8 * len(marks)


@given(st.sets(st.integers(0, 9)), st.sets(st.integers(0, 9)))
def test_an_export_lacks_what_is_not_there_any_more(had: set[int], has: set[int]) -> None:
    def named(numbers: set[int]) -> tuple[str, ...]:
        return originals(*map(str, numbers))

    kept = packed(map(mark_of, named(had)))
    assert lacks(kept, named(has), count=0) == (not had <= has)
    assert lacks(None, named(has), count=len(had)) == (len(has) < len(had))


def test_an_image_that_was_away_while_the_study_was_exported_is_exported_when_it_comes_again() -> (
    None
):
    gateway = Gateway()
    gateway.look("1", "2")
    gateway.export("2")
    assert gateway.look("1", "2") == (State.PENDING, None), "what was exported lacked it"
    gateway.export("1", "2")
    assert gateway.look("1", "2") == (State.EXPORTED, None), "as it is"
    gateway.engine.dispose()


@pytest.mark.parametrize("left", [("3",), ("1", "3"), ("2",)])
def test_an_exported_study_of_which_originals_are_gone_is_held(
    gateway: Gateway, left: tuple[str, ...]
) -> None:
    assert gateway.look(*left) == (State.REJECTED, Reason.ORIGINALS_MISSING)
    assert gateway.ledger.outbox() == ()
    (study,) = gateway.ledger.studies().studies
    assert study.stands


def test_it_goes_on_when_the_missing_ones_come_again(gateway: Gateway) -> None:
    gateway.look("3")
    assert gateway.look("1", "3") == (State.REJECTED, Reason.ORIGINALS_MISSING)
    assert gateway.look("1", "2", "3") == (State.PENDING, None)
    gateway.export("1", "2", "3")
    assert gateway.look("1", "2") == (State.REJECTED, Reason.ORIGINALS_MISSING)


def test_it_goes_on_when_a_person_gives_the_missing_ones_up(gateway: Gateway) -> None:
    gateway.look("3")
    (study,) = gateway.ledger.studies().studies
    assert gateway.ledger.again(study.job_id, revision=study.revision, actor="user ada")
    assert gateway.look("3") == (State.PENDING, None)
    gateway.export("3")
    assert gateway.look("4") == (State.REJECTED, Reason.ORIGINALS_MISSING), "that was for once"


def test_an_addendum_to_what_is_all_there_goes_on(gateway: Gateway) -> None:
    assert gateway.look("1", "2", "3") == (State.PENDING, None)


def test_what_is_deleted_after_the_look_holds_the_study_before_anything_is_sent(
    gateway: Gateway,
) -> None:
    gateway.look("1", "2", "3")
    message, attempt = gateway.take()
    assert not gateway.may_export(message, attempt, "2", "3")
    assert gateway.state() == (State.REJECTED, Reason.ORIGINALS_MISSING)
    end = report_of(message, State.EXPORTED, attempt=attempt)
    assert not gateway.ledger.report(end).proceed


def test_an_original_that_came_after_the_look_is_remembered_as_exported(gateway: Gateway) -> None:
    gateway.look("1", "2", "3")
    gateway.export("1", "2", "3", "4")
    assert gateway.look("1", "2", "3") == (State.REJECTED, Reason.ORIGINALS_MISSING)


def test_a_study_that_was_withdrawn_waits_for_nothing(gateway: Gateway) -> None:
    gateway.look("1", "2", "3")
    message, attempt = gateway.take()
    end = report_of(message, State.QUARANTINED, Reason.BURNED_IN_TEXT, attempt=attempt)
    assert gateway.ledger.report(end).proceed
    assert gateway.look("3") == (State.PENDING, None)


def test_one_that_may_be_left_at_a_target_does(gateway: Gateway) -> None:
    gateway.look("1", "2", "3")
    message, attempt = gateway.take()
    end = report_of(
        message,
        State.QUARANTINED,
        Reason.BURNED_IN_TEXT,
        attempt=attempt,
        measures={"targets_not_withdrawn": 1.0},
    )
    assert gateway.ledger.report(end).proceed
    assert gateway.look("3") == (State.REJECTED, Reason.ORIGINALS_MISSING)


def test_of_an_export_of_before_only_the_number_is_known(gateway: Gateway) -> None:
    with Session(gateway.engine) as session, session.begin():
        session.execute(update(StudyRow).values(exported_of=None))
    assert gateway.look("3") == (State.REJECTED, Reason.ORIGINALS_MISSING)
    assert gateway.look("1", "2", "3") == (State.PENDING, None)


def test_a_ledger_of_before_says_what_it_does_not_know(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript(schema_1("sqlite"))
    connection.commit()
    connection.close()
    engine = open_database(f"sqlite:///{path}")
    with Session(engine) as session:
        rows = {row.job_id: row for row in session.query(StudyRow)}
        assert (rows[DONE].exported, rows[DONE].exported_of) == (True, None)
        assert not rows[QUEUED].exported, "at the first revision nothing was exported before"
    engine.dispose()


def _quarantined(gateway: Gateway, reason: Reason) -> None:
    gateway.look("1", "2", "3")
    message, attempt = gateway.take()
    end = report_of(message, State.QUARANTINED, Reason.BURNED_IN_TEXT, attempt=attempt)
    assert gateway.ledger.report(end).proceed
    assert gateway.ledger.turn_away(
        message.job_id, revision=message.revision, actor="user ada", reason=reason
    )


def test_no_consent_outlives_new_images_until_somebody_tries_again(gateway: Gateway) -> None:
    _quarantined(gateway, Reason.NO_CONSENT)
    for held in (("1", "2", "3", "4"), ("5",)):
        assert gateway.look(*held) == (State.REJECTED, Reason.NO_CONSENT)
    assert gateway.ledger.due() == ()
    assert gateway.look("6", refused=Reason.NO_RULE_MATCHES)[1] is Reason.NO_CONSENT
    (study,) = gateway.ledger.studies().studies
    assert gateway.ledger.again(study.job_id, revision=study.revision, actor="user ada")
    assert gateway.look("1") == (State.PENDING, None)


def test_what_was_not_needed_is_looked_at_when_more_of_it_comes(gateway: Gateway) -> None:
    _quarantined(gateway, Reason.NOT_NEEDED)
    assert gateway.look("1", "2", "3", "4") == (State.PENDING, None)


@pytest.mark.parametrize("reason", [Reason.NO_CONSENT, Reason.NOT_NEEDED])
def test_a_rule_for_old_rows_forgets_no_want_of_consent(gateway: Gateway, reason: Reason) -> None:
    _quarantined(gateway, reason)
    gateway.clock.move(100 * 86400)
    forgotten = gateway.ledger.forgettable(Rules(ledger=timedelta(days=10)), 10)
    assert forgotten == (() if reason is Reason.NO_CONSENT else (STUDY,))


@pytest.mark.parametrize("how", ["no rule", "unreadable"])
def test_an_export_that_stands_is_told_of_when_the_study_is_rejected(how: str) -> None:
    gateway = Gateway()
    gateway.look("1", targets=("research",))
    gateway.export("1")
    if how == "no rule":
        gateway.look("1", "2", refused=Reason.NO_RULE_MATCHES)
    else:
        gateway.ledger.look_failed(STUDY, ())
    (study,) = gateway.ledger.studies().studies
    assert (study.state, study.targets) == (State.REJECTED, ("research",))
    assert "still stands" in (study.reason_sentence or "")
    gateway.engine.dispose()


def test_of_what_was_never_exported_nothing_stands() -> None:
    gateway = Gateway()
    gateway.look("1", targets=("research",))
    gateway.look("1", "2", refused=Reason.NO_RULE_MATCHES)
    (study,) = gateway.ledger.studies().studies
    assert study.targets == ()
    assert study.reason_sentence == Reason.NO_RULE_MATCHES.sentence
    gateway.engine.dispose()


def test_while_an_export_is_made_anew_it_is_told_that_both_may_stand_at_its_targets(
    gateway: Gateway,
) -> None:
    told = "images of two makings, until an attempt succeeds"

    def sentence() -> str:
        (study,) = gateway.ledger.studies().studies
        return study.reason_sentence or ""

    gateway.look("1", "2", "3")
    assert told not in sentence()  # nothing was begun
    message, attempt = gateway.take()
    assert told in sentence()
    again = report_of(message, State.QUEUED, Reason.TARGET_UNREACHABLE, attempt=attempt)
    assert gateway.ledger.report(again).proceed
    assert sentence().startswith(Reason.TARGET_UNREACHABLE.sentence)
    assert told in sentence()
    attempt = gateway.ledger.report(report_of(message, State.PROCESSING)).attempt
    end = report_of(message, State.EXPORTED, attempt=attempt, instances=3)
    assert gateway.ledger.report(end).proceed
    assert sentence() == ""
