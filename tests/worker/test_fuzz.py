"""Damaged files: turned away, or released without anything planted; never a crash, never a hang.

``benchmarks/mutation_fuzz.py`` runs as many as one likes; here are some hundred, and what it found.
"""

from __future__ import annotations

import struct

import pytest
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.encaps import encapsulate
from pydicom.tag import Tag
from pydicom.uid import RLELossless

from prichexy_testing import fuzzing
from prichexy_testing.canaries import Specimen
from prichexy_testing.dicoms import radiograph_dataset, write
from prichexy_testing.fuzz_players import DIES, HANGS, misbehaving
from prichexy_testing.fuzzing import Verdict, judge, numbered, run, still_tools
from prichexy_testing.mutations import MUTATIONS, mutant
from prichexy_worker.contract import Reason
from prichexy_worker.errors import Rejected
from prichexy_worker.pipeline import Anonymized, Tools, anonymize
from prichexy_worker.ports import Released

MUTANTS = 300


def test_hundreds_of_damaged_files_crash_nothing_and_leak_nothing() -> None:
    verdicts = list(run(range(MUTANTS), seed="ci"))
    assert [verdict for verdict in verdicts if verdict.finding] == []
    assert {verdict.number for verdict in verdicts} == set(range(MUTANTS))
    outcomes = [verdict.outcome for verdict in verdicts]
    # Damage that is found at once proves little: much of it must get through all steps.
    assert outcomes.count("released") > MUTANTS // 5
    assert outcomes.count("turned away") > MUTANTS // 5
    assert len({verdict.detail for verdict in verdicts}) >= 6


def test_the_same_number_gives_the_same_damage_and_each_kind_of_it_alters_something() -> None:
    assert numbered(7)[1] == numbered(7)[1] != numbered(7, "another")[1]
    contents = [numbered(number)[0].content for number in range(4)]
    altered = [mutant(content, f"{n}") != content for content in contents for n in range(60)]
    assert sum(altered) > 0.8 * len(altered)
    assert len(set(MUTATIONS)) >= 16


@pytest.mark.parametrize("number", [0, 3])
def test_an_undamaged_specimen_is_released(number: int) -> None:
    specimen = numbered(number)[0]
    assert judge(number, specimen, specimen.content, still_tools()) == Verdict(number, "released")


def test_a_process_that_dies_or_hangs_names_its_mutant_and_costs_no_other() -> None:
    verdicts = run(range(4), seed="s", patience=3.0, work=misbehaving)
    assert {v.number: (v.outcome, v.detail) for v in verdicts} == {
        0: ("released", "s"),
        DIES: ("died", "exit code 3"),
        HANGS: ("hung", ""),
        3: ("released", "s"),
    }


def result_of(specimen: Specimen) -> Anonymized:
    return anonymize(specimen.content, still_tools())


def test_what_a_broken_pipeline_does_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    specimen = numbered(2)[0]
    whole = result_of(specimen)
    canary = next(c for c in specimen.canaries if c.path == "0010,0020")

    def given(content: bytes) -> str:
        fake = Anonymized("", "", "", "", Released(content))
        monkeypatch.setattr(fuzzing, "anonymize", lambda _content, _tools: fake)
        return judge(0, specimen, b"", still_tools()).outcome

    assert given(whole.content) == "released"
    assert given(whole.content[:-30] + canary.raw.ljust(30)) == "leaked"
    assert given(whole.content[:-300]) == "malformed"
    assert given(specimen.content) == "leaked"

    def breaks(_content: bytes, _tools: Tools) -> Anonymized:
        raise ValueError("CANARY")

    monkeypatch.setattr(fuzzing, "anonymize", breaks)
    verdict = judge(0, specimen, b"", still_tools())
    assert verdict.outcome == "crashed"
    assert "CANARY" not in verdict.detail


def test_an_overlay_of_an_odd_type_is_no_obstacle() -> None:
    """Its keyword names a repeating group, which no dictionary knows by keyword alone."""
    dataset = radiograph_dataset()
    dataset[0x60000040] = RawDataElement(Tag(0x60000040), "CS", 6, b"G-1234", 0, False, True)
    assert b"G-1234" not in anonymize(write(dataset), still_tools()).content


def rle(first: bytes, second: bytes) -> bytes:
    """Give a 12-bit image of 8 x 8 whose RLE segments are these."""
    dataset = radiograph_dataset(rows=8, columns=8, transfer_syntax=RLELossless)
    header = struct.pack("<16I", 2, 64, 64 + len(first), *[0] * 13)
    element = DataElement(0x7FE00010, "OB", encapsulate([header + first + second]))
    element.is_undefined_length = True
    dataset[0x7FE00010] = element
    return write(dataset)


@pytest.mark.parametrize(
    "segments", [(b"\x3f" + b"a" * 64, b"\x81a\0b"), (b"\x81a\0b", b"\x3f" + b"a" * 64)]
)
def test_a_run_beyond_the_end_of_an_rle_image_turns_it_away(segments: tuple[bytes, bytes]) -> None:
    with pytest.raises(Rejected) as caught:
        anonymize(rle(*segments), still_tools())
    # Another decoder may make something of it; the gate then finds no picture in that.
    assert caught.value.reason in (Reason.UNDECODABLE, Reason.PIXELS_NOT_SANE)
