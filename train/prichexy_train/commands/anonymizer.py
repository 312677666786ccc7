"""``prichexy-train anonymizer``."""

from __future__ import annotations

from prichexy_train.commands.options import Config, Data, Minutes, Run, Set, run_stage

__all__ = ["anonymizer"]


def anonymizer(
    config: Config, data: Data, run: Run, minutes: Minutes = None, changes: Set = None
) -> None:
    """Train the network that anonymises, against a verifier and a classifier.

    The runs of the two, and of the pretraining, are named in the configuration, or by --set
    critics.verifiers=…, critics.classifier=… and start=…. It goes on from where the run folder
    stands. Exit codes: 0 finished; 1 an error; 2 wrong use or configuration; 75 the minutes are
    over: run the same command again; 130 stopped by Ctrl-C.
    """
    from prichexy_train.stages.adversarial import (  # noqa: PLC0415 - torch
        AdversarialSettings,
        run_adversarial,
    )

    run_stage(AdversarialSettings, run_adversarial, config, data, run, minutes, changes)
