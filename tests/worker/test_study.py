"""A study is claimed, leaves whole or not at all, and ends where the ledger knows of it."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prichexy_testing.fakes_worker import (
    JOB_ID,
    FakeLedger,
    FakeSource,
    FakeTarget,
    IdleDeformer,
    anonymized,
    instance_id,
    study_message,
)
from prichexy_testing.finders import Finds
from prichexy_worker.contract import (
    MAX_ATTEMPTS,
    MOST_DOUBTS,
    Claim,
    Errand,
    Looked,
    Reason,
    State,
    StudyMessage,
    StudyReport,
)
from prichexy_worker.destinations import Destinations
from prichexy_worker.errors import Doubt, Rejected, Retryable
from prichexy_worker.header import TABLE_EDITION, Profile
from prichexy_worker.header.options import Option
from prichexy_worker.pipeline import Anonymized, Tools
from prichexy_worker.ports import Check, Released, unhindered
from prichexy_worker.pseudonyms import Pseudonyms
from prichexy_worker.sent import Sent
from prichexy_worker.side_by_side import SideBySide
from prichexy_worker.study import Anonymizer, Outcome, process_study
from prichexy_worker.summary import summarized

PSEUDONYMS = Pseudonyms(bytes(range(32)))
# The fake anonymisers below use no generator.
TOOLS = Tools(engine=IdleDeformer(), pseudonyms=PSEUDONYMS, text_finder=Finds())
STUDY_UID = "1.2.840.99999.1"
FIVE = {instance_id(number): f"original {number}".encode() for number in range(5)}
Make = Callable[[bytes], Anonymized]
PICTURE = b"\x89PNG\r\n\x1a\nCANARYPICTURE"


def safe(content: bytes, _tools: Tools) -> Anonymized:
    """Anonymise "original N" to an instance whose SOPInstanceUID ends in N."""
    number = content.split()[-1].decode()
    return anonymized(b"safe " + number.encode(), f"2.25.{number}", measures={"psnr_db": 30.0})


def rejecting(
    number: int, reason: Reason = Reason.BURNED_IN_TEXT, pictures: tuple[bytes, ...] = ()
) -> Anonymizer:
    """Turn away the original with this number."""

    def anonymize(content: bytes, tools: Tools) -> Anonymized:
        if content.endswith(str(number).encode()):
            raise Rejected(reason, pictures=pictures)
        return safe(content, tools)

    return anonymize


def run(
    source: FakeSource | None = None,
    target: FakeTarget | None = None,
    ledger: FakeLedger | None = None,
    *,
    revision: int = 1,
    max_instances: int = 64,
    max_bytes: float = math.inf,
    max_seconds: float = math.inf,
    anonymize: Anonymizer = safe,
    clock: Callable[[], float] = lambda: 0.0,
    leave_by: Callable[[], float] = lambda: math.inf,
    tools: Tools = TOOLS,
) -> Outcome:
    return process_study(
        study_message(revision),
        source or FakeSource(dict(FIVE)),
        Destinations.only(target or FakeTarget()),
        ledger or FakeLedger(),
        tools,
        worker_id="worker-1",
        max_instances=max_instances,
        max_bytes=max_bytes,
        anonymize=anonymize,
        max_seconds=max_seconds,
        leave_by=leave_by,
        clock=clock,
    )


def exported(count: int = 5) -> dict[str, bytes]:
    """Give what the target holds of the first instances."""
    return {f"2.25.{n}": f"safe {n}".encode() for n in range(count)}


def test_a_study_is_claimed_exported_whole_and_reported() -> None:
    target, ledger = FakeTarget(), FakeLedger()
    assert run(target=target, ledger=ledger) == Outcome(State.EXPORTED)
    assert target.held == {f"2.25.{n}": f"safe {n}".encode() for n in range(5)}
    assert ledger.states == [State.PROCESSING, State.EXPORTED]
    report = ledger.reports[-1]
    assert (report.job_id, report.worker_id, report.instances) == (JOB_ID, "worker-1", 5)
    assert report.reason is None


def test_every_report_names_the_key_the_profile_with_its_edition_and_the_model() -> None:
    ledger = FakeLedger()
    run(ledger=ledger)
    assert len(ledger.reports) > 1
    told = {(one.key_id, one.profile, one.edition, one.model) for one in ledger.reports}
    made_with = (TOOLS.pseudonyms.key_id, TOOLS.profile.digest, TABLE_EDITION)
    assert told == {(*made_with, TOOLS.engine.model.digest)}


def drawing(content: bytes, tools: Tools) -> Anonymized:
    """Anonymise as ``safe`` does, and show it beside its original."""
    shown = SideBySide({"rows": 20.0}, tuple(b"\xff\xd8\xff" + content for _ in range(4)))
    return replace(safe(content, tools), side_by_side=shown)


def test_exported_images_are_shown_side_by_side_before_the_end_is_reported() -> None:
    ledger = FakeLedger()
    assert run(ledger=ledger, anonymize=drawing) == Outcome(State.EXPORTED)
    assert [(one.number, one.count) for one in ledger.images] == [(n, 5) for n in range(1, 6)]
    assert ledger.images[3].pictures[0].endswith(FIVE[instance_id(3)])
    assert ledger.reports[-1].measures["images_shown"] == 5


def test_an_export_stands_without_its_pictures() -> None:
    ledger = FakeLedger(keeps_pictures=False)
    assert run(ledger=ledger, anonymize=drawing) == Outcome(State.EXPORTED)
    assert "images_shown" not in ledger.reports[-1].measures


def test_a_worker_with_another_key_gives_the_message_back_and_opens_nothing() -> None:
    class Other(FakeLedger):
        def report(self, report: StudyReport) -> Claim:
            super().report(report)
            return Claim(proceed=False, another_key=True)

    source, ledger = FakeSource(dict(FIVE)), Other()
    outcome = run(source, ledger=ledger, tools=replace(TOOLS, retired=(PSEUDONYMS,)))
    assert outcome == Outcome(None, Reason.ANOTHER_KEY, again=True)
    assert ledger.reports[0].retired_keys == (PSEUDONYMS.key_id,)
    assert source.fetched == []


def test_no_time_is_left_for_pictures_when_the_study_took_all_of_it() -> None:
    now = {"seconds": 0.0}

    class Slow(FakeTarget):
        def withdraw_others(
            self, kept: Sequence[Anonymized], sent: Sent, may_go_on: Check = unhindered
        ) -> None:
            super().withdraw_others(kept, sent, may_go_on)  # the last step of an export
            now["seconds"] = 2.0

    ledger = FakeLedger()
    outcome = run(
        target=Slow(),
        ledger=ledger,
        anonymize=drawing,
        max_seconds=1,
        clock=lambda: now["seconds"],
    )
    assert outcome == Outcome(State.EXPORTED)
    assert ledger.images == []


def test_nothing_is_shown_of_a_study_that_is_held_back() -> None:
    ledger = FakeLedger()

    def anonymize(content: bytes, tools: Tools) -> Anonymized:
        return rejecting(4)(content, tools) if content.endswith(b"4") else drawing(content, tools)

    assert run(ledger=ledger, anonymize=anonymize).state is State.QUARANTINED
    assert ledger.images == []


def test_an_export_says_how_many_targets_cannot_show_that_they_hold_it() -> None:
    for proves, unproved in ((True, 0.0), (False, 1.0)):
        ledger = FakeLedger()
        run(target=FakeTarget(proves=proves), ledger=ledger)
        assert ledger.reports[-1].measures["targets_unproved"] == unproved


def test_the_report_has_the_seconds_of_each_step_of_all_instances() -> None:
    ledger = FakeLedger()
    run(ledger=ledger)
    durations = ledger.reports[-1].durations
    assert durations["decode"] == pytest.approx(2.5)
    assert durations["deform"] == pytest.approx(5.0)
    assert set(durations) == {"fetch", "decode", "deform", "store", "verify"}


def test_without_a_claim_nothing_is_read_stored_or_said() -> None:
    source, target = FakeSource(dict(FIVE)), FakeTarget()
    ledger = FakeLedger(refuses=frozenset({State.PROCESSING}))
    assert run(source, target, ledger) == Outcome(None)
    assert source.fetched == []
    assert target.stores == 0
    assert len(ledger.reports) == 1


def test_a_study_that_cannot_be_claimed_is_tried_again() -> None:
    source = FakeSource(dict(FIVE))
    ledger = FakeLedger(unreachable_on=frozenset({State.PROCESSING}))
    outcome = run(source, ledger=ledger)
    assert outcome.again
    assert source.fetched == []


@given(st.integers(0, 4))
def test_nothing_is_exported_unless_every_instance_is_safe(number: int) -> None:
    target, ledger = FakeTarget(), FakeLedger()
    outcome = run(target=target, ledger=ledger, anonymize=rejecting(number))
    assert outcome == Outcome(State.QUARANTINED, Reason.BURNED_IN_TEXT)
    assert target.stores == 0
    assert ledger.reports[-1].state is State.QUARANTINED
    assert ledger.reports[-1].reason is Reason.BURNED_IN_TEXT


def test_pictures_of_what_is_in_doubt_are_handed_over_and_told_nowhere(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ledger = FakeLedger()
    with caplog.at_level("DEBUG"):
        outcome = run(ledger=ledger, anonymize=rejecting(0, pictures=(PICTURE,)))
    assert outcome == Outcome(State.QUARANTINED, Reason.BURNED_IN_TEXT)
    (shown,) = ledger.shown
    assert (shown.job_id, shown.attempt, shown.pictures) == (JOB_ID, 1, (PICTURE,))
    assert ledger.reports[-1].measures == {"text_pictures": 1}
    assert "CANARYPICTURE" not in repr(ledger.shown) + repr(ledger.reports) + caplog.text


def test_a_study_in_doubt_is_quarantined_without_its_pictures_when_they_cannot_be_kept() -> None:
    ledger = FakeLedger(keeps_pictures=False)
    outcome = run(ledger=ledger, anonymize=rejecting(0, pictures=(PICTURE,)))
    assert outcome.state is State.QUARANTINED
    assert ledger.reports[-1].measures == {}


@given(st.integers(0, 4))
def test_a_new_unsafe_instance_withdraws_what_an_earlier_revision_exported(number: int) -> None:
    target = FakeTarget(study_uid=PSEUDONYMS.uid(STUDY_UID))
    run(FakeSource({k: v for k, v in FIVE.items() if not k.endswith(str(number))}), target)
    assert len(target.held) == 4
    source = FakeSource(dict(FIVE), study_uid=STUDY_UID)
    outcome = run(source, target, revision=2, anonymize=rejecting(number))
    assert outcome.state is State.QUARANTINED
    assert target.held == {}


# All of these left something at the target in earlier days: the withdrawal knew only the instances
# that the attempt itself had anonymised.
@pytest.mark.parametrize("revision", [1, 2])
def test_a_study_of_too_many_instances_withdraws_what_was_exported_before(revision: int) -> None:
    source = FakeSource(dict(FIVE), study_uid=STUDY_UID)
    target = FakeTarget(held=exported(3), study_uid=PSEUDONYMS.uid(STUDY_UID))
    outcome = run(source, target, revision=revision, max_instances=4)
    assert outcome.reason is Reason.TOO_MANY_INSTANCES
    assert target.held == {}


@pytest.mark.parametrize("revision", [1, 2])
def test_an_instance_that_was_exported_and_is_now_turned_away_is_withdrawn(revision: int) -> None:
    """At revision 1 it was a killed attempt that left it."""
    source = FakeSource({instance_id(0): b"original 0"}, study_uid=STUDY_UID)
    target = FakeTarget(held=exported(1), study_uid=PSEUDONYMS.uid(STUDY_UID))
    outcome = run(source, target, revision=revision, anonymize=rejecting(0))
    assert outcome.state is State.QUARANTINED
    assert target.held == {}


def test_only_the_study_itself_is_withdrawn_and_by_its_pseudonym() -> None:
    source = FakeSource(dict(FIVE), study_uid=STUDY_UID)
    target = FakeTarget(held={"2.25.99": b"another study's"}, study_uid="2.25.98")
    run(source, target, anonymize=rejecting(0))
    assert target.held == {"2.25.99": b"another study's"}
    assert target.withdrawn == [PSEUDONYMS.uid(STUDY_UID)]


@pytest.mark.parametrize("anonymize", [safe, rejecting(0)])
def test_what_was_exported_under_a_retired_key_is_withdrawn(anonymize: Anonymizer) -> None:
    retired = Pseudonyms(b"\7" * 32)
    source = FakeSource(dict(FIVE), study_uid=STUDY_UID)
    target = FakeTarget()
    run(source, target, tools=replace(TOOLS, retired=(retired,)), anonymize=anonymize)
    assert retired.uid(STUDY_UID) in target.withdrawn
    assert (PSEUDONYMS.uid(STUDY_UID) in target.withdrawn) == (anonymize is not safe)


def test_every_report_says_which_keys_are_retired() -> None:
    retired, ledger = Pseudonyms(b"\7" * 32), FakeLedger()
    run(ledger=ledger, tools=replace(TOOLS, retired=(retired,)))
    assert {report.retired_keys for report in ledger.reports} == {(retired.key_id,)}


def test_a_study_that_keeps_its_uid_is_not_withdrawn_with_a_retired_key() -> None:
    profile = Profile.made_of("uids", [Option.UIDS])
    tools = replace(TOOLS, retired=(Pseudonyms(b"\7" * 32),), profile=profile)
    target = FakeTarget()
    outcome = run(FakeSource(dict(FIVE), study_uid=STUDY_UID), target, tools=tools)
    assert outcome.state is State.EXPORTED
    assert target.withdrawn == []


def test_a_quarantine_is_reported_when_nothing_is_left_at_the_target() -> None:
    target, ledger = FakeTarget(held=exported()), FakeLedger()
    held_at_report: list[int] = []
    ledger.on_report = lambda report: (
        held_at_report.append(len(target.held)) if report.state is State.QUARANTINED else None
    )
    run(target=target, ledger=ledger, anonymize=rejecting(4))
    assert held_at_report == [0]


def test_a_quarantine_waits_for_a_target_that_does_not_let_go_of_the_study(
    caplog: pytest.LogCaptureFixture,
) -> None:
    target, ledger = FakeTarget(held=exported(), refuse_withdrawal=True), FakeLedger()
    outcome = run(target=target, ledger=ledger, anonymize=rejecting(4))
    assert outcome == Outcome(State.QUEUED, Reason.TARGET_UNREACHABLE, again=True)
    ledger.left = 1
    outcome = run(target=target, ledger=ledger, anonymize=rejecting(4))
    assert outcome == Outcome(State.QUARANTINED, Reason.BURNED_IN_TEXT)
    assert caplog.text.count("the study may be left at the export target") == 2


def test_a_quarantine_of_an_old_revision_withdraws_nothing() -> None:
    target, ledger, source = FakeTarget(), FakeLedger(), FakeSource(dict(FIVE))
    newer: list[Outcome] = []

    def newer_revision_is_exported(_instance: str) -> None:
        source.on_fetch = lambda _instance: None
        newer.append(run(target=target, ledger=ledger, revision=2))

    source.on_fetch = newer_revision_is_exported
    assert run(source, target, ledger, anonymize=rejecting(0)) == Outcome(None)
    assert newer == [Outcome(State.EXPORTED)]
    assert target.held == exported()
    assert target.withdrawn == []


def test_a_quarantine_that_cannot_be_reported_is_tried_again() -> None:
    ledger = FakeLedger(unreachable_on=frozenset({State.QUARANTINED}))
    outcome = run(ledger=ledger, anonymize=rejecting(0))
    assert outcome.again


def test_more_instances_than_allowed_are_turned_away_unread() -> None:
    source, ledger = FakeSource(dict(FIVE)), FakeLedger()
    assert run(source, ledger=ledger, max_instances=4).reason is Reason.TOO_MANY_INSTANCES
    assert source.fetched == []
    assert run(max_instances=5).state is State.EXPORTED


def test_more_bytes_than_allowed_are_turned_away_unread() -> None:
    source, ledger = FakeSource(dict(FIVE)), FakeLedger()
    size = sum(map(len, FIVE.values()))
    assert run(source, ledger=ledger, max_bytes=size - 1).reason is Reason.TOO_LARGE
    assert source.fetched == []
    assert run(max_bytes=size).state is State.EXPORTED


def test_results_that_come_to_more_bytes_than_allowed_are_turned_away_before_the_next() -> None:
    """Compressed originals may be a hundredth of what is made of them."""

    def inflating(content: bytes, tools: Tools) -> Anonymized:
        return replace(safe(content, tools), content=Released(bytes(1000)))

    source, target = FakeSource(dict(FIVE)), FakeTarget()
    outcome = run(source, target, max_bytes=2500, anonymize=inflating)
    assert (outcome.state, outcome.reason) == (State.QUARANTINED, Reason.TOO_LARGE)
    assert len(source.fetched) == 3
    assert target.held == {}


@pytest.mark.parametrize("other", [{"patient_id": "OTHER"}, {"study_uid": "2.25.77"}])
def test_a_study_that_mixes_patients_or_studies_is_turned_away(other: Mapping[str, str]) -> None:
    target = FakeTarget()

    def anonymize(content: bytes, tools: Tools) -> Anonymized:
        if content.endswith(b"3"):
            return anonymized(**other)  # type: ignore[arg-type]
        return safe(content, tools)

    outcome = run(target=target, anonymize=anonymize)
    assert outcome.state is State.QUARANTINED
    assert target.stores == 0


@pytest.mark.parametrize(
    ("revision", "claim", "withdrawn"), [(1, 1, False), (1, 2, True), (2, 1, True)]
)
def test_a_study_whose_uid_another_patient_has_too_is_turned_away_unread(
    revision: int, claim: int, withdrawn: bool
) -> None:
    source, target = FakeSource(dict(FIVE), study_uid="1.2.3"), FakeTarget()
    ledger = FakeLedger(revision=revision, attempts=claim - 1, others=1)
    outcome = run(source, target, ledger, revision=revision)
    assert (outcome.state, outcome.reason) == (State.QUARANTINED, Reason.MIXED_PATIENTS)
    assert source.fetched == []
    # What bears its name there before its first attempt is the other patient's.
    assert bool(target.withdrawn) == withdrawn


def test_objects_that_differ_and_share_their_sop_instance_uid_are_turned_away() -> None:
    target = FakeTarget()

    def anonymize(content: bytes, tools: Tools) -> Anonymized:
        return anonymized(content, "2.25.3")

    outcome = run(target=target, anonymize=anonymize)
    assert (outcome.state, outcome.reason) == (State.QUARANTINED, Reason.AMBIGUOUS_INSTANCE)
    assert target.stores == 0


def test_a_study_that_was_deleted_at_the_source_has_failed_for_good() -> None:
    ledger = FakeLedger()
    assert run(FakeSource({}, gone=True), ledger=ledger) == Outcome(State.FAILED, Reason.GONE)
    assert ledger.reports[-1].reason is Reason.GONE


@pytest.mark.parametrize(("revision", "attempts"), [(1, 0), (1, 1), (2, 0)])
def test_what_a_study_that_is_gone_may_have_left_is_said(
    revision: int, attempts: int, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = FakeLedger(revision=revision, attempts=attempts)
    run(FakeSource({}, gone=True), ledger=ledger, revision=revision)
    assert ("cannot be named" in caplog.text) is (revision + attempts > 1)


def test_a_study_that_was_deleted_while_it_was_read_is_withdrawn() -> None:
    source, target = FakeSource(dict(FIVE)), FakeTarget(held=exported(2))

    def delete(_instance: str) -> None:
        source.gone = True

    source.on_fetch = delete
    assert run(source, target) == Outcome(State.FAILED, Reason.GONE)
    assert target.held == {}


def test_neither_the_studys_name_nor_its_pseudonym_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = FakeSource(dict(FIVE), study_uid=STUDY_UID)
    assert STUDY_UID not in repr(source.snapshot(study_message().study_id))
    with caplog.at_level(logging.DEBUG):
        run(source, FakeTarget(refuse_withdrawal=True), anonymize=rejecting(0))
    assert "may be left" in caplog.text
    assert STUDY_UID not in caplog.text
    assert PSEUDONYMS.uid(STUDY_UID) not in caplog.text


def _add_instance(source: FakeSource) -> None:
    source.instances[instance_id(9)] = b"original 9"


def _delete_instance(source: FakeSource) -> None:
    del source.instances[instance_id(4)]


def _replace_instance(source: FakeSource) -> None:
    source.version = "2"


@pytest.mark.parametrize("change", [_add_instance, _delete_instance, _replace_instance])
def test_a_study_that_changes_while_it_is_read_is_not_exported(
    change: Callable[[FakeSource], None],
) -> None:
    source, target, ledger = FakeSource(dict(FIVE)), FakeTarget(), FakeLedger()
    source.on_fetch = lambda instance: change(source) if instance.endswith("2") else None
    outcome = run(source, target, ledger)
    assert outcome == Outcome(State.QUEUED, Reason.CHANGED_MEANWHILE, again=True)
    assert target.stores == 0


def test_a_study_without_instances_is_not_exported() -> None:
    assert run(FakeSource({})).reason is Reason.CHANGED_MEANWHILE


@given(st.integers(0, 4))
def test_a_target_that_stops_answering_keeps_nothing_of_the_study(taken: int) -> None:
    target, ledger = FakeTarget(refuse_after=taken), FakeLedger()
    outcome = run(target=target, ledger=ledger)
    expected = Outcome(State.QUEUED, Reason.TARGET_UNREACHABLE, again=True)
    assert outcome == expected
    assert target.held == {}
    assert ledger.states == [State.PROCESSING, State.QUEUED]


@given(st.binary(max_size=20).filter(lambda content: not content.startswith(b"safe")))
def test_what_reads_back_differently_is_not_called_exported(held: bytes) -> None:
    target, ledger = FakeTarget(alter=lambda _content: held), FakeLedger()
    outcome = run(target=target, ledger=ledger)
    assert outcome.reason is Reason.READ_BACK_DIFFERS
    assert target.held == {}
    assert State.EXPORTED not in ledger.states


@pytest.mark.parametrize("left", [1, 2])
def test_after_the_last_attempt_the_study_has_failed_with_its_reason(left: int) -> None:
    source, target, ledger = FakeSource(dict(FIVE)), FakeTarget(), FakeLedger(left=left)
    source.on_fetch = lambda _instance: _add_instance(source)
    outcome = run(source, target, ledger)
    if left == 1:
        assert outcome == Outcome(State.FAILED, Reason.CHANGED_MEANWHILE)
        assert target.withdrawn == ["2.25.1"]
    else:
        assert outcome == Outcome(State.QUEUED, Reason.CHANGED_MEANWHILE, again=True)
    assert ledger.reports[-1].reason is Reason.CHANGED_MEANWHILE


def test_a_target_to_blame_ends_no_study_the_plugin_may_not_count_the_attempt() -> None:
    target, ledger = FakeTarget(refuse_after=2), FakeLedger(left=1)
    again = Outcome(State.QUEUED, Reason.TARGET_UNREACHABLE, again=True)
    assert run(target=target, ledger=ledger) == again
    assert target.held == {}
    ledger.final = True
    assert run(target=target, ledger=ledger) == Outcome(State.FAILED, Reason.TARGET_UNREACHABLE)


def test_an_unexpected_error_is_given_back_without_a_word_of_its_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def anonymize(_content: bytes, _tools: Tools) -> Anonymized:
        raise ValueError("DOE^JANE")

    ledger = FakeLedger()
    with caplog.at_level(logging.DEBUG):
        outcome = run(ledger=ledger, anonymize=anonymize)
    assert outcome == Outcome(State.QUEUED, Reason.UNEXPECTED, again=True)
    assert "ValueError at prichexy_worker.study:" in caplog.text
    assert "DOE" not in caplog.text


def test_an_unexpected_error_while_withdrawing_gives_the_study_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(FakeTarget):
        def withdraw_study(self, study_uid: str, sent: Sent) -> bool:
            raise ValueError(f"{study_uid} DOE^JANE {sent}")

    ledger = FakeLedger(attempts=1)
    source = FakeSource(dict(FIVE), study_uid=STUDY_UID)
    with caplog.at_level(logging.DEBUG):
        outcome = run(source, Broken(), ledger, anonymize=rejecting(3))
    assert outcome == Outcome(None, Reason.UNEXPECTED, again=True)
    assert ledger.ended is None
    assert "DOE" not in caplog.text


def test_every_report_has_the_number_that_the_claim_gave() -> None:
    ledger = FakeLedger(revision=1, attempts=2)
    run(ledger=ledger)
    assert [(one.state, one.attempt) for one in ledger.reports] == [
        (State.PROCESSING, 0),
        (State.EXPORTED, 3),
    ]
    assert {one.attempt for one in ledger.questions} == {3}


def test_a_late_worker_removes_nothing_that_another_exported() -> None:
    """The broker gave the study to a second worker, which finished it meanwhile."""
    ledger, target = FakeLedger(), FakeTarget()
    second: list[Outcome] = []

    def second_worker_finishes(instance: Anonymized) -> None:
        if instance.sop_uid == "2.25.2":
            target.on_store = lambda _instance: None
            second.append(run(target=target, ledger=ledger))
            raise Retryable(Reason.TARGET_UNREACHABLE)

    target.on_store = second_worker_finishes
    assert run(target=target, ledger=ledger) == Outcome(None)
    assert second == [Outcome(State.EXPORTED)]
    assert target.held == exported()
    assert target.withdrawn == []


class HandsOver(FakeLedger):
    """Plays a second worker that exports the study as soon as the first has given it back."""

    def __init__(self, target: FakeTarget) -> None:
        super().__init__()
        self.target = target
        self.second: list[Outcome] = []

    def report(self, report: StudyReport) -> Claim:
        claim = super().report(report)
        if report.state is State.QUEUED and claim.proceed:
            self.target.refuse_after = None
            self.second.append(run(target=self.target, ledger=self))
        return claim


def test_what_the_next_worker_exports_is_not_removed_by_the_one_that_gave_it_back() -> None:
    target = FakeTarget(refuse_after=2)
    ledger = HandsOver(target)
    assert run(target=target, ledger=ledger).state is State.QUEUED
    assert ledger.second == [Outcome(State.EXPORTED)]
    assert ledger.states[-1] is State.EXPORTED
    assert target.held == exported()


@pytest.mark.parametrize("revision", [1, 2])
def test_a_worker_whose_claim_was_taken_over_stores_nothing(revision: int) -> None:
    """By another attempt, or by a newer revision."""
    ledger, target, source = FakeLedger(), FakeTarget(), FakeSource(dict(FIVE))
    other = StudyReport(JOB_ID, revision, State.PROCESSING, "worker-2")
    source.on_fetch = lambda instance: (
        None if not instance.endswith("4") else ledger.report(other) and None
    )
    assert run(source, target, ledger) == Outcome(None)
    assert target.stores == 0
    assert target.withdrawn == []


def test_a_worker_that_loses_its_claim_while_it_stores_stops_there() -> None:
    ledger, target = FakeLedger(), FakeTarget()
    other = StudyReport(JOB_ID, 1, State.PROCESSING, "worker-2")
    target.on_store = lambda instance: (
        None if instance.sop_uid != "2.25.2" else ledger.report(other) and None
    )
    assert run(target=target, ledger=ledger) == Outcome(None)
    assert target.stores == 3
    assert target.withdrawn == []


def test_while_the_ledger_does_not_answer_nothing_is_removed_and_it_is_tried_again() -> None:
    target, ledger = FakeTarget(refuse_after=2), FakeLedger()

    def goes_away(instance: Anonymized) -> None:
        ledger.unsure = instance.sop_uid == "2.25.2"

    target.on_store = goes_away
    outcome = run(target=target, ledger=ledger)
    assert outcome.again
    assert len(target.held) == 2


@pytest.mark.parametrize("stored", range(5))
def test_a_failed_attempt_at_a_later_revision_leaves_what_the_earlier_one_exported(
    stored: int,
) -> None:
    target, ledger = FakeTarget(), FakeLedger()
    three = {name: content for name, content in FIVE.items() if name < instance_id(3)}
    assert run(FakeSource(three), target, ledger).state is State.EXPORTED
    target.refuse_after = target.stores + stored
    outcome = run(target=target, ledger=ledger, revision=2)
    assert outcome == Outcome(State.QUEUED, Reason.TARGET_UNREACHABLE, again=True)
    assert target.held == exported(3)
    target.refuse_after = None
    assert run(target=target, ledger=ledger, revision=2).state is State.EXPORTED
    assert target.held == exported()


def test_a_study_that_has_failed_for_good_leaves_nothing_of_any_revision() -> None:
    target, ledger = FakeTarget(held=exported(3), refuse_after=4), FakeLedger(left=1, final=True)
    outcome = run(target=target, ledger=ledger, revision=2)
    assert outcome.state is State.FAILED
    assert target.held == {}


def _opened(_content: bytes, _tools: Tools) -> Anonymized:
    pytest.fail("an instance was opened")


def test_a_study_that_killed_its_workers_is_withdrawn_and_given_up_unopened() -> None:
    """The earlier revision's export stayed at the target when the plugin alone ended the study."""
    source = FakeSource(dict(FIVE), study_uid=STUDY_UID)
    target = FakeTarget(held=exported(3), study_uid=PSEUDONYMS.uid(STUDY_UID))
    ledger = FakeLedger(revision=2, attempts=MAX_ATTEMPTS, left=0)
    outcome = run(source, target, ledger, revision=2, anonymize=_opened)
    assert outcome == Outcome(State.FAILED, Reason.TOO_MANY_ATTEMPTS)
    assert target.held == {}
    assert source.fetched == []
    assert ledger.reports[-1].attempt == MAX_ATTEMPTS + 1


