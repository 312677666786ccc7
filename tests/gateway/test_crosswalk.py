"""The crosswalk: right, for its recipients alone, and nowhere in the clear."""

from __future__ import annotations

import csv
import errno
import io
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import httpx
import pyrage
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian
from typer.testing import CliRunner

from prichexy_gateway.cli import create_app
from prichexy_gateway.client import OrthancClient
from prichexy_gateway.crosswalk import Row, Skipped, encrypted, of_files, of_orthanc, write_new
from prichexy_gateway.deeds import noted
from prichexy_gateway.dicom_files import find_dicom_files
from prichexy_gateway.errors import Failed, Misconfigured
from prichexy_gateway.home import Addresses, Home, Record, RunningProcess
from prichexy_plugin.security import allows
from prichexy_testing.dicoms import CANARIES, canary_values, radiograph_dataset, write
from prichexy_testing.headers import KEY, PROVENANCE, reread
from prichexy_testing.http_servers import serving
from prichexy_worker import inspection
from prichexy_worker.header import BASIC, Profile, deidentify
from prichexy_worker.header.options import Option
from prichexy_worker.pseudonyms import Pseudonyms
from prichexy_worker.quiet import without_noise

IDENTITY = pyrage.x25519.Identity.generate()
RECIPIENT = str(IDENTITY.to_public())
PSEUDONYMS = Pseudonyms(KEY)


def rows_of(content: bytes) -> list[Mapping[str, str]]:
    text = pyrage.decrypt(content, [IDENTITY]).decode()
    return list(csv.DictReader(io.StringIO(text)))


def of(folder: Path, profile: Profile = BASIC) -> list[Row]:
    pseudonyms = profile.pseudonyms(PSEUDONYMS)
    return list(of_files(find_dicom_files(folder).files, pseudonyms, profile, Skipped()))


def test_it_names_what_stands_in_the_results(tmp_path: Path) -> None:
    dates = Profile.made_of("dates", [Option.MODIFIED_DATES], project="one")
    dataset = radiograph_dataset()
    (tmp_path / "a.dcm").write_bytes(write(dataset))
    (row,) = of(tmp_path, dates)
    result = deidentify(reread(dataset), dates.pseudonyms(PSEUDONYMS), PROVENANCE, dates)
    assert row.patient_id == CANARIES["PatientID"]
    assert row.issuer_of_patient_id == CANARIES["IssuerOfPatientID"]
    assert row.study_instance_uid == CANARIES["StudyInstanceUID"]
    assert row.pseudonym == result.PatientID
    assert row.pseudonymous_study_instance_uid == result.StudyInstanceUID
    assert 1 <= row.days_earlier <= 3653


def test_images_of_one_study_are_one_row(tmp_path: Path) -> None:
    for number in range(3):
        dataset = radiograph_dataset(SOPInstanceUID=f"1.2.3.{number}")
        (tmp_path / f"{number}.dcm").write_bytes(write(dataset))
    assert len(of(tmp_path)) == 1


def test_a_deflated_object_has_its_row_and_a_bomb_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deflated = radiograph_dataset(transfer_syntax=DeflatedExplicitVRLittleEndian)
    (tmp_path / "a.dcm").write_bytes(write(deflated))
    (row,) = of(tmp_path)
    assert row.patient_id == CANARIES["PatientID"]
    monkeypatch.setattr(inspection, "MAX_BYTES", 1000)
    skipped = Skipped()
    files = find_dicom_files(tmp_path).files
    assert list(of_files(files, PSEUDONYMS, BASIC, skipped)) == []
    assert skipped.count == 1


