"""A form does nothing to a study over which somebody else has decided since its page was shown."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from prichexy_plugin.dashboard.http import Response
from prichexy_plugin.dashboard.routes import Site
from prichexy_plugin.intake import Decision
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.records import StudyRecord
from prichexy_plugin.security import Role, Roles
from prichexy_plugin.studies import OrthancStudies
from prichexy_testing.dashboard_reader import FakeGateway, Reader
from prichexy_testing.fake_orthanc import FakeOrthanc, orthanc_id
from prichexy_testing.plugin_fakes import FakeClock, report_of
from prichexy_worker.contract import Reason, State

ROLES = Roles({"omar": Role.OPERATOR, "olga": Role.OPERATOR, "ada": Role.ADMINISTRATOR})
STUDY = orthanc_id("a")
#: What may be done with a study in quarantine: the page that asks, whose it is, what is chosen.
DEEDS = {
    "try it again": ("/studies/{}/retry", "omar", {}),
    "try it again on the desk": ("/desk/{}", "omar", {}),
    "turn it away": ("/studies/{}/reject", "omar", {"reason": Reason.NOT_NEEDED.value}),
    "delete the original": ("/studies/{}/delete", "ada", {"reason": Reason.DELETED_DONE.value}),
    "make it anew": ("/studies/{}/rerun", "ada", {"strength": "1.5"}),
}
EACH = pytest.mark.parametrize("deed", DEEDS)


@pytest.fixture
def site(ledger: Ledger, clock: FakeClock) -> Site:
    orthanc = FakeOrthanc()
    orthanc.store({}, study="a")
    studies = OrthancStudies(orthanc)
    gateway = FakeGateway(ledger)
    return Site(gateway, problems=(), worker_user=None, clock=clock, roles=ROLES, studies=studies)


@pytest.fixture
def held(ledger: Ledger, clock: FakeClock) -> StudyRecord:
    """Give a study that stands in quarantine."""
    ledger.note({STUDY: clock()}, cursor=1)
    ledger.settle(STUDY, Decision(None), content="a", instances=1)
    [message] = ledger.outbox()
    ledger.report(report_of(message, State.PROCESSING))
    end = report_of(message, State.QUARANTINED, Reason.COLOUR, attempt=1)
    assert ledger.report(end).proceed
    return now(ledger, message.job_id)


def now(ledger: Ledger, job: str) -> StudyRecord:
    study = ledger.study(job)
    assert study is not None
    return study


def opened(site: Site, job: str, deed: str) -> Callable[[], Response]:
    """Open the page of a deed; gives what sends its form as it was."""
    page, user, chosen = DEEDS[deed]
    path, reader = page.format(job), Reader(site, user)
    fields = {**reader.page(path).fields, **chosen}
    goal = f"{path}/retry" if path.startswith("/desk") else path
    return lambda: reader.post(goal, fields)


def decided(site: Site, job: str, reason: Reason) -> None:
    """Have a colleague turn the study away."""
    olga, path = Reader(site, "olga"), f"/studies/{job}/reject"
    answer = olga.post(path, {**olga.page(path).fields, "reason": reason.value})
    assert answer.headers["Location"].endswith("note=rejected")


@EACH
def test_what_a_colleague_decided_meanwhile_stands(
    site: Site, ledger: Ledger, held: StudyRecord, deed: str
) -> None:
    send = opened(site, held.job_id, deed)
    decided(site, held.job_id, Reason.NO_CONSENT)
    before, lines = now(ledger, held.job_id), len(ledger.lines())
    assert "note=moved" in send().headers["Location"]
    assert now(ledger, held.job_id) == before
    assert len(ledger.lines()) == lines


@EACH
def test_it_is_done_where_nobody_decided_anything(
    site: Site, ledger: Ledger, held: StudyRecord, deed: str
) -> None:
    lines = len(ledger.lines())
    assert "note=moved" not in opened(site, held.job_id, deed)().headers["Location"]
    assert len(ledger.lines()) == lines + 1


def test_a_study_that_came_back_to_where_it_was_is_another_one(
    site: Site, ledger: Ledger, clock: FakeClock, held: StudyRecord
) -> None:
    decided(site, held.job_id, Reason.WRONGLY_SENT)
    send = opened(site, held.job_id, "try it again")
    clock.move(60)
    turned = now(ledger, held.job_id)
    assert ledger.again(turned.job_id, revision=turned.revision, actor="user olga")
    assert now(ledger, held.job_id).state is State.REJECTED, "the rules have yet to look"
    assert "note=moved" in send().headers["Location"]


def test_the_ledger_compares_in_the_transaction_that_does_it(
    site: Site, ledger: Ledger, held: StudyRecord
) -> None:
    decided(site, held.job_id, Reason.NO_CONSENT)
    job, told = held.job_id, {"actor": "user omar", "seen": held.as_seen}
    done = (
        ledger.again(job, revision=1, **told),
        ledger.turn_away(job, revision=1, reason=Reason.NOT_NEEDED, **told),
        ledger.order_rerun(job, revision=1, bundle="", strength=1.0, **told),
        ledger.order_withdrawal(job, revision=1, reason=Reason.WITHDRAWN_WRONG, **told),
        ledger.order_disposal(
            job, revision=1, reason=Reason.DELETED_DONE, digests={"1": "d"}, **told
        ),
    )
    assert done == (False,) * 5
    assert now(ledger, job).reason is Reason.NO_CONSENT
