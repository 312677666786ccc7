"""Of thousands of values, planted in every place of real radiographs, none is in a result.

The results are searched by ``prichexy_testing.canaries``, which shares no code with the worker.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
import pytest

from prichexy_testing.canaries import (
    Canary,
    Haystack,
    Specimen,
    built_originals,
    is_told_by_clocks,
    real_originals,
    specimens,
    survivors,
)
from prichexy_testing.canaries.character_sets import CHARACTER_SETS
from prichexy_testing.canaries.specimens import COUNT
from prichexy_testing.canaries.table_attributes import DEEPEST, other_tags, table_tags
from prichexy_testing.finders import Finds
from prichexy_testing.generators import Unjudged
from prichexy_testing.headers import KEY, MODEL
from prichexy_testing.shared_data import REPO
from prichexy_worker import inspection
from prichexy_worker.contract import Reason
from prichexy_worker.errors import Rejected
from prichexy_worker.header import Profile, allowed
from prichexy_worker.header.options import Option
from prichexy_worker.pipeline import Anonymized, Tools, anonymize
from prichexy_worker.pseudonyms import Pseudonyms

PLACES = {
    *("table attribute, top level", *(f"table attribute, {n} deep" for n in range(1, 6))),
    *("text attribute outside the table", "free text in a coded attribute", "character set"),
    *("multi-valued element", "very long value", "unknown standard element", "private"),
    *("sequence as UN, implicit VR", "sequence as UN, explicit VR", "lookup table"),
    *("overlay 60xx", "overlay in pixel bits", "curve 50xx", "unused high bits", "icon image"),
    *("after the last pixel", "comment of a codestream", "digital signature"),
    *("encrypted attributes", "original attributes", "duplicate element", "out-of-order element"),
    *("data set trailing padding", "after the data set", "file meta", "preamble", "command group"),
    "file name",
}


class Still(Unjudged):
    """A generator that moves nothing."""

    model = MODEL
    input_size = 64

    def displacement(self, view: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.zeros((2, *view.shape), np.float32)


TOOLS = Tools(Still(), Pseudonyms(KEY), Finds())


@cache
def corpus() -> tuple[Specimen, ...]:
    return tuple(specimens())


@cache
def outcome(number: int) -> Anonymized | Rejected:
    try:
        return anonymize(corpus()[number].content, TOOLS)
    except Rejected as error:
        return error


def places(canaries: list[Canary]) -> list[tuple[str, str]]:
    return [(canary.place, canary.path) for canary in canaries]


@pytest.mark.parametrize("number", range(COUNT))
def test_nothing_planted_survives(number: int) -> None:
    specimen = corpus()[number]
    planted = Haystack(specimen.content, result=False)
    hidden = [c for c in specimen.canaries if c.place != "file name" and not planted.shows(c)]
    assert places(hidden) == [], "the search must be able to find what was planted"
    result = outcome(number)
    if isinstance(result, Rejected):
        # What was planted in the place of a code that the object needs cannot be kept.
        assert result.reason is Reason.CONFORMANCE_BROKEN
    else:
        assert places(survivors(result.content, specimen.canaries)) == []


def test_nearly_all_are_released_for_one_in_quarantine_would_prove_nothing() -> None:
    released = sum(isinstance(outcome(number), Anonymized) for number in range(COUNT))
    assert released >= COUNT - 4


@pytest.mark.parametrize("number", range(0, COUNT, 4))
def test_under_most_options_nothing_survives_but_what_they_keep(number: int) -> None:
    specimen = corpus()[number]
    profile = Profile.made_of("most", set(Option) - {Option.UIDS})
    tools = replace(TOOLS, profile=profile)
    try:
        result = anonymize(specimen.content, tools)
    except Rejected as error:
        # A planted value stands in what an option keeps, too: the last search found it there.
        assert error.reason in (Reason.IDENTITY_SURVIVED, Reason.CONFORMANCE_BROKEN)
        return
    source = inspection.read(specimen.content)
    kept = allowed(source, pydicom.dcmread(BytesIO(result.content)), profile).kept
    left = survivors(result.content, specimen.canaries)
    assert {canary.path for canary in left} <= kept


def test_there_are_thousands_in_every_place_of_dozens_of_objects() -> None:
    planted = Counter(canary.place for specimen in corpus() for canary in specimen.canaries)
    assert planted.keys() == PLACES
    assert planted.total() >= 3000
    assert len(corpus()) >= 40
    if real_originals():
        real = [specimen for specimen in corpus() if "built/" not in specimen.name]
        assert len(real) >= 40


@pytest.mark.parametrize("depth", range(DEEPEST + 1))
def test_every_attribute_of_the_table_has_its_turn_at_each_depth(depth: int) -> None:
    place = f"table attribute, {depth} deep" if depth else "table attribute, top level"
    planted = set()
    for specimen in corpus():
        for canary in specimen.canaries:
            tags = [int(tag.replace(",", ""), 16) for tag in canary.path.split("/") if "," in tag]
            if canary.place == place:
                planted.add(tags[depth])
    # Some that stand at top level hold another planted value there, such as one of another place.
    absent = set(table_tags()) - planted
    assert not absent or depth == 0
    elsewhere = {c.path[:9] for s in corpus() for c in s.canaries if c.path != "preamble"}
    assert {f"{tag >> 16:04X},{tag & 0xFFFF:04X}" for tag in absent} <= elsewhere


def test_every_text_attribute_of_the_standard_and_every_character_set_has_its_turn() -> None:
    planted = {
        canary.path
        for specimen in corpus()
        for canary in specimen.canaries
        if canary.place != "file name"
    }
    tags = {f"{tag >> 16:04X},{tag & 0xFFFF:04X}" for tag in other_tags()}
    assert tags <= {path[:9] for path in planted}
    assert len({s.name for s in corpus()}) == COUNT
    assert len(CHARACTER_SETS) <= COUNT // 2


def test_the_same_seed_gives_the_same_specimens_and_another_one_others() -> None:
    built = built_originals()
    one, two = (next(specimens(1, originals=built)) for _ in range(2))
    other = next(specimens(1, originals=built, seed="another"))
    assert one == two
    assert one.content != other.content
    assert not {c.raw for c in one.canaries} & {c.raw for c in other.canaries}


def test_nothing_survives_beside_the_real_generator() -> None:
    from prichexy_worker.engine import Engine

    engine = Engine.load(Path(REPO / "model" / "untrained"), device="cpu", threads=1)
    tools = Tools(engine, Pseudonyms(KEY), Finds(), syntax="jpeg-ls-lossless")
    released = [n for n in range(COUNT) if isinstance(outcome(n), Anonymized)]
    for specimen in (corpus()[number] for number in released[:4]):
        result = anonymize(specimen.content, tools)
        assert result.measures["max_displacement_px"] > 0
        assert places(survivors(result.content, specimen.canaries)) == []


@pytest.mark.parametrize(
    ("form", "told"),
    [
        (b"23:59:58", True),
        (b"00:00:01", True),
        (b"23:59:57", False),
        (b"12:00:00", False),
        (b"235959", True),
        (b"\xff3:59:58", False),
    ],
)
def test_only_a_time_of_day_of_the_run_itself_is_told_by_its_clocks(
    form: bytes, told: bool
) -> None:
    began = datetime(2026, 1, 1, 23, 59, 58, 500_000, tzinfo=UTC)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        assert is_told_by_clocks(form, began, began + timedelta(seconds=3)) is told
    time.tzset()


def test_the_search_sees_what_a_careless_result_would_show() -> None:
    """A result with one planted value put back, in each way that bytes can be packed."""
    specimen = corpus()[2]
    result = anonymize(specimen.content, TOOLS).content
    for canary in specimen.canaries[::7]:
        if canary.forms:
            at = result.rindex(b"\xe0\x7f\x10\x00") + 12
            shown = result[:at] + canary.forms[0].upper() + result[at + len(canary.forms[0]) :]
            assert canary in survivors(shown, specimen.canaries), canary.path
