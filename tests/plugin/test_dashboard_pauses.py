"""The page on which people pause the intake and the export, and all that tells of it."""

from __future__ import annotations

import json
import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from prichexy_plugin.dashboard.routes import Site
from prichexy_plugin.intake import Decision, Rule
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.pauses import WHY_PAUSED, Pause, Stage
from prichexy_plugin.security import Role, Roles
from prichexy_testing.dashboard_reader import FakeGateway, Reader
from prichexy_testing.fake_orthanc import orthanc_id
from prichexy_testing.plugin_fakes import FakeClock, announcement_of
from prichexy_worker.contract import API_ROOT, Reason

ROLES = Roles({"omar": Role.OPERATOR, "otto": Role.OPERATOR, "vera": Role.VIEWER})
WHY = Reason.PAUSED_DOUBT
HEALTH = f"{API_ROOT.removeprefix('/prichexy')}/health"
RULES = (
    Rule("bedside", targets=frozenset({"archive", "research"})),
    Rule("others"),
)


@pytest.fixture
def gateway(ledger: Ledger) -> FakeGateway:
    gateway = FakeGateway(ledger)
    gateway.rules = RULES
    ledger.announce(announcement_of(evidence="measured", statement="Measured.", protects=True))
    return gateway


@pytest.fixture
def site(gateway: FakeGateway, clock: FakeClock) -> Site:
    return Site(gateway, problems=(), worker_user="worker", clock=clock, roles=ROLES)


def _forms(reader: Reader) -> dict[tuple[str, str], dict[str, str]]:
    """Give the hidden fields of the page's forms, by what each is for."""
    body = reader.ask("/pauses").body
    assert isinstance(body, str)
    found = {}
    for form in re.findall(r'<form method="post".*?</form>', body, re.DOTALL):
        inputs = r'<input type="hidden" name="(\w+)" value="([^"]*)"'
        fields = dict(re.findall(inputs, form))
        found[fields["stage"], fields["target"]] = fields
    return found


def _pauses(gateway: FakeGateway) -> tuple[Pause, ...]:
    assert gateway.ledger is not None
    return gateway.ledger.pauses()


def _pause(site: Site, stage: str, target: str = "", user: str = "omar") -> None:
    reader = Reader(site, user)
    fields = {**_forms(reader)[stage, target], "reason": WHY.value}
    answer = reader.post("/pauses", fields)
    assert (answer.status, answer.headers["Location"]) == (303, "pauses?note=paused")


def test_an_operator_pauses_and_another_one_lets_it_go_on(
    site: Site, gateway: FakeGateway, clock: FakeClock
) -> None:
    _pause(site, "intake")
    [pause] = _pauses(gateway)
    assert (pause.stage, pause.by, pause.reason) == (Stage.INTAKE, "user omar", WHY)
    done = "Done. It is paused until somebody lets it go on"
    assert done in Reader(site, "omar").page("/pauses", note="paused").text
    clock.move(7200)
    otto = Reader(site, "otto")
    page = otto.page("/pauses", note="paused")
    assert done not in page.text
    assert "paused 2 h ago by omar" in page.text
    assert WHY.sentence in page.text
    answer = otto.post("/pauses", _forms(otto)["intake", ""])
    assert answer.headers["Location"] == "pauses?note=resumed"
    assert _pauses(gateway) == ()


def test_there_is_a_pause_for_each_target_that_anything_names(
    site: Site, gateway: FakeGateway, ledger: Ledger, clock: FakeClock
) -> None:
    ledger.note({orthanc_id("a"): clock()}, cursor=1)
    ledger.settle(orthanc_id("a"), Decision(None, ("old",)), content="c", instances=1)
    ledger.note({orthanc_id("b"): clock()}, cursor=2)
    forms = _forms(Reader(site, "omar"))
    assert list(forms) == [
        ("intake", ""),
        ("export", ""),
        *(("target", name) for name in ("", "archive", "old", "research")),
    ]
    text = Reader(site, "omar").page("/pauses").text
    assert text.count("1 study waits here now.") == 3, "b for the intake; a for all and its target"
    _pause(site, "target", "old")
    _pause(site, "target", "")
    assert [(one.stage, one.target) for one in _pauses(gateway)] == [
        (Stage.TARGET, ""),
        (Stage.TARGET, "old"),
    ]


def test_while_the_whole_export_is_paused_no_target_is_said_to_go_on(
    site: Site, gateway: FakeGateway
) -> None:
    going, held = '<p class="ok">goes on</p>', "held by the pause of the export to all targets"
    omar = Reader(site, "omar")
    _pause(site, "target", "archive")
    body = str(omar.ask("/pauses").body)
    assert (body.count(going), body.count(held)) == (4, 0), "all but the archive"
    _pause(site, "export")
    body = str(omar.ask("/pauses").body)
    assert (body.count(going), body.count(held)) == (1, 3), "the intake alone goes on"
    assert len(_forms(omar)) == 5, "each has its own button still"


