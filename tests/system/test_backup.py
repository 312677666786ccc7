"""A gateway is lost and comes back from its backup: nothing is exported twice, nothing is lost."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import pyrage
import pytest

from prichexy_gateway.backup import restore
from prichexy_gateway.home import Home
from prichexy_testing.gateway import TestGateway, gateway_in, needs_native_parts
from prichexy_testing.servers import wait_until
from prichexy_testing.system_data import radiographs
from prichexy_worker.contract import State

pytestmark = [pytest.mark.orthanc, pytest.mark.redis]


def at_the_peer(gateway: TestGateway) -> dict[str, str]:
    """Give the SHA-256 of every exported object, by the export Orthanc's id of it."""
    found = {}
    with gateway.export() as export:
        for study in export.all_studies():
            instance = export.first_instance(study)
            assert instance is not None
            found[instance] = hashlib.sha256(export.instance(instance)).hexdigest()
    return found


def send_all(gateway: TestGateway, paths: list[Path]) -> None:
    before = len(gateway.study_ids())
    assert gateway.send(paths).stored == len(paths)
    wait_until(lambda: len(gateway.study_ids()) == before + len(paths), 60, "all have arrived")


def test_a_lost_gateway_comes_back(tmp_path: Path) -> None:
    needs_native_parts()
    owner = pyrage.x25519.Identity.generate()
    identity = tmp_path / "owner.key"
    identity.write_text(f"{owner}\n")
    paths = radiographs(tmp_path, 1, 3)
    first, second, later = paths
    with gateway_in(tmp_path / "first") as gateway:
        send_all(gateway, [first, second])
        before = gateway.until_ended()
        assert {row.state for row in before.values()} == {State.EXPORTED}
        # While it runs, as a nightly job does.
        said = gateway.command("backup", tmp_path / "backup", "--recipient", owner.to_public())
        assert "2 studies" in said
        send_all(gateway, [later])
        gateway.until_ended()
        exported = at_the_peer(gateway)
        assert len(exported) == 3

    # The machine is gone: originals, ledger, Redis, secrets, model. The export peer is another one.
    home = Home(tmp_path / "second" / "gateway")
    restore(home, tmp_path / "backup", identity_file=identity, now=datetime.now(UTC))
    home.folder("export").rmdir()
    lost = Home(tmp_path / "first" / "gateway")
    lost.folder("export").rename(home.folder("export"))
    with gateway_in(tmp_path / "second") as gateway:
        assert at_the_peer(gateway) == exported
        # What the PACS sends again: what the backup knew, and what came after it.
        send_all(gateway, paths)
        wait_until(lambda: len(gateway.rows()) == 3, 60, "the ledger knows all")
        after = gateway.until_ended()
        assert {row.state for row in after.values()} == {State.EXPORTED}
        known = {study: row for study, row in after.items() if study in before}
        assert {study: (row.job_id, row.attempts) for study, row in known.items()} == {
            study: (row.job_id, 1) for study, row in before.items()
        }
        # The same key and model give the same bytes under the same UIDs: it is there once.
        assert at_the_peer(gateway) == exported
        assert "All is well." in gateway.command("doctor")
