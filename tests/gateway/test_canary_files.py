"""Files full of planted values, with planted names, through ``prichexy anonymize``.

Nothing planted is in what the command leaves or says: results, their names, report, quarantine's
reasons, standard output and error.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from prichexy_testing.canaries import Canary, Specimen, is_told_by_clocks, specimens, survivors
from prichexy_testing.dicoms import radiograph_dataset, write

#: Every transfer syntax and half of the character sets have their turn in so many.
COUNT = 24
#: From when on what is said may name the time.
BEGAN = datetime.now(UTC)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Specimen], str]:
    """Run the command once over a folder; give the folder, the specimens and what was said."""
    folder = tmp_path_factory.mktemp("canaries")
    source = folder / "in"
    source.mkdir()
    found = list(specimens(COUNT, seed="command line", hands=32, long=False))
    for specimen in found:
        (source / specimen.file_name).write_bytes(specimen.content)
    unsafe = radiograph_dataset(BurnedInAnnotation="YES", StudyInstanceUID="1.2.3.4")
    (source / f"{found[0].file_name}.unsafe").write_bytes(write(unsafe))
    (source / f"{found[0].file_name}.txt").write_text("no DICOM")
    run = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "prichexy_testing.unreading_gateway",
                "anonymize",
                source,
                folder / "out",
            ),
            *(
                "--report",
                folder / "report.json",
            ),
            *("--device", "cpu"),
        ],
        env={"PYTHONPATH": ":".join(sys.path), "XDG_CONFIG_HOME": str(folder), "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=False,
    )
    # Some are in quarantine, one of them because it says itself that it shows text.
    assert run.returncode == 3, run.stdout + run.stderr
    return folder, found, run.stdout + run.stderr


def telling(canaries: Iterable[Canary]) -> list[bytes]:
    """Give the forms that no figure, digest or moment of a report shows by chance."""
    now = datetime.now(UTC)
    return [
        form
        for canary in canaries
        for form in canary.forms
        if len(form) >= 8 and not is_told_by_clocks(form, BEGAN, now)
    ]


def test_nearly_every_file_is_released_and_none_shows_what_was_planted(
    done: tuple[Path, list[Specimen], str],
) -> None:
    folder, found, _ = done
    results = sorted((folder / "out").rglob("*.dcm"))
    # In some the planted text stands where a code must, and cannot be kept.
    assert len(results) >= COUNT - 3
    canaries = [canary for specimen in found for canary in specimen.canaries]
    assert len(canaries) > 3000
    for result in results:
        content = result.read_bytes()
        assert [(c.place, c.path) for c in survivors(content, canaries) if len(c.raw) > 6] == []


def test_names_report_reasons_and_output_show_nothing_that_was_planted(
    done: tuple[Path, list[Specimen], str],
) -> None:
    folder, found, said = done
    forms = telling(canary for specimen in found for canary in specimen.canaries)
    names = "\n".join(str(path.relative_to(folder)) for path in (folder / "out").rglob("*"))
    quarantined = folder / "out-quarantine"
    names += "\n".join(path.name for path in quarantined.rglob("*"))
    reasons = [path.read_text() for path in quarantined.rglob("reason.json")]
    assert len(reasons) == 1 + COUNT - len(list((folder / "out").rglob("*.dcm")))
    report = (folder / "report.json").read_text()
    for text in (names, report, said, *reasons):
        lowered = text.lower().encode()
        assert [form for form in forms if form in lowered] == []
