"""What ``prichexy doctor`` finds without a server."""

from __future__ import annotations

from pathlib import Path

from prichexy_gateway import doctor
from prichexy_worker.header import BASIC


def test_the_profile_is_named_with_what_it_keeps_and_its_digest(tmp_path: Path) -> None:
    profile = tmp_path / "profile.yaml"
    profile.write_text("name: archive\noptions: [modified-dates]\n")
    check = doctor._project_profile(profile)
    assert check.ok
    assert check.finding.startswith("archive, modified-dates; SHA-256 ")
    assert BASIC.digest[:16] in doctor._project_profile(None).finding


def test_a_profile_that_no_worker_would_take_is_found_with_its_line(tmp_path: Path) -> None:
    profile = tmp_path / "profile.yaml"
    profile.write_text("name: archive\noptions: [everything]\n")
    check = doctor._project_profile(profile)
    assert not check.ok
    assert "profile.yaml:2: options.0" in check.finding
    assert check.remedy
