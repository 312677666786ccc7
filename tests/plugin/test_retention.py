"""Originals, pictures and the ledger's own lines are kept as long as the rules say, and no less."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prichexy_plugin import keeper as keeper_module
from prichexy_plugin.chain import Deed, verify
from prichexy_plugin.changes import Watcher
from prichexy_plugin.clock_watch import ClockWatch
from prichexy_plugin.database import open_database
from prichexy_plugin.intake import Rule
from prichexy_plugin.keeper import Keeper
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.pictures import OrthancPictures
from prichexy_plugin.retention import Rules
from prichexy_plugin.standing import digest_of_named
from prichexy_plugin.studies import OrthancStudies, StudiesUnavailable, Unreadable, digests_of
from prichexy_testing.fake_orthanc import FakeOrthanc, orthanc_id
from prichexy_testing.forgers import drop_guards, put_in_line
from prichexy_testing.plugin_fakes import CHEST, HIP, FakeClock, report_of
from prichexy_worker.contract import Reason, State

DAY = 86400.0
DAYS = timedelta(days=1)
EXPORTED = Rules(originals={State.EXPORTED: 10 * DAYS})
ALL = Rules(
    originals=dict.fromkeys(
        (State.EXPORTED, State.QUARANTINED, State.FAILED, State.REJECTED), 10 * DAYS
    )
)
PNG = b"\x89PNG\r\n\x1a\n"


class Gateway:
    """A fake Orthanc, and the real watcher, ledger and keeper on it."""

    def __init__(self, url: str = "sqlite://", rules: Rules = EXPORTED) -> None:
        self.clock = FakeClock()
        self.orthanc = FakeOrthanc(clock=self.clock)
        self.engine = open_database(url)
        self.ledger = Ledger(self.engine, self.clock)
        self.studies = OrthancStudies(self.orthanc)
        self.watcher = Watcher(
            self.studies,
            self.ledger,
            rules=(Rule("chest", body_part=frozenset({"CHEST"})),),
            stable_age=60.0,
            take_existing=True,
            clock=self.clock,
        )
        self.set(rules)

    def set(self, rules: Rules, *, tells: bool = False) -> None:
        pictures = OrthancPictures(self.orthanc)
        self.keeper = Keeper(self.studies, pictures, self.ledger, rules, self.clock, tells=tells)

    def receive(self, *instances: str, study: str = "a", tags: dict[str, str] = CHEST) -> str:
        for instance in instances:
            self.orthanc.store(tags, study=study, instance=instance, content=instance.encode())
        self.watch(study)
        return orthanc_id(study)

    def watch(self, study: str = "a") -> None:
        self.clock.move(61)
        if orthanc_id(study) in self.orthanc._updated:
            self.orthanc.settle(orthanc_id(study))
        for _ in range(4):
            self.watcher.run_once()

    def ends(self, state: State = State.EXPORTED, *, unproved: float | None = 0.0) -> None:
        """Have a worker bring the pending studies to their end."""
        measures = {} if unproved is None else {"targets_unproved": unproved}
        reason = None if state is State.EXPORTED else Reason.BURNED_IN_TEXT
        for message in self.ledger.outbox():
            self.ledger.sent(message)
            attempt = self.ledger.report(report_of(message, State.PROCESSING)).attempt
            count = len(self.orthanc_instances(message.study_id))
            end = report_of(
                message, state, reason, attempt=attempt, instances=count, measures=measures
            )
            assert self.ledger.report(end).proceed

    def orthanc_instances(self, study_id: str) -> list[str]:
        return [key for key, one in self.orthanc._instances.items() if one.study == study_id]

    def keep(self) -> None:
        for _ in range(20):
            if not self.keeper.run_once():
                return
        raise AssertionError("it comes to no end")

    def deeds(self) -> list[str]:
        return [line.deed for line in self.ledger.lines(limit=1000) if line.deed != "step"]

    def state(self, study: str = "a") -> tuple[State, Reason | None]:
        [found] = self.ledger.studies(study_id=orthanc_id(study)).studies
        return found.state, found.reason


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    one = Gateway()
    yield one
    state = one.ledger.chain_state()
    lines = one.ledger.lines(limit=10_000)
    assert verify(lines, checkpoint=state.checkpoint, head=state.head).whole
    one.engine.dispose()


def test_without_a_rule_nothing_is_ever_deleted(gateway: Gateway) -> None:
    gateway.set(Rules())
    study = gateway.receive("1", "2")
    gateway.ends()
    gateway.clock.move(10_000 * DAY)
    gateway.keep()
    assert len(gateway.orthanc_instances(study)) == 2
    assert gateway.deeds() == []


def test_originals_go_when_their_time_is_over_with_a_line_before_and_after(
    gateway: Gateway,
) -> None:
    study = gateway.receive("1", "2")
    gateway.ends()
    gateway.clock.move(9 * DAY)
    gateway.keep()
    both = gateway.orthanc_instances(study)
    assert len(both) == 2
    gateway.clock.move(2 * DAY)
    gateway.keep()
    assert gateway.orthanc_instances(study) == []
    before, after = (line for line in gateway.ledger.lines() if line.deed != "step")
    assert (before.deed, after.deed) == ("originals_deleting", "originals_deleted")
    named = digest_of_named(both)
    assert before.details == {"revision": 1, "state": "exported", "originals": 2, "named": named}
    assert before.job_id == after.job_id is not None
    gateway.watch()
    assert gateway.state() == (State.EXPORTED, None), "its export stands"
    gateway.keep()
    assert len(gateway.deeds()) == 2


@pytest.mark.parametrize("unproved", [1.0, None])
def test_an_export_that_a_target_did_not_show_to_hold_deletes_nothing(
    gateway: Gateway, unproved: float | None
) -> None:
    study = gateway.receive("1")
    gateway.ends(unproved=unproved)
    gateway.clock.move(100 * DAY)
    gateway.keep()
    assert len(gateway.orthanc_instances(study)) == 1


@pytest.mark.parametrize("state", [State.QUARANTINED, State.FAILED])
def test_what_was_not_exported_goes_by_its_own_rule_alone(gateway: Gateway, state: State) -> None:
    study = gateway.receive("1")
    gateway.ends(state)
    gateway.clock.move(100 * DAY)
    gateway.keep()
    assert len(gateway.orthanc_instances(study)) == 1
    gateway.set(Rules(originals={state: 10 * DAYS}))
    gateway.keep()
    assert gateway.orthanc_instances(study) == []


def test_a_study_that_no_rule_takes_in_goes_by_its_own_rule_alone(gateway: Gateway) -> None:
    study = gateway.receive("1", tags=HIP)
    gateway.clock.move(100 * DAY)
    gateway.keep()
    assert len(gateway.orthanc_instances(study)) == 1
    gateway.set(Rules(originals={State.REJECTED: 10 * DAYS}))
    gateway.keep()
    assert gateway.orthanc_instances(study) == []


def test_a_study_that_is_still_worked_on_is_never_touched(gateway: Gateway) -> None:
    gateway.set(ALL)
    study = gateway.receive("1")
    gateway.clock.move(100 * DAY)
    gateway.keep()
    [message] = gateway.ledger.outbox()
    gateway.ledger.sent(message)
    gateway.clock.move(100 * DAY)
    gateway.keep()
    gateway.ledger.report(report_of(message, State.PROCESSING))
    gateway.clock.move(100 * DAY)
    gateway.keep()
    assert len(gateway.orthanc_instances(study)) == 1


def test_what_came_in_since_keeps_the_study_though_nobody_was_told(gateway: Gateway) -> None:
    study = gateway.receive("1")
    gateway.ends()
    gateway.clock.move(100 * DAY)
    gateway.orthanc.store(CHEST, study="a", instance="2")
    gateway.keep()
    assert len(gateway.orthanc_instances(study)) == 2, "not stable"
    gateway.clock.move(2 * DAY)
    gateway.orthanc.stable.add(study)
    gateway.keep()
    assert len(gateway.orthanc_instances(study)) == 2, "another last instance than then"
    assert gateway.deeds() == []


def test_content_that_is_not_what_was_exported_keeps_the_study(gateway: Gateway) -> None:
    study = gateway.receive("1")
    gateway.ends()
    gateway.orthanc._instances[gateway.orthanc_instances(study)[0]].content = b"replaced"
    gateway.clock.move(100 * DAY)
    gateway.keep()
    assert len(gateway.orthanc_instances(study)) == 1


def test_an_instance_that_comes_in_the_midst_of_the_deletion_stays_and_stops_it(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = gateway.receive("1", "2", "3")
    gateway.ends()
    gateway.clock.move(100 * DAY)
    delete = OrthancStudies.delete_instance

    def then_comes_another(studies: OrthancStudies, instance: str) -> None:
        delete(studies, instance)
        monkeypatch.undo()
        gateway.orthanc.store(CHEST, study="a", instance="4")
        gateway.watcher.run_once()

    monkeypatch.setattr(OrthancStudies, "delete_instance", then_comes_another)
    gateway.keep()
    assert len(gateway.orthanc_instances(study)) == 3, "one was gone before the fourth came"
    assert orthanc_id("a", "series", "4") in gateway.orthanc_instances(study)
    assert gateway.deeds() == ["originals_deleting", "originals_kept"]
    gateway.watch()
    assert gateway.state() == (State.REJECTED, Reason.ORIGINALS_DELETED)
    assert not gateway.ledger.outbox(), "the export would lose the first"
    gateway.set(ALL)
    gateway.clock.move(100 * DAY)
    gateway.keep()
    assert len(gateway.orthanc_instances(study)) == 3, "no rule deletes what was never exported"


def test_a_part_that_comes_again_waits_for_all_and_all_are_exported_anew(gateway: Gateway) -> None:
    study = gateway.receive("1", "2")
    gateway.ends()
    gateway.clock.move(100 * DAY)
    gateway.keep()
    gateway.receive("1")
    assert gateway.state() == (State.REJECTED, Reason.ORIGINALS_DELETED)
    gateway.receive("3")
    assert gateway.state() == (State.REJECTED, Reason.ORIGINALS_DELETED)
    gateway.receive("2")
    assert gateway.state() == (State.PENDING, None)
    [message] = gateway.ledger.outbox()
    assert message.revision > 1
    gateway.ends()
    gateway.clock.move(100 * DAY)
    gateway.keep()
    assert gateway.orthanc_instances(study) == []


def test_the_same_study_sent_again_goes_again_without_a_second_export(gateway: Gateway) -> None:
    study = gateway.receive("1", "2")
    gateway.ends()
    gateway.clock.move(100 * DAY)
    gateway.keep()
    gateway.receive("1", "2")
    assert gateway.state() == (State.EXPORTED, None)
    assert not gateway.ledger.outbox()
    gateway.keep()
    assert gateway.orthanc_instances(study) == []


def test_a_deletion_goes_on_after_a_kill_and_is_bounded(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = gateway.receive(*map(str, range(7)))
    gateway.ends()
    gateway.clock.move(100 * DAY)
    monkeypatch.setattr(keeper_module, "_INSTANCES", 3)
    assert gateway.keeper.run_once()
    assert len(gateway.orthanc_instances(study)) == 4
    # A kill: another keeper finds what the ledger says.
    gateway.set(Rules())
    gateway.keep()
    assert gateway.orthanc_instances(study) == []
    assert gateway.deeds() == ["originals_deleting", "originals_deleted"]


@pytest.mark.parametrize("keeps_md5", [True, False])
@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("gone", [True, False])
def test_a_corrected_image_that_comes_in_the_midst_of_the_deletion_stays_and_is_exported(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, *, gone: bool, ordered: bool, keeps_md5: bool
) -> None:
    gateway.orthanc.keeps_md5 = keeps_md5
    monkeypatch.setattr(keeper_module, "_INSTANCES", 2)
    names = {orthanc_id("a", "series", name): name for name in "1234"}
    study = gateway.receive(*names.values())
    gateway.ends()
    if ordered:
        gateway.set(Rules())
        [row] = gateway.ledger.studies().studies
        assert gateway.ledger.order_disposal(
            row.job_id,
            revision=row.revision,
            actor="user anna",
            reason=Reason.DELETED_DONE,
            digests=digests_of(gateway.studies, names),
        )
    gateway.clock.move(100 * DAY)
    assert gateway.keeper.run_once()
    left = sorted(gateway.orthanc_instances(study))
    assert len(left) == 2
    replaced = min(set(names) - set(left)) if gone else left[0]
    if not gone:
        gateway.orthanc.RestApiDelete(f"/instances/{replaced}")
    # The watcher has yet to read of it.
    gateway.orthanc.store(CHEST, study="a", instance=names[replaced], content=b"corrected")
    gateway.keep()
    there = gateway.orthanc_instances(study)
    assert sorted(there) == sorted({*left, replaced}), "the other ones stay, too"
    assert gateway.deeds() == ["originals_deleting", "originals_kept"]
    gateway.watch()
    assert gateway.state() == (State.REJECTED, Reason.ORIGINALS_DELETED)
    gateway.receive(*(names[one] for one in set(names) - set(there)))
    assert gateway.state() == (State.PENDING, None)
    assert gateway.ledger.verdict().whole


def test_a_deletion_that_older_software_began_is_called_off(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_module, "_INSTANCES", 1)
    study = gateway.receive("1", "2")
    gateway.ends()
    gateway.clock.move(100 * DAY)
    assert gateway.keeper.run_once()
    with gateway.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE disposed_originals SET digest = ''")
    gateway.keep()
    assert len(gateway.orthanc_instances(study)) == 1
    assert gateway.deeds() == ["originals_deleting", "originals_kept"]


def test_where_orthanc_keeps_no_md5_a_corrected_image_is_exported_and_kept(
    gateway: Gateway,
) -> None:
    gateway.orthanc.keeps_md5 = False
    study = gateway.receive("1")
    gateway.ends()
    gateway.orthanc.RestApiDelete(f"/instances/{gateway.orthanc_instances(study)[0]}")
    gateway.watch()
    gateway.orthanc.store(CHEST, study="a", instance="1", content=b"2")
    gateway.clock.move(100 * DAY)
    gateway.orthanc.stable.add(study)
    gateway.keep()
    assert gateway.orthanc_instances(study), "it was never exported"
    gateway.watch()
    assert gateway.state() == (State.PENDING, None)
    gateway.ends()
    gateway.clock.move(100 * DAY)
    gateway.keep()
    assert gateway.orthanc_instances(study) == []


def test_an_original_of_which_orthanc_says_neither_md5_nor_age_is_unreadable(
    gateway: Gateway,
) -> None:
    gateway.orthanc.keeps_md5 = False
    [instance] = gateway.orthanc_instances(gateway.receive("1"))
    gateway.orthanc.faults[f"/instances/{instance}/metadata/ReceptionDate"] = 17
    with pytest.raises(Unreadable):
        gateway.studies.digest(instance)
    gateway.orthanc.RestApiDelete(f"/instances/{instance}")
    assert gateway.studies.digest(instance) is None


@given(st.integers(0, 3), st.booleans())
@settings(max_examples=12, deadline=None)
def test_an_orthanc_that_goes_away_at_any_point_loses_nothing_and_is_caught_up(
    place: int, arrives: bool
) -> None:
    gateway = Gateway()
    study = gateway.receive("1", "2", "3")
    gateway.ends()
    gateway.clock.move(100 * DAY)
    instances = sorted(gateway.orthanc_instances(study))
    if place < 3:
        gateway.orthanc.break_at = f"DELETE /instances/{instances[place]}"
        with pytest.raises(StudiesUnavailable):
            gateway.keep()
    gateway.orthanc.broken, gateway.orthanc.break_at = False, None
    if arrives:
        gateway.orthanc.store(CHEST, study="a", instance="late")
        gateway.watcher.run_once()
    gateway.keep()
    there = gateway.orthanc_instances(study)
    assert (orthanc_id("a", "series", "late") in there) is arrives
    gateway.watch()
    if place < 3 and arrives:
        # Nothing was gone yet: it is a study like any other with a new instance.
        whole = place == 0
        assert gateway.state()[0] is (State.PENDING if whole else State.REJECTED)
        assert len(there) == 4 - place
    elif not arrives:
        assert there == []
    gateway.engine.dispose()


def test_an_image_that_orthanc_does_not_delete_holds_up_no_other_study(gateway: Gateway) -> None:
    study = gateway.receive("1", "2")
    other = gateway.receive("1", study="b")
    gateway.ends()
    gateway.clock.move(100 * DAY)
    stuck = sorted(gateway.orthanc_instances(study))[0]
    gateway.orthanc.faults[f"DELETE /instances/{stuck}"] = 2008
    gateway.keep()
    assert gateway.orthanc_instances(other) == []
    assert stuck in gateway.orthanc_instances(study)
    gateway.keep()
    gateway.orthanc.faults.clear()
    gateway.clock.move(2 * DAY)
    gateway.keep()
    assert gateway.orthanc_instances(study) == [], "it is tried again a day later"


@pytest.mark.parametrize("first", [State.QUARANTINED, State.EXPORTED])
def test_what_was_taken_in_once_is_not_of_those_that_no_rule_took_in(
    gateway: Gateway, first: State
) -> None:
    gateway.set(Rules(originals={State.REJECTED: 10 * DAYS}))
    study = gateway.receive("1")
    gateway.ends(first, unproved=None)
    if first is State.QUARANTINED:
        [row] = gateway.ledger.studies().studies
        assert gateway.ledger.turn_away(
            row.job_id, revision=1, actor="user omar", reason=Reason.NOT_NEEDED
        )
    else:
        gateway.orthanc.delete(study)
        gateway.receive("1", "2", tags=HIP)
    assert gateway.state()[0] is State.REJECTED
    gateway.clock.move(100 * DAY)
    gateway.keep()
    assert gateway.orthanc_instances(study), "nothing of it is deleted by that rule"


def test_a_study_that_somebody_deleted_in_orthanc_is_left_alone(gateway: Gateway) -> None:
    study = gateway.receive("1")
    gateway.ends()
    gateway.orthanc.delete(study)
    gateway.clock.move(100 * DAY)
    gateway.keep()
    assert gateway.deeds() == []
    gateway.receive("2")
    assert gateway.state() == (State.REJECTED, Reason.ORIGINALS_MISSING), "the export stays"


def test_a_study_that_cannot_be_read_is_left_for_a_day(gateway: Gateway) -> None:
    study = gateway.receive("1")
    other = gateway.receive("1", study="b")
    gateway.ends()
    gateway.clock.move(100 * DAY)
    gateway.orthanc.faults[f"/studies/{study}"] = 2039
    gateway.keep()
    assert len(gateway.orthanc_instances(study)) == 1
    assert gateway.orthanc_instances(other) == [], "it holds up no other"
    gateway.orthanc.faults.clear()
    gateway.keep()
    assert len(gateway.orthanc_instances(study)) == 1
    gateway.clock.move(2 * DAY)
    gateway.keep()
    assert gateway.orthanc_instances(study) == []


def _pictured(gateway: Gateway) -> str:
    study = gateway.receive("1")
    [message] = gateway.ledger.outbox()
    gateway.ledger.sent(message)
    attempt = gateway.ledger.report(report_of(message, State.PROCESSING)).attempt
    gateway.ledger.note_pictures(message.job_id, 2, "worker-1")
    for number in (1, 2):
        assert OrthancPictures(gateway.orthanc).keep(study, number, PNG)
    end = report_of(message, State.QUARANTINED, Reason.BURNED_IN_TEXT, attempt=attempt)
    assert gateway.ledger.report(end).proceed
    return study


def test_pictures_go_by_their_own_rule_and_the_originals_stay(gateway: Gateway) -> None:
    study = _pictured(gateway)
    gateway.set(Rules(pictures=3 * DAYS))
    gateway.clock.move(2 * DAY)
    gateway.keep()
    assert len(gateway.orthanc.attachments) == 2
    gateway.clock.move(2 * DAY)
    gateway.keep()
    assert gateway.orthanc.attachments == {}
    assert len(gateway.orthanc_instances(study)) == 1
    assert gateway.deeds() == ["pictures_kept", "pictures_deleting", "pictures_deleted"]
    gateway.keep()
    assert len(gateway.deeds()) == 3


def test_pictures_that_orthanc_does_not_delete_are_tried_again_a_day_later(
    gateway: Gateway,
) -> None:
    study = _pictured(gateway)
    gateway.set(Rules(pictures=3 * DAYS))
    gateway.clock.move(4 * DAY)
    fault = next(f"DELETE /studies/{study}/attachments/{n}" for _, n in gateway.orthanc.attachments)
    gateway.orthanc.faults[fault] = 2038
    gateway.keep()
    gateway.keep()
    assert gateway.deeds() == ["pictures_kept", "pictures_deleting"]
    gateway.orthanc.faults.clear()
    gateway.clock.move(2 * DAY)
    gateway.keep()
    assert gateway.orthanc.attachments == {}


def test_a_study_is_forgotten_once_orthanc_holds_nothing_of_it(gateway: Gateway) -> None:
    gateway.receive("1")
    gateway.ends()
    job = gateway.ledger.studies().studies[0].job_id
    gateway.set(Rules(originals={State.EXPORTED: 10 * DAYS}, ledger=30 * DAYS))
    gateway.clock.move(29 * DAY)
    gateway.keep()
    assert gateway.ledger.studies().total == 1
    gateway.clock.move(2 * DAY)
    gateway.keep()
    assert gateway.ledger.studies().total == 0
    assert gateway.ledger.lines(job_id=job)[-1].deed == "forgotten"
    gateway.receive("1")
    assert gateway.state() == (State.PENDING, None), "then it is a new one"


def test_a_study_that_orthanc_still_holds_is_not_forgotten(gateway: Gateway) -> None:
    gateway.receive("1", tags=HIP)
    gateway.set(Rules(ledger=30 * DAYS))
    gateway.clock.move(100 * DAY)
    gateway.keep()
    assert gateway.ledger.studies().total == 1


def test_a_study_whose_withdrawal_for_want_of_consent_failed_is_known_for_ever(
    gateway: Gateway,
) -> None:
    study = gateway.receive("1")
    gateway.ends()
    [row] = gateway.ledger.studies().studies
    assert gateway.ledger.order_withdrawal(
        row.job_id, revision=1, actor="user ada", reason=Reason.WITHDRAWN_CONSENT
    )
    gateway.ends(State.FAILED)
    gateway.orthanc.delete(study)
    gateway.set(Rules(ledger=30 * DAYS))
    gateway.clock.move(100 * DAY)
    gateway.keep()
    gateway.receive("1")
    assert gateway.state() == (State.FAILED, Reason.BURNED_IN_TEXT)
    assert gateway.ledger.outbox() == (), "it is not exported once more"


def test_lines_go_together_once_the_oldest_is_a_day_too_old(gateway: Gateway) -> None:
    gateway.receive("1")
    first = gateway.ledger.lines()[0].at
    gateway.set(Rules(ledger=30 * DAYS))
    gateway.clock.now = first + 30.5 * DAYS
    gateway.keep()
    assert gateway.ledger.chain_state().checkpoint.number == 0
    gateway.clock.now = first + 32 * DAYS
    gateway.keep()
    assert gateway.ledger.chain_state().checkpoint.number == 2
    assert gateway.deeds() == ["pruned"]


def test_lines_wait_for_the_syslog_server(gateway: Gateway) -> None:
    gateway.ledger.begin({}, tells=True)
    gateway.receive("1")
    gateway.set(Rules(ledger=30 * DAYS), tells=True)
    gateway.clock.move(100 * DAY)
    gateway.keep()
    assert gateway.ledger.chain_state().checkpoint.number == 0
    gateway.ledger.note_told(2)
    gateway.keep()
    assert gateway.ledger.chain_state().checkpoint.number == 2


def test_no_original_is_deleted_on_the_word_of_a_table_that_the_trail_contradicts(
    gateway: Gateway,
) -> None:
    study = gateway.receive("1")
    gateway.ends(State.QUARANTINED)
    with gateway.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE studies SET state='exported', reason=NULL, proved=1")
    gateway.clock.move(11 * DAY)
    gateway.keep()
    assert len(gateway.orthanc_instances(study)) == 1
    assert gateway.deeds() == []
    # Others are not kept waiting by it.
    other = gateway.receive("2", study="b")
    gateway.ends()
    gateway.clock.move(11 * DAY)
    gateway.keep()
    assert gateway.orthanc_instances(other) == []
    assert len(gateway.orthanc_instances(study)) == 1


EXPORTED_BY_HAND = "UPDATE studies SET state='exported', reason=NULL, proved=1"
#: What somebody who can write to the ledger's tables may write there, after a study ended in a
#: state with so many targets that did not show to hold it.
FORGED = {
    "proved": (State.EXPORTED, 1.0, ["UPDATE studies SET proved=1"]),
    "job": (State.QUARANTINED, 0.0, [f"{EXPORTED_BY_HAND}, job_id='{'f' * 32}'"]),
    "age": (State.EXPORTED, 0.0, ["UPDATE studies SET updated='2020-01-01 00:00:00.000000'"]),
    "reason": (
        State.QUARANTINED,
        0.0,
        ["UPDATE studies SET state='rejected', reason='no_rule_matches', content=''"],
    ),
    "content": (State.EXPORTED, 0.0, ["UPDATE studies SET content='0'"]),
    "instances": (State.EXPORTED, 0.0, ["UPDATE studies SET instances=1"]),
    "revision": (State.EXPORTED, 0.0, ["UPDATE studies SET revision=9"]),
    "deleting": (
        State.QUARANTINED,
        0.0,
        [
            "UPDATE studies SET originals='deleting'",
            "INSERT INTO disposed_originals SELECT study_id, '{first}', '' FROM studies",
        ],
    ),
}


@pytest.mark.parametrize("name", FORGED)
def test_no_original_is_deleted_on_the_word_of_tables_alone_and_a_verification_finds_it(
    gateway: Gateway, name: str
) -> None:
    gateway.set(ALL)
    state, unproved, statements = FORGED[name]
    study = gateway.receive("1", "2")
    gateway.ends(state, unproved=unproved)
    assert gateway.ledger.verdict().whole
    first = gateway.orthanc_instances(study)[0]
    with gateway.engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement.format(first=first))
    assert not gateway.ledger.verdict().whole
    gateway.clock.move((9 if name == "age" else 11) * DAY)
    said: list[str] = []
    gateway.keeper._say = said.append
    gateway.keep()
    assert len(gateway.orthanc_instances(study)) == 2
    assert gateway.deeds() == []
    assert len(said) == 1
    gateway.keep()
    assert len(said) == 1, "it is left alone for a day"


def test_more_of_a_study_whose_withdrawal_failed_is_no_forgery(gateway: Gateway) -> None:
    gateway.set(ALL)
    study = gateway.receive("1")
    gateway.ends()
    [row] = gateway.ledger.studies().studies
    assert gateway.ledger.order_withdrawal(
        row.job_id, revision=1, actor="user anna", reason=Reason.WITHDRAWN_FAULTY
    )
    gateway.ends(State.FAILED)
    gateway.receive("2")
    assert gateway.ledger.verdict().standing == ()
    gateway.clock.move(11 * DAY)
    gateway.keep()
    assert len(gateway.orthanc_instances(study)) == 2


def test_what_was_ever_taken_in_does_not_go_as_what_never_was(gateway: Gateway) -> None:
    gateway.set(ALL)
    study = gateway.receive("1")
    gateway.ends()
    gateway.orthanc.delete(study)
    gateway.receive("1", "2", tags=HIP)
    assert gateway.state() == (State.REJECTED, Reason.NO_RULE_MATCHES)
    with gateway.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE studies SET content=''")
    gateway.clock.move(11 * DAY)
    gateway.keep()
    assert len(gateway.orthanc_instances(study)) == 2


def test_an_original_that_is_named_by_hand_is_not_deleted_with_the_others(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_module, "_INSTANCES", 1)
    study = gateway.receive("1", "2")
    gateway.ends()
    other = gateway.receive("3", study="b")
    gateway.ends(State.QUARANTINED)
    gateway.clock.move(11 * DAY)
    gateway.keeper.run_once()
    assert len(gateway.orthanc_instances(study)) == 1
    with gateway.engine.begin() as connection:
        for one in gateway.orthanc_instances(other):
            connection.exec_driver_sql(
                "INSERT INTO disposed_originals (study_id, instance_id) "
                f"VALUES ('{study}', '{one}')"
            )
    assert not gateway.ledger.verdict().whole
    gateway.keep()
    assert len(gateway.orthanc_instances(study)) == 1
    assert len(gateway.orthanc_instances(other)) == 1


def test_rows_before_the_checkpoint_have_no_original_deleted_and_hide_no_study(
    gateway: Gateway,
) -> None:
    gone = gateway.receive("1", study="gone")
    gateway.ends()
    gateway.set(Rules(ledger=20 * DAYS))
    gateway.clock.move(30 * DAY)
    gateway.orthanc.delete(gone)
    gateway.keep()
    assert gateway.ledger.chain_state().checkpoint.number > 0
    gateway.set(Rules())
    held, hidden = (gateway.receive("1", study=name) for name in ("held", "hidden"))
    gateway.ends(State.QUARANTINED)
    jobs = {one.study_id: one.job_id for one in gateway.ledger.studies().studies}
    [original] = gateway.orthanc_instances(held)
    named = json.dumps({"named": digest_of_named([original])})
    with gateway.engine.begin() as connection:
        drop_guards(connection)
        put_in_line(connection, 1, Deed.ORIGINALS_DELETING.value, jobs[held], named)
        put_in_line(connection, -2, Deed.FORGOTTEN.value, jobs[hidden])
        connection.exec_driver_sql(
            f"UPDATE studies SET originals = 'deleting' WHERE study_id = '{held}'"
        )
        connection.exec_driver_sql(
            "INSERT INTO disposed_originals (study_id, instance_id) "
            f"VALUES ('{held}', '{original}')"
        )
        connection.exec_driver_sql(f"DELETE FROM studies WHERE study_id = '{hidden}'")
    gateway.keep()
    assert gateway.orthanc_instances(held) == [original]
    verdict = gateway.ledger.verdict()
    assert (verdict.broken, set(verdict.standing)) == (-2, {jobs[held], jobs[hidden]})
    with gateway.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM events WHERE number < 2")


def test_altered_lines_stay_and_are_told_of_once_a_day(gateway: Gateway) -> None:
    said: list[str] = []
    gateway.set(Rules(ledger=3650 * DAYS))
    gateway.keeper._say = said.append
    for name in "abc":
        gateway.receive("1", study=name)
    gateway.ends()
    digests = [line.digest for line in gateway.ledger.lines()]
    whole = [f"at = '{line.at:%Y-%m-%d %H:%M:%S.%f}'" for line in gateway.ledger.lines(limit=6)]
    with gateway.engine.begin() as connection:
        drop_guards(connection)
        connection.exec_driver_sql("UPDATE events SET at = '2001-01-01' WHERE number < 4")
    gateway.keep()
    [text] = said
    assert "line 1 is altered" in text
    with gateway.engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE events SET at = '2001-01-01 00:00:00.000000' WHERE number < 7"
        )
    gateway.keep()
    assert len(said) == 1
    gateway.clock.move(-30 * DAY)
    gateway.keep()
    assert "broken at line 1" in said[1], "a clock that was put back holds nothing up"
    gateway.clock.move(2 * DAY)
    gateway.keep()
    assert len(said) == 3
    assert [line.digest for line in gateway.ledger.lines()] == digests
    assert "pruned" not in gateway.deeds()
    with gateway.engine.begin() as connection:
        for number, at in enumerate(whole, start=1):
            connection.exec_driver_sql(f"UPDATE events SET {at} WHERE number = {number}")


def test_a_study_whose_row_is_gone_is_found_until_it_was_forgotten(gateway: Gateway) -> None:
    gateway.receive("1")
    gateway.ends()
    job = gateway.ledger.studies().studies[0].job_id
    gateway.set(Rules(originals={State.EXPORTED: 10 * DAYS}, ledger=30 * DAYS))
    gateway.clock.move(20 * DAY)
    gateway.keep()
    gateway.clock.move(11 * DAY)
    gateway.keep()
    assert gateway.ledger.studies().total == 0
    assert gateway.ledger.verdict().whole, "it was forgotten, and its line says so"
    gateway.receive("1", study="b")
    job = gateway.ledger.studies().studies[0].job_id
    with gateway.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM studies")
    assert gateway.ledger.verdict().standing == (job,)


def test_originals_go_also_when_the_lines_of_their_study_went_before(gateway: Gateway) -> None:
    study = gateway.receive("1")
    gateway.ends()
    gateway.set(Rules(originals={State.EXPORTED: 40 * DAYS}, ledger=20 * DAYS))
    gateway.clock.move(30 * DAY)
    young = gateway.receive("2", study="b")
    gateway.ends(State.QUARANTINED)
    gateway.keep()
    assert (
        gateway.ledger.lines(job_id=gateway.ledger.studies(study_id=study).studies[0].job_id) == ()
    )
    assert gateway.ledger.verdict().whole
    # A young one is not taken for one of those.
    with gateway.engine.begin() as connection:
        connection.exec_driver_sql(
            f"{EXPORTED_BY_HAND}, job_id='{'f' * 32}', updated='2026-03-02 00:00:00.000000' "
            f"WHERE study_id='{young}'"
        )
    gateway.clock.move(11 * DAY)
    gateway.keep()
    assert gateway.orthanc_instances(study) == []
    assert len(gateway.orthanc_instances(young)) == 1
    assert len(gateway.ledger.verdict().standing) == 1, "of the job that has no row any more"


def test_no_line_goes_from_which_a_deletion_goes_on(gateway: Gateway) -> None:
    gateway.set(replace(EXPORTED, ledger=30 * DAYS))
    study = gateway.receive("1")
    gateway.ends()
    gateway.clock.move(11 * DAY)
    [due] = gateway.ledger.due_originals(EXPORTED, 1)
    digests = digests_of(gateway.studies, gateway.orthanc_instances(study))
    assert gateway.ledger.begin_disposal(due, digests)
    [begun] = [line for line in gateway.ledger.lines() if line.deed == "originals_deleting"]
    gateway.clock.move(40 * DAY)
    assert gateway.ledger.prune(gateway.clock(), told=None, most=100) == begun.number - 1
    assert gateway.ledger.verdict().whole
    gateway.keep()
    assert gateway.orthanc_instances(study) == []


def test_while_the_clock_is_not_believed_nothing_goes_by_its_age_and_orders_are_done(
    gateway: Gateway,
) -> None:
    gateway.set(replace(ALL, ledger=30 * DAYS, pictures=DAYS))
    gateway.keeper._believable = lambda: False
    study = gateway.receive("1")
    gateway.ends()
    other = gateway.receive("2", study="b")
    gateway.ends()
    before = gateway.ledger.chain_state().lines
    gateway.clock.move(400 * DAY)
    gateway.keep()
    assert len(gateway.orthanc_instances(study)) == 1
    assert gateway.ledger.chain_state().lines == before
    [found] = gateway.ledger.studies(study_id=other).studies
    assert gateway.ledger.order_disposal(
        found.job_id,
        revision=found.revision,
        actor="user anna",
        reason=Reason.DELETED_DONE,
        digests=digests_of(gateway.studies, gateway.orthanc_instances(other)),
    )
    gateway.keep()
    assert gateway.orthanc_instances(other) == []
    assert len(gateway.orthanc_instances(study)) == 1


class Watched:
    """A gateway whose keeper watches the clock, through restarts."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.ran = 0.0
        self.start()

    def start(self) -> None:
        one = self.gateway
        watch = ClockWatch(one.clock, lambda: self.ran, one.ledger, lambda _text: None)
        one.ledger.begin({}, tells=False)
        one.keeper._believable = watch.may_delete
        one.keep()

    def runs(self, seconds: float) -> None:
        self.gateway.clock.move(seconds)
        self.ran += seconds
        self.gateway.keep()


