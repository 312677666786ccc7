"""Retention and audit trail in a real Orthanc: originals go when due, a syslog server is told."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import generate_uid
from sqlalchemy import create_engine
from typer.testing import CliRunner

from prichexy_gateway.cli import create_app
from prichexy_plugin.chain import GENESIS, Line, digest_of, heads_in
from prichexy_plugin.raw_lines import read_lines
from prichexy_testing.certificates import Authority
from prichexy_testing.dicoms import CANARIES, canary_values, radiograph_dataset, write
from prichexy_testing.plugin_fakes import report_of
from prichexy_testing.plugin_servers import PluginOrthanc, running_plugin_orthanc
from prichexy_testing.servers import free_port, wait_until
from prichexy_testing.syslog_servers import running_syslog
from prichexy_worker.contract import Claim, Reason, State, StudyMessage, TextPictures

pytestmark = pytest.mark.orthanc

PNG = b"\x89PNG\r\n\x1a\n"
SECTION: dict[str, Any] = {"Broker": {"Url": f"redis://127.0.0.1:{free_port()}/0"}}
RULES = {"ExportedDays": 30, "PicturesDays": 7}


@pytest.fixture
def orthanc() -> Iterator[PluginOrthanc]:
    with running_plugin_orthanc(SECTION) as server:
        yield server


def _store(orthanc: PluginOrthanc, study: str, instance: str = "1") -> str:
    uids = {
        "StudyInstanceUID": generate_uid(entropy_srcs=["study", study]),
        "SeriesInstanceUID": generate_uid(entropy_srcs=["series", study]),
        "SOPInstanceUID": generate_uid(entropy_srcs=["instance", study, instance]),
    }
    content = write(radiograph_dataset(identity={**CANARIES, **uids}))
    answer = orthanc.post("/instances", content)
    assert answer.is_success
    return str(answer.json()["ParentStudy"])


def _taken_in(orthanc: PluginOrthanc, study: str) -> StudyMessage:
    def found() -> list[dict[str, Any]]:
        rows = orthanc.studies()
        return [row for row in rows if (row["study_id"], row["state"]) == (study, "pending")]

    wait_until(lambda: bool(found()), what="the study is taken in")
    [row] = found()
    return StudyMessage(row["job_id"], study, row["revision"])


def _report(orthanc: PluginOrthanc, message: StudyMessage, state: State, **values: Any) -> Claim:
    report = report_of(message, state, **values)
    answer = orthanc.post_as_worker("/reports", report.to_json())
    claim = Claim.from_json(answer.json())
    assert claim.proceed
    return claim


def _exported(orthanc: PluginOrthanc, study: str, instances: int) -> None:
    message = _taken_in(orthanc, study)
    attempt = _report(orthanc, message, State.PROCESSING).attempt
    proof = {"attempt": attempt, "instances": instances, "measures": {"targets_unproved": 0.0}}
    _report(orthanc, message, State.EXPORTED, **proof)


def _quarantined_with_pictures(orthanc: PluginOrthanc, study: str) -> None:
    message = _taken_in(orthanc, study)
    attempt = _report(orthanc, message, State.PROCESSING).attempt
    shown = TextPictures(message.job_id, 1, attempt, (PNG + b"one", PNG + b"two"))
    assert orthanc.post_as_worker("/pictures", shown.to_json()).json()["proceed"]
    measures = {"attempt": attempt, "measures": {"text_pictures": 2.0}}
    _report(orthanc, message, State.QUARANTINED, reason=Reason.BURNED_IN_TEXT, **measures)


def _ledger(orthanc: PluginOrthanc) -> Path:
    [file] = orthanc.folder.glob("storage/*.sqlite")
    return file


def _months_pass(orthanc: PluginOrthanc) -> None:
    """Have the stopped gateway's studies and all its lines be of 2020, as if written then."""
    engine = create_engine(f"sqlite:///{_ledger(orthanc)}")
    with engine.begin() as ledger:
        triggers = ledger.exec_driver_sql(
            "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
        ).all()
        for name, _ in triggers:
            ledger.exec_driver_sql(f"DROP TRIGGER {name}")
        for table, column in (("studies", "updated"), ("events", "at")):
            ledger.exec_driver_sql(f"UPDATE {table} SET {column} = '2020' || substr({column}, 5)")
        digest = GENESIS
        for line in list(read_lines(ledger)):
            assert isinstance(line, Line)
            digest = digest_of(line, digest)
            ledger.exec_driver_sql(
                f"UPDATE events SET digest = '{digest}' WHERE number = {line.number}"
            )
        ledger.exec_driver_sql(f"UPDATE audit_chain SET digest = '{digest}' WHERE name = 'head'")
        for _, statement in triggers:
            ledger.exec_driver_sql(statement)
    engine.dispose()
    # The heads in there are of the lines as they were.
    (orthanc.folder / "log").write_text("")


