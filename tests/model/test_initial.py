"""The initial weights are what their seed says, and never replace trained ones."""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import prichexy_model
from prichexy_model.bundle import METADATA_FILE, BundleError, load_anonymizer, read_bundle
from prichexy_model.generator import build_generator
from prichexy_model.initial import SEED, initial_weights, main, write_initial_weights
from prichexy_model.weights import load_weights


def test_the_untrained_weights_are_those_of_the_documented_seed(untrained_bundle: Path) -> None:
    shipped = load_weights(
        untrained_bundle / "models" / "model.pt", read_bundle(untrained_bundle).digest
    )
    made = initial_weights()
    assert list(shipped) == list(made)
    for name, value in made.items():
        expected = value.half().float() if value.is_floating_point() else value
        assert torch.equal(shipped[name], expected), name
    assert f"seed {SEED}" in (untrained_bundle / "docs" / "README.md").read_text("utf-8")


def test_a_processor_without_vector_instructions_makes_the_same_weights(
    bundle_copy: Path, untrained_bundle: Path
) -> None:
    subprocess.run(
        [sys.executable, "-m", "prichexy_model.initial", str(bundle_copy)],
        env={
            **os.environ,
            "ATEN_CPU_CAPABILITY": "default",
            "PYTHONPATH": str(Path(prichexy_model.__file__).parents[1]),
        },
        capture_output=True,
        timeout=300,
        check=True,
    )
    made = load_weights(bundle_copy / "models" / "model.pt", read_bundle(bundle_copy).digest)
    shipped = load_weights(
        untrained_bundle / "models" / "model.pt", read_bundle(untrained_bundle).digest
    )
    assert all(torch.equal(made[name], shipped[name]) for name in shipped)


def test_another_seed_gives_other_weights_and_torchs_own_state_has_no_say() -> None:
    torch.manual_seed(1)
    first = initial_weights(1)
    torch.manual_seed(2)
    again, other = initial_weights(1), initial_weights(2)
    name = "encoder.0.0.conv.weight"
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first[name], other[name])


def test_torchs_own_random_state_is_left_as_it_was() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    initial_weights()
    assert torch.equal(torch.get_rng_state(), before)


def test_every_convolution_keeps_the_size_of_a_signal() -> None:
    weights = initial_weights()
    for name, value in weights.items():
        if name.endswith("bias"):
            assert not value.any(), name
        if not name.endswith(("conv.weight", "deconv.weight")):
            continue
        if "deconv" in name:
            bound = math.sqrt(3 / value.shape[0])
        else:
            gain = 1 if name.startswith("head") else 2
            bound = math.sqrt(3 * gain / value[0].numel())
        assert 0.9 * bound < value.abs().max() <= bound, name
        assert value.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1), name
        assert value.mean().abs() < 0.1 * bound, name


def test_the_command_writes_the_weights_and_their_digest_and_nothing_else(
    bundle_copy: Path, untrained_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (bundle_copy / "models" / "model.pt").unlink()
    (bundle_copy / "models").rmdir()
    assert main([str(bundle_copy)]) == 0
    digest = hashlib.sha256((bundle_copy / "models" / "model.pt").read_bytes()).hexdigest()
    assert read_bundle(bundle_copy).digest == digest
    assert digest in capsys.readouterr().out
    load_anonymizer(bundle_copy)
    before = (untrained_bundle / "configs" / "metadata.json").read_text("utf-8")
    after = (bundle_copy / "configs" / "metadata.json").read_text("utf-8")
    assert after == before.replace(read_bundle(untrained_bundle).digest, digest)
    assert len(list(bundle_copy.rglob("*"))) == len(list(untrained_bundle.rglob("*")))


def test_the_same_torch_writes_the_shipped_file_byte_for_byte(
    bundle_copy: Path, untrained_bundle: Path
) -> None:
    made_with = json.loads((untrained_bundle / "configs" / "metadata.json").read_bytes())
    if torch.__version__.split("+")[0] != made_with["pytorch_version"]:
        pytest.skip("the shipped file was written by another version of torch")
    assert write_initial_weights(bundle_copy) == read_bundle(untrained_bundle).digest


@pytest.mark.parametrize("evidence", ["trained", "measured"])
def test_trained_weights_are_not_overwritten(
    bundle_with: Callable[..., Path], capsys: pytest.CaptureFixture[str], evidence: str
) -> None:
    folder = bundle_with(evidence=evidence)
    metadata = json.loads((folder / METADATA_FILE).read_bytes())
    figures = {"made-up": {"auc": 0.6}}
    (folder / METADATA_FILE).write_text(json.dumps({**metadata, "eval_metrics": figures}))
    before = (folder / "models" / "model.pt").read_bytes()
    with pytest.raises(BundleError, match="not overwritten"):
        write_initial_weights(folder)
    assert main([str(folder)]) == 1
    assert "not overwritten" in capsys.readouterr().err
    assert (folder / "models" / "model.pt").read_bytes() == before


def test_a_folder_that_is_no_bundle_is_left_alone(tmp_path: Path) -> None:
    assert main([str(tmp_path)]) == 1
    assert list(tmp_path.iterdir()) == []


def test_torchs_own_default_would_barely_move_a_pixel(noise: torch.Tensor) -> None:
    # The reason why the initial weights are not simply torch's default.
    with torch.random.fork_rng():
        torch.manual_seed(0)
        default = build_generator().eval()
    mine = build_generator().eval()
    mine.load_state_dict(initial_weights())
    with torch.inference_mode():
        small, large = default(noise[:1]).std(), mine(noise[:1]).std()
    assert large > 3 * small
