"""The main job on real parts: what is sent to one Orthanc arrives, safe, at the other.

Everything runs for real: Redis, two Orthancs, the plugin inside one, a worker process.
"""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pyrage
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import UID
from typer.testing import CliRunner

from prichexy_gateway.cli import create_app
from prichexy_gateway.client import StudyRow
from prichexy_gateway.home import default_bundle
from prichexy_model.bundle import read_bundle
from prichexy_testing.gateway import TestGateway, gateway_in
from prichexy_testing.shared_data import CHEST as CHEST_FOLDER
from prichexy_testing.shared_data import NOT_CHEST, chest_files, need
from prichexy_testing.system_data import as_its_own_study, identifying_values, occurrences
from prichexy_worker.contract import Reason, State

pytestmark = [pytest.mark.orthanc, pytest.mark.redis]

#: The one radiograph among the samples that shows its patient's name, in two transfer syntaxes, and
#: the lines of name and birth date in it.
SHOWS_A_NAME = {"presidio_pseudoPHI_0_ORIGINAL_RLE.dcm", "davidson_JPEGLS.dcm"}
CHEST = chest_files()
WITHOUT_TEXT = [path for path in CHEST if path.name not in SHOWS_A_NAME]
NAME_AND_BIRTH_DATE = (np.s_[2:46, 4:818], np.s_[38:88, 4:368])
WITH_A_NAME = [path for path in CHEST if path.name in SHOWS_A_NAME]
OTHERS = sorted(NOT_CHEST.glob("*.dcm"))

LOSSLESS = {"1.2.840.10008.1.2.1", "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.80"}


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


@dataclass(frozen=True)
class Journey:
    """One real file: what was sent, the ledger's row of it, what the export peer holds."""

    sent: Path
    row: StudyRow | None
    arrived: tuple[bytes, ...]

    def before(self) -> Dataset:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pydicom.dcmread(self.sent, force=True)

    def after(self) -> Dataset:
        assert len(self.arrived) == 1
        return pydicom.dcmread(io.BytesIO(self.arrived[0]))


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestGateway]:
    with gateway_in(tmp_path_factory.mktemp("system")) as running:
        yield running


@pytest.fixture(scope="module")
def journeys(gateway, tmp_path_factory) -> dict[str, Journey]:
    """All real files, sent at once; ready when the gateway has ended every study."""
    folder = tmp_path_factory.mktemp("originals")
    copies = {_name(path): as_its_own_study(path, folder) for path in [*CHEST, *OTHERS]}
    if not copies:
        pytest.skip("no real DICOM files are at hand")
    gateway.send(list(copies.values()))
    with gateway.ingest() as ingest, gateway.export() as export:
        studies = {}
        for name, copy in copies.items():
            uid = str(pydicom.dcmread(copy, specific_tags=["StudyInstanceUID"]).StudyInstanceUID)
            found = ingest.find("Study", uid)
            studies[name] = found[0] if found else None
        rows = gateway.until_ended([s for s in studies.values() if s])
        pseudonyms = gateway.pseudonyms()
        journeys = {}
        for name, copy in copies.items():
            original = pydicom.dcmread(copy, specific_tags=["SOPInstanceUID"])
            instances = export.find("Instance", pseudonyms.uid(str(original.SOPInstanceUID)))
            journeys[name] = Journey(
                copy, rows.get(studies[name]), tuple(export.instance(i) for i in instances)
            )
    return journeys


@pytest.mark.parametrize("folder", [CHEST_FOLDER, NOT_CHEST], ids=lambda folder: folder.name)
def test_the_real_files_of_each_kind_are_at_hand(folder):
    """Skipped, naming the folder, where it is absent: no test over its files is collected then."""
    assert list(need(folder).glob("*.dcm"))


def _exported(path: Path, journeys: dict[str, Journey]) -> Journey:
    journey = journeys[_name(path)]
    assert journey.row is not None
    assert journey.row.state is State.EXPORTED, journey.row.reason
    return journey


@pytest.fixture(params=CHEST, ids=_name)
def exported(request, journeys) -> Journey:
    return _exported(request.param, journeys)


@pytest.mark.parametrize("path", WITHOUT_TEXT, ids=_name)
def test_a_chest_radiograph_arrives_with_its_pixels_deformed_and_nothing_else_changed(
    path, journeys
):
    exported = _exported(path, journeys)
    before, after = exported.before(), exported.after()
    for keyword in ("Rows", "Columns", "BitsStored", "PixelRepresentation"):
        assert after[keyword].value == before[keyword].value
    assert after.PhotometricInterpretation == before.PhotometricInterpretation
    assert str(after.file_meta.TransferSyntaxUID) in LOSSLESS
    for keyword in ("WindowCenter", "WindowWidth"):
        assert after.get(keyword) == before.get(keyword)
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        spacing = before.get(keyword)
        # Some of the samples say 0, which is no length.
        assert after.get(keyword) == (spacing if spacing and all(spacing) else None)
    original, result = before.pixel_array, after.pixel_array
    assert result.min() >= original.min()
    assert result.max() <= original.max()
    # A displacement leaves the picture and its greys; anything else done to it would not.
    assert np.corrcoef(original.ravel(), result.ravel())[0, 1] > 0.8
    greys = np.linspace(0.02, 0.98, 25)
    moved = np.quantile(original, greys) - np.quantile(result, greys)
    assert np.abs(moved).max() < 0.05 * (original.max() - original.min())
    assert exported.row.measures["max_displacement_px"] > 0
    changed = np.mean(original != result)
    assert changed == pytest.approx(exported.row.measures["changed_share"], abs=1e-6)


