"""What a person decides on the dashboard takes effect at the real export peer, and only that."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import numpy as np
import pydicom
import pytest

from prichexy_gateway.home import default_bundle
from prichexy_model.bundle import read_bundle
from prichexy_testing.dicoms import phantom, radiograph_dataset, write
from prichexy_testing.gateway import TestGateway, gateway_in
from prichexy_worker.contract import Reason, State

pytestmark = [pytest.mark.orthanc, pytest.mark.redis]

ROWS, COLUMNS = 192, 160
#: What the person has erased, in rows and columns.
ERASED = np.s_[20:60, 30:90]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestGateway]:
    with gateway_in(tmp_path_factory.mktemp("decisions")) as running:
        yield running


@pytest.fixture
def person(gateway: TestGateway) -> Iterator[httpx.Client]:
    url = gateway.addresses.ingest_url
    with httpx.Client(
        base_url=f"{url}/prichexy/",
        auth=("admin", gateway.home.password("admin")),
        headers={"Origin": url},
        timeout=60.0,
    ) as client:
        yield client


def radiograph(folder: Path, number: int, image: int = 1, *, speaks_of_text: str = "YES") -> Path:
    """Write an image of a study whose header says whether it shows text: no search finds any."""
    uid = f"1.2.3.{number}"
    dataset = radiograph_dataset(
        values=phantom(ROWS, COLUMNS),
        window=(2048, 4096),
        StudyInstanceUID=uid,
        SeriesInstanceUID=f"{uid}.1",
        SOPInstanceUID=f"{uid}.1.{image}",
        InstanceNumber=str(image),
        BurnedInAnnotation=speaks_of_text,
    )
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    path = folder / f"{number}-{image}.dcm"
    path.write_bytes(write(dataset))
    return path


def form_on(page: str) -> dict[str, str]:
    """Give what the first form of a page that posts carries hidden."""
    form = page.partition('method="post"')[2].partition("</form>")[0]
    return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', form))


def release(person: httpx.Client, job: str, fields: Mapping[str, str]) -> str:
    page = person.get(f"desk/{job}").text
    pictures = set(re.findall(rf"studies/{job}/(whole-[0-9]+\.png)", page))
    for picture in pictures:
        assert person.get(f"studies/{job}/{picture}").content.startswith(b"\x89PNG")
    seen = {f"{number}.seen": "yes" for number in range(1, len(pictures) + 1)}
    why = {"why": Reason.RELEASED_ERASED.value}
    answer = person.post(f"desk/{job}/release", data={**form_on(page), **seen, **why, **fields})
    assert answer.status_code == 303, answer.text
    return answer.headers["Location"]


def box(image: int) -> dict[str, str]:
    rows, columns = ERASED
    sides = {
        "x": columns.start,
        "y": rows.start,
        "w": columns.stop - columns.start,
        "h": rows.stop - rows.start,
    }
    return {f"{image}.1.{side}": str(value) for side, value in sides.items()} | {
        f"{image}.1.do": "erase"
    }


def exported(gateway: TestGateway, number: int) -> list[pydicom.Dataset]:
    uid = gateway.pseudonyms().uid(f"1.2.3.{number}")
    with gateway.export() as export:
        return [
            pydicom.dcmread(io.BytesIO(export.instance(instance)))
            for study in export.find("Study", uid)
            for instance in _instances(export, study)
        ]


def _instances(export: object, study: str) -> list[str]:
    return sorted(one["ID"] for one in export._json(f"/studies/{study}/instances"))  # type: ignore[attr-defined]


def test_a_decision_outlives_a_killed_worker_and_counts_for_what_was_looked_at(
    gateway: TestGateway, person: httpx.Client, tmp_path: Path
) -> None:
    gateway.send([radiograph(tmp_path, 1)])
    [(study_id, row)] = gateway.until_ended().items()
    assert (row.state, row.reason) == (State.QUARANTINED, Reason.BURNED_IN_TEXT.value)
    assert exported(gateway, 1) == []
    gateway.kill("worker")
    form = person.get(f"desk/{row.job_id}").text
    assert "note=released" in release(person, row.job_id, box(1))
    assert (
        "note=moved"
        in person.post(
            f"desk/{row.job_id}/release",
            data={**form_on(form), "1.seen": "yes", "why": Reason.RELEASED_ERASED.value},
        ).headers["Location"]
    )
    gateway.start("worker")
    row = gateway.until_ended([study_id])[study_id]
    assert (row.state, row.revision) == (State.EXPORTED, 2)
    [after] = exported(gateway, 1)
    assert after.BurnedInAnnotation == "NO"
    before = phantom(ROWS, COLUMNS)
    # Inside, well away from what the displacement moves over the edge.
    inside = np.s_[28:52, 38:82]
    assert (after.pixel_array[inside] != before[inside]).mean() > 0.9
    assert row.measures["text_erased_share"] == pytest.approx(40 * 60 / (ROWS * COLUMNS))

    # Another image comes: the first is as decided, the new one is judged as if nobody had looked.
    gateway.send([radiograph(tmp_path, 1, image=2)])
    row = gateway.until_ended([study_id])[study_id]
    assert (row.state, row.revision) == (State.QUARANTINED, 3)
    assert row.measures["images_in_doubt"] == 1
    assert exported(gateway, 1) == [], "a study leaves whole or not at all"
    release(person, row.job_id, box(1))
    assert gateway.until_ended([study_id])[study_id].state is State.EXPORTED
    assert len(exported(gateway, 1)) == 2

    # And is taken back.
    page = person.get(f"studies/{row.job_id}/withdraw").text
    fields = {**form_on(page), "reason": Reason.WITHDRAWN_CONSENT.value}
    assert person.post(f"studies/{row.job_id}/withdraw", data=fields).status_code == 303
    row = gateway.until_ended([study_id])[study_id]
    assert (row.state, row.reason) == (State.REJECTED, Reason.WITHDRAWN_CONSENT.value)
    assert exported(gateway, 1) == []
    trail = person.get("audit.csv").text
    assert trail.count("image_decided") == 2
    assert gateway.command("audit", "verify")


def test_a_study_is_made_anew_with_a_chosen_model_and_strength(
    gateway: TestGateway, person: httpx.Client, tmp_path: Path
) -> None:
    gateway.send([radiograph(tmp_path, 2, speaks_of_text="NO")])
    with gateway.ingest() as ingest:
        [study_id] = ingest.find("Study", "1.2.3.2")
    row = gateway.until_ended([study_id])[study_id]
    assert row.state is State.EXPORTED
    [first] = exported(gateway, 2)
    page = person.get(f"studies/{row.job_id}/rerun").text
    [bundle] = re.findall(r'<option value="([0-9a-f]{64})">', page)
    fields = {**form_on(page), "bundle": bundle, "strength": "0.5"}
    assert person.post(f"studies/{row.job_id}/rerun", data=fields).status_code == 303
    row = gateway.until_ended([study_id])[study_id]
    assert (row.state, row.revision) == (State.EXPORTED, 2)
    [second] = exported(gateway, 2)
    assert first.SOPInstanceUID == second.SOPInstanceUID
    assert "strength" not in first.DerivationDescription
    assert "deformed at 0.5 times its strength by model" in second.DerivationDescription
    largest = row.measures["max_displacement_px"]
    shipped = read_bundle(default_bundle())
    # Along an axis, in halves of the image: 0.5 times what the model may do at its own strength.
    reach = 0.5 * (shipped.mu + (shipped.coarse.mu if shipped.coarse else 0))
    assert 0 < largest <= reach * 2**0.5 * COLUMNS / 2
    assert not np.array_equal(first.pixel_array, second.pixel_array)

    # And is taken back though its original is gone.
    original = f"{gateway.addresses.ingest_url}/studies/{study_id}"
    httpx.delete(original, auth=person.auth).raise_for_status()
    page = person.get(f"studies/{row.job_id}/withdraw").text
    fields = {**form_on(page), "reason": Reason.WITHDRAWN_CONSENT.value}
    assert person.post(f"studies/{row.job_id}/withdraw", data=fields).status_code == 303
    row = gateway.until_ended([study_id])[study_id]
    assert (row.state, row.reason) == (State.REJECTED, Reason.WITHDRAWN_CONSENT.value)
    assert exported(gateway, 2) == []
