"""What other intake rules would have done, and the page that shows it with rules and targets."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prichexy_plugin.changes import Watcher
from prichexy_plugin.dashboard.routes import Site
from prichexy_plugin.dry_run import MOST_READ, Outcome, count_ways, try_rules
from prichexy_plugin.flow import Decided
from prichexy_plugin.intake import PRIORITIES, Decision, Rank, Rule
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.pauses import Stage
from prichexy_plugin.rules_text import MOST_RULES_TEXT, read_rules, rules_text
from prichexy_plugin.section import SettingsError
from prichexy_plugin.security import Role, Roles
from prichexy_plugin.studies import OrthancStudies
from prichexy_testing.dashboard_reader import FakeGateway, Page, Reader
from prichexy_testing.fake_orthanc import FakeOrthanc, orthanc_id
from prichexy_testing.plugin_fakes import CHEST, HIP, FakeClock, announcement_of, report_of
from prichexy_worker.contract import API_ROOT, Reason, State, TargetInfo

PACS = TargetInfo("archive", "dicom", "PACS at pacs.example:104", encrypted=False, check="none")
FOLDER = TargetInfo("extra", "png", "/srv/png", encrypted=True, check="read_back")
ROLES = Roles({"omar": Role.OPERATOR, "vera": Role.VIEWER})
CHESTS = Rule("chests", body_part=frozenset({"CHEST"}), targets=frozenset({"research"}))
ALL = Rule("all", modality=frozenset({"CR"}), priority=Rank.URGENT)


class World:
    """An Orthanc, a ledger that has decided over all that it holds, and the rules in force."""

    def __init__(self, ledger: Ledger, clock: FakeClock) -> None:
        self.orthanc = FakeOrthanc(clock=clock)
        self.clock = clock
        self.ledger = ledger
        self.studies = OrthancStudies(self.orthanc)

    def arrive(self, name: str, tags: dict[str, Any] = CHEST, instances: int = 1) -> None:
        for number in range(instances):
            self.orthanc.store(tags, study=name, instance=str(number))
        self.orthanc.settle(orthanc_id(name))

    def decide(self, *rules: Rule) -> None:
        self.clock.move(120)
        watcher = Watcher(
            self.studies,
            self.ledger,
            rules=rules,
            stable_age=60.0,
            take_existing=True,
            clock=self.clock,
        )
        progress = watcher.run_once()
        while progress.more or progress.looked:
            progress = watcher.run_once()

    def job(self, name: str) -> str:
        return self.ledger.studies(study_id=orthanc_id(name)).studies[0].job_id

    def run(self, *sets: tuple[Rule, ...]) -> dict[str, Outcome]:
        outcomes = try_rules(self.studies, self.ledger.last_decided(100), sets)
        return {one.study.study_id: one for one in outcomes}


@pytest.fixture
def world(ledger: Ledger, clock: FakeClock) -> World:
    return World(ledger, clock)


def test_under_the_rules_that_decided_every_study_goes_the_way_it_went(world: World) -> None:
    world.arrive("chest", instances=3)
    world.arrive("hip", HIP)
    rules = (CHESTS, Rule("rest", station=frozenset({"ROOM 2"})))
    world.decide(*rules)
    found = world.run(rules)
    assert len(found) == 2
    assert not [one for one in found.values() if one.differs]
    ways = {name: found[orthanc_id(name)].ways[0] for name in ("chest", "hip")}
    assert ways["chest"] == Decision(None, ("research",), source="CR1")
    assert ways["hip"] == Decision(Reason.NO_RULE_MATCHES)


@pytest.mark.parametrize(
    "proposed",
    [
        (),
        (Rule("elsewhere", targets=frozenset({"archive"})),),
        (Rule("urgent", targets=frozenset({"research"}), priority=Rank.URGENT),),
        (Rule("gpu", targets=frozenset({"research"}), queue="gpu"),),
    ],
    ids=["not taken in", "another target", "more urgent", "another queue"],
)
def test_another_way_is_seen(world: World, proposed: tuple[Rule, ...]) -> None:
    world.arrive("chest")
    world.decide(CHESTS)
    [outcome] = world.run((CHESTS,), proposed).values()
    assert outcome.differs
    assert not world.run((CHESTS,))[orthanc_id("chest")].differs


@pytest.mark.parametrize("ended", [False, True], ids=["under way", "withdrawn"])
def test_what_was_withdrawn_went_the_way_that_the_rules_sent_it(
    world: World, clock: FakeClock, ended: bool
) -> None:
    world.arrive("chest")
    world.decide(CHESTS)
    ledger, job = world.ledger, world.job("chest")
    message = ledger.outbox()[0]
    ledger.report(report_of(message, State.PROCESSING))
    ledger.report(report_of(message, State.EXPORTED, attempt=1))
    why = Reason.WITHDRAWN_FAULTY
    assert ledger.order_withdrawal(job, revision=1, actor="user ada", reason=why)
    if ended:
        errand = ledger.outbox()[0]
        ledger.report(report_of(errand, State.PROCESSING))
        ledger.report(report_of(errand, State.REJECTED, Reason.WITHDRAWN, attempt=1))
        study = ledger.study(job)
        assert study is not None
        assert study.reason is why
    assert not world.run((CHESTS,))[orthanc_id("chest")].differs
    elsewhere = (Rule("elsewhere", targets=frozenset({"archive"})),)
    for rules in (elsewhere, ()):
        assert world.run((CHESTS,), rules)[orthanc_id("chest")].differs
    gateway = FakeGateway(ledger)
    gateway.rules = (CHESTS,)
    site = Site(
        gateway, problems=(), worker_user=None, clock=clock, roles=ROLES, studies=world.studies
    )
    omar = Reader(site, "omar")
    fields = {**omar.page("/rules").fields, "rules": rules_text(elsewhere)}
    text = Page(omar.post("/rules", fields)).text
    assert "1 of 1 study would go another way" in text
    assert "withdrawal" not in text


def test_a_dry_run_changes_nothing_and_asks_orthanc_a_bounded_number_of_questions(
    world: World,
) -> None:
    for number in range(100):
        world.arrive(str(number), instances=6)
    world.decide(ALL)
    before = world.ledger.chain_state().head, world.ledger.counts()
    asked: list[str] = []
    get = world.orthanc.RestApiGet

    def counted(path: str) -> bytes:
        asked.append(path)
        return get(path)

    world.orthanc.RestApiGet = counted  # type: ignore[method-assign]
    # One rule is not settled before all objects are read: another may add a target.
    nothing_fits = (Rule("never", modality=frozenset({"CR"}), view=frozenset({"LL"})),)
    outcomes = world.run((ALL,), nothing_fits)
    assert len(outcomes) == 100
    assert len(asked) <= 2 * 100 + 2 * MOST_READ
    unknown = [one for one in outcomes.values() if None in one.ways]
    assert len(unknown) == 100 - MOST_READ // 6
    assert not [one for one in unknown if one.differs]
    assert (world.ledger.chain_state().head, world.ledger.counts()) == before


def test_of_studies_whose_originals_are_gone_or_unreadable_nothing_is_known(world: World) -> None:
    for name in ("there", "gone", "broken"):
        world.arrive(name)
    world.decide(CHESTS)
    world.orthanc.delete(orthanc_id("gone"))
    get = world.orthanc.RestApiGet

    def broken(path: str) -> bytes:
        return b"{" if orthanc_id("broken") in path else get(path)

    world.orthanc.RestApiGet = broken  # type: ignore[method-assign]
    found = world.run((CHESTS,), ())
    assert [
        name for name in ("there", "gone", "broken") if None in found[orthanc_id(name)].ways
    ] == [
        "gone",
        "broken",
    ]
    assert count_ways(one.ways[1] for one in found.values()) == {False: 1, None: 2}


def test_when_orthanc_ceases_to_answer_the_rest_is_not_known(world: World) -> None:
    world.arrive("a")
    world.decide(CHESTS)

    def silent(path: str) -> bytes:
        raise world.orthanc.OrthancException(1, "stopping")

    world.orthanc.RestApiGet = silent  # type: ignore[method-assign]
    [outcome] = world.run((CHESTS,)).values()
    assert outcome.ways == (None,)


def test_the_way_that_a_study_went_is_what_the_rules_said_whatever_became_of_it(
    world: World, clock: FakeClock
) -> None:
    for name in ("failed", "turned away", "waits", "gone"):
        world.arrive(name)
    world.decide(CHESTS)
    world.arrive("arrives")
    world.ledger.note({orthanc_id("arrives"): clock()}, cursor=1)
    ledger = world.ledger
    for message in ledger.outbox():
        if message.study_id not in (orthanc_id("gone"), orthanc_id("waits")):
            ledger.report(report_of(message, State.PROCESSING))
            ledger.report(report_of(message, State.FAILED, Reason.UNEXPECTED, attempt=1))
    for name in ("turned away", "waits", "arrives"):
        away = world.job(name)
        assert ledger.turn_away(away, revision=1, actor="user omar", reason=Reason.NOT_NEEDED)
    ledger.gone(orthanc_id("gone"))
    ways = {one.study_id: one.way for one in ledger.last_decided(10)}
    taken = Decision(None, ("research",))
    assert ways == {
        orthanc_id("failed"): taken,
        orthanc_id("turned away"): taken,
        orthanc_id("waits"): taken,
        orthanc_id("arrives"): None,
        orthanc_id("gone"): None,
    }


def test_what_a_backfill_brought_is_of_the_lowest_rank_under_all_rules(world: World) -> None:
    world.arrive("a")
    study = Decided("j", orthanc_id("a"), Decision(None, priority=Rank.LOW), backfilled=True)
    [outcome] = try_rules(world.studies, [study], [(ALL,)])
    assert not outcome.differs


# --- Rules as text ---------------------------------------------------------------------------


WORDS = st.frozensets(st.text("ABC 12\u00c4", min_size=1).map(str.strip).filter(bool), max_size=2)
NAMES = st.frozensets(st.sampled_from(["research", "archive", "b"]), max_size=2)


@settings(max_examples=30)
@given(
    st.lists(
        st.builds(
            Rule,
            st.text('ab "{[]}\\', min_size=1).map(str.strip).filter(bool),
            modality=WORDS,
            sop_class=WORDS,
            body_part=WORDS,
            view=WORDS,
            calling_aet=WORDS,
            station=WORDS,
            targets=NAMES,
            priority=st.sampled_from(PRIORITIES),
            queue=st.sampled_from(["", "gpu"]),
        ),
        max_size=3,
        unique_by=lambda rule: rule.name,
    )
)
def test_rules_are_read_as_they_are_written(rules: list[Rule]) -> None:
    assert read_rules(rules_text(rules), "prichexy") == tuple(rules)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rules", "PriCheXy.Intake.Rules: is not JSON."),
        ('{"Name": "a"}', "PriCheXy.Intake.Rules: "),
        ("[{}]", "PriCheXy.Intake.Rules[0].Name: is missing."),
        ('[{"Name": "a", "Modalty": ["CR"]}]', "Rules[0].Modalty: is no key of this plugin"),
        ('[{"Name": "a", "Priority": "high"}]', "PriCheXy.Intake.Rules[0].Priority: "),
        ('[{"Name": "a"}, {"Name": "a"}]', "PriCheXy.Intake: two Rules have the same Name."),
        ('[{"Name": "a", "Targets": ["A B"]}]', "PriCheXy.Intake.Rules[0].Targets[0]: "),
        ("[" * 1000, "nested too deep"),
        ('{"a":' * 5, "nested too deep"),
        ("[]" + " " * MOST_RULES_TEXT, "is longer than"),
    ],
)
def test_rules_that_are_none_are_refused_by_the_key_and_no_value_is_told(
    text: str, said: str
) -> None:
    with pytest.raises(SettingsError) as error:
        read_rules(text, "prichexy")
    assert said in " ".join(error.value.problems)
    assert "high" not in " ".join(error.value.problems)


# --- The page --------------------------------------------------------------------------------


@pytest.fixture
def gateway(ledger: Ledger) -> FakeGateway:
    gateway = FakeGateway(ledger)
    gateway.rules = (CHESTS, ALL)
    return gateway


@pytest.fixture
def site(gateway: FakeGateway, world: World, clock: FakeClock) -> Site:
    return Site(
        gateway,
        problems=(),
        worker_user="worker",
        clock=clock,
        studies=world.studies,
        roles=ROLES,
    )


def _try(site: Site, text: str | None = None) -> Page:
    omar = Reader(site, "omar")
    fields = omar.page("/rules").fields
    return Page(omar.post("/rules", {**fields, **({} if text is None else {"rules": text})}))


def test_viewers_read_the_rules_in_force_in_their_order_and_try_none(site: Site) -> None:
    page = Reader(site, "vera").page("/rules")
    assert re.search(
        r"1\. chests Body part CHEST research normal .* 2\. all Modality CR", page.text
    )
    assert "urgent" in page.text
    assert "form" not in page.tags
    answer = Reader(site, "vera").post("/rules", {"rules": "[]"})
    assert answer.status == 403


def test_a_dry_run_shows_counts_and_the_studies_that_would_go_another_way(
    site: Site, world: World
) -> None:
    world.arrive("chest")
    world.arrive("hip", HIP)
    world.decide(CHESTS)
    page = _try(site, '[{"Name": "hips", "BodyPart": ["HIP"], "Targets": ["archive"]}] // mine')
    assert "2 of 2 studies would go another way" in page.text
    assert "taken in for archive 0 0 1" in page.text
    assert "taken in for research 1 1 0" in page.text
    assert "not taken in 1 0 1" in page.text
    assert "taken in for no named target 0 1 0" in page.text
    hip, chest = world.job("hip"), world.job("chest")
    assert {f"../prichexy/studies/{hip}", f"../prichexy/studies/{chest}"} <= set(page.links)
    assert f"not taken in: {Reason.NO_RULE_MATCHES.sentence}" in page.text
    assert "taken in for no named target, urgent" in page.text
    assert "hips" in page.text, "what was tried stands in the form"


def test_a_dry_run_without_other_rules_compares_with_those_in_force(
    site: Site, world: World
) -> None:
    world.arrive("chest")
    world.decide(CHESTS, ALL)
    page = _try(site)
    assert "0 of 1 study would go another way" in page.text
    assert "under the proposed rules" not in page.text


def test_rules_that_are_none_are_named_and_nothing_is_asked_of_orthanc(
    site: Site, world: World
) -> None:
    world.arrive("chest")
    world.decide(CHESTS)

    def fails(path: str) -> bytes:
        raise AssertionError(path)

    world.orthanc.RestApiGet = fails  # type: ignore[method-assign]
    page = _try(site, '[{"Modality": ["CR"]}]')
    assert "PriCheXy.Intake.Rules[0].Name: is missing." in page.text


def test_a_form_of_another_page_or_of_another_size_tries_nothing(site: Site) -> None:
    omar = Reader(site, "omar")
    good = omar.page("/rules").fields
    elsewhere = re.search(r'name="token" value="([^"]+)"', str(omar.ask("/pauses").body))
    assert elsewhere is not None
    assert omar.post("/rules", {**good, "token": elsewhere[1]}).status == 403
    huge = urlencode({**good, "rules": "\U00020000" * (MOST_RULES_TEXT + 4096)}).encode()
    told = Page(omar.post("/rules", huge), status=400).text
    assert "More was sent than this form takes" in told
    assert "not shown to you" not in told
    assert Reader(site, "vera").post("/rules", huge).status == 403
    assert omar.post("/rules", huge, {"origin": "http://evil.example"}).status == 403
    fits = Page(omar.post("/rules", {**good, "rules": "[" + " " * (MOST_RULES_TEXT - 2) + "]"}))
    assert "0 of 0 studies" in fits.text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" + "\r\n" * (MOST_RULES_TEXT - 2) + "]", "0 of 0 studies"),
        ('["' + "\u6f22" * (MOST_RULES_TEXT - 4) + '"]', "PriCheXy.Intake.Rules[0]: "),
        ('["' + "\U00020000" * (MOST_RULES_TEXT - 4) + '"]', "PriCheXy.Intake.Rules[0]: "),
    ],
    ids=["line breaks", "Chinese", "rare Chinese"],
)
def test_a_form_with_as_many_characters_as_the_page_takes_is_read_in_any_script(
    site: Site, text: str, said: str
) -> None:
    omar = Reader(site, "omar")
    fields = {**omar.page("/rules").fields, "rules": text}
    assert said in Page(omar.post("/rules", fields)).text


def test_the_targets_tell_how_they_are_doing(
    site: Site, gateway: FakeGateway, ledger: Ledger, clock: FakeClock
) -> None:
    both = Rule("both", targets=frozenset({"archive", "research"}))
    gateway.rules = (both, Rule("one", targets=frozenset({"research"})))
    for number, targets in enumerate((("research",), ("archive", "research"), ("old",))):
        ledger.note({orthanc_id(str(number)): clock()}, cursor=1)
        ledger.settle(orthanc_id(str(number)), Decision(None, targets), content="c", instances=1)
    by_targets = {message.targets: message for message in ledger.outbox()}
    for targets, state, reason, at_fault in (
        (("research",), State.EXPORTED, None, ""),
        (("archive", "research"), State.QUEUED, Reason.TARGET_REFUSED, "archive"),
    ):
        message = by_targets[targets]
        claim = ledger.report(report_of(message, State.PROCESSING))
        report = report_of(message, state, reason, attempt=claim.attempt, target=at_fault)
        assert ledger.report(report).proceed
        clock.move(600)
    archive, old, research = ledger.target_health(["archive", "old", "research"])
    assert (archive.exported, archive.failure) == (None, Reason.TARGET_REFUSED)
    assert archive.failed is not None
    assert [one.targets for one in archive.circuits] == [("archive",)]
    assert not archive.is_stopped
    assert (old.waiting, old.exported, old.failed) == (1, None, None)
    assert research.exported is not None
    ledger.pause(Stage.TARGET, "old", actor="user omar", reason=Reason.PAUSED_LOAD)
    ledger.announce(replace(announcement_of("w1"), targets=(PACS, FOLDER)))
    ledger.announce(replace(announcement_of("w2"), targets=(replace(PACS, place="elsewhere"),)))
    text = Reader(site, "vera").page("/rules").text
    assert "archive DICOM node, PACS at pacs.example:104 not encrypted; nothing shows" in text
    assert "DICOM node, elsewhere" in text
    assert text.count("workers differ") == 1
    assert "extra folder of PNG files, /srv/png nobody on the way can read it" in text
    unnamed = "not known: no rule names it none lately 1 no rule"
    assert f"old no living worker says paused Pauses {unnamed}" in text
    failed = f"goes on 1 study in a row failed: {Reason.TARGET_REFUSED.sentence}"
    assert f"workers differ {failed}" in text
    assert "research no living worker says goes on 20 min ago 10 min ago" in text
    overview = Reader(site, "vera").page().text
    assert "archive goes on last export not lately; last failure 10 min ago" in overview
    assert "old paused no rule names it; 1 waiting" in overview
    health = str(Reader(site, "vera").ask(f"{API_ROOT.removeprefix('/prichexy')}/health").body)
    assert "pacs.example" not in health, "which whoever watches over the gateway may read"


def test_what_names_no_target_is_counted_at_the_workers_own_target(
    site: Site, gateway: FakeGateway, ledger: Ledger, clock: FakeClock
) -> None:
    gateway.rules = (Rule("chest"), Rule("night", targets=frozenset({"extra"})))
    for name in "abc":
        ledger.note({orthanc_id(name): clock()}, cursor=1)
        ledger.settle(orthanc_id(name), Decision(None), content="c", instances=1)
    exported, failed, _ = ledger.outbox()
    claim = ledger.report(report_of(exported, State.PROCESSING))
    assert ledger.report(report_of(exported, State.EXPORTED, attempt=claim.attempt)).proceed
    clock.move(600)
    claim = ledger.report(report_of(failed, State.PROCESSING))
    refused = report_of(failed, State.QUEUED, Reason.TARGET_REFUSED, attempt=claim.attempt)
    assert ledger.report(replace(refused, target="archive")).proceed
    clock.move(600)

    ledger.announce(replace(announcement_of("w1"), targets=(PACS, FOLDER)))
    text = Reader(site, "vera").page("/rules").text
    assert "no living worker says where" in text
    assert "goes on not known: no rule names it none lately 0 no rule" in text
    assert "archive goes on no rule names it" in Reader(site, "vera").page().text

    default = replace(PACS, default=True)
    ledger.announce(replace(announcement_of("w1"), targets=(default, FOLDER)))
    text = Reader(site, "vera").page("/rules").text
    assert "no living worker says where" not in text
    assert "gets what names no target goes on 1 study in a row failed" in text
    cells = f"20 min ago 10 min ago: {Reason.TARGET_REFUSED.sentence} 1 chest"
    assert cells in text
    assert "goes on none lately none lately 0 night" in text
    overview = Reader(site, "vera").page().text
    waits = "1 waiting; last failure 10 min ago"
    assert f"archive goes on last export 20 min ago; {waits}" in overview

    ledger.pause(Stage.TARGET, "", actor="user omar", reason=Reason.PAUSED_LOAD)
    assert "archive paused last export" in Reader(site, "vera").page().text
    gateway.rules = (*gateway.rules, Rule("also", targets=frozenset({"archive"})))
    assert "archive goes on last export" in Reader(site, "vera").page().text