def test_only_a_recipient_reads_it(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(write(radiograph_dataset()))
    content = encrypted(of(tmp_path), [RECIPIENT])
    assert not any(value.encode() in content for value in canary_values())
    assert rows_of(content)[0]["patient_id"] == CANARIES["PatientID"]
    with pytest.raises(pyrage.DecryptError):
        pyrage.decrypt(content, [pyrage.x25519.Identity.generate()])


@pytest.mark.parametrize("recipients", [[], ["age1nonsense"], [RECIPIENT, ""]])
def test_without_a_recipient_there_is_none(recipients: list[str]) -> None:
    with pytest.raises(Misconfigured):
        encrypted([], recipients)


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    place = tmp_path / "crosswalk.age"
    write_new(place, b"first")
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    with pytest.raises(Failed):
        write_new(place, b"second")
    assert place.read_bytes() == b"first"


def test_a_patient_id_in_another_character_set_is_the_workers(tmp_path: Path) -> None:
    dataset = radiograph_dataset(PatientID="MÜLLER-1")
    dataset.SpecificCharacterSet = "ISO_IR 100"
    (tmp_path / "a.dcm").write_bytes(write(dataset))
    (row,) = of(tmp_path)
    assert row.patient_id == "MÜLLER-1"
    assert row.pseudonym == deidentify(reread(dataset), PSEUDONYMS, PROVENANCE).PatientID


@pytest.mark.parametrize(
    ("sets", "written"),
    [
        (["ISO_IR 192", "ISO 2022 IR 87"], "M\xfcller".encode()),
        (["ISO_IR 100"], b"A \\B "),
        (["ISO_IR 13"], b"\x1b$B;3ED\x1b(B12"),
        (["FOO"], b"\x1b$B;3ED\x1b(B12"),
    ],
)
def test_a_patient_id_that_can_be_read_in_two_ways_is_read_as_the_worker_does(
    tmp_path: Path, sets: list[str], written: bytes
) -> None:
    dataset = radiograph_dataset(PatientID="Z" * 16)
    content = write(dataset).replace(b"Z" * 16, written.ljust(16))
    declared = "\\".join(sets).encode().ljust(30)
    start = content.index(b"\x08\x00\x16\x00UI")  # SOPClassUID comes after it
    content = content[:start] + b"\x08\x00\x05\x00CS\x1e\x00" + declared + content[start:]
    (tmp_path / "a.dcm").write_bytes(content)
    source = inspection.read(content)
    result = deidentify(source, PSEUDONYMS, PROVENANCE)
    (row,) = of(tmp_path)
    assert row.pseudonym == result.PatientID
    with without_noise():
        orthanc = orthanc_with(dcmread(io.BytesIO(content)))
    with orthanc as client:
        assert list(of_orthanc(client, PSEUDONYMS, BASIC, Skipped())) == [row]


def test_a_crosswalk_that_cannot_be_written_whole_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Failed):
        write_new(tmp_path / "crosswalk.age", b"half of it")
    assert not list(tmp_path.iterdir())


def test_an_accession_number_is_its_issuers(tmp_path: Path) -> None:
    issuer = Dataset()
    issuer.LocalNamespaceEntityID = "HOSP1"
    dataset = radiograph_dataset(IssuerOfAccessionNumberSequence=Sequence([issuer]))
    (tmp_path / "a.dcm").write_bytes(write(dataset))
    (row,) = of(tmp_path)
    expected = PSEUDONYMS.accession_number(CANARIES["AccessionNumber"], "HOSP1")
    assert row.pseudonymous_accession_number == expected
    with orthanc_with(dataset) as client:
        assert list(of_orthanc(client, PSEUDONYMS, BASIC, Skipped())) == [row]


def orthanc_with(dataset: Dataset) -> OrthancClient:
    transport = httpx.MockTransport(answering(dataset))
    return OrthancClient("Orthanc", "http://h", "u", "p", transport=transport)


def answering(dataset: Dataset) -> Callable[[httpx.Request], httpx.Response]:
    source = reread(dataset)

    def answer(request: httpx.Request) -> httpx.Response:
        match request.url.path.strip("/").split("/"):
            case ["studies"]:
                return httpx.Response(200, json=["study", "gone"])
            case ["studies", "study"]:
                return httpx.Response(200, json={"Series": ["series"]})
            case ["series", "series"]:
                return httpx.Response(200, json={"Instances": ["instance"]})
            case ["instances", "instance", "content", tag, "0", inner]:
                items = source.get(int(tag.replace("-", ""), 16))
                number = int(inner.replace("-", ""), 16)
                if items is not None and number in items[0]:
                    return httpx.Response(200, content=str(items[0][number].value).encode())
            case ["instances", "instance", "content", tag]:
                number = int(tag.replace("-", ""), 16)
                if number in source:
                    value = source.get_item(number).value
                    if not isinstance(value, bytes):  # pydicom reads the character set at once
                        value = "\\".join([value] if isinstance(value, str) else value).encode()
                    return httpx.Response(200, content=value)
        return httpx.Response(404)

    return answer


