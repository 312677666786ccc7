"""An export that somebody has taken back is taken back, whatever comes in or goes meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from prichexy_plugin import migration
from prichexy_plugin.decisions import AS_TURNED_AWAY
from prichexy_plugin.intake import Decision, Rank
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.pauses import Stage
from prichexy_plugin.records import StudyRecord
from prichexy_plugin.retention import Due, Rules
from prichexy_plugin.schema import StudyRow
from prichexy_plugin.studies import Listed
from prichexy_testing.fake_orthanc import orthanc_id
from prichexy_testing.one_study import STUDY, Gateway, originals
from prichexy_testing.plugin_fakes import report_of
from prichexy_worker.contract import MAX_ATTEMPTS, Errand, Reason, State, StudyMessage
from prichexy_worker.retry import LIMITS, Blame, Circuit

PAUSES = (timedelta(seconds=5),)
NAME = "2.25.17"


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    """Give a gateway whose one study is exported."""
    one = Gateway()
    one.look("1", "2")
    one.export("1", "2")
    yield one
    one.engine.dispose()


def study_of(gateway: Gateway) -> StudyRecord:
    (study,) = gateway.ledger.studies(study_id=STUDY).studies
    return study


def order(gateway: Gateway, reason: Reason = Reason.WITHDRAWN_WRONG) -> bool:
    study = study_of(gateway)
    return gateway.ledger.order_withdrawal(
        study.job_id, revision=study.revision, actor="user ada", reason=reason
    )


def ends(gateway: Gateway, state: State, reason: Reason, **said: Any) -> None:
    """Have a worker take the withdrawal and report this."""
    message, attempt = gateway.take()
    assert message.errand is Errand.WITHDRAW
    gateway.ledger.sent(message)
    assert gateway.ledger.report(report_of(message, state, reason, attempt=attempt, **said)).proceed


def is_done(gateway: Gateway) -> None:
    ends(gateway, State.REJECTED, Reason.WITHDRAWN)


def is_given_back(gateway: Gateway) -> None:
    ends(gateway, State.QUEUED, Reason.TARGET_UNREACHABLE, target="export")


def fails(gateway: Gateway) -> None:
    left = {"targets_not_withdrawn": 1.0}
    ends(gateway, State.FAILED, Reason.TARGET_REFUSED, measures=left, left_at=("export",))


def stays_unreadable(gateway: Gateway) -> None:
    for _ in range(1 + len(PAUSES)):
        gateway.ledger.look_failed(STUDY, PAUSES)


def waits(_gateway: Gateway) -> None:
    pass


def is_claimed(gateway: Gateway) -> None:
    gateway.take()


def is_killed_midway(one: Gateway, message: StudyMessage, name: str = NAME) -> None:
    """Have a worker die after it began to send the study to its targets."""
    attempt = one.ledger.report(report_of(message, State.PROCESSING)).attempt
    said: dict[str, Any] = {"attempt": attempt, "originals": originals("1"), "images": ("ab" * 8,)}
    asks = report_of(message, State.PROCESSING, **said, study_uid=name)
    assert one.ledger.report(asks).proceed


def is_claimed_too_often(one: Gateway, message: StudyMessage) -> None:
    while one.ledger.report(report_of(message, State.PROCESSING)).proceed:
        pass


def is_claimed_by_nobody(one: Gateway, message: StudyMessage) -> None:
    for _ in range(2 * MAX_ATTEMPTS):
        one.clock.move(86400)
        one.ledger.recall(timedelta(hours=2))
        one.ledger.sent(message)


def is_gone(one: Gateway, _message: StudyMessage) -> None:
    one.ledger.gone(STUDY)


def comes_to_no_rule(one: Gateway, _message: StudyMessage) -> None:
    one.look("1", "2", refused=Reason.NO_RULE_MATCHES)


UNDONE = pytest.mark.parametrize("meanwhile", [waits, is_claimed, is_given_back, fails])
HAPPENINGS: dict[str, Callable[[Gateway], object]] = {
    "one more image": lambda one: one.look("1", "2", "3"),
    "a missing original": lambda one: one.look("1", "3"),
    "no rule any more": lambda one: one.look("1", "2", "3", refused=Reason.NO_RULE_MATCHES),
    "it is gone": lambda one: one.ledger.gone(STUDY),
    "unreadable": stays_unreadable,
}


@UNDONE
@pytest.mark.parametrize("happening", HAPPENINGS)
def test_nothing_that_comes_in_or_goes_drops_a_withdrawal(
    gateway: Gateway, meanwhile: Callable[[Gateway], None], happening: str
) -> None:
    assert order(gateway)
    meanwhile(gateway)
    before = study_of(gateway)
    HAPPENINGS[happening](gateway)
    after = study_of(gateway)
    assert (after.state, after.revision, after.orders) == (
        before.state,
        before.revision,
        before.orders,
    )
    assert {message.errand for message in gateway.ledger.outbox()} <= {Errand.WITHDRAW}
    if after.state is State.FAILED:
        assert gateway.ledger.again(after.job_id, revision=after.revision, actor="user omar")
        is_done(gateway)
        assert gateway.state() == (State.REJECTED, Reason.WITHDRAWN_WRONG)


def test_what_came_in_meanwhile_is_looked_at_when_the_withdrawal_is_done(gateway: Gateway) -> None:
    order(gateway)
    gateway.look("1", "2", "3")
    assert gateway.ledger.due() == ()
    is_done(gateway)
    assert gateway.ledger.due() == (STUDY,)
    assert gateway.look("1", "2", "3") == (State.PENDING, None)
    gateway.export("1", "2", "3")


def test_what_came_in_and_could_not_be_read_is_looked_at_until_it_can_be(gateway: Gateway) -> None:
    order(gateway)
    stays_unreadable(gateway)
    for _ in range(24):
        assert gateway.ledger.due() == ()
        gateway.clock.move(3600)
        assert gateway.ledger.due() == (STUDY,)
        gateway.ledger.look_failed(STUDY, PAUSES)
    assert gateway.ledger.unreadable() == 1
    is_done(gateway)
    assert gateway.state() == (State.REJECTED, Reason.WITHDRAWN_WRONG)
    gateway.clock.move(3600)
    assert gateway.ledger.due() == (STUDY,)
    assert gateway.look("1", "2") == (State.REJECTED, Reason.WITHDRAWN_WRONG), "nothing came in"
    assert gateway.ledger.unreadable() == 0
    stays_unreadable(gateway)
    assert gateway.look("1", "2", "3") == (State.PENDING, None)


@pytest.mark.parametrize("reason", sorted(AS_TURNED_AWAY))
def test_what_came_in_for_a_study_that_was_turned_away_is_judged_when_it_can_be_read(
    gateway: Gateway, reason: Reason
) -> None:
    gateway.look("1", "2", "3")
    message, attempt = gateway.take()
    end = report_of(message, State.QUARANTINED, Reason.COLOUR, attempt=attempt)
    assert gateway.ledger.report(end).proceed
    study = study_of(gateway)
    assert gateway.ledger.turn_away(
        study.job_id, revision=study.revision, actor="user omar", reason=reason
    )
    stays_unreadable(gateway)
    gateway.clock.move(3600)
    lasts = reason is Reason.NO_CONSENT
    assert gateway.ledger.due() == (() if lasts else (STUDY,))
    assert gateway.look("1", "2", "3") == (State.REJECTED, reason), "with what it was turned away"
    stays_unreadable(gateway)
    new = gateway.look("1", "2", "3", "4")
    assert new == ((State.REJECTED, reason) if lasts else (State.PENDING, None))


def test_where_nothing_came_in_a_withdrawn_study_is_left_alone(gateway: Gateway) -> None:
    order(gateway)
    gateway.look("1", "2")
    is_done(gateway)
    assert gateway.ledger.due() == ()
    assert gateway.look("1", "2") == (State.REJECTED, Reason.WITHDRAWN_WRONG)


@pytest.mark.parametrize("early", [False, True])
def test_an_export_withdrawn_for_want_of_consent_stays_withdrawn(
    gateway: Gateway, early: bool
) -> None:
    order(gateway, Reason.WITHDRAWN_CONSENT)
    if early:
        gateway.look("1", "2", "3")
    is_done(gateway)
    for held in (("1", "2", "3"), ("4",), ("1", "2")):
        assert gateway.look(*held) == (State.REJECTED, Reason.WITHDRAWN_CONSENT)
    assert gateway.look("5", refused=Reason.NO_RULE_MATCHES)[1] is Reason.WITHDRAWN_CONSENT
    assert gateway.ledger.due() == ()
    study = study_of(gateway)
    assert gateway.ledger.again(study.job_id, revision=study.revision, actor="user ada")
    assert gateway.look("1", "2") == (State.PENDING, None)


@pytest.mark.parametrize("reason", [Reason.WITHDRAWN_CONSENT, Reason.WITHDRAWN_FAULTY])
def test_a_rule_for_old_rows_forgets_no_withdrawal_for_want_of_consent(
    gateway: Gateway, reason: Reason
) -> None:
    order(gateway, reason)
    is_done(gateway)
    gateway.clock.move(100 * 86400)
    rules = Rules(ledger=timedelta(days=10))
    lasts = reason is Reason.WITHDRAWN_CONSENT
    assert gateway.ledger.forgettable(rules, 10) == (() if lasts else (STUDY,))
    assert gateway.ledger.forget(STUDY, rules) is not lasts


@pytest.mark.parametrize("reason", [Reason.WITHDRAWN_CONSENT, Reason.WITHDRAWN_FAULTY])
def test_a_rule_for_old_rows_forgets_no_withdrawal_that_failed(
    gateway: Gateway, reason: Reason
) -> None:
    order(gateway, reason)
    fails(gateway)
    gateway.clock.move(100 * 86400)
    rules = Rules(ledger=timedelta(days=10))
    assert gateway.ledger.forgettable(rules, 10) == ()
    assert not gateway.ledger.forget(STUDY, rules)


@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("state", [State.QUARANTINED, State.FAILED])
def test_a_rule_for_old_rows_forgets_nothing_that_may_be_left_at_a_target(
    gateway: Gateway, state: State, left: bool
) -> None:
    gateway.look("1", "2", "3")
    message, attempt = gateway.take()
    said: dict[str, Any] = {"measures": {"targets_not_withdrawn": 1.0}, "left_at": ("export",)}
    end = report_of(message, state, Reason.COLOUR, attempt=attempt, **(said if left else {}))
    assert gateway.ledger.report(end).proceed
    gateway.clock.move(100 * 86400)
    rules = Rules(ledger=timedelta(days=10))
    assert gateway.ledger.forgettable(rules, 10) == (() if left else (STUDY,))
    assert gateway.ledger.forget(STUDY, rules) is not left


def test_a_withdrawal_that_failed_is_turned_away_by_nobody(gateway: Gateway) -> None:
    order(gateway, Reason.WITHDRAWN_CONSENT)
    fails(gateway)
    before = study_of(gateway)
    for reason in (Reason.NOT_NEEDED, Reason.NO_CONSENT):
        assert not gateway.ledger.turn_away(
            before.job_id, revision=before.revision, actor="user omar", reason=reason
        )
    assert study_of(gateway) == before


def test_want_of_consent_holds_from_when_it_is_said_until_a_person_takes_it_back(
    gateway: Gateway,
) -> None:
    order(gateway, Reason.WITHDRAWN_CONSENT)
    assert study_of(gateway).unconsented
    fails(gateway)
    failed = study_of(gateway)
    assert gateway.ledger.again(failed.job_id, revision=failed.revision, actor="user omar")
    assert study_of(gateway).unconsented, "that tried the withdrawal again"
    fails(gateway)
    assert order(gateway, Reason.WITHDRAWN_FAULTY)
    is_done(gateway)
    assert gateway.look("1", "2", "3") == (State.REJECTED, Reason.WITHDRAWN_FAULTY)
    done = study_of(gateway)
    assert gateway.ledger.again(done.job_id, revision=done.revision, actor="user ada")
    assert not study_of(gateway).unconsented
    assert gateway.look("1", "2", "3") == (State.PENDING, None)


def test_who_withdraws_what_somebody_turned_away_for_want_of_consent_does_not_take_that_back(
    gateway: Gateway,
) -> None:
    gateway.look("1", "2", "3")
    message, attempt = gateway.take()
    left = {"targets_not_withdrawn": 1.0}
    end = report_of(message, State.FAILED, Reason.COLOUR, attempt=attempt, measures=left)
    assert gateway.ledger.report(end).proceed
    study = study_of(gateway)
    assert gateway.ledger.turn_away(
        study.job_id, revision=study.revision, actor="user omar", reason=Reason.NO_CONSENT
    )
    assert order(gateway, Reason.WITHDRAWN_FAULTY)
    is_done(gateway)
    assert gateway.look("1", "2", "3", "4") == (State.REJECTED, Reason.WITHDRAWN_FAULTY)


@pytest.mark.parametrize("ended", [is_claimed_too_often, is_claimed_by_nobody, is_gone])
def test_a_ledger_of_before_learns_what_killed_workers_may_have_left(
    ended: Callable[[Gateway, StudyMessage], None],
) -> None:
    one = Gateway()
    one.look("1")
    (message,) = one.ledger.outbox()
    one.ledger.sent(message)
    is_killed_midway(one, message)
    if ended is not is_gone:
        ended(one, message)
    with Session(one.engine) as session, session.begin():
        session.execute(update(StudyRow).values(exported=False, exported_of=None))
        migration._tell_what_may_be_left(session)
    if ended is is_gone:
        ended(one, message)
        fails(one)
    assert study_of(one).can_be_withdrawn
    one.engine.dispose()


@pytest.mark.parametrize("done", [False, True])
def test_a_ledger_of_before_learns_from_its_orders_what_is_not_consented_to(
    gateway: Gateway, done: bool
) -> None:
    order(gateway, Reason.WITHDRAWN_CONSENT)
    (is_done if done else fails)(gateway)
    with Session(gateway.engine) as session, session.begin():
        session.execute(update(StudyRow).values(unconsented=False))
        migration._tell_what_is_not_consented_to(session)
    assert study_of(gateway).unconsented is not done, "then the reason of its end says it"


def rank_of(gateway: Gateway) -> int:
    with Session(gateway.engine) as session:
        return session.get_one(StudyRow, STUDY).rank


def test_a_look_at_the_study_leaves_a_withdrawal_its_precedence(gateway: Gateway) -> None:
    gateway.ledger.pause(Stage.EXPORT, actor="user omar", reason=Reason.PAUSED_WORK)
    order(gateway)
    for held in (("1", "2"), ("1", "2", "3")):
        gateway.look(*held)
        assert rank_of(gateway) == Rank.WITHDRAWAL
        assert len(gateway.ledger.outbox(stops=gateway.ledger.pauses())) == 1
    gateway.clock.move(86400)
    (late,) = gateway.ledger.late(gateway.clock(), broker_reachable=True)
    assert late.cause.value != "export_paused"
    is_done(gateway)


def another(gateway: Gateway, name: str) -> StudyMessage:
    """Have another study taken in, and hand it out."""
    gateway.clock.move(1)
    study = orthanc_id(name)
    gateway.ledger.note({study: gateway.clock()}, cursor=1)
    gateway.ledger.settle(study, Decision(None), content=name, instances=1, present=(study,))
    return next(one for one in gateway.ledger.outbox(200) if one.study_id == study)


def end(gateway: Gateway, message: StudyMessage, state: State, reason: Reason | None) -> None:
    gateway.ledger.sent(message)
    claim = gateway.ledger.report(report_of(message, State.PROCESSING))
    assert claim.proceed
    said = report_of(message, state, reason, attempt=claim.attempt)
    assert gateway.ledger.report(said).proceed


def opened(gateway: Gateway) -> list[Circuit]:
    return [one for one in gateway.ledger.circuits().values() if one.is_open]


def test_what_breaks_results_holds_no_withdrawal(gateway: Gateway) -> None:
    for number in range(LIMITS[Blame.RESULT]):
        message = another(gateway, f"b{number}")
        end(gateway, message, State.QUARANTINED, Reason.CONFORMANCE_BROKEN)
    waiting = another(gateway, "waiting")
    order(gateway)
    (message,) = gateway.ledger.outbox(stops=opened(gateway))
    assert message.errand is Errand.WITHDRAW
    gateway.clock.move(60)
    assert gateway.ledger.probe() == waiting, "a withdrawal would show no result"
    end(gateway, message, State.REJECTED, Reason.WITHDRAWN)
    assert gateway.ledger.probe() == waiting


def test_a_withdrawal_is_the_first_probe_of_a_target_and_not_each(gateway: Gateway) -> None:
    messages = [another(gateway, f"b{number}") for number in range(3)]
    for message in messages:
        end(gateway, message, State.QUEUED, Reason.TARGET_UNREACHABLE)
        gateway.ledger.recall(timedelta(0))
    for number in range(3):
        another(gateway, f"c{number}")
    assert len(opened(gateway)) == 1
    order(gateway)
    errands = []
    for _ in range(4):
        gateway.clock.move(3600)
        probe = gateway.ledger.probe()
        assert probe is not None
        errands.append(probe.errand)
        end(gateway, probe, State.QUEUED, Reason.TARGET_REFUSED)
        gateway.ledger.recall(timedelta(0))
    assert errands == [Errand.WITHDRAW, Errand.ANONYMIZE] * 2


def test_a_claim_that_ends_a_study_says_of_no_export_that_it_is_gone(gateway: Gateway) -> None:
    gateway.look("1", "2", "3")
    (message,) = gateway.ledger.outbox()
    gateway.ledger.sent(message)
    while gateway.ledger.report(report_of(message, State.PROCESSING)).proceed:
        pass
    assert gateway.state() == (State.FAILED, Reason.TOO_MANY_ATTEMPTS)
    assert study_of(gateway).stands
    assert gateway.look("1", "3", "4") == (State.REJECTED, Reason.ORIGINALS_MISSING)


def export(gateway: Gateway, name: str, *held: str, key_id: str = "") -> None:
    """Have the study exported by a worker that tells its name at the targets."""
    message, attempt = gateway.take()
    said = {"attempt": attempt, "key_id": key_id}
    told = {"originals": originals(*held), "study_uid": name}
    assert gateway.ledger.report(report_of(message, State.PROCESSING, **said, **told)).proceed
    end = report_of(message, State.EXPORTED, **said, instances=len(held))
    assert gateway.ledger.report(end).proceed


def test_a_claim_to_withdraw_tells_each_name_and_no_other_claim_does(gateway: Gateway) -> None:
    for name, held in ((NAME, ("1", "2", "3")), ("2.25.18", ("1", "2", "3", "4"))):
        gateway.look(*held)
        export(gateway, name, *held)
    assert "2.25" not in repr([line.details for line in gateway.ledger.lines()])
    order(gateway)
    (message,) = gateway.ledger.outbox()
    claim = gateway.ledger.report(report_of(message, State.PROCESSING))
    assert claim.study_uids == (NAME, "2.25.18")
    done = report_of(message, State.REJECTED, Reason.WITHDRAWN, attempt=claim.attempt)
    assert gateway.ledger.report(done).proceed
    assert not study_of(gateway).named, "nothing stands under it any more"
    gateway.look("1")
    (message,) = gateway.ledger.outbox()
    assert gateway.ledger.report(report_of(message, State.PROCESSING)).study_uids == ()


@pytest.mark.parametrize("targets", [("research",), ()])
@pytest.mark.parametrize(
    ("ended", "sent"),
    [
        *(
            (ended, sent)
            for ended in (is_claimed_too_often, is_claimed_by_nobody)
            for sent in (True, False)
        ),
        (is_gone, False),
        (comes_to_no_rule, False),
    ],
)
def test_what_a_killed_worker_left_is_told_and_can_be_withdrawn(
    *, sent: bool, ended: Callable[[Gateway, StudyMessage], None], targets: tuple[str, ...]
) -> None:
    one = Gateway()
    one.look("1", targets=targets)
    (message,) = one.ledger.outbox()
    one.ledger.sent(message)
    if sent:
        is_killed_midway(one, message)
    else:
        one.ledger.report(report_of(message, State.PROCESSING))
    ended(one, message)
    study = study_of(one)
    assert study.state in (State.FAILED, State.REJECTED)
    assert study.reason is not None
    told = study.reason_sentence != study.reason.sentence
    assert (study.stands, study.can_be_withdrawn, told) == (sent, sent, sent)
    if study.state is State.FAILED:
        assert study.left_at == (targets if sent else ())
    one.clock.move(100 * 86400)
    assert (STUDY in one.ledger.forgettable(Rules(ledger=timedelta(days=10)), 10)) is not sent
    one.ledger.note_originals_gone(due_of(one))
    assert study_of(one).can_be_withdrawn is sent, "by its name"
    if sent:
        assert order(one)
        is_done(one)
        assert not study_of(one).stands
    one.engine.dispose()


REFUSED: dict[Reason, Callable[[Gateway], object]] = {
    Reason.NO_RULE_MATCHES: lambda one: one.look("1", "2", refused=Reason.NO_RULE_MATCHES),
    Reason.COPY_OF_A_STUDY: lambda one: one.look("1", refused=Reason.COPY_OF_A_STUDY),
    Reason.GONE: lambda one: one.ledger.gone(STUDY),
    Reason.UNREADABLE: lambda one: one.ledger.look_failed(STUDY, ()),
}
REJECTED = pytest.mark.parametrize("reason", sorted(REFUSED))


def killed_midway(name: str = NAME) -> Gateway:
    """Give a gateway whose worker died after it began to send its one study."""
    one = Gateway()
    one.look("1", targets=("research",))
    (message,) = one.ledger.outbox()
    one.ledger.sent(message)
    is_killed_midway(one, message, name)
    return one


@REJECTED
@pytest.mark.parametrize("given_up", [False, True])
def test_what_a_killed_worker_left_is_taken_back_before_the_study_is_rejected(
    reason: Reason, *, given_up: bool
) -> None:
    one = killed_midway()
    if given_up and reason is not Reason.GONE:
        is_claimed_too_often(one, StudyMessage(study_of(one).job_id, STUDY, 1))
    REFUSED[reason](one)
    study = study_of(one)
    assert (study.state, study.reason, study.revision) == (State.PENDING, reason, 2)
    assert (study.orders.errand, study.targets) == (Errand.WITHDRAW, ("research",))
    message, attempt = one.take()
    claim = one.ledger.report(report_of(message, State.PROCESSING))
    assert (claim.study_uids, claim.images) == ((NAME,), ("ab" * 8,))
    done = report_of(message, State.REJECTED, Reason.WITHDRAWN, attempt=attempt + 1)
    assert one.ledger.report(done).proceed
    study = study_of(one)
    assert (study.state, study.reason, study.stands) == (State.REJECTED, reason, False)
    assert one.ledger.verdict().standing == ()
    one.engine.dispose()


@REJECTED
def test_one_that_comes_again_while_that_is_taken_back_is_taken_in_afterwards(
    reason: Reason,
) -> None:
    one = killed_midway()
    REFUSED[reason](one)
    assert one.look("1") == (State.PENDING, reason), "the same image as before"
    is_done(one)
    assert one.ledger.due() == (STUDY,)
    assert one.look("1") == (State.PENDING, None)
    one.export("1")
    assert study_of(one).state is State.EXPORTED
    one.engine.dispose()


def test_a_backfill_has_what_no_rule_took_in_looked_at_while_that_is_taken_back() -> None:
    one = killed_midway()
    REFUSED[Reason.NO_RULE_MATCHES](one)
    message, attempt = one.take()
    came = one.clock()
    with Session(one.engine) as session, session.begin():
        session.execute(update(StudyRow).values(last_update=came))
    walk = one.ledger.start_backfill(per_minute=60, total=1, by="me")
    one.ledger.backfill_page(walk, [Listed(STUDY, came)])
    assert one.ledger.due() == (STUDY,), "the rules may be other ones now"
    assert one.look("1", "2")[0] is State.PROCESSING
    done = report_of(message, State.REJECTED, Reason.WITHDRAWN, attempt=attempt)
    assert one.ledger.report(done).proceed
    assert one.ledger.due() == (STUDY,)
    assert one.look("1", "2") == (State.PENDING, None)
    one.engine.dispose()


@REJECTED
def test_where_that_fails_it_is_told_and_can_be_tried_again(reason: Reason) -> None:
    one = killed_midway()
    REFUSED[reason](one)
    fails(one)
    study = study_of(one)
    assert (study.state, study.stands, study.left_at) == (State.FAILED, True, ("export",))
    assert study.is_being_withdrawn
    assert one.ledger.again(study.job_id, revision=study.revision, actor="user ada")
    is_done(one)
    assert study_of(one).state is State.REJECTED
    assert study_of(one).reason is reason
    one.engine.dispose()


@REJECTED
def test_what_nobody_could_name_is_rejected_at_once_and_told_of(reason: Reason) -> None:
    one = killed_midway(name="")
    REFUSED[reason](one)
    study = study_of(one)
    assert study.stands
    if reason in (Reason.GONE, Reason.UNREADABLE):
        assert (study.state, study.reason) == (State.REJECTED, reason)
        assert "or a part of one" in (study.reason_sentence or "")
    else:
        assert study.orders.errand is Errand.WITHDRAW, "by the original"
    one.engine.dispose()


@REJECTED
def test_a_whole_export_stays_when_its_study_is_rejected(gateway: Gateway, reason: Reason) -> None:
    gateway.look("1", "2", "3")
    message, attempt = gateway.take()
    assert gateway.may_export(message, attempt, "1", "2", "3")
    REFUSED[reason](gateway)
    assert gateway.state() == (State.REJECTED, reason)
    assert study_of(gateway).stands


@REJECTED
def test_an_export_of_a_ledger_that_did_not_say_of_what_it_was_stays(
    gateway: Gateway, reason: Reason
) -> None:
    gateway.look("1", "2", "3")
    with Session(gateway.engine) as session, session.begin():
        session.execute(update(StudyRow).values(exported_of=None))
    REFUSED[reason](gateway)
    assert gateway.state() == (State.REJECTED, reason)
    assert study_of(gateway).stands


def due_of(one: Gateway) -> Due:
    """Give the study as the retention rules would find it."""
    study = study_of(one)
    return Due(STUDY, study.state, study.revision, study.updated, "", 1, None, deleting=False)


def test_what_a_killed_worker_left_holds_no_later_export_up() -> None:
    one = Gateway()
    one.look("1", "2")
    (message,) = one.ledger.outbox()
    one.ledger.sent(message)
    is_killed_midway(one, message)
    assert one.look("2", "3") == (State.PENDING, None), "no original is missing: none was exported"
    one.export("2", "3")
    assert study_of(one).stands
    one.engine.dispose()


def test_nothing_stands_of_what_a_later_worker_took_back() -> None:
    one = Gateway()
    one.look("1")
    (message,) = one.ledger.outbox()
    one.ledger.sent(message)
    is_killed_midway(one, message)
    attempt = one.ledger.report(report_of(message, State.PROCESSING)).attempt
    end = report_of(message, State.QUARANTINED, Reason.COLOUR, attempt=attempt)
    assert one.ledger.report(end).proceed
    assert not study_of(one).stands
    assert not study_of(one).can_be_withdrawn
    one.engine.dispose()


@pytest.mark.parametrize("told", [False, True])
def test_an_export_whose_originals_were_deleted_is_withdrawn_by_its_name(
    gateway: Gateway, told: bool
) -> None:
    if told:
        gateway.look("1", "2", "3")
        export(gateway, NAME, "1", "2", "3")
    study = study_of(gateway)
    assert gateway.ledger.order_disposal(
        study.job_id,
        revision=study.revision,
        actor="user ada",
        reason=Reason.DELETED_DONE,
        digests=dict.fromkeys(originals("1", "2"), "0"),
    )
    gateway.ledger.end_disposal(STUDY)
    assert study_of(gateway).can_be_withdrawn is told
    assert order(gateway) is told
    if told:
        is_done(gateway)
        assert gateway.state() == (State.REJECTED, Reason.WITHDRAWN_WRONG)
        assert not order(gateway), "nothing stands any more"


def test_an_export_that_still_stands_is_withdrawn_whatever_became_of_the_study(
    gateway: Gateway,
) -> None:
    assert gateway.look("1", "3") == (State.REJECTED, Reason.ORIGINALS_MISSING)
    assert order(gateway)
    is_done(gateway)
    assert gateway.ledger.due() == (), "nothing new came in"
    assert gateway.ledger.verdict().standing == ()
    assert gateway.look("1", "3", "4") == (State.PENDING, None)


@pytest.mark.parametrize("state", [State.QUARANTINED, State.FAILED])
def test_what_a_target_did_not_let_go_of_can_be_withdrawn_later(
    gateway: Gateway, state: State
) -> None:
    gateway.look("1", "2", "3")
    message, attempt = gateway.take()
    left = {"targets_not_withdrawn": 1.0}
    end = report_of(message, state, Reason.COLOUR, attempt=attempt, measures=left)
    assert gateway.ledger.report(end).proceed
    assert order(gateway)
    is_done(gateway)
    assert not study_of(gateway).stands


@pytest.mark.parametrize("name", [NAME, ""])
def test_a_worker_without_the_former_key_withdraws_what_the_ledger_can_name(
    gateway: Gateway, name: str
) -> None:
    one, other = "1" * 16, "2" * 16
    gateway.look("1", "2", "3")
    export(gateway, name, "1", "2", "3", key_id=one)
    gateway.ledger = Ledger(gateway.engine, gateway.clock, accepted_keys=[other])
    order(gateway)
    (message,) = gateway.ledger.outbox()
    asks = report_of(message, State.PROCESSING, key_id=other)
    claim = gateway.ledger.report(asks)
    done = report_of(message, State.REJECTED, Reason.WITHDRAWN, attempt=claim.attempt, key_id=other)
    assert gateway.ledger.report(done).proceed
    study = study_of(gateway)
    assert (study.state is State.REJECTED, study.stands) == (bool(name), not name)


@pytest.mark.parametrize("state", [State.EXPORTED, State.PROCESSING])
def test_what_a_slow_worker_sent_after_it_was_taken_back_is_told_and_can_be_withdrawn(
    state: State,
) -> None:
    one = Gateway()
    one.look("1")
    message, _attempt = one.take()
    is_killed_midway(one, message)
    attempt = study_of(one).attempts
    one.look("1", "2", refused=Reason.NO_RULE_MATCHES)
    is_done(one)
    assert not study_of(one).stands
    said: dict[str, Any] = {"attempt": attempt, "study_uid": NAME, "key_id": "ab" * 8}
    if state is State.PROCESSING:
        said |= {"originals": originals("1"), "images": ("ab" * 8,)}
    other = report_of(message, State.PROCESSING, **{**said, "images": ("cd" * 8,)})
    assert not one.ledger.report(other).proceed
    assert not study_of(one).stands, "it was never told to send that"
    late = report_of(message, state, instances=1, **said)
    assert not one.ledger.report(late).proceed
    assert study_of(one).named
    study = study_of(one)
    assert (study.state, study.reason) == (State.REJECTED, Reason.NO_RULE_MATCHES)
    assert study.can_be_withdrawn
    assert "still stands" in (study.reason_sentence or "")
    assert order(one)
    is_done(one)
    assert not study_of(one).stands
    one.engine.dispose()


def test_a_part_of_which_something_was_left_is_taken_back_again_with_the_next() -> None:
    one = Gateway()
    for names in (("1",), ("1", "2", "3")):
        one.look(*names)
        message, _attempt = one.take()
        is_killed_midway(one, message)
        assert one.look(*names, "9", refused=Reason.NO_RULE_MATCHES)[0] is State.PENDING
        left = {"targets_not_withdrawn": 1.0}
        ends(one, State.REJECTED, Reason.WITHDRAWN, measures=left, left_at=("export",))
        assert one.state() == (State.REJECTED, Reason.NO_RULE_MATCHES)
        assert study_of(one).stands
    one.engine.dispose()
