"""Attempts are recorded once, in whatever pieces of time they are made."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prichexy_testing.attackers import SIZE
from prichexy_testing.training import MemoryImages
from prichexy_train.anonymised import NotInTime
from prichexy_train.attacks.comparison import OfVerifier
from prichexy_train.attacks.features import ImageNetFeatures, PixelCorrelation
from prichexy_train.attacks.fresh import FreshVerifier
from prichexy_train.attacks.frozen import Frozen, ensemble
from prichexy_train.attacks.ladder import climb, rungs_of
from prichexy_train.attacks.metadata import Metadata
from prichexy_train.attacks.rung import Attempt, Interrupted, NotApplicable, Rung, Workplace
from prichexy_train.attacks.searching import Search
from prichexy_train.attacks.target import Target
from prichexy_train.attacks.tuned import FineTuned, TrainedEnsemble
from prichexy_train.attacks.undoing import Registered, RegistrationResidual
from prichexy_train.data.pool import Pool
from prichexy_train.locks import held
from prichexy_train.measures.auc import auc
from prichexy_train.records import (
    AttackRecord,
    RetrievalRecord,
    find_record,
    read_records,
)

MakeTarget = Callable[..., Target]


class Told(Rung):
    """An attacker who is told the answers, or whatever else a test wants."""

    number = 2
    name = "told"

    def __init__(self, error: Exception | None = None, at: int = 1) -> None:
        self.error, self.at = error, at
        self.made: list[int] = []

    def seeds(self, target: Target) -> Sequence[int]:
        return range(1, target.settings.seeds + 1)

    def attack(self, target: Target, workplace: Workplace) -> Attempt:
        if self.error is not None and workplace.seed == self.at:
            raise self.error
        self.made.append(workplace.seed)
        source = np.random.default_rng(workplace.seed)
        return Attempt(
            {
                name: pairs.same + source.normal(size=len(pairs))
                for name, pairs in target.lists.items()
            },
            details={"trained_seconds": 100.0},
        )


def test_a_record_says_what_was_measured_and_on_what(target: MakeTarget, tmp_path: Path) -> None:
    against = target()
    climbed = climb(against, tmp_path, rungs=[Told()], provenance={"software": "1"})
    assert climbed.finished
    assert climbed.records == 4
    for stored in read_records(tmp_path):
        record = stored.record
        assert isinstance(record, AttackRecord)
        pairs = against.lists[record.pair_list]
        assert record.auc == auc(stored.scores()["scores"], pairs.same)
        assert record.interval is None or record.interval[0] < record.auc < record.interval[1]
        assert (record.pairs, record.positives) == (len(pairs), pairs.same.sum())
        sides = np.concatenate((pairs.first, pairs.second))
        assert record.patients == len(np.unique(against.pool.patients[sides]))
        assert (record.data, record.data_digest) == (against.pool.name, against.pool.digest)
        assert (record.method.name, record.rung.name, record.device) == ("method", "told", "CPU")
        assert record.provenance == {"software": "1"}
        # A training that was spread over several calls took more than this one.
        assert record.seconds >= 100


def test_a_finished_attempt_is_not_made_again_and_more_seeds_add_to_it(
    target: MakeTarget, tmp_path: Path
) -> None:
    rung = Told()
    assert climb(target(), tmp_path, rungs=[rung]).records == 4
    assert climb(target(), tmp_path, rungs=[rung]).records == 0
    assert climb(target(settings={"seeds": 3}), tmp_path, rungs=[rung]).records == 2
    assert rung.made == [1, 2, 3]


def test_an_attempt_with_one_record_lost_is_made_again(target: MakeTarget, tmp_path: Path) -> None:
    rung = Told()
    climb(target(), tmp_path, rungs=[rung])
    (tmp_path / "records" / "rung-2.told.seed-2.test_matched.json").unlink()
    climb(target(), tmp_path, rungs=[rung])
    assert rung.made == [1, 2, 2]


@pytest.mark.parametrize(
    ("error", "ended"), [(NotInTime(), "deadline"), (Interrupted(), "interrupted")]
)
def test_what_was_made_before_the_end_is_kept(
    error: Exception, ended: str, target: MakeTarget, tmp_path: Path
) -> None:
    rung = Told(error, at=2)
    climbed = climb(target(), tmp_path, rungs=[rung])
    assert (climbed.ended, climbed.records) == (ended, 2)
    rung.error = None
    assert climb(target(), tmp_path, rungs=[rung]).finished
    assert rung.made == [1, 2]


def test_nothing_is_begun_after_the_deadline(target: MakeTarget, tmp_path: Path) -> None:
    rung = Told()
    climbed = climb(target(), tmp_path, rungs=[rung], deadline=5.0, clock=lambda: 6.0)
    assert (climbed.ended, climbed.records, rung.made) == ("deadline", 0, [])


class Passing:
    """What passes the time in a test: each call does the next thing."""

    def __init__(self, *things: Callable[[], object]) -> None:
        self.things = list(things)

    def __call__(self) -> None:
        self.things.pop(0)()


def test_what_another_process_is_at_is_left_to_it_and_then_waited_for(
    target: MakeTarget, tmp_path: Path
) -> None:
    ours, theirs, against = Told(), Told(), target()
    with ExitStack() as other:
        other.enter_context(held(Workplace(tmp_path, "told", 1).lock))

        def they_finish() -> None:
            assert ours.made == [2]
            other.close()
            climb(against, tmp_path, rungs=[theirs])

        passing = Passing(lambda: None, they_finish)
        climbed = climb(against, tmp_path, rungs=[ours], wait=passing)
    assert (climbed.ended, climbed.records, passing.things) == ("finished", 2, [])
    assert (ours.made, theirs.made) == ([2], [1])


def test_an_attempt_that_another_process_gave_up_is_made(
    target: MakeTarget, tmp_path: Path
) -> None:
    rung = Told()
    with ExitStack() as other:
        other.enter_context(held(Workplace(tmp_path, "told", 1).lock))
        climbed = climb(target(), tmp_path, rungs=[rung], wait=Passing(other.close))
    assert (climbed.ended, climbed.records, rung.made) == ("finished", 4, [2, 1])


def test_waiting_for_another_process_ends_at_the_deadline(
    target: MakeTarget, tmp_path: Path
) -> None:
    rung, times = Told(), [1.0]
    with held(Workplace(tmp_path, "told", 1).lock):
        climbed = climb(
            target(),
            tmp_path,
            rungs=[rung],
            deadline=5.0,
            clock=lambda: times[-1],
            wait=lambda: times.append(6.0),
        )
    assert (climbed.ended, climbed.records, rung.made) == ("deadline", 2, [2])


def test_what_rests_on_what_another_process_is_at_comes_after_it(
    target: MakeTarget, tmp_path: Path
) -> None:
    against = target(settings={"seeds": 2})
    rungs = [Frozen(), FreshVerifier("mixed"), TrainedEnsemble(), Search("fresh-mixed")]
    with ExitStack() as other:
        other.enter_context(held(Workplace(tmp_path, "fresh-mixed", 2).lock))

        def nothing_yet() -> None:
            names = {stored.record.rung.name for stored in read_records(tmp_path)}
            assert names == {"frozen", "fresh-mixed"}
            other.close()

        climbed = climb(against, tmp_path, rungs=rungs, wait=Passing(nothing_yet))
    assert climbed.finished
    assert not climbed.left_out
    together = find_record(tmp_path, "rung-4.trained-ensemble.seed-1.test")
    assert together is not None
    assert together.record.details["trainings"] == {"fresh-mixed": 2}


def test_two_threads_make_every_attempt_once(target: MakeTarget, tmp_path: Path) -> None:
    against, rungs = target(settings={"seeds": 12}), (Told(), Told())
    with ThreadPoolExecutor() as pool:
        calls = [
            pool.submit(climb, against, tmp_path, rungs=[rung], wait=lambda: None) for rung in rungs
        ]
        both = [call.result(timeout=60) for call in calls]
    assert all(climbed.finished for climbed in both)
    assert sum(climbed.records for climbed in both) == 24
    assert sorted(rungs[0].made + rungs[1].made) == [*range(1, 13)]


def test_what_cannot_be_attacked_is_named_and_the_rest_goes_on(
    target: MakeTarget, tmp_path: Path
) -> None:
    climbed = climb(
        target(verifiers=()),
        tmp_path,
        rungs=[Frozen(), PixelCorrelation(), Told(NotApplicable("x"))],
    )
    assert climbed.finished
    assert climbed.left_out == {"3 frozen": "no strong verifier is given", "2 told": "x"}
    assert climbed.records == 2


def test_a_training_that_runs_out_of_time_goes_on_from_there(
    target: MakeTarget, pool: Pool, tmp_path: Path
) -> None:
    brief = target().settings.fresh.model_dump(mode="json")
    brief["training"] |= {"epochs": 3, "steps_per_epoch": 2}
    redrawn = MemoryImages(1 - pool.images.gather(np.arange(len(pool))))
    against = target(settings={"seeds": 1, "fresh": brief}, redrawn=(redrawn,))
    rung = FreshVerifier("mixed")
    deadline = time.monotonic() + 0.02
    calls = 1
    # Until it has begun; each call gets a little further.
    while climb(against, tmp_path / "pieces", rungs=[rung], deadline=deadline).ended == "deadline":
        deadline = time.monotonic() + 0.5
        calls += 1
    climb(against, tmp_path / "whole", rungs=[rung])
    pieces, whole = (
        find_record(tmp_path / place, "rung-2.fresh-mixed.seed-1.test")
        for place in ("pieces", "whole")
    )
    assert pieces is not None
    assert whole is not None
    assert calls > 1
    assert np.array_equal(pieces.scores()["scores"], whole.scores()["scores"])


def test_the_trained_are_an_ensemble_that_grows_with_them(
    target: MakeTarget, tmp_path: Path
) -> None:
    rungs = [FreshVerifier("anonymised"), TrainedEnsemble()]
    assert "no attacker has trained, or none but one" in str(
        climb(target(settings={"seeds": 1}), tmp_path, rungs=rungs).left_out
    )
    climb(target(), tmp_path, rungs=rungs)
    rungs[:1] = [
        *(FineTuned(), FreshVerifier("anonymised"), PixelCorrelation()),
        *(Frozen(), Registered(), RegistrationResidual(), ImageNetFeatures()),
    ]
    climb(target(settings={"features": {"backbone": "tiny", "size": SIZE}}), tmp_path, rungs=rungs)
    stored = find_record(tmp_path, "rung-4.trained-ensemble.seed-1.test")
    assert stored is not None
    assert set(stored.record.details["weights"]) == {
        *("fresh-anonymised 1", "fresh-anonymised 2", "fine-tuned 1", "fine-tuned 2"),
        *("frozen 1", "registered 1", "registration-residual 1", "imagenet-features 1"),
    }


def test_a_search_uses_the_networks_that_other_rungs_trained(
    target: MakeTarget, tmp_path: Path
) -> None:
    against = target(settings={"seeds": 1})
    assert climb(against, tmp_path, rungs=[Search("fine-tuned")]).left_out == {
        "9 retrieval-fine-tuned": "fine-tuned was not trained with seed 1"
    }
    assert climb(against, tmp_path, rungs=[FineTuned(), Search("fine-tuned")]).finished
    stored = find_record(tmp_path, "rung-9.retrieval-fine-tuned.seed-1")
    assert stored is not None
    record = stored.record
    assert isinstance(record, RetrievalRecord)
    assert record.rank1 == stored.scores()["rank1"].mean()
    assert record.rank1 > record.chance_rank1
    assert climb(against, tmp_path, rungs=[Search("fine-tuned")]).records == 0


def test_a_network_that_was_left_behind_is_trained_again_to_search_with(
    target: MakeTarget, tmp_path: Path
) -> None:
    against = target(settings={"seeds": 1})
    assert climb(against, tmp_path / "there", rungs=[FineTuned(), Search("fine-tuned")]).finished
    there = find_record(tmp_path / "there", "rung-9.retrieval-fine-tuned.seed-1")
    assert climb(against, tmp_path / "here", rungs=[FineTuned()]).finished
    shutil.rmtree(tmp_path / "here" / "attempts")
    climbed = climb(against, tmp_path / "here", rungs=[FineTuned(), Search("fine-tuned")])
    assert (climbed.records, dict(climbed.left_out)) == (1, {})
    here = find_record(tmp_path / "here", "rung-9.retrieval-fine-tuned.seed-1")
    assert here is not None and there is not None
    assert isinstance(here.record, RetrievalRecord)
    assert isinstance(there.record, RetrievalRecord)
    assert here.record.rank1 == there.record.rank1


def test_rungs_are_chosen_by_number_and_tried_in_an_order_that_works() -> None:
    names = [rung.name for rung in rungs_of((9, 4))]
    assert names.index("fine-tuned") < names.index("trained-ensemble")
    assert names.index("fine-tuned") < names.index("retrieval-fine-tuned")
    assert "frozen" not in names


def test_sets_are_learned_from_as_one_and_tested_each_by_itself(
    target: MakeTarget, pool: Pool, tmp_path: Path
) -> None:
    (one,) = pool.sets
    again = replace(one, name="again")
    both = Pool.join([one, again])
    against = target(pool=both, settings={"seeds": 1}, anonymised=both.images)
    rungs = [FreshVerifier("mixed"), Frozen(), Search("frozen"), Metadata()]
    climb(against, tmp_path, rungs=rungs)
    records = [stored.record for stored in read_records(tmp_path)]
    assert {record.data for record in records} == {"miniature", "again"}
    # The same images under two names: what is found is the same.
    found = {
        name: sorted(
            (record.rung.name, record.pair_list, record.auc, record.patients)
            for record in records
            if isinstance(record, AttackRecord) and record.data == name
        )
        for name in ("miniature", "again")
    }
    assert len(found["again"]) == 6
    assert found["miniature"] == found["again"]
    galleries = {one.gallery for one in records if isinstance(one, RetrievalRecord)}
    assert galleries == {len(one.split("test")) - 1}
    assert climb(against, tmp_path, rungs=rungs).records == 0


class Inverted(Rung):
    """An attacker who gives pairs of one patient the lower scores, in every list."""

    number = 3
    name = "inverted"

    def attack(self, target: Target, workplace: Workplace) -> Attempt:
        source = np.random.default_rng(workplace.seed)
        return Attempt(
            {
                name: -4.0 * pairs.same + source.normal(size=len(pairs))
                for name, pairs in target.scored.items()
            }
        )


def test_whose_scores_point_the_wrong_way_on_validation_pairs_is_turned_round(
    target: MakeTarget, tmp_path: Path
) -> None:
    against = target()
    climb(against, tmp_path, rungs=[Inverted()])
    records = read_records(tmp_path)
    assert len(records) == 2
    for stored in records:
        record = stored.record
        assert isinstance(record, AttackRecord)
        assert record.auc > 0.9
        assert record.details["sign"] == -1
        validation = record.details["validation_auc"]
        assert isinstance(validation, float)
        assert validation < 0.1
        pairs, arrays = against.validations["miniature"], stored.scores()
        assert record.auc == auc(arrays["scores"], arrays["same"])
        assert auc(arrays["validation"], pairs.same) == pytest.approx(1 - validation)


def test_what_is_wrong_on_the_test_alone_stays_as_it_is(target: MakeTarget, tmp_path: Path) -> None:
    class OnlyThere(Inverted):
        def attack(self, target: Target, workplace: Workplace) -> Attempt:
            found = dict(super().attack(target, workplace).scores)
            found["validation"] = -found["validation"]
            return Attempt(found)

    climb(target(), tmp_path, rungs=[OnlyThere()])
    for stored in read_records(tmp_path):
        assert isinstance(stored.record, AttackRecord)
        assert stored.record.auc < 0.1
        assert stored.record.details["sign"] == 1


def test_validation_pairs_are_an_anonymised_and_a_real_image_of_no_test_patient(
    target: MakeTarget, pool: Pool
) -> None:
    (pairs,) = target().validations.values()
    test = set(pool.patients[pool.split("test")])
    assert not test & set(pool.patients[np.concatenate((pairs.first, pairs.second))])
    one = target(settings={"fresh": {"validation_pairs": "none"}})
    assert one.validations == {}
    assert one.scored.keys() == one.lists.keys()


def test_an_inverted_verifier_searches_by_what_is_least_alike(
    target: MakeTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    climb(target(), tmp_path / "as it is", rungs=[Search("frozen")])
    for name in ("compare", "across"):
        right = getattr(OfVerifier, name)
        monkeypatch.setattr(OfVerifier, name, lambda *words, right=right: -right(*words))
    climb(target(), tmp_path / "inverted", rungs=[Search("frozen")])
    one, other = (stored.record for stored in read_records(tmp_path))
    assert isinstance(one, RetrievalRecord)
    assert isinstance(other, RetrievalRecord)
    assert (one.details["sign"], other.details["sign"]) == (1, -1)
    assert other.rank1 == pytest.approx(one.rank1, abs=0.05)


def test_an_ensemble_drops_who_is_at_chance(target: MakeTarget, tmp_path: Path) -> None:
    against = target()
    source = np.random.default_rng(5)
    noise = {name: source.normal(size=len(pairs)) for name, pairs in against.scored.items()}
    good = Inverted().attack(against, Workplace(tmp_path, "inverted", 1)).scores
    noise["validation"][:] = 0.0
    attempt = ensemble(against, {"good": good, "noise": noise})
    assert attempt.shares == {"miniature": {"good": -1.0, "noise": 0.0}}
    assert auc(attempt.scores["test"], against.lists["test"].same) == pytest.approx(
        1 - auc(good["test"], against.lists["test"].same)
    )


def test_the_control_that_trains_can_be_left_out_and_the_cheap_ones_stay(
    target: MakeTarget, tmp_path: Path
) -> None:
    against = target(settings={"control_seeds": 0})
    rungs = rungs_of((0,))
    climbed = climb(against, tmp_path, rungs=rungs)
    assert "control_seeds is 0" in climbed.left_out["0 shuffled-identities"]
    records = [stored.record for stored in read_records(tmp_path)]
    names = {record.rung.name for record in records if isinstance(record, AttackRecord)}
    assert names == {"pixel-correlation", "without-border", "border-alone"}
    assert {rung.learns(against.settings) for rung in rungs} == {"nothing"}
