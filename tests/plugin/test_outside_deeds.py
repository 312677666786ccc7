"""Whoever undoes pseudonyms, puts a ledger back or removes originals stands in the audit trail."""

from __future__ import annotations

import base64
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from prichexy_gateway.deeds import DoneDeed, check_read, note, noted, unread
from prichexy_gateway.errors import Failed
from prichexy_gateway.home import Home
from prichexy_plugin.chain import Line
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.outside_deeds import OutsideDeed, read_deeds, removal
from prichexy_plugin.people import person
from prichexy_plugin.wiring import Plugin
from prichexy_testing.fake_orthanc import FakeOrthanc, orthanc_id
from prichexy_testing.plugin_fakes import load_script
from prichexy_testing.servers import free_port, wait_until
from prichexy_worker.contract import ContractError

ID = orthanc_id("a")
DEED: dict[str, Any] = {
    "at": "2026-03-01T08:00:00+00:00",
    "by": "anna as root@host",
    "action": "crosswalk",
    "key_id": "a" * 16,
    "studies": 3,
    "recipients": 1,
    "readers": "b" * 64,
}


def test_a_deed_says_all_that_was_told_of_it() -> None:
    [deed] = read_deeds({"deeds": [DEED]})
    assert deed == OutsideDeed(**DEED)
    assert deed.details() == {
        "action": "crosswalk",
        "by": "anna as root@host",
        "done_at": "2026-03-01T08:00:00+00:00",
        "pseudonyms": "a" * 16,
        "studies": 3,
        "recipients": 1,
        "readers": "b" * 64,
    }
    [other] = read_deeds({"deeds": [DEED | {"at": "2026-03-01T08:00:01+00:00"}]})
    assert other.digest != deed.digest


@pytest.mark.parametrize(
    "change",
    [
        {"action": "DOE^JANE"},
        {"action": 1},
        {"by": "a\nb"},
        {"key_id": "x"},
        {"readers": "DOE^JANE"},
        {"studies": True},
        {"recipients": -1},
        {"at": "yesterday, DOE^JANE"},
        {"more": 1},
    ],
)
def test_a_deed_of_an_odd_form_is_refused_and_not_repeated(change: dict[str, Any]) -> None:
    with pytest.raises(ContractError) as refused:
        read_deeds({"deeds": [DEED | change]})
    assert "DOE" not in str(refused.value)
    with pytest.raises(ValueError, match=r"^[a-z_ ]+$"):
        DoneDeed.from_json(DEED | change)


@pytest.mark.parametrize("action", ["adopt", "backup", "crosswalk", "restore"])
def test_what_the_command_line_notes_the_plugin_takes(action: str) -> None:
    deed = DEED | {"action": action}
    assert read_deeds({"deeds": [asdict(DoneDeed.from_json(deed))]}) == (OutsideDeed(**deed),)


@pytest.mark.parametrize(
    "torn", ['{"at": "2026-11-28T14:0', "\xff", "[]", "null", '{"at": 1}', "[" * 100_000]
)
def test_a_torn_line_keeps_no_deed_from_being_told(tmp_path: Path, torn: str) -> None:
    home = Home(tmp_path)
    note(home, "backup", key_id="a" * 16, studies=1)
    with (tmp_path / "deeds.jsonl").open("a", encoding="latin-1") as stream:
        stream.write(torn)
    check = pytest.raises(Failed, match=r"deeds\.jsonl: 1 line cannot be read")
    with check:
        check_read(home)
    note(home, "crosswalk", key_id="a" * 16, studies=2)
    note(home, "restore", key_id="a" * 16, studies=3)
    assert [deed.studies for deed in noted(home)] == [1, 2, 3]
    assert unread(home) == 1


def test_what_was_noted_whole_needs_no_word(tmp_path: Path) -> None:
    home = Home(tmp_path)
    check_read(home)
    note(home, "backup", key_id="a" * 16, studies=1)
    check_read(home)
    assert (tmp_path / "deeds.jsonl").read_text().count("\n") == 1


@pytest.mark.parametrize("data", [None, {}, {"deeds": 1}, {"deeds": [DEED] * 11}, {"deeds": [1]}])
def test_what_is_no_list_of_deeds_is_refused(data: Any) -> None:
    with pytest.raises(ContractError):
        read_deeds(data)


GET, POST, PUT, DELETE = 1, 2, 3, 4


