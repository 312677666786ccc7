"""Each rung finds what is there to be found, and nothing where nothing is."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prichexy_model.anonymizer import Anonymizer
from prichexy_testing.attackers import BRIEF, CPU, LEARNS, SIZE
from prichexy_testing.training import MemoryImages
from prichexy_train.attacks import undoing
from prichexy_train.attacks.controls import PartlyHidden, ShuffledIdentities
from prichexy_train.attacks.critic import Critic
from prichexy_train.attacks.features import ImageNetFeatures, PixelCorrelation, centred_features
from prichexy_train.attacks.fresh import FreshVerifier
from prichexy_train.attacks.frozen import Frozen, FrozenEnsemble
from prichexy_train.attacks.ladder import LADDER
from prichexy_train.attacks.metadata import Metadata, OriginalSize
from prichexy_train.attacks.other_backbone import OtherBackbone
from prichexy_train.attacks.rung import NotApplicable, Rung, Workplace
from prichexy_train.attacks.searching import Search
from prichexy_train.attacks.settings import TrainedOn
from prichexy_train.attacks.target import Target
from prichexy_train.attacks.training import shuffled
from prichexy_train.attacks.tuned import FineTuned
from prichexy_train.attacks.undoing import Registered, RegistrationResidual, Undone
from prichexy_train.data.pool import Pool
from prichexy_train.errors import Damaged
from prichexy_train.feed import Feed
from prichexy_train.judging import pair_logits
from prichexy_train.measures.auc import auc
from prichexy_train.measures.demographics import demographics_score, original_size_score
from prichexy_train.runs import RunFolder, load_best
from prichexy_train.stages.verifier import VerifierData
from prichexy_train.trained import load_verifier

MakeTarget = Callable[..., Target]


def every(pool: Pool) -> Tensor:
    return pool.images.gather(np.arange(len(pool)))


def attacked(rung: Rung, target: Target, folder: Path, seed: int = 1) -> dict[str, float]:
    """Give the AUC on each list."""
    attempt = rung.attack(target, Workplace(folder, rung.name, seed))
    assert attempt.scores.keys() in (target.scored.keys(), target.lists.keys())
    return {name: auc(attempt.scores[name], pairs.same) for name, pairs in target.lists.items()}


class Spy:
    """Remembers which images were asked for."""

    def __init__(self, pixels: Tensor) -> None:
        self._images = MemoryImages(pixels)
        self.size = pixels.shape[-1]
        self.asked: set[int] = set()

    def __len__(self) -> int:
        return len(self._images)

    def gather(self, indices: NDArray[np.int64]) -> Tensor:
        self.asked |= set(indices.tolist())
        return self._images.gather(indices)


def test_the_ladder_has_all_nine_rungs_under_names_of_their_own() -> None:
    assert {rung.number for rung in LADDER} == set(range(10))
    assert len({rung.name for rung in LADDER}) == len(LADDER)


def test_against_a_method_that_does_nothing_it_finds_what_real_pairs_give(
    target: MakeTarget, pool: Pool, strong: Path, tmp_path: Path
) -> None:
    against = target(MemoryImages(every(pool)))
    real = Feed(pool.images, CPU)
    for name, found in attacked(Frozen(), against, tmp_path).items():
        pairs = pool.pairs(name)
        logits = pair_logits(load_verifier(strong), real, real, pairs).double().numpy()
        assert found == pytest.approx(auc(logits, pairs.same), abs=1e-3)
    assert attacked(Frozen(), against, tmp_path)["test"] > 0.8, "the verifier is not strong"


def test_a_constant_image_tells_nothing(target: MakeTarget, pool: Pool, tmp_path: Path) -> None:
    against = target(MemoryImages(torch.full_like(every(pool), 0.5)))
    assert set(attacked(PixelCorrelation(), against, tmp_path).values()) == {0.5}
    assert set(attacked(RegistrationResidual(), against, tmp_path).values()) == {0.5}
    assert attacked(Frozen(), against, tmp_path)["test"] == pytest.approx(0.5, abs=0.12)
    attempt = Search("frozen").attack(against, Workplace(tmp_path, "search", 1))
    found = attempt.retrievals["miniature"].found
    assert float(found.rank1.mean()) == pytest.approx(float(found.chance.mean()), abs=0.1)


def test_a_fresh_attacker_learns_to_see_through_a_method_that_hides_nobody(
    target: MakeTarget, pool: Pool, tmp_path: Path
) -> None:
    blurred = MemoryImages(nn.functional.avg_pool2d(every(pool), 5, 1, 2))
    against = target(blurred, settings={"fresh": LEARNS})
    assert attacked(FreshVerifier("mixed"), against, tmp_path)["test"] > 0.7


def test_shuffled_identities_teach_nothing(target: MakeTarget, pool: Pool, tmp_path: Path) -> None:
    brief = LEARNS | {"objective": "pairs", "network": LEARNS["network"] | {"head": "difference"}}
    against = target(settings={"fresh": brief | {"training": brief["training"] | {"epochs": 2}}})
    assert attacked(ShuffledIdentities(), against, tmp_path)["test"] == pytest.approx(0.5, abs=0.15)


def test_shuffling_gives_every_image_another_patient_and_keeps_the_answers(pool: Pool) -> None:
    pairs = pool.pairs("train")
    data = VerifierData(
        pool.images,
        pool.images,
        pairs,
        pool.pairs("val"),
        pool.patients,
        pool.split("train"),
        pool.serials,
    )
    found = shuffled(data, 3)
    for before, after in ((data.train, found.train), (data.validation, found.validation)):
        assert np.array_equal(before.same, after.same)
        agree = found.patients[after.first] == found.patients[after.second]
        assert np.array_equal(agree, after.same), "pairs and patients tell two stories"
        really = pool.patients[after.first] == pool.patients[after.second]
        assert really[after.same].mean() < 0.2
    assert np.array_equal(np.sort(found.patients), np.sort(pool.patients))
    test = pool.split("test")
    assert np.array_equal(found.patients[test], pool.patients[test])
    assert set(found.train.first) <= set(pool.split("train"))


@pytest.mark.parametrize(
    ("rung", "sees_real"), [(FreshVerifier("anonymised"), False), (FreshVerifier("mixed"), True)]
)
def test_what_an_attacker_learns_from(
    rung: Rung, sees_real: bool, target: MakeTarget, pool: Pool, tmp_path: Path
) -> None:
    real, anonymised = Spy(every(pool)), Spy(every(pool))
    training = set(pool.split("train"))
    against = target(anonymised, pool=Pool(**vars(pool) | {"images": real}))
    rung.attack(against, Workplace(tmp_path, rung.name, 1))
    assert bool(real.asked & training) == sees_real
    assert anonymised.asked & training
    # Of test images the first are anonymised ones, the second real ones.
    test = set(pool.split("test"))
    lists = against.lists.values()
    assert anonymised.asked & test == {row for pairs in lists for row in pairs.first.tolist()}
    assert real.asked & test == {row for pairs in lists for row in pairs.second.tolist()}


@pytest.mark.parametrize("objective", ["pairs", "contrastive"])
@pytest.mark.parametrize("on", ["anonymised", "mixed"])
def test_every_epoch_learns_from_another_draw_and_none_is_validated_on(
    on: TrainedOn, objective: str, target: MakeTarget, pool: Pool, tmp_path: Path
) -> None:
    draws = [Spy(every(pool)) for _ in range(3)]
    epochs = BRIEF["training"] | {"epochs": 2}
    contrast = {"patients": 2, "images": 2}
    fresh = BRIEF | {"objective": objective, "training": epochs, "contrast": contrast}
    against = target(draws[0], redrawn=tuple(draws[1:]), settings={"fresh": fresh})
    FreshVerifier(on).attack(against, Workplace(tmp_path, "fresh", 1))
    train = set(pool.split("train"))
    # The first epoch is number 1: with two, the draw with number 0 is not learned from.
    assert not draws[0].asked & train
    assert all(one.asked and one.asked <= train for one in draws[1:])


def test_attempts_differ_by_seed_and_are_the_same_when_made_again(
    target: MakeTarget, tmp_path: Path
) -> None:
    rung = FreshVerifier("mixed")
    one, two, again = (
        rung.attack(target(), Workplace(tmp_path / place, rung.name, seed)).scores["test"]
        for place, seed in (("a", 1), ("a", 2), ("b", 1))
    )
    assert not np.allclose(one, two)
    assert np.array_equal(one, again)


def test_a_strong_verifier_learns_on_from_its_own_weights(
    target: MakeTarget, strong: Path, tmp_path: Path
) -> None:
    still = {"training": {"epochs": 1, "steps_per_epoch": 1, "learning_rate": 1e-9}}
    against = target(settings={"tuning": still})
    found = attacked(FineTuned(), against, tmp_path)
    # Not equal: its batch norms have seen one more batch.
    assert found["test"] == pytest.approx(attacked(Frozen(), against, tmp_path)["test"], abs=0.1)
    assert not (tmp_path / "attempts/fine-tuned/seed-1/checkpoint.pt").exists()


class Bends(nn.Module):
    """Stands for a generator: a smooth raw field, large, that depends on the image."""

    def forward(self, images: Tensor) -> Tensor:
        means = nn.functional.adaptive_avg_pool2d(images, 4)
        field = nn.functional.interpolate(means, size=images.shape[-2:], mode="bilinear")
        tilted = torch.cat((field - 0.6, 0.3 - field.flip(-1)), 1)
        return (4 * tilted).tanh()


def test_undoing_finds_again_what_the_deformation_hid(
    target: MakeTarget, pool: Pool, tmp_path: Path
) -> None:
    anonymizer = Anonymizer(Bends(), mu=0.35, size=SIZE).eval()
    against = target(MemoryImages(anonymizer(every(pool))), anonymizer=anonymizer)
    hidden = attacked(Frozen(), against, tmp_path)["test"]
    undone = attacked(Undone(), against, tmp_path)["test"]
    real = attacked(Frozen(), target(), tmp_path)["test"]
    assert hidden < real - 0.1, "nothing was hidden"
    assert undone > hidden + 0.5 * (real - hidden)


def test_the_generator_is_asked_once_for_all_verifiers(
    target: MakeTarget, pool: Pool, strong: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(undoing, "_TOGETHER", 20)
    anonymizer = Anonymizer(Bends(), mu=0.1, size=SIZE).eval()
    words: dict[str, Any] = {"anonymizer": anonymizer, "verifiers": (strong, strong)}
    against = target(MemoryImages(anonymizer(every(pool))), **words)
    first = attacked(Undone(), against, tmp_path, seed=1)
    monkeypatch.setattr(undoing, "undeformed", None)
    assert attacked(Undone(), against, tmp_path, seed=2) == first
    (tmp_path / "attempts/undone/20.npz").write_bytes(b"PK")
    with pytest.raises(Damaged, match=r"20\.npz"):
        attacked(Undone(), against, tmp_path, seed=1)


def test_registering_is_done_once_and_taken_up_where_it_was_left(
    target: MakeTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(undoing, "_TOGETHER", 50)
    against = target()
    first = attacked(Registered(), against, tmp_path)
    monkeypatch.setattr(undoing, "register", None)
    assert attacked(Registered(), against, tmp_path) == first
    assert attacked(RegistrationResidual(), against, tmp_path)["test"] > 0.6
    monkeypatch.undo()
    monkeypatch.setattr(undoing, "_TOGETHER", 50)
    (tmp_path / "attempts/registrations/test/50.npy").unlink()
    assert attacked(Registered(), against, tmp_path) == first


def test_sex_age_and_view_are_the_lists_own(target: MakeTarget, pool: Pool, tmp_path: Path) -> None:
    found = attacked(Metadata(), target(), tmp_path)
    for name, value in found.items():
        pairs = pool.pairs(name)
        assert value == auc(demographics_score(pool.catalogues, pairs), pairs.same)
    assert found["test"] > 0.8, "negatives of the published kind are not matched"


def test_the_original_size_gives_away_whose_machine_it_was(
    target: MakeTarget, pool: Pool, tmp_path: Path
) -> None:
    assert list(OriginalSize().seeds(target())) == [1]
    for name, value in attacked(OriginalSize(), target(), tmp_path).items():
        pairs = pool.pairs(name)
        assert value == auc(original_size_score(pool.catalogues, pairs), pairs.same)
        assert value > 0.8, "the miniature's patients have one size each"


def test_one_original_size_for_all_is_no_attack(target: MakeTarget, pool: Pool) -> None:
    (only,) = pool.sets
    square = [replace(image, original=(1024, 1024)) for image in only.catalogue.images]
    alike = replace(only, catalogue=replace(only.catalogue, images=tuple(square)))
    with pytest.raises(NotApplicable, match="no original sizes"):
        OriginalSize().seeds(target(pool=Pool.join([alike])))


def test_a_search_does_not_find_what_is_nearly_the_querys_own_picture(
    target: MakeTarget, pool: Pool, tmp_path: Path
) -> None:
    # All images of a patient are one picture, so there is nobody to look for.
    against = target(pool=replace(pool, pictures=pool.patients))
    with pytest.raises(NotApplicable, match="two different images"):
        Search("frozen").attack(against, Workplace(tmp_path, "search", 1))
    test = pool.split("test")
    patient, count = np.unique(pool.patients[test], return_counts=True)
    twice = test[pool.patients[test] == patient[count > 2][0]][:2]
    pictures = pool.pictures.copy()
    pictures[twice[1]] = pictures[twice[0]]
    attempt = Search("frozen").attack(
        target(pool=replace(pool, pictures=pictures)), Workplace(tmp_path, "search", 1)
    )
    before = Search("frozen").attack(target(), Workplace(tmp_path, "search", 1))
    found, all_found = (a.retrievals["miniature"].found for a in (attempt, before))
    fewer = (found.chance < all_found.chance).sum()
    assert len(found.rank1) == len(all_found.rank1)
    assert int(fewer) == 2, "each of the two has one image less to find"


def test_a_search_finds_patients_and_never_a_querys_own_original(
    target: MakeTarget, pool: Pool, tmp_path: Path
) -> None:
    attempt = Search("frozen").attack(target(), Workplace(tmp_path, "search", 1))
    found = attempt.retrievals["miniature"].found
    assert 3 * float(found.chance.mean()) < float(found.rank1.mean()) < 1
    counts = np.bincount(pool.patients[pool.split("test")])
    assert len(found.rank1) == counts[counts > 1].sum(), "only patients with several are sought"
    assert attempt.retrievals["miniature"].gallery == counts.sum() - 1
    fewer = target(settings={"retrieval": {"queries": 5}})
    attempt = Search("frozen").attack(fewer, Workplace(tmp_path, "search", 1))
    assert len(attempt.retrievals["miniature"].patients) == 5


def test_a_search_leaves_out_patients_of_the_next_numbers(
    target: MakeTarget, pool: Pool, tmp_path: Path
) -> None:
    # Every patient's number is the one before the next patient's.
    serials = np.stack((np.zeros_like(pool.patients), pool.patients), axis=1)
    numbered = replace(pool, serials=serials)
    (before, after) = (
        Search("frozen").attack(target(pool=one), Workplace(tmp_path, "search", 1))
        for one in (pool, numbered)
    )
    found, all_found = (a.retrievals["miniature"].found for a in (after, before))
    test = pool.split("test")
    counts = np.bincount(pool.patients[test], minlength=int(pool.patients.max()) + 2)
    asked = after.retrievals["miniature"].patients
    others = counts[asked] - 1
    near = counts[asked + 1] + np.where(asked > 0, counts[asked - 1], 0)
    assert near.any()
    assert np.allclose(all_found.chance, others / (len(test) - 1))
    assert np.allclose(found.chance, others / (len(test) - 1 - near))
    # Two series do not meet, and who has no number is nobody's neighbour.
    for apart in (serials + [[1, 0]] * (pool.patients % 2)[:, None], np.full_like(serials, -1)):
        attempt = Search("frozen").attack(
            target(pool=replace(pool, serials=apart)), Workplace(tmp_path, "search", 1)
        )
        assert torch.equal(attempt.retrievals["miniature"].found.chance, all_found.chance)


def test_what_a_border_gives_away_is_seen(target: MakeTarget, pool: Pool, tmp_path: Path) -> None:
    # A marker of each patient's own, and nothing else in the image.
    pixels = torch.full((len(pool), 1, SIZE, SIZE), 0.5)
    grey = torch.rand(int(pool.patients.max()) + 1, generator=torch.Generator().manual_seed(1))
    pixels[:, :, :3, :12] = grey[torch.from_numpy(pool.patients)][:, None, None, None]
    marked = MemoryImages(pixels)
    against = target(marked, pool=Pool(**vars(pool) | {"images": marked}))
    assert attacked(PartlyHidden("border"), against, tmp_path)["test"] == 0.5
    assert attacked(PartlyHidden("centre"), against, tmp_path)["test"] > 0.8


def critics_of(run: Path, strong: Path) -> Path:
    """Write what is needed of a finished adversarial run, whose critic is the strong verifier."""
    folder = RunFolder(run)
    run.mkdir()
    folder.save_best({"verifier": load_best(strong, "verifier")})
    network = LEARNS["network"]
    folder.result_file.write_text(
        json.dumps({"stage": "anonymizer", "critics": {"verifier": network}})
    )
    return run


def test_the_critic_attacks_with_its_weights_of_the_kept_epoch(
    target: MakeTarget, strong: Path, tmp_path: Path
) -> None:
    against = target(run=critics_of(tmp_path / "run", strong))
    assert list(Critic().seeds(against)) == [1]
    found = attacked(Critic(), against, tmp_path)
    assert found == attacked(Frozen(), against, tmp_path)


def test_the_baseline_and_the_ensemble_take_part(
    target: MakeTarget, strong: Path, tmp_path: Path
) -> None:
    features = {"backbone": "tiny", "size": SIZE}
    against = target(settings={"features": features}, verifiers=(strong, strong))
    assert attacked(ImageNetFeatures(), against, tmp_path)["test"] > 0.5
    assert attacked(FrozenEnsemble(), against, tmp_path)["test"] > 0.7
    for by in ("imagenet-features", "ensemble"):
        attempt = Search(by).attack(against, Workplace(tmp_path, "search", 1))
        assert attempt.retrievals.keys() == {"miniature"}
        assert attempt.retrievals["miniature"].validated is not None
    shares = attempt.shares["miniature"]
    assert shares.keys() == {"frozen 1", "frozen 2", "imagenet-features 1"}
    assert sum(abs(share) for share in shares.values()) == pytest.approx(1)
    assert shares["frozen 1"] == shares["frozen 2"] > shares["imagenet-features 1"]


def test_the_mean_features_are_of_a_few_images_spread_over_the_training_part(
    target: MakeTarget, pool: Pool
) -> None:
    seen = Spy(every(pool))
    settings = {"features": {"backbone": "tiny", "size": SIZE, "mean_of": 5}}
    centred_features(target(seen, settings=settings), "miniature")
    train = pool.split("train")
    assert len(seen.asked) == 5
    assert {train[0], train[-1]} < seen.asked < set(train.tolist())


@pytest.mark.parametrize(
    ("rung", "words", "reason"),
    [
        (Frozen(), {"verifiers": ()}, "no strong verifier"),
        (FineTuned(), {"verifiers": ()}, "no strong verifier"),
        (FrozenEnsemble(), {}, "no ensemble"),
        (Critic(), {}, "against nobody"),
        (Undone(), {}, "no generator"),
        (OtherBackbone(), {}, "no other network"),
        (ImageNetFeatures(), {}, "no ImageNet"),
    ],
)
def test_an_attack_that_cannot_be_made_says_what_it_lacks(
    rung: Rung, words: dict[str, Any], reason: str, target: MakeTarget
) -> None:
    with pytest.raises(NotApplicable, match=reason):
        rung.seeds(target(**words))


@pytest.mark.parametrize("rungs", [(Frozen(), Undone(), Registered(), PartlyHidden("border"))])
def test_each_strong_verifier_is_one_attempt(
    rungs: Sequence[Rung], target: MakeTarget, strong: Path
) -> None:
    anonymizer = Anonymizer(Bends(), size=SIZE)
    against = target(verifiers=(strong,) * 3, anonymizer=anonymizer)
    assert all(list(rung.seeds(against)) == [1, 2, 3] for rung in rungs)
