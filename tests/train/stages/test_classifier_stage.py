"""The classifier's stage: which labels it knows, how it learns them, what its run tells."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from prichexy_testing.miniature_chestxray14 import prepared
from prichexy_testing.shared_data import REPO
from prichexy_testing.training import MemoryImages, losses
from prichexy_train.data.pool import Pool
from prichexy_train.data.prepared import PreparedSet
from prichexy_train.errors import Misconfigured
from prichexy_train.feed import Feed
from prichexy_train.judging import label_logits
from prichexy_train.loop import Moment
from prichexy_train.precision import Computing
from prichexy_train.runs import RunFolder, load_best
from prichexy_train.settings import read_settings
from prichexy_train.stages.classifier import (
    ClassifierData,
    ClassifierSettings,
    ClassifierTask,
    build_classifier,
    run_classifier,
)
from prichexy_train.stages.known_labels import label_loss

CONFIG = REPO / "train" / "configs" / "classifier-miniature.toml"


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return Pool.join([prepared(tmp_path_factory.mktemp("set"), patients=40)])


def settings(*changes: str) -> ClassifierSettings:
    return read_settings(CONFIG, ClassifierSettings, ("training.device=cpu", *changes))


def task(pool: Pool, *changes: str) -> ClassifierTask:
    chosen = settings(*changes)
    data = ClassifierData.of(pool, chosen)
    classifier = build_classifier(chosen.network, data.labels, chosen.training.seed)
    return ClassifierTask(classifier, data, chosen, Computing.of(chosen.training))


def test_it_learns_labels_and_says_which(pool: Pool, tmp_path: Path) -> None:
    chosen = settings("training.optimizer=adam", "training.epochs=15", "monitor=auc")
    folder = pool.sets[0].folder

    fitted = run_classifier(chosen, [folder], tmp_path)

    assert fitted.best > 0.7
    result = RunFolder(tmp_path).result()
    assert result["labels"] == ["Cardiomegaly", "Effusion", "Mass"]
    assert result["left_out"]["Hernia"] == 0
    assert len(result["left_out"]) == 11
    assert set(result["validation"]) == {
        "loss", "auc", "auc Cardiomegaly", "auc Effusion", "auc Mass"
    }  # fmt: skip
    build_classifier(chosen.network, result["labels"], 0).load_state_dict(
        load_best(tmp_path, "classifier")
    )
    again = run_classifier(chosen, [folder], tmp_path)
    assert losses(again.history) == losses(fitted.history)


def test_rare_labels_and_those_of_every_image_are_left_out(pool: Pool) -> None:
    counts = dict(zip(pool.label_names, pool.targets[pool.split("train")].sum(0), strict=True))
    rarest = min(("Cardiomegaly", "Effusion", "Mass"), key=counts.__getitem__)

    data = ClassifierData.of(pool, settings(f"least_positives={int(counts[rarest]) + 1}"))

    assert rarest not in data.labels
    assert data.left_out[rarest] == counts[rarest]
    assert data.targets.shape == (len(pool), len(data.labels))
    with pytest.raises(Misconfigured, match="no label is on 1000 training images or more"):
        ClassifierData.of(pool, settings("least_positives=1000"))


def test_targets_belong_to_their_labels(pool: Pool) -> None:
    data = ClassifierData.of(pool, settings())

    images = pool.catalogues[0].images
    for column, label in enumerate(data.labels):
        expected = [label in image.labels for image in images]
        assert data.targets[:, column].tolist() == expected


@pytest.fixture
def two_sets(pool: Pool, tmp_path: Path) -> Pool:
    """Give the set beside itself under another name, read for Effusion and for Nodule alone."""
    (one,) = pool.sets
    labels = ("Effusion", "Nodule")
    other = replace(
        one, name="other", catalogue=replace(one.catalogue, name="other", label_names=labels)
    )
    return Pool.join([one, other])


def test_a_label_that_one_set_was_not_read_for_is_learned_from_the_others(two_sets: Pool) -> None:
    data = ClassifierData.of(two_sets, settings())
    half = len(two_sets) // 2
    assert data.labels == ("Cardiomegaly", "Effusion", "Mass")
    assert np.isnan(data.targets).any(0).tolist() == [True, False, True]
    assert not np.isnan(data.targets[:half]).any()

    learning = task(two_sets)
    learning.classifier.eval()
    rows = data.train
    with torch.no_grad():
        logits = learning.classifier(two_sets.images.gather(rows))
    known = torch.from_numpy(~np.isnan(data.targets[rows]))
    labels = torch.from_numpy(data.targets[rows])
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits[known], labels[known])
    torch.testing.assert_close(label_loss(logits, *learning._labels_of(rows)), expected)


def test_each_sets_validation_counts_by_itself(two_sets: Pool, pool: Pool) -> None:
    both, alone = task(two_sets), task(pool)
    both.classifier.load_state_dict(alone.classifier.state_dict())
    found, expected = both.validate(), alone.validate()
    # The same images twice: of two sets at once, and a set at a time, and of those that know it.
    for label in ("auc", "auc Cardiomegaly", "auc Effusion", "auc Mass"):
        assert found[label] == pytest.approx(expected[label])


def test_training_and_validation_images_are_those_of_the_split(pool: Pool) -> None:
    learning = task(pool, "training.batch_size=10")

    rows = np.concatenate(learning.batches(1))

    assert set(rows) <= set(pool.split("train"))
    assert len(set(rows)) >= len(pool.split("train")) - 1  # a last batch of one image is left out
    assert learning.batches(1)[0].tolist() != learning.batches(2)[0].tolist()


def test_a_step_changes_the_network_and_validation_does_not(pool: Pool) -> None:
    learning = task(pool)
    before = {name: value.clone() for name, value in learning.classifier.state_dict().items()}
    measures = learning.validate()
    assert all(
        torch.equal(value, before[name]) for name, value in learning.classifier.state_dict().items()
    )

    found = learning.step(learning.batches(1)[0], Moment(1, 1, 1, 0, 1))

    assert set(found) == {"loss"}
    assert not torch.equal(learning.classifier.decision.weight, before["decision.weight"])
    assert measures["loss"] > 0


def test_flips_are_drawn_in_training(pool: Pool) -> None:
    rows = task(pool).batches(1)[0]
    moment = Moment(1, 1, 1, 0, 1)

    plain = task(pool, "augmentation.flip=0").step(rows, moment)["loss"]
    flipped = task(pool, "augmentation.flip=1").step(rows, moment)["loss"]

    assert plain != flipped


def test_logits_of_labels_are_those_of_the_network() -> None:
    images = torch.rand(7, 1, 40, 40, generator=torch.Generator().manual_seed(1))
    classifier = build_classifier(settings().network, ["a", "b"], 1)
    feed = Feed(MemoryImages(images), torch.device("cpu"))
    rows = np.array([6, 0, 3])

    logits = label_logits(classifier, feed, rows, batch_size=2)

    assert classifier.training
    with torch.no_grad():
        expected = classifier.eval()(images[rows])
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


def test_other_images_may_take_the_place_of_the_real_ones(pool: Pool) -> None:
    other = MemoryImages(torch.zeros(len(pool), 1, 32, 32))

    assert ClassifierData.of(pool, settings(), images=other).images is other
    assert ClassifierData.of(pool, settings()).images is pool.images


def test_a_run_on_another_set_is_another_run(pool: Pool, tmp_path: Path) -> None:
    chosen = settings("training.steps_per_epoch=1", "training.epochs=1")
    run_classifier(chosen, [pool.sets[0].folder], tmp_path / "run")
    another = prepared(tmp_path, patients=30, seed=5)
    assert PreparedSet.open(another.folder).digest != pool.digest

    with pytest.raises(Misconfigured, match="other data: miniature differs"):
        run_classifier(chosen, [another.folder], tmp_path / "run")
