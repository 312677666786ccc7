"""What was exported stays at the target when its originals are deleted, and when another gateway
with the same key exports to the same study."""

from __future__ import annotations

import shutil
from pathlib import Path

import httpx
import pytest

from prichexy_gateway.home import Home
from prichexy_gateway.native import Options
from prichexy_testing.dicoms import radiograph_dataset, write
from prichexy_testing.gateway import TestGateway, gateway_in, needs_native_parts
from prichexy_testing.servers import wait_until
from prichexy_worker.contract import Reason, State

pytestmark = [pytest.mark.orthanc, pytest.mark.redis]


def image(folder: Path, number: int) -> Path:
    dataset = radiograph_dataset(window=(2048, 4096))
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3.1", "1.2.3.1.1"
    uid = f"1.2.3.1.2.{number}"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
    path = folder / f"{number}.dcm"
    path.write_bytes(write(dataset))
    return path


def test_an_export_outlives_its_originals_and_a_second_gateway(tmp_path: Path) -> None:
    needs_native_parts()
    originals, target = tmp_path / "originals", tmp_path / "target"
    originals.mkdir()
    target.mkdir()
    first, second, third, fourth = (image(originals, number) for number in range(1, 5))
    options = Options(
        stable_age=1,
        device="cpu",
        worker_settings={"export": {"kind": "folder", "folder": str(target)}},
    )

    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in target.rglob("*.dcm")}

    def ended(gateway: TestGateway, state: State, instances: int) -> None:
        def is_so() -> bool:
            return [(row.state, row.instances) for row in gateway.rows().values()] == [
                (state, instances)
            ]

        wait_until(is_so, 240, f"the study is {state}")

    with gateway_in(tmp_path / "one", options) as gateway:
        gateway.send([first, second])
        ended(gateway, State.EXPORTED, 2)
        exported = files()
        assert len(exported) == 2
        # As Orthanc Explorer does, and Orthanc itself when its disk is full.
        [study] = gateway.study_ids()
        admin = ("admin", gateway.home.password("admin"))
        url = f"{gateway.addresses.ingest_url}/studies/{study}"
        httpx.delete(url, auth=admin).raise_for_status()
        gateway.send([third])
        ended(gateway, State.REJECTED, 2)
        [row] = gateway.rows().values()
        assert row.reason == Reason.ORIGINALS_MISSING
        assert files() == exported
        # With the missing ones there again it goes on, and the first two are what they were.
        gateway.send([first, second])
        ended(gateway, State.EXPORTED, 3)
        exported, before = files(), exported
        assert len(exported) == 3
        assert before.items() <= exported.items()

    home = Home(tmp_path / "two" / "gateway")
    home.prepare()
    shutil.copy(tmp_path / "one" / "gateway" / "secrets" / "pseudonyms.key", home.key_file)
    with gateway_in(tmp_path / "two", options) as gateway:
        gateway.send([fourth])
        ended(gateway, State.EXPORTED, 1)
        both = files()
        assert len(both) == 4
        assert exported.items() <= both.items()
