"""The adversarial step, against plain float64 arithmetic and against what it must not do."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from prichexy_model.flow import BORDERS, Border
from prichexy_testing import adversarial_reference as reference
from prichexy_testing import torchrun as launcher
from prichexy_testing.tiny_players import MU, Verifier, batches, optimizers, players
from prichexy_testing.torchrun import torchrun
from prichexy_train.stages.adversarial_step import (
    Batch,
    Objective,
    Optimizers,
    Players,
    Privacy,
    adversarial_step,
)
from prichexy_train.stages.critics import frozen


def copied(network: nn.Module, change: Callable[..., Tensor]) -> reference.Player:
    state = {
        name: value.detach().clone().requires_grad_(isinstance(value, nn.Parameter))
        for name, value in network.state_dict(keep_vars=True).items()
    }
    return reference.Player(state, change)


def play(networks: Players, batch: Batch, objective: Objective) -> dict[str, Tensor]:
    return adversarial_step(networks, optimizers(networks), batch, objective, nullcontext)


@pytest.mark.parametrize(
    ("border", "privacy", "verifiers"),
    [(BORDERS[0], "paper", 1), (BORDERS[1], "paper", 1), (BORDERS[0], "rank", 2)],
)
def test_three_steps_are_what_plain_float64_arithmetic_gives(
    border: Border, privacy: Privacy, verifiers: int
) -> None:
    ours = players(border, verifiers)
    using = optimizers(ours)
    generator = copied(ours.anonymizer, reference.adam)
    critics = [copied(verifier, reference.adam) for verifier in ours.verifiers]
    classifier = copied(ours.classifier, reference.sgd)
    before = [copied(network, reference.sgd).state for network in ours.critics]
    for batch in batches(3):
        losses = adversarial_step(ours, using, batch, Objective(privacy=privacy), nullcontext)
        expected = reference.step(
            generator,
            critics,
            classifier,
            (batch.first, batch.second, batch.same, batch.labels),
            mu=MU,
            border=border,
            privacy=privacy,
        )
        assert {name: value.item() for name, value in losses.items()} == pytest.approx(
            expected, rel=1e-9
        )
    for network, plain in zip(
        (ours.anonymizer, *ours.critics), (generator, *critics, classifier), strict=True
    ):
        for name, value in network.state_dict().items():
            torch.testing.assert_close(value, plain.state[name], rtol=1e-9, atol=1e-11, msg=name)
    for network, old in zip(ours.critics, before, strict=True):
        state = network.state_dict()
        assert all(not torch.equal(state[name], value) for name, value in old.items())


def test_only_the_first_image_of_a_pair_is_anonymised() -> None:
    networks = players()
    seen: list[tuple[Tensor, Tensor]] = []
    networks.verifiers[0].register_forward_pre_hook(lambda _, given: seen.append(given))
    (batch,) = batches(1)
    play(networks, batch, Objective())
    assert len(seen) == 2
    for first, second in seen:
        assert not torch.equal(first, batch.first)
        assert second is batch.second
    assert seen[0][0].requires_grad
    assert not seen[1][0].requires_grad
    torch.testing.assert_close(seen[0][0], seen[1][0], rtol=0, atol=0)


def test_critics_hold_still_for_the_generator_and_train_afterwards() -> None:
    networks = players()
    modes: list[tuple[bool, bool]] = []
    for critic in networks.critics:
        critic.register_forward_pre_hook(
            lambda module, _: modes.append(
                (module.training, any(w.requires_grad for w in module.parameters()))
            )
        )
    play(networks, batches(1)[0], Objective())
    assert modes == [(False, False), (False, False), (True, True), (True, True)]


def test_the_generators_step_computes_no_gradient_of_a_critics_weight() -> None:
    networks = players()
    (batch,) = batches(1)
    images = batch.first.clone().requires_grad_()

    def cost() -> int:
        with FlopCounterMode(display=False) as counter:
            networks.verifiers[0](images, batch.second).sum().backward()
        return counter.get_total_flops()

    with frozen(*networks.critics):
        held = cost()
    assert all(weight.grad is None for weight in networks.verifiers[0].parameters())
    # Two images forward and one backward to the image, without the weights' part of two images.
    assert held < 0.7 * cost()


def test_freezing_ends_with_every_mode_and_every_gradient_as_before() -> None:
    network = Verifier()
    network.features[1].eval()
    network.head.bias.requires_grad_(requires_grad=False)

    def state() -> list[bool]:
        return [m.training for m in network.modules()] + [
            w.requires_grad for w in network.parameters()
        ]

    before = state()
    with frozen(network):
        assert not any(state())
    assert state() == before
    with pytest.raises(RuntimeError, match="stop"), frozen(network):
        raise RuntimeError("stop")
    assert state() == before


@pytest.mark.parametrize("privacy", ["paper", "rank"])
def test_against_critics_that_do_not_learn_the_generator_gets_its_way(privacy: Privacy) -> None:
    networks = players()
    using = optimizers(networks)
    generator = torch.optim.Adam(networks.anonymizer.parameters(), lr=0.01)
    for optimizer in (*using.verifiers, using.classifier):
        optimizer.param_groups[0]["lr"] = 0.0
    using = Optimizers(generator, using.verifiers, using.classifier)
    (batch,) = batches(1)
    found = []
    for _ in range(30):
        # Their statistics would follow all the same.
        states = [{k: v.clone() for k, v in net.state_dict().items()} for net in networks.critics]
        objective = Objective(privacy=privacy)
        losses = adversarial_step(networks, using, batch, objective, nullcontext)
        found.append(losses["total"].item())
        for network, state in zip(networks.critics, states, strict=True):
            network.load_state_dict(state)
    assert found[-1] < found[0]
    assert sum(found[-5:]) < sum(found[:5])


def test_weights_of_the_objective_scale_its_parts() -> None:
    (batch,) = batches(1)
    losses = play(players(), batch, Objective(privacy_weight=3.0, classification_weight=0.25))
    expected = 3 * losses["privacy"] + 0.25 * losses["classification"]
    torch.testing.assert_close(losses["total"], expected)


def test_without_the_privacy_weight_the_verifier_does_not_move_the_generator() -> None:
    (batch,) = batches(1)
    one, other = players(), players()
    with torch.no_grad():
        other.verifiers[0].head.weight.mul_(-3)
    for networks in (one, other):
        play(networks, batch, Objective(privacy_weight=0.0))
    for name, value in one.anonymizer.state_dict().items():
        torch.testing.assert_close(value, other.anonymizer.state_dict()[name], rtol=0, atol=0)


def test_the_papers_privacy_is_blind_to_a_rank_and_the_rank_to_a_shift() -> None:
    same = torch.tensor([1.0, 1.0, 0.0, 0.0])
    logits = torch.tensor([2.0, 1.0, -1.0, 0.0])
    paper, rank = Objective(privacy="paper"), Objective(privacy="rank")
    assert paper.privacy_loss(logits - 50, same) < 1e-9
    torch.testing.assert_close(
        rank.privacy_loss(logits - 50, same), rank.privacy_loss(logits, same), rtol=1e-4, atol=1e-5
    )
    assert rank.privacy_loss(logits * same * 0, same) < rank.privacy_loss(logits, same)


def test_labels_that_nobody_looked_for_teach_nothing() -> None:
    (batch,) = batches(1)
    known = torch.arange(batch.labels.numel()).reshape(batch.labels.shape) % 3 > 0
    found = []
    for elsewhere in (0.0, 1.0):
        networks = players()
        labels = batch.labels.where(known, torch.tensor(elsewhere, dtype=batch.labels.dtype))
        losses = play(networks, replace(batch, labels=labels, known=known), Objective())
        found.append((losses, networks))
    (one, its), (other, others) = found
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=0, atol=0)
    for mine, theirs in zip(its.critics, others.critics, strict=True):
        for name, value in mine.state_dict().items():
            torch.testing.assert_close(theirs.state_dict()[name], value, rtol=0, atol=0)
    everything = play(players(), batch, Objective())
    assert everything["classification"] != one["classification"]


def test_losses_are_single_precision_when_networks_run_in_half() -> None:
    networks = players()
    for network in (networks.anonymizer, *networks.critics):
        network.float()
    (batch,) = batches(1, torch.float32)
    seen: list[Tensor] = []
    networks.classifier.register_forward_hook(lambda module, given, result: seen.append(result))
    losses = adversarial_step(
        networks,
        optimizers(networks),
        batch,
        Objective(),
        lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    )
    assert seen[0].dtype == torch.bfloat16
    assert {value.dtype for value in losses.values()} == {torch.float32}
    assert not any(value.requires_grad for value in losses.values())
    assert {weight.dtype for weight in networks.anonymizer.parameters()} == {torch.float32}


def test_only_what_critics_learn_from_is_varied() -> None:
    networks = players()
    seen: dict[str, list[Tensor]] = {"verifier": [], "classifier": []}
    for name, critic in (("verifier", networks.verifiers[0]), ("classifier", networks.classifier)):
        critic.register_forward_pre_hook(lambda _, given, name=name: seen[name].extend(given))
    asked: list[str] = []

    def vary(images: Tensor, purpose: str) -> Tensor:
        assert not images.requires_grad
        asked.append(purpose)
        return images * 0 + len(asked)

    (batch,) = batches(1)
    adversarial_step(networks, optimizers(networks), batch, Objective(), nullcontext, None, vary)
    assert asked == ["first", "second", "classes"]
    assert [one.unique().tolist() for one in seen["verifier"][2:]] == [[1.0], [2.0]]
    assert seen["classifier"][1].unique().tolist() == [3.0]
    torch.testing.assert_close(seen["verifier"][0], seen["classifier"][0])
    assert seen["verifier"][1] is batch.second


def test_a_limited_gradient_limits_every_networks_step() -> None:
    networks = players()
    before = [[w.clone() for w in net.parameters()] for net in networks.critics]
    descent = Optimizers(
        *(
            torch.optim.SGD(networks.anonymizer.parameters(), lr=1.0),
            [torch.optim.SGD(networks.verifiers[0].parameters(), lr=1.0)],
            torch.optim.SGD(networks.classifier.parameters(), lr=1.0),
        )
    )
    (batch,) = batches(1)
    adversarial_step(networks, descent, batch, Objective(), nullcontext, clip=1e-3)
    for network, old in zip(networks.critics, before, strict=True):
        moved = [w.detach() - v for w, v in zip(network.parameters(), old, strict=True)]
        length = torch.cat([one.flatten() for one in moved]).norm().item()
        assert length == pytest.approx(1e-3, rel=1e-3)


def test_gradients_are_averaged_once_for_each_network_before_its_weights_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    networks = players(verifiers=2)
    before = [next(net.parameters()).clone() for net in (networks.anonymizer, *networks.critics)]
    averaged: list[nn.Module] = []

    def average(network: nn.Module) -> None:
        weight = next(network.parameters())
        assert weight.grad is not None
        assert torch.equal(weight, before[len(averaged)])
        averaged.append(network)

    monkeypatch.setattr("prichexy_train.optimizers.average_gradients", average)
    play(networks, batches(1)[0], Objective())
    assert averaged == [networks.anonymizer, *networks.critics]


def test_two_processes_play_as_one_does() -> None:
    done = torchrun(Path(launcher.__file__).with_name("adversarial_program.py"))
    assert done.returncode == 0, done.stderr
    assert "all checks passed" in done.stdout
