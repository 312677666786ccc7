"""Two names of export targets for one place."""

from __future__ import annotations

from pathlib import Path

import pytest

from prichexy_worker.target_places import check_places
from prichexy_worker.target_settings import DicomNode, Dicomweb, Folder, OrthancPeer, PngFolder

INGEST = "http://ingest.example:8042"


def orthanc(url: str, **keys: object) -> OrthancPeer:
    return OrthancPeer.model_validate({"kind": "orthanc", "url": url, **keys})


def dicomweb(url: str, **keys: object) -> Dicomweb:
    return Dicomweb.model_validate({"kind": "dicomweb", "url": url, **keys})


def folder(path: Path) -> Folder:
    return Folder(kind="folder", folder=path)


@pytest.mark.parametrize(
    "targets",
    [
        [orthanc("https://pacs.example"), orthanc("https://PACS.example:443/", user="another")],
        [orthanc("http://pacs.example/a"), orthanc("http://pacs.example:80/a")],
        [orthanc("http://pacs.example"), dicomweb("http://pacs.example/dicom-web")],
        [dicomweb("http://pacs.example/dw", delete=True), dicomweb("http://pacs.example/dw")],
        [folder(Path("/nowhere/a")), folder(Path("/nowhere/b/../a/"))],
        [PngFolder(kind="png", folder=Path("/nowhere/a")), folder(Path("/nowhere/a"))],
    ],
)
def test_one_place_has_one_name(targets: list[Folder | OrthancPeer | Dicomweb]) -> None:
    for pair in (targets, targets[::-1]):
        with pytest.raises(ValueError, match=r"^targets.x and targets.z are one place") as error:
            check_places({"x": pair[0], "y": folder(Path("/nowhere/else")), "z": pair[1]}, INGEST)
        assert "pacs.example" not in str(error.value)


def test_a_folder_by_another_way_is_the_same_folder(tmp_path: Path) -> None:
    (tmp_path / "share").mkdir()
    (tmp_path / "link").symlink_to("share")
    with pytest.raises(ValueError, match="one place"):
        check_places({"x": folder(tmp_path / "share"), "z": folder(tmp_path / "link")}, INGEST)


@pytest.mark.parametrize(
    ("ingest", "target"),
    [
        ("http://ingest.example:8042", orthanc("http://INGEST.example:8042/", user="another")),
        ("https://ingest.example", orthanc("https://ingest.example:443")),
        ("http://ingest.example:8042", dicomweb("http://ingest.example:8042/dicom-web")),
        ("http://front.example/ingest/", orthanc("http://front.example/ingest")),
    ],
)
def test_no_result_goes_to_where_the_originals_are(
    ingest: str, target: OrthancPeer | Dicomweb
) -> None:
    with pytest.raises(ValueError, match=r"^the export target x is the ingest Orthanc") as error:
        check_places({"y": folder(Path("/nowhere")), "x": target}, ingest)
    assert "example" not in str(error.value)


def test_what_may_well_be_two_places_is_taken() -> None:
    node = {"kind": "dicom", "host": "pacs.example", "port": 104, "called_aet": "PACS"}
    check_places(
        {
            "a": orthanc("http://pacs.example/a"),
            "b": orthanc("http://pacs.example/b"),
            "c": orthanc("http://pacs.example:8042/a"),
            "d": dicomweb("http://pacs.example/ab"),
            "e": dicomweb("http://pacs.example/ab", user="another", password="p"),
            "f": folder(Path("/nowhere/a")),
            "g": folder(Path("/nowhere/a/b")),
            "h": DicomNode.model_validate(node),
            "i": DicomNode.model_validate({**node, "calling_aet": "ANOTHER"}),
            "j": orthanc("http://front.example/export"),
            "k": orthanc("http://front.example:8043/ingest"),
        },
        "http://front.example/ingest",
    )
