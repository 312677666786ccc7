"""C-STORE to a real Orthanc: one bad object does not keep the others back."""

from pathlib import Path

import pytest

from prichexy_gateway.dicom_files import find_dicom_files
from prichexy_gateway.errors import Failed
from prichexy_gateway.sending import send
from prichexy_testing.dicoms import radiograph_dataset, write
from prichexy_testing.servers import free_port, running_orthanc

pytestmark = pytest.mark.orthanc

#: An element of one byte: the standard allows even lengths only, and DCMTK ends the association.
ODD = b"\xfc\xff\xfc\xffOB\x00\x00\x01\x00\x00\x00\x00"


def _object(path: Path, number: int, after: bytes = b"") -> None:
    uids = {"StudyInstanceUID": "1.2.3", "SOPInstanceUID": f"1.2.3.{number}"}
    path.write_bytes(write(radiograph_dataset(**uids)) + after)


def test_an_object_that_ends_the_association_is_refused_and_the_others_are_taken(tmp_path):
    _object(tmp_path / "1", 1)
    _object(tmp_path / "2", 2, after=ODD)
    _object(tmp_path / "3", 3)
    port = free_port()
    settings = {"DicomServerEnabled": True, "DicomPort": port, "DicomAlwaysAllowStore": True}
    # It waits so long for the rest of the object, and for a sender whom the machine holds up.
    with running_orthanc(**settings, DicomScpTimeout=10) as orthanc:
        sent = send(find_dicom_files(tmp_path).files, "127.0.0.1", port, "ORTHANC", "SENDER")
        assert (sent.stored, sent.refused) == (2, 1)
        assert "1 object was refused (1: the server ended the association" in (
            sent.refused_sentence()
        )
        assert len(orthanc.get("/instances").json()) == 2


# pynetdicom leaves the socket of a refused connection to the garbage collector.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:")
def test_without_a_server_the_sender_is_told_what_to_look_at(tmp_path):
    _object(tmp_path / "1", 1)
    with pytest.raises(Failed, match="does not answer"):
        send(find_dicom_files(tmp_path).files, "127.0.0.1", free_port(), "ORTHANC", "SENDER")


def test_an_object_of_a_kind_that_the_server_does_not_take_is_refused_with_the_reason(tmp_path):
    _object(tmp_path / "1", 1)
    private = radiograph_dataset(SOPInstanceUID="1.2.3.2", SOPClassUID="1.2.3.4.5")
    (tmp_path / "2").write_bytes(write(private))
    port = free_port()
    settings = {"DicomServerEnabled": True, "DicomPort": port, "DicomAlwaysAllowStore": True}
    with running_orthanc(**settings):
        sent = send(find_dicom_files(tmp_path).files, "127.0.0.1", port, "ORTHANC", "SENDER")
    assert sent.stored == 1
    assert sent.refused_sentence() == (
        "1 object was refused (1: the server takes no objects of this kind)."
    )
