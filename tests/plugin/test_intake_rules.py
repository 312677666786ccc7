"""Intake: which studies are taken in, and why the others are not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prichexy_plugin.intake import (
    PRIORITIES,
    InstanceFacts,
    Rank,
    Rule,
    decide,
    facts_of,
    is_settled,
    may_match,
    stream_of,
    targets_of,
)
from prichexy_testing.plugin_fakes import CHEST, HIP
from prichexy_worker.contract import Reason

CHEST_RULE = Rule("chest", modality=frozenset({"CR", "DX"}), body_part=frozenset({"CHEST"}))


def _facts(**tags: object) -> InstanceFacts:
    return facts_of({**CHEST, **tags}, calling_aet="CR1")


def test_a_chest_radiograph_is_taken_in() -> None:
    assert decide([_facts()], [CHEST_RULE], copy=False).taken


def test_a_hip_is_not_taken_in_and_the_reason_is_told() -> None:
    decision = decide([facts_of(HIP, "CR1")], [CHEST_RULE], copy=False)
    assert decision.reason is Reason.NO_RULE_MATCHES


def test_without_rules_nothing_is_taken_in() -> None:
    assert decide([_facts()], [], copy=False).reason is Reason.NO_RULE_MATCHES


def test_a_study_without_instances_is_not_taken_in() -> None:
    assert decide([], [CHEST_RULE], copy=False).reason is Reason.NO_RULE_MATCHES


def test_one_chest_radiograph_takes_the_whole_study_in() -> None:
    assert decide([facts_of(HIP, "CR1"), _facts()], [CHEST_RULE], copy=False).taken


def test_a_copy_made_by_orthanc_is_not_taken_in() -> None:
    assert decide([_facts()], [CHEST_RULE], copy=True).reason is Reason.COPY_OF_A_STUDY


@pytest.mark.parametrize(
    "marker",
    [
        {"DeidentificationMethod": "PriCheXy gateway 0.1.0"},
        {"ContributingEquipmentSequence": [{"Manufacturer": "PriCheXy"}]},
        {"ContributingEquipmentSequence": [{}, {"ManufacturerModelName": "PriCheXy gateway"}]},
    ],
)
def test_own_output_is_never_taken_in_again(marker: dict[str, object]) -> None:
    own = _facts(**marker)
    assert decide([own], [CHEST_RULE], copy=False).reason is Reason.OWN_OUTPUT
    assert decide([_facts(), own], [CHEST_RULE], copy=False).reason is Reason.OWN_OUTPUT


def test_what_others_de_identified_is_not_own_output() -> None:
    other = _facts(
        DeidentificationMethod="Another tool",
        ContributingEquipmentSequence=[{"Manufacturer": "Somebody"}],
    )
    assert decide([other], [CHEST_RULE], copy=False).taken


@pytest.mark.parametrize(
    ("code", "scheme"),
    [("816094009", "SCT"), ("51185008", "SCT "), ("T-D3000", "SRT"), ("T-D3000", "SNM3")],
)
def test_the_chest_may_be_told_by_the_anatomic_region_code(code: str, scheme: str) -> None:
    region = {"CodeValue": code, "CodingSchemeDesignator": scheme}
    facts = _facts(BodyPartExamined="", AnatomicRegionSequence=[region])
    assert decide([facts], [CHEST_RULE], copy=False).taken


@pytest.mark.parametrize(
    "region",
    [
        {"CodeValue": "T-D4000", "CodingSchemeDesignator": "SRT"},
        {"CodeValue": "51185008", "CodingSchemeDesignator": "99LOCAL"},
        {"CodeValue": "T-D3000", "CodingSchemeDesignator": "SCT"},
        {"CodeValue": "T-D3000"},
    ],
)
def test_another_anatomic_region_or_scheme_is_no_chest(region: dict[str, str]) -> None:
    facts = _facts(BodyPartExamined=None, AnatomicRegionSequence=[region])
    assert not decide([facts], [CHEST_RULE], copy=False).taken


@pytest.mark.parametrize(
    ("rule", "fits"),
    [
        (Rule("modality", modality=frozenset({"CR"})), True),
        (Rule("modality", modality=frozenset({"DX"})), False),
        (Rule("class", sop_class=frozenset({"1.2.840.10008.5.1.4.1.1.1"})), True),
        (Rule("class", sop_class=frozenset({"1.2.840.10008.5.1.4.1.1.7"})), False),
        (Rule("part", body_part=frozenset({"CHEST", "RIBS"})), True),
        (Rule("part", body_part=frozenset({"RIBS"})), False),
        (Rule("view", view=frozenset({"AP", "PA"})), True),
        (Rule("view", view=frozenset({"LL"})), False),
        (Rule("aet", calling_aet=frozenset({"CR1"})), True),
        (Rule("aet", calling_aet=frozenset({"CR2"})), False),
        (Rule("station", station=frozenset({"ROOM 1"})), True),
        (Rule("station", station=frozenset({"ROOM 2"})), False),
        (Rule("both", modality=frozenset({"CR"}), view=frozenset({"LL"})), False),
        (Rule("anything"), True),
    ],
)
def test_a_rule_takes_what_fits_every_list_it_has(rule: Rule, fits: bool) -> None:
    assert decide([_facts()], [rule], copy=False).taken is fits


def test_case_and_padding_make_no_difference() -> None:
    facts = facts_of({**CHEST, "BodyPartExamined": "Chest ", "Modality": "cr"}, "cr1 ")
    assert decide([facts], [CHEST_RULE], copy=False).taken
    assert facts.calling_aet == "CR1"


@given(
    tags=st.dictionaries(
        st.sampled_from([*CHEST, "AnatomicRegionSequence", "ContributingEquipmentSequence"]),
        st.recursive(
            st.none() | st.text(max_size=8) | st.integers(),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["CodeValue", "Manufacturer"]), inner)
            ),
            max_leaves=6,
        ),
    )
)
def test_no_header_however_odd_breaks_the_decision(tags: dict[str, object]) -> None:
    decision = decide([facts_of(tags, "")], [CHEST_RULE], copy=False)
    assert decision.taken == (decision.reason is None)


def test_only_series_that_can_fit_a_rule_need_reading() -> None:
    assert may_match([CHEST_RULE], "dx ")
    assert not may_match([CHEST_RULE], "CT")
    assert may_match([Rule("anything")], "CT")


# --- where to -------------------------------------------------------------------------------

PORTABLE = Rule("portable", view=frozenset({"AP"}), targets=frozenset({"research", "archive"}))
UPRIGHT = Rule("upright", view=frozenset({"PA"}), targets=frozenset({"archive", "teaching"}))


def test_a_study_goes_to_the_targets_of_every_rule_that_one_of_its_instances_fits() -> None:
    rules = [PORTABLE, UPRIGHT, CHEST_RULE]
    frontal, bedside = _facts(ViewPosition="PA"), _facts(ViewPosition="AP")
    assert decide([frontal], rules, copy=False).targets == ("archive", "teaching")
    both = ("archive", "research", "teaching")
    assert decide([frontal, bedside], rules, copy=False).targets == both
    assert decide([bedside, frontal], rules[::-1], copy=False).targets == both


def test_a_study_whose_rules_name_no_target_names_none() -> None:
    rules = [PORTABLE, CHEST_RULE]
    decision = decide([_facts(ViewPosition="LL")], rules, copy=False)
    assert decision.taken
    assert decision.targets == ()


def test_what_is_turned_away_goes_nowhere() -> None:
    own = _facts(ViewPosition="AP", DeidentificationMethod="PriCheXy gateway 0.1.0")
    assert decide([own], [PORTABLE], copy=False).targets == ()
    assert decide([_facts(ViewPosition="AP")], [PORTABLE], copy=True).targets == ()


def test_a_decision_is_settled_when_no_rule_could_add_a_target() -> None:
    assert not is_settled([CHEST_RULE], [])
    assert is_settled([CHEST_RULE], [CHEST_RULE])
    assert not is_settled([CHEST_RULE, PORTABLE], [CHEST_RULE])
    assert is_settled([CHEST_RULE, PORTABLE], [PORTABLE])
    assert not is_settled([PORTABLE, UPRIGHT], [PORTABLE])
    assert is_settled([PORTABLE, UPRIGHT], [PORTABLE, UPRIGHT])


URGENT = Rule("emergency", station=frozenset({"ER"}), priority=Rank.URGENT)
GPU = Rule("large", view=frozenset({"PA"}), queue="gpu", priority=Rank.LOW)
CPU = Rule("others", modality=frozenset({"CR"}), queue="cpu")


def test_the_most_urgent_rule_and_the_first_one_with_a_queue_decide() -> None:
    rules = [URGENT, GPU, CPU]
    decision = decide([_facts(StationName="er")], rules, copy=False)
    assert (decision.priority, decision.queue, decision.source) == (Rank.URGENT, "gpu", "CR1")
    lateral = decide([_facts(ViewPosition="LL")], rules, copy=False)
    assert (lateral.priority, lateral.queue) == (Rank.NORMAL, "cpu")
    both = decide([_facts(ViewPosition="LL"), _facts(Modality="DX")], rules, copy=False)
    assert (both.priority, both.queue) == (Rank.NORMAL, "gpu")
    assert decide([_facts()], [CHEST_RULE], copy=False).queue == "", "the gateway's own"


def test_a_decision_is_settled_when_no_rule_could_make_it_more_urgent_or_change_its_queue() -> None:
    assert is_settled([URGENT, CPU], [URGENT, CPU])
    assert not is_settled([URGENT, CPU], [CPU])
    assert is_settled([CPU, GPU], [CPU])
    assert not is_settled([GPU, CPU], [CPU])


RULES = st.builds(
    Rule,
    name=st.uuids().map(str),
    targets=st.frozensets(st.sampled_from("abc")),
    priority=st.sampled_from(PRIORITIES),
    queue=st.sampled_from(["", "gpu", "cpu"]),
)


@given(st.lists(RULES, min_size=1, max_size=4), st.data())
def test_what_is_settled_is_changed_by_no_further_instance(
    rules: list[Rule], data: st.DataObject
) -> None:
    """A rule without lists fits everything, so which ones fit is told by their modality here."""
    named = [
        Rule(
            rule.name,
            modality=frozenset({str(number)}),
            targets=rule.targets,
            priority=rule.priority,
            queue=rule.queue,
        )
        for number, rule in enumerate(rules)
    ]
    fitting = data.draw(st.sets(st.sampled_from(range(len(rules))), min_size=1))
    more = data.draw(st.sets(st.sampled_from(range(len(rules)))))
    if is_settled(named, [named[number] for number in fitting]):
        facts = [InstanceFacts(modality=str(number)) for number in sorted(fitting)]
        further = [InstanceFacts(modality=str(number)) for number in sorted(more)]
        assert decide(facts, named, copy=False) == decide(facts + further, named, copy=False)


@given(
    st.sets(st.from_regex(r"[a-z0-9]{1,8}([_-][a-z0-9]{1,8})?", fullmatch=True), max_size=4),
    st.text(max_size=16),
)
def test_a_stream_tells_its_targets_whatever_the_sender_is_called(
    targets: set[str], source: str
) -> None:
    assert targets_of(stream_of(targets, source)) == tuple(sorted(targets))
