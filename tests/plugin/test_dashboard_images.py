"""The images of an exported study stand side by side, for those who may see the original."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from prichexy_plugin.chain import Deed
from prichexy_plugin.dashboard.http import LIVE, Request, Response
from prichexy_plugin.dashboard.routes import Site
from prichexy_plugin.database import open_database
from prichexy_plugin.intake import Decision
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.pictures import OrthancPictures
from prichexy_plugin.security import Role, Roles
from prichexy_testing.dashboard_reader import FakeGateway, Reader, login
from prichexy_testing.fake_orthanc import FakeOrthanc, orthanc_id
from prichexy_testing.plugin_fakes import FakeClock, report_of
from prichexy_worker.contract import (
    API_ROOT,
    IMAGE_PARTS,
    REQUEST_HEADER,
    Claim,
    ImagePictures,
    State,
    StudyMessage,
)

API = API_ROOT.removeprefix("/prichexy")
STUDY = orthanc_id("a")
FIGURES = {
    "rows": 2140.0,
    "columns": 1760.0,
    "max_displacement_px": 31.5,
    "mean_displacement_px": 19.0,
    "changed_share": 0.97,
    "psnr_db": 19.6,
    "arrow_length": 2.5,
    "full_difference": 0.4,
}
SQUARE = {"row_spacing_mm": 0.2, "column_spacing_mm": 0.2, "max_displacement_mm": 6.3}
ROLES = Roles({"ada": Role.ADMINISTRATOR, "omar": Role.OPERATOR, "vera": Role.VIEWER})


class House:
    """A gateway with one study that a worker has claimed."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.engine = open_database("sqlite://")
        self.ledger = Ledger(self.engine, self.clock)
        self.orthanc = FakeOrthanc()
        assert self.orthanc.store({}, study="a") == STUDY
        self.pictures = OrthancPictures(self.orthanc)
        self.site = Site(
            FakeGateway(self.ledger),
            problems=(),
            worker_user="worker",
            clock=self.clock,
            pictures=self.pictures,
            roles=ROLES,
        )
        self.message = self._taken_in()
        self.ledger.report(report_of(self.message, State.PROCESSING))

    def _taken_in(self) -> StudyMessage:
        self.ledger.note({STUDY: self.clock()}, cursor=1)
        self.ledger.settle(STUDY, Decision(None), content="c", instances=2)
        message = self.ledger.outbox()[0]
        self.ledger.sent(message)
        return message

    def show(
        self, number: int = 1, count: int = 2, attempt: int = 1, user: str = "worker", **more: Any
    ) -> Response:
        shown = ImagePictures(
            self.message.job_id,
            1,
            attempt,
            number,
            count,
            {**FIGURES, **more},
            tuple(jpeg(number, part) for part in IMAGE_PARTS),
        )
        headers = {**login(user), REQUEST_HEADER.lower(): "2"}
        body = json.dumps(shown.to_json()).encode()
        return self.site.answer(Request("POST", f"{API}/images", headers=headers, body=body))

    def end(self, images: int, state: State = State.EXPORTED, **more: float) -> None:
        measures = {"images_shown": float(images), "psnr_db": 19.6, **more}
        report = report_of(self.message, state, attempt=1, measures=measures)
        assert self.ledger.report(report).proceed

    def look(self, number: int, part: str, user: str = "omar") -> Response:
        path = f"/studies/{self.message.job_id}/image-{number}-{part}.jpg"
        return Reader(self.site, user).ask(path)

    def page(self, user: str = "omar") -> Any:
        return Reader(self.site, user).page(f"/studies/{self.message.job_id}")

    def deeds(self) -> list[tuple[str, str]]:
        lines = self.ledger.lines(job_id=self.message.job_id, limit=100)
        return [(line.deed, line.actor) for line in lines if line.deed != Deed.STEP]


def jpeg(number: int, part: str) -> bytes:
    return b"\xff\xd8\xff" + f"{number} {part}".encode()


@pytest.fixture
def house() -> Iterator[House]:
    house = House()
    yield house
    house.engine.dispose()


def test_an_operator_sees_all_four_pictures_of_each_image(house: House) -> None:
    for number in (1, 2):
        assert Claim.from_json(json.loads(house.show(number).body)).proceed
    assert house.look(1, "original").status == 404, "the export has not ended yet"
    house.end(images=2)
    for number in (1, 2):
        for part in IMAGE_PARTS:
            answer = house.look(number, part)
            assert (answer.status, answer.mime) == (200, "image/jpeg")
            assert answer.body == jpeg(number, part)
    assert house.look(3, "original").status == 404
    page = house.page()
    for part in IMAGE_PARTS:
        assert f"../../prichexy/studies/{house.message.job_id}/image-2-{part}.jpg" in page.links
    assert "1760 × 2140 pixels" in page.text


def test_pictures_are_loaded_and_noted_when_they_are_opened_only(house: House) -> None:
    house.show()
    house.end(images=1)
    body = Reader(house.site, "omar").ask(f"/studies/{house.message.job_id}").body
    assert isinstance(body, str)
    assert body.count("<details") == 1
    assert "<details open" not in body
    assert body.count("<img") - body.count('alt="" width') == body.count('loading="lazy"') == 4
    assert [deed for deed, _ in house.deeds()] == ["pictures_kept"]
    house.look(1, "displacement")
    house.look(1, "original")
    assert house.deeds() == [("pictures_kept", "worker-1"), ("pictures_shown", "user omar")]


