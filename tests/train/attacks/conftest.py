"""A set of drawn chests, a verifier that knows them well, and targets to attack."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prichexy_testing.attackers import BRIEF, CPU, LEARNS, SIZE
from prichexy_testing.miniature_chestxray14 import prepared
from prichexy_train.attacks.settings import AttackSettings
from prichexy_train.attacks.target import Target
from prichexy_train.data.images import Images
from prichexy_train.data.pool import Pool
from prichexy_train.data.prepared import PreparedSet
from prichexy_train.records import MethodOf
from prichexy_train.stages.verifier import VerifierSettings, run_verifier


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    return prepared(tmp_path_factory.mktemp("chests"), patients=64, size=SIZE)


@pytest.fixture(scope="session")
def pool(data: PreparedSet) -> Pool:
    return Pool.join([data])


@pytest.fixture(scope="session")
def strong(data: PreparedSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the run of a verifier whose AUC on real test pairs is far above 0.5."""
    run = tmp_path_factory.mktemp("strong")
    run_verifier(VerifierSettings.model_validate(LEARNS), [data.folder], run)
    return run


@pytest.fixture
def target(pool: Pool, strong: Path) -> Callable[..., Target]:
    """Give a target whose anonymised images are ``images``, the real ones by default."""

    def make(images: Images | None = None, **words: Any) -> Target:
        settings = AttackSettings.model_validate(
            {
                "seeds": 2,
                "control_seeds": 1,
                "device": "cpu",
                "fresh": BRIEF,
                "tuning": {"training": BRIEF["training"]},
                "registration": {"size": SIZE, "cells": 4, "steps": 3},
            }
            | words.pop("settings", {})
        )
        known: dict[str, Any] = {
            "pool": pool,
            "method": MethodOf(name="method", digest="d"),
            "anonymised": images if images is not None else pool.images,
            "settings": settings,
            "device": CPU,
            "verifiers": (strong,),
        }
        return Target(**known | words)

    return make