def test_a_clock_that_jumped_ahead_deletes_nothing_after_a_restart_either(gateway: Gateway) -> None:
    study = gateway.receive("1", "2")
    gateway.ends()
    watched = Watched(gateway)
    watched.runs(DAY)
    gateway.clock.move(365 * DAY)
    watched.runs(60)
    gateway.ledger.record(Deed.STOPPED)
    gateway.clock.move(60)
    watched.start()
    assert len(gateway.orthanc_instances(study)) == 2
    watched.runs(7 * DAY)
    assert len(gateway.orthanc_instances(study)) == 2, "nor by an age that it does not have"
    watched.runs(2 * DAY)
    assert gateway.orthanc_instances(study) == []


def test_what_was_exported_while_the_clock_was_behind_is_kept_as_long_as_any(
    gateway: Gateway,
) -> None:
    gateway.set(replace(EXPORTED, ledger=30 * DAYS))
    right = gateway.clock()
    gateway.clock.now = right.replace(year=2000)
    watched = Watched(gateway)
    study = gateway.receive("1", "2")
    gateway.ends()
    watched.runs(60)
    gateway.clock.now = right
    watched.runs(60)
    assert "clock_jumped" in gateway.deeds()
    for _ in range(9):
        watched.runs(DAY)
    assert len(gateway.orthanc_instances(study)) == 2
    assert gateway.ledger.chain_state().checkpoint.number == 0
    for _ in range(2):
        watched.runs(DAY)
    assert gateway.orthanc_instances(study) == []
    for _ in range(22):
        watched.runs(DAY)
    assert gateway.ledger.chain_state().checkpoint.number > 0
    assert gateway.ledger.verdict().whole


def test_what_was_postponed_while_the_clock_was_ahead_is_looked_at_again(gateway: Gateway) -> None:
    study = gateway.receive("1")
    gateway.ends()
    gateway.ledger.postpone_disposal(study, gateway.clock() + 4000 * DAYS)
    gateway.clock.move(11 * DAY)
    gateway.keep()
    assert gateway.orthanc_instances(study) == []


def test_an_altered_line_keeps_no_rule_from_its_work(gateway: Gateway) -> None:
    gateway.set(replace(EXPORTED, ledger=30 * DAYS), tells=True)
    study = gateway.receive("1")
    gateway.ends()
    with gateway.engine.begin() as connection:
        connection.exec_driver_sql("DROP TRIGGER events_are_not_altered")
        first = connection.exec_driver_sql("SELECT details FROM events WHERE number = 1").scalar()
        connection.exec_driver_sql("UPDATE events SET details = '5' WHERE number = 1")
    gateway.clock.move(40 * DAY)
    gateway.keep()
    assert gateway.orthanc_instances(study) == []
    assert gateway.ledger.chain_state().checkpoint.number == 0, "evidence is not pruned"
    with gateway.engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE events SET details = '{first}' WHERE number = 1")