@pytest.mark.parametrize("part", IMAGE_PARTS)
def test_a_viewer_sees_none_and_is_not_told_of_them(house: House, part: str) -> None:
    house.show()
    house.end(images=1)
    assert house.look(1, part, user="vera").status == 403
    assert "before and after" not in house.page("vera").text
    assert [deed for deed, _ in house.deeds()] == ["pictures_kept"]


def test_only_a_page_with_pictures_may_run_the_scripts_for_them(house: House) -> None:
    house.show()
    path = f"/studies/{house.message.job_id}"
    before = Reader(house.site, "omar").ask(path)
    # It changes by itself, and has the script for that alone.
    assert isinstance(before.body, str)
    assert "images.js" not in before.body
    assert before.headers == LIVE
    house.end(images=1)
    policy = Reader(house.site, "omar").ask(path).headers["Content-Security-Policy"]
    assert policy.endswith("; script-src 'self'")
    assert policy.startswith("default-src 'none'; style-src 'self'; img-src 'self'; ")
    assert "unsafe" not in policy
    page = house.page()
    assert page.tags.count("script") == 2
    assert "style" not in page.attributes


@pytest.mark.parametrize("name", ["controls.js", "images.js", "images.css"])
def test_the_files_of_the_viewer_are_served(house: House, name: str) -> None:
    answer = Reader(house.site, "omar").ask(f"/static/{name}")
    assert (answer.status, answer.mime.split("/")[0]) == (200, "text")


def test_pictures_without_the_claim_that_holds_are_not_kept(house: House) -> None:
    assert not Claim.from_json(json.loads(house.show(attempt=2).body)).proceed
    house.end(images=0)
    assert not Claim.from_json(json.loads(house.show().body)).proceed
    assert house.orthanc.attachments == {}


def test_pictures_come_from_the_workers_user_alone(house: House) -> None:
    assert house.show(user="ada").status == 403
    assert house.orthanc.attachments == {}


def test_pictures_that_orthanc_does_not_take_are_not_said_to_be_kept(house: House) -> None:
    house.orthanc.broken = True
    assert house.show().status == 503


def test_those_of_a_new_export_take_the_place_of_all_before(house: House) -> None:
    for number in (1, 2):
        house.show(number)
    house.show(1, count=1)
    assert len(house.orthanc.attachments) == 1 + len(IMAGE_PARTS)


def test_pictures_that_were_deleted_are_not_looked_for(house: House) -> None:
    house.show()
    house.end(images=1)
    assert house.pictures.delete(STUDY)
    house.ledger.end_pictures_disposal(STUDY)
    assert house.orthanc.attachments == {}
    house.orthanc.asked.clear()
    assert "before and after" not in house.page().text
    assert house.orthanc.asked == []
    assert house.look(1, "original").status == 404


def test_attachments_of_others_stay_when_pictures_are_deleted(house: House) -> None:
    house.show()
    house.orthanc.attachments[STUDY, "4711"] = b"somebody else's"
    house.orthanc.attachments[STUDY, "named"] = b"somebody else's"
    assert house.pictures.delete(STUDY)
    assert {name for _, name in house.orthanc.attachments} == {"4711", "named"}


def test_figures_that_are_damaged_leave_the_page_as_it_is(house: House) -> None:
    house.show()
    house.end(images=1)
    house.orthanc.attachments[STUDY, str(0x5100)] = b"{"
    assert "before and after" not in house.page().text


@pytest.mark.parametrize(
    ("more", "told", "not_told"),
    [
        ({}, "31.5 px (yellow)", " mm"),
        (SQUARE, "31.5 px = 6.3 mm (yellow)", "at the detector"),
        ({**SQUARE, "at_detector": 1.0}, "6.3 mm at the detector", "Nothing moved"),
        ({**SQUARE, "row_spacing_mm": 0.1}, "31.5 px (yellow)", "= 6.3 mm"),
        ({"arrow_length": 0.0, "psnr_db": 200.0}, "nothing changed", "times as long"),
        ({"max_recognised": 0.974}, "97%", "Greatest change of a finding"),
        ({"max_finding_change": 0.021}, "2%", "Recognised as the patient"),
        ({"max_recognised": 0.004}, "less than 1%", ">0%"),
        ({"max_recognised": 0.9996}, "more than 99%", "100%"),
    ],
)
def test_the_scale_is_told_in_pixels_and_where_it_is_known_in_millimetres(
    house: House, more: dict[str, float], told: str, not_told: str
) -> None:
    house.show(**more)
    house.end(images=1)
    text = house.page().text
    assert told in text
    assert not_told not in text


def test_each_figure_of_the_report_says_what_it_means(house: House) -> None:
    house.end(images=0)
    text = house.page("vera").text
    assert "the more of use and the less private" in text
    assert "images shown" not in text
    assert "recognised again is not measured" in text


def test_what_the_verifier_says_is_told_as_one_networks_word(house: House) -> None:
    house.end(images=0, max_recognised=0.974, max_finding_change=0.02)
    text = house.page("vera").text
    assert "0.974" in text
    assert "other networks may recognise more" in text
    assert "recognised again is not measured" not in text


def test_the_record_of_a_study_says_whether_pictures_are_kept(house: House) -> None:
    study = house.ledger.study(house.message.job_id)
    assert study is not None
    assert not study.pictured
    house.show()
    assert house.ledger.study(house.message.job_id) == replace(study, pictured=True)
