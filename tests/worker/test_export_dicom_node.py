"""DicomNodeExport against DCMTK's storescp and against an Orthanc that commits itself."""

from __future__ import annotations

import gc
import io
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydantic import ValidationError
from pydicom.dataset import Dataset
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from prichexy_testing.certificates import Authority, Pair
from prichexy_testing.coming_back import error_of
from prichexy_testing.dicoms import radiograph_dataset, write
from prichexy_testing.fakes_worker import EVERYTHING
from prichexy_testing.holding_servers import Answer, holding
from prichexy_testing.servers import (
    OrthancServer,
    StoreScp,
    free_port,
    running_orthanc,
    running_storescp,
)
from prichexy_worker import pixels
from prichexy_worker.contract import Reason
from prichexy_worker.errors import Retryable
from prichexy_worker.export import DicomNodeExport, create_target
from prichexy_worker.pixels import Syntax
from prichexy_worker.ports import Anonymized
from prichexy_worker.target_settings import DicomNode
from prichexy_worker.tls import client_context, server_context

# pynetdicom forgets to close a socket that it could not connect.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <s:ResourceWarning")
SYNTAXES: tuple[Syntax, ...] = ("explicit-little-endian", "rle-lossless", "jpeg-ls-lossless")


def target(port: int, **options: object) -> DicomNodeExport:
    section = {"kind": "dicom", "host": "127.0.0.1", "port": port, "called_aet": "NODE"}
    made = create_target(DicomNode.model_validate({**section, "timeout": 30, **options}))
    assert isinstance(made, DicomNodeExport)
    return made


def instance(
    sop: str = "2.25.103", syntax: Syntax = "explicit-little-endian", text: str = "one"
) -> Anonymized:
    dataset = radiograph_dataset(identity={}, rows=16, columns=16, nested=True)
    dataset.PatientID = "PSEUDO-1"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "2.25.101", "2.25.102"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = sop
    dataset.DerivationDescription = text
    content = pixels.with_pixels(dataset, pixels.decode(dataset), syntax=syntax)
    return Anonymized("PSEUDO-1", "2.25.101", "2.25.102", sop, write(content))


def data_set(content: bytes) -> bytes:
    """Give what follows the file meta information."""
    meta = pydicom.dcmread(io.BytesIO(content)).file_meta
    return content[128 + 4 + 12 + meta.FileMetaInformationGroupLength :]


def refusal(error: pytest.ExceptionInfo[Retryable]) -> tuple[Reason, str]:
    assert "127.0.0.1" not in str(error.value)
    assert "2.25" not in str(error.value)
    return error.value.reason, error.value.detail


# --- storescp -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def node() -> Iterator[StoreScp]:
    with running_storescp("--accept-all") as node:
        yield node


