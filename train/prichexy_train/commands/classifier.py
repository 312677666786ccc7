"""``prichexy-train classifier``."""

from __future__ import annotations

from prichexy_train.commands.options import Config, Data, Minutes, Run, Set, run_stage

__all__ = ["classifier"]


def classifier(
    config: Config, data: Data, run: Run, minutes: Minutes = None, changes: Set = None
) -> None:
    """Train the network that finds abnormalities.

    It goes on from where the run folder stands. Exit codes: 0 finished; 1 an error; 2 wrong use
    or configuration; 75 the minutes are over: run the same command again; 130 stopped by Ctrl-C.
    """
    from prichexy_train.stages.classifier import ClassifierSettings, run_classifier  # noqa: PLC0415 - torch

    run_stage(ClassifierSettings, run_classifier, config, data, run, minutes, changes)
