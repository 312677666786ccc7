"""Several export targets: each of them gets the study, or none keeps it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prichexy_testing.fakes_worker import (
    FakeLedger,
    FakeSource,
    FakeTarget,
    IdleDeformer,
    anonymized,
    instance_id,
    study_message,
)
from prichexy_testing.finders import Finds
from prichexy_worker.contract import Reason, State
from prichexy_worker.destinations import Destinations
from prichexy_worker.errors import Rejected, Retryable
from prichexy_worker.pipeline import Anonymized, Tools
from prichexy_worker.pseudonyms import Pseudonyms
from prichexy_worker.sent import Image, marks_of, older_mark_of
from prichexy_worker.study import Outcome, process_study

PSEUDONYMS = Pseudonyms(bytes(range(32)))
TOOLS = Tools(engine=IdleDeformer(), pseudonyms=PSEUDONYMS, text_finder=Finds())
STUDY_UID = "1.2.840.99999.1"
PSEUDO_UID = PSEUDONYMS.uid(STUDY_UID)
THREE = {instance_id(number): str(number).encode() for number in range(3)}
EXPORTED = {f"2.25.{number}": f"safe {number}".encode() for number in range(3)}


def safe(content: bytes, _tools: Tools) -> Anonymized:
    number = content.decode()
    return anonymized(f"safe {number}".encode(), f"2.25.{number}", study_uid=PSEUDO_UID)


def unsafe(_content: bytes, _tools: Tools) -> Anonymized:
    raise Rejected(Reason.BURNED_IN_TEXT)


def target(**options: object) -> FakeTarget:
    return FakeTarget(study_uid=PSEUDO_UID, **options)  # type: ignore[arg-type]


@dataclass
class Gateway:
    """A worker's targets; those of ``default`` get a study that names none."""

    targets: dict[str, FakeTarget]
    default: frozenset[str]

    def run(
        self,
        *names: str,
        revision: int = 1,
        safely: bool = True,
        ledger: FakeLedger | None = None,
        source: FakeSource | None = None,
    ) -> Outcome:
        return process_study(
            study_message(revision, targets=names),
            source or FakeSource(dict(THREE), study_uid=STUDY_UID),
            Destinations(self.targets, self.default),
            ledger or FakeLedger(),
            TOOLS,
            anonymize=safe if safely else unsafe,
        )

    def held(self) -> dict[str, int]:
        return {name: len(target.held) for name, target in self.targets.items()}


def gateway(default: tuple[str, ...] = ("a", "b"), **targets: FakeTarget) -> Gateway:
    return Gateway(targets or {"a": target(), "b": target(), "c": target()}, frozenset(default))


def test_a_study_goes_to_each_target_that_its_message_names_and_to_no_other() -> None:
    site = gateway()
    assert site.run("b", "c").state is State.EXPORTED
    assert site.held() == {"a": 0, "b": 3, "c": 3}
    assert site.targets["b"].held == site.targets["c"].held == EXPORTED


def test_a_study_that_names_none_goes_to_the_default_ones() -> None:
    site = gateway(default=("a", "c"))
    assert site.run().state is State.EXPORTED
    assert site.held() == {"a": 3, "b": 0, "c": 3}


def test_a_name_that_this_worker_does_not_know_sends_the_study_nowhere(
    caplog: pytest.LogCaptureFixture,
) -> None:
    site = gateway()
    assert site.run("a", "d") == Outcome(State.QUEUED, Reason.UNKNOWN_TARGET, again=True)
    assert site.held() == {"a": 0, "b": 0, "c": 0}
    assert "(d)" in caplog.text


def test_an_unknown_name_does_not_make_a_study_of_two_patients_be_tried_again() -> None:
    """At a second attempt what the other patient's study left would be taken for its own."""
    site = gateway()
    ledger = FakeLedger(others=1)
    assert site.run("a", "d", ledger=ledger).reason is Reason.MIXED_PATIENTS
    assert [target.withdrawn for target in site.targets.values()] == [[], [], []]


