"""The command ``prichexy``: exit codes, refusals, and no identifying value in what it says."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path

import pydicom
import pytest

from prichexy_gateway import anonymizing, cli, offline_pool
from prichexy_testing.dicoms import CANARIES, canary_values, radiograph_dataset, write
from prichexy_testing.finders import Finds
from prichexy_worker.contract import SOFTWARE_VERSION
from prichexy_worker.header.table import TABLE_EDITION, TABLE_SHA256
from prichexy_worker.pseudonyms import Pseudonyms


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, str]:
    """Run the command; give its exit code and all it said."""
    monkeypatch.setattr(sys, "argv", ["prichexy", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    captured = capsys.readouterr()
    return int(ended.value.code or 0), captured.out + captured.err


@pytest.fixture(autouse=True)
def own_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a user's configuration folder of its own; let pytest keep its logging."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(anonymizing, "keep_quiet", lambda: None)
    return tmp_path / "config"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "CANARYFAMILY.dcm").write_bytes(write(radiograph_dataset()))
    (folder / "notes.txt").write_text("CANARYFAMILY was here")
    return folder


def test_the_version_is_the_one_of_all_parts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = run(monkeypatch, capsys, "--version")
    first, second = text.splitlines()
    assert (code, first) == (0, f"prichexy {SOFTWARE_VERSION}")
    assert f"edition {TABLE_EDITION} (SHA-256 {TABLE_SHA256[:16]}" in second


@pytest.mark.parametrize(
    "command",
    ["serve", "anonymize", "explain", "submit", "status", "backfill", "doctor", "crosswalk"],
)
def test_every_command_documents_its_exit_codes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    code, text = run(monkeypatch, capsys, command, "--help")
    assert code == 0
    assert "Exit codes" in text


def test_wrong_use_is_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, capsys, "anonymize")[0] == 2
    assert run(monkeypatch, capsys, "no-such-command")[0] == 2


def test_a_list_longer_than_a_gateway_gives_is_wrong_use(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = run(monkeypatch, capsys, "status", "--limit", "501")
    assert (code, "--limit" in text) == (2, True)


@pytest.mark.parametrize("option", ["--http-port", "--dicom-port", "--export-port", "--redis-port"])
def test_a_port_that_is_none_is_wrong_use(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    code, text = run(monkeypatch, capsys, "serve", option, "65536")
    assert (code, option in text) == (2, True)


def test_a_source_without_dicom_is_said_before_a_gateway_starts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    code, text = run(monkeypatch, capsys, "serve", "/dev/null", "--home", home)
    assert (code, text) == (1, "prichexy: SOURCE holds no DICOM object.\n")
    assert not home.exists()


def test_an_unexpected_error_is_shown_without_its_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], source: Path
) -> None:
    def fail(*_: object) -> None:
        secret = "CANARYFAMILY"
        raise ValueError(f"invalid value {secret}")

    monkeypatch.setattr(anonymizing, "find_dicom_files", fail)
    code, text = run(monkeypatch, capsys, "anonymize", source, source.parent / "out")
    assert code == 1
    assert "ValueError at" in text
    assert "CANARYFAMILY" not in text


@pytest.mark.parametrize(
    ("destination", "quarantine", "complaint"),
    [
        ("in", None, "DEST lies in SOURCE"),
        ("in/out", None, "DEST lies in SOURCE"),
        (".", None, "SOURCE lies in DEST"),
        ("out", "out/quarantine", "quarantine lies in DEST"),
        ("out", "out", "quarantine lies in DEST"),
        ("out", "in/quarantine", "quarantine lies in SOURCE"),
        ("away/out", "away", "DEST lies in the quarantine"),
    ],
)
def test_places_that_would_mix_are_refused_and_nothing_is_made(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    source: Path,
    destination: str,
    quarantine: str | None,
    complaint: str,
) -> None:
    base = source.parent
    before = sorted(base.rglob("*"))
    extra = ("--quarantine", base / quarantine) if quarantine else ()
    code, text = run(monkeypatch, capsys, "anonymize", source, base / destination, *extra)
    assert code == 2
    assert complaint in text
    assert sorted(base.rglob("*")) == before


def test_a_key_file_in_the_destination_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], source: Path
) -> None:
    out = source.parent / "out"
    code, text = run(
        monkeypatch, capsys, "anonymize", source, out, "--key-file", out / "pseudonyms.key"
    )
    assert code == 2
    assert "key file lies in DEST" in text


def test_a_report_replaces_neither_the_key_nor_an_original(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    source: Path,
    tmp_path: Path,
) -> None:
    key = tmp_path / "pseudonyms.key"
    Pseudonyms.create_key_file(key)
    (file,) = source.glob("*.dcm")
    link = tmp_path / "link"
    link.symlink_to(key)
    for report in (key, link, file, source / "new.json", tmp_path):
        before = key.read_bytes(), file.read_bytes()
        words = ["--key-file", key, "--report", report]
        code, text = run(monkeypatch, capsys, "anonymize", source, tmp_path / "out", *words)
        assert (code, "--report" in text) == (2, True)
        assert (key.read_bytes(), file.read_bytes()) == before


def test_a_key_file_that_others_can_read_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], source: Path
) -> None:
    key = source.parent / "key"
    key.write_text("a" * 64)
    key.chmod(0o644)
    code, text = run(
        monkeypatch, capsys, "anonymize", source, source.parent / "out", "--key-file", key
    )
    assert code == 2
    assert "chmod 600" in text


def test_a_source_without_dicom_is_exit_code_4_and_makes_no_key(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    own_configuration: Path,
) -> None:
    (tmp_path / "empty").mkdir()
    code, text = run(monkeypatch, capsys, "anonymize", tmp_path / "empty", tmp_path / "out")
    assert (code, "No DICOM object" in text) == (4, True)
    assert not own_configuration.exists()


def test_the_whole_command_exports_reports_and_says_nothing_that_identifies(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    source: Path,
    own_configuration: Path,
) -> None:
    (source / "bad.dcm").write_bytes(
        write(radiograph_dataset(StudyInstanceUID="1.2.9", PixelData=None))
    )
    out, report = source.parent / "out", source.parent / "report.json"
    monkeypatch.setattr(offline_pool, "TextFinder", Finds)

    code, text = run(
        monkeypatch, capsys,
        "anonymize", source, out, "--report", report, "--device", "cpu",
    )  # fmt: skip

    assert code == 3
    told = json.loads(report.read_text())
    assert told["counts"] == {"exported": 1, "quarantined": 1}
    assert told["files"] == {"dicom": 2, "not_dicom": 1, "dicomdir": 0, "unreadable": 0}
    (exported,) = out.rglob("*.dcm")
    method = pydicom.dcmread(exported, stop_before_pixels=True).DeidentificationMethod
    assert "burned-in text: searched for and erased, markers kept" in method
    assert told["model"]["evidence"] in ("untrained", "trained", "measured")
    assert len(list(out.rglob("*.dcm"))) == 1
    key = own_configuration / "prichexy" / "pseudonyms.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert "Keep it" in text
    everything = text + report.read_text()
    assert [value for value in canary_values() if value in everything] == []

    first = {path.name: path.read_bytes() for path in out.rglob("*.dcm")}
    again = source.parent / "again"
    code, _ = run(monkeypatch, capsys, "anonymize", source, again)
    assert {path.name: path.read_bytes() for path in again.rglob("*.dcm")} == first


def test_a_report_that_could_not_be_written_is_refused_before_the_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], source: Path
) -> None:
    out, report = source.parent / "out", source.parent / "nowhere" / "report.json"
    code, text = run(monkeypatch, capsys, "anonymize", source, out, "--report", report)
    assert code == 2
    assert "--report" in text
    assert list(out.rglob("*.dcm")) == []


@pytest.mark.parametrize("command", ["status", "doctor"])
def test_a_home_without_a_gateway_is_said_so(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    command: str,
) -> None:
    monkeypatch.delenv("PRICHEXY_WORKER_CONFIG", raising=False)
    code, text = run(monkeypatch, capsys, command, "--home", tmp_path / "none")
    assert code == 1
    assert "prichexy serve" in text
    assert not (tmp_path / "none").exists()


def test_explain_tells_every_fate_and_no_value(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], source: Path
) -> None:
    (file,) = source.glob("*.dcm")
    code, text = run(monkeypatch, capsys, "explain", str(file))
    assert code == 0
    assert "PatientName" in text
    assert "replaced" in text
    assert not any(value in text for value in canary_values())


def test_explain_shows_values_when_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], source: Path
) -> None:
    (file,) = source.glob("*.dcm")
    code, text = run(monkeypatch, capsys, "explain", str(file), "--values", "--json")
    rows = {row["keyword"]: row for row in json.loads(text)["attributes"]}
    assert code == 0
    assert rows["PatientID"]["before"] == CANARIES["PatientID"]
    assert rows["PatientID"]["after"].startswith("PX-")


def test_explain_shows_values_as_they_are_and_nothing_that_a_terminal_obeys(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "one.dcm"
    file.write_bytes(write(radiograph_dataset(StudyDescription="[/red] \x1b[2J chest")))
    code, text = run(monkeypatch, capsys, "explain", str(file), "--values")
    assert code == 0
    assert "[/red]" in text
    assert "\x1b" not in text


def test_explain_says_that_an_object_would_go_to_quarantine_for_what_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "hand.dcm"
    file.write_bytes(write(radiograph_dataset(BodyPartExamined="HAND")))
    code, text = run(monkeypatch, capsys, "explain", str(file))
    assert code == 1
    assert "PatientName" in text
    assert "An object is not of the chest." in text


def test_explain_refuses_a_profile_with_its_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    source: Path,
    tmp_path: Path,
) -> None:
    profile = tmp_path / "profile.yaml"
    profile.write_text("name: a\noptions: [everything]\n")
    (file,) = source.glob("*.dcm")
    code, text = run(monkeypatch, capsys, "explain", str(file), "--profile", str(profile))
    assert code == 2
    assert "profile.yaml:2: options.0" in text


def test_the_whole_command_does_what_a_profile_asks_for(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    source: Path,
    tmp_path: Path,
) -> None:
    profile = tmp_path / "profile.yaml"
    profile.write_text("name: dates\noptions: [modified-dates]\npseudonyms: {project: one}\n")
    report = tmp_path / "report.json"
    words = ["--profile", profile, "--report", report]
    monkeypatch.setattr(offline_pool, "TextFinder", Finds)
    code, _ = run(monkeypatch, capsys, "anonymize", source, tmp_path / "out", *words)
    assert code == 0
    (made,) = (tmp_path / "out").rglob("*.dcm")
    result = pydicom.dcmread(made)
    assert result.LongitudinalTemporalInformationModified == "MODIFIED"
    assert result.StudyDate not in ("", CANARIES["StudyDate"])
    assert json.loads(report.read_text())["profile"]["options"] == ["modified-dates"]
