"""What was deleted because its use is not consented to is not taken in when it comes again."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from prichexy_plugin import migration
from prichexy_plugin.records import StudyRecord
from prichexy_plugin.retention import Rules
from prichexy_plugin.schema import StudyRow
from prichexy_testing.one_study import STUDY, Gateway, originals
from prichexy_testing.plugin_fakes import report_of
from prichexy_worker.contract import Reason, State

ENDS = pytest.mark.parametrize("gateway", [State.EXPORTED, State.QUARANTINED], indirect=True)
TOLD = "Nothing more of it is taken in"


@pytest.fixture
def gateway(request: pytest.FixtureRequest) -> Iterator[Gateway]:
    """Give a gateway whose one study has come to this end."""
    one = Gateway()
    one.look("1", "2")
    if request.param is State.EXPORTED:
        one.export("1", "2")
    else:
        message, attempt = one.take()
        end = report_of(message, State.QUARANTINED, Reason.COLOUR, attempt=attempt)
        assert one.ledger.report(end).proceed
    yield one
    one.engine.dispose()


def study_of(gateway: Gateway) -> StudyRecord:
    (study,) = gateway.ledger.studies().studies
    return study


def delete(gateway: Gateway, reason: Reason, *held: str) -> None:
    """Have these originals deleted, and none is left."""
    study = study_of(gateway)
    assert gateway.ledger.order_disposal(
        study.job_id,
        revision=study.revision,
        actor="user ada",
        reason=reason,
        digests=dict.fromkeys(originals(*held), "0"),
    )
    gateway.ledger.end_disposal(STUDY)


def again(gateway: Gateway) -> bool:
    study = study_of(gateway)
    return gateway.ledger.again(study.job_id, revision=study.revision, actor="user ada")


@ENDS
def test_what_comes_again_changes_nothing_until_somebody_tries_it(gateway: Gateway) -> None:
    ended = gateway.state()
    delete(gateway, Reason.DELETED_CONSENT, "1", "2")
    assert TOLD in (study_of(gateway).reason_sentence or "")
    for held in (("1", "2"), ("1", "2", "3"), ("1",)):
        assert gateway.look(*held) == ended
        assert gateway.ledger.outbox() == ()
        assert gateway.ledger.due() == ()
        assert study_of(gateway).has_originals, "so that they can be deleted once more"
        assert gateway.ledger.verdict().standing == ()
    delete(gateway, Reason.DELETED_CONSENT, "1")
    gateway.look("1", "2")
    study = study_of(gateway)
    assert not gateway.ledger.order_rerun(
        study.job_id, revision=study.revision, actor="user ada", bundle="", strength=1.0
    ), "another model makes nobody consent"
    assert again(gateway)
    assert gateway.state() == (State.PENDING, None)
    assert TOLD not in (study_of(gateway).reason_sentence or "")
    assert gateway.look("1", "2", "3") == (State.PENDING, None)


@ENDS
@pytest.mark.parametrize("reason", [Reason.DELETED_DONE, Reason.DELETED_WRONG])
def test_what_was_deleted_for_another_reason_is_taken_in_again(
    gateway: Gateway, reason: Reason
) -> None:
    delete(gateway, reason, "1", "2")
    assert gateway.look("1", "2", "3") == (State.PENDING, None)


@ENDS
def test_it_is_not_forgotten(gateway: Gateway) -> None:
    delete(gateway, Reason.DELETED_CONSENT, "1", "2")
    gateway.clock.move(100 * 86400)
    rules = Rules(ledger=timedelta(days=10))
    assert gateway.ledger.forgettable(rules, 10) == ()
    assert not gateway.ledger.forget(STUDY, rules)


@ENDS
@pytest.mark.parametrize("tried", [False, True])
def test_a_ledger_of_before_learns_it_from_its_trail(gateway: Gateway, tried: bool) -> None:
    delete(gateway, Reason.DELETED_CONSENT, "1", "2")
    gateway.look("1", "2")
    if tried:
        assert again(gateway)
    with Session(gateway.engine) as session, session.begin():
        session.execute(update(StudyRow).values(unconsented=False))
        migration._tell_what_is_not_consented_to(session)
    assert study_of(gateway).unconsented is not tried
