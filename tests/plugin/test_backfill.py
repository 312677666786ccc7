"""What was in Orthanc before the gateway is taken in, at a rate, over every interruption."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prichexy_plugin.backfill import (
    DEFAULT_RATE,
    MAX_RATE,
    MOST_PASSES,
    WAITING_LIMIT,
    Backfill,
)
from prichexy_plugin.backfiller import Backfiller, page_size
from prichexy_plugin.changes import Watcher
from prichexy_plugin.database import open_database
from prichexy_plugin.intake import Decision, Rule
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.studies import OrthancStudies
from prichexy_testing.fake_orthanc import FakeOrthanc
from prichexy_testing.plugin_fakes import CHEST, FakeClock, report_of
from prichexy_worker.contract import Reason, State
from prichexy_worker.retry import LIMITS, Blame

NOW = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
CHEST_RULE = Rule("chest", body_part=frozenset({"CHEST"}))


class Gateway:
    """A fake Orthanc that held studies before, and the plugin's side of it."""

    def __init__(self, held: int = 0) -> None:
        self.clock = FakeClock()
        self.orthanc = FakeOrthanc(clock=self.clock)
        self.engine = open_database("sqlite://")
        self.ledger = Ledger(self.engine, self.clock)
        self.rules: tuple[Rule, ...] = (CHEST_RULE,)
        self.held = [self.store(f"old {number}") for number in range(held)]
        self.clock.move(3600)
        self.restart()
        self.watch()

    def store(self, name: str, **tags: str) -> str:
        study = self.orthanc.store({**CHEST, **tags}, study=name)
        self.orthanc.stable.add(study)
        return study

    def restart(self) -> None:
        studies = OrthancStudies(self.orthanc)
        self.watcher = Watcher(
            studies,
            self.ledger,
            rules=self.rules,
            stable_age=60.0,
            take_existing=False,
            clock=self.clock,
        )
        self.backfiller = Backfiller(studies, self.ledger, self.clock)

    def watch(self) -> None:
        while (progress := self.watcher.run_once()).more or progress.looked:
            pass

    def start(self, per_minute: int = DEFAULT_RATE) -> Backfill:
        total = OrthancStudies(self.orthanc).count()
        return self.ledger.start_backfill(per_minute=per_minute, total=total, by="admin")

    def run(self, rounds: int = 1000) -> Backfill:
        """Let everything run, two seconds a round, until the backfill has ended."""
        for _ in range(rounds):
            self.clock.move(2)
            while self.backfiller.run_once():
                pass
            self.watch()
            for message in self.ledger.outbox():
                self.ledger.sent(message)
            if not self.now.running:
                break
        return self.now

    @property
    def now(self) -> Backfill:
        backfill = self.ledger.backfill()
        assert backfill is not None
        return backfill

    def state(self, study_id: str) -> State:
        return self.ledger.studies(study_id=study_id).studies[0].state


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    one = Gateway(held=45)
    yield one
    one.engine.dispose()


def test_what_was_there_before_is_taken_in_once_and_the_walk_ends(gateway: Gateway) -> None:
    assert gateway.ledger.studies().total == 0, "a new ledger begins behind it"
    gateway.start()
    ended = gateway.run()
    assert (ended.total, ended.seen, ended.found, ended.again) == (45, 45, 45, 0)
    assert ended.stopped_by is None
    assert gateway.ledger.counts()[State.QUEUED] == 45
    gateway.start()
    assert gateway.run().found == 0, "a second walk finds nothing new"
    assert {study.revision for study in gateway.ledger.studies().studies} == {1}


@pytest.mark.parametrize("per_minute", [1, 7, 60, 600])
def test_the_rate_holds_from_minute_to_minute(gateway: Gateway, per_minute: int) -> None:
    gateway.start(per_minute)
    before = 0
    for minute in range(1, 6):
        for _ in range(60):
            gateway.clock.move(1)
            while gateway.backfiller.run_once():
                pass
        found = gateway.now.found
        assert found - before <= per_minute + page_size(per_minute)
        assert found >= min(45, per_minute * minute - page_size(per_minute))
        before = found


