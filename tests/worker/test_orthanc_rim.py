"""OrthancSource and OrthancExport against a real Orthanc with authentication."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pydicom
import pyorthanc
import pytest

from prichexy_gateway.home import checkout
from prichexy_testing.dicoms import radiograph_dataset, write
from prichexy_testing.fakes_worker import EVERYTHING, STUDY_ID
from prichexy_testing.servers import OrthancServer, free_port, running_orthanc, wait_until
from prichexy_worker.contract import PatientsAsked, Reason
from prichexy_worker.errors import Misconfigured, Rejected, Retryable, StudyError
from prichexy_worker.export import OrthancExport
from prichexy_worker.export.orthanc import orthanc_instance_id
from prichexy_worker.orthanc_client import connect
from prichexy_worker.orthanc_source import OrthancSource
from prichexy_worker.ports import Anonymized
from prichexy_worker.reporting import PluginReporter
from prichexy_worker.sent import Sent, older_mark_of

pytestmark = pytest.mark.orthanc


#: What the shipped export Orthanc keeps its workers' user from.
FILTER = checkout() / "orthanc-config" / "export-filter.lua"
WORKER = ("gateway", "the-workers-password")


@pytest.fixture(scope="module")
def server() -> Iterator[OrthancServer]:
    with running_orthanc(users=dict([WORKER]), LuaScripts=[str(FILTER)]) as server:
        yield server


@pytest.fixture(scope="module")
def keeping_server() -> Iterator[OrthancServer]:
    """An Orthanc that does not overwrite: it answers AlreadyStored."""
    users = dict([WORKER])
    with running_orthanc(users=users, LuaScripts=[str(FILTER)], OverwriteInstances=False) as server:
        yield server


@pytest.fixture(autouse=True)
def _clients() -> Iterator[None]:
    """Close the connections that a test opened."""
    yield
    while OPEN:
        OPEN.pop().close()


OPEN: list[httpx.Client] = []


def client(url: str, user: str = "u", password: str = "p") -> pyorthanc.Orthanc:
    opened = connect(url, user, password, None, 30)
    OPEN.append(opened)
    return opened


def source_of(server: OrthancServer, password: str | None = None) -> OrthancSource:
    return OrthancSource(client(server.url, server.user, password or server.password))


def export_to(server: OrthancServer, password: str | None = None) -> OrthancExport:
    """Give the export as a worker has it."""
    user, right = WORKER
    return OrthancExport(client(server.url, user, password or right))


def instance(
    sop: str = "2.25.103",
    *,
    seed_text: str = "one",
    study: str = "2.25.101",
    patient: str = "PSEUDO-1",
    **attributes: object,
) -> Anonymized:
    dataset = radiograph_dataset(identity={}, rows=16, columns=16, **attributes)
    dataset.PatientID, dataset.PatientName = patient, "PSEUDO"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, "2.25.102"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = sop
    dataset.DerivationDescription = seed_text
    return Anonymized(patient, study, "2.25.102", sop, write(dataset))


def ids(server: OrthancServer) -> set[str]:
    return set(server.get("/instances").json())


def reason_of(error: pytest.ExceptionInfo[StudyError]) -> Reason:
    text = str(error.value)
    assert "127.0.0.1" not in text
    assert "2.25" not in text
    return error.value.reason


# --- export -----------------------------------------------------------------


def test_what_is_stored_is_read_back_byte_for_byte(server: OrthancServer) -> None:
    target, sent = export_to(server), instance()
    target.store(sent)
    assert target.fetch(sent) == sent.content
    target.withdraw(sent)


def test_orthanc_names_an_instance_as_we_expect(server: OrthancServer) -> None:
    target, sent = export_to(server), instance()
    target.store(sent)
    name = orthanc_instance_id(sent.patient_id, sent.study_uid, sent.series_uid, sent.sop_uid)
    assert name in ids(server)
    target.withdraw(sent)
    assert name not in ids(server)


@pytest.mark.parametrize("kind", ["server", "keeping_server"])
def test_an_instance_sent_again_replaces_the_earlier_bytes(
    kind: str, request: pytest.FixtureRequest
) -> None:
    server: OrthancServer = request.getfixturevalue(kind)
    target, first, second = export_to(server), instance(), instance(seed_text="another")
    for sent in (first, second, second, first):
        target.store(sent)
        assert target.fetch(sent) == sent.content
        assert len(ids(server)) == 1
    target.withdraw(first)


def test_withdrawing_may_be_repeated_and_takes_only_its_instance(server: OrthancServer) -> None:
    target, first, second = export_to(server), instance(), instance("2.25.104")
    target.store(first)
    target.store(second)
    for _ in range(2):
        target.withdraw(first)
        assert target.fetch(first) is None
    assert target.fetch(second) == second.content
    target.withdraw(second)
    assert ids(server) == set()


def test_withdrawing_a_study_takes_all_of_it_and_no_other(server: OrthancServer) -> None:
    target, other = export_to(server), instance("2.25.203", study="2.25.201")
    for sent in (instance(), instance("2.25.104"), other):
        target.store(sent)
    for _ in range(2):
        target.withdraw_study("2.25.101", EVERYTHING)
        assert len(ids(server)) == 1
    assert target.fetch(other) == other.content
    target.withdraw_study("2.25.102", EVERYTHING)  # a series' UID is no study's
    assert target.fetch(other) == other.content
    target.withdraw_study("2.25.201", EVERYTHING)
    assert ids(server) == set()


def test_the_studys_other_images_of_ours_are_withdrawn_and_nothing_else(
    server: OrthancServer,
) -> None:
    target = export_to(server)
    ours = ["DICOM PS3.15 Basic Profile", "PriCheXy gateway 0.0.9"]
    kept = [instance("2.25.103"), instance("2.25.104")]
    lost = instance("2.25.105", DeidentificationMethod=ours)
    stay = [
        instance(
            "2.25.106", DeidentificationMethod=ours, SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4"
        ),
        instance("2.25.107", DeidentificationMethod="by another program"),
        instance("2.25.108", study="2.25.201", DeidentificationMethod=ours),
    ]
    another = instance("2.25.109", patient="PSEUDO-2", DeidentificationMethod=ours)
    for sent in (*kept, lost, *stay, another):
        target.store(sent)
    for _ in range(2):
        target.withdraw_others(kept, EVERYTHING)
        assert [one for one in (*kept, *stay, another) if target.fetch(one) is None] == []
        assert target.fetch(lost) is None
    target.withdraw_study("2.25.101", EVERYTHING)
    target.withdraw_study("2.25.201", EVERYTHING)
    assert ids(server) == set()


def test_what_another_gateway_sent_of_the_study_stays(server: OrthancServer) -> None:
    target, ours = export_to(server), ["PriCheXy gateway 0.0.9"]
    kept, lost, theirs = (
        instance(f"2.25.{n}", DeidentificationMethod=ours) for n in (103, 104, 105)
    )
    for one in (kept, lost, theirs):
        target.store(one)
    sent = Sent().with_these([kept, lost])
    target.withdraw_others([kept], sent)
    assert [target.fetch(one) is None for one in (kept, lost, theirs)] == [False, True, False]
    for _ in range(2):
        assert not target.withdraw_study("2.25.101", sent)
        assert target.fetch(theirs) == theirs.content
        assert len(ids(server)) == 1
    assert target.withdraw_study("2.25.101", Sent().with_these([theirs]))
    assert ids(server) == set()


def test_a_corrected_patient_id_is_another_study(server: OrthancServer) -> None:
    target, ours = export_to(server), ["PriCheXy gateway 0.0.9"]
    wrong = instance(DeidentificationMethod=ours)
    right = instance(patient="PSEUDO-2", DeidentificationMethod=ours)
    for one in (wrong, right):
        target.store(one)
    for _ in range(2):
        assert target.withdraw_study("2.25.101", Sent().with_these([wrong]))
        assert target.fetch(wrong) is None
        assert target.fetch(right) == right.content
    assert target.withdraw_study("2.25.101", Sent().with_these([right]))
    assert ids(server) == set()


def test_what_older_software_had_sent_is_removed_where_it_can_only_be_that(
    server: OrthancServer,
) -> None:
    target, ours = export_to(server), ["PriCheXy gateway 0.0.9"]
    one = instance(DeidentificationMethod=ours)
    another = instance(patient="PSEUDO-2", DeidentificationMethod=ours)
    sent = Sent(frozenset({older_mark_of(one.sop_uid)}))
    target.store(one)
    target.store(another)
    assert not target.withdraw_study("2.25.101", sent)
    assert len(ids(server)) == 2
    target.withdraw(another)
    assert target.withdraw_study("2.25.101", sent)
    assert ids(server) == set()


def test_a_target_that_would_name_the_instance_otherwise_keeps_nothing(
    server: OrthancServer,
) -> None:
    sent = replace(instance(), patient_id="NOT-THE-ONE-INSIDE")
    with pytest.raises(Retryable) as error:
        export_to(server).store(sent)
    assert reason_of(error) is Reason.TARGET_REFUSED
    assert ids(server) == set()


def test_bytes_that_are_no_dicom_are_refused_by_the_target(server: OrthancServer) -> None:
    with pytest.raises(Retryable) as error:
        export_to(server).store(replace(instance(), content=b"no DICOM"))
    assert reason_of(error) is Reason.TARGET_REFUSED


def test_a_wrong_password_is_a_refusal_by_the_target(server: OrthancServer) -> None:
    target = export_to(server, "wrong")
    for act in (target.check, lambda: target.store(instance())):
        with pytest.raises(Retryable) as error:
            act()
        assert reason_of(error) is Reason.TARGET_REFUSED
        assert "401" in error.value.detail


def test_the_check_passes_with_the_right_password_and_stores_nothing(
    server: OrthancServer,
) -> None:
    export_to(server).check()
    assert ids(server) == set()


def test_a_target_that_does_not_listen_is_unreachable() -> None:
    target = OrthancExport(client(f"http://127.0.0.1:{free_port()}"))
    acts = (
        target.check,
        lambda: target.store(instance()),
        lambda: target.fetch(instance()),
        lambda: target.withdraw(instance()),
        lambda: target.withdraw_study("2.25.101", EVERYTHING),
        lambda: target.withdraw_others([instance()], EVERYTHING),
    )
    for act in acts:
        with pytest.raises(Retryable) as error:
            act()
        assert reason_of(error) is Reason.TARGET_UNREACHABLE


def test_a_target_that_comes_back_is_used_again_by_the_same_client() -> None:
    with running_orthanc(users=dict([WORKER])) as server:
        target, sent = export_to(server), instance()
        target.store(sent)
        server.stop()
        with pytest.raises(Retryable) as error:
            target.fetch(sent)
        assert reason_of(error) is Reason.TARGET_UNREACHABLE
        server.start()
        assert target.fetch(sent) == sent.content


# --- source -----------------------------------------------------------------


def upload(server: OrthancServer, content: bytes) -> dict[str, str]:
    answer: dict[str, str] = server.post("/instances", content).json()
    return answer


def test_a_study_is_read_as_it_was_received(server: OrthancServer) -> None:
    sent = [instance(f"2.25.20{number}").content for number in range(3)]
    answers = [upload(server, content) for content in sent]
    source = source_of(server)
    snapshot = source.snapshot(answers[0]["ParentStudy"])
    assert snapshot.instances == tuple(sorted(answer["ID"] for answer in answers))
    assert snapshot.study_uid == "2.25.101"
    fetched = [source.fetch(answer["ID"]) for answer in answers]
    assert fetched == sent
    server.delete(f"/studies/{answers[0]['ParentStudy']}")


def test_where_the_plugin_is_of_before_orthanc_tells_that_a_study_is_of_two_patients(
    server: OrthancServer,
) -> None:
    reporter = PluginReporter(client(server.url, server.user, server.password))

    def told() -> int:
        return reporter.patients(PatientsAsked("0" * 32, 1, 1), "2.25.101").patients

    one = upload(server, instance("2.25.251").content)["ParentStudy"]
    upload(server, instance("2.25.252", study="2.25.1011").content)
    alone = told()
    other = upload(server, instance("2.25.253", patient="PSEUDO-2").content)["ParentStudy"]
    assert other != one
    assert (alone, told()) == (1, 2)
    assert reporter.patients(PatientsAsked("0" * 32, 1, 1), "").patients == 1
    for study in server.get("/studies").json():
        server.delete(f"/studies/{study}")


def test_a_real_image_of_megabytes_arrives_unaltered(server: OrthancServer) -> None:
    data = pytest.importorskip("pydicom.data")
    path = data.get_testdata_file("RG1_UNCR.dcm")
    content = Path(path).read_bytes()
    answer = upload(server, content)
    assert source_of(server).fetch(answer["ID"]) == content
    server.delete(f"/studies/{answer['ParentStudy']}")
    assert pydicom.dcmread(path).Rows > 1000


def test_two_looks_at_an_unchanged_study_are_equal_and_any_change_shows(
    server: OrthancServer,
) -> None:
    answer = upload(server, instance("2.25.301").content)
    study, source = answer["ParentStudy"], source_of(server)
    before = source.snapshot(study)
    assert source.snapshot(study) == before
    added = upload(server, instance("2.25.302").content)
    assert source.snapshot(study) != before
    sizes = [len(server.get(f"/instances/{one['ID']}/file").content) for one in (answer, added)]
    assert (before.size, source.snapshot(study).size) == (sizes[0], sum(sizes))
    server.delete(f"/instances/{added['ID']}")
    server.delete(f"/studies/{study}")


def test_an_instance_that_was_replaced_shows_as_well(server: OrthancServer) -> None:
    answer = upload(server, instance("2.25.311").content)
    study, source = answer["ParentStudy"], source_of(server)
    before = source.snapshot(study)

    def replaced() -> bool:  # Orthanc's LastUpdate counts whole seconds
        upload(server, instance("2.25.311", seed_text="corrected").content)
        return source.snapshot(study) != before

    wait_until(replaced, what="the study shows the change")
    assert source.snapshot(study).instances == before.instances
    server.delete(f"/studies/{study}")


def test_an_instance_that_was_deleted_changes_the_study(server: OrthancServer) -> None:
    answer = upload(server, instance("2.25.401").content)
    server.delete(f"/instances/{answer['ID']}")
    with pytest.raises(Retryable) as error:
        source_of(server).fetch(answer["ID"])
    assert reason_of(error) is Reason.CHANGED_MEANWHILE


def test_a_study_that_was_deleted_is_gone(server: OrthancServer) -> None:
    with pytest.raises(Rejected) as error:
        source_of(server).snapshot(STUDY_ID)
    assert reason_of(error) is Reason.GONE


def test_a_wrong_password_at_the_source_is_tried_again(server: OrthancServer) -> None:
    with pytest.raises(Retryable) as error:
        source_of(server, "wrong").snapshot(STUDY_ID)
    assert reason_of(error) is Reason.SOURCE_UNREACHABLE


def test_a_source_that_does_not_listen_is_unreachable() -> None:
    source = OrthancSource(client(f"http://127.0.0.1:{free_port()}"))
    with pytest.raises(Retryable) as error:
        source.snapshot(STUDY_ID)
    assert reason_of(error) is Reason.SOURCE_UNREACHABLE


# --- client -----------------------------------------------------------------


def test_a_proxy_of_the_environment_gets_no_image(
    server: OrthancServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(variable, f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    export_to(server).check()


def test_no_compression_is_asked_for() -> None:
    orthanc = connect("http://127.0.0.1:1", "u", "p", None, 60.0)
    OPEN.append(orthanc)
    assert orthanc.headers["accept-encoding"] == "identity"
    assert orthanc.timeout.read == 60


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_an_authority_that_cannot_be_read_stops_the_worker(
    tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(Misconfigured):
        connect("https://127.0.0.1", "u", "p", path, 60)