@given(st.sampled_from("abc"), st.integers(0, 2))
def test_when_one_target_fails_none_keeps_the_study(failing: str, taken: int) -> None:
    site = gateway()
    site.targets[failing].refuse_after = taken
    outcome = site.run("a", "b", "c")
    assert outcome == Outcome(State.QUEUED, Reason.TARGET_UNREACHABLE, again=True)
    assert site.held() == {"a": 0, "b": 0, "c": 0}
    site.targets[failing].refuse_after = None
    assert site.run("a", "b", "c").state is State.EXPORTED
    assert site.held() == {"a": 3, "b": 3, "c": 3}


@pytest.mark.parametrize("failing", ["a", "b"])
def test_when_one_target_holds_something_else_none_keeps_the_study(
    failing: str, caplog: pytest.LogCaptureFixture
) -> None:
    site = gateway()
    site.targets[failing].alter = bytes.upper
    assert site.run().reason is Reason.READ_BACK_DIFFERS
    assert site.held() == {"a": 0, "b": 0, "c": 0}
    assert f"({failing}: altered)" in caplog.text


@pytest.mark.parametrize("failing", ["a", "b"])
def test_a_failed_later_revision_leaves_at_every_target_what_the_earlier_one_exported(
    failing: str,
) -> None:
    site = gateway()
    site.run()
    for held in site.targets.values():
        held.held.pop("2.25.1", None)
    site.targets[failing].refuse_after = site.targets[failing].stores + 2
    assert site.run(revision=2).state is State.QUEUED
    assert site.held() == {"a": 2, "b": 2, "c": 0}


def test_what_becomes_unsafe_is_withdrawn_everywhere_also_where_it_goes_no_longer() -> None:
    site = gateway()
    site.run("a", "b")
    assert site.run("b", "c", revision=2, safely=False).state is State.QUARANTINED
    assert site.held() == {"a": 0, "b": 0, "c": 0}


def test_a_target_that_the_study_goes_to_no_longer_lets_go_of_it() -> None:
    site = gateway()
    site.run("a", "b")
    assert site.run("b", "c", revision=2).state is State.EXPORTED
    assert site.held() == {"a": 0, "b": 3, "c": 3}


def test_a_first_revision_needs_only_its_own_targets() -> None:
    """A target that is down does not hold up what never went there."""
    site = gateway(a=target(), b=target(refuse_after=0, refuse_withdrawal=True))
    assert site.run("a").state is State.EXPORTED
    assert site.run("a", safely=False).state is State.QUARANTINED
    assert site.targets["b"].withdrawn == []


def test_a_quarantine_waits_for_every_target_to_let_go() -> None:
    site = gateway(a=target(held=dict(EXPORTED)), b=target(refuse_withdrawal=True))
    ledger = FakeLedger()
    assert site.run(safely=False, ledger=ledger).state is State.QUEUED
    ledger.left = 1
    outcome = site.run(safely=False, ledger=ledger)
    assert outcome.state is State.QUARANTINED
    assert site.held()["a"] == 0
    assert ledger.reports[-1].measures == {"targets_not_withdrawn": 1.0}


# --- targets that cannot take back ----------------------------------------------------------


@given(st.integers(0, 2))
def test_what_cannot_be_taken_back_is_sent_only_when_all_others_hold_the_study(taken: int) -> None:
    site = gateway(a=target(recalls=False), b=target(refuse_after=taken))
    assert site.run().state is State.QUEUED
    assert site.targets["a"].stores == 0
    site.targets["b"].refuse_after = None
    assert site.run().state is State.EXPORTED
    assert site.held() == {"a": 3, "b": 3}


def test_it_is_never_sent_a_study_that_another_target_altered() -> None:
    site = gateway(a=target(recalls=False), b=target(alter=bytes.upper))
    assert site.run().reason is Reason.READ_BACK_DIFFERS
    assert site.targets["a"].stores == 0


