"""The page of models shows what is known of each, and puts one to use as the store allows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prichexy_plugin.chain import Deed, Line
from prichexy_plugin.dashboard.http import Response
from prichexy_plugin.dashboard.routes import Site
from prichexy_plugin.database import open_database
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.security import Role, Roles
from prichexy_store.history import Version
from prichexy_store.store import ModelStore
from prichexy_testing.dashboard_reader import FakeGateway, Page, Reader
from prichexy_testing.plugin_fakes import FakeClock, announcement_of
from prichexy_testing.store_bundles import METRICS, small_bundle

ROLES = Roles({"ada": Role.ADMINISTRATOR, "omar": Role.OPERATOR, "vera": Role.VIEWER})


class House:
    """A dashboard with a store of three versions: one in use, the one before, one offered."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.engine = open_database("sqlite://")
        self.ledger = Ledger(self.engine, self.clock)
        self.store = ModelStore(folder / "store")
        self.folder = folder
        self.versions: dict[str, Version] = {}
        self.put("1")
        self.put("2")
        self.offer("3", "measured", eval_metrics=METRICS, intended_use="Research.")
        self.site = self.site_of(self.store)

    def site_of(self, store: ModelStore | None) -> Site:
        gateway = FakeGateway(self.ledger)
        return Site(
            gateway, problems=(), worker_user="worker", clock=self.clock, roles=ROLES, store=store
        )

    def put(self, version: str, evidence: str = "trained") -> None:
        change = self.store.promote(
            small_bundle(self.folder / version, version, evidence), "alice@host"
        )
        assert change is not None
        self.versions[version] = change.version

    def offer(self, version: str, evidence: str = "trained", **said: Any) -> None:
        made = small_bundle(self.folder / version, version, evidence, **said)
        self.versions[version] = self.store.offer(made)

    def address(self, version: str, part: str) -> str:
        return f"/models/{self.versions[version].digest}/{part}"

    def in_use(self) -> str:
        return next(v for v, one in self.versions.items() if one.digest == self.store.in_use())

    def reader(self, user: str = "ada") -> Reader:
        return Reader(self.site, user)

    def deeds(self) -> list[tuple[str, str]]:
        lines = [line for line in self.ledger.lines() if line.deed == Deed.MODEL_CHANGED]
        return [(line.actor, str(line.details["by"])) for line in lines]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    yield house
    house.engine.dispose()


def send(house: House, path: str, user: str = "ada", **changed: str) -> Response:
    """Open a page that asks, and post its form."""
    fields = {**house.reader().page(path).fields, "reason": "trial", **changed}
    return confirmed(house, path, house.reader(user).post(path, fields))


def confirmed(house: House, path: str, answer: Response) -> Response:
    """Say yes to the page that asks once more, where it is one."""
    if answer.status != 200:
        return answer
    page = Page(answer)
    assert page.fields["sure"] == "yes"
    return house.reader().post(path, page.fields)


def test_everybody_with_a_role_sees_what_is_known_of_each_version(house: House) -> None:
    page = house.reader("vera").page("/models")
    assert "generator 3 measured, no protection shown never in use" in page.text
    assert "What is known of 2." in page.text
    assert "AUC 0.612 [0.602, 0.622]; of real images 0.957" in page.text
    assert "AUC 0.801 [0.790, 0.810]; undeformed 0.822" in page.text
    assert "3.1%, guessing 0.2%" in page.text
    assert "Neither privacy nor utility was measured." in page.text
    assert not [link for link in page.links if "promote" in link or "rollback" in link]
    assert "alice@host" not in page.text, "people are named to operators only"
    assert "alice@host" in house.reader("omar").page("/models").text


def test_what_workers_use_is_held_against_the_store(house: House) -> None:
    house.ledger.announce(announcement_of())
    assert "not of the store below" in house.reader().page("/models").text


