"""Adversarial training as a stage: what it keeps, measures, resumes, and refuses."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from prichexy_model.classifier import AbnormalityClassifier
from prichexy_model.flow import BORDERS
from prichexy_model.multiscale import MultiscaleAnonymizer
from prichexy_testing.miniature_runs import SIZE, Runs, adversarial_settings, training
from prichexy_testing.training import losses
from prichexy_train.checkpoints import load_checkpoint
from prichexy_train.data.pool import Pool
from prichexy_train.errors import Misconfigured
from prichexy_train.loop import Moment
from prichexy_train.measures.auc import auc
from prichexy_train.precision import Computing
from prichexy_train.randomness import initialising
from prichexy_train.runs import RunFolder, load_best
from prichexy_train.settings import read_settings
from prichexy_train.stages.adversarial import (
    AdversarialData,
    AdversarialSettings,
    AdversarialTask,
    run_adversarial,
)
from prichexy_train.stages.anonymizers import DeformationSettings, build_anonymizer
from prichexy_train.stages.critics import is_due
from prichexy_train.stages.training_run import open_pool
from prichexy_train.trained import load_classifier, load_critics, load_verifier

MOMENT = Moment(seed=1, epoch=1, iteration=1, rank=0, world=1)
PRIVACY_NET = {"kind": "privacy-net", "size": SIZE}


def settings(runs: Runs, **changes: Any) -> Any:
    """Give settings with the quicker network, unless told otherwise."""
    return adversarial_settings(runs, **{"anonymizer": PRIVACY_NET, **changes})


def task(runs: Runs, **changes: Any) -> AdversarialTask:
    chosen = settings(runs, **changes)
    with initialising(3):
        anonymizer = build_anonymizer(chosen.anonymizer)
    return AdversarialTask(
        anonymizer,
        [load_verifier(run) for run in chosen.critics.verifiers],
        load_classifier(chosen.critics.classifier),
        AdversarialData.of(open_pool([runs.data]), chosen),
        chosen,
        Computing.of(chosen.training),
    )


def weights(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def targets_of(pool: Pool, classifier: nn.Module, rows: Any) -> torch.Tensor:
    assert isinstance(classifier, AbnormalityClassifier)
    columns = [pool.label_names.index(label) for label in classifier.labels]
    return torch.from_numpy(pool.targets[rows][:, columns])


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(v, other[k]) for k, v in one.items())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"anonymizer": {"kind": "deformation", "size": SIZE, "border": "paper"}},
        {"anonymizer": {"kind": "deformation", "size": SIZE, "mu_coarse": 0.1}},
        {"objective": {"privacy": "rank"}},
        {"augmentation": {"rotation": 5.0, "noise": 0.05, "erasing": 0.5}},
        {"training": training(precision="bfloat16")},
    ],
    ids=["privacy-net", "paper-border", "multi-scale", "rank", "augmentation", "bfloat16"],
)
def test_a_step_changes_every_network(changes: dict[str, Any], miniature_runs_made: Runs) -> None:
    adversarial = task(miniature_runs_made, **changes)
    before = {name: weights(network) for name, network in adversarial.networks.items()}
    found = adversarial.step(adversarial.batches(1)[0], MOMENT)
    assert set(found) == {"total", "privacy", "classification", "verifier", "classifier"}
    for name, network in adversarial.networks.items():
        after = network.state_dict()
        learned = [key for key, _ in network.named_parameters()]
        changed = [key for key in learned if not torch.equal(after[key], before[name][key])]
        assert len(changed) > 0.9 * len(learned), name
        assert all(value.isfinite().all() for value in after.values())


def test_a_step_takes_the_classes_of_the_first_images(miniature_runs_made: Runs) -> None:
    adversarial = task(miniature_runs_made, objective={"privacy_weight": 0.0})
    pool = open_pool([miniature_runs_made.data])
    pairs = pool.pairs("train")
    rows = adversarial.batches(1)[0]
    seen: list[torch.Tensor] = []
    classifier = adversarial.networks["classifier"]
    classifier.register_forward_hook(lambda module, given, result: seen.append(result.detach()))
    found = adversarial.step(rows, MOMENT)
    targets = targets_of(pool, classifier, pairs.first[rows])
    expected = nn.functional.binary_cross_entropy_with_logits(seen[0], targets)
    torch.testing.assert_close(torch.as_tensor(found["classification"]), expected)


def test_the_augmentation_is_drawn_of_the_moment_alone(miniature_runs_made: Runs) -> None:
    changes = {"augmentation": {"noise": 0.1, "rotation": 5.0}}
    one, other, later, plain = (task(miniature_runs_made, **c) for c in (changes,) * 3 + ({},))
    rows = one.batches(1)[0]
    moments = (MOMENT, MOMENT, Moment(seed=1, epoch=1, iteration=2, rank=0, world=1), MOMENT)
    found = [a.step(rows, at) for a, at in zip((one, other, later, plain), moments, strict=True)]
    losses = [float(each["verifier"]) for each in found]
    assert losses[0] == losses[1]
    assert len(set(losses)) == 3
    # The generator's own step sees no variation.
    assert len({float(each["total"]) for each in found}) == 1


def test_one_verifier_may_stand_alone_and_none_may_not(miniature_runs_made: Runs) -> None:
    run = str(miniature_runs_made.verifier)
    one = settings(miniature_runs_made, critics={"verifiers": run})
    assert one == settings(miniature_runs_made, critics={"verifiers": [run]})
    with pytest.raises(ValidationError, match="verifiers"):
        settings(miniature_runs_made, critics={"verifiers": []})
    with pytest.raises(ValidationError, match="mirrored"):
        settings(miniature_runs_made, augmentation={"flip": 0.5})


CONFIGS = Path(__file__).parents[3] / "train" / "configs"


def test_the_published_strengths_are_there_for_both_operators() -> None:
    changes = ["critics.verifiers=a", "critics.classifier=b"]
    found = {
        (chosen.anonymizer.mu, chosen.anonymizer.border)
        for path in CONFIGS.glob("prichexynet-paper-*.toml")
        for chosen in (read_settings(path, AdversarialSettings, changes),)
        if isinstance(chosen.anonymizer, DeformationSettings)
    }
    assert found == {(mu, border) for mu in (0.001, 0.005, 0.01) for border in BORDERS}


def test_validation_is_what_every_pair_alone_would_give(miniature_runs_made: Runs) -> None:
    both = [str(miniature_runs_made.verifier), str(miniature_runs_made.other_verifier)]
    adversarial = task(miniature_runs_made, critics={"verifiers": both})
    for rows in adversarial.batches(1)[:2]:
        adversarial.step(rows, MOMENT)
    found = adversarial.validate()

    pool = open_pool([miniature_runs_made.data])
    pairs = pool.pairs("val")
    networks = [adversarial.networks[name].eval() for name in ("generator", "classifier")]
    critics = [adversarial.networks[name].eval() for name in ("verifier", "verifier-2")]
    first = [load_verifier(run) for run in both]
    with torch.no_grad():
        made = networks[0](pool.images.gather(pairs.first))
        real = pool.images.gather(pairs.second)
        logits = [verifier(made, real) for verifier in (*critics, *first)]
        classified = networks[1](made)
    privacy = torch.stack([nn.functional.softplus(one).mean() for one in logits[:2]]).mean()
    targets = targets_of(pool, networks[1], pairs.first)
    classification = nn.functional.binary_cross_entropy_with_logits(classified, targets)
    scores = [auc(one.numpy(), pairs.same) for one in logits]
    assert found["privacy"] == pytest.approx(privacy.item(), rel=1e-5)
    assert found["classification"] == pytest.approx(classification.item(), rel=1e-5)
    assert found["total"] == pytest.approx((privacy + classification).item(), rel=1e-5)
    assert found["auc"] == pytest.approx(max(scores[:2]))
    assert found["frozen_auc"] == pytest.approx(max(scores[2:]))
    with torch.no_grad():
        classified = load_classifier(miniature_runs_made.classifier)(made)
    utility = nn.functional.binary_cross_entropy_with_logits(classified, targets)
    frozen = 2 * max(abs(one - 0.5) for one in scores[2:]) + utility.item()
    assert found["frozen"] == pytest.approx(frozen, rel=1e-5)


def test_the_frozen_verifiers_do_not_follow_the_training(miniature_runs_made: Runs) -> None:
    adversarial = task(miniature_runs_made, training=training(learning_rate=1e-12))
    verifier = adversarial.networks["verifier"]
    before = adversarial.validate()
    with torch.no_grad():
        for weight in verifier.parameters():
            weight.mul_(-0.7)
    after = adversarial.validate()
    assert after["frozen_auc"] == before["frozen_auc"]
    assert after["privacy"] != before["privacy"]


def test_the_epoch_with_the_lowest_validation_total_is_kept(
    miniature_runs_made: Runs, tmp_path: Path
) -> None:
    fast = training(epochs=3, learning_rate=0.03)
    fitted = run_adversarial(
        settings(miniature_runs_made, training=fast), [miniature_runs_made.data], tmp_path
    )
    totals = [entry["validation"]["total"] for entry in fitted.history]
    assert fitted.best == min(totals)
    result = RunFolder(tmp_path).result()
    assert result["best_epoch"] == 1 + int(np.argmin(totals))
    assert result["validation"] == fitted.history[result["best_epoch"] - 1]["validation"]
    assert set(load_checkpoint(tmp_path / "best.pt")["networks"]) == {
        "generator",
        "verifier",
        "classifier",
    }
    assert list(load_critics(tmp_path)) == ["verifier"]


def test_the_frozen_measure_does_not_depend_on_how_far_the_critics_are(
    miniature_runs_made: Runs,
) -> None:
    adversarial = task(miniature_runs_made, monitor="frozen")
    before = adversarial.validate()
    with torch.no_grad():
        for name in ("verifier", "classifier"):
            for weight in adversarial.networks[name].parameters():
                weight.mul_(-0.7)
    after = adversarial.validate()
    assert adversarial.monitor == "frozen"
    assert after["frozen"] == before["frozen"]
    assert after["total"] != before["total"]


@pytest.mark.parametrize("monitor", ["total", "frozen"])
def test_the_best_epoch_is_the_monitors(
    monitor: str, miniature_runs_made: Runs, tmp_path: Path
) -> None:
    fast = training(epochs=3, learning_rate=0.03)
    chosen = settings(miniature_runs_made, training=fast, monitor=monitor)
    fitted = run_adversarial(chosen, [miniature_runs_made.data], tmp_path)
    found = [entry["validation"][monitor] for entry in fitted.history]
    assert RunFolder(tmp_path).result()["best_epoch"] == 1 + int(np.argmin(found))


def test_a_run_stopped_after_every_step_comes_to_the_very_same(
    miniature_runs_made: Runs, tmp_path: Path
) -> None:
    runs = miniature_runs_made
    chosen = settings(
        runs,
        critics={
            "verifiers": [str(runs.verifier), str(runs.other_verifier)],
            "restart_every": 2,
        },
        start=str(runs.pretrained_privacy_net),
        training=training(epochs=2),
    )
    whole = run_adversarial(chosen, [runs.data], tmp_path / "whole")
    for _ in range(12):
        passed = time.monotonic()
        parts = run_adversarial(chosen, [runs.data], tmp_path / "parts", deadline=passed)
        if parts.finished:
            break
    assert parts.finished
    assert losses(parts.history) == losses(whole.history)
    one, other = (
        load_checkpoint(tmp_path / name / "checkpoint.pt")["networks"]
        for name in ("whole", "parts")
    )
    assert all(equal(one[name], other[name]) for name in one)
    # The first one's turn is after the second epoch, the other's after the first.
    assert equal(one["verifier"], load_best(runs.verifier, "verifier"))
    assert not equal(one["verifier-2"], load_best(runs.other_verifier, "verifier"))


def test_a_restart_gives_back_the_first_weights_and_forgets_the_momenta(
    miniature_runs_made: Runs,
) -> None:
    adversarial = task(miniature_runs_made, critics={"restart_every": 1})
    before = weights(adversarial.networks["verifier"])
    generator = weights(adversarial.networks["generator"])
    adversarial.step(adversarial.batches(1)[0], MOMENT)
    assert not equal(weights(adversarial.networks["verifier"]), before)
    adversarial.end_epoch(1, {})
    assert equal(weights(adversarial.networks["verifier"]), before)
    assert not adversarial.optimizers["verifier"].state
    assert adversarial.optimizers["classifier"].state
    assert not equal(weights(adversarial.networks["generator"]), generator)


def test_several_verifiers_restart_in_turns() -> None:
    due = {critic: [e for e in range(1, 13) if is_due(critic, 3, e, 6)] for critic in range(3)}
    assert due == {0: [6, 12], 1: [2, 8], 2: [4, 10]}
    assert not any(is_due(0, 1, epoch, 0) for epoch in range(1, 13))


def test_training_begins_with_the_pretrained_weights(
    miniature_runs_made: Runs, tmp_path: Path
) -> None:
    runs = miniature_runs_made
    slow = training(learning_rate=1e-12)
    chosen = settings(runs, start=str(runs.pretrained_privacy_net), training=slow)
    run_adversarial(chosen, [runs.data], tmp_path)
    pretrained = load_best(runs.pretrained_privacy_net, "generator")
    for name, value in load_best(tmp_path, "generator").items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(value, pretrained[name], rtol=0, atol=1e-9)


def test_the_coarse_field_is_trained_along_with_the_fine_one(miniature_runs_made: Runs) -> None:
    table = {"kind": "deformation", "size": SIZE, "mu": 0.0, "mu_coarse": 0.1, "cells": 4}
    adversarial = task(miniature_runs_made, anonymizer=table)
    head = adversarial.networks["generator"].get_parameter("head.conv.weight")
    before = head.clone()
    adversarial.step(adversarial.batches(1)[0], MOMENT)
    assert not torch.equal(head, before)
    made = build_anonymizer(DeformationSettings.model_validate(table))
    assert isinstance(made, MultiscaleAnonymizer)
    assert (made.mu, made.mu_coarse, made.cells) == (0.0, 0.1, 4)


def test_the_place_of_a_critic_may_change_but_not_the_critic(
    miniature_runs_made: Runs, tmp_path: Path
) -> None:
    runs = miniature_runs_made
    moved = tmp_path / "moved"
    moved.symlink_to(runs.verifier)
    run_adversarial(settings(runs), [runs.data], tmp_path / "run", deadline=time.monotonic())
    elsewhere = settings(runs, critics={"verifiers": [str(moved)]})
    assert run_adversarial(elsewhere, [runs.data], tmp_path / "run").finished
    another = settings(runs, critics={"verifiers": [str(runs.other_verifier)]})
    with pytest.raises(Misconfigured, match="verifier differs"):
        run_adversarial(another, [runs.data], tmp_path / "run")


def test_a_critic_that_is_not_finished_or_something_else_is_refused(
    miniature_runs_made: Runs, tmp_path: Path
) -> None:
    runs = miniature_runs_made
    for critics, words in (
        ({"verifiers": [str(tmp_path / "nothing")]}, "no finished run"),
        ({"verifiers": [str(runs.classifier)]}, "is a run of classifier, not of verifier"),
        ({"classifier": str(runs.verifier)}, "is a run of verifier, not of classifier"),
    ):
        with pytest.raises(Misconfigured, match=words):
            run_adversarial(settings(runs, critics=critics), [runs.data], tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_start_from_another_network_or_another_size_is_refused(
    miniature_runs_made: Runs, tmp_path: Path
) -> None:
    runs = miniature_runs_made
    with pytest.raises(Misconfigured, match="another network"):
        run_adversarial(settings(runs, start=str(runs.pretrained)), [runs.data], tmp_path / "a")
    with pytest.raises(Misconfigured, match=r"anonymizer\.size is 64"):
        run_adversarial(
            settings(runs, anonymizer={"kind": "privacy-net", "size": 64}),
            [runs.data],
            tmp_path / "b",
        )
    assert not list(tmp_path.iterdir())


def test_validation_pairs_of_one_kind_are_refused(miniature_runs_made: Runs) -> None:
    runs = miniature_runs_made
    chosen = settings(runs)
    data = AdversarialData.of(open_pool([runs.data]), chosen)
    alike = data.validation.take(data.validation.same.nonzero()[0])
    with pytest.raises(Misconfigured, match="not of both kinds"):
        AdversarialTask(
            build_anonymizer(chosen.anonymizer),
            [load_verifier(runs.verifier)],
            load_classifier(runs.classifier),
            replace(data, validation=alike),
            chosen,
            Computing.of(chosen.training),
        )


def test_a_classifier_of_labels_that_the_data_lack_is_refused(miniature_runs_made: Runs) -> None:
    runs = miniature_runs_made
    chosen = settings(runs)
    classifier = load_classifier(runs.classifier)
    classifier.labels = ("Effusion", "Fracture", "Mass")
    with pytest.raises(Misconfigured, match="Fracture"):
        AdversarialTask(
            build_anonymizer(chosen.anonymizer),
            [load_verifier(runs.verifier)],
            classifier,
            AdversarialData.of(open_pool([runs.data]), chosen),
            chosen,
            Computing.of(chosen.training),
        )


@pytest.mark.gpu
@pytest.mark.parametrize("privacy", ["paper", "rank"])
def test_a_step_never_waits_for_the_gpu(privacy: str, miniature_runs_made: Runs) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    adversarial = task(
        miniature_runs_made,
        objective={"privacy": privacy},
        augmentation={"rotation": 5.0, "noise": 0.05},
        training=training(device="cuda", precision="bfloat16"),
    )
    first, second = adversarial.batches(1)[:2]
    adversarial.step(first, MOMENT)
    torch.cuda.set_sync_debug_mode("error")
    try:
        adversarial.step(second, MOMENT)
    finally:
        torch.cuda.set_sync_debug_mode("default")
