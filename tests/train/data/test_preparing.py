"""From a source folder to a prepared set: whole, resumed after a kill, refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from prichexy_testing import miniature_chestxray14 as miniature
from prichexy_testing.miniature_chestxray14 import Miniature
from prichexy_testing.servers import wait_until
from prichexy_testing.shared_data import REPO
from prichexy_train.data import decoding
from prichexy_train.data.cache import DIGESTS
from prichexy_train.data.prepared import IMAGES, PREPARED, PreparedSet
from prichexy_train.data.preparing import prepare_set
from prichexy_train.data.problems import UnusableData
from prichexy_train.errors import InUse

FILES = (
    "images.npy",
    "catalogue.csv",
    "split.csv",
    "near_duplicates.csv",
    "pairs/train.csv",
    "pairs/test_matched.csv",
)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give the list of the files that this process decodes from now on."""
    names: list[str] = []
    real = decoding.decode

    def decode(path: Path, *arguments: Any, **options: Any) -> Any:
        names.append(path.name)
        return real(path, *arguments, **options)

    monkeypatch.setattr(decoding, "decode", decode)
    return names


def prepare(source: Miniature, to: Path, **options: Any) -> dict[str, Any]:
    return prepare_set(miniature.settings(source, size=16), source.folder, to, **options)


def same_files(one: Path, other: Path) -> bool:
    return all((one / file).read_bytes() == (other / file).read_bytes() for file in FILES)


