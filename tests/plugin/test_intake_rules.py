"""Intake: which studies are taken in, and why the others are not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prichexy_plugin.intake import InstanceFacts, Rule, decide, facts_of, may_match
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