def test_a_clock_that_was_ahead_and_is_set_right_holds_no_backfill_up(gateway: Gateway) -> None:
    gateway.clock.move(86_400)
    gateway.start()
    gateway.run(rounds=6)
    assert gateway.now.running
    gateway.clock.move(-86_400)
    assert gateway.run(rounds=60).found == 45


def test_after_a_restart_it_goes_on_where_it_was(gateway: Gateway) -> None:
    gateway.start()
    gateway.run(rounds=6)
    assert 0 < gateway.now.seen < 45
    gateway.restart()
    assert gateway.run().seen == 45
    assert gateway.now.number == 1


def test_it_can_be_stopped_and_what_it_brought_goes_on(gateway: Gateway) -> None:
    gateway.start()
    gateway.run(rounds=6)
    gateway.ledger.stop_backfill("admin")
    brought = gateway.now.found
    assert (gateway.now.running, gateway.now.stopped_by) == (False, "admin")
    gateway.run(rounds=5)
    assert gateway.ledger.studies().total == brought
    assert gateway.ledger.counts()[State.QUEUED] == brought


def test_a_second_start_sets_the_rate_of_the_one_under_way(gateway: Gateway) -> None:
    first = gateway.start(1)
    gateway.run(rounds=2)
    again = gateway.start(MAX_RATE)
    assert (again.number, again.per_minute) == (first.number, MAX_RATE)
    assert gateway.run(rounds=3).found == 45


@pytest.mark.parametrize("asked", range(1, MOST_PASSES + 2))
def test_who_asks_while_one_is_under_way_misses_nothing_behind_its_place(
    gateway: Gateway, asked: int
) -> None:
    gateway.start(per_minute=MAX_RATE)
    assert gateway.backfiller.run_once(), "all are read, and the end of the list is not"
    for number in range(asked):
        gateway.clock.move(60)
        name = gateway.orthanc.store(CHEST, study="old 0", instance=f"more {number}")
        gateway.orthanc.stable.add(name)
        gateway.orthanc.changes.clear()
        gateway.start(per_minute=MAX_RATE)
        gateway.clock.move(3600)
        assert gateway.backfiller.run_once()
        assert gateway.backfiller.run_once()
        gateway.watch()
    gateway.run()
    (study,) = gateway.ledger.studies(study_id=gateway.held[0]).studies
    assert study.instances == 1 + asked


def test_what_grew_unseen_and_what_no_rule_took_in_is_looked_at_again(gateway: Gateway) -> None:
    grown = gateway.store("grown")
    hip = gateway.store("hip", BodyPartExamined="HIP")
    same = gateway.store("same")
    gateway.clock.move(120)
    gateway.watch()
    assert gateway.state(hip) is State.REJECTED
    # The change log is emptied while the plugin is away: this instance is told of by nobody.
    gateway.orthanc.store(CHEST, study="grown", instance="late")
    gateway.orthanc.stable.add(grown)
    gateway.ledger.note({}, cursor=gateway.orthanc.changes[-1]["Seq"])
    gateway.rules = (CHEST_RULE, Rule("hip", body_part=frozenset({"HIP"})))
    gateway.restart()
    gateway.clock.move(120)
    gateway.watch()
    assert gateway.ledger.studies(study_id=grown).studies[0].revision == 1
    gateway.start(MAX_RATE)
    ended = gateway.run()
    assert (ended.found, ended.again) == (45, 2)
    assert gateway.ledger.studies(study_id=grown).studies[0].revision == 2
    assert gateway.state(hip) is State.QUEUED
    assert gateway.ledger.studies(study_id=same).studies[0].revision == 1


def test_a_new_arrival_goes_before_what_a_backfill_brought(gateway: Gateway) -> None:
    gateway.start(MAX_RATE)
    while gateway.backfiller.run_once():
        pass
    gateway.watch()
    assert gateway.ledger.counts()[State.PENDING] == 45
    urgent = gateway.store("urgent")
    gateway.clock.move(120)
    gateway.watch()
    assert gateway.ledger.outbox(limit=1)[0].study_id == urgent
    assert len(gateway.ledger.outbox(limit=100)) == 46


