"""Which models the workers that are alive work with, by their own word."""

from __future__ import annotations

from dataclasses import dataclass

from prichexy_plugin.dashboard.needs import is_silent
from prichexy_plugin.dashboard.view import Overview
from prichexy_worker.contract import ModelInfo

__all__ = ["ModelInUse", "models_in_use"]


@dataclass(frozen=True, slots=True)
class ModelInUse:
    """A model, and how many living workers work with it."""

    info: ModelInfo
    workers: int


def models_in_use(overview: Overview) -> tuple[ModelInUse, ...]:
    """Give each model once, by name."""
    living = [
        worker.announcement.model
        for worker in overview.workers
        if not is_silent(worker, overview.at)
    ]
    models = sorted(set(living), key=lambda model: (model.name, model.digest))
    return tuple(ModelInUse(model, living.count(model)) for model in models)
