"""DicomwebExport against Orthanc's DICOMweb plugin, and against servers that answer oddly."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prichexy_testing.deleting_front import deleting_front
from prichexy_testing.dicoms import radiograph_dataset, write
from prichexy_testing.fakes_worker import EVERYTHING
from prichexy_testing.servers import OrthancServer, free_port, running_dicomweb
from prichexy_worker.contract import Reason
from prichexy_worker.errors import Retryable
from prichexy_worker.export import DicomwebExport, create_target
from prichexy_worker.export.dicomweb import BearerFile
from prichexy_worker.export.multipart import MultipartError, pack, unpack
from prichexy_worker.ports import Anonymized
from prichexy_worker.sent import Sent
from prichexy_worker.target_settings import Dicomweb

Make = Callable[..., DicomwebExport]
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"


@pytest.fixture(scope="module")
def server() -> Iterator[OrthancServer]:
    with running_dicomweb() as server:
        yield server


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    """Close the connections that a test opened."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def plain(server: OrthancServer, opened: ExitStack) -> Iterator[Make]:
    """Make targets of the plugin itself, which does not delete; what they stored goes after."""

    def make(**options: object) -> DicomwebExport:
        login = {"user": server.user, "password": server.password}
        section = {"kind": "dicomweb", "url": f"{server.url}/dicom-web", **login, **options}
        target = create_target(Dicomweb.model_validate(section))
        assert isinstance(target, DicomwebExport)
        opened.callback(target.close)
        return target

    yield make
    _empty(server)


@pytest.fixture
def deleting(server: OrthancServer, opened: ExitStack) -> Iterator[DicomwebExport]:
    """A target that takes DELETE."""
    section = {"kind": "dicomweb", "url": opened.enter_context(deleting_front(server))}
    target = create_target(Dicomweb.model_validate({**section, "delete": True}))
    assert isinstance(target, DicomwebExport)
    opened.callback(target.close)
    yield target
    _empty(server)


def _empty(server: OrthancServer) -> None:
    for name in server.get("/studies").json():
        server.delete(f"/studies/{name}")


def instance(
    sop: str = "2.25.103",
    text: str = "one",
    study: str = "2.25.101",
    series: str = "2.25.102",
    **attributes: object,
) -> Anonymized:
    made_by = {"DeidentificationMethod": ["Basic", "PriCheXy gateway 0.0.9"], **attributes}
    dataset = radiograph_dataset(identity={}, rows=16, columns=16, **made_by)
    dataset.PatientID = str(attributes.get("PatientID", "PSEUDO-1"))
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = sop
    dataset.DerivationDescription = text
    return Anonymized("PSEUDO-1", study, series, sop, write(dataset))


def differing(target: DicomwebExport, *kept: Anonymized) -> list[tuple[str, ...]]:
    return list(target.differences(kept))


# --- a server that does not delete ----------------------------------------------------------


@pytest.mark.orthanc
def test_what_is_stored_is_read_back_byte_for_byte(plain: Make) -> None:
    target, sent = plain(), instance()
    assert target.fetch(sent) is None
    assert differing(target, sent) == [("missing",)]
    target.store(sent)
    assert target.fetch(sent) == sent.content
    assert differing(target, sent) == [()]


@pytest.mark.orthanc
def test_without_delete_nothing_is_ever_taken_back(plain: Make, server: OrthancServer) -> None:
    target, sent = plain(), instance()
    assert not target.recalls
    target.store(sent)
    target.withdraw(sent)
    target.withdraw_study(sent.study_uid, EVERYTHING)
    target.withdraw_others([instance("2.25.104")], EVERYTHING)
    assert target.fetch(sent) == sent.content
    assert "DELETE" not in server.log()


@pytest.mark.orthanc
def test_the_check_passes_and_stores_nothing(plain: Make, server: OrthancServer) -> None:
    plain().check()
    assert server.get("/instances").json() == []


@pytest.mark.orthanc
def test_a_wrong_password_is_a_refusal(plain: Make) -> None:
    target = plain(password="wrong")
    for act in (target.check, lambda: target.store(instance())):
        with pytest.raises(Retryable, match="401") as error:
            act()
        assert error.value.reason is Reason.TARGET_REFUSED


@pytest.mark.orthanc
def test_an_address_without_dicomweb_is_no_target(plain: Make, server: OrthancServer) -> None:
    target = plain(url=f"{server.url}/dicom")
    for act in (target.check, lambda: target.store(instance())):
        with pytest.raises(Retryable, match="not a DICOMweb server"):
            act()


@pytest.mark.orthanc
def test_what_is_no_dicom_is_refused(plain: Make) -> None:
    with pytest.raises(Retryable) as error:
        plain().store(replace(instance(), content=b"no DICOM"))
    assert error.value.reason is Reason.TARGET_REFUSED