@given(st.integers(1, 2))
def test_one_that_fails_midway_keeps_its_part_and_the_others_nothing(taken: int) -> None:
    site = gateway(a=target(recalls=False, refuse_after=taken), b=target())
    ledger = FakeLedger()
    assert site.run(ledger=ledger).state is State.QUEUED
    assert site.held() == {"a": taken, "b": 0}
    ledger.left, ledger.final = 1, True
    outcome = site.run(ledger=ledger)
    assert outcome == Outcome(State.FAILED, Reason.TARGET_UNREACHABLE)
    assert ledger.reports[-1].measures == {"targets_not_withdrawn": 1.0}


def test_a_study_of_which_it_was_sent_nothing_leaves_nothing_there() -> None:
    site, ledger = gateway(("a",), a=target(recalls=False)), FakeLedger()
    assert site.run(safely=False, ledger=ledger).state is State.QUARANTINED
    assert ledger.reports[-1].measures == {}


def test_a_quarantine_after_an_export_says_that_something_may_be_left(
    caplog: pytest.LogCaptureFixture,
) -> None:
    site, ledger = gateway(a=target(recalls=False), b=target()), FakeLedger()
    site.run(ledger=ledger)
    assert site.run(revision=2, safely=False, ledger=ledger).state is State.QUARANTINED
    assert site.held() == {"a": 3, "b": 0}
    assert ledger.reports[-1].measures == {"targets_not_withdrawn": 1.0}
    assert "something of the study may be left at: a" in caplog.text


def test_a_study_that_cannot_be_named_any_more_may_be_left_everywhere() -> None:
    site, ledger = gateway(), FakeLedger()
    site.run(ledger=ledger)
    source = FakeSource(dict(THREE), gone=True)
    outcome = process_study(
        study_message(revision=2),
        source,
        Destinations(site.targets, site.default),
        ledger,
        TOOLS,
        anonymize=safe,
    )
    assert outcome == Outcome(State.FAILED, Reason.GONE)
    assert ledger.reports[-1].measures == {"targets_not_withdrawn": 3.0}


@pytest.mark.parametrize("failing", ["one", "two"])
def test_the_report_names_the_target_that_failed(failing: str) -> None:
    ledger = FakeLedger()
    targets = {name: target(refuse_after=1 if name == failing else None) for name in ("one", "two")}
    outcome = Gateway(targets, frozenset(targets)).run(ledger=ledger)
    assert outcome.reason is Reason.TARGET_UNREACHABLE
    assert ledger.accepted[-1].target == failing


def test_the_report_names_the_target_that_did_not_let_go_of_a_quarantined_study() -> None:
    ledger = FakeLedger()
    targets = {"one": target(), "two": target(refuse_withdrawal=True)}
    Gateway(targets, frozenset(targets)).run(ledger=ledger, safely=False)
    assert ledger.accepted[-1].target == "two"
    assert ledger.accepted[-1].state is State.QUEUED


def test_a_source_that_does_not_answer_is_no_targets_fault() -> None:
    ledger = FakeLedger()
    only = {"one": target()}
    Gateway(only, frozenset(only)).run(ledger=ledger, source=FakeSource({}, unreachable=True))
    assert ledger.accepted[-1].target == ""


@pytest.mark.parametrize("safely", [True, False])
@pytest.mark.parametrize("revision", [1, 2])
def test_what_another_gateway_sent_of_the_study_stays_and_is_told_of(
    revision: int, safely: bool
) -> None:
    theirs = {"2.25.77": b"another gateway's"}
    one = gateway(a=target(held=dict(theirs)), b=target(held={**theirs, **EXPORTED}))
    ledger = FakeLedger(sent={older_mark_of(uid) for uid in EXPORTED})
    outcome = one.run("a", "b", revision=revision, safely=safely, ledger=ledger)
    assert outcome.state is (State.EXPORTED if safely else State.QUARANTINED)
    kept = {**theirs, **EXPORTED} if safely else theirs
    assert [target.held for target in one.targets.values()] == [kept, kept]
    left = ledger.reports[-1].measures.get("targets_not_withdrawn")
    assert left == (None if safely else 2)