def test_an_administrator_promotes_what_was_offered_after_seeing_what_changes(
    house: House,
) -> None:
    path = house.address("3", "promote")
    page = house.reader().page(path)
    for told in ("generator 2", "generator 3", "What is known of 2.", "What is known of 3."):
        assert told in page.text
    assert "Of the one now neither privacy nor utility was measured." in page.text
    answer = send(house, path, reason="privacy")
    assert (answer.status, answer.headers["Location"]) == (303, "../../models?note=promoted")
    assert house.in_use() == "3"
    last = house.store.history()[-1]
    assert (last.by, last.reason, last.forced) == (
        "ada on the dashboard",
        "It protects patients better.",
        False,
    )
    assert house.deeds()[-1] == ("user ada", "ada on the dashboard")


@pytest.mark.parametrize("path", ["promote", "rollback"])
def test_nothing_is_changed_before_the_second_confirmation(house: House, path: str) -> None:
    where = "/models/rollback" if path == "rollback" else house.address("3", "promote")
    ada = house.reader()
    fields = {**ada.page(where).fields, "reason": "trial"}
    # The first page's token is none for the deed.
    assert ada.post(where, {**fields, "sure": "yes"}).status == 403
    again = ada.post(where, fields)
    assert "Nothing has been changed yet" in Page(again).text
    assert house.in_use() == "2"
    assert house.deeds() == []
    assert ada.post(where, Page(again).fields).status == 303
    assert house.in_use() != "2"


def test_an_administrator_rolls_back_and_the_trail_says_so(house: House) -> None:
    answer = send(house, "/models/rollback")
    assert (answer.status, answer.headers["Location"]) == (303, "../models?note=rolled")
    assert house.in_use() == "1"
    assert house.store.history()[-1].action == "rolled back"
    assert house.deeds()[-1] == ("user ada", "ada on the dashboard")


def test_the_trail_has_a_change_told_by_who_made_it_on_the_page_and_no_other(
    house: House,
) -> None:
    send(house, house.address("3", "promote"))
    assert house.deeds() == [
        ("plugin", "alice@host"),
        ("plugin", "alice@host"),
        ("user ada", "ada on the dashboard"),
    ]
    house.store.rollback("bob@host", "trial")
    house.offer("4", "measured")
    send(house, house.address("4", "promote"))
    assert house.deeds()[3:] == [
        ("plugin", "bob@host"),
        ("user ada", "ada on the dashboard"),
    ]
    line = house.ledger.lines()[-1]
    assert isinstance(line, Line)
    assert next(iter(line.details)) == "by", "who made it stands first"


def test_a_weaker_model_is_refused_and_the_page_says_why(house: House) -> None:
    house.offer("4", "untrained")
    page = house.reader().page(house.address("4", "promote"))
    assert "is untrained, but what is in use (generator 2) is trained" in page.text
    assert page.fields == {}, "there is nothing to send"
    fields = house.reader().page(house.address("3", "promote")).fields
    forged = {**fields, "reason": "trial", "force": "1"}
    assert house.reader().post(house.address("4", "promote"), forged).status == 403
    assert house.in_use() == "2"


def test_what_became_weaker_meanwhile_is_refused_when_the_form_comes(house: House) -> None:
    path = house.address("1", "promote")
    fields = {**house.reader().page(path).fields, "reason": "trial"}
    house.store.use(house.versions["3"].digest, "bob", seen=house.versions["2"].digest)
    fields["seen"] = house.versions["3"].digest
    answer = confirmed(house, path, house.reader().post(path, fields))
    assert answer.headers["Location"] == "../../models?note=refused"
    assert house.in_use() == "3"


@pytest.mark.parametrize("path", ["promote", "rollback"])
def test_a_form_counts_only_for_the_store_as_it_was(house: House, path: str) -> None:
    where = "/models/rollback" if path == "rollback" else house.address("3", "promote")
    fields = {**house.reader().page(where).fields, "reason": "trial"}
    house.put("5")
    answer = confirmed(house, where, house.reader().post(where, fields))
    assert answer.headers["Location"].endswith("models?note=moved")
    assert house.in_use() == "5"
    assert "Nothing was changed" in house.reader().page("/models", note="moved").text


@pytest.mark.parametrize("user", ["omar", "vera"])
def test_nobody_else_changes_the_model(house: House, user: str) -> None:
    for path in ("/models/rollback", house.address("3", "promote")):
        assert house.reader(user).ask(path).status == 403
        assert send(house, path, user).status == 403
    assert house.in_use() == "2"


