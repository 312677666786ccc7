"""Takes the pictures of the dashboard that stand in docs/images, of a real gateway at work.

    PYTHONPATH=plugin:worker:model:gateway:tests .venv/bin/python -m prichexy_testing.screenshots \\
        docs/images

The radiograph is the public sample that ``prichexy serve`` sends; into one copy of it a made-up
name is written, so that it ends on the quarantine desk.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import pydicom
from PIL import Image, ImageDraw, ImageFont

from prichexy_gateway.serving import sample
from prichexy_testing.browsers import logged_in, running_browser
from prichexy_testing.gateway import TestGateway, gateway_in
from prichexy_testing.servers import wait_until
from prichexy_testing.system_data import as_its_own_study
from prichexy_worker import pixels
from prichexy_worker.contract import State

_COPIES: Final = 5
_VIEW: Final = {"width": 1200, "height": 860}
#: So large that the search asks a human: it may be anatomy.
_NAME: Final = "MADEUP NAME"
_LARGE: Final = 280


def main() -> int:
    """Take all pictures into the folder that the command line names."""
    place = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder, gateway_in(Path(folder, "gateway")) as gateway:
        studies = []
        for number in range(_COPIES):
            own = Path(folder, str(number))
            own.mkdir()
            studies.append(as_its_own_study(sample(), own))
        _write_a_name(studies[-1])
        assert gateway.send(studies).stored == _COPIES
        wait_until(lambda: len(gateway.study_ids()) == _COPIES, 120, "all have arrived")
        rows = gateway.until_ended()
        assert {row.state for row in rows.values()} == {State.EXPORTED, State.QUARANTINED}
        exported = next(row for row in rows.values() if row.state is State.EXPORTED)
        _take(gateway, place, exported.job_id)
    return 0


def _write_a_name(path: Path) -> None:
    dataset = pydicom.dcmread(path)
    shown = pixels.decode(dataset)
    values = shown.values.astype(np.int32)
    text = Image.new("L", values.shape[::-1])
    font = ImageFont.load_default(_LARGE)
    ImageDraw.Draw(text).text((60, 30), _NAME, fill=255, font=font)
    values[np.asarray(text) > 127] = values.min() if shown.inverted else values.max()
    written = replace(shown, values=values.astype(shown.values.dtype))
    pixels.with_pixels(dataset, written).save_as(path, enforce_file_format=True)


def _take(gateway: TestGateway, place: Path, job_id: str) -> None:
    begin = f"{gateway.addresses.ingest_url}/prichexy"
    with running_browser() as browser:
        page = logged_in(browser, "admin", gateway.home.password("admin"), viewport=_VIEW)
        for name, address in (
            ("dashboard", ""),
            ("quarantine-desk", "/desk"),
            ("rules", "/rules"),
            ("models", "/models"),
        ):
            page.goto(f"{begin}{address}", wait_until="networkidle")
            page.screenshot(path=place / f"{name}.png", full_page=name == "dashboard")
        page.goto(f"{begin}/studies/{job_id}", wait_until="networkidle")
        page.get_by_text("Image 1 of 1").click()
        page.locator("details[open] .compare").wait_for()
        page.wait_for_load_state("networkidle")
        shown = page.locator("details[open]")
        shown.screenshot(path=place / "side-by-side.jpg", type="jpeg", quality=85)


if __name__ == "__main__":
    sys.exit(main())
