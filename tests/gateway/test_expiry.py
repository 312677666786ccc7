"""A certificate that ends soon is seen before its connections fail."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from prichexy_gateway.doctor import _certificates
from prichexy_gateway.expiry import certificate_files, valid_until
from prichexy_testing.certificates import Authority, Pair
from prichexy_worker.settings import Settings


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def pair(authority: Authority) -> Pair:
    return authority.pair("worker", host="")


def settings_with(authority: Authority, pair: Pair, folder: Path) -> Settings:
    """Give settings whose broker and export target want certificates."""
    key = folder / "pseudonyms.key"
    key.write_text("ab" * 32)
    key.chmod(0o600)
    tls = {
        "ca_file": authority.certificate,
        "certificate_file": pair.certificate,
        "key_file": pair.key,
    }
    return Settings.model_validate(
        {
            "ingest": {"url": "http://127.0.0.1:2"},
            "broker": {"url": "rediss://127.0.0.1:1/0", **tls},
            "export": {"kind": "dicomweb", "url": "https://127.0.0.1:1/dicom-web", **tls},
            "pseudonyms": {"key_file": key},
            "model": {"bundle": folder},
        }
    )


def test_the_end_of_a_file_is_that_of_its_first_certificate_to_end(
    authority: Authority, pair: Pair, tmp_path: Path
) -> None:
    end = valid_until(pair.certificate)
    assert timedelta(days=1) < end - datetime.now(UTC) <= timedelta(days=2)
    both = tmp_path / "both.pem"
    both.write_text(pair.certificate.read_text() + authority.certificate.read_text())
    assert valid_until(both) == min(end, valid_until(authority.certificate))


@pytest.mark.parametrize(
    "content", [b"", b"no certificate", b"\xff", b"-----BEGIN CERTIFICATE-----\nx\n"]
)
def test_what_is_no_certificate_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "odd.pem").write_bytes(content)
    with pytest.raises(ValueError, match=r"no certificate|cannot be read"):
        valid_until(tmp_path / "odd.pem")


def test_doctor_tells_of_each_certificate_before_its_end(
    authority: Authority, pair: Pair, tmp_path: Path
) -> None:
    settings = settings_with(authority, pair, tmp_path)
    assert dict(certificate_files(settings)) == {
        "broker.ca_file": authority.certificate,
        "broker.certificate_file": pair.certificate,
    }, "each file once"
    end = valid_until(pair.certificate)
    for days, ok, words in ((40, True, "valid until"), (20, False, "valid until")):
        checks = list(_certificates(settings, end - timedelta(days=days)))
        assert [check.ok for check in checks] == [ok, ok]
        assert all(words in check.finding for check in checks)
    late = list(_certificates(settings, end + timedelta(days=1)))
    assert [check.finding for check in late] == [f"has been invalid since {end:%Y-%m-%d}"] * 2
    authority.certificate.unlink()
    assert [check.ok for check in _certificates(settings, end - timedelta(days=40))] == [
        False,
        True,
    ]
