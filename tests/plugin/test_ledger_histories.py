"""Any order of arrivals, decisions, sendings and reports leaves a legal ledger."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule
from pydantic import SecretStr
from sqlalchemy import Engine

from prichexy_plugin.database import open_database
from prichexy_plugin.intake import PRIORITIES, Decision, Rank
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.records import StudyRecord
from prichexy_plugin.retention import Rules
from prichexy_plugin.stops import concerns
from prichexy_plugin.transitions import LEGAL
from prichexy_testing.fake_orthanc import orthanc_id
from prichexy_testing.plugin_fakes import FakeClock, announcement_of, report_of
from prichexy_testing.servers import PostgresServer
from prichexy_worker.contract import (
    ENDED,
    MAX_CLAIMS,
    REPORTABLE,
    Errand,
    Reason,
    State,
    StudyMessage,
)
from prichexy_worker.retry import RETRIABLE

STUDIES = st.sampled_from([orthanc_id(name) for name in "abcd"])
WORKERS = st.sampled_from(["worker-1", "worker-2"])
CONTENTS = st.sampled_from(["c1", "c2", "c3"])
DECISIONS = st.builds(
    Decision,
    reason=st.none(),
    targets=st.sampled_from([(), (), ("one",), ("one", "two")]),
    priority=st.sampled_from(PRIORITIES),
    source=st.sampled_from(["", "CR1"]),
)


class Histories(RuleBasedStateMachine):
    """Plays Orthanc, the broker and workers that may do anything at any time, also twice."""

    messages: Bundle[StudyMessage] = Bundle("messages")

    @initialize(target=messages, decision=DECISIONS)
    def open(self, decision: Decision) -> StudyMessage:
        """Begin with one study that was handed out: chance alone seldom comes that far."""
        self.clock = FakeClock()
        self.engine = self.opened()
        self.ledger = Ledger(self.engine, self.clock)
        self.cursor = 0
        self.revisions: dict[str, int] = {}
        self.claims: dict[str, tuple[StudyMessage, int]] = {}
        #: The studies of which somebody has said that their use is not consented to.
        self.unconsented: set[str] = set()
        study = orthanc_id("a")
        self.ledger.note({study: self.clock()}, cursor=self.cursor)
        self.ledger.settle(study, decision, content="c1", instances=1)
        [message] = self.ledger.outbox()
        self.ledger.sent(message)
        return message

    def opened(self) -> Engine:
        """Open an empty ledger."""
        return open_database("sqlite://")

    def teardown(self) -> None:
        if hasattr(self, "engine"):
            self.engine.dispose()

    @rule(study=STUDIES)
    def something_arrives(self, study: str) -> None:
        self.cursor += 1
        self.ledger.note({study: self.clock()}, cursor=self.cursor)

    @rule(content=CONTENTS, decision=DECISIONS)
    def the_due_are_taken_in(self, content: str, decision: Decision) -> None:
        for study in self.ledger.due():
            self.ledger.settle(study, decision, content=content, instances=1)

    @rule(reason=st.sampled_from([Reason.NO_RULE_MATCHES, Reason.OWN_OUTPUT]))
    def the_due_are_turned_away(self, reason: Reason) -> None:
        for study in self.ledger.due():
            self.ledger.settle(study, Decision(reason), content="", instances=1)

    @rule()
    def the_due_are_gone(self) -> None:
        for study in self.ledger.due():
            self.ledger.gone(study)

    @rule(target=messages)
    def the_relay_sends(self) -> StudyMessage:
        for message in self.ledger.outbox():
            self.ledger.sent(message)
            return message
        return StudyMessage(job_id="f" * 32, study_id=orthanc_id("x"), revision=1)

    @rule(target=messages)
    def the_relay_sends_a_probe(self) -> StudyMessage:
        message = self.ledger.probe()
        if message is None:
            return StudyMessage(job_id="f" * 32, study_id=orthanc_id("x"), revision=1)
        assert self.ledger.study(message.job_id) is not None
        self.ledger.sent(message)
        return message

    @rule(target=messages)
    def the_relay_dies_after_sending(self) -> StudyMessage:
        for message in self.ledger.outbox():
            return message
        return StudyMessage(job_id="f" * 32, study_id=orthanc_id("x"), revision=1)

    @rule(message=messages, worker=WORKERS)
    def a_worker_claims(self, message: StudyMessage, worker: str) -> None:
        before = self.ledger.study(message.job_id)
        claim = self.ledger.report(report_of(message, State.PROCESSING, worker_id=worker))
        after = self.ledger.study(message.job_id)
        if claim.proceed:
            assert before is not None
            assert after is not None
            assert before.revision == message.revision
            assert after.state is State.PROCESSING
            assert after.attempts == claim.attempt == before.attempts + 1
            self.claims[worker] = (message, claim.attempt)
        elif after is not None and after.state is State.PENDING and after != before:
            assert before is not None
            assert after.attempts == before.attempts, "what is put back costs nothing"
            circuits = self.ledger.circuits().values()
            assert any(circuit.holds(message.job_id, after.targets) for circuit in circuits)
        elif after is not None and after.reason is not Reason.TOO_MANY_ATTEMPTS:
            assert after == before

    @rule(
        worker=WORKERS,
        state=st.sampled_from(sorted(REPORTABLE)),
        reason=st.sampled_from([None, *sorted(RETRIABLE), Reason.BURNED_IN_TEXT]),
        at_fault=st.sampled_from(["", "one", "two"]),
    )
    def a_worker_reports_under_its_claim(
        self, worker: str, state: State, reason: Reason | None, at_fault: str
    ) -> None:
        if worker not in self.claims:
            return
        message, attempt = self.claims[worker]
        before = self.ledger.study(message.job_id)
        events = self.ledger.events(message.job_id)
        report = report_of(
            message, state, reason, worker_id=worker, attempt=attempt, target=at_fault
        )
        claim = self.ledger.report(report)
        after = self.ledger.study(message.job_id)
        if before is None or after is None:
            assert not claim.proceed, "it is forgotten"
            return
        held = (before.revision, before.attempts) == (message.revision, attempt)
        assert held or not claim.proceed, "a claim that another one followed is void"
        if not claim.proceed or state is State.PROCESSING:
            assert after == before
            assert self.ledger.events(message.job_id) == events
        else:
            assert claim.attempt == attempt
            assert after.state is state
            if after != before and state in (State.EXPORTED, State.REJECTED):
                withdrawn = message.errand is Errand.WITHDRAW
                assert withdrawn is (state is State.REJECTED), "it does what it was asked for"

    @rule(
        message=messages,
        worker=WORKERS,
        state=st.sampled_from([State.EXPORTED, State.QUARANTINED, State.QUEUED]),
        reason=st.sampled_from(sorted(RETRIABLE)),
        at_fault=st.sampled_from(["", "one", "two"]),
    )
    def a_worker_comes_to_a_verdict(
        self, message: StudyMessage, worker: str, state: State, reason: Reason, at_fault: str
    ) -> None:
        self.a_worker_claims(message, worker)
        said = {State.EXPORTED: None, State.QUARANTINED: Reason.BURNED_IN_TEXT}.get(state, reason)
        self.a_worker_reports_under_its_claim(worker, state, said, at_fault)

    @rule(message=messages, state=st.sampled_from(sorted(REPORTABLE - {State.PROCESSING})))
    def a_report_without_a_claim_is_void(self, message: StudyMessage, state: State) -> None:
        before = self.ledger.study(message.job_id)
        assert not self.ledger.report(report_of(message, state)).proceed
        after = self.ledger.study(message.job_id)
        if before is not None and after is not None and state is State.EXPORTED:
            # That what it names was sent may be so.
            before = replace(before, stands=before.stands or after.stands)
        assert after == before

    @rule(message=messages, changed=st.sampled_from([0, 0, 0, 1]))
    def somebody_tries_it_again(self, message: StudyMessage, changed: int) -> None:
        before = self.ledger.study(message.job_id)
        seen = 1 if before is None else before.revision + changed
        done = self.ledger.again(message.job_id, revision=seen, actor="user omar")
        after = self.ledger.study(message.job_id)
        assert done is (before is not None and before.state in ENDED and not changed)
        if done and before is not None and not before.is_being_withdrawn:
            self.unconsented.discard(before.study_id)
        if not done:
            assert after == before
        elif before is not None and after is not None and before.state is not State.REJECTED:
            assert (after.state, after.targets) == (State.PENDING, before.targets)
            assert after.revision == before.revision + 1

    @rule(message=messages)
    def somebody_turns_it_away(self, message: StudyMessage) -> None:
        before = self.ledger.study(message.job_id)
        seen = 1 if before is None else before.revision
        done = self.ledger.turn_away(
            message.job_id, revision=seen, actor="user omar", reason=Reason.NOT_NEEDED
        )
        after = self.ledger.study(message.job_id)
        if done:
            assert before is not None
            assert after is not None
            assert not before.is_being_withdrawn
            assert after.reason is Reason.NOT_NEEDED
            if before.state in ENDED:
                assert (after.state, after.measures) == (State.REJECTED, before.measures)
            elif after.state is not State.REJECTED:
                assert before.attempts or before.revision > 1, "something may have been sent"
                assert (after.state, after.orders.errand) == (State.PENDING, Errand.WITHDRAW)
        else:
            assert before is None or not before.can_be_turned_away
            assert after == before

    @rule(
        message=messages, reason=st.sampled_from([Reason.WITHDRAWN_WRONG, Reason.WITHDRAWN_CONSENT])
    )
    def an_administrator_has_its_export_withdrawn(
        self, message: StudyMessage, reason: Reason
    ) -> None:
        before = self.ledger.study(message.job_id)
        seen = 1 if before is None else before.revision
        done = self.ledger.order_withdrawal(
            message.job_id, revision=seen, actor="user ada", reason=reason
        )
        after = self.ledger.study(message.job_id)
        assert done is (before is not None and before.can_be_withdrawn)
        if before is not None and after is not None and done:
            assert (after.state, after.revision) == (State.PENDING, before.revision + 1)
            assert after.orders.errand is Errand.WITHDRAW
            if reason is Reason.WITHDRAWN_CONSENT:
                self.unconsented.add(before.study_id)
        else:
            assert after == before

    @rule(message=messages)
    def an_export_whose_withdrawal_failed_grows_old(self, message: StudyMessage) -> None:
        """What is exported is withdrawn, and that fails. Later somebody turns it away, or not."""
        self.a_worker_comes_to_a_verdict(
            message, "worker-1", State.EXPORTED, Reason.TARGET_REFUSED, ""
        )
        self.an_administrator_has_its_export_withdrawn(message, Reason.WITHDRAWN_CONSENT)
        for anew in self.ledger.outbox():
            if anew.job_id == message.job_id:
                self.a_worker_claims(anew, "worker-1")
                self.a_worker_reports_under_its_claim(
                    "worker-1", State.FAILED, Reason.TARGET_REFUSED, ""
                )
        self.somebody_turns_it_away(message)
        self.what_is_old_is_forgotten()

    @rule()
    def what_is_old_is_forgotten(self) -> None:
        self.clock.move(11 * 86400)
        rules = Rules(ledger=timedelta(days=10))
        for study_id in self.ledger.forgettable(rules, 10):
            (study,) = self.ledger.studies(study_id=study_id).studies
            assert not study.unconsented
            assert not study.is_being_withdrawn
            if self.ledger.forget(study_id, rules):
                del self.revisions[study.job_id]

    @rule(worker=WORKERS)
    def a_worker_announces_itself(self, worker: str) -> None:
        self.ledger.announce(announcement_of(worker))

    @rule()
    def the_due_cannot_be_read(self) -> None:
        for study in self.ledger.due():
            self.ledger.look_failed(study, [timedelta(seconds=5), timedelta(seconds=50)])

    @rule(message=messages)
    def the_note_of_a_sending_comes_late(self, message: StudyMessage) -> None:
        if self.ledger.study(message.job_id) is not None:
            self.ledger.sent(message)

    @rule(seconds=st.integers(0, 4000))
    def time_passes(self, seconds: int) -> None:
        self.clock.move(seconds)

    @rule()
    def the_broker_lost_everything(self) -> None:
        self.ledger.recall(timedelta(minutes=30))

    @invariant()
    def what_is_not_consented_to_is_not_exported(self) -> None:
        known = {study.study_id for study in self.ledger.studies().studies}
        assert self.unconsented <= known, "it would be exported when it comes again"
        for message in self.ledger.outbox():
            wanted = message.errand is Errand.ANONYMIZE
            assert not (wanted and message.study_id in self.unconsented)

    @invariant()
    def the_ledger_is_legal(self) -> None:
        page = self.ledger.studies()
        assert sum(self.ledger.counts().values()) == page.total == len(page.studies)
        for study in page.studies:
            self._the_trail_is_legal_and_ends_where_the_study_is(study)
            assert 0 <= study.attempts - study.excused <= MAX_CLAIMS
            assert 0 <= study.excused <= study.attempts
            unclaimed = study.reason is Reason.TOO_MANY_ATTEMPTS or study.state is State.REJECTED
            if study.state in ENDED | {State.PROCESSING} and not unclaimed:
                assert study.attempts >= 1, "nothing ends in a worker's hands without a claim"
            assert study.revision >= self.revisions.get(study.job_id, 1), "it never goes back"
            self.revisions[study.job_id] = study.revision
        held = [one for one in self.ledger.circuits().values() if one.is_open]
        for message in self.ledger.outbox(stops=held):
            rank = Rank.WITHDRAWAL if message.errand is Errand.WITHDRAW else Rank.NORMAL
            assert not any(concerns(one, message.targets, rank) for one in held), "it has to wait"
        pending = {
            (study.job_id, study.revision) for study in page.studies if study.state is State.PENDING
        }
        assert {(one.job_id, one.revision) for one in self.ledger.outbox()} == pending
        assert self.ledger.verdict().standing == (), "the tables say what the trail says"

    def _the_trail_is_legal_and_ends_where_the_study_is(self, study: StudyRecord) -> None:
        state: State | None = None
        moment = study.first_seen
        for event in self.ledger.events(study.job_id):
            assert event.from_state is state
            assert event.to_state in LEGAL[state]
            assert event.at >= moment
            state, moment = event.to_state, event.at
        assert state is study.state
        assert moment == study.updated


class HistoriesOnPostgreSQL(Histories):
    """The same on a real PostgreSQL."""

    server: ClassVar[PostgresServer]

    def opened(self) -> Engine:
        return open_database(self.server.new_database(), SecretStr(self.server.password))


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)


@pytest.mark.postgres
class TestHistoriesOnPostgreSQL(HistoriesOnPostgreSQL.TestCase):  # type: ignore[misc, name-defined]
    settings = settings(max_examples=5, stateful_step_count=20, deadline=None)

    @pytest.fixture(autouse=True)
    def on_the_server(self, postgres: PostgresServer) -> None:
        HistoriesOnPostgreSQL.server = postgres
