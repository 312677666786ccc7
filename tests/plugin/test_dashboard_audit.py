"""The audit trail's page and its file."""

from __future__ import annotations

import csv
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Engine

from prichexy_plugin.chain import Deed, Verdict
from prichexy_plugin.dashboard.routes import Site
from prichexy_plugin.dashboard.verifying import Verifications
from prichexy_plugin.intake import Decision
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.security import Role, Roles
from prichexy_testing.dashboard_reader import FakeGateway, Reader
from prichexy_testing.fake_orthanc import orthanc_id
from prichexy_testing.forgers import drop_guards
from prichexy_testing.plugin_fakes import FakeClock, report_of
from prichexy_testing.servers import wait_until
from prichexy_worker.contract import Reason, State

ROLES = Roles({"vera": Role.VIEWER, "omar": Role.OPERATOR})


@pytest.fixture
def site(ledger: Ledger, clock: FakeClock) -> Site:
    return Site(FakeGateway(ledger), problems=(), worker_user=None, clock=clock, roles=ROLES)


@pytest.fixture
def omar(site: Site) -> Reader:
    return Reader(site, "omar")


def _reject(ledger: Ledger, clock: FakeClock, name: str) -> str:
    """Let a study arrive and be rejected, two lines of the trail; give its job."""
    ledger.note({orthanc_id(name): clock()}, cursor=1)
    decision = Decision(Reason.NO_RULE_MATCHES)
    ledger.settle(orthanc_id(name), decision, content="c", instances=1)
    return ledger.studies(study_id=orthanc_id(name)).studies[0].job_id


def _rows(reader: Reader, **query: str) -> list[dict[str, str]]:
    answer = reader.ask("/audit.csv", **query)
    assert (answer.status, answer.mime) == (200, "text/csv; charset=utf-8")
    assert "attachment" in answer.headers["Content-Disposition"]
    assert isinstance(answer.body, str)
    return list(csv.DictReader(answer.body.splitlines()))


