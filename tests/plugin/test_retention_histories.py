"""Whatever arrives, when, and whatever dies: no rule deletes what was not exported, and no export
loses an image because its originals were deleted.

Watcher, ledger and keeper are the real ones. Around them this plays senders who send any instance
at any time, a worker, an Orthanc that goes away in the midst of a deletion, and kills.
"""

from __future__ import annotations

from datetime import timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from prichexy_plugin.chain import verify
from prichexy_plugin.changes import Watcher
from prichexy_plugin.database import open_database
from prichexy_plugin.intake import Rule
from prichexy_plugin.keeper import Keeper
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.pictures import OrthancPictures
from prichexy_plugin.retention import Rules
from prichexy_plugin.studies import OrthancStudies, StudiesUnavailable
from prichexy_testing.fake_orthanc import FakeOrthanc, orthanc_id
from prichexy_testing.plugin_fakes import CHEST, FakeClock, report_of
from prichexy_worker.contract import State, StudyMessage

STUDIES = st.sampled_from(["a", "b"])
INSTANCES = st.sampled_from(["1", "2", "3", "4"])
#: An image with the same UIDs may be another one: the first is that of the beginning.
VERSIONS = st.sampled_from([b"first", b"corrected", b"corrected again"])
#: For exported originals only, so that all else has to be there for ever.
RULES = Rules(originals={State.EXPORTED: timedelta(days=10)}, pictures=timedelta(days=1))

#: Orthanc's ids of instances, and what their files hold.
Files = frozenset[tuple[str, bytes]]


