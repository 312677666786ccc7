"""A method from one line of text, and the digest that identifies it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from prichexy_model.anonymizer import Anonymizer
from prichexy_model.bundle import load_anonymizer
from prichexy_model.methods import Deformation, DPPix, PrivacyNetMethod, RandomWarp, Real
from prichexy_model.multiscale import MultiscaleAnonymizer
from prichexy_testing.miniature_runs import SIZE, Runs, adversarial
from prichexy_train.errors import Damaged, Misconfigured
from prichexy_train.methods_from import method_from, weights_digest
from prichexy_train.runs import load_best
from prichexy_train.trained import load_anonymizer as load_trained

BUNDLE = Path(__file__).parents[2] / "model" / "untrained"
IMAGES = torch.rand(3, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def generators(seed: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed + k) for k in range(len(IMAGES))]


def copied(run: Path, to: Path) -> None:
    shutil.copytree(run, to, ignore=shutil.ignore_patterns("checkpoint.pt", "tensorboard"))


@pytest.mark.parametrize(
    ("text", "method"),
    [
        ("real", Real()),
        ("dp-pix:b=4", DPPix(4, 0.1)),
        ("dp-pix:b=2,eps=0.5", DPPix(2, 0.5)),
        ("random:mu=0.01", RandomWarp(0.01)),
        ("random:mu=0.02,border=paper,coarseness=8", RandomWarp(0.02, "paper", 8)),
    ],
)
def test_a_line_of_text_names_a_method_that_gives_the_line_back(text: str, method: object) -> None:
    chosen = method_from(text)
    assert chosen.method == method
    assert chosen.name == text
    assert chosen.of.name == text
    assert chosen.size is None
    assert chosen.run is None
    assert chosen.anonymizer is None
    assert chosen.method(IMAGES, generators()).shape == IMAGES.shape


def test_every_setting_has_a_digest_of_its_own_and_the_order_does_not_matter() -> None:
    texts = (
        "real",
        "dp-pix:b=1",
        "dp-pix:b=2",
        "dp-pix:b=2,eps=0.2",
        "random:mu=0.01",
        "random:mu=0.01,border=paper",
        "random:mu=0.01,coarseness=2",
    )
    assert len({method_from(text).of.digest for text in texts}) == len(texts)
    one, other = (
        method_from("random:mu=0.01,coarseness=2"),
        method_from("random:coarseness=2,mu=1e-2,border=corrected"),
    )
    assert one.of == other.of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("blur", "is no method"),
        ("", "is no method"),
        ("run:", "is no method"),
        ("dp-pix", "needs b="),
        ("dp-pix:b=0", "b cannot be 0"),
        ("dp-pix:b=2.5", "b cannot be 2.5"),
        ("dp-pix:b=2,eps=0", "eps cannot be 0"),
        ("dp-pix:b=2,eps=inf", "eps cannot be inf"),
        ("dp-pix:b=2,size=3", "knows no size"),
        ("random:mu=1", "mu cannot be 1"),
        ("random:mu=nan", "mu cannot be nan"),
        ("random:mu=0.1,border=none", "border cannot be none"),
        ("real:b=1", "knows no b"),
    ],
)
def test_what_is_no_method_is_refused_with_what_is_wrong(text: str, words: str) -> None:
    with pytest.raises(Misconfigured, match=words):
        method_from(text)


def test_a_run_gives_its_best_generator_in_eval_mode(
    miniature_runs_made: Runs, tmp_path: Path
) -> None:
    table = {"kind": "deformation", "size": SIZE, "mu": 0.2, "border": "paper"}
    run = adversarial(miniature_runs_made, tmp_path / "run", anonymizer=table)
    chosen = method_from(f"run:{run}")
    assert method_from(str(run)).of == chosen.of
    assert isinstance(chosen.method, Deformation)
    assert chosen.name == "prichexy-net:mu=0.2,border=paper"
    assert chosen.of.settings["mu"] == 0.2
    assert (chosen.size, chosen.run) == (SIZE, run)
    anonymizer = chosen.anonymizer
    assert isinstance(anonymizer, Anonymizer)
    assert (anonymizer.mu, anonymizer.border, anonymizer.size) == (0.2, "paper", SIZE)
    assert not any(module.training for module in anonymizer.modules())
    assert not any(weight.requires_grad for weight in anonymizer.parameters())
    for name, value in load_best(run, "generator").items():
        assert torch.equal(anonymizer.generator.state_dict()[name], value)
    together = chosen.method(IMAGES, generators())
    alone = torch.cat([chosen.method(image[None], generators()[:1]) for image in IMAGES])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_a_digest_is_of_the_weights_and_of_the_operator(
    miniature_runs_made: Runs, tmp_path: Path
) -> None:
    found = set()
    for number, changes in enumerate(({}, {"mu": 0.2}, {"mu_coarse": 0.05})):
        run = tmp_path / str(number)
        copied(miniature_runs_made.pretrained, run)
        settings = (run / "settings.toml").read_text()
        for key, value in changes.items():
            lines = settings.splitlines()
            settings = "\n".join(
                f"{key} = {value}" if line.startswith(f"{key} =") else line for line in lines
            )
        (run / "settings.toml").write_text(settings)
        found.add(method_from(run).of.digest)
    assert len(found) == 3
    assert method_from(tmp_path / "2").name == "prichexy-net:mu=0.01,coarse=0.05,cells=8"
    assert isinstance(method_from(tmp_path / "2").anonymizer, MultiscaleAnonymizer)

    anonymizer, _ = load_trained(miniature_runs_made.pretrained)
    weights = dict(anonymizer.state_dict())
    before = weights_digest(weights)
    name = next(name for name, value in weights.items() if value.is_floating_point())
    weights[name] = weights[name].clone()
    weights[name].view(-1)[0] += 1e-3
    assert weights_digest(weights) != before


def test_a_digest_does_not_depend_on_how_weights_lie_in_memory() -> None:
    weight = torch.randn(4, 3, 3, 3)
    other = weight.to(memory_format=torch.channels_last)
    assert weights_digest({"a": weight, "b": torch.tensor(3)}) == weights_digest(
        {"b": torch.tensor(3), "a": other}
    )


def test_privacy_nets_run_gives_privacy_net(miniature_runs_made: Runs) -> None:
    chosen = method_from(miniature_runs_made.pretrained_privacy_net)
    assert isinstance(chosen.method, PrivacyNetMethod)
    assert chosen.name == "privacy-net"
    assert chosen.anonymizer is None
    assert chosen.method(IMAGES, generators()).shape == IMAGES.shape


def test_a_bundle_gives_its_generator() -> None:
    chosen = method_from(f"bundle:{BUNDLE}")
    anonymizer, bundle = load_anonymizer(BUNDLE)
    assert isinstance(chosen.method, Deformation)
    assert (chosen.size, chosen.run) == (bundle.input_size, None)
    image = torch.rand(1, 1, bundle.input_size, bundle.input_size)
    with torch.inference_mode():
        expected = anonymizer(image)
        found = chosen.method(image, generators()[:1])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_what_cannot_be_read_is_refused(miniature_runs_made: Runs, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="no finished run"):
        method_from(f"run:{tmp_path}")
    with pytest.raises(Misconfigured, match="trained no anonymizer"):
        method_from(f"run:{miniature_runs_made.verifier}")
    with pytest.raises(Damaged, match="metadata"):
        method_from(f"bundle:{tmp_path}")
    unfinished = tmp_path / "unfinished"
    copied(miniature_runs_made.pretrained, unfinished)
    (unfinished / "result.json").unlink()
    with pytest.raises(Misconfigured, match="no finished run"):
        method_from(unfinished)