def test_what_a_person_did_is_found_by_the_name(
    omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    job = _reject(ledger, clock, "a")
    _reject(ledger, clock, "b")
    path = f"/studies/{job}/retry"
    assert omar.post(path, omar.page(path).fields).status == 303
    page = omar.page("/audit", actor="user omar")
    assert page.text.count("user omar") == 1
    assert f"../prichexy/studies/{job}" in page.links
    [row] = _rows(omar, actor="user omar")
    assert row == {
        "number": row["number"],
        "at": "2026-03-01T08:00:00+00:00",
        "deed": "step",
        "job_id": job,
        "from": "rejected",
        "to": "rejected",
        "actor": "user omar",
        "reason": "no_rule_matches",
        "details": '{"attempt": 0, "instances": 1, "revision": 1}',
        "key_id": "",
        "digest": row["digest"],
    }
    assert re.fullmatch(r"[0-9a-f]{64}", row["digest"])
    for name in ("omar", "Omar", "USER OMAR"):
        assert _rows(omar, actor=name) == [row]
        assert omar.page("/audit", actor=name).text.count("user omar") == 1


def test_lines_are_found_by_their_reason(omar: Reader, ledger: Ledger, clock: FakeClock) -> None:
    job = _reject(ledger, clock, "a")
    [row] = _rows(omar, reason="no_rule_matches")
    assert (row["job_id"], row["to"]) == (job, "rejected")
    page = omar.page("/audit", reason="no_rule_matches")
    assert page.tags.count("tr") == 1 + 1
    assert "../prichexy/audit.csv?reason=no_rule_matches" in page.links
    assert "No line fits this search" in omar.page("/audit", reason="folds").text
    assert omar.ask("/audit", reason="odd").status == 400


def test_a_deed_that_is_no_step_is_shown_and_found(
    omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    _reject(ledger, clock, "a")
    ledger.start_backfill(per_minute=60, total=7, by="omar")
    page = omar.page("/audit", deed="backfill_started")
    assert Deed.BACKFILL_STARTED.sentence in page.text
    assert "user omar" in page.text
    [row] = _rows(omar, deed="backfill_started")
    assert (row["job_id"], row["from"], row["to"]) == ("", "", "")
    assert json.loads(row["details"])["per_minute"] == 60
    assert omar.ask("/audit", deed="odd").status == 400


def test_the_file_holds_what_the_search_on_the_page_finds(
    omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    first = _reject(ledger, clock, "a")
    clock.move(24 * 3600)
    second = _reject(ledger, clock, "b")
    assert [row["to"] for row in _rows(omar)] == ["rejected", "watched", "rejected", "watched"]
    assert {row["job_id"] for row in _rows(omar, since="2026-03-02")} == {second}
    assert {row["job_id"] for row in _rows(omar, until="2026-03-01")} == {first}
    assert len(_rows(omar, state="watched")) == 2
    assert len(_rows(omar, job=first)) == 2
    smallest = _rows(omar)[1]["number"]
    assert {row["job_id"] for row in _rows(omar, before=smallest)} == {first}
    page = omar.page("/audit", job=first)
    assert f"../prichexy/audit.csv?job={first}" in page.links


def test_the_page_goes_on_over_all_lines_and_back(
    omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    for number in range(120):
        _reject(ledger, clock, str(number))
    page = omar.page("/audit")
    seen = [page.tags.count("tr") - 1]
    assert "prev" not in page.related
    for _ in range(2):
        page = omar.follow("/audit", page.related["next"])
        seen.append(page.tags.count("tr") - 1)
    assert seen == [100, 100, 40]
    assert "next" not in page.related
    page = omar.follow("/audit", page.related["prev"])
    page = omar.follow("/audit", page.related["prev"])
    assert page.text == omar.page("/audit").text
    assert "prev" not in page.related


def test_no_field_of_the_file_is_taken_for_a_formula(
    omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    ledger.note({orthanc_id("a"): clock()}, cursor=1)
    ledger.settle(orthanc_id("a"), Decision(None), content="c", instances=1)
    ledger.report(report_of(ledger.outbox()[0], State.PROCESSING, worker_id="@SUM"))
    assert _rows(omar)[0]["actor"] == "'@SUM"
    assert "by @SUM" in omar.page(f"/studies/{ledger.studies().studies[0].job_id}").text
    assert "@SUM" in omar.page("/audit").text


@pytest.mark.parametrize("path", ["/audit", "/audit.csv"])
def test_the_trail_is_for_operators_and_its_search_is_read_strictly(
    omar: Reader, site: Site, path: str
) -> None:
    assert Reader(site, "vera").ask(path).status == 403
    assert Reader(site).ask(path).status == 403
    no_day = {"until": "9999-12-31"}  # after which none comes
    for query in ({"job": "x"}, {"state": "x"}, {"since": "x"}, {"before": "x"}, no_day):
        assert omar.ask(path, **query).status == 400
    assert omar.ask(path, actor="a" * 129).status == 400
    assert omar.ask(path, actor="user \x00").status == 400


def test_what_a_line_notes_is_one_run_of_words_and_digests_are_cut(
    omar: Reader, ledger: Ledger
) -> None:
    ledger.record(Deed.ACTION, by="user omar", details={"studies": 7, "readers": "ab" * 32})
    body = omar.ask("/audit").body
    assert isinstance(body, str)
    assert body.count('class="quiet facts"') == 1
    assert "studies 7" in body
    assert f'title="readers {"ab" * 32}">readers abababababab…<' in body
    assert "ab" * 32 in _rows(omar)[0]["details"]


def test_an_empty_trail_says_so(omar: Reader) -> None:
    assert "No line fits this search" in omar.page("/audit").text
    assert _rows(omar) == []


def test_the_chain_is_verified_on_a_page(
    omar: Reader, site: Site, ledger: Ledger, clock: FakeClock
) -> None:
    _reject(ledger, clock, "a")
    page = omar.page("/audit")
    assert "2 lines, up to number 2" in page.text
    chain = omar.page("/audit/chain")
    assert "Whole: every one of 2 lines is as it was written" in chain.text
    assert str(ledger.chain_state().head) in chain.text
    assert Reader(site, "vera").ask("/audit/chain").status == 403


@pytest.mark.parametrize(
    "altered",
    ["actor = 'nobody'", "details = '5'", "details = '\"{}\"'", "at = 'infinity'", "key_id = 'a'"],
)
def test_a_broken_chain_is_said_loudly(
    omar: Reader, ledger: Ledger, clock: FakeClock, engine: Engine, altered: str
) -> None:
    for name in "abc":
        _reject(ledger, clock, name)
    _alter(engine, altered)
    page = omar.page("/audit/chain")
    assert "Broken at line 3" in page.text
    assert "not as it was written" in page.text


def _alter(engine: Engine, altered: str) -> None:
    """Write over line 3 as somebody who has the database may."""
    with engine.begin() as connection:
        drop_guards(connection)
        connection.exec_driver_sql(f"UPDATE events SET {altered} WHERE number = 3")


@pytest.mark.parametrize(
    "altered", ["details = '5'", "details = '\"{}\"'", "at = 'infinity'", "reason = 'none'"]
)
def test_an_altered_line_hides_no_other(
    omar: Reader, ledger: Ledger, clock: FakeClock, engine: Engine, altered: str
) -> None:
    for name in "abc":
        _reject(ledger, clock, name)
    before = _rows(omar)
    _alter(engine, altered)
    page = omar.page("/audit")
    after = _rows(omar)
    assert [row["number"] for row in after] == [row["number"] for row in before]
    assert [row for row in after if row["number"] != "3"] == [
        row for row in before if row["number"] != "3"
    ]
    (row,) = (row for row in after if row["number"] == "3")
    if altered.startswith("reason"):
        assert row["reason"] == "none"
    else:
        column = altered.split(maxsplit=1)[0]
        assert row["deed"] == f"altered: {column} holds what no line has"
        assert f"This line was altered: its {column}" in page.text


def test_a_long_verification_shows_how_far_it_is_and_none_runs_beside_it_or_soon_after(
    omar: Reader, site: Site, ledger: Ledger, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prichexy_plugin.dashboard.verifying._AT_ONCE", 0)
    _reject(ledger, clock, "a")
    begun, held = threading.Event(), threading.Event()
    verdict, calls = ledger.verdict, []

    def hangs(seen: Callable[[int], None]) -> Verdict:
        calls.append(clock())
        seen(1)
        begun.set()
        assert held.wait(300)
        return verdict(seen)

    monkeypatch.setattr(ledger, "verdict", hangs)
    assert "progress" in omar.page("/audit/chain").tags
    assert begun.wait(300)
    page = omar.page("/audit/chain")
    assert "1 of 2 lines verified" in page.text
    assert "Whole" not in page.text
    held.set()
    wait_until(
        lambda: "progress" not in omar.page("/audit/chain").tags, what="the verification has ended"
    )
    first = clock()
    clock.move(60)
    monkeypatch.setattr(site._verifications, "_rests_until", time.monotonic() + 3600)
    page = omar.page("/audit/chain")
    assert "Verify again" not in page.text
    again = re.search(r"Verified 1 min ago; again from ([\d-]+ [\d:]+) UTC", page.text)
    assert again is not None
    left = datetime.fromisoformat(f"{again[1]}+00:00") - clock()
    assert timedelta(minutes=50) < left <= timedelta(hours=1)
    assert "Whole: every one of 2 lines" in page.text
    assert f"began at {first:%Y-%m-%d %H:%M:%S}" in page.text
    assert calls == [first]
    monkeypatch.setattr(site._verifications, "_rests_until", 0.0)
    assert "progress" in omar.page("/audit/chain").tags
    site.stop()
    assert not [one for one in threading.enumerate() if one.name == "prichexy-verifying"]


def test_one_file_is_made_at_a_time(
    omar: Reader, ledger: Ledger, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    _reject(ledger, clock, "a")
    trail, beside = ledger.trail, []

    def asks_beside(*search: Any, **place: Any) -> Any:
        beside.append(omar.ask("/audit.csv"))
        return trail(*search, **place)

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "trail", asks_beside)
        assert omar.ask("/audit.csv").status == 200
    [refused] = beside
    assert refused.status == 503
    assert "Retry-After" in refused.headers
    assert "One file at a time" in refused.body
    assert len(_rows(omar)) == 2


def test_a_trail_of_any_length_is_verified_in_the_background(
    omar: Reader, ledger: Ledger, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    _reject(ledger, clock, "a")
    state = replace(ledger.chain_state(), lines=600_000)
    monkeypatch.setattr(ledger, "chain_state", lambda: state)
    page = omar.page("/audit/chain")
    assert "of 600000 lines verified" in page.text
    wait_until(
        lambda: "Whole: every one of 2 lines" in omar.page("/audit/chain").text,
        what="the verification has ended",
    )


def test_a_long_verification_leaves_the_processor_to_others_for_half_of_its_time(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, rested = 0.0, []
    verifications = Verifications(clock)
    stopwatch = SimpleNamespace(monotonic=lambda: now)
    monkeypatch.setattr("prichexy_plugin.dashboard.verifying.time", stopwatch)

    def wait(seconds: float) -> bool:
        nonlocal now
        rested.append(seconds)
        now += seconds
        return False

    monkeypatch.setattr(verifications._stopping, "wait", wait)
    for took in (1.0, 3.0):
        now += took
        verifications._note(500)
    assert rested == [1.0, 3.0]
