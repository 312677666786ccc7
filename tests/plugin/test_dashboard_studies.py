"""The list of studies with its search, the page of one study, and what can be done there."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import timedelta

import pytest

from prichexy_plugin.chain import Deed
from prichexy_plugin.dashboard.routes import Site
from prichexy_plugin.intake import Decision, InstanceFacts, Rule, decide
from prichexy_plugin.keeper import Keeper
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.pictures import OrthancPictures
from prichexy_plugin.retention import Rules
from prichexy_plugin.security import Role, Roles
from prichexy_plugin.studies import OrthancStudies
from prichexy_testing.dashboard_reader import FakeGateway, Page, Reader
from prichexy_testing.fake_orthanc import FakeOrthanc, orthanc_id
from prichexy_testing.plugin_fakes import FakeClock, report_of
from prichexy_worker.contract import MAX_ATTEMPTS, Errand, Reason, State, StudyMessage

ROLES = Roles({"vera": Role.VIEWER, "omar": Role.OPERATOR, "ada": Role.ADMINISTRATOR})


@pytest.fixture
def orthanc() -> FakeOrthanc:
    return FakeOrthanc()


@pytest.fixture
def gateway(ledger: Ledger) -> FakeGateway:
    return FakeGateway(ledger)


@pytest.fixture
def site(gateway: FakeGateway, clock: FakeClock, orthanc: FakeOrthanc) -> Site:
    return Site(
        gateway,
        problems=(),
        worker_user=None,
        clock=clock,
        roles=ROLES,
        studies=OrthancStudies(orthanc),
    )


@pytest.fixture
def omar(site: Site) -> Reader:
    return Reader(site, "omar")


def _take_in(ledger: Ledger, clock: FakeClock, name: str, decision: Decision) -> str:
    """Let a study arrive; give its job."""
    ledger.note({orthanc_id(name): clock()}, cursor=1)
    ledger.settle(orthanc_id(name), decision, content="c", instances=1)
    return ledger.studies(study_id=orthanc_id(name)).studies[0].job_id


KEY = "ab" * 8


def _end(
    ledger: Ledger,
    clock: FakeClock,
    name: str,
    state: State,
    reason: Reason | None = None,
    targets: tuple[str, ...] = (),
) -> str:
    """Let a study come to an end; give its job."""
    job = _take_in(ledger, clock, name, Decision(None, targets=targets))
    message = _message(ledger, job)
    ledger.report(report_of(message, State.PROCESSING))
    ledger.report(report_of(message, state, reason, attempt=1, key_id=KEY))
    return job


def _message(ledger: Ledger, job: str) -> StudyMessage:
    return next(message for message in ledger.outbox() if message.job_id == job)


def _jobs(page: Page) -> list[str]:
    jobs = [link.rpartition("/")[2] for link in page.links if "prichexy/studies/" in link]
    return [job for job in jobs if len(job) == 32]


# --- The list --------------------------------------------------------------------------------


def test_a_study_is_listed_with_its_state_time_and_reason(
    omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    job = _take_in(ledger, clock, "a", Decision(Reason.NO_RULE_MATCHES))
    clock.move(180)
    page = omar.page("/studies")
    assert "rejected" in page.text
    assert Reason.NO_RULE_MATCHES.sentence in page.text
    assert "3 min ago" in page.text
    assert f"../app/explorer.html#study?uuid={orthanc_id('a')}" in page.links
    assert _jobs(page) == [job]


def test_an_exported_study_tells_how_long_it_took(
    omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    message = _message(ledger, _take_in(ledger, clock, "a", Decision(None)))
    ledger.report(report_of(message, State.PROCESSING))
    clock.move(30)
    assert "for 30 s" in omar.page("/studies").text
    ledger.report(
        report_of(message, State.EXPORTED, attempt=1, durations={"deform": 2.0, "export": 1.5})
    )
    assert "took 3.5 s" in omar.page("/studies").text


@pytest.mark.parametrize(
    ("targets", "measures", "told"),
    [
        (
            ("archive",),
            {"targets_unproved": 0.0},
            "At the export target, which has shown that it holds all of it.",
        ),
        (("archive",), {"targets_unproved": 1.0}, "nothing shows that it holds all of it."),
        # What a worker did not say is not taken for shown.
        ((), {}, "nothing shows that it holds all of it."),
        (
            ("archive", "research"),
            {"targets_unproved": 1.0},
            "not every one of them shows that it holds all of it.",
        ),
    ],
)
def test_an_export_that_nothing_shows_is_told_as_such_wherever_it_is_told(
    omar: Reader,
    ledger: Ledger,
    clock: FakeClock,
    targets: tuple[str, ...],
    measures: dict[str, float],
    told: str,
) -> None:
    message = _message(ledger, _take_in(ledger, clock, "a", Decision(None, targets=targets)))
    ledger.report(report_of(message, State.PROCESSING))
    ledger.report(report_of(message, State.EXPORTED, attempt=1, measures=measures))
    assert told in omar.page("/studies").text
    page = omar.page(f"/studies/{message.job_id}").text
    assert page.count(told) == 2, "at its head and in its time line"
    answer = omar.ask(f"/api/v1/orthanc/{message.study_id}")
    assert isinstance(answer.body, str)
    assert told in json.loads(answer.body)["sentence"]


def test_of_an_export_before_the_last_it_is_not_told_what_showed_it(
    omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    message = _message(ledger, _take_in(ledger, clock, "a", Decision(None)))
    for revision, unproved in ((1, 1.0), (2, 0.0)):
        again = replace(message, revision=revision)
        ledger.report(report_of(again, State.PROCESSING))
        measures = {"targets_unproved": unproved}
        ledger.report(report_of(again, State.EXPORTED, attempt=1, measures=measures))
        if revision == 1:
            assert ledger.again(message.job_id, revision=1, actor="user omar")
    page = omar.page(f"/studies/{message.job_id}").text
    assert "nothing shows" not in page
    assert page.count("At the export target .") + page.count("At the export target. ") == 1
    assert page.count("which has shown that it holds all of it") == 2


def test_an_empty_gateway_says_what_to_do_next(omar: Reader) -> None:
    text = omar.page("/studies").text
    assert "No study has arrived yet" in text
    assert "prichexy submit" in text
    assert "prichexy doctor" in text


def test_a_state_without_studies_leads_back_to_all(omar: Reader) -> None:
    page = omar.page("/studies", state="failed")
    assert "No study is failed now" in page.text
    assert "../prichexy/studies" in page.links


def test_the_list_can_be_narrowed_to_a_state(
    omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    pending = _take_in(ledger, clock, "a", Decision(None))
    _take_in(ledger, clock, "b", Decision(Reason.NO_RULE_MATCHES))
    page = omar.page("/studies", state="pending")
    assert _jobs(page) == [pending]
    assert "?state=rejected" in page.links


def test_studies_are_found_by_reason_day_and_the_beginning_of_an_id(
    omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    text = _end(ledger, clock, "a", State.QUARANTINED, Reason.BURNED_IN_TEXT)
    clock.move(24 * 3600)
    colour = _end(ledger, clock, "b", State.QUARANTINED, Reason.COLOUR)
    assert _jobs(omar.page("/studies", reason="burned_in_text")) == [text]
    assert _jobs(omar.page("/studies", since="2026-03-02")) == [colour]
    assert _jobs(omar.page("/studies", until="2026-03-01")) == [text]
    assert _jobs(omar.page("/studies", since="2026-03-01", until="2026-03-02")) == [colour, text]
    assert _jobs(omar.page("/studies", name=colour[:9].upper())) == [colour]
    assert _jobs(omar.page("/studies", name=orthanc_id("a")[:12])) == [text]
    page = omar.page("/studies", state="quarantined", name="%")
    assert "No study fits this search" in page.text, "no wildcard of the database's works"
    found = omar.page("/studies", state="quarantined", reason="colour")
    assert "1 study found" in found.text
    assert "?state=failed&reason=colour" in found.links, "another state keeps the search"


def test_operators_find_a_study_by_the_uid_that_it_was_exported_with(
    omar: Reader, site: Site, ledger: Ledger, clock: FakeClock
) -> None:
    jobs = []
    for name, uid in (("a", "2.25.71"), ("b", "2.25.7"), ("c", "")):
        jobs.append(_take_in(ledger, clock, name, Decision(None, ("archive",))))
        message = next(one for one in ledger.outbox() if one.job_id == jobs[-1])
        for number, told in ((0, ""), (1, uid)):
            report = report_of(message, State.PROCESSING, attempt=number)
            told_of = {"study_uid": told, "key_id": "ab12", "originals": (orthanc_id(name),)}
            assert ledger.report(replace(report, **(told_of if told else {}))).proceed
    assert _jobs(omar.page("/studies", name="2.25.7")) == [jobs[1]]
    assert _jobs(omar.page("/studies", name=" 2.25.71 ", target="archive")) == [jobs[0]]
    for query in ({"name": "2.25.1"}, {"name": "2.25.7", "state": "failed"}, {"name": "1.2.3"}):
        assert "No study fits this search" in omar.page("/studies", **query).text
    vera = Reader(site, "vera")
    assert "it is for operators" in Page(vera.ask("/studies", name="2.25.7"), status=403).text
    assert "StudyInstanceUID" in str(omar.ask("/studies").body)
    assert "StudyInstanceUID" not in str(vera.ask("/studies").body)


@pytest.mark.parametrize(
    "query",
    [
        {"state": "lost"},
        {"reason": "lost"},
        {"target": 'research"%'},
        {"since": "yesterday"},
        {"until": "2026-02-30"},
        {"until": "9999-12-31"},
        {"older": "x"},
        {"newer": "1.DROP"},
        {"older": "9" * 18 + ".a"},
        {"name": "a" * 45},
    ],
)
def test_a_search_that_cannot_be_read_is_named(omar: Reader, query: dict[str, str]) -> None:
    answer = omar.ask("/studies", **query)
    assert answer.status == 400
    assert next(iter(query)) in str(answer.body).lower()


def test_a_long_list_has_pages_that_hold_every_study_once(
    omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    jobs = []
    for number in range(120):
        clock.move(number % 3 == 0)  # some share a moment
        jobs.append(_take_in(ledger, clock, str(number), Decision(Reason.NO_RULE_MATCHES)))
    page = omar.page("/studies", state="rejected")
    seen = [_jobs(page)]
    for _ in range(2):
        page = omar.follow("/studies", page.related["next"])
        seen.append(_jobs(page))
    assert "next" not in page.related
    assert [len(part) for part in seen] == [50, 50, 20]
    assert sorted(job for part in seen for job in part) == sorted(jobs)
    for expected in (seen[1], seen[0]):
        page = omar.follow("/studies", page.related["prev"])
        assert _jobs(page) == expected
    assert "prev" not in page.related


def test_what_moves_meanwhile_pushes_no_study_over_the_edge_of_a_page(
    omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    for number in range(60):
        clock.move(1)
        _take_in(ledger, clock, str(number), Decision(Reason.NO_RULE_MATCHES))
    first = omar.page("/studies")
    clock.move(1)
    _take_in(ledger, clock, "new", Decision(Reason.NO_RULE_MATCHES))
    second = omar.follow("/studies", first.related["next"])
    assert len(_jobs(second)) == 10
    assert not set(_jobs(first)) & set(_jobs(second))


def test_a_page_behind_the_end_leads_back(omar: Reader, ledger: Ledger, clock: FakeClock) -> None:
    _take_in(ledger, clock, "a", Decision(None))
    assert "past the end" in omar.page("/studies", older=f"1.{orthanc_id('a')}").text


# --- One study -------------------------------------------------------------------------------


def test_a_study_shows_its_time_line_with_attempts_pauses_and_reasons(
    omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    job = _take_in(ledger, clock, "a", Decision(None))
    message = _message(ledger, job)
    ledger.report(report_of(message, State.PROCESSING))
    clock.move(12)
    ledger.report(report_of(message, State.QUEUED, Reason.TARGET_UNREACHABLE, attempt=1))
    clock.move(60)
    ledger.report(report_of(message, State.PROCESSING, worker_id="worker-2"))
    clock.move(3)
    ledger.report(
        report_of(
            message,
            State.EXPORTED,
            attempt=2,
            worker_id="worker-2",
            durations={"fetch": 0.5, "deform": 1.5},
            measures={"mean_displacement_px": 3.25, "psnr_db": 31.0},
        )
    )
    text = omar.page(f"/studies/{job}").text
    assert "processing by worker-1, attempt 1" in text
    assert "after 12 s queued by worker-1 The export target did not answer." in text
    assert "after 60 s processing by worker-2, attempt 2" in text
    assert "deform 1.5 s 1.5 s" in text
    assert "all steps 2.0 s" in text
    assert "Mean displacement 3.25 px" in text
    assert "Peak signal-to-noise ratio 31 dB" in text


def test_what_is_no_study_is_not_found(omar: Reader) -> None:
    for path in ("/studies/" + "0" * 32, "/studies/abc", f"/studies/{'0' * 32}/retry"):
        assert omar.ask(path).status == 404


def test_no_page_holds_anything_of_a_patient(
    omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    job = _take_in(ledger, clock, "a", Decision(None))
    for page in (omar.page("/studies"), omar.page(f"/studies/{job}")):
        assert "DOE" not in page.text


# --- Actions ---------------------------------------------------------------------------------


def _retry(reader: Reader, job: str, **changed: str) -> tuple[int, str]:
    """Confirm the form of the page; give the answer's status and where it leads."""
    path = f"/studies/{job}/retry"
    fields = {**reader.page(path).fields, **changed}
    answer = reader.post(path, fields)
    return answer.status, answer.headers.get("Location", "")


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (State.FAILED, Reason.TARGET_REFUSED),
        (State.QUARANTINED, Reason.BURNED_IN_TEXT),
        (State.EXPORTED, None),
    ],
)
def test_a_study_that_has_ended_can_be_tried_again_and_the_trail_says_by_whom(
    omar: Reader, ledger: Ledger, clock: FakeClock, state: State, reason: Reason | None
) -> None:
    job = _end(ledger, clock, "a", state, reason)
    assert f"../../prichexy/studies/{job}/retry" in omar.page(f"/studies/{job}").links
    assert _retry(omar, job) == (303, f"../{job}?note=retried")
    study = ledger.study(job)
    assert study is not None
    assert (study.state, study.revision, study.attempts) == (State.PENDING, 2, 0)
    assert study.reason is None
    last = ledger.events(job)[-1]
    assert (last.from_state, last.to_state, last.actor) == (state, State.PENDING, "user omar")
    assert _message(ledger, job).revision == 2, "it is in the outbox once more"
    text = omar.page(f"/studies/{job}", note="retried").text
    assert "goes its way once more" in text
    assert "pending by user omar" in text