@pytest.mark.parametrize(
    ("method", "uri", "details"),
    [
        *(
            (DELETE, f"/{level}/{ID}", {"action": "delete", "resource": level, "orthanc_id": ID})
            for level in ("patients", "studies", "series", "instances")
        ),
        (
            DELETE,
            f"/studies/{ID}/attachments/4711",
            {"action": "delete attachments", "resource": "studies", "orthanc_id": ID},
        ),
        (
            POST,
            f"/studies/{ID}/merge",
            {"action": "merge", "resource": "studies", "orthanc_id": ID},
        ),
        (
            DELETE,
            f"//instances/{ID}//",
            {"action": "delete", "resource": "instances", "orthanc_id": ID},
        ),
        *(
            (
                POST,
                f"/studies/{ID}/{action}{end}",
                {"action": action, "resource": "studies", "orthanc_id": ID},
            )
            for action in ("anonymize", "modify")
            for end in ("", "/")
        ),
        *(
            (POST, f"/tools/{name}{end}", {"action": name})
            for name in ("bulk-delete", "bulk-modify", "bulk-anonymize", "execute-script")
            for end in ("", "/")
        ),
        (DELETE, "/changes", {"action": "delete", "resource": "changes"}),
    ],
)
def test_a_request_that_may_remove_an_original_is_known(
    method: int, uri: str, details: dict[str, str]
) -> None:
    assert removal(uri, method) == details


@pytest.mark.parametrize(
    ("method", "uri"),
    [
        (GET, f"/studies/{ID}"),
        (POST, f"/studies/{ID}/archive"),
        (POST, "/instances"),
        (PUT, f"/studies/{ID}/metadata/1024"),
        (DELETE, "/studies/DOE^JANE"),
        (DELETE, f"/jobs/{ID}"),
        (POST, "/prichexy/api/v1/reports"),
    ],
)
def test_other_requests_leave_no_line(method: int, uri: str) -> None:
    assert removal(uri, method) is None


def asked(user: str | None, **more: Any) -> dict[str, Any]:
    token = base64.b64encode(f"{user}:x".encode()).decode()
    headers = {} if user is None else {"authorization": f"Basic {token}"}
    return {"headers": headers, "ip": "127.0.0.1", "get": {}, **more}


@pytest.mark.parametrize("user", ["x" * 500, "o\0scar", "a\tb\n", "é" * 128])
def test_no_name_of_a_user_keeps_a_line_out_of_the_trail(ledger: Ledger, user: str) -> None:
    orthanc: Any = FakeOrthanc()
    runtime: Any = SimpleNamespace(ledger=ledger)
    site: Any = None
    Plugin(orthanc, runtime, site).on_admitted(f"/studies/{ID}", **asked(user, method=DELETE))
    ledger.start_backfill(per_minute=1, total=1, by=user)
    ledger.stop_backfill(user)
    walk = ledger.backfill()
    assert walk is not None
    assert orthanc.log == []
    actors = [line.actor for line in ledger.lines() if isinstance(line, Line)]
    assert actors == [person(user)] * 3
    assert f"user {walk.started_by}" == f"user {walk.stopped_by}" == person(user)


def test_the_filter_has_the_trail_say_who_removes_what(tmp_path: Path) -> None:
    orthanc = FakeOrthanc(
        {
            "StorageDirectory": str(tmp_path),
            "StableAge": 1,
            "AuthenticationEnabled": True,
            "RegisteredUsers": {"worker": "x"},
            "PriCheXy": {
                "WorkerUser": "worker",
                "Broker": {"Url": f"redis://127.0.0.1:{free_port()}/0"},
            },
        }
    )
    script = load_script(orthanc)
    assert script.admit(f"/studies/{ID}", **asked("anna", method=DELETE)), "no ledger yet"
    assert "no line of a removal by user anna" in "".join(orthanc.log)
    script.notice(orthanc.ChangeType.ORTHANC_STARTED, 0, "")
    try:
        wait_until(lambda: script.plugin._runtime.ledger is not None, what="the ledger is open")
        ledger = script.plugin._runtime.ledger
        assert script.admit(f"/studies/{ID}", **asked("anna", method=DELETE))
        assert script.admit(f"/studies/{ID}", **asked("anna", method=GET))
        assert not script.admit(f"/studies/{ID}", **asked("worker", method=DELETE)), "not admitted"
        assert script.admit("/tools/bulk-delete", **asked(None, method=POST))
        told = [(line.actor, line.details) for line in ledger.lines() if line.deed == "action"]
    finally:
        script.notice(orthanc.ChangeType.ORTHANC_STOPPED, 0, "")
    assert told == [
        ("user anna", {"action": "delete", "resource": "studies", "orthanc_id": ID}),
        ("user (none)", {"action": "bulk-delete"}),
    ]
