"""From Orthanc's changes to decided studies, over every kind of interruption."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product

import pytest

from prichexy_plugin.changes import INSPECTED_INSTANCES, LOOK_PAUSES, Watcher
from prichexy_plugin.database import open_database
from prichexy_plugin.intake import Rule
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.records import StudyRecord
from prichexy_plugin.studies import OrthancStudies, StudiesUnavailable
from prichexy_testing.fake_orthanc import FakeOrthanc, orthanc_id
from prichexy_testing.plugin_fakes import CHEST, HIP, FakeClock
from prichexy_worker.contract import Reason, State

STABLE_AGE = 60.0
CHEST_RULE = Rule("chest", modality=frozenset({"CR", "DX"}), body_part=frozenset({"CHEST"}))


@dataclass
class Ingest:
    """A fake Orthanc, a ledger in memory and the watcher between them."""

    clock: FakeClock = field(default_factory=FakeClock)
    rules: tuple[Rule, ...] = ()
    take_existing: bool = True

    def __post_init__(self) -> None:
        self.rules = self.rules or (CHEST_RULE,)
        self.orthanc = FakeOrthanc(clock=self.clock)
        self.engine = open_database("sqlite://")
        self.ledger = Ledger(self.engine, self.clock)
        self.restart()

    def restart(self) -> None:
        """Make a new watcher, as after kill -9: all it had in memory is gone."""
        self.watcher = Watcher(
            OrthancStudies(self.orthanc),
            self.ledger,
            rules=self.rules,
            stable_age=STABLE_AGE,
            take_existing=self.take_existing,
            clock=self.clock,
        )

    def run(self) -> None:
        while self.watcher.run_once().more:
            pass

    def study(self, study_id: str) -> StudyRecord:
        page = self.ledger.studies(study_id=study_id)
        assert page.total == 1
        return page.studies[0]


@pytest.fixture
def ingest() -> Iterator[Ingest]:
    one = Ingest()
    yield one
    one.engine.dispose()


def test_a_study_is_watched_while_it_arrives_and_taken_in_when_stable(ingest: Ingest) -> None:
    study = ingest.orthanc.store(CHEST)
    ingest.run()
    assert ingest.study(study).state is State.WATCHED
    ingest.clock.move(STABLE_AGE)
    ingest.orthanc.settle(study)
    ingest.run()
    assert ingest.study(study).state is State.PENDING
    assert ingest.study(study).instances == 1


def test_what_no_rule_takes_is_recorded_with_the_reason(ingest: Ingest) -> None:
    study = ingest.orthanc.store(HIP)
    ingest.clock.move(STABLE_AGE)
    ingest.orthanc.settle(study)
    ingest.run()
    assert ingest.study(study).state is State.REJECTED
    assert ingest.study(study).reason is Reason.NO_RULE_MATCHES


def test_a_study_whose_stable_change_was_lost_by_a_kill_is_taken_in(ingest: Ingest) -> None:
    study = ingest.orthanc.store(CHEST)
    ingest.run()
    # Killed; after the restart Orthanc calls everything stable and tells nobody.
    ingest.orthanc.stable.add(study)
    ingest.restart()
    ingest.run()
    assert ingest.study(study).state is State.WATCHED, "its last instance came just now"
    ingest.clock.move(STABLE_AGE)
    ingest.run()
    assert ingest.study(study).state is State.PENDING


def test_a_late_instance_whose_stable_change_was_lost_makes_a_new_revision(ingest: Ingest) -> None:
    study = ingest.orthanc.store(CHEST)
    ingest.clock.move(STABLE_AGE)
    ingest.orthanc.settle(study)
    ingest.run()
    ingest.clock.move(3600)
    ingest.orthanc.store(CHEST, instance="late")
    ingest.orthanc.stable.add(study)
    ingest.restart()
    ingest.clock.move(STABLE_AGE)
    ingest.run()
    assert ingest.study(study).revision == 2
    assert ingest.study(study).instances == 2


def test_changes_made_while_the_plugin_was_away_are_read_from_where_it_stopped(
    ingest: Ingest,
) -> None:
    studies = [ingest.orthanc.store(CHEST, study=str(number)) for number in range(450)]
    ingest.orthanc.stable.update(studies)
    ingest.clock.move(STABLE_AGE)
    ingest.run()
    while ingest.watcher.run_once().looked:
        pass
    assert ingest.ledger.counts()[State.PENDING] == 450
    asked = len(ingest.orthanc.asked)
    ingest.restart()
    ingest.run()
    assert len(ingest.orthanc.asked) == asked + 1, "one question for new changes, no other"


def test_the_same_instance_sent_again_is_no_new_revision(ingest: Ingest) -> None:
    study = ingest.orthanc.store(CHEST)
    for _ in range(2):
        ingest.clock.move(STABLE_AGE)
        ingest.orthanc.settle(study)
        ingest.run()
        ingest.orthanc.store(CHEST)
    assert ingest.study(study).revision == 1


def test_an_instance_overwritten_by_another_content_is_a_new_revision(ingest: Ingest) -> None:
    study = ingest.orthanc.store(CHEST)
    ingest.clock.move(STABLE_AGE)
    ingest.orthanc.settle(study)
    ingest.run()
    ingest.orthanc.store(CHEST, content=b"corrected")
    ingest.clock.move(STABLE_AGE)
    ingest.orthanc.settle(study)
    ingest.run()
    assert ingest.study(study).revision == 2
    assert ingest.study(study).state is State.PENDING


def test_a_study_still_receiving_is_looked_at_again(ingest: Ingest) -> None:
    study = ingest.orthanc.store(CHEST)
    ingest.clock.move(STABLE_AGE)
    ingest.run()
    assert ingest.study(study).state is State.WATCHED
    ingest.orthanc.stable.add(study)
    ingest.clock.move(5)
    ingest.run()
    assert ingest.study(study).state is State.PENDING


def test_a_study_deleted_while_watched_is_recorded_as_gone(ingest: Ingest) -> None:
    study = ingest.orthanc.store(CHEST)
    ingest.run()
    ingest.orthanc.delete(study)
    ingest.clock.move(STABLE_AGE)
    ingest.run()
    assert ingest.study(study).reason is Reason.GONE


def test_an_instance_deleted_before_it_was_read_is_passed_over(ingest: Ingest) -> None:
    study = ingest.orthanc.store(CHEST)
    ingest.orthanc.delete(study)
    ingest.run()
    assert ingest.ledger.cursor() == 2


def test_a_study_turned_away_is_decided_anew_when_it_grows(ingest: Ingest) -> None:
    study = ingest.orthanc.store(HIP)
    ingest.clock.move(STABLE_AGE)
    ingest.orthanc.settle(study)
    ingest.run()
    ingest.orthanc.store(CHEST, instance="second")
    ingest.clock.move(STABLE_AGE)
    ingest.orthanc.settle(study)
    ingest.run()
    assert ingest.study(study).state is State.PENDING


def test_orthancs_own_copies_are_not_taken_in(ingest: Ingest) -> None:
    study = ingest.orthanc.store(CHEST)
    ingest.orthanc.copies.add(study)
    ingest.clock.move(STABLE_AGE)
    ingest.orthanc.settle(study)
    ingest.run()
    assert ingest.study(study).reason is Reason.COPY_OF_A_STUDY


def test_own_output_in_a_later_series_turns_the_study_away(ingest: Ingest) -> None:
    ingest.orthanc.store(CHEST, series="1", instance="1")
    own = {**CHEST, "DeidentificationMethod": "PriCheXy"}
    study = ingest.orthanc.store(own, series="2", instance="2")
    ingest.clock.move(STABLE_AGE)
    ingest.orthanc.settle(study)
    ingest.run()
    assert ingest.study(study).reason is Reason.OWN_OUTPUT


def test_series_of_other_modalities_are_not_read(ingest: Ingest) -> None:
    study = ingest.orthanc.store(CHEST, series="1", instance="1")
    for number in range(20):
        ingest.orthanc.store({**CHEST, "Modality": "CT"}, series="2", instance=f"ct{number}")
    ingest.clock.move(STABLE_AGE)
    ingest.orthanc.settle(study)
    ingest.run()
    assert ingest.study(study).state is State.PENDING
    assert sum("simplified-tags" in path for path in ingest.orthanc.asked) == 1


@pytest.mark.parametrize("place", range(4))
def test_instances_are_read_until_no_rule_could_send_the_study_elsewhere(place: int) -> None:
    routed = Rule("routed", view=frozenset({"LL"}), targets=frozenset({"research"}))
    ingest = Ingest(rules=(CHEST_RULE, routed))
    for number in range(4):
        view = "LL" if number == place else "PA"
        study = ingest.orthanc.store({**CHEST, "ViewPosition": view}, instance=str(number))
    ingest.clock.move(STABLE_AGE)
    ingest.orthanc.settle(study)
    ingest.run()
    assert ingest.study(study).targets == ("research",)


def test_no_more_than_a_limit_of_instances_is_read(ingest: Ingest) -> None:
    for number in range(INSPECTED_INSTANCES + 10):
        study = ingest.orthanc.store(HIP, instance=str(number))
    ingest.clock.move(STABLE_AGE)
    ingest.orthanc.settle(study)
    ingest.run()
    assert ingest.study(study).reason is Reason.NO_RULE_MATCHES
    assert sum("simplified-tags" in p for p in ingest.orthanc.asked) == INSPECTED_INSTANCES


def test_a_new_ledger_may_leave_alone_what_orthanc_holds_already() -> None:
    ingest = Ingest(take_existing=False)
    old = ingest.orthanc.store(CHEST, study="old")
    ingest.orthanc.stable.add(old)
    ingest.run()
    new = ingest.orthanc.store(CHEST, study="new")
    ingest.clock.move(STABLE_AGE)
    ingest.orthanc.settle(new)
    ingest.run()
    assert [study.study_id for study in ingest.ledger.studies().studies] == [new]
    ingest.engine.dispose()


def test_another_orthanc_database_is_read_from_its_start(ingest: Ingest) -> None:
    for number in range(5):
        ingest.orthanc.store(CHEST, study=str(number))
    ingest.run()
    ingest.orthanc = FakeOrthanc(clock=ingest.clock)
    ingest.restart()
    study = ingest.orthanc.store(CHEST, study="of the new one")
    ingest.run()
    assert ingest.study(study).state is State.WATCHED


def test_a_clock_put_back_does_not_keep_a_study_waiting(ingest: Ingest) -> None:
    ingest.clock.move(24 * 3600)
    study = ingest.orthanc.store(CHEST)
    ingest.orthanc.stable.add(study)
    ingest.clock.move(-24 * 3600)
    ingest.run()
    ingest.clock.move(STABLE_AGE)
    ingest.run()
    assert ingest.study(study).state is State.PENDING


def test_while_orthanc_does_not_answer_nothing_is_lost(ingest: Ingest) -> None:
    study = ingest.orthanc.store(CHEST)
    ingest.run()
    ingest.orthanc.broken = True
    ingest.clock.move(STABLE_AGE)
    with pytest.raises(StudiesUnavailable):
        ingest.run()
    ingest.orthanc.broken = False
    ingest.orthanc.settle(study)
    ingest.run()
    assert ingest.study(study).state is State.PENDING


@pytest.mark.parametrize(
    ("what", "fault"),
    [
        *product(["simplified-tags", "metadata"], [14, 2006, b'{"no": json', b"[]", b"\xff"]),
        *product(["attachments/dicom/md5"], [14, 2006, b"\xff"]),
    ],
)
def test_an_unreadable_object_holds_no_other_study_up_and_ends_as_unreadable(
    ingest: Ingest, fault: int | bytes, what: str
) -> None:
    broken = ingest.orthanc.store(CHEST, study="broken")
    instance = orthanc_id("broken", "series", "instance")
    ingest.orthanc.faults[f"/instances/{instance}/{what}"] = fault
    ingest.clock.move(1)
    good = ingest.orthanc.store(CHEST, study="good")
    ingest.orthanc.stable.update((broken, good))
    ingest.clock.move(STABLE_AGE)
    ingest.run()
    assert ingest.study(good).state is State.PENDING
    assert ingest.study(broken).state is State.WATCHED
    assert ingest.ledger.unreadable() == 1
    for pause in LOOK_PAUSES:
        assert ingest.ledger.due() == (), "it waits for its next look"
        ingest.clock.move(pause.total_seconds())
        ingest.run()
    assert ingest.study(broken).state is State.REJECTED
    assert ingest.study(broken).reason is Reason.UNREADABLE
    assert ingest.ledger.unreadable() == 0
    assert ingest.ledger.due() == ()


def test_a_study_that_can_be_read_again_is_taken_in(ingest: Ingest) -> None:
    study = ingest.orthanc.store(CHEST)
    path = f"/instances/{orthanc_id('study', 'series', 'instance')}/simplified-tags"
    ingest.orthanc.faults[path] = 14
    ingest.orthanc.stable.add(study)
    ingest.clock.move(STABLE_AGE)
    ingest.run()
    ingest.orthanc.faults.clear()
    ingest.clock.move(3600)
    ingest.run()
    assert ingest.study(study).state is State.PENDING
    assert ingest.ledger.unreadable() == 0


def test_while_orthanc_is_away_no_study_is_called_unreadable(ingest: Ingest) -> None:
    study = ingest.orthanc.store(CHEST)
    path = f"/instances/{orthanc_id('study', 'series', 'instance')}/simplified-tags"
    ingest.run()
    ingest.orthanc.stable.add(study)
    ingest.clock.move(STABLE_AGE)
    ingest.orthanc.break_at = path
    with pytest.raises(StudiesUnavailable):
        ingest.run()
    assert ingest.ledger.unreadable() == 0
    assert ingest.ledger.due() == (study,)


def test_an_instance_whose_study_cannot_be_told_holds_the_changes_up_for_moments_only(
    ingest: Ingest,
) -> None:
    ingest.orthanc.store(CHEST, study="broken")
    instance = orthanc_id("broken", "series", "instance")
    ingest.orthanc.faults[f"/instances/{instance}/study"] = 14
    good = ingest.orthanc.store(CHEST, study="good")
    for _ in range(10):
        with suppress(StudiesUnavailable):
            ingest.run()
    assert ingest.study(good).state is State.WATCHED
    assert ingest.study(orthanc_id("broken")).state is State.WATCHED, "told by its own line"


def test_the_ledger_holds_nothing_that_identifies_anyone(ingest: Ingest) -> None:
    study = ingest.orthanc.store(CHEST)
    ingest.clock.move(STABLE_AGE)
    ingest.orthanc.settle(study)
    ingest.run()
    with ingest.engine.connect() as connection:
        dump = "\n".join(
            str(tuple(row))
            for table in ("studies", "events", "facts", "workers")
            for row in connection.exec_driver_sql(f"SELECT * FROM {table}")
        )
    assert orthanc_id("study") in dump
    assert "DOE" not in dump
    assert "4711" not in dump
