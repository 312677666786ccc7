"""How many workers are known, whoever announces how many."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from prichexy_plugin.chain import Deed, Line
from prichexy_plugin.dashboard.http import Request
from prichexy_plugin.dashboard.routes import Site
from prichexy_plugin.database import open_database
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.newcomers import MOST_WORKERS
from prichexy_testing.dashboard_reader import FakeGateway, Reader, login
from prichexy_testing.plugin_fakes import FakeClock, announcement_of
from prichexy_worker.contract import API_ROOT, REQUEST_HEADER


@pytest.fixture
def ledger(clock: FakeClock) -> Iterator[Ledger]:
    engine = open_database("sqlite://")
    yield Ledger(engine, clock)
    engine.dispose()


@pytest.fixture
def site(ledger: Ledger, clock: FakeClock) -> Site:
    return Site(FakeGateway(ledger), problems=(), worker_user="worker", clock=clock)


def _announce(ledger: Ledger, prefix: str, count: int = MOST_WORKERS) -> int:
    """Announce so many workers; give how many of them were taken note of."""
    return sum(ledger.announce(announcement_of(f"{prefix}{one:03}")) for one in range(count))


def _told(ledger: Ledger) -> int:
    lines = ledger.lines(limit=10_000)
    return sum(isinstance(line, Line) and line.deed == Deed.MODEL_TAKEN_UP for line in lines)


def test_no_more_are_known_and_no_more_lines_written_than_there_is_room_for(
    ledger: Ledger, clock: FakeClock
) -> None:
    assert _announce(ledger, "made-up-", MOST_WORKERS + 100) == MOST_WORKERS
    assert len(ledger.workers()) == _told(ledger) == MOST_WORKERS
    assert ledger.announce(announcement_of("made-up-000")), "one that is known lives on"
    for minutes in range(5, 60, 5):
        clock.move(300)
        _announce(ledger, f"after-{minutes}-")
    assert len(ledger.workers()) == MOST_WORKERS
    assert _told(ledger) == 2 * MOST_WORKERS, "within an hour"


def test_a_new_worker_takes_the_place_of_the_one_that_fell_silent_first(
    ledger: Ledger, clock: FakeClock
) -> None:
    _announce(ledger, "w", 1)
    clock.move(60)
    assert _announce(ledger, "v", MOST_WORKERS - 1) == MOST_WORKERS - 1
    assert not ledger.announce(announcement_of("late")), "all of them live"
    clock.move(60)
    assert ledger.announce(announcement_of("late"))
    known = {one.announcement.worker_id for one in ledger.workers()}
    assert "late" in known
    assert "w000" not in known
    assert not ledger.announce(announcement_of("later"))


def test_what_was_announced_while_the_clock_was_ahead_keeps_no_worker_out(
    ledger: Ledger, clock: FakeClock
) -> None:
    clock.move(86_400)
    _announce(ledger, "a")
    clock.move(600)
    _announce(ledger, "b")
    assert not ledger.announce(announcement_of("late")), "within an hour"
    clock.move(-86_400)
    assert ledger.announce(announcement_of("late"))


def test_a_worker_that_finds_no_room_is_told_to_ask_again(site: Site, ledger: Ledger) -> None:
    _announce(ledger, "w")
    answer = site.answer(
        Request(
            "POST",
            f"{API_ROOT.removeprefix('/prichexy')}/workers",
            headers={**login("worker"), REQUEST_HEADER.lower(): "3"},
            body=json.dumps(announcement_of("late").to_json()).encode(),
        )
    )
    assert answer.status == 503
    assert "too many workers" in str(answer.body)


def test_the_overview_names_five_that_fell_silent_and_counts_the_others(
    site: Site, ledger: Ledger, clock: FakeClock
) -> None:
    _announce(ledger, "w")
    clock.move(600)
    ledger.announce(announcement_of("w255"))
    page = Reader(site, "ada").page()
    assert "255 workers fell silent" in page.text
    assert "w000, w001, w002, w003, w004 and 250 more: what" in page.text
    assert "256 workers have announced themselves" in page.text
    assert "somebody uses the password of WorkerUser" in page.text
    assert "1 of 256 alive" in page.text
    assert "And 236 more" in page.text
    assert page.text.count("silent, last seen") == 19, "behind the one that lives"
    assert "w005" in page.text
    assert "w100" not in page.text
