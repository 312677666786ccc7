"""From finished runs to a bundle that MONAI accepts, workers load, and a gateway promotes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from prichexy_gateway.bundle_check import store_at
from prichexy_gateway.errors import Refused
from prichexy_model.bundle import (
    Anonymizer,
    load_anonymizer,
    load_classifier,
    load_verifier,
    read_bundle,
)
from prichexy_model.multiscale import MultiscaleAnonymizer
from prichexy_testing import miniature_runs
from prichexy_testing.made_up_runs import REAL, MadeUp
from prichexy_testing.miniature_runs import SIZE, Runs
from prichexy_testing.monai_bundle import run_on, verify_metadata, verify_net_in_out
from prichexy_testing.shared_data import REPO
from prichexy_train import trained
from prichexy_train.attacks.running import run_attack
from prichexy_train.attacks.settings import AttackSettings
from prichexy_train.bundle_export import export_bundle
from prichexy_train.cli import create_app
from prichexy_train.errors import Failed, Misconfigured
from prichexy_train.methods_from import method_from
from prichexy_train.runs import RunFolder
from prichexy_train.utility import UtilitySettings, run_utility
from prichexy_worker.contract import ModelInfo
from prichexy_worker.engine import Engine

BRIEF: dict[str, Any] = {
    "network": {"backbone": "tiny", "embedding": 8, "size": SIZE},
    "training": miniature_runs.training(),
}


@pytest.fixture(scope="module")
def runs(miniature_runs_made: Runs) -> Runs:
    return miniature_runs_made


@pytest.fixture(scope="module")
def anonymizer(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "anonymizer"
    return miniature_runs.adversarial(runs, folder, start=str(runs.pretrained))


@pytest.fixture(scope="module")
def records(runs: Runs, anonymizer: Path) -> Path:
    """Give the records of a short ladder, of real images too, and of utility."""
    folder = anonymizer.parent / "measured"
    words = {"rungs": (1, 3), "seeds": 1, "device": "cpu", "fresh": BRIEF, "pair_lists": ("test",)}
    for name, method in (("real", "real"), ("ours", f"run:{anonymizer}")):
        run_attack(
            AttackSettings.model_validate(words),
            [runs.data],
            folder / f"attack-{name}",
            method=method,
            verifiers=[runs.verifier],
        )
    run_utility(
        UtilitySettings.model_validate({"least": 1, "replicates": 100, "device": "cpu"}),
        [runs.data],
        folder / "utility",
        method=f"run:{anonymizer}",
        classifier=runs.classifier,
    )
    return folder


@pytest.fixture(scope="module")
def bundle(runs: Runs, anonymizer: Path, records: Path) -> Path:
    """Give a whole bundle, made by the command; no test may write there."""
    to = anonymizer.parent / "bundle"
    done = CliRunner().invoke(
        create_app(),
        [
            *("export", "--anonymizer", str(anonymizer), "--verifier", str(runs.verifier)),
            *("--classifier", str(runs.classifier), "--records", str(records)),
            *("--to", str(to), "--data-source", "Drawn by a test."),
        ],
    )
    assert done.exit_code == 0, done.output
    assert "trained" in done.output
    assert "For `measured` there lacks: rungs 2, 4, 5 and 8 (list test); 5 seeds" in done.output
    return to


@pytest.fixture(scope="module")
def said(bundle: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((bundle / "configs" / "metadata.json").read_bytes())
    return data


def validate(folder: Path) -> None:
    """Compare metadata and schema as MONAI does, without the seconds that it takes to start."""
    metadata, schema = (
        json.loads((folder / "configs" / name).read_bytes())
        for name in ("metadata.json", "metadata.schema.json")
    )
    jsonschema.validate(metadata, schema)


def test_monai_verifies_the_metadata(bundle: Path) -> None:
    result = verify_metadata(bundle)
    assert result.returncode == 0, result.stderr
    assert "metadata is verified with no error" in result.stderr + result.stdout


def test_monai_verifies_the_network(bundle: Path) -> None:
    result = verify_net_in_out(bundle)
    assert result.returncode == 0, result.stderr
    assert "data shape of network is verified with no error" in result.stderr + result.stdout


def test_monai_runs_it_as_the_run_deforms(bundle: Path, anonymizer: Path, tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(0, 65536, (SIZE, SIZE)).astype(np.uint16)
    (tmp_path / "in").mkdir()
    Image.fromarray(values).save(tmp_path / "in" / "chest.png")
    result = run_on(bundle, tmp_path / "in" / "*.png", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    field = np.load(tmp_path / "out" / "chest.displacement.npy")
    network, _ = trained.load_anonymizer(anonymizer)
    with torch.inference_mode():
        image = torch.from_numpy(values.astype(np.float32) / 65535)[None, None]
        expected = network.displacement(image)[0].numpy()  # type: ignore[operator]
    assert np.abs(field - expected).max() * (SIZE - 1) / 2 < 0.02
    assert np.abs(field).max() > 0


def test_each_network_comes_back_as_its_run_trained_it(bundle: Path, runs: Runs) -> None:
    images = torch.rand(3, 1, 40, 40, generator=torch.Generator().manual_seed(1))
    others = images.flip(0)
    verifier, part = load_verifier(bundle)
    assert (part.backbone, part.head, part.embedding, part.input_size) == (
        "tiny",
        "difference",
        8,
        SIZE,
    )
    classifier, known = load_classifier(bundle)
    trained_classifier = trained.load_classifier(runs.classifier)
    assert known.labels == trained_classifier.labels
    with torch.inference_mode():
        expected = trained.load_verifier(runs.verifier)(images, others)
        assert torch.allclose(verifier(images, others), expected, atol=0.01)
        assert torch.allclose(classifier(images), trained_classifier(images), atol=0.01)
    for network in (verifier, classifier):
        assert not any(module.training for module in network.modules())
        assert not any(parameter.requires_grad for parameter in network.parameters())


def test_a_worker_loads_it_and_a_gateway_promotes_it(bundle: Path, tmp_path: Path) -> None:
    engine = Engine.load(bundle, "cpu")
    assert ModelInfo.from_json(engine.model.to_json()).evidence == "trained"
    store = store_at(tmp_path / "store")
    change = store.promote(bundle, "test")
    assert change is not None
    assert change.version.weights == engine.model.digest
    # A bundle that brings a verifier along is broken when that is.
    (store.root / "broken").mkdir()
    for path in bundle.rglob("*"):
        place = store.root / "broken" / path.relative_to(bundle)
        place.mkdir(exist_ok=True) if path.is_dir() else place.write_bytes(path.read_bytes())
    (store.root / "broken" / "models" / "verifier.pt").write_bytes(b"")
    with pytest.raises(Refused, match=r"verifier\.pt"):
        store.promote(store.root / "broken", "test")


def test_the_evidence_and_the_figures_are_those_of_the_records(said: dict[str, Any]) -> None:
    assert said["prichexy"]["evidence"] == "trained"
    assert said["prichexy"]["statement"].startswith("Trained, not fully measured: rungs 2, 4, 5")
    (figures,) = said["eval_metrics"].values()
    found = figures["verification"]["test"]
    assert {attack["rung"] for attack in found["attacks"]} >= {1, 3}
    assert found["real_images"]["auc"]["mean"] > 0
    assert figures["utility"]["images"] > 0
    # By one seed of two rungs nothing can be shown, and so nothing is offered.
    assert said["prichexy"]["statement"].endswith("No privacy is claimed.")
    assert said["intended_use"].startswith("Research")
    assert any("rungs" in sentence for sentence in said["limits"])


def test_the_provenance_says_how_each_network_came_to_be(
    said: dict[str, Any], runs: Runs, anonymizer: Path
) -> None:
    provenance = said["provenance"]
    assert provenance["method_digest"] == method_from(f"run:{anonymizer}").of.digest
    assert set(provenance["runs"]) == {"anonymizer", "verifier", "classifier"}
    ours = provenance["runs"]["anonymizer"]
    (digest,) = ours["sets"].values()
    assert digest in RunFolder(runs.pretrained).provenance()["data"].values()
    assert set(ours["began_with"]) == {"verifier", "classifier", "start"}
    assert ours["seed"] == ours["settings"]["training"]["seed"]
    start = ours["starts"][-1]
    assert {"software", "commit", "libraries", "device"} <= set(start)
    assert {"torch", "monai"} <= set(start["libraries"])
    assert provenance["exported_by"]["libraries"]
    assert digest in said["data_source"]
    assert "Drawn by a test." in said["data_source"]
    # The machine's folders are nobody's business.
    assert str(runs.data.parent) not in json.dumps(said)


def test_the_card_tells_people_the_same(bundle: Path, said: dict[str, Any]) -> None:
    card = (bundle / "docs" / "README.md").read_text(encoding="utf-8")
    section = said["prichexy"]
    for text in (
        "**Evidence: trained.**",
        section["statement"],
        said["intended_use"],
        *said["limits"],
        section["weights_sha256"],
        section["verifier"]["weights_sha256"],
        section["classifier"]["weights_sha256"],
        "## Figures",
        "fresh-anonymised",
    ):
        assert text in card
    assert "Apache License" in (bundle / "LICENSE").read_text(encoding="utf-8")


def test_with_the_whole_ladder_the_evidence_is_measured(anonymizer: Path, tmp_path: Path) -> None:
    made_up, ours = MadeUp(tmp_path / "records"), method_from(f"run:{anonymizer}").of
    made_up.ladder(REAL, 2.0)
    made_up.ladder(ours, 0.8)
    made_up.utility(ours, 0.78)
    made = export_bundle(anonymizer, tmp_path / "bundle", records=made_up.folder)
    assert made.figures.missing == ()
    bundle = read_bundle(made.folder)
    assert bundle.evidence == "measured"
    assert bundle.statement.startswith("Measured on made-up")
    assert bundle.protects is made.figures.protects is True
    validate(made.folder)
    card = (made.folder / "docs" / "README.md").read_text(encoding="utf-8")
    assert "**Evidence: measured.**" in card
    assert "there lacks" not in card


def test_a_network_that_the_records_do_not_know_is_refused(
    runs: Runs, anonymizer: Path, records: Path, tmp_path: Path
) -> None:
    to = tmp_path / "bundle"
    with pytest.raises(Misconfigured, match="no verifier that the records were measured with"):
        export_bundle(anonymizer, to, records=records, verifier=runs.other_verifier)
    made_up, ours = MadeUp(tmp_path / "records"), method_from(f"run:{anonymizer}").of
    made_up.utility(ours, 0.78, provenance={"classifier": "0" * 64})
    with pytest.raises(Misconfigured, match="no classifier that the records were measured with"):
        export_bundle(anonymizer, to, records=made_up.folder, classifier=runs.classifier)
    assert not to.exists()


@pytest.mark.parametrize("role", ["verifier", "classifier"])
def test_a_network_that_comes_back_with_other_answers_is_refused(
    runs: Runs, anonymizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    load = {"verifier": load_verifier, "classifier": load_classifier}[role]

    def damaged(folder: Path) -> Any:
        network, part = load(folder)
        state = {name: value * 2 for name, value in network.state_dict().items()}
        network.load_state_dict(state)
        return network, part

    monkeypatch.setattr(f"prichexy_train.bundle_export.load_{role}", damaged)
    run = {role: runs.verifier if role == "verifier" else runs.classifier}
    with pytest.raises(Failed, match=f"the {role} answers otherwise"):
        export_bundle(anonymizer, tmp_path / "bundle", **run)
    assert list(tmp_path.iterdir()) == []


def test_without_records_the_evidence_is_trained(anonymizer: Path, tmp_path: Path) -> None:
    made = export_bundle(anonymizer, tmp_path / "bundle")
    bundle = read_bundle(made.folder)
    assert bundle.evidence == "trained"
    assert "no privacy is claimed" in bundle.statement
    assert (bundle.verifier, bundle.classifier) == (None, None)
    validate(made.folder)
    assert not (made.folder / "models" / "verifier.pt").exists()


def test_a_bundle_can_be_attacked_and_measured_itself(
    runs: Runs, anonymizer: Path, tmp_path: Path
) -> None:
    made = export_bundle(anonymizer, tmp_path / "bundle")
    chosen = method_from(f"bundle:{made.folder}")
    assert chosen.size == SIZE
    assert chosen.of.settings["mu"] == read_bundle(made.folder).mu


def test_a_version_stands_for_one_content(
    bundle: Path, runs: Runs, anonymizer: Path, tmp_path: Path
) -> None:
    one = export_bundle(anonymizer, tmp_path / "one")
    again = export_bundle(anonymizer, tmp_path / "again")
    other = export_bundle(runs.pretrained, tmp_path / "other")
    assert one.version == again.version
    assert len({one.version, other.version, read_bundle(bundle).version}) == 3
    named = export_bundle(anonymizer, tmp_path / "named", name="ours", version="1.0")
    assert (read_bundle(named.folder).name, named.version) == ("ours", "1.0")


def assert_moves_alike(bundle: Path, anonymizer: Anonymizer, folder: Path) -> None:
    """Let MONAI's own command run the bundle: its displacement is the anonymizer's."""
    image = np.random.default_rng(1).integers(0, 256, (SIZE, SIZE)).astype(np.uint8)
    Image.fromarray(image).save(folder / "chest.png")
    result = run_on(bundle, folder / "*.png", folder / "out")
    assert result.returncode == 0, result.stderr
    with torch.inference_mode():
        expected = anonymizer.displacement(torch.from_numpy(image / np.float32(255))[None, None])
    field = np.load(folder / "out" / "chest.displacement.npy")
    np.testing.assert_allclose(field, expected[0].numpy(), atol=1e-6)


def test_the_coarse_field_goes_along(runs: Runs, tmp_path: Path) -> None:
    run = miniature_runs.adversarial(
        runs, tmp_path / "run", anonymizer={"mu_coarse": 0.05, "cells": 4}
    )
    made = export_bundle(run, tmp_path / "bundle")
    anonymizer, bundle = load_anonymizer(made.folder)
    assert isinstance(anonymizer, MultiscaleAnonymizer)
    assert bundle.coarse is not None
    assert (bundle.coarse.mu, bundle.coarse.cells) == (0.05, 4)
    validate(made.folder)
    assert_moves_alike(made.folder, anonymizer, tmp_path)


def test_the_size_that_the_generator_sees_goes_along(runs: Runs, tmp_path: Path) -> None:
    run = miniature_runs.adversarial(runs, tmp_path / "run", anonymizer={"field_size": 16})
    made = export_bundle(run, tmp_path / "bundle")
    anonymizer, bundle = load_anonymizer(made.folder)
    assert (bundle.input_size, bundle.field_size) == (SIZE, 16)
    validate(made.folder)
    verify_net_in_out(made.folder)
    assert_moves_alike(made.folder, anonymizer, tmp_path)
    as_bundle, as_run = method_from(f"bundle:{made.folder}"), method_from(f"run:{run}")
    assert as_bundle.of.settings == as_run.of.settings


def test_what_no_worker_can_apply_is_refused(runs: Runs, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="no deformation"):
        export_bundle(runs.pretrained_privacy_net, tmp_path / "bundle")
    with pytest.raises(Misconfigured, match="no anonymizer"):
        export_bundle(runs.verifier, tmp_path / "bundle")
    with pytest.raises(Misconfigured, match="verifier"):
        export_bundle(runs.pretrained, tmp_path / "bundle", verifier=runs.classifier)
    assert list(tmp_path.iterdir()) == []


def test_records_of_another_anonymizer_are_refused(
    runs: Runs, records: Path, tmp_path: Path
) -> None:
    with pytest.raises(Misconfigured, match="is about this anonymizer"):
        export_bundle(runs.pretrained, tmp_path / "bundle", records=records)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [{"name": "x y"}, {"version": "a b/../c"}, {"name": ""}])
def test_a_name_or_version_that_is_no_word_is_refused(
    anonymizer: Path, tmp_path: Path, words: dict[str, str]
) -> None:
    with pytest.raises(Misconfigured, match="letters, digits and"):
        export_bundle(anonymizer, tmp_path / "bundle", **words)


def test_nothing_is_overwritten(anonymizer: Path, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    with pytest.raises(Misconfigured, match="is there already"):
        export_bundle(anonymizer, tmp_path / "bundle")


def test_weights_that_half_precision_changes_too_much_are_refused(
    anonymizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prichexy_train.bundle_export._MOST_MOVED", 0.0)
    with pytest.raises(Failed, match="half precision"):
        export_bundle(anonymizer, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_template_is_named(anonymizer: Path, tmp_path: Path) -> None:
    with pytest.raises((Misconfigured, Failed), match=str(tmp_path / "nowhere")):
        export_bundle(anonymizer, tmp_path / "bundle", template=tmp_path / "nowhere")


def test_a_bundle_is_valid_under_its_templates_schema(bundle: Path) -> None:
    schema = (bundle / "configs" / "metadata.schema.json").read_bytes()
    assert schema == (REPO / "model/untrained/configs/metadata.schema.json").read_bytes()
