"""Checkpoints on disk: whole or not at all, and never quietly wrong."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from prichexy_train.checkpoints import kept_as, load_checkpoint, save_checkpoint, write_whole
from prichexy_train.errors import Damaged, Failed


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"weights": torch.arange(1000.0), "epoch": 3, "history": [{"a": 0.1}]})
    return path


def test_what_was_saved_is_loaded(path: Path) -> None:
    state = load_checkpoint(path)

    assert torch.equal(state["weights"], torch.arange(1000.0))
    assert (state["epoch"], state["history"]) == (3, [{"a": 0.1}])


def test_one_wrong_bit_in_a_weight_is_noticed(path: Path) -> None:
    content = bytearray(path.read_bytes())
    place = content.index(torch.tensor(500.0).numpy().tobytes())
    content[place] ^= 1
    path.write_bytes(content)

    with pytest.raises(Damaged, match=r"checkpoint\.pt: is damaged"):
        load_checkpoint(path)


@pytest.mark.parametrize("length", [0, 1, 100, -1])
def test_a_file_cut_short_is_noticed(path: Path, length: int) -> None:
    path.write_bytes(path.read_bytes()[:length])

    with pytest.raises(Damaged, match=r"checkpoint\.pt: is damaged"):
        load_checkpoint(path)


def test_a_missing_file_and_another_archive_are_named(tmp_path: Path) -> None:
    with pytest.raises(Damaged, match=r"none\.pt: cannot be read"):
        load_checkpoint(tmp_path / "none.pt")
    with zipfile.ZipFile(tmp_path / "other.pt", "w") as archive:
        archive.writestr("a", "b")
    with pytest.raises(Damaged, match=r"other\.pt: is damaged or no checkpoint"):
        load_checkpoint(tmp_path / "other.pt")


def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path) -> None:
    torch.save({"weights": pytest.raises}, tmp_path / "evil.pt")

    with pytest.raises(Damaged, match="no checkpoint"):
        load_checkpoint(tmp_path / "evil.pt")


def test_a_write_that_fails_leaves_the_old_content(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(Failed, match="No space left"):
        write_whole(path, b"new")
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_weights_are_halved_but_for_what_half_precision_cannot_hold() -> None:
    state = {
        "weight": torch.tensor([1.0, -0.25]),
        "running_var": torch.tensor([1e6, 1.0]),
        "num_batches_tracked": torch.tensor(70_000),
    }
    kept = kept_as("float16", state)
    assert kept["weight"].dtype == torch.float16
    assert kept["running_var"] is state["running_var"]
    assert kept["num_batches_tracked"] is state["num_batches_tracked"]
    assert torch.equal(kept["weight"].float(), state["weight"])
    assert kept_as("float32", state) == state


def test_two_processes_may_write_the_same_file(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from prichexy_train.checkpoints import write_whole\n"
        "for _ in range(100): write_whole(Path(sys.argv[1]), sys.argv[2].encode() * 1000)\n"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "file"), word])
        for word in ("a", "b")
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    content = (tmp_path / "file").read_bytes()
    assert len(content) == 1000
    assert len(set(content)) == 1, "a mixture of both"