def test_it_waits_while_nothing_is_handed_out_and_goes_on_then(gateway: Gateway) -> None:
    for number in range(LIMITS[Blame.SOURCE]):
        gateway.store(f"new {number}")
    gateway.clock.move(120)
    gateway.watch()
    messages = gateway.ledger.outbox()
    for message in messages:
        claim = gateway.ledger.report(report_of(message, State.PROCESSING))
        back = report_of(message, State.QUEUED, Reason.SOURCE_UNREACHABLE, attempt=claim.attempt)
        assert gateway.ledger.report(back).proceed
    gateway.start(MAX_RATE)
    assert not gateway.backfiller.run_once()
    assert gateway.now.seen == 0
    assert not gateway.ledger.report(report_of(messages[0], State.PROCESSING)).proceed
    gateway.clock.move(60)
    probe = gateway.ledger.probe()
    assert probe is not None
    claim = gateway.ledger.report(report_of(probe, State.PROCESSING))
    done = report_of(probe, State.EXPORTED, attempt=claim.attempt)
    assert gateway.ledger.report(done).proceed
    assert gateway.backfiller.run_once()


def test_it_waits_while_many_studies_wait_for_the_broker(gateway: Gateway) -> None:
    for number in range(WAITING_LIMIT):
        gateway.store(f"new {number}")
    gateway.clock.move(120)
    gateway.watch()
    gateway.start(MAX_RATE)
    assert not gateway.backfiller.run_once()
    gateway.ledger.sent(gateway.ledger.outbox(limit=1)[0])
    assert gateway.backfiller.run_once()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 29), st.booleans()), max_size=12))
def test_deletions_while_it_walks_make_it_miss_nothing(events: list[tuple[int, bool]]) -> None:
    """Each deletion moves the list under the walk; a few of them leave passes enough."""
    gateway = Gateway(held=30)
    gateway.start(24)  # four a page
    deletions = 0
    for place, restarts in events:
        gateway.run(rounds=3)
        study = gateway.held[place]
        # More disturbed passes than there may be: the last one is not.
        if deletions < MOST_PASSES - 1 and study in gateway.orthanc._updated:
            gateway.orthanc.delete(study)
            deletions += 1
        if restarts:
            gateway.restart()
    gateway.run()
    assert not gateway.now.running
    known = {study.study_id for study in gateway.ledger.studies(limit=500).studies}
    assert known >= set(gateway.orthanc._updated)
    assert gateway.now.passes <= MOST_PASSES
    gateway.engine.dispose()


@given(st.integers(1, MAX_RATE))
def test_a_page_is_for_ten_seconds_at_most_or_one_study(per_minute: int) -> None:
    assert 1 <= page_size(per_minute) <= max(1, per_minute / 6)


def test_studies_that_no_rule_takes_in_are_counted_against_the_rate_as_well() -> None:
    walk = Backfill(1, NOW, "admin", per_minute=30, total=9)
    after = walk.after_page((), found=3, again=2, now=NOW)
    assert after.next_at == NOW + timedelta(seconds=10)
    assert not after.is_due(NOW + timedelta(seconds=11)), "it has ended"


def test_it_goes_on_while_an_export_target_is_away_that_others_do_without(
    gateway: Gateway,
) -> None:
    for number in range(4):
        study_id = gateway.store(f"new {number}")
        gateway.ledger.note({study_id: gateway.clock()}, cursor=1)
        targets = ("away",) if number < LIMITS[Blame.TARGET] else ("well",)
        gateway.ledger.settle(study_id, Decision(None, targets), content="c", instances=1)
    for message in gateway.ledger.outbox():
        if message.targets == ("away",):
            claim = gateway.ledger.report(report_of(message, State.PROCESSING))
            reason = Reason.TARGET_UNREACHABLE
            back = report_of(message, State.QUEUED, reason, attempt=claim.attempt, target="away")
            assert gateway.ledger.report(back).proceed
    assert gateway.ledger.circuits()["target:away"].is_open
    assert not gateway.ledger.is_congested()
    for message in gateway.ledger.outbox():
        gateway.ledger.sent(message)
    gateway.ledger.recall(-gateway.clock.now.resolution)
    assert not gateway.ledger.is_congested(), "the other one waits, and may go"
