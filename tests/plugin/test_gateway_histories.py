"""Whatever happens to Orthanc, plugin, broker, workers and target, in any order: when it is over,
every study comes to its end, and is at the target once, whole, and as it is now. What was exported
stays as long as nobody decides otherwise, though its originals are gone, and so does what another
gateway sent.

The watcher, the ledger, the relay and the backfill are the real ones. Around them this plays an
Orthanc that loses its change log and originals, a broker that loses and doubles messages, workers
that are killed at any point, a target that goes away or refuses, another gateway, and people who
turn away what waits, and rules that change.
"""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from prichexy_plugin.backfill import MAX_RATE
from prichexy_plugin.backfiller import Backfiller
from prichexy_plugin.changes import Watcher
from prichexy_plugin.database import open_database
from prichexy_plugin.exports import mark_of
from prichexy_plugin.intake import Rule
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.pauses import Stage, holds
from prichexy_plugin.relay import RECALL_AFTER, Relay
from prichexy_plugin.studies import OrthancStudies
from prichexy_plugin.transitions import LEGAL
from prichexy_testing.fake_orthanc import FakeOrthanc, orthanc_id
from prichexy_testing.plugin_fakes import (
    CHEST,
    FakeBroker,
    FakeClock,
    announcement_of,
    report_of,
)
from prichexy_worker.contract import ENDED, MAX_CLAIMS, Errand, Reason, State, StudyMessage

#: "unsafe" is what workers turn away.
NAMES = ("one", "two", "three", "four", "unsafe")
STUDIES = st.sampled_from(NAMES)
WORKERS = st.sampled_from(["worker-1", "worker-2"])
INSTANCES = st.sampled_from(["1", "2", "3"])
ENDS = ("ends", "is killed after the export", "is killed", "is killed, and the message is lost")
UNSAFE = orthanc_id("unsafe")
WAITS = (State.WATCHED, State.PENDING, State.QUEUED)
RULE = Rule("chest", modality=frozenset({"CR"}))
OTHER_RULE = Rule("others", modality=frozenset({"US"}))


@dataclass
class Work:
    """What a worker has in its hands."""

    message: StudyMessage
    attempt: int
    left: int
    content: frozenset[str]
    may_remove: frozenset[str]