def test_no_identifying_value_of_the_source_occurs_in_the_bytes_that_left(exported):
    values = identifying_values(exported.sent)
    assert values, "the sample must hold something to look for"
    assert occurrences(values, exported.sent.read_bytes()), "the search must be able to find"
    assert occurrences(values, exported.arrived[0]) == set()


def test_every_uid_is_new_and_the_patient_is_a_pseudonym(exported, gateway):
    before, after = exported.before(), exported.after()
    pseudonyms = gateway.pseudonyms()
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        assert after[keyword].value == pseudonyms.uid(str(before[keyword].value))
        assert UID(after[keyword].value).is_valid
    assert after.file_meta.MediaStorageSOPInstanceUID == after.SOPInstanceUID
    assert after.PatientID
    assert after.PatientID != before.get("PatientID")


def test_the_crosswalk_of_the_ingest_orthanc_names_who_stands_behind_each_export(
    exported, gateway, tmp_path
):
    before, after = exported.before(), exported.after()
    owner = pyrage.x25519.Identity.generate()
    words = ["crosswalk", str(tmp_path / "crosswalk.age"), "--recipient", str(owner.to_public())]
    done = CliRunner().invoke(create_app(), [*words, "--home", str(gateway.home.root)])
    assert done.exit_code == 0, done.output
    text = pyrage.decrypt((tmp_path / "crosswalk.age").read_bytes(), [owner]).decode()
    rows = csv.DictReader(io.StringIO(text))
    behind = {row["pseudonymous_study_instance_uid"]: row for row in rows}[after.StudyInstanceUID]
    assert behind["study_instance_uid"] == before.StudyInstanceUID
    assert behind["pseudonym"] == after.PatientID
    assert behind["patient_id"] == str(before.get("PatientID") or "").strip()


def test_the_result_says_what_was_done_to_it_and_no_more(exported):
    before, after = exported.before(), exported.after()
    assert after.PatientIdentityRemoved == "YES"
    codes = {item.CodeValue for item in after.DeidentificationMethodCodeSequence}
    assert codes == {"113100", "113101"}
    assert after.BurnedInAnnotation == "NO"
    assert after.ImageType[0] == "DERIVED"
    assert after.LongitudinalTemporalInformationModified == "REMOVED"
    assert "RecognizableVisualFeatures" not in after
    shipped = read_bundle(default_bundle())
    assert shipped.digest in str(after.DerivationDescription)
    assert shipped.statement in str(after.DerivationDescription)
    if before.get("LossyImageCompression") == "01":
        assert after.LossyImageCompression == "01"


@pytest.mark.parametrize("path", WITH_A_NAME, ids=_name)
def test_a_radiograph_that_shows_its_patients_name_arrives_without_it(path, journeys):
    journey = _exported(path, journeys)
    measures = journey.row.measures
    assert measures["text_regions_erased"] >= 1
    assert measures["text_markers_kept"] >= 1
    assert 0 < measures["text_erased_share"] < 0.1
    before, after = journey.before().pixel_array, journey.after().pixel_array
    # MONOCHROME1: letters are the lowest values. Where they were, none is left.
    for line in NAME_AND_BIRTH_DATE:
        written = before[line] < before.max() / 10
        assert written.mean() > 0.05
        assert (after[line] < before.max() / 10).mean() < written.mean() / 50


@pytest.mark.parametrize("path", OTHERS, ids=_name)
def test_what_is_no_chest_radiograph_is_turned_away_with_its_reason(path, journeys):
    journey = journeys[_name(path)]
    assert journey.row is not None
    assert journey.row.state in {State.QUARANTINED, State.REJECTED}
    assert journey.row.reason in set(Reason)
    assert journey.row.reason_sentence
    assert journey.arrived == ()


def test_nothing_else_is_at_the_export_peer(journeys, gateway):
    with gateway.export() as export:
        held = export.all_studies()
    assert len(held) == sum(len(journey.arrived) for journey in journeys.values())


def test_no_identifying_value_is_in_the_logs_the_ledger_or_redis(journeys, gateway):
    """Orthanc's own logs are Orthanc's; ours, the ledger and the broker's data are searched."""
    values = set()
    for journey in journeys.values():
        values |= identifying_values(journey.sent)
    home = gateway.home.root
    ours = [gateway.home.log("worker"), *home.rglob("*ledger*"), *(home / "redis").rglob("*")]
    searched = [path for path in ours if path.is_file()]
    assert len(searched) >= 3
    # Common words, such as a body part or a manufacturer's name, say nothing of a person.
    telling = {value for value in values if any(c.isdigit() for c in value) or "^" in value}
    for path in searched:
        assert occurrences(telling, path.read_bytes()) == set(), path.name


def test_a_study_that_is_sent_twice_is_exported_once(journeys, gateway, tmp_path):
    name = next(iter(journeys))
    journey = next(j for j in journeys.values() if j.row and j.row.state is State.EXPORTED)
    with gateway.export() as export:
        before = sorted(export.all_studies())
    assert gateway.send([journey.sent]).stored == 1
    rows = gateway.until_ended([journey.row.study_id])
    assert rows[journey.row.study_id].state is State.EXPORTED, name
    with gateway.export() as export:
        assert sorted(export.all_studies()) == before