def test_giving_up_waits_for_a_target_that_does_not_let_go_and_for_an_ingest_that_is_away(
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = FakeSource(dict(FIVE), study_uid=STUDY_UID)
    stuck = FakeTarget(held=exported(3), refuse_withdrawal=True)

    def given_up(*, final: bool) -> Outcome:
        ledger = FakeLedger(revision=2, attempts=MAX_ATTEMPTS, left=0, final=final)
        return run(source, stuck, ledger, revision=2, anonymize=_opened)

    again = given_up(final=False)
    assert again == Outcome(State.QUEUED, Reason.TARGET_UNREACHABLE, again=True)
    assert given_up(final=True) == Outcome(State.FAILED, Reason.TOO_MANY_ATTEMPTS)
    assert caplog.text.count("the study may be left at the export target") == 2

    source.unreachable = True
    again = given_up(final=False)
    assert again == Outcome(State.QUEUED, Reason.SOURCE_UNREACHABLE, again=True)
    assert given_up(final=True) == Outcome(State.FAILED, Reason.TOO_MANY_ATTEMPTS)
    assert "cannot be named" in caplog.text


def test_giving_up_a_study_whose_claim_was_taken_over_withdraws_nothing() -> None:
    target = FakeTarget(held=exported(3))
    ledger = FakeLedger(revision=2, attempts=MAX_ATTEMPTS, left=0)
    newer = StudyReport(JOB_ID, 3, State.PROCESSING, "worker-2")
    source = FakeSource(dict(FIVE), on_snapshot=lambda: ledger.report(newer) and None)
    assert run(source, target, ledger, revision=2) == Outcome(None)
    assert target.held == exported(3)


@pytest.mark.parametrize("revision", [1, 2])
def test_an_instance_that_the_study_lost_is_taken_from_the_target(revision: int) -> None:
    """It stayed there, exported by an earlier revision or by an attempt that was killed."""
    three = {name: content for name, content in FIVE.items() if name < instance_id(3)}
    target, ledger = FakeTarget(held=exported()), FakeLedger()
    assert run(FakeSource(three), target, ledger, revision=revision).state is State.EXPORTED
    assert target.held == exported(3)
    assert target.withdrawn == []


def test_a_lost_instance_that_the_target_does_not_let_go_of_is_no_export() -> None:
    three = {name: content for name, content in FIVE.items() if name < instance_id(3)}
    target = FakeTarget(held=exported(), refuse_withdrawal=True)
    outcome = run(FakeSource(three), target, revision=2)
    assert outcome == Outcome(State.QUEUED, Reason.TARGET_UNREACHABLE, again=True)


def test_a_worker_without_its_claim_takes_nothing_from_the_target() -> None:
    """Another attempt, of a study that has an instance more by now, exported it meanwhile."""
    target, ledger = FakeTarget(), FakeLedger()
    three = {name: content for name, content in FIVE.items() if name < instance_id(3)}

    def another_exports(instance: Anonymized) -> None:
        if instance.sop_uid == "2.25.2":
            target.on_store = lambda _instance: None
            assert run(target=target, ledger=ledger, revision=2).state is State.EXPORTED

    target.on_store = another_exports
    assert run(FakeSource(three), target, ledger) == Outcome(None)
    assert target.held == exported()


def test_a_source_that_stops_answering_touches_nothing_at_the_target() -> None:
    source, target = FakeSource(dict(FIVE)), FakeTarget(held=exported(2))
    source.instances.pop(instance_id(2))

    def gone(_instance: str) -> None:
        raise Retryable(Reason.SOURCE_UNREACHABLE)

    source.on_fetch = gone
    assert run(source, target).reason is Reason.SOURCE_UNREACHABLE
    assert target.held == exported(2)
    assert target.withdrawn == []


# The clock is looked at once at the start and then before each step: 5 instances are 5 steps of
# reading, one of comparing, 5 of storing, 5 of reading back. One second passes at each look.
@pytest.mark.parametrize("seconds", range(16))
def test_a_study_that_takes_too_long_is_given_back_whole(seconds: int) -> None:
    target, ledger, ticks = FakeTarget(), FakeLedger(), itertools.count()
    outcome = run(
        target=target, ledger=ledger, max_seconds=seconds, clock=lambda: float(next(ticks))
    )
    assert outcome == Outcome(State.QUEUED, Reason.TOOK_TOO_LONG, again=True)
    assert target.held == {}
    assert ledger.states == [State.PROCESSING, State.QUEUED]


@pytest.mark.parametrize("seconds", [0, 7, 15])
@pytest.mark.parametrize("left", [1, 3])
def test_a_worker_that_is_to_stop_gives_the_study_back_whole_also_at_its_last_attempt(
    seconds: int, left: int
) -> None:
    target, ticks = FakeTarget(), itertools.count()
    ledger = FakeLedger(left=left)
    outcome = run(
        target=target,
        ledger=ledger,
        leave_by=lambda: float(seconds),
        clock=lambda: float(next(ticks)),
    )
    assert outcome == Outcome(State.QUEUED, Reason.WORKER_STOPPED, again=True)
    assert target.held == {}
    assert ledger.states == [State.PROCESSING, State.QUEUED]


def test_a_study_that_ends_in_time_is_exported() -> None:
    ticks = itertools.count()
    outcome = run(max_seconds=16, clock=lambda: float(next(ticks)))
    assert outcome.state is State.EXPORTED


def test_an_export_that_cannot_be_reported_stays_and_is_repeated_alike() -> None:
    target = FakeTarget()
    ledger = FakeLedger(unreachable_on=frozenset({State.EXPORTED}))
    outcome = run(target=target, ledger=ledger)
    assert outcome.again
    first = dict(target.held)
    assert len(first) == 5
    ledger.unreachable_on = frozenset()
    assert run(target=target, ledger=ledger).state is State.EXPORTED
    assert target.held == first


def test_an_export_that_came_too_late_stays() -> None:
    target = FakeTarget()
    ledger = FakeLedger(refuses=frozenset({State.EXPORTED}))
    assert run(target=target, ledger=ledger) == Outcome(None)
    assert len(target.held) == 5


@pytest.mark.parametrize(
    ("revision", "said"), [(1, "the study may be left"), (2, "3 instances may be left")]
)
def test_what_cannot_be_withdrawn_is_said(
    revision: int, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    target = FakeTarget(refuse_after=2, refuse_withdrawal=True)
    outcome = run(target=target, revision=revision)
    assert outcome.again
    assert said in caplog.text


def test_originals_are_not_kept_while_the_study_is_worked_on() -> None:
    """Only one original is in memory at a time: it is anonymised before the next is fetched."""
    order: list[str] = []
    source = FakeSource(dict(FIVE), on_fetch=lambda instance: order.append("fetch"))

    def anonymize(content: bytes, tools: Tools) -> Anonymized:
        order.append("anonymize")
        return safe(content, tools)

    run(source, anonymize=anonymize)
    assert order == ["fetch", "anonymize"] * 5


def test_a_studys_figures_are_those_of_its_worst_image_or_the_mean() -> None:
    images = [
        {"max_displacement_px": 3.0, "mean_displacement_px": 1.0, "psnr_db": 30.0},
        {"max_displacement_px": 5.0, "mean_displacement_px": 2.0, "psnr_db": 200.0},
        {"changed_share": 0.2, "psnr_db": float("inf")},
        {"changed_share": 0.4},
    ]
    assert summarized(images) == {
        "max_displacement_px": 5.0,
        "mean_displacement_px": pytest.approx(1.5),
        "psnr_db": 30.0,
        "changed_share": pytest.approx(0.3),
    }
    assert summarized([]) == {}


def test_a_figure_that_json_does_not_know_does_not_stop_the_report() -> None:
    ledger = FakeLedger()

    def anonymize(content: bytes, tools: Tools) -> Anonymized:
        return anonymized(measures={"psnr_db": float("inf")})

    assert run(FakeSource({instance_id(1): b"1"}), ledger=ledger, anonymize=anonymize).state is (
        State.EXPORTED
    )
    assert set(ledger.reports[-1].measures) == {"targets_unproved"}


# --- What a person decides over -------------------------------------------------------------------


def doubting(*numbers: int, others: Mapping[int, Reason] = {}) -> Anonymizer:
    """Be in doubt about the originals with these numbers until somebody has looked at them."""

    def anonymize(content: bytes, tools: Tools) -> Anonymized:
        number = int(content.split()[-1])
        if number in others:
            raise Rejected(others[number])
        digest = f"{number:064x}"
        if number in numbers and digest not in tools.looked:
            doubt = Doubt(digest, 500, 600, ((1, 2, 3, 4),), PICTURE)
            raise Rejected(Reason.BURNED_IN_TEXT, pictures=(PICTURE,), doubts=(doubt,))
        return safe(content, tools)

    return anonymize


def attempt(
    message: StudyMessage,
    ledger: FakeLedger,
    target: FakeTarget | None = None,
    source: FakeSource | None = None,
    anonymize: Anonymizer = safe,
) -> Outcome:
    return process_study(
        message,
        source or FakeSource(dict(FIVE), study_uid=STUDY_UID),
        Destinations.only(target or FakeTarget()),
        ledger,
        TOOLS,
        worker_id="worker-1",
        anonymize=anonymize,
    )


def test_all_images_in_doubt_are_handed_over_at_once() -> None:
    ledger = FakeLedger()
    assert run(ledger=ledger, anonymize=doubting(1, 3)).state is State.QUARANTINED
    assert [(one.number, one.digest) for one in ledger.whole] == [
        (1, f"{1:064x}"),
        (2, f"{3:064x}"),
    ]
    assert ledger.reports[-1].measures == {"text_pictures": 2, "images_in_doubt": 2}


def test_more_images_than_a_person_is_shown_at_once_wait_for_the_next_time() -> None:
    many = {instance_id(n): f"original {n}".encode() for n in range(MOST_DOUBTS + 3)}
    ledger = FakeLedger()
    run(FakeSource(many), ledger=ledger, anonymize=doubting(*range(MOST_DOUBTS + 3)))
    assert len(ledger.whole) == MOST_DOUBTS


def test_what_can_never_be_released_is_what_a_study_is_held_for_whatever_else_is_in_doubt() -> None:
    for others in ({0: Reason.MULTI_FRAME}, {4: Reason.MULTI_FRAME}):
        ledger = FakeLedger()
        outcome = run(ledger=ledger, anonymize=doubting(1, 3, others=others))
        assert outcome == Outcome(State.QUARANTINED, Reason.MULTI_FRAME)
        assert ledger.whole == []


def test_a_study_in_doubt_is_quarantined_without_its_images_when_they_cannot_be_kept() -> None:
    ledger = FakeLedger(keeps_pictures=False)
    assert run(ledger=ledger, anonymize=doubting(1)).state is State.QUARANTINED
    assert ledger.reports[-1].measures == {}


def test_what_a_person_decided_reaches_the_images_and_those_that_came_since_are_judged() -> None:
    looked = (Looked(f"{1:064x}"), Looked(f"{3:064x}"))
    target = FakeTarget()
    message = replace(study_message(2), looked=looked)
    assert attempt(message, FakeLedger(), target, anonymize=doubting(1, 3)).state is State.EXPORTED
    assert target.held == exported()
    ledger = FakeLedger()
    outcome = attempt(message, ledger, target, anonymize=doubting(1, 3, 4))
    assert outcome == Outcome(State.QUARANTINED, Reason.BURNED_IN_TEXT)
    assert [one.digest for one in ledger.whole] == [f"{4:064x}"]


# --- An export that is taken back -----------------------------------------------------------------


def withdrawal(revision: int = 2) -> StudyMessage:
    return replace(study_message(revision), errand=Errand.WITHDRAW)


def held_target(**values: object) -> FakeTarget:
    uid = PSEUDONYMS.uid(STUDY_UID)
    return FakeTarget(held=exported(), study_uid=uid, **values)  # type: ignore[arg-type]


def test_an_export_is_taken_back_without_a_look_at_any_image() -> None:
    target, ledger = held_target(), FakeLedger()
    source = FakeSource(dict(FIVE), study_uid=STUDY_UID)
    for _again in range(2):
        ledger.ended, ledger.attempts = None, 0
        assert attempt(withdrawal(), ledger, target, source) == Outcome(
            State.REJECTED, Reason.WITHDRAWN
        )
        assert target.held == {}
    assert source.fetched == []
    assert ledger.reports[-1].left_at == ()


def test_a_target_that_does_not_let_go_is_tried_again_and_named_at_last() -> None:
    target, ledger = held_target(refuse_withdrawal=True), FakeLedger()
    outcome = attempt(withdrawal(), ledger, target)
    assert (outcome.state, outcome.again) == (State.QUEUED, True)
    assert (ledger.reports[-1].reason, ledger.reports[-1].target) == (
        Reason.TARGET_UNREACHABLE,
        "export",
    )
    ledger = FakeLedger(left=1)
    outcome = attempt(withdrawal(), ledger, target)
    assert outcome == Outcome(State.FAILED, Reason.TARGET_UNREACHABLE)
    assert ledger.reports[-1].left_at == ("export",)


def test_a_target_that_cannot_take_back_is_named_and_the_others_let_go() -> None:
    target, keeps = held_target(), FakeTarget(recalls=False)
    ledger = FakeLedger()
    outcome = process_study(
        withdrawal(),
        FakeSource(dict(FIVE), study_uid=STUDY_UID),
        Destinations({"archive": target, "pacs": keeps}, frozenset({"archive", "pacs"})),
        ledger,
        TOOLS,
        anonymize=safe,
    )
    assert outcome.state is State.REJECTED
    assert target.held == {}
    assert ledger.reports[-1].left_at == ("pacs",)
    assert ledger.reports[-1].measures == {"targets_not_withdrawn": 1}


def test_a_withdrawal_at_a_target_that_this_worker_does_not_know_is_not_said_to_be_done() -> None:
    target = held_target()
    message = replace(withdrawal(), targets=("export", "elsewhere"))
    for left, state in ((MAX_ATTEMPTS, State.QUEUED), (1, State.FAILED)):
        ledger = FakeLedger(left=left)
        outcome = attempt(message, ledger, target)
        assert (outcome.state, outcome.reason) == (state, Reason.UNKNOWN_TARGET)


def test_a_study_that_is_gone_cannot_be_withdrawn_any_more_and_the_targets_are_named() -> None:
    target, ledger = held_target(), FakeLedger()
    source = FakeSource(dict(FIVE), study_uid=STUDY_UID, gone=True)
    outcome = attempt(withdrawal(), ledger, target, source)
    assert outcome == Outcome(State.FAILED, Reason.GONE)
    assert ledger.reports[-1].left_at == ("export",)


def test_a_withdrawal_of_an_older_revision_removes_nothing() -> None:
    target, ledger = held_target(), FakeLedger(revision=3)
    assert attempt(withdrawal(), ledger, target).state is None
    assert target.held == exported()


@pytest.mark.parametrize("gone", [False, True])
def test_a_withdrawal_needs_no_original_where_the_ledger_knows_the_name(gone: bool) -> None:
    target, ledger = held_target(), FakeLedger(sent_as=(PSEUDONYMS.uid(STUDY_UID),))
    source = FakeSource(dict(FIVE), study_uid="" if not gone else STUDY_UID, gone=gone)
    outcome = attempt(withdrawal(), ledger, target, source)
    assert outcome == Outcome(State.REJECTED, Reason.WITHDRAWN)
    assert target.held == {}
    assert ledger.reports[-1].left_at == ()


def test_a_withdrawal_takes_back_what_stands_under_any_name() -> None:
    old = Pseudonyms(b"\7" * 32).uid(STUDY_UID)
    target, ledger = held_target(), FakeLedger(sent_as=(old,))
    attempt(withdrawal(), ledger, target, FakeSource(dict(FIVE), study_uid=STUDY_UID))
    assert set(target.withdrawn) == {old, PSEUDONYMS.uid(STUDY_UID)}


def test_a_study_that_is_gone_keeps_an_export_that_nobody_withdrew() -> None:
    target, ledger = held_target(), FakeLedger(sent_as=())
    source = FakeSource(dict(FIVE), study_uid=STUDY_UID, gone=True)
    assert attempt(study_message(2), ledger, target, source).reason is Reason.GONE
    assert target.held == exported()


def test_the_ledger_is_told_the_name_before_anything_is_sent() -> None:
    ledger, target = FakeLedger(), FakeTarget()
    told: list[tuple[str, int]] = []
    ledger.on_report = lambda report: told.append((report.study_uid, len(target.held)))
    source = FakeSource(dict(FIVE), study_uid=STUDY_UID)
    assert attempt(study_message(), ledger, target, source).state is State.EXPORTED
    assert (PSEUDONYMS.uid(STUDY_UID), 0) in told


def test_a_name_that_is_the_study_s_own_is_not_told() -> None:
    ledger = FakeLedger()
    tools = replace(TOOLS, profile=Profile.made_of("uids", [Option.UIDS]))
    source = FakeSource(dict(FIVE), study_uid=STUDY_UID)
    assert run(source, ledger=ledger, tools=tools).state is State.EXPORTED
    assert {report.study_uid for report in (*ledger.reports, *ledger.questions)} == {""}
