"""After each fault every study is at the peer exactly once and whole, or in quarantine.

Real processes: Redis, two Orthancs with the plugin in one, two workers. docs/faults.md says what is
different from the product's own, and how to run many faults for long.
"""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Iterator
from itertools import count
from urllib.parse import urlsplit

import pytest

from prichexy_testing.faults.hosts import Host, another_host
from prichexy_testing.faults.kinds import CLOCK_KINDS, KINDS, Fault, send_message_again
from prichexy_testing.faults.marks import SEGFAULT
from prichexy_testing.faults.poisoned_child import POISONS
from prichexy_testing.faults.site import Site, running_site
from prichexy_testing.faults.studies import ENDED_BY_HAND, Study
from prichexy_testing.servers import wait_until
from prichexy_worker.contract import MAX_ATTEMPTS, State

pytestmark = [pytest.mark.orthanc, pytest.mark.redis]

#: Every step of a worker that has a name in the report, two at a time: one a worker.
STEPS = (
    ("fetch", "inspect"),
    ("decode", "text"),
    ("deform", "deidentify"),
    ("encode", "check"),
    ("store", "verify"),
)
#: What a worker asks between them: in front of whom, what, how many of these before, and whether it
#: is done by then, so that only the worker never hears of it.
REQUESTS = {
    "the claim is lost": ("ingest_front", "POST", "/reports$", '"processing"', 0, False),
    "the claim is made": ("ingest_front", "POST", "/reports$", '"processing"', 0, True),
    "the first of two images is stored": ("export_front", "POST", "^/instances$", "", 0, True),
    "the last report is lost": ("ingest_front", "POST", "/reports$", '"exported"', 0, False),
    "the last report is made": ("ingest_front", "POST", "/reports$", '"exported"', 0, True),
}
_NUMBERS = count(1)
QUARANTINED = frozenset({State.QUARANTINED})