def test_a_prepared_set_holds_all_that_training_reads(official: Miniature, tmp_path: Path) -> None:
    summary = prepare(official, tmp_path / "to")
    prepared = PreparedSet.open(tmp_path / "to", verify=True)
    assert (prepared.name, len(prepared.images), prepared.images.size) == (
        "miniature",
        official.images,
        16,
    )
    for index in (0, official.images // 2, official.images - 1):
        path = official.folder / prepared.catalogue.images[index].path
        expected = decoding.decode(path, 16, upscale=False).astype(np.float32) / 255
        np.testing.assert_array_equal(
            prepared.images.gather(np.array([index]))[0, 0].numpy(), expected
        )
    parts = {part: prepared.split(part).tolist() for part in ("train", "val", "test")}
    assert sorted(chain(*parts.values())) == list(range(official.images))
    assert len(parts["train"]) == official.train_images
    assert prepared.pair_names == ("train", "val", "test", "test_matched")
    for name in prepared.pair_names:
        pairs = prepared.pairs(name)
        part = parts[name.partition("_")[0]]
        assert set(pairs.first.tolist()) | set(pairs.second.tolist()) <= set(part)
        assert summary["pairs"][name]["pairs"] == len(pairs)
    assert json.loads((tmp_path / "to" / PREPARED).read_text())["summary"] == summary
    assert prepared.summary == summary


def test_the_summary_counts_patients_pairs_and_who_is_behind_them(
    official: Miniature, tmp_path: Path
) -> None:
    summary = prepare(official, tmp_path)
    prepared = PreparedSet.open(tmp_path)
    patients = prepared.catalogue.patients
    assert summary["all"] == {
        "images": official.images,
        "patients": official.patients,
        "patients_with_several": int((np.bincount(patients) > 1).sum()),
    }
    assert sum(part["patients"] for part in summary["parts"].values()) == official.patients
    matched = prepared.pairs("test_matched")
    told = summary["pairs"]["test_matched"]
    assert told["same"] == told["patients_behind_same"] == matched.same.sum()
    assert told["share_of_top_50"] == 1
    assert summary["labels"] == prepared.catalogue.counts()


def test_processes_and_repetition_change_nothing(official: Miniature, tmp_path: Path) -> None:
    prepare(official, tmp_path / "one", jobs=1)
    prepare(official, tmp_path / "two", jobs=2)
    assert same_files(tmp_path / "one", tmp_path / "two")
    assert PreparedSet.open(tmp_path / "one").digest == PreparedSet.open(tmp_path / "two").digest


def test_a_set_that_is_prepared_again_is_not_decoded_again(
    official: Miniature, tmp_path: Path, counted: list[str]
) -> None:
    prepare(official, tmp_path)
    digest = PreparedSet.open(tmp_path).digest
    assert len(counted) == official.images
    pairs = miniature.settings(official, size=16).model_dump()["pairs"]
    pairs["test_matched"] = {"count": 4, "seed": 9}
    prepare_set(miniature.settings(official, size=16, pairs=pairs), official.folder, tmp_path)
    assert len(counted) == official.images
    assert len(PreparedSet.open(tmp_path, verify=True).pairs("test_matched")) == 4
    assert PreparedSet.open(tmp_path).digest != digest


def test_a_row_that_rotted_is_found_and_mended(
    official: Miniature, tmp_path: Path, counted: list[str]
) -> None:
    prepare(official, tmp_path)
    digest = PreparedSet.open(tmp_path).digest
    images = np.load(tmp_path / IMAGES, mmap_mode="r+")
    images[7, 3, 3] ^= 1
    images.flush()
    PreparedSet.open(tmp_path)
    with pytest.raises(UnusableData, match=r"images\.npy: is not as it was written"):
        PreparedSet.open(tmp_path, verify=True)
    counted.clear()
    prepare(official, tmp_path)
    assert counted == [PreparedSet.open(tmp_path).catalogue.images[7].image_id]
    assert PreparedSet.open(tmp_path, verify=True).digest == digest


def test_a_source_file_that_changed_is_decoded_again(
    spoilt: Miniature, tmp_path: Path, counted: list[str]
) -> None:
    prepare(spoilt, tmp_path / "to")
    path = sorted(spoilt.folder.glob("images*/**/*.png"))[5]
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(path)
    counted.clear()
    prepare(spoilt, tmp_path / "to")
    assert counted == [path.name]


def children(process: int) -> list[int]:
    return [
        int(child)
        for task in Path(f"/proc/{process}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]


def running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")
def test_after_a_kill_nothing_lives_on_and_the_next_run_finishes_exactly(
    tmp_path: Path, counted: list[str]
) -> None:
    source = miniature.make(tmp_path / "source", patients=30, size=32)
    prepare(source, tmp_path / "whole")
    to = tmp_path / "killed"
    # The last image is a pipe that nobody writes to: one process waits there for ever.
    last = max(source.folder.glob("images*/**/*.png"), key=lambda path: path.name)
    pixels = last.read_bytes()
    last.unlink()
    os.mkfifo(last)
    paths = [image.path for image in PreparedSet.open(tmp_path / "whole").catalogue.images]
    # Without the tables, whose imports take longer than all the rest.
    code = (
        "import json, sys; from pathlib import Path;"
        "from prichexy_train.data.cache import fill_cache;"
        "from prichexy_train.data.problems import Problems;"
        "to, source, paths = sys.argv[1:];"
        "fill_cache(Path(to), Path(source), json.loads(paths), 16, Problems(),"
        " upscale=False, jobs=2, progress=False)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, to / IMAGES, source.folder, json.dumps(paths)],
        env={**os.environ, "PYTHONPATH": str(REPO / "train")},
    )
    with process:
        digests = to / DIGESTS

        def first_rows_are_done() -> bool:
            assert process.poll() is None
            if not digests.exists() or digests.stat().st_size < 64 * source.images:
                return False
            return bool(np.load(digests, mmap_mode="r")["digest"][:64].any(axis=1).all())

        wait_until(first_rows_are_done, 120, "the first images are decoded")
        those = children(process.pid)
        assert len(those) >= 2
        process.send_signal(signal.SIGKILL)
    wait_until(lambda: not any(map(running, those)), 60, "the decoding processes end")
    with pytest.raises(UnusableData, match="is not a finished set"):
        PreparedSet.open(to)
    last.unlink()
    last.write_bytes(pixels)
    counted.clear()
    prepare(source, to)
    assert 0 < len(counted) <= source.images - 64
    assert same_files(tmp_path / "whole", to)
    assert PreparedSet.open(to, verify=True).digest == PreparedSet.open(tmp_path / "whole").digest


def test_a_cache_that_was_cut_short_is_made_anew(official: Miniature, tmp_path: Path) -> None:
    prepare(official, tmp_path / "whole")
    prepare(official, tmp_path / "cut")
    images = tmp_path / "cut" / IMAGES
    os.truncate(images, images.stat().st_size - 100)
    with pytest.raises(UnusableData, match="prepare again"):
        PreparedSet.open(tmp_path / "cut")
    prepare(official, tmp_path / "cut")
    assert same_files(tmp_path / "cut", tmp_path / "whole")


def test_a_target_that_cannot_be_made_is_told(official: Miniature, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UnusableData, match="cannot be written to"):
        prepare(official, tmp_path / "file" / "to")


def test_a_folder_with_another_set_is_not_touched(official: Miniature, tmp_path: Path) -> None:
    prepare(official, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for changes in ({"size": 32}, {"name": "another"}):
        settings = miniature.settings(official, **{"size": 16, **changes})
        with pytest.raises(UnusableData, match="name another folder"):
            prepare_set(settings, official.folder, tmp_path)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_a_cache_that_was_begun_for_other_images_is_told(
    official: Miniature, tmp_path: Path
) -> None:
    prepare(official, tmp_path)
    (tmp_path / PREPARED).unlink()
    with pytest.raises(UnusableData, match=r"of 16 pixels, not .* of 32; empty it"):
        prepare_set(miniature.settings(official, size=32), official.folder, tmp_path)


def test_two_at_once_do_not_write_the_same_folder(official: Miniature, tmp_path: Path) -> None:
    import fcntl

    with (tmp_path / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(InUse, match="another process"):
            prepare(official, tmp_path)


def test_a_disk_without_room_is_told_before_decoding(
    official: Miniature, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UnusableData, match=r"needs 0\.0 GB \(No space left on device\)"):
        prepare(official, tmp_path)
    monkeypatch.undo()
    prepare(official, tmp_path)


@pytest.mark.parametrize("file", FILES[1:])
def test_a_table_that_was_changed_is_told(official: Miniature, tmp_path: Path, file: str) -> None:
    prepare(official, tmp_path)
    (tmp_path / file).write_bytes((tmp_path / file).read_bytes()[:-1])
    with pytest.raises(UnusableData, match="is not as it was written; prepare again"):
        PreparedSet.open(tmp_path)
    prepare(official, tmp_path)
    PreparedSet.open(tmp_path)


def test_a_prepared_set_needs_nothing_but_its_folder(official: Miniature, tmp_path: Path) -> None:
    prepare(official, tmp_path / "here")
    digest = PreparedSet.open(tmp_path / "here").digest
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert PreparedSet.open(tmp_path / "there", verify=True).digest == digest


def test_images_with_the_same_pixels_are_no_pair_of_one_patient_and_stay_together(
    tmp_path: Path,
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    random = np.random.default_rng(1)
    rows = ["image,patient_id"]
    for patient in range(40):
        for number in range(3):
            pixels = random.integers(0, 256, (16, 16), dtype=np.uint8)
            Image.fromarray(pixels).save(source / f"{patient}_{number}.png")
            rows.append(f"{patient}_{number}.png,p{patient}")
        shutil.copy(source / f"{patient}_0.png", source / f"{patient}_1.png")
        # And the last image of each second patient is the next one's.
        if patient % 2:
            shutil.copy(source / f"{patient - 1}_2.png", source / f"{patient}_2.png")
    (source / "metadata.csv").write_text("\n".join(rows), encoding="utf-8")
    drawn = {"count": 1000}
    settings = miniature.PrepareSettings.model_validate(
        {
            "name": "doubles",
            "size": 16,
            "source": {"layout": "folder"},
            "split": {"by": "drawn", "val": 0.2, "test": 0.3},
            "pairs": {"train": drawn, "val": drawn, "test": drawn},
        }
    )
    summary = prepare_set(settings, source, tmp_path / "to")
    prepared = PreparedSet.open(tmp_path / "to")
    assert sum(summary["left_out"].values()) == 40
    for name in prepared.pair_names:
        pairs = prepared.pairs(name)
        first, second = prepared.images.gather(pairs.first), prepared.images.gather(pairs.second)
        assert not (first == second).flatten(1).all(dim=1).any()
    for patient in range(0, 40, 2):
        both = [prepared.catalogue.index[f"{p}_2.png"] for p in (patient, patient + 1)]
        assert len(set(prepared.parts[both].tolist())) == 1


@pytest.mark.parametrize("part", ["val", "test"])
def test_a_part_without_pairs_is_told(official: Miniature, tmp_path: Path, part: str) -> None:
    settings = miniature.settings(official, size=16).model_dump()
    # One patient alone makes no pair of two.
    settings["split"] = {"by": "drawn", "val": 0.03, "test": 0.03}
    settings["pairs"] = {name: {"count": 10} for name in ("train", "val", "test")}
    with pytest.raises(UnusableData, match=rf"No pairs of one patient.*\n(.*\n)*    pairs {part}"):
        prepare_set(miniature.PrepareSettings.model_validate(settings), official.folder, tmp_path)