def _audit(*words: str | Path) -> tuple[int, str]:
    answer = CliRunner().invoke(create_app(), ["audit", *map(str, words)])
    return answer.exit_code, answer.stdout


def _deeds(orthanc: PluginOrthanc) -> list[str]:
    _code, text = _audit("export", "--ledger", _ledger(orthanc))
    lines = [json.loads(line) for line in text.splitlines()]
    return [line["deed"] for line in lines if line["deed"] != "step"]


def _is_there(orthanc: PluginOrthanc, study: str) -> bool:
    return orthanc.get(f"/studies/{study}").is_success


def test_only_the_originals_that_are_due_go_and_the_trail_says_so(orthanc: PluginOrthanc) -> None:
    wait_until(lambda: bool(orthanc.health()["ledger"] == "ok"), what="the ledger is open")
    exported = _store(orthanc, "a")
    _store(orthanc, "a", "2")
    in_doubt, grown = _store(orthanc, "b"), _store(orthanc, "c")
    _exported(orthanc, exported, 2)
    _exported(orthanc, grown, 1)
    _quarantined_with_pictures(orthanc, in_doubt)
    orthanc.stop()
    _months_pass(orthanc)
    # What arrives before the plugin is told of the rules is seen by Orthanc's own word.
    orthanc.start()
    wait_until(lambda: _deeds(orthanc)[-1] == "started", what="the trail says that it started")
    _store(orthanc, "c", "2")
    orthanc.kill()
    orthanc.configure({**SECTION, "Retention": RULES})
    orthanc.start()
    wait_until(lambda: not _is_there(orthanc, exported), what="the originals are deleted")
    address = f"/studies/{in_doubt}/attachments"
    wait_until(lambda: orthanc.get(address).json() == [], what="the pictures are deleted")
    wait_until(lambda: "pictures_deleted" in _deeds(orthanc), what="that is written down")
    assert _is_there(orthanc, grown)
    assert _is_there(orthanc, in_doubt)
    states = {row["study_id"]: row["state"] for row in orthanc.studies()}
    assert states[exported] == "exported"
    assert _audit("verify", "--ledger", _ledger(orthanc))[0] == 0, "while the plugin runs"
    orthanc.stop()
    log = orthanc.folder / "log"
    assert len(heads_in(log.read_text(errors="replace"))) >= 3, "at starts and at stops"
    code, text = _audit("verify", "--ledger", _ledger(orthanc), "--against", log)
    assert code == 0, text
    deeds = _deeds(orthanc)
    assert deeds.count("originals_deleting") == deeds.count("originals_deleted") == 1
    assert deeds.count("started") == 3
    assert deeds.count("stopped") == 2, "a kill leaves none"
    assert deeds[-1] == "stopped"


def test_a_part_that_comes_again_is_rejected_and_all_of_it_is_taken_in(
    orthanc: PluginOrthanc,
) -> None:
    study = _store(orthanc, "a")
    _store(orthanc, "a", "2")
    _exported(orthanc, study, 2)
    orthanc.stop()
    _months_pass(orthanc)
    orthanc.configure({**SECTION, "Retention": RULES})
    orthanc.start()
    wait_until(lambda: not _is_there(orthanc, study), what="the originals are deleted")
    _store(orthanc, "a", "2")

    def state() -> tuple[str, str | None]:
        [row] = orthanc.studies()
        return row["state"], row["reason"]

    wait_until(lambda: state() == ("rejected", "originals_deleted"), what="the part is rejected")
    _store(orthanc, "a", "1")
    wait_until(lambda: state() == ("pending", None), what="the whole is taken in")