@pytest.mark.parametrize("reason", ["", "because", Reason.NOT_NEEDED.value, Reason.PAUSED.value])
def test_nothing_is_paused_without_one_of_the_reasons(
    site: Site, gateway: FakeGateway, reason: str
) -> None:
    reader = Reader(site, "omar")
    fields = {**_forms(reader)["export", ""], "reason": reason}
    assert reader.post("/pauses", fields).status == 400
    assert _pauses(gateway) == ()


def test_a_form_for_another_thing_or_another_user_changes_nothing(
    site: Site, gateway: FakeGateway
) -> None:
    omar = Reader(site, "omar")
    forms = _forms(omar)
    good = {**forms["intake", ""], "reason": WHY.value}
    for fields, reader, status in (
        ({**good, "stage": "export"}, omar, 403),
        ({**good, "stage": "target", "target": "archive"}, omar, 403),
        ({**good, "token": ""}, omar, 403),
        ({**good, "stage": "world"}, omar, 400),
        ({**good, "target": "a b"}, omar, 400),
        (good, Reader(site, "otto"), 403),
        (good, Reader(site, "vera"), 403),
        (good, Reader(site, "worker"), 403),
        (good, Reader(site), 403),
    ):
        assert reader.post("/pauses", fields).status == status, fields
    elsewhere = omar.post("/pauses", good, {"origin": "http://evil.example", "host": "here"})
    assert elsewhere.status == 403
    assert _pauses(gateway) == ()


def test_a_form_of_a_pause_that_was_ended_ends_no_other(
    site: Site, gateway: FakeGateway, clock: FakeClock
) -> None:
    _pause(site, "export")
    omar, otto = Reader(site, "omar"), Reader(site, "otto")
    seen_before = _forms(omar)["export", ""]
    otto.post("/pauses", _forms(otto)["export", ""])
    clock.move(1)
    _pause(site, "export", user="otto")
    for fields in (seen_before, {**seen_before, "since": "yesterday"}):
        answer = omar.post("/pauses", fields)
        assert answer.headers["Location"] == "pauses?note=moved"
    assert "somebody else was faster" in omar.page("/pauses", note="moved").text
    assert len(_pauses(gateway)) == 1


def test_viewers_read_what_is_paused_without_names_and_without_a_button(
    site: Site, gateway: FakeGateway
) -> None:
    _pause(site, "export")
    page = Reader(site, "vera").page("/pauses")
    assert "paused just now by a user" in page.text
    assert "omar" not in page.text
    assert "form" not in page.tags
    assert "Operators can let it go on here." in page.text


def test_a_pause_is_what_needs_somebody_and_every_program_that_asks_hears_of_it(
    site: Site, gateway: FakeGateway, clock: FakeClock
) -> None:
    assert "Nothing. Every part works" in Reader(site, "vera").page().text
    _pause(site, "intake")
    _pause(site, "target", "archive")
    clock.move(180)
    page = Reader(site, "vera").page()
    assert "The intake is paused since 3 min ago" in page.text
    assert "The export to archive is paused since 3 min ago" in page.text
    assert f"{WHY.sentence} Orthanc receives" in page.text
    assert "prichexy/pauses" in page.links
    health = json.loads(Reader(site).ask(HEALTH).body)
    assert [(one["stage"], one["target"], one["reason"]) for one in health["pauses"]] == [
        ("intake", "", WHY.value),
        ("target", "archive", WHY.value),
    ]
    assert "omar" not in json.dumps(health)
    text = Reader(site, "omar").ask("/metrics").body
    assert isinstance(text, str)
    [family] = [
        one for one in text_string_to_metric_families(text) if one.name == "prichexy_paused"
    ]
    assert {one.labels["stage"]: one.value for one in family.samples} == {
        "intake": 1.0,
        "export": 0.0,
        "target": 1.0,
    }


def test_the_search_for_studies_offers_no_reason_that_no_study_has(site: Site) -> None:
    body = Reader(site, "omar").ask("/studies").body
    assert isinstance(body, str)
    assert f'value="{Reason.PAUSED.value}"' in body
    assert not [why for why in WHY_PAUSED if f'value="{why.value}"' in body]


def test_with_a_ledger_that_is_not_open_the_page_says_so(
    site: Site, gateway: FakeGateway, clock: FakeClock
) -> None:
    gateway.ledger, gateway.ledger_state = None, "not opened yet"
    page = Reader(site, "omar").page("/pauses")
    assert "The ledger not opened yet" in page.text
    assert "form" not in page.tags