def test_a_server_that_does_not_listen_is_unreachable(opened: ExitStack) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    target = create_target(Dicomweb(kind="dicomweb", url=url, delete=True))
    assert isinstance(target, DicomwebExport)
    opened.callback(target.close)
    acts = (
        target.check,
        lambda: target.store(instance()),
        lambda: target.holds(instance()),
        lambda: target.fetch(instance()),
        lambda: target.withdraw(instance()),
        lambda: target.withdraw_study("2.25.101", EVERYTHING),
        lambda: target.withdraw_others([instance()], EVERYTHING),
    )
    for act in acts:
        with pytest.raises(Retryable) as error:
            act()
        assert error.value.reason is Reason.TARGET_UNREACHABLE
        assert "127.0.0.1" not in str(error.value)


# --- a server that deletes ------------------------------------------------------------------


@pytest.mark.orthanc
def test_an_instance_sent_again_replaces_the_earlier_bytes(
    deleting: DicomwebExport, server: OrthancServer
) -> None:
    first, second = instance(), instance(text="another")
    for sent in (first, second, second, first):
        deleting.store(sent)
        assert deleting.fetch(sent) == sent.content
    assert len(server.get("/instances").json()) == 1


@pytest.mark.orthanc
def test_withdrawing_may_be_repeated_and_takes_only_its_instance(deleting: DicomwebExport) -> None:
    first, second = instance(), instance("2.25.104")
    deleting.store(first)
    deleting.store(second)
    for _ in range(2):
        deleting.withdraw(first)
        assert not deleting.holds(first)
        assert deleting.holds(second)


@pytest.mark.orthanc
def test_withdrawing_a_study_takes_all_of_it_and_no_other(deleting: DicomwebExport) -> None:
    study, other = instance(), instance("2.25.203", study="2.25.201", series="2.25.202")
    for sent in (study, instance("2.25.104"), other):
        deleting.store(sent)
    for _ in range(2):
        deleting.withdraw_study(study.study_uid, EVERYTHING)
        assert not deleting.holds(study)
        assert deleting.holds(other)


@pytest.mark.orthanc
def test_the_studys_other_images_of_ours_are_withdrawn_and_nothing_else(
    deleting: DicomwebExport,
) -> None:
    kept = [instance(f"2.25.{number}") for number in (3, 4)]
    stay = [
        instance("2.25.5", SOPClassUID=SEGMENTATION),
        instance("2.25.6", DeidentificationMethod="by another program"),
        instance("2.25.7", series="2.25.112", PatientID="ANOTHER"),
        instance("2.25.8", study="2.25.201", series="2.25.202"),
    ]
    lost = [instance("2.25.9"), instance("2.25.10", series="2.25.122")]
    for sent in (*kept, *stay, *lost):
        deleting.store(sent)
    for _ in range(2):
        deleting.withdraw_others(kept, EVERYTHING)
        assert [one.sop_uid for one in (*kept, *stay) if not deleting.holds(one)] == []
        assert [one.sop_uid for one in lost if deleting.holds(one)] == []


@pytest.mark.orthanc
def test_another_patients_images_are_of_another_study(deleting: DicomwebExport) -> None:
    ours = {"DeidentificationMethod": ["Basic", "PriCheXy gateway 0.0.9"]}
    wrong = replace(instance("2.25.3", PatientID="WRONG", **ours), patient_id="WRONG")
    right = instance("2.25.4", series="2.25.112", **ours)
    for one in (wrong, right):
        deleting.store(one)
    for _ in range(2):
        assert deleting.withdraw_study(wrong.study_uid, Sent().with_these([wrong]))
        assert [deleting.holds(one) for one in (wrong, right)] == [False, True]
    assert deleting.withdraw_study(right.study_uid, Sent().with_these([right]))
    assert not deleting.holds(right)


# --- answers --------------------------------------------------------------------------------

Answer = Callable[[httpx.Request], httpx.Response]


def answering(answer: Answer, opened: ExitStack, *, deletes: bool = True) -> DicomwebExport:
    """A target whose server answers so."""
    client = httpx.Client(base_url="http://server/dw", transport=httpx.MockTransport(answer))
    opened.callback(client.close)
    return DicomwebExport(client, deletes=deletes)


