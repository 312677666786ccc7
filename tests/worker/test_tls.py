"""TLS to an export target: the server is always verified, and asks who we are if it likes."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from prichexy_testing.certificates import Authority, Pair
from prichexy_testing.servers import OrthancServer, running_orthanc
from prichexy_testing.tls_front import tls_front
from prichexy_worker.contract import Reason
from prichexy_worker.errors import Misconfigured, Retryable
from prichexy_worker.export import OrthancExport, create_target
from prichexy_worker.ports import ExportTarget
from prichexy_worker.target_settings import OrthancPeer
from prichexy_worker.tls import client_context


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    return Authority(folder)


@pytest.fixture(scope="module")
def client(authority: Authority) -> Pair:
    return authority.pair("client", host="")


@pytest.fixture(scope="module")
def server() -> Iterator[OrthancServer]:
    with running_orthanc() as server:
        yield server


@pytest.fixture(scope="module")
def port(server: OrthancServer, authority: Authority) -> Iterator[int]:
    """TLS before the Orthanc that wants a certificate of the authority from whoever comes."""
    with tls_front(server.port, authority.pair("server"), authority.certificate) as port:
        yield port


@pytest.fixture
def peer(server: OrthancServer, port: int) -> Iterator[Callable[..., ExportTarget]]:
    """Make targets of that address; closes their connections."""
    with ExitStack() as opened:

        def make(port: int = port, **options: object) -> ExportTarget:
            section = {
                "kind": "orthanc",
                "url": f"https://127.0.0.1:{port}",
                "user": server.user,
                "password": server.password,
                **options,
            }
            target = create_target(OrthancPeer.model_validate(section))
            assert isinstance(target, OrthancExport)
            opened.callback(target.close)
            return target

        yield make


@pytest.mark.orthanc
def test_a_peer_that_we_trust_and_that_trusts_us_is_reached(
    peer: Callable[..., ExportTarget], authority: Authority, client: Pair
) -> None:
    peer(
        ca_file=authority.certificate,
        certificate_file=client.certificate,
        key_file=client.key,
    ).check()


@pytest.mark.orthanc
def test_without_our_certificate_it_does_not_answer(
    peer: Callable[..., ExportTarget], authority: Authority
) -> None:
    with pytest.raises(Retryable) as error:
        peer(ca_file=authority.certificate).check()
    assert error.value.reason is Reason.TARGET_UNREACHABLE


@pytest.mark.orthanc
def test_a_peer_of_an_authority_that_we_do_not_trust_is_sent_nothing(
    peer: Callable[..., ExportTarget], client: Pair, folder: Path
) -> None:
    other = Authority(folder, "stranger")
    for trust in ({}, {"ca_file": other.certificate}):
        target = peer(certificate_file=client.certificate, key_file=client.key, **trust)
        with pytest.raises(Retryable) as error:
            target.check()
        assert error.value.reason is Reason.TARGET_UNREACHABLE


@pytest.mark.orthanc
def test_a_peer_under_another_name_than_its_certificates_is_sent_nothing(
    peer: Callable[..., ExportTarget], server: OrthancServer, authority: Authority
) -> None:
    pair = authority.pair("elsewhere", host="127.0.0.2")
    with tls_front(server.port, pair) as port, pytest.raises(Retryable) as error:
        peer(port=port, ca_file=authority.certificate).check()
    assert error.value.reason is Reason.TARGET_UNREACHABLE


def test_a_key_that_others_can_read_is_refused(client: Pair, tmp_path: Path) -> None:
    key = tmp_path / "open.key"
    key.write_bytes(client.key.read_bytes())
    for mode, fits in ((0o600, True), (0o400, True), (0o640, False), (0o604, False)):
        key.chmod(mode)
        if fits:
            client_context(None, client.certificate, key)
        else:
            with pytest.raises(Misconfigured, match="others can read"):
                client_context(None, client.certificate, key)


def test_a_key_that_cannot_be_used_is_refused_and_no_pass_phrase_asked_for(
    client: Pair, authority: Authority, tmp_path: Path
) -> None:
    locked = tmp_path / "locked.key"
    subprocess.run(
        ["openssl", "rsa", "-aes256", "-passout", "pass:x", "-in", client.key, "-out", locked],
        check=True,
        capture_output=True,
    )
    locked.chmod(0o600)
    for key in (locked, tmp_path / "absent.key", authority.pair("other").key):
        with pytest.raises(Misconfigured, match="cannot be used"):
            client_context(None, client.certificate, key)
