"""``prichexy-train trial``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prichexy_train.commands.attack import end, show_progress
from prichexy_train.commands.options import Config, Data, Minutes, Run, Set, deadline_in

__all__ = ["trial"]


def trial(
    config: Config,
    data: Data,
    run: Run,
    verifier: Annotated[Path, typer.Option("--verifier", help="The run of a verifier.")],
    minutes: Minutes = None,
    changes: Set = None,
) -> None:
    """Test one verifier on real images, on the pairs and the gallery of the attacks in CONFIG.

    For a learning curve: what more patients, or another training, are worth. Exit codes: 0
    finished; 1 an error; 2 wrong use or configuration; 75 the minutes are over: run the same
    command again; 130 stopped by Ctrl-C.
    """
    from prichexy_train.attacks.settings import AttackSettings  # noqa: PLC0415 - torch
    from prichexy_train.attacks.trial import run_trial  # noqa: PLC0415
    from prichexy_train.settings import read_settings  # noqa: PLC0415

    settings = read_settings(config, AttackSettings, changes or ())
    show_progress()
    done = run_trial(settings, data, run, verifier=verifier, deadline=deadline_in(minutes))
    end(run, done.ended, f"finished; {done.records} new records")
