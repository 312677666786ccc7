"""An experiment is packed, carried on with on a bare machine, and its runs come home."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from prichexy_testing import miniature_chestxray14 as miniature
from prichexy_train.cli import create_app
from prichexy_train.errors import Failed, Misconfigured
from prichexy_train.lent import packing
from prichexy_train.lent.distributions import lacking
from prichexy_train.lent.packing import MANIFEST, SCRIPT, Packed, pack
from prichexy_train.lent.wheels import fetch_wheels, names_in

CONFIGS = Path(__file__).resolve().parents[3] / "train" / "configs"
PATIENTS = 16

#: Two trainings and a method: enough to be shared by two processes.
EXPERIMENT = """
name = "carried"
title = "Carried"
[sets.chestxray14]
config = "../data/chestxray14.toml"
change = {{ size = 32, split.train_images = {train_images}, pairs.test_matched.match = ["sex"] }}
[train.verifier]
stage = "verifier"
config = "../verifier-miniature.toml"
[train.classifier]
stage = "classifier"
config = "../classifier-miniature.toml"
[attack]
config = "../attack-miniature.toml"
verifiers = ["verifier"]
[utility]
config = "../utility-miniature.toml"
classifier = "classifier"
[method.real]
method = "real"
change = {{ rungs = [3], seeds = 1 }}
"""


@pytest.fixture
def source(tmp_path: Path) -> miniature.Miniature:
    return miniature.make(tmp_path / "radiographs", patients=PATIENTS, size=32)


@pytest.fixture
def experiment(tmp_path: Path, source: miniature.Miniature) -> Path:
    shutil.copytree(CONFIGS, tmp_path / "configs")
    path = tmp_path / "configs" / "experiments" / "carried.toml"
    path.write_text(EXPERIMENT.format(train_images=source.train_images))
    return path


def entries(packed: Packed) -> Iterator[tuple[str, bytes]]:
    """Give what lies in the joined parts."""
    whole = packed.parts[0].with_name("whole.tar")
    whole.write_bytes(b"".join(part.read_bytes() for part in packed.parts))
    with tarfile.open(whole) as archive:
        for entry in archive:
            file = archive.extractfile(entry)
            if file is not None:
                yield entry.name, file.read()
    whole.unlink()


def lent(script: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """Run the script with nothing of this checkout in sight."""
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        ["bash", script, *map(str, words)],
        env=environment,
        cwd=script.parent,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


def test_an_experiment_goes_there_and_its_runs_come_back(
    tmp_path: Path, experiment: Path, source: miniature.Miniature
) -> None:
    earlier = tmp_path / "earlier" / "another"
    earlier.mkdir(parents=True)
    (earlier / "best.pt").write_bytes(os.urandom(3 << 19))
    (earlier / "result.json").write_text("{}")
    packed = pack(
        experiment,
        tmp_path / "packed",
        sources={"chestxray14": source.folder},
        runs=tmp_path / "earlier",
        limit_mib=1,
    )
    assert len(packed.parts) == 2
    assert all(part.stat().st_size <= 2**20 for part in packed.parts)
    script, work = tmp_path / "packed" / SCRIPT, tmp_path / "there"

    # The machine is reached in two journeys.
    first = lent(script, "take", work, tmp_path / "packed" / MANIFEST, packed.parts[0])
    assert (first.returncode, first.stdout) == (75, "still to come: part-02\n")
    assert lent(script, "run", work, 5).returncode == 2
    second = lent(script, "take", work, *packed.parts[1:])
    assert second.returncode == 0, second.stderr

    ran = lent(script, "run", work, 6, 2)
    logs = "".join(path.read_text() for path in sorted((work / "logs").iterdir()))
    assert ran.returncode == 0, logs + ran.stderr
    assert ran.stdout.count("ended with 0") == 2, "both processes came to the end"
    # Which of them does a step is chance; that it is done once is not.
    assert logs.count("epoch 1: ") == 2, "one training of the verifier, one of the classifier"
    assert logs.count("[5/6] utility-real: utility") >= 1
    assert logs.count("real, chestxray14: mean AUC") == 1

    out, runs = tmp_path / "out", tmp_path / "runs"
    assert lent(script, "bring", work, out, 1).returncode == 0
    assert all(path.stat().st_size <= 2**20 for path in out.glob("runs.tar.*"))
    assert lent(script, "back", out, runs).returncode == 0
    assert (runs / "verifier" / "best.pt").is_file()
    assert (runs / "report" / "report.html").is_file()
    assert not list(runs.rglob("checkpoint.pt"))
    assert not (runs / "another").exists(), "what was there before need not be carried"
    assert (work / "runs" / "another" / "best.pt").is_file()

    # At home all of it counts as done.
    data = tmp_path / "data"
    shutil.copytree(work / "data", data)
    words = ["table", experiment, "--data", data, "--runs", runs, "--dry-run"]
    listed = subprocess.run(
        [sys.executable, "-m", "prichexy_train", *map(str, words)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    states = [line.split()[0] for line in listed.stdout.splitlines()]
    assert states == ["finished"] * 5 + ["to"], listed.stdout  # the report is written anew


def test_a_damaged_part_is_refused(
    tmp_path: Path, experiment: Path, source: miniature.Miniature
) -> None:
    packed = pack(experiment, tmp_path / "packed", sources={"chestxray14": source.folder})
    content = bytearray(packed.parts[0].read_bytes())
    content[1000] ^= 1
    packed.parts[0].write_bytes(content)
    taken = lent(
        tmp_path / "packed" / SCRIPT,
        *("take", tmp_path / "there", tmp_path / "packed" / MANIFEST, *packed.parts),
    )
    assert taken.returncode == 2
    assert "a part is damaged" in taken.stderr


def test_what_is_packed_is_what_the_table_is_told_and_nothing_of_this_machine(
    tmp_path: Path, experiment: Path, source: miniature.Miniature
) -> None:
    weights = tmp_path / "imagenet.pth"
    weights.write_bytes(b"weights")
    run = tmp_path / "runs" / "verifier"
    (run / "tensorboard").mkdir(parents=True)
    for name in ("best.pt", "checkpoint.pt", "tensorboard/events", "result.json"):
        (run / name).write_bytes(name.encode())
    shutil.copytree(run, tmp_path / "runs" / "unfinished")
    (tmp_path / "runs" / "unfinished" / "result.json").unlink()
    changes = [
        f"train.verifier.change.network.pretrained={weights}",
        f"attack.change.fresh.network.pretrained={weights}",
        "train.verifier.change.training.epochs=2",
    ]
    packed, again = (
        pack(
            experiment,
            tmp_path / name,
            sources={"chestxray14": source.folder},
            changes=changes,
            runs=tmp_path / "runs",
        )
        for name in ("packed", "again")
    )
    found = dict(entries(packed))
    assert found["table.args"].decode().splitlines() == [
        "configs/experiments/carried.toml",
        *("--data", "../data", "--runs", "../runs"),
        *("--source", "chestxray14=sources/chestxray14"),
        *("--set", "train.verifier.change.network.pretrained=files/0-imagenet.pth"),
        *("--set", "attack.change.fresh.network.pretrained=files/0-imagenet.pth"),
        *("--set", "train.verifier.change.training.epochs=2"),
    ]
    assert found["files/0-imagenet.pth"] == b"weights"
    assert {name for name in found if name.startswith("runs/")} == {
        "runs/verifier/best.pt",
        "runs/verifier/result.json",
    }
    assert {name for name in found if name.startswith("configs/")} == {
        "configs/experiments/carried.toml",
        "configs/data/chestxray14.toml",
        *(f"configs/{stage}-miniature.toml" for stage in ("verifier", "classifier")),
        *(f"configs/{stage}-miniature.toml" for stage in ("attack", "utility")),
    }
    assert "code/prichexy_train/lent/lent.sh" in found
    images = [name for name in found if name.startswith("sources/") and name.endswith(".png")]
    assert len(images) == source.images
    assert again.parts[0].read_bytes() == packed.parts[0].read_bytes()


def test_a_set_without_a_source_and_a_folder_in_use_are_refused(
    tmp_path: Path, experiment: Path, source: miniature.Miniature
) -> None:
    with pytest.raises(Misconfigured, match="--source chestxray14=FOLDER is needed"):
        pack(experiment, tmp_path / "packed", sources={})
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(Misconfigured, match="is not empty"):
        pack(experiment, tmp_path / "full", sources={"chestxray14": source.folder})


def test_weights_are_carried_however_they_are_named_and_must_be_there(
    tmp_path: Path,
    experiment: Path,
    source: miniature.Miniature,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "imagenet.pth").write_bytes(b"weights")
    key = "train.verifier.change.network.pretrained"
    sources = {"chestxray14": source.folder}
    for number, value in enumerate(("imagenet.pth", f'"{tmp_path}/imagenet.pth"')):
        packed = pack(
            experiment, tmp_path / str(number), sources=sources, changes=[f"{key}={value}"]
        )
        assert dict(entries(packed))["files/0-imagenet.pth"] == b"weights"
    with pytest.raises(Misconfigured, match="there is no such file"):
        pack(experiment, tmp_path / "2", sources=sources, changes=[f"{key}=absent.pth"])


def test_a_linked_folder_of_radiographs_goes_along(
    tmp_path: Path, experiment: Path, source: miniature.Miniature
) -> None:
    (one, *_) = sorted(source.folder.glob("images_*"))
    one.rename(tmp_path / "elsewhere")
    one.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "elsewhere")
    packed = pack(experiment, tmp_path / "packed", sources={"chestxray14": source.folder})
    images = [name for name, _ in entries(packed) if name.endswith(".png")]
    assert len(images) == source.images


def test_another_pack_takes_the_place_of_the_first(
    tmp_path: Path, experiment: Path, source: miniature.Miniature
) -> None:
    work = tmp_path / "there"
    for number, title in enumerate(("Carried", "Carried again")):
        experiment.write_text(experiment.read_text().replace('"Carried"', f'"{title}"'))
        to = tmp_path / str(number)
        packed = pack(experiment, to, sources={"chestxray14": source.folder})
        assert lent(to / SCRIPT, "take", work, to / MANIFEST, *packed.parts).returncode == 0
        carried = work / "pack" / "configs" / "experiments" / "carried.toml"
        assert f'title = "{title}"' in carried.read_text()


def test_what_was_brought_before_and_what_is_not_finished_stay_out(tmp_path: Path) -> None:
    work, out, home = tmp_path / "work", tmp_path / "out", tmp_path / "home"
    script = Path(packing.__file__).with_name(SCRIPT)
    files = {
        "done/result.json": b"{}",
        "done/best.pt": os.urandom(3 << 20),
        "attacked/records/one.json": b"{}",
        "attacked/attempts/fresh/best.pt": b"weights",
        "going/best.pt": b"weights",
        "going/checkpoint.pt": b"all",
    }
    (work / "logs").mkdir(parents=True)
    (work / "unpacked").touch()
    os.utime(work / "unpacked", (1, 1))
    for name, content in files.items():
        (work / "runs" / name).parent.mkdir(parents=True, exist_ok=True)
        (work / "runs" / name).write_bytes(content)
    assert lent(script, "bring", work, out, 1).returncode == 0
    assert len(list(out.glob("runs.tar.*"))) == 4
    (work / "runs" / "done" / "best.pt").write_bytes(b"small")
    assert lent(script, "bring", work, out, 1).returncode == 0
    assert lent(script, "back", out, home).returncode == 0
    found = {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()}
    assert found == {"done/result.json", "done/best.pt", "attacked/records/one.json"}
    assert (home / "done" / "best.pt").read_bytes() == b"small"


def test_what_a_machine_lacks_is_all_that_training_needs_but_what_it_has(tmp_path: Path) -> None:
    everything = lacking(())
    assert {"torch", "monai", "pytorch-ignite", "pydantic", "pydantic-core"} <= everything.keys()
    assert not {"pydicom", "celery", "prichexy"} & everything.keys()
    assert "pydantic-core" not in lacking({"Pydantic"})
    listing = tmp_path / "has"
    listing.write_text("torch==2.11.0\nscikit_learn==1.7\n\n")
    rest = lacking(names_in(listing))
    assert not {"torch", "scikit-learn", "sympy"} & rest.keys()
    assert rest["monai"] == everything["monai"]


def test_the_command_names_parts_and_script(
    tmp_path: Path,
    experiment: Path,
    source: miniature.Miniature,
    capsys: pytest.CaptureFixture[str],
) -> None:
    listing = tmp_path / "has"
    listing.write_text("\n".join(lacking(())))
    words = ["pack", experiment, "--to", tmp_path / "packed", "--has", listing]
    words += ["--source", f"chestxray14={source.folder}"]
    get_command(create_app()).main([str(word) for word in words], standalone_mode=False)
    told = capsys.readouterr().out
    assert "part-01" in told
    assert str(tmp_path / "packed" / SCRIPT) in told


def test_a_wheel_that_is_not_to_be_had_is_told(tmp_path: Path) -> None:
    with pytest.raises(Failed, match=r"(?s)cannot fetch the wheels: .*No matching distribution"):
        fetch_wheels({"prichexy-no-such-distribution": "1"}, tmp_path, "3.12")
    fetch_wheels({}, tmp_path, "3.12")
    assert list(tmp_path.iterdir()) == []
