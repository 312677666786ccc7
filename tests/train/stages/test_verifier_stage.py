"""The verifier's stage: what it learns from, what it is validated on, and its run as a command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor

from prichexy_testing.miniature_chestxray14 import prepared
from prichexy_testing.shared_data import REPO
from prichexy_testing.torchrun import torchrun
from prichexy_testing.training import MemoryImages, losses
from prichexy_train.checkpoints import load_checkpoint
from prichexy_train.data.pairs import Pairs
from prichexy_train.data.pool import Pool
from prichexy_train.data.prepared import PreparedSet
from prichexy_train.errors import Misconfigured
from prichexy_train.feed import Feed
from prichexy_train.judging import pair_logits
from prichexy_train.loop import Moment
from prichexy_train.precision import Computing
from prichexy_train.runs import RunFolder, load_best
from prichexy_train.settings import read_settings
from prichexy_train.stages.verifier import (
    VerifierData,
    VerifierSettings,
    VerifierTask,
    build_verifier,
    run_verifier,
)

CONFIG = REPO / "train" / "configs" / "verifier-miniature.toml"
CONTRASTIVE = (
    "objective=contrastive",
    "network.head=cosine",
    "contrast.patients=4",
    "augmentation.rotation=5",
    "augmentation.noise=0.02",
    "training.batch_size=8",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("set")).folder


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums come in another order with another number of threads, and so to other bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def settings(*changes: str) -> VerifierSettings:
    return read_settings(CONFIG, VerifierSettings, ("training.device=cpu", *changes))


def command(data: Path, run: Path, *changes: str) -> list[str]:
    told = [part for change in ("training.device=cpu", *changes) for part in ("--set", change)]
    return ["-m", "prichexy_train", "verifier", str(CONFIG), "--data", str(data), "--run",
            str(run), *told]  # fmt: skip


class Recorder(MemoryImages):
    """Images of one grey value, that note which were asked for."""

    def __init__(self, grey: float) -> None:
        super().__init__(torch.full((20, 1, 32, 32), grey))
        self.asked: list[int] = []

    def gather(self, indices: NDArray[np.int64]) -> Tensor:
        self.asked += indices.tolist()
        return super().gather(indices)


def two_sided(**words: Any) -> tuple[VerifierData, Recorder, Recorder]:
    """Give ten patients of two images each; pairs from two kinds of images."""
    numbers = np.arange(10)
    pairs = Pairs(
        np.concatenate((2 * numbers, 2 * numbers)),
        np.concatenate((2 * numbers + 1, (2 * numbers + 3) % 20)),
        np.repeat([True, False], 10),
    )
    first, second = Recorder(0.25), Recorder(0.75)
    words = {"train": pairs, "validation": pairs} | words
    data = VerifierData(
        first=first, second=second, patients=np.arange(20) // 2, rows=np.arange(20), **words
    )
    return data, first, second


def task(data: VerifierData, *changes: str) -> VerifierTask:
    chosen = settings(*changes)
    verifier = build_verifier(chosen.network, chosen.training.seed)
    return VerifierTask(verifier, data, chosen, Computing.of(chosen.training))


def step_of(run: RunFolder) -> int:
    """Give the step that a run's checkpoint is of."""
    step: int = load_checkpoint(run.checkpoint_file)["standing"]["iteration"]
    return step


MOMENT = Moment(seed=1, epoch=1, iteration=1, rank=0, world=1)


@pytest.mark.parametrize(
    ("changes", "least"),
    [
        (("training.epochs=4", "monitor=auc"), 0.8),
        ((*CONTRASTIVE, "training.epochs=12", "monitor=auc", "training.batch_size=12"), 0.8),
    ],
)
def test_it_learns_to_tell_patients_apart(
    data: Path, tmp_path: Path, changes: tuple[str, ...], least: float
) -> None:
    fitted = run_verifier(settings(*changes), [data], tmp_path)

    assert fitted.finished
    assert fitted.best > least
    result = RunFolder(tmp_path).result()
    assert result["validation"] == fitted.history[fitted.best_epoch - 1]["validation"]
    assert set(result["validation"]) == {"loss", "auc"}
    assert RunFolder(tmp_path).provenance()["data"] == {
        "miniature": PreparedSet.open(data).digest,
        "network.pretrained": "none",
    }
    build_verifier(settings(*changes).network, 0).load_state_dict(load_best(tmp_path, "verifier"))


def test_the_first_image_of_a_pair_is_of_one_kind_and_the_second_of_the_other() -> None:
    data, first, second = two_sided()

    task(data).step(np.array([0, 12]), MOMENT)

    assert first.asked == [0, 4]
    assert second.asked == [1, 7]