@pytest.fixture(autouse=True)
def _left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let no file be there for the next test, nor a forgotten socket."""
    yield
    gc.collect()
    if "node" in request.fixturenames:
        for file in request.getfixturevalue("node").files():
            file.unlink()


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_what_arrives_is_the_data_set_that_was_released_byte_for_byte(
    node: StoreScp, syntax: Syntax
) -> None:
    sent = instance(syntax=syntax)
    target(node.port).store(sent)
    (file,) = node.files()
    assert data_set(file.read_bytes()) == data_set(sent.content)
    assert pydicom.dcmread(file).file_meta.TransferSyntaxUID == (
        pydicom.dcmread(io.BytesIO(sent.content)).file_meta.TransferSyntaxUID
    )


def test_an_instance_sent_again_is_sent_whole_under_the_same_name(node: StoreScp) -> None:
    first, second = instance(), instance(text="another")
    for sent in (first, second, second, first):
        target(node.port).store(sent)
        (file,) = node.files()
        assert data_set(file.read_bytes()) == data_set(sent.content)


def test_nothing_is_taken_back_and_nothing_claimed_of_what_is_held(node: StoreScp) -> None:
    peer, sent = target(node.port), instance()
    assert not peer.recalls
    peer.store(sent)
    peer.withdraw(sent)
    peer.withdraw_study(sent.study_uid, EVERYTHING)
    peer.withdraw_others([instance("2.25.104")], EVERYTHING)
    assert len(node.files()) == 1
    assert list(peer.differences([sent])) == []


def test_the_check_passes_and_sends_nothing(node: StoreScp) -> None:
    target(node.port).check()
    assert node.files() == []


def test_a_node_without_storage_commitment_fails_the_check_where_it_is_wanted(
    node: StoreScp,
) -> None:
    with pytest.raises(Retryable, match="no storage commitment") as error:
        target(node.port, commitment=True).check()
    assert error.value.reason is Reason.TARGET_REFUSED
    with pytest.raises(Retryable):
        list(target(node.port, commitment=True).differences([instance()]))


def test_a_node_that_does_not_listen_is_unreachable() -> None:
    peer = target(free_port(), commitment=True)
    for act in (
        peer.check,
        lambda: peer.store(instance()),
        lambda: list(peer.differences([instance()])),
    ):
        with pytest.raises(Retryable) as error:
            act()
        assert refusal(error) == (Reason.TARGET_UNREACHABLE, "no association")


def test_a_node_that_rejects_us_refuses() -> None:
    with running_storescp("--refuse") as node, pytest.raises(Retryable) as error:
        target(node.port).store(instance())
    # The node hangs up with its word, and pynetdicom may notice that first.
    assert refusal(error) in (
        (Reason.TARGET_REFUSED, "the association was rejected"),
        (Reason.TARGET_UNREACHABLE, "no association"),
    )


def test_a_node_that_does_not_take_the_encoding_refuses() -> None:
    with running_storescp("--implicit") as node, pytest.raises(Retryable) as error:
        target(node.port).store(instance(syntax="jpeg-ls-lossless"))
    assert refusal(error) == (
        Reason.TARGET_REFUSED,
        "no such objects in this encoding are taken",
    )


@pytest.mark.parametrize("option", ["--abort-after", "--abort-during"])
def test_a_node_that_goes_away_midway_is_unreachable(option: str) -> None:
    with running_storescp(option) as node, pytest.raises(Retryable) as error:
        target(node.port).store(instance())
    assert refusal(error)[0] is Reason.TARGET_UNREACHABLE


def test_a_node_that_does_not_answer_in_time_is_unreachable() -> None:
    with running_storescp("--sleep-during", "60") as node:
        with pytest.raises(Retryable) as error:
            target(node.port, timeout=1).store(instance())
        node.kill()
    assert refusal(error)[0] is Reason.TARGET_UNREACHABLE


def test_what_would_be_written_anew_is_not_sent(node: StoreScp) -> None:
    sent = instance()
    # The length of a group (retired), which pydicom reads and does not write.
    length = b"\x08\x00\x00\x00UL\x04\x00\x00\x00\x00\x00"
    odd = sent.content.replace(data_set(sent.content), length + data_set(sent.content))
    with pytest.raises(Retryable) as error:
        target(node.port).store(replace(sent, content=odd))
    assert refusal(error) == (Reason.TARGET_REFUSED, "the instance would be written anew")
    assert node.files() == []


# --- nodes that hold on ---------------------------------------------------------------------


def _pdu(sender: socket.socket) -> bytes:
    """Read one PDU whole (PS3.8 9.3.1)."""
    begin = sender.recv(6, socket.MSG_WAITALL)
    return begin + sender.recv(int.from_bytes(begin[2:6], "big"), socket.MSG_WAITALL)


def _trickle(caller: socket.socket, over: threading.Event, kind: int) -> None:
    """Send a PDU that is announced to be large, and never is whole."""
    with suppress(OSError):  # the other side hangs up
        caller.sendall(bytes([kind, 0]) + (1 << 20).to_bytes(4, "big"))
        while not over.wait(0.02):
            caller.sendall(b"\0")


def _accepting(port: int, afterwards: Answer) -> Answer:
    """Give a node that associates as the one at ``port`` does, and goes on as it will."""

    def node(caller: socket.socket, over: threading.Event) -> None:
        with socket.create_connection(("127.0.0.1", port)) as real:
            real.sendall(_pdu(caller))
            caller.sendall(_pdu(real))
            afterwards(caller, over)

    return node


def _reads_nothing(_caller: socket.socket, over: threading.Event) -> None:
    over.wait()


def _unreachable(error: Retryable | None) -> bool:
    return error is not None and error.reason is Reason.TARGET_UNREACHABLE


def test_a_node_that_stops_reading_holds_nobody(node: StoreScp) -> None:
    large = radiograph_dataset(identity={}, rows=16, columns=16)
    large.PixelData = bytes(16 << 20)  # more than a system keeps of what is not read
    large.PatientID = "PSEUDO-1"
    large.StudyInstanceUID, large.SeriesInstanceUID = "2.25.101", "2.25.102"
    large.SOPInstanceUID = large.file_meta.MediaStorageSOPInstanceUID = "2.25.103"
    sent = Anonymized("PSEUDO-1", "2.25.101", "2.25.102", "2.25.103", write(large))
    with holding(_accepting(node.port, _reads_nothing)) as port:
        assert _unreachable(error_of(lambda: target(port, timeout=1).store(sent)))


@pytest.mark.parametrize("when", ["it associates", "it answers"])
def test_a_node_that_sends_a_byte_now_and_then_holds_nobody(node: StoreScp, when: str) -> None:
    associates, data = 0x02, 0x04  # A-ASSOCIATE-AC, P-DATA-TF
    slow = {
        "it associates": lambda caller, over: _trickle(caller, over, associates),
        "it answers": _accepting(node.port, lambda caller, over: _trickle(caller, over, data)),
    }[when]
    with holding(slow) as port:
        assert _unreachable(error_of(target(port, timeout=1).check))


@pytest.mark.parametrize("host", ["pacs.invalid", f"{'a' * 64}.example"])
def test_a_node_whose_name_is_not_found_is_unreachable(host: str) -> None:
    with pytest.raises(Retryable) as error:
        target(104, host=host).check()
    assert error.value.reason is Reason.TARGET_UNREACHABLE
    assert host not in str(error.value)


# --- TLS ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    return Authority(folder)


@pytest.fixture(scope="module")
def ours(authority: Authority) -> Pair:
    return authority.pair("ours")


@pytest.fixture(scope="module")
def tls_node(authority: Authority) -> Iterator[StoreScp]:
    """A storescp that wants a certificate of the authority from whoever comes."""
    pair = authority.pair("node")
    with running_storescp(
        "--enable-tls", str(pair.key), str(pair.certificate),
        "--add-cert-file", str(authority.certificate), "--require-peer-cert",
    ) as node:  # fmt: skip
        yield node


def _tls(authority: Authority, ours: Pair) -> dict[str, object]:
    return {
        "tls": True,
        "ca_file": authority.certificate,
        "certificate_file": ours.certificate,
        "key_file": ours.key,
    }


def test_over_tls_the_same_arrives(tls_node: StoreScp, authority: Authority, ours: Pair) -> None:
    sent = instance()
    peer = target(tls_node.port, **_tls(authority, ours))
    peer.check()
    peer.store(sent)
    (file,) = tls_node.files()
    assert data_set(file.read_bytes()) == data_set(sent.content)
    file.unlink()


@pytest.mark.parametrize("missing", ["trust", "certificate", "tls"])
def test_without_trust_on_both_sides_nothing_arrives(
    tls_node: StoreScp, authority: Authority, ours: Pair, missing: str
) -> None:
    options = _tls(authority, ours)
    if missing == "trust":
        del options["ca_file"]
    if missing == "certificate":
        del options["certificate_file"], options["key_file"]
    if missing == "tls":
        options = {"timeout": 5}
    with pytest.raises(Retryable) as error:
        target(tls_node.port, **options).store(instance())
    assert refusal(error)[0] is Reason.TARGET_UNREACHABLE
    assert tls_node.files() == []


def test_a_node_under_another_name_than_its_certificates_is_sent_nothing(
    authority: Authority,
) -> None:
    pair = authority.pair("elsewhere", host="127.0.0.2")
    with running_storescp(
        "--enable-tls", str(pair.key), str(pair.certificate), "--ignore-peer-cert"
    ) as node:
        with pytest.raises(Retryable) as error:
            target(node.port, tls=True, ca_file=authority.certificate).store(instance())
        assert node.files() == []
    assert refusal(error)[0] is Reason.TARGET_UNREACHABLE


# --- storage commitment ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def port_for_calls() -> int:
    return free_port()


@pytest.fixture(scope="module")
def archive(port_for_calls: int) -> Iterator[tuple[OrthancServer, int]]:
    """An Orthanc as DICOM node; it calls us back to say what it commits itself to."""
    port = free_port()
    with running_orthanc(
        DicomServerEnabled=True,
        DicomPort=port,
        DicomAet="NODE",
        DicomCheckCalledAet=True,
        DicomModalities={"us": ["PRICHEXY", "127.0.0.1", port_for_calls]},
    ) as server:
        yield server, port


@pytest.mark.orthanc
def test_a_node_commits_itself_to_what_it_holds_and_to_nothing_else(
    archive: tuple[OrthancServer, int], port_for_calls: int
) -> None:
    server, port = archive
    peer = target(port, commitment=True, commitment_port=port_for_calls)
    peer.check()
    kept = [instance(), instance("2.25.104")]
    assert list(peer.differences(kept)) == [("2 not committed",)]
    peer.store(kept[0])
    assert list(peer.differences(kept)) == [("1 not committed",)]
    peer.store(kept[1])
    assert list(peer.differences(kept)) == [()]
    for name in server.get("/instances").json():
        assert data_set(server.get(f"/instances/{name}/file").content) in [
            data_set(one.content) for one in kept
        ]


@pytest.mark.orthanc
def test_without_a_port_for_its_call_no_commitment_is_heard_of(
    archive: tuple[OrthancServer, int],
) -> None:
    peer = target(archive[1], commitment=True, commitment_seconds=0.5)
    with pytest.raises(Retryable) as error:
        list(peer.differences([instance()]))
    assert refusal(error) == (Reason.TARGET_UNREACHABLE, "no word on the commitment")


@pytest.mark.orthanc
def test_a_port_that_another_worker_has_is_waited_for(
    archive: tuple[OrthancServer, int], port_for_calls: int
) -> None:
    with socket.create_server(("", port_for_calls)), pytest.raises(Retryable) as error:
        list(
            target(archive[1], commitment=True, commitment_port=port_for_calls).differences(
                [instance()]
            )
        )
    assert refusal(error) == (Reason.TARGET_UNREACHABLE, "commitment_port: OSError")


Tell = Callable[[Dataset], Dataset]
EVENT = (1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance)


@contextmanager
def committing(
    tell: Tell, tls: ssl.SSLContext | None = None, call: Callable[[Dataset], None] | None = None
) -> Iterator[int]:
    """Run a node that answers a request with what ``tell`` makes of it; gives its port.

    It answers on the request's own association, or by ``call``.
    """
    threads: list[threading.Thread] = []

    def answer(event: Any) -> tuple[int, None]:
        report = tell(event.action_information)
        own = partial(event.assoc.send_n_event_report, report, *EVENT)
        # After its own answer, which this thread gives.
        thread = threading.Thread(target=own if call is None else partial(call, report))
        threads.append(thread)
        thread.start()
        return 0x0000, None

    entity = AE(ae_title="NODE")
    entity.add_supported_context(StorageCommitmentPushModel)
    port = free_port()
    server = entity.start_server(
        ("127.0.0.1", port),
        block=False,
        evt_handlers=[(evt.EVT_N_ACTION, answer)],
        ssl_context=tls,
    )
    assert server is not None
    try:
        yield port
    finally:
        for thread in threads:
            thread.join()
        server.shutdown()


def _calling_back(
    port: int, tls: ssl.SSLContext | None, went: list[bool]
) -> Callable[[Dataset], None]:
    """Give what calls us at ``port`` with a report, as the provider of the service."""

    def call(report: Dataset) -> None:
        entity = AE(ae_title="NODE")
        association = entity.associate(
            "127.0.0.1",
            port,
            contexts=[build_context(StorageCommitmentPushModel)],
            ext_neg=[build_role(StorageCommitmentPushModel, scp_role=True)],
            tls_args=None if tls is None else (tls, "127.0.0.1"),
        )
        went.append(association.is_established)
        if association.is_established:
            association.send_n_event_report(report, *EVENT)
            association.release()

    return call


def _report(request: Dataset, **changes: object) -> Dataset:
    report = Dataset()
    report.TransactionUID = request.TransactionUID
    report.ReferencedSOPSequence = request.ReferencedSOPSequence
    for keyword, value in changes.items():
        setattr(report, keyword, value)
    return report


def test_a_commitment_may_come_on_the_association_that_asked_for_it() -> None:
    with committing(_report) as port:
        peer = target(port, commitment=True)
        assert list(peer.differences([instance(), instance("2.25.104")])) == [()]


def test_what_is_named_as_failed_is_not_committed() -> None:
    def tell(request: Dataset) -> Dataset:
        return _report(request, FailedSOPSequence=[request.ReferencedSOPSequence[0]])

    with committing(tell) as port:
        peer = target(port, commitment=True)
        kept = [instance(), instance("2.25.104")]
        assert list(peer.differences(kept)) == [("1 not committed",)]


def test_the_report_of_another_transaction_is_not_ours() -> None:
    with (
        committing(lambda request: _report(request, TransactionUID="2.25.1")) as port,
        pytest.raises(Retryable, match="no word on the commitment"),
    ):
        list(target(port, commitment=True, commitment_seconds=0.5).differences([instance()]))


@pytest.mark.parametrize("known", [True, False])
def test_over_tls_only_a_node_that_we_trust_may_call_us_back(
    authority: Authority, ours: Pair, folder: Path, known: bool
) -> None:
    theirs = (authority if known else Authority(folder, "stranger")).pair("theirs")
    calling = client_context(authority.certificate, theirs.certificate, theirs.key)
    node = authority.pair("node-of-tls")
    context = server_context(authority.certificate, node.certificate, node.key)
    port, went = free_port(), []
    with committing(_report, context, _calling_back(port, calling, went)) as at:
        peer = target(
            at,
            commitment=True,
            commitment_port=port,
            commitment_seconds=60 if known else 2,
            **_tls(authority, ours),
        )
        if known:
            assert list(peer.differences([instance()])) == [()]
        else:
            with pytest.raises(Retryable, match="no word on the commitment"):
                list(peer.differences([instance()]))
    assert went == [known]


def test_who_calls_the_port_and_says_nothing_keeps_no_other_out(
    authority: Authority, ours: Pair
) -> None:
    theirs = authority.pair("theirs-beside")
    calling = client_context(authority.certificate, theirs.certificate, theirs.key)
    node = authority.pair("node-beside")
    context = server_context(authority.certificate, node.certificate, node.key)
    port, went, silent = free_port(), [], ExitStack()

    def call(report: Dataset) -> None:
        silent.enter_context(socket.create_connection(("127.0.0.1", port)))
        _calling_back(port, calling, went)(report)

    with silent, committing(_report, context, call) as at:
        peer = target(
            at,
            commitment=True,
            commitment_port=port,
            commitment_seconds=5,
            timeout=5,
            **_tls(authority, ours),
        )
        assert error_of(lambda: list(peer.differences([instance()]))) is None
    assert went == [True]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"called_aet": "SEVENTEEN LETTERS"}, "called_aet"),
        ({"called_aet": "A\\B"}, "called_aet"),
        ({"called_aet": " A"}, "called_aet"),
        ({"host": "http://x"}, "host"),
        ({"port": 0}, "port"),
        ({"ca_file": "/f"}, "for tls = true"),
        ({"commitment_port": 1}, "for commitment = true"),
        ({"tls": True, "commitment": True, "commitment_port": 1}, "needs a certificate_file"),
    ],
)
def test_settings_that_do_not_fit_are_refused(options: dict[str, object], complaint: str) -> None:
    section = {"kind": "dicom", "host": "pacs", "called_aet": "NODE", **options}
    with pytest.raises(ValidationError, match=complaint):
        DicomNode.model_validate(section)