@pytest.mark.parametrize("failing", ["a", "b"])
def test_a_failed_first_attempt_takes_back_its_own_images_alone(failing: str) -> None:
    theirs = {"2.25.77": b"another gateway's"}
    one = gateway(a=target(held=dict(theirs)), b=target(held=dict(theirs)))
    one.targets[failing].refuse_after = 1
    assert one.run(ledger=FakeLedger(sent=set())).state is State.QUEUED
    assert [target.held for target in one.targets.values()] == [theirs, theirs]


def test_the_ledger_is_told_what_is_sent_before_it_is() -> None:
    ledger = FakeLedger(sent=set())
    marks = marks_of(Image("PSEUDONYM", PSEUDO_UID, uid) for uid in EXPORTED)
    told: list[bool] = []
    first = target(on_store=lambda _instance: told.append(ledger.sent == marks))
    assert gateway(("a",), a=first).run(ledger=ledger).state is State.EXPORTED
    assert told == [True] * 3
    assert set(ledger.questions[-1].originals) == THREE.keys()


def test_another_name_of_the_same_place_takes_nothing_from_a_study() -> None:
    place = target()
    site = gateway(("old",), old=place, new=place)
    assert site.run().state is State.EXPORTED
    for revision, name in ((2, "new"), (3, "new"), (4, "old")):
        assert site.run(name, revision=revision).state is State.EXPORTED
        assert place.held == EXPORTED


def test_a_target_that_the_study_does_not_go_to_holds_no_export_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    site, ledger = gateway(("a",), a=target(), b=target(), c=target()), FakeLedger()
    site.run(ledger=ledger)
    site.targets["b"].refuse_withdrawal = True
    site.targets["c"].held = dict(EXPORTED)  # of a route of before
    assert site.run(revision=2, ledger=ledger).state is State.EXPORTED
    assert site.held() == {"a": 3, "b": 0, "c": 0}
    report = ledger.reports[-1]
    assert (report.left_at, report.measures["targets_not_withdrawn"]) == (("b",), 1)
    assert "an earlier export may be left where the study does not go: " in caplog.text
    site.targets["b"].refuse_withdrawal = False
    assert site.run(revision=3, ledger=ledger).state is State.EXPORTED
    assert (ledger.reports[-1].left_at, ledger.reports[-1].target) == ((), "")


@pytest.mark.parametrize("reason", [Reason.TOOK_TOO_LONG, Reason.WORKER_STOPPED])
def test_an_attempt_that_ends_before_it_could_ask_such_a_target_blames_it_for_nothing(
    reason: Reason, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, ledger = gateway(("a",), a=target(), b=target()), FakeLedger()
    site.run(ledger=ledger)

    def over(*_said: object) -> bool:
        raise Retryable(reason)

    monkeypatch.setattr(site.targets["b"], "withdraw_study", over)
    assert site.run(revision=2, ledger=ledger).state is State.QUEUED
    assert (ledger.reports[-1].reason, ledger.reports[-1].left_at) == (reason, ())


def test_one_that_does_not_let_go_of_a_quarantined_study_is_said_to_be_elsewhere() -> None:
    site, ledger = gateway(("a",), a=target(), b=target(refuse_withdrawal=True)), FakeLedger()
    site.run(ledger=ledger)
    assert site.run(revision=2, safely=False, ledger=ledger).state is State.QUEUED
    assert (ledger.reports[-1].target, ledger.reports[-1].elsewhere) == ("b", True)
    ledger.left = 1
    assert site.run(revision=2, safely=False, ledger=ledger).state is State.QUARANTINED
    assert (ledger.reports[-1].left_at, site.held()["a"]) == (("b",), 0)