def test_validation_embeds_every_image_once_and_gives_what_the_network_says() -> None:
    data, first, second = two_sided()
    verifying = task(data)

    measures = verifying.validate()

    assert sorted(first.asked) == list(range(0, 20, 2))
    assert sorted(second.asked) == list(range(1, 20, 2))
    assert set(measures) == {"loss", "auc"}
    assert verifying.verifier.training


@pytest.mark.parametrize("head", ["difference", "cosine"])
@pytest.mark.parametrize("one_kind", [True, False])
def test_logits_of_pairs_are_those_of_the_network(head: str, one_kind: bool) -> None:
    noise = torch.rand(20, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    images = [MemoryImages(noise), MemoryImages(noise.flip(0))]
    feeds = [Feed(one, torch.device("cpu")) for one in images]
    first, second = (feeds[0], feeds[0]) if one_kind else feeds
    pairs = two_sided()[0].validation
    verifier = build_verifier(settings(f"network.head={head}").network, 1).eval()

    logits = pair_logits(verifier, first, second, pairs, batch_size=3)

    with torch.no_grad():
        expected = verifier(first.gather(pairs.first), second.gather(pairs.second))
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


def test_contrast_takes_each_image_from_either_side() -> None:
    data, _, _ = two_sided()
    seen: list[Tensor] = []
    plain = ("augmentation.rotation=0", "augmentation.noise=0")
    contrasting = task(data, *CONTRASTIVE, *plain)
    embed = contrasting.verifier.embed
    contrasting.verifier.embed = lambda images: (seen.append(images), embed(images))[1]  # type: ignore[method-assign]
    for iteration in range(1, 9):
        contrasting.step(np.arange(8), Moment(1, 1, iteration, 0, 1))

    greys = torch.cat(seen)[:, 0, 0, 0]
    assert set(greys.tolist()) == {0.25, 0.75}
    assert 0.3 < (greys == 0.25).float().mean() < 0.7


def test_contrast_teaches_embedding_and_comparison_each_its_own(data: Path) -> None:
    chosen = settings(*CONTRASTIVE)
    pool = Pool.join([PreparedSet.open(data)])
    contrasting = task(VerifierData.of(pool, chosen), *CONTRASTIVE)
    before = {name: value.clone() for name, value in contrasting.verifier.named_parameters()}

    measures = contrasting.step(contrasting.batches(1)[0], MOMENT)

    assert set(measures) == {"loss", "calibration"}
    for name, value in contrasting.verifier.named_parameters():
        assert not torch.equal(value, before[name]), name


def test_contrast_gives_logits_that_mean_something(data: Path, tmp_path: Path) -> None:
    """Better than to answer one half each time, without a threshold being told."""
    fitted = run_verifier(
        settings(*CONTRASTIVE, "training.epochs=50", "training.batch_size=12"), [data], tmp_path
    )

    assert fitted.history[0]["validation"]["loss"] > np.log(2)
    assert fitted.history[-1]["validation"]["loss"] < np.log(2)


def test_batches_follow_from_seed_and_epoch() -> None:
    data, _, _ = two_sided()
    one, other = task(data), task(data, "training.seed=2")

    assert [rows.tolist() for rows in one.batches(1)] == [rows.tolist() for rows in one.batches(1)]
    assert not np.array_equal(one.batches(1)[0], one.batches(2)[0])
    assert not np.array_equal(one.batches(1)[0], other.batches(1)[0])


def test_what_cannot_work_is_refused_at_once() -> None:
    with pytest.raises(Misconfigured, match="mirrored radiograph"):
        settings("augmentation.flip=0.5")
    with pytest.raises(Misconfigured, match=r"contrast\.patients times contrast\.images is 64"):
        settings("objective=contrastive", "contrast.patients=32")
    with pytest.raises(ValidationError, match="frozen"):
        settings().objective = "contrastive"  # type: ignore[misc]
    pairs = two_sided()[0].validation
    one_kind = two_sided(validation=pairs.take(np.arange(10)))[0]
    with pytest.raises(Misconfigured, match="not of both kinds"):
        task(one_kind)


def test_another_file_of_imagenet_weights_is_another_run(data: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"one")
    changed = settings(f"network.pretrained={weights}")
    run = RunFolder(tmp_path / "run")
    digest = PreparedSet.open(data).digest
    known = {"miniature": digest, "network.pretrained": "of other bytes"}
    with run.claimed("verifier", changed, data=known, seed=1, device="CPU"):
        pass

    with pytest.raises(Misconfigured, match=r"other data: network\.pretrained differs"):
        run_verifier(changed, [data], run.path)


def test_weights_that_are_none_are_told_and_leave_the_folder_free(
    data: Path, tmp_path: Path
) -> None:
    (tmp_path / "weights.pth").write_text("no tensors")
    wrong = settings("network.backbone=resnet50", f"network.pretrained={tmp_path}/weights.pth")
    with pytest.raises(Misconfigured, match=r"weights\.pth: is no file of tensors"):
        run_verifier(wrong, [data], tmp_path / "run")
    assert not RunFolder(tmp_path / "run").settings_file.exists()


def test_a_killed_command_goes_on_with_the_very_losses(data: Path, tmp_path: Path) -> None:
    changes = ("training.batch_size=4", "training.steps_per_epoch=20", "training.epochs=2",
               *CONTRASTIVE[3:5])  # fmt: skip
    whole = run_verifier(settings(*changes), [data], tmp_path / "whole")

    run = RunFolder(tmp_path / "killed")
    arguments = command(data, run.path, *changes, "training.checkpoint_seconds=1e-6")
    with subprocess.Popen(
        [sys.executable, *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("epoch 1:")
        while step_of(run) == 20:
            assert process.poll() is None
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert 20 < step_of(run) < 40

    resumed = run_verifier(settings(*changes), [data], run.path)

    assert losses(resumed.history) == losses(whole.history)
    expected = load_best(tmp_path / "whole", "verifier")
    for name, value in load_best(run.path, "verifier").items():
        assert torch.equal(value, expected[name]), name
    assert len(run.provenance()["starts"]) == 2


def test_two_processes_train_what_one_does(data: Path, tmp_path: Path) -> None:
    # Not Adam: it makes a whole step of a difference in rounding where a gradient is almost 0.
    changes = (*CONTRASTIVE, "training.optimizer=sgd", "training.steps_per_epoch=4")
    alone = run_verifier(settings(*changes), [data], tmp_path / "one")

    done = torchrun(*command(data, tmp_path / "two", *changes))

    assert done.returncode == 0, done.stderr
    together = RunFolder(tmp_path / "two")
    assert [start["processes"] for start in together.provenance()["starts"]] == [2]
    for mine, theirs in zip(alone.history, together.history(), strict=True):
        assert theirs["train"] == pytest.approx(mine["train"], rel=1e-4)
        assert theirs["validation"]["loss"] == pytest.approx(mine["validation"]["loss"], rel=1e-4)
        # Counts pairs: one that changes its place is a whole step.
        assert theirs["validation"]["auc"] == pytest.approx(mine["validation"]["auc"], abs=0.01)
    expected = load_best(tmp_path / "one", "verifier")
    for name, value in load_best(together.path, "verifier").items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5, msg=name)


def test_a_command_out_of_time_ends_with_75_and_then_goes_on(data: Path, tmp_path: Path) -> None:
    from prichexy_train.cli import main

    changes = ("training.steps_per_epoch=2", "training.epochs=1")
    codes = []
    for minutes in ("0", "0", "0", "1"):
        arguments = command(data, tmp_path / "run", *changes)[2:]
        code = exit_code(main, [*arguments, "--minutes", minutes])
        codes.append(code)

    assert codes == [75, 75, 0, 0]
    assert json.loads((tmp_path / "run" / "result.json").read_text())["epochs"] == 1


def test_a_share_of_the_patients_is_learned_from_and_no_other_and_all_are_validated_on(
    data: Path, tmp_path: Path
) -> None:
    pool = Pool.join([PreparedSet.open(data)])
    shares = {}
    for share in (0.5, 1.0):
        told = settings(*CONTRASTIVE, "contrast.patients=2", f"share_of_patients={share}")
        shares[share] = VerifierData.of(pool, told)
    few, whole = shares[0.5], shares[1.0]
    train = pool.split("train")
    assert set(few.rows.tolist()) < set(whole.rows.tolist()) == set(train.tolist())
    assert few.validation is not whole.validation
    assert np.array_equal(few.validation.first, whole.validation.first)

    changes = (*CONTRASTIVE, "contrast.patients=2", "share_of_patients=0.5", "training.epochs=1")
    run_verifier(settings(*changes), [data], tmp_path / "run")
    learned = RunFolder(tmp_path / "run").result()["learned_from"]
    assert learned["images"] == len(few.rows)
    assert learned["patients"] == len(np.unique(pool.patients[few.rows]))
    assert 0 < learned["patients_with_several"] <= learned["patients"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (("share_of_patients=0.5",), "contrastive"),
        ((*CONTRASTIVE, "share_of_patients=0"), "share_of_patients"),
        ((*CONTRASTIVE, "share_of_patients=1.5"), "share_of_patients"),
    ],
)
def test_a_share_that_cannot_be_learned_from_is_refused(
    changes: tuple[str, ...], named: str
) -> None:
    with pytest.raises(Misconfigured, match=named):
        settings(*changes)


def exit_code(main: Any, arguments: list[str]) -> int:
    """Run the command line in this process; give its exit code."""
    before = sys.argv
    sys.argv = ["prichexy-train", *arguments]
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = before
    return 0