class Everything(RuleBasedStateMachine):
    """Plays all that surrounds the plugin."""

    @initialize(existing=st.booleans(), exported=st.booleans(), named=st.booleans())
    def begin(self, existing: bool, exported: bool, named: bool) -> None:
        self.clock = FakeClock()
        self.orthanc = FakeOrthanc(clock=self.clock)
        self.engine = open_database("sqlite://")
        self.ledger = Ledger(self.engine, self.clock)
        self.broker = FakeBroker()
        self.existing = existing
        self.rules = (RULE,)
        #: Whether workers tell the ledger what they call a study at the target.
        self.named = named
        self.target: dict[str, frozenset[str]] = {}
        #: By study: what was exported and nobody gave up, and what another gateway sent.
        self.exported: dict[str, frozenset[str]] = {}
        self.others: dict[str, frozenset[str]] = {}
        #: The studies that the ledger was told are exported, until they are taken back.
        self.whole: set[str] = set()
        self.target_answers = self.target_takes = True
        self.working: dict[str, Work] = {}
        for study in NAMES:
            self.orthanc.store(CHEST, study=study)
        self._start()
        if existing:
            self.orthanc.stable.update(self.orthanc._updated)
            self.clock.move(60)
            self.the_plugin_works()
        if exported:
            self._all_comes_to_its_end()

    def teardown(self) -> None:
        if hasattr(self, "engine"):
            try:
                self._all_comes_to_its_end()
            finally:
                self.engine.dispose()

    # --- What may happen ----------------------------------------------------------------------
    # Few rules, each for several things: of many, an example would try too few together.

    @rule(
        study=STUDIES,
        instance=INSTANCES,
        told=st.booleans(),
        deleted=st.sampled_from(["nothing", "nothing", "all", "one", "all before"]),
    )
    def a_study_changes(self, study: str, instance: str, told: bool, deleted: str) -> None:
        """An instance arrives, or originals are deleted; with a kill in between nobody is told."""
        study_id = orthanc_id(study)
        held = self._held(study_id)
        if deleted == "one" and len(held) > 1:
            self.orthanc.RestApiDelete(f"/instances/{min(held)}")
            return
        if deleted.startswith("all") and study_id in self.orthanc._updated:
            self.orthanc.delete(study_id)
            if deleted == "all":
                return
        self.orthanc.store(CHEST, study=study, instance=instance)
        self.clock.move(60)
        if told:
            self.orthanc.settle(study_id)
        else:
            self.orthanc.stable.add(study_id)

    @rule(backfilled=st.booleans())
    def the_change_log_is_emptied(self, backfilled: bool) -> None:
        self.orthanc.changes.clear()
        if backfilled:
            self.ledger.start_backfill(per_minute=MAX_RATE, total=5, by="me")

    @rule()
    def the_rules_change(self) -> None:
        self.rules = (OTHER_RULE,) if self.rules == (RULE,) else (RULE,)
        self._start()

    @rule()
    def the_plugin_works(self) -> None:
        self.watcher.run_once()
        self.watcher.run_once()
        self.backfiller.run_once()
        self.relay.run_once()

    @rule(sent=st.booleans())
    def the_plugin_is_killed(self, sent: bool) -> None:
        for message in self.ledger.outbox(limit=1):
            if sent and not self.broker.down:
                self.broker.send(message)
        self._start()

    @rule(what=st.sampled_from(["goes", "comes", "loses one", "loses all", "doubles one"]))
    def the_broker(self, what: str) -> None:
        if what in ("goes", "comes"):
            self.broker.down = what == "goes"
        elif what == "doubles one":
            self.broker.messages += self.broker.messages[:1]
        else:
            del self.broker.messages[: 1 if what == "loses one" else None]

    @rule(study=STUDIES)
    def another_gateway_sends_an_image_of_a_study(self, study: str) -> None:
        study_id = orthanc_id(study)
        self.others[study_id] = frozenset({orthanc_id(study, "series", "theirs")})
        self.target[study_id] = self.target.get(study_id, frozenset()) | self.others[study_id]

    @rule(study=STUDIES)
    def somebody_gives_up_the_missing_originals(self, study: str) -> None:
        for one in self.ledger.studies().studies:
            if (one.study_id, one.reason) == (orthanc_id(study), Reason.ORIGINALS_MISSING):
                assert self.ledger.again(one.job_id, revision=one.revision, actor="user me")
                self.exported.pop(one.study_id, None)

    @rule(study=STUDIES)
    def somebody_turns_away_what_waits(self, study: str) -> None:
        for one in self.ledger.studies().studies:
            if one.study_id == orthanc_id(study) and one.state in WAITS:
                done = self.ledger.turn_away(
                    one.job_id, revision=one.revision, actor="user me", reason=Reason.NO_CONSENT
                )
                assert done is not one.is_being_withdrawn

    @rule(answers=st.booleans(), takes=st.booleans())
    def the_target_goes_or_comes(self, answers: bool, takes: bool) -> None:
        self.target_answers, self.target_takes = answers, takes

    @rule(stage=st.sampled_from(Stage))
    def somebody_pauses_or_lets_go_on(self, stage: Stage) -> None:
        pauses = [one for one in self.ledger.pauses() if one.stage is stage]
        for pause in pauses:
            assert self.ledger.resume(stage, actor="user me", since=pause.since)
        if not pauses:
            assert self.ledger.pause(stage, actor="user me", reason=Reason.PAUSED_WORK)

    @rule(
        seconds=st.sampled_from([1, 40, 200, 1000, int(RECALL_AFTER.total_seconds()) + 1]),
        alive=st.sets(WORKERS),
    )
    def time_passes(self, seconds: int, alive: set[str]) -> None:
        self.clock.move(seconds)
        for worker in sorted(alive):
            self.ledger.announce(announcement_of(worker))

    @rule(worker=WORKERS, what=st.sampled_from(ENDS))
    def a_worker_takes_a_study_or_comes_to_an_end_with_it(self, worker: str, what: str) -> None:
        if worker not in self.working:
            self._take(worker)
        elif what in ("is killed", "is killed, and the message is lost"):
            work = self.working.pop(worker)
            if what == "is killed":
                self.broker.messages.append(work.message)
        else:
            self._go_on(worker, killed=what == "is killed after the export")

    @rule(worker=WORKERS, gone=st.booleans())
    def a_worker_is_killed_after_the_export_and_the_study_is_refused(
        self, worker: str, gone: bool
    ) -> None:
        """No rule takes it in any more, or it is gone: chance alone seldom comes that far."""
        if worker not in self.working:
            self._take(worker)
        if worker not in self.working:
            return
        study_id = self.working[worker].message.study_id
        self._go_on(worker, killed=True)
        (study,) = (name for name in NAMES if orthanc_id(name) == study_id)
        self.orthanc.store(CHEST, study=study, instance="3")
        self.clock.move(60)
        self.orthanc.settle(study_id)
        if gone:
            self.orthanc.delete(study_id)
        elif self.rules == (RULE,):
            self.the_rules_change()
        self.the_plugin_works()

    # --- What always holds --------------------------------------------------------------------

    @invariant()
    def every_trail_is_legal_and_ends_where_its_study_is(self) -> None:
        for study in self.ledger.studies().studies:
            state: State | None = None
            for event in self.ledger.events(study.job_id):
                assert event.from_state is state
                assert event.to_state in LEGAL[state]
                state = event.to_state
            assert state is study.state
            assert study.attempts - study.excused <= MAX_CLAIMS

    @invariant()
    def what_is_called_exported_is_at_the_target(self) -> None:
        for study in self.ledger.studies(state=State.EXPORTED).studies:
            assert study.study_id in self.target
            assert study.study_id != UNSAFE

    @invariant()
    def nothing_is_lost_at_the_target_that_nobody_gave_up(self) -> None:
        for kept in (self.exported, self.others):
            for study_id, images in kept.items():
                assert images <= self.target.get(study_id, frozenset())

    @invariant()
    def what_is_at_the_target_is_known_to_stand_there(self) -> None:
        for study in self.ledger.studies().studies:
            ours = self.target.get(study.study_id, frozenset())
            assert study.stands or ours <= self.others.get(study.study_id, frozenset())

    @invariant()
    def of_what_the_plugin_rejected_no_part_stands_that_a_worker_could_take_back(self) -> None:
        for study in self.ledger.studies(state=State.REJECTED).studies:
            gone = study.reason is Reason.GONE
            if study.reason is Reason.NO_RULE_MATCHES or (gone and self.named):
                ours = self.target.get(study.study_id, frozenset()) - self.others.get(
                    study.study_id, frozenset()
                )
                assert not ours or study.study_id in self.whole, "a whole export stays"

    # --- Inside -------------------------------------------------------------------------------

    def _start(self) -> None:
        studies = OrthancStudies(self.orthanc)
        self.watcher = Watcher(
            studies,
            self.ledger,
            rules=self.rules,
            stable_age=60.0,
            take_existing=self.existing,
            clock=self.clock,
        )
        self.relay = Relay(self.ledger, self.broker, self.clock, at_least=256)
        self.backfiller = Backfiller(studies, self.ledger, self.clock)

    def _take(self, worker: str) -> None:
        if not self.broker.messages:
            return
        message = self.broker.messages.pop(0)
        claim = self.ledger.report(report_of(message, State.PROCESSING, worker_id=worker))
        assert not (claim.proceed and holds(self.ledger.pauses(), message.targets))
        if claim.proceed:
            content = self._held(message.study_id)
            self.working[worker] = Work(
                message, claim.attempt, claim.left, content, frozenset(claim.images)
            )

    def _go_on(self, worker: str, *, killed: bool) -> None:
        """With ``killed``, it dies after all that it does at the target, before it says so."""
        work = self.working.pop(worker)
        state, reason = self._do(worker, work)
        if state is None:
            return
        if not killed:
            self._tell(worker, work, state, reason)
        if killed or state is State.QUEUED:
            self.broker.messages.append(work.message)

    def _held(self, study_id: str) -> frozenset[str]:
        members = self.orthanc._instances.items()
        return frozenset(name for name, one in members if one.study == study_id)

    def _holds(self, worker: str, work: Work, sends: frozenset[str] = frozenset()) -> bool:
        asks = report_of(
            work.message,
            State.PROCESSING,
            worker_id=worker,
            attempt=work.attempt,
            originals=tuple(sorted(sends)),
            images=tuple(sorted(map(mark_of, sends))),
            study_uid="2.25.1" if sends and self.named else "",
        )
        return self.ledger.report(asks).proceed

    def _do(self, worker: str, work: Work) -> tuple[State | None, Reason | None]:
        """Do what process_study does at the target; the state is None without the claim."""
        study = work.message.study_id
        if not self._holds(worker, work):
            return None, None
        withdraws = work.message.errand is Errand.WITHDRAW
        if withdraws or work.left == 0 or not work.content or study == UNSAFE:
            if not self.target_answers:
                return State.QUEUED, Reason.TARGET_UNREACHABLE
            self._withdraw(study, work.may_remove)
            self.exported.pop(study, None)
            self.whole.discard(study)
            if work.left == 0:
                return State.FAILED, Reason.TOO_MANY_ATTEMPTS
            if withdraws:
                return State.REJECTED, Reason.WITHDRAWN
            if not work.content:
                return State.FAILED, Reason.GONE
            return State.QUARANTINED, Reason.BURNED_IN_TEXT
        if self._held(study) != work.content:
            return State.QUEUED, Reason.CHANGED_MEANWHILE
        if not self.target_answers:
            return State.QUEUED, Reason.TARGET_UNREACHABLE
        if not self.target_takes:
            return State.QUEUED, Reason.TARGET_REFUSED
        if not self._holds(worker, work, work.content):
            return None, None
        before = self.exported.get(study, frozenset())
        assert before <= work.content, "no export loses what nobody gave up"
        self._withdraw(study, work.may_remove)
        self.target[study] = self.target.get(study, frozenset()) | work.content
        self.exported[study] = work.content
        return State.EXPORTED, None

    def _withdraw(self, study: str, marks: frozenset[str]) -> None:
        left = {one for one in self.target.get(study, frozenset()) if mark_of(one) not in marks}
        self.target[study] = frozenset(left)

    def _tell(self, worker: str, work: Work, state: State, reason: Reason | None) -> None:
        report = report_of(work.message, state, reason, worker_id=worker, attempt=work.attempt)
        if self.ledger.report(report).proceed and state is State.EXPORTED:
            self.whole.add(work.message.study_id)

    def _all_comes_to_its_end(self) -> None:
        """Let everything work again, and see where all studies come to."""
        self.target_answers = self.target_takes = True
        self.broker.down = False
        self.rules = (RULE,)
        self._start()
        for pause in self.ledger.pauses():
            self.ledger.resume(pause.stage, actor="user me", since=pause.since)
        self.orthanc.stable.update(self.orthanc._updated)
        self.ledger.start_backfill(per_minute=MAX_RATE, total=len(self.orthanc._updated), by="me")
        for _ in range(400):
            self.clock.move(600)
            while self.watcher.run_once().more or self.backfiller.run_once():
                pass
            self.relay.run_once()
            for worker in ("worker-1", "worker-2"):
                self.ledger.announce(announcement_of(worker))
                if worker in self.working:
                    self._go_on(worker, killed=False)
                self._take(worker)
            backfill = self.ledger.backfill()
            quiet = not self.broker.messages and not self.working
            ended = sum(self.ledger.counts()[state] for state in ENDED)
            walked = backfill is not None and not backfill.running
            all_ended = ended == self.ledger.studies().total
            if quiet and walked and all_ended and not self.ledger.due():
                break
        else:
            raise AssertionError(f"no end: {self.ledger.counts()}")
        known = {study.study_id: study for study in self.ledger.studies().studies}
        for study_id in self.orthanc._updated:
            study = known[study_id]
            if study.state is State.EXPORTED:
                ours = self.target[study_id] - self.others.get(study_id, frozenset())
                assert ours == self._held(study_id), "as it is now"
            elif study.state is State.QUARANTINED:
                assert study_id == UNSAFE
            elif study.unconsented:
                ours = self.target.get(study_id, frozenset()) - self.others.get(
                    study_id, frozenset()
                )
                assert study.state in (State.REJECTED, State.FAILED)
                assert study.stands or not ours, "nobody would know of it"
            elif study.state is State.REJECTED:
                assert study.reason is Reason.ORIGINALS_MISSING
                assert self.exported.get(study_id), "it stands there, and something is missing here"
            else:
                assert study.state is State.FAILED
                assert study.reason in (Reason.TOO_MANY_ATTEMPTS, Reason.GONE)
        ours = self.target.get(UNSAFE, frozenset()) - self.others.get(UNSAFE, frozenset())
        assert not ours
        assert self.ledger.verdict().whole


TestEverything = Everything.TestCase
TestEverything.settings = settings(max_examples=12, stateful_step_count=30, deadline=None)
