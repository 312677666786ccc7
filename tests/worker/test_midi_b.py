"""The scorer passes what it should and fails what it should, and the gateway passes it."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest

from prichexy_testing.canaries import built_originals, specimens
from prichexy_testing.dicoms import write
from prichexy_testing.fuzzing import still_tools
from prichexy_testing.midi_b import (
    ACTIONS,
    Check,
    Renamed,
    answer_key,
    hidden_text,
    read_key,
    score,
    totals,
    write_key,
)
from prichexy_worker.pipeline import anonymize

SPECIMENS = tuple(specimens(2, seed="midi-b", originals=built_originals(), hands=64, long=False))
KEY = [check for one in SPECIMENS for check in answer_key(one.content, one.canaries)]
ORIGINALS = {
    str(pydicom.dcmread(BytesIO(one.content)).SOPInstanceUID): one.content for one in SPECIMENS
}
NOBODY = Renamed({}, {})


def renamed() -> Renamed:
    pseudonyms = still_tools().pseudonyms
    uids = {c.value: pseudonyms.uid(c.value) for c in KEY if c.action == "uid_consistent"}
    patients = {}
    for content in ORIGINALS.values():
        original = pydicom.dcmread(BytesIO(content))
        issuer = str(original.get("IssuerOfPatientID", ""))
        new = pseudonyms.patient_id(str(original.PatientID), issuer)
        patients[str(original.PatientID)] = new
    return Renamed(uids, patients)


def failed(scored: list) -> set[str]:
    return {one.check.action for one in scored if not one.passed}


def test_the_originals_fail_all_that_had_to_change_and_pass_all_that_had_to_stay() -> None:
    result = totals(score(KEY, ORIGINALS, NOBODY))
    for action in ("text_removed", "date_shifted", "uid_changed", "uid_consistent"):
        assert result[action][0] == 0, action
        assert result[action][1] > 0
    assert result["patid_consistent"][0] == 0
    for action in ("tag_retained", "text_notnull", "text_retained", "pixels_retained"):
        assert result[action][0] == result[action][1] > 0, action


def test_results_of_the_gateway_pass_every_check_when_nothing_is_deformed() -> None:
    results = {
        instance: anonymize(content, still_tools()).content
        for instance, content in ORIGINALS.items()
    }
    scored = score(KEY, results, renamed())
    assert [(one.check.action, one.check.tag_ds) for one in scored if not one.passed] == []


def test_a_missing_result_passes_what_had_to_go_and_fails_what_had_to_stay() -> None:
    assert failed(score(KEY, {}, NOBODY)) == {
        *("tag_retained", "text_notnull", "text_retained", "pixels_retained"),
        *("uid_consistent", "patid_consistent"),
    }


def changed(**attributes: object) -> dict[str, bytes]:
    """Give the first original with other attributes; a value of None removes one."""
    instance, content = next(iter(ORIGINALS.items()))
    dataset = pydicom.dcmread(BytesIO(content))
    for keyword, value in attributes.items():
        if value is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, value)
    with pydicom.config.disable_value_validation():
        return {instance: write(dataset)}


@pytest.mark.parametrize(
    ("check", "attributes", "passes"),
    [
        (Check("", "tag_retained", "0010,0010"), {"PatientName": ""}, True),
        (Check("", "tag_retained", "0010,0010"), {"PatientName": None}, False),
        (Check("", "text_notnull", "0010,0010"), {"PatientName": ""}, False),
        (Check("", "text_retained", "0018,0060", "120.0"), {"KVP": "120"}, True),
        (Check("", "text_retained", "0018,0060", "120.0"), {"KVP": "121"}, False),
        (
            Check("", "text_retained", "0028,0030", "0.20\\0.20"),
            {"PixelSpacing": ["0.2", "0.2"]},
            True,
        ),
        (
            Check("", "text_retained", "0028,0030", "0.20\\0.20"),
            {"PixelSpacing": ["0.2", "0.3"]},
            False,
        ),
        (Check("", "text_removed", "0008,103E", "Doe, Jane"), {"SeriesDescription": "pa"}, True),
        (Check("", "text_removed", "0008,103E", "Doe, Jane"), {"SeriesDescription": "JANE"}, False),
        (Check("", "date_shifted", "0008,0020", "19700101"), {"StudyDate": "19700101"}, False),
        (Check("", "date_shifted", "0008,0020", "19700101"), {"StudyDate": "19690101"}, True),
        (Check("", "uid_changed", "0020,000D", "1.2.3"), {"StudyInstanceUID": None}, True),
        (Check("", "uid_consistent", "0020,000D", "1.2.3"), {"StudyInstanceUID": "2.25.1"}, True),
        (Check("", "uid_consistent", "0020,000D", "1.2.3"), {"StudyInstanceUID": "2.25.2"}, False),
        (Check("", "patid_consistent", "0010,0020", "A"), {"PatientID": "B"}, True),
        (Check("", "patid_consistent", "0010,0020", "A"), {"PatientID": "A"}, False),
    ],
)
def test_each_check_means_what_the_challenge_means(
    check: Check, attributes: dict[str, object], passes: bool
) -> None:
    results = changed(**attributes)
    (instance,) = results
    mapping = Renamed({"1.2.3": "2.25.1"}, {"A": "B"})
    (scored,) = score([replace(check, instance=instance)], results, mapping)
    assert scored.passed is passes


def test_text_in_the_image_is_read_where_it_was() -> None:
    instance, content = next(iter(ORIGINALS.items()))
    check = hidden_text(content, "Doe Jane", (1, 2, 30, 20))
    boxes = []

    def reads(text: str):
        def reader(values: np.ndarray, box: tuple[int, int, int, int]) -> str:
            boxes.append(box)
            return text

        return reader

    assert score([check], {instance: content}, NOBODY, reads("nothing"))[0].passed
    assert not score([check], {instance: content}, NOBODY, reads("xx DOE"))[0].passed
    assert not score([check], {instance: content}, NOBODY)[0].passed
    assert boxes == [(1, 2, 30, 20)] * 2


def test_the_key_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_key(tmp_path / "key.csv", KEY)
    assert read_key(tmp_path / "key.csv") == KEY
    assert {check.action for check in KEY} == set(ACTIONS) - {"pixels_hidden"}