def stowed(status: int, body: object) -> Answer:
    """Answer so to STOW-RS, and that nothing is there to all else."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method != "POST":
            return httpx.Response(404)
        return httpx.Response(status, content=json.dumps(body).encode())

    return answer


def sequence(*uids: str) -> dict[str, object]:
    return {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": [uid]}} for uid in uids]}


def test_an_instance_that_the_answer_names_as_stored_is_stored(opened: ExitStack) -> None:
    answering(stowed(200, {"00081199": sequence("2.25.103")}), opened).store(instance())


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, {}),
        (200, []),
        (200, None),
        (200, "2.25.103"),
        (200, {"00081199": sequence("2.25.104")}),
        (202, {"00081198": sequence("2.25.103")}),
        (202, {"00081198": sequence("2.25.103"), "00081199": sequence("2.25.103")}),
        (409, {"00081198": sequence("2.25.103")}),
        (401, {}),
        (307, {}),
    ],
)
def test_anything_else_is_no_storage(status: int, body: object, opened: ExitStack) -> None:
    with pytest.raises(Retryable) as error:
        answering(stowed(status, body), opened).store(instance())
    assert error.value.reason is Reason.TARGET_REFUSED
    assert "2.25" not in str(error.value)


def test_what_the_server_holds_already_is_not_sent_again(opened: ExitStack) -> None:
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.method)
        media_type, body = pack(instance().content)
        return httpx.Response(200, content=body, headers={"Content-Type": media_type})

    answering(answer, opened).store(instance())
    assert asked == ["GET"]


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_proxy_without_its_server_is_unreachable(status: int, opened: ExitStack) -> None:
    with pytest.raises(Retryable) as error:
        answering(lambda _: httpx.Response(status), opened).check()
    assert error.value.reason is Reason.TARGET_UNREACHABLE


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"[1, 2]", b"no JSON", b"\xff"])
def test_an_answer_that_cannot_be_understood_is_no_proof(body: bytes, opened: ExitStack) -> None:
    target = answering(lambda _: httpx.Response(200, content=body), opened)
    for act in (lambda: target.holds(instance()), lambda: target.fetch(instance())):
        with pytest.raises(Retryable) as error:
            act()
        assert error.value.reason is Reason.TARGET_REFUSED


def test_a_study_that_went_meanwhile_has_no_others(opened: ExitStack) -> None:
    for response in (httpx.Response(204), httpx.Response(404), httpx.Response(200, json=[])):
        answering(lambda _, response=response: response, opened).withdraw_others(
            [instance()], EVERYTHING
        )


@pytest.mark.parametrize("uid", ["..", "", "2.25.1/../2.25.2", "2.25.1?x", "*"])
def test_nothing_but_uids_stands_in_an_address(uid: str, opened: ExitStack) -> None:
    def answer(_request: httpx.Request) -> httpx.Response:
        pytest.fail("asked")

    target = answering(answer, opened)
    acts = (
        lambda: target.withdraw_study(uid, EVERYTHING),
        lambda: target.withdraw(replace(instance(), study_uid=uid)),
        lambda: target.store(replace(instance(), sop_uid=uid)),
        lambda: target.withdraw_others([replace(instance(), study_uid=uid)], EVERYTHING),
    )
    for act in acts:
        with pytest.raises(Retryable):
            act()


# --- login and parts ------------------------------------------------------------------------


def test_a_renewed_token_is_used_with_the_next_request(tmp_path: Path, opened: ExitStack) -> None:
    file = tmp_path / "token"
    seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["Authorization"])
        return httpx.Response(200, json=[])

    client = httpx.Client(
        base_url="http://server", auth=BearerFile(file), transport=httpx.MockTransport(answer)
    )
    target = DicomwebExport(opened.enter_context(client), deletes=False)
    for token in ("first\n", "second"):
        file.write_text(token)
        target.check()
    assert seen == ["Bearer first", "Bearer second"]
    file.unlink()
    with pytest.raises(Retryable, match="token_file: FileNotFoundError"):
        target.check()


@pytest.mark.parametrize(
    "login",
    [{"user": "u"}, {"password": "p"}, {"user": "u", "password": "p", "token_file": "/t"}],
)
def test_a_login_is_whole_and_one(login: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="given"):
        Dicomweb.model_validate({"kind": "dicomweb", "url": "https://x", **login})


@given(st.binary())
def test_a_file_survives_being_packed(content: bytes) -> None:
    assert unpack(*pack(content)) == (content,)


@given(st.data())
def test_half_an_answer_is_none(data: st.DataObject) -> None:
    media_type, body = pack(b"the content of a file")
    cut = data.draw(st.integers(0, len(body) - len("--\r\n") - 1))
    with pytest.raises(MultipartError):
        unpack(media_type, body[:cut])


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        ("application/dicom", b"DICM"),
        ("multipart/related", b"--x\r\n\r\ncontent\r\n--x--"),
        ("multipart/related; boundary=x", b"text\r\n--x\r\n\r\ncontent\r\n--x--"),
        ("multipart/related; boundary=x", b"--x content\r\n--x--"),
        ("", b""),
    ],
)
def test_what_is_no_multipart_is_refused(media_type: str, body: bytes) -> None:
    with pytest.raises(MultipartError):
        unpack(media_type, body)


def test_several_parts_are_several_files() -> None:
    body = b"--x\r\n\r\none\r\n--x\r\nContent-Type: application/dicom\r\n\r\n\r\ntwo\r\n--x--\r\n"
    assert unpack('multipart/related; boundary="x"', body) == (b"one", b"\r\ntwo")