class Retention(RuleBasedStateMachine):
    """Plays all that surrounds the keeper."""

    @initialize()
    def begin(self) -> None:
        self.clock = FakeClock()
        self.orthanc = FakeOrthanc(clock=self.clock)
        self.engine = open_database("sqlite://")
        self.ledger = Ledger(self.engine, self.clock)
        #: By study: what the target holds, and what Orthanc may lose: all that was ever there.
        self.target: dict[str, Files] = {}
        self.sent: dict[str, set[tuple[str, bytes]]] = {}
        #: What any target ever held, and what people deleted in Orthanc.
        self.exported: set[tuple[str, bytes]] = set()
        self.given_up: set[tuple[str, bytes]] = set()
        self.taken: tuple[StudyMessage, Files] | None = None
        self.attempt = 0
        self.the_plugin_is_killed()
        for study in ("a", "b"):
            for instance in ("1", "2"):
                self.an_instance_arrives(study, instance, b"first", replaces=False)
        for _ in range(2):
            self.the_plugin_works()
            self.a_worker_takes_a_study_or_exports_it()
            self.a_worker_takes_a_study_or_exports_it()
        assert len(self.target) == 2

    def teardown(self) -> None:
        if hasattr(self, "engine"):
            self._all_that_is_due_goes()
            self.engine.dispose()

    @rule()
    def the_plugin_is_killed(self) -> None:
        studies = OrthancStudies(self.orthanc)
        rules = (Rule("chest", modality=frozenset({"CR"})),)
        self.watcher = Watcher(
            studies,
            self.ledger,
            rules=rules,
            stable_age=60.0,
            take_existing=True,
            clock=self.clock,
        )
        pictures = OrthancPictures(self.orthanc)
        self.keeper = Keeper(studies, pictures, self.ledger, RULES, self.clock)

    # Few rules, each for several things: of many, an example would try too few together.

    @rule(study=STUDIES, instance=INSTANCES, version=VERSIONS, replaces=st.booleans())
    def an_instance_arrives(
        self, study: str, instance: str, version: bytes, *, replaces: bool
    ) -> None:
        """It comes, or somebody deletes the one that is there and sends it in its place."""
        name = orthanc_id(study, "series", instance)
        there = self.orthanc._instances.get(name)
        if there is not None:
            if not replaces:
                return  # Orthanc keeps the first copy
            self.given_up.add((name, there.content))
            self.orthanc.RestApiDelete(f"/instances/{name}")
        self.orthanc.store(CHEST, study=study, instance=instance, content=version)
        self.sent.setdefault(orthanc_id(study), set()).add((name, version))
        self.given_up.discard((name, version))

    @rule()
    def the_plugin_works(self) -> None:
        self._settle()
        for _ in range(3):
            self.watcher.run_once()

    @rule()
    def a_worker_takes_a_study_or_exports_it(self) -> None:
        if self.taken is not None:
            self._export()
            return
        for message in self.ledger.outbox(limit=1):
            claim = self.ledger.report(report_of(message, State.PROCESSING))
            if claim.proceed:
                self.taken, self.attempt = (message, self._held(message.study_id)), claim.attempt

    def _export(self) -> None:
        assert self.taken is not None
        (message, content), self.taken = self.taken, None
        asks = report_of(message, State.PROCESSING, attempt=self.attempt)
        if not self.ledger.report(asks).proceed or self._held(message.study_id) != content:
            return
        before = {name for name, _ in self.target.get(message.study_id, ())}
        assert before <= {name for name, _ in content}, "no image is lost for a retention rule"
        self.target[message.study_id] = content
        self.exported |= content
        end = report_of(
            message,
            State.EXPORTED,
            attempt=self.attempt,
            instances=len(content),
            measures={"targets_unproved": 0.0},
        )
        self.ledger.report(end)

    @rule(
        before=st.booleans(),
        away_at=st.integers(0, 3),
        arrives=st.booleans(),
        study=STUDIES,
        instance=INSTANCES,
        version=VERSIONS,
        told=st.booleans(),
    )
    def the_keeper_works(
        self,
        *,
        before: bool,
        away_at: int,
        arrives: bool,
        study: str,
        instance: str,
        version: bytes,
        told: bool,
    ) -> None:
        """Days pass. Something arrives before, or after a deletion, or Orthanc goes away at it."""
        if before:
            self.an_instance_arrives(study, instance, version, replaces=False)
        self.clock.move(11 * 86400)
        delete = self.orthanc.RestApiDelete
        calls = 0

        def sometimes(path: str, /) -> bytes:
            nonlocal calls
            calls += 1
            if calls == away_at and not arrives:
                raise self.orthanc.OrthancException(2038, "away")
            answer = delete(path)
            if calls == away_at:
                self.an_instance_arrives(study, instance, version, replaces=False)
                if told:
                    self.watcher.run_once()
            return answer

        self.orthanc.RestApiDelete = sometimes  # type: ignore[method-assign]
        try:
            self.keeper.run_once()
        except StudiesUnavailable:
            pass
        finally:
            self.orthanc.RestApiDelete = delete  # type: ignore[method-assign]

    @rule(version=VERSIONS)
    def a_deletion_is_cut_short_and_what_is_gone_comes_again(self, version: bytes) -> None:
        """It comes with the same ids, and the keeper goes on before the watcher reads of it."""
        self._days_pass(away_at=2)
        for study in ("a", "b"):
            for instance in ("1", "2"):
                if orthanc_id(study, "series", instance) not in self.orthanc._instances:
                    self.an_instance_arrives(study, instance, version, replaces=False)
        self._days_pass()

    def _days_pass(self, away_at: int = 0) -> None:
        self.the_keeper_works(
            before=False,
            away_at=away_at,
            arrives=False,
            study="a",
            instance="1",
            version=b"first",
            told=False,
        )

    @invariant()
    def only_what_the_target_holds_is_gone(self) -> None:
        for study, sent in self.sent.items():
            assert sent - self._held(study) <= self.exported | self.given_up

    @invariant()
    def the_trail_is_whole(self) -> None:
        state = self.ledger.chain_state()
        lines = self.ledger.lines(limit=10_000)
        assert verify(lines, checkpoint=state.checkpoint, head=state.head).whole
        assert self.ledger.verdict().standing == (), "the tables say the same"

    def _settle(self) -> None:
        self.clock.move(61)
        for study in sorted(self.orthanc._updated):
            if study not in self.orthanc.stable:
                self.orthanc.settle(study)

    def _held(self, study_id: str) -> Files:
        members = self.orthanc._instances.items()
        return frozenset((name, one.content) for name, one in members if one.study == study_id)

    def _all_that_is_due_goes(self) -> None:
        """When all works and nothing more comes, every export's originals go at last."""
        for _ in range(30):
            self.the_plugin_works()
            self.a_worker_takes_a_study_or_exports_it()
            self.a_worker_takes_a_study_or_exports_it()
            self.clock.move(11 * 86400)
            self.ledger.recall(timedelta(days=1))
            self.keeper.run_once()
        for study in self.ledger.studies().studies:
            held = self._held(study.study_id)
            if study.state is State.EXPORTED:
                assert not held
            else:
                assert study.state in (State.REJECTED, State.FAILED)
                assert held, "what was not exported, and a part that waits for the rest, stay"


TestRetention = Retention.TestCase
TestRetention.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)
