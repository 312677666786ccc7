"""The plugin takes in the chest by the same codes as the worker accepts."""

import itertools

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from prichexy_plugin import intake
from prichexy_testing.dicoms import radiograph_dataset
from prichexy_worker import inspection
from prichexy_worker.errors import Rejected

CODES = {code for code, _ in intake._CHEST_CODES | inspection._CHEST_CODES} | {"T-D4000", "t-d3000"}
SCHEMES = {scheme for _, scheme in intake._CHEST_CODES | inspection._CHEST_CODES} | {"99X", ""}


def _worker_accepts(code: str, scheme: str) -> bool:
    region = Dataset()
    region.CodeValue, region.CodingSchemeDesignator = code, scheme
    dataset = radiograph_dataset(body_part="")
    dataset.AnatomicRegionSequence = Sequence([region])
    try:
        inspection.inspect(dataset)
    except Rejected:
        return False
    return True


@pytest.mark.parametrize(("code", "scheme"), sorted(itertools.product(CODES, SCHEMES)))
def test_intake_and_inspection_agree_on_what_code_means_the_chest(code, scheme):
    region = {"CodeValue": code, "CodingSchemeDesignator": scheme}
    facts = intake.facts_of({"AnatomicRegionSequence": [region]}, calling_aet="")
    assert ("CHEST" in facts.body_parts) == _worker_accepts(code, scheme)


def test_at_least_todays_code_is_accepted_by_both():
    assert ("816094009", "SCT") in intake._CHEST_CODES & inspection._CHEST_CODES