def test_no_reason_no_token_no_change(house: House) -> None:
    path = house.address("3", "promote")
    assert send(house, path, reason="because").status == 400
    assert send(house, path, token="0.0").status == 403
    assert house.in_use() == "2"


@pytest.mark.parametrize(("version", "status"), [("1", 200), ("3", 404)])
def test_a_damaged_version_is_not_put_to_use(house: House, version: str, status: int) -> None:
    file = house.store.folder(house.versions[version].digest) / "models" / "model.pt"
    file.chmod(0o644)
    file.write_bytes(b"other weights")
    path = house.address(version, "promote")
    answer = house.reader().ask(path)
    assert answer.status == status
    if status == 200:
        assert "is not in the store, or is damaged" in house.reader().page(path).text
        assert house.reader().page(path).fields == {}
        assert "its files are not" not in house.reader().page("/models").text, "a quick look"


def test_the_report_of_a_bundle_stands_in_a_sandbox(house: House) -> None:
    assert house.reader("vera").ask(house.address("3", "report")).status == 404
    made = small_bundle(house.folder / "6", "6")
    (made / "docs" / "report.html").write_text("<p>figures</p><script>alert(1)</script>")
    house.versions["6"] = house.store.offer(made)
    frame = house.reader("vera").ask(house.address("6", "report"))
    assert "<iframe" in frame.body  # type: ignore[operator]
    assert " sandbox " in frame.body  # type: ignore[operator]
    assert frame.headers["Content-Security-Policy"].endswith("; frame-src 'self'")
    report = house.reader("vera").ask(house.address("6", "report.html"))
    policy = report.headers["Content-Security-Policy"]
    assert policy.startswith("sandbox; default-src 'none'; ")
    assert "script-src" not in policy
    assert "allow-" not in policy
    assert report.headers["X-Frame-Options"] == "SAMEORIGIN"
    assert report.body == b"<p>figures</p><script>alert(1)</script>"


def test_the_card_is_shown_as_text(house: House) -> None:
    body = house.reader("vera").ask(house.address("3", "card")).body
    assert isinstance(body, str)
    assert "# Card of 3 &lt;b&gt;" in body


@pytest.mark.parametrize(
    "path",
    [
        "/models/" + "0" * 64 + "/card",
        "/models/" + "0" * 64 + "/promote",
        "/models/../../etc/card",
        "/models/nothing",
    ],
)
def test_what_is_not_in_the_store_is_not_there(house: House, path: str) -> None:
    assert house.reader().ask(path).status == 404


def test_the_page_says_where_there_is_no_store_or_it_cannot_be_reached(house: House) -> None:
    house.site = house.site_of(None)
    assert "is told of no model store" in house.reader().page("/models").text
    assert house.reader().ask("/models/rollback").status == 404
    house.site = house.site_of(ModelStore(house.folder / "elsewhere"))
    assert "is not there, or this Orthanc may not read it" in house.reader().page("/models").text
    (house.store.root / "history.jsonl").write_text("{")
    house.site = house.site_of(house.store)
    assert "history.jsonl, line 1" in house.reader().page("/models").text
    assert house.reader().ask("/models/rollback").status == 503


def test_a_store_that_cannot_be_written_offers_no_buttons(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda _path, _mode: False)
    page = house.reader().page("/models")
    assert "may read the model store and not change it" in page.text
    assert not [link for link in page.links if "promote" in link or "rollback" in link]


def test_a_change_that_the_trail_could_not_be_told_is_said(house: House) -> None:
    path = house.address("3", "promote")
    fields = {**house.reader().page(path).fields, "reason": "trial"}
    with house.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE facts")
    answer = confirmed(house, path, house.reader().post(path, fields))
    assert answer.headers["Location"] == "../../models?note=later"
    assert house.in_use() == "3"


@pytest.mark.parametrize(
    "metrics",
    [[], {"nih": 3}, {"nih": {"verification": {"test": {}}}}, {"nih": {"utility": None}}, "x"],
)
def test_figures_that_are_not_as_they_are_written_are_left_out(
    house: House, metrics: object
) -> None:
    house.offer("7", eval_metrics=metrics)
    assert "generator 7" in house.reader().page("/models").text
