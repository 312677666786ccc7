"""``prichexy-train pretrain``."""

from __future__ import annotations

from prichexy_train.commands.options import Config, Data, Minutes, Run, Set, run_stage

__all__ = ["pretrain"]


def pretrain(
    config: Config, data: Data, run: Run, minutes: Minutes = None, changes: Set = None
) -> None:
    """Teach a network that will anonymise to change nothing, before it learns what to change.

    It goes on from where the run folder stands. Exit codes: 0 finished; 1 an error; 2 wrong use
    or configuration; 75 the minutes are over: run the same command again; 130 stopped by Ctrl-C.
    """
    from prichexy_train.stages.pretraining import (  # noqa: PLC0415 - torch
        PretrainingSettings,
        run_pretraining,
    )

    run_stage(PretrainingSettings, run_pretraining, config, data, run, minutes, changes)