@pytest.fixture(scope="module")
def whole_site(tmp_path_factory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    disks = ("ledger", "scratch", "export")
    with running_site(folder, workers=2, disks=disks) as site:
        yield site


@pytest.fixture
def site(whole_site) -> Iterator[Site]:
    """The gateway, all well; after the test it must come to rest with nothing wrong."""
    yield whole_site
    whole_site.heal()
    whole_site.until_at_rest()
    assert whole_site.violations() == []


def study(images: int = 2, **what) -> Study:
    return Study(next(_NUMBERS), images=images, **what)


def _state(site: Site, one: Study) -> State | None:
    row = site.rows().get(site.sent[one.number].study_id)
    return None if row is None else row.state


def _until(site: Site, one: Study, *states: State) -> None:
    wait_until(lambda: _state(site, one) in states, what=f"the study is {states}")


def _ended_well(site: Site) -> None:
    """Wait until all has ended, before anything is healed."""
    site.until_at_rest()
    assert site.violations() == []


@pytest.mark.parametrize("steps", STEPS, ids="-".join)
def test_a_worker_is_killed_in_a_step(site: Site, steps: tuple[str, ...]):
    for step in steps:
        site.stop_at(step)
        site.send(study())
    workers = {site.worker_at(step) for step in steps}
    assert len(workers) == len(steps)
    for name in workers:
        site.kill(name)
    site.start_dead_workers()
    _ended_well(site)


@pytest.mark.parametrize("asked", REQUESTS)
def test_a_worker_is_killed_while_it_waits_for_an_answer(site: Site, asked: str):
    front, method, path, body, skip, after = REQUESTS[asked]
    rule = getattr(site, front).rule(method, path, body=body, skip=skip, after=after)
    held = study()
    site.send(held)
    rule.wait()
    _kill_who_asked(site, held, claimed=after or "claim" not in asked)
    rule.lose()
    site.start_dead_workers()
    _ended_well(site)


def _kill_who_asked(site: Site, held: Study, *, claimed: bool) -> None:
    """Kill the worker that has the study; all of them where the ledger does not know which."""
    for name in [site.worker_of(held)] if claimed else list(site.workers):
        site.kill(name)


@pytest.mark.parametrize("fault", KINDS, ids=lambda fault: fault.name)
def test_a_fault_comes_and_goes(site: Site, fault: Fault):
    _comes_and_goes(site, fault)


def _comes_and_goes(site: Site, fault: Fault) -> None:
    chance = random.Random(1)
    for _ in range(2):
        site.send(study())
    if not fault.seconds:
        # It hits a study on its way.
        wait_until(lambda: bool(site.rows().keys() & site.open_studies()), what="one is open")
    assert fault.inject(site, chance)
    if site.runs("ingest"):
        site.send(study())
    if fault.seconds:
        _lasts(fault.seconds)
    if fault.said:
        wait_until(lambda: fault.said in site.log("ingest"), what="the plugin notices")
    fault.heal(site)


def _lasts(seconds: float) -> None:
    """Let a fault last: what ends it must not come before anyone can have noticed it."""
    threading.Event().wait(seconds)


def test_two_workers_are_given_the_same_study(site: Site):
    """The first one stands still with it for so long that another gets it, and then goes on."""
    one = study()
    held = site.ingest_front.rule("GET", "/studies/[^/]*$", skip=1)
    site.send(one)
    held.wait()
    slow = site.worker_of(one)
    site.hold(slow)
    _until(site, one, State.EXPORTED)
    held.go()
    site.release(slow)
    send_message_again(site, site.sent[one.number].study_id)
    site.send(study())
    _ended_well(site)
    row = site.rows()[site.sent[one.number].study_id]
    assert (row.state, row.attempts) == (State.EXPORTED, 2)


@pytest.mark.parametrize("when", ["while it is read", "while it is stored"])
def test_another_image_comes_while_a_worker_has_the_study(site: Site, when: str):
    front, method, path = {
        "while it is read": (site.ingest_front, "GET", "/instances/[^/]*/file$"),
        "while it is stored": (site.export_front, "POST", "^/instances$"),
    }[when]
    one = study()
    held = front.rule(method, path, skip=1)
    site.send(one)
    held.wait()
    site.send(one.with_another_image())
    held.go()
    _ended_well(site)


@pytest.mark.parametrize("when", ["while it is read", "while it is stored"])
def test_the_study_is_deleted_while_a_worker_has_it(site: Site, when: str):
    front, method, path = {
        "while it is read": (site.ingest_front, "GET", "/instances/[^/]*/file$"),
        "while it is stored": (site.export_front, "POST", "^/instances$"),
    }[when]
    one = study()
    held = front.rule(method, path, skip=1)
    site.send(one)
    held.wait()
    site.delete(one)
    held.go()
    _ended_well(site)


def test_an_image_that_kills_its_codec_is_quarantined_and_costs_no_worker(site: Site):
    """By a segmentation fault, by asking for all memory, by never coming back."""
    before = {site.pid(name) for name in site.workers}
    bad = [study(codec=poison) for poison in POISONS]
    for one in bad:
        site.send(one, ends=QUARANTINED)
    _ended_well(site)
    rows = site.rows()
    assert {rows[site.sent[one.number].study_id].reason for one in bad} == {"undecodable"}
    assert {site.pid(name) for name in site.workers} == before


def test_an_image_that_kills_its_worker_is_given_up_after_five_of_them(site: Site):
    bad = study(worker=SEGFAULT)
    site.send(bad, ends=ENDED_BY_HAND)

    def given_up() -> bool:
        site.start_dead_workers()
        return _state(site, bad) in ENDED_BY_HAND

    wait_until(given_up, 300.0, "the study is given up")
    row = site.rows()[site.sent[bad.number].study_id]
    assert row.reason == "too_many_attempts"
    assert row.attempts == MAX_ATTEMPTS + 1, "the last claim opened nothing"
    site.start_dead_workers()
    _ended_well(site)


@pytest.mark.parametrize("server", ["ingest", "broker", "export"])
def test_a_host_is_cut_off_and_comes_back(site: Site, far: Host, server: str):
    """The one worker is on another host, and its cable to a server is unplugged within a study."""
    site.stop_at("deform")
    site.send(study())
    assert site.worker_at("deform") == FAR
    far.unplug(server)
    site.go_on("deform")
    site.send(study())
    _lasts(4.0)
    far.plug(server)
    _ended_well(site)


def test_a_host_hears_nothing_of_the_end_of_its_connection_to_the_broker(site: Site, far: Host):
    """The broker's machine loses power and comes back: its connections are gone, unsaid."""
    site.send(study())
    _ended_well(site)
    far.unplug("broker")
    far.forget("broker")
    far.plug("broker")
    site.send(study())
    _ended_well(site)


@pytest.fixture(scope="module")
def site_with_a_clock(tmp_path_factory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("clock"), workers=1, clock=True) as site:
        if site.clock is None:
            pytest.skip("libfaketime is not installed: script/bootstrap --dev")
        yield site


@pytest.mark.parametrize("fault", CLOCK_KINDS, ids=lambda fault: fault.name)
def test_a_clock_is_wrong_and_is_set_right(site_with_a_clock: Site, fault: Fault):
    _comes_and_goes(site_with_a_clock, fault)
    _ended_well(site_with_a_clock)


def test_a_clock_is_set_right_while_studies_wait_for_another_attempt(site_with_a_clock: Site):
    site = site_with_a_clock
    assert site.clock is not None
    site.clock.set(86_400)
    refused = site.export_front.rule("POST", "^/instances$", status=507, times=math.inf)
    for _ in range(3):
        site.send(study())
    refused.wait()
    wait_until(lambda: site.log_says("again in"), what="a study waits for its next attempt")
    site.clock.set(0)
    refused.go()
    _ended_well(site)


FAR = "worker-far"


@pytest.fixture
def far(whole_site: Site) -> Iterator[Host]:
    """A host of its own with a worker; the workers on this host stand still."""
    addresses = whole_site.plan.addresses
    urls = {
        "ingest": addresses.ingest_url,
        "broker": addresses.broker_url,
        "export": addresses.export_url,
    }
    ports = {name: urlsplit(url).port or 0 for name, url in urls.items()}
    with another_host(1, ports) as host:
        whole_site.add_worker(
            FAR,
            prefix=host.prefix,
            PRICHEXY_WORKER_INGEST__URL=f"http://{host.addresses['ingest']}",
            PRICHEXY_WORKER_BROKER__URL=f"redis://{host.addresses['broker']}/0",
            PRICHEXY_WORKER_EXPORT__URL=f"http://{host.addresses['export']}",
        )
        whole_site.supervisor.wait_until_ready(FAR)
        for name in whole_site.workers:
            if name != FAR:
                whole_site.hold(name)
        try:
            yield host
        finally:
            whole_site.remove_worker(FAR)
            for name in whole_site.workers:
                whole_site.release(name)