def test_a_study_that_is_tried_again_goes_where_the_rules_sent_it(
    omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    job = _end(ledger, clock, "a", State.FAILED, Reason.TARGET_REFUSED, ("archive", "research"))
    assert _retry(omar, job)[0] == 303
    assert _message(ledger, job).targets == ("archive", "research")


def test_a_study_tells_where_it_goes_and_is_found_by_it(
    omar: Reader, site: Site, ledger: Ledger, clock: FakeClock
) -> None:
    both = _take_in(ledger, clock, "a", Decision(None, targets=("archive", "research")))
    one = _take_in(ledger, clock, "b", Decision(None, targets=("research-2",)))
    none = _take_in(ledger, clock, "c", Decision(None))
    assert _jobs(omar.page("/studies", target="research")) == [both]
    assert _jobs(omar.page("/studies", target="research-2")) == [one]
    assert _jobs(omar.page("/studies", target="search")) == []
    page = omar.page(f"/studies/{both}")
    assert "archive , research" in page.text
    assert "../../prichexy/studies?target=archive" in page.links
    assert "the target that the workers have" in omar.page(f"/studies/{none}").text


def test_a_study_tells_which_rule_took_it_in_and_is_found_by_it(
    omar: Reader, gateway: FakeGateway, ledger: Ledger, clock: FakeClock
) -> None:
    chest, hip = (InstanceFacts(modality="DX", station=name) for name in ("CHEST", "HIP"))
    gateway.rules = (
        Rule("Brust & Lunge+", station=frozenset({"CHEST"})),
        Rule("every " + "x" * 300, modality=frozenset({"DX"}), targets=frozenset({"archive"})),
    )
    first = _take_in(ledger, clock, "a", decide([chest], gateway.rules, copy=False))
    second = _take_in(ledger, clock, "b", decide([hip], gateway.rules, copy=False))
    none = _take_in(ledger, clock, "c", Decision(Reason.NO_RULE_MATCHES))
    assert len(_jobs(omar.page("/studies"))) == 3
    assert _jobs(omar.page("/studies", rule="Brust & Lunge+")) == [first]
    assert _jobs(omar.page("/studies", rule=gateway.rules[1].name)) == [second]
    assert _jobs(omar.page("/studies", rule=gateway.rules[1].name, target="archive")) == [second]
    assert _jobs(omar.page("/studies", rule="Brust")) == []
    page = omar.page(f"/studies/{first}")
    [link] = [link for link in page.links if "rule=" in link]
    assert _jobs(omar.follow(f"/studies/{first}", link)) == [first]
    assert "Taken in by" not in omar.page(f"/studies/{none}").text


def test_attempts_that_do_not_count_are_told(
    omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    jobs = [_take_in(ledger, clock, name, Decision(None)) for name in "abc"]
    for job in jobs:
        message = _message(ledger, job)
        ledger.report(report_of(message, State.PROCESSING))
        ledger.report(report_of(message, State.QUEUED, Reason.TARGET_REFUSED, attempt=1))
    study = ledger.study(jobs[-1])
    assert study is not None
    assert study.excused == 1
    assert "1 does not count" in omar.page(f"/studies/{jobs[-1]}").text


def test_reports_on_the_attempt_before_are_void_after_a_retry(
    omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    job = _take_in(ledger, clock, "a", Decision(None))
    old = _message(ledger, job)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        ledger.report(report_of(old, State.PROCESSING))
        ledger.report(report_of(old, State.QUEUED, Reason.TARGET_UNREACHABLE, attempt=attempt))
    ledger.report(report_of(old, State.PROCESSING))
    ledger.report(report_of(old, State.FAILED, Reason.TOO_MANY_ATTEMPTS, attempt=MAX_ATTEMPTS + 1))
    assert _retry(omar, job)[0] == 303
    assert not ledger.report(report_of(old, State.PROCESSING)).proceed
    claim = ledger.report(report_of(_message(ledger, job), State.PROCESSING))
    assert (claim.proceed, claim.attempt) == (True, 1)


def test_a_rejected_study_is_looked_at_anew_by_the_rules(
    omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    job = _take_in(ledger, clock, "a", Decision(Reason.NO_RULE_MATCHES))
    clock.move(60)
    assert ledger.due() == ()
    assert "intake rules of now" in omar.page(f"/studies/{job}/retry").text
    assert _retry(omar, job) == (303, f"../{job}?note=retried")
    assert ledger.due() == (orthanc_id("a"),)
    assert ledger.events(job)[-1].actor == "user omar"
    ledger.settle(orthanc_id("a"), Decision(None), content="c", instances=1)
    study = ledger.study(job)
    assert study is not None
    assert study.state is State.PENDING


@pytest.mark.parametrize("state", [State.QUARANTINED, State.FAILED])
def test_what_waits_for_a_decision_is_turned_away_and_the_trail_says_by_whom_and_why(
    omar: Reader, ledger: Ledger, clock: FakeClock, state: State
) -> None:
    job = _end(ledger, clock, "a", state, Reason.TARGET_REFUSED)
    path = f"/studies/{job}/reject"
    assert f"../../prichexy{path}" in omar.page(f"/studies/{job}").links
    page = omar.page(path)
    assert "its use is not consented to" in page.text.lower()
    assert omar.post(path, {**page.fields, "reason": ""}).status == 400
    assert omar.post(path, {**page.fields, "reason": "burned_in_text"}).status == 400
    assert ledger.events(job)[-1].to_state is state, "nothing was written without a reason"
    answer = omar.post(path, {**page.fields, "reason": "no_consent"})
    assert (answer.status, answer.headers["Location"]) == (303, f"../{job}?note=rejected")
    study, last = ledger.study(job), ledger.events(job)[-1]
    assert study is not None
    assert (study.state, study.reason) == (State.REJECTED, Reason.NO_CONSENT)
    assert (last.from_state, last.actor, last.reason) == (state, "user omar", Reason.NO_CONSENT)
    text = omar.page(f"/studies/{job}", note="rejected").text
    assert "turned away; the time line says by whom" in text
    assert Reason.NO_CONSENT.sentence in text
    for decision in (Decision(None), Decision(Reason.NO_RULE_MATCHES)):
        ledger.settle(orthanc_id("a"), decision, content="c", instances=1)
        assert ledger.study(job) == study, "the same images, looked at by the rules once more"
    assert _retry(omar, job)[0] == 303, "it can be tried again"
    assert ledger.due() == (orthanc_id("a"),)
    ledger.settle(orthanc_id("a"), Decision(None), content="c", instances=1)
    after = ledger.study(job)
    assert after is not None
    assert (after.state, after.revision) == (State.PENDING, 2)


def test_new_images_of_a_study_that_was_turned_away_are_decided_on(
    omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    job = _end(ledger, clock, "a", State.FAILED, Reason.TARGET_REFUSED)
    assert ledger.turn_away(job, revision=1, actor="user omar", reason=Reason.WRONGLY_SENT)
    ledger.settle(orthanc_id("a"), Decision(None), content="d", instances=2)
    study = ledger.study(job)
    assert study is not None
    assert study.state is State.PENDING


def test_what_may_be_left_at_a_target_is_still_told_of_a_study_that_was_turned_away(
    omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    job = _take_in(ledger, clock, "a", Decision(None))
    message = _message(ledger, job)
    ledger.report(report_of(message, State.PROCESSING))
    left = {"targets_not_withdrawn": 1.0}
    ledger.report(report_of(message, State.FAILED, Reason.TARGET_REFUSED, attempt=1, measures=left))
    page = omar.page(f"/studies/{job}/reject")
    assert "Something of it may be left at one" in page.text
    omar.post(f"/studies/{job}/reject", {**page.fields, "reason": "not_needed"})
    assert "may be left at an export target" in omar.page(f"/studies/{job}").text


def test_an_export_is_withdrawn_and_not_turned_away(
    omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    job = _end(ledger, clock, "a", State.EXPORTED)
    assert omar.ask(f"/studies/{job}/reject").headers["Location"] == f"../{job}?note=moved"
    assert not ledger.turn_away(job, revision=1, actor="user omar", reason=Reason.NOT_NEEDED)


def test_an_export_that_still_stands_can_be_withdrawn_from_a_study_that_was_rejected_since(
    site: Site, ledger: Ledger, clock: FakeClock
) -> None:
    ada = Reader(site, "ada")
    job = _end(ledger, clock, "a", State.EXPORTED)
    ledger.settle(orthanc_id("a"), Decision(Reason.NO_RULE_MATCHES), content="", instances=2)
    path = f"/studies/{job}/withdraw"
    assert any(link.endswith(path) for link in ada.page(f"/studies/{job}").links)
    fields = {**ada.page(path).fields, "reason": "withdrawn_faulty"}
    assert ada.post(path, fields).headers["Location"] == f"../{job}?note=withdrawn"
    study = ledger.study(job)
    assert study is not None
    assert (study.state, study.orders.errand) == (State.PENDING, Errand.WITHDRAW)
    never = _take_in(ledger, clock, "b", Decision(Reason.NO_RULE_MATCHES))
    assert ada.ask(f"/studies/{never}/withdraw").headers["Location"] == f"../{never}?note=moved"


def _delete(reader: Reader, job: str, reason: str = "deleted_no_consent") -> str:
    path = f"/studies/{job}/delete"
    answer = reader.post(path, {**reader.page(path).fields, "reason": reason})
    return answer.headers["Location"]


def _keep(ledger: Ledger, clock: FakeClock, orthanc: FakeOrthanc) -> None:
    """Let the gateway go on with deletions; no retention rule is set."""
    studies, pictures = OrthancStudies(orthanc), OrthancPictures(orthanc)
    Keeper(studies, pictures, ledger, Rules(), clock).run_once()


@pytest.mark.parametrize("state", [State.EXPORTED, State.QUARANTINED, State.FAILED])
def test_an_original_is_deleted_and_the_study_stays_as_it_is(
    site: Site,
    gateway: FakeGateway,
    ledger: Ledger,
    clock: FakeClock,
    orthanc: FakeOrthanc,
    state: State,
) -> None:
    orthanc.store({}, study="a")
    orthanc.store({}, study="b")
    ada = Reader(site, "ada")
    job = _end(ledger, clock, "a", state, Reason.COLOUR if state is not State.EXPORTED else None)
    hour = clock() - timedelta(minutes=1), clock() + timedelta(days=2)
    before, span = ledger.study(job), ledger.span(*hour)
    clock.move(24 * 3600)
    assert _delete(ada, job) == f"../{job}?note=deleted"
    assert gateway.tidied == 1
    _keep(ledger, clock, orthanc)
    assert orthanc.studies() == [orthanc_id("b")]
    assert before is not None
    assert ledger.study(job) == replace(before, has_originals=False, unconsented=True), (
        "its time and reason, too"
    )
    assert ledger.span(*hour) == span, "nothing ended by it"
    begun, done = (line for line in ledger.lines(job_id=job) if line.deed != Deed.STEP)
    assert (begun.deed, begun.actor) == (Deed.ORIGINALS_DELETING, "user ada")
    assert (begun.reason, begun.details["originals"]) == (Reason.DELETED_CONSENT, 1)
    assert (done.deed, done.actor) == (Deed.ORIGINALS_DELETED, "plugin")
    page = ada.page(f"/studies/{job}", note="deleted")
    assert "Orthanc deletes its images within seconds" in page.text
    assert Reason.DELETED_CONSENT.sentence in page.text
    assert Deed.ORIGINALS_DELETED.sentence in page.text
    assert not [link for link in page.links if link.endswith(("/retry", "/delete"))]
    assert not ledger.again(job, revision=1, actor="user ada"), "a worker would find nothing"
    assert "by a user" in Reader(site, "vera").page(f"/studies/{job}").text
    assert "user ada" not in Reader(site, "vera").page(f"/studies/{job}").text


def test_what_comes_in_meanwhile_is_not_deleted(
    site: Site, ledger: Ledger, clock: FakeClock, orthanc: FakeOrthanc
) -> None:
    orthanc.store({}, study="a")
    ada = Reader(site, "ada")
    job = _end(ledger, clock, "a", State.EXPORTED)
    _delete(ada, job)
    ledger.note({orthanc_id("a"): clock()}, cursor=9)
    _keep(ledger, clock, orthanc)
    assert orthanc.studies() == [orthanc_id("a")]
    assert _delete(ada, job) == f"../{job}?note=moved", "it has not been looked at yet"


def test_nothing_is_deleted_while_orthanc_does_not_answer(
    site: Site, ledger: Ledger, clock: FakeClock, orthanc: FakeOrthanc
) -> None:
    orthanc.store({}, study="a")
    ada = Reader(site, "ada")
    job = _end(ledger, clock, "a", State.EXPORTED)
    orthanc.broken = True
    assert _delete(ada, job) == f"../{job}?note=kept"
    assert "Nothing was deleted" in ada.page(f"/studies/{job}", note="kept").text
    orthanc.broken = False
    _keep(ledger, clock, orthanc)
    assert orthanc.studies() == [orthanc_id("a")]
    assert _delete(ada, job) == f"../{job}?note=deleted"
    _keep(ledger, clock, orthanc)
    assert orthanc.studies() == []


def test_a_study_whose_original_is_being_deleted_is_not_tried_again(
    site: Site, ledger: Ledger, clock: FakeClock, orthanc: FakeOrthanc
) -> None:
    orthanc.store({}, study="a")
    ada = Reader(site, "ada")
    job = _end(ledger, clock, "a", State.EXPORTED)
    form = ada.page(f"/studies/{job}/retry").fields
    _delete(ada, job)
    answer = ada.post(f"/studies/{job}/retry", form)
    assert answer.headers["Location"] == f"../{job}?note=moved"
    assert not ledger.again(job, revision=1, actor="user ada")


def test_only_administrators_delete_and_only_what_has_ended(
    site: Site, omar: Reader, ledger: Ledger, clock: FakeClock, orthanc: FakeOrthanc
) -> None:
    orthanc.store({}, study="a")
    job = _end(ledger, clock, "a", State.EXPORTED)
    ada, path = Reader(site, "ada"), f"/studies/{job}/delete"
    fields = {**ada.page(path).fields, "reason": "deleted_done"}
    assert not [link for link in omar.page(f"/studies/{job}").links if link.endswith("/delete")]
    assert omar.ask(path).status == omar.post(path, fields).status == 403
    assert ada.post(path, {**fields, "reason": "no_consent"}).status == 400
    assert _retry(ada, job)[0] == 303
    assert ada.post(path, fields).headers["Location"] == f"../{job}?note=moved"
    _keep(ledger, clock, orthanc)
    assert orthanc.studies() == [orthanc_id("a")], "it is on its way"


def test_a_study_that_moved_on_since_the_page_was_opened_is_left_alone(
    omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    job = _end(ledger, clock, "a", State.FAILED, Reason.TARGET_REFUSED)
    path = f"/studies/{job}/retry"
    fields = omar.page(path).fields
    assert _retry(omar, job)[0] == 303
    trail = ledger.events(job)
    again = omar.post(path, fields)
    assert (again.status, again.headers["Location"]) == (303, f"../{job}?note=moved")
    assert ledger.events(job) == trail, "a second press of the same button does nothing"
    assert omar.ask(path).headers["Location"] == f"../{job}?note=moved"
    assert "had moved on" in omar.page(f"/studies/{job}", note="moved").text


def test_a_study_that_is_on_its_way_has_no_button(
    omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    job = _take_in(ledger, clock, "a", Decision(None))
    page = omar.page(f"/studies/{job}")
    assert not [link for link in page.links if link.endswith("/retry")]
    assert not ledger.again(job, revision=1, actor="user omar")
    assert not ledger.again("0" * 32, revision=1, actor="user omar")


@pytest.mark.parametrize("changed", [{"token": ""}, {"token": "1.a"}, {"seen": ""}])
def test_a_form_without_its_token_or_what_was_seen_changes_nothing(
    omar: Reader, ledger: Ledger, clock: FakeClock, changed: dict[str, str]
) -> None:
    job = _end(ledger, clock, "a", State.FAILED, Reason.TARGET_REFUSED)
    status, _ = _retry(omar, job, **changed)
    assert status in (400, 403)
    study = ledger.study(job)
    assert study is not None
    assert study.state is State.FAILED


def test_a_token_of_another_user_or_study_or_site_changes_nothing(
    omar: Reader, site: Site, ledger: Ledger, clock: FakeClock
) -> None:
    job = _end(ledger, clock, "a", State.FAILED, Reason.TARGET_REFUSED)
    other = _end(ledger, clock, "b", State.FAILED, Reason.TARGET_REFUSED)
    fields = omar.page(f"/studies/{job}/retry").fields
    trail = ledger.events(job)
    path = f"/studies/{job}/retry"
    assert Reader(site, "vera").post(path, fields).status == 403
    assert Reader(site).post(path, fields).status == 403
    assert omar.post(path, omar.page(f"/studies/{other}/retry").fields).status == 403
    for headers in ({"origin": "http://evil"}, {"sec-fetch-site": "cross-site"}):
        assert omar.post(path, fields, headers).status == 403
    assert omar.post(path, b"\xff" * 4000).status == 403
    assert omar.post(path, b"\xff" * 9000).status == 400
    assert ledger.events(job) == trail
    assert omar.post(f"/studies/{job}/destroy", fields).status == 405


def test_what_takes_something_away_looks_like_it_where_it_is_offered_and_where_it_is_asked(
    site: Site, ledger: Ledger, clock: FakeClock
) -> None:
    job = _end(ledger, clock, "a", State.EXPORTED)
    ada = Reader(site, "ada")

    def grave(path: str) -> list[str]:
        return re.findall(r'class="button grave"[^>]*>([^<…]*)', str(ada.ask(path).body))

    assert grave(f"/studies/{job}") == ["Withdraw the export", "Delete the original"]
    assert grave(f"/studies/{job}/withdraw") == ["Withdraw the export"]
    assert grave(f"/studies/{job}/delete") == ["Delete the original"]
    assert grave(f"/studies/{job}/retry") == []
