"""From a study's page in Orthanc to its page on the dashboard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest

from prichexy_plugin.dashboard.routes import Site
from prichexy_plugin.effective import read_source_files
from prichexy_plugin.explorer import STUDY_PART
from prichexy_plugin.intake import Decision
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.security import Role, Roles
from prichexy_testing.dashboard_reader import FakeGateway, Reader
from prichexy_testing.fake_orthanc import orthanc_id
from prichexy_testing.plugin_fakes import FakeClock, report_of
from prichexy_worker.contract import API_ROOT, Reason, State

CONFIGURATION = Path(__file__).parents[2] / "orthanc-config" / "explorer-2.json"
ROLES = Roles({"ada": Role.ADMINISTRATOR, "omar": Role.OPERATOR, "vera": Role.VIEWER})
API = API_ROOT.removeprefix("/prichexy")
STUDY = orthanc_id("a")


@pytest.fixture
def site(ledger: Ledger, clock: FakeClock) -> Site:
    ledger.note({STUDY: clock()}, cursor=1)
    ledger.settle(STUDY, Decision(Reason.NO_RULE_MATCHES), content="", instances=1)
    return Site(FakeGateway(ledger), problems=(), worker_user="worker", clock=clock, roles=ROLES)


def _told(reader: Reader, study_id: str = STUDY) -> dict[str, Any]:
    answer = reader.ask(f"{API}/orthanc/{study_id}")
    assert answer.status == 200
    value: dict[str, Any] = json.loads(answer.body)
    return value


def test_orthancs_page_is_told_state_reason_and_what_this_user_may_do(
    site: Site, ledger: Ledger
) -> None:
    job = ledger.studies().studies[0].job_id
    told = _told(Reader(site, "ada"))
    assert (told["job_id"], told["state"]) == (job, "rejected")
    assert told["sentence"] == Reason.NO_RULE_MATCHES.sentence
    names = {
        user: [one["name"] for one in _told(Reader(site, user))["actions"]]
        for user in ("vera", "omar", "ada")
    }
    assert names["vera"] == []
    assert "retry" in names["omar"]
    assert "delete" in names["ada"]
    assert "delete" not in names["omar"]


def test_orthancs_page_leads_to_the_desk_and_to_making_it_anew(
    site: Site, ledger: Ledger, clock: FakeClock
) -> None:
    study = orthanc_id("b")
    ledger.note({study: clock()}, cursor=1)
    ledger.settle(study, Decision(None), content="", instances=1)
    assert not _told(Reader(site, "ada"), study)["on_desk"]
    [message] = ledger.outbox()
    ledger.report(report_of(message, State.PROCESSING))
    ledger.report(report_of(message, State.QUARANTINED, Reason.BURNED_IN_TEXT, attempt=1))
    for user, on_desk, anew in (("vera", False, False), ("omar", True, False), ("ada", True, True)):
        told = _told(Reader(site, user), study)
        assert told["on_desk"] is on_desk
        assert ({"name": "rerun", "title": "Make anew"} in told["actions"]) is anew
    ada = Reader(site, "ada")
    for name, where in (("desk", "desk/"), ("rerun", "studies/")):
        location = ada.ask(f"/orthanc/{study}/{name}").headers["Location"]
        assert location.startswith(f"../../{where}{message.job_id}")
    assert "prichexy/desk/" in STUDY_PART


@pytest.mark.parametrize("user", ["worker", "nobody", None])
def test_who_has_no_role_is_told_nothing(site: Site, user: str | None) -> None:
    assert Reader(site, user).ask(f"{API}/orthanc/{STUDY}").status == 403
    assert Reader(site, user).ask(f"/orthanc/{STUDY}").status == 403


@pytest.mark.parametrize("path", [f"{API}/orthanc/", "/orthanc/"])
def test_a_study_that_the_gateway_does_not_know_is_said_to_be_none(site: Site, path: str) -> None:
    omar = Reader(site, "omar")
    for name in (orthanc_id("another"), f"{STUDY}/nothing", f"{STUDY}x", STUDY.upper(), "x"):
        assert omar.ask(path + name).status == 404, name


def test_each_button_for_orthanc_explorer_2_leads_to_a_page_of_the_study(
    site: Site, ledger: Ledger
) -> None:
    [file] = read_source_files(CONFIGURATION)
    assert list(file.content) == ["OrthancExplorer2"]
    buttons = file.content["OrthancExplorer2"]["UiOptions"]["CustomButtons"]
    assert list(buttons) == ["study"]
    assert len({button["Id"] for button in buttons["study"]}) == len(buttons["study"])
    job = ledger.studies().studies[0].job_id
    seen = []
    omar = Reader(site, "omar")
    for button in buttons["study"]:
        assert set(button) == {"HttpMethod", "Id", "Tooltip", "Icon", "Target", "Url"}
        # A GET changes nothing: what is done is asked for by a form with its token.
        assert button["HttpMethod"] == "GET"
        # Orthanc Explorer 2 puts Orthanc's id in the braces; no tag of the study may stand there.
        assert button["Url"].count("{") == button["Url"].count("{UUID}") == 1
        page = urljoin("http://gateway/ui/app/", button["Url"].replace("{UUID}", STUDY))
        path = urlsplit(page).path
        answer = omar.ask(path.removeprefix("/prichexy"))
        assert answer.status == 302
        target = urlsplit(urljoin(page, answer.headers["Location"])).path
        assert omar.page(target.removeprefix("/prichexy"))
        seen.append(target)
    assert seen == [f"/prichexy/studies/{job}", f"/prichexy/studies/{job}/retry"]
