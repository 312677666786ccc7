"""A model is promoted in a running gateway: real Orthancs, plugin, Redis and worker."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import httpx
import pydicom
import pytest

from prichexy_gateway.bundle_check import store_at
from prichexy_gateway.native import Options
from prichexy_model.bundle import read_bundle
from prichexy_testing.bundles import another_bundle
from prichexy_testing.gateway import TestGateway, gateway_in
from prichexy_testing.servers import wait_until
from prichexy_testing.shared_data import REPO
from prichexy_testing.system_data import radiographs
from prichexy_worker.contract import IMAGE_PARTS, State
from prichexy_worker.header import TABLE_EDITION

pytestmark = [pytest.mark.orthanc, pytest.mark.redis]


def announced(gateway: TestGateway) -> set[str]:
    """Give the digests that the dashboard shows of workers' models."""
    with gateway.ingest() as ingest:
        return {str(worker["model"]["digest"]) for worker in ingest.health().workers}


def exported(gateway: TestGateway, count: int) -> list[str]:
    """Give what each exported object of the first ``count`` studies says of its making."""
    uids = [gateway.pseudonyms().uid(f"1.2.3.{number}.2") for number in range(1, count + 1)]
    with gateway.export() as export:
        assert len(export.all_studies()) == count
        contents = [export.instance(*export.find("Instance", uid)) for uid in uids]
    return [str(pydicom.dcmread(io.BytesIO(c)).DerivationDescription) for c in contents]


def roll_back_on_the_dashboard(gateway: TestGateway) -> None:
    """Do what an administrator does: open the page that asks, choose a reason, send the form."""
    where = f"{gateway.addresses.ingest_url}/prichexy/models/rollback"
    login = ("admin", gateway.home.password("admin"))
    with httpx.Client(auth=login, trust_env=False, timeout=60) as browser:
        shown = browser.get(where).text
        fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', shown))
        asked = browser.post(where, data={**fields, "reason": "trial"}).text
        fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', asked))
        answer = browser.post(where, data=fields)
    assert answer.headers["Location"].endswith("?note=rolled")


def test_a_promotion_reaches_a_running_gateway_and_no_study_is_lost(tmp_path: Path) -> None:
    old = read_bundle(REPO / "model" / "bundle").digest
    new = read_bundle(another_bundle(tmp_path / "new", 2, evidence="trained")).digest
    options = Options(stable_age=1, device="cpu")
    with gateway_in(tmp_path, options) as gateway:
        assert announced(gateway) == {old}
        assert gateway.send(radiographs(tmp_path, 1, 3)).stored == 3
        wait_until(lambda: any(r.state is State.EXPORTED for r in gateway.rows().values()), 300)
        # Not by the command, which takes the seconds in which all would be done.
        store_at(gateway.home.models).promote(
            tmp_path / "new", "test", force=True, reason="what is known of it is less"
        )
        wait_until(lambda: announced(gateway) == {new}, 300, "the dashboard shows it")
        assert gateway.send(radiographs(tmp_path, 4, 2)).stored == 2
        wait_until(lambda: len(gateway.study_ids()) == 5, 30, "all have arrived")
        rows = gateway.until_ended()
        assert {row.state for row in rows.values()} == {State.EXPORTED}
        assert {row.attempts for row in rows.values()} == {1}
        texts = exported(gateway, 5)
        assert all((old in text) != (new in text) for text in texts)
        assert sum(old in text for text in texts) >= 1
        assert sum(new in text for text in texts) >= 2

        assert "All is well." in gateway.command("doctor")
        entries = json.loads(gateway.command("model", "list", "--json"))["versions"]
        assert [(e["version"]["weights"], e["in_use"]) for e in entries] == [
            (old, False),
            (new, True),
        ]

        assert old in gateway.command("model", "rollback")
        wait_until(lambda: announced(gateway) == {old}, 120, "the way back is taken, too")
        words = ("--force", "--reason", "what is known of it is less")
        assert new in gateway.command("model", "promote", tmp_path / "new", *words)
        wait_until(lambda: announced(gateway) == {new}, 300, "and the way forth again")
        roll_back_on_the_dashboard(gateway)
        wait_until(lambda: announced(gateway) == {old}, 120, "and back by the dashboard")
        gateway.assert_alive()

        assert "The audit trail is whole" in gateway.command("audit", "verify")
        trail = [json.loads(one) for one in gateway.command("audit", "export").splitlines()]
        changes = [line["details"] for line in trail if line["deed"] == "model_changed"]
        assert [(one["action"], one["model"]) for one in changes] == [
            ("installed", old),
            ("promoted", new),
            ("rolled back", old),
            ("promoted", new),
            ("rolled back", old),
        ]
        assert changes[-1]["by"] == "admin on the dashboard"
        pictured = [line["details"] for line in trail if line["deed"] == "pictures_kept"]
        assert [one["pictures"] for one in pictured] == [len(IMAGE_PARTS)] * 5
        ends = [line["details"] for line in trail if line["to_state"] == "exported"]
        assert {line["model"] for line in ends} == {old, new}
        assert {line["key_id"] for line in ends} == {gateway.pseudonyms().key_id}
        assert {line["edition"] for line in ends} == {TABLE_EDITION}
        measures = [row.measures["targets_unproved"] for row in gateway.rows().values()]
        assert measures == [0.0] * 5, "so a rule may delete the originals"
