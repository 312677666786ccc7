"""Nobody is tested on patients that he learned from."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prichexy_testing.miniature_runs import Runs, adversarial
from prichexy_train.data.pool import Pool
from prichexy_train.errors import Misconfigured
from prichexy_train.runs import RunFolder
from prichexy_train.stages import adversarial as stage
from prichexy_train.stages.training_run import open_pool
from prichexy_train.stages.verifier import VerifierSettings, run_verifier
from prichexy_train.unseen import check_unseen, held_back


@pytest.fixture
def pool(miniature_runs_made: Runs) -> Pool:
    return open_pool([miniature_runs_made.data])


def prepared_again(pool: Pool, *, other_test: bool, name: str = "miniature") -> Pool:
    """Give the pool as another call of ``prepare`` might have made it."""
    (one,) = pool.sets
    parts = np.roll(one.parts, 1) if other_test else one.parts
    return Pool.join([replace(one, parts=parts, digest="another", name=name)])


def without_what_it_was_tested_on(run: Path, to: Path) -> Path:
    """Copy a run as an earlier version would have left it."""
    shutil.copytree(run, to)
    provenance = RunFolder(to).provenance()
    del provenance["held_back"]
    (to / "provenance.json").write_text(json.dumps(provenance))
    return to


def test_every_stage_says_which_test_images_it_did_not_learn_from(
    miniature_runs_made: Runs, pool: Pool, tmp_path: Path
) -> None:
    runs = miniature_runs_made
    trained = adversarial(runs, tmp_path / "run")
    for run in (runs.verifier, runs.classifier, runs.pretrained, trained):
        assert RunFolder(run).provenance()["held_back"] == held_back(pool)
        check_unseen(run, pool)


def test_the_same_test_images_in_a_set_that_was_prepared_again_are_unseen(
    miniature_runs_made: Runs, pool: Pool, tmp_path: Path
) -> None:
    again = prepared_again(pool, other_test=False)
    check_unseen(miniature_runs_made.verifier, again)
    old = without_what_it_was_tested_on(miniature_runs_made.verifier, tmp_path / "old")
    check_unseen(old, pool)
    with pytest.raises(Misconfigured, match="does not say"):
        check_unseen(old, again)
    # The command that trained it trains nothing twice, and says what it held back.
    before = (old / "best.pt").read_bytes()
    run_verifier(
        VerifierSettings.model_validate(RunFolder(old).settings()), [miniature_runs_made.data], old
    )
    check_unseen(old, again)
    assert (old / "best.pt").read_bytes() == before


def test_other_test_images_of_the_same_set_may_have_been_seen(
    miniature_runs_made: Runs, pool: Pool
) -> None:
    other = prepared_again(pool, other_test=True)
    with pytest.raises(Misconfigured, match="miniature with other test images"):
        check_unseen(miniature_runs_made.verifier, other)
    both = Pool.join([*prepared_again(pool, other_test=True, name="else").sets, *pool.sets])
    check_unseen(miniature_runs_made.verifier, both)
    with pytest.raises(Misconfigured, match="other test images"):
        check_unseen(
            miniature_runs_made.verifier,
            Pool.join([*prepared_again(pool, other_test=False, name="else").sets, *other.sets]),
        )


def test_a_set_of_another_name_is_of_other_people(miniature_runs_made: Runs, pool: Pool) -> None:
    check_unseen(miniature_runs_made.verifier, prepared_again(pool, other_test=True, name="else"))


def test_a_generator_is_not_taught_by_critics_who_know_the_test_patients(
    miniature_runs_made: Runs, pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = prepared_again(pool, other_test=True)
    monkeypatch.setattr(stage, "open_pool", lambda _: other)
    with pytest.raises(Misconfigured, match="other test images"):
        adversarial(miniature_runs_made, tmp_path / "run")
    assert not (tmp_path / "run").exists()