def test_a_syslog_server_is_told_of_all_and_of_no_patient(
    orthanc: PluginOrthanc, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    key = tmp_path / "audit.key"
    key.write_text("k" * 64)
    key.chmod(0o600)
    with running_syslog(authority) as server:
        syslog = {
            "Url": f"tls://127.0.0.1:{server.port}",
            "CAFile": str(authority.certificate),
            "SourceID": "ward-3",
        }
        orthanc.stop()
        orthanc.configure({**SECTION, "Audit": {"KeyFile": str(key), "Syslog": syslog}})
        orthanc.start()
        server.stop()
        study = _store(orthanc, "a")
        _exported(orthanc, study, 1)

        away = "keeping: the syslog server does not take the audit trail"
        wait_until(lambda: away in orthanc.log(), what="the log says that the server is away")
        health = orthanc.health()
        assert health["audit"]["untold"] > 0
        assert not [one for one in health["problems"] if "syslog" in one], "no study waits for it"
        server.start()
        wait_until(lambda: bool(orthanc.health()["audit"]["untold"] == 0), what="all is told")
        wait_until(lambda: len(server.messages()) >= 3, what="all has arrived")
        told = "\n".join(server.messages())
        numbers = [head.number for head in heads_in(told)]
        assert numbers == sorted(numbers)
        for event in ("Application Start", "DICOM Instances Accessed", '"Export"', "ward-3"):
            assert event in told
        for value in (*canary_values(), study):
            assert value not in told
        file = tmp_path / "messages"
        file.write_text(told)
        options = ("--key-file", key, "--against", file)
        assert _audit("verify", "--ledger", _ledger(orthanc), *options)[0] == 0


def test_whoever_removes_originals_over_orthancs_addresses_stands_in_the_trail(
    orthanc: PluginOrthanc,
) -> None:
    """Every way to which Orthanc answers with an original less has its line."""
    wait_until(lambda: bool(orthanc.health()["ledger"] == "ok"), what="the ledger is open")
    change = {"Replace": {"StudyDescription": "X"}, "KeepSource": False}
    ways = {
        "plain": ("DELETE", "/studies/{study}", None),
        "slash": ("DELETE", "/studies/{study}/", None),
        "slashes": ("DELETE", "//studies//{study}", None),
        "coded": ("DELETE", "/%73tudies/{study}", None),
        "anonymize": ("POST", "/studies/{study}/anonymize", {"KeepSource": False}),
        "modify": ("POST", "/studies/{study}/modify/", change),
        "bulk-anonymize": (
            "POST",
            "/tools/bulk-anonymize",
            {"KeepSource": False, "Resources": ["{study}"]},
        ),
        "bulk-modify": ("POST", "/tools/bulk-modify/", {**change, "Resources": ["{study}"]}),
        "bulk-delete": ("POST", "/tools/bulk-delete", {"Resources": ["{study}"]}),
    }
    removed = []
    for name, (method, path, body) in ways.items():
        study = _store(orthanc, name)
        before = len(_actions(orthanc))
        content = None if body is None else json.dumps(body).replace("{study}", study).encode()
        orthanc.ask(method, path.format(study=study), content=content)
        if orthanc.get(f"/studies/{study}").status_code != 404:
            continue
        removed.append(name)
        assert len(_actions(orthanc)) == before + 1, name
    assert {"plain", "slash", "anonymize", "modify", "bulk-anonymize", "bulk-delete"} <= set(
        removed
    )


def _actions(orthanc: PluginOrthanc) -> list[str]:
    address = orthanc.health()["ledger_place"]
    with closing(sqlite3.connect(f"file:{address}?mode=ro", uri=True)) as ledger:
        rows = ledger.execute("SELECT details FROM events WHERE deed = 'action'")
        return [details for (details,) in rows]


def test_without_md5_an_image_that_comes_in_the_place_of_another_is_exported() -> None:
    with running_plugin_orthanc(SECTION, StoreMD5ForAttachments=False) as orthanc:
        study = _store(orthanc, "a")
        _exported(orthanc, study, 1)
        [instance] = orthanc.get(f"/studies/{study}/instances").json()
        path = f"/instances/{instance['ID']}"
        assert not orthanc.get(f"{path}/attachments/dicom/md5").is_success
        assert orthanc.delete(path).is_success
        _store(orthanc, "a")
        assert _taken_in(orthanc, study).revision == 2
        assert "Orthanc keeps no MD5" in orthanc.log()
