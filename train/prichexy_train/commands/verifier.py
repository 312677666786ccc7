"""``prichexy-train verifier``."""

from __future__ import annotations

from prichexy_train.commands.options import Config, Data, Minutes, Run, Set, run_stage

__all__ = ["verifier"]


def verifier(
    config: Config, data: Data, run: Run, minutes: Minutes = None, changes: Set = None
) -> None:
    """Train the network that tells whether two radiographs are one patient's.

    It goes on from where the run folder stands. Exit codes: 0 finished; 1 an error; 2 wrong use
    or configuration; 75 the minutes are over: run the same command again; 130 stopped by Ctrl-C.
    """
    from prichexy_train.stages.verifier import VerifierSettings, run_verifier  # noqa: PLC0415 - torch

    run_stage(VerifierSettings, run_verifier, config, data, run, minutes, changes)
