"""Runs other de-identifiers and this gateway over the same planted radiographs, and counts leaks.

    PYTHONPATH=tests python benchmarks/side_by_side.py --packages FOLDER [--write PAGE]

The libraries are installed into ``--packages`` with pip, each into a folder of its own, where they
are not there yet; Orthanc is the one of this machine. All run with their defaults, as far as these
remove anything. The gateway runs with the deformation off: what is compared is the header's work.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

from prichexy_testing import others
from prichexy_testing.canaries import Canary, Haystack, Specimen, specimens
from prichexy_testing.fuzzing import still_tools
from prichexy_testing.headers import error_kinds
from prichexy_testing.sections import replace_section, table
from prichexy_testing.servers import running_orthanc
from prichexy_worker.errors import Rejected
from prichexy_worker.pipeline import anonymize

VERSIONS: Final = {"dicom-anonymizer": "2.1.0", "dicognito": "0.19.0", "deid": "0.4.13"}
#: One row of the table for several kinds of places.
ROWS: Final[Mapping[str, tuple[str, ...]]] = {
    "table attributes, top level": ("table attribute, top level",),
    "the same, nested 1 deep": ("table attribute, 1 deep",),
    "nested 2 to 5 deep": tuple(f"table attribute, {depth} deep" for depth in range(2, 6)),
    "text attributes outside the table": ("text attribute outside the table",),
    "free text in coded attributes": ("free text in a coded attribute",),
    "private": ("private",),
    "file meta, command group, preamble": ("file meta", "command group", "preamble"),
    "overlays, curves": ("overlay 60xx", "curve 50xx"),
    "unused bits of pixels": ("overlay in pixel bits", "unused high bits"),
    "after the last pixel, beside a codestream": (
        "after the last pixel",
        "comment of a codestream",
    ),
    "behind the data set, padding": ("after the data set", "data set trailing padding"),
    "icon, signatures, encrypted, original attributes": (
        *("icon image", "digital signature", "encrypted attributes", "original attributes"),
    ),
    "sequences as UN": ("sequence as UN, implicit VR", "sequence as UN, explicit VR"),
    "unknown standard elements": ("unknown standard element",),
    "character sets": ("character set",),
    "several values, very long values": ("multi-valued element", "very long value"),
    "twice, out of order": ("duplicate element", "out-of-order element"),
    "lookup tables": ("lookup table",),
}


class Outcome(NamedTuple):
    """What one de-identifier made of the files: by name the bytes and the milliseconds."""

    results: dict[str, bytes]
    milliseconds: list[float]


def library(name: str, packages: Path, source: Path) -> Outcome:
    """Run a library, installed on its own, over the folder ``source``."""
    own = packages / name
    if not own.exists():
        requirement = f"{name}=={VERSIONS[name]}"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(own)]
        subprocess.run([*command, requirement], check=True)
    with TemporaryDirectory() as target:
        run = subprocess.run(
            [sys.executable, others.__file__, name, source, target],
            env={**os.environ, "PYTHONPATH": str(own)},
            check=True,
            capture_output=True,
            text=True,
        )
        milliseconds = json.loads(run.stdout.splitlines()[-1])
        results = {file.name: file.read_bytes() for file in Path(target).iterdir()}
    return Outcome(results, list(milliseconds.values()))


def orthanc(source: Path) -> Outcome:
    """Send the files to a real Orthanc and anonymise each by its REST API."""
    results, milliseconds = {}, []
    with running_orthanc() as server:
        for file in sorted(source.iterdir()):
            stored = server.post("/instances", file.read_bytes())
            if not stored.is_success:
                continue
            start = time.perf_counter()
            answer = server.post(f"/instances/{stored.json()['ID']}/anonymize", b"{}")
            if answer.is_success:
                milliseconds.append(1000 * (time.perf_counter() - start))
                results[file.name] = answer.content
    return Outcome(results, milliseconds)


def gateway(source: Path) -> Outcome:
    """Run this project's pipeline."""
    results, milliseconds = {}, []
    for file in sorted(source.iterdir()):
        content = file.read_bytes()
        start = time.process_time()
        try:
            results[file.name] = anonymize(content, still_tools()).content
        except Rejected:
            continue
        milliseconds.append(1000 * (time.process_time() - start))
    return Outcome(results, milliseconds)


def leaked(
    outcome: Outcome, originals: Mapping[str, Specimen]
) -> tuple[Counter[str], Counter[str]]:
    """Give how many planted values survive by place, and how many were planted there.

    Of the files that the de-identifier gave back.
    """
    found: Counter[str] = Counter()
    planted: Counter[str] = Counter()
    for name, content in outcome.results.items():
        haystack = Haystack(content, result=False)
        for canary in in_the_file(originals[name].canaries):
            planted[canary.place] += 1
            found[canary.place] += haystack.shows(canary)
    return found, planted


def in_the_file(canaries: Iterable[Canary]) -> Iterable[Canary]:
    """Leave out the file's name, which whoever calls a library gives."""
    return (canary for canary in canaries if canary.place != "file name")


def with_new_errors(outcome: Outcome, source: Path) -> int:
    """Count the results in which dciodvfy finds a kind of error that the original lacks."""
    count = 0
    with TemporaryDirectory() as folder:
        for name, content in outcome.results.items():
            path = Path(folder) / "result.dcm"
            path.write_bytes(content)
            count += bool(error_kinds(path) - error_kinds(source / name))
    return count


def main() -> int:
    """Run all; the exit code is 1 when the gateway leaked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--packages", type=Path, required=True, help="where libraries are installed"
    )
    parser.add_argument("--write", type=Path, help="a page with a section <!-- side-by-side -->")
    chosen = parser.parse_args()
    logging.disable()
    with TemporaryDirectory() as folder:
        source = Path(folder)
        originals = {f"{number:03}.dcm": one for number, one in enumerate(specimens())}
        for name, one in originals.items():
            (source / name).write_bytes(one.content)
        runs: dict[str, Callable[[], Outcome]] = {
            f"{name} {version}": partial(library, name, chosen.packages, source)
            for name, version in VERSIONS.items()
        }
        runs["Orthanc"] = partial(orthanc, source)
        runs["this gateway"] = partial(gateway, source)
        columns = {}
        for name, run in runs.items():
            outcome = run()
            columns[name] = (outcome, *leaked(outcome, originals), with_new_errors(outcome, source))
    rows: list[list[object]] = []
    for row, places in ROWS.items():
        cells = [
            f"{sum(found[place] for place in places)} / {sum(planted[place] for place in places)}"
            for _, found, planted, _ in columns.values()
        ]
        rows.append([row, *cells])
    rows.append(["**all**", *(f"**{f.total()} / {p.total()}**" for _, f, p, _ in columns.values())])
    counts = [(len(outcome.results), errors) for outcome, *_, errors in columns.values()]
    rows.append([f"files given back, of {len(originals)}", *(made for made, _ in counts)])
    rows.append(["with new dciodvfy errors", *(errors for _, errors in counts)])
    times = [statistics.median(outcome.milliseconds) for outcome, *_ in columns.values()]
    rows.append(["CPU ms a file, median; Orthanc's elapsed", *(f"{time_:.0f}" for time_ in times)])
    text = table(["leaked / planted", *columns], rows)
    sys.stdout.write(text + "\n")
    if chosen.write is not None:
        replace_section(chosen.write, "side-by-side", text)
    _, found, _, _ = columns["this gateway"]
    return int(found.total() > 0)


if __name__ == "__main__":
    sys.exit(main())