@contextmanager
def guarded(dataset: Dataset) -> Iterator[str]:
    """Serve what ``orthanc_with`` holds behind the plugin's filter, to whom it lets in."""
    answer = answering(dataset)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            let_in = allows(self.path, method=1, headers=headers, worker_user="worker")
            asked = httpx.Request("GET", f"http://h{self.path}")
            answered = answer(asked) if let_in else httpx.Response(403)
            self.send_response(answered.status_code)
            self.send_header("Content-Length", str(len(answered.content)))
            self.end_headers()
            self.wfile.write(answered.content)

        def log_message(self, *_arguments: object) -> None:
            pass

    with serving(Handler) as url:
        yield url


WORKER = """
[ingest]
url = "{url}"
user = "worker"
password_file = "{secrets}/worker.password"
[broker]
url = "redis://127.0.0.1:1/0"
[export]
kind = "orthanc"
url = "http://127.0.0.1:1"
user = "gateway"
password_file = "{secrets}/export.password"
[pseudonyms]
key_file = "{secrets}/pseudonyms.key"
[model]
bundle = "{secrets}"
"""


@pytest.mark.parametrize("named", [False, True], ids=["of serve", "another gateway's user"])
def test_the_ingest_orthancs_crosswalk_is_read_as_somebody_whom_the_plugin_lets_in(
    tmp_path: Path, named: bool
) -> None:
    home = Home(tmp_path / "home")
    home.prepare()
    dataset = radiograph_dataset()
    words = ["crosswalk", str(tmp_path / "out.age"), "--recipient", RECIPIENT]
    words += ["--home", str(home.root)]
    with guarded(dataset) as url, home.locked():
        text = WORKER.format(url=url, secrets=home.folder("secrets"))
        (home.folder("worker") / "worker.toml").write_text(text)
        if named:
            words += ["--user", "ada", "--password-file", str(home.password_file("admin"))]
        else:
            us = RunningProcess("prichexy", os.getpid(), 1)
            home.write_record(Record(Addresses(url, "", 1, "", "", ""), "", us))
        done = CliRunner().invoke(create_app(), words)
    assert done.exception is None, done.output
    [row] = rows_of((tmp_path / "out.age").read_bytes())
    assert row["patient_id"] == CANARIES["PatientID"]


def test_the_ingest_orthancs_studies_have_the_rows_of_their_files(tmp_path: Path) -> None:
    dataset = radiograph_dataset(PatientID="MÜLLER-1")
    dataset.SpecificCharacterSet = "ISO_IR 100"
    (tmp_path / "a.dcm").write_bytes(write(dataset))
    skipped = Skipped()
    with orthanc_with(dataset) as client:
        assert list(of_orthanc(client, PSEUDONYMS, BASIC, skipped)) == of(tmp_path)
    assert skipped.count == 0


def test_what_has_no_identifier_is_counted(tmp_path: Path) -> None:
    dataset = radiograph_dataset()
    del dataset.StudyInstanceUID
    (tmp_path / "a.dcm").write_bytes(write(dataset))
    skipped = Skipped()
    assert list(of_files(find_dicom_files(tmp_path).files, PSEUDONYMS, BASIC, skipped)) == []
    assert skipped.count == 1


def test_the_gateway_notes_a_crosswalk_before_it_can_be_read(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.prepare()
    (tmp_path / "originals").mkdir()
    (tmp_path / "originals" / "a.dcm").write_bytes(write(radiograph_dataset()))
    words = ["crosswalk", str(tmp_path / "out.age"), "--recipient", RECIPIENT]
    words += ["--source", str(tmp_path / "originals"), "--key-file", str(home.key_file)]
    (home.root / "deeds.jsonl").mkdir()
    refused = CliRunner().invoke(create_app(), [*words, "--home", str(home.root)])
    assert "cannot be noted" in str(refused.exception)
    assert not (tmp_path / "out.age").exists()
    (home.root / "deeds.jsonl").rmdir()
    done = CliRunner().invoke(create_app(), [*words, "--home", str(home.root)])
    assert done.exit_code == 0, done.output
    [deed] = noted(home)
    assert (deed.action, deed.studies, deed.recipients) == ("crosswalk", 1, 1)
    assert deed.key_id == Pseudonyms.from_key_file(home.key_file).key_id
    assert stat.S_IMODE((home.root / "deeds.jsonl").stat().st_mode) == 0o600
    text = (home.root / "deeds.jsonl").read_text()
    assert [value for value in canary_values() if value in text] == []
    words[1] = str(tmp_path / "other.age")
    alone = CliRunner().invoke(create_app(), [*words, "--home", str(tmp_path / "none")])
    assert alone.exit_code == 0
    assert "no audit trail has this" in alone.output
