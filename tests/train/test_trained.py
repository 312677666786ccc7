"""Networks of finished runs come back as they were."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from prichexy_testing.miniature_runs import SIZE, Runs, adversarial
from prichexy_train.errors import Damaged, Misconfigured
from prichexy_train.runs import load_best
from prichexy_train.trained import (
    load_anonymizer,
    load_classifier,
    load_critics,
    load_verifier,
    network_of,
)


def test_a_verifier_and_a_classifier_come_back_with_their_best_weights(
    miniature_runs_made: Runs,
) -> None:
    runs = miniature_runs_made
    for run, head in ((runs.verifier, "difference"), (runs.other_verifier, "cosine")):
        verifier = load_verifier(run)
        assert (verifier.head, verifier.size, verifier.training) == (head, SIZE, False)
        assert network_of(run).head == head
        for name, value in load_best(run, "verifier").items():
            assert torch.equal(verifier.state_dict()[name], value)
    classifier = load_classifier(runs.classifier)
    assert set(classifier.labels) <= {"Cardiomegaly", "Effusion", "Mass"}
    for name, value in load_best(runs.classifier, "classifier").items():
        assert torch.equal(classifier.state_dict()[name], value)


def test_the_critics_come_back_as_the_best_epoch_left_them_wherever_their_runs_are(
    miniature_runs_made: Runs, tmp_path: Path
) -> None:
    both = [
        str(shutil.copytree(getattr(miniature_runs_made, name), tmp_path / name))
        for name in ("verifier", "other_verifier")
    ]
    run = adversarial(
        miniature_runs_made,
        tmp_path / "run",
        anonymizer={"kind": "privacy-net"},
        critics={"verifiers": both},
    )
    for folder in both:
        shutil.rmtree(folder)
    critics = load_critics(run)
    assert [(name, critic.head) for name, critic in critics.items()] == [
        ("verifier", "difference"),
        ("verifier-2", "cosine"),
    ]
    for name, critic in critics.items():
        for key, value in load_best(run, name).items():
            assert torch.equal(critic.state_dict()[key], value)
    started = load_verifier(miniature_runs_made.verifier).state_dict()
    ended = critics["verifier"].state_dict()
    assert any(not torch.equal(value, started[name]) for name, value in ended.items())


def test_another_stages_run_is_refused(miniature_runs_made: Runs, tmp_path: Path) -> None:
    runs = miniature_runs_made
    with pytest.raises(Misconfigured, match="is a run of classifier, not of verifier"):
        load_verifier(runs.classifier)
    with pytest.raises(Misconfigured, match="is a run of pretrain, not of classifier"):
        load_classifier(runs.pretrained)
    with pytest.raises(Misconfigured, match="trained no anonymizer"):
        load_anonymizer(runs.classifier)
    with pytest.raises(Misconfigured, match="without critics"):
        load_critics(runs.pretrained)
    with pytest.raises(Misconfigured, match="no finished run"):
        load_verifier(tmp_path)


def test_a_run_whose_settings_were_changed_is_called_damaged(
    miniature_runs_made: Runs, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(miniature_runs_made.verifier, run)
    text = (run / "settings.toml").read_text()
    (run / "settings.toml").write_text(text.replace("embedding = 8", "embedding = 16"))
    with pytest.raises(Damaged, match="do not fit its settings"):
        load_verifier(run)
    (run / "settings.toml").write_text(text.replace("embedding = 8", "embedding = 0"))
    with pytest.raises(Damaged, match="not those of verifier"):
        load_verifier(run)
