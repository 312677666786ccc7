"""All studies of one reason are tried again or turned away with one form; each is in the trail."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine

from prichexy_plugin.dashboard import many
from prichexy_plugin.dashboard.routes import Site
from prichexy_plugin.intake import Decision
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.security import Role, Roles
from prichexy_testing.dashboard_reader import FakeGateway, Reader
from prichexy_testing.fake_orthanc import orthanc_id
from prichexy_testing.plugin_fakes import FakeClock, report_of
from prichexy_worker.contract import Errand, Reason, State

ROLES = Roles({"vera": Role.VIEWER, "omar": Role.OPERATOR})
WANTED = {"state": "quarantined", "reason": "pixels_not_sane"}


@pytest.fixture
def site(ledger: Ledger, clock: FakeClock) -> Site:
    return Site(FakeGateway(ledger), problems=(), worker_user=None, clock=clock, roles=ROLES)


@pytest.fixture
def omar(site: Site) -> Reader:
    return Reader(site, "omar")


def _end(
    ledger: Ledger,
    clock: FakeClock,
    names: str,
    reason: Reason | None,
    state: State = State.QUARANTINED,
) -> None:
    for name in names:
        ledger.note({orthanc_id(name): clock()}, cursor=1)
        ledger.settle(orthanc_id(name), Decision(None), content=name, instances=1)
        [message] = ledger.outbox()
        ledger.sent(message)
        ledger.report(report_of(message, State.PROCESSING))
        assert ledger.report(report_of(message, state, reason, attempt=1)).proceed
        clock.move(1)


def _states(ledger: Ledger) -> list[str]:
    found = ledger.studies(limit=100).studies
    return sorted(f"{one.state.value} {one.reason.value if one.reason else ''}" for one in found)


def test_all_of_one_reason_go_their_way_and_no_others(
    omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    _end(ledger, clock, "abc", Reason.PIXELS_NOT_SANE)
    _end(ledger, clock, "d", Reason.COLOUR)
    [link] = [one for one in omar.page("/studies", **WANTED).links if "retry" in one]
    assert link.endswith("prichexy/studies/retry?state=quarantined&reason=pixels_not_sane")
    page = omar.page("/studies/retry", **WANTED)
    assert "3 studies are quarantined" in page.text
    assert _states(ledger).count("quarantined pixels_not_sane") == 3, "nothing without the form"
    answer = omar.post("/studies/retry", page.fields)
    assert answer.status == 303
    assert answer.headers["Location"].endswith("&done=3")
    assert _states(ledger) == ["pending ", "pending ", "pending ", "quarantined colour"]
    after = omar.page("/studies/retry", **WANTED, done="3")
    assert "3 studies go their way once more." in after.text
    assert "button" not in after.tags
    people = [line for line in ledger.lines(limit=100) if line.actor == "user omar"]
    assert [line.to_state for line in people] == ["pending"] * 3


def test_a_withdrawal_that_failed_is_tried_again_with_the_others_and_not_turned_away(
    omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    _end(ledger, clock, "a", Reason.TARGET_REFUSED, State.FAILED)
    ledger.note({orthanc_id("b"): clock()}, cursor=1)
    ledger.settle(orthanc_id("b"), Decision(None), content="b", instances=1)
    [message] = ledger.outbox()
    ledger.report(report_of(message, State.PROCESSING))
    assert ledger.report(report_of(message, State.EXPORTED, attempt=1)).proceed
    assert ledger.order_withdrawal(
        message.job_id, revision=1, actor="user ada", reason=Reason.WITHDRAWN_CONSENT
    )
    [message] = ledger.outbox()
    ledger.report(report_of(message, State.PROCESSING))
    assert ledger.report(report_of(message, State.FAILED, Reason.TARGET_REFUSED, attempt=1)).proceed
    wanted = {"state": "failed", "reason": "target_refused"}
    fields = {**omar.page("/studies/reject", **wanted).fields, "why": "not_needed"}
    assert omar.post("/studies/reject", fields).headers["Location"].endswith("&done=1")
    assert _states(ledger) == ["failed target_refused", "rejected not_needed"]
    fields = omar.page("/studies/retry", **wanted).fields
    assert omar.post("/studies/retry", fields).headers["Location"].endswith("&done=1")
    [message] = ledger.outbox()
    assert message.errand is Errand.WITHDRAW


def test_all_of_one_reason_are_turned_away_for_a_reason_that_is_chosen(
    omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    _end(ledger, clock, "abc", Reason.PIXELS_NOT_SANE)
    _end(ledger, clock, "d", Reason.COLOUR)
    [link] = [one for one in omar.page("/studies", **WANTED).links if "studies/reject?" in one]
    assert link.endswith("prichexy/studies/reject?state=quarantined&reason=pixels_not_sane")
    page = omar.page("/studies/reject", **WANTED)
    assert "3 studies are quarantined" in page.text
    shown = {name: page.fields[name] for name in ("token", "state", "reason", "batch")}
    for odd in ({}, {"why": "none"}, {"why": Reason.WITHDRAWN_WRONG.value}):
        assert omar.post("/studies/reject", {**shown, **odd}).status == 400
    chosen = {**shown, "why": Reason.WRONGLY_SENT.value}
    assert omar.post("/studies/retry", chosen).status == 403, "it was for another deed"
    assert _states(ledger).count("quarantined pixels_not_sane") == 3
    answer = omar.post("/studies/reject", chosen)
    assert answer.headers["Location"].startswith("reject?")
    assert answer.headers["Location"].endswith("&done=3")
    assert _states(ledger) == ["quarantined colour", *["rejected wrongly_sent"] * 3]
    assert "3 studies are turned away." in omar.page("/studies/reject", **WANTED, done="3").text
    people = [line for line in ledger.lines(limit=100) if line.actor == "user omar"]
    assert [(line.to_state, line.reason) for line in people] == [("rejected", "wrongly_sent")] * 3


def test_what_has_no_originals_any_more_can_be_turned_away_with_the_others(
    omar: Reader, ledger: Ledger, clock: FakeClock, engine: Engine
) -> None:
    _end(ledger, clock, "ab", Reason.PIXELS_NOT_SANE)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE studies SET originals = 'deleted'")
    page = omar.page("/studies/reject", **WANTED)
    fields = {**page.fields, "why": Reason.NOT_NEEDED.value}
    assert omar.post("/studies/reject", fields).headers["Location"].endswith("&done=2")


def test_a_part_goes_at_a_time_and_what_has_no_originals_is_in_nobodys_way(
    omar: Reader, ledger: Ledger, clock: FakeClock, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    _end(ledger, clock, "abcde", Reason.PIXELS_NOT_SANE)
    with engine.begin() as connection:
        newest = orthanc_id("e")
        connection.exec_driver_sql(
            f"UPDATE studies SET originals = 'deleted' WHERE study_id = '{newest}'"
        )
    monkeypatch.setattr(many, "_AT_ONCE", 3)
    page = omar.page("/studies/retry", **WANTED)
    assert omar.post("/studies/retry", page.fields).headers["Location"].endswith("done=3")
    page = omar.page("/studies/retry", **WANTED)
    assert omar.post("/studies/retry", page.fields).headers["Location"].endswith("done=1")
    assert _states(ledger) == ["pending "] * 4 + ["quarantined pixels_not_sane"]


@pytest.mark.parametrize("state", [State.QUARANTINED, State.FAILED])
def test_the_overview_counts_each_reason_and_leads_to_what_can_be_done_with_all(
    site: Site, omar: Reader, ledger: Ledger, clock: FakeClock, state: State
) -> None:
    _end(ledger, clock, "abc", Reason.PIXELS_NOT_SANE, state)
    clock.move(3 * 3600)
    _end(ledger, clock, "d", Reason.COLOUR, state)
    page, viewers = omar.page(), Reader(site, "vera").page()
    words = f"?state={state.value}&reason="
    for shown in (page, viewers):
        assert f"{Reason.PIXELS_NOT_SANE.sentence} {state.value} 3 3 h ago" in shown.text
        assert shown.text.index(Reason.PIXELS_NOT_SANE.sentence) < shown.text.index(
            Reason.COLOUR.sentence
        )
        assert f"prichexy/studies{words}colour" in shown.links
    for deed in ("retry", "reject"):
        assert f"prichexy/studies/{deed}{words}pixels_not_sane" in page.links
        assert f"prichexy/studies/{deed}" not in " ".join(viewers.links)
    on_desk = "prichexy/desk?reason=colour"
    assert (on_desk in page.links) == (state is State.QUARANTINED)
    assert on_desk not in viewers.links


def test_it_is_for_operators_with_a_form_that_was_shown(
    site: Site, omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    _end(ledger, clock, "a", Reason.PIXELS_NOT_SANE)
    vera = Reader(site, "vera")
    assert vera.ask("/studies/retry", **WANTED).status == 403
    assert not [one for one in vera.page("/studies", **WANTED).links if "retry" in one]
    shown = omar.page("/studies/retry", **WANTED).fields
    assert vera.post("/studies/retry", shown).status == 403
    assert omar.post("/studies/retry", {**shown, "token": "1.a"}).status == 403
    other = {**shown, "reason": "colour"}
    assert omar.post("/studies/retry", other).status == 403, "it was for another reason"
    for odd in ({"state": "exported"}, {"reason": "none"}, {"state": ""}, {"reason": ""}):
        assert omar.ask("/studies/retry", **{**WANTED, **odd}).status == 400
        assert omar.post("/studies/retry", {**shown, **odd}).status == 400
    assert _states(ledger) == ["quarantined pixels_not_sane"]


def test_a_search_for_more_than_a_reason_offers_no_button_that_does_more(
    omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    _end(ledger, clock, "a", Reason.PIXELS_NOT_SANE)
    for narrower in ({"reason": ""}, {"since": "2020-01-01"}, {"state": ""}):
        page = omar.page("/studies", **{**WANTED, **narrower})
        assert not [one for one in page.links if "studies/retry" in one]


@pytest.mark.parametrize("deed", ["retry", "reject"])
def test_what_came_after_the_page_is_left_alone(
    omar: Reader, ledger: Ledger, clock: FakeClock, deed: str
) -> None:
    _end(ledger, clock, "ab", Reason.PIXELS_NOT_SANE)
    page = omar.page(f"/studies/{deed}", **WANTED)
    assert "The newest 2 of now" in page.text
    _end(ledger, clock, "cdef", Reason.PIXELS_NOT_SANE)
    fields = {**page.fields, "why": Reason.NOT_NEEDED.value}
    assert omar.post(f"/studies/{deed}", fields).headers["Location"].endswith("&left=0&done=2")
    assert _states(ledger).count("quarantined pixels_not_sane") == 4


def test_what_moved_after_the_page_is_left_alone_and_no_other_takes_its_place(
    omar: Reader, ledger: Ledger, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(many, "_AT_ONCE", 3)
    _end(ledger, clock, "abcde", Reason.PIXELS_NOT_SANE)
    page = omar.page("/studies/reject", **WANTED)
    [moved] = [one for one in ledger.studies(limit=9).studies if one.study_id == orthanc_id("d")]
    assert ledger.again(moved.job_id, revision=1, actor="user olga")
    fields = {**page.fields, "why": Reason.NOT_NEEDED.value}
    answer = omar.post("/studies/reject", fields)
    assert answer.headers["Location"].endswith("&left=1&done=2")
    assert _states(ledger).count("quarantined pixels_not_sane") == 2
    after = omar.page("/studies/reject", **WANTED, left="1", done="2")
    assert "1 of those that the page showed was left alone: it had moved on since." in after.text


def test_a_form_that_was_sent_does_nothing_again_to_what_came_back(
    omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    _end(ledger, clock, "ab", Reason.PIXELS_NOT_SANE)
    fields = omar.page("/studies/retry", **WANTED).fields
    assert omar.post("/studies/retry", fields).headers["Location"].endswith("done=2")
    clock.move(1)
    for message in ledger.outbox():
        claim = ledger.report(report_of(message, State.PROCESSING))
        end = report_of(message, State.QUARANTINED, Reason.PIXELS_NOT_SANE, attempt=claim.attempt)
        assert ledger.report(end).proceed
    assert omar.post("/studies/retry", fields).headers["Location"].endswith("&left=2&done=0")
    assert _states(ledger) == ["quarantined pixels_not_sane"] * 2


@pytest.mark.parametrize("odd", ["", "1", "1.a 1.a many", "1.a 1.a 2"])
def test_a_form_about_other_studies_than_a_page_showed_is_refused(
    omar: Reader, ledger: Ledger, clock: FakeClock, odd: str
) -> None:
    _end(ledger, clock, "ab", Reason.PIXELS_NOT_SANE)
    fields = omar.page("/studies/retry", **WANTED).fields
    assert omar.post("/studies/retry", {**fields, "batch": odd}).status == 403
    assert _states(ledger) == ["quarantined pixels_not_sane"] * 2


def test_what_cannot_be_tried_again_is_not_counted_and_the_page_says_why(
    omar: Reader, ledger: Ledger, clock: FakeClock, engine: Engine
) -> None:
    _end(ledger, clock, "ab", Reason.PIXELS_NOT_SANE)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE studies SET originals = 'deleted'")
    page = omar.page("/studies/retry", **WANTED)
    assert "2 of them stay as they are: their originals are not all here." in page.text
    assert "button" not in page.tags, "it could try none"
    _end(ledger, clock, "cd", Reason.PIXELS_NOT_SANE)
    [refused] = [one for one in ledger.studies(limit=9).studies if one.study_id == orthanc_id("d")]
    assert ledger.order_disposal(
        refused.job_id, revision=1, actor="user ada", reason=Reason.DELETED_CONSENT, digests={}
    )
    ledger.call_off_disposal(refused.study_id, ())
    page = omar.page("/studies/retry", **WANTED)
    assert "1 of them stays as it is: their use is not consented to." in page.text
    assert omar.post("/studies/retry", page.fields).headers["Location"].endswith("done=1")


def test_what_stays_in_front_hides_nothing_that_can_be_tried(
    omar: Reader, ledger: Ledger, clock: FakeClock, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(many, "_AT_ONCE", 2)
    _end(ledger, clock, "abcdefghijkl", Reason.PIXELS_NOT_SANE)
    oldest = orthanc_id("a")
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"UPDATE studies SET originals = 'deleted' WHERE study_id <> '{oldest}'"
        )
    page = omar.page("/studies/retry", **WANTED)
    assert omar.post("/studies/retry", page.fields).headers["Location"].endswith("&left=0&done=1")


def test_withdrawals_that_failed_are_not_turned_away_with_the_others(
    omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    asked = {"state": "failed", "reason": Reason.TARGET_UNREACHABLE.value}
    _end(ledger, clock, "ab", Reason.TARGET_UNREACHABLE, State.FAILED)
    _end(ledger, clock, "c", None, State.EXPORTED)
    [exported] = [one for one in ledger.studies(limit=9).studies if one.state is State.EXPORTED]
    assert ledger.order_withdrawal(
        exported.job_id, revision=1, actor="user ada", reason=Reason.WITHDRAWN_CONSENT
    )
    [message] = ledger.outbox()
    claim = ledger.report(report_of(message, State.PROCESSING))
    failed = report_of(
        message,
        State.FAILED,
        Reason.TARGET_UNREACHABLE,
        attempt=claim.attempt,
        measures={"targets_not_withdrawn": 1.0},
    )
    assert ledger.report(failed).proceed
    for path in (f"/studies/{exported.job_id}", "/studies"):
        assert "What failed is the withdrawal of its export." in omar.page(path).text
    page = omar.page("/studies/reject", **asked)
    assert "1 of them stays as it is: their export is to be withdrawn." in page.text
    fields = {**page.fields, "why": Reason.NOT_NEEDED.value}
    assert omar.post("/studies/reject", fields).headers["Location"].endswith("&left=0&done=2")
    left = ledger.study(exported.job_id)
    assert left is not None
    assert left.state is State.FAILED
    told = omar.page("/studies/retry", **asked).text
    assert "1 of them is to have the export withdrawn" in told
